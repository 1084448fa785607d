/* The launcher: the only code that forks. Starts a VMM in a session of its own and watches it by
 * pidfd.
 *
 * The child gets exactly the descriptors it is given, as 3, 4, …; stdin is /dev/null, stdout and
 * stderr go to `output`. No core dumps (they would hold guest memory). Signals are at their
 * defaults. An exec failure is reported here, not by an exit status.
 */
#ifndef VF_VMM_PROCESS_H
#define VF_VMM_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>
#include "base/error.h"

#define VF_LAUNCH_MAX_FDS 24
#define VF_LAUNCH_FIRST_FD 3

struct vf_launch {
    const char *binary; /* absolute path */
    char *const *argv;  /* NULL-ended */
    const int *fds;     /* fds[i] becomes descriptor VF_LAUNCH_FIRST_FD + i */
    int n_fds;
    int output;           /* for stdout and stderr */
    bool die_with_parent; /* SIGKILL when the calling thread ends */
};

struct vf_exit {
    bool signaled;
    int code; /* exit status, or the signal's number */
};

struct vf_process;
typedef void (*vf_exit_cb)(struct vf_process *p, const struct vf_exit *how);

/* A process is its pid, when it started, and its pidfd: a number alone may be somebody else's. */
struct vf_process {
    pid_t pid;
    uint64_t start_ticks; /* /proc/PID/stat field 22, clock ticks since boot */
    int pidfd;            /* -1: none */
    bool exited;
    uv_poll_t poll;
    bool polling; /* poll is an open handle */
    vf_exit_cb on_exit;
    uv_close_cb on_closed;
    void *data;
};

/* Blocks until the child has called exec. On success *ret has pid, start_ticks and pidfd. */
int vf_process_launch(const struct vf_launch *l, struct vf_process *ret, struct vf_error *err);
/* Calls on_exit once, on the loop, after the process was reaped. */
int vf_process_watch(struct vf_process *p, uv_loop_t *loop, vf_exit_cb on_exit, void *data,
                     struct vf_error *err);
/* By pidfd; no-op once it has exited. */
void vf_process_kill(struct vf_process *p, int sig);
/* Stops watching and closes the pidfd; the process is left alone. on_closed is called when p may be
 * freed (with the handle whose data is p), never before this returns. Returns false, and calls
 * nothing, if there was no handle to close. */
bool vf_process_close(struct vf_process *p, uv_close_cb on_closed);
/* "exited with status 1", "killed by signal 9 (Killed)". */
void vf_exit_text(const struct vf_exit *how, char *ret, size_t size);

#endif

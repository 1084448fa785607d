/* The launcher: the only code that forks. Starts a VMM in a session of its own and watches it by
 * pidfd. A process that an earlier process of ours started is found again by its record.
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
#define VF_PROCESS_NAME "process" /* the record of a VM's process, in the directory of the VM */

struct vf_launch {
    const char *binary; /* absolute path */
    char *const *argv;  /* NULL-ended */
    const int *fds;     /* fds[i] becomes descriptor VF_LAUNCH_FIRST_FD + i */
    int n_fds;
    int output;     /* for stdout and stderr */
    bool has_stdio; /* stdin and stdout are these instead, stderr stays output */
    int input_fd, output_fd;
    bool has_cwd; /* it runs in this directory, else in ours */
    int cwd_fd;
    bool has_netns; /* it runs in this network namespace, else in ours */
    int netns_fd;
    /* Of the privileges we may have, it keeps those over files, and if it needs them: */
    bool net_admin;  /* to open taps by their names that others own, and to change interfaces */
    bool userfaults; /* to answer the kernel's page faults, too (userfaultfd) */
    int max_files;   /* how many descriptors it may have; 0: as many as we */
    bool die_with_parent; /* SIGKILL when the calling thread ends */
    int record;           /* the child writes there who it is, before it runs the binary; -1: not */
};

struct vf_exit {
    bool signaled;
    bool unknown; /* it was not our child: its parent alone is told how it ended */
    int code;     /* exit status, or the signal's number */
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
/* For the child of a launch: system calls only; -1 and errno. process_privileges.c. */
int vf_process_drop_privileges(const struct vf_launch *l);
/* Calls on_exit once, on the loop, after the process was reaped. */
int vf_process_watch(struct vf_process *p, uv_loop_t *loop, vf_exit_cb on_exit, void *data,
                     struct vf_error *err);
/* By pidfd; no-op once it has exited. */
void vf_process_kill(struct vf_process *p, int sig);
/* Stops watching and closes the pidfd; the process is left alone. on_closed is called when p may be
 * freed (with the handle whose data is p), never before this returns. Returns false, and calls
 * nothing, if there was no handle to close. */
bool vf_process_close(struct vf_process *p, uv_close_cb on_closed);
/* Kills it if it lives and waits for its end, and reaps it if it is a child of ours. Blocks, timeout_ms at most. */
int vf_process_end(struct vf_process *p, int timeout_ms, struct vf_error *err);
/* "exited with status 1", "was killed by signal 9 (Killed)", "ended". */
void vf_exit_text(const struct vf_exit *how, char *ret, size_t size);

/* --- processes that an earlier process of ours started (process_find.c) */
/* An empty record in dirfd, locked until whoever was launched with it runs its binary, or never will. */
int vf_process_record(int dirfd, const char *name, int *ret_fd, struct vf_error *err);
/* Who wrote itself into the record. VF_NOT_FOUND: there is none, or none that can be alive: it never got as far as
 * to run its binary, or the host has booted since. Waits, at most a few seconds, for a process between the two:
 * for worker threads. */
int vf_process_read(int dirfd, const char *name, pid_t *ret_pid, uint64_t *ret_start_ticks,
                    struct vf_error *err);
/* VF_NOT_FOUND: it has ended, whoever has its number now. */
int vf_process_open(pid_t pid, uint64_t start_ticks, struct vf_process *ret, struct vf_error *err);
/* Field 22 of the text of /proc/PID/stat; 0 if that is none. */
uint64_t vf_process_start_ticks(const char *stat_text);

#endif

/* A command in a guest: streams under one id of the agent protocol, with a window in each direction.
 *
 * vf_exec is the stream: output comes in pieces, the consumer says when it has used them up, and
 * the guest sends no more than VF_WIRE_WINDOW beyond that. vf_run is for those who only want the
 * result: it collects both outputs up to a cap.
 */
#ifndef VF_FACTORY_EXEC_H
#define VF_FACTORY_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include "factory/agent.h"

struct vf_exec_options {
    char *const *argv;  /* NULL-ended */
    char *const *env;   /* NAME=value, NULL-ended; NULL: the agent's own */
    const char *cwd;    /* NULL: / */
    int64_t timeout_ms; /* the guest kills the command then; <= 0: none */
};

struct vf_exec_status {
    bool signaled, timed_out;
    int code; /* exit status or signal */
};

struct vf_exec;
struct vf_exec_callbacks {
    /* fd: 1 or 2; len 0: end of that stream. The consumer calls vf_exec_consumed when done with it. */
    void (*output)(void *arg, int fd, const void *data, size_t len);
    /* More stdin may be written. */
    void (*writable)(void *arg);
    /* The last call: exactly one of status and err. The exec is freed after it. */
    void (*exited)(void *arg, const struct vf_exec_status *status, const struct vf_error *err);
};

int vf_exec_start(struct vf_agent *a, const struct vf_exec_options *o,
                  const struct vf_exec_callbacks *cb, void *arg, struct vf_exec **ret_exec,
                  struct vf_error *err);
void vf_exec_consumed(struct vf_exec *e, size_t bytes);
/* Takes as much as the window and the channel's queue allow; returns how much that was (`writable` comes when it
 * is worth another try), or a negative errno. */
ssize_t vf_exec_write(struct vf_exec *e, const void *data, size_t len, struct vf_error *err);
/* VF_BUSY: the queue is full; again when `writable` comes. */
int vf_exec_close_stdin(struct vf_exec *e, struct vf_error *err);
/* Likewise. */
int vf_exec_kill(struct vf_exec *e, int sig, struct vf_error *err);
/* Lets go: kills the command (SIGKILL) and calls nothing any more. */
void vf_exec_abandon(struct vf_exec *e);

/* --- run to the end */
struct vf_run_result {
    struct vf_exec_status status;
    const char *out, *errout; /* NUL-terminated beyond their lengths; valid during the call */
    size_t out_len, err_len;
    bool truncated; /* more than max_output came; the rest was dropped */
};
typedef void (*vf_run_cb)(void *arg, const struct vf_run_result *res, const struct vf_error *err);
/* in: all of stdin, copied; may be NULL. max_output: bytes kept of each of stdout and stderr. */
int vf_run(struct vf_agent *a, const struct vf_exec_options *o, const void *in, size_t in_len,
           size_t max_output, vf_run_cb done, void *arg, struct vf_error *err);

#endif

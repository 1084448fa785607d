/* A client of QMP, QEMU's machine protocol: one JSON object a line, over a connected unix socket
 * (docs/interop/qmp-spec in QEMU's sources).
 *
 * The peer is hostile: a line longer than VF_QMP_MAX_LINE, text that is no JSON object, a reply to
 * nothing, more queued output than VF_QMP_MAX_OUT end the connection; everything pending then fails
 * with one error. Commands may be queued before the greeting; they are sent after it.
 */
#ifndef VF_VMM_QMP_H
#define VF_VMM_QMP_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>
#include "base/error.h"
#include "base/json.h"

#define VF_QMP_MAX_LINE (256 * 1024)
#define VF_QMP_MAX_OUT (64 * 1024)
#define VF_QMP_MAX_PENDING 16

struct vf_qmp;
/* ret: the reply's "return", valid during the call; NULL if err is set. */
typedef void (*vf_qmp_reply_cb)(void *arg, const struct vf_json *ret, const struct vf_error *err);

struct vf_qmp_callbacks {
    /* The greeting came: version as "7.2.22". */
    void (*greeting)(void *arg, const char *version);
    void (*event)(void *arg, const char *name, const struct vf_json *data);
    /* The connection is of no more use; err says why. Called once, after all pending replies failed. */
    void (*broken)(void *arg, const struct vf_error *err);
};

struct vf_qmp {
    int fd;
    uv_poll_t poll;
    bool polling, greeted, is_broken, closing;
    const struct vf_qmp_callbacks *cb;
    void *arg;
    uv_close_cb on_closed;

    char *in;
    size_t in_len, in_cap;

    struct {
        char *text;
        size_t len, sent;
        int fd; /* goes with the first byte; -1: none */
    } out[VF_QMP_MAX_PENDING];
    int n_out;
    size_t out_bytes;

    struct {
        uint32_t id; /* 0: free */
        const char *command;
        vf_qmp_reply_cb done;
        void *arg;
    } pending[VF_QMP_MAX_PENDING];
    uint32_t next_id;
};

/* Takes over the connected, non-blocking fd, also on failure. */
int vf_qmp_open(struct vf_qmp *q, uv_loop_t *loop, int fd, const struct vf_qmp_callbacks *cb,
                void *arg, struct vf_error *err);
/* Queues a command. args: a JSON object's text, or NULL. fd: sent along by SCM_RIGHTS (duplicated), or
 * -1. done may be NULL: an error is then ignored. command must be a constant string. */
int vf_qmp_execute(struct vf_qmp *q, const char *command, const char *args, int fd,
                   vf_qmp_reply_cb done, void *arg, struct vf_error *err);
/* Drops everything pending without a callback and closes. Returns false, and calls nothing, if there
 * is no handle to close; else on_closed comes later (with the handle whose data is q). */
bool vf_qmp_close(struct vf_qmp *q, uv_close_cb on_closed);

#endif

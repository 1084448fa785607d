/* One connection to the daemon: a blocking socket with deadlines, and what was read ahead. Not for others.
 *
 * A deadline costs nothing where it is not needed: the socket's own time limits (SO_RCVTIMEO) are set when they
 * change, so that a request on a kept connection is one send(2) and one recv(2). Only with a descriptor to watch for
 * cancelling does each wait go through poll(2).
 */
#ifndef VF_CLIENT_CONN_H
#define VF_CLIENT_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

#define VF_CONN_BUFFER (64 * 1024)

struct vf_conn {
    int fd;                         /* -1: none */
    int cancel_fd;                  /* -1: none */
    int rcv_timeo_ms, snd_timeo_ms; /* as the socket has them; 0: none */
    int64_t used_us;                /* when it was last used */
    char *buf; /* VF_CONN_BUFFER bytes; what was read and not taken: start..end */
    size_t start, end;
};

#define VF_CONN_INIT              \
    (struct vf_conn)              \
    {                             \
        .fd = -1, .cancel_fd = -1 \
    }

/* Any length of path. -ECONNREFUSED, -ENOENT, -EACCES … as connect(2) says; -ETIMEDOUT. */
int vf_conn_open(struct vf_conn *c, const char *path, int64_t deadline_us, struct vf_error *err);
/* Keeps cancel_fd. */
void vf_conn_close(struct vf_conn *c);
/* Has the peer closed it, or said something unasked, since it was last used? */
bool vf_conn_stale(struct vf_conn *c);
/* Sends all. -EPIPE: the peer had closed; ret_sent (may be NULL) says how much had gone before. */
int vf_conn_send(struct vf_conn *c, const void *data, size_t len, int64_t deadline_us,
                 size_t *ret_sent, struct vf_error *err);
/* Reads more behind what is there: how many bytes, 0 at the end of the stream; -ENOBUFS: buf is full. */
int vf_conn_fill(struct vf_conn *c, int64_t deadline_us, struct vf_error *err);
/* Drops the first n bytes of what is there. */
void vf_conn_take(struct vf_conn *c, size_t n);

#endif

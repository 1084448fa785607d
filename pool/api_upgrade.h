/* Connections that have left HTTP: what those of commands and of taps share, from the 101 to the close.
 *
 *     vf_api_upgrade -> 101 -> begun -> ready … -> vf_api_upgrade_end (it, or the API's end) -> ended -> closed -> freed
 *                   \-> 101 was not sent -> ended -> freed
 *
 * The struct is embedded in the session of whoever serves the connection.
 */
#ifndef VF_POOL_API_UPGRADE_H
#define VF_POOL_API_UPGRADE_H

#include "pool/api_internal.h"

struct vf_api_upgrade_ops {
    const char *protocol;
    /* The socket is there; extra: what the peer had sent already. */
    void (*begun)(struct vf_api_upgrade *u, const char *extra, size_t extra_len);
    /* Of what vf_api_upgrade_poll asked for. An end of file or an error ends it without this. */
    void (*ready)(struct vf_api_upgrade *u, int events);
    void (*ended)(struct vf_api_upgrade *u); /* once; neither of the above comes after it */
    void (*freed)(struct vf_api_upgrade *u); /* last: its memory is the callee's again */
};
struct vf_api_upgrade {
    const struct vf_api_upgrade_ops *ops;
    struct vf_api *api;
    struct vf_api_upgrade *prev, *next; /* of the API, once upgraded */
    struct vf_http_upgraded *up;        /* NULL: not upgraded yet */
    uv_poll_t poll;
    int fd, polled;
    bool closing;
};

/* Answers req with 101. u is zeroed, and lives until freed. */
void vf_api_upgrade(struct vf_http_req *req, struct vf_api *a, struct vf_api_upgrade *u,
                    const struct vf_api_upgrade_ops *ops);
/* Calls ready on these events (UV_READABLE, UV_WRITABLE), from begun on. */
void vf_api_upgrade_poll(struct vf_api_upgrade *u, int events);
/* From any state; again: nothing. */
void vf_api_upgrade_end(struct vf_api_upgrade *u);
static inline bool vf_api_upgrade_open(const struct vf_api_upgrade *u)
{
    return u->up != NULL && !u->closing;
}

#endif

/* HTTP/1.1 on api.sock: libmicrohttpd, whose epoll descriptor lives on our loop.
 *
 *     connection -> request line, headers, body (bounded in size and time) -> route -> handler -> answer
 *
 * A handler answers at once, or defers: the connection is suspended until vf_http_reply_*. Whoever hangs up
 * meanwhile is told to the handler by on_gone; the answer then goes nowhere, and vf_http_reply_* says so. A
 * connection that has not sent a whole request within the time limit is closed, however slowly it drips; pipelined
 * requests are served one after the other.
 */
#ifndef VF_POOL_HTTP_H
#define VF_POOL_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>
#include "base/error.h"
#include "base/json.h"

struct vf_http;     /* a server */
struct vf_http_req; /* a request; lives until it was answered and its connection is done with it */

/* Who calls: SO_PEERCRED and SO_PEERGROUPS of the socket when it connected. */
struct vf_caller {
    uid_t uid;
    gid_t gid;
    pid_t pid;
    bool admin; /* root, the daemon's own user, or a member of the admin group */
};

struct vf_http_route {
    const char *method;  /* "GET"; HEAD is answered by GET's handler without a body */
    const char *pattern; /* "/v1/vms/{id}/exec": {…} is one path segment */
    bool admin;          /* 403 for others, before the body is looked at */
    void (*handler)(struct vf_http_req *req, void *arg);
};

struct vf_http_options {
    const struct vf_http_route *routes; /* ends with method == NULL */
    void *arg;                          /* for the handlers */
    int max_connections;
    int64_t request_timeout_ms;
    size_t max_body_bytes;
    gid_t admin_gid; /* (gid_t)-1: none */
};

/* Takes over listen_fd (a listening unix socket) on success. */
int vf_http_open(uv_loop_t *loop, int listen_fd, const struct vf_http_options *o,
                 struct vf_http **ret, struct vf_error *err);
/* Accepts no more; answers deferred so far may still be given until vf_http_close. */
void vf_http_quiesce(struct vf_http *h);
/* Ends every connection (on_gone is called for deferred ones), then calls done, never before it returns. */
void vf_http_close(struct vf_http *h, void (*done)(void *arg), void *arg);

/* --- in a handler */
const struct vf_caller *vf_http_caller(const struct vf_http_req *req);
/* The i-th {…} of the pattern, percent-decoded. */
const char *vf_http_param(const struct vf_http_req *req, int i);
/* A query argument, percent-decoded, or NULL. */
const char *vf_http_query(const struct vf_http_req *req, const char *name);
/* The i-th query argument's name, percent-decoded, or NULL past the last: to refuse one that nobody knows. */
const char *vf_http_query_name(const struct vf_http_req *req, int i);
/* NUL-terminated; "" if there is none. */
const char *vf_http_body(const struct vf_http_req *req, size_t *ret_len);
/* Decodes the body by fields into dst (defaults in it already); an empty body counts as {}. On failure the
 * answer (400, naming the field) is given, and false returned. vf_json_free stays the caller's. */
bool vf_http_decode(struct vf_http_req *req, const struct vf_json_field *fields, void *dst);
int64_t vf_http_began_us(const struct vf_http_req *req); /* when its headers were complete */

/* --- answers: exactly one a request. json is malloc'd and taken over (NULL: 500 no memory). */
void vf_http_reply_json(struct vf_http_req *req, int status, char *json);
void vf_http_reply_empty(struct vf_http_req *req, int status);
/* Status by err's code: invalid_argument 400, not_found 404, conflict 409, permission 403, busy 429,
 * timeout 504, unsupported 501, no_memory and no_space 507, cancelled 503, else 500. retry_after_s > 0: that header. */
void vf_http_reply_error(struct vf_http_req *req, const struct vf_error *err, int retry_after_s);

/* The handler returns without an answer, which comes later. on_gone: the peer hung up, or the server closes:
 * forget req after it. */
void vf_http_defer(struct vf_http_req *req, void (*on_gone)(void *arg), void *arg);
/* For answers whose loss matters (a lease): on_lost is called once if the answer could not be delivered: it failed
 * to be written, or the peer closed without having read it or has not read it within the time limit. Call before the
 * reply; arg must live until on_lost or on_kept (the peer has read it, or the server ended first), exactly one of
 * which is called; for a deferred request whose peer hangs up, on_lost comes some time after on_gone. The
 * connection's next request waits until the answer was read. */
void vf_http_watch_answer(struct vf_http_req *req, void (*on_lost)(void *arg),
                          void (*on_kept)(void *arg), void *arg);

/* A body of unknown length, in pieces (chunked). next: fills buf and returns how many bytes, 0: none now (call
 * vf_http_stream_more later), < 0: the end. closed: always the last call, however it ends. content_type: constant. */
struct vf_http_stream {
    ssize_t (*next)(void *arg, char *buf, size_t size);
    void (*closed)(void *arg);
    void *arg;
};
void vf_http_reply_stream(struct vf_http_req *req, int status, const char *content_type,
                          const struct vf_http_stream *s);
void vf_http_stream_more(struct vf_http_req *req);

/* True if the request asks to upgrade to this protocol ("Connection: Upgrade", "Upgrade: NAME"). */
bool vf_http_wants_upgrade(const struct vf_http_req *req, const char *protocol);
/* Answers 101; then upgraded is called with the socket, non-blocking, to be read and written by the
 * callee, and what the peer sent already. It is closed by vf_http_upgrade_close, not by close(2): at an end of file,
 * and when a uv_poll of it reports an error, for libuv has stopped that poll then. failed: 101 was not sent. */
struct vf_http_upgraded;
void vf_http_reply_upgrade(struct vf_http_req *req, const char *protocol,
                           void (*upgraded)(void *arg, struct vf_http_upgraded *u, int fd,
                                            const char *extra, size_t extra_len),
                           void (*failed)(void *arg), void *arg);
void vf_http_upgrade_close(struct vf_http_upgraded *u);

#endif

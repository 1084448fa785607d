/* What the files of the VMM's HTTP client share: http.c (the client, and plain requests by libcurl), http_fds.c
 * (requests that carry descriptors, over a socket of ours), http_answer.c (the head of an answer), http_error.c (what
 * an answer says went wrong). Not for others. */
#ifndef VF_VMM_HTTP_INTERNAL_H
#define VF_VMM_HTTP_INTERNAL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>
#include "vmm/http.h"

#define VF_VMM_HTTP_MAX_FDS 64

/* A request under way; each kind embeds it first. */
struct vf_vmm_http_call {
    struct vf_vmm_http *h;
    TAILQ_ENTRY(vf_vmm_http_call) link;
    uint64_t serial;
    char *name; /* for messages */
    vf_vmm_http_cb cb;
    void *arg;
    char *in; /* what has come: of the body, or, over our own socket, of head and body */
    size_t in_len, in_cap;
    /* Stops it without a callback, and frees it, at once or later. */
    void (*drop)(struct vf_vmm_http_call *c);
};
TAILQ_HEAD(vf_vmm_http_calls, vf_vmm_http_call);

struct vf_vmm_http {
    uv_loop_t *loop;
    int dirfd;
    char *socket_name;
    struct vf_vmm_http_calls calls;
    uint64_t serial;  /* of the newest call */
    int n_plain;      /* calls that multi carries */
    CURLM *multi;     /* NULL at rest: it holds descriptors */
    uv_timer_t timer; /* libcurl's; at hand for as long as the client is */
    int handles;      /* of libuv, not closed yet */
    bool closing;
    void (*on_closed)(void *arg);
    void *arg;
};

/* Fills the members of c, and makes it one of h's. */
int vf_vmm_http_begin(struct vf_vmm_http *h, struct vf_vmm_http_call *c,
                      const struct vf_vmm_http_request *r, vf_vmm_http_cb cb, void *arg,
                      struct vf_error *err);
/* Appends to c->in, max bytes at most; false: too much, or no memory. */
bool vf_vmm_http_take(struct vf_vmm_http_call *c, const char *data, size_t len, size_t max);
/* It has ended: with err, or with a whole answer, whose body is what c->in has from `skip` on. Drops c, then calls its
 * callback, which may close the client. */
void vf_vmm_http_end(struct vf_vmm_http_call *c, int status, size_t skip,
                     const struct vf_error *err);
/* A handle of the client's is closed. */
void vf_vmm_http_handle_closed(struct vf_vmm_http *h);
/* The error for a socket that can't be had. r: what vf_unix_connect returned. */
void vf_vmm_http_unreachable(const struct vf_vmm_http_call *c, int r, struct vf_error *err);

/* vf_vmm_http_send for a request with descriptors. */
int vf_vmm_http_send_fds(struct vf_vmm_http *h, const struct vf_vmm_http_request *r,
                         vf_vmm_http_cb cb, void *arg, struct vf_error *err);

struct vf_vmm_http_head {
    int status;
    size_t len;      /* of the head, with its empty line */
    size_t body_len; /* what Content-Length says */
};
/* The head of an answer. 1: whole; 0: there must be more to come; -EPROTO: it is none, or is longer than
 * VF_VMM_HTTP_MAX_HEAD, or announces a body over VF_VMM_HTTP_MAX_BODY, or doesn't say how long its body is. Answers
 * 1xx before it are skipped. */
int vf_vmm_http_parse_head(const char *buf, size_t len, struct vf_vmm_http_head *ret,
                           struct vf_error *err);

/* What an answer with an error status is about, as one line into err. */
void vf_vmm_http_error(const char *name, int status, const char *body, size_t len,
                       struct vf_error *err);

#endif

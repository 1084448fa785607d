/* What the files of pool/http*.c share; not for others.
 *
 *     http.c          the server: accepting, running libmicrohttpd, time limits, the end
 *     http_request.c  a request from its first line to the handler's return, and its end
 *     http_reply.c    answers: JSON, errors, streams, upgrades
 *     http_watch.c    who hung up, and whether an answer was read
 *     http_uri.c      paths, queries, header tokens: text alone
 */
#ifndef VF_POOL_HTTP_INTERNAL_H
#define VF_POOL_HTTP_INTERNAL_H

#include <microhttpd.h>
#include "pool/http.h"

#define VF_HTTP_MAX_HEADERS 8192 /* bytes, with the request line */
#define VF_HTTP_MAX_SEGMENTS 16
#define VF_HTTP_MAX_QUERY 16
#define VF_HTTP_MAX_PARAMS 4

/* ---- http_uri.c */
struct vf_http_uri {
    char *text;                                 /* owns what the others point to */
    const char *segments[VF_HTTP_MAX_SEGMENTS]; /* decoded */
    size_t n_segments;
    struct {
        const char *name, *value; /* decoded; "" if there was no = */
    } query[VF_HTTP_MAX_QUERY];
    size_t n_query;
};
/* Takes a request target apart. On failure u is empty. */
int vf_http_uri_parse(struct vf_http_uri *u, const char *target, struct vf_error *err);
void vf_http_uri_free(struct vf_http_uri *u);
/* Whether the path is of this pattern; ret_params get the segments at its {…}. */
bool vf_http_uri_match(const struct vf_http_uri *u, const char *pattern,
                       const char *ret_params[VF_HTTP_MAX_PARAMS]);
/* The path that was perhaps meant, as text; "" if none is near. */
void vf_http_uri_nearest(const struct vf_http_uri *u, const struct vf_http_route *routes, char *buf,
                         size_t size);
/* Whether a header's comma-separated value holds token, whatever its case. value may be NULL. */
bool vf_http_has_token(const char *value, const char *token);

/* ---- http_watch.c: what is in the server's own epoll set, edge-triggered */
struct vf_http_answer_watch { /* on_lost == NULL: none */
    void (*on_lost)(void *arg);
    void (*on_kept)(void *arg);
    void *arg;
};

struct vf_http_conn {
    struct vf_http *h;
    struct MHD_Connection *mhd;
    int fd; /* libmicrohttpd's */
    struct vf_caller caller;
    struct vf_http_req *req;           /* being served, or NULL */
    struct vf_http_answer_watch watch; /* of the answer before: written, not known to be read */
    bool waiting;                      /* suspended until that is decided */
    bool in_watch_set;
    bool caller_known;
    bool slow_lane; /* see vf_http_suspend */
    bool shut;      /* shut down by us, at the end of the server */
    struct vf_http_conn *prev, *next;
    /* Waiting for its peer since: in h->limited, oldest first. */
    bool limited;
    uint64_t since_ms;
    struct vf_http_conn *limited_prev, *limited_next;
};

int vf_http_watch_open(struct vf_http *h, struct vf_error *err);
/* Adds c to the set; a failure means that a hang-up is noticed late. */
void vf_http_watch_conn(struct vf_http_conn *c);
void vf_http_unwatch_conn(struct vf_http_conn *c);
/* Looks who hung up or has read; before each MHD_run. */
void vf_http_watch_look(struct vf_http *h);
void vf_http_answer_kept(struct vf_http_answer_watch *w);
void vf_http_answer_lost(struct vf_http_answer_watch *w);
/* The answer was written: if it is watched and not read yet, the connection is suspended until it is. */
void vf_http_await_reading(struct vf_http_conn *c);
/* Enough of that: what is not decided counts as lost or kept. */
void vf_http_await_end(struct vf_http_conn *c, bool lost);

/* ---- http.c */
struct vf_http {
    uv_loop_t *loop;
    struct vf_http_options o;
    struct MHD_Daemon *mhd;
    int listen_fd;
    uv_poll_t listen_poll, mhd_poll, watch_poll;
    uv_timer_t limit_timer, accept_timer;
    uv_check_t check; /* runs libmicrohttpd after what others on the loop have changed */
    uv_idle_t idle;   /* keeps the loop from sleeping until that has happened */
    int open_handles;
    int watch_epoll;
    int n_watched; /* in watch_epoll */
    bool accepting, kicked, closing;
    int n_conns;
    struct vf_http_conn *conns, *limited_head, *limited_tail;
    void (*done)(void *arg);
    void *done_arg;
};
/* Something changed that libmicrohttpd must look at: it runs soon, never from within. */
void vf_http_kick(struct vf_http *h);
/* The peer has request_timeout_ms from now. */
void vf_http_limit_start(struct vf_http_conn *c);
void vf_http_limit_stop(struct vf_http_conn *c);

/* ---- http_request.c */
enum vf_http_req_state {
    VF_HTTP_READING,  /* headers and body come in */
    VF_HTTP_HANDLING, /* its handler runs, or an answer lies ready */
    VF_HTTP_DEFERRED, /* suspended, no answer yet */
    VF_HTTP_ANSWERED, /* libmicrohttpd has the answer */
    VF_HTTP_GONE      /* hung up before the answer */
};

struct vf_http_req {
    struct vf_http_conn *conn;
    enum vf_http_req_state state;
    bool head, http11, headers_done;
    bool answered;  /* an answer was given, if only in response */
    bool deferred;  /* vf_http_defer was called */
    bool suspended; /* in libmicrohttpd: deferred, or a stream without data */
    const struct vf_http_route *route;
    struct vf_http_uri uri;
    const char *params[VF_HTTP_MAX_PARAMS];
    char *body;
    size_t body_len, body_cap;
    int64_t began_us;
    int status;
    struct MHD_Response *response; /* until it is queued */
    void (*on_gone)(void *arg);
    void *gone_arg;
    struct vf_http_answer_watch watch;
    struct vf_http_stream stream; /* closed == NULL: none */
    bool stream_dead, stream_more;
    struct vf_http_upgraded {
        struct vf_http_req *req;
        struct MHD_UpgradeResponseHandle *handle; /* NULL: not yet, or closed */
        void (*upgraded)(void *arg, struct vf_http_upgraded *u, int fd, const char *extra,
                         size_t extra_len);
        void (*failed)(void *arg); /* NULL once upgraded was called */
        void *arg;
    } upgrade;
};

/* libmicrohttpd's callbacks; cls is the server */
void *vf_http_on_request_line(void *cls, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result vf_http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                   const char *method, const char *version, const char *data,
                                   size_t *size, void **con_cls);
void vf_http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                          enum MHD_RequestTerminationCode code);
/* The end of a request; delivered: its answer was written whole. */
void vf_http_req_finish(struct vf_http_req *req, bool delivered);
void vf_http_suspend(struct vf_http_req *req);
void vf_http_resume(struct vf_http_req *req);
/* Its peer is gone, or the server closes: tells whoever deals with it and lets it end. */
void vf_http_req_gone(struct vf_http_req *req);

/* ---- http_reply.c */
/* {"error":{…}} with headers; allow may be NULL, retry_after_s 0. */
void vf_http_refuse(struct vf_http_req *req, int status, const struct vf_error *err,
                    const char *allow, int retry_after_s);

#endif

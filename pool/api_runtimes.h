/* What the handlers of /v1/classes and /v1/assets share: an answer that a worker has to be waited for. */
#ifndef VF_POOL_API_RUNTIMES_H
#define VF_POOL_API_RUNTIMES_H

#include "pool/api_internal.h"
#include "pool/show_runtimes.h"

struct vf_later {
    struct vf_api *api;
    struct vf_http_req *req;          /* NULL: the caller has gone */
    char name[VF_CLASS_NAME_MAX + 2]; /* of what it is about, or one that is too long; "": all */
    int status;                       /* of a good answer */
    char *(*show)(const struct vf_later *l, const struct vf_stored *s,
                  struct vf_error *err); /* JSON; NULL: err */
};

/* For the routes' first parameter. NULL without memory: answered. */
struct vf_later *vf_later_new(struct vf_http_req *req, struct vf_api *a, int status,
                              char *(*show)(const struct vf_later *l, const struct vf_stored *s,
                                            struct vf_error *err));
/* What submitting it returned. A failure is answered and l freed; else the request waits. */
void vf_later_wait(struct vf_later *l, int r, const struct vf_error *err);
/* Looks into the store, then answers with show. Before or after vf_later_wait. */
int vf_later_look(struct vf_later *l, struct vf_error *err);
/* The whole of a GET: looks, then answers with show. */
void vf_later_show(struct vf_http_req *req, struct vf_api *a,
                   char *(*show)(const struct vf_later *l, const struct vf_stored *s,
                                 struct vf_error *err));
/* The whole of a PUT: take parses the body and submits it with vf_later_done; then as above. */
void vf_later_take(struct vf_http_req *req, struct vf_api *a,
                   char *(*show)(const struct vf_later *l, const struct vf_stored *s,
                                 struct vf_error *err),
                   int (*take)(struct vf_later *l, const char *text, size_t len,
                               struct vf_error *err));
/* VF_INVALID_ARGUMENT: name, which is the body's, is not that of the path. */
int vf_later_same_name(const struct vf_later *l, const char *name, struct vf_error *err);
/* A vf_done_cb: answers a failure, or looks and shows. */
void vf_later_done(void *arg, const struct vf_error *err);
/* A vf_done_cb: answers a failure, or 204. */
void vf_later_gone(void *arg, const struct vf_error *err);

#endif

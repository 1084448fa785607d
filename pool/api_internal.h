/* Inside the API: its struct, the handlers, and what they share. */
#ifndef VF_POOL_API_INTERNAL_H
#define VF_POOL_API_INTERNAL_H

#include <sys/queue.h>
#include "pool/api.h"

struct vf_api_upgrade;
struct vf_taps;
struct vf_api {
    uv_loop_t *loop;
    struct vf_pools *pools;
    struct vf_events *events;
    const struct vf_settings *settings;
    struct vf_http *http;
    int64_t began_us;
    bool stopping, closing, http_closing;
    struct vf_api_upgrade *upgrades;       /* upgraded connections */
    LIST_HEAD(vf_taps_list, vf_taps) taps; /* those of them that brought taps, or will */
    void (*closed)(void *arg);
    void *closed_arg;
};

/* --- api.c. Those that return bool have given the answer if it is false. */
/* known: the names of query arguments there are, NULL-ended; NULL: none. */
bool vf_api_query(struct vf_http_req *req, const char *const *known);
/* true or false; *ret stays if it is not given. */
bool vf_api_query_bool(struct vf_http_req *req, const char *name, bool *ret);
/* A whole number from 0 on; likewise. */
bool vf_api_query_int(struct vf_http_req *req, const char *name, int64_t *ret);
/* For what changes something: not while the daemon stops. */
bool vf_api_serving(struct vf_http_req *req, struct vf_api *a);
/* An optional body without members: "" or {}. */
bool vf_api_no_body(struct vf_http_req *req);
/* The pool that the route's first parameter names. */
bool vf_api_pool(struct vf_http_req *req, struct vf_api *a, struct vf_pool **ret);
/* Answers with {"key": [all of them]}. */
void vf_api_list(struct vf_http_req *req, const struct vf_api *a, const char *key,
                 void (*write)(struct vf_json_writer *w, const char *key,
                               const struct vf_pool *pool));
/* The last upgraded connection is gone. */
void vf_api_upgrades_over(struct vf_api *a);

/* --- api_upgrade.c */
void vf_api_upgrades_end(struct vf_api *a);

/* --- handlers; arg is the struct vf_api */
void vf_api_version(struct vf_http_req *req, void *arg);
void vf_api_settings(struct vf_http_req *req, void *arg);
void vf_api_templates_list(struct vf_http_req *req, void *arg); /* api_templates.c */
void vf_api_templates_create(struct vf_http_req *req, void *arg);
void vf_api_templates_show(struct vf_http_req *req, void *arg);
void vf_api_templates_delete(struct vf_http_req *req, void *arg);
void vf_api_templates_build(struct vf_http_req *req, void *arg);
void vf_api_classes_list(struct vf_http_req *req, void *arg); /* api_classes.c */
void vf_api_classes_show(struct vf_http_req *req, void *arg);
void vf_api_classes_put(struct vf_http_req *req, void *arg);
void vf_api_classes_delete(struct vf_http_req *req, void *arg);
void vf_api_assets_list(struct vf_http_req *req, void *arg); /* api_assets.c */
void vf_api_assets_show(struct vf_http_req *req, void *arg);
void vf_api_assets_put(struct vf_http_req *req, void *arg);
void vf_api_assets_delete(struct vf_http_req *req, void *arg);
void vf_api_assets_fetch(struct vf_http_req *req, void *arg);
void vf_api_assets_verify(struct vf_http_req *req, void *arg);
void vf_api_assets_gc(struct vf_http_req *req, void *arg);
void vf_api_pools_list(struct vf_http_req *req, void *arg); /* api_pools.c */
void vf_api_pools_show(struct vf_http_req *req, void *arg);
void vf_api_pools_set(struct vf_http_req *req, void *arg);
void vf_api_pools_warm(struct vf_http_req *req, void *arg);
void vf_api_pools_drain(struct vf_http_req *req, void *arg);
void vf_api_vms_acquire(struct vf_http_req *req, void *arg); /* api_acquire.c */
void vf_api_taps_create(struct vf_http_req *req, void *arg); /* api_taps.c */
void vf_api_vms_list(struct vf_http_req *req, void *arg);    /* api_vms.c */
void vf_api_vms_show(struct vf_http_req *req, void *arg);
void vf_api_vms_renew(struct vf_http_req *req, void *arg);
void vf_api_vms_release(struct vf_http_req *req, void *arg);
void vf_api_vms_exec(struct vf_http_req *req, void *arg); /* api_exec.c */
void vf_api_events(struct vf_http_req *req, void *arg);   /* api_events.c */

#endif

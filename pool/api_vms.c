/* /v1/vms: list, show, renew, release. A VM of somebody else's is not there for a caller (404). */
#include "pool/api_internal.h"

#include <stdlib.h>

static void reply_vm(struct vf_http_req *req, const struct vf_slot *vm)
{
    struct vf_json_writer w = {0};

    vf_slot_write(&w, NULL, vm);
    vf_http_reply_json(req, 200, vf_jw_finish(&w));
}

static bool find(struct vf_http_req *req, struct vf_api *a, struct vf_slot **ret)
{
    struct vf_error err = {0};

    if (vf_pools_vm(a->pools, vf_http_param(req, 0), vf_http_caller(req), ret, &err) == 0)
        return true;
    vf_http_reply_error(req, &err, 0);
    return false;
}

void vf_api_vms_list(struct vf_http_req *req, void *arg)
{
    static const char *const known[] = {"parked", NULL};
    struct vf_api *a = arg;
    const struct vf_caller *who = vf_http_caller(req);
    struct vf_json_writer w = {0};
    struct vf_error err = {0};
    struct vf_slot *vm = NULL;
    bool parked = false;

    if (!vf_api_query(req, known) || !vf_api_query_bool(req, "parked", &parked))
        return;
    if (parked && !who->admin) {
        vf_fail(&err, VF_PERMISSION, "parked VMs are nobody's yet: only admins see them");
        vf_http_reply_error(req, &err, 0);
        return;
    }
    vf_jw_begin(&w, NULL, '{');
    vf_jw_begin(&w, "vms", '[');
    while ((vm = vf_pools_next_vm(a->pools, vm, who, parked)) != NULL)
        vf_slot_write(&w, NULL, vm);
    vf_jw_end(&w, ']');
    vf_jw_end(&w, '}');
    vf_http_reply_json(req, 200, vf_jw_finish(&w));
}

void vf_api_vms_show(struct vf_http_req *req, void *arg)
{
    struct vf_slot *vm;

    if (vf_api_query(req, NULL) && find(req, arg, &vm))
        reply_vm(req, vm);
}

struct renew {
    int64_t ttl_ms;
};
static const struct vf_json_field renew_fields[] = {
    {.name = "ttl_ms",
     .type = VF_JSON_INT,
     .offset = offsetof(struct renew, ttl_ms),
     .min = 0,
     .max = INT64_MAX / 1000000,
     .required = true,
     .help = "From now until the lease ends by itself; 0: never."},
    {.name = NULL},
};

void vf_api_vms_renew(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct renew body = {0};
    struct vf_error err = {0};
    struct vf_slot *vm;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) ||
        !vf_http_decode(req, renew_fields, &body) || !find(req, a, &vm))
        return;
    if (vf_slot_renew(vm, body.ttl_ms, &err) < 0)
        vf_http_reply_error(req, &err, 0);
    else
        reply_vm(req, vm);
}

/* The answer waits for the VM's end; the VM ends also without anyone to answer. */
struct release {
    struct vf_http_req *req; /* NULL: the caller has gone */
};

static void on_released(void *arg, const struct vf_error *err)
{
    struct release *l = arg;

    if (l->req != NULL && err != NULL)
        vf_http_reply_error(l->req, err, 0);
    else if (l->req != NULL)
        vf_http_reply_empty(l->req, 204);
    free(l);
}

static void on_gone(void *arg)
{
    struct release *l = arg;

    l->req = NULL;
}

void vf_api_vms_release(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct vf_error err = {0};
    struct release *l;
    int r;

    if (!vf_api_query(req, NULL))
        return;
    l = malloc(sizeof(*l));
    if (l == NULL) {
        vf_fail(&err, VF_NO_MEMORY, "vm");
        vf_http_reply_error(req, &err, 0);
        return;
    }
    l->req = req;
    r = vf_pools_release(a->pools, vf_http_param(req, 0), vf_http_caller(req), on_released, l,
                         &err);
    if (r == 0) {
        vf_http_defer(req, on_gone, l);
        return;
    }
    free(l);
    if (r < 0)
        vf_http_reply_error(req, &err, 0);
    else
        vf_http_reply_empty(req, 204); /* it was released before */
}

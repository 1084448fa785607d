/* /v1/pools: list, show, set, warm, drain. All answer at once: what they start goes on in the background and is
 * seen by asking again, or in the events. */
#include "pool/api_internal.h"

static void reply_pool(struct vf_http_req *req, int status, const struct vf_pool *pool)
{
    struct vf_json_writer w = {0};

    vf_pool_write(&w, NULL, pool);
    vf_http_reply_json(req, status, vf_jw_finish(&w));
}

void vf_api_pools_list(struct vf_http_req *req, void *arg)
{
    vf_api_list(req, arg, "pools", vf_pool_write);
}

void vf_api_pools_show(struct vf_http_req *req, void *arg)
{
    struct vf_pool *pool;

    if (vf_api_query(req, NULL) && vf_api_pool(req, arg, &pool))
        reply_pool(req, 200, pool);
}

void vf_api_pools_set(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct vf_error err = {0};
    struct vf_pool_config config;
    struct vf_pool *pool;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) || !vf_api_pool(req, a, &pool))
        return;
    config = *vf_pool_config(pool); /* what is not given stays */
    if (!vf_http_decode(req, vf_pool_config_fields, &config))
        return;
    if (vf_pool_set(pool, &config, &err) < 0)
        vf_http_reply_error(req, &err, 0);
    else
        reply_pool(req, 200, pool);
}

struct warm {
    int64_t count;
};
static const struct vf_json_field warm_fields[] = {
    {.name = "count",
     .type = VF_JSON_INT,
     .offset = offsetof(struct warm, count),
     .min = 1,
     .max = INT32_MAX,
     .help = "How many VMs to keep parked from now on."},
    {.name = NULL},
};

void vf_api_pools_warm(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct vf_error err = {0};
    struct warm body = {0};
    struct vf_pool *pool;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) || !vf_api_pool(req, a, &pool) ||
        !vf_http_decode(req, warm_fields, &body))
        return;
    if (vf_pool_warm(pool, body.count, &err) < 0)
        vf_http_reply_error(req, &err, 0);
    else
        reply_pool(req, 202, pool);
}

void vf_api_pools_drain(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct vf_error err = {0};
    struct vf_pool *pool;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) || !vf_api_no_body(req) ||
        !vf_api_pool(req, a, &pool))
        return;
    if (vf_pool_drain(pool, &err) < 0)
        vf_http_reply_error(req, &err, 0);
    else
        reply_pool(req, 202, pool);
}

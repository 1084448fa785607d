/* /v1/templates: list, create from a spec, show, delete, build.
 *
 * Creating and deleting end in a worker; the caller may have gone by then, which changes nothing about what it
 * asked for.
 */
#include "pool/api_internal.h"

#include <stdlib.h>
#include <string.h>

/* A request whose answer comes when the pools are done. */
struct later {
    struct vf_api *api;
    struct vf_http_req *req; /* NULL: the caller has gone, and maybe the API with it */
    char name[VF_SPEC_NAME_MAX + 1];
};

static void on_gone(void *arg)
{
    struct later *l = arg;

    l->req = NULL;
}

static char *template_json(const struct vf_pool *pool)
{
    struct vf_json_writer w = {0};

    vf_pool_write_template(&w, NULL, pool);
    return vf_jw_finish(&w);
}

void vf_api_templates_list(struct vf_http_req *req, void *arg)
{
    vf_api_list(req, arg, "templates", vf_pool_write_template);
}

void vf_api_templates_show(struct vf_http_req *req, void *arg)
{
    struct vf_pool *pool;

    if (vf_api_query(req, NULL) && vf_api_pool(req, arg, &pool))
        vf_http_reply_json(req, 200, template_json(pool));
}

static void on_added(void *arg, const struct vf_error *err)
{
    struct later *l = arg;
    struct vf_error gone = {0};
    struct vf_pool *pool;

    if (l->req != NULL) {
        if (err == NULL && vf_pools_find(l->api->pools, l->name, &pool, &gone) < 0)
            err = &gone; /* removed again meanwhile */
        if (err != NULL)
            vf_http_reply_error(l->req, err, 0);
        else
            vf_http_reply_json(l->req, 201, template_json(pool));
    }
    free(l);
}

void vf_api_templates_create(struct vf_http_req *req, void *arg)
{
    static const char *const known[] = {"base_dir", NULL};
    struct vf_api *a = arg;
    struct vf_spec spec = {0};
    struct vf_error err = {0};
    struct later *l;
    const char *base, *text;
    size_t len;
    int r;

    if (!vf_api_query(req, known) || !vf_api_serving(req, a))
        return;
    base = vf_http_query(req, "base_dir");
    text = vf_http_body(req, &len);
    if (base != NULL && base[0] != '/')
        r = vf_fail(&err, VF_INVALID_ARGUMENT,
                    "query: base_dir: must be an absolute path (is \"%.64s\")", base);
    else
        r = vf_spec_parse(text, len, base, NULL, &spec, &err);
    if (r < 0) {
        vf_http_reply_error(req, &err, 0);
        return;
    }
    l = calloc(1, sizeof(*l));
    if (l == NULL) {
        r = vf_fail(&err, VF_NO_MEMORY, "template");
    } else {
        *l = (struct later){.api = a, .req = req};
        strncpy(l->name, spec.name, VF_SPEC_NAME_MAX);
        r = vf_pools_add(a->pools, &spec, on_added, l, &err);
    }
    vf_spec_free(&spec); /* still ours only if it was refused */
    if (r < 0) {
        free(l);
        vf_http_reply_error(req, &err, 0);
        return;
    }
    vf_http_defer(req, on_gone, l);
}

static void on_removed(void *arg, const struct vf_error *err)
{
    struct later *l = arg;

    if (l->req != NULL && err != NULL)
        vf_http_reply_error(l->req, err, 0);
    else if (l->req != NULL)
        vf_http_reply_empty(l->req, 204);
    free(l);
}

void vf_api_templates_delete(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct vf_error err = {0};
    struct later *l;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a))
        return;
    l = calloc(1, sizeof(*l));
    if (l == NULL)
        vf_fail(&err, VF_NO_MEMORY, "template");
    if (l == NULL || vf_pools_remove(a->pools, vf_http_param(req, 0), on_removed, l, &err) < 0) {
        free(l);
        vf_http_reply_error(req, &err, 0);
        return;
    }
    l->api = a;
    l->req = req;
    vf_http_defer(req, on_gone, l);
}

void vf_api_templates_build(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct vf_error err = {0};
    struct vf_pool *pool;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) || !vf_api_no_body(req) ||
        !vf_api_pool(req, a, &pool))
        return;
    if (vf_pool_build(pool, &err) < 0)
        vf_http_reply_error(req, &err, 0);
    else
        vf_http_reply_json(req, 202, template_json(pool));
}

/* /v1/assets: list, show, put, remove, fetch, verify, gc.
 *
 * fetch answers at once: how far it is, is seen by asking again, and in the events. verify answers when the file has
 * been hashed, gc when what nothing uses has gone.
 */
#include <stdlib.h>
#include "pool/api_runtimes.h"

static struct vf_runtimes *runtimes(const struct vf_api *a)
{
    return vf_pools_runtimes(a->pools);
}

static char *all_json(const struct vf_later *l, const struct vf_stored *s, struct vf_error *err)
{
    const struct vf_registry *r = vf_runtimes_registry(runtimes(l->api));
    struct vf_json_writer w = {0};
    int64_t bytes = 0;

    (void)err;
    for (size_t i = 0; i < s->n; i++)
        bytes += s->v[i].size;
    vf_jw_begin(&w, NULL, '{');
    vf_jw_begin(&w, "assets", '[');
    for (size_t i = 0; i < vf_registry_n_assets(r); i++)
        vf_asset_write(&w, NULL, l->api->pools, vf_registry_asset_at(r, i), s,
                       vf_http_caller(l->req)->admin);
    vf_jw_end(&w, ']');
    vf_jw_begin(&w, "store", '{');
    vf_jw_int(&w, "files", (int64_t)s->n);
    vf_jw_int(&w, "bytes", bytes);
    vf_jw_end(&w, '}');
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

static char *one_json(const struct vf_later *l, const struct vf_stored *s, struct vf_error *err)
{
    struct vf_json_writer w = {0};
    const struct vf_asset *a;

    if (vf_runtimes_asset(runtimes(l->api), l->name, &a, err) < 0)
        return NULL;
    vf_asset_write(&w, NULL, l->api->pools, a, s, vf_http_caller(l->req)->admin);
    return vf_jw_finish(&w);
}

void vf_api_assets_list(struct vf_http_req *req, void *arg)
{
    vf_later_show(req, arg, all_json);
}

void vf_api_assets_show(struct vf_http_req *req, void *arg)
{
    vf_later_show(req, arg, one_json);
}

static int take(struct vf_later *l, const char *text, size_t len, struct vf_error *err)
{
    struct vf_asset asset = {0};
    int r = vf_asset_parse(text, len, NULL, &asset, err);

    if (r == 0)
        r = vf_later_same_name(l, asset.name, err);
    if (r == 0)
        r = vf_runtimes_put_asset(runtimes(l->api), &asset, vf_later_done, l, err);
    vf_asset_free(&asset); /* still ours only if it was refused */
    return r;
}

void vf_api_assets_put(struct vf_http_req *req, void *arg)
{
    vf_later_take(req, arg, one_json, take);
}

void vf_api_assets_delete(struct vf_http_req *req, void *arg)
{
    struct vf_error err = {0};
    struct vf_api *a = arg;
    struct vf_later *l;
    const struct vf_asset *asset;
    int r;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) ||
        (l = vf_later_new(req, a, 204, NULL)) == NULL)
        return;
    r = vf_runtimes_asset(runtimes(a), vf_http_param(req, 0), &asset, &err);
    if (r == 0)
        r = vf_runtimes_remove_asset(runtimes(a), vf_http_param(req, 0), vf_later_gone, l, &err);
    vf_later_wait(l, r, &err);
}

void vf_api_assets_fetch(struct vf_http_req *req, void *arg)
{
    struct vf_error err = {0};
    struct vf_api *a = arg;
    struct vf_later *l;
    int r;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) || !vf_api_no_body(req) ||
        (l = vf_later_new(req, a, 202, one_json)) == NULL)
        return;
    r = vf_runtimes_fetch(runtimes(a), vf_http_param(req, 0), &err);
    if (r == 0)
        r = vf_later_look(l, &err);
    vf_later_wait(l, r, &err);
}

void vf_api_assets_verify(struct vf_http_req *req, void *arg)
{
    struct vf_error err = {0};
    struct vf_api *a = arg;
    struct vf_later *l;
    int r;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) || !vf_api_no_body(req) ||
        (l = vf_later_new(req, a, 200, one_json)) == NULL)
        return;
    r = vf_runtimes_verify(runtimes(a), vf_http_param(req, 0), vf_later_done, l, &err);
    vf_later_wait(l, r, &err);
}

/* ---- gc */

struct gc_body {
    bool dry_run;
};
static const struct vf_json_field gc_fields[] = {
    {.name = "dry_run",
     .type = VF_JSON_BOOL,
     .offset = offsetof(struct gc_body, dry_run),
     .help = "Only say what would be removed. Default false."},
    {.name = NULL},
};

static char *removed_json(const struct vf_later *l, const struct vf_stored *s, bool dry_run)
{
    struct vf_json_writer w = {0};
    int64_t bytes = 0;

    vf_jw_begin(&w, NULL, '{');
    vf_jw_bool(&w, "dry_run", dry_run);
    vf_jw_begin(&w, "removed", '[');
    for (size_t i = 0; i < s->n; i++) {
        vf_jw_begin(&w, NULL, '{');
        vf_jw_string(&w, "sha256", s->v[i].sha256);
        vf_jw_int(&w, "size", s->v[i].size);
        vf_jw_bool(&w, "partial", s->v[i].partial);
        vf_jw_string(&w, "name", vf_asset_named(l->api->pools, s->v[i].sha256));
        vf_jw_end(&w, '}');
        bytes += s->v[i].size;
    }
    vf_jw_end(&w, ']');
    vf_jw_int(&w, "removed_bytes", bytes);
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

static void collected(struct vf_later *l, bool dry_run, const struct vf_asset_entry *v, size_t n,
                      const struct vf_error *err)
{
    const struct vf_stored removed = {v, n};

    if (l->req != NULL && err != NULL)
        vf_http_reply_error(l->req, err, 0);
    else if (l->req != NULL)
        vf_http_reply_json(l->req, 200, removed_json(l, &removed, dry_run));
    free(l);
}

static void on_collected(void *arg, const struct vf_asset_entry *v, size_t n,
                         const struct vf_error *err)
{
    collected(arg, false, v, n, err);
}

static void on_tried(void *arg, const struct vf_asset_entry *v, size_t n,
                     const struct vf_error *err)
{
    collected(arg, true, v, n, err);
}

void vf_api_assets_gc(struct vf_http_req *req, void *arg)
{
    struct gc_body body = {0};
    struct vf_error err = {0};
    struct vf_api *a = arg;
    struct vf_later *l;
    int r;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) ||
        !vf_http_decode(req, gc_fields, &body) || (l = vf_later_new(req, a, 200, NULL)) == NULL)
        return;
    r = vf_runtimes_gc(runtimes(a), body.dry_run, body.dry_run ? on_tried : on_collected, l, &err);
    vf_later_wait(l, r, &err);
}

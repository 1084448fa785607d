/* See api_runtimes.h. Whoever hangs up meanwhile changes nothing about what was asked for. */
#include "pool/api_runtimes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vf_later *vf_later_new(struct vf_http_req *req, struct vf_api *a, int status,
                              char *(*show)(const struct vf_later *l, const struct vf_stored *s,
                                            struct vf_error *err))
{
    struct vf_later *l = calloc(1, sizeof(*l));
    const char *name = vf_http_param(req, 0);
    struct vf_error err = {0};

    if (l == NULL) {
        vf_fail(&err, VF_NO_MEMORY, "out of memory");
        vf_http_reply_error(req, &err, 0);
        return NULL;
    }
    *l = (struct vf_later){.api = a, .req = req, .status = status, .show = show};
    /* One that is too long is cut, and then nobody's all the same: a byte more than a name may have. */
    snprintf(l->name, sizeof(l->name), "%s", name != NULL ? name : "");
    return l;
}

static void on_gone(void *arg)
{
    struct vf_later *l = arg;

    l->req = NULL;
}

void vf_later_wait(struct vf_later *l, int r, const struct vf_error *err)
{
    if (r < 0) {
        vf_http_reply_error(l->req, err, err->code == VF_BUSY ? 1 : 0);
        free(l);
        return;
    }
    vf_http_defer(l->req, on_gone, l);
}

static void on_looked(void *arg, const struct vf_asset_entry *entries, size_t n,
                      const struct vf_error *err)
{
    const struct vf_stored stored = {entries, n};
    struct vf_later *l = arg;
    struct vf_error e = {0};
    char *json = NULL;

    if (l->req == NULL) {
        free(l);
        return;
    }
    if (err == NULL) {
        json = l->show(l, &stored, &e);
        err = json == NULL ? &e : NULL;
    }
    if (err != NULL && err->code == VF_OK)
        vf_fail(&e, VF_NO_MEMORY, "out of memory");
    if (err != NULL)
        vf_http_reply_error(l->req, err, 0);
    else
        vf_http_reply_json(l->req, l->status, json);
    free(l);
}

int vf_later_look(struct vf_later *l, struct vf_error *err)
{
    return vf_runtimes_look(vf_pools_runtimes(l->api->pools), on_looked, l, err);
}

void vf_later_show(struct vf_http_req *req, struct vf_api *a,
                   char *(*show)(const struct vf_later *l, const struct vf_stored *s,
                                 struct vf_error *err))
{
    struct vf_error err = {0};
    struct vf_later *l;

    if (!vf_api_query(req, NULL) || (l = vf_later_new(req, a, 200, show)) == NULL)
        return;
    vf_later_wait(l, vf_later_look(l, &err), &err);
}

int vf_later_same_name(const struct vf_later *l, const char *name, struct vf_error *err)
{
    if (strcmp(name, l->name) == 0)
        return 0;
    return vf_fail(err, VF_INVALID_ARGUMENT, "name: must be that of the path, '%.64s' (is '%s')",
                   l->name, name);
}

void vf_later_take(struct vf_http_req *req, struct vf_api *a,
                   char *(*show)(const struct vf_later *l, const struct vf_stored *s,
                                 struct vf_error *err),
                   int (*take)(struct vf_later *l, const char *text, size_t len,
                               struct vf_error *err))
{
    struct vf_error err = {0};
    struct vf_later *l;
    const char *text;
    size_t len;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) ||
        (l = vf_later_new(req, a, 200, show)) == NULL)
        return;
    text = vf_http_body(req, &len);
    vf_later_wait(l, take(l, text, len, &err), &err);
}

void vf_later_done(void *arg, const struct vf_error *err)
{
    struct vf_later *l = arg;
    struct vf_error e;

    if (l->req != NULL && err == NULL && vf_later_look(l, &e) == 0)
        return;
    if (l->req != NULL)
        vf_http_reply_error(l->req, err != NULL ? err : &e, 0);
    free(l);
}

void vf_later_gone(void *arg, const struct vf_error *err)
{
    struct vf_later *l = arg;

    if (l->req != NULL && err != NULL)
        vf_http_reply_error(l->req, err, 0);
    else if (l->req != NULL)
        vf_http_reply_empty(l->req, 204);
    free(l);
}

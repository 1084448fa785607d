/* /v1/classes: list, show, put, remove.
 *
 * A change is checked with all other classes and assets, in a worker; if something is wrong with the set that would
 * result, the set in force stays as it is.
 */
#include <stdlib.h>
#include <string.h>
#include "pool/api_runtimes.h"

static char *all_json(const struct vf_later *l, const struct vf_stored *s, struct vf_error *err)
{
    const struct vf_registry *r = vf_runtimes_registry(vf_pools_runtimes(l->api->pools));
    struct vf_json_writer w = {0};

    (void)err;
    vf_jw_begin(&w, NULL, '{');
    vf_jw_begin(&w, "classes", '[');
    for (size_t i = 0; i < vf_registry_n_classes(r); i++)
        vf_class_write(&w, NULL, l->api->pools, vf_registry_class_at(r, i), s);
    vf_jw_end(&w, ']');
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

static int find(struct vf_api *a, const char *name, const struct vf_class **ret,
                struct vf_error *err)
{
    const struct vf_registry *r = vf_runtimes_registry(vf_pools_runtimes(a->pools));
    const char *names[256], *near;
    size_t n = 0;

    *ret = vf_registry_class(r, name);
    if (*ret != NULL)
        return 0;
    while (n < vf_registry_n_classes(r) && n < 255) {
        names[n] = vf_registry_class_at(r, n)->name;
        n++;
    }
    names[n] = NULL;
    near = vf_nearest(name, names);
    vf_fail(err, VF_NOT_FOUND, "there is no class '%.64s'", name);
    return near != NULL ? vf_hint(err, "did you mean %s?", near)
                        : vf_hint(err, "`vmfactory class set FILE` adds one");
}

static char *one_json(const struct vf_later *l, const struct vf_stored *s, struct vf_error *err)
{
    struct vf_json_writer w = {0};
    const struct vf_class *c;

    if (find(l->api, l->name, &c, err) < 0)
        return NULL;
    vf_class_write(&w, NULL, l->api->pools, c, s);
    return vf_jw_finish(&w);
}

void vf_api_classes_list(struct vf_http_req *req, void *arg)
{
    vf_later_show(req, arg, all_json);
}

void vf_api_classes_show(struct vf_http_req *req, void *arg)
{
    vf_later_show(req, arg, one_json);
}

static int take(struct vf_later *l, const char *text, size_t len, struct vf_error *err)
{
    struct vf_class class = {0};
    int r = vf_class_parse(text, len, NULL, &class, err);

    if (r == 0)
        r = vf_later_same_name(l, class.name, err);
    if (r == 0)
        r = vf_runtimes_put_class(vf_pools_runtimes(l->api->pools), &class, vf_later_done, l, err);
    vf_class_free(&class); /* still ours only if it was refused */
    return r;
}

void vf_api_classes_put(struct vf_http_req *req, void *arg)
{
    vf_later_take(req, arg, one_json, take);
}

void vf_api_classes_delete(struct vf_http_req *req, void *arg)
{
    const char *name = vf_http_param(req, 0), *template_name;
    const struct vf_class *c;
    struct vf_error err = {0};
    struct vf_api *a = arg;
    struct vf_later *l;
    int r;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) ||
        (l = vf_later_new(req, a, 204, NULL)) == NULL)
        return;
    template_name = vf_pools_class_user(a->pools, name);
    r = find(a, name, &c, &err);
    if (r == 0 && template_name != NULL) {
        vf_fail(&err, VF_CONFLICT, "class %s: template %s names it", name, template_name);
        r = vf_hint(&err, "change or remove the template first");
    }
    if (r == 0)
        r = vf_runtimes_remove_class(vf_pools_runtimes(a->pools), name, vf_later_gone, l, &err);
    vf_later_wait(l, r, &err);
}

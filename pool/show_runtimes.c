/* Runtime classes and assets as JSON; docs/openapi.yaml has the shapes. Paths of files with tokens and passwords are
 * shown, what is in them never is. A URL's query may hold a
 * signature: only admins are shown it, in the definition. */
#include <stdlib.h>
#include <string.h>
#include "pool/pools_internal.h"
#include "pool/show_runtimes.h"

static void put_raw(struct vf_json_writer *w, const char *key, const char *text)
{
    vf_jw_raw(w, key, text != NULL ? text : "null");
}

/* The class that the spec gets now, whatever its generation was built with. */
static const struct vf_class *class_of(const struct vf_registry *r, const struct vf_spec *spec)
{
    return spec->class_name != NULL ? vf_registry_class(r, spec->class_name)
                                    : vf_registry_default(r, (enum vf_spec_vmm)spec->vmm);
}

const char *vf_pool_class(const struct vf_pool *pool)
{
    const struct vf_class *c;

    if (pool->gen != NULL)
        return pool->gen->manifest.vmm.class_name;
    c = class_of(vf_runtimes_registry(pool->pools->runtimes), &pool->spec);
    return c != NULL ? c->name : pool->spec.class_name;
}

static const struct vf_asset_entry *find_entry(const struct vf_stored *s, const char *sha256,
                                               bool partial)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].partial == partial && strcmp(s->v[i].sha256, sha256) == 0)
            return &s->v[i];
    return NULL;
}

/* What the class pins on this host; NULL: nothing. */
static const struct vf_class_assets *pins_here(const struct vf_class *c)
{
    if (strcmp(vf_host_arch(), "x86_64") == 0)
        return c->assets.has_x86_64 ? &c->assets.x86_64 : NULL;
    if (strcmp(vf_host_arch(), "aarch64") == 0)
        return c->assets.has_aarch64 ? &c->assets.aarch64 : NULL;
    return NULL;
}

#define MAX_PINS 4
static size_t pins(const struct vf_class_assets *a, const char *ret[MAX_PINS])
{
    size_t n = 0;

    if (a != NULL && a->vmm != NULL)
        ret[n++] = a->vmm;
    if (a != NULL && a->kernel != NULL)
        ret[n++] = a->kernel;
    if (a != NULL && a->initrd != NULL)
        ret[n++] = a->initrd;
    if (a != NULL && a->root != NULL)
        ret[n++] = a->root;
    return n;
}

static bool is_fetched(const struct vf_registry *r, const struct vf_stored *s, const char *name)
{
    const struct vf_asset *a = vf_registry_asset(r, name);
    const struct vf_asset_file *file = a != NULL ? vf_asset_file_here(a) : NULL;

    return file != NULL && find_entry(s, file->sha256, false) != NULL;
}

void vf_class_write(struct vf_json_writer *w, const char *key, const struct vf_pools *p,
                    const struct vf_class *c, const struct vf_stored *s)
{
    const struct vf_registry *r = vf_runtimes_registry(p->runtimes);
    const char *names[MAX_PINS];
    size_t n = pins(pins_here(c), names);
    char *text = vf_class_encode(c);

    vf_jw_begin(w, key, '{');
    vf_jw_string(w, "name", c->name);
    vf_jw_string(w, "vmm", vf_spec_vmm_names[c->vmm]);
    vf_jw_bool(w, "default", c->is_default);
    vf_jw_bool(w, "builtin", c->builtin);
    vf_jw_begin(w, "pins", '[');
    for (size_t i = 0; i < n; i++)
        vf_jw_string(w, NULL, names[i]);
    vf_jw_end(w, ']');
    vf_jw_begin(w, "missing", '[');
    for (size_t i = 0; i < n; i++)
        if (!is_fetched(r, s, names[i]))
            vf_jw_string(w, NULL, names[i]);
    vf_jw_end(w, ']');
    vf_jw_begin(w, "templates", '[');
    for (const struct vf_pool *pool = p->first; pool != NULL; pool = pool->next)
        if (class_of(r, &pool->spec) == c)
            vf_jw_string(w, NULL, pool->spec.name);
    vf_jw_end(w, ']');
    put_raw(w, "definition", text);
    vf_jw_end(w, '}');
    free(text);
}

/* ---- assets */

static void put_here(struct vf_json_writer *w, const struct vf_pools *p, const struct vf_asset *a,
                     const struct vf_stored *s)
{
    const struct vf_asset_file *file = vf_asset_file_here(a);
    const struct vf_asset_entry *e;
    char *path = NULL, url[VF_ASSET_URL_SIZE];

    if (file == NULL) {
        vf_jw_string(w, "here", NULL);
        return;
    }
    e = find_entry(s, file->sha256, false);
    if (e != NULL &&
        vf_asset_store_path(vf_runtimes_store(p->runtimes), file->sha256, &path, NULL) < 0)
        path = NULL;
    vf_jw_begin(w, "here", '{');
    vf_jw_string(w, "arch", vf_host_arch());
    vf_asset_plain_url(file->url, url, sizeof(url));
    vf_jw_string(w, "url", url);
    vf_jw_string(w, "sha256", file->sha256);
    if (e != NULL || file->size > 0)
        vf_jw_int(w, "size", e != NULL ? e->size : file->size);
    else
        vf_jw_string(w, "size", NULL);
    vf_jw_bool(w, "fetched", e != NULL);
    vf_jw_string(w, "path", path);
    vf_jw_end(w, '}');
    free(path);
}

static void put_fetch(struct vf_json_writer *w, const struct vf_pools *p, const struct vf_asset *a)
{
    struct vf_runtimes_fetching f;

    vf_runtimes_fetching(p->runtimes, a->name, &f);
    vf_jw_begin(w, "fetch", '{');
    vf_jw_bool(w, "running", f.running);
    vf_jw_int(w, "attempts", f.attempts);
    vf_jw_int(w, "done_bytes", f.done_bytes);
    if (f.total_bytes > 0)
        vf_jw_int(w, "total_bytes", f.total_bytes);
    else
        vf_jw_string(w, "total_bytes", NULL);
    vf_write_error(w, "error", f.error);
    vf_jw_end(w, '}');
}

static bool names_asset(const struct vf_class_assets *c, const char *name)
{
    const char *names[MAX_PINS];
    size_t n = pins(c, names);

    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* Of the assets that the pool's spec gets from its class, or that its generation was built with. */
static bool pool_uses(const struct vf_registry *r, const struct vf_pool *pool,
                      const struct vf_asset *a)
{
    const struct vf_asset_file *file = vf_asset_file_here(a);
    const struct vf_asset *v[VF_RUNTIME_MAX_ASSETS];
    int n = 0;

    if (vf_registry_assets_of(r, &pool->spec, v, &n, NULL) < 0)
        n = 0;
    for (int i = 0; i < n; i++)
        if (v[i] == a)
            return true;
    return file != NULL && pool->gen != NULL && pool->gen->manifest.vmm.sha256 != NULL &&
           strcmp(pool->gen->manifest.vmm.sha256, file->sha256) == 0;
}

static void put_users(struct vf_json_writer *w, const struct vf_pools *p, const struct vf_asset *a)
{
    const struct vf_registry *r = vf_runtimes_registry(p->runtimes);

    vf_jw_begin(w, "used_by", '{');
    vf_jw_begin(w, "classes", '[');
    for (size_t i = 0; i < vf_registry_n_classes(r); i++) {
        const struct vf_class *c = vf_registry_class_at(r, i);

        if (names_asset(&c->assets.x86_64, a->name) || names_asset(&c->assets.aarch64, a->name))
            vf_jw_string(w, NULL, c->name);
    }
    vf_jw_end(w, ']');
    vf_jw_begin(w, "templates", '[');
    for (const struct vf_pool *pool = p->first; pool != NULL; pool = pool->next)
        if (pool_uses(r, pool, a))
            vf_jw_string(w, NULL, pool->spec.name);
    vf_jw_end(w, ']');
    vf_jw_end(w, '}');
}

void vf_asset_write(struct vf_json_writer *w, const char *key, const struct vf_pools *p,
                    const struct vf_asset *a, const struct vf_stored *s, bool admin)
{
    char *text = admin ? vf_asset_encode(a) : vf_asset_encode_plain(a);

    vf_jw_begin(w, key, '{');
    vf_jw_string(w, "name", a->name);
    vf_jw_string(w, "kind", vf_asset_kind_names[a->kind]);
    put_here(w, p, a, s);
    put_fetch(w, p, a);
    put_users(w, p, a);
    put_raw(w, "definition", text);
    vf_jw_end(w, '}');
    free(text);
}

const char *vf_asset_named(const struct vf_pools *p, const char *sha256)
{
    const struct vf_registry *r = vf_runtimes_registry(p->runtimes);

    for (size_t i = 0; i < vf_registry_n_assets(r); i++) {
        const struct vf_asset *a = vf_registry_asset_at(r, i);
        const struct vf_asset_file *file = vf_asset_file_here(a);

        if (file != NULL && strcmp(file->sha256, sha256) == 0)
            return a->name;
    }
    return NULL;
}

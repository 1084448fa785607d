/* The templates there are: STATE/specs/NAME.json, each spec as it was given with all defaults, replaced as one.
 *
 * Adding: all that pools could object to is asked, then the spec's files are looked at in a worker and the spec is
 * written, then it is in force. Whatever would object meanwhile (a removal, another spec, settings that do not fit) is
 * refused, so that what is on the disk is what was taken. Removing: parked VMs go, then generations, settings and spec
 * from the disk, the spec last: a crash in between leaves a template that can be removed again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/log.h"
#include "pool/pools_internal.h"

/* ---- a new pool */

/* What the spec leaves to its class, as the classes are now. One whose class is gone stays as it was: its builds say so. */
void vf_pool_settle(struct vf_pool *pool)
{
    struct vf_error e;
    vf_registry_settle(vf_runtimes_registry(pool->pools->runtimes), &pool->spec, NULL);
    bool can = vf_pools_check_network(pool->pools, &pool->spec, &e) == 0;
    vf_set_error(&pool->no_network, can ? NULL : &e);
    pool->pools->net.stale = true;
}

struct vf_pool *vf_pool_new(struct vf_pools *p, struct vf_spec *spec)
{
    struct vf_pool *pool = calloc(1, sizeof(*pool));
    struct vf_stats_template *stats = pool ? vf_stats_template(p->stats, spec->name) : NULL;
    if (!stats) {
        free(pool);
        return NULL;
    }
    pool->pools = p;
    pool->spec = *spec;
    *spec = (struct vf_spec){0};
    vf_pool_settle(pool);
    pool->stats = stats;
    TAILQ_INIT(&pool->all);
    TAILQ_INIT(&pool->parked);
    TAILQ_INIT(&pool->standby);
    TAILQ_INIT(&pool->waiting);
    vf_pool_load_config(pool);
    struct vf_pool **at = &p->first;
    while (*at && strcmp((*at)->spec.name, pool->spec.name) < 0)
        at = &(*at)->next;
    pool->next = *at;
    *at = pool;
    return pool;
}

/* The newest usable generation on disk, before it is loaded: parked VMs that were adopted may be of it. */
static void find_generation(struct vf_pool *pool)
{
    struct vf_store_entry *v;
    size_t n;
    if (vf_store_list(pool->pools->store, pool->spec.name, &v, &n, NULL) < 0)
        return;
    for (size_t i = 0; i < n; i++)
        if (v[i].state == VF_GENERATION_READY)
            pool->current = v[i].generation;
    free(v);
}

static void load_spec(struct vf_pools *p, const char *file)
{
    VF_CLEANUP_FREE char *text = NULL;
    size_t len, n = strlen(file);
    struct vf_spec spec = {0};
    struct vf_error e;
    if (n < 6 || strcmp(file + n - 5, ".json") != 0 || file[0] == '.')
        return;
    int r = vf_read_file(p->specs_dirfd, file, VF_SPEC_MAX_TEXT, &text, &len, &e);
    if (r == 0)
        r = vf_spec_parse(text, len, NULL, file, &spec, &e);
    if (r == 0 && (strlen(spec.name) != n - 5 || strncmp(spec.name, file, n - 5) != 0)) {
        vf_spec_free(&spec);
        r = vf_fail(&e, VF_CORRUPT, "%s: name: is not the file's", file);
    }
    if (r < 0) {
        vf_log_error(VF_LOG_ERROR, NULL, &e, "specs/%s is not used", file);
        return;
    }
    struct vf_pool *pool = vf_pool_new(p, &spec);
    if (!pool) {
        vf_spec_free(&spec);
        return;
    }
    find_generation(pool);
}

int vf_pools_load_specs(struct vf_pools *p, struct vf_error *err)
{
    struct vf_names names;
    int r = vf_dir_names(p->specs_dirfd, &names, err);
    if (r < 0)
        return vf_wrap(err, "specs");
    for (size_t i = 0; i < names.n; i++) {
        if (strncmp(names.v[i], VF_TMP_PREFIX, strlen(VF_TMP_PREFIX)) == 0)
            unlinkat(p->specs_dirfd, names.v[i], 0); /* a crash's */
        else
            load_spec(p, names.v[i]);
    }
    vf_names_free(&names);
    return 0;
}

/* ---- add */

/* While it is under way its spec keeps the class that it names: see vf_pools_class_user. */
struct vf_add {
    LIST_ENTRY(vf_add) others;
    struct vf_work work;
    struct vf_pools *pools;
    struct vf_spec spec;
    vf_done_cb done;
    void *arg;
};

static const struct vf_add *adding(const struct vf_pools *p, const char *name)
{
    const struct vf_add *a;
    LIST_FOREACH(a, &p->adds, others)
    if (strcmp(a->spec.name, name) == 0)
        return a;
    return NULL;
}

bool vf_pool_comes_external(const struct vf_pool *pool)
{
    const struct vf_add *a = adding(pool->pools, pool->spec.name);
    return vf_pool_is_external(pool) || (a && a->spec.network.mode == VF_NETWORK_EXTERNAL);
}

static int look(struct vf_work *w, struct vf_error *err)
{
    struct vf_add *a = w->arg;
    char name[VF_SPEC_NAME_MAX + 8];
    int r = vf_spec_check_host(&a->spec, err);
    if (r < 0)
        return r;
    VF_CLEANUP_FREE char *text = vf_spec_encode(&a->spec);
    if (!text)
        return vf_fail(err, VF_NO_MEMORY, "spec");
    vf_pool_file_name(a->spec.name, name);
    return vf_write_file(a->pools->specs_dirfd, name, text, strlen(text), 0600, err);
}

static int put(struct vf_add *a, struct vf_error *err)
{
    struct vf_pools *p = a->pools;
    struct vf_pool *pool;
    if (vf_pools_find(p, a->spec.name, &pool, NULL) < 0) {
        pool = vf_pool_new(p, &a->spec);
        if (!pool)
            return vf_fail(err, VF_NO_MEMORY, "template");
        find_generation(pool);
        vf_event(p->events, "template.added", pool->spec.name, NULL, VF_EVENT_ALL, NULL, NULL);
        vf_template_load(pool);
    } else if (!vf_spec_equal(&pool->spec, &a->spec)) {
        struct vf_spec old = pool->spec;
        pool->spec = a->spec;
        a->spec = old;
        vf_pool_settle(pool);
        vf_event(p->events, "template.added", pool->spec.name, NULL, VF_EVENT_ALL, NULL,
                 "in place of another spec");
        vf_template_outdated(pool);
    }
    vf_pool_touch(pool);
    return 0;
}

static void on_looked(void *arg, const struct vf_error *err)
{
    struct vf_add *a = arg;
    struct vf_pools *p = a->pools;
    struct vf_error e;
    p->works--;
    if (!err && p->closing)
        vf_fail(&e, VF_CANCELLED,
                "the daemon is stopping; the template is there when it starts again");
    if (!err && (p->closing || put(a, &e) < 0))
        err = &e;
    LIST_REMOVE(a, others);
    a->done(a->arg, err);
    vf_spec_free(&a->spec);
    free(a);
    vf_pools_soon(p);
}

/* Whether it goes with what is there and what is coming. */
static int check_place(struct vf_pools *p, const struct vf_spec *spec, struct vf_error *err)
{
    const struct vf_add *other = adding(p, spec->name);
    struct vf_pool *pool;
    if (other && !vf_spec_equal(&other->spec, spec)) {
        vf_fail(err, VF_CONFLICT, "template %s is being added with another spec", spec->name);
        return vf_hint(err, "add it again once that has ended, to take its place");
    }
    if (vf_pools_find(p, spec->name, &pool, NULL) < 0)
        return 0;
    if (pool->removing)
        return vf_fail(err, VF_CONFLICT, "template %s is being removed", spec->name);
    return spec->network.mode == VF_NETWORK_EXTERNAL
               ? vf_pool_check_external(&pool->config, spec->name, err)
               : 0;
}

int vf_pools_add(struct vf_pools *p, struct vf_spec *spec, vf_done_cb done, void *arg,
                 struct vf_error *err)
{
    if (p->closing)
        return vf_fail(err, VF_CANCELLED, "the daemon is stopping");
    if (spec->class_name && vf_runtimes_removes_class(p->runtimes, spec->class_name)) {
        vf_fail(err, VF_CONFLICT, "class: the class \"%s\" is being removed", spec->class_name);
        return vf_hint(err, "name another class, or set it again once it is gone");
    }
    int r = vf_registry_settle(vf_runtimes_registry(p->runtimes), spec, err);
    if (r == 0)
        r = check_place(p, spec, err);
    if (r == 0)
        r = vf_pools_check_network(p, spec, err);
    if (r < 0)
        return r;
    struct vf_add *a = calloc(1, sizeof(*a));
    if (!a)
        return vf_fail(err, VF_NO_MEMORY, "template");
    a->pools = p;
    a->spec = *spec;
    a->done = done;
    a->arg = arg;
    r = vf_work_submit(p->loop, &a->work, look, on_looked, a);
    if (r < 0) {
        free(a);
        return vf_fail_errno(err, r, "worker");
    }
    *spec = (struct vf_spec){0};
    LIST_INSERT_HEAD(&p->adds, a, others);
    p->works++;
    return 0;
}

static bool names_class(const struct vf_spec *spec, const char *class_name)
{
    return spec->class_name && strcmp(spec->class_name, class_name) == 0;
}

const char *vf_pools_class_user(const struct vf_pools *p, const char *class_name)
{
    const struct vf_add *a;
    for (const struct vf_pool *pool = p->first; pool; pool = pool->next)
        if (names_class(&pool->spec, class_name))
            return pool->spec.name;
    LIST_FOREACH(a, &p->adds, others)
    if (names_class(&a->spec, class_name))
        return a->spec.name;
    return NULL;
}

/* ---- remove */

struct removal {
    struct vf_work work;
    struct vf_pool *pool;
};

static int erase(struct vf_work *w, struct vf_error *err)
{
    struct vf_pool *pool = ((struct removal *)w->arg)->pool;
    struct vf_pools *p = pool->pools;
    struct vf_store_entry *v;
    size_t n;
    char name[VF_SPEC_NAME_MAX + 8];
    if (pool->gen)
        vf_generation_unref(pool->gen);
    pool->gen = NULL;
    int r = vf_store_list(p->store, pool->spec.name, &v, &n, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n && r == 0; i++)
        r = vf_store_remove(p->store, pool->spec.name, v[i].generation, err);
    free(v);
    if (r < 0)
        return r;
    vf_pool_file_name(pool->spec.name, name);
    if (unlinkat(p->pools_dirfd, name, 0) < 0 && errno != ENOENT)
        return vf_fail_errno(err, errno, "pools/%s", name);
    if (unlinkat(p->specs_dirfd, name, 0) < 0 && errno != ENOENT)
        return vf_fail_errno(err, errno, "specs/%s", name);
    return 0;
}

static void on_erased(void *arg, const struct vf_error *err)
{
    struct removal *r = arg;
    struct vf_pool *pool = r->pool;
    struct vf_pools *p = pool->pools;
    vf_done_cb done = pool->removed;
    void *done_arg = pool->removed_arg;
    free(r);
    p->works--;
    pool->removed = NULL;
    pool->erasing = false;
    pool->current = 0;
    if (err) {
        pool->removing = false; /* it is there, without what could be removed */
        vf_template_outdated(pool);
    } else {
        for (struct vf_pool **at = &p->first; *at; at = &(*at)->next)
            if (*at == pool) {
                *at = pool->next;
                break;
            }
        vf_stats_template_removed(pool->stats);
        p->net.stale = true;
        vf_event(p->events, "template.removed", pool->spec.name, NULL, VF_EVENT_ALL, NULL, NULL);
        vf_pool_free(pool);
    }
    done(done_arg, err);
    vf_pools_soon(p);
}

void vf_pool_finish_removal(struct vf_pool *pool)
{
    struct vf_pools *p = pool->pools;
    if (!pool->removing || !pool->removed || pool->erasing || pool->build || pool->loading ||
        !TAILQ_EMPTY(&pool->all))
        return;
    struct removal *r = calloc(1, sizeof(*r));
    if (r) {
        r->pool = pool;
        if (vf_work_submit(p->loop, &r->work, erase, on_erased, r) == 0) {
            pool->erasing = true;
            p->works++;
            return;
        }
        free(r);
    }
    struct vf_error e;
    vf_fail(&e, VF_NO_MEMORY, "remove");
    vf_done_cb done = pool->removed;
    pool->removed = NULL;
    pool->removing = false;
    done(pool->removed_arg, &e);
}

int vf_pools_remove(struct vf_pools *p, const char *name, vf_done_cb done, void *arg,
                    struct vf_error *err)
{
    struct vf_pool *pool;
    struct vf_error e;
    int r = vf_pools_find(p, name, &pool, err);
    if (r < 0)
        return r;
    if (p->closing)
        return vf_fail(err, VF_CANCELLED, "the daemon is stopping");
    if (pool->removing)
        return vf_fail(err, VF_CONFLICT, "template %s is being removed", name);
    if (adding(p, name)) {
        vf_fail(err, VF_CONFLICT, "template %s is being added again", name);
        return vf_hint(err, "remove it once that has ended");
    }
    if (pool->n[VF_SLOT_LEASED]) {
        vf_fail(err, VF_CONFLICT, "template %s: %d VMs of it are leased", name,
                pool->n[VF_SLOT_LEASED]);
        return vf_hint(err, "release them first: `vmfactory ps` lists them");
    }
    pool->removing = p->net.stale = true;
    pool->removed = done;
    pool->removed_arg = arg;
    vf_fail(&e, VF_CONFLICT, "template %s is being removed", name);
    vf_acquire_fail_all(p, pool, &e);
    vf_template_stop(pool);
    struct vf_slot *s, *next;
    for (s = TAILQ_FIRST(&pool->all); s; s = next) {
        next = TAILQ_NEXT(s, all);
        vf_slot_destroy(s);
    }
    vf_pools_soon(p);
    return 0;
}

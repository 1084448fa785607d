/* What pools are kept on disk: STATE/specs/NAME.json, the spec as it was given with all defaults, and
 * STATE/pools/NAME.json, the pool's own settings. Both are replaced as one; without the second a pool has its defaults.
 *
 * Adding: the spec's files are looked at in a worker, then the spec is written, then it is in force. Removing: parked
 * VMs go, then generations, settings and spec from the disk, the spec last: a crash in between leaves a template
 * that can be removed again.
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

const char *const vf_pool_park_names[] = {"spec", "paused", "running", NULL};

#define MOST 100000
#define NUMBER(member, least, most, text)                                                        \
    {                                                                                            \
        .name = #member, .type = VF_JSON_INT, .offset = offsetof(struct vf_pool_config, member), \
        .min = (least), .max = (most), .help = (text)                                            \
    }
const struct vf_json_field vf_pool_config_fields[] = {
    NUMBER(min, 0, MOST, "The least that target may be, and that autosizing keeps parked."),
    NUMBER(max, 0, MOST, "The most that target may be, and that autosizing keeps parked."),
    NUMBER(target, 0, MOST, "VMs to keep parked."),
    NUMBER(standby, 0, 1000,
           "VMMs to keep up and empty, for a quicker clone when no VM is parked."),
    {.name = "park",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct vf_pool_config, park),
     .choices = vf_pool_park_names,
     .help = "How VMs are parked: as the spec says, paused, or running."},
    NUMBER(refill_concurrency, 1, 256, "Clones made at once to refill."),
    NUMBER(start_concurrency, 1, 256, "Clones and boots made at once for waiting callers."),
    NUMBER(max_waiting, 0, MOST, "Callers that may wait for one of those."),
    NUMBER(max_age_s, 0, INT64_C(10) * 366 * 86400,
           "Age of a generation, in seconds, at which it is rotated; 0: never."),
    NUMBER(max_clones, 0, INT64_MAX, "Clones of a generation at which it is rotated; 0: never."),
    NUMBER(max_leases, 0, MOST, "Leased VMs of the template; 0: no limit."),
    {.name = "autosize",
     .type = VF_JSON_BOOL,
     .offset = offsetof(struct vf_pool_config, autosize),
     .help = "Whether target follows the rate of arrivals, between min and max."},
    {.name = NULL},
};

struct kept {
    struct vf_pool_config config;
    bool drained;
};
static const struct vf_json_field kept_fields[] = {
    {.name = "config",
     .type = VF_JSON_OBJECT,
     .offset = offsetof(struct kept, config),
     .fields = vf_pool_config_fields},
    {.name = "drained", .type = VF_JSON_BOOL, .offset = offsetof(struct kept, drained)},
    {.name = NULL},
};

static const struct vf_pool_config defaults = {
    .max = 64,
    .refill_concurrency = 2,
    .start_concurrency = 8,
    .max_waiting = 256,
};

static int check(const struct vf_pool_config *c, struct vf_error *err)
{
    if (c->min > c->max)
        return vf_fail(err, VF_INVALID_ARGUMENT, "min: must be at most max (is %lld, max %lld)",
                       (long long)c->min, (long long)c->max);
    if (c->target < c->min || c->target > c->max) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "target: must be between min and max (is %lld, %lld..%lld)", (long long)c->target,
                (long long)c->min, (long long)c->max);
        return vf_hint(err, "set max (or min) along with it");
    }
    return 0;
}

/* None is made before somebody brings its network. */
static int check_external(const struct vf_pool_config *c, const char *name, struct vf_error *err)
{
    const char *what = c->target ? "target" : c->min ? "min" : c->standby ? "standby" : "autosize";
    if (!c->target && !c->min && !c->standby && !c->autosize)
        return 0;
    vf_fail(
        err, VF_INVALID_ARGUMENT,
        "%s: VMs of template %s can't wait in a pool: its network.mode is external, and whoever "
        "acquires one brings the network",
        what, name);
    return vf_hint(err, "set target, min and standby to 0, and autosize to false");
}

/* ---- a pool's settings */

static void file_name(const char *name, char ret[VF_SPEC_NAME_MAX + 8])
{
    snprintf(ret, VF_SPEC_NAME_MAX + 8, "%s.json", name);
}

static int save(struct vf_pool *pool, const struct kept *k, struct vf_error *err)
{
    char name[VF_SPEC_NAME_MAX + 8];
    VF_CLEANUP_FREE char *text = vf_json_encode(kept_fields, k);
    if (!text)
        return vf_fail(err, VF_NO_MEMORY, "pool");
    file_name(pool->spec.name, name);
    int r = vf_write_file(pool->pools->pools_dirfd, name, text, strlen(text), 0600, err);
    return r < 0 ? vf_wrap(err, "the pool's settings") : 0;
}

static void load(struct vf_pool *pool)
{
    char name[VF_SPEC_NAME_MAX + 8];
    VF_CLEANUP_FREE char *text = NULL;
    size_t len;
    struct vf_error e;
    struct kept k = {.config = defaults};
    file_name(pool->spec.name, name);
    int r = vf_read_file(pool->pools->pools_dirfd, name, 65536, &text, &len, &e);
    if (r == 0)
        r = vf_json_decode(text, len, 65536, kept_fields, &k, name, &e);
    if (r == 0)
        r = check(&k.config, &e);
    if (r < 0) {
        if (e.code != VF_NOT_FOUND)
            vf_log_error(VF_LOG_WARN, NULL, &e, "template %s: its pool has its defaults",
                         pool->spec.name);
        k = (struct kept){.config = defaults};
    }
    if (vf_pool_is_external(pool) && check_external(&k.config, pool->spec.name, &e) < 0) {
        vf_log_error(VF_LOG_WARN, NULL, &e, "template %s: its pool has its defaults",
                     pool->spec.name);
        k.config = defaults;
    }
    pool->config = k.config;
    pool->drained = k.drained;
    pool->target = k.config.target;
}

int vf_pool_set(struct vf_pool *pool, const struct vf_pool_config *c, struct vf_error *err)
{
    struct kept k = {*c, pool->drained};
    int r = check(c, err);
    if (r == 0 && vf_pool_is_external(pool))
        r = check_external(c, pool->spec.name, err);
    if (r == 0)
        r = save(pool, &k, err);
    if (r < 0)
        return r;
    pool->config = *c;
    pool->target = c->target; /* autosizing goes on from there */
    vf_event(pool->pools->events, "pool.set", pool->spec.name, NULL, VF_EVENT_ALL, NULL,
             "target %lld, %lld..%lld", (long long)c->target, (long long)c->min, (long long)c->max);
    vf_pool_touch(pool);
    vf_acquire_serve(pool);
    return 0;
}

int vf_pool_warm(struct vf_pool *pool, int64_t count, struct vf_error *err)
{
    struct kept k = {pool->config, false};
    if (pool->removing)
        return vf_fail(err, VF_CONFLICT, "template %s is being removed", pool->spec.name);
    if (count < 0 || count > MOST)
        return vf_fail(err, VF_INVALID_ARGUMENT, "count: must be between 1 and %d", MOST);
    if (pool->no_network) {
        vf_error_copy(err, pool->no_network);
        return vf_wrap(err, "template %s", pool->spec.name);
    }
    if (count)
        k.config.target = count;
    else if (vf_pool_is_external(pool))
        pool->asked = !pool->gen; /* all that can be made ahead */
    else if (k.config.target == 0)
        k.config.target = k.config.min > 1 ? k.config.min : 1;
    int r = vf_pool_is_external(pool) ? check_external(&k.config, pool->spec.name, err) : 0;
    if (r < 0)
        return r;
    r = check(&k.config, err);
    if (r < 0)
        return vf_hint(err, "`vmfactory pool set %s max=N` allows more", pool->spec.name);
    r = save(pool, &k, err);
    if (r < 0)
        return r;
    pool->config = k.config;
    pool->target = k.config.target;
    pool->drained = false;
    pool->pools->net.stale = true;
    pool->build_retry_us = pool->refill_retry_us = 0; /* somebody asked: now */
    vf_event(pool->pools->events, "pool.warm", pool->spec.name, NULL, VF_EVENT_ALL, NULL,
             "target %lld", (long long)k.config.target);
    vf_pool_touch(pool);
    return 0;
}

int vf_pool_drain(struct vf_pool *pool, struct vf_error *err)
{
    struct kept k = {pool->config, true};
    struct vf_error e;
    int r = save(pool, &k, err);
    if (r < 0)
        return r;
    pool->drained = pool->pools->net.stale = true;
    vf_fail(&e, VF_CONFLICT, "template %s was drained", pool->spec.name);
    vf_acquire_fail_all(pool->pools, pool, &e);
    vf_pool_empty(pool, 0);
    vf_event(pool->pools->events, "pool.drained", pool->spec.name, NULL, VF_EVENT_ALL, NULL, NULL);
    vf_pool_touch(pool);
    return 0;
}

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
    load(pool);
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
    file_name(a->spec.name, name);
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
    } else if (pool->removing)
        return vf_fail(err, VF_CONFLICT, "template %s is being removed", pool->spec.name);
    else if (!vf_spec_equal(&pool->spec, &a->spec)) {
        int r = a->spec.network.mode == VF_NETWORK_EXTERNAL
                    ? check_external(&pool->config, pool->spec.name, err)
                    : 0;
        if (r < 0)
            return r;
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
    if (!err && (p->closing ? vf_fail(&e, VF_CANCELLED, "the daemon is stopping") : put(a, &e)) < 0)
        err = &e;
    LIST_REMOVE(a, others);
    a->done(a->arg, err);
    vf_spec_free(&a->spec);
    free(a);
    vf_pools_soon(p);
}

int vf_pools_add(struct vf_pools *p, struct vf_spec *spec, vf_done_cb done, void *arg,
                 struct vf_error *err)
{
    struct vf_pool *pool;
    if (p->closing)
        return vf_fail(err, VF_CANCELLED, "the daemon is stopping");
    if (vf_pools_find(p, spec->name, &pool, NULL) == 0 && pool->removing)
        return vf_fail(err, VF_CONFLICT, "template %s is being removed", spec->name);
    if (spec->class_name && vf_runtimes_removes_class(p->runtimes, spec->class_name)) {
        vf_fail(err, VF_CONFLICT, "class: the class \"%s\" is being removed", spec->class_name);
        return vf_hint(err, "name another class, or set it again once it is gone");
    }
    int r = vf_registry_settle(vf_runtimes_registry(p->runtimes), spec, err);
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
    file_name(pool->spec.name, name);
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

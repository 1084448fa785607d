/* A pool's own settings: STATE/pools/NAME.json, replaced as one; without it a pool has its defaults.
 *
 * Happy path: what comes is checked as a whole, written, then in force: the pool is looked at again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
int vf_pool_check_external(const struct vf_pool_config *c, const char *name, struct vf_error *err)
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

void vf_pool_file_name(const char *name, char ret[VF_SPEC_NAME_MAX + 8])
{
    snprintf(ret, VF_SPEC_NAME_MAX + 8, "%s.json", name);
}

static int save(struct vf_pool *pool, const struct kept *k, struct vf_error *err)
{
    char name[VF_SPEC_NAME_MAX + 8];
    VF_CLEANUP_FREE char *text = vf_json_encode(kept_fields, k);
    if (!text)
        return vf_fail(err, VF_NO_MEMORY, "pool");
    vf_pool_file_name(pool->spec.name, name);
    int r = vf_write_file(pool->pools->pools_dirfd, name, text, strlen(text), 0600, err);
    return r < 0 ? vf_wrap(err, "the pool's settings") : 0;
}

void vf_pool_load_config(struct vf_pool *pool)
{
    char name[VF_SPEC_NAME_MAX + 8];
    VF_CLEANUP_FREE char *text = NULL;
    size_t len;
    struct vf_error e;
    struct kept k = {.config = defaults};
    vf_pool_file_name(pool->spec.name, name);
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
    if (vf_pool_is_external(pool) && vf_pool_check_external(&k.config, pool->spec.name, &e) < 0) {
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
    if (r == 0 && vf_pool_comes_external(pool))
        r = vf_pool_check_external(c, pool->spec.name, err);
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
    int r =
        vf_pool_comes_external(pool) ? vf_pool_check_external(&k.config, pool->spec.name, err) : 0;
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

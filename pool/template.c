/* A template's generation, as its pool uses it.
 *
 *     absent --build--> building --+--> ready --(too old, too many clones)--> built anew, then replaced
 *     (on disk) --load--> loading -+      |
 *                                         +--(N clones failed in a row)--> quarantined --build--> ready
 *
 * A build begins only because somebody asked: warm, build, a target that was set before. One that fails is tried
 * again after a pause that doubles, as long as it is wanted. While a new generation is being built the old one goes on
 * serving; without one, cold boots do.
 *
 * The sealed memory of a generation ends with the daemon that held it, and its clones go on. The next daemon reads it
 * back from the store, and verifies it, rather than take it out of a clone's VMM: that process has run a hostile guest
 * and could hand over anything.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "pool/pools_internal.h"

static bool is_wanted(const struct vf_pool *pool)
{
    return !pool->removing && !pool->pools->closing && !pool->no_network &&
           (pool->asked || pool->rebuild ||
            (!pool->drained && (pool->target > 0 || pool->config.standby > 0)));
}

static void set_state(struct vf_pool *pool, enum vf_template_state state, const char *reason)
{
    pool->state = state;
    vf_set_text(&pool->reason, reason);
    vf_pool_touch(pool);
}

/* Nothing of the generation is used any more; parked VMs of it go. */
static void drop(struct vf_pool *pool)
{
    int64_t number = pool->current;
    struct vf_generation *gen = pool->gen;
    pool->gen = NULL;
    vf_pool_set_current(pool, 0);
    if (number)
        vf_pool_empty(pool, number);
    if (gen)
        vf_pools_drop_generation(pool->pools, gen);
}

static void take(struct vf_pool *pool, struct vf_generation *gen)
{
    struct vf_generation *old = pool->gen;
    pool->gen = gen;
    pool->clones = 0;
    pool->failed_clones = 0;
    pool->rebuild = false;
    pool->gen_since_us = vf_now_us();
    set_state(pool, VF_TEMPLATE_READY, NULL);
    vf_pool_set_current(pool, gen->number);
    pool->refill_failures = 0;
    pool->refill_retry_us = 0;
    if (old)
        vf_pools_drop_generation(pool->pools, old);
    pool->tidy = true;
    vf_acquire_serve(pool);
}

/* ---- load */

static void on_loaded(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    struct vf_pool *pool = arg;
    struct vf_pools *p = pool->pools;
    pool->loading = false;
    vf_pool_touch(pool);
    if (gen && (p->closing || pool->removing || pool->gen)) {
        vf_pools_drop_generation(p, gen);
        return;
    }
    if (gen && !vf_spec_equal(&gen->manifest.spec, &pool->spec)) {
        char why[120];
        snprintf(why, sizeof(why), "the spec has changed since generation %lld was built",
                 (long long)gen->number);
        vf_pools_drop_generation(p, gen);
        drop(pool);
        set_state(pool, VF_TEMPLATE_ABSENT, why);
    } else if (gen) {
        vf_event(p->events, "template.loaded", pool->spec.name, NULL, VF_EVENT_ALL, NULL,
                 "generation %lld", (long long)gen->number);
        take(pool, gen);
    } else {
        drop(pool);
        set_state(pool, VF_TEMPLATE_ABSENT, err->code == VF_NOT_FOUND ? NULL : err->msg);
        if (err->code != VF_NOT_FOUND)
            vf_event(p->events, "template.unfit", pool->spec.name, NULL, VF_EVENT_ALL, err, NULL);
    }
    vf_acquire_serve(pool);
}

void vf_template_load(struct vf_pool *pool)
{
    struct vf_error e;
    if (pool->no_network)
        set_state(pool, VF_TEMPLATE_ABSENT, pool->no_network->msg);
    if (pool->current == 0 || pool->no_network)
        return;
    if (vf_factory_load(pool->pools->factory, pool->spec.name, 0, on_loaded, pool, &e) < 0) {
        set_state(pool, VF_TEMPLATE_ABSENT, e.msg);
        return;
    }
    pool->loading = true;
    set_state(pool, VF_TEMPLATE_LOADING, NULL);
    vf_event(pool->pools->events, "template.loading", pool->spec.name, NULL, VF_EVENT_ALL, NULL,
             "generation %lld", (long long)pool->current);
}

/* ---- build */

static void build_failed(struct vf_pool *pool, const struct vf_error *err)
{
    struct vf_pools *p = pool->pools;
    pool->asked = false;
    pool->build_failures++;
    pool->build_retry_us = vf_deadline_after_ms(vf_backoff_ms(p->settings, pool->build_failures));
    vf_set_error(&pool->build_error, err);
    if (pool->state == VF_TEMPLATE_BUILDING)
        set_state(pool, VF_TEMPLATE_ABSENT, err->msg);
    vf_stats_build_failed(pool->stats, err->code);
    vf_event(p->events, "template.build_failed", pool->spec.name, NULL, VF_EVENT_ALL, err, NULL);
}

static void on_built(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    struct vf_pool *pool = arg;
    struct vf_pools *p = pool->pools;
    pool->build = NULL;
    pool->build_stage = NULL;
    vf_pool_touch(pool);
    if (p->closing || pool->removing) {
        if (gen)
            vf_pools_drop_generation(p, gen);
        return;
    }
    if (err) {
        if (err->code == VF_CANCELLED && pool->state == VF_TEMPLATE_BUILDING)
            set_state(pool, VF_TEMPLATE_ABSENT, NULL);
        if (err->code != VF_CANCELLED)
            build_failed(pool, err);
        vf_acquire_serve(pool);
        return;
    }
    int64_t us = vf_now_us() - pool->build_began_us;
    bool rotated = pool->gen != NULL;
    pool->asked = false;
    vf_set_error(&pool->build_error, NULL);
    vf_stats_built(pool->stats, us);
    vf_event(p->events, rotated ? "template.rotated" : "template.built", pool->spec.name, NULL,
             VF_EVENT_ALL, NULL, "generation %lld, in %.1f s", (long long)gen->number,
             (double)us / 1e6);
    if (!vf_spec_equal(&gen->manifest.spec, &pool->spec)) { /* replaced while it was built */
        vf_pools_drop_generation(p, gen);
        pool->asked = true;
        return;
    }
    take(pool, gen);
}

static void on_build_stage(void *arg, const char *stage)
{
    struct vf_pool *pool = arg;
    pool->build_stage = stage;
    vf_event(pool->pools->events, "template.building", pool->spec.name, NULL, VF_EVENT_ALL, NULL,
             "%s", stage);
}

static int build(struct vf_pool *pool, struct vf_error *err)
{
    struct vf_pools *p = pool->pools;
    pool->build_attempts++;
    pool->build_began_us = vf_now_us();
    int r = vf_factory_build(p->factory, &pool->spec, on_build_stage, on_built, pool, &pool->build,
                             err);
    if (r < 0) {
        pool->build = NULL;
        build_failed(pool, err);
        return r;
    }
    if (!pool->gen && pool->state == VF_TEMPLATE_ABSENT)
        set_state(pool, VF_TEMPLATE_BUILDING, NULL);
    vf_pool_touch(pool);
    return 0;
}

int vf_pool_build(struct vf_pool *pool, struct vf_error *err)
{
    if (pool->removing)
        return vf_fail(err, VF_CONFLICT, "template %s is being removed", pool->spec.name);
    if (pool->no_network) {
        vf_error_copy(err, pool->no_network);
        return vf_wrap(err, "template %s", pool->spec.name);
    }
    if (pool->build)
        return 0;
    pool->asked = true;
    if (pool->loading) /* it begins when that is over */
        return 0;
    return build(pool, err);
}

static bool is_worn(const struct vf_pool *pool)
{
    const struct vf_pool_config *c = &pool->config;
    return (c->max_clones && pool->clones >= c->max_clones) ||
           (c->max_age_s && (vf_now_us() - pool->gen_since_us) / 1000000 >= c->max_age_s);
}

void vf_template_tick(struct vf_pool *pool)
{
    struct vf_error e;
    bool worn = pool->gen && is_worn(pool) && !pool->drained;
    if (pool->build || pool->loading || !(is_wanted(pool) || worn))
        return;
    if (pool->asked || !pool->gen || worn) {
        if (!pool->asked && vf_now_us() < pool->build_retry_us)
            return;
        build(pool, &e); /* its failure is noted in the pool */
    }
}

void vf_template_stop(struct vf_pool *pool)
{
    if (pool->build)
        vf_build_cancel(pool->build);
}

void vf_template_outdated(struct vf_pool *pool)
{
    bool had = pool->current != 0;
    vf_template_stop(pool);
    drop(pool);
    set_state(pool, VF_TEMPLATE_ABSENT, had ? "the spec has changed since it was built" : NULL);
    pool->build_failures = 0;
    pool->build_retry_us = 0;
    vf_set_error(&pool->build_error, NULL);
}

/* ---- clones that fail */

/* Whether it can be the generation's fault, rather than the host's. */
static bool blames_generation(enum vf_code code)
{
    switch (code) {
    case VF_PROOF_FAILED:
    case VF_GUEST_FAILED:
    case VF_VMM_FAILED:
    case VF_VMM_DIED:
    case VF_PROTOCOL:
    case VF_TIMEOUT:
    case VF_CORRUPT:
        return true;
    default:
        return false;
    }
}

struct mark {
    struct vf_work work;
    struct vf_pools *pools;
    char name[VF_SPEC_NAME_MAX + 1];
    int64_t number;
    char reason[768];
};

static int mark(struct vf_work *w, struct vf_error *err)
{
    struct mark *m = w->arg;
    return vf_store_quarantine(m->pools->store, m->name, m->number, m->reason, err);
}

static void on_marked(void *arg, const struct vf_error *err)
{
    struct mark *m = arg;
    struct vf_pools *p = m->pools;
    if (err) /* it is not used by this daemon in any case */
        vf_event(p->events, "template.quarantine_failed", m->name, NULL, VF_EVENT_ALL, err, NULL);
    free(m);
    p->works--;
    vf_pools_soon(p);
}

static void quarantine(struct vf_pool *pool, const struct vf_error *err)
{
    struct vf_pools *p = pool->pools;
    int64_t number = pool->current;
    char why[sizeof(err->msg) + 64];
    snprintf(why, sizeof(why), "%d clones in a row failed, the last: %s", pool->failed_clones,
             err->msg);
    struct mark *m = calloc(1, sizeof(*m));
    if (m) {
        m->pools = p;
        m->number = number;
        snprintf(m->name, sizeof(m->name), "%s", pool->spec.name);
        snprintf(m->reason, sizeof(m->reason), "%.700s", why);
        if (vf_work_submit(p->loop, &m->work, mark, on_marked, m) == 0)
            p->works++;
        else
            free(m);
    }
    vf_stats_quarantined(pool->stats);
    vf_event(p->events, "template.quarantined", pool->spec.name, NULL, VF_EVENT_ALL, err,
             "generation %lld: %.600s", (long long)number, why);
    drop(pool);
    set_state(pool, VF_TEMPLATE_QUARANTINED, why);
    /* The rebuild begins at once the first time, and later each time it comes to this. */
    pool->build_retry_us =
        pool->build_failures
            ? vf_deadline_after_ms(vf_backoff_ms(p->settings, pool->build_failures))
            : 0;
    pool->build_failures++;
    pool->failed_clones = 0;
    pool->rebuild = true;
}

void vf_template_clone_failed(struct vf_pool *pool, int64_t generation, const struct vf_error *err)
{
    if (generation == 0 || generation != pool->current || !pool->gen ||
        !blames_generation(err->code))
        return;
    pool->failed_clones++;
    if (pool->failed_clones >= pool->pools->settings->quarantine_after)
        quarantine(pool, err);
}

void vf_template_clone_made(struct vf_pool *pool, int64_t generation, int64_t us)
{
    double s = (double)us / 1e6;
    pool->clone_s = pool->clone_s > 0 ? pool->clone_s * 0.8 + s * 0.2 : s;
    if (generation != pool->current)
        return;
    pool->clones++;
    pool->failed_clones = 0;
    if (!pool->build_error)
        pool->build_failures =
            0; /* what was built works; an older one's clones say nothing of the next build */
}

void vf_template_unfit(struct vf_pool *pool, const struct vf_error *err)
{
    vf_event(pool->pools->events, "template.unfit", pool->spec.name, NULL, VF_EVENT_ALL, err, NULL);
    drop(pool);
    set_state(pool, VF_TEMPLATE_ABSENT, err->msg);
    pool->rebuild = true;
}

/* ---- old generations */

struct tidy {
    struct vf_work work;
    struct vf_pools *pools;
    char name[VF_SPEC_NAME_MAX + 1];
    int64_t keep;
};

static int tidy(struct vf_work *w, struct vf_error *err)
{
    struct tidy *t = w->arg;
    struct vf_store_entry *v;
    size_t n;
    int r = vf_store_list(t->pools->store, t->name, &v, &n, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        if (v[i].generation < t->keep && !v[i].loaded)
            vf_store_remove(t->pools->store, t->name, v[i].generation, NULL);
    free(v);
    return 0;
}

static void on_tidied(void *arg, const struct vf_error *err)
{
    struct tidy *t = arg;
    struct vf_pools *p = t->pools;
    (void)err; /* what could not be removed is tried again with the next generation */
    free(t);
    p->works--;
    vf_pools_soon(p);
}

void vf_template_tidy(struct vf_pool *pool)
{
    struct vf_pools *p = pool->pools;
    struct tidy *t;
    pool->tidy = false;
    if (!pool->gen || pool->removing || p->closing || !(t = calloc(1, sizeof(*t))))
        return;
    t->pools = p;
    t->keep = pool->gen->number;
    snprintf(t->name, sizeof(t->name), "%s", pool->spec.name);
    if (vf_work_submit(p->loop, &t->work, tidy, on_tidied, t) == 0)
        p->works++;
    else
        free(t);
}

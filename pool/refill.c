/* Keeps a pool's parked and standby VMs at their numbers.
 *
 * Callers come first: while a VM is made or woken for one, refilling waits, for about as long as a clone takes.
 *
 * Each time something changed: too few, and clones are made, refill_concurrency at once; too many, or of an
 * older generation that new ones replace, and the oldest go. A clone that fails makes a pause that doubles, with jitter,
 * up to a cap; memory pressure stops refilling until it is over. All of it is a pool's own: one that fails or
 * hangs holds up no other.
 */
#include <stdlib.h>
#include "base/clock.h"
#include "pool/pools_internal.h"
#include "vmm/vmm.h"

bool vf_slot_parks_paused(const struct vf_slot *s)
{
    const struct vf_vm_info *info = vf_vm_info_of(vf_instance_vm(s->vm));
    const struct vf_spec *spec = vf_instance_spec(s->vm);
    struct vf_vmm_caps caps;
    vf_vmm_find(vf_spec_vmm_names[spec->vmm])
        ->capabilities(info->version[0] ? info->version : NULL, &caps);
    if (!caps.park_paused)
        return false;
    return s->pool->config.park == VF_POOL_PARK_SPEC ? vf_spec_park(spec) == VF_PARK_PAUSED
                                                     : s->pool->config.park == VF_POOL_PARK_PAUSED;
}

void vf_pool_empty(struct vf_pool *pool, int64_t generation)
{
    struct vf_slot_list *lists[] = {&pool->parked, &pool->standby};
    for (int i = 0; i < 2; i++) {
        struct vf_slot *s, *next;
        for (s = TAILQ_FIRST(lists[i]); s; s = next) {
            next = TAILQ_NEXT(s, queue);
            if (generation == 0 || s->generation == generation)
                vf_slot_destroy(s);
        }
    }
}

void vf_refill_worked(struct vf_pool *pool)
{
    pool->refill_failures = 0;
    pool->refill_retry_us = 0;
    vf_set_error(&pool->refill_error, NULL);
}

void vf_refill_failed(struct vf_pool *pool, const struct vf_error *err)
{
    struct vf_pools *p = pool->pools;
    pool->refill_failures++;
    pool->refill_failures_total++;
    int64_t ms = vf_backoff_ms(p->settings, pool->refill_failures);
    pool->refill_retry_us = vf_deadline_after_ms(ms);
    vf_set_error(&pool->refill_error, err);
    vf_stats_refill_failed(pool->stats, err->code);
    vf_event(p->events, "pool.backoff", pool->spec.name, NULL, VF_EVENT_ALL, err,
             "%d refills in a row failed, the next in %lld ms; the last: %.600s",
             pool->refill_failures, (long long)ms, err->msg);
    vf_pool_touch(pool);
}

/* Parked VMs beyond the target; those of an older generation as new ones take their place. */
static void trim(struct vf_pool *pool)
{
    while (pool->n[VF_SLOT_PARKED] > pool->target) {
        struct vf_slot *s = NULL, *i;
        TAILQ_FOREACH (i, &pool->parked, queue)
            if (!s || (i->generation != pool->current && s->generation == pool->current))
                s = i;
        vf_slot_destroy(s);
    }
    while (pool->n[VF_SLOT_STANDBY] > pool->config.standby)
        vf_slot_destroy(TAILQ_FIRST(&pool->standby));
    for (struct vf_slot *s = TAILQ_FIRST(&pool->standby), *next; s; s = next) {
        next = TAILQ_NEXT(s, queue);
        if (s->generation != pool->current)
            vf_slot_destroy(s);
    }
}

static bool is_held_up(struct vf_pool *pool)
{
    struct vf_pools *p = pool->pools;
    const struct vf_settings *s = p->settings;
    if (vf_now_us() < pool->refill_retry_us || (s->max_vms && p->n_slots >= s->max_vms))
        return true;
    if (p->under_pressure != pool->pressure_told) {
        pool->pressure_told = p->under_pressure;
        vf_event(p->events, p->under_pressure ? "pool.pressure" : "pool.pressure_over",
                 pool->spec.name, NULL, VF_EVENT_ALL, NULL, "%s",
                 p->under_pressure ? p->pressure : "refilling goes on");
    }
    return p->under_pressure;
}

/* Whether callers have the cores first. A VM that takes much longer than others did holds refilling up no more, nor do
 * callers who never stop coming. */
static bool gives_way(struct vf_pool *pool)
{
    if (pool->starting + pool->n[VF_SLOT_WAKING] == 0) {
        pool->give_way_until_us = 0;
        return false;
    }
    if (!pool->give_way_until_us)
        pool->give_way_until_us = vf_now_us() + (int64_t)(pool->clone_s * 1e6);
    return vf_now_us() < pool->give_way_until_us;
}

static bool make(struct vf_pool *pool, enum vf_make what, enum vf_purpose purpose)
{
    struct vf_error e;
    if (vf_slot_make(pool, what, purpose, NULL, NULL, &e) == 0)
        return true;
    if (e.code == VF_CONFLICT) /* a file of it has changed */
        vf_template_unfit(pool, &e);
    else
        vf_refill_failed(pool, &e);
    return false;
}

void vf_refill_tick(struct vf_pool *pool)
{
    const struct vf_pool_config *c = &pool->config;
    if (pool->drained || pool->removing || pool->pools->closing)
        return;
    trim(pool);
    if (gives_way(pool))
        return; /* its end comes back here */
    while (pool->gen && pool->making_pool < c->refill_concurrency &&
           pool->parked_current + pool->making_pool < pool->target && !is_held_up(pool))
        if (!make(pool, VF_MAKE_CLONE, VF_FOR_POOL))
            return;
    while (pool->gen && pool->making_standby < c->refill_concurrency &&
           pool->n[VF_SLOT_STANDBY] + pool->making_standby < c->standby && !is_held_up(pool))
        if (!make(pool, VF_MAKE_STANDBY, VF_FOR_STANDBY))
            return;
}

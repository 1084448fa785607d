/* Leases: who holds a VM, until when, and who may see it.
 *
 * A lease begins with its journal record, before anyone is told of it: a daemon that is killed right after finds
 * it leased. It ends by release, by its time to live, by its caller never having read the answer, or stays
 * and says `dead` when its VM died, until it is released.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "pool/pools_internal.h"

/* ---- quotas */

static struct vf_holder *holder_of(struct vf_pools *p, uid_t uid)
{
    for (int i = 0; i < p->n_holders; i++)
        if (p->holders[i].uid == uid)
            return &p->holders[i];
    if (p->n_holders == p->cap_holders) {
        int cap = p->cap_holders ? p->cap_holders * 2 : 8;
        struct vf_holder *more = realloc(p->holders, (size_t)cap * sizeof(*more));
        if (!more)
            return NULL;
        p->holders = more;
        p->cap_holders = cap;
    }
    p->holders[p->n_holders] = (struct vf_holder){.uid = uid};
    return &p->holders[p->n_holders++];
}

int vf_claim(struct vf_pool *pool, uid_t uid, struct vf_error *err)
{
    struct vf_pools *p = pool->pools;
    struct vf_holder *h = holder_of(p, uid);
    if (!h)
        return vf_fail(err, VF_NO_MEMORY, "lease");
    if (p->settings->max_leases_per_holder && h->claims >= p->settings->max_leases_per_holder) {
        vf_fail(err, VF_BUSY, "max_leases_per_holder: uid %u has %d VMs already", (unsigned)uid,
                h->claims);
        return vf_hint(err, "release some, or raise the daemon's max_leases_per_holder");
    }
    if (pool->config.max_leases && pool->claims >= pool->config.max_leases) {
        vf_fail(err, VF_BUSY, "max_leases: %d VMs of template %s are leased already", pool->claims,
                pool->spec.name);
        return vf_hint(err, "release some, or raise the pool's max_leases");
    }
    h->claims++;
    pool->claims++;
    return 0;
}

void vf_claim_kept(struct vf_pool *pool, uid_t uid)
{
    struct vf_holder *h = holder_of(pool->pools, uid);
    pool->claims++;
    if (h)
        h->claims++;
}

void vf_unclaim(struct vf_pool *pool, uid_t uid)
{
    struct vf_pools *p = pool->pools;
    struct vf_holder *h = holder_of(p, uid);
    pool->claims--;
    if (h && --h->claims == 0)
        *h = p->holders[--p->n_holders];
}

/* ---- begin, renew, expire */

static void add_stage(struct vf_slot *s, const char *name, int64_t us)
{
    if (s->n_stages < VF_MAX_STAGES)
        s->stages[s->n_stages++] = (struct vf_stage){name, us};
}

/* What the caller waited for: a turn, the VM's own stages, and the rest. */
static void note_stages(struct vf_slot *s, const struct vf_acquire *a, int64_t now)
{
    int n = 0;
    int64_t sum = 0;
    s->n_stages = 0;
    bool only_taken = s->state == VF_SLOT_PARKED || (s->state == VF_SLOT_WAKING && !s->paused);
    if (!only_taken) {
        const struct vf_stage *stages = vf_instance_stages(s->vm, &n);
        if (s->began_us > a->began_us + 1000) {
            add_stage(s, "wait", s->began_us - a->began_us);
            sum = s->began_us - a->began_us;
        }
        for (int i = 0; i < n; i++) {
            add_stage(s, stages[i].name, stages[i].us);
            sum += stages[i].us;
        }
    }
    if (s->ports_us) {
        add_stage(s, "ports", s->ports_us);
        sum += s->ports_us;
    }
    int64_t rest = now - a->began_us - sum;
    add_stage(s, "lease", rest > 0 ? rest : 0);
    s->total_us = now - a->began_us;
}

int vf_lease_begin(struct vf_slot *s, struct vf_acquire *a, struct vf_error *err)
{
    struct vf_pools *p = s->pools;
    s->holder = a->who;
    s->ttl_ms = a->ttl_ms;
    s->expires_us = a->ttl_ms ? vf_deadline_after_ms(a->ttl_ms) : VF_NEVER;
    s->acquired_us = vf_now_us();
    s->acquired_ms = vf_realtime_ns() / 1000000;
    int r = vf_slot_record(s, VF_RECORD_LEASED, err);
    if (r < 0)
        return r;
    note_stages(s, a, vf_now_us());
    s->was_leased = true;
    s->end = VF_LEASE_RELEASED;
    bool watched = s->state == VF_SLOT_PARKED;
    vf_slot_set_state(s, VF_SLOT_LEASED);
    if (s->expires_us != VF_NEVER)
        vf_pools_arm_deadline(p, s->expires_us);
    vf_stats_acquired(s->pool->stats, s->got, s->total_us, s->stages, s->n_stages);
    vf_event(p->events, "vm.leased", s->pool->spec.name, s->id, s->holder.uid, NULL, "%s: %s",
             vf_got_names[s->got], s->reason);
    if (!watched)
        vf_slot_watch(s);
    return 0;
}

int vf_lease_check_ttl(const struct vf_pools *p, int64_t ttl_ms, struct vf_error *err)
{
    int64_t longest = p->settings->max_lease_ttl_ms;
    if (ttl_ms < 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "ttl_ms: must not be negative");
    if (!longest || (ttl_ms > 0 && ttl_ms <= longest))
        return 0;
    vf_fail(err, VF_INVALID_ARGUMENT, "ttl_ms: at most %lld here, and it must be given",
            (long long)longest);
    return vf_hint(err, "ask for less, or change the daemon's max_lease_ttl_ms");
}

int vf_slot_renew(struct vf_slot *s, int64_t ttl_ms, struct vf_error *err)
{
    int64_t ttl_was = s->ttl_ms, expires_was = s->expires_us;
    int r = vf_lease_check_ttl(s->pools, ttl_ms, err);
    if (r < 0)
        return r;
    s->ttl_ms = ttl_ms;
    s->expires_us = ttl_ms ? vf_deadline_after_ms(ttl_ms) : VF_NEVER;
    r = s->vm ? vf_slot_record(s, VF_RECORD_LEASED, err) : 0;
    if (r < 0) {
        s->ttl_ms = ttl_was;
        s->expires_us = expires_was;
        return r;
    }
    if (ttl_ms)
        vf_pools_arm_deadline(s->pools, s->expires_us);
    return 0;
}

static void end(struct vf_slot *s, enum vf_lease_end how)
{
    if (!s->death) /* a dead one died, whoever sweeps up */
        s->end = how;
    vf_slot_destroy(s);
}

int64_t vf_lease_next_expiry(const struct vf_pools *p)
{
    const struct vf_slot *s;
    int64_t next = VF_NEVER;
    TAILQ_FOREACH (s, &p->leases, leases)
        if (s->expires_us < next)
            next = s->expires_us;
    return next;
}

void vf_lease_expire(struct vf_pools *p)
{
    int64_t now = vf_now_us();
    struct vf_slot *s, *next;
    for (s = TAILQ_FIRST(&p->leases); s; s = next) {
        next = TAILQ_NEXT(s, leases);
        if (s->expires_us > now)
            continue;
        vf_event(p->events, "vm.expired", s->pool->spec.name, s->id, s->holder.uid, NULL,
                 "its time to live of %lld ms is over", (long long)s->ttl_ms);
        end(s, VF_LEASE_EXPIRED);
    }
}

void vf_pools_unclaimed(struct vf_pools *p, const char *id)
{
    struct vf_slot *s = vf_slot_find(p, id);
    if (!s || s->state != VF_SLOT_LEASED)
        return;
    vf_event(p->events, "vm.unclaimed", s->pool->spec.name, s->id, s->holder.uid, NULL,
             "its caller closed the connection without reading the answer");
    end(s, VF_LEASE_UNCLAIMED);
}

void vf_lease_ended(struct vf_slot *s)
{
    struct vf_pools *p = s->pools;
    vf_unclaim(s->pool, s->holder.uid);
    if (s->closing_kept)
        return; /* it goes on, for the next daemon */
    vf_stats_lease_ended(s->pool->stats, s->end, vf_now_us() - s->acquired_us);
    snprintf(p->released[p->released_at].id, sizeof(p->released[0].id), "%s", s->id);
    p->released[p->released_at].uid = s->holder.uid;
    p->released_at = (p->released_at + 1) % (int)(sizeof(p->released) / sizeof(*p->released));
    vf_event(p->events, "vm.released", s->pool->spec.name, s->id, s->holder.uid, NULL, "%s",
             vf_lease_end_names[s->end]);
}

/* ---- who may see what */

static bool may_see(const struct vf_slot *s, const struct vf_caller *who)
{
    return who->admin || (s->was_leased && s->holder.uid == who->uid);
}

int vf_pools_vm(struct vf_pools *p, const char *id, const struct vf_caller *who,
                struct vf_slot **ret, struct vf_error *err)
{
    struct vf_slot *s = vf_slot_find(p, id);
    if (!s || s->state != VF_SLOT_LEASED || !may_see(s, who)) {
        vf_fail(err, VF_NOT_FOUND, "there is no VM %.32s", id);
        return vf_hint(err, "`vmfactory ps` lists yours");
    }
    *ret = s;
    return 0;
}

struct vf_slot *vf_pools_next_vm(struct vf_pools *p, struct vf_slot *after,
                                 const struct vf_caller *who, bool waiting_too)
{
    struct vf_slot *s;
    struct vf_pool *pool = p->first;
    bool others = waiting_too && who->admin;
    if (!after || after->state == VF_SLOT_LEASED) {
        s = after ? TAILQ_NEXT(after, leases) : TAILQ_FIRST(&p->leases);
        while (s && !may_see(s, who))
            s = TAILQ_NEXT(s, leases);
        if (s || !others)
            return s;
    } else {
        pool = after->pool->next;
        s = TAILQ_NEXT(after, queue);
        if (!s && after->state == VF_SLOT_PARKED)
            s = TAILQ_FIRST(&after->pool->standby);
        if (s)
            return s;
    }
    for (; pool; pool = pool->next) {
        s = TAILQ_FIRST(&pool->parked);
        if (!s)
            s = TAILQ_FIRST(&pool->standby);
        if (s)
            return s;
    }
    return NULL;
}

int vf_slot_agent(struct vf_slot *s, struct vf_agent **ret, struct vf_error *err)
{
    if (s->death) {
        vf_error_copy(err, s->death);
        return vf_wrap(err, "VM %s is dead", s->id);
    }
    if (!s->vm || s->destroying)
        return vf_fail(err, VF_CONFLICT, "VM %s is being released", s->id);
    *ret = vf_instance_agent(s->vm);
    return 0;
}

const char *vf_slot_id(const struct vf_slot *s)
{
    return s->id;
}

/* ---- release */

static bool was_released(const struct vf_pools *p, const char *id, const struct vf_caller *who)
{
    for (size_t i = 0; i < sizeof(p->released) / sizeof(*p->released); i++)
        if (strcmp(p->released[i].id, id) == 0)
            return who->admin || p->released[i].uid == who->uid;
    return false;
}

int vf_pools_release(struct vf_pools *p, const char *id, const struct vf_caller *who,
                     vf_done_cb done, void *arg, struct vf_error *err)
{
    struct vf_slot *s = vf_slot_find(p, id);
    if (!s && id[0] && was_released(p, id, who))
        return 1;
    if (!s || !s->was_leased || !may_see(s, who)) {
        vf_fail(err, VF_NOT_FOUND, "there is no VM %.32s", id);
        return vf_hint(err, "`vmfactory ps` lists yours");
    }
    if (s->state != VF_SLOT_RELEASING && !s->vm) { /* it died, and nothing of it is left */
        end(s, VF_LEASE_DIED);
        return 1;
    }
    struct vf_release_waiter *w = malloc(sizeof(*w));
    if (!w)
        return vf_fail(err, VF_NO_MEMORY, "release");
    *w = (struct vf_release_waiter){done, arg, s->waiters};
    s->waiters = w;
    if (s->state != VF_SLOT_RELEASING)
        end(s, VF_LEASE_RELEASED);
    return 0;
}

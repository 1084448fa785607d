/* A caller's way to a VM.
 *
 *     quotas -> parked VM -> standby VMM -> clone -> cold boot          the first that is accepted and there
 *
 * A VM parked running is leased before vf_pools_acquire returns. All else takes an answer of the guest: the
 * request is then pending, with the slot that is being made or woken for it. If that fails, the next source is
 * tried. Clones and boots for callers are made start_concurrency at a time; who comes when that many are under
 * way waits in line, at most max_waiting of them, and gets whatever is ready first: a turn to start, or a VM
 * that was refilled meanwhile. A caller who goes away leaves the slot behind: it is parked, or destroyed.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "pool/pools_internal.h"

#define DEFAULT_TIMEOUT_MS 30000
#define LONGEST_RETRY_S 60

static bool accepts(const struct vf_acquire *a, enum vf_got got)
{
    return !a->require || (a->require & VF_REQUIRE(got));
}

static bool may_try(const struct vf_acquire *a, enum vf_got got)
{
    return accepts(a, got) && !(a->tried & VF_REQUIRE(got));
}

static void note(struct vf_acquire *a, const char *fmt, const char *what)
{
    size_t n = strlen(a->why);
    if (n && n + 2 < sizeof(a->why))
        n += (size_t)snprintf(a->why + n, sizeof(a->why) - n, "; ");
    if (n < sizeof(a->why))
        snprintf(a->why + n, sizeof(a->why) - n, fmt, what);
}

/* About how long until it is a newcomer's turn. */
static int retry_after_s(const struct vf_pool *pool)
{
    int64_t turns = pool->n_waiting / pool->config.start_concurrency + 1;
    double s = (double)turns * (pool->clone_s > 0 ? pool->clone_s : 1);
    return s < 1 ? 1 : s > LONGEST_RETRY_S ? LONGEST_RETRY_S : (int)(s + 0.999);
}

/* ---- the end of a request */

static void leave_line(struct vf_acquire *a)
{
    if (!a->is_waiting)
        return;
    TAILQ_REMOVE(&a->pool->waiting, a, waiting);
    a->pool->n_waiting--;
    a->is_waiting = false;
    vf_pool_touch(a->pool);
}

static void unlink_request(struct vf_acquire *a)
{
    TAILQ_REMOVE(&a->pools->pending, a, pending);
    leave_line(a);
    vf_pool_touch(a->pool);
}

static void finish(struct vf_acquire *a, struct vf_slot *s, const struct vf_error *err)
{
    unlink_request(a);
    if (err) {
        vf_unclaim(a->pool, a->who.uid);
        vf_stats_acquire_failed(a->pool->stats, err->code);
    }
    a->done(a->arg, s, err, err && err->code == VF_BUSY ? retry_after_s(a->pool) : 0);
    vf_acquire_free(a);
}

void vf_acquire_cancel(struct vf_acquire *a)
{
    if (a->slot)
        a->slot->acquire = NULL;
    unlink_request(a);
    vf_unclaim(a->pool, a->who.uid);
    vf_stats_acquire_failed(a->pool->stats, VF_CANCELLED);
    vf_acquire_free(a);
}

void vf_acquire_fail_all(struct vf_pools *p, const struct vf_pool *pool, const struct vf_error *err)
{
    struct vf_acquire *a = TAILQ_FIRST(&p->pending);
    while (a) {
        if (pool && a->pool != pool) {
            a = TAILQ_NEXT(a, pending);
            continue;
        }
        if (a->slot)
            a->slot->acquire = NULL;
        a->slot = NULL;
        finish(a, NULL, err);
        a = TAILQ_FIRST(&p->pending); /* its callback may have cancelled others */
    }
}

/* ---- trying */

static int lease(struct vf_acquire *a, struct vf_slot *s, struct vf_error *err)
{
    vf_set_text(&s->reason, a->why[0]              ? a->why
                            : a->got == VF_GOT_HIT ? "a parked VM was ready"
                                                   : "no source before it was asked for");
    s->got = a->got;
    return vf_lease_begin(s, a, err);
}

/* The oldest of the current generation, else of the one before it. */
static struct vf_slot *parked(struct vf_pool *pool)
{
    struct vf_slot *s;
    if (pool->parked_current == pool->n[VF_SLOT_PARKED])
        return TAILQ_FIRST(&pool->parked);
    TAILQ_FOREACH (s, &pool->parked, queue)
        if (s->generation == pool->current)
            return s;
    return TAILQ_FIRST(&pool->parked);
}

static int missed(struct vf_acquire *a, const char *fmt, const struct vf_error *err)
{
    a->failed = *err;
    note(a, fmt, err->msg);
    return 0;
}

/* Each try_: 1 leased, 0 not this one, 2 under way. */
static int try_hit(struct vf_acquire *a)
{
    struct vf_error e;
    struct vf_slot *s = parked(a->pool);
    if (!s) {
        note(a, "%s",
             vf_pool_is_external(a->pool) ? "none can be parked, the network is the caller's"
                                          : "pool empty");
        return 0;
    }
    a->got = VF_GOT_HIT;
    if (s->paused) {
        if (vf_slot_wake(s, a, &e) < 0)
            return missed(a, "hit: %s", &e);
        a->slot = s;
        return 2;
    }
    bool ports = vf_publish_wanted(s, a);
    if ((ports ? vf_publish(s, a, &e) : lease(a, s, &e)) < 0)
        return missed(a, "hit: %s", &e);
    a->slot = s;
    return ports ? 2 : 1;
}

static int try_standby(struct vf_acquire *a)
{
    struct vf_error e;
    struct vf_slot *s = TAILQ_FIRST(&a->pool->standby);
    if (!s) {
        if (a->pool->config.standby)
            note(a, "%s", "no standby VMM");
        return 0;
    }
    a->got = VF_GOT_STANDBY;
    if (vf_slot_bring(s, a, &e) < 0)
        return missed(a, "standby: %s", &e);
    a->slot = s;
    return 2;
}

static bool may_start(const struct vf_pool *pool)
{
    return pool->starting < pool->config.start_concurrency;
}

static int try_make(struct vf_acquire *a, enum vf_make what)
{
    struct vf_error e;
    struct vf_pools *p = a->pools;
    struct vf_slot *s;
    a->got = what == VF_MAKE_COLD ? VF_GOT_COLD : VF_GOT_CLONE;
    if (p->settings->max_vms && p->n_slots >= p->settings->max_vms) {
        vf_fail(&e, VF_BUSY, "max_vms: there are %d VMs already", p->n_slots);
        vf_hint(&e, "release some, or raise the daemon's max_vms");
        return missed(a, "%s", &e);
    }
    if (vf_slot_make(a->pool, what, VF_FOR_CALLER, a, &s, &e) < 0) {
        if (what == VF_MAKE_CLONE && e.code == VF_CONFLICT)
            vf_template_unfit(a->pool, &e);
        return missed(a, what == VF_MAKE_COLD ? "cold: %s" : "clone: %s", &e);
    }
    a->slot = s;
    return 2;
}

static void note_no_clone(struct vf_acquire *a)
{
    const struct vf_pool *pool = a->pool;
    static const char *const why[VF_TEMPLATE_STATE_COUNT] = {
        [VF_TEMPLATE_ABSENT] = "no template",
        [VF_TEMPLATE_LOADING] = "the template is being loaded",
        [VF_TEMPLATE_BUILDING] = "the template is being built",
        [VF_TEMPLATE_READY] = "no template",
        [VF_TEMPLATE_QUARANTINED] = "generation quarantined",
    };
    note(a, "%s", why[pool->state]);
    if (pool->reason && pool->state != VF_TEMPLATE_BUILDING && pool->state != VF_TEMPLATE_LOADING) {
        size_t n = strlen(a->why);
        snprintf(a->why + n, sizeof(a->why) - n, ": %.100s", pool->reason);
    }
}

/* Nothing else can be tried, but a refill may bring what it takes. */
static bool may_come(const struct vf_acquire *a)
{
    const struct vf_pool *pool = a->pool;
    bool template_coming = pool->gen || pool->loading || pool->build;
    return template_coming && ((may_try(a, VF_GOT_HIT) && pool->target > 0) ||
                               (may_try(a, VF_GOT_STANDBY) && pool->config.standby > 0) ||
                               (may_try(a, VF_GOT_CLONE) && !pool->gen));
}

static int wait_in_line(struct vf_acquire *a, struct vf_error *err)
{
    struct vf_pool *pool = a->pool;
    if (a->is_waiting)
        return 0;
    if (pool->n_waiting >= pool->config.max_waiting) {
        vf_fail(err, VF_BUSY, "max_waiting: %d callers wait for a VM of template %s already",
                pool->n_waiting, pool->spec.name);
        return vf_hint(err, "try again later, or raise the pool's target or start_concurrency");
    }
    a->is_waiting = true;
    TAILQ_INSERT_TAIL(&pool->waiting, a, waiting);
    pool->n_waiting++;
    vf_pool_touch(pool);
    return 0;
}

static int refuse(const struct vf_acquire *a, struct vf_error *err)
{
    if (a->failed.code) {
        vf_error_copy(err, &a->failed);
        return vf_wrap(err, "template %s", a->pool->spec.name);
    }
    vf_fail(err, VF_BUSY, "template %s: no accepted source has a VM: %s", a->pool->spec.name,
            a->why);
    return vf_hint(err, "accept more sources, or warm the pool");
}

/* 1: a->slot is leased; 0: pending; negative: it has failed. */
static int advance(struct vf_acquire *a, struct vf_error *err)
{
    static int (*const ready[])(struct vf_acquire *) = {
        [VF_GOT_HIT] = try_hit, [VF_GOT_STANDBY] = try_standby};
    struct vf_pool *pool = a->pool;
    int r = 0;
    if (a->is_waiting || !a->failed.code)
        a->why[0] = 0; /* said anew */
    for (enum vf_got got = VF_GOT_HIT; got <= VF_GOT_STANDBY && r == 0; got++)
        if (may_try(a, got)) {
            r = ready[got](a);
            if (r || a->failed.code)
                a->tried |= VF_REQUIRE(got);
        }
    if (r == 0 && may_try(a, VF_GOT_CLONE)) {
        if (!pool->gen)
            note_no_clone(a);
        else if (!may_start(pool))
            return wait_in_line(a, err);
        else {
            a->tried |= VF_REQUIRE(VF_GOT_CLONE);
            r = try_make(a, VF_MAKE_CLONE);
        }
    }
    if (r == 0 && may_try(a, VF_GOT_COLD)) {
        if (!may_start(pool))
            return wait_in_line(a, err);
        a->tried |= VF_REQUIRE(VF_GOT_COLD);
        r = try_make(a, VF_MAKE_COLD);
    }
    if (r == 0)
        return may_come(a) ? wait_in_line(a, err) : refuse(a, err);
    leave_line(a);
    return r == 1;
}

/* ---- what comes later */

void vf_acquire_got(struct vf_acquire *a, struct vf_slot *s)
{
    struct vf_error e;
    if (!vf_publish_wanted(s, a)) {
        vf_acquire_published(a, s);
        return;
    }
    leave_line(a);
    a->slot = NULL;
    if (vf_publish(s, a, &e) == 0) {
        a->slot = s;
        return;
    }
    vf_slot_destroy(s);
    finish(a, NULL, &e);
}

void vf_acquire_refused(struct vf_acquire *a, const struct vf_error *err)
{
    struct vf_error e = *err;
    a->slot = NULL;
    vf_wrap(&e, "template %s", a->pool->spec.name);
    finish(a, NULL, &e);
}

void vf_acquire_published(struct vf_acquire *a, struct vf_slot *s)
{
    struct vf_error e;
    a->slot = NULL;
    if (lease(a, s, &e) == 0) {
        finish(a, s, NULL);
        return;
    }
    vf_slot_destroy(s);
    finish(a, NULL, &e);
}

void vf_acquire_missed(struct vf_acquire *a, const struct vf_error *err)
{
    static const char *const fmt[] = {"hit: %s", "standby: %s", "clone: %s", "cold: %s"};
    struct vf_error e;
    a->slot = NULL;
    missed(a, fmt[a->got], err);
    int r = advance(a, &e);
    if (r != 0)
        finish(a, r > 0 ? a->slot : NULL, r > 0 ? NULL : &e);
}

bool vf_acquire_offer(struct vf_slot *s)
{
    struct vf_acquire *a;
    TAILQ_FOREACH (a, &s->pool->waiting, waiting)
        if (may_try(a, VF_GOT_HIT)) {
            a->got = VF_GOT_HIT;
            a->why[0] = 0;
            note(a, "%s", "refilled while the caller waited");
            vf_acquire_got(a, s);
            return true;
        }
    return false;
}

void vf_acquire_serve(struct vf_pool *pool)
{
    struct vf_acquire *a = TAILQ_FIRST(&pool->waiting);
    while (a) {
        struct vf_error e;
        if (TAILQ_EMPTY(&pool->parked) && TAILQ_EMPTY(&pool->standby) && !may_start(pool))
            return;
        int r = advance(a, &e);
        if (r == 0 && a->is_waiting) {
            a = TAILQ_NEXT(a, waiting);
            continue;
        }
        if (r != 0)
            finish(a, r > 0 ? a->slot : NULL, r > 0 ? NULL : &e);
        a = TAILQ_FIRST(&pool->waiting); /* a callback may have changed the line */
    }
}

int64_t vf_acquire_next_deadline(const struct vf_pools *p)
{
    const struct vf_acquire *a;
    int64_t next = VF_NEVER;
    TAILQ_FOREACH (a, &p->pending, pending)
        if (a->deadline_us < next)
            next = a->deadline_us;
    return next;
}

void vf_acquire_deadlines(struct vf_pools *p)
{
    int64_t now = vf_now_us();
    struct vf_acquire *a = TAILQ_FIRST(&p->pending);
    while (a) {
        if (a->deadline_us > now) {
            a = TAILQ_NEXT(a, pending);
            continue;
        }
        struct vf_error e;
        vf_fail(&e, VF_TIMEOUT, "template %s: no VM within timeout_ms%s%s", a->pool->spec.name,
                a->why[0] ? ": " : "", a->why);
        vf_hint(&e, "%s",
                a->is_waiting ? "callers before it wait too: raise the pool's target"
                              : "give it more time, or look at the pool's status");
        if (a->slot)
            a->slot->acquire = NULL;
        a->slot = NULL;
        finish(a, NULL, &e);
        a = TAILQ_FIRST(&p->pending);
    }
}

/* ---- the request */

int vf_pools_acquire(struct vf_pools *p, const struct vf_caller *who,
                     const struct vf_acquire_options *o, vf_acquire_cb done, void *arg,
                     struct vf_acquire **ret_req, struct vf_slot **ret_vm, int *ret_retry_after_s,
                     struct vf_error *err)
{
    struct vf_pool *pool;
    *ret_retry_after_s = 0;
    int r = vf_pools_find(p, o->template_name, &pool, err);
    if (r < 0)
        return r;
    if (p->refusing)
        return vf_fail(err, VF_CANCELLED, "the daemon is stopping");
    if (o->timeout_ms < 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "timeout_ms: must not be negative");
    r = vf_lease_check_ttl(p, o->ttl_ms, err);
    if (r < 0)
        return r;
    if (pool->no_network) {
        vf_error_copy(err, pool->no_network);
        return vf_wrap(err, "template %s", pool->spec.name);
    }
    if (pool->drained || pool->removing) {
        vf_fail(err, VF_CONFLICT, "template %s is %s", pool->spec.name,
                pool->removing ? "being removed" : "drained");
        return vf_hint(err, "`vmfactory warm %s` ends a drain", pool->spec.name);
    }
    vf_autosize_arrival(&pool->autosize, vf_now_us());
    r = vf_claim(pool, who->uid, err);
    if (r < 0) {
        *ret_retry_after_s = retry_after_s(pool);
        vf_stats_acquire_failed(pool->stats, err->code);
        return r;
    }
    struct vf_acquire *a = malloc(sizeof(*a));
    if (!a) {
        vf_unclaim(pool, who->uid);
        return vf_fail(err, VF_NO_MEMORY, "acquire");
    }
    *a = (struct vf_acquire){
        .pools = p,
        .pool = pool,
        .who = *who,
        .require = o->require,
        .began_us = vf_now_us(),
        .deadline_us = vf_deadline_after_ms(o->timeout_ms ? o->timeout_ms : DEFAULT_TIMEOUT_MS),
        .ttl_ms = o->ttl_ms,
        .done = done,
        .arg = arg,
    };
    r = vf_brought_take(a, o, err);
    if (r < 0) {
        vf_unclaim(pool, who->uid);
        vf_acquire_free(a);
        return r;
    }
    TAILQ_INSERT_TAIL(&p->pending, a, pending);
    r = advance(a, err);
    if (r == 0) {
        vf_pools_arm_deadline(p, a->deadline_us);
        *ret_req = a;
        return 0;
    }
    if (r > 0)
        *ret_vm = a->slot;
    else {
        vf_unclaim(pool, who->uid);
        vf_stats_acquire_failed(pool->stats, err->code);
        *ret_retry_after_s = err->code == VF_BUSY ? retry_after_s(pool) : 0;
    }
    unlink_request(a);
    vf_acquire_free(a);
    return r;
}

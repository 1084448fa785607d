/* One VM of a pool: made, parked, woken, destroyed; its journal goes along.
 *
 * Happy path of a refill: vf_slot_make -> the factory's steps, each journalled by vf_slots_on_step -> on_made
 * -> settle: nobody waits, so it is parked (paused, if the pool parks so) and journalled as such -> taken by
 * acquire.c. Whatever fails is destroyed by the factory before it tells; the slot is then forgotten, and
 * whoever the VM was for hears why.
 */
#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/hash.h"
#include "pool/pools_internal.h"
#include "vmm/vmm.h"

/* ---- the table by id, lists and counts by state */

static unsigned bucket(const char *id)
{
    return vf_hash_text(id) % BUCKETS;
}

struct vf_slot *vf_slot_find(struct vf_pools *p, const char *id)
{
    struct vf_slot *s = p->buckets[bucket(id)];
    while (s && strcmp(s->id, id) != 0)
        s = s->hash_next;
    return s;
}

static struct vf_slot_list *queue_of(struct vf_slot *s, enum vf_slot_state state)
{
    return state == VF_SLOT_PARKED    ? &s->pool->parked
           : state == VF_SLOT_STANDBY ? &s->pool->standby
                                      : NULL;
}

static void count(struct vf_slot *s, int by)
{
    struct vf_pool *pool = s->pool;
    pool->n[s->state] += by;
    if (s->state == VF_SLOT_PARKED && s->generation == pool->current)
        pool->parked_current += by;
    if (s->state == VF_SLOT_MAKING && s->purpose == VF_FOR_POOL)
        pool->making_pool += by;
    if (s->state == VF_SLOT_MAKING && s->purpose == VF_FOR_STANDBY)
        pool->making_standby += by;
    if (s->state == VF_SLOT_MAKING && s->purpose == VF_FOR_CALLER)
        pool->starting += by;
}

/* Oldest first: those that are adopted come in any order. */
static void insert_lease(struct vf_slot *s)
{
    struct vf_slot_list *all = &s->pools->leases;
    struct vf_slot *before = TAILQ_LAST(all, vf_slot_list);
    while (before && before->acquired_ms > s->acquired_ms)
        before = TAILQ_PREV(before, vf_slot_list, leases);
    if (before)
        TAILQ_INSERT_AFTER(all, before, s, leases);
    else
        TAILQ_INSERT_HEAD(all, s, leases);
}

static void remove_lease(struct vf_slot *s)
{
    vf_traffic_pass_by(s);
    TAILQ_REMOVE(&s->pools->leases, s, leases);
}

void vf_slot_set_state(struct vf_slot *s, enum vf_slot_state state)
{
    if (queue_of(s, s->state))
        TAILQ_REMOVE(queue_of(s, s->state), s, queue);
    if (s->state == VF_SLOT_LEASED)
        remove_lease(s);
    count(s, -1);
    s->state = state;
    count(s, 1);
    if (queue_of(s, state))
        TAILQ_INSERT_TAIL(queue_of(s, state), s, queue);
    if (state == VF_SLOT_LEASED)
        insert_lease(s);
    vf_pool_touch(s->pool);
}

static void enter(struct vf_slot *s, const char *id)
{
    struct vf_slot **at;
    snprintf(s->id, sizeof(s->id), "%s", id);
    at = &s->pools->buckets[bucket(s->id)];
    s->hash_next = *at;
    *at = s;
}

struct vf_slot *vf_slot_new(struct vf_pool *pool, const char *id, enum vf_purpose purpose,
                            enum vf_source source, int64_t generation)
{
    struct vf_slot *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->pools = pool->pools;
    s->pool = pool;
    s->state = VF_SLOT_MAKING;
    s->purpose = purpose;
    s->source = source;
    s->generation = generation;
    s->record_state = -1;
    s->expires_us = VF_NEVER;
    s->began_us = vf_now_us();
    s->created_ms = vf_realtime_ns() / 1000000;
    if (id)
        enter(s, id);
    s->pools->n_slots++;
    TAILQ_INSERT_TAIL(&pool->all, s, all);
    count(s, 1);
    return s;
}

void vf_pool_set_current(struct vf_pool *pool, int64_t generation)
{
    struct vf_slot *s;
    pool->current = generation;
    pool->parked_current = 0;
    TAILQ_FOREACH (s, &pool->parked, queue)
        pool->parked_current += s->generation == generation;
    vf_pool_touch(pool);
}

void vf_slot_forget(struct vf_slot *s)
{
    struct vf_pools *p = s->pools;
    struct vf_pool *pool = s->pool;
    if (s->was_leased)
        vf_lease_ended(s);
    vf_traffic_forget(s);
    vf_brought_drop(&s->brought);
    if (queue_of(s, s->state))
        TAILQ_REMOVE(queue_of(s, s->state), s, queue);
    if (s->state == VF_SLOT_LEASED)
        remove_lease(s);
    count(s, -1);
    for (struct vf_slot **at = &p->buckets[bucket(s->id)]; *at; at = &(*at)->hash_next)
        if (*at == s) {
            *at = s->hash_next;
            break;
        }
    p->n_slots--;
    TAILQ_REMOVE(&pool->all, s, all);
    if (s->generation && s->generation != pool->current)
        pool->tidy = true; /* perhaps it was the last of an old generation */
    while (s->waiters) {
        struct vf_release_waiter *w = s->waiters;
        s->waiters = w->next;
        w->done(w->arg, NULL);
        free(w);
    }
    free(s->reason);
    free(s->death);
    free(s);
    vf_pool_touch(pool);
}

/* ---- the journal */

/* Its network in r, whose ports are ports (room for VF_PORTS_MAX). */
static void record_network(const struct vf_slot *s, struct vf_record *r,
                           struct vf_record_port *ports)
{
    struct vf_instance_network n;
    vf_instance_network(s->vm, &n);
    r->network = n.number;
    r->netns = (char *)n.netns;
    r->ports.items = ports;
    for (; r->ports.n < (size_t)n.n_ports && r->ports.n < VF_PORTS_MAX; r->ports.n++) {
        const struct vf_port *port = &n.ports[r->ports.n];
        ports[r->ports.n] = (struct vf_record_port){
            port->protocol == IPPROTO_UDP ? VF_SPEC_UDP : VF_SPEC_TCP, port->port, port->guest};
    }
}

pid_t vf_slot_pid(const struct vf_slot *s)
{
    const struct vf_vm *vm =
        s->vm ? vf_instance_vm(s->vm) : NULL; /* gone first of what is taken apart */
    return vm ? vf_vm_info_of(vm)->pid : 0;
}

int vf_slot_record(struct vf_slot *s, enum vf_record_state state, struct vf_error *err)
{
    const struct vf_proof *proof = s->vm ? vf_instance_proof(s->vm) : NULL;
    bool proven = proof && proof->boot_id[0];
    bool leased = state == VF_RECORD_LEASED;
    struct vf_record_port ports[VF_PORTS_MAX];
    struct vf_record r = {
        .network = -1,
        .format = VF_RECORD_FORMAT,
        .id = s->id,
        .template_name = s->pool->spec.name,
        .state = (int)state,
        .host_boot = (char *)vf_host_boot_id(),
        .source = (int)s->source,
        .generation = s->generation,
        .created_ms = s->created_ms,
        .got = (int)s->got,
        .reason = s->reason,
        .uid = leased ? s->holder.uid : 0,
        .gid = leased ? s->holder.gid : 0,
        .pid = leased ? s->holder.pid : 0,
        .acquired_ms = leased ? s->acquired_ms : 0,
        .ttl_ms = s->ttl_ms,
        .expires_us = s->expires_us == VF_NEVER ? 0 : s->expires_us,
    };
    if (proven) {
        r.nonce = proof->nonce[0] ? (char *)proof->nonce : NULL;
        r.boot_id = (char *)proof->boot_id;
        r.entropy_sha256 = (char *)proof->entropy_sha256;
        r.sample = (char *)proof->sample;
        r.machine_id = (char *)proof->machine_id;
        r.hostname = (char *)proof->hostname;
        r.mac = proof->mac[0] ? (char *)proof->mac : NULL;
        r.clock_offset_us = proof->clock_offset_us;
    }
    if (s->vm)
        record_network(s, &r, ports);
    int n = vf_record_write(s->pools->run_dirfd, &r, err);
    if (n == 0)
        s->record_state = (int)state;
    return n;
}

int vf_slots_on_step(void *arg, struct vf_instance *vm, const char *stage, struct vf_error *err)
{
    static const struct {
        const char *stage;
        enum vf_record_state state;
    } map[] = {
        {"vmm", VF_RECORD_STARTING},   {"restore", VF_RECORD_RESTORING},
        {"resume", VF_RECORD_PROVING}, {"prove", VF_RECORD_PROVING},
        {"start", VF_RECORD_STARTING}, {"boot", VF_RECORD_PROVING},
        {"renew", VF_RECORD_PROVING},
    };
    struct vf_pools *p = arg;
    struct vf_slot *s = vf_slot_find(p, vf_instance_id(vm));
    if (!s || s->state != VF_SLOT_MAKING || s->parking)
        return 0; /* a parked or leased one keeps the record that says so */
    for (size_t i = 0; i < sizeof(map) / sizeof(*map); i++) {
        if (strcmp(map[i].stage, stage) != 0 || s->record_state == (int)map[i].state)
            continue;
        if (s->record_state < 0) {
            int r = vf_record_write_spec(p->run_dirfd, s->id, vf_instance_spec(vm), err);
            if (r < 0)
                return r;
        }
        return vf_slot_record(s, map[i].state, err);
    }
    return 0;
}

/* ---- its end */

static void on_gone(void *arg)
{
    struct vf_slot *s = arg;
    s->vm = NULL;
    s->destroying = false;
    if (s->state == VF_SLOT_RELEASING)
        vf_slot_forget(s);
}

void vf_slot_destroy(struct vf_slot *s)
{
    struct vf_acquire *a = s->acquire;
    s->acquire = NULL;
    if (s->state == VF_SLOT_RELEASING)
        return;
    /* What may be taken for somebody's must not be found so again. A full disk is no reason to keep it. */
    if (!s->destroying && s->vm &&
        (s->record_state == VF_RECORD_LEASED || s->record_state == VF_RECORD_PARKED))
        vf_slot_record(s, VF_RECORD_RELEASING, NULL);
    vf_slot_set_state(s, VF_SLOT_RELEASING);
    if (a) {
        struct vf_error e;
        vf_fail(&e, VF_CANCELLED, "the VM was withdrawn");
        vf_acquire_missed(a, &e);
    }
    if (s->destroying)
        return; /* on_gone comes */
    if (!s->vm) {
        vf_slot_forget(s);
        return;
    }
    s->destroying = true;
    vf_instance_destroy(s->vm, on_gone, s);
}

void vf_slots_reap(struct vf_pools *p)
{
    struct vf_slot *s;
    TAILQ_FOREACH (s, &p->leases, leases) {
        if (!s->reap || s->destroying || !s->vm)
            continue;
        s->reap = false;
        s->destroying = true;
        vf_instance_destroy(s->vm, on_gone, s);
    }
}

static void on_death(void *arg, struct vf_instance *vm, const struct vf_error *why)
{
    struct vf_slot *s = arg;
    struct vf_pools *p = s->pools;
    (void)vm;
    if (s->state == VF_SLOT_LEASED) {
        if (s->death)
            return;
        vf_set_error(&s->death, why);
        s->end = VF_LEASE_DIED;
        s->reap = true; /* not from within its own callback: its commands hear of it first */
        vf_event(p->events, "vm.died", s->pool->spec.name, s->id, s->holder.uid, why, NULL);
        vf_pools_soon(p);
        return;
    }
    if (s->state == VF_SLOT_PARKED || s->state == VF_SLOT_STANDBY) {
        vf_stats_parked_died(s->pool->stats);
        vf_event(p->events, "vm.died", s->pool->spec.name, s->id, VF_EVENT_ALL, why, NULL);
        vf_slot_destroy(s);
    }
}

void vf_slot_watch(struct vf_slot *s)
{
    vf_instance_on_death(s->vm, on_death, s);
}

/* ---- made, parked */

static void become_parked(struct vf_slot *s)
{
    struct vf_error e;
    if (vf_slot_record(s, VF_RECORD_PARKED, &e) < 0) {
        vf_refill_failed(s->pool, &e);
        vf_slot_destroy(s);
        return;
    }
    if (s->purpose == VF_FOR_POOL) {
        vf_stats_refilled(s->pool->stats, vf_now_us() - s->began_us);
        vf_refill_worked(s->pool);
    }
    vf_slot_set_state(s, VF_SLOT_PARKED);
    vf_event(s->pools->events, "vm.parked", s->pool->spec.name, s->id, VF_EVENT_ALL, NULL, NULL);
    vf_slot_watch(s);
    if (s->state == VF_SLOT_PARKED) /* not dead yet */
        vf_acquire_serve(s->pool);  /* who came while it was being paused */
}

static void on_parked(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct vf_slot *s = arg;
    (void)vm;
    s->parking = false;
    if (err)
        s->vm = NULL;
    if (s->state != VF_SLOT_MAKING)
        return; /* destroyed meanwhile: on_gone comes */
    if (err) {
        if (s->purpose == VF_FOR_POOL)
            vf_refill_failed(s->pool, err);
        vf_slot_forget(s);
        return;
    }
    become_parked(s);
}

void vf_slot_settle(struct vf_slot *s)
{
    struct vf_pool *pool = s->pool;
    struct vf_error e;
    bool usable = s->source == VF_SOURCE_CLONE && s->generation == pool->current && pool->current &&
                  !pool->drained && !pool->removing && !s->pools->closing &&
                  vf_instance_spec(s->vm)->network.mode != VF_NETWORK_EXTERNAL;
    if (usable && vf_acquire_offer(s))
        return;
    if (!usable || pool->parked_current >= pool->target) {
        vf_slot_destroy(s);
        return;
    }
    s->paused = vf_slot_parks_paused(s);
    if (!s->paused) {
        become_parked(s);
        return;
    }
    s->parking = true;
    if (vf_instance_park(s->vm, on_parked, s, &e) < 0) {
        s->parking = false;
        vf_slot_destroy(s);
    }
}

static void made_standby(struct vf_slot *s)
{
    struct vf_error e;
    if (s->generation != s->pool->current || vf_slot_record(s, VF_RECORD_STANDBY, &e) < 0) {
        vf_slot_destroy(s);
        return;
    }
    vf_slot_set_state(s, VF_SLOT_STANDBY);
    vf_slot_watch(s);
    if (s->state == VF_SLOT_STANDBY)
        vf_acquire_serve(s->pool);
}

/* A clone, a cold boot, a standby VMM, or what was brought in one. */
static void on_made(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct vf_slot *s = arg;
    struct vf_pool *pool = s->pool;
    (void)vm;
    vf_brought_drop(&s->brought); /* what it needs of it, it has by now */
    if (err)
        s->vm = NULL;
    if (s->state != VF_SLOT_MAKING)
        return; /* withdrawn: on_gone comes */
    int64_t us = vf_now_us() - s->began_us;
    if (err) {
        struct vf_acquire *a = s->acquire;
        struct vf_error e = *err;
        int64_t generation = s->generation;
        bool for_pool = s->purpose != VF_FOR_CALLER;
        s->acquire = NULL;
        vf_slot_forget(s);
        if (generation)
            vf_template_clone_failed(pool, generation, &e);
        if (for_pool)
            vf_refill_failed(pool, &e);
        if (a)
            vf_acquire_missed(a, &e);
        else
            vf_acquire_serve(pool);
        return;
    }
    if (s->purpose == VF_FOR_STANDBY) {
        made_standby(s);
        return;
    }
    s->made_us = us;
    if (s->generation)
        vf_template_clone_made(pool, s->generation, us);
    if (s->acquire) {
        struct vf_acquire *a = s->acquire;
        s->acquire = NULL;
        vf_acquire_got(a, s);
    } else
        vf_slot_settle(s);
    vf_acquire_serve(pool);
}

int vf_slot_make(struct vf_pool *pool, enum vf_make what, enum vf_purpose purpose,
                 struct vf_acquire *a, struct vf_slot **ret, struct vf_error *err)
{
    struct vf_pools *p = pool->pools;
    struct vf_instance *vm;
    struct vf_slot *s =
        vf_slot_new(pool, NULL, purpose, what == VF_MAKE_COLD ? VF_SOURCE_COLD : VF_SOURCE_CLONE,
                    what == VF_MAKE_COLD ? 0 : pool->current);
    if (!s)
        return vf_fail(err, VF_NO_MEMORY, "VM");
    s->acquire = a;
    if (a && a->brought) {
        s->brought = a->brought; /* the request may end before the VM is made */
        s->brought->refs++;
    }
    const struct vf_vm_options *o = s->brought ? &s->brought->options : NULL;
    int r = what == VF_MAKE_COLD ? vf_factory_cold(p->factory, &pool->spec, o, on_made, s, &vm, err)
            : what == VF_MAKE_CLONE
                ? vf_factory_clone(p->factory, pool->gen, o, on_made, s, &vm, err)
                : vf_factory_standby(p->factory, pool->gen, NULL, on_made, s, &vm, err);
    if (r < 0) {
        s->generation = 0; /* nothing was made of it */
        vf_slot_forget(s);
        return r;
    }
    s->vm = vm;
    enter(s, vf_instance_id(vm));
    if (ret)
        *ret = s;
    return 0;
}

void vf_slot_begin_for(struct vf_slot *s, struct vf_acquire *a, enum vf_slot_state state)
{
    vf_instance_on_death(s->vm, NULL, NULL); /* its recipe fails instead */
    vf_slot_set_state(s, state);
    count(s, -1);
    s->purpose = VF_FOR_CALLER;
    count(s, 1);
    s->acquire = a;
    s->began_us = vf_now_us();
}

int vf_slot_bring(struct vf_slot *s, struct vf_acquire *a, struct vf_error *err)
{
    vf_slot_begin_for(s, a, VF_SLOT_MAKING);
    int r = vf_instance_bring(s->vm, on_made, s, err);
    if (r < 0) {
        s->acquire = NULL;
        vf_slot_destroy(s);
    }
    return r;
}

static void on_woken(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct vf_slot *s = arg;
    struct vf_pool *pool = s->pool;
    struct vf_acquire *a = s->acquire;
    (void)vm;
    if (err)
        s->vm = NULL;
    if (s->state != VF_SLOT_WAKING)
        return;
    s->acquire = NULL;
    if (err) {
        struct vf_error e = *err;
        int64_t generation = s->generation;
        vf_event(s->pools->events, "vm.died", pool->spec.name, s->id, VF_EVENT_ALL, &e, NULL);
        vf_stats_parked_died(pool->stats);
        vf_slot_forget(s);
        vf_template_clone_failed(pool, generation, &e);
        if (a)
            vf_acquire_missed(a, &e);
        return;
    }
    if (a)
        vf_acquire_got(a, s);
    else
        vf_slot_destroy(
            s); /* its caller has gone; a clone is used once, and this one runs already */
}

int vf_slot_wake(struct vf_slot *s, struct vf_acquire *a, struct vf_error *err)
{
    vf_slot_begin_for(s, a, VF_SLOT_WAKING);
    int r = vf_instance_wake(s->vm, on_woken, s, err);
    if (r < 0) {
        s->acquire = NULL;
        vf_slot_destroy(s);
    }
    return r;
}

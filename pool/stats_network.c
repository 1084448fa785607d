/* Networks' numbers: slots, and VMs' traffic.
 *
 * A VM's counts come as they are, all in all, now and then and once more at its end. What has come since the last time is
 * added to its template's counters, which so include VMs that are gone and never go back. A leased VM has series of its
 * own besides, until it is gone.
 */
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "pool/stats_internal.h"

static struct vf_stats_traffic traffic_of(const struct vf_net_stats *n)
{
    struct vf_stats_traffic t = {
        .bytes = {[VF_TRAFFIC_IN] = n->in_bytes, [VF_TRAFFIC_OUT] = n->out_bytes},
        .packets = {[VF_TRAFFIC_IN] = n->in_packets, [VF_TRAFFIC_OUT] = n->out_packets},
        .dropped = {[VF_TRAFFIC_IN] = n->in_dropped, [VF_TRAFFIC_OUT] = n->out_dropped},
    };

    memcpy(t.refused, n->refused, sizeof(t.refused));
    return t;
}

static void grow(uint64_t *before, uint64_t now, uint64_t *sum)
{
    if (now <= *before)
        return;
    *sum += now - *before;
    *before = now;
}

void vf_stats_traffic(struct vf_stats_template *t, struct vf_net_stats *before,
                      const struct vf_net_stats *now)
{
    struct vf_stats_traffic *sum = &t->facts.traffic;

    vf_stats_lock(t->owner);
    grow(&before->in_bytes, now->in_bytes, &sum->bytes[VF_TRAFFIC_IN]);
    grow(&before->out_bytes, now->out_bytes, &sum->bytes[VF_TRAFFIC_OUT]);
    grow(&before->in_packets, now->in_packets, &sum->packets[VF_TRAFFIC_IN]);
    grow(&before->out_packets, now->out_packets, &sum->packets[VF_TRAFFIC_OUT]);
    grow(&before->in_dropped, now->in_dropped, &sum->dropped[VF_TRAFFIC_IN]);
    grow(&before->out_dropped, now->out_dropped, &sum->dropped[VF_TRAFFIC_OUT]);
    for (int i = 0; i < VF_REFUSAL_COUNT; i++)
        grow(&before->refused[i], now->refused[i], &sum->refused[i]);
    vf_stats_unlock(t->owner);
}

/* ---- leased VMs, by their ids: an array, as it is copied and shown, with a hash of their places */

static size_t *bucket(struct vf_stats_template *t, const char *id)
{
    return &t->buckets[vf_hash_text(id) & (t->cap_vms - 1)];
}

static struct vf_stats_vm *find(struct vf_stats_template *t, const char *id)
{
    size_t at = t->n_vms == 0 ? 0 : *bucket(t, id);

    while (at != 0 && strcmp(t->vms[at - 1].id, id) != 0)
        at = t->vms[at - 1].next;
    return at == 0 ? NULL : &t->vms[at - 1];
}

static void link_vm(struct vf_stats_template *t, size_t place)
{
    size_t *at = bucket(t, t->vms[place].id);

    t->vms[place].next = *at;
    *at = place + 1;
}

static void unlink_vm(struct vf_stats_template *t, size_t place)
{
    size_t *at = bucket(t, t->vms[place].id);

    while (*at != place + 1)
        at = &t->vms[*at - 1].next;
    *at = t->vms[place].next;
}

/* Twice the room, a power of two. */
static bool grow_vms(struct vf_stats_template *t)
{
    size_t cap = t->cap_vms == 0 ? 16 : t->cap_vms * 2;
    size_t *buckets = (size_t *)calloc(cap, sizeof(*buckets));
    struct vf_stats_vm *vms =
        buckets == NULL ? NULL : (struct vf_stats_vm *)realloc(t->vms, cap * sizeof(*vms));

    if (vms == NULL) {
        free(buckets);
        return false;
    }
    free(t->buckets);
    t->vms = vms;
    t->buckets = buckets;
    t->cap_vms = cap;
    for (size_t i = 0; i < t->n_vms; i++)
        link_vm(t, i);
    return true;
}

static struct vf_stats_vm *insert(struct vf_stats_template *t, const char *id)
{
    struct vf_stats_vm *vm;

    if (t->n_vms == t->cap_vms && !grow_vms(t))
        return NULL; /* not shown this time */
    vm = &t->vms[t->n_vms++];
    memset(vm, 0, sizeof(*vm));
    memcpy(vm->id, id, strnlen(id, sizeof(vm->id) - 1));
    link_vm(t, t->n_vms - 1);
    return vm;
}

/* The last one gets its place. */
static void take_out(struct vf_stats_template *t, size_t place)
{
    size_t last = t->n_vms - 1;

    unlink_vm(t, place);
    if (place != last) {
        unlink_vm(t, last);
        t->vms[place] = t->vms[last];
        link_vm(t, place);
    }
    t->n_vms = last;
}

void vf_stats_vms_clear(struct vf_stats_template *t)
{
    t->n_vms = 0;
    if (t->buckets != NULL)
        memset(t->buckets, 0, t->cap_vms * sizeof(*t->buckets));
}

void vf_stats_vm(struct vf_stats_template *t, const char *id, const struct vf_net_stats *now)
{
    struct vf_stats_vm *vm;

    vf_stats_lock(t->owner);
    vm = find(t, id);
    if (vm == NULL)
        vm = insert(t, id);
    if (vm != NULL)
        vm->traffic = traffic_of(now);
    vf_stats_unlock(t->owner);
}

void vf_stats_vm_gone(struct vf_stats_template *t, const char *id)
{
    struct vf_stats_vm *vm;

    vf_stats_lock(t->owner);
    vm = find(t, id);
    if (vm != NULL)
        take_out(t, (size_t)(vm - t->vms));
    vf_stats_unlock(t->owner);
}

void vf_stats_set_slots(struct vf_stats *s, int network, const struct vf_nets_counts *c)
{
    struct vf_stats_slots *slots;
    const int by_state[VF_SLOTS_STATES] = {c->making, c->ready, c->taken, c->dirty};

    vf_stats_lock(s);
    slots = vf_stats_slots(s);
    for (int i = 0; i < VF_SLOTS_STATES; i++)
        slots->by_state[network][i] = by_state[i] > 0 ? (uint64_t)by_state[i] : 0;
    slots->capacity[network] = c->capacity > 0 ? (uint64_t)c->capacity : 0;
    slots->made[network] = c->made;
    slots->recycled[network] = c->recycled;
    slots->destroyed[network] = c->destroyed;
    slots->doubted[network] = c->doubts;
    vf_stats_unlock(s);
}

/* What VMs send and receive, for stats.
 *
 * Every 5 s a pass goes over all leased VMs that have a network slot, one after the other, each asked in a worker: thousands
 * keep one worker busy for a while, and the loop never. A pass that takes long is followed by a pause of 20 times that, so
 * that it all takes no more than a twentieth of a core. A VM is asked once more by the factory, as it ends. A VM that
 * ends before the pass comes to it is left out, one that is leased meanwhile may be. What one VM costs does not depend
 * on how many there are: the pass keeps its place in the list of leases, and each count is asked for and kept by its key.
 */
#include <string.h>
#include "base/clock.h"
#include "pool/pools_internal.h"

#define EVERY_S 5
#define PAUSES 20 /* of a pass's own length */

static bool has_slot(const struct vf_slot *s)
{
    struct vf_instance_network n;
    if (!s->vm || s->destroying || s->death)
        return false;
    vf_instance_network(s->vm, &n);
    return n.number >= 0;
}

static void note(struct vf_slot *s, const struct vf_net_stats *now)
{
    vf_stats_traffic(s->pool->stats, &s->traffic, now);
    s->traffic_ms = vf_realtime_ns() / 1000000;
    if (s->state != VF_SLOT_LEASED)
        return;
    vf_stats_vm(s->pool->stats, s->id, &s->traffic);
    s->traffic_shown = true;
}

static void go_on(struct vf_pools *p);

static void on_counted(void *arg, const struct vf_error *err)
{
    struct vf_pools *p = arg;
    struct vf_slot *s = vf_slot_find(p, p->traffic.id);
    p->traffic.running = false;
    p->works--;
    if (!err && s && s->vm)
        note(s, &p->traffic.stats);
    go_on(p);
    vf_pools_soon(p); /* closing may wait for it */
}

/* The next that this pass has not asked. */
static struct vf_slot *next(struct vf_pools *p)
{
    struct vf_slot *s = p->traffic.next;
    while (s && !has_slot(s))
        s = TAILQ_NEXT(s, leases);
    p->traffic.next = s ? TAILQ_NEXT(s, leases) : NULL;
    return s;
}

void vf_traffic_pass_by(struct vf_slot *s)
{
    struct vf_traffic_pass *t = &s->pools->traffic;
    if (t->next == s)
        t->next = TAILQ_NEXT(s, leases);
}

static void go_on(struct vf_pools *p)
{
    struct vf_slot *s;
    while (!p->closing && !p->traffic.running && (s = next(p)) != NULL) {
        memcpy(p->traffic.id, s->id, sizeof(p->traffic.id));
        if (vf_instance_traffic(s->vm, &p->traffic.stats, on_counted, p, NULL) == 0) {
            p->traffic.running = true;
            p->works++;
        }
    }
    if (!p->traffic.running) { /* that was the last */
        int64_t pause_s = (vf_now_us() - p->traffic.began_us) * PAUSES / 1000000;
        p->traffic.seconds = pause_s > EVERY_S ? (int)pause_s : EVERY_S;
    }
}

void vf_traffic_tick(struct vf_pools *p)
{
    if (!p->net.all || p->traffic.running || --p->traffic.seconds > 0)
        return;
    p->traffic.began_us = vf_now_us();
    p->traffic.next = TAILQ_FIRST(&p->leases);
    go_on(p);
}

void vf_traffic_ended(void *arg, struct vf_instance *vm, const struct vf_net_stats *total)
{
    struct vf_slot *s = vf_slot_find(arg, vf_instance_id(vm));
    if (s)
        note(s, total);
}

void vf_traffic_forget(struct vf_slot *s)
{
    if (s->traffic_shown)
        vf_stats_vm_gone(s->pool->stats, s->id);
    s->traffic_shown = false;
}

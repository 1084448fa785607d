/* Ports of the host that lead to a guest: opened as its VM is leased, and closed as its slot is given back.
 *
 *     a VM is there for a -> vf_publish -> (worker) -> leased, and its journal says which
 *
 * Without ports a lease passes by here. A port that is in use, or none free, ends the acquire, as no other VM would fare
 * better; the VM, unharmed, goes back to its pool if it may. A VM whose ports are being opened is in the journal as one that is still
 * made: a daemon that is killed meanwhile leaves nobody's ports open.
 */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/failpoint.h"
#include "pool/pools_internal.h"

static const struct vf_json_array *ports_of(const struct vf_slot *s)
{
    return &vf_instance_spec(s->vm)->network.ports;
}

bool vf_publish_wanted(const struct vf_slot *s, const struct vf_acquire *a)
{
    return a->has_ports ? a->n_ports > 0 : ports_of(s)->n > 0;
}

static uint8_t number_of(int protocol)
{
    return protocol == VF_SPEC_UDP ? IPPROTO_UDP : IPPROTO_TCP;
}

static int of_spec(const struct vf_slot *s, struct vf_port ret[VF_PORTS_MAX])
{
    const struct vf_json_array *list = ports_of(s);
    int n = 0;
    for (; n < (int)list->n && n < VF_PORTS_MAX; n++) {
        const struct vf_spec_port *p = &((const struct vf_spec_port *)list->items)[n];
        ret[n] = (struct vf_port){.protocol = number_of(p->protocol),
                                  .port = (uint16_t)p->host,
                                  .guest = (uint16_t)p->guest};
    }
    return n;
}

/* s is nobody's again, with no port open. */
static void put_back(struct vf_slot *s)
{
    if (s->state == VF_SLOT_WAKING && !s->paused)
        vf_slot_set_state(s, VF_SLOT_MAKING); /* it ran while it was parked, and still does */
    if (s->state == VF_SLOT_MAKING)
        vf_slot_settle(s);
    else
        vf_slot_destroy(s);
}

static void on_published(void *arg, const struct vf_error *err)
{
    struct vf_slot *s = arg;
    struct vf_acquire *a = s->acquire;
    if (s->state != VF_SLOT_MAKING && s->state != VF_SLOT_WAKING)
        return; /* destroyed meanwhile: its end comes by itself */
    s->acquire = NULL;
    s->ports_us = err ? 0 : vf_now_us() - s->ports_us;
    if (!err)
        vf_failpoint("pool.ports.opened");
    if (!err && a) {
        vf_acquire_published(a, s);
        return;
    }
    struct vf_error e = {0};
    struct vf_pool *pool = s->pool;
    if (err)
        e = *err;
    bool lacks = e.code == VF_CONFLICT || e.code == VF_BUSY || e.code == VF_UNSUPPORTED;
    if (!lacks)
        vf_slot_destroy(s); /* its ports may be open */
    if (a && lacks)
        vf_acquire_refused(a, &e);
    else if (a)
        vf_acquire_missed(a, &e);
    if (lacks) /* after a's end: whom it is offered to may have others end */
        put_back(s);
    vf_acquire_serve(pool);
}

int vf_publish(struct vf_slot *s, struct vf_acquire *a, struct vf_error *err)
{
    struct vf_port of[VF_PORTS_MAX];
    const struct vf_port *ports = a->has_ports ? a->ports : of;
    int n = a->has_ports ? a->n_ports : of_spec(s, of);
    int r = s->record_state == VF_RECORD_PARKED ? vf_slot_record(s, VF_RECORD_PROVING, err) : 0;
    if (r == 0)
        r = vf_instance_publish(s->vm, ports, n, on_published, s, err);
    if (r < 0)
        return r;
    s->ports_us = vf_now_us();
    if (s->state == VF_SLOT_PARKED)
        vf_slot_begin_for(s, a, VF_SLOT_WAKING);
    else
        s->acquire = a;
    return 0;
}

int vf_publish_again(struct vf_slot *s, const struct vf_record *r, vf_done_cb done, void *arg,
                     struct vf_error *err)
{
    struct vf_port ports[VF_PORTS_MAX];
    int n = 0;
    for (; n < (int)r->ports.n && n < VF_PORTS_MAX; n++) {
        const struct vf_record_port *p = &((const struct vf_record_port *)r->ports.items)[n];
        ports[n] = (struct vf_port){.protocol = number_of(p->protocol),
                                    .port = (uint16_t)p->host,
                                    .guest = (uint16_t)p->guest};
    }
    return vf_instance_publish(s->vm, ports, n, done, arg, err);
}

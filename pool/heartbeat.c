/* Signs of life of VMs that are parked running: each is pinged every heartbeat_ms, a sixteenth of them at a time.
 * One that does not answer is destroyed; it is nobody's, and another is made. */
#include "base/clock.h"
#include "pool/pools_internal.h"

#define PHASES 16

static void on_pong(void *arg, const struct vf_error *err)
{
    struct vf_slot *s = arg; /* lives: an instance ends its answers before it is gone */
    if (!err || s->state != VF_SLOT_PARKED || err->code == VF_CANCELLED)
        return;
    vf_stats_parked_died(s->pool->stats);
    vf_event(s->pools->events, "vm.died", s->pool->spec.name, s->id, VF_EVENT_ALL, err,
             "gave no sign of life while it was parked: %.600s", err->msg);
    vf_slot_destroy(s);
}

/* The first digit of its id, which is random and hexadecimal. */
static int phase_of(const struct vf_slot *s)
{
    return s->id[0] <= '9' ? s->id[0] - '0' : s->id[0] - 'a' + 10;
}

static void on_beat(uv_timer_t *t)
{
    struct vf_pools *p = t->data;
    struct vf_error e;
    int phase = p->beat_phase++ % PHASES;
    for (struct vf_pool *pool = p->first; pool; pool = pool->next) {
        struct vf_slot *s;
        TAILQ_FOREACH (s, &pool->parked, queue)
            if (!s->paused && phase_of(s) == phase)
                vf_instance_ping(s->vm, p->settings->answer_timeout_ms, on_pong, s, &e);
    }
}

void vf_heartbeat_arm(struct vf_pools *p)
{
    uint64_t every = (uint64_t)p->settings->heartbeat_ms / PHASES;
    uv_timer_stop(&p->beat);
    if (p->settings->heartbeat_ms > 0)
        uv_timer_start(&p->beat, on_beat, every ? every : 1, every ? every : 1);
}

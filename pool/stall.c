/* The loop calls back from within its wait for events, so there is no moment between them to take the time
 * at. Instead, from one prepare (just before the wait) to the next:
 *
 *     busy = passed - waited         waited: uv_metrics_idle_time, which the loop itself sums up
 */
#include "pool/stall.h"

#include <stdlib.h>

#define TURN_MS 1000

struct vf_stall {
    struct vf_stats *stats;
    uv_prepare_t prepare;
    uv_timer_t timer;
    int open_handles;
    uint64_t prepared_ns, idle_ns; /* at the last prepare; 0: there was none */
    void (*done)(void *arg);
    void *arg;
};

static void on_prepare(uv_prepare_t *h)
{
    struct vf_stall *s = (struct vf_stall *)h->data;
    uint64_t now_ns = uv_hrtime(), idle_ns = uv_metrics_idle_time(h->loop);

    if (s->prepared_ns != 0) {
        uint64_t passed_ns = now_ns - s->prepared_ns, waited_ns = idle_ns - s->idle_ns;

        vf_stats_loop_turn(s->stats,
                           passed_ns > waited_ns ? (int64_t)((passed_ns - waited_ns) / 1000) : 0);
    }
    s->prepared_ns = now_ns;
    s->idle_ns = idle_ns;
}

/* That it fires is all. */
static void on_timer(uv_timer_t *h)
{
    (void)h;
}

static void on_closed(uv_handle_t *h)
{
    struct vf_stall *s = (struct vf_stall *)h->data;
    void (*done)(void *arg) = s->done;
    void *arg = s->arg;

    if (--s->open_handles > 0)
        return;
    free(s);
    if (done != NULL)
        done(arg);
}

int vf_stall_start(uv_loop_t *loop, struct vf_stats *stats, struct vf_stall **ret,
                   struct vf_error *err)
{
    struct vf_stall *s;
    int r = uv_loop_configure(loop, UV_METRICS_IDLE_TIME);

    if (r < 0)
        return vf_fail(err, VF_UNSUPPORTED, "the loop can't measure its idle time: %s",
                       uv_strerror(r));
    s = (struct vf_stall *)calloc(1, sizeof(*s));
    if (s == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory to watch the loop");
    s->stats = stats;
    /* None of these fails on a handle that is new and a callback that is there. */
    uv_prepare_init(loop, &s->prepare);
    uv_timer_init(loop, &s->timer);
    s->prepare.data = s->timer.data = s;
    s->open_handles = 2;
    uv_prepare_start(&s->prepare, on_prepare);
    uv_timer_start(&s->timer, on_timer, TURN_MS, TURN_MS);
    uv_unref((uv_handle_t *)&s->prepare);
    uv_unref((uv_handle_t *)&s->timer);
    *ret = s;
    return 0;
}

void vf_stall_stop(struct vf_stall *s, void (*done)(void *arg), void *arg)
{
    if (s == NULL) {
        if (done != NULL)
            done(arg);
        return;
    }
    s->done = done;
    s->arg = arg;
    uv_close((uv_handle_t *)&s->prepare, on_closed);
    uv_close((uv_handle_t *)&s->timer, on_closed);
}

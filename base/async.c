/* Blocking work off the loop, and deadlines on it. See async.h.
 *
 * vf_work_submit -> run() in a worker thread -> after() on the loop -> done(). uv_cancel on w->req
 * works until run() begins; then after() finds that it never ran and says VF_CANCELLED. done() may
 * free w: it is given a copy of the error.
 */
#include "base/async.h"

#include <errno.h>
#include "base/clock.h"

static void work(uv_work_t *req)
{
    struct vf_work *w = (struct vf_work *)req->data;

    w->status = w->run(w, &w->err);
}

static void after(uv_work_t *req, int status)
{
    struct vf_work *w = (struct vf_work *)req->data;
    struct vf_error err;

    if (status == UV_ECANCELED) {
        w->status = vf_fail(&w->err, VF_CANCELLED, "cancelled before it began");
    } else if (w->status < 0 && w->err.code == VF_OK) {
        /* run() promised to fill err; its number is better than nothing. */
        w->status = vf_fail_errno(&w->err, w->status, "background work");
    }
    if (w->status >= 0) {
        w->done(w->arg, NULL);
        return;
    }
    vf_error_copy(&err, &w->err);
    w->done(w->arg, &err);
}

int vf_work_submit(uv_loop_t *loop, struct vf_work *w,
                   int (*run)(struct vf_work *w, struct vf_error *err), vf_done_cb done, void *arg)
{
    w->run = run;
    w->done = done;
    w->arg = arg;
    w->status = 0;
    w->err = (struct vf_error){0};
    w->req.data = w;
    return uv_queue_work(loop, &w->req, work, after);
}

void vf_timer_at(uv_timer_t *t, int64_t deadline_us, uv_timer_cb cb)
{
    uint64_t due_ms, now_ms;

    if (deadline_us == VF_NEVER) {
        uv_timer_stop(t);
        return;
    }
    /* libuv counts from the loop's idea of now, which lags while callbacks run; both count ms of
     * CLOCK_MONOTONIC, so the difference of absolute times is right whatever the lag. Rounded up:
     * never early. */
    due_ms = deadline_us <= 0 ? 0 : ((uint64_t)deadline_us + 999) / 1000;
    now_ms = uv_now(uv_handle_get_loop((const uv_handle_t *)t));
    uv_timer_start(t, cb, due_ms > now_ms ? due_ms - now_ms : 0, 0);
}

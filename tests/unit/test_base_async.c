/* Background work and deadlines on a loop. */
#include <criterion/criterion.h>
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include "base/async.h"
#include "base/clock.h"

struct outcome {
    int calls;
    bool ok;
    struct vf_error err;
    uv_thread_t ran_in, done_in;
};

static void record(void *arg, const struct vf_error *err)
{
    struct outcome *o = (struct outcome *)arg;

    o->calls++;
    o->ok = err == NULL;
    o->done_in = uv_thread_self();
    if (err != NULL)
        o->err = *err;
}

static int succeed(struct vf_work *w, struct vf_error *err)
{
    (void)err;
    ((struct outcome *)w->arg)->ran_in = uv_thread_self();
    return 0;
}

static int give_up(struct vf_work *w, struct vf_error *err)
{
    (void)w;
    vf_fail(err, VF_NO_SPACE, "disk full");
    vf_hint(err, "make room");
    return -ENOSPC;
}

static int say_nothing(struct vf_work *w, struct vf_error *err)
{
    (void)w, (void)err;
    return -ENOENT;
}

static void run_all(uv_loop_t *loop)
{
    uv_run(loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(loop), 0, "a handle or request is left");
}

Test(base_async, work_runs_in_another_thread_and_ends_on_the_loop, .timeout = 30)
{
    uv_loop_t loop;
    struct vf_work w;
    struct outcome o = {0};
    uv_thread_t self = uv_thread_self();

    uv_loop_init(&loop);
    cr_assert_eq(vf_work_submit(&loop, &w, succeed, record, &o), 0);
    cr_expect_eq(o.calls, 0, "called back before submit returned");
    run_all(&loop);
    cr_expect_eq(o.calls, 1);
    cr_expect(o.ok);
    cr_expect_not(uv_thread_equal(&o.ran_in, &self));
    cr_expect(uv_thread_equal(&o.done_in, &self));
}

Test(base_async, failed_work_hands_over_its_error, .timeout = 30)
{
    uv_loop_t loop;
    struct vf_work w, quiet;
    struct outcome o = {0}, q = {0};

    uv_loop_init(&loop);
    cr_assert_eq(vf_work_submit(&loop, &w, give_up, record, &o), 0);
    cr_assert_eq(vf_work_submit(&loop, &quiet, say_nothing, record, &q), 0);
    run_all(&loop);
    cr_expect_eq(o.calls, 1);
    cr_expect_not(o.ok);
    cr_expect_eq(o.err.code, VF_NO_SPACE);
    cr_expect_str_eq(o.err.msg, "disk full");
    cr_expect_str_eq(o.err.hint, "make room");
    cr_expect_eq(q.calls, 1);
    cr_expect_eq(q.err.code, VF_NOT_FOUND, "a bare errno still becomes an error");
}

static void record_and_free(void *arg, const struct vf_error *err)
{
    struct vf_work *w = *(struct vf_work **)arg;

    memset(w, 0x55, sizeof(*w));
    free(w);
    cr_assert_not_null(err);
    cr_expect_str_eq(err->msg, "disk full");
    *(struct vf_work **)arg = NULL;
}

Test(base_async, the_callback_may_free_the_work, .timeout = 30)
{
    uv_loop_t loop;
    struct vf_work *w = (struct vf_work *)malloc(sizeof(*w));

    uv_loop_init(&loop);
    cr_assert_eq(vf_work_submit(&loop, w, give_up, record_and_free, &w), 0);
    run_all(&loop);
    cr_expect_null(w);
}

static sem_t gate;

static int wait_at_gate(struct vf_work *w, struct vf_error *err)
{
    (void)w, (void)err;
    while (sem_wait(&gate) != 0 && errno == EINTR)
        ;
    return 0;
}

static int must_not_run(struct vf_work *w, struct vf_error *err)
{
    (void)w, (void)err;
    abort();
}

Test(base_async, cancelled_work_ends_with_cancelled, .timeout = 30)
{
    enum { THREADS = 2 };
    uv_loop_t loop;
    struct vf_work busy[THREADS], w;
    struct outcome b = {0}, o = {0};

    setenv("UV_THREADPOOL_SIZE", "2", 1); /* read when the pool starts, in this process: now */
    sem_init(&gate, 0, 0);
    uv_loop_init(&loop);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(vf_work_submit(&loop, &busy[i], wait_at_gate, record, &b), 0);
    cr_assert_eq(vf_work_submit(&loop, &w, must_not_run, record, &o), 0);
    cr_assert_eq(uv_cancel((uv_req_t *)&w.req), 0, "it waits behind two that can't end");
    cr_expect_eq(o.calls, 0, "called back from within cancel");
    while (o.calls == 0)
        uv_run(&loop, UV_RUN_ONCE);
    cr_expect_eq(b.calls, 0);
    cr_expect_not(o.ok);
    cr_expect_eq(o.err.code, VF_CANCELLED);
    for (int i = 0; i < THREADS; i++)
        sem_post(&gate);
    run_all(&loop);
    cr_expect_eq(o.calls, 1);
    cr_expect_eq(b.calls, THREADS);
    cr_expect(b.ok);
    sem_destroy(&gate);
}

struct ringing {
    int rings;
    int64_t at_us;
};

static void ring(uv_timer_t *t)
{
    struct ringing *r = (struct ringing *)t->data;

    r->rings++;
    r->at_us = vf_now_us();
}

Test(base_async, timer_rings_once_and_never_early, .timeout = 30)
{
    uv_loop_t loop;
    uv_timer_t t;
    struct ringing r = {0};

    uv_loop_init(&loop);
    uv_timer_init(&loop, &t);
    t.data = &r;
    for (int i = 0; i < 20; i++) {
        int64_t deadline = vf_now_us() + 1700 + 37 * i;

        /* Let the loop's own clock fall behind: the deadline must not come early for that. */
        while (vf_now_us() < deadline - 500)
            ;
        r = (struct ringing){0};
        vf_timer_at(&t, deadline, ring);
        uv_run(&loop, UV_RUN_DEFAULT);
        cr_assert_eq(r.rings, 1);
        cr_assert_geq(r.at_us, deadline);
        cr_assert_not(uv_is_active((uv_handle_t *)&t));
    }
    uv_close((uv_handle_t *)&t, NULL);
    run_all(&loop);
}

Test(base_async, timer_can_be_moved_stopped_and_late, .timeout = 30)
{
    uv_loop_t loop;
    uv_timer_t t;
    struct ringing r = {0};

    uv_loop_init(&loop);
    uv_timer_init(&loop, &t);
    t.data = &r;
    vf_timer_at(&t, VF_NEVER, ring); /* stopping what does not run is fine */
    vf_timer_at(&t, vf_deadline_after_ms(3600000), ring);
    cr_expect(uv_is_active((uv_handle_t *)&t));
    vf_timer_at(&t, VF_NEVER, ring);
    cr_expect_not(uv_is_active((uv_handle_t *)&t));

    vf_timer_at(&t, vf_deadline_after_ms(3600000), ring);
    vf_timer_at(&t, 0, ring); /* past: at the next turn, not from within the call */
    cr_expect_eq(r.rings, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(r.rings, 1);
    uv_close((uv_handle_t *)&t, NULL);
    vf_timer_at(&t, vf_deadline_after_ms(1), ring); /* closing: nothing rings any more */
    run_all(&loop);
    cr_expect_eq(r.rings, 1);
}

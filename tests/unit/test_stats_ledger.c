/* The ledger over real pools: when it runs, and that it can be stopped at any time. What a pass measures is
 * in test_stats_loop.c: the null driver's VMs are no processes. */
#include "tests/unit/pools_support.h"

#include <semaphore.h>
#include "base/clock.h"
#include "pool/ledger.h"
#include "pool/stats_internal.h"

static void set(void *arg)
{
    *(bool *)arg = true;
}

static int64_t resident_kib(struct vf_stats *s)
{
    struct vf_stats_snapshot snap;
    int64_t kib;

    cr_assert_eq(vf_stats_snapshot_take(s, &snap), 0);
    cr_assert_eq(snap.n, 1);
    kib = snap.templates[0].facts.memory.template_resident_kib;
    vf_stats_snapshot_free(&snap);
    return kib;
}

static struct vf_ledger *start(struct pools *t)
{
    struct vf_ledger *l;
    struct vf_error err;

    cr_assert_eq(vf_ledger_start(&t->loop, t->p, &l, &err), 0, "%s", err.msg);
    return l;
}

Test(stats_ledger, tells_what_a_template_takes, .timeout = 60)
{
    struct pools t;
    struct vf_ledger *l;
    bool stopped = false;

    pools_open(&t);
    pools_warm(&t, pools_add(&t, "web", "running"), 1);
    cr_expect_eq(resident_kib(t.stats), 0);
    l = start(&t);
    POOLS_WAIT(&t, resident_kib(t.stats) > 0);
    vf_ledger_stop(l, set, &stopped);
    cr_expect_not(stopped, "before stop returned");
    POOLS_WAIT(&t, stopped);
    pools_close(&t);
}

Test(stats_ledger, stops_before_its_first_pass, .timeout = 60)
{
    struct pools t;
    bool stopped = false;

    pools_open(&t);
    vf_ledger_stop(start(&t), set, &stopped);
    POOLS_WAIT(&t, stopped);
    stopped = false;
    vf_ledger_stop(NULL, set, &stopped);
    cr_expect(stopped);
    vf_ledger_stop(NULL, NULL, NULL);
    pools_close(&t);
}

static sem_t held;
static void hold(uv_work_t *w)
{
    (void)w;
    sem_wait(&held);
}

static void let_go(uv_work_t *w, int status)
{
    (void)w;
    (void)status;
}

/* All worker threads are taken: the pass waits, and is withdrawn. */
Test(stats_ledger, stops_while_a_pass_waits_for_a_thread, .timeout = 60)
{
    enum { THREADS = 4 }; /* libuv's, unless told otherwise */
    struct pools t;
    struct vf_ledger *l;
    uv_work_t work[THREADS];
    bool stopped = false;

    pools_open(&t);
    pools_warm(&t, pools_add(&t, "web", "running"), 1);
    POOLS_WAIT(&t, t.loop.active_reqs.count == 0);
    sem_init(&held, 0, 0);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(uv_queue_work(&t.loop, &work[i], hold, let_go), 0);
    l = start(&t);
    POOLS_WAIT(&t, t.loop.active_reqs.count > THREADS);
    vf_ledger_stop(l, set, &stopped);
    POOLS_WAIT(&t, stopped);
    cr_expect_eq(resident_kib(t.stats), 0);
    for (int i = 0; i < THREADS; i++)
        sem_post(&held);
    POOLS_WAIT(&t, t.loop.active_reqs.count == 0);
    pools_close(&t);
    sem_destroy(&held);
}

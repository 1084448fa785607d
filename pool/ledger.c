/* When a pass runs, and on what. See ledger.h and, for the pass itself, ledger_pass.h.
 *
 *     timer -> lists -> worker -> timer again; stop: timer closed, the worker's end awaited
 */
#include "pool/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include "base/async.h"
#include "pool/ledger_pass.h"

#define FIRST_MS 1000
#define EVERY_MS 15000
#define MAX_LISTED 65536

struct vf_ledger {
    uv_loop_t *loop;
    struct vf_pools *pools;
    uv_timer_t timer;
    struct vf_work work;
    struct vf_ledger_pass pass; /* the worker's while working */
    bool working, closing, timer_closed;
    void (*done)(void *arg);
    void *arg;
};

static void finish(struct vf_ledger *l)
{
    void (*done)(void *arg) = l->done;
    void *arg = l->arg;

    if (!l->closing || l->working || !l->timer_closed)
        return;
    free(l);
    if (done != NULL)
        done(arg);
}

/* All processes; the list grows until they fit. */
static int list_vms(struct vf_ledger *l)
{
    for (int max = 1024;; max *= 4) {
        struct vf_vm_process *vms =
            (struct vf_vm_process *)calloc((size_t)max, sizeof(struct vf_vm_process));
        int n;

        if (vms == NULL)
            return -ENOMEM;
        n = vf_pools_processes(l->pools, vms, max);
        if (n < max || max >= MAX_LISTED) {
            l->pass.vms = vms;
            l->pass.n_vms = n;
            return 0;
        }
        free(vms);
    }
}

/* With descriptors of the pass's own: a generation may go while its memory is looked at. */
static int list_templates(struct vf_ledger *l)
{
    struct vf_pool *pool = NULL;
    int room = 0;

    while ((pool = vf_pools_next(l->pools, pool)) != NULL)
        room++;
    l->pass.templates =
        (struct vf_ledger_template *)calloc((size_t)room + 1, sizeof(*l->pass.templates));
    if (l->pass.templates == NULL)
        return -ENOMEM;
    while ((pool = vf_pools_next(l->pools, pool)) != NULL) {
        struct vf_ledger_template *t = &l->pass.templates[l->pass.n_templates++];
        int fd = vf_pool_memory_fd(pool);

        t->stats = vf_pool_stats(pool);
        t->memory_fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    }
    return 0;
}

static int work(struct vf_work *w, struct vf_error *err)
{
    struct vf_ledger *l = (struct vf_ledger *)w->arg;

    (void)err;
    vf_ledger_pass_run(&l->pass);
    return 0;
}

static void on_timer(uv_timer_t *t);

static void on_worked(void *arg, const struct vf_error *err)
{
    struct vf_ledger *l = (struct vf_ledger *)arg;

    (void)err; /* cancelled at the worst; the next pass tells */
    l->working = false;
    vf_ledger_pass_clear(&l->pass);
    l->pass.turn++;
    if (!l->closing)
        uv_timer_start(&l->timer, on_timer, EVERY_MS, 0);
    finish(l);
}

static void on_timer(uv_timer_t *t)
{
    struct vf_ledger *l = (struct vf_ledger *)t->data;

    if (list_vms(l) == 0 && list_templates(l) == 0 &&
        vf_work_submit(l->loop, &l->work, work, on_worked, l) == 0) {
        l->working = true;
        return;
    }
    vf_ledger_pass_clear(&l->pass); /* no memory now: the next time */
    uv_timer_start(&l->timer, on_timer, EVERY_MS, 0);
}

static void on_closed(uv_handle_t *h)
{
    struct vf_ledger *l = (struct vf_ledger *)h->data;

    l->timer_closed = true;
    finish(l);
}

int vf_ledger_start(uv_loop_t *loop, struct vf_pools *pools, struct vf_ledger **ret,
                    struct vf_error *err)
{
    struct vf_ledger *l = (struct vf_ledger *)calloc(1, sizeof(*l));

    if (l == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory for the ledger");
    l->loop = loop;
    l->pools = pools;
    atomic_init(&l->pass.stop, false);
    uv_timer_init(loop, &l->timer);
    l->timer.data = l;
    uv_timer_start(&l->timer, on_timer, FIRST_MS, 0);
    uv_unref((uv_handle_t *)&l->timer);
    *ret = l;
    return 0;
}

void vf_ledger_stop(struct vf_ledger *l, void (*done)(void *arg), void *arg)
{
    if (l == NULL) {
        if (done != NULL)
            done(arg);
        return;
    }
    l->closing = true;
    l->done = done;
    l->arg = arg;
    atomic_store(&l->pass.stop, true);
    if (l->working)
        uv_cancel((uv_req_t *)&l->work.req); /* if it has not begun; else it sees stop */
    uv_close((uv_handle_t *)&l->timer, on_closed);
}

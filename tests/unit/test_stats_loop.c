/* What the loop's own watchers tell: how long turns take (pool/stall.h), what memory costs
 * (pool/ledger_pass.h). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>
#include "base/clock.h"
#include "base/fd.h"
#include "pool/ledger_pass.h"
#include "pool/stall.h"
#include "pool/stats.h"
#include "pool/stats_internal.h"

#define BUSY_US 30000

static void stay_busy(void)
{
    int64_t until_us = vf_now_us() + BUSY_US;

    while (vf_now_us() < until_us)
        ;
}

struct fixture {
    uv_loop_t loop;
    struct vf_stats *stats;
    struct vf_stall *stall;
    bool stopped;
};

static void open_stall(struct fixture *f)
{
    struct vf_error err;

    *f = (struct fixture){.stats = vf_stats_new()};
    cr_assert_eq(uv_loop_init(&f->loop), 0);
    cr_assert_eq(vf_stall_start(&f->loop, f->stats, &f->stall, &err), 0);
}

static void on_stopped(void *arg)
{
    ((struct fixture *)arg)->stopped = true;
}

static void close_stall(struct fixture *f)
{
    vf_stall_stop(f->stall, on_stopped, f);
    cr_expect_not(f->stopped, "before stop returned");
    uv_run(&f->loop, UV_RUN_DEFAULT);
    cr_expect(f->stopped);
    cr_expect_eq(uv_loop_close(&f->loop), 0);
    vf_stats_free(f->stats);
}

static struct vf_stats_globals globals(struct fixture *f)
{
    struct vf_stats_snapshot snap;
    struct vf_stats_globals g;

    cr_assert_eq(vf_stats_snapshot_take(f->stats, &snap), 0);
    g = snap.g;
    vf_stats_snapshot_free(&snap);
    return g;
}

static void busy_timer(uv_timer_t *t)
{
    stay_busy();
    uv_close((uv_handle_t *)t, NULL);
}

static void busy_poll(uv_poll_t *p, int status, int events)
{
    (void)status;
    (void)events;
    stay_busy();
    uv_close((uv_handle_t *)p, NULL);
}

static void nothing(uv_timer_t *t)
{
    uv_close((uv_handle_t *)t, NULL);
}

static void once_more(struct fixture *f, uv_timer_t *t)
{
    uv_timer_init(&f->loop, t);
    uv_timer_start(t, nothing, 1, 0);
    uv_run(&f->loop, UV_RUN_DEFAULT);
}

Test(stall, a_long_timer_callback_is_seen)
{
    struct fixture f;
    uv_timer_t first, busy, last;

    open_stall(&f);
    once_more(&f, &first);
    uv_timer_init(&f.loop, &busy);
    uv_timer_start(&busy, busy_timer, 0, 0);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    once_more(&f, &last);
    cr_expect_geq(globals(&f).longest_turn_us, BUSY_US);
    close_stall(&f);
}

/* The loop calls it from within its wait. */
Test(stall, a_long_socket_callback_is_seen)
{
    struct fixture f;
    uv_timer_t first, last;
    uv_poll_t poll;
    int fds[2];

    open_stall(&f);
    once_more(&f, &first);
    cr_assert_eq(pipe(fds), 0);
    uv_poll_init(&f.loop, &poll, fds[1]);
    uv_poll_start(&poll, UV_WRITABLE, busy_poll);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    once_more(&f, &last);
    cr_expect_geq(globals(&f).longest_turn_us, BUSY_US);
    close(fds[0]);
    close(fds[1]);
    close_stall(&f);
}

/* Of all that passes while a loop only waits, the wait is not counted. */
Test(stall, waiting_is_not_busy)
{
    struct fixture f;
    uv_timer_t idle, last;
    int64_t began_us = vf_now_us(), passed_us;
    struct vf_stats_globals g;

    open_stall(&f);
    uv_timer_init(&f.loop, &idle);
    uv_timer_start(&idle, nothing, 200, 0);
    uv_run(&f.loop, UV_RUN_DEFAULT);
    once_more(&f, &last);
    passed_us = vf_now_us() - began_us;
    g = globals(&f);
    cr_expect_gt(vf_histogram_count(&g.turns), 0);
    cr_expect_leq(g.turns.sum_us, passed_us - 150000);
    close_stall(&f);
}

Test(stall, keeps_no_loop_alive_but_turns_it)
{
    struct fixture f;
    struct vf_stats_globals g;
    uv_timer_t far;

    open_stall(&f);
    uv_run(&f.loop, UV_RUN_DEFAULT); /* would not return */
    uv_timer_init(&f.loop, &far);
    uv_timer_start(&far, nothing, 60000, 0);
    for (int i = 0; i < 3; i++)
        uv_run(&f.loop, UV_RUN_ONCE);
    cr_expect_not(uv_is_closing((uv_handle_t *)&far), "only that one turned the loop");
    g = globals(&f);
    cr_expect_geq(vf_histogram_count(&g.turns), 2);
    uv_close((uv_handle_t *)&far, NULL);
    close_stall(&f);
}

Test(stall, stopping_none)
{
    struct fixture f = {0};

    vf_stall_stop(NULL, NULL, NULL);
    vf_stall_stop(NULL, on_stopped, &f);
    cr_expect(f.stopped);
}

/* ---- the ledger */

Test(ledger, everyone_has_a_turn)
{
    bool seen[1000] = {false};
    int n_seen = 0;

    for (int i = 0; i < 5; i++)
        cr_expect_eq(vf_ledger_choose(i, 5, 5, 77), i);
    for (unsigned turn = 0; turn < 4; turn++) {
        bool chosen[1000] = {false};

        for (int i = 0; i < VF_LEDGER_VMS; i++) {
            int c = vf_ledger_choose(i, VF_LEDGER_VMS, 1000, turn);

            cr_assert(c >= 0 && c < 1000 && !chosen[c]);
            chosen[c] = true;
            n_seen += seen[c] ? 0 : 1;
            seen[c] = true;
        }
    }
    cr_expect_eq(n_seen, 1000);
    cr_expect_geq(vf_ledger_choose(255, VF_LEDGER_VMS, 1000, UINT32_MAX), 0);
}

/* A process that maps a memfd, as a clone does, and has copied some pages of it. Told by a byte that it has. */
static pid_t fake_vm(int memfd, size_t size, size_t copied)
{
    int fds[2];
    char byte = 0;
    pid_t pid;

    cr_assert_eq(pipe(fds), 0);
    pid = fork();
    if (pid == 0) {
        char *p = (char *)mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, 0);

        if (p == MAP_FAILED)
            _exit(1);
        memset(p, 1, copied);
        if (write(fds[1], &byte, 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    cr_assert_gt(pid, 0);
    cr_assert_eq(read(fds[0], &byte, 1), 1);
    close(fds[0]);
    close(fds[1]);
    return pid;
}

#define MIB ((size_t)1 << 20)

static void *copy_of(const void *what, size_t size)
{
    void *p = malloc(size);

    cr_assert_not_null(p);
    return memcpy(p, what, size);
}

Test(ledger, sums_up_by_template_and_skips_the_dead)
{
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_template *web = vf_stats_template(s, "web"), *db = vf_stats_template(s, "db");
    struct vf_stats_snapshot snap;
    const struct vf_stats_memory *m;
    struct vf_ledger_pass p = {0};
    char page[4096] = "full";
    int memfd = memfd_create("guest", MFD_CLOEXEC);
    pid_t a, b, dead;

    cr_assert_eq(ftruncate(memfd, 4 * (off_t)MIB), 0);
    cr_assert_eq(pwrite(memfd, page, sizeof(page), 0), (ssize_t)sizeof(page));
    a = fake_vm(memfd, 4 * MIB, MIB);
    b = fake_vm(memfd, 4 * MIB, 2 * MIB);
    dead = fork();
    if (dead == 0)
        _exit(0);
    waitpid(dead, NULL, 0);
    {
        const struct vf_vm_process vms[] = {{a, web}, {dead, web}, {b, web}, {dead, db}};
        const struct vf_ledger_template templates[] = {
            {.stats = web, .memory_fd = fcntl(memfd, F_DUPFD_CLOEXEC, 0)},
            {.stats = db, .memory_fd = -1}};

        p.vms = (struct vf_vm_process *)copy_of(vms, sizeof(vms));
        p.n_vms = 4;
        p.templates = (struct vf_ledger_template *)copy_of(templates, sizeof(templates));
        p.n_templates = 2;
    }
    vf_ledger_pass_run(&p);
    vf_ledger_pass_clear(&p);
    kill(a, SIGKILL);
    kill(b, SIGKILL);
    waitpid(a, NULL, 0);
    waitpid(b, NULL, 0);

    cr_assert_eq(vf_stats_snapshot_take(s, &snap), 0);
    m = &snap.templates[1].facts.memory;
    cr_expect_eq(m->vms_measured, 2);
    cr_expect_eq(m->guest_copied_kib, 3 * 1024);
    cr_expect_gt(m->vmm_own_kib, 0);
    cr_expect_geq(m->pss_kib, 3 * 1024);
    /* the file's own page, and the rest of the clones' first writes are their own */
    cr_expect_geq(m->template_resident_kib, 4);
    cr_expect_lt(m->template_resident_kib, 4 * 1024);
    m = &snap.templates[0].facts.memory;
    cr_expect_eq(m->vms_measured, 0);
    cr_expect_eq(m->template_resident_kib, 0);
    vf_stats_snapshot_free(&snap);
    close(memfd);
    vf_stats_free(s);
}

Test(ledger, a_pass_that_is_stopped_tells_nothing)
{
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_template *t = vf_stats_template(s, "web");
    struct vf_ledger_template templates = {.stats = t, .memory_fd = -1};
    struct vf_ledger_pass p = {.templates = &templates, .n_templates = 1};
    struct vf_stats_snapshot snap;

    vf_stats_set_memory(t, &(struct vf_stats_memory){.vms_measured = 5});
    atomic_store(&p.stop, true);
    vf_ledger_pass_run(&p);
    cr_assert_eq(vf_stats_snapshot_take(s, &snap), 0);
    cr_expect_eq(snap.templates[0].facts.memory.vms_measured, 5);
    vf_stats_snapshot_free(&snap);
    vf_stats_free(s);
}

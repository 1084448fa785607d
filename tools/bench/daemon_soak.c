/* Does a daemon grow? Acquire and release over and over; memory, descriptors, threads and files are counted before and
 * after, each time with the same full, idle pool, and before only after a warm-up of the same kind.
 */
#include <stdio.h>
#include <unistd.h>
#include "tools/bench/daemon.h"

#define CLIENTS 8
/* What the allocator may keep or give back from one moment to the next. */
#define RSS_SLACK_KIB 1024

static int cycle(struct bench_daemon *d, const char *name, int64_t count, struct daemon_use *ret,
                 struct vf_error *err)
{
    struct cycles y = {.clients = CLIENTS, .count = count, .template_name = name};
    int r = cycles_run(&y, d, err);
    series_free(&y.acquire);
    if (r == 0)
        r = pool_await(d, name, err);
    if (r == 0)
        usleep(200000); /* connections that were closed are gone from the daemon too */
    return r < 0 ? r : daemon_use(d, ret, err);
}

static void grown(struct bench *b, const char *what, const char *unit, double slack, int64_t before,
                  int64_t after, const char *guest, int64_t cycles)
{
    figure_value(b, JUDGE_AT_MOST, slack, unit, (double)after, "soak, %s, %lld cycles: %s", guest,
                 (long long)cycles, what);
    b->figures[b->n_figures - 1].before = (double)before;
    b->figures[b->n_figures - 1].grows = true;
}

static int soak(struct bench_daemon *d, const char *name, const char *guest, const char *config,
                int64_t cycles, struct vf_error *err)
{
    struct bench *b = d->bench;
    struct daemon_use before, after;
    int r = pool_fill(d, name, config, err);
    if (r == 0)
        r = cycle(d, name, cycles / 5 + CLIENTS, &before, err);
    if (r == 0)
        r = cycle(d, name, cycles, &after, err);
    if (r < 0)
        return r;
    grown(b, "RSS", "KiB", RSS_SLACK_KIB, before.rss_kib, after.rss_kib, guest, cycles);
    grown(b, "descriptors", "fds", 0, before.fds, after.fds, guest, cycles);
    grown(b, "threads", "threads", 0, before.threads, after.threads, guest, cycles);
    grown(b, "files", "files", 0, before.files, after.files, guest, cycles);
    return 0;
}

int bench_soak(struct bench *b, const char *specs, struct vf_error *err)
{
    static const char *const settings[] = {NULL};
    static const struct subject of = {VF_SPEC_VMM_QEMU, "tiny", VF_ACCEL_TCG};
    struct bench_daemon d;
    struct vf_error e;
    fprintf(stderr, "measuring: whether a daemon grows\n");
    int r = daemon_open(&d, b, settings, err);
    if (r == 0)
        r = pool_add(&d, NULL_SPEC, "/", err);
    if (r == 0)
        r = pool_add_subject(&d, specs, &of, err);
    if (r == 0)
        r = soak(&d, "null", "null",
                 "{\"max\":64,\"target\":64,\"park\":\"running\",\"refill_concurrency\":16}",
                 b->soak_null, err);
    if (r == 0)
        r = soak(&d, "tiny", "QEMU tiny TCG", "{\"max\":8,\"target\":8,\"park\":\"running\"}",
                 b->soak_qemu, err);
    int closed = daemon_close(&d, r < 0 ? &e : err);
    return r < 0 ? r : closed;
}

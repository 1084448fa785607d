/* 1,000 VMs of the null driver parked running: what they take, how long the loop is busy at a time while they are made,
 * what 64 clients see, and how many stats requests are answered.
 *
 * 64 clients, in two ways: each taking, holding and releasing VMs at its own pace, while the pool refills what
 * they take; and each asking again as soon as it has an answer, so that 64 requests are always there for one loop to
 * answer: then the time is the line's, 64 times what one takes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "tools/bench/daemon.h"

#define VMS 1000
#define CLIENTS 64
#define STATS_CLIENTS 16
#define STATS_REQUESTS 60000
#define STATS_CACHED_US 120000 /* the text may be 100 ms old */

struct turns { /* of the daemon's loop, since it began */
    double over_5ms, longest_us;
};

static double sample(const char *text, const char *name)
{
    char line[96];
    snprintf(line, sizeof(line), "\n%s ", name);
    const char *at = strstr(text, line);
    return at ? atof(at + strlen(line)) : 0;
}

static int read_turns(struct bench_daemon *d, struct turns *ret, struct vf_error *err)
{
    struct client c = {.fd = -1, .path = d->stats};
    usleep(STATS_CACHED_US);
    int r = client_ask(&c, "GET", "/metrics", NULL, err);
    if (r == 0)
        *ret = (struct turns){
            .over_5ms = sample(c.body, "vmfactory_loop_turn_seconds_count") -
                        sample(c.body, "vmfactory_loop_turn_seconds_bucket{le=\"0.005\"}"),
            .longest_us = sample(c.body, "vmfactory_loop_stall_max_seconds") * 1e6};
    client_free(&c);
    return r;
}

/* ---- filling */

static int fill(struct bench_daemon *d, struct vf_error *err)
{
    struct bench *b = d->bench;
    struct turns before, after;
    struct daemon_use empty, full;
    int r = pool_add(d, NULL_SPEC, "/", err);
    if (r == 0)
        r = pool_fill(d, "null", "{\"max\":1000,\"park\":\"running\",\"refill_concurrency\":8}",
                      err);
    if (r == 0)
        r = read_turns(d, &before, err);
    if (r == 0)
        r = daemon_use(d, &empty, err);
    int64_t t0 = vf_now_us();
    if (r == 0)
        r = pool_fill(d, "null", "{\"target\":1000}", err);
    int64_t took = vf_now_us() - t0;
    if (r == 0)
        r = read_turns(d, &after, err);
    if (r == 0)
        r = daemon_use(d, &full, err);
    if (r < 0)
        return r;
    figure_value(b, JUDGE_NONE, 0, "VMs/s", VMS * 1e6 / (double)took,
                 "refill, 8 in the making at once");
    figure_value(b, JUDGE_AT_MOST, 0, "turns", after.over_5ms - before.over_5ms,
                 "loop turns over 5 ms while 1,000 are made");
    figure_value(b, JUDGE_AT_MOST, 32768, "KiB", (double)full.rss_kib, "RSS with 1,000 null VMs");
    figure_value(b, JUDGE_NONE, 0, "KiB", (double)empty.rss_kib, "RSS with none");
    figure_value(b, JUDGE_NONE, 0, "fds", (double)full.fds, "descriptors with 1,000 null VMs");
    return 0;
}

/* ---- 64 clients */

static int clients(struct bench_daemon *d, struct vf_error *err)
{
    struct bench *b = d->bench;
    struct turns before, after;
    struct cycles paced = {.clients = CLIENTS,
                           .count = 5000,
                           .think_us = 50000,
                           .hold_us = 50000,
                           .template_name = "null"};
    struct cycles busy = {
        .clients = CLIENTS, .count = VMS - 40, .keep = true, .template_name = "null"};
    int r = pool_await(d, "null", err);
    if (r == 0)
        r = read_turns(d, &before, err);
    if (r == 0)
        r = cycles_run(&paced, d, err);
    if (r == 0)
        r = read_turns(d, &after, err);
    if (r == 0)
        r = pool_await(d, "null", err);
    if (r == 0)
        r = cycles_run(&busy, d, err);
    if (r < 0)
        return r;
    double rate = (double)paced.acquire.n * 1e6 / (double)paced.took_us;
    figure_add(b, JUDGE_P99, 1000, NULL, "acquire, 64 clients, %.0f/s with refill", rate)->ours =
        paced.acquire;
    figure_value(b, JUDGE_AT_MOST, 0, "turns", after.over_5ms - before.over_5ms,
                 "loop turns over 5 ms meanwhile");
    figure_add(b, JUDGE_NONE, 0, NULL, "acquire, 64 clients without a pause")->ours = busy.acquire;
    figure_value(b, JUDGE_NONE, 0, "1/s", (double)busy.acquire.n * 1e6 / (double)busy.took_us,
                 "acquires by these");
    return 0;
}

/* ---- stats */

struct asking {
    int64_t left, answered, bytes;
};

static void next_stats(struct load_conn *c)
{
    struct asking *a = c->load->arg;
    if (a->left-- > 0)
        client_compose(c->request, sizeof(c->request), "GET", "/metrics", NULL);
    else
        c->due_us = VF_NEVER;
}

static bool stats_answered(struct load_conn *c, int status, const char *body, int64_t us)
{
    struct asking *a = c->load->arg;
    (void)body;
    (void)us;
    a->answered++;
    a->bytes = (int64_t)c->len;
    return status == 200 || vf_fail(&c->load->err, VF_PROTOCOL, "/metrics: status %d", status) > 0;
}

static int stats(struct bench_daemon *d, struct vf_error *err)
{
    struct asking a = {.left = STATS_REQUESTS};
    struct load l = {.d = d,
                     .path = d->stats,
                     .n = STATS_CLIENTS,
                     .next = next_stats,
                     .answered = stats_answered,
                     .arg = &a};
    int64_t t0 = vf_now_us();
    int r = load_run(&l, err);
    if (r == 0)
        figure_value(d->bench, JUDGE_AT_LEAST, 20000, "1/s",
                     (double)a.answered * 1e6 / (double)(vf_now_us() - t0),
                     "/metrics, 16 kept connections, %lld bytes", (long long)a.bytes);
    return r;
}

int daemon_many(struct bench *b, struct vf_error *err)
{
    static const char *const settings[] = {"max_vms=1000", NULL};
    struct bench_daemon d;
    struct turns all;
    struct vf_error e;
    int r = daemon_open(&d, b, settings, err);
    if (r == 0)
        r = fill(&d, err);
    if (r == 0)
        r = clients(&d, err);
    if (r == 0)
        r = stats(&d, err);
    if (r == 0)
        r = read_turns(&d, &all, err);
    if (r == 0)
        figure_value(b, JUDGE_AT_MOST, 5, "ms", all.longest_us / 1000,
                     "longest loop turn of that daemon");
    int closed = daemon_close(&d, r < 0 ? &e : err);
    return r < 0 ? r : closed;
}

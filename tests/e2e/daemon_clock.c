/* The host's clock jumps, a day ahead and two back, while the daemon runs and while it does not: leases end when their
 * time to live is over, neither earlier nor later, and VMs that are handed out have the new time. The jumps are made
 * by tests/preload/realtime.c, for the daemon alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/e2e/daemon_guest.h"
#include "tests/e2e/support.h"

TestSuite(daemon_clock, .timeout = 120);

#define HOUR_MS 3600000
#define DAY_NS (INT64_C(24) * 3600 * 1000000000)

/* The file that says how far the clock is off, in dir; dmn_start comes after it. */
static volatile int64_t *clock_of(const struct dmn *d)
{
    char path[100], so[4200], asan[1000];
    const char *tests = getenv("VF_TESTS"), *options = getenv("ASAN_OPTIONS");
    snprintf(path, sizeof(path), "%s/clock", d->dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, sizeof(int64_t)), 0);
    void *p = mmap(NULL, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(p, MAP_FAILED);
    close(fd);
    snprintf(so, sizeof(so), "%s/realtime.so", tests ? tests : "build/tests");
    cr_assert_eq(access(so, R_OK), 0, "%s: %s", so, strerror(errno));
    setenv("VF_REALTIME", path, 1);
    setenv("LD_PRELOAD", so, 1);
    /* ASan wants to be the first of the libraries. It is none of the preloaded one's business. */
    snprintf(asan, sizeof(asan), "%s:verify_asan_link_order=0", options ? options : "");
    setenv("ASAN_OPTIONS", asan, 1);
    return p;
}

static void take_for(struct dmn *d, int64_t ttl_ms, char ret_id[16])
{
    char body[100];
    snprintf(body, sizeof(body), "{\"template\":\"web\",\"ttl_ms\":%lld}", (long long)ttl_ms);
    struct vf_json *j = dmn_json(d, 201, "POST", "/v1/vms", body);
    int64_t off_us = dmn_int(dmn_get(j, "proof"), "clock_offset_us");
    cr_expect(off_us > -50000 && off_us < 50000, "the guest's clock is off by %lld us",
              (long long)off_us);
    snprintf(ret_id, 16, "%.15s", dmn_str(j, "id"));
    vf_json_delete(j);
}

static void expect_most_of_an_hour(struct dmn *d, const char *id)
{
    char path[64];
    snprintf(path, sizeof(path), "/v1/vms/%.15s", id);
    struct vf_json *j = dmn_json(d, 200, "GET", path, NULL);
    int64_t left = dmn_int(j, "lease.expires_in_ms");
    cr_expect_str_eq(dmn_str(j, "state"), "leased");
    cr_expect(left > HOUR_MS / 2 && left <= HOUR_MS, "%lld ms are left of an hour",
              (long long)left);
    vf_json_delete(j);
}

/* By the daemon's own clock id was leased later than other, or earlier. */
static void expect_made(struct dmn *d, const char *id, const char *other, bool later)
{
    char path[64], made[40];
    snprintf(path, sizeof(path), "/v1/vms/%.15s", other);
    struct vf_json *j = dmn_json(d, 200, "GET", path, NULL);
    snprintf(made, sizeof(made), "%s", dmn_str(j, "lease.acquired"));
    vf_json_delete(j);
    snprintf(path, sizeof(path), "/v1/vms/%.15s", id);
    j = dmn_json(d, 200, "GET", path, NULL);
    int order = strcmp(dmn_str(j, "lease.acquired"), made);
    cr_expect(later ? order > 0 : order < 0, "%s and %s", dmn_str(j, "lease.acquired"), made);
    vf_json_delete(j);
}

Test(daemon_clock, it_jumps_while_the_daemon_runs)
{
    char hour[16], moment[16], now[16];
    struct dmn d;
    struct gst_events ev;
    dmn_prepare(&d, NULL);
    volatile int64_t *off_ns = clock_of(&d);
    dmn_start(&d);
    dmn_null_template(&d, "web", 2);
    gst_follow(&d, &ev);
    take_for(&d, HOUR_MS, hour);

    *off_ns = DAY_NS;
    take_for(&d, HOUR_MS, now);
    expect_made(&d, now, hour, true); /* it did jump */
    take_for(&d, 1, moment);
    gst_await_event(&ev, "vm.expired", moment); /* leases were looked at */
    expect_most_of_an_hour(&d, hour);
    expect_most_of_an_hour(&d, now);
    gst_release(&d, now);

    take_for(&d, 500, moment);
    *off_ns = -2 * DAY_NS;
    gst_await_event(&ev, "vm.expired", moment);
    expect_most_of_an_hour(&d, hour);
    take_for(&d, HOUR_MS, now);
    expect_made(&d, now, hour, false);
    gst_release(&d, now);
    gst_release(&d, hour);
    gst_unfollow(&ev);
    dmn_close(&d);
}

static void expect_no_negative_times(struct dmn *d)
{
    struct dmn_conn c;
    dmn_dial(d, &c, "stats.sock");
    dmn_ask(&c, "GET", "/metrics", NULL, NULL);
    cr_assert_eq(dmn_head(&c), 200);
    char *text = dmn_rest(&c);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (strstr(line, "_sum"))
            cr_expect_null(strstr(line, " -"), "%s", line);
    free(text);
    dmn_hang_up(&c);
}

Test(daemon_clock, it_jumps_while_the_daemon_is_away)
{
    static const int64_t jumps[] = {DAY_NS, -2 * DAY_NS};
    char hour[16], moment[16];
    struct gst g;
    struct gst_events ev;
    if (gst_missing(false)[0])
        sup_skip("daemon_clock", "it_jumps_while_the_daemon_is_away", "%s", gst_missing(false));
    gst_prepare(&g, NULL);
    volatile int64_t *off_ns = clock_of(&g.d);
    dmn_start(&g.d);
    gst_tiny(&g, "web", NULL);
    gst_warm(&g.d, "web", 1);
    take_for(&g.d, HOUR_MS, hour);
    for (size_t i = 0; i < 2; i++) {
        take_for(&g.d, HOUR_MS, moment);
        dmn_kill(&g.d);
        *off_ns = jumps[i];
        dmn_start(&g.d);
        expect_most_of_an_hour(&g.d, hour);
        expect_most_of_an_hour(&g.d, moment);
        gst_release(&g.d, moment);
        expect_no_negative_times(&g.d);
        gst_follow(&g.d, &ev);
        take_for(&g.d, 1, moment);
        gst_await_event(&ev, "vm.expired", moment);
        gst_unfollow(&ev);
        expect_most_of_an_hour(&g.d, hour);
    }
    gst_close(&g);
}

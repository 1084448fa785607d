/* The daemon with real Linux guests, from an empty store to the last VM: cold boot, build, a filled pool, hits, a clone
 * once it is empty; killed with four leases and idle guests, and back; resized, drained, stopped and started again.
 *
 * It is one test, for its templates are built once: a boot under TCG takes seconds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/e2e/daemon_guest.h"
#include "tests/e2e/exec_support.h"
#include "tests/e2e/support.h"

enum { LEASES = 4 };
static const char pool[] = "/v1/pools/linux";

struct held {
    char id[16], machine_id[40], hostname[80], sample[80];
    int64_t pid;
};

/* Settings that a file gives, so that they can be changed while it runs: mib of available memory or more, or the pool is
 * not refilled. */
static void write_settings(struct gst *g, long long mib)
{
    char text[200];
    /* Had a guest not answered, and the daemon waited for it, a start would miss every deadline here. */
    snprintf(text, sizeof(text),
             "{\"group\":\"\",\"answer_timeout_ms\":600000,\"min_available_mib\":%lld}", mib);
    gst_write(g->d.dir, "v.json", text, 0600);
}

static void reload(struct gst *g, long long mib)
{
    struct gst_events ev;
    gst_follow(&g->d, &ev);
    write_settings(g, mib);
    dmn_signal(&g->d, SIGHUP);
    gst_await_event(&ev, "daemon.settings", NULL);
    gst_unfollow(&ev);
}

static void expect_same(struct gst *g, const struct held *h, const char *argv, const char *due)
{
    char *out = gst_run(&g->d, h->id, argv);
    cr_expect_str_eq(out, due, "%s in %s: %s, not %s", argv, h->id, out, due);
    free(out);
}

/* The guest is who its proof says it is. */
static void expect_itself(struct gst *g, const struct held *h)
{
    expect_same(g, h, "[\"hostname\"]", h->hostname);
    expect_same(g, h, "[\"cat\",\"/etc/machine-id\"]", h->machine_id);
}

static void take(struct gst *g, const char *source, const char *reason, struct held *ret)
{
    struct vf_json *j = gst_acquire(&g->d, "linux", ret->id);
    bool cold = strcmp(source, "cold") == 0;
    cr_expect_str_eq(dmn_str(j, "source"), source, "%s: %s", dmn_str(j, "source"),
                     dmn_str(j, "reason"));
    cr_expect(strstr(dmn_str(j, "reason"), reason), "%s", dmn_str(j, "reason"));
    cr_expect_eq(vf_json_bool(dmn_get(j, "proof.nonce_matched"), false), !cold);
    cr_expect_eq(strlen(dmn_str(j, "proof.entropy_sha256")), 64);
    snprintf(ret->machine_id, sizeof(ret->machine_id), "%s", dmn_str(j, "proof.machine_id"));
    snprintf(ret->hostname, sizeof(ret->hostname), "%s", dmn_str(j, "proof.hostname"));
    snprintf(ret->sample, sizeof(ret->sample), "%s", dmn_str(j, "proof.sample"));
    ret->pid = dmn_int(j, "pid");
    cr_expect_eq(strlen(ret->machine_id), 32);
    cr_expect_gt(strlen(ret->sample), 0);
    vf_json_delete(j);
}

static void expect_all_differ(const struct held *h, int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++) {
            cr_expect_str_neq(h[i].id, h[k].id);
            cr_expect_str_neq(h[i].machine_id, h[k].machine_id);
            cr_expect_str_neq(h[i].hostname, h[k].hostname);
            cr_expect_str_neq(h[i].sample, h[k].sample);
            cr_expect_neq(h[i].pid, h[k].pid);
        }
}

/* Still leased to us, by the same processes, and in their right mind. */
static void expect_held(struct gst *g, const struct held *h)
{
    char path[64];
    for (int i = 0; i < LEASES; i++) {
        snprintf(path, sizeof(path), "/v1/vms/%s", h[i].id);
        struct vf_json *j = dmn_json(&g->d, 200, "GET", path, NULL);
        cr_expect_str_eq(dmn_str(j, "state"), "leased");
        cr_expect_eq(dmn_int(j, "pid"), h[i].pid);
        cr_expect_eq(dmn_int(j, "lease.uid"), (int64_t)getuid());
        cr_expect_str_eq(dmn_str(j, "proof.sample"), h[i].sample);
        vf_json_delete(j);
        expect_itself(g, &h[i]);
    }
}

static void fills_and_serves(struct gst *g, struct held *h)
{
    struct held cold;
    gst_linux(g, "linux");
    take(g, "cold", "no template", &cold);
    expect_itself(g, &cold);
    gst_release(&g->d, cold.id);

    gst_warm(&g->d, "linux", 3);
    struct vf_json *j = dmn_json(&g->d, 200, "GET", "/v1/vms?parked=true", NULL);
    for (size_t i = 0; i < 3; i++)
        cr_expect_str_eq(dmn_str(vf_json_at(vf_json_get(j, "vms"), i), "state"), "parked");
    vf_json_delete(j);
    reload(g, 16 << 20); /* more than there is: no refill from here on */
    take(g, "hit", "a parked VM was ready", &h[0]);
    take(g, "hit", "a parked VM was ready", &h[1]);
    take(g, "hit", "a parked VM was ready", &h[2]);
    take(g, "clone", "pool empty", &h[3]);
    j = dmn_json(&g->d, 200, "GET", pool, NULL);
    cr_expect_str_eq(dmn_str(j, "refill.state"), "pressure");
    cr_expect(strstr(dmn_str(j, "refill.reason"), "MemAvailable"), "%s",
              dmn_str(j, "refill.reason"));
    vf_json_delete(j);
    expect_all_differ(h, LEASES);
    for (int i = 0; i < LEASES; i++)
        expect_itself(g, &h[i]);
    cr_expect_eq(gst_vmms(g), LEASES);
}

static int64_t bytes_of(const char *base64)
{
    size_t len = strlen(base64);
    return (int64_t)(len / 4 * 3) - (len > 0 && base64[len - 1] == '=') -
           (len > 1 && base64[len - 2] == '=');
}

/* A guest writes without end to a caller that does not read: the daemon holds little of it, and loses none. */
static void floods(struct gst *g, const struct held *h)
{
    static char line[70000], body[80];
    struct dmn_conn c;
    struct exe v = {.d = g->d};
    int64_t all = 0;
    bool ended = false;
    snprintf(v.path, sizeof(v.path), "/v1/vms/%s", h->id);
    snprintf(v.exec, sizeof(v.exec), "%s/exec", v.path);
    free(gst_run(&g->d, h->id, "[\"head\",\"-c\",\"1000000\",\"/dev/zero\"]"));
    int64_t before = dmn_rss_kib(&g->d);
    snprintf(body, sizeof(body), "{\"argv\":[\"head\",\"-c\",\"%d\",\"/dev/zero\"]}",
             EXE_FLOOD_MIB << 20);
    dmn_dial(&g->d, &c, "api.sock");
    dmn_ask(&c, "POST", v.exec, NULL, body);
    cr_assert_eq(dmn_head(&c), 200);
    cr_assert(dmn_line(&c, line, sizeof(line))); /* it has begun */
    struct vf_json *first = vf_json_parse(line, strlen(line));
    all = bytes_of(dmn_str(first, "base64"));
    vf_json_delete(first);
    exe_wait_full(&v, &c);
    int64_t grown = dmn_rss_kib(&g->d) - before;
    fprintf(stderr, "daemon_linux: %lld KiB more while %d MiB are held back\n", (long long)grown,
            EXE_FLOOD_MIB);
    cr_expect_lt(grown, EXE_HELD_BACK_KIB);
    while (dmn_line(&c, line, sizeof(line))) {
        struct vf_json *j = vf_json_parse(line, strlen(line));
        all += bytes_of(dmn_str(j, "base64"));
        ended |= dmn_int(j, "exit.code") == 0;
        vf_json_delete(j);
    }
    cr_expect_eq(all, (int64_t)EXE_FLOOD_MIB << 20);
    cr_expect(ended);
    dmn_hang_up(&c);
}

static void killed_and_back(struct gst *g, const struct held *h)
{
    dmn_kill(&g->d);
    cr_expect_eq(gst_vmms(g), LEASES, "they go on without it");
    write_settings(g, 0);
    dmn_start(&g->d);
    expect_held(g, h);
}

static void resized_and_drained(struct gst *g)
{
    struct held more;
    gst_set(&g->d, "linux", "{\"target\":2}");
    dmn_wait_for(&g->d, pool, "parked", 2);
    gst_set(&g->d, "linux", "{\"target\":1}");
    dmn_wait_for(&g->d, pool, "parked", 1);
    gst_await_vmms(g, LEASES + 1);
    take(g, "hit", "a parked VM was ready", &more);
    gst_release(&g->d, more.id);

    free(dmn_call(&g->d, 202, "POST", "/v1/pools/linux/drain", NULL));
    dmn_wait_for(&g->d, pool, "parked", 0);
    dmn_wait_for(&g->d, pool, "making", 0);
    gst_await_vmms(g, LEASES);
    char *text = dmn_call(&g->d, 409, "POST", "/v1/vms", "{\"template\":\"linux\"}");
    cr_expect(strstr(text, "drained"), "%s", text);
    free(text);
}

static void stopped_and_started(struct gst *g, const struct held *h)
{
    cr_expect_eq(dmn_stop(&g->d), 0);
    cr_expect_eq(gst_vmms(g), LEASES, "leased VMs go on");
    cr_expect_eq(dmn_vm_dirs(&g->d), LEASES);
    dmn_start(&g->d);
    expect_held(g, h);
    struct vf_json *j = dmn_json(&g->d, 200, "GET", pool, NULL);
    cr_expect(vf_json_bool(dmn_get(j, "drained"), false), "a drain is kept");
    cr_expect_eq(dmn_int(j, "leased"), LEASES);
    vf_json_delete(j);
}

Test(daemon_linux, from_an_empty_store_to_the_last_vm, .timeout = 240)
{
    char path[100];
    const char *const args[] = {"--config", path, NULL};
    struct held h[LEASES];
    struct gst g;
    if (gst_missing(true)[0])
        sup_skip("daemon_linux", "from_an_empty_store_to_the_last_vm", "%s", gst_missing(true));
    gst_prepare(&g, args);
    snprintf(path, sizeof(path), "%s/v.json", g.d.dir);
    write_settings(&g, 0);
    dmn_start(&g.d);
    fills_and_serves(&g, h);
    floods(&g, &h[3]);
    killed_and_back(&g, h);
    resized_and_drained(&g);
    stopped_and_started(&g, h);
    gst_close(&g);
}

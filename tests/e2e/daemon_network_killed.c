/* The daemon is killed at each step that has to do with networks, and the next one has everything again: who holds a VM
 * goes on reaching it, a port is somebody's or free, and in the end nothing is left. Also what is counted meanwhile.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/e2e/daemon_network.h"

TestSuite(daemon_network_killed, .timeout = 180);

#define SUITE "daemon_network_killed"

static void await_traffic(struct dmn *d, const char *id)
{
    int64_t until = vf_deadline_after_ms(DMN_LONG_MS), bytes = -1;
    while (bytes <= 0 && vf_now_us() < until) {
        struct vf_json *vm = dnet_look(d, id);
        bytes = dmn_int(vm, "network.traffic.out.bytes");
        vf_json_delete(vm);
        usleep(100000); /* it is counted every 5 s, and nothing tells */
    }
    cr_expect_gt(bytes, 0, "no traffic was counted");
}

static char *metrics(struct dmn *d)
{
    struct dmn_conn c;
    dmn_dial(d, &c, "stats.sock");
    dmn_ask(&c, "GET", "/metrics", NULL, NULL);
    cr_assert_eq(dmn_head(&c), 200);
    char *text = dmn_rest(&c);
    dmn_hang_up(&c);
    return text;
}

/* The text may be 100 ms old. */
static void await_series(struct dmn *d, const char *id, bool shown)
{
    char own[200], *text = NULL;
    int64_t until = vf_deadline_after_ms(DMN_LONG_MS);
    snprintf(own, sizeof(own),
             "vmfactory_vm_network_bytes_total{template=\"tiny\",vm=\"%s\",direction=\"out\"}", id);
    do {
        free(text);
        text = metrics(d);
    } while ((strstr(text, own) != NULL) != shown && vf_now_us() < until);
    cr_expect_eq(strstr(text, own) != NULL, shown, "%s", own);
    cr_expect_null(
        strstr(text, "vmfactory_network_bytes_total{template=\"tiny\",direction=\"out\"} 0\n"),
        "nothing was counted");
    cr_expect_not_null(strstr(text, "vmfactory_network_slots{mode=\"nat\",state=\"taken\"}"));
    free(text);
}

Test(daemon_network_killed, a_lease_keeps_its_network_over_a_kill)
{
    struct net n = {.outside = VF_NETNS_NONE};
    struct gst g;
    struct dnet_held h[2], again;
    dnet_enter_for_guests(SUITE, "a_lease_keeps_its_network_over_a_kill");
    net_outside(&n);
    gst_prepare(&g, dnet_on);
    dmn_start(&g.d);
    dnet_add_tiny(&g, "tiny", "{}");
    gst_warm(&g.d, "tiny", 1);
    for (int i = 0; i < 2; i++) {
        struct vf_json *vm =
            dnet_acquire(&g.d, 201, "tiny", "\"ports\":[{\"protocol\":\"udp\",\"guest\":7}]");
        dnet_hold(vm, &h[i]);
        vf_json_delete(vm);
    }
    cr_expect_str_neq(h[0].machine_id, h[1].machine_id);
    dnet_expect_reached(&n, &h[0]);
    dnet_expect_reached(&n, &h[1]);
    dmn_wait_for(&g.d, "/v1/pools/tiny", "parked", 1);
    dmn_kill(&g.d);
    dnet_expect_reached(&n, &h[0]); /* nobody needs the daemon for it */
    dmn_start(&g.d);
    for (int i = 0; i < 2; i++) {
        struct vf_json *vm = dnet_look(&g.d, h[i].id);
        dnet_hold(vm, &again);
        vf_json_delete(vm);
        cr_expect_str_eq(again.address4, h[i].address4);
        cr_expect_str_eq(again.netns, h[i].netns);
        cr_expect_eq(again.port, h[i].port);
        dnet_expect_reached(&n, &h[i]);
    }
    dmn_wait_for(&g.d, "/v1/pools/tiny", "parked", 1);
    /* Its slot was adopted with it. */
    dnet_expect_log(&g.d, "2 leased and 1 parked ones adopted, 0 discarded");
    await_traffic(&g.d, h[0].id);
    await_series(&g.d, h[0].id, true);
    gst_release(&g.d, h[0].id);
    await_series(&g.d, h[0].id, false);
    dnet_expect_reached(&n, &h[1]);
    gst_close(&g);
    vf_netns_close(&n.outside);
    dnet_expect_nothing_left(&g.d);
}

/* ---- at each step */

struct killed {
    struct net n;
    struct gst g;
    struct dnet_held lease;
};

#define WITH_PORT "\"ports\":[{\"protocol\":\"udp\",\"guest\":7,\"host\":%d}]"
#define LEASED_PORT 8001
#define TAKEN_PORT 8002

static struct vf_json *take(struct killed *k, int port)
{
    char more[100];
    snprintf(more, sizeof(more), WITH_PORT, port);
    return dnet_acquire(&k->g.d, 201, "tiny", more);
}

/* One leased VM with a port, one that is parked; then a daemon that ends at the point. */
static void set_up(struct killed *k, const char *name, const char *point)
{
    dnet_enter_for_guests(SUITE, name);
    memset(k, 0, sizeof(*k));
    k->n.outside = VF_NETNS_NONE;
    net_outside(&k->n);
    gst_prepare(&k->g, dnet_on);
    dmn_start(&k->g.d);
    dnet_add_tiny(&k->g, "tiny", "{}");
    gst_warm(&k->g.d, "tiny", 1);
    struct vf_json *vm = take(k, LEASED_PORT);
    dnet_hold(vm, &k->lease);
    vf_json_delete(vm);
    dmn_wait_for(&k->g.d, "/v1/pools/tiny", "parked", 1);
    cr_expect_eq(dmn_stop(&k->g.d), 0); /* the lease stays */
    setenv("VF_FAILPOINT", point, 1);
}

/* Has it do what leads to the point, over a connection that may break. */
static void provoke(struct killed *k, bool release)
{
    struct dmn_conn c;
    char path[64] = "/v1/vms", body[200] = "{\"template\":\"tiny\",", *end = body + strlen(body);
    if (release)
        snprintf(path, sizeof(path), "/v1/vms/%s", k->lease.id);
    snprintf(end, 150, WITH_PORT "}", TAKEN_PORT);
    dmn_dial(&k->g.d, &c, "api.sock");
    dmn_ask(&c, release ? "DELETE" : "POST", path, NULL, release ? NULL : body);
    dmn_head(&c);
    dmn_hang_up(&c);
}

/* Whoever has the port answers there; nobody's it is free to have. */
static void expect_port_is_sound(struct killed *k)
{
    struct vf_json *list = dmn_json(&k->g.d, 200, "GET", "/v1/vms", NULL);
    const struct vf_json *vm;
    struct dnet_held h;
    bool had = false;
    for (size_t i = 0; (vm = vf_json_at(vf_json_get(list, "vms"), i)) != NULL; i++) {
        dnet_hold(vm, &h);
        dnet_expect_reached(&k->n, &h);
        had |= h.port == TAKEN_PORT;
    }
    vf_json_delete(list);
    if (had)
        return;
    struct vf_json *taken = take(k, TAKEN_PORT);
    dnet_hold(taken, &h);
    vf_json_delete(taken);
    dnet_expect_reached(&k->n, &h);
}

static void killed(const char *name, const char *point, bool release)
{
    struct killed k;
    set_up(&k, name, point);
    if (dmn_try_start(&k.g.d)) /* or it ends as it refills */
        provoke(&k, release);
    cr_expect_eq(dmn_wait(&k.g.d), 128 + SIGKILL, "%s was not reached", point);
    unsetenv("VF_FAILPOINT");
    dmn_start(&k.g.d);
    if (!release)
        dnet_expect_reached(&k.n, &k.lease);
    expect_port_is_sound(&k);
    gst_close(&k.g);
    vf_netns_close(&k.n.outside);
    dnet_expect_nothing_left(&k.g.d);
}

#define KILLED(name, point, release)   \
    Test(daemon_network_killed, name)  \
    {                                  \
        killed(#name, point, release); \
    }

KILLED(slot_taken, "network.taken", false)
KILLED(launched, "launch.after-clone", false)
KILLED(ports_opened, "pool.ports.opened", false)
KILLED(lease_written, "journal.leased.written", false)
KILLED(lease_renamed, "journal.leased.renamed", false)
KILLED(torn_down, "factory.teardown.stopped", true)
KILLED(slot_given_back, "network.given-back", true)

/* The daemon's networks: VMs that have slots, ports of the host that lead to them, what is kept over a restart, and what
 * is refused. Everything happens in namespaces of the test's own: the daemon is started there, too.
 */
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/e2e/daemon_network.h"

TestSuite(daemon_network, .timeout = 180);

#define SUITE "daemon_network"

/* ---- slots and ports */

static void take_id(struct vf_json *vm, char ret[16])
{
    dnet_get_id(vm, ret);
    vf_json_delete(vm);
}

Test(daemon_network, each_vm_has_a_slot_and_the_stock_is_kept)
{
    struct dmn d;
    dnet_open_web(&d, SUITE, "each_vm_has_a_slot_and_the_stock_is_kept", "{}", 2);
    struct vf_json *a = dnet_acquire(&d, 201, "web", ""), *b = dnet_acquire(&d, 201, "web", "");
    dnet_expect_nat(a);
    dnet_expect_nat(b);
    cr_expect_str_neq(dmn_str(a, "network.address4"), dmn_str(b, "network.address4"));
    cr_expect_str_neq(dmn_str(a, "network.interface"), dmn_str(b, "network.interface"));
    cr_expect_null(dnet_port_of(a, 0));
    dnet_release(&d, a);
    dnet_release(&d, b);
    dnet_stop_and_expect_nothing(&d);
}

Test(daemon_network, ports_are_open_for_the_lease)
{
    struct dmn d;
    char more[200], number[16];
    dnet_open_web(&d, SUITE, "ports_are_open_for_the_lease",
                  "{\"ports\":[{\"protocol\":\"udp\",\"guest\":7}]}", 1);
    struct vf_json *vm = dnet_acquire(&d, 201, "web", ""); /* the spec's, of the daemon's range */
    cr_expect_str_eq(dmn_str(vm, "source"), "hit");
    int64_t port = dmn_int(dnet_port_of(vm, 0), "host");
    cr_expect(port >= 30000 && port <= 32767, "port %d", (int)port);
    cr_expect_eq(dmn_int(dnet_port_of(vm, 0), "guest"), 7);
    cr_expect_str_eq(dmn_str(dnet_port_of(vm, 0), "protocol"), "udp");
    cr_expect_not_null(strstr(net_shell("nft -p list ruleset"), " 17 . "));
    /* Another can't have the same, and is not lost for it. */
    dmn_wait_for(&d, "/v1/pools/web", "parked", 1);
    snprintf(more, sizeof(more), "\"ports\":[{\"protocol\":\"udp\",\"guest\":9,\"host\":%d}]",
             (int)port);
    snprintf(number, sizeof(number), "%d", (int)port);
    dnet_refused(&d, 409, "web", more, number);
    dmn_wait_for(&d, "/v1/pools/web", "parked", 1);
    dnet_release(&d, vm);
    vm = dnet_acquire(&d, 201, "web", more); /* it is free again */
    cr_expect_eq(dmn_int(dnet_port_of(vm, 0), "host"), port);
    dnet_release(&d, vm);
    vm = dnet_acquire(&d, 201, "web", "\"ports\":[]"); /* none, whatever the spec says */
    cr_expect_null(dnet_port_of(vm, 0));
    dnet_release(&d, vm);
    dnet_stop_and_expect_nothing(&d);
}

static bool is_counted(struct dmn *d, const char *id)
{
    struct vf_json *vm = dnet_look(d, id);
    bool counted = dmn_int(vm, "network.traffic.in.packets") >= 0;
    vf_json_delete(vm);
    return counted;
}

/* The pass over the leases keeps its place in them, whichever of them end meanwhile. */
Test(daemon_network, the_traffic_of_each_is_counted_while_others_come_and_go)
{
    enum { N = 24 };
    char id[N][16];
    struct dmn d;
    dnet_open_web(&d, SUITE, "the_traffic_of_each_is_counted_while_others_come_and_go", "{}", 0);
    for (int i = 0; i < N; i++)
        take_id(dnet_acquire(&d, 201, "web", ""), id[i]);
    /* Every other one goes, and another comes, until those that stay are counted. */
    int64_t until = vf_deadline_after_ms(DMN_LONG_MS);
    int counted = 0;
    for (int at = 0; counted < N / 2 && vf_deadline_left_ms(until) > 0; at = (at + 2) % N) {
        gst_release(&d, id[at]);
        take_id(dnet_acquire(&d, 201, "web", ""), id[at]);
        while (counted < N / 2 && is_counted(&d, id[2 * counted + 1]))
            counted++;
    }
    cr_expect_eq(counted, N / 2);
    dnet_stop_and_expect_nothing(&d);
}

/* Woken for their caller, and of no use to another if he can't have the port. */
Test(daemon_network, paused_vms_have_ports_too)
{
    struct dmn d;
    net_enter(SUITE, "paused_vms_have_ports_too");
    dmn_open(&d, dnet_on);
    free(dmn_call(
        &d, 201, "POST", "/v1/templates",
        "{\"name\":\"web\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16},\"park\":\"paused\","
        "\"network\":{\"ports\":[{\"guest\":80,\"host\":8080}]}}"));
    gst_warm(&d, "web", 2);
    struct vf_json *vm = dnet_acquire(&d, 201, "web", "");
    cr_expect_str_eq(dmn_str(vm, "source"), "hit");
    cr_expect_eq(dmn_int(dnet_port_of(vm, 0), "host"), 8080);
    cr_expect_str_eq(dmn_str(dnet_port_of(vm, 0), "protocol"), "tcp");
    dnet_refused(&d, 409, "web", "", "8080");
    dmn_wait_for(&d, "/v1/pools/web", "parked", 2);
    dnet_release(&d, vm);
    dnet_stop_and_expect_nothing(&d);
}

/* Wherever their acquire is then, no port stays open. */
Test(daemon_network, callers_that_go_away)
{
    static const char body[] = "{\"template\":\"web\",\"ports\":[{\"guest\":80,\"host\":8080}]}";
    struct dmn d;
    dnet_open_web(&d, SUITE, "callers_that_go_away", "{}", 2);
    for (int i = 0; i < 20; i++) {
        struct dmn_conn c;
        dmn_dial(&d, &c, "api.sock");
        dmn_ask(&c, "POST", "/v1/vms", NULL, body);
        if (i % 2)
            usleep((useconds_t)i * 100); /* a little later in its life */
        dmn_hang_up(&c);
    }
    /* Until the last of them has gone, and its slot is back. */
    int64_t until = vf_deadline_after_ms(DMN_LONG_MS);
    int status = 409;
    while (status == 409 && vf_now_us() < until) {
        struct dmn_conn c;
        dmn_dial(&d, &c, "api.sock");
        dmn_ask(&c, "POST", "/v1/vms", NULL, body);
        status = dmn_head(&c);
        free(dmn_rest(&c));
        dmn_hang_up(&c);
    }
    cr_expect_eq(status, 201);
    dmn_wait_for(&d, "/v1/pools/web", "leased", 1);
    cr_expect_eq(dmn_stop(&d), 0); /* the lease ends with it, as its VM does */
    dnet_expect_nothing_left(&d);
    dmn_close(&d);
}

/* No template can have it. */
static void expect_no_nat(struct dmn *d, const char *words)
{
    dnet_expect_message(dmn_json(d, 400, "POST", "/v1/templates",
                                 "{\"name\":\"web\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16},"
                                 "\"network\":{}}"),
                        words);
}

Test(daemon_network, vms_on_a_bridge)
{
    static const char *const bridged[] = {
        "--set", "network=on",         "--set", "network_prefixes=",
        "--set", "network_bridge=br0", "--set", "network_bridge_prefixes=192.168.7.0/24",
        NULL};
    struct gst g;
    struct dnet_held h;
    dnet_enter_for_guests(SUITE, "vms_on_a_bridge");
    net_shell(
        "ip link add br0 type bridge; ip addr add 192.168.7.1/24 dev br0; ip link set br0 up");
    gst_prepare(&g, bridged);
    dmn_start(&g.d);
    dnet_add_tiny(&g, "lan", "{\"mode\":\"bridge\"}");
    gst_warm(&g.d, "lan", 1);
    struct vf_json *vm = dnet_acquire(&g.d, 201, "lan", "");
    dnet_hold(vm, &h);
    cr_expect_str_eq(dmn_str(vm, "network.mode"), "bridge");
    cr_expect_eq(strncmp(h.address4, "192.168.7.", 10), 0, "%s", h.address4);
    vf_json_delete(vm);
    dnet_expect_who(-1, h.address4, DNET_WHO_PORT, h.machine_id);
    /* Nat is not configured, and ports of the host lead to nobody here. */
    expect_no_nat(&g.d, "not configured");
    dnet_refused(&g.d, 400, "lan", "\"ports\":[{\"guest\":80}]", "ports: ");
    gst_release(&g.d, h.id);
    gst_close(&g);
    cr_expect_eq(net_count_names(), 0);
    cr_expect_eq(net_count_links("vfb-"), 0);
    cr_expect_str_empty(net_shell("nft list ruleset"));
}

Test(daemon_network, ports_and_networks_are_refused_where_they_make_no_sense)
{
    struct dmn d;
    dnet_open_web(&d, SUITE, "ports_and_networks_are_refused_where_they_make_no_sense", "{}", 0);
    dnet_add_null(&d, "bare", "{\"mode\":\"none\"}");
    dnet_add_null(&d, "out", "{\"mode\":\"external\"}");
    dnet_refused(&d, 400, "bare", "\"ports\":[{\"guest\":80}]", "ports: ");
    dnet_refused(&d, 400, "out", "\"ports\":[{\"guest\":80}]", "ports: ");
    dnet_refused(&d, 400, "web", "\"network\":{\"tap\":\"tap0\"}", "network: ");
    dnet_expect_message(dmn_json(&d, 400, "POST", "/v1/pools/out/warm", "{\"count\":1}"),
                        "external");
    dnet_expect_message(dmn_json(&d, 400, "PATCH", "/v1/pools/out", "{\"standby\":1}"),
                        "standby: ");
    dnet_stop_and_expect_nothing(&d);
}

/* Its VMs ended with it: what is left is nobody's. */
Test(daemon_network, what_nobody_uses_is_swept_after_a_kill)
{
    struct dmn d;
    dnet_open_web(&d, SUITE, "what_nobody_uses_is_swept_after_a_kill", "{}", 2);
    vf_json_delete(dnet_acquire(&d, 201, "web", "\"ports\":[{\"guest\":80,\"host\":8080}]"));
    dmn_kill(&d);
    cr_expect_gt(net_count_names(), 2);
    dmn_start(&d);
    /* The dead lease has no network any more, and its port is another's to have. */
    struct vf_json *vm = dnet_acquire(&d, 201, "web", "\"ports\":[{\"guest\":80,\"host\":8080}]");
    cr_expect_eq(dmn_int(dnet_port_of(vm, 0), "host"), 8080);
    vf_json_delete(vm);
    cr_expect_eq(dmn_stop(&d), 0);
    dnet_expect_nothing_left(&d);
    dmn_close(&d);
}

Test(daemon_network, names_that_are_not_ours_stay)
{
    struct dmn d;
    net_enter(SUITE, "names_that_are_not_ours_stay");
    net_shell("ip netns add vf-3; ip netns add vf-x; ip link add vf-5 type veth peer name peer5");
    dmn_open(&d, dnet_on);
    dnet_add_null(&d, "web", "{}");
    gst_warm(&d, "web", 8);
    dmn_kill(&d);
    dmn_start(&d);
    dmn_wait_for(&d, "/v1/pools/web", "parked", 8);
    dnet_expect_log(&d, "not ours");
    cr_expect_eq(dmn_stop(&d), 0);
    cr_expect_str_eq(net_shell("ls /run/netns"), "vf-3\nvf-x\n");
    cr_expect_eq(net_count_links("vf-"), 1);
    net_shell("ip netns del vf-3; ip netns del vf-x; ip link del vf-5");
    dnet_expect_nothing_left(&d);
    dmn_close(&d);
}

/* ---- what a caller brings */

/* A namespace of the caller's, with a tap whose gateway is the one that guests know. */
Test(daemon_network, a_vm_in_a_namespace_that_its_caller_brings)
{
    struct gst g;
    struct vf_netns ns = VF_NETNS_NONE;
    struct vf_error e;
    dnet_enter_for_guests(SUITE, "a_vm_in_a_namespace_that_its_caller_brings");
    net_shell("ip netns add mine; ip -n mine tuntap add tap0 mode tap vnet_hdr;"
              "ip -n mine addr add 10.9.8.1/24 dev tap0; ip -n mine link set tap0 up");
    gst_prepare(&g, dnet_on);
    dmn_start(&g.d);
    dnet_add_tiny(&g, "own", "{\"mode\":\"external\"}");
    free(dmn_call(&g.d, 202, "POST", "/v1/pools/own/warm", "{}"));
    dmn_wait_for(&g.d, "/v1/pools/own", "generation", 1);
    struct vf_json *vm =
        dnet_acquire(&g.d, 201, "own",
                     "\"network\":{\"namespace\":\"/run/netns/mine\",\"tap\":\"tap0\","
                     "\"address4\":\"10.9.8.7/24\",\"gateway4\":\"10.9.8.1\"}");
    cr_expect_str_eq(dmn_str(vm, "source"), "clone");
    cr_expect_str_eq(dmn_str(vm, "network.mode"), "external");
    cr_expect_str_eq(dmn_str(vm, "network.namespace"), "/run/netns/mine");
    cr_assert_eq(vf_netns_open("/run/netns/mine", 0, &ns, &e), 0, "%s", e.msg);
    dnet_expect_who(ns.ns, "10.9.8.7", DNET_WHO_PORT, dmn_str(vm, "proof.machine_id"));
    dmn_kill(&g.d);
    dmn_start(&g.d);
    dnet_expect_who(ns.ns, "10.9.8.7", DNET_WHO_PORT, dmn_str(vm, "proof.machine_id"));
    dnet_release(&g.d, vm);
    gst_close(&g);
    vf_netns_close(&ns);
    cr_expect_str_eq(net_shell("ls /run/netns; ip -n mine -o link show tap0 | grep -c tap0"),
                     "mine\n1\n"); /* it stays the caller's */
    net_shell("ip netns del mine");
    dnet_expect_nothing_left(&g.d);
}

/* ---- what can't be had */

/* Modes with slots are refused with the reason; without a network all is well. */
static void expect_refused(struct dmn *d, const char *words)
{
    struct vf_json *vm;
    expect_no_nat(d, words);
    dnet_add_null(d, "bare", "{\"mode\":\"none\"}");
    gst_warm(d, "bare", 1);
    vm = dnet_acquire(d, 201, "bare", "");
    cr_expect_null(dmn_get(vm, "network.mode"));
    vf_json_delete(vm);
}

Test(daemon_network, a_host_that_does_not_forward)
{
    static const char *const automatic[] = {"--set", "network=auto", "--set", DNET_PREFIXES, NULL};
    struct dmn d;
    net_enter(SUITE, "a_host_that_does_not_forward");
    net_shell("echo 0 >/proc/sys/net/ipv4/ip_forward");
    dmn_prepare(&d, dnet_on);
    cr_expect_neq(dmn_start_fails(&d), 0);
    dnet_expect_log(&d, "forward");
    dmn_close(&d);
    dmn_open(&d, automatic);
    dnet_expect_log(&d, "forward");
    expect_refused(&d, "forward");
    dnet_stop_and_expect_nothing(&d);
}

Test(daemon_network, a_daemon_without_privileges)
{
    static const char *const automatic[] = {"--set", "network=auto", "--set", DNET_PREFIXES, NULL};
    struct dmn d;
    net_enter(SUITE, "a_daemon_without_privileges");
    dmn_prepare(&d, automatic);
    /* For what this process starts, and whatever it execs. */
    cr_assert_eq(prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0), 0);
    dmn_start(&d);
    expect_refused(&d, "not permitted");
    cr_expect_eq(dmn_stop(&d), 0);
    dmn_close(&d);
    dmn_prepare(&d, dnet_on);
    cr_expect_neq(dmn_start_fails(&d), 0);
    dnet_expect_log(&d, "not permitted");
    dmn_close(&d);
}

Test(daemon_network, networks_that_are_off)
{
    static const char *const off[] = {"--set", "network=off", NULL};
    struct dmn d;
    net_enter(SUITE, "networks_that_are_off");
    dmn_open(&d, off);
    expect_refused(&d, "off");
    dnet_stop_and_expect_nothing(&d);
}

Test(daemon_network, prefixes_that_are_in_use)
{
    struct dmn d;
    net_enter(SUITE, "prefixes_that_are_in_use");
    net_shell("ip link add d0 type veth peer name d1; ip addr add 10.210.0.9/24 dev d0; ip link "
              "set d0 up; "
              "ip link set d1 up");
    dmn_prepare(&d, dnet_on);
    cr_expect_neq(dmn_start_fails(&d), 0);
    dnet_expect_log(&d, "10.210.0.0/24");
    dmn_close(&d);
}

/* What a daemon had, the next one can't have: its template stays and says why. */
Test(daemon_network, a_stored_template_says_why_it_is_of_no_use)
{
    static const char *const off[] = {"--set", "network=off", NULL};
    struct dmn d;
    dnet_open_web(&d, SUITE, "a_stored_template_says_why_it_is_of_no_use", "{}", 1);
    cr_expect_eq(dmn_stop(&d), 0);
    dnet_start_with(&d, off);
    struct vf_json *t = dmn_json(&d, 200, "GET", "/v1/templates/web", NULL);
    cr_expect(strstr(dmn_str(t, "reason"), "networks are off"), "%s", dmn_str(t, "reason"));
    vf_json_delete(t);
    dnet_refused(&d, 400, "web", "", "networks are off");
    dnet_expect_message(dmn_json(&d, 400, "POST", "/v1/pools/web/warm", "{}"), "networks are off");
    cr_expect_eq(dmn_stop(&d), 0);
    dnet_start_with(&d, dnet_on); /* and back again */
    dmn_wait_for(&d, "/v1/pools/web", "parked", 1);
    dnet_stop_and_expect_nothing(&d);
}

Test(daemon_network, when_all_addresses_are_taken)
{
    static const char *const few[] = {"--set", "network=on", "--set",
                                      "network_prefixes=10.210.0.0/29", NULL};
    struct dmn d;
    struct vf_json *vm = NULL;
    char id[16][16];
    int n = 0;
    net_enter(SUITE, "when_all_addresses_are_taken");
    dmn_open(&d, few);
    dnet_add_null(&d, "web", "{}");
    gst_warm(&d, "web", 1);
    gst_set(&d, "web", "{\"target\":0}");
    dmn_wait_for(&d, "/v1/pools/web", "parked", 0);
    for (; n < 15; n++) {
        struct dmn_conn c;
        dmn_dial(&d, &c, "api.sock");
        dmn_ask(&c, "POST", "/v1/vms", NULL, "{\"template\":\"web\"}");
        int status = dmn_head(&c);
        char *text = dmn_rest(&c);
        vm = vf_json_parse(text, strlen(text));
        free(text);
        dmn_hang_up(&c);
        if (status != 201) {
            cr_expect_eq(status, 429);
            break;
        }
        dnet_get_id(vm, id[n]);
        vf_json_delete(vm);
    }
    cr_assert_geq(n, 2);
    cr_assert_lt(n, 8);
    dnet_expect_message(vm, "prefixes are in use");
    gst_set(&d, "web", "{\"target\":1}"); /* a refill fares no better, and says so */
    dmn_wait_least(&d, "/v1/pools/web", "refill.failures", 1);
    struct vf_json *pool = dmn_json(&d, 200, "GET", "/v1/pools/web", NULL);
    cr_expect(strstr(dmn_str(pool, "refill.error.message"), "are in use"), "%s",
              dmn_str(pool, "refill.error.message"));
    vf_json_delete(pool);
    gst_release(&d, id[--n]);
    dmn_wait_for(&d, "/v1/pools/web", "parked", 1); /* its address serves the next */
    while (n > 0)
        gst_release(&d, id[--n]);
    dnet_stop_and_expect_nothing(&d);
}

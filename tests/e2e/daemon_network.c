/* The daemon's networks: VMs that have slots, ports of the host that lead to them, what is kept over a restart, and what
 * is refused. Everything happens in namespaces of the test's own: the daemon is started there, too.
 */
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/e2e/daemon_guest.h"
#include "tests/e2e/net_support.h"
#include "tests/e2e/support.h"

TestSuite(daemon_network, .timeout = 180);

#define SUITE "daemon_network"
#define PREFIXES "network_prefixes=10.210.0.0/24,fd76:6d01::/120"

static const char *const on[] = {"--set", "network=on", "--set", PREFIXES, NULL};

/* A template of VMs in memory, in slots; target 0. */
static void add_null(struct dmn *d, const char *name, const char *network)
{
    char body[400];
    snprintf(body, sizeof(body),
             "{\"name\":\"%s\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16},\"park\":\"running\","
             "\"network\":%s}",
             name, network);
    free(dmn_call(d, 201, "POST", "/v1/templates", body));
}

static struct vf_json *acquire(struct dmn *d, int status, const char *name, const char *more)
{
    char body[400];
    snprintf(body, sizeof(body), "{\"template\":\"%s\"%s%s}", name, more[0] ? "," : "", more);
    return dmn_json(d, status, "POST", "/v1/vms", body);
}

static void get_id(const struct vf_json *vm, char ret[16])
{
    snprintf(ret, 16, "%.15s", dmn_str(vm, "id"));
}

static const struct vf_json *port_of(const struct vf_json *vm, size_t i)
{
    return vf_json_at(dmn_get(vm, "network.ports"), i);
}

static void expect_message(struct vf_json *answer, const char *words)
{
    const char *text = dmn_str(answer, "error.message");
    cr_expect(strstr(text, words), "'%s' is not in: %s", words, text);
    vf_json_delete(answer);
}

/* Of slots: nothing, in the kernel and on disk. */
static void expect_nothing_left(const struct dmn *d)
{
    cr_expect_eq(net_count_names(), 0, "%d namespaces are left", net_count_names());
    cr_expect_eq(net_count_links("vf-"), 0, "%d interfaces are left", net_count_links("vf-"));
    cr_expect_str_empty(net_shell("nft list ruleset"));
    cr_expect_str_empty(
        net_shell("test ! -d %s || find %s -name '[0-9]*.json' -path '*net*'", d->run, d->run));
}

static void stop_and_expect_nothing(struct dmn *d)
{
    cr_expect_eq(dmn_stop(d), 0);
    expect_nothing_left(d);
    dmn_close(d);
}

/* ---- slots and ports */

Test(daemon_network, each_vm_has_a_slot_and_the_stock_is_kept)
{
    struct dmn d;
    char id[2][16];
    net_enter(SUITE, "each_vm_has_a_slot_and_the_stock_is_kept");
    dmn_open(&d, on);
    add_null(&d, "web", "{}");
    gst_warm(&d, "web", 2);
    struct vf_json *a = acquire(&d, 201, "web", ""), *b = acquire(&d, 201, "web", "");
    get_id(a, id[0]);
    get_id(b, id[1]);
    cr_expect_str_eq(dmn_str(a, "network.mode"), "nat");
    cr_expect_eq(strncmp(dmn_str(a, "network.address4"), "10.210.0.", 9), 0);
    cr_expect_eq(strncmp(dmn_str(a, "network.address6"), "fd76:6d01::", 11), 0);
    cr_expect_str_neq(dmn_str(a, "network.address4"), dmn_str(b, "network.address4"));
    cr_expect_str_neq(dmn_str(a, "network.interface"), dmn_str(b, "network.interface"));
    cr_expect_eq(access(dmn_str(a, "network.namespace"), F_OK), 0);
    cr_expect_str_eq(dmn_str(a, "network.guest.address4"), "172.31.255.2");
    cr_expect_str_eq(dmn_str(b, "network.guest.address4"), "172.31.255.2");
    cr_expect_str_eq(dmn_str(a, "network.guest.gateway4"), "172.31.255.1");
    cr_expect_str_eq(dmn_str(a, "network.guest.mac"), "02:76:6d:00:00:02");
    cr_expect_null(port_of(a, 0));
    vf_json_delete(a);
    vf_json_delete(b);
    gst_release(&d, id[0]);
    gst_release(&d, id[1]);
    stop_and_expect_nothing(&d);
}

Test(daemon_network, ports_are_open_for_the_lease)
{
    struct dmn d;
    char id[16], more[200];
    net_enter(SUITE, "ports_are_open_for_the_lease");
    dmn_open(&d, on);
    add_null(&d, "web", "{\"ports\":[{\"protocol\":\"udp\",\"guest\":7}]}");
    gst_warm(&d, "web", 1);
    struct vf_json *vm = acquire(&d, 201, "web", ""); /* the spec's, of the daemon's range */
    get_id(vm, id);
    cr_expect_str_eq(dmn_str(vm, "source"), "hit");
    int64_t port = dmn_int(port_of(vm, 0), "host");
    cr_expect(port >= 30000 && port <= 32767, "port %d", (int)port);
    cr_expect_eq(dmn_int(port_of(vm, 0), "guest"), 7);
    cr_expect_str_eq(dmn_str(port_of(vm, 0), "protocol"), "udp");
    cr_expect_not_null(strstr(net_shell("nft list ruleset"), "udp . "));
    vf_json_delete(vm);
    /* Another can't have the same, and is not lost for it. */
    dmn_wait_for(&d, "/v1/pools/web", "parked", 1);
    snprintf(more, sizeof(more), "\"ports\":[{\"protocol\":\"udp\",\"guest\":9,\"host\":%d}]",
             (int)port);
    char number[16];
    snprintf(number, sizeof(number), "%d", (int)port);
    expect_message(acquire(&d, 409, "web", more), number);
    dmn_wait_for(&d, "/v1/pools/web", "parked", 1);
    gst_release(&d, id);
    vm = acquire(&d, 201, "web", more); /* it is free again */
    get_id(vm, id);
    cr_expect_eq(dmn_int(port_of(vm, 0), "host"), port);
    vf_json_delete(vm);
    gst_release(&d, id);
    vm = acquire(&d, 201, "web", "\"ports\":[]"); /* none, whatever the spec says */
    get_id(vm, id);
    cr_expect_null(port_of(vm, 0));
    vf_json_delete(vm);
    gst_release(&d, id);
    stop_and_expect_nothing(&d);
}

Test(daemon_network, ports_and_networks_are_refused_where_they_make_no_sense)
{
    struct dmn d;
    net_enter(SUITE, "ports_and_networks_are_refused_where_they_make_no_sense");
    dmn_open(&d, on);
    add_null(&d, "bare", "{\"mode\":\"none\"}");
    add_null(&d, "out", "{\"mode\":\"external\"}");
    add_null(&d, "web", "{}");
    expect_message(acquire(&d, 400, "bare", "\"ports\":[{\"guest\":80}]"), "ports: ");
    expect_message(acquire(&d, 400, "out", "\"ports\":[{\"guest\":80}]"), "ports: ");
    expect_message(acquire(&d, 400, "web", "\"network\":{\"tap\":\"tap0\"}"), "network: ");
    expect_message(dmn_json(&d, 400, "POST", "/v1/pools/out/warm", "{\"count\":1}"), "external");
    expect_message(dmn_json(&d, 400, "PATCH", "/v1/pools/out", "{\"standby\":1}"), "standby: ");
    stop_and_expect_nothing(&d);
}

/* ---- traffic */

/* What a UDP question to an address is answered with; from: a namespace, -1: this one. */
static void ask(int from, const char *address, int port, const char *text, char ret[64])
{
    struct vf_ip to = net_ip(address);
    int fd = net_udp(from, to.family == AF_INET ? "0.0.0.0" : "::", 0);
    net_udp_send(fd, &to, port, text);
    const char *got = net_udp_receive(fd, NET_TIMEOUT_MS, NULL, NULL);
    cr_assert_not_null(got, "no answer from %s port %d", address, port);
    snprintf(ret, 64, "%s", got);
    close(fd);
}

static void add_tiny(struct gst *g, const char *name)
{
    char body[1000];
    snprintf(
        body, sizeof(body),
        "{\"name\":\"%s\",\"accel\":\"tcg\",\"memory\":{\"size_mib\":32},\"boot\":{\"kernel\":"
        "\"%s\",\"cmdline\":\"quiet\"},\"agent\":{\"channel\":\"serial\"},\"park\":\"running\","
        "\"network\":{}}",
        name, sup_guest_file("tiny.elf"));
    free(dmn_call(&g->d, 201, "POST", "/v1/templates", body));
}

struct held { /* a leased VM */
    char id[16], machine_id[40], address4[20], address6[50], netns[100];
    int port;
};

static void hold(const struct vf_json *vm, struct held *ret)
{
    get_id(vm, ret->id);
    snprintf(ret->machine_id, sizeof(ret->machine_id), "%s", dmn_str(vm, "proof.machine_id"));
    snprintf(ret->address4, sizeof(ret->address4), "%s", dmn_str(vm, "network.address4"));
    snprintf(ret->address6, sizeof(ret->address6), "%s", dmn_str(vm, "network.address6"));
    snprintf(ret->netns, sizeof(ret->netns), "%s", dmn_str(vm, "network.namespace"));
    ret->port = (int)dmn_int(port_of(vm, 0), "host");
}

static void expect_reached(struct net *n, const struct held *h)
{
    char who[64];
    ask(-1, h->address4, 7, "who", who);
    cr_expect_str_eq(who, h->machine_id, "at %s", h->address4);
    ask(-1, h->address6, 7, "who", who);
    cr_expect_str_eq(who, h->machine_id, "at %s", h->address6);
    ask(n->outside.ns, NET_HOST4, h->port, "who", who);
    cr_expect_str_eq(who, h->machine_id, "at port %d of " NET_HOST4, h->port);
    ask(n->outside.ns, NET_HOST6, h->port, "who", who);
    cr_expect_str_eq(who, h->machine_id, "at port %d of " NET_HOST6, h->port);
}

static void await_traffic(struct dmn *d, const char *id)
{
    char path[64];
    int64_t until = vf_deadline_after_ms(DMN_LONG_MS), bytes = -1;
    snprintf(path, sizeof(path), "/v1/vms/%.15s", id);
    while (bytes <= 0 && vf_now_us() < until) {
        struct vf_json *vm = dmn_json(d, 200, "GET", path, NULL);
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

Test(daemon_network, a_lease_keeps_its_network_over_a_kill)
{
    const char *name = "a_lease_keeps_its_network_over_a_kill";
    struct net n = {.outside = VF_NETNS_NONE};
    struct gst g;
    struct held h[2], again;
    char path[64];
    if (gst_missing(false)[0])
        sup_skip(SUITE, name, "%s", gst_missing(false));
    net_enter(SUITE, name);
    net_outside(&n);
    gst_prepare(&g, on);
    dmn_start(&g.d);
    add_tiny(&g, "tiny");
    gst_warm(&g.d, "tiny", 1);
    for (int i = 0; i < 2; i++) {
        struct vf_json *vm =
            acquire(&g.d, 201, "tiny", "\"ports\":[{\"protocol\":\"udp\",\"guest\":7}]");
        hold(vm, &h[i]);
        vf_json_delete(vm);
    }
    cr_expect_str_neq(h[0].machine_id, h[1].machine_id);
    expect_reached(&n, &h[0]);
    expect_reached(&n, &h[1]);
    dmn_wait_for(&g.d, "/v1/pools/tiny", "parked", 1);
    dmn_kill(&g.d);
    expect_reached(&n, &h[0]); /* nobody needs the daemon for it */
    dmn_start(&g.d);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "/v1/vms/%.15s", h[i].id);
        struct vf_json *vm = dmn_json(&g.d, 200, "GET", path, NULL);
        hold(vm, &again);
        vf_json_delete(vm);
        cr_expect_str_eq(again.address4, h[i].address4);
        cr_expect_str_eq(again.netns, h[i].netns);
        cr_expect_eq(again.port, h[i].port);
        expect_reached(&n, &h[i]);
    }
    dmn_wait_for(&g.d, "/v1/pools/tiny", "parked", 1);
    await_traffic(&g.d, h[0].id);
    await_series(&g.d, h[0].id, true);
    gst_release(&g.d, h[0].id);
    await_series(&g.d, h[0].id, false);
    expect_reached(&n, &h[1]);
    gst_close(&g);
    vf_netns_close(&n.outside);
    expect_nothing_left(&g.d);
}

/* Its VMs ended with it: what is left is nobody's. */
Test(daemon_network, what_nobody_uses_is_swept_after_a_kill)
{
    struct dmn d;
    net_enter(SUITE, "what_nobody_uses_is_swept_after_a_kill");
    dmn_open(&d, on);
    add_null(&d, "web", "{}");
    gst_warm(&d, "web", 2);
    vf_json_delete(acquire(&d, 201, "web", "\"ports\":[{\"guest\":80,\"host\":8080}]"));
    dmn_kill(&d);
    cr_expect_gt(net_count_names(), 2);
    dmn_start(&d);
    /* The dead lease has no network any more, and its port is another's to have. */
    struct vf_json *vm = acquire(&d, 201, "web", "\"ports\":[{\"guest\":80,\"host\":8080}]");
    cr_expect_eq(dmn_int(port_of(vm, 0), "host"), 8080);
    vf_json_delete(vm);
    cr_expect_eq(dmn_stop(&d), 0);
    expect_nothing_left(&d);
    dmn_close(&d);
}

Test(daemon_network, names_that_are_not_ours_stay)
{
    struct dmn d;
    net_enter(SUITE, "names_that_are_not_ours_stay");
    net_shell("ip netns add vf-3; ip netns add vf-x; ip link add vf-5 type veth peer name peer5");
    dmn_open(&d, on);
    add_null(&d, "web", "{}");
    gst_warm(&d, "web", 8);
    dmn_kill(&d);
    dmn_start(&d);
    dmn_wait_for(&d, "/v1/pools/web", "parked", 8);
    char *log = dmn_log(&d);
    cr_expect_not_null(strstr(log, "not ours"), "%s", log);
    free(log);
    cr_expect_eq(dmn_stop(&d), 0);
    cr_expect_str_eq(net_shell("ls /run/netns"), "vf-3\nvf-x\n");
    cr_expect_eq(net_count_links("vf-"), 1);
    net_shell("ip netns del vf-3; ip netns del vf-x; ip link del vf-5");
    expect_nothing_left(&d);
    dmn_close(&d);
}

/* ---- what can't be had */

static void expect_in_log(const struct dmn *d, const char *words)
{
    char *log = dmn_log(d);
    cr_expect(strstr(log, words), "'%s' is not in: %s", words, log);
    free(log);
}

/* Modes with slots are refused with the reason; without a network all is well. */
static void expect_refused(struct dmn *d, const char *words)
{
    struct vf_json *vm;
    expect_message(dmn_json(d, 400, "POST", "/v1/templates",
                            "{\"name\":\"web\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16},"
                            "\"network\":{}}"),
                   words);
    add_null(d, "bare", "{\"mode\":\"none\"}");
    gst_warm(d, "bare", 1);
    vm = acquire(d, 201, "bare", "");
    cr_expect_null(dmn_get(vm, "network.mode"));
    vf_json_delete(vm);
}

Test(daemon_network, a_host_that_does_not_forward)
{
    static const char *const automatic[] = {"--set", "network=auto", "--set", PREFIXES, NULL};
    struct dmn d;
    net_enter(SUITE, "a_host_that_does_not_forward");
    net_shell("echo 0 >/proc/sys/net/ipv4/ip_forward");
    dmn_prepare(&d, on);
    cr_expect_neq(dmn_start_fails(&d), 0);
    expect_in_log(&d, "forward");
    dmn_close(&d);
    dmn_open(&d, automatic);
    expect_in_log(&d, "forward");
    expect_refused(&d, "forward");
    stop_and_expect_nothing(&d);
}

Test(daemon_network, a_daemon_without_privileges)
{
    static const char *const automatic[] = {"--set", "network=auto", "--set", PREFIXES, NULL};
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
    dmn_prepare(&d, on);
    cr_expect_neq(dmn_start_fails(&d), 0);
    expect_in_log(&d, "not permitted");
    dmn_close(&d);
}

Test(daemon_network, networks_that_are_off)
{
    static const char *const off[] = {"--set", "network=off", NULL};
    struct dmn d;
    net_enter(SUITE, "networks_that_are_off");
    dmn_open(&d, off);
    expect_refused(&d, "off");
    stop_and_expect_nothing(&d);
}

Test(daemon_network, prefixes_that_are_in_use)
{
    struct dmn d;
    net_enter(SUITE, "prefixes_that_are_in_use");
    net_shell("ip link add d0 type veth peer name d1; ip addr add 10.210.0.9/24 dev d0; ip link "
              "set d0 up; "
              "ip link set d1 up");
    dmn_prepare(&d, on);
    cr_expect_neq(dmn_start_fails(&d), 0);
    expect_in_log(&d, "10.210.0.0/24");
    dmn_close(&d);
}

/* What a daemon had, the next one can't have: its template stays and says why. */
Test(daemon_network, a_stored_template_says_why_it_is_of_no_use)
{
    static const char *const off[] = {"--set", "network=off", NULL};
    struct dmn d;
    net_enter(SUITE, "a_stored_template_says_why_it_is_of_no_use");
    dmn_open(&d, on);
    add_null(&d, "web", "{}");
    gst_warm(&d, "web", 1);
    cr_expect_eq(dmn_stop(&d), 0);
    for (int i = 0; off[i]; i++)
        d.args[i] = off[i];
    d.args[2] = NULL;
    dmn_start(&d);
    struct vf_json *t = dmn_json(&d, 200, "GET", "/v1/templates/web", NULL);
    cr_expect(strstr(dmn_str(t, "reason"), "networks are off"), "%s", dmn_str(t, "reason"));
    vf_json_delete(t);
    expect_message(acquire(&d, 400, "web", ""), "networks are off");
    expect_message(dmn_json(&d, 400, "POST", "/v1/pools/web/warm", "{}"), "networks are off");
    cr_expect_eq(dmn_stop(&d), 0);
    for (int i = 0; on[i]; i++)
        d.args[i] = on[i];
    dmn_start(&d); /* and back again */
    dmn_wait_for(&d, "/v1/pools/web", "parked", 1);
    stop_and_expect_nothing(&d);
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
    add_null(&d, "web", "{}");
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
        get_id(vm, id[n]);
        vf_json_delete(vm);
    }
    cr_assert_geq(n, 2);
    cr_assert_lt(n, 8);
    expect_message(vm, "prefixes are in use");
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
    stop_and_expect_nothing(&d);
}

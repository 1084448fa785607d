/* A slot's life: made, taken, set, given back, destroyed. */
#include <errno.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/e2e/net_support.h"

TestSuite(net_slots, .timeout = 60);

Test(net_slots, a_slot_is_made_and_taken_and_gone_in_the_end)
{
    struct net n;
    struct vf_nets_counts c;
    struct vf_net_info info;
    struct vf_error e;
    char text[VF_IP_TEXT];

    net_open(&n, "net_slots", "a_slot_is_made_and_taken_and_gone_in_the_end");
    struct vf_net *slot = net_slot(&n);
    vf_net_info(slot, &info);
    cr_expect_str_eq(info.name, "vf-0");
    cr_expect_str_eq(info.netns_path, "/run/netns/vf-0");
    cr_expect_str_eq(vf_ip_text(&info.host4, text), "10.210.0.1");
    cr_expect_str_eq(vf_ip_text(&info.host6, text), "fd76:6d01::1");
    cr_expect_eq(info.n_tap_fds, 1);
    vf_nets_counts(n.slots, &c);
    cr_expect_eq(c.capacity, 128);
    cr_expect_eq(c.taken, 1);
    cr_expect_eq(c.ready, 0);

    /* As others see it. */
    cr_expect(strstr(net_shell("ip netns"), "vf-0"));
    cr_expect(strstr(net_shell("ip addr show dev vf-0"), "inet 10.210.0.0/31"));
    const char *inside = net_shell_in(slot, "ip addr; ip route; ip -6 route; ip neigh");
    static const char *const wanted[] = {
        "172.31.255.1/30",         "fd76:6d00::1/64",
        "10.210.0.1/31",           "default via 10.210.0.0",
        "default via fd76:6d01::", "172.31.255.2 dev tap0 lladdr 02:76:6d:00:00:02"};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        cr_expect(strstr(inside, wanted[i]), "%s not in:\n%s", wanted[i], inside);

    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    vf_nets_counts(n.slots, &c);
    cr_expect_eq(c.ready, 1);
    cr_expect_eq(c.recycled, 1);
    net_close(&n);
}

/* ---- shapes */

Test(net_slots, a_tap_by_name_with_a_queue_for_each_vcpu)
{
    struct net n;
    struct vf_error e;
    struct vf_net_info info;
    struct vf_netns ns;
    struct vf_net_shape shape = net_plain;
    net_open(&n, "net_slots", "a_tap_by_name_with_a_queue_for_each_vcpu");
    shape.tap =
        (struct vf_tap_shape){.queues = 4, .offloads = true, .by_name = true, .owner = 1234};
    struct vf_net *slot = net_slot_of(&n, &shape);
    vf_net_info(slot, &info);
    cr_expect_eq(info.n_tap_fds, 0);
    const char *tuns = net_shell_in(slot, "ip -d link show tap0");
    cr_expect(strstr(tuns, "multi_queue") && strstr(tuns, "vnet_hdr on") &&
                  strstr(tuns, "user 1234"),
              "%s", tuns);

    /* As a VMM does it; while it is open, the slot is in doubt. */
    cr_assert_eq(vf_netns_open(info.netns_path, 4, &ns, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_tap_attach(ns.tuns, info.tap, &shape.tap, &e), 0, "%s", e.msg);
    vf_netns_close(&ns);
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_take(n.slots, &shape, &slot, &e), 0);
    vf_net_info(slot, &info);
    cr_assert_eq(vf_netns_open(info.netns_path, 4, &ns, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_tap_attach(ns.tuns, info.tap, &shape.tap, &e), 0, "%s", e.msg);
    cr_expect_lt(vf_net_give_back(slot, NULL, &e), 0);
    cr_expect(strstr(e.msg, "still has the tap open"), "%s", e.msg);
    vf_netns_close(&ns);
    net_close(&n);
}

/* Whether a frame with that text comes to the tap. */
static bool tap_receives(int tun, const char *text)
{
    int64_t deadline_us = vf_deadline_after_ms(NET_TIMEOUT_MS);
    for (;;) {
        char frame[2000];
        struct pollfd p = {.fd = tun, .events = POLLIN};
        if (poll(&p, 1, (int)vf_deadline_left_ms(deadline_us)) != 1)
            return false;
        ssize_t len = read(tun, frame, sizeof(frame));
        if (len > 0 && memmem(frame, (size_t)len, text, strlen(text)))
            return true;
    }
}

/* As a VMM opens it; what is sent at once is there, each time. */
Test(net_slots, nothing_is_lost_once_a_tap_by_name_is_settled)
{
    struct net n;
    struct vf_error e;
    struct vf_net_info info;
    struct vf_net_shape shape = net_plain;
    net_open(&n, "net_slots", "nothing_is_lost_once_a_tap_by_name_is_settled");
    shape.tap.by_name = true;
    struct vf_net *slot = net_slot_of(&n, &shape);
    vf_net_info(slot, &info);
    int fd = net_udp(-1, "0.0.0.0", 0);
    for (int i = 0; i < 20; i++) {
        struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI};
        struct vf_netns ns;
        char text[16];
        snprintf(text, sizeof(text), "packet %d.", i);
        cr_assert_eq(vf_net_settle(slot, &e), 0, "%s",
                     e.msg); /* nobody has it, and that is known */
        cr_assert_eq(vf_netns_open(info.netns_path, 1, &ns, &e), 0, "%s", e.msg);
        snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", info.tap);
        cr_assert_eq(ioctl(ns.tuns[0], TUNSETIFF, &r), 0, "%s", strerror(errno));
        cr_assert_eq(vf_net_settle(slot, &e), 0, "%s", e.msg);
        net_udp_send(fd, &info.host4, 7, text);
        cr_assert(tap_receives(ns.tuns[0], text), "%s", text);
        vf_netns_close(&ns);
    }
    close(fd);
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    net_close(&n);
}

Test(net_slots, only_a_slot_of_the_same_shape_is_taken)
{
    struct net n;
    struct vf_error e;
    struct vf_net *slot = NULL;
    struct vf_net_shape shape = net_plain;
    net_open(&n, "net_slots", "only_a_slot_of_the_same_shape_is_taken");
    cr_assert_eq(vf_net_make(n.slots, &net_plain, &e), 0, "%s", e.msg);
    shape.mtu = 9000;
    cr_expect_eq(vf_net_take(n.slots, &shape, &slot, &e), -ENOENT);
    cr_assert_eq(vf_net_make(n.slots, &shape, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_take(n.slots, &net_plain, &slot, &e), 0);
    cr_assert_eq(vf_net_destroy(slot, &e), 0);
    net_close(&n); /* the ready one goes with it */
}

/* ---- doubts */

static void expect_doubt(struct net *n, const char *command, const char *says)
{
    struct vf_nets_counts before, after;
    struct vf_error e;
    struct vf_net *slot = net_slot(n);
    net_shell_in(slot, command);
    vf_nets_counts(n->slots, &before);
    cr_expect_lt(vf_net_give_back(slot, NULL, &e), 0, "%s", command);
    cr_expect(strstr(e.msg, says), "%s: %s", command, e.msg);
    vf_nets_counts(n->slots, &after);
    cr_expect_eq(after.doubts, before.doubts + 1);
    cr_expect_eq(after.ready, 0);
    cr_expect_eq(after.dirty, 0);
    cr_expect_eq(net_count_names(), 0);
    cr_expect_eq(net_count_records(), 0, "%s", e.msg);
}

Test(net_slots, a_slot_that_was_changed_is_not_used_again)
{
    struct net n;
    net_open(&n, "net_slots", "a_slot_that_was_changed_is_not_used_again");
    expect_doubt(&n, "nft add table inet more", "changed its rules");
    expect_doubt(&n, "nft flush chain netdev vmfactory guest", "changed its rules");
    expect_doubt(&n, "ip link set tap0 mtu 1400", "MTU 1400");
    expect_doubt(&n, "ip link set tap0 down", "down");
    expect_doubt(&n, "ip link set tap0 address 02:00:00:00:00:99", "MAC");
    expect_doubt(&n, "ip link add more type veth peer name more2", "not ours");
    expect_doubt(&n, "ip link del host0", "interfaces");
    expect_doubt(&n, "ip link set host0 address 02:00:00:00:00:98", "uplink");
    expect_doubt(&n, "ip addr add 10.9.9.9/24 dev host0", "address 10.9.9.9");
    expect_doubt(&n, "ip addr add 172.31.255.1/24 dev tap0", "address 172.31.255.1");
    expect_doubt(&n, "ip addr del fd76:6d00::1/64 dev tap0", "of 5 addresses 4");
    expect_doubt(&n, "ip route add 10.9.0.0/16 dev host0", "route to 10.9.0.0/16");
    expect_doubt(&n, "ip route add 10.9.0.0/16 dev host0 table 100", "route to 10.9.0.0/16");
    expect_doubt(&n, "ip route add blackhole 2001:db8::/32", "route to 2001:db8::/32");
    expect_doubt(&n, "ip -6 route del default", "routes");
    expect_doubt(&n, "ip route del 172.31.255.0/30 dev tap0", "routes");
    expect_doubt(&n, "ip neigh del 172.31.255.2 dev tap0", "neighbours");
    expect_doubt(&n, "ip neigh add 172.31.255.3 lladdr 02:00:00:00:00:99 dev tap0", "neighbours");
    net_close(&n);
}

Test(net_slots, a_slot_whose_hosts_end_was_changed_is_not_used_again)
{
    struct net n;
    struct vf_error e;
    net_open(&n, "net_slots", "a_slot_whose_hosts_end_was_changed_is_not_used_again");
    struct vf_net *slot = net_slot(&n);
    net_shell("ip link set vf-0 address 02:00:00:00:00:97");
    cr_expect_lt(vf_net_give_back(slot, NULL, &e), 0);
    cr_expect(strstr(e.msg, "host's end"), "%s", e.msg);
    net_close(&n);
}

Test(net_slots, a_learned_neighbour_is_forgotten)
{
    struct net n;
    struct vf_error e;
    net_open(&n, "net_slots", "a_learned_neighbour_is_forgotten");
    struct vf_net *slot = net_slot(&n);
    net_shell_in(slot, "ip neigh add 172.31.255.3 lladdr 02:00:00:00:00:99 dev tap0 nud stale");
    cr_assert(strstr(net_shell_in(slot, "ip neigh"), "172.31.255.3"));
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_take(n.slots, &net_plain, &slot, &e), 0);
    cr_expect_not(strstr(net_shell_in(slot, "ip neigh"), "172.31.255.3"));
    cr_assert_eq(vf_net_destroy(slot, &e), 0);
    net_close(&n);
}

Test(net_slots, a_rate_limit_is_there_and_gone_again)
{
    struct net n;
    struct vf_error e;
    struct vf_policy p = {.in_bytes_per_s = 1000000, .out_bytes_per_s = 500000};
    net_open(&n, "net_slots", "a_rate_limit_is_there_and_gone_again");
    struct vf_net *slot = net_slot(&n);
    cr_assert_eq(vf_net_set(slot, &p, &e), 0, "%s", e.msg);
    const char *text = net_shell_in(slot, "tc qdisc show dev tap0; tc qdisc show dev host0");
    cr_expect(strstr(text, "rate 8Mbit") && strstr(text, "rate 4Mbit"), "%s", text);
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_take(n.slots, &net_plain, &slot, &e), 0);
    text = net_shell_in(slot, "tc qdisc");
    cr_expect_not(strstr(text, "tbf"), "%s", text);
    cr_assert_eq(vf_net_destroy(slot, &e), 0);
    net_close(&n);
}

/* ---- many at once */

struct worker {
    pthread_t thread;
    struct vf_nets *slots;
    int number;
    struct vf_error err;
    int failed;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    for (int i = 0; i < 6 && !w->failed; i++) {
        struct vf_policy p = {.egress = VF_EGRESS_DENY,
                              .ports = {{IPPROTO_TCP, (uint16_t)(8000 + w->number), 80}},
                              .n_ports = 1};
        struct vf_net_stats stats;
        struct vf_net *slot = NULL;
        w->failed =
            vf_net_make(w->slots, &net_plain, &w->err) < 0 ||
            vf_net_take(w->slots, &net_plain, &slot, &w->err) < 0 ||
            vf_net_set(slot, &p, &w->err) < 0 || vf_net_stats(slot, &stats, &w->err) < 0 ||
            (i % 2 ? vf_net_give_back(slot, NULL, &w->err) : vf_net_destroy(slot, &w->err)) < 0;
    }
    return NULL;
}

Test(net_slots, threads_work_on_slots_of_their_own)
{
    struct worker w[4] = {0};
    struct vf_nets_counts c;
    struct net n;
    net_open(&n, "net_slots", "threads_work_on_slots_of_their_own");
    for (int i = 0; i < 4; i++) {
        w[i].slots = n.slots;
        w[i].number = i;
        cr_assert_eq(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(w[i].thread, NULL);
        cr_expect_not(w[i].failed, "%s", w[i].err.msg);
    }
    vf_nets_counts(n.slots, &c);
    cr_expect_eq(c.made, 24);
    cr_expect_eq(c.recycled, 12);
    cr_expect_eq(c.ready, 12);
    cr_expect_eq(c.taken + c.making + c.dirty, 0);
    cr_expect_eq(c.doubts, 0);
    net_close(&n);
}

/* ---- a bridge */

Test(net_slots, on_a_bridge_the_slot_has_an_address_of_its_network)
{
    static const char *const prefixes[] = {"192.168.77.0/24", "fd77::/64", NULL};
    static const char *const gateways[] = {"192.168.77.1", "fd77::1", NULL};
    struct vf_nets_config cfg = {
        .run_dir = NET_RUN, .prefixes = prefixes, .bridge = "br0", .gateways = gateways};
    struct vf_nets *s = NULL;
    struct vf_net *slot = NULL;
    struct vf_net_info info;
    struct net_packet got;
    struct vf_error e;
    char text[VF_IP_TEXT];
    net_enter("net_slots", "on_a_bridge_the_slot_has_an_address_of_its_network");
    cr_expect_lt(vf_nets_open(&cfg, &s, &e), 0);
    cr_expect(strstr(e.msg, "br0") && strstr(e.hint, "ip link add br0 type bridge"), "%s", e.msg);
    cfg.bridge = "lo";
    cr_expect_eq(vf_nets_open(&cfg, &s, &e), -EINVAL);
    cr_expect(strstr(e.msg, "not a bridge"), "%s", e.msg);

    cfg.bridge = "br0";
    net_shell("ip link add br0 type bridge; ip addr add 192.168.77.1/24 dev br0;"
              "ip addr add fd77::1/64 dev br0 nodad; ip link set br0 up");
    cr_assert_eq(vf_nets_open(&cfg, &s, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_make(s, &net_plain, &e), 0, "%s (%s)", e.msg, e.hint);
    cr_assert_eq(vf_net_take(s, &net_plain, &slot, &e), 0);
    vf_net_info(slot, &info);
    cr_expect_str_eq(vf_ip_text(&info.host4, text), "192.168.77.2");
    int own = net_udp(-1, "192.168.77.1", 0);
    net_udp_send(own, &info.host4, 80, "hello");
    cr_assert(net_guest_receive(slot, NET_TIMEOUT_MS, &got));
    cr_expect_str_eq(got.text, "hello");
    struct net_packet p = net_packet(slot, "192.168.77.1", 53, "serve me");
    net_guest_send(slot, &p);
    net_expect_refused(slot, VF_REFUSED_HOST, 1);
    p = net_packet(slot, "192.168.77.9", 80, "neighbour?");
    net_guest_send(slot, &p);
    net_expect_refused(slot, VF_REFUSED_GUESTS, 1);
    close(own);
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    vf_nets_close(s);
    cr_expect_eq(net_count_links("vf-"), 0);
    cr_expect_eq(net_count_records(), 0);
}

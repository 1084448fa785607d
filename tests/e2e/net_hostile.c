/* What a hostile guest tries beyond the plain ways (net_traffic.c), and what is left in a slot for its next user. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/e2e/net_support.h"

TestSuite(net_hostile, .timeout = 60);

static uint32_t sum(uint32_t s, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        s += (uint32_t)p[i] << (i % 2 ? 0 : 8);
    return s;
}

static void put_sum(uint8_t *at, uint32_t s)
{
    s = (s & 0xffff) + (s >> 16);
    s = ~((s & 0xffff) + (s >> 16)) & 0xffff;
    at[0] = (uint8_t)(s >> 8);
    at[1] = (uint8_t)s;
}

/* An ICMPv6 message from the guest, its body all zeros but for what is given. */
static void send_icmp6(struct vf_net *slot, const char *from, const char *to, int type,
                       const char *target)
{
    uint8_t f[14 + 40 + 24] = {0}, *ip = f + 14, *icmp = ip + 40;
    struct vf_ip a = net_ip(from), b = net_ip(to);
    memcpy(f, vf_inside.gateway_mac.b, 6);
    memcpy(f + 6, vf_inside.guest_mac.b, 6);
    memcpy(f + 12, "\x86\xdd", 2);
    ip[0] = 0x60;
    ip[5] = 24;
    ip[6] = IPPROTO_ICMPV6;
    ip[7] = 255;
    memcpy(ip + 8, a.b, 16);
    memcpy(ip + 24, b.b, 16);
    icmp[0] = (uint8_t)type;
    if (target) {
        struct vf_ip t = net_ip(target);
        memcpy(icmp + 8, t.b, 16);
    }
    put_sum(icmp + 2, sum(sum(24 + IPPROTO_ICMPV6, ip + 8, 32), icmp, 24));
    net_guest_frame(slot, f, sizeof(f));
}

/* Neighbour discovery is no connection: it would pass without being translated. */
Test(net_hostile, messages_of_neighbour_discovery_are_not_forwarded)
{
    static const int types[] = {130, 131, 132, 133, 134, 135, 136, 143};
    struct net n;
    struct vf_error e;
    net_open(&n, "net_hostile", "messages_of_neighbour_discovery_are_not_forwarded");
    net_outside(&n);
    struct vf_net *slot = net_slot(&n);
    net_shell("nft add table ip6 seen; nft add chain ip6 seen out '{ type filter hook postrouting "
              "priority 300; }'; nft add rule ip6 seen out ip6 saddr fd76:6d00::/64 counter");
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        send_icmp6(slot, "fd76:6d00::2", NET_OUT6, types[i], NET_OUT6);
        net_expect_refused(slot, VF_REFUSED_INVALID, i + 1);
    }
    const char *seen = net_shell("nft list table ip6 seen");
    cr_expect(strstr(seen, "packets 0"), "%s", seen);

    /* Nor would the host forward them, if the slot let them out. */
    net_shell_in(slot, "nft delete table inet vmfactory");
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        send_icmp6(slot, "fd76:6d00::2", NET_OUT6, types[i], NET_OUT6);
    seen = net_shell("nft list table ip6 seen");
    cr_expect(strstr(seen, "packets 0"), "%s", seen);
    net_shell("nft delete table ip6 seen");
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

/* The kernel has one table of neighbours for all namespaces, of a thousand: no guest may fill it. */
Test(net_hostile, a_guest_of_many_addresses_does_not_fill_the_neighbour_table)
{
    struct net n;
    struct vf_error e;
    struct vf_net_stats stats;
    int learned = 0;
    net_open(&n, "net_hostile", "a_guest_of_many_addresses_does_not_fill_the_neighbour_table");
    struct vf_net *slot = net_slot(&n);
    for (int i = 1; i <= 400; i++) {
        char from[32];
        snprintf(from, sizeof(from), "fe80::%x", i + 1);
        send_icmp6(slot, from, "fd76:6d00::1", 135, "fd76:6d00::1");
    }
    const char *at = net_shell_in(slot, "ip -6 neigh show dev tap0");
    for (; (at = strstr(at, "fe80::")); at++)
        learned++;
    cr_expect_gt(learned, 0, "it has a link-local address, too");
    cr_expect_lt(learned, 200, "%d neighbours", learned);
    cr_assert_eq(vf_net_stats(slot, &stats, &e), 0, "%s", e.msg);
    cr_expect_gt(stats.refused[VF_REFUSED_ADDRESS], 200u);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

Test(net_hostile, metadata_beyond_link_local_is_refused_too)
{
    static const char *const services[] = {"169.254.170.2",      "100.100.100.200",
                                           "fd00:ec2::254",      "fd20:ce::254",
                                           "64:ff9b::a9fe:a9fe", "64:ff9b::6464:64c8"};
    struct net n;
    struct vf_error e;
    net_open(&n, "net_hostile", "metadata_beyond_link_local_is_refused_too");
    struct vf_net *slot = net_slot(&n);
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
        struct net_packet p = net_packet(slot, services[i], 80, "my role?");
        net_guest_send(slot, &p);
        net_expect_refused(slot, VF_REFUSED_METADATA, i + 1);
    }
    struct net_packet p = net_packet(slot, "64:ff9b::ad2:9", 80, "are you 10.210.0.9?");
    net_guest_send(slot, &p);
    net_expect_refused(slot, VF_REFUSED_GUESTS, 1);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

/* A frame with a VLAN's tag: with a number nobody is there, with number 0 it is as one without. */
Test(net_hostile, a_tag_does_not_hide_a_wrong_address)
{
    struct net n;
    struct vf_error e;
    net_open(&n, "net_hostile", "a_tag_does_not_hide_a_wrong_address");
    net_outside(&n);
    struct vf_net *slot = net_slot(&n);
    int out = net_udp(n.outside.ns, NET_OUT4, 7000);
    for (int id = 0; id < 2; id++) {
        uint8_t f[14 + 4 + 20 + 8] = {0}, *ip = f + 18;
        struct vf_ip to = net_ip(NET_OUT4);
        memcpy(f, vf_inside.gateway_mac.b, 6);
        memcpy(f + 6, vf_inside.guest_mac.b, 6);
        memcpy(f + 12, "\x81\x00\x00\x00\x08\x00", 6);
        f[15] = (uint8_t)id;
        ip[0] = 0x45;
        ip[3] = 28;
        ip[8] = 64;
        ip[9] = IPPROTO_UDP;
        memcpy(ip + 12, "\xac\x1f\xff\x03", 4); /* not the guest's */
        memcpy(ip + 16, to.b, 4);
        put_sum(ip + 10, sum(0, ip, 20));
        ip[20] = ip[22] = 0x1b; /* ports 7000 */
        ip[21] = ip[23] = 0x58;
        ip[25] = 8;
        net_guest_frame(slot, f, sizeof(f));
        net_expect_refused(slot, VF_REFUSED_ADDRESS, (uint64_t)id + 1);
    }
    cr_expect_null(net_udp_receive(out, 0, NULL, NULL));
    close(out);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

/* ---- what is left for the next one */

/* A segment of a connection that the kernel has no memory of, as a client repeats it. */
static void send_segment(const struct vf_ip *from, const struct vf_ip *to)
{
    static const char text[] = "for A only, again";
    uint8_t pseudo[12] = {0};
    struct {
        struct tcphdr h;
        char text[sizeof(text)];
    } s = {.h = {.source = htons(4000), .dest = htons(80), .seq = 1, .ack_seq = 1, .doff = 5}};
    struct sockaddr_in a = {.sin_family = AF_INET};
    s.h.ack = s.h.psh = 1;
    s.h.window = htons(1000);
    memcpy(s.text, text, sizeof(text));
    memcpy(pseudo, from->b, 4);
    memcpy(pseudo + 4, to->b, 4);
    pseudo[9] = IPPROTO_TCP;
    pseudo[11] = (uint8_t)sizeof(s);
    put_sum((uint8_t *)&s.h.check, sum(sum(0, pseudo, sizeof(pseudo)), (uint8_t *)&s, sizeof(s)));
    int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
    cr_assert_geq(fd, 0, "%s", strerror(errno));
    memcpy(&a.sin_addr, from->b, 4);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0, "%s", strerror(errno));
    memcpy(&a.sin_addr, to->b, 4);
    cr_assert_eq(sendto(fd, &s, sizeof(s), 0, (struct sockaddr *)&a, sizeof(a)), sizeof(s));
    close(fd);
}

Test(net_hostile, what_a_client_of_the_one_before_repeats_is_not_delivered)
{
    struct net n;
    struct vf_error e;
    struct vf_net_info info;
    net_open(&n, "net_hostile", "what_a_client_of_the_one_before_repeats_is_not_delivered");
    net_outside(&n);
    struct vf_net *slot = net_slot(&n);
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_take(n.slots, &net_plain, &slot, &e), 0);
    vf_net_info(slot, &info);
    struct vf_ip host = net_ip(NET_HOST4);
    send_segment(&host, &info.host4);
    net_expect_refused(slot, VF_REFUSED_INVALID, 1);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

Test(net_hostile, what_was_opened_is_closed_by_the_next_policy)
{
    struct net n;
    struct vf_error e;
    struct vf_policy open = {.open_metadata = true, .in_bytes_per_s = 1000000}, plain = {0};
    net_open(&n, "net_hostile", "what_was_opened_is_closed_by_the_next_policy");
    struct vf_net *slot = net_slot(&n);
    cr_assert_eq(vf_net_set(slot, &open, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_set(slot, &plain, &e), 0, "%s", e.msg);
    struct net_packet p = net_packet(slot, "169.254.169.254", 80, "my role?");
    net_guest_send(slot, &p);
    net_expect_refused(slot, VF_REFUSED_METADATA, 1);
    cr_expect_not(strstr(net_shell_in(slot, "tc qdisc show dev tap0"), "tbf"));
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

/* ---- the tap */

/* 0, or the errno with which an unprivileged process in the namespace is refused. */
static int open_unprivileged(const char *netns)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI, .ifr_name = "tap0"};
        int ns = open(netns, O_RDONLY | O_CLOEXEC);
        if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
            _exit(255);
        int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC); /* it is of this namespace */
        if (tun < 0 || setuid(65534) < 0)
            _exit(255);
        _exit(ioctl(tun, TUNSETIFF, &r) < 0 ? errno : 0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

Test(net_hostile, a_tap_without_an_owner_is_roots_alone)
{
    struct net n;
    struct vf_error e;
    struct vf_net_info info;
    struct vf_net_shape shape = net_plain;
    net_open(&n, "net_hostile", "a_tap_without_an_owner_is_roots_alone");
    shape.tap.by_name = true;
    struct vf_net *slot = net_slot_of(&n, &shape);
    vf_net_info(slot, &info);
    cr_expect_eq(open_unprivileged(info.netns_path), EPERM);
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    shape.tap.owner = 65534;
    slot = net_slot_of(&n, &shape);
    vf_net_info(slot, &info);
    cr_expect_eq(open_unprivileged(info.netns_path), 0);

    /* Whoever had it may have named another. */
    struct vf_netns ns;
    cr_assert_eq(vf_netns_open(info.netns_path, 1, &ns, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_tap_attach(ns.tuns, "tap0", &shape.tap, &e), 0, "%s", e.msg);
    cr_assert_eq(ioctl(ns.tuns[0], TUNSETOWNER, 1ul), 0);
    vf_netns_close(&ns);
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_expect_eq(open_unprivileged(info.netns_path), 0);
    net_close(&n);
}

/* With several queues, a holder that switched the carrier off would share the tap with the next one. */
Test(net_hostile, a_holder_that_hides_is_found)
{
    struct net n;
    struct vf_error e;
    struct vf_net_info info;
    struct vf_netns ns;
    struct vf_net_shape shape = net_plain;
    int off = 0;
    net_open(&n, "net_hostile", "a_holder_that_hides_is_found");
    shape.tap.queues = 2;
    shape.tap.by_name = true;
    struct vf_net *slot = net_slot_of(&n, &shape);
    vf_net_info(slot, &info);
    cr_assert_eq(vf_netns_open(info.netns_path, 2, &ns, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_tap_attach(ns.tuns, info.tap, &shape.tap, &e), 0, "%s", e.msg);
    cr_assert_eq(ioctl(ns.tuns[0], TUNSETCARRIER, &off), 0, "%s", strerror(errno));
    cr_expect_lt(vf_net_give_back(slot, NULL, &e), 0);
    cr_expect(strstr(e.msg, "still has the tap open"), "%s", e.msg);
    vf_netns_close(&ns);
    net_close(&n);
}

/* ---- the host */

Test(net_hostile, a_port_on_which_the_host_listens_is_not_taken_from_it)
{
    struct net n;
    struct vf_error e;
    struct vf_policy policy = {.ports = {{IPPROTO_UDP, 8080, 80}}, .n_ports = 1};
    net_open(&n, "net_hostile", "a_port_on_which_the_host_listens_is_not_taken_from_it");
    net_outside(&n);
    struct vf_net *slot = net_slot(&n);
    for (int i = 0; i < 2; i++) {
        int service = net_udp(-1, i == 0 ? NET_HOST4 : NET_HOST6, 8080);
        cr_expect_eq(vf_net_set(slot, &policy, &e), -EBUSY);
        cr_expect_eq(e.code, VF_CONFLICT);
        cr_expect(strstr(e.msg, "network.ports[0]") && strstr(e.msg, "8080"), "%s", e.msg);
        close(service);
    }
    cr_expect_eq(vf_net_set(slot, &policy, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

static int refuse_first(const struct vf_link_info *l, void *arg, struct vf_error *err)
{
    ++*(int *)arg;
    return vf_fail(err, VF_CORRUPT, "%s is the first", l->name);
}

static int count_one(const struct vf_link_info *l, void *arg, struct vf_error *err)
{
    (void)l;
    (void)err;
    ++*(int *)arg;
    return 0;
}

/* What was asked for and not read to its end must not be in the way of the next question. */
Test(net_hostile, a_list_that_is_not_read_to_its_end)
{
    struct vf_nl nl;
    struct vf_error e;
    int n = 0;
    net_enter("net_hostile", "a_list_that_is_not_read_to_its_end");
    net_shell("for i in $(seq 75); do echo link add many$i type veth peer name more$i; done | ip "
              "-batch -");
    cr_assert_eq(vf_nl_open(&nl, NETLINK_ROUTE, &e), 0);
    cr_expect_lt(vf_links(&nl, refuse_first, &n, &e), 0);
    cr_expect_eq(n, 1);
    cr_expect(strstr(e.msg, "is the first"), "%s", e.msg);
    n = 0;
    cr_expect_eq(vf_links(&nl, count_one, &n, &e), 0, "%s", e.msg);
    cr_expect_eq(n, 151);
    vf_nl_close(&nl);
}

Test(net_hostile, prefixes_that_touch_the_networks_inside_are_refused)
{
    static const char *const bad[] = {"172.31.255.0/31", "fd76:6d00:0:0:1::/80", "224.0.0.0/16",
                                      "169.254.0.0/16",  "fe80:1::/64",          "ff05::/64"};
    struct vf_nets_config cfg = {.run_dir = NET_RUN};
    net_enter("net_hostile", "prefixes_that_touch_the_networks_inside_are_refused");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *const prefixes[] = {bad[i], NULL};
        struct vf_nets *s = NULL;
        struct vf_error e = {0};
        cfg.prefixes = prefixes;
        cr_expect_lt(vf_nets_open(&cfg, &s, &e), 0, "%s", bad[i]);
        cr_expect(strstr(e.msg, "network.prefixes[0]"), "%s: %s", bad[i], e.msg);
        vf_nets_close(s);
    }
}

/* What a VMM told the tap about the headers of packets is not what the next one finds. */
Test(net_hostile, the_order_of_headers_is_the_default_again)
{
    struct net n;
    struct vf_error e;
    struct vf_net_info info;
    struct vf_net_shape shape = net_plain;
    int little = 1;
    net_open(&n, "net_hostile", "the_order_of_headers_is_the_default_again");
    shape.tap.offloads = true;
    struct vf_net *slot = net_slot_of(&n, &shape);
    vf_net_info(slot, &info);
    cr_assert_eq(ioctl(info.tap_fds[0], TUNSETVNETLE, &little), 0, "%s", strerror(errno));
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_take(n.slots, &shape, &slot, &e), 0, "%s", e.msg);
    vf_net_info(slot, &info);
    cr_assert_eq(ioctl(info.tap_fds[0], TUNGETVNETLE, &little), 0, "%s", strerror(errno));
    cr_expect_eq(little, 0);

    /* A group could not be taken from it again. */
    cr_assert_eq(ioctl(info.tap_fds[0], TUNSETGROUP, 65534ul), 0, "%s", strerror(errno));
    cr_expect_lt(vf_net_give_back(slot, NULL, &e), 0);
    cr_expect(strstr(e.msg, "group"), "%s", e.msg);
    net_close(&n);
}

/* The host's ends let packets of 127.0.0.0/8 pass, for ports published there: but none of a slot that goes astray. */
Test(net_hostile, a_slot_never_reaches_the_hosts_loopback)
{
    struct net n;
    struct vf_error e;
    struct vf_net_info info;
    struct vf_policy p = {.opened = {{IPPROTO_UDP, 7000, 0}}, .n_opened = 1};
    net_open(&n, "net_hostile", "a_slot_never_reaches_the_hosts_loopback");
    struct vf_net *slot = net_slot(&n);
    cr_assert_eq(vf_net_set(slot, &p, &e), 0, "%s", e.msg);
    vf_net_info(slot, &info);
    int service = net_udp(-1, "0.0.0.0", 7000);
    net_shell_in(slot, "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet;"
                       "ip route add 127.0.0.9/32 via 10.210.0.0 dev host0");
    int ns = open(info.netns_path, O_RDONLY | O_CLOEXEC);
    int s = net_socket(ns, AF_INET, SOCK_DGRAM, 0);
    struct vf_ip loopback = net_ip("127.0.0.9"), gateway = net_ip("10.210.0.0");
    net_udp_send(s, &loopback, 7000, "to loopback");
    net_udp_send(s, &gateway, 7000, "to what was opened");
    cr_expect_str_eq(net_udp_receive(service, NET_TIMEOUT_MS, NULL, NULL), "to what was opened");
    close(s);
    close(ns);
    close(service);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

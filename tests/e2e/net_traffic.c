/* Packets through slots: what passes, what is dropped and counted. IPv4 and IPv6 alike. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "net/conntrack.h"
#include "tests/e2e/net_support.h"

TestSuite(net_traffic, .timeout = 60);

/* How long nothing must come where nothing may come: only a wrong pass would be missed by a shorter time, no right
 * behaviour takes this long. Each such wait follows proof by a counter that the packet was dealt with. */
#define SILENCE_MS 50

struct both {
    const char *out, *host, *inside, *range;
};
static const struct both both[] = {
    {NET_OUT4, NET_HOST4, "172.31.255.1", "10.210.0."},
    {NET_OUT6, NET_HOST6, "fd76:6d00::1", "fd76:6d01::"},
};

static int number_of(const struct vf_net *slot)
{
    struct vf_net_info info;
    vf_net_info(slot, &info);
    return info.number;
}

static void expect_from(const struct vf_ip *from, const char *expected)
{
    char text[VF_IP_TEXT];
    cr_expect_str_eq(vf_ip_text(from, text), expected);
}

/* What the guest sends arrives, under the host's address; the answer finds its way back. */
static void talk_outward(struct net *n, struct vf_net *slot, const struct both *b, int out)
{
    struct net_packet p = net_packet(slot, b->out, 7000, "hello"), got;
    struct vf_ip from;
    int port;
    (void)n;
    net_guest_send(slot, &p);
    const char *text = net_udp_receive(out, NET_TIMEOUT_MS, &from, &port);
    cr_assert_not_null(text, "%s: nothing arrived", b->out);
    cr_expect_str_eq(text, "hello");
    expect_from(&from, b->host);
    net_udp_send(out, &from, port, "and back");
    cr_assert(net_guest_receive(slot, NET_TIMEOUT_MS, &got), "%s: no answer", b->out);
    cr_expect_str_eq(got.text, "and back");
    cr_expect(vf_ip_same(&got.from, &p.to));
    cr_expect_eq(got.to_port, p.from_port);
    cr_expect_arr_eq(got.from_mac.b, vf_inside.gateway_mac.b, 6);
}

Test(net_traffic, the_guest_goes_out_under_the_hosts_address)
{
    struct net n;
    net_open(&n, "net_traffic", "the_guest_goes_out_under_the_hosts_address");
    net_outside(&n);
    struct vf_net *slot = net_slot(&n);
    for (int i = 0; i < 2; i++) {
        int out = net_udp(n.outside.ns, both[i].out, 7000);
        talk_outward(&n, slot, &both[i], out);
        close(out);
    }
    struct vf_net_stats stats;
    struct vf_error e;
    cr_assert_eq(vf_net_stats(slot, &stats, &e), 0, "%s", e.msg);
    cr_expect_eq(stats.out_packets, 2);
    cr_expect_geq(stats.in_packets, 2); /* the kernel announces itself to multicast groups, too */
    cr_expect_eq(stats.out_bytes, 14 + 20 + 8 + 5 + 14 + 40 + 8 + 5);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

/* Eight with one address inside: the host reaches each under its own, and only that one. */
Test(net_traffic, the_host_reaches_each_clone_under_an_address_of_its_own)
{
    enum { N = 8 };
    struct net n;
    struct vf_net *slots[N];
    struct vf_error e;
    net_open(&n, "net_traffic", "the_host_reaches_each_clone_under_an_address_of_its_own");
    for (int i = 0; i < N; i++)
        slots[i] = net_slot(&n);
    for (int i = 0; i < N; i++) {
        struct vf_net_info info;
        struct net_packet got;
        vf_net_info(slots[i], &info);
        for (int f = 0; f < 2; f++) {
            const struct vf_ip *to = f == 0 ? &info.host4 : &info.host6;
            int s = net_udp(-1, f == 0 ? "0.0.0.0" : "::", 0);
            char text[32];
            snprintf(text, sizeof(text), "you are %d", i);
            net_udp_send(s, to, 80, text);
            cr_assert(net_guest_receive(slots[i], NET_TIMEOUT_MS, &got));
            cr_expect_str_eq(got.text, text);
            cr_expect(vf_ip_same(&got.to, f == 0 ? &vf_inside.guest4 : &vf_inside.guest6));
            struct net_packet answer = net_packet(slots[i], "10.0.0.1", got.from_port, "I am");
            answer.from = got.to;
            answer.to = got.from;
            answer.from_port = 80;
            net_guest_send(slots[i], &answer);
            struct vf_ip from;
            const char *back = net_udp_receive(s, NET_TIMEOUT_MS, &from, NULL);
            cr_assert_not_null(back);
            cr_expect_str_eq(back, "I am");
            cr_expect(vf_ip_same(&from, to));
            close(s);
        }
    }
    for (int i = 0; i < N; i++) {
        struct net_packet got;
        cr_expect_not(net_guest_receive(slots[i], 0, &got), "%d got what was not its own", i);
        cr_assert_eq(vf_net_destroy(slots[i], &e), 0, "%s", e.msg);
    }
    net_close(&n);
}

Test(net_traffic, a_port_of_the_host_leads_to_the_guest)
{
    struct net n;
    struct vf_error e;
    struct vf_policy policy = {.ports = {{IPPROTO_UDP, 8080, 80}}, .n_ports = 1};
    net_open(&n, "net_traffic", "a_port_of_the_host_leads_to_the_guest");
    net_outside(&n);
    struct vf_net *slot = net_slot(&n), *other = net_slot(&n);
    cr_assert_eq(vf_net_set(slot, &policy, &e), 0, "%s", e.msg);
    for (int i = 0; i < 2; i++) {
        struct net_packet got;
        struct vf_ip host = net_ip(both[i].host), from;
        int from_outside = net_udp(n.outside.ns, both[i].out, 0);
        int from_host = net_udp(-1, both[i].host, 0);
        int sockets[] = {from_outside, from_host};
        for (int k = 0; k < 2; k++) {
            net_udp_send(sockets[k], &host, 8080, "knock");
            cr_assert(net_guest_receive(slot, NET_TIMEOUT_MS, &got), "way %d of %s", k,
                      both[i].out);
            cr_expect_str_eq(got.text, "knock");
            cr_expect_eq(got.to_port, 80);
            struct net_packet answer = net_packet(slot, both[i].out, got.from_port, "come in");
            answer.to = got.from;
            answer.from_port = 80;
            net_guest_send(slot, &answer);
            int port;
            const char *text = net_udp_receive(sockets[k], NET_TIMEOUT_MS, &from, &port);
            cr_assert_not_null(text);
            cr_expect_str_eq(text, "come in");
            expect_from(&from, both[i].host);
            cr_expect_eq(port, 8080);
            close(sockets[k]);
        }
    }
    cr_expect_eq(vf_net_set(other, &policy, &e), -EBUSY, "the port is taken");
    cr_expect_eq(e.code, VF_CONFLICT);
    cr_expect(strstr(e.msg, "port"), "%s", e.msg);

    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_expect_eq(vf_net_set(other, &policy, &e), 0, "free again: %s", e.msg);
    cr_assert_eq(vf_net_destroy(other, &e), 0);
    net_close(&n);
}

/* ---- what is refused */

Test(net_traffic, a_spoofed_address_or_mac_does_not_leave_the_tap)
{
    struct net n;
    struct vf_error e;
    net_open(&n, "net_traffic", "a_spoofed_address_or_mac_does_not_leave_the_tap");
    net_outside(&n);
    struct vf_net *slot = net_slot(&n);
    uint64_t macs = 0, addresses = 0;
    for (int i = 0; i < 2; i++) {
        int out = net_udp(n.outside.ns, both[i].out, 7000);
        struct net_packet p = net_packet(slot, both[i].out, 7000, "bad");
        p.from_mac.b[5] ^= 1;
        net_guest_send(slot, &p);
        net_expect_refused(slot, VF_REFUSED_MAC, ++macs);
        p = net_packet(slot, both[i].out, 7000, "bad");
        p.from = net_ip(i == 0 ? "172.31.255.3" : "fd76:6d00::3");
        net_guest_send(slot, &p);
        net_expect_refused(slot, VF_REFUSED_ADDRESS, ++addresses);
        p.from = net_ip(i == 0 ? "10.210.0.1" : "fd76:6d01::1"); /* even the slot's own */
        net_guest_send(slot, &p);
        net_expect_refused(slot, VF_REFUSED_ADDRESS, ++addresses);
        cr_expect_null(net_udp_receive(out, SILENCE_MS, NULL, NULL));
        talk_outward(&n, slot, &both[i], out);
        close(out);
    }
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

Test(net_traffic, arp_answers_only_for_the_guest_itself)
{
    static const uint8_t arp[42] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,   0x76, 0x6d, 0, 0,
                                    2,    0x08, 0x06, 0,    1,    0x08, 0,   6,    4,    0, 1,
                                    2,    0x76, 0x6d, 0,    0,    2,    172, 31,   255,  2, 0,
                                    0,    0,    0,    0,    0,    172,  31,  255,  1};
    struct net n;
    struct vf_error e;
    uint8_t f[42];
    net_open(&n, "net_traffic", "arp_answers_only_for_the_guest_itself");
    struct vf_net *slot = net_slot(&n);
    struct vf_net_info info;
    vf_net_info(slot, &info);

    net_guest_frame(slot, arp, sizeof(arp));
    uint8_t answer[2000] = {0};
    int64_t deadline_us = vf_deadline_after_ms(NET_TIMEOUT_MS);
    while (!(answer[12] == 0x08 && answer[13] == 0x06) && vf_deadline_left_ms(deadline_us) > 0)
        (void)!read(info.tap_fds[0], answer, sizeof(answer));
    cr_assert_eq(answer[21], 2, "no reply");
    cr_expect_arr_eq(answer + 22, vf_inside.gateway_mac.b, 6);

    memcpy(f, arp, sizeof(f));
    f[31] = 3; /* another address */
    net_guest_frame(slot, f, sizeof(f));
    net_expect_refused(slot, VF_REFUSED_ARP, 1);
    memcpy(f, arp, sizeof(f));
    f[27] = 9; /* another MAC in the message */
    net_guest_frame(slot, f, sizeof(f));
    net_expect_refused(slot, VF_REFUSED_ARP, 2);
    f[12] = 0x81; /* a VLAN of its own */
    f[13] = 0x00;
    net_guest_frame(slot, f, sizeof(f));
    net_expect_refused(slot, VF_REFUSED_ADDRESS, 1);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

Test(net_traffic, guests_reach_neither_each_other_nor_the_host_nor_metadata)
{
    struct net n;
    struct vf_error e;
    struct net_packet p, got;
    net_open(&n, "net_traffic", "guests_reach_neither_each_other_nor_the_host_nor_metadata");
    net_outside(&n);
    struct vf_net *a = net_slot(&n), *b = net_slot(&n);
    struct vf_net_info info;
    vf_net_info(b, &info);
    uint64_t guests = 0, host = 0, metadata = 0, gateway = 0;
    for (int i = 0; i < 2; i++) {
        int service = net_udp(-1, i == 0 ? "0.0.0.0" : "::", 53);
        char text[VF_IP_TEXT];
        p = net_packet(a, vf_ip_text(i == 0 ? &info.host4 : &info.host6, text), 80, "psst");
        net_guest_send(a, &p);
        net_expect_refused(a, VF_REFUSED_GUESTS, ++guests);
        /* The host by its outer address, by the slot's gateway, and as the guest's own gateway. */
        p = net_packet(a, both[i].host, 53, "serve me");
        net_guest_send(a, &p);
        net_expect_refused(a, VF_REFUSED_HOST, ++host);
        p = net_packet(a, i == 0 ? "10.210.0.0" : "fd76:6d01::", 53, "serve me");
        net_guest_send(a, &p);
        net_expect_refused(a, VF_REFUSED_HOST, ++host);
        p = net_packet(a, both[i].inside, 53, "serve me");
        net_guest_send(a, &p);
        net_expect_refused(a, VF_REFUSED_GATEWAY, ++gateway);
        p = net_packet(a, i == 0 ? "169.254.169.254" : "fd00:ec2::254", 80, "my role?");
        net_guest_send(a, &p);
        net_expect_refused(a, VF_REFUSED_METADATA, ++metadata);
        cr_expect_null(net_udp_receive(service, SILENCE_MS, NULL, NULL));
        close(service);
    }
    cr_expect_not(net_guest_receive(b, 0, &got));
    cr_assert_eq(vf_net_destroy(a, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_destroy(b, &e), 0, "%s", e.msg);
    net_close(&n);
}

/* Each is asked for by its name: a slot's count is its own, and one that the host's table has lost is missed. */
Test(net_traffic, what_the_host_refuses_is_counted_for_each_slot)
{
    enum { N = 12 };
    struct net n;
    struct vf_error e;
    struct vf_net *slots[N];
    struct vf_net_stats stats;
    net_open(&n, "net_traffic", "what_the_host_refuses_is_counted_for_each_slot");
    for (int i = 0; i < N; i++)
        slots[i] = net_slot(&n);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < i; k++) {
            char host[VF_IP_TEXT]; /* its end of the slot's way out */
            snprintf(host, sizeof(host), "10.210.0.%d", 2 * number_of(slots[i]));
            struct net_packet p = net_packet(slots[i], host, 53, "serve me");
            net_guest_send(slots[i], &p);
        }
    for (int i = 0; i < N; i++) {
        net_expect_refused(slots[i], VF_REFUSED_HOST, (uint64_t)i);
        cr_assert_eq(vf_net_stats(slots[i], &stats, &e), 0, "%s", e.msg);
        cr_expect_eq(stats.refused[VF_REFUSED_HOST], (uint64_t)i, "slot %d", i);
    }
    net_shell("nft delete element inet vmfactory slots '{ \"vf-%d\" }'", number_of(slots[3]));
    cr_expect_eq(vf_net_stats(slots[3], &stats, &e), -ENOENT);
    cr_expect(strstr(e.msg, "is not among the slots"), "%s", e.msg);
    cr_expect_eq(vf_net_stats(slots[4], &stats, &e), 0, "%s", e.msg);
    for (int i = 0; i < N; i++)
        vf_net_destroy(slots[i], NULL);
    net_close(&n);
}

Test(net_traffic, a_service_of_the_host_is_reached_once_it_is_opened)
{
    struct net n;
    struct vf_error e;
    struct vf_policy policy = {.opened = {{IPPROTO_UDP, 53, 0}}, .n_opened = 1};
    net_open(&n, "net_traffic", "a_service_of_the_host_is_reached_once_it_is_opened");
    struct vf_net *slot = net_slot(&n), *other = net_slot(&n);
    cr_assert_eq(vf_net_set(slot, &policy, &e), 0, "%s", e.msg);
    int service = net_udp(-1, "0.0.0.0", 53), closed = net_udp(-1, "0.0.0.0", 54);
    struct net_packet p = net_packet(slot, "10.210.0.0", 53, "name?"), got;
    struct vf_ip from;
    int port;
    net_guest_send(slot, &p);
    cr_assert_not_null(net_udp_receive(service, NET_TIMEOUT_MS, &from, &port));
    net_udp_send(service, &from, port, "here");
    cr_assert(net_guest_receive(slot, NET_TIMEOUT_MS, &got));
    cr_expect_str_eq(got.text, "here");
    p.to_port = 54;
    net_guest_send(slot, &p);
    net_expect_refused(slot, VF_REFUSED_HOST, 1);
    /* Opened for one is not opened for all. */
    p = net_packet(other, "10.210.0.2", 53, "name?");
    net_guest_send(other, &p);
    net_expect_refused(other, VF_REFUSED_HOST, 1);
    cr_expect_null(net_udp_receive(closed, SILENCE_MS, NULL, NULL));
    cr_expect_null(net_udp_receive(service, 0, NULL, NULL));
    close(service);
    close(closed);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_destroy(other, &e), 0, "%s", e.msg);
    net_close(&n);
}

/* ---- policies */

Test(net_traffic, egress_is_allowed_denied_or_by_list)
{
    struct net n;
    struct vf_error e;
    struct vf_policy deny = {.egress = VF_EGRESS_DENY},
                     list = {.egress = VF_EGRESS_LIST, .n_rules = 2};
    net_open(&n, "net_traffic", "egress_is_allowed_denied_or_by_list");
    net_outside(&n);
    cr_assert_eq(vf_cidr_parse("192.0.2.0/30", "t", &list.rules[0].to, &e), 0);
    cr_assert_eq(vf_cidr_parse("2001:db8::/64", "t", &list.rules[1].to, &e), 0);
    for (int i = 0; i < 2; i++) {
        list.rules[i].protocol = IPPROTO_UDP;
        list.rules[i].first_port = 7000;
        list.rules[i].last_port = 7010;
    }
    struct vf_net *slot = net_slot(&n);
    for (int i = 0; i < 2; i++) {
        int out = net_udp(n.outside.ns, both[i].out, 7000);
        int beyond = net_udp(n.outside.ns, both[i].out, 7011);
        struct net_packet p = net_packet(slot, both[i].out, 7000, "hello");

        cr_assert_eq(vf_net_set(slot, &deny, &e), 0, "%s", e.msg);
        net_guest_send(slot, &p);
        net_expect_refused(slot, VF_REFUSED_POLICY, (uint64_t)(2 * i + 1));
        cr_assert_eq(vf_net_set(slot, &list, &e), 0, "%s", e.msg);
        p.to_port = 7011;
        net_guest_send(slot, &p);
        net_expect_refused(slot, VF_REFUSED_POLICY, (uint64_t)(2 * i + 2));
        cr_expect_null(net_udp_receive(out, SILENCE_MS, NULL, NULL));
        cr_expect_null(net_udp_receive(beyond, 0, NULL, NULL));
        talk_outward(&n, slot, &both[i], out);
        close(out);
        close(beyond);
    }
    /* The next one has none of it. */
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_take(n.slots, &net_plain, &slot, &e), 0);
    int beyond = net_udp(n.outside.ns, NET_OUT4, 7011);
    struct net_packet p = net_packet(slot, NET_OUT4, 7011, "hello");
    net_guest_send(slot, &p);
    cr_expect_not_null(net_udp_receive(beyond, NET_TIMEOUT_MS, NULL, NULL));
    close(beyond);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

Test(net_traffic, metadata_can_be_opened)
{
    struct net n;
    struct vf_error e;
    struct vf_policy policy = {.open_metadata = true};
    net_open(&n, "net_traffic", "metadata_can_be_opened");
    net_outside(&n);
    net_shell("nsenter --net=/proc/%d/fd/%d ip addr add 169.254.169.254/32 dev lo;"
              "ip route add 169.254.169.254 via " NET_OUT4,
              getpid(), n.outside.ns);
    struct vf_net *slot = net_slot(&n);
    int out = net_udp(n.outside.ns, "169.254.169.254", 80);
    struct net_packet p = net_packet(slot, "169.254.169.254", 80, "my role?");
    cr_assert_eq(vf_net_set(slot, &policy, &e), 0, "%s", e.msg);
    net_guest_send(slot, &p);
    cr_expect_not_null(net_udp_receive(out, NET_TIMEOUT_MS, NULL, NULL));
    close(out);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

/* ---- what the next one sees */

Test(net_traffic, the_next_user_sees_nothing_of_the_connections_before)
{
    struct net n;
    struct vf_error e;
    struct vf_net_stats stats;
    struct net_packet got;
    net_open(&n, "net_traffic", "the_next_user_sees_nothing_of_the_connections_before");
    net_outside(&n);
    struct vf_net *slot = net_slot(&n);
    struct vf_ip from[2];
    int out[2], port[2];
    for (int i = 0; i < 2; i++) {
        struct net_packet p = net_packet(slot, both[i].out, 7000, "A's secret question");
        out[i] = net_udp(n.outside.ns, both[i].out, 7000);
        net_guest_send(slot, &p);
        cr_assert_not_null(net_udp_receive(out[i], NET_TIMEOUT_MS, &from[i], &port[i]));
    }
    struct net_packet bad = net_packet(slot, "169.254.169.254", 80, "my role?");
    net_guest_send(slot, &bad);
    net_expect_refused(slot, VF_REFUSED_METADATA, 1);

    cr_assert_eq(vf_net_give_back(slot, &stats, &e), 0, "%s", e.msg);
    cr_expect_eq(stats.out_packets, 3);
    cr_expect_eq(stats.refused[VF_REFUSED_METADATA], 1);
    struct vf_net *same = NULL;
    cr_assert_eq(vf_net_take(n.slots, &net_plain, &same, &e), 0);
    cr_expect_eq(same, slot, "the test wants the same one");
    cr_assert_eq(vf_net_stats(same, &stats, &e), 0, "%s", e.msg);
    cr_expect_eq(stats.out_packets, 0);
    cr_expect_eq(stats.refused[VF_REFUSED_METADATA], 0);
    for (int i = 0; i < 2; i++) {
        /* The answer comes late, to the port the host used for A. */
        net_udp_send(out[i], &from[i], port[i], "A's secret answer");
        talk_outward(&n, same, &both[i], out[i]); /* and all that was on its way has passed */
        close(out[i]);
    }
    cr_expect_not(net_guest_receive(same, 0, &got), "it got: %s", got.text);
    cr_assert_eq(vf_net_destroy(same, &e), 0, "%s", e.msg);
    net_close(&n);
}

/* In the host, too, and of nobody else. */
Test(net_traffic, its_connections_are_forgotten_and_no_others)
{
    struct net n;
    struct vf_error e;
    struct vf_net_info info;
    struct vf_nl nl;
    struct vf_policy policy = {.ports = {{IPPROTO_UDP, 8080, 80}}, .n_ports = 1};
    uint32_t before, after;
    net_open(&n, "net_traffic", "its_connections_are_forgotten_and_no_others");
    net_outside(&n);
    struct vf_net *a = net_slot(&n), *b = net_slot(&n);
    cr_assert_eq(vf_net_set(a, &policy, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_nl_open(&nl, NETLINK_NETFILTER, &e), 0);
    vf_net_info(a, &info);
    for (int i = 0; i < 2; i++) {
        int out = net_udp(n.outside.ns, both[i].out, 7000), in = net_udp(-1, both[i].host, 0);
        struct vf_ip host = net_ip(both[i].host);
        struct net_packet got;
        talk_outward(&n, a, &both[i], out);
        talk_outward(&n, b, &both[i], out);
        net_udp_send(in, i == 0 ? &info.host4 : &info.host6, 80, "by its address");
        cr_assert(net_guest_receive(a, NET_TIMEOUT_MS, &got));
        net_udp_send(out, &host, 8080, "by the host's port");
        cr_assert(net_guest_receive(a, NET_TIMEOUT_MS, &got));
        close(out);
        close(in);
    }
    cr_assert_eq(vf_conntrack_count(&nl, &before, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_give_back(a, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_conntrack_count(&nl, &after, &e), 0, "%s", e.msg);
    cr_expect_eq(before, 8);
    cr_expect_eq(after, 2, "of %u connections %u are left", before, after);
    vf_nl_close(&nl);
    cr_assert_eq(vf_net_destroy(b, &e), 0, "%s", e.msg);
    net_close(&n);
}

Test(net_traffic, what_waits_in_the_tap_is_not_the_next_ones)
{
    struct net n;
    struct vf_error e;
    struct vf_net_info info;
    struct net_packet got;
    net_open(&n, "net_traffic", "what_waits_in_the_tap_is_not_the_next_ones");
    struct vf_net *slot = net_slot(&n);
    vf_net_info(slot, &info);
    int s = net_udp(-1, "0.0.0.0", 0);
    net_udp_send(s, &info.host4, 80, "for A only");
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_take(n.slots, &net_plain, &slot, &e), 0);
    vf_net_info(slot, &info);
    net_udp_send(s, &info.host4, 80, "for B");
    cr_assert(net_guest_receive(slot, NET_TIMEOUT_MS, &got));
    cr_expect_str_eq(got.text, "for B");
    close(s);
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

Test(net_traffic, big_frames_pass_whole)
{
    struct net n;
    struct vf_error e;
    struct vf_net_shape shape = net_plain;
    net_open(&n, "net_traffic", "big_frames_pass_whole");
    net_outside(&n);
    shape.mtu = 9000;
    struct vf_net *slot = net_slot_of(&n, &shape);
    for (int i = 0; i < 2; i++) {
        int out = net_udp(n.outside.ns, both[i].out, 7000);
        struct net_packet p = net_packet(slot, both[i].out, 7000, "");
        p.len = 9000 - 8 - (i == 0 ? 20 : 40);
        memset(p.text, 'x', (size_t)p.len);
        net_guest_send(slot, &p);
        const char *text = net_udp_receive(out, NET_TIMEOUT_MS, NULL, NULL);
        cr_assert_not_null(text);
        cr_expect_eq(strlen(text), (size_t)p.len);
        close(out);
    }
    cr_assert_eq(vf_net_destroy(slot, &e), 0, "%s", e.msg);
    net_close(&n);
}

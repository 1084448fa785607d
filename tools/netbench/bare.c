/* The same slot without us: by system calls with messages built beforehand, and by ip and nft. See netbench.h. */
#include <errno.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "tools/netbench/netbench.h"

static const char *const prefixes[] = {"10.220.0.0/16", "fd76:7777::/64", NULL};

/* What a slot's batches hold, built before the clock runs. */
struct built {
    struct vf_nl_batch pair, inside, rules, host;
};

static void build(struct built *m, const struct vf_address_pool *pool, int number, const char *name,
                  int peer_ns)
{
    struct vf_mac mac = {{2, 0, 0, 9, (uint8_t)(number >> 8), (uint8_t)number}}, peer = mac;
    peer.b[0] = 6;
    struct vf_veth v = {.name = name,
                        .mac = mac,
                        .peer_name = VF_NET_UPLINK,
                        .peer_mac = peer,
                        .peer_index = VF_NET_UPLINK_INDEX,
                        .peer_ns = peer_ns,
                        .mtu = VF_MTU_DEFAULT};
    struct vf_link_change up = {.name = name}, uplink = {.index = VF_NET_UPLINK_INDEX},
                          tap = {.index = VF_NET_TAP_INDEX,
                                 .mac = &vf_inside.gateway_mac,
                                 .mtu = VF_MTU_DEFAULT};
    struct vf_net_rules rules = {.pool = pool, .number = number, .guest_mac = vf_inside.guest_mac};
    vf_link_add_veth(&m->pair, &v);
    vf_link_up(&m->pair, &up);
    vf_link_up(&m->inside, &tap);
    vf_link_address(&m->inside, VF_NET_TAP_INDEX, &vf_inside.gateway4, vf_inside.bits4);
    vf_link_address(&m->inside, VF_NET_TAP_INDEX, &vf_inside.gateway6, vf_inside.bits6);
    vf_link_address(&m->inside, VF_NET_TAP_INDEX, &vf_inside.router6, 64);
    vf_link_neighbour(&m->inside, VF_NET_TAP_INDEX, &vf_inside.guest4, &vf_inside.guest_mac);
    vf_link_neighbour(&m->inside, VF_NET_TAP_INDEX, &vf_inside.guest6, &vf_inside.guest_mac);
    vf_link_up(&m->inside, &uplink);
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        vf_addresses_pair(pool, number, i == 0 ? AF_INET : AF_INET6, &pair);
        vf_link_address(&m->inside, VF_NET_UPLINK_INDEX, &pair.slot, pair.bits);
        vf_link_neighbour(&m->inside, VF_NET_UPLINK_INDEX, &pair.host, &mac);
        vf_link_default_route(&m->inside, VF_NET_UPLINK_INDEX, &pair.host);
    }
    vf_rules_slot(&m->rules, &rules);
}

/* The index is known only once the pair is there. */
static void build_host(struct built *m, const struct vf_address_pool *pool, int number,
                       const char *name)
{
    struct vf_mac peer = {{6, 0, 0, 9, (uint8_t)(number >> 8), (uint8_t)number}};
    int index = (int)if_nametoindex(name);
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        vf_addresses_pair(pool, number, i == 0 ? AF_INET : AF_INET6, &pair);
        vf_link_address(&m->host, index, &pair.host, pair.bits);
        vf_link_neighbour(&m->host, index, &pair.slot, &peer);
    }
}

void bare_make(struct bare *b, int number)
{
    static struct vf_address_pool pool;
    static struct vf_nl host = {.fd = -1};
    struct built m = {0};
    struct vf_netns ns, peer;
    struct vf_nl route, netfilter;
    struct vf_error e;
    char name[VF_LINK_NAME];
    int64_t busy_us = 0, start_us;

    snprintf(name, sizeof(name), "b-%d", number);
    if (host.fd < 0) {
        must(vf_addresses_init(&pool, prefixes, NULL, &e), "bare", &e);
        must(vf_nl_open(&host, NETLINK_ROUTE, &e), "bare", &e);
    }
    start_us = vf_now_us();
    must(vf_netns_create(1, &ns, &e), "bare", &e);
    must(vf_netns_keep(VF_NETNS_DIR, name, ns.ns, &e), "bare", &e);
    sample(&b->namespace, start_us);
    busy_us += vf_now_us() - start_us;

    build(&m, &pool, number, name, ns.ns);
    vf_nl_adopt(&route, ns.route);
    vf_nl_adopt(&netfilter, ns.netfilter);
    start_us = vf_now_us();
    must(vf_tap_make(ns.tuns, VF_NET_TAP, VF_NET_TAP_INDEX, &vf_net_shape_default.tap, &e), "bare",
         &e);
    sample(&b->tap, start_us);
    busy_us += vf_now_us() - start_us;

    start_us = vf_now_us();
    must(vf_nl_send(&host, &m.pair, &e), "bare", &e);
    sample(&b->veth, start_us);
    busy_us += vf_now_us() - start_us;

    build_host(&m, &pool, number, name);
    start_us = vf_now_us();
    must(vf_nl_send(&host, &m.host, &e), "bare", &e);
    must(vf_nl_send(&route, &m.inside, &e), "bare", &e);
    must(vf_nl_send(&netfilter, &m.rules, &e), "bare", &e);
    busy_us += vf_now_us() - start_us;
    sample(&b->all, vf_now_us() - busy_us);

    vf_nl_batch_free(&m.pair);
    vf_nl_batch_free(&m.inside);
    vf_nl_batch_free(&m.rules);
    vf_nl_batch_free(&m.host);
    peer = ns; /* its name keeps the namespace */
    vf_netns_close(&peer);
}

/* Like a careful script would: one command a step, the rules in one file. */
static const char script[] =
    "set -e; n=c-%1$d; r='ip netns exec '$n; ip netns add $n;"
    "$r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1;"
    "ip -n $n tuntap add tap0 mode tap vnet_hdr;"
    "ip -n $n link set tap0 address 02:76:6d:00:00:01;"
    "ip -n $n addr add 172.31.255.1/30 dev tap0; ip -n $n addr add fd76:6d00::1/64 dev tap0 nodad;"
    "ip -n $n link set tap0 up;"
    "ip -n $n neigh add 172.31.255.2 lladdr 02:76:6d:00:00:02 dev tap0;"
    "ip -n $n neigh add fd76:6d00::2 lladdr 02:76:6d:00:00:02 dev tap0;"
    "ip link add $n type veth peer name host0 netns $n;"
    "ip addr add 10.230.%2$d.%3$d/31 dev $n; ip addr add fd76:8888::%4$x/127 dev $n nodad;"
    "ip link set $n up;"
    "ip -n $n addr add 10.230.%2$d.%5$d/31 dev host0;"
    "ip -n $n addr add fd76:8888::%6$x/127 dev host0 nodad;"
    "ip -n $n link set host0 up; ip -n $n route add default via 10.230.%2$d.%3$d;"
    "ip -n $n -6 route add default via fd76:8888::%4$x;"
    "$r nft -f /run/netbench.nft";

void by_commands(struct samples *s, int number)
{
    char command[4096];
    int low = 2 * number;
    snprintf(command, sizeof(command), script, number, low / 256, low % 256, low, low % 256 + 1,
             low + 1);
    int64_t start_us = vf_now_us();
    int status = system(command);
    sample(s, start_us);
    if (status != 0) {
        fprintf(stderr, "vmfactory-netbench: ip and nft: status %d\n", status);
        exit(1);
    }
}

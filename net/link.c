/* Messages that change interfaces. See link.h. */
#include "net/link.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <netlink/addr.h>
#include <netlink/msg.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/inet.h>
#include <netlink/route/link/inet6.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/qdisc.h>
#include <netlink/route/qdisc/tbf.h>
#include <netlink/route/route.h>
#include <netlink/route/tc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct nl_addr *nl_ip(const struct vf_ip *ip, int bits)
{
    struct nl_addr *a = nl_addr_build(ip->family, ip->b, (size_t)vf_ip_len(ip));
    if (a)
        nl_addr_set_prefixlen(a, bits);
    return a;
}

static struct nl_addr *nl_mac(const struct vf_mac *m)
{
    return nl_addr_build(AF_LLC, m->b, sizeof(m->b));
}

static void name_and_mac(struct rtnl_link *l, const char *name, const struct vf_mac *mac)
{
    struct nl_addr *a = mac ? nl_mac(mac) : NULL;
    if (name)
        rtnl_link_set_name(l, name);
    if (a)
        rtnl_link_set_addr(l, a);
    nl_addr_put(a);
}

void vf_link_add_veth(struct vf_nl_batch *b, const struct vf_veth *v)
{
    struct rtnl_link *l = rtnl_link_veth_alloc();
    struct nl_msg *msg = NULL;
    if (l) {
        struct rtnl_link *peer = rtnl_link_veth_get_peer(l);
        name_and_mac(l, v->name, &v->mac);
        name_and_mac(peer, v->peer_name, &v->peer_mac);
        if (v->mtu) {
            rtnl_link_set_mtu(l, (unsigned)v->mtu);
            rtnl_link_set_mtu(peer, (unsigned)v->mtu);
        }
        if (v->peer_index)
            rtnl_link_set_ifindex(peer, v->peer_index);
        rtnl_link_set_ns_fd(peer, v->peer_ns);
        rtnl_link_build_add_request(l, NLM_F_CREATE | NLM_F_EXCL, &msg);
        rtnl_link_put(peer);
        rtnl_link_put(l);
    }
    vf_nl_add(b, msg, "make a veth pair");
}

/* One change of c's interface: everything but its flags, or nothing but them. */
static void change(struct vf_nl_batch *b, const struct vf_link_change *c, bool up)
{
    struct rtnl_link *which = rtnl_link_alloc(), *l = rtnl_link_alloc();
    struct nl_msg *msg = NULL;
    if (which && l) {
        if (c->index)
            rtnl_link_set_ifindex(which, c->index);
        name_and_mac(l, c->index ? NULL : c->name, up ? NULL : c->mac);
        if (c->mtu && !up)
            rtnl_link_set_mtu(l, (unsigned)c->mtu);
        if (c->master && !up)
            rtnl_link_set_master(l, c->master);
        if (up)
            rtnl_link_set_flags(l, IFF_UP);
        else
            rtnl_link_inet6_set_addr_gen_mode(l, IN6_ADDR_GEN_MODE_NONE);
        if (c->route_localnet && !up)
            rtnl_link_inet_set_conf(l, IPV4_DEVCONF_ROUTE_LOCALNET, 1);
        rtnl_link_build_change_request(which, l, 0, &msg);
    }
    rtnl_link_put(which);
    rtnl_link_put(l);
    vf_nl_add(b, msg, "bring an interface up");
}

/* In two messages: of one, the kernel would set the flags before the mode, and make an address yet. */
void vf_link_up(struct vf_nl_batch *b, const struct vf_link_change *c)
{
    change(b, c, false);
    change(b, c, true);
}

void vf_link_delete(struct vf_nl_batch *b, const char *name)
{
    struct rtnl_link *l = rtnl_link_alloc();
    struct nl_msg *msg = NULL;
    if (l) {
        rtnl_link_set_name(l, name);
        rtnl_link_build_delete_request(l, &msg);
        rtnl_link_put(l);
    }
    vf_nl_add(b, msg, "delete an interface");
}

void vf_link_address(struct vf_nl_batch *b, int index, const struct vf_ip *ip, int bits)
{
    struct rtnl_addr *a = rtnl_addr_alloc();
    struct nl_addr *local = nl_ip(ip, bits);
    struct nl_msg *msg = NULL;
    if (a && local) {
        rtnl_addr_set_ifindex(a, index);
        rtnl_addr_set_local(a, local);
        if (ip->family == AF_INET6)
            rtnl_addr_set_flags(a, IFA_F_NODAD); /* nobody else is there to have it */
        rtnl_addr_build_add_request(a, NLM_F_CREATE | NLM_F_EXCL, &msg);
    }
    nl_addr_put(local);
    rtnl_addr_put(a);
    vf_nl_add(b, msg, "add an address");
}

void vf_link_default_route(struct vf_nl_batch *b, int index, const struct vf_ip *gateway)
{
    struct vf_ip any = {.family = gateway->family};
    struct rtnl_route *r = rtnl_route_alloc();
    struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
    struct nl_addr *to = nl_ip(&any, 0), *via = nl_ip(gateway, 8 * vf_ip_len(gateway));
    struct nl_msg *msg = NULL;
    if (r && hop && to && via) {
        rtnl_route_set_family(r, (uint8_t)gateway->family);
        rtnl_route_set_dst(r, to);
        rtnl_route_nh_set_ifindex(hop, index);
        rtnl_route_nh_set_gateway(hop, via);
        rtnl_route_add_nexthop(r, hop);
        hop = NULL;
        rtnl_route_build_add_request(r, NLM_F_CREATE | NLM_F_EXCL, &msg);
    }
    nl_addr_put(to);
    nl_addr_put(via);
    if (hop)
        rtnl_route_nh_free(hop);
    rtnl_route_put(r);
    vf_nl_add(b, msg, "add the default route");
}

void vf_link_neighbour(struct vf_nl_batch *b, int index, const struct vf_ip *ip,
                       const struct vf_mac *mac)
{
    struct rtnl_neigh *n = rtnl_neigh_alloc();
    struct nl_addr *dst = nl_ip(ip, 8 * vf_ip_len(ip)), *ll = nl_mac(mac);
    struct nl_msg *msg = NULL;
    if (n && dst && ll) {
        rtnl_neigh_set_ifindex(n, index);
        rtnl_neigh_set_dst(n, dst);
        rtnl_neigh_set_lladdr(n, ll);
        rtnl_neigh_set_state(n, NUD_PERMANENT);
        rtnl_neigh_build_add_request(n, NLM_F_CREATE | NLM_F_REPLACE, &msg);
    }
    nl_addr_put(dst);
    nl_addr_put(ll);
    rtnl_neigh_put(n);
    vf_nl_add(b, msg, "add a neighbour");
}

/* libnl fits rates into 32 bits. */
#define MAX_RATE INT32_MAX

void vf_link_rate(struct vf_nl_batch *b, int index, uint64_t bytes_per_s, int mtu)
{
    struct rtnl_qdisc *q = rtnl_qdisc_alloc();
    struct nl_msg *msg = NULL;
    if (q) {
        int rate = bytes_per_s > MAX_RATE ? MAX_RATE : (int)bytes_per_s;
        /* 10 ms of traffic at a time, at least two big segments; what waits longer than 100 ms is dropped. */
        int burst = rate / 100 > 2 * 65536 ? rate / 100 : 2 * 65536;
        rtnl_tc_set_ifindex(TC_CAST(q), index);
        rtnl_tc_set_parent(TC_CAST(q), TC_H_ROOT);
        rtnl_tc_set_kind(TC_CAST(q), "tbf");
        if (bytes_per_s) {
            rtnl_tc_set_handle(TC_CAST(q), TC_HANDLE(1, 0));
            rtnl_tc_set_mtu(TC_CAST(q), (uint32_t)mtu);
            rtnl_qdisc_tbf_set_rate(q, rate, burst, 0);
            rtnl_qdisc_tbf_set_limit(q, burst + (rate / 10 > 65536 ? rate / 10 : 65536));
            rtnl_qdisc_build_add_request(q, NLM_F_CREATE | NLM_F_REPLACE, &msg);
        } else {
            rtnl_qdisc_build_delete_request(q, &msg);
        }
        rtnl_qdisc_put(q);
    }
    vf_nl_add(b, msg, "set a rate");
}

/* Whether a slot that comes back looks as we made it, inside: interfaces, addresses, routes, holders of the tap. One dump of
 * each. See slot_recycle.c for the rest. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include "net/slot_internal.h"

#define MAX_ADDRESSES 5

struct address {
    int index, bits;
    struct vf_ip ip;
};
struct seen {
    struct vf_net *slot;
    struct vf_link_info *tap;
    struct address expected[MAX_ADDRESSES];
    int n_expected;
    int links, addresses, networks, defaults;
};

/* ---- interfaces */

static int check_tap(struct seen *s, const struct vf_link_info *l, struct vf_error *err)
{
    *s->tap = *l;
    if (l->carrier || l->queues)
        return vf_fail(err, VF_CONFLICT, "a process still has the tap open");
    if (memcmp(&l->mac, &vf_inside.gateway_mac, sizeof(l->mac)) != 0)
        return vf_fail(err, VF_CORRUPT, "the tap's MAC address was changed");
    if (l->tap_group)
        return vf_fail(err, VF_CORRUPT, "the tap was given a group, which can't be taken back");
    return 0;
}

static int check_link(const struct vf_link_info *l, void *arg, struct vf_error *err)
{
    struct seen *s = arg;
    struct vf_mac host_mac, slot_mac;
    int r = 0;
    s->links++;
    if (l->index == 1)
        return 0;
    if (l->index == VF_NET_TAP_INDEX && strcmp(l->name, VF_NET_TAP) == 0)
        r = check_tap(s, l, err);
    else if (l->index != VF_NET_UPLINK_INDEX || strcmp(l->name, VF_NET_UPLINK) != 0)
        return vf_fail(err, VF_CORRUPT, "there is an interface %s that is not ours", l->name);
    vf_net_macs(s->slot->slots, s->slot->number, &host_mac, &slot_mac);
    if (r == 0 && l->index == VF_NET_UPLINK_INDEX &&
        memcmp(&l->mac, &slot_mac, sizeof(l->mac)) != 0)
        r = vf_fail(err, VF_CORRUPT, "the uplink's MAC address was changed");
    if (r == 0 && (!l->up || l->mtu != s->slot->shape.mtu))
        r = vf_fail(err, VF_CORRUPT, "interface %s is %s with MTU %d", l->name,
                    l->up ? "up" : "down", l->mtu);
    return r;
}

/* ---- addresses */

static void expect(struct seen *s, int index, const struct vf_ip *ip, int bits)
{
    s->expected[s->n_expected++] = (struct address){.index = index, .bits = bits, .ip = *ip};
}

static void expect_all(struct seen *s)
{
    static const int families[] = {AF_INET, AF_INET6};
    expect(s, VF_NET_TAP_INDEX, &vf_inside.gateway4, vf_inside.bits4);
    expect(s, VF_NET_TAP_INDEX, &vf_inside.gateway6, vf_inside.bits6);
    expect(s, VF_NET_TAP_INDEX, &vf_inside.router6, 64);
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        if (vf_addresses_pair(&s->slot->slots->pool, s->slot->number, families[i], &pair))
            expect(s, VF_NET_UPLINK_INDEX, &pair.slot, pair.bits);
    }
}

static int check_address(const struct vf_address_info *a, void *arg, struct vf_error *err)
{
    struct seen *s = arg;
    char text[VF_IP_TEXT];
    for (int i = 0; i < s->n_expected; i++)
        if (s->expected[i].index == a->index && s->expected[i].bits == a->bits &&
            vf_ip_same(&s->expected[i].ip, &a->ip)) {
            s->addresses++;
            return 0;
        }
    return vf_fail(err, VF_CORRUPT, "there is an address %s that is not ours",
                   vf_ip_text(&a->ip, text));
}

/* ---- routes */

static bool is_network(const struct seen *s, const struct vf_route_info *r)
{
    for (int i = 0; i < s->n_expected; i++) {
        const struct address *a = &s->expected[i];
        if (a->index == r->index && a->bits == r->to.bits && vf_cidr_contains(&r->to, &a->ip))
            return true;
    }
    return false;
}

static bool is_default(const struct seen *s, const struct vf_route_info *r)
{
    struct vf_address_pair pair;
    return r->to.bits == 0 && r->index == VF_NET_UPLINK_INDEX &&
           vf_addresses_pair(&s->slot->slots->pool, s->slot->number, r->to.ip.family, &pair) &&
           vf_ip_same(&pair.host, &r->via);
}

static int check_route(const struct vf_route_info *r, void *arg, struct vf_error *err)
{
    struct seen *s = arg;
    char text[VF_IP_TEXT];
    /* What the kernel keeps for addresses, local ones and groups, follows from those. */
    if (r->table == RT_TABLE_LOCAL && r->protocol == RTPROT_KERNEL)
        return 0;
    if (r->table == RT_TABLE_MAIN && r->type == RTN_UNICAST && is_default(s, r)) {
        s->defaults++;
        return 0;
    }
    if (r->table == RT_TABLE_MAIN && r->type == RTN_UNICAST && r->protocol == RTPROT_KERNEL &&
        !r->via.family && is_network(s, r)) {
        s->networks++;
        return 0;
    }
    return vf_fail(err, VF_CORRUPT, "there is a route to %s that is not ours",
                   vf_cidr_text(&r->to, text));
}

static int expected_defaults(const struct vf_net *slot)
{
    static const int families[] = {AF_INET, AF_INET6};
    int n = 0;
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        n += vf_addresses_pair(&slot->slots->pool, slot->number, families[i], &pair) &&
             pair.host.family;
    }
    return n;
}

int vf_net_check_inside(struct vf_net *slot, struct vf_nl *route, struct vf_link_info *ret_tap,
                        struct vf_error *err)
{
    struct seen s = {.slot = slot, .tap = ret_tap};
    expect_all(&s);
    int r = vf_links(route, check_link, &s, err);
    if (r == 0 && s.links != 3)
        r = vf_fail(err, VF_CORRUPT, "of 3 interfaces %d are there", s.links);
    if (r == 0)
        r = vf_link_addresses(route, check_address, &s, err);
    if (r == 0 && s.addresses != s.n_expected)
        r = vf_fail(err, VF_CORRUPT, "of %d addresses %d are there", s.n_expected, s.addresses);
    if (r == 0)
        r = vf_routes(route, check_route, &s, err);
    if (r == 0 && (s.networks != s.n_expected || s.defaults != expected_defaults(slot)))
        r = vf_fail(err, VF_CORRUPT, "of %d routes %d are there",
                    s.n_expected + expected_defaults(slot), s.networks + s.defaults);
    return r;
}

/* Making a slot. See slot.h.
 *
 * Happy path: a number; its record; a namespace with its sockets, kept under its name; the tap; the veth pair with the
 * host's addresses; then in the slot's namespace one batch of interfaces, addresses, routes, neighbours, and one of
 * rules; then the host's rules learn of it.
 * On the way: any failure takes away what was made, its record last. A name that somebody else uses is passed over and
 * its number stays taken.
 */
#include <errno.h>
#include <net/if.h>
#include <string.h>
#include "base/failpoint.h"
#include "net/needs.h"
#include "net/nft.h"
#include "net/slot_internal.h"

#define MAX_FOREIGN 64 /* names passed over in one making */
#define ADDRESS_TIMEOUT_MS 1000

static const int families[] = {AF_INET, AF_INET6};

/* ---- steps; each may count on those before it */

static int make_pair(struct vf_net *slot, const struct vf_netns *ns, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct vf_nl_batch b = {0};
    struct vf_veth v = {.name = slot->name,
                        .peer_name = VF_NET_UPLINK,
                        .peer_index = VF_NET_UPLINK_INDEX,
                        .peer_ns = ns->ns,
                        .mtu = slot->shape.mtu};
    struct vf_link_change up = {
        .name = slot->name, .master = s->bridge, .route_localnet = !s->bridge};
    vf_net_macs(s, slot->number, &v.mac, &v.peer_mac);
    vf_link_add_veth(&b, &v);
    vf_link_up(&b, &up);
    pthread_mutex_lock(&s->host_lock);
    int r = vf_need(vf_nl_send(&s->host_route, &b, err), VF_NEED_VETH, err);
    pthread_mutex_unlock(&s->host_lock);
    vf_nl_batch_free(&b);
    return r;
}

static void configure_tap(struct vf_nl_batch *b, const struct vf_net_shape *shape)
{
    struct vf_link_change tap = {
        .index = VF_NET_TAP_INDEX, .mac = &vf_inside.gateway_mac, .mtu = shape->mtu};
    vf_link_up(b, &tap);
    vf_link_address(b, VF_NET_TAP_INDEX, &vf_inside.gateway4, vf_inside.bits4);
    vf_link_address(b, VF_NET_TAP_INDEX, &vf_inside.gateway6, vf_inside.bits6);
    vf_link_address(b, VF_NET_TAP_INDEX, &vf_inside.router6, 64);
    vf_link_neighbour(b, VF_NET_TAP_INDEX, &vf_inside.guest4, &shape->guest_mac);
    vf_link_neighbour(b, VF_NET_TAP_INDEX, &vf_inside.guest6, &shape->guest_mac);
}

static int configure_inside(struct vf_net *slot, struct vf_nl *route, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct vf_nl_batch b = {0};
    struct vf_link_change uplink = {.index = VF_NET_UPLINK_INDEX};
    struct vf_mac host_mac, slot_mac;

    vf_net_macs(s, slot->number, &host_mac, &slot_mac);
    configure_tap(&b, &slot->shape);
    vf_link_up(&b, &uplink);
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        if (!vf_addresses_pair(&s->pool, slot->number, families[i], &pair))
            continue;
        vf_link_address(&b, VF_NET_UPLINK_INDEX, &pair.slot, pair.bits);
        if (!pair.host.family)
            continue;
        if (!s->bridge)
            vf_link_neighbour(&b, VF_NET_UPLINK_INDEX, &pair.host, &host_mac);
        vf_link_default_route(&b, VF_NET_UPLINK_INDEX, &pair.host);
    }
    int r = vf_nl_send(route, &b, err);
    vf_nl_batch_free(&b);
    return r;
}

static int make_rules(struct vf_net *slot, struct vf_nl *netfilter, struct vf_error *err)
{
    struct vf_net_rules rules = vf_net_rules(slot);
    struct vf_nl_batch b = {0};
    vf_rules_slot(&b, &rules);
    int r = vf_nl_send(netfilter, &b, err);
    vf_nl_batch_free(&b);
    r = vf_need(r, VF_NEED_SLOT_RULES, err);
    if (r == 0)
        r = vf_nft_generation(netfilter, &slot->generation, err);
    slot->settled = r == 0;
    return r;
}

/* The host's addresses, before anything can come from there. */
static int configure_host(struct vf_net *slot, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct vf_nl_batch b = {0};
    struct vf_mac host_mac, slot_mac;
    int index = (int)if_nametoindex(slot->name);

    if (s->bridge)
        return 0;
    if (index == 0)
        return vf_fail_errno(err, errno, "interface %s", slot->name);
    vf_net_macs(s, slot->number, &host_mac, &slot_mac);
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        if (!vf_addresses_pair(&s->pool, slot->number, families[i], &pair))
            continue;
        vf_link_address(&b, index, &pair.host, pair.bits);
        vf_link_neighbour(&b, index, &pair.slot, &slot_mac);
    }
    pthread_mutex_lock(&s->host_lock);
    int r = vf_nl_send(&s->host_route, &b, err);
    pthread_mutex_unlock(&s->host_lock);
    vf_nl_batch_free(&b);
    return r;
}

/* The last step: from now on packets pass. */
static int join_host(struct vf_net *slot, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct vf_address_pair pair;
    int r = 0;

    pthread_mutex_lock(&s->host_lock);
    vf_link_settle(&s->host_route, slot->name); /* it was up before its peer */
    if (!s->bridge)
        r = vf_host_rules_add(&s->host_nf, &s->host, slot->number, err);
    if (r == 0 && !s->bridge && vf_addresses_pair(&s->pool, slot->number, AF_INET6, &pair))
        r = vf_address_wait(&s->host_route, &pair.host, ADDRESS_TIMEOUT_MS, err);
    pthread_mutex_unlock(&s->host_lock);
    return r;
}

static int make_in(struct vf_net *slot, struct vf_netns *ns, struct vf_error *err)
{
    struct vf_nl route, netfilter;
    vf_nl_adopt(&route, ns->route);
    vf_nl_adopt(&netfilter, ns->netfilter);

    struct vf_error why;
    int r = vf_netns_keep(slot->slots->netns_dir, slot->name, ns->ns, &why);
    slot->foreign = r < 0 && why.code == VF_CONFLICT;
    if (r < 0)
        return vf_error_copy(err, &why);
    vf_failpoint("net.slot.kept");
    r = vf_tap_make(ns->tuns, VF_NET_TAP, VF_NET_TAP_INDEX, &slot->shape.tap, err);
    if (r == 0)
        r = make_pair(slot, ns, err);
    if (r == 0)
        r = configure_host(slot, err);
    if (r < 0)
        return r;
    vf_failpoint("net.slot.linked");
    r = configure_inside(slot, &route, err);
    if (r < 0)
        return r;
    vf_failpoint("net.slot.addressed");
    r = make_rules(slot, &netfilter, err);
    if (r < 0)
        return r;
    vf_failpoint("net.slot.ruled");
    r = join_host(slot, err);
    if (r == 0)
        r = vf_link_get(&route, VF_NET_TAP, &slot->base, err);
    if (r < 0)
        return r;
    vf_failpoint("net.slot.joined");
    /* By name, the VMM comes to a tap that nobody holds. */
    for (int i = 0; !slot->shape.tap.by_name && i < ns->n_tuns; i++) {
        slot->fds[slot->n_fds++] = ns->tuns[i];
        ns->tuns[i] = -1;
    }
    return 0;
}

static int make_all(struct vf_net *slot, struct vf_error *err)
{
    struct vf_netns ns;

    int r = vf_net_record_write(slot, err);
    if (r < 0)
        return r;
    vf_failpoint("net.slot.recorded");
    r = vf_netns_create(slot->shape.tap.queues, &ns, err);
    if (r == 0) {
        vf_failpoint("net.slot.namespace");
        r = make_in(slot, &ns, err);
        vf_netns_close(&ns);
    }
    return r;
}

/* ---- */

static int check_shape(const struct vf_net_shape *shape, struct vf_error *err)
{
    if (shape->tap.queues < 1 || shape->tap.queues > VF_NETNS_MAX_TUNS)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.queues: %d is not in 1 to %d",
                       shape->tap.queues, VF_NETNS_MAX_TUNS);
    if (shape->mtu < 1280 || shape->mtu > VF_MTU_MAX)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.mtu: %d is not in 1280 to %d", shape->mtu,
                       VF_MTU_MAX);
    return 0;
}

/* A number under whose name there is nothing. */
static int free_number(struct vf_nets *s, int *ret, struct vf_error *err)
{
    for (int i = 0; i < MAX_FOREIGN; i++) {
        char name[VF_LINK_NAME];
        int number, r = vf_addresses_take(&s->pool, &number, err);
        if (r < 0)
            return r;
        vf_net_name(s, number, name);
        if (!vf_net_record_exists(s, number) && !vf_netns_exists(s->netns_dir, name) &&
            if_nametoindex(name) == 0) {
            *ret = number;
            return 0;
        }
    }
    vf_fail(err, VF_CONFLICT, "networks: %d names in a row that begin with \"%s\" are in use",
            MAX_FOREIGN, s->prefix);
    return vf_hint(err, "somebody else uses such names for namespaces or interfaces");
}

/* ret NULL: with the ready ones. */
static int make(struct vf_nets *s, const struct vf_net_shape *shape, struct vf_net **ret,
                struct vf_error *err)
{
    int number = -1, r = check_shape(shape, err);
    if (r == 0)
        r = free_number(s, &number, err);
    if (r < 0)
        return r;
    struct vf_net *slot = vf_net_new(s, number, shape);
    if (!slot) {
        vf_addresses_give(&s->pool, number);
        return vf_fail(err, VF_NO_MEMORY, "networks: no memory");
    }
    vf_net_enter(slot, VF_NET_MAKING);
    r = make_all(slot, err);
    if (r == 0) {
        if (ret)
            *ret = slot;
        vf_net_made(slot, ret != NULL);
        return 0;
    }
    vf_wrap(err, "make network %s", slot->name);
    bool foreign = slot->foreign;
    vf_net_free(slot);
    if (foreign) /* nothing but the record was made, and the number stays taken */
        vf_net_record_remove(s, number, NULL);
    else
        vf_net_remove(s, &number, 1, NULL);
    return r;
}

int vf_net_make(struct vf_nets *s, const struct vf_net_shape *shape, struct vf_error *err)
{
    return make(s, shape, NULL, err);
}

int vf_net_make_taken(struct vf_nets *s, const struct vf_net_shape *shape, struct vf_net **ret,
                      struct vf_error *err)
{
    return make(s, shape, ret, err);
}

/* What a guest is told of its NIC, and whether it took it.
 *
 *     nat, bridge:  what every guest in a slot is (net/rules.h), so that a clone changes nothing: MAC, both addresses,
 *                   the gateway's MAC, which spares it the search for it
 *     external:     MAC, and the addresses that whoever brought the network has told
 *     all of them:  the spec's MTU and resolvers
 *
 * Each must come back as the guest's system has it then, and the first that does not is named. An agent of before
 * VF_FEATURE_NET2 is told MAC and IPv4 address alone, unless its spec asks for what that leaves out.
 */
#include <stdio.h>
#include <string.h>
#include "factory/instance.h"

#define MAX_DNS 8
#define USUAL_MTU 1500

struct told {
    uint8_t mac[6], gateway_mac[6];
    uint8_t ipv4[9];  /* address, prefix length, gateway */
    uint8_t ipv6[33]; /* likewise */
    bool has_ipv4, has_ipv6, has_gateway_mac;
    uint32_t mtu; /* 0: it is not told */
    struct vf_ip dns[MAX_DNS];
    int n_dns;
};

/* ---- what it is */

static void put_address(uint8_t *ret, const uint8_t *address, int bits, const uint8_t *gateway,
                        size_t len)
{
    memcpy(ret, address, len);
    ret[len] = (uint8_t)bits;
    memcpy(ret + len + 1, gateway, len);
}

static void of_slot(struct told *t)
{
    const struct vf_inside *in = &vf_inside;
    put_address(t->ipv4, in->guest4.b, in->bits4, in->gateway4.b, 4);
    put_address(t->ipv6, in->guest6.b, in->bits6, in->gateway6.b, 16);
    memcpy(t->gateway_mac, in->gateway_mac.b, sizeof(t->gateway_mac));
    t->has_ipv4 = t->has_ipv6 = t->has_gateway_mac = true;
}

static void of_options(const struct vf_vm_options *o, struct told *t)
{
    t->has_ipv4 = o->has_ipv4;
    t->has_ipv6 = o->has_ipv6;
    put_address(t->ipv4, o->ipv4, o->prefix_len, o->gateway, 4);
    put_address(t->ipv6, o->ipv6, o->prefix6_len, o->gateway6, 16);
}

static int of_spec(const struct vf_spec *s, struct told *t, struct vf_error *err)
{
    t->mtu = (uint32_t)s->network.mtu;
    if (s->network.dns.n > MAX_DNS)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.dns: at most %d resolvers", MAX_DNS);
    for (size_t i = 0; i < s->network.dns.n; i++) {
        char field[40];
        snprintf(field, sizeof(field), "network.dns[%zu]", i);
        int r = vf_ip_parse(s->network.dns.v[i], field, &t->dns[i], err);
        if (r < 0)
            return r;
        t->n_dns++;
    }
    return 0;
}

static int refuse(const char *what, struct vf_error *err)
{
    vf_fail(err, VF_UNSUPPORTED, "%s: the guest's agent knows of no such setting", what);
    return vf_hint(err, "build the guest image with this version's vmfactory-agent");
}

/* What an agent of before can't be told: left out, or refused if somebody has asked for it. */
static int leave_out(const struct vf_instance *vm, struct told *t, struct vf_error *err)
{
    if (t->n_dns)
        return refuse("network.dns", err);
    if (t->mtu && t->mtu != USUAL_MTU)
        return refuse("network.mtu", err);
    if (vm->spec.network.mode == VF_NETWORK_EXTERNAL && t->has_ipv6)
        return refuse("ipv6", err);
    t->has_ipv6 = t->has_gateway_mac = false;
    t->mtu = 0;
    return 0;
}

static int collect(const struct vf_instance *vm, struct told *ret, struct vf_error *err)
{
    *ret = (struct told){0};
    if (!(vm->features & VF_FEATURE_NET)) {
        vf_fail(err, VF_UNSUPPORTED, "the guest's agent sees no NIC, but network.mode is %s",
                vf_network_mode_names[vm->spec.network.mode]);
        return vf_hint(err, "its kernel needs virtio_net, loaded before the agent answers");
    }
    memcpy(ret->mac, vm->mac, sizeof(ret->mac));
    if (vm->spec.network.mode == VF_NETWORK_EXTERNAL)
        of_options(&vm->options, ret);
    else
        of_slot(ret);
    int r = of_spec(&vm->spec, ret, err);
    return r == 0 && !(vm->features & VF_FEATURE_NET2) ? leave_out(vm, ret, err) : r;
}

/* ---- told */

int vf_prove_network_put(const struct vf_instance *vm, struct vf_wire_writer *w,
                         struct vf_error *err)
{
    struct told t;
    if (vm->spec.network.mode == VF_NETWORK_NONE)
        return 0;
    int r = collect(vm, &t, err);
    if (r < 0)
        return r;
    vf_wire_put(w, VF_TAG_MAC, t.mac, sizeof(t.mac));
    if (t.mtu)
        vf_wire_put_u32(w, VF_TAG_MTU, t.mtu);
    if (t.has_ipv4)
        vf_wire_put(w, VF_TAG_IPV4, t.ipv4, sizeof(t.ipv4));
    if (t.has_ipv6)
        vf_wire_put(w, VF_TAG_IPV6, t.ipv6, sizeof(t.ipv6));
    if (t.has_gateway_mac)
        vf_wire_put(w, VF_TAG_GATEWAY_MAC, t.gateway_mac, sizeof(t.gateway_mac));
    for (int i = 0; i < t.n_dns; i++)
        vf_wire_put(w, VF_TAG_DNS, t.dns[i].b, (size_t)vf_ip_len(&t.dns[i]));
    return 0;
}

/* ---- and taken */

static bool came_back(const struct vf_wire_frame *f, uint16_t tag, const void *due, size_t due_len)
{
    size_t len = 0;
    const uint8_t *p = vf_wire_find(f, tag, &len);
    return p && len == due_len && memcmp(p, due, len) == 0;
}

static bool dns_came_back(const struct vf_wire_frame *f, const struct told *t)
{
    size_t pos = 0, len;
    uint16_t tag;
    const uint8_t *p;
    int n = 0;
    while (vf_wire_next(f, &pos, &tag, &p, &len) > 0) {
        if (tag != VF_TAG_DNS)
            continue;
        if (n == t->n_dns || len != (size_t)vf_ip_len(&t->dns[n]) ||
            memcmp(p, t->dns[n].b, len) != 0)
            return false;
        n++;
    }
    return n == t->n_dns;
}

static const char *not_taken(const struct vf_wire_frame *f, const struct told *t)
{
    const uint8_t mtu[] = {(uint8_t)t->mtu, (uint8_t)(t->mtu >> 8), (uint8_t)(t->mtu >> 16),
                           (uint8_t)(t->mtu >> 24)};
    if (!came_back(f, VF_TAG_MAC, t->mac, sizeof(t->mac)))
        return "MAC address";
    if (t->mtu && !came_back(f, VF_TAG_MTU, mtu, sizeof(mtu)))
        return "MTU";
    if (t->has_ipv4 && !came_back(f, VF_TAG_IPV4, t->ipv4, sizeof(t->ipv4)))
        return "IPv4 address and gateway";
    if (t->has_ipv6 && !came_back(f, VF_TAG_IPV6, t->ipv6, sizeof(t->ipv6)))
        return "IPv6 address and gateway";
    if (t->has_gateway_mac &&
        !came_back(f, VF_TAG_GATEWAY_MAC, t->gateway_mac, sizeof(t->gateway_mac)))
        return "gateway's MAC address";
    return dns_came_back(f, t) ? NULL : "resolvers";
}

int vf_prove_network_check(struct vf_instance *vm, const struct vf_wire_frame *f,
                           struct vf_error *err)
{
    struct told t;
    if (vm->spec.network.mode == VF_NETWORK_NONE)
        return 0;
    int r = collect(vm, &t, err);
    if (r < 0)
        return r;
    const char *what = not_taken(f, &t);
    if (what)
        return vf_fail(err, VF_PROOF_FAILED, "the guest's NIC did not take its %s", what);
    struct vf_mac mac;
    memcpy(mac.b, t.mac, sizeof(mac.b));
    vf_mac_text(&mac, vm->proof.mac);
    return 0;
}

/* What a RENEW says of the NIC: collected with the rest of the message, applied in an order in which nothing undoes
 * what was before it (a changed MAC may take the link down, a link that is up is what routes need), and answered as the
 * system has it then.
 */
#include "tools/agent/agent.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define MIN_MTU 68
#define MAX_MTU 65535

/* tag's value is of the right form. */
bool renew_net_collect(uint16_t tag, const uint8_t *p, size_t len, struct net_fields *ret)
{
    switch (tag) {
    case VF_TAG_MAC:
        ret->mac = p;
        return len == 6;
    case VF_TAG_MTU:
        ret->mtu = p;
        return len == 4 && vf_wire_u32(p) >= MIN_MTU && vf_wire_u32(p) <= MAX_MTU;
    case VF_TAG_IPV4:
        ret->ipv4 = p;
        return len == 9 && p[4] <= 32;
    case VF_TAG_IPV6:
        ret->ipv6 = p;
        return len == 33 && p[16] <= 128;
    case VF_TAG_GATEWAY_MAC:
        ret->gateway_mac = p;
        return len == 6 && !(p[0] & 1);
    case VF_TAG_DNS:
        if ((len != 4 && len != 16) || ret->dns.n == MAX_RESOLVERS)
            return false;
        ret->dns.list[ret->dns.n].len = (uint8_t)len;
        memcpy(ret->dns.list[ret->dns.n++].address, p, len);
        return true;
    default: /* of a later version */
        return true;
    }
}

static int set_mac(const uint8_t *mac)
{
    uint8_t got[6];
    int err = net_set_mac(mac);

    if (err == 0)
        err = net_get_mac(got);
    if (err == 0)
        vf_wire_put(&writer, VF_TAG_MAC, got, sizeof(got));
    return err;
}

static int set_mtu(uint32_t mtu)
{
    uint32_t got;
    int err = net_set_mtu(mtu);

    if (err == 0)
        err = net_get_mtu(&got);
    if (err == 0)
        vf_wire_put_u32(&writer, VF_TAG_MTU, got);
    return err;
}

/* len: of an address. */
static int set_address(uint16_t tag, int family, const uint8_t *p, size_t len)
{
    struct net_address a = {.family = family, .prefix = p[len]};
    uint8_t got[33];

    memcpy(a.address, p, len);
    memcpy(a.gateway, p + len + 1, len);
    int err = net_set_address(&a);
    if (err == 0)
        err = net_get_address(family, &a);
    if (err != 0)
        return err;
    memcpy(got, a.address, len);
    got[len] = a.prefix;
    memcpy(got + len + 1, a.gateway, len);
    vf_wire_put(&writer, tag, got, 2 * len + 1);
    return 0;
}

static int set_gateway_mac(const uint8_t *mac)
{
    uint8_t got[6];
    int err = net_set_gateway_mac(mac);

    if (err == 0)
        err = net_get_gateway_mac(mac, got);
    if (err == 0)
        vf_wire_put(&writer, VF_TAG_GATEWAY_MAC, got, sizeof(got));
    return err;
}

static int set_dns(const struct resolvers *dns)
{
    struct resolvers got;
    int err = resolvers_set(dns);

    if (err == 0)
        err = resolvers_get(&got);
    for (unsigned i = 0; err == 0 && i < got.n; i++)
        vf_wire_put(&writer, VF_TAG_DNS, got.list[i].address, got.list[i].len);
    return err;
}

int renew_net(const struct net_fields *in, const char **ret_step)
{
    int err = 0;

    if (in->mac) {
        *ret_step = "MAC address";
        err = set_mac(in->mac);
    }
    if (err == 0 && in->mtu) {
        *ret_step = "MTU";
        err = set_mtu(vf_wire_u32(in->mtu));
    }
    if (err == 0 && in->ipv4) {
        *ret_step = "IPv4 address";
        err = set_address(VF_TAG_IPV4, AF_INET, in->ipv4, 4);
    }
    if (err == 0 && in->ipv6) {
        *ret_step = "IPv6 address";
        err = set_address(VF_TAG_IPV6, AF_INET6, in->ipv6, 16);
    }
    if (err == 0 && in->gateway_mac) {
        *ret_step = "gateway's MAC address";
        err = set_gateway_mac(in->gateway_mac);
    }
    if (err == 0 && in->dns.n > 0) {
        *ret_step = "resolvers";
        err = set_dns(&in->dns);
    }
    return err;
}

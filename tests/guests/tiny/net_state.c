/* Who the NIC is: as every guest of a slot, until it is told otherwise. It has what it was told, so reading back is
 * looking here.
 */
#include "tests/guests/tiny/net.h"

#define MAX_DNS 8

struct net_state net = {
    .mac = {0x02, 0x76, 0x6d, 0, 0, 2},
    .gateway_mac = {0x02, 0x76, 0x6d, 0, 0, 1},
    .ipv4 = {172, 31, 255, 2, 30, 172, 31, 255, 1},
    .ipv6 = {0xfd, 0x76, 0x6d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 64,
             0xfd, 0x76, 0x6d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
    .mtu = 1500,
};

/* Resolvers are only remembered: nobody asks any here. */
static struct {
    uint8_t address[16];
    uint8_t len;
} dns[MAX_DNS];
static unsigned n_dns;
static bool dns_told; /* by the RENEW under way */

/* What is there is told, or something near it if the guest is to lie. */
static void tell(struct vf_wire_writer *w, uint16_t tag, enum misbehaviour lie, const void *p,
                 size_t len)
{
    uint8_t told[33];

    memcpy(told, p, len);
    if (misbehaviour == lie)
        told[len / 2] ^= 1;
    vf_wire_put(w, tag, told, len);
}

static void take_dns(const uint8_t *p, size_t len, struct vf_wire_writer *w)
{
    if (!dns_told)
        n_dns = 0;
    dns_told = true;
    if (n_dns == MAX_DNS)
        return;
    memcpy(dns[n_dns].address, p, len);
    dns[n_dns].len = (uint8_t)len;
    if (misbehaviour != NO_DNS)
        tell(w, VF_TAG_DNS, WRONG_DNS, dns[n_dns].address, len);
    n_dns++;
}

void net_renew_begin(void)
{
    dns_told = false;
}

void net_renew(uint16_t tag, const uint8_t *p, size_t len, struct vf_wire_writer *w)
{
    if (tag == VF_TAG_MAC && len == sizeof(net.mac)) {
        memcpy(net.mac, p, len);
        tell(w, tag, WRONG_MAC, net.mac, len);
    } else if (tag == VF_TAG_IPV4 && len == sizeof(net.ipv4)) {
        memcpy(net.ipv4, p, len);
        tell(w, tag, WRONG_IPV4, net.ipv4, len);
    } else if (tag == VF_TAG_IPV6 && len == sizeof(net.ipv6)) {
        memcpy(net.ipv6, p, len);
        tell(w, tag, WRONG_IPV6, net.ipv6, len);
    } else if (tag == VF_TAG_MTU && len == 4) {
        uint32_t mtu = vf_wire_u32(p);
        if (mtu >= 68 && mtu <= MAX_MTU)
            net.mtu = mtu;
        tell(w, tag, WRONG_MTU, &net.mtu, sizeof(net.mtu));
    } else if (tag == VF_TAG_DNS && (len == 4 || len == 16)) {
        take_dns(p, len, w);
    } else if (tag == VF_TAG_GATEWAY_MAC && len == sizeof(net.gateway_mac)) {
        memcpy(net.gateway_mac, p, len);
        tell(w, tag, WRONG_GATEWAY_MAC, net.gateway_mac, len);
    }
}

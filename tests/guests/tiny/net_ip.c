/* ARP, ICMP and UDP of both families, as far as a guest needs them to be reached: requests for its addresses are
 * answered, pings too, and datagrams to port 7 are handed on. What it sends goes to the gateway, or back to whoever
 * asked. Whatever is not whole, not for us or in fragments is dropped; every length is checked against what came.
 */
#include "tests/guests/tiny/net.h"

#define TYPE_IPV4 0x0800
#define TYPE_ARP 0x0806
#define TYPE_IPV6 0x86dd
#define PROTOCOL_ICMP 1
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMP6 58
#define IPV4 20 /* lengths of headers */
#define IPV6 40
#define UDP 8
#define TALK_PORT 7
#define TTL 64

/* ---- checksums: sums of 16-bit words in the machine's order, whose carries are added in the end */

static uint32_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

static uint64_t sum_of(const uint8_t *p, size_t len)
{
    uint64_t sum = 0;

    for (; len >= 4; p += 4, len -= 4) {
        uint32_t word;
        __builtin_memcpy(&word, p, 4);
        sum += word;
    }
    for (unsigned i = 0; i < len; i++)
        sum += (uint32_t)p[i] << 8 * i;
    return sum;
}

static uint16_t swapped(uint32_t v)
{
    return (uint16_t)(v << 8 | v >> 8);
}

/* With addresses and the pseudo header's rest; in network order as a number. */
static uint16_t checksum(const uint8_t *addresses, size_t addresses_len, uint32_t protocol,
                         const uint8_t *p, size_t len)
{
    uint64_t sum = sum_of(p, len);

    if (addresses)
        sum += sum_of(addresses, addresses_len) + swapped(protocol) + swapped((uint32_t)len);
    return swapped(~fold(sum) & 0xffff);
}

/* As a 16-bit word that it covers changes. */
static void change_checksum(uint8_t *p, uint32_t was, uint32_t is)
{
    put16(p, ~fold((uint64_t)(~get16(p) & 0xffff) + (~was & 0xffff) + is) & 0xffff);
}

/* ---- whole frames to be sent */

static void put_ethernet(uint8_t *f, const uint8_t *to, uint16_t type)
{
    memcpy(f, to, 6);
    memcpy(f + 6, net.mac, 6);
    put16(f + 12, type);
}

static void put_ipv4(uint8_t *p, const uint8_t *from, const uint8_t *to, size_t payload)
{
    static const uint8_t start[IPV4] = {0x45, [6] = 0x40, [8] = TTL, [9] = PROTOCOL_UDP};

    memcpy(p, start, sizeof(start));
    put16(p + 2, (uint32_t)(IPV4 + payload));
    memcpy(p + 12, from, 4);
    memcpy(p + 16, to, 4);
    put16(p + 10, checksum(NULL, 0, 0, p, IPV4));
}

static void put_ipv6(uint8_t *p, const uint8_t *from, const uint8_t *to, uint8_t protocol,
                     uint8_t hops, size_t payload)
{
    memset(p, 0, 8);
    p[0] = 0x60;
    put16(p + 4, (uint32_t)payload);
    p[6] = protocol;
    p[7] = hops;
    memcpy(p + 8, from, 16);
    memcpy(p + 24, to, 16);
}

bool net_send_datagram(const struct datagram *d)
{
    size_t ip_len = d->to.v6 ? IPV6 : IPV4, len = UDP + d->len;
    uint8_t *f;

    if (d->from.v6 != d->to.v6 || ip_len + len > MAX_MTU || !(f = net_begin()))
        return false;
    uint8_t *ip = f + ETHERNET, *udp = ip + ip_len;
    memcpy(f, d->to_mac, 6);
    memcpy(f + 6, d->from_mac, 6);
    put16(f + 12, d->to.v6 ? TYPE_IPV6 : TYPE_IPV4);
    if (d->to.v6)
        put_ipv6(ip, d->from.b, d->to.b, PROTOCOL_UDP, TTL, len);
    else
        put_ipv4(ip, d->from.b, d->to.b, len);
    put16(udp, d->from_port);
    put16(udp + 2, d->to_port);
    put16(udp + 4, (uint32_t)len);
    put16(udp + 6, d->checksum);
    memcpy(udp + UDP, d->data, d->len);
    if (!d->has_checksum) {
        put16(udp + 6, 0);
        uint16_t sum =
            checksum(d->to.v6 ? ip + 8 : ip + 12, d->to.v6 ? 32 : 8, PROTOCOL_UDP, udp, len);
        put16(udp + 6, sum ? sum : 0xffff);
    }
    net_send(ETHERNET + ip_len + len);
    return true;
}

/* ---- what comes in. p, len: the packet without the Ethernet header, whose sender is to be answered */

static void take_arp(const uint8_t *from_mac, const uint8_t *p, size_t len)
{
    static const uint8_t request[8] = {0, 1, 8, 0, 6, 4, 0, 1};
    uint8_t *f;

    if (len < 28 || !same(p, request, sizeof(request)) || !same(p + 24, net.ipv4, 4) ||
        !(f = net_begin()))
        return;
    put_ethernet(f, from_mac, TYPE_ARP);
    uint8_t *a = f + ETHERNET;
    memcpy(a, request, sizeof(request));
    a[7] = 2;
    memcpy(a + 8, net.mac, 6);
    memcpy(a + 14, net.ipv4, 4);
    memcpy(a + 18, p + 8, 10); /* who asked */
    net_send(ETHERNET + 28);
}

/* Hands on what is for port 7. Nothing comes from there but what another guest was ordered to send or answers: two of
 * them that could reach each other would go on answering forever. */
static void take_udp(const uint8_t *from_mac, const uint8_t *from, const uint8_t *to, bool v6,
                     const uint8_t *p, size_t len)
{
    if (len < UDP || get16(p + 2) != TALK_PORT || get16(p) == TALK_PORT)
        return;
    size_t told = get16(p + 4);
    if (told < UDP || told > len)
        return;
    struct datagram d = {.from = {.v6 = v6},
                         .to = {.v6 = v6},
                         .from_port = get16(p),
                         .to_port = TALK_PORT,
                         .data = p + UDP,
                         .len = told - UDP,
                         .checksum = get16(p + 6)};
    memcpy(d.from_mac, from_mac, 6);
    memcpy(d.to_mac, net.mac, 6);
    memcpy(d.from.b, from, v6 ? 16 : 4);
    memcpy(d.to.b, to, v6 ? 16 : 4);
    net_talk(&d);
}

static void take_ipv4(const uint8_t *from_mac, const uint8_t *p, size_t len)
{
    if (len < IPV4 || p[0] != 0x45 || (get16(p + 6) & 0x3fff) != 0 || !same(p + 16, net.ipv4, 4))
        return;
    size_t total = get16(p + 2);
    if (total < IPV4 || total > len)
        return;
    const uint8_t *in = p + IPV4;
    size_t in_len = total - IPV4;
    if (p[9] == PROTOCOL_UDP)
        take_udp(from_mac, p + 12, p + 16, false, in, in_len);
    if (p[9] != PROTOCOL_ICMP || in_len < 8 || in[0] != 8 || in[1] != 0)
        return;
    uint8_t *f = net_begin();
    if (!f)
        return;
    put_ethernet(f, from_mac, TYPE_IPV4);
    uint8_t *a = f + ETHERNET + IPV4;
    put_ipv4(f + ETHERNET, net.ipv4, p + 12, in_len);
    f[ETHERNET + 9] = PROTOCOL_ICMP;
    change_checksum(f + ETHERNET + 10, PROTOCOL_UDP, PROTOCOL_ICMP);
    memcpy(a, in, in_len);
    a[0] = 0;
    change_checksum(a + 2, 0x0800, 0x0000);
    net_send(ETHERNET + total);
}

static void link_local(uint8_t ret[16])
{
    memset(ret, 0, 16);
    ret[0] = 0xfe;
    ret[1] = 0x80;
    memcpy(ret + 8, net.mac, 3);
    ret[8] ^= 2;
    ret[11] = 0xff;
    ret[12] = 0xfe;
    memcpy(ret + 13, net.mac + 3, 3);
}

static bool is_ours(const uint8_t *address)
{
    uint8_t local[16];

    link_local(local);
    return same(address, net.ipv6, 16) || same(address, local, 16);
}

/* ip: the asking packet. in: what it carries, a neighbour solicitation. */
static void answer_solicitation(const uint8_t *from_mac, const uint8_t *ip, const uint8_t *in,
                                size_t len)
{
    static const uint8_t unspecified[16], all_nodes[16] = {0xff, 2, [15] = 1};
    uint8_t *f;

    if (len < 24 || in[1] != 0 || ip[7] != 255 || !is_ours(in + 8) || !(f = net_begin()))
        return;
    bool solicited = !same(ip + 8, unspecified, 16);
    put_ethernet(f, from_mac, TYPE_IPV6);
    put_ipv6(f + ETHERNET, in + 8, solicited ? ip + 8 : all_nodes, PROTOCOL_ICMP6, 255, 32);
    uint8_t *a = f + ETHERNET + IPV6;
    memset(a, 0, 32);
    a[0] = 136;
    a[4] = solicited ? 0x60 : 0x20; /* override */
    memcpy(a + 8, in + 8, 16);
    a[24] = 2; /* the target's address on the link, eight bytes in all */
    a[25] = 1;
    memcpy(a + 26, net.mac, 6);
    put16(a + 2, checksum(f + ETHERNET + 8, 32, PROTOCOL_ICMP6, a, 32));
    net_send(ETHERNET + IPV6 + 32);
}

static void take_ipv6(const uint8_t *from_mac, const uint8_t *p, size_t len)
{
    if (len < IPV6 || p[0] >> 4 != 6)
        return;
    const uint8_t *in = p + IPV6, *to = p + 24;
    size_t in_len = get16(p + 4);
    if (in_len > len - IPV6)
        return;
    if (p[6] == PROTOCOL_ICMP6 && in_len >= 8 && in[0] == 135 && (to[0] == 0xff || is_ours(to)))
        answer_solicitation(from_mac, p, in, in_len);
    if (!is_ours(to))
        return;
    if (p[6] == PROTOCOL_UDP)
        take_udp(from_mac, p + 8, to, true, in, in_len);
    if (p[6] != PROTOCOL_ICMP6 || in_len < 8 || in[0] != 128 || in[1] != 0)
        return;
    uint8_t *f = net_begin();
    if (!f)
        return;
    put_ethernet(f, from_mac, TYPE_IPV6);
    put_ipv6(f + ETHERNET, to, p + 8, PROTOCOL_ICMP6, TTL, in_len);
    uint8_t *a = f + ETHERNET + IPV6;
    memcpy(a, in, in_len);
    a[0] = 129;
    change_checksum(a + 2, 0x8000, 0x8100);
    net_send(ETHERNET + IPV6 + in_len);
}

void net_take(const uint8_t *frame, size_t len)
{
    const uint8_t *from = frame + 6, *p = frame + ETHERNET;

    /* No longer than what can be answered. */
    if (len < ETHERNET || len > MAX_FRAME || !((frame[0] & 1) || same(frame, net.mac, 6)))
        return;
    len -= ETHERNET;
    switch (get16(frame + 12)) {
    case TYPE_ARP:
        take_arp(from, p, len);
        break;
    case TYPE_IPV4:
        take_ipv4(from, p, len);
        break;
    case TYPE_IPV6:
        take_ipv6(from, p, len);
        break;
    }
}

/* The NIC, among its own files:
 *
 *     net.c        the device, frames in and out
 *     net_state.c  its addresses, and RENEW's records
 *     net_ip.c     ARP, ICMP, neighbours, UDP
 *     net_talk.c   what is said on UDP port 7
 */
#ifndef TINY_NET_H
#define TINY_NET_H

#include "tests/guests/tiny/tiny.h"

#define ETHERNET 14
#define MAX_MTU 9216
#define MAX_FRAME (ETHERNET + MAX_MTU)

static inline uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline bool same(const void *a, const void *b, size_t len)
{
    const uint8_t *p = a, *q = b;

    while (len > 0 && *p == *q)
        p++, q++, len--;
    return len == 0;
}

/* --- net.c */
/* Where the next frame to be sent is written, MAX_FRAME bytes; NULL: the device is not done with those before. */
uint8_t *net_begin(void);
/* Sends the first len bytes of it. */
void net_send(size_t len);

/* --- net_state.c */
struct net_state {
    uint8_t mac[6], gateway_mac[6];
    uint8_t ipv4[9];  /* address, prefix length, gateway */
    uint8_t ipv6[33]; /* likewise */
    uint32_t mtu;
};
extern struct net_state net;

/* --- net_ip.c */
void net_take(const uint8_t *frame, size_t len);
struct ip {
    bool v6;
    uint8_t b[16];
};
struct datagram {
    uint8_t from_mac[6], to_mac[6];
    struct ip from, to;
    uint16_t from_port, to_port;
    const uint8_t *data;
    size_t len;
    bool has_checksum; /* it is known */
    uint16_t checksum;
};
/* False: it is too long, or there is no room for now. */
bool net_send_datagram(const struct datagram *d);

/* --- net_talk.c */
void net_talk(const struct datagram *d);

#endif

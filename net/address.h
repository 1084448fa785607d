/* Addresses, prefixes, and the pool that each slot takes its own from.
 *
 * A slot has a number, and everything that is unique about it follows from that: its names, its MACs, and a pair of
 * addresses (host's end, slot's end) of each family. Pair n of a family is the n-th /31 (IPv4) or /127 (IPv6) in the
 * list of prefixes; in a pool for a bridge it is the n-th address after those that are kept, and the host's end is the
 * bridge network's gateway.
 */
#ifndef VF_NET_ADDRESS_H
#define VF_NET_ADDRESS_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

#define VF_IP_TEXT 56 /* an address or prefix as text, with its NUL */
#define VF_MAC_TEXT 18
#define VF_ADDRESSES_MAX_PREFIXES 16
#define VF_ADDRESSES_MAX_SLOTS 65536

struct vf_ip {
    int family; /* AF_INET, AF_INET6; 0: none */
    uint8_t b[16];
};
struct vf_cidr {
    struct vf_ip ip;
    int bits;
};
struct vf_mac {
    uint8_t b[6];
};

static inline int vf_ip_len(const struct vf_ip *ip)
{
    return ip->family == AF_INET ? 4 : 16;
}

/* field names what was parsed in messages: "pool.ipv4[0]". */
int vf_ip_parse(const char *text, const char *field, struct vf_ip *ret, struct vf_error *err);
/* "10.0.0.0/16"; without a slash the whole address. Refuses host bits, and says which prefix was meant. */
int vf_cidr_parse(const char *text, const char *field, struct vf_cidr *ret, struct vf_error *err);
/* "02:00:5e:10:00:01"; refuses multicast and all zeros. */
int vf_mac_parse(const char *text, const char *field, struct vf_mac *ret, struct vf_error *err);
const char *vf_ip_text(const struct vf_ip *ip, char ret[VF_IP_TEXT]);
const char *vf_cidr_text(const struct vf_cidr *c, char ret[VF_IP_TEXT]);
const char *vf_mac_text(const struct vf_mac *m, char ret[VF_MAC_TEXT]);
bool vf_ip_same(const struct vf_ip *a, const struct vf_ip *b);
bool vf_cidr_contains(const struct vf_cidr *c, const struct vf_ip *ip);
bool vf_cidr_overlap(const struct vf_cidr *a, const struct vf_cidr *b);

/* Numbers are handed out by whoever calls, from any thread. */
struct vf_address_pool {
    struct vf_cidr prefixes[VF_ADDRESSES_MAX_PREFIXES];
    int n_prefixes;
    bool singles;            /* of a bridge: one address a slot, not a pair */
    struct vf_ip gateway[2]; /* singles: IPv4's and IPv6's; family 0: none */
    int capacity;            /* numbers 0 … capacity - 1 */
    bool has4, has6;
    pthread_mutex_t lock;
    uint64_t taken[VF_ADDRESSES_MAX_SLOTS / 64];
    int n_taken, next; /* numbers go round, so that one is not used again at once */
};
struct vf_address_pair {
    struct vf_ip host, slot;
    int bits; /* 31, 127, or the bridge network's */
};

/* prefixes: text, both families in any order. gateways (NULL-ended, or NULL): for a bridge. Checks that they don't
 * overlap each other. */
int vf_addresses_init(struct vf_address_pool *p, const char *const *prefixes,
                      const char *const *gateways, struct vf_error *err);
void vf_addresses_close(struct vf_address_pool *p);
/* VF_BUSY: none is free. */
int vf_addresses_take(struct vf_address_pool *p, int *ret_number, struct vf_error *err);
/* A number that is in use already, of an earlier run. VF_CONFLICT: taken; VF_INVALID_ARGUMENT: not in this pool. */
int vf_addresses_claim(struct vf_address_pool *p, int number, struct vf_error *err);
void vf_addresses_give(struct vf_address_pool *p, int number);
/* The addresses of number; false if the pool has none of that family. */
bool vf_addresses_pair(const struct vf_address_pool *p, int number, int family,
                       struct vf_address_pair *ret);

#endif

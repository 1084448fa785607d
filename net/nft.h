/* nftables by libnftnl: one transaction in a batch, rules put together from small parts.
 *
 *     struct vf_nft n;
 *     vf_nft_begin(&n, batch, NFPROTO_INET, "vmfactory");
 *     vf_nft_table(&n, NULL);
 *     vf_nft_base_chain(&n, "forward", "filter", NF_INET_FORWARD, 0, NF_DROP, NULL);
 *     vf_nft_rule(&n, "forward");  vf_nft_in(&n, "tap0");  vf_nft_verdict(&n, NF_ACCEPT);  vf_nft_done(&n);
 *     vf_nft_end(&n);
 *     vf_nl_send(nl, batch, err);
 *
 * Whatever has no memory makes the batch fail when it is sent. Parts use register 1; matches of IPv4 and
 * IPv6 bring along the test for the family themselves.
 */
#ifndef VF_NET_NFT_H
#define VF_NET_NFT_H

#include <netinet/in.h> /* before the kernel's own headers, which give way to it */
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdbool.h>
#include <stdint.h>
#include "net/address.h"
#include "net/netlink.h"

struct nftnl_rule;

struct vf_nft {
    struct vf_nl_batch *b;
    int family; /* NFPROTO_INET, NFPROTO_NETDEV */
    const char *table;
    struct nftnl_rule *rule; /* being put together */
};

void vf_nft_begin(struct vf_nft *n, struct vf_nl_batch *b, int family, const char *table);
/* What follows is for another table. */
void vf_nft_use(struct vf_nft *n, int family, const char *table);
void vf_nft_end(struct vf_nft *n);

/* mark: kept with it, so that it is known again (vf_nft_table_mark); NULL: none. */
void vf_nft_table(struct vf_nft *n, const char *mark);
void vf_nft_delete_table(struct vf_nft *n);
/* type: "filter", "nat"; device: for netdev. */
void vf_nft_base_chain(struct vf_nft *n, const char *name, const char *type, int hook, int priority,
                       int policy, const char *device);
void vf_nft_chain(struct vf_nft *n, const char *name);
void vf_nft_counter(struct vf_nft *n, const char *name);
/* Removes all rules of chain. */
void vf_nft_flush(struct vf_nft *n, const char *chain);

/* ---- rules */
void vf_nft_rule(struct vf_nft *n, const char *chain);
void vf_nft_done(struct vf_nft *n);
/* Interface names; one that ends in * matches what begins so. */
void vf_nft_in(struct vf_nft *n, const char *name);
void vf_nft_out(struct vf_nft *n, const char *name);
void vf_nft_not_out(struct vf_nft *n, const char *name);
/* Bytes of the packet: base NFT_PAYLOAD_*. */
void vf_nft_bytes(struct vf_nft *n, int base, int offset, const void *value, int len, bool equal);
void vf_nft_ethertype(struct vf_nft *n, uint16_t type); /* of the packet (meta protocol) */
void vf_nft_family(struct vf_nft *n, int nfproto);
void vf_nft_from(struct vf_nft *n, const struct vf_cidr *c, bool equal);
void vf_nft_to(struct vf_nft *n, const struct vf_cidr *c, bool equal);
void vf_nft_protocol(struct vf_nft *n, uint8_t protocol);
void vf_nft_ports(struct vf_nft *n, uint16_t first, uint16_t last); /* destination, of TCP or UDP */
void vf_nft_icmp6_types(struct vf_nft *n, uint8_t first, uint8_t last);
void vf_nft_ct_state(struct vf_nft *n, uint32_t any_of);  /* NF_CT_STATE_*_BIT, see nft.c */
void vf_nft_ct_status(struct vf_nft *n, uint32_t any_of); /* IPS_* */
void vf_nft_to_local(struct vf_nft *n,
                     bool local);          /* the destination is an address of the host's */
void vf_nft_no_way_back(struct vf_nft *n); /* the source is not reached through where it came in */
/* TCP, but not a segment that begins a connection. */
void vf_nft_not_syn(struct vf_nft *n);
/* At most so many packets a second, and burst at once, for whatever comes to this rule. */
void vf_nft_limit(struct vf_nft *n, uint64_t packets_per_s, uint32_t burst);
void vf_nft_count(struct vf_nft *n, const char *counter);
void vf_nft_verdict(struct vf_nft *n, int verdict); /* NF_ACCEPT, NF_DROP */
void vf_nft_jump(struct vf_nft *n, const char *chain);
void vf_nft_dnat(struct vf_nft *n, const struct vf_ip *to);
void vf_nft_masquerade(struct vf_nft *n);
/* protocol . destination port is looked up in a map of address . port: DNAT to what is found. */
void vf_nft_dnat_map(struct vf_nft *n, int nfproto, const char *map);
/* The input interface [. protocol . destination port] is in the set. */
void vf_nft_in_set(struct vf_nft *n, const char *set, bool with_port);

/* The connection gets the mark that the map has for the input or output interface. */
void vf_nft_mark_by_in(struct vf_nft *n, const char *map);
void vf_nft_mark_by_out(struct vf_nft *n, const char *map);

#define VF_NFT_INVALID 1u    /* of no connection, and can't begin one */
#define VF_NFT_UNTRACKED 64u /* never of a connection: neighbour discovery, multicast groups */
#define VF_NFT_NEW 8u        /* the first packet of a connection */
#define VF_NFT_ESTABLISHED (2u | 4u) /* established, related: replies and what belongs to them */

/* ---- sets and maps */
#define VF_NFT_TYPE_IPV4 7u
#define VF_NFT_TYPE_IPV6 8u
#define VF_NFT_TYPE_PROTOCOL 12u
#define VF_NFT_TYPE_PORT 13u
#define VF_NFT_TYPE_MARK 19u
#define VF_NFT_TYPE_IFNAME 41u
#define VF_NFT_CONCAT(a, b) ((a) << 6 | (b))
struct vf_nft_set {
    const char *name;
    uint32_t id;                  /* unlike any other's in the transaction */
    int key_len, data_len;        /* bytes, each part of a key filled up to 4; data_len 0: a set */
    uint32_t key_type, data_type; /* as the nft command shows them: VF_NFT_TYPE_*, concatenated */
    bool counters;                /* one for each element */
};
void vf_nft_set_add(struct vf_nft *n, const struct vf_nft_set *s);
/* add, or delete */
void vf_nft_element(struct vf_nft *n, const struct vf_nft_set *s, bool add, const void *key,
                    const void *data);

/* ---- reading */
struct vf_nft_counter_value {
    char name[32];
    uint64_t packets, bytes;
};
typedef void (*vf_nft_counter_cb)(const struct vf_nft_counter_value *v, void *arg);
/* Calls each for every named counter of the table; zeroes them if reset. */
int vf_nft_counters(struct vf_nl *nl, int family, const char *table, bool reset,
                    vf_nft_counter_cb each, void *arg, struct vf_error *err);
typedef void (*vf_nft_element_cb)(const void *key, const void *data, uint64_t packets, void *arg);
/* Every element of a set or map; VF_NOT_FOUND: there is no such table or set. */
int vf_nft_elements(struct vf_nl *nl, int family, const char *table, const char *set,
                    vf_nft_element_cb each, void *arg, struct vf_error *err);
/* What the counter of one element of a set has counted; VF_NOT_FOUND: it is not in it. One question, however many others
 * there are. */
int vf_nft_element_packets(struct vf_nl *nl, int family, const char *table,
                           const struct vf_nft_set *s, const void *key, uint64_t *ret,
                           struct vf_error *err);
/* Whether there is such a table (VF_NOT_FOUND), and with this mark: else VF_CONFLICT. */
int vf_nft_table_mark(struct vf_nl *nl, int family, const char *table, const char *mark,
                      struct vf_error *err);
/* The number of the last change to any table of the namespace: what nobody changed is as we made it. */
int vf_nft_generation(struct vf_nl *nl, uint32_t *ret, struct vf_error *err);

#endif

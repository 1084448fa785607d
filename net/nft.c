/* Rules, part by part. See nft.h; tables and sets are in nft_table.c. */
#include "net/nft.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RULE 2048

static void fail(struct vf_nft *n)
{
    if (!n->b->failed)
        n->b->failed = -ENOMEM;
}

void vf_nft_rule(struct vf_nft *n, const char *chain)
{
    n->rule = nftnl_rule_alloc();
    if (!n->rule) {
        fail(n);
        return;
    }
    nftnl_rule_set_u32(n->rule, NFTNL_RULE_FAMILY, (uint32_t)n->family);
    nftnl_rule_set_str(n->rule, NFTNL_RULE_TABLE, n->table);
    nftnl_rule_set_str(n->rule, NFTNL_RULE_CHAIN, chain);
}

void vf_nft_done(struct vf_nft *n)
{
    void *at = n->rule ? vf_nl_reserve(n->b, MAX_RULE) : NULL;
    if (at) {
        struct nlmsghdr *h = nftnl_nlmsg_build_hdr(at, NFT_MSG_NEWRULE, (uint16_t)n->family,
                                                   NLM_F_APPEND | NLM_F_CREATE, 0);
        nftnl_rule_nlmsg_build_payload(h, n->rule);
        vf_nl_commit(n->b, "add a rule");
    }
    if (n->rule)
        nftnl_rule_free(n->rule);
    n->rule = NULL;
}

/* A new part of the rule, or NULL. */
static struct nftnl_expr *part(struct vf_nft *n, const char *kind)
{
    struct nftnl_expr *e = n->rule ? nftnl_expr_alloc(kind) : NULL;
    if (!e)
        fail(n);
    return e;
}

static void add(struct vf_nft *n, struct nftnl_expr *e)
{
    nftnl_rule_add_expr(n->rule, e);
}

static void compare(struct vf_nft *n, uint32_t op, const void *data, uint32_t len)
{
    struct nftnl_expr *e = part(n, "cmp");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, op);
    nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, data, len);
    add(n, e);
}

static uint32_t equality(bool equal)
{
    return equal ? NFT_CMP_EQ : NFT_CMP_NEQ;
}

static void load_meta(struct vf_nft *n, uint32_t key, uint32_t to)
{
    struct nftnl_expr *e = part(n, "meta");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
    nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, to);
    add(n, e);
}

static void load_bytes(struct vf_nft *n, int base, int offset, int len, uint32_t to)
{
    struct nftnl_expr *e = part(n, "payload");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, to);
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, (uint32_t)base);
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, (uint32_t)offset);
    nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, (uint32_t)len);
    add(n, e);
}

/* Register 1 &= mask. */
static void mask(struct vf_nft *n, const void *bits, uint32_t len)
{
    static const uint8_t zero[16];
    struct nftnl_expr *e = part(n, "bitwise");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, len);
    nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, bits, len);
    nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, zero, len);
    add(n, e);
}

/* ---- matches */

static void interface(struct vf_nft *n, uint32_t key, const char *name, bool equal)
{
    char text[IFNAMSIZ] = "";
    size_t len = strnlen(name, sizeof(text) - 1);
    bool prefix = len > 0 && name[len - 1] == '*';
    memcpy(text, name, len);
    load_meta(n, key, NFT_REG_1);
    compare(n, equality(equal), text, prefix ? (uint32_t)len - 1 : sizeof(text));
}

void vf_nft_in(struct vf_nft *n, const char *name)
{
    interface(n, NFT_META_IIFNAME, name, true);
}

void vf_nft_out(struct vf_nft *n, const char *name)
{
    interface(n, NFT_META_OIFNAME, name, true);
}

void vf_nft_not_out(struct vf_nft *n, const char *name)
{
    interface(n, NFT_META_OIFNAME, name, false);
}

void vf_nft_bytes(struct vf_nft *n, int base, int offset, const void *value, int len, bool equal)
{
    load_bytes(n, base, offset, len, NFT_REG_1);
    compare(n, equality(equal), value, (uint32_t)len);
}

void vf_nft_ethertype(struct vf_nft *n, uint16_t type)
{
    uint16_t wire = htons(type);
    load_meta(n, NFT_META_PROTOCOL, NFT_REG_1);
    compare(n, NFT_CMP_EQ, &wire, sizeof(wire));
}

void vf_nft_family(struct vf_nft *n, int nfproto)
{
    uint8_t p = (uint8_t)nfproto;
    if (n->family == NFPROTO_NETDEV) {
        vf_nft_ethertype(n, nfproto == NFPROTO_IPV4 ? 0x0800 : 0x86dd);
        return;
    }
    load_meta(n, NFT_META_NFPROTO, NFT_REG_1);
    compare(n, NFT_CMP_EQ, &p, sizeof(p));
}

static void match_prefix(struct vf_nft *n, const struct vf_cidr *c, bool source, bool equal)
{
    uint8_t bits[16] = {0};
    int len = vf_ip_len(&c->ip);
    bool is4 = c->ip.family == AF_INET;
    int offset = is4 ? (source ? 12 : 16) : (source ? 8 : 24);

    vf_nft_family(n, is4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
    if (c->bits == 0 && equal)
        return;
    load_bytes(n, NFT_PAYLOAD_NETWORK_HEADER, offset, len, NFT_REG_1);
    if (c->bits < 8 * len) {
        for (int i = 0; i < c->bits; i++)
            bits[i / 8] |= (uint8_t)(0x80 >> i % 8);
        mask(n, bits, (uint32_t)len);
    }
    compare(n, equality(equal), c->ip.b, (uint32_t)len);
}

void vf_nft_from(struct vf_nft *n, const struct vf_cidr *c, bool equal)
{
    match_prefix(n, c, true, equal);
}

void vf_nft_to(struct vf_nft *n, const struct vf_cidr *c, bool equal)
{
    match_prefix(n, c, false, equal);
}

void vf_nft_protocol(struct vf_nft *n, uint8_t protocol)
{
    load_meta(n, NFT_META_L4PROTO, NFT_REG_1);
    compare(n, NFT_CMP_EQ, &protocol, sizeof(protocol));
}

static void range(struct vf_nft *n, const void *first, const void *last, uint32_t len)
{
    if (memcmp(first, last, len) == 0) {
        compare(n, NFT_CMP_EQ, first, len);
        return;
    }
    compare(n, NFT_CMP_GTE, first, len);
    compare(n, NFT_CMP_LTE, last, len);
}

void vf_nft_ports(struct vf_nft *n, uint16_t first, uint16_t last)
{
    uint16_t a = htons(first), b = htons(last);
    load_bytes(n, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
    range(n, &a, &b, sizeof(a));
}

void vf_nft_icmp6_types(struct vf_nft *n, uint8_t first, uint8_t last)
{
    vf_nft_protocol(n, IPPROTO_ICMPV6);
    load_bytes(n, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG_1);
    range(n, &first, &last, sizeof(first));
}

void vf_nft_not_syn(struct vf_nft *n)
{
    static const uint8_t flags = 0x17, syn = 0x02; /* of FIN, SYN, RST, ACK */
    vf_nft_protocol(n, IPPROTO_TCP);
    load_bytes(n, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, NFT_REG_1);
    mask(n, &flags, sizeof(flags));
    compare(n, NFT_CMP_NEQ, &syn, sizeof(syn));
}

void vf_nft_limit(struct vf_nft *n, uint64_t packets_per_s, uint32_t burst)
{
    struct nftnl_expr *e = part(n, "limit");
    if (!e)
        return;
    nftnl_expr_set_u64(e, NFTNL_EXPR_LIMIT_RATE, packets_per_s);
    nftnl_expr_set_u64(e, NFTNL_EXPR_LIMIT_UNIT, 1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_LIMIT_BURST, burst);
    nftnl_expr_set_u32(e, NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS);
    add(n, e);
}

static void match_ct(struct vf_nft *n, uint32_t key, uint32_t any_of)
{
    struct nftnl_expr *e = part(n, "ct");
    uint32_t zero = 0;
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, key);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, NFT_REG_1);
    add(n, e);
    mask(n, &any_of, sizeof(any_of));
    compare(n, NFT_CMP_NEQ, &zero, sizeof(zero));
}

void vf_nft_ct_state(struct vf_nft *n, uint32_t any_of)
{
    match_ct(n, NFT_CT_STATE, any_of);
}

void vf_nft_ct_status(struct vf_nft *n, uint32_t any_of)
{
    match_ct(n, NFT_CT_STATUS, any_of);
}

static void fib(struct vf_nft *n, uint32_t result, uint32_t flags, bool equal, uint32_t value)
{
    struct nftnl_expr *e = part(n, "fib");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
    nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_RESULT, result);
    nftnl_expr_set_u32(e, NFTNL_EXPR_FIB_FLAGS, flags);
    add(n, e);
    compare(n, equality(equal), &value, sizeof(value));
}

void vf_nft_to_local(struct vf_nft *n, bool local)
{
    enum { LOCAL = 2 }; /* RTN_LOCAL */
    fib(n, NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR, local, LOCAL);
}

void vf_nft_no_way_back(struct vf_nft *n)
{
    fib(n, NFT_FIB_RESULT_OIF, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF, true, 0);
}

static void lookup(struct vf_nft *n, const char *set, bool map)
{
    struct nftnl_expr *e = part(n, "lookup");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
    if (map)
        nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_1);
    nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, set);
    add(n, e);
}

static void mark_by(struct vf_nft *n, uint32_t meta, const char *map)
{
    load_meta(n, meta, NFT_REG_1);
    lookup(n, map, true);
    struct nftnl_expr *e = part(n, "ct");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, NFT_CT_MARK);
    nftnl_expr_set_u32(e, NFTNL_EXPR_CT_SREG, NFT_REG_1);
    add(n, e);
}

void vf_nft_mark_by_in(struct vf_nft *n, const char *map)
{
    mark_by(n, NFT_META_IIFNAME, map);
}

void vf_nft_mark_by_out(struct vf_nft *n, const char *map)
{
    mark_by(n, NFT_META_OIFNAME, map);
}

void vf_nft_in_set(struct vf_nft *n, const char *set, bool with_port)
{
    load_meta(n, NFT_META_IIFNAME, NFT_REG_1);
    if (with_port) { /* 16 bytes of name, then 4 and 4 */
        load_meta(n, NFT_META_L4PROTO, NFT_REG32_04);
        load_bytes(n, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG32_05);
    }
    lookup(n, set, false);
}

/* ---- what a rule does */

void vf_nft_count(struct vf_nft *n, const char *counter)
{
    struct nftnl_expr *e = part(n, "objref");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
    nftnl_expr_set_str(e, NFTNL_EXPR_OBJREF_IMM_NAME, counter);
    add(n, e);
}

static void verdict(struct vf_nft *n, int code, const char *chain)
{
    struct nftnl_expr *e = part(n, "immediate");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
    nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)code);
    if (chain)
        nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, chain);
    add(n, e);
}

void vf_nft_verdict(struct vf_nft *n, int code)
{
    verdict(n, code, NULL);
}

void vf_nft_jump(struct vf_nft *n, const char *chain)
{
    verdict(n, NFT_JUMP, chain);
}

/* To the address in register 1 and, if port_register, the port there. */
static void dnat(struct vf_nft *n, int nfproto, uint32_t port_register)
{
    struct nftnl_expr *e = part(n, "nat");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_TYPE, NFT_NAT_DNAT);
    nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_FAMILY, (uint32_t)nfproto);
    nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_REG_ADDR_MIN, NFT_REG_1);
    if (port_register)
        nftnl_expr_set_u32(e, NFTNL_EXPR_NAT_REG_PROTO_MIN, port_register);
    add(n, e);
}

void vf_nft_dnat(struct vf_nft *n, const struct vf_ip *to)
{
    struct nftnl_expr *e = part(n, "immediate");
    if (!e)
        return;
    nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
    nftnl_expr_set(e, NFTNL_EXPR_IMM_DATA, to->b, (uint32_t)vf_ip_len(to));
    add(n, e);
    dnat(n, to->family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6, 0);
}

void vf_nft_dnat_map(struct vf_nft *n, int nfproto, const char *map)
{
    load_meta(n, NFT_META_L4PROTO, NFT_REG32_00);
    load_bytes(n, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG32_01);
    lookup(n, map, true);
    dnat(n, nfproto, nfproto == NFPROTO_IPV4 ? NFT_REG32_01 : NFT_REG32_04);
}

void vf_nft_masquerade(struct vf_nft *n)
{
    struct nftnl_expr *e = part(n, "masq");
    if (e)
        add(n, e);
}

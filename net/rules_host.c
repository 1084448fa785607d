/* The host's table: its chains, and its sets, which are empty as yet. See rules.h; what slots have in the sets is in
 * rules_host_slots.c.
 *
 * Made anew at each start, in one batch that keeps what the sets have of today's prefixes. A table of this name without
 * our mark is somebody else's, and refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net/needs.h"
#include "net/rules_host.h"

#define MARK "vmfactory's slots, version 1"
#define STATUS_DNAT (1u << 5)
#define PRIORITY_RAW (-300)
#define PRIORITY_MANGLE (-150)
#define PRIORITY_DSTNAT (-100)
#define PRIORITY_SRCNAT 100

static const struct vf_cidr loopback4 = {{.family = AF_INET, .b = {127}}, 8};

const struct vf_nft_set vf_host_sets[VF_HOST_SETS] = {
    [VF_HOST_SLOTS] = {"slots", 1, IFNAMSIZ, 0, VF_NFT_TYPE_IFNAME, 0, true},
    [VF_HOST_OPENED] = {"opened", 2, IFNAMSIZ + 8, 0,
                        VF_NFT_CONCAT(VF_NFT_CONCAT(VF_NFT_TYPE_IFNAME, VF_NFT_TYPE_PROTOCOL),
                                      VF_NFT_TYPE_PORT),
                        0, false},
    [VF_HOST_PORTS4] = {"ports4", 3, 8, 8, VF_NFT_CONCAT(VF_NFT_TYPE_PROTOCOL, VF_NFT_TYPE_PORT),
                        VF_NFT_CONCAT(VF_NFT_TYPE_IPV4, VF_NFT_TYPE_PORT), false},
    [VF_HOST_PORTS6] = {"ports6", 4, 8, 20, VF_NFT_CONCAT(VF_NFT_TYPE_PROTOCOL, VF_NFT_TYPE_PORT),
                        VF_NFT_CONCAT(VF_NFT_TYPE_IPV6, VF_NFT_TYPE_PORT), false},
    [VF_HOST_MARKS] = {"marks", 5, IFNAMSIZ, 4, VF_NFT_TYPE_IFNAME, VF_NFT_TYPE_MARK, false},
};

/* ---- the table */

static void simple(struct vf_nft *n, int verdict)
{
    vf_nft_verdict(n, verdict);
    vf_nft_done(n);
}

/* What comes out of a slot has an address that leads back there. */
static void sources(struct vf_nft *n, const char *from_slots)
{
    vf_nft_base_chain(n, "source", "filter", NF_INET_PRE_ROUTING, PRIORITY_RAW, NF_ACCEPT, NULL);
    vf_nft_rule(n, "source");
    vf_nft_in(n, from_slots);
    vf_nft_icmp6_types(n, 130, 143); /* neighbours and multicast groups, some from no address */
    simple(n, NF_ACCEPT);
    vf_nft_rule(n, "source");
    vf_nft_in(n, from_slots);
    vf_nft_no_way_back(n);
    simple(n, NF_DROP);
    /* The host's ends let packets of 127.0.0.0/8 pass, for what is published there; none comes from a slot. */
    vf_nft_rule(n, "source");
    vf_nft_in(n, from_slots);
    vf_nft_to(n, &loopback4, true);
    simple(n, NF_DROP);
}

static void to_host(struct vf_nft *n, const char *from_slots)
{
    vf_nft_chain(n, "to_host");
    vf_nft_base_chain(n, "input", "filter", NF_INET_LOCAL_IN, 0, NF_ACCEPT, NULL);
    vf_nft_rule(n, "input");
    vf_nft_in(n, from_slots);
    vf_nft_jump(n, "to_host");
    vf_nft_done(n);

    vf_nft_rule(n, "to_host");
    vf_nft_ct_state(n, VF_NFT_ESTABLISHED);
    simple(n, NF_ACCEPT);
    vf_nft_rule(n, "to_host");
    vf_nft_icmp6_types(n, 135, 136);
    simple(n, NF_ACCEPT);
    vf_nft_rule(n, "to_host");
    vf_nft_in_set(n, vf_host_sets[VF_HOST_OPENED].name, true);
    simple(n, NF_ACCEPT);
    vf_nft_rule(n, "to_host");
    vf_nft_in_set(n, vf_host_sets[VF_HOST_SLOTS].name, false); /* counts by slot */
    simple(n, NF_DROP);
    vf_nft_rule(n, "to_host");
    simple(n, NF_DROP);
}

/* Connections of slots, whoever began them, are known by their mark when the slot is wiped. */
static void marks(struct vf_nft *n, const char *slots)
{
    vf_nft_base_chain(n, "mark_from", "filter", NF_INET_PRE_ROUTING, PRIORITY_MANGLE, NF_ACCEPT,
                      NULL);
    vf_nft_rule(n, "mark_from");
    vf_nft_in(n, slots);
    vf_nft_ct_state(n, VF_NFT_NEW);
    vf_nft_mark_by_in(n, vf_host_sets[VF_HOST_MARKS].name);
    vf_nft_done(n);
    vf_nft_base_chain(n, "mark_to", "filter", NF_INET_POST_ROUTING, PRIORITY_MANGLE, NF_ACCEPT,
                      NULL);
    vf_nft_rule(n, "mark_to");
    vf_nft_out(n, slots);
    vf_nft_ct_state(n, VF_NFT_NEW);
    vf_nft_mark_by_out(n, vf_host_sets[VF_HOST_MARKS].name);
    vf_nft_done(n);
}

static void forward(struct vf_nft *n, const char *slots)
{
    vf_nft_chain(n, "from_slots");
    vf_nft_chain(n, "to_slots");
    vf_nft_base_chain(n, "forward", "filter", NF_INET_FORWARD, 0, NF_ACCEPT, NULL);
    vf_nft_rule(n, "forward");
    vf_nft_in(n, slots);
    vf_nft_jump(n, "from_slots");
    vf_nft_done(n);
    vf_nft_rule(n, "forward");
    vf_nft_out(n, slots);
    vf_nft_jump(n, "to_slots");
    vf_nft_done(n);

    vf_nft_rule(n, "from_slots");
    vf_nft_out(n, slots);
    simple(n, NF_DROP);
    vf_nft_rule(n, "from_slots");
    vf_nft_ct_state(n, VF_NFT_INVALID | VF_NFT_UNTRACKED);
    simple(n, NF_DROP);

    vf_nft_rule(n, "to_slots");
    vf_nft_ct_state(n, VF_NFT_ESTABLISHED);
    simple(n, NF_ACCEPT);
    vf_nft_rule(n, "to_slots");
    vf_nft_ct_status(n, STATUS_DNAT);
    simple(n, NF_ACCEPT);
    vf_nft_rule(n, "to_slots");
    simple(n, NF_DROP);
}

static void inward(struct vf_nft *n, const char *chain, bool own_packets)
{
    static const struct vf_cidr loopback6 = {{.family = AF_INET6, .b = {[15] = 1}}, 128};
    for (int i = 0; i < 2; i++) {
        vf_nft_rule(n, chain);
        if (own_packets && i == 1) /* from ::1 there is no way out */
            vf_nft_to(n, &loopback6, false);
        else
            vf_nft_family(n, i == 0 ? NFPROTO_IPV4 : NFPROTO_IPV6);
        vf_nft_to_local(n, true);
        vf_nft_dnat_map(n, i == 0 ? NFPROTO_IPV4 : NFPROTO_IPV6,
                        vf_host_sets[VF_HOST_PORTS4 + i].name);
        vf_nft_done(n);
    }
}

static void outward(struct vf_nft *n, const struct vf_address_pool *pool, const char *slots)
{
    vf_nft_base_chain(n, "outward", "nat", NF_INET_POST_ROUTING, PRIORITY_SRCNAT, NF_ACCEPT, NULL);
    for (int i = 0; i < pool->n_prefixes; i++) {
        vf_nft_rule(n, "outward");
        vf_nft_from(n, &pool->prefixes[i], true);
        vf_nft_not_out(n, slots);
        vf_nft_masquerade(n);
        vf_nft_done(n);
    }
    /* From 127.0.0.1 to a published port: answers have to find back. */
    vf_nft_rule(n, "outward");
    vf_nft_out(n, slots);
    vf_nft_from(n, &loopback4, true);
    vf_nft_masquerade(n);
    vf_nft_done(n);
}

static void make(struct vf_nft *n, const struct vf_host_rules *h)
{
    char slots[IFNAMSIZ];
    snprintf(slots, sizeof(slots), "%s*", h->prefix);
    vf_nft_table(n, MARK);
    for (int i = 0; i < VF_HOST_SETS; i++)
        vf_nft_set_add(n, &vf_host_sets[i]);
    sources(n, slots);
    to_host(n, slots);
    marks(n, slots);
    forward(n, slots);
    vf_nft_base_chain(n, "inward", "nat", NF_INET_PRE_ROUTING, PRIORITY_DSTNAT, NF_ACCEPT, NULL);
    inward(n, "inward", false);
    vf_nft_base_chain(n, "own", "nat", NF_INET_LOCAL_OUT, PRIORITY_DSTNAT, NF_ACCEPT, NULL);
    inward(n, "own", true);
    outward(n, h->pool, slots);
}

/* ---- making it */

/* Ports that lead to addresses which the pool has no more lead nowhere. */
static bool is_todays(const struct vf_host_rules *h, const struct vf_host_element *e)
{
    struct vf_ip ip = {.family = e->set == VF_HOST_PORTS4 ? AF_INET : AF_INET6};
    if (e->set != VF_HOST_PORTS4 && e->set != VF_HOST_PORTS6)
        return true;
    memcpy(ip.b, e->data, (size_t)vf_ip_len(&ip));
    for (int i = 0; i < h->pool->n_prefixes; i++)
        if (vf_cidr_contains(&h->pool->prefixes[i], &ip))
            return true;
    return false;
}

int vf_host_rules_make(struct vf_nl *nl, const struct vf_host_rules *h, struct vf_error *err)
{
    struct vf_nl_batch b = {0};
    struct vf_host_elements e = {0};
    struct vf_nft n;

    struct vf_error why;
    int r = vf_nft_table_mark(nl, NFPROTO_INET, h->table, MARK, &why);
    bool there = r == 0;
    if (there)
        r = vf_host_elements(nl, h, 0, VF_HOST_SETS - 1, &e, err);
    else if (r == -ENOENT)
        r = 0;
    else
        vf_error_copy(err, &why);
    if (r == 0) {
        vf_nft_begin(&n, &b, NFPROTO_INET, h->table);
        if (there) /* in one transaction: at no time are there no rules */
            vf_nft_delete_table(&n);
        make(&n, h);
        for (int i = 0; i < e.n; i++)
            if (is_todays(h, &e.v[i]))
                vf_nft_element(&n, &vf_host_sets[e.v[i].set], true, e.v[i].key, e.v[i].data);
        vf_nft_end(&n);
        r = vf_need(vf_nl_send(nl, &b, err), VF_NEED_HOST_RULES, err);
    }
    vf_nl_batch_free(&b);
    free(e.v);
    return r;
}

int vf_host_rules_remove(struct vf_nl *nl, const struct vf_host_rules *h, struct vf_error *err)
{
    struct vf_nl_batch b = {0};
    struct vf_nft n;
    vf_nft_begin(&n, &b, NFPROTO_INET, h->table);
    vf_nft_delete_table(&n);
    vf_nft_end(&n);
    int r = vf_nl_send(nl, &b, err);
    vf_nl_batch_free(&b);
    return r == -ENOENT ? 0 : vf_host_rules_explain(r, err);
}

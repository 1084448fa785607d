/* The tables in a slot's namespace. See rules.h. */
#include "net/rules.h"

#include <string.h>
#include "net/nft.h"

#define STATUS_DNAT (1u << 5) /* IPS_DST_NAT */
/* Of neighbour discovery from link-local addresses: a guest needs a few in a minute. */
#define NEIGHBOURS_PER_S 4
#define NEIGHBOURS_BURST 16
#define PRIORITY_DSTNAT (-100)
#define PRIORITY_SRCNAT 100

/* clang-format off */
#define IP4(w, x, y, z) {.family = AF_INET, .b = {w, x, y, z}}
#define FD76(last) {.family = AF_INET6, .b = {0xfd, 0x76, 0x6d, 0x00, [15] = last}}
/* clang-format on */

const struct vf_inside vf_inside = {
    .gateway4 = IP4(172, 31, 255, 1),
    .guest4 = IP4(172, 31, 255, 2),
    .gateway6 = FD76(1),
    .guest6 = FD76(2),
    .bits4 = 30,
    .bits6 = 64,
    .router6 = {.family = AF_INET6, .b = {0xfe, 0x80, [15] = 1}},
    .gateway_mac = {{0x02, 0x76, 0x6d, 0, 0, 1}},
    .guest_mac = {{0x02, 0x76, 0x6d, 0, 0, 2}},
};

const char *const vf_egress_names[] = {"allow", "deny", "list", NULL};
const char *const vf_refusal_names[] = {"mac",      "arp",    "address", "gateway", "guests",
                                        "metadata", "policy", "invalid", "host",    NULL};
_Static_assert(sizeof(vf_refusal_names) / sizeof(vf_refusal_names[0]) == VF_REFUSAL_COUNT + 1, "");
/* The counters' names in the kernel: some of the above are words of the nft command. */
static const char *const counters[] = {"refused_mac",     "refused_arp",     "refused_address",
                                       "refused_gateway", "refused_guests",  "refused_metadata",
                                       "refused_policy",  "refused_invalid", "refused_host"};
_Static_assert(sizeof(counters) / sizeof(counters[0]) == VF_REFUSAL_COUNT, "");
#define FIRST_INET VF_REFUSED_GATEWAY

static const struct vf_cidr metadata[] = {
    {IP4(169, 254, 0, 0), 16},
    {{.family = AF_INET6, .b = {0xfe, 0x80}}, 10},
    {IP4(100, 100, 100, 200), 32},
    {{.family = AF_INET6, .b = {0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54}}, 128},
    {{.family = AF_INET6, .b = {0xfd, 0x20, 0x00, 0xce, [14] = 0x02, [15] = 0x54}}, 128},
};
static const int families[] = {AF_INET, AF_INET6};

/* As a NAT64 translator (64:ff9b::/96) on the way would lead to it. */
static struct vf_cidr by_nat64(const struct vf_cidr *c)
{
    struct vf_cidr six = {.ip = {.family = AF_INET6, .b = {0x00, 0x64, 0xff, 0x9b}},
                          .bits = 96 + c->bits};
    memcpy(six.ip.b + 12, c->ip.b, 4);
    return six;
}

static struct vf_cidr only(const struct vf_ip *ip)
{
    return (struct vf_cidr){.ip = *ip, .bits = 8 * vf_ip_len(ip)};
}

static void refuse(struct vf_nft *n, enum vf_refusal why)
{
    vf_nft_count(n, counters[why]);
    vf_nft_verdict(n, NF_DROP);
    vf_nft_done(n);
}

static void accept_it(struct vf_nft *n)
{
    vf_nft_verdict(n, NF_ACCEPT);
    vf_nft_done(n);
}

/* ---- netdev: what leaves the tap */

static void arp_is_true(struct vf_nft *n, const char *chain, const struct vf_mac *mac,
                        const struct vf_ip *sender)
{
    vf_nft_rule(n, chain);
    vf_nft_ethertype(n, 0x0806);
    vf_nft_bytes(n, NFT_PAYLOAD_NETWORK_HEADER, 8, mac->b, sizeof(mac->b), true);
    vf_nft_bytes(n, NFT_PAYLOAD_NETWORK_HEADER, 14, sender->b, 4, true);
    accept_it(n);
}

static void from(struct vf_nft *n, const char *chain, const struct vf_cidr *c)
{
    vf_nft_rule(n, chain);
    vf_nft_from(n, c, true);
    accept_it(n);
}

static void anti_spoofing(struct vf_nft *n, const struct vf_mac *mac)
{
    static const struct vf_ip none = {.family = AF_INET};
    static const struct vf_cidr unspecified = {{.family = AF_INET6}, 128};
    static const struct vf_cidr link_local = {{.family = AF_INET6, .b = {0xfe, 0x80}}, 64};
    struct vf_cidr guest4 = only(&vf_inside.guest4), guest6 = only(&vf_inside.guest6);
    const char *chain = "guest";

    vf_nft_table(n, NULL);
    for (int i = 0; i < FIRST_INET; i++)
        vf_nft_counter(n, counters[i]);
    vf_nft_base_chain(n, chain, "filter", NF_NETDEV_INGRESS, 0, NF_DROP, VF_NET_TAP);

    vf_nft_rule(n, chain);
    vf_nft_bytes(n, NFT_PAYLOAD_LL_HEADER, 6, mac->b, sizeof(mac->b), false);
    refuse(n, VF_REFUSED_MAC);
    from(n, chain, &guest4);
    from(n, chain, &guest6);
    arp_is_true(n, chain, mac, &vf_inside.guest4);
    arp_is_true(n, chain, mac, &none); /* a probe before it takes its address */
    vf_nft_rule(n, chain);
    vf_nft_ethertype(n, 0x0806);
    refuse(n, VF_REFUSED_ARP);
    /* Neighbour discovery. Link-local addresses are never forwarded, and the gateway takes nothing else. Each one makes
     * a neighbour in a table that the kernel has once for all namespaces. */
    vf_nft_rule(n, chain);
    vf_nft_from(n, &link_local, true);
    vf_nft_limit(n, NEIGHBOURS_PER_S, NEIGHBOURS_BURST);
    accept_it(n);
    vf_nft_rule(n, chain);
    vf_nft_from(n, &unspecified, true);
    vf_nft_protocol(n, IPPROTO_ICMPV6);
    accept_it(n);
    vf_nft_rule(n, chain);
    refuse(n, VF_REFUSED_ADDRESS);
}

/* ---- inet */

static void nat(struct vf_nft *n, const struct vf_net_rules *r)
{
    vf_nft_base_chain(n, "inward", "nat", NF_INET_PRE_ROUTING, PRIORITY_DSTNAT, NF_ACCEPT, NULL);
    vf_nft_base_chain(n, "outward", "nat", NF_INET_POST_ROUTING, PRIORITY_SRCNAT, NF_ACCEPT, NULL);
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        if (!vf_addresses_pair(r->pool, r->number, families[i], &pair))
            continue;
        struct vf_cidr slot = only(&pair.slot);
        vf_nft_rule(n, "inward");
        vf_nft_in(n, VF_NET_UPLINK);
        vf_nft_to(n, &slot, true);
        vf_nft_dnat(n, i == 0 ? &vf_inside.guest4 : &vf_inside.guest6);
        vf_nft_done(n);
    }
    vf_nft_rule(n, "outward");
    vf_nft_out(n, VF_NET_UPLINK);
    vf_nft_masquerade(n);
    vf_nft_done(n);
}

static void to_gateway(struct vf_nft *n)
{
    vf_nft_base_chain(n, "input", "filter", NF_INET_LOCAL_IN, 0, NF_DROP, NULL);
    vf_nft_rule(n, "input");
    vf_nft_icmp6_types(n, 135, 136); /* neighbour discovery */
    accept_it(n);
    vf_nft_rule(n, "input");
    vf_nft_in(n, VF_NET_TAP);
    refuse(n, VF_REFUSED_GATEWAY);
}

static void forward(struct vf_nft *n)
{
    vf_nft_chain(n, "egress");
    vf_nft_base_chain(n, "forward", "filter", NF_INET_FORWARD, 0, NF_DROP, NULL);
    vf_nft_rule(n, "forward");
    vf_nft_ct_state(n, VF_NFT_ESTABLISHED);
    accept_it(n);
    /* What belongs to no connection would leave without being translated. */
    vf_nft_rule(n, "forward");
    vf_nft_ct_state(n, VF_NFT_INVALID | VF_NFT_UNTRACKED);
    refuse(n, VF_REFUSED_INVALID);
    /* What a client of the slot's last user sends again would else be taken for a new connection, and delivered. */
    vf_nft_rule(n, "forward");
    vf_nft_in(n, VF_NET_UPLINK);
    vf_nft_not_syn(n);
    refuse(n, VF_REFUSED_INVALID);
    vf_nft_rule(n, "forward");
    vf_nft_in(n, VF_NET_UPLINK);
    vf_nft_ct_status(n, STATUS_DNAT);
    accept_it(n);
    vf_nft_rule(n, "forward");
    vf_nft_in(n, VF_NET_TAP);
    vf_nft_out(n, VF_NET_UPLINK);
    vf_nft_jump(n, "egress");
    vf_nft_done(n);
}

static void allow_rule(struct vf_nft *n, const struct vf_egress_rule *e)
{
    vf_nft_rule(n, "egress");
    vf_nft_to(n, &e->to, true);
    if (e->protocol)
        vf_nft_protocol(n, e->protocol);
    if (e->protocol && e->last_port)
        vf_nft_ports(n, e->first_port, e->last_port);
    accept_it(n);
}

static void refuse_to(struct vf_nft *n, const struct vf_cidr *to, enum vf_refusal why)
{
    vf_nft_rule(n, "egress");
    vf_nft_to(n, to, true);
    refuse(n, why);
    if (to->ip.family != AF_INET)
        return;
    struct vf_cidr six = by_nat64(to);
    vf_nft_rule(n, "egress");
    vf_nft_to(n, &six, true);
    refuse(n, why);
}

static void egress(struct vf_nft *n, const struct vf_net_rules *r, const struct vf_policy *p)
{
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        if (!vf_addresses_pair(r->pool, r->number, families[i], &pair) || !pair.host.family)
            continue;
        struct vf_cidr host = only(&pair.host);
        vf_nft_rule(n, "egress");
        vf_nft_to(n, &host, true);
        /* Behind a bridge nobody could tell whose packet it is; else the host's own rules decide. */
        if (r->pool->singles)
            refuse(n, VF_REFUSED_HOST);
        else
            accept_it(n);
    }
    for (int i = 0; i < r->pool->n_prefixes; i++)
        refuse_to(n, &r->pool->prefixes[i], VF_REFUSED_GUESTS);
    for (size_t i = 0; !p->open_metadata && i < sizeof(metadata) / sizeof(metadata[0]); i++)
        refuse_to(n, &metadata[i], VF_REFUSED_METADATA);
    for (int i = 0; p->egress == VF_EGRESS_LIST && i < p->n_rules; i++)
        allow_rule(n, &p->rules[i]);
    vf_nft_rule(n, "egress");
    if (p->egress == VF_EGRESS_ALLOW)
        accept_it(n);
    else
        refuse(n, VF_REFUSED_POLICY);
}

void vf_rules_slot(struct vf_nl_batch *b, const struct vf_net_rules *r)
{
    static const struct vf_policy plain;
    struct vf_nft n;
    vf_nft_begin(&n, b, NFPROTO_NETDEV, VF_NET_TABLE);
    anti_spoofing(&n, &r->guest_mac);
    vf_nft_use(&n, NFPROTO_INET, VF_NET_TABLE);
    vf_nft_table(&n, NULL);
    for (int i = FIRST_INET; i < VF_REFUSAL_COUNT; i++)
        vf_nft_counter(&n, counters[i]);
    nat(&n, r);
    to_gateway(&n);
    forward(&n);
    egress(&n, r, &plain);
    vf_nft_end(&n);
}

void vf_rules_egress(struct vf_nl_batch *b, const struct vf_net_rules *r,
                     const struct vf_policy *policy)
{
    struct vf_nft n;
    vf_nft_begin(&n, b, NFPROTO_INET, VF_NET_TABLE);
    vf_nft_flush(&n, "egress");
    egress(&n, r, policy);
    vf_nft_end(&n);
}

static void add_refused(const struct vf_nft_counter_value *v, void *arg)
{
    uint64_t *refused = arg;
    for (int i = 0; i < VF_REFUSAL_COUNT; i++)
        if (strcmp(v->name, counters[i]) == 0)
            refused[i] += v->packets;
}

int vf_rules_refused(struct vf_nl *nl, bool reset, uint64_t *refused, struct vf_error *err)
{
    int r = vf_nft_counters(nl, NFPROTO_NETDEV, VF_NET_TABLE, reset, add_refused, refused, err);
    if (r == 0)
        r = vf_nft_counters(nl, NFPROTO_INET, VF_NET_TABLE, reset, add_refused, refused, err);
    return r;
}

/* The host's table. See rules.h. */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net/needs.h"
#include "net/nft.h"
#include "net/rules.h"

#define MARK "vmfactory's slots, version 1"
#define STATUS_DNAT (1u << 5)
#define PRIORITY_RAW (-300)
#define PRIORITY_MANGLE (-150)
#define PRIORITY_DSTNAT (-100)
#define PRIORITY_SRCNAT 100
#define MAX_READS 100
#define MAX_KEY 24
#define MAX_DATA 20

static const struct vf_cidr loopback4 = {{.family = AF_INET, .b = {127}}, 8};

enum { SLOTS, OPENED, PORTS4, PORTS6, MARKS, N_SETS };
static const struct vf_nft_set sets[N_SETS] = {
    [SLOTS] = {"slots", 1, IFNAMSIZ, 0, VF_NFT_TYPE_IFNAME, 0, true},
    [OPENED] = {"opened", 2, IFNAMSIZ + 8, 0,
                VF_NFT_CONCAT(VF_NFT_CONCAT(VF_NFT_TYPE_IFNAME, VF_NFT_TYPE_PROTOCOL),
                              VF_NFT_TYPE_PORT),
                0, false},
    [PORTS4] = {"ports4", 3, 8, 8, VF_NFT_CONCAT(VF_NFT_TYPE_PROTOCOL, VF_NFT_TYPE_PORT),
                VF_NFT_CONCAT(VF_NFT_TYPE_IPV4, VF_NFT_TYPE_PORT), false},
    [PORTS6] = {"ports6", 4, 8, 20, VF_NFT_CONCAT(VF_NFT_TYPE_PROTOCOL, VF_NFT_TYPE_PORT),
                VF_NFT_CONCAT(VF_NFT_TYPE_IPV6, VF_NFT_TYPE_PORT), false},
    [MARKS] = {"marks", 5, IFNAMSIZ, 4, VF_NFT_TYPE_IFNAME, VF_NFT_TYPE_MARK, false},
};

/* ---- the elements of a slot */

static void name_key(const struct vf_host_rules *h, int number, uint8_t key[MAX_KEY])
{
    char name[IFNAMSIZ] = "";
    snprintf(name, sizeof(name), "%s%d", h->prefix, number);
    memset(key, 0, MAX_KEY);
    memcpy(key, name, sizeof(name));
}

static void port_key(const struct vf_port *p, uint8_t *key)
{
    uint16_t port = htons(p->port);
    memset(key, 0, 8);
    key[0] = p->protocol;
    memcpy(key + 4, &port, sizeof(port));
}

static void port_data(const struct vf_ip *ip, const struct vf_port *p, uint8_t data[MAX_DATA])
{
    uint16_t port = htons(p->guest);
    memset(data, 0, MAX_DATA);
    memcpy(data, ip->b, (size_t)vf_ip_len(ip));
    memcpy(data + vf_ip_len(ip), &port, sizeof(port));
}

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
    vf_nft_in_set(n, sets[OPENED].name, true);
    simple(n, NF_ACCEPT);
    vf_nft_rule(n, "to_host");
    vf_nft_in_set(n, sets[SLOTS].name, false); /* counts by slot */
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
    vf_nft_mark_by_in(n, sets[MARKS].name);
    vf_nft_done(n);
    vf_nft_base_chain(n, "mark_to", "filter", NF_INET_POST_ROUTING, PRIORITY_MANGLE, NF_ACCEPT,
                      NULL);
    vf_nft_rule(n, "mark_to");
    vf_nft_out(n, slots);
    vf_nft_ct_state(n, VF_NFT_NEW);
    vf_nft_mark_by_out(n, sets[MARKS].name);
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
        vf_nft_dnat_map(n, i == 0 ? NFPROTO_IPV4 : NFPROTO_IPV6, sets[PORTS4 + i].name);
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
    for (int i = 0; i < N_SETS; i++)
        vf_nft_set_add(n, &sets[i]);
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

/* ---- elements that are there */

struct element {
    int set;
    uint8_t key[MAX_KEY], data[MAX_DATA];
    uint64_t packets;
};
struct elements {
    struct element *v;
    int n, cap, set;
    bool failed;
};

static void keep_element(const void *key, const void *data, uint64_t packets, void *arg)
{
    struct elements *e = arg;
    if (e->n == e->cap) {
        int cap = 2 * e->cap + 64;
        struct element *v = realloc(e->v, (size_t)cap * sizeof(*v));
        if (!v) {
            e->failed = true;
            return;
        }
        e->v = v;
        e->cap = cap;
    }
    struct element *one = &e->v[e->n];
    *one = (struct element){.set = e->set, .packets = packets};
    if (!key || (sets[e->set].data_len && !data))
        return;
    memcpy(one->key, key, (size_t)sets[e->set].key_len);
    if (sets[e->set].data_len)
        memcpy(one->data, data, (size_t)sets[e->set].data_len);
    e->n++;
}

/* Others change the host's rules while they are read: then they are read again. */
static int read_elements(struct vf_nl *nl, const struct vf_host_rules *h, int first, int last,
                         struct elements *e, struct vf_error *err)
{
    for (e->set = first; e->set <= last; e->set++) {
        int before = e->n, r = -EAGAIN;
        struct vf_error why = {0};
        for (int i = 0; i < MAX_READS && (i == 0 || (r < 0 && why.code == VF_BUSY)); i++) {
            e->n = before;
            r = vf_nft_elements(nl, NFPROTO_INET, h->table, sets[e->set].name, keep_element, e,
                                &why);
        }
        if (r < 0)
            return vf_error_copy(err, &why);
    }
    return e->failed ? vf_fail(err, VF_NO_MEMORY, "host's rules: no memory") : 0;
}

/* Whether an element is of slot number. */
static bool is_of(const struct vf_host_rules *h, int number, const struct element *e)
{
    struct vf_address_pair pair;
    uint8_t name[MAX_KEY];
    if (e->set == SLOTS || e->set == OPENED || e->set == MARKS) {
        name_key(h, number, name);
        return memcmp(name, e->key, IFNAMSIZ) == 0;
    }
    return vf_addresses_pair(h->pool, number, e->set == PORTS4 ? AF_INET : AF_INET6, &pair) &&
           memcmp(e->data, pair.slot.b, (size_t)vf_ip_len(&pair.slot)) == 0;
}

/* Ports that lead to addresses which the pool has no more lead nowhere. */
static bool is_todays(const struct vf_host_rules *h, const struct element *e)
{
    struct vf_ip ip = {.family = e->set == PORTS4 ? AF_INET : AF_INET6};
    if (e->set != PORTS4 && e->set != PORTS6)
        return true;
    memcpy(ip.b, e->data, (size_t)vf_ip_len(&ip));
    for (int i = 0; i < h->pool->n_prefixes; i++)
        if (vf_cidr_contains(&h->pool->prefixes[i], &ip))
            return true;
    return false;
}

/* ---- changes */

static int explain(int r, struct vf_error *err)
{
    if (r == -ENOENT)
        vf_hint(err, "somebody removed the host's table: it is made again at the next start");
    if (r < 0)
        vf_wrap(err, "host's rules");
    return r;
}

int vf_host_rules_make(struct vf_nl *nl, const struct vf_host_rules *h, struct vf_error *err)
{
    struct vf_nl_batch b = {0};
    struct elements e = {0};
    struct vf_nft n;

    struct vf_error why;
    int r = vf_nft_table_mark(nl, NFPROTO_INET, h->table, MARK, &why);
    bool there = r == 0;
    if (there)
        r = read_elements(nl, h, 0, N_SETS - 1, &e, err);
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
                vf_nft_element(&n, &sets[e.v[i].set], true, e.v[i].key, e.v[i].data);
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
    return r == -ENOENT ? 0 : explain(r, err);
}

int vf_host_rules_add(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                      struct vf_error *err)
{
    struct vf_nl_batch b = {0};
    uint8_t key[MAX_KEY];
    struct vf_nft n;
    name_key(h, number, key);
    vf_nft_begin(&n, &b, NFPROTO_INET, h->table);
    uint32_t mark = vf_host_rules_mark(number);
    vf_nft_element(&n, &sets[SLOTS], true, key, NULL);
    vf_nft_element(&n, &sets[MARKS], true, key, &mark);
    vf_nft_end(&n);
    int r = explain(vf_nl_send(nl, &b, err), err);
    vf_nl_batch_free(&b);
    return r;
}

static void change_port(struct vf_nft *n, const struct vf_host_rules *h, int number,
                        const struct vf_port *p, bool add)
{
    for (int i = 0; i < 2; i++) {
        uint8_t key[MAX_KEY], data[MAX_DATA];
        struct vf_address_pair pair;
        if (!vf_addresses_pair(h->pool, number, i == 0 ? AF_INET : AF_INET6, &pair))
            continue;
        port_key(p, key);
        port_data(&pair.slot, p, data);
        vf_nft_element(n, &sets[PORTS4 + i], add, key, add ? data : NULL);
    }
}

static void change_opened(struct vf_nft *n, const struct vf_host_rules *h, int number,
                          const struct vf_port *p, bool add)
{
    uint8_t key[MAX_KEY];
    name_key(h, number, key);
    port_key(p, key + IFNAMSIZ);
    vf_nft_element(n, &sets[OPENED], add, key, NULL);
}

static bool has_port(const struct vf_port *ports, int n, const struct vf_port *p)
{
    for (int i = 0; i < n; i++)
        if (ports[i].protocol == p->protocol && ports[i].port == p->port &&
            ports[i].guest == p->guest)
            return true;
    return false;
}

/* What is in a and not in b. */
static void change_ports(struct vf_nft *n, const struct vf_host_rules *h, int number,
                         const struct vf_host_ports *a, const struct vf_host_ports *b, bool add)
{
    for (int i = 0; i < a->n_opened; i++)
        if (!has_port(b->opened, b->n_opened, &a->opened[i]))
            change_opened(n, h, number, &a->opened[i], add);
    for (int i = 0; i < a->n_ports; i++)
        if (!has_port(b->ports, b->n_ports, &a->ports[i]))
            change_port(n, h, number, &a->ports[i], add);
}

int vf_host_rules_change(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                         const struct vf_host_ports *from, const struct vf_host_ports *to,
                         struct vf_error *err)
{
    struct vf_nl_batch b = {0};
    struct vf_nft n;
    int r = 0;
    vf_nft_begin(&n, &b, NFPROTO_INET, h->table);
    change_ports(&n, h, number, from, to, false);
    change_ports(&n, h, number, to, from, true);
    if (b.n > 1 || b.failed) {
        vf_nft_end(&n);
        r = vf_nl_send(nl, &b, err);
    }
    if (r < 0 && err && err->code == VF_CONFLICT) {
        vf_fail(err, VF_CONFLICT, "one of the %d host ports leads to another VM already",
                to->n_ports);
        vf_hint(err, "choose another port, or release the VM that has it");
    } else {
        r = explain(r, err);
    }
    vf_nl_batch_free(&b);
    return r;
}

static void keep_port(const struct element *e, struct vf_host_ports *ret)
{
    bool opened = e->set == OPENED;
    int *n = opened ? &ret->n_opened : &ret->n_ports;
    const uint8_t *key = e->key + (opened ? IFNAMSIZ : 0);
    struct vf_port p = {.protocol = key[0], .port = (uint16_t)(key[4] << 8 | key[5])};
    if (!opened) {
        const uint8_t *data = e->data + (e->set == PORTS4 ? 4 : 16);
        p.guest = (uint16_t)(data[0] << 8 | data[1]);
    }
    /* One that leads to both of its addresses is one port. */
    if (*n < VF_PORTS_MAX && !has_port(opened ? ret->opened : ret->ports, *n, &p))
        (opened ? ret->opened : ret->ports)[(*n)++] = p;
}

int vf_host_rules_read(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                       struct vf_host_ports *ret, struct vf_error *err)
{
    struct elements e = {0};
    struct vf_host_ports ports = {0};
    int r = read_elements(nl, h, OPENED, PORTS6, &e, err);
    for (int i = 0; r == 0 && i < e.n; i++)
        if (is_of(h, number, &e.v[i]))
            keep_port(&e.v[i], &ports);
    free(e.v);
    if (r == 0)
        *ret = ports;
    return r;
}

int vf_host_rules_reset(struct vf_nl *nl, const struct vf_host_rules *h, int number, bool gone,
                        uint64_t *ret_refused, struct vf_error *err)
{
    struct elements e = {0};
    struct vf_nl_batch b = {0};
    struct vf_nft n;
    uint64_t refused = 0;
    bool found = false;
    int r = read_elements(nl, h, 0, N_SETS - 1, &e, err);

    if (r == 0)
        vf_nft_begin(&n, &b, NFPROTO_INET, h->table);
    for (int i = 0; r == 0 && i < e.n; i++) {
        if (!is_of(h, number, &e.v[i]))
            continue;
        if (e.v[i].set == SLOTS) {
            found = true;
            refused = e.v[i].packets;
            if (!gone && refused == 0)
                continue;
        }
        if (e.v[i].set == MARKS && !gone)
            continue;
        vf_nft_element(&n, &sets[e.v[i].set], false, e.v[i].key, NULL);
        if (e.v[i].set == SLOTS && !gone)
            vf_nft_element(&n, &sets[SLOTS], true, e.v[i].key, NULL);
    }
    if (r == 0 && b.n > 1) {
        vf_nft_end(&n);
        r = explain(vf_nl_send(nl, &b, err), err);
    }
    vf_nl_batch_free(&b);
    free(e.v);
    if (r < 0)
        return r;
    if (!found && !gone)
        return vf_fail(err, VF_NOT_FOUND, "host's rules: %s%d is not among the slots", h->prefix,
                       number);
    if (ret_refused)
        *ret_refused = refused;
    return 0;
}

int vf_host_rules_refused(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                          uint64_t *ret_refused, struct vf_error *err)
{
    struct elements e = {0};
    int r = read_elements(nl, h, SLOTS, SLOTS, &e, err), found = -1;
    for (int i = 0; r == 0 && i < e.n; i++)
        if (is_of(h, number, &e.v[i]))
            found = i;
    if (r == 0 && found < 0)
        r = vf_fail(err, VF_NOT_FOUND, "host's rules: %s%d is not among the slots", h->prefix,
                    number);
    else if (r == 0)
        *ret_refused = e.v[found].packets;
    free(e.v);
    return r;
}

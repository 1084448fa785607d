/* Tables, chains, counters, sets, and reading them. See nft.h. */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net/nft.h"

#define MAX_MESSAGE 1024

static void fail(struct vf_nft *n)
{
    if (!n->b->failed)
        n->b->failed = -ENOMEM;
}

static struct nlmsghdr *start(struct vf_nft *n, int type, int flags)
{
    void *at = vf_nl_reserve(n->b, MAX_MESSAGE);
    return at ? nftnl_nlmsg_build_hdr(at, (uint16_t)type, (uint16_t)n->family, (uint16_t)flags, 0)
              : NULL;
}

static void mark(struct vf_nft *n, uint16_t type, const char *what)
{
    void *at = vf_nl_reserve(n->b, MAX_MESSAGE);
    if (!at)
        return;
    if (type == NFNL_MSG_BATCH_BEGIN)
        nftnl_batch_begin(at, 0);
    else
        nftnl_batch_end(at, 0);
    vf_nl_commit(n->b, what);
}

void vf_nft_begin(struct vf_nft *n, struct vf_nl_batch *b, int family, const char *table)
{
    *n = (struct vf_nft){.b = b, .family = family, .table = table};
    mark(n, NFNL_MSG_BATCH_BEGIN, "change the rules");
}

void vf_nft_use(struct vf_nft *n, int family, const char *table)
{
    n->family = family;
    n->table = table;
}

void vf_nft_end(struct vf_nft *n)
{
    mark(n, NFNL_MSG_BATCH_END, "finish the rules");
}

/* ---- tables, chains, counters */

static void table(struct vf_nft *n, int type, int flags, const char *mark_text, const char *what)
{
    struct nlmsghdr *h = start(n, type, flags);
    if (!h)
        return;
    mnl_attr_put_strz(h, NFTA_TABLE_NAME, n->table);
    if (mark_text)
        mnl_attr_put(h, NFTA_TABLE_USERDATA, strlen(mark_text), mark_text);
    vf_nl_commit(n->b, what);
}

void vf_nft_table(struct vf_nft *n, const char *mark_text)
{
    table(n, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, mark_text, "make a table");
}

void vf_nft_delete_table(struct vf_nft *n)
{
    table(n, NFT_MSG_DELTABLE, 0, NULL, "delete a table");
}

void vf_nft_base_chain(struct vf_nft *n, const char *name, const char *type, int hook, int priority,
                       int policy, const char *device)
{
    struct nftnl_chain *c = nftnl_chain_alloc();
    struct nlmsghdr *h = c ? start(n, NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL) : NULL;
    if (h) {
        nftnl_chain_set_u32(c, NFTNL_CHAIN_FAMILY, (uint32_t)n->family);
        nftnl_chain_set_str(c, NFTNL_CHAIN_TABLE, n->table);
        nftnl_chain_set_str(c, NFTNL_CHAIN_NAME, name);
        nftnl_chain_set_str(c, NFTNL_CHAIN_TYPE, type);
        nftnl_chain_set_u32(c, NFTNL_CHAIN_HOOKNUM, (uint32_t)hook);
        nftnl_chain_set_s32(c, NFTNL_CHAIN_PRIO, priority);
        nftnl_chain_set_u32(c, NFTNL_CHAIN_POLICY, (uint32_t)policy);
        if (device)
            nftnl_chain_set_str(c, NFTNL_CHAIN_DEV, device);
        nftnl_chain_nlmsg_build_payload(h, c);
        vf_nl_commit(n->b, "make a base chain");
    } else {
        fail(n);
    }
    nftnl_chain_free(c);
}

void vf_nft_chain(struct vf_nft *n, const char *name)
{
    struct nlmsghdr *h = start(n, NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL);
    if (!h)
        return;
    mnl_attr_put_strz(h, NFTA_CHAIN_TABLE, n->table);
    mnl_attr_put_strz(h, NFTA_CHAIN_NAME, name);
    vf_nl_commit(n->b, "make a chain");
}

void vf_nft_counter(struct vf_nft *n, const char *name)
{
    struct nlmsghdr *h = start(n, NFT_MSG_NEWOBJ, NLM_F_CREATE | NLM_F_EXCL);
    if (!h)
        return;
    mnl_attr_put_strz(h, NFTA_OBJ_TABLE, n->table);
    mnl_attr_put_strz(h, NFTA_OBJ_NAME, name);
    mnl_attr_put_u32(h, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
    mnl_attr_nest_end(h, mnl_attr_nest_start(h, NFTA_OBJ_DATA));
    vf_nl_commit(n->b, "make a counter");
}

void vf_nft_flush(struct vf_nft *n, const char *chain)
{
    struct nlmsghdr *h = start(n, NFT_MSG_DELRULE, 0);
    if (!h)
        return;
    mnl_attr_put_strz(h, NFTA_RULE_TABLE, n->table);
    mnl_attr_put_strz(h, NFTA_RULE_CHAIN, chain);
    vf_nl_commit(n->b, "remove rules");
}

/* ---- sets */

static void put_counter(struct nlmsghdr *h, uint16_t type)
{
    struct nlattr *nest = mnl_attr_nest_start(h, type);
    mnl_attr_put_strz(h, NFTA_EXPR_NAME, "counter");
    mnl_attr_nest_end(h, mnl_attr_nest_start(h, NFTA_EXPR_DATA));
    mnl_attr_nest_end(h, nest);
}

void vf_nft_set_add(struct vf_nft *n, const struct vf_nft_set *s)
{
    struct nlmsghdr *h = start(n, NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL);
    if (!h)
        return;
    mnl_attr_put_strz(h, NFTA_SET_TABLE, n->table);
    mnl_attr_put_strz(h, NFTA_SET_NAME, s->name);
    mnl_attr_put_u32(h, NFTA_SET_ID, htonl(s->id));
    mnl_attr_put_u32(h, NFTA_SET_FLAGS, htonl(s->data_len ? NFT_SET_MAP : 0));
    /* A name alone is in the host's order: for those who read it. */
    if (s->key_type == VF_NFT_TYPE_IFNAME)
        mnl_attr_put(h, NFTA_SET_USERDATA, 6, "\0\4\1\0\0\0");
    mnl_attr_put_u32(h, NFTA_SET_KEY_TYPE, htonl(s->key_type));
    mnl_attr_put_u32(h, NFTA_SET_KEY_LEN, htonl((uint32_t)s->key_len));
    if (s->data_len) {
        mnl_attr_put_u32(h, NFTA_SET_DATA_TYPE, htonl(s->data_type));
        mnl_attr_put_u32(h, NFTA_SET_DATA_LEN, htonl((uint32_t)s->data_len));
    }
    if (s->counters)
        put_counter(h, NFTA_SET_EXPR);
    vf_nl_commit(n->b, "make a set");
}

static void put_value(struct nlmsghdr *h, uint16_t type, const void *value, int len)
{
    struct nlattr *nest = mnl_attr_nest_start(h, type);
    mnl_attr_put(h, NFTA_DATA_VALUE, (size_t)len, value);
    mnl_attr_nest_end(h, nest);
}

/* data NULL: none. */
static void put_element(struct nlmsghdr *h, const char *table_name, const struct vf_nft_set *s,
                        const void *key, const void *data)
{
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, table_name);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, s->name);
    struct nlattr *list = mnl_attr_nest_start(h, NFTA_SET_ELEM_LIST_ELEMENTS);
    struct nlattr *one = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
    put_value(h, NFTA_SET_ELEM_KEY, key, s->key_len);
    if (data)
        put_value(h, NFTA_SET_ELEM_DATA, data, s->data_len);
    mnl_attr_nest_end(h, one);
    mnl_attr_nest_end(h, list);
}

void vf_nft_element(struct vf_nft *n, const struct vf_nft_set *s, bool new, const void *key,
                    const void *data)
{
    struct nlmsghdr *h = start(n, new ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM,
                               new ? NLM_F_CREATE | NLM_F_EXCL : 0);
    if (!h)
        return;
    put_element(h, n->table, s, key, new && s->data_len ? data : NULL);
    vf_nl_commit(n->b, new ? "add an element to a set" : "remove an element of a set");
}

/* ---- reading */

struct reading {
    vf_nft_counter_cb counter;
    vf_nft_element_cb element;
    void *arg;
};

static int each_counter(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    struct reading *s = arg;
    struct nftnl_obj *o = nftnl_obj_alloc();
    if (!o)
        return vf_fail(err, VF_NO_MEMORY, "counters: no memory");
    if (nftnl_obj_nlmsg_parse(h, o) >= 0 &&
        nftnl_obj_get_u32(o, NFTNL_OBJ_TYPE) == NFT_OBJECT_COUNTER) {
        struct vf_nft_counter_value v = {.packets = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_PKTS),
                                         .bytes = nftnl_obj_get_u64(o, NFTNL_OBJ_CTR_BYTES)};
        const char *name = nftnl_obj_get_str(o, NFTNL_OBJ_NAME);
        snprintf(v.name, sizeof(v.name), "%s", name ? name : "");
        s->counter(&v, s->arg);
    }
    nftnl_obj_free(o);
    return 0;
}

int vf_nft_counters(struct vf_nl *nl, int family, const char *name, bool reset,
                    vf_nft_counter_cb each, void *arg, struct vf_error *err)
{
    char buf[256];
    struct reading s = {.counter = each, .arg = arg};
    struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, reset ? NFT_MSG_GETOBJ_RESET : NFT_MSG_GETOBJ,
                                               (uint16_t)family, NLM_F_DUMP, 0);
    mnl_attr_put_strz(h, NFTA_OBJ_TABLE, name);
    mnl_attr_put_u32(h, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
    return vf_nl_ask(nl, h, each_counter, &s, "read counters", err);
}

static int take_packets(struct nftnl_expr *e, void *data)
{
    uint64_t *packets = data;
    const char *name = nftnl_expr_get_str(e, NFTNL_EXPR_NAME);
    if (name && strcmp(name, "counter") == 0)
        *packets = nftnl_expr_get_u64(e, NFTNL_EXPR_CTR_PACKETS);
    return 0;
}

static int one_element(struct nftnl_set_elem *e, void *arg)
{
    struct reading *s = arg;
    uint32_t len;
    uint64_t packets = 0;
    nftnl_set_elem_expr_foreach(e, take_packets, &packets);
    s->element(nftnl_set_elem_get(e, NFTNL_SET_ELEM_KEY, &len),
               nftnl_set_elem_get(e, NFTNL_SET_ELEM_DATA, &len), packets, s->arg);
    return 0;
}

static int each_elements(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    struct nftnl_set *set = nftnl_set_alloc();
    if (!set)
        return vf_fail(err, VF_NO_MEMORY, "sets: no memory");
    if (nftnl_set_elems_nlmsg_parse(h, set) >= 0)
        nftnl_set_elem_foreach(set, one_element, arg);
    nftnl_set_free(set);
    return 0;
}

int vf_nft_elements(struct vf_nl *nl, int family, const char *name, const char *set,
                    vf_nft_element_cb each, void *arg, struct vf_error *err)
{
    char buf[256];
    struct reading s = {.element = each, .arg = arg};
    struct nlmsghdr *h =
        nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETSETELEM, (uint16_t)family, NLM_F_DUMP, 0);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, name);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, set);
    return vf_nl_ask(nl, h, each_elements, &s, "read a set", err);
}

struct counted {
    uint64_t packets;
    bool found;
};

static void take_count(const void *key, const void *data, uint64_t packets, void *arg)
{
    (void)key;
    (void)data;
    *(struct counted *)arg = (struct counted){.packets = packets, .found = true};
}

int vf_nft_element_packets(struct vf_nl *nl, int family, const char *name,
                           const struct vf_nft_set *set, const void *key, uint64_t *ret,
                           struct vf_error *err)
{
    char buf[512];
    struct counted c = {0};
    struct reading s = {.element = take_count, .arg = &c};
    struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETSETELEM, (uint16_t)family, 0, 0);
    put_element(h, name, set, key, NULL);
    int r = vf_nl_ask(nl, h, each_elements, &s, "read an element of a set", err);
    if (r == 0 && !c.found)
        r = vf_fail(err, VF_NOT_FOUND, "an element of the set %s is not there", set->name);
    if (r == 0)
        *ret = c.packets;
    return r;
}

struct marked {
    const char *mark;
    bool same;
};

static int compare_mark(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    struct marked *m = arg;
    const struct nlattr *a;
    (void)err;
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(a) == NFTA_TABLE_USERDATA &&
            mnl_attr_get_payload_len(a) == strlen(m->mark))
            m->same = memcmp(mnl_attr_get_payload(a), m->mark, strlen(m->mark)) == 0;
    }
    return 0;
}

int vf_nft_table_mark(struct vf_nl *nl, int family, const char *name, const char *mark_text,
                      struct vf_error *err)
{
    char buf[256];
    struct marked m = {.mark = mark_text};
    struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETTABLE, (uint16_t)family, 0, 0);
    mnl_attr_put_strz(h, NFTA_TABLE_NAME, name);
    int r = vf_nl_ask(nl, h, compare_mark, &m, "look at a table", err);
    if (r < 0) {
        vf_wrap(err, "nftables table %s", name);
        return r;
    }
    if (!m.same) {
        vf_fail(err, VF_CONFLICT, "nftables table %s exists, and is not ours", name);
        return vf_hint(err, "rename it, or configure another name for ours");
    }
    return 0;
}

static int take_generation(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    const struct nlattr *a;
    (void)err;
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(a) == NFTA_GEN_ID && mnl_attr_validate(a, MNL_TYPE_U32) == 0)
            *(uint32_t *)arg = ntohl(mnl_attr_get_u32(a));
    }
    return 0;
}

int vf_nft_generation(struct vf_nl *nl, uint32_t *ret, struct vf_error *err)
{
    char buf[128];
    uint32_t id = 0;
    struct nlmsghdr *h = nftnl_nlmsg_build_hdr(buf, NFT_MSG_GETGEN, AF_UNSPEC, 0, 0);
    int r = vf_nl_ask(nl, h, take_generation, &id, "read the rules' generation", err);
    if (r == 0)
        *ret = id;
    return r;
}

/* Wiping connections by ctnetlink. See conntrack.h. */
#include "net/conntrack.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdbool.h>
#include <string.h>

/* Bits of CTA_FILTER_*_FLAGS: which parts of a tuple count. */
#define FILTER_SRC 1u

static struct nlmsghdr *start(char *buf, int type, int family, int flags)
{
    struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
    struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
    h->nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
    h->nlmsg_flags = (uint16_t)flags;
    g->nfgen_family = (uint8_t)family;
    g->version = NFNETLINK_V0;
    return h;
}

/* Tuples whose source is ip: those it began (orig), those it answers (reply). */
static void put_filter(struct nlmsghdr *h, const struct vf_ip *ip, bool reply)
{
    struct nlattr *tuple = mnl_attr_nest_start(h, reply ? CTA_TUPLE_REPLY : CTA_TUPLE_ORIG);
    struct nlattr *addresses = mnl_attr_nest_start(h, CTA_TUPLE_IP);
    mnl_attr_put(h, ip->family == AF_INET ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, (size_t)vf_ip_len(ip),
                 ip->b);
    mnl_attr_nest_end(h, addresses);
    mnl_attr_nest_end(h, tuple);
    struct nlattr *filter = mnl_attr_nest_start(h, CTA_FILTER);
    mnl_attr_put_u32(h, reply ? CTA_FILTER_REPLY_FLAGS : CTA_FILTER_ORIG_FLAGS, FILTER_SRC);
    mnl_attr_nest_end(h, filter);
}

int vf_conntrack_flush(struct vf_nl *nl, struct vf_error *err)
{
    char buf[128];
    struct nlmsghdr *h = start(buf, IPCTNL_MSG_CT_DELETE, AF_UNSPEC, NLM_F_ACK);
    return vf_nl_ask(nl, h, NULL, NULL, "forget connections", err);
}

/* ---- singly */

struct listing {
    struct vf_nl_batch deletes;
    const struct vf_ip *ip;
};

/* The tuple's source is ip? */
static bool comes_from(const struct nlattr *tuple, const struct vf_ip *ip)
{
    uint16_t wanted = ip->family == AF_INET ? CTA_IP_V4_SRC : CTA_IP_V6_SRC;
    const struct nlattr *a, *b;
    mnl_attr_for_each_nested(a, tuple)
    {
        if (mnl_attr_get_type(a) != CTA_TUPLE_IP)
            continue;
        mnl_attr_for_each_nested(b, a)
        {
            if (mnl_attr_get_type(b) == wanted && mnl_attr_get_payload_len(b) == vf_ip_len(ip))
                return memcmp(mnl_attr_get_payload(b), ip->b, (size_t)vf_ip_len(ip)) == 0;
        }
    }
    return false;
}

static int each_connection(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    struct listing *l = arg;
    const struct nfgenmsg *g = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    bool found = false;
    (void)err;

    mnl_attr_for_each(a, h, sizeof(*g))
    {
        uint16_t type = mnl_attr_get_type(a);
        if (type == CTA_TUPLE_ORIG || type == CTA_TUPLE_REPLY)
            found |= comes_from(a, l->ip);
    }
    char *at = found ? vf_nl_reserve(&l->deletes, h->nlmsg_len) : NULL;
    if (!at)
        return 0;
    struct nlmsghdr *d = start(at, IPCTNL_MSG_CT_DELETE, g->nfgen_family, 0);
    mnl_attr_for_each(a, h, sizeof(*g))
    {
        uint16_t type = mnl_attr_get_type(a);
        if (type == CTA_TUPLE_ORIG || type == CTA_ZONE || type == CTA_ID)
            mnl_attr_put(d, a->nla_type, mnl_attr_get_payload_len(a), mnl_attr_get_payload(a));
    }
    vf_nl_commit(&l->deletes, "forget a connection");
    return 0;
}

int vf_conntrack_flush_ip_singly(struct vf_nl *nl, const struct vf_ip *ip, struct vf_error *err)
{
    char buf[256];
    struct listing l = {.ip = ip};
    struct vf_nl_batch one = {0};
    struct nlmsghdr *h = start(buf, IPCTNL_MSG_CT_GET, ip->family, NLM_F_DUMP);
    int r = vf_nl_ask(nl, h, each_connection, &l, "list connections", err);
    /* One that has ended in between is as good as deleted: so each by itself. */
    for (int i = 0; r == 0 && !l.deletes.failed && i < l.deletes.n; i++) {
        struct nlmsghdr *d = (struct nlmsghdr *)(l.deletes.buf + l.deletes.msgs[i].offset);
        void *at = vf_nl_reserve(&one, d->nlmsg_len);
        if (at) {
            memcpy(at, d, d->nlmsg_len);
            vf_nl_commit(&one, "forget a connection");
        }
        r = vf_nl_send(nl, &one, err);
        if (r == -ENOENT)
            r = 0;
    }
    if (r == 0 && l.deletes.failed)
        r = vf_fail_errno(err, l.deletes.failed, "forget connections");
    vf_nl_batch_free(&l.deletes);
    vf_nl_batch_free(&one);
    return r;
}

int vf_conntrack_flush_ip(struct vf_nl *nl, const struct vf_ip *ip, struct vf_error *err)
{
    /* Filters of IPv6 are the wrong way round in the kernel (6.18 still): they hit everybody but ip. */
    if (ip->family == AF_INET6)
        return vf_conntrack_flush_ip_singly(nl, ip, err);
    for (int reply = 0; reply < 2; reply++) {
        char buf[256];
        struct nlmsghdr *h = start(buf, IPCTNL_MSG_CT_DELETE, ip->family, NLM_F_ACK);
        put_filter(h, ip, reply);
        int r = vf_nl_ask(nl, h, NULL, NULL, "forget an address's connections", err);
        if (r == -EINVAL || r == -ENOENT || r == -EOPNOTSUPP)
            return vf_conntrack_flush_ip_singly(nl, ip, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int take_count(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    const struct nlattr *a;
    (void)err;
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(a) == CTA_STATS_GLOBAL_ENTRIES &&
            mnl_attr_validate(a, MNL_TYPE_U32) == 0)
            *(uint32_t *)arg = ntohl(mnl_attr_get_u32(a));
    }
    return 0;
}

int vf_conntrack_count(struct vf_nl *nl, uint32_t *ret, struct vf_error *err)
{
    char buf[128];
    uint32_t count = UINT32_MAX;
    struct nlmsghdr *h = start(buf, IPCTNL_MSG_CT_GET_STATS, AF_UNSPEC, 0);
    int r = vf_nl_ask(nl, h, take_count, &count, "count connections", err);
    if (r == 0 && count == UINT32_MAX)
        r = vf_fail(err, VF_INTERNAL, "count connections: the kernel does not say");
    if (r == 0)
        *ret = count;
    return r;
}

/* Wiping connections by ctnetlink. See conntrack.h. */
#include "net/conntrack.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

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

int vf_conntrack_flush(struct vf_nl *nl, struct vf_error *err)
{
    char buf[128];
    struct nlmsghdr *h = start(buf, IPCTNL_MSG_CT_DELETE, AF_UNSPEC, NLM_F_ACK);
    return vf_nl_ask(nl, h, NULL, NULL, "forget connections", err);
}

int vf_conntrack_flush_mark(struct vf_nl *nl, uint32_t mark, struct vf_error *err)
{
    char buf[128];
    struct nlmsghdr *h = start(buf, IPCTNL_MSG_CT_DELETE, AF_UNSPEC, NLM_F_ACK);
    mnl_attr_put_u32(h, CTA_MARK, htonl(mark));
    mnl_attr_put_u32(h, CTA_MARK_MASK, htonl(UINT32_MAX));
    return vf_nl_ask(nl, h, NULL, NULL, "forget a network's connections", err);
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

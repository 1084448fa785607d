/* Reading interfaces, neighbours and routes. See link.h. */
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include "base/clock.h"
#include "net/link.h"

/* ---- links */

static void read_stats(const struct nlattr *a, struct vf_link_info *l)
{
    struct rtnl_link_stats64 s = {0};
    int len = nla_len(a);
    memcpy(&s, nla_data(a), len < (int)sizeof(s) ? (size_t)len : sizeof(s));
    l->rx_packets = s.rx_packets;
    l->rx_bytes = s.rx_bytes;
    l->rx_dropped = s.rx_dropped;
    l->tx_packets = s.tx_packets;
    l->tx_bytes = s.tx_bytes;
    l->tx_dropped = s.tx_dropped;
}

/* Of a tap with several queues the kernel says how many somebody holds. */
static void read_tap(struct nlattr *data, struct vf_link_info *l)
{
    struct nlattr *t[IFLA_TUN_MAX + 1];
    if (nla_parse_nested(t, IFLA_TUN_MAX, data, NULL) < 0)
        return;
    if (t[IFLA_TUN_NUM_QUEUES] && nla_len(t[IFLA_TUN_NUM_QUEUES]) == 4)
        l->queues += (int)nla_get_u32(t[IFLA_TUN_NUM_QUEUES]);
    if (t[IFLA_TUN_NUM_DISABLED_QUEUES] && nla_len(t[IFLA_TUN_NUM_DISABLED_QUEUES]) == 4)
        l->queues += (int)nla_get_u32(t[IFLA_TUN_NUM_DISABLED_QUEUES]);
    l->tap_group = t[IFLA_TUN_GROUP] != NULL;
}

static bool read_link(const struct nlmsghdr *h, struct vf_link_info *l)
{
    struct nlattr *t[IFLA_MAX + 1], *info[IFLA_INFO_MAX + 1] = {NULL};
    const struct ifinfomsg *i = nlmsg_data(h);

    memset(l, 0, sizeof(*l));
    if (h->nlmsg_type != RTM_NEWLINK ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*i), t, IFLA_MAX, NULL) < 0)
        return false;
    l->index = i->ifi_index;
    l->up = i->ifi_flags & IFF_UP;
    if (t[IFLA_IFNAME])
        nla_strlcpy(l->name, t[IFLA_IFNAME], sizeof(l->name));
    if (t[IFLA_MTU])
        l->mtu = (int)nla_get_u32(t[IFLA_MTU]);
    if (t[IFLA_MASTER])
        l->master = (int)nla_get_u32(t[IFLA_MASTER]);
    if (t[IFLA_CARRIER])
        l->carrier = nla_get_u8(t[IFLA_CARRIER]);
    if (t[IFLA_ADDRESS] && nla_len(t[IFLA_ADDRESS]) == sizeof(l->mac))
        memcpy(l->mac.b, nla_data(t[IFLA_ADDRESS]), sizeof(l->mac));
    if (t[IFLA_STATS64])
        read_stats(t[IFLA_STATS64], l);
    if (t[IFLA_LINKINFO] && nla_parse_nested(info, IFLA_INFO_MAX, t[IFLA_LINKINFO], NULL) == 0 &&
        info[IFLA_INFO_KIND])
        nla_strlcpy(l->kind, info[IFLA_INFO_KIND], sizeof(l->kind));
    if (strcmp(l->kind, "tun") == 0 && info[IFLA_INFO_DATA])
        read_tap(info[IFLA_INFO_DATA], l);
    return true;
}

struct links {
    vf_link_each each;
    void *arg;
};

static int each_link(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    struct links *s = arg;
    struct vf_link_info l;
    return read_link(h, &l) ? s->each(&l, s->arg, err) : 0;
}

int vf_links(struct vf_nl *nl, vf_link_each each, void *arg, struct vf_error *err)
{
    struct {
        struct nlmsghdr h;
        struct ifinfomsg i;
    } req = {.h = {.nlmsg_len = sizeof(req), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_DUMP}};
    struct links s = {each, arg};
    return vf_nl_ask(nl, &req.h, each_link, &s, "list interfaces", err);
}

static int take_link(const struct vf_link_info *l, void *arg, struct vf_error *err)
{
    (void)err;
    *(struct vf_link_info *)arg = *l;
    return 0;
}

int vf_link_get(struct vf_nl *nl, const char *name, struct vf_link_info *ret, struct vf_error *err)
{
    struct {
        struct nlmsghdr h;
        struct ifinfomsg i;
        struct nlattr a;
        char name[VF_LINK_NAME];
    } req = {.h = {.nlmsg_type = RTM_GETLINK}, .a = {.nla_type = IFLA_IFNAME}};
    struct vf_link_info l = {0};
    struct links s = {take_link, &l};

    size_t len = strnlen(name, VF_LINK_NAME - 1);
    memcpy(req.name, name, len);
    req.a.nla_len = (uint16_t)(NLA_HDRLEN + len + 1);
    req.h.nlmsg_len = (uint32_t)(offsetof(__typeof__(req), a) + NLA_ALIGN(req.a.nla_len));
    int r = vf_nl_ask(nl, &req.h, each_link, &s, "look at an interface", err);
    if (r < 0) {
        vf_wrap(err, "interface %s", name);
        return r;
    }
    *ret = l;
    return 0;
}

/* Asking whether there is a link makes the kernel deal with a change at once that else waits for a worker; until then
 * it drops what should be sent. */
void vf_link_settle(const struct vf_nl *nl, const char *name)
{
    struct ethtool_value v = {.cmd = ETHTOOL_GLINK};
    struct ifreq r = {.ifr_data = (void *)&v};
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    ioctl(nl->fd, SIOCETHTOOL, &r);
}

/* ---- neighbours */

struct neighbours {
    struct vf_nl_batch *b;
    int permanent;
};

static int each_neighbour(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    struct neighbours *s = arg;
    struct nlattr *t[NDA_MAX + 1];
    const struct ndmsg *n = nlmsg_data(h);
    (void)err;

    if (h->nlmsg_type != RTM_NEWNEIGH ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*n), t, NDA_MAX, NULL) < 0 || !t[NDA_DST])
        return 0;
    if (n->ndm_state & NUD_NOARP)
        return 0;
    if (n->ndm_state & NUD_PERMANENT) {
        s->permanent++;
        return 0;
    }
    size_t dst_len = NLA_ALIGN(t[NDA_DST]->nla_len);
    char *p = vf_nl_reserve(s->b, NLMSG_LENGTH(sizeof(*n)) + dst_len);
    if (!p)
        return 0;
    struct nlmsghdr *d = (struct nlmsghdr *)p;
    struct ndmsg *dn = NLMSG_DATA(d);
    d->nlmsg_type = RTM_DELNEIGH;
    d->nlmsg_len = (uint32_t)(NLMSG_LENGTH(sizeof(*n)) + dst_len);
    dn->ndm_family = n->ndm_family;
    dn->ndm_ifindex = n->ndm_ifindex;
    memcpy(dn + 1, t[NDA_DST], t[NDA_DST]->nla_len);
    vf_nl_commit(s->b, "forget a neighbour");
    return 0;
}

int vf_neighbours_flush(struct vf_nl *nl, int *ret_permanent, struct vf_error *err)
{
    struct {
        struct nlmsghdr h;
        struct ndmsg n;
    } req = {
        .h = {.nlmsg_len = sizeof(req), .nlmsg_type = RTM_GETNEIGH, .nlmsg_flags = NLM_F_DUMP}};
    struct vf_nl_batch b = {0};
    struct neighbours s = {.b = &b};
    int r = vf_nl_ask(nl, &req.h, each_neighbour, &s, "list neighbours", err);
    if (r == 0)
        r = vf_nl_send(nl, &b, err);
    vf_nl_batch_free(&b);
    if (r == 0)
        *ret_permanent = s.permanent;
    return r;
}

/* ---- routes */

static int take_type(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    const struct rtmsg *m = nlmsg_data(h);
    (void)err;
    if (h->nlmsg_type == RTM_NEWROUTE && nlmsg_datalen(h) >= (int)sizeof(*m))
        *(int *)arg = m->rtm_type;
    return 0;
}

int vf_address_wait(struct vf_nl *nl, const struct vf_ip *ip, int timeout_ms, struct vf_error *err)
{
    int64_t deadline_us = vf_deadline_after_ms(timeout_ms);
    char text[VF_IP_TEXT];
    for (;;) {
        struct {
            struct nlmsghdr h;
            struct rtmsg m;
            struct nlattr a;
            uint8_t ip[16];
        } req = {.h = {.nlmsg_type = RTM_GETROUTE}, .a = {.nla_type = RTA_DST}};
        int type = 0;
        req.m.rtm_family = (uint8_t)ip->family;
        req.m.rtm_dst_len = (uint8_t)(8 * vf_ip_len(ip));
        memcpy(req.ip, ip->b, sizeof(req.ip));
        req.a.nla_len = (uint16_t)(NLA_HDRLEN + vf_ip_len(ip));
        req.h.nlmsg_len = (uint32_t)(offsetof(__typeof__(req), a) + req.a.nla_len);
        int r = vf_nl_ask(nl, &req.h, take_type, &type, "look up a route", err);
        if (r < 0 && r != -EIO) /* no route yet */
            return r;
        if (type == RTN_LOCAL)
            return 0;
        if (vf_deadline_left_ms(deadline_us) == 0)
            return vf_fail(err, VF_TIMEOUT, "address %s is not ready after %d ms",
                           vf_ip_text(ip, text), timeout_ms);
        nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
}

struct walk {
    union {
        vf_address_each address;
        vf_route_each route;
    };
    void *arg;
};

static bool read_ip(const struct nlattr *a, int family, struct vf_ip *ret)
{
    *ret = (struct vf_ip){.family = family};
    if (!a || nla_len(a) != vf_ip_len(ret))
        return false;
    memcpy(ret->b, nla_data(a), (size_t)vf_ip_len(ret));
    return true;
}

static int each_address(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    struct walk *w = arg;
    struct nlattr *t[IFA_MAX + 1];
    const struct ifaddrmsg *m = nlmsg_data(h);
    struct vf_address_info a;
    if (h->nlmsg_type != RTM_NEWADDR ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*m), t, IFA_MAX, NULL) < 0 ||
        (m->ifa_family != AF_INET && m->ifa_family != AF_INET6))
        return 0;
    a.index = (int)m->ifa_index;
    a.bits = m->ifa_prefixlen;
    if (!read_ip(t[IFA_LOCAL] ? t[IFA_LOCAL] : t[IFA_ADDRESS], m->ifa_family, &a.ip))
        return 0;
    return w->address(&a, w->arg, err);
}

int vf_link_addresses(struct vf_nl *nl, vf_address_each each, void *arg, struct vf_error *err)
{
    struct {
        struct nlmsghdr h;
        struct ifaddrmsg m;
    } req = {.h = {.nlmsg_len = sizeof(req), .nlmsg_type = RTM_GETADDR, .nlmsg_flags = NLM_F_DUMP}};
    struct walk w = {.address = each, .arg = arg};
    return vf_nl_ask(nl, &req.h, each_address, &w, "list addresses", err);
}

static int each_route(const struct nlmsghdr *h, void *arg, struct vf_error *err)
{
    struct walk *w = arg;
    struct nlattr *t[RTA_MAX + 1];
    const struct rtmsg *m = nlmsg_data(h);
    struct vf_route_info r = {0};

    if (h->nlmsg_type != RTM_NEWROUTE || (m->rtm_flags & RTM_F_CLONED) ||
        nlmsg_parse((struct nlmsghdr *)h, sizeof(*m), t, RTA_MAX, NULL) < 0 ||
        (m->rtm_family != AF_INET && m->rtm_family != AF_INET6))
        return 0;
    if (!read_ip(t[RTA_DST], m->rtm_family, &r.to.ip) && m->rtm_dst_len)
        return 0;
    r.to.bits = m->rtm_dst_len;
    if (!read_ip(t[RTA_GATEWAY], m->rtm_family, &r.via))
        r.via.family = 0;
    if (t[RTA_OIF])
        r.index = (int)nla_get_u32(t[RTA_OIF]);
    r.table = t[RTA_TABLE] ? (int)nla_get_u32(t[RTA_TABLE]) : m->rtm_table;
    r.type = m->rtm_type;
    r.protocol = m->rtm_protocol;
    return w->route(&r, w->arg, err);
}

int vf_routes(struct vf_nl *nl, vf_route_each each, void *arg, struct vf_error *err)
{
    struct {
        struct nlmsghdr h;
        struct rtmsg m;
    } req = {
        .h = {.nlmsg_len = sizeof(req), .nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_DUMP}};
    struct walk w = {.route = each, .arg = arg};
    return vf_nl_ask(nl, &req.h, each_route, &w, "list routes", err);
}

struct claim {
    const struct vf_address_pool *pool;
    const char *own;
};

static int check_route(const struct vf_route_info *route, void *arg, struct vf_error *err)
{
    const struct claim *c = arg;
    const struct vf_address_pool *pool = c->pool;
    char a[VF_IP_TEXT], b[VF_IP_TEXT], name[VF_LINK_NAME] = "";

    if (route->to.bits == 0 || route->type == RTN_MULTICAST)
        return 0;
    for (int i = 0; i < pool->n_prefixes; i++) {
        if (!vf_cidr_overlap(&pool->prefixes[i], &route->to))
            continue;
        bool named = route->index && if_indextoname((unsigned)route->index, name);
        if (named && strncmp(name, c->own, strlen(c->own)) == 0)
            continue;
        vf_fail(err, VF_CONFLICT, "network.prefixes[%d]: %s overlaps the host's route to %s%s%s", i,
                vf_cidr_text(&pool->prefixes[i], a), vf_cidr_text(&route->to, b),
                named ? " by " : "", name);
        return vf_hint(err, "configure prefixes that the host does not use");
    }
    return 0;
}

int vf_routes_check(struct vf_nl *nl, const struct vf_address_pool *pool, const char *own,
                    struct vf_error *err)
{
    struct claim c = {pool, own};
    return vf_routes(nl, check_route, &c, err);
}

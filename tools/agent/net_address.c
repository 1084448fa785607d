/* The first NIC's address of each family, its default route, and the gateway as a permanent neighbour.
 *
 * What is there already stays untouched: a clone that is told what its template was told changes nothing, and none of
 * its connections notices. Else the old address goes before the new one comes, since IPv4 takes those of the same
 * prefix along with the first of them. IPv6 addresses can be used at once: nobody looks for duplicates where there are
 * only guest and gateway, and routers are told, not listened to.
 */
#include "tools/agent/agent.h"
#include "tools/agent/netlink.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_FOUND 16
#define MAX_ROUNDS 8 /* of finding and removing that many */

static const uint8_t zeros[16];

static size_t len_of(const struct net_address *a)
{
    return a->family == AF_INET ? 4 : 16;
}

static bool has_gateway(const struct net_address *a)
{
    return memcmp(a->gateway, zeros, len_of(a)) != 0;
}

/* ---- addresses */

struct addresses {
    struct nic nic;
    uint8_t family;
    int n; /* may be more than are kept */
    struct {
        uint8_t address[16], prefix;
        bool tentative; /* not to be used yet, or never */
    } found[MAX_FOUND];
};

static void see_address(void *arg, const struct nlmsghdr *h)
{
    struct addresses *list = arg;
    const struct ifaddrmsg *m = nl_head(h, sizeof(*m));
    size_t len = list->family == AF_INET ? 4 : 16;

    if (h->nlmsg_type != RTM_NEWADDR || !m || m->ifa_family != list->family ||
        m->ifa_index != (unsigned)list->nic.index ||
        (m->ifa_family == AF_INET6 && m->ifa_scope == RT_SCOPE_LINK))
        return;
    const void *address = nl_find(h, sizeof(*m), IFA_LOCAL, len);
    if (!address)
        address = nl_find(h, sizeof(*m), IFA_ADDRESS, len);
    if (!address || list->n++ >= MAX_FOUND)
        return;
    memcpy(list->found[list->n - 1].address, address, len);
    list->found[list->n - 1].prefix = m->ifa_prefixlen;
    list->found[list->n - 1].tentative = m->ifa_flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED);
}

static int list_addresses(const struct nic *nic, uint8_t family, struct addresses *ret)
{
    *ret = (struct addresses){.nic = *nic, .family = family};
    return nl_list(RTM_GETADDR, family, see_address, ret);
}

static bool is_it(const struct addresses *list, int i, const struct net_address *a)
{
    return !list->found[i].tentative && list->found[i].prefix == a->prefix &&
           memcmp(list->found[i].address, a->address, len_of(a)) == 0;
}

static int change_address(const struct nic *nic, uint16_t type, uint8_t family,
                          const uint8_t *address, uint8_t prefix)
{
    struct ifaddrmsg head = {.ifa_family = family,
                             .ifa_prefixlen = prefix,
                             .ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0,
                             .ifa_index = (unsigned)nic->index};
    size_t len = family == AF_INET ? 4 : 16;
    struct nl_message m;

    nl_start(&m, type, type == RTM_NEWADDR ? NLM_F_CREATE | NLM_F_REPLACE : 0, &head, sizeof(head));
    nl_put(&m, IFA_LOCAL, address, len);
    nl_put(&m, IFA_ADDRESS, address, len);
    if (type == RTM_NEWADDR && family == AF_INET && prefix < 31) {
        uint8_t broadcast[4];
        for (int i = 0; i < 4; i++) {
            int host_bits = 8 * (i + 1) - prefix;
            broadcast[i] = (uint8_t)(address[i] | (host_bits <= 0   ? 0
                                                   : host_bits >= 8 ? 255
                                                                    : (1 << host_bits) - 1));
        }
        nl_put(&m, IFA_BROADCAST, broadcast, 4);
    }
    return nl_send(&m);
}

/* Removes every other one; ret_there: it is among them. */
static int clear_addresses(const struct nic *nic, const struct net_address *a, bool *ret_there)
{
    struct addresses list;

    for (int round = 0; round < MAX_ROUNDS; round++) {
        int err = list_addresses(nic, (uint8_t)a->family, &list);
        *ret_there = false;
        for (int i = 0; err == 0 && i < list.n && i < MAX_FOUND; i++) {
            if (is_it(&list, i, a)) {
                *ret_there = true;
                continue;
            }
            err = change_address(nic, RTM_DELADDR, (uint8_t)a->family, list.found[i].address,
                                 list.found[i].prefix);
            if (err == -EADDRNOTAVAIL) /* gone together with another */
                err = 0;
        }
        if (err != 0 || list.n <= (*ret_there ? 1 : 0))
            return err;
    }
    return -EBUSY;
}

/* ---- the default route */

struct routes {
    uint8_t family;
    int n;
    struct {
        int index;
        bool has_gateway;
        uint8_t gateway[16];
        uint32_t metric;
    } found[MAX_FOUND];
};

static void see_route(void *arg, const struct nlmsghdr *h)
{
    struct routes *list = arg;
    const struct rtmsg *m = nl_head(h, sizeof(*m));
    size_t len = list->family == AF_INET ? 4 : 16;

    if (h->nlmsg_type != RTM_NEWROUTE || !m || m->rtm_family != list->family ||
        m->rtm_dst_len != 0 || m->rtm_table != RT_TABLE_MAIN || m->rtm_type != RTN_UNICAST ||
        list->n == MAX_FOUND)
        return;
    const int *index = nl_find(h, sizeof(*m), RTA_OIF, sizeof(*index));
    const void *gateway = nl_find(h, sizeof(*m), RTA_GATEWAY, len);
    const uint32_t *metric = nl_find(h, sizeof(*m), RTA_PRIORITY, sizeof(*metric));
    list->found[list->n].index = index ? *index : 0;
    list->found[list->n].metric = metric ? *metric : 0;
    list->found[list->n].has_gateway = gateway;
    if (gateway)
        memcpy(list->found[list->n].gateway, gateway, len);
    list->n++;
}

static int list_routes(uint8_t family, struct routes *ret)
{
    *ret = (struct routes){.family = family};
    return nl_list(RTM_GETROUTE, family, see_route, ret);
}

static int remove_route(uint8_t family, uint32_t metric)
{
    struct rtmsg head = {
        .rtm_family = family, .rtm_table = RT_TABLE_MAIN, .rtm_scope = RT_SCOPE_NOWHERE};
    struct nl_message m;

    nl_start(&m, RTM_DELROUTE, 0, &head, sizeof(head));
    if (metric)
        nl_put_u32(&m, RTA_PRIORITY, metric);
    return nl_send(&m);
}

static int add_route(const struct nic *nic, const struct net_address *a, unsigned flags)
{
    struct rtmsg head = {.rtm_family = (uint8_t)a->family,
                         .rtm_table = RT_TABLE_MAIN,
                         .rtm_protocol = RTPROT_STATIC,
                         .rtm_scope = RT_SCOPE_UNIVERSE,
                         .rtm_type = RTN_UNICAST,
                         .rtm_flags = flags};
    struct nl_message m;

    nl_start(&m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof(head));
    nl_put(&m, RTA_GATEWAY, a->gateway, len_of(a));
    nl_put_u32(&m, RTA_OIF, (uint32_t)nic->index);
    return nl_send(&m);
}

/* The one to the gateway is the only one there is in the end, or none is. */
static int set_route(const struct nic *nic, const struct net_address *a)
{
    struct routes list;

    for (int round = 0; round < MAX_ROUNDS; round++) {
        int err = list_routes((uint8_t)a->family, &list);
        if (err != 0 || (list.n == 0 && !has_gateway(a)))
            return err;
        if (list.n == 1 && has_gateway(a) && list.found[0].index == nic->index &&
            list.found[0].has_gateway && memcmp(list.found[0].gateway, a->gateway, len_of(a)) == 0)
            return 0;
        for (int i = 0; err == 0 && i < list.n; i++)
            if ((err = remove_route((uint8_t)a->family, list.found[i].metric)) == -ESRCH)
                err = 0;
        if (err == 0 && has_gateway(a)) {
            err = add_route(nic, a, 0);
            if (err == -ENETUNREACH || err == -EHOSTUNREACH || err == -EINVAL)
                err = add_route(nic, a, RTNH_F_ONLINK); /* it is outside the prefix (a /32, say) */
        }
        if (err != 0 && err != -EEXIST)
            return err;
    }
    return -EBUSY;
}

/* ---- both */

static int set_ipv6_word(const struct nic *nic, const char *name, char value)
{
    char path[96], is[16];

    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", nic->name, name);
    if (read_text(path, is, sizeof(is)) < 0)
        return -EAFNOSUPPORT;
    if (is[0] == value && is[1] == 0)
        return 0;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, &value, 1);
    int err = n == 1 ? 0 : n < 0 ? -errno : -EIO;
    close(fd);
    return err;
}

static int prepare_ipv6(const struct nic *nic)
{
    static const char *const off[] = {"disable_ipv6", "accept_dad", "accept_ra"};
    int err = 0;

    for (unsigned i = 0; err == 0 && i < sizeof(off) / sizeof(*off); i++)
        err = set_ipv6_word(nic, off[i], '0');
    return err;
}

int net_set_address(const struct net_address *a)
{
    struct nic nic;
    bool there;
    int err = net_nic(&nic);

    if (err == 0 && a->family == AF_INET6)
        err = prepare_ipv6(&nic);
    if (err == 0)
        err = clear_addresses(&nic, a, &there);
    if (err == 0 && !there)
        err = change_address(&nic, RTM_NEWADDR, (uint8_t)a->family, a->address, a->prefix);
    if (err == 0)
        err = net_up(&nic);
    return err ? err : set_route(&nic, a);
}

int net_get_address(int family, struct net_address *ret)
{
    struct addresses list;
    struct routes routes;
    struct nic nic;
    int err = net_nic(&nic);

    if (err == 0)
        err = list_addresses(&nic, (uint8_t)family, &list);
    if (err == 0)
        err = list_routes((uint8_t)family, &routes);
    if (err != 0)
        return err;
    if (list.n == 0 || list.found[0].tentative)
        return -EADDRNOTAVAIL;
    *ret = (struct net_address){.family = family, .prefix = list.found[0].prefix};
    memcpy(ret->address, list.found[0].address, len_of(ret));
    for (int i = routes.n - 1; i >= 0; i--)
        if (routes.found[i].index == nic.index && routes.found[i].has_gateway)
            memcpy(ret->gateway, routes.found[i].gateway, len_of(ret));
    return 0;
}

/* ---- neighbours */

struct neighbour {
    struct nic nic;
    const struct net_address *of; /* its gateway */
    bool permanent;
    uint8_t mac[6];
};

static void see_neighbour(void *arg, const struct nlmsghdr *h)
{
    struct neighbour *n = arg;
    const struct ndmsg *m = nl_head(h, sizeof(*m));

    if (h->nlmsg_type != RTM_NEWNEIGH || !m || m->ndm_family != n->of->family ||
        m->ndm_ifindex != n->nic.index)
        return;
    const void *to = nl_find(h, sizeof(*m), NDA_DST, len_of(n->of));
    const void *mac = nl_find(h, sizeof(*m), NDA_LLADDR, sizeof(n->mac));
    if (!to || !mac || memcmp(to, n->of->gateway, len_of(n->of)) != 0)
        return;
    n->permanent = m->ndm_state & NUD_PERMANENT;
    memcpy(n->mac, mac, sizeof(n->mac));
}

static int get_neighbour(const struct net_address *a, struct neighbour *ret)
{
    *ret = (struct neighbour){.of = a};
    int err = net_nic(&ret->nic);
    return err ? err : nl_list(RTM_GETNEIGH, (uint8_t)a->family, see_neighbour, ret);
}

static int set_neighbour(const struct net_address *a, const uint8_t mac[6])
{
    struct neighbour n;
    struct nl_message m;
    int err = get_neighbour(a, &n);

    if (err != 0 || (n.permanent && memcmp(n.mac, mac, sizeof(n.mac)) == 0))
        return err;
    struct ndmsg head = {
        .ndm_family = (uint8_t)a->family, .ndm_ifindex = n.nic.index, .ndm_state = NUD_PERMANENT};
    nl_start(&m, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof(head));
    nl_put(&m, NDA_DST, a->gateway, len_of(a));
    nl_put(&m, NDA_LLADDR, mac, sizeof(n.mac));
    return nl_send(&m);
}

static const int families[] = {AF_INET, AF_INET6};
#define N_FAMILIES (sizeof(families) / sizeof(*families))

/* What there is of a family into ret, without a gateway if there is nothing. 0 or -errno. */
static int find_gateway(int family, struct net_address *ret)
{
    *ret = (struct net_address){.family = family};
    int err = net_get_address(family, ret);
    return err == -EADDRNOTAVAIL ? 0 : err;
}

int net_set_gateway_mac(const uint8_t mac[6])
{
    struct net_address a;
    int n = 0;

    for (unsigned i = 0; i < N_FAMILIES; i++) {
        int err = find_gateway(families[i], &a);
        if (err == 0 && has_gateway(&a)) {
            err = set_neighbour(&a, mac);
            n++;
        }
        if (err != 0)
            return err;
    }
    return n == 0 ? -ENETUNREACH : 0;
}

int net_get_gateway_mac(const uint8_t due[6], uint8_t ret_mac[6])
{
    struct net_address a;
    struct neighbour n;

    memcpy(ret_mac, due, 6);
    for (unsigned i = 0; i < N_FAMILIES; i++) {
        int err = find_gateway(families[i], &a);
        if (err == 0 && !has_gateway(&a))
            continue;
        if (err == 0)
            err = get_neighbour(&a, &n);
        if (err != 0)
            return err;
        if (!n.permanent)
            return -EADDRNOTAVAIL;
        if (memcmp(n.mac, due, 6) != 0)
            memcpy(ret_mac, n.mac, 6);
    }
    return 0;
}

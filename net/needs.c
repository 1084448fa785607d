/* What of the kernel is missing, in words. See needs.h.
 *
 * Happy path of the check: a namespace with a tap, a veth pair and a slot's rules is made, nothing keeps it, and
 * the kernel takes it down. On the way: the first step that fails is the reason.
 */
#include "net/needs.h"

#include <errno.h>
#include <string.h>
#include "net/link.h"
#include "net/netns.h"
#include "net/rules.h"

static const struct {
    const char *what, *hint;
} needs[VF_NEED_COUNT] = {
    [VF_NEED_NAMESPACE] = {"network namespaces", "the kernel needs CONFIG_NET_NS"},
    [VF_NEED_TUN] = {"taps", "load the module: modprobe tun (a container needs the device "
                             "/dev/net/tun)"},
    [VF_NEED_VETH] = {"veth pairs", "load the module: modprobe veth"},
    [VF_NEED_SLOT_RULES] = {"nftables in a namespace",
                            "load the modules: modprobe -a nf_tables nft_ct nft_limit nft_nat "
                            "nft_masq nft_chain_nat nf_conntrack_netlink (and CONFIG_NF_TABLES_"
                            "INET, CONFIG_NF_TABLES_NETDEV)"},
    [VF_NEED_HOST_RULES] = {"nftables", "load the modules: modprobe -a nf_tables nft_ct nft_fib_"
                                        "inet nft_nat nft_masq nft_chain_nat (and "
                                        "CONFIG_NF_TABLES_INET)"},
    [VF_NEED_RATES] = {"rate limits", "load the module: modprobe sch_tbf"},
};

int vf_need(int r, enum vf_need need, struct vf_error *err)
{
    if (r >= 0 || !err)
        return r;
    if (err->code == VF_PERMISSION)
        vf_hint(err, "networks need CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root, or set the "
                     "spec's network to none");
    if (err->code != VF_NOT_FOUND && err->code != VF_UNSUPPORTED)
        return r;
    err->code = VF_UNSUPPORTED;
    vf_hint(err, "%s", needs[need].hint);
    return vf_wrap(err, "the kernel lacks what %s need", needs[need].what);
}

static int try_links(struct vf_netns *ns, struct vf_nl *route, struct vf_error *err)
{
    static const struct vf_tap_shape tap = {.queues = 1, .offloads = true};
    const struct vf_veth veth = {.name = "host1",
                                 .mac = {{0x02, 0x76, 0x6d, 1, 0, 1}},
                                 .peer_name = VF_NET_UPLINK,
                                 .peer_mac = {{0x02, 0x76, 0x6d, 1, 0, 2}},
                                 .peer_index = VF_NET_UPLINK_INDEX,
                                 .peer_ns = ns->ns};
    struct vf_nl_batch b = {0};
    int r =
        vf_need(vf_tap_make(ns->tuns, VF_NET_TAP, VF_NET_TAP_INDEX, &tap, err), VF_NEED_TUN, err);
    if (r == 0) {
        vf_link_add_veth(&b, &veth);
        r = vf_need(vf_nl_send(route, &b, err), VF_NEED_VETH, err);
    }
    vf_nl_batch_free(&b);
    return r;
}

static int try_rules(struct vf_nl *netfilter, struct vf_error *err)
{
    static const struct vf_address_pool pool; /* without addresses */
    const struct vf_net_rules rules = {.pool = &pool, .guest_mac = vf_inside.guest_mac};
    struct vf_nl_batch b = {0};
    vf_rules_slot(&b, &rules);
    int r = vf_need(vf_nl_send(netfilter, &b, err), VF_NEED_SLOT_RULES, err);
    vf_nl_batch_free(&b);
    return r;
}

int vf_needs_check(struct vf_error *err)
{
    struct vf_netns ns;
    struct vf_nl route, netfilter;
    int r = vf_netns_create(1, &ns, err);
    if (r < 0)
        return r;
    vf_nl_adopt(&route, ns.route);
    vf_nl_adopt(&netfilter, ns.netfilter);
    r = try_links(&ns, &route, err);
    if (r == 0)
        r = try_rules(&netfilter, err);
    vf_netns_close(&ns);
    return r;
}

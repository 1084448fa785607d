/* What can be told of networks without making any: configurations that can't be, modes that were not asked for, and what a
 * lack in the kernel is called. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "net/needs.h"
#include "net/networks.h"

static const char *const nat[] = {"10.210.0.0/16", "fd76:6d01::/48", NULL};

static void refuse(const struct vf_networks_config *cfg, enum vf_code code, const char *says)
{
    struct vf_networks *n = NULL;
    struct vf_error e = {0};
    cr_expect_lt(vf_networks_open(cfg, &n, &e), 0, "%s", says);
    cr_expect_eq(e.code, code, "%s", e.msg);
    cr_expect(strstr(e.msg, says), "%s", e.msg);
    cr_expect_null(n);
}

Test(net_networks, bad_configurations_are_refused_at_once)
{
    static const char *const bad[] = {"10.210.0.0/33", NULL},
                             *const bits[] = {"10.210.0.1/16", NULL},
                             *const loop[] = {"127.0.0.0/16", NULL},
                             *const inside[] = {"172.31.0.0/16", NULL},
                             *const same[] = {"192.168.7.0/24", "10.210.3.0/24", NULL},
                             *const bridge[] = {"192.168.7.0/24", NULL},
                             *const stray[] = {"192.168.8.1", NULL}, *const none[] = {NULL};
    struct vf_networks_config cfg = {.run_dir = "/nowhere", .prefixes = bad};
    refuse(&cfg, VF_INVALID_ARGUMENT, "network.prefixes[0]: \"10.210.0.0/33\"");
    cfg.prefixes = bits;
    refuse(&cfg, VF_INVALID_ARGUMENT, "mode nat: network.prefixes[0]: \"10.210.0.1/16\"");
    cfg.prefixes = loop;
    refuse(&cfg, VF_INVALID_ARGUMENT, "overlaps 127.0.0.0/8");
    cfg.prefixes = inside;
    refuse(&cfg, VF_CONFLICT, "overlaps 172.31.255.0/30");
    cfg.prefixes = nat;
    cfg.bridge = "br0";
    refuse(&cfg, VF_INVALID_ARGUMENT, "network_bridge_prefixes");
    cfg.bridge_prefixes = none;
    refuse(&cfg, VF_INVALID_ARGUMENT, "network_bridge_prefixes");
    cfg.bridge_prefixes = same;
    refuse(&cfg, VF_CONFLICT,
           "network_bridge_prefixes[1]: 10.210.3.0/24 overlaps 10.210.0.0/16 of network_prefixes");
    cfg.prefixes = NULL;
    cfg.bridge_prefixes = bridge;
    cfg.bridge_gateways = stray;
    refuse(&cfg, VF_INVALID_ARGUMENT, "mode bridge: network.gateway: 192.168.8.1");
    cfg = (struct vf_networks_config){.run_dir = "/nowhere", .first_port = 9, .last_port = 8};
    refuse(&cfg, VF_INVALID_ARGUMENT, "network_ports: 9-8");
    cfg.last_port = 65536;
    refuse(&cfg, VF_INVALID_ARGUMENT, "network_ports: 9-65536");
}

Test(net_networks, modes_that_are_not_configured_say_how_to)
{
    static const enum vf_network_mode modes[] = {VF_NETWORK_NAT, VF_NETWORK_BRIDGE};
    static const char *const hints[] = {"network_prefixes", "network_bridge"};
    struct vf_networks_config cfg = {.run_dir = "/nowhere", .ahead = 4};
    struct vf_networks *n = NULL;
    struct vf_net *slot = NULL;
    struct vf_nets_counts counts;
    struct vf_sweep sweep;
    struct vf_error e;
    bool more = true;
    cr_assert_eq(vf_networks_open(&cfg, &n, &e), 0, "%s", e.msg);
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(vf_networks_check(n, modes[i], &e), -EOPNOTSUPP);
        cr_expect(strstr(e.msg, "not configured") && strstr(e.hint, hints[i]), "%s", e.msg);
        memset(&e, 0, sizeof(e));
        cr_expect_eq(vf_networks_take(n, modes[i], &vf_net_shape_default, &slot, &e), -EOPNOTSUPP);
        cr_expect(strstr(e.msg, "not configured"), "%s", e.msg);
        cr_expect_eq(vf_networks_take(n, modes[i], &vf_net_shape_default, &slot, NULL),
                     -EOPNOTSUPP);
        cr_expect_eq(vf_networks_adopt(n, modes[i], 0, -1, &slot, &e), -EOPNOTSUPP);
        vf_networks_want(n, modes[i], &vf_net_shape_default, 3);
        vf_networks_counts(n, modes[i], &counts);
        cr_expect_eq(counts.capacity, 0);
    }
    cr_expect_eq(vf_networks_check(n, VF_NETWORK_NONE, &e), 0);
    cr_expect_eq(vf_networks_check(n, VF_NETWORK_EXTERNAL, &e), 0);
    cr_expect_eq(vf_networks_take(n, VF_NETWORK_EXTERNAL, &vf_net_shape_default, &slot, &e),
                 -EINVAL);
    cr_expect(strstr(e.msg, "external"), "%s", e.msg);
    cr_expect_not(vf_networks_short(n));
    cr_expect_eq(vf_networks_restock(n, &more, &e), 0);
    cr_expect_not(more);
    cr_expect_eq(vf_networks_sweep(n, &sweep, &e), 0);
    cr_expect_eq(sweep.removed, 0);
    vf_networks_close(n);
    vf_networks_close(NULL);
}

Test(net_networks, what_the_kernel_lacks_is_named_with_its_module)
{
    static const struct {
        enum vf_need need;
        int errnum; /* as the kernel answers without it */
        const char *hint;
    } cases[] = {
        {VF_NEED_NAMESPACE, EOPNOTSUPP, "CONFIG_NET_NS"},
        {VF_NEED_TUN, ENODEV, "modprobe tun"},
        {VF_NEED_TUN, ENOENT, "/dev/net/tun"},
        {VF_NEED_VETH, EOPNOTSUPP, "modprobe veth"},
        {VF_NEED_SLOT_RULES, EAFNOSUPPORT, "nf_tables"},
        {VF_NEED_SLOT_RULES, ENOENT, "nft_masq"},
        {VF_NEED_HOST_RULES, EPROTONOSUPPORT, "nft_fib_inet"},
        {VF_NEED_RATES, ENOENT, "modprobe sch_tbf"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vf_error e;
        int r = vf_fail_errno(&e, cases[i].errnum, "add something");
        r = vf_need(r, cases[i].need, &e);
        cr_expect_eq(r, -EOPNOTSUPP, "%zu: %d", i, r);
        cr_expect_eq(e.code, VF_UNSUPPORTED);
        cr_expect(strstr(e.msg, "the kernel lacks") && strstr(e.msg, "add something"), "%s", e.msg);
        cr_expect(strstr(e.hint, cases[i].hint), "%zu: %s", i, e.hint);
    }
    struct vf_error e;
    int r = vf_need(vf_fail_errno(&e, EPERM, "add something"), VF_NEED_VETH, &e);
    cr_expect_eq(r, -EACCES);
    cr_expect(strstr(e.hint, "CAP_NET_ADMIN"), "%s", e.hint);
    r = vf_need(vf_fail_errno(&e, EEXIST, "add something"), VF_NEED_VETH, &e);
    cr_expect_eq(r, -EBUSY, "that is not the kernel's fault");
    cr_expect_str_empty(e.hint);
    cr_expect_eq(vf_need(0, VF_NEED_VETH, &e), 0);
}

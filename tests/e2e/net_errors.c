/* What can go wrong is said so that it can be put right. */
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "tests/e2e/net_support.h"
#include "tests/e2e/support.h"

TestSuite(net_errors, .timeout = 60);

static const char *const good[] = {"10.210.0.0/24", NULL};

static void expect_refusal(const char *const *prefixes, enum vf_code code, const char *says)
{
    struct vf_nets_config cfg = {.run_dir = NET_RUN, .prefixes = prefixes};
    struct vf_nets *s = NULL;
    struct vf_error e = {0};
    cr_expect_lt(vf_nets_open(&cfg, &s, &e), 0, "%s", prefixes[0]);
    cr_expect_eq(e.code, code, "%s: %s", prefixes[0], e.msg);
    cr_expect(strstr(e.msg, says), "%s: %s", prefixes[0], e.msg);
    cr_expect_str_not_empty(e.hint, "%s", e.msg);
    cr_expect_null(s);
}

Test(net_errors, prefixes_the_host_uses_are_refused)
{
    static const char *const same[] = {"10.9.0.0/16", NULL},
                             *const inside[] = {"10.9.3.0/24", NULL},
                             *const around[] = {"10.0.0.0/8", NULL},
                             *const six[] = {"2001:db8:9::/64", NULL},
                             *const second[] = {"10.210.0.0/24", "192.0.2.0/26", NULL};
    struct net n;
    net_enter("net_errors", "prefixes_the_host_uses_are_refused");
    memset(&n, 0, sizeof(n));
    net_outside(&n);
    net_shell("ip route add 10.9.0.0/16 via " NET_OUT4 "; ip route add default via " NET_OUT4
              "; ip -6 route add 2001:db8:9::/48 via " NET_OUT6);
    expect_refusal(same, VF_CONFLICT,
                   "10.9.0.0/16 overlaps the host's route to 10.9.0.0/16 by out0");
    expect_refusal(inside, VF_CONFLICT, "overlaps the host's route to 10.9.0.0/16");
    expect_refusal(around, VF_CONFLICT, "overlaps the host's route");
    expect_refusal(six, VF_CONFLICT, "overlaps the host's route to 2001:db8:9::/48");
    expect_refusal(second, VF_CONFLICT, "network.prefixes[1]: 192.0.2.0/26");
    struct vf_nets_config cfg = {.run_dir = NET_RUN, .prefixes = good};
    struct vf_nets *s = NULL;
    struct vf_error e;
    cr_expect_eq(vf_nets_open(&cfg, &s, &e), 0, "a default route is in nobody's way: %s", e.msg);
    vf_nets_close(s);
    vf_netns_close(&n.outside);
}

Test(net_errors, a_host_that_does_not_forward)
{
    net_enter("net_errors", "a_host_that_does_not_forward");
    net_shell("echo 0 >/proc/sys/net/ipv4/ip_forward");
    expect_refusal(good, VF_UNSUPPORTED, "does not forward");
}

Test(net_errors, all_addresses_in_use)
{
    static const char *const few[] = {"10.210.0.0/30", NULL};
    struct vf_nets_config cfg = {.run_dir = NET_RUN, .prefixes = few};
    struct vf_nets *s = NULL;
    struct vf_nets_counts c;
    struct vf_error e;
    net_enter("net_errors", "all_addresses_in_use");
    cr_assert_eq(vf_nets_open(&cfg, &s, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_make(s, &net_plain, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_make(s, &net_plain, &e), 0, "%s", e.msg);
    cr_expect_lt(vf_net_make(s, &net_plain, &e), 0);
    cr_expect_eq(e.code, VF_BUSY);
    cr_expect(strstr(e.msg, "all 2"), "%s", e.msg);
    vf_nets_counts(s, &c);
    cr_expect_eq(c.ready, 2);
    cr_expect_eq(c.making, 0);
    vf_nets_close(s);
    cr_expect_eq(net_count_records(), 0);
}

Test(net_errors, without_privileges)
{
    struct vf_nets_config cfg = {.run_dir = NET_RUN, .prefixes = good};
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    struct vf_nets *s = NULL;
    struct vf_error e;
    struct vf_netns ns;
    net_enter("net_errors", "without_privileges");
    cr_assert_eq(syscall(SYS_capset, &h, none), 0);
    cr_expect_lt(vf_nets_open(&cfg, &s, &e), 0);
    cr_expect_eq(e.code, VF_PERMISSION, "%s", e.msg);
    cr_expect(strstr(e.hint, "CAP_NET_ADMIN") && strstr(e.hint, "none"), "%s (%s)", e.msg, e.hint);
    cr_expect_lt(vf_netns_create(1, &ns, &e), 0);
    cr_expect_eq(e.code, VF_PERMISSION, "%s", e.msg);
    cr_expect_str_not_empty(e.hint);
}

/* The words are the kernel's own. */
Test(net_errors, the_kernels_words_are_in_the_message)
{
    struct net n;
    struct vf_nl nl;
    struct vf_nl_batch b = {0};
    struct vf_error e;
    net_open(&n, "net_errors", "the_kernels_words_are_in_the_message");
    cr_assert_eq(vf_nl_open(&nl, NETLINK_ROUTE, &e), 0);
    struct vf_ip ip = net_ip("10.0.0.1");
    vf_link_address(&b, 4711, &ip, 32);
    cr_expect_eq(vf_nl_send(&nl, &b, &e), -ENOENT);
    cr_expect(strstr(e.msg, "add an address"), "%s", e.msg);
    ip.b[3] = 9;
    vf_link_default_route(&b, 1, &ip);
    cr_expect_lt(vf_nl_send(&nl, &b, &e), 0);
    cr_expect(strstr(e.msg, "the kernel says \"Nexthop has invalid gateway\""), "%s", e.msg);
    /* Of several the first counts, and the rest is tried all the same. */
    struct vf_link_change lo = {.index = 1};
    vf_link_delete(&b, "nothing");
    vf_link_up(&b, &lo);
    vf_link_delete(&b, "lo");
    cr_expect_eq(vf_nl_send(&nl, &b, &e), -ENOENT);
    cr_expect(strstr(e.msg, "delete an interface"), "%s", e.msg);
    vf_nl_batch_free(&b);
    vf_nl_close(&nl);
    net_close(&n);
}

Test(net_errors, policies_that_make_no_sense)
{
    struct net n;
    struct vf_error e;
    struct vf_policy port = {.ports = {{IPPROTO_TCP, 0, 80}}, .n_ports = 1},
                     range = {.egress = VF_EGRESS_LIST, .n_rules = 1};
    struct vf_net_shape shape = net_plain;
    net_open(&n, "net_errors", "policies_that_make_no_sense");
    struct vf_net *slot = net_slot(&n);
    cr_expect_eq(vf_net_set(slot, &port, &e), -EINVAL);
    cr_expect(strstr(e.msg, "network.ports[0]"), "%s", e.msg);
    range.rules[0] = (struct vf_egress_rule){.protocol = 6, .first_port = 9, .last_port = 8};
    cr_expect_eq(vf_net_set(slot, &range, &e), -EINVAL);
    cr_expect(strstr(e.msg, "network.egress[0]"), "%s", e.msg);
    shape.mtu = 100000;
    cr_expect_eq(vf_net_make(n.slots, &shape, &e), -EINVAL);
    cr_expect(strstr(e.msg, "network.mtu"), "%s", e.msg);
    shape = net_plain;
    shape.tap.queues = 99;
    cr_expect_eq(vf_net_make(n.slots, &shape, &e), -EINVAL);
    cr_expect(strstr(e.msg, "network.queues"), "%s", e.msg);
    cr_assert_eq(vf_net_destroy(slot, &e), 0);
    net_close(&n);
}

Test(net_errors, a_path_that_is_no_namespace)
{
    struct vf_netns ns;
    struct vf_error e;
    net_enter("net_errors", "a_path_that_is_no_namespace");
    cr_expect_eq(vf_netns_open("/run/netns/nothing", 0, &ns, &e), -ENOENT);
    cr_expect(strstr(e.msg, "network namespace /run/netns/nothing"), "%s", e.msg);
    cr_expect_eq(vf_netns_open("/proc/self/status", 0, &ns, &e), -EINVAL);
    cr_expect(strstr(e.msg, "not one"), "%s", e.msg);
    cr_expect_eq(vf_netns_open("/proc/self/ns/mnt", 0, &ns, &e), -EINVAL, "%s", e.msg);
}

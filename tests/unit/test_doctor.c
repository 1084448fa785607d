/* What doctor reads about networks. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "scratch.h"
#include "tools/vmfactory/doctor.h"

TestSuite(doctor, .timeout = 30);

Test(doctor, capabilities)
{
    static const char root[] = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
    static const char some[] = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000001000\n";

    cr_expect(vf_doctor_has_cap(root, CAP_SYS_ADMIN));
    cr_expect(vf_doctor_has_cap(some, CAP_NET_ADMIN));
    cr_expect_not(vf_doctor_has_cap(some, CAP_SYS_ADMIN));
    cr_expect_not(vf_doctor_has_cap("", CAP_NET_ADMIN));
}

static struct vf_finding judged(const char *networks, bool has_bridge)
{
    struct vf_finding f = {.verdict = VF_FINDING_SKIPPED};
    struct vf_json *j = vf_json_parse(networks, strlen(networks));

    vf_doctor_judge_modes(j, has_bridge, &f);
    vf_json_delete(j);
    return f;
}

Test(doctor, modes_that_the_daemon_refuses)
{
#define REFUSED(why, hint) \
    "{\"available\":false,\"reason\":{\"code\":\"x\",\"message\":\"" why "\",\"hint\":" hint "}}"
#define HAD "{\"available\":true,\"reason\":null}"
    struct vf_finding f = judged(
        "{\"networks\":{\"nat\":" REFUSED("no way", "\"go on\"") ",\"bridge\":" HAD "}}", true);

    cr_expect_eq(f.verdict, VF_FINDING_WARN);
    cr_expect_str_eq(f.detail, "vmfactoryd refuses the mode nat: no way");
    cr_expect_str_eq(f.fix, "go on");
    f = judged("{\"networks\":{\"nat\":" HAD ",\"bridge\":" REFUSED("none", "null") "}}", true);
    cr_expect_eq(f.verdict, VF_FINDING_WARN);
    cr_expect_str_eq(f.detail, "vmfactoryd refuses the mode bridge: none");
    f = judged("{\"networks\":{\"nat\":" HAD ",\"bridge\":" REFUSED("none", "null") "}}", false);
    cr_expect_eq(f.verdict, VF_FINDING_OK);
    cr_expect_str_eq(f.detail, "vmfactoryd has the mode nat");
    f = judged("{\"settings\":[]}", false);
    cr_expect_eq(f.verdict, VF_FINDING_SKIPPED);
    f = judged("{\"networks\":{}}", false);
    cr_expect_eq(f.verdict, VF_FINDING_WARN);
}

Test(doctor, modules)
{
    static const char builtin[] = "kernel/drivers/net/veth.ko\nkernel/net/netfilter/nf_nat.ko\n";
    static const char dep[] = "kernel/net/netfilter/nf_tables.ko.xz: kernel/lib/libcrc32c.ko.xz\n"
                              "kernel/net/netfilter/nf-conntrack.ko: kernel/x/nft_masq.ko\n"
                              "kernel/net/sched/sch_tbf.ko.zst:";

    cr_expect(vf_doctor_lists_module(builtin, "veth"));
    cr_expect(vf_doctor_lists_module(builtin, "nf_nat"));
    cr_expect_not(vf_doctor_lists_module(builtin, "nf_na"));
    cr_expect_not(vf_doctor_lists_module(builtin, "nat"));
    cr_expect(vf_doctor_lists_module(dep, "nf_tables"));
    cr_expect(vf_doctor_lists_module(dep, "nf_conntrack"));
    cr_expect(vf_doctor_lists_module(dep, "sch_tbf"));
    cr_expect_not(vf_doctor_lists_module(dep, "libcrc32c"), "named, but not listed");
    cr_expect_not(vf_doctor_lists_module("", "veth"));
}

Test(doctor, names_of_slots)
{
    cr_expect_eq(vf_doctor_slot_number("vf-7", "vf-"), 7);
    cr_expect_eq(vf_doctor_slot_number("vf-65535", "vf-"), 65535);
    cr_expect_lt(vf_doctor_slot_number("vf-65536", "vf-"), 0);
    cr_expect_lt(vf_doctor_slot_number("vf-", "vf-"), 0);
    cr_expect_lt(vf_doctor_slot_number("vf-7x", "vf-"), 0);
    cr_expect_lt(vf_doctor_slot_number("vf-x7", "vf-"), 0);
    cr_expect_lt(vf_doctor_slot_number("vfb-7", "vf-"), 0);
    cr_expect_eq(vf_doctor_slot_number("vfb-7", "vfb-"), 7);
    cr_expect_lt(vf_doctor_slot_number("blue", "vf-"), 0);
}

static const char routes4[] =
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t010010AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    "eth0\t000010AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
    "vf-7\t0E00D20A\t00000000\t0001\t0\t0\t0\tFEFFFFFF\t0\t0\t0\n"
    "wg0\t00C0D30A\t00000000\t0001\t0\t0\t0\t00C0FFFF\t0\t0\t0\n";

static const char routes6[] =
    "fd766d01000000000000000000000000 7f 00000000000000000000000000000000 00 "
    "00000000000000000000000000000000 00000100 00000001 00000000 00000001     vf-0\n"
    "fd766d01000000070000000000000000 40 00000000000000000000000000000000 00 "
    "00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
    "fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n";

Test(doctor, routes_in_the_way)
{
    char way[100] = "";

    cr_expect_not(vf_doctor_route_in_way(routes4, "10.210.0.0/16", way, sizeof(way)), "%s", way);
    cr_expect(vf_doctor_route_in_way(routes4, "172.16.5.0/24", way, sizeof(way)));
    cr_expect_str_eq(way, "172.16.0.0/16 through eth0");
    cr_expect(vf_doctor_route_in_way(routes4, "10.0.0.0/8", way, sizeof(way)));
    cr_expect_str_eq(way, "10.211.192.0/18 through wg0");
    cr_expect_not(vf_doctor_route_in_way(routes4, "10.211.0.0/17", way, sizeof(way)), "%s", way);
    cr_expect_not(vf_doctor_route_in_way(routes4, "fd76:6d01::/48", way, sizeof(way)));
    cr_expect_not(vf_doctor_route_in_way(routes4, "nonsense", way, sizeof(way)));
    cr_expect_not(vf_doctor_route_in_way("", "10.0.0.0/8", way, sizeof(way)));

    cr_expect(vf_doctor_route_in_way(routes6, "fd76:6d01::/48", way, sizeof(way)));
    cr_expect_str_eq(way, "fd76:6d01:0:7::/64 through eth0");
    cr_expect_not(vf_doctor_route_in_way(routes6, "fd76:6d01:8::/48", way, sizeof(way)));
    cr_expect_not(vf_doctor_route_in_way(routes6, "fd76:6d02::/48", way, sizeof(way)));
}

/* Every check ends with a finding that says something, or leaves it to another; none is bad, none has a fix without need. */
Test(doctor, each_check_of_networks_finds_something)
{
    struct vf_cli cli = {.args.socket = "/nonexistent/api.sock"};
    int n = 0;

    for (const struct vf_check *c = vf_network_checks; c->name != NULL; c++, n++) {
        struct vf_finding f = {0};

        c->look(&cli, &f);
        cr_expect_neq(f.verdict, VF_FINDING_BAD, "%s: mode none needs no network", c->name);
        cr_expect_eq(f.verdict == VF_FINDING_WARN, f.fix[0] != '\0', "%s: %s", c->name, f.detail);
        if (f.verdict != VF_FINDING_SKIPPED)
            cr_expect_neq(f.detail[0], '\0', "%s", c->name);
        cr_expect_lt(strlen(f.fix), sizeof(f.fix) - 1, "%s: the fix is cut off", c->name);
        cr_expect_lt(strlen(c->name), 13, "%s is wider than its column", c->name);
    }
    cr_expect_eq(n, 7);
}

/* As a user who may do nothing. */
Test(doctor, the_unprivileged_are_told)
{
    struct vf_cli cli = {.args.socket = "/nonexistent/api.sock"};
    struct vf_finding f = {0};

    if (geteuid() == 0)
        cr_assert_eq(setresuid(65534, 65534, 65534), 0);
    cr_assert_str_eq(vf_network_checks[0].name, "networks");
    vf_network_checks[0].look(&cli, &f);
    cr_expect_eq(f.verdict, VF_FINDING_WARN);
    cr_expect_not_null(strstr(f.detail, "mode none works"), "%s", f.detail);
    cr_expect_not_null(strstr(f.fix, "root"), "%s", f.fix);
}

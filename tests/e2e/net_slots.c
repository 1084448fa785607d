/* A slot's life: made, taken, set, given back, destroyed. */
#include <string.h>
#include <unistd.h>
#include "tests/e2e/net_support.h"

TestSuite(net_slots, .timeout = 60);

Test(net_slots, a_slot_is_made_and_taken_and_gone_in_the_end)
{
    struct net n;
    struct vf_nets_counts c;
    struct vf_net_info info;
    struct vf_error e;
    char text[VF_IP_TEXT];

    net_open(&n, "net_slots", "a_slot_is_made_and_taken_and_gone_in_the_end");
    struct vf_net *slot = net_slot(&n);
    vf_net_info(slot, &info);
    cr_expect_str_eq(info.name, "vf-0");
    cr_expect_str_eq(info.netns_path, "/run/netns/vf-0");
    cr_expect_str_eq(vf_ip_text(&info.host4, text), "10.210.0.1");
    cr_expect_str_eq(vf_ip_text(&info.host6, text), "fd76:6d01::1");
    cr_expect_eq(info.n_tap_fds, 1);
    vf_nets_counts(n.slots, &c);
    cr_expect_eq(c.capacity, 128);
    cr_expect_eq(c.taken, 1);
    cr_expect_eq(c.ready, 0);

    /* As others see it. */
    cr_expect(strstr(net_shell("ip netns"), "vf-0"));
    cr_expect(strstr(net_shell("ip addr show dev vf-0"), "inet 10.210.0.0/31"));
    const char *inside = net_shell_in(slot, "ip addr; ip route; ip -6 route; ip neigh");
    static const char *const wanted[] = {
        "172.31.255.1/30",         "fd76:6d00::1/64",
        "10.210.0.1/31",           "default via 10.210.0.0",
        "default via fd76:6d01::", "172.31.255.2 dev tap0 lladdr 02:76:6d:00:00:02"};
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        cr_expect(strstr(inside, wanted[i]), "%s not in:\n%s", wanted[i], inside);

    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
    vf_nets_counts(n.slots, &c);
    cr_expect_eq(c.ready, 1);
    cr_expect_eq(c.recycled, 1);
    net_close(&n);
}

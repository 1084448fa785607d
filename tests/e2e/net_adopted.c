/* What VMs of an earlier run use is taken over: ports, policy, counts, and a namespace whose name is gone. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/e2e/networks_support.h"

TestSuite(net_adopted, .timeout = 60);

static pid_t run_before(const struct vf_networks_config *cfg)
{
    static const struct vf_port ports[] = {{IPPROTO_UDP, 8080, 80}, {IPPROTO_UDP, 0, 81}};
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid)
        return pid;
    struct vf_networks *n;
    struct vf_net *a, *b, *c;
    struct vf_error e = {0};
    struct vf_policy p = {.egress = VF_EGRESS_DENY, .in_bytes_per_s = 1000000};

    if (vf_networks_open(cfg, &n, &e) == 0 &&
        vf_networks_take(n, VF_NETWORK_NAT, &net_plain, &a, &e) == 0 &&
        vf_networks_take(n, VF_NETWORK_NAT, &net_plain, &b, &e) == 0 &&
        vf_networks_take(n, VF_NETWORK_BRIDGE, &net_plain, &c, &e) == 0 &&
        vf_net_set(a, &p, &e) == 0 && vf_networks_publish(n, a, ports, 2, NULL, &e) == 0)
        raise(SIGKILL);
    fprintf(stderr, "%s (%s)\n", e.msg, e.hint);
    _exit(1);
}

Test(net_adopted, what_is_in_use_is_adopted_and_the_rest_swept)
{
    static const struct vf_port again[] = {{IPPROTO_UDP, 8080, 82}, {IPPROTO_UDP, 30000, 81}},
                                web = {IPPROTO_UDP, 8080, 80};
    struct vf_networks_config cfg = nets_plain;
    struct vf_net *a = NULL, *b;
    struct vf_net_info info;
    struct net_packet got;
    struct vf_sweep sweep;
    struct vf_error e;
    int status;
    net_enter("net_adopted", "what_is_in_use_is_adopted_and_the_rest_swept");
    net_shell(NETS_MAKE_BRIDGE "; ip link add out0 type veth peer name in0; ip addr add " NET_HOST4
                               "/24 dev out0; ip link set out0 up");
    cfg.bridge = "br0";
    cfg.bridge_prefixes = nets_on_bridge;
    pid_t pid = run_before(&cfg);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status));

    struct vf_networks *n = nets_open(&cfg);
    cr_assert_eq(vf_networks_adopt(n, VF_NETWORK_NAT, 0, -1, &a, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_networks_sweep(n, &sweep, &e), 0, "%s", e.msg);
    cr_expect_eq(sweep.removed, 2, "one of each mode");
    cr_expect_eq(sweep.failed, 0);
    cr_expect_eq(sweep.foreign, 0, "%s", sweep.names);
    cr_expect_eq(net_count_links("vf"), 1);
    vf_net_info(a, &info);
    cr_assert_eq(info.n_ports, 2);
    cr_expect_eq(info.ports[0].port + info.ports[1].port, 8080 + 30000);

    /* Its ports are known, so nobody else gets them, and they can be changed; its policy is still in force. */
    b = nets_take(n, VF_NETWORK_NAT);
    nets_refuse_ports(b, &web, 1, VF_CONFLICT, "8080 leads to another VM");
    cr_assert_eq(vf_networks_publish(n, a, again, 2, NULL, &e), 0, "%s", e.msg);
    const char *rules = net_shell("nft list table inet vmfactory");
    cr_expect(strstr(rules, "8080 : 10.210.0.1 . 82"), "%s", rules);
    rules = net_shell_in(a, "nft list chain inet vmfactory egress; tc qdisc show dev tap0");
    cr_expect(strstr(rules, "refused_policy") && strstr(rules, "rate 8Mbit"), "%s", rules);

    /* By the port of the host's own address, as a VMM that lives on sees it. */
    struct vf_netns ns;
    cr_assert_eq(vf_netns_open(info.netns_path, 1, &ns, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_tap_attach(ns.tuns, info.tap, &net_plain.tap, &e), 0, "%s", e.msg);
    vf_netns_close(&ns);
    cr_assert_eq(vf_networks_publish(n, a, NULL, 0, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_networks_publish(n, b, &web, 1, NULL, &e), 0, "free again: %s", e.msg);
    struct vf_ip own = net_ip(NET_HOST4);
    int s = net_udp(-1, NET_HOST4, 0);
    net_udp_send(s, &own, 8080, "to the other");
    cr_assert(net_guest_receive(b, NET_TIMEOUT_MS, &got));
    cr_expect_str_eq(got.text, "to the other");
    close(s);
    nets_give_back(a);
    nets_give_back(b);
    vf_networks_close(n);
    nets_nothing_is_left();
}

/* A process in the slot's namespace, like a VMM that lives on. */
static pid_t live_in(const char *netns)
{
    int ready[2], status = 0;
    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(netns, O_RDONLY | O_CLOEXEC);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (fd < 0 || setns(fd, CLONE_NEWNET) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    cr_assert_eq(read(ready[0], &status, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static int netns_of(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", strerror(errno));
    return fd;
}

/* The daemon had mounts of its own, and they ended with it: what is left is a file without a namespace, or nothing. */
static void adopt_without_name(const char *lose)
{
    struct vf_net *a = NULL;
    struct vf_net_info info;
    struct vf_net_stats stats;
    struct vf_sweep sweep;
    struct vf_error e;
    struct vf_networks *n = nets_open(&nets_plain);
    a = nets_take(n, VF_NETWORK_NAT);
    struct net_packet p = net_packet(a, NET_OUT4, 7000, "counted");
    net_guest_send(a, &p);
    nets_give_back(a); /* what was counted until here is another's */
    a = nets_take(n, VF_NETWORK_NAT);
    p.text[0] = 0;
    net_guest_send(a, &p);
    vf_net_info(a, &info);
    pid_t vmm = live_in(info.netns_path);
    net_shell("%s", lose);
    vf_net_forget(a);
    vf_networks_close(n);

    n = nets_open(&nets_plain);
    int right = netns_of(vmm), wrong = netns_of(getpid());
    cr_expect_lt(vf_networks_adopt(n, VF_NETWORK_NAT, 0, -1, &a, &e), 0);
    cr_expect_lt(vf_networks_adopt(n, VF_NETWORK_NAT, 0, wrong, &a, &e), 0);
    cr_assert_eq(vf_networks_adopt(n, VF_NETWORK_NAT, 0, right, &a, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_networks_sweep(n, &sweep, &e), 0, "%s", e.msg);
    cr_expect_eq(sweep.removed + sweep.foreign, 0);
    cr_expect(strstr(net_shell_in(a, "ip link"), "tap0"));
    cr_assert_eq(vf_net_stats(a, &stats, &e), 0, "%s", e.msg);
    cr_expect_eq(stats.out_packets, 1, "%llu", (unsigned long long)stats.out_packets);

    /* Its name leads to where its VMM is; another one's does not. */
    vf_net_forget(a);
    vf_networks_close(n);
    n = nets_open(&nets_plain);
    cr_expect_lt(vf_networks_adopt(n, VF_NETWORK_NAT, 0, wrong, &a, &e), 0);
    cr_expect_eq(e.code, VF_CONFLICT, "%s", e.msg);
    cr_assert_eq(vf_networks_adopt(n, VF_NETWORK_NAT, 0, right, &a, &e), 0, "%s", e.msg);
    kill(vmm, SIGKILL);
    waitpid(vmm, NULL, 0);
    close(right);
    close(wrong);
    nets_give_back(a);
    vf_networks_close(n);
    nets_nothing_is_left();
}

Test(net_adopted, a_slot_whose_name_is_gone_is_adopted_by_its_vmms_namespace)
{
    net_enter("net_adopted", "a_slot_whose_name_is_gone_is_adopted_by_its_vmms_namespace");
    adopt_without_name("umount -l /run/netns/vf-0");
    adopt_without_name("umount -l /run/netns/vf-0; rm /run/netns/vf-0");
}

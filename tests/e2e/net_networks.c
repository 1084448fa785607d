/* Networks of all modes behind one object: kept ready, taken, published, adopted. */
#include <errno.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "tests/e2e/networks_support.h"

TestSuite(net_networks, .timeout = 60);

static const char *const few[] = {"10.210.0.0/30", NULL}; /* two */
static const char *const gateways[] = {"192.168.77.1", NULL};

static struct vf_nets_counts counts(struct vf_networks *n, enum vf_network_mode mode)
{
    struct vf_nets_counts c;
    vf_networks_counts(n, mode, &c);
    return c;
}

/* Restocks until nothing is to do; how many steps that took. */
static int restock(struct vf_networks *n)
{
    struct vf_error e;
    bool more = vf_networks_short(n);
    int steps = 0;
    for (; more; steps++)
        cr_assert_eq(vf_networks_restock(n, &more, &e), 0, "%s", e.msg);
    return steps;
}

Test(net_networks, what_was_asked_for_is_kept_ready)
{
    struct vf_networks_config cfg = nets_plain;
    struct vf_net_shape big = net_plain;
    net_enter("net_networks", "what_was_asked_for_is_kept_ready");
    cfg.ahead = 2;
    big.mtu = 9000;
    struct vf_networks *n = nets_open(&cfg);
    cr_expect_eq(restock(n), 0, "nothing was asked for");
    struct vf_net *a = nets_take(n, VF_NETWORK_NAT); /* none was ready */
    cr_expect_eq(counts(n, VF_NETWORK_NAT).made, 1);
    cr_expect_eq(restock(n), 2);
    cr_expect_eq(counts(n, VF_NETWORK_NAT).ready, 2);
    struct vf_net *b = nets_take(n, VF_NETWORK_NAT);
    cr_expect_eq(counts(n, VF_NETWORK_NAT).made, 3, "a ready one was taken");
    cr_expect_eq(restock(n), 1);
    vf_networks_want(n, VF_NETWORK_NAT, &big, 1);
    cr_expect(vf_networks_short(n));
    cr_expect_eq(restock(n), 1);
    cr_expect_eq(counts(n, VF_NETWORK_NAT).ready, 3);
    vf_networks_want(n, VF_NETWORK_NAT, &big, 0);
    cr_expect_eq(restock(n), 1, "what is wanted no more goes");
    cr_expect_eq(counts(n, VF_NETWORK_NAT).ready, 2);
    nets_give_back(a);
    nets_give_back(b);
    cr_expect_eq(restock(n), 0, "two more than wanted are not too many");
    vf_networks_close(n);
    nets_nothing_is_left();
}

Test(net_networks, all_addresses_taken_is_busy_and_a_ready_one_gives_way)
{
    struct vf_networks_config cfg = nets_plain;
    struct vf_net_shape big = net_plain;
    struct vf_net *slot = NULL;
    struct vf_error e;
    bool more = true;
    net_enter("net_networks", "all_addresses_taken_is_busy_and_a_ready_one_gives_way");
    cfg.prefixes = few;
    big.mtu = 9000;
    struct vf_networks *n = nets_open(&cfg);
    vf_networks_want(n, VF_NETWORK_NAT, &big, 2);
    cr_expect_eq(restock(n), 2);
    struct vf_net *a = nets_take(n, VF_NETWORK_NAT), *b = nets_take(n, VF_NETWORK_NAT);
    cr_expect_eq(counts(n, VF_NETWORK_NAT).ready, 0);
    cr_expect_eq(vf_networks_take(n, VF_NETWORK_NAT, &net_plain, &slot, &e), -EAGAIN);
    cr_expect_eq(e.code, VF_BUSY);
    cr_expect(strstr(e.msg, "all 2"), "%s", e.msg);
    cr_expect(vf_networks_short(n));
    cr_expect_eq(vf_networks_restock(n, &more, &e), -EAGAIN);
    cr_expect_not(more, "it is left alone for a while");
    cr_expect_not(vf_networks_short(n));
    nets_give_back(a);
    a = nets_take(n, VF_NETWORK_NAT);
    nets_give_back(a);
    nets_give_back(b);
    vf_networks_close(n);
    nets_nothing_is_left();
}

/* ---- ports */

static int listen_on(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0, "%s", strerror(errno));
    cr_assert_eq(listen(fd, 1), 0);
    return fd;
}

static const struct vf_port any[] = {
    {IPPROTO_TCP, 0, 80}, {IPPROTO_TCP, 0, 81}, {IPPROTO_UDP, 0, 53}};

Test(net_networks, ports_are_chosen_and_none_is_given_twice)
{
    struct vf_port p[3], q[3];
    struct vf_net_info info;
    struct vf_error e;
    net_enter("net_networks", "ports_are_chosen_and_none_is_given_twice");
    struct vf_networks *n = nets_open(&nets_plain);
    struct vf_net *a = nets_take(n, VF_NETWORK_NAT), *b = nets_take(n, VF_NETWORK_NAT);
    int listening = listen_on(30001);
    cr_assert_eq(vf_networks_publish(n, a, any, 3, p, &e), 0, "%s", e.msg);
    cr_expect_eq(p[0].port, 30000);
    cr_expect_eq(p[1].port, 30002, "30001 is the host's own");
    cr_expect_eq(p[2].port, 30003);
    vf_net_info(a, &info);
    cr_expect_eq(info.n_ports, 3);
    cr_expect_eq(info.ports[1].port, 30002);
    cr_expect_eq(info.ports[1].guest, 81);
    const char *rules = net_shell("nft -p list table inet vmfactory");
    cr_expect(strstr(rules, " 6 . 30002 : 10.210.0.1 . 81"), "%s", rules);

    /* One is left for TCP, two are wanted: none is. */
    cr_expect_eq(vf_networks_publish(n, b, any, 3, q, &e), -EAGAIN);
    cr_expect_eq(e.code, VF_BUSY);
    cr_expect(strstr(e.msg, "30000 to 30003"), "%s", e.msg);
    cr_assert_eq(vf_networks_publish(n, b, any, 1, q, &e), 0, "nothing stayed booked: %s", e.msg);
    cr_expect_eq(q[0].port, 30003);
    close(listening);
    cr_assert_eq(vf_networks_publish(n, b, any, 2, q, &e), 0, "%s", e.msg);
    cr_expect_eq(q[0].port, 30001);
    cr_assert_eq(vf_networks_publish(n, a, NULL, 0, NULL, &e), 0, "%s", e.msg);
    rules = net_shell("nft list table inet vmfactory");
    cr_expect_not(strstr(rules, "10.210.0.1 ."), "%s", rules);
    nets_give_back(a);
    nets_give_back(b);
    rules = net_shell("nft list table inet vmfactory");
    cr_expect_not(strstr(rules, "10.210.0.3 ."), "%s", rules);
    a = nets_take(n, VF_NETWORK_NAT);
    cr_assert_eq(vf_networks_publish(n, a, any, 3, p, &e), 0, "all are free again: %s", e.msg);
    nets_give_back(a);
    vf_networks_close(n);
    nets_nothing_is_left();
}

Test(net_networks, ports_that_are_taken_are_refused_and_what_was_stays)
{
    static const struct vf_port web = {IPPROTO_TCP, 8080, 80}, other = {IPPROTO_TCP, 8080, 8000},
                                free_and_taken[] = {{IPPROTO_TCP, 9000, 90},
                                                    {IPPROTO_TCP, 8080, 80}},
                                own[] = {{IPPROTO_TCP, 9000, 90}, {IPPROTO_TCP, 8081, 80}},
                                twice[] = {{IPPROTO_TCP, 9000, 90}, {IPPROTO_TCP, 9000, 91}},
                                nonsense[] = {{IPPROTO_TCP, 9000, 0}};
    struct vf_net_info info;
    struct vf_error e;
    net_enter("net_networks", "ports_that_are_taken_are_refused_and_what_was_stays");
    struct vf_networks *n = nets_open(&nets_plain);
    struct vf_net *a = nets_take(n, VF_NETWORK_NAT), *b = nets_take(n, VF_NETWORK_NAT);
    int listening = listen_on(8081);
    cr_assert_eq(vf_net_publish(a, &web, 1, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_publish(b, any, 1, NULL, &e), 0, "%s", e.msg);
    nets_refuse_ports(b, free_and_taken, 2, VF_CONFLICT,
                      "network.ports[1]: tcp port 8080 leads to another VM");
    nets_refuse_ports(b, own, 2, VF_CONFLICT,
                      "ports[1]: tcp port 8081 is in use by the host itself");
    nets_refuse_ports(b, twice, 2, VF_INVALID_ARGUMENT, "ports[1]: tcp port 9000 is there twice");
    nets_refuse_ports(b, nonsense, 1, VF_INVALID_ARGUMENT, "ports[0]");
    vf_net_info(b, &info);
    cr_expect_eq(info.n_ports, 1);
    const char *rules = net_shell("nft list table inet vmfactory");
    cr_expect(strstr(rules, "10.210.0.3 . 80") && !strstr(rules, "9000"), "%s", rules);

    /* The same port, to another of the guest's; then the other VM has it. */
    cr_assert_eq(vf_net_publish(a, &other, 1, NULL, &e), 0, "%s", e.msg);
    rules = net_shell("nft list table inet vmfactory");
    cr_expect(strstr(rules, "8080 : 10.210.0.1 . 8000"), "%s", rules);
    cr_assert_eq(vf_net_publish(a, NULL, 0, NULL, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_net_publish(b, free_and_taken, 2, NULL, &e), 0, "%s", e.msg);
    close(listening);
    nets_give_back(a);
    nets_give_back(b);
    vf_networks_close(n);
    nets_nothing_is_left();
}

static int connect_to(const char *address, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct vf_ip ip = net_ip(address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(&a.sin_addr, ip.b, 4);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0, "%s", strerror(errno));
    return fd;
}

/* A connected socket takes answers from nobody else. */
static void ask_guest(struct vf_net *slot, const char *address, int port)
{
    struct net_packet got;
    int fd = connect_to(address, port);
    cr_assert_eq(send(fd, address, strlen(address), 0), (ssize_t)strlen(address));
    cr_assert(net_guest_receive(slot, NET_TIMEOUT_MS, &got), "%s", address);
    cr_expect_str_eq(got.text, address);
    cr_expect_eq(got.to_port, 80);
    struct net_packet answer = {.from_mac = got.to_mac,
                                .to_mac = got.from_mac,
                                .from = got.to,
                                .to = got.from,
                                .from_port = got.to_port,
                                .to_port = got.from_port,
                                .text = "answer"};
    net_guest_send(slot, &answer);
    const char *text = net_udp_receive(fd, NET_TIMEOUT_MS, NULL, NULL);
    cr_assert_not_null(text, "no answer by %s", address);
    cr_expect_str_eq(text, "answer");
    close(fd);
}

Test(net_networks, a_published_port_answers_the_host_itself_under_each_of_its_addresses)
{
    static const struct vf_port web = {IPPROTO_UDP, 8080, 80};
    struct vf_error e;
    net_enter("net_networks",
              "a_published_port_answers_the_host_itself_under_each_of_its_addresses");
    net_shell("ip link add out0 type veth peer name in0; ip addr add " NET_HOST4 "/24 dev out0;"
              "ip link set out0 up");
    struct vf_networks *n = nets_open(&nets_plain);
    struct vf_net *a = nets_take(n, VF_NETWORK_NAT);
    cr_assert_eq(vf_net_publish(a, &web, 1, NULL, &e), 0, "%s", e.msg);
    ask_guest(a, "127.0.0.1", 8080);
    ask_guest(a, NET_HOST4, 8080);
    nets_give_back(a);
    vf_networks_close(n);
    nets_nothing_is_left();
}

/* ---- both modes */

Test(net_networks, bridge_and_nat_at_once)
{
    struct vf_networks_config cfg = nets_plain;
    struct vf_net_info x, y;
    struct net_packet got;
    struct vf_error e;
    char text[VF_IP_TEXT];
    net_enter("net_networks", "bridge_and_nat_at_once");
    cfg.bridge = "br0";
    cfg.bridge_prefixes = nets_on_bridge;
    cfg.bridge_gateways = gateways;
    struct vf_networks *n = nets_open(&cfg);
    cr_expect_eq(vf_networks_check(n, VF_NETWORK_NAT, &e), 0);
    cr_expect_eq(vf_networks_check(n, VF_NETWORK_BRIDGE, &e), -ENOENT);
    cr_expect(strstr(e.msg, "mode bridge") && strstr(e.msg, "br0"), "%s", e.msg);
    cr_expect(strstr(e.hint, "ip link add br0"), "%s", e.hint);
    vf_networks_close(n);

    net_shell(NETS_MAKE_BRIDGE);
    n = nets_open(&cfg);
    struct vf_net *a = nets_take(n, VF_NETWORK_NAT), *b = nets_take(n, VF_NETWORK_BRIDGE);
    vf_net_info(a, &x);
    vf_net_info(b, &y);
    cr_expect_str_eq(x.name, "vf-0");
    cr_expect_str_eq(y.name, "vfb-0");
    cr_expect_str_eq(vf_ip_text(&y.host4, text), "192.168.77.2");
    nets_refuse_ports(b, any, 1, VF_UNSUPPORTED, "bridge");
    cr_expect_eq(vf_networks_publish(n, b, NULL, 0, NULL, &e), 0, "%s", e.msg);
    int s = net_udp(-1, "0.0.0.0", 0);
    net_udp_send(s, &x.host4, 80, "to nat");
    net_udp_send(s, &y.host4, 80, "to bridge");
    cr_assert(net_guest_receive(a, NET_TIMEOUT_MS, &got));
    cr_expect_str_eq(got.text, "to nat");
    cr_assert(net_guest_receive(b, NET_TIMEOUT_MS, &got));
    cr_expect_str_eq(got.text, "to bridge");
    close(s);
    cr_expect_eq(counts(n, VF_NETWORK_NAT).taken, 1);
    cr_expect_eq(counts(n, VF_NETWORK_BRIDGE).taken, 1);
    nets_give_back(a);
    nets_give_back(b);
    vf_networks_close(n);
    nets_nothing_is_left();
}

/* ---- what can't be had */

static void expect_reason(const struct vf_networks_config *cfg, enum vf_network_mode mode,
                          enum vf_code code, const char *says, const char *hint)
{
    struct vf_networks *n = nets_open(cfg);
    struct vf_net *slot = NULL;
    struct vf_error e = {0};
    cr_expect_lt(vf_networks_check(n, mode, &e), 0);
    cr_expect_eq(e.code, code, "%s", e.msg);
    cr_expect(strstr(e.msg, says), "%s", e.msg);
    cr_expect(strstr(e.hint, hint), "%s (%s)", e.msg, e.hint);
    cr_expect_eq(vf_networks_take(n, mode, &net_plain, &slot, &e), vf_code_errno(code));
    cr_expect_eq(vf_networks_check(n, VF_NETWORK_NONE, &e), 0);
    vf_networks_close(n);
}

static void drop(int cap)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2];
    cr_assert_eq(syscall(SYS_capget, &h, d), 0);
    for (int i = 0; i < 2; i++)
        if (cap / 32 == i || cap < 0) {
            uint32_t bits = cap < 0 ? UINT32_MAX : 1u << cap % 32;
            d[i].effective &= ~bits;
            d[i].permitted &= ~bits;
            d[i].inheritable &= ~bits;
        }
    cr_assert_eq(syscall(SYS_capset, &h, d), 0, "%s", strerror(errno));
}

Test(net_networks, without_privileges_the_reason_is_remembered)
{
    static const char *const conflict[] = {"192.168.77.0/25", NULL};
    struct vf_networks_config cfg = nets_plain;
    struct vf_networks *n = NULL;
    struct vf_error e;
    net_enter("net_networks", "without_privileges_the_reason_is_remembered");
    net_shell(NETS_MAKE_BRIDGE);
    cfg.bridge = "br0";
    cfg.bridge_prefixes = nets_on_bridge;
    drop(CAP_NET_ADMIN);
    expect_reason(&cfg, VF_NETWORK_NAT, VF_PERMISSION, "mode nat", "CAP_NET_ADMIN");
    expect_reason(&cfg, VF_NETWORK_BRIDGE, VF_PERMISSION, "mode bridge", "CAP_NET_ADMIN");
    drop(-1);
    expect_reason(&cfg, VF_NETWORK_NAT, VF_PERMISSION, "mode nat", "CAP_NET_ADMIN");
    expect_reason(&cfg, VF_NETWORK_BRIDGE, VF_PERMISSION, "mode bridge", "CAP_NET_ADMIN");
    cfg.bridge = NULL;
    cfg.prefixes = conflict;
    cr_expect_eq(vf_networks_open(&cfg, &n, &e), -EBUSY, "a conflict is told all the same");
    cr_expect(strstr(e.msg, "route to 192.168.77.0/24 by br0"), "%s", e.msg);
}

Test(net_networks, forwarding_is_demanded_or_switched_on)
{
    struct vf_networks_config cfg = nets_plain;
    struct vf_error e;
    net_enter("net_networks", "forwarding_is_demanded_or_switched_on");
    net_shell("echo 0 >/proc/sys/net/ipv4/ip_forward;"
              "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding");
    expect_reason(&cfg, VF_NETWORK_NAT, VF_UNSUPPORTED, "does not forward", "network_forwarding");
    cr_expect_str_eq(net_shell("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
    cfg.set_forwarding = true;
    struct vf_networks *n = nets_open(&cfg);
    cr_expect_eq(vf_networks_check(n, VF_NETWORK_NAT, &e), 0, "%s", e.msg);
    cr_expect_str_eq(net_shell("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
    cr_expect_str_eq(net_shell("cat /proc/sys/net/ipv6/conf/all/forwarding"), "1\n");
    vf_networks_close(n);
    nets_nothing_is_left();
}

Test(net_networks, a_host_without_taps_says_what_it_needs)
{
    struct vf_networks_config cfg = nets_plain;
    net_enter("net_networks", "a_host_without_taps_says_what_it_needs");
    net_shell("mount -t tmpfs none /dev/net");
    expect_reason(&cfg, VF_NETWORK_NAT, VF_UNSUPPORTED, "/dev/net/tun", "modprobe tun");
    nets_nothing_is_left();
}

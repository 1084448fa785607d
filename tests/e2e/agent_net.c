/* The Linux agent and its NIC: told everything that a renewal can say, and looked at with other eyes. It runs as a
 * process of this host, in a network and with an /etc of the test's own; its NIC is a tap whose other end is here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tests/e2e/net_support.h"
#include "tests/e2e/support.h"

#define SOCKET "/run/agent.sock"

struct place {
    struct sup s;
    struct sup_agent *a;
    pid_t pid;
    int tap;
};

static void make_nic(struct place *p)
{
    p->tap = net_tap("nic0", IFF_TAP | IFF_NO_PI);
    /* Of several Ethernet devices the agent takes the first. */
    cr_assert_str_empty(net_shell("ip -o link | grep ether | grep -v ': nic0:' || true"));
}

static void start(struct place *p)
{
    char binary[512];
    char *argv[] = {binary, (char *)"--channel", (char *)"unix:" SOCKET, NULL};
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
    struct sup_hello hello;

    snprintf(binary, sizeof(binary), "%s/vmfactory-agent", getenv("VF_BUILD"));
    p->pid = fork();
    if (p->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
        execv(binary, argv);
        _exit(127);
    }
    cr_assert_gt(p->pid, 0);
    p->a = calloc(1, sizeof(*p->a));
    cr_assert(p->a);
    p->a->s = &p->s;
    p->a->fd = p->a->out_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(p->a->fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
        cr_assert(errno == ENOENT || errno == ECONNREFUSED, "%s", strerror(errno));
        cr_assert(vf_deadline_left_ms(deadline_us) > 0, "nobody listens");
        usleep(1000);
    }
    cr_assert_eq(fcntl(p->a->fd, F_SETFL, O_NONBLOCK), 0);
    vf_wire_reset(&p->a->reader);
    cr_assert_eq(sup_agent_hello(p->a, SUP_LONG_MS, &hello), 0);
    cr_assert_eq(hello.features & (VF_FEATURE_NET | VF_FEATURE_NET2),
                 VF_FEATURE_NET | VF_FEATURE_NET2);
}

static void place_open(struct place *p, const char *name)
{
    net_enter("agent_net", name);
    sup_open(&p->s);
    cr_assert_eq(mount("none", "/etc", "tmpfs", 0, "mode=755"), 0, "%s", strerror(errno));
    make_nic(p);
    start(p);
}

static void place_close(struct place *p)
{
    int status;
    sup_agent_close(p->a);
    kill(p->pid, SIGTERM);
    cr_assert_eq(waitpid(p->pid, &status, 0), p->pid);
    close(p->tap);
    sup_close(&p->s);
}

struct value {
    uint16_t tag;
    uint8_t len;
    const char *bytes;
};

static const struct value of_slot[] = {
    {VF_TAG_MAC, 6, "\2\x76\x6d\0\0\2"},
    {VF_TAG_MTU, 4, "\x28\x23\0\0"}, /* 9000 */
    {VF_TAG_IPV4, 9, "\xac\x1f\xff\2\x1e\xac\x1f\xff\1"},
    {VF_TAG_IPV6, 33,
     "\xfd\x76\x6d\0\0\0\0\0\0\0\0\0\0\0\0\2\x40\xfd\x76\x6d\0\0\0\0\0\0\0\0\0\0\0\0\1"},
    {VF_TAG_GATEWAY_MAC, 6, "\2\x76\x6d\0\0\1"},
    {VF_TAG_DNS, 4, "\xc0\0\2\x35"},
    {VF_TAG_DNS, 16, "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x53"},
    {0, 0, NULL},
};

static void ask(struct place *p, const struct value *v)
{
    sup_agent_start(p->a, VF_MSG_RENEW);
    for (; v->tag; v++)
        vf_wire_put(&p->a->w, v->tag, v->bytes, v->len);
    cr_assert_eq(sup_agent_ask(p->a, SUP_LONG_MS), 0);
}

/* Everything comes back as it was told. */
static void must_take(struct place *p, const struct value *v)
{
    size_t pos = 0, len, text_len = 0;
    uint16_t tag;
    const uint8_t *got;
    ask(p, v);
    const uint8_t *text = vf_wire_find(&p->a->frame, VF_TAG_TEXT, &text_len);
    cr_assert_eq(p->a->frame.type, VF_MSG_RENEW_OK, "%.*s", (int)text_len, (const char *)text);
    while (vf_wire_next(&p->a->frame, &pos, &tag, &got, &len) > 0) {
        cr_assert_eq(tag, v->tag);
        cr_assert(len == v->len && memcmp(got, v->bytes, len) == 0, "tag %d came back as another",
                  tag);
        v++;
    }
    cr_assert_eq(v->tag, 0, "tag %d did not come back", v->tag);
}

static void must_refuse(struct place *p, const struct value *v, const char *words)
{
    size_t len = 0;
    ask(p, v);
    cr_assert_eq(p->a->frame.type, VF_MSG_ERROR);
    const uint8_t *text = vf_wire_find(&p->a->frame, VF_TAG_TEXT, &len);
    cr_assert(text && len == strlen(words) && memcmp(text, words, len) == 0, "'%.*s', not '%s'",
              (int)len, (const char *)text, words);
}

#define SHOWS(command, words) \
    cr_assert(strstr(net_shell(command), words), "%s: %s", command, net_shell(command))
#define SHOWS_NOT(command, words) \
    cr_assert_null(strstr(net_shell(command), words), "%s: %s", command, net_shell(command))

static void must_be_of_slot(void)
{
    SHOWS("ip link show nic0", "link/ether 02:76:6d:00:00:02");
    SHOWS("ip link show nic0", "mtu 9000");
    SHOWS("ip link show nic0", ",UP");
    SHOWS("ip -4 addr show nic0", "inet 172.31.255.2/30 brd 172.31.255.3 scope global");
    SHOWS("ip -6 addr show nic0", "inet6 fd76:6d00::2/64 scope global nodad");
    SHOWS_NOT("ip -6 addr show nic0 scope global", "tentative");
    cr_assert_str_eq(net_shell("ip -4 route show default"),
                     "default via 172.31.255.1 dev nic0 proto static \n");
    SHOWS("ip -6 route show default", "default via fd76:6d00::1 dev nic0 proto static");
    SHOWS("ip neigh", "172.31.255.1 dev nic0 lladdr 02:76:6d:00:00:01 PERMANENT");
    SHOWS("ip neigh", "fd76:6d00::1 dev nic0 lladdr 02:76:6d:00:00:01 PERMANENT");
    cr_assert_str_eq(net_shell("cat /etc/resolv.conf"),
                     "nameserver 192.0.2.53\nnameserver 2001:db8::53\n");
    cr_assert_str_eq(net_shell("cat /proc/sys/net/ipv6/conf/nic0/accept_ra"), "0\n");
}

Test(agent_net, takes_everything_at_once, .timeout = 60)
{
    struct place p;
    place_open(&p, "takes_everything_at_once");
    must_take(&p, of_slot);
    must_be_of_slot();
    place_close(&p);
}

/* What the kernel tells of changes to links, addresses, routes and neighbours. */
static int listen_for_changes(void)
{
    struct sockaddr_nl a = {.nl_family = AF_NETLINK,
                            .nl_groups = RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_IFADDR |
                                         RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR |
                                         RTMGRP_IPV6_ROUTE};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0, "%s", strerror(errno));
    return fd;
}

/* The kernel gives the link an address of its own, and is done with it a moment later. */
static void await_quiet(void)
{
    int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
    while (!strstr(net_shell("ip -6 addr show nic0 scope link"), "fe80") ||
           strstr(net_shell("ip -6 addr show nic0"), "tentative"))
        cr_assert(vf_deadline_left_ms(deadline_us) > 0, "%s", net_shell("ip -6 addr show nic0"));
}

Test(agent_net, what_is_there_is_not_touched, .timeout = 60)
{
    struct place p;
    struct stat before, after;
    char told[8192] __attribute__((aligned(8)));
    place_open(&p, "what_is_there_is_not_touched");
    must_take(&p, of_slot);
    cr_assert_eq(stat("/etc/resolv.conf", &before), 0);
    await_quiet();
    int fd = listen_for_changes();
    must_take(&p, of_slot);
    ssize_t n = recv(fd, told, sizeof(told), 0);
    cr_assert(n < 0 && errno == EAGAIN, "something was changed: message %d",
              ((struct nlmsghdr *)told)->nlmsg_type);
    cr_assert_eq(stat("/etc/resolv.conf", &after), 0);
    cr_assert(after.st_ino == before.st_ino && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
    /* And that is how a change would be seen. */
    static const struct value mtu[] = {{VF_TAG_MTU, 4, "\xdc\5\0\0"}, {0, 0, NULL}};
    must_take(&p, mtu);
    cr_assert_gt(recv(fd, told, sizeof(told), 0), 0);
    close(fd);
    must_take(&p, of_slot);
    must_be_of_slot();
    place_close(&p);
}

Test(agent_net, other_values_take_the_place_of_those_before, .timeout = 60)
{
    static const struct value other[] = {
        {VF_TAG_MAC, 6, "\2\x11\x22\x33\x44\x55"},
        {VF_TAG_MTU, 4, "\xdc\5\0\0"},
        {VF_TAG_IPV4, 9, "\x0a\1\2\3\x18\x0a\1\2\1"},
        {VF_TAG_IPV6, 33,
         "\xfd\1\0\0\0\0\0\0\0\0\0\0\0\0\0\3\x30\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\1"},
        {VF_TAG_DNS, 4, "\x0a\1\2\x35"},
        {0, 0, NULL},
    };
    /* A gateway outside the prefix, and none. */
    static const struct value odd[] = {
        {VF_TAG_IPV4, 9, "\x0a\1\2\3\x20\x0a\7\7\7"},
        {VF_TAG_IPV6, 33, "\xfd\1\0\0\0\0\0\0\0\0\0\0\0\0\0\3\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"},
        {0, 0, NULL},
    };
    struct place p;
    place_open(&p, "other_values_take_the_place_of_those_before");
    must_take(&p, of_slot);
    /* Somebody in the image has been busy, too. */
    net_shell(
        "ip addr add 172.31.255.9/24 dev nic0; ip addr add fd99::1/64 dev nic0 nodad; "
        "ip route add default via 172.31.255.9 metric 7; ln -sf /run/resolv /etc/resolv.conf");
    must_take(&p, other);
    cr_assert_str_eq(net_shell("ip -o -4 addr show nic0 | wc -l"), "1\n");
    SHOWS("ip -4 addr show nic0", "inet 10.1.2.3/24");
    cr_assert_str_eq(net_shell("ip -o -6 addr show nic0 scope global | wc -l"), "1\n");
    SHOWS("ip -6 addr show nic0", "inet6 fd01::3/48");
    cr_assert_str_eq(net_shell("ip -4 route show default"),
                     "default via 10.1.2.1 dev nic0 proto static \n");
    cr_assert_str_eq(net_shell("ip -o -6 route show default | wc -l"), "1\n");
    SHOWS("ip -6 route show default", "default via fe80::1 dev nic0");
    SHOWS("ip link show nic0", "mtu 1500");
    cr_assert_str_eq(net_shell("cat /etc/resolv.conf"), "nameserver 10.1.2.53\n");
    must_take(&p, odd);
    SHOWS("ip -4 route show default", "default via 10.7.7.7 dev nic0 proto static onlink");
    cr_assert_str_empty(net_shell("ip -6 route show default"));
    must_take(&p, odd);
    must_take(&p, of_slot);
    must_be_of_slot();
    place_close(&p);
}

Test(agent_net, an_etc_that_is_read_only, .timeout = 60)
{
    static const struct value dns[] = {{VF_TAG_DNS, 4, "\xc0\0\2\x35"}, {0, 0, NULL}};
    static const struct value other[] = {{VF_TAG_DNS, 4, "\xc0\0\2\x36"}, {0, 0, NULL}};
    struct place p;
    place_open(&p, "an_etc_that_is_read_only");
    net_shell(": >/etc/resolv.conf");
    cr_assert_eq(mount(NULL, "/etc", NULL, MS_REMOUNT | MS_RDONLY, NULL), 0, "%s", strerror(errno));
    must_take(&p, dns);
    cr_assert_str_eq(net_shell("cat /etc/resolv.conf"), "nameserver 192.0.2.53\n");
    must_take(&p, other);
    cr_assert_str_eq(net_shell("cat /etc/resolv.conf"), "nameserver 192.0.2.54\n");
    place_close(&p);
}

Test(agent_net, refuses_what_can_not_be, .timeout = 60)
{
    static const struct {
        struct value value[2];
        const char *words;
    } bad[] = {
        {{{VF_TAG_MAC, 5, "\2\x11\x22\x33\x44"}}, "field 11 is malformed"},
        {{{VF_TAG_MAC, 6, "\3\x11\x22\x33\x44\x55"}}, "MAC address"},
        {{{VF_TAG_MTU, 4, "\0\0\1\0"}}, "field 26 is malformed"},
        {{{VF_TAG_MTU, 4, "\xff\xff\0\0"}}, "MTU"},
        {{{VF_TAG_IPV4, 9, "\x0a\1\2\3\x21\x0a\1\2\1"}}, "field 12 is malformed"},
        {{{VF_TAG_IPV6, 32, "0123456789abcdef0123456789abcdef"}}, "field 25 is malformed"},
        {{{VF_TAG_IPV6, 33,
           "\xff\2\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}},
         "IPv6 address"},
        {{{VF_TAG_GATEWAY_MAC, 6, "\2\x76\x6d\0\0\1"}}, "gateway's MAC address"},
        {{{VF_TAG_DNS, 5, "12345"}}, "field 27 is malformed"},
    };
    struct place p;
    place_open(&p, "refuses_what_can_not_be");
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        must_refuse(&p, bad[i].value, bad[i].words);
    must_take(&p, of_slot);
    must_be_of_slot();
    place_close(&p);
}

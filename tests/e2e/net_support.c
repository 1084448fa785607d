/* Namespaces of a test's own, an outside, a guest made of raw frames. See net_support.h. */
#include "tests/e2e/net_support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tests/e2e/support.h"

const struct vf_net_shape net_plain = {
    .tap = {.queues = 1}, .mtu = VF_MTU_DEFAULT, .guest_mac = {{0x02, 0x76, 0x6d, 0, 0, 2}}};

static const char *const prefixes[] = {"10.210.0.0/24", "fd76:6d01::/120", NULL};

static bool has_admin(void)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2] = {{0}};
    syscall(SYS_capget, &h, d);
    return (d[0].effective >> CAP_NET_ADMIN & 1) && (d[0].effective >> CAP_SYS_ADMIN & 1);
}

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text), "%s", path);
    close(fd);
}

void net_enter(const char *suite, const char *name)
{
    if (!has_admin())
        sup_skip(suite, name, "needs CAP_NET_ADMIN and CAP_SYS_ADMIN");
    if (access("/dev/net/tun", R_OK | W_OK) < 0)
        sup_skip(suite, name, "needs /dev/net/tun");
    cr_assert_eq(unshare(CLONE_NEWNET | CLONE_NEWNS), 0, "unshare: %s", strerror(errno));
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) /* a chroot, for one */
        sup_skip(suite, name, "no mount namespace: %s", strerror(errno));
    /* What is made below /run is gone with this process. */
    cr_assert_eq(mount("none", "/run", "tmpfs", 0, "mode=755"), 0, "%s", strerror(errno));
    cr_assert_eq(mkdir("/run/netns", 0755), 0);
    write_text("/proc/sys/net/ipv4/ip_forward", "1");
    write_text("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    net_shell("ip link set lo up");
}

void net_open(struct net *n, const char *suite, const char *name)
{
    struct vf_error e;
    net_enter(suite, name);
    memset(n, 0, sizeof(*n));
    n->outside = VF_NETNS_NONE;
    n->cfg = (struct vf_nets_config){.run_dir = NET_RUN, .prefixes = prefixes};
    cr_assert_eq(vf_nets_open(&n->cfg, &n->slots, &e), 0, "%s (%s)", e.msg, e.hint);
}

void net_close(struct net *n)
{
    vf_nets_close(n->slots);
    vf_netns_close(&n->outside);
    cr_expect_eq(net_count_names(), 0);
    cr_expect_eq(net_count_links("vf-"), 0);
    cr_expect_eq(net_count_records(), 0);
    cr_expect_str_empty(net_shell("nft list ruleset"));
}

void net_outside(struct net *n)
{
    struct vf_error e;
    cr_assert_eq(vf_netns_create(0, &n->outside, &e), 0, "%s", e.msg);
    net_shell("ip link add out0 type veth peer name in0 netns /proc/%d/fd/%d", getpid(),
              n->outside.ns);
    net_shell("ip addr add " NET_HOST4 "/24 dev out0; ip addr add " NET_HOST6
              "/64 dev out0 nodad; ip link set out0 mtu 9000 up");
    net_shell("nsenter --net=/proc/%d/fd/%d sh -c 'ip addr add " NET_OUT4
              "/24 dev in0; ip addr add " NET_OUT6 "/64 dev in0 nodad; ip link set lo up;"
              "ip link set in0 mtu 9000 up'",
              getpid(), n->outside.ns);
}

struct vf_net *net_slot_of(struct net *n, const struct vf_net_shape *shape)
{
    struct vf_net *slot = NULL;
    struct vf_error e;
    cr_assert_eq(vf_net_make(n->slots, shape, &e), 0, "%s (%s)", e.msg, e.hint);
    cr_assert_eq(vf_net_take(n->slots, shape, &slot, &e), 0, "%s", e.msg);
    return slot;
}

struct vf_net *net_slot(struct net *n)
{
    return net_slot_of(n, &net_plain);
}

/* ---- looking */

static int count_in(const char *path, const char *prefix)
{
    struct vf_names names = {0};
    int n = 0, fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    cr_assert_eq(vf_dir_names(fd, &names, NULL), 0);
    for (size_t i = 0; i < names.n; i++)
        n += strncmp(names.v[i], prefix, strlen(prefix)) == 0;
    vf_names_free(&names);
    close(fd);
    return n;
}

int net_count_names(void)
{
    return count_in("/run/netns", "vf-");
}

int net_count_records(void)
{
    return count_in(NET_RUN, "");
}

int net_count_links(const char *prefix)
{
    struct if_nameindex *all = if_nameindex();
    int n = 0;
    for (struct if_nameindex *i = all; i && i->if_index; i++)
        n += strncmp(i->if_name, prefix, strlen(prefix)) == 0;
    if_freenameindex(all);
    return n;
}

const char *net_shell(const char *fmt, ...)
{
    static char out[65536];
    char command[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof(command), fmt, ap);
    va_end(ap);
    FILE *f = popen(command, "re");
    cr_assert_not_null(f);
    size_t len = fread(out, 1, sizeof(out) - 1, f);
    out[len] = 0;
    cr_assert_eq(pclose(f), 0, "%s: %s", command, out);
    return out;
}

const char *net_shell_in(struct vf_net *slot, const char *command)
{
    struct vf_net_info info;
    vf_net_info(slot, &info);
    return net_shell("nsenter --net=%s sh -c '%s'", info.netns_path, command);
}

int net_tap(const char *name, int flags)
{
    struct ifreq r = {.ifr_flags = (short)flags};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0, "/dev/net/tun: %s", strerror(errno));
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    if (flags != 0)
        cr_assert_eq(ioctl(fd, TUNSETIFF, &r), 0, "%s: %s", name, strerror(errno));
    return fd;
}

/* ---- sockets */

struct vf_ip net_ip(const char *text)
{
    struct vf_ip ip;
    struct vf_error e;
    cr_assert_eq(vf_ip_parse(text, "test", &ip, &e), 0, "%s", e.msg);
    return ip;
}

static socklen_t sockaddr_of(const struct vf_ip *ip, int port, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (ip->family == AF_INET) {
        struct sockaddr_in *a = (struct sockaddr_in *)ret;
        a->sin_family = AF_INET;
        a->sin_port = htons((uint16_t)port);
        memcpy(&a->sin_addr, ip->b, 4);
        return sizeof(*a);
    }
    struct sockaddr_in6 *a = (struct sockaddr_in6 *)ret;
    a->sin6_family = AF_INET6;
    a->sin6_port = htons((uint16_t)port);
    memcpy(&a->sin6_addr, ip->b, 16);
    return sizeof(*a);
}

struct opened {
    struct vf_netns_call call;
    int family, type, protocol, fd;
};

static int open_socket(struct vf_netns_call *call)
{
    struct opened *o = (struct opened *)call;
    o->fd = socket(o->family, o->type | SOCK_CLOEXEC, o->protocol);
    return o->fd < 0 ? -errno : 0;
}

int net_socket(int ns, int family, int type, int protocol)
{
    struct opened o = {
        .call.fn = open_socket, .family = family, .type = type, .protocol = protocol};
    struct vf_error e;
    if (ns >= 0)
        cr_assert_eq(vf_netns_do(ns, &o.call, &e), 0, "%s", e.msg);
    else
        cr_assert_eq(open_socket(&o.call), 0, "%s", strerror(errno));
    return o.fd;
}

static int bound(int ns, int type, const char *address, int port)
{
    struct vf_ip ip = net_ip(address);
    struct sockaddr_storage a;
    socklen_t len = sockaddr_of(&ip, port, &a);
    int one = 1, fd = net_socket(ns, ip.family, type, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, len), 0, "%s: %s", address, strerror(errno));
    return fd;
}

int net_udp(int ns, const char *address, int port)
{
    return bound(ns, SOCK_DGRAM, address, port);
}

void net_udp_send(int fd, const struct vf_ip *to, int port, const char *text)
{
    struct sockaddr_storage a;
    socklen_t len = sockaddr_of(to, port, &a);
    cr_assert_eq(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&a, len),
                 (ssize_t)strlen(text), "%s", strerror(errno));
}

const char *net_udp_receive(int fd, int wait_ms, struct vf_ip *from, int *port)
{
    static char text[10000];
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, wait_ms) != 1)
        return NULL;
    ssize_t n = recvfrom(fd, text, sizeof(text) - 1, 0, (struct sockaddr *)&a, &len);
    if (n < 0)
        return NULL;
    text[n] = 0;
    bool is4 = a.ss_family == AF_INET;
    if (port)
        *port = ntohs(is4 ? ((struct sockaddr_in *)&a)->sin_port
                          : ((struct sockaddr_in6 *)&a)->sin6_port);
    if (from) {
        *from = (struct vf_ip){.family = a.ss_family};
        memcpy(from->b,
               is4 ? (void *)&((struct sockaddr_in *)&a)->sin_addr
                   : (void *)&((struct sockaddr_in6 *)&a)->sin6_addr,
               is4 ? 4 : 16);
    }
    return text;
}

static void limit_waits(int fd)
{
    struct timeval limit = {NET_TIMEOUT_MS / 1000, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)); /* accept's, too */
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)); /* connect's, too */
}

int net_tcp_listen(int ns, const char *address, int port)
{
    int fd = bound(ns, SOCK_STREAM, address, port);
    limit_waits(fd);
    cr_assert_eq(listen(fd, 8), 0);
    return fd;
}

int net_tcp_connect(int ns, const struct vf_ip *to, int port)
{
    struct sockaddr_storage a;
    socklen_t len = sockaddr_of(to, port, &a);
    int fd = net_socket(ns, to->family, SOCK_STREAM, 0);
    limit_waits(fd);
    if (connect(fd, (struct sockaddr *)&a, len) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* ---- the guest */

struct net_packet net_packet(struct vf_net *slot, const char *to, int port, const char *text)
{
    struct vf_net_info info;
    vf_net_info(slot, &info);
    struct net_packet p = {.from_mac = info.shape.guest_mac,
                           .to_mac = vf_inside.gateway_mac,
                           .to = net_ip(to),
                           .from_port = 4000,
                           .to_port = port};
    p.from = p.to.family == AF_INET ? vf_inside.guest4 : vf_inside.guest6;
    snprintf(p.text, sizeof(p.text), "%s", text);
    return p;
}

static uint32_t sum(uint32_t s, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        s += (uint32_t)p[i] << (i % 2 ? 0 : 8);
    return s;
}

static void put_sum(uint8_t *at, uint32_t s)
{
    s = (s & 0xffff) + (s >> 16);
    s = ~((s & 0xffff) + (s >> 16)) & 0xffff;
    at[0] = (uint8_t)(s >> 8);
    at[1] = (uint8_t)s;
}

static void put16(uint8_t *at, int v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

void net_guest_frame(struct vf_net *slot, const void *frame, size_t len)
{
    struct vf_net_info info;
    vf_net_info(slot, &info);
    cr_assert_eq(write(info.tap_fds[0], frame, len), (ssize_t)len, "tap: %s", strerror(errno));
}

void net_guest_send(struct vf_net *slot, const struct net_packet *p)
{
    uint8_t f[10000] = {0}, *ip = f + 14;
    bool is4 = p->from.family == AF_INET;
    size_t text_len = p->len ? (size_t)p->len : strlen(p->text), ip_len = is4 ? 20 : 40;
    size_t udp_len = 8 + text_len;
    uint8_t *udp = ip + ip_len;

    memcpy(f, p->to_mac.b, 6);
    memcpy(f + 6, p->from_mac.b, 6);
    put16(f + 12, is4 ? 0x0800 : 0x86dd);
    if (is4) {
        ip[0] = 0x45;
        put16(ip + 2, (int)(ip_len + udp_len));
        ip[8] = 64;
        ip[9] = IPPROTO_UDP;
        memcpy(ip + 12, p->from.b, 4);
        memcpy(ip + 16, p->to.b, 4);
        put_sum(ip + 10, sum(0, ip, 20));
    } else {
        ip[0] = 0x60;
        put16(ip + 4, (int)udp_len);
        ip[6] = IPPROTO_UDP;
        ip[7] = 64;
        memcpy(ip + 8, p->from.b, 16);
        memcpy(ip + 24, p->to.b, 16);
    }
    put16(udp, p->from_port);
    put16(udp + 2, p->to_port);
    put16(udp + 4, (int)udp_len);
    memcpy(udp + 8, p->text, text_len);
    size_t addresses = is4 ? 8 : 32;
    put_sum(udp + 6,
            sum(sum((uint32_t)udp_len + IPPROTO_UDP, udp - addresses, addresses), udp, udp_len));
    net_guest_frame(slot, f, 14 + ip_len + udp_len);
}

/* UDP in a frame? */
static bool parse(const uint8_t *f, size_t len, struct net_packet *p)
{
    const uint8_t *ip = f + 14;
    if (len < 14 + 28)
        return false;
    bool is4 = f[12] == 0x08 && f[13] == 0x00, is6 = f[12] == 0x86 && f[13] == 0xdd;
    if (!(is4 && ip[9] == IPPROTO_UDP) && !(is6 && len >= 14 + 48 && ip[6] == IPPROTO_UDP))
        return false;
    const uint8_t *udp = ip + (is4 ? 20 : 40);
    memset(p, 0, sizeof(*p));
    memcpy(p->to_mac.b, f, 6);
    memcpy(p->from_mac.b, f + 6, 6);
    p->from.family = p->to.family = is4 ? AF_INET : AF_INET6;
    memcpy(p->from.b, ip + (is4 ? 12 : 8), is4 ? 4 : 16);
    memcpy(p->to.b, ip + (is4 ? 16 : 24), is4 ? 4 : 16);
    p->from_port = udp[0] << 8 | udp[1];
    p->to_port = udp[2] << 8 | udp[3];
    p->len = (int)(f + len - (udp + 8));
    memcpy(p->text, udp + 8, (size_t)p->len < sizeof(p->text) ? (size_t)p->len : sizeof(p->text));
    return true;
}

bool net_guest_receive(struct vf_net *slot, int wait_ms, struct net_packet *ret)
{
    struct vf_net_info info;
    int64_t deadline_us = vf_deadline_after_ms(wait_ms);
    vf_net_info(slot, &info);
    for (;;) {
        uint8_t f[10000];
        struct pollfd p = {.fd = info.tap_fds[0], .events = POLLIN};
        if (poll(&p, 1, vf_deadline_left_ms(deadline_us)) != 1)
            return false;
        ssize_t n = read(info.tap_fds[0], f, sizeof(f));
        if (n > 0 && parse(f, (size_t)n, ret))
            return true;
    }
}

void net_expect_refused(struct vf_net *slot, enum vf_refusal why, uint64_t n)
{
    int64_t deadline_us = vf_deadline_after_ms(NET_TIMEOUT_MS);
    struct vf_net_stats stats;
    struct vf_error e;
    do {
        cr_assert_eq(vf_net_stats(slot, &stats, &e), 0, "%s", e.msg);
        if (stats.refused[why] == n)
            return;
    } while (stats.refused[why] < n && vf_deadline_left_ms(deadline_us) > 0);
    cr_assert_fail("refused by %s: %llu, not %llu", vf_refusal_names[why],
                   (unsigned long long)stats.refused[why], (unsigned long long)n);
}

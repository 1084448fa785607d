/* Guests of real VMMs, an outside, eyes on taps. See network_support.h. */
#include "tests/e2e/network_support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <netpacket/packet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"

const struct family families[2] = {
    {AF_INET, "0.0.0.0", NET_HOST4, NET_OUT4, "172.31.255.1", "169.254.169.254"},
    {AF_INET6, "::", NET_HOST6, NET_OUT6, "fd76:6d00::1", "fd00:ec2::254"},
};

void world_open(struct world *w, const struct sup_target *target, const char *suite,
                const char *name, int slots, const struct vf_sync_options *o)
{
    struct vf_sync_options options = {.trial_clones = -1};
    const char *missing = sup_target_missing(target);
    if (missing)
        sup_skip(suite, name, "%s", missing);
    memset(w, 0, sizeof(*w));
    if (o)
        options = *o;
    options.cloud_hypervisor = sup_cloud_hypervisor();
    options.firecracker = sup_firecracker();
    w->target = target;
    w->far.outside = VF_NETNS_NONE;
    facnet_open(&w->n, suite, name, slots, &options);
    net_outside(&w->far);
}

void world_close(struct world *w)
{
    vf_netns_close(&w->far.outside);
    facnet_close(&w->n);
}

struct vf_spec world_spec(const struct world *w, const char *name)
{
    const struct sup_target *t = w->target;
    struct vf_spec spec =
        t->linux_guest ? fac_linux(name, t->accel, NULL) : fac_tiny(name, t->accel, NULL);
    spec.has_vmm = spec.agent.has_channel = true;
    for (int i = 0; i < VF_SPEC_VMM_COUNT; i++)
        if (strcmp(vf_spec_vmm_names[i], t->driver) == 0)
            spec.vmm = i;
    spec.network.given = spec.network.has_mode = true;
    spec.network.mode = VF_NETWORK_NAT;
    return spec;
}

struct vf_generation *world_build(struct world *w, const struct vf_spec *spec)
{
    return fac_build(&w->n.f, spec);
}

void world_clones(struct world *w, struct vf_generation *gen, int n, struct vf_instance **ret)
{
    struct vf_error e = {0};
    cr_assert_eq(vf_sync_clones(&w->n.f.sync, gen, n, ret, &e), 0, "%s (%s)", e.msg, e.hint);
}

struct vf_ip world_address(struct vf_instance *vm, int family)
{
    struct vf_instance_network net = facnet_of(vm);
    struct vf_ip ip = family == AF_INET ? net.host4 : net.host6;
    cr_assert_eq(ip.family, family, "%s is not reached over family %d", vf_instance_id(vm), family);
    return ip;
}

const char *world_host_end(struct vf_instance *vm, int family)
{
    static char text[VF_IP_TEXT];
    struct vf_ip ip = world_address(vm, family);
    ip.b[family == AF_INET ? 3 : 15] ^= 1; /* the pair's other one */
    return vf_ip_text(&ip, text);
}

/* ---- talking */

static const char *tell(struct vf_instance *vm, int family, const char *text)
{
    struct vf_ip to = world_address(vm, family), from;
    int port, fd = net_udp(-1, family == AF_INET ? "0.0.0.0" : "::", 0);
    net_udp_send(fd, &to, TALK_PORT, text);
    const char *got = net_udp_receive(fd, NET_TIMEOUT_MS, &from, &port);
    close(fd);
    cr_assert_not_null(got, "%s does not answer '%s'", vf_instance_id(vm), text);
    cr_expect(vf_ip_same(&from, &to));
    cr_expect_eq(port, TALK_PORT);
    return got;
}

const char *world_tell(struct vf_instance *vm, int family, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return tell(vm, family, text);
}

void world_order(struct vf_instance *vm, int family, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    cr_assert_str_eq(tell(vm, family, text), "sent", "'%s' was not understood", text);
}

void world_refused(struct world *w, struct vf_instance *vm, enum vf_refusal why, uint64_t n)
{
    int64_t deadline_us = vf_deadline_after_ms(NET_TIMEOUT_MS);
    uint64_t seen;
    do {
        seen = facnet_traffic(&w->n, vm).refused[why];
    } while (seen < n && vf_deadline_left_ms(deadline_us) > 0);
    cr_assert_eq(seen, n, "refused by %s: %llu, not %llu", vf_refusal_names[why],
                 (unsigned long long)seen, (unsigned long long)n);
}

/* ---- eyes */

int eyes_open(const char *netns)
{
    int ns = open(netns, O_RDONLY | O_CLOEXEC), room = 4 << 20;
    cr_assert_geq(ns, 0, "%s: %s", netns, strerror(errno));
    int fd = net_socket(ns, AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));
    close(ns);
    struct sockaddr_ll a = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = VF_NET_TAP_INDEX};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0, "%s", strerror(errno));
    return fd;
}

bool eyes_next(int fd, struct eyes_frame *ret)
{
    struct sockaddr_ll a = {0};
    socklen_t len = sizeof(a);
    ssize_t n = recvfrom(fd, ret->b, sizeof(ret->b), 0, (struct sockaddr *)&a, &len);
    if (n < 0 && errno == ENETDOWN) /* told once, of the tap that was down before */
        return eyes_next(fd, ret);
    if (n < 0)
        return false;
    ret->len = (int)n;
    ret->from_guest = a.sll_pkttype != PACKET_OUTGOING;
    return true;
}

bool eyes_saw(int fd, bool from_guest, const char *text)
{
    struct eyes_frame f;
    bool saw = false;
    while (eyes_next(fd, &f))
        saw = saw || (f.from_guest == from_guest &&
                      memmem(f.b, (size_t)f.len, text, strlen(text)) != NULL);
    return saw;
}

bool eyes_asks(const struct eyes_frame *f)
{
    if (f->len < 14)
        return false;
    if (f->b[12] == 0x08 && f->b[13] == 0x06)
        return true;
    /* IPv6, ICMPv6, neighbour solicitation; 135 can't hide behind an extension header (RFC 6980 forbids fragments) */
    return f->len > 54 && f->b[12] == 0x86 && f->b[13] == 0xdd && f->b[20] == IPPROTO_ICMPV6 &&
           f->b[54] == 135;
}

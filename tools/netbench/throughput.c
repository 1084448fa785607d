/* What our rules cost a guest's TCP. See netbench.h.
 *
 *     guest's namespace -- tap0, slot's namespace -- host's namespace -- outside
 *
 * Twice, with the same addresses and interfaces: with a slot's tables and the host's, translating twice, and with
 * none at all, routed as they are. A veth pair stands for the tap on both ways, so that no copying VMM is measured: what a
 * frame meets from tap0 on is the same. Both ways carry TCP in turns, and their order changes each time.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "tools/netbench/netbench.h"

#define HOST4 "192.0.2.1"
#define OUTSIDE4 "192.0.2.2"
#define PORT 7000
#define RUN_MS 250 /* short, so that what else the machine does meets both ways alike */
#define CHUNK (256 << 10)
#define MAX_PAIRS 100

static const char *const prefixes[] = {"10.210.0.0/16", "fd76:6d01::/64", NULL};
static struct vf_address_pool pool;

struct place {
    struct vf_netns ns;
    struct vf_nl route, netfilter;
};
struct way {
    struct place guest, slot, host, outside;
    int port; /* of the next run */
};

/* ---- the ways */

static void open_place(struct place *p)
{
    struct vf_error e;
    must(vf_netns_create(0, &p->ns, &e), "namespace", &e);
    vf_nl_adopt(&p->route, p->ns.route);
    vf_nl_adopt(&p->netfilter, p->ns.netfilter);
}

/* a's interface 2 or 3, and b's. */
static void join(struct place *a, const char *name, const struct vf_mac *mac, struct place *b,
                 const char *peer, const struct vf_mac *peer_mac, int peer_index)
{
    struct vf_nl_batch m = {0};
    struct vf_error e;
    struct vf_veth v = {.name = name,
                        .mac = *mac,
                        .peer_name = peer,
                        .peer_mac = *peer_mac,
                        .peer_index = peer_index,
                        .peer_ns = b->ns.ns,
                        .mtu = VF_MTU_DEFAULT};
    struct vf_link_change up = {.name = name}, peer_up = {.name = peer};
    vf_link_add_veth(&m, &v);
    vf_link_up(&m, &up);
    must(vf_nl_send(&a->route, &m, &e), name, &e);
    vf_link_up(&m, &peer_up);
    must(vf_nl_send(&b->route, &m, &e), peer, &e);
    vf_nl_batch_free(&m);
}

static int index_in(struct place *p, const char *name)
{
    struct vf_link_info l;
    struct vf_error e;
    must(vf_link_get(&p->route, name, &l, &e), name, &e);
    return l.index;
}

static void address(struct place *p, const char *name, const struct vf_ip *ip, int bits,
                    const struct vf_ip *gateway)
{
    struct vf_nl_batch m = {0};
    struct vf_error e;
    int index = index_in(p, name);
    vf_link_address(&m, index, ip, bits);
    if (gateway)
        vf_link_default_route(&m, index, gateway);
    must(vf_nl_send(&p->route, &m, &e), name, &e);
    vf_nl_batch_free(&m);
}

static void add_rules(struct way *w)
{
    static const struct vf_host_rules host = {
        .table = VF_NET_TABLE, .prefix = "vf-", .pool = &pool};
    const struct vf_net_rules rules = {
        .pool = &pool, .number = 0, .guest_mac = vf_inside.guest_mac};
    struct vf_nl_batch m = {0};
    struct vf_error e;
    vf_rules_slot(&m, &rules);
    must(vf_nl_send(&w->slot.netfilter, &m, &e), "slot's rules", &e);
    must(vf_host_rules_make(&w->host.netfilter, &host, &e), "host's rules", &e);
    must(vf_host_rules_add(&w->host.netfilter, &host, 0, &e), "host's rules", &e);
    vf_nl_batch_free(&m);
}

static void open_way(struct way *w, bool ours)
{
    static const struct vf_mac mac[] = {
        {{2, 0, 0, 0, 1, 1}}, {{2, 0, 0, 0, 1, 2}}, {{2, 0, 0, 0, 2, 1}}, {{2, 0, 0, 0, 2, 2}}};
    struct vf_address_pair pair;
    struct vf_ip host, outside;
    struct vf_error e;

    must(vf_ip_parse(HOST4, "host", &host, &e), "host", &e);
    must(vf_ip_parse(OUTSIDE4, "outside", &outside, &e), "outside", &e);
    vf_addresses_pair(&pool, 0, AF_INET, &pair);
    open_place(&w->guest);
    open_place(&w->slot);
    open_place(&w->host);
    open_place(&w->outside);
    join(&w->guest, "eth0", &vf_inside.guest_mac, &w->slot, VF_NET_TAP, &vf_inside.gateway_mac,
         VF_NET_TAP_INDEX);
    join(&w->host, "vf-0", &mac[0], &w->slot, VF_NET_UPLINK, &mac[1], VF_NET_UPLINK_INDEX);
    join(&w->host, "out0", &mac[2], &w->outside, "in0", &mac[3], 0);
    address(&w->slot, VF_NET_TAP, &vf_inside.gateway4, vf_inside.bits4, NULL);
    address(&w->guest, "eth0", &vf_inside.guest4, vf_inside.bits4, &vf_inside.gateway4);
    /* Without translation the host has to know where the guest is: behind the slot. */
    address(&w->host, "vf-0", &pair.host, pair.bits, ours ? NULL : &pair.slot);
    address(&w->slot, VF_NET_UPLINK, &pair.slot, pair.bits, &pair.host);
    address(&w->host, "out0", &host, 24, NULL);
    address(&w->outside, "in0", &outside, 24, ours ? NULL : &host);
    if (ours)
        add_rules(w);
    w->port = PORT;
}

static void close_place(struct place *p)
{
    vf_netns_close(&p->ns);
}

static void close_way(struct way *w)
{
    close_place(&w->guest);
    close_place(&w->slot);
    close_place(&w->host);
    close_place(&w->outside);
}

/* ---- one run */

struct open_socket {
    struct vf_netns_call call;
    int fd;
};

static int open_tcp(struct vf_netns_call *call)
{
    struct open_socket *s = (struct open_socket *)call;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return s->fd < 0 ? -errno : 0;
}

static int tcp_in(struct place *p)
{
    struct open_socket s = {.call.fn = open_tcp};
    struct vf_error e;
    must(vf_netns_do(p->ns.ns, &s.call, &e), "socket", &e);
    return s.fd;
}

static void must_not_be(bool failed, const char *what)
{
    if (!failed)
        return;
    fprintf(stderr, "vmfactory-netbench: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The guest connects to the outside. */
static void connect_way(struct way *w, int *ret_guest, int *ret_outside)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)w->port++)};
    inet_pton(AF_INET, OUTSIDE4, &a.sin_addr);
    int server = tcp_in(&w->outside);
    *ret_guest = tcp_in(&w->guest);
    must_not_be(bind(server, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(server, 1) < 0,
                "listen outside");
    must_not_be(connect(*ret_guest, (struct sockaddr *)&a, sizeof(a)) < 0, "guest to outside");
    *ret_outside = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    must_not_be(*ret_outside < 0, "accept");
    close(server);
}

struct sender {
    pthread_t thread;
    int fd;
    int64_t until_us;
};

static void *send_all(void *arg)
{
    static const char data[CHUNK];
    struct sender *s = arg;
    while (vf_now_us() < s->until_us)
        if (send(s->fd, data, sizeof(data), MSG_NOSIGNAL) < 0)
            break;
    shutdown(s->fd, SHUT_WR);
    return NULL;
}

static int64_t cpu_us(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * INT64_C(1000000) + r.ru_utime.tv_usec +
           r.ru_stime.tv_usec;
}

struct rate {
    double gbit_per_s, cpu_s_per_gb;
};

static struct rate run(struct way *w, bool inward)
{
    static char data[CHUNK];
    int guest, outside;
    int64_t bytes = 0;
    connect_way(w, &guest, &outside);
    int64_t start_us = vf_now_us(), cpu_start_us = cpu_us();
    struct sender s = {.fd = inward ? outside : guest, .until_us = vf_deadline_after_ms(RUN_MS)};
    must_not_be(pthread_create(&s.thread, NULL, send_all, &s) != 0, "thread");
    for (ssize_t n; (n = recv(inward ? guest : outside, data, sizeof(data), 0)) > 0;)
        bytes += n;
    double us = (double)(vf_now_us() - start_us), busy_us = (double)(cpu_us() - cpu_start_us);
    pthread_join(s.thread, NULL);
    close(guest);
    close(outside);
    if (bytes == 0) {
        fprintf(stderr, "vmfactory-netbench: nothing arrived\n");
        exit(1);
    }
    return (struct rate){8 * (double)bytes / us / 1000, busy_us * 1000 / (double)bytes};
}

/* ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double middle(double *v, int n)
{
    qsort(v, (size_t)n, sizeof(*v), compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void compare_ways(struct way ways[2], bool inward, int pairs)
{
    double rate[2][MAX_PAIRS], cpu[2][MAX_PAIRS], ratio[MAX_PAIRS] = {0}, cost[MAX_PAIRS] = {0};
    for (int i = 0; i < pairs; i++) {
        struct rate r[2];
        for (int k = 0; k < 2; k++) {
            int which = (i + k) % 2;
            r[which] = run(&ways[which], inward);
        }
        for (int k = 0; k < 2; k++) {
            rate[k][i] = r[k].gbit_per_s;
            cpu[k][i] = r[k].cpu_s_per_gb;
        }
        ratio[i] = r[1].gbit_per_s / r[0].gbit_per_s;
        cost[i] = r[1].cpu_s_per_gb / r[0].cpu_s_per_gb;
    }
    double low = middle(ratio, pairs); /* sorts it */
    printf("%-16s %9.2f %9.2f %7.3f %7.3f %7.3f %9.3f %9.3f %7.3f %4d\n",
           inward ? "to the guest" : "from the guest", middle(rate[0], pairs),
           middle(rate[1], pairs), low, ratio[pairs / 10], ratio[pairs - 1 - pairs / 10],
           middle(cpu[0], pairs), middle(cpu[1], pairs), middle(cost, pairs), pairs);
}

int throughput(int pairs)
{
    static struct way ways[2];
    struct vf_error e;
    if (pairs < 1 || pairs > MAX_PAIRS) {
        fprintf(stderr, "usage: vmfactory-netbench throughput [PAIRS]   (1 to %d)\n", MAX_PAIRS);
        return 2;
    }
    must(vf_addresses_init(&pool, prefixes, NULL, &e), "addresses", &e);
    for (int i = 0; i < 2; i++)
        open_way(&ways[i], i == 1);
    printf("%-16s %9s %9s %7s %7s %7s %9s %9s %7s %4s\n", "", "Gbit/s", "Gbit/s", "ratio", "p10",
           "p90", "CPU s/GB", "CPU s/GB", "ratio", "n");
    printf("%-16s %9s %9s %7s %7s %7s %9s %9s\n", "", "no rules", "ours", "", "", "", "no rules",
           "ours");
    compare_ways(ways, false, pairs);
    compare_ways(ways, true, pairs);
    for (int i = 0; i < 2; i++)
        close_way(&ways[i]);
    vf_addresses_close(&pool);
    return 0;
}

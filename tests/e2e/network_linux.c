/* Linux guests: the first packet after a restore, HTTP both ways, and what the agent has set. QEMU without KVM; the same template would serve any
 * host.
 */
#include "tests/e2e/network_support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(network_linux, .timeout = 240);

/* A web server was started before the template was saved: it serves on in each clone. */
static struct vf_generation *build_server(struct world *w)
{
    static const char *const serve[] = {"/bin/sh", "-c",
                                        "mkdir -p /www && httpd -p '[::]:80' -h /www", NULL};
    static const char *const resolvers[] = {"192.0.2.53", "2001:db8::53", NULL};
    struct vf_spec spec = world_spec(w, "web");
    spec.network.mtu = 1400;
    facnet_add_dns(&spec, resolvers);
    fac_add_warmup(&spec, serve);
    struct vf_generation *gen = world_build(w, &spec);
    vf_spec_free(&spec);
    return gen;
}

/* What the agent has set, seen from inside. */
static void check_inside(struct fac *f, struct vf_instance *vm)
{
    cr_expect_str_eq(fac_sh(f, vm, "ip -4 addr show dev eth0 | grep -o '172.31.255.2/30'"),
                     "172.31.255.2/30");
    cr_expect_str_eq(fac_sh(f, vm, "ip -6 addr show dev eth0 | grep -o 'fd76:6d00::2/64'"),
                     "fd76:6d00::2/64");
    const char *neighbours = "ip neigh show dev eth0 | grep -cE '^(172.31.255.1|fd76:6d00::1) "
                             "lladdr 02:76:6d:00:00:01.*PERMANENT'";
    cr_expect_str_eq(fac_sh(f, vm, neighbours), "2");
    cr_expect_str_eq(fac_sh(f, vm, "cat /etc/resolv.conf"),
                     "nameserver 192.0.2.53\nnameserver 2001:db8::53");
    cr_expect_str_eq(fac_sh(f, vm, "cat /sys/class/net/eth0/mtu"), "1400");
}

/* ---- inward */

/* The answer's body to GET /id. */
static const char *get(int ns, const struct vf_ip *to, int port)
{
    static const char request[] = "GET /id HTTP/1.0\r\n\r\n";
    static char answer[4096];
    char text[VF_IP_TEXT];
    size_t len = 0;
    ssize_t n = 1;
    int fd = net_tcp_connect(ns, to, port);
    cr_assert_geq(fd, 0, "%s port %d: %m", vf_ip_text(to, text), port);
    cr_assert_eq(write(fd, request, sizeof(request) - 1), (ssize_t)sizeof(request) - 1);
    while (n > 0 && len + 1 < sizeof(answer)) {
        n = read(fd, answer + len, sizeof(answer) - 1 - len);
        len += n > 0 ? (size_t)n : 0;
    }
    cr_assert_eq(n, 0, "%s: %m", vf_ip_text(to, text));
    answer[len] = 0;
    close(fd);
    cr_assert_eq(strncmp(answer, "HTTP/1.", 7), 0, "%s", answer);
    cr_assert(strstr(answer, " 200 "), "%s", answer);
    char *body = strstr(answer, "\r\n\r\n");
    cr_assert_not_null(body);
    body += 4;
    body[strcspn(body, "\n")] = 0;
    return body;
}

static void inward(struct world *w, struct vf_instance *const vms[2])
{
    for (int i = 0; i < 2; i++) {
        fac_sh(&w->n.f, vms[i], "cp /etc/machine-id /www/id");
        facnet_must_publish(&w->n, vms[i],
                            &(struct vf_port){IPPROTO_TCP, (uint16_t)(8080 + i), 80});
    }
    for (int i = 0; i < 2; i++) {
        const char *id = vf_instance_proof(vms[i])->machine_id;
        for (int f = 0; f < 2; f++) {
            struct vf_ip own = world_address(vms[i], families[f].family);
            struct vf_ip host = net_ip(families[f].host);
            cr_expect_str_eq(get(-1, &own, 80), id, "its own address");
            cr_expect_str_eq(get(-1, &host, 8080 + i), id, "the host's port, from the host");
            cr_expect_str_eq(get(w->far.outside.ns, &host, 8080 + i), id, "and from outside");
            cr_expect_lt(net_tcp_connect(w->far.outside.ns, &host, 80), 0,
                         "only what is published");
        }
    }
    struct vf_ip here = net_ip("127.0.0.1");
    cr_expect_str_eq(get(-1, &here, 8080), vf_instance_proof(vms[0])->machine_id);
    fac_destroy(&w->n.f, vms[0]);
    struct vf_ip host = net_ip(NET_HOST4);
    cr_expect_lt(net_tcp_connect(w->far.outside.ns, &host, 8080), 0, "its port went with it");
    cr_expect_str_eq(get(w->far.outside.ns, &host, 8081), vf_instance_proof(vms[1])->machine_id);
    fac_destroy(&w->n.f, vms[1]);
}

/* ---- outward */

/* Serves one request. */
struct server {
    pthread_t thread;
    int fd;
    struct vf_ip from;
    char request[512];
};

static void *serve(void *arg)
{
    static const char answer[] = "HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\nfrom outside\n";
    struct server *s = arg;
    struct sockaddr_storage a;
    socklen_t a_len = sizeof(a);
    int c = accept(s->fd, (struct sockaddr *)&a, &a_len);
    if (c < 0)
        return NULL;
    bool is4 = a.ss_family == AF_INET;
    s->from.family = a.ss_family;
    memcpy(s->from.b,
           is4 ? (void *)&((struct sockaddr_in *)&a)->sin_addr
               : (void *)&((struct sockaddr_in6 *)&a)->sin6_addr,
           is4 ? 4 : 16);
    size_t len = 0;
    ssize_t n = 1;
    while (n > 0 && !strstr(s->request, "\r\n\r\n") && len + 1 < sizeof(s->request)) {
        n = read(c, s->request + len, sizeof(s->request) - 1 - len);
        len += n > 0 ? (size_t)n : 0;
    }
    (void)!write(c, answer, sizeof(answer) - 1);
    close(c);
    return NULL;
}

/* The guest fetches /of-N from a server outside; what that saw. */
static void fetch(struct world *w, struct vf_instance *vm, int n, const struct family *f)
{
    struct server s = {.fd = net_tcp_listen(w->far.outside.ns, f->out, 8000)};
    struct vf_ip host = net_ip(f->host);
    char text[VF_IP_TEXT], command[200];
    cr_assert_eq(pthread_create(&s.thread, NULL, serve, &s), 0);
    snprintf(command, sizeof(command),
             "printf 'GET /of-%d HTTP/1.0\\r\\n\\r\\n' | nc -w 10 %s 8000 | tail -n 1", n, f->out);
    cr_expect_str_eq(fac_sh(&w->n.f, vm, command), "from outside");
    pthread_join(s.thread, NULL);
    snprintf(command, sizeof(command), "GET /of-%d ", n);
    cr_expect_eq(strncmp(s.request, command, strlen(command)), 0, "%s", s.request);
    cr_expect(vf_ip_same(&s.from, &host), "from %s", vf_ip_text(&s.from, text));
    close(s.fd);
}

static void outward(struct world *w, struct vf_instance *const vms[2])
{
    for (int i = 0; i < 2; i++)
        for (int f = 0; f < 2; f++)
            fetch(w, vms[i], i, &families[f]);
    /* Neither the host's own web server nor the other's. */
    int service = net_tcp_listen(-1, "0.0.0.0", 80);
    struct vf_ip other = world_address(vms[1], AF_INET);
    char text[VF_IP_TEXT], command[200];
    snprintf(command, sizeof(command),
             "for a in %s %s " NET_HOST4 " 172.31.255.1 169.254.169.254; do"
             " nc -w 1 $a 80 </dev/null 2>/dev/null && echo $a; done; echo none",
             vf_ip_text(&other, text), world_host_end(vms[0], AF_INET));
    cr_expect_str_eq(fac_sh(&w->n.f, vms[0], command), "none");
    struct vf_net_stats stats = facnet_traffic(&w->n, vms[0]);
    cr_expect_gt(stats.refused[VF_REFUSED_GUESTS], 0);
    cr_expect_gt(stats.refused[VF_REFUSED_HOST], 0);
    cr_expect_gt(stats.refused[VF_REFUSED_GATEWAY], 0);
    cr_expect_gt(stats.refused[VF_REFUSED_METADATA], 0);
    close(service);
}

/* ---- the first packet */

static int eyes = -1;

/* Looks at the clone's tap before its guest is there. */
static int open_eyes(void *arg, struct vf_instance *vm, const char *stage, struct vf_error *err)
{
    (void)arg;
    (void)err;
    if (eyes < 0 && strcmp(stage, "restore") == 0)
        eyes = eyes_open(facnet_of(vm).netns);
    return 0;
}

/* The restored guest asks nobody where its gateway is, nor does the host ask for the guest. */
static void first_packet_without_asking(struct world *w, struct vf_instance *vm)
{
    struct eyes_frame f;
    bool seen[2] = {false, false};
    cr_assert_geq(eyes, 0);
    for (int i = 0; i < 2; i++)
        fetch(w, vm, i, &families[i]);
    while (eyes_next(eyes, &f)) {
        bool is6 = f.b[12] == 0x86;
        seen[is6] = seen[is6] || (f.from_guest && memmem(f.b, (size_t)f.len, "GET /of-", 8));
        cr_expect_not(eyes_asks(&f), "%s asked: %02x%02x, %d bytes",
                      f.from_guest ? "the guest" : "the host", f.b[12], f.b[13], f.len);
    }
    cr_expect(seen[0] && seen[1], "the eyes were closed");
    close(eyes);
}

/* ---- all of it, as booting Linux takes longer than anything else here */

Test(network_linux, clones_of_a_web_server)
{
    struct world w;
    struct vf_instance *vms[2];
    world_open(&w, &sup_qemu_tcg_linux, "network_linux", "clones_of_a_web_server", 8,
               &(struct vf_sync_options){.trial_clones = -1, .on_step = open_eyes});
    struct vf_generation *gen = build_server(&w);
    world_clones(&w, gen, 1, &vms[0]);
    first_packet_without_asking(&w, vms[0]);
    world_clones(&w, gen, 1, &vms[1]);
    for (int i = 0; i < 2; i++) {
        fac_check_proof(&w.n.f, vms[i], gen);
        check_inside(&w.n.f, vms[i]);
    }
    fac_check_differ(&w.n.f, vms, 2);
    outward(&w, vms);
    inward(&w, vms); /* they are gone then */
    vf_generation_unref(gen);
    world_close(&w);
}

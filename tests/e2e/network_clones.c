/* Clones of real VMMs in slots, all with one address inside: each is reached under its own, talks outward under the
 * host's, and reaches nothing else that was not opened. The tiny guest on each VMM, IPv4 and IPv6 alike.
 */
#include "tests/e2e/network_support.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/vmm.h"

TestSuite(network_clones, .timeout = 180);

#define ON_EACH_VMM(what)                                            \
    Test(network_clones, qemu_##what)                                \
    {                                                                \
        what(&sup_qemu_kvm_tiny, "qemu_" #what);                     \
    }                                                                \
    Test(network_clones, cloud_hypervisor_##what)                    \
    {                                                                \
        what(&sup_cloud_hypervisor_tiny, "cloud_hypervisor_" #what); \
    }                                                                \
    Test(network_clones, firecracker_##what)                         \
    {                                                                \
        what(&sup_firecracker_tiny, "firecracker_" #what);           \
    }

/* A world with a template of the spec and n clones of it; spec and generation are freed. */
static void open_with(struct world *w, struct vf_spec *spec, struct vf_instance **vms, int n)
{
    struct vf_generation *gen = world_build(w, spec);
    world_clones(w, gen, n, vms);
    vf_generation_unref(gen);
    vf_spec_free(spec);
}

static void open_plain(struct world *w, const struct sup_target *t, const char *name,
                       struct vf_instance **vms, int n)
{
    world_open(w, t, "network_clones", name, 16, NULL);
    struct vf_spec spec = world_spec(w, "tiny");
    open_with(w, &spec, vms, n);
}

static void close_all(struct world *w, struct vf_instance **vms, int n)
{
    for (int i = 0; i < n; i++)
        fac_destroy(&w->n.f, vms[i]);
    cr_expect_eq(facnet_counts(&w->n).doubts, 0, "a slot came back not as it must be");
    world_close(w);
}

/* ---- each only itself */

static void eight_with_one_address(const struct sup_target *t, const char *name)
{
    enum { N = 8 };
    struct world w;
    struct vf_instance *vms[N];
    int eyes[N];
    open_plain(&w, t, name, vms, N);
    for (int i = 0; i < N; i++)
        eyes[i] = eyes_open(facnet_of(vms[i]).netns);
    for (int i = 0; i < N; i++) {
        char text[32];
        snprintf(text, sizeof(text), "only for number %d", i);
        for (int f = 0; f < 2; f++) {
            cr_expect_str_eq(world_tell(vms[i], families[f].family, "who"),
                             vf_instance_proof(vms[i])->machine_id, "clone %d", i);
            cr_expect_str_eq(world_tell(vms[i], families[f].family, "%s", text), text);
        }
    }
    for (int i = 0; i < N; i++) {
        struct eyes_frame f;
        int seen = 0;
        char own[32];
        snprintf(own, sizeof(own), "only for number %d", i);
        while (eyes_next(eyes[i], &f)) {
            const char *text = memmem(f.b, (size_t)f.len, "only for number ", 16);
            if (!text)
                continue;
            cr_expect_eq(memcmp(text, own, strlen(own)), 0, "%d got %.17s", i, text);
            /* And inside it is the same address in all of them. */
            bool is4 = f.b[12] == 0x08;
            const uint8_t *address = f.b + 14 + (is4 ? 12 : 8) + (f.from_guest ? 0 : is4 ? 4 : 16);
            cr_expect_arr_eq(address, is4 ? vf_inside.guest4.b : vf_inside.guest6.b, is4 ? 4 : 16);
            seen++;
        }
        cr_expect_eq(seen, 4, "clone %d: %d frames, not a question and an answer each", i, seen);
        close(eyes[i]);
    }
    close_all(&w, vms, N);
}
ON_EACH_VMM(eight_with_one_address)

/* The guest speaks first, under the host's address; the answer finds it; a host's port leads to it. */
static void out_and_in(const struct sup_target *t, const char *name)
{
    struct world w;
    struct vf_instance *vms[2];
    open_plain(&w, t, name, vms, 2);
    for (int f = 0; f < 2; f++) {
        int out = net_udp(w.far.outside.ns, families[f].out, 7000), port;
        struct vf_ip from, host = net_ip(families[f].host);
        char machine[64];
        for (int i = 0; i < 2; i++) {
            world_order(vms[i], families[f].family, "send %s 7000 hello from %d", families[f].out,
                        i);
            const char *text = net_udp_receive(out, NET_TIMEOUT_MS, &from, &port);
            cr_assert_not_null(text);
            cr_expect(vf_ip_same(&from, &host), "not under the host's address");
            snprintf(machine, sizeof(machine), "hello from %d", i);
            cr_expect_str_eq(text, machine);
            /* The way back leads to the guest's port 7: it answers. */
            net_udp_send(out, &from, port, "who");
            text = net_udp_receive(out, NET_TIMEOUT_MS, NULL, NULL);
            cr_assert_not_null(text);
            cr_expect_str_eq(text, vf_instance_proof(vms[i])->machine_id);
        }
        close(out);
    }
    for (int i = 0; i < 2; i++)
        facnet_must_publish(&w.n, vms[i],
                            &(struct vf_port){IPPROTO_UDP, (uint16_t)(8000 + i), TALK_PORT});
    for (int f = 0; f < 2; f++) {
        struct vf_ip host = net_ip(families[f].host);
        int sockets[] = {net_udp(w.far.outside.ns, families[f].out, 0),
                         net_udp(-1, families[f].host, 0)};
        for (int i = 0; i < 4; i++) {
            net_udp_send(sockets[i / 2], &host, 8000 + i % 2, "who");
            const char *text = net_udp_receive(sockets[i / 2], NET_TIMEOUT_MS, NULL, NULL);
            cr_assert_not_null(text, "port %d from %s", 8000 + i % 2, i / 2 ? "host" : "outside");
            cr_expect_str_eq(text, vf_instance_proof(vms[i % 2])->machine_id);
        }
        close(sockets[0]);
        close(sockets[1]);
    }
    close_all(&w, vms, 2);
}
ON_EACH_VMM(out_and_in)

/* ---- what does not leave */

static void spoofed(const struct sup_target *t, const char *name)
{
    struct world w;
    struct vf_instance *vm;
    uint64_t addresses = 0, macs = 0;
    open_plain(&w, t, name, &vm, 1);
    for (int f = 0; f < 2; f++) {
        bool is4 = families[f].family == AF_INET;
        int out = net_udp(w.far.outside.ns, families[f].out, 7000);
        const char *others[] = {is4 ? "172.31.255.3" : "fd76:6d00::3",
                                is4 ? "10.210.0.9" : "fd76:6d01::9", families[f].host};
        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
            world_order(vm, families[f].family, "spoof %s %s 7000 lies", others[i],
                        families[f].out);
            world_refused(&w, vm, VF_REFUSED_ADDRESS, ++addresses);
        }
        world_order(vm, families[f].family, "spoof 02:76:6d:00:00:03 %s 7000 lies",
                    families[f].out);
        world_refused(&w, vm, VF_REFUSED_MAC, ++macs);
        cr_expect_null(net_udp_receive(out, SILENCE_MS, NULL, NULL));
        world_order(vm, families[f].family, "send %s 7000 the truth", families[f].out);
        const char *text = net_udp_receive(out, NET_TIMEOUT_MS, NULL, NULL);
        cr_assert_not_null(text);
        cr_expect_str_eq(text, "the truth");
        close(out);
    }
    close_all(&w, &vm, 1);
}
ON_EACH_VMM(spoofed)

/* The metadata address is served outside, and the host has a way to it. */
static void serve_metadata(struct world *w)
{
    net_shell("nsenter --net=/proc/%d/fd/%d sh -c 'ip addr add 169.254.169.254/32 dev lo;"
              "ip addr add fd00:ec2::254/128 dev lo nodad';"
              "ip route add 169.254.169.254 via " NET_OUT4 ";"
              "ip route add fd00:ec2::254 via " NET_OUT6,
              getpid(), w->far.outside.ns);
}

static void forbidden_ways(const struct sup_target *t, const char *name)
{
    struct world w;
    struct vf_instance *vms[2];
    uint64_t guests = 0, host = 0, gateway = 0, metadata = 0;
    open_plain(&w, t, name, vms, 2);
    serve_metadata(&w);
    int eyes = eyes_open(facnet_of(vms[1]).netns);
    for (int f = 0; f < 2; f++) {
        const struct family *a = &families[f];
        char text[VF_IP_TEXT];
        struct vf_ip other = world_address(vms[1], a->family);
        int service = net_udp(-1, a->any, 53);
        int role = net_udp(w.far.outside.ns, a->metadata, 80);
        world_order(vms[0], a->family, "send %s 7 psst", vf_ip_text(&other, text));
        world_refused(&w, vms[0], VF_REFUSED_GUESTS, ++guests);
        world_order(vms[0], a->family, "send %s 53 name?", a->host);
        world_refused(&w, vms[0], VF_REFUSED_HOST, ++host);
        world_order(vms[0], a->family, "send %s 53 name?", world_host_end(vms[0], a->family));
        world_refused(&w, vms[0], VF_REFUSED_HOST, ++host);
        world_order(vms[0], a->family, "send %s 53 name?", a->inside);
        world_refused(&w, vms[0], VF_REFUSED_GATEWAY, ++gateway);
        world_order(vms[0], a->family, "send %s 80 role?", a->metadata);
        world_refused(&w, vms[0], VF_REFUSED_METADATA, ++metadata);
        cr_expect_null(net_udp_receive(service, SILENCE_MS, NULL, NULL), "%s", a->host);
        cr_expect_null(net_udp_receive(role, 0, NULL, NULL), "%s", a->metadata);
        /* That it could have been heard: */
        int probe = net_udp(-1, a->any, 0);
        struct vf_ip to = net_ip(a->metadata);
        net_udp_send(probe, &to, 80, "the host may");
        cr_expect_not_null(net_udp_receive(role, NET_TIMEOUT_MS, NULL, NULL));
        close(probe);
        close(role);
        close(service);
    }
    cr_expect_str_eq(world_tell(vms[1], AF_INET, "psst"), "psst");
    struct eyes_frame frame;
    int seen = 0;
    while (eyes_next(eyes, &frame))
        seen += memmem(frame.b, (size_t)frame.len, "psst", 4) != NULL;
    cr_expect_eq(seen, 2, "the other guest saw %d, not only the host's own", seen);
    close(eyes);
    close_all(&w, vms, 2);
}
ON_EACH_VMM(forbidden_ways)

static void opened_by_the_spec(const struct sup_target *t, const char *name)
{
    struct world w;
    struct vf_instance *vm;
    world_open(&w, t, "network_clones", name, 4, NULL);
    serve_metadata(&w);
    struct vf_spec spec = world_spec(&w, "opened");
    struct vf_spec_port *service = calloc(1, sizeof(*service));
    *service = (struct vf_spec_port){.protocol = VF_SPEC_UDP, .host = 53};
    spec.network.metadata = true;
    spec.network.host_services = (struct vf_json_array){service, 1};
    open_with(&w, &spec, &vm, 1);
    for (int f = 0; f < 2; f++) {
        const struct family *a = &families[f];
        int role = net_udp(w.far.outside.ns, a->metadata, 80), port;
        int open = net_udp(-1, a->any, 53), closed = net_udp(-1, a->any, 54);
        const char *gateway = world_host_end(vm, a->family);
        struct vf_ip from;
        world_order(vm, a->family, "send %s 80 role?", a->metadata);
        cr_expect_not_null(net_udp_receive(role, NET_TIMEOUT_MS, NULL, NULL), "%s", a->metadata);
        world_order(vm, a->family, "send %s 53 name?", gateway);
        cr_assert_not_null(net_udp_receive(open, NET_TIMEOUT_MS, &from, &port), "%s", gateway);
        net_udp_send(open, &from, port, "who");
        const char *text = net_udp_receive(open, NET_TIMEOUT_MS, NULL, NULL);
        cr_assert_not_null(text);
        cr_expect_str_eq(text, vf_instance_proof(vm)->machine_id);
        world_order(vm, a->family, "send %s 54 name?", gateway);
        world_refused(&w, vm, VF_REFUSED_HOST, (uint64_t)f + 1);
        cr_expect_null(net_udp_receive(closed, SILENCE_MS, NULL, NULL));
        close(role);
        close(open);
        close(closed);
    }
    close_all(&w, &vm, 1);
}
ON_EACH_VMM(opened_by_the_spec)

/* ---- policies */

static void add_destination(struct vf_spec *spec, const char *to)
{
    struct vf_json_array *list = &spec->network.egress.list;
    struct vf_spec_destination *d = realloc(list->items, (list->n + 1) * sizeof(*d));
    cr_assert(d);
    list->items = d;
    d[list->n++] = (struct vf_spec_destination){
        .to = strdup(to), .protocol = VF_SPEC_UDP, .first_port = 7000, .last_port = 7010};
    spec->network.egress.policy = VF_SPEC_EGRESS_LIST;
}

static void egress(const struct sup_target *t, const char *name)
{
    struct world w;
    struct vf_instance *vms[2];
    world_open(&w, t, "network_clones", name, 4, NULL);
    struct vf_spec deny = world_spec(&w, "deny"), list = world_spec(&w, "list");
    deny.network.egress.policy = VF_SPEC_EGRESS_DENY;
    add_destination(&list, "192.0.2.0/30");
    add_destination(&list, "2001:db8::/64");
    open_with(&w, &deny, &vms[0], 1);
    open_with(&w, &list, &vms[1], 1);
    for (int f = 0; f < 2; f++) {
        const struct family *a = &families[f];
        int in = net_udp(w.far.outside.ns, a->out, 7010);
        int beyond = net_udp(w.far.outside.ns, a->out, 7011);
        world_order(vms[0], a->family, "send %s 7010 denied", a->out);
        world_refused(&w, vms[0], VF_REFUSED_POLICY, (uint64_t)f + 1);
        world_order(vms[1], a->family, "send %s 7011 not listed", a->out);
        world_refused(&w, vms[1], VF_REFUSED_POLICY, (uint64_t)f + 1);
        world_order(vms[1], a->family, "send %s 7010 listed", a->out);
        const char *text = net_udp_receive(in, NET_TIMEOUT_MS, NULL, NULL);
        cr_assert_not_null(text);
        cr_expect_str_eq(text, "listed");
        cr_expect_null(net_udp_receive(in, SILENCE_MS, NULL, NULL));
        cr_expect_null(net_udp_receive(beyond, 0, NULL, NULL));
        close(in);
        close(beyond);
    }
    close_all(&w, vms, 2);
}
ON_EACH_VMM(egress)

/* In the kernel as the spec says, and of the next VM in that slot no more. */
static void rates(const struct sup_target *t, const char *name)
{
    struct world w;
    struct vf_instance *vm;
    world_open(&w, t, "network_clones", name, 1, NULL);
    struct vf_spec spec = world_spec(&w, "slow"), plain = world_spec(&w, "plain");
    spec.network.in_bytes_per_s = 1000000;
    spec.network.out_bytes_per_s = 500000;
    open_with(&w, &spec, &vm, 1);
    char netns[128];
    snprintf(netns, sizeof(netns), "%s", facnet_of(vm).netns);
    cr_expect_str_eq(world_tell(vm, AF_INET, "who"), vf_instance_proof(vm)->machine_id);
    const char *text = net_shell("nsenter --net=%s tc qdisc show dev " VF_NET_TAP, netns);
    cr_expect(strstr(text, "tbf") && strstr(text, "rate 8Mbit"), "in: %s", text);
    text = net_shell("nsenter --net=%s tc qdisc show dev " VF_NET_UPLINK, netns);
    cr_expect(strstr(text, "tbf") && strstr(text, "rate 4Mbit"), "out: %s", text);
    fac_destroy(&w.n.f, vm);
    open_with(&w, &plain, &vm, 1);
    cr_assert_str_eq(facnet_of(vm).netns, netns);
    text = net_shell("nsenter --net=%s tc qdisc show", netns);
    cr_expect_null(strstr(text, "tbf"), "%s", text);
    close_all(&w, &vm, 1);
}
ON_EACH_VMM(rates)

/* ---- paused in between */

/* The first packet after it was woken, and what it says itself then, too. */
static void parked_and_woken(const struct sup_target *t, const char *name)
{
    struct world w;
    struct vf_instance *vm;
    struct vf_vmm_caps caps;
    struct vf_error e;
    open_plain(&w, t, name, &vm, 1);
    vf_vmm_find(t->driver)->capabilities(vf_vm_info_of(vf_instance_vm(vm))->version, &caps);
    for (int i = 0; i < 3 && caps.park_paused; i++) {
        cr_assert_eq(vf_sync_park(&w.n.f.sync, vm, &e), 0, "%s", e.msg);
        cr_assert_eq(vf_sync_wake(&w.n.f.sync, vm, &e), 0, "%s", e.msg);
        const struct family *a = &families[i % 2];
        int out = net_udp(w.far.outside.ns, a->out, 7000);
        world_order(vm, a->family, "send %s 7000 awake", a->out);
        cr_expect_not_null(net_udp_receive(out, NET_TIMEOUT_MS, NULL, NULL));
        cr_expect_str_eq(world_tell(vm, a->family, "who"), vf_instance_proof(vm)->machine_id);
        close(out);
    }
    close_all(&w, &vm, 1);
    if (!caps.park_paused)
        sup_skip("network_clones", name, "is never parked paused");
}
ON_EACH_VMM(parked_and_woken)

/* ---- long packets */

static void mtu_9000(const struct sup_target *t, const char *name)
{
    enum { LEN = 8900 };
    struct world w;
    struct vf_instance *vm;
    char *text = malloc(LEN + 1);
    for (int i = 0; i < LEN; i++)
        text[i] = (char)('a' + i % 23);
    text[LEN] = 0;
    world_open(&w, t, "network_clones", name, 4, NULL);
    struct vf_spec spec = world_spec(&w, "jumbo");
    spec.network.mtu = 9000;
    open_with(&w, &spec, &vm, 1);
    facnet_must_publish(&w.n, vm, &(struct vf_port){IPPROTO_UDP, 8007, TALK_PORT});
    for (int f = 0; f < 2; f++) {
        bool is4 = families[f].family == AF_INET;
        struct vf_ip to[] = {world_address(vm, families[f].family), net_ip(families[f].host)};
        int fds[] = {net_udp(-1, families[f].any, 0),
                     net_udp(w.far.outside.ns, families[f].out, 0)};
        int ports[] = {TALK_PORT, 8007}, whole = IP_PMTUDISC_DO;
        for (int i = 0; i < 2; i++) {
            /* Never in pieces: no path's limit is learnt, none is kept to but the interface's. */
            cr_assert_eq(setsockopt(fds[i], is4 ? IPPROTO_IP : IPPROTO_IPV6,
                                    is4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, &whole,
                                    sizeof(whole)),
                         0);
            net_udp_send(fds[i], &to[i], ports[i], text);
            const char *got = net_udp_receive(fds[i], NET_TIMEOUT_MS, NULL, NULL);
            cr_assert_not_null(got, "%s, from %s", families[f].out, i ? "outside" : "the host");
            cr_expect_eq(strcmp(got, text), 0);
            close(fds[i]);
        }
    }
    free(text);
    close_all(&w, &vm, 1);
}
ON_EACH_VMM(mtu_9000)

/* ---- one after the other in a slot */

static void answers_of(struct world *w, struct vf_instance *a, struct vf_ip *from, int *port,
                       int *out)
{
    for (int f = 0; f < 2; f++) {
        out[f] = net_udp(w->far.outside.ns, families[f].out, 7000);
        world_order(a, families[f].family, "send %s 7000 A's question", families[f].out);
        cr_assert_not_null(net_udp_receive(out[f], NET_TIMEOUT_MS, &from[f], &port[f]));
    }
}

static void nothing_of_the_one_before(const struct sup_target *t, const char *name)
{
    struct world w;
    struct vf_instance *a, *b;
    struct vf_ip from[2];
    int out[2], port[2];
    char before[4096];
    world_open(&w, t, "network_clones", name, 1, NULL);
    struct vf_spec spec = world_spec(&w, "tiny");
    struct vf_generation *gen = world_build(&w, &spec);
    world_clones(&w, gen, 1, &a);
    const char *netns = "/run/netns/vf-0";
    cr_assert_str_eq(facnet_of(a).netns, netns);
    snprintf(before, sizeof(before), "%s", net_shell("nsenter --net=%s ip neigh show", netns));
    cr_expect_not_null(strstr(before, "PERMANENT"));
    answers_of(&w, a, from, port, out);
    facnet_must_publish(&w.n, a, &(struct vf_port){IPPROTO_UDP, 8007, TALK_PORT});
    world_order(a, AF_INET, "send 169.254.169.254 80 role?");
    world_refused(&w, a, VF_REFUSED_METADATA, 1);
    int late = net_udp(-1, NET_HOST4, 0);
    fac_destroy(&w.n.f, a);
    cr_expect_geq(w.n.told.out_packets, 5, "A's traffic was counted in the end");

    world_clones(&w, gen, 1, &b);
    cr_assert_str_eq(facnet_of(b).netns, netns, "the test wants the same slot");
    cr_expect_eq(facnet_of(b).n_ports, 0);
    struct vf_net_stats stats = facnet_traffic(&w.n, b);
    cr_expect_eq(stats.out_packets, 0, "%llu", (unsigned long long)stats.out_packets);
    for (int i = 0; i < VF_REFUSAL_COUNT; i++)
        cr_expect_eq(stats.refused[i], 0, "%s", vf_refusal_names[i]);
    cr_expect_str_eq(net_shell("nsenter --net=%s ip neigh show", netns), before);
    int eyes = eyes_open(netns);
    for (int f = 0; f < 2; f++)
        net_udp_send(out[f], &from[f], port[f], "A's answer, late");
    struct vf_ip host = net_ip(NET_HOST4);
    net_udp_send(late, &host, 8007, "A's caller, late");
    for (int f = 0; f < 2; f++) { /* by then whatever was on its way has passed */
        cr_expect_str_eq(world_tell(b, families[f].family, "who"),
                         vf_instance_proof(b)->machine_id);
        world_order(b, families[f].family, "send %s 7000 B's", families[f].out);
        const char *text = net_udp_receive(out[f], NET_TIMEOUT_MS, NULL, NULL);
        cr_assert_not_null(text);
        cr_expect_str_eq(text, "B's");
        close(out[f]);
    }
    cr_expect_not(eyes_saw(eyes, false, "late"), "B was sent what was A's");
    close(eyes);
    close(late);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    close_all(&w, &b, 1);
}
ON_EACH_VMM(nothing_of_the_one_before)

/* What is asked of a VM's network while it lives, and while it is taken away: ports, traffic. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "tests/e2e/factory_net.h"
#include "vmm/vmm.h"

TestSuite(factory_network_ask, .timeout = 120);

static const struct vf_port web = {.protocol = IPPROTO_TCP, .port = 18080, .guest = 80};
static const struct vf_port dns = {.protocol = IPPROTO_UDP, .port = 18053, .guest = 53};

static struct vf_instance *open_cold(struct facnet *n, const char *name, struct vf_spec *ret_spec)
{
    facnet_open(n, "factory_network_ask", name, 4, NULL);
    *ret_spec = facnet_null("null", VF_NETWORK_NAT);
    return fac_cold(&n->f, ret_spec);
}

Test(factory_network_ask, ports_of_a_lease)
{
    struct facnet n;
    struct vf_spec spec;
    struct facnet_done d;
    struct vf_instance *vm = open_cold(&n, "ports_of_a_lease", &spec), *other;
    facnet_publish(&n, vm, &web, 1, &d);
    cr_assert_eq(d.err.code, VF_OK, "%s", d.err.msg);
    struct vf_instance_network net = facnet_of(vm);
    cr_assert_eq(net.n_ports, 1);
    cr_assert_eq(net.ports[0].port, 18080);
    cr_assert_eq(net.ports[0].guest, 80);
    cr_assert(strstr(net_shell("nft list ruleset"), "18080"));
    /* Another VM's it can't be. */
    other = fac_cold(&n.f, &spec);
    facnet_publish(&n, other, &web, 1, &d);
    cr_assert_eq(d.err.code, VF_CONFLICT, "%s: %s", vf_code_name(d.err.code), d.err.msg);
    cr_assert_eq(facnet_of(other).n_ports, 0);
    facnet_publish(&n, other, &dns, 1, &d);
    cr_assert_eq(d.err.code, VF_OK, "%s", d.err.msg);
    cr_assert_eq(facnet_of(other).ports[0].protocol, IPPROTO_UDP);
    /* With the VM they are gone. */
    fac_destroy(&n.f, vm);
    cr_assert_null(strstr(net_shell("nft list ruleset"), "18080"));
    facnet_publish(&n, other, &web, 1, &d);
    cr_assert_eq(d.err.code, VF_OK, "%s", d.err.msg);
    cr_assert_null(strstr(net_shell("nft list ruleset"), "18053"), "what was published before");
    fac_destroy(&n.f, other);
    vf_spec_free(&spec);
    facnet_close(&n);
}

Test(factory_network_ask, refused)
{
    struct facnet n;
    struct vf_spec spec;
    struct vf_error e;
    struct facnet_done d = {0};
    struct vf_port many[VF_PORTS_MAX + 1] = {{0}};
    struct vf_instance *made = NULL, *vm = open_cold(&n, "refused", &spec);
    cr_assert_lt(vf_instance_publish(vm, many, VF_PORTS_MAX + 1, facnet_on_done, &d, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "ports: at most 64");
    /* Not ready yet. */
    struct vf_net_stats stats;
    cr_assert_eq(vf_factory_cold(n.f.sync.factory, &spec, NULL, facnet_on_vm, &d, &made, &e), 0);
    cr_assert_lt(vf_instance_publish(made, &web, 1, facnet_on_done, &d, &e), 0);
    fac_expect(&e, VF_CONFLICT, "not ready");
    cr_assert_lt(vf_instance_traffic(made, &stats, facnet_on_done, &d, &e), 0);
    fac_expect(&e, VF_NOT_FOUND, "no network slot");
    facnet_wait(&n, &d);
    cr_assert_eq(d.vm, made);
    fac_destroy(&n.f, made);
    fac_destroy(&n.f, vm);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* ---- while the VM is taken away */

enum { JOBS = 6 };

static void ask_many(struct vf_instance *vm, struct facnet_done *d, struct vf_net_stats *stats)
{
    struct vf_error e;
    for (int i = 0; i < JOBS; i++) {
        int r = i % 2 ? vf_instance_traffic(vm, &stats[i], facnet_on_done, &d[i], &e)
                      : vf_instance_publish(vm, &web, 1, facnet_on_done, &d[i], &e);
        cr_assert_eq(r, 0, "%s", e.msg);
    }
}

static void asked_and_destroyed(struct facnet *n, const struct vf_spec *spec, int turns)
{
    struct facnet_done d[JOBS] = {{0}};
    struct vf_net_stats stats[JOBS];
    struct vf_instance *vm = fac_cold(&n->f, spec);
    ask_many(vm, d, stats);
    for (int i = 0; i < turns; i++)
        uv_run(&n->f.sync.loop, UV_RUN_ONCE);
    fac_destroy(&n->f, vm);
    bool cancelled = false;
    for (int i = 0; i < JOBS; i++) {
        cr_assert_eq(d[i].calls, 1, "%d turns: request %d was told %d times", turns, i, d[i].calls);
        cr_assert(d[i].err.code == VF_OK || d[i].err.code == VF_CANCELLED, "%s", d[i].err.msg);
        cr_assert(!cancelled || d[i].err.code == VF_CANCELLED, "one after it was not");
        cancelled = d[i].err.code == VF_CANCELLED;
    }
    facnet_expect_taken(n, 0, "destroyed");
}

Test(factory_network_ask, destroyed_meanwhile)
{
    struct facnet n;
    struct vf_spec spec;
    struct vf_instance *vm = open_cold(&n, "destroyed_meanwhile", &spec);
    fac_destroy(&n.f, vm);
    for (int turns = 0; turns < JOBS; turns++)
        asked_and_destroyed(&n, &spec, turns);
    cr_assert_eq(facnet_counts(&n).made, 1);
    cr_assert_eq(facnet_counts(&n).doubts, 0);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* Whoever is told may destroy the VM at once. */
struct destroyer {
    struct vf_instance *vm;
    int calls;
    bool gone;
};

static void destroy_when_told(void *arg, const struct vf_error *err)
{
    struct destroyer *d = arg;
    (void)err;
    if (++d->calls == 1)
        vf_instance_destroy(d->vm, fac_set_true, &d->gone);
}

Test(factory_network_ask, destroyed_when_told)
{
    struct facnet n;
    struct vf_spec spec;
    struct vf_error e;
    struct vf_net_stats stats;
    struct destroyer d = {.vm = open_cold(&n, "destroyed_when_told", &spec)};
    for (int i = 0; i < 3; i++)
        cr_assert_eq(vf_instance_traffic(d.vm, &stats, destroy_when_told, &d, &e), 0, "%s", e.msg);
    while (!d.gone)
        uv_run(&n.f.sync.loop, UV_RUN_ONCE);
    cr_assert_eq(d.calls, 3);
    facnet_expect_taken(&n, 0, "destroyed");
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* Or ask again, as an acquire in line does for the ports that another could not have. */
struct asker {
    struct vf_instance *vm;
    struct vf_net_stats stats;
    int calls;
};

static void ask_when_told(void *arg, const struct vf_error *err)
{
    struct asker *a = arg;
    struct vf_error e;
    cr_assert_null(err);
    if (++a->calls < 3)
        cr_assert_eq(vf_instance_traffic(a->vm, &a->stats, ask_when_told, a, &e), 0, "%s", e.msg);
}

Test(factory_network_ask, asked_when_told)
{
    struct facnet n;
    struct vf_spec spec;
    struct vf_error e;
    struct facnet_done last = {0};
    struct asker a = {.vm = open_cold(&n, "asked_when_told", &spec)};
    cr_assert_eq(vf_instance_traffic(a.vm, &a.stats, ask_when_told, &a, &e), 0, "%s", e.msg);
    while (a.calls < 3)
        uv_run(&n.f.sync.loop, UV_RUN_ONCE);
    facnet_publish(&n, a.vm, &web, 1, &last);
    fac_destroy(&n.f, a.vm);
    cr_assert_eq(a.calls, 3);
    cr_assert_eq(last.calls, 1);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* The last to be told of a VM may ask what it was, although nothing is left of its slot. */
Test(factory_network_ask, named_to_the_end)
{
    struct facnet n;
    struct vf_spec spec;
    char name[16];
    struct vf_instance *vm = open_cold(&n, "named_to_the_end", &spec);
    snprintf(name, sizeof(name), "%s", facnet_of(vm).interface);
    net_shell("for s in /run/netns/vf-*; do nsenter --net=$s ip link del tap0; done");
    fac_destroy(&n.f, vm);
    cr_assert_eq(facnet_counts(&n).doubts, 1);
    cr_assert_eq(n.n_told, 1);
    cr_assert_str_eq(n.told_of, name);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* ---- traffic */

/* What the host sends to the guest's address comes to the tap of a real VMM, which reads it. */
Test(factory_network_ask, traffic_is_counted)
{
    struct facnet n;
    FACNET_KVM_OR_SKIP("factory_network_ask", "traffic_is_counted");
    facnet_open(&n, "factory_network_ask", "traffic_is_counted", 4, NULL);
    struct vf_spec spec = facnet_tiny("tiny", VF_NETWORK_NAT);
    struct vf_instance *vm = fac_cold(&n.f, &spec);
    struct vf_net_stats before = facnet_traffic(&n, vm), after;
    struct vf_instance_network net = facnet_of(vm);
    int64_t deadline_us = vf_deadline_after_ms(NET_TIMEOUT_MS);
    int fd = net_udp(-1, "0.0.0.0", 0);
    for (int i = 0; i < 3; i++)
        net_udp_send(fd, &net.host4, 7777, "nobody listens");
    close(fd);
    do {
        after = facnet_traffic(&n, vm);
        cr_assert_gt(vf_deadline_left_ms(deadline_us), 0, "%d packets of 3 came",
                     (int)(after.in_packets - before.in_packets));
    } while (after.in_packets < before.in_packets + 3);
    cr_assert_geq(after.in_bytes, before.in_bytes + 3 * strlen("nobody listens"));
    fac_destroy(&n.f, vm);
    cr_assert_eq(n.n_told, 1);
    cr_assert_geq(n.told.in_packets, after.in_packets, "the last count is below an earlier one");
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* A VM's network slot: taken with it, its VMM in the slot's namespace, given back with it, whatever happens in between;
 * what can't be had is refused in words before anything is made.
 */
#include "tests/e2e/factory_net.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

TestSuite(factory_network, .timeout = 120);

/* ---- real VMMs */

static void check_in_slot(struct facnet *n, struct vf_instance *vm)
{
    struct vf_instance_network net = facnet_of(vm);
    char text[VF_IP_TEXT];
    cr_assert_eq(net.mode, VF_NETWORK_NAT);
    cr_assert(facnet_is_in(facnet_pid(vm), net.netns), "not in %s", net.netns);
    cr_assert(!facnet_is_in(getpid(), net.netns));
    cr_assert_eq(strncmp(net.interface, "vf-", 3), 0);
    cr_assert_eq(strncmp(vf_ip_text(&net.host4, text), "10.210.0.", 9), 0, "%s", text);
    cr_assert_eq(net.host6.family, AF_INET6);
    cr_assert_eq(net.n_ports, 0);
    /* The guest's end is up: its VMM holds the tap. */
    cr_assert_str_eq(
        net_shell("nsenter --net=%s ip -o link show tap0 | grep -o LOWER_UP", net.netns),
        "LOWER_UP\n");
    (void)n;
}

Test(factory_network, taken_and_given_back)
{
    struct facnet n;
    FACNET_KVM_OR_SKIP("factory_network", "taken_and_given_back");
    facnet_open(&n, "factory_network", "taken_and_given_back", 8,
                &(struct vf_sync_options){.trial_clones = 2});
    struct vf_spec spec = facnet_tiny("tiny", VF_NETWORK_NAT);
    struct vf_generation *gen = fac_build(&n.f, &spec);
    facnet_expect_taken(&n, 0, "built");
    cr_assert_eq(n.n_told, 0, "nobody wants to hear of a build's traffic");
    struct vf_instance *a = fac_clone(&n.f, gen), *b = fac_clone(&n.f, gen);
    facnet_expect_taken(&n, 2, "two clones");
    check_in_slot(&n, a);
    check_in_slot(&n, b);
    int number = facnet_number(a);
    cr_assert_neq(number, facnet_number(b));
    cr_assert_str_eq(vf_instance_proof(a)->mac, "02:76:6d:00:00:02");
    cr_assert_str_eq(vf_instance_proof(b)->mac, "02:76:6d:00:00:02");
    fac_destroy(&n.f, a);
    facnet_expect_taken(&n, 1, "one destroyed");
    cr_assert_eq(n.n_told, 1);
    /* The next VM gets a slot that was used: as good as new. */
    uint64_t made = facnet_counts(&n).made;
    a = fac_cold(&n.f, &spec);
    check_in_slot(&n, a);
    struct vf_nets_counts c = facnet_counts(&n);
    cr_assert_eq(c.made, made, "a slot was made, though one was ready");
    cr_assert_gt(c.recycled, 0);
    cr_assert_eq(c.doubts, 0);
    fac_destroy(&n.f, a);
    fac_destroy(&n.f, b);
    cr_assert_eq(n.n_told, 3);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    facnet_close(&n);
}

Test(factory_network, standby_holds_a_slot)
{
    struct facnet n;
    struct facnet_done standby = {0}, bring = {0};
    struct vf_error e;
    FACNET_KVM_OR_SKIP("factory_network", "standby_holds_a_slot");
    facnet_open(&n, "factory_network", "standby_holds_a_slot", 8, NULL);
    struct vf_spec spec = facnet_tiny("tiny", VF_NETWORK_NAT);
    struct vf_generation *gen = fac_build(&n.f, &spec);
    cr_assert_eq(vf_factory_standby(n.f.sync.factory, gen, NULL, facnet_on_vm, &standby, NULL, &e),
                 0, "%s", e.msg);
    facnet_wait(&n, &standby);
    cr_assert(standby.vm, "%s", standby.err.msg);
    check_in_slot(&n, standby.vm);
    int number = facnet_number(standby.vm);
    cr_assert_eq(vf_instance_bring(standby.vm, facnet_on_vm, &bring, &e), 0, "%s", e.msg);
    facnet_wait(&n, &bring);
    cr_assert(bring.vm, "%s", bring.err.msg);
    cr_assert_eq(facnet_number(bring.vm), number);
    cr_assert_eq(vf_sync_park(&n.f.sync, bring.vm, &e), 0, "%s", e.msg);
    facnet_expect_taken(&n, 1, "parked");
    cr_assert_eq(vf_sync_wake(&n.f.sync, bring.vm, &e), 0, "%s", e.msg);
    check_in_slot(&n, bring.vm);
    fac_destroy(&n.f, bring.vm);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* ---- withdrawn at any moment */

static bool destroyed_after(struct facnet *n, struct vf_generation *gen, bool cold, int turns)
{
    struct facnet_done d = {0};
    struct vf_instance *vm = NULL;
    struct vf_error e;
    char when[32];
    snprintf(when, sizeof(when), "%d turns", turns);
    int r = cold ? vf_factory_cold(n->f.sync.factory, &gen->manifest.spec, NULL, facnet_on_vm, &d,
                                   &vm, &e)
                 : vf_factory_clone(n->f.sync.factory, gen, NULL, facnet_on_vm, &d, &vm, &e);
    cr_assert_eq(r, 0, "%s", e.msg);
    for (int i = 0; i < turns && !d.calls; i++)
        uv_run(&n->f.sync.loop, UV_RUN_ONCE);
    bool ready = d.calls > 0;
    fac_destroy(&n->f, vm);
    cr_assert_eq(d.calls, 1);
    cr_assert_eq(d.err.code, ready ? VF_OK : VF_CANCELLED, "%s: %s", when, d.err.msg);
    facnet_expect_taken(n, 0, when);
    fac_check(&n->f, when);
    return ready;
}

static void destroyed_at_each_turn(struct facnet *n, struct vf_spec *spec, bool cold)
{
    struct vf_generation *gen = fac_build(&n->f, spec);
    int turns = 0;
    fac_mark(&n->f); /* with the descriptors of a slot that is ready */
    while (!destroyed_after(n, gen, cold, turns) && turns < 200)
        turns++;
    cr_assert_gt(turns, 4);
    struct vf_nets_counts c = facnet_counts(n);
    cr_assert_eq(c.made, 1, "%d turns: %d slots were made", turns, (int)c.made);
    cr_assert_eq(c.doubts, 0);
    vf_generation_unref(gen);
    vf_spec_free(spec);
    facnet_close(n);
}

Test(factory_network, clone_destroyed_at_each_turn)
{
    struct facnet n;
    FACNET_KVM_OR_SKIP("factory_network", "clone_destroyed_at_each_turn");
    facnet_open(&n, "factory_network", "clone_destroyed_at_each_turn", 4, NULL);
    struct vf_spec spec = facnet_tiny("tiny", VF_NETWORK_NAT);
    destroyed_at_each_turn(&n, &spec, false);
}

Test(factory_network, cold_boot_destroyed_at_each_turn)
{
    struct facnet n;
    facnet_open(&n, "factory_network", "cold_boot_destroyed_at_each_turn", 4, NULL);
    struct vf_spec spec = facnet_null("null", VF_NETWORK_NAT);
    destroyed_at_each_turn(&n, &spec, true);
}

/* ---- faults */

static void each_fault(struct facnet *n, struct vf_generation *gen)
{
    static const struct {
        const char *script, *words;
        enum vf_code code;
    } faults[] = {
        {"create:fail=vmm_failed,message=no room", "no room", VF_VMM_FAILED},
        {"create:exit", "exited", VF_VMM_DIED},
        {"restore:fail", "restore", VF_VMM_FAILED},
        {"restore:exit", "exited", VF_VMM_DIED},
        {"resume:exit", "exited", VF_VMM_DIED},
        {"hello:exit", "exited", VF_VMM_DIED},
        {"renew:fail", "renew", VF_GUEST_FAILED},
        {"agent:same-sample,stale-nonce", "nonce", VF_PROOF_FAILED},
    };
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        struct vf_error e;
        struct vf_instance *vm = NULL;
        fac_null_script(faults[i].script);
        cr_assert_lt(vf_sync_clone(&n->f.sync, gen, NULL, &vm, &e), 0, "%s", faults[i].script);
        cr_assert_eq(e.code, faults[i].code, "%s: %s: %s", faults[i].script, vf_code_name(e.code),
                     e.msg);
        facnet_expect_taken(n, 0, faults[i].script);
        fac_check(&n->f, faults[i].script);
        fac_null_script(NULL);
    }
}

static void on_death(void *arg, struct vf_instance *vm, const struct vf_error *why)
{
    (void)vm;
    (void)why;
    *(bool *)arg = true;
}

Test(factory_network, whatever_fails)
{
    struct facnet n;
    bool dead = false;
    facnet_open(&n, "factory_network", "whatever_fails", 4, NULL);
    struct vf_spec spec = facnet_null("null", VF_NETWORK_NAT);
    struct vf_generation *gen = fac_build(&n.f, &spec);
    fac_mark(&n.f);
    each_fault(&n, gen);
    /* It dies later: the slot is the dead one's until that is destroyed. */
    struct vf_instance *vm = fac_clone(&n.f, gen);
    vf_instance_on_death(vm, on_death, &dead);
    vf_null_kill(vf_instance_vm(vm));
    while (!dead)
        uv_run(&n.f.sync.loop, UV_RUN_ONCE);
    facnet_expect_taken(&n, 1, "dead");
    fac_destroy(&n.f, vm);
    facnet_expect_taken(&n, 0, "destroyed");
    cr_assert_eq(facnet_counts(&n).made, 1);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* Addresses run out; a slot can't be given its rates. */
Test(factory_network, no_slot)
{
    struct facnet n;
    struct vf_instance *vms[2], *none = NULL;
    struct vf_error e;
    facnet_open(&n, "factory_network", "no_slot", 2, NULL);
    struct vf_spec spec = facnet_null("null", VF_NETWORK_NAT);
    struct vf_generation *gen = fac_build(&n.f, &spec);
    vms[0] = fac_clone(&n.f, gen);
    vms[1] = fac_clone(&n.f, gen);
    cr_assert_lt(vf_sync_clone(&n.f.sync, gen, NULL, &none, &e), 0);
    fac_expect(&e, VF_BUSY, "prepare: ");
    cr_assert_eq(fac_run_dirs(&n.f), 2);
    fac_destroy(&n.f, vms[0]);
    fac_destroy(&n.f, vms[1]);
    facnet_expect_taken(&n, 0, "all destroyed");
    vf_generation_unref(gen);

    spec.network.in_bytes_per_s = 1000000;
    net_shell("for s in /run/netns/vf-*; do nsenter --net=$s ip link del tap0; done");
    struct vf_instance *vm = NULL;
    cr_assert_lt(vf_sync_cold(&n.f.sync, &spec, NULL, &vm, &e), 0);
    cr_assert(strstr(e.msg, "network vf-"), "%s", e.msg);
    facnet_expect_taken(&n, 0, "its tap was gone");
    cr_assert_eq(fac_run_dirs(&n.f), 0);
    cr_assert_eq(facnet_counts(&n).doubts, 1, "it is not used again");
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* ---- what can't be had */

Test(factory_network, no_networks)
{
    struct fac f;
    struct vf_generation *gen = NULL;
    struct vf_error e;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = facnet_null("null", VF_NETWORK_NAT);
    e = fac_cold_fails(&f, &spec, VF_UNSUPPORTED,
                       "network.mode: is nat, but there are no networks here");
    cr_assert(strstr(e.hint, "set network.mode to none"), "%s", e.hint);
    fac_build_fails(&f, &spec, VF_UNSUPPORTED, "network.mode");
    spec.network.mode = VF_NETWORK_BRIDGE;
    fac_build_fails(&f, &spec, VF_UNSUPPORTED, "network.mode: is bridge");
    spec.network.mode = VF_NETWORK_NONE;
    gen = fac_build(&f, &spec);
    struct vf_instance *vm = fac_clone(&f, gen);
    struct vf_instance_network net = facnet_of(vm);
    cr_assert_eq(net.mode, VF_NETWORK_NONE);
    cr_assert_eq(net.number, -1);
    cr_assert_null(net.netns);
    cr_assert_null(net.interface);
    struct vf_port port = {.protocol = IPPROTO_TCP, .port = 8080, .guest = 80};
    cr_assert_lt(vf_instance_publish(vm, &port, 1, facnet_on_done, NULL, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "network.mode is none");
    struct vf_net_stats stats;
    cr_assert_lt(vf_instance_traffic(vm, &stats, facnet_on_done, NULL, &e), 0);
    fac_expect(&e, VF_NOT_FOUND, "no network slot");
    fac_destroy(&f, vm);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_network, mode_not_configured)
{
    struct facnet n;
    facnet_open(&n, "factory_network", "mode_not_configured", 4, NULL);
    struct vf_spec spec = facnet_null("null", VF_NETWORK_BRIDGE);
    struct vf_error e = fac_cold_fails(&n.f, &spec, VF_UNSUPPORTED, "network.mode: bridge: ");
    cr_assert(e.hint[0]);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* A boot that is tried again under TCG has a slot of its own each time. */
static int count_prepares(void *arg, struct vf_instance *vm, const char *stage,
                          struct vf_error *err)
{
    (void)vm;
    (void)err;
    *(int *)arg += strcmp(stage, "vmm") == 0;
    return 0;
}

Test(factory_network, tried_again_under_tcg)
{
    struct facnet n;
    struct vf_error e;
    struct vf_instance *vm = NULL;
    int vmms = 0;
    facnet_open(&n, "factory_network", "tried_again_under_tcg", 4,
                &(struct vf_sync_options){
                    .auto_accel = VF_ACCEL_KVM, .on_step = count_prepares, .on_step_arg = &vmms});
    struct vf_spec spec = facnet_null("null", VF_NETWORK_NAT);
    spec.accel = VF_ACCEL_AUTO;
    fac_null_script("start:fail=vmm_failed");
    cr_assert_lt(vf_sync_cold(&n.f.sync, &spec, NULL, &vm, &e), 0);
    fac_expect(&e, VF_VMM_FAILED, "start: ");
    cr_assert_eq(vmms, 2, "tried %d times", vmms);
    struct vf_nets_counts c = facnet_counts(&n);
    cr_assert_eq(c.made, 1);
    cr_assert_eq(c.recycled, 2);
    cr_assert_eq(c.doubts, 0);
    cr_assert_eq(n.n_told, 1, "all in all it is one VM");
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* What a guest is told of its NIC, each value proved: the null guest tells one of them wrongly at a time, and the VM is
 * destroyed with that one named. First with networks that others bring, which need no privilege, then in slots. */
#include "tests/e2e/factory_net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct vf_vm_options brought = {
    .has_mac = true,
    .mac = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55},
    .has_ipv4 = true,
    .ipv4 = {10, 9, 8, 7},
    .prefix_len = 24,
    .gateway = {10, 9, 8, 1},
    .has_ipv6 = true,
    .ipv6 = {0xfd, 0x09, [15] = 7},
    .prefix6_len = 64,
    .gateway6 = {0xfd, 0x09, [15] = 1},
};

static struct vf_spec null_spec(int64_t mtu, const char *const *dns)
{
    struct vf_spec spec = fac_tiny("null", VF_ACCEL_TCG, NULL);
    struct vf_error e;
    spec.vmm = VF_SPEC_VMM_NULL;
    spec.network.mode = VF_NETWORK_EXTERNAL;
    spec.network.mtu = mtu;
    if (dns)
        facnet_add_dns(&spec, dns);
    cr_assert_eq(vf_spec_check(&spec, &e), 0, "%s", e.msg);
    return spec;
}

static const char *const resolvers[] = {"192.0.2.53", "2001:db8::53", NULL};

/* A clone with what was brought; NULL and the error if it can't be made. */
static struct vf_instance *make(struct fac *f, struct vf_generation *gen,
                                const struct vf_vm_options *o, struct vf_error *err)
{
    struct vf_instance *vm = NULL;
    *err = (struct vf_error){0};
    return vf_sync_clone(&f->sync, gen, o, &vm, err) == 0 ? vm : NULL;
}

Test(factory_network_proofs, each_value_is_proved, .timeout = 60)
{
    static const struct {
        const char *script, *words;
    } lies[] = {
        {"agent:wrong-mac", "the guest's NIC did not take its MAC address"},
        {"agent:wrong-mtu", "the guest's NIC did not take its MTU"},
        {"agent:wrong-ipv4", "the guest's NIC did not take its IPv4 address"},
        {"agent:wrong-ipv6", "the guest's NIC did not take its IPv6 address"},
        {"agent:wrong-dns", "the guest's NIC did not take its resolvers"},
        {"agent:no-dns", "the guest's NIC did not take its resolvers"},
    };
    struct fac f;
    struct vf_error e;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = null_spec(9000, resolvers);
    struct vf_generation *gen = fac_build(&f, &spec);
    struct vf_instance *vm = make(&f, gen, &brought, &e);
    cr_assert(vm, "%s (%s)", e.msg, e.hint);
    cr_expect_str_eq(vf_instance_proof(vm)->mac, "02:11:22:33:44:55");
    fac_destroy(&f, vm);
    for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        fac_null_script(lies[i].script);
        cr_assert_null(make(&f, gen, &brought, &e), "%s: believed", lies[i].script);
        fac_expect(&e, VF_PROOF_FAILED, lies[i].words);
    }
    /* A lie about what nobody was told is none. */
    fac_null_script("agent:wrong-ipv4,wrong-ipv6,wrong-gateway-mac");
    vm = make(&f, gen, &(struct vf_vm_options){0}, &e);
    cr_assert(vm, "%s", e.msg);
    fac_destroy(&f, vm);
    /* A template is asked, too. */
    fac_null_script("agent:wrong-mtu");
    fac_build_fails(&f, &spec, VF_PROOF_FAILED, "renew: the guest's NIC did not take its MTU");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* Of an image that was built before: what it knows it is told, and what nobody asked for is left out. */
Test(factory_network_proofs, an_agent_of_before, .timeout = 60)
{
    static const struct {
        int64_t mtu;
        const char *const *dns;
        const char *words;
    } asked[] = {{9000, NULL, "network.mtu: the guest's agent knows of no such setting"},
                 {1500, resolvers, "network.dns: the guest's agent knows of no such setting"}};
    struct fac f;
    struct vf_error e;
    fac_null_script("agent:old-net");
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    for (size_t i = 0; i < sizeof(asked) / sizeof(*asked); i++) {
        struct vf_spec spec = null_spec(asked[i].mtu, asked[i].dns);
        e = fac_build_fails(&f, &spec, VF_UNSUPPORTED, asked[i].words);
        cr_expect(strstr(e.hint, "build the guest image"), "%s", e.hint);
        vf_spec_free(&spec);
    }
    struct vf_spec spec = null_spec(1500, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    struct vf_vm_options o = brought;
    cr_assert_null(make(&f, gen, &o, &e));
    fac_expect(&e, VF_UNSUPPORTED, "ipv6: the guest's agent knows of no such setting");
    o.has_ipv6 = false;
    struct vf_instance *vm = make(&f, gen, &o, &e);
    cr_assert(vm, "%s", e.msg);
    fac_destroy(&f, vm);
    fac_null_script("agent:old-net,wrong-ipv4");
    cr_assert_null(make(&f, gen, &o, &e));
    fac_expect(&e, VF_PROOF_FAILED, "did not take its IPv4 address");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- in slots */

struct lie {
    const char *how, *words;
};
/* As the null guest's script and the tiny guest's command line call them. */
static const struct lie lies_in_slots[] = {
    {"wrong-mac", "the guest's NIC did not take its MAC address"},
    {"wrong-mtu", "the guest's NIC did not take its MTU"},
    {"wrong-ipv4", "the guest's NIC did not take its IPv4 address"},
    {"wrong-ipv6", "the guest's NIC did not take its IPv6 address"},
    {"wrong-gateway-mac", "the guest's NIC did not take its gateway's MAC address"},
    {"wrong-dns", "the guest's NIC did not take its resolvers"},
    {"no-dns", "the guest's NIC did not take its resolvers"},
};
#define N_LIES_IN_SLOTS (sizeof(lies_in_slots) / sizeof(*lies_in_slots))

Test(factory_network_proofs, each_value_of_a_slot_is_proved, .timeout = 120)
{
    struct facnet n;
    struct vf_error e;
    facnet_open(&n, "factory_network_proofs", "each_value_of_a_slot_is_proved", 8, NULL);
    struct vf_spec spec = facnet_null("null", VF_NETWORK_NAT);
    facnet_add_dns(&spec, resolvers);
    struct vf_generation *gen = fac_build(&n.f, &spec);
    struct vf_instance *vm = fac_clone(&n.f, gen);
    cr_expect_str_eq(vf_instance_proof(vm)->mac, "02:76:6d:00:00:02");
    /* Woken, it is told all of it again. */
    cr_assert_eq(vf_sync_park(&n.f.sync, vm, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_sync_wake(&n.f.sync, vm, &e), 0, "%s", e.msg);
    fac_destroy(&n.f, vm);
    for (size_t i = 0; i < N_LIES_IN_SLOTS; i++) {
        char script[64];
        snprintf(script, sizeof(script), "agent:%s", lies_in_slots[i].how);
        fac_null_script(script);
        fac_clone_fails(&n.f, gen, VF_PROOF_FAILED, lies_in_slots[i].words);
    }
    facnet_expect_taken(&n, 0, "all liars destroyed");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    /* An agent of before knows neither IPv6 nor the gateway's MAC: nobody has asked for those. */
    fac_null_script("agent:old-net");
    spec = facnet_null("old", VF_NETWORK_NAT);
    gen = fac_build(&n.f, &spec);
    fac_destroy(&n.f, fac_clone(&n.f, gen));
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* A real guest, which begins to lie once it is frozen: its clones do. */
Test(factory_network_proofs, a_real_guest_that_lies, .timeout = 180)
{
    struct facnet n;
    FACNET_KVM_OR_SKIP("factory_network_proofs", "a_real_guest_that_lies");
    facnet_open(&n, "factory_network_proofs", "a_real_guest_that_lies", 8, NULL);
    for (size_t i = 0; i < N_LIES_IN_SLOTS; i++) {
        struct vf_spec spec = facnet_tiny("liar", VF_NETWORK_NAT);
        facnet_add_dns(&spec, resolvers);
        free(spec.boot.cmdline);
        cr_assert_gt(asprintf(&spec.boot.cmdline, "misbehave-frozen=%s", lies_in_slots[i].how), 0);
        struct vf_generation *gen = fac_build(&n.f, &spec);
        fac_clone_fails(&n.f, gen, VF_PROOF_FAILED, lies_in_slots[i].words);
        vf_generation_unref(gen);
        vf_spec_free(&spec);
    }
    facnet_close(&n);
}

/* The whole chain on real VMMs: a template is built, cloned and booted without; each VM proves what it is.
 *
 * factory_chain.c       the chain for each guest and accelerator
 * factory_exec.c        commands
 * factory_templates.c   warm-up, joining builds, loading, removal, accelerators
 */
#include "tests/e2e/factory_support.h"

#include <stdlib.h>
#include <string.h>
#include "vmm/vmm.h"

#define CLONES 3

/* Build, clones, a cold boot: all proofs, and no two VMs alike. Leaves clones[0] alive. */
static void chain(struct fac *f, const struct vf_spec *spec, struct vf_generation **ret_gen,
                  struct vf_instance *vms[CLONES + 1])
{
    struct vf_generation *gen = fac_build(f, spec);
    cr_assert_eq(gen->number, 1);
    cr_assert_eq(gen->manifest.vmm.accel, spec->accel);
    cr_assert_str_eq(gen->manifest.vmm.path, sup_qemu());
    for (int i = 0; i < CLONES; i++) {
        vms[i] = fac_clone(f, gen);
        fac_check_proof(f, vms[i], gen);
    }
    vms[CLONES] = fac_cold(f, spec);
    fac_check_proof(f, vms[CLONES], NULL);
    cr_assert_str_neq(vf_instance_proof(vms[CLONES])->boot_id, gen->manifest.boot_id);
    fac_check_differ(f, vms, CLONES + 1);
    *ret_gen = gen;
}

static void destroy_all(struct fac *f, struct vf_instance **vms, int n)
{
    for (int i = 0; i < n; i++)
        fac_destroy(f, vms[i]);
}

/* ---- the tiny guest */

static const char *counter(struct fac *f, struct vf_instance *vm)
{
    return fac_say(f, vm, "counter", (char *)NULL);
}

static void tiny_chain(enum vf_accel accel, const char *name)
{
    struct fac f;
    struct vf_generation *gen;
    struct vf_instance *vms[CLONES + 1];
    static const char *const count[] = {"counter", NULL};
    const char *missing = fac_missing(false, accel);
    if (missing)
        sup_skip("factory_chain", name, "%s", missing);
    fac_open(&f, NULL);
    struct vf_spec spec = fac_tiny("tiny", accel, NULL);
    fac_add_warmup(&spec, count);
    fac_add_warmup(&spec, count);
    chain(&f, &spec, &gen, vms);
    /* The template counted to 2; every clone goes on from there, each for itself. */
    cr_assert_str_eq(counter(&f, vms[0]), "2");
    cr_assert_str_eq(counter(&f, vms[0]), "3");
    cr_assert_str_eq(counter(&f, vms[1]), "2");
    cr_assert_str_eq(counter(&f, vms[CLONES]), "0");
    cr_assert_eq(vf_vm_info_of(vf_instance_vm(vms[0]))->accel, accel);
    destroy_all(&f, vms, CLONES + 1);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_chain, tiny_tcg, .timeout = 120)
{
    tiny_chain(VF_ACCEL_TCG, "tiny_tcg");
}

Test(factory_chain, tiny_kvm, .timeout = 120)
{
    tiny_chain(VF_ACCEL_KVM, "tiny_kvm");
}

/* A parked VM is paused; woken it goes on where it was, with fresh entropy, and proves it. */
Test(factory_chain, park_and_wake, .timeout = 120)
{
    struct fac f;
    struct vf_error e = {0};
    fac_open(&f, NULL);
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    struct vf_instance *vm = fac_clone(&f, gen);
    struct vf_proof before = *vf_instance_proof(vm);
    cr_assert_str_eq(counter(&f, vm), "0");
    for (int i = 1; i <= 3; i++) {
        char due[16];
        snprintf(due, sizeof(due), "%d", i);
        cr_assert_eq(vf_sync_park(&f.sync, vm, &e), 0, "%s", e.msg);
        cr_assert_eq(vf_vm_info_of(vf_instance_vm(vm))->state, VF_VM_PAUSED);
        cr_assert_eq(vf_sync_wake(&f.sync, vm, &e), 0, "%s", e.msg);
        cr_assert_eq(vf_vm_info_of(vf_instance_vm(vm))->state, VF_VM_RUNNING);
        const struct vf_proof *after = vf_instance_proof(vm);
        cr_assert_str_neq(after->sample, before.sample);
        cr_assert_str_neq(after->entropy_sha256, before.entropy_sha256);
        cr_assert_str_eq(after->machine_id, before.machine_id);
        cr_assert_str_eq(after->hostname, before.hostname);
        cr_assert_str_eq(counter(&f, vm), due);
        before = *after;
    }
    /* Out of order: refused, and no harm done. */
    cr_assert_eq(vf_sync_park(&f.sync, vm, &e), 0, "%s", e.msg);
    cr_assert_lt(vf_sync_park(&f.sync, vm, &e), 0);
    cr_assert_eq(e.code, VF_CONFLICT, "%s", e.msg);
    cr_assert_eq(vf_sync_wake(&f.sync, vm, &e), 0, "%s", e.msg);
    cr_assert_lt(vf_sync_wake(&f.sync, vm, &e), 0);
    cr_assert_eq(e.code, VF_CONFLICT, "%s", e.msg);
    cr_assert_str_eq(counter(&f, vm), "4");
    fac_destroy(&f, vm);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_chain, sixteen_at_once, .timeout = 180)
{
    struct fac f;
    struct vf_error e = {0};
    struct vf_instance *vms[16];
    fac_open(&f, NULL);
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_mark(&f);
    cr_assert_eq(vf_sync_clones(&f.sync, gen, 16, vms, &e), 0, "%s", e.msg);
    fac_check_differ(&f, vms, 16);
    for (int i = 0; i < 16; i++)
        fac_check_proof(&f, vms[i], gen);
    destroy_all(&f, vms, 16);
    fac_check(&f, "16 clones destroyed");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* What callers may ask for, and what is refused before anything is made. */
Test(factory_chain, options, .timeout = 120)
{
    struct fac f;
    struct vf_error e = {0};
    struct vf_instance *vm = NULL;
    char longest[65];
    memset(longest, 'a', 64);
    longest[64] = 0;
    const struct {
        struct vf_vm_options o;
        const char *words;
    } bad[] = {
        {{.hostname = ""}, "hostname"},       {{.hostname = longest}, "hostname"},
        {{.hostname = "a b"}, "hostname"},    {{.hostname = "a\nb"}, "hostname"},
        {{.tap = "tap0"}, "network.mode"},    {{.has_mac = true}, "network.mode"},
        {{.has_ipv4 = true}, "network.mode"},
    };
    fac_open(&f, NULL);
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_mark(&f);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        cr_assert_lt(vf_sync_clone(&f.sync, gen, &bad[i].o, &vm, &e), 0, "%zu", i);
        fac_expect(&e, VF_INVALID_ARGUMENT, bad[i].words);
        fac_check(&f, "refused options");
    }
    longest[63] = 0;
    struct vf_vm_options good = {.hostname = longest};
    cr_assert_eq(vf_sync_clone(&f.sync, gen, &good, &vm, &e), 0, "%s", e.msg);
    cr_assert_str_eq(vf_instance_proof(vm)->hostname, longest);
    cr_assert_str_eq(fac_say(&f, vm, "hostname", (char *)NULL), longest);
    fac_destroy(&f, vm);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- Linux */

Test(factory_chain, linux_tcg, .timeout = 240)
{
    struct fac f;
    struct vf_generation *gen;
    struct vf_instance *vms[CLONES + 1];
    static const char *const warm[] = {"/bin/sh", "-c", "echo warm > /run/warmed", NULL};
    FAC_LINUX_OR_SKIP("factory_chain", "linux_tcg");
    fac_open(&f, NULL);
    struct vf_spec spec = fac_linux("linux", VF_ACCEL_TCG, NULL);
    fac_add_warmup(&spec, warm);
    chain(&f, &spec, &gen, vms);
    cr_assert_str_eq(fac_sh(&f, vms[0], "cat /run/warmed"), "warm");
    fac_sh(&f, vms[0], "echo cooler > /run/warmed");
    cr_assert_str_eq(fac_sh(&f, vms[1], "cat /run/warmed"), "warm");
    cr_assert_str_eq(fac_sh(&f, vms[CLONES], "test -e /run/warmed || echo none"), "none");
    destroy_all(&f, vms, CLONES + 1);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

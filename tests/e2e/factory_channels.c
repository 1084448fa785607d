/* The chain over each channel of the VMMs whose channel is not there from the beginning: a template is built,
 * cloned, brought out of standby, parked and woken, and booted without; each VM proves what it is.
 */
#include <string.h>
#include "tests/e2e/factory_support.h"
#include "vmm/vmm.h"

struct result {
    int calls;
    struct vf_instance *vm;
    struct vf_error err;
};

static void on_vm(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct result *r = arg;
    r->calls++;
    r->vm = vm;
    if (err)
        r->err = *err;
}

static struct vf_instance *wait_for(struct fac *f, struct result *r)
{
    while (!r->calls)
        uv_run(&f->sync.loop, UV_RUN_ONCE);
    cr_assert(r->vm, "%s (%s)", r->err.msg, r->err.hint);
    return r->vm;
}

static struct vf_instance *stand_by_and_bring(struct fac *f, struct vf_generation *gen)
{
    struct result standby = {0}, bring = {0};
    struct vf_error e;
    cr_assert_eq(vf_factory_standby(f->sync.factory, gen, NULL, on_vm, &standby, NULL, &e), 0, "%s",
                 e.msg);
    struct vf_instance *vm = wait_for(f, &standby);
    fac_check_stages(vm, "prepare vmm");
    cr_assert_eq(vf_instance_bring(vm, on_vm, &bring, &e), 0, "%s", e.msg);
    vm = wait_for(f, &bring);
    fac_check_stages(vm, "restore resume prove");
    return vm;
}

static void park_and_wake(struct fac *f, struct vf_instance *vm)
{
    struct vf_error e;
    cr_assert_eq(vf_sync_park(&f->sync, vm, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_vm_info_of(vf_instance_vm(vm))->state, VF_VM_PAUSED);
    cr_assert_eq(vf_sync_wake(&f->sync, vm, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_vm_info_of(vf_instance_vm(vm))->state, VF_VM_RUNNING);
}

static void over(const struct sup_target *t, enum vf_spec_vmm vmm, const char *name)
{
    struct fac f;
    struct vf_instance *vms[4];
    const char *missing = sup_target_missing(t);
    if (missing)
        sup_skip("factory_channels", name, "%s", missing);
    fac_open(&f, &(struct vf_sync_options){.cloud_hypervisor = sup_cloud_hypervisor(),
                                           .firecracker = sup_firecracker()});
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_KVM, NULL);
    spec.vmm = vmm;
    spec.has_vmm = spec.agent.has_channel = true;
    spec.agent.channel = t->vsock ? VF_CHANNEL_VSOCK : VF_CHANNEL_SERIAL;
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_mark(&f);
    vms[0] = fac_clone(&f, gen);
    vms[1] = fac_clone(&f, gen);
    vms[2] = stand_by_and_bring(&f, gen);
    vms[3] = fac_cold(&f, &spec);
    for (int i = 0; i < 4; i++)
        fac_check_proved(&f, vms[i], i < 3 ? gen : NULL);
    fac_check_differ(&f, vms, 4);
    struct vf_vmm_caps caps;
    vf_vmm_find(t->driver)->capabilities(vf_vm_info_of(vf_instance_vm(vms[0]))->version, &caps);
    for (int i = 0; i < 4 && caps.park_paused; i++)
        park_and_wake(&f, vms[i]);
    for (int i = 0; i < 4; i++) {
        cr_assert_str_eq(fac_say(&f, vms[i], "echo", "still", "here", (char *)NULL), "still here");
        fac_destroy(&f, vms[i]);
    }
    fac_check(&f, "all destroyed");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

#define OVER(target, vmm)                          \
    Test(factory_channels, target, .timeout = 180) \
    {                                              \
        over(&sup_##target, vmm, #target);         \
    }
OVER(cloud_hypervisor_tiny, VF_SPEC_VMM_CLOUD_HYPERVISOR)
OVER(cloud_hypervisor_tiny_vsock, VF_SPEC_VMM_CLOUD_HYPERVISOR)
OVER(firecracker_tiny, VF_SPEC_VMM_FIRECRACKER)
OVER(firecracker_tiny_vsock, VF_SPEC_VMM_FIRECRACKER)

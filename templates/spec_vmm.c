/* What of a spec depends on its VMM: the defaults that it has there, and what can't be had. See spec.h.
 *
 * A spec that names a class need not name a VMM. Then these questions wait for the registry, which knows the class's
 * VMM and settles the spec with it (templates/runtime.c).
 */
#include "templates/spec.h"

#include <inttypes.h>

enum vf_channel vf_spec_default_channel(enum vf_spec_vmm vmm)
{
    return vmm == VF_SPEC_VMM_CLOUD_HYPERVISOR || vmm == VF_SPEC_VMM_FIRECRACKER
               ? VF_CHANNEL_VSOCK
               : VF_CHANNEL_VIRTIO_SERIAL;
}

enum vf_park vf_spec_park(const struct vf_spec *spec)
{
    if (spec->park != VF_PARK_AUTO)
        return (enum vf_park)spec->park;
    return spec->vmm == VF_SPEC_VMM_FIRECRACKER ? VF_PARK_RUNNING : VF_PARK_PAUSED;
}

static int check_channel(enum vf_channel channel, enum vf_spec_vmm vmm, struct vf_error *err)
{
    const char *name = vf_spec_vmm_names[vmm];

    if (channel == VF_CHANNEL_SERIAL || channel == vf_spec_default_channel(vmm))
        return 0;
    if (channel == VF_CHANNEL_VIRTIO_SERIAL)
        vf_fail(err, VF_INVALID_ARGUMENT,
                "agent.channel: %s has no virtio-serial port for the agent", name);
    else if (vmm == VF_SPEC_VMM_QEMU)
        vf_fail(err, VF_INVALID_ARGUMENT,
                "agent.channel: no vsock with qemu: its vhost-vsock gives each guest a CID of the "
                "host's one table, but clones have their template's");
    else
        vf_fail(err, VF_INVALID_ARGUMENT, "agent.channel: %s has no vsock", name);
    return vf_hint(err, "use \"%s\" or \"serial\"", vf_channel_names[vf_spec_default_channel(vmm)]);
}

int vf_spec_check_vmm(const struct vf_spec *s, enum vf_spec_vmm vmm, struct vf_error *err)
{
    const char *name = vf_spec_vmm_names[vmm];
    bool kvm_only = vmm == VF_SPEC_VMM_CLOUD_HYPERVISOR || vmm == VF_SPEC_VMM_FIRECRACKER;

    if (vmm != VF_SPEC_VMM_NULL && s->class_name == NULL && s->boot.kernel == NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT, "boot.kernel: is required with the vmm \"%s\"", name);
        return vf_hint(err, "name a kernel (`make guest` builds one), or a class that has one");
    }
    if (s->machine != VF_MACHINE_MICROVM && vmm != VF_SPEC_VMM_QEMU) {
        vf_fail(err, VF_INVALID_ARGUMENT, "machine: %s has no machine types", name);
        return vf_hint(err, "leave it out");
    }
    if (s->accel == VF_ACCEL_TCG && kvm_only) {
        vf_fail(err, VF_INVALID_ARGUMENT, "accel: %s runs on KVM only", name);
        return vf_hint(err, "use \"auto\" or \"kvm\", or qemu");
    }
    if (vmm == VF_SPEC_VMM_FIRECRACKER && s->boot.has_root && s->boot.root.format != VF_IMAGE_RAW) {
        vf_fail(err, VF_INVALID_ARGUMENT, "boot.root.format: firecracker takes raw images only");
        return vf_hint(err, "`qemu-img convert -O raw` makes one");
    }
    if (vmm == VF_SPEC_VMM_FIRECRACKER && s->park == VF_PARK_PAUSED) {
        vf_fail(
            err, VF_INVALID_ARGUMENT,
            "park: firecracker's clones can't wait paused: up to 1.16.1 their vsock hears nothing "
            "more after a pause");
        return vf_hint(err, "use \"running\" or \"auto\"");
    }
    if (vmm == VF_SPEC_VMM_FIRECRACKER && s->network.queues > 1) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.queues: firecracker's NICs have one pair of queues (is %" PRId64 ")",
                s->network.queues);
        return vf_hint(err, "leave it out, or use another VMM");
    }
    if (vf_spec_knows_vmm(s) && (enum vf_spec_vmm)s->vmm == vmm)
        return check_channel((enum vf_channel)s->agent.channel, vmm, err);
    return s->agent.has_channel ? check_channel((enum vf_channel)s->agent.channel, vmm, err) : 0;
}

int vf_spec_settle(struct vf_spec *spec, enum vf_spec_vmm vmm, struct vf_error *err)
{
    int r;

    if (vf_spec_knows_vmm(spec) && spec->vmm != (int)vmm) {
        vf_fail(err, VF_INVALID_ARGUMENT, "vmm: is \"%s\", but the class runs %s",
                vf_spec_vmm_names[spec->vmm], vf_spec_vmm_names[vmm]);
        return vf_hint(err, "leave vmm out, or name another class");
    }
    r = vf_spec_check_vmm(spec, vmm, err);
    if (r < 0)
        return r;
    spec->vmm = (int)vmm;
    if (!spec->agent.has_channel)
        spec->agent.channel = (int)vf_spec_default_channel(vmm);
    return 0;
}

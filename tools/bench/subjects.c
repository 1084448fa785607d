/* What can be measured on this host, and with which spec. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tools/bench/bench.h"
#include "vmm/vmm.h"

const enum vf_spec_vmm bench_vmms[] = {VF_SPEC_VMM_QEMU, VF_SPEC_VMM_CLOUD_HYPERVISOR,
                                       VF_SPEC_VMM_FIRECRACKER, VF_SPEC_VMM_COUNT};

static bool kvm_opens(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static const char *missing(const struct bench *b, const struct subject *of)
{
    if (!b->floor.binaries[of->vmm])
        return "the program is not on PATH, and no option names it";
    if (!vf_vmm_find(vf_spec_vmm_names[of->vmm]))
        return "there is no driver for it";
    return of->accel == VF_ACCEL_KVM && !kvm_opens() ? "/dev/kvm does not open" : NULL;
}

bool bench_can(const struct bench *b, const struct subject *of)
{
    if (!b->wanted[of->vmm])
        return false;
    const char *why = missing(b, of);
    if (why)
        fprintf(stderr, "SKIPPED %s, %s guest on %s: %s\n", vf_spec_vmm_names[of->vmm], of->guest,
                vf_accel_names[of->accel], why);
    return !why;
}

int bench_spec(const char *specs, const struct subject *of, struct vf_spec *ret_spec,
               struct vf_error *err)
{
    char file[4096];
    snprintf(file, sizeof(file), "%s/%s.json", specs, of->guest);
    int r = vf_spec_load(file, ret_spec, err);
    if (r < 0)
        return r;
    ret_spec->vmm = of->vmm;
    ret_spec->accel = of->accel;
    ret_spec->park = VF_PARK_AUTO;
    ret_spec->park = (int)vf_spec_park(ret_spec);
    return 0;
}

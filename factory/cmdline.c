#include "factory/cmdline.h"

#include <stdio.h>
#include "factory/tsc.h"

char *vf_kernel_cmdline(const struct vf_spec *spec, enum vf_accel accel)
{
    char *out = NULL, tsc[40] = "";
    bool serial = spec->agent.channel == VF_CHANNEL_SERIAL; /* then it is no console */
    const char *channel = serial                                    ? "serial:/dev/ttyS0"
                          : spec->agent.channel == VF_CHANNEL_VSOCK ? "vsock"
                                                                    : "virtio-serial:vf.agent";
    /* Under TCG a microvm has but the PIT to time its TSC against, and no other timer until it knows it: on a
     * busy host Linux 6.1 fails at that and hangs. Its TSC is the host's, so it can be told. */
    if (accel == VF_ACCEL_TCG && spec->machine == VF_MACHINE_MICROVM && vf_tsc_khz())
        snprintf(tsc, sizeof(tsc), " tsc_early_khz=%lld", (long long)vf_tsc_khz());
    if (asprintf(&out, "%squiet panic=-1 reboot=t%s vf.channel=%s%s%s%s",
                 serial ? "" : "console=ttyS0 ", tsc, channel,
                 spec->boot.has_root ? " vf.root=/dev/vda" : "", spec->boot.cmdline ? " " : "",
                 spec->boot.cmdline ? spec->boot.cmdline : "") < 0)
        return NULL;
    return out;
}

#include "factory/cmdline.h"

#include <stdio.h>

char *vf_kernel_cmdline(const struct vf_spec *spec)
{
    char *out = NULL;
    bool serial = spec->agent.channel == VF_CHANNEL_SERIAL; /* then it is no console */
    if (asprintf(&out, "%squiet panic=-1 reboot=t vf.channel=%s%s%s%s",
                 serial ? "" : "console=ttyS0 ",
                 serial ? "serial:/dev/ttyS0" : "virtio-serial:vf.agent",
                 spec->boot.has_root ? " vf.root=/dev/vda" : "", spec->boot.cmdline ? " " : "",
                 spec->boot.cmdline ? spec->boot.cmdline : "") < 0)
        return NULL;
    return out;
}

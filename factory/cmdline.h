/* The guest kernel's command line. */
#ifndef VF_FACTORY_CMDLINE_H
#define VF_FACTORY_CMDLINE_H

#include "templates/spec.h"

/* What every guest of ours is told (console, where the agent's channel and root disk are), then the spec's
 * boot.cmdline: in Linux the later word wins. accel: KVM or TCG. malloc'd; NULL without memory. May block
 * (vf_tsc_khz). */
char *vf_kernel_cmdline(const struct vf_spec *spec, enum vf_accel accel);

#endif

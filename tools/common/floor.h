/* Runs vmfactory-floor and reads its line. */
#ifndef VF_TOOLS_COMMON_FLOOR_H
#define VF_TOOLS_COMMON_FLOOR_H

#include <stdint.h>
#include "base/error.h"
#include "templates/generation.h"

struct vf_floor {
    const char *program;                     /* absolute path */
    const char *binaries[VF_SPEC_VMM_COUNT]; /* for cold boots; absolute; NULL: not to be run */
    const char *dir; /* its VMs' directories are made there; NULL: where temporary files go */
};

/* µs; -1: not of this run */
struct vf_floor_times {
    int64_t vmm, restore, resume, prove, boot, renew, total, wake, save, wall;
};

/* The floor beside the running program: its directory/vmfactory-floor. malloc'd. */
char *vf_floor_find(void);
/* One clone by hand of gen, in the VMM that saved it (n > 1: n at once; ret then has the last one's times, and wall). Blocking. */
int vf_floor_clone(const struct vf_floor *f, const struct vf_generation *gen, int n,
                   struct vf_floor_times *ret, struct vf_error *err);
/* One cold boot and save by hand of spec, under accel (never AUTO). */
int vf_floor_cold(const struct vf_floor *f, const struct vf_spec *spec, enum vf_accel accel,
                  struct vf_floor_times *ret, struct vf_error *err);

#endif

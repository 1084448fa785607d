/* qcow2 overlays: what a guest writes to its root disk, over a base that nobody writes. */
#ifndef VF_FACTORY_OVERLAY_H
#define VF_FACTORY_OVERLAY_H

#include "base/error.h"

/* Makes the empty overlay dir/name over base with qemu-img. Blocking. */
int vf_overlay_create(const char *dir, const char *name, const char *base, const char *base_format,
                      struct vf_error *err);
/* Names dirfd/name's backing file, a qcow2 image, in its header. Only for what vf_overlay_create made. Blocking. */
int vf_overlay_set_backing(int dirfd, const char *name, const char *backing, struct vf_error *err);

#endif

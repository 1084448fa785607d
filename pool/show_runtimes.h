/* Runtime classes and assets as JSON. */
#ifndef VF_POOL_SHOW_RUNTIMES_H
#define VF_POOL_SHOW_RUNTIMES_H

#include "pool/pools.h"

struct vf_stored { /* what is in the store of assets */
    const struct vf_asset_entry *v;
    size_t n;
};
void vf_class_write(struct vf_json_writer *w, const char *key, const struct vf_pools *p,
                    const struct vf_class *c, const struct vf_stored *s);
void vf_asset_write(struct vf_json_writer *w, const char *key, const struct vf_pools *p,
                    const struct vf_asset *a, const struct vf_stored *s, bool admin);
/* The asset whose file for this host that is; NULL: none. */
const char *vf_asset_named(const struct vf_pools *p, const char *sha256);

#endif

/* A generation in use: its manifest, its directory and its sealed memory. Immutable, counted. */
#ifndef VF_TEMPLATES_GENERATION_H
#define VF_TEMPLATES_GENERATION_H

#include <stdint.h>
#include "base/error.h"
#include "templates/manifest.h"

struct vf_generation {
    int64_t number;
    char *path;    /* absolute: its directory */
    int dirfd;     /* the same */
    int memory_fd; /* sealed, manifest.memory_size bytes; -1 if there is no file "memory" */
    struct vf_manifest manifest;
    struct vf_generation_private *priv;
};

/* Thread-safe. The last unref closes the memory, which frees it once no VM maps it any more; that
 * takes a while for a large one. NULL is fine. */
struct vf_generation *vf_generation_ref(struct vf_generation *gen);
void vf_generation_unref(struct vf_generation *gen);

/* Before each clone: the VMM's binary, the root image and the generation's files but for memory and
 * manifest are still those that were verified (device, inode, size, mtime: a few stat(2) calls).
 * VF_CONFLICT names what changed. */
int vf_generation_still_valid(const struct vf_generation *gen, struct vf_error *err);

#endif

/* What the files of the registry share. Not for others. */
#ifndef VF_TEMPLATES_REGISTRY_INTERNAL_H
#define VF_TEMPLATES_REGISTRY_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include "templates/registry.h"

#define VF_CLASS_MAX_TEXT (64 * 1024)
#define VF_REGISTRY_MAX 512 /* classes; and as many assets */

struct vf_registry {
    atomic_size_t refs;
    struct vf_class *classes; /* by name */
    size_t n_classes;
    struct vf_asset *assets; /* by name */
    size_t n_assets;
    char *binaries[VF_SPEC_VMM_COUNT]; /* of the host; NULL: there is none */
};

/* --- a class by itself (class.c) */
void vf_class_init(struct vf_class *ret);
int vf_class_check(const struct vf_class *c, struct vf_error *err);
/* NULL: it has none for that architecture. */
const struct vf_class_assets *vf_class_assets_for(const struct vf_class *c, const char *arch);

/* The name of a VMM's usual program, or NULL. */
const char *vf_registry_program(enum vf_spec_vmm vmm);

/* --- the set with one definition changed (registry.c) */
enum vf_registry_kind { VF_REGISTRY_CLASS, VF_REGISTRY_ASSET };
extern const char *const vf_registry_dirs[]; /* "classes", "assets": below cfg->dir */

struct vf_registry_change {
    enum vf_registry_kind kind;
    const char *name;
    const char *text; /* in place of what is there; NULL: it is removed */
    bool found;       /* out: there is a file of that name */
};
/* change may be NULL. */
int vf_registry_load_changed(const struct vf_registry_config *cfg,
                             struct vf_registry_change *change, struct vf_registry **ret,
                             struct vf_error *err);

#endif

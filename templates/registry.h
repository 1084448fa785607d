/* Runtime classes, and the set of them that is in force.
 *
 * A class says which VMM runs a template, with which pinned assets on each architecture, and with which options.
 * Templates name a class, or a VMM, whose default class they get. Without a default class of its own a VMM has a
 * built-in one, called like the VMM: the host's binary, as the daemon's settings or PATH have it, not pinned.
 *
 *     DIR/classes/NAME.json, DIR/assets/NAME.json -> load (all or nothing) -> a set -> resolve a spec -> what to run
 *
 * A set is immutable and counted: what holds one goes on with it while a new one comes into force. Loading is
 * fail-closed: a class that names an unknown asset or one of another kind, an asset without a digest, two defaults for
 * one VMM, or a class that this host's architecture has no assets for, and nothing of it is taken.
 */
#ifndef VF_TEMPLATES_REGISTRY_H
#define VF_TEMPLATES_REGISTRY_H

#include <stdbool.h>
#include "base/error.h"
#include "base/json.h"
#include "templates/assets.h"
#include "templates/spec.h"

#define VF_CLASS_NAME_MAX 64

struct vf_class_assets { /* names of assets; NULL: none */
    char *vmm;           /* without it the class runs the host's binary */
    /* For specs that name this class (not those that get it by default), and no kernel or image of their own. The
     * initrd goes with the kernel. */
    char *kernel, *initrd, *root;
};

struct vf_class_options {
    bool
        sandbox; /* the VMM's own sandbox: QEMU -sandbox, Cloud Hypervisor and Firecracker seccomp. Default true */
    /* For the VMMs that have them; refused with the reason, because clones can't have them: see vmm/vmm.h. */
    int restore_mode; /* "copy" */
    bool prefault, mergeable;
};

struct vf_class {
    char *name; /* as an asset's; not a VMM's, those are the built-in classes' */
    int vmm;    /* enum vf_spec_vmm */
    bool is_default, builtin;
    struct {
        struct vf_class_assets x86_64, aarch64;
        bool has_x86_64, has_aarch64; /* neither: the class is for any host, and has none */
    } assets;
    struct vf_class_options options;
};
extern const struct vf_json_field vf_class_fields[];

int vf_class_parse(const char *text, size_t len, const char *where, struct vf_class *ret,
                   struct vf_error *err);
char *vf_class_encode(const struct vf_class *c); /* malloc'd JSON; NULL without memory */
void vf_class_free(struct vf_class *c);

struct vf_registry_config {
    const char *dir;                         /* may not exist: then only the built-in classes */
    const char *binaries[VF_SPEC_VMM_COUNT]; /* of the built-in classes; NULL: on PATH */
};

struct vf_registry; /* thread-safe: it never changes */
/* Blocking. On failure, whatever set is in force stays; the error names file and field. */
int vf_registry_load(const struct vf_registry_config *cfg, struct vf_registry **ret,
                     struct vf_error *err);
struct vf_registry *vf_registry_ref(struct vf_registry *r);
void vf_registry_unref(struct vf_registry *r);
/* Whether somebody besides the caller holds it. */
bool vf_registry_shared(const struct vf_registry *r);

/* In order of names; built-in ones too. */
size_t vf_registry_n_classes(const struct vf_registry *r);
const struct vf_class *vf_registry_class_at(const struct vf_registry *r, size_t i);
const struct vf_class *vf_registry_class(const struct vf_registry *r,
                                         const char *name); /* or NULL */
size_t vf_registry_n_assets(const struct vf_registry *r);
const struct vf_asset *vf_registry_asset_at(const struct vf_registry *r, size_t i);
const struct vf_asset *vf_registry_asset(const struct vf_registry *r,
                                         const char *name); /* or NULL */
/* The class of specs that name vmm and no class; never NULL. */
const struct vf_class *vf_registry_default(const struct vf_registry *r, enum vf_spec_vmm vmm);
/* The host's binary, of classes that pin none; NULL: the VMM needs none, or there is none. */
const char *vf_registry_binary(const struct vf_registry *r, enum vf_spec_vmm vmm);
/* Whether a class here uses the digest on this host. */
bool vf_registry_uses(const struct vf_registry *r, const char *sha256);

/* --- changing it: each writes or removes DIR/classes/NAME.json (or assets/) as one, if the set that results is valid,
 * and gives that set. Blocking; one caller at a time. VF_NOT_FOUND to remove what is not there; VF_CONFLICT if a class
 * still names the asset. */
int vf_registry_put_class(const struct vf_registry_config *cfg, const struct vf_class *c,
                          struct vf_registry **ret, struct vf_error *err);
int vf_registry_remove_class(const struct vf_registry_config *cfg, const char *name,
                             struct vf_registry **ret, struct vf_error *err);
int vf_registry_put_asset(const struct vf_registry_config *cfg, const struct vf_asset *a,
                          struct vf_registry **ret, struct vf_error *err);
int vf_registry_remove_asset(const struct vf_registry_config *cfg, const char *name,
                             struct vf_registry **ret, struct vf_error *err);

/* --- what a spec runs with */
#define VF_RUNTIME_MAX_ASSETS 4
struct vf_runtime {
    char *class_name;
    int vmm;                      /* enum vf_spec_vmm */
    char *binary;                 /* absolute; NULL: the VMM has none (null) */
    char *kernel, *initrd, *root; /* absolute; NULL: none. The spec's own before the class's */
    int root_format;              /* enum vf_image_format; valid if there is a root */
    struct vf_class_options options;
};
/* Fills in what the spec leaves to its class (vf_spec_settle). VF_NOT_FOUND: no such class; VF_INVALID_ARGUMENT: it is of
 * another VMM than the spec says, which can't do what the spec wants, or neither of them has a kernel. Quick. */
int vf_registry_settle(const struct vf_registry *r, struct vf_spec *spec, struct vf_error *err);
/* The one that spec names or gets by default; NULL: there is no such class. */
const struct vf_class *vf_registry_class_of(const struct vf_registry *r,
                                            const struct vf_spec *spec);
/* VF_NOT_FOUND: the spec's class pins no binary, and the host has none. Quick. */
int vf_registry_need_binary(const struct vf_registry *r, const struct vf_spec *spec,
                            struct vf_error *err);
/* The assets that spec needs on this host: pointers into r. VF_NOT_FOUND: no such class. */
int vf_registry_assets_of(const struct vf_registry *r, const struct vf_spec *spec,
                          const struct vf_asset *ret[VF_RUNTIME_MAX_ASSETS], int *ret_n,
                          struct vf_error *err);
/* Blocking: what is pinned is hashed, unless it was before and has not changed since. VF_NOT_FOUND: the class, the host's
 * binary, or an asset that was not fetched; VF_CORRUPT: an asset's file is not what was pinned; the hint says what to do.
 * store may be NULL if no class pins anything. */
int vf_registry_resolve(const struct vf_registry *r, struct vf_asset_store *store,
                        const struct vf_spec *spec, struct vf_runtime *ret, struct vf_error *err);
void vf_runtime_free(struct vf_runtime *rt);

#endif

/* What tests of runtime classes in the factory share: a factory with a registry and a store, classes and assets put into
 * it, and builds whose stages are seen.
 *
 *     struct cls c;
 *     cls_open(&c);
 *     cls_put_file_asset(&c, "guest", "kernel", sup_guest_file("tiny.elf"));
 *     cls_put_pinned(&c, "sandboxes", "qemu", "\"kernel\":\"guest\"");
 *     struct vf_spec spec = cls_tiny("sandboxes", VF_ACCEL_TCG);
 *     cls_without_kernel(&spec);
 *     struct vf_generation *gen = cls_build(&c, &spec);
 *     …
 *     cls_close(&c);
 */
#ifndef VF_TESTS_E2E_CLASSES_SUPPORT_H
#define VF_TESTS_E2E_CLASSES_SUPPORT_H

#include <limits.h>
#include "tests/e2e/factory_support.h"

struct cls {
    struct fac f;
    char config[100], store_path[100];
    struct vf_registry_config cfg;
    struct vf_registry *reg;
    struct vf_asset_store *store;
};

void cls_open(struct cls *c);
void cls_close(struct cls *c);

/* Makes reg, which it owns then, the factory's. */
void cls_take(struct cls *c, struct vf_registry *reg);
void cls_put_class(struct cls *c, const char *text);
/* An asset of a URL; its digest is that of the file `like`. */
void cls_put_asset(struct cls *c, const char *name, const char *kind, const char *url,
                   const char *like);
void cls_put_file_asset(struct cls *c, const char *name, const char *kind, const char *path);
/* A class of vmm with these assets ("\"vmm\":\"a\"") and no more. */
void cls_put_pinned(struct cls *c, const char *name, const char *vmm, const char *assets);
/* Where the store has what has the digest of the file `like`; "": nowhere. */
void cls_stored_path(const struct cls *c, const char *like, char ret[PATH_MAX]);

/* "tiny", of a class; free it with vf_spec_free. */
struct vf_spec cls_tiny(const char *class_name, enum vf_accel accel);
void cls_without_kernel(struct vf_spec *spec);
/* Must succeed. */
struct vf_generation *cls_build(struct cls *c, const struct vf_spec *spec);
/* The stages of the last one, each with a blank behind it. */
extern char cls_stages[400];

#endif

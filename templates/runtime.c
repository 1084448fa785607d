/* From a spec to what it runs with: its class, and the paths of what the class pins. See registry.h.
 *
 *     spec -> class (by name, or its VMM's default) -> settled -> assets -> good files in the store -> a runtime
 *
 * What is missing or damaged is named, with what fetches or installs it; nothing is fetched here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/registry_internal.h"

/* Where a VMM's usual program comes from. */
static const char *const origins[VF_SPEC_VMM_COUNT] = {
    [VF_SPEC_VMM_QEMU] = "the Debian package qemu-system-x86",
    [VF_SPEC_VMM_CLOUD_HYPERVISOR] = "a release of Cloud Hypervisor",
    [VF_SPEC_VMM_FIRECRACKER] = "a release of Firecracker",
};

static int find_class(const struct vf_registry *r, const struct vf_spec *spec,
                      const struct vf_class **ret, struct vf_error *err)
{
    const struct vf_class *c = NULL;

    if (spec->class_name == NULL) {
        *ret = vf_registry_default(r, (enum vf_spec_vmm)spec->vmm);
        return 0;
    }
    c = vf_registry_class(r, spec->class_name);
    if (c == NULL) {
        vf_fail(err, VF_NOT_FOUND, "class: there is no class \"%s\"", spec->class_name);
        return vf_hint(err, "`vmfactory class ls` lists them");
    }
    *ret = c;
    return 0;
}

const struct vf_class *vf_registry_class_of(const struct vf_registry *r, const struct vf_spec *spec)
{
    const struct vf_class *c = NULL;

    return find_class(r, spec, &c, NULL) == 0 ? c : NULL;
}

/* What the class gives spec on this host: NULL what it does not. */
static struct vf_class_assets assets_for(const struct vf_class *c, const struct vf_spec *spec)
{
    const struct vf_class_assets *here = vf_class_assets_for(c, vf_host_arch());
    struct vf_class_assets a = here != NULL ? *here : (struct vf_class_assets){0};

    if (spec->class_name == NULL || spec->boot.kernel != NULL)
        a.kernel = a.initrd = NULL; /* an initrd goes with its kernel */
    if (spec->boot.initrd != NULL)
        a.initrd = NULL;
    if (spec->class_name == NULL || spec->boot.has_root)
        a.root = NULL;
    return a;
}

int vf_registry_settle(const struct vf_registry *r, struct vf_spec *spec, struct vf_error *err)
{
    const struct vf_class *c = NULL;
    struct vf_class_assets a;
    int n = find_class(r, spec, &c, err);

    if (n < 0)
        return n;
    a = assets_for(c, spec);
    n = vf_spec_settle(spec, (enum vf_spec_vmm)c->vmm, err);
    if (n < 0)
        return vf_wrap(err, "class %s", c->name);
    if (spec->boot.kernel != NULL || a.kernel != NULL)
        return 0;
    if (c->vmm != VF_SPEC_VMM_NULL || spec->boot.initrd != NULL ||
        (spec->boot.cmdline != NULL && spec->boot.cmdline[0] != '\0'))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "boot.kernel: is required: the class \"%s\" has none", c->name);
    return 0;
}

static void add(const struct vf_registry *r, const char *name,
                const struct vf_asset *ret[VF_RUNTIME_MAX_ASSETS], int *n)
{
    if (name != NULL)
        ret[(*n)++] = vf_registry_asset(r, name);
}

int vf_registry_assets_of(const struct vf_registry *r, const struct vf_spec *spec,
                          const struct vf_asset *ret[VF_RUNTIME_MAX_ASSETS], int *ret_n,
                          struct vf_error *err)
{
    const struct vf_class *c = NULL;
    struct vf_class_assets a;
    int n = find_class(r, spec, &c, err);

    if (n < 0)
        return n;
    a = assets_for(c, spec);
    *ret_n = 0;
    add(r, a.vmm, ret, ret_n);
    add(r, a.kernel, ret, ret_n);
    add(r, a.initrd, ret, ret_n);
    add(r, a.root, ret, ret_n);
    return 0;
}

/* --- paths */

static int asset_path(const struct vf_registry *r, struct vf_asset_store *store, const char *name,
                      char **ret, struct vf_error *err)
{
    const struct vf_asset *a = vf_registry_asset(r, name);
    struct vf_error inner = {0};

    if (store == NULL)
        return vf_fail(err, VF_NOT_FOUND, "asset %s: there is no store of assets", name);
    if (vf_asset_store_good_path(store, vf_asset_file_here(a)->sha256, ret, &inner) == 0)
        return 0;
    if (inner.code == VF_NOT_FOUND) {
        vf_fail(err, VF_NOT_FOUND, "asset %s: was not fetched yet", name);
        return vf_hint(err, "`vmfactory asset fetch %s` gets it", name);
    }
    if (inner.code == VF_CORRUPT && inner.hint[0] == '\0')
        vf_hint(
            &inner,
            "`vmfactory asset verify %s` moves it aside, `vmfactory asset fetch %s` gets it anew",
            name, name);
    vf_wrap(&inner, "asset %s", name);
    return vf_error_copy(err, &inner);
}

static int take_path(const struct vf_registry *r, struct vf_asset_store *store, const char *own,
                     const char *asset, char **ret, struct vf_error *err)
{
    if (own == NULL && asset != NULL)
        return asset_path(r, store, asset, ret, err);
    if (own == NULL)
        return 0;
    *ret = strdup(own);
    return *ret != NULL ? 0 : vf_fail(err, VF_NO_MEMORY, "class: no memory");
}

static int need_binary(const struct vf_registry *r, const struct vf_class *c,
                       const struct vf_class_assets *a, struct vf_error *err)
{
    enum vf_spec_vmm vmm = (enum vf_spec_vmm)c->vmm;

    if (a->vmm != NULL || vmm == VF_SPEC_VMM_NULL || vf_registry_binary(r, vmm) != NULL)
        return 0;
    vf_fail(err, VF_NOT_FOUND, "vmm: %s is not on PATH", vf_registry_program(vmm));
    return vf_hint(err, "install %s, or give its path, or name a class that pins one",
                   origins[vmm]);
}

int vf_registry_need_binary(const struct vf_registry *r, const struct vf_spec *spec,
                            struct vf_error *err)
{
    const struct vf_class *c = NULL;
    struct vf_class_assets a;
    int n = find_class(r, spec, &c, err);

    if (n < 0)
        return n;
    a = assets_for(c, spec);
    return need_binary(r, c, &a, err);
}

static int take_binary(const struct vf_registry *r, struct vf_asset_store *store,
                       const struct vf_class *c, const struct vf_class_assets *a, char **ret,
                       struct vf_error *err)
{
    int n = need_binary(r, c, a, err);

    if (n < 0)
        return n;
    return take_path(r, store,
                     a->vmm == NULL ? vf_registry_binary(r, (enum vf_spec_vmm)c->vmm) : NULL,
                     a->vmm, ret, err);
}

static int detect_format(const char *path, int *ret, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    bool qcow2;
    int n = vf_open_regular(path, "root", &fd, err);

    if (n == 0)
        n = vf_spec_image_is_qcow2(fd, path, &qcow2, err);
    if (n == 0)
        *ret = qcow2 ? VF_IMAGE_QCOW2 : VF_IMAGE_RAW;
    return n;
}

static int check_root(const struct vf_runtime *rt, struct vf_error *err)
{
    if (rt->root == NULL || rt->vmm != VF_SPEC_VMM_FIRECRACKER || rt->root_format == VF_IMAGE_RAW)
        return 0;
    return vf_fail(err, VF_INVALID_ARGUMENT,
                   "class %s: its root image is qcow2, but firecracker takes raw images only",
                   rt->class_name);
}

static int fill(const struct vf_registry *r, struct vf_asset_store *store,
                const struct vf_spec *spec, const struct vf_class *c, struct vf_runtime *rt,
                struct vf_error *err)
{
    struct vf_class_assets a = assets_for(c, spec);
    int n;

    rt->vmm = c->vmm;
    rt->options = c->options;
    rt->root_format = spec->boot.root.format;
    rt->class_name = strdup(c->name);
    if (rt->class_name == NULL)
        return vf_fail(err, VF_NO_MEMORY, "class: no memory");
    n = take_binary(r, store, c, &a, &rt->binary, err);
    if (n == 0)
        n = take_path(r, store, spec->boot.kernel, a.kernel, &rt->kernel, err);
    if (n == 0)
        n = take_path(r, store, spec->boot.initrd, a.initrd, &rt->initrd, err);
    if (n == 0)
        n = take_path(r, store, spec->boot.has_root ? spec->boot.root.image : NULL, a.root,
                      &rt->root, err);
    if (n == 0 && a.root != NULL)
        n = detect_format(rt->root, &rt->root_format, err);
    return n == 0 ? check_root(rt, err) : n;
}

int vf_registry_resolve(const struct vf_registry *r, struct vf_asset_store *store,
                        const struct vf_spec *spec, struct vf_runtime *ret, struct vf_error *err)
{
    struct vf_runtime rt = {0};
    const struct vf_class *c = NULL;
    int n = find_class(r, spec, &c, err);

    if (n == 0)
        n = fill(r, store, spec, c, &rt, err);
    if (n < 0) {
        vf_runtime_free(&rt);
        return n;
    }
    *ret = rt;
    return 0;
}

void vf_runtime_free(struct vf_runtime *rt)
{
    if (rt == NULL)
        return;
    free(rt->class_name);
    free(rt->binary);
    free(rt->kernel);
    free(rt->initrd);
    free(rt->root);
    *rt = (struct vf_runtime){0};
}

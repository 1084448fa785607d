/* Loading the registry, and looking into it. See registry.h.
 *
 *     assets/NAME.json -> each parsed ---+
 *     classes/NAME.json -> each parsed --+-> sorted -> built-in classes added -> checked against each other -> a set
 *
 * Whatever is wrong anywhere, and there is no set: a file that can't be read or is no NAME.json, a name that is not
 * its file's, an asset that is not there or is of another kind, two defaults, nothing for this host's architecture.
 * Hidden files (an editor's, a crash's) are passed over.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/programs.h"
#include "templates/registry_internal.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define SUFFIX ".json"

const char *const vf_registry_dirs[] = {"classes", "assets"};
static_assert(COUNT(vf_registry_dirs) == VF_REGISTRY_ASSET + 1, "a directory for each kind");

/* A VMM's usual program. */
static const char *const programs[VF_SPEC_VMM_COUNT] = {
    [VF_SPEC_VMM_QEMU] = "qemu-system-x86_64",
    [VF_SPEC_VMM_CLOUD_HYPERVISOR] = "cloud-hypervisor",
    [VF_SPEC_VMM_FIRECRACKER] = "firecracker",
};

static int no_memory(struct vf_error *err)
{
    return vf_fail(err, VF_NO_MEMORY, "classes: no memory");
}

/* --- the set under construction */

static int add_class(struct vf_registry *r, struct vf_class *c, struct vf_error *err)
{
    struct vf_class *v;

    if (r->n_classes >= VF_REGISTRY_MAX)
        return vf_fail(err, VF_INVALID_ARGUMENT, "more than %d classes", VF_REGISTRY_MAX);
    v = (struct vf_class *)realloc(r->classes, (r->n_classes + 1) * sizeof(*v));
    if (v == NULL)
        return no_memory(err);
    r->classes = v;
    v[r->n_classes++] = *c;
    memset(c, 0, sizeof(*c));
    return 0;
}

static int add_asset(struct vf_registry *r, struct vf_asset *a, struct vf_error *err)
{
    struct vf_asset *v;

    if (r->n_assets >= VF_REGISTRY_MAX)
        return vf_fail(err, VF_INVALID_ARGUMENT, "more than %d assets", VF_REGISTRY_MAX);
    v = (struct vf_asset *)realloc(r->assets, (r->n_assets + 1) * sizeof(*v));
    if (v == NULL)
        return no_memory(err);
    r->assets = v;
    v[r->n_assets++] = *a;
    memset(a, 0, sizeof(*a));
    return 0;
}

static int same_name(const char *inside, const char *outside, const char *where,
                     struct vf_error *err)
{
    if (strcmp(inside, outside) == 0)
        return 0;
    vf_fail(err, VF_INVALID_ARGUMENT,
            "%s: name: is \"%s\", but the file is called "
            "\"%s" SUFFIX "\"",
            where, inside, outside);
    return vf_hint(err, "both must be the same");
}

static int add_text(struct vf_registry *r, enum vf_registry_kind kind, const char *name,
                    const char *text, size_t len, const char *where, struct vf_error *err)
{
    struct vf_class class;
    struct vf_asset asset;
    int n;

    if (kind == VF_REGISTRY_CLASS) {
        n = vf_class_parse(text, len, where, &class, err);
        if (n < 0)
            return n;
        n = same_name(class.name, name, where, err);
        if (n == 0)
            n = add_class(r, &class, err);
        vf_class_free(&class);
        return n;
    }
    n = vf_asset_parse(text, len, where, &asset, err);
    if (n < 0)
        return n;
    n = same_name(asset.name, name, where, err);
    if (n == 0)
        n = add_asset(r, &asset, err);
    vf_asset_free(&asset);
    return n;
}

/* --- reading the directories */

static int add_file(struct vf_registry *r, enum vf_registry_kind kind, int dirfd, const char *dir,
                    const char *file, struct vf_registry_change *change, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL, *where = NULL, *name = NULL;
    size_t len = 0, n = strlen(file);
    int ret;

    if (asprintf(&where, "%s/%s", dir, file) < 0) {
        where = NULL;
        return no_memory(err);
    }
    if (n <= strlen(SUFFIX) || strcmp(file + n - strlen(SUFFIX), SUFFIX) != 0) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: is not called NAME" SUFFIX, where);
        return vf_hint(err, "only definitions may lie there");
    }
    name = strndup(file, n - strlen(SUFFIX));
    if (name == NULL)
        return no_memory(err);
    if (change != NULL && change->kind == kind && strcmp(change->name, name) == 0) {
        change->found = true;
        return 0;
    }
    ret = vf_read_file(dirfd, file, VF_CLASS_MAX_TEXT, &text, &len, err);
    if (ret < 0)
        return vf_wrap(err, "%s", dir);
    return add_text(r, kind, name, text, len, where, err);
}

static int add_dir(struct vf_registry *r, enum vf_registry_kind kind, const char *base,
                   struct vf_registry_change *change, struct vf_error *err)
{
    VF_CLEANUP_FREE char *dir = NULL;
    VF_CLEANUP_FD int fd = -1;
    struct vf_names names;
    int ret;

    if (asprintf(&dir, "%s/%s", base, vf_registry_dirs[kind]) < 0) {
        dir = NULL;
        return no_memory(err);
    }
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return vf_fail_errno(err, errno, "%s: open", dir);
    ret = vf_dir_names(fd, &names, err);
    if (ret < 0)
        return vf_wrap(err, "%s", dir);
    for (size_t i = 0; i < names.n && ret == 0; i++) {
        if (names.v[i][0] != '.')
            ret = add_file(r, kind, fd, dir, names.v[i], change, err);
    }
    vf_names_free(&names);
    return ret;
}

static int add_all(struct vf_registry *r, enum vf_registry_kind kind,
                   const struct vf_registry_config *cfg, struct vf_registry_change *change,
                   struct vf_error *err)
{
    char where[VF_CLASS_NAME_MAX + 16];
    int ret = cfg->dir != NULL ? add_dir(r, kind, cfg->dir, change, err) : 0;

    if (ret < 0 || change == NULL || change->kind != kind || change->text == NULL)
        return ret;
    snprintf(where, sizeof(where), "%s/%s", vf_registry_dirs[kind], change->name);
    return add_text(r, kind, change->name, change->text, strlen(change->text), where, err);
}

/* --- checking the set */

static int compare_classes(const void *a, const void *b)
{
    return strcmp(((const struct vf_class *)a)->name, ((const struct vf_class *)b)->name);
}

static int compare_assets(const void *a, const void *b)
{
    return strcmp(((const struct vf_asset *)a)->name, ((const struct vf_asset *)b)->name);
}

static void sort(struct vf_registry *r)
{
    if (r->n_classes > 0)
        qsort(r->classes, r->n_classes, sizeof(*r->classes), compare_classes);
    if (r->n_assets > 0)
        qsort(r->assets, r->n_assets, sizeof(*r->assets), compare_assets);
}

static const struct vf_class *default_of(const struct vf_registry *r, int vmm)
{
    for (size_t i = 0; i < r->n_classes; i++) {
        if (r->classes[i].is_default && r->classes[i].vmm == vmm)
            return &r->classes[i];
    }
    return NULL;
}

/* A class for each VMM that has no default of its own. */
static int add_builtin(struct vf_registry *r, struct vf_error *err)
{
    for (int vmm = 0; vmm < VF_SPEC_VMM_COUNT; vmm++) {
        struct vf_class c;
        int ret;

        if (default_of(r, vmm) != NULL)
            continue;
        vf_class_init(&c);
        c.name = strdup(vf_spec_vmm_names[vmm]);
        c.vmm = vmm;
        c.is_default = c.builtin = true;
        ret = c.name != NULL ? add_class(r, &c, err) : no_memory(err);
        vf_class_free(&c);
        if (ret < 0)
            return ret;
    }
    return 0;
}

static const struct vf_asset_file *file_for(const struct vf_asset *a, const char *arch)
{
    const struct vf_asset_file *f =
        strcmp(arch, "x86_64") == 0 ? &a->files.x86_64 : &a->files.aarch64;

    return f->url != NULL ? f : NULL;
}

static int check_asset(const struct vf_registry *r, const char *arch, const char *field,
                       const char *name, enum vf_asset_kind kind, struct vf_error *err)
{
    const struct vf_asset *a;

    if (name == NULL)
        return 0;
    a = vf_registry_asset(r, name);
    if (a == NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT, "assets.%s.%s: there is no asset \"%s\"", arch, field,
                name);
        return vf_hint(err, "define it in assets/%s.json", name);
    }
    if (a->kind != (int)kind)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "assets.%s.%s: the asset \"%s\" is of kind \"%s\", must be \"%s\"", arch,
                       field, name, vf_asset_kind_names[a->kind], vf_asset_kind_names[kind]);
    if (file_for(a, arch) == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "assets.%s.%s: the asset \"%s\" has no file for %s", arch, field, name,
                       arch);
    if (file_for(a, arch)->sha256 == NULL) /* nothing unpinned, whatever let it in */
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "assets.%s.%s: the asset \"%s\" has no sha256 for %s", arch, field, name,
                       arch);
    return 0;
}

static int check_arch(const struct vf_registry *r, const struct vf_class_assets *a,
                      const char *arch, struct vf_error *err)
{
    int ret = check_asset(r, arch, "vmm", a->vmm, VF_ASSET_KIND_VMM, err);

    if (ret == 0)
        ret = check_asset(r, arch, "kernel", a->kernel, VF_ASSET_KIND_KERNEL, err);
    if (ret == 0)
        ret = check_asset(r, arch, "initrd", a->initrd, VF_ASSET_KIND_INITRD, err);
    return ret == 0 ? check_asset(r, arch, "root", a->root, VF_ASSET_KIND_IMAGE, err) : ret;
}

static int check_class(const struct vf_registry *r, const struct vf_class *c, struct vf_error *err)
{
    const struct vf_class *other = default_of(r, c->vmm);
    const char *host = vf_host_arch();
    int ret = 0;

    if (c->assets.has_x86_64)
        ret = check_arch(r, &c->assets.x86_64, "x86_64", err);
    if (ret == 0 && c->assets.has_aarch64)
        ret = check_arch(r, &c->assets.aarch64, "aarch64", err);
    if (ret < 0)
        return ret;
    if ((c->assets.has_x86_64 || c->assets.has_aarch64) && vf_class_assets_for(c, host) == NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT, "assets: there are none for this host's %s", host);
        return vf_hint(err, "add assets.%s, or keep the class off this host", host);
    }
    if (c->is_default && other != c) {
        vf_fail(err, VF_INVALID_ARGUMENT, "default: \"%s\" is the default class of %s already",
                other->name, vf_spec_vmm_names[c->vmm]);
        return vf_hint(err, "only one of both may say \"default\": true");
    }
    return 0;
}

static int check_set(const struct vf_registry *r, const char *dir, struct vf_error *err)
{
    for (size_t i = 0; i < r->n_classes; i++) {
        const struct vf_class *c = &r->classes[i];

        if (check_class(r, c, err) < 0)
            return vf_wrap(err, "%s%s%s/%s" SUFFIX, dir != NULL ? dir : "", dir != NULL ? "/" : "",
                           vf_registry_dirs[VF_REGISTRY_CLASS], c->name);
    }
    return 0;
}

/* --- loading */

/* A VMM that is not there is an error when it is needed. */
static int take_binaries(struct vf_registry *r, const struct vf_registry_config *cfg,
                         struct vf_error *err)
{
    for (int i = 0; i < VF_SPEC_VMM_COUNT; i++) {
        if (cfg->binaries[i] == NULL && programs[i] != NULL) {
            vf_find_program(programs[i], programs[i], &r->binaries[i], NULL);
        } else if (cfg->binaries[i] != NULL) {
            r->binaries[i] = strdup(cfg->binaries[i]);
            if (r->binaries[i] == NULL)
                return no_memory(err);
        }
    }
    return 0;
}

int vf_registry_load_changed(const struct vf_registry_config *cfg,
                             struct vf_registry_change *change, struct vf_registry **ret,
                             struct vf_error *err)
{
    struct vf_registry *r = (struct vf_registry *)calloc(1, sizeof(*r));
    int n;

    if (r == NULL)
        return no_memory(err);
    atomic_init(&r->refs, 1);
    n = take_binaries(r, cfg, err);
    if (n == 0)
        n = add_all(r, VF_REGISTRY_ASSET, cfg, change, err);
    if (n == 0)
        n = add_all(r, VF_REGISTRY_CLASS, cfg, change, err);
    if (n == 0)
        n = add_builtin(r, err);
    if (n == 0) {
        sort(r);
        n = check_set(r, cfg->dir, err);
    }
    if (n < 0) {
        vf_registry_unref(r);
        return n;
    }
    *ret = r;
    return 0;
}

int vf_registry_load(const struct vf_registry_config *cfg, struct vf_registry **ret,
                     struct vf_error *err)
{
    return vf_registry_load_changed(cfg, NULL, ret, err);
}

struct vf_registry *vf_registry_ref(struct vf_registry *r)
{
    atomic_fetch_add(&r->refs, 1);
    return r;
}

void vf_registry_unref(struct vf_registry *r)
{
    if (r == NULL || atomic_fetch_sub(&r->refs, 1) != 1)
        return;
    for (size_t i = 0; i < r->n_classes; i++)
        vf_class_free(&r->classes[i]);
    for (size_t i = 0; i < r->n_assets; i++)
        vf_asset_free(&r->assets[i]);
    for (int i = 0; i < VF_SPEC_VMM_COUNT; i++)
        free(r->binaries[i]);
    free(r->classes);
    free(r->assets);
    free(r);
}

bool vf_registry_shared(const struct vf_registry *r)
{
    return atomic_load(&r->refs) > 1;
}

/* --- looking */

size_t vf_registry_n_classes(const struct vf_registry *r)
{
    return r->n_classes;
}

const struct vf_class *vf_registry_class_at(const struct vf_registry *r, size_t i)
{
    return &r->classes[i];
}

const struct vf_class *vf_registry_class(const struct vf_registry *r, const char *name)
{
    for (size_t i = 0; i < r->n_classes; i++) {
        if (strcmp(r->classes[i].name, name) == 0)
            return &r->classes[i];
    }
    return NULL;
}

const struct vf_class *vf_registry_default(const struct vf_registry *r, enum vf_spec_vmm vmm)
{
    return default_of(r, (int)vmm);
}

const char *vf_registry_binary(const struct vf_registry *r, enum vf_spec_vmm vmm)
{
    return r->binaries[vmm];
}

const char *vf_registry_program(enum vf_spec_vmm vmm)
{
    return programs[vmm];
}

size_t vf_registry_n_assets(const struct vf_registry *r)
{
    return r->n_assets;
}

const struct vf_asset *vf_registry_asset_at(const struct vf_registry *r, size_t i)
{
    return &r->assets[i];
}

const struct vf_asset *vf_registry_asset(const struct vf_registry *r, const char *name)
{
    for (size_t i = 0; i < r->n_assets; i++) {
        if (strcmp(r->assets[i].name, name) == 0)
            return &r->assets[i];
    }
    return NULL;
}

bool vf_registry_uses(const struct vf_registry *r, const char *sha256)
{
    for (size_t i = 0; i < r->n_classes; i++) {
        const struct vf_class_assets *a = vf_class_assets_for(&r->classes[i], vf_host_arch());
        const char *names[] = {a ? a->vmm : NULL, a ? a->kernel : NULL, a ? a->initrd : NULL,
                               a ? a->root : NULL};

        for (size_t k = 0; k < COUNT(names); k++) {
            const struct vf_asset *asset = names[k] != NULL ? vf_registry_asset(r, names[k]) : NULL;

            if (asset != NULL && strcmp(vf_asset_file_here(asset)->sha256, sha256) == 0)
                return true;
        }
    }
    return false;
}

/* Changing the registry's files, one definition at a time. See registry.h.
 *
 *     the set as it would be, loaded and checked -> the file written (or removed), made to last -> that set
 *
 * A change that would not load is refused before anything is written. A definition that is broken on disk can be
 * replaced or removed: it is not read then. A crash leaves the old file or the new one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/registry_internal.h"

#define FILE_NAME_SIZE (VF_CLASS_NAME_MAX + sizeof(".json"))

static const char *const kinds[] = {"class", "asset"};

static int open_kind(const char *dir, enum vf_registry_kind kind, int make, int *ret_fd,
                     struct vf_error *err)
{
    VF_CLEANUP_FREE char *path = NULL;

    if (asprintf(&path, "%s/%s", dir, vf_registry_dirs[kind]) < 0) {
        path = NULL;
        return vf_fail(err, VF_NO_MEMORY, "%s: no memory", dir);
    }
    return vf_open_dir(path, make, 0755, ret_fd, err);
}

static int put(const struct vf_registry_config *cfg, enum vf_registry_kind kind, const char *name,
               const char *text, struct vf_registry **ret, struct vf_error *err)
{
    struct vf_registry_change change = {.kind = kind, .name = name, .text = text};
    struct vf_registry *r = NULL;
    VF_CLEANUP_FD int fd = -1;
    char file[FILE_NAME_SIZE];
    int n;

    if (text == NULL)
        return vf_fail(err, VF_NO_MEMORY, "%s %s: no memory", kinds[kind], name);
    if (cfg->dir == NULL)
        return vf_fail(err, VF_UNSUPPORTED, "%s %s: there is no directory to keep it in",
                       kinds[kind], name);
    n = vf_registry_load_changed(cfg, &change, &r, err);
    if (n == 0)
        n = open_kind(cfg->dir, kind, 1, &fd, err);
    if (n == 0) {
        snprintf(file, sizeof(file), "%s.json", name);
        /* An asset's URL may hold a signature. */
        n = vf_write_file(fd, file, text, strlen(text), kind == VF_REGISTRY_ASSET ? 0600 : 0644,
                          err);
    }
    if (n < 0) {
        vf_registry_unref(r);
        return n;
    }
    *ret = r;
    return 0;
}

static int unlink_file(const char *dir, enum vf_registry_kind kind, const char *name,
                       struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    char file[FILE_NAME_SIZE];
    int n = open_kind(dir, kind, 0, &fd, err);

    if (n < 0)
        return n;
    snprintf(file, sizeof(file), "%s.json", name);
    if (unlinkat(fd, file, 0) != 0)
        return vf_fail_errno(err, errno, "%s %s: remove its file", kinds[kind], name);
    /* EINVAL: a file system that does not sync directories. */
    if (fsync(fd) != 0 && errno != EINVAL)
        return vf_fail_errno(err, errno, "%s %s: fsync the directory", kinds[kind], name);
    return 0;
}

static int not_there(enum vf_registry_kind kind, const char *name, struct vf_error *err)
{
    return vf_fail(err, VF_NOT_FOUND, "there is no %s \"%.64s\"", kinds[kind], name);
}

/* Its file is passed over; what still names it is then refused. */
static int remove_one(const struct vf_registry_config *cfg, enum vf_registry_kind kind,
                      const char *name, struct vf_registry **ret, struct vf_error *err)
{
    struct vf_registry_change change = {.kind = kind, .name = name};
    struct vf_registry *r = NULL;
    int n;

    if (cfg->dir == NULL || !vf_asset_name_ok(name))
        return not_there(kind, name, err);
    n = vf_registry_load_changed(cfg, &change, &r, err);
    if (n == 0)
        n = change.found ? unlink_file(cfg->dir, kind, name, err) : not_there(kind, name, err);
    if (n < 0) {
        vf_registry_unref(r);
        return n;
    }
    *ret = r;
    return 0;
}

int vf_registry_put_class(const struct vf_registry_config *cfg, const struct vf_class *c,
                          struct vf_registry **ret, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL;
    int n = vf_class_check(c, err);

    if (n < 0)
        return n;
    text = vf_class_encode(c);
    return put(cfg, VF_REGISTRY_CLASS, c->name, text, ret, err);
}

int vf_registry_remove_class(const struct vf_registry_config *cfg, const char *name,
                             struct vf_registry **ret, struct vf_error *err)
{
    for (int i = 0; vf_spec_vmm_names[i] != NULL; i++) {
        if (strcmp(name, vf_spec_vmm_names[i]) == 0)
            return vf_fail(err, VF_CONFLICT, "class %s: is built in", name);
    }
    return remove_one(cfg, VF_REGISTRY_CLASS, name, ret, err);
}

int vf_registry_put_asset(const struct vf_registry_config *cfg, const struct vf_asset *a,
                          struct vf_registry **ret, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL;

    if (a->name == NULL || !vf_asset_name_ok(a->name))
        return vf_fail(err, VF_INVALID_ARGUMENT, "name: is no name for an asset");
    text = vf_asset_encode(a);
    return put(cfg, VF_REGISTRY_ASSET, a->name, text, ret, err);
}

static bool names(const struct vf_class_assets *a, const char *name)
{
    return (a->vmm != NULL && strcmp(a->vmm, name) == 0) ||
           (a->kernel != NULL && strcmp(a->kernel, name) == 0) ||
           (a->initrd != NULL && strcmp(a->initrd, name) == 0) ||
           (a->root != NULL && strcmp(a->root, name) == 0);
}

int vf_registry_remove_asset(const struct vf_registry_config *cfg, const char *name,
                             struct vf_registry **ret, struct vf_error *err)
{
    struct vf_registry *now;
    bool used = false;

    /* Said in other words than those of a set that does not load. A set that does not load now is let pass. */
    if (vf_registry_load(cfg, &now, NULL) == 0) {
        for (size_t i = 0; i < now->n_classes && !used; i++) {
            const struct vf_class *c = &now->classes[i];

            used = names(&c->assets.x86_64, name) || names(&c->assets.aarch64, name);
            if (used)
                vf_fail(err, VF_CONFLICT, "asset %s: class \"%s\" still names it", name, c->name);
        }
        vf_registry_unref(now);
    }
    if (used) {
        vf_hint(err, "change or remove the class first");
        return vf_code_errno(VF_CONFLICT);
    }
    return remove_one(cfg, VF_REGISTRY_ASSET, name, ret, err);
}

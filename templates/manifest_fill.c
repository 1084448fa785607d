/* Filling in a manifest: files, assets, VMM, host. See manifest.h. */
#include "templates/manifest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "templates/digest.h"
#include "templates/host.h"

static int no_memory(struct vf_error *err)
{
    return vf_fail(err, VF_NO_MEMORY, VF_MANIFEST_NAME ": no memory");
}

/* Room for one more item of size bytes; NULL without memory. The array grows by one only when the
 * caller says so. */
static void *one_more(struct vf_json_array *a, size_t size)
{
    void *items = realloc(a->items, (a->n + 1) * size);

    if (items == NULL)
        return NULL;
    a->items = items;
    memset((char *)items + a->n * size, 0, size);
    return (char *)items + a->n * size;
}

int vf_manifest_add_file(struct vf_manifest *m, const char *name, int64_t size, const char *sha256,
                         struct vf_error *err)
{
    VF_CLEANUP_FREE char *name_copy = NULL, *sha256_copy = NULL;
    struct vf_manifest_file *f;

    if (!vf_manifest_file_name_ok(name))
        return vf_fail(err, VF_INVALID_ARGUMENT, "\"%.64s\" is no name for a generation's file",
                       name);
    if (vf_manifest_file(m, name) != NULL)
        return vf_fail(err, VF_CONFLICT, "the file \"%s\" is listed already", name);
    name_copy = strdup(name);
    sha256_copy = sha256 != NULL ? strdup(sha256) : NULL;
    if (name_copy == NULL || (sha256 != NULL && sha256_copy == NULL))
        return no_memory(err);
    f = (struct vf_manifest_file *)one_more(&m->files, sizeof(*f));
    if (f == NULL)
        return no_memory(err);
    f->name = vf_steal_str(&name_copy);
    f->size = size;
    f->sha256 = vf_steal_str(&sha256_copy);
    m->files.n++;
    return 0;
}

int vf_manifest_set_vmm(struct vf_manifest *m, const char *name, const char *version,
                        const char *path, enum vf_accel accel, struct vf_error *err)
{
    VF_CLEANUP_FREE char *name_copy = strdup(name), *version_copy = strdup(version);
    VF_CLEANUP_FREE char *path_copy = NULL, *sha256 = NULL;
    char hex[VF_SHA256_HEX];
    int64_t size = 0;
    int r;

    if (path != NULL) {
        r = vf_digest_path(path, "VMM", &size, hex, NULL, err);
        if (r < 0)
            return r;
        path_copy = strdup(path);
        sha256 = strdup(hex);
    }
    if (name_copy == NULL || version_copy == NULL ||
        (path != NULL && (path_copy == NULL || sha256 == NULL)))
        return no_memory(err);
    free(m->vmm.name);
    free(m->vmm.version);
    free(m->vmm.path);
    free(m->vmm.sha256);
    m->vmm.name = vf_steal_str(&name_copy);
    m->vmm.version = vf_steal_str(&version_copy);
    m->vmm.path = vf_steal_str(&path_copy);
    m->vmm.sha256 = vf_steal_str(&sha256);
    m->vmm.size = size;
    m->vmm.accel = (int)accel;
    return 0;
}

static int add_asset(struct vf_manifest *m, enum vf_asset_role role, const char *path,
                     struct vf_error *err)
{
    VF_CLEANUP_FREE char *path_copy = NULL, *sha256 = NULL;
    struct vf_manifest_asset *a;
    char hex[VF_SHA256_HEX];
    int64_t size;
    int r;

    if (path == NULL)
        return 0;
    r = vf_digest_path(path, vf_asset_role_names[role], &size, hex, NULL, err);
    if (r < 0)
        return r;
    path_copy = strdup(path);
    sha256 = strdup(hex);
    if (path_copy == NULL || sha256 == NULL)
        return no_memory(err);
    a = (struct vf_manifest_asset *)one_more(&m->assets, sizeof(*a));
    if (a == NULL)
        return no_memory(err);
    a->role = (int)role;
    a->path = vf_steal_str(&path_copy);
    a->size = size;
    a->sha256 = vf_steal_str(&sha256);
    m->assets.n++;
    return 0;
}

int vf_manifest_set_spec(struct vf_manifest *m, const struct vf_spec *spec, struct vf_error *err)
{
    VF_CLEANUP_FREE char *name = strdup(spec->name);
    struct vf_spec copy;
    int r;

    if (name == NULL)
        return no_memory(err);
    if (m->assets.n != 0)
        return vf_fail(err, VF_CONFLICT, VF_MANIFEST_NAME ": the spec is set already");
    r = vf_spec_copy(spec, &copy, err);
    if (r < 0)
        return r;
    vf_spec_free(&m->spec);
    m->spec = copy;
    free(m->template_name);
    m->template_name = vf_steal_str(&name);
    m->memory_size = (int64_t)vf_spec_memory_bytes(spec);
    r = add_asset(m, VF_ASSET_KERNEL, spec->boot.kernel, err);
    if (r == 0)
        r = add_asset(m, VF_ASSET_INITRD, spec->boot.initrd, err);
    if (r == 0 && spec->boot.has_root)
        r = add_asset(m, VF_ASSET_ROOT, spec->boot.root.image, err);
    return r;
}

int vf_manifest_set_runtime(struct vf_manifest *m, const struct vf_runtime *rt, const char *version,
                            enum vf_accel accel, struct vf_error *err)
{
    const char *paths[] = {rt->kernel, rt->initrd, rt->root};
    int r = vf_manifest_set_vmm(m, vf_spec_vmm_names[rt->vmm], version, rt->binary, accel, err);

    for (int role = VF_ASSET_KERNEL; r == 0 && role <= VF_ASSET_ROOT; role++) {
        if (vf_manifest_asset(m, (enum vf_asset_role)role) == NULL)
            r = add_asset(m, (enum vf_asset_role)role, paths[role], err);
    }
    if (r < 0)
        return r;
    free(m->vmm.class_name);
    m->vmm.class_name = strdup(rt->class_name);
    m->vmm.sandbox = rt->options.sandbox;
    return m->vmm.class_name != NULL ? 0 : no_memory(err);
}

int vf_manifest_set_host(struct vf_manifest *m, struct vf_error *err)
{
    VF_CLEANUP_FREE char *model = NULL, *flags = NULL, *kernel = NULL;
    struct vf_host host;
    int r = vf_host_read(&host, err);

    if (r < 0)
        return r;
    model = strdup(host.cpu_model);
    flags = strdup(host.cpu_flags_sha256);
    kernel = strdup(host.kernel);
    if (model == NULL || flags == NULL || kernel == NULL)
        return no_memory(err);
    free(m->host.cpu_model);
    free(m->host.cpu_flags_sha256);
    free(m->host.kernel);
    m->host.cpu_model = vf_steal_str(&model);
    m->host.cpu_flags_sha256 = vf_steal_str(&flags);
    m->host.kernel = vf_steal_str(&kernel);
    return 0;
}

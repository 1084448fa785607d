/* Is a generation what its manifest says, and is the world around it still the one that it was
 * made in? See store_internal.h.
 *
 * Damage of the generation itself is VF_CORRUPT and means: build again. A kernel, image, VMM or
 * CPU that is another now is VF_CONFLICT: the generation is whole, but must not be used here. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/host.h"
#include "templates/store_internal.h"

void vf_watches_free(struct vf_watches *w)
{
    for (size_t i = 0; i < w->n; i++)
        free(w->v[i].path);
    free(w->v);
    w->v = NULL;
    w->n = 0;
}

static int watch(struct vf_watches *w, const char *path, bool in_dir, const struct vf_stamp *stamp,
                 struct vf_error *err)
{
    VF_CLEANUP_FREE char *copy = strdup(path);
    struct vf_watch *v = (struct vf_watch *)realloc(w->v, (w->n + 1) * sizeof(*v));

    if (v != NULL)
        w->v = v;
    if (copy == NULL || v == NULL)
        return vf_fail(err, VF_NO_MEMORY, "%s: no memory", path);
    v[w->n].path = vf_steal_str(&copy);
    v[w->n].in_dir = in_dir;
    v[w->n].stamp = *stamp;
    w->n++;
    return 0;
}

/* --- inside */

static const struct vf_manifest_file *files_of(const struct vf_manifest *m)
{
    return (const struct vf_manifest_file *)m->files.items;
}

static int check_size(int dirfd, const struct vf_manifest_file *f, struct vf_error *err)
{
    struct stat st;

    if (fstatat(dirfd, f->name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT)
            return vf_fail(err, VF_CORRUPT, "%s: is missing", f->name);
        return vf_fail_errno(err, errno, "%s: stat", f->name);
    }
    if (!S_ISREG(st.st_mode))
        return vf_fail(err, VF_CORRUPT, "%s: is not a regular file", f->name);
    if (st.st_size != f->size)
        return vf_fail(err, VF_CORRUPT, "%s: is %" PRId64 " bytes long, must be %" PRId64, f->name,
                       (int64_t)st.st_size, f->size);
    return 0;
}

int vf_verify_listing(int dirfd, const struct vf_manifest *m, struct vf_error *err)
{
    struct vf_names names;
    int r = vf_dir_names(dirfd, &names, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < names.n && r == 0; i++) {
        const char *name = names.v[i];

        if (strcmp(name, VF_MANIFEST_NAME) != 0 && strcmp(name, VF_QUARANTINED_NAME) != 0 &&
            vf_manifest_file(m, name) == NULL)
            r = vf_fail(err, VF_CORRUPT, "%s: is not in the manifest", name);
    }
    vf_names_free(&names);
    for (size_t i = 0; i < m->files.n && r == 0; i++)
        r = check_size(dirfd, &files_of(m)[i], err);
    return r;
}

static int verify_file(int dirfd, const struct vf_manifest_file *f, struct vf_watches *w,
                       struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct vf_stamp stamp;
    char hex[VF_SHA256_HEX];
    int64_t size;
    int r;

    fd = openat(dirfd, f->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return vf_fail_errno(err, errno, "%s: open", f->name);
    r = vf_digest_fd(fd, f->name, &size, hex, &stamp, err);
    if (r < 0)
        return r;
    if (size != f->size)
        return vf_fail(err, VF_CORRUPT, "%s: is %" PRId64 " bytes long, must be %" PRId64, f->name,
                       size, f->size);
    if (strcmp(hex, f->sha256) != 0)
        return vf_fail(err, VF_CORRUPT, "%s: its SHA-256 is %s, must be %s", f->name, hex,
                       f->sha256);
    return watch(w, f->name, true, &stamp, err);
}

int vf_verify_files(int dirfd, const struct vf_manifest *m, struct vf_watches *w,
                    struct vf_error *err)
{
    int r = 0;

    for (size_t i = 0; i < m->files.n && r == 0; i++) {
        if (strcmp(files_of(m)[i].name, VF_MEMORY_NAME) != 0)
            r = verify_file(dirfd, &files_of(m)[i], w, err);
    }
    return r;
}

int vf_watch_files(int dirfd, const struct vf_manifest *m, struct vf_watches *w,
                   struct vf_error *err)
{
    int r = 0;

    for (size_t i = 0; i < m->files.n && r == 0; i++) {
        const char *name = files_of(m)[i].name;
        struct vf_stamp stamp;
        struct stat st;

        if (strcmp(name, VF_MEMORY_NAME) == 0)
            continue;
        if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            return vf_fail_errno(err, errno, "%s: stat", name);
        vf_stamp_of(&st, &stamp);
        r = watch(w, name, true, &stamp, err);
    }
    return r;
}

/* --- outside */

/* A file that must still have size and digest. field: what it is, for messages. */
static int unchanged(const char *path, const char *field, int64_t size, const char *sha256,
                     struct vf_stamp *ret_stamp, struct vf_error *err)
{
    struct vf_error inner = {0};
    char hex[VF_SHA256_HEX];
    int64_t now = 0;
    int r = vf_digest_path(path, field, &now, hex, ret_stamp, &inner);

    if (r < 0) {
        if (inner.code == VF_NOT_FOUND || inner.code == VF_INVALID_ARGUMENT)
            inner.code = VF_CONFLICT;
        return vf_error_copy(err, &inner);
    }
    if (now == size && strcmp(hex, sha256) == 0)
        return 0;
    if (now != size)
        vf_fail(err, VF_CONFLICT,
                "%s: %s: has changed since the template was built (%" PRId64 " bytes, were %" PRId64
                ")",
                field, path, now, size);
    else
        vf_fail(err, VF_CONFLICT,
                "%s: %s: has changed since the template was built (SHA-256 %s, was %s)", field,
                path, hex, sha256);
    return vf_hint(err, "build the template again");
}

static int verify_host(const struct vf_manifest *m, struct vf_error *err)
{
    struct vf_host host;
    int r = vf_host_read(&host, err);

    if (r < 0)
        return r;
    if (strcmp(host.cpu_model, m->host.cpu_model) != 0)
        vf_fail(err, VF_CONFLICT, "host CPU: is \"%s\", the template was built on \"%s\"",
                host.cpu_model, m->host.cpu_model);
    else if (strcmp(host.cpu_flags_sha256, m->host.cpu_flags_sha256) != 0)
        vf_fail(err, VF_CONFLICT,
                "host CPU: its feature flags are not those the template was built with");
    else
        return 0;
    return vf_hint(err, "build the template again on this host");
}

int vf_verify_outside(const struct vf_manifest *m, struct vf_watches *w, struct vf_error *err)
{
    const struct vf_manifest_asset *assets = (const struct vf_manifest_asset *)m->assets.items;
    struct vf_stamp stamp;
    int r = 0;

    for (size_t i = 0; i < m->assets.n && r == 0; i++) {
        r = unchanged(assets[i].path, vf_asset_role_names[assets[i].role], assets[i].size,
                      assets[i].sha256, &stamp, err);
        /* Clones never look at the kernel and the initrd again: they are in the memory. */
        if (r == 0 && assets[i].role == VF_ASSET_ROOT)
            r = watch(w, assets[i].path, false, &stamp, err);
    }
    if (r == 0 && m->vmm.path != NULL) {
        r = unchanged(m->vmm.path, "VMM", m->vmm.size, m->vmm.sha256, &stamp, err);
        if (r == 0)
            r = watch(w, m->vmm.path, false, &stamp, err);
    }
    return r == 0 ? verify_host(m, err) : r;
}

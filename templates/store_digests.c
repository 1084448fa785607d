/* What the generations in the store need besides their own files, so that nobody throws it away. See store.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/fd.h"
#include "templates/store_internal.h"

struct teller {
    void (*tell)(void *arg, const char *sha256);
    void *arg;
};

static void tell_all(const struct vf_manifest *m, const struct teller *t)
{
    const struct vf_manifest_asset *assets = (const struct vf_manifest_asset *)m->assets.items;

    if (m->vmm.sha256 != NULL)
        t->tell(t->arg, m->vmm.sha256);
    for (size_t i = 0; i < m->assets.n; i++)
        t->tell(t->arg, assets[i].sha256);
}

/* A generation that is damaged can't be used any more; one that can't be read now, or was written by a newer vmfactory,
 * may be: then it is better to keep everything. */
static int look_at(int template_fd, const char *name, int64_t number, const struct teller *t,
                   struct vf_error *err)
{
    VF_CLEANUP_FD int dirfd = -1;
    struct vf_error why = {0};
    struct vf_manifest m;

    if (vf_generation_open(template_fd, name, number, &dirfd, &m, &why) == 0) {
        tell_all(&m, t);
        vf_manifest_free(&m);
        return 0;
    }
    if (why.code == VF_CORRUPT || why.code == VF_NOT_FOUND)
        return 0;
    vf_wrap(&why, "template %s generation %" PRId64, name, number);
    return vf_error_copy(err, &why);
}

static int look_in(struct vf_store *store, const char *name, const struct teller *t,
                   struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct vf_names entries;
    int r = vf_dir_open(store->templates_fd, name, &fd);

    if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
        return 0; /* gone meanwhile, or not ours */
    if (r < 0)
        return vf_fail_errno(err, r, "template %s: open its directory", name);
    r = vf_dir_names(fd, &entries, err);
    if (r < 0)
        return vf_wrap(err, "template %s", name);
    for (size_t i = 0; i < entries.n && r == 0; i++) {
        int64_t number = vf_generation_number(entries.v[i]);

        if (number != 0)
            r = look_at(fd, name, number, t, err);
    }
    vf_names_free(&entries);
    return r;
}

int vf_store_digests(struct vf_store *store, void (*tell)(void *arg, const char *sha256), void *arg,
                     struct vf_error *err)
{
    const struct teller t = {tell, arg};
    struct vf_names names;
    int r = vf_dir_names(store->templates_fd, &names, err);

    if (r < 0)
        return vf_wrap(err, "store %s", store->path);
    for (size_t i = 0; i < names.n && r == 0; i++) {
        if (vf_template_name_ok(names.v[i]))
            r = look_in(store, names.v[i], &t, err);
    }
    vf_names_free(&names);
    return r;
}

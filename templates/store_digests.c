/* What the generations in the store need besides their own files, so that nobody throws it away. See store.h. */
#include <inttypes.h>
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
static int look_at(void *arg, int template_fd, const char *name, int64_t number,
                   struct vf_error *err)
{
    const struct teller *t = (const struct teller *)arg;
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

int vf_store_digests(struct vf_store *store, void (*tell)(void *arg, const char *sha256), void *arg,
                     struct vf_error *err)
{
    struct teller t = {tell, arg};

    return vf_store_each(store, look_at, &t, err);
}

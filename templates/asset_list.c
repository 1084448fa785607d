/* What is in the store of assets, and the removal of what nothing uses. See assets.h.
 *
 * A partial file that a fetch works on is locked by it; gc takes the lock before it removes one, and a fetch that gets
 * the lock makes sure that the file still has its name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/asset_internal.h"

struct list {
    struct vf_asset_entry *v;
    size_t n, cap;
};

static int add(struct list *l, const struct vf_asset_entry *e, struct vf_error *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 16 : l->cap * 2;
        struct vf_asset_entry *v = (struct vf_asset_entry *)realloc(l->v, cap * sizeof(*v));

        if (v == NULL)
            return vf_fail(err, VF_NO_MEMORY, "assets: no memory for %zu entries", cap);
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = *e;
    return 0;
}

/* 1 if dirfd/name is a file of the store; 0 if it is gone, or nothing of ours. */
static int look(int dirfd, const char *name, bool partial, struct vf_asset_entry *ret,
                struct vf_error *err)
{
    struct stat st;

    if (!vf_asset_digest_ok(name))
        return 0;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : vf_fail_errno(err, errno, "asset %s: stat", name);
    if (!S_ISREG(st.st_mode))
        return 0;
    *ret = (struct vf_asset_entry){.size = st.st_size,
                                   .executable = (st.st_mode & 0111) != 0,
                                   .partial = partial,
                                   .fetched = st.st_mtime};
    memcpy(ret->sha256, name, sizeof(ret->sha256));
    return 1;
}

static int add_dir(struct list *l, int dirfd, bool partial, struct vf_error *err)
{
    struct vf_names names;
    int r = vf_dir_names(dirfd, &names, err);

    if (r < 0)
        return vf_wrap(err, "assets");
    for (size_t i = 0; r == 0 && i < names.n; i++) {
        struct vf_asset_entry e;

        r = look(dirfd, names.v[i], partial, &e, err);
        if (r > 0)
            r = add(l, &e, err);
    }
    vf_names_free(&names);
    return r;
}

static int by_digest(const void *a, const void *b)
{
    const struct vf_asset_entry *x = (const struct vf_asset_entry *)a;
    const struct vf_asset_entry *y = (const struct vf_asset_entry *)b;
    int c = strcmp(x->sha256, y->sha256);

    return c != 0 ? c : (int)x->partial - (int)y->partial;
}

int vf_asset_store_list(struct vf_asset_store *s, struct vf_asset_entry **ret, size_t *ret_n,
                        struct vf_error *err)
{
    struct list l = {0};
    int r = add_dir(&l, s->files_fd, false, err);

    if (r == 0)
        r = add_dir(&l, s->partial_fd, true, err);
    if (r < 0) {
        free(l.v);
        return r;
    }
    if (l.n > 0)
        qsort(l.v, l.n, sizeof(*l.v), by_digest);
    *ret = l.v;
    *ret_n = l.n;
    return 0;
}

/* --- removal */

struct collection {
    bool (*keep)(void *arg, const char *sha256);
    void (*on_removed)(void *arg, const struct vf_asset_entry *e);
    void *arg;
    bool dry_run;
};

/* 1 if no fetch is using it: then *ret_fd holds its lock, so that none begins to. */
static int lock_unused(int dirfd, const char *name, int *ret_fd, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : vf_fail_errno(err, errno, "asset %s: open its part", name);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK ? 0
                                    : vf_fail_errno(err, errno, "asset %s: lock its part", name);
    *ret_fd = vf_steal_fd(&fd);
    return 1;
}

static int remove_one(const struct collection *c, int dirfd, const struct vf_asset_entry *e,
                      struct vf_error *err)
{
    VF_CLEANUP_FD int lock = -1;
    int r = e->partial ? lock_unused(dirfd, e->sha256, &lock, err) : 1;

    if (r <= 0)
        return r;
    if (!c->dry_run && unlinkat(dirfd, e->sha256, 0) != 0)
        return errno == ENOENT ? 0 : vf_fail_errno(err, errno, "asset %s: remove", e->sha256);
    if (c->on_removed != NULL)
        c->on_removed(c->arg, e);
    return 0;
}

/* Goes on past what can't be removed; the first failure is told. */
static int collect(const struct collection *c, int dirfd, bool partial, bool keepable,
                   struct vf_error *err)
{
    struct list l = {0};
    int r = add_dir(&l, dirfd, partial, err);

    for (size_t i = 0; i < l.n; i++) {
        struct vf_error why;
        int r2;

        if (keepable && c->keep != NULL && c->keep(c->arg, l.v[i].sha256))
            continue;
        r2 = remove_one(c, dirfd, &l.v[i], &why);
        if (r2 < 0 && r == 0)
            r = vf_error_copy(err, &why);
    }
    free(l.v);
    return r;
}

int vf_asset_store_gc(struct vf_asset_store *s, bool (*keep)(void *arg, const char *sha256),
                      void (*on_removed)(void *arg, const struct vf_asset_entry *e), void *arg,
                      bool dry_run, struct vf_error *err)
{
    const struct collection c = {keep, on_removed, arg, dry_run};
    VF_CLEANUP_FD int aside = -1;
    int r = collect(&c, s->files_fd, false, true, err);

    if (r == 0)
        r = collect(&c, s->partial_fd, true, false, err);
    aside = openat(s->dirfd, VF_ASSET_ASIDE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (r == 0 && aside >= 0)
        r = collect(&c, aside, false, false, err);
    return r;
}

/* The store: opened and locked by one process, swept of what crashes left. See store.h. */
#include "templates/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/store_internal.h"

/* --- the lock */

/* Refuses, naming the holder if the file says who it is. */
static int refuse_locked(int64_t holder, const char *path, struct vf_error *err)
{
    if (holder > 0)
        vf_fail(err, VF_CONFLICT, "store %s: in use by pid %" PRId64, path, holder);
    else
        vf_fail(err, VF_CONFLICT, "store %s: in use by another process", path);
    return vf_hint(err, "end that process, or use another directory");
}

static int take_lock(int dirfd, const char *path, int *ret_fd, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    int64_t holder = 0;
    int r;

    fd = openat(dirfd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        vf_fail_errno(err, errno, "store %s: open its lock", path);
        return vf_hint(err,
                       "the store must be writable for the user that vmfactory runs as (uid %u)",
                       (unsigned)geteuid());
    }
    r = vf_lock_file(fd, &holder);
    if (r == -EWOULDBLOCK)
        return refuse_locked(holder, path, err);
    if (r < 0)
        return vf_fail_errno(err, r, "store %s: lock", path);
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

/* --- the sweep */

static bool is_litter(const char *entry)
{
    return strncmp(entry, VF_STORE_TMP_PREFIX, strlen(VF_STORE_TMP_PREFIX)) == 0 ||
           strncmp(entry, VF_TMP_PREFIX, strlen(VF_TMP_PREFIX)) == 0;
}

static int sweep_template(struct vf_store *store, const char *name, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct vf_names entries;
    int r = vf_dir_open(store->templates_fd, name, &fd);

    if (r == -ENOTDIR || r == -ELOOP)
        return 0; /* not ours */
    if (r < 0)
        return vf_fail_errno(err, r, "open the directory");
    r = vf_dir_names(fd, &entries, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < entries.n; i++) {
        if (is_litter(entries.v[i])) {
            int r2 = vf_remove_tree(fd, entries.v[i], r == 0 ? err : NULL);

            r = r == 0 ? r2 : r;
        }
    }
    vf_names_free(&entries);
    /* Nothing was ever committed here; fails if that is not so. */
    unlinkat(store->templates_fd, name, AT_REMOVEDIR);
    return r;
}

/* Goes on past what it can't remove: litter takes space, but does no harm. */
static void sweep(struct vf_store *store)
{
    struct vf_names names;
    struct vf_error why = {0};

    if (vf_dir_names(store->templates_fd, &names, &store->sweep_err) < 0)
        return;
    for (size_t i = 0; i < names.n; i++) {
        if (vf_template_name_ok(names.v[i]) && sweep_template(store, names.v[i], &why) < 0) {
            store->sweep_err = why;
            vf_wrap(&store->sweep_err, "store %s: sweep template %s", store->path, names.v[i]);
        }
    }
    vf_names_free(&names);
}

/* --- open and close */

/* Frees what there is of a store. */
static void destroy(struct vf_store *store)
{
    vf_close_fd(&store->templates_fd);
    vf_close_fd(&store->lock_fd);
    pthread_cond_destroy(&store->loaded_changed);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->commit_lock);
    free(store->path);
    free(store);
}

static int open_dirs(struct vf_store *store, const char *path, struct vf_error *err)
{
    VF_CLEANUP_FD int dirfd = -1;
    int r = vf_open_dir(path, 1, 0700, &dirfd, err);

    if (r < 0)
        return vf_wrap(err, "store");
    store->path = realpath(path, NULL);
    if (store->path == NULL)
        return vf_fail_errno(err, errno, "store %s: find its absolute path", path);
    r = take_lock(dirfd, store->path, &store->lock_fd, err);
    if (r < 0)
        return r;
    if (mkdirat(dirfd, "templates", 0700) != 0 && errno != EEXIST)
        return vf_fail_errno(err, errno, "store %s: create the directory templates", store->path);
    r = vf_dir_open(dirfd, "templates", &store->templates_fd);
    if (r < 0)
        return vf_fail_errno(err, r, "store %s: open the directory templates", store->path);
    r = vf_dir_sync(dirfd, "store", err);
    return r;
}

int vf_store_open(const char *path, struct vf_store **ret_store, struct vf_error *err)
{
    struct vf_store *store = (struct vf_store *)calloc(1, sizeof(*store));
    int r;

    if (store == NULL)
        return vf_fail(err, VF_NO_MEMORY, "store %s: no memory", path);
    store->lock_fd = store->templates_fd = -1;
    pthread_mutex_init(&store->commit_lock, NULL);
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->loaded_changed, NULL);
    r = open_dirs(store, path, err);
    if (r < 0) {
        destroy(store);
        return r;
    }
    sweep(store);
    *ret_store = store;
    return 0;
}

void vf_store_close(struct vf_store *store)
{
    if (store == NULL)
        return;
    assert(store->loaded == NULL);
    assert(store->n_builds == 0);
    /* The pid would name a process that holds it no more. */
    if (ftruncate(store->lock_fd, 0) != 0)
        errno = 0; /* only a message depends on it */
    destroy(store);
}

const char *vf_store_path(const struct vf_store *store)
{
    return store->path;
}

const struct vf_error *vf_store_sweep_error(const struct vf_store *store)
{
    return store->sweep_err.code != VF_OK ? &store->sweep_err : NULL;
}

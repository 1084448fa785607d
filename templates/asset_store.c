/* The store of assets: opened, asked for a file, hashed again. See assets.h; asset_list.c tells what is in it and
 * removes it, asset_fetch.c brings it in.
 *
 * Several processes may have it open: each file comes into its place whole, by rename, and is never changed there.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/asset_internal.h"

#define CHUNK ((size_t)256 * 1024)

const struct vf_fetch_limits vf_fetch_limits_default = {
    .connect_timeout_ms = 20000,
    .stall_timeout_s = 30,
    .stall_bytes_per_s = 512,
    .attempts = 5,
    .backoff_ms = 500,
    .backoff_most_ms = 8000,
};

/* --- open and close */

static void destroy(struct vf_asset_store *s)
{
    vf_close_fd(&s->partial_fd);
    vf_close_fd(&s->files_fd);
    vf_close_fd(&s->dirfd);
    pthread_cond_destroy(&s->abandoned);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

static int open_below(const struct vf_asset_store *s, const char *name, int *ret_fd,
                      struct vf_error *err)
{
    if (mkdirat(s->dirfd, name, 0700) != 0 && errno != EEXIST) {
        vf_fail_errno(err, errno, "assets %s: create the directory %s", s->path, name);
        return vf_hint(err, "it must be writable for the user that vmfactory runs as (uid %u)",
                       (unsigned)geteuid());
    }
    *ret_fd = openat(s->dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*ret_fd < 0)
        return vf_fail_errno(err, errno, "assets %s: open the directory %s", s->path, name);
    return 0;
}

static int open_dirs(struct vf_asset_store *s, const char *path, struct vf_error *err)
{
    int r = vf_open_dir(path, 1, 0700, &s->dirfd, err);

    if (r < 0)
        return vf_wrap(err, "assets");
    s->path = realpath(path, NULL);
    if (s->path == NULL)
        return vf_fail_errno(err, errno, "assets %s: find its absolute path", path);
    r = open_below(s, VF_ASSET_FILES, &s->files_fd, err);
    if (r == 0)
        r = open_below(s, VF_ASSET_PARTIAL, &s->partial_fd, err);
    if (r == 0 && fsync(s->dirfd) != 0 && errno != EINVAL)
        r = vf_fail_errno(err, errno, "assets %s: fsync the directory", s->path);
    return r;
}

int vf_asset_store_open(const char *path, struct vf_asset_store **ret, struct vf_error *err)
{
    struct vf_asset_store *s = (struct vf_asset_store *)calloc(1, sizeof(*s));
    pthread_condattr_t attr;
    int r;

    if (s == NULL)
        return vf_fail(err, VF_NO_MEMORY, "assets %s: no memory", path);
    s->dirfd = s->files_fd = s->partial_fd = -1;
    s->limits = vf_fetch_limits_default;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->abandoned, &attr);
    pthread_condattr_destroy(&attr);
    r = open_dirs(s, path, err);
    if (r < 0) {
        destroy(s);
        return r;
    }
    *ret = s;
    return 0;
}

void vf_asset_store_close(struct vf_asset_store *s)
{
    bool has_worker[VF_FETCH_MAX];

    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    assert(s->n_fetches == 0);
    for (int i = 0; i < VF_FETCH_MAX; i++)
        has_worker[i] = s->workers[i].state != VF_WORKER_NONE;
    pthread_mutex_unlock(&s->lock);
    /* Those that still run were left by their last caller, know it, and end at once. */
    for (int i = 0; i < VF_FETCH_MAX; i++) {
        if (has_worker[i])
            pthread_join(s->workers[i].thread, NULL);
    }
    assert(s->downloads == NULL);
    destroy(s);
}

/* --- asked for a file; opened by its path, as whoever uses it does */

static int check_digest(const char *sha256, struct vf_error *err)
{
    if (vf_asset_digest_ok(sha256))
        return 0;
    return vf_fail(err, VF_INVALID_ARGUMENT,
                   "sha256: must be 64 hexadecimal digits in lower case (is \"%.80s\")", sha256);
}

static int not_fetched(const struct vf_asset_store *s, const char *sha256, struct vf_error *err)
{
    vf_fail(err, VF_NOT_FOUND, "asset %s: is not in the store %s", sha256, s->path);
    return vf_hint(err, "fetch it first: vmfactory asset fetch");
}

int vf_asset_store_path(struct vf_asset_store *s, const char *sha256, char **ret_path,
                        struct vf_error *err)
{
    struct stat st;
    int r = check_digest(sha256, err);

    if (r < 0)
        return r;
    if (fstatat(s->files_fd, sha256, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT)
            return not_fetched(s, sha256, err);
        return vf_fail_errno(err, errno, "asset %s: stat", sha256);
    }
    if (!S_ISREG(st.st_mode)) {
        vf_fail(err, VF_CORRUPT, "asset %s: %s/" VF_ASSET_FILES "/%s is not a regular file", sha256,
                s->path, sha256);
        return vf_hint(err, "remove it and fetch the asset again");
    }
    if (asprintf(ret_path, "%s/" VF_ASSET_FILES "/%s", s->path, sha256) < 0)
        return vf_fail(err, VF_NO_MEMORY, "asset %s: no memory", sha256);
    return 0;
}

int vf_asset_store_good_path(struct vf_asset_store *s, const char *sha256, char **ret_path,
                             struct vf_error *err)
{
    VF_CLEANUP_FREE char *path = NULL;
    char hex[VF_SHA256_HEX];
    int64_t size;
    int r = vf_asset_store_path(s, sha256, &path, err);

    if (r == 0)
        r = vf_digest_path(path, "its file", &size, hex, NULL, err);
    if (r < 0)
        return r;
    if (strcmp(hex, sha256) != 0)
        return vf_fail(err, VF_CORRUPT, "the SHA-256 of its file is %s, not %s as pinned: %s", hex,
                       sha256, path);
    *ret_path = vf_steal_str(&path);
    return 0;
}

int vf_asset_is_there(const struct vf_asset_store *s, const struct vf_asset *a, int64_t *ret_size,
                      struct vf_error *err)
{
    const char *name = vf_asset_file_here(a)->sha256;
    struct stat st;

    if (fstatat(s->files_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : vf_fail_errno(err, errno, "look for it in the store");
    if (!S_ISREG(st.st_mode))
        return vf_fail(err, VF_CORRUPT, "%s/" VF_ASSET_FILES "/%s is not a regular file", s->path,
                       name);
    /* It may have come in as something else. */
    if (a->kind == VF_ASSET_KIND_VMM && (st.st_mode & 0111) != 0111 &&
        fchmodat(s->files_fd, name, 0555, 0) != 0)
        return vf_fail_errno(err, errno, "make it executable");
    if (ret_size != NULL)
        *ret_size = st.st_size;
    return 1;
}

/* --- hashed again */

static int hash(int fd, const char *sha256, struct vf_progress *progress,
                char ret_hex[VF_SHA256_HEX], struct vf_error *err)
{
    VF_CLEANUP_FREE char *buf = (char *)malloc(CHUNK);
    struct vf_digest digest;
    uint64_t done = 0;
    ssize_t n = 0;
    int r = 0;

    if (buf == NULL)
        return vf_fail(err, VF_NO_MEMORY, "asset %s: no memory", sha256);
    vf_digest_start(&digest);
    for (;;) {
        n = read(fd, buf, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        vf_digest_data(&digest, buf, (size_t)n);
        done += (uint64_t)n;
        if (progress != NULL)
            atomic_store(&progress->done_bytes, done);
    }
    if (n < 0)
        r = vf_fail_errno(err, errno, "asset %s: read", sha256);
    if (r < 0)
        vf_digest_finish(&digest, NULL, NULL);
    else
        r = vf_digest_finish(&digest, ret_hex, err);
    return r;
}

/* Moves what fd is open on aside, unless another has come into its place meanwhile. */
static int move_aside(struct vf_asset_store *s, const char *sha256, int fd, struct vf_error *err)
{
    VF_CLEANUP_FD int aside = -1;
    struct stat st, now;
    int r = open_below(s, VF_ASSET_ASIDE, &aside, err);

    if (r < 0)
        return r;
    if (fstat(fd, &st) == 0 && fstatat(s->files_fd, sha256, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
        (st.st_dev != now.st_dev || st.st_ino != now.st_ino))
        return 0;
    if (renameat(s->files_fd, sha256, aside, sha256) != 0 && errno != ENOENT)
        return vf_fail_errno(err, errno, "asset %s: move it aside", sha256);
    if ((fsync(s->files_fd) != 0 || fsync(aside) != 0) && errno != EINVAL)
        return vf_fail_errno(err, errno, "asset %s: move it aside: fsync the directory", sha256);
    return 0;
}

int vf_asset_store_verify(struct vf_asset_store *s, const char *sha256,
                          struct vf_progress *progress, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    char hex[VF_SHA256_HEX];
    struct stat st;
    int r = check_digest(sha256, err);

    if (r < 0)
        return r;
    fd = openat(s->files_fd, sha256, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return not_fetched(s, sha256, err);
    if (fd < 0 || fstat(fd, &st) != 0)
        return vf_fail_errno(err, errno, "asset %s: open", sha256);
    if (progress != NULL)
        atomic_store(&progress->total_bytes, (uint64_t)st.st_size);
    r = hash(fd, sha256, progress, hex, err);
    if (r < 0 || strcmp(hex, sha256) == 0)
        return r;
    r = move_aside(s, sha256, fd, err);
    if (r < 0)
        return vf_wrap(err, "asset %s: is corrupt (its SHA-256 is %s)", sha256, hex);
    vf_fail(err, VF_CORRUPT,
            "asset %s: its SHA-256 is %s (%" PRId64 " bytes); moved aside to %s/%s", sha256, hex,
            (int64_t)st.st_size, s->path, VF_ASSET_ASIDE);
    return vf_hint(err, "fetch it again; a disk that does this more than once is failing");
}

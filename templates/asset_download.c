/* One digest comes in, in a worker thread. See asset_internal.h.
 *
 *     lock the partial file -> hash again what is in it -> attempts (with pauses between them) -> right digest?
 *         -> mode, fsync, rename into its place, fsync of the directories
 *
 * A part that is there is worth what its bytes hash to in the end: if a file that came in pieces has another digest, it
 * is fetched once more from its beginning, and only if it is wrong then too, it is corrupt. What is corrupt goes, and
 * so does what fills the disk; any other failure keeps the part for the next fetch.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "base/fd.h"
#include "templates/asset_internal.h"

#define CHUNK ((size_t)256 * 1024)
#define LOCKED_PAUSE_MS 100 /* between two looks at a part that another process fetches */

static const char *digest_of(const struct vf_download *d)
{
    return d->file->sha256;
}

static int cancelled(struct vf_error *err)
{
    return vf_fail(err, VF_CANCELLED, "nobody waits for it any more");
}

static int disk_failed(int errnum, const char *what, const struct vf_download *d,
                       struct vf_error *err)
{
    vf_fail_errno(err, errnum, "%s", what);
    if (err != NULL && err->code == VF_NO_SPACE)
        return vf_hint(err, "make room below %s; vmfactory asset gc removes what nothing uses",
                       d->store->path);
    return vf_code_errno(vf_code_from_errno(errnum));
}

/* --- the partial file */

static int open_part(const struct vf_download *d, int *ret_fd, struct vf_error *err)
{
    const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(d->store->partial_fd, digest_of(d), flags, 0600);

    /* Read-only already: a crash came just before it got its name. */
    if (fd < 0 && errno == EACCES && fchmodat(d->store->partial_fd, digest_of(d), 0600, 0) == 0)
        fd = openat(d->store->partial_fd, digest_of(d), flags, 0600);
    if (fd < 0)
        return disk_failed(errno, "open the partial file", d, err);
    *ret_fd = fd;
    return 0;
}

/* Whether fd still has its name: it was not removed, nor did it become the whole file. */
static bool has_name(const struct vf_download *d, int fd)
{
    struct stat st, named;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
           fstatat(d->store->partial_fd, digest_of(d), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           st.st_dev == named.st_dev && st.st_ino == named.st_ino;
}

/* Another has the lock: shows how far that one is. */
static void watch(struct vf_download *d, int fd)
{
    struct stat st;

    if (fstat(fd, &st) == 0)
        vf_download_tell(d, st.st_size, d->file->size);
}

/* Opens the partial file as the only one to use it: 0; or 1 if there is nothing left to do. */
static int take_part(struct vf_download *d, struct vf_error *err)
{
    for (;;) {
        VF_CLEANUP_FD int fd = -1;
        int r = vf_asset_is_there(d->store, &d->asset, NULL, err);

        if (r == 0)
            r = open_part(d, &fd, err);
        if (r != 0)
            return r;
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            if (!has_name(d, fd))
                continue;
            r = vf_asset_is_there(d->store, &d->asset, NULL, err);
            if (r != 0) /* it came just before this one was made */
                unlinkat(d->store->partial_fd, digest_of(d), 0);
            else
                d->fd = vf_steal_fd(&fd);
            return r;
        }
        if (errno != EWOULDBLOCK && errno != EINTR)
            return vf_fail_errno(err, errno, "lock the partial file");
        watch(d, fd);
        if (!vf_download_pause(d, LOCKED_PAUSE_MS))
            return cancelled(err);
    }
}

static int64_t most(const struct vf_download *d)
{
    return d->file->size > 0 ? d->file->size : VF_ASSET_UNSIZED_MAX;
}

/* Hashes what is there. */
static int take_up(struct vf_download *d, struct vf_error *err)
{
    VF_CLEANUP_FREE char *buf = (char *)malloc(CHUNK);
    ssize_t n = 0;

    if (buf == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    while (!vf_download_abandoned(d)) {
        n = read(d->fd, buf, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        vf_digest_data(&d->digest, buf, (size_t)n);
        d->at += n;
        if (d->at > most(d))
            return vf_download_restart(d, err);
        vf_download_tell(d, d->at, d->file->size);
    }
    if (n < 0)
        return vf_fail_errno(err, errno, "read the partial file");
    d->pieced = d->at > 0;
    return vf_download_abandoned(d) ? cancelled(err) : 0;
}

/* --- what a source does with its bytes */

int vf_download_restart(struct vf_download *d, struct vf_error *err)
{
    vf_digest_finish(&d->digest, NULL, NULL);
    vf_digest_start(&d->digest);
    d->at = 0;
    d->pieced = d->reserved = false;
    if (ftruncate(d->fd, 0) != 0 || lseek(d->fd, 0, SEEK_SET) != 0)
        return vf_fail_errno(err, errno, "empty the partial file");
    vf_download_tell(d, 0, d->file->size);
    return 0;
}

/* Better to learn now that it does not fit than when most of it has come. */
static int reserve(struct vf_download *d, struct vf_error *err)
{
    if (d->file->size == 0 || d->reserved)
        return 0;
    if (fallocate(d->fd, FALLOC_FL_KEEP_SIZE, 0, d->file->size) == 0)
        d->reserved = true;
    else if (vf_code_from_errno(errno) == VF_NO_SPACE)
        return disk_failed(errno, "set its room aside on the disk", d, err);
    return 0; /* not every file system can */
}

static int too_long(const struct vf_download *d, struct vf_error *err)
{
    if (d->file->size > 0)
        return vf_fail(err, VF_CORRUPT, "is longer than its size, %" PRId64 " bytes",
                       d->file->size);
    vf_fail(err, VF_CORRUPT, "is longer than the %" PRId64 " bytes taken of what has no size",
            VF_ASSET_UNSIZED_MAX);
    return vf_hint(err, "say the size in the asset");
}

int vf_download_expect(struct vf_download *d, int64_t total, struct vf_error *err)
{
    if (d->file->size > 0 && total != d->file->size) {
        vf_fail(err, VF_CORRUPT, "has %" PRId64 " bytes there, not %" PRId64 " as in the asset",
                total, d->file->size);
        return vf_hint(err, "correct url or size");
    }
    if (total > most(d))
        return too_long(d, err);
    vf_download_tell(d, d->at, total);
    return reserve(d, err);
}

int vf_download_write(struct vf_download *d, const void *data, size_t len, struct vf_error *err)
{
    const char *p = (const char *)data;
    int64_t total = d->total;

    if ((int64_t)len > most(d) - d->at)
        return too_long(d, err);
    while (len > 0) {
        ssize_t n = write(d->fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return disk_failed(errno, "write the partial file", d, err);
        vf_digest_data(&d->digest, p, (size_t)n);
        d->at += n;
        p += n;
        len -= (size_t)n;
    }
    vf_failpoint("asset.part.written");
    vf_download_tell(d, d->at, total);
    return 0;
}

/* --- attempts */

/* 1 if what is there is the whole file, 0 if not. */
static int is_whole(const struct vf_download *d, char ret_hex[VF_SHA256_HEX], struct vf_error *err)
{
    int r = vf_digest_peek(&d->digest, ret_hex, err);

    return r < 0 ? r : strcmp(ret_hex, digest_of(d)) == 0;
}

static int attempt(struct vf_download *d, bool *ret_again, struct vf_error *err)
{
    int r;

    *ret_again = false;
    if (strncasecmp(d->file->url, "file:", 5) == 0)
        return vf_asset_file_get(d, err);
    r = vf_asset_http_get(d, ret_again, err);
    if (r == 0 && d->at < d->file->size) { /* without a Content-Length nobody noticed */
        *ret_again = true;
        r = vf_fail(err, VF_PROTOCOL, "ended after %" PRId64 " of its %" PRId64 " bytes", d->at,
                    d->file->size);
    }
    return r;
}

static int attempts(struct vf_download *d, struct vf_error *err)
{
    const struct vf_fetch_limits *l = &d->store->limits;
    int64_t backoff_ms = l->backoff_ms;

    for (int i = 1;; i++) {
        bool again;
        int r = attempt(d, &again, err);

        if (r == 0)
            return 0;
        if (vf_download_abandoned(d))
            return cancelled(err);
        if (again && i >= l->attempts && i > 1)
            return vf_wrap(err, "%d attempts, the last", i);
        if (!again || i >= l->attempts)
            return r;
        if (!vf_download_pause(d, backoff_ms))
            return cancelled(err);
        backoff_ms = backoff_ms * 2 < l->backoff_most_ms ? backoff_ms * 2 : l->backoff_most_ms;
    }
}

/* The rest of the file, if it is not whole already. 1: it is right. */
static int get_rest(struct vf_download *d, char ret_hex[VF_SHA256_HEX], struct vf_error *err)
{
    int r = d->at > 0 ? is_whole(d, ret_hex, err) : 0;

    if (r != 0 || (d->file->size > 0 && d->at >= d->file->size))
        return r;
    r = attempts(d, err);
    return r == 0 ? is_whole(d, ret_hex, err) : r;
}

static int get_whole(struct vf_download *d, struct vf_error *err)
{
    char hex[VF_SHA256_HEX];
    int r = get_rest(d, hex, err);

    if (r == 0 && d->pieced) { /* the pieces may be of different files */
        r = vf_download_restart(d, err);
        if (r == 0)
            r = get_rest(d, hex, err);
    }
    if (r != 0)
        return r < 0 ? r : 0;
    vf_fail(err, VF_CORRUPT, "has the SHA-256 %s, not %s as in the asset", hex, digest_of(d));
    return vf_hint(err, "the file there is not the one that was pinned; don't trust it");
}

/* --- its place */

static int put(struct vf_download *d, struct vf_error *err)
{
    struct vf_asset_store *s = d->store;
    mode_t mode = d->asset.kind == VF_ASSET_KIND_VMM ? 0555 : 0444;

    if (ftruncate(d->fd, d->at) != 0 || fchmod(d->fd, mode) != 0)
        return vf_fail_errno(err, errno, "make it read-only");
    if (fsync(d->fd) != 0)
        return disk_failed(errno, "fsync", d, err);
    vf_failpoint("asset.before-rename");
    if (renameat(s->partial_fd, digest_of(d), s->files_fd, digest_of(d)) != 0)
        return disk_failed(errno, "rename it into its place", d, err);
    vf_failpoint("asset.after-rename");
    if ((fsync(s->files_fd) != 0 || fsync(s->partial_fd) != 0) && errno != EINVAL)
        return disk_failed(errno, "fsync the directory", d, err);
    return 0;
}

/* After a failure: what no later fetch could use goes, and so does room that was set aside. */
static void tidy(struct vf_download *d, int r)
{
    if (d->at == 0 || r == vf_code_errno(VF_CORRUPT) || r == vf_code_errno(VF_NO_SPACE))
        unlinkat(d->store->partial_fd, digest_of(d), 0);
    else if (d->reserved)
        fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, d->at,
                  d->file->size - d->at + 1);
}

int vf_download_run(struct vf_download *d, struct vf_error *err)
{
    int r;

    d->fd = -1;
    r = take_part(d, err);
    if (r != 0)
        return r < 0 ? r : 0;
    vf_digest_start(&d->digest);
    r = take_up(d, err);
    if (r == 0)
        r = get_whole(d, err);
    if (r == 0)
        r = put(d, err);
    if (r < 0)
        tidy(d, r);
    vf_digest_finish(&d->digest, NULL, NULL);
    vf_close_fd(&d->fd); /* before anyone is told: what is open for writing can't be executed */
    return r;
}

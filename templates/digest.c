/* Digests of passing data, and a memory of the digests of files. See digest.h.
 *
 * A file is remembered by device, inode, size, mtime and ctime. One that changed just before it was
 * hashed could change again within the same tick of the file system's clock, unseen: such a file
 * is not remembered.
 */
#include "templates/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/fd.h"

#define CACHE_SIZE 256
/* More than a tick of the clock that file systems stamp their files with (1 to 10 ms). */
#define SETTLED_NS (100 * 1000 * 1000)

struct cached {
    struct vf_stamp stamp;
    int64_t ctime_ns;
    char hex[VF_SHA256_HEX];
};

static struct cached cache[CACHE_SIZE];
static size_t cache_used, cache_next; /* a ring: the oldest goes first */
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t reads;

void vf_digest_start(struct vf_digest *d)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    d->ctx = ctx;
    d->failed = ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1;
}

void vf_digest_data(struct vf_digest *d, const void *data, size_t len)
{
    if (!d->failed && EVP_DigestUpdate((EVP_MD_CTX *)d->ctx, data, len) != 1)
        d->failed = true;
}

void vf_digest_zeros(struct vf_digest *d, uint64_t len)
{
    static const char zeros[65536];

    while (len > 0) {
        size_t n = len < sizeof(zeros) ? (size_t)len : sizeof(zeros);

        vf_digest_data(d, zeros, n);
        len -= n;
    }
}

int vf_digest_peek(const struct vf_digest *d, char ret_hex[VF_SHA256_HEX], struct vf_error *err)
{
    struct vf_digest copy = {.ctx = EVP_MD_CTX_new(), .failed = d->failed};

    if (!copy.failed &&
        (copy.ctx == NULL || EVP_MD_CTX_copy_ex((EVP_MD_CTX *)copy.ctx, (EVP_MD_CTX *)d->ctx) != 1))
        copy.failed = true;
    return vf_digest_finish(&copy, ret_hex, err);
}

int vf_digest_finish(struct vf_digest *d, char ret_hex[VF_SHA256_HEX], struct vf_error *err)
{
    uint8_t digest[VF_SHA256_LEN];
    int r = 0;

    if (d->failed || EVP_DigestFinal_ex((EVP_MD_CTX *)d->ctx, digest, NULL) != 1)
        r = vf_fail(err, VF_NO_MEMORY, "SHA-256 failed");
    else if (ret_hex != NULL)
        vf_hex(digest, sizeof(digest), ret_hex);
    EVP_MD_CTX_free((EVP_MD_CTX *)d->ctx);
    d->ctx = NULL;
    return r;
}

static int64_t to_ns(struct timespec t)
{
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void vf_stamp_of(const struct stat *st, struct vf_stamp *ret_stamp)
{
    memset(ret_stamp, 0, sizeof(*ret_stamp));
    ret_stamp->dev = st->st_dev;
    ret_stamp->ino = st->st_ino;
    ret_stamp->size = st->st_size;
    ret_stamp->mtime_ns = to_ns(st->st_mtim);
}

bool vf_stamp_equal(const struct vf_stamp *a, const struct vf_stamp *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->mtime_ns == b->mtime_ns;
}

static bool recall(const struct vf_stamp *stamp, int64_t ctime_ns, char ret_hex[VF_SHA256_HEX])
{
    bool found = false;

    pthread_mutex_lock(&cache_lock);
    for (size_t i = 0; i < cache_used && !found; i++) {
        if (cache[i].ctime_ns == ctime_ns && vf_stamp_equal(&cache[i].stamp, stamp)) {
            memcpy(ret_hex, cache[i].hex, VF_SHA256_HEX);
            found = true;
        }
    }
    pthread_mutex_unlock(&cache_lock);
    return found;
}

static void remember(const struct vf_stamp *stamp, int64_t ctime_ns, const char *hex)
{
    pthread_mutex_lock(&cache_lock);
    cache[cache_next].stamp = *stamp;
    cache[cache_next].ctime_ns = ctime_ns;
    memcpy(cache[cache_next].hex, hex, VF_SHA256_HEX);
    cache_next = (cache_next + 1) % CACHE_SIZE;
    if (cache_used < CACHE_SIZE)
        cache_used++;
    pthread_mutex_unlock(&cache_lock);
}

int vf_digest_fd(int fd, const char *what, int64_t *ret_size, char ret_hex[VF_SHA256_HEX],
                 struct vf_stamp *ret_stamp, struct vf_error *err)
{
    struct stat before, after;
    struct vf_stamp stamp, stamp_after;
    char hex[VF_SHA256_HEX];
    int64_t started_ns = vf_realtime_ns();

    if (fstat(fd, &before) != 0)
        return vf_fail_errno(err, errno, "%s: stat", what);
    vf_stamp_of(&before, &stamp);
    if (!recall(&stamp, to_ns(before.st_ctim), hex)) {
        int r = vf_sha256_fd(fd, what, hex, err);

        if (r < 0)
            return r;
        atomic_fetch_add(&reads, 1);
        if (fstat(fd, &after) != 0)
            return vf_fail_errno(err, errno, "%s: stat", what);
        vf_stamp_of(&after, &stamp_after);
        if (!vf_stamp_equal(&stamp, &stamp_after)) {
            vf_fail(err, VF_CONFLICT, "%s: changed while it was read", what);
            return vf_hint(err, "stop what writes to it and try again");
        }
        if (started_ns - to_ns(before.st_ctim) > SETTLED_NS)
            remember(&stamp, to_ns(before.st_ctim), hex);
    }
    *ret_size = before.st_size;
    memcpy(ret_hex, hex, VF_SHA256_HEX);
    if (ret_stamp != NULL)
        *ret_stamp = stamp;
    return 0;
}

int vf_digest_path(const char *path, const char *field, int64_t *ret_size,
                   char ret_hex[VF_SHA256_HEX], struct vf_stamp *ret_stamp, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    char what[512];
    int r;

    r = vf_open_regular(path, field, &fd, err);
    if (r < 0)
        return r;
    snprintf(what, sizeof(what), "%s: %s", field, path);
    return vf_digest_fd(fd, what, ret_size, ret_hex, ret_stamp, err);
}

uint64_t vf_digest_reads(void)
{
    return atomic_load(&reads);
}

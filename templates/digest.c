/* Digests of passing data, and a memory of the digests of files. See digest.h.
 *
 * A file is remembered by device, inode, size, mtime and ctime. One that changed just before it was
 * hashed could change again within the same tick of the file system's clock, unseen: such a file
 * is not remembered. Whoever asks for one that another thread is reading waits for that, instead of reading it too.
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

struct reading { /* on its thread's stack */
    struct vf_stamp stamp;
    int64_t ctime_ns;
    struct reading *next;
};

static struct cached cache[CACHE_SIZE];
static size_t cache_used, cache_next; /* a ring: the oldest goes first */
static struct reading *readings;
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t reading_ended = PTHREAD_COND_INITIALIZER;
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

static const struct cached *find(const struct reading *r)
{
    for (size_t i = 0; i < cache_used; i++)
        if (cache[i].ctime_ns == r->ctime_ns && vf_stamp_equal(&cache[i].stamp, &r->stamp))
            return &cache[i];
    return NULL;
}

static bool is_being_read(const struct reading *r)
{
    for (const struct reading *o = readings; o != NULL; o = o->next)
        if (o->ctime_ns == r->ctime_ns && vf_stamp_equal(&o->stamp, &r->stamp))
            return true;
    return false;
}

/* True: it was read before. False: the caller reads it now, and ends that with remember. */
static bool recall(struct reading *r, char ret_hex[VF_SHA256_HEX])
{
    const struct cached *c;

    pthread_mutex_lock(&cache_lock);
    while ((c = find(r)) == NULL && is_being_read(r))
        pthread_cond_wait(&reading_ended, &cache_lock);
    if (c != NULL) {
        memcpy(ret_hex, c->hex, VF_SHA256_HEX);
    } else {
        r->next = readings;
        readings = r;
    }
    pthread_mutex_unlock(&cache_lock);
    return c != NULL;
}

/* hex NULL: it is not to be remembered. */
static void remember(const struct reading *r, const char *hex)
{
    pthread_mutex_lock(&cache_lock);
    for (struct reading **at = &readings; *at != NULL; at = &(*at)->next)
        if (*at == r) {
            *at = r->next;
            break;
        }
    if (hex != NULL) {
        cache[cache_next].stamp = r->stamp;
        cache[cache_next].ctime_ns = r->ctime_ns;
        memcpy(cache[cache_next].hex, hex, VF_SHA256_HEX);
        cache_next = (cache_next + 1) % CACHE_SIZE;
        if (cache_used < CACHE_SIZE)
            cache_used++;
    }
    pthread_cond_broadcast(&reading_ended);
    pthread_mutex_unlock(&cache_lock);
}

/* Its file as it is before and after. */
static int read_all(int fd, const char *what, const struct reading *r, char ret_hex[VF_SHA256_HEX],
                    struct vf_error *err)
{
    struct vf_stamp after;
    struct stat st;
    int n = vf_sha256_fd(fd, what, ret_hex, err);

    if (n < 0)
        return n;
    atomic_fetch_add(&reads, 1);
    if (fstat(fd, &st) != 0)
        return vf_fail_errno(err, errno, "%s: stat", what);
    vf_stamp_of(&st, &after);
    if (vf_stamp_equal(&r->stamp, &after))
        return 0;
    vf_fail(err, VF_CONFLICT, "%s: changed while it was read", what);
    return vf_hint(err, "stop what writes to it and try again");
}

int vf_digest_fd(int fd, const char *what, int64_t *ret_size, char ret_hex[VF_SHA256_HEX],
                 struct vf_stamp *ret_stamp, struct vf_error *err)
{
    struct stat st;
    struct reading me;
    char hex[VF_SHA256_HEX];
    int64_t started_ns = vf_realtime_ns();

    if (fstat(fd, &st) != 0)
        return vf_fail_errno(err, errno, "%s: stat", what);
    vf_stamp_of(&st, &me.stamp);
    me.ctime_ns = to_ns(st.st_ctim);
    if (!recall(&me, hex)) {
        int r = read_all(fd, what, &me, hex, err);

        remember(&me, r == 0 && started_ns - me.ctime_ns > SETTLED_NS ? hex : NULL);
        if (r < 0)
            return r;
    }
    *ret_size = st.st_size;
    memcpy(ret_hex, hex, VF_SHA256_HEX);
    if (ret_stamp != NULL)
        *ret_stamp = me.stamp;
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

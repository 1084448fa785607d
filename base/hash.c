/* SHA-256, hexadecimal and random bytes. See hash.h.
 *
 * A file is hashed from one extent of data to the next; what lies between is fed as zeros. Extents
 * are found by lseek(2), which moves the position of its open file description, so the file is
 * opened anew through /proc first. Where that is not possible every byte is read instead.
 */
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"

#define CHUNK ((size_t)256 * 1024)

void vf_sha256(const void *data, size_t len, uint8_t ret[VF_SHA256_LEN])
{
    /* Fails only without memory, or without the algorithm: nothing of ours works then. */
    if (EVP_Digest(data, len, ret, NULL, EVP_sha256(), NULL) != 1)
        abort();
}

struct hashing {
    int fd;
    EVP_MD_CTX *ctx;
    char *buf; /* CHUNK bytes to read into */
    const char *what;
    struct vf_error *err;
};

static int update(struct hashing *h, const void *data, size_t len)
{
    if (EVP_DigestUpdate(h->ctx, data, len) != 1)
        return vf_fail(h->err, VF_INTERNAL, "%s: SHA-256 failed", h->what);
    return 0;
}

static int hash_zeros(struct hashing *h, off_t len)
{
    static const char zeros[65536];

    while (len > 0) {
        size_t n = len < (off_t)sizeof(zeros) ? (size_t)len : sizeof(zeros);
        int r = update(h, zeros, n);

        if (r < 0)
            return r;
        len -= (off_t)n;
    }
    return 0;
}

static int hash_data(struct hashing *h, off_t from, off_t to)
{
    while (from < to) {
        size_t want = to - from < (off_t)CHUNK ? (size_t)(to - from) : CHUNK;
        ssize_t n = pread(h->fd, h->buf, want, from);
        int r;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vf_fail_errno(h->err, errno, "%s: read", h->what);
        if (n == 0)
            return vf_fail(h->err, VF_CORRUPT, "%s: became shorter while it was hashed", h->what);
        r = update(h, h->buf, (size_t)n);
        if (r < 0)
            return r;
        from += n;
    }
    return 0;
}

/* The next extent of data at or after pos: [*from, *to), both at most size. */
static void next_extent(int seek_fd, off_t pos, off_t size, off_t *from, off_t *to)
{
    *from = pos;
    *to = size;
    if (seek_fd < 0)
        return;
    *from = lseek(seek_fd, pos, SEEK_DATA);
    if (*from < 0) {
        /* ENXIO: only a hole is left. Anything else: the file system can't tell. */
        *from = errno == ENXIO ? size : pos;
        return;
    }
    if (*from >= size) {
        *from = size;
        return;
    }
    *to = lseek(seek_fd, *from, SEEK_HOLE);
    if (*to < 0 || *to > size)
        *to = size;
}

static int hash_all(struct hashing *h)
{
    VF_CLEANUP_FD int seek_fd = -1;
    char path[40];
    struct stat st, end;
    off_t pos = 0;

    if (fstat(h->fd, &st) != 0)
        return vf_fail_errno(h->err, errno, "%s: stat", h->what);
    if (!S_ISREG(st.st_mode))
        return vf_fail(h->err, VF_INVALID_ARGUMENT, "%s: is not a regular file", h->what);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", h->fd);
    seek_fd = open(path, O_RDONLY | O_CLOEXEC);

    while (pos < st.st_size) {
        off_t from, to;
        int r;

        next_extent(seek_fd, pos, st.st_size, &from, &to);
        r = hash_zeros(h, from - pos);
        if (r == 0)
            r = hash_data(h, from, to);
        if (r < 0)
            return r;
        pos = to;
    }
    /* A file cut short under us looks like a hole at its end. */
    if (fstat(h->fd, &end) != 0)
        return vf_fail_errno(h->err, errno, "%s: stat", h->what);
    if (end.st_size != st.st_size)
        return vf_fail(h->err, VF_CORRUPT, "%s: changed its size while it was hashed", h->what);
    return 0;
}

int vf_sha256_fd(int fd, const char *what, char ret_hex[VF_SHA256_HEX], struct vf_error *err)
{
    struct hashing h = {.fd = fd, .what = what, .err = err};
    uint8_t digest[VF_SHA256_LEN];
    int r;

    h.ctx = EVP_MD_CTX_new();
    h.buf = (char *)malloc(CHUNK);
    if (h.ctx == NULL || h.buf == NULL)
        r = vf_fail(err, VF_NO_MEMORY, "%s: no memory to hash it", what);
    else if (EVP_DigestInit_ex(h.ctx, EVP_sha256(), NULL) != 1)
        r = vf_fail(err, VF_INTERNAL, "%s: SHA-256 is not available", what);
    else
        r = hash_all(&h);
    if (r == 0 && EVP_DigestFinal_ex(h.ctx, digest, NULL) != 1)
        r = vf_fail(err, VF_INTERNAL, "%s: SHA-256 failed", what);
    if (r == 0)
        vf_hex(digest, sizeof(digest), ret_hex);
    EVP_MD_CTX_free(h.ctx);
    free(h.buf);
    return r;
}

void vf_hex(const void *data, size_t len, char *ret)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = (const uint8_t *)data;

    for (size_t i = 0; i < len; i++) {
        ret[2 * i] = digits[p[i] >> 4];
        ret[2 * i + 1] = digits[p[i] & 15];
    }
    ret[2 * len] = '\0';
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int vf_unhex(const char *hex, void *ret, size_t len)
{
    uint8_t *out = (uint8_t *)ret;

    if (strlen(hex) != 2 * len)
        return -EINVAL;
    for (size_t i = 0; i < 2 * len; i++) {
        if (digit(hex[i]) < 0)
            return -EINVAL;
    }
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(digit(hex[2 * i]) * 16 + digit(hex[2 * i + 1]));
    return 0;
}

void vf_random(void *ret, size_t len)
{
    char *p = (char *)ret;

    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            abort();
        p += n;
        len -= (size_t)n;
    }
}

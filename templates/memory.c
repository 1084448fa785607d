/* A template's memory: made, sealed, stored and loaded. See memory.h.
 *
 * Storing and loading are one copy: extent by extent (lseek's SEEK_DATA; where a file system can't
 * tell, all is data), CHUNK by CHUNK, each chunk hashed, and of it what is not zero written at its
 * place in a file that was first stretched to its full size. Every byte is read once. What fails
 * on the way: a full disk (the file is removed), a file cut short or altered (found by size
 * and digest before anyone sees the memory), no memory for the memfd.
 */
#include "templates/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/digest.h"
#include "templates/host.h"

#define CHUNK ((size_t)1024 * 1024)
#define PAGE ((size_t)4096) /* what zero is looked for in; not the host's page size */
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

#ifndef MFD_NOEXEC_SEAL /* Linux 6.3 */
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static int stretch(int fd, uint64_t size)
{
    while (ftruncate(fd, (off_t)size) != 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

static int check_size(uint64_t size, struct vf_error *err)
{
    long page = sysconf(_SC_PAGESIZE);

    if (size == 0 || size > INT64_MAX || page <= 0 || size % (uint64_t)page != 0)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "template memory: size must be a multiple of the page size (is %" PRIu64 ")",
                       size);
    return 0;
}

static int stretch_memory(int fd, uint64_t size, struct vf_error *err)
{
    int r = stretch(fd, size);

    if (r == -EFBIG) {
        vf_fail_errno(err, EFBIG, "template memory of %" PRIu64 " MiB", size >> 20);
        return vf_hint(err, "raise the limit on the size of files (ulimit -f)");
    }
    return r < 0 ? vf_fail_errno(err, r, "template memory of %" PRIu64 " MiB", size >> 20) : 0;
}

int vf_memory_create(uint64_t size, const char *name, int *ret_fd, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    int r = check_size(size, err);

    if (r < 0)
        return r;
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return vf_fail_errno(err, errno, "template memory: memfd_create");
    r = stretch_memory(fd, size, err);
    if (r == 0)
        *ret_fd = vf_steal_fd(&fd);
    return r;
}

int vf_memory_create_file(int dirfd, const char *name, uint64_t size, int *ret_fd,
                          struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    int r = check_size(size, err);

    if (r < 0)
        return r;
    fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return vf_fail_errno(err, errno, "template memory: create '%s'", name);
    r = stretch_memory(fd, size, err);
    if (r < 0)
        unlinkat(dirfd, name, 0);
    else
        *ret_fd = vf_steal_fd(&fd);
    return r;
}

int vf_memory_is_sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & SEALS) == SEALS;
}

int vf_memory_seal(int fd, struct vf_error *err)
{
    if (vf_memory_is_sealed(fd))
        return 0;
    if (fcntl(fd, F_ADD_SEALS, SEALS) == 0)
        return 0;
    if (errno == EBUSY) {
        vf_fail(err, VF_CONFLICT,
                "template memory: can't be sealed, it is still mapped for writing");
        return vf_hint(err, "the template's VMM must have ended before its memory is sealed");
    }
    if (errno == EINVAL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "template memory: is no memfd that can be sealed");
    return vf_fail_errno(err, errno, "template memory: seal");
}

/* --- the copy */

struct copy {
    int src, dst;
    int seek_fd; /* src once more, with a position of its own; or -1 */
    uint64_t size;
    const char *src_name, *dst_name; /* for messages */
    struct vf_progress *progress;    /* or NULL */
    bool hash;                       /* whether digest is wanted */
    struct vf_digest digest;
    char *buf; /* CHUNK bytes */
    struct vf_error *err;
};

static void advance(struct copy *c, uint64_t bytes)
{
    if (c->progress != NULL)
        atomic_fetch_add_explicit(&c->progress->done_bytes, bytes, memory_order_relaxed);
}

/* The next extent of data at or after pos: [*from, *to), both at most the size. */
static void next_extent(const struct copy *c, uint64_t pos, uint64_t *from, uint64_t *to)
{
    off_t data = (off_t)pos, hole = (off_t)c->size;

    if (c->seek_fd >= 0) {
        data = lseek(c->seek_fd, (off_t)pos, SEEK_DATA);
        if (data < 0) /* ENXIO: only a hole is left; else the file system can't tell */
            data = errno == ENXIO ? (off_t)c->size : (off_t)pos;
        else
            hole = lseek(c->seek_fd, data, SEEK_HOLE);
    }
    *from = (uint64_t)data < c->size ? (uint64_t)data : c->size;
    *to = hole >= 0 && (uint64_t)hole < c->size ? (uint64_t)hole : c->size;
    if (*to < *from)
        *to = *from;
}

static bool all_zero(const char *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static int write_at(struct copy *c, const char *p, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(c->dst, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return vf_fail_errno(c->err, n < 0 ? errno : EIO, "%s: write", c->dst_name);
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* Writes what is not zero, in runs as long as they are. */
static int write_sparse(struct copy *c, size_t len, uint64_t at)
{
    size_t run = 0; /* start of the run not yet written */

    for (size_t i = 0; i < len; i += PAGE) {
        size_t n = len - i < PAGE ? len - i : PAGE;

        if (all_zero(c->buf + i, n)) {
            int r = write_at(c, c->buf + run, i - run, at + run);

            if (r < 0)
                return r;
            run = i + n;
        }
    }
    return write_at(c, c->buf + run, len - run, at + run);
}

/* Reads exactly len bytes into buf. */
static int read_at(struct copy *c, size_t len, uint64_t at)
{
    size_t got = 0;

    while (got < len) {
        ssize_t n = pread(c->src, c->buf + got, len - got, (off_t)(at + got));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vf_fail_errno(c->err, errno, "%s: read", c->src_name);
        if (n == 0)
            return vf_fail(c->err, VF_CORRUPT, "%s: became shorter while it was read", c->src_name);
        got += (size_t)n;
    }
    return 0;
}

static int copy_extents(struct copy *c)
{
    uint64_t pos = 0;

    while (pos < c->size) {
        uint64_t from, to;

        next_extent(c, pos, &from, &to);
        if (c->hash)
            vf_digest_zeros(&c->digest, from - pos);
        advance(c, from - pos);
        for (pos = from; pos < to;) {
            size_t n = to - pos < CHUNK ? (size_t)(to - pos) : CHUNK;
            int r = read_at(c, n, pos);

            if (r == 0) {
                if (c->hash)
                    vf_digest_data(&c->digest, c->buf, n);
                r = write_sparse(c, n, pos);
            }
            if (r < 0)
                return r;
            advance(c, n);
            pos += n;
        }
    }
    return 0;
}

/* Copies src, size bytes long, to dst, which is empty; ret_hex: the digest of it all, or NULL. */
static int copy_all(struct copy *c, char *ret_hex)
{
    VF_CLEANUP_FD int seek_fd = -1;
    char proc_path[40];
    int r, r2 = 0;

    c->hash = ret_hex != NULL;
    if (c->progress != NULL) {
        atomic_store(&c->progress->done_bytes, 0);
        atomic_store(&c->progress->total_bytes, c->size);
    }
    c->buf = (char *)malloc(CHUNK);
    if (c->buf == NULL)
        return vf_fail(c->err, VF_NO_MEMORY, "%s: no memory to copy it", c->src_name);
    /* lseek would move the position that others share with us through src. */
    snprintf(proc_path, sizeof(proc_path), "/proc/self/fd/%d", c->src);
    seek_fd = open(proc_path, O_RDONLY | O_CLOEXEC);
    c->seek_fd = seek_fd;

    if (c->hash)
        vf_digest_start(&c->digest);
    r = stretch(c->dst, c->size);
    if (r < 0)
        r = vf_fail_errno(c->err, r, "%s: stretch it to %" PRIu64 " bytes", c->dst_name, c->size);
    else
        r = copy_extents(c);
    if (c->hash)
        r2 = vf_digest_finish(&c->digest, ret_hex, r == 0 ? c->err : NULL);
    free(c->buf);
    return r < 0 ? r : r2;
}

static int size_of(int fd, const char *name, uint64_t *ret_size, uint64_t *ret_data,
                   struct vf_error *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return vf_fail_errno(err, errno, "%s: stat", name);
    if (!S_ISREG(st.st_mode))
        return vf_fail(err, VF_CORRUPT, "%s: is not a regular file", name);
    *ret_size = (uint64_t)st.st_size;
    *ret_data = (uint64_t)st.st_blocks * 512;
    return 0;
}

int vf_memory_take(int fd, const char *name, int *ret_fd, struct vf_error *err)
{
    struct copy c = {.src = fd,
                     .src_name = "the memory that was saved",
                     .dst_name = "template memory",
                     .err = err};
    VF_CLEANUP_FD int memory = -1;
    uint64_t data;
    int r = size_of(fd, c.src_name, &c.size, &data, err);

    if (r == 0)
        r = vf_memory_create(c.size, name, &memory, err);
    if (r < 0)
        return r;
    c.dst = memory;
    r = copy_all(&c, NULL);
    if (r == -ENOSPC) /* a memfd's way to say so */
        r = vf_fail(err, VF_NO_MEMORY, "template memory: no room for %" PRIu64 " MiB", data >> 20);
    if (r == 0)
        r = vf_memory_seal(memory, err);
    if (r == 0)
        *ret_fd = vf_steal_fd(&memory);
    return r;
}

int vf_memory_store(int fd, int dirfd, const char *name, struct vf_progress *progress,
                    char ret_sha256[VF_SHA256_HEX], struct vf_error *err)
{
    struct copy c = {.src = fd,
                     .src_name = "template memory",
                     .dst_name = name,
                     .progress = progress,
                     .err = err};
    VF_CLEANUP_FD int out = -1;
    char hex[VF_SHA256_HEX];
    uint64_t data;
    int r;

    r = size_of(fd, c.src_name, &c.size, &data, err);
    if (r < 0)
        return r;
    out = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out < 0)
        return vf_fail_errno(err, errno, "%s: create", name);
    c.dst = out;
    r = copy_all(&c, hex);
    if (r == 0 && fsync(out) != 0)
        r = vf_fail_errno(err, errno, "%s: fsync", name);
    if (r < 0) {
        unlinkat(dirfd, name, 0);
        if (r == -ENOSPC)
            vf_hint(err, "storing this memory takes up to %" PRIu64 " MiB where the store is",
                    (data >> 20) + 1);
        return r;
    }
    memcpy(ret_sha256, hex, sizeof(hex));
    return 0;
}

/* The host must be able to hold what is not a hole, or the load would end in the OOM killer. */
static int check_room(const char *name, uint64_t data, struct vf_error *err)
{
    uint64_t available;
    int r = vf_host_memory(NULL, &available, err);

    if (r < 0)
        return r;
    if (data <= available)
        return 0;
    vf_fail(err, VF_NO_MEMORY, "%s: needs %" PRIu64 " MiB of memory, %" PRIu64 " MiB are available",
            name, data >> 20, available >> 20);
    return vf_hint(err, "stop VMs or remove templates, or add memory");
}

int vf_memory_load(int dirfd, const char *name, uint64_t size, const char *sha256,
                   struct vf_progress *progress, int *ret_fd, struct vf_error *err)
{
    struct copy c = {
        .src_name = name, .dst_name = "template memory", .progress = progress, .err = err};
    VF_CLEANUP_FD int in = -1, memory = -1;
    char hex[VF_SHA256_HEX];
    uint64_t data;
    int r;

    in = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (in < 0 && errno == ENOENT)
        return vf_fail(err, VF_CORRUPT, "%s: is missing", name);
    if (in < 0)
        return vf_fail_errno(err, errno, "%s: open", name);
    r = size_of(in, name, &c.size, &data, err);
    if (r < 0)
        return r;
    if (c.size != size)
        return vf_fail(err, VF_CORRUPT, "%s: is %" PRIu64 " bytes long, must be %" PRIu64, name,
                       c.size, size);
    r = check_room(name, data, err);
    if (r == 0)
        r = vf_memory_create(size, "vmfactory-template", &memory, err);
    if (r < 0)
        return r;
    posix_fadvise(in, 0, 0, POSIX_FADV_SEQUENTIAL);
    c.src = in;
    c.dst = memory;
    r = copy_all(&c, hex);
    if (r == -ENOSPC) /* a memfd's way to say so */
        r = vf_fail(err, VF_NO_MEMORY, "%s: no memory to load its %" PRIu64 " MiB", name,
                    data >> 20);
    if (r < 0)
        return r;
    if (strcmp(hex, sha256) != 0)
        return vf_fail(err, VF_CORRUPT, "%s: its SHA-256 is %s, must be %s", name, hex, sha256);
    r = vf_memory_seal(memory, err);
    if (r < 0)
        return r;
    *ret_fd = vf_steal_fd(&memory);
    return 0;
}

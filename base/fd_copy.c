/* Copying a file. Happy path: the file system shares the blocks (FICLONE). Else extent by extent, holes left out, by
 * copy_file_range, and where that can't (between file systems, old kernels) through a buffer. Whoever wants it no more
 * is heard between two chunks; what was copied until then, or until a failure, is removed. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The next extent of data at or after pos: [*from, *to). Where a file system can't tell, all is data. */
static void next_extent(int fd, off_t pos, off_t size, off_t *from, off_t *to)
{
    off_t data = lseek(fd, pos, SEEK_DATA), hole = size;
    if (data < 0)
        data = errno == ENXIO ? size : pos;
    else if ((hole = lseek(fd, data, SEEK_HOLE)) < 0 || hole > size)
        hole = size;
    *from = data < size ? data : size;
    *to = hole > *from ? hole : *from;
}

static bool can_not_range(int e)
{
    return e == EXDEV || e == EINVAL || e == ENOSYS || e == EOPNOTSUPP || e == EPERM;
}

/* At most len bytes, at the same place; 0: the end of in. */
static ssize_t copy_some(int in, int out, off_t at, size_t len)
{
    char buf[65536];
    loff_t from = at, to = at;
    ssize_t n = copy_file_range(in, &from, out, &to, len, 0);
    if (n >= 0 || !can_not_range(errno))
        return n;
    n = pread(in, buf, len < sizeof(buf) ? len : sizeof(buf), at);
    return n > 0 ? pwrite(out, buf, (size_t)n, at) : n;
}

struct copy {
    int in, out;
    const char *to;
    bool (*go_on)(void *arg); /* may be NULL */
    void *arg;
};

static int copy_extents(const struct copy *c, off_t size, struct vf_error *err)
{
    const char *to = c->to;
    off_t from, end;
    for (off_t pos = 0; pos < size;) {
        next_extent(c->in, pos, size, &from, &end);
        for (pos = from; pos < end;) {
            size_t len = (size_t)(end - pos);
            if (c->go_on && !c->go_on(c->arg))
                return vf_fail(err, VF_CANCELLED, "'%s': nobody waits for the copy any more", to);
            ssize_t n = copy_some(c->in, c->out, pos, len < VF_COPY_CHUNK ? len : VF_COPY_CHUNK);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return vf_fail_errno(err, errno, "'%s'", to);
            if (n == 0)
                return vf_fail(err, VF_CORRUPT, "'%s': the original became shorter", to);
            pos += n;
        }
        if (from == end)
            pos = size;
    }
    return 0;
}

static int copy(const struct copy *c, off_t size, struct vf_error *err)
{
    if (ioctl(c->out, FICLONE, c->in) == 0)
        return 0;
    if (ftruncate(c->out, size) < 0)
        return vf_fail_errno(err, errno, "'%s'", c->to);
    return copy_extents(c, size, err);
}

int vf_copy_file_while(int from_dirfd, const char *from, int to_dirfd, const char *to, mode_t mode,
                       bool (*go_on)(void *arg), void *arg, struct vf_error *err)
{
    VF_CLEANUP_FD int in = openat(from_dirfd, from, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (in < 0 || fstat(in, &st) < 0)
        return vf_fail_errno(err, errno, "'%s'", from);
    if (!S_ISREG(st.st_mode)) /* another kind says no size: its copy would be empty, or never end */
        return vf_fail(err, VF_INVALID_ARGUMENT, "'%s': is no regular file", from);
    VF_CLEANUP_FD int out =
        openat(to_dirfd, to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (out < 0)
        return vf_fail_errno(err, errno, "'%s'", to);
    int r = copy(&(struct copy){in, out, to, go_on, arg}, st.st_size, err);
    if (r < 0)
        unlinkat(to_dirfd, to, 0);
    return r;
}

int vf_copy_file(int from_dirfd, const char *from, int to_dirfd, const char *to, mode_t mode,
                 struct vf_error *err)
{
    return vf_copy_file_while(from_dirfd, from, to_dirfd, to, mode, NULL, NULL, err);
}

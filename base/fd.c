/* Files and directories: opened with checks, read whole, replaced as one. See fd.h.
 *
 * vf_write_file: temporary file -> write -> fsync -> rename over the old one -> fsync the directory.
 * Whatever fails before the rename removes the temporary file and leaves the old one alone.
 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hash.h"

void vf_close_fd(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd); /* never again after EINTR: Linux has freed the number already */
    *fd = -1;
    errno = saved;
}

/* Creates every directory of path that is missing. path is changed and restored. */
static int make_dirs(char *path, mode_t mode)
{
    for (char *p = path + 1;; p++) {
        char c = *p;

        if (c != '/' && c != '\0')
            continue;
        *p = '\0';
        if (mkdir(path, mode) != 0 && errno != EEXIST) {
            int e = errno;

            *p = c;
            return -e;
        }
        *p = c;
        if (c == '\0')
            return 0;
    }
}

int vf_open_dir(const char *path, int make, mode_t mode, int *ret_fd, struct vf_error *err)
{
    int fd, r;

    if (make && path[0] != '\0') {
        VF_CLEANUP_FREE char *copy = strdup(path);

        if (copy == NULL)
            return vf_fail(err, VF_NO_MEMORY, "%s: no memory", path);
        r = make_dirs(copy, mode);
        if (r < 0)
            return vf_fail_errno(err, r, "%s: create the directory", path);
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return vf_fail_errno(err, errno, "%s: open the directory", path);
    *ret_fd = fd;
    return 0;
}

int vf_write_all(int fd, const void *data, size_t len, const char *what, struct vf_error *err)
{
    const char *p = (const char *)data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vf_fail_errno(err, errno, "%s: write", what);
        if (n == 0)
            return vf_fail(err, VF_IO, "%s: write: nothing was taken", what);
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* The last component of path, or NULL if that is none which a file could have. */
static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;

    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return NULL;
    return name;
}

/* Opens the directory that dirfd/path lies in; *ret_name is path's last component. */
static int open_parent(int dirfd, const char *path, int *ret_fd, const char **ret_name,
                       struct vf_error *err)
{
    VF_CLEANUP_FREE char *parent = NULL;
    const char *name = file_name(path);
    int fd;

    if (name == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "\"%s\" is no file name", path);
    if (name == path)
        parent = strdup(".");
    else /* keeps the slash: right for "/name" too */
        parent = strndup(path, (size_t)(name - path));
    if (parent == NULL)
        return vf_fail(err, VF_NO_MEMORY, "%s: no memory", path);
    fd = openat(dirfd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return vf_fail_errno(err, errno, "%s: open its directory", path);
    *ret_fd = fd;
    *ret_name = name;
    return 0;
}

static int write_temporary(int dirfd, const char *tmp, const char *path, const void *data,
                           size_t len, mode_t mode, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    int r;

    fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return vf_fail_errno(err, errno, "%s: create a temporary file beside it", path);
    if (fchmod(fd, mode) != 0)
        r = vf_fail_errno(err, errno, "%s: set its mode", path);
    else
        r = vf_write_all(fd, data, len, path, err);
    if (r == 0 && fsync(fd) != 0)
        r = vf_fail_errno(err, errno, "%s: fsync", path);
    if (r < 0)
        unlinkat(dirfd, tmp, 0);
    return r;
}

int vf_write_file(int dirfd, const char *name, const void *data, size_t len, mode_t mode,
                  struct vf_error *err)
{
    VF_CLEANUP_FD int parent = -1;
    char tmp[sizeof(VF_TMP_PREFIX) + 16];
    const char *last = name;
    uint64_t unique;
    int r;

    r = open_parent(dirfd, name, &parent, &last, err);
    if (r < 0)
        return r;
    vf_random(&unique, sizeof(unique));
    snprintf(tmp, sizeof(tmp), VF_TMP_PREFIX "%016" PRIx64, unique);
    r = write_temporary(parent, tmp, name, data, len, mode, err);
    if (r < 0)
        return r;
    if (renameat(parent, tmp, parent, last) != 0) {
        r = vf_fail_errno(err, errno, "%s: rename", name);
        unlinkat(parent, tmp, 0);
        return r;
    }
    /* EINVAL: a file system that does not sync directories. */
    if (fsync(parent) != 0 && errno != EINVAL)
        return vf_fail_errno(err, errno, "%s: fsync its directory", name);
    return 0;
}

/* What a file is, for messages. */
static const char *kind(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "a regular file";
    case S_IFDIR:
        return "a directory";
    case S_IFLNK:
        return "a symlink";
    case S_IFIFO:
        return "a pipe";
    case S_IFSOCK:
        return "a socket";
    case S_IFBLK:
        return "a block device";
    default:
        return "a character device";
    }
}

/* Opens what dirfd/path is if that is a regular file: 0 or a negative errno. If it is something
 * else, *ret_fd is -1 and *ret_st says what. It is looked at before (opening a device may do
 * something) and after (it may have been swapped); O_NONBLOCK keeps a pipe swapped in from blocking
 * us. */
static int open_if_regular(int dirfd, const char *path, bool follow, int *ret_fd,
                           struct stat *ret_st)
{
    VF_CLEANUP_FD int fd = -1;
    struct stat st;

    if (fstatat(dirfd, path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
        return -errno;
    if (S_ISREG(st.st_mode)) {
        fd = openat(dirfd, path,
                    O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
        if (fd < 0 || fstat(fd, &st) != 0)
            return -errno;
    }
    *ret_fd = S_ISREG(st.st_mode) ? vf_steal_fd(&fd) : -1;
    *ret_st = st;
    return 0;
}

/* Reads to the end of the file: its size may change, and files in /proc say 0. */
static int read_to_end(int fd, const char *name, size_t first, size_t max, char **ret_data,
                       size_t *ret_len, struct vf_error *err)
{
    VF_CLEANUP_FREE char *buf = NULL;
    size_t cap = 0, len = 0;

    for (;;) {
        ssize_t n;

        if (len + 1 >= cap) { /* one byte for the NUL */
            size_t want = cap == 0 ? first + 2 : cap * 2;
            char *bigger = (char *)realloc(buf, want);

            if (bigger == NULL)
                return vf_fail(err, VF_NO_MEMORY, "%s: no memory for %zu bytes", name, want);
            buf = bigger;
            cap = want;
        }
        n = read(fd, buf + len, cap - len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vf_fail_errno(err, errno, "%s: read", name);
        if (n == 0)
            break;
        len += (size_t)n;
        if (len > max)
            return vf_fail(err, VF_INVALID_ARGUMENT, "%s: is longer than the %zu bytes allowed",
                           name, max);
    }
    buf[len] = '\0';
    *ret_data = vf_steal_str(&buf);
    *ret_len = len;
    return 0;
}

int vf_read_file(int dirfd, const char *name, size_t max, char **ret_data, size_t *ret_len,
                 struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct stat st = {0};
    int r;

    r = open_if_regular(dirfd, name, false, &fd, &st);
    if (r < 0)
        return vf_fail_errno(err, r, "%s: open", name);
    if (fd < 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: is %s, must be a regular file", name,
                       kind(st.st_mode));
    if ((uint64_t)st.st_size > max)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "%s: is %" PRId64 " bytes long, at most %zu are "
                       "allowed",
                       name, (int64_t)st.st_size, max);
    return read_to_end(fd, name, (size_t)st.st_size < 4096 ? 4096 : (size_t)st.st_size, max,
                       ret_data, ret_len, err);
}

/* Says what is wrong with path, for which errnum was the answer. */
static int explain(int errnum, const char *field, const char *path, struct vf_error *err)
{
    struct stat st;

    switch (errnum) {
    case ENOENT:
        if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
            return vf_fail(err, VF_NOT_FOUND, "%s: %s: is a symlink to what does not exist", field,
                           path);
        return vf_fail(err, VF_NOT_FOUND, "%s: %s: does not exist", field, path);
    case ENOTDIR:
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s: a part of the path is not a directory",
                       field, path);
    case ELOOP:
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s: is a loop of symlinks", field, path);
    case EACCES:
    case EPERM:
        return vf_fail_errno(err, errnum, "%s: %s: can't be read", field, path);
    default:
        return vf_fail_errno(err, errnum, "%s: %s: open", field, path);
    }
}

int vf_open_regular(const char *path, const char *field, int *ret_fd, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct stat st = {0};
    int r;

    if (path == NULL || path[0] == '\0')
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: no path is given", field);
    r = open_if_regular(AT_FDCWD, path, true, &fd, &st);
    if (r < 0)
        return explain(-r, field, path, err);
    if (fd < 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s: is %s, must be a regular file", field,
                       path, kind(st.st_mode));
    if (st.st_size == 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s: is empty", field, path);
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

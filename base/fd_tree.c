/* Removing a directory with all that is in it. See fd.h.
 *
 * Depth first, by descriptors: each directory is opened without following a symlink and emptied
 * through that descriptor, so that nobody who swaps a directory for a symlink meanwhile can lead us
 * elsewhere. A directory on which something is mounted ends it with an error, before anything of
 * what is mounted there is gone.
 */
#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* One descriptor and one stack frame a level. */
#define MAX_DEPTH 128
/* How often a directory is read again because somebody puts files into it. */
#define MAX_PASSES 16

static int remove_entry(int dirfd, const char *name, dev_t dev, int depth, struct vf_error *err);

static int empty_once(DIR *d, dev_t dev, int depth, struct vf_error *err)
{
    rewinddir(d);
    for (;;) {
        struct dirent *e;
        int r;

        errno = 0;
        e = readdir(d);
        if (e == NULL)
            return errno != 0 ? vf_fail_errno(err, errno, "read the directory") : 0;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        r = remove_entry(dirfd(d), e->d_name, dev, depth, err);
        if (r < 0)
            return r;
    }
}

static int remove_dir(int parent, const char *name, DIR *d, dev_t dev, int depth,
                      struct vf_error *err)
{
    for (int pass = 0; pass < MAX_PASSES; pass++) {
        int r = empty_once(d, dev, depth, err);

        if (r < 0)
            return r;
        if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY && errno != EEXIST)
            return vf_fail_errno(err, errno, "remove the directory");
    }
    return vf_fail(err, VF_CONFLICT, "somebody keeps adding files to it");
}

/* Whether something is mounted on fd, a directory; where the kernel (before 5.8) does not say, whether
 * it lies on another file system than its parent. */
static int is_mounted_on(int fd, dev_t parent_dev, int depth, dev_t *ret_dev)
{
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) != 0)
        return -errno;
    *ret_dev = makedev(st.stx_dev_major, st.stx_dev_minor);
    if (st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT)
        return (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
    return depth > 0 && *ret_dev != parent_dev;
}

/* dev: the file system of dirfd; not used at depth 0. */
static int remove_entry(int dirfd, const char *name, dev_t dev, int depth, struct vf_error *err)
{
    dev_t own_dev = 0;
    DIR *d;
    int fd, r, mounted;

    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return vf_fail_errno(err, errno, "%s: remove", name);
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT)
            return 0;
        /* ENOTDIR: the EPERM above was about a file (immutable, or in a sticky directory). */
        return vf_fail_errno(err, errno == ENOTDIR ? EPERM : errno, "%s: remove", name);
    }
    mounted = is_mounted_on(fd, dev, depth, &own_dev);
    d = fdopendir(fd);
    if (d == NULL) {
        r = vf_fail_errno(err, errno, "open the directory");
        vf_close_fd(&fd);
    } else if (mounted < 0) {
        r = vf_fail_errno(err, mounted, "stat");
    } else if (mounted) {
        r = vf_fail(err, VF_CONFLICT, "another file system is mounted there");
    } else if (depth >= MAX_DEPTH) {
        r = vf_fail(err, VF_INVALID_ARGUMENT, "more than %d directories deep", MAX_DEPTH);
    } else {
        r = remove_dir(dirfd, name, d, own_dev, depth + 1, err);
    }
    if (d != NULL)
        closedir(d);
    if (r < 0)
        vf_wrap(err, "%s", name);
    return r;
}

int vf_remove_tree(int dirfd, const char *name, struct vf_error *err)
{
    const char *slash = strrchr(name, '/');
    const char *last = slash != NULL ? slash + 1 : name;

    if (last[0] == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "\"%s\" is nothing to remove", name);
    return remove_entry(dirfd, name, 0, 0, err);
}

/* Unix sockets by directory and name. See fd.h.
 *
 * sun_path holds 108 bytes, a run directory's path may be longer: the address is
 * /proc/self/fd/<dirfd>/<name>, which is short whatever the directory is called.
 */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int address(int dirfd, const char *name, struct sockaddr_un *ret, struct vf_error *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n;

    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        (dirfd != AT_FDCWD && strchr(name, '/') != NULL)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "\"%s\" is no name for a socket", name);
        return -EINVAL;
    }
    if (dirfd == AT_FDCWD)
        n = snprintf(a.sun_path, sizeof(a.sun_path), "%s", name);
    else
        n = snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/%s", dirfd, name);
    if (n < 0 || (size_t)n >= sizeof(a.sun_path)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: the name is too long for a socket", name);
        return -ENAMETOOLONG;
    }
    *ret = a;
    return 0;
}

static int failed(struct vf_error *err, int errnum, const char *name, const char *step)
{
    vf_fail_errno(err, errnum, "%s: %s", name, step);
    return -errnum;
}

int vf_unix_listen(int dirfd, const char *name, int backlog, int *ret_fd, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct sockaddr_un a;
    int r;

    r = address(dirfd, name, &a, err);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return failed(err, errno, name, "socket");
    /* On Linux the socket's own mode, less the umask, becomes the mode of the name: 0600 from the
     * start, without touching the umask of the whole process. */
    if (fchmod(fd, 0600) != 0)
        return failed(err, errno, name, "set the socket's mode");
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
        return failed(err, errno, name, "bind");
    if (listen(fd, backlog) != 0) {
        r = failed(err, errno, name, "listen");
        unlinkat(dirfd, name, 0);
        return r;
    }
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

int vf_unix_connect(int dirfd, const char *name, int *ret_fd, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct sockaddr_un a;
    int r;

    r = address(dirfd, name, &a, err);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return failed(err, errno, name, "socket");
    do {
        r = connect(fd, (struct sockaddr *)&a, sizeof(a));
    } while (r != 0 && errno == EINTR);
    if (r != 0)
        return failed(err, errno, name, "connect");
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

/* The run directory, its lock, and the listening sockets. See sockets.h.
 *
 * directory -> lock -> sockets of systemd's -> the missing ones bound here. Each is made for its owner alone and only
 * then opened to the group.
 */
#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/log.h"

#define BACKLOG 1024
#define FIRST_FD 3 /* of those handed over: sd_listen_fds(3) */

static const char *const files[SOCKET_COUNT] = {"api.sock", "stats.sock"};
static const char *const names[SOCKET_COUNT] = {"api", "stats"}; /* FileDescriptorName= */

int find_group(const char *name, gid_t *ret_gid, struct vf_error *err)
{
    const struct group *g;

    if (name == NULL) {
        *ret_gid = (gid_t)-1;
        return 0;
    }
    errno = 0;
    g = getgrnam(name);
    if (g == NULL && errno != 0)
        return vf_fail_errno(err, errno, "group %s", name);
    if (g == NULL)
        return vf_fail(err, VF_NOT_FOUND, "there is no group \"%s\"", name);
    *ret_gid = g->gr_gid;
    return 0;
}

/* Others must not be able to put something else in a socket's place. */
static int open_run_dir(const char *path, bool group, int *ret_fd, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct stat st;
    int r = vf_open_dir(path, 1, group ? 0755 : 0700, &fd, err);

    if (r < 0)
        return vf_wrap(err, "run directory");
    if (fstat(fd, &st) != 0)
        return vf_fail_errno(err, errno, "run directory %s", path);
    if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & S_IWOTH)) {
        vf_fail(err, VF_PERMISSION,
                "run directory %s: belongs to uid %u with mode %03o, others could replace what is "
                "in it",
                path, (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
        return vf_hint(err, "use a directory of your own that only you can write to");
    }
    /* The umask has cut what the group's members need to reach the sockets. */
    if (group && st.st_uid == geteuid() && (st.st_mode & 0777) == 0700 && fchmod(fd, 0755) != 0)
        return vf_fail_errno(err, errno, "run directory %s: open it to the group", path);
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

static int in_use(int64_t holder, const char *path, struct vf_error *err)
{
    if (holder > 0)
        vf_fail(err, VF_CONFLICT, "run directory %s: is in use by vmfactoryd pid %" PRId64, path,
                holder);
    else
        vf_fail(err, VF_CONFLICT, "run directory %s: is in use by another process", path);
    return vf_hint(err, "stop that daemon, or give this one a --run and a --state of its own");
}

static int take_lock(int dirfd, const char *path, int *ret_fd, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = openat(dirfd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    int64_t holder = 0;
    int r;

    if (fd < 0)
        return vf_fail_errno(err, errno, "run directory %s: open its lock", path);
    r = vf_lock_file(fd, &holder);
    if (r == -EWOULDBLOCK)
        return in_use(holder, path, err);
    if (r < 0)
        return vf_fail_errno(err, r, "run directory %s: lock", path);
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

/* --- handed over by systemd */

/* That fd is what the API and the stats server can accept on. */
static bool is_listening_unix(int fd)
{
    int type = 0, accepting = 0, domain = 0;
    socklen_t len = sizeof(int);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
           getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &len) == 0 && accepting != 0;
}

static int adopt(struct sockets *s, int fd, const char *name, struct vf_error *err)
{
    int which = 0;

    while (which < SOCKET_COUNT && strcmp(names[which], name) != 0)
        which++;
    if (which == SOCKET_COUNT || s->sockets[which].fd >= 0) {
        vf_log(VF_LOG_WARN, NULL,
               "a socket named \"%s\" was handed over; only \"%s\" and \"%s\" "
               "are known, once each",
               name, names[SOCKET_API], names[SOCKET_STATS]);
        close(fd);
        return 0;
    }
    if (!is_listening_unix(fd))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "the socket handed over as \"%s\" is no listening unix stream socket", name);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 ||
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0)
        return vf_fail_errno(err, errno, "the socket handed over as \"%s\"", name);
    s->sockets[which].fd = fd;
    return 0;
}

/* $LISTEN_FDS descriptors from 3 on, named in $LISTEN_FDNAMES, if they are meant for this process. */
static int adopt_all(struct sockets *s, struct vf_error *err)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    const char *fdnames = getenv("LISTEN_FDNAMES");
    char *copy = NULL, *rest = NULL;
    int n, r = 0;

    if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != (long)getpid())
        return 0;
    n = (int)strtol(count, NULL, 10);
    copy = rest = strdup(fdnames != NULL ? fdnames : "");
    if (copy == NULL)
        return vf_fail(err, VF_NO_MEMORY, "LISTEN_FDNAMES: no memory");
    for (int i = 0; i < n && r == 0; i++) {
        const char *name = strsep(&rest, ":");

        r = adopt(s, FIRST_FD + i, name != NULL ? name : "", err);
    }
    free(copy);
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return r;
}

/* --- our own */

/* Under the lock. What is no socket was not put there by a daemon, and stays. */
static int remove_stale(int dirfd, const char *file, struct vf_error *err)
{
    struct stat st;

    if (fstatat(dirfd, file, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0 : vf_fail_errno(err, errno, "%s", file);
    if (!S_ISSOCK(st.st_mode)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: is there already, and is no socket", file);
        return vf_hint(err, "move it away");
    }
    if (unlinkat(dirfd, file, 0) != 0 && errno != ENOENT)
        return vf_fail_errno(err, errno, "%s: remove the old one", file);
    return 0;
}

static int bind_own(struct sockets *s, int which, gid_t gid, struct vf_error *err)
{
    const char *file = files[which];
    int r = remove_stale(s->dirfd, file, err);

    if (r < 0)
        return r;
    r = vf_unix_listen(s->dirfd, file, BACKLOG, &s->sockets[which].fd, err);
    if (r < 0)
        return r;
    s->sockets[which].own = true;
    if (gid == (gid_t)-1)
        return 0;
    if (fchownat(s->dirfd, file, (uid_t)-1, gid, AT_SYMLINK_NOFOLLOW) != 0) {
        vf_fail_errno(err, errno, "%s: give it to group %u", file, (unsigned)gid);
        return vf_hint(err, "only root, or a member of the group, can");
    }
    if (fchmodat(s->dirfd, file, 0660, 0) != 0)
        return vf_fail_errno(err, errno, "%s: open it to its group", file);
    return 0;
}

static int open_all(const struct vf_settings *settings, struct sockets *s, struct vf_error *err)
{
    gid_t gid = (gid_t)-1;
    int r = find_group(settings->group, &gid, err);

    if (r == 0)
        r = open_run_dir(settings->run_dir, settings->group != NULL, &s->dirfd, err);
    if (r == 0)
        r = take_lock(s->dirfd, settings->run_dir, &s->lock_fd, err);
    if (r == 0)
        r = adopt_all(s, err);
    for (int i = 0; i < SOCKET_COUNT && r == 0; i++) {
        if (s->sockets[i].fd >= 0)
            continue;
        r = bind_own(s, i, gid, err);
        if (r < 0)
            vf_wrap(err, "run directory %s", settings->run_dir);
    }
    return r;
}

int sockets_open(const struct vf_settings *settings, struct sockets *ret, struct vf_error *err)
{
    struct sockets s = {.dirfd = -1, .lock_fd = -1, .sockets = {{.fd = -1}, {.fd = -1}}};
    int r = open_all(settings, &s, err);

    if (r < 0) {
        sockets_close(&s);
        return r;
    }
    *ret = s;
    return 0;
}

void sockets_close(struct sockets *s)
{
    for (int i = 0; i < SOCKET_COUNT; i++) {
        if (s->sockets[i].own)
            unlinkat(s->dirfd, files[i], 0);
        s->sockets[i].own = false;
        vf_close_fd(&s->sockets[i].fd);
    }
    vf_close_fd(&s->lock_fd); /* after the names are gone */
    vf_close_fd(&s->dirfd);
}

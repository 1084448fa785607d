/* See conn.h. open -> send -> fill … take -> send … -> close. */
#include "tools/client/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"

static int timed_out(struct vf_error *err, const char *what)
{
    return vf_fail(err, VF_TIMEOUT, "vmfactoryd did not %s in time", what);
}

/* The address of path, through *ret_dirfd (or -1) if it is too long for one. */
static int address(const char *path, struct sockaddr_un *ret, int *ret_dirfd, struct vf_error *err)
{
    const char *slash = strrchr(path, '/');
    char dir[4096];
    int n, fd;

    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) < sizeof(ret->sun_path)) {
        memcpy(ret->sun_path, path, strlen(path) + 1);
        return 0;
    }
    if (slash == NULL || (size_t)(slash - path) >= sizeof(dir))
        return vf_fail_errno(err, ENAMETOOLONG, "%.100s…", path);
    memcpy(dir, path, (size_t)(slash - path));
    dir[slash - path] = '\0';
    fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        n = errno;
        vf_fail_errno(err, n, "%s", dir);
        return -n;
    }
    n = snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d%s", fd, slash);
    if (n < 0 || (size_t)n >= sizeof(ret->sun_path)) {
        close(fd);
        return vf_fail_errno(err, ENAMETOOLONG, "%s", slash + 1);
    }
    *ret_dirfd = fd;
    return 0;
}

/* Sets one of the socket's time limits so that it does not pass the deadline. A shorter one stays if it is not much
 * shorter: when it passes, the caller comes here again. So requests with different deadlines, in turn, set nothing. */
static int limit(struct vf_conn *c, int which, int *current_ms, int64_t deadline_us)
{
    int left = vf_deadline_left_ms(deadline_us), want = left < 0 ? 0 : left;
    struct timeval tv;

    if (left == 0)
        return -ETIMEDOUT;
    if (want == *current_ms ||
        (*current_ms > 0 && left > 0 && *current_ms <= left && left / 4 < *current_ms))
        return 0;
    tv = (struct timeval){.tv_sec = want / 1000, .tv_usec = want % 1000 * 1000};
    if (setsockopt(c->fd, SOL_SOCKET, which, &tv, sizeof(tv)) != 0)
        return -errno;
    *current_ms = want;
    return 0;
}

/* With a descriptor for cancelling: waits for the socket or for that. */
static int wait_for(struct vf_conn *c, short events, int64_t deadline_us, struct vf_error *err)
{
    struct pollfd p[2] = {{.fd = c->fd, .events = events}, {.fd = c->cancel_fd, .events = POLLIN}};

    for (;;) {
        int left = vf_deadline_left_ms(deadline_us), r;

        r = poll(p, 2, left);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return vf_fail_errno(err, errno, "poll");
        if (p[1].revents != 0)
            return vf_fail(err, VF_CANCELLED, "cancelled");
        if (r > 0)
            return 0;
        if (left == 0)
            return -ETIMEDOUT;
    }
}

int vf_conn_open(struct vf_conn *c, const char *path, int64_t deadline_us, struct vf_error *err)
{
    struct sockaddr_un a;
    int dirfd = -1, r;

    r = address(path, &a, &dirfd, err);
    if (r < 0)
        return r;
    if (c->buf == NULL)
        c->buf = malloc(VF_CONN_BUFFER);
    c->fd = c->buf != NULL ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (c->fd < 0) {
        r = c->buf != NULL ? -errno : -ENOMEM;
        vf_fail_errno(err, r, "socket");
        goto out;
    }
    c->start = c->end = 0;
    c->rcv_timeo_ms = c->snd_timeo_ms = 0;
    do {
        /* With the daemon's backlog full, connect waits: SO_SNDTIMEO bounds that, too. */
        r = limit(c, SO_SNDTIMEO, &c->snd_timeo_ms, deadline_us);
        if (r == 0)
            r = connect(c->fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? 0 : -errno;
    } while (r == -EINTR);
    if (r == -EAGAIN || r == -EINPROGRESS || r == -ETIMEDOUT) {
        timed_out(err, "take the connection");
        r = -ETIMEDOUT;
    } else if (r < 0)
        vf_fail_errno(err, r, "%s", path);
    if (r < 0)
        vf_conn_close(c);
    c->used_us = vf_now_us();
out:
    if (dirfd >= 0)
        close(dirfd);
    return r;
}

void vf_conn_close(struct vf_conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->buf);
    c->fd = -1;
    c->buf = NULL;
    c->start = c->end = 0;
}

bool vf_conn_stale(struct vf_conn *c)
{
    char byte;

    return c->start != c->end || recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 ||
           (errno != EAGAIN && errno != EINTR);
}

int vf_conn_send(struct vf_conn *c, const void *data, size_t len, int64_t deadline_us,
                 size_t *ret_sent, struct vf_error *err)
{
    size_t done = 0;
    int r = 0;

    while (done < len && r == 0) {
        int flags = MSG_NOSIGNAL | (c->cancel_fd >= 0 ? MSG_DONTWAIT : 0);
        ssize_t n;

        if (c->cancel_fd < 0)
            r = limit(c, SO_SNDTIMEO, &c->snd_timeo_ms, deadline_us);
        if (r < 0)
            break;
        n = send(c->fd, (const char *)data + done, len - done, flags);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN && c->cancel_fd >= 0)
            r = wait_for(c, POLLOUT, deadline_us, err);
        else if (errno != EINTR && errno != EAGAIN)
            r = -errno;
    }
    if (ret_sent != NULL)
        *ret_sent = done;
    if (r == -ETIMEDOUT)
        timed_out(err, "take the request");
    else if (r < 0 && r != -ECANCELED)
        vf_fail_errno(err, r, "send");
    return r;
}

int vf_conn_fill(struct vf_conn *c, int64_t deadline_us, struct vf_error *err)
{
    int r = 0;

    if (c->start == c->end)
        c->start = c->end = 0;
    if (c->end == VF_CONN_BUFFER && c->start > 0) {
        memmove(c->buf, c->buf + c->start, c->end - c->start);
        c->end -= c->start;
        c->start = 0;
    }
    if (c->end == VF_CONN_BUFFER)
        return -ENOBUFS;
    while (r == 0) {
        ssize_t n;

        r = c->cancel_fd >= 0 ? wait_for(c, POLLIN, deadline_us, err)
                              : limit(c, SO_RCVTIMEO, &c->rcv_timeo_ms, deadline_us);
        if (r < 0)
            break;
        n = recv(c->fd, c->buf + c->end, VF_CONN_BUFFER - c->end, 0);
        if (n >= 0) {
            c->end += (size_t)n;
            return (int)n;
        }
        if (errno != EAGAIN && errno != EINTR)
            r = -errno;
    }
    if (r == -ETIMEDOUT)
        timed_out(err, "answer");
    else if (r != -ECANCELED)
        vf_fail_errno(err, r, "receive");
    return r;
}

void vf_conn_take(struct vf_conn *c, size_t n)
{
    c->start += n;
    if (c->start == c->end)
        c->start = c->end = 0;
}

/* The descriptor to the host and the queue of what goes out.
 *
 * On a socket that the host connects to (listen.c) there is no descriptor in between, and the queue waits.
 *
 * A virtio-serial port without a host answers read with 0 and poll with POLLHUP, for as long as the
 * host is away (after a restore, or when the host's program restarts). So it is watched edge by edge:
 * one event when the host leaves and one when it is back, and no spinning in between. What is written
 * while it is away would be thrown away by the VMM, so the queue waits; and once the host is back it
 * waits for the host's first word, which may be a HELLO, to which the old talk means nothing.
 *
 * The queue starts at its buffer's beginning whenever it is empty: short answers touch one page.
 */
#include "tools/agent/agent.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define QUEUE_FRAMES 8

struct vf_wire_writer writer;
static uint8_t queue[QUEUE_FRAMES * VF_WIRE_MAX_FRAME + 1];
static size_t queue_start, queue_end;
static int channel_fd = -1, channel_epoll_fd;
static bool host_away;   /* as of the last event */
static bool silent;      /* the host was away and has not spoken since */
static bool wants_write; /* EPOLLOUT is asked for */
static bool listens;     /* the descriptor is a connection, or there is none */

struct search {
    char name[128]; /* of the virtio-serial port, or the path of the serial device */
    bool port;
    int fd; /* found and opened, or -1 */
    int err;
};

static void set_raw(int fd)
{
    struct termios t;

    if (tcgetattr(fd, &t) != 0)
        return;
    cfmakeraw(&t);
    t.c_cflag |= CLOCAL | CREAD;
    t.c_cflag &= ~(tcflag_t)CRTSCTS;
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    cfsetspeed(&t, B115200);
    tcsetattr(fd, TCSANOW, &t);
}

static void try_open(struct search *s, const char *path)
{
    s->fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (s->fd < 0)
        s->err = -errno;
    else if (isatty(s->fd))
        set_raw(s->fd);
}

/* Is there a port with this name, and does it open? */
static bool look(void *arg)
{
    struct search *s = arg;
    char path[320], name[128];

    if (!s->port) {
        try_open(s, s->name);
        return s->fd >= 0;
    }
    DIR *d = opendir("/sys/class/virtio-ports");
    for (struct dirent *e; d && s->fd < 0 && (e = readdir(d));) {
        snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", e->d_name);
        if (e->d_name[0] == '.' || read_text(path, name, sizeof(name)) < 0 ||
            strcmp(name, s->name) != 0)
            continue;
        snprintf(path, sizeof(path), "/dev/%s", e->d_name);
        try_open(s, path);
    }
    if (d)
        closedir(d);
    return s->fd >= 0;
}

static void hang_up(void)
{
    if (channel_fd >= 0)
        close(channel_fd);
    channel_fd = -1;
}

static int take(int fd)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.u64 = TAG_CHANNEL};

    channel_fd = fd;
    host_away = silent = wants_write = false;
    channel_restart();
    return epoll_ctl(channel_epoll_fd, EPOLL_CTL_ADD, channel_fd, &ev) == 0 ? 0 : -errno;
}

bool channel_announces(void)
{
    return !listens;
}

bool channel_accept(void)
{
    int fd = listen_accept();

    if (fd < 0)
        return false;
    hang_up();
    take(fd);
    return true;
}

int channel_open(const char *spec, int epoll_fd)
{
    struct search s = {.fd = -1};
    const char *colon = strchr(spec, ':');

    hang_up();
    channel_epoll_fd = epoll_fd;
    listens = listen_is_for(spec);
    if (listens) {
        host_away = true;
        return listen_open(spec, epoll_fd);
    }
    s.port = strncmp(spec, "virtio-serial:", 14) == 0;
    if (!colon || (!s.port && strncmp(spec, "serial:", 7) != 0) || colon[1] == 0 ||
        strlen(colon + 1) >= sizeof(s.name))
        return -EINVAL;
    strcpy(s.name, colon + 1);
    if (!wait_for_device(look, &s, 5000)) {
        say("waiting for the channel %s%s%s", spec, s.err ? ": " : "",
            s.err ? strerror(-s.err) : "");
        wait_for_device(look, &s, -1);
    }
    return take(s.fd);
}

void channel_event(uint32_t events)
{
    bool away = (events & EPOLLHUP) != 0;

    if (listens)
        return; /* its end is read */
    /* Only as it leaves: its first word may be here before the news that it is back, and the answer then waits for
     * that news. */
    silent = silent || (away && !host_away);
    host_away = away;
}

ssize_t channel_read(void *buf, size_t size)
{
    while (channel_fd >= 0) {
        ssize_t n = read(channel_fd, buf, size);
        if (n == 0 && listens)
            return -EPIPE;
        if (n >= 0)
            return n;
        if (errno == EINTR)
            continue;
        return errno == EAGAIN || (errno == EPIPE && !listens) ? 0 : -errno;
    }
    return 0;
}

void channel_heard(void)
{
    silent = false;
}

bool channel_room(unsigned frames)
{
    /* Full of an old talk, and the word that would let it go can't be heard: it gives way. */
    if (silent && sizeof(queue) - queue_end < CHANNEL_ANSWER * (size_t)VF_WIRE_MAX_FRAME)
        channel_restart();
    return sizeof(queue) - queue_end >= frames * (size_t)VF_WIRE_MAX_FRAME;
}

void channel_send(void)
{
    queue_end += vf_wire_end(&writer, queue + queue_end);
}

void channel_restart(void)
{
    queue_start = 0;
    queue[0] = 0;
    queue_end = 1;
}

static void want_write(bool want)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET | (want ? EPOLLOUT : 0),
                             .data.u64 = TAG_CHANNEL};

    if (channel_fd >= 0 && want != wants_write &&
        epoll_ctl(channel_epoll_fd, EPOLL_CTL_MOD, channel_fd, &ev) == 0)
        wants_write = want;
}

void channel_flush(void)
{
    while (queue_start < queue_end && !host_away && !silent) {
        ssize_t n = write(channel_fd, queue + queue_start, queue_end - queue_start);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        queue_start += (size_t)n;
    }
    if (queue_start == queue_end)
        queue_start = queue_end = 0;
    want_write(queue_end > 0 && !silent);
}

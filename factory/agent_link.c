/* The three links: a unix socket is connected; a vsock's socket is connected and told the port, and its
 * answer read; FIFOs are opened, one to write and one to read.
 *
 * On the way: the answer does not come, is late or in pieces, is no "OK n", or the first frames come in one
 * piece with it; the socket is closed before it; nobody has the socket's other end any more.
 */
#include "factory/agent_link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/wire.h"

static void on_timer(uv_timer_t *t);

static void on_handle_closed(uv_handle_t *h)
{
    struct vf_agent_link *l = h->data;
    if (h != (uv_handle_t *)&l->timer)
        free(h);
    if (--l->handles == 0 && l->closing)
        l->closed(l->arg);
}

static void hang_up(struct vf_agent_link *l)
{
    if (l->out && l->out != l->in)
        uv_close((uv_handle_t *)l->out, on_handle_closed);
    if (l->in)
        uv_close((uv_handle_t *)l->in, on_handle_closed);
    l->in = l->out = NULL;
    l->state = VF_AGENT_DOWN;
}

static void fail(struct vf_agent_link *l, const struct vf_error *err)
{
    if (l->failed || l->closing)
        return;
    l->failed = true;
    vf_agent_link_stop(l);
    l->ops->down(l->arg, err);
}

/* ---- dialling */

/* The first tries follow each other closely: a guest that has just been started listens within a moment. */
static int64_t pause_ms(const struct vf_agent_link *l)
{
    int64_t ms = l->tries < 6 ? 1LL << l->tries : VF_AGENT_REDIAL_MAX_MS;
    return ms < VF_AGENT_REDIAL_MAX_MS ? ms : VF_AGENT_REDIAL_MAX_MS;
}

static void again_later(struct vf_agent_link *l)
{
    hang_up(l);
    if (!l->ops->wanted(l->arg)) {
        uv_timer_stop(&l->timer);
        return;
    }
    vf_timer_at(&l->timer, vf_deadline_after_ms(pause_ms(l)), on_timer);
    l->tries++;
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    /* One loop, one thread, and the bytes are used up within on_read. */
    static _Thread_local char shared[65536];
    (void)h;
    (void)suggested;
    *buf = uv_buf_init(shared, sizeof(shared));
}

static bool is_ok(const char *line)
{
    return strncmp(line, "OK ", 3) == 0 && line[3] && strspn(line + 3, "0123456789") <= 10 &&
           line[3 + strspn(line + 3, "0123456789")] == '\0';
}

static void bad_answer(struct vf_agent_link *l)
{
    struct vf_error e;
    vf_fail(&e, VF_PROTOCOL,
            "agent: the VMM answered CONNECT with \"%s\", not with \"OK\" and a port", l->line);
    for (char *p = e.msg; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
            *p = '?';
    fail(l, &e);
}

/* Takes the answer to CONNECT, up to the end of its line. Returns how many bytes it took. */
static size_t take_answer(struct vf_agent_link *l, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] == '\n' || p[i] == '\0' || l->line_len == VF_AGENT_OK_MAX - 1) {
            l->line[l->line_len] = '\0';
            if (p[i] == '\n' && is_ok(l->line)) {
                uv_timer_stop(&l->timer);
                l->state = VF_AGENT_UP;
                l->ops->up(l->arg);
            } else
                bad_answer(l);
            return i + 1;
        }
        l->line[l->line_len++] = (char)p[i];
    }
    return len;
}

static void on_closed(struct vf_agent_link *l, int status)
{
    struct vf_error e;
    if (l->kind == VF_LINK_VSOCK && l->dirfd >= 0 &&
        (l->state == VF_AGENT_DIALLING || l->ops->may_redial(l->arg))) {
        again_later(l);
        return;
    }
    vf_fail(&e, VF_GUEST_FAILED, "agent: the channel was closed (%s)", uv_strerror(status));
    fail(l, &e);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct vf_agent_link *l = stream->data;
    const uint8_t *p = (const uint8_t *)buf->base;
    if (n == 0 || l->closing || l->failed || stream != (uv_stream_t *)l->in)
        return;
    if (n < 0) {
        on_closed(l, (int)n);
        return;
    }
    size_t took = l->state == VF_AGENT_DIALLING ? take_answer(l, p, (size_t)n) : 0;
    if (took < (size_t)n && l->state == VF_AGENT_UP && !l->closing && !l->failed &&
        stream == (uv_stream_t *)l->in)
        l->ops->input(l->arg, p + took, (size_t)n - took);
}

/* Takes fd in any case. */
static int open_pipe(struct vf_agent_link *l, int fd, uv_pipe_t **ret_pipe, struct vf_error *err)
{
    uv_pipe_t *pipe = malloc(sizeof(*pipe));
    if (!pipe) {
        close(fd);
        return vf_fail(err, VF_NO_MEMORY, "agent: channel");
    }
    int r = uv_pipe_init(l->loop, pipe, 0);
    if (r < 0) {
        close(fd);
        free(pipe);
        return vf_fail_errno(err, r, "agent: channel");
    }
    pipe->data = l;
    l->handles++;
    *ret_pipe = pipe;
    r = uv_pipe_open(pipe, fd);
    if (r < 0)
        close(fd);
    return r < 0 ? vf_fail_errno(err, r, "agent: channel") : 0;
}

static int start_reading(struct vf_agent_link *l, struct vf_error *err)
{
    int r = uv_read_start((uv_stream_t *)l->in, on_alloc, on_read);
    return r < 0 ? vf_fail_errno(err, r, "agent: channel") : 0;
}

static int connect_socket(struct vf_agent_link *l, int dirfd, const char *name,
                          struct vf_error *err)
{
    int fd;
    int r = vf_unix_connect(dirfd, name, &fd, err);
    if (r < 0) {
        vf_wrap(err, "agent");
        return r;
    }
    r = open_pipe(l, fd, &l->in, err);
    l->out = l->in;
    return r < 0 ? r : start_reading(l, err);
}

/* A full backlog is the VMM's, which may be stuck for a moment. */
static int dial(struct vf_agent_link *l, struct vf_error *err)
{
    char line[24];
    int len = snprintf(line, sizeof(line), "CONNECT %d\n", VF_WIRE_VSOCK_PORT);
    uv_buf_t buf = uv_buf_init(line, (unsigned)len);
    int r = connect_socket(l, l->dirfd, VF_LINK_VSOCK_NAME, err);
    if (r == -EAGAIN) {
        again_later(l);
        return 0;
    }
    if (r < 0)
        return r;
    l->state = VF_AGENT_DIALLING;
    l->line_len = 0;
    if (uv_try_write((uv_stream_t *)l->in, &buf, 1) != len) { /* closed already */
        again_later(l);
        return 0;
    }
    vf_timer_at(&l->timer, vf_deadline_after_ms(VF_AGENT_OK_TIMEOUT_MS), on_timer);
    return 0;
}

static void on_timer(uv_timer_t *t)
{
    struct vf_agent_link *l = t->data;
    struct vf_error e;
    if (l->closing || l->failed || l->state == VF_AGENT_UP)
        return;
    hang_up(l); /* what was not answered */
    if (!l->ops->wanted(l->arg))
        return;
    if (dial(l, &e) < 0)
        fail(l, &e);
}

/* ---- FIFOs */

static int open_fifo(int dirfd, const char *name, int flags, int *ret_fd, struct vf_error *err)
{
    struct stat st;
    VF_CLEANUP_FD int fd = openat(dirfd, name, flags | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    /* Nobody reads a FIFO that can't be opened for writing. */
    int r = fd < 0 ? (errno == ENXIO ? -ECONNREFUSED : -errno) : 0;
    if (r == 0 && fstat(fd, &st) < 0)
        r = -errno;
    if (r == 0 && !S_ISFIFO(st.st_mode))
        r = -ENOTSUP;
    if (r < 0) {
        vf_fail_errno(err, r, "agent: %s", name);
        return r;
    }
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

static int open_fifos(struct vf_agent_link *l, int dirfd, struct vf_error *err)
{
    int fd;
    int r = open_fifo(dirfd, VF_LINK_FIFO_OUT_NAME, O_RDONLY, &fd, err);
    if (r == 0)
        r = open_pipe(l, fd, &l->in, err);
    if (r == 0)
        r = open_fifo(dirfd, VF_LINK_FIFO_IN_NAME, O_WRONLY, &fd, err);
    if (r == 0)
        r = open_pipe(l, fd, &l->out, err);
    return r < 0 ? r : start_reading(l, err);
}

/* ---- what the agent's client uses */

int vf_agent_link_open(struct vf_agent_link *l, uv_loop_t *loop, int dirfd, enum vf_link kind,
                       const struct vf_agent_link_ops *ops, void *arg, struct vf_error *err)
{
    int r;
    *l = (struct vf_agent_link){.loop = loop, .kind = kind, .ops = ops, .arg = arg, .dirfd = -1};
    if (kind == VF_LINK_VSOCK && (l->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0)) < 0)
        return vf_fail_errno(err, errno, "agent: channel");
    r = uv_timer_init(loop, &l->timer);
    if (r < 0) {
        vf_close_fd(&l->dirfd);
        return vf_fail_errno(err, r, "agent: channel");
    }
    l->timer.data = l;
    l->handles = 1;
    if (kind == VF_LINK_VSOCK)
        return dial(l, err);
    r = kind == VF_LINK_FIFOS ? open_fifos(l, dirfd, err)
                              : connect_socket(l, dirfd, VF_LINK_SOCKET_NAME, err);
    if (r == 0)
        l->state = VF_AGENT_UP;
    return r;
}

void vf_agent_link_want(struct vf_agent_link *l)
{
    if (l->kind != VF_LINK_VSOCK || l->state != VF_AGENT_DOWN || l->failed || l->closing ||
        uv_is_active((uv_handle_t *)&l->timer))
        return;
    l->tries = 0;
    vf_timer_at(&l->timer, vf_now_us(), on_timer);
}

void vf_agent_link_redial(struct vf_agent_link *l)
{
    if (l->kind != VF_LINK_VSOCK || l->failed || l->closing || l->dirfd < 0)
        return;
    hang_up(l);
    l->tries = 0;
    vf_timer_at(&l->timer, vf_now_us(), on_timer);
}

void vf_agent_link_settle(struct vf_agent_link *l)
{
    if (l->kind == VF_LINK_VSOCK)
        vf_close_fd(&l->dirfd);
}

void vf_agent_link_stop(struct vf_agent_link *l)
{
    if (l->in)
        uv_read_stop((uv_stream_t *)l->in);
    if (l->handles && !l->closing)
        uv_timer_stop(&l->timer);
}

void vf_agent_link_close(struct vf_agent_link *l, void (*closed)(void *arg))
{
    l->closing = true;
    l->closed = closed;
    hang_up(l);
    if (l->kind == VF_LINK_VSOCK)
        vf_close_fd(&l->dirfd);
    uv_close((uv_handle_t *)&l->timer, on_handle_closed);
}

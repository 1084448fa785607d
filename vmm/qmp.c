/* The QMP client: reads lines, matches replies to commands by id, hands events on; writes commands,
 * each with at most one descriptor. What ends a connection is listed in qmp.h; then all that is
 * pending fails, in order, and `broken` is called.
 */
#include "vmm/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/fd.h"

static void on_poll(uv_poll_t *poll, int status, int events);

static void drop_output(struct vf_qmp *q)
{
    for (int i = 0; i < q->n_out; i++) {
        free(q->out[i].text);
        vf_close_fd(&q->out[i].fd);
    }
    q->n_out = 0;
    q->out_bytes = 0;
}

/* Callbacks may call vf_qmp_close: closing is checked after each. */
static void break_connection(struct vf_qmp *q, const struct vf_error *err)
{
    if (q->is_broken || q->closing)
        return;
    q->is_broken = true;
    uv_poll_stop(&q->poll);
    drop_output(q);
    for (int i = 0; i < VF_QMP_MAX_PENDING && !q->closing; i++) {
        vf_qmp_reply_cb done = q->pending[i].done;
        q->pending[i].done = NULL;
        if (q->pending[i].id == 0)
            continue;
        q->pending[i].id = 0;
        if (done)
            done(q->pending[i].arg, NULL, err);
    }
    if (!q->closing)
        q->cb->broken(q->arg, err);
}

/* ---- output */

static void update_poll(struct vf_qmp *q)
{
    bool want_write = q->greeted && q->n_out > 0;
    uv_poll_start(&q->poll, UV_READABLE | (want_write ? UV_WRITABLE : 0), on_poll);
}

static ssize_t send_piece(int sock, const char *data, size_t len, int fd)
{
    struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        msg.msg_control = control.buf;
        msg.msg_controllen = sizeof(control.buf);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A failed read or write. A peer that is gone shows as any of these, depending on what it left unread. */
static void socket_error(struct vf_qmp *q, const char *what, int errnum)
{
    struct vf_error e;
    if (errnum == EPIPE || errnum == ECONNRESET)
        vf_fail(&e, VF_VMM_DIED, "QMP: the VMM closed the connection");
    else
        vf_fail(&e, VF_PROTOCOL, "QMP: %s: %s", what, strerror(errnum));
    break_connection(q, &e);
}

static void flush_output(struct vf_qmp *q)
{
    while (q->greeted && q->n_out > 0) {
        ssize_t n = send_piece(q->fd, q->out[0].text + q->out[0].sent,
                               q->out[0].len - q->out[0].sent, q->out[0].fd);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n < 0) {
            socket_error(q, "write", errno);
            return;
        }
        vf_close_fd(&q->out[0].fd);
        q->out[0].sent += (size_t)n;
        if (q->out[0].sent < q->out[0].len)
            continue;
        q->out_bytes -= q->out[0].len;
        free(q->out[0].text);
        memmove(&q->out[0], &q->out[1], sizeof(q->out[0]) * (size_t)--q->n_out);
    }
    update_poll(q);
}

int vf_qmp_execute(struct vf_qmp *q, const char *command, const char *args, int fd,
                   vf_qmp_reply_cb done, void *arg, struct vf_error *err)
{
    if (q->is_broken || q->closing)
        return vf_fail(err, VF_VMM_DIED, "QMP: %s: not connected", command);
    int slot = 0;
    while (slot < VF_QMP_MAX_PENDING && q->pending[slot].id)
        slot++;
    if (slot == VF_QMP_MAX_PENDING || q->n_out == VF_QMP_MAX_PENDING)
        return vf_fail(err, VF_BUSY, "QMP: %s: %d commands are pending", command,
                       VF_QMP_MAX_PENDING);
    char *text;
    uint32_t id = ++q->next_id;
    int len = asprintf(&text, "{\"execute\":\"%s\",\"id\":%u%s%s}\n", command, id,
                       args ? ",\"arguments\":" : "", args ? args : "");
    if (len < 0)
        return vf_fail(err, VF_NO_MEMORY, "QMP: %s", command);
    int dup_fd = -1;
    if (q->out_bytes + (size_t)len > VF_QMP_MAX_OUT) {
        free(text);
        return vf_fail(err, VF_BUSY, "QMP: %s: %d bytes of output are queued", command,
                       VF_QMP_MAX_OUT);
    }
    if (fd >= 0 && (dup_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
        int e = errno;
        free(text);
        return vf_fail_errno(err, e, "QMP: %s: descriptor", command);
    }
    q->out[q->n_out].text = text;
    q->out[q->n_out].len = (size_t)len;
    q->out[q->n_out].sent = 0;
    q->out[q->n_out].fd = dup_fd;
    q->n_out++;
    q->out_bytes += (size_t)len;
    q->pending[slot].id = id;
    q->pending[slot].command = command;
    q->pending[slot].done = done;
    q->pending[slot].arg = arg;
    /* Sent now unless the socket is full; a failure shows up as a readable socket, on the loop, so
     * that no callback comes before this returns. */
    while (q->greeted && q->n_out == 1 && q->out[0].sent == 0) {
        ssize_t n = send_piece(q->fd, text, (size_t)len, dup_fd);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        vf_close_fd(&q->out[0].fd);
        q->out[0].sent = (size_t)n;
        if (n == len) {
            free(text);
            q->n_out = 0;
            q->out_bytes = 0;
        }
    }
    update_poll(q);
    return 0;
}

/* ---- input */

static void protocol_error(struct vf_qmp *q, const char *what)
{
    struct vf_error e;
    vf_fail(&e, VF_PROTOCOL, "QMP: %s", what);
    break_connection(q, &e);
}

static void on_greeting(struct vf_qmp *q, const struct vf_json *msg)
{
    const struct vf_json *v = vf_json_get(vf_json_get(vf_json_get(msg, "QMP"), "version"), "qemu");
    if (!vf_json_is_object(v)) {
        protocol_error(q, "the first message is no greeting");
        return;
    }
    char version[32];
    snprintf(version, sizeof(version), "%d.%d.%d", (int)vf_json_int(vf_json_get(v, "major"), 0),
             (int)vf_json_int(vf_json_get(v, "minor"), 0),
             (int)vf_json_int(vf_json_get(v, "micro"), 0));
    q->greeted = true;
    q->cb->greeting(q->arg, version);
    if (!q->closing && !q->is_broken)
        flush_output(q);
}

static void on_reply(struct vf_qmp *q, const struct vf_json *msg)
{
    int64_t id = vf_json_int(vf_json_get(msg, "id"), 0);
    int slot = 0;
    while (slot < VF_QMP_MAX_PENDING && (id <= 0 || q->pending[slot].id != id))
        slot++;
    if (slot == VF_QMP_MAX_PENDING) {
        protocol_error(q, "a reply to no command");
        return;
    }
    vf_qmp_reply_cb done = q->pending[slot].done;
    const char *command = q->pending[slot].command;
    q->pending[slot].id = 0;
    q->pending[slot].done = NULL;
    if (!done)
        return;
    const struct vf_json *error = vf_json_get(msg, "error");
    if (error) {
        struct vf_error e;
        vf_fail(&e, VF_VMM_FAILED, "QMP: %s: %.300s", command,
                vf_json_str(vf_json_get(error, "desc"), "(no description)"));
        done(q->pending[slot].arg, NULL, &e);
    } else
        done(q->pending[slot].arg, vf_json_get(msg, "return"), NULL);
}

static void on_line(struct vf_qmp *q, const char *line, size_t len)
{
    while (len && (line[len - 1] == '\r' || line[len - 1] == ' '))
        len--;
    if (len == 0)
        return;
    struct vf_json *msg = vf_json_parse(line, len);
    if (!vf_json_is_object(msg))
        protocol_error(q, "a line that is no JSON object");
    else if (!q->greeted)
        on_greeting(q, msg);
    else if (vf_json_get(msg, "event")) {
        const char *name = vf_json_str(vf_json_get(msg, "event"), "");
        q->cb->event(q->arg, name, vf_json_get(msg, "data"));
    } else
        on_reply(q, msg);
    vf_json_delete(msg);
}

/* One read a wake-up: a peer that floods can't keep the loop to itself. */
static void read_input(struct vf_qmp *q)
{
    if (q->in_cap - q->in_len < 4096) {
        size_t cap = q->in_cap ? q->in_cap * 2 : 8192;
        if (cap > VF_QMP_MAX_LINE) {
            protocol_error(q, "a line longer than 256 KiB");
            return;
        }
        char *in = realloc(q->in, cap);
        if (!in) {
            protocol_error(q, "out of memory");
            return;
        }
        q->in = in;
        q->in_cap = cap;
    }
    ssize_t n = recv(q->fd, q->in + q->in_len, q->in_cap - q->in_len, MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)
            return;
        socket_error(q, "read", errno);
        return;
    }
    if (n == 0) {
        socket_error(q, "read", EPIPE);
        return;
    }
    size_t start = 0, scanned = q->in_len;
    q->in_len += (size_t)n;
    while (!q->closing && !q->is_broken) {
        char *nl = memchr(q->in + scanned, '\n', q->in_len - scanned);
        if (!nl)
            break;
        size_t end = (size_t)(nl - q->in);
        on_line(q, q->in + start, end - start);
        start = scanned = end + 1;
    }
    memmove(q->in, q->in + start, q->in_len - start);
    q->in_len -= start;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct vf_qmp *q = poll->data;
    if (q->closing || q->is_broken)
        return;
    if (status < 0) {
        /* libuv stopped polling and says EBADF whatever the error is: the socket knows better, after
         * what is still to be read. */
        read_input(q);
        if (!q->closing && !q->is_broken)
            update_poll(q);
        return;
    }
    if (events & UV_READABLE)
        read_input(q);
    if (!q->closing && !q->is_broken && (events & UV_WRITABLE))
        flush_output(q);
}

/* ---- opening and closing */

int vf_qmp_open(struct vf_qmp *q, uv_loop_t *loop, int fd, const struct vf_qmp_callbacks *cb,
                void *arg, struct vf_error *err)
{
    *q = (struct vf_qmp){.fd = fd, .cb = cb, .arg = arg};
    int r = uv_poll_init(loop, &q->poll, fd);
    if (r < 0) {
        vf_close_fd(&q->fd);
        return vf_fail_errno(err, r, "QMP: poll");
    }
    q->poll.data = q;
    q->polling = true;
    update_poll(q);
    return 0;
}

static void on_poll_closed(uv_handle_t *h)
{
    struct vf_qmp *q = h->data;
    vf_close_fd(&q->fd);
    q->polling = false;
    free(q->in);
    q->in = NULL;
    q->on_closed(h);
}

bool vf_qmp_close(struct vf_qmp *q, uv_close_cb on_closed)
{
    if (!q->polling || q->closing)
        return false;
    q->closing = true;
    drop_output(q);
    memset(q->pending, 0, sizeof(q->pending));
    q->on_closed = on_closed;
    uv_close((uv_handle_t *)&q->poll, on_poll_closed);
    return true;
}

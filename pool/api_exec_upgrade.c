/* The upgraded form of an exec: frames both ways on the connection's socket (pool/exec_frames.h).
 *
 *     exec started -> 101 -> output: queue -> frames, as the socket takes them
 *                            input: frames -> stdin, as the guest's window takes it -> else the socket waits
 *                         -> exit: a last frame behind all output -> closed
 *
 * What a client ends, even if only its own half, kills the command. Memory: the queue, bounded by the guest's
 * windows, and one buffer of input.
 */
#include "pool/api_exec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "pool/api_upgrade.h"
#include "pool/exec_frames.h"
#include "pool/exec_text.h"

#define INPUT 16384
#define DRAIN_AT_MOST (1 << 20)

struct session {
    struct vf_api_upgrade up;
    struct vf_exec *exec; /* NULL: it has ended */
    /* to the client */
    struct vf_exec_queue queue;
    uint8_t head[VF_EXEC_FRAME_HEADER];
    size_t head_at, body_left; /* of the frame being sent */
    bool in_frame, in_end;     /* in_end: the frame is the last one */
    char *end;                 /* its payload; NULL: not yet */
    bool ended;
    /* from the client */
    struct vf_exec_decoder decoder;
    uint8_t *in;
    size_t in_cap, in_len, in_at;
    const uint8_t *held; /* stdin that waits for the guest, within in */
    size_t held_len;
    bool held_end; /* its end waits */
    int held_signal;
};

static void flush(struct session *s);

/* ---- to the client */

/* Lays out the next frame; false: there is none now. */
static bool next_frame(struct session *s)
{
    const uint8_t *data;
    size_t len;
    int fd;

    if (vf_exec_queue_peek(&s->queue, &fd, &data, &len)) {
        vf_exec_frame_header(s->head, fd == 1 ? VF_EXEC_STDOUT : VF_EXEC_STDERR, len);
    } else if (s->ended && s->end != NULL && !s->in_end) {
        len = strlen(s->end);
        vf_exec_frame_header(s->head, VF_EXEC_EXIT, len);
        s->in_end = true;
    } else {
        return false;
    }
    s->body_left = len;
    s->head_at = 0;
    s->in_frame = true;
    return true;
}

/* What the socket took of the frame. */
static void sent(struct session *s, size_t n)
{
    size_t head = VF_EXEC_FRAME_HEADER - s->head_at;

    head = n < head ? n : head;
    s->head_at += head;
    n -= head;
    s->body_left -= n;
    if (!s->in_end) {
        if (n > 0 || (s->head_at == VF_EXEC_FRAME_HEADER && s->body_left == 0))
            vf_exec_queue_take(&s->queue, n);
        if (n > 0 && s->exec != NULL)
            vf_exec_consumed(s->exec, n);
    }
    s->in_frame = s->head_at < VF_EXEC_FRAME_HEADER || s->body_left > 0;
}

/* 1: all of the frame, 0: the socket is full, -1: the client is gone. */
static int send_frame(struct session *s)
{
    const uint8_t *body = NULL;
    size_t len;
    int fd;

    while (s->in_frame) {
        if (s->in_end)
            body = (uint8_t *)s->end + strlen(s->end) - s->body_left;
        else
            vf_exec_queue_peek(&s->queue, &fd, &body, &len);
        struct iovec iov[2] = {{s->head + s->head_at, VF_EXEC_FRAME_HEADER - s->head_at},
                               {(void *)body, s->body_left}};
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
        ssize_t n = sendmsg(s->up.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
        sent(s, (size_t)n);
    }
    return 1;
}

static void update_poll(struct session *s)
{
    bool blocked = s->held_len > 0 || s->held_end || s->held_signal != 0;
    int events = 0;

    if (!blocked && !s->ended)
        events |= UV_READABLE;
    if (s->in_frame)
        events |= UV_WRITABLE;
    vf_api_upgrade_poll(&s->up, events);
}

/* A socket closed with input unread resets the connection under what was just sent. */
static void drain(int fd)
{
    char buf[4096];
    ssize_t n, all = 0;

    while (all < DRAIN_AT_MOST && (n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
        all += n;
}

static void flush(struct session *s)
{
    int r = 1;

    if (!vf_api_upgrade_open(&s->up))
        return;
    while (r == 1 && (s->in_frame || next_frame(s)))
        r = send_frame(s);
    if (r < 0 || (r == 1 && s->ended)) {
        if (r == 1)
            drain(s->up.fd);
        vf_api_upgrade_end(&s->up);
        return;
    }
    update_poll(s);
}

/* ---- the command */

/* Ends it with err, whatever it does. */
static void give_up(struct session *s, const struct vf_error *err)
{
    if (s->exec != NULL)
        vf_exec_abandon(s->exec);
    s->exec = NULL;
    if (!s->ended)
        s->end = vf_exec_end_text(NULL, err);
    s->ended = true;
}

static void on_output(void *arg, int fd, const void *data, size_t len)
{
    struct session *s = arg;
    struct vf_error err;

    if (vf_exec_queue_put(&s->queue, fd, data, len) < 0) {
        vf_fail(&err, VF_NO_MEMORY, "exec: output");
        give_up(s, &err);
    }
    flush(s);
}

static void on_exited(void *arg, const struct vf_exec_status *status, const struct vf_error *err)
{
    struct session *s = arg;

    s->exec = NULL;
    s->end = vf_exec_end_text(status, err);
    s->ended = true;
    flush(s);
}

/* ---- from the client */

/* Gives the guest what waits for it; false: it takes no more now. A channel that broke is told of by on_exited. */
static bool give_held(struct session *s)
{
    struct vf_error err = {0};
    ssize_t n;

    if (s->exec == NULL) {
        s->held_len = 0;
        s->held_end = false;
        s->held_signal = 0;
    }
    if (s->held_len > 0) {
        n = vf_exec_write(s->exec, s->held, s->held_len, &err);
        n = n < 0 ? (ssize_t)s->held_len : n;
        s->held += n;
        s->held_len -= (size_t)n;
    }
    if (s->held_end)
        s->held_end = vf_exec_close_stdin(s->exec, &err) < 0 && err.code == VF_BUSY;
    if (s->held_signal != 0 &&
        (vf_exec_kill(s->exec, s->held_signal, &err) == 0 || err.code != VF_BUSY))
        s->held_signal = 0;
    return s->held_len == 0 && !s->held_end && s->held_signal == 0;
}

static void process(struct session *s)
{
    struct vf_error err = {0};
    struct vf_exec_piece piece;

    while (give_held(s) && !s->ended && s->in_at < s->in_len) {
        ssize_t n =
            vf_exec_decode(&s->decoder, s->in + s->in_at, s->in_len - s->in_at, &piece, &err);

        if (n < 0) {
            give_up(s, &err);
            flush(s);
            return;
        }
        s->in_at += (size_t)n;
        s->held = piece.data;
        s->held_len = piece.len;
        s->held_end = piece.what == VF_EXEC_SAID_END;
        s->held_signal = piece.signal;
    }
    update_poll(s);
}

static void on_writable(void *arg)
{
    struct session *s = arg;

    if (vf_api_upgrade_open(&s->up))
        process(s);
}

static void on_readable(struct session *s)
{
    ssize_t n;

    do {
        n = recv(s->up.fd, s->in, s->in_cap, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n <= 0) {
        vf_api_upgrade_end(&s->up);
        return;
    }
    s->in_len = (size_t)n;
    s->in_at = 0;
    process(s);
}

/* ---- life */

static void ready(struct vf_api_upgrade *u, int events)
{
    struct session *s = (struct session *)u;

    if (events & UV_READABLE)
        on_readable(s);
    if (!u->closing && (events & UV_WRITABLE))
        flush(s);
}

static void begun(struct vf_api_upgrade *u, const char *extra, size_t extra_len)
{
    struct session *s = (struct session *)u;

    s->in_cap = extra_len > INPUT ? extra_len : INPUT;
    s->in = malloc(s->in_cap);
    if (s->in == NULL) {
        vf_api_upgrade_end(u);
        return;
    }
    if (extra_len > 0)
        memcpy(s->in, extra, extra_len);
    s->in_len = extra_len;
    process(s);
    flush(s);
}

static void ended(struct vf_api_upgrade *u)
{
    struct session *s = (struct session *)u;

    if (s->exec != NULL)
        vf_exec_abandon(s->exec);
    s->exec = NULL;
}

static void freed(struct vf_api_upgrade *u)
{
    struct session *s = (struct session *)u;

    vf_exec_queue_free(&s->queue);
    free(s->end);
    free(s->in);
    free(s);
}

void vf_api_exec_upgrade(struct vf_http_req *req, struct vf_api *a, const struct vf_exec_body *body)
{
    static const struct vf_exec_callbacks callbacks = {on_output, on_writable, on_exited};
    static const struct vf_api_upgrade_ops ops = {VF_EXEC_PROTOCOL, begun, ready, ended, freed};
    struct session *s = calloc(1, sizeof(*s));
    struct vf_error err = {0};

    if (s == NULL) {
        vf_fail(&err, VF_NO_MEMORY, "exec");
        vf_http_reply_error(req, &err, 0);
        return;
    }
    if (vf_api_exec_start(req, a, body, &callbacks, s, &s->exec) < 0) {
        free(s);
        return;
    }
    vf_api_upgrade(req, a, &s->up, &ops);
}

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
#include "pool/exec_frames.h"
#include "pool/exec_text.h"

#define INPUT 16384
#define DRAIN_AT_MOST (1 << 20)

struct vf_exec_upgrade {
    struct vf_api *api;
    struct vf_exec_upgrade *prev, *next; /* of the API, once upgraded */
    struct vf_exec *exec;                /* NULL: it has ended */
    struct vf_http_upgraded *up;         /* NULL: not upgraded yet */
    uv_poll_t poll;
    int fd, polled;
    bool closing;
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

static void end_session(struct vf_exec_upgrade *s);
static void flush(struct vf_exec_upgrade *s);

static void free_session(struct vf_exec_upgrade *s)
{
    vf_exec_queue_free(&s->queue);
    free(s->end);
    free(s->in);
    free(s);
}

/* ---- to the client */

/* Lays out the next frame; false: there is none now. */
static bool next_frame(struct vf_exec_upgrade *s)
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
static void sent(struct vf_exec_upgrade *s, size_t n)
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
static int send_frame(struct vf_exec_upgrade *s)
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
        ssize_t n = sendmsg(s->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
        sent(s, (size_t)n);
    }
    return 1;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void update_poll(struct vf_exec_upgrade *s)
{
    bool blocked = s->held_len > 0 || s->held_end || s->held_signal != 0;
    int events = UV_DISCONNECT;

    if (s->closing)
        return;
    if (!blocked && !s->ended)
        events |= UV_READABLE;
    if (s->in_frame)
        events |= UV_WRITABLE;
    if (events != s->polled && uv_poll_start(&s->poll, events, on_poll) < 0) {
        end_session(s);
        return;
    }
    s->polled = events;
}

/* A socket closed with input unread resets the connection under what was just sent. */
static void drain(int fd)
{
    char buf[4096];
    ssize_t n, all = 0;

    while (all < DRAIN_AT_MOST && (n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
        all += n;
}

static void flush(struct vf_exec_upgrade *s)
{
    int r = 1;

    if (s->up == NULL || s->closing)
        return;
    while (r == 1 && (s->in_frame || next_frame(s)))
        r = send_frame(s);
    if (r < 0 || (r == 1 && s->ended)) {
        if (r == 1)
            drain(s->fd);
        end_session(s);
        return;
    }
    update_poll(s);
}

/* ---- the command */

/* Ends it with err, whatever it does. */
static void give_up(struct vf_exec_upgrade *s, const struct vf_error *err)
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
    struct vf_exec_upgrade *s = arg;
    struct vf_error err;

    if (vf_exec_queue_put(&s->queue, fd, data, len) < 0) {
        vf_fail(&err, VF_NO_MEMORY, "exec: output");
        give_up(s, &err);
    }
    flush(s);
}

static void on_exited(void *arg, const struct vf_exec_status *status, const struct vf_error *err)
{
    struct vf_exec_upgrade *s = arg;

    s->exec = NULL;
    s->end = vf_exec_end_text(status, err);
    s->ended = true;
    flush(s);
}

/* ---- from the client */

/* Gives the guest what waits for it; false: it takes no more now. A channel that broke is told of by on_exited. */
static bool give_held(struct vf_exec_upgrade *s)
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

static void process(struct vf_exec_upgrade *s)
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
    struct vf_exec_upgrade *s = arg;

    if (s->up != NULL && !s->closing)
        process(s);
}

static void on_readable(struct vf_exec_upgrade *s)
{
    ssize_t n;

    do {
        n = recv(s->fd, s->in, s->in_cap, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n <= 0) {
        end_session(s);
        return;
    }
    s->in_len = (size_t)n;
    s->in_at = 0;
    process(s);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct vf_exec_upgrade *s = poll->data;

    if (status < 0 || (events & UV_DISCONNECT)) {
        end_session(s);
        return;
    }
    if (events & UV_READABLE)
        on_readable(s);
    if (!s->closing && (events & UV_WRITABLE))
        flush(s);
}

/* ---- life */

static void on_closed(uv_handle_t *h)
{
    struct vf_exec_upgrade *s = h->data;
    struct vf_api *a = s->api;
    struct vf_http_upgraded *up;
    bool last;

    if (s->next != NULL)
        s->next->prev = s->prev;
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        a->upgrades = s->next;
    up = s->up;
    last = a->upgrades == NULL && !a->http_closing;
    free_session(s);
    vf_http_upgrade_close(
        up); /* it may be what the server's end waits for, and then a is no more */
    if (last)
        vf_api_upgrades_over(a);
}

static void end_session(struct vf_exec_upgrade *s)
{
    if (s->closing)
        return;
    s->closing = true;
    if (s->exec != NULL)
        vf_exec_abandon(s->exec);
    s->exec = NULL;
    uv_close((uv_handle_t *)&s->poll, on_closed);
}

void vf_exec_upgrades_end(struct vf_api *a)
{
    for (struct vf_exec_upgrade *s = a->upgrades; s != NULL; s = s->next)
        end_session(s);
}

static void on_failed(void *arg)
{
    struct vf_exec_upgrade *s = arg;

    if (s->exec != NULL)
        vf_exec_abandon(s->exec);
    free_session(s);
}

static void on_upgraded(void *arg, struct vf_http_upgraded *u, int fd, const char *extra,
                        size_t extra_len)
{
    struct vf_exec_upgrade *s = arg;

    s->in_cap = extra_len > INPUT ? extra_len : INPUT;
    s->in = malloc(s->in_cap);
    if (s->in == NULL || uv_poll_init(s->api->loop, &s->poll, fd) < 0) {
        vf_http_upgrade_close(u);
        on_failed(s);
        return;
    }
    s->poll.data = s;
    s->up = u;
    s->fd = fd;
    s->next = s->api->upgrades;
    if (s->next != NULL)
        s->next->prev = s;
    s->api->upgrades = s;
    if (s->api->closing) {
        end_session(s);
        return;
    }
    if (extra_len > 0)
        memcpy(s->in, extra, extra_len);
    s->in_len = extra_len;
    process(s);
    flush(s);
}

void vf_api_exec_upgrade(struct vf_http_req *req, struct vf_api *a, const struct vf_exec_body *body)
{
    static const struct vf_exec_callbacks callbacks = {on_output, on_writable, on_exited};
    struct vf_exec_upgrade *s = calloc(1, sizeof(*s));
    struct vf_error err = {0};

    if (s == NULL) {
        vf_fail(&err, VF_NO_MEMORY, "exec");
        vf_http_reply_error(req, &err, 0);
        return;
    }
    s->api = a;
    if (vf_api_exec_start(req, a, body, &callbacks, s, &s->exec) < 0) {
        free(s);
        return;
    }
    vf_http_reply_upgrade(req, VF_EXEC_PROTOCOL, on_upgraded, on_failed, s);
}

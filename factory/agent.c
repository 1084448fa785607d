/* The agent's client: frames out, frames in, replies matched to requests by id, frames of streams handed
 * to them, one timer for the earliest deadline. What ends the connection is said in agent.h.
 */
#include "factory/agent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"

#define HELLO_AGAIN_US 50000
#define LOST_US 1000000

static void on_timer(uv_timer_t *t);

static void fail_all(struct vf_agent *a, const struct vf_error *err)
{
    for (int i = 0; i < VF_AGENT_MAX_PENDING; i++) {
        if (a->pending[i].id == 0)
            continue;
        a->pending[i].id = 0;
        a->pending[i].done(a->pending[i].arg, NULL, err);
    }
    while (a->streams) {
        struct vf_agent_stream *s = a->streams;
        a->streams = s->next;
        s->on_frame(s->arg, NULL, err);
    }
}

void vf_agent_break(struct vf_agent *a, const struct vf_error *err)
{
    if (a->is_broken || a->closing)
        return;
    struct vf_error e = *err; /* err may live in what a callback frees */
    a->is_broken = true;
    uv_read_stop((uv_stream_t *)&a->pipe);
    uv_timer_stop(&a->timer);
    fail_all(a, &e);
    if (!a->closing && a->broken)
        a->broken(a->arg, &e);
}

static void protocol_error(struct vf_agent *a, const char *what)
{
    struct vf_error e;
    vf_fail(&e, VF_PROTOCOL, "agent: %s", what);
    vf_agent_break(a, &e);
}

/* ---- deadlines */

static void arm_timer(struct vf_agent *a)
{
    int64_t next = VF_NEVER;
    for (int i = 0; i < VF_AGENT_MAX_PENDING; i++)
        if (a->pending[i].id && a->pending[i].deadline_us < next)
            next = a->pending[i].deadline_us;
    if (a->hello_len && a->hello_again_us < next)
        next = a->hello_again_us;
    if (a->is_lost && a->lost_until_us < next)
        next = a->lost_until_us;
    if (next == VF_NEVER)
        uv_timer_stop(&a->timer);
    else
        vf_timer_at(&a->timer, next, on_timer);
}

static void lose(struct vf_agent *a, const struct vf_error *err)
{
    if (a->is_lost || a->is_broken || a->closing)
        return;
    a->is_lost = true;
    a->lost = *err;
    a->lost_until_us = vf_now_us() + LOST_US;
    a->hello_len = 0;
    uv_read_stop((uv_stream_t *)&a->pipe);
    arm_timer(a);
}

static int send_bytes(struct vf_agent *a, const uint8_t *data, size_t len, struct vf_error *err);

static void on_timer(uv_timer_t *t)
{
    struct vf_agent *a = t->data;
    int64_t now = vf_now_us();
    if (a->closing || a->is_broken)
        return;
    if (a->is_lost && a->lost_until_us <= now) {
        vf_agent_break(a, &a->lost);
        return;
    }
    if (a->hello_len && a->hello_again_us <= now) {
        a->hello_again_us = now + HELLO_AGAIN_US;
        send_bytes(a, a->hello, a->hello_len, NULL);
    }
    for (int i = 0; i < VF_AGENT_MAX_PENDING && !a->closing; i++) {
        if (a->pending[i].id == 0 || a->pending[i].deadline_us > now)
            continue;
        struct vf_error e;
        a->pending[i].id = 0;
        a->hello_len = a->greeted ? a->hello_len : 0;
        vf_fail(&e, VF_TIMEOUT, "agent: the guest did not answer within its deadline");
        if (a->garbage)
            vf_hint(&e, "it sent %llu bytes that are no valid frame",
                    (unsigned long long)a->garbage);
        else if (a->reader)
            vf_hint(&e, "it sent %zu bytes of an answer it did not finish", a->reader->len);
        a->pending[i].done(a->pending[i].arg, NULL, &e);
    }
    if (!a->closing && !a->is_broken)
        arm_timer(a);
}

/* ---- input */

static void on_reply(struct vf_agent *a, int slot, const struct vf_wire_frame *f)
{
    struct vf_error e;
    vf_agent_reply_cb done = a->pending[slot].done;
    void *arg = a->pending[slot].arg;
    if (f->type != a->pending[slot].expect && f->type != VF_MSG_ERROR) {
        char what[80];
        snprintf(what, sizeof(what), "an answer of type 0x%02x where 0x%02x was due", f->type,
                 a->pending[slot].expect);
        protocol_error(a, what);
        return;
    }
    a->pending[slot].id = 0;
    a->stray = 0;
    if (!a->greeted) {
        a->greeted = true;
        a->garbage_seen = a->garbage;
        a->hello_len = 0;
    }
    arm_timer(a);
    if (f->type == VF_MSG_ERROR) {
        size_t len = 0;
        const uint8_t *text = vf_wire_find(f, VF_TAG_TEXT, &len), *num;
        num = vf_wire_find(f, VF_TAG_ERRNO, NULL);
        vf_fail(&e, VF_GUEST_FAILED, "the guest's agent answered: %.*s%s%s",
                (int)(len > 200 ? 200 : len), text ? (const char *)text : "",
                text && num ? ": " : "", num ? strerror((int)vf_wire_u32(num)) : "");
        for (char *p = e.msg; *p; p++) /* the guest's words go into logs and terminals */
            if ((unsigned char)*p < 0x20 || *p == 0x7f)
                *p = '?';
        done(arg, NULL, &e);
    } else
        done(arg, f, NULL);
}

static void on_frame(struct vf_agent *a, const struct vf_wire_frame *f)
{
    for (int i = 0; i < VF_AGENT_MAX_PENDING; i++)
        if (a->pending[i].id && a->pending[i].id == f->id) {
            on_reply(a, i, f);
            return;
        }
    for (struct vf_agent_stream *s = a->streams; s; s = s->next)
        if (s->id == f->id) {
            a->stray = 0;
            s->on_frame(s->arg, f, NULL);
            return;
        }
    /* A guest that has just begun to listen says so with a HELLO_OK that nobody asked for. */
    if (f->type == VF_MSG_HELLO_OK && f->id == 0 && !a->greeted && a->hello_len && !a->announced) {
        a->announced = true;
        a->hello_again_us = vf_now_us() + HELLO_AGAIN_US;
        send_bytes(a, a->hello, a->hello_len, NULL);
        return;
    }
    if (++a->stray > (a->greeted ? VF_AGENT_MAX_STRAY : VF_AGENT_MAX_OLD))
        protocol_error(a, "the guest floods the channel with frames nobody asked for");
}

static void take_input(struct vf_agent *a, const uint8_t *p, size_t left)
{
    if (!a->reader) {
        a->reader = malloc(sizeof(*a->reader));
        if (!a->reader) {
            protocol_error(a, "out of memory");
            return;
        }
        vf_wire_reset(a->reader);
        a->reader->garbage = a->garbage;
    }
    while (left && !a->closing && !a->is_broken) {
        struct vf_wire_frame f;
        size_t took = vf_wire_feed(a->reader, p, left, &f);
        p += took;
        left -= took;
        a->garbage = a->reader->garbage;
        if (f.type)
            on_frame(a, &f);
        if (a->closing || a->is_broken)
            return;
        if (a->greeted ? a->garbage > a->garbage_seen : a->garbage > VF_WIRE_MAX_GARBAGE) {
            protocol_error(a, a->greeted ? "the guest broke the framing of its answers"
                                         : "the guest sends garbage");
            return;
        }
    }
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    /* One loop, one thread, and the bytes are used up within on_read. */
    static _Thread_local char shared[65536];
    (void)h;
    (void)suggested;
    *buf = uv_buf_init(shared, sizeof(shared));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct vf_agent *a = stream->data;
    struct vf_error e;
    if (n == 0 || a->closing || a->is_broken)
        return;
    if (n < 0) {
        vf_fail(&e, VF_GUEST_FAILED, "agent: the channel was closed (%s)", uv_strerror((int)n));
        lose(a, &e);
        return;
    }
    take_input(a, (const uint8_t *)buf->base, (size_t)n);
    /* Most of the time nothing is under way, and many agents are idle. */
    if (a->reader && a->reader->len == 0 && !a->reader->overrun) {
        free(a->reader);
        a->reader = NULL;
    }
}

/* ---- output */

struct write {
    uv_write_t req;
    struct vf_agent *a;
    size_t len;
    uint8_t data[];
};

/* Any of them may end the connection, or another stream. */
static void tell_room(struct vf_agent *a)
{
    struct vf_agent_stream *s;
    do {
        for (s = a->streams; s && !s->wants_room; s = s->next)
            ;
        if (!s || a->closing || a->is_broken || a->queued_bytes > VF_AGENT_MAX_QUEUED / 2)
            return;
        s->wants_room = false;
        s->on_room(s->arg);
    } while (!a->closing && !a->is_broken);
}

static void on_written(uv_write_t *req, int status)
{
    struct write *w = req->data;
    struct vf_agent *a = w->a;
    struct vf_error e;
    a->queued_bytes -= w->len;
    free(w);
    if (status < 0 && status != UV_ECANCELED) {
        vf_fail(&e, VF_GUEST_FAILED, "agent: write: %s", uv_strerror(status));
        lose(a, &e);
    } else
        tell_room(a);
}

static int send_bytes(struct vf_agent *a, const uint8_t *data, size_t len, struct vf_error *err)
{
    if (a->closing || a->is_broken)
        return vf_fail(err, VF_GUEST_FAILED, "agent: not connected");
    if (a->is_lost)
        return 0; /* whoever waits for an answer soon hears why there is none */
    if (a->queued_bytes == 0) {
        uv_buf_t buf = uv_buf_init((char *)data, (unsigned)len);
        int n = uv_try_write((uv_stream_t *)&a->pipe, &buf, 1);
        if (n == (int)len)
            return 0;
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    if (a->queued_bytes + len > VF_AGENT_MAX_QUEUED)
        return vf_fail(err, VF_BUSY, "agent: %d bytes are queued: the guest does not read",
                       VF_AGENT_MAX_QUEUED);
    struct write *w = malloc(sizeof(*w) + len);
    if (!w)
        return vf_fail(err, VF_NO_MEMORY, "agent: write");
    w->a = a;
    w->len = len;
    w->req.data = w;
    memcpy(w->data, data, len);
    uv_buf_t buf = uv_buf_init((char *)w->data, (unsigned)len);
    int r = uv_write(&w->req, (uv_stream_t *)&a->pipe, &buf, 1, on_written);
    if (r < 0) {
        free(w);
        return vf_fail_errno(err, r, "agent: write");
    }
    a->queued_bytes += len;
    return 0;
}

int vf_agent_send(struct vf_agent *a, struct vf_wire_writer *w, struct vf_error *err)
{
    uint8_t frame[VF_WIRE_MAX_FRAME];
    size_t len = vf_wire_end(w, frame);
    if (!len)
        return vf_fail(err, VF_INVALID_ARGUMENT, "agent: a message longer than %d bytes",
                       VF_WIRE_MAX_BODY);
    return send_bytes(a, frame, len, err);
}

void vf_agent_start(struct vf_agent *a, struct vf_wire_writer *w, enum vf_msg type)
{
    if (++a->next_id == 0)
        a->next_id = 1;
    vf_wire_start(w, type, a->next_id);
}

static int add_pending(struct vf_agent *a, uint32_t id, enum vf_msg expect, int64_t timeout_ms,
                       vf_agent_reply_cb done, void *arg, struct vf_error *err)
{
    for (int i = 0; i < VF_AGENT_MAX_PENDING; i++) {
        if (a->pending[i].id)
            continue;
        a->pending[i].id = id;
        a->pending[i].expect = expect;
        a->pending[i].deadline_us = vf_deadline_after_ms(timeout_ms);
        a->pending[i].done = done;
        a->pending[i].arg = arg;
        arm_timer(a);
        return 0;
    }
    return vf_fail(err, VF_BUSY, "agent: %d requests are pending", VF_AGENT_MAX_PENDING);
}

static void drop_pending(struct vf_agent *a, uint32_t id)
{
    for (int i = 0; i < VF_AGENT_MAX_PENDING; i++)
        if (a->pending[i].id == id)
            a->pending[i].id = 0;
    arm_timer(a);
}

int vf_agent_request(struct vf_agent *a, struct vf_wire_writer *w, enum vf_msg expect,
                     int64_t timeout_ms, vf_agent_reply_cb done, void *arg, struct vf_error *err)
{
    uint32_t id = a->next_id;
    int r = add_pending(a, id, expect, timeout_ms, done, arg, err);
    if (r < 0)
        return r;
    r = vf_agent_send(a, w, err);
    if (r < 0)
        drop_pending(a, id);
    return r;
}

int vf_agent_hello(struct vf_agent *a, int64_t timeout_ms, vf_agent_reply_cb done, void *arg,
                   struct vf_error *err)
{
    struct vf_wire_writer w;
    uint8_t frame[VF_WIRE_MAX_FRAME];
    vf_agent_start(a, &w, VF_MSG_HELLO);
    size_t len = vf_wire_end(&w, frame);
    /* The zero byte in front ends whatever the guest was reading when it was frozen. */
    a->hello[0] = 0;
    memcpy(a->hello + 1, frame, len);
    int r = add_pending(a, a->next_id, VF_MSG_HELLO_OK, timeout_ms, done, arg, err);
    if (r < 0)
        return r;
    r = send_bytes(a, a->hello, len + 1, err);
    if (r < 0) {
        drop_pending(a, a->next_id);
        return r;
    }
    if (a->lossy) {
        a->hello_len = len + 1;
        a->hello_again_us = vf_now_us() + HELLO_AGAIN_US;
        arm_timer(a);
    }
    return 0;
}

void vf_agent_add_stream(struct vf_agent *a, struct vf_agent_stream *s)
{
    s->next = a->streams;
    a->streams = s;
}

void vf_agent_remove_stream(struct vf_agent *a, struct vf_agent_stream *s)
{
    for (struct vf_agent_stream **p = &a->streams; *p; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            return;
        }
}

/* ---- opening and closing */

int vf_agent_open(struct vf_agent *a, uv_loop_t *loop, int dirfd, const char *name, bool lossy,
                  vf_done_cb broken, void *arg, struct vf_error *err)
{
    *a = (struct vf_agent){0};
    a->lossy = lossy;
    a->broken = broken;
    a->arg = arg;
    /* Answers to an older talk must not match a new request. */
    vf_random(&a->next_id, sizeof(a->next_id));
    VF_CLEANUP_FD int fd = -1;
    int r = vf_unix_connect(dirfd, name, &fd, err);
    if (r < 0) {
        vf_wrap(err, "agent");
        return r;
    }
    uv_pipe_init(loop, &a->pipe, 0);
    uv_timer_init(loop, &a->timer);
    a->pipe.data = a->timer.data = a;
    a->open_handles = 2;
    r = uv_pipe_open(&a->pipe, fd);
    if (r == 0) {
        vf_steal_fd(&fd);
        r = uv_read_start((uv_stream_t *)&a->pipe, on_alloc, on_read);
    }
    return r < 0 ? vf_fail_errno(err, r, "agent: channel") : 0;
}

static void on_handle_closed(uv_handle_t *h)
{
    struct vf_agent *a = h->data;
    if (--a->open_handles > 0)
        return;
    free(a->reader);
    a->reader = NULL;
    a->on_closed(a->closed_arg);
}

void vf_agent_close(struct vf_agent *a, void (*on_closed)(void *arg), void *arg)
{
    struct vf_error e;
    a->closing = true;
    a->on_closed = on_closed;
    a->closed_arg = arg;
    vf_fail(&e, VF_CANCELLED, "agent: closed");
    fail_all(a, &e);
    uv_close((uv_handle_t *)&a->pipe, on_handle_closed);
    uv_close((uv_handle_t *)&a->timer, on_handle_closed);
}

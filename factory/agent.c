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
#include "base/hash.h"

#define HELLO_AGAIN_US 50000
#define REDIAL_US 1000000 /* doubled each time */
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
    vf_agent_link_stop(&a->link);
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
    vf_agent_link_stop(&a->link);
    arm_timer(a);
}

static int send_bytes(struct vf_agent *a, const uint8_t *data, size_t len, struct vf_error *err);

/* Whether nothing is lost with the connection: nobody has answered yet, and only a hello waits. */
static bool may_redial(void *arg)
{
    const struct vf_agent *a = arg;
    if (a->greeted || a->is_lost || a->is_broken || a->closing || a->streams)
        return false;
    for (int i = 0; i < VF_AGENT_MAX_PENDING; i++)
        if (a->pending[i].id && !(a->hello_len && a->pending[i].id == a->hello_id))
            return false;
    return true;
}

static void hello_again(struct vf_agent *a, int64_t now)
{
    if (a->lossy) {
        a->hello_again_us = now + HELLO_AGAIN_US;
        send_bytes(a, a->hello, a->hello_len, NULL);
        return;
    }
    /* A guest may have taken the connection for one of before its restore, and have dropped it. */
    a->hello_again_us = VF_NEVER;
    if (a->link.kind == VF_LINK_VSOCK && a->link.state == VF_AGENT_UP && may_redial(a))
        vf_agent_link_redial(&a->link);
}

static void say_why_silent(const struct vf_agent *a, struct vf_error *e)
{
    if (a->garbage)
        vf_hint(e, "it sent %llu bytes that are no valid frame", (unsigned long long)a->garbage);
    else if (a->reader)
        vf_hint(e, "it sent %zu bytes of an answer it did not finish", a->reader->len);
    else if (a->link.state != VF_AGENT_UP)
        vf_hint(e, "nothing listens on its vsock port %d", VF_WIRE_VSOCK_PORT);
}

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
    if (a->hello_len && a->hello_again_us <= now)
        hello_again(a, now);
    for (int i = 0; i < VF_AGENT_MAX_PENDING && !a->closing; i++) {
        if (a->pending[i].id == 0 || a->pending[i].deadline_us > now)
            continue;
        struct vf_error e;
        if (a->pending[i].id == a->hello_id)
            a->hello_len = 0;
        a->pending[i].id = 0;
        vf_fail(&e, VF_TIMEOUT, "agent: the guest did not answer within its deadline");
        say_why_silent(a, &e);
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
    if (!a->greeted || a->pending[slot].id == a->hello_id)
        a->hello_len = 0;
    a->pending[slot].id = 0;
    a->stray = 0;
    if (!a->greeted) {
        a->greeted = true;
        a->garbage_seen = a->garbage;
        vf_agent_link_settle(&a->link);
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
    if (f->type == VF_MSG_HELLO_OK && f->id == 0 && a->lossy && !a->greeted && a->hello_len &&
        !a->announced) {
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

static void on_input(void *arg, const uint8_t *data, size_t len)
{
    struct vf_agent *a = arg;
    if (a->closing || a->is_broken)
        return;
    take_input(a, data, len);
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
    bool redial = a->link.kind == VF_LINK_VSOCK && may_redial(a); /* once its end is read */
    if (status < 0 && status != UV_ECANCELED && !redial) {
        vf_fail(&e, VF_GUEST_FAILED, "agent: write: %s", uv_strerror(status));
        lose(a, &e);
    } else
        tell_room(a);
}

static int full(struct vf_error *err)
{
    return vf_fail(err, VF_BUSY, "agent: %d bytes are queued: the guest does not read",
                   VF_AGENT_MAX_QUEUED);
}

/* Keeps what can't be sent before the channel is up. */
static int send_early(struct vf_agent *a, const uint8_t *data, size_t len, struct vf_error *err)
{
    if (a->early_len + len > VF_AGENT_MAX_QUEUED)
        return full(err);
    uint8_t *more = realloc(a->early, a->early_len + len);
    if (!more)
        return vf_fail(err, VF_NO_MEMORY, "agent: write");
    memcpy(more + a->early_len, data, len);
    a->early = more;
    a->early_len += len;
    vf_agent_link_want(&a->link);
    return 0;
}

static int send_bytes(struct vf_agent *a, const uint8_t *data, size_t len, struct vf_error *err)
{
    if (a->closing || a->is_broken)
        return vf_fail(err, VF_GUEST_FAILED, "agent: not connected");
    if (a->is_lost)
        return 0; /* whoever waits for an answer soon hears why there is none */
    if (a->link.state != VF_AGENT_UP)
        return send_early(a, data, len, err);
    if (a->queued_bytes == 0) {
        uv_buf_t buf = uv_buf_init((char *)data, (unsigned)len);
        int n = uv_try_write((uv_stream_t *)a->link.out, &buf, 1);
        if (n == (int)len)
            return 0;
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    if (a->queued_bytes + len > VF_AGENT_MAX_QUEUED)
        return full(err);
    struct write *w = malloc(sizeof(*w) + len);
    if (!w)
        return vf_fail(err, VF_NO_MEMORY, "agent: write");
    w->a = a;
    w->len = len;
    w->req.data = w;
    memcpy(w->data, data, len);
    uv_buf_t buf = uv_buf_init((char *)w->data, (unsigned)len);
    int r = uv_write(&w->req, (uv_stream_t *)a->link.out, &buf, 1, on_written);
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

static void plan_hello(struct vf_agent *a)
{
    int64_t now = vf_now_us();
    a->hello_again_us = VF_NEVER;
    if (a->lossy)
        a->hello_again_us = now + HELLO_AGAIN_US;
    else if (a->link.kind == VF_LINK_VSOCK && a->link.state == VF_AGENT_UP) {
        a->hello_again_us = now + a->redial_us;
        a->redial_us *= 2;
    }
}

int vf_agent_hello(struct vf_agent *a, int64_t timeout_ms, vf_agent_reply_cb done, void *arg,
                   struct vf_error *err)
{
    struct vf_wire_writer w;
    uint8_t frame[VF_WIRE_MAX_FRAME];
    vf_agent_start(a, &w, VF_MSG_HELLO);
    size_t len = vf_wire_end(&w, frame) + 1;
    int r = add_pending(a, a->next_id, VF_MSG_HELLO_OK, timeout_ms, done, arg, err);
    if (r < 0)
        return r;
    /* The zero byte in front ends whatever the guest was reading when it was frozen. */
    a->hello[0] = 0;
    memcpy(a->hello + 1, frame, len - 1);
    /* Before the channel is up it lies ready, and is the first that is said. */
    if (a->link.state == VF_AGENT_UP || a->is_lost || a->is_broken || a->closing)
        r = send_bytes(a, a->hello, len, err);
    else
        vf_agent_link_want(&a->link);
    if (r < 0) {
        drop_pending(a, a->next_id);
        return r;
    }
    if (a->is_lost)
        return 0;
    a->hello_len = len;
    a->hello_id = a->next_id;
    a->redial_us = REDIAL_US;
    plan_hello(a);
    arm_timer(a);
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

static void on_up(void *arg)
{
    struct vf_agent *a = arg;
    struct vf_error e;
    int r = 0;
    if (a->closing || a->is_broken || a->is_lost)
        return;
    free(a->reader); /* of a connection before */
    a->reader = NULL;
    if (a->hello_len) {
        r = send_bytes(a, a->hello, a->hello_len, &e);
        plan_hello(a);
        arm_timer(a);
    }
    if (r == 0 && a->early_len)
        r = send_bytes(a, a->early, a->early_len, &e);
    free(a->early);
    a->early = NULL;
    a->early_len = 0;
    if (r < 0)
        lose(a, &e);
    else
        tell_room(a);
}

static void on_down(void *arg, const struct vf_error *err)
{
    if (err->code == VF_PROTOCOL)
        vf_agent_break(arg, err);
    else
        lose(arg, err);
}

static bool is_wanted(void *arg)
{
    const struct vf_agent *a = arg;
    if (a->is_lost || a->is_broken || a->closing)
        return false;
    for (int i = 0; i < VF_AGENT_MAX_PENDING; i++)
        if (a->pending[i].id)
            return true;
    return a->streams || a->early_len;
}

static const struct vf_agent_link_ops link_ops = {on_up, on_input, on_down, is_wanted, may_redial};

int vf_agent_open(struct vf_agent *a, uv_loop_t *loop, int dirfd, enum vf_link link, bool lossy,
                  vf_done_cb broken, void *arg, struct vf_error *err)
{
    *a = (struct vf_agent){0};
    a->lossy = lossy;
    a->broken = broken;
    a->arg = arg;
    /* Answers to an older talk must not match a new request. */
    vf_random(&a->next_id, sizeof(a->next_id));
    int r = uv_timer_init(loop, &a->timer);
    if (r < 0)
        return vf_fail_errno(err, r, "agent");
    a->timer.data = a;
    a->open_handles = 1;
    r = vf_agent_link_open(&a->link, loop, dirfd, link, &link_ops, a, err);
    if (a->link.handles)
        a->open_handles++;
    return r;
}

static void on_part_closed(struct vf_agent *a)
{
    if (--a->open_handles > 0)
        return;
    free(a->reader);
    free(a->early);
    a->reader = NULL;
    a->early = NULL;
    a->on_closed(a->closed_arg);
}

static void on_timer_closed(uv_handle_t *h)
{
    on_part_closed(h->data);
}

static void on_link_closed(void *arg)
{
    on_part_closed(arg);
}

void vf_agent_close(struct vf_agent *a, void (*on_closed)(void *arg), void *arg)
{
    struct vf_error e;
    a->closing = true;
    a->on_closed = on_closed;
    a->closed_arg = arg;
    vf_fail(&e, VF_CANCELLED, "agent: closed");
    fail_all(a, &e);
    if (a->link.handles)
        vf_agent_link_close(&a->link, on_link_closed);
    uv_close((uv_handle_t *)&a->timer, on_timer_closed);
}

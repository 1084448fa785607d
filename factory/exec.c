/* vf_exec: EXEC is sent under a fresh id, the guest answers EXEC_OK, then STDOUT and STDERR come until
 * EXIT. An ERROR instead, a broken connection, a guest that sends beyond its window or is silent past its
 * own deadline end it with an error.
 */
#include "factory/exec.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"

#define PIECE 8192 /* stdin bytes a frame */
#define CREDIT_STEP (VF_WIRE_WINDOW / 4)

struct vf_exec {
    struct vf_agent *agent;
    struct vf_agent_stream stream;
    struct vf_exec_callbacks cb;
    void *arg;
    bool started, abandoned;
    size_t in_credit;  /* stdin bytes the guest takes now */
    size_t out_credit; /* bytes the guest may still send */
    size_t consumed;   /* not yet told to the guest */
};

static int send_u32(struct vf_exec *e, enum vf_msg type, enum vf_tag tag, uint32_t v,
                    struct vf_error *err)
{
    struct vf_wire_writer w;
    vf_wire_start(&w, type, e->stream.id);
    vf_wire_put_u32(&w, tag, v);
    return vf_agent_send(e->agent, &w, err);
}

/* A broken channel tells the stream by itself; a full one has to be tried again. */
static void give_credit(struct vf_exec *e)
{
    struct vf_error err = {0};
    if (e->consumed < CREDIT_STEP)
        return;
    if (send_u32(e, VF_MSG_CREDIT, VF_TAG_BYTES, (uint32_t)e->consumed, &err) < 0 &&
        err.code == VF_BUSY) {
        e->stream.wants_room = true;
        return;
    }
    e->out_credit += e->consumed;
    e->consumed = 0;
}

static void finish(struct vf_exec *e, const struct vf_exec_status *st, const struct vf_error *err)
{
    vf_agent_remove_stream(e->agent, &e->stream);
    if (!e->abandoned)
        e->cb.exited(e->arg, st, err);
    free(e);
}

static void on_output(struct vf_exec *e, int fd, const struct vf_wire_frame *f)
{
    size_t len = 0;
    const uint8_t *data = vf_wire_find(f, VF_TAG_DATA, &len);
    struct vf_error err;
    if (len > e->out_credit) {
        vf_fail(&err, VF_PROTOCOL, "exec: the guest sends more than its window");
        send_u32(e, VF_MSG_KILL, VF_TAG_SIGNAL, SIGKILL, NULL);
        finish(e, NULL, &err);
        return;
    }
    e->out_credit -= len;
    if (e->abandoned)
        vf_exec_consumed(e, len);
    else
        e->cb.output(e->arg, fd, data, len);
}

static void on_exit_frame(struct vf_exec *e, const struct vf_wire_frame *f)
{
    struct vf_exec_status st = {0};
    struct vf_error err;
    size_t len = 0;
    const uint8_t *status = vf_wire_find(f, VF_TAG_STATUS, &len);
    st.timed_out = vf_wire_find(f, VF_TAG_TIMED_OUT, NULL) != NULL;
    if (!status) {
        status = vf_wire_find(f, VF_TAG_SIGNAL, &len);
        st.signaled = true;
    }
    if (!status || len != 4) {
        vf_fail(&err, VF_PROTOCOL, "exec: the guest's exit message lacks a status");
        finish(e, NULL, &err);
        return;
    }
    st.code = (int)(vf_wire_u32(status) & 0xff);
    finish(e, &st, NULL);
}

static void on_error_frame(struct vf_exec *e, const struct vf_wire_frame *f)
{
    struct vf_error err;
    size_t len = 0;
    const uint8_t *text = vf_wire_find(f, VF_TAG_TEXT, &len);
    const uint8_t *num = vf_wire_find(f, VF_TAG_ERRNO, NULL);
    vf_fail(&err, VF_GUEST_FAILED, "exec: %.*s%s%s", (int)(len > 200 ? 200 : len),
            text ? (const char *)text : "", text && num ? ": " : "",
            num ? strerror((int)vf_wire_u32(num)) : "");
    finish(e, NULL, &err);
}

static void on_room(void *arg)
{
    struct vf_exec *e = arg;
    give_credit(e);
    if (e->abandoned)
        vf_exec_abandon(e); /* its KILL may be what found no room */
    else if (e->cb.writable)
        e->cb.writable(e->arg);
}

static void on_frame(void *arg, const struct vf_wire_frame *f, const struct vf_error *err)
{
    struct vf_exec *e = arg;
    size_t len = 0;
    if (err) {
        finish(e, NULL, err);
        return;
    }
    switch (f->type) {
    case VF_MSG_EXEC_OK:
        e->started = true;
        break;
    case VF_MSG_STDOUT:
        on_output(e, 1, f);
        break;
    case VF_MSG_STDERR:
        on_output(e, 2, f);
        break;
    case VF_MSG_CREDIT: {
        const uint8_t *n = vf_wire_find(f, VF_TAG_BYTES, &len);
        if (!n || len != 4)
            break;
        e->in_credit += vf_wire_u32(n);
        if (e->in_credit > VF_WIRE_WINDOW)
            e->in_credit = VF_WIRE_WINDOW;
        if (!e->abandoned && e->cb.writable)
            e->cb.writable(e->arg);
        break;
    }
    case VF_MSG_EXIT:
        on_exit_frame(e, f);
        break;
    case VF_MSG_ERROR:
        on_error_frame(e, f);
        break;
    default:
        break;
    }
}

int vf_exec_start(struct vf_agent *a, const struct vf_exec_options *o,
                  const struct vf_exec_callbacks *cb, void *arg, struct vf_exec **ret_exec,
                  struct vf_error *err)
{
    struct vf_wire_writer w;
    if (!o->argv || !o->argv[0])
        return vf_fail(err, VF_INVALID_ARGUMENT, "argv: a command is needed");
    vf_agent_start(a, &w, VF_MSG_EXEC);
    for (char *const *s = o->argv; *s; s++)
        vf_wire_put(&w, VF_TAG_ARG, *s, strlen(*s));
    for (char *const *s = o->env; s && *s; s++)
        vf_wire_put(&w, VF_TAG_ENV, *s, strlen(*s));
    if (o->cwd)
        vf_wire_put(&w, VF_TAG_CWD, o->cwd, strlen(o->cwd));
    if (o->timeout_ms > 0)
        vf_wire_put_u32(&w, VF_TAG_DEADLINE_MS,
                        o->timeout_ms > UINT32_MAX ? UINT32_MAX : (uint32_t)o->timeout_ms);
    if (w.failed)
        return vf_fail(err, VF_INVALID_ARGUMENT, "argv, env: more than %d bytes in all",
                       VF_WIRE_MAX_BODY);
    struct vf_exec *e = calloc(1, sizeof(*e));
    if (!e)
        return vf_fail(err, VF_NO_MEMORY, "exec");
    *e = (struct vf_exec){.agent = a,
                          .cb = *cb,
                          .arg = arg,
                          .in_credit = VF_WIRE_WINDOW,
                          .out_credit = 2 * VF_WIRE_WINDOW}; /* a window for each of two streams */
    e->stream = (struct vf_agent_stream){
        .id = a->next_id, .on_frame = on_frame, .on_room = on_room, .arg = e};
    vf_agent_add_stream(a, &e->stream);
    int r = vf_agent_send(a, &w, err);
    if (r < 0) {
        vf_agent_remove_stream(a, &e->stream);
        free(e);
        return r;
    }
    *ret_exec = e;
    return 0;
}

void vf_exec_consumed(struct vf_exec *e, size_t bytes)
{
    e->consumed += bytes;
    give_credit(e);
}

ssize_t vf_exec_write(struct vf_exec *e, const void *data, size_t len, struct vf_error *err)
{
    size_t done = 0;
    if (len > e->in_credit)
        len = e->in_credit;
    while (done < len) {
        size_t n = len - done < PIECE ? len - done : PIECE;
        struct vf_wire_writer w;
        vf_wire_start(&w, VF_MSG_STDIN, e->stream.id);
        vf_wire_put(&w, VF_TAG_DATA, (const char *)data + done, n);
        struct vf_error why;
        int r = vf_agent_send(e->agent, &w, &why);
        if (r < 0) {
            e->stream.wants_room |= why.code == VF_BUSY;
            if (done > 0 || why.code == VF_BUSY)
                break;
            return vf_error_copy(err, &why);
        }
        done += n;
        e->in_credit -= n;
    }
    return (ssize_t)done;
}

int vf_exec_close_stdin(struct vf_exec *e, struct vf_error *err)
{
    struct vf_wire_writer w;
    struct vf_error why;
    vf_wire_start(&w, VF_MSG_STDIN, e->stream.id);
    int r = vf_agent_send(e->agent, &w, &why);
    if (r == 0)
        return 0;
    e->stream.wants_room |= why.code == VF_BUSY;
    return vf_error_copy(err, &why);
}

int vf_exec_kill(struct vf_exec *e, int sig, struct vf_error *err)
{
    struct vf_error why;
    int r = send_u32(e, VF_MSG_KILL, VF_TAG_SIGNAL, (uint32_t)sig, &why);
    if (r == 0)
        return 0;
    e->stream.wants_room |= why.code == VF_BUSY;
    return vf_error_copy(err, &why);
}

void vf_exec_abandon(struct vf_exec *e)
{
    e->abandoned = true;
    vf_exec_kill(e, SIGKILL, NULL);
}

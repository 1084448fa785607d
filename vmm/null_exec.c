/* The commands of the null guest: true, false, echo, exit, hostname, cat and sleep. cat copies stdin to
 * stdout within the windows both sides allow; sleep waits for KILL or its deadline.
 *
 * Most end at once: EXEC_OK, output, two ends of file, EXIT. cat and sleep take a stream and go on
 * with each message under its id. A message to no stream is late, and skipped; more input than was
 * allowed ends the command by SIGKILL.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "vmm/null_guest.h"

#define CHUNK 8192 /* of stdout a frame */
#define MAX_ARGS 64

static void send_data(struct null_agent *a, uint32_t id, uint8_t type, const void *data, size_t len)
{
    struct vf_wire_writer *w = null_agent_begin(a, type, id);
    if (len)
        vf_wire_put(w, VF_TAG_DATA, data, len);
    null_agent_send(a);
}

static void send_exit(struct null_agent *a, uint32_t id, uint16_t tag, uint32_t value,
                      bool timed_out)
{
    send_data(a, id, VF_MSG_STDOUT, NULL, 0);
    send_data(a, id, VF_MSG_STDERR, NULL, 0);
    struct vf_wire_writer *w = null_agent_begin(a, VF_MSG_EXIT, id);
    vf_wire_put_u32(w, tag, value);
    if (timed_out)
        vf_wire_put(w, VF_TAG_TIMED_OUT, "", 0);
    null_agent_send(a);
}

static void free_stream(struct null_stream *s)
{
    free(s->data);
    *s = (struct null_stream){0};
}

static struct null_stream *find_stream(struct null_agent *a, uint32_t id)
{
    for (int i = 0; i < NULL_MAX_STREAMS; i++)
        if (a->streams[i].used && a->streams[i].id == id)
            return &a->streams[i];
    return NULL;
}

static void arm_deadline(struct null_agent *a);

static void end_stream(struct null_agent *a, struct null_stream *s, uint16_t tag, uint32_t value,
                       bool timed_out)
{
    uint32_t id = s->id;
    free_stream(s);
    send_exit(a, id, tag, value, timed_out);
    arm_deadline(a);
}

static void on_deadline(uv_timer_t *t)
{
    struct null_agent *a = t->data;
    for (int i = 0; i < NULL_MAX_STREAMS; i++) {
        struct null_stream *s = &a->streams[i];
        if (s->used && s->deadline_us <= vf_now_us())
            end_stream(a, s, VF_TAG_SIGNAL, SIGKILL, true);
    }
    arm_deadline(a);
}

static void arm_deadline(struct null_agent *a)
{
    int64_t next = VF_NEVER;
    for (int i = 0; i < NULL_MAX_STREAMS; i++)
        if (a->streams[i].used && a->streams[i].deadline_us < next)
            next = a->streams[i].deadline_us;
    if (a->deadline_open && !a->closing)
        vf_timer_at(&a->deadline, next, on_deadline);
}

void null_exec_end_all(struct null_agent *a)
{
    for (int i = 0; i < NULL_MAX_STREAMS; i++)
        free_stream(&a->streams[i]);
    arm_deadline(a);
}

/* Moves what cat holds, as far as the host's credit goes, and gives the host credit for it. */
static void pump_cat(struct null_agent *a, struct null_stream *s)
{
    size_t sent = 0;
    while (sent < s->len && s->credit > 0) {
        size_t n = s->len - sent;
        n = n > CHUNK ? CHUNK : n;
        n = n > s->credit ? s->credit : n;
        send_data(a, s->id, VF_MSG_STDOUT, s->data + sent, n);
        s->credit -= (uint32_t)n;
        sent += n;
    }
    if (sent > 0) {
        s->len -= sent;
        memmove(s->data, s->data + sent, s->len);
        vf_wire_put_u32(null_agent_begin(a, VF_MSG_CREDIT, s->id), VF_TAG_BYTES, (uint32_t)sent);
        null_agent_send(a);
    }
    if (s->eof && s->len == 0)
        end_stream(a, s, VF_TAG_STATUS, 0, false);
}

void null_exec_message(struct null_agent *a, const struct vf_wire_frame *f)
{
    struct null_stream *s = find_stream(a, f->id);
    const uint8_t *p;
    size_t len;
    if (!s)
        return;
    switch (f->type) {
    case VF_MSG_STDIN:
        if (!s->is_cat || s->eof)
            return;
        p = vf_wire_find(f, VF_TAG_DATA, &len);
        if (!p || len == 0)
            s->eof = true;
        else if (len > VF_WIRE_WINDOW - s->len) {
            end_stream(a, s, VF_TAG_SIGNAL, SIGKILL, false);
            return;
        } else {
            memcpy(s->data + s->len, p, len);
            s->len += len;
        }
        pump_cat(a, s);
        return;
    case VF_MSG_CREDIT:
        p = vf_wire_find(f, VF_TAG_BYTES, &len);
        if (p && len == 4) {
            uint32_t more = vf_wire_u32(p);
            s->credit = more > VF_WIRE_WINDOW - s->credit ? VF_WIRE_WINDOW : s->credit + more;
        }
        if (s->is_cat)
            pump_cat(a, s);
        return;
    default: /* KILL */
        p = vf_wire_find(f, VF_TAG_SIGNAL, &len);
        end_stream(a, s, VF_TAG_SIGNAL, p && len == 4 ? vf_wire_u32(p) : SIGKILL, false);
    }
}

static void open_stream(struct null_agent *a, const struct vf_wire_frame *f, bool is_cat)
{
    struct null_stream *s = NULL;
    size_t len;
    for (int i = 0; i < NULL_MAX_STREAMS && !s; i++)
        if (!a->streams[i].used)
            s = &a->streams[i];
    uint8_t *data = is_cat && s ? malloc(VF_WIRE_WINDOW) : NULL;
    if (!s || (is_cat && !data) || find_stream(a, f->id)) {
        free(data);
        null_agent_error(a, f->id, EAGAIN, "exec: too many commands at once");
        return;
    }
    const uint8_t *p = vf_wire_find(f, VF_TAG_DEADLINE_MS, &len);
    uint32_t deadline_ms = p && len == 4 ? vf_wire_u32(p) : 0;
    *s = (struct null_stream){.used = true,
                              .is_cat = is_cat,
                              .id = f->id,
                              .data = data,
                              .credit = VF_WIRE_WINDOW,
                              .deadline_us =
                                  vf_deadline_after_ms(deadline_ms ? (int64_t)deadline_ms : -1)};
    vf_wire_put_u32(null_agent_begin(a, VF_MSG_EXEC_OK, f->id), VF_TAG_PID,
                    (uint32_t)(s - a->streams) + 2);
    null_agent_send(a);
    arm_deadline(a);
}

void null_exec(struct null_agent *a, const struct vf_wire_frame *f)
{
    struct {
        const uint8_t *p;
        size_t len;
    } args[MAX_ARGS];
    int n = 0;
    size_t pos = 0;
    uint16_t tag;
    const uint8_t *p;
    size_t len;
    while (vf_wire_next(f, &pos, &tag, &p, &len) > 0)
        if (tag == VF_TAG_ARG && n < MAX_ARGS) {
            args[n].p = p;
            args[n++].len = len;
        }
    char name[32] = "", number[16] = "";
    if (n > 0)
        snprintf(name, sizeof(name), "%.*s", (int)args[0].len, (const char *)args[0].p);
    if (n > 1)
        snprintf(number, sizeof(number), "%.*s", (int)args[1].len, (const char *)args[1].p);
    const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;

    if (strcmp(base, "cat") == 0 || strcmp(base, "sleep") == 0) {
        open_stream(a, f, base[0] == 'c');
        return;
    }
    uint32_t status = 0;
    char out[CHUNK];
    size_t out_len = 0;
    if (strcmp(base, "echo") == 0) {
        for (int i = 1; i < n; i++) {
            if (args[i].len + 2 > sizeof(out) - out_len) {
                null_agent_error(a, f->id, E2BIG, "exec: echo: too long");
                return;
            }
            memcpy(out + out_len, args[i].p, args[i].len);
            out_len += args[i].len;
            if (i + 1 < n)
                out[out_len++] = ' ';
        }
        out[out_len++] = '\n';
    } else if (strcmp(base, "hostname") == 0)
        out_len = (size_t)snprintf(out, sizeof(out), "%s\n", a->owner->ram->hostname);
    else if (strcmp(base, "false") == 0)
        status = 1;
    else if (strcmp(base, "exit") == 0)
        status = (uint32_t)atoi(number) & 255;
    else if (strcmp(base, "true") != 0) {
        null_agent_error(a, f->id, ENOENT, "exec: no such command in the null guest");
        return;
    }
    vf_wire_put_u32(null_agent_begin(a, VF_MSG_EXEC_OK, f->id), VF_TAG_PID, 1);
    null_agent_send(a);
    if (out_len)
        send_data(a, f->id, VF_MSG_STDOUT, out, out_len);
    send_exit(a, f->id, VF_TAG_STATUS, status, false);
}

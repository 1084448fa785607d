/* The commands of the null guest, the same as the tiny test guest's, as built-ins:
 *
 *     echo ARGS…, complain ARGS…    to stdout, to stderr
 *     true, false, exit N           nothing but the status
 *     hostname, machine-id, counter, random N
 *     cat                           stdin to stdout until its end
 *     flood N                       N bytes to stdout, as the host allows
 *     hang                          until it is killed or its deadline passes
 *
 * Most end at once: EXEC_OK, output, two ends of file, EXIT. The last three take a stream and go on with
 * each message under its id. A message to no stream is late, and skipped; more input than was
 * allowed ends the command by SIGPIPE.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/hash.h"
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

/* Moves what there is as far as the host's credit goes; cat then gives the host credit for it. */
static void pump(struct null_agent *a, struct null_stream *s)
{
    static const uint8_t fill[CHUNK] = {'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x'};
    size_t sent = 0;
    while (sent < s->len && s->credit > 0) {
        size_t n = s->len - sent;
        n = n > CHUNK ? CHUNK : n;
        n = n > s->credit ? s->credit : n;
        send_data(a, s->id, VF_MSG_STDOUT, s->data ? s->data + sent : fill, n);
        s->credit -= (uint32_t)n;
        sent += n;
    }
    s->len -= sent;
    if (sent > 0 && s->command == NULL_CAT) {
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
        if (s->command != NULL_CAT)
            return;
        p = vf_wire_find(f, VF_TAG_DATA, &len);
        if (!p || len == 0)
            s->eof = true;
        else if (s->eof || len > VF_WIRE_WINDOW - s->len) {
            end_stream(a, s, VF_TAG_SIGNAL, SIGPIPE, false);
            return;
        } else {
            memcpy(s->data + s->len, p, len);
            s->len += len;
        }
        pump(a, s);
        return;
    case VF_MSG_CREDIT:
        p = vf_wire_find(f, VF_TAG_BYTES, &len);
        if (p && len == 4) {
            uint32_t more = vf_wire_u32(p);
            s->credit = more > VF_WIRE_WINDOW - s->credit ? VF_WIRE_WINDOW : s->credit + more;
        }
        if (s->command != NULL_HANG)
            pump(a, s);
        return;
    default: /* KILL */
        p = vf_wire_find(f, VF_TAG_SIGNAL, &len);
        end_stream(a, s, VF_TAG_SIGNAL, p && len == 4 ? vf_wire_u32(p) : SIGKILL, false);
    }
}

static void open_stream(struct null_agent *a, const struct vf_wire_frame *f,
                        enum null_command command, size_t bytes)
{
    struct null_stream *s = NULL;
    size_t len;
    for (int i = 0; i < NULL_MAX_STREAMS && !s; i++)
        if (!a->streams[i].used)
            s = &a->streams[i];
    uint8_t *data = command == NULL_CAT && s ? malloc(VF_WIRE_WINDOW) : NULL;
    if (!s || (command == NULL_CAT && !data)) {
        null_agent_error(a, f->id, EAGAIN, "exec: too many commands at once");
        return;
    }
    const uint8_t *p = vf_wire_find(f, VF_TAG_DEADLINE_MS, &len);
    int64_t deadline_ms = p && len == 4 ? (int64_t)vf_wire_u32(p) : 0;
    *s = (struct null_stream){.used = true,
                              .eof = command == NULL_FLOOD,
                              .command = command,
                              .id = f->id,
                              .data = data,
                              .len = bytes,
                              .credit = VF_WIRE_WINDOW,
                              .deadline_us = vf_deadline_after_ms(deadline_ms ? deadline_ms : -1)};
    vf_wire_put_u32(null_agent_begin(a, VF_MSG_EXEC_OK, f->id), VF_TAG_PID,
                    (uint32_t)(s - a->streams) + 2);
    null_agent_send(a);
    arm_deadline(a);
    if (command == NULL_FLOOD)
        pump(a, s);
}

struct args {
    struct {
        const char *p;
        size_t len;
    } v[MAX_ARGS];
    int n;
    char name[32], number[16]; /* the first two, cut, with a NUL */
};

static void take_args(const struct vf_wire_frame *f, struct args *a)
{
    size_t pos = 0, len;
    uint16_t tag;
    const uint8_t *p;
    a->n = 0;
    while (vf_wire_next(f, &pos, &tag, &p, &len) > 0)
        if (tag == VF_TAG_ARG && a->n < MAX_ARGS) {
            a->v[a->n].p = (const char *)p;
            a->v[a->n++].len = len;
        }
    snprintf(a->name, sizeof(a->name), "%.*s", a->n > 0 ? (int)a->v[0].len : 0,
             a->n > 0 ? a->v[0].p : "");
    snprintf(a->number, sizeof(a->number), "%.*s", a->n > 1 ? (int)a->v[1].len : 0,
             a->n > 1 ? a->v[1].p : "");
}

/* The arguments with spaces between and a newline; -1 if out is too small. */
static int join(const struct args *args, char *out, size_t size)
{
    size_t len = 0;
    for (int i = 1; i < args->n; i++) {
        if (args->v[i].len + 2 > size - len)
            return -1;
        memcpy(out + len, args->v[i].p, args->v[i].len);
        len += args->v[i].len;
        if (i + 1 < args->n)
            out[len++] = ' ';
    }
    out[len++] = '\n';
    return (int)len;
}

static int random_text(struct null_ram *ram, size_t n, char *out)
{
    for (size_t i = 0; i < n; i += 16) {
        uint8_t bytes[16];
        null_random(ram, bytes);
        vf_hex(bytes, n - i < 16 ? n - i : 16, out + 2 * i);
    }
    out[2 * n] = '\n';
    return (int)(2 * n + 1);
}

void null_exec(struct null_agent *a, const struct vf_wire_frame *f)
{
    struct null_ram *ram = a->owner->ram;
    struct args args;
    take_args(f, &args);
    const char *name = strrchr(args.name, '/') ? strrchr(args.name, '/') + 1 : args.name;
    unsigned long number = strtoul(args.number, NULL, 10);
    bool to_stderr = strcmp(name, "complain") == 0;
    uint32_t status = 0;
    char out[CHUNK];
    int len = 0;

    if (find_stream(a, f->id)) {
        null_agent_error(a, f->id, EEXIST, "exec: this stream is open");
        return;
    }
    if (strcmp(name, "cat") == 0) {
        open_stream(a, f, NULL_CAT, 0);
        return;
    }
    if (strcmp(name, "hang") == 0) {
        open_stream(a, f, NULL_HANG, 0);
        return;
    }
    if (strcmp(name, "flood") == 0) {
        open_stream(a, f, NULL_FLOOD, number);
        return;
    }
    if (strcmp(name, "echo") == 0 || to_stderr)
        len = join(&args, out, sizeof(out));
    else if (strcmp(name, "hostname") == 0)
        len = snprintf(out, sizeof(out), "%s\n", ram->hostname);
    else if (strcmp(name, "machine-id") == 0) {
        vf_hex(ram->machine_id, sizeof(ram->machine_id), out);
        out[32] = '\n';
        len = 33;
    } else if (strcmp(name, "counter") == 0)
        len = snprintf(out, sizeof(out), "%u\n", ram->runs++);
    else if (strcmp(name, "random") == 0)
        len = number > sizeof(out) / 2 - 1 ? -1 : random_text(ram, number, out);
    else if (strcmp(name, "false") == 0)
        status = 1;
    else if (strcmp(name, "exit") == 0)
        status = (uint32_t)number & 255;
    else if (strcmp(name, "true") != 0) {
        null_agent_error(a, f->id, ENOENT, "exec: no such command in the null guest");
        return;
    }
    if (len < 0) {
        null_agent_error(a, f->id, E2BIG, "exec: too long");
        return;
    }
    vf_wire_put_u32(null_agent_begin(a, VF_MSG_EXEC_OK, f->id), VF_TAG_PID, 1);
    null_agent_send(a);
    if (len)
        send_data(a, f->id, to_stderr ? VF_MSG_STDERR : VF_MSG_STDOUT, out, (size_t)len);
    send_exit(a, f->id, VF_TAG_STATUS, status, false);
}

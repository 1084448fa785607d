/* The built-in commands, as streams under their EXEC's id:
 *
 *     echo ARGS…    the arguments and a newline to stdout
 *     complain ARGS…  the same to stderr
 *     cat           stdin to stdout until its end
 *     random N      N random bytes in hexadecimal and a newline
 *     counter       a counter in RAM, one more each time: it goes on across a restore
 *     hostname, machine-id
 *     flood N       N bytes to stdout, as the window allows
 *     exit N        nothing but the status
 *     hang          nothing, until it is killed or its deadline passes
 *
 * A command has a source of output that is asked for up to a chunk at a time; the window and the
 * chunk are the only limits. When it has no more, the ends of both streams and EXIT follow. A
 * stdin that breaks its window ends the command with SIGPIPE.
 */
#include "tests/guests/tiny/tiny.h"

#define MAX_EXECS 4
#define CHUNK 1024
#define E_NOENT 2
#define E_2BIG 7
#define E_AGAIN 11
#define E_EXIST 17
#define E_INVAL 22
#define SIG_KILL 9
#define SIG_PIPE 13

enum kind { FREE, TEXT, CAT, RANDOM, FILL, HANG };

static struct exec {
    enum kind kind;
    uint32_t id;
    struct channel *channel; /* on which it was asked for */
    uint8_t stream;          /* where output goes: VF_MSG_STDOUT or VF_MSG_STDERR */
    uint32_t window;         /* bytes the host still takes */
    uint64_t left;           /* RANDOM, FILL: bytes still to make */
    uint32_t status;
    int64_t deadline_ns; /* 0: none */
    bool input_ended;    /* CAT */
    uint32_t head, held; /* TEXT, CAT: what of held is out already */
    uint8_t data[CHUNK];
} execs[MAX_EXECS];
/* CAT's input is a ring as large as the window, for one command at a time: it would be a waste to
 * touch one for each. */
static uint8_t ring[VF_WIRE_WINDOW];
static uint32_t ring_head, ring_held;
static struct exec *ring_owner;
static uint32_t next_pid = 100;
static uint32_t counter;

static struct exec *find(uint32_t id)
{
    for (unsigned i = 0; i < MAX_EXECS; i++)
        if (execs[i].kind != FREE && execs[i].channel == current && execs[i].id == id)
            return &execs[i];
    return NULL;
}

static void release(struct exec *e)
{
    if (ring_owner == e)
        ring_owner = NULL;
    e->kind = FREE;
}

static void end(struct exec *e, uint32_t signal, bool timed_out)
{
    vf_wire_start(&writer, VF_MSG_STDOUT, e->id);
    send();
    vf_wire_start(&writer, VF_MSG_STDERR, e->id);
    send();
    vf_wire_start(&writer, VF_MSG_EXIT, e->id);
    if (signal)
        vf_wire_put_u32(&writer, VF_TAG_SIGNAL, signal);
    else
        vf_wire_put_u32(&writer, VF_TAG_STATUS, e->status);
    if (timed_out)
        vf_wire_put(&writer, VF_TAG_TIMED_OUT, NULL, 0);
    send();
    release(e);
}

void exec_end_all(const struct channel *c)
{
    for (unsigned i = 0; i < MAX_EXECS; i++)
        if (!c || execs[i].channel == c)
            release(&execs[i]);
}

static void append(struct exec *e, const void *data, size_t len)
{
    if (len > sizeof(e->data) - e->held)
        len = sizeof(e->data) - e->held;
    memcpy(e->data + e->held, data, len);
    e->held += (uint32_t)len;
}

static void append_number(struct exec *e, uint32_t v)
{
    char digits[10];
    unsigned n = sizeof(digits);

    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    append(e, digits + n, sizeof(digits) - n);
}

static void hex(const uint8_t *data, size_t len, uint8_t *ret)
{
    for (size_t i = 0; i < len; i++) {
        *ret++ = (uint8_t) "0123456789abcdef"[data[i] >> 4];
        *ret++ = (uint8_t) "0123456789abcdef"[data[i] & 15];
    }
}

/* A decimal number of at most 9 digits; -1 if it is none. */
static int32_t number(const uint8_t *p, size_t len)
{
    int32_t v = 0;

    if (!p || len == 0 || len > 9)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return -1;
        v = v * 10 + (p[i] - '0');
    }
    return v;
}

/* Walks to the next ARG of f, or returns NULL. */
static const uint8_t *next_arg(const struct vf_wire_frame *f, size_t *pos, size_t *ret_len)
{
    uint16_t tag;
    const uint8_t *p;

    while (vf_wire_next(f, pos, &tag, &p, ret_len) > 0)
        if (tag == VF_TAG_ARG)
            return p;
    return NULL;
}

/* Sets e up for the command in f. Returns 0 or a Linux error number. */
static uint32_t prepare(struct exec *e, const struct vf_wire_frame *f)
{
    size_t pos = 0, name_len = 0, len = 0;
    const uint8_t *name = next_arg(f, &pos, &name_len), *arg;

    if (!name)
        return E_INVAL;
    e->kind = TEXT;
    e->stream = VF_MSG_STDOUT;
    if (text_is(name, name_len, "echo") || text_is(name, name_len, "complain")) {
        if (name_len == 8)
            e->stream = VF_MSG_STDERR;
        for (bool first = true; (arg = next_arg(f, &pos, &len)); first = false) {
            if (len + 2 > sizeof(e->data) - e->held)
                return E_2BIG;
            if (!first)
                append(e, " ", 1);
            append(e, arg, len);
        }
        append(e, "\n", 1);
        return 0;
    }
    if (text_is(name, name_len, "hostname")) {
        append(e, hostname, text_len(hostname));
        append(e, "\n", 1);
        return 0;
    }
    if (text_is(name, name_len, "machine-id")) {
        uint8_t text[32];
        hex(machine_id, sizeof(machine_id), text);
        append(e, text, sizeof(text));
        append(e, "\n", 1);
        return 0;
    }
    if (text_is(name, name_len, "counter")) {
        append_number(e, counter++);
        append(e, "\n", 1);
        return 0;
    }
    if (text_is(name, name_len, "hang")) {
        e->kind = HANG;
        return 0;
    }
    if (text_is(name, name_len, "cat")) {
        if (ring_owner)
            return E_AGAIN;
        ring_owner = e;
        ring_head = ring_held = 0;
        e->kind = CAT;
        return 0;
    }
    arg = next_arg(f, &pos, &len);
    int32_t n = number(arg, len);
    if (text_is(name, name_len, "exit")) {
        e->status = (uint32_t)n & 255;
        return n < 0 ? E_INVAL : 0;
    }
    e->left = (uint32_t)n;
    if (text_is(name, name_len, "random")) {
        e->kind = RANDOM;
        return n < 0 ? E_INVAL : 0;
    }
    if (text_is(name, name_len, "flood")) {
        e->kind = FILL;
        return n < 0 ? E_INVAL : 0;
    }
    return E_NOENT;
}

void exec_start(const struct vf_wire_frame *f)
{
    struct exec *e = NULL;
    size_t len;
    const uint8_t *deadline = vf_wire_find(f, VF_TAG_DEADLINE_MS, &len);

    if (find(f->id)) {
        send_error(f->id, E_EXIST, "this stream is open");
        return;
    }
    for (unsigned i = 0; i < MAX_EXECS && !e; i++)
        if (execs[i].kind == FREE)
            e = &execs[i];
    if (!e) {
        send_error(f->id, E_AGAIN, "too many commands");
        return;
    }
    e->id = f->id;
    e->channel = current;
    e->window = VF_WIRE_WINDOW;
    e->left = 0;
    e->status = 0;
    e->head = e->held = 0;
    e->input_ended = false;
    e->deadline_ns = 0;
    if (deadline && len == 4 && vf_wire_u32(deadline) > 0)
        e->deadline_ns = clock_ns() + (int64_t)vf_wire_u32(deadline) * 1000000;
    uint32_t failed = prepare(e, f);
    if (failed) {
        release(e);
        send_error(f->id, failed, failed == E_NOENT ? "no such command" : "bad arguments");
        return;
    }
    vf_wire_start(&writer, VF_MSG_EXEC_OK, e->id);
    vf_wire_put_u32(&writer, VF_TAG_PID, next_pid++);
    send();
}

void exec_stdin(const struct vf_wire_frame *f)
{
    struct exec *e = find(f->id);
    size_t len;
    const uint8_t *p = vf_wire_find(f, VF_TAG_DATA, &len);

    if (!e || e->kind != CAT)
        return; /* as a process that does not read its stdin */
    if (!p) {
        e->input_ended = true;
        return;
    }
    if (e->input_ended || len > sizeof(ring) - ring_held) {
        end(e, SIG_PIPE, false);
        return;
    }
    uint32_t tail = (ring_head + ring_held) % sizeof(ring);
    size_t until_wrap = sizeof(ring) - tail < len ? sizeof(ring) - tail : len;
    memcpy(ring + tail, p, until_wrap);
    memcpy(ring, p + until_wrap, len - until_wrap);
    ring_held += (uint32_t)len;
}

void exec_credit(const struct vf_wire_frame *f)
{
    struct exec *e = find(f->id);
    size_t len;
    const uint8_t *p = vf_wire_find(f, VF_TAG_BYTES, &len);

    if (!e || !p || len != 4)
        return;
    uint32_t bytes = vf_wire_u32(p);
    e->window = bytes > VF_WIRE_WINDOW - e->window ? VF_WIRE_WINDOW : e->window + bytes;
}

void exec_kill(const struct vf_wire_frame *f)
{
    struct exec *e = find(f->id);
    size_t len;
    const uint8_t *p = vf_wire_find(f, VF_TAG_SIGNAL, &len);

    if (e)
        end(e, p && len == 4 && vf_wire_u32(p) > 0 ? vf_wire_u32(p) : SIG_KILL, false);
}

/* Puts up to max bytes of output into data; returns how many. */
static uint32_t make_output(struct exec *e, uint8_t *data, uint32_t max)
{
    uint32_t n = 0;

    switch (e->kind) {
    case TEXT:
        n = e->held - e->head < max ? e->held - e->head : max;
        memcpy(data, e->data + e->head, n);
        e->head += n;
        break;
    case CAT:
        n = ring_held < max ? ring_held : max;
        if (n > sizeof(ring) - ring_head)
            n = sizeof(ring) - ring_head;
        memcpy(data, ring + ring_head, n);
        ring_head = (ring_head + n) % sizeof(ring);
        ring_held -= n;
        break;
    case RANDOM:
        while (e->left > 0 && max - n > 64) {
            uint8_t block[32];
            uint32_t k = e->left < 32 ? (uint32_t)e->left : 32;
            state_random(block);
            hex(block, k, data + n);
            n += 2 * k;
            e->left -= k;
            if (e->left == 0)
                data[n++] = '\n';
        }
        break;
    case FILL:
        n = e->left < max ? (uint32_t)e->left : max;
        memset(data, 'x', n);
        e->left -= n;
        break;
    default:
        break;
    }
    return n;
}

static bool step(struct exec *e)
{
    uint8_t data[CHUNK];
    uint32_t max = e->window < CHUNK ? e->window : CHUNK;

    current = e->channel;
    if (e->deadline_ns != 0 && clock_ns() >= e->deadline_ns) {
        end(e, SIG_KILL, true);
        return true;
    }
    uint32_t n = make_output(e, data, max);
    if (n > 0) {
        e->window -= n;
        vf_wire_start(&writer, e->stream, e->id);
        vf_wire_put(&writer, VF_TAG_DATA, data, n);
        send();
        if (e->kind == CAT) {
            vf_wire_start(&writer, VF_MSG_CREDIT, e->id);
            vf_wire_put_u32(&writer, VF_TAG_BYTES, n);
            send();
        }
        return true;
    }
    bool done = e->kind == CAT    ? e->input_ended && ring_held == 0
                : e->kind == TEXT ? e->head == e->held
                                  : e->kind != HANG && e->left == 0;
    if (done)
        end(e, 0, false);
    return done;
}

bool exec_step(void)
{
    bool moved = false;

    for (unsigned i = 0; i < MAX_EXECS; i++)
        if (execs[i].kind != FREE && step(&execs[i]))
            moved = true;
    return moved;
}

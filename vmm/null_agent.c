/* The null guest's agent: the protocol of base/wire.h on agent.sock, in-process on the loop.
 *
 * Happy path: accept one host at a time; bytes wait in `in` until the CPU runs; each frame is answered
 * after its script's delay, from and into the guest's memory, before the next is looked at.
 * On the way: broken frames are dropped as the protocol says; a host that does not read its answers is
 * not read from either; the script may answer by half, by noise, or by hanging up. Closing may
 * happen in any callback: whatever comes later finds `closing`.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "vmm/null_guest.h"

#define MAX_QUEUED (1024 * 1024) /* answers the host has not read yet */
#define NOISE 4096

struct write {
    uv_write_t req;
    struct null_agent *agent;
    uint8_t data[];
};

static void process(struct null_agent *a);
static void on_connection(uv_stream_t *listener, int status);

/* ---- the connection */

static void on_client_closed(uv_handle_t *h)
{
    struct null_agent *a = h->data;
    a->connected = false;
    if (a->waiting && !a->closing) {
        a->waiting = false;
        on_connection((uv_stream_t *)&a->listener, 0);
    }
    null_handle_closed(a->owner);
}

static void drop_client(struct null_agent *a)
{
    a->in_pos = a->in_len = 0;
    a->busy = a->flooding = false;
    if (a->delay_open && !a->closing)
        uv_timer_stop(&a->delay);
    if (a->connected && !uv_is_closing((uv_handle_t *)&a->client))
        uv_close((uv_handle_t *)&a->client, on_client_closed);
}

static bool client_usable(const struct null_agent *a)
{
    return a->connected && !a->closing && !uv_is_closing((const uv_handle_t *)&a->client);
}

/* One loop, one thread; what is left over after on_read is kept. */
static _Thread_local char shared_in[65536];

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    (void)h;
    (void)suggested;
    *buf = uv_buf_init(shared_in, sizeof(shared_in));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    struct null_agent *a = s->data;
    if (n == 0 || !client_usable(a))
        return;
    if (n < 0) {
        drop_client(a);
        return;
    }
    a->in = (const uint8_t *)buf->base;
    a->in_pos = 0;
    a->in_len = (size_t)n;
    process(a);
}

/* Reads if there is a CPU to take it and room for the answers. */
static void update_reading(struct null_agent *a)
{
    if (!client_usable(a))
        return;
    bool want = a->running && !a->busy && !a->flooding && a->in_pos == a->in_len &&
                a->client.write_queue_size < MAX_QUEUED &&
                !(a->owner->script->agent_flags & VF_NULL_AGENT_ABSENT);
    if (want)
        uv_read_start((uv_stream_t *)&a->client, on_alloc, on_read);
    else
        uv_read_stop((uv_stream_t *)&a->client);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct null_agent *a = listener->data;
    if (status < 0 || a->closing)
        return;
    if (a->connected) {
        a->waiting = true;
        return;
    }
    uv_pipe_init(listener->loop, &a->client, 0);
    a->client.data = a;
    a->connected = true;
    a->owner->handles++;
    if (uv_accept(listener, (uv_stream_t *)&a->client) < 0) {
        drop_client(a);
        return;
    }
    update_reading(a);
}

static void flood(struct null_agent *a);

static void on_written(uv_write_t *req, int status)
{
    struct write *w = (struct write *)req;
    struct null_agent *a = w->agent;
    free(w);
    if (status < 0) {
        if (client_usable(a))
            drop_client(a);
        return;
    }
    if (a->flooding && client_usable(a))
        flood(a);
    else
        process(a);
}

static void write_bytes(struct null_agent *a, const void *data, size_t len)
{
    if (!client_usable(a))
        return;
    struct write *w = malloc(sizeof(*w) + len);
    if (!w) {
        drop_client(a);
        return;
    }
    memcpy(w->data, data, len);
    w->agent = a;
    uv_buf_t buf = uv_buf_init((char *)w->data, (unsigned)len);
    if (uv_write(&w->req, (uv_stream_t *)&a->client, &buf, 1, on_written) < 0) {
        free(w);
        drop_client(a);
    }
}

static void write_noise(struct null_agent *a)
{
    uint8_t noise[NOISE];
    vf_random(noise, sizeof(noise));
    write_bytes(a, noise, sizeof(noise));
}

static void flood(struct null_agent *a)
{
    a->flooding = true;
    if (a->running)
        write_noise(a);
}

/* ---- frames */

/* Between null_agent_begin and null_agent_send there is nothing but puts. */
static _Thread_local struct vf_wire_writer out;

struct vf_wire_writer *null_agent_begin(struct null_agent *a, uint8_t type, uint32_t id)
{
    (void)a;
    vf_wire_start(&out, type, id);
    return &out;
}

void null_agent_send(struct null_agent *a)
{
    uint8_t frame[VF_WIRE_MAX_FRAME];
    size_t len = vf_wire_end(&out, frame);
    if (len)
        write_bytes(a, frame, len);
}

void null_agent_error(struct null_agent *a, uint32_t id, int errnum, const char *text)
{
    struct vf_wire_writer *w = null_agent_begin(a, VF_MSG_ERROR, id);
    vf_wire_put_u32(w, VF_TAG_ERRNO, (uint32_t)errnum);
    vf_wire_put(w, VF_TAG_TEXT, text, strlen(text));
    null_agent_send(a);
}

static void hello(struct null_agent *a, uint32_t id, unsigned flags)
{
    static const char name[] = "vmfactory-null 1";
    struct null_ram *ram = a->owner->ram;
    struct vf_wire_writer *w = null_agent_begin(a, VF_MSG_HELLO_OK, id);
    uint8_t other[32];

    vf_random(other, sizeof(other));
    vf_wire_put(w, VF_TAG_BOOT_ID, flags & VF_NULL_AGENT_NEW_BOOT_ID ? other : ram->boot_id, 16);
    if (flags & VF_NULL_AGENT_STALE_NONCE)
        vf_wire_put(w, VF_TAG_NONCE, other, sizeof(other));
    else if (ram->planted && !(flags & VF_NULL_AGENT_NO_NONCE))
        vf_wire_put(w, VF_TAG_NONCE, ram->nonce, sizeof(ram->nonce));
    vf_wire_put(w, VF_TAG_AGENT, name, sizeof(name) - 1);
    vf_wire_put_u32(w, VF_TAG_FEATURES,
                    VF_FEATURE_EXEC | VF_FEATURE_RESEED | VF_FEATURE_CLOCK | VF_FEATURE_IDENTITY |
                        null_nic_features(a->owner, flags));
    null_agent_send(a);
}

/* What a renewal brings must have its right length, or nothing of it is taken. */
static const char *check_renew(const struct null_agent *a, const struct vf_wire_frame *f)
{
    static const struct {
        uint16_t tag;
        size_t min, max;
        const char *complaint;
    } limits[] = {{VF_TAG_NONCE, 32, 32, "nonce: 32 bytes"},
                  {VF_TAG_ENTROPY, 64, 512, "entropy: 64 to 512 bytes"},
                  {VF_TAG_TIME, 8, 8, "time: 8 bytes"},
                  {VF_TAG_MACHINE_ID, 16, 16, "machine-id: 16 bytes"},
                  {VF_TAG_HOSTNAME, 1, 63, "hostname: 1 to 63 bytes"}};
    for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
        size_t len;
        if (!vf_wire_find(f, limits[i].tag, &len))
            continue;
        if (len < limits[i].min || len > limits[i].max)
            return limits[i].complaint;
    }
    return null_nic_check(a->owner, f);
}

/* The CRNG's stand-in: the state is a hash of all that was ever stirred in. */
static void stir(struct null_ram *ram, const uint8_t *entropy, size_t len)
{
    uint8_t both[sizeof(ram->rng) + 512];
    memcpy(both, ram->rng, sizeof(ram->rng));
    memcpy(both + sizeof(ram->rng), entropy, len);
    vf_sha256(both, sizeof(ram->rng) + len, ram->rng);
}

void null_random(struct null_ram *ram, uint8_t ret[16])
{
    uint8_t digest[VF_SHA256_LEN];
    stir(ram, (const uint8_t *)"next", 4);
    vf_sha256(ram->rng, sizeof(ram->rng), digest);
    memcpy(ret, digest, 16);
}

static void put_entropy(struct null_ram *ram, struct vf_wire_writer *w, const uint8_t *data,
                        size_t len, unsigned flags)
{
    uint8_t digest[VF_SHA256_LEN], bytes[16];
    if (flags & VF_NULL_AGENT_IGNORE_ENTROPY)
        return;
    vf_sha256(data, len, digest);
    if (flags & VF_NULL_AGENT_WRONG_DIGEST)
        digest[0] ^= 1;
    if (!(flags & VF_NULL_AGENT_SAME_SAMPLE))
        stir(ram, data, len);
    null_random(ram, bytes);
    vf_wire_put(w, VF_TAG_DIGEST, digest, sizeof(digest));
    vf_wire_put(w, VF_TAG_SAMPLE, bytes, sizeof(bytes));
}

static void renew(struct null_agent *a, const struct vf_wire_frame *f, unsigned flags)
{
    struct null_ram *ram = a->owner->ram;
    const uint8_t *p;
    size_t len;
    const char *complaint = check_renew(a, f);
    if (complaint) {
        null_agent_error(a, f->id, EINVAL, complaint);
        return;
    }
    struct vf_wire_writer *w = null_agent_begin(a, VF_MSG_RENEW_OK, f->id);
    bool obey = !(flags & VF_NULL_AGENT_IGNORE_IDENTITY);
    if ((p = vf_wire_find(f, VF_TAG_NONCE, NULL))) {
        memcpy(ram->nonce, p, sizeof(ram->nonce));
        ram->planted = 1;
    }
    if ((p = vf_wire_find(f, VF_TAG_ENTROPY, &len)))
        put_entropy(ram, w, p, len, flags);
    if ((p = vf_wire_find(f, VF_TAG_TIME, NULL))) {
        if (!(flags & VF_NULL_AGENT_IGNORE_TIME))
            null_set_clock_ns(a->owner, vf_wire_i64(p));
        vf_wire_put_i64(w, VF_TAG_TIME, null_clock_ns(a->owner));
    }
    if ((p = vf_wire_find(f, VF_TAG_MACHINE_ID, NULL))) {
        if (obey)
            memcpy(ram->machine_id, p, sizeof(ram->machine_id));
        vf_wire_put(w, VF_TAG_MACHINE_ID, ram->machine_id, sizeof(ram->machine_id));
    }
    if ((p = vf_wire_find(f, VF_TAG_HOSTNAME, &len))) {
        if (obey) {
            memset(ram->hostname, 0, sizeof(ram->hostname));
            memcpy(ram->hostname, p, len);
        }
        vf_wire_put(w, VF_TAG_HOSTNAME, ram->hostname, strnlen(ram->hostname, 63));
    }
    null_nic_renew(a->owner, f, w, flags);
    null_agent_send(a);
}

static void ping(struct null_agent *a, const struct vf_wire_frame *f)
{
    size_t len;
    const uint8_t *p = vf_wire_find(f, VF_TAG_DATA, &len);
    struct vf_wire_writer *w = null_agent_begin(a, VF_MSG_PONG, f->id);
    if (p)
        vf_wire_put(w, VF_TAG_DATA, p, len);
    null_agent_send(a);
}

static void answer(struct null_agent *a, const struct vf_wire_frame *f)
{
    unsigned flags = a->owner->script->agent_flags;
    a->owner->ram->counter++;
    switch (f->type) {
    case VF_MSG_HELLO: /* another host: what the last one ran is none of its business */
        null_exec_end_all(a);
        hello(a, f->id, flags);
        return;
    case VF_MSG_RENEW:
        renew(a, f, flags);
        return;
    case VF_MSG_PING:
        ping(a, f);
        return;
    case VF_MSG_FREEZE:
        null_exec_end_all(a);
        null_agent_begin(a, VF_MSG_FREEZE_OK, f->id);
        null_agent_send(a);
        return;
    case VF_MSG_EXEC:
        null_exec(a, f);
        return;
    case VF_MSG_STDIN:
    case VF_MSG_KILL:
    case VF_MSG_CREDIT:
        null_exec_message(a, f);
        return;
    default:
        null_agent_error(a, f->id, ENOSYS, "unknown message type");
    }
}

static const struct vf_null_step *next_step(struct null_agent *a, uint8_t type)
{
    static const struct vf_null_step good;
    static const uint8_t types[VF_NULL_MSG_COUNT] = {VF_MSG_HELLO, VF_MSG_RENEW, VF_MSG_PING,
                                                     VF_MSG_FREEZE, VF_MSG_EXEC};
    for (int i = 0; i < VF_NULL_MSG_COUNT; i++) {
        const struct vf_null_step *s = &a->owner->script->msg[i];
        if (types[i] == type)
            return s->times && a->asked[i]++ >= s->times ? &good : s;
    }
    return &good;
}

static void act(struct null_agent *a, const struct vf_wire_frame *f)
{
    const struct vf_null_step *s = a->step;
    switch (s->action) {
    case VF_NULL_DO:
        answer(a, f);
        return;
    case VF_NULL_FAIL:
        null_agent_error(a, f->id, EIO, s->message[0] ? s->message : "failed by script");
        return;
    case VF_NULL_HANG:
        return;
    case VF_NULL_EXIT:
        null_exit(a->owner, "exited with status 1");
        return;
    case VF_NULL_HALF: {
        uint8_t frame[VF_WIRE_MAX_FRAME];
        struct vf_wire_writer *w = null_agent_begin(a, f->type | 0x80, f->id);
        vf_wire_put(w, VF_TAG_BOOT_ID, a->owner->ram->boot_id, 16);
        write_bytes(a, frame, vf_wire_end(w, frame) / 2);
        return;
    }
    case VF_NULL_GARBAGE:
        write_noise(a);
        return;
    case VF_NULL_FLOOD:
        flood(a);
        return;
    case VF_NULL_CLOSE:
        drop_client(a);
        return;
    }
}

static void on_delay(uv_timer_t *t)
{
    struct null_agent *a = t->data;
    if (!a->running || !a->busy) /* paused meanwhile: resuming goes on with it */
        return;
    a->busy = false;
    act(a, &a->frame);
    process(a);
}

static struct vf_wire_reader *new_reader(void)
{
    struct vf_wire_reader *r = malloc(sizeof(*r));
    if (r)
        vf_wire_reset(r);
    return r;
}

/* Keeps what has to wait, and frees what is no longer needed. */
static void settle(struct null_agent *a)
{
    size_t left = a->in_len - a->in_pos;
    if (a->reader && !a->busy && a->reader->len == 0 && !a->reader->overrun) {
        free(a->reader);
        a->reader = NULL;
    }
    if (left == 0) {
        free(a->kept);
        a->kept = NULL;
        a->in_pos = a->in_len = 0;
    } else if (a->in != a->kept) {
        a->kept = malloc(left);
        if (!a->kept) {
            drop_client(a);
            return;
        }
        memcpy(a->kept, a->in + a->in_pos, left);
        a->in = a->kept;
        a->in_pos = 0;
        a->in_len = left;
    }
}

static void process(struct null_agent *a)
{
    while (client_usable(a) && a->running && a->owner->alive && !a->busy && !a->flooding &&
           a->in_pos < a->in_len && a->client.write_queue_size < MAX_QUEUED) {
        if (!a->reader && !(a->reader = new_reader())) {
            drop_client(a);
            return;
        }
        a->in_pos += vf_wire_feed(a->reader, a->in + a->in_pos, a->in_len - a->in_pos, &a->frame);
        if (a->frame.type == 0)
            continue;
        a->step = next_step(a, a->frame.type);
        if (a->step->delay_us > 0) {
            a->busy = true;
            vf_timer_at(&a->delay, vf_now_us() + a->step->delay_us, on_delay);
        } else
            act(a, &a->frame);
    }
    settle(a);
    update_reading(a);
}

/* ---- from outside */

void null_agent_run(struct null_vm *n, bool running)
{
    struct null_agent *a = &n->agent;
    a->running = running;
    if (!a->listening || a->closing)
        return;
    if (running && a->busy)
        vf_timer_at(&a->delay, 0, on_delay);
    if (running && a->flooding && a->client.write_queue_size == 0)
        flood(a);
    process(a);
}

void null_agent_reset(struct null_vm *n)
{
    struct null_agent *a = &n->agent;
    null_exec_end_all(a);
    if (a->reader)
        vf_wire_reset(a->reader);
}

void null_agent_free(struct null_vm *n)
{
    free(n->agent.reader);
    free(n->agent.kept);
}

static void on_closed(uv_handle_t *h)
{
    struct null_agent *a = h->data;
    null_handle_closed(a->owner);
}

int null_agent_open(struct null_vm *n, struct vf_error *err)
{
    struct null_agent *a = &n->agent;
    VF_CLEANUP_FD int fd = -1;
    struct sigaction sa;
    /* libuv writes to streams without MSG_NOSIGNAL: a host that hangs up would end the process. */
    if (sigaction(SIGPIPE, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
    int r = vf_unix_listen(n->dirfd, "agent.sock", 8, &fd, err);
    if (r < 0)
        return r;
    n->socket_made = true;
    uv_timer_init(n->vm.loop, &a->delay);
    uv_timer_init(n->vm.loop, &a->deadline);
    uv_pipe_init(n->vm.loop, &a->listener, 0);
    a->delay.data = a->deadline.data = a->listener.data = a;
    a->delay_open = a->deadline_open = a->listening = true;
    n->handles += 3;
    if ((r = uv_pipe_open(&a->listener, fd)) < 0)
        return vf_fail_errno(err, r, "agent.sock");
    vf_steal_fd(&fd);
    if ((r = uv_listen((uv_stream_t *)&a->listener, 8, on_connection)) < 0)
        return vf_fail_errno(err, r, "agent.sock");
    return 0;
}

void null_agent_close(struct null_vm *n)
{
    struct null_agent *a = &n->agent;
    if (!a->listening || a->closing)
        return;
    null_exec_end_all(a);
    drop_client(a);
    a->closing = true;
    a->running = false;
    uv_close((uv_handle_t *)&a->delay, on_closed);
    uv_close((uv_handle_t *)&a->deadline, on_closed);
    uv_close((uv_handle_t *)&a->listener, on_closed);
}

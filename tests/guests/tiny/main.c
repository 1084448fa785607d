/* The conversation: reads a frame, answers it, lets commands go on while nothing comes in.
 *
 * misbehave=NAME on the command line makes the guest break one promise (enum misbehaviour), so that
 * tests can see the host notice. Those that come after FREEZE begin with the first request that
 * follows it, so that the template itself is built without trouble; misbehave-frozen=NAME makes any of
 * them do so.
 */
#include "tests/guests/tiny/tiny.h"

void main_loop(void) __attribute__((noreturn));

enum misbehaviour misbehaviour;
bool frozen;
int64_t arrival_ns;
struct vf_wire_writer writer;
static struct vf_wire_reader readers[2];
static struct channel com1 = {serial_read, serial_write, &readers[0]};
static struct channel vsock = {vsock_read, vsock_write, &readers[1]};
struct channel *current = &com1;
static uint8_t encoded[VF_WIRE_MAX_FRAME];

void send(void)
{
    size_t n = vf_wire_end(&writer, encoded);

    if (misbehaviour == HALF_FRAME && frozen) {
        current->write(encoded, n / 2);
        misbehaviour = MUTE;
        return;
    }
    current->write(encoded, n);
}

void send_error(uint32_t id, uint32_t linux_errno, const char *text)
{
    vf_wire_start(&writer, VF_MSG_ERROR, id);
    vf_wire_put_u32(&writer, VF_TAG_ERRNO, linux_errno);
    vf_wire_put(&writer, VF_TAG_TEXT, text, text_len(text));
    send();
}

static void choose_misbehaviour(const char *word)
{
    static const char *const names[] = {
        [IGNORE_RESEED] = "ignore-reseed",
        [NO_DIGEST] = "no-digest",
        [STALE_NONCE] = "stale-nonce",
        [MUTE] = "mute",
        [HALF_FRAME] = "half-frame",
        [FLOOD] = "flood",
        [FLOOD_GARBAGE] = "flood-garbage",
        [MUTE_BOOT] = "mute-boot",
        [PANIC_BOOT] = "panic-boot",
        [LATE_CLOCK] = "late-clock",
        [SAME_IDENTITY] = "same-identity",
        [WRONG_MAC] = "wrong-mac",
        [WRONG_IPV4] = "wrong-ipv4",
        [WRONG_IPV6] = "wrong-ipv6",
        [WRONG_MTU] = "wrong-mtu",
        [WRONG_DNS] = "wrong-dns",
        [NO_DNS] = "no-dns",
        [WRONG_GATEWAY_MAC] = "wrong-gateway-mac",
    };
    size_t len;
    const char *p = cmdline_value(word, &len);

    if (!p)
        return;
    misbehaviour = PANIC_BOOT; /* a name that is mistyped must not pass for good behaviour */
    for (unsigned i = 1; i < sizeof(names) / sizeof(names[0]); i++)
        if (text_is(p, len, names[i]))
            misbehaviour = (enum misbehaviour)i;
}

static _Noreturn void panic(void)
{
    static const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) no_handlers = {0, 0};

    /* Without handlers the exception ends in a triple fault, which resets the machine. */
    __asm__ volatile("lidt %0\n ud2" : : "m"(no_handlers));
    for (;;)
        __asm__ volatile("hlt");
}

static _Noreturn void flood(void)
{
    static const uint8_t junk[64] = "this is no frame";

    for (;;) {
        if (misbehaviour == FLOOD_GARBAGE) {
            current->write(junk, sizeof(junk) - 1);
        } else {
            vf_wire_start(&writer, VF_MSG_PONG, 0x600df00d);
            send();
        }
    }
}

static void answer(const struct vf_wire_frame *f)
{
    size_t len;
    const uint8_t *p;

    if (frozen) {
        if (misbehaviour == FLOOD || misbehaviour == FLOOD_GARBAGE)
            flood();
        if (misbehaviour == MUTE)
            return;
    }
    switch (f->type) {
    case VF_MSG_HELLO:
        exec_end_all(current);
        vf_wire_start(&writer, VF_MSG_HELLO_OK, f->id);
        state_put_hello(&writer);
        send();
        break;
    case VF_MSG_RENEW:
        vf_wire_start(&writer, VF_MSG_RENEW_OK, f->id);
        state_renew(f, &writer);
        send();
        break;
    case VF_MSG_PING:
        vf_wire_start(&writer, VF_MSG_PONG, f->id);
        p = vf_wire_find(f, VF_TAG_DATA, &len);
        if (p)
            vf_wire_put(&writer, VF_TAG_DATA, p, len);
        send();
        break;
    case VF_MSG_FREEZE:
        exec_end_all(NULL);
        vf_wire_start(&writer, VF_MSG_FREEZE_OK, f->id);
        send();
        choose_misbehaviour("misbehave-frozen");
        frozen = true;
        break;
    case VF_MSG_EXEC:
        exec_start(f);
        break;
    case VF_MSG_STDIN:
        exec_stdin(f);
        break;
    case VF_MSG_CREDIT:
        exec_credit(f);
        break;
    case VF_MSG_KILL:
        exec_kill(f);
        break;
    default:
        send_error(f->id, 38 /* ENOSYS */, "unknown message");
    }
}

/* Takes what came in on c, if anything, and answers it. */
static bool serve(struct channel *c)
{
    uint8_t input[256];
    bool fresh = c->reader->len == 0;
    size_t n = c->read(input, sizeof(input)), used = 0;

    if (n == 0)
        return false;
    current = c;
    if (fresh)
        arrival_ns = clock_ns();
    while (used < n) {
        struct vf_wire_frame f;
        used += vf_wire_feed(c->reader, input + used, n - used, &f);
        if (f.type != 0)
            answer(&f);
    }
    return true;
}

static bool serve_vsock(void)
{
    static uint32_t talk;

    if (talk != vsock_talks) { /* another connection: nothing of the one before goes on */
        talk = vsock_talks;
        vf_wire_reset(vsock.reader);
        exec_end_all(&vsock);
    }
    return serve(&vsock);
}

void main_loop(void)
{
    choose_misbehaviour("misbehave");
    if (misbehaviour == PANIC_BOOT)
        panic();
    serial_init();
    clock_init();
    state_init();
    while (misbehaviour == MUTE_BOOT)
        ;
    bool has_vsock = vsock_init();
    net_there = net_init();
    serial_write((const uint8_t *)"", 1);
    for (;;) {
        bool quiet = !serve(&com1);
        if (has_vsock && serve_vsock())
            quiet = false;
        if (net_there)
            net_poll();
        if (quiet)
            exec_step();
    }
}

/* The agent's client and a command in the guest, against a guest that says anything.
 *
 * The input is a script: each step is a byte that says what the guest sends, frames whose checks hold (a fuzzer would
 * not find a CRC) with types, ids, tags and contents out of the input, or bytes as they are. Every request gets
 * exactly one answer, a stream no word after its last. */
#include <sys/socket.h>
#include <unistd.h>
#include "base/fd.h"
#include "factory/agent.h"
#include "factory/exec.h"
#include "fuzz.h"

static struct {
    struct vf_agent agent;
    struct vf_exec *exec; /* NULL once it has ended */
    unsigned habits;      /* bits: 1 abandon at output, 2 hold output back, 4 break at output */
    int asked, answered, broken, exits;
    bool closing, closed;
} t;
static uv_loop_t loop;
static int channel_dir = -1, listener = -1;

static void on_broken(void *arg, const struct vf_error *err)
{
    (void)arg;
    FUZZ_CHECK(err != NULL && !t.closing);
    t.broken++;
}

static void on_reply(void *arg, const struct vf_wire_frame *f, const struct vf_error *err)
{
    (void)arg;
    FUZZ_CHECK((f == NULL) != (err == NULL));
    t.answered++;
}

static void on_output(void *arg, int fd, const void *data, size_t len)
{
    static volatile uint8_t sum;

    (void)arg;
    FUZZ_CHECK((fd == 1 || fd == 2) && t.exec != NULL);
    for (size_t i = 0; i < len; i++)
        sum = sum ^ ((const uint8_t *)data)[i];
    if (t.habits & 1) {
        vf_exec_abandon(t.exec);
        t.exec = NULL;
    } else if (t.habits & 4) {
        struct vf_error err;

        vf_fail(&err, VF_CANCELLED, "enough");
        vf_agent_break(&t.agent, &err);
    } else if (!(t.habits & 2)) {
        vf_exec_consumed(t.exec, len);
    }
}

static void on_writable(void *arg)
{
    (void)arg;
    if (t.exec != NULL)
        vf_exec_write(t.exec, "more", 4, NULL);
}

static void on_exited(void *arg, const struct vf_exec_status *status, const struct vf_error *err)
{
    (void)arg;
    FUZZ_CHECK((status == NULL) != (err == NULL) && t.exec != NULL);
    t.exits++;
    t.exec = NULL;
}

static const struct vf_exec_callbacks exec_callbacks = {on_output, on_writable, on_exited};

static void on_closed(void *arg)
{
    (void)arg;
    t.closed = true;
}

/* The channel is a socket in a directory; the name goes at once, the listener stays. */
static void open_once(void)
{
    static bool ready;
    char path[] = "/tmp/vf-fuzz-XXXXXX";

    if (ready)
        return;
    ready = true;
    FUZZ_CHECK(uv_loop_init(&loop) == 0);
    FUZZ_CHECK(mkdtemp(path) != NULL);
    FUZZ_CHECK(vf_open_dir(path, 0, 0, &channel_dir, NULL) == 0);
    FUZZ_CHECK(vf_unix_listen(channel_dir, VF_LINK_SOCKET_NAME, 8, &listener, NULL) == 0);
}

static void close_once(void)
{
    char path[64], target[64];
    ssize_t n;

    if (channel_dir < 0)
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", channel_dir);
    n = readlink(path, target, sizeof(target) - 1);
    unlinkat(channel_dir, VF_LINK_SOCKET_NAME, 0);
    if (n > 0) {
        target[n] = '\0';
        rmdir(target);
    }
}

static void turns(int peer, int n)
{
    char sink[8192];

    for (int i = 0; i < n; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        while (peer >= 0 && recv(peer, sink, sizeof(sink), MSG_DONTWAIT) > 0)
            ;
    }
}

/* A frame whose checks hold: type, id, then records. */
static void send_frame(int peer, struct fuzz_input *in)
{
    static const uint8_t types[] = {VF_MSG_HELLO_OK, VF_MSG_RENEW_OK, VF_MSG_PONG, VF_MSG_EXEC_OK,
                                    VF_MSG_STDOUT,   VF_MSG_STDERR,   VF_MSG_EXIT, VF_MSG_ERROR,
                                    VF_MSG_CREDIT,   VF_MSG_HELLO};
    static struct vf_wire_writer w;
    static uint8_t out[VF_WIRE_MAX_FRAME];
    uint8_t type = fuzz_byte(in);
    uint32_t id = fuzz_byte(in) % 6; /* the client counts from 1 */
    int records = fuzz_byte(in) % 5;
    size_t n;

    vf_wire_start(&w, type < 200 ? types[type % sizeof(types)] : type, id);
    for (int i = 0; i < records; i++) {
        uint16_t tag = fuzz_byte(in) % 32;
        size_t len = fuzz_byte(in);
        const uint8_t *p = fuzz_piece(in, &len);

        vf_wire_put(&w, tag, p, len);
    }
    n = vf_wire_end(&w, out);
    if (n > 0 && send(peer, out, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return;
}

static void step(int peer, struct fuzz_input *in)
{
    static char *const argv[] = {"/bin/true", NULL};
    static struct vf_wire_writer w;
    struct vf_exec_options o = {.argv = argv};
    size_t len;
    const uint8_t *p;

    switch (fuzz_byte(in) % 8) {
    case 0:
        len = (size_t)fuzz_byte(in) * 8;
        p = fuzz_piece(in, &len);
        if (len > 0 && send(peer, p, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            return;
        break;
    case 1:
        vf_agent_start(&t.agent, &w, VF_MSG_PING);
        t.asked += vf_agent_request(&t.agent, &w, VF_MSG_PONG, 60000, on_reply, NULL, NULL) == 0;
        break;
    case 2:
        if (t.exec == NULL && vf_exec_start(&t.agent, &o, &exec_callbacks, NULL, &t.exec, NULL) < 0)
            t.exec = NULL;
        break;
    case 3:
        if (t.exec != NULL)
            vf_exec_close_stdin(t.exec, NULL);
        break;
    default:
        send_frame(peer, in);
        break;
    }
    turns(peer, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    bool lossy;
    int peer;

    open_once();
    memset(&t, 0, sizeof(t));
    t.habits = fuzz_byte(&in);
    lossy = t.habits & 8;
    FUZZ_CHECK(vf_agent_open(&t.agent, &loop, channel_dir, VF_LINK_SOCKET, lossy, on_broken, NULL,
                             NULL) == 0);
    peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    FUZZ_CHECK(peer >= 0);
    t.agent.next_id = 0;
    t.asked += vf_agent_hello(&t.agent, 60000, on_reply, NULL, NULL) == 0;
    turns(peer, 1);
    while (in.left > 0 && t.broken == 0)
        step(peer, &in);
    close(peer);
    turns(-1, 2);
    FUZZ_CHECK(t.answered <= t.asked);
    if (t.exec != NULL && (t.habits & 16)) {
        vf_exec_abandon(t.exec);
        t.exec = NULL;
    }
    t.closing = true;
    vf_agent_close(&t.agent, on_closed, NULL);
    FUZZ_CHECK(t.answered == t.asked && t.exec == NULL);
    for (int i = 0; i < 100 && !t.closed; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    FUZZ_CHECK(t.closed && !uv_loop_alive(&loop));
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    open_once();
    atexit(close_once);
    return 0;
}

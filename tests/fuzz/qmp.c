/* The QMP client against a VMM that says anything: the input is what it writes.
 *
 * The first byte says how many commands are pending, the second in what pieces the input comes, the third what the
 * callbacks do. Each command is answered at most once, and exactly once unless the client is closed first; `broken`
 * comes at most once, and last. */
#include <sys/socket.h>
#include <unistd.h>
#include "fuzz.h"
#include "vmm/qmp.h"

#define MAX_COMMANDS 12

static struct {
    struct vf_qmp qmp;
    unsigned
        habits; /* bits: 1 close at the greeting, 2 at an event, 4 at a reply, 8 ask more at a reply */
    int asked, answered, broken;
    bool closing, closed;
} t;

static void on_closed(uv_handle_t *h)
{
    (void)h;
    t.closed = true;
}

static void close_now(void)
{
    if (t.closing)
        return;
    t.closing = true;
    if (!vf_qmp_close(&t.qmp, on_closed))
        t.closed = true;
}

static void ask(void);

static void on_reply(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    (void)arg;
    FUZZ_CHECK(!t.closing && t.broken == 0);
    FUZZ_CHECK(ret == NULL || err == NULL);
    t.answered++;
    if (err == NULL) {
        vf_json_str(vf_json_get(ret, "status"), "");
        vf_json_int(vf_json_at(ret, 0), 0);
    }
    if (t.habits & 4)
        close_now();
    else if (t.habits & 8)
        ask();
}

static void ask(void)
{
    if (t.asked < MAX_COMMANDS &&
        vf_qmp_execute(&t.qmp, "query-status", NULL, -1, on_reply, NULL, NULL) == 0)
        t.asked++;
}

static void on_greeting(void *arg, const char *version)
{
    (void)arg;
    FUZZ_CHECK(!t.closing && version[0] != '\0');
    if (t.habits & 1)
        close_now();
}

static void on_event(void *arg, const char *name, const struct vf_json *data)
{
    (void)arg;
    FUZZ_CHECK(!t.closing && name != NULL);
    vf_json_bool(vf_json_get(data, "guest"), false);
    if (t.habits & 2)
        close_now();
}

static void on_broken(void *arg, const struct vf_error *err)
{
    (void)arg;
    FUZZ_CHECK(!t.closing && err->code != VF_OK);
    t.broken++;
}

static const struct vf_qmp_callbacks callbacks = {on_greeting, on_event, on_broken};

/* The client reads at most once a turn; what it sends is taken off its hands. */
static void turns(uv_loop_t *loop, int peer, int n)
{
    char sink[4096];

    for (int i = 0; i < n; i++) {
        uv_run(loop, UV_RUN_NOWAIT);
        while (recv(peer, sink, sizeof(sink), MSG_DONTWAIT) > 0)
            ;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    int commands = fuzz_byte(&in) % 8, fds[2];
    size_t step = (size_t)fuzz_byte(&in) * 16 + 1;
    static uv_loop_t loop;
    static bool ready;

    if (!ready) {
        FUZZ_CHECK(uv_loop_init(&loop) == 0);
        ready = true;
    }
    memset(&t, 0, sizeof(t));
    t.habits = fuzz_byte(&in);
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    FUZZ_CHECK(vf_qmp_open(&t.qmp, &loop, fds[0], &callbacks, NULL, NULL) == 0);
    for (int i = 0; i < commands; i++)
        ask();
    while (in.left > 0 && !t.closing && t.broken == 0) {
        size_t len = step;
        const uint8_t *p = fuzz_piece(&in, &len);

        if (send(fds[1], p, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        turns(&loop, fds[1], 2);
    }
    close(fds[1]);
    fds[1] = -1;
    for (int i = 0; i < 100 && !t.closing && t.broken == 0; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    FUZZ_CHECK(t.closing || t.broken == 1);
    FUZZ_CHECK(t.closing ? t.answered <= t.asked : t.answered == t.asked);
    close_now();
    for (int i = 0; i < 100 && !t.closed; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    FUZZ_CHECK(t.closed && !uv_loop_alive(&loop));
    return 0;
}

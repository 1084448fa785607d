/* The agent's client on a vsock whose other end is a script: what is answered to CONNECT, and when, and what is
 * asked meanwhile; then on a pair of FIFOs.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "factory/agent.h"
#include "factory/exec.h"
#include "tests/unit/scratch.h"

TestSuite(agent_link, .timeout = 60);

#define LONG_MS 30000
#define CONNECT_LINE "CONNECT 22086\n"

static struct scratch scratch;
static uv_loop_t loop;
static struct vf_agent agent;
static int listener = -1, peer = -1;
static bool closed;
static struct vf_error err;

static struct reply {
    int calls;
    uint8_t type;
    struct vf_error err;
} hello, pong;
static int broken;
static struct vf_error broken_err;

static void on_broken(void *arg, const struct vf_error *e)
{
    (void)arg;
    broken++;
    broken_err = *e;
}

static void on_reply(void *arg, const struct vf_wire_frame *f, const struct vf_error *e)
{
    struct reply *r = arg;

    cr_assert_eq(f == NULL, e != NULL);
    r->calls++;
    r->type = f ? f->type : 0;
    if (e)
        r->err = *e;
}

static void on_closed(void *arg)
{
    (void)arg;
    closed = true;
}

/* Sleeps until the loop or fd (if not -1) has something, then turns it. Not before, or what is waited for may have
 * come when it goes to sleep. */
static void turn(int fd, short events, int64_t deadline_us)
{
    struct pollfd p[2] = {{.fd = uv_backend_fd(&loop), .events = POLLIN},
                          {.fd = fd, .events = events}};
    int left = vf_deadline_left_ms(deadline_us), wait;

    cr_assert(left > 0, "waited in vain");
    uv_update_time(&loop);
    wait = uv_backend_timeout(&loop);
    poll(p, 2, wait >= 0 && wait < left ? wait : left);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static void await_count(const int *count, int n)
{
    int64_t deadline_us = vf_deadline_after_ms(LONG_MS);

    while (*count < n)
        turn(-1, 0, deadline_us);
    cr_assert_eq(*count, n);
}

static void hang_up(void)
{
    vf_close_fd(&peer);
}

static void say(const void *data, size_t len)
{
    cr_assert_eq(write(peer, data, len), (ssize_t)len);
}

/* Reads len bytes at fd. */
static void hear(int fd, void *buf, size_t len)
{
    int64_t deadline_us = vf_deadline_after_ms(LONG_MS);

    for (size_t got = 0; got < len;) {
        ssize_t n = read(fd, (char *)buf + got, len - got);

        cr_assert(n > 0 || (n < 0 && errno == EAGAIN), "the agent's client has hung up");
        if (n > 0)
            got += (size_t)n;
        else
            turn(fd, POLLIN, deadline_us);
    }
}

static void await_end(void)
{
    int64_t deadline_us = vf_deadline_after_ms(LONG_MS);
    char c;
    ssize_t n;

    while ((n = read(peer, &c, 1)) != 0) {
        cr_assert(n < 0 && errno == EAGAIN);
        turn(peer, POLLIN, deadline_us);
    }
    hang_up();
}

/* The next connection, up to its CONNECT line. */
static void take_call(void)
{
    int64_t deadline_us = vf_deadline_after_ms(LONG_MS);
    char line[sizeof(CONNECT_LINE)] = "";

    hang_up();
    while ((peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0) {
        cr_assert_eq(errno, EAGAIN);
        turn(listener, POLLIN, deadline_us);
    }
    hear(peer, line, sizeof(line) - 1);
    cr_assert_str_eq(line, CONNECT_LINE);
}

/* The next frame the client says at fd; its body lies in reader. */
static struct vf_wire_frame hear_frame_at(int fd, struct vf_wire_reader *reader)
{
    struct vf_wire_frame f = {0};
    uint8_t byte;

    vf_wire_reset(reader);
    while (!f.type) {
        hear(fd, &byte, 1);
        cr_assert_eq(vf_wire_feed(reader, &byte, 1, &f), 1);
    }
    cr_assert_eq(reader->garbage, 0);
    return f;
}

static uint32_t hear_frame(uint8_t type)
{
    static struct vf_wire_reader reader;
    struct vf_wire_frame f = hear_frame_at(peer, &reader);

    cr_assert_eq(f.type, type, "a frame of type %d, not %d", f.type, type);
    return f.id;
}

static size_t frame_of(uint8_t type, uint32_t id, uint8_t *buf)
{
    static struct vf_wire_writer w;

    vf_wire_start(&w, type, id);
    return vf_wire_end(&w, buf);
}

static void say_frame(uint8_t type, uint32_t id)
{
    uint8_t frame[64];

    say(frame, frame_of(type, id, frame));
}

static void open_scratch(void)
{
    scratch_open(&scratch);
    cr_assert_eq(uv_loop_init(&loop), 0);
}

static void open_agent(void)
{
    open_scratch();
    cr_assert_eq(vf_unix_listen(scratch.fd, VF_LINK_VSOCK_NAME, 8, &listener, &err), 0);
    cr_assert_eq(
        vf_agent_open(&agent, &loop, scratch.fd, VF_LINK_VSOCK, false, on_broken, NULL, &err), 0,
        "%s", err.msg);
}

static void ask_hello(int64_t timeout_ms)
{
    cr_assert_eq(vf_agent_hello(&agent, timeout_ms, on_reply, &hello, &err), 0, "%s", err.msg);
    cr_assert_eq(hello.calls, 0, "not before it has returned");
}

static void ask_ping(int64_t timeout_ms)
{
    static struct vf_wire_writer w;

    vf_agent_start(&agent, &w, VF_MSG_PING);
    cr_assert_eq(vf_agent_request(&agent, &w, VF_MSG_PONG, timeout_ms, on_reply, &pong, &err), 0,
                 "%s", err.msg);
}

static void greet(void)
{
    say_frame(VF_MSG_HELLO_OK, hear_frame(VF_MSG_HELLO));
    await_count(&hello.calls, 1);
    cr_assert_eq(hello.type, VF_MSG_HELLO_OK, "%s", hello.err.msg);
}

static void end(void)
{
    int64_t deadline_us = vf_deadline_after_ms(LONG_MS);

    if (agent.open_handles)
        vf_agent_close(&agent, on_closed, NULL);
    else
        closed = true;
    while (!closed)
        turn(-1, 0, deadline_us);
    cr_assert_eq(uv_loop_close(&loop), 0, "a handle is left");
    hang_up();
    vf_close_fd(&listener);
    scratch_close(&scratch);
}

/* ---- dialling */

Test(agent_link, the_hello_waits_for_ok)
{
    char c;

    open_agent();
    ask_hello(LONG_MS);
    take_call();
    cr_assert(read(peer, &c, 1) < 0 && errno == EAGAIN, "nothing follows CONNECT before OK");
    say("OK 1073741824\n", 14);
    greet();
    cr_assert_eq(agent.link.dirfd, -1, "the directory is not needed any more");
    end();
}

Test(agent_link, ok_comes_byte_by_byte_and_the_first_frame_glued_to_it)
{
    uint8_t bytes[128] = "OK 7\n";
    uint32_t id;

    open_agent();
    ask_hello(LONG_MS);
    take_call();
    for (int i = 0; i < 4; i++) {
        say(bytes + i, 1);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    id = agent.next_id; /* of the hello that is to come */
    say(bytes + 4, 1 + frame_of(VF_MSG_HELLO_OK, id, bytes + 5));
    await_count(&hello.calls, 1);
    cr_assert_eq(hello.type, VF_MSG_HELLO_OK);
    end();
}

Test(agent_link, it_is_dialled_again_until_the_guest_listens)
{
    open_agent();
    ask_hello(LONG_MS);
    for (int i = 0; i < 10; i++)
        take_call(); /* and hangs up on the one before */
    say("OK 1\n", 5);
    greet();
    cr_assert_eq(broken, 0);
    end();
}

Test(agent_link, a_half_answer_that_is_cut_off_is_dialled_again)
{
    open_agent();
    ask_hello(LONG_MS);
    take_call();
    say("OK 12", 5);
    uv_run(&loop, UV_RUN_NOWAIT);
    take_call();
    say("OK 34\n", 6);
    greet();
    end();
}

Test(agent_link, a_connection_that_is_cut_off_before_its_first_answer_is_dialled_again)
{
    open_agent();
    ask_hello(LONG_MS);
    take_call();
    say("OK 1\n", 5);
    hear_frame(VF_MSG_HELLO);
    take_call();
    say("OK 2\n", 5);
    greet();
    cr_assert_eq(broken, 0);
    end();
}

Test(agent_link, a_connection_on_which_nobody_answers_is_given_up_for_another)
{
    int first;

    open_agent();
    ask_hello(LONG_MS);
    take_call();
    say("OK 1\n", 5);
    hear_frame(VF_MSG_HELLO);
    first = peer;
    peer = -1;
    take_call();
    close(first);
    say("OK 2\n", 5);
    greet();
    end();
}

Test(agent_link, nobody_dials_for_nobody)
{
    struct pollfd p;

    open_agent();
    take_call();
    hang_up();
    for (int i = 0; i < 20; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    cr_assert_eq(agent.link.state, VF_AGENT_DOWN);
    cr_assert(!uv_is_active((uv_handle_t *)&agent.link.timer));
    p = (struct pollfd){.fd = listener, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, 0), 0);
    ask_hello(LONG_MS);
    take_call();
    say("OK 1\n", 5);
    greet();
    end();
}

Test(agent_link, what_is_asked_while_it_is_dialled_follows_the_hello)
{
    open_agent();
    ask_ping(LONG_MS);
    ask_hello(LONG_MS);
    take_call();
    take_call();
    say("OK 1\n", 5);
    greet();
    say_frame(VF_MSG_PONG, hear_frame(VF_MSG_PING));
    await_count(&pong.calls, 1);
    cr_assert_eq(pong.type, VF_MSG_PONG);
    end();
}

Test(agent_link, what_waits_while_it_is_dialled_is_bounded)
{
    static uint8_t body[VF_WIRE_MAX_BODY - 4];
    static struct vf_wire_writer w;
    int r = 0, n;

    open_agent();
    for (n = 0; n < 1000 && r == 0; n++) {
        vf_agent_start(&agent, &w, VF_MSG_STDIN);
        vf_wire_put(&w, VF_TAG_DATA, body, sizeof(body));
        r = vf_agent_send(&agent, &w, &err);
    }
    cr_assert_eq(err.code, VF_BUSY, "%s", err.msg);
    cr_assert_eq(n, VF_AGENT_MAX_QUEUED / VF_WIRE_MAX_BODY);
    end();
}

Test(agent_link, a_deadline_holds_while_it_is_dialled)
{
    open_agent();
    ask_hello(50);
    take_call();
    await_count(&hello.calls, 1);
    cr_assert_eq(hello.err.code, VF_TIMEOUT);
    cr_assert(strstr(hello.err.hint, "port 22086"), "%s", hello.err.hint);
    cr_assert_eq(broken, 0, "it is whoever asked who decides");
    end();
}

Test(agent_link, closed_while_it_is_dialled)
{
    open_agent();
    ask_hello(LONG_MS);
    take_call();
    vf_agent_close(&agent, on_closed, NULL);
    cr_assert_eq(hello.calls, 1);
    cr_assert_eq(hello.err.code, VF_CANCELLED);
    await_end();
    while (!closed)
        uv_run(&loop, UV_RUN_NOWAIT);
    end();
}

Test(agent_link, closed_between_two_calls)
{
    open_agent();
    ask_hello(LONG_MS);
    take_call();
    hang_up();
    for (int i = 0; i < 20 && agent.link.state != VF_AGENT_DOWN; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    end();
    cr_assert_eq(hello.err.code, VF_CANCELLED);
}

/* ---- answers that are none */

static void check_refused(const char *answer, size_t len)
{
    open_agent();
    ask_hello(LONG_MS);
    take_call();
    say(answer, len);
    await_count(&broken, 1);
    cr_assert_eq(broken_err.code, VF_PROTOCOL, "%s", broken_err.msg);
    for (const char *p = broken_err.msg; *p; p++)
        cr_assert((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f, "fit for a terminal");
    cr_assert_eq(hello.calls, 1);
    cr_assert_eq(hello.err.code, VF_PROTOCOL);
    cr_assert_lt(vf_agent_hello(&agent, LONG_MS, on_reply, &pong, &err), 0);
    end();
}

#define REFUSED(name, answer)                      \
    Test(agent_link, name)                         \
    {                                              \
        check_refused(answer, sizeof(answer) - 1); \
    }
REFUSED(an_error, "ERR no such port\n")
REFUSED(ok_without_a_port, "OK \n")
REFUSED(ok_without_a_space, "OK1\n")
REFUSED(ok_with_a_word, "OK 12x\n")
REFUSED(ok_with_a_number_too_long, "OK 12345678901\n")
REFUSED(an_empty_line, "\n")
REFUSED(zero_bytes, "\0\0\0")
REFUSED(garbage, "\x1b[31m\xff\xfe\n")
REFUSED(a_line_without_end, "OK 1111111111111111111111111111111111111")
REFUSED(a_frame_instead, "\x02\x01\x00")

/* ---- what is no different on a vsock */

Test(agent_link, a_connection_that_ends_later_is_broken)
{
    open_agent();
    ask_hello(LONG_MS);
    take_call();
    say("OK 1\n", 5);
    greet();
    ask_ping(LONG_MS);
    hear_frame(VF_MSG_PING);
    hang_up();
    await_count(&broken, 1);
    cr_assert_eq(pong.calls, 1);
    cr_assert_eq(pong.err.code, VF_GUEST_FAILED);
    end();
}

Test(agent_link, a_request_that_was_said_is_not_said_again)
{
    open_agent();
    ask_hello(LONG_MS);
    ask_ping(LONG_MS);
    take_call();
    say("OK 1\n", 5);
    hear_frame(VF_MSG_HELLO);
    hear_frame(VF_MSG_PING);
    hang_up();
    await_count(&broken, 1);
    cr_assert_eq(hello.err.code, VF_GUEST_FAILED);
    cr_assert_eq(pong.err.code, VF_GUEST_FAILED);
    end();
}

Test(agent_link, nobody_there_at_first)
{
    open_scratch();
    cr_assert_eq(
        vf_agent_open(&agent, &loop, scratch.fd, VF_LINK_VSOCK, false, on_broken, NULL, &err),
        -ENOENT);
    end();
}

Test(agent_link, nobody_there_any_more)
{
    open_agent();
    ask_hello(LONG_MS);
    take_call();
    vf_close_fd(&listener); /* the VMM ends */
    hang_up();
    await_count(&broken, 1);
    cr_assert_eq(hello.calls, 1);
    cr_assert_neq(hello.err.code, VF_TIMEOUT, "at once, not at its deadline");
    end();
}

/* ---- FIFOs */

static int fifo_in = -1, fifo_out = -1; /* the VMM's ends: it reads in and writes out */

static void make_fifos(void)
{
    cr_assert_eq(mkfifoat(scratch.fd, VF_LINK_FIFO_IN_NAME, 0600), 0);
    cr_assert_eq(mkfifoat(scratch.fd, VF_LINK_FIFO_OUT_NAME, 0600), 0);
    fifo_in = openat(scratch.fd, VF_LINK_FIFO_IN_NAME, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    fifo_out = openat(scratch.fd, VF_LINK_FIFO_OUT_NAME, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    cr_assert(fifo_in >= 0 && fifo_out >= 0);
}

static int open_fifo_agent(void)
{
    return vf_agent_open(&agent, &loop, scratch.fd, VF_LINK_FIFOS, true, on_broken, NULL, &err);
}

Test(agent_link, a_pair_of_fifos)
{
    static struct vf_wire_reader reader;
    uint8_t frame[64];
    size_t n;

    open_scratch();
    make_fifos();
    cr_assert_eq(open_fifo_agent(), 0, "%s", err.msg);
    ask_hello(LONG_MS);
    n = frame_of(VF_MSG_HELLO_OK, hear_frame_at(fifo_in, &reader).id, frame);
    cr_assert_eq(write(fifo_out, frame, n), (ssize_t)n);
    await_count(&hello.calls, 1);
    cr_assert_eq(hello.type, VF_MSG_HELLO_OK, "%s", hello.err.msg);
    vf_close_fd(&fifo_out);
    await_count(&broken, 1);
    vf_close_fd(&fifo_in);
    end();
}

Test(agent_link, a_fifo_nobody_reads)
{
    open_scratch();
    make_fifos();
    vf_close_fd(&fifo_in);
    cr_assert_eq(open_fifo_agent(), -ECONNREFUSED, "%s", err.msg);
    vf_close_fd(&fifo_out);
    end();
}

Test(agent_link, what_is_no_fifo)
{
    int fd;

    open_scratch();
    fd = openat(scratch.fd, VF_LINK_FIFO_OUT_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    cr_assert_eq(open_fifo_agent(), -ENOTSUP, "%s", err.msg);
    end();
}

/* A command's streams over the upgrade, against a daemon of a few lines. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/unit/fake_daemon.h"

TestSuite(client_exec, .timeout = 60);

static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                              "Upgrade: vmfactory-exec\r\n\r\n";
static const char *const command[] = {"cat", "-", NULL};
static struct fake fake;
static struct vmfactory_error err;
static struct vmfactory_exit end;

static struct vmfactory_exec_options options(void)
{
    struct vmfactory_exec_options o = VMFACTORY_EXEC_OPTIONS_INIT;

    o.argv = command;
    return o;
}

/* Both connections: the handle's own, idle, and the command's, which is upgraded. */
static int begin(struct fake *f, int *ret_idle)
{
    int fd;

    *ret_idle = fake_accept(f);
    fd = fake_accept(f);
    fake_expect(fake_read_request(f, fd), "a request");
    fake_expect_line(f, "POST /v1/vms/a/exec");
    fake_expect(strstr(f->request, "Upgrade: vmfactory-exec\r\n") != NULL, f->request);
    fake_expect(strstr(f->request, "{\"argv\":[\"cat\",\"-\"]") != NULL, f->request);
    return fd;
}

static void frame(int fd, int type, const void *data, size_t len)
{
    unsigned char header[8] = {
        (unsigned char)type, 0, 0, 0, 0, (unsigned char)(len >> 16), (unsigned char)(len >> 8),
        (unsigned char)len};

    fake_send(fd, header, sizeof(header));
    fake_send(fd, data, len);
}

static void exit_with(int fd, const char *json)
{
    frame(fd, 3, json, strlen(json));
    close(fd);
}

/* Reads a client's frame; returns its type. */
static int read_frame(int fd, unsigned char *data, size_t *ret_len)
{
    unsigned char header[8];
    size_t len;

    fake_expect(recv(fd, header, 8, MSG_WAITALL) == 8, "a frame");
    len = (size_t)header[5] << 16 | (size_t)header[6] << 8 | header[7];
    fake_expect(len <= 65536, "a frame's length");
    fake_expect(len == 0 || recv(fd, data, len, MSG_WAITALL) == (ssize_t)len, "its payload");
    *ret_len = len;
    return header[0];
}

/* Echoes stdin, byte-reversed pieces to stderr, then exits. */
static void echo(struct fake *f)
{
    static unsigned char data[65536];
    int idle, fd = begin(f, &idle), type;
    size_t len = 1;

    fake_text(fd, upgrade);
    while (len > 0) {
        type = read_frame(fd, data, &len);
        fake_expect(type == 0, "stdin");
        frame(fd, 1, data, len);
    }
    frame(fd, 2, "warned", 6);
    frame(fd, 2, "", 0);
    exit_with(fd, "{\"exit\":{\"code\":7,\"signal\":null,\"timed_out\":false}}");
    fake_await_close(idle);
}

struct sink {
    char out[4096], errout[64];
    size_t n_out, n_err;
};

static int take(void *arg, int stream, const void *data, size_t len)
{
    struct sink *s = arg;
    char *to = stream == 1 ? s->out + s->n_out : s->errout + s->n_err;
    size_t room = stream == 1 ? sizeof(s->out) - s->n_out : sizeof(s->errout) - s->n_err;

    if (len > room)
        return 1;
    memcpy(to, data, len);
    *(stream == 1 ? &s->n_out : &s->n_err) += len;
    return 0;
}

Test(client_exec, data_in_and_a_callback)
{
    struct vmfactory_exec_options o = options();
    struct sink s = {.n_out = 0};

    fake_start(&fake, echo);
    o.stdin_data = "hello";
    o.stdin_len = 5;
    o.on_output = take;
    o.arg = &s;
    cr_assert_eq(vmfactory_exec(fake.h, "a", &o, &end, &err), 0, "%s", err.message);
    cr_expect_eq(end.code, 7);
    cr_expect_eq(end.signal, 0);
    cr_expect_eq(s.n_out, 5u);
    cr_expect_arr_eq(s.out, "hello", 5);
    cr_expect_arr_eq(s.errout, "warned", 6);
    fake_stop(&fake);
}

struct pour {
    int fd;
    size_t len;
};

static void *pour_in(void *arg)
{
    struct pour *p = arg;
    char block[5000];

    memset(block, 'p', sizeof(block));
    for (size_t done = 0; done < p->len; done += sizeof(block))
        if (write(p->fd, block, sizeof(block)) != sizeof(block))
            abort();
    close(p->fd);
    return NULL;
}

struct drain {
    int fd;
    size_t len;
};

static void *drain_all(void *arg)
{
    struct drain *d = arg;
    char buf[3000];
    ssize_t n;

    while ((n = read(d->fd, buf, sizeof(buf))) > 0)
        d->len += (size_t)n;
    return NULL;
}

/* More than all buffers on the way hold, through pipes. */
Test(client_exec, much_through_descriptors)
{
    struct vmfactory_exec_options o = options();
    struct pour p = {.len = 2000000};
    struct drain d = {.len = 0};
    pthread_t pourer, drainer;
    int in[2], out[2];

    fake_start(&fake, echo);
    cr_assert(pipe(in) == 0 && pipe(out) == 0);
    p.fd = in[1];
    d.fd = out[0];
    cr_assert_eq(pthread_create(&pourer, NULL, pour_in, &p), 0);
    cr_assert_eq(pthread_create(&drainer, NULL, drain_all, &d), 0);
    o.stdin_fd = in[0];
    o.stdout_fd = out[1];
    cr_assert_eq(vmfactory_exec(fake.h, "a", &o, &end, &err), 0, "%s", err.message);
    close(out[1]);
    pthread_join(pourer, NULL);
    pthread_join(drainer, NULL);
    cr_expect_eq(d.len, p.len);
    cr_expect_eq(end.code, 7);
    close(in[0]);
    close(out[0]);
    fake_stop(&fake);
}

/* Waits for a signal and dies of it. */
static void await_signal(struct fake *f)
{
    unsigned char data[65536];
    int idle, fd = begin(f, &idle);
    size_t len;

    fake_text(fd, upgrade);
    while (read_frame(fd, data, &len) != 4)
        ;
    fake_expect(len == 4 && memcmp(data, "\0\0\0\017", 4) == 0, "SIGTERM");
    exit_with(fd, "{\"exit\":{\"code\":null,\"signal\":15,\"timed_out\":false}}");
    fake_await_close(idle);
}

Test(client_exec, a_signal_is_passed_on)
{
    struct vmfactory_exec_options o = options();
    int fds[2];

    fake_start(&fake, await_signal);
    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(write(fds[1], "\017", 1), 1);
    o.signal_fd = fds[0];
    cr_assert_eq(vmfactory_exec(fake.h, "a", &o, &end, &err), 0, "%s", err.message);
    cr_expect_eq(end.signal, SIGTERM);
    cr_expect_eq(end.code, -1);
    close(fds[0]);
    close(fds[1]);
    fake_stop(&fake);
}

static void just_upgrade(struct fake *f)
{
    int idle, fd = begin(f, &idle);

    fake_text(fd, upgrade);
    fake_await_close(fd);
    fake_await_close(idle);
}

Test(client_exec, a_zero_ends_it)
{
    struct vmfactory_exec_options o = options();
    int fds[2];

    fake_start(&fake, just_upgrade);
    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(write(fds[1], "\2\0", 2), 2);
    o.signal_fd = fds[0];
    cr_expect_eq(vmfactory_exec(fake.h, "a", &o, &end, &err), -ECANCELED);
    close(fds[0]);
    close(fds[1]);
    fake_stop(&fake);
}

/* What one script sends after the upgrade, and how the call ends. */
static const char *after_upgrade;
static size_t after_len;

static void send_and_close(struct fake *f)
{
    int idle, fd = begin(f, &idle);

    fake_text(fd, upgrade);
    fake_send(fd, after_upgrade, after_len);
    close(fd);
    fake_await_close(idle);
}

static int ends_with(const char *data, size_t len)
{
    struct vmfactory_exec_options o = options();
    int r;

    after_upgrade = data;
    after_len = len;
    fake_start(&fake, send_and_close);
    r = vmfactory_exec(fake.h, "a", &o, &end, &err);
    fake_stop(&fake);
    return r;
}

Test(client_exec, streams_that_break)
{
    cr_expect_eq(ends_with("", 0), -EPROTO, "no exit status");
    cr_expect_eq(ends_with("\1\0\0\0\0\0\0\5hel", 11), -EPROTO, "cut within a frame");
    cr_expect_eq(ends_with("\1\0\0\0\0\2\0\0", 8), -EPROTO, "too long a frame");
    cr_expect_eq(ends_with("\7\0\0\0\0\0\0\0", 8), -EPROTO, "an unknown frame");
    cr_expect_eq(ends_with("\3\0\0\0\0\0\0\2{]", 10), -EPROTO, "an exit status that is none");
    cr_expect_eq(
        ends_with("\3\0\0\0\0\0\0\62{\"error\":{\"code\":\"vmm_died\",\"message\":\"is gone\"}}x",
                  8 + 50),
        -EPROTO, "trailing text");
    cr_expect_eq(
        ends_with("\3\0\0\0\0\0\0\61{\"error\":{\"code\":\"vmm_died\",\"message\":\"is gone\"}}",
                  8 + 49),
        -EREMOTEIO);
    cr_expect_str_eq(err.code, "vmm_died");
    cr_expect_str_eq(err.message, "is gone");
}

static void refuse(struct fake *f)
{
    int idle, fd = begin(f, &idle);

    fake_answer(fd, "404 Not Found",
                "{\"error\":{\"code\":\"not_found\",\"message\":\"no VM a\"}}");
    fake_await_close(fd);
    fd = fake_accept(f);
    fake_serve(f, fd, "200 OK", "{}");
    fake_await_close(fd);
    fake_await_close(idle);
}

Test(client_exec, refused)
{
    struct vmfactory_exec_options o = options();

    fake_start(&fake, refuse);
    cr_expect_eq(vmfactory_exec(fake.h, "a", &o, &end, &err), -ENOENT);
    cr_expect_str_eq(err.message, "no VM a");
    cr_expect_eq(err.status, 404);
    cr_expect_eq(vmfactory_exec(fake.h, "a", &o, &end, &err), -EPROTO);
    fake_stop(&fake);
}

static void flood(struct fake *f)
{
    static char block[60000];
    int idle, fd = begin(f, &idle);

    fake_text(fd, upgrade);
    for (int i = 0; i < 40; i++)
        frame(fd, 1, block, sizeof(block));
    close(fd);
    fake_await_close(idle);
}

Test(client_exec, whoever_reads_its_output_leaves)
{
    struct vmfactory_exec_options o = options();
    int out[2];

    signal(SIGPIPE, SIG_IGN);
    fake_start(&fake, flood);
    cr_assert_eq(pipe(out), 0);
    close(out[0]);
    o.stdout_fd = out[1];
    cr_expect_eq(vmfactory_exec(fake.h, "a", &o, &end, &err), -EPIPE);
    cr_expect_eq(err.status, 0);
    close(out[1]);
    fake_stop(&fake);
}

/* The library against a daemon of a few lines: requests, what is sent again and what never is, deadlines. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/unit/fake_daemon.h"

TestSuite(client_talk, .timeout = 60);

static const char vm_json[] =
    "{\"id\":\"0d58ee5e37d9\",\"template\":\"linux\",\"state\":\"leased\",\"source\":\"hit\","
    "\"reason\":\"\",\"generation\":3,\"pid\":42,\"lease\":{\"uid\":0,\"expires_in_ms\":5000},"
    "\"stages\":[{\"name\":\"lease\",\"us\":7}],\"total_us\":85}";

static struct fake fake;
static struct vmfactory_error err;

static int acquire(struct vmfactory_vm *ret)
{
    static const char *const require[] = {"hit", "clone", NULL};
    struct vmfactory_acquire_options o = {
        .template_name = "linux", .require = require, .timeout_ms = 1500, .ttl_ms = 9000};

    return vmfactory_acquire(fake.h, &o, ret, &err);
}

static void serve_two(struct fake *f)
{
    int fd = fake_accept(f);

    fake_expect(fake_read_request(f, fd), "a request");
    fake_expect_line(f, "POST /v1/vms");
    fake_expect_body(f, "{\"template\":\"linux\",\"require\":[\"hit\",\"clone\"],"
                        "\"timeout_ms\":1500,\"ttl_ms\":9000}");
    fake_answer(fd, "201 Created", vm_json);
    fake_expect(fake_read_request(f, fd), "a second request on the same connection");
    fake_expect_line(f, "DELETE /v1/vms/0d%2F%20x");
    fake_text(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    fake_await_close(fd);
}

Test(client_talk, acquire_and_release_on_one_connection)
{
    struct vmfactory_vm vm;

    fake_start(&fake, serve_two);
    cr_assert_eq(acquire(&vm), 0, "%s", err.message);
    cr_expect_str_eq(vm.id, "0d58ee5e37d9");
    cr_expect_str_eq(vm.source, "hit");
    cr_expect_eq(vm.generation, 3);
    cr_expect_eq(vm.expires_in_ms, 5000);
    cr_expect_eq(vm.total_us, 85);
    cr_expect_str_eq(vm.json, vm_json);
    vmfactory_vm_free(&vm);
    cr_expect_eq(vmfactory_release(fake.h, "0d/ x", &err), 0, "%s", err.message);
    fake_stop(&fake);
}

static void refuse(struct fake *f)
{
    int fd = fake_accept(f);

    fake_expect(fake_read_request(f, fd), "a request");
    fake_text(
        fd, "HTTP/1.1 429 Busy\r\nRetry-After: 2\r\nContent-Length: 69\r\n\r\n"
            "{\"error\":{\"code\":\"busy\",\"message\":\"too many wait\",\"hint\":\"wait too\"}}");
    fake_expect(fake_read_request(f, fd), "the connection is kept");
    fake_text(fd, "HTTP/1.1 500 Oops\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    close(fd);
}

Test(client_talk, refusals)
{
    struct vmfactory_vm vm = {.id = "untouched"};

    fake_start(&fake, refuse);
    cr_expect_eq(acquire(&vm), -EAGAIN);
    cr_expect_str_eq(err.code, "busy");
    cr_expect_str_eq(err.message, "too many wait");
    cr_expect_str_eq(err.hint, "wait too");
    cr_expect_eq(err.status, 429);
    cr_expect_eq(err.retry_after_s, 2);
    cr_expect_str_eq(vm.id, "untouched");
    cr_expect_eq(acquire(&vm), -EIO);
    cr_expect_eq(err.status, 500);
    fake_stop(&fake);
}

/* Answers one request, reads the second, and closes without an answer; then serves a third. */
static void drop_the_second(struct fake *f)
{
    int fd = fake_accept(f);

    fake_serve(f, fd, "201 Created", vm_json);
    fake_expect(fake_read_request(f, fd), "a second request");
    close(fd);
    fd = fake_accept(f);
    fake_expect(fake_read_request(f, fd), "a third request");
    fake_answer(fd, "200 OK", vm_json);
    fake_await_close(fd);
}

Test(client_talk, a_post_that_was_read_is_not_sent_again)
{
    struct vmfactory_vm vm;

    fake_start(&fake, drop_the_second);
    cr_assert_eq(acquire(&vm), 0);
    vmfactory_vm_free(&vm);
    cr_expect_eq(acquire(&vm), -ECONNRESET);
    cr_expect_str_eq(err.code, "disconnected");
    /* The handle is as good as new. */
    cr_assert_eq(vmfactory_get_vm(fake.h, "x", &vm, &err), 0, "%s", err.message);
    vmfactory_vm_free(&vm);
    fake_stop(&fake);
    cr_expect_eq(fake.requests, 3);
}

Test(client_talk, a_get_is_sent_again)
{
    struct vmfactory_vm vm;

    fake_start(&fake, drop_the_second);
    cr_assert_eq(acquire(&vm), 0);
    vmfactory_vm_free(&vm);
    cr_assert_eq(vmfactory_get_vm(fake.h, "x", &vm, &err), 0, "%s", err.message);
    vmfactory_vm_free(&vm);
    fake_stop(&fake);
    cr_expect_eq(fake.requests, 3);
}

/* Closes a kept connection; what comes next is on a new one. */
static void close_the_kept(struct fake *f)
{
    int fd = fake_accept(f);

    fake_serve(f, fd, "201 Created", vm_json);
    close(fd);
    fd = fake_accept(f);
    fake_expect(fake_read_request(f, fd), "a request on a new connection");
    fake_answer(fd, "201 Created", vm_json);
    fake_await_close(fd);
}

Test(client_talk, a_post_to_a_connection_that_is_closed_goes_to_a_new_one)
{
    struct vmfactory_vm vm;

    fake_start(&fake, close_the_kept);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(acquire(&vm), 0, "%s", err.message);
        vmfactory_vm_free(&vm);
    }
    fake_stop(&fake);
    cr_expect_eq(fake.requests, 2);
}

/* The kept connection is reset: closed with the second request unread in it. */
static void close_unread(struct fake *f)
{
    char byte;
    int fd = fake_accept(f);

    fake_serve(f, fd, "201 Created", vm_json);
    fake_expect(recv(fd, &byte, 1, MSG_PEEK) == 1, "the second one comes");
    close(fd);
    fd = fake_accept(f);
    fake_expect(fake_read_request(f, fd), "it comes again");
    fake_answer(fd, "201 Created", vm_json);
    fake_await_close(fd);
}

Test(client_talk, a_post_that_nobody_read_is_sent_again)
{
    struct vmfactory_vm vm;

    fake_start(&fake, close_unread);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(acquire(&vm), 0, "%s", err.message);
        vmfactory_vm_free(&vm);
    }
    fake_stop(&fake);
    cr_expect_eq(fake.requests, 2);
}

static void say_nothing(struct fake *f)
{
    int fd = fake_accept(f);

    fake_expect(fake_read_request(f, fd), "a request");
    fake_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    fake_await_close(fd);
}

Test(client_talk, a_deadline)
{
    struct vmfactory_response answer;

    fake_start(&fake, say_nothing);
    cr_expect_eq(vmfactory_request(fake.h, "GET", "/v1/pools", NULL, 50, &answer, &err),
                 -ETIMEDOUT);
    cr_expect_str_eq(err.code, "timeout");
    cr_expect_eq(err.status, 0);
    fake_stop(&fake);
}

Test(client_talk, cancelled_by_a_descriptor)
{
    struct vmfactory_response answer;
    int fds[2];

    fake_start(&fake, say_nothing);
    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(write(fds[1], "x", 1), 1);
    vmfactory_set_cancel_fd(fake.h, fds[0]);
    cr_expect_eq(vmfactory_request(fake.h, "GET", "/v1/pools", NULL, 0, &answer, &err), -ECANCELED);
    cr_expect_str_eq(err.code, "cancelled");
    close(fds[0]);
    close(fds[1]);
    fake_stop(&fake);
}

static void chunks(struct fake *f)
{
    int fd = fake_accept(f);

    fake_expect(fake_read_request(f, fd), "a request");
    fake_text(fd,
              "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3000; i++)
        fake_text(fd, "64\r\n0123456789012345678901234567890123456789012345678901234567890123456789"
                      "012345678901234567890123456789\r\n");
    fake_text(fd, "0\r\n\r\n");
    fake_await_close(fd);
}

Test(client_talk, a_long_chunked_answer_after_an_interim_one)
{
    struct vmfactory_response answer;

    fake_start(&fake, chunks);
    cr_assert_eq(vmfactory_request(fake.h, "GET", "/v1/vms", NULL, 0, &answer, &err), 0, "%s",
                 err.message);
    cr_expect_eq(answer.len, 300000u);
    cr_expect_eq(strlen(answer.body), 300000u);
    vmfactory_response_free(&answer);
    fake_stop(&fake);
}

static void garbage(struct fake *f)
{
    int fd = fake_accept(f);

    fake_expect(fake_read_request(f, fd), "a request");
    fake_text(fd, "220 mail.example.org ESMTP\r\n");
    fake_await_close(fd);
    fd = fake_accept(f);
    fake_expect(fake_read_request(f, fd), "a request");
    fake_text(fd, "HTTP/1.1 200 OK\r\nContent-Len");
    close(fd);
    fd = fake_accept(f);
    fake_serve(f, fd, "200 OK", "[1,2");
    fake_await_close(fd);
}

Test(client_talk, answers_that_are_none)
{
    struct vmfactory_version v;

    fake_start(&fake, garbage);
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(vmfactory_version(fake.h, &v, &err), -EPROTO, "%d", i);
        cr_expect_str_eq(err.code, "protocol", "%d", i);
    }
    fake_stop(&fake);
}

Test(client_talk, nobody_there)
{
    struct vmfactory *none = NULL;
    char path[400];

    memset(path, 'x', sizeof(path));
    memcpy(path, "/tmp/", 5);
    path[sizeof(path) - 1] = '\0';
    cr_expect_eq(vmfactory_connect("/nonexistent/api.sock", &none, &err), -ECONNREFUSED);
    cr_expect_str_eq(err.code, "unreachable");
    cr_expect_eq(vmfactory_connect(path, &none, NULL), -ECONNREFUSED);
    cr_expect_null(none);
    setenv("VMFACTORY_SOCKET", "/nonexistent/other.sock", 1);
    cr_expect_eq(vmfactory_connect(NULL, &none, &err), -ECONNREFUSED);
    cr_expect_not_null(strstr(err.message, "other.sock"), "%s", err.message);
}

/* ---- events and warm */

static void some_events(struct fake *f)
{
    int fd = fake_accept(f), events = fake_accept(f);

    fake_expect(fake_read_request(f, events), "a request");
    fake_expect_line(f, "GET /v1/events?since=7&follow=false");
    fake_text(events, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    /* Two lines and a half in a chunk, then the rest. */
    fake_text(
        events,
        "3f\r\n{\"seq\":8,\"event\":\"vm.leased\",\"vm\":\"a\"}\n{\"event\":\"missed\",\"count"
        "\r\n");
    fake_text(events, "6\r\n\":4}\n\n\r\n0\r\n\r\n");
    fake_await_close(events);
    fake_await_close(fd);
}

Test(client_talk, events)
{
    struct vmfactory_events *ev;
    struct vmfactory_event e;

    fake_start(&fake, some_events);
    cr_assert_eq(vmfactory_events_open(fake.h, 7, false, &ev, &err), 0, "%s", err.message);
    cr_assert_eq(vmfactory_events_next(ev, 10000, &e, &err), 1, "%s", err.message);
    cr_expect_eq(e.seq, 8);
    cr_expect_str_eq(e.event, "vm.leased");
    cr_expect_str_eq(e.vm, "a");
    cr_expect_str_eq(e.template_name, "");
    cr_assert_eq(vmfactory_events_next(ev, 10000, &e, &err), 1, "%s", err.message);
    cr_expect_str_eq(e.event, "missed");
    cr_expect_eq(e.count, 4);
    cr_expect_str_eq(e.json, "{\"event\":\"missed\",\"count\":4}");
    cr_expect_eq(vmfactory_events_next(ev, 10000, &e, &err), 0);
    vmfactory_events_close(ev);
    fake_stop(&fake);
}

#define POOL(parked, target, attempts, running, failures, more)                                    \
    "{\"template\":\"linux\",\"state\":\"ready\",\"drained\":false,\"config\":{\"target\":" target \
    "},\"parked\":" parked ",\"refill\":{\"state\":\"running\",\"failures_in_row\":" failures      \
    ",\"error\":null},\"build\":{\"running\":" running                                             \
    ",\"stage\":\"boot\",\"attempts\":" attempts ",\"error\":" more "}}"
#define NO_ERROR "null"
#define ERROR "{\"code\":\"vmm_failed\",\"message\":\"no kernel\",\"hint\":\"get one\"}"

static void warm_with(struct fake *f, const char *before, const char *const *looks)
{
    int fd = fake_accept(f), events;

    fake_expect(fake_read_request(f, fd), "a look before");
    fake_answer(fd, "200 OK", before);
    events = fake_accept(f);
    fake_expect(fake_read_request(f, events), "the events");
    fake_text(events, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    fake_expect(fake_read_request(f, fd), "the wish");
    fake_expect_line(f, "POST /v1/pools/linux/warm");
    fake_expect_body(f, "{\"count\":2}");
    fake_answer(fd, "202 Accepted", *looks++);
    for (; *looks != NULL; looks++) {
        fake_text(events, "27\r\n{\"event\":\"vm.parked\",\"template\":\"linux\"}\r\n1\r\n\n\r\n");
        fake_expect(fake_read_request(f, fd), "a look");
        fake_answer(fd, "200 OK", *looks);
    }
    fake_await_close(events);
    fake_await_close(fd);
}

static void becomes_warm(struct fake *f)
{
    static const char *const looks[] = {POOL("0", "2", "4", "true", "0", NO_ERROR),
                                        POOL("1", "2", "4", "false", "1", NO_ERROR),
                                        POOL("2", "2", "4", "false", "0", NO_ERROR), NULL};

    /* An old failure is none of ours. */
    warm_with(f, POOL("0", "0", "3", "false", "0", ERROR), looks);
}

static void count_looks(void *arg, const struct vmfactory_pool *p)
{
    (void)p;
    ++*(int *)arg;
}

Test(client_talk, warm)
{
    struct vmfactory_pool p;
    int looks = 0;

    fake_start(&fake, becomes_warm);
    cr_assert_eq(vmfactory_warm(fake.h, "linux", 2, 0, count_looks, &looks, &p, &err), 0, "%s",
                 err.message);
    cr_expect_eq(looks, 3);
    cr_expect_eq(p.parked, 2);
    vmfactory_pool_free(&p);
    fake_stop(&fake);
}

static void cannot_be_built(struct fake *f)
{
    static const char *const looks[] = {POOL("0", "2", "4", "true", "0", ERROR),
                                        POOL("0", "2", "4", "false", "0", ERROR), NULL};

    warm_with(f, POOL("0", "0", "3", "false", "0", NO_ERROR), looks);
}

Test(client_talk, warm_fails_with_the_build)
{
    fake_start(&fake, cannot_be_built);
    cr_expect_eq(vmfactory_warm(fake.h, "linux", 2, 0, NULL, NULL, NULL, &err), -EREMOTEIO);
    cr_expect_str_eq(err.code, "vmm_failed");
    cr_expect_not_null(strstr(err.message, "no kernel"), "%s", err.message);
    cr_expect_str_eq(err.hint, "get one");
    fake_stop(&fake);
}

static void cannot_be_filled(struct fake *f)
{
    static const char *const looks[] = {POOL("0", "2", "3", "false", "2", NO_ERROR),
                                        POOL("0", "2", "3", "false", "3", NO_ERROR), NULL};

    warm_with(f, POOL("0", "0", "3", "false", "0", NO_ERROR), looks);
}

Test(client_talk, warm_fails_with_the_third_clone)
{
    fake_start(&fake, cannot_be_filled);
    cr_expect_eq(vmfactory_warm(fake.h, "linux", 2, 0, NULL, NULL, NULL, &err), -EREMOTEIO);
    cr_expect_not_null(strstr(err.message, "3 clones"), "%s", err.message);
    fake_stop(&fake);
}

static void takes_long(struct fake *f)
{
    static const char *const looks[] = {POOL("0", "2", "3", "false", "0", NO_ERROR),
                                        POOL("1", "2", "3", "false", "0", NO_ERROR), NULL};

    warm_with(f, POOL("0", "0", "3", "false", "0", NO_ERROR), looks);
}

Test(client_talk, warm_has_a_deadline)
{
    fake_start(&fake, takes_long);
    cr_expect_eq(vmfactory_warm(fake.h, "linux", 2, 200, NULL, NULL, NULL, &err), -ETIMEDOUT);
    cr_expect_str_eq(err.code, "timeout");
    fake_stop(&fake);
}

/* The HTTP client of VMM sockets: each test both ways, by libcurl and with a descriptor over a socket of its own. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/unit/vmm_http_support.h"

static struct served s;

#define LENGTH "HTTP/1.1 200 OK\r\nContent-Length: "

/* A request to vm.boot, with /dev/null's descriptor if with_fd. */
static void ask(bool with_fd, int64_t timeout_ms, struct outcome *o)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct vf_vmm_http_request r = {.method = "PUT",
                                    .path = "/api/v1/vm.boot",
                                    .name = "vm.boot",
                                    .body = "{\"a\":1}",
                                    .fds = &fd,
                                    .n_fds = with_fd,
                                    .timeout_ms = timeout_ms};
    served_ask(&s, &r, o);
    close(fd);
}

/* The server writes answer and closes; both ways must end with this code and a message that has text in it. */
static void expect_error(serve_fn serve, const char *answer, size_t len, enum vf_code code,
                         const char *text)
{
    struct outcome o;
    s.answer = answer;
    s.answer_len = len;
    served_start(&s, serve);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        ask(with_fd, 10000, &o);
        cr_expect_eq(o.err.code, code, "%s, with %d descriptors: %s", answer, with_fd, o.err.msg);
        cr_expect_not_null(strstr(o.err.msg, text), "%s, with %d descriptors: %s", answer, with_fd,
                           o.err.msg);
        cr_expect_not_null(strstr(o.err.msg, "vm.boot: "), "%s", o.err.msg);
    }
    served_stop(&s);
}

static void expect_refused(const char *answer, enum vf_code code, const char *text)
{
    expect_error(serve_answer, answer, 0, code, text);
}

static void expect_ok(const char *answer, int status, const char *body)
{
    struct outcome o;
    s.answer = answer;
    served_start(&s, serve_answer);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        ask(with_fd, 10000, &o);
        cr_expect_eq(o.err.code, VF_OK, "%s", o.err.msg);
        cr_expect_eq(o.status, status);
        cr_expect_str_eq(o.body, body);
        cr_expect_eq(o.len, strlen(body));
    }
    cr_expect_eq(s.n_connections, 2, "a connection for each request");
    served_stop(&s);
}

Test(vmm_http, answer_without_body)
{
    expect_ok("HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n", 204, "");
}

Test(vmm_http, answer_of_length_zero)
{
    expect_ok("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "");
}

Test(vmm_http, answer_with_body)
{
    expect_ok(LENGTH "5\r\nServer: x\r\n\r\nhello", 200, "hello");
}

Test(vmm_http, answers_1xx_come_before_the_answer)
{
    expect_ok("HTTP/1.1 100 Continue\r\n\r\n" LENGTH "2\r\n\r\nhi", 200, "hi");
}

Test(vmm_http, json_is_parsed)
{
    struct outcome o;
    s.answer = LENGTH "17\r\n\r\n{\"version\":\"v53\"}";
    served_start(&s, serve_answer);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        ask(with_fd, 10000, &o);
        cr_assert_eq(o.err.code, VF_OK, "%s", o.err.msg);
        cr_expect(o.is_json);
        cr_expect_str_eq(o.field, "v53");
    }
    served_stop(&s);
}

Test(vmm_http, the_request_as_it_is_sent)
{
    struct outcome o;
    s.answer = LENGTH "2\r\n\r\n{}";
    served_start(&s, serve_answer);
    ask(false, 10000, &o);
    cr_expect_eq(strncmp(s.request, "PUT /api/v1/vm.boot HTTP/1.1\r\n", 30), 0, "%s", s.request);
    cr_expect_not_null(strstr(s.request, "\r\nContent-Type: application/json\r\n"));
    cr_expect_not_null(strstr(s.request, "\r\nContent-Length: 7\r\n"));
    cr_expect_not_null(strstr(s.request, "\r\n\r\n{\"a\":1}"));
    cr_expect_null(strstr(s.request, "Expect"));
    served_stop(&s);
}

Test(vmm_http, a_request_without_body_has_no_length)
{
    struct outcome o;
    s.answer = "HTTP/1.1 204 No Content\r\n\r\n";
    served_start(&s, serve_answer);
    static const char *const methods[] = {"GET", "PUT", "PATCH"};
    for (int i = 0; i < 3; i++) {
        struct vf_vmm_http_request r = {.method = methods[i], .path = "/api/v1/vm.pause"};
        served_ask(&s, &r, &o);
        cr_expect_eq(o.status, 204, "%s", o.err.msg);
        cr_expect_eq(strncmp(s.request, methods[i], strlen(methods[i])), 0, "%s", s.request);
        cr_expect_null(strstr(s.request, "Content-"), "%s", s.request);
        cr_expect_null(strstr(s.request, "chunked"), "%s", s.request);
    }
    served_stop(&s);
}

Test(vmm_http, a_long_request_arrives_whole)
{
    static char body[300000];
    struct outcome o;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    memset(body, 'x', sizeof(body) - 1);
    s.answer = "HTTP/1.1 204 No Content\r\n\r\n";
    served_start(&s, serve_answer);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        struct vf_vmm_http_request r = {
            .method = "PUT", .path = "/x", .body = body, .fds = &fd, .n_fds = with_fd};
        served_ask(&s, &r, &o);
        cr_expect_eq(o.status, 204, "%s", o.err.msg);
        cr_expect_str_eq(strstr(s.request, "\r\n\r\n") + 4, body);
        cr_expect_eq(s.n_fds, with_fd);
    }
    close(fd);
    served_stop(&s);
}

Test(vmm_http, descriptors_arrive_in_order)
{
    struct outcome o;
    int fds[16], pipes[2];
    char c = 0;
    cr_assert_eq(pipe(pipes), 0);
    for (int i = 0; i < 16; i++)
        fds[i] = i == 3 ? pipes[1] : open("/dev/null", O_RDONLY | O_CLOEXEC);
    s.answer = "HTTP/1.1 204 No Content\r\n\r\n";
    served_start(&s, serve_answer);
    struct vf_vmm_http_request r = {
        .method = "PUT", .path = "/api/v1/vm.restore", .body = "{}", .fds = fds, .n_fds = 16};
    served_ask(&s, &r, &o);
    cr_assert_eq(o.status, 204, "%s", o.err.msg);
    cr_assert_eq(s.n_fds, 16);
    cr_expect_eq(write(s.fds[3], "x", 1), 1);
    cr_expect_eq(read(pipes[0], &c, 1), 1);
    cr_expect_eq(c, 'x');
    cr_expect_eq(fcntl(fds[0], F_GETFD), FD_CLOEXEC, "they stay the caller's");
    for (int i = 0; i < 16; i++)
        close(fds[i]);
    close(pipes[0]);
    served_stop(&s);
}

Test(vmm_http, too_many_descriptors)
{
    struct vf_error err;
    int fds[65] = {0};
    struct outcome o = {0};
    struct vf_vmm_http_request r = {.method = "PUT", .path = "/x", .fds = fds, .n_fds = 65};
    served_start(&s, NULL);
    cr_expect_lt(vf_vmm_http_send(s.http, &r, on_outcome, &o, &err), 0);
    cr_expect_eq(err.code, VF_INVALID_ARGUMENT);
    served_stop(&s);
    cr_expect_eq(o.calls, 0);
}

Test(vmm_http, chunked)
{
    struct outcome o;
    s.answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
               "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    served_start(&s, serve_answer);
    ask(false, 10000, &o);
    cr_expect_str_eq(o.body, "hello", "%s", o.err.msg);
    /* No VMM sends it, and our own parser knows no codings. */
    ask(true, 10000, &o);
    cr_expect_eq(o.err.code, VF_PROTOCOL, "%s", o.err.msg);
    served_stop(&s);
}

/* ---- what an error answer says: forms in test_vmm_http_error.c */

Test(vmm_http, error_answer)
{
    expect_refused("HTTP/1.1 500 Oops\r\nContent-Length: 34\r\n\r\n"
                   "[\"The VM\",\"Could not\",\"No device\"]",
                   VF_VMM_FAILED, "vm.boot: 500: Could not: No device");
}

Test(vmm_http, error_answer_without_reason)
{
    expect_refused("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", VF_VMM_FAILED,
                   "vm.boot: 404: no reason given");
}

Test(vmm_http, redirects_are_not_followed)
{
    expect_refused(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        VF_VMM_FAILED, "302");
    cr_expect_eq(s.n_connections, 2);
}

/* ---- exit at each step */

static void exit_at_once(struct served *server, int fd)
{
    (void)server;
    (void)fd;
}

static void exit_unanswered(struct served *server, int fd)
{
    served_read(server, fd);
}

Test(vmm_http, exit_before_the_request_is_read)
{
    /* Often: the VMM may close before libcurl has looked whether it is connected. */
    for (int i = 0; i < 200; i++)
        expect_error(exit_at_once, "", 0, VF_VMM_DIED, "without an answer");
}

Test(vmm_http, exit_without_an_answer)
{
    expect_error(exit_unanswered, "", 0, VF_VMM_DIED, "without an answer");
}

Test(vmm_http, cut_off_in_the_status_line)
{
    expect_refused("HTTP/1.1 2", VF_VMM_DIED, "closed the connection");
}

Test(vmm_http, cut_off_in_a_header)
{
    expect_refused("HTTP/1.1 200 OK\r\nContent-Le", VF_VMM_DIED, "closed the connection");
}

Test(vmm_http, cut_off_before_the_body)
{
    expect_refused(LENGTH "10\r\n\r\n", VF_VMM_DIED, "within its answer");
}

Test(vmm_http, cut_off_in_the_body)
{
    expect_refused(LENGTH "10\r\n\r\nhello", VF_VMM_DIED, "within its answer");
}

Test(vmm_http, nobody_listens)
{
    struct outcome o;
    served_start(&s, NULL);
    close(s.listener);
    s.listener = -1;
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        ask(with_fd, 10000, &o);
        cr_expect_eq(o.err.code, VF_VMM_DIED, "%s", o.err.msg);
        cr_expect_not_null(strstr(o.err.msg, "vm.boot: nobody listens on api.sock: Connection"),
                           "%s", o.err.msg);
    }
    unlinkat(s.dir.fd, "api.sock", 0);
    ask(false, 10000, &o);
    cr_expect_eq(o.err.code, VF_VMM_DIED);
    cr_expect_not_null(strstr(o.err.msg, "No such file"), "%s", o.err.msg);
    served_stop(&s);
}

/* ---- slow */

static void expect_timeout(const char *answer)
{
    struct outcome o;
    s.answer = answer;
    served_start(&s, serve_and_hold);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        ask(with_fd, 50, &o);
        cr_expect_eq(o.err.code, VF_TIMEOUT, "%s", o.err.msg);
        cr_expect_not_null(strstr(o.err.msg, "vm.boot: no whole answer"), "%s", o.err.msg);
    }
    served_stop(&s);
}

Test(vmm_http, no_answer_in_time)
{
    expect_timeout("");
}

Test(vmm_http, half_an_answer_in_time)
{
    expect_timeout(LENGTH "10\r\n\r\nhello");
}

Test(vmm_http, nobody_accepts_in_time)
{
    struct outcome o;
    served_start(&s, NULL);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        ask(with_fd, 50, &o);
        cr_expect_eq(o.err.code, VF_TIMEOUT, "%s", o.err.msg);
    }
    served_stop(&s);
}

static void answer_byte_by_byte(struct served *server, int fd)
{
    if (!served_read(server, fd))
        return;
    for (const char *p = server->answer; *p; p++)
        served_write(fd, p, 1);
}

Test(vmm_http, an_answer_in_small_pieces)
{
    struct outcome o;
    s.answer = LENGTH "5\r\n\r\nhello";
    served_start(&s, answer_byte_by_byte);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        ask(with_fd, 10000, &o);
        cr_expect_str_eq(o.body, "hello", "%s", o.err.msg);
    }
    served_stop(&s);
}

Test(vmm_http, a_full_backlog)
{
    struct outcome o = {0};
    struct vf_vmm_http_request r = {.method = "GET", .path = "/x", .timeout_ms = 10000};
    served_start(&s, NULL);
    cr_assert_eq(listen(s.listener, 0), 0);
    cr_assert_eq(vf_vmm_http_send(s.http, &r, on_outcome, &o, NULL), 0);
    uv_run(&s.loop, UV_RUN_NOWAIT);
    cr_assert_eq(o.calls, 0, "%s", o.err.msg);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        struct outcome second;
        ask(with_fd, 5000, &second);
        cr_expect_eq(second.err.code, VF_BUSY, "%s", second.err.msg);
    }
    served_stop(&s);
}

/* ---- no HTTP, too much */

Test(vmm_http, no_http)
{
    expect_refused("hello\r\n\r\n", VF_PROTOCOL, "no HTTP");
}

Test(vmm_http, a_status_that_is_none)
{
    expect_refused("HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n", VF_PROTOCOL, "");
}

Test(vmm_http, an_answer_that_does_not_say_how_long_it_is)
{
    expect_refused("HTTP/1.1 200 OK\r\n\r\nhello", VF_PROTOCOL, "how long");
}

Test(vmm_http, a_length_that_is_no_number)
{
    expect_refused(LENGTH "-5\r\n\r\nhello", VF_PROTOCOL, "");
}

Test(vmm_http, a_length_beyond_the_limit)
{
    expect_error(serve_and_hold, LENGTH "99999999999\r\n\r\nhello", 0, VF_PROTOCOL, "too long");
}

/* text over and over, n bytes in all, after a beginning. */
static char *long_text(const char *begin, const char *text, size_t n)
{
    char *buf = calloc(1, n + 1);
    size_t len = (size_t)sprintf(buf, "%s", begin);
    while (len + strlen(text) <= n)
        len += (size_t)sprintf(buf + len, "%s", text);
    return buf;
}

Test(vmm_http, an_endless_head)
{
    char *text = long_text("HTTP/1.1 200 OK\r\n", "X-Y: zzzzzzzzzzzzzzzzzzzzzzzzzzzz\r\n", 40000);
    expect_error(serve_and_hold, text, 0, VF_PROTOCOL, "too long");
    free(text);
}

Test(vmm_http, an_endless_header_line)
{
    char *text = long_text("HTTP/1.1 200 OK\r\nX: ", "zzzzzzzzzzzzzzzzzzzzzzzzz", 400000);
    expect_error(serve_and_hold, text, 0, VF_PROTOCOL, "too long");
    free(text);
}

Test(vmm_http, endless_answers_1xx)
{
    char *text = long_text("", "HTTP/1.1 100 Continue\r\n\r\n", 40000);
    expect_error(serve_and_hold, text, 0, VF_PROTOCOL, "too long");
    free(text);
}

Test(vmm_http, an_endless_chunked_body)
{
    struct outcome o;
    char chunk[1100];
    snprintf(chunk, sizeof(chunk), "400\r\n%01024d\r\n", 0);
    char *text = long_text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, 5 << 20);
    s.answer = text;
    served_start(&s, serve_and_hold);
    ask(false, 10000, &o);
    cr_expect_eq(o.err.code, VF_PROTOCOL, "%s", o.err.msg);
    cr_expect_not_null(strstr(o.err.msg, "too long"), "%s", o.err.msg);
    served_stop(&s);
    free(text);
}

Test(vmm_http, the_longest_body)
{
    struct outcome o;
    size_t max = VF_VMM_HTTP_MAX_BODY;
    char head[100], *text;
    snprintf(head, sizeof(head), LENGTH "%zu\r\n\r\n", max);
    text = long_text(head, "z", strlen(head) + max);
    s.answer = text;
    served_start(&s, serve_answer);
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        ask(with_fd, 20000, &o);
        cr_expect_eq(o.err.code, VF_OK, "%s", o.err.msg);
        cr_expect_eq(o.len, max);
    }
    served_stop(&s);
    free(text);
}

/* ---- many, cancel, close */

Test(vmm_http, many_at_once)
{
    struct outcome o = {0};
    struct vf_vmm_http_request r = {.method = "GET", .path = "/x"};
    s.answer = "HTTP/1.1 204 No Content\r\n\r\n";
    served_start(&s, serve_answer);
    for (int i = 0; i < 12; i++)
        cr_assert_eq(vf_vmm_http_send(s.http, &r, on_outcome, &o, NULL), 0);
    served_wait(&s, &o, 12);
    cr_expect_eq(o.err.code, VF_OK, "%s", o.err.msg);
    cr_expect_eq(s.n_connections, 12);
    served_stop(&s);
}

static void send_two(struct outcome *o)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct vf_vmm_http_request r = {.method = "GET", .path = "/x", .fds = &fd};
    for (r.n_fds = 0; r.n_fds < 2; r.n_fds++)
        cr_assert_eq(vf_vmm_http_send(s.http, &r, on_outcome, o, NULL), 0);
    close(fd);
}

Test(vmm_http, cancel_ends_what_is_under_way_at_once)
{
    struct outcome o = {0};
    served_start(&s, NULL);
    send_two(&o);
    uv_run(&s.loop, UV_RUN_NOWAIT);
    vf_vmm_http_cancel(s.http);
    cr_expect_eq(o.calls, 2);
    cr_expect_eq(o.err.code, VF_CANCELLED);
    /* And it is as good as new. */
    send_two(&o);
    vf_vmm_http_cancel(s.http);
    cr_expect_eq(o.calls, 4);
    served_stop(&s);
    cr_expect_eq(o.calls, 4);
}

Test(vmm_http, close_ends_what_is_under_way)
{
    struct outcome o = {0};
    served_start(&s, NULL);
    send_two(&o);
    uv_run(&s.loop, UV_RUN_NOWAIT);
    send_two(&o);
    served_close(&s);
    cr_expect_eq(o.calls, 4);
    cr_expect_eq(o.err.code, VF_CANCELLED);
    served_stop(&s);
}

static bool closed_by_callback;

static void on_closed(void *arg)
{
    (void)arg;
    closed_by_callback = true;
}

static void close_in_callback(void *arg, const struct vf_vmm_http_reply *reply,
                              const struct vf_error *err)
{
    on_outcome(arg, reply, err);
    vf_vmm_http_close(s.http, on_closed, NULL);
    s.http = NULL;
}

Test(vmm_http, closed_by_a_callback)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct vf_vmm_http_request r = {.method = "GET", .path = "/x", .fds = &fd};
    s.answer = "HTTP/1.1 204 No Content\r\n\r\n";
    for (int with_fd = 0; with_fd < 2; with_fd++) {
        struct outcome o = {0}, other = {0};
        served_start(&s, serve_answer);
        r.n_fds = with_fd;
        cr_assert_eq(vf_vmm_http_send(s.http, &r, close_in_callback, &o, NULL), 0);
        r.n_fds = !with_fd;
        cr_assert_eq(vf_vmm_http_send(s.http, &r, on_outcome, &other, NULL), 0);
        r.n_fds = 0;
        closed_by_callback = false;
        while (!closed_by_callback)
            uv_run(&s.loop, UV_RUN_DEFAULT);
        cr_expect_eq(o.calls, 1);
        cr_expect_eq(other.calls, 1);
        served_stop(&s);
        s.n_fds = 0;
    }
    close(fd);
}

Test(vmm_http, cancelled_callback_closes)
{
    struct outcome o = {0}, other = {0};
    struct vf_vmm_http_request r = {.method = "GET", .path = "/x"};
    struct vf_vmm_http *h;
    served_start(&s, NULL);
    h = s.http;
    closed_by_callback = false;
    cr_assert_eq(vf_vmm_http_send(h, &r, close_in_callback, &o, NULL), 0);
    cr_assert_eq(vf_vmm_http_send(h, &r, on_outcome, &other, NULL), 0);
    uv_run(&s.loop, UV_RUN_NOWAIT);
    vf_vmm_http_cancel(h);
    cr_expect_eq(o.calls + other.calls, 2);
    while (!closed_by_callback)
        uv_run(&s.loop, UV_RUN_DEFAULT);
    served_stop(&s);
}

Test(vmm_http, a_client_at_rest_holds_one_descriptor)
{
    struct outcome o;
    s.answer = "HTTP/1.1 204 No Content\r\n\r\n";
    served_start(&s, serve_answer);
    int before = dup(0);
    close(before);
    ask(false, 10000, &o);
    ask(true, 10000, &o);
    uv_run(&s.loop, UV_RUN_NOWAIT);
    close(s.fds[0]);
    s.n_fds = 0;
    int after = dup(0);
    close(after);
    cr_expect_eq(before, after);
    served_stop(&s);
}

Test(vmm_http, the_environment_is_not_asked)
{
    struct outcome o;
    setenv("http_proxy", "http://127.0.0.1:1/", 1);
    setenv("ALL_PROXY", "socks5://127.0.0.1:1/", 1);
    s.answer = "HTTP/1.1 204 No Content\r\n\r\n";
    served_start(&s, serve_answer);
    ask(false, 10000, &o);
    cr_expect_eq(o.status, 204, "%s", o.err.msg);
    served_stop(&s);
}

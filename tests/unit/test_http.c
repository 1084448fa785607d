/* Requests and answers over a unix socket: routes, bodies, refusals, limits. */
#include "tests/unit/http_support.h"

#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct http_fixture f;
static struct http_answer a;

/* ---- handlers */

static void hello(struct vf_http_req *req, void *arg)
{
    cr_expect_eq(arg, &f);
    vf_http_reply_json(req, 200, strdup("{\"hello\":true}"));
}

static void echo_params(struct vf_http_req *req, void *arg)
{
    struct vf_json_writer w = {0};
    const char *name;

    (void)arg;
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "a", vf_http_param(req, 0));
    vf_jw_string(&w, "b", vf_http_param(req, 1));
    for (int i = 0; (name = vf_http_query_name(req, i)) != NULL; i++)
        vf_jw_string(&w, name, vf_http_query(req, name));
    vf_jw_end(&w, '}');
    vf_http_reply_json(req, 200, vf_jw_finish(&w));
}

struct thing {
    char *name;
    int64_t count;
};

static const struct vf_json_field thing_fields[] = {
    {.name = "name", .type = VF_JSON_STRING, .offset = offsetof(struct thing, name)},
    {.name = "count", .type = VF_JSON_INT, .offset = offsetof(struct thing, count), .max = 100},
    {.name = NULL},
};

static void decode_thing(struct vf_http_req *req, void *arg)
{
    struct thing t = {.count = 7};

    (void)arg;
    if (vf_http_decode(req, thing_fields, &t))
        vf_http_reply_json(req, 201, vf_json_encode(thing_fields, &t));
    vf_json_free(thing_fields, &t);
}

static void body_length(struct vf_http_req *req, void *arg)
{
    struct vf_json_writer w = {0};
    size_t len;

    (void)arg;
    cr_expect_eq(strlen(vf_http_body(req, &len)), len);
    vf_jw_begin(&w, NULL, '{');
    vf_jw_int(&w, "len", (int64_t)len);
    vf_jw_end(&w, '}');
    vf_http_reply_json(req, 200, vf_jw_finish(&w));
}

static void who(struct vf_http_req *req, void *arg)
{
    const struct vf_caller *c = vf_http_caller(req);
    struct vf_json_writer w = {0};

    (void)arg;
    vf_jw_begin(&w, NULL, '{');
    vf_jw_int(&w, "uid", (int64_t)c->uid);
    vf_jw_int(&w, "gid", (int64_t)c->gid);
    vf_jw_int(&w, "pid", c->pid);
    vf_jw_bool(&w, "admin", c->admin);
    vf_jw_end(&w, '}');
    cr_expect_gt(vf_http_began_us(req), 0);
    vf_http_reply_json(req, 200, vf_jw_finish(&w));
}

static void nothing(struct vf_http_req *req, void *arg)
{
    (void)arg;
    vf_http_reply_empty(req, 204);
}

static void forget(struct vf_http_req *req, void *arg)
{
    (void)req, (void)arg;
}

static void no_memory(struct vf_http_req *req, void *arg)
{
    (void)arg;
    vf_http_reply_json(req, 200, NULL);
}

static void busy(struct vf_http_req *req, void *arg)
{
    struct vf_error err;

    (void)arg;
    vf_fail(&err, VF_BUSY, "too many are waiting");
    vf_http_reply_error(req, &err, 3);
    vf_http_reply_empty(req, 204); /* a second answer is dropped */
}

static const struct vf_http_route routes[] = {
    {"GET", "/v1/hello", false, hello},
    {"GET", "/v1/vms/{id}/parts/{part}", false, echo_params},
    {"POST", "/v1/things", false, decode_thing},
    {"GET", "/v1/things", false, hello},
    {"POST", "/v1/raw", false, body_length},
    {"GET", "/v1/who", false, who},
    {"PUT", "/v1/admin", true, body_length},
    {"DELETE", "/v1/nothing", false, nothing},
    {"GET", "/v1/forget", false, forget},
    {"GET", "/v1/memory", false, no_memory},
    {"GET", "/v1/busy", false, busy},
    {NULL, NULL, false, NULL},
};

static void start(void)
{
    http_start(&f, &(struct vf_http_options){.routes = routes,
                                             .arg = &f,
                                             .max_connections = 64,
                                             .request_timeout_ms = 20000,
                                             .max_body_bytes = 1000,
                                             .admin_gid = (gid_t)-1});
}

static void stop(void)
{
    http_stop(&f);
}

TestSuite(http, .init = start, .fini = stop, .timeout = 60);

static void expect_error(int status, const char *code, const char *part)
{
    char want[100];

    snprintf(want, sizeof(want), "{\"error\":{\"code\":\"%s\",\"message\":\"", code);
    cr_expect_eq(a.status, status, "%d: %s", a.status, a.body);
    cr_expect_eq(strncmp(a.body, want, strlen(want)), 0, "%s", a.body);
    cr_expect_not_null(strstr(a.body, part), "%s", a.body);
    cr_expect_not_null(strstr(a.head, "Content-Type: application/json\r\n"), "%s", a.head);
}

Test(http, answers_on_a_kept_connection)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    for (int i = 0; i < 3; i++) {
        http_ask(fd, &a, "GET", "/v1/hello", NULL, NULL);
        cr_expect_eq(a.status, 200);
        cr_expect_str_eq(a.body, "{\"hello\":true}");
        cr_expect_not_null(strstr(a.head, "Content-Type: application/json\r\n"), "%s", a.head);
    }
    http_ask(fd, &a, "DELETE", "/v1/nothing", NULL, NULL);
    cr_expect_eq(a.status, 204);
    http_ask(fd, &a, "HEAD", "/v1/hello", NULL, NULL);
    cr_expect_eq(a.status, 200);
    cr_expect_not_null(strstr(a.head, "Content-Length: 14\r\n"), "%s", a.head);
    http_ask(fd, &a, "GET", "/v1/hello", NULL, NULL); /* no body came after HEAD */
    cr_expect_eq(a.status, 200);
}

Test(http, http_1_0_and_close_end_the_connection)
{
    VF_CLEANUP_FD int old = http_connect(&f), closing = http_connect(&f);

    http_send(old, "GET /v1/hello HTTP/1.0\r\n\r\n");
    cr_expect(http_read(old, &a, false));
    cr_expect_str_eq(a.body, "{\"hello\":true}");
    http_expect_closed(old);
    http_ask(closing, &a, "GET", "/v1/hello", "Connection: close\r\n", NULL);
    cr_expect_eq(a.status, 200);
    http_expect_closed(closing);
}

Test(http, params_and_queries_are_decoded)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    http_ask(fd, &a, "GET", "/v1/vms/a%2fb%20c/parts/%C3%A4+1?x=1%262&y=+&%7a", NULL, NULL);
    cr_expect_eq(a.status, 200);
    cr_expect_str_eq(a.body,
                     "{\"a\":\"a/b c\",\"b\":\"ä+1\",\"x\":\"1&2\",\"y\":\" \",\"z\":\"\"}");
    http_ask(fd, &a, "GET", "http://localhost/v1/hello?a=b", NULL, NULL);
    cr_expect_eq(a.status, 200);
    http_ask(fd, &a, "GET", "/v1/vms/%zz/parts/1", NULL, NULL);
    expect_error(400, "invalid_argument", "wrong % escape");
    http_ask(fd, &a, "GET", "/v1/vms/%00/parts/1", NULL, NULL);
    expect_error(400, "invalid_argument", "wrong % escape");
    http_ask(fd, &a, "GET", "/v1/vms//parts/1", NULL, NULL);
    expect_error(404, "not_found", "no such path");
}

Test(http, what_is_not_there_is_refused_with_a_hint)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    http_ask(fd, &a, "GET", "/v1/helo", NULL, NULL);
    expect_error(404, "not_found", "did you mean /v1/hello?");
    http_ask(fd, &a, "GET", "/v1/vms/vm-17/part/3", NULL, NULL);
    expect_error(404, "not_found", "did you mean /v1/vms/vm-17/parts/3?");
    http_ask(fd, &a, "POST", "/elsewhere/altogether", NULL, "{}");
    expect_error(404, "not_found", "\"hint\":\"\"");
    http_ask(fd, &a, "DELETE", "/v1/things", NULL, NULL);
    expect_error(405, "invalid_argument", "DELETE");
    cr_expect_not_null(strstr(a.head, "\r\nAllow: POST, GET, HEAD\r\n"), "%s", a.head);
    http_ask(fd, &a, "GET", "/v1/hello", NULL, NULL); /* the connection is as good as before */
    cr_expect_eq(a.status, 200);
}

Test(http, bodies_are_decoded)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    http_ask(fd, &a, "POST", "/v1/things", NULL, "{\"name\":\"x\",\"count\":9}");
    cr_expect_eq(a.status, 201);
    cr_expect_str_eq(a.body, "{\n  \"name\": \"x\",\n  \"count\": 9\n}\n");
    http_ask(fd, &a, "POST", "/v1/things", NULL, NULL);
    cr_expect_eq(a.status, 201);
    cr_expect_str_eq(a.body, "{\n  \"count\": 7\n}\n");
    http_ask(fd, &a, "POST", "/v1/things", NULL, "{\"cuont\":9}");
    expect_error(400, "invalid_argument", "cuont");
    cr_expect_not_null(strstr(a.body, "did you mean"), "%s", a.body);
    http_ask(fd, &a, "POST", "/v1/things", NULL, "{\"count\":900}");
    expect_error(400, "invalid_argument", "count: must be at most 100 (is 900)");
    http_ask(fd, &a, "POST", "/v1/things", NULL, "{");
    expect_error(400, "invalid_argument", "line 1");
    http_send(fd, "POST /v1/raw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n");
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"len\":11}");
}

Test(http, long_bodies_are_refused)
{
    VF_CLEANUP_FD int fd = http_connect(&f);
    char body[1002];

    memset(body, 'x', sizeof(body));
    body[1000] = '\0';
    http_ask(fd, &a, "POST", "/v1/raw", NULL, body);
    cr_expect_str_eq(a.body, "{\"len\":1000}");
    body[1000] = 'x';
    body[1001] = '\0';
    http_ask(fd, &a, "POST", "/v1/raw", NULL, body);
    expect_error(413, "invalid_argument", "longer than 1000 bytes");
    http_send(fd, "POST /v1/raw HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 300; i++)
        http_send(fd, "a\r\n0123456789\r\n");
    http_send(fd, "0\r\n\r\n");
    cr_expect(http_read(fd, &a, false));
    expect_error(413, "invalid_argument", "longer than 1000 bytes");
    http_ask(fd, &a, "GET", "/v1/hello", NULL, NULL);
    cr_expect_eq(a.status, 200);
    /* One that asks before it sends is told at once. */
    http_send(fd, "POST /v1/raw HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                  "Content-Length: 1001\r\n\r\n");
    cr_expect(http_read(fd, &a, false));
    expect_error(413, "invalid_argument", "longer than 1000 bytes");
    http_expect_closed(fd);
}

Test(http, continue_is_given)
{
    VF_CLEANUP_FD int fd = http_connect(&f);
    char text[26] = "";

    http_send(fd, "POST /v1/raw HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                  "Content-Length: 5\r\n\r\n");
    cr_assert_eq(recv(fd, text, 25, MSG_WAITALL), 25);
    cr_expect_str_eq(text, "HTTP/1.1 100 Continue\r\n\r\n");
    http_send(fd, "hello");
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"len\":5}");
}

Test(http, nonsense_is_refused)
{
    static const char *const texts[] = {
        "nonsense\r\n\r\n",
        "GET /v1/hello HTTP/1.1\r\nno colon\r\n\r\n",
        "POST /v1/raw HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "POST /v1/raw HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /v1/raw HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "GET /v1/hello HTTP/7.0\r\n\r\n",
        "\0\0\0\n\n",
        "GET\r\n\r\n",
    };
    VF_CLEANUP_FD int good = http_connect(&f);

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        VF_CLEANUP_FD int fd = http_connect(&f);

        http_send(fd, texts[i]);
        shutdown(fd, SHUT_WR);
        if (http_read(fd, &a, false))
            cr_expect(a.status >= 400 && a.status <= 505, "%s: %d", texts[i], a.status);
        http_expect_closed(fd);
    }
    http_ask(good, &a, "GET", "/v1/hello", NULL, NULL);
    cr_expect_eq(a.status, 200);
}

/* Sends a header of n bytes, or as much of it as the server takes. */
static int send_long_header(size_t n)
{
    static const char line[] = "GET /v1/hello HTTP/1.1\r\nX: ";
    int fd = http_connect(&f);
    char *text = (char *)malloc(n);

    cr_assert_not_null(text);
    memset(text, 'h', n);
    memcpy(text, line, sizeof(line) - 1);
    memcpy(text + n - 4, "\r\n\r\n", 4);
    send(fd, text, n, MSG_NOSIGNAL);
    free(text);
    return fd;
}

Test(http, long_headers_are_refused)
{
    VF_CLEANUP_FD int fits = send_long_header(8000), longer = send_long_header(9000);
    VF_CLEANUP_FD int much_longer = send_long_header(60000);

    cr_expect(http_read(fits, &a, false));
    cr_expect_eq(a.status, 200);
    cr_expect(http_read(longer, &a, false));
    expect_error(431, "invalid_argument", "longer than 8192 bytes");
    cr_expect(http_read(much_longer, &a, false));
    cr_expect_eq(a.status, 431);
    http_expect_closed(much_longer);
}

Test(http, errors_of_handlers)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    http_ask(fd, &a, "GET", "/v1/forget", NULL, NULL);
    expect_error(500, "internal", "GET /v1/forget was not answered");
    http_ask(fd, &a, "GET", "/v1/memory", NULL, NULL);
    expect_error(500, "no_memory", "no memory");
    http_ask(fd, &a, "GET", "/v1/busy", NULL, NULL);
    expect_error(429, "busy", "too many are waiting");
    cr_expect_not_null(strstr(a.head, "\r\nRetry-After: 3\r\n"), "%s", a.head);
    http_ask(fd, &a, "GET", "/v1/hello", NULL, NULL);
    cr_expect_eq(a.status, 200);
}

struct last_words {
    int fd;
    const char *text;
};

/* On the loop: the server sees the text and its end at the same time. */
static void send_and_stop(void *arg)
{
    struct last_words *w = (struct last_words *)arg;

    http_send(w->fd, w->text);
    shutdown(w->fd, SHUT_WR);
}

Test(http, ten_in_one_write_are_answered_in_order)
{
    VF_CLEANUP_FD int fd = http_connect(&f);
    char text[2000] = "", want[100];

    for (int i = 0; i < 10; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text),
                 i % 2 == 0 ? "GET /v1/vms/%d/parts/x HTTP/1.1\r\nHost: x\r\n\r\n"
                            : "POST /v1/raw?%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
                 i);
    /* That no more come does not spoil those that came. */
    http_ask(fd, &a, "GET", "/v1/hello", NULL, NULL);
    http_call(&f, send_and_stop, &(struct last_words){fd, text});
    for (int i = 0; i < 10; i++) {
        cr_assert(http_read(fd, &a, false), "answer %d", i);
        snprintf(want, sizeof(want), i % 2 == 0 ? "{\"a\":\"%d\",\"b\":\"x\"}" : "{\"len\":3}", i);
        cr_expect_str_eq(a.body, want);
    }
    http_expect_closed(fd);
}

/* ---- who calls */

Test(http, the_caller_is_known)
{
    VF_CLEANUP_FD int fd = http_connect(&f);
    char want[200];

    http_ask(fd, &a, "GET", "/v1/who", NULL, NULL);
    snprintf(want, sizeof(want), "{\"uid\":%u,\"gid\":%u,\"pid\":%d,\"admin\":true}", getuid(),
             getgid(), getpid());
    cr_expect_str_eq(a.body, want);
    http_ask(fd, &a, "PUT", "/v1/admin", NULL, "x");
    cr_expect_eq(a.status, 200);
}

#define ADMIN_GROUP 54321
#define NOBODY 65534

/* Asks as a user without rights, with a supplementary group or not; the result is the child's. */
static int ask_as_nobody(bool in_group)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        gid_t groups[] = {4242, ADMIN_GROUP};
        struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "api.sock"};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), n;
        static const char text[] =
            "PUT /v1/admin HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
        char buf[100] = "";
        if (chdir(f.dir.path) < 0 || setgroups(in_group ? 2 : 1, groups) < 0 ||
            setgid(NOBODY) < 0 || setuid(NOBODY) < 0 ||
            connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
            write(fd, text, sizeof(text) - 1) < 0 || read(fd, buf, sizeof(buf) - 1) < 0 ||
            sscanf(buf, "HTTP/1.1 %d", &n) != 1)
            _exit(1);
        _exit(n == 200 ? 20 : n == 403 ? 43 : 2);
    }
    cr_assert_gt(pid, 0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void set_admin_gid(void)
{
    http_start(&f, &(struct vf_http_options){.routes = routes,
                                             .arg = &f,
                                             .max_connections = 8,
                                             .request_timeout_ms = 20000,
                                             .max_body_bytes = 1000,
                                             .admin_gid = ADMIN_GROUP});
}

Test(http_callers, others_are_no_admins, .init = set_admin_gid, .fini = stop, .timeout = 60)
{
    if (getuid() != 0)
        cr_skip_test("SKIPPED: only root can call as another user");
    cr_assert_eq(chmod(f.dir.path, 0755), 0);
    cr_assert_eq(fchmodat(f.dir.fd, "api.sock", 0666, 0), 0);
    cr_expect_eq(ask_as_nobody(false), 43);
    cr_expect_eq(ask_as_nobody(true), 20);
}

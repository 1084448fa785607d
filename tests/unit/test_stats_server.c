/* stats.sock and its TCP listener, by a client that writes requests itself. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/json.h"
#include "pool/stats.h"
#include "pool/stats_server.h"
#include "tests/unit/scratch.h"

#define LONG_MS 30000
#define LIVE_US (INT64_C(3600) * 1000000) /* no test's loop turns; it is alive all the same */

struct fixture {
    struct scratch dir;
    struct vf_stats *stats;
    struct vf_stats_server *srv;
};

static void open_limited(struct fixture *f, const char *tcp, int max_connections,
                         const struct vf_stats_server_limits *limits)
{
    struct vf_error err;
    int fd;

    scratch_open(&f->dir);
    f->stats = vf_stats_new();
    cr_assert_eq(vf_unix_listen(f->dir.fd, "stats.sock", 16, &fd, &err), 0, "%s", err.msg);
    cr_assert_eq(
        vf_stats_server_start_limited(f->stats, fd, tcp, max_connections, limits, &f->srv, &err), 0,
        "%s", err.msg);
}

static void open_server(struct fixture *f, const char *tcp)
{
    open_limited(f, tcp, 16, &(struct vf_stats_server_limits){.live_us = LIVE_US});
}

static void close_server(struct fixture *f)
{
    vf_stats_server_stop(f->srv);
    vf_stats_free(f->stats);
    scratch_close(&f->dir);
}

static int dial(const struct fixture *f)
{
    struct vf_error err;
    int fd;

    cr_assert_eq(vf_unix_connect(f->dir.fd, "stats.sock", &fd, &err), 0, "%s", err.msg);
    return fd;
}

static void say(int fd, const char *text)
{
    cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Some bytes; 0: the end. Fails the test if there is neither for long. */
static size_t hear(int fd, char *buf, size_t size)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n;

    cr_assert_eq(poll(&p, 1, LONG_MS), 1, "no answer");
    n = recv(fd, buf, size, 0);
    return n > 0 ? (size_t)n : 0;
}

/* Reads one answer: head, and as many bytes as Content-Length says unless it is HEAD's. */
struct answer {
    int status;
    char head[2048], *body;
    size_t body_len;
};

static void read_answer(int fd, bool head_only, struct answer *a)
{
    size_t len = 0, size = 1 << 20, whole = 0;
    char *buf = (char *)malloc(size), *end = NULL, *length;

    while (end == NULL || len < whole) {
        size_t n = hear(fd, buf + len, size - 1 - len);

        cr_assert_gt(n, 0, "closed within an answer");
        len += n;
        buf[len] = '\0';
        if (end != NULL || (end = strstr(buf, "\r\n\r\n")) == NULL)
            continue;
        length = strcasestr(buf, "content-length: ");
        cr_assert_not_null(length);
        whole = (size_t)(end + 4 - buf) + (head_only ? 0 : (size_t)atoll(length + 16));
        cr_assert_lt(whole, size);
    }
    cr_assert_eq(len, whole, "more than the answer");
    snprintf(a->head, sizeof(a->head), "%.*s", (int)(end + 2 - buf), buf);
    a->status = atoi(a->head + strlen("HTTP/1.1 "));
    a->body_len = len - (size_t)(end + 4 - buf);
    a->body = strdup(end + 4);
    free(buf);
}

static void ask_on(int fd, const char *method, const char *path, const char *headers,
                   struct answer *a)
{
    char request[512];

    snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, path,
             headers);
    say(fd, request);
    read_answer(fd, strcmp(method, "HEAD") == 0, a);
}

static void ask(const struct fixture *f, const char *method, const char *path, const char *headers,
                struct answer *a)
{
    int fd = dial(f);

    ask_on(fd, method, path, headers, a);
    close(fd);
}

/* The answer's error.code. */
static void expect_error(const struct answer *a, int status, const char *code)
{
    struct vf_json *j = vf_json_parse(a->body, a->body_len);

    cr_expect_eq(a->status, status, "%d", a->status);
    cr_expect_str_eq(vf_json_str(vf_json_get(vf_json_get(j, "error"), "code"), ""), code);
    vf_json_delete(j);
}

Test(stats_server, metrics_in_the_form_that_is_asked_for)
{
    struct fixture f;
    struct answer a;

    open_server(&f, NULL);
    vf_stats_template(f.stats, "web");
    ask(&f, "GET", "/metrics", "", &a);
    cr_expect_eq(a.status, 200);
    cr_expect(strstr(a.head, "text/plain; version=0.0.4; charset=utf-8\r\n") != NULL);
    cr_expect(strstr(a.body, "vmfactory_pool_parked{template=\"web\"} 0\n") != NULL);
    cr_expect(strstr(a.body, "# EOF") == NULL);
    free(a.body);
    ask(&f, "GET", "/metrics",
        "Accept: application/openmetrics-text;version=1.0.0;q=0.75,*/*;q=0.1\r\n", &a);
    cr_expect(strstr(a.head, "application/openmetrics-text; version=1.0.0; charset=utf-8\r\n") !=
              NULL);
    cr_expect(strstr(a.body, "\n# EOF\n") != NULL);
    free(a.body);
    ask(&f, "GET", "/stats", "", &a);
    cr_expect(strstr(a.head, "application/json\r\n") != NULL);
    cr_expect(strstr(a.body, "\"template\":\"web\"") != NULL);
    free(a.body);
    close_server(&f);
}

Test(stats_server, a_kept_connection_serves_many)
{
    struct fixture f;
    struct answer a;
    int fd;

    open_server(&f, NULL);
    fd = dial(&f);
    for (int i = 0; i < 20; i++) {
        ask_on(fd, i % 3 == 2 ? "HEAD" : "GET", i % 2 == 0 ? "/metrics" : "/stats", "", &a);
        cr_expect_eq(a.status, 200);
        cr_expect_eq(a.body_len == 0, i % 3 == 2);
        free(a.body);
    }
    close(fd);
    close_server(&f);
}

/* What was counted is seen, at the latest when the cached text is too old. */
Test(stats_server, the_cache_gets_old)
{
    struct fixture f;
    struct answer a;
    int64_t deadline_us = vf_deadline_after_ms(LONG_MS);
    bool seen = false;

    open_server(&f, NULL);
    ask(&f, "GET", "/stats", "", &a);
    free(a.body);
    vf_stats_template(f.stats, "web");
    while (!seen && vf_now_us() < deadline_us) {
        ask(&f, "GET", "/stats", "", &a);
        seen = strstr(a.body, "\"web\"") != NULL;
        free(a.body);
    }
    cr_expect(seen);
    close_server(&f);
}

Test(stats_server, head_has_no_body)
{
    struct fixture f;
    struct answer a;

    open_server(&f, NULL);
    ask(&f, "HEAD", "/metrics", "Connection: close\r\n", &a);
    cr_expect_eq(a.status, 200);
    cr_expect_eq(a.body_len, 0);
    free(a.body);
    close_server(&f);
}

Test(stats_server, what_it_refuses)
{
    static const struct {
        const char *method, *path, *headers;
        int status;
        const char *code;
    } cases[] = {
        {"GET", "/nowhere", "", 404, "not_found"},
        {"GET", "/", "", 404, "not_found"},
        {"GET", "/metrics/", "", 404, "not_found"},
        {"DELETE", "/metrics", "", 405, "invalid_argument"},
        {"POST", "/stats", "Content-Length: 1000000\r\n", 405, "invalid_argument"},
        {"OPTIONS", "/nowhere", "", 405, "invalid_argument"},
        {"GET", "/stats", "Content-Length: 10\r\n", 400, "invalid_argument"},
        {"GET", "/stats", "Transfer-Encoding: chunked\r\n", 400, "invalid_argument"},
    };
    struct fixture f;
    struct answer a;

    open_server(&f, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ask(&f, cases[i].method, cases[i].path, cases[i].headers, &a);
        expect_error(&a, cases[i].status, cases[i].code);
        if (a.status == 405)
            cr_expect(strstr(a.head, "Allow: GET, HEAD\r\n") != NULL);
        free(a.body);
    }
    close_server(&f);
}

Test(stats_server, headers_are_bounded)
{
    struct fixture f;
    char junk[1024], buf[4096];
    size_t n;
    int fd;

    open_server(&f, NULL);
    memset(junk, 'a', sizeof(junk));
    fd = dial(&f);
    say(fd, "GET /stats HTTP/1.1\r\nX: ");
    for (int i = 0; i < 64; i++) /* stops early once the server has closed */
        if (send(fd, junk, sizeof(junk), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
    while ((n = hear(fd, buf, sizeof(buf) - 1)) > 0) {
        buf[n] = '\0';
        cr_expect(strstr(buf, " 200 ") == NULL);
    }
    close(fd);
    close_server(&f);
}

Test(stats_server, health)
{
    struct fixture f;
    struct answer a;

    open_server(&f, NULL);
    ask(&f, "GET", "/healthz", "", &a);
    cr_expect_eq(a.status, 503, "not ready yet");
    cr_expect(strstr(a.body, "{\"live\":true,\"ready\":false,\"loop_last_turn_ms\":") == a.body);
    free(a.body);
    ask(&f, "GET", "/healthz?live=1", "", &a);
    cr_expect_eq(a.status, 200);
    free(a.body);
    vf_stats_set_ready(f.stats, true);
    ask(&f, "GET", "/healthz", "", &a);
    cr_expect_eq(a.status, 200);
    free(a.body);
    close_server(&f);
}

Test(stats_server, a_loop_that_does_not_turn_is_not_live)
{
    struct fixture f;
    struct answer a = {.status = 200};
    int64_t deadline_us = vf_deadline_after_ms(LONG_MS);

    open_limited(&f, NULL, 16, &(struct vf_stats_server_limits){.live_us = 20000});
    vf_stats_set_ready(f.stats, true);
    vf_stats_loop_turn(f.stats, 1);
    while (a.status == 200 && vf_now_us() < deadline_us) {
        ask(&f, "GET", "/healthz?live=1", "", &a);
        free(a.body);
    }
    cr_expect_eq(a.status, 503);
    ask(&f, "GET", "/healthz", "", &a);
    cr_expect_eq(a.status, 503);
    cr_expect(strstr(a.body, "\"live\":false,\"ready\":true") != NULL);
    free(a.body);
    close_server(&f);
}

Test(stats_server, an_idle_client_is_closed)
{
    struct fixture f;
    char buf[16];
    int fd;

    open_limited(&f, NULL, 16,
                 &(struct vf_stats_server_limits){.idle_timeout_s = 1, .live_us = LIVE_US});
    fd = dial(&f);
    say(fd, "GET /stats HT");
    while (hear(fd, buf, sizeof(buf)) > 0) /* libmicrohttpd may say so first */
        ;
    close(fd);
    close_server(&f);
}

/* It is never idle, but it gets nowhere. */
Test(stats_server, a_dripping_client_is_closed, .timeout = 60)
{
    struct fixture f;
    struct pollfd p = {.events = POLLIN};
    int64_t deadline_us = vf_deadline_after_ms(LONG_MS);
    bool closed = false;

    open_limited(&f, NULL, 16,
                 &(struct vf_stats_server_limits){.request_us = 100000, .live_us = LIVE_US});
    p.fd = dial(&f);
    say(p.fd, "GET /stats HTTP/1.1\r\nX: ");
    while (!closed && vf_now_us() < deadline_us)
        closed = send(p.fd, "x", 1, MSG_NOSIGNAL) < 0 || poll(&p, 1, 50) != 0;
    cr_expect(closed);
    close(p.fd);
    close_server(&f);
}

/* Each answer begins the time anew. */
Test(stats_server, a_busy_client_is_not_closed, .timeout = 60)
{
    struct fixture f;
    struct answer a;
    int64_t until_us;
    int fd;

    open_limited(&f, NULL, 16,
                 &(struct vf_stats_server_limits){.request_us = 3000000, .live_us = LIVE_US});
    fd = dial(&f);
    until_us = vf_now_us() + 4500000;
    while (vf_now_us() < until_us) {
        ask_on(fd, "GET", "/healthz?live=1", "", &a);
        free(a.body);
        poll(NULL, 0, 20);
    }
    close(fd);
    close_server(&f);
}

/* Over the limit is not served, whether it waits or is closed; once another has gone, it is. */
Test(stats_server, connections_are_bounded)
{
    struct fixture f;
    struct answer a;
    struct pollfd third = {.events = POLLIN};
    int64_t deadline_us = vf_deadline_after_ms(LONG_MS);
    int fds[2], n = 0;
    char buf[4096];

    open_limited(&f, NULL, 2, &(struct vf_stats_server_limits){.live_us = LIVE_US});
    for (int i = 0; i < 2; i++) {
        fds[i] = dial(&f);
        ask_on(fds[i], "GET", "/healthz?live=1", "", &a);
        cr_expect_eq(a.status, 200);
        free(a.body);
    }
    third.fd = dial(&f);
    say(third.fd, "GET /healthz?live=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    if (poll(&third, 1, 300) > 0)
        cr_expect_leq(recv(third.fd, buf, sizeof(buf), 0), 0, "one too many was served");
    close(third.fd);
    close(fds[0]);
    while (n <= 0 && vf_now_us() < deadline_us) {
        third.fd = dial(&f);
        say(third.fd, "GET /healthz?live=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        if (poll(&third, 1, LONG_MS) > 0)
            n = (int)recv(third.fd, buf, sizeof(buf), 0);
        close(third.fd);
    }
    cr_expect_gt(n, 0);
    close(fds[1]);
    close_server(&f);
}

static int dial_tcp(int family, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v6.sin6_addr = in6addr_loopback;
    if (family == AF_INET)
        r = connect(fd, (struct sockaddr *)&v4, sizeof(v4));
    else
        r = connect(fd, (struct sockaddr *)&v6, sizeof(v6));
    cr_assert_eq(r, 0, "%s", strerror(errno));
    return fd;
}

static void serves_tcp(const char *where, int family)
{
    struct fixture f;
    struct answer a;
    int fd;

    open_server(&f, where);
    cr_assert_neq(vf_stats_server_port(f.srv), 0);
    fd = dial_tcp(family, vf_stats_server_port(f.srv));
    ask_on(fd, "GET", "/metrics", "", &a);
    cr_expect_eq(a.status, 200);
    free(a.body);
    close(fd);
    close_server(&f);
}

Test(stats_server, tcp)
{
    serves_tcp("127.0.0.1:0", AF_INET);
}

Test(stats_server, tcp6)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int r = fd >= 0 ? bind(fd, (struct sockaddr *)&a, sizeof(a)) : -1;

    if (fd >= 0)
        close(fd);
    if (r < 0) {
        fprintf(stderr, "SKIPPED stats_server.tcp6: no IPv6 here\n");
        cr_skip_test("no IPv6 here");
    }
    serves_tcp("[::1]:0", AF_INET6);
}

Test(stats_server, tcp_addresses_that_are_refused)
{
    static const char *const bad[] = {
        "",      ":9464",          "127.0.0.1",       "127.0.0.1:",     "127.0.0.1:65536",
        "[::1]", "[::1:9464",      "::1:9464",        "localhost:9464", "127.0.0.1:-1",
        "[]:1",  "127.0.0.1:0x10", "127.0.0.1.5:100", "[127.0.0.1]:1",  "127.0.0.1: 80",
    };
    struct scratch dir;
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_server *srv = NULL;
    struct vf_error err;
    int fd;

    scratch_open(&dir);
    cr_assert_eq(vf_unix_listen(dir.fd, "stats.sock", 16, &fd, &err), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(vf_stats_server_start(s, fd, bad[i], 16, &srv, &err), -EINVAL, "%s", bad[i]);
        cr_expect_neq(err.hint[0], '\0');
    }
    cr_expect_null(srv);
    cr_expect_neq(fcntl(fd, F_GETFD), -1, "the caller's socket was closed");
    close(fd);
    vf_stats_free(s);
    scratch_close(&dir);
}

/* Two threads count, a third asks, on a connection of its own. */
static atomic_bool enough;
static void *count(void *arg)
{
    struct vf_stats *s = (struct vf_stats *)arg;
    struct vf_stats_template *t = vf_stats_template(s, "web");

    while (!atomic_load(&enough)) {
        vf_stats_acquired(t, VF_GOT_CLONE, 5000, NULL, 0);
        vf_stats_loop_turn(s, 3);
    }
    return NULL;
}

Test(stats_server, asked_while_counted)
{
    struct fixture f;
    struct answer a;
    pthread_t threads[2];
    int fd;

    open_server(&f, NULL);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, count, f.stats);
    fd = dial(&f);
    for (int i = 0; i < 200; i++) {
        ask_on(fd, "GET",
               i % 2 == 0   ? "/metrics"
               : i % 4 == 1 ? "/stats"
                            : "/healthz?live=1",
               "", &a);
        cr_expect_eq(a.status, 200);
        free(a.body);
    }
    close(fd);
    atomic_store(&enough, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    close_server(&f);
}

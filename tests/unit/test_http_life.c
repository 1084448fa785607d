/* What outlives a handler: deferred answers, hang-ups, lost answers, streams, upgrades, limits, the end. */
#include "tests/unit/http_support.h"

#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_LATER 64

static struct http_fixture f;
static struct http_answer a;

static struct {
    struct vf_http_req *later[MAX_LATER];
    atomic_int n_later, gone, lost, kept, closed, failed, upgraded;
    sem_t deferred, gone_sem, decided, closed_sem, upgraded_sem;
    /* Of the stream: how much it may give; everything, ever, if < 0. */
    atomic_llong allowed, given;
    struct vf_http_req *stream;
    bool ended;
} s;

/* ---- handlers */

static void hello(struct vf_http_req *req, void *arg)
{
    (void)arg;
    vf_http_reply_json(req, 200, strdup("{\"hello\":true}"));
}

static void on_gone(void *arg)
{
    (void)arg;
    atomic_fetch_add(&s.gone, 1);
    sem_post(&s.gone_sem);
}

static void later(struct vf_http_req *req, void *arg)
{
    int n = atomic_fetch_add(&s.n_later, 1);

    (void)arg;
    s.later[n] = req;
    vf_http_defer(req, on_gone, NULL);
    sem_post(&s.deferred);
}

static void at_once(struct vf_http_req *req, void *arg)
{
    vf_http_defer(req, on_gone, NULL);
    hello(req, arg);
}

static void on_lost(void *arg)
{
    (void)arg;
    atomic_fetch_add(&s.lost, 1);
    sem_post(&s.decided);
}

static void on_kept(void *arg)
{
    (void)arg;
    atomic_fetch_add(&s.kept, 1);
    sem_post(&s.decided);
}

/* An answer of ?size= bytes. */
static void watched(struct vf_http_req *req, void *arg)
{
    const char *size = vf_http_query(req, "size");
    size_t n = size != NULL ? strtoul(size, NULL, 10) : 20;
    char *text = (char *)malloc(n + 1);

    (void)arg;
    cr_assert_not_null(text);
    memset(text, ' ', n);
    memcpy(text, "{}", 2);
    text[n] = '\0';
    vf_http_watch_answer(req, on_lost, on_kept, NULL);
    vf_http_reply_json(req, 200, text);
}

static void watched_later(struct vf_http_req *req, void *arg)
{
    vf_http_watch_answer(req, on_lost, on_kept, NULL);
    later(req, arg);
}

static ssize_t next_piece(void *arg, char *buf, size_t size)
{
    long long left;

    (void)arg;
    if (atomic_load(&s.allowed) < 0) {
        memset(buf, 'i', size);
        atomic_fetch_add(&s.given, (long long)size);
        return (ssize_t)size;
    }
    left = atomic_load(&s.allowed) - atomic_load(&s.given);
    if (left == 0)
        return s.ended ? -1 : 0;
    if ((size_t)left < size)
        size = (size_t)left;
    memset(buf, 's', size);
    atomic_fetch_add(&s.given, (long long)size);
    return (ssize_t)size;
}

static void stream_closed(void *arg)
{
    (void)arg;
    s.stream = NULL;
    atomic_fetch_add(&s.closed, 1);
    sem_post(&s.closed_sem);
}

static void stream(struct vf_http_req *req, void *arg)
{
    (void)arg;
    s.stream = req;
    vf_http_reply_stream(req, 200, "application/x-ndjson",
                         &(struct vf_http_stream){.next = next_piece, .closed = stream_closed});
    sem_post(&s.deferred);
}

/* An echo on an upgraded connection. */
struct echo {
    uv_poll_t poll;
    struct vf_http_upgraded *u;
    int fd;
};

static void free_echo(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_echo(uv_poll_t *p, int status, int events)
{
    struct echo *e = (struct echo *)p->data;
    char buf[100];
    ssize_t n = recv(e->fd, buf, sizeof(buf), 0);

    (void)events;
    if (n > 0 && status == 0) {
        cr_expect_eq(send(e->fd, buf, (size_t)n, MSG_NOSIGNAL), n);
        return;
    }
    uv_poll_stop(p);
    uv_close((uv_handle_t *)p, free_echo);
    vf_http_upgrade_close(e->u);
    atomic_fetch_add(&s.closed, 1);
    sem_post(&s.closed_sem);
}

static void on_upgraded(void *arg, struct vf_http_upgraded *u, int fd, const char *extra,
                        size_t extra_len)
{
    struct echo *e = (struct echo *)calloc(1, sizeof(*e));

    cr_assert_eq(arg, &s);
    cr_assert_not_null(e);
    e->u = u;
    e->fd = fd;
    cr_expect(fcntl(fd, F_GETFL) & O_NONBLOCK);
    cr_expect_eq(send(fd, extra, extra_len, MSG_NOSIGNAL), (ssize_t)extra_len);
    cr_assert_eq(uv_poll_init(&f.loop, &e->poll, fd), 0);
    e->poll.data = e;
    uv_poll_start(&e->poll, UV_READABLE, on_echo);
    atomic_fetch_add(&s.upgraded, 1);
    sem_post(&s.upgraded_sem);
}

static void on_failed(void *arg)
{
    cr_expect_eq(arg, &s);
    atomic_fetch_add(&s.failed, 1);
}

static void upgrade(struct vf_http_req *req, void *arg)
{
    (void)arg;
    if (vf_http_wants_upgrade(req, "echo"))
        vf_http_reply_upgrade(req, "echo", on_upgraded, on_failed, &s);
    else
        vf_http_reply_json(req, 200, strdup("{\"plain\":true}"));
}

static const struct vf_http_route routes[] = {
    {"GET", "/hello", false, hello},
    {"GET", "/later", false, later},
    {"GET", "/at-once", false, at_once},
    {"GET", "/watched", false, watched},
    {"GET", "/watched-later", false, watched_later},
    {"GET", "/stream", false, stream},
    {"POST", "/hello", false, hello},
    {"POST", "/upgrade", false, upgrade},
    {NULL, NULL, false, NULL},
};

static void start_with(int max_connections, int64_t timeout_ms)
{
    sem_init(&s.deferred, 0, 0);
    sem_init(&s.gone_sem, 0, 0);
    sem_init(&s.decided, 0, 0);
    sem_init(&s.closed_sem, 0, 0);
    sem_init(&s.upgraded_sem, 0, 0);
    http_start(&f, &(struct vf_http_options){.routes = routes,
                                             .max_connections = max_connections,
                                             .request_timeout_ms = timeout_ms,
                                             .max_body_bytes = 1000,
                                             .admin_gid = (gid_t)-1});
}

static void start(void)
{
    start_with(64, 20000);
}

static void start_hasty(void)
{
    start_with(64, 300);
}

static void start_small(void)
{
    start_with(3, 20000);
}

static void stop(void)
{
    http_stop(&f);
}

TestSuite(http_life, .init = start, .fini = stop, .timeout = 60);
TestSuite(http_hasty, .init = start_hasty, .fini = stop, .timeout = 60);
TestSuite(http_small, .init = start_small, .fini = stop, .timeout = 60);

/* ---- on the loop */

static void answer_nth(void *arg)
{
    char text[30];

    snprintf(text, sizeof(text), "{\"n\":%d}", *(int *)arg);
    vf_http_reply_json(s.later[*(int *)arg], 200, strdup(text));
}

static void answer_later(int n)
{
    http_call(&f, answer_nth, &n);
}

static void give_more(void *arg)
{
    long long n = *(long long *)arg;

    if (n < 0)
        s.ended = true;
    else
        atomic_fetch_add(&s.allowed, n);
    if (s.stream != NULL)
        vf_http_stream_more(s.stream);
}

/* n < 0: the end */
static void allow(long long n)
{
    http_call(&f, give_more, &n);
}

static void ask_later(int fd)
{
    http_send(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&s.deferred);
}

/* Everything that the server had to do up to now is done after this. */
static void settle(void)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    for (int i = 0; i < 5; i++) {
        http_ask(fd, &a, "GET", "/hello", NULL, NULL);
        cr_expect_eq(a.status, 200);
    }
}

static bool readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

static void wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    cr_assert_eq(poll(&p, 1, 20000), 1);
}

/* ---- deferred */

Test(http_life, a_deferred_answer_comes)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    for (int i = 0; i < 3; i++) {
        ask_later(fd);
        settle();
        cr_expect_not(readable(fd));
        answer_later(i);
        cr_expect(http_read(fd, &a, false));
        cr_expect_eq(a.body[5], '0' + i, "%s", a.body);
        http_ask(fd, &a, "GET", "/at-once", NULL, NULL);
        cr_expect_str_eq(a.body, "{\"hello\":true}");
    }
    cr_expect_eq(s.gone, 0);
}

Test(http_life, a_hang_up_while_deferred_is_told)
{
    int fd = http_connect(&f);

    ask_later(fd);
    close(fd);
    http_wait(&s.gone_sem);
    cr_expect_eq(s.gone, 1);
    fd = http_connect(&f); /* with bytes that were never read */
    ask_later(fd);
    http_send(fd, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    close(fd);
    http_wait(&s.gone_sem);
    settle();
    cr_expect_eq(s.gone, 2);
}

Test(http_life, who_only_stops_sending_is_answered)
{
    VF_CLEANUP_FD int older = http_connect(&f), fd = -1;

    /* libmicrohttpd looks at the oldest connection more often; it must not be this one. */
    http_ask(older, &a, "GET", "/hello", NULL, NULL);
    fd = http_connect(&f);
    ask_later(fd);
    shutdown(fd, SHUT_WR);
    settle();
    cr_expect_eq(s.gone, 0);
    answer_later(0);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
    http_expect_closed(fd);
}

Test(http_life, who_stops_sending_and_then_leaves_is_gone)
{
    int fd = http_connect(&f);

    ask_later(fd);
    shutdown(fd, SHUT_WR);
    settle();
    cr_expect_eq(s.gone, 0);
    close(fd);
    http_wait(&s.gone_sem);
    cr_expect_eq(s.gone, 1);
}

Test(http_life, what_was_sent_at_once_waits_for_the_deferred)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    http_send(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
                  "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(fd, SHUT_WR);
    http_wait(&s.deferred);
    settle();
    cr_expect_not(readable(fd));
    answer_later(0);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"hello\":true}");
    http_wait(&s.deferred);
    answer_later(1);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":1}");
    http_expect_closed(fd);
    cr_expect_eq(s.gone, 0);
}

static void quiesce(void *arg)
{
    (void)arg;
    vf_http_quiesce(f.http);
}

Test(http_life, after_quiesce_the_deferred_are_still_answered)
{
    VF_CLEANUP_FD int fd = http_connect(&f);
    struct vf_error err;
    int late = -1;

    ask_later(fd);
    http_call(&f, quiesce, NULL);
    cr_expect_eq(vf_unix_connect(f.dir.fd, "api.sock", &late, &err), -ECONNREFUSED);
    answer_later(0);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
}

/* ---- whether an answer was read */

static void expect_decision(int lost, int kept)
{
    http_wait(&s.decided);
    settle();
    cr_expect_eq(s.lost, lost, "%d lost", s.lost);
    cr_expect_eq(s.kept, kept, "%d kept", s.kept);
}

static int ask_watched(const char *rest)
{
    int fd = http_connect(&f);
    char text[200];

    snprintf(text, sizeof(text), "GET /watched%s\r\n\r\n", rest);
    http_send(fd, text);
    return fd;
}

Test(http_life, an_answer_is_lost_if_its_peer_leaves_without_reading)
{
    int fd = ask_watched(" HTTP/1.1");

    wait_readable(fd);
    close(fd);
    expect_decision(1, 0);
    fd = ask_watched(" HTTP/1.0"); /* here the server closes first */
    wait_readable(fd);
    settle();
    close(fd);
    expect_decision(2, 0);
    fd = ask_watched(" HTTP/1.1");
    shutdown(fd, SHUT_WR);
    wait_readable(fd);
    settle();
    close(fd);
    expect_decision(3, 0);
    fd = ask_watched("?size=4000000 HTTP/1.1"); /* more than the socket holds */
    wait_readable(fd);
    close(fd);
    expect_decision(4, 0);
    fd = http_connect(&f);
    http_send(fd, "GET /watched-later HTTP/1.1\r\n\r\n");
    http_wait(&s.deferred);
    close(fd);
    http_wait(&s.gone_sem);
    expect_decision(5, 0);
}

Test(http_life, an_answer_that_was_read_is_kept)
{
    int fd = ask_watched(" HTTP/1.1");

    cr_expect(http_read(fd, &a, false));
    close(fd);
    expect_decision(0, 1);
    fd = ask_watched(" HTTP/1.0");
    cr_expect(http_read(fd, &a, false));
    close(fd);
    expect_decision(0, 2);
    fd = ask_watched(" HTTP/1.1");
    shutdown(fd, SHUT_WR);
    cr_expect(http_read(fd, &a, false));
    http_expect_closed(fd);
    expect_decision(0, 3);
    close(fd);
    fd = ask_watched(" HTTP/1.1");
    http_send(fd, "GET /hello HTTP/1.1\r\n\r\n"); /* waits until the answer before was read */
    settle();
    cr_expect_eq(s.kept, 3);
    cr_expect(http_read(fd, &a, false));
    expect_decision(0, 4);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"hello\":true}");
    close(fd);
    fd = http_connect(&f);
    http_send(fd, "GET /watched-later HTTP/1.1\r\n\r\n");
    http_wait(&s.deferred);
    answer_later(0);
    cr_expect(http_read(fd, &a, false));
    close(fd);
    expect_decision(0, 5);
}

Test(http_life, the_end_of_the_server_decides_too)
{
    VF_CLEANUP_FD int read = ask_watched(" HTTP/1.1"), unread = ask_watched(" HTTP/1.1");
    VF_CLEANUP_FD int lingering = ask_watched(" HTTP/1.0");
    VF_CLEANUP_FD int unwritten = ask_watched("?size=4000000 HTTP/1.1");

    cr_expect(http_read(read, &a, false));
    wait_readable(unread);
    wait_readable(lingering);
    wait_readable(unwritten);
    settle();
    http_close(&f);
    cr_expect_eq(s.lost, 1, "%d", s.lost); /* the one of which a part was not even sent */
    cr_expect_eq(s.kept, 3, "%d", s.kept);
}

Test(http_hasty, an_answer_that_nobody_reads_is_lost)
{
    VF_CLEANUP_FD int kept_open = ask_watched(" HTTP/1.1"), closed = ask_watched(" HTTP/1.0");
    VF_CLEANUP_FD int stuck = ask_watched("?size=4000000 HTTP/1.1");

    http_wait(&s.decided);
    http_wait(&s.decided);
    http_wait(&s.decided);
    cr_expect_eq(s.lost, 3);
}

/* ---- time limits */

/* Sends a byte and again one until the server has had enough. */
static void drip(const char *text)
{
    VF_CLEANUP_FD int fd = http_connect(&f);
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};

    while (poll(&p, 1, 20) == 0) {
        if (*text != '\0')
            send(fd, text++, 1, MSG_NOSIGNAL);
        else
            send(fd, "x", 1, MSG_NOSIGNAL);
    }
    http_expect_closed(fd);
}

Test(http_hasty, a_request_that_drips_is_cut_off)
{
    VF_CLEANUP_FD int idle = http_connect(&f), answered = http_connect(&f);
    VF_CLEANUP_FD int deferred = http_connect(&f), streaming = http_connect(&f);

    ask_later(deferred);
    http_send(streaming, "GET /stream HTTP/1.1\r\n\r\n");
    http_wait(&s.deferred);
    http_ask(answered, &a, "GET", "/hello", NULL, NULL);
    drip("");
    drip("GET /hello HTTP/1.1\r\nA: ");
    drip("POST /hello HTTP/1.1\r\nContent-Length: 900\r\n\r\n");
    http_expect_closed(idle);
    http_expect_closed(answered);
    answer_later(0); /* these are not waiting for their peers */
    cr_expect(http_read(deferred, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
    allow(5);
    allow(-1);
    cr_expect(http_read(streaming, &a, false));
    cr_expect_str_eq(a.body, "sssss");
}

/* ---- streams */

Test(http_life, a_stream_comes_as_it_is_made)
{
    VF_CLEANUP_FD int fd = http_connect(&f);
    char piece[10] = "";

    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&s.deferred);
    allow(3);
    while (strchr(piece, 's') == NULL) { /* at once, not when it ends */
        memmove(piece, piece + 1, sizeof(piece) - 2);
        cr_assert_eq(recv(fd, piece + sizeof(piece) - 2, 1, 0), 1);
    }
    allow(30000);
    allow(-1);
    http_wait(&s.closed_sem);
    cr_expect_eq(s.closed, 1);
    cr_expect_eq(s.given, 30003);
}

Test(http_life, a_stream_is_whole_in_every_version)
{
    VF_CLEANUP_FD int fd = http_connect(&f), old = http_connect(&f);

    atomic_store(&s.allowed, 40000);
    s.ended = true;
    http_ask(fd, &a, "GET", "/stream", NULL, NULL);
    cr_expect_eq(a.body_len, 40000);
    cr_expect_not_null(strstr(a.head, "Content-Type: application/x-ndjson\r\n"), "%s", a.head);
    http_wait(&s.closed_sem);
    http_ask(fd, &a, "HEAD", "/stream", NULL, NULL);
    cr_expect_eq(a.status, 200);
    http_wait(&s.closed_sem);
    http_ask(fd, &a, "GET", "/hello", NULL, NULL);
    cr_expect_str_eq(a.body, "{\"hello\":true}");
    atomic_store(&s.given, 0);
    http_send(old, "GET /stream HTTP/1.0\r\n\r\n");
    cr_expect(http_read(old, &a, false));
    cr_expect_eq(a.body_len, 40000);
    http_wait(&s.closed_sem);
    cr_expect_eq(s.closed, 3);
}

Test(http_life, a_reader_that_is_slow_stalls_its_stream)
{
    VF_CLEANUP_FD int fd = http_connect(&f);
    long long before;
    char buf[65536];

    atomic_store(&s.allowed, -1);
    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&s.deferred);
    settle();
    before = atomic_load(&s.given);
    cr_expect_gt(before, 0);
    cr_expect_lt(before, 2 << 20, "%lld bytes for nobody", before);
    settle();
    cr_expect_eq(atomic_load(&s.given), before, "it goes on though nobody reads");
    for (long long n = 0; n < 4 << 20;) {
        ssize_t r = recv(fd, buf, sizeof(buf), 0);

        cr_assert_gt(r, 0);
        n += r;
    }
    cr_expect_gt(atomic_load(&s.given), before);
    cr_expect_eq(s.closed, 0);
    close(vf_steal_fd(&fd)); /* while it is stalled */
    http_wait(&s.closed_sem);
    cr_expect_eq(s.closed, 1);
}

Test(http_life, a_hang_up_ends_a_stream_that_has_nothing_to_say)
{
    int fd = http_connect(&f);

    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&s.deferred);
    allow(10);
    wait_readable(fd);
    settle();
    cr_expect_eq(s.closed, 0);
    close(fd);
    http_wait(&s.closed_sem);
    settle();
    cr_expect_eq(s.closed, 1);
}

Test(http_life, a_stream_goes_on_for_one_who_only_stops_sending)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(fd, SHUT_WR);
    http_wait(&s.deferred);
    for (int i = 0; i < 3; i++) {
        settle();
        allow(10);
    }
    allow(-1);
    cr_expect(http_read(fd, &a, false));
    cr_expect_eq(a.body_len, 30);
}

/* ---- upgrades */

#define UPGRADE                                                                                 \
    "POST /upgrade HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n" \
    "Content-Length: 2\r\n\r\n{}"

static void expect_echo(int fd, const char *text)
{
    char buf[100] = "";

    cr_assert_eq(recv(fd, buf, strlen(text), MSG_WAITALL), (ssize_t)strlen(text));
    cr_expect_str_eq(buf, text);
}

Test(http_life, an_upgraded_connection_is_the_handlers)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    http_send(fd, UPGRADE "early");
    cr_expect(http_read(fd, &a, false));
    cr_expect_eq(a.status, 101);
    cr_expect_not_null(strstr(a.head, "Upgrade: echo\r\n"), "%s", a.head);
    expect_echo(fd, "early");
    http_send(fd, "later");
    expect_echo(fd, "later");
    shutdown(fd, SHUT_WR);
    http_expect_closed(fd);
    http_wait(&s.closed_sem);
    cr_expect_eq(s.failed, 0);
}

Test(http_life, without_the_headers_nothing_is_upgraded)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    http_ask(fd, &a, "POST", "/upgrade", "Upgrade: echo\r\n", "{}");
    cr_expect_str_eq(a.body, "{\"plain\":true}");
    http_ask(fd, &a, "POST", "/upgrade", "Connection: upgrade\r\nUpgrade: other\r\n", "{}");
    cr_expect_str_eq(a.body, "{\"plain\":true}");
    http_send(fd, "POST /upgrade HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"plain\":true}");
}

/* ---- limits */

Test(http_small, more_than_fit_wait_outside)
{
    VF_CLEANUP_FD int first = http_connect(&f), second = http_connect(&f);
    VF_CLEANUP_FD int third = http_connect(&f), fourth = http_connect(&f);

    http_ask(first, &a, "GET", "/hello", NULL, NULL);
    http_ask(second, &a, "GET", "/hello", NULL, NULL);
    ask_later(third);
    http_send(fourth, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 10; i++) { /* those inside are served */
        http_ask(first, &a, "GET", "/hello", NULL, NULL);
        cr_expect_eq(a.status, 200);
    }
    cr_expect_not(readable(fourth));
    close(vf_steal_fd(&third));
    http_wait(&s.gone_sem);
    cr_expect(http_read(fourth, &a, false));
    cr_expect_eq(a.status, 200);
}

Test(http_small, unread_answers_hold_their_places)
{
    int fds[3];
    VF_CLEANUP_FD int fourth = -1;

    for (int i = 0; i < 3; i++)
        fds[i] = ask_watched(" HTTP/1.0");
    for (int i = 0; i < 3; i++)
        wait_readable(fds[i]);
    fourth = http_connect(&f);
    http_send(fourth, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect_not(readable(fourth));
    close(fds[1]);
    http_wait(&s.decided);
    cr_expect(http_read(fourth, &a, false));
    cr_expect_eq(a.status, 200);
    cr_expect_eq(s.lost, 1);
    cr_expect(http_read(fds[0], &a, false));
    cr_expect(http_read(fds[2], &a, false));
    http_wait(&s.decided);
    http_wait(&s.decided);
    cr_expect_eq(s.kept, 2);
    close(fds[0]);
    close(fds[2]);
}

Test(http_small, many_come_and_go)
{
    for (int i = 0; i < 100; i++) {
        VF_CLEANUP_FD int fd = http_connect(&f);

        if (i % 3 == 0) {
            http_ask(fd, &a, "GET", "/hello", NULL, NULL);
            cr_expect_eq(a.status, 200);
        } else if (i % 3 == 1) {
            http_send(fd, "GET /hel");
        }
    }
}

Test(http_life, without_descriptors_callers_wait)
{
    VF_CLEANUP_FD int old = http_connect(&f), fresh = -1, top = dup(0);
    struct rlimit limit, none;

    http_ask(old, &a, "GET", "/hello", NULL, NULL);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    fresh = http_connect(&f);
    cr_assert_geq(top, 0);
    none = limit;
    none.rlim_cur = 3; /* every descriptor that is free now lies above */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    http_send(fresh, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 10; i++) {
        http_ask(old, &a, "GET", "/hello", NULL, NULL);
        cr_expect_eq(a.status, 200);
    }
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_expect(http_read(fresh, &a, false)); /* without another caller */
    cr_expect_eq(a.status, 200);
}

/* ---- the end */

Test(http_life, close_with_everything_open)
{
    int fds[8];

    for (int i = 0; i < 8; i++)
        fds[i] = http_connect(&f);
    ask_later(fds[0]);
    ask_later(fds[1]);
    answer_later(1); /* lies in the socket */
    http_send(fds[2], "GET /stream HTTP/1.1\r\n\r\n");
    http_wait(&s.deferred);
    http_send(fds[3], UPGRADE);
    http_send(fds[4], UPGRADE);
    http_wait(&s.upgraded_sem);
    http_wait(&s.upgraded_sem);
    http_send(fds[5], "GET /hello HT");
    http_send(fds[6], "POST /hello HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
    settle();
    http_close(&f);
    cr_expect_eq(s.gone, 1);
    cr_expect_eq(s.closed, 3, "%d", s.closed); /* the stream and the upgraded */
    cr_expect_eq(s.failed, 0);
    cr_expect(http_read(fds[1], &a, false));
    cr_expect_str_eq(a.body, "{\"n\":1}");
    for (int i = 0; i < 8; i++) {
        http_expect_closed(fds[i]);
        close(fds[i]);
    }
}

static void read_for_ever(void *arg)
{
    char buf[65536];

    while (recv(*(int *)arg, buf, sizeof(buf), 0) > 0)
        continue;
}

Test(http_life, close_ends_a_stream_that_is_being_read)
{
    VF_CLEANUP_FD int fd = http_connect(&f);
    uv_thread_t reader;

    atomic_store(&s.allowed, -1);
    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&s.deferred);
    cr_assert_eq(uv_thread_create(&reader, read_for_ever, &fd), 0);
    settle();
    http_close(&f);
    uv_thread_join(&reader);
    cr_expect_eq(s.closed, 1);
}

static void answer_and_close(void *arg)
{
    int n = 0;

    answer_nth(&n);
    vf_http_close(f.http, (void (*)(void *))arg, NULL);
    atomic_store(&f.closed, true);
}

static void count_closed(void *arg)
{
    (void)arg;
    sem_post(&s.closed_sem);
}

Test(http_life, what_was_answered_before_the_end_arrives)
{
    VF_CLEANUP_FD int fd = http_connect(&f);

    ask_later(fd);
    http_call(&f, answer_and_close, (void *)count_closed);
    http_wait(&s.closed_sem);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
    cr_expect_eq(s.gone, 0);
}

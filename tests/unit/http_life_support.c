/* See http_life_support.h. */
#include "tests/unit/http_life_support.h"

#include <unistd.h>

struct life life;

/* ---- handlers */

static void hello(struct vf_http_req *req, void *arg)
{
    (void)arg;
    vf_http_reply_json(req, 200, strdup("{\"hello\":true}"));
}

static void on_gone(void *arg)
{
    (void)arg;
    atomic_fetch_add(&life.gone, 1);
    sem_post(&life.gone_sem);
}

static void later(struct vf_http_req *req, void *arg)
{
    int n = atomic_fetch_add(&life.n_later, 1);

    (void)arg;
    life.later[n] = req;
    vf_http_defer(req, on_gone, NULL);
    sem_post(&life.deferred);
}

static void at_once(struct vf_http_req *req, void *arg)
{
    vf_http_defer(req, on_gone, NULL);
    hello(req, arg);
}

static void on_lost(void *arg)
{
    (void)arg;
    atomic_fetch_add(&life.lost, 1);
    sem_post(&life.decided);
}

static void on_kept(void *arg)
{
    (void)arg;
    atomic_fetch_add(&life.kept, 1);
    sem_post(&life.decided);
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
    if (atomic_load(&life.allowed) < 0) {
        memset(buf, 'i', size);
        atomic_fetch_add(&life.given, (long long)size);
        return (ssize_t)size;
    }
    left = atomic_load(&life.allowed) - atomic_load(&life.given);
    if (left == 0)
        return life.ended ? -1 : 0;
    if ((size_t)left < size)
        size = (size_t)left;
    memset(buf, 's', size);
    atomic_fetch_add(&life.given, (long long)size);
    return (ssize_t)size;
}

static void stream_closed(void *arg)
{
    (void)arg;
    life.stream = NULL;
    atomic_fetch_add(&life.closed, 1);
    sem_post(&life.closed_sem);
}

static void stream(struct vf_http_req *req, void *arg)
{
    (void)arg;
    life.stream = req;
    vf_http_reply_stream(req, 200, "application/x-ndjson",
                         &(struct vf_http_stream){.next = next_piece, .closed = stream_closed});
    sem_post(&life.deferred);
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
    atomic_fetch_add(&life.closed, 1);
    sem_post(&life.closed_sem);
}

static void on_upgraded(void *arg, struct vf_http_upgraded *u, int fd, const char *extra,
                        size_t extra_len)
{
    struct echo *e = (struct echo *)calloc(1, sizeof(*e));

    cr_assert_eq(arg, &life);
    cr_assert_not_null(e);
    e->u = u;
    e->fd = fd;
    cr_expect(fcntl(fd, F_GETFL) & O_NONBLOCK);
    cr_expect_eq(send(fd, extra, extra_len, MSG_NOSIGNAL), (ssize_t)extra_len);
    cr_assert_eq(uv_poll_init(&life.server.loop, &e->poll, fd), 0);
    e->poll.data = e;
    uv_poll_start(&e->poll, UV_READABLE, on_echo);
    atomic_fetch_add(&life.upgraded, 1);
    sem_post(&life.upgraded_sem);
}

static void on_failed(void *arg)
{
    cr_expect_eq(arg, &life);
    atomic_fetch_add(&life.failed, 1);
}

static void upgrade(struct vf_http_req *req, void *arg)
{
    (void)arg;
    if (vf_http_wants_upgrade(req, "echo"))
        vf_http_reply_upgrade(req, "echo", on_upgraded, on_failed, &life);
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

void life_start(int max_connections, int64_t timeout_ms)
{
    sem_init(&life.deferred, 0, 0);
    sem_init(&life.gone_sem, 0, 0);
    sem_init(&life.decided, 0, 0);
    sem_init(&life.closed_sem, 0, 0);
    sem_init(&life.upgraded_sem, 0, 0);
    http_start(&life.server, &(struct vf_http_options){.routes = routes,
                                                       .max_connections = max_connections,
                                                       .request_timeout_ms = timeout_ms,
                                                       .max_body_bytes = 1000,
                                                       .admin_gid = (gid_t)-1});
}

void life_stop(void)
{
    http_stop(&life.server);
}

int life_connect(void)
{
    return http_connect(&life.server);
}

/* ---- what the test has it do */

void life_answer_nth(void *arg)
{
    char text[30];

    snprintf(text, sizeof(text), "{\"n\":%d}", *(int *)arg);
    vf_http_reply_json(life.later[*(int *)arg], 200, strdup(text));
}

void life_answer(int n)
{
    http_call(&life.server, life_answer_nth, &n);
}

static void give_more(void *arg)
{
    long long n = *(long long *)arg;

    if (n < 0)
        life.ended = true;
    else
        atomic_fetch_add(&life.allowed, n);
    if (life.stream != NULL)
        vf_http_stream_more(life.stream);
}

void life_allow(long long n)
{
    http_call(&life.server, give_more, &n);
}

void life_ask_later(int fd)
{
    http_send(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&life.deferred);
}

void life_settle(void)
{
    static struct http_answer a;
    VF_CLEANUP_FD int fd = life_connect();

    for (int i = 0; i < 5; i++) {
        http_ask(fd, &a, "GET", "/hello", NULL, NULL);
        cr_expect_eq(a.status, 200);
    }
}

int life_ask_watched(const char *rest)
{
    int fd = life_connect();
    char text[200];

    snprintf(text, sizeof(text), "GET /watched%s\r\n\r\n", rest);
    http_send(fd, text);
    return fd;
}

#include "tests/unit/http_support.h"

#include <errno.h>
#include <poll.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_S 20

static void on_async(uv_async_t *a)
{
    struct http_fixture *f = (struct http_fixture *)a->data;

    f->call(f->call_arg);
    sem_post(&f->async_done);
}

static void loop_thread(void *arg)
{
    struct http_fixture *f = (struct http_fixture *)arg;

    uv_run(&f->loop, UV_RUN_DEFAULT);
}

void http_start(struct http_fixture *f, const struct vf_http_options *o)
{
    struct vf_error err;
    int fd = -1;

    scratch_open(&f->dir);
    cr_assert_eq(vf_unix_listen(f->dir.fd, "api.sock", 64, &fd, &err), 0, "%s", err.msg);
    cr_assert_eq(uv_loop_init(&f->loop), 0);
    cr_assert_eq(uv_async_init(&f->loop, &f->async, on_async), 0);
    f->async.data = f;
    cr_assert_eq(sem_init(&f->async_done, 0, 0), 0);
    f->options = *o;
    atomic_store(&f->closed, false);
    cr_assert_eq(vf_http_open(&f->loop, fd, &f->options, &f->http, &err), 0, "%s", err.msg);
    cr_assert_eq(uv_thread_create(&f->thread, loop_thread, f), 0);
}

void http_call(struct http_fixture *f, void (*fn)(void *arg), void *arg)
{
    f->call = fn;
    f->call_arg = arg;
    uv_async_send(&f->async);
    http_wait(&f->async_done);
}

static sem_t close_done;

static void on_closed(void *arg)
{
    atomic_store(&((struct http_fixture *)arg)->closed, true);
    sem_post(&close_done);
}

static void close_now(void *arg)
{
    struct http_fixture *f = (struct http_fixture *)arg;

    vf_http_close(f->http, on_closed, f);
    cr_expect_not(atomic_load(&f->closed), "done was called before vf_http_close returned");
}

void http_close(struct http_fixture *f)
{
    cr_assert_eq(sem_init(&close_done, 0, 0), 0);
    http_call(f, close_now, f);
    http_wait(&close_done);
}

static void close_async(void *arg)
{
    uv_close((uv_handle_t *)&((struct http_fixture *)arg)->async, NULL);
}

void http_stop(struct http_fixture *f)
{
    if (!atomic_load(&f->closed))
        http_close(f);
    http_call(f, close_async, f);
    uv_thread_join(&f->thread);
    cr_expect_eq(uv_loop_close(&f->loop), 0, "a handle is left on the loop");
    scratch_close(&f->dir);
}

int http_connect(struct http_fixture *f)
{
    struct timeval patience = {.tv_sec = PATIENCE_S};
    struct vf_error err;
    int fd = -1;

    cr_assert_eq(vf_unix_connect(f->dir.fd, "api.sock", &fd, &err), 0, "%s", err.msg);
    cr_assert_eq(fcntl(fd, F_SETFL, 0), 0);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    return fd;
}

void http_send(int fd, const char *text)
{
    size_t len = strlen(text);

    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

        cr_assert_gt(n, 0, "send: %s", strerror(errno));
        text += n;
        len -= (size_t)n;
    }
}

static bool read_all(int fd, char *buf, size_t len)
{
    while (len > 0) {
        ssize_t n = recv(fd, buf, len, 0);

        if (n <= 0)
            return false;
        buf += n;
        len -= (size_t)n;
    }
    return true;
}

/* A byte at a time: what follows belongs to the next answer. */
static bool read_line(int fd, char *buf, size_t size)
{
    size_t n = 0;

    do {
        cr_assert_lt(n + 1, size, "a line without end");
        if (!read_all(fd, buf + n, 1))
            return false;
    } while (buf[n++] != '\n');
    buf[n] = '\0';
    return true;
}

static bool read_chunks(int fd, struct http_answer *a)
{
    char line[100];
    size_t n;

    do {
        if (!read_line(fd, line, sizeof(line)))
            return false;
        n = strtoul(line, NULL, 16);
        cr_assert_lt(a->body_len + n, sizeof(a->body));
        if (!read_all(fd, a->body + a->body_len, n) || !read_line(fd, line, sizeof(line)))
            return false;
        a->body_len += n;
    } while (n > 0);
    return true;
}

bool http_read(int fd, struct http_answer *a, bool head_only)
{
    size_t len = 0;
    const char *field;
    bool ok = true;

    memset(a, 0, sizeof(*a));
    do {
        char *line = a->head + len;

        if (!read_line(fd, line, sizeof(a->head) - len))
            return false;
        len += strlen(line);
    } while (strcmp(a->head + len - 2, "\r\n") != 0 || len < 4 ||
             strcmp(a->head + len - 4, "\r\n\r\n") != 0);
    cr_assert_eq(sscanf(a->head, "HTTP/1.%*c %d ", &a->status), 1, "%s", a->head);
    if (a->status == 100)
        return http_read(fd, a, head_only);
    if (head_only || a->status == 101 || a->status == 204)
        return true;
    field = strcasestr(a->head, "\r\nContent-Length: ");
    if (field != NULL) {
        a->body_len = strtoul(field + 18, NULL, 10);
        cr_assert_lt(a->body_len, sizeof(a->body));
        ok = read_all(fd, a->body, a->body_len);
    } else if (strcasestr(a->head, "\r\nTransfer-Encoding: chunked") != NULL) {
        ok = read_chunks(fd, a);
    } else {
        ssize_t n;

        while ((n = recv(fd, a->body + a->body_len, sizeof(a->body) - a->body_len - 1, 0)) > 0)
            a->body_len += (size_t)n;
        ok = n == 0;
    }
    a->body[a->body_len] = '\0';
    return ok;
}

void http_ask(int fd, struct http_answer *a, const char *method, const char *path,
              const char *headers, const char *body)
{
    char text[5000];

    snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\n%s", method, path,
             headers != NULL ? headers : "");
    http_send(fd, text);
    if (body != NULL) {
        snprintf(text, sizeof(text), "Content-Length: %zu\r\n\r\n", strlen(body));
        http_send(fd, text);
        http_send(fd, body);
    } else {
        http_send(fd, "\r\n");
    }
    cr_assert(http_read(fd, a, strcmp(method, "HEAD") == 0), "%s %s: no whole answer: <%s>", method,
              path, a->head);
}

bool http_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) > 0;
}

void http_wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    cr_assert_eq(poll(&p, 1, PATIENCE_S * 1000), 1);
}

void http_expect_closed(int fd)
{
    char buf[1000];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
        continue;
    cr_expect(n == 0 || errno == ECONNRESET, "the server did not close: %s", strerror(errno));
}

void http_wait(sem_t *s)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    while (sem_timedwait(s, &until) < 0)
        cr_assert_eq(errno, EINTR, "waited too long");
}

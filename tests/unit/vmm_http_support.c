#include "tests/unit/vmm_http_support.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"

static uv_loop_t *running_loop; /* that a callback stops */

#define DEADLINE_MS 8000

/* ---- the server's thread */

/* False: the test is over. */
static bool wait_readable(struct served *s, int fd)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = s->stop[0], .events = POLLIN}};
    while (poll(p, 2, DEADLINE_MS) < 0)
        ;
    return p[0].revents != 0;
}

static ssize_t receive(struct served *s, int fd)
{
    struct iovec iov = {s->request + s->request_len, HTTP_MAX_REQUEST - 1 - s->request_len};
    union {
        char buf[CMSG_SPACE(sizeof(int) * 32)];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf};
    msg.msg_controllen = sizeof(control.buf);
    ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (c && c->cmsg_type == SCM_RIGHTS) {
        size_t len = c->cmsg_len - CMSG_LEN(0);
        memcpy(s->fds + s->n_fds, CMSG_DATA(c), len);
        s->n_fds += (int)(len / sizeof(int));
    }
    return n;
}

bool served_read(struct served *s, int fd)
{
    s->request_len = 0;
    for (;;) {
        ssize_t n = wait_readable(s, fd) ? receive(s, fd) : -1;
        if (n <= 0)
            return false;
        s->request_len += (size_t)n;
        s->request[s->request_len] = 0;
        const char *end = strstr(s->request, "\r\n\r\n");
        const char *len = strstr(s->request, "Content-Length: ");
        size_t body = len && len < end ? strtoul(len + 16, NULL, 10) : 0;
        if (end && s->request_len >= (size_t)(end + 4 - s->request) + body)
            return true;
    }
}

void served_write(int fd, const char *text, size_t len)
{
    while (len) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

void serve_answer(struct served *s, int fd)
{
    if (served_read(s, fd))
        served_write(fd, s->answer, s->answer_len ? s->answer_len : strlen(s->answer));
}

void serve_and_hold(struct served *s, int fd)
{
    char c;
    serve_answer(s, fd);
    while (wait_readable(s, fd) && recv(fd, &c, 1, 0) > 0)
        ;
}

static void *run_server(void *arg)
{
    struct served *s = arg;
    while (wait_readable(s, s->listener)) {
        int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            break;
        s->n_connections++;
        s->serve(s, fd);
        close(fd);
    }
    return NULL;
}

/* ---- the test's side */

void served_start(struct served *s, serve_fn serve)
{
    struct vf_error err;
    scratch_open(&s->dir);
    cr_assert_eq(vf_unix_listen(s->dir.fd, "api.sock", 16, &s->listener, &err), 0, "%s", err.msg);
    cr_assert_eq(pipe2(s->stop, O_CLOEXEC), 0);
    cr_assert_eq(uv_loop_init(&s->loop), 0);
    running_loop = &s->loop;
    cr_assert_eq(vf_vmm_http_open(&s->loop, s->dir.fd, "api.sock", &s->http, &err), 0);
    s->serve = serve;
    if (serve)
        cr_assert_eq(pthread_create(&s->thread, NULL, run_server, s), 0);
    s->running = serve != NULL;
}

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

void served_close(struct served *s)
{
    bool closed = false;
    if (!vf_vmm_http_close(s->http, on_closed, &closed))
        return;
    s->http = NULL;
    cr_assert_not(closed, "it may not be told before close has returned");
    while (uv_run(&s->loop, UV_RUN_DEFAULT))
        ;
    cr_assert(closed);
}

void served_stop(struct served *s)
{
    served_close(s);
    cr_assert_eq(uv_loop_close(&s->loop), 0, "a handle is left");
    close(s->stop[1]);
    if (s->running)
        pthread_join(s->thread, NULL);
    close(s->stop[0]);
    close(s->listener);
    for (int i = 0; i < s->n_fds; i++)
        close(s->fds[i]);
    scratch_close(&s->dir);
}

void on_outcome(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct outcome *o = arg;
    o->calls++;
    uv_stop(running_loop);
    cr_assert((reply == NULL) != (err == NULL));
    if (err) {
        o->err = *err;
        return;
    }
    o->status = reply->status;
    o->len = reply->len;
    o->is_json = reply->json != NULL;
    snprintf(o->field, sizeof(o->field), "%s",
             vf_json_str(vf_json_get(reply->json, "version"), ""));
    memcpy(o->body, reply->body,
           reply->len < sizeof(o->body) - 1 ? reply->len : sizeof(o->body) - 1);
}

static void too_late(uv_timer_t *t)
{
    *(bool *)t->data = true;
    uv_stop(t->loop);
}

void served_wait(struct served *s, const struct outcome *o, int n)
{
    uv_timer_t timer;
    bool late = false;
    uv_timer_init(&s->loop, &timer);
    timer.data = &late;
    uv_timer_start(&timer, too_late, DEADLINE_MS, 0);
    while (o->calls < n && !late)
        uv_run(&s->loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&s->loop, UV_RUN_NOWAIT); /* clears a late stop */
    uv_run(&s->loop, UV_RUN_NOWAIT);
    cr_assert_not(late, "no callback has come");
}

void served_ask(struct served *s, const struct vf_vmm_http_request *r, struct outcome *o)
{
    struct vf_error err;
    memset(o, 0, sizeof(*o));
    cr_assert_eq(vf_vmm_http_send(s->http, r, on_outcome, o, &err), 0, "%s", err.msg);
    cr_assert_eq(o->calls, 0, "no callback before send has returned");
    served_wait(s, o, 1);
    cr_assert_eq(o->calls, 1);
}

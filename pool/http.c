/* The server: accepting, running libmicrohttpd, time limits, the end. See http.h and http_internal.h.
 *
 *     listen_fd readable   accept, hand over to libmicrohttpd, run it
 *     its epoll readable   run it: it reads, calls vf_http_on_request, writes
 *     a deferred answer    kick: run it in this turn of the loop, after all that poll has woken
 *     someone hung up      the watch set becomes readable: run it, which looks there first
 *
 * We accept ourselves: a full house and a lack of descriptors then mean no more than that callers wait in the backlog.
 * libmicrohttpd's own timeouts begin anew with each byte; ours, one list in order of time, do not.
 */
#include "pool/http_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"

/* For a request's headers, parsed: four times what they may have, so that most that have more get
 * our answer and not libmicrohttpd's, which is HTML. The pages are touched only when used. */
#define MEMORY_PER_CONNECTION (4 * VF_HTTP_MAX_HEADERS)
#define MAX_RUNS 16    /* of libmicrohttpd in a row, then others have a turn */
#define RUNS_US 1000   /* likewise: callers who ask again at once would keep it busy */
#define MAX_ACCEPTS 16 /* likewise */
#define NO_FDS_PAUSE_MS 100

static void finish_close(struct vf_http *h);
static void close_connections(struct vf_http *h);

/* ---- whether to accept */

static void on_listen(uv_poll_t *p, int status, int events);

static void set_accepting(struct vf_http *h, bool on)
{
    if (h->listen_fd < 0 || on == h->accepting)
        return;
    h->accepting = on;
    if (on)
        uv_poll_start(&h->listen_poll, UV_READABLE, on_listen);
    else
        uv_poll_stop(&h->listen_poll);
}

/* Accepts if there is room, and if it does not pause for want of descriptors. */
static void accept_if_room(struct vf_http *h)
{
    bool room = h->n_conns < h->o.max_connections;

    set_accepting(h, room && !uv_is_active((const uv_handle_t *)&h->accept_timer));
}

/* ---- time limits */

static void on_limit(uv_timer_t *t);

static void limit_arm(struct vf_http *h)
{
    uint64_t now = uv_now(h->loop), end;

    if (h->limited_head == NULL)
        return;
    end = h->limited_head->since_ms + (uint64_t)h->o.request_timeout_ms;
    uv_timer_start(&h->limit_timer, on_limit, end > now ? end - now : 0, 0);
}

static void on_limit(uv_timer_t *t)
{
    struct vf_http *h = (struct vf_http *)t->data;
    uint64_t limit = (uint64_t)h->o.request_timeout_ms, now = uv_now(h->loop);
    struct vf_http_conn *c;

    if (now >= limit) {
        while ((c = h->limited_head) != NULL && c->since_ms <= now - limit) {
            vf_http_limit_stop(c);
            vf_http_await_end(c, true);
            shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd is told of it like of a hang-up */
        }
    }
    limit_arm(h);
}

void vf_http_limit_stop(struct vf_http_conn *c)
{
    struct vf_http *h = c->h;

    if (!c->limited)
        return;
    *(c->limited_prev != NULL ? &c->limited_prev->limited_next : &h->limited_head) =
        c->limited_next;
    *(c->limited_next != NULL ? &c->limited_next->limited_prev : &h->limited_tail) =
        c->limited_prev;
    c->limited = false;
}

void vf_http_limit_start(struct vf_http_conn *c)
{
    struct vf_http *h = c->h;

    vf_http_limit_stop(c);
    c->since_ms = uv_now(h->loop);
    c->limited_next = NULL;
    c->limited_prev = h->limited_tail;
    *(c->limited_prev != NULL ? &c->limited_prev->limited_next : &h->limited_head) = c;
    h->limited_tail = c;
    c->limited = true;
    if (!h->closing && !uv_is_active((const uv_handle_t *)&h->limit_timer))
        limit_arm(h);
}

/* ---- running libmicrohttpd */

static void on_idle(uv_idle_t *idle);

void vf_http_kick(struct vf_http *h)
{
    h->kicked = true;
    uv_idle_start(&h->idle, on_idle);
}

static void run(struct vf_http *h)
{
    MHD_UNSIGNED_LONG_LONG left;
    bool more = true;
    int64_t until_us = vf_now_us() + RUNS_US;

    for (int i = 0; more && i < MAX_RUNS && (i == 0 || vf_now_us() < until_us); i++) {
        h->kicked = false;
        vf_http_watch_look(h);
        MHD_run(h->mhd);
        /* Not 0: the time of the slow lane, which never comes. */
        more = h->kicked || (MHD_get_timeout(h->mhd, &left) == MHD_YES && left == 0);
    }
    if (more) {
        h->kicked = false; /* for the loop's next turn */
        uv_idle_start(&h->idle, on_idle);
    } else {
        uv_idle_stop(&h->idle);
    }
    if (h->closing)
        close_connections(h);
}

static void on_idle(uv_idle_t *idle)
{
    run((struct vf_http *)idle->data);
}

static void on_check(uv_check_t *check)
{
    struct vf_http *h = (struct vf_http *)check->data;

    if (h->kicked)
        run(h);
}

static void on_readable(uv_poll_t *p, int status, int events)
{
    struct vf_http *h = (struct vf_http *)p->data;

    (void)status, (void)events;
    if (!uv_is_active((const uv_handle_t *)&h->idle)) /* else it runs once a turn already */
        run(h);
}

/* ---- accepting */

static void on_accept_again(uv_timer_t *t)
{
    accept_if_room((struct vf_http *)t->data);
}

static void on_listen(uv_poll_t *p, int status, int events)
{
    struct vf_http *h = (struct vf_http *)p->data;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    (void)status, (void)events;
    for (int i = 0; i < MAX_ACCEPTS && h->accepting; i++) {
        int fd = accept4(h->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && errno == EAGAIN)
            break;
        if (fd < 0) { /* out of descriptors or memory: they wait in the backlog meanwhile */
            uv_timer_start(&h->accept_timer, on_accept_again, NO_FDS_PAUSE_MS, 0);
            accept_if_room(h);
            break;
        }
        /* Closes fd if it fails. */
        MHD_add_connection(h->mhd, fd, (const struct sockaddr *)&addr, sizeof(addr));
    }
    run(h);
}

static void on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct vf_http *h = (struct vf_http *)cls;
    struct vf_http_conn *c = (struct vf_http_conn *)*socket_context;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        c = (struct vf_http_conn *)calloc(1, sizeof(*c));
        *socket_context = c;
        if (c == NULL) /* its first request ends it */
            return;
        c->h = h;
        c->mhd = mhd;
        c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        c->next = h->conns;
        if (c->next != NULL)
            c->next->prev = c;
        h->conns = c;
        h->n_conns++;
        accept_if_room(h);
        vf_http_limit_start(c);
        return;
    }
    if (c == NULL)
        return;
    if (c->req != NULL) /* ended without its request having been completed */
        vf_http_req_finish(c->req, false);
    vf_http_answer_kept(&c->watch);
    vf_http_unwatch_conn(c);
    vf_http_limit_stop(c);
    *(c->prev != NULL ? &c->prev->next : &h->conns) = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    h->n_conns--;
    free(c);
    accept_if_room(h);
}

/* ---- opening and closing */

/* Paths and queries are decoded by us, after they were split. */
static size_t leave_escaped(void *cls, struct MHD_Connection *mhd, char *s)
{
    (void)cls, (void)mhd;
    return strlen(s);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct vf_http *h = (struct vf_http *)handle->data;
    void (*done)(void *arg) = h->done;
    void *arg = h->done_arg;

    if (--h->open_handles > 0)
        return;
    free(h);
    if (done != NULL)
        done(arg);
}

static void add_handle(struct vf_http *h, void *handle)
{
    ((uv_handle_t *)handle)->data = h;
    h->open_handles++;
}

static void close_handles(struct vf_http *h)
{
    uv_handle_t *handles[] = {
        (uv_handle_t *)&h->listen_poll,  (uv_handle_t *)&h->mhd_poll,
        (uv_handle_t *)&h->watch_poll,   (uv_handle_t *)&h->limit_timer,
        (uv_handle_t *)&h->accept_timer, (uv_handle_t *)&h->check,
        (uv_handle_t *)&h->idle,
    };

    for (size_t i = 0; i < sizeof(handles) / sizeof(handles[0]); i++) {
        if (handles[i]->data != NULL)
            uv_close(handles[i], on_handle_closed);
    }
}

static int start_daemon(struct vf_http *h, struct vf_error *err)
{
    h->mhd = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE, 0,
        NULL, NULL, vf_http_on_request, h, MHD_OPTION_URI_LOG_CALLBACK, vf_http_on_request_line, h,
        MHD_OPTION_NOTIFY_COMPLETED, vf_http_on_completed, h, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, h, MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)INT_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)MEMORY_PER_CONNECTION, MHD_OPTION_END);
    if (h->mhd == NULL)
        return vf_fail(err, VF_IO, "libmicrohttpd does not start: %s", strerror(errno));
    return 0;
}

static int start_polling(struct vf_http *h, int listen_fd, struct vf_error *err)
{
    int epoll_fd = MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, r;

    /* None of these can fail but for uv_poll_init. */
    uv_timer_init(h->loop, &h->limit_timer);
    add_handle(h, &h->limit_timer);
    uv_timer_init(h->loop, &h->accept_timer);
    add_handle(h, &h->accept_timer);
    uv_check_init(h->loop, &h->check);
    add_handle(h, &h->check);
    uv_idle_init(h->loop, &h->idle);
    add_handle(h, &h->idle);
    r = uv_poll_init(h->loop, &h->mhd_poll, epoll_fd);
    if (r == 0) {
        add_handle(h, &h->mhd_poll);
        r = uv_poll_init(h->loop, &h->watch_poll, h->watch_epoll);
    }
    if (r == 0) {
        add_handle(h, &h->watch_poll);
        r = uv_poll_init(h->loop, &h->listen_poll, listen_fd);
    }
    if (r < 0)
        return vf_fail_errno(err, r, "poll the socket");
    add_handle(h, &h->listen_poll);
    h->listen_fd = listen_fd;
    uv_check_start(&h->check, on_check);
    uv_poll_start(&h->mhd_poll, UV_READABLE, on_readable);
    uv_poll_start(&h->watch_poll, UV_READABLE, on_readable);
    set_accepting(h, true);
    return 0;
}

int vf_http_open(uv_loop_t *loop, int listen_fd, const struct vf_http_options *o,
                 struct vf_http **ret, struct vf_error *err)
{
    struct vf_http *h = (struct vf_http *)calloc(1, sizeof(*h));
    int r;

    if (h == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory for the server");
    h->loop = loop;
    h->o = *o;
    h->listen_fd = -1;
    h->watch_epoll = -1;
    r = vf_http_watch_open(h, err);
    if (r == 0)
        r = start_daemon(h, err);
    if (r == 0)
        r = start_polling(h, listen_fd, err);
    if (r == 0) {
        *ret = h;
        return 0;
    }
    if (h->mhd != NULL)
        MHD_stop_daemon(h->mhd);
    vf_close_fd(&h->watch_epoll);
    if (h->open_handles > 0)
        close_handles(h); /* the last one frees h */
    else
        free(h);
    return r;
}

void vf_http_quiesce(struct vf_http *h)
{
    set_accepting(h, false);
    uv_timer_stop(&h->accept_timer);
    vf_close_fd(&h->listen_fd);
}

/* Upgraded connections are their owners' to end; they are shown an end of file. Returns whether any is left. */
static bool shut_upgraded(struct vf_http *h)
{
    bool any = false;

    for (struct vf_http_conn *c = h->conns; c != NULL; c = c->next) {
        if (c->req == NULL || c->req->upgrade.handle == NULL)
            continue;
        any = true;
        if (!c->shut)
            shutdown(c->fd, SHUT_RDWR);
        c->shut = true;
    }
    return any;
}

static void close_connections(struct vf_http *h)
{
    bool any = false;

    if (h->mhd == NULL)
        return;
    for (struct vf_http_conn *c = h->conns; c != NULL; c = c->next) {
        if (c->waiting)
            vf_http_await_end(c, false);
        else if (c->req != NULL && c->req->suspended)
            vf_http_req_gone(c->req);
        else
            continue;
        any = true; /* it was resumed, and we come back */
    }
    if (!any && !h->kicked && !shut_upgraded(h))
        finish_close(h);
}

static void finish_close(struct vf_http *h)
{
    struct MHD_Daemon *mhd = h->mhd;

    uv_poll_stop(&h->mhd_poll);
    uv_poll_stop(&h->watch_poll);
    h->mhd = NULL;
    MHD_stop_daemon(mhd);
    vf_close_fd(&h->watch_epoll);
    close_handles(h);
}

void vf_http_close(struct vf_http *h, void (*done)(void *arg), void *arg)
{
    vf_http_quiesce(h);
    h->closing = true;
    h->done = done;
    h->done_arg = arg;
    vf_http_kick(h);
}

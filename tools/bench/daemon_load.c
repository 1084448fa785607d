/* Many clients in one thread: a connection each, a request at a time on each, one epoll for all. Beside a daemon
 * whose loop is one thread, this leaves it a core of two. A request's time goes from its send(2) to the moment its
 * answer has been read whole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tools/bench/daemon.h"

#define MAX_EVENTS 64
#define BUFFER 131072
#define ANSWER_US 30000000

static bool broken(struct load *l, const char *what)
{
    vf_fail_errno(&l->err, errno, "%s", what);
    return false;
}

static bool ask(struct load_conn *c)
{
    c->asked_us = vf_now_us();
    c->request_len = strlen(c->request);
    ssize_t n = send(c->fd, c->request, c->request_len, MSG_NOSIGNAL);
    c->len = 0;
    return n == (ssize_t)c->request_len || broken(c->load, "send"); /* it fits any socket buffer */
}

/* Its answer has come whole: what next? */
static bool answer(struct load_conn *c, int status, const char *body)
{
    int64_t us = vf_now_us() - c->asked_us;
    c->asked_us = 0;
    if (!c->load->answered(c, status, body, us))
        return false;
    c->due_us = 0;
    c->load->next(c);
    return c->due_us > 0 || ask(c);
}

static bool receive(struct load_conn *c)
{
    ssize_t n = recv(c->fd, c->buf + c->len, c->cap - c->len - 1, MSG_DONTWAIT);
    int status;
    size_t body;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0) {
        if (n == 0)
            errno = ECONNRESET;
        return broken(c->load, "receive");
    }
    c->len += (size_t)n;
    c->buf[c->len] = 0;
    n = client_answer_length(c->buf, c->len, &status, &body);
    if (n == 0 && c->len + 1 < c->cap)
        return true;
    if (n <= 0 || (size_t)n != c->len) {
        vf_fail(&c->load->err, VF_PROTOCOL, "what answers is no vmfactoryd");
        return false;
    }
    return answer(c, status, c->buf + body);
}

/* Asks what is due; *ret_next: when the next is, VF_NEVER if none will be. */
static bool ask_due(struct load *l, struct load_conn *conns, int64_t *ret_next)
{
    int64_t now = vf_now_us();
    *ret_next = VF_NEVER;
    for (int i = 0; i < l->n; i++) {
        struct load_conn *c = &conns[i];
        int64_t at = c->due_us;
        if (c->asked_us) {
            at = c->asked_us + ANSWER_US;
            if (at <= now) {
                vf_fail(&l->err, VF_TIMEOUT, "no answer within %d s", ANSWER_US / 1000000);
                return false;
            }
        } else if (at <= now) {
            c->due_us = 0;
            if (!c->request[0])
                l->next(c);
            at = c->due_us;
            if (at == 0) {
                if (!ask(c))
                    return false;
                at = now + ANSWER_US;
            }
        }
        if (at < *ret_next)
            *ret_next = at;
    }
    return true;
}

static bool run(struct load *l, struct load_conn *conns, int epoll)
{
    struct epoll_event events[MAX_EVENTS];
    int64_t next;
    while (ask_due(l, conns, &next) && next != VF_NEVER) {
        int64_t left = next - vf_now_us();
        struct timespec ts = {left > 0 ? left / 1000000 : 0, left > 0 ? left % 1000000 * 1000 : 0};
        int n = epoll_pwait2(epoll, events, MAX_EVENTS, &ts, NULL);
        if (n < 0 && errno != EINTR)
            return broken(l, "epoll");
        for (int i = 0; i < n; i++)
            if (!receive(events[i].data.ptr))
                return false;
        if (n < 0 && vf_sync_interrupted(&l->d->bench->sync)) {
            vf_fail(&l->err, VF_CANCELLED, "interrupted by a signal");
            return false;
        }
    }
    return l->err.code == VF_OK;
}

static bool open_conns(struct load *l, struct load_conn *conns, int epoll)
{
    for (int i = 0; i < l->n; i++) {
        struct load_conn *c = &conns[i];
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        c->load = l;
        c->cap = BUFFER;
        c->buf = malloc(c->cap);
        if (!c->buf) {
            vf_fail(&l->err, VF_NO_MEMORY, "connection");
            return false;
        }
        if (client_connect(l->path, &c->fd, &l->err) < 0)
            return false;
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e) < 0)
            return broken(l, "epoll");
    }
    return true;
}

int load_run(struct load *l, struct vf_error *err)
{
    struct load_conn *conns = calloc((size_t)l->n, sizeof(*conns));
    VF_CLEANUP_FD int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!conns)
        return vf_fail(err, VF_NO_MEMORY, "connections");
    for (int i = 0; i < l->n; i++)
        conns[i].fd = -1;
    bool ok = open_conns(l, conns, epoll) && run(l, conns, epoll);
    for (int i = 0; i < l->n; i++) {
        vf_close_fd(&conns[i].fd);
        free(conns[i].buf);
    }
    free(conns);
    return ok ? 0 : vf_error_copy(err, &l->err);
}

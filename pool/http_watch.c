/* Who hung up, and whether an answer was read. See http_internal.h.
 *
 * libmicrohttpd forgets a suspended connection's socket, and of the others it tells how they ended only while a request
 * is served. So connections with a deferred request, a waiting stream or an answer whose loss matters are in an epoll
 * set of our own, edge-triggered: an edge comes when the peer closes its sending side, and another when it closes the
 * rest. Only the second, POLLHUP, means that it is gone; after the first it still waits for its answer.
 *
 * A unix socket that is closed with data unread in it leaves ECONNRESET to its peer, once: whoever reads from the socket
 * or its SO_ERROR takes it. So a connection with a watched answer stays suspended until that is decided, where
 * libmicrohttpd does not read:
 *
 *     answer written -> the peer reads it                    -> kept; the connection goes on
 *                    -> ECONNRESET                           -> lost
 *                    -> the time limit passes                -> lost
 *                    -> the server ends                      -> kept, as far as we can know
 */
#include "pool/http_internal.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#define MAX_EVENTS 64

void vf_http_answer_kept(struct vf_http_answer_watch *w)
{
    void (*on_kept)(void *arg) = w->on_kept;

    w->on_lost = w->on_kept = NULL;
    if (on_kept != NULL)
        on_kept(w->arg);
}

void vf_http_answer_lost(struct vf_http_answer_watch *w)
{
    void (*on_lost)(void *arg) = w->on_lost;

    w->on_lost = w->on_kept = NULL;
    if (on_lost != NULL)
        on_lost(w->arg);
}

/* Whether the peer has not read all that was written. The last byte of a buffer is counted off only
 * after the edge that tells of its reading; what is unread counts for more. */
static bool unread(int fd)
{
    int n = 0;

    return ioctl(fd, SIOCOUTQ, &n) == 0 && n > 1;
}

/* Takes the socket's error. */
static int take_error(int fd)
{
    int e = 0;
    socklen_t len = sizeof(e);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) == 0 ? e : 0;
}

int vf_http_watch_open(struct vf_http *h, struct vf_error *err)
{
    h->watch_epoll = epoll_create1(EPOLL_CLOEXEC);
    if (h->watch_epoll < 0)
        return vf_fail_errno(err, errno, "epoll for hang-ups");
    return 0;
}

void vf_http_watch_conn(struct vf_http_conn *c)
{
    struct epoll_event e = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = c};

    if (c->in_watch_set || epoll_ctl(c->h->watch_epoll, EPOLL_CTL_ADD, c->fd, &e) < 0)
        return;
    c->in_watch_set = true;
    c->h->n_watched++;
}

void vf_http_unwatch_conn(struct vf_http_conn *c)
{
    if (!c->in_watch_set)
        return;
    epoll_ctl(c->h->watch_epoll, EPOLL_CTL_DEL, c->fd, NULL);
    c->in_watch_set = false;
    c->h->n_watched--;
}

/* Decides about the last answer, if that is possible yet. */
static bool decide(struct vf_http_conn *c)
{
    /* In this order: what is thrown away unread no longer counts, but sets the error before. */
    bool waits = unread(c->fd);

    if (take_error(c->fd) != 0)
        vf_http_answer_lost(&c->watch);
    else if (!waits)
        vf_http_answer_kept(&c->watch);
    else
        return false;
    return true;
}

static void go_on(struct vf_http_conn *c)
{
    c->waiting = false;
    MHD_resume_connection(c->mhd);
    vf_http_kick(c->h);
}

void vf_http_await_reading(struct vf_http_conn *c)
{
    struct epoll_event e = {.events = EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};

    if (c->watch.on_lost == NULL || decide(c))
        return;
    /* An answer that can't be watched counts as kept, and so does one at the end. */
    if (c->h->closing || !c->in_watch_set ||
        epoll_ctl(c->h->watch_epoll, EPOLL_CTL_MOD, c->fd, &e) < 0) {
        vf_http_answer_kept(&c->watch);
        return;
    }
    c->waiting = true;
    MHD_suspend_connection(c->mhd);
}

void vf_http_await_end(struct vf_http_conn *c, bool lost)
{
    if (!c->waiting)
        return;
    if (!decide(c)) {
        if (lost)
            vf_http_answer_lost(&c->watch);
        else
            vf_http_answer_kept(&c->watch);
    }
    go_on(c);
}

static void look_at_conn(struct vf_http_conn *c)
{
    struct pollfd p = {.fd = c->fd};

    if (c->waiting) {
        if (decide(c))
            go_on(c);
        return;
    }
    if (poll(&p, 1, 0) <= 0 || (p.revents & (POLLHUP | POLLERR)) == 0 || c->req == NULL)
        return;
    /* An answer may be written, and its peer gone, before libmicrohttpd has ended its request. */
    if (c->req->state == VF_HTTP_ANSWERED && c->req->watch.on_lost != NULL &&
        take_error(c->fd) != 0)
        vf_http_answer_lost(&c->req->watch);
    vf_http_req_gone(c->req);
}

void vf_http_watch_look(struct vf_http *h)
{
    struct epoll_event events[MAX_EVENTS];
    int n = MAX_EVENTS;

    while (h->n_watched > 0 && n == MAX_EVENTS) {
        n = epoll_wait(h->watch_epoll, events, MAX_EVENTS, 0);
        for (int i = 0; i < n; i++)
            look_at_conn((struct vf_http_conn *)events[i].data.ptr);
    }
}

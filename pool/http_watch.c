/* Who hung up, and whether an answer was read. See http_internal.h.
 *
 * libmicrohttpd forgets a suspended connection's socket, and of the others it tells how they ended only while a request
 * is served. So connections with a deferred request, a waiting stream or an answer whose loss matters are in an epoll
 * set of our own, edge-triggered: an edge comes when the peer closes its sending side, and another when it closes the
 * rest. Only the second, POLLHUP, means that it is gone; after the first it still waits for its answer.
 *
 * A unix socket that is closed with data unread in it leaves ECONNRESET to its peer, once: whoever reads from the socket
 * or its SO_ERROR takes it. Hence the look before each run of libmicrohttpd. (Between the look and its recv lies a
 * microsecond; an answer thrown away just then counts as kept, and its lease's end is left to its time to live.)
 *
 *     answer written -> the next request                        -> kept
 *                    -> the peer closes   ECONNRESET            -> lost
 *                                         else                  -> kept
 *                    -> we close          nothing unread        -> kept
 *                                         else: lingers; then   read, or the server ends -> kept
 *                                                               ECONNRESET, or too late  -> lost
 */
#include "pool/http_internal.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/fd.h"

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

bool vf_http_unread(int fd)
{
    int n = 0;

    return ioctl(fd, SIOCOUTQ, &n) == 0 && n > 0;
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

static void look_at_conn(struct vf_http_conn *c)
{
    struct vf_http_answer_watch *w = &c->watch;
    struct pollfd p = {.fd = c->fd};

    if (poll(&p, 1, 0) <= 0 || (p.revents & (POLLHUP | POLLERR)) == 0)
        return;
    /* An answer may be written, and its peer gone, before libmicrohttpd has ended its request. */
    if (c->req != NULL && c->req->state == VF_HTTP_ANSWERED)
        w = &c->req->watch;
    if (w->on_lost != NULL && take_error(c->fd) != 0)
        vf_http_answer_lost(w);
    if (c->req != NULL)
        vf_http_req_gone(c->req);
}

/* ---- closed connections whose answer is not read yet */

static void lingering_free(struct vf_http_lingering *l)
{
    struct vf_http *h = l->h;

    *(l->prev != NULL ? &l->prev->next : &h->lingering_head) = l->next;
    *(l->next != NULL ? &l->next->prev : &h->lingering_tail) = l->prev;
    epoll_ctl(h->watch_epoll, EPOLL_CTL_DEL, l->fd, NULL);
    h->n_watched--;
    h->n_lingering--;
    vf_close_fd(&l->fd);
    free(l);
}

static void look_at_lingering(struct vf_http_lingering *l)
{
    /* In this order: what is thrown away unread no longer counts, but sets the error before. */
    bool unread = vf_http_unread(l->fd);

    if (take_error(l->fd) != 0)
        vf_http_answer_lost(&l->watch);
    else if (!unread)
        vf_http_answer_kept(&l->watch);
    else
        return;
    lingering_free(l);
}

static bool linger(struct vf_http_conn *c)
{
    struct vf_http *h = c->h;
    struct vf_http_lingering *l = (struct vf_http_lingering *)calloc(1, sizeof(*l));
    struct epoll_event e = {.events = EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = l};

    if (l == NULL)
        return false;
    l->fd = fcntl(c->fd, F_DUPFD_CLOEXEC, 3);
    if (l->fd < 0 || epoll_ctl(h->watch_epoll, EPOLL_CTL_ADD, l->fd, &e) < 0) {
        vf_close_fd(&l->fd);
        free(l);
        return false;
    }
    h->n_watched++;
    h->n_lingering++;
    shutdown(l->fd, SHUT_WR);
    l->kind = VF_HTTP_LINGERING;
    l->h = h;
    l->watch = c->watch;
    l->since_ms = uv_now(h->loop);
    l->prev = h->lingering_tail;
    *(l->prev != NULL ? &l->prev->next : &h->lingering_head) = l;
    h->lingering_tail = l;
    return true;
}

void vf_http_watch_closed(struct vf_http_conn *c)
{
    bool unread;

    if (c->watch.on_lost == NULL)
        return;
    unread = vf_http_unread(c->fd);
    if (take_error(c->fd) != 0)
        vf_http_answer_lost(&c->watch);
    else if (c->h->closing || !unread || !linger(c))
        vf_http_answer_kept(&c->watch); /* as far as we can know */
}

void vf_http_lingering_expire(struct vf_http *h, uint64_t before_ms)
{
    struct vf_http_lingering *l;

    while ((l = h->lingering_head) != NULL && l->since_ms <= before_ms) {
        vf_http_answer_lost(&l->watch);
        lingering_free(l);
    }
}

void vf_http_lingering_end(struct vf_http *h)
{
    while (h->lingering_head != NULL) {
        vf_http_answer_kept(&h->lingering_head->watch);
        lingering_free(h->lingering_head);
    }
}

void vf_http_watch_look(struct vf_http *h)
{
    struct epoll_event events[MAX_EVENTS];
    int n = MAX_EVENTS;

    while (h->n_watched > 0 && n == MAX_EVENTS) {
        n = epoll_wait(h->watch_epoll, events, MAX_EVENTS, 0);
        for (int i = 0; i < n; i++) {
            const enum vf_http_watch_kind *kind =
                (const enum vf_http_watch_kind *)events[i].data.ptr;

            if (*kind == VF_HTTP_CONN)
                look_at_conn((struct vf_http_conn *)events[i].data.ptr);
            else
                look_at_lingering((struct vf_http_lingering *)events[i].data.ptr);
        }
    }
}

/* Requests that carry descriptors: one connection, one sendmsg with head, body and descriptors, one answer.
 *
 * Happy path: connect, send all at once, wait until the socket is readable, gather the answer until head and body are
 * whole, end. The kernel takes some 200 KB at once; what it leaves of a longer body follows when it can.
 * On the way: nobody listens, or the socket closes as we send (told by a timer that runs out at once, since no callback
 * comes before send returns); an answer that ends early, is too long or none; the deadline.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/async.h"
#include "base/clock.h"
#include "base/fd.h"
#include "vmm/http_internal.h"

struct exchange {
    struct vf_vmm_http_call call; /* first */
    int fd;
    uv_poll_t poll;
    uv_timer_t timer; /* the deadline, or the failure to come */
    bool poll_open;
    int handles;
    char *out;
    size_t out_len, sent;
    bool failed; /* to send; err says why */
    struct vf_error err;
};

static void on_handle_closed(uv_handle_t *handle)
{
    struct exchange *x = handle->data;
    struct vf_vmm_http *h = x->call.h;
    if (--x->handles > 0)
        return;
    vf_close_fd(&x->fd);
    free(x->out);
    free(x->call.in);
    free(x->call.name);
    free(x);
    vf_vmm_http_handle_closed(h);
}

static void drop(struct vf_vmm_http_call *c)
{
    struct exchange *x = (struct exchange *)c;
    x->handles = 1;
    if (x->poll_open) {
        x->handles++;
        uv_close((uv_handle_t *)&x->poll, on_handle_closed);
    }
    uv_close((uv_handle_t *)&x->timer, on_handle_closed);
}

static void closed_early(struct exchange *x, struct vf_error *err)
{
    vf_fail(err, VF_VMM_DIED, "%s: the VMM closed the connection %s", x->call.name,
            x->call.in_len ? "within its answer" : "without an answer");
}

/* ---- the answer */

/* True once the exchange has ended, and x may be gone. */
static bool look_at_answer(struct exchange *x)
{
    struct vf_vmm_http_head head;
    struct vf_error e;
    int r = vf_vmm_http_parse_head(x->call.in, x->call.in_len, &head, &e);
    if (r == 0 || (r > 0 && x->call.in_len < head.len + head.body_len))
        return false;
    if (r < 0) {
        vf_wrap(&e, "%s", x->call.name);
        vf_vmm_http_end(&x->call, 0, 0, &e);
        return true;
    }
    x->call.in_len = head.len + head.body_len;
    vf_vmm_http_end(&x->call, head.status, head.len, NULL);
    return true;
}

/* One read a wake-up. */
static void read_answer(struct exchange *x)
{
    char buf[4096];
    struct vf_error e;
    ssize_t n = recv(x->fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n <= 0)
        closed_early(x, &e);
    else if (vf_vmm_http_take(&x->call, buf, (size_t)n,
                              VF_VMM_HTTP_MAX_HEAD + VF_VMM_HTTP_MAX_BODY)) {
        look_at_answer(x);
        return;
    } else
        vf_fail(&e, VF_PROTOCOL, "%s: the VMM's answer is too long", x->call.name);
    vf_vmm_http_end(&x->call, 0, 0, &e);
}

/* ---- the request */

/* Descriptors go along with the first byte. -EAGAIN: the socket is full. */
static int send_some(struct exchange *x, const int *fds, int n_fds)
{
    struct iovec iov = {x->out + x->sent, x->out_len - x->sent};
    union {
        char buf[CMSG_SPACE(sizeof(int) * VF_VMM_HTTP_MAX_FDS)];
        struct cmsghdr align;
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n_fds);
        struct cmsghdr *c = &control.align;
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n_fds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n_fds);
    }
    ssize_t n;
    do
        n = sendmsg(x->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    x->sent += (size_t)n;
    return 0;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static int wait_for_events(struct exchange *x)
{
    int events = UV_READABLE | (x->sent < x->out_len ? UV_WRITABLE : 0);
    return uv_poll_start(&x->poll, events, on_poll);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct exchange *x = poll->data;
    if (x->call.h->closing)
        return;
    /* An error is libuv's EBADF, and polling has stopped; the socket knows better, after what is still to be read. */
    if (status < 0)
        events = UV_READABLE;
    else if (events & UV_WRITABLE && x->sent < x->out_len)
        send_some(x, NULL, 0); /* its failure shows as the socket's end */
    wait_for_events(x);
    if (events & UV_READABLE)
        read_answer(x);
}

static void on_timer(uv_timer_t *t)
{
    struct exchange *x = t->data;
    struct vf_error e;
    if (x->call.h->closing)
        return;
    if (x->failed)
        e = x->err;
    else
        vf_fail(&e, VF_TIMEOUT, "%s: no whole answer within the deadline", x->call.name);
    vf_vmm_http_end(&x->call, 0, 0, &e);
}

static int make_text(struct exchange *x, const struct vf_vmm_http_request *r)
{
    int n = asprintf(&x->out,
                     "%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     r->method, r->path, r->body ? strlen(r->body) : 0, r->body ? r->body : "");
    if (n < 0) {
        x->out = NULL;
        return -ENOMEM;
    }
    x->out_len = (size_t)n;
    return 0;
}

static void begin(struct exchange *x, const struct vf_vmm_http_request *r)
{
    struct vf_vmm_http *h = x->call.h;
    int e = vf_unix_connect(h->dirfd, h->socket_name, &x->fd, NULL);
    if (e < 0) {
        vf_vmm_http_unreachable(&x->call, e, &x->err);
        x->failed = true;
        return;
    }
    e = send_some(x, r->fds, r->n_fds);
    if (e == -EPIPE || e == -ECONNRESET)
        closed_early(x, &x->err);
    else if (e < 0)
        vf_fail_errno(&x->err, e, "%s: send it with its descriptors", x->call.name);
    else if ((e = uv_poll_init(h->loop, &x->poll, x->fd)) < 0)
        vf_fail_errno(&x->err, e, "%s: watch the connection", x->call.name);
    else {
        x->poll.data = x;
        x->poll_open = true;
        e = wait_for_events(x);
        if (e < 0)
            vf_fail_errno(&x->err, e, "%s: watch the connection", x->call.name);
    }
    x->failed = e < 0;
}

int vf_vmm_http_send_fds(struct vf_vmm_http *h, const struct vf_vmm_http_request *r,
                         vf_vmm_http_cb cb, void *arg, struct vf_error *err)
{
    if (r->n_fds < 0 || r->n_fds > VF_VMM_HTTP_MAX_FDS)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: at most %d descriptors (are %d)", r->path,
                       VF_VMM_HTTP_MAX_FDS, r->n_fds);
    struct exchange *x = calloc(1, sizeof(*x));
    if (!x)
        return vf_fail(err, VF_NO_MEMORY, "request %s", r->path);
    x->fd = -1;
    x->call.drop = drop;
    if (make_text(x, r) < 0 || vf_vmm_http_begin(h, &x->call, r, cb, arg, err) < 0) {
        free(x->out);
        free(x);
        return vf_fail(err, VF_NO_MEMORY, "request %s", r->path);
    }
    uv_timer_init(h->loop, &x->timer); /* never fails */
    x->timer.data = x;
    h->handles++;
    begin(x, r);
    if (x->failed || r->timeout_ms > 0)
        vf_timer_at(&x->timer, x->failed ? 0 : vf_deadline_after_ms(r->timeout_ms), on_timer);
    return 0;
}

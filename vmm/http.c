/* The HTTP client: its life, and requests without descriptors, by libcurl's multi interface.
 *
 * Happy path: make an easy handle, give it to the multi handle; libcurl connects (sun_path is too short for any path, so
 * the path goes through the directory's descriptor), says which events it waits for and when to wake it; libuv brings both; the answer is gathered, bounded; the multi
 * handle says that it is done; the connection is closed, and the callback called. With the last request the multi handle
 * goes, so that a client at rest holds one descriptor.
 * On the way: nobody listens; the VMM closes without an answer, or within it; the answer is no HTTP, too long, or
 * doesn't say where it ends (then an exit in the middle of it could not be told from its end); the deadline passes.
 */
#include "vmm/http_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/fd.h"

#define SOCKET_PATH "/proc/self/fd/%d/%s"
#define MAX_SOCKET_NAME 64

/* A request that libcurl carries. */
struct plain {
    struct vf_vmm_http_call call; /* first */
    CURL *easy;
    struct curl_slist *headers;
    char *body, *url;
    size_t head_len;
    bool added; /* to the multi handle */
    bool whole_head;
    bool framed;  /* the answer says how long it is */
    bool too_big; /* why a callback of ours has ended the transfer */
    bool heard;   /* something has come */
    bool met;     /* its socket was connected */
    char socket_path[108];
    char curl_says[CURL_ERROR_SIZE];
};

/* A socket that libcurl waits for. */
struct watch {
    uv_poll_t poll;
    struct vf_vmm_http *h;
    curl_socket_t fd;
    int events;
};

static void look_for_ended(struct vf_vmm_http *h);

/* ---- what all requests share */

int vf_vmm_http_begin(struct vf_vmm_http *h, struct vf_vmm_http_call *c,
                      const struct vf_vmm_http_request *r, vf_vmm_http_cb cb, void *arg,
                      struct vf_error *err)
{
    c->name = strdup(r->name ? r->name : r->path);
    if (!c->name)
        return vf_fail(err, VF_NO_MEMORY, "request %s", r->path);
    c->h = h;
    c->cb = cb;
    c->arg = arg;
    c->serial = ++h->serial;
    TAILQ_INSERT_TAIL(&h->calls, c, link);
    return 0;
}

bool vf_vmm_http_take(struct vf_vmm_http_call *c, const char *data, size_t len, size_t max)
{
    if (len > max - c->in_len)
        return false;
    if (len > c->in_cap - c->in_len) {
        size_t cap = c->in_cap ? c->in_cap : 1024;
        while (cap < c->in_len + len)
            cap *= 2;
        char *in = realloc(c->in, cap);
        if (!in)
            return false;
        c->in = in;
        c->in_cap = cap;
    }
    memcpy(c->in + c->in_len, data, len);
    c->in_len += len;
    return true;
}

void vf_vmm_http_unreachable(const struct vf_vmm_http_call *c, int r, struct vf_error *err)
{
    if (r == -EAGAIN)
        vf_fail(err, VF_BUSY, "%s: the VMM takes no more connections", c->name);
    else
        vf_fail(err, VF_VMM_DIED, "%s: nobody listens on %s: %s", c->name, c->h->socket_name,
                strerror(-r));
}

void vf_vmm_http_end(struct vf_vmm_http_call *c, int status, size_t skip,
                     const struct vf_error *err)
{
    struct vf_error e;
    struct vf_json *json = NULL;
    vf_vmm_http_cb cb = c->cb;
    void *arg = c->arg;
    char *in = c->in;
    struct vf_vmm_http_reply reply = {.status = status};
    if (err)
        vf_error_copy(&e, err);
    else {
        reply.len = c->in_len - skip;
        reply.body = reply.len ? in + skip : "";
        if (status < 200 || status > 299) {
            vf_vmm_http_error(c->name, status, reply.body, reply.len, &e);
            err = &e;
        } else if (reply.len)
            reply.json = json = vf_json_parse(reply.body, reply.len);
    }
    c->in = NULL;
    TAILQ_REMOVE(&c->h->calls, c, link);
    c->drop(c);
    cb(arg, err ? NULL : &reply, err ? &e : NULL);
    vf_json_delete(json);
    free(in);
}

/* ---- a request by libcurl */

static void drop_plain(struct vf_vmm_http_call *c)
{
    struct plain *p = (struct plain *)c;
    if (p->added) {
        curl_multi_remove_handle(c->h->multi, p->easy);
        c->h->n_plain--;
    }
    curl_easy_cleanup(p->easy);
    curl_slist_free_all(p->headers);
    free(p->body);
    free(p->url);
    free(c->in);
    free(c->name);
    free(p);
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
    struct plain *p = arg;
    size_t len = size * n;
    p->heard = true;
    p->head_len += len;
    if (p->head_len > VF_VMM_HTTP_MAX_HEAD) {
        p->too_big = true;
        return 0;
    }
    if (len > 5 && strncmp(data, "HTTP/", 5) == 0)
        p->framed = p->whole_head = false; /* what came before was an answer 1xx */
    if (len <= 2)
        p->whole_head = true; /* the empty line */
    if ((len > 15 && strncasecmp(data, "content-length:", 15) == 0) ||
        (len > 18 && strncasecmp(data, "transfer-encoding:", 18) == 0))
        p->framed = true;
    return len;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct plain *p = arg;
    if (vf_vmm_http_take(&p->call, data, size * n, VF_VMM_HTTP_MAX_BODY))
        return size * n;
    p->too_big = true;
    return 0;
}

/* libcurl asks for a socket's error while it connects, and finds none if the VMM has closed it by then, nor with a full
 * backlog: only the first of the two has a peer. */
static int close_socket(void *arg, curl_socket_t fd)
{
    struct plain *p = arg;
    struct sockaddr_un peer;
    socklen_t len = sizeof(peer);
    p->met = getpeername(fd, (struct sockaddr *)&peer, &len) == 0;
    return close(fd);
}

/* Everything that libcurl would take from the environment, or do on the side, is off. */
static bool set_options(struct plain *p, const struct vf_vmm_http_request *r)
{
    CURL *c = p->easy;
    bool ok = curl_easy_setopt(c, CURLOPT_URL, p->url) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, p->socket_path) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_CLOSESOCKETFUNCTION, close_socket) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_CLOSESOCKETDATA, p) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_HEADERDATA, p) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_WRITEDATA, p) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_ERRORBUFFER, p->curl_says) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_PRIVATE, p) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http") == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_PROXY, "") == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, 1L) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L) == CURLE_OK;
    ok &= curl_easy_setopt(c, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)VF_VMM_HTTP_MAX_BODY) ==
          CURLE_OK;
    if (r->timeout_ms > 0)
        ok &= curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)r->timeout_ms) == CURLE_OK;
    if (r->body) {
        ok &= curl_easy_setopt(c, CURLOPT_POSTFIELDS, p->body) == CURLE_OK;
        ok &= curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(p->body)) ==
              CURLE_OK;
    }
    ok &= curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, r->method) == CURLE_OK;
    return ok && curl_easy_setopt(c, CURLOPT_HTTPHEADER, p->headers) == CURLE_OK;
}

static bool add_header(struct plain *p, const char *line)
{
    struct curl_slist *l = curl_slist_append(p->headers, line);
    if (l)
        p->headers = l;
    return l != NULL;
}

static bool make_plain(const struct vf_vmm_http *h, struct plain *p,
                       const struct vf_vmm_http_request *r)
{
    snprintf(p->socket_path, sizeof(p->socket_path), SOCKET_PATH, h->dirfd, h->socket_name);
    if (asprintf(&p->url, "http://localhost%s", r->path) < 0) {
        p->url = NULL;
        return false;
    }
    if (r->body && !(p->body = strdup(r->body)))
        return false;
    /* No waiting for "100 Continue" before a long body. */
    if (!add_header(p, "Accept: application/json") || !add_header(p, "Expect:") ||
        (r->body && !add_header(p, "Content-Type: application/json")))
        return false;
    p->easy = curl_easy_init();
    return p->easy && set_options(p, r);
}

/* ---- between libcurl and libuv */

static void on_watch_closed(uv_handle_t *handle)
{
    struct watch *w = handle->data;
    struct vf_vmm_http *h = w->h;
    free(w);
    vf_vmm_http_handle_closed(h);
}

static void act(struct vf_vmm_http *h, curl_socket_t fd, int events)
{
    int running;
    curl_multi_socket_action(h->multi, fd, events, &running);
    look_for_ended(h);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data;
    struct vf_vmm_http *h = w->h;
    if (h->closing || !h->multi)
        return;
    int what = (events & UV_READABLE ? CURL_CSELECT_IN : 0) |
               (events & UV_WRITABLE ? CURL_CSELECT_OUT : 0);
    if (status < 0) {
        /* libuv says EBADF whatever the error is, and has stopped: the socket itself knows better, after what is
         * still to be read. */
        what = CURL_CSELECT_IN | CURL_CSELECT_OUT;
        uv_poll_start(poll, w->events, on_poll);
    }
    act(h, w->fd, what);
}

static void on_timer(uv_timer_t *t)
{
    struct vf_vmm_http *h = t->data;
    if (!h->closing && h->multi)
        act(h, CURL_SOCKET_TIMEOUT, 0);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct vf_vmm_http *h = arg;
    (void)multi;
    if (timeout_ms < 0)
        uv_timer_stop(&h->timer);
    else {
        uv_update_time(h->loop);
        uv_timer_start(&h->timer, on_timer, (uint64_t)timeout_ms, 0);
    }
    return 0;
}

static int unwatch(struct watch *w)
{
    uv_poll_stop(&w->poll); /* at once: libcurl closes the socket next */
    uv_close((uv_handle_t *)&w->poll, on_watch_closed);
    return 0;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    struct vf_vmm_http *h = arg;
    struct watch *w = socket_arg;
    (void)easy;
    if (what == CURL_POLL_REMOVE)
        return w ? unwatch(w) : 0;
    if (!w) {
        w = calloc(1, sizeof(*w));
        if (!w || uv_poll_init_socket(h->loop, &w->poll, fd) < 0) {
            free(w);
            return -1;
        }
        w->poll.data = w;
        w->h = h;
        w->fd = fd;
        h->handles++;
        curl_multi_assign(h->multi, fd, w);
    }
    w->events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&w->poll, w->events, on_poll) < 0 ? -1 : 0;
}

/* ---- a transfer's end */

static void explain(struct plain *p, CURLcode r, struct vf_error *err)
{
    const char *name = p->call.name;
    long os_error = 0;
    curl_easy_getinfo(p->easy, CURLINFO_OS_ERRNO, &os_error);
    if (r == CURLE_COULDNT_CONNECT && p->met)
        r = CURLE_GOT_NOTHING;
    if (r == CURLE_COULDNT_CONNECT)
        vf_vmm_http_unreachable(&p->call, os_error ? (int)-os_error : -EAGAIN, err);
    else if (r == CURLE_OPERATION_TIMEDOUT)
        vf_fail(err, VF_TIMEOUT, "%s: no whole answer within the deadline", name);
    else if (p->too_big || r == CURLE_FILESIZE_EXCEEDED)
        vf_fail(err, VF_PROTOCOL, "%s: the VMM's answer is too long", name);
    else if (r == CURLE_GOT_NOTHING ||
             ((r == CURLE_RECV_ERROR || r == CURLE_SEND_ERROR) && !p->heard))
        vf_fail(err, VF_VMM_DIED, "%s: the VMM closed the connection without an answer", name);
    else if (r == CURLE_PARTIAL_FILE || r == CURLE_RECV_ERROR || r == CURLE_SEND_ERROR)
        vf_fail(err, VF_VMM_DIED, "%s: the VMM closed the connection within its answer", name);
    else if (r == CURLE_OUT_OF_MEMORY) /* libcurl's word for an endless line, too */
        vf_fail(err, VF_PROTOCOL, "%s: the VMM's answer is too long, or memory is short", name);
    else
        vf_fail(err, VF_PROTOCOL, "%s: the VMM's answer is no HTTP: %s", name,
                p->curl_says[0] ? p->curl_says : curl_easy_strerror(r));
}

static void plain_ended(struct plain *p, CURLcode r)
{
    struct vf_error e;
    long status = 0;
    curl_easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &status);
    if (r == CURLE_OK && !p->whole_head) /* for libcurl, a head may end anywhere */
        r = CURLE_PARTIAL_FILE;
    bool ok = r == CURLE_OK && (p->framed || status == 204);
    if (r != CURLE_OK)
        explain(p, r, &e);
    else if (!ok)
        vf_fail(&e, VF_PROTOCOL, "%s: the VMM's answer doesn't say how long it is", p->call.name);
    vf_vmm_http_end(&p->call, (int)status, 0, ok ? NULL : &e);
}

/* Lets the multi handle go, if nothing needs it. */
static void rest(struct vf_vmm_http *h)
{
    if (!h->multi || h->n_plain)
        return;
    uv_timer_stop(&h->timer);
    curl_multi_cleanup(h->multi);
    h->multi = NULL;
}

/* Callbacks may close the client, which takes the multi handle away. */
static void look_for_ended(struct vf_vmm_http *h)
{
    int left;
    CURLMsg *m;
    while (h->multi && (m = curl_multi_info_read(h->multi, &left))) {
        struct plain *p = NULL;
        CURLcode r = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&p);
        plain_ended(p, r);
    }
    rest(h);
}

/* ---- the client */

static void init_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

int vf_vmm_http_open(uv_loop_t *loop, int dirfd, const char *socket_name, struct vf_vmm_http **ret,
                     struct vf_error *err)
{
    static uv_once_t once = UV_ONCE_INIT;
    if (!*socket_name || strlen(socket_name) > MAX_SOCKET_NAME || strchr(socket_name, '/'))
        return vf_fail(err, VF_INVALID_ARGUMENT, "\"%s\" is no name for a VMM's socket",
                       socket_name);
    struct vf_vmm_http *h = calloc(1, sizeof(*h));
    uv_once(&once, init_curl);
    if (!h || !(h->socket_name = strdup(socket_name))) {
        free(h);
        return vf_fail(err, VF_NO_MEMORY, "HTTP client");
    }
    h->loop = loop;
    TAILQ_INIT(&h->calls);
    h->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
    int r = h->dirfd < 0 ? -errno : uv_timer_init(loop, &h->timer);
    if (r < 0) {
        vf_close_fd(&h->dirfd);
        free(h->socket_name);
        free(h);
        return vf_fail_errno(err, r, "HTTP client: the VM's directory");
    }
    h->timer.data = h;
    h->handles = 1;
    *ret = h;
    return 0;
}

static int wake(struct vf_vmm_http *h)
{
    if (h->multi)
        return 0;
    h->multi = curl_multi_init();
    if (!h->multi)
        return -ENOMEM;
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    return 0;
}

static int send_plain(struct vf_vmm_http *h, const struct vf_vmm_http_request *r, vf_vmm_http_cb cb,
                      void *arg, struct vf_error *err)
{
    struct plain *p = calloc(1, sizeof(*p));
    if (!p)
        return vf_fail(err, VF_NO_MEMORY, "request %s", r->path);
    p->call.drop = drop_plain;
    int ret = vf_vmm_http_begin(h, &p->call, r, cb, arg, err);
    if (ret < 0) {
        free(p);
        return ret;
    }
    p->added =
        make_plain(h, p, r) && wake(h) == 0 && curl_multi_add_handle(h->multi, p->easy) == CURLM_OK;
    if (p->added) {
        h->n_plain++;
        return 0;
    }
    TAILQ_REMOVE(&h->calls, &p->call, link);
    drop_plain(&p->call);
    rest(h);
    return vf_fail(err, VF_NO_MEMORY, "request %s", r->path);
}

int vf_vmm_http_send(struct vf_vmm_http *h, const struct vf_vmm_http_request *r, vf_vmm_http_cb cb,
                     void *arg, struct vf_error *err)
{
    if (h->closing)
        return vf_fail(err, VF_CANCELLED, "request %s: the client is closed", r->path);
    return r->n_fds ? vf_vmm_http_send_fds(h, r, cb, arg, err) : send_plain(h, r, cb, arg, err);
}

void vf_vmm_http_cancel(struct vf_vmm_http *h)
{
    struct vf_vmm_http_call *c;
    struct vf_error e;
    /* Those that callbacks add go on. */
    uint64_t last = h->serial;
    while ((c = TAILQ_FIRST(&h->calls)) && c->serial <= last) {
        vf_fail(&e, VF_CANCELLED, "%s: cancelled", c->name);
        vf_vmm_http_end(c, 0, 0, &e);
    }
    rest(h);
}

void vf_vmm_http_handle_closed(struct vf_vmm_http *h)
{
    if (--h->handles > 0 || !h->closing)
        return;
    void (*on_closed)(void *arg) = h->on_closed;
    void *arg = h->arg;
    vf_close_fd(&h->dirfd);
    free(h->socket_name);
    free(h);
    on_closed(arg);
}

static void on_timer_closed(uv_handle_t *handle)
{
    vf_vmm_http_handle_closed(handle->data);
}

bool vf_vmm_http_close(struct vf_vmm_http *h, void (*on_closed)(void *arg), void *arg)
{
    if (!h || h->closing)
        return false;
    h->closing = true;
    h->on_closed = on_closed;
    h->arg = arg;
    vf_vmm_http_cancel(h);
    uv_close((uv_handle_t *)&h->timer, on_timer_closed);
    return true;
}

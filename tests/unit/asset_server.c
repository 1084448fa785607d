/* A scripted web server. See asset_server.h. */
#include "asset_server.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn {
    struct asv *s;
    int fd;
    SSL *ssl;
};

/* ---- bytes */

static bool put(struct conn *c, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = c->ssl ? SSL_write(c->ssl, p, (int)(len < 16384 ? len : 16384))
                           : send(c->fd, p, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool read_request(struct conn *c, char *buf, size_t size)
{
    size_t len = 0;

    while (len + 1 < size) {
        ssize_t n = c->ssl ? SSL_read(c->ssl, buf + len, (int)(size - 1 - len))
                           : recv(c->fd, buf + len, size - 1 - len, 0);

        if (n <= 0)
            return false;
        len += (size_t)n;
        buf[len] = '\0';
        if (buf[0] != 'G' && buf[0] != 'C') /* TLS, where none is spoken */
            return false;
        if (strstr(buf, "\r\n\r\n"))
            return true;
    }
    return false;
}

static void header(const char *request, const char *name, char *ret, size_t size)
{
    const char *p = strcasestr(request, name);

    ret[0] = '\0';
    if (!p)
        return;
    p += strlen(name);
    p += strspn(p, ": ");
    snprintf(ret, size, "%.*s", (int)strcspn(p, "\r\n"), p);
}

/* Until the server stops, the client goes, or (if it counts) asv_release was called: then true. */
static bool wait_release(struct conn *c, bool counts)
{
    struct pollfd p[] = {{.fd = c->s->stop_fd, .events = POLLIN},
                         {.fd = c->fd, .events = POLLRDHUP},
                         {.fd = counts ? c->s->release_fd : -1, .events = POLLIN}};

    while (poll(p, 3, -1) < 0 && errno == EINTR)
        ;
    return p[2].revents != 0;
}

/* ---- answers */

static void answer_status(struct conn *c, const struct asv_route *r, int status)
{
    char text[600];

    snprintf(text, sizeof(text),
             "HTTP/1.1 %d Scripted\r\n%s%s%sContent-Length: 5\r\nConnection: close\r\n\r\nsorry",
             status, r->location[0] ? "Location: " : "", r->location, r->location[0] ? "\r\n" : "");
    put(c, text, strlen(text));
}

static void answer_body(struct conn *c, const struct asv_route *r, int nth)
{
    char text[400], length[64] = "", range[128] = "";
    bool cut = r->cut > 0 && (r->cut_first == 0 || nth <= r->cut_first);
    size_t from = 0, end = r->len;
    int status = 200;

    if (r->got_range[0] && !r->no_ranges) {
        from = strtoul(r->got_range + strlen("bytes="), NULL, 10);
        if (from >= r->len) {
            answer_status(c, r, 416);
            return;
        }
        status = 206;
        snprintf(range, sizeof(range), "Content-Range: bytes %zu-%zu/%zu\r\n",
                 r->other_range ? from / 2 : from, r->len - 1, r->len);
    }
    if (!r->no_length)
        snprintf(length, sizeof(length), "Content-Length: %ld\r\n",
                 (long)(r->len - from) + r->longer);
    snprintf(text, sizeof(text), "HTTP/1.1 %d OK\r\n%s%sConnection: close\r\n\r\n", status, length,
             range);
    if (cut && r->cut < end)
        end = r->cut;
    if (!put(c, text, strlen(text)) ||
        (from < end && !put(c, (const char *)r->body + from, end - from)))
        return;
    while (r->endless && put(c, r->body, r->len))
        ;
    if (cut && r->stall)
        wait_release(c, false);
}

static void answer(struct conn *c, const struct asv_route *r, int nth)
{
    if (r->hold && !wait_release(c, true))
        return;
    if (nth <= r->fail_first) {
        if (r->fail_status)
            answer_status(c, r, r->fail_status);
    } else if (r->authorization && strcmp(r->authorization, r->got_authorization) != 0) {
        answer_status(c, r, 401);
    } else if (r->status) {
        answer_status(c, r, r->status);
    } else {
        answer_body(c, r, nth);
    }
}

static struct asv_route *find(struct asv *s, const char *request)
{
    for (int i = 0; i < s->n_routes; i++) {
        char line[80];

        int n = snprintf(line, sizeof(line), "GET %s", s->routes[i].path);
        if (strncmp(request, line, (size_t)n) == 0 && (request[n] == ' ' || request[n] == '?'))
            return &s->routes[i];
    }
    return NULL;
}

/* ---- as a proxy */

static void relay(struct conn *c, int to)
{
    struct pollfd p[] = {{.fd = c->fd, .events = POLLIN},
                         {.fd = to, .events = POLLIN},
                         {.fd = c->s->stop_fd, .events = POLLIN}};
    char buf[16384];

    for (;;) {
        if (poll(p, 3, -1) < 0 && errno == EINTR)
            continue;
        if (p[2].revents)
            return;
        for (int i = 0; i < 2; i++) {
            ssize_t n = p[i].revents ? recv(p[i].fd, buf, sizeof(buf), 0) : 1;

            if (n <= 0)
                return;
            if (p[i].revents && send(p[1 - i].fd, buf, (size_t)n, MSG_NOSIGNAL) != n)
                return;
        }
    }
}

static void tunnel(struct conn *c, const char *request)
{
    static const char yes[] = "HTTP/1.1 200 Go on\r\n\r\n";
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd;

    pthread_mutex_lock(&c->s->lock);
    c->s->connects++;
    snprintf(c->s->got_connect, sizeof(c->s->got_connect), "%s", request);
    a.sin_port = htons((uint16_t)c->s->tunnel_port);
    pthread_mutex_unlock(&c->s->lock);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && a.sin_port != 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0 &&
        put(c, yes, sizeof(yes) - 1))
        relay(c, fd);
    close(fd);
}

static void serve(struct conn *c)
{
    struct asv_route *r, copy;
    struct asv *s = c->s;
    char request[4096];
    int nth;

    if (!read_request(c, request, sizeof(request)))
        return;
    if (strncmp(request, "CONNECT ", 8) == 0) {
        tunnel(c, request);
        return;
    }
    pthread_mutex_lock(&s->lock);
    r = find(s, request);
    if (r) {
        nth = ++r->hits;
        if (++s->now > s->peak)
            s->peak = s->now;
        header(request, "\r\nAuthorization", r->got_authorization, sizeof(r->got_authorization));
        header(request, "\r\nRange", r->got_range, sizeof(r->got_range));
        header(request, "\r\nUser-Agent", r->got_agent, sizeof(r->got_agent));
        copy = *r;
    }
    pthread_mutex_unlock(&s->lock);
    if (!r) {
        answer_status(c, &(struct asv_route){0}, 404);
        return;
    }
    answer(c, &copy, nth);
    pthread_mutex_lock(&s->lock);
    s->now--;
    pthread_mutex_unlock(&s->lock);
}

/* ---- connections */

struct slot {
    struct asv *s;
    int i;
};

static void *run_conn(void *arg)
{
    struct slot *slot = arg;
    struct asv *s = slot->s;
    struct conn c = {.s = s, .fd = s->conns[slot->i].fd};

    if (s->tls) {
        c.ssl = SSL_new(s->tls);
        SSL_set_fd(c.ssl, c.fd);
    }
    if (!c.ssl || SSL_accept(c.ssl) == 1)
        serve(&c);
    if (c.ssl) {
        SSL_shutdown(c.ssl);
        SSL_free(c.ssl);
    }
    shutdown(c.fd, SHUT_RDWR);
    pthread_mutex_lock(&s->lock);
    s->conns[slot->i].ended = true;
    pthread_mutex_unlock(&s->lock);
    free(slot);
    return NULL;
}

/* Under the lock. */
static int free_slot(struct asv *s)
{
    for (int i = 0; i < ASV_CONNS; i++) {
        if (s->conns[i].used && s->conns[i].ended) {
            pthread_join(s->conns[i].thread, NULL);
            close(s->conns[i].fd);
            s->conns[i].used = false;
        }
        if (!s->conns[i].used)
            return i;
    }
    return -1;
}

static void *run(void *arg)
{
    struct asv *s = arg;

    for (;;) {
        struct pollfd p[] = {{.fd = s->fd, .events = POLLIN}, {.fd = s->stop_fd, .events = POLLIN}};
        struct slot *slot;
        int fd, i;

        if (poll(p, 2, -1) < 0 && errno == EINTR)
            continue;
        if (p[1].revents)
            return NULL;
        fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        pthread_mutex_lock(&s->lock);
        s->n_conns++;
        i = free_slot(s);
        if (i < 0) {
            close(fd);
        } else {
            slot = malloc(sizeof(*slot));
            *slot = (struct slot){s, i};
            s->conns[i].used = true;
            s->conns[i].ended = false;
            s->conns[i].fd = fd;
            cr_assert_eq(pthread_create(&s->conns[i].thread, NULL, run_conn, slot), 0);
        }
        pthread_mutex_unlock(&s->lock);
    }
}

void asv_open(struct asv *s, const char *ip, SSL_CTX *tls)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);

    memset(s, 0, sizeof(*s));
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes to sockets without MSG_NOSIGNAL */
    s->tls = tls;
    pthread_mutex_init(&s->lock, NULL);
    s->stop_fd = eventfd(0, EFD_CLOEXEC);
    s->release_fd = eventfd(0, EFD_CLOEXEC);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(inet_pton(AF_INET, ip ? ip : "127.0.0.1", &a.sin_addr), 1);
    cr_assert_eq(bind(s->fd, (struct sockaddr *)&a, sizeof(a)), 0, "%s", strerror(errno));
    cr_assert_eq(listen(s->fd, 64), 0);
    cr_assert_eq(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    cr_assert_eq(pthread_create(&s->thread, NULL, run, s), 0);
}

void asv_close(struct asv *s)
{
    uint64_t one = 1;

    cr_assert_eq(write(s->stop_fd, &one, sizeof(one)), (ssize_t)sizeof(one));
    cr_assert_eq(pthread_join(s->thread, NULL), 0);
    for (int i = 0; i < ASV_CONNS; i++) {
        if (!s->conns[i].used)
            continue;
        shutdown(s->conns[i].fd, SHUT_RDWR);
        pthread_join(s->conns[i].thread, NULL);
        close(s->conns[i].fd);
    }
    close(s->fd);
    close(s->stop_fd);
    close(s->release_fd);
    SSL_CTX_free(s->tls);
    pthread_mutex_destroy(&s->lock);
}

struct asv_route *asv_add(struct asv *s, const struct asv_route *r)
{
    struct asv_route *ret;

    pthread_mutex_lock(&s->lock);
    cr_assert_lt(s->n_routes, ASV_ROUTES);
    ret = &s->routes[s->n_routes++];
    *ret = *r;
    pthread_mutex_unlock(&s->lock);
    return ret;
}

void asv_url(const struct asv *s, const char *host, const char *path, char ret[200])
{
    snprintf(ret, 200, "%s://%s:%d%s", s->tls ? "https" : "http", host, s->port, path);
}

void asv_release(struct asv *s)
{
    uint64_t one = 1;

    cr_assert_eq(write(s->release_fd, &one, sizeof(one)), (ssize_t)sizeof(one));
}

int asv_hits(struct asv *s, const struct asv_route *r)
{
    int n;

    pthread_mutex_lock(&s->lock);
    n = r->hits;
    pthread_mutex_unlock(&s->lock);
    return n;
}

int asv_now(struct asv *s)
{
    int n;

    pthread_mutex_lock(&s->lock);
    n = s->now;
    pthread_mutex_unlock(&s->lock);
    return n;
}

int asv_peak(struct asv *s)
{
    int n;

    pthread_mutex_lock(&s->lock);
    n = s->peak;
    pthread_mutex_unlock(&s->lock);
    return n;
}

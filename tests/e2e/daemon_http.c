/* The tests' HTTP client: blocking, on a unix socket, with a deadline for each read. See daemon_support.h. */
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tests/e2e/daemon_support.h"

void dmn_dial(struct dmn *d, struct dmn_conn *c, const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    *c = (struct dmn_conn){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    cr_assert_geq(c->fd, 0);
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", d->run, name);
    while (connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        cr_assert_eq(errno, EINTR, "%s: %s", addr.sun_path, strerror(errno));
}

void dmn_hang_up(struct dmn_conn *c)
{
    vf_close_fd(&c->fd);
    free(c->buf);
    *c = (struct dmn_conn){.fd = -1};
}

bool dmn_send(struct dmn_conn *c, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = send(c->fd, p, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

void dmn_ask(struct dmn_conn *c, const char *method, const char *path, const char *headers,
             const char *body)
{
    char *text = NULL;
    int n = asprintf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %zu\r\n\r\n%s",
                     method, path, headers != NULL ? headers : "", body != NULL ? strlen(body) : 0,
                     body != NULL ? body : "");

    cr_assert_gt(n, 0);
    cr_assert(dmn_send(c, text, (size_t)n), "%s %s: %s", method, path, strerror(errno));
    free(text);
}

/* Waits for more; false: the peer closed. */
static bool fill(struct dmn_conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    int64_t deadline = vf_deadline_after_ms(DMN_LONG_MS);
    ssize_t n;
    int r;

    if (c->eof)
        return false;
    if (c->at > 0) {
        memmove(c->buf, c->buf + c->at, c->len);
        c->at = 0;
    }
    if (c->cap - c->len < 65536) {
        c->cap = c->len + 131072;
        c->buf = realloc(c->buf, c->cap);
        cr_assert_not_null(c->buf);
    }
    do {
        r = poll(&p, 1, vf_deadline_left_ms(deadline));
    } while (r < 0 && errno == EINTR);
    cr_assert_gt(r, 0, "the daemon sends nothing");
    do {
        n = recv(c->fd, c->buf + c->len, c->cap - c->len, 0);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        c->eof = true;
        return false;
    }
    c->len += (size_t)n;
    return true;
}

static void use(struct dmn_conn *c, size_t n)
{
    c->at += n;
    c->len -= n;
}

/* A line of the protocol, without its CRLF. */
static bool take_line(struct dmn_conn *c, char *buf, size_t size)
{
    for (;;) {
        char *p = c->len > 0 ? c->buf + c->at : NULL;
        char *end = p != NULL ? memchr(p, '\n', c->len) : NULL;

        if (end != NULL) {
            size_t n = (size_t)(end - p);

            cr_assert_lt(n, size);
            memcpy(buf, p, n);
            use(c, n + 1);
            n -= n > 0 && buf[n - 1] == '\r';
            buf[n] = '\0';
            return true;
        }
        if (!fill(c))
            return false;
    }
}

const char *dmn_header(const struct dmn_conn *c, const char *name)
{
    static char value[1024];
    size_t len = strlen(name);

    for (const char *p = c->head; *p != '\0'; p = strchr(p, '\n') + 1) {
        if (strncasecmp(p, name, len) == 0 && p[len] == ':') {
            snprintf(value, sizeof(value), "%.*s", (int)strcspn(p + len + 1, "\n"), p + len + 1);
            return value + strspn(value, " ");
        }
    }
    return NULL;
}

int dmn_head(struct dmn_conn *c)
{
    char line[4096];
    const char *length;

    do {
        size_t at = 0;

        c->status = 0;
        c->head[0] = '\0';
        if (!take_line(c, line, sizeof(line)))
            return 0;
        cr_assert_eq(sscanf(line, "HTTP/1.%*d %d", &c->status), 1, "%s", line);
        while (take_line(c, line, sizeof(line)) && line[0] != '\0') {
            at += (size_t)snprintf(c->head + at, sizeof(c->head) - at, "%s\n", line);
            cr_assert_lt(at, sizeof(c->head));
        }
    } while (c->status == 100);
    length = dmn_header(c, "Content-Length");
    c->left = length != NULL ? atoll(length) : 0;
    length = dmn_header(c, "Transfer-Encoding");
    c->chunked = length != NULL && strcasecmp(length, "chunked") == 0;
    if (c->chunked)
        c->left = 0;
    c->ended = c->status == 204 || c->status == 101 || (!c->chunked && c->left == 0);
    return c->status;
}

/* Begins the next chunk; false: that was the last. */
static bool next_chunk(struct dmn_conn *c)
{
    char line[256];

    if (!take_line(c, line, sizeof(line)))
        return false;
    if (line[0] == '\0' && !take_line(c, line, sizeof(line))) /* the end of the chunk before */
        return false;
    c->left = strtoll(line, NULL, 16);
    if (c->left == 0)
        take_line(c, line, sizeof(line));
    return c->left > 0;
}

size_t dmn_body(struct dmn_conn *c, void *buf, size_t size)
{
    size_t n;

    if (c->ended)
        return 0;
    if (c->left == 0 && (!c->chunked || !next_chunk(c))) {
        c->ended = true;
        return 0;
    }
    if (c->len == 0 && !fill(c)) {
        c->ended = true;
        return 0;
    }
    n = c->len < size ? c->len : size;
    n = (int64_t)n < c->left ? n : (size_t)c->left;
    memcpy(buf, c->buf + c->at, n);
    use(c, n);
    c->left -= (int64_t)n;
    c->ended = c->left == 0 && !c->chunked;
    return n;
}

char *dmn_rest(struct dmn_conn *c)
{
    char *text = calloc(1, 1), piece[4096];
    size_t len = 0, n;

    while ((n = dmn_body(c, piece, sizeof(piece))) > 0) {
        text = realloc(text, len + n + 1);
        cr_assert_not_null(text);
        memcpy(text + len, piece, n);
        len += n;
        text[len] = '\0';
    }
    return text;
}

bool dmn_line(struct dmn_conn *c, char *buf, size_t size)
{
    size_t len = 0;
    char b;

    while (dmn_body(c, &b, 1) == 1) {
        if (b == '\n') {
            buf[len] = '\0';
            return true;
        }
        cr_assert_lt(len, size - 1);
        buf[len++] = b;
    }
    cr_expect_eq(len, 0, "half a line at the end");
    return false;
}

bool dmn_bytes(struct dmn_conn *c, void *buf, size_t size)
{
    char *p = buf;

    while (size > 0) {
        size_t n;

        if (c->len == 0 && !fill(c))
            return false;
        n = c->len < size ? c->len : size;
        memcpy(p, c->buf + c->at, n);
        use(c, n);
        p += n;
        size -= n;
    }
    return true;
}

void dmn_await_close(struct dmn_conn *c)
{
    do {
        c->len = c->at = 0;
    } while (fill(c));
}

/* ---- one request, one answer */

char *dmn_call(struct dmn *d, int want_status, const char *method, const char *path,
               const char *body)
{
    struct dmn_conn c;
    char *text;
    int status;

    dmn_dial(d, &c, "api.sock");
    dmn_ask(&c, method, path, NULL, body);
    status = dmn_head(&c);
    text = dmn_rest(&c);
    cr_assert_eq(status, want_status, "%s %s: %d %s", method, path, status, text);
    dmn_hang_up(&c);
    return text;
}

struct vf_json *dmn_json(struct dmn *d, int want_status, const char *method, const char *path,
                         const char *body)
{
    char *text = dmn_call(d, want_status, method, path, body);
    struct vf_json *j = vf_json_parse(text, strlen(text));

    cr_assert_not_null(j, "%s %s: no JSON: %s", method, path, text);
    free(text);
    return j;
}

const struct vf_json *dmn_get(const struct vf_json *j, const char *path)
{
    char key[64];

    while (j != NULL && *path != '\0') {
        size_t n = strcspn(path, ".");

        snprintf(key, sizeof(key), "%.*s", (int)n, path);
        j = isdigit((unsigned char)key[0]) ? vf_json_at(j, strtoul(key, NULL, 10))
                                           : vf_json_get(j, key);
        path += n + (path[n] == '.');
    }
    return j;
}

const char *dmn_str(const struct vf_json *j, const char *path)
{
    return vf_json_str(dmn_get(j, path), "");
}

int64_t dmn_int(const struct vf_json *j, const char *path)
{
    return vf_json_int(dmn_get(j, path), -1);
}

void dmn_null_template(struct dmn *d, const char *name, int parked)
{
    char body[256], path[128];

    snprintf(body, sizeof(body), "{\"name\":\"%s\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16}}",
             name);
    free(dmn_call(d, 201, "POST", "/v1/templates", body));
    if (parked == 0)
        return;
    snprintf(path, sizeof(path), "/v1/pools/%s", name);
    snprintf(body, sizeof(body), "{\"max\":%d}", parked > 64 ? parked : 64);
    free(dmn_call(d, 200, "PATCH", path, body));
    snprintf(path, sizeof(path), "/v1/pools/%s/warm", name);
    snprintf(body, sizeof(body), "{\"count\":%d}", parked);
    free(dmn_call(d, 202, "POST", path, body));
    snprintf(path, sizeof(path), "/v1/pools/%s", name);
    dmn_wait_for(d, path, "parked", parked);
}

static void wait_for(struct dmn *d, const char *path, const char *member, int64_t n, bool more)
{
    struct dmn_conn events;
    char line[4096];
    int64_t last, deadline = vf_deadline_after_ms(DMN_LONG_MS);

    /* Followed before the first look, so that nothing that happens after it goes unnoticed. Not every number's change
     * is an event (a VM in the making that is given up, for one): so it is looked at in between too. */
    dmn_dial(d, &events, "api.sock");
    dmn_ask(&events, "GET", "/v1/events", NULL, NULL);
    cr_assert_eq(dmn_head(&events), 200);
    for (;;) {
        struct vf_json *j = dmn_json(d, 200, "GET", path, NULL);

        last = vf_json_bool(dmn_get(j, member), false) ? 1 : dmn_int(j, member);
        vf_json_delete(j);
        if (last == n || (more && last > n))
            break;
        cr_assert_gt(vf_deadline_left_ms(deadline), 0, "%s: %s is %lld", path, member,
                     (long long)last);
        struct pollfd p = {.fd = events.fd, .events = POLLIN};
        if (events.len > 0 || poll(&p, 1, 100) > 0)
            cr_assert(dmn_line(&events, line, sizeof(line)), "%s: %s is %lld", path, member,
                      (long long)last);
    }
    dmn_hang_up(&events);
}

void dmn_wait_for(struct dmn *d, const char *path, const char *member, int64_t n)
{
    wait_for(d, path, member, n, false);
}

void dmn_wait_least(struct dmn *d, const char *path, const char *member, int64_t n)
{
    wait_for(d, path, member, n, true);
}

/* The handle, and any request on it. See vmfactory-client.h.
 *
 *     connect -> request: send -> head -> body -> the connection is kept -> …
 *
 * A kept connection may have been closed by the daemon meanwhile. The request is sent again on a new one if nothing
 * of it has arrived: the send failed at once, or the socket says that it was reset, which a unix socket does only
 * when its peer closed it with data unread. Otherwise only what may be repeated is.
 */
#include "tools/client/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/utf8.h"

#define DEFAULT_TIMEOUT_MS 60000
/* A connection idle for longer is looked at before it is used. */
#define IDLE_US 1000000

void vf_client_copy(char *dst, size_t size, const char *src)
{
    size_t n = src != NULL ? strlen(src) : 0;

    if (n >= size)
        n = vf_utf8_cut(src, size - 1);
    if (n > 0)
        memcpy(dst, src, n);
    dst[n] = '\0';
}

int vf_client_fail(struct vmfactory_error *ret, const struct vf_error *err, int r)
{
    if (ret == NULL)
        return r;
    *ret = (struct vmfactory_error){0};
    vf_client_copy(ret->code, sizeof(ret->code), vf_code_name(err->code));
    vf_client_copy(ret->message, sizeof(ret->message), err->msg);
    vf_client_copy(ret->hint, sizeof(ret->hint), err->hint);
    return r;
}

int vf_client_fail_as(struct vmfactory_error *ret, int r, const char *code, const char *hint,
                      const char *fmt, ...)
{
    va_list ap;

    if (ret == NULL)
        return r;
    *ret = (struct vmfactory_error){0};
    vf_client_copy(ret->code, sizeof(ret->code), code);
    vf_client_copy(ret->hint, sizeof(ret->hint), hint);
    va_start(ap, fmt);
    vsnprintf(ret->message, sizeof(ret->message), fmt, ap);
    va_end(ap);
    return r;
}

static int no_memory(struct vmfactory_error *err)
{
    return vf_client_fail_as(err, -ENOMEM, "no_memory", NULL, "out of memory");
}

static int ended(struct vmfactory_error *err)
{
    return vf_client_fail_as(err, -ECONNRESET, "disconnected",
                             "see what the daemon has done (vmfactory ps) before you try again",
                             "the connection ended before the answer; the request may have been "
                             "carried out");
}

static bool exists(const char *path)
{
    return path[0] != '\0' && access(path, F_OK) == 0;
}

/* Where the socket is, if the caller does not say. malloc'd. */
static char *find_socket(void)
{
    static const char system_wide[] = "/run/vmfactory/api.sock";
    const char *env = getenv("VMFACTORY_SOCKET"), *run = getenv("XDG_RUNTIME_DIR");
    char *own = NULL;

    if (env != NULL && env[0] != '\0')
        return strdup(env);
    if (exists(system_wide) || run == NULL || run[0] != '/')
        return strdup(system_wide);
    if (asprintf(&own, "%s/vmfactory/api.sock", run) < 0)
        return NULL;
    if (exists(own))
        return own;
    free(own);
    return strdup(system_wide);
}

int vf_client_open(const struct vmfactory *h, struct vf_conn *c, int64_t deadline_us,
                   struct vmfactory_error *err)
{
    struct vf_error e = {0};
    int r = vf_conn_open(c, h->path, deadline_us, &e);

    if (r == -EACCES || r == -EPERM)
        return vf_client_fail_as(
            err, -EACCES, "unreachable",
            "join the group that owns the socket (ls -l says which), then log in again",
            "no daemon reached: %s", e.msg);
    if (r < 0 && r != -ETIMEDOUT && r != -ENOMEM)
        return vf_client_fail_as(err, -ECONNREFUSED, "unreachable",
                                 "start vmfactoryd, or say where its socket is (VMFACTORY_SOCKET)",
                                 "no daemon reached: %s", e.msg);
    if (r < 0)
        return vf_client_fail(err, &e, r);
    return 0;
}

int vmfactory_connect(const char *socket_path, struct vmfactory **ret, struct vmfactory_error *err)
{
    struct vmfactory *h = calloc(1, sizeof(*h));
    int r;

    if (h == NULL)
        return no_memory(err);
    h->conn = VF_CONN_INIT;
    h->timeout_ms = DEFAULT_TIMEOUT_MS;
    h->path = socket_path != NULL ? strdup(socket_path) : find_socket();
    r = h->path != NULL ? vf_client_open(h, &h->conn, vf_deadline_after_ms(h->timeout_ms), err)
                        : no_memory(err);
    if (r < 0) {
        vmfactory_close(h);
        return r;
    }
    *ret = h;
    return 0;
}

void vmfactory_close(struct vmfactory *h)
{
    if (h == NULL)
        return;
    vf_conn_close(&h->conn);
    free(h->path);
    free(h);
}

void vmfactory_set_timeout_ms(struct vmfactory *h, int64_t timeout_ms)
{
    h->timeout_ms = timeout_ms;
}

void vmfactory_set_cancel_fd(struct vmfactory *h, int fd)
{
    h->conn.cancel_fd = fd;
}

const char *vmfactory_socket_path(const struct vmfactory *h)
{
    return h->path;
}

int64_t vf_client_deadline(const struct vmfactory *h, int64_t timeout_ms)
{
    return vf_deadline_after_ms(timeout_ms != 0 ? timeout_ms : h->timeout_ms);
}

char *vmfactory_path(const char *before, const char *segment, const char *after)
{
    static const char digits[] = "0123456789ABCDEF";
    char *encoded = malloc(3 * strlen(segment) + 1), *p = encoded, *path = NULL;

    if (encoded == NULL)
        return NULL;
    for (; *segment != '\0'; segment++) {
        unsigned char c = (unsigned char)*segment;
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     c == '-' || c == '_' || c == '.' || c == '~';

        if (plain) {
            *p++ = (char)c;
            continue;
        }
        *p++ = '%';
        *p++ = digits[c >> 4];
        *p++ = digits[c & 15];
    }
    *p = '\0';
    if (asprintf(&path, "%s%s%s", before, encoded, after) < 0)
        path = NULL;
    free(encoded);
    return path;
}

char *vf_client_compose(const char *method, const char *path, const char *more, const char *body,
                        size_t *ret_len)
{
    size_t body_len = body != NULL ? strlen(body) : 0;
    char *text, length[96] = "";
    int head;

    if (body != NULL)
        snprintf(length, sizeof(length),
                 "Content-Type: application/json\r\nContent-Length: %zu\r\n", body_len);
    else if (strcmp(method, "GET") != 0)
        snprintf(length, sizeof(length), "Content-Length: 0\r\n");
    head = asprintf(&text, "%s %s HTTP/1.1\r\nHost: vmfactory\r\n%s%s\r\n%s", method, path, length,
                    more, body != NULL ? body : "");
    if (head < 0)
        return NULL;
    *ret_len = (size_t)head;
    return text;
}

int vf_client_read_head(struct vf_conn *c, int64_t deadline_us, struct vf_http_head *ret,
                        struct vf_error *err)
{
    size_t used;
    int r;

    for (;;) {
        r = c->end > c->start
                ? vf_http_parse_head(c->buf + c->start, c->end - c->start, ret, &used, err)
                : 0;
        if (r < 0)
            return r;
        if (r > 0) {
            vf_conn_take(c, used);
            /* "100 Continue" and its like only announce the answer. */
            if (ret->status >= 200 || ret->status == 101)
                return 0;
            continue;
        }
        r = vf_conn_fill(c, deadline_us, err);
        if (r < 0)
            return r;
        if (r == 0 && c->end == c->start)
            return -ENODATA;
        if (r == 0)
            return vf_fail(err, VF_PROTOCOL, "the answer ends within its head");
    }
}

int vf_client_read_body(struct vf_conn *c, const struct vf_http_head *head, int64_t deadline_us,
                        char **ret, size_t *ret_len, struct vf_error *err)
{
    size_t len = 0, cap = 0, used, n;
    struct vf_http_body b;
    const char *payload;
    char *body = NULL;
    int r;

    if (head->length > VF_HTTP_MAX_BODY)
        return vf_fail(err, VF_PROTOCOL, "an answer of %lld bytes is too long",
                       (long long)head->length);
    r = vf_http_body_begin(&b, head, err);
    while (r >= 0) {
        r = vf_http_body_next(&b, c->buf + c->start, c->end - c->start, &used, &payload, &n, err);
        if (r == 0 && b.state == VF_HTTP_DONE)
            break;
        if (r == 0) {
            r = vf_conn_fill(c, deadline_us, err);
            if (r == 0)
                r = vf_fail(err, VF_PROTOCOL, "the answer ends within its body");
            continue;
        }
        if (r < 0)
            break;
        if ((int64_t)(len + n) > VF_HTTP_MAX_BODY) {
            r = vf_fail(err, VF_PROTOCOL, "too long an answer");
            break;
        }
        if (len + n >= cap) {
            size_t want = head->length >= 0 ? (size_t)head->length + 1 : 2 * (len + n) + 1;
            char *grown = realloc(body, want);

            if (grown == NULL) {
                r = vf_fail(err, VF_NO_MEMORY, "out of memory");
                break;
            }
            body = grown;
            cap = want;
        }
        memcpy(body + len, payload, n);
        len += n;
        vf_conn_take(c, used);
    }
    if (r == 0 && body == NULL)
        body = malloc(1);
    if (r < 0 || body == NULL) {
        free(body);
        return r < 0 ? r : vf_fail(err, VF_NO_MEMORY, "out of memory");
    }
    body[len] = '\0';
    *ret = body;
    *ret_len = len;
    return 0;
}

void vf_client_read_error(const struct vf_json *error, struct vmfactory_error *ret)
{
    *ret = (struct vmfactory_error){0};
    if (!vf_json_is_object(error))
        return;
    vf_client_copy(ret->code, sizeof(ret->code), vf_json_str(vf_json_get(error, "code"), "io"));
    vf_client_copy(ret->message, sizeof(ret->message),
                   vf_json_str(vf_json_get(error, "message"), ""));
    vf_client_copy(ret->hint, sizeof(ret->hint), vf_json_str(vf_json_get(error, "hint"), ""));
}

/* The errno that goes with one of the daemon's codes. */
static int code_errno(const char *code)
{
    for (int i = VF_OK + 1; i < VF_CODE_COUNT; i++)
        if (strcmp(code, vf_code_name((enum vf_code)i)) == 0)
            return vf_code_errno((enum vf_code)i);
    return -EIO;
}

int vf_client_refused(const struct vf_http_head *head, const char *body, size_t len,
                      struct vmfactory_error *err)
{
    struct vf_json *j = vf_json_parse(body, len);
    struct vmfactory_error e;
    int r;

    vf_client_read_error(vf_json_get(j, "error"), &e);
    vf_json_delete(j);
    if (e.code[0] == '\0') {
        vf_client_copy(e.code, sizeof(e.code), "io");
        snprintf(e.message, sizeof(e.message), "the daemon answered with status %d and no reason",
                 head->status);
    }
    e.status = head->status;
    e.retry_after_s = head->retry_after_s;
    r = code_errno(e.code);
    if (err != NULL)
        *err = e;
    return r;
}

/* One try on h's connection. -EAGAIN: the daemon has seen nothing of it, or may see it again. */
static int try_request(struct vmfactory *h, const char *text, size_t len, bool repeatable,
                       int64_t deadline_us, struct vf_http_head *ret_head, struct vf_error *e)
{
    bool kept = h->conn.fd >= 0;
    size_t sent;
    int r, answer;

    r = vf_conn_send(&h->conn, text, len, deadline_us, &sent, e);
    if ((r == -EPIPE || r == -ECONNRESET) && sent == 0)
        return kept ? -EAGAIN : -ENODATA;
    /* A daemon that refuses a long body closes while it is on its way: its answer lies there. */
    if (r < 0 && r != -EPIPE && r != -ECONNRESET)
        return r;
    answer = vf_client_read_head(&h->conn, deadline_us, ret_head, e);
    if (answer == -ECONNRESET && h->conn.start == h->conn.end)
        return -EAGAIN;
    if (answer == -ENODATA && repeatable)
        return -EAGAIN;
    return answer;
}

static int exchange(struct vmfactory *h, const char *method, const char *text, size_t len,
                    int64_t deadline_us, struct vf_http_head *ret_head, struct vmfactory_error *err)
{
    bool repeatable = strcmp(method, "GET") == 0 || strcmp(method, "DELETE") == 0;
    struct vf_error e = {0};
    bool kept;
    int r;

    if (h->conn.fd >= 0 && vf_now_us() - h->conn.used_us > IDLE_US && vf_conn_stale(&h->conn))
        vf_conn_close(&h->conn);
    for (kept = h->conn.fd >= 0;; kept = false) {
        if (h->conn.fd < 0) {
            r = vf_client_open(h, &h->conn, deadline_us, err);
            if (r < 0)
                return r;
        }
        r = try_request(h, text, len, repeatable, deadline_us, ret_head, &e);
        if (r >= 0)
            return 0;
        vf_conn_close(&h->conn);
        if (r == -EAGAIN && kept)
            continue;
        if (r == -EAGAIN || r == -ENODATA || r == -ECONNRESET)
            return ended(err);
        return vf_client_fail(err, &e, r);
    }
}

int vmfactory_request(struct vmfactory *h, const char *method, const char *path, const char *body,
                      int64_t timeout_ms, struct vmfactory_response *ret,
                      struct vmfactory_error *err)
{
    int64_t deadline_us = vf_client_deadline(h, timeout_ms), began_us;
    struct vmfactory_response answer = {0};
    struct vf_http_head head;
    struct vf_error e = {0};
    size_t len;
    char *text;
    int r;

    text = vf_client_compose(method, path, "", body, &len);
    if (text == NULL)
        return no_memory(err);
    began_us = vf_now_us();
    r = exchange(h, method, text, len, deadline_us, &head, err);
    free(text);
    if (r < 0)
        return r;
    if (head.status == 101)
        r = vf_fail(&e, VF_PROTOCOL, "the daemon changed the protocol unasked");
    else
        r = vf_client_read_body(&h->conn, &head, deadline_us, &answer.body, &answer.len, &e);
    h->conn.used_us = vf_now_us();
    answer.roundtrip_us = h->conn.used_us - began_us;
    if (r < 0 || head.close)
        vf_conn_close(&h->conn);
    if (r < 0)
        return vf_client_fail(err, &e, r);
    if (head.status >= 400) {
        r = vf_client_refused(&head, answer.body, answer.len, err);
        free(answer.body);
        return r;
    }
    answer.status = head.status;
    *ret = answer;
    return 0;
}

void vmfactory_response_free(struct vmfactory_response *r)
{
    free(r->body);
    r->body = NULL;
    r->len = 0;
}

int vmfactory_version(struct vmfactory *h, struct vmfactory_version *ret,
                      struct vmfactory_error *err)
{
    struct vmfactory_response answer;
    struct vf_json *j;
    int r;

    r = vmfactory_request(h, "GET", "/v1/version", NULL, 0, &answer, err);
    if (r < 0)
        return r;
    j = vf_json_parse(answer.body, answer.len);
    vmfactory_response_free(&answer);
    if (!vf_json_is_object(j)) {
        vf_json_delete(j);
        return vf_client_fail_as(err, -EPROTO, "protocol", NULL, "the version is no JSON object");
    }
    *ret = (struct vmfactory_version){
        .api = (int)vf_json_int(vf_json_get(j, "api"), 0),
        .pid = vf_json_int(vf_json_get(j, "pid"), 0),
        .uptime_ms = vf_json_int(vf_json_get(j, "uptime_ms"), 0),
        .admin = vf_json_bool(vf_json_get(j, "admin"), false),
    };
    vf_client_copy(ret->name, sizeof(ret->name), vf_json_str(vf_json_get(j, "name"), ""));
    vf_client_copy(ret->version, sizeof(ret->version), vf_json_str(vf_json_get(j, "version"), ""));
    vf_json_delete(j);
    return 0;
}

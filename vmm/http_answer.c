/* The head of an HTTP answer, for requests that go over a socket of ours: status line, header lines, an empty line.
 *
 * VMMs send Content-Length, or 204 without a body; an answer without either is refused, and so is a transfer coding:
 * none of them uses one.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include "vmm/http_internal.h"

static int no_http(struct vf_error *err, const char *what)
{
    return vf_fail(err, VF_PROTOCOL, "the VMM's answer %s", what);
}

/* "HTTP/1.1 200 OK" -> 200; 0 if that is none. */
static int status_of(const char *line, size_t len)
{
    if (len < 12 || strncmp(line, "HTTP/1.", 7) != 0 || !isdigit((unsigned char)line[7]) ||
        line[8] != ' ' || (len > 12 && line[12] != ' '))
        return 0;
    int status = 0;
    for (int i = 9; i < 12; i++) {
        if (!isdigit((unsigned char)line[i]))
            return 0;
        status = status * 10 + line[i] - '0';
    }
    return status < 100 ? 0 : status;
}

/* The value of a header line if its name is `name`. */
static bool is_header(const char *line, size_t len, const char *name, const char **ret_value,
                      size_t *ret_len)
{
    size_t n = strlen(name);
    if (len <= n || strncasecmp(line, name, n) != 0 || line[n] != ':')
        return false;
    const char *v = line + n + 1;
    size_t left = len - n - 1;
    while (left && (*v == ' ' || *v == '\t'))
        v++, left--;
    while (left && (v[left - 1] == ' ' || v[left - 1] == '\t'))
        left--;
    *ret_value = v;
    *ret_len = left;
    return true;
}

static int take_length(const char *v, size_t len, bool *has_length, size_t *ret,
                       struct vf_error *err)
{
    size_t n = 0;
    if (len == 0)
        return no_http(err, "has an empty Content-Length");
    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)v[i]))
            return no_http(err, "has a Content-Length that is no number");
        n = n * 10 + (size_t)(v[i] - '0');
        if (n > VF_VMM_HTTP_MAX_BODY)
            return no_http(err, "is too long");
    }
    if (*has_length && n != *ret)
        return no_http(err, "has two lengths");
    *has_length = true;
    *ret = n;
    return 0;
}

/* One whole head of len bytes, its empty line included. */
static int parse_one(const char *buf, size_t len, struct vf_vmm_http_head *ret,
                     struct vf_error *err)
{
    struct vf_vmm_http_head head = {.len = len};
    bool has_length = false;
    for (size_t pos = 0; pos < len - 2;) {
        const char *line = buf + pos;
        size_t n = (size_t)((const char *)memmem(line, len - pos, "\r\n", 2) - line);
        const char *v;
        size_t v_len;
        if (memchr(line, 0, n))
            return no_http(err, "has a NUL in its head");
        if (pos == 0 && (head.status = status_of(line, n)) == 0)
            return no_http(err, "is no HTTP");
        if (pos != 0 && !memchr(line, ':', n))
            return no_http(err, "has a header line that is none");
        if (is_header(line, n, "Transfer-Encoding", &v, &v_len))
            return no_http(err, "has a transfer coding");
        if (is_header(line, n, "Content-Length", &v, &v_len) &&
            take_length(v, v_len, &has_length, &head.body_len, err) < 0)
            return -EPROTO;
        pos += n + 2;
    }
    if (head.status == 204)
        head.body_len = 0;
    else if (head.status >= 200 && !has_length)
        return no_http(err, "doesn't say how long it is");
    *ret = head;
    return 0;
}

int vf_vmm_http_parse_head(const char *buf, size_t len, struct vf_vmm_http_head *ret,
                           struct vf_error *err)
{
    struct vf_vmm_http_head head;
    size_t start = 0;
    for (;;) {
        size_t seen = len < VF_VMM_HTTP_MAX_HEAD ? len : VF_VMM_HTTP_MAX_HEAD;
        const char *end = memmem(buf + start, seen - start, "\r\n\r\n", 4);
        if (!end) {
            if (seen == VF_VMM_HTTP_MAX_HEAD)
                return no_http(err, "has too long a head");
            /* Nothing that is no HTTP is waited for to become one. */
            size_t n = seen - start < 7 ? seen - start : 7;
            if (memcmp(buf + start, "HTTP/1.", n) != 0)
                return no_http(err, "is no HTTP");
            return 0;
        }
        int r = parse_one(buf + start, (size_t)(end + 4 - (buf + start)), &head, err);
        if (r < 0)
            return r;
        start = (size_t)(end + 4 - buf);
        if (head.status >= 200)
            break;
        if (head.status == 101 || head.body_len)
            return no_http(err, "switches protocols");
    }
    head.len = start;
    *ret = head;
    return 1;
}

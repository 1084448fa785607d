/* See http.h. head: status line, then headers up to the blank line; body: by its length, or chunk by chunk. */
#include "tools/client/http.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int broken(struct vf_error *err, const char *what)
{
    return vf_fail(err, VF_PROTOCOL, "the answer is no HTTP of vmfactoryd: %s", what);
}

/* Decimal digits only; false beyond int64 too. */
static bool number(const char *s, size_t len, int64_t *ret)
{
    int64_t v = 0;

    if (len == 0 || len > 18)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        v = v * 10 + (s[i] - '0');
    }
    *ret = v;
    return true;
}

static bool is(const char *s, size_t len, const char *word)
{
    return strlen(word) == len && strncasecmp(s, word, len) == 0;
}

/* Is word one of the comma-separated ones in value? */
static bool lists(const char *value, size_t len, const char *word)
{
    while (len > 0) {
        const char *comma = memchr(value, ',', len);
        size_t n = comma != NULL ? (size_t)(comma - value) : len, skip = 0, end = n;

        while (skip < end && (value[skip] == ' ' || value[skip] == '\t'))
            skip++;
        while (end > skip && (value[end - 1] == ' ' || value[end - 1] == '\t'))
            end--;
        if (is(value + skip, end - skip, word))
            return true;
        n += comma != NULL;
        value += n;
        len -= n;
    }
    return false;
}

static bool is_token(char c)
{
    return isalnum((unsigned char)c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

struct headers {
    struct vf_http_head *head;
    bool has_encoding;
};

static int on_connection(struct headers *h, const char *value, size_t len)
{
    h->head->close |= lists(value, len, "close");
    return 0;
}

static int on_length(struct headers *h, const char *value, size_t len)
{
    return h->head->length >= 0 || !number(value, len, &h->head->length) ? -1 : 0;
}

static int on_encoding(struct headers *h, const char *value, size_t len)
{
    if (h->has_encoding || !is(value, len, "chunked"))
        return -1;
    h->has_encoding = h->head->chunked = true;
    return 0;
}

static int on_retry(struct headers *h, const char *value, size_t len)
{
    int64_t v;

    /* A date is allowed there, too: then it is not said in seconds. */
    if (number(value, len, &v))
        h->head->retry_after_s = v < 86400 ? (int)v : 86400;
    return 0;
}

static int on_upgrade(struct headers *h, const char *value, size_t len)
{
    if (len >= sizeof(h->head->upgrade))
        return -1;
    memcpy(h->head->upgrade, value, len);
    h->head->upgrade[len] = '\0';
    return 0;
}

static const struct {
    const char *name;
    int (*take)(struct headers *h, const char *value, size_t len);
} known[] = {
    {"connection", on_connection},      {"content-length", on_length}, {"retry-after", on_retry},
    {"transfer-encoding", on_encoding}, {"upgrade", on_upgrade},
};

/* One header line without its end. */
static int header(struct headers *h, const char *line, size_t len, struct vf_error *err)
{
    size_t name = 0, begin;

    while (name < len && is_token(line[name]))
        name++;
    if (name == 0 || name == len || line[name] != ':')
        return broken(err, "a header without a name");
    begin = name + 1;
    while (begin < len && (line[begin] == ' ' || line[begin] == '\t'))
        begin++;
    while (len > begin && (line[len - 1] == ' ' || line[len - 1] == '\t'))
        len--;
    for (size_t i = begin; i < len; i++)
        if ((unsigned char)line[i] < ' ' && line[i] != '\t')
            return broken(err, "a control character in a header");
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (!is(line, name, known[i].name))
            continue;
        if (known[i].take(h, line + begin, len - begin) < 0)
            return vf_fail(err, VF_PROTOCOL, "the answer is no HTTP of vmfactoryd: its header %s",
                           known[i].name);
    }
    return 0;
}

static int status_line(struct vf_http_head *head, const char *line, size_t len,
                       struct vf_error *err)
{
    int64_t status;

    if (len < 12 || memcmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') ||
        line[8] != ' ' || !number(line + 9, 3, &status) || status < 100 || status > 599 ||
        (len > 12 && line[12] != ' '))
        return broken(err, "its status line");
    head->status = (int)status;
    head->close = line[7] == '0';
    return 0;
}

int vf_http_parse_head(const char *data, size_t len, struct vf_http_head *ret, size_t *ret_len,
                       struct vf_error *err)
{
    struct vf_http_head head = {.length = -1};
    struct headers h = {.head = &head};
    size_t window = len < VF_HTTP_MAX_HEAD ? len : VF_HTTP_MAX_HEAD, pos = 0;
    int lines = 0, r;

    /* What can't become a head is refused at its first bytes, not after 16 KiB of it. */
    if (memcmp(data, "HTTP/1.", len < 7 ? len : 7) != 0)
        return broken(err, "its status line");
    if (memmem(data, window, "\r\n\r\n", 4) == NULL) {
        if (len >= VF_HTTP_MAX_HEAD)
            return broken(err, "too long a head");
        return 0;
    }
    for (;;) {
        const char *line = data + pos, *end = memmem(line, window - pos, "\r\n", 2);
        size_t n = (size_t)(end - line);

        pos += n + 2;
        if (lines > 0 && n == 0)
            break;
        if (lines > VF_HTTP_MAX_HEADERS)
            return broken(err, "too many headers");
        r = lines == 0 ? status_line(&head, line, n, err) : header(&h, line, n, err);
        if (r < 0)
            return r;
        lines++;
    }
    if (head.chunked && head.length >= 0)
        return broken(err, "two lengths for one body");
    *ret = head;
    *ret_len = pos;
    return 1;
}

int vf_http_body_begin(struct vf_http_body *b, const struct vf_http_head *head,
                       struct vf_error *err)
{
    *b = (struct vf_http_body){.chunked = head->chunked};
    if (head->status < 200 || head->status == 204 || head->status == 304)
        b->state = VF_HTTP_DONE;
    else if (head->chunked)
        b->state = VF_HTTP_CHUNK_LINE;
    else if (head->length < 0)
        return broken(err, "a body without a length");
    else {
        b->left = head->length;
        b->state = b->left > 0 ? VF_HTTP_DATA : VF_HTTP_DONE;
    }
    return 0;
}

/* "1a;extension": the length in hex. */
static int chunk_length(const char *line, size_t len, int64_t *ret, struct vf_error *err)
{
    int64_t v = 0;
    size_t i = 0;

    for (; i < len && isxdigit((unsigned char)line[i]); i++) {
        char c = line[i];

        if (i == 8)
            return broken(err, "too long a chunk");
        v = v * 16 + (isdigit((unsigned char)c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (i == 0 || (i < len && line[i] != ';' && line[i] != ' ' && line[i] != '\t'))
        return broken(err, "a chunk's length");
    *ret = v;
    return 0;
}

/* A line of the chunked frame: 1 with its length (without its end), 0: not whole yet. */
static int frame_line(const char *data, size_t len, size_t max, size_t *ret_len,
                      struct vf_error *err)
{
    size_t window = len < max ? len : max;
    const char *end = memmem(data, window, "\r\n", 2);

    if (end == NULL)
        return window == max ? broken(err, "too long a line between chunks") : 0;
    *ret_len = (size_t)(end - data);
    return 1;
}

int vf_http_body_next(struct vf_http_body *b, const char *data, size_t len, size_t *ret_used,
                      const char **ret_payload, size_t *ret_payload_len, struct vf_error *err)
{
    size_t n = 0;
    int r;

    if (len == 0 || b->state == VF_HTTP_DONE)
        return 0;
    if (b->state == VF_HTTP_DATA) {
        n = (uint64_t)b->left < len ? (size_t)b->left : len;
        b->left -= (int64_t)n;
        if (b->left == 0)
            b->state = b->chunked ? VF_HTTP_CHUNK_END : VF_HTTP_DONE;
        *ret_used = *ret_payload_len = n;
        *ret_payload = data;
        return 1;
    }
    if (b->state == VF_HTTP_CHUNK_END && memcmp(data, "\r\n", len < 2 ? 1 : 2) != 0)
        return broken(err, "more in a chunk than it said");
    r = frame_line(data, len, VF_HTTP_MAX_CHUNK_LINE, &n, err);
    if (r <= 0)
        return r;
    switch (b->state) {
    case VF_HTTP_CHUNK_LINE:
        r = chunk_length(data, n, &b->left, err);
        if (r < 0)
            return r;
        b->state = b->left > 0 ? VF_HTTP_DATA : VF_HTTP_TRAILER;
        break;
    case VF_HTTP_CHUNK_END:
        b->state = VF_HTTP_CHUNK_LINE;
        break;
    default:
        b->trailer_bytes += n + 2;
        if (b->trailer_bytes > VF_HTTP_MAX_TRAILER)
            return broken(err, "too long a trailer");
        if (n == 0)
            b->state = VF_HTTP_DONE;
        break;
    }
    *ret_used = n + 2;
    *ret_payload_len = 0;
    *ret_payload = data;
    return 1;
}

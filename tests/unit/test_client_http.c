/* HTTP answers taken apart: whole, in pieces of every size, and broken in every way that is refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/client/frames.h"
#include "tools/client/http.h"

TestSuite(client_http, .timeout = 60);

static int parse(const char *text, struct vf_http_head *ret, size_t *ret_len)
{
    struct vf_error err = {0};

    return vf_http_parse_head(text, strlen(text), ret, ret_len, &err);
}

Test(client_http, a_head)
{
    static const char text[] =
        "HTTP/1.1 429 Too Many Requests\r\ncontent-LENGTH:  12 \r\n"
        "Retry-After: 3\r\nConnection: keep-alive, Close\r\nX: y\r\n\r\nbody";
    struct vf_http_head h;
    size_t len = 0;

    cr_assert_eq(parse(text, &h, &len), 1);
    cr_expect_eq(h.status, 429);
    cr_expect_eq(h.length, 12);
    cr_expect_eq(h.retry_after_s, 3);
    cr_expect(h.close);
    cr_expect_not(h.chunked);
    cr_expect_str_eq(text + len, "body");
    /* Cut anywhere before its end, it is not whole yet. */
    for (size_t cut = 0; cut < len; cut++) {
        struct vf_error err;

        cr_assert_eq(vf_http_parse_head(text, cut, &h, &len, &err), 0, "cut at %zu", cut);
    }
}

Test(client_http, an_upgrade)
{
    struct vf_http_head h;
    size_t len;

    cr_assert_eq(
        parse("HTTP/1.1 101 Switching Protocols\r\nUpgrade: vmfactory-exec\r\n\r\n", &h, &len), 1);
    cr_expect_eq(h.status, 101);
    cr_expect_str_eq(h.upgrade, "vmfactory-exec");
    cr_expect_eq(h.length, -1);
}

Test(client_http, heads_that_are_refused)
{
    static const char *const bad[] = {
        "garbage",
        "HTTP/2",
        "\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 -20 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200\tOK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        "HTTP/1.1 200 OK\r\nname : x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\nB: c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: a-protocol-with-a-name-that-is-longer-than-any\r\n\r\n",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct vf_http_head h = {.status = -5};
        size_t len = 77;

        cr_expect_lt(parse(bad[i], &h, &len), 0, "%s", bad[i]);
        cr_expect_eq(h.status, -5, "untouched");
        cr_expect_eq(len, 77u, "untouched");
    }
}

Test(client_http, a_head_that_is_too_long_or_has_too_many_lines)
{
    char *text = malloc(VF_HTTP_MAX_HEAD + 1);
    struct vf_http_head h;
    struct vf_error err;
    size_t len, at;

    at = (size_t)sprintf(text, "HTTP/1.1 200 OK\r\nA: ");
    memset(text + at, 'x', VF_HTTP_MAX_HEAD - at);
    cr_expect_eq(vf_http_parse_head(text, VF_HTTP_MAX_HEAD - 1, &h, &len, &err), 0);
    cr_expect_lt(vf_http_parse_head(text, VF_HTTP_MAX_HEAD, &h, &len, &err), 0);
    cr_expect_eq(err.code, VF_PROTOCOL);
    for (int i = 0; i <= VF_HTTP_MAX_HEADERS; i++)
        at = (size_t)sprintf(text + at, "A: b\r\n") + at;
    sprintf(text + at, "\r\n");
    text[17] = 'A';
    cr_expect_lt(parse(text, &h, &len), 0);
    free(text);
}

/* Decodes text as a body, given in pieces of at most piece bytes behind what was left over. 1: done. */
static int decode(const struct vf_http_head *head, const char *text, size_t text_len, size_t piece,
                  char *out, size_t *ret_out, size_t *ret_used)
{
    size_t start = 0, end = 0, used, n;
    struct vf_error err = {0};
    struct vf_http_body b;
    const char *payload;
    int r = vf_http_body_begin(&b, head, &err);

    *ret_out = 0;
    while (r >= 0) {
        r = vf_http_body_next(&b, text + start, end - start, &used, &payload, &n, &err);
        if (r > 0) {
            memcpy(out + *ret_out, payload, n);
            *ret_out += n;
            start += used;
            continue;
        }
        if (r < 0)
            break;
        if (b.state == VF_HTTP_DONE) {
            *ret_used = start;
            return 1;
        }
        if (end == text_len)
            return 0;
        end = end + piece < text_len ? end + piece : text_len;
    }
    return r;
}

Test(client_http, a_chunked_body_in_pieces_of_every_size)
{
    static const char text[] =
        "5\r\nhello\r\n1;name=value\r\n \r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nnext";
    struct vf_http_head head = {.status = 200, .chunked = true, .length = -1};
    char out[64];
    size_t n, used = 0;

    for (size_t piece = 1; piece < sizeof(text); piece++) {
        cr_assert_eq(decode(&head, text, strlen(text), piece, out, &n, &used), 1, "%zu", piece);
        cr_expect_eq(n, 16u);
        cr_expect_arr_eq(out, "hello 0123456789", 16);
        cr_expect_str_eq(text + used, "next");
    }
    for (size_t cut = 0; cut < used; cut++)
        cr_assert_eq(decode(&head, text, cut, 3, out, &n, &used), 0, "cut at %zu", cut);
}

Test(client_http, a_body_with_a_length)
{
    struct vf_http_head head = {.status = 200, .length = 5};
    char out[64];
    size_t n, used = 0;

    cr_expect_eq(decode(&head, "hello, more", 11, 2, out, &n, &used), 1);
    cr_expect_eq(n, 5u);
    cr_expect_eq(used, 5u);
    cr_expect_eq(decode(&head, "hell", 4, 2, out, &n, &used), 0);
    head.length = 0;
    cr_expect_eq(decode(&head, "x", 1, 1, out, &n, &used), 1);
    cr_expect_eq(n, 0u);
    head = (struct vf_http_head){.status = 204, .length = -1};
    cr_expect_eq(decode(&head, "", 0, 1, out, &n, &used), 1);
}

Test(client_http, bodies_that_are_refused)
{
    static const char *const bad[] = {
        "x\r\n",        "\r\n",         "-1\r\n",           "123456789\r\nx",
        "5\r\nhelloXX", "5\nhello\r\n", "0x5\r\nhello\r\n", "5 5\r\nhello+\r\n",
    };
    struct vf_http_head head = {.status = 200, .chunked = true, .length = -1}, endless = head;
    char long_line[VF_HTTP_MAX_CHUNK_LINE + 10], out[64];
    struct vf_http_body b;
    struct vf_error err;
    size_t n, used;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_lt(decode(&head, bad[i], strlen(bad[i]), 100, out, &n, &used), 0, "%s", bad[i]);
    memset(long_line, 'a', sizeof(long_line));
    memcpy(long_line, "1;", 2);
    cr_expect_lt(decode(&head, long_line, sizeof(long_line), 500, out, &n, &used), 0);
    endless.chunked = false;
    cr_expect_lt(vf_http_body_begin(&b, &endless, &err), 0, "a body without a length");
}

Test(client_http, a_trailer_that_does_not_end)
{
    struct vf_http_head head = {.status = 200, .chunked = true, .length = -1};
    char text[2 * VF_HTTP_MAX_TRAILER], out[8];
    size_t at = (size_t)sprintf(text, "0\r\n"), n, used;

    while (at + 10 < sizeof(text))
        at += (size_t)sprintf(text + at, "A: bcd\r\n");
    cr_expect_lt(decode(&head, text, at, 1000, out, &n, &used), 0);
}

/* Whatever comes, both parsers end and stay within it (ASan watches). */
Test(client_http, noise)
{
    static const char alphabet[] = "HTP/1. 0\r\n:;aA5f\x80";
    unsigned seed = 1;

    for (int round = 0; round < 20000; round++) {
        size_t len = (size_t)(rand_r(&seed) % 60), used, n;
        char *text = malloc(len + 20), *out = malloc(len + 20);
        struct vf_http_head head = {.status = 200, .chunked = true, .length = -1};
        struct vf_error err;

        memcpy(text, "HTTP/1.1 200 ", 13);
        for (size_t i = 0; i < len; i++)
            text[(round % 2 ? 13 : 0) + i] =
                alphabet[(unsigned)rand_r(&seed) % (sizeof(alphabet) - 1)];
        if (round % 2)
            vf_http_parse_head(text, 13 + len, &head, &used, &err);
        else
            decode(&head, text, len, 7, out, &n, &used);
        free(text);
        free(out);
    }
}

Test(client_http, frames)
{
    uint8_t header[VF_FRAME_HEADER];
    enum vf_frame_type type;
    struct vf_error err;
    uint32_t len;

    vf_frame_header(header, VF_FRAME_STDERR, 0x10000);
    cr_expect_arr_eq(header, "\2\0\0\0\0\1\0\0", 8);
    cr_expect_eq(vf_frame_parse(header, 7, &type, &len, &err), 0);
    cr_assert_eq(vf_frame_parse(header, 8, &type, &len, &err), 1);
    cr_expect_eq(type, VF_FRAME_STDERR);
    cr_expect_eq(len, 0x10000u);
    cr_expect_lt(vf_frame_parse("\2\0\0\0\0\1\0\1", 8, &type, &len, &err), 0, "too long");
    cr_expect_lt(vf_frame_parse("\0\0\0\0\0\0\0\1", 8, &type, &len, &err), 0, "a client's");
    cr_expect_lt(vf_frame_parse("\4\0\0\0\0\0\0\4", 8, &type, &len, &err), 0, "a client's");
    cr_expect_lt(vf_frame_parse("\1\0\1\0\0\0\0\1", 8, &type, &len, &err), 0, "reserved bytes");
}

/* The client library's HTTP: an answer, fed in pieces whose length the first byte says. The pieces make no difference to
 * what its body is. */
#include "fuzz.h"
#include "tools/client/http.h"

struct body {
    size_t len;
    uint32_t sum;
    bool done, refused;
};

/* As a caller with a buffer: sees what has arrived so far, takes what it can. */
static void read_body(const struct vf_http_head *head, const char *data, size_t size, size_t step,
                      struct body *ret)
{
    struct vf_http_body b;
    struct vf_error err;
    size_t at = 0, seen = 0;
    int r;

    *ret = (struct body){0};
    if (vf_http_body_begin(&b, head, &err) < 0) {
        ret->refused = true;
        return;
    }
    for (;;) {
        size_t used = 0, payload_len = 0;
        const char *payload = NULL;

        r = vf_http_body_next(&b, data + at, seen - at, &used, &payload, &payload_len, &err);
        FUZZ_CHECK(used <= seen - at && payload_len <= used);
        if (r > 0) {
            FUZZ_CHECK(payload_len == 0 ||
                       (payload >= data + at && payload + payload_len <= data + seen));
            for (size_t i = 0; i < payload_len; i++)
                ret->sum = ret->sum * 31 + (uint8_t)payload[i];
            ret->len += payload_len;
            at += used;
        } else if (r < 0 || seen == size || b.state == VF_HTTP_DONE) {
            break;
        } else {
            seen = size - seen < step ? size : seen + step;
        }
    }
    ret->refused = r < 0;
    ret->done = b.state == VF_HTTP_DONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    struct vf_http_head head;
    struct body whole, pieces;
    struct vf_error err;
    size_t head_len = 0;

    if (size == 0)
        return 0;
    if (vf_http_parse_head(text, size - 1, &head, &head_len, &err) <= 0)
        return 0;
    FUZZ_CHECK(head_len <= size - 1 && head.status >= 100 && head.status <= 999);
    FUZZ_CHECK(memchr(head.upgrade, '\0', sizeof(head.upgrade)) != NULL);
    read_body(&head, text + head_len, size - 1 - head_len, size, &whole);
    read_body(&head, text + head_len, size - 1 - head_len, (size_t)data[0] + 1, &pieces);
    FUZZ_CHECK(whole.done == pieces.done && whole.refused == pieces.refused);
    FUZZ_CHECK(whole.len == pieces.len && whole.sum == pieces.sum);
    return 0;
}

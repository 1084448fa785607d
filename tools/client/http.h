/* An HTTP/1.1 response, taken apart strictly: every length is bounded and nothing is guessed. Not for others.
 *
 * What comes is a daemon of ours on a unix socket, so what is unusual (folded headers, bodies that end with
 * the connection, two lengths) is refused rather than coped with.
 */
#ifndef VF_CLIENT_HTTP_H
#define VF_CLIENT_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

#define VF_HTTP_MAX_HEAD (16 * 1024)
#define VF_HTTP_MAX_HEADERS 64
#define VF_HTTP_MAX_BODY ((int64_t)64 << 20)
#define VF_HTTP_MAX_CHUNK_LINE 256
#define VF_HTTP_MAX_TRAILER 4096

struct vf_http_head {
    int status;
    bool close; /* the connection ends after this answer */
    bool chunked;
    int64_t length; /* of the body; -1: not said */
    int retry_after_s;
    char upgrade[32];
};

/* Takes the head at the start of data. 1 with *ret and its length, blank line included; 0: more is needed;
 * negative: no head of ours. */
int vf_http_parse_head(const char *data, size_t len, struct vf_http_head *ret, size_t *ret_len,
                       struct vf_error *err);

enum vf_http_body_state {
    VF_HTTP_DATA,       /* left bytes of it to come: the body's, or the chunk's */
    VF_HTTP_CHUNK_LINE, /* a chunk's length is next */
    VF_HTTP_CHUNK_END,  /* the line end after a chunk's data is */
    VF_HTTP_TRAILER,
    VF_HTTP_DONE
};
struct vf_http_body {
    enum vf_http_body_state state;
    bool chunked;
    int64_t left;
    size_t trailer_bytes;
};

/* What follows head. Refuses a body without a length, or one beyond max. */
int vf_http_body_begin(struct vf_http_body *b, const struct vf_http_head *head,
                       struct vf_error *err);
/* Takes one step over data: 1 if something was used (*ret_used bytes, of which *ret_payload_len at
 * *ret_payload are the body's; may be 0), 0 if more is needed or all is done; negative: broken. */
int vf_http_body_next(struct vf_http_body *b, const char *data, size_t len, size_t *ret_used,
                      const char **ret_payload, size_t *ret_payload_len, struct vf_error *err);

#endif

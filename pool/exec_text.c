/* See exec_text.h. */
#include "pool/exec_text.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include "base/json.h"
#include "base/utf8.h"

static bool is_text(const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = s[i] == '\0' ? 0 : vf_utf8_next(s + i, len - i, NULL);

        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

/* s has room for a NUL at s[len]. */
static int make_line(int fd, char *s, size_t len, bool text, char **ret_line, size_t *ret_len)
{
    unsigned char base64[(VF_EXEC_TEXT_PIECE + 8) / 3 * 4 + 8];
    struct vf_json_writer w = {0};
    char *line;

    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "stream", fd == 1 ? "stdout" : "stderr");
    if (text) {
        s[len] = '\0';
        vf_jw_string(&w, "data", s);
    } else {
        EVP_EncodeBlock(base64, (const unsigned char *)s, (int)len);
        vf_jw_string(&w, "base64", (const char *)base64);
    }
    vf_jw_end(&w, '}');
    line = vf_jw_finish(&w);
    if (line == NULL)
        return -ENOMEM;
    *ret_len = strlen(line) + 1;
    line[*ret_len - 1] = '\n'; /* in the NUL's place: a length goes with it */
    *ret_line = line;
    return 1;
}

static int flush_rest(struct vf_exec_text *t, int fd, char **ret_line, size_t *ret_len)
{
    size_t n = t->n_rest[fd - 1];

    if (n == 0)
        return 0;
    t->n_rest[fd - 1] = 0;
    return make_line(fd, t->rest[fd - 1], n, false, ret_line, ret_len);
}

int vf_exec_text_next(struct vf_exec_text *t, struct vf_exec_queue *q, bool ended, char **ret_line,
                      size_t *ret_len, size_t *ret_taken)
{
    char piece[VF_EXEC_TEXT_PIECE + 8];
    const uint8_t *data;
    size_t len, n, cut;
    int fd, r = 0;

    *ret_taken = 0;
    while (r == 0 && vf_exec_queue_peek(q, &fd, &data, &len)) {
        char *rest = t->rest[fd - 1];
        size_t *n_rest = &t->n_rest[fd - 1];

        if (len == 0) {
            vf_exec_queue_take(q, 0);
            r = flush_rest(t, fd, ret_line, ret_len);
            continue;
        }
        memcpy(piece, rest, *n_rest);
        n = len < VF_EXEC_TEXT_PIECE ? len : VF_EXEC_TEXT_PIECE;
        memcpy(piece + *n_rest, data, n);
        vf_exec_queue_take(q, n);
        *ret_taken += n;
        n += *n_rest;
        *n_rest = 0;
        cut = vf_utf8_cut(piece, n);
        if (!is_text(piece, cut))
            return make_line(fd, piece, n, false, ret_line, ret_len);
        *n_rest = n - cut;
        memcpy(rest, piece + cut, n - cut);
        if (cut > 0)
            r = make_line(fd, piece, cut, true, ret_line, ret_len);
    }
    for (fd = 1; r == 0 && ended && fd <= 2; fd++)
        r = flush_rest(t, fd, ret_line, ret_len);
    return r;
}

char *vf_exec_end_text(const struct vf_exec_status *status, const struct vf_error *err)
{
    struct vf_json_writer w = {0};

    vf_jw_begin(&w, NULL, '{');
    if (err != NULL) {
        vf_jw_begin(&w, "error", '{');
        vf_jw_string(&w, "code", vf_code_name(err->code));
        vf_jw_string(&w, "message", err->msg);
        vf_jw_string(&w, "hint", err->hint);
    } else {
        vf_jw_begin(&w, "exit", '{');
        if (status->signaled) {
            vf_jw_string(&w, "code", NULL);
            vf_jw_int(&w, "signal", status->code);
        } else {
            vf_jw_int(&w, "code", status->code);
            vf_jw_string(&w, "signal", NULL);
        }
        vf_jw_bool(&w, "timed_out", status->timed_out);
    }
    vf_jw_end(&w, '}');
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

/* What the library's files share; not for others. */
#ifndef VF_CLIENT_INTERNAL_H
#define VF_CLIENT_INTERNAL_H

#include "base/error.h"
#include "base/json.h"
#include "tools/client/conn.h"
#include "tools/client/http.h"
#include "tools/client/vmfactory-client.h"

struct vmfactory {
    char *path;
    struct vf_conn conn;
    int64_t timeout_ms;
};

/* err -> the public form; r: what to return. NULL ret is fine. */
int vf_client_fail(struct vmfactory_error *ret, const struct vf_error *err, int r);
/* One of the library's own codes. */
int vf_client_fail_as(struct vmfactory_error *ret, int r, const char *code, const char *hint,
                      const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* "code", "message", "hint" of an error object into *ret; code "" if error is no object. */
void vf_client_read_error(const struct vf_json *error, struct vmfactory_error *ret);

/* Connects c as h does. */
int vf_client_open(const struct vmfactory *h, struct vf_conn *c, int64_t deadline_us,
                   struct vmfactory_error *err);
/* A request for c: malloc'd, NULL without memory. more: further header lines, "" for none. */
char *vf_client_compose(const char *method, const char *path, const char *more, const char *body,
                        size_t *ret_len);
/* Reads an answer's head; -ENODATA (err untouched) when the connection ended before its first byte. */
int vf_client_read_head(struct vf_conn *c, int64_t deadline_us, struct vf_http_head *ret,
                        struct vf_error *err);
/* Reads the whole body behind it: malloc'd, NUL-terminated. */
int vf_client_read_body(struct vf_conn *c, const struct vf_http_head *head, int64_t deadline_us,
                        char **ret, size_t *ret_len, struct vf_error *err);
/* What an answer from status 400 on says. */
int vf_client_refused(const struct vf_http_head *head, const char *body, size_t len,
                      struct vmfactory_error *err);
int64_t vf_client_deadline(const struct vmfactory *h, int64_t timeout_ms);
/* A POST on a connection of its own, c, that speaks protocol once it returns 0. c has been initialised, and is the
 * caller's to close, also on failure. */
int vf_client_upgrade(const struct vmfactory *h, struct vf_conn *c, const char *path,
                      const char *protocol, const char *body, int64_t deadline_us,
                      struct vmfactory_error *err);
/* Hands descriptors of a tap over: c is that connection, to be kept until they are used; likewise. */
int vf_client_bring_taps(const struct vmfactory *h, struct vf_conn *c, const int *fds, size_t n,
                         int64_t deadline_us, char ret_token[64], struct vmfactory_error *err);
/* Parses a pool; takes body over, also on failure. */
int vf_client_parse_pool(char *body, size_t len, struct vmfactory_pool *ret,
                         struct vmfactory_error *err);
/* Copies a string, cut at a character's end. NULL counts as "". */
void vf_client_copy(char *dst, size_t size, const char *src);

#endif

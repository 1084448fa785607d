/* Handing a tap to the daemon: upgrade -> one byte with the descriptors -> {"taps":"TOKEN"}, or what is wrong with them. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include "tools/client/internal.h"

static int send_descriptors(struct vf_conn *c, const int *fds, size_t n)
{
    union {
        char buf[CMSG_SPACE(VMFACTORY_MAX_TAPS * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    char byte = 'T';
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
    ssize_t sent;

    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(h), fds, n * sizeof(int));
    do {
        sent = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent == 1 ? 0 : -errno;
}

/* The line's length without its newline; 0: not all of it is there. */
static size_t line_length(const struct vf_conn *c)
{
    const char *at = c->buf + c->start, *end = memchr(at, '\n', c->end - c->start);

    return end != NULL ? (size_t)(end - at) : 0;
}

static int read_token(struct vf_conn *c, int64_t deadline_us, char ret_token[64],
                      struct vmfactory_error *err)
{
    struct vf_error e = {0};
    struct vf_json *j;
    const char *token;
    size_t len;
    int r;

    while ((len = line_length(c)) == 0) {
        r = vf_conn_fill(c, deadline_us, &e);
        if (r == 0 || r == -ECONNRESET || r == -ENOBUFS)
            return vf_client_fail_as(err, -EPROTO, "protocol", NULL,
                                     "the connection ended before the taps were taken");
        if (r < 0)
            return vf_client_fail(err, &e, r);
    }
    j = vf_json_parse(c->buf + c->start, len);
    token = vf_json_str(vf_json_get(j, "taps"), "");
    if (token[0] != '\0' && strlen(token) < 64) {
        vf_client_copy(ret_token, 64, token);
        r = 0;
    } else if (vf_json_is_object(vf_json_get(j, "error"))) {
        r = vf_client_refused(&(struct vf_http_head){.status = 101}, c->buf + c->start, len, err);
    } else {
        r = vf_client_fail_as(err, -EPROTO, "protocol", NULL, "the daemon answered no token");
    }
    vf_json_delete(j);
    return r;
}

int vf_client_bring_taps(const struct vmfactory *h, struct vf_conn *c, const int *fds, size_t n,
                         int64_t deadline_us, char ret_token[64], struct vmfactory_error *err)
{
    struct vf_error e = {0};
    int r;

    if (n > VMFACTORY_MAX_TAPS)
        return vf_client_fail_as(err, -EINVAL, "invalid_argument", NULL,
                                 "tap_fds: at most %d of them", VMFACTORY_MAX_TAPS);
    r = vf_client_upgrade(h, c, "/v1/taps", "vmfactory-taps", NULL, deadline_us, err);
    if (r < 0)
        return r;
    r = send_descriptors(c, fds, n);
    if (r < 0 && r != -EPIPE && r != -ECONNRESET) {
        vf_fail_errno(&e, r, "send the taps' descriptors");
        return vf_client_fail(err, &e, r);
    }
    return read_token(c, deadline_us, ret_token, err);
}

/* See taps_support.h. */
#include "tests/e2e/taps_support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

void taps_dial(struct dmn *d, struct dmn_conn *c)
{
    dmn_dial(d, c, "api.sock");
    dmn_ask(c, "POST", "/v1/taps", TAPS_UPGRADE, NULL);
    cr_assert_eq(dmn_head(c), 101, "%d", c->status);
    cr_expect_str_eq(dmn_header(c, "Upgrade"), "vmfactory-taps");
}

void taps_send(struct dmn_conn *c, const char *data, size_t len, const int *fds, int n)
{
    union {
        char buf[CMSG_SPACE(64 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {(void *)data, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *h;

    if (n > 0) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
        h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
        memcpy(CMSG_DATA(h), fds, (size_t)n * sizeof(int));
    }
    cr_assert_eq(sendmsg(c->fd, &msg, MSG_NOSIGNAL), (ssize_t)len, "%s", strerror(errno));
}

const char *taps_line(struct dmn_conn *c)
{
    static char text[2000];
    size_t n = 0;

    while (n < sizeof(text) - 1 && dmn_bytes(c, text + n, 1) && text[n] != '\n')
        n++;
    text[n] = '\0';
    return text;
}

const char *taps_bring(struct dmn *d, struct dmn_conn *c, const int *fds, int n)
{
    static char token[33];
    const char *line;

    taps_dial(d, c);
    taps_send(c, "T", 1, fds, n);
    line = taps_line(c);
    cr_assert_eq(sscanf(line, "{\"taps\":\"%32[0-9a-f]\"}", token), 1, "%s", line);
    cr_assert_eq(strlen(token), 32);
    return token;
}

/* "ADDRESS:PORT" -> sockaddr -> a listening socket. See stats_listen.h. */
#include "pool/stats_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "base/fd.h"

#define BACKLOG 128

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static bool parse_port(const char *s, uint16_t *ret)
{
    unsigned port = 0;

    if (*s == '\0')
        return false;
    for (; *s != '\0'; s++) {
        if (*s < '0' || *s > '9')
            return false;
        port = port * 10 + (unsigned)(*s - '0');
        if (port > UINT16_MAX)
            return false;
    }
    *ret = (uint16_t)port;
    return true;
}

static bool parse(const char *where, union address *ret, socklen_t *ret_len)
{
    char host[INET6_ADDRSTRLEN];
    const char *colon = strrchr(where, ':');
    bool v6 = where[0] == '[';
    uint16_t port;
    size_t len;

    if (colon == NULL || !parse_port(colon + 1, &port))
        return false;
    len = (size_t)(colon - where);
    if (v6) { /* without its brackets */
        if (len < 2 || where[len - 1] != ']')
            return false;
        where++;
        len -= 2;
    }
    if (len >= sizeof(host))
        return false;
    memcpy(host, where, len);
    host[len] = '\0';
    memset(ret, 0, sizeof(*ret));
    if (v6) {
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = htons(port);
        *ret_len = sizeof(ret->v6);
        return inet_pton(AF_INET6, host, &ret->v6.sin6_addr) == 1;
    }
    ret->v4.sin_family = AF_INET;
    ret->v4.sin_port = htons(port);
    *ret_len = sizeof(ret->v4);
    return inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1;
}

int vf_stats_listen_tcp(const char *where, int *ret_fd, uint16_t *ret_port, struct vf_error *err)
{
    union address a;
    socklen_t len = 0;
    int VF_CLEANUP_FD fd = -1;
    const int on = 1;

    if (!parse(where, &a, &len)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "stats_listen: not ADDRESS:PORT: %s", where);
        return vf_hint(err, "for example 127.0.0.1:9464 or [::1]:9464");
    }
    fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return vf_fail_errno(err, errno, "stats_listen: %s", where);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a.any.sa_family == AF_INET6) /* [::] is not all of IPv4 too */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    if (bind(fd, &a.any, len) < 0 || listen(fd, BACKLOG) < 0 || getsockname(fd, &a.any, &len) < 0)
        return vf_fail_errno(err, errno, "stats_listen: %s", where);
    *ret_port = ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

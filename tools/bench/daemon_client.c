/* One request after the other on a blocking connection: send, read until the answer is whole. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/fd.h"
#include "tools/bench/daemon.h"

#define MAX_REQUEST 8192
#define FIRST_BUFFER 16384

int client_connect(const char *path, int *ret_fd, struct vf_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    VF_CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof(addr.sun_path))
        return vf_fail_errno(err, ENAMETOOLONG, "%s", path);
    strcpy(addr.sun_path, path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return vf_fail_errno(err, errno, "%s", path);
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

int client_compose(char *buf, size_t size, const char *method, const char *target, const char *body)
{
    int n = snprintf(buf, size, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
                     method, target, body ? strlen(body) : 0, body ? body : "");
    if (!body) /* where a body is not allowed, its length is not either */
        n = snprintf(buf, size, "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, target);
    return n > 0 && (size_t)n < size ? n : -1;
}

ssize_t client_answer_length(const char *text, size_t len, int *ret_status, size_t *ret_body)
{
    const char *head_end = strstr(text, "\r\n\r\n"), *line;
    long long length = 0;
    if (!head_end)
        return len > 16384 ? -1 : 0;
    if (sscanf(text, "HTTP/1.1 %d ", ret_status) != 1)
        return -1;
    for (line = strstr(text, "\r\n"); line < head_end; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, "content-length:", 15) == 0)
            length = atoll(line + 17);
    *ret_body = (size_t)(head_end + 4 - text);
    return *ret_body + (size_t)length <= len ? (ssize_t)(*ret_body + (size_t)length) : 0;
}

static int send_all(int fd, const char *text, size_t len, struct vf_error *err)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = send(fd, text + sent, len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vf_fail_errno(err, errno, "send");
        sent += (size_t)n;
    }
    return 0;
}

static int read_answer(struct client *c, struct vf_error *err)
{
    for (c->len = 0;;) {
        size_t body;
        if (c->cap - c->len < 2) {
            char *bigger = realloc(c->buf, c->cap ? c->cap * 2 : FIRST_BUFFER);
            if (!bigger)
                return vf_fail(err, VF_NO_MEMORY, "answer");
            c->buf = bigger;
            c->cap = c->cap ? c->cap * 2 : FIRST_BUFFER;
        }
        ssize_t n = recv(c->fd, c->buf + c->len, c->cap - c->len - 1, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? vf_fail_errno(err, errno, "receive")
                         : vf_fail(err, VF_PROTOCOL, "the daemon closed the connection");
        c->len += (size_t)n;
        c->buf[c->len] = 0;
        n = client_answer_length(c->buf, c->len, &c->status, &body);
        if (n < 0 || (size_t)n > c->len)
            return vf_fail(err, VF_PROTOCOL, "what answers is no vmfactoryd");
        if (n > 0) {
            c->body = c->buf + body;
            return 0;
        }
    }
}

int client_ask(struct client *c, const char *method, const char *target, const char *body,
               struct vf_error *err)
{
    char request[MAX_REQUEST];
    int n = client_compose(request, sizeof(request), method, target, body), r = 0;
    if (n < 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "the request is too long");
    if (c->fd < 0)
        r = client_connect(c->path, &c->fd, err);
    if (r == 0)
        r = send_all(c->fd, request, (size_t)n, err);
    if (r == 0)
        r = read_answer(c, err);
    if (r < 0) {
        client_close(c);
        return vf_wrap(err, "%s %s", method, target);
    }
    return 0;
}

void client_close(struct client *c)
{
    vf_close_fd(&c->fd);
}

void client_free(struct client *c)
{
    client_close(c);
    free(c->buf);
    *c = (struct client){.fd = -1};
}

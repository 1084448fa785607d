/* Send, then read until the answer is whole: head, and as many bytes as its Content-Length says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "tools/floor/floor.h"

static struct sockaddr_un address;
static socklen_t address_len;
static int kept_fd = -1;

void http_to(const struct sockaddr_un *addr, size_t addr_len, int kept)
{
    memcpy(&address, addr, addr_len);
    address_len = (socklen_t)addr_len;
    kept_fd = kept;
}

static int connect_one(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, address_len) < 0)
        die("%s: %s", opt.vmm, strerror(errno));
    return fd;
}

/* Whether what is there is a whole answer. */
static bool is_whole(const char *answer, size_t len)
{
    const char *end = strstr(answer, "\r\n\r\n"),
               *length = strcasestr(answer, "\r\ncontent-length:");
    if (!end)
        return false;
    size_t body = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    return len >= (size_t)(end + 4 - answer) + body;
}

static char buf[65536];

bool http_try(const char *method, const char *path, const char *body)
{
    int fd = kept_fd >= 0 ? kept_fd : connect_one();
    size_t len = 0;
    if (body)
        text(buf, sizeof(buf),
             "%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             method, path, strlen(body), body);
    else
        text(buf, sizeof(buf), "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, path);
    write_all(fd, buf, strlen(buf));
    do {
        ssize_t n = read(fd, buf + len, sizeof(buf) - 1 - len);
        if (n <= 0)
            die("%s %s: no whole answer", method, path);
        len += (size_t)n;
        buf[len] = 0;
    } while (!is_whole(buf, len));
    if (kept_fd < 0)
        close(fd);
    return strncmp(buf, "HTTP/1.1 2", 10) == 0;
}

void http(const char *method, const char *path, const char *body)
{
    if (!http_try(method, path, body))
        die("%s %s: %s", method, path, buf);
}

#include "tools/agent/agent.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

bool as_init;

void say(const char *fmt, ...)
{
    char line[512] = "<4>vmfactory-agent: "; /* a kernel log line of level warning */
    size_t skip = as_init ? 0 : 3, len = strlen(line);
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
    va_end(ap);
    if (n > 0)
        len += (size_t)n < sizeof(line) - len - 1 ? (size_t)n : sizeof(line) - len - 2;
    line[len++] = '\n';
    int fd = as_init ? open("/dev/kmsg", O_WRONLY | O_CLOEXEC) : STDERR_FILENO;
    if (fd < 0)
        return;
    if (write(fd, line + skip, len - skip) < 0) {
        /* nowhere left to say so */
    }
    if (as_init)
        close(fd);
}

int read_text(const char *path, char *ret, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, ret, size - 1);
    int err = errno;
    close(fd);
    if (n < 0)
        return -err;
    if (n > 0 && ret[n - 1] == '\n')
        n--;
    ret[n] = 0;
    return (int)n;
}

static int write_file(const char *path, const char *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, len);
    int err = n == (ssize_t)len ? 0 : n < 0 ? -errno : -EIO;
    /* Not O_TRUNC: a file of the same length keeps its page, which is one less to copy. */
    if (err == 0 && lseek(fd, 0, SEEK_END) != n && ftruncate(fd, n) != 0)
        err = -errno;
    close(fd);
    return err;
}

int write_etc(const char *path, const char *run_path, const char *text, size_t len)
{
    int err = write_file(path, text, len);

    if (err != -EROFS)
        return err;
    err = write_file(run_path, text, len);
    if (err == 0 && mount(run_path, path, NULL, MS_BIND, NULL) != 0)
        err = -errno;
    return err;
}

bool cmdline_value(const char *name, char *ret, size_t size)
{
    char line[4096], *save = NULL;
    size_t len = strlen(name);

    if (read_text("/proc/cmdline", line, sizeof(line)) < 0)
        return false;
    for (char *w = strtok_r(line, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        if (strncmp(w, name, len) != 0 || w[len] != '=' || strlen(w + len + 1) >= size)
            continue;
        strcpy(ret, w + len + 1);
        return true;
    }
    return false;
}

int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

bool wait_for_device(bool (*ready)(void *arg), void *arg, int timeout_ms)
{
    struct sockaddr_nl addr = {.nl_family = AF_NETLINK, .nl_groups = 1};
    int64_t end = timeout_ms < 0 ? INT64_MAX : now_ns() + (int64_t)timeout_ms * 1000000;
    char drop[4096];
    bool found = ready(arg);

    if (found)
        return true;
    /* Listen first, then look again: nothing that appears in between is missed. */
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
        close(fd);
        fd = -1;
    }
    while (!(found = ready(arg))) {
        int64_t left_ms = (end - now_ns()) / 1000000;
        if (left_ms <= 0)
            break;
        /* The kernel announces devices; looking once a second is for containers that don't hear. */
        struct pollfd p = {.fd = fd, .events = POLLIN};
        poll(&p, 1, left_ms < 1000 ? (int)left_ms : 1000);
        while (fd >= 0 && recv(fd, drop, sizeof(drop), 0) > 0)
            ;
    }
    if (fd >= 0)
        close(fd);
    return found;
}

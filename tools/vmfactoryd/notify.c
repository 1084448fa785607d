/* Tells systemd how the service is. See notify.h. */
#include "notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/log.h"

static struct {
    int fd; /* -1: nobody listens */
    struct sockaddr_un address;
    socklen_t address_len;
    uint64_t watchdog_us; /* 0: none */
} to = {.fd = -1};

static uint64_t number(const char *text)
{
    char *end = NULL;
    unsigned long long v;

    if (text == NULL || text[0] < '0' || text[0] > '9')
        return 0;
    errno = 0;
    v = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' ? v : 0;
}

static int set_address(const char *path, struct vf_error *err)
{
    size_t len = strlen(path);

    if (path[0] != '/' && path[0] != '@')
        return vf_fail(err, VF_UNSUPPORTED, "NOTIFY_SOCKET=%.100s: only unix sockets are known",
                       path);
    if (len < 2 || len >= sizeof(to.address.sun_path))
        return vf_fail(err, VF_INVALID_ARGUMENT, "NOTIFY_SOCKET=%.200s: is no socket's name", path);
    to.address.sun_family = AF_UNIX;
    memcpy(to.address.sun_path, path, len + 1);
    to.address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    if (path[0] == '@') { /* the abstract namespace: a NUL in front, none at the end */
        to.address.sun_path[0] = '\0';
        to.address_len--;
    }
    return 0;
}

int notify_open(struct vf_error *err)
{
    const char *path = getenv("NOTIFY_SOCKET"), *pid = getenv("WATCHDOG_PID");
    int r = 0;

    if (pid == NULL || number(pid) == (uint64_t)getpid())
        to.watchdog_us = number(getenv("WATCHDOG_USEC"));
    if (path != NULL)
        r = set_address(path, err);
    if (path != NULL && r == 0) {
        to.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (to.fd < 0)
            r = vf_fail_errno(err, errno, "NOTIFY_SOCKET: socket");
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return r;
}

void notify_close(void)
{
    vf_close_fd(&to.fd);
}

void notify(const char *fmt, ...)
{
    char text[512];
    struct vf_error err;
    va_list ap;
    ssize_t sent;
    int n;

    if (to.fd < 0)
        return;
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n <= 0)
        return;
    do
        sent = sendto(to.fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to.address,
                      to.address_len);
    while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        vf_fail_errno(&err, errno, "NOTIFY_SOCKET: send");
        vf_log_error(VF_LOG_WARN, NULL, &err, "could not tell the service manager %.40s", text);
    }
}

void notify_reloading(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    notify("RELOADING=1\nMONOTONIC_USEC=%" PRId64,
           (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
}

static void on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    notify("WATCHDOG=1");
}

int notify_watchdog(uv_loop_t *loop, uv_timer_t *timer)
{
    uint64_t period_ms = to.watchdog_us / 2000;

    uv_timer_init(loop, timer);
    if (to.fd < 0 || to.watchdog_us == 0)
        return 0;
    if (period_ms == 0)
        period_ms = 1;
    uv_timer_start(timer, on_watchdog, 0, period_ms);
    return 1;
}

/* See fake_daemon.h. */
#include "tests/unit/fake_daemon.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MS 20000

void fake_expect(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "the fake daemon: %s\n", what);
    abort();
}

static void *run(void *arg)
{
    struct fake *f = arg;

    f->script(f);
    return NULL;
}

void fake_start(struct fake *f, void (*script)(struct fake *f))
{
    struct vmfactory_error refusal;
    struct vf_error err;
    char path[300];

    *f = (struct fake){.script = script};
    scratch_open(&f->dir);
    cr_assert_eq(vf_unix_listen(f->dir.fd, "api.sock", 16, &f->listen_fd, &err), 0, "%s", err.msg);
    cr_assert_eq(pthread_create(&f->thread, NULL, run, f), 0);
    snprintf(path, sizeof(path), "%s/api.sock", f->dir.path);
    cr_assert_eq(vmfactory_connect(path, &f->h, &refusal), 0, "%s", refusal.message);
}

void fake_stop(struct fake *f)
{
    vmfactory_close(f->h);
    cr_assert_eq(pthread_join(f->thread, NULL), 0);
    close(f->listen_fd);
    scratch_close(&f->dir);
}

static void await(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};

    fake_expect(poll(&p, 1, WAIT_MS) == 1, "nothing came");
}

int fake_accept(struct fake *f)
{
    int fd;

    await(f->listen_fd, POLLIN);
    fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    fake_expect(fd >= 0, "accept");
    return fd;
}

bool fake_read_request(struct fake *f, int fd)
{
    size_t len = 0, want = 0;
    char *end;

    memset(f->request, 0, sizeof(f->request));
    while (want == 0 || len < want) {
        ssize_t n;

        await(fd, POLLIN);
        n = recv(fd, f->request + len, sizeof(f->request) - 1 - len, 0);
        if (n <= 0)
            return false;
        len += (size_t)n;
        end = strstr(f->request, "\r\n\r\n");
        if (end != NULL) {
            const char *length = strstr(f->request, "Content-Length: ");

            want = (size_t)(end + 4 - f->request);
            if (length != NULL)
                want += strtoul(length + 16, NULL, 10);
        }
    }
    f->requests++;
    return true;
}

void fake_expect_line(const struct fake *f, const char *line)
{
    size_t len = strlen(line);

    fake_expect(strncmp(f->request, line, len) == 0 &&
                    strncmp(f->request + len, " HTTP/1.1\r\n", 11) == 0,
                f->request);
}

void fake_expect_body(const struct fake *f, const char *body)
{
    const char *at = strstr(f->request, "\r\n\r\n");

    fake_expect(at != NULL && strcmp(at + 4, body) == 0, f->request);
}

void fake_send(int fd, const void *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* the peer has left; what it makes of it is its test's affair */
        data = (const char *)data + n;
        len -= (size_t)n;
    }
}

void fake_text(int fd, const char *text)
{
    fake_send(fd, text, strlen(text));
}

void fake_answer(int fd, const char *status, const char *json)
{
    char head[200];

    snprintf(head, sizeof(head),
             "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", status,
             strlen(json));
    fake_text(fd, head);
    fake_text(fd, json);
}

void fake_serve(struct fake *f, int fd, const char *status, const char *json)
{
    fake_expect(fake_read_request(f, fd), "a request");
    fake_answer(fd, status, json);
}

void fake_await_close(int fd)
{
    char buf[4096];
    ssize_t n;

    do {
        await(fd, POLLIN);
        n = recv(fd, buf, sizeof(buf), 0);
    } while (n > 0);
    close(fd);
}

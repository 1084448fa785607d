/* Connections that stay in use: answers in pieces, upgraded connections, and the server's end with all of it open. */
#include "tests/unit/http_life_support.h"

#include <unistd.h>

static struct http_answer a;

static void start(void)
{
    life_start(64, 20000);
}

TestSuite(http_streams, .init = start, .fini = life_stop, .timeout = 60);

/* ---- streams */

Test(http_streams, a_stream_comes_as_it_is_made)
{
    VF_CLEANUP_FD int fd = life_connect();
    char piece[10] = "";

    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&life.deferred);
    life_allow(3);
    while (strchr(piece, 's') == NULL) { /* at once, not when it ends */
        memmove(piece, piece + 1, sizeof(piece) - 2);
        cr_assert_eq(recv(fd, piece + sizeof(piece) - 2, 1, 0), 1);
    }
    life_allow(30000);
    life_allow(-1);
    http_wait(&life.closed_sem);
    cr_expect_eq(life.closed, 1);
    cr_expect_eq(life.given, 30003);
}

Test(http_streams, a_stream_is_whole_in_every_version)
{
    VF_CLEANUP_FD int fd = life_connect(), old = life_connect();

    atomic_store(&life.allowed, 40000);
    life.ended = true;
    http_ask(fd, &a, "GET", "/stream", NULL, NULL);
    cr_expect_eq(a.body_len, 40000);
    cr_expect_not_null(strstr(a.head, "Content-Type: application/x-ndjson\r\n"), "%s", a.head);
    http_wait(&life.closed_sem);
    http_ask(fd, &a, "HEAD", "/stream", NULL, NULL);
    cr_expect_eq(a.status, 200);
    http_wait(&life.closed_sem);
    http_ask(fd, &a, "GET", "/hello", NULL, NULL);
    cr_expect_str_eq(a.body, "{\"hello\":true}");
    atomic_store(&life.given, 0);
    http_send(old, "GET /stream HTTP/1.0\r\n\r\n");
    cr_expect(http_read(old, &a, false));
    cr_expect_eq(a.body_len, 40000);
    http_wait(&life.closed_sem);
    cr_expect_eq(life.closed, 3);
}

Test(http_streams, a_reader_that_is_slow_stalls_its_stream)
{
    VF_CLEANUP_FD int fd = life_connect();
    long long before;
    char buf[65536];

    atomic_store(&life.allowed, -1);
    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&life.deferred);
    life_settle();
    before = atomic_load(&life.given);
    cr_expect_gt(before, 0);
    cr_expect_lt(before, 2 << 20, "%lld bytes for nobody", before);
    life_settle();
    cr_expect_eq(atomic_load(&life.given), before, "it goes on though nobody reads");
    for (long long n = 0; n < 4 << 20;) {
        ssize_t r = recv(fd, buf, sizeof(buf), 0);

        cr_assert_gt(r, 0);
        n += r;
    }
    cr_expect_gt(atomic_load(&life.given), before);
    cr_expect_eq(life.closed, 0);
    close(vf_steal_fd(&fd)); /* while it is stalled */
    http_wait(&life.closed_sem);
    cr_expect_eq(life.closed, 1);
}

Test(http_streams, a_hang_up_ends_a_stream_that_has_nothing_to_say)
{
    int fd = life_connect();

    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&life.deferred);
    life_allow(10);
    http_wait_readable(fd);
    life_settle();
    cr_expect_eq(life.closed, 0);
    close(fd);
    http_wait(&life.closed_sem);
    life_settle();
    cr_expect_eq(life.closed, 1);
}

Test(http_streams, a_stream_goes_on_for_one_who_only_stops_sending)
{
    VF_CLEANUP_FD int fd = life_connect();

    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(fd, SHUT_WR);
    http_wait(&life.deferred);
    for (int i = 0; i < 3; i++) {
        life_settle();
        life_allow(10);
    }
    life_allow(-1);
    cr_expect(http_read(fd, &a, false));
    cr_expect_eq(a.body_len, 30);
}

/* ---- upgrades */

#define UPGRADE                                                                                 \
    "POST /upgrade HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n" \
    "Content-Length: 2\r\n\r\n{}"

static void expect_echo(int fd, const char *text)
{
    char buf[100] = "";

    cr_assert_eq(recv(fd, buf, strlen(text), MSG_WAITALL), (ssize_t)strlen(text));
    cr_expect_str_eq(buf, text);
}

Test(http_streams, an_upgraded_connection_is_the_handlers)
{
    VF_CLEANUP_FD int fd = life_connect();

    http_send(fd, UPGRADE "early");
    cr_expect(http_read(fd, &a, false));
    cr_expect_eq(a.status, 101);
    cr_expect_not_null(strstr(a.head, "Upgrade: echo\r\n"), "%s", a.head);
    expect_echo(fd, "early");
    http_send(fd, "later");
    expect_echo(fd, "later");
    shutdown(fd, SHUT_WR);
    http_expect_closed(fd);
    http_wait(&life.closed_sem);
    cr_expect_eq(life.failed, 0);
}

Test(http_streams, without_the_headers_nothing_is_upgraded)
{
    VF_CLEANUP_FD int fd = life_connect();

    http_ask(fd, &a, "POST", "/upgrade", "Upgrade: echo\r\n", "{}");
    cr_expect_str_eq(a.body, "{\"plain\":true}");
    http_ask(fd, &a, "POST", "/upgrade", "Connection: upgrade\r\nUpgrade: other\r\n", "{}");
    cr_expect_str_eq(a.body, "{\"plain\":true}");
    http_send(fd, "POST /upgrade HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"plain\":true}");
}

/* ---- the end */

Test(http_streams, close_with_everything_open)
{
    int fds[8];

    for (int i = 0; i < 8; i++)
        fds[i] = life_connect();
    life_ask_later(fds[0]);
    life_ask_later(fds[1]);
    life_answer(1); /* lies in the socket */
    http_send(fds[2], "GET /stream HTTP/1.1\r\n\r\n");
    http_wait(&life.deferred);
    http_send(fds[3], UPGRADE);
    http_send(fds[4], UPGRADE);
    http_wait(&life.upgraded_sem);
    http_wait(&life.upgraded_sem);
    http_send(fds[5], "GET /hello HT");
    http_send(fds[6], "POST /hello HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc");
    life_settle();
    http_close(&life.server);
    cr_expect_eq(life.gone, 1);
    cr_expect_eq(life.closed, 3, "%d", life.closed); /* the stream and the upgraded */
    cr_expect_eq(life.failed, 0);
    cr_expect(http_read(fds[1], &a, false));
    cr_expect_str_eq(a.body, "{\"n\":1}");
    for (int i = 0; i < 8; i++) {
        http_expect_closed(fds[i]);
        close(fds[i]);
    }
}

static void read_for_ever(void *arg)
{
    char buf[65536];

    while (recv(*(int *)arg, buf, sizeof(buf), 0) > 0)
        continue;
}

Test(http_streams, close_ends_a_stream_that_is_being_read)
{
    VF_CLEANUP_FD int fd = life_connect();
    uv_thread_t reader;

    atomic_store(&life.allowed, -1);
    http_send(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    http_wait(&life.deferred);
    cr_assert_eq(uv_thread_create(&reader, read_for_ever, &fd), 0);
    life_settle();
    http_close(&life.server);
    uv_thread_join(&reader);
    cr_expect_eq(life.closed, 1);
}

/* Limits: who is slow is cut off in time, and who comes when there is no room waits for it. */
#include "tests/unit/http_life_support.h"

#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

static struct http_answer a;

static void start(void)
{
    life_start(64, 20000);
}

static void start_hasty(void)
{
    life_start(64, 300);
}

static void start_small(void)
{
    life_start(3, 20000);
}

TestSuite(http_limits, .init = start, .fini = life_stop, .timeout = 60);
TestSuite(http_hasty, .init = start_hasty, .fini = life_stop, .timeout = 60);
TestSuite(http_small, .init = start_small, .fini = life_stop, .timeout = 60);

/* ---- time limits */

/* Sends a byte and again one until the server has had enough. */
static void drip(const char *text)
{
    VF_CLEANUP_FD int fd = life_connect();
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};

    while (poll(&p, 1, 20) == 0) {
        if (*text != '\0')
            send(fd, text++, 1, MSG_NOSIGNAL);
        else
            send(fd, "x", 1, MSG_NOSIGNAL);
    }
    http_expect_closed(fd);
}

Test(http_hasty, a_request_that_drips_is_cut_off)
{
    VF_CLEANUP_FD int idle = life_connect(), answered = life_connect();
    VF_CLEANUP_FD int deferred = life_connect(), streaming = life_connect();

    life_ask_later(deferred);
    http_send(streaming, "GET /stream HTTP/1.1\r\n\r\n");
    http_wait(&life.deferred);
    http_ask(answered, &a, "GET", "/hello", NULL, NULL);
    drip("");
    drip("GET /hello HTTP/1.1\r\nA: ");
    drip("POST /hello HTTP/1.1\r\nContent-Length: 900\r\n\r\n");
    http_expect_closed(idle);
    http_expect_closed(answered);
    life_answer(0); /* these are not waiting for their peers */
    cr_expect(http_read(deferred, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
    life_allow(5);
    life_allow(-1);
    cr_expect(http_read(streaming, &a, false));
    cr_expect_str_eq(a.body, "sssss");
}

Test(http_hasty, an_answer_that_nobody_reads_is_lost)
{
    VF_CLEANUP_FD int kept_open = life_ask_watched(" HTTP/1.1"),
                      closed = life_ask_watched(" HTTP/1.0");
    VF_CLEANUP_FD int stuck = life_ask_watched("?size=4000000 HTTP/1.1");

    http_wait(&life.decided);
    http_wait(&life.decided);
    http_wait(&life.decided);
    cr_expect_eq(life.lost, 3);
}

/* ---- connections and descriptors */

Test(http_small, more_than_fit_wait_outside)
{
    VF_CLEANUP_FD int first = life_connect(), second = life_connect();
    VF_CLEANUP_FD int third = life_connect(), fourth = life_connect();

    http_ask(first, &a, "GET", "/hello", NULL, NULL);
    http_ask(second, &a, "GET", "/hello", NULL, NULL);
    life_ask_later(third);
    http_send(fourth, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 10; i++) { /* those inside are served */
        http_ask(first, &a, "GET", "/hello", NULL, NULL);
        cr_expect_eq(a.status, 200);
    }
    cr_expect_not(http_readable(fourth));
    close(vf_steal_fd(&third));
    http_wait(&life.gone_sem);
    cr_expect(http_read(fourth, &a, false));
    cr_expect_eq(a.status, 200);
}

Test(http_small, unread_answers_hold_their_places)
{
    int fds[3];
    VF_CLEANUP_FD int fourth = -1;

    for (int i = 0; i < 3; i++)
        fds[i] = life_ask_watched(" HTTP/1.0");
    for (int i = 0; i < 3; i++)
        http_wait_readable(fds[i]);
    fourth = life_connect();
    http_send(fourth, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect_not(http_readable(fourth));
    close(fds[1]);
    http_wait(&life.decided);
    cr_expect(http_read(fourth, &a, false));
    cr_expect_eq(a.status, 200);
    cr_expect_eq(life.lost, 1);
    cr_expect(http_read(fds[0], &a, false));
    cr_expect(http_read(fds[2], &a, false));
    http_wait(&life.decided);
    http_wait(&life.decided);
    cr_expect_eq(life.kept, 2);
    close(fds[0]);
    close(fds[2]);
}

Test(http_small, many_come_and_go)
{
    for (int i = 0; i < 100; i++) {
        VF_CLEANUP_FD int fd = life_connect();

        if (i % 3 == 0) {
            http_ask(fd, &a, "GET", "/hello", NULL, NULL);
            cr_expect_eq(a.status, 200);
        } else if (i % 3 == 1) {
            http_send(fd, "GET /hel");
        }
    }
}

Test(http_limits, without_descriptors_callers_wait)
{
    VF_CLEANUP_FD int old = life_connect(), fresh = -1, top = dup(0);
    struct rlimit limit, none;

    http_ask(old, &a, "GET", "/hello", NULL, NULL);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    fresh = life_connect();
    cr_assert_geq(top, 0);
    none = limit;
    none.rlim_cur = 3; /* every descriptor that is free now lies above */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    http_send(fresh, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 10; i++) {
        http_ask(old, &a, "GET", "/hello", NULL, NULL);
        cr_expect_eq(a.status, 200);
    }
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_expect(http_read(fresh, &a, false)); /* without another caller */
    cr_expect_eq(a.status, 200);
}

/* Answers that outlive their handler: deferred ones, hang-ups meanwhile, and whether an answer was read. */
#include "tests/unit/http_life_support.h"

#include <unistd.h>

static struct http_answer a;

static void start(void)
{
    life_start(64, 20000);
}

TestSuite(http_deferred, .init = start, .fini = life_stop, .timeout = 60);

/* ---- deferred */

Test(http_deferred, a_deferred_answer_comes)
{
    VF_CLEANUP_FD int fd = life_connect();

    for (int i = 0; i < 3; i++) {
        life_ask_later(fd);
        life_settle();
        cr_expect_not(http_readable(fd));
        life_answer(i);
        cr_expect(http_read(fd, &a, false));
        cr_expect_eq(a.body[5], '0' + i, "%s", a.body);
        http_ask(fd, &a, "GET", "/at-once", NULL, NULL);
        cr_expect_str_eq(a.body, "{\"hello\":true}");
    }
    cr_expect_eq(life.gone, 0);
}

Test(http_deferred, a_hang_up_while_deferred_is_told)
{
    int fd = life_connect();

    life_ask_later(fd);
    close(fd);
    http_wait(&life.gone_sem);
    cr_expect_eq(life.gone, 1);
    fd = life_connect(); /* with bytes that were never read */
    life_ask_later(fd);
    http_send(fd, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n");
    close(fd);
    http_wait(&life.gone_sem);
    life_settle();
    cr_expect_eq(life.gone, 2);
}

Test(http_deferred, who_only_stops_sending_is_answered)
{
    VF_CLEANUP_FD int older = life_connect(), fd = -1;

    /* libmicrohttpd looks at the oldest connection more often; it must not be this one. */
    http_ask(older, &a, "GET", "/hello", NULL, NULL);
    fd = life_connect();
    life_ask_later(fd);
    shutdown(fd, SHUT_WR);
    life_settle();
    cr_expect_eq(life.gone, 0);
    life_answer(0);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
    http_expect_closed(fd);
}

Test(http_deferred, who_stops_sending_and_then_leaves_is_gone)
{
    int fd = life_connect();

    life_ask_later(fd);
    shutdown(fd, SHUT_WR);
    life_settle();
    cr_expect_eq(life.gone, 0);
    close(fd);
    http_wait(&life.gone_sem);
    cr_expect_eq(life.gone, 1);
}

Test(http_deferred, what_was_sent_at_once_waits_for_the_deferred)
{
    VF_CLEANUP_FD int fd = life_connect();

    http_send(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
                  "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(fd, SHUT_WR);
    http_wait(&life.deferred);
    life_settle();
    cr_expect_not(http_readable(fd));
    life_answer(0);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"hello\":true}");
    http_wait(&life.deferred);
    life_answer(1);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":1}");
    http_expect_closed(fd);
    cr_expect_eq(life.gone, 0);
}

static void quiesce(void *arg)
{
    (void)arg;
    vf_http_quiesce(life.server.http);
}

Test(http_deferred, after_quiesce_the_deferred_are_still_answered)
{
    VF_CLEANUP_FD int fd = life_connect();
    struct vf_error err;
    int late = -1;

    life_ask_later(fd);
    http_call(&life.server, quiesce, NULL);
    cr_expect_eq(vf_unix_connect(life.server.dir.fd, "api.sock", &late, &err), -ECONNREFUSED);
    life_answer(0);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
}

static void answer_and_close(void *arg)
{
    int n = 0;

    life_answer_nth(&n);
    vf_http_close(life.server.http, (void (*)(void *))arg, NULL);
    atomic_store(&life.server.closed, true);
}

static void count_closed(void *arg)
{
    (void)arg;
    sem_post(&life.closed_sem);
}

Test(http_deferred, what_was_answered_before_the_end_arrives)
{
    VF_CLEANUP_FD int fd = life_connect();

    life_ask_later(fd);
    http_call(&life.server, answer_and_close, (void *)count_closed);
    http_wait(&life.closed_sem);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"n\":0}");
    cr_expect_eq(life.gone, 0);
}

/* ---- whether an answer was read */

static void expect_decision(int lost, int kept)
{
    http_wait(&life.decided);
    life_settle();
    cr_expect_eq(life.lost, lost, "%d lost", life.lost);
    cr_expect_eq(life.kept, kept, "%d kept", life.kept);
}

Test(http_deferred, an_answer_is_lost_if_its_peer_leaves_without_reading)
{
    int fd = life_ask_watched(" HTTP/1.1");

    http_wait_readable(fd);
    close(fd);
    expect_decision(1, 0);
    fd = life_ask_watched(" HTTP/1.0"); /* here the server closes first */
    http_wait_readable(fd);
    life_settle();
    close(fd);
    expect_decision(2, 0);
    fd = life_ask_watched(" HTTP/1.1");
    shutdown(fd, SHUT_WR);
    http_wait_readable(fd);
    life_settle();
    close(fd);
    expect_decision(3, 0);
    fd = life_ask_watched("?size=4000000 HTTP/1.1"); /* more than the socket holds */
    http_wait_readable(fd);
    close(fd);
    expect_decision(4, 0);
    fd = life_connect();
    http_send(fd, "GET /watched-later HTTP/1.1\r\n\r\n");
    http_wait(&life.deferred);
    close(fd);
    http_wait(&life.gone_sem);
    expect_decision(5, 0);
}

Test(http_deferred, an_answer_that_was_read_is_kept)
{
    int fd = life_ask_watched(" HTTP/1.1");

    cr_expect(http_read(fd, &a, false));
    close(fd);
    expect_decision(0, 1);
    fd = life_ask_watched(" HTTP/1.0");
    cr_expect(http_read(fd, &a, false));
    close(fd);
    expect_decision(0, 2);
    fd = life_ask_watched(" HTTP/1.1");
    shutdown(fd, SHUT_WR);
    cr_expect(http_read(fd, &a, false));
    http_expect_closed(fd);
    expect_decision(0, 3);
    close(fd);
    fd = life_ask_watched(" HTTP/1.1");
    http_send(fd, "GET /hello HTTP/1.1\r\n\r\n"); /* waits until the answer before was read */
    life_settle();
    cr_expect_eq(life.kept, 3);
    cr_expect(http_read(fd, &a, false));
    expect_decision(0, 4);
    cr_expect(http_read(fd, &a, false));
    cr_expect_str_eq(a.body, "{\"hello\":true}");
    close(fd);
    fd = life_connect();
    http_send(fd, "GET /watched-later HTTP/1.1\r\n\r\n");
    http_wait(&life.deferred);
    life_answer(0);
    cr_expect(http_read(fd, &a, false));
    close(fd);
    expect_decision(0, 5);
}

Test(http_deferred, the_end_of_the_server_decides_too)
{
    VF_CLEANUP_FD int read = life_ask_watched(" HTTP/1.1"), unread = life_ask_watched(" HTTP/1.1");
    VF_CLEANUP_FD int lingering = life_ask_watched(" HTTP/1.0");
    VF_CLEANUP_FD int unwritten = life_ask_watched("?size=4000000 HTTP/1.1");

    cr_expect(http_read(read, &a, false));
    http_wait_readable(unread);
    http_wait_readable(lingering);
    http_wait_readable(unwritten);
    life_settle();
    http_close(&life.server);
    cr_expect_eq(life.lost, 1, "%d", life.lost); /* the one of which a part was not even sent */
    cr_expect_eq(life.kept, 3, "%d", life.kept);
}

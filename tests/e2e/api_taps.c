/* Taps over the API: what is wrong with them is told, tokens are their user's and end with their connection, and the
 * daemon has no descriptor more afterwards, wherever a client leaves. */
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/e2e/daemon_network.h"
#include "tests/e2e/taps_support.h"

TestSuite(api_taps, .timeout = 120);

#define USER 65534

/* Until the daemon has that many descriptors again; each look is a request, and so a turn of its loop. */
static void wait_fds(struct dmn *d, int want)
{
    int64_t deadline = vf_deadline_after_ms(DMN_LONG_MS);
    int now;

    do {
        free(dmn_call(d, 200, "GET", "/v1/version", NULL));
        now = dmn_fds(d);
    } while (now != want && vf_deadline_left_ms(deadline) > 0);
    cr_expect_eq(now, want, "%d descriptors, were %d", now, want);
}

static int count(struct dmn *d)
{
    free(dmn_call(d, 200, "GET", "/v1/version", NULL));
    return dmn_fds(d);
}

/* Queues of one interface. */
static void open_many(int *fds, int n)
{
    for (int i = 0; i < n; i++)
        fds[i] = net_tap("many", NET_TAP | IFF_MULTI_QUEUE);
}

static void close_many(const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

/* A connection that was refused says so and is closed. */
static void expect_refused(struct dmn_conn *c, const char *code, const char *message)
{
    const char *line = taps_line(c);
    char want[64];

    snprintf(want, sizeof(want), "{\"error\":{\"code\":\"%.40s\"", code);
    cr_expect_not_null(strstr(line, want), "%s", line);
    cr_expect_not_null(strstr(line, message), "%s: %s", message, line);
    dmn_await_close(c);
    dmn_hang_up(c);
}

static void refused(struct dmn *d, const int *fds, int n, const char *message)
{
    struct dmn_conn c;

    taps_dial(d, &c);
    taps_send(&c, "T", 1, fds, n);
    expect_refused(&c, "invalid_argument", message);
}

Test(api_taps, what_is_wrong_with_descriptors_is_told)
{
    int many[9], two[2], before;
    struct dmn d;

    net_enter("api_taps", "what_is_wrong");
    dmn_open(&d, NULL);
    before = count(&d);
    two[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
    refused(&d, two, 1, "taps[0]: is no descriptor of a tap");
    close(two[0]);
    cr_assert_eq(pipe2(two, O_CLOEXEC), 0);
    refused(&d, two, 2, "taps[0]: is no descriptor of a tap");
    close(two[0]);
    close(two[1]);
    two[0] = net_tap("", 0);
    refused(&d, two, 1, "taps[0]: is not attached to an interface");
    close(two[0]);
    two[0] = net_tap("tun7", IFF_TUN | IFF_NO_PI);
    refused(&d, two, 1, "taps[0]: tun7 is a tun, not a tap");
    close(two[0]);
    two[0] = net_tap("bare", IFF_TAP | IFF_NO_PI);
    refused(&d, two, 1, "taps[0]: tap bare has no virtio-net header");
    close(two[0]);
    two[0] = net_tap("info", IFF_TAP | IFF_VNET_HDR);
    refused(&d, two, 1, "taps[0]: tap info puts packet information before each packet");
    close(two[0]);
    two[0] = net_tap("queue", NET_TAP | IFF_MULTI_QUEUE);
    cr_assert_eq(ioctl(two[0], TUNSETQUEUE, &(struct ifreq){.ifr_flags = IFF_DETACH_QUEUE}), 0);
    refused(&d, two, 1, "taps[0]: is a detached queue of tap queue");
    close(two[0]);
    two[0] = net_tap("one", NET_TAP);
    two[1] = net_tap("other", NET_TAP);
    refused(&d, two, 2, "taps[1]: is of tap other, not of one as taps[0]");
    close(two[1]);
    two[1] = dup(two[0]);
    refused(&d, two, 2, "taps[1]: is the same queue of tap one as taps[0]");
    close(two[0]);
    close(two[1]);
    open_many(many, 9);
    refused(&d, many, 9, "not all of the descriptors arrived");
    close_many(many, 9);
    wait_fds(&d, before);
    dmn_close(&d);
}

Test(api_taps, what_is_wrong_with_the_protocol_is_told)
{
    struct dmn_conn c;
    struct dmn d;
    int tap, before;
    char *text;

    net_enter("api_taps", "what_is_wrong_with_the_protocol");
    dmn_open(&d, NULL);
    before = count(&d);
    tap = net_tap("tap7", NET_TAP);
    taps_dial(&d, &c);
    taps_send(&c, "T", 1, NULL, 0);
    expect_refused(&c, "invalid_argument", "no descriptor came with the byte");
    taps_dial(&d, &c);
    taps_send(&c, "t", 1, &tap, 1);
    expect_refused(&c, "protocol", "one byte is expected, 'T'");
    taps_dial(&d, &c);
    taps_send(&c, "TT", 2, &tap, 1);
    expect_refused(&c, "protocol", "one byte is expected, 'T'");
    taps_bring(&d, &c, &tap, 1);
    taps_send(&c, "T", 1, &tap, 1);
    expect_refused(&c, "protocol", "nothing is expected after the descriptors");
    /* Behind the request, in one piece: the byte is read with it, and the descriptor dropped by the kernel. */
    dmn_dial(&d, &c, "api.sock");
    text = "POST /v1/taps HTTP/1.1\r\nHost: x\r\n" TAPS_UPGRADE "Content-Length: 0\r\n\r\nT";
    taps_send(&c, text, strlen(text), &tap, 1);
    cr_assert_eq(dmn_head(&c), 101);
    expect_refused(&c, "protocol", "what was sent before the 101 is lost");
    wait_fds(&d, before);
    dmn_dial(&d, &c, "api.sock");
    dmn_ask(&c, "POST", "/v1/taps", NULL, NULL);
    cr_expect_eq(dmn_head(&c), 400);
    text = dmn_rest(&c);
    cr_expect_not_null(strstr(text, "Upgrade: vmfactory-taps"), "%s", text);
    free(text);
    dmn_hang_up(&c);
    close(tap);
    dmn_close(&d);
}

/* The daemon's table of descriptors is full: some arrive, and are closed again. */
Test(api_taps, descriptors_beyond_the_daemons_limit_leave_none_behind)
{
    struct rlimit limit, small;
    struct dmn_conn c;
    struct dmn d;
    int many[8], before;

    net_enter("api_taps", "descriptors_beyond_the_limit");
    dmn_open(&d, NULL);
    before = count(&d);
    open_many(many, 8);
    taps_dial(&d, &c);
    cr_assert_eq(prlimit(d.pid, RLIMIT_NOFILE, NULL, &limit), 0);
    small = limit;
    small.rlim_cur = (rlim_t)dmn_fds(&d) + 3;
    cr_assert_eq(prlimit(d.pid, RLIMIT_NOFILE, &small, NULL), 0);
    taps_send(&c, "T", 1, many, 8);
    expect_refused(&c, "invalid_argument", "not all of the descriptors arrived");
    cr_assert_eq(prlimit(d.pid, RLIMIT_NOFILE, &limit, NULL), 0);
    wait_fds(&d, before);
    close_many(many, 8);
    dmn_close(&d);
}

Test(api_taps, who_leaves_at_any_step_leaves_no_descriptor_behind)
{
    struct dmn_conn c;
    struct dmn d;
    int many[8], before;

    net_enter("api_taps", "who_leaves");
    dmn_open(&d, NULL);
    before = count(&d);
    open_many(many, 8);
    for (int i = 0; i < 60; i++) {
        dmn_dial(&d, &c, "api.sock");
        dmn_ask(&c, "POST", "/v1/taps", TAPS_UPGRADE, NULL);
        if (i % 6 >= 1)
            cr_assert_eq(dmn_head(&c), 101);
        if (i % 6 >= 2)
            taps_send(&c, "T", 1, many, 8);
        if (i % 6 == 3)
            cr_assert_eq(shutdown(c.fd, SHUT_WR), 0);
        if (i % 6 >= 4)
            cr_expect_not_null(strstr(taps_line(&c), "\"taps\""));
        if (i % 6 == 5)
            cr_assert_eq(shutdown(c.fd, SHUT_WR), 0);
        if (i % 6 == 3 || i % 6 == 5)
            dmn_await_close(&c);
        dmn_hang_up(&c);
    }
    wait_fds(&d, before);
    /* What the daemon holds shows: 8 taps and the connection. */
    taps_bring(&d, &c, many, 8);
    wait_fds(&d, before + 9);
    dmn_hang_up(&c);
    wait_fds(&d, before);
    taps_bring(&d, &c, many, 8);
    cr_expect_eq(dmn_stop(&d), 0);
    dmn_await_close(&c);
    dmn_hang_up(&c);
    close_many(many, 8);
    dmn_close(&d);
}

/* The kernel notes who connects. */
static void become(uid_t uid)
{
    cr_assert_eq(seteuid(uid), 0);
}

static void refused_token(struct dmn *d, int want, const char *token, const char *message)
{
    char more[80];

    snprintf(more, sizeof(more), "\"network\":{\"taps\":\"%.40s\"}", token);
    dnet_refused(d, want, "web", more, message);
}

Test(api_taps, a_token_is_its_users_and_ends_with_its_connection)
{
    struct dmn_conn c;
    struct dmn d;
    char token[40];
    int tap;

    net_enter("api_taps", "a_token_is_its_users");
    dmn_open(&d, NULL);
    dmn_let_all_in(&d);
    dmn_null_template(&d, "web", 0);
    tap = net_tap("tap7", NET_TAP);
    snprintf(token, sizeof(token), "%s", taps_bring(&d, &c, &tap, 1));
    refused_token(&d, 404, "00112233445566778899aabbccddeeff",
                  "network.taps: there is no such token");
    become(USER);
    refused_token(&d, 403, token, "network.taps: another user brought these taps");
    become(0);
    dmn_hang_up(&c);
    free(dmn_call(&d, 200, "GET", "/v1/version", NULL));
    refused_token(&d, 404, token, "network.taps: there is no such token");
    close(tap);
    dmn_close(&d);
}

Test(api_taps, one_user_has_only_so_many_connections)
{
    struct dmn_conn c[40];
    struct dmn d;
    int n = 0, before;
    char *text;

    net_enter("api_taps", "one_user_has_only_so_many");
    dmn_open(&d, NULL);
    dmn_let_all_in(&d);
    before = count(&d);
    become(USER);
    for (bool more = true; more; n++) {
        cr_assert_lt(n, 40);
        dmn_dial(&d, &c[n], "api.sock");
        dmn_ask(&c[n], "POST", "/v1/taps", TAPS_UPGRADE, NULL);
        more = dmn_head(&c[n]) == 101;
    }
    become(0);
    cr_expect_eq(n, 33);
    cr_expect_eq(c[n - 1].status, 429);
    cr_expect_not_null(dmn_header(&c[n - 1], "Retry-After"));
    text = dmn_rest(&c[n - 1]);
    cr_expect_not_null(strstr(text, "uid 65534 has 32 connections"), "%s", text);
    free(text);
    taps_dial(&d, &c[n]); /* others may */
    for (int i = 0; i <= n; i++)
        dmn_hang_up(&c[i]);
    wait_fds(&d, before);
    dmn_close(&d);
}

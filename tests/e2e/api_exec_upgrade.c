/* Commands over the API on upgraded connections: frames both ways, rude clients, floods, the end of VM and daemon. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "tests/e2e/exec_support.h"
#include "tests/e2e/factory_support.h"

TestSuite(api_exec_upgrade, .timeout = 120);

static void expect_frame(struct dmn_conn *c, int type, const char *payload)
{
    const char *data = "";
    size_t len;

    cr_expect_eq(exe_receive_frame(c, &data, &len), type);
    cr_expect_str_eq(data, payload, "%s", data);
}

Test(api_exec_upgrade, frames_go_both_ways)
{
    struct exe v;
    struct dmn_conn c;

    exe_open(&v);
    exe_upgrade(&v, &c, "{\"argv\":[\"cat\"]}");
    cr_assert(exe_send_frame(&c, VF_EXEC_STDIN, "one", 3));
    expect_frame(&c, VF_EXEC_STDOUT, "one");
    cr_assert(exe_send_frame(&c, VF_EXEC_STDIN, "two", 3));
    expect_frame(&c, VF_EXEC_STDOUT, "two");
    cr_assert(exe_send_frame(&c, VF_EXEC_STDIN, "", 0));
    expect_frame(&c, VF_EXEC_STDOUT, "");
    expect_frame(&c, VF_EXEC_STDERR, "");
    expect_frame(&c, VF_EXEC_EXIT, "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}");
    dmn_await_close(&c);
    dmn_hang_up(&c);
    exe_close(&v);
}

/* What a client sends right behind its request belongs to the frames. */
Test(api_exec_upgrade, frames_may_be_sent_with_the_request)
{
    struct exe v;
    struct dmn_conn c;
    char text[1000];
    static const char body[] = "{\"argv\":[\"cat\"]}";
    int n;

    exe_open(&v);
    n = snprintf(text, sizeof(text),
                 "POST %s HTTP/1.1\r\nHost: x\r\n" EXE_UPGRADE "Content-Length: %zu\r\n\r\n%s",
                 v.exec, sizeof(body) - 1, body);
    vf_exec_frame_header((uint8_t *)text + n, VF_EXEC_STDIN, 5);
    memcpy(text + n + 8, "early", 5);
    vf_exec_frame_header((uint8_t *)text + n + 13, VF_EXEC_STDIN, 0);
    dmn_dial(&v.d, &c, "api.sock");
    cr_assert(dmn_send(&c, text, (size_t)n + 21));
    cr_assert_eq(dmn_head(&c), 101);
    expect_frame(&c, VF_EXEC_STDOUT, "early");
    expect_frame(&c, VF_EXEC_STDOUT, "");
    dmn_hang_up(&c);
    exe_close(&v);
}

Test(api_exec_upgrade, a_signal_reaches_the_command)
{
    struct exe v;
    struct dmn_conn c;

    exe_open(&v);
    exe_upgrade(&v, &c, "{\"argv\":[\"hang\"]}");
    cr_assert(exe_send_frame(&c, VF_EXEC_SIGNAL, "\0\0\0\x0f", 4));
    expect_frame(&c, VF_EXEC_STDOUT, "");
    expect_frame(&c, VF_EXEC_STDERR, "");
    expect_frame(&c, VF_EXEC_EXIT, "{\"exit\":{\"code\":null,\"signal\":15,\"timed_out\":false}}");
    dmn_await_close(&c);
    dmn_hang_up(&c);
    exe_close(&v);
}

Test(api_exec_upgrade, errors_before_the_upgrade_are_answers)
{
    struct exe v;
    struct dmn_conn c;

    exe_open(&v);
    dmn_dial(&v.d, &c, "api.sock");
    dmn_ask(&c, "POST", v.exec, EXE_UPGRADE, "{\"argv\":[\"cat\"],\"stdin\":\"x\"}");
    cr_expect_eq(dmn_head(&c), 400);
    free(dmn_rest(&c));
    dmn_ask(&c, "POST", "/v1/vms/nobody/exec", EXE_UPGRADE, "{\"argv\":[\"cat\"]}");
    cr_expect_eq(dmn_head(&c), 404);
    free(dmn_rest(&c));
    dmn_hang_up(&c);
    exe_close(&v);
}

Test(api_exec_upgrade, a_frame_that_is_none_ends_the_command)
{
    static const uint8_t bad[][8] = {
        {9, 0, 0, 0, 0, 0, 0, 1}, {0, 1, 0, 0, 0, 0, 0, 1}, {0, 0, 0, 0, 255, 0, 0, 0}};
    struct exe v;

    exe_open(&v);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct dmn_conn c;
        const char *data;
        size_t len;
        int type;

        exe_upgrade(&v, &c, "{\"argv\":[\"hang\"]}");
        cr_assert(dmn_send(&c, bad[i], 8));
        while ((type = exe_receive_frame(&c, &data, &len)) == VF_EXEC_STDOUT ||
               type == VF_EXEC_STDERR)
            ;
        cr_expect_eq(type, VF_EXEC_EXIT);
        cr_expect_not_null(strstr(data, "\"protocol\""), "%s", data);
        dmn_await_close(&c);
        dmn_hang_up(&c);
    }
    exe_expect_none_runs(&v);
    exe_close(&v);
}

/* A command that reads nothing, a client that sends and sends: it is stopped, and the daemon keeps little. */
Test(api_exec_upgrade, stdin_that_nobody_reads_stops_the_client)
{
    struct exe v;
    struct dmn_conn c;
    static char piece[VF_EXEC_FRAME_MAX];
    uint8_t head[VF_EXEC_FRAME_HEADER];
    int64_t before, sent = 0;

    exe_open(&v);
    before = dmn_rss_kib(&v.d);
    exe_upgrade(&v, &c, "{\"argv\":[\"hang\"]}");
    vf_exec_frame_header(head, VF_EXEC_STDIN, sizeof(piece));
    for (bool full = false; !full && sent < 64 << 20;) {
        struct iovec iov[2] = {{head, sizeof(head)}, {piece, sizeof(piece)}};
        size_t left = sizeof(head) + sizeof(piece);

        while (left > 0 && !full) {
            struct pollfd p = {.fd = c.fd, .events = POLLOUT};
            struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
            ssize_t n = sendmsg(c.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

            if (n < 0) {
                cr_assert_eq(errno, EAGAIN);
                full = poll(&p, 1, 200) == 0;
                continue;
            }
            left -= (size_t)n;
            sent += n;
            for (int i = 0; i < 2; i++) {
                size_t k = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;

                iov[i].iov_base = (char *)iov[i].iov_base + k;
                iov[i].iov_len -= k;
                n -= (ssize_t)k;
            }
        }
    }
    cr_expect_lt(sent, 8 << 20, "%lld bytes were taken", (long long)sent);
    cr_expect_lt(dmn_rss_kib(&v.d), before + EXE_HELD_BACK_KIB);
    dmn_hang_up(&c);
    exe_expect_none_runs(&v);
    exe_close(&v);
}

Test(api_exec_upgrade, a_flood_of_frames_waits_for_a_slow_reader)
{
    struct exe v;
    struct dmn_conn c;
    char body[64];
    const char *data;
    size_t len;
    int64_t before, all = 0;
    int type;

    exe_open(&v);
    before = dmn_rss_kib(&v.d);
    snprintf(body, sizeof(body), "{\"argv\":[\"flood\",\"%d\"]}", EXE_FLOOD_MIB << 20);
    exe_upgrade(&v, &c, body);
    exe_wait_full(&v, &c);
    cr_expect_lt(dmn_rss_kib(&v.d), before + EXE_HELD_BACK_KIB);
    while ((type = exe_receive_frame(&c, &data, &len)) == VF_EXEC_STDOUT && len > 0)
        all += (int64_t)len;
    cr_expect_eq(all, (int64_t)EXE_FLOOD_MIB << 20);
    cr_expect_eq(type, VF_EXEC_STDOUT);
    expect_frame(&c, VF_EXEC_STDERR, "");
    expect_frame(&c, VF_EXEC_EXIT, "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}");
    dmn_hang_up(&c);
    exe_close(&v);
}

Test(api_exec_upgrade, who_closes_an_upgraded_connection_kills_the_command)
{
    struct exe v;
    int fds;

    exe_open(&v);
    free(exe_run(&v, "{\"argv\":[\"true\"]}"));
    fds = dmn_fds(&v.d);
    for (int i = 0; i < 100; i++) {
        struct dmn_conn c;

        exe_upgrade(&v, &c,
                    i % 2 ? "{\"argv\":[\"hang\"]}" : "{\"argv\":[\"flood\",\"100000000\"]}");
        if (i % 4 < 2)
            cr_assert_eq(shutdown(c.fd, SHUT_WR), 0);
        if (i % 4 == 1)
            dmn_await_close(&c);
        dmn_hang_up(&c);
        if (i % 2)
            exe_expect_run(&v, "{\"argv\":[\"true\"]}",
                           "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    }
    exe_expect_none_runs(&v);
    exe_expect_fds(&v, fds);
    exe_close(&v);
}

/* The daemon stops while commands of both forms run: their connections end, and it ends in order. */
Test(api_exec_upgrade, stopping_ends_the_connections)
{
    struct exe v;
    struct dmn_conn plain, up, idle;

    exe_open(&v);
    dmn_dial(&v.d, &plain, "api.sock");
    dmn_ask(&plain, "POST", v.exec, NULL, "{\"argv\":[\"hang\"]}");
    cr_assert_eq(dmn_head(&plain), 200);
    exe_upgrade(&v, &up, "{\"argv\":[\"flood\",\"100000000\"]}");
    dmn_dial(&v.d, &idle, "api.sock");
    cr_expect_eq(dmn_stop(&v.d), 0);
    dmn_await_close(&plain);
    dmn_await_close(&up);
    dmn_await_close(&idle);
    dmn_hang_up(&plain);
    dmn_hang_up(&up);
    dmn_hang_up(&idle);
    dmn_close(&v.d);
}

/* A real VMM, killed while commands run in its guest: both forms are told. */
Test(api_exec_upgrade, a_vmm_that_dies_ends_the_streams_with_an_error)
{
    const char *missing = fac_missing(false, VF_ACCEL_TCG);
    char spec[1000], line[2000], pid[16];
    struct exe v;
    struct vf_json *j;
    struct dmn_conn plain, up;
    const char *data;
    size_t len;
    int type;

    if (missing != NULL)
        sup_skip("api_exec_upgrade", "a_vmm_that_dies", "%s", missing);
    dmn_open(&v.d, NULL);
    snprintf(spec, sizeof(spec),
             "{\"name\":\"tiny\",\"accel\":\"tcg\",\"memory\":{\"size_mib\":64},"
             "\"boot\":{\"kernel\":\"%s\"},\"agent\":{\"channel\":\"serial\"}}",
             sup_guest_file("tiny.elf"));
    free(dmn_call(&v.d, 201, "POST", "/v1/templates", spec));
    j = dmn_json(&v.d, 201, "POST", "/v1/vms", "{\"template\":\"tiny\"}");
    snprintf(v.path, sizeof(v.path), "/v1/vms/%.20s", dmn_str(j, "id"));
    snprintf(v.exec, sizeof(v.exec), "%s/exec", v.path);
    snprintf(pid, sizeof(pid), "%lld", (long long)dmn_int(j, "pid"));
    vf_json_delete(j);
    dmn_dial(&v.d, &plain, "api.sock");
    dmn_ask(&plain, "POST", v.exec, NULL, "{\"argv\":[\"hang\"]}");
    cr_assert_eq(dmn_head(&plain), 200);
    exe_upgrade(&v, &up, "{\"argv\":[\"hang\"]}");
    cr_assert_gt(atoi(pid), 1);
    cr_assert_eq(kill(atoi(pid), SIGKILL), 0);
    cr_assert(dmn_line(&plain, line, sizeof(line)));
    cr_expect_not_null(strstr(line, "{\"error\":{\"code\":\"vmm_died\""), "%s", line);
    cr_expect_not(dmn_line(&plain, line, sizeof(line)));
    while ((type = exe_receive_frame(&up, &data, &len)) == VF_EXEC_STDOUT || type == VF_EXEC_STDERR)
        ;
    cr_expect_eq(type, VF_EXEC_EXIT);
    cr_expect_not_null(strstr(data, "{\"error\":{\"code\":\"vmm_died\""), "%s", data);
    dmn_hang_up(&plain);
    dmn_hang_up(&up);
    j = dmn_json(&v.d, 200, "GET", v.path, NULL);
    cr_expect_str_eq(dmn_str(j, "state"), "dead");
    cr_expect_str_eq(dmn_str(j, "death.code"), "vmm_died");
    vf_json_delete(j);
    exe_close(&v);
}

/* Commands over the API, in both forms: streams, ends, floods, slow readers, callers that leave. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/wire.h"
#include "pool/exec_frames.h"
#include "tests/e2e/daemon_support.h"
#include "tests/e2e/factory_support.h"

TestSuite(api_exec, .timeout = 120);

#define FLOOD_MIB 32
/* What a daemon may grow by while it holds back a flood of FLOOD_MIB, sanitizers included. */
#define HELD_BACK_KIB (16 * 1024)

/* A daemon with one null VM leased. */
struct vm {
    struct dmn d;
    char path[64], exec[80];
};

static void vm_open(struct vm *v)
{
    struct vf_json *j;

    dmn_open(&v->d, NULL);
    dmn_null_template(&v->d, "web", 0);
    j = dmn_json(&v->d, 201, "POST", "/v1/vms", "{\"template\":\"web\"}");
    snprintf(v->path, sizeof(v->path), "/v1/vms/%.20s", dmn_str(j, "id"));
    snprintf(v->exec, sizeof(v->exec), "%s/exec", v->path);
    vf_json_delete(j);
}

static void vm_close(struct vm *v)
{
    free(dmn_call(&v->d, 204, "DELETE", v->path, NULL));
    cr_expect_eq(dmn_vm_dirs(&v->d), 0);
    dmn_close(&v->d);
}

static char *run(struct vm *v, const char *body)
{
    return dmn_call(&v->d, 200, "POST", v->exec, body);
}

static void expect_run(struct vm *v, const char *body, const char *want)
{
    char *got = run(v, body);

    cr_expect_str_eq(got, want, "%s: %s", body, got);
    free(got);
}

/* A guest runs a bounded number of commands at once: that so many end says that none was left running. */
static void expect_none_runs(struct vm *v)
{
    for (int i = 0; i < 64; i++)
        expect_run(v, "{\"argv\":[\"cat\"],\"stdin\":\"x\"}",
                   "{\"stream\":\"stdout\",\"data\":\"x\"}\n"
                   "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
}

/* No more descriptors than before, but for connections that just were closed. */
static void expect_fds(struct vm *v, int before)
{
    int now = dmn_fds(&v->d);

    cr_expect_leq(now, before + 2, "%d, were %d", now, before);
}

#define UPGRADE "Connection: Upgrade\r\nUpgrade: vmfactory-exec\r\n"

static void upgrade(struct vm *v, struct dmn_conn *c, const char *body)
{
    dmn_dial(&v->d, c, "api.sock");
    dmn_ask(c, "POST", v->exec, UPGRADE, body);
    cr_assert_eq(dmn_head(c), 101, "%d", c->status);
    cr_expect_str_eq(dmn_header(c, "Upgrade"), "vmfactory-exec");
}

static bool send_frame(struct dmn_conn *c, enum vf_exec_frame type, const void *data, size_t len)
{
    uint8_t head[VF_EXEC_FRAME_HEADER];

    vf_exec_frame_header(head, type, len);
    return dmn_send(c, head, sizeof(head)) && dmn_send(c, data, len);
}

/* The next frame; its payload, NUL-terminated, is in a static buffer. -1: closed. */
static int receive_frame(struct dmn_conn *c, const char **ret_data, size_t *ret_len)
{
    static char data[VF_EXEC_FRAME_MAX + 1];
    uint8_t head[VF_EXEC_FRAME_HEADER];

    if (!dmn_bytes(c, head, sizeof(head)))
        return -1;
    cr_assert(head[1] == 0 && head[2] == 0 && head[3] == 0);
    *ret_len = (size_t)head[4] << 24 | (size_t)head[5] << 16 | (size_t)head[6] << 8 | head[7];
    cr_assert_leq(*ret_len, VF_EXEC_FRAME_MAX);
    cr_assert(dmn_bytes(c, data, *ret_len));
    data[*ret_len] = '\0';
    *ret_data = data;
    return head[0];
}

/* ---- the plain form */

Test(api_exec, output_and_status_come_as_lines)
{
    struct vm v;
    char *got;

    vm_open(&v);
    expect_run(&v, "{\"argv\":[\"echo\",\"a\",\"b\"]}",
               "{\"stream\":\"stdout\",\"data\":\"a b\\n\"}\n"
               "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    expect_run(&v, "{\"argv\":[\"complain\",\"\\u00fc\"]}",
               "{\"stream\":\"stderr\",\"data\":\"\xc3\xbc\\n\"}\n"
               "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    expect_run(&v, "{\"argv\":[\"exit\",\"7\"]}",
               "{\"exit\":{\"code\":7,\"signal\":null,\"timed_out\":false}}\n");
    expect_run(&v, "{\"argv\":[\"hang\"],\"timeout_ms\":20}",
               "{\"exit\":{\"code\":null,\"signal\":9,\"timed_out\":true}}\n");
    expect_run(&v, "{\"argv\":[\"cat\"]}",
               "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    got = run(&v, "{\"argv\":[\"no-such-program\"]}");
    cr_expect_eq(strncmp(got, "{\"error\":{\"code\":\"guest_failed\"", 30), 0, "%s", got);
    free(got);
    vm_close(&v);
}

static const struct {
    const char *body, *says;
} refused[] = {
    {"{}", "argv: is required"},
    {"{\"argv\":[]}", "argv: must have at least 1 item"},
    {"{\"argv\":[\"\"]}", "argv[0]: must not be empty"},
    {"{\"argv\":\"true\"}", "argv: must be an array"},
    {"{\"argv\":[\"true\"],\"env\":[\"A\"]}", "env[0]: must be NAME=value"},
    {"{\"argv\":[\"true\"],\"env\":[\"A=\",\"=b\"]}", "env[1]: must be NAME=value"},
    {"{\"argv\":[\"true\"],\"cwd\":\"tmp\"}", "cwd: must be an absolute path"},
    {"{\"argv\":[\"true\"],\"timeout_ms\":-1}", "timeout_ms: must be at least 0"},
    {"{\"argv\":[\"true\"],\"stdin\":\"a\\u0000b\"}", "must not contain NUL"},
    {"{\"argv\":[\"true\"],\"tty\":true}", "tty: unknown key"},
};

Test(api_exec, what_makes_no_sense_is_refused)
{
    struct vm v;
    char *long_body = malloc(40000);
    size_t n;

    vm_open(&v);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct vf_json *j = dmn_json(&v.d, 400, "POST", v.exec, refused[i].body);

        cr_expect_not_null(strstr(dmn_str(j, "error.message"), refused[i].says), "%s: %s",
                           refused[i].body, dmn_str(j, "error.message"));
        vf_json_delete(j);
    }
    n = (size_t)sprintf(long_body, "{\"argv\":[\"echo\"");
    for (int i = 0; i < 5; i++)
        n += (size_t)sprintf(long_body + n, ",\"%04000d\"", i);
    sprintf(long_body + n, "]}"); /* more than a message to the guest holds */
    free(dmn_call(&v.d, 400, "POST", v.exec, long_body));
    free(long_body);
    vm_close(&v);
}

/* Long stdin goes through the guest's window in pieces, and comes back as it was. */
Test(api_exec, long_stdin_is_fed_as_the_guest_takes_it)
{
    struct vm v;
    size_t size = 600000, all = 0;
    char *body = malloc(size + 100), line[70000];
    struct dmn_conn c;
    int n = sprintf(body, "{\"argv\":[\"cat\"],\"stdin\":\"");
    bool ended = false;

    for (size_t i = 0; i < size; i++)
        body[n + (int)i] = (char)('a' + i % 26);
    strcpy(body + n + size, "\"}");
    vm_open(&v);
    dmn_dial(&v.d, &c, "api.sock");
    dmn_ask(&c, "POST", v.exec, NULL, body);
    cr_assert_eq(dmn_head(&c), 200);
    while (dmn_line(&c, line, sizeof(line))) {
        struct vf_json *j = vf_json_parse(line, strlen(line));
        const char *data = vf_json_str(vf_json_get(j, "data"), NULL);

        for (; data != NULL && *data != '\0'; data++, all++)
            cr_assert_eq(*data, (char)('a' + all % 26));
        ended |= dmn_int(j, "exit.code") == 0;
        vf_json_delete(j);
    }
    cr_expect_eq(all, size);
    cr_expect(ended);
    dmn_hang_up(&c);
    free(body);
    vm_close(&v);
}

/* Until the daemon has filled what there is to fill on the way to a reader that does not read. */
static void wait_full(struct vm *v, const struct dmn_conn *c)
{
    int64_t deadline = vf_deadline_after_ms(DMN_LONG_MS), last = -1;

    /* Other requests are served meanwhile, and each takes turns of the daemon's loop. */
    for (int same = 0; same < 20; same++) {
        int64_t rss;
        char text[1];
        ssize_t n = recv(c->fd, text, 1, MSG_PEEK | MSG_DONTWAIT);

        cr_assert(n == 1 || errno == EAGAIN);
        free(dmn_call(&v->d, 200, "GET", v->path, NULL));
        rss = dmn_rss_kib(&v->d);
        if (rss != last)
            same = 0;
        last = rss;
        cr_assert_gt(vf_deadline_left_ms(deadline), 0);
    }
}

Test(api_exec, a_flood_waits_for_a_slow_reader)
{
    struct vm v;
    struct dmn_conn c;
    char body[64];
    static char line[70000];
    int64_t before, all = 0;
    bool ended = false;

    vm_open(&v);
    free(run(&v, "{\"argv\":[\"flood\",\"1000000\"]}")); /* the memory that this takes is taken */
    before = dmn_rss_kib(&v.d);
    dmn_dial(&v.d, &c, "api.sock");
    snprintf(body, sizeof(body), "{\"argv\":[\"flood\",\"%d\"]}", FLOOD_MIB << 20);
    dmn_ask(&c, "POST", v.exec, NULL, body);
    wait_full(&v, &c);
    cr_expect_lt(dmn_rss_kib(&v.d), before + HELD_BACK_KIB);
    cr_assert_eq(dmn_head(&c), 200);
    while (dmn_line(&c, line, sizeof(line))) {
        struct vf_json *j = vf_json_parse(line, strlen(line));
        const char *base64 = vf_json_str(vf_json_get(j, "base64"), "");
        size_t len = strlen(base64);

        all += (int64_t)(len / 4 * 3) - (len > 0 && base64[len - 1] == '=') -
               (len > 1 && base64[len - 2] == '=') +
               (int64_t)strlen(vf_json_str(vf_json_get(j, "data"), ""));
        ended |= dmn_int(j, "exit.code") == 0;
        vf_json_delete(j);
    }
    cr_expect_eq(all, (int64_t)FLOOD_MIB << 20);
    cr_expect(ended);
    cr_expect_lt(dmn_rss_kib(&v.d), before + HELD_BACK_KIB);
    dmn_hang_up(&c);
    vm_close(&v);
}

/* Many more than a guest would run at once: each must have ended when its caller went. */
Test(api_exec, who_hangs_up_kills_the_command)
{
    struct vm v;
    int fds;

    vm_open(&v);
    free(run(&v, "{\"argv\":[\"true\"]}"));
    fds = dmn_fds(&v.d);
    for (int i = 0; i < 100; i++) {
        struct dmn_conn c;
        char text[64];

        dmn_dial(&v.d, &c, "api.sock");
        dmn_ask(&c, "POST", v.exec, NULL,
                i % 2 ? "{\"argv\":[\"hang\"]}" : "{\"argv\":[\"flood\",\"100000000\"]}");
        cr_assert_eq(dmn_head(&c), 200);
        if (i % 2 == 0)
            cr_expect_gt(dmn_body(&c, text, sizeof(text)), 0);
        dmn_hang_up(&c);
        /* It is known to be over when the guest runs another one in its place. */
        if (i % 2)
            expect_run(&v, "{\"argv\":[\"true\"]}",
                       "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    }
    expect_none_runs(&v);
    expect_fds(&v, fds);
    vm_close(&v);
}

Test(api_exec, a_vm_released_in_the_middle_ends_the_stream_with_an_error)
{
    struct vm v;
    struct dmn_conn c;
    char line[2000];
    struct vf_json *j;

    vm_open(&v);
    dmn_dial(&v.d, &c, "api.sock");
    dmn_ask(&c, "POST", v.exec, NULL, "{\"argv\":[\"hang\"]}");
    cr_assert_eq(dmn_head(&c), 200);
    free(dmn_call(&v.d, 204, "DELETE", v.path, NULL));
    cr_assert(dmn_line(&c, line, sizeof(line)));
    j = vf_json_parse(line, strlen(line));
    cr_expect_str_neq(dmn_str(j, "error.code"), "", "%s", line);
    cr_expect_str_neq(dmn_str(j, "error.message"), "");
    vf_json_delete(j);
    cr_expect_not(dmn_line(&c, line, sizeof(line)));
    dmn_hang_up(&c);
    dmn_close(&v.d);
}

/* A real VMM, killed while commands run in its guest: both forms are told. */
Test(api_exec, a_vmm_that_dies_ends_the_streams_with_an_error)
{
    const char *missing = fac_missing(false, VF_ACCEL_TCG);
    char spec[1000], line[2000], pid[16];
    struct vm v;
    struct vf_json *j;
    struct dmn_conn plain, up;
    const char *data;
    size_t len;
    int type;

    if (missing != NULL)
        sup_skip("api_exec", "a_vmm_that_dies", "%s", missing);
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
    upgrade(&v, &up, "{\"argv\":[\"hang\"]}");
    cr_assert_gt(atoi(pid), 1);
    cr_assert_eq(kill(atoi(pid), SIGKILL), 0);
    cr_assert(dmn_line(&plain, line, sizeof(line)));
    cr_expect_not_null(strstr(line, "{\"error\":{\"code\":\"vmm_died\""), "%s", line);
    cr_expect_not(dmn_line(&plain, line, sizeof(line)));
    while ((type = receive_frame(&up, &data, &len)) == VF_EXEC_STDOUT || type == VF_EXEC_STDERR)
        ;
    cr_expect_eq(type, VF_EXEC_EXIT);
    cr_expect_not_null(strstr(data, "{\"error\":{\"code\":\"vmm_died\""), "%s", data);
    dmn_hang_up(&plain);
    dmn_hang_up(&up);
    j = dmn_json(&v.d, 200, "GET", v.path, NULL);
    cr_expect_str_eq(dmn_str(j, "state"), "dead");
    cr_expect_str_eq(dmn_str(j, "death.code"), "vmm_died");
    vf_json_delete(j);
    vm_close(&v);
}

/* ---- the upgraded form */

static void expect_frame(struct dmn_conn *c, int type, const char *payload)
{
    const char *data = "";
    size_t len;

    cr_expect_eq(receive_frame(c, &data, &len), type);
    cr_expect_str_eq(data, payload, "%s", data);
}

Test(api_exec, frames_go_both_ways)
{
    struct vm v;
    struct dmn_conn c;

    vm_open(&v);
    upgrade(&v, &c, "{\"argv\":[\"cat\"]}");
    cr_assert(send_frame(&c, VF_EXEC_STDIN, "one", 3));
    expect_frame(&c, VF_EXEC_STDOUT, "one");
    cr_assert(send_frame(&c, VF_EXEC_STDIN, "two", 3));
    expect_frame(&c, VF_EXEC_STDOUT, "two");
    cr_assert(send_frame(&c, VF_EXEC_STDIN, "", 0));
    expect_frame(&c, VF_EXEC_STDOUT, "");
    expect_frame(&c, VF_EXEC_STDERR, "");
    expect_frame(&c, VF_EXEC_EXIT, "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}");
    dmn_await_close(&c);
    dmn_hang_up(&c);
    vm_close(&v);
}

/* What a client sends right behind its request belongs to the frames. */
Test(api_exec, frames_may_be_sent_with_the_request)
{
    struct vm v;
    struct dmn_conn c;
    char text[1000];
    static const char body[] = "{\"argv\":[\"cat\"]}";
    int n;

    vm_open(&v);
    n = snprintf(text, sizeof(text),
                 "POST %s HTTP/1.1\r\nHost: x\r\n" UPGRADE "Content-Length: %zu\r\n\r\n%s", v.exec,
                 sizeof(body) - 1, body);
    vf_exec_frame_header((uint8_t *)text + n, VF_EXEC_STDIN, 5);
    memcpy(text + n + 8, "early", 5);
    vf_exec_frame_header((uint8_t *)text + n + 13, VF_EXEC_STDIN, 0);
    dmn_dial(&v.d, &c, "api.sock");
    cr_assert(dmn_send(&c, text, (size_t)n + 21));
    cr_assert_eq(dmn_head(&c), 101);
    expect_frame(&c, VF_EXEC_STDOUT, "early");
    expect_frame(&c, VF_EXEC_STDOUT, "");
    dmn_hang_up(&c);
    vm_close(&v);
}

Test(api_exec, a_signal_reaches_the_command)
{
    struct vm v;
    struct dmn_conn c;

    vm_open(&v);
    upgrade(&v, &c, "{\"argv\":[\"hang\"]}");
    cr_assert(send_frame(&c, VF_EXEC_SIGNAL, "\0\0\0\x0f", 4));
    expect_frame(&c, VF_EXEC_STDOUT, "");
    expect_frame(&c, VF_EXEC_STDERR, "");
    expect_frame(&c, VF_EXEC_EXIT, "{\"exit\":{\"code\":null,\"signal\":15,\"timed_out\":false}}");
    dmn_await_close(&c);
    dmn_hang_up(&c);
    vm_close(&v);
}

Test(api_exec, errors_before_the_upgrade_are_answers)
{
    struct vm v;
    struct dmn_conn c;

    vm_open(&v);
    dmn_dial(&v.d, &c, "api.sock");
    dmn_ask(&c, "POST", v.exec, UPGRADE, "{\"argv\":[\"cat\"],\"stdin\":\"x\"}");
    cr_expect_eq(dmn_head(&c), 400);
    free(dmn_rest(&c));
    dmn_ask(&c, "POST", "/v1/vms/nobody/exec", UPGRADE, "{\"argv\":[\"cat\"]}");
    cr_expect_eq(dmn_head(&c), 404);
    free(dmn_rest(&c));
    dmn_hang_up(&c);
    vm_close(&v);
}

Test(api_exec, a_frame_that_is_none_ends_the_command)
{
    static const uint8_t bad[][8] = {
        {9, 0, 0, 0, 0, 0, 0, 1}, {0, 1, 0, 0, 0, 0, 0, 1}, {0, 0, 0, 0, 255, 0, 0, 0}};
    struct vm v;

    vm_open(&v);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct dmn_conn c;
        const char *data;
        size_t len;
        int type;

        upgrade(&v, &c, "{\"argv\":[\"hang\"]}");
        cr_assert(dmn_send(&c, bad[i], 8));
        while ((type = receive_frame(&c, &data, &len)) == VF_EXEC_STDOUT || type == VF_EXEC_STDERR)
            ;
        cr_expect_eq(type, VF_EXEC_EXIT);
        cr_expect_not_null(strstr(data, "\"protocol\""), "%s", data);
        dmn_await_close(&c);
        dmn_hang_up(&c);
    }
    expect_none_runs(&v);
    vm_close(&v);
}

/* A command that reads nothing, a client that sends and sends: it is stopped, and the daemon keeps little. */
Test(api_exec, stdin_that_nobody_reads_stops_the_client)
{
    struct vm v;
    struct dmn_conn c;
    static char piece[VF_EXEC_FRAME_MAX];
    uint8_t head[VF_EXEC_FRAME_HEADER];
    int64_t before, sent = 0;

    vm_open(&v);
    before = dmn_rss_kib(&v.d);
    upgrade(&v, &c, "{\"argv\":[\"hang\"]}");
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
    cr_expect_lt(dmn_rss_kib(&v.d), before + HELD_BACK_KIB);
    dmn_hang_up(&c);
    expect_none_runs(&v);
    vm_close(&v);
}

Test(api_exec, a_flood_of_frames_waits_for_a_slow_reader)
{
    struct vm v;
    struct dmn_conn c;
    char body[64];
    const char *data;
    size_t len;
    int64_t before, all = 0;
    int type;

    vm_open(&v);
    before = dmn_rss_kib(&v.d);
    snprintf(body, sizeof(body), "{\"argv\":[\"flood\",\"%d\"]}", FLOOD_MIB << 20);
    upgrade(&v, &c, body);
    wait_full(&v, &c);
    cr_expect_lt(dmn_rss_kib(&v.d), before + HELD_BACK_KIB);
    while ((type = receive_frame(&c, &data, &len)) == VF_EXEC_STDOUT && len > 0)
        all += (int64_t)len;
    cr_expect_eq(all, (int64_t)FLOOD_MIB << 20);
    cr_expect_eq(type, VF_EXEC_STDOUT);
    expect_frame(&c, VF_EXEC_STDERR, "");
    expect_frame(&c, VF_EXEC_EXIT, "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}");
    dmn_hang_up(&c);
    vm_close(&v);
}

Test(api_exec, who_closes_an_upgraded_connection_kills_the_command)
{
    struct vm v;
    int fds;

    vm_open(&v);
    free(run(&v, "{\"argv\":[\"true\"]}"));
    fds = dmn_fds(&v.d);
    for (int i = 0; i < 100; i++) {
        struct dmn_conn c;

        upgrade(&v, &c, i % 2 ? "{\"argv\":[\"hang\"]}" : "{\"argv\":[\"flood\",\"100000000\"]}");
        if (i % 4 < 2)
            cr_assert_eq(shutdown(c.fd, SHUT_WR), 0);
        if (i % 4 == 1)
            dmn_await_close(&c);
        dmn_hang_up(&c);
        if (i % 2)
            expect_run(&v, "{\"argv\":[\"true\"]}",
                       "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    }
    expect_none_runs(&v);
    expect_fds(&v, fds);
    vm_close(&v);
}

/* The daemon stops while commands of both forms run: their connections end, and it ends in order. */
Test(api_exec, stopping_ends_the_connections)
{
    struct vm v;
    struct dmn_conn plain, up, idle;

    vm_open(&v);
    dmn_dial(&v.d, &plain, "api.sock");
    dmn_ask(&plain, "POST", v.exec, NULL, "{\"argv\":[\"hang\"]}");
    cr_assert_eq(dmn_head(&plain), 200);
    upgrade(&v, &up, "{\"argv\":[\"flood\",\"100000000\"]}");
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

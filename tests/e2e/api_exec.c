/* Commands over the API in the plain form: lines, ends, floods, slow readers, callers that leave. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/e2e/exec_support.h"

TestSuite(api_exec, .timeout = 120);

Test(api_exec, output_and_status_come_as_lines)
{
    struct exe v;
    char *got;

    exe_open(&v);
    exe_expect_run(&v, "{\"argv\":[\"echo\",\"a\",\"b\"]}",
                   "{\"stream\":\"stdout\",\"data\":\"a b\\n\"}\n"
                   "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    exe_expect_run(&v, "{\"argv\":[\"complain\",\"\\u00fc\"]}",
                   "{\"stream\":\"stderr\",\"data\":\"\xc3\xbc\\n\"}\n"
                   "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    exe_expect_run(&v, "{\"argv\":[\"exit\",\"7\"]}",
                   "{\"exit\":{\"code\":7,\"signal\":null,\"timed_out\":false}}\n");
    exe_expect_run(&v, "{\"argv\":[\"hang\"],\"timeout_ms\":20}",
                   "{\"exit\":{\"code\":null,\"signal\":9,\"timed_out\":true}}\n");
    exe_expect_run(&v, "{\"argv\":[\"cat\"]}",
                   "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    got = exe_run(&v, "{\"argv\":[\"no-such-program\"]}");
    cr_expect_eq(strncmp(got, "{\"error\":{\"code\":\"guest_failed\"", 30), 0, "%s", got);
    free(got);
    exe_close(&v);
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
    struct exe v;
    char *long_body = malloc(40000);
    size_t n;

    exe_open(&v);
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
    exe_close(&v);
}

/* Long stdin goes through the guest's window in pieces, and comes back as it was. */
Test(api_exec, long_stdin_is_fed_as_the_guest_takes_it)
{
    struct exe v;
    size_t size = 600000, all = 0;
    char *body = malloc(size + 100), line[70000];
    struct dmn_conn c;
    int n = sprintf(body, "{\"argv\":[\"cat\"],\"stdin\":\"");
    bool ended = false;

    for (size_t i = 0; i < size; i++)
        body[n + (int)i] = (char)('a' + i % 26);
    strcpy(body + n + size, "\"}");
    exe_open(&v);
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
    exe_close(&v);
}

Test(api_exec, a_flood_waits_for_a_slow_reader)
{
    struct exe v;
    struct dmn_conn c;
    char body[64];
    static char line[70000];
    int64_t before, all = 0;
    bool ended = false;

    exe_open(&v);
    free(exe_run(&v,
                 "{\"argv\":[\"flood\",\"1000000\"]}")); /* the memory that this takes is taken */
    before = dmn_rss_kib(&v.d);
    dmn_dial(&v.d, &c, "api.sock");
    snprintf(body, sizeof(body), "{\"argv\":[\"flood\",\"%d\"]}", EXE_FLOOD_MIB << 20);
    dmn_ask(&c, "POST", v.exec, NULL, body);
    exe_wait_full(&v, &c);
    cr_expect_lt(dmn_rss_kib(&v.d), before + EXE_HELD_BACK_KIB);
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
    cr_expect_eq(all, (int64_t)EXE_FLOOD_MIB << 20);
    cr_expect(ended);
    cr_expect_lt(dmn_rss_kib(&v.d), before + EXE_HELD_BACK_KIB);
    dmn_hang_up(&c);
    exe_close(&v);
}

/* Many more than a guest would run at once: each must have ended when its caller went. */
Test(api_exec, who_hangs_up_kills_the_command)
{
    struct exe v;
    int fds;

    exe_open(&v);
    free(exe_run(&v, "{\"argv\":[\"true\"]}"));
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
            exe_expect_run(&v, "{\"argv\":[\"true\"]}",
                           "{\"exit\":{\"code\":0,\"signal\":null,\"timed_out\":false}}\n");
    }
    exe_expect_none_runs(&v);
    exe_expect_fds(&v, fds);
    exe_close(&v);
}

Test(api_exec, a_vm_released_in_the_middle_ends_the_stream_with_an_error)
{
    struct exe v;
    struct dmn_conn c;
    char line[2000];
    struct vf_json *j;

    exe_open(&v);
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

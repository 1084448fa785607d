/* What VMMs answer as an error, in every form, and the heads of answers. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "vmm/http_internal.h"

static void expect_text(const char *body, const char *text)
{
    struct vf_error err;
    vf_vmm_http_error("vm.boot", 500, body, strlen(body), &err);
    cr_expect_eq(err.code, VF_VMM_FAILED);
    cr_expect_eq(strncmp(err.msg, "vm.boot: 500: ", 14), 0, "%s", err.msg);
    cr_expect_str_eq(err.msg + 14, text, "%s", body);
}

Test(vmm_http_error, an_array_of_strings)
{
    expect_text("[\"Error from API\",\"Cannot open\",\"No such file (os error 2)\"]",
                "Cannot open: No such file (os error 2)");
    expect_text("[\"alone\"]", "alone");
    expect_text("[\"a\",\"\",\"b\",\"\"]", "a: b");
    /* An outer one that holds the inner, and the other way round. */
    expect_text("[\"x\",\"Cannot open: denied\",\"denied\"]", "Cannot open: denied");
    expect_text("[\"x\",\"denied\",\"Cannot open: denied\"]", "Cannot open: denied");
}

Test(vmm_http_error, arrays_of_something_else)
{
    expect_text("[]", "[]");
    expect_text("[1,2]", "[1,2]");
    expect_text("[\"a\",7]", "a");
    expect_text("[[\"a\"]]", "[[\"a\"]]");
}

Test(vmm_http_error, fault_message)
{
    expect_text("{\"fault_message\":\"Load snapshot: bad magic\"}", "Load snapshot: bad magic");
    expect_text("{\"fault_message\":7}", "{\"fault_message\":7}");
    expect_text("{\"fault\":\"x\"}", "{\"fault\":\"x\"}");
}

Test(vmm_http_error, plain_text)
{
    expect_text("InternalServerError(VmBoot)", "InternalServerError(VmBoot)");
    expect_text("\"quoted\"", "quoted");
    expect_text("", "no reason given");
    expect_text("  \n ", "no reason given");
}

Test(vmm_http_error, what_must_not_reach_a_terminal)
{
    expect_text("a\x1b[31mred\r\nb\tc\x7f", "a [31mred b c");
    expect_text("[\"a\\u001b]0;x\\u0007\"]", "a ]0;x");
    expect_text("bad \xff\xc3 utf", "bad ?? utf");
}

Test(vmm_http_error, a_long_one_is_cut)
{
    static char body[100000];
    struct vf_error err;
    memset(body, 'x', sizeof(body));
    vf_vmm_http_error("vm.boot", 500, body, sizeof(body), &err);
    cr_expect_leq(strlen(err.msg), 420);
    body[0] = '[', body[1] = '"';
    body[sizeof(body) - 2] = '"', body[sizeof(body) - 1] = ']';
    vf_vmm_http_error("vm.boot", 500, body, sizeof(body), &err);
    cr_expect_leq(strlen(err.msg), 420);
    cr_expect_eq(err.msg[14], 'x');
}

/* ---- heads */

static int parse(const char *text, struct vf_vmm_http_head *head)
{
    struct vf_error err;
    int r = vf_vmm_http_parse_head(text, strlen(text), head, &err);
    if (r < 0)
        cr_expect_eq(err.code, VF_PROTOCOL, "%s", err.msg);
    return r;
}

Test(vmm_http_head, whole)
{
    struct vf_vmm_http_head h;
    cr_expect_eq(parse("HTTP/1.1 200 OK\r\ncontent-LENGTH: \t7 \r\n\r\n1234567", &h), 1);
    cr_expect_eq(h.status, 200);
    cr_expect_eq(h.body_len, 7);
    cr_expect_eq(h.len, 40);
    cr_expect_eq(parse("HTTP/1.0 204 \r\nServer: x\r\n\r\n", &h), 1);
    cr_expect_eq(h.status, 204);
    cr_expect_eq(h.body_len, 0);
    cr_expect_eq(parse("HTTP/1.1 400\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", &h), 1);
    cr_expect_eq(h.status, 400);
}

Test(vmm_http_head, any_part_of_it_is_waited_for)
{
    struct vf_vmm_http_head h;
    const char *text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n";
    for (size_t n = 0; n < strlen(text); n++)
        cr_expect_eq(vf_vmm_http_parse_head(text, n, &h, NULL), 0, "%zu", n);
    cr_expect_eq(parse(text, &h), 1);
    cr_expect_eq(h.len, strlen(text));
    cr_expect_eq(h.status, 200);
}

Test(vmm_http_head, refused)
{
    static const char *const texts[] = {
        "x",
        "HTTP/2 200 OK\r\n\r\n",
        "\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4194305\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nhello there",
    };
    struct vf_vmm_http_head h;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
        cr_expect_eq(parse(texts[i], &h), -EPROTO, "%s", texts[i]);
    static const char nul[] = "HTTP/1.1 200 OK\r\nA: \0b\r\nContent-Length: 0\r\n\r\n";
    cr_expect_eq(vf_vmm_http_parse_head(nul, sizeof(nul) - 1, &h, NULL), -EPROTO);
}

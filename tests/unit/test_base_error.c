/* Error codes, messages, wrapping and cutting. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "base/error.h"
#include "base/utf8.h"

Test(base_error, every_code_has_a_name_and_an_errno_that_leads_back)
{
    for (int i = 0; i < VF_CODE_COUNT; i++) {
        enum vf_code code = (enum vf_code)i;

        cr_expect_not_null(vf_code_name(code), "code %d", i);
        cr_expect_eq(vf_code_from_errno(vf_code_errno(code)), code, "%s", vf_code_name(code));
        for (int k = 0; k < i; k++)
            cr_expect_str_neq(vf_code_name(code), vf_code_name((enum vf_code)k));
    }
    cr_expect_eq(vf_code_errno(VF_OK), 0);
    cr_expect_str_eq(vf_code_name(VF_INVALID_ARGUMENT), "invalid_argument");
    cr_expect_eq(vf_code_errno(VF_VMM_DIED), -EPIPE);
    cr_expect_str_eq(vf_code_name((enum vf_code)999), "internal");
    cr_expect_eq(vf_code_errno((enum vf_code) - 1), -EFAULT);
}

Test(base_error, errnos_of_either_sign_find_their_code)
{
    cr_expect_eq(vf_code_from_errno(ENOENT), VF_NOT_FOUND);
    cr_expect_eq(vf_code_from_errno(-ENOENT), VF_NOT_FOUND);
    cr_expect_eq(vf_code_from_errno(EADDRINUSE), VF_CONFLICT);
    cr_expect_eq(vf_code_from_errno(EROFS), VF_PERMISSION);
    cr_expect_eq(vf_code_from_errno(ENAMETOOLONG), VF_INVALID_ARGUMENT);
    cr_expect_eq(vf_code_from_errno(EDQUOT), VF_NO_SPACE);
    cr_expect_eq(vf_code_from_errno(ENOTSOCK), VF_IO);
    cr_expect_eq(vf_code_from_errno(123456), VF_IO);
}

Test(base_error, fail_sets_code_and_message_and_clears_the_hint)
{
    struct vf_error err = {.code = VF_IO, .msg = "old", .hint = "old"};

    cr_expect_eq(vf_fail(&err, VF_TIMEOUT, "%s after %d ms", "boot", 5), -ETIMEDOUT);
    cr_expect_eq(err.code, VF_TIMEOUT);
    cr_expect_str_eq(err.msg, "boot after 5 ms");
    cr_expect_str_empty(err.hint);
}

Test(base_error, a_system_calls_errno_is_named)
{
    struct vf_error err;

    cr_expect_eq(vf_fail_errno(&err, -EACCES, "open %s", "x"), -EACCES);
    cr_expect_str_eq(err.msg, "open x: Permission denied");
    cr_expect_eq(err.code, VF_PERMISSION);
    cr_expect_eq(vf_fail_errno(&err, 4711, "odd"), -EIO);
    cr_expect_str_eq(err.msg, "odd: errno 4711");
    cr_expect_str_empty(err.hint);
    cr_expect_eq(vf_fail_errno(&err, EMFILE, "socket"), -EAGAIN);
    cr_expect(strstr(err.hint, "LimitNOFILE"), "%s", err.hint);
}

Test(base_error, a_broken_pipe_is_no_dead_vmm)
{
    struct vf_error err;

    cr_expect_eq(vf_fail_errno(&err, EPIPE, "stdout"), -EIO);
    cr_expect_eq(err.code, VF_IO);
    cr_expect_eq(vf_fail_errno(&err, 0, "nothing"), -EIO, "a failure is never a success");
}

Test(base_error, layers_wrap_and_the_innermost_hint_stays)
{
    struct vf_error err;

    vf_fail(&err, VF_CORRUPT, "short read");
    cr_expect_eq(vf_hint(&err, "rebuild %s", "it"), -EBADMSG);
    vf_hint(&err, "outer");
    cr_expect_eq(vf_wrap(&err, "state file"), -EBADMSG);
    vf_wrap(&err, "template %s", "web");
    cr_expect_str_eq(err.msg, "template web: state file: short read");
    cr_expect_str_eq(err.hint, "rebuild it");
}

Test(base_error, an_errors_own_text_may_be_an_argument)
{
    struct vf_error err;

    vf_fail(&err, VF_IO, "inner");
    vf_fail(&err, VF_TIMEOUT, "outer (%s)", err.msg);
    cr_expect_str_eq(err.msg, "outer (inner)");
    vf_wrap(&err, "again %s", err.msg);
    cr_expect_str_eq(err.msg, "again outer (inner): outer (inner)");
    vf_hint(&err, "see %s", err.msg);
    cr_expect_str_eq(err.hint, "see again outer (inner): outer (inner)");
}

Test(base_error, null_is_taken_everywhere)
{
    struct vf_error err;

    cr_expect_eq(vf_fail(NULL, VF_BUSY, "x"), -EAGAIN);
    cr_expect_eq(vf_fail_errno(NULL, ENOSPC, "x"), -ENOSPC);
    cr_expect_lt(vf_wrap(NULL, "x"), 0);
    cr_expect_lt(vf_hint(NULL, "x"), 0);
    vf_fail(&err, VF_BUSY, "x");
    cr_expect_eq(vf_error_copy(NULL, &err), -EAGAIN);
}

Test(base_error, copy_takes_everything)
{
    struct vf_error a, b;

    vf_fail(&a, VF_CONFLICT, "taken");
    vf_hint(&a, "free it");
    cr_expect_eq(vf_error_copy(&b, &a), -EBUSY);
    cr_expect_eq(b.code, VF_CONFLICT);
    cr_expect_str_eq(b.msg, "taken");
    cr_expect_str_eq(b.hint, "free it");
}

static void expect_whole_characters(const char *s)
{
    size_t len = strlen(s);

    for (size_t i = 0, n; i < len; i += n) {
        n = vf_utf8_next(s + i, len - i, NULL);
        cr_assert_neq(n, 0, "invalid UTF-8 at %zu of %zu", i, len);
    }
}

Test(base_error, long_messages_are_cut_between_characters)
{
    struct vf_error err;
    char text[3000];

    /* every alignment of a three-byte character against the end of the buffer */
    for (int shift = 0; shift < 3; shift++) {
        size_t len = (size_t)shift;

        memset(text, 'x', len);
        while (len + 3 < sizeof(text)) {
            memcpy(text + len, "€", 3);
            len += 3;
        }
        text[len] = '\0';
        vf_fail(&err, VF_IO, "%s", text);
        cr_expect_geq(strlen(err.msg), sizeof(err.msg) - 4);
        expect_whole_characters(err.msg);
        vf_wrap(&err, "y%.*s", shift, "zz");
        cr_expect_eq(err.msg[0], 'y');
        cr_expect_geq(strlen(err.msg), sizeof(err.msg) - 4);
        expect_whole_characters(err.msg);
        vf_fail_errno(&err, EIO, "%s", text);
        expect_whole_characters(err.msg);
        vf_hint(&err, "%s", text);
        cr_expect_geq(strlen(err.hint), sizeof(err.hint) - 4);
        expect_whole_characters(err.hint);
    }
}

Test(base_error, messages_are_one_line_of_valid_utf8)
{
    struct vf_error err;

    vf_fail(&err, VF_IO, "%s", "a\nb\tc\x1b[31m\x7f\xff é \xe2\x80\xae.");
    cr_expect_str_eq(err.msg, "a b c?[31m?? é ?.");
}

Test(base_utf8, only_valid_characters_count)
{
    static const struct {
        const char *bytes;
        size_t n;
        uint32_t cp;
    } cases[] = {
        {"a", 1, 'a'},
        {"\xc2\x80", 2, 0x80},
        {"\xe2\x82\xac", 3, 0x20ac},
        {"\xf0\x90\x80\x80", 4, 0x10000},
        {"\xf4\x8f\xbf\xbf", 4, 0x10ffff},
        {"\x80", 0, 0},             /* a follower alone */
        {"\xc1\xbf", 0, 0},         /* overlong */
        {"\xe0\x9f\xbf", 0, 0},     /* overlong */
        {"\xf0\x8f\xbf\xbf", 0, 0}, /* overlong */
        {"\xed\xa0\x80", 0, 0},     /* surrogate */
        {"\xf4\x90\x80\x80", 0, 0}, /* above U+10FFFF */
        {"\xf8\x88\x80\x80", 0, 0}, /* five bytes */
        {"\xe2\x82", 0, 0},         /* cut */
        {"\xe2\x28\xa1", 0, 0},     /* broken off */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t cp = 0;

        cr_expect_eq(vf_utf8_next(cases[i].bytes, strlen(cases[i].bytes), &cp), cases[i].n,
                     "case %zu", i);
        cr_expect_eq(cp, cases[i].cp, "case %zu", i);
    }
    cr_expect_eq(vf_utf8_next("", 0, NULL), 0);
}

Test(base_utf8, cut_leaves_whole_characters)
{
    cr_expect_eq(vf_utf8_cut("a€", 4), 4);
    cr_expect_eq(vf_utf8_cut("a€", 3), 1);
    cr_expect_eq(vf_utf8_cut("a€", 2), 1);
    cr_expect_eq(vf_utf8_cut("a\xf0\x90\x80\x80", 4), 1);
    cr_expect_eq(vf_utf8_cut("ab", 2), 2);
    cr_expect_eq(vf_utf8_cut("", 0), 0);
}

/* Edits in JSON text: what they change, and that they change nothing else. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/cloud_hypervisor.h"

static void expect(const char *text, const struct vf_ch_edit *edits, size_t n, const char *result)
{
    struct vf_error err;
    char *got = NULL;
    cr_assert_eq(vf_ch_patch(text, strlen(text), edits, n, &got, &err), 0, "%s: %s", text, err.msg);
    cr_expect_str_eq(got, result);
    free(got);
}

static void expect_one(const char *text, const char *path, const char *value, const char *result)
{
    struct vf_ch_edit e = {.value = value};
    snprintf(e.path, sizeof(e.path), "%s", path);
    expect(text, &e, 1, result);
}

static void expect_refused(const char *text, const char *path, const char *words)
{
    struct vf_error err;
    char *got = NULL;
    struct vf_ch_edit e = {.value = "1"};
    snprintf(e.path, sizeof(e.path), "%s", path);
    cr_assert_eq(vf_ch_patch(text, strlen(text), &e, 1, &got, &err), vf_code_errno(VF_CORRUPT));
    cr_expect_not_null(strstr(err.msg, words), "%s", err.msg);
    cr_expect_null(got);
}

Test(cloud_hypervisor_patch, what_is_not_named_stays_as_it_is_written)
{
    const char *text =
        "{\"a\":18446744073709551615,\"b\":1e400,\"c\":-0.10000000000000000001,"
        "\"d\":\"\\u0041\\\"\\\\,}]\",\"e\":[true,false,null,[],{}],\"\":{\"x y\":1}}";
    expect(text, NULL, 0, text);
}

Test(cloud_hypervisor_patch, space_between_values)
{
    expect_one(" {\n \"a\" : [ 1 , 2 ] ,\t\"b\" : 7 \r\n} \n", "b", "8", "{\"a\":[1,2],\"b\":8}");
}

Test(cloud_hypervisor_patch, replaces)
{
    expect_one("{\"a\":1,\"b\":{\"c\":[1,{\"d\":\"}\"}]},\"e\":2}", "b", "0",
               "{\"a\":1,\"b\":0,\"e\":2}");
    expect_one("{\"z\":[{\"s\":1},{\"s\":2}]}", "z.1.s", "false",
               "{\"z\":[{\"s\":1},{\"s\":false}]}");
    expect_one("{\"a\":\"x\"}", "a", "{\"b\":[]}", "{\"a\":{\"b\":[]}}");
}

Test(cloud_hypervisor_patch, removes)
{
    expect_one("{\"a\":1,\"b\":2,\"c\":3}", "a", NULL, "{\"b\":2,\"c\":3}");
    expect_one("{\"a\":1,\"b\":2,\"c\":3}", "b", NULL, "{\"a\":1,\"c\":3}");
    expect_one("{\"a\":1,\"b\":2,\"c\":3}", "c", NULL, "{\"a\":1,\"b\":2}");
    expect_one("{\"a\":{\"b\":[1,2]}}", "a", NULL, "{}");
    expect_one("{\"a\":1}", "b", NULL, "{\"a\":1}");
    expect_one("{\"a\":1}", "b.c", NULL, "{\"a\":1}");
}

Test(cloud_hypervisor_patch, adds)
{
    expect_one("{}", "a", "1", "{\"a\":1}");
    expect_one("{\"a\":{}}", "a.b", "1", "{\"a\":{\"b\":1}}");
    expect_one("{\"a\":[{\"x\":0}]}", "a.0.fds", "[-1]", "{\"a\":[{\"x\":0,\"fds\":[-1]}]}");
    /* Not to an object whose path only begins alike. */
    expect_one("{\"ab\":{},\"a\":{}}", "a.c", "1", "{\"ab\":{},\"a\":{\"c\":1}}");
}

Test(cloud_hypervisor_patch, many_at_once)
{
    const struct vf_ch_edit edits[] = {{"m.z.0.f", "\"/x\""},
                                       {"m.s", "false"},
                                       {"t", NULL},
                                       {"n.1.tap", NULL},
                                       {"n.1.fds", "[-1,-1]"}};
    expect("{\"m\":{\"s\":true,\"z\":[{\"f\":\"/long/path\",\"size\":9007199254740993}]},\"t\":[],"
           "\"n\":[{\"tap\":\"a\"},{\"tap\":\"b\",\"q\":4}]}",
           edits, 5,
           "{\"m\":{\"s\":false,\"z\":[{\"f\":\"/x\",\"size\":9007199254740993}]},"
           "\"n\":[{\"tap\":\"a\"},{\"q\":4,\"fds\":[-1,-1]}]}");
}

Test(cloud_hypervisor_patch, refused)
{
    expect_refused("{\"a\":1}", "b.c", "has no place for b.c");
    expect_refused("{\"a\":[]}", "a.0.b", "has no place for a.0.b");
    expect_refused("{\"a\":[1]}", "a.0.b", "has no place for a.0.b");
    expect_refused("{\"a\":1", "a", "is no JSON object");
    expect_refused("[1]", "a", "is no JSON object");
    expect_refused("", "a", "is no JSON object");
    expect_refused("{\"a\":1}{", "a", "is no JSON object");
}

/* Which of two would count? And what is longer than what it replaces has room for one only. */
Test(cloud_hypervisor_patch, twice)
{
    expect_refused("{\"a\":1,\"a\":2}", "a", "names a twice");
    expect_refused("{\"m\":{\"a\":1},\"m\":{\"a\":2}}", "m.a", "names m.a twice");
    expect_refused("{\"m\":{},\"m\":{\"a\":2}}", "m.a", "names m.a twice");
    char *got = NULL, text[6 * 500 + 8] = "{";
    struct vf_error err;
    struct vf_ch_edit e = {"a", "\"a value that is far longer than what stands there now\""};
    for (int i = 0; i < 500; i++)
        strcat(text, i ? ",\"a\":1" : "\"a\":1");
    strcat(text, "}");
    cr_expect_eq(vf_ch_patch(text, strlen(text), &e, 1, &got, &err), vf_code_errno(VF_CORRUPT));
    cr_expect_null(got);
}

/* A path longer than any edit's is only not found. */
Test(cloud_hypervisor_patch, long_names)
{
    char text[3000], name[1200];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    snprintf(text, sizeof(text), "{\"%s\":{\"%s\":1},\"a\":2}", name, name);
    char *got = NULL;
    struct vf_ch_edit e = {"a", "3"};
    cr_assert_eq(vf_ch_patch(text, strlen(text), &e, 1, &got, NULL), 0);
    cr_expect_eq(got[strlen(got) - 2], '3');
    cr_expect_eq(strlen(got), strlen(text));
    free(got);
}

/* Decoding by tables: what is taken, and for each refusal the path and the words. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"

static const char *const machine_names[] = {"microvm", "q35", NULL};
static const char *const letters[] = {"alpha", "beta", "gamma", NULL};

struct memory {
    bool pad; /* offset 0 can't be a `present` */
    bool given;
    int64_t size_mib;
    bool shared;
};
struct disk {
    char *path;
    int64_t size;
    struct vf_strv tags;
};
struct spec {
    char *name;
    int machine, letter;
    int64_t any; /* the whole of int64 */
    int64_t port;
    struct memory memory;
    bool memory_given;
    struct vf_strv args;
    struct vf_json_array disks;
    struct vf_json_array warmup;
};

static const struct vf_json_field memory_fields[] = {
    {.name = "size_mib",
     .type = VF_JSON_INT,
     .offset = offsetof(struct memory, size_mib),
     .min = 16,
     .max = 1048576,
     .required = true,
     .present = offsetof(struct memory, given)},
    {.name = "shared", .type = VF_JSON_BOOL, .offset = offsetof(struct memory, shared)},
    {0},
};
static const struct vf_json_field disk_fields[] = {
    {.name = "path",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct disk, path),
     .min = 1,
     .required = true},
    {.name = "size", .type = VF_JSON_INT, .offset = offsetof(struct disk, size), .max = 100},
    {.name = "tags", .type = VF_JSON_STRING_ARRAY, .offset = offsetof(struct disk, tags)},
    {0},
};
static const struct vf_json_field fields[] = {
    {.name = "name",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct spec, name),
     .min = 2,
     .max = 8},
    {.name = "machine",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct spec, machine),
     .choices = machine_names},
    {.name = "letter",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct spec, letter),
     .choices = letters},
    {.name = "any",
     .type = VF_JSON_INT,
     .offset = offsetof(struct spec, any),
     .min = INT64_MIN,
     .max = INT64_MAX},
    {.name = "port",
     .type = VF_JSON_INT,
     .offset = offsetof(struct spec, port),
     .min = 1,
     .max = 65535},
    {.name = "memory",
     .type = VF_JSON_OBJECT,
     .offset = offsetof(struct spec, memory),
     .fields = memory_fields,
     .present = offsetof(struct spec, memory_given)},
    {.name = "args",
     .type = VF_JSON_STRING_ARRAY,
     .offset = offsetof(struct spec, args),
     .min = 1,
     .max = 3},
    {.name = "disks",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = offsetof(struct spec, disks),
     .max = 2,
     .fields = disk_fields,
     .item_size = sizeof(struct disk)},
    {.name = "warmup", .type = VF_JSON_STRING_ARRAYS, .offset = offsetof(struct spec, warmup)},
    {0},
};

static int decode_n(const char *text, size_t len, struct spec *s, const char *where,
                    struct vf_error *err)
{
    /* A copy of exactly that size: a sanitizer sees a byte read too far. */
    char *copy = (char *)malloc(len > 0 ? len : 1);
    int r;

    cr_assert_not_null(copy);
    memcpy(copy, text, len);
    r = vf_json_decode(copy, len, 65536, fields, s, where, err);
    free(copy);
    return r;
}

static void expect_refused_n(const char *text, size_t len, const char *message)
{
    struct spec s = {0};
    struct vf_error err = {0};

    cr_expect_eq(decode_n(text, len, &s, NULL, &err), -EINVAL, "taken: %s", text);
    cr_expect_eq(err.code, VF_INVALID_ARGUMENT);
    cr_expect_str_eq(err.msg, message, "for %s:\n  is  %s\n  not %s", text, err.msg, message);
    vf_json_free(fields, &s);
}

static void expect_refused(const char *text, const char *message)
{
    expect_refused_n(text, strlen(text), message);
}

static void expect_taken(const char *text)
{
    struct spec s = {0};
    struct vf_error err = {0};

    cr_expect_eq(decode_n(text, strlen(text), &s, NULL, &err), 0, "%s: %s", text, err.msg);
    vf_json_free(fields, &s);
}

Test(base_json_decode, everything_arrives)
{
    struct spec s = {0};
    struct vf_error err;
    const char *text =
        " {\"name\":\"w\\u00e9b\\n\",\"machine\":\"q35\",\"any\":-5,\"port\":80,\r\n"
        "\t\"memory\":{\"shared\":true,\"size_mib\":256},\"args\":[\"a\",\"\"],"
        "\"disks\":[{\"path\":\"/a\",\"size\":7,\"tags\":[\"x\",\"y\"]},{\"path\":\"/b\"}],"
        "\"warmup\":[[\"ls\",\"-l\"],[],[\"\\ud83d\\ude00\"]]} \n";
    const struct disk *disks;
    const struct vf_strv *warmup;

    cr_assert_eq(decode_n(text, strlen(text), &s, NULL, &err), 0, "%s", err.msg);
    cr_expect_str_eq(s.name, "w\xc3\xa9"
                             "b\n");
    cr_expect_eq(s.machine, 1);
    cr_expect_eq(s.any, -5);
    cr_expect_eq(s.port, 80);
    cr_expect_eq(s.memory.size_mib, 256);
    cr_expect(s.memory.shared && s.memory.given && s.memory_given);
    cr_expect_not(s.memory.pad, "`present` 0 means none");
    cr_assert_eq(s.args.n, 2);
    cr_expect_str_eq(s.args.v[0], "a");
    cr_expect_str_eq(s.args.v[1], "");
    cr_expect_null(s.args.v[2]);
    cr_assert_eq(s.disks.n, 2);
    disks = (const struct disk *)s.disks.items;
    cr_expect_str_eq(disks[0].path, "/a");
    cr_expect_eq(disks[0].size, 7);
    cr_assert_eq(disks[0].tags.n, 2);
    cr_expect_str_eq(disks[0].tags.v[1], "y");
    cr_expect_str_eq(disks[1].path, "/b");
    cr_expect_eq(disks[1].size, 0);
    cr_assert_eq(s.warmup.n, 3);
    warmup = (const struct vf_strv *)s.warmup.items;
    cr_expect_eq(warmup[0].n, 2);
    cr_expect_eq(warmup[1].n, 0);
    cr_expect_str_eq(warmup[2].v[0], "\xf0\x9f\x98\x80");
    vf_json_free(fields, &s);
    cr_expect_null(s.name);
    cr_expect_null(s.args.v);
    cr_expect_null(s.disks.items);
    cr_expect_eq(s.warmup.n, 0);
    vf_json_free(fields, &s); /* twice is fine */
}

Test(base_json_decode, defaults_stay_where_a_key_is_absent_and_go_where_it_is_not)
{
    struct spec s = {.name = strdup("dflt"), .port = 22, .memory.size_mib = 64};
    struct vf_error err;

    cr_assert_eq(decode_n("{}", 2, &s, NULL, &err), 0, "%s", err.msg);
    cr_expect_str_eq(s.name, "dflt");
    cr_expect_eq(s.port, 22);
    cr_expect_not(s.memory_given || s.memory.given);
    cr_assert_eq(decode_n("{\"name\":\"new\"}", 14, &s, NULL, &err), 0, "%s", err.msg);
    cr_expect_str_eq(s.name, "new");
    cr_expect_eq(s.memory.size_mib, 64);
    vf_json_free(fields, &s);
}

Test(base_json_decode, int64_is_exact_to_its_ends)
{
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = {
        {"0", 0},
        {"-0", 0},
        {"9007199254740993", INT64_C(9007199254740993)}, /* 2^53 + 1: no double */
        {"-9007199254740993", -INT64_C(9007199254740993)},
        {"9223372036854775807", INT64_MAX},
        {"9223372036854775806", INT64_MAX - 1},
        {"-9223372036854775808", INT64_MIN},
        {"-9223372036854775807", INT64_MIN + 1},
    };
    struct vf_error err;
    char text[200];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spec s = {.any = 77};

        /* numbers before it, in strings too, must not be taken for it */
        snprintf(text, sizeof(text), "{\"name\":\"-1\\\"2\",\"port\":3,\"any\":%s}", cases[i].text);
        cr_assert_eq(decode_n(text, strlen(text), &s, NULL, &err), 0, "%s", err.msg);
        cr_expect_eq(s.any, cases[i].value, "%s", cases[i].text);
        cr_expect_eq(s.port, 3);
        vf_json_free(fields, &s);
    }
}

Test(base_json_decode, integers_out_of_their_limits)
{
    expect_refused("{\"port\":0}", "port: must be at least 1 (is 0)");
    expect_refused("{\"port\":-1}", "port: must be at least 1 (is -1)");
    expect_refused("{\"port\":65536}", "port: must be at most 65535 (is 65536)");
    expect_refused("{\"port\":99999999999999999999}",
                   "port: must be at most 65535 (is 99999999999999999999)");
    expect_refused("{\"port\":-99999999999999999999}",
                   "port: must be at least 1 (is -99999999999999999999)");
    expect_refused("{\"any\":9223372036854775808}",
                   "any: must be at most 9223372036854775807 (is 9223372036854775808)");
    expect_refused("{\"any\":-9223372036854775809}",
                   "any: must be at least -9223372036854775808 (is -9223372036854775809)");
    expect_refused("{\"memory\":{\"size_mib\":-1}}",
                   "memory.size_mib: must be at least 16 (is -1)");
    expect_refused("{\"disks\":[{\"path\":\"a\"},{\"path\":\"b\",\"size\":101}]}",
                   "disks[1].size: must be at most 100 (is 101)");
}

Test(base_json_decode, integers_have_no_fraction_or_exponent)
{
    expect_refused("{\"port\":1.0}",
                   "port: must be an integer, without fraction or exponent (is 1.0)");
    expect_refused("{\"port\":1e3}",
                   "port: must be an integer, without fraction or exponent (is 1e3)");
    expect_refused("{\"port\":2E0}",
                   "port: must be an integer, without fraction or exponent (is 2E0)");
}

Test(base_json_decode, types_are_not_bent)
{
    expect_refused("[]", "must be an object (is an array)");
    expect_refused("7", "must be an object (is a number)");
    expect_refused("null", "must be an object (is null)");
    expect_refused("{\"port\":\"80\"}", "port: must be an integer (is a string)");
    expect_refused("{\"port\":true}", "port: must be an integer (is true)");
    expect_refused("{\"port\":null}", "port: must be an integer (is null)");
    expect_refused("{\"name\":5}", "name: must be a string (is a number)");
    expect_refused("{\"name\":null}", "name: must be a string (is null)");
    expect_refused("{\"memory\":[]}", "memory: must be an object (is an array)");
    expect_refused("{\"memory\":{\"size_mib\":16,\"shared\":1}}",
                   "memory.shared: must be true or false (is a number)");
    expect_refused("{\"args\":\"x\"}", "args: must be an array (is a string)");
    expect_refused("{\"args\":[\"a\",7]}", "args[1]: must be a string (is a number)");
    expect_refused("{\"args\":{\"0\":\"a\"}}", "args: must be an array (is an object)");
    expect_refused("{\"disks\":[{\"path\":\"a\"},\"b\"]}",
                   "disks[1]: must be an object (is a string)");
    expect_refused("{\"disks\":[{\"path\":\"a\",\"tags\":[false]}]}",
                   "disks[0].tags[0]: must be a string (is false)");
    expect_refused("{\"warmup\":[\"ls\"]}", "warmup[0]: must be an array (is a string)");
    expect_refused("{\"warmup\":[[\"a\"],[\"b\",\"c\"],[null]]}",
                   "warmup[2][0]: must be a string (is null)");
    expect_refused("{\"machine\":1}", "machine: must be \"microvm\" or \"q35\" (is a number)");
}

Test(base_json_decode, lengths_have_limits)
{
    static char text[6000], a4096[4097];

    memset(a4096, 'a', 4096);
    expect_refused("{\"name\":\"\"}", "name: must not be empty");
    expect_refused("{\"name\":\"x\"}", "name: must have at least 2 bytes (has 1)");
    expect_refused("{\"name\":\"123456789\"}", "name: must have at most 8 bytes (has 9)");
    expect_refused("{\"name\":\"\\u20ac\\u20ac\\u20ac\"}",
                   "name: must have at most 8 bytes (has 9)");
    expect_taken("{\"name\":\"12345678\"}");
    expect_refused("{\"args\":[]}", "args: must have at least 1 item (has 0)");
    expect_refused("{\"args\":[\"1\",\"2\",\"3\",\"4\"]}",
                   "args: must have at most 3 items (has 4)");
    expect_refused("{\"disks\":[{\"path\":\"a\"},{\"path\":\"b\"},{\"path\":\"c\"}]}",
                   "disks: must have at most 2 items (has 3)");
    /* where the table says nothing: 4096 bytes, 256 items */
    snprintf(text, sizeof(text), "{\"disks\":[{\"path\":\"%s\"}],\"args\":[\"%.9s\"]}", a4096,
             a4096);
    expect_taken(text);
    snprintf(text, sizeof(text), "{\"disks\":[{\"path\":\"%sb\"}]}", a4096);
    expect_refused(text, "disks[0].path: must have at most 4096 bytes (has 4097)");
    snprintf(text, sizeof(text), "{\"warmup\":[[\"%sb\"]]}", a4096);
    expect_refused(text, "warmup[0][0]: must have at most 4096 bytes (has 4097)");
    for (int n = 256; n <= 257; n++) {
        char *p = text + sprintf(text, "{\"warmup\":[[]");

        for (int i = 1; i < n; i++)
            p += sprintf(p, ",[]");
        strcpy(p, "]}");
        if (n == 256)
            expect_taken(text);
        else
            expect_refused(text, "warmup: must have at most 256 items (has 257)");
    }
}

Test(base_json_decode, names_that_are_none_bring_the_nearest)
{
    struct spec s = {0};
    struct vf_error err;

    expect_refused("{\"nam\":\"x\"}", "nam: unknown key, did you mean \"name\"?");
    expect_refused("{\"memory\":{\"sizemib\":16}}",
                   "memory.sizemib: unknown key, did you mean \"size_mib\"?");
    expect_refused("{\"memory\":{\"size-mib\":16}}",
                   "memory.size-mib: unknown key, did you mean \"size_mib\"?");
    expect_refused("{\"Port\":16}", "Port: unknown key, did you mean \"port\"?");
    expect_refused("{\"mem\":{}}", "mem: unknown key, did you mean \"memory\"?");
    expect_refused("{\"warmpu\":[]}", "warmpu: unknown key, did you mean \"warmup\"?");
    expect_refused("{\"completely-else\":1}", "completely-else: unknown key");
    expect_refused("{\"\":1}", "unknown key");
    expect_refused("{\"disks\":[{\"pth\":\"a\"}]}",
                   "disks[0].pth: unknown key, did you mean \"path\"?");
    expect_refused("{\"machine\":\"microvn\"}", "machine: must be \"microvm\" or \"q35\" "
                                                "(is \"microvn\"), did you mean \"microvm\"?");
    expect_refused("{\"letter\":\"z\"}",
                   "letter: must be \"alpha\", \"beta\" or \"gamma\" (is \"z\")");
    cr_expect_lt(decode_n("{\"xyz\":1}", 9, &s, NULL, &err), 0);
    cr_expect_str_eq(err.hint, "known here: name, machine, letter, any, port, memory, args, disks, "
                               "warmup");
}

Test(base_json_decode, hostile_keys_do_not_break_the_message)
{
    struct spec s = {0};
    struct vf_error err;
    static char text[3000];
    int n = sprintf(text, "{\"a\\nb\\u001b");

    memset(text + n, 'k', 2000);
    strcpy(text + n + 2000, "\":1}");
    cr_expect_eq(decode_n(text, strlen(text), &s, "spec.json", &err), -EINVAL);
    cr_expect_eq(strncmp(err.msg, "spec.json: a b?kkk", 18), 0, "%s", err.msg);
    cr_expect_lt(strlen(err.msg), 200);
    cr_expect_not_null(strstr(err.msg, "kkk: unknown key"), "%s", err.msg);
}

Test(base_json_decode, twice_and_missing)
{
    expect_refused("{\"port\":1,\"port\":1}", "port: is given twice");
    expect_refused("{\"port\":1,\"po\\u0072t\":2}", "port: is given twice");
    expect_refused("{\"memory\":{\"size_mib\":16,\"shared\":true,\"size_mib\":17}}",
                   "memory.size_mib: is given twice");
    expect_refused("{\"memory\":{}}", "memory.size_mib: is required");
    expect_refused("{\"disks\":[{\"path\":\"a\"},{\"size\":1}]}", "disks[1].path: is required");
    expect_taken("{\"port\":1}");
}

Test(base_json_decode, the_text_must_be_json)
{
    expect_refused("", "line 1, column 1: the text ends where a value is expected");
    expect_refused(" \n ", "line 2, column 2: the text ends where a value is expected");
    expect_refused("{", "line 1, column 2: the text ends within an object");
    expect_refused("{\"port\":1", "line 1, column 10: the text ends within an object");
    expect_refused("{\"args\":[\"a\"", "line 1, column 13: the text ends within an array");
    expect_refused("{\"name\":\"a", "line 1, column 11: the text ends within a string");
    expect_refused("{\"port\":1,}", "line 1, column 11: expected a key in double quotes");
    expect_refused("{port:1}", "line 1, column 2: expected a key in double quotes");
    expect_refused("{'port':1}", "line 1, column 2: expected a key in double quotes");
    expect_refused("{\"port\" 1}", "line 1, column 9: expected ':' after a key");
    expect_refused("{\"port\":1\n \"any\":2}", "line 2, column 2: expected ',' or '}'");
    expect_refused("{\"args\":[\"a\" \"b\"]}", "line 1, column 14: expected ',' or ']'");
    expect_refused("{\"args\":[\"a\",]}", "line 1, column 14: expected a value");
    expect_refused("{\"port\":}", "line 1, column 9: expected a value");
    expect_refused("{\"port\":nul}", "line 1, column 9: expected a value");
    expect_refused("{\"port\":tru", "line 1, column 9: expected a value");
    expect_refused("{\"port\":NaN}", "line 1, column 9: expected a value");
    expect_refused("{} // why", "line 1, column 4: more text after the value");
    expect_refused("{}{}", "line 1, column 3: more text after the value");
    expect_refused("\xef\xbb\xbf{}", "line 1, column 1: expected a value");
    expect_refused_n("{}\0", 3, "line 1, column 3: more text after the value");
}

Test(base_json_decode, numbers_must_be_json_numbers)
{
    static char text[200];

    expect_refused("{\"any\":01}", "line 1, column 9: a number must not begin with 0");
    expect_refused("{\"any\":-}", "line 1, column 9: expected a digit");
    expect_refused("{\"any\":+1}", "line 1, column 8: expected a value");
    expect_refused("{\"any\":1.}", "line 1, column 10: expected a digit");
    expect_refused("{\"any\":.5}", "line 1, column 8: expected a value");
    expect_refused("{\"any\":1e}", "line 1, column 10: expected a digit");
    expect_refused("{\"any\":0x10}", "line 1, column 9: expected ',' or '}'");
    expect_refused("{\"any\":1e+", "line 1, column 11: expected a digit");
    snprintf(text, sizeof(text), "{\"any\":%0100d}", 0);
    text[7] = '1';
    expect_refused(text, "line 1, column 8: a number of more than 60 characters");
}

Test(base_json_decode, strings_are_whole_utf8_without_nul)
{
    expect_refused("{\"name\":\"a\\u0000b\"}", "line 1, column 17: a string must not contain NUL");
    expect_refused_n("{\"name\":\"a\0b\"}", 14, "line 1, column 11: a string must not contain NUL");
    expect_refused("{\"na\\u0000me\":1}", "line 1, column 11: a string must not contain NUL");
    expect_refused("{\"name\":\"a\nb\"}",
                   "line 1, column 11: a control character must be escaped in a string");
    expect_refused("{\"name\":\"a\\x\"}", "line 1, column 12: unknown escape in a string");
    expect_refused("{\"name\":\"a\\", "line 1, column 12: unknown escape in a string");
    expect_refused_n("{\"name\":\"a\\\0\"}", 14, "line 1, column 12: unknown escape in a string");
    expect_refused("{\"name\":\"\\u12g4\"}",
                   "line 1, column 14: \\u must be followed by four hexadecimal digits");
    expect_refused("{\"name\":\"\\ud800\"}", "line 1, column 16: half a surrogate pair");
    expect_refused("{\"name\":\"\\ud800\\n\"}", "line 1, column 17: half a surrogate pair");
    expect_refused("{\"name\":\"\\ud800\\u0041\"}", "line 1, column 22: half a surrogate pair");
    expect_refused("{\"name\":\"\\udc00\"}", "line 1, column 16: half a surrogate pair");
    expect_refused("{\"name\":\"a\xff\"}", "line 1, column 11: invalid UTF-8 in a string");
    expect_refused("{\"name\":\"\xc0\x80\"}", "line 1, column 10: invalid UTF-8 in a string");
    expect_refused("{\"name\":\"\xed\xa0\x80\"}", "line 1, column 10: invalid UTF-8 in a string");
    expect_refused_n("{\"name\":\"\xe2\x82", 11, "line 1, column 10: invalid UTF-8 in a string");
    expect_taken("{\"name\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}");
    expect_taken("{\"name\":\"\\uD83D\\uDE00\"}");
}

Test(base_json_decode, depth_and_size_have_limits)
{
    struct spec s = {0};
    struct vf_error err;
    static char text[200001];

    for (int depth = 31; depth <= 32; depth++) { /* and the object around them */
        int n = sprintf(text, "{\"args\":");

        memset(text + n, '[', (size_t)depth);
        memset(text + n + depth, ']', (size_t)depth);
        strcpy(text + n + 2 * depth, "}");
        if (depth == 31)
            expect_refused(text, "args[0]: must be a string (is an array)");
        else
            expect_refused(text, "line 1, column 40: nested more than 32 levels deep");
    }
    memset(text, '[', 60000);
    text[60000] = '\0';
    expect_refused(text, "line 1, column 33: nested more than 32 levels deep");

    memset(text, ' ', 65536);
    text[0] = '{', text[65535] = '}', text[65536] = '\0';
    expect_taken(text);
    text[65536] = ' ';
    cr_expect_eq(decode_n(text, 65537, &s, "big.json", &err), -EINVAL);
    cr_expect_str_eq(err.msg, "big.json: is 65537 bytes long, at most 65536 are allowed");
}

Test(base_json_decode, where_comes_first)
{
    struct spec s = {0};
    struct vf_error err;

    cr_expect_lt(decode_n("{\"memory\":{\"size_mib\":1}}", 25, &s, "web.json", &err), 0);
    cr_expect_str_eq(err.msg, "web.json: memory.size_mib: must be at least 16 (is 1)");
    cr_expect_lt(decode_n("[}", 2, &s, "web.json", &err), 0);
    cr_expect_str_eq(err.msg, "web.json: line 1, column 2: expected a value");
    cr_expect_lt(decode_n("[]", 2, &s, "web.json", &err), 0);
    cr_expect_str_eq(err.msg, "web.json: must be an object (is an array)");
    cr_expect_lt(decode_n("[]", 2, &s, NULL, NULL), 0, "err may be NULL");
}

Test(base_json_decode, a_failure_leaves_what_free_can_take)
{
    struct spec s = {.name = strdup("dflt")};
    struct vf_error err;
    const char *text =
        "{\"name\":\"newer\",\"args\":[\"a\"],\"disks\":[{\"path\":\"a\",\"tags\":[\"t\"]},"
        "{\"path\":\"b\",\"size\":-1}]}";

    cr_expect_lt(decode_n(text, strlen(text), &s, NULL, &err), 0);
    cr_expect_str_eq(s.name, "newer");
    cr_expect_eq(s.disks.n, 0, "half an array is none");
    vf_json_free(fields, &s);

    /* An array that was there is replaced by a good one and kept from a bad one. */
    s = (struct spec){0};
    cr_assert_eq(decode_n("{\"args\":[\"a\",\"b\"]}", 18, &s, NULL, &err), 0);
    cr_expect_lt(decode_n("{\"args\":[\"c\",1]}", 16, &s, NULL, &err), 0);
    cr_assert_eq(s.args.n, 2);
    cr_expect_str_eq(s.args.v[0], "a");
    cr_assert_eq(decode_n("{\"args\":[\"c\"]}", 14, &s, NULL, &err), 0);
    cr_expect_eq(s.args.n, 1);
    text = "{\"disks\":[{\"path\":\"a\",\"tags\":[\"t\"]}],\"warmup\":[[\"b\"]]}";
    for (int i = 0; i < 2; i++) /* the second time what the first one made must be freed */
        cr_assert_eq(decode_n(text, strlen(text), &s, NULL, &err), 0, "%s", err.msg);
    cr_expect_eq(s.disks.n, 1);
    vf_json_free(fields, &s);
}

Test(base_json_decode, what_is_encoded_decodes_to_the_same)
{
    struct spec s = {0}, back = {0};
    struct vf_error err;
    const char *text =
        "{\"name\":\"\\u0001\\\"\\\\\xc3\xa9\",\"machine\":\"q35\",\"any\":-9223372036854775808,"
        "\"port\":65535,\"memory\":{\"size_mib\":1048576,\"shared\":true},\"args\":[\"\"],"
        "\"disks\":[{\"path\":\"/a\",\"size\":7,\"tags\":[\"x\"]},{\"path\":\"/b\"}],"
        "\"warmup\":[[],[\"a\",\"{\\n[\"]]}";
    char *first, *second;

    cr_assert_eq(decode_n(text, strlen(text), &s, NULL, &err), 0, "%s", err.msg);
    first = vf_json_encode(fields, &s);
    cr_assert_not_null(first);
    cr_assert_eq(decode_n(first, strlen(first), &back, NULL, &err), 0, "%s\n%s", err.msg, first);
    cr_expect_eq(back.any, INT64_MIN);
    cr_expect_str_eq(back.name, s.name);
    cr_expect_str_eq(((struct vf_strv *)back.warmup.items)[1].v[1], "{\n[");
    second = vf_json_encode(fields, &back);
    cr_expect_str_eq(first, second);
    free(first);
    free(second);
    vf_json_free(fields, &s);
    vf_json_free(fields, &back);
}

/* Cuts and byte changes of a good text: never a crash, and a refusal always has words. */
Test(base_json_decode, damaged_text_is_refused_or_taken_but_never_worse)
{
    const char *text =
        "{\"name\":\"w\\u00e9b\",\"machine\":\"q35\",\"any\":-5,\"memory\":{\"size_mib\":256},"
        "\"disks\":[{\"path\":\"/a\",\"tags\":[\"x\"]}],\"warmup\":[[\"ls\"]]}";
    static const char bytes[] = {0, '"', '\\', '{', '}', '[', ']', ',', ':', '0', '-', 'e', '\xff'};
    size_t len = strlen(text);
    struct vf_error err;
    char copy[300];

    for (size_t cut = 0; cut < len; cut++) {
        struct spec s = {0};

        cr_assert_eq(decode_n(text, cut, &s, NULL, &err), -EINVAL, "cut at %zu", cut);
        vf_json_free(fields, &s);
    }
    for (size_t i = 0; i < len; i++) {
        for (size_t k = 0; k < sizeof(bytes); k++) {
            struct spec s = {0};

            memcpy(copy, text, len);
            copy[i] = bytes[k];
            err = (struct vf_error){0};
            if (decode_n(copy, len, &s, NULL, &err) < 0)
                cr_assert_str_not_empty(err.msg);
            vf_json_free(fields, &s);
        }
    }
}

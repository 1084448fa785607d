/* The writer, the encoder, the schema, the nearest word and picking from parsed JSON. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"

static void expect_text(char *text, const char *expected)
{
    cr_assert_not_null(text);
    cr_expect_str_eq(text, expected);
    free(text);
}

Test(base_json_write, commas_keys_and_nesting)
{
    struct vf_json_writer w = {0};

    vf_jw_begin(&w, NULL, '{');
    vf_jw_int(&w, "n", 3);
    vf_jw_begin(&w, "list", '[');
    vf_jw_begin(&w, NULL, '{');
    vf_jw_end(&w, '}');
    vf_jw_begin(&w, NULL, '[');
    vf_jw_end(&w, ']');
    vf_jw_bool(&w, NULL, true);
    vf_jw_string(&w, NULL, NULL);
    vf_jw_end(&w, ']');
    vf_jw_bool(&w, "no", false);
    vf_jw_string(&w, "k\"ey", "v");
    vf_jw_end(&w, '}');
    expect_text(vf_jw_finish(&w),
                "{\"n\":3,\"list\":[{},[],true,null],\"no\":false,\"k\\\"ey\":\"v\"}");
    /* After finish it starts anew. */
    vf_jw_string(&w, NULL, "top");
    expect_text(vf_jw_finish(&w), "\"top\"");
}

static char *write_int(int64_t v)
{
    struct vf_json_writer w = {0};

    vf_jw_int(&w, NULL, v);
    return vf_jw_finish(&w);
}

static char *write_double(double v, int decimals)
{
    struct vf_json_writer w = {0};

    vf_jw_double(&w, NULL, v, decimals);
    return vf_jw_finish(&w);
}

Test(base_json_write, numbers)
{
    expect_text(write_int(INT64_MIN), "-9223372036854775808");
    expect_text(write_int(INT64_MAX), "9223372036854775807");
    expect_text(write_double(1.5, 3), "1.500");
    expect_text(write_double(-0.126, 2), "-0.13");
    expect_text(write_double(2, 0), "2");
    expect_text(write_double(2, -3), "2");
    expect_text(write_double(NAN, 2), "null");
    expect_text(write_double(-INFINITY, 2), "null");
    char *huge = write_double(-1.7976931348623157e308, 1000);

    cr_assert_not_null(huge);
    cr_expect_eq(strlen(huge), 1 + 309 + 1 + 60);
    free(huge);
}

static char *write_string(const char *s)
{
    struct vf_json_writer w = {0};

    vf_jw_string(&w, NULL, s);
    return vf_jw_finish(&w);
}

Test(base_json_write, strings_are_escaped_and_made_valid)
{
    expect_text(write_string(""), "\"\"");
    expect_text(write_string("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"");
    expect_text(write_string("\n\r\t\b\x01\x1f\x7f"), "\"\\n\\r\\t\\u0008\\u0001\\u001f\\u007f\"");
    expect_text(write_string("é€\xf0\x9f\x98\x80"), "\"é€\xf0\x9f\x98\x80\"");
    expect_text(write_string("\xc2\x9b\xe2\x80\xa8"), "\"\\u009b\\u2028\"");
    expect_text(write_string("a\xff"
                             "b\xe2\x82"),
                "\"a\xef\xbf\xbd"
                "b\xef\xbf\xbd\xef\xbf\xbd\"");
}

Test(base_json_write, what_is_unbalanced_gives_nothing)
{
    struct vf_json_writer w = {0};

    vf_jw_begin(&w, NULL, '{');
    cr_expect_null(vf_jw_finish(&w), "not ended");
    vf_jw_end(&w, '}');
    vf_jw_int(&w, NULL, 1);
    cr_expect_null(vf_jw_finish(&w), "not begun");
    cr_expect_null(vf_jw_finish(&w), "nothing written");
}

Test(base_json_write, it_grows)
{
    struct vf_json_writer w = {0};
    struct vf_json *j;
    char *text;

    vf_jw_begin(&w, NULL, '[');
    for (int i = 0; i < 20000; i++)
        vf_jw_string(&w, NULL, "some words \n of any length");
    vf_jw_end(&w, ']');
    text = vf_jw_finish(&w);
    cr_assert_not_null(text);
    j = vf_json_parse(text, strlen(text));
    cr_assert_not_null(j);
    cr_expect_str_eq(vf_json_str(vf_json_at(j, 19999), ""), "some words \n of any length");
    cr_expect_null(vf_json_at(j, 20000));
    vf_json_delete(j);
    free(text);
}

static const char *const colours[] = {"red", "green", NULL};
struct inner {
    int64_t x;
};
struct outer {
    char *name, *none;
    int64_t n;
    bool flag;
    int colour;
    struct inner in, out;
    bool out_given;
    struct vf_strv list, empty;
    struct vf_json_array inners, lists;
};
static const struct vf_json_field inner_fields[] = {
    {.name = "x",
     .type = VF_JSON_INT,
     .offset = offsetof(struct inner, x),
     .min = 1,
     .max = 9,
     .help = "A number."},
    {0},
};
static const struct vf_json_field outer_fields[] = {
    {.name = "name",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct outer, name),
     .min = 5,
     .max = 63,
     .required = true,
     .help = "What it is \"called\"."},
    {.name = "none", .type = VF_JSON_STRING, .offset = offsetof(struct outer, none)},
    {.name = "n",
     .type = VF_JSON_INT,
     .offset = offsetof(struct outer, n),
     .min = INT64_MIN,
     .max = INT64_MAX},
    {.name = "flag", .type = VF_JSON_BOOL, .offset = offsetof(struct outer, flag)},
    {.name = "colour",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct outer, colour),
     .choices = colours},
    {.name = "in",
     .type = VF_JSON_OBJECT,
     .offset = offsetof(struct outer, in),
     .fields = inner_fields,
     .required = true},
    {.name = "out",
     .type = VF_JSON_OBJECT,
     .offset = offsetof(struct outer, out),
     .fields = inner_fields,
     .present = offsetof(struct outer, out_given)},
    {.name = "list",
     .type = VF_JSON_STRING_ARRAY,
     .offset = offsetof(struct outer, list),
     .min = 1,
     .max = 7},
    {.name = "empty", .type = VF_JSON_STRING_ARRAY, .offset = offsetof(struct outer, empty)},
    {.name = "inners",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = offsetof(struct outer, inners),
     .fields = inner_fields,
     .item_size = sizeof(struct inner)},
    {.name = "lists", .type = VF_JSON_STRING_ARRAYS, .offset = offsetof(struct outer, lists)},
    {0},
};

Test(base_json_encode, a_struct_in_lines)
{
    char *words[] = {(char *)"a{", (char *)"b\\\"", NULL};
    struct inner inners[] = {{1}, {2}};
    struct vf_strv lists[] = {{words, 2}, {NULL, 0}};
    struct outer o = {
        .name = (char *)"the name",
        .n = INT64_MIN,
        .flag = true,
        .colour = 1,
        .in.x = 4,
        .list = {words, 2},
        .inners = {inners, 2},
        .lists = {lists, 2},
    };

    expect_text(vf_json_encode(outer_fields, &o), "{\n"
                                                  "  \"name\": \"the name\",\n"
                                                  "  \"n\": -9223372036854775808,\n"
                                                  "  \"flag\": true,\n"
                                                  "  \"colour\": \"green\",\n"
                                                  "  \"in\": {\n"
                                                  "    \"x\": 4\n"
                                                  "  },\n"
                                                  "  \"list\": [\n"
                                                  "    \"a{\",\n"
                                                  "    \"b\\\\\\\"\"\n"
                                                  "  ],\n"
                                                  "  \"empty\": [],\n"
                                                  "  \"inners\": [\n"
                                                  "    {\n"
                                                  "      \"x\": 1\n"
                                                  "    },\n"
                                                  "    {\n"
                                                  "      \"x\": 2\n"
                                                  "    }\n"
                                                  "  ],\n"
                                                  "  \"lists\": [\n"
                                                  "    [\n"
                                                  "      \"a{\",\n"
                                                  "      \"b\\\\\\\"\"\n"
                                                  "    ],\n"
                                                  "    []\n"
                                                  "  ]\n"
                                                  "}\n");
}

/* Walks objects by keys, "items" included; the last of keys is NULL. */
static const struct vf_json *dig(const struct vf_json *j, const char *const *keys)
{
    for (; *keys != NULL; keys++)
        j = vf_json_get(j, *keys);
    return j;
}
#define DIG(j, ...) dig(j, (const char *const[]){__VA_ARGS__, NULL})

Test(base_json_schema, the_table_as_a_schema)
{
    char *text = vf_json_schema(outer_fields, "Outer", "https://example.org/outer.json");
    struct vf_json *j;

    cr_assert_not_null(text);
    j = vf_json_parse(text, strlen(text));
    cr_assert_not_null(j, "%s", text);
    cr_expect_str_eq(vf_json_str(DIG(j, "$schema"), ""),
                     "https://json-schema.org/draft/2020-12/schema");
    cr_expect_str_eq(vf_json_str(DIG(j, "$id"), ""), "https://example.org/outer.json");
    cr_expect_str_eq(vf_json_str(DIG(j, "title"), ""), "Outer");
    cr_expect_str_eq(vf_json_str(DIG(j, "type"), ""), "object");
    cr_expect_not(vf_json_bool(DIG(j, "additionalProperties"), true));
    cr_expect_str_eq(vf_json_str(vf_json_at(DIG(j, "required"), 0), ""), "name");
    cr_expect_str_eq(vf_json_str(vf_json_at(DIG(j, "required"), 1), ""), "in");
    cr_expect_null(vf_json_at(DIG(j, "required"), 2));

    cr_expect_str_eq(vf_json_str(DIG(j, "properties", "name", "type"), ""), "string");
    cr_expect_str_eq(vf_json_str(DIG(j, "properties", "name", "description"), ""),
                     "What it is \"called\".");
    cr_expect_eq(vf_json_int(DIG(j, "properties", "name", "maxLength"), 0), 63);
    /* five bytes may be two characters */
    cr_expect_eq(vf_json_int(DIG(j, "properties", "name", "minLength"), 0), 2);
    cr_expect_eq(vf_json_int(DIG(j, "properties", "none", "maxLength"), 0), 4096);
    cr_expect_null(DIG(j, "properties", "none", "minLength"));
    cr_expect_str_eq(vf_json_str(DIG(j, "properties", "flag", "type"), ""), "boolean");
    cr_expect_str_eq(vf_json_str(vf_json_at(DIG(j, "properties", "colour", "enum"), 1), ""),
                     "green");
    cr_expect_str_eq(vf_json_str(DIG(j, "properties", "in", "properties", "x", "type"), ""),
                     "integer");
    cr_expect_eq(vf_json_int(DIG(j, "properties", "in", "properties", "x", "minimum"), 0), 1);
    cr_expect_eq(vf_json_int(DIG(j, "properties", "in", "properties", "x", "maximum"), 0), 9);
    cr_expect_null(DIG(j, "properties", "in", "required"));
    cr_expect_not(vf_json_bool(DIG(j, "properties", "in", "additionalProperties"), true));
    cr_expect_eq(vf_json_int(DIG(j, "properties", "list", "minItems"), 0), 1);
    cr_expect_eq(vf_json_int(DIG(j, "properties", "list", "maxItems"), 0), 7);
    cr_expect_eq(vf_json_int(DIG(j, "properties", "empty", "maxItems"), 0), 256);
    cr_expect_str_eq(vf_json_str(DIG(j, "properties", "list", "items", "type"), ""), "string");
    cr_expect_str_eq(vf_json_str(DIG(j, "properties", "inners", "items", "type"), ""), "object");
    cr_expect_str_eq(vf_json_str(DIG(j, "properties", "lists", "items", "items", "type"), ""),
                     "string");
    cr_expect_not_null(strstr(text, "\"minimum\": -9223372036854775808,\n"));
    vf_json_delete(j);
    free(text);

    text = vf_json_schema(inner_fields, NULL, NULL);
    cr_assert_not_null(text);
    cr_expect_null(strstr(text, "title"));
    cr_expect_null(strstr(text, "$id"));
    cr_expect_null(strstr(text, "required"));
    free(text);
}

Test(base_json_nearest, slips_are_found_and_others_not)
{
    static const char *const names[] = {"doctor", "acquire", "release", "run", "templates", NULL};
    static const char *const none[] = {NULL};
    static char longest[200];

    cr_expect_str_eq(vf_nearest("aquire", names), "acquire");
    cr_expect_str_eq(vf_nearest("dcotor", names), "doctor");
    cr_expect_str_eq(vf_nearest("RELEASE", names), "release");
    cr_expect_str_eq(vf_nearest("rum", names), "run");
    cr_expect_str_eq(vf_nearest("temp", names), "templates");
    cr_expect_str_eq(vf_nearest("run", names), "run");
    cr_expect_null(vf_nearest("elephant", names));
    cr_expect_null(vf_nearest("", names));
    cr_expect_null(vf_nearest("x", names));
    cr_expect_null(vf_nearest("run", none));
    memset(longest, 'r', sizeof(longest) - 1);
    cr_expect_null(vf_nearest(longest, names));
}

static struct vf_json *parse(const char *text)
{
    return vf_json_parse(text, strlen(text));
}

Test(base_json_peek, every_getter_copes_with_everything)
{
    static const char *const values[] = {"null", "true", "3", "\"s\"", "[]", "{}", NULL};

    for (int i = 0; values[i] != NULL; i++) {
        struct vf_json *j = parse(values[i]);

        cr_assert_not_null(j);
        cr_expect_eq(vf_json_bool(j, false), i == 1);
        cr_expect_eq(vf_json_bool(j, true), true);
        cr_expect_eq(vf_json_int(j, -1), i == 2 ? 3 : -1);
        cr_expect_float_eq(vf_json_double(j, -1), i == 2 ? 3.0 : -1.0, 0);
        cr_expect_str_eq(vf_json_str(j, "dflt"), i == 3 ? "s" : "dflt");
        cr_expect_null(vf_json_get(j, "key"));
        cr_expect_null(vf_json_at(j, 0));
        cr_expect_eq(vf_json_is_object(j), i == 5);
        vf_json_delete(j);
    }
    cr_expect_null(vf_json_get(NULL, "x"));
    cr_expect_null(vf_json_at(NULL, 0));
    cr_expect_not(vf_json_is_object(NULL));
    cr_expect_eq(vf_json_int(NULL, 5), 5);
    cr_expect_null(vf_json_str(NULL, NULL));
    cr_expect(vf_json_bool(NULL, true));
    cr_expect_float_eq(vf_json_double(NULL, 2.5), 2.5, 0);
    cr_expect_null(vf_json_print(NULL));
    vf_json_delete(NULL);
}

Test(base_json_peek, printing)
{
    struct vf_json *j = parse("{\"a\":[1,2.5],\"b\":{},\"c\":\"\\n\"}");
    char *text = vf_json_print(vf_json_get(j, "a"));

    cr_expect_str_eq(text, "[\n  1,\n  2.5\n]\n");
    free(text);
    text = vf_json_print(j);
    cr_expect_not_null(strstr(text, "\"c\": \"\\n\"\n}\n"), "%s", text);
    free(text);
    vf_json_delete(j);
}

Test(base_json_peek, picking)
{
    struct vf_json *j = parse("{\"return\":{\"list\":[{\"a\":1},{\"a\":2}],\"A\":5,\"no\":false},"
                              "\"id\":\"x\"}");

    cr_assert_not_null(j);
    cr_expect_eq(vf_json_int(vf_json_get(vf_json_at(DIG(j, "return", "list"), 1), "a"), 0), 2);
    cr_expect_eq(vf_json_int(DIG(j, "return", "A"), 0), 5);
    cr_expect_null(DIG(j, "return", "LIST"), "keys have case");
    cr_expect_not(vf_json_bool(DIG(j, "return", "no"), true));
    vf_json_delete(j);
}

static int64_t peek_int(const char *text)
{
    struct vf_json *j = parse(text);
    int64_t v;

    cr_assert_not_null(j, "%s", text);
    v = vf_json_int(j, -1);
    vf_json_delete(j);
    return v;
}

Test(base_json_peek, integers_are_whole_and_within_two_to_the_53)
{
    cr_expect_eq(peek_int("9007199254740992"), INT64_C(9007199254740992));
    cr_expect_eq(peek_int("-9007199254740992"), -INT64_C(9007199254740992));
    cr_expect_eq(peek_int("9007199254740993"), -1);
    cr_expect_eq(peek_int("-9007199254740993"), -1);
    cr_expect_eq(peek_int("99999999999999999999999"), -1);
    cr_expect_eq(peek_int("1e400"), -1);
    cr_expect_eq(peek_int("1e3"), 1000);
    cr_expect_eq(peek_int("7.0"), 7);
    cr_expect_eq(peek_int("7.5"), -1);
}

Test(base_json_peek, only_json_is_parsed)
{
    static const char *const bad[] = {"",        "{",     "{\"a\":1,}",  "[1 2]",    "01", "nul",
                                      "\"\\x\"", "{} {}", "\"\\u0000\"", "\"\xff\"", "[}", "'a'"};
    static char deep[100];
    char *exact = (char *)malloc(7);

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_null(parse(bad[i]), "%s", bad[i]);
    memset(deep, '[', 33);
    memset(deep + 33, ']', 33);
    cr_expect_null(parse(deep));
    deep[32] = ']'; /* 32 levels, and one ] too many at the end */
    deep[64] = '\0';
    struct vf_json *j = parse(deep);
    cr_expect_not_null(j);
    vf_json_delete(j);

    cr_assert_not_null(exact); /* text that ends where its memory does */
    memcpy(exact, "{\"a\":1}", 7);
    j = vf_json_parse(exact, 7);
    cr_assert_not_null(j);
    cr_expect_eq(vf_json_int(vf_json_get(j, "a"), 0), 1);
    vf_json_delete(j);
    free(exact);
}

/* JSON by tables, as request bodies and the settings file are read: whatever is taken can be written, and says
 * the same when it is read again. The first byte picks the table. */
#include "base/json.h"
#include "fuzz.h"
#include "pool/pools.h"
#include "pool/settings.h"

static const char *const colours[] = {"none", "red", "green", NULL};

struct inner {
    char *word;
    int64_t n;
    bool has_n;
};
/* One of each type that a table can name. */
struct all {
    bool flag;
    int64_t number;
    char *text, *name;
    int colour;
    struct inner object;
    struct vf_strv strings;
    struct vf_json_array objects, lists;
};

static const struct vf_json_field inner_fields[] = {
    {.name = "word",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct inner, word),
     .required = true},
    {.name = "n",
     .type = VF_JSON_INT,
     .offset = offsetof(struct inner, n),
     .min = INT64_MIN,
     .max = INT64_MAX,
     .present = offsetof(struct inner, has_n)},
    {.name = NULL},
};

static const struct vf_json_field all_fields[] = {
    {.name = "flag", .type = VF_JSON_BOOL, .offset = offsetof(struct all, flag)},
    {.name = "number",
     .type = VF_JSON_INT,
     .offset = offsetof(struct all, number),
     .min = -5,
     .max = 1000},
    {.name = "text", .type = VF_JSON_STRING, .offset = offsetof(struct all, text)},
    {.name = "name",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct all, name),
     .min = 2,
     .max = 8},
    {.name = "colour",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct all, colour),
     .min = 1,
     .choices = colours},
    {.name = "object",
     .type = VF_JSON_OBJECT,
     .offset = offsetof(struct all, object),
     .fields = inner_fields},
    {.name = "strings",
     .type = VF_JSON_STRING_ARRAY,
     .offset = offsetof(struct all, strings),
     .max = 4},
    {.name = "objects",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = offsetof(struct all, objects),
     .max = 4,
     .fields = inner_fields,
     .item_size = sizeof(struct inner)},
    {.name = "lists",
     .type = VF_JSON_STRING_ARRAYS,
     .offset = offsetof(struct all, lists),
     .max = 4},
    {.name = NULL},
};

static void every_type(const char *text, size_t len)
{
    struct all first = {.colour = 1}, second = {.colour = 1};
    struct vf_error err;
    char *a, *b;

    if (vf_json_decode(text, len, 65536, all_fields, &first, "body", &err) < 0) {
        FUZZ_CHECK(err.msg[0] != '\0' && strlen(err.msg) < sizeof(err.msg));
        vf_json_free(all_fields, &first);
        return;
    }
    a = vf_json_encode(all_fields, &first);
    FUZZ_CHECK(a != NULL);
    /* An object that was left out is written out, and then lacks what it must have. */
    if (first.object.word == NULL)
        goto out;
    FUZZ_CHECK(vf_json_decode(a, strlen(a), 1 << 20, all_fields, &second, NULL, &err) == 0);
    b = vf_json_encode(all_fields, &second);
    FUZZ_CHECK(b != NULL && strcmp(a, b) == 0);
    free(b);
out:
    free(a);
    vf_json_free(all_fields, &first);
    vf_json_free(all_fields, &second);
}

static void settings(const char *text, size_t len)
{
    struct vf_settings first, second;
    struct vf_error err;
    char *a, *b;

    if (vf_settings_parse(text, len, "file", &first, &err) < 0)
        return;
    a = vf_settings_encode(&first);
    FUZZ_CHECK(a != NULL);
    FUZZ_CHECK(vf_settings_parse(a, strlen(a), "again", &second, &err) == 0);
    b = vf_settings_encode(&second);
    FUZZ_CHECK(b != NULL && strcmp(a, b) == 0);
    free(a);
    free(b);
    vf_settings_free(&first);
    vf_settings_free(&second);
}

static void pool_settings(const char *text, size_t len)
{
    struct vf_pool_config first = {0}, second = {0};
    struct vf_error err;
    char *a;

    if (vf_json_decode(text, len, 65536, vf_pool_config_fields, &first, "body", &err) < 0)
        return;
    a = vf_json_encode(vf_pool_config_fields, &first);
    FUZZ_CHECK(a != NULL);
    for (const struct vf_json_field *f = vf_pool_config_fields; f->name != NULL; f++)
        if (f->type == VF_JSON_INT && *(int64_t *)((char *)&first + f->offset) < f->min)
            goto out; /* was left out, and 0 is none that may be given */
    FUZZ_CHECK(vf_json_decode(a, strlen(a), 65536, vf_pool_config_fields, &second, NULL, &err) ==
               0);
    FUZZ_CHECK(first.target == second.target && first.park == second.park &&
               first.autosize == second.autosize && first.max_leases == second.max_leases);
out:
    free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    switch (data[0] % 3) {
    case 0:
        every_type((const char *)data + 1, size - 1);
        break;
    case 1:
        settings((const char *)data + 1, size - 1);
        break;
    default:
        pool_settings((const char *)data + 1, size - 1);
        break;
    }
    return 0;
}

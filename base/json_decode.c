/* JSON text -> struct, by a table. See json.h.
 *
 * text -> strict parse -> walk of the tree beside the table. Each value is checked before it replaces
 * what dst holds, so that dst is whole at every moment and vf_json_free can take it after a failure.
 * The first problem ends the decoding; its message begins with the path kept during the walk.
 */
#include "base/json_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct decoder {
    const char *where;
    char path[256]; /* "memory.size_mib", "warmup[2][0]"; cut if longer */
    size_t path_len;
    struct vf_error *err;
};

/* Extend the path; the result is what to give pop() later. */
static size_t push_key(struct decoder *d, const char *key)
{
    size_t old = d->path_len;

    snprintf(d->path + old, sizeof(d->path) - old, "%s%.64s", old > 0 ? "." : "", key);
    d->path_len += strlen(d->path + old);
    return old;
}

static size_t push_index(struct decoder *d, size_t i)
{
    size_t old = d->path_len;

    snprintf(d->path + old, sizeof(d->path) - old, "[%zu]", i);
    d->path_len += strlen(d->path + old);
    return old;
}

static void pop(struct decoder *d, size_t old)
{
    d->path_len = old;
    d->path[old] = '\0';
}

/* Puts where and path before the message that was just set; returns r. */
static int at_path(struct decoder *d, int r)
{
    if (d->path_len > 0)
        vf_wrap(d->err, "%s", d->path);
    if (d->where != NULL)
        vf_wrap(d->err, "%s", d->where);
    return r;
}

#define FAIL(d, ...) at_path(d, vf_fail((d)->err, VF_INVALID_ARGUMENT, __VA_ARGS__))

static int no_memory(struct decoder *d)
{
    return at_path(d, vf_fail(d->err, VF_NO_MEMORY, "no memory"));
}

static const char *kind(const cJSON *j)
{
    switch (j->type & 0xff) {
    case cJSON_False:
        return "false";
    case cJSON_True:
        return "true";
    case cJSON_NULL:
        return "null";
    case cJSON_Number:
        return "a number";
    case cJSON_String:
        return "a string";
    case cJSON_Array:
        return "an array";
    default:
        return "an object";
    }
}

static int decode_int(struct decoder *d, const struct vf_json_field *f, const cJSON *j,
                      int64_t *ret)
{
    const char *text = j->valuestring;
    int64_t v = 0;
    int r;

    if (!cJSON_IsNumber(j))
        return FAIL(d, "must be an integer (is %s)", kind(j));
    r = vf_json_exact_int(text, &v);
    if (r == -EINVAL)
        return FAIL(d, "must be an integer, without fraction or exponent (is %s)", text);
    if (r == -ERANGE) /* no limit lies further out */
        v = text[0] == '-' ? INT64_MIN : INT64_MAX;
    if (v < f->min || (r == -ERANGE && v < 0))
        return FAIL(d, "must be at least %" PRId64 " (is %s)", f->min, text);
    if (v > f->max || r == -ERANGE)
        return FAIL(d, "must be at most %" PRId64 " (is %s)", f->max, text);
    *ret = v;
    return 0;
}

/* Checks that j is a string of min to max bytes and copies it. */
static int decode_string(struct decoder *d, int64_t min, int64_t max, const cJSON *j, char **ret)
{
    size_t len;
    char *copy;

    if (!cJSON_IsString(j))
        return FAIL(d, "must be a string (is %s)", kind(j));
    len = strlen(j->valuestring);
    if ((int64_t)len < min && len == 0)
        return FAIL(d, "must not be empty");
    if ((int64_t)len < min)
        return FAIL(d, "must have at least %" PRId64 " bytes (has %zu)", min, len);
    if ((int64_t)len > max)
        return FAIL(d, "must have at most %" PRId64 " bytes (has %zu)", max, len);
    copy = strdup(j->valuestring);
    if (copy == NULL)
        return no_memory(d);
    *ret = copy;
    return 0;
}

/* "a", "b" or "c" */
static void list_choices(const char *const *choices, char *buf, size_t size)
{
    size_t len = 0;

    buf[0] = '\0';
    for (size_t i = 0; choices[i] != NULL && len < size; i++) {
        const char *separator = i == 0 ? "" : choices[i + 1] == NULL ? " or " : ", ";
        int n = snprintf(buf + len, size - len, "%s\"%s\"", separator, choices[i]);

        len += n > 0 ? (size_t)n : 0;
    }
}

static int decode_enum(struct decoder *d, const struct vf_json_field *f, const cJSON *j, int *ret)
{
    const char *const *allowed = f->choices + f->min;
    char list[400];
    const char *near;

    list_choices(allowed, list, sizeof(list));
    if (!cJSON_IsString(j))
        return FAIL(d, "must be %s (is %s)", list, kind(j));
    for (int i = 0; allowed[i] != NULL; i++) {
        if (strcmp(allowed[i], j->valuestring) == 0) {
            *ret = (int)f->min + i;
            return 0;
        }
    }
    near = vf_nearest(j->valuestring, allowed);
    if (near != NULL)
        return FAIL(d, "must be %s (is \"%.64s\"), did you mean \"%s\"?", list, j->valuestring,
                    near);
    return FAIL(d, "must be %s (is \"%.64s\")", list, j->valuestring);
}

/* Checks that j is an array of min to max items. */
static int check_array(struct decoder *d, int64_t min, int64_t max, const cJSON *j, size_t *ret_n)
{
    int n;

    if (!cJSON_IsArray(j))
        return FAIL(d, "must be an array (is %s)", kind(j));
    n = cJSON_GetArraySize(j);
    if (n < min)
        return FAIL(d, "must have at least %" PRId64 " item%s (has %d)", min, min == 1 ? "" : "s",
                    n);
    if (n > max)
        return FAIL(d, "must have at most %" PRId64 " item%s (has %d)", max, max == 1 ? "" : "s",
                    n);
    *ret_n = (size_t)n;
    return 0;
}

static void free_strv(struct vf_strv *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->v[i]);
    free(s->v);
    *s = (struct vf_strv){0};
}

static int decode_strv(struct decoder *d, int64_t min, int64_t max, const cJSON *j,
                       struct vf_strv *ret)
{
    struct vf_strv list = {0};
    size_t n = 0;
    int r = check_array(d, min, max, j, &n);

    if (r < 0)
        return r;
    list.v = (char **)calloc(n + 1, sizeof(char *));
    if (list.v == NULL)
        return no_memory(d);
    for (const cJSON *item = j->child; item != NULL; item = item->next) {
        size_t old = push_index(d, list.n);

        r = decode_string(d, 0, VF_JSON_MAX_STRING, item, &list.v[list.n]);
        pop(d, old);
        if (r < 0) {
            free_strv(&list);
            return r;
        }
        list.n++;
    }
    free_strv(ret);
    *ret = list;
    return 0;
}

static int decode_object(struct decoder *d, const struct vf_json_field *fields, const cJSON *j,
                         void *dst);

static void free_array(const struct vf_json_field *f, struct vf_json_array *a)
{
    for (size_t i = 0; i < a->n; i++) {
        if (f->type == VF_JSON_STRING_ARRAYS)
            free_strv((struct vf_strv *)a->items + i);
        else
            vf_json_free(f->fields, (char *)a->items + i * f->item_size);
    }
    free(a->items);
    *a = (struct vf_json_array){0};
}

/* Arrays of objects and arrays of arrays of strings. */
static int decode_array(struct decoder *d, const struct vf_json_field *f, const cJSON *j,
                        struct vf_json_array *ret)
{
    size_t item_size = f->type == VF_JSON_STRING_ARRAYS ? sizeof(struct vf_strv) : f->item_size;
    struct vf_json_array list = {0};
    size_t n = 0;
    int r = check_array(d, f->min, vf_json_upper(f), j, &n);

    if (r < 0)
        return r;
    list.items = calloc(n + 1, item_size);
    if (list.items == NULL)
        return no_memory(d);
    for (const cJSON *item = j->child; item != NULL; item = item->next) {
        size_t old = push_index(d, list.n);
        void *to = (char *)list.items + list.n * item_size;

        list.n++; /* also of a half-decoded one there is something to free */
        if (f->type == VF_JSON_STRING_ARRAYS)
            r = decode_strv(d, 0, VF_JSON_MAX_ITEMS, item, (struct vf_strv *)to);
        else
            r = decode_object(d, f->fields, item, to);
        pop(d, old);
        if (r < 0) {
            free_array(f, &list);
            return r;
        }
    }
    free_array(f, ret);
    *ret = list;
    return 0;
}

static int decode_value(struct decoder *d, const struct vf_json_field *f, const cJSON *j,
                        void *member)
{
    char *copy = NULL;
    int r;

    switch (f->type) {
    case VF_JSON_BOOL:
        if (!cJSON_IsBool(j))
            return FAIL(d, "must be true or false (is %s)", kind(j));
        *(bool *)member = cJSON_IsTrue(j);
        return 0;
    case VF_JSON_INT:
        return decode_int(d, f, j, (int64_t *)member);
    case VF_JSON_STRING:
        r = decode_string(d, f->min, vf_json_upper(f), j, &copy);
        if (r == 0) {
            free(*(char **)member);
            *(char **)member = copy;
        }
        return r;
    case VF_JSON_ENUM:
        return decode_enum(d, f, j, (int *)member);
    case VF_JSON_OBJECT:
        return decode_object(d, f->fields, j, member);
    case VF_JSON_STRING_ARRAY:
        return decode_strv(d, f->min, vf_json_upper(f), j, (struct vf_strv *)member);
    case VF_JSON_OBJECT_ARRAY:
    case VF_JSON_STRING_ARRAYS:
        return decode_array(d, f, j, (struct vf_json_array *)member);
    }
    return at_path(d, vf_fail(d->err, VF_INTERNAL, "the table knows no such type"));
}

/* At the path of the unknown key. */
static int unknown_key(struct decoder *d, const struct vf_json_field *fields, const char *key)
{
    const char *near = NULL;
    size_t best = SIZE_MAX, len = 0;
    char known[240] = "";
    int r;

    for (const struct vf_json_field *f = fields; f->name != NULL; f++) {
        size_t distance = vf_json_distance(key, f->name);
        int n = snprintf(known + len, sizeof(known) - len, "%s%s", len > 0 ? ", " : "", f->name);

        if (distance < best) {
            near = f->name;
            best = distance;
        }
        len = len + (size_t)n < sizeof(known) ? len + (size_t)n : sizeof(known) - 1;
    }
    if (near != NULL)
        r = FAIL(d, "unknown key, did you mean \"%s\"?", near);
    else
        r = FAIL(d, "unknown key");
    vf_hint(d->err, "known here: %s", known);
    return r;
}

static const cJSON *find(const cJSON *from, const cJSON *until, const char *key)
{
    for (; from != until; from = from->next) {
        if (strcmp(from->string, key) == 0)
            return from;
    }
    return NULL;
}

static int decode_member(struct decoder *d, const struct vf_json_field *fields, const cJSON *j,
                         const cJSON *item, void *dst)
{
    const struct vf_json_field *f = fields;
    int r;

    while (f->name != NULL && strcmp(f->name, item->string) != 0)
        f++;
    if (f->name == NULL)
        return unknown_key(d, fields, item->string);
    if (find(j->child, item, item->string) != NULL)
        return FAIL(d, "is given twice");
    r = decode_value(d, f, item, (char *)dst + f->offset);
    if (r == 0 && f->present != 0)
        *(bool *)((char *)dst + f->present) = true;
    return r;
}

static int decode_object(struct decoder *d, const struct vf_json_field *fields, const cJSON *j,
                         void *dst)
{
    size_t old;
    int r;

    if (!cJSON_IsObject(j))
        return FAIL(d, "must be an object (is %s)", kind(j));
    for (const cJSON *item = j->child; item != NULL; item = item->next) {
        old = push_key(d, item->string);
        r = decode_member(d, fields, j, item, dst);
        pop(d, old);
        if (r < 0)
            return r;
    }
    for (const struct vf_json_field *f = fields; f->name != NULL; f++) {
        if (!f->required || find(j->child, NULL, f->name) != NULL)
            continue;
        old = push_key(d, f->name);
        r = FAIL(d, "is required");
        pop(d, old);
        return r;
    }
    return 0;
}

int vf_json_decode(const char *text, size_t len, size_t max_len, const struct vf_json_field *fields,
                   void *dst, const char *where, struct vf_error *err)
{
    struct decoder d = {.where = where, .err = err};
    cJSON *tree = NULL;
    int r;

    if (len > max_len)
        return FAIL(&d, "is %zu bytes long, at most %zu are allowed", len, max_len);
    r = vf_json_parse_strict(text, len, &tree, err);
    if (r < 0)
        return at_path(&d, r);
    r = decode_object(&d, fields, tree, dst);
    cJSON_Delete(tree);
    return r;
}

void vf_json_free(const struct vf_json_field *fields, void *dst)
{
    for (const struct vf_json_field *f = fields; f->name != NULL; f++) {
        void *member = (char *)dst + f->offset;

        switch (f->type) {
        case VF_JSON_STRING:
            free(*(char **)member);
            *(char **)member = NULL;
            break;
        case VF_JSON_OBJECT:
            vf_json_free(f->fields, member);
            break;
        case VF_JSON_STRING_ARRAY:
            free_strv((struct vf_strv *)member);
            break;
        case VF_JSON_OBJECT_ARRAY:
        case VF_JSON_STRING_ARRAYS:
            free_array(f, (struct vf_json_array *)member);
            break;
        case VF_JSON_BOOL:
        case VF_JSON_INT:
        case VF_JSON_ENUM:
            break;
        }
    }
}

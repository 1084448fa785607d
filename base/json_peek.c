/* Parsed JSON to pick from. See json.h. struct vf_json is never defined: its pointers are cJSON's. */
#include "base/json_internal.h"

#include <errno.h>
#include <string.h>

static const cJSON *tree(const struct vf_json *j)
{
    return (const cJSON *)(const void *)j;
}

struct vf_json *vf_json_parse(const char *text, size_t len)
{
    cJSON *root;

    if (vf_json_parse_strict(text, len, &root, NULL) < 0)
        return NULL;
    return (struct vf_json *)(void *)root;
}

void vf_json_delete(struct vf_json *j)
{
    cJSON_Delete((cJSON *)(void *)j);
}

const struct vf_json *vf_json_get(const struct vf_json *obj, const char *key)
{
    if (!cJSON_IsObject(tree(obj)))
        return NULL;
    return (const struct vf_json *)(const void *)cJSON_GetObjectItemCaseSensitive(tree(obj), key);
}

const struct vf_json *vf_json_at(const struct vf_json *array, size_t i)
{
    const cJSON *item;

    if (!cJSON_IsArray(tree(array)))
        return NULL;
    for (item = tree(array)->child; item != NULL && i > 0; i--)
        item = item->next;
    return (const struct vf_json *)(const void *)item;
}

bool vf_json_is_object(const struct vf_json *j)
{
    return cJSON_IsObject(tree(j));
}

const char *vf_json_str(const struct vf_json *j, const char *dflt)
{
    return cJSON_IsString(tree(j)) ? tree(j)->valuestring : dflt;
}

int64_t vf_json_int(const struct vf_json *j, int64_t dflt)
{
    const int64_t limit = INT64_C(1) << 53;
    int64_t v;
    double d;

    if (!cJSON_IsNumber(tree(j)))
        return dflt;
    switch (vf_json_exact_int(tree(j)->valuestring, &v)) {
    case 0:
        return v >= -limit && v <= limit ? v : dflt;
    case -EINVAL: /* with a fraction or an exponent: whole all the same? */
        d = tree(j)->valuedouble;
        if (d > -(double)limit && d < (double)limit && d == (double)(int64_t)d)
            return (int64_t)d;
        return dflt;
    default:
        return dflt;
    }
}

bool vf_json_bool(const struct vf_json *j, bool dflt)
{
    return cJSON_IsBool(tree(j)) ? cJSON_IsTrue(tree(j)) : dflt;
}

double vf_json_double(const struct vf_json *j, double dflt)
{
    return cJSON_IsNumber(tree(j)) ? tree(j)->valuedouble : dflt;
}

char *vf_json_print(const struct vf_json *j)
{
    char *ours = NULL, *theirs = tree(j) != NULL ? cJSON_PrintUnformatted(tree(j)) : NULL;

    if (theirs != NULL)
        ours = strdup(theirs);
    cJSON_free(theirs);
    return vf_json_lay_out(ours);
}

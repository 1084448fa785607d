/* What the files of base/json*.c share; not for others. */
#ifndef VF_BASE_JSON_INTERNAL_H
#define VF_BASE_JSON_INTERNAL_H

#include <cjson/cJSON.h>
#include "base/json.h"

#define VF_JSON_MAX_DEPTH 32
#define VF_JSON_MAX_STRING 4096 /* bytes, where a table gives no limit */
#define VF_JSON_MAX_ITEMS 256   /* likewise */

/* Parses text, strictly (RFC 8259, one value, no NUL in strings, at most VF_JSON_MAX_DEPTH levels).
 * The message names line and column. In the tree each number's valuestring is its text; cJSON_Delete
 * frees it. */
int vf_json_parse_strict(const char *text, size_t len, cJSON **ret, struct vf_error *err);

/* The value of a JSON number's text: 0; -ERANGE beyond int64; -EINVAL with a fraction or exponent. */
int vf_json_exact_int(const char *number, int64_t *ret);

/* How many edits lie between a and b, with case and the likes of - and _ aside; SIZE_MAX if too many
 * for one to be a slip for the other. */
size_t vf_json_distance(const char *a, const char *b);

/* Takes compact JSON (freed), returns it in lines with two-space indents; NULL without memory or for
 * NULL. */
char *vf_json_lay_out(char *compact);

/* The upper limit for a string's bytes or an array's items. */
static inline int64_t vf_json_upper(const struct vf_json_field *f)
{
    if (f->max != 0)
        return f->max;
    return f->type == VF_JSON_STRING ? VF_JSON_MAX_STRING : VF_JSON_MAX_ITEMS;
}

#endif

/* See spec_name.h. The text is known to be JSON before it is searched, so the search may be simple: strings are
 * skipped, braces counted, and a key is a string at depth 1 with a colon behind it. */
#include "tools/vmfactory/spec_name.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t\r\n");
}

/* p at a string's first quote; returns what is behind its last. */
static const char *skip_string(const char *p)
{
    for (p++; *p != '"' && *p != '\0'; p++)
        if (*p == '\\' && p[1] != '\0')
            p++;
    return *p == '"' ? p + 1 : p;
}

/* The value of the key "name" of the outermost object, with its quotes; NULL: it has none. */
static const char *find_name(const char *p, const char **ret_end)
{
    int depth = 0;

    while (*p != '\0') {
        const char *end, *value;

        if (*p != '"') {
            depth += *p == '{' || *p == '[';
            depth -= *p == '}' || *p == ']';
            p++;
            continue;
        }
        end = skip_string(p);
        value = skip_blanks(end);
        if (depth == 1 && *value == ':' && end - p == 6 && memcmp(p, "\"name\"", 6) == 0) {
            value = skip_blanks(value + 1);
            if (*value != '"')
                return NULL;
            *ret_end = skip_string(value);
            return value;
        }
        p = end;
    }
    return NULL;
}

int vf_spec_rename(const char *text, size_t len, const char *name, char **ret, struct vf_error *err)
{
    struct vf_json *j = vf_json_parse(text, len);
    bool object = vf_json_is_object(j), named = vf_json_get(j, "name") != NULL;
    bool empty = false, right = vf_json_str(vf_json_get(j, "name"), NULL) != NULL || !named;
    struct vf_json_writer w = {0};
    const char *at, *end = NULL;
    char *quoted, *made = NULL;
    int n = -1;

    vf_json_delete(j);
    if (!object || strlen(text) != len)
        return vf_fail(err, VF_INVALID_ARGUMENT, "the spec is no JSON object");
    if (!right)
        return vf_fail(err, VF_INVALID_ARGUMENT, "name: must be a string");
    vf_jw_string(&w, NULL, name);
    quoted = vf_jw_finish(&w);
    at = find_name(text, &end);
    if (at == NULL && named) {
        free(quoted);
        return vf_fail(err, VF_INVALID_ARGUMENT, "name: is written with escapes; write it plainly");
    }
    if (quoted != NULL && at != NULL)
        n = asprintf(&made, "%.*s%s%s", (int)(at - text), text, quoted, end);
    else if (quoted != NULL) {
        at = strchr(text, '{') + 1;
        empty = *skip_blanks(at) == '}';
        n = asprintf(&made, "%.*s\"name\":%s%s%s", (int)(at - text), text, quoted, empty ? "" : ",",
                     at);
    }
    free(quoted);
    if (n < 0)
        return vf_fail(err, VF_NO_MEMORY, "out of memory");
    *ret = made;
    return 0;
}

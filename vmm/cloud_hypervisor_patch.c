/* Edits in JSON text that leave everything else as it is written.
 *
 * Numbers in a VMM's config go up to 2^64, beyond what a double holds exactly: so the text is not parsed and printed,
 * but copied, value by value, with its path; where an edit names the path, the edit's value comes instead, or nothing.
 * What an edit names and is not there is added to its object. The text is checked by the JSON parser first (which also
 * bounds its depth), so the walk itself has no errors.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/cloud_hypervisor.h"

#define MAX_EDITS 64

struct patch {
    const char *p, *end;
    char *out;
    size_t len;
    char path[512];
    const struct vf_ch_edit *edits;
    size_t n_edits;
    bool done[MAX_EDITS];
    const char *twice; /* a path that was there twice: which of them would count? */
};

static void put(struct patch *x, const char *text, size_t len)
{
    memcpy(x->out + x->len, text, len);
    x->len += len;
}

static void skip_space(struct patch *x)
{
    while (x->p < x->end && isspace((unsigned char)*x->p))
        x->p++;
}

/* At a quote: past the closing one. */
static void skip_string(struct patch *x)
{
    for (x->p++; *x->p != '"'; x->p++)
        if (*x->p == '\\')
            x->p++;
    x->p++;
}

static void skip_value(struct patch *x)
{
    int depth = 0;
    do {
        if (*x->p == '"') {
            skip_string(x);
            continue;
        }
        if (*x->p == '{' || *x->p == '[')
            depth++;
        else if (*x->p == '}' || *x->p == ']')
            depth--;
        x->p++;
    } while (x->p < x->end && (depth || !strchr(",}] \t\r\n", *x->p)));
}

/* Appends ".name" to the path; returns where to cut it again. */
static size_t enter(struct patch *x, const char *name, size_t len)
{
    size_t at = strlen(x->path);
    snprintf(x->path + at, sizeof(x->path) - at, "%s%.*s", at ? "." : "", (int)len, name);
    return at;
}

static const struct vf_ch_edit *edit_here(struct patch *x)
{
    for (size_t i = 0; i < x->n_edits; i++)
        if (strcmp(x->edits[i].path, x->path) == 0) {
            if (x->done[i]) { /* there is no room for a second one either */
                x->twice = x->edits[i].path;
                return NULL;
            }
            x->done[i] = true;
            return &x->edits[i];
        }
    return NULL;
}

static void copy_value(struct patch *x);

/* The members that edits add to the object at the path. */
static void add_members(struct patch *x, bool *first)
{
    size_t at = strlen(x->path);
    for (size_t i = 0; i < x->n_edits; i++) {
        const char *path = x->edits[i].path, *name = path + at + (at ? 1 : 0);
        if (x->done[i] || strncmp(path, x->path, at) != 0 || (at && path[at] != '.') ||
            strchr(name, '.'))
            continue;
        x->done[i] = true;
        if (!x->edits[i].value)
            continue;
        put(x, ",\"", *first ? 0 : 1);
        put(x, "\"", 1);
        put(x, name, strlen(name));
        put(x, "\":", 2);
        put(x, x->edits[i].value, strlen(x->edits[i].value));
        *first = false;
    }
}

static void copy_object(struct patch *x)
{
    bool first = true;
    put(x, x->p++, 1);
    for (skip_space(x); *x->p != '}'; skip_space(x)) {
        const char *key = x->p;
        skip_string(x);
        size_t key_len = (size_t)(x->p - key);
        skip_space(x);
        x->p++; /* the colon */
        skip_space(x);
        size_t back = enter(x, key + 1, key_len - 2);
        const struct vf_ch_edit *e = edit_here(x);
        if (!e || e->value) {
            put(x, ",", first ? 0 : 1);
            put(x, key, key_len);
            put(x, ":", 1);
            first = false;
        }
        if (e) {
            put(x, e->value ? e->value : "", e->value ? strlen(e->value) : 0);
            skip_value(x);
        } else
            copy_value(x);
        x->path[back] = 0;
        skip_space(x);
        if (*x->p == ',')
            x->p++;
    }
    x->p++;
    add_members(x, &first);
    put(x, "}", 1);
}

static void copy_array(struct patch *x)
{
    put(x, x->p++, 1);
    skip_space(x);
    for (int i = 0; *x->p != ']'; i++, skip_space(x)) {
        char name[16];
        int n = snprintf(name, sizeof(name), "%d", i);
        size_t back = enter(x, name, (size_t)n);
        put(x, ",", i ? 1 : 0);
        copy_value(x);
        x->path[back] = 0;
        skip_space(x);
        if (*x->p == ',')
            x->p++;
    }
    put(x, x->p++, 1);
}

static void copy_value(struct patch *x)
{
    const char *from = x->p;
    if (*from == '{')
        copy_object(x);
    else if (*from == '[')
        copy_array(x);
    else {
        skip_value(x);
        put(x, from, (size_t)(x->p - from));
    }
}

int vf_ch_patch(const char *text, size_t len, const struct vf_ch_edit *edits, size_t n_edits,
                char **ret, struct vf_error *err)
{
    struct patch x = {.p = text, .end = text + len, .edits = edits, .n_edits = n_edits};
    struct vf_json *json = vf_json_parse(text, len);
    bool ok = vf_json_is_object(json) && n_edits <= MAX_EDITS;
    vf_json_delete(json);
    if (!ok)
        return vf_fail(err, VF_CORRUPT, "is no JSON object");
    size_t room = len + 1;
    for (size_t i = 0; i < n_edits; i++)
        room += strlen(edits[i].path) + (edits[i].value ? strlen(edits[i].value) : 0) + 8;
    x.out = malloc(room);
    if (!x.out)
        return vf_fail(err, VF_NO_MEMORY, "a config of %zu bytes", len);
    skip_space(&x);
    copy_value(&x);
    x.out[x.len] = 0;
    if (x.twice) {
        free(x.out);
        return vf_fail(err, VF_CORRUPT, "names %s twice", x.twice);
    }
    for (size_t i = 0; i < n_edits; i++)
        if (!x.done[i] && edits[i].value) {
            free(x.out);
            return vf_fail(err, VF_CORRUPT, "has no place for %s", edits[i].path);
        }
    *ret = x.out;
    return 0;
}

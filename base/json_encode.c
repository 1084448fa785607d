/* Struct -> JSON text, by a table: written compact, then laid out. See json.h. */
#include "base/json_internal.h"

#include <stdlib.h>
#include <string.h>

static void write_strv(struct vf_json_writer *w, const char *key, const struct vf_strv *s)
{
    vf_jw_begin(w, key, '[');
    for (size_t i = 0; i < s->n; i++)
        vf_jw_string(w, NULL, s->v[i]);
    vf_jw_end(w, ']');
}

static void write_members(struct vf_json_writer *w, const struct vf_json_field *fields,
                          const void *src);

static void write_array(struct vf_json_writer *w, const struct vf_json_field *f,
                        const struct vf_json_array *a)
{
    vf_jw_begin(w, f->name, '[');
    for (size_t i = 0; i < a->n; i++) {
        if (f->type == VF_JSON_STRING_ARRAYS) {
            write_strv(w, NULL, (const struct vf_strv *)a->items + i);
        } else {
            vf_jw_begin(w, NULL, '{');
            write_members(w, f->fields, (const char *)a->items + i * f->item_size);
            vf_jw_end(w, '}');
        }
    }
    vf_jw_end(w, ']');
}

static void write_field(struct vf_json_writer *w, const struct vf_json_field *f, const void *member)
{
    switch (f->type) {
    case VF_JSON_BOOL:
        vf_jw_bool(w, f->name, *(const bool *)member);
        break;
    case VF_JSON_INT:
        vf_jw_int(w, f->name, *(const int64_t *)member);
        break;
    case VF_JSON_STRING:
        if (*(char *const *)member != NULL)
            vf_jw_string(w, f->name, *(char *const *)member);
        break;
    case VF_JSON_ENUM:
        vf_jw_string(w, f->name, f->choices[*(const int *)member]);
        break;
    case VF_JSON_OBJECT:
        vf_jw_begin(w, f->name, '{');
        write_members(w, f->fields, member);
        vf_jw_end(w, '}');
        break;
    case VF_JSON_STRING_ARRAY:
        write_strv(w, f->name, (const struct vf_strv *)member);
        break;
    case VF_JSON_OBJECT_ARRAY:
    case VF_JSON_STRING_ARRAYS:
        write_array(w, f, (const struct vf_json_array *)member);
        break;
    }
}

static void write_members(struct vf_json_writer *w, const struct vf_json_field *fields,
                          const void *src)
{
    for (const struct vf_json_field *f = fields; f->name != NULL; f++) {
        if (f->present == 0 || *(const bool *)((const char *)src + f->present))
            write_field(w, f, (const char *)src + f->offset);
    }
}

/* The end of the string that begins at p. */
static const char *string_end(const char *p)
{
    for (p++; *p != '"'; p++) {
        if (*p == '\\')
            p++;
    }
    return p + 1;
}

static void put(char *out, size_t *len, const char *text, size_t n)
{
    if (out != NULL)
        memcpy(out + *len, text, n);
    *len += n;
}

static void new_line(char *out, size_t *len, int depth)
{
    put(out, len, "\n", 1);
    for (int i = 0; i < depth; i++)
        put(out, len, "  ", 2);
}

/* Lays out compact JSON in lines; out == NULL only counts. Returns the length. */
static size_t lay_out(const char *p, char *out)
{
    size_t len = 0;
    int depth = 0;

    while (*p != '\0') {
        const char *end = *p == '"' ? string_end(p) : p + 1;

        if ((*p == '{' || *p == '[') && (p[1] == '}' || p[1] == ']')) {
            end = p + 2;
            put(out, &len, p, 2);
        } else if (*p == '{' || *p == '[') {
            put(out, &len, p, 1);
            new_line(out, &len, ++depth);
        } else if (*p == '}' || *p == ']') {
            new_line(out, &len, --depth);
            put(out, &len, p, 1);
        } else {
            put(out, &len, p, (size_t)(end - p));
            if (*p == ',')
                new_line(out, &len, depth);
            else if (*p == ':')
                put(out, &len, " ", 1);
        }
        p = end;
    }
    put(out, &len, "\n", 1);
    return len;
}

char *vf_json_lay_out(char *compact)
{
    char *text = NULL;

    if (compact != NULL) {
        size_t len = lay_out(compact, NULL);

        text = (char *)malloc(len + 1);
        if (text != NULL) {
            lay_out(compact, text);
            text[len] = '\0';
        }
    }
    free(compact);
    return text;
}

char *vf_json_encode_compact(const struct vf_json_field *fields, const void *src)
{
    struct vf_json_writer w = {0};

    vf_jw_begin(&w, NULL, '{');
    write_members(&w, fields, src);
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

char *vf_json_encode(const struct vf_json_field *fields, const void *src)
{
    return vf_json_lay_out(vf_json_encode_compact(fields, src));
}

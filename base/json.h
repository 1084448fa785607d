/* JSON at the edge: text -> structs by tables, structs -> text by a writer. cJSON goes no further
 * than base/json_*.c.
 *
 * Decoding is strict: an unknown key is refused with the nearest known one, a duplicate key, a
 * wrong type, a value out of its limits, trailing text, NUL or invalid UTF-8 in a string,
 * nesting over 32 levels or text over the cap likewise. The message names the path of the
 * field: "memory.size_mib: must be at least 16 (is -1)". Integers are exact over the whole of
 * int64: they are read from the text, not from a double ("1e3" and "1.0" are refused).
 */
#ifndef VF_BASE_JSON_H
#define VF_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum vf_json_type {
    VF_JSON_BOOL,         /* bool */
    VF_JSON_INT,          /* int64_t, min..max */
    VF_JSON_STRING,       /* char * (malloc'd), length min..max bytes (max 0: 4096) */
    VF_JSON_ENUM,         /* int: index in choices, a NULL-ended array of names; those before min
                             are neither accepted nor offered */
    VF_JSON_OBJECT,       /* a struct in place at offset, decoded by fields */
    VF_JSON_STRING_ARRAY, /* struct vf_strv, min..max items (max 0: 256) of at most 4096 bytes */
    VF_JSON_OBJECT_ARRAY, /* struct vf_json_array; items of item_size decoded by fields */
    VF_JSON_STRING_ARRAYS /* array of arrays of strings: struct vf_json_array of struct vf_strv */
};

struct vf_strv { /* a list of strings; n strings, then NULL; v may be NULL if n == 0 */
    char **v;
    size_t n;
};
struct vf_json_array {
    void *items; /* n * item_size bytes */
    size_t n;
};

struct vf_json_field {
    const char *name;
    enum vf_json_type type;
    size_t offset;
    int64_t min, max;
    bool required;
    const char *const *choices;
    const struct vf_json_field *fields; /* OBJECT, OBJECT_ARRAY; ends with name == NULL */
    size_t item_size;
    const char *help; /* one sentence, goes into the JSON Schema */
    size_t present;   /* offset of a bool that is set if the key was there, or 0 for none; the
                       encoder leaves the field out if that bool is false */
};

/* Decodes text into dst, which the caller filled with defaults (strings malloc'd or NULL). where:
 * the name put before field paths, e.g. the file's name, or NULL. Returns 0 or a negative errno;
 * on failure dst's members are still valid for vf_json_free. */
int vf_json_decode(const char *text, size_t len, size_t max_len, const struct vf_json_field *fields,
                   void *dst, const char *where, struct vf_error *err);
/* Frees every string and array in dst that the table names, and zeroes those members. */
void vf_json_free(const struct vf_json_field *fields, void *dst);
/* dst as a JSON object, two-space indented, with a newline at its end, all fields in table order.
 * Left out: strings that are NULL, and fields whose `present` says that they were not given. Returns malloc'd text, NULL without memory. Round-trips through vf_json_decode. */
char *vf_json_encode(const struct vf_json_field *fields, const void *src);
/* The same on one line without spaces, for what only programs read. */
char *vf_json_encode_compact(const struct vf_json_field *fields, const void *src);
/* The table as a JSON Schema (draft 2020-12) object; malloc'd. title, id: may be NULL. */
char *vf_json_schema(const struct vf_json_field *fields, const char *title, const char *id);

/* The nearest of names (NULL-ended) to word, or NULL if none is near. Used for
 * "unknown key …, did you mean …" here and in commands. */
const char *vf_nearest(const char *word, const char *const *names);

/* A writer for output that is no fixed struct. Grows a malloc'd buffer; the first failure sticks.
 *   struct vf_json_writer w = {0};
 *   vf_jw_begin(&w, NULL, '{'); vf_jw_int(&w, "n", 3); vf_jw_end(&w, '}');
 *   char *text = vf_jw_finish(&w);   // NULL without memory
 * key is NULL inside arrays and at the top. Strings are escaped; invalid UTF-8 becomes U+FFFD. */
struct vf_json_writer {
    char *buf;
    size_t len, cap;
    bool failed, need_comma;
    int depth;
};
void vf_jw_begin(struct vf_json_writer *w, const char *key, char open /* '{' or '[' */);
void vf_jw_end(struct vf_json_writer *w, char close);
void vf_jw_string(struct vf_json_writer *w, const char *key, const char *value /* NULL: null */);
void vf_jw_int(struct vf_json_writer *w, const char *key, int64_t value);
void vf_jw_double(struct vf_json_writer *w, const char *key, double value, int decimals);
void vf_jw_bool(struct vf_json_writer *w, const char *key, bool value);
/* json: a whole JSON value, as it is. */
void vf_jw_raw(struct vf_json_writer *w, const char *key, const char *json);
char *vf_jw_finish(struct vf_json_writer *w);

/* Parsed JSON for peers whose messages we only pick from (QMP). Opaque cJSON underneath; every
 * getter copes with NULL and with wrong types by returning its default. */
struct vf_json;
/* NULL if not valid JSON, too deep (32) or without memory. Not NUL-terminated text is fine. */
struct vf_json *vf_json_parse(const char *text, size_t len);
void vf_json_delete(struct vf_json *j);
const struct vf_json *vf_json_get(const struct vf_json *obj, const char *key);
const struct vf_json *vf_json_at(const struct vf_json *array, size_t i);
bool vf_json_is_object(const struct vf_json *j);
const char *vf_json_str(const struct vf_json *j, const char *dflt);
/* dflt if not a number, not whole, or beyond ±2^53. */
int64_t vf_json_int(const struct vf_json *j, int64_t dflt);
bool vf_json_bool(const struct vf_json *j, bool dflt);
double vf_json_double(const struct vf_json *j, double dflt);
/* As text, two-space indented, with a newline at its end. malloc'd; NULL for NULL or without memory. */
char *vf_json_print(const struct vf_json *j);

#endif

/* The table as a JSON Schema, so that editors and other tools check what the decoder will. See json.h.
 *
 * The schema never refuses what the decoder takes: lengths are bytes here and characters there, so a
 * lower limit is given as the fewest characters that can have that many bytes. */
#include "base/json_internal.h"

static void write_strings(struct vf_json_writer *w, int64_t min, int64_t max)
{
    vf_jw_string(w, "type", "string");
    if (min > 0)
        vf_jw_int(w, "minLength", (min + 3) / 4);
    vf_jw_int(w, "maxLength", max);
}

static void write_items(struct vf_json_writer *w, int64_t min, int64_t max)
{
    vf_jw_string(w, "type", "array");
    if (min > 0)
        vf_jw_int(w, "minItems", min);
    vf_jw_int(w, "maxItems", max);
    vf_jw_begin(w, "items", '{');
}

static void write_object(struct vf_json_writer *w, const struct vf_json_field *fields);

static void write_type(struct vf_json_writer *w, const struct vf_json_field *f)
{
    switch (f->type) {
    case VF_JSON_BOOL:
        vf_jw_string(w, "type", "boolean");
        break;
    case VF_JSON_INT:
        vf_jw_string(w, "type", "integer");
        vf_jw_int(w, "minimum", f->min);
        vf_jw_int(w, "maximum", f->max);
        break;
    case VF_JSON_STRING:
        write_strings(w, f->min, vf_json_upper(f));
        break;
    case VF_JSON_ENUM:
        vf_jw_begin(w, "enum", '[');
        for (int64_t i = f->min; f->choices[i] != NULL; i++)
            vf_jw_string(w, NULL, f->choices[i]);
        vf_jw_end(w, ']');
        break;
    case VF_JSON_OBJECT:
        write_object(w, f->fields);
        break;
    case VF_JSON_STRING_ARRAY:
        write_items(w, f->min, vf_json_upper(f));
        write_strings(w, 0, VF_JSON_MAX_STRING);
        vf_jw_end(w, '}');
        break;
    case VF_JSON_OBJECT_ARRAY:
        write_items(w, f->min, vf_json_upper(f));
        write_object(w, f->fields);
        vf_jw_end(w, '}');
        break;
    case VF_JSON_STRING_ARRAYS:
        write_items(w, f->min, vf_json_upper(f));
        write_items(w, 0, VF_JSON_MAX_ITEMS);
        write_strings(w, 0, VF_JSON_MAX_STRING);
        vf_jw_end(w, '}');
        vf_jw_end(w, '}');
        break;
    }
}

/* The members of an object's schema; the braces are the caller's. */
static void write_object(struct vf_json_writer *w, const struct vf_json_field *fields)
{
    bool any_required = false;

    vf_jw_string(w, "type", "object");
    vf_jw_begin(w, "properties", '{');
    for (const struct vf_json_field *f = fields; f->name != NULL; f++) {
        any_required = any_required || f->required;
        vf_jw_begin(w, f->name, '{');
        if (f->help != NULL)
            vf_jw_string(w, "description", f->help);
        write_type(w, f);
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, '}');
    if (any_required) {
        vf_jw_begin(w, "required", '[');
        for (const struct vf_json_field *f = fields; f->name != NULL; f++) {
            if (f->required)
                vf_jw_string(w, NULL, f->name);
        }
        vf_jw_end(w, ']');
    }
    vf_jw_bool(w, "additionalProperties", false);
}

char *vf_json_schema(const struct vf_json_field *fields, const char *title, const char *id)
{
    struct vf_json_writer w = {0};

    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "$schema", "https://json-schema.org/draft/2020-12/schema");
    if (id != NULL)
        vf_jw_string(&w, "$id", id);
    if (title != NULL)
        vf_jw_string(&w, "title", title);
    write_object(&w, fields);
    vf_jw_end(&w, '}');
    return vf_json_lay_out(vf_jw_finish(&w));
}

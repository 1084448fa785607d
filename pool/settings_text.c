/* Shows the settings' table to people. See settings_text.h. */
#include "pool/settings_text.h"

#include <inttypes.h>
#include <string.h>
#include "pool/settings_internal.h"

#define MEANING_COLUMN 44
#define LINE_WIDTH 118

/* "30000 ms", "info", "none" */
static void with_unit(const struct vf_setting *t, const char *value, char *buf, size_t size)
{
    if (value == NULL || value[0] == '\0')
        snprintf(buf, size, "none");
    else
        snprintf(buf, size, "%s%s%s", value, t->unit != NULL ? " " : "",
                 t->unit != NULL ? t->unit : "");
}

static void value_of(const struct vf_settings *s, const struct vf_setting *t, char *buf,
                     size_t size)
{
    char number[24];

    switch (t->field.type) {
    case VF_JSON_INT:
        snprintf(number, sizeof(number), "%" PRId64, *vf_setting_int(s, t));
        with_unit(t, number, buf, size);
        break;
    case VF_JSON_ENUM:
        with_unit(t, t->field.choices[*vf_setting_enum(s, t)], buf, size);
        break;
    case VF_JSON_BOOL:
        with_unit(t, *vf_setting_bool(s, t) ? "true" : "false", buf, size);
        break;
    default:
        with_unit(t, *vf_setting_string(s, t), buf, size);
        break;
    }
}

/* "0 to 100", "text or json", or nothing where all goes. */
static void limits_of(const struct vf_setting *t, char *buf, size_t size)
{
    const char *const *c = t->field.choices;
    size_t len = 0;

    buf[0] = '\0';
    if (t->field.type == VF_JSON_INT)
        snprintf(buf, size, "%" PRId64 " to %" PRId64, t->field.min, t->field.max);
    for (int i = 0; t->field.type == VF_JSON_ENUM && c[i] != NULL && len < size; i++) {
        const char *separator = i == 0 ? "" : c[i + 1] == NULL ? " or " : ", ";

        len += (size_t)snprintf(buf + len, size - len, "%s%s", separator, c[i]);
    }
}

/* Prints text in lines, each after the first indented to column; the cursor is at column. */
static void print_wrapped(FILE *f, const char *text, int column)
{
    int at = column;

    while (*text != '\0') {
        int word = (int)strcspn(text, " ");

        if (at > column && at + word > LINE_WIDTH) {
            fprintf(f, "\n%*s", column, "");
            at = column;
        }
        fprintf(f, "%.*s", word, text);
        at += word;
        text += word;
        if (*text != ' ')
            continue;
        text++;
        if (at + 1 + (int)strcspn(text, " ") <= LINE_WIDTH)
            fputc(' ', f);
        at++;
    }
    fputc('\n', f);
}

void vf_settings_print_brief(FILE *f)
{
    char dflt[80];

    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++) {
        with_unit(t, t->dflt, dflt, sizeof(dflt));
        fprintf(f, "  %-24s%s\n", t->field.name, dflt);
    }
}

void vf_settings_print(FILE *f, const struct vf_settings *s)
{
    char value[4200], limits[120], meaning[1000];

    fprintf(f, "%-24s%-20s%s\n", "SETTING", "VALUE", "MEANING");
    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++) {
        value_of(s, t, value, sizeof(value));
        limits_of(t, limits, sizeof(limits));
        snprintf(meaning, sizeof(meaning), "%s%s%s%s%s", t->field.help,
                 t->field.type == VF_JSON_INT    ? " From "
                 : t->field.type == VF_JSON_ENUM ? " One of "
                                                 : "",
                 limits, limits[0] != '\0' ? "." : "", t->live ? " Live." : "");
        fprintf(f, "%-24s%-19s ", t->field.name, value);
        if (strlen(value) > 19)
            fprintf(f, "\n%*s", MEANING_COLUMN, "");
        print_wrapped(f, meaning, MEANING_COLUMN);
    }
    fputs("\nLive settings take effect at SIGHUP; the others wait for a restart.\n", f);
}

void vf_settings_write(struct vf_json_writer *w, const char *key, const struct vf_settings *s)
{
    char number[24];

    vf_jw_begin(w, key, '[');
    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++) {
        const char *value = number;

        snprintf(number, sizeof(number), "%" PRId64,
                 t->field.type == VF_JSON_INT ? *vf_setting_int(s, t) : 0);
        if (t->field.type == VF_JSON_ENUM)
            value = t->field.choices[*vf_setting_enum(s, t)];
        else if (t->field.type == VF_JSON_BOOL)
            value = *vf_setting_bool(s, t) ? "true" : "false";
        else if (t->field.type == VF_JSON_STRING)
            value = *vf_setting_string(s, t);
        vf_jw_begin(w, NULL, '{');
        vf_jw_string(w, "name", t->field.name);
        vf_jw_string(w, "value", value != NULL && value[0] != '\0' ? value : NULL);
        vf_jw_string(w, "default", t->dflt != NULL && t->dflt[0] != '\0' ? t->dflt : NULL);
        vf_jw_string(w, "unit", t->unit);
        vf_jw_bool(w, "live", t->live);
        vf_jw_string(w, "help", t->field.help);
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, ']');
}

/* roff: a backslash, a hyphen that is to stay one, and a dot or quote that would begin a request. */
static void print_roff(FILE *f, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", f);
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            fputs("\\e", f);
        else if (*text == '-')
            fputs("\\-", f);
        else if (*text == '~')
            fputs("\\(ti", f);
        else
            fputc(*text, f);
    }
}

void vf_settings_print_man(FILE *f)
{
    char dflt[80], limits[120];

    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++) {
        with_unit(t, t->dflt, dflt, sizeof(dflt));
        limits_of(t, limits, sizeof(limits));
        fputs(".TP\n.B ", f);
        print_roff(f, t->field.name);
        fputc('\n', f);
        print_roff(f, t->field.help);
        fputs("\nDefault: ", f);
        print_roff(f, dflt);
        if (limits[0] != '\0') {
            fputs(t->field.type == VF_JSON_INT ? "; from " : "; one of ", f);
            print_roff(f, limits);
        }
        fputs(t->live ? ". Live.\n" : ".\n", f);
    }
}

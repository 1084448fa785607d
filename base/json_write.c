/* The JSON writer: text without spaces into a buffer that grows. See json.h.
 *
 * The first failure (no memory, an end without its begin) sticks: later calls do nothing and
 * vf_jw_finish answers NULL.
 */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/utf8.h"

static void add(struct vf_json_writer *w, const char *text, size_t len)
{
    if (w->failed)
        return;
    if (w->cap - w->len <= len) { /* one byte is kept for the NUL */
        size_t cap = w->cap == 0 ? 256 : w->cap;
        char *bigger;

        while (cap - w->len <= len && cap <= SIZE_MAX / 2)
            cap *= 2;
        bigger = cap - w->len > len ? (char *)realloc(w->buf, cap) : NULL;
        if (bigger == NULL) {
            w->failed = true;
            return;
        }
        w->buf = bigger;
        w->cap = cap;
    }
    memcpy(w->buf + w->len, text, len);
    w->len += len;
}

/* How the character cp is written within a string if not as itself, else NULL. What JSON leaves to
 * taste is escaped too if it could upset a terminal or reorder what a person reads. */
static const char *escape(uint32_t cp, char buf[8])
{
    switch (cp) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        if (!vf_utf8_is_control(cp))
            return NULL;
        snprintf(buf, 8, "\\u%04x", cp & 0xffff); /* all of them are below U+10000 */
        return buf;
    }
}

/* How many bytes at s are written as they are and are ASCII: nearly all of them, mostly. */
static size_t plain(const char *s)
{
    size_t n = 0;

    while (s[n] >= 0x20 && s[n] < 0x7f && s[n] != '"' && s[n] != '\\') /* also ends at the NUL */
        n++;
    return n;
}

static void add_string(struct vf_json_writer *w, const char *s)
{
    size_t len = strlen(s), start = 0, i = 0;

    add(w, "\"", 1);
    while ((i += plain(s + i)) < len) {
        char buf[8];
        uint32_t cp = 0;
        size_t n = vf_utf8_next(s + i, len - i, &cp);
        const char *as = n == 0 ? "\xef\xbf\xbd" /* U+FFFD */ : escape(cp, buf);

        n = n == 0 ? 1 : n;
        if (as != NULL) {
            add(w, s + start, i - start);
            add(w, as, strlen(as));
            start = i + n;
        }
        i += n;
    }
    add(w, s + start, len - start);
    add(w, "\"", 1);
}

/* What comes before every value: the comma after its elder, and its key. */
static void lead(struct vf_json_writer *w, const char *key)
{
    if (w->need_comma)
        add(w, ",", 1);
    if (key != NULL) {
        add_string(w, key);
        add(w, ":", 1);
    }
    w->need_comma = true;
}

void vf_jw_begin(struct vf_json_writer *w, const char *key, char open)
{
    lead(w, key);
    add(w, &open, 1);
    w->need_comma = false;
    w->depth++;
}

void vf_jw_end(struct vf_json_writer *w, char close)
{
    if (w->depth-- <= 0)
        w->failed = true;
    add(w, &close, 1);
    w->need_comma = true;
}

void vf_jw_string(struct vf_json_writer *w, const char *key, const char *value)
{
    lead(w, key);
    if (value == NULL)
        add(w, "null", 4);
    else
        add_string(w, value);
}

void vf_jw_int(struct vf_json_writer *w, const char *key, int64_t value)
{
    char text[24], *end = text + sizeof(text), *at = end;
    uint64_t left = value < 0 ? -(uint64_t)value : (uint64_t)value;

    do {
        *--at = (char)('0' + left % 10);
    } while ((left /= 10) != 0);
    if (value < 0)
        *--at = '-';
    lead(w, key);
    add(w, at, (size_t)(end - at));
}

void vf_jw_double(struct vf_json_writer *w, const char *key, double value, int decimals)
{
    char text[400]; /* DBL_MAX has 309 digits before the point */
    int n;

    lead(w, key);
    if (!isfinite(value)) {
        add(w, "null", 4); /* JSON has no word for it */
        return;
    }
    decimals = decimals < 0 ? 0 : decimals > 60 ? 60 : decimals;
    n = snprintf(text, sizeof(text), "%.*f", decimals, value);
    for (int i = 0; i < n; i++) { /* the locale's decimal point, whatever it is, is ours */
        if (text[i] != '-' && (text[i] < '0' || text[i] > '9'))
            text[i] = '.';
    }
    add(w, text, (size_t)n);
}

void vf_jw_bool(struct vf_json_writer *w, const char *key, bool value)
{
    lead(w, key);
    add(w, value ? "true" : "false", value ? 4 : 5);
}

void vf_jw_raw(struct vf_json_writer *w, const char *key, const char *json)
{
    lead(w, key);
    add(w, json, strlen(json));
}

char *vf_jw_finish(struct vf_json_writer *w)
{
    char *text = NULL;

    if (!w->failed && w->depth == 0 && w->buf != NULL) {
        text = w->buf;
        text[w->len] = '\0';
    } else {
        free(w->buf);
    }
    *w = (struct vf_json_writer){0};
    return text;
}

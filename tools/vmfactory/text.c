/* See text.h. */
#include "tools/vmfactory/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/clock.h"
#include "base/utf8.h"

void vf_text_clean(const char *src, char *dst, size_t size)
{
    size_t left = strlen(src), at = 0;

    while (left > 0) {
        uint32_t cp = 0;
        size_t n = vf_utf8_next(src, left, &cp), take = n == 0 ? 1 : n;
        bool bad = n == 0 || vf_utf8_is_control(cp);

        if (at + (bad ? 1 : n) >= size)
            break;
        if (bad)
            dst[at++] = '?';
        else {
            memcpy(dst + at, src, n);
            at += n;
        }
        src += take;
        left -= take;
    }
    dst[at] = '\0';
}

void vf_text_print(const char *text, FILE *out)
{
    char clean[2000];

    vf_text_clean(text, clean, sizeof(clean));
    fputs(clean, out);
}

size_t vf_text_width(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

char *vf_text_bytes(char *buf, int64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    int u = 0;

    while (v >= 1024 && u < 6) {
        v /= 1024;
        u++;
    }
    if (u == 0 || v >= 100 || v == (double)(int64_t)v)
        snprintf(buf, VF_TEXT, "%.0f %s", v, units[u]);
    else
        snprintf(buf, VF_TEXT, "%.1f %s", v, units[u]);
    return buf;
}

char *vf_text_us(char *buf, int64_t us)
{
    if (us < 1000)
        snprintf(buf, VF_TEXT, "%" PRId64 " us", us);
    else if (us < 100000)
        snprintf(buf, VF_TEXT, "%.2f ms", (double)us / 1e3);
    else if (us < 1000000)
        snprintf(buf, VF_TEXT, "%.0f ms", (double)us / 1e3);
    else
        snprintf(buf, VF_TEXT, "%.1f s", (double)us / 1e6);
    return buf;
}

char *vf_text_ms(char *buf, int64_t ms)
{
    int64_t s = ms / 1000;

    if (ms < 0)
        snprintf(buf, VF_TEXT, "-");
    else if (s < 10)
        snprintf(buf, VF_TEXT, "%" PRId64 ".%" PRId64 "s", s, ms % 1000 / 100);
    else if (s < 60)
        snprintf(buf, VF_TEXT, "%" PRId64 "s", s);
    else if (s < 3600)
        snprintf(buf, VF_TEXT, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
    else if (s < 48 * 3600)
        snprintf(buf, VF_TEXT, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
    else
        snprintf(buf, VF_TEXT, "%" PRId64 "d", s / 86400);
    return buf;
}

int64_t vf_text_parse_time_ms(const char *rfc3339)
{
    struct tm tm = {0};
    int64_t ms = 0, unit = 100;
    const char *rest;

    if (rfc3339 == NULL || (rest = strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm)) == NULL)
        return -1;
    if (*rest == '.')
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
            ms += (*rest - '0') * unit;
    if (strcmp(rest, "Z") != 0)
        return -1;
    return (int64_t)timegm(&tm) * 1000 + ms;
}

char *vf_text_age(char *buf, const char *rfc3339)
{
    int64_t then_ms = vf_text_parse_time_ms(rfc3339), age_ms;

    if (then_ms < 0)
        return vf_text_ms(buf, -1);
    age_ms = vf_realtime_ns() / 1000000 - then_ms;
    return vf_text_ms(buf, age_ms > 0 ? age_ms : 0);
}

const char *vf_color_on(enum vf_color c)
{
    static const char *const words[] = {"", "\033[1m", "\033[32m", "\033[33m", "\033[31m"};

    return words[c];
}

enum vf_color vf_color_of_state(const char *state)
{
    static const struct {
        const char *state;
        enum vf_color color;
    } known[] = {
        {"ready", VF_GREEN},     {"leased", VF_GREEN},   {"ok", VF_GREEN},
        {"hit", VF_GREEN},       {"loading", VF_YELLOW}, {"building", VF_YELLOW},
        {"absent", VF_YELLOW},   {"drained", VF_YELLOW}, {"releasing", VF_YELLOW},
        {"pressure", VF_YELLOW}, {"warn", VF_YELLOW},    {"quarantined", VF_RED},
        {"dead", VF_RED},        {"backoff", VF_RED},    {"bad", VF_RED},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(state, known[i].state) == 0)
            return known[i].color;
    return VF_PLAIN;
}

void vf_table_init(struct vf_table *t, const char *const *heads)
{
    *t = (struct vf_table){.heads = heads};
    while (heads[t->columns] != NULL)
        t->columns++;
}

void vf_table_cell_colored(struct vf_table *t, const char *text, enum vf_color c)
{
    size_t size;

    if (text == NULL || text[0] == '\0')
        text = "-";
    if (t->n == t->cap) {
        size_t cap = t->cap != 0 ? 2 * t->cap : 64;
        char **cells = realloc(t->cells, cap * sizeof(*cells));
        enum vf_color *colors = realloc(t->colors, cap * sizeof(*colors));

        t->cells = cells != NULL ? cells : t->cells;
        t->colors = colors != NULL ? colors : t->colors;
        if (cells == NULL || colors == NULL) {
            t->failed = true;
            return;
        }
        t->cap = cap;
    }
    size = strlen(text) + 1;
    t->cells[t->n] = malloc(size);
    if (t->cells[t->n] == NULL) {
        t->failed = true;
        return;
    }
    vf_text_clean(text, t->cells[t->n], size);
    t->colors[t->n++] = c;
}

void vf_table_cell(struct vf_table *t, const char *text)
{
    vf_table_cell_colored(t, text, VF_PLAIN);
}

void vf_table_int(struct vf_table *t, int64_t n)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRId64, n);
    vf_table_cell(t, text);
}

static void print_cell(FILE *out, const char *text, size_t width, bool right, bool last,
                       enum vf_color c)
{
    int blanks = (int)(width - vf_text_width(text));

    fprintf(out, "%*s%s%s%s%*s%s", right ? blanks : 0, "", vf_color_on(c), text,
            c != VF_PLAIN ? VF_COLOR_OFF : "", right || last ? 0 : blanks, "", last ? "\n" : "  ");
}

void vf_table_print(struct vf_table *t, FILE *out, bool color)
{
    size_t *widths = calloc((size_t)t->columns, sizeof(*widths)), columns = (size_t)t->columns;

    if (widths == NULL || t->failed) {
        fputs("vmfactory: out of memory\n", stderr);
        t->n = widths == NULL ? 0 : t->n;
        columns = widths == NULL ? 0 : columns;
    }
    for (size_t i = 0; i < columns; i++)
        widths[i] = vf_text_width(t->heads[i] + (t->heads[i][0] == '>'));
    for (size_t i = 0; i < t->n; i++) {
        size_t w = vf_text_width(t->cells[i]);

        if (w > widths[i % columns])
            widths[i % columns] = w;
    }
    for (size_t i = 0; i < columns; i++) {
        bool right = t->heads[i][0] == '>';

        print_cell(out, t->heads[i] + right, widths[i], right, i + 1 == columns,
                   color ? VF_BOLD : VF_PLAIN);
    }
    for (size_t i = 0; i < t->n; i++)
        print_cell(out, t->cells[i], widths[i % columns], t->heads[i % columns][0] == '>',
                   (i + 1) % columns == 0, color ? t->colors[i] : VF_PLAIN);
    for (size_t i = 0; i < t->n; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t->colors);
    free(widths);
    *t = (struct vf_table){0};
}

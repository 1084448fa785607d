/* Tables and numbers as people read them. */
#ifndef VF_TOOLS_VMFACTORY_TEXT_H
#define VF_TOOLS_VMFACTORY_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* src without control characters (each becomes "?"), cut at a character's end. */
void vf_text_clean(const char *src, char *dst, size_t size);
/* text, so cleaned, to out. */
void vf_text_print(const char *text, FILE *out);
/* How many columns text takes: its characters. */
size_t vf_text_width(const char *text);

#define VF_TEXT 32                             /* room for each of these, which they return */
char *vf_text_bytes(char *buf, int64_t bytes); /* "256 MiB" */
char *vf_text_us(char *buf, int64_t us);       /* "85 us", "1.20 ms", "3.1 s" */
char *vf_text_ms(char *buf, int64_t ms); /* "0.4s", "12s", "3m20s", "2h05m", "4d"; negative: "-" */
char *vf_text_age(char *buf, const char *rfc3339);  /* the time since then; "-" if it is none */
int64_t vf_text_parse_time_ms(const char *rfc3339); /* since 1970; -1 */

enum vf_color { VF_PLAIN, VF_BOLD, VF_GREEN, VF_YELLOW, VF_RED };
const char *vf_color_on(enum vf_color c); /* the terminal's words for it; "" for VF_PLAIN */
#define VF_COLOR_OFF "\033[0m"
/* Green, yellow or red for the state of a template, a VM, a refill. */
enum vf_color vf_color_of_state(const char *state);

/* A table: rows are collected, columns made as wide as they need to be. */
struct vf_table {
    const char *const
        *heads; /* NULL-ended; a head that begins with ">" is set right, without that */
    int columns;
    char **cells; /* owned */
    enum vf_color *colors;
    size_t n, cap;
    bool failed;
};
/* heads must outlive it. */
void vf_table_init(struct vf_table *t, const char *const *heads);
/* The next cell, copied and cleaned; NULL or "" is shown as "-". */
void vf_table_cell(struct vf_table *t, const char *text);
void vf_table_cell_colored(struct vf_table *t, const char *text, enum vf_color c);
void vf_table_int(struct vf_table *t, int64_t n);
/* All of it, and frees it. The last column, if set left, gets no blanks behind it. */
void vf_table_print(struct vf_table *t, FILE *out, bool color);

#endif

/* UTF-8, as strict as RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef VF_BASE_UTF8_H
#define VF_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

/* The length (1 to 4) of the character at p, of which len bytes may be read, or 0 if there is no
 * valid one. *ret_cp (may be NULL) is the code point; untouched if the result is 0. */
size_t vf_utf8_next(const char *p, size_t len, uint32_t *ret_cp);
/* The length of the longest prefix of s[0..len) that does not end within a character. */
size_t vf_utf8_cut(const char *s, size_t len);
/* Characters that must not reach a terminal or a log as they are: C0, DEL, C1, line and paragraph
 * separators, and those that reorder what is shown. */
bool vf_utf8_is_control(uint32_t cp);
/* VF_INVALID_ARGUMENT, naming field, if s has a byte below 0x20 or DEL; NULL has none. */
int vf_no_control(const char *s, const char *field, struct vf_error *err);

#endif

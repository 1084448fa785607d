/* Decoding of UTF-8, one character at a time. See utf8.h. */
#include "base/utf8.h"

size_t vf_utf8_next(const char *p, size_t len, uint32_t *ret_cp)
{
    const unsigned char *u = (const unsigned char *)p;
    uint32_t cp, lowest;
    size_t n;

    if (len == 0)
        return 0;
    if (u[0] < 0x80) {
        if (ret_cp != NULL)
            *ret_cp = u[0];
        return 1;
    }
    if ((u[0] & 0xe0) == 0xc0) {
        n = 2, cp = u[0] & 0x1f, lowest = 0x80;
    } else if ((u[0] & 0xf0) == 0xe0) {
        n = 3, cp = u[0] & 0x0f, lowest = 0x800;
    } else if ((u[0] & 0xf8) == 0xf0) {
        n = 4, cp = u[0] & 0x07, lowest = 0x10000;
    } else {
        return 0;
    }
    if (n > len)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return 0;
        cp = cp << 6 | (u[i] & 0x3f);
    }
    if (cp < lowest || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        return 0;
    if (ret_cp != NULL)
        *ret_cp = cp;
    return n;
}

size_t vf_utf8_cut(const char *s, size_t len)
{
    /* A cut character is a lead byte with fewer followers than it announces: look back for it. */
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = (unsigned char)s[len - back];
        size_t n;

        if ((c & 0xc0) == 0x80)
            continue;
        n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        return n > back ? len - back : len;
    }
    return len;
}

bool vf_utf8_is_control(uint32_t cp)
{
    return cp < 0x20 || (cp >= 0x7f && cp <= 0x9f) || cp == 0x061c || cp == 0x200e ||
           cp == 0x200f || (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069);
}

int vf_no_control(const char *s, const char *field, struct vf_error *err)
{
    for (size_t i = 0; s != NULL && s[i] != '\0'; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c < 0x20 || c == 0x7f)
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "%s: must not contain control characters (byte %zu is 0x%02x)", field, i,
                           c);
    }
    return 0;
}

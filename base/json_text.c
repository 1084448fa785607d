/* JSON text -> cJSON tree, strictly.
 *
 * cJSON takes more than JSON (control characters in strings, leading zeros), cuts strings at \u0000
 * and keeps numbers as doubles. So the text is checked by a scanner first, which also knows the line
 * and column of what is wrong; then cJSON builds the tree; then each number of the tree is given its
 * own text: a walk over the tree in document order meets the numbers in the order of the text.
 */
#include "base/json_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/utf8.h"

/* cJSON copies a number into 64 bytes to convert it. */
#define MAX_NUMBER 60

struct scanner {
    const char *text;
    size_t len, pos;
    const char *problem; /* set once, at pos */
};

static bool fail(struct scanner *s, const char *problem)
{
    if (s->problem == NULL)
        s->problem = problem;
    return false;
}

static int peek(const struct scanner *s)
{
    return s->pos < s->len ? (unsigned char)s->text[s->pos] : -1;
}

static void skip_space(struct scanner *s)
{
    int c;

    while (c = peek(s), c == ' ' || c == '\t' || c == '\n' || c == '\r')
        s->pos++;
}

/* Reads four hex digits, -1 if there are none. */
static int hex4(struct scanner *s)
{
    int v = 0;

    for (int i = 0; i < 4; i++, s->pos++) {
        int c = peek(s);

        if (c >= '0' && c <= '9')
            v = v * 16 + c - '0';
        else if (c >= 'a' && c <= 'f')
            v = v * 16 + c - 'a' + 10;
        else if (c >= 'A' && c <= 'F')
            v = v * 16 + c - 'A' + 10;
        else
            return -1;
    }
    return v;
}

/* After \u. */
static bool scan_unicode(struct scanner *s)
{
    int v = hex4(s);

    if (v < 0)
        return fail(s, "\\u must be followed by four hexadecimal digits");
    if (v == 0)
        return fail(s, "a string must not contain NUL");
    if (v >= 0xdc00 && v <= 0xdfff)
        return fail(s, "half a surrogate pair");
    if (v >= 0xd800 && v <= 0xdbff) {
        if (peek(s) != '\\')
            return fail(s, "half a surrogate pair");
        s->pos++;
        if (peek(s) != 'u')
            return fail(s, "half a surrogate pair");
        s->pos++;
        v = hex4(s);
        if (v < 0xdc00 || v > 0xdfff)
            return fail(s, "half a surrogate pair");
    }
    return true;
}

/* At the opening quote. */
static bool scan_string(struct scanner *s)
{
    s->pos++;
    for (;;) {
        int c = peek(s);
        size_t n;

        if (c < 0)
            return fail(s, "the text ends within a string");
        if (c == '"') {
            s->pos++;
            return true;
        }
        if (c == 0)
            return fail(s, "a string must not contain NUL");
        if (c < 0x20)
            return fail(s, "a control character must be escaped in a string");
        if (c == '\\') {
            s->pos++;
            c = peek(s);
            if (c <= 0 || strchr("\"\\/bfnrtu", c) == NULL)
                return fail(s, "unknown escape in a string");
            s->pos++;
            if (c == 'u' && !scan_unicode(s))
                return false;
            continue;
        }
        n = vf_utf8_next(s->text + s->pos, s->len - s->pos, NULL);
        if (n == 0)
            return fail(s, "invalid UTF-8 in a string");
        s->pos += n;
    }
}

static bool scan_digits(struct scanner *s)
{
    if (peek(s) < '0' || peek(s) > '9')
        return fail(s, "expected a digit");
    while (peek(s) >= '0' && peek(s) <= '9')
        s->pos++;
    return true;
}

static bool scan_number(struct scanner *s)
{
    size_t start = s->pos;

    if (peek(s) == '-')
        s->pos++;
    if (peek(s) == '0') {
        s->pos++;
        if (peek(s) >= '0' && peek(s) <= '9')
            return fail(s, "a number must not begin with 0");
    } else if (!scan_digits(s)) {
        return false;
    }
    if (peek(s) == '.') {
        s->pos++;
        if (!scan_digits(s))
            return false;
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->pos++;
        if (peek(s) == '+' || peek(s) == '-')
            s->pos++;
        if (!scan_digits(s))
            return false;
    }
    if (s->pos - start > MAX_NUMBER) {
        s->pos = start;
        return fail(s, "a number of more than 60 characters");
    }
    return true;
}

static bool scan_word(struct scanner *s, const char *word)
{
    size_t n = strlen(word);

    if (s->len - s->pos < n || memcmp(s->text + s->pos, word, n) != 0)
        return fail(s, "expected a value");
    s->pos += n;
    return true;
}

static bool scan_value(struct scanner *s, int depth);

/* At { or [. */
static bool scan_container(struct scanner *s, int depth)
{
    bool object = peek(s) == '{';
    char close = object ? '}' : ']';

    if (depth >= VF_JSON_MAX_DEPTH)
        return fail(s, "nested more than 32 levels deep");
    s->pos++;
    skip_space(s);
    if (peek(s) == close) {
        s->pos++;
        return true;
    }
    for (;;) {
        skip_space(s);
        if (object) {
            if (peek(s) != '"')
                return fail(s, peek(s) < 0 ? "the text ends within an object"
                                           : "expected a key in double quotes");
            if (!scan_string(s))
                return false;
            skip_space(s);
            if (peek(s) != ':')
                return fail(s, "expected ':' after a key");
            s->pos++;
        }
        if (!scan_value(s, depth + 1))
            return false;
        skip_space(s);
        if (peek(s) == close) {
            s->pos++;
            return true;
        }
        if (peek(s) < 0)
            return fail(s, object ? "the text ends within an object"
                                  : "the text ends within an array");
        if (peek(s) != ',')
            return fail(s, object ? "expected ',' or '}'" : "expected ',' or ']'");
        s->pos++;
    }
}

static bool scan_value(struct scanner *s, int depth)
{
    skip_space(s);
    switch (peek(s)) {
    case '{':
    case '[':
        return scan_container(s, depth);
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    case '-':
    case '0' ... '9':
        return scan_number(s);
    case -1:
        return fail(s, "the text ends where a value is expected");
    default:
        return fail(s, "expected a value");
    }
}

static int syntax_error(const struct scanner *s, struct vf_error *err)
{
    size_t line = 1, column = 1;

    for (size_t i = 0; i < s->pos; i++) {
        if (s->text[i] == '\n') {
            line++;
            column = 1;
        } else {
            column++; /* in bytes */
        }
    }
    return vf_fail(err, VF_INVALID_ARGUMENT, "line %zu, column %zu: %s", line, column, s->problem);
}

/* Finds the next number of the text, which is known to be JSON, from *pos on. */
static bool next_number(const char *text, size_t len, size_t *pos, const char **ret,
                        size_t *ret_len)
{
    bool in_string = false;

    for (size_t i = *pos; i < len; i++) {
        char c = text[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            size_t end = i + 1;

            while (end < len && strchr("+-.eE0123456789", text[end]) != NULL && text[end] != '\0')
                end++;
            *ret = text + i;
            *ret_len = end - i;
            *pos = end;
            return true;
        }
    }
    return false;
}

/* Gives each number at or below item its text. The scanner has limited the depth. */
static int keep_numbers(cJSON *item, const char *text, size_t len, size_t *pos)
{
    for (; item != NULL; item = item->next) {
        if (cJSON_IsNumber(item)) {
            const char *number;
            size_t n;

            if (!next_number(text, len, pos, &number, &n))
                return -EFAULT;
            item->valuestring = (char *)cJSON_malloc(n + 1);
            if (item->valuestring == NULL)
                return -ENOMEM;
            memcpy(item->valuestring, number, n);
            item->valuestring[n] = '\0';
        } else if (item->child != NULL) {
            int r = keep_numbers(item->child, text, len, pos);

            if (r < 0)
                return r;
        }
    }
    return 0;
}

int vf_json_exact_int(const char *number, int64_t *ret)
{
    long long v;

    if (strpbrk(number, ".eE") != NULL)
        return -EINVAL;
    errno = 0;
    v = strtoll(number, NULL, 10);
    if (errno == ERANGE)
        return -ERANGE;
    *ret = v;
    return 0;
}

int vf_json_parse_strict(const char *text, size_t len, cJSON **ret, struct vf_error *err)
{
    struct scanner s = {.text = text, .len = len};
    size_t pos = 0;
    cJSON *tree;
    int r;

    if (scan_value(&s, 0)) {
        skip_space(&s);
        if (s.pos < s.len)
            fail(&s, "more text after the value");
    }
    if (s.problem != NULL)
        return syntax_error(&s, err);
    tree = cJSON_ParseWithLength(text, len);
    if (tree == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory for its JSON");
    r = keep_numbers(tree, text, len, &pos);
    if (r < 0) {
        cJSON_Delete(tree);
        return vf_fail_errno(err, r, "read its numbers");
    }
    *ret = tree;
    return 0;
}

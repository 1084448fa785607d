/* The word somebody may have meant: edit distance with swaps of neighbours counted as one. */
#include "base/json_internal.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#define MAX_WORD 64

static int fold(char c)
{
    return c == '-' || c == ' ' || c == '.' ? '_' : tolower((unsigned char)c);
}

static size_t min2(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t vf_json_distance(const char *a, const char *b)
{
    size_t rows[3][MAX_WORD + 1];
    size_t na = strnlen(a, MAX_WORD + 1), nb = strnlen(b, MAX_WORD + 1), longer, result;
    size_t *before = rows[0], *last = rows[1], *cur = rows[2];

    if (na == 0 || nb == 0 || na > MAX_WORD || nb > MAX_WORD)
        return SIZE_MAX;
    for (size_t j = 0; j <= nb; j++)
        before[j] = 0, last[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *spare = before;

        cur[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t differ = fold(a[i - 1]) != fold(b[j - 1]);

            cur[j] = min2(min2(last[j], cur[j - 1]) + 1, last[j - 1] + differ);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1]))
                cur[j] = min2(cur[j], before[j - 2] + 1);
        }
        before = last;
        last = cur;
        cur = spare;
    }
    result = last[nb];
    /* A slip changes a third of a word at most; a word that was cut short is one too. */
    longer = na > nb ? na : nb;
    if (result <= (longer + 1) / 3 && result < longer)
        return result;
    if (na >= 3 && na < nb && strncasecmp(a, b, na) == 0)
        return result;
    return SIZE_MAX;
}

const char *vf_nearest(const char *word, const char *const *names)
{
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;

    for (; *names != NULL; names++) {
        size_t d = vf_json_distance(word, *names);

        if (d < best_distance) {
            best = *names;
            best_distance = d;
        }
    }
    return best;
}

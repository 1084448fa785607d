#include "tools/bench/stats.h"

#include <stdlib.h>

void series_add(struct series *s, int64_t us)
{
    int64_t *v = realloc(s->v, (s->n + 1) * sizeof(*v));
    if (!v)
        abort();
    s->v = v;
    v[s->n++] = us;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int64_t series_percentile(struct series *s, double p)
{
    if (s->n == 0)
        return 0;
    qsort(s->v, s->n, sizeof(*s->v), compare);
    size_t rank = (size_t)((double)s->n * p / 100.0 + 0.999999);
    return s->v[rank ? (rank > s->n ? s->n : rank) - 1 : 0];
}

void series_free(struct series *s)
{
    free(s->v);
    *s = (struct series){0};
}

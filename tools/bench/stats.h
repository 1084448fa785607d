/* Series of measured times and their percentiles. */
#ifndef VF_TOOLS_BENCH_STATS_H
#define VF_TOOLS_BENCH_STATS_H

#include <stddef.h>
#include <stdint.h>

struct series {
    int64_t *v; /* µs */
    size_t n;
};

void series_add(struct series *s, int64_t us);
/* Nearest rank; 0 if there is none. Sorts s. */
int64_t series_percentile(struct series *s, double p);
void series_free(struct series *s);

#endif

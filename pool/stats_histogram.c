/* Counts of durations between fixed bounds. See stats_internal.h. */
#include <stddef.h>
#include "pool/stats_internal.h"

/* From a hit on a parked VM to the boot of a large guest. */
const struct vf_bounds vf_bounds_short = {18,
                                          {{50, "5e-05"},
                                           {100, "0.0001"},
                                           {250, "0.00025"},
                                           {500, "0.0005"},
                                           {1000, "0.001"},
                                           {2500, "0.0025"},
                                           {5000, "0.005"},
                                           {10000, "0.01"},
                                           {25000, "0.025"},
                                           {50000, "0.05"},
                                           {100000, "0.1"},
                                           {250000, "0.25"},
                                           {500000, "0.5"},
                                           {1000000, "1.0"},
                                           {2500000, "2.5"},
                                           {5000000, "5.0"},
                                           {10000000, "10.0"},
                                           {30000000, "30.0"}}};

#define SECOND INT64_C(1000000)
/* From a function call to a machine that someone works on for a day. */
const struct vf_bounds vf_bounds_long = {16,
                                         {{SECOND / 10, "0.1"},
                                          {SECOND / 2, "0.5"},
                                          {1 * SECOND, "1.0"},
                                          {2 * SECOND + SECOND / 2, "2.5"},
                                          {5 * SECOND, "5.0"},
                                          {10 * SECOND, "10.0"},
                                          {30 * SECOND, "30.0"},
                                          {60 * SECOND, "60.0"},
                                          {120 * SECOND, "120.0"},
                                          {300 * SECOND, "300.0"},
                                          {600 * SECOND, "600.0"},
                                          {1800 * SECOND, "1800.0"},
                                          {3600 * SECOND, "3600.0"},
                                          {14400 * SECOND, "14400.0"},
                                          {43200 * SECOND, "43200.0"},
                                          {86400 * SECOND, "86400.0"}}};

void vf_histogram_add(struct vf_histogram *h, const struct vf_bounds *b, int64_t us)
{
    int i = 0;

    if (us < 0)
        us = 0;
    while (i < b->n && us > b->upto[i].us)
        i++;
    h->in[i]++;
    if (__builtin_add_overflow(h->sum_us, us, &h->sum_us))
        h->sum_us = INT64_MAX;
}

void vf_histogram_merge(struct vf_histogram *h, const struct vf_histogram *other)
{
    for (int i = 0; i <= VF_BOUNDS_MAX; i++)
        h->in[i] += other->in[i];
    if (__builtin_add_overflow(h->sum_us, other->sum_us, &h->sum_us))
        h->sum_us = INT64_MAX;
}

uint64_t vf_histogram_count(const struct vf_histogram *h)
{
    uint64_t n = 0;

    for (int i = 0; i <= VF_BOUNDS_MAX; i++)
        n += h->in[i];
    return n;
}

int64_t vf_histogram_quantile_us(const struct vf_histogram *h, const struct vf_bounds *b, double q)
{
    double rank = q * (double)vf_histogram_count(h), below = 0;
    int64_t from_us = 0;

    if (rank <= 0)
        return 0;
    for (int i = 0; i < b->n; i++) {
        double in = (double)h->in[i];

        if (in > 0 && below + in >= rank)
            return from_us + (int64_t)((double)(b->upto[i].us - from_us) * (rank - below) / in);
        below += in;
        from_us = b->upto[i].us;
    }
    return from_us;
}

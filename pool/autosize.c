/* See autosize.h for the formula. */
#include "pool/autosize.h"

#include <math.h>

#define HALF_LIFE_S 60.0
#define FALL_EVERY_US 10000000

static double decayed(const struct vf_autosize *a, int64_t now_us)
{
    double s = (double)(now_us - a->at_us) / 1e6;
    return s > 0 ? a->weight * exp2(-s / HALF_LIFE_S) : a->weight;
}

void vf_autosize_arrival(struct vf_autosize *a, int64_t now_us)
{
    a->weight = decayed(a, now_us) + 1;
    a->at_us = now_us;
}

double vf_autosize_rate(const struct vf_autosize *a, int64_t now_us)
{
    /* Callers that come evenly r times a second make a weight of r * half-life / ln 2. */
    return decayed(a, now_us) * M_LN2 / HALF_LIFE_S;
}

int64_t vf_autosize_target(struct vf_autosize *a, int64_t now_us, double replace_s, int64_t target,
                           int64_t min, int64_t max)
{
    double expected = vf_autosize_rate(a, now_us) * replace_s;
    double want = ceil(expected + 2 * sqrt(expected)) + 1;
    int64_t n = want > (double)max ? max : (int64_t)want;
    if (n < min)
        n = min;
    if (n >= target || target > max) {
        a->fell_us = now_us;
        return n;
    }
    if (now_us - a->fell_us < FALL_EVERY_US)
        return target;
    a->fell_us = now_us;
    return target - 1;
}

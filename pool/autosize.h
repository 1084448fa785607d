/* How many VMs to keep parked, from how often callers come.
 *
 *     rate    exponentially weighted, half-life 60 s
 *     T       mean time of the last clones / refill_concurrency: how long a taken VM takes to be replaced
 *     target  ceil(rate*T + 2*sqrt(rate*T)) + 1, within min and max: the callers of that time, two standard
 *             deviations of a Poisson process more, and one for the next
 *
 * It rises at once, and falls by one each 10 s. */
#ifndef VF_POOL_AUTOSIZE_H
#define VF_POOL_AUTOSIZE_H

#include <stdint.h>

struct vf_autosize {
    double weight; /* of the callers so far, decayed to at_us */
    int64_t at_us;
    int64_t fell_us; /* when it last fell or rose */
};

void vf_autosize_arrival(struct vf_autosize *a, int64_t now_us);
/* Callers per second. */
double vf_autosize_rate(const struct vf_autosize *a, int64_t now_us);
/* replace_s: T; target: as it is now. */
int64_t vf_autosize_target(struct vf_autosize *a, int64_t now_us, double replace_s, int64_t target,
                           int64_t min, int64_t max);

#endif

/* Quantiles of times. */
#ifndef VF_TOOLS_VMFACTORY_BENCH_H
#define VF_TOOLS_VMFACTORY_BENCH_H

#include <stddef.h>
#include <stdint.h>

struct vf_quantiles {
    size_t n;
    int64_t p50_us, p90_us, p99_us, max_us; /* 0 if n is */
};
/* Sorts us. */
void vf_quantiles(int64_t *us, size_t n, struct vf_quantiles *ret);

#endif

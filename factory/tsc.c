/* Two readings of counter and clock, 20 ms apart. Each reading is taken between two of the clock, and
 * again until they are close together: then no one was scheduled in between. */
#include "factory/tsc.h"

#include <pthread.h>
#include <time.h>

static int64_t khz;

#if defined(__x86_64__)
#include <x86intrin.h>

#define APART_NS 20000000
#define CLOSE_NS 300
#define TRIES 1000

static int64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void read_both(int64_t *ret_ticks, int64_t *ret_ns)
{
    int64_t best = INT64_MAX;
    for (int i = 0; i < TRIES && best > CLOSE_NS; i++) {
        int64_t before = clock_ns();
        int64_t ticks = (int64_t)__rdtsc();
        int64_t after = clock_ns();
        if (after - before < best) {
            best = after - before;
            *ret_ticks = ticks;
            *ret_ns = before + (after - before) / 2;
        }
    }
}

static void measure(void)
{
    int64_t ticks0, ticks1, ns0, ns1;
    struct timespec apart = {.tv_nsec = APART_NS};
    read_both(&ticks0, &ns0);
    nanosleep(&apart, NULL);
    read_both(&ticks1, &ns1);
    khz = (int64_t)((double)(ticks1 - ticks0) * 1e6 / (double)(ns1 - ns0) + 0.5);
}
#else
static void measure(void)
{
}
#endif

int64_t vf_tsc_khz(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, measure);
    return khz;
}

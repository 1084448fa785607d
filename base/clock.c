/* Monotonic time and deadlines. See clock.h. */
#include "base/clock.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct timespec now(clockid_t clock)
{
    struct timespec ts;

    /* Fails only for a clock that Linux has always had. */
    if (clock_gettime(clock, &ts) != 0)
        abort();
    return ts;
}

int64_t vf_now_us(void)
{
    struct timespec ts = now(CLOCK_MONOTONIC);

    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t vf_realtime_ns(void)
{
    struct timespec ts = now(CLOCK_REALTIME);

    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t vf_deadline_after_ms(int64_t timeout_ms)
{
    int64_t us;

    if (timeout_ms < 0 || __builtin_mul_overflow(timeout_ms, 1000, &us) ||
        __builtin_add_overflow(us, vf_now_us(), &us))
        return VF_NEVER;
    return us;
}

int vf_deadline_left_ms(int64_t deadline_us)
{
    int64_t at = vf_now_us(), left_ms;

    if (deadline_us == VF_NEVER)
        return -1;
    if (deadline_us <= at)
        return 0;
    /* Rounded up: a poll(2) for this long must not return before the deadline. */
    left_ms = (deadline_us - at - 1) / 1000 + 1;
    return left_ms > INT_MAX ? INT_MAX : (int)left_ms;
}

void vf_rfc3339_ms(int64_t unix_ms, char ret[VF_RFC3339_SIZE])
{
    time_t s = (time_t)(unix_ms / 1000);
    struct tm tm = {0};

    gmtime_r(&s, &tm);
    size_t n = strftime(ret, VF_RFC3339_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(ret + n, VF_RFC3339_SIZE - n, ".%03dZ", (int)(unix_ms % 1000));
}

/* Monotonic time and deadlines. Absolute times are µs of CLOCK_MONOTONIC (int64_t); durations
 * carry their unit in their name. */
#ifndef VF_BASE_CLOCK_H
#define VF_BASE_CLOCK_H

#include <stdint.h>

#define VF_NEVER INT64_MAX /* a deadline that does not come */

int64_t vf_now_us(void);
/* Wall-clock time in ns since the Unix epoch. */
int64_t vf_realtime_ns(void);
/* A Unix time in ms as RFC 3339, UTC: "2026-01-31T23:59:59.007Z". */
#define VF_RFC3339_SIZE 32
void vf_rfc3339_ms(int64_t unix_ms, char ret[VF_RFC3339_SIZE]);
/* Now + timeout_ms, saturating; VF_NEVER if timeout_ms < 0. */
int64_t vf_deadline_after_ms(int64_t timeout_ms);
/* What is left, in whole ms rounded up; 0 if past; -1 if never. Fits poll(2)'s timeout. */
int vf_deadline_left_ms(int64_t deadline_us);

#endif

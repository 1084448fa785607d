/* Clocks and deadlines: limits and rounding, no timing. */
#include <criterion/criterion.h>
#include <limits.h>
#include "base/clock.h"

Test(base_clock, a_time_as_text, .timeout = 30)
{
    char text[VF_RFC3339_SIZE];

    vf_rfc3339_ms(0, text);
    cr_expect_str_eq(text, "1970-01-01T00:00:00.000Z");
    vf_rfc3339_ms(INT64_C(1769903999007), text);
    cr_expect_str_eq(text, "2026-01-31T23:59:59.007Z");
}

Test(base_clock, monotonic_time_does_not_go_back)
{
    int64_t last = vf_now_us();

    cr_assert_gt(last, 0);
    for (int i = 0; i < 10000; i++) {
        int64_t now = vf_now_us();

        cr_assert_geq(now, last);
        last = now;
    }
}

Test(base_clock, wall_clock_counts_from_1970)
{
    cr_expect_gt(vf_realtime_ns(), INT64_C(1700000000) * 1000000000);
}

Test(base_clock, deadlines_saturate)
{
    int64_t before = vf_now_us();
    int64_t d = vf_deadline_after_ms(1000);

    cr_expect_geq(d, before + 1000000);
    cr_expect_leq(d, vf_now_us() + 1000000);
    cr_expect_eq(vf_deadline_after_ms(-1), VF_NEVER);
    cr_expect_eq(vf_deadline_after_ms(INT64_MIN), VF_NEVER);
    cr_expect_eq(vf_deadline_after_ms(INT64_MAX), VF_NEVER);
    cr_expect_eq(vf_deadline_after_ms(INT64_MAX / 1000), VF_NEVER);
    cr_expect_leq(vf_deadline_after_ms(0), vf_now_us());
}

Test(base_clock, time_left_is_rounded_up_and_fits_poll)
{
    cr_expect_eq(vf_deadline_left_ms(VF_NEVER), -1);
    cr_expect_eq(vf_deadline_left_ms(0), 0);
    cr_expect_eq(vf_deadline_left_ms(INT64_MIN), 0);
    cr_expect_eq(vf_deadline_left_ms(vf_now_us()), 0);
    cr_expect_eq(vf_deadline_left_ms(VF_NEVER - 1), INT_MAX);
    /* An hour and one µs: 3600001 unless a whole ms went by, never more. */
    int left = vf_deadline_left_ms(vf_now_us() + INT64_C(3600000000) + 1);

    cr_expect_leq(left, 3600001);
    cr_expect_gt(left, 3000000);
    /* Rounded up: a deadline that has not come never leaves 0. */
    for (int i = 0; i < 1000; i++) {
        int64_t d = vf_now_us() + 300;
        int ms = vf_deadline_left_ms(d);

        cr_assert(ms == 1 || vf_now_us() >= d, "%d ms left of 300 µs", ms);
    }
}

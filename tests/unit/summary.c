/*
 * What a run says last: every test that failed, and what its assertions said; and how many were
 * skipped. A run prints thousands of lines while its tests go by, and of a long log often only the end is kept.
 *
 * Criterion calls the hook in the runner's own process, after the last test and before its synthesis.
 */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <stdio.h>
#include <string.h>

static void failed(const struct criterion_test_stats *t)
{
    fprintf(stderr, "FAILED %s.%s:", t->test->category, t->test->name);
    if (t->timed_out)
        fprintf(stderr, " not within %.0f s", t->test->data->timeout);
    else if (t->crashed)
        fprintf(stderr, " crashed, by signal %d (%s)", t->signal, strsignal(t->signal));
    else if (t->failed_asserts == 0)
        fprintf(stderr, " ended with exit code %d", t->exit_code);
    fputc('\n', stderr);
    for (const struct criterion_assert_stats *a = t->asserts; a; a = a->next) {
        if (!a->passed)
            fprintf(stderr, "    %s:%u: %s\n", a->file, a->line, a->message);
    }
}

ReportHook(POST_ALL)(struct criterion_global_stats *all)
{
    size_t skipped = 0;
    for (const struct criterion_suite_stats *s = all->suites; s; s = s->next) {
        for (const struct criterion_test_stats *t = s->tests; t; t = t->next) {
            if (t->test_status == CR_STATUS_FAILED || t->crashed || t->timed_out)
                failed(t);
            /* One that the filter left out is told as skipped too. */
            else if (t->test_status == CR_STATUS_SKIPPED && !t->test->data->disabled)
                skipped++;
        }
    }
    if (skipped > 0)
        fprintf(stderr, "%zu tests were SKIPPED, each by name and reason above\n", skipped);
}

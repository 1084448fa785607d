/* The daemon's figures, as a table and as JSON; and the order in which they are taken. */
#include <stdarg.h>
#include <stdio.h>
#include "tools/bench/daemon.h"

static int guests(struct bench *b, const char *specs, struct vf_error *err)
{
    static const struct subject linux_tcg = {VF_SPEC_VMM_QEMU, "linux", VF_ACCEL_TCG};
    int r = 0;
    if (bench_can(b, &linux_tcg)) {
        fprintf(stderr, "measuring: a daemon with Linux guests on tcg\n");
        r = daemon_guest(b, specs, &linux_tcg, false, err);
    }
    for (int i = 0; r == 0 && bench_vmms[i] != VF_SPEC_VMM_COUNT; i++) {
        struct subject of = {bench_vmms[i], "tiny", VF_ACCEL_KVM};
        if (!bench_can(b, &of))
            continue;
        fprintf(stderr, "measuring: a daemon with tiny guests on kvm in %s\n",
                vf_spec_vmm_names[of.vmm]);
        r = daemon_guest(b, specs, &of, true, err);
    }
    return r;
}

int bench_daemon(struct bench *b, const char *specs, struct vf_error *err)
{
    int r = 0;
    if (b->wanted[VF_SPEC_VMM_QEMU]) {
        fprintf(stderr, "measuring: a daemon that hands out one VM at a time\n");
        r = daemon_vms(b, specs, err);
    }
    if (r == 0)
        r = guests(b, specs, err);
    if (r < 0 || !b->wanted[VF_SPEC_VMM_QEMU])
        return r;
    fprintf(stderr, "measuring: a daemon with 1,000 VMs\n");
    return daemon_many(b, err);
}

/* ---- figures */

static struct figure *add(struct bench *b, const char *fmt, va_list ap)
{
    static struct figure spill; /* measured, not shown: only if MAX_FIGURES is too small */
    struct figure *f = b->n_figures < MAX_FIGURES ? &b->figures[b->n_figures++] : &spill;
    *f = (struct figure){0};
    vsnprintf(f->name, sizeof(f->name), fmt, ap);
    return f;
}

struct figure *figure_add(struct bench *b, enum figure_judge judge, double target,
                          const char *against, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    struct figure *f = add(b, fmt, ap);
    va_end(ap);
    f->judge = judge;
    f->target = target;
    f->against = against;
    return f;
}

void figure_value(struct bench *b, enum figure_judge judge, double target, const char *unit,
                  double value, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    struct figure *f = add(b, fmt, ap);
    va_end(ap);
    f->judge = judge;
    f->target = target;
    f->unit = unit;
    f->value = value;
}

/* What is judged. */
static double value_of(struct figure *f)
{
    double p50 = (double)series_percentile(&f->ours, 50);
    double base = (double)series_percentile(&f->base, 50);
    switch (f->judge) {
    case JUDGE_P50:
        return p50;
    case JUDGE_P99:
        return (double)series_percentile(&f->ours, 99);
    case JUDGE_OVER:
        return p50 - base;
    case JUDGE_RATIO:
        return base > 0 ? p50 / base : 0;
    default:
        return f->grows ? f->value - f->before : f->value;
    }
}

static bool is_met(struct figure *f)
{
    return f->judge == JUDGE_AT_LEAST ? value_of(f) >= f->target : value_of(f) <= f->target;
}

/* ---- the table */

static void print_series(struct figure *f)
{
    static const double p[] = {50, 90, 99, 100};
    printf("%-64s %5zu", f->name, f->ours.n);
    for (size_t i = 0; i < sizeof(p) / sizeof(*p); i++)
        printf(" %9.3f", (double)series_percentile(&f->ours, p[i]) / 1000);
    if (f->against)
        printf("  %s: p50 %.3f, n=%zu", f->against, (double)series_percentile(&f->base, 50) / 1000,
               f->base.n);
}

static void print_verdict(struct figure *f)
{
    static const char *const what[] = {
        [JUDGE_P50] = "p50",     [JUDGE_P99] = "p99",       [JUDGE_OVER] = "more",
        [JUDGE_RATIO] = "ratio", [JUDGE_AT_MOST] = "value", [JUDGE_AT_LEAST] = "value"};
    double v = value_of(f);
    bool us = f->judge == JUDGE_P50 || f->judge == JUDGE_P99 || f->judge == JUDGE_OVER;
    if (f->judge == JUDGE_NONE)
        return;
    printf("  [%s ", is_met(f) ? "met:" : "MISSED:");
    if (us)
        printf("%s %.3f ms <= %.2f]", what[f->judge], v / 1000, f->target / 1000);
    else
        printf("%s %.*f %s %g]", f->grows ? "growth" : what[f->judge],
               f->judge == JUDGE_RATIO ? 3 : 1, v,
               f->judge == JUDGE_AT_LEAST ? ">=" : "<=", f->target);
}

void figures_table(struct bench *b)
{
    if (b->n_figures == 0)
        return;
    printf(
        "\nA daemon, its run directory on %s; times in ms, request sent (or connecting) -> answer "
        "read\n",
        b->run_on_tmpfs ? "a tmpfs, as /run is" : "a disk (there is no tmpfs at /dev/shm)");
    printf("%-64s %5s %9s %9s %9s %9s\n", "", "n", "p50", "p90", "p99", "max");
    for (int i = 0; i < b->n_figures; i++) {
        struct figure *f = &b->figures[i];
        if (f->unit && f->grows)
            printf("%-64s %.0f -> %.0f %s", f->name, f->before, f->value, f->unit);
        else if (f->unit)
            printf("%-64s %.1f %s", f->name, f->value, f->unit);
        else
            print_series(f);
        print_verdict(f);
        putchar('\n');
    }
}

/* ---- JSON */

static void put_series(struct vf_json_writer *w, struct figure *f)
{
    vf_jw_int(w, "n", (int64_t)f->ours.n);
    vf_jw_int(w, "p50_us", series_percentile(&f->ours, 50));
    vf_jw_int(w, "p90_us", series_percentile(&f->ours, 90));
    vf_jw_int(w, "p99_us", series_percentile(&f->ours, 99));
    vf_jw_int(w, "max_us", series_percentile(&f->ours, 100));
    if (!f->against)
        return;
    vf_jw_string(w, "against", f->against);
    vf_jw_int(w, "against_n", (int64_t)f->base.n);
    vf_jw_int(w, "against_p50_us", series_percentile(&f->base, 50));
}

void figures_json(struct bench *b, struct vf_json_writer *w)
{
    static const char *const what[] = {
        [JUDGE_P50] = "p50_us",  [JUDGE_P99] = "p99_us",    [JUDGE_OVER] = "more_us",
        [JUDGE_RATIO] = "ratio", [JUDGE_AT_MOST] = "value", [JUDGE_AT_LEAST] = "value"};
    vf_jw_begin(w, "daemon", '{');
    vf_jw_bool(w, "run_dir_on_tmpfs", b->run_on_tmpfs);
    vf_jw_begin(w, "figures", '[');
    for (int i = 0; i < b->n_figures; i++) {
        struct figure *f = &b->figures[i];
        vf_jw_begin(w, NULL, '{');
        vf_jw_string(w, "name", f->name);
        if (!f->unit)
            put_series(w, f);
        else {
            vf_jw_double(w, "value", f->value, 1);
            vf_jw_string(w, "unit", f->unit);
        }
        if (f->grows)
            vf_jw_double(w, "before", f->before, 1);
        if (f->judge != JUDGE_NONE) {
            vf_jw_string(w, "judged", f->grows ? "growth" : what[f->judge]);
            vf_jw_double(w, "judged_value", value_of(f), 3);
            vf_jw_double(w, "target", f->target, 3);
            vf_jw_bool(w, "met", is_met(f));
        }
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, ']');
    vf_jw_end(w, '}');
}

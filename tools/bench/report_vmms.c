/* The VMMs side by side: the tiny guest under KVM, all of one run. */
#include <stdio.h>
#include <string.h>
#include "tools/bench/bench.h"

#define MIB 64

static void cell(struct series *s)
{
    if (!s || !s->n)
        printf("  %4s %8s %8s", "", "-", "-");
    else
        printf("  %4zu %8.2f %8.2f", s->n, (double)series_percentile(s, 50) / 1000,
               (double)series_percentile(s, 99) / 1000);
}

static struct series *whole(struct bench *b, const char *name, const struct subject *of)
{
    struct result *r = find_result(b, name, of, MIB, 1);
    return r ? &r->ours : NULL;
}

static struct series *stage(struct bench *b, const char *name, const struct subject *of)
{
    struct stage_series *s = find_stage(find_result(b, "clone", of, MIB, 1), name);
    return s ? &s->ours : NULL;
}

static struct series *hit(struct bench *b, const char *name, const struct subject *of)
{
    (void)name;
    return &b->hits[of->vmm];
}

static const struct row {
    const char *title;
    struct series *(*of)(struct bench *b, const char *name, const struct subject *of);
    const char *name;
} rows[] = {{"save", whole, "save"},
            {"clone", whole, "clone"},
            {"  VMM up", stage, "vmm"},
            {"  restore", stage, "restore"},
            {"  resume", stage, "resume"},
            {"  prove", stage, "prove"},
            {"wake, parked paused", whole, "resume"},
            {"hit, parked running", hit, NULL},
            {"cold", whole, "cold"}};

static void line(struct bench *b, const char *title, const struct row *row,
                 void (*print)(struct result *clone))
{
    printf("%-22s", title);
    for (int i = 0; bench_vmms[i] != VF_SPEC_VMM_COUNT; i++) {
        struct subject of = {bench_vmms[i], "tiny", VF_ACCEL_KVM};
        struct result *clone = find_result(b, "clone", &of, MIB, 1);
        if (clone && row)
            cell(row->of(b, row->name, &of));
        else if (clone)
            print(clone);
    }
    putchar('\n');
}

static void print_name(struct result *clone)
{
    printf("  %22s", vf_spec_vmm_names[clone->of.vmm]);
}

static void print_head(struct result *clone)
{
    (void)clone;
    printf("  %4s %8s %8s", "n", "p50", "p99");
}

static void print_ratio(struct result *clone)
{
    double floor = (double)series_percentile(&clone->floor, 50);
    printf("  %22.3f", floor > 0 ? (double)series_percentile(&clone->ours, 50) / floor : 0);
}

static void print_copied(struct result *clone)
{
    printf("  %18lld KiB", (long long)series_percentile(&clone->memory.guest_anonymous, 50));
}

void report_vmms(struct bench *b)
{
    int n = 0;
    for (int i = 0; bench_vmms[i] != VF_SPEC_VMM_COUNT; i++)
        n += find_result(b, "clone", &(struct subject){bench_vmms[i], "tiny", VF_ACCEL_KVM}, MIB,
                         1) != NULL;
    if (n == 0)
        return;
    printf("\nThe tiny guest of %d MiB under KVM; ms\n", MIB);
    line(b, "", NULL, print_name);
    line(b, "", NULL, print_head);
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        line(b, rows[i].title, &rows[i], NULL);
    line(b, "clone / by hand", NULL, print_ratio);
    line(b, "guest memory copied", NULL, print_copied);
}

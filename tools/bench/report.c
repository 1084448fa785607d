/* The table for people, the JSON for programs. Both are of the same run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include "base/json.h"
#include "tools/bench/bench.h"

static double ratio(struct result *r)
{
    int64_t floor = series_percentile(&r->floor, 50);
    return floor ? (double)series_percentile(&r->ours, 50) / (double)floor : 0;
}

static struct result *find(struct bench *b, const char *name, const char *guest, const char *accel,
                           int64_t mib, int parallel)
{
    for (int i = 0; i < b->n_results; i++) {
        struct result *r = &b->results[i];
        if (strcmp(r->name, name) == 0 && strcmp(r->guest, guest) == 0 &&
            strcmp(r->accel, accel) == 0 && (!mib || r->memory_mib == mib) &&
            r->parallel == parallel && r->ours.n)
            return r;
    }
    return NULL;
}

static void cpu_model(char *ret, size_t size)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(ret, size, "unknown");
    while (f && fgets(line, sizeof(line), f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            colon[strcspn(colon, "\n")] = 0;
            snprintf(ret, size, "%s", colon + 2);
            break;
        }
    }
    if (f)
        fclose(f);
}

static void ms(int64_t us)
{
    printf(" %9.2f", (double)us / 1000);
}

static void print_stages(struct result *r)
{
    for (int i = 0; i < r->n_stages; i++) {
        struct stage_series *s = &r->stages[i];
        printf("  %-38s %4zu", s->name, s->ours.n);
        ms(series_percentile(&s->ours, 50));
        ms(series_percentile(&s->ours, 90));
        ms(series_percentile(&s->ours, 99));
        ms(series_percentile(&s->ours, 100));
        if (s->floor.n)
            ms(series_percentile(&s->floor, 50));
        putchar('\n');
    }
}

static void print_summary(struct bench *b)
{
    struct result *clone = find(b, "clone", "linux", "tcg", 0, 1);
    struct result *cold = find(b, "cold", "linux", "tcg", 0, 1);
    struct result *small = find(b, "save", "linux", "tcg", 256, 1);
    struct result *big = find(b, "save", "linux", "tcg", 4096, 1);
    if (clone && cold)
        printf("cold boot / clone (Linux, TCG, p50): %.1f\n",
               (double)series_percentile(&cold->ours, 50) /
                   (double)series_percentile(&clone->ours, 50));
    if (small && big)
        printf("save at 4 GiB / save at 256 MiB (p50): %.2f\n",
               (double)series_percentile(&big->ours, 50) /
                   (double)series_percentile(&small->ours, 50));
    if (b->has_memory)
        printf("a Linux clone at hand-over: %lld KiB of guest memory copied, %lld KiB of the VMM's "
               "own, "
               "PSS %lld KiB; its template's memory, once: %lld KiB\n",
               (long long)series_percentile(&b->guest_anonymous_kib, 50),
               (long long)series_percentile(&b->vmm_anonymous_kib, 50),
               (long long)series_percentile(&b->pss_kib, 50), (long long)b->template_resident_kib);
}

void report_table(struct bench *b, bool stages)
{
    printf("%-7s %-5s %-4s %7s %8s %4s %9s %9s %9s %9s %9s %7s\n", "", "guest", "on", "MiB",
           "at once", "n", "p50 ms", "p90", "p99", "max", "floor p50", "ratio");
    for (int i = 0; i < b->n_results; i++) {
        struct result *r = &b->results[i];
        if (!r->ours.n)
            continue;
        printf("%-7s %-5s %-4s %7lld %8d %4zu", r->name, r->guest, r->accel,
               (long long)r->memory_mib, r->parallel, r->ours.n);
        ms(series_percentile(&r->ours, 50));
        ms(series_percentile(&r->ours, 90));
        ms(series_percentile(&r->ours, 99));
        ms(series_percentile(&r->ours, 100));
        if (r->floor.n) {
            ms(series_percentile(&r->floor, 50));
            printf(" %7.3f", ratio(r));
        }
        putchar('\n');
        if (stages)
            print_stages(r);
    }
    print_summary(b);
}

static void json_environment(struct bench *b, struct vf_json_writer *w)
{
    char cpu[256], when[32];
    struct utsname u;
    time_t now = time(NULL);
    struct tm tm;
    cpu_model(cpu, sizeof(cpu));
    uname(&u);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    vf_jw_begin(w, "environment", '{');
    vf_jw_string(w, "time", when);
    vf_jw_string(w, "cpu", cpu);
    vf_jw_int(w, "cpus", sysconf(_SC_NPROCESSORS_ONLN));
    vf_jw_int(w, "memory_mib",
              (int64_t)sysconf(_SC_PHYS_PAGES) / 256 * (sysconf(_SC_PAGESIZE) / 4096));
    vf_jw_string(w, "kernel", u.release);
    vf_jw_string(w, "qemu", b->qemu_version);
    vf_jw_end(w, '}');
}

void report_json(struct bench *b)
{
    struct vf_json_writer w = {0};
    vf_jw_begin(&w, NULL, '{');
    json_environment(b, &w);
    vf_jw_begin(&w, "results", '[');
    for (int i = 0; i < b->n_results; i++) {
        struct result *r = &b->results[i];
        if (!r->ours.n)
            continue;
        vf_jw_begin(&w, NULL, '{');
        vf_jw_string(&w, "name", r->name);
        vf_jw_string(&w, "vmm", "qemu");
        vf_jw_string(&w, "accel", r->accel);
        vf_jw_string(&w, "guest", r->guest);
        vf_jw_int(&w, "memory_mib", r->memory_mib);
        vf_jw_int(&w, "at_once", r->parallel);
        vf_jw_int(&w, "n", (int64_t)r->ours.n);
        vf_jw_int(&w, "p50_us", series_percentile(&r->ours, 50));
        vf_jw_int(&w, "p90_us", series_percentile(&r->ours, 90));
        vf_jw_int(&w, "p99_us", series_percentile(&r->ours, 99));
        vf_jw_int(&w, "max_us", series_percentile(&r->ours, 100));
        vf_jw_int(&w, "floor_p50_us", series_percentile(&r->floor, 50));
        vf_jw_double(&w, "ratio", ratio(r), 4);
        vf_jw_begin(&w, "stages", '{');
        for (int k = 0; k < r->n_stages; k++)
            vf_jw_int(&w, r->stages[k].name, series_percentile(&r->stages[k].ours, 50));
        vf_jw_end(&w, '}');
        vf_jw_end(&w, '}');
    }
    vf_jw_end(&w, ']');
    vf_jw_begin(&w, "memory", '{');
    vf_jw_int(&w, "guest_anonymous_kib", series_percentile(&b->guest_anonymous_kib, 50));
    vf_jw_int(&w, "vmm_anonymous_kib", series_percentile(&b->vmm_anonymous_kib, 50));
    vf_jw_int(&w, "pss_kib", series_percentile(&b->pss_kib, 50));
    vf_jw_int(&w, "template_resident_kib", b->template_resident_kib);
    vf_jw_end(&w, '}');
    if (b->n_figures)
        figures_json(b, &w);
    vf_jw_end(&w, '}');
    char *text = vf_jw_finish(&w);
    puts(text ? text : "{}");
    free(text);
}

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

struct result *find_result(struct bench *b, const char *name, const struct subject *of,
                           int64_t memory_mib, int parallel)
{
    for (int i = 0; i < b->n_results; i++) {
        struct result *r = &b->results[i];
        if (strcmp(r->name, name) == 0 && r->of.vmm == of->vmm &&
            strcmp(r->of.guest, of->guest) == 0 && r->of.accel == of->accel &&
            (!memory_mib || r->memory_mib == memory_mib) && r->parallel == parallel && r->ours.n)
            return r;
    }
    return NULL;
}

struct stage_series *find_stage(struct result *r, const char *name)
{
    for (int i = 0; r && i < r->n_stages; i++)
        if (strcmp(r->stages[i].name, name) == 0)
            return &r->stages[i];
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
        printf("  %-51s %4zu", s->name, s->ours.n);
        ms(series_percentile(&s->ours, 50));
        ms(series_percentile(&s->ours, 90));
        ms(series_percentile(&s->ours, 99));
        ms(series_percentile(&s->ours, 100));
        if (s->floor.n)
            ms(series_percentile(&s->floor, 50));
        putchar('\n');
    }
}

static void print_memory(struct result *clone)
{
    struct memory_series *m = &clone->memory;
    printf("a %s clone of %s at hand-over: %lld KiB of guest memory copied, %lld KiB of the VMM's "
           "own, PSS %lld KiB; its template's memory, once: %lld KiB\n",
           clone->of.guest, vf_spec_vmm_names[clone->of.vmm],
           (long long)series_percentile(&m->guest_anonymous, 50),
           (long long)series_percentile(&m->vmm_anonymous, 50),
           (long long)series_percentile(&m->pss, 50), (long long)m->template_resident);
}

static void print_scaling(struct result *big, struct result *small)
{
    printf("%s: save at 4 GiB / save at %lld MiB (p50): %.2f\n", vf_spec_vmm_names[big->of.vmm],
           (long long)small->memory_mib,
           (double)series_percentile(&big->ours, 50) / (double)series_percentile(&small->ours, 50));
}

static void print_summary(struct bench *b)
{
    for (int i = 0; i < b->n_results; i++) {
        struct result *r = &b->results[i], *small;
        if (strcmp(r->name, "save") == 0 && r->memory_mib == 4096 && r->ours.n &&
            ((small = find_result(b, "save", &r->of, 256, 1)) ||
             (small = find_result(b, "save", &r->of, 64, 1))))
            print_scaling(r, small);
        struct result *cold = find_result(b, "cold", &r->of, 0, 1);
        if (strcmp(r->name, "clone") != 0 || r->parallel > 1 || !r->ours.n)
            continue;
        if (cold)
            printf("%s, %s, %s: cold boot / clone (p50): %.1f\n", vf_spec_vmm_names[r->of.vmm],
                   r->of.guest, vf_accel_names[r->of.accel],
                   (double)series_percentile(&cold->ours, 50) /
                       (double)series_percentile(&r->ours, 50));
        if (r->memory.pss.n)
            print_memory(r);
    }
}

void report_table(struct bench *b, bool stages)
{
    printf("%-7s %-16s %-5s %-4s %7s %8s %4s %9s %9s %9s %9s %9s %7s\n", "", "VMM", "guest", "on",
           "MiB", "at once", "n", "p50 ms", "p90", "p99", "max", "floor p50", "ratio");
    for (int i = 0; i < b->n_results; i++) {
        struct result *r = &b->results[i];
        if (!r->ours.n)
            continue;
        printf("%-7s %-16s %-5s %-4s %7lld %8d %4zu", r->name, vf_spec_vmm_names[r->of.vmm],
               r->of.guest, vf_accel_names[r->of.accel], (long long)r->memory_mib, r->parallel,
               r->ours.n);
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
    for (int i = 0; bench_vmms[i] != VF_SPEC_VMM_COUNT; i++)
        if (b->versions[bench_vmms[i]][0])
            vf_jw_string(w, vf_spec_vmm_names[bench_vmms[i]], b->versions[bench_vmms[i]]);
    vf_jw_end(w, '}');
}

static void json_series(struct vf_json_writer *w, struct series *s)
{
    vf_jw_int(w, "n", (int64_t)s->n);
    vf_jw_int(w, "min_us", series_percentile(s, 0));
    vf_jw_int(w, "p50_us", series_percentile(s, 50));
    vf_jw_int(w, "p90_us", series_percentile(s, 90));
    vf_jw_int(w, "p99_us", series_percentile(s, 99));
    vf_jw_int(w, "max_us", series_percentile(s, 100));
}

static void json_memory(struct vf_json_writer *w, struct memory_series *m)
{
    vf_jw_begin(w, "memory", '{');
    vf_jw_int(w, "n", (int64_t)m->pss.n);
    vf_jw_int(w, "guest_anonymous_kib", series_percentile(&m->guest_anonymous, 50));
    vf_jw_int(w, "guest_anonymous_max_kib", series_percentile(&m->guest_anonymous, 100));
    vf_jw_int(w, "vmm_anonymous_kib", series_percentile(&m->vmm_anonymous, 50));
    vf_jw_int(w, "pss_kib", series_percentile(&m->pss, 50));
    vf_jw_int(w, "template_resident_kib", m->template_resident);
    vf_jw_end(w, '}');
}

static void json_result(struct vf_json_writer *w, struct result *r)
{
    vf_jw_begin(w, NULL, '{');
    vf_jw_string(w, "name", r->name);
    vf_jw_string(w, "vmm", vf_spec_vmm_names[r->of.vmm]);
    vf_jw_string(w, "accel", vf_accel_names[r->of.accel]);
    vf_jw_string(w, "guest", r->of.guest);
    vf_jw_int(w, "memory_mib", r->memory_mib);
    vf_jw_int(w, "at_once", r->parallel);
    json_series(w, &r->ours);
    vf_jw_begin(w, "floor", '{');
    json_series(w, &r->floor);
    vf_jw_end(w, '}');
    vf_jw_int(w, "floor_p50_us", series_percentile(&r->floor, 50));
    vf_jw_double(w, "ratio", ratio(r), 4);
    vf_jw_begin(w, "stages", '{');
    for (int k = 0; k < r->n_stages; k++) {
        vf_jw_begin(w, r->stages[k].name, '{');
        json_series(w, &r->stages[k].ours);
        if (r->stages[k].floor.n)
            vf_jw_int(w, "floor_p50_us", series_percentile(&r->stages[k].floor, 50));
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, '}');
    if (r->memory.pss.n)
        json_memory(w, &r->memory);
    vf_jw_end(w, '}');
}

void report_json(struct bench *b)
{
    struct vf_json_writer w = {0};
    vf_jw_begin(&w, NULL, '{');
    json_environment(b, &w);
    vf_jw_begin(&w, "results", '[');
    for (int i = 0; i < b->n_results; i++)
        if (b->results[i].ours.n)
            json_result(&w, &b->results[i]);
    vf_jw_end(&w, ']');
    if (b->n_figures)
        figures_json(b, &w);
    vf_jw_end(&w, '}');
    char *text = vf_jw_finish(&w);
    puts(text ? text : "{}");
    free(text);
}

/* Inside the benchmark: what is measured (measure.c) and how it is shown (report.c). */
#ifndef VF_TOOLS_BENCH_BENCH_H
#define VF_TOOLS_BENCH_BENCH_H

#include <stdbool.h>
#include "factory/measure.h"
#include "tools/bench/stats.h"
#include "tools/common/floor.h"
#include "tools/common/sync.h"

struct vf_json_writer;

#define MAX_RESULTS 48
#define MAX_FIGURES 48
#define MAX_BENCH_STAGES 8

struct stage_series {
    const char *name;
    struct series ours, floor;
};

/* One line of the table: ours against the floor, in turn. */
struct result {
    const char *name; /* "clone", "cold", "save", "resume" */
    const char *guest, *accel;
    int64_t memory_mib;
    int parallel; /* so many at once; the times are until the last is ready */
    struct series ours, floor;
    struct stage_series stages[MAX_BENCH_STAGES];
    int n_stages;
};

/* One line about the daemon: a series, perhaps against another that was measured in turn, or a single value; what is
 * judged, and the target. */
enum figure_judge {
    JUDGE_NONE,
    JUDGE_P50, /* µs, at most */
    JUDGE_P99,
    JUDGE_OVER,    /* p50 less the other's, µs, at most */
    JUDGE_RATIO,   /* p50 by the other's, at most */
    JUDGE_AT_MOST, /* the value */
    JUDGE_AT_LEAST
};
struct figure {
    char name[80];
    struct series ours, base;
    const char *against; /* what base is */
    const char *unit;    /* of value; NULL: it is a series */
    double value, before;
    bool grows; /* value is after, before is before; their difference is judged */
    enum figure_judge judge;
    double target;
};

struct bench {
    int clones, colds, saves, bursts, burst_size; /* how many of each */
    bool big;                                     /* also the 4 GiB save */
    struct vf_sync sync;
    struct vf_floor floor;
    struct result results[MAX_RESULTS];
    int n_results;
    bool has_memory; /* of a Linux clone at hand-over, medians over the clones */
    struct series guest_anonymous_kib, vmm_anonymous_kib, pss_kib;
    int64_t template_resident_kib;
    char qemu_version[32];
    int hit_rounds, linux_vms, soak_null, soak_qemu; /* of the daemon's figures */
    bool run_on_tmpfs;                               /* its run directory was */
    struct figure figures[MAX_FIGURES];
    int n_figures;
};

/* The spec in file, under accel. Adds its results. */
int bench_guest(struct bench *b, const char *file, const char *guest, enum vf_accel accel,
                struct vf_error *err);
void report_table(struct bench *b, bool stages);
void report_json(struct bench *b);
/* What a daemon does, and whether it grows; tools/bench/daemon.h. Each adds its figures. */
int bench_daemon(struct bench *b, const char *specs, struct vf_error *err);
int bench_soak(struct bench *b, const char *specs, struct vf_error *err);
void figures_table(struct bench *b);
void figures_json(struct bench *b, struct vf_json_writer *w);

#endif

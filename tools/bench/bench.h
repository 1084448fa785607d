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
#define MAX_FIGURES 96
#define MAX_BENCH_STAGES 8

struct stage_series {
    const char *name;
    struct series ours, floor;
};

/* What is measured: a guest, in a VMM. */
struct subject {
    enum vf_spec_vmm vmm;
    const char *guest; /* "linux" or "tiny" */
    enum vf_accel accel;
};

/* A clone's, at hand-over; KiB. */
struct memory_series {
    struct series guest_anonymous, vmm_anonymous, pss;
    int64_t template_resident;
};

/* One line of the table: ours against the floor, in turn. */
struct result {
    const char *name; /* "clone", "cold", "save", "resume" */
    struct subject of;
    int64_t memory_mib;
    int parallel; /* so many at once; the times are until the last is ready */
    struct series ours, floor;
    struct stage_series stages[MAX_BENCH_STAGES];
    int n_stages;
    struct memory_series memory; /* empty: not of this one */
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
    bool saves_only;
    bool wanted[VF_SPEC_VMM_COUNT];
    struct vf_sync sync;
    struct vf_floor floor;
    struct result results[MAX_RESULTS];
    int n_results;
    char versions[VF_SPEC_VMM_COUNT][32];            /* empty: it was not run */
    int hit_rounds, linux_vms, soak_null, soak_qemu; /* of the daemon's figures */
    struct series
        hits[VF_SPEC_VMM_COUNT]; /* parked running, tiny guest, KVM, a new connection each */
    bool run_on_tmpfs;           /* the daemon's run directory was */
    struct figure figures[MAX_FIGURES];
    int n_figures;
};

/* DIR/GUEST.json for this VMM and accelerator. */
int bench_spec(const char *specs, const struct subject *of, struct vf_spec *ret_spec,
               struct vf_error *err);
/* Whether it can be measured here; says that it is skipped, and why, if not. */
bool bench_can(const struct bench *b, const struct subject *of);
/* The VMMs under KVM with the tiny guest; VF_SPEC_VMM_COUNT ends the list. */
extern const enum vf_spec_vmm bench_vmms[];
/* Measures the chain. Adds its results. */
int bench_guest(struct bench *b, const char *specs, const struct subject *of, struct vf_error *err);
void report_table(struct bench *b, bool stages);
void report_vmms(struct bench *b); /* the VMMs side by side, tiny guest, KVM */
void report_json(struct bench *b);
/* The line of the table, or NULL. memory_mib 0: any. */
struct result *find_result(struct bench *b, const char *name, const struct subject *of,
                           int64_t memory_mib, int parallel);
struct stage_series *find_stage(struct result *r, const char *name); /* or NULL */
/* What a daemon does, and whether it grows; tools/bench/daemon.h. Each adds its figures. */
int bench_daemon(struct bench *b, const char *specs, struct vf_error *err);
int bench_soak(struct bench *b, const char *specs, struct vf_error *err);
/* Networks: the process leaves the machine's network before all else. */
int bench_nets_enter(struct vf_error *err);
int bench_nets(struct bench *b, const char *specs, struct vf_error *err);
void figures_table(struct bench *b);
void figures_json(struct bench *b, struct vf_json_writer *w);

#endif

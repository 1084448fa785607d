/* What stats are made of, for the files that count (stats.c), find out about the process
 * (stats_process.c), list what there is to show (stats_families.c) and show it (stats_text.c,
 * stats_json.c).
 *
 *     living counters -> vf_stats_snapshot (lock held for one template's copy at a time) -> text or JSON
 *
 * Nothing is formatted under the lock: the loop never waits longer for it than a few KiB take to copy.
 */
#ifndef VF_POOL_STATS_INTERNAL_H
#define VF_POOL_STATS_INTERNAL_H

#include "pool/stats.h"

/* --- histograms: counts between fixed bounds, and the sum */
#define VF_BOUNDS_MAX 18
struct vf_bounds {
    int n;
    struct {
        int64_t us;
        const char *seconds; /* as OpenMetrics wants a float written */
    } upto[VF_BOUNDS_MAX];
};
extern const struct vf_bounds vf_bounds_short, vf_bounds_long;

struct vf_histogram {
    uint64_t in[VF_BOUNDS_MAX + 1]; /* not cumulative; in[n] is beyond the last bound */
    int64_t sum_us;
};
void vf_histogram_add(struct vf_histogram *h, const struct vf_bounds *b, int64_t us);
void vf_histogram_merge(struct vf_histogram *h, const struct vf_histogram *other);
uint64_t vf_histogram_count(const struct vf_histogram *h);
/* Estimated: spread evenly within a bucket; beyond the last bound, that bound. 0 of nothing. */
int64_t vf_histogram_quantile_us(const struct vf_histogram *h, const struct vf_bounds *b, double q);

/* --- what is kept */
#define VF_STATS_STAGES 24 /* more names than that are counted as "other" */
struct vf_stats_stage {
    char name[24];
    struct vf_histogram took;
};

enum { VF_TRAFFIC_IN, VF_TRAFFIC_OUT, VF_TRAFFIC_WAYS }; /* to the guest, from it */
struct vf_stats_traffic {
    uint64_t bytes[VF_TRAFFIC_WAYS], packets[VF_TRAFFIC_WAYS], dropped[VF_TRAFFIC_WAYS];
    uint64_t refused[VF_REFUSAL_COUNT];
};
struct vf_stats_vm { /* of a leased VM with a slot */
    char id[VF_STATS_VM_ID];
    size_t next; /* in its bucket: 1 + its place; 0: it is the last */
    struct vf_stats_traffic traffic;
};

enum { VF_SLOTS_MAKING, VF_SLOTS_READY, VF_SLOTS_TAKEN, VF_SLOTS_DIRTY, VF_SLOTS_STATES };
struct vf_stats_slots {
    uint64_t by_state[VF_STATS_NETWORKS][VF_SLOTS_STATES];
    uint64_t capacity[VF_STATS_NETWORKS];
    uint64_t made[VF_STATS_NETWORKS], recycled[VF_STATS_NETWORKS], destroyed[VF_STATS_NETWORKS],
        doubted[VF_STATS_NETWORKS];
};

struct vf_stats_facts { /* of a template */
    struct vf_histogram acquire[VF_GOT_COUNT], refill, build, lease_held;
    uint64_t acquire_failures[VF_CODE_COUNT], refill_failures[VF_CODE_COUNT],
        build_failures[VF_CODE_COUNT];
    uint64_t lease_ends[VF_LEASE_END_COUNT], quarantines, parked_deaths;
    struct vf_stats_pool pool;
    struct vf_stats_memory memory;
    struct vf_stats_traffic traffic;
    int n_stages;
    struct vf_stats_stage stages[VF_STATS_STAGES];
};

struct vf_stats_template {
    struct vf_stats *owner;
    char *name;
    bool removed;
    struct vf_stats_vm *vms;
    size_t n_vms, cap_vms;
    size_t *buckets; /* cap_vms of them, by id: 1 + the first one's place; 0: empty */
    struct vf_stats_facts facts;
};

enum { VF_ADOPTED_LEASED, VF_ADOPTED_PARKED, VF_ADOPTED_DISCARDED, VF_ADOPTED_COUNT };

struct vf_stats_process {
    int64_t resident_bytes, open_fds, max_fds, threads, cpu_us;
    int64_t started_us; /* since the Unix epoch */
};

struct vf_stats_globals {
    uint64_t adopted[VF_ADOPTED_COUNT];
    struct vf_histogram turns;
    int64_t longest_turn_us;
    int64_t last_turn_us; /* ago */
    bool ready;
    struct vf_stats_slots slots;
    struct vf_stats_process process;
};

/* A copy, each template consistent in itself; without those removed, in the order of their names. */
struct vf_stats_snapshot {
    struct vf_stats_globals g;
    size_t n;
    struct vf_stats_template *templates; /* the names belong to the living ones */
};
/* For stats_network.c. */
void vf_stats_lock(struct vf_stats *s);
void vf_stats_unlock(struct vf_stats *s);
struct vf_stats_slots *vf_stats_slots(struct vf_stats *s);

/* Under the lock: none is shown any more. */
void vf_stats_vms_clear(struct vf_stats_template *t);

int vf_stats_snapshot_take(struct vf_stats *s, struct vf_stats_snapshot *ret);
void vf_stats_snapshot_free(struct vf_stats_snapshot *snap);

/* Now, from /proc/self; what can't be found out is left 0. started_us is left alone. */
void vf_stats_process_read(struct vf_stats_process *ret);
int64_t vf_stats_process_started_us(void);

/* --- what is shown: one table for both forms */
enum vf_fact_type { VF_FACT_COUNTER, VF_FACT_GAUGE, VF_FACT_HISTOGRAM, VF_FACT_INFO };
enum vf_fact_kind {
    VF_FACT_INT,        /* int64_t, times scale */
    VF_FACT_TIME,       /* int64_t, times scale: us, shown in seconds */
    VF_FACT_BOOL,       /* 0 or 1 */
    VF_FACT_COUNTS,     /* uint64_t[n] by label from `first` on; without a label their sum */
    VF_FACT_GRID,       /* uint64_t[n][n2] by label and label2 */
    VF_FACT_HISTOGRAMS, /* struct vf_histogram[n], likewise */
    VF_FACT_HOW_MANY,   /* the counts of such histograms, likewise */
    VF_FACT_STAGES,     /* histograms by the stages' names */
    VF_FACT_STATE,      /* one of names is 1, the others 0 */
    VF_FACT_VERSION     /* of this program */
};
/* Whose fact it is: a template's, a leased VM's (of a template), or the daemon's. */
enum vf_fact_scope { VF_FACT_OF_TEMPLATE, VF_FACT_OF_VM, VF_FACT_OF_DAEMON };
struct vf_stats_family {
    const char *name; /* without _total, _info */
    enum vf_fact_type type;
    enum vf_fact_kind kind;
    enum vf_fact_scope scope;
    size_t offset; /* in struct vf_stats_facts, _vm or _globals */
    const char *help;
    const char *unit; /* NULL: none; also the end of name */
    int64_t scale;    /* 0: 1 */
    const char *label;
    const char *(*label_value)(int i);
    int first, n; /* n 0: 1 */
    const char *label2;
    const char *(*label2_value)(int i);
    int n2;
    const struct vf_bounds *bounds;
};
extern const struct vf_stats_family vf_stats_families[]; /* ends with name == NULL */

#endif

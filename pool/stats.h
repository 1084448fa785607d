/* What monitoring sees: counters, gauges and histograms, kept under one lock, so that the stats socket's own
 * thread reads them without touching the loop.
 *
 * The pool counts; stats_text.c and stats_json.c show. Everything per template lives in a
 * vf_stats_template, which stays until vf_stats_free (counters never go back) and is hidden while removed.
 */
#ifndef VF_POOL_STATS_H
#define VF_POOL_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "factory/factory.h"

/* Where an acquired VM came from. */
enum vf_got { VF_GOT_HIT, VF_GOT_STANDBY, VF_GOT_CLONE, VF_GOT_COLD, VF_GOT_COUNT };
extern const char *const vf_got_names[]; /* "hit", "standby", "clone", "cold", NULL */

enum vf_lease_end {
    VF_LEASE_RELEASED,
    VF_LEASE_EXPIRED,
    VF_LEASE_DIED,
    VF_LEASE_UNCLAIMED,
    VF_LEASE_END_COUNT
};
extern const char
    *const vf_lease_end_names[]; /* "released", "expired", "died", "unclaimed", NULL */

enum vf_template_state {
    VF_TEMPLATE_ABSENT,   /* no generation; cold boots serve */
    VF_TEMPLATE_LOADING,  /* a stored generation is being read back */
    VF_TEMPLATE_BUILDING, /* the first is being built */
    VF_TEMPLATE_READY,
    VF_TEMPLATE_QUARANTINED, /* its clones failed; cold boots serve until a rebuild */
    VF_TEMPLATE_STATE_COUNT
};
extern const char *const vf_template_state_names[]; /* "absent", …, NULL */

struct vf_stats_pool { /* gauges of one template, as they are now */
    enum vf_template_state state;
    int64_t generation; /* 0: none */
    int64_t min, max, target, parked, standby_target, standby, making, leased, waiting;
    bool drained, under_pressure, building;
    int64_t backoff_ms;
    int64_t template_memory_bytes; /* the size the guest sees */
};

struct vf_stats;
struct vf_stats_template;
struct vf_stats *vf_stats_new(void);
void vf_stats_free(struct vf_stats *s);
/* Finds or makes; NULL without memory. */
struct vf_stats_template *vf_stats_template(struct vf_stats *s, const char *name);
void vf_stats_template_removed(struct vf_stats_template *t);

void vf_stats_set_pool(struct vf_stats_template *t, const struct vf_stats_pool *p);
/* total_us: from the request to the answer; stages: of this acquire. */
void vf_stats_acquired(struct vf_stats_template *t, enum vf_got got, int64_t total_us,
                       const struct vf_stage *stages, int n_stages);
void vf_stats_acquire_failed(struct vf_stats_template *t, enum vf_code code);
void vf_stats_lease_ended(struct vf_stats_template *t, enum vf_lease_end how, int64_t held_us);
void vf_stats_refilled(struct vf_stats_template *t, int64_t total_us);
void vf_stats_refill_failed(struct vf_stats_template *t, enum vf_code code);
void vf_stats_built(struct vf_stats_template *t, int64_t total_us);
void vf_stats_build_failed(struct vf_stats_template *t, enum vf_code code);
void vf_stats_quarantined(struct vf_stats_template *t);
void vf_stats_parked_died(struct vf_stats_template *t);
/* Adopted at the start, or cleaned up because nothing accounted for it. */
void vf_stats_adopted(struct vf_stats *s, int64_t leases, int64_t parked, int64_t discarded);

/* From the ledger (pool/ledger.h): KiB, and how many VMs were measured. */
struct vf_stats_memory {
    int64_t template_resident_kib; /* once, for all clones */
    int64_t vms_measured, guest_copied_kib, vmm_own_kib, pss_kib;
};
void vf_stats_set_memory(struct vf_stats_template *t, const struct vf_stats_memory *m);

/* --- networks: VMs' traffic (stats_network.c) */
#define VF_STATS_VM_ID 16
/* Of one VM, as it was counted all in all by now: what has come since `before` is added to its template's counters, and
 * *before becomes that. Nothing goes back: a count that is less than it was counts as what it was. */
void vf_stats_traffic(struct vf_stats_template *t, struct vf_net_stats *before,
                      const struct vf_net_stats *now);
/* A leased VM's own series, shown from now on with these counts, and no more. */
void vf_stats_vm(struct vf_stats_template *t, const char *id, const struct vf_net_stats *now);
void vf_stats_vm_gone(struct vf_stats_template *t, const char *id);
/* Of the modes that have slots: 0 nat, 1 bridge. */
#define VF_STATS_NETWORKS 2
void vf_stats_set_slots(struct vf_stats *s, int network, const struct vf_nets_counts *c);

/* The loop: how long one turn took (pool/stall.h), and when it last turned. */
void vf_stats_loop_turn(struct vf_stats *s, int64_t busy_us);
/* Alive: the loop has turned within the last limit_us. Thread-safe. */
bool vf_stats_live(struct vf_stats *s, int64_t limit_us);
/* How long ago it last turned. Thread-safe. */
int64_t vf_stats_last_turn_us(struct vf_stats *s);
/* Ready: adoption is over, and the API answers. */
void vf_stats_set_ready(struct vf_stats *s, bool ready);
bool vf_stats_ready(struct vf_stats *s);

/* OpenMetrics 1.0 text ("# EOF" at its end), the older Prometheus text format 0.0.4 with the same facts, and
 * JSON. malloc'd; NULL without memory. Any thread. */
char *vf_stats_text(struct vf_stats *s, size_t *ret_len);
char *vf_stats_text_classic(struct vf_stats *s, size_t *ret_len);
char *vf_stats_json(struct vf_stats *s, size_t *ret_len);

#endif

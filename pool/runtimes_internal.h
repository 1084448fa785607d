/* Inside the runtimes: the struct, and what the files do for each other.
 *
 *     runtimes.c         opened, closed; changes of the set
 *     runtimes_store.c   looking into the store, verify, gc
 *     runtimes_fetch.c   fetches
 */
#ifndef VF_POOL_RUNTIMES_INTERNAL_H
#define VF_POOL_RUNTIMES_INTERNAL_H

#include <sys/queue.h>
#include "pool/runtimes.h"

#define VF_RUNTIMES_MAX_WAITING 256

/* Changes, and gc, which must see no class come while it looks, wait for each other; so do those that hash, which would
 * only be slower together and leave no worker to others. */
enum vf_runtimes_turn { VF_TURN_CHANGE, VF_TURN_HASH, VF_TURN_COUNT };

/* Something done in a worker. Embedded first in what each kind needs besides. */
struct vf_runtimes_op {
    struct vf_work work;
    struct vf_runtimes *rt;
    STAILQ_ENTRY(vf_runtimes_op) waiting;
    int turn;                                 /* -1: it needs none */
    void (*begin)(struct vf_runtimes_op *op); /* its turn has come; may be NULL */
    int (*run)(struct vf_runtimes_op *op, struct vf_error *err);        /* in a worker */
    void (*end)(struct vf_runtimes_op *op, const struct vf_error *err); /* frees it */
};

struct vf_fetch_state {
    struct vf_runtimes *rt;
    struct vf_fetch_state *next;
    char name[VF_ASSET_NAME_MAX + 1], sha256[VF_SHA256_HEX];
    char *definition;       /* of the asset as it was when the last one began */
    struct vf_fetch *fetch; /* NULL: none under way */
    bool withdrawn;         /* it was cancelled; its end is to come */
    bool again;             /* and then another is begun */
    int64_t attempts;
    int told_percent;
    int64_t done_bytes, total_bytes; /* of one that has ended */
    bool has_error;
    struct vf_error error;
};

struct vf_removal {
    LIST_ENTRY(vf_removal) others;
    char name[VF_CLASS_NAME_MAX + 1];
};

/* A set that was in force, kept while somebody else goes on with it. */
struct vf_past_set {
    SLIST_ENTRY(vf_past_set) next;
    struct vf_registry *registry;
};

struct vf_runtimes {
    struct vf_runtimes_config cfg;
    char *dir; /* of the definitions */
    struct vf_registry_config registry_config;
    struct vf_registry *registry;
    SLIST_HEAD(vf_past_sets, vf_past_set) past;
    struct vf_asset_store *assets;
    STAILQ_HEAD(vf_runtimes_ops, vf_runtimes_op) waiting[VF_TURN_COUNT];
    bool taken[VF_TURN_COUNT]; /* an op of it runs */
    int n_waiting, works;
    LIST_HEAD(vf_removals, vf_removal) removals; /* of classes, asked for and not in force yet */
    struct vf_fetch_state *fetches;
    int n_fetching;
    uv_timer_t timer; /* tells how far fetches are */
    bool timer_open, stopping;
};

/* --- runtimes.c */
/* Has it run: at once, or when its turn comes. VF_CANCELLED: stopping. */
int vf_runtimes_submit(struct vf_runtimes *rt, struct vf_runtimes_op *op, struct vf_error *err);
/* The set in force, and those that a VM being made goes on with; malloc'd, each with a reference. NULL: no memory. */
struct vf_registry **vf_runtimes_sets(struct vf_runtimes *rt, size_t *ret_n);
/* Something has ended. */
void vf_runtimes_ended(struct vf_runtimes *rt);

/* --- runtimes_fetch.c */
/* Withdraws fetches of what is not as it was when they began; all of them while stopping. */
void vf_runtimes_fetches_changed(struct vf_runtimes *rt);
void vf_runtimes_fetches_free(struct vf_runtimes *rt);

#endif

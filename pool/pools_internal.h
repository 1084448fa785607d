/* Inside the pools: the structs, and what the files of pool/ do for each other.
 *
 *     pools.c      open, close, the list of pools, the one-second timer and what is done soon
 *     spec_dir.c   specs on disk; adding and removing a template
 *     config.c     a pool's settings, on disk and in force
 *     template.c   a template's generation: load, build, rotate, quarantine
 *     refill.c     keeps parked and standby VMs at their numbers; backoff
 *     slot.c       one VM: made, parked, journalled, destroyed
 *     acquire.c    a caller's way to a VM
 *     brought.c    the network that a caller brings
 *     publish.c    ports of the host, for a lease's time
 *     networks.c   the daemon's networks, and their stock of slots
 *     traffic.c    what leased VMs send and receive
 *     lease.c      renew, expire, release, who may see what
 *     adopt.c      what an earlier daemon left
 *     heartbeat.c  signs of life of VMs parked running
 *     show.c       JSON; show_network.c that of a VM's network, show_runtimes.c that of classes and assets
 */
#ifndef VF_POOL_POOLS_INTERNAL_H
#define VF_POOL_POOLS_INTERNAL_H

#include <sys/queue.h>
#include "pool/autosize.h"
#include "pool/http.h"
#include "pool/journal.h"
#include "pool/networks.h"
#include "pool/pools.h"

#define BUCKETS 2048
#define VF_BROUGHT_TAPS 8

enum vf_slot_state {
    VF_SLOT_MAKING,  /* cloned, booted, brought, parked or adopted just now */
    VF_SLOT_STANDBY, /* its VMM is up and empty */
    VF_SLOT_PARKED,
    VF_SLOT_WAKING, /* was parked; a caller waits for its guest's answer */
    VF_SLOT_LEASED,
    VF_SLOT_RELEASING,
    VF_SLOT_STATE_COUNT
};

enum vf_purpose { VF_FOR_POOL, VF_FOR_STANDBY, VF_FOR_CALLER };

struct vf_release_waiter {
    vf_done_cb done;
    void *arg;
    struct vf_release_waiter *next;
};

struct vf_brought { /* owned copies of what a caller brings; freed with its last owner */
    int refs;
    struct vf_vm_options options;
    int taps[VF_BROUGHT_TAPS];
};

struct vf_slot {
    struct vf_pools *pools;
    struct vf_pool *pool;
    char id[16];
    struct vf_slot *hash_next;
    TAILQ_ENTRY(vf_slot) all;    /* of the pool */
    TAILQ_ENTRY(vf_slot) queue;  /* of the pool: parked or standby */
    TAILQ_ENTRY(vf_slot) leases; /* of all pools, oldest first */
    enum vf_slot_state state;
    enum vf_purpose purpose;
    struct vf_instance *vm; /* NULL: gone already (a dead one's lease) */
    enum vf_source source;
    int64_t generation;          /* 0: cold boot */
    bool paused;                 /* parked so */
    bool parking;                /* the pause is under way */
    bool destroying;             /* vf_instance_destroy was called */
    bool reap;                   /* a leased VM died: to be destroyed soon */
    bool was_leased;             /* for the end's count */
    bool closing_kept;           /* detached at close: its directory stays */
    int record_state;            /* enum vf_record_state last written; -1: none */
    struct vf_acquire *acquire;  /* who waits for it; NULL: nobody (any more) */
    struct vf_brought *brought;  /* while it is made; NULL: nothing */
    struct vf_net_stats traffic; /* as it was last counted */
    int64_t traffic_ms;          /* when; Unix time; 0: not yet */
    bool traffic_shown;          /* it has series of its own */
    enum vf_lease_end end;
    int64_t began_us, created_ms;
    int64_t made_us;  /* how long it took; 0: not yet */
    int64_t ports_us; /* how long opening its ports took, or when that began; 0: there are none */
    /* of the lease */
    enum vf_got got;
    char *reason;
    struct vf_caller holder;
    int64_t acquired_ms, acquired_us, ttl_ms, expires_us, total_us;
    struct vf_stage stages[VF_MAX_STAGES];
    int n_stages;
    struct vf_error *death; /* NULL: alive */
    struct vf_release_waiter *waiters;
};
TAILQ_HEAD(vf_slot_list, vf_slot);

struct vf_acquire {
    struct vf_pools *pools;
    struct vf_pool *pool;
    TAILQ_ENTRY(vf_acquire) pending; /* of all pools */
    TAILQ_ENTRY(vf_acquire) waiting; /* of the pool, if is_waiting */
    bool is_waiting;
    struct vf_caller who;
    unsigned require, tried; /* bits of VF_REQUIRE */
    int64_t began_us, deadline_us, ttl_ms;
    enum vf_got got; /* being tried */
    struct vf_slot *slot;
    struct vf_brought *brought; /* NULL: nothing */
    struct vf_port *ports;      /* n_ports; owned */
    int n_ports;
    bool has_ports;         /* else the spec's */
    char why[256];          /* why the sources before were not it */
    struct vf_error failed; /* the last attempt's */
    vf_acquire_cb done;
    void *arg;
};
TAILQ_HEAD(vf_acquire_list, vf_acquire);

struct vf_pool {
    struct vf_pools *pools;
    struct vf_pool *next; /* by name */
    struct vf_spec spec;
    struct vf_pool_config config;
    struct vf_stats_template *stats;
    bool drained, removing, erasing;
    vf_done_cb removed;
    void *removed_arg;

    /* template.c */
    enum vf_template_state state;
    char *reason;                /* why not ready */
    struct vf_error *no_network; /* why its VMs can't have their network here; NULL: they can */
    struct vf_generation *gen;   /* NULL: none in memory */
    int64_t current;             /* its number, known before it is loaded; 0: none */
    int64_t clones;              /* made of it */
    int64_t gen_since_us;        /* when it took over */
    bool loading;
    bool asked;                     /* somebody asked for a build */
    bool rebuild;                   /* what there was turned out bad: another is wanted */
    struct vf_build_request *build; /* under way */
    const char *build_stage;
    int64_t build_began_us, build_attempts, build_failures;
    int64_t build_retry_us;       /* not before */
    struct vf_error *build_error; /* of the last attempt */
    int failed_clones;            /* in a row */

    /* refill.c */
    int64_t target; /* what the pool aims at: config.target, or what autosizing says */
    struct vf_autosize autosize;
    int refill_failures; /* in a row */
    int64_t refill_failures_total, refill_retry_us;
    int64_t give_way_until_us; /* to callers; 0: none is being served */
    struct vf_error *refill_error;
    bool pressure_told;
    double clone_s;       /* mean time of the last clones; 0: not known */
    bool tick_soon, tidy; /* to be done soon */

    /* slots by state */
    struct vf_slot_list all, parked, standby;
    int n[VF_SLOT_STATE_COUNT];
    int parked_current;              /* of the current generation */
    int making_pool, making_standby; /* of those being made, by purpose */
    int starting;                    /* being made for callers */
    struct vf_acquire_list waiting;
    int n_waiting;
    int claims; /* leases, and acquires under way */
};

struct vf_holder {
    uid_t uid;
    int claims; /* leases, and acquires under way */
};

struct vf_pools {
    uv_loop_t *loop;
    const struct vf_settings *settings;
    struct vf_events *events;
    struct vf_stats *stats;
    struct vf_store *store;
    struct vf_runtimes *runtimes;
    struct vf_factory *factory;
    struct vf_pool_networks net;
    struct vf_traffic_pass {
        bool running;
        struct vf_slot *next; /* of the leases, to be asked; NULL: none is left */
        int64_t began_us;
        int seconds; /* until the next one */
        char id[16]; /* of the VM that is looked at */
        struct vf_net_stats stats;
    } traffic;
    char *run_path;                          /* RUN/vms, absolute */
    int run_dirfd, specs_dirfd, pools_dirfd; /* RUN/vms, STATE/specs, STATE/pools */
    struct vf_pool *first;
    LIST_HEAD(vf_adds, vf_add) adds; /* of templates, under way */
    struct vf_slot *buckets[BUCKETS];
    int n_slots;
    struct vf_slot_list leases;
    struct vf_acquire_list pending;
    struct vf_holder *holders;
    int n_holders, cap_holders;
    struct { /* ids released lately, so that a second release is not an error */
        char id[16];
        uid_t uid;
    } released[1024];
    int released_at;
    uv_timer_t soon, second, deadline, beat;
    int64_t deadline_us; /* when `deadline` is due: the first of all acquires and leases */
    int open_timers;
    int beat_phase;
    bool under_pressure;
    char pressure[128];           /* what */
    int works;                    /* in worker threads */
    struct vf_adoption *adoption; /* under way */
    vf_done_cb ready;
    void *ready_arg;
    bool refusing, closing, factory_closing;
    int detaching;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* --- pools.c */
/* The pool's numbers changed: it is looked at again on the loop's next turn. */
/* Adoption is over: timers run, templates are loaded. */
void vf_pools_start(struct vf_pools *p);
/* Of closing: every VM is let go or destroyed. */
void vf_pools_end_all(struct vf_pools *p);
void vf_pool_touch(struct vf_pool *pool);
void vf_pools_soon(struct vf_pools *p);
/* The deadline timer goes off at_us at the latest. */
void vf_pools_arm_deadline(struct vf_pools *p, int64_t at_us);
/* Publishes the gauges. */
void vf_pool_publish(struct vf_pool *pool);
/* Ends the closing, step by step, as what it waits for ends. */
void vf_pools_check_closed(struct vf_pools *p);
void vf_pool_free(struct vf_pool *pool); /* unlinked, empty */
/* In a worker: the last reference to a large memory frees it. */
void vf_pools_drop_generation(struct vf_pools *p, struct vf_generation *gen);
/* initial * 2^(failures-1), at most max, with jitter: between half of it and all. ms */
int64_t vf_backoff_ms(const struct vf_settings *s, int64_t failures);
void vf_set_error(struct vf_error **at, const struct vf_error *err); /* NULL: none */
void vf_set_text(char **at, const char *text);

/* --- spec_dir.c */
/* In the list, with its settings from disk; *spec is taken over. NULL without memory. */
struct vf_pool *vf_pool_new(struct vf_pools *p, struct vf_spec *spec);
void vf_pool_settle(struct vf_pool *pool);
/* Whether its VMs' network comes with each acquire: none can be made ahead. */
static inline bool vf_pool_is_external(const struct vf_pool *pool)
{
    return pool->spec.network.mode == VF_NETWORK_EXTERNAL;
}
/* It is, or the spec is that is being added in its template's place. */
bool vf_pool_comes_external(const struct vf_pool *pool);
int vf_pools_load_specs(struct vf_pools *p, struct vf_error *err);
/* All slots of a pool that is being removed are gone. */
void vf_pool_finish_removal(struct vf_pool *pool);

/* --- config.c */
void vf_pool_file_name(const char *name,
                       char ret[VF_SPEC_NAME_MAX + 8]); /* in STATE/specs and STATE/pools */
void vf_pool_load_config(struct vf_pool *pool);
/* Those of a pool whose VMs can't be made ahead: the error names what would. */
int vf_pool_check_external(const struct vf_pool_config *c, const char *name, struct vf_error *err);

/* --- template.c */
void vf_template_load(struct vf_pool *pool);
/* Builds if it is wanted and there is cause: none there, too old, too many clones. */
void vf_template_tick(struct vf_pool *pool);
/* A clone of the current generation could not be made, or could. */
void vf_template_clone_failed(struct vf_pool *pool, int64_t generation, const struct vf_error *err);
void vf_template_clone_made(struct vf_pool *pool, int64_t generation, int64_t us);
/* It does not fit this host any more: not used, built anew if wanted. */
void vf_template_unfit(struct vf_pool *pool, const struct vf_error *err);
void vf_template_stop(struct vf_pool *pool); /* withdraws a build */
/* Its spec has changed. */
void vf_template_outdated(struct vf_pool *pool);
/* Removes generations that nobody needs any more, in a worker. */
void vf_template_tidy(struct vf_pool *pool);

/* --- refill.c */
void vf_refill_tick(struct vf_pool *pool);
void vf_refill_failed(struct vf_pool *pool, const struct vf_error *err);
void vf_refill_worked(struct vf_pool *pool);
/* Destroys parked and standby VMs of that generation; 0: all. */
void vf_pool_empty(struct vf_pool *pool, int64_t generation);
/* Whether it is to wait paused: as pool or spec say, if its VMM can. */
bool vf_slot_parks_paused(const struct vf_slot *s);

/* --- slot.c */
enum vf_make { VF_MAKE_CLONE, VF_MAKE_COLD, VF_MAKE_STANDBY };
/* Begins one; a may be NULL. */
int vf_slot_make(struct vf_pool *pool, enum vf_make what, enum vf_purpose purpose,
                 struct vf_acquire *a, struct vf_slot **ret, struct vf_error *err);
int vf_slot_bring(struct vf_slot *s, struct vf_acquire *a, struct vf_error *err);
int vf_slot_wake(struct vf_slot *s, struct vf_acquire *a, struct vf_error *err);
struct vf_slot *vf_slot_find(struct vf_pools *p, const char *id);
/* Without a VM yet; id NULL: not known yet. NULL without memory. */
struct vf_slot *vf_slot_new(struct vf_pool *pool, const char *id, enum vf_purpose purpose,
                            enum vf_source source, int64_t generation);
/* The current generation is another; counts follow. */
void vf_pool_set_current(struct vf_pool *pool, int64_t generation);
void vf_slot_set_state(struct vf_slot *s, enum vf_slot_state state);
/* From standby or parked back to making or waking, for a. */
void vf_slot_begin_for(struct vf_slot *s, struct vf_acquire *a, enum vf_slot_state state);
/* A VM that is ready and nobody's: to a waiting caller, parked, or destroyed if there are enough. */
void vf_slot_settle(struct vf_slot *s);
/* Of its VMM; 0: it has no process of its own, or not any more. */
pid_t vf_slot_pid(const struct vf_slot *s);
int vf_slot_record(struct vf_slot *s, enum vf_record_state state, struct vf_error *err);
void vf_slot_watch(struct vf_slot *s); /* its death */
void vf_slot_destroy(struct vf_slot *s);
/* Leased VMs that died: their remains go. */
void vf_slots_reap(struct vf_pools *p);
void vf_slot_forget(struct vf_slot *s); /* frees it */
int vf_slots_on_step(void *arg, struct vf_instance *vm, const char *stage, struct vf_error *err);

/* --- acquire.c */
/* A waiting caller that takes s, if there is one: true. */
bool vf_acquire_offer(struct vf_slot *s);
/* What a was tried with has ended: err, or s is its. */
void vf_acquire_got(struct vf_acquire *a, struct vf_slot *s);
void vf_acquire_missed(struct vf_acquire *a, const struct vf_error *err);
/* Its VM's ports are open: it is leased; or they can't be, and nothing else will do. */
void vf_acquire_published(struct vf_acquire *a, struct vf_slot *s);
void vf_acquire_refused(struct vf_acquire *a, const struct vf_error *err);
void vf_acquire_serve(struct vf_pool *pool); /* those who wait */
void vf_acquire_deadlines(struct vf_pools *p);
/* Ends all of a pool's (NULL: of every pool's) with err. */
void vf_acquire_fail_all(struct vf_pools *p, const struct vf_pool *pool,
                         const struct vf_error *err);
int64_t vf_acquire_next_deadline(const struct vf_pools *p);

/* --- brought.c */
/* The request's own copy of what o says of networks and ports, checked. */
int vf_brought_take(struct vf_acquire *a, const struct vf_acquire_options *o, struct vf_error *err);
void vf_brought_drop(struct vf_brought **b); /* a NULL at *b is fine */
/* A request that is unlinked. */
void vf_acquire_free(struct vf_acquire *a);

/* --- publish.c */
/* Whether a lease of s by a opens ports. */
bool vf_publish_wanted(const struct vf_slot *s, const struct vf_acquire *a);
/* Opens them; s is a's meanwhile, and vf_acquire_got or vf_acquire_missed the end of it. */
int vf_publish(struct vf_slot *s, struct vf_acquire *a, struct vf_error *err);
/* An adopted VM's again, as they were recorded. done: later, with its error if they are not open now; negative: no
 * done comes. */
int vf_publish_again(struct vf_slot *s, const struct vf_record *r, vf_done_cb done, void *arg,
                     struct vf_error *err);

/* --- traffic.c */
/* Every second: begins a pass over leased VMs if it is due. */
void vf_traffic_tick(struct vf_pools *p);
/* Before s is taken out of the leases. */
void vf_traffic_pass_by(struct vf_slot *s);
/* The factory's on_traffic. */
void vf_traffic_ended(void *arg, struct vf_instance *vm, const struct vf_net_stats *total);
/* No series of its own any more. */
void vf_traffic_forget(struct vf_slot *s);

/* --- show_network.c */
void vf_slot_write_network(struct vf_json_writer *w, const char *key, const struct vf_slot *s);

/* --- lease.c */
/* A claim of uid on a VM of pool begins or ends. Refused with VF_BUSY beyond the quotas. */
int vf_claim(struct vf_pool *pool, uid_t uid, struct vf_error *err);
/* The same for a lease that is there already: no quota is looked at. */
void vf_claim_kept(struct vf_pool *pool, uid_t uid);
void vf_unclaim(struct vf_pool *pool, uid_t uid);
/* Whether a lease may last that long. */
int vf_lease_check_ttl(const struct vf_pools *p, int64_t ttl_ms, struct vf_error *err);
/* Its lease begins: holder, journal, counts. On failure it is as before. */
int vf_lease_begin(struct vf_slot *s, struct vf_acquire *a, struct vf_error *err);
void vf_lease_expire(struct vf_pools *p);
int64_t vf_lease_next_expiry(const struct vf_pools *p);
void vf_lease_ended(struct vf_slot *s); /* counts and tells, as the slot goes */

/* --- adopt.c */
/* Calls p->ready, later. */
int vf_adopt_begin(struct vf_pools *p, struct vf_error *err);

/* --- show_runtimes.c */
/* The name of the runtime class that its generation was built with, or else that its spec gets; NULL: not known. */
const char *vf_pool_class(const struct vf_pool *pool);

/* --- heartbeat.c */
void vf_heartbeat_arm(struct vf_pools *p);

#endif

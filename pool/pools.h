/* All pools of a daemon: templates, parked VMs, leases. One loop, one thread.
 *
 *     vf_pools_open: store and factory open, what an earlier daemon left is adopted or cleaned up -> ready
 *     a spec is added -> a pool, empty -> warm: build, clone, prove, park -> acquire: lease -> release: gone
 *
 * A VM here is a vf_slot from the moment it is made:
 *
 *     making -> parked -> (waking) -> leased -> releasing -> gone        any -> releasing on failure
 *     making -> standby -> leased
 *
 * and its journal is RUN/vms/ID/vm.json (pool/journal.h), replaced before each step that matters.
 */
#ifndef VF_POOL_POOLS_H
#define VF_POOL_POOLS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>
#include "base/async.h"
#include "base/error.h"
#include "base/json.h"
#include "factory/factory.h"
#include "pool/events.h"
#include "pool/runtimes.h"
#include "pool/settings.h"
#include "pool/stats.h"

struct vf_caller; /* pool/http.h */
struct vf_pools;
struct vf_pool;
struct vf_slot;

/* --- life */
/* settings, events and stats stay the caller's and must outlive it. ready is called once adoption is over, before
 * stored templates are loaded; on an error of it, only close is left. */
int vf_pools_open(uv_loop_t *loop, const struct vf_settings *settings, struct vf_events *events,
                  struct vf_stats *stats, vf_done_cb ready, void *arg, struct vf_pools **ret,
                  struct vf_error *err);
/* Ends what nobody holds; leased VMs go on for the next daemon, or end too (settings.on_stop). Pending acquires end
 * with VF_CANCELLED. done comes last. */
void vf_pools_close(struct vf_pools *p, void (*done)(void *arg), void *arg);
/* Before closing, while answers can still be given: pending acquires end with VF_CANCELLED, new ones are refused so. */
void vf_pools_refuse(struct vf_pools *p);
/* *settings has changed. */
void vf_pools_settings_changed(struct vf_pools *p);
/* The runtime classes in force and the assets, pool/runtimes.h. */
struct vf_runtimes *vf_pools_runtimes(const struct vf_pools *p);

/* --- templates. done comes later; err names the field. */
/* Adds or replaces: the same spec again changes nothing; another one under the name is built anew at the next
 * warm or build, until then the old generation's clones are not used. *spec is taken over, and zeroed, unless it is
 * refused. VF_CONFLICT: template or class is being removed. Files are checked in a worker. */
int vf_pools_add(struct vf_pools *p, struct vf_spec *spec, vf_done_cb done, void *arg,
                 struct vf_error *err);
/* The first template whose spec names the class, or will once it is added; NULL: none. */
const char *vf_pools_class_user(const struct vf_pools *p, const char *class_name);
/* Destroys what is parked, removes generations, spec and pool; VF_CONFLICT while VMs of it are leased. */
int vf_pools_remove(struct vf_pools *p, const char *name, vf_done_cb done, void *arg,
                    struct vf_error *err);
/* VF_NOT_FOUND names the nearest. */
int vf_pools_find(struct vf_pools *p, const char *name, struct vf_pool **ret, struct vf_error *err);
struct vf_pool *vf_pools_next(struct vf_pools *p,
                              struct vf_pool *after); /* NULL: the first; by name */
const char *vf_pool_name(const struct vf_pool *pool);
const struct vf_spec *vf_pool_spec(const struct vf_pool *pool);
/* Starts building a generation in the background (or joins the build under way). */
int vf_pool_build(struct vf_pool *pool, struct vf_error *err);

/* --- a pool's own settings, kept in STATE/pools/NAME.json */
struct vf_pool_config {
    int64_t min,
        max;         /* of target, when it sizes itself, and when it is set: min <= target <= max */
    int64_t target;  /* VMs to keep parked */
    int64_t standby; /* VMMs to keep up and empty */
    int park;        /* enum vf_pool_park */
    int64_t refill_concurrency;    /* clones made at once to refill */
    int64_t start_concurrency;     /* clones and boots made at once for waiting callers */
    int64_t max_waiting;           /* callers that wait for one of those */
    int64_t max_age_s, max_clones; /* of a generation, before it is rotated; 0: no limit */
    int64_t max_leases;            /* of this template; 0: no limit */
    bool autosize;
};
enum vf_pool_park { VF_POOL_PARK_SPEC, VF_POOL_PARK_PAUSED, VF_POOL_PARK_RUNNING };
extern const char *const vf_pool_park_names[]; /* "spec", "paused", "running", NULL */
extern const struct vf_json_field vf_pool_config_fields[];
const struct vf_pool_config *vf_pool_config(const struct vf_pool *pool);
/* Checked (fields against each other), written to disk, then in force. */
int vf_pool_set(struct vf_pool *pool, const struct vf_pool_config *c, struct vf_error *err);
/* Sets target (0: as it is, but at least 1), ends a drain, and builds a generation if there is none. */
int vf_pool_warm(struct vf_pool *pool, int64_t count, struct vf_error *err);
/* No refill and no hand-out from now on; parked VMs are destroyed. Kept across restarts. */
int vf_pool_drain(struct vf_pool *pool, struct vf_error *err);

/* --- VMs */
#define VF_REQUIRE(got) (1u << (got))
struct vf_acquire_options {
    const char *template_name;
    unsigned require;   /* bits of VF_REQUIRE; 0: any source */
    int64_t timeout_ms; /* for all of it; 0: 30000 */
    int64_t ttl_ms;     /* of the lease; 0: none */
    /* What the caller brings for a template of the mode external; NULL: nothing. All of it is copied, descriptors too.
     * Refused with VF_INVALID_ARGUMENT for any other mode. */
    const struct vf_vm_options *network;
    /* Of this host, that lead to the guest, instead of the spec's; port 0: one of the daemon's range. At most
     * VF_PORTS_MAX, copied. Only for templates of the mode nat. */
    const struct vf_port *ports;
    int n_ports;
    bool has_ports; /* false: the spec's */
};
struct vf_acquire;
/* Exactly one of vm and err is set. retry_after_s > 0 with VF_BUSY. */
typedef void (*vf_acquire_cb)(void *arg, struct vf_slot *vm, const struct vf_error *err,
                              int retry_after_s);
/* 1: *ret_vm is leased already, and no callback comes; 0: done comes later, and *ret_req can be cancelled;
 * negative: refused (*ret_retry_after_s as above). */
int vf_pools_acquire(struct vf_pools *p, const struct vf_caller *who,
                     const struct vf_acquire_options *o, vf_acquire_cb done, void *arg,
                     struct vf_acquire **ret_req, struct vf_slot **ret_vm, int *ret_retry_after_s,
                     struct vf_error *err);
/* The caller has gone: no callback comes; what was made goes back or is destroyed. */
void vf_acquire_cancel(struct vf_acquire *req);
/* The caller never got the answer: the VM is destroyed. By id, for it may be gone. */
void vf_pools_unclaimed(struct vf_pools *p, const char *id);

/* The leased VM id, if who may see it; else VF_NOT_FOUND. */
int vf_pools_vm(struct vf_pools *p, const char *id, const struct vf_caller *who,
                struct vf_slot **ret, struct vf_error *err);
/* Leased VMs that who may see, oldest first; parked ones too if parked and who is an admin. */
struct vf_slot *vf_pools_next_vm(struct vf_pools *p, struct vf_slot *after,
                                 const struct vf_caller *who, bool parked);
/* ttl_ms 0: no end. */
int vf_slot_renew(struct vf_slot *vm, int64_t ttl_ms, struct vf_error *err);
/* Destroys it; done when nothing of it is left. A VM that who has released already: done at once (1). */
int vf_pools_release(struct vf_pools *p, const char *id, const struct vf_caller *who,
                     vf_done_cb done, void *arg, struct vf_error *err);
/* For exec: the agent of a leased VM; VF_VMM_DIED if it is dead, VF_BUSY while it is being adopted. The agent lives until
 * its streams were failed. */
int vf_slot_agent(struct vf_slot *vm, struct vf_agent **ret, struct vf_error *err);
const char *vf_slot_id(const struct vf_slot *vm);

/* --- as JSON; key NULL inside arrays and at the top. docs/openapi.yaml has the shapes */
void vf_pool_write_template(struct vf_json_writer *w, const char *key, const struct vf_pool *pool);
void vf_pool_write(struct vf_json_writer *w, const char *key, const struct vf_pool *pool);
/* key: error, or null. */
void vf_write_error(struct vf_json_writer *w, const char *key, const struct vf_error *err);
void vf_slot_write(struct vf_json_writer *w, const char *key, const struct vf_slot *vm);
/* Of each mode that has slots: whether VMs can have it here, and if not why. */
void vf_pools_write_networks(struct vf_json_writer *w, const char *key, const struct vf_pools *p);

/* --- for the ledger: processes of VMs, and the template's memory. Returns how many; at most max. */
struct vf_vm_process {
    pid_t pid;
    struct vf_stats_template *stats;
};
int vf_pools_processes(struct vf_pools *p, struct vf_vm_process *ret, int max);
/* Of a loaded generation; -1: none. */
int vf_pool_memory_fd(const struct vf_pool *pool);
struct vf_stats_template *vf_pool_stats(const struct vf_pool *pool);

#endif

/* The runtime classes in force, and the store of assets, as the daemon has them.
 *
 *     opened: the set is read (one that is bad: the daemon does not start) -> in force
 *     put, remove, reload: the set as it would be is checked and written, in a worker -> in force, or nothing has changed
 *     fetch: in the background, seen by asking again and in the events; verify, gc: in a worker
 *
 * Changes happen one at a time, in the order in which they were asked for. A set that is bad at the start is fatal, because
 * the built-in classes would run other binaries than those that were pinned; while the daemon runs it has a good one
 * to go on with.
 */
#ifndef VF_POOL_RUNTIMES_H
#define VF_POOL_RUNTIMES_H

#include <uv.h>
#include "base/async.h"
#include "base/error.h"
#include "pool/events.h"
#include "pool/settings.h"
#include "templates/assets.h"
#include "templates/registry.h"
#include "templates/store.h"

struct vf_runtimes;
struct vf_runtimes_config {
    uv_loop_t *loop;
    const struct vf_settings *settings; /* these three stay the caller's, and outlive it */
    struct vf_events *events;
    struct vf_store *store; /* of generations, which use assets */
    /* Another set is in force. */
    void (*changed)(void *arg);
    /* What was under way has ended, see vf_runtimes_busy. */
    void (*idle)(void *arg);
    /* The processes of VMs; malloc'd (NULL: none, or no memory: then *ret_n is -1). */
    pid_t *(*pids)(void *arg, int *ret_n);
    void *arg;
};
/* Blocking: reads the set, opens the store. */
int vf_runtimes_open(const struct vf_runtimes_config *cfg, struct vf_runtimes **ret,
                     struct vf_error *err);
/* Fetches are cancelled, what waits for its turn ends with VF_CANCELLED, nothing new is begun. */
void vf_runtimes_stop(struct vf_runtimes *rt);
/* Whether a worker or a fetch is under way; idle is called when that ends. */
bool vf_runtimes_busy(const struct vf_runtimes *rt);
/* Not while it is busy. NULL is fine. */
void vf_runtimes_free(struct vf_runtimes *rt);

/* In force; borrowed until the next turn of the loop. */
struct vf_registry *vf_runtimes_registry(const struct vf_runtimes *rt);
struct vf_asset_store *vf_runtimes_store(const struct vf_runtimes *rt);
/* The asset of that name; VF_NOT_FOUND with the nearest one. */
int vf_runtimes_asset(const struct vf_runtimes *rt, const char *name, const struct vf_asset **ret,
                      struct vf_error *err);

/* --- changes; done comes later, when the set is in force */
/* *c, *a are taken over and zeroed, unless it is refused. */
int vf_runtimes_put_class(struct vf_runtimes *rt, struct vf_class *c, vf_done_cb done, void *arg,
                          struct vf_error *err);
int vf_runtimes_remove_class(struct vf_runtimes *rt, const char *name, vf_done_cb done, void *arg,
                             struct vf_error *err);
/* One was asked for, and whether it is done is not known yet: nobody may begin to name the class. */
bool vf_runtimes_removes_class(const struct vf_runtimes *rt, const char *name);
int vf_runtimes_put_asset(struct vf_runtimes *rt, struct vf_asset *a, vf_done_cb done, void *arg,
                          struct vf_error *err);
int vf_runtimes_remove_asset(struct vf_runtimes *rt, const char *name, vf_done_cb done, void *arg,
                             struct vf_error *err);
/* Reads the files again. */
int vf_runtimes_reload(struct vf_runtimes *rt, vf_done_cb done, void *arg, struct vf_error *err);

/* --- the store */
/* What is there; by digest, valid during the call. err: then there are none. */
typedef void (*vf_runtimes_look_cb)(void *arg, const struct vf_asset_entry *entries, size_t n,
                                    const struct vf_error *err);
int vf_runtimes_look(struct vf_runtimes *rt, vf_runtimes_look_cb done, void *arg,
                     struct vf_error *err);
/* Hashes the asset's file for this host. VF_NOT_FOUND: no such asset, or it was not fetched. */
int vf_runtimes_verify(struct vf_runtimes *rt, const char *name, vf_done_cb done, void *arg,
                       struct vf_error *err);
/* Removes what no class, generation and process of a VM uses. entries: what was removed, or would be. */
int vf_runtimes_gc(struct vf_runtimes *rt, bool dry_run, vf_runtimes_look_cb done, void *arg,
                   struct vf_error *err);

/* --- fetches */
/* Begins one, or joins the one under way; it goes on in the background. VF_NOT_FOUND: no such asset. */
int vf_runtimes_fetch(struct vf_runtimes *rt, const char *name, struct vf_error *err);
struct vf_runtimes_fetching {
    bool running;
    int64_t done_bytes, total_bytes; /* 0: not known */
    int64_t attempts;                /* since the daemon's start */
    const struct vf_error *error;    /* of the last one; NULL: none */
};
void vf_runtimes_fetching(const struct vf_runtimes *rt, const char *name,
                          struct vf_runtimes_fetching *ret);

#endif

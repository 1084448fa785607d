/* The daemon's networks: opened from the settings, swept after adoption, kept in stock while pools want slots, closed.
 *
 *     open -> (adoption) -> sweep -> restock, one slot at a time, whenever one is wanted -> close
 *
 * Whatever blocks is in a worker, one at a time, but for open, which comes before the loop runs.
 */
#ifndef VF_POOL_NETWORKS_H
#define VF_POOL_NETWORKS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/async.h"
#include "net/networks.h"
#include "templates/spec.h"

struct vf_pools;

struct vf_pool_want { /* of which shape slots are kept ready */
    enum vf_network_mode mode;
    struct vf_net_shape shape;
};
struct vf_pool_networks {
    struct vf_networks *all; /* NULL: none */
    bool off; /* by the settings; `all` may be there for what an earlier daemon left */
    struct vf_pool_want *wants;
    int n_wants;
    bool stale; /* wants are to be found out anew */
    struct vf_work work;
    bool restocking, more;
    int failures;     /* in a row */
    int64_t retry_us; /* not before */
    struct vf_sweep swept;
    void (*done)(struct vf_pools *p); /* of the sweep */
};

/* Blocks. Refused if the settings say `on` and no slot can be had, or if a prefix is bad or in use on this host;
 * under `auto` whatever else is in the way is logged. Under `off` leases of an earlier daemon keep their slots. */
int vf_pools_open_networks(struct vf_pools *p, struct vf_error *err);
/* Removes what no adopted VM uses, and logs what came of it. done: later, or at once if there is nothing to do. */
void vf_pools_sweep_networks(struct vf_pools *p, void (*done)(struct vf_pools *p));
/* Begins to make a slot if one is wanted and none is being made. */
void vf_pools_restock_networks(struct vf_pools *p);
/* Nothing of it is used any more. done: later. */
void vf_pools_close_networks(struct vf_pools *p, void (*done)(struct vf_pools *p));
void vf_pools_publish_networks(struct vf_pools *p); /* gauges */
/* Of a mode that has slots: whether it can be had, and if not why. Never blocks. */
int vf_pools_check_mode(const struct vf_pools *p, enum vf_network_mode mode, struct vf_error *err);
/* Whether VMs of the spec can have their network here. Never blocks. VF_INVALID_ARGUMENT names network.… */
int vf_pools_check_network(const struct vf_pools *p, const struct vf_spec *spec,
                           struct vf_error *err);

#endif

/* The networks this host offers to its VMs: routed slots (nat) and slots on a bridge, some of each kept ready.
 *
 *     open -> adopt what VMs of an earlier run use -> sweep the rest -> restock -> take … give back -> restock
 *
 * What blocks is for worker threads, any number at once. A mode that can't be had
 * here (no privilege, no forwarding, not configured) is refused with its reason each time it is asked for, and the others work.
 */
#ifndef VF_NET_NETWORKS_H
#define VF_NET_NETWORKS_H

#include "base/vm_types.h"
#include "net/slot.h"

struct vf_networks_config {
    const char *run_dir;         /* absolute, for records: nat/ and bridge/ are made in it */
    const char *netns_dir;       /* NULL: VF_NETNS_DIR */
    const char *const *prefixes; /* of nat, NULL-ended; NULL: nat can't be had */
    const char *bridge;          /* NULL: bridge can't be had */
    const char *const *bridge_prefixes, *const *bridge_gateways; /* NULL-ended */
    bool set_forwarding; /* switch the host's forwarding on if it is off, instead of refusing */
    int ahead;           /* slots kept ready of each shape that was asked for */
    int first_port, last_port; /* of the host, for ports that leave the choice to us */
};

struct vf_networks;
/* VF_INVALID_ARGUMENT, VF_CONFLICT: the configuration, or that the host uses these prefixes; whatever else makes a mode
 * impossible is remembered (vf_networks_check). */
int vf_networks_open(const struct vf_networks_config *cfg, struct vf_networks **ret,
                     struct vf_error *err);
/* Ready slots are destroyed; taken ones stay for the next run, and were forgotten. */
void vf_networks_close(struct vf_networks *n);
/* Whether slots of that mode can be had, and if not why. Never blocks. */
int vf_networks_check(const struct vf_networks *n, enum vf_network_mode mode, struct vf_error *err);

/* A slot of that shape: a ready one, or one made now. VF_BUSY: every address is taken. */
int vf_networks_take(struct vf_networks *n, enum vf_network_mode mode,
                     const struct vf_net_shape *shape, struct vf_net **ret, struct vf_error *err);
/* That many of a shape are wanted from now on; the shape is remembered, 0 forgets it. Never blocks. */
void vf_networks_want(struct vf_networks *n, enum vf_network_mode mode,
                      const struct vf_net_shape *shape, int ready);
/* Makes one slot that is wanted. *ret_more: others are wanted, too. */
int vf_networks_restock(struct vf_networks *n, bool *ret_more, struct vf_error *err);
/* Whether any is wanted. Never blocks. */
bool vf_networks_short(const struct vf_networks *n);

/* As vf_net_adopt and vf_nets_sweep, of a mode and of all. */
int vf_networks_adopt(struct vf_networks *n, enum vf_network_mode mode, int number,
                      struct vf_net **ret, struct vf_error *err);
int vf_networks_sweep(struct vf_networks *n, struct vf_sweep *ret, struct vf_error *err);
/* Opens ports of the host that lead to the guest; port 0: a free one of the range. ret (n of them): as they are. All or
 * nothing; VF_CONFLICT: a port is in use. Those of an earlier call are closed. */
int vf_networks_publish(struct vf_networks *n, struct vf_net *slot, const struct vf_port *ports,
                        int n_ports, struct vf_port *ret, struct vf_error *err);
/* Of one mode; zeros if it can't be had. Never blocks. */
void vf_networks_counts(const struct vf_networks *n, enum vf_network_mode mode,
                        struct vf_nets_counts *ret);

#endif

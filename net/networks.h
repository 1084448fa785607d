/* The networks this host offers to its VMs: routed slots (nat) and slots on a bridge, some of each kept ready.
 *
 *     open -> adopt what VMs of an earlier run use -> sweep the rest -> restock -> take … give back -> restock
 *
 * What blocks is for worker threads, any number at once; the others take a lock that nobody holds for long. A mode that
 * can't be had here (no privilege, no forwarding, a kernel without something, not configured) is refused with its reason
 * each time it is asked for, and the others work.
 *
 * Slots of nat are named vf-7 and recorded in run_dir/nat, those on a bridge vfb-7 and in run_dir/bridge.
 */
#ifndef VF_NET_NETWORKS_H
#define VF_NET_NETWORKS_H

#include "base/vm_types.h"
#include "net/slot.h"

struct vf_networks_config {
    const char *run_dir;         /* absolute, for records: nat/ and bridge/ are made in it */
    const char *netns_dir;       /* NULL: VF_NETNS_DIR */
    const char *const *prefixes; /* of nat, NULL-ended; NULL or empty: nat can't be had */
    const char *bridge;          /* NULL: bridge can't be had */
    const char *const *bridge_prefixes, *const
                                            *bridge_gateways; /* NULL-ended; gateways may be NULL */
    bool set_forwarding; /* switch the host's forwarding on if it is off, instead of refusing */
    int ahead;           /* slots kept ready of each shape that was taken, until told otherwise */
    int first_port, last_port; /* of the host, for ports that leave the choice to us; 0: none */
    bool
        adopt_only; /* off: what an earlier run left is adopted, swept and destroyed as it comes back; no mode can be had */
};
/* Blocks. Whether an earlier run with this configuration left slots. */
bool vf_networks_left(const struct vf_networks_config *cfg);

struct vf_networks;
/* Blocks. VF_INVALID_ARGUMENT, VF_CONFLICT: the configuration, or that the host uses these prefixes; that is told without
 * privileges, too; with adopt_only it is the mode's reason like all else. Whatever else makes a mode impossible is
 * remembered (vf_networks_check): it may open with no mode at all. */
int vf_networks_open(const struct vf_networks_config *cfg, struct vf_networks **ret,
                     struct vf_error *err);
/* Blocks. Ready slots are destroyed; taken ones stay for the next run, and were forgotten. n may be NULL. */
void vf_networks_close(struct vf_networks *n);
/* Whether slots of that mode can be had, and if not why: VF_UNSUPPORTED, VF_PERMISSION, … Modes without slots can. Never
 * blocks. */
int vf_networks_check(const struct vf_networks *n, enum vf_network_mode mode, struct vf_error *err);

/* Blocks unless one is ready. A slot of that shape: a ready one, or one made now, for which a ready one of another shape
 * gives way if need be. VF_BUSY: every address is taken. Given back by vf_net_give_back. */
int vf_networks_take(struct vf_networks *n, enum vf_network_mode mode,
                     const struct vf_net_shape *shape, struct vf_net **ret, struct vf_error *err);
/* That many of a shape are wanted from now on; 0 forgets the shape, and its ready slots go in the next restocks. Of more
 * than 64 shapes the one not taken for longest is forgotten. Never blocks. */
void vf_networks_want(struct vf_networks *n, enum vf_network_mode mode,
                      const struct vf_net_shape *shape, int ready);
/* Blocks. Makes one slot that is wanted, or destroys one that has long ceased to be. *ret_more: there is more to do. After a failure the
 * shape is left alone for a while (1 s, doubled up to 60 s), and is not short meanwhile. */
int vf_networks_restock(struct vf_networks *n, bool *ret_more, struct vf_error *err);
/* Whether restock has something to do. Never blocks. */
bool vf_networks_short(const struct vf_networks *n);

/* Block. As vf_net_adopt and vf_nets_sweep, of a mode and of all. Nothing may be taken or made before the sweep is over. */
int vf_networks_adopt(struct vf_networks *n, enum vf_network_mode mode, int number, int netns,
                      struct vf_net **ret, struct vf_error *err);
int vf_networks_sweep(struct vf_networks *n, struct vf_sweep *ret, struct vf_error *err);
/* Blocks. As vf_nets_have, of all modes: such a namespace is nobody's to bring. */
bool vf_networks_have(struct vf_networks *n, int netns, char ret_name[VF_LINK_NAME]);
/* Blocks. As vf_net_publish. */
int vf_networks_publish(struct vf_networks *n, struct vf_net *slot, const struct vf_port *ports,
                        int n_ports, struct vf_port *ret, struct vf_error *err);
/* Of one mode; zeros if it can't be had. Never blocks. */
void vf_networks_counts(const struct vf_networks *n, enum vf_network_mode mode,
                        struct vf_nets_counts *ret);

#endif

/* Network slots: a namespace with a tap, a way out and rules, made ahead, used by one VM at a time, and recycled.
 *
 *     making -> ready -> taken -> (recycled -> ready | destroyed)
 *
 *         slot's namespace vf-7                     host's namespace
 *     guest -- tap0 | gateway ... rules ... host0 -- vf-7 | rules | the world
 *     172.31.255.2    172.31.255.1     10.210.0.15   10.210.0.14
 *     the same in every clone                    unique
 *
 * Taking a ready slot makes no system call. Everything else blocks (making 1 ms, giving back less than 3 ms, destroying
 * tens of ms): for worker threads, any number at once, each slot in one thread at a time. A slot that is given back is
 * wiped and compared with what it must be, and destroyed on any doubt.
 *
 * What a slot is made of survives the daemon. Before anything is made, a record is written (RUN/net/7.json), and it is
 * removed last. So after a crash: vf_nets_open, vf_net_adopt for what VMs still use, vf_nets_sweep for the rest.
 * Names like ours without a record are somebody else's, and left alone.
 */
#ifndef VF_NET_SLOT_H
#define VF_NET_SLOT_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "net/address.h"
#include "net/link.h"
#include "net/netns.h"
#include "net/rules.h"

struct vf_nets_config {
    const char *run_dir;         /* records: absolute, made if need be; a tmpfs is best */
    const char *netns_dir;       /* NULL: VF_NETNS_DIR */
    const char *prefix;          /* of names; at most 8 bytes. NULL: "vf-" */
    const char *table;           /* the host's table. NULL: VF_NET_TABLE */
    const char *const *prefixes; /* addresses, NULL-ended: "10.210.0.0/16", "fd76:6d01::/48" */
    const char *bridge; /* slots hang on this bridge instead of being routed. NULL: routed */
    const char *const *gateways; /* with a bridge: the routers of its network, NULL-ended */
    bool set_forwarding;         /* routed: switches the host's forwarding on if it is off */
    int first_port, last_port;   /* of the host, for vf_net_publish to choose from; 0: none */
};

/* Slots of one shape can stand in for each other. */
struct vf_net_shape {
    struct vf_tap_shape tap;
    int mtu;
    struct vf_mac guest_mac;
};
extern const struct vf_net_shape
    vf_net_shape_default; /* one queue, offloads, by descriptor, 1500 */
bool vf_net_same_shape(const struct vf_net_shape *a, const struct vf_net_shape *b);

struct vf_nets;
/* VF_PERMISSION without CAP_NET_ADMIN; VF_CONFLICT: the prefixes are in use on this host (told without privileges,
 * too); VF_UNSUPPORTED: the host does not forward, the kernel lacks something. */
int vf_nets_open(const struct vf_nets_config *cfg, struct vf_nets **ret, struct vf_error *err);
/* Destroys ready slots, and the host's table if no slot is left at all; taken ones stay as they are, and their handles
 * (vf_net_forget) must be gone. */
void vf_nets_close(struct vf_nets *s);

struct vf_nets_counts {
    int capacity;
    int making, ready, taken, dirty; /* dirty: given back, not ready yet */
    uint64_t made, recycled, destroyed;
    uint64_t doubts; /* of destroyed: they did not look as they must */
};
void vf_nets_counts(struct vf_nets *s, struct vf_nets_counts *ret);

/* ---- a slot */
struct vf_net;

/* Blocks. Makes a slot, and puts it with the ready ones. VF_BUSY: no address is free. */
int vf_net_make(struct vf_nets *s, const struct vf_net_shape *shape, struct vf_error *err);
/* Never blocks. VF_NOT_FOUND: none of this shape is ready; make one. */
int vf_net_take(struct vf_nets *s, const struct vf_net_shape *shape, struct vf_net **ret,
                struct vf_error *err);
/* Blocks, for a slot that was taken: what this lease may do. Without it, the default. On failure the slot is as it was
 * but for what the error says, and best given back. VF_CONFLICT: a host port is in use. */
int vf_net_set(struct vf_net *slot, const struct vf_policy *policy, struct vf_error *err);
/* Blocks. The host's ports that lead to the guest, instead of those of before; the rest of the policy stays. One batch,
 * all or nothing. Port 0: a free one of the configured range; ret (n of them; may be NULL, or ports): as they are.
 * VF_CONFLICT: a port leads to another VM, or the host itself uses it. VF_BUSY: none of the range is free. VF_UNSUPPORTED: on
 * a bridge, unless n is 0. */
int vf_net_publish(struct vf_net *slot, const struct vf_port *ports, int n, struct vf_port *ret,
                   struct vf_error *err);

/* Blocks. The VMM has opened the tap by its name: from now on the guest gets what is sent to it. Until the kernel has
 * noticed by itself, it drops that. */
int vf_net_settle(struct vf_net *slot, struct vf_error *err);

struct vf_net_stats {
    uint64_t in_packets, in_bytes, in_dropped;    /* to the guest */
    uint64_t out_packets, out_bytes, out_dropped; /* from the guest */
    uint64_t refused[VF_REFUSAL_COUNT];
};
/* Blocks. Since the slot was taken. */
int vf_net_stats(struct vf_net *slot, struct vf_net_stats *ret, struct vf_error *err);
/* Blocks. The VM is gone. slot is no more the caller's. ret (may be NULL): its last stats. An error tells why the slot
 * was destroyed; the caller has nothing to do about it. */
int vf_net_give_back(struct vf_net *slot, struct vf_net_stats *ret, struct vf_error *err);
/* Blocks. Destroys it instead, e.g. as it may be broken; whatever can't be removed is the next sweep's. */
int vf_net_destroy(struct vf_net *slot, struct vf_error *err);

/* What the factory and a VMM need of a taken slot; valid until it is given back. */
struct vf_net_info {
    int number;           /* for the VM's record, and vf_net_adopt */
    const char *name;     /* vf-7: of the namespace and of the host's interface */
    char netns_path[128]; /* /run/netns/vf-7; to be entered by the launcher */
    const char *tap;      /* tap0, for VMMs that open it by name inside */
    const int *tap_fds;   /* for VMMs that are given it; n_tap_fds 0: by name */
    int n_tap_fds;
    struct vf_ip host4,
        host6; /* the address under which the host reaches the guest; family 0: none */
    const struct vf_port *ports; /* of the host that lead to the guest */
    int n_ports;
    struct vf_net_shape shape;
};
void vf_net_info(const struct vf_net *slot, struct vf_net_info *ret);
/* Blocks. Whether a namespace, of which netns is a descriptor, is that of a slot here, in whatever state: then its name. */
bool vf_nets_have(struct vf_nets *s, int netns, char ret_name[VF_LINK_NAME]);
/* The VMM has its descriptors: ours are closed. */
void vf_net_close_fds(struct vf_net *slot);

/* ---- after a start */
/* Blocks. A slot that a VM of an earlier run uses: taken, its policy and ports as they were. netns: the namespace that the VM
 * is in, opened by the caller (/proc/PID/ns/net), in case that its name is gone, as with a mount namespace that ended
 * with the daemon: it is kept under its name again; -1: it must be there. VF_NOT_FOUND: there is no such slot; VF_CONFLICT: netns
 * is another one. */
int vf_net_adopt(struct vf_nets *s, int number, int netns, struct vf_net **ret,
                 struct vf_error *err);
/* Leaves a taken slot as it is, for a later adoption. */
void vf_net_forget(struct vf_net *slot);

struct vf_sweep {
    int removed;     /* slots */
    int failed;      /* of them some part stayed */
    int foreign;     /* names like ours without a record, left alone */
    char names[256]; /* the first of those, separated by spaces */
};
/* Blocks. Removes what has a record and was not adopted, and takes notice of what is foreign. */
int vf_nets_sweep(struct vf_nets *s, struct vf_sweep *ret, struct vf_error *err);

#endif

/* A VM's network, inside the factory: its slot or what was brought for it, from the first step to the last
 * (network.c), what is asked of it meanwhile (network_ask.c), and what its spec means (network_spec.c).
 */
#ifndef VF_FACTORY_NETWORK_H
#define VF_FACTORY_NETWORK_H

#include "factory/factory.h"
#include "vmm/vmm.h"

struct vf_net_job;

/* A part of struct vf_instance. */
struct vf_instance_net {
    struct vf_net *slot;                     /* NULL: none. A worker's while one runs */
    bool known;                              /* the loop has heard of it: info is set */
    struct vf_net_info info;                 /* of slot; what it points to goes with the slot */
    char name[16];                           /* its name, until the VM goes */
    int netns_fd;                            /* where the VMM is to run, until it does; -1 */
    char *netns;                             /* of the mode external: its path; NULL: ours */
    int taps[VF_VM_MAX_QUEUE_PAIRS], n_taps; /* the same: our copies, until it is ready */
    int adopt_number;                        /* of the slot it had; -1 */
    struct vf_port ports[VF_PORTS_MAX];      /* published */
    int n_ports;
    struct vf_net_job *jobs; /* asked of the slot, in order; the first is a worker's */
    bool again;              /* what was brought is kept as it is taken apart: it begins anew */
    bool has_total;          /* total is what it had sent and received at its end */
    struct vf_net_stats total;
};

/* --- network.c. Blocking: for the worker of a step, or of teardown */
/* Refuses what the spec and the options want and can't be had, and takes what is the caller's to keep. Never blocks. */
int vf_instance_net_begin(struct vf_instance *vm, const struct vf_vm_options *o,
                          struct vf_error *err);
/* The same for a VM that is adopted; nothing is refused yet. */
int vf_instance_net_begin_adopted(struct vf_instance *vm, const struct vf_adopt *a,
                                  struct vf_error *err);
/* Whether its NIC is in a slot: of nat and bridge, or of a template that is built for what others will bring. */
bool vf_instance_net_in_slot(const struct vf_instance *vm);
/* Takes a slot and sets its policy, or opens what was brought. Blocking. */
int vf_instance_net_take(struct vf_instance *vm, struct vf_error *err);
/* Takes the slot again that the VM's process runs in. Blocking. */
int vf_instance_net_adopt(struct vf_instance *vm, struct vf_error *err);
/* The worker has ended: the loop looks at what it took. */
void vf_instance_net_note(struct vf_instance *vm);
/* Fills in NIC and namespace. */
void vf_instance_net_describe(const struct vf_instance *vm, struct vf_vm_config *ret);
/* The VMM is in its namespace. */
void vf_instance_net_handed(struct vf_instance *vm);
/* The VMM has its taps, and nothing is begun again: ours are closed. Not before, for the last to close a tap waits for
 * the kernel; if the VMM dies as it comes up, that is the worker that takes the VM apart (vf_instance_net_end). */
void vf_instance_net_close_taps(struct vf_instance *vm);
/* Gives the slot back; ended: the VM's process is known to be gone, else the slot is cut off for good. Blocking. */
void vf_instance_net_end(struct vf_instance *vm, bool ended);
/* Leaves the slot to whoever adopts the VM. */
void vf_instance_net_forget(struct vf_instance *vm);
/* Its recipe begins anew. */
void vf_instance_net_again(struct vf_instance *vm);
void vf_instance_net_free(struct vf_instance *vm);

/* --- network_ask.c */
/* Whether the VMM opens its tap by itself. */
bool vf_instance_net_must_settle(const struct vf_instance *vm);
/* It has: the guest's first packet is not to be lost. */
int vf_instance_net_settle(struct vf_instance *vm, vf_done_cb done, void *arg,
                           struct vf_error *err);

/* --- network_spec.c */
/* Of a lease, but for the ports, which are published later. */
int vf_network_policy(const struct vf_spec *s, struct vf_policy *ret, struct vf_error *err);
bool vf_network_policy_is_default(const struct vf_policy *p);
int vf_network_mtu(const struct vf_spec *s);
/* Queue pairs of the NIC, in a template and in its clones. */
int vf_network_queues(const struct vf_spec *s, const struct vf_vmm_caps *caps);

#endif

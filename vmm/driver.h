/* For drivers only: what vf_vm holds, and how a driver reports back.
 *
 * A driver embeds struct vf_vm first in its own. Its ops start something and return; later, never
 * from within the op, it reports by vf_vm_op_done. The front (vmm.c) owns deadlines, states and
 * callbacks, so that a driver can't answer twice or after the end. Reports that come when nothing
 * waits for them (after a deadline or a cancel) are dropped.
 */
#ifndef VF_VMM_DRIVER_H
#define VF_VMM_DRIVER_H

#include "vmm/vmm.h"

enum vf_vm_op {
    VF_VM_OP_NONE,
    VF_VM_OP_CREATE,
    VF_VM_OP_START,
    VF_VM_OP_PAUSE,
    VF_VM_OP_SAVE,
    VF_VM_OP_RESTORE,
    VF_VM_OP_RESUME,
    VF_VM_OP_BALLOON,
    VF_VM_OP_QUERY,
    VF_VM_OP_ADOPT,
    VF_VM_OP_COUNT
};

#define VF_VM_LAST_WORDS 4096

struct vf_vm_words {
    char ring[VF_VM_LAST_WORDS];
    size_t total;
    char text[VF_VM_LAST_WORDS + 1];
};

struct vf_vm {
    const struct vf_vmm_ops *ops;
    uv_loop_t *loop;
    vf_vm_event_cb on_event;
    void *event_arg;
    struct vf_vm_info info; /* drivers keep pid, version, accel, memory_size and balloon current */
    char id[64];

    enum vf_vm_op op; /* under way */
    vf_done_cb op_done;
    void *op_arg;
    uv_timer_t timer; /* deadline of op; grace of stop */
    bool timer_open;

    bool incoming; /* created to be restored */
    bool saved;    /* and has not run since */
    bool exited;
    bool stopping;
    vf_done_cb stop_done;
    void *stop_arg;

    bool close_begun; /* the driver closes its handles */
    int closing;      /* of those how many are still to be closed */

    struct vf_vm_words *words; /* of what the VMM or its console said; NULL: nothing yet */
};

/* The operation under way has ended; err NULL: well. */
void vf_vm_op_done(struct vf_vm *vm, const struct vf_error *err);
void vf_vm_emit(struct vf_vm *vm, enum vf_vm_event_type type, const char *detail);
/* The process ended (reaped); how: "exited with status 1". Call once, also while stopping. */
void vf_vm_process_exited(struct vf_vm *vm, const char *how);
/* After stop: no process is left and all of the driver's handles are closed. */
void vf_vm_gone(struct vf_vm *vm);
/* The same for a driver of many handles. It closes all of them between the two, and adds to vm->closing one for each
 * whose close callback is to come; that calls vf_vm_handle_closed (vm: void, to be such a callback itself). With the
 * last the VM is gone. begin: false if it was called before. */
bool vf_vm_close_begin(struct vf_vm *vm);
void vf_vm_handle_closed(void *vm);
void vf_vm_close_end(struct vf_vm *vm);
/* Its namespace and its NICs (nics.c); name: the driver's. The front does it before create. */
int vf_vm_check_network(const struct vf_vm_config *c, const struct vf_vmm_caps *caps,
                        const char *name, struct vf_error *err);
/* Whether the VMM needs a privilege to open its taps. */
bool vf_vm_needs_net_admin(const struct vf_vm_config *c);
/* Keeps the last of what was said. */
void vf_vm_say(struct vf_vm *vm, const char *text, size_t len);

extern const struct vf_vmm_ops vf_qemu_ops;
extern const struct vf_vmm_ops vf_firecracker_ops;
extern const struct vf_vmm_ops vf_cloud_hypervisor_ops;
extern const struct vf_vmm_ops vf_null_ops;

#endif

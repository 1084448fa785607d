/* Descriptors that a driver reads from as there is something: what a VMM says on its stderr, a guest on its console, or
 * a VMM's events. For drivers only.
 */
#ifndef VF_VMM_PIPE_H
#define VF_VMM_PIPE_H

#include "vmm/driver.h"

struct vf_vmm_pipe {
    int fd; /* non-blocking; -1: none */
    struct vf_vm *vm;
    uv_poll_t poll;
    bool open; /* poll is an open handle */
    void (*on_readable)(struct vf_vmm_pipe *p);
};

/* Takes p->fd over, also on failure; with none it does nothing. on_readable reads, and may close p. */
int vf_vmm_pipe_open(struct vf_vmm_pipe *p, struct vf_vm *vm,
                     void (*on_readable)(struct vf_vmm_pipe *p), struct vf_error *err);
/* One of those: takes what is there, at most a pipe's worth, into the VM's last words. */
void vf_vmm_pipe_say(struct vf_vmm_pipe *p);
/* Between vf_vm_close_begin and vf_vm_close_end of its VM, whose handles it is one of. */
void vf_vmm_pipe_close(struct vf_vmm_pipe *p);

#endif

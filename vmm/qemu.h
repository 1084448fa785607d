/* The QEMU driver's own parts: qemu.c (life cycle), qemu_migrate.c (save and restore), qemu_args.c
 * (the command line). QEMU 7.2 and later, machines microvm and q35. */
#ifndef VF_VMM_QEMU_H
#define VF_VMM_QEMU_H

#include "vmm/driver.h"
#include "vmm/process.h"
#include "vmm/qmp.h"

#define VF_QEMU_MAX_ARGS 96

/* The descriptors QEMU inherits; listeners carry their chardevs. -1: none. */
struct vf_qemu_fds {
    int qmp, agent, console, memory;
};

/* A command line under construction. Strings are owned. */
struct vf_qemu_args {
    char *argv[VF_QEMU_MAX_ARGS + 1];
    int argc;
    bool failed;
    int fds[VF_LAUNCH_MAX_FDS];
    int n_fds;
};
/* accel: KVM or TCG. */
int vf_qemu_args_build(struct vf_qemu_args *a, const struct vf_vm_config *c, enum vf_accel accel,
                       const struct vf_qemu_fds *fds, struct vf_error *err);
void vf_qemu_args_free(struct vf_qemu_args *a);

/* Bytes of a stream that only end up in the last words: QEMU's stderr, the guest's console. */
struct vf_qemu_tail {
    int fd;
    uv_poll_t poll;
    bool open;
};

struct vf_qemu {
    struct vf_vm vm; /* first */
    struct vf_process process;
    struct vf_qmp qmp;
    struct vf_qemu_tail output, console;
    int64_t launched_us;
    bool launched, balloon, migrating, migration_failed;
    int closing; /* handles whose close callback is still to come */
    bool close_begun;
    int dirfd;        /* the VM's directory, to remove the sockets from; -1: not created */
    unsigned sockets; /* which were made, bits */
};

/* Ends the operation under way. An error that only says that the connection is gone is held back: the
 * process's end, or its silence, says more (see on_broken in qemu.c). */
void vf_qemu_op_done(struct vf_qemu *q, const struct vf_error *err);
/* For qemu.c: the MIGRATION event, passed on while a save or restore is under way. */
void vf_qemu_on_migration(struct vf_qemu *q, const char *status);
int vf_qemu_save(struct vf_vm *vm, int dirfd, struct vf_error *err);
int vf_qemu_restore(struct vf_vm *vm, int dirfd, struct vf_error *err);

#endif

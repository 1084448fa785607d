/* The QEMU driver's own parts: qemu.c (life cycle), qemu_adopt.c (one that runs already), qemu_migrate.c (save
 * and restore), qemu_args.c (the command line). QEMU 7.2 and later, machines microvm and q35. */
#ifndef VF_VMM_QEMU_H
#define VF_VMM_QEMU_H

#include "vmm/driver.h"
#include "vmm/pipe.h"
#include "vmm/process.h"
#include "vmm/qmp.h"

#define VF_QEMU_MAX_ARGS 96
#define VF_QEMU_STATE_FILE "state" /* what a save writes */

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

/* What lies in the VM's directory, as bits of vf_qemu.files. */
enum vf_qemu_file {
    VF_QEMU_QMP_SOCKET,
    VF_QEMU_AGENT_SOCKET,
    VF_QEMU_CONSOLE_SOCKET,
    VF_QEMU_RECORD,
    VF_QEMU_FILE_COUNT
};
extern const char *const vf_qemu_file_names[];

struct vf_qemu {
    struct vf_vm vm; /* first */
    struct vf_process process;
    struct vf_qmp qmp;
    struct vf_vmm_pipe output, console;
    int64_t launched_us;
    bool launched, adopted, balloon, migrating, migration_failed;
    int dirfd;      /* the VM's directory, to remove its files from; -1: not created */
    unsigned files; /* which of its files are there to be removed, bits */
};

/* Ends the operation under way. An error that only says that the connection is gone is held back: the
 * process's end, or its silence, says more (see on_broken in qemu.c). */
void vf_qemu_op_done(struct vf_qemu *q, const struct vf_error *err);
/* Watches the process and opens its channels; takes the descriptors over, also on failure. output and console
 * may be -1. */
int vf_qemu_open_handles(struct vf_qemu *q, int qmp, int output, int console, struct vf_error *err);
int vf_qemu_adopt(struct vf_vm *vm, const struct vf_vm_adopt *a, struct vf_error *err);
/* For qemu.c: an adopted QEMU has greeted. */
int vf_qemu_ask_adopted(struct vf_qemu *q, struct vf_error *err);
/* For qemu.c: the MIGRATION event, passed on while a save or restore is under way. */
void vf_qemu_on_migration(struct vf_qemu *q, const char *status);
int vf_qemu_save(struct vf_vm *vm, int dirfd, struct vf_error *err);
int vf_qemu_restore(struct vf_vm *vm, int dirfd, struct vf_error *err);

#endif

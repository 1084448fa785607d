/* The conformance suite: what every driver does, whatever VMM is behind it. conformance.c has the life
 * a VM should have, conformance_ends.c how it may end, conformance_input.c what it may be given.
 *
 * Each test is written once, static void name(struct fixture *f), and FOR_EACH_TARGET(name) makes it
 * a test of each of the suites conformance_null, conformance_qemu_kvm_tiny, ….
 */
#ifndef VF_TESTS_E2E_CONFORMANCE_H
#define VF_TESTS_E2E_CONFORMANCE_H

#include "tests/e2e/support.h"

struct fixture {
    struct sup s;
    const struct sup_target *t;
    int scratch_fd;            /* memory of VMs whose content nobody asks for later */
    int saved_fd, saved_dirfd; /* a template, made by the first that needs it; -1 before */
    int serial;
};

/* Skips the test loudly if the target can't run here. */
void fixture_run(const struct sup_target *t, const char *suite, const char *name,
                 void (*body)(struct fixture *f));

/* A VM brought to where op is allowed, but not further. */
struct sup_vm *ready_for(struct fixture *f, enum vf_vm_op op);
/* A clone of the fixture's template, created. */
struct sup_vm *fresh_clone(struct fixture *f);
/* The directory op needs: a fresh one for a save (closed by done_dir), the template's for a restore. */
int dir_for(struct fixture *f, enum vf_vm_op op);
void done_dir(struct fixture *f, int dirfd);
const char *op_name(enum vf_vm_op op);
/* How op ends where it should end well: the tiny guest has no balloon driver, without which Firecracker takes no
 * target; that is no harm. */
enum vf_code good_end(const struct fixture *f, enum vf_vm_op op);

#define ONE_TARGET(target, name, seconds)                                \
    Test(conformance_##target, name, .timeout = seconds)                 \
    {                                                                    \
        fixture_run(&sup_##target, "conformance_" #target, #name, name); \
    }
#define FOR_EACH_TARGET(name) \
    FOR_EACH_TINY(name)       \
    ONE_TARGET(qemu_tcg_linux, name, 360)
/* Where a guest with a kernel, which takes long to boot, would show nothing more. */
#define FOR_EACH_TINY(name)                 \
    ONE_TARGET(null, name, 120)             \
    ONE_TARGET(qemu_kvm_tiny, name, 240)    \
    ONE_TARGET(qemu_tcg_tiny, name, 240)    \
    ONE_TARGET(firecracker_tiny, name, 240) \
    ONE_TARGET(cloud_hypervisor_tiny, name, 240)
/* What a channel of another kind could change. */
#define FOR_EACH_VSOCK(name)                           \
    ONE_TARGET(cloud_hypervisor_tiny_vsock, name, 240) \
    ONE_TARGET(firecracker_tiny_vsock, name, 240)

#endif

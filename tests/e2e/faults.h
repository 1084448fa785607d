/* What the tests of a driver's faults share: VMs whose VMM is a stand-in that misbehaves as its name says
 * (tests/fakes/fake-DRIVER.c).
 */
#ifndef VF_TESTS_E2E_FAULTS_H
#define VF_TESTS_E2E_FAULTS_H

#include "tests/e2e/support.h"

#define SHORT_MS 300 /* the deadline of what is to run into it */

struct faults {
    struct sup s;
    const struct sup_target *t;
    int memory_fd;
    int serial;
    char binary[256];
};

void faults_open(struct faults *f, const struct sup_target *t);
void faults_close(struct faults *f);
/* Another memory, for VMs to come: the one before holds what was saved into it. */
void fresh_memory(struct faults *f);
/* A VM of fake-DRIVER-mode, not yet created. */
struct sup_vm *new_fake(struct faults *f, const char *mode);
/* To be restored, into memory of its own. */
void as_clone(struct sup_vm *v);
/* A whole life, of an original or a clone; returns the first operation that failed, or NONE. */
enum vf_vm_op live(struct sup_vm *v, int dirfd, bool clone, int64_t timeout_ms);

#endif

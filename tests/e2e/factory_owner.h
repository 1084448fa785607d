/* A process of ours that leaves VMs behind: it makes them, tells what they proved, and is killed.
 *
 *     struct owner o;
 *     owner_leave(&f, "tiny", false, &o);    // f is shut, and open again afterwards
 *     vm = owner_adopt(&f, &o, LEFT_CLONE, false, gen);
 *
 * This process becomes the parent of what is left (PR_SET_CHILD_SUBREAPER), so that fac_close sees all of it.
 */
#ifndef VF_TESTS_E2E_FACTORY_OWNER_H
#define VF_TESTS_E2E_FACTORY_OWNER_H

#include "tests/e2e/factory_support.h"

/* A clone and a cold boot that somebody has, a parked clone. */
enum left { LEFT_CLONE, LEFT_COLD, LEFT_PARKED, LEFT_COUNT };

struct left_vm {
    char id[16];
    enum vf_source source;
    struct vf_proof proof;
    pid_t pid;
};

struct owner {
    struct vf_spec spec; /* fac_close does not free it: vf_spec_free */
    struct left_vm vms[LEFT_COUNT];
};

/* spec is taken over. before (may be NULL) is called in the owner, with its VMs, before it is killed. */
void owner_leave(struct fac *f, struct vf_spec spec,
                 void (*before)(struct vf_sync *s, struct vf_instance **vms), struct owner *ret);
/* The arguments of vf_factory_adopt, for tests that change them. */
struct vf_adopt owner_plan(const struct owner *o, enum left which, bool verify,
                           struct vf_generation *gen);
/* Waits; NULL with *err set where it fails. */
struct vf_instance *owner_try(struct fac *f, const struct vf_adopt *a, struct vf_error *err);
/* The same, but it must succeed. */
struct vf_instance *owner_adopt(struct fac *f, const struct owner *o, enum left which, bool verify,
                                struct vf_generation *gen);
/* vf_factory_discard, and its end: VF_OK or err's code. */
enum vf_code owner_discard(struct fac *f, const char *id, struct vf_error *err);
/* Discards all that is left, and frees the spec. */
void owner_end(struct fac *f, struct owner *o);

#endif

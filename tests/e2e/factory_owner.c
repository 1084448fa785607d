/* The process that leaves VMs behind, and what is done with them (factory_owner.h). */
#include "tests/e2e/factory_owner.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "vmm/vmm.h"

/* ---- in the owner; its end is a status, for there is no test behind it */

static void must(int r, const struct vf_error *e, const char *what)
{
    if (r >= 0)
        return;
    fprintf(stderr, "owner: %s: %s\n", what, e->msg);
    _exit(3);
}

static _Noreturn void make_and_wait(const struct fac *f, const struct vf_spec *spec,
                                    void (*before)(struct vf_sync *s, struct vf_instance **vms),
                                    int tell)
{
    struct vf_sync s;
    struct vf_error e;
    struct vf_generation *gen;
    struct vf_instance *vms[LEFT_COUNT];
    struct left_vm left[LEFT_COUNT] = {0};
    struct vf_sync_options o = {.dir = f->dir,
                                .qemu = sup_qemu(),
                                .trial_clones = -1,
                                .outlive = true,
                                .keep_signals = true};
    must(vf_sync_open(&s, &o, &e), &e, "open");
    must(vf_sync_build(&s, spec, NULL, &gen, &e), &e, "build");
    must(vf_sync_clone(&s, gen, NULL, &vms[LEFT_CLONE], &e), &e, "clone");
    must(vf_sync_cold(&s, spec, NULL, &vms[LEFT_COLD], &e), &e, "cold boot");
    must(vf_sync_clone(&s, gen, NULL, &vms[LEFT_PARKED], &e), &e, "clone");
    must(vf_sync_park(&s, vms[LEFT_PARKED], &e), &e, "park");
    for (int i = 0; i < LEFT_COUNT; i++) {
        snprintf(left[i].id, sizeof(left[i].id), "%s", vf_instance_id(vms[i]));
        left[i].source = vf_instance_source(vms[i]);
        left[i].proof = *vf_instance_proof(vms[i]);
        left[i].pid = vf_vm_info_of(vf_instance_vm(vms[i]))->pid;
    }
    if (before)
        before(&s, vms);
    if (write(tell, left, sizeof(left)) != sizeof(left))
        _exit(2);
    for (;;)
        pause();
}

/* ---- in the test */

void owner_leave(struct fac *f, struct vf_spec spec,
                 void (*before)(struct vf_sync *s, struct vf_instance **vms), struct owner *ret)
{
    int tell[2];
    struct vf_sync_options open = f->options;
    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    fac_shut(f); /* it is the owner's */
    cr_assert_eq(pipe2(tell, O_CLOEXEC), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        close(tell[0]);
        make_and_wait(f, &spec, before, tell[1]);
    }
    close(tell[1]);
    ret->spec = spec;
    ssize_t n = read(tell[0], ret->vms, sizeof(ret->vms));
    cr_assert_eq(n, (ssize_t)sizeof(ret->vms), "the owner has failed");
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    close(tell[0]);
    open.outlive = true;
    fac_reopen(f, &open);
}

struct vf_adopt owner_plan(const struct owner *o, enum left which, bool verify,
                           struct vf_generation *gen)
{
    const struct left_vm *vm = &o->vms[which];
    return (struct vf_adopt){.id = vm->id,
                             .source = vm->source,
                             .spec = &o->spec,
                             .gen = gen,
                             .proof = &vm->proof,
                             .verify = verify};
}

struct result {
    bool done;
    struct vf_instance *vm;
    struct vf_error err;
};

static void on_vm(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct result *r = arg;
    cr_assert(!r->done);
    r->done = true;
    r->vm = vm;
    if (err)
        r->err = *err;
}

static void on_done(void *arg, const struct vf_error *err)
{
    on_vm(arg, NULL, err);
}

struct vf_instance *owner_try(struct fac *f, const struct vf_adopt *a, struct vf_error *err)
{
    struct result r = {0};
    if (vf_factory_adopt(f->sync.factory, a, on_vm, &r, NULL, err) < 0)
        return NULL;
    while (!r.done)
        uv_run(&f->sync.loop, UV_RUN_ONCE);
    *err = r.err;
    return r.vm;
}

struct vf_instance *owner_adopt(struct fac *f, const struct owner *o, enum left which, bool verify,
                                struct vf_generation *gen)
{
    struct vf_adopt a = owner_plan(o, which, verify, gen);
    struct vf_error e = {0};
    struct vf_instance *vm = owner_try(f, &a, &e);
    cr_assert(vm, "adopt: %s: %s", vf_code_name(e.code), e.msg);
    return vm;
}

enum vf_code owner_discard(struct fac *f, const char *id, struct vf_error *err)
{
    struct result r = {0};
    if (vf_factory_discard(f->sync.factory, id, on_done, &r, err) < 0)
        return err->code;
    while (!r.done)
        uv_run(&f->sync.loop, UV_RUN_ONCE);
    *err = r.err;
    return r.err.code;
}

void owner_end(struct fac *f, struct owner *o)
{
    struct vf_error e;
    for (int i = 0; i < LEFT_COUNT; i++)
        cr_assert_eq(owner_discard(f, o->vms[i].id, &e), VF_OK, "%s", e.msg);
    vf_spec_free(&o->spec);
}

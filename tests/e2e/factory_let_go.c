/* VMs that are let go of: process and directory stay, and can be adopted again and again. */
#include "tests/e2e/factory_owner.h"

#include <signal.h>
#include <stdio.h>
#include "vmm/vmm.h"

static void open_left(struct fac *f, struct owner *o)
{
    fac_open(f, &(struct vf_sync_options){.trial_clones = -1});
    owner_leave(f, fac_tiny("tiny", VF_ACCEL_TCG, NULL), NULL, o);
}

static void let_go(struct fac *f, struct vf_instance *vm)
{
    bool gone = false;
    vf_instance_detach(vm, fac_set_true, &gone);
    while (!gone)
        uv_run(&f->sync.loop, UV_RUN_ONCE);
}

Test(factory_let_go, adopted_again, .timeout = 120)
{
    struct fac f;
    struct owner o;
    open_left(&f, &o);
    for (int round = 0; round < 3; round++) {
        fac_mark(&f);
        int fds = f.fds;
        struct vf_instance *a = owner_adopt(&f, &o, LEFT_CLONE, round == 1, NULL);
        struct vf_instance *b = owner_adopt(&f, &o, LEFT_PARKED, false, NULL);
        cr_assert_str_eq(fac_say(&f, a, "echo", "here", (char *)NULL), "here");
        cr_assert_eq(vf_vm_info_of(vf_instance_vm(b))->state, VF_VM_PAUSED);
        let_go(&f, a);
        let_go(&f, b);
        cr_assert_eq(sup_count_fds(), fds);
        cr_assert_eq(fac_run_dirs(&f), LEFT_COUNT);
        cr_assert_eq(kill(o.vms[LEFT_CLONE].pid, 0), 0);
        fac_reopen(&f, NULL); /* closing leaves alone what is not its own */
    }
    owner_end(&f, &o);
    fac_check(&f, "all discarded");
    fac_close(&f);
}

/* Not even the one that is just being adopted is lost when its new owner has to go. */
struct adoption {
    int calls;
    struct vf_instance *vm;
    enum vf_code code;
};

static void on_adopted(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct adoption *a = arg;
    a->calls++;
    a->vm = vm;
    a->code = err ? err->code : VF_OK;
}

/* One turn of the loop later each time, until the VM is there first. */
static void let_go_at_each_turn(struct fac *f, const struct owner *o, bool verify)
{
    bool adopted = false;
    for (int turns = 0; !adopted; turns++) {
        struct vf_adopt plan = owner_plan(o, LEFT_CLONE, verify, NULL);
        struct adoption a = {0};
        struct vf_instance *vm;
        struct vf_error e;
        fac_mark(f);
        int r = vf_factory_adopt(f->sync.factory, &plan, on_adopted, &a, &vm, &e), fds = f->fds;
        cr_assert_eq(r, 0, "%s", e.msg);
        for (int i = 0; i < turns && !a.calls; i++)
            uv_run(&f->sync.loop, UV_RUN_ONCE);
        adopted = a.calls > 0;
        cr_assert_eq(a.code, VF_OK);
        let_go(f, vm);
        cr_assert_eq(a.calls, 1);
        cr_assert(adopted || a.code == VF_CANCELLED);
        cr_assert_eq(sup_count_fds(), fds);
        cr_assert_eq(kill(o->vms[LEFT_CLONE].pid, 0), 0);
    }
}

Test(factory_let_go, while_adopted, .timeout = 240)
{
    struct fac f;
    struct owner o;
    open_left(&f, &o);
    let_go_at_each_turn(&f, &o, false);
    let_go_at_each_turn(&f, &o, true);
    struct vf_instance *vm = owner_adopt(&f, &o, LEFT_CLONE, true, NULL);
    cr_assert_str_eq(fac_say(&f, vm, "echo", "still", (char *)NULL), "still");
    fac_destroy(&f, vm);
    owner_end(&f, &o);
    fac_check(&f, "all destroyed");
    fac_close(&f);
}

/* Where VMs end with their process there is nothing to let go of. */
Test(factory_let_go, not_let_go, .timeout = 120)
{
    struct fac f;
    struct vf_error e;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    fac_mark(&f);
    let_go(&f, fac_cold(&f, &spec));
    fac_check(&f, "it would die with its parent");
    spec.vmm = VF_SPEC_VMM_NULL;
    fac_reopen(&f, &(struct vf_sync_options){.outlive = true});
    let_go(&f, fac_cold(&f, &spec));
    fac_check(&f, "it lives in its parent");
    struct vf_adopt a = {.id = "0123456789ab", .source = VF_SOURCE_COLD, .spec = &spec};
    cr_assert_null(owner_try(&f, &a, &e));
    fac_expect(&e, VF_UNSUPPORTED, "VMs of null end with their process");
    vf_spec_free(&spec);
    fac_close(&f);
}

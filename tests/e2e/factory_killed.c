/* VMMs that die under a build, a clone, a cold boot or a ready VM: whoever waits is told how, at once, and
 * nothing is left. factory_orphans.c has the death of the whole process.
 */
#include "tests/e2e/factory_support.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "vmm/vmm.h"

static struct vf_spec warm_spec(const char *name)
{
    static const char *const echo[] = {"echo", "warm", NULL};
    struct vf_spec spec = fac_tiny(name, VF_ACCEL_TCG, NULL);
    fac_add_warmup(&spec, echo);
    return spec;
}

static void kill_child(void)
{
    pid_t pid = fac_child();
    if (pid > 0)
        cr_assert_eq(kill(pid, SIGKILL), 0);
}

/* ---- the VMM of a build */

struct killing {
    const char *at;
    bool reached, done;
    struct vf_generation *gen;
    struct vf_error err;
};

static void on_stage(void *arg, const char *stage)
{
    struct killing *k = arg;
    if (strcmp(stage, k->at) != 0)
        return;
    k->reached = true;
    kill_child();
}

static void on_built(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    struct killing *k = arg;
    k->done = true;
    k->gen = gen;
    if (err)
        k->err = *err;
}

Test(factory_killed, vmm_of_a_build, .timeout = 120)
{
    static const char *const stages[] = {"start",  "boot",  "renew", "warmup",
                                         "freeze", "pause", "save"};
    struct fac f;
    fac_open(&f, NULL);
    struct vf_spec spec = warm_spec("tiny");
    vf_generation_unref(fac_build(&f, &spec));
    for (size_t i = 0; i < sizeof(stages) / sizeof(*stages); i++) {
        struct killing k = {.at = stages[i]};
        struct vf_error e = {0};
        char due[32];
        cr_assert_eq(vf_factory_build(f.sync.factory, &spec, on_stage, on_built, &k, NULL, &e), 0,
                     "%s", e.msg);
        while (!k.done)
            uv_run(&f.sync.loop, UV_RUN_ONCE);
        cr_assert(k.reached && !k.gen, "%s", stages[i]);
        snprintf(due, sizeof(due), "%s: ", stages[i]);
        cr_assert_eq(strncmp(k.err.msg, due, strlen(due)), 0, "%s: %s", stages[i], k.err.msg);
        fac_expect(&k.err, VF_VMM_DIED, "killed by signal 9");
        fac_check(&f, stages[i]);
        cr_assert_eq(fac_generations(&f, "tiny"), 1);
    }
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- the VMM of a VM in the making */

struct making {
    int calls;
    struct vf_instance *vm;
    struct vf_error err;
};

static void on_vm(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct making *m = arg;
    m->calls++;
    m->vm = vm;
    if (err)
        m->err = *err;
}

static void note_death(void *arg, struct vf_instance *vm, const struct vf_error *why)
{
    struct making *m = arg;
    m->calls++;
    m->vm = vm;
    m->err = *why;
}

/* Killed one turn of the loop later each time, until the VM is ready first. */
static void kill_after_each_turn(struct fac *f, struct vf_generation *gen, bool cold)
{
    bool ready = false;
    int turns = 0;
    for (; !ready && turns < 1000; turns++) {
        struct making m = {0}, death = {0};
        struct vf_instance *vm = NULL;
        struct vf_error e = {0};
        int r =
            cold ? vf_factory_cold(f->sync.factory, &gen->manifest.spec, NULL, on_vm, &m, &vm, &e)
                 : vf_factory_clone(f->sync.factory, gen, NULL, on_vm, &m, &vm, &e);
        cr_assert_eq(r, 0, "%s", e.msg);
        for (int i = 0; !m.calls && (i < turns || fac_child() == 0); i++)
            uv_run(&f->sync.loop, UV_RUN_ONCE);
        ready = m.calls > 0;
        kill_child();
        while (!m.calls)
            uv_run(&f->sync.loop, UV_RUN_ONCE);
        cr_assert_eq(m.calls, 1);
        if (m.vm) { /* the last answer was under way already */
            vf_instance_on_death(vm, note_death, &death);
            while (!death.calls)
                uv_run(&f->sync.loop, UV_RUN_ONCE);
            fac_expect(&death.err, VF_VMM_DIED, "killed by signal 9");
            fac_destroy(f, vm);
        } else
            fac_expect(&m.err, VF_VMM_DIED, "killed by signal 9");
        fac_check(f, "its VMM was killed");
    }
    cr_assert(ready && turns > 3, "%d turns", turns);
}

static void vmm_killed(bool cold)
{
    struct fac f;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = warm_spec("tiny");
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_mark(&f);
    kill_after_each_turn(&f, gen, cold);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_killed, vmm_of_a_clone, .timeout = 240)
{
    vmm_killed(false);
}

Test(factory_killed, vmm_of_a_cold_boot, .timeout = 240)
{
    vmm_killed(true);
}

/* ---- the VMM of a ready VM */

static void on_run(void *arg, const struct vf_run_result *res, const struct vf_error *err)
{
    struct making *m = arg;
    cr_assert_null(res);
    m->calls++;
    m->err = *err;
}

Test(factory_killed, vmm_of_a_ready_vm, .timeout = 120)
{
    struct fac f;
    char *hang[] = {"hang", NULL};
    struct vf_exec_options o = {.argv = hang};
    struct making death = {0}, run = {0};
    struct vf_error e = {0};
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = warm_spec("tiny");
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_mark(&f);
    struct vf_instance *vm = fac_clone(&f, gen);
    vf_instance_on_death(vm, note_death, &death);
    cr_assert_eq(vf_run(vf_instance_agent(vm), &o, NULL, 0, 100, on_run, &run, &e), 0, "%s", e.msg);
    cr_assert_eq(kill(vf_vm_info_of(vf_instance_vm(vm))->pid, SIGKILL), 0);
    while (!death.calls || !run.calls)
        uv_run(&f.sync.loop, UV_RUN_ONCE);
    cr_assert_eq(death.calls, 1);
    cr_assert_eq(death.vm, vm);
    fac_expect(&death.err, VF_VMM_DIED, "killed by signal 9");
    fac_expect(&run.err, VF_VMM_DIED,
               "killed by signal 9"); /* and not by its deadline: it has none */
    /* It is of no more use, but still has to be destroyed. */
    cr_assert_lt(vf_run(vf_instance_agent(vm), &o, NULL, 0, 100, on_run, &run, &e), 0);
    fac_expect(&e, VF_GUEST_FAILED, "not connected");
    fac_destroy(&f, vm);
    fac_check(&f, "destroyed");
    /* Nobody need listen. */
    vm = fac_clone(&f, gen);
    cr_assert_eq(kill(vf_vm_info_of(vf_instance_vm(vm))->pid, SIGKILL), 0);
    while (vf_vm_info_of(vf_instance_vm(vm))->state != VF_VM_DEAD)
        uv_run(&f.sync.loop, UV_RUN_ONCE);
    fac_destroy(&f, vm);
    fac_check(&f, "destroyed");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

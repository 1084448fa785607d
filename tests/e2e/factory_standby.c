/* Standby VMMs and what they are brought to; pings; the owner's journal, told of each step; and an owner that
 * dies at each of the points where it hurts.
 */
#include "tests/e2e/factory_owner.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "vmm/vmm.h"

struct result {
    int calls;
    struct vf_instance *vm;
    struct vf_error err;
};

static void on_vm(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct result *r = arg;
    r->calls++;
    r->vm = vm;
    r->err = err ? *err : (struct vf_error){0};
}

static void on_done(void *arg, const struct vf_error *err)
{
    on_vm(arg, NULL, err);
}

static void wait_for(struct fac *f, const struct result *r)
{
    while (!r->calls)
        uv_run(&f->sync.loop, UV_RUN_ONCE);
    cr_assert_eq(r->calls, 1);
}

static struct vf_instance *stand_by(struct fac *f, struct vf_generation *gen)
{
    struct result r = {0};
    struct vf_error e;
    int n = vf_factory_standby(f->sync.factory, gen, NULL, on_vm, &r, NULL, &e);
    cr_assert_eq(n, 0, "%s", e.msg);
    wait_for(f, &r);
    cr_assert(r.vm, "%s", r.err.msg);
    return r.vm;
}

static struct vf_instance *bring(struct fac *f, struct vf_instance *vm, struct vf_error *err)
{
    struct result r = {0};
    if (vf_instance_bring(vm, on_vm, &r, err) < 0)
        return NULL;
    wait_for(f, &r);
    *err = r.err;
    return r.vm;
}

static void open_built(struct fac *f, const struct vf_sync_options *o, struct vf_spec *spec,
                       struct vf_generation **gen)
{
    fac_open(f, o);
    *spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    *gen = fac_build(f, spec);
    fac_mark(f);
}

static void close_built(struct fac *f, struct vf_spec *spec, struct vf_generation *gen)
{
    fac_check(f, "all destroyed");
    vf_generation_unref(gen);
    vf_spec_free(spec);
    fac_close(f);
}

/* ---- standby */

Test(factory_standby, brought, .timeout = 120)
{
    struct fac f;
    struct vf_spec spec;
    struct vf_generation *gen;
    struct vf_instance *vms[2];
    struct vf_error e;
    struct result r;
    open_built(&f, &(struct vf_sync_options){.trial_clones = -1}, &spec, &gen);
    for (int i = 0; i < 2; i++) {
        vms[i] = stand_by(&f, gen);
        fac_check_stages(vms[i], "prepare vmm");
        cr_assert_eq(vf_vm_info_of(vf_instance_vm(vms[i]))->state, VF_VM_CREATED);
        cr_assert_eq(vf_instance_proof(vms[i])->boot_id[0], 0);
        /* There is no guest yet to park, to wake or to ask. */
        cr_assert_lt(vf_instance_park(vms[i], on_vm, &r, &e), 0);
        cr_assert_eq(e.code, VF_CONFLICT, "%s", e.msg);
        cr_assert_lt(vf_instance_wake(vms[i], on_vm, &r, &e), 0);
        cr_assert_eq(e.code, VF_CONFLICT, "%s", e.msg);
        cr_assert_lt(vf_instance_ping(vms[i], 1000, on_done, &r, &e), 0);
        cr_assert_eq(e.code, VF_CONFLICT, "%s", e.msg);
    }
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(bring(&f, vms[i], &e), vms[i], "%s", e.msg);
        fac_check_stages(vms[i], "restore resume prove");
        fac_check_proved(&f, vms[i], gen);
        cr_assert_lt(vf_instance_bring(vms[i], on_vm, &r, &e), 0);
        fac_expect(&e, VF_CONFLICT, "does not stand by");
    }
    fac_check_differ(&f, vms, 2);
    fac_destroy(&f, vms[0]);
    fac_destroy(&f, vms[1]);
    close_built(&f, &spec, gen);
}

Test(factory_standby, dies, .timeout = 120)
{
    struct fac f;
    struct vf_spec spec;
    struct vf_generation *gen;
    struct vf_error e = {0};
    struct result death = {0};
    open_built(&f, &(struct vf_sync_options){.trial_clones = -1}, &spec, &gen);
    /* While it waits: its owner is told. */
    struct vf_instance *vm = stand_by(&f, gen);
    vf_instance_on_death(vm, on_vm, &death);
    cr_assert_eq(kill(fac_child(), SIGKILL), 0);
    wait_for(&f, &death);
    fac_expect(&death.err, VF_VMM_DIED, "killed by signal 9");
    fac_destroy(&f, vm);
    fac_check(&f, "died while it waited");
    /* While it is brought: that ends with the reason, and nothing of it is left. */
    vm = stand_by(&f, gen);
    struct result r = {0};
    cr_assert_eq(vf_instance_bring(vm, on_vm, &r, &e), 0, "%s", e.msg);
    cr_assert_eq(kill(fac_child(), SIGKILL), 0);
    wait_for(&f, &r);
    cr_assert_null(r.vm);
    fac_expect(&r.err, VF_VMM_DIED, "killed by signal 9");
    close_built(&f, &spec, gen);
}

/* What it was started for is no longer what it was: it is not brought, and still there. */
Test(factory_standby, not_from_a_changed_template, .timeout = 120)
{
    struct fac f;
    struct vf_spec spec;
    struct vf_generation *gen;
    struct vf_error e = {0};
    char path[600];
    open_built(&f, &(struct vf_sync_options){.trial_clones = -1}, &spec, &gen);
    struct vf_instance *vm = stand_by(&f, gen);
    snprintf(path, sizeof(path), "%s/state", gen->path);
    char *state = fac_read(path);
    fac_write(path, "something else", 0600);
    cr_assert_null(bring(&f, vm, &e));
    fac_expect(&e, VF_CONFLICT, "state");
    free(state);
    fac_destroy(&f, vm);
    close_built(&f, &spec, gen);
}

/* ---- pings */

Test(factory_standby, pinged, .timeout = 120)
{
    struct fac f;
    struct vf_spec spec;
    struct vf_generation *gen;
    struct vf_error e = {0};
    struct result many[3] = {{0}}, late = {0}, end = {0};
    open_built(&f, &(struct vf_sync_options){.trial_clones = -1}, &spec, &gen);
    struct vf_instance *vm = fac_clone(&f, gen);
    for (int i = 0; i < 3; i++) {
        int r = vf_instance_ping(vm, SUP_LONG_MS, on_done, &many[i], &e);
        cr_assert_eq(r, 0, "%s", e.msg);
        cr_assert_eq(many[i].calls, 0);
    }
    cr_assert_str_eq(fac_say(&f, vm, "echo", "meanwhile", (char *)NULL), "meanwhile");
    for (int i = 0; i < 3; i++) {
        wait_for(&f, &many[i]);
        cr_assert_eq(many[i].err.code, VF_OK, "%s", many[i].err.msg);
    }
    /* One that does not answer stays, and answers later. */
    cr_assert_eq(vf_sync_park(&f.sync, vm, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_instance_ping(vm, 50, on_done, &late, &e), 0, "%s", e.msg);
    wait_for(&f, &late);
    cr_assert_eq(late.err.code, VF_TIMEOUT, "%s", late.err.msg);
    cr_assert_eq(vf_sync_wake(&f.sync, vm, &e), 0, "%s", e.msg);
    cr_assert_str_eq(fac_say(&f, vm, "echo", "awake", (char *)NULL), "awake");
    /* One that ends before it has answered. */
    cr_assert_eq(vf_instance_ping(vm, SUP_LONG_MS, on_done, &end, &e), 0, "%s", e.msg);
    fac_destroy(&f, vm);
    cr_assert_eq(end.calls, 1);
    close_built(&f, &spec, gen);
}

/* ---- the journal */

struct journal {
    char text[512];
    const char *fails_at, *destroyed_at;
};

static int note_step(void *arg, struct vf_instance *vm, const char *stage, struct vf_error *err)
{
    struct journal *j = arg;
    size_t n = strlen(j->text);
    cr_assert_eq(access(vf_instance_dir(vm), F_OK), 0);
    snprintf(j->text + n, sizeof(j->text) - n, "%s%s", n ? " " : "", stage);
    if (j->destroyed_at && strcmp(j->destroyed_at, stage) == 0)
        vf_instance_destroy(vm, NULL, NULL);
    if (j->fails_at && strcmp(j->fails_at, stage) == 0)
        return vf_fail(err, VF_NO_SPACE, "journal: full at %s", stage);
    return 0;
}

static void noted(struct journal *j, const char *due)
{
    cr_assert_str_eq(j->text, due);
    j->text[0] = 0;
}

Test(factory_standby, each_step_is_told, .timeout = 120)
{
    struct fac f;
    struct vf_spec spec;
    struct vf_generation *gen;
    struct vf_error e;
    struct journal j = {.text = ""};
    open_built(&f, &(struct vf_sync_options){.on_step = note_step, .on_step_arg = &j}, &spec, &gen);
    noted(&j, ""); /* a build and its trial clones are nobody's */
    struct vf_instance *vm = fac_clone(&f, gen);
    noted(&j, "vmm restore resume prove");
    cr_assert_eq(vf_sync_park(&f.sync, vm, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_sync_wake(&f.sync, vm, &e), 0, "%s", e.msg);
    noted(&j, "pause resume renew");
    j.fails_at = "pause";
    cr_assert_lt(vf_sync_park(&f.sync, vm, &e), 0);
    fac_expect(&e, VF_NO_SPACE, "journal: full at pause");
    cr_assert_str_eq(fac_say(&f, vm, "echo", "still here", (char *)NULL), "still here");
    fac_destroy(&f, vm);
    j.text[0] = 0;
    fac_destroy(&f, fac_cold(&f, &spec));
    noted(&j, "vmm start boot renew");
    static const char *const stages[] = {"vmm", "restore", "resume", "prove"};
    for (size_t i = 0; i < 4; i++) {
        char words[64];
        snprintf(words, sizeof(words), "%s: journal: full at %s", stages[i], stages[i]);
        j = (struct journal){.fails_at = stages[i]};
        fac_clone_fails(&f, gen, VF_NO_SPACE, words);
        j = (struct journal){.destroyed_at = stages[i]};
        fac_clone_fails(&f, gen, VF_CANCELLED, "cancelled");
    }
    j = (struct journal){.text = ""};
    close_built(&f, &spec, gen);
}

/* ---- an owner that dies at each point */

/* Brings a standby VM, parks it, and destroys it. */
static _Noreturn void live_and_exit(const struct fac *f, const char *failpoint, const char *adopt)
{
    struct vf_sync_options o = {
        .dir = f->dir, .qemu = sup_qemu(), .outlive = true, .keep_signals = true};
    struct vf_sync s;
    struct vf_generation *gen;
    struct vf_instance *vm;
    struct vf_error e = {0};
    struct result r = {0};
    if (vf_failpoint_arm(failpoint) < 0 || vf_sync_open(&s, &o, &e) < 0 ||
        vf_sync_load(&s, "tiny", 0, &gen, &e) < 0)
        _exit(3);
    struct vf_adopt a = {
        .id = adopt, .source = VF_SOURCE_CLONE, .spec = &gen->manifest.spec, .gen = gen};
    if (adopt) {
        if (vf_factory_adopt(s.factory, &a, on_vm, &r, NULL, &e) < 0)
            _exit(4);
        while (!r.calls)
            uv_run(&s.loop, UV_RUN_ONCE);
        vm = r.vm;
    } else if (vf_sync_clone(&s, gen, NULL, &vm, &e) < 0)
        _exit(5);
    vf_sync_destroy(&s, vm);
    _exit(6);
}

static void reap_what_ends(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

/* Whatever it left is destroyed, be it after it was adopted. */
static void clear_by_adoption(struct fac *f, const struct vf_spec *spec, const char *id,
                              const char *when)
{
    struct vf_error e = {0};
    struct vf_adopt a = {.id = id, .source = VF_SOURCE_CLONE, .spec = spec};
    struct vf_instance *vm = owner_try(f, &a, &e);
    if (vm)
        fac_destroy(f, vm);
    else
        cr_assert(e.code == VF_NOT_FOUND || e.code == VF_VMM_FAILED, "%s: %s", when, e.msg);
}

static void owner_dies_at(struct fac *f, const char *failpoint, const char *adopt)
{
    int status;
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        live_and_exit(f, failpoint, adopt);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status), "%s: not reached: status %d", failpoint, WEXITSTATUS(status));
}

/* The only name in run/. */
static void only_vm(const struct fac *f, const char *failpoint, char ret_id[16])
{
    char command[600];
    cr_assert_eq(fac_run_dirs(f), 1, "%s: %d directories", failpoint, fac_run_dirs(f));
    snprintf(command, sizeof(command), "ls '%s/run'", f->options.dir);
    FILE *p = popen(command, "re");
    cr_assert(p && fgets(ret_id, 16, p));
    pclose(p);
    ret_id[strcspn(ret_id, "\n")] = 0;
}

Test(factory_standby, owner_dies_anywhere, .timeout = 240)
{
    struct fac f;
    struct vf_error e;
    char id[16];
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1, .outlive = true});
    struct owner o;
    owner_leave(&f, fac_tiny("tiny", VF_ACCEL_TCG, NULL), NULL,
                &o); /* for the subreaper, and to be adopted from */
    fac_shut(&f);
    owner_dies_at(&f, "factory.adopt.connected", o.vms[LEFT_CLONE].id);
    fac_reopen(&f, NULL);
    cr_assert_eq(kill(o.vms[LEFT_CLONE].pid, 0), 0);
    fac_destroy(&f, owner_adopt(&f, &o, LEFT_CLONE, true, NULL)); /* it took no harm */
    for (int i = 0; i < LEFT_COUNT; i++)
        cr_assert_eq(owner_discard(&f, o.vms[i].id, &e), VF_OK, "%s", e.msg);
    fac_check(&f, "adopted");
    for (int i = 0; vf_failpoint_names[i]; i++) {
        const char *name = vf_failpoint_names[i];
        if (strncmp(name, "store.", 6) == 0 || strcmp(name, "factory.adopt.connected") == 0)
            continue;
        if (strncmp(name, "factory.", 8) != 0 && strncmp(name, "launch.", 7) != 0)
            continue;
        for (int adopts = 0; adopts < 2; adopts++) {
            fac_shut(&f);
            owner_dies_at(&f, name, NULL);
            fac_reopen(&f, NULL);
            only_vm(&f, name, id);
            if (adopts)
                clear_by_adoption(&f, &o.spec, id, name);
            else
                cr_assert_eq(owner_discard(&f, id, &e), VF_OK, "%s: %s", name, e.msg);
            reap_what_ends(); /* the VMM of a teardown that was cut short had ended before */
            fac_check(&f, name);
        }
    }
    vf_spec_free(&o.spec);
    fac_close(&f);
}

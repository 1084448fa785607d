/* VMs whose process was killed outright go on, and the next one has them again: as they are, or proved
 * again. What can't be adopted is ended, what is not wanted discarded; nothing is left.
 */
#include "tests/e2e/factory_owner.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "vmm/vmm.h"

static void open_left(struct fac *f, struct owner *o)
{
    fac_open(f, &(struct vf_sync_options){.trial_clones = -1});
    owner_leave(f, fac_tiny("tiny", VF_ACCEL_TCG, NULL), NULL, o);
}

static pid_t pid_of(struct vf_instance *vm)
{
    return vf_vm_info_of(vf_instance_vm(vm))->pid;
}

/* ---- as they are, and proved again */

static void check_kept(struct fac *f, const struct owner *o, enum left which)
{
    const struct left_vm *left = &o->vms[which];
    struct vf_instance *vm = owner_adopt(f, o, which, false, NULL);
    cr_assert_eq(memcmp(vf_instance_proof(vm), &left->proof, sizeof(left->proof)), 0);
    cr_assert_eq(vf_instance_source(vm), left->source);
    cr_assert_str_eq(vf_instance_id(vm), left->id);
    cr_assert_eq(pid_of(vm), left->pid);
    cr_assert_str_eq(fac_say(f, vm, "machine-id", (char *)NULL), left->proof.machine_id);
    cr_assert_str_eq(fac_say(f, vm, "hostname", (char *)NULL), left->proof.hostname);
    fac_check_stages(vm, "find adopt hello");
    fac_destroy(f, vm);
}

Test(factory_adopt, kept_as_they_are, .timeout = 120)
{
    struct fac f;
    struct owner o;
    open_left(&f, &o);
    fac_mark(&f);
    check_kept(&f, &o, LEFT_CLONE);
    check_kept(&f, &o, LEFT_COLD);
    /* One that is paused is not asked; awake, it is in step again, and has proved itself. */
    struct vf_error e;
    struct vf_instance *vm = owner_adopt(&f, &o, LEFT_PARKED, false, NULL);
    cr_assert_eq(vf_vm_info_of(vf_instance_vm(vm))->state, VF_VM_PAUSED);
    cr_assert_eq(vf_sync_wake(&f.sync, vm, &e), 0, "%s", e.msg);
    cr_assert_str_neq(vf_instance_proof(vm)->sample, o.vms[LEFT_PARKED].proof.sample);
    cr_assert_str_eq(fac_say(&f, vm, "echo", "awake", (char *)NULL), "awake");
    fac_destroy(&f, vm);
    fac_check(&f, "all destroyed");
    owner_end(&f, &o);
    fac_close(&f);
}

Test(factory_adopt, verified_anew, .timeout = 120)
{
    struct fac f;
    struct owner o;
    struct vf_instance *vms[LEFT_COUNT];
    open_left(&f, &o);
    struct vf_generation *gen = fac_load(&f, "tiny");
    fac_mark(&f);
    for (int i = 0; i < LEFT_COUNT; i++) {
        struct vf_generation *own = i == LEFT_COLD ? NULL : gen;
        vms[i] = owner_adopt(&f, &o, (enum left)i, true, own);
        const struct vf_proof *p = vf_instance_proof(vms[i]), *was = &o.vms[i].proof;
        fac_check_proved(&f, vms[i], own);
        fac_check_stages(vms[i], "find adopt resume prove");
        cr_assert_str_eq(p->boot_id, was->boot_id);
        cr_assert_str_eq(p->hostname, was->hostname);
        cr_assert_str_neq(p->machine_id, was->machine_id);
        cr_assert_str_neq(p->entropy_sha256, was->entropy_sha256);
        cr_assert_str_neq(p->sample, was->sample);
    }
    fac_check_differ(&f, vms, LEFT_COUNT);
    for (int i = 0; i < LEFT_COUNT; i++)
        fac_destroy(&f, vms[i]);
    fac_check(&f, "all destroyed");
    vf_generation_unref(gen);
    owner_end(&f, &o);
    fac_close(&f);
}

/* The owner is killed while one guest writes and another has a command that never ends. */
static void on_output(void *arg, int fd, const void *data, size_t len)
{
    (void)arg;
    (void)fd;
    (void)data;
    (void)len;
}

static void on_writable(void *arg)
{
    (void)arg;
}

static void on_exited(void *arg, const struct vf_exec_status *st, const struct vf_error *err)
{
    (void)arg;
    (void)st;
    (void)err;
}

static void run_both(struct vf_instance **vms, char *const *flood, char *const *hang)
{
    static const struct vf_exec_callbacks cb = {on_output, on_writable, on_exited};
    struct vf_exec_options flooding = {.argv = flood}, hanging = {.argv = hang};
    struct vf_exec *exec;
    /* The loop does not run again: nobody reads what comes. */
    if (vf_exec_start(vf_instance_agent(vms[LEFT_CLONE]), &flooding, &cb, NULL, &exec, NULL) < 0 ||
        vf_exec_start(vf_instance_agent(vms[LEFT_COLD]), &hanging, &cb, NULL, &exec, NULL) < 0)
        _exit(4);
    /* Until the guest's bytes have come as far as here. */
    uv_os_fd_t fd;
    uv_fileno((uv_handle_t *)vf_instance_agent(vms[LEFT_CLONE])->link.out, &fd);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, SUP_LONG_MS) != 1)
        _exit(5);
}

static void keep_busy(struct vf_sync *s, struct vf_instance **vms)
{
    char *flood[] = {"flood", "100000000", NULL}, *hang[] = {"hang", NULL};
    (void)s;
    run_both(vms, flood, hang);
}

static void keep_linux_busy(struct vf_sync *s, struct vf_instance **vms)
{
    char *flood[] = {"/bin/sh", "-c", "while :; do echo y; done", NULL};
    char *hang[] = {"/bin/sh", "-c", "while :; do sleep 1000; done", NULL};
    (void)s;
    run_both(vms, flood, hang);
}

Test(factory_adopt, in_the_middle_of_commands, .timeout = 120)
{
    struct fac f;
    struct owner o;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    owner_leave(&f, fac_tiny("tiny", VF_ACCEL_TCG, NULL), keep_busy, &o);
    fac_mark(&f);
    check_kept(&f, &o, LEFT_CLONE);
    check_kept(&f, &o, LEFT_COLD);
    owner_end(&f, &o);
    fac_check(&f, "all destroyed");
    fac_close(&f);
}

/* ---- what can't be adopted */

static void fails(struct fac *f, const struct vf_adopt *a, enum vf_code code, const char *words)
{
    struct vf_error e = {0};
    cr_assert_null(owner_try(f, a, &e), "adopted; due was: %s", words);
    fac_expect(&e, code, words);
    char dir[512];
    snprintf(dir, sizeof(dir), "%s/run/%s", f->options.dir, a->id);
    cr_assert_neq(access(dir, F_OK), 0, "%s: the directory is left", words);
}

Test(factory_adopt, not_what_it_was, .timeout = 120)
{
    struct fac f;
    struct owner o;
    open_left(&f, &o);
    fac_mark(&f);
    struct vf_adopt a = owner_plan(&o, LEFT_CLONE, true, NULL);
    o.vms[LEFT_CLONE].proof.nonce[0] ^= 1;
    fails(&f, &a, VF_PROOF_FAILED, "another nonce");
    a = owner_plan(&o, LEFT_PARKED, true, NULL);
    o.vms[LEFT_PARKED].proof.boot_id[0] ^= 1;
    fails(&f, &a, VF_PROOF_FAILED, "boot id is not what it was");
    a = owner_plan(&o, LEFT_COLD, true, NULL);
    memcpy(o.vms[LEFT_COLD].proof.nonce, o.vms[LEFT_CLONE].proof.nonce, 65);
    fails(&f, &a, VF_PROOF_FAILED, "booted, not restored");
    fac_check(&f, "none was what it was");
    owner_end(&f, &o);
    fac_close(&f);
}

Test(factory_adopt, not_there, .timeout = 120)
{
    struct fac f;
    struct owner o;
    struct vf_error e;
    char path[512], text[2048];
    open_left(&f, &o);
    fac_mark(&f);
    /* Killed meanwhile, and reaped. */
    cr_assert_eq(kill(o.vms[LEFT_CLONE].pid, SIGKILL), 0);
    cr_assert_eq(waitpid(o.vms[LEFT_CLONE].pid, NULL, 0), o.vms[LEFT_CLONE].pid);
    struct vf_adopt a = owner_plan(&o, LEFT_CLONE, false, NULL);
    fails(&f, &a, VF_NOT_FOUND, "has ended");
    /* The directory is gone. */
    fails(&f, &a, VF_NOT_FOUND, o.vms[LEFT_CLONE].id);
    /* A zombie. */
    cr_assert_eq(kill(o.vms[LEFT_COLD].pid, SIGKILL), 0);
    siginfo_t si;
    cr_assert_eq(waitid(P_PID, (id_t)o.vms[LEFT_COLD].pid, &si, WEXITED | WNOWAIT), 0);
    a = owner_plan(&o, LEFT_COLD, true, NULL);
    fails(&f, &a, VF_NOT_FOUND, "has ended");
    /* The number is somebody else's by now: this process's, say, which is not killed for it. */
    snprintf(path, sizeof(path), "%s/run/%s/process", f.options.dir, o.vms[LEFT_PARKED].id);
    char *record = fac_read(path);
    snprintf(text, sizeof(text), "%d%s", (int)getpid(), strchr(record, ' '));
    fac_write(path, text, 0600);
    a = owner_plan(&o, LEFT_PARKED, true, NULL);
    fails(&f, &a, VF_NOT_FOUND, "another has its number");
    cr_assert_eq(kill(o.vms[LEFT_PARKED].pid, SIGKILL), 0);
    cr_assert_eq(waitpid(o.vms[LEFT_PARKED].pid, NULL, 0), o.vms[LEFT_PARKED].pid);
    free(record);
    fac_check(&f, "none was there");
    cr_assert_eq(owner_discard(&f, "../../elsewh", &e), VF_INVALID_ARGUMENT);
    owner_end(&f, &o);
    fac_close(&f);
}

/* Records that name nobody who could be alive. */
Test(factory_adopt, records_of_nobody, .timeout = 120)
{
    static const struct {
        const char *text;
        enum vf_code code;
        const char *words;
    } cases[] = {
        {"", VF_NOT_FOUND, "never began"},
        {"1234 (vm-x) S 1 ", VF_NOT_FOUND, "never began"},
        {"1 (init) S\n00000000-0000-0000-0000-000000000000\n", VF_NOT_FOUND, "booted since"},
    };
    struct fac f;
    struct owner o = {.spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL)};
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1, .outlive = true});
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char dir[512], path[600];
        snprintf(o.vms[0].id, sizeof(o.vms[0].id), "00000000000%zu", i);
        snprintf(dir, sizeof(dir), "%s/run/%s", f.options.dir, o.vms[0].id);
        snprintf(path, sizeof(path), "%s/process", dir);
        cr_assert_eq(mkdir(dir, 0700), 0);
        fac_write(path, cases[i].text, 0600);
        struct vf_adopt a = owner_plan(&o, LEFT_CLONE, false, NULL);
        fails(&f, &a, cases[i].code, cases[i].words);
    }
    vf_spec_free(&o.spec);
    fac_close(&f);
}

/* A VMM that answers nothing is ended. */
Test(factory_adopt, stuck, .timeout = 120)
{
    struct fac f;
    struct owner o;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1, .create_timeout_ms = 3000});
    owner_leave(&f, fac_tiny("tiny", VF_ACCEL_TCG, NULL), NULL, &o);
    fac_mark(&f);
    cr_assert_eq(kill(o.vms[LEFT_CLONE].pid, SIGSTOP), 0);
    struct vf_adopt a = owner_plan(&o, LEFT_CLONE, false, NULL);
    fails(&f, &a, VF_TIMEOUT, "adopt: no answer");
    owner_end(&f, &o);
    fac_check(&f, "ended");
    fac_close(&f);
}

/* Its end is news to the new owner as to the old one. */
struct death {
    int calls;
    struct vf_error err;
};

static void on_death(void *arg, struct vf_instance *vm, const struct vf_error *why)
{
    struct death *d = arg;
    (void)vm;
    d->calls++;
    d->err = *why;
}

Test(factory_adopt, dies_later, .timeout = 120)
{
    struct fac f;
    struct owner o;
    struct death d = {0};
    open_left(&f, &o);
    fac_mark(&f);
    struct vf_instance *vm = owner_adopt(&f, &o, LEFT_CLONE, false, NULL);
    vf_instance_on_death(vm, on_death, &d);
    cr_assert_eq(kill(o.vms[LEFT_CLONE].pid, SIGKILL), 0);
    while (!d.calls)
        uv_run(&f.sync.loop, UV_RUN_ONCE);
    fac_expect(&d.err, VF_VMM_DIED, "killed by signal 9");
    fac_destroy(&f, vm);
    owner_end(&f, &o);
    fac_check(&f, "ended");
    fac_close(&f);
}

/* ---- discarding */

Test(factory_adopt, discarded, .timeout = 120)
{
    struct fac f;
    struct owner o;
    struct vf_error e;
    bool gone = false;
    open_left(&f, &o);
    fac_mark(&f);
    struct vf_instance *vm = owner_adopt(&f, &o, LEFT_CLONE, false, NULL);
    cr_assert_eq(owner_discard(&f, o.vms[LEFT_CLONE].id, &e), VF_CONFLICT);
    struct vf_adopt a = owner_plan(&o, LEFT_CLONE, false, NULL);
    cr_assert_null(owner_try(&f, &a, &e));
    fac_expect(&e, VF_CONFLICT, "is in use");
    vf_instance_destroy(vm, fac_set_true, &gone);
    while (!gone)
        uv_run(&f.sync.loop, UV_RUN_ONCE);
    for (int twice = 0; twice < 2; twice++)
        for (int i = 0; i < LEFT_COUNT; i++)
            cr_assert_eq(owner_discard(&f, o.vms[i].id, &e), VF_OK, "%s", e.msg);
    fac_check(&f, "all discarded");
    /* Without a record: made, but no process was begun. */
    char dir[512];
    snprintf(dir, sizeof(dir), "%s/run/0123456789ab", f.options.dir);
    cr_assert_eq(mkdir(dir, 0700), 0);
    cr_assert_eq(owner_discard(&f, "0123456789ab", &e), VF_OK, "%s", e.msg);
    cr_assert_neq(access(dir, F_OK), 0);
    owner_end(&f, &o);
    fac_close(&f);
}

/* ---- a real guest */

Test(factory_adopt, linux, .timeout = 240)
{
    struct fac f;
    struct owner o;
    FAC_LINUX_OR_SKIP("factory_adopt", "linux");
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = fac_linux("linux", VF_ACCEL_TCG, NULL);
    spec.network.mode = VF_NETWORK_EXTERNAL;
    owner_leave(&f, spec, keep_linux_busy, &o);
    fac_mark(&f);
    struct vf_instance *vms[LEFT_COUNT];
    for (int i = 0; i < LEFT_COUNT; i++)
        vms[i] = owner_adopt(&f, &o, (enum left)i, i == LEFT_PARKED, NULL);
    const struct vf_proof *was = &o.vms[LEFT_CLONE].proof;
    cr_assert_str_eq(fac_sh(&f, vms[LEFT_CLONE], "cat /etc/machine-id"), was->machine_id);
    cr_assert_str_eq(fac_sh(&f, vms[LEFT_COLD], "hostname"), o.vms[LEFT_COLD].proof.hostname);
    /* A NIC keeps its address, and was asked for it. */
    cr_assert_eq(strlen(o.vms[LEFT_PARKED].proof.mac), 17);
    cr_assert_str_eq(vf_instance_proof(vms[LEFT_PARKED])->mac, o.vms[LEFT_PARKED].proof.mac);
    /* What the old owner ran has ended with it. */
    for (int i = 0; i < 2; i++)
        cr_assert_str_eq(
            fac_sh(&f, vms[i],
                   "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c 'while [:];' || :"),
            "0");
    fac_check_differ(&f, vms, LEFT_COUNT);
    for (int i = 0; i < LEFT_COUNT; i++)
        fac_destroy(&f, vms[i]);
    owner_end(&f, &o);
    fac_check(&f, "all destroyed");
    fac_close(&f);
}

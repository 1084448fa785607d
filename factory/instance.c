/* The engine: runs an instance's steps, and takes an instance apart (factory/instance.h has the picture).
 *
 * Teardown, from any state: close the agent, stop and free the VM, remove its directory and give its
 * network back in a worker, tell whoever waits, free; of a VM that is let go of, process, directory and
 * network stay. If the recipe had not ended, the caller's done comes last of all, with the first error;
 * only then nothing of the VM is left.
 */
#include "factory/instance.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/hash.h"

struct vf_destroy_waiter {
    void (*done)(void *arg);
    void *arg;
    struct vf_destroy_waiter *next;
};

const char *const vf_source_names[] = {"clone", "cold", "build", NULL};

static void run_step(struct vf_instance *vm);

/* ---- failing */

const struct vf_vmm_ops *vf_instance_ops(const struct vf_instance *vm)
{
    return vf_vmm_find(vf_spec_vmm_names[vm->spec.vmm]);
}

static bool kvm_is_to_blame(const struct vf_instance *vm, const struct vf_error *err)
{
    struct vf_vmm_caps caps;
    vf_instance_ops(vm)->capabilities(NULL, &caps);
    if (!caps.tcg)
        return false;
    return vm->spec.accel == VF_ACCEL_AUTO && vm->accel == VF_ACCEL_KVM && vm->step->boots &&
           (err->code == VF_VMM_FAILED || err->code == VF_TIMEOUT || err->code == VF_VMM_DIED);
}

static void fail(struct vf_instance *vm, const struct vf_error *err)
{
    if (vm->state == VF_INSTANCE_DESTROYING)
        return;
    vm->error = *err;
    if (vm->state == VF_INSTANCE_MAKING) {
        if (kvm_is_to_blame(vm, err)) {
            vm->factory->kvm_failed = true;
            vm->retry_with_tcg = true;
        }
        if (vm->vm)
            vf_vm_hint_last_words(vm->vm, &vm->error);
        vf_wrap(&vm->error, "%s", vm->step->stage);
    }
    vm->state = VF_INSTANCE_DESTROYING;
    atomic_store(&vm->given_up, true);
    vf_instance_abort_fetch(vm);
    vf_instance_teardown(vm);
}

/* A VM event or a broken channel: the end of a VM in the making, news to the owner of a ready one. */
void vf_instance_died(void *arg, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    if (vm->state == VF_INSTANCE_MAKING)
        fail(vm, err);
    else if (vm->state == VF_INSTANCE_READY) {
        vf_death_cb cb = vm->on_death;
        vm->on_death = NULL;
        if (!vm->dead)
            vm->error = *err;
        vm->dead = true; /* remembered for an owner who has not asked yet */
        if (cb)
            cb(vm->death_arg, vm, err);
        if (vm->agent_open)
            vf_agent_break(&vm->agent, err); /* commands need not wait for their deadlines */
    }
}

void vf_instance_on_vm_event(void *arg, const struct vf_vm_event *ev)
{
    struct vf_instance *vm = arg;
    struct vf_error e;
    switch (ev->type) {
    case VF_VM_EVENT_FAILED:
        vf_fail(&e, VF_VMM_FAILED, "%s", ev->detail);
        break;
    case VF_VM_EVENT_EXITED:
        vf_fail(&e, VF_VMM_DIED, "the VMM %s", ev->detail);
        break;
    case VF_VM_EVENT_GUEST_PANICKED:
        vf_fail(&e, VF_GUEST_FAILED, "the guest's kernel panicked");
        break;
    case VF_VM_EVENT_GUEST_SHUTDOWN:
        vf_fail(&e, VF_GUEST_FAILED, "the guest shut down or reset itself (%s)", ev->detail);
        break;
    default:
        return;
    }
    vf_vm_hint_last_words(vm->vm, &e);
    vf_instance_died(vm, &e);
}

/* ---- running */

static void note_stage(struct vf_instance *vm)
{
    int64_t now = vf_now_us();
    if (vm->n_stages < VF_MAX_STAGES)
        vm->stages[vm->n_stages++] = (struct vf_stage){vm->step->stage, now - vm->step_began_us};
    vm->step_began_us = now;
}

void vf_instance_step_done(void *arg, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    if (vm->state != VF_INSTANCE_MAKING)
        return;
    if (err) {
        fail(vm, err);
        return;
    }
    note_stage(vm);
    if (vm->step->failpoint && !vm->of_build)
        vf_failpoint(vm->step->failpoint);
    vm->step++;
    if (vm->step->run) {
        run_step(vm);
        return;
    }
    vm->state = VF_INSTANCE_READY;
    if (!vm->standby)
        vf_instance_net_close_taps(vm);
    /* From here on its process tells what it needs of what its class pinned. */
    vf_registry_unref(vm->registry);
    vm->registry = NULL;
    vf_instance_cb done = vm->done;
    vm->done = NULL;
    done(vm->arg, vm, NULL);
}

/* For the owner's journal; builds have none. */
static int tell_step(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_factory *f = vm->factory;
    return f->on_step && !vm->of_build ? f->on_step(f->on_step_arg, vm, vm->step->stage, err) : 0;
}

static void run_step(struct vf_instance *vm)
{
    struct vf_error e = {0};
    if (vm->on_stage) {
        vm->on_stage(vm->stage_arg, vm->step->stage);
        if (vm->state != VF_INSTANCE_MAKING)
            return; /* whoever was told has cancelled it */
    }
    int r = tell_step(vm, &e);
    if (vm->state != VF_INSTANCE_MAKING)
        return;
    if (r == 0)
        r = vm->step->run(vm, &e);
    if (r < 0)
        fail(vm, &e);
    else if (r == VF_STEP_DONE)
        vf_instance_step_done(vm, NULL);
}

void vf_instance_part_ended(void *arg, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    vm->part_running = false;
    vf_instance_net_note(vm);
    if (vm->state == VF_INSTANCE_DESTROYING)
        vf_instance_teardown(vm);
    else
        vf_instance_step_done(vm, err);
}

int vf_instance_work(struct vf_instance *vm, int (*run)(struct vf_work *w, struct vf_error *err),
                     struct vf_error *err)
{
    int r = vf_work_submit(vm->factory->loop, &vm->work, run, vf_instance_part_ended, vm);
    if (r < 0)
        return vf_fail_errno(err, r, "worker");
    vm->part_running = true;
    return 0;
}

static enum vf_accel choose_accel(const struct vf_factory *f, const struct vf_spec *spec)
{
    const struct vf_vmm_ops *ops = vf_vmm_find(vf_spec_vmm_names[spec->vmm]);
    int wanted = spec->accel;
    struct vf_vmm_caps caps;
    ops->capabilities(NULL, &caps);
    if (wanted != VF_ACCEL_AUTO)
        return (enum vf_accel)wanted;
    if (f->kvm_failed && caps.tcg)
        return VF_ACCEL_TCG;
    return vf_accel_resolve(ops, f->auto_accel);
}

/* The first step of every recipe is work in another thread: it can't end before this returns. */
static int begin(struct vf_instance *vm, struct vf_error *err)
{
    vm->state = VF_INSTANCE_MAKING;
    atomic_store(&vm->given_up, false); /* by a first attempt */
    vm->step = vm->steps;
    vm->n_stages = 0;
    vm->clock_rounds = 0;
    vm->step_began_us = vf_now_us();
    /* A clone runs under what its template ran under. */
    vm->accel =
        vm->gen ? (enum vf_accel)vm->gen->manifest.vmm.accel : choose_accel(vm->factory, &vm->spec);
    vf_random(vm->machine_id, sizeof(vm->machine_id));
    vf_random(vm->entropy, sizeof(vm->entropy));
    vf_random(vm->nonce, sizeof(vm->nonce));
    /* As a version 4 UUID (RFC 9562), which machine-id(5) asks for. */
    vm->machine_id[6] = (uint8_t)((vm->machine_id[6] & 0x0f) | 0x40);
    vm->machine_id[8] = (uint8_t)((vm->machine_id[8] & 0x3f) | 0x80);
    if (vm->on_stage)
        vm->on_stage(vm->stage_arg, vm->step->stage);
    return vm->step->run(vm, err);
}

static int check_hostname(const struct vf_vm_options *o, struct vf_error *err)
{
    size_t n = o->hostname ? strlen(o->hostname) : 0;
    if (o->hostname &&
        (n == 0 || n > 63 ||
         strspn(o->hostname, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") !=
             n))
        return vf_fail(err, VF_INVALID_ARGUMENT, "hostname: 1 to 63 letters, digits, '-' and '.'");
    return 0;
}

static void take_options(struct vf_instance *vm, const struct vf_vm_options *o)
{
    uint8_t bits[6];
    vf_random(bits, sizeof(bits));
    vf_hex(bits, sizeof(bits), vm->id);
    vm->options = *o;
    if (o->hostname)
        snprintf(vm->hostname, sizeof(vm->hostname), "%s", o->hostname);
    else
        snprintf(vm->hostname, sizeof(vm->hostname), "vf-%s", vm->id);
    if (o->tap)
        snprintf(vm->tap, sizeof(vm->tap), "%s", o->tap); /* its length is checked later */
    /* Copied above, and by vf_instance_net_begin. */
    vm->options.hostname = vm->options.tap = vm->options.netns = NULL;
    vm->options.tap_fds = NULL;
    if (o->has_mac)
        memcpy(vm->mac, o->mac, 6);
    else {
        memcpy(vm->mac, bits, 6);
        vm->mac[0] = (uint8_t)((vm->mac[0] & 0xfc) | 0x02); /* locally administered, unicast */
    }
}

/* What its class decides: of a boot, as the classes are now; of all else, as it was. */
static int settle(struct vf_instance *vm, const struct vf_plan *plan, struct vf_error *err)
{
    int r = 0;
    if (plan->gen)
        r = vf_spec_settle(&vm->spec, (enum vf_spec_vmm)plan->gen->manifest.spec.vmm, err);
    else if (plan->adopt && vf_spec_knows_vmm(&vm->spec)) {
        r = vf_spec_settle(&vm->spec, (enum vf_spec_vmm)vm->spec.vmm, err);
        if (vm->spec.class_name)
            snprintf(vm->class_name, sizeof(vm->class_name), "%s", vm->spec.class_name);
    } else {
        r = vf_registry_settle(vm->factory->registry, &vm->spec, err);
        if (r == 0) {
            vm->registry = vf_registry_ref(vm->factory->registry);
            snprintf(vm->class_name, sizeof(vm->class_name), "%s",
                     vf_registry_class_of(vm->registry, &vm->spec)->name);
        }
    }
    if (r == 0 && !vf_instance_ops(vm))
        r = vf_fail(err, VF_UNSUPPORTED, "vmm: there is no driver for %s",
                    vf_spec_vmm_names[vm->spec.vmm]);
    return r;
}

int vf_instance_begin(struct vf_factory *f, const struct vf_plan *plan, vf_instance_cb done,
                      void *arg, struct vf_instance **ret_vm, struct vf_error *err)
{
    static const struct vf_vm_options no_options;
    const struct vf_vm_options *o = plan->options ? plan->options : &no_options;
    if (f->closing)
        return vf_fail(err, VF_CANCELLED, "the factory is closing");
    int r = check_hostname(o, err);
    if (r < 0)
        return r;
    struct vf_instance *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return vf_fail(err, VF_NO_MEMORY, "VM");
    vm->factory = f;
    vm->source = plan->source;
    vm->steps = vm->step = plan->steps;
    vm->dirfd = vm->memory_fd = vm->net.netns_fd = -1;
    vm->job = plan->job;
    vm->plant = plan->job != NULL;
    vm->of_build = plan->of_build;
    vm->done = done;
    vm->arg = arg;
    take_options(vm, o);
    if (plan->gen) {
        const struct vf_manifest *m = &plan->gen->manifest;
        vm->gen = vf_generation_ref(plan->gen);
        vm->due_generation = plan->gen->number;
        snprintf(vm->due_nonce, sizeof(vm->due_nonce), "%s", m->nonce);
        snprintf(vm->due_boot_id, sizeof(vm->due_boot_id), "%s", m->boot_id);
    }
    r = vf_spec_copy(plan->spec, &vm->spec, err);
    if (r == 0)
        r = settle(vm, plan, err);
    if (r == 0)
        r = plan->adopt ? vf_instance_take_adopted(vm, plan->adopt, err)
                        : vf_instance_net_begin(vm, o, err);
    if (r == 0)
        r = begin(vm, err);
    if (r < 0) {
        vf_instance_net_free(vm);
        vf_generation_unref(vm->gen);
        vf_registry_unref(vm->registry);
        vf_spec_free(&vm->spec);
        free(vm);
        return r;
    }
    vm->next = f->instances;
    f->instances = vm;
    if (ret_vm)
        *ret_vm = vm;
    return 0;
}

/* ---- taking apart; teardown is entered again at the end of each part */

static void on_agent_closed(void *arg)
{
    struct vf_instance *vm = arg;
    vm->agent_open = false;
    vf_instance_teardown(vm);
}

static void on_vm_stopped(void *arg, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    (void)err;
    vf_vm_free(vm->vm);
    vm->vm = NULL;
    vm->teardown_begun = false;
    vf_instance_teardown(vm);
}

static int end_and_remove(struct vf_instance *vm, bool *ret_ended, struct vf_error *err)
{
    int run_dirfd = vm->factory->run_dirfd;
    vm->has_dir = false;
    if (!vm->of_build)
        vf_failpoint("factory.teardown.stopped");
    /* One that could not be adopted may live. */
    int r = vm->adopted ? vf_end_recorded(run_dirfd, vm->id, err) : 0;
    *ret_ended = r == 0;
    return r < 0 ? r : vf_remove_tree(run_dirfd, vm->id, err);
}

static int remove_dir(struct vf_work *w, struct vf_error *err)
{
    struct vf_instance *vm = w->arg;
    bool ended = true;
    /* The last reference to a template's memory frees it, which takes a while too. */
    vf_generation_unref(vm->gen);
    vm->gen = NULL;
    vf_close_fd(&vm->memory_fd);
    vf_close_fd(&vm->dirfd);
    if (vm->detaching) {
        vf_instance_net_forget(vm);
        return 0;
    }
    int r = vm->has_dir ? end_and_remove(vm, &ended, err) : 0;
    vf_instance_net_end(vm, ended);
    return r;
}

static void forget(struct vf_instance *vm)
{
    for (struct vf_instance **p = &vm->factory->instances; *p; p = &(*p)->next)
        if (*p == vm) {
            *p = vm->next;
            break;
        }
}

static void gone(void *arg, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    struct vf_factory *f = vm->factory;
    (void)err; /* what could not be removed is swept at the next start */
    vm->part_running = false;
    free(vm->dir);
    free(vm->disk);
    free(vm->disk_backing);
    free(vm->cmdline);
    vm->dir = vm->disk = vm->disk_backing = vm->cmdline = NULL;
    if (vm->retry_with_tcg && !vm->destroy_waiters && !f->closing) {
        vm->retry_with_tcg = false;
        vm->teardown_begun = false;
        vf_instance_net_again(vm);
        struct vf_error e;
        if (begin(vm, &e) < 0)
            fail(vm, &e);
        return;
    }
    if (vm->net.has_total && f->on_traffic && !vm->of_build)
        f->on_traffic(f->on_traffic_arg, vm, &vm->net.total);
    forget(vm);
    vf_instance_net_free(vm);
    vf_spec_free(&vm->spec);
    vf_runtime_free(&vm->runtime);
    vf_registry_unref(vm->registry);
    if (vm->done) {
        struct vf_error e = vm->error;
        vm->done(vm->arg, NULL, &e);
    }
    while (vm->destroy_waiters) {
        struct vf_destroy_waiter *w = vm->destroy_waiters;
        vm->destroy_waiters = w->next;
        w->done(w->arg);
        free(w);
    }
    free(vm);
    vf_factory_check_closed(f);
}

void vf_instance_teardown(struct vf_instance *vm)
{
    struct vf_error e;
    if (vm->part_running || vm->teardown_begun)
        return; /* its end comes back here */
    if (vm->agent_open) {
        if (!vm->agent.closing)
            vf_agent_close(&vm->agent, on_agent_closed, vm);
        return;
    }
    if (vm->vm) {
        if (vf_vm_info_of(vm->vm)->state == VF_VM_NEW) {
            vf_vm_free(vm->vm);
            vm->vm = NULL;
        } else {
            vm->teardown_begun = true;
            int r = vm->detaching ? vf_vm_detach(vm->vm, on_vm_stopped, vm, &e)
                                  : vf_vm_stop(vm->vm, 0, on_vm_stopped, vm, &e);
            assert(r == 0);
            (void)r;
            return;
        }
    }
    if (vm->net.jobs)
        return; /* likewise */
    vm->teardown_begun = true;
    vm->net.again = vm->retry_with_tcg;
    int r = vf_work_submit(vm->factory->loop, &vm->work, remove_dir, gone, vm);
    assert(r == 0);
    (void)r;
}

void vf_instance_destroy(struct vf_instance *vm, void (*done)(void *arg), void *arg)
{
    if (done) {
        struct vf_destroy_waiter *w = malloc(sizeof(*w));
        if (!w)
            abort(); /* a few bytes: nothing sensible is left to do */
        *w = (struct vf_destroy_waiter){done, arg, vm->destroy_waiters};
        vm->destroy_waiters = w;
    }
    vm->retry_with_tcg = false;
    if (vm->state == VF_INSTANCE_DESTROYING)
        return;
    struct vf_error e;
    vf_fail(&e, VF_CANCELLED, "cancelled");
    vm->on_death = NULL;
    fail(vm, &e);
}

void vf_instance_detach(struct vf_instance *vm, void (*done)(void *arg), void *arg)
{
    struct vf_vmm_caps caps;
    vf_vmm_find(vf_spec_vmm_names[vm->spec.vmm])->capabilities(NULL, &caps);
    /* One that is being adopted can be adopted again. */
    bool whole = vm->state == VF_INSTANCE_READY || (vm->adopted && vm->state == VF_INSTANCE_MAKING);
    if (whole && caps.adopt && !vm->factory->die_with_parent)
        vm->detaching = true;
    vf_instance_destroy(vm, done, arg);
}

/* ---- a ready VM's other recipes */

int vf_instance_run_again(struct vf_instance *vm, const struct vf_step *steps, vf_instance_cb done,
                          void *arg, struct vf_error *err)
{
    if (vm->state != VF_INSTANCE_READY)
        return vf_fail(err, VF_CONFLICT, "the VM is %s",
                       vm->state == VF_INSTANCE_MAKING ? "not ready yet" : "being destroyed");
    vf_random(vm->entropy, sizeof(vm->entropy));
    vm->steps = vm->step = steps;
    vm->n_stages = 0;
    vm->step_began_us = vf_now_us();
    int r = tell_step(vm, err);
    if (vm->state != VF_INSTANCE_READY)
        return vf_fail(err, VF_CANCELLED, "cancelled");
    if (r == 0)
        r = steps->run(vm, err);
    if (r < 0)
        return r;
    vm->state = VF_INSTANCE_MAKING;
    vm->done = done;
    vm->arg = arg;
    return 0;
}

/* ---- what owners ask */

void vf_instance_on_death(struct vf_instance *vm, vf_death_cb cb, void *arg)
{
    if (vm->dead && cb) {
        cb(arg, vm, &vm->error);
        return;
    }
    vm->on_death = cb;
    vm->death_arg = arg;
}

const char *vf_instance_id(const struct vf_instance *vm)
{
    return vm->id;
}

const char *vf_instance_class(const struct vf_instance *vm)
{
    if (vm->gen)
        return vm->gen->manifest.vmm.class_name;
    return vm->class_name[0] ? vm->class_name : NULL;
}

enum vf_source vf_instance_source(const struct vf_instance *vm)
{
    return vm->source;
}

const struct vf_proof *vf_instance_proof(const struct vf_instance *vm)
{
    return &vm->proof;
}

const struct vf_stage *vf_instance_stages(const struct vf_instance *vm, int *ret_n)
{
    *ret_n = vm->n_stages;
    return vm->stages;
}

struct vf_agent *vf_instance_agent(struct vf_instance *vm)
{
    return &vm->agent;
}

struct vf_vm *vf_instance_vm(struct vf_instance *vm)
{
    return vm->vm;
}

const struct vf_spec *vf_instance_spec(const struct vf_instance *vm)
{
    return &vm->spec;
}

const char *vf_instance_dir(const struct vf_instance *vm)
{
    return vm->dir;
}

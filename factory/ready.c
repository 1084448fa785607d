/* What a ready VM can be asked: to park and to wake up, to be brought to life out of standby, for a sign of
 * life. All but the last are recipes; whatever fails in one ends the VM.
 */
#include <stdlib.h>
#include "factory/instance.h"

static const struct vf_step park_recipe[] = {{"pause", vf_step_pause, false, NULL}, VF_LAST_STEP};

static const struct vf_step wake_recipe[] = {
    {"resume", vf_step_resume, false, "factory.resumed"},
    {"renew", vf_step_renew, false, "factory.proved"},
    VF_LAST_STEP,
};

/* Of a VM that has not answered since its channel was connected: it must first be in step again. */
static const struct vf_step wake_adopted_recipe[] = {
    {"resume", vf_step_resume_clone, false, "factory.resumed"},
    {"renew", vf_step_prove, false, "factory.proved"},
    VF_LAST_STEP,
};

static const struct vf_step bring_recipe[] = {
    {"restore", vf_step_restore, false, "factory.restored"},
    {"resume", vf_step_resume_clone, false, "factory.resumed"},
    {"prove", vf_step_prove, false, "factory.proved"},
    VF_LAST_STEP,
};

int vf_instance_park(struct vf_instance *vm, vf_instance_cb done, void *arg, struct vf_error *err)
{
    return vf_instance_run_again(vm, park_recipe, done, arg, err);
}

int vf_instance_wake(struct vf_instance *vm, vf_instance_cb done, void *arg, struct vf_error *err)
{
    const struct vf_step *steps = vm->agent.greeted ? wake_recipe : wake_adopted_recipe;
    if (vm->state == VF_INSTANCE_READY && vf_vm_info_of(vm->vm)->state != VF_VM_PAUSED)
        return vf_fail(err, VF_CONFLICT, "the VM is not parked: it is %s",
                       vf_vm_state_name(vf_vm_info_of(vm->vm)->state));
    return vf_instance_run_again(vm, steps, done, arg, err);
}

int vf_instance_bring(struct vf_instance *vm, vf_instance_cb done, void *arg, struct vf_error *err)
{
    if (!vm->standby)
        return vf_fail(err, VF_CONFLICT, "the VM does not stand by");
    int r = vf_generation_still_valid(vm->gen, err);
    if (r == 0)
        r = vf_instance_run_again(vm, bring_recipe, done, arg, err);
    if (r == 0)
        vm->standby = false;
    return r;
}

/* ---- ping */

struct ping {
    vf_done_cb done;
    void *arg;
};

static void on_pong(void *arg, const struct vf_wire_frame *f, const struct vf_error *err)
{
    struct ping *p = arg;
    struct ping copy = *p;
    (void)f;
    free(p);
    copy.done(copy.arg, err);
}

int vf_instance_ping(struct vf_instance *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                     struct vf_error *err)
{
    struct vf_wire_writer w;
    if (vm->state != VF_INSTANCE_READY || vm->standby)
        return vf_fail(err, VF_CONFLICT, "ping: the VM is not ready");
    struct ping *p = malloc(sizeof(*p));
    if (!p)
        return vf_fail(err, VF_NO_MEMORY, "ping");
    *p = (struct ping){done, arg};
    vf_agent_start(&vm->agent, &w, VF_MSG_PING);
    int r = vf_agent_request(&vm->agent, &w, VF_MSG_PONG, timeout_ms, on_pong, p, err);
    if (r < 0)
        free(p);
    return r;
}

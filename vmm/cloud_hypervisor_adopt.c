/* A Cloud Hypervisor that an earlier process of ours has launched.
 *
 * Happy path: open the process by number and start time, open the event monitor's FIFO again, ask vmm.ping for the
 * version and vm.info for the state. Its API socket listens for as long as it lives, and no connection outlives a
 * request, so there is none to be taken over.
 * On the way: the process has ended; it is stuck (the front's deadline); it is in a state no VM is left in: it was
 * being restored, or has never begun.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "base/clock.h"
#include "base/fd.h"
#include "vmm/cloud_hypervisor.h"

static void on_info(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    struct vf_error e;
    /* No VM at all is 404 or 500, by version. */
    if (vf_ch_ended(c, VF_VM_OP_ADOPT, err))
        return;
    const char *state = vf_json_str(vf_json_get(reply->json, "state"), "unknown");
    bool running = strcmp(state, "Running") == 0;
    if (!running && strcmp(state, "Paused") != 0) {
        vf_fail(&e, VF_VMM_FAILED, "Cloud Hypervisor's VM is in state %.32s", state);
        vf_ch_op_done(c, &e);
        return;
    }
    vf_ch_take_info(c, reply->json);
    c->vm.info.state = running ? VF_VM_RUNNING : VF_VM_PAUSED;
    c->vm.info.connect_us = vf_now_us() - c->launched_us;
    vf_ch_op_done(c, NULL);
}

static void on_ping(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    struct vf_error e;
    if (vf_ch_ended(c, VF_VM_OP_ADOPT, err))
        return;
    if (vf_ch_take_version(c, reply->json, &e) < 0 ||
        vf_ch_send(c, true, "vm.info", NULL, NULL, 0, on_info, &e) < 0)
        vf_ch_op_done(c, &e);
}

int vf_ch_adopt(struct vf_vm *vm, const struct vf_vm_adopt *a, struct vf_error *err)
{
    struct vf_ch *c = (struct vf_ch *)vm;
    c->adopted = c->has_cfg = true;
    c->cfg.balloon = a->balloon;
    c->cfg.memory_size = a->memory_size;
    c->launched_us = vf_now_us();
    c->dirfd = fcntl(a->dirfd, F_DUPFD_CLOEXEC, 0);
    if (c->dirfd < 0)
        return vf_fail_errno(err, errno, "the VM's directory");
    int r = vf_process_open(a->pid, a->start_ticks, &c->process, err);
    /* A process that could not be had may live: whoever ends it needs its record. */
    if (r == 0 || r == vf_code_errno(VF_NOT_FOUND))
        c->files = (1u << VF_CH_FILE_COUNT) - 1;
    if (r < 0)
        return r;
    c->launched = true;
    vm->info.pid = a->pid;
    /* Its output ended with the process before; events that can't be had are only missed. */
    int events = openat(c->dirfd, vf_ch_file_names[VF_CH_EVENTS],
                        O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    r = vf_ch_open_handles(c, -1, events, err);
    if (r < 0)
        return r;
    return vf_ch_send(c, true, "vmm.ping", NULL, NULL, 0, on_ping, err);
}

/* A Firecracker that an earlier process of ours has launched.
 *
 * Happy path: open the process by number and start time, ask it for its state and version. Its FIFOs, or its vsock, wait
 * for whoever connects next.
 * On the way: the process has ended; it is stuck (the front's deadline); it never got as far as to run a guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "vmm/firecracker.h"

static void on_instance(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                        const struct vf_error *err)
{
    struct vf_vm_info *info = &f->vm.info;
    struct vf_error e;
    if (err) {
        vf_vm_op_done(&f->vm, err);
        return;
    }
    const char *state = vf_json_str(vf_json_get(reply->json, "state"), "");
    bool running = strcmp(state, "Running") == 0;
    if (!running && strcmp(state, "Paused") != 0) {
        vf_fail(&e, VF_VMM_FAILED, "Firecracker's state is '%.64s'", state);
        vf_vm_op_done(&f->vm, &e);
        return;
    }
    const char *version = vf_json_str(vf_json_get(reply->json, "vmm_version"), "");
    snprintf(info->version, sizeof(info->version), "%s", version);
    f->version = vf_firecracker_version(version);
    if (f->vm.op == VF_VM_OP_ADOPT)
        info->state = running ? VF_VM_RUNNING : VF_VM_PAUSED;
    info->connect_us = vf_now_us() - f->launched_us;
    vf_vm_op_done(&f->vm, NULL);
}

int vf_firecracker_adopt(struct vf_vm *vm, const struct vf_vm_adopt *a, struct vf_error *err)
{
    struct vf_firecracker *f = (struct vf_firecracker *)vm;
    f->balloon = a->balloon;
    f->launched_us = vf_now_us();
    f->dirfd = fcntl(a->dirfd, F_DUPFD_CLOEXEC, 0);
    if (f->dirfd < 0)
        return vf_fail_errno(err, errno, "the VM's directory");
    int r = vf_process_open(a->pid, a->start_ticks, &f->process, err);
    /* A process that could not be had may live: whoever ends it needs its record. */
    if (r == 0 || r == vf_code_errno(VF_NOT_FOUND))
        f->files = (1u << VF_FIRECRACKER_FILE_COUNT) - 1;
    if (r < 0)
        return r;
    f->launched = true;
    vm->info.pid = a->pid;
    r = vf_firecracker_open_handles(f, -1, err); /* its log ended with the process before */
    if (r == 0)
        r = vf_vmm_http_open(vm->loop, f->dirfd, VF_FIRECRACKER_API_NAME, &f->http, err);
    return r < 0 ? r : vf_firecracker_ask(f, "GET", "/", NULL, on_instance, err);
}

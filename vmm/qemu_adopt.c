/* A QEMU that an earlier process of ours has launched.
 *
 * Happy path: open the process by number and start time, connect to QMP, wait for the greeting, negotiate, ask for
 * the run state. QEMU keeps its listening sockets and serves one client at a time: a connection waits
 * there until QEMU has seen the end of the one before, so nothing is polled for. What QEMU was told at its creation
 * (the migration capabilities) it still knows.
 * On the way: the process has ended; it is stuck (the front's deadline); it is in a state no VM is left in:
 * it was being restored, or has never begun.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/fd.h"
#include "vmm/qemu.h"

static void on_status(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    struct vf_qemu *q = arg;
    struct vf_error e;
    if (err) {
        vf_qemu_op_done(q, err);
        return;
    }
    const char *status = vf_json_str(vf_json_get(ret, "status"), "");
    if (strcmp(status, "running") != 0 && strcmp(status, "paused") != 0) {
        vf_fail(&e, VF_VMM_FAILED, "QEMU's run state is %.64s", status);
        vf_qemu_op_done(q, &e);
        return;
    }
    if (q->vm.op == VF_VM_OP_ADOPT)
        q->vm.info.state = status[0] == 'r' ? VF_VM_RUNNING : VF_VM_PAUSED;
    q->vm.info.connect_us = vf_now_us() - q->launched_us;
    vf_qemu_op_done(q, NULL);
}

int vf_qemu_ask_adopted(struct vf_qemu *q, struct vf_error *err)
{
    return vf_qmp_execute(&q->qmp, "query-status", NULL, -1, on_status, q, err);
}

int vf_qemu_adopt(struct vf_vm *vm, const struct vf_vm_adopt *a, struct vf_error *err)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    int qmp = -1, console = -1;
    q->adopted = true;
    q->balloon = a->balloon;
    q->launched_us = vf_now_us();
    q->dirfd = fcntl(a->dirfd, F_DUPFD_CLOEXEC, 0);
    if (q->dirfd < 0)
        return vf_fail_errno(err, errno, "the VM's directory");
    int r = vf_process_open(a->pid, a->start_ticks, &q->process, err);
    /* A process that could not be had may live: whoever ends it needs its record. */
    if (r == 0 || r == vf_code_errno(VF_NOT_FOUND))
        q->files = (1u << VF_QEMU_FILE_COUNT) - 1;
    if (r < 0)
        return r;
    q->launched = true;
    vm->info.pid = a->pid;
    r = vf_unix_connect(q->dirfd, vf_qemu_file_names[VF_QEMU_QMP_SOCKET], &qmp, err);
    if (r < 0)
        return r;
    /* Its stderr ended with the process before; a console that can't be had is only missed in messages. */
    vf_unix_connect(q->dirfd, vf_qemu_file_names[VF_QEMU_CONSOLE_SOCKET], &console, NULL);
    return vf_qemu_open_handles(q, qmp, -1, console, err);
}

/* Save and restore: QEMU's migration to and from a file, memory left aside.
 *
 * The stream goes through a descriptor passed by SCM_RIGHTS (getfd), so that QEMU needs neither a path nor
 * a child process, and `-sandbox spawn=deny` can stay on. x-ignore-shared (set by create) leaves
 * shared memory out of the stream: a save of 4 GiB writes as little as one of 256 MiB. The end is
 * the MIGRATION event `completed`; after a save QEMU sends it a moment before it takes `cont` again, so
 * its run state is asked until it has moved on. `failed` and `cancelled` end a save with what
 * query-migrate says; a failed restore ends QEMU itself (its exit and last words make the error).
 */
#include "vmm/qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"

static void on_save_failure(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    struct vf_qemu *q = arg;
    struct vf_error e;
    if (err && err->code == VF_VMM_DIED) {
        vf_qemu_op_done(q, err);
        return;
    }
    vf_fail(&e, VF_VMM_FAILED, "QEMU could not write the state: %.200s",
            err ? err->msg : vf_json_str(vf_json_get(ret, "error-desc"), "no reason given"));
    vf_qemu_op_done(q, &e);
}

static void fail_op(struct vf_qemu *q, const struct vf_error *err)
{
    q->migrating = false;
    vf_qemu_op_done(q, err);
}

static void ask_finished(struct vf_qemu *q);

static void on_finished(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    struct vf_qemu *q = arg;
    if (!err && strcmp(vf_json_str(vf_json_get(ret, "status"), ""), "finish-migrate") == 0) {
        if (q->vm.op == VF_VM_OP_SAVE) /* else the deadline was faster */
            ask_finished(q);
        return;
    }
    vf_qemu_op_done(q, err);
}

static void ask_finished(struct vf_qemu *q)
{
    struct vf_error e;
    if (vf_qmp_execute(&q->qmp, "query-status", NULL, -1, on_finished, q, &e) < 0)
        vf_qemu_op_done(q, &e);
}

void vf_qemu_on_migration(struct vf_qemu *q, const char *status)
{
    struct vf_error e;
    if (!q->migrating)
        return;
    if (strcmp(status, "completed") == 0) {
        q->migrating = false;
        if (q->vm.op == VF_VM_OP_SAVE)
            ask_finished(q);
        else
            vf_qemu_op_done(q, NULL);
    } else if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0) {
        q->migrating = false;
        if (q->vm.op == VF_VM_OP_RESTORE)
            return; /* QEMU now exits, with its reason on stderr */
        if (vf_qmp_execute(&q->qmp, "query-migrate", NULL, -1, on_save_failure, q, &e) < 0)
            vf_qemu_op_done(q, &e);
    }
}

/* A command of the chain was refused: the operation ends here. */
static void on_step(void *arg, const struct vf_json *ret, const struct vf_error *err)
{
    (void)ret;
    if (err)
        fail_op(arg, err);
}

/* Both are sent without waiting between them; QEMU takes them in order. */
static int migrate(struct vf_qemu *q, int fd, const char *command, struct vf_error *err)
{
    int r = vf_qmp_execute(&q->qmp, "getfd", "{\"fdname\":\"state\"}", fd, on_step, q, err);
    if (r == 0)
        r = vf_qmp_execute(&q->qmp, command, "{\"uri\":\"fd:state\"}", -1, on_step, q, err);
    if (r == 0)
        q->migrating = true;
    return r;
}

int vf_qemu_save(struct vf_vm *vm, int dirfd, struct vf_error *err)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    VF_CLEANUP_FD int fd = openat(dirfd, VF_QEMU_STATE_FILE,
                                  O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return vf_fail_errno(err, errno, "state file '" VF_QEMU_STATE_FILE "'");
    /* The default limit of 128 MiB/s is for live migration over a network. */
    int r = vf_qmp_execute(&q->qmp, "migrate-set-parameters", "{\"max-bandwidth\":1099511627776}",
                           -1, on_step, q, err);
    return r < 0 ? r : migrate(q, fd, "migrate", err);
}

int vf_qemu_restore(struct vf_vm *vm, int dirfd, struct vf_error *err)
{
    struct vf_qemu *q = (struct vf_qemu *)vm;
    VF_CLEANUP_FD int fd = openat(dirfd, VF_QEMU_STATE_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return vf_fail_errno(err, errno, "state file '" VF_QEMU_STATE_FILE "'");
    /* A clone has not moved: its NIC has nothing to announce, least of all the template's MAC. */
    int r = vf_qmp_execute(&q->qmp, "migrate-set-parameters", "{\"announce-rounds\":0}", -1,
                           on_step, q, err);
    return r < 0 ? r : migrate(q, fd, "migrate-incoming", err);
}

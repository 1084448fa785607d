/* Steps that recipes share: prepare, create, start, restore, resume, pause.
 *
 * prepare makes the VM's own directory, its memory (a clone has none of its own: it maps its template's
 * privately) its disk, and a network for it; create brings the VMM up. The agent's channel is connected by whichever of
 * create, start and restore is the first after which the VMM has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "base/fd.h"
#include "factory/cmdline.h"
#include "factory/instance.h"
#include "templates/memory.h"

static int make_dir(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_factory *f = vm->factory;
    if (mkdirat(f->run_dirfd, vm->id, 0700) < 0)
        return vf_fail_errno(err, errno, "%s/%s", f->run_dir, vm->id);
    if (!vm->of_build)
        vf_failpoint("factory.prepare.after-mkdir");
    vm->has_dir = true;
    vm->dirfd = openat(f->run_dirfd, vm->id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (vm->dirfd < 0)
        return vf_fail_errno(err, errno, "%s/%s", f->run_dir, vm->id);
    if (asprintf(&vm->dir, "%s/%s", f->run_dir, vm->id) < 0) {
        vm->dir = NULL;
        return vf_fail(err, VF_NO_MEMORY, "VM");
    }
    return 0;
}

/* A clone has none of its own. */
static int make_memory(struct vf_instance *vm, struct vf_error *err)
{
    uint64_t size = vf_spec_memory_bytes(&vm->spec);
    struct vf_vmm_caps caps;
    vf_instance_ops(vm)->capabilities(NULL, &caps);
    if (vm->gen)
        return 0;
    if (vm->job && caps.linked_memory)
        return vf_memory_create_file(vm->dirfd, VF_MEMORY_NAME, size, &vm->memory_fd, err);
    return vf_memory_create(size, vm->spec.name, &vm->memory_fd, err);
}

static int prepare(struct vf_work *w, struct vf_error *err)
{
    struct vf_instance *vm = w->arg;
    int r = vm->job   ? 0 /* at its own first step */
            : vm->gen ? vf_instance_recall(vm, err)
                      : vf_instance_resolve(vm, err);
    if (r == 0)
        r = make_dir(vm, err);
    if (r == 0)
        r = make_memory(vm, err);
    if (r == 0)
        r = vf_disk_make(vm, err);
    if (r == 0)
        r = vf_instance_net_take(vm, err);
    if (r == 0 && !vm->gen && !(vm->cmdline = vf_kernel_cmdline(&vm->spec, vm->accel)))
        r = vf_fail(err, VF_NO_MEMORY, "command line");
    return r;
}

int vf_step_prepare(struct vf_instance *vm, struct vf_error *err)
{
    return vf_instance_work(vm, prepare, err);
}

/* ---- create */

static void on_asked(void *arg, const struct vf_error *err)
{
    struct vf_error e;
    if (!err)
        vf_fail(&e, VF_VMM_FAILED, "the VMM lives, but has closed the agent's socket");
    vf_instance_step_done(arg, err ? err : &e);
}

/* Nobody has the socket any more that the VMM was born with. It has ended as it came up, most likely, and whoever asks it is
 * told how. */
static void ask_why(struct vf_instance *vm)
{
    struct vf_error e;
    if (vf_vm_query(vm->vm, vm->factory->create_timeout_ms, on_asked, vm, &e) < 0)
        vf_instance_step_done(vm, &e);
}

void vf_step_connect_agent(void *arg, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    struct vf_error e;
    if (vm->state != VF_INSTANCE_MAKING)
        return;
    if (!err) {
        enum vf_channel channel = (enum vf_channel)vm->spec.agent.channel;
        enum vf_link link = vf_vm_link_of(vf_instance_ops(vm), channel);
        int r = vf_agent_open(&vm->agent, vm->factory->loop, vm->dirfd, link,
                              channel == VF_CHANNEL_SERIAL, vf_instance_died, vm, &e);
        vm->agent_open = vm->agent.open_handles > 0;
        vf_close_fd(&vm->dirfd); /* a descriptor less for each VM there is */
        if (r == -ECONNREFUSED) {
            ask_why(vm);
            return;
        }
        if (r < 0)
            err = &e;
    }
    vf_instance_step_done(vm, err);
}

int vf_step_create(struct vf_instance *vm, struct vf_error *err)
{
    const struct vf_spec *s = &vm->spec;
    int r = vf_vm_new(vm->factory->loop, vf_instance_ops(vm), vf_instance_on_vm_event, vm, &vm->vm,
                      err);
    if (r < 0)
        return r;
    struct vf_vm_config c = {
        .id = vm->id,
        .dirfd = vm->dirfd,
        .binary = vf_instance_binary(vm),
        .no_sandbox = !vf_instance_sandboxed(vm),
        .machine = (enum vf_machine)s->machine,
        .accel = vm->accel,
        .vcpus = (int)s->vcpus,
        .memory_size = vf_spec_memory_bytes(s),
        .memory_fd = vm->gen ? vm->gen->memory_fd : vm->memory_fd,
        .memory_shared = !vm->gen,
        .incoming = vm->gen != NULL,
        .kernel = s->boot.kernel,
        .initrd = s->boot.initrd,
        .cmdline = vm->cmdline,
        .channel = (enum vf_channel)s->agent.channel,
        .console = !vm->gen && s->agent.channel != VF_CHANNEL_SERIAL,
        .balloon = s->balloon,
        /* A half-built template is of no use to anyone. */
        .die_with_parent = vm->factory->die_with_parent || vm->of_build,
        .create_timeout_ms = vm->factory->create_timeout_ms,
    };
    if (s->boot.has_root)
        vf_disk_describe(vm, &c.disks[c.n_disks++]);
    vf_instance_net_describe(vm, &c);
    struct vf_vmm_caps caps;
    vf_instance_ops(vm)->capabilities(NULL, &caps);
    bool early = caps.early_channel && c.channel != VF_CHANNEL_VSOCK;
    r = vf_vm_create(vm->vm, &c, early ? vf_step_connect_agent : vf_instance_step_done, vm, err);
    if (r == 0)
        vf_instance_net_handed(vm);
    return r;
}

/* What ends a step after which the VMM has its channel, if it had none before. */
static vf_done_cb connect_then(const struct vf_instance *vm)
{
    return vm->agent_open ? vf_instance_step_done : vf_step_connect_agent;
}

/* By now a VMM has its tap. */
static void on_devices(void *arg, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    struct vf_error e;
    if (vm->state != VF_INSTANCE_MAKING)
        return;
    vf_done_cb next = connect_then(vm);
    if (err || !vf_instance_net_must_settle(vm))
        next(vm, err);
    else if (vf_instance_net_settle(vm, next, vm, &e) < 0)
        next(vm, &e);
}

int vf_step_start(struct vf_instance *vm, struct vf_error *err)
{
    return vf_vm_start(vm->vm, 0, on_devices, vm, err);
}

int vf_step_restore(struct vf_instance *vm, struct vf_error *err)
{
    return vf_vm_restore(vm->vm, vm->gen->dirfd, 0, on_devices, vm, err);
}

int vf_step_resume(struct vf_instance *vm, struct vf_error *err)
{
    return vf_vm_resume(vm->vm, 0, vf_instance_step_done, vm, err);
}

int vf_step_pause(struct vf_instance *vm, struct vf_error *err)
{
    return vf_vm_pause(vm->vm, 0, vf_instance_step_done, vm, err);
}

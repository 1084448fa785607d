/* Steps that recipes share: prepare, create, start, restore, resume, pause.
 *
 * prepare makes the VM's own directory, its memory (a clone has none of its own: it maps its template's
 * privately) and its overlay; create brings the VMM up and connects the agent's channel.
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
#include "factory/overlay.h"
#include "templates/memory.h"

#define OVERLAY "overlay.qcow2" /* the template's own, frozen with it */
#define EMPTY "clone.qcow2"     /* an empty one, copied for each clone */

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

static int set_disk(struct vf_instance *vm, const char *dir, const char *name, struct vf_error *err)
{
    if (asprintf(&vm->disk, "%s/%s", dir, name) < 0) {
        vm->disk = NULL;
        return vf_fail(err, VF_NO_MEMORY, "disk");
    }
    return 0;
}

static int make_disk(struct vf_instance *vm, struct vf_error *err)
{
    const struct vf_spec *s = &vm->spec;
    int r;
    if (!s->boot.has_root)
        return 0;
    if (vm->gen) {
        if (asprintf(&vm->disk_backing, "%s/" OVERLAY, vm->gen->path) < 0) {
            vm->disk_backing = NULL;
            return vf_fail(err, VF_NO_MEMORY, "disk");
        }
        r = vf_overlay_copy(vm->gen->dirfd, EMPTY, vm->dirfd, "disk.qcow2", err);
        return r < 0 ? r : set_disk(vm, vm->dir, "disk.qcow2", err);
    }
    const char *format = vf_image_format_names[s->boot.root.format];
    if (!vm->job) {
        r = vf_overlay_create(vm->dir, "disk.qcow2", s->boot.root.image, format, err);
        return r < 0 ? r : set_disk(vm, vm->dir, "disk.qcow2", err);
    }
    r = vf_overlay_create(vf_job_path(vm->job), OVERLAY, s->boot.root.image, format, err);
    if (r == 0)
        r = vf_overlay_copy(vf_job_dirfd(vm->job), OVERLAY, vf_job_dirfd(vm->job), EMPTY, err);
    return r < 0 ? r : set_disk(vm, vf_job_path(vm->job), OVERLAY, err);
}

static int prepare(struct vf_work *w, struct vf_error *err)
{
    struct vf_instance *vm = w->arg;
    int r = make_dir(vm, err);
    if (r == 0 && !vm->gen)
        r = vf_memory_create(vf_spec_memory_bytes(&vm->spec), vm->spec.name, &vm->memory_fd, err);
    if (r == 0)
        r = make_disk(vm, err);
    if (r == 0 && !vm->gen && !(vm->cmdline = vf_kernel_cmdline(&vm->spec, vm->accel)))
        r = vf_fail(err, VF_NO_MEMORY, "command line");
    return r;
}

int vf_step_prepare(struct vf_instance *vm, struct vf_error *err)
{
    return vf_instance_work(vm, prepare, err);
}

/* ---- create */

void vf_step_connect_agent(void *arg, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    struct vf_error e;
    if (vm->state != VF_INSTANCE_MAKING)
        return;
    if (!err) {
        int r =
            vf_agent_open(&vm->agent, vm->factory->loop, vm->dirfd, "agent.sock",
                          vm->spec.agent.channel == VF_CHANNEL_SERIAL, vf_instance_died, vm, &e);
        vm->agent_open = vm->agent.open_handles > 0;
        if (r == -ECONNREFUSED) /* nobody has the socket any more that it was born with */
            vf_fail(&e, VF_VMM_DIED, "the VMM has ended as it came up");
        if (r < 0)
            err = &e;
        vf_close_fd(&vm->dirfd); /* a descriptor less for each VM there is */
    }
    vf_instance_step_done(vm, err);
}

int vf_step_create(struct vf_instance *vm, struct vf_error *err)
{
    const struct vf_spec *s = &vm->spec;
    const struct vf_vmm_ops *ops = vf_vmm_find(vf_spec_vmm_names[s->vmm]);
    if (!ops)
        return vf_fail(err, VF_UNSUPPORTED, "vmm: there is no driver for %s",
                       vf_spec_vmm_names[s->vmm]);
    int r = vf_vm_new(vm->factory->loop, ops, vf_instance_on_vm_event, vm, &vm->vm, err);
    if (r < 0)
        return r;
    struct vf_vm_config c = {
        .id = vm->id,
        .dirfd = vm->dirfd,
        .binary = vm->gen ? vm->gen->manifest.vmm.path : vm->factory->binaries[s->vmm],
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
    if (s->boot.has_root) {
        const char *format = vf_image_format_names[s->boot.root.format];
        c.disks[0] = (struct vf_vm_disk){.path = vm->disk, .format = "qcow2"};
        if (vm->disk_backing) {
            c.disks[0].backing = vm->disk_backing;
            c.disks[0].backing_format = "qcow2";
            c.disks[0].backing2 = s->boot.root.image;
            c.disks[0].backing2_format = format;
        } else {
            c.disks[0].backing = s->boot.root.image;
            c.disks[0].backing_format = format;
        }
        c.n_disks = 1;
    }
    if (s->network.enabled) {
        c.nics[0].tap = vm->tap[0] ? vm->tap : NULL;
        memcpy(c.nics[0].mac, vm->mac, 6);
        c.n_nics = 1;
    }
    return vf_vm_create(vm->vm, &c, vf_step_connect_agent, vm, err);
}

int vf_step_start(struct vf_instance *vm, struct vf_error *err)
{
    return vf_vm_start(vm->vm, 0, vf_instance_step_done, vm, err);
}

int vf_step_restore(struct vf_instance *vm, struct vf_error *err)
{
    return vf_vm_restore(vm->vm, vm->gen->dirfd, 0, vf_instance_step_done, vm, err);
}

int vf_step_resume(struct vf_instance *vm, struct vf_error *err)
{
    return vf_vm_resume(vm->vm, 0, vf_instance_step_done, vm, err);
}

int vf_step_pause(struct vf_instance *vm, struct vf_error *err)
{
    return vf_vm_pause(vm->vm, 0, vf_instance_step_done, vm, err);
}

/* A VM's root disk: nobody writes to the image that the spec names.
 *
 *     qcow2 VMMs   template: an overlay of the image, frozen with it (OVERLAY), and an empty one (EMPTY);
 *                  clone: a copy of the empty one, over the template's overlay; cold boot: an overlay of the image
 *     raw VMMs     template: a copy of the image (COPY), frozen with it; clone: a copy of that; cold boot: of the image
 *
 * A copy shares its blocks with the original where the file system can (reflink), and leaves holes as they are. One that
 * does not share them ends soon if its VM is given up.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "factory/instance.h"
#include "factory/overlay.h"

#define OVERLAY "overlay.qcow2"
#define EMPTY "clone.qcow2"
#define COPY "disk.raw"
#define OWN_OVERLAY "disk.qcow2"

static bool takes_qcow2(const struct vf_instance *vm)
{
    struct vf_vmm_caps caps;
    vf_instance_ops(vm)->capabilities(NULL, &caps);
    return caps.qcow2;
}

static int join(const char *dir, const char *name, char **ret, struct vf_error *err)
{
    char *path;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        return vf_fail(err, VF_NO_MEMORY, "disk");
    *ret = path;
    return 0;
}

/* A copy may take long. */
static bool is_wanted(void *arg)
{
    const struct vf_instance *vm = arg;
    return !atomic_load(&vm->given_up);
}

static int make_raw(struct vf_instance *vm, struct vf_error *err)
{
    const char *dir = vm->job ? vf_job_path(vm->job) : vm->dir;
    int dirfd = vm->job ? vf_job_dirfd(vm->job) : vm->dirfd;
    int r = vf_copy_file_while(vm->gen ? vm->gen->dirfd : AT_FDCWD,
                               vm->gen ? COPY : vm->spec.boot.root.image, dirfd, COPY, 0600,
                               is_wanted, vm, err);
    return r < 0 ? r : join(dir, COPY, &vm->disk, err);
}

static int make_qcow2(struct vf_instance *vm, struct vf_error *err)
{
    const struct vf_spec *s = &vm->spec;
    const char *format = vf_image_format_names[s->boot.root.format];
    int r;
    if (vm->gen) {
        r = join(vm->gen->path, OVERLAY, &vm->disk_backing, err);
        if (r == 0)
            r = vf_copy_file(vm->gen->dirfd, EMPTY, vm->dirfd, OWN_OVERLAY, 0600, err);
        if (r == 0)
            r = vf_overlay_set_backing(vm->dirfd, OWN_OVERLAY, vm->disk_backing, err);
        return r < 0 ? r : join(vm->dir, OWN_OVERLAY, &vm->disk, err);
    }
    if (!vm->job) {
        r = vf_overlay_create(vm->dir, OWN_OVERLAY, s->boot.root.image, format, err);
        return r < 0 ? r : join(vm->dir, OWN_OVERLAY, &vm->disk, err);
    }
    r = vf_overlay_create(vf_job_path(vm->job), OVERLAY, s->boot.root.image, format, err);
    if (r == 0)
        r = vf_copy_file(vf_job_dirfd(vm->job), OVERLAY, vf_job_dirfd(vm->job), EMPTY, 0600, err);
    return r < 0 ? r : join(vf_job_path(vm->job), OVERLAY, &vm->disk, err);
}

int vf_disk_make(struct vf_instance *vm, struct vf_error *err)
{
    if (!vm->spec.boot.has_root)
        return 0;
    int r = takes_qcow2(vm) ? make_qcow2(vm, err) : make_raw(vm, err);
    return r < 0 ? vf_wrap(err, "root disk") : 0;
}

void vf_disk_describe(const struct vf_instance *vm, struct vf_vm_disk *ret)
{
    const struct vf_spec *s = &vm->spec;
    const char *format = vf_image_format_names[s->boot.root.format];
    if (!takes_qcow2(vm))
        *ret = (struct vf_vm_disk){.path = vm->disk, .format = "raw"};
    else if (vm->disk_backing)
        *ret = (struct vf_vm_disk){
            .path = vm->disk,
            .format = "qcow2",
            .backing = vm->disk_backing,
            .backing_format = "qcow2",
            .backing2 = s->boot.root.image,
            .backing2_format = format,
        };
    else
        *ret = (struct vf_vm_disk){
            .path = vm->disk,
            .format = "qcow2",
            .backing = s->boot.root.image,
            .backing_format = format,
        };
}

const char *const *vf_disk_files(const struct vf_instance *vm)
{
    static const char *const none[] = {NULL}, *const raw[] = {COPY, NULL},
                             *const qcow2[] = {OVERLAY, EMPTY, NULL};
    if (!vm->spec.boot.has_root)
        return none;
    return takes_qcow2(vm) ? qcow2 : raw;
}

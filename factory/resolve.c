/* Which binary, kernel and image a VM gets.
 *
 *     build:  (what its class pins -> fetched ->) resolved by its class, noted in the manifest
 *     cold:   resolved by its class; what was not fetched is an error that says how to get it
 *             (in both, a file that is not what was pinned is an error, and not used)
 *     clone:  recalled from the manifest, wherever its class has moved since
 *
 * What the class gives beyond the spec is put into the instance's own copy of the spec, where the other steps find it.
 */
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "factory/instance.h"

static int put(char **to, const char *path, struct vf_error *err)
{
    if (*to || !path)
        return 0;
    *to = strdup(path);
    return *to ? 0 : vf_fail(err, VF_NO_MEMORY, "class");
}

static int put_root(struct vf_spec *s, const char *path, int format, struct vf_error *err)
{
    if (s->boot.has_root || !path)
        return 0;
    int r = put(&s->boot.root.image, path, err);
    if (r == 0) {
        s->boot.root.format = format;
        s->boot.has_root = true;
    }
    return r;
}

int vf_instance_resolve(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_runtime rt;
    struct vf_spec *s = &vm->spec;
    int r = vf_registry_resolve(vm->registry, vm->factory->assets, s, &rt, err);
    if (r < 0)
        return r;
    vf_runtime_free(&vm->runtime); /* of a first attempt */
    vm->runtime = rt;
    r = put(&s->boot.kernel, rt.kernel, err);
    if (r == 0)
        r = put(&s->boot.initrd, rt.initrd, err);
    return r == 0 ? put_root(s, rt.root, rt.root_format, err) : r;
}

int vf_instance_recall(struct vf_instance *vm, struct vf_error *err)
{
    const struct vf_manifest_asset *root = vf_manifest_asset(&vm->gen->manifest, VF_ASSET_ROOT);
    VF_CLEANUP_FD int fd = -1;
    bool qcow2;
    if (vm->spec.boot.has_root || !root)
        return 0;
    int r = vf_open_regular(root->path, "root", &fd, err);
    if (r == 0)
        r = vf_spec_image_is_qcow2(fd, root->path, &qcow2, err);
    return r < 0 ? r : put_root(&vm->spec, root->path, qcow2 ? VF_IMAGE_QCOW2 : VF_IMAGE_RAW, err);
}

static bool lists(const struct vf_manifest *m, const char *sha256)
{
    const struct vf_manifest_asset *v = m->assets.items;
    bool found = m->vmm.sha256 && strcmp(m->vmm.sha256, sha256) == 0;
    for (size_t i = 0; i < m->assets.n && !found; i++)
        found = strcmp(v[i].sha256, sha256) == 0;
    return found;
}

int vf_instance_check_pins(const struct vf_instance *vm, const struct vf_manifest *m,
                           struct vf_error *err)
{
    const struct vf_asset *assets[VF_RUNTIME_MAX_ASSETS];
    int n, r = vf_registry_assets_of(vm->registry, vf_job_spec(vm->job), assets, &n, err);
    for (int i = 0; r == 0 && i < n; i++)
        if (!lists(m, vf_asset_file_here(assets[i])->sha256)) {
            vf_fail(err, VF_CORRUPT, "asset %s: its file is not what its SHA-256 says",
                    assets[i]->name);
            r = vf_hint(err, "`vmfactory asset verify %s` moves it aside; then fetch it again",
                        assets[i]->name);
        }
    return r;
}

const char *vf_instance_binary(const struct vf_instance *vm)
{
    return vm->gen ? vm->gen->manifest.vmm.path : vm->runtime.binary;
}

bool vf_instance_sandboxed(const struct vf_instance *vm)
{
    return vm->gen ? vm->gen->manifest.vmm.sandbox : vm->runtime.options.sandbox;
}

/* ---- fetching; the step ends when all have ended, with the first error */

void vf_instance_abort_fetch(struct vf_instance *vm)
{
    for (int i = 0; i < VF_RUNTIME_MAX_ASSETS; i++)
        if (vm->fetches[i].handle && !vm->fetches[i].cancelled) {
            vm->fetches[i].cancelled = true;
            vf_fetch_cancel(vm->fetches[i].handle);
        }
}

static void note_failure(struct vf_instance *vm, const struct vf_error *err)
{
    if (!vm->fetch_failed)
        vm->fetch_error = *err;
    vm->fetch_failed = true;
}

static void on_fetched(void *arg, const struct vf_error *err)
{
    struct vf_instance_fetch *f = arg;
    struct vf_instance *vm = f->vm;
    f->handle = NULL;
    if (err && !vm->fetch_failed) {
        note_failure(vm, err);
        vf_instance_abort_fetch(vm);
    }
    if (--vm->fetching == 0)
        vf_instance_part_ended(vm, vm->fetch_failed ? &vm->fetch_error : NULL);
}

static int look(struct vf_work *w, struct vf_error *err)
{
    struct vf_instance *vm = w->arg;
    const struct vf_asset *assets[VF_RUNTIME_MAX_ASSETS];
    int n, r = vf_registry_assets_of(vm->registry, vf_job_spec(vm->job), assets, &n, err);
    vm->n_missing = 0;
    for (int i = 0; r == 0 && i < n; i++) {
        VF_CLEANUP_FREE char *path = NULL;
        if (!vm->factory->assets)
            return vf_fail(err, VF_NOT_FOUND, "asset %s: there is no store of assets",
                           assets[i]->name);
        if (vf_asset_store_path(vm->factory->assets, vf_asset_file_here(assets[i])->sha256, &path,
                                NULL) < 0)
            vm->missing[vm->n_missing++] = assets[i];
    }
    return r;
}

int vf_step_look(struct vf_instance *vm, struct vf_error *err)
{
    return vf_instance_work(vm, look, err);
}

int vf_step_fetch(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_factory *f = vm->factory;
    struct vf_error e;
    if (vm->n_missing == 0)
        return VF_STEP_DONE;
    vm->fetch_failed = false;
    for (int i = 0; i < vm->n_missing && !vm->fetch_failed; i++) {
        struct vf_instance_fetch *fetch = &vm->fetches[i];
        *fetch = (struct vf_instance_fetch){.vm = vm};
        if (vf_asset_fetch(f->assets, f->loop, vm->missing[i], on_fetched, fetch, &fetch->handle,
                           &e) < 0)
            note_failure(vm, &e);
        else
            vm->fetching++;
    }
    if (vm->fetching == 0)
        return vf_error_copy(err, &vm->fetch_error);
    if (vm->fetch_failed)
        vf_instance_abort_fetch(vm);
    vm->part_running = true;
    return 0;
}

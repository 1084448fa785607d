/* Opening and closing the factory, the recipes of clones and cold boots, loading generations.
 *
 * open sweeps away what an earlier process that was killed has left in the run directory.
 * close cancels the builds and destroys every VM; the last of them to go (vf_factory_check_closed) ends
 * the factory itself.
 */
#include "factory/factory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include "base/fd.h"
#include "factory/instance.h"

#define ANSWER_TIMEOUT_MS 10000

static const struct vf_step clone_recipe[] = {
    {"prepare", vf_step_prepare, false, NULL},
    {"vmm", vf_step_create, false, "factory.vmm.created"},
    {"restore", vf_step_restore, false, "factory.restored"},
    {"resume", vf_step_resume_clone, false, "factory.resumed"},
    {"prove", vf_step_prove, false, "factory.proved"},
    VF_LAST_STEP,
};

static const struct vf_step standby_recipe[] = {
    {"prepare", vf_step_prepare, false, NULL},
    {"vmm", vf_step_create, false, "factory.vmm.created"},
    VF_LAST_STEP,
};

static const struct vf_step cold_recipe[] = {
    {"prepare", vf_step_prepare, false, NULL},
    {"vmm", vf_step_create, true, "factory.vmm.created"},
    {"start", vf_step_start, true, NULL},
    {"boot", vf_step_hello, true, NULL},
    {"renew", vf_step_renew, true, "factory.proved"},
    VF_LAST_STEP,
};

/* Directories of VMs that died with the process that had made them: its kill -9 left it no time. Whoever
 * uses the run directory holds a shared lock on it, so that nobody's VMs are swept away; VMs that outlive
 * their process are somebody's to find again. */
static int sweep(const struct vf_factory *f, struct vf_error *err)
{
    if (f->die_with_parent && flock(f->run_dirfd, LOCK_EX | LOCK_NB) == 0) {
        struct vf_names names;
        int r = vf_dir_names(f->run_dirfd, &names, err);
        if (r < 0)
            return vf_wrap(err, "run directory '%s'", f->run_dir);
        for (size_t i = 0; i < names.n; i++)
            if (strlen(names.v[i]) == VF_INSTANCE_ID_LEN &&
                strspn(names.v[i], "0123456789abcdef") == VF_INSTANCE_ID_LEN)
                vf_remove_tree(f->run_dirfd, names.v[i], NULL); /* litter does no harm */
        vf_names_free(&names);
    }
    while (flock(f->run_dirfd, LOCK_SH) < 0) /* waits at most while someone else sweeps */
        if (errno != EINTR)
            return vf_fail_errno(err, errno, "lock the run directory '%s'", f->run_dir);
    return 0;
}

static int take_registry(struct vf_factory *f, const struct vf_factory_config *cfg,
                         struct vf_error *err)
{
    struct vf_registry_config c = {0};
    if (cfg->registry) {
        f->registry = vf_registry_ref(cfg->registry);
        return 0;
    }
    memcpy(c.binaries, cfg->binaries, sizeof(c.binaries));
    return vf_registry_load(&c, &f->registry, err);
}

int vf_factory_open(uv_loop_t *loop, const struct vf_factory_config *cfg,
                    struct vf_factory **ret_factory, struct vf_error *err)
{
    struct vf_factory *f = calloc(1, sizeof(*f));
    if (!f)
        return vf_fail(err, VF_NO_MEMORY, "factory");
    *f = (struct vf_factory){
        .loop = loop,
        .store = cfg->store,
        .assets = cfg->assets,
        .networks = cfg->networks,
        .run_dirfd = -1,
        .die_with_parent = cfg->die_with_parent,
        .auto_accel = cfg->auto_accel,
        .answer_timeout_ms = cfg->answer_timeout_ms ? cfg->answer_timeout_ms : ANSWER_TIMEOUT_MS,
        .create_timeout_ms = cfg->create_timeout_ms,
        .trial_clones = cfg->trial_clones ? cfg->trial_clones : 2,
        .on_step = cfg->on_step,
        .on_step_arg = cfg->on_step_arg,
        .on_traffic = cfg->on_traffic,
        .on_traffic_arg = cfg->on_traffic_arg,
        .samples = vf_samples_new(),
    };
    int r = f->samples ? 0 : vf_fail(err, VF_NO_MEMORY, "factory");
    if (r == 0)
        r = vf_open_dir(cfg->run_dir, 1, 0700, &f->run_dirfd, err);
    if (r == 0 && !(f->run_dir = realpath(cfg->run_dir, NULL)))
        r = vf_fail_errno(err, errno, "run directory '%s'", cfg->run_dir);
    if (r == 0)
        r = sweep(f, err);
    if (r == 0)
        r = take_registry(f, cfg, err);
    if (r < 0) {
        vf_registry_unref(f->registry);
        vf_close_fd(&f->run_dirfd);
        vf_samples_free(f->samples);
        free(f->run_dir);
        free(f);
        return r;
    }
    *ret_factory = f;
    return 0;
}

void vf_factory_check_closed(struct vf_factory *f)
{
    if (!f->closing || f->instances || f->builds || f->discards || f->loads)
        return;
    void (*closed)(void *arg) = f->closed;
    void *arg = f->closed_arg;
    vf_close_fd(&f->run_dirfd);
    vf_samples_free(f->samples);
    free(f->run_dir);
    vf_registry_unref(f->registry);
    free(f);
    closed(arg);
}

void vf_factory_close(struct vf_factory *f, void (*done)(void *arg), void *arg)
{
    f->closing = true;
    f->closed = done;
    f->closed_arg = arg;
    vf_build_jobs_cancel(f);
    for (struct vf_instance *vm = f->instances; vm; vm = vm->next)
        vf_instance_destroy(vm, NULL, NULL);
    vf_factory_check_closed(f);
}

void vf_factory_set_answer_timeout(struct vf_factory *f, int64_t timeout_ms)
{
    f->answer_timeout_ms = timeout_ms ? timeout_ms : ANSWER_TIMEOUT_MS;
}

const char *vf_factory_binary(const struct vf_factory *f, enum vf_spec_vmm vmm)
{
    return vf_registry_binary(f->registry, vmm);
}

void vf_factory_set_registry(struct vf_factory *f, struct vf_registry *registry)
{
    struct vf_registry *old = f->registry;
    f->registry = vf_registry_ref(registry);
    vf_registry_unref(old);
}

int vf_factory_settle(const struct vf_factory *f, struct vf_spec *spec, struct vf_error *err)
{
    return vf_registry_settle(f->registry, spec, err);
}

static int begin_clone(struct vf_factory *f, struct vf_generation *gen, const struct vf_step *steps,
                       const struct vf_vm_options *o, bool of_build, vf_instance_cb done, void *arg,
                       struct vf_instance **ret_vm, struct vf_error *err)
{
    const struct vf_plan plan = {.source = VF_SOURCE_CLONE,
                                 .steps = steps,
                                 .spec = &gen->manifest.spec,
                                 .gen = gen,
                                 .options = o,
                                 .of_build = of_build};
    int r = vf_generation_still_valid(gen, err);
    return r < 0 ? r : vf_instance_begin(f, &plan, done, arg, ret_vm, err);
}

int vf_factory_clone(struct vf_factory *f, struct vf_generation *gen, const struct vf_vm_options *o,
                     vf_instance_cb done, void *arg, struct vf_instance **ret_vm,
                     struct vf_error *err)
{
    return begin_clone(f, gen, clone_recipe, o, false, done, arg, ret_vm, err);
}

int vf_factory_trial(struct vf_factory *f, struct vf_generation *gen, vf_instance_cb done,
                     void *arg, struct vf_error *err)
{
    return begin_clone(f, gen, clone_recipe, NULL, true, done, arg, NULL, err);
}

int vf_factory_standby(struct vf_factory *f, struct vf_generation *gen,
                       const struct vf_vm_options *o, vf_instance_cb done, void *arg,
                       struct vf_instance **ret_vm, struct vf_error *err)
{
    struct vf_instance *vm;
    int r = begin_clone(f, gen, standby_recipe, o, false, done, arg, &vm, err);
    if (r < 0)
        return r;
    vm->standby = true;
    if (ret_vm)
        *ret_vm = vm;
    return 0;
}

int vf_factory_cold(struct vf_factory *f, const struct vf_spec *spec, const struct vf_vm_options *o,
                    vf_instance_cb done, void *arg, struct vf_instance **ret_vm,
                    struct vf_error *err)
{
    const struct vf_plan plan = {
        .source = VF_SOURCE_COLD, .steps = cold_recipe, .spec = spec, .options = o};
    int r = vf_registry_need_binary(f->registry, spec, err);
    return r < 0 ? r : vf_instance_begin(f, &plan, done, arg, ret_vm, err);
}

/* ---- loading */

struct load {
    struct vf_factory *factory;
    struct vf_work work;
    char *name;
    int64_t number;
    struct vf_generation *gen;
    vf_build_cb done;
    void *arg;
};

static int load(struct vf_work *w, struct vf_error *err)
{
    struct load *l = w->arg;
    return vf_store_load(l->factory->store, l->name, l->number, NULL, &l->gen, NULL, err);
}

static void on_loaded(void *arg, const struct vf_error *err)
{
    struct load *l = arg;
    struct vf_factory *f = l->factory;
    f->loads--;
    l->done(l->arg, err ? NULL : l->gen, err);
    free(l->name);
    free(l);
    vf_factory_check_closed(f);
}

int vf_factory_load(struct vf_factory *f, const char *name, int64_t number, vf_build_cb done,
                    void *arg, struct vf_error *err)
{
    if (f->closing)
        return vf_fail(err, VF_CANCELLED, "the factory is closing");
    struct load *l = calloc(1, sizeof(*l));
    if (!l || !(l->name = strdup(name))) {
        free(l);
        return vf_fail(err, VF_NO_MEMORY, "load");
    }
    l->factory = f;
    l->number = number;
    l->done = done;
    l->arg = arg;
    int r = vf_work_submit(f->loop, &l->work, load, on_loaded, l);
    if (r < 0) {
        free(l->name);
        free(l);
        return vf_fail_errno(err, r, "worker");
    }
    f->loads++;
    return 0;
}

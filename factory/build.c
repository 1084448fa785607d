/* Building a template's generation.
 *
 *     requests -> job -> instance with the build recipe -> generation on disk -> trial clones -> done
 *
 * The recipe boots the spec, plants a nonce in the guest's RAM, runs the warm-up commands, freezes,
 * pauses and saves the guest, kills the VMM, and stores what was saved in a temporary directory that
 * becomes a generation by one rename. Then two clones are made of it and must prove themselves, and
 * differ: a template whose clones can't is removed again. On any failure the directory is removed and
 * every request ends with the reason. Requests for a template that is being built join its job.
 */
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "factory/exec.h"
#include "factory/instance.h"
#include "templates/memory.h"

#define FREEZE_TIMEOUT_MS 30000

struct vf_build_request {
    struct vf_build_job *job;
    struct vf_build_request *next;
    vf_build_stage_cb stage;
    vf_build_cb done;
    void *arg;
};

struct vf_build_job {
    struct vf_factory *factory;
    struct vf_build_job *next;
    struct vf_build_request *requests;
    struct vf_build_request *next_told; /* while the requests are told of a stage */
    struct vf_spec spec;
    struct vf_instance *vm; /* the one that becomes the template; NULL once it is gone */
    struct vf_build *build;
    struct vf_manifest manifest;
    struct vf_generation *gen;
    struct vf_error error;
    bool failed;
    bool ending;     /* nothing can change its result any more */
    size_t warmed;   /* warm-up commands done */
    int trials_left; /* trial clones not yet gone */
    struct vf_work work;
};

static void finish(struct vf_build_job *job);

int vf_job_dirfd(const struct vf_build_job *job)
{
    return vf_build_dirfd(job->build);
}

const char *vf_job_path(const struct vf_build_job *job)
{
    return vf_build_path(job->build);
}

const struct vf_spec *vf_job_spec(const struct vf_build_job *job)
{
    return &job->spec;
}

static void tell_stage(void *arg, const char *stage)
{
    struct vf_build_job *job = arg;
    struct vf_build_request *r;
    for (job->next_told = job->requests; (r = job->next_told);) {
        job->next_told = r->next;
        if (r->stage)
            r->stage(r->arg, stage); /* may withdraw requests */
    }
}

/* ---- the recipe's own steps */

static int open_build(struct vf_work *w, struct vf_error *err)
{
    struct vf_instance *vm = w->arg;
    struct vf_build_job *job = vm->job;
    struct vf_manifest *m = &job->manifest;
    /* A second attempt (TCG after KVM) begins with a clean directory. */
    vf_build_free(job->build);
    job->build = NULL;
    /* Digests before anything is used: the commit takes them again, and so sees a VMM, kernel or image that was
     * replaced meanwhile. The VMM's version follows when it has told it. */
    vf_manifest_free(m);
    vf_manifest_init(m);
    int r = vf_instance_resolve(vm, err);
    if (r == 0)
        r = vf_manifest_set_spec(m, &job->spec, err);
    if (r == 0)
        r = vf_manifest_set_runtime(m, &vm->runtime, "1", vm->accel, err);
    if (r == 0)
        r = vf_instance_check_pins(vm, m, err);
    if (r == 0)
        r = vf_manifest_set_host(m, err);
    if (r == 0)
        r = vf_store_begin(job->factory->store, job->spec.name, &job->build, err);
    return r;
}

static int step_open(struct vf_instance *vm, struct vf_error *err)
{
    vm->job->warmed = 0;
    return vf_instance_work(vm, open_build, err);
}

static int step_warmup(struct vf_instance *vm, struct vf_error *err);

static void on_warmed(void *arg, const struct vf_run_result *res, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    struct vf_error e;
    if (vm->state != VF_INSTANCE_MAKING)
        return;
    char *const *argv = vf_spec_warmup(&vm->spec, vm->job->warmed);
    if (err) {
        e = *err;
        vf_wrap(&e, "warmup.commands[%zu] (%s)", vm->job->warmed, argv[0]);
    } else if (res->status.code != 0 || res->status.signaled) {
        char text[97];
        size_t n = 0;
        for (size_t i = 0; i < res->err_len && n < sizeof(text) - 1; i++)
            text[n++] = res->errout[i] < 0x20 || res->errout[i] > 0x7e ? ' ' : res->errout[i];
        text[n] = 0;
        vf_fail(&e, VF_GUEST_FAILED, "warmup.commands[%zu] (%s): %s %d%s%s", vm->job->warmed,
                argv[0],
                res->status.timed_out  ? "ran into warmup.timeout_ms, signal"
                : res->status.signaled ? "was killed by signal"
                                       : "exited with status",
                res->status.code, n ? ": " : "", text);
    } else {
        vm->job->warmed++;
        int r = step_warmup(vm, &e);
        if (r != 0)
            vf_instance_step_done(vm, r < 0 ? &e : NULL);
        return;
    }
    vf_instance_step_done(vm, &e);
}

static int step_warmup(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_exec_options o = {.argv = vf_spec_warmup(&vm->spec, vm->job->warmed),
                                .timeout_ms = vm->spec.warmup.timeout_ms};
    if (!o.argv)
        return VF_STEP_DONE;
    return vf_run(&vm->agent, &o, NULL, 0, 4096, on_warmed, vm, err);
}

static void on_frozen(void *arg, const struct vf_wire_frame *f, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    (void)f;
    if (vm->state == VF_INSTANCE_MAKING)
        vf_instance_step_done(vm, err);
}

static int step_freeze(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_wire_writer w;
    vf_agent_start(&vm->agent, &w, VF_MSG_FREEZE);
    return vf_agent_request(&vm->agent, &w, VF_MSG_FREEZE_OK, FREEZE_TIMEOUT_MS, on_frozen, vm,
                            err);
}

static int step_save(struct vf_instance *vm, struct vf_error *err)
{
    return vf_vm_save(vm->vm, vf_job_dirfd(vm->job), 0, vf_instance_step_done, vm, err);
}

/* Killed, not shut down: a VMM on its way out may still write to shared memory. */
static void on_stopped(void *arg, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    (void)err;
    snprintf(vm->vmm_version, sizeof(vm->vmm_version), "%s", vf_vm_info_of(vm->vm)->version);
    vf_vm_free(vm->vm);
    vm->vm = NULL;
    vf_instance_part_ended(vm, NULL);
}

static void on_agent_closed(void *arg)
{
    struct vf_instance *vm = arg;
    struct vf_error e;
    vm->agent_open = false;
    int r = vf_vm_stop(vm->vm, 0, on_stopped, vm, &e);
    assert(r == 0);
    (void)r;
}

static int step_stop(struct vf_instance *vm, struct vf_error *err)
{
    (void)err;
    vm->part_running = true;
    vf_agent_close(&vm->agent, on_agent_closed, vm);
    return 0;
}

static int add_files(struct vf_instance *vm, const char *memory_sha256, struct vf_error *err)
{
    struct vf_manifest *m = &vm->job->manifest;
    int r = vf_manifest_add_file(m, VF_MEMORY_NAME, (int64_t)vf_spec_memory_bytes(&vm->spec),
                                 memory_sha256, err);
    const char *const *state = vf_instance_ops(vm)->state_files;
    for (int i = 0; r == 0 && state[i]; i++)
        r = vf_manifest_add_file(m, state[i], -1, NULL, err);
    const char *const *disk = vf_disk_files(vm);
    for (int i = 0; r == 0 && disk[i]; i++)
        r = vf_manifest_add_file(m, disk[i], -1, NULL, err);
    return r;
}

static void add_stats(struct vf_instance *vm)
{
    struct vf_manifest *m = &vm->job->manifest;
    const struct {
        const char *stage;
        int64_t *to;
    } map[] = {{"boot", &m->stats.boot_us},
               {"warmup", &m->stats.warmup_us},
               {"pause", &m->stats.pause_us},
               {"save", &m->stats.save_us},
               {"stop", &m->stats.stop_us}};
    for (int i = 0; i < vm->n_stages; i++)
        for (size_t k = 0; k < sizeof(map) / sizeof(*map); k++)
            if (strcmp(vm->stages[i].name, map[k].stage) == 0)
                *map[k].to = vm->stages[i].us;
}

static char *hex_dup(const void *data, size_t len)
{
    char *s = malloc(2 * len + 1);
    if (s)
        vf_hex(data, len, s);
    return s;
}

/* From here on nobody can change it. What has a name, or holds all that the VMM wrote, becomes a memfd first. */
static int freeze_memory(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_vmm_caps caps;
    char path[PATH_MAX];
    int taken;
    vf_instance_ops(vm)->capabilities(NULL, &caps);
    if (caps.shared_memory_save && !caps.linked_memory)
        return vf_memory_seal(vm->memory_fd, err);
    int r = vf_memory_take(vm->memory_fd, vm->spec.name, &taken, err);
    if (r < 0)
        return r;
    close(vm->memory_fd);
    vm->memory_fd = taken;
    snprintf(path, sizeof(path), "%s/" VF_MEMORY_NAME, vm->dir);
    if (caps.linked_memory) /* its room is needed no more */
        unlink(path);
    return 0;
}

static int store(struct vf_work *w, struct vf_error *err)
{
    struct vf_instance *vm = w->arg;
    struct vf_build_job *job = vm->job;
    struct vf_manifest *m = &job->manifest;
    char sha256[VF_SHA256_HEX];
    int64_t began = vf_now_us();
    int r = freeze_memory(vm, err);
    if (r == 0)
        r = vf_memory_store(vm->memory_fd, vf_build_dirfd(job->build), VF_MEMORY_NAME, NULL, sha256,
                            err);
    if (r == 0)
        r = add_files(vm, sha256, err);
    if (r < 0)
        return r;
    m->memory_size = (int64_t)vf_spec_memory_bytes(&vm->spec);
    m->nonce = hex_dup(vm->nonce, sizeof(vm->nonce));
    m->boot_id = strdup(vm->proof.boot_id);
    m->sample = strdup(vm->proof.sample);
    if (vm->vmm_version[0]) { /* the null VMM has none */
        free(m->vmm.version);
        m->vmm.version = strdup(vm->vmm_version);
    }
    add_stats(vm);
    m->stats.memory_us = vf_now_us() - began;
    if (!m->nonce || !m->boot_id || !m->sample || !m->vmm.version)
        return vf_fail(err, VF_NO_MEMORY, "manifest");
    return vf_store_commit(job->build, m, vm->memory_fd, &job->gen, err);
}

static int step_store(struct vf_instance *vm, struct vf_error *err)
{
    return vf_instance_work(vm, store, err);
}

static const struct vf_step recipe[] = {
    {"look", vf_step_look, false, NULL}, /* these two only if its class pins anything */
    {"fetch", vf_step_fetch, false, NULL},     {"open", step_open, false, NULL},
    {"prepare", vf_step_prepare, false, NULL}, {"vmm", vf_step_create, true, NULL},
    {"start", vf_step_start, true, NULL},      {"boot", vf_step_hello, true, NULL},
    {"renew", vf_step_renew, true, NULL},      {"warmup", step_warmup, false, NULL},
    {"freeze", step_freeze, false, NULL},      {"pause", vf_step_pause, false, NULL},
    {"save", step_save, false, NULL},          {"stop", step_stop, false, NULL},
    {"store", step_store, false, NULL},        VF_LAST_STEP,
};

/* ---- trial clones */

static void on_trial_gone(void *arg)
{
    struct vf_build_job *job = arg;
    if (--job->trials_left == 0)
        finish(job);
}

static void fail_job(struct vf_build_job *job, const struct vf_error *err)
{
    if (job->failed)
        return;
    job->failed = true;
    job->error = *err;
}

static void on_trial(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct vf_build_job *job = arg;
    if (vm) {
        vf_instance_destroy(vm, on_trial_gone, job);
        return;
    }
    struct vf_error e = *err;
    vf_wrap(&e, "a trial clone of the new template");
    fail_job(job, &e);
    on_trial_gone(job); /* gone already */
}

static void start_trials(struct vf_build_job *job)
{
    int n = job->factory->trial_clones;
    struct vf_error e;
    tell_stage(job, "prove");
    job->trials_left = 1; /* this function's own share */
    for (int i = 0; i < n && !job->failed; i++) {
        job->trials_left++;
        if (vf_factory_trial(job->factory, job->gen, on_trial, job, &e) < 0) {
            job->trials_left--;
            fail_job(job, &e);
        }
    }
    on_trial_gone(job);
}

/* ---- the job's end */

static int clean_up(struct vf_work *w, struct vf_error *err)
{
    struct vf_build_job *job = w->arg;
    (void)err;
    vf_build_free(job->build);
    job->build = NULL;
    if (job->failed && job->gen) {
        int64_t number = job->gen->number;
        vf_generation_unref(job->gen);
        job->gen = NULL;
        struct vf_error e;
        if (vf_store_remove(job->factory->store, job->spec.name, number, &e) < 0)
            vf_store_quarantine(job->factory->store, job->spec.name, number, job->error.msg, NULL);
    }
    return 0;
}

static void on_cleaned_up(void *arg, const struct vf_error *err)
{
    struct vf_build_job *job = arg;
    struct vf_factory *f = job->factory;
    (void)err;
    for (struct vf_build_job **p = &f->builds; *p; p = &(*p)->next)
        if (*p == job) {
            *p = job->next;
            break;
        }
    /* Too late to be undone, but a factory that closes hands nothing out. */
    if (f->closing && !job->failed) {
        job->failed = true;
        vf_fail(&job->error, VF_CANCELLED, "build of %s: cancelled", job->spec.name);
    }
    while (job->requests) {
        struct vf_build_request *r = job->requests;
        job->requests = r->next;
        if (job->failed)
            r->done(r->arg, NULL, &job->error);
        else
            r->done(r->arg, vf_generation_ref(job->gen), NULL);
        free(r);
    }
    vf_generation_unref(job->gen);
    vf_manifest_free(&job->manifest);
    vf_spec_free(&job->spec);
    free(job);
    vf_factory_check_closed(f);
}

static void finish(struct vf_build_job *job)
{
    job->ending = true;
    int r = vf_work_submit(job->factory->loop, &job->work, clean_up, on_cleaned_up, job);
    assert(r == 0);
    (void)r;
}

static void on_template_gone(void *arg)
{
    struct vf_build_job *job = arg;
    job->vm = NULL;
    if (job->failed)
        finish(job);
    else
        start_trials(job);
}

static void on_recipe_ended(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct vf_build_job *job = arg;
    if (vm) {
        vf_instance_destroy(vm, on_template_gone, job);
        return;
    }
    job->vm = NULL; /* gone already */
    fail_job(job, err);
    finish(job);
}

static void cancel_job(struct vf_build_job *job)
{
    struct vf_error e;
    if (job->ending)
        return;
    vf_fail(&e, VF_CANCELLED, "build of %s: cancelled", job->spec.name);
    fail_job(job, &e);
    if (job->vm)
        vf_instance_destroy(job->vm, NULL, NULL);
    /* Trial clones end by themselves, soon. */
}

void vf_build_jobs_cancel(struct vf_factory *f)
{
    for (struct vf_build_job *job = f->builds; job; job = job->next)
        cancel_job(job);
}

/* ---- requests */

static int join(struct vf_build_job *job, vf_build_stage_cb stage, vf_build_cb done, void *arg,
                struct vf_build_request **ret_req, struct vf_error *err)
{
    struct vf_build_request *r = calloc(1, sizeof(*r));
    if (!r)
        return vf_fail(err, VF_NO_MEMORY, "build");
    *r = (struct vf_build_request){job, job->requests, stage, done, arg};
    job->requests = r;
    if (ret_req)
        *ret_req = r;
    return 0;
}

int vf_factory_build(struct vf_factory *f, const struct vf_spec *spec, vf_build_stage_cb stage,
                     vf_build_cb done, void *arg, struct vf_build_request **ret_req,
                     struct vf_error *err)
{
    if (f->closing)
        return vf_fail(err, VF_CANCELLED, "the factory is closing");
    const struct vf_asset *assets[VF_RUNTIME_MAX_ASSETS];
    int n_assets, r = vf_registry_need_binary(f->registry, spec, err);
    if (r == 0)
        r = vf_registry_assets_of(f->registry, spec, assets, &n_assets, err);
    if (r < 0)
        return r;
    for (struct vf_build_job *job = f->builds; job; job = job->next) {
        if (strcmp(job->spec.name, spec->name) != 0)
            continue;
        if (!vf_spec_equal(&job->spec, spec))
            return vf_fail(err, VF_CONFLICT, "template %s is being built from another spec",
                           spec->name);
        if (job->failed)
            return vf_fail(err, VF_BUSY,
                           "a build of template %s has failed and is being cleaned up: try again",
                           spec->name);
        return join(job, stage, done, arg, ret_req, err);
    }
    struct vf_build_job *job = calloc(1, sizeof(*job));
    if (!job)
        return vf_fail(err, VF_NO_MEMORY, "build");
    job->factory = f;
    struct vf_build_request *req = NULL;
    r = vf_spec_copy(spec, &job->spec, err);
    if (r == 0)
        r = vf_factory_settle(f, &job->spec, err);
    if (r == 0)
        r = join(job, stage, done, arg, &req, err);
    if (r == 0) {
        const struct vf_plan plan = {.source = VF_SOURCE_BUILD,
                                     .steps = n_assets ? recipe : recipe + 2,
                                     .spec = spec,
                                     .job = job,
                                     .of_build = true};
        r = vf_instance_begin(f, &plan, on_recipe_ended, job, &job->vm, err);
    }
    if (r < 0) {
        free(job->requests);
        vf_spec_free(&job->spec);
        free(job);
        return r;
    }
    job->vm->on_stage = tell_stage;
    job->vm->stage_arg = job;
    job->next = f->builds;
    f->builds = job;
    if (ret_req)
        *ret_req = req;
    return 0;
}

void vf_build_cancel(struct vf_build_request *req)
{
    struct vf_build_job *job = req->job;
    struct vf_error e;
    if (!req->next && job->requests == req && !job->ending) {
        cancel_job(job); /* its end calls done */
        return;
    }
    if (job->next_told == req)
        job->next_told = req->next;
    for (struct vf_build_request **p = &job->requests; *p; p = &(*p)->next)
        if (*p == req) {
            *p = req->next;
            break;
        }
    vf_fail(&e, VF_CANCELLED, "build of %s: cancelled", job->spec.name);
    req->done(req->arg, NULL, &e);
    free(req);
}

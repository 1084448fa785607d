/* Each call submits, then turns the loop until the callback has come. A call that a signal interrupted leaves its
 * answer to the callback, which still comes while the factory closes. */
#include "tools/common/sync.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/log.h"

#define MAX_OUTPUT (1 << 20)

/* ---- opening, waiting, closing */

static void on_signal(uv_signal_t *h, int signum)
{
    struct vf_sync *s = h->data;
    (void)signum;
    s->interrupted = true;
    uv_stop(&s->loop);
}

/* What a call waits for. The loop is stopped when it has come: UV_RUN_ONCE runs the timers that are due and then
 * blocks all the same, for ever if that was the last thing to happen. */
struct wait {
    bool done;
    uv_loop_t *loop;
};

static void on_done(void *arg)
{
    struct wait *w = arg;
    w->done = true;
    uv_stop(w->loop);
}

static int make_dir(struct vf_sync *s, const char *dir, struct vf_error *err)
{
    if (dir) {
        s->dir = strdup(dir);
        return s->dir ? 0 : vf_fail(err, VF_NO_MEMORY, "directory");
    }
    const char *tmp = getenv("TMPDIR");
    char *path = NULL;
    if (asprintf(&path, "%s/vmfactory-XXXXXX", tmp && tmp[0] == '/' ? tmp : "/tmp") < 0)
        return vf_fail(err, VF_NO_MEMORY, "directory");
    if (!mkdtemp(path)) {
        int r = vf_fail_errno(err, errno, "%s", path);
        free(path);
        return r;
    }
    s->dir = path;
    s->temporary = true;
    return 0;
}

int vf_sync_open(struct vf_sync *s, const struct vf_sync_options *o, struct vf_error *err)
{
    *s = (struct vf_sync){0};
    signal(SIGPIPE, SIG_IGN);
    uv_loop_init(&s->loop);
    if (!o->keep_signals) {
        uv_signal_init(&s->loop, &s->sigint);
        uv_signal_init(&s->loop, &s->sigterm);
        s->sigint.data = s->sigterm.data = s;
        s->open_signals = 2;
        uv_signal_start(&s->sigint, on_signal, SIGINT);
        uv_signal_start(&s->sigterm, on_signal, SIGTERM);
    }
    int r = make_dir(s, o->dir, err);
    char *state = NULL, *run = NULL;
    if (r == 0 &&
        (asprintf(&state, "%s/state", s->dir) < 0 || asprintf(&run, "%s/run", s->dir) < 0))
        r = vf_fail(err, VF_NO_MEMORY, "directory");
    if (r == 0)
        r = vf_store_open(state, &s->store, err);
    if (r == 0 && vf_store_sweep_error(s->store))
        vf_log_error(VF_LOG_WARN, NULL, vf_store_sweep_error(s->store),
                     "litter stays in the store");
    if (r == 0) {
        struct vf_factory_config c = {
            .run_dir = run,
            .store = s->store,
            .registry = o->registry,
            .assets = o->assets,
            .networks = o->networks,
            .binaries = {[VF_SPEC_VMM_QEMU] = o->qemu,
                         [VF_SPEC_VMM_CLOUD_HYPERVISOR] = o->cloud_hypervisor,
                         [VF_SPEC_VMM_FIRECRACKER] = o->firecracker},
            .die_with_parent = !o->outlive,
            .auto_accel = o->auto_accel,
            .answer_timeout_ms = o->answer_timeout_ms,
            .create_timeout_ms = o->create_timeout_ms,
            .trial_clones = o->trial_clones,
            .on_step = o->on_step,
            .on_step_arg = o->on_step_arg,
            .on_traffic = o->on_traffic,
            .on_traffic_arg = o->on_traffic_arg,
        };
        r = vf_factory_open(&s->loop, &c, &s->factory, err);
    }
    free(state);
    free(run);
    return r;
}

static void on_signal_closed(uv_handle_t *h)
{
    struct vf_sync *s = h->data;
    s->open_signals--;
}

void vf_sync_close(struct vf_sync *s)
{
    struct wait closed = {.done = s->factory == NULL, .loop = &s->loop};
    if (s->factory)
        vf_factory_close(s->factory, on_done, &closed);
    while (!closed.done)
        uv_run(&s->loop, UV_RUN_DEFAULT);
    s->factory = NULL;
    vf_store_close(s->store);
    s->store = NULL;
    if (s->open_signals) {
        uv_close((uv_handle_t *)&s->sigint, on_signal_closed);
        uv_close((uv_handle_t *)&s->sigterm, on_signal_closed);
    }
    while (uv_run(&s->loop, UV_RUN_DEFAULT)) /* until no handle is left */
        ;
    uv_loop_close(&s->loop);
    if (s->temporary)
        vf_remove_tree(AT_FDCWD, s->dir, NULL);
    free(s->dir);
    s->dir = NULL;
}

int vf_sync_binary(struct vf_sync *s, enum vf_spec_vmm vmm, const char **ret_path,
                   struct vf_error *err)
{
    const char *path = vf_factory_binary(s->factory, vmm);
    if (!path)
        return vf_fail(err, VF_NOT_FOUND, "%s: no such program on PATH", vf_spec_vmm_names[vmm]);
    *ret_path = path;
    return 0;
}

int vf_sync_wait(struct vf_sync *s, const bool *flag, struct vf_error *err)
{
    while (!*flag && !s->interrupted)
        uv_run(&s->loop, UV_RUN_ONCE);
    return *flag ? 0 : vf_fail(err, VF_CANCELLED, "interrupted by a signal");
}

bool vf_sync_interrupted(struct vf_sync *s)
{
    if (s->factory)
        uv_run(&s->loop, UV_RUN_NOWAIT);
    return s->interrupted;
}

/* ---- one answer */

struct answer {
    struct wait wait;
    bool abandoned;
    struct vf_generation *gen;
    struct vf_instance *vm;
    struct vf_error err;
    struct vf_sync_output output;
};

static struct answer *new_answer(struct vf_sync *s)
{
    struct answer *a = calloc(1, sizeof(*a));
    if (!a)
        abort();
    a->wait.loop = &s->loop;
    return a;
}

static void answered(struct answer *a, const struct vf_error *err)
{
    on_done(&a->wait);
    if (err)
        a->err = *err;
    if (a->abandoned) {
        vf_generation_unref(a->gen);
        vf_sync_output_free(&a->output);
        free(a); /* a VM is destroyed by the factory's close */
    }
}

static void on_gen(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    struct answer *a = arg;
    a->gen = gen;
    answered(a, err);
}

static void on_vm(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct answer *a = arg;
    a->vm = vm;
    answered(a, err);
}

/* Waits for a and frees it, or leaves it to its callback. */
static int await(struct vf_sync *s, struct answer *a, struct vf_generation **ret_gen,
                 struct vf_instance **ret_vm, struct vf_error *err)
{
    int r = vf_sync_wait(s, &a->wait.done, err);
    if (r < 0) {
        a->abandoned = true;
        return r;
    }
    if (a->err.code)
        r = vf_error_copy(err, &a->err);
    else if (ret_gen)
        *ret_gen = a->gen;
    else if (ret_vm)
        *ret_vm = a->vm;
    free(a);
    return r;
}

int vf_sync_build(struct vf_sync *s, const struct vf_spec *spec, vf_build_stage_cb stage,
                  struct vf_generation **ret_gen, struct vf_error *err)
{
    struct answer *a = new_answer(s);
    int r = vf_factory_build(s->factory, spec, stage, on_gen, a, NULL, err);
    if (r < 0) {
        free(a);
        return r;
    }
    return await(s, a, ret_gen, NULL, err);
}

int vf_sync_load(struct vf_sync *s, const char *name, int64_t number,
                 struct vf_generation **ret_gen, struct vf_error *err)
{
    struct answer *a = new_answer(s);
    int r = vf_factory_load(s->factory, name, number, on_gen, a, err);
    if (r < 0) {
        free(a);
        return r;
    }
    return await(s, a, ret_gen, NULL, err);
}

int vf_sync_clone(struct vf_sync *s, struct vf_generation *gen, const struct vf_vm_options *o,
                  struct vf_instance **ret_vm, struct vf_error *err)
{
    struct answer *a = new_answer(s);
    int r = vf_factory_clone(s->factory, gen, o, on_vm, a, NULL, err);
    if (r < 0) {
        free(a);
        return r;
    }
    return await(s, a, NULL, ret_vm, err);
}

int vf_sync_cold(struct vf_sync *s, const struct vf_spec *spec, const struct vf_vm_options *o,
                 struct vf_instance **ret_vm, struct vf_error *err)
{
    struct answer *a = new_answer(s);
    int r = vf_factory_cold(s->factory, spec, o, on_vm, a, NULL, err);
    if (r < 0) {
        free(a);
        return r;
    }
    return await(s, a, NULL, ret_vm, err);
}

int vf_sync_clones(struct vf_sync *s, struct vf_generation *gen, int n,
                   struct vf_instance **ret_vms, struct vf_error *err)
{
    struct answer **a = calloc((size_t)n, sizeof(struct answer *));
    int r = a ? 0 : vf_fail(err, VF_NO_MEMORY, "clones"), started = 0;
    for (; r == 0 && started < n; started++) {
        a[started] = new_answer(s);
        r = vf_factory_clone(s->factory, gen, NULL, on_vm, a[started], NULL, err);
        if (r < 0)
            free(a[started]);
    }
    started -= r < 0 && started > 0;
    for (int i = 0; i < started; i++) {
        struct vf_error e;
        ret_vms[i] = NULL;
        if (await(s, a[i], NULL, &ret_vms[i], &e) < 0 && r == 0)
            r = vf_error_copy(err, &e);
    }
    for (int i = 0; r < 0 && i < started; i++)
        if (ret_vms[i])
            vf_sync_destroy(s, ret_vms[i]);
    free(a);
    return r;
}

static int again(struct vf_sync *s, struct vf_instance *vm,
                 int (*what)(struct vf_instance *, vf_instance_cb, void *, struct vf_error *),
                 struct vf_error *err)
{
    struct answer *a = new_answer(s);
    int r = what(vm, on_vm, a, err);
    if (r < 0) {
        free(a);
        return r;
    }
    return await(s, a, NULL, NULL, err);
}

int vf_sync_park(struct vf_sync *s, struct vf_instance *vm, struct vf_error *err)
{
    return again(s, vm, vf_instance_park, err);
}

int vf_sync_wake(struct vf_sync *s, struct vf_instance *vm, struct vf_error *err)
{
    return again(s, vm, vf_instance_wake, err);
}

void vf_sync_destroy(struct vf_sync *s, struct vf_instance *vm)
{
    struct wait w = {.loop = &s->loop};
    vf_instance_destroy(vm, on_done, &w);
    while (!w.done)
        uv_run(&s->loop, UV_RUN_DEFAULT);
}

/* ---- commands */

static void on_run(void *arg, const struct vf_run_result *res, const struct vf_error *err)
{
    struct answer *a = arg;
    if (res) {
        struct vf_sync_output *o = &a->output;
        o->status = res->status;
        o->truncated = res->truncated;
        o->out = malloc(res->out_len + 1);
        o->errout = malloc(res->err_len + 1);
        if (!o->out || !o->errout)
            abort();
        memcpy(o->out, res->out, res->out_len + 1);
        memcpy(o->errout, res->errout, res->err_len + 1);
        o->out_len = res->out_len;
        o->err_len = res->err_len;
    }
    answered(a, err);
}

int vf_sync_run(struct vf_sync *s, struct vf_instance *vm, const struct vf_exec_options *o,
                const void *in, size_t in_len, struct vf_sync_output *ret, struct vf_error *err)
{
    struct answer *a = new_answer(s);
    int r = vf_run(vf_instance_agent(vm), o, in, in_len, MAX_OUTPUT, on_run, a, err);
    if (r < 0) {
        free(a);
        return r;
    }
    r = vf_sync_wait(s, &a->wait.done, err);
    if (r < 0) {
        a->abandoned = true;
        return r;
    }
    if (a->err.code)
        r = vf_error_copy(err, &a->err);
    else
        *ret = a->output;
    free(a);
    return r;
}

void vf_sync_output_free(struct vf_sync_output *o)
{
    free(o->out);
    free(o->errout);
    *o = (struct vf_sync_output){0};
}

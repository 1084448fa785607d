/* A template's life in the factory: warm-up, builds that join, loading after a restart, removal, the choice
 * of the accelerator. All on the tiny guest; factory_linux.c has what needs Linux.
 */
#include "tests/e2e/factory_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "vmm/vmm.h"

static const struct vf_sync_options no_trials = {.trial_clones = -1};

/* ---- warm-up */

Test(factory_templates, warmup_fails, .timeout = 120)
{
    static const char *const echo[] = {"echo", "fine", NULL}, *const status[] = {"exit", "7", NULL},
                             *const hang[] = {"hang", NULL}, *const missing[] = {"nothing", NULL};
    static const struct {
        const char *const *argv;
        enum vf_code code;
        const char *words;
    } cases[] = {
        {status, VF_GUEST_FAILED, "warmup: warmup.commands[1] (exit): exited with status 7"},
        {hang, VF_GUEST_FAILED, "warmup: warmup.commands[1] (hang): ran into warmup.timeout_ms"},
        {missing, VF_GUEST_FAILED, "warmup: warmup.commands[1] (nothing): exec: no such command"},
    };
    struct fac f;
    fac_open(&f, &no_trials);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
        fac_add_warmup(&spec, echo);
        fac_add_warmup(&spec, cases[i].argv);
        spec.warmup.timeout_ms = cases[i].argv == hang ? 100 : 30000;
        fac_build_fails(&f, &spec, cases[i].code, cases[i].words);
        vf_spec_free(&spec);
    }
    fac_close(&f);
}

/* ---- builds that join */

struct waiter {
    bool done;
    struct vf_generation *gen;
    struct vf_error err;
    char stages[256];
};

static void on_stage(void *arg, const char *stage)
{
    struct waiter *w = arg;
    size_t len = strlen(w->stages);
    snprintf(w->stages + len, sizeof(w->stages) - len, "%s ", stage);
}

static void on_built(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    struct waiter *w = arg;
    cr_assert_not(w->done, "called twice");
    w->done = true;
    w->gen = gen;
    if (err)
        w->err = *err;
}

static struct vf_build_request *submit(struct fac *f, const struct vf_spec *spec, struct waiter *w)
{
    struct vf_build_request *req = NULL;
    struct vf_error e = {0};
    *w = (struct waiter){0};
    cr_assert_eq(vf_factory_build(f->sync.factory, spec, on_stage, on_built, w, &req, &e), 0, "%s",
                 e.msg);
    cr_assert_not(w->done, "done came before the submission had returned");
    return req;
}

static void wait_for(struct fac *f, const struct waiter *w)
{
    struct vf_error e;
    cr_assert_eq(vf_sync_wait(&f->sync, &w->done, &e), 0);
}

#define ALL_STAGES "prepare vmm start boot renew warmup freeze pause save stop store prove "

Test(factory_templates, builds_join, .timeout = 120)
{
    struct fac f;
    struct vf_error e = {0};
    struct waiter w[3], other;
    fac_open(&f, NULL);
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_spec larger = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_spec second = fac_tiny("second", VF_ACCEL_TCG, NULL);
    larger.memory.size_mib = 80;
    for (int i = 0; i < 3; i++)
        submit(&f, &spec, &w[i]);
    /* Another spec of that name is refused; another template is no matter. */
    cr_assert_lt(vf_factory_build(f.sync.factory, &larger, NULL, on_built, &other, NULL, &e), 0);
    fac_expect(&e, VF_CONFLICT, "another spec");
    submit(&f, &second, &other);
    for (int i = 0; i < 3; i++) {
        wait_for(&f, &w[i]);
        cr_assert_eq(w[i].err.code, VF_OK, "%s", w[i].err.msg);
        cr_assert_eq(w[i].gen, w[0].gen, "another generation");
        cr_assert_str_eq(w[i].stages, ALL_STAGES);
    }
    wait_for(&f, &other);
    cr_assert_eq(other.err.code, VF_OK, "%s", other.err.msg);
    cr_assert_eq(fac_generations(&f, "tiny"), 1);
    cr_assert_eq(fac_generations(&f, "second"), 1);
    vf_generation_unref(other.gen);
    for (int i = 0; i < 3; i++)
        vf_generation_unref(w[i].gen);
    /* The name is free again, for a next generation of another shape. */
    struct vf_generation *gen = fac_build(&f, &larger);
    cr_assert_eq(gen->number, 2);
    cr_assert_eq(gen->manifest.memory_size, 80 << 20);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    vf_spec_free(&larger);
    vf_spec_free(&second);
    fac_close(&f);
}

/* One of three withdraws: only he is told so. All withdraw: the build ends, and nothing is left. */
Test(factory_templates, requests_withdrawn, .timeout = 120)
{
    struct fac f;
    struct waiter w[3];
    struct vf_build_request *req[3];
    fac_open(&f, &no_trials);
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    for (int i = 0; i < 3; i++)
        req[i] = submit(&f, &spec, &w[i]);
    vf_build_cancel(req[1]);
    wait_for(&f, &w[1]);
    fac_expect(&w[1].err, VF_CANCELLED, "build of tiny");
    wait_for(&f, &w[0]);
    wait_for(&f, &w[2]);
    cr_assert_eq(w[0].err.code, VF_OK, "%s", w[0].err.msg);
    cr_assert_eq(w[2].gen, w[0].gen);
    vf_generation_unref(w[0].gen);
    vf_generation_unref(w[2].gen);
    fac_check(&f, "one withdrew");

    for (int i = 0; i < 3; i++)
        req[i] = submit(&f, &spec, &w[i]);
    for (int i = 0; i < 3; i++)
        vf_build_cancel(req[i]);
    for (int i = 0; i < 3; i++) {
        wait_for(&f, &w[i]);
        fac_expect(&w[i].err, VF_CANCELLED, "build of tiny");
    }
    fac_check(&f, "all withdrew");
    cr_assert_eq(fac_generations(&f, "tiny"), 1);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- after a restart, and removal */

Test(factory_templates, loaded_after_a_restart, .timeout = 120)
{
    struct fac f;
    struct vf_error e = {0};
    char nonce[65];
    fac_open(&f, NULL);
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    snprintf(nonce, sizeof(nonce), "%s", gen->manifest.nonce);
    vf_generation_unref(gen);

    fac_reopen(&f, NULL);
    gen = fac_load(&f, "tiny");
    cr_assert_eq(gen->number, 1);
    cr_assert_str_eq(gen->manifest.nonce, nonce);
    struct vf_instance *vm[2] = {fac_clone(&f, gen), fac_clone(&f, gen)};
    fac_check_proof(&f, vm[0], gen);
    fac_check_differ(&f, vm, 2);

    /* A clone holds its template, whoever else has let go. */
    vf_generation_unref(gen);
    cr_assert_lt(vf_store_remove(f.sync.store, "tiny", 1, &e), 0);
    cr_assert_eq(e.code, VF_CONFLICT, "%s", e.msg);
    fac_destroy(&f, vm[0]);
    cr_assert_lt(vf_store_remove(f.sync.store, "tiny", 1, &e), 0);
    cr_assert_eq(fac_generations(&f, "tiny"), 1);
    fac_destroy(&f, vm[1]);
    cr_assert_eq(vf_store_remove(f.sync.store, "tiny", 1, &e), 0, "%s", e.msg);
    cr_assert_eq(fac_generations(&f, "tiny"), 0);
    cr_assert_lt(vf_sync_load(&f.sync, "tiny", 0, &gen, &e), 0);
    cr_assert_eq(e.code, VF_NOT_FOUND, "%s", e.msg);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- accel: auto */

/* A QEMU that can't do KVM, whatever this host can. */
static void make_wrapper(const char *path, const char *instead)
{
    char text[1200];
    snprintf(text, sizeof(text),
             "#!/bin/sh\nfor a; do [ \"$a\" = kvm ] && { %s; }; done\nexec %s \"$@\"\n", instead,
             sup_qemu());
    fac_write(path, text, 0755);
}

static void falls_back(const char *instead)
{
    struct fac f;
    char wrapper[256];
    struct vf_sync_options o = {.qemu = wrapper,
                                .auto_accel = VF_ACCEL_KVM,
                                .trial_clones = 1,
                                .create_timeout_ms = 10000,
                                .on_step = fac_hasten_kvm};
    snprintf(wrapper, sizeof(wrapper), "/tmp/vf-e2e-wrapper-%d", (int)getpid());
    make_wrapper(wrapper, instead);
    fac_open(&f, &o);
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_AUTO, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    cr_assert_eq(gen->manifest.vmm.accel, VF_ACCEL_TCG);
    struct vf_instance *vm = fac_clone(&f, gen);
    cr_assert_eq(vf_vm_info_of(vf_instance_vm(vm))->accel, VF_ACCEL_TCG);
    fac_check_proof(&f, vm, gen);
    fac_destroy(&f, vm);
    vf_generation_unref(gen);
    fac_check(&f, "after the second try");

    /* A cold boot finds it out for itself, and the factory remembers. */
    fac_reopen(&f, NULL);
    for (int i = 0; i < 2; i++) {
        vm = fac_cold(&f, &spec);
        cr_assert_eq(vf_vm_info_of(vf_instance_vm(vm))->accel, VF_ACCEL_TCG);
        fac_check_proof(&f, vm, NULL);
        fac_destroy(&f, vm);
    }
    fac_check(&f, "cold boots");

    /* Who asks for KVM by name gets no other. */
    vf_spec_free(&spec);
    spec = fac_tiny("tiny", VF_ACCEL_KVM, NULL);
    struct vf_instance *none = NULL;
    struct vf_error e = {0};
    cr_assert_lt(vf_sync_cold(&f.sync, &spec, NULL, &none, &e), 0);
    cr_assert(strncmp(e.msg, "vmm: ", 5) == 0, "%s", e.msg);
    fac_check(&f, "KVM by name");
    vf_spec_free(&spec);
    unlink(wrapper);
    fac_close(&f);
}

Test(factory_templates, auto_kvm_exits, .timeout = 120)
{
    falls_back("echo 'no KVM here' >&2; exit 1");
}

Test(factory_templates, auto_kvm_hangs, .timeout = 120)
{
    falls_back("exec sleep 1000");
}

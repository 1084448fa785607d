/* What goes wrong inside a Linux guest: kernel panics, an agent that is not there, is killed or stops. */
#include "tests/e2e/factory_support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"

/* ---- an initramfs with one more file: the kernel unpacks archives that follow each other */

static size_t cpio_entry(char *out, const char *name, unsigned mode, const char *data)
{
    size_t name_size = strlen(name) + 1, size = strlen(data), n;
    n = (size_t)sprintf(out, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", 1,
                        mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0);
    memcpy(out + n, name, name_size);
    n += name_size;
    while (n % 4)
        out[n++] = 0;
    memcpy(out + n, data, size);
    n += size;
    while (n % 4)
        out[n++] = 0;
    return n;
}

static void add_to_initramfs(struct vf_spec *spec, const char *dir, const char *name,
                             const char *script)
{
    char *path, archive[4096];
    struct stat st;
    struct vf_error e;
    cr_assert_gt(asprintf(&path, "%s/initramfs-%s.cpio", dir, spec->name), 0);
    VF_CLEANUP_FD int in = open(spec->boot.initrd, O_RDONLY | O_CLOEXEC);
    VF_CLEANUP_FD int out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert(in >= 0 && out >= 0 && fstat(in, &st) == 0);
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
        cr_assert_gt(n, 0);
        left -= n;
    }
    size_t pad = (size_t)(-st.st_size & 511);
    memset(archive, 0, pad);
    size_t n = pad + cpio_entry(archive + pad, name, 0100755, script);
    n += cpio_entry(archive + n, "TRAILER!!!", 0, "");
    cr_assert_eq(vf_write_all(out, archive, n, path, &e), 0, "%s", e.msg);
    free(spec->boot.initrd);
    spec->boot.initrd = path;
}

/* ---- boots */

Test(factory_linux_faults, panic_while_it_boots, .timeout = 120)
{
    struct fac f;
    FAC_LINUX_OR_SKIP("factory_linux_faults", "panic_while_it_boots");
    fac_open(&f, NULL);
    /* No init to be found: the kernel looks for a root disk, and panics. */
    struct vf_spec spec = fac_linux("panic", VF_ACCEL_TCG, "rdinit=/none root=/dev/none");
    struct vf_error e = fac_cold_fails(&f, &spec, VF_GUEST_FAILED, "the guest shut down or reset");
    cr_assert(strstr(e.hint, "Kernel panic - not syncing: VFS"), "%s", e.hint);
    fac_build_fails(&f, &spec, VF_GUEST_FAILED, "the guest shut down or reset");
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_linux_faults, no_agent, .timeout = 120)
{
    struct fac f;
    FAC_LINUX_OR_SKIP("factory_linux_faults", "no_agent");
    fac_open(&f, NULL);
    struct vf_spec spec = fac_linux("mute", VF_ACCEL_TCG, NULL);
    add_to_initramfs(&spec, f.s.dir, "init", "#!/bin/busybox sh\nexec /bin/busybox sleep 100000\n");
    spec.agent.ready_timeout_ms = 3000;
    fac_cold_fails(&f, &spec, VF_TIMEOUT, "boot: agent: the guest did not answer");
    spec.agent.ready_timeout_ms = 1000;
    fac_build_fails(&f, &spec, VF_TIMEOUT, "boot: agent: the guest did not answer");
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- ready clones, of a guest whose agent is a service and no init */

struct death {
    int calls;
    struct vf_error why;
};

static void on_death(void *arg, struct vf_instance *vm, const struct vf_error *why)
{
    struct death *d = arg;
    (void)vm;
    d->calls++;
    d->why = *why;
}

static void panics(struct fac *f, struct vf_generation *gen)
{
    struct death d = {0};
    char *argv[] = {"/bin/sh", "-c", "echo c > /proc/sysrq-trigger", NULL};
    struct vf_exec_options o = {.argv = argv, .timeout_ms = SUP_LONG_MS};
    struct vf_sync_output out;
    struct vf_error e = {0};
    fac_mark(f);
    struct vf_instance *vm = fac_clone(f, gen);
    vf_instance_on_death(vm, on_death, &d);
    if (vf_sync_run(&f->sync, vm, &o, NULL, 0, &out, &e) == 0)
        cr_assert(false, "it lives: status %d (signal: %d, late: %d), %s %s", out.status.code,
                  out.status.signaled, out.status.timed_out, out.out, out.errout);
    fac_expect(&e, VF_GUEST_FAILED, "the guest");
    cr_assert_eq(d.calls, 1);
    fac_expect(&d.why, VF_GUEST_FAILED, "the guest shut down or reset itself");
    fac_destroy(f, vm);
    fac_check(f, "a panic");
}

/* Parked and woken until the script has taken effect: then the wake fails, and the VM is gone. */
static void falls_silent(struct fac *f, struct vf_generation *gen, const char *script)
{
    struct vf_error e = {0};
    int r = 0;
    fac_mark(f);
    struct vf_instance *vm = fac_clone(f, gen);
    fac_sh(f, vm, script);
    vf_factory_set_answer_timeout(f->sync.factory, 2000);
    for (int i = 0; r == 0 && i < 1000; i++) {
        cr_assert_eq(vf_sync_park(&f->sync, vm, &e), 0, "%s", e.msg);
        r = vf_sync_wake(&f->sync, vm, &e);
    }
    cr_assert_lt(r, 0, "it still answers after: %s", script);
    fac_expect(&e, VF_TIMEOUT, "renew: agent: the guest did not answer within its deadline");
    fac_check(f, script);
    vf_factory_set_answer_timeout(f->sync.factory, 0);
}

static void command_of_a_stopped_agent(struct fac *f, struct vf_generation *gen)
{
    char *argv[] = {"/bin/sh", "-c", "kill -STOP $(cat /run/agent.pid); sleep 1000", NULL};
    struct vf_exec_options o = {.argv = argv, .timeout_ms = 5000};
    struct vf_sync_output out;
    struct vf_error e = {0};
    fac_mark(f);
    struct vf_instance *vm = fac_clone(f, gen);
    cr_assert_lt(vf_sync_run(&f->sync, vm, &o, NULL, 0, &out, &e), 0);
    fac_expect(&e, VF_TIMEOUT, "the guest did not end the command within its deadline");
    fac_destroy(f, vm);
    fac_check(f, "a stopped agent");
}

Test(factory_linux_faults, ready_clones, .timeout = 240)
{
    struct fac f;
    FAC_LINUX_OR_SKIP("factory_linux_faults", "ready_clones");
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = fac_linux("service", VF_ACCEL_TCG, "vf.init=/service");
    add_to_initramfs(&spec, f.s.dir, "service",
                     "#!/bin/sh\n/init &\necho $! > /run/agent.pid\nexec sleep 100000\n");
    struct vf_generation *gen = fac_build(&f, &spec);
    struct vf_instance *vm = fac_clone(&f, gen);
    fac_check_proof(&f, vm, gen);
    cr_assert_str_neq(fac_sh(&f, vm, "cat /run/agent.pid"), "1");
    fac_destroy(&f, vm);
    panics(&f, gen);
    falls_silent(
        &f, gen,
        "setsid sh -c 'sleep 0.1; kill -KILL $(cat /run/agent.pid)' </dev/null >/dev/null 2>&1 &");
    command_of_a_stopped_agent(&f, gen);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* The host under the factory: a VMM's binary that is missing, no program, or replaced after the build; files
 * that change under a loaded template; long paths; a disk that is full or read-only.
 */
#include "tests/e2e/factory_support.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"

static const struct vf_sync_options no_trials = {.trial_clones = -1};

/* ---- the VMM's binary */

Test(factory_host, no_vmm, .timeout = 60)
{
    struct fac f;
    char path[128];
    fac_open(&f, NULL);
    snprintf(path, sizeof(path), "%s/plain", f.s.dir);
    fac_write(path, "no program\n", 0644);
    const struct {
        const char *qemu;
        enum vf_code code, build_code;
    } cases[] = {
        {"/no/such/qemu", VF_NOT_FOUND, VF_NOT_FOUND},
        {path, VF_PERMISSION, VF_PERMISSION},
        {f.s.dir, VF_PERMISSION, VF_INVALID_ARGUMENT},
        {"/bin/false", VF_VMM_DIED, VF_VMM_DIED},
    };
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        fac_reopen(&f, &(struct vf_sync_options){.dir = f.dir, .qemu = cases[i].qemu});
        struct vf_error e = fac_cold_fails(&f, &spec, cases[i].code, "vmm: create: ");
        if (cases[i].code != VF_VMM_DIED) {
            cr_assert(strstr(e.msg, cases[i].qemu), "%s", e.msg);
            cr_assert(e.hint[0], "no hint: %s", e.msg);
        }
        /* A build notes the binary's digest before it is run. */
        fac_build_fails(&f, &spec, cases[i].build_code,
                        cases[i].code == VF_VMM_DIED ? "vmm: create: " : cases[i].qemu);
    }
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_host, no_vmm_on_path, .timeout = 60)
{
    struct fac f;
    struct vf_error e = {0};
    char run[512];
    bool closed = false;
    struct vf_factory *factory = NULL;
    struct vf_instance *vm = NULL;
    fac_open(&f, NULL);
    setenv("PATH", f.s.dir, 1);
    snprintf(run, sizeof(run), "%s/run2", f.s.dir);
    struct vf_factory_config c = {.run_dir = run, .store = f.sync.store};
    cr_assert_eq(vf_factory_open(&f.sync.loop, &c, &factory, &e), 0, "%s", e.msg);
    cr_assert_null(vf_factory_binary(factory, VF_SPEC_VMM_QEMU));
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    cr_assert_lt(vf_factory_cold(factory, &spec, NULL, NULL, NULL, &vm, &e), 0);
    fac_expect(&e, VF_NOT_FOUND, "not on PATH");
    cr_assert(strstr(e.hint, "qemu-system-x86"), "%s", e.hint);
    cr_assert_lt(vf_factory_build(factory, &spec, NULL, NULL, NULL, NULL, &e), 0);
    fac_expect(&e, VF_NOT_FOUND, "not on PATH");
    vf_factory_close(factory, fac_set_true, &closed);
    cr_assert(closed);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- what changes under a loaded template */

static void copy_file(const char *from, const char *to, mode_t mode)
{
    VF_CLEANUP_FD int in = open(from, O_RDONLY | O_CLOEXEC);
    VF_CLEANUP_FD int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    struct stat st;
    cr_assert(in >= 0 && out >= 0 && fstat(in, &st) == 0, "%s, %s: %s", from, to, strerror(errno));
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
        if (n < 0) {
            char buf[65536];
            n = read(in, buf, sizeof(buf));
            cr_assert(n > 0 && vf_write_all(out, buf, (size_t)n, to, NULL) == 0);
        }
        cr_assert_gt(n, 0);
        left -= n;
    }
}

/* path is another file for a while: the template is refused, by name. Put back, it is good again. */
static void replaced(struct fac *f, struct vf_generation *gen, const char *path, mode_t mode)
{
    char aside[700];
    struct vf_error e = {0};
    struct vf_instance *vm = NULL;
    snprintf(aside, sizeof(aside), "%s.aside", path);
    cr_assert_eq(rename(path, aside), 0, "%s: %s", path, strerror(errno));
    copy_file(aside, path, mode);
    fac_mark(f);
    cr_assert_lt(vf_factory_clone(f->sync.factory, gen, NULL, NULL, NULL, &vm, &e), 0,
                 "cloned although %s was replaced", path);
    cr_assert_eq(e.code, VF_CONFLICT, "%s: %s", vf_code_name(e.code), e.msg);
    const char *name = strrchr(path, '/') + 1;
    cr_assert(strstr(e.msg, name), "'%s' is not named: %s", name, e.msg);
    fac_check(f, path);
    cr_assert_eq(unlink(path), 0);
    cr_assert_lt(vf_factory_clone(f->sync.factory, gen, NULL, NULL, NULL, &vm, &e), 0);
    cr_assert(strstr(e.msg, name), "'%s' is not named: %s", name, e.msg);
    cr_assert_eq(rename(aside, path), 0);
    vm = fac_clone(f, gen);
    fac_destroy(f, vm);
    fac_check(f, path);
}

static char build_kernel[600];

static void append_at_freeze(void *arg, const char *stage)
{
    (void)arg;
    if (strcmp(stage, "freeze") != 0)
        return;
    int fd = open(build_kernel, O_WRONLY | O_APPEND | O_CLOEXEC);
    cr_assert_eq(write(fd, "x", 1), 1);
    cr_assert_eq(close(fd), 0);
}

/* The manifest must name what the template was really made from. */
Test(factory_host, replaced_within_the_build, .timeout = 120)
{
    struct fac f;
    struct vf_error e = {0};
    struct vf_generation *gen = NULL;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    snprintf(build_kernel, sizeof(build_kernel), "%s/kernel", f.s.dir);
    copy_file(spec.boot.kernel, build_kernel, 0600);
    free(spec.boot.kernel);
    spec.boot.kernel = strdup(build_kernel);
    fac_mark(&f);
    cr_assert_lt(vf_sync_build(&f.sync, &spec, append_at_freeze, &gen, &e), 0,
                 "built from a kernel that was replaced meanwhile");
    fac_expect(&e, VF_CONFLICT, "has changed since the template was built");
    cr_expect(strstr(e.msg, "kernel"), "%s", e.msg);
    fac_check(&f, "kernel replaced");
    cr_assert_eq(fac_generations(&f, "tiny"), 0);
    vf_spec_free(&spec);
    cr_assert_eq(unlink(build_kernel), 0);
    fac_close(&f);
}

Test(factory_host, replaced_after_the_build, .timeout = 120)
{
    struct fac f;
    char qemu[128], state[600], script[600];
    struct vf_error e = {0};
    fac_open(&f, NULL);
    snprintf(qemu, sizeof(qemu), "%s/qemu", f.s.dir);
    /* A script will do: QEMU itself looks for its modules beside its own file. */
    snprintf(script, sizeof(script), "#!/bin/sh\nexec %s \"$@\"\n", sup_qemu());
    fac_write(qemu, script, 0755);
    fac_reopen(&f, &(struct vf_sync_options){.dir = f.dir, .qemu = qemu, .trial_clones = -1});
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    cr_assert_str_eq(gen->manifest.vmm.path, qemu);
    replaced(&f, gen, qemu, 0755);
    snprintf(state, sizeof(state), "%s/state", gen->path);
    replaced(&f, gen, state, 0600);
    vf_generation_unref(gen);

    /* Another program there at the next start: not even loaded. A cold boot is. */
    fac_shut(&f);
    int fd = open(qemu, O_WRONLY | O_APPEND | O_CLOEXEC);
    cr_assert_eq(write(fd, "x", 1), 1);
    cr_assert_eq(close(fd), 0);
    fac_reopen(&f, NULL);
    cr_assert_lt(vf_sync_load(&f.sync, "tiny", 0, &gen, &e), 0);
    cr_assert(strstr(e.msg, qemu), "%s", e.msg);
    fac_destroy(&f, fac_cold(&f, &spec));
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- long paths: a socket's holds 107 bytes */

Test(factory_host, long_run_directory, .timeout = 60)
{
    struct fac f;
    char dir[400], part[101];
    fac_open(&f, NULL);
    memset(part, 'd', 100);
    part[100] = 0;
    snprintf(dir, sizeof(dir), "%s/%s/%s", f.s.dir, part, part);
    fac_reopen(&f, &(struct vf_sync_options){.dir = dir, .trial_clones = 1});
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    struct vf_instance *vm = fac_clone(&f, gen);
    cr_assert_gt(strlen(vf_instance_dir(vm)), 200);
    fac_check_proof(&f, vm, gen);
    fac_destroy(&f, vm);
    vm = fac_cold(&f, &spec);
    fac_check_proof(&f, vm, NULL);
    fac_destroy(&f, vm);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- disks: a mount namespace of the test's own */

static const char *can_mount(void)
{
    static char reason[128];
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        snprintf(reason, sizeof(reason), "a mount namespace: %s", strerror(errno));
    return reason;
}

static void mount_tmpfs(const char *dir, const char *options, unsigned long flags)
{
    cr_assert_eq(mount("vf-e2e", dir, "tmpfs", flags, options), 0, "tmpfs %s: %s", options,
                 strerror(errno));
}

static void open_on_tmpfs(struct fac *f, const char *name)
{
    const char *missing = can_mount();
    if (missing[0])
        sup_skip("factory_host", name, "%s", missing);
    fac_open(f, &no_trials);
    fac_shut(f);
}

/* A little more room each time, until a build succeeds. Before, each fails, and the old generation is there. */
Test(factory_host, disk_full, .timeout = 240)
{
    struct fac f;
    char options[64], templates[512];
    int failed = 0;
    open_on_tmpfs(&f, "disk_full");
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    snprintf(templates, sizeof(templates), "%s/state/templates", f.dir);
    mount_tmpfs(templates, "size=64m", 0);
    fac_reopen(&f, NULL);
    vf_generation_unref(fac_build(&f, &spec));
    /* From what the first takes on, in steps of a few pages. */
    long used_kib = 0;
    for (int kib = 8;; kib += used_kib ? 24 : 8) {
        snprintf(options, sizeof(options), "size=%dk", kib);
        if (mount("vf-e2e", templates, "tmpfs", MS_REMOUNT, options) < 0)
            continue; /* less than is used */
        if (!used_kib)
            used_kib = kib;
        struct vf_generation *gen = NULL;
        struct vf_error e = {0};
        fac_mark(&f);
        if (vf_sync_build(&f.sync, &spec, NULL, &gen, &e) == 0) {
            cr_assert_eq(gen->number, 2);
            vf_generation_unref(gen);
            break;
        }
        failed++;
        cr_assert(e.code == VF_NO_SPACE || (e.code == VF_VMM_FAILED && strstr(e.msg, "save: ")),
                  "%d KiB: %s: %s", kib, vf_code_name(e.code), e.msg);
        fac_check(&f, "disk full");
        cr_assert_eq(fac_generations(&f, "tiny"), 1);
        cr_assert_lt(kib, 16384, "it never fits");
    }
    cr_assert_gt(failed, 3, "hardly a write failed: %d", failed);
    struct vf_generation *gen = NULL;
    struct vf_error e;
    for (int64_t number = 1; number <= 2; number++) {
        cr_assert_eq(vf_sync_load(&f.sync, "tiny", number, &gen, &e), 0, "%s", e.msg);
        fac_destroy(&f, fac_clone(&f, gen));
        vf_generation_unref(gen);
    }
    fac_shut(&f);
    cr_assert_eq(umount(templates), 0, "%s", strerror(errno));
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_host, run_directory_full, .timeout = 120)
{
    struct fac f;
    char run[512];
    open_on_tmpfs(&f, "run_directory_full");
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    snprintf(run, sizeof(run), "%s/run", f.dir);
    /* Its own directory is one, a VM's needs more. */
    for (int inodes = 1; inodes <= 3; inodes++) {
        char options[64];
        snprintf(options, sizeof(options), "size=64k,nr_inodes=%d", inodes);
        mount_tmpfs(run, options, 0);
        fac_reopen(&f, NULL);
        fac_cold_fails(&f, &spec, VF_NO_SPACE, "No space left");
        fac_build_fails(&f, &spec, VF_NO_SPACE, "No space left");
        fac_shut(&f);
        cr_assert_eq(umount(run), 0, "%s", strerror(errno));
    }
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_host, read_only_store, .timeout = 120)
{
    struct fac f;
    char templates[512], state[512];
    struct vf_error e = {0};
    struct vf_store *store = NULL;
    open_on_tmpfs(&f, "read_only_store");
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    snprintf(state, sizeof(state), "%s/state", f.dir);
    snprintf(templates, sizeof(templates), "%s/state/templates", f.dir);
    mount_tmpfs(templates, "size=64m", 0);
    fac_reopen(&f, NULL);
    vf_generation_unref(fac_build(&f, &spec));
    cr_assert_eq(mount("vf-e2e", templates, "tmpfs", MS_REMOUNT | MS_RDONLY, "size=64m"), 0, "%s",
                 strerror(errno));
    e = fac_build_fails(&f, &spec, VF_PERMISSION, "Read-only file system");
    cr_assert(strstr(e.msg, "open: ") && strstr(e.msg, state), "%s", e.msg);
    /* What is there can still be used. */
    struct vf_generation *gen = fac_load(&f, "tiny");
    struct vf_instance *vm = fac_clone(&f, gen);
    fac_check_proof(&f, vm, gen);
    fac_destroy(&f, vm);
    vf_generation_unref(gen);
    fac_shut(&f);
    cr_assert_eq(umount(templates), 0, "%s", strerror(errno));

    mount_tmpfs(state, "size=64k", MS_RDONLY);
    cr_assert_lt(vf_store_open(state, &store, &e), 0);
    fac_expect(&e, VF_PERMISSION, "Read-only file system");
    cr_assert(strstr(e.msg, state), "%s", e.msg);
    cr_assert_eq(umount(state), 0, "%s", strerror(errno));
    vf_spec_free(&spec);
    fac_close(&f);
}

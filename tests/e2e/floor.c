/* The benchmark's floor by itself: a cold boot that is kept, then a clone of it, for each VMM. What it is compared with
 * is measured elsewhere; here it only has to work, and to leave nothing behind. */
#include "tests/e2e/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct floor_run {
    struct sup s;
    const struct sup_target *t;
    const char *channel;
    char out[1024];
};

/* Runs it with what all runs share; its exit status. */
static int run(struct floor_run *f, const char *what, const char *more)
{
    char command[4096];
    const char *build = getenv("VF_BUILD");
    snprintf(command, sizeof(command),
             "timeout 60 '%s/vmfactory-floor' %s --vmm %s --binary '%s' --accel kvm --channel %s "
             "--memory-mib 64 --dir '%s' %s 2>&1",
             build && build[0] ? build : "build", what, f->t->driver, sup_target_binary(f->t),
             f->channel, f->s.dir, more);
    FILE *p = popen(command, "re");
    cr_assert(p);
    size_t n = fread(f->out, 1, sizeof(f->out) - 1, p);
    f->out[n] = 0;
    return pclose(p);
}

static void expect(struct floor_run *f, const char *const *names)
{
    for (; *names; names++) {
        const char *at = strstr(f->out, *names);
        cr_assert(at && atoll(at + strlen(*names)) > 0, "%s: no %s in: %s", f->t->name, *names,
                  f->out);
    }
}

/* state: what clone takes, in the directory that a cold boot has kept. */
static void chain(const char *name, const struct sup_target *t, const char *channel,
                  const char *state, bool wakes)
{
    static const char *const of_cold[] = {"vmm=", "boot=", "renew=", "total=", "save=", NULL};
    static const char *const of_clone[] = {"vmm=", "restore=", "resume=", "prove=", "total=", NULL};
    struct floor_run f = {.t = t, .channel = channel};
    char more[1024];
    const char *missing = sup_target_missing(t);
    if (missing)
        sup_skip("floor", name, "%s", missing);
    sup_open(&f.s);
    int kept = sup_dir(&f.s, "kept");
    snprintf(more, sizeof(more), "--kernel '%s' --keep '%s/kept'", sup_guest_file("tiny.elf"),
             f.s.dir);
    cr_assert_eq(run(&f, "cold", more), 0, "cold: %s", f.out);
    expect(&f, of_cold);
    snprintf(more, sizeof(more), "--state '%s/kept/%s' --memory-fd 9 9<'%s/kept/memory'", f.s.dir,
             state, f.s.dir);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(run(&f, "clone", more), 0, "clone: %s", f.out);
        expect(&f, of_clone);
    }
    cr_assert_eq(strstr(f.out, "wake=") != NULL, wakes, "%s", f.out);
    cr_assert_eq(sup_count_files(f.s.dirfd), 1, "it leaves files behind");
    snprintf(more, sizeof(more), "--state '%s' --memory-fd 9 9<'%s/kept/memory'", f.s.dir, f.s.dir);
    cr_assert_neq(run(&f, "clone", more), 0, "a clone of nothing: %s", f.out);
    cr_assert_eq(sup_count_files(f.s.dirfd), 1, "it leaves files behind when it fails");
    close(kept);
    sup_close(&f.s);
}

Test(floor, qemu, .timeout = 120)
{
    chain("qemu", &sup_qemu_kvm_tiny, "serial", "state", true);
}

Test(floor, cloud_hypervisor, .timeout = 120)
{
    chain("cloud_hypervisor", &sup_cloud_hypervisor_tiny, "serial", "", true);
}

Test(floor, firecracker, .timeout = 120)
{
    chain("firecracker", &sup_firecracker_tiny, "serial", "state", false);
}

Test(floor, cloud_hypervisor_vsock, .timeout = 120)
{
    chain("cloud_hypervisor_vsock", &sup_cloud_hypervisor_tiny, "vsock", "", true);
}

Test(floor, firecracker_vsock, .timeout = 120)
{
    chain("firecracker_vsock", &sup_firecracker_tiny, "vsock", "state", false);
}

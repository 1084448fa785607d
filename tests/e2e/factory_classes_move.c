/* A runtime class moves on, and what was built stays with what built it: two versions of a VMM run side by side, and one
 * that nobody needs any more goes.
 */
#include "tests/e2e/classes_support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "factory/instance.h"

static void expect_exe(struct vf_instance *vm, const char *due, const char *what)
{
    char link[64], exe[PATH_MAX];
    snprintf(link, sizeof(link), "/proc/%d/exe", (int)vf_vm_info_of(vf_instance_vm(vm))->pid);
    ssize_t n = readlink(link, exe, sizeof(exe) - 1);
    cr_assert_gt(n, 0, "%s: %s", link, strerror(errno));
    exe[n] = 0;
    cr_expect_str_eq(exe, due, "%s runs %s, not %s", what, exe, due);
}

static void copy_with(const char *from, const char *to, const char *tail)
{
    struct vf_error e;
    cr_assert_eq(vf_copy_file(AT_FDCWD, from, AT_FDCWD, to, 0755, &e), 0, "%s", e.msg);
    VF_CLEANUP_FD int fd = open(to, O_WRONLY | O_APPEND | O_CLOEXEC);
    cr_assert_eq(vf_write_all(fd, tail, strlen(tail), to, &e), 0, "%s", e.msg);
}

struct version {
    char path[PATH_MAX]; /* of the file that is pinned */
    char exe[PATH_MAX];  /* of what runs then; empty: the pinned file, in the store */
};

struct keep {
    struct cls *c;
    char digests[2000];
};

static void note_digest(void *arg, const char *sha256)
{
    struct keep *k = arg;
    snprintf(k->digests + strlen(k->digests), sizeof(k->digests) - strlen(k->digests), "%s ",
             sha256);
}

static bool keep(void *arg, const char *sha256)
{
    struct keep *k = arg;
    return vf_registry_uses(k->c->reg, sha256) || strstr(k->digests, sha256);
}

static void collect(struct cls *c)
{
    struct keep k = {.c = c};
    struct vf_error e;
    cr_assert_eq(vf_store_digests(c->f.sync.store, note_digest, &k, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_asset_store_gc(c->store, keep, NULL, &k, false, &e), 0, "%s", e.msg);
}

static const char *due_exe(const struct cls *c, const struct version *v, char buf[PATH_MAX])
{
    if (v->exe[0])
        return v->exe;
    cls_stored_path(c, v->path, buf);
    return buf;
}

static void clone_runs(struct cls *c, struct vf_generation *gen, const struct version *v,
                       const char *what)
{
    char buf[PATH_MAX];
    struct vf_instance *vm = fac_clone(&c->f, gen);
    expect_exe(vm, due_exe(c, v, buf), what);
    fac_check_proof(&c->f, vm, gen);
    fac_destroy(&c->f, vm);
}

static void moves_on(const char *vmm, enum vf_accel accel, const struct version *a,
                     const struct version *b)
{
    char buf[PATH_MAX], hex[65];
    struct vf_error e = {0};
    struct cls c;
    cls_open(&c);
    cls_put_file_asset(&c, "vmm-a", "vmm", a->path);
    cls_put_file_asset(&c, "vmm-b", "vmm", b->path);
    cls_put_pinned(&c, "sandboxes", vmm, "\"vmm\":\"vmm-a\"");
    struct vf_spec spec = cls_tiny("sandboxes", accel);

    struct vf_generation *old = cls_build(&c, &spec);
    cr_expect(strstr(cls_stages, "fetch open "), "%s", cls_stages);
    cr_expect_str_eq(old->manifest.vmm.class_name, "sandboxes");
    cr_expect_str_eq(old->manifest.vmm.name, vmm);
    fac_file_digest(a->path, hex);
    cr_expect_str_eq(old->manifest.vmm.sha256, hex);
    cr_expect(vf_spec_equal(&old->manifest.spec, &spec), "the spec is kept as it was given");
    clone_runs(&c, old, a, "a clone of the class's first version");

    cls_put_pinned(&c, "sandboxes", vmm, "\"vmm\":\"vmm-b\"");
    clone_runs(&c, old, a, "a clone from before the class moved");
    fac_cold_fails(&c.f, &spec, VF_NOT_FOUND, "asset vmm-b: was not fetched yet");

    struct vf_generation *new = cls_build(&c, &spec);
    cr_expect_eq(new->number, 2);
    struct vf_instance *vms[2] = {fac_clone(&c.f, old), fac_clone(&c.f, new)};
    expect_exe(vms[0], due_exe(&c, a, buf), "the old generation, beside the new one,");
    expect_exe(vms[1], due_exe(&c, b, buf), "the new generation");
    fac_check_differ(&c.f, vms, 2);
    fac_destroy(&c.f, vms[0]);
    fac_destroy(&c.f, vms[1]);
    struct vf_instance *cold = fac_cold(&c.f, &spec);
    expect_exe(cold, due_exe(&c, b, buf), "a cold boot");
    fac_destroy(&c.f, cold);
    vf_generation_unref(new);
    vf_generation_unref(old);

    /* As after a restart of everything: what is pinned is on disk. */
    fac_reopen(&c.f, NULL);
    collect(&c);
    cr_assert_eq(vf_store_load(c.f.sync.store, "tiny", 1, NULL, &old, NULL, &e), 0, "%s", e.msg);
    clone_runs(&c, old, a, "the old generation, loaded again,");
    vf_generation_unref(old);
    cr_assert_eq(vf_store_remove(c.f.sync.store, "tiny", 1, &e), 0, "%s", e.msg);
    collect(&c);
    cls_stored_path(&c, a->path, buf);
    cr_expect_str_eq(buf, "", "nobody needs %s any more", buf);
    cls_stored_path(&c, b->path, buf);
    cr_expect_str_neq(buf, "", "the class still needs its VMM");
    new = fac_load(&c.f, "tiny");
    cr_expect_eq(new->number, 2);
    clone_runs(&c, new, b, "the new generation, loaded again,");

    /* Without the file that saved it there is no restore, whatever else is there. */
    cr_assert_eq(unlink(buf), 0);
    fac_clone_fails(&c.f, new, VF_CONFLICT, strrchr(buf, '/') + 1);
    copy_with(b->path, buf, "");
    fac_clone_fails(&c.f, new, VF_CONFLICT, strrchr(buf, '/') + 1); /* not known to be the same */
    vf_generation_unref(new);
    vf_spec_free(&spec);
    cls_close(&c);
}

Test(factory_classes_move, qemu_moves_on, .timeout = 240)
{
    struct version a = {0}, b = {0};
    char dir[] = "/tmp/vf-classes-XXXXXX";
    cr_assert(mkdtemp(dir));
    snprintf(a.path, sizeof(a.path), "%s/qemu-a", dir);
    snprintf(b.path, sizeof(b.path), "%s/qemu-b", dir);
    copy_with(sup_qemu(), a.path, "a");
    copy_with(sup_qemu(), b.path, "b");
    moves_on("qemu", VF_ACCEL_TCG, &a, &b);
    cr_assert_eq(vf_remove_tree(AT_FDCWD, dir, NULL), 0);
}

/* What is to be pinned for the program that the variable names: itself, or the script that makes it run here. */
static const char *version_of(const char *variable, const char *dir, struct version *v)
{
    static char why[200];
    char command[PATH_MAX + 600], path[PATH_MAX];
    const char *program = getenv(variable), *tests = getenv("VF_TESTS");
    if (!program || !realpath(program, path)) {
        snprintf(why, sizeof(why), "%s names no program", variable);
        return why;
    }
    cr_assert_eq(mkdir(dir, 0700), 0);
    snprintf(command, sizeof(command), "'%s/kvm-shim' '%s' '%s'", tests ? tests : "build/tests",
             path, dir);
    FILE *f = popen(command, "re");
    cr_assert(f && fgets(v->path, sizeof(v->path), f), "%s", command);
    cr_assert_eq(pclose(f), 0, "%s", command);
    v->path[strcspn(v->path, "\n")] = 0;
    if (strcmp(v->path, path) != 0)
        snprintf(v->exe, sizeof(v->exe), "%s", path);
    return NULL;
}

static const char *try_versions(const struct sup_target *t, const char *first, const char *second)
{
    struct version a = {0}, b = {0};
    char dir[] = "/tmp/vf-classes-XXXXXX", sub[2][64];
    const char *why = sup_target_missing(t);
    if (why)
        return why;
    cr_assert(mkdtemp(dir));
    snprintf(sub[0], sizeof(sub[0]), "%s/a", dir);
    snprintf(sub[1], sizeof(sub[1]), "%s/b", dir);
    why = version_of(first, sub[0], &a);
    if (!why)
        why = version_of(second, sub[1], &b);
    if (!why)
        moves_on(t->driver, VF_ACCEL_KVM, &a, &b);
    cr_assert_eq(vf_remove_tree(AT_FDCWD, dir, NULL), 0);
    return why;
}

Test(factory_classes_move, cloud_hypervisor_moves_on, .timeout = 240)
{
    const char *why = try_versions(&sup_cloud_hypervisor_tiny, "VF_CLOUD_HYPERVISOR_OTHER",
                                   "VF_CLOUD_HYPERVISOR");
    if (why)
        sup_skip("factory_classes_move", "cloud_hypervisor_moves_on", "%s", why);
}

Test(factory_classes_move, firecracker_moves_on, .timeout = 240)
{
    const char *why = try_versions(&sup_firecracker_tiny, "VF_FIRECRACKER_OTHER", "VF_FIRECRACKER");
    if (why)
        sup_skip("factory_classes_move", "firecracker_moves_on", "%s", why);
}

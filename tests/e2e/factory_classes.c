/* What a runtime class gives the factory's VMs: kernel, image and options; and specs that don't fit their class. */
#include "tests/e2e/classes_support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "factory/instance.h"

/* Kernel and image of the class, for a spec that has neither; clones find them by what the generation has noted. */
Test(factory_classes, a_class_s_kernel_and_image, .timeout = 120)
{
    char image[200], kernel[PATH_MAX], root[PATH_MAX];
    struct cls c;
    struct vf_error e;
    cls_open(&c);
    snprintf(image, sizeof(image), "%s/root.img", c.f.s.dir);
    fac_write(image, "an image", 0600);
    cr_assert_eq(truncate(image, 1 << 20), 0);
    cls_put_file_asset(&c, "linux", "kernel", sup_guest_file("tiny.elf"));
    cls_put_file_asset(&c, "debian", "image", image);
    cls_put_pinned(&c, "whole", "qemu", "\"kernel\":\"linux\",\"root\":\"debian\"");
    struct vf_spec spec = cls_tiny("whole", VF_ACCEL_TCG);
    cls_without_kernel(&spec);
    struct vf_generation *gen = cls_build(&c, &spec);
    cls_stored_path(&c, sup_guest_file("tiny.elf"), kernel);
    cls_stored_path(&c, image, root);
    cr_expect_str_eq(vf_manifest_asset(&gen->manifest, VF_ASSET_KERNEL)->path, kernel);
    cr_expect_str_eq(vf_manifest_asset(&gen->manifest, VF_ASSET_ROOT)->path, root);
    cr_expect_null(gen->manifest.spec.boot.kernel, "the spec is kept as it was given");
    cr_expect_str_eq(gen->manifest.vmm.path, sup_qemu(), "a class that pins no VMM has the host's");
    vf_generation_unref(gen);
    fac_reopen(&c.f, NULL);
    gen = fac_load(&c.f, "tiny");
    struct vf_instance *vm = fac_clone(&c.f, gen);
    cr_expect(vf_instance_spec(vm)->boot.has_root);
    cr_expect_str_eq(vf_instance_spec(vm)->boot.root.image, root);
    fac_destroy(&c.f, vm);
    vm = fac_cold(&c.f, &spec);
    cr_expect_str_eq(vf_instance_spec(vm)->boot.kernel, kernel);
    fac_destroy(&c.f, vm);
    vf_generation_unref(gen);

    /* The class is gone: what was built from it goes on. */
    struct vf_registry *reg;
    cr_assert_eq(vf_registry_remove_class(&c.cfg, "whole", &reg, &e), 0, "%s", e.msg);
    cls_take(&c, reg);
    fac_reopen(&c.f, NULL);
    gen = fac_load(&c.f, "tiny");
    vm = fac_clone(&c.f, gen);
    fac_check_proof(&c.f, vm, gen);
    fac_destroy(&c.f, vm);
    vf_generation_unref(gen);
    struct vf_instance *none;
    cr_assert_lt(vf_sync_cold(&c.f.sync, &spec, NULL, &none, &e), 0);
    fac_expect(&e, VF_NOT_FOUND, "class: there is no class \"whole\"");
    vf_spec_free(&spec);
    cr_assert_eq(unlink(image), 0);
    cls_close(&c);
}

/* Whether any thread of the VMM has a filter. */
static bool sandboxed(struct vf_instance *vm)
{
    char path[64];
    struct vf_names tids;
    bool found = false;
    int n =
        snprintf(path, sizeof(path), "/proc/%d/task", (int)vf_vm_info_of(vf_instance_vm(vm))->pid);
    VF_CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(vf_dir_names(fd, &tids, NULL), 0);
    for (size_t i = 0; i < tids.n; i++) {
        snprintf(path + n, sizeof(path) - (size_t)n, "/%.16s/status", tids.v[i]);
        VF_CLEANUP_FREE char *text = fac_read(path);
        found |= strstr(text, "\nSeccomp:\t2") != NULL;
    }
    vf_names_free(&tids);
    return found;
}

/* As the class says, in boots; in clones as it said when the template was built. */
static void sandbox_of(const char *vmm, enum vf_accel accel, const char *binary)
{
    char text[200];
    struct cls c;
    cls_open(&c);
    for (int i = 0; i < VF_SPEC_VMM_COUNT; i++)
        if (strcmp(vf_spec_vmm_names[i], vmm) == 0)
            c.cfg.binaries[i] = binary;
    snprintf(text, sizeof(text), "{\"name\":\"shut\",\"vmm\":\"%s\"}", vmm);
    cls_put_class(&c, text);
    snprintf(text, sizeof(text),
             "{\"name\":\"open\",\"vmm\":\"%s\",\"options\":{\"sandbox\":false}}", vmm);
    cls_put_class(&c, text);
    struct vf_spec spec[2] = {cls_tiny("shut", accel), cls_tiny("open", accel)};
    free(spec[1].name);
    spec[1].name = strdup("other");
    struct vf_generation *gen[2] = {cls_build(&c, &spec[0]), cls_build(&c, &spec[1])};
    cr_expect_null(strstr(cls_stages, "fetch"), "it pins nothing: %s", cls_stages);
    snprintf(text, sizeof(text), "{\"name\":\"open\",\"vmm\":\"%s\"}", vmm);
    cls_put_class(&c, text);
    for (int i = 0; i < 2; i++) {
        struct vf_instance *vm = fac_clone(&c.f, gen[i]);
        cr_expect_eq(sandboxed(vm), i == 0, "a clone of a class that was %s", spec[i].class_name);
        cr_expect_str_eq(vf_instance_class(vm), spec[i].class_name);
        fac_destroy(&c.f, vm);
        vm = fac_cold(&c.f, &spec[i]);
        cr_expect(sandboxed(vm), "of a class that was %s", spec[i].class_name);
        cr_expect_str_eq(vf_instance_class(vm), spec[i].class_name);
        fac_destroy(&c.f, vm);
        vf_generation_unref(gen[i]);
        vf_spec_free(&spec[i]);
    }
    cls_close(&c);
}

Test(factory_classes, sandbox_of_qemu, .timeout = 120)
{
    sandbox_of("qemu", VF_ACCEL_TCG, sup_qemu());
}

Test(factory_classes, sandbox_of_cloud_hypervisor, .timeout = 120)
{
    const char *why = sup_target_missing(&sup_cloud_hypervisor_tiny);
    if (why)
        sup_skip("factory_classes", "sandbox_of_cloud_hypervisor", "%s", why);
    sandbox_of("cloud-hypervisor", VF_ACCEL_KVM, sup_cloud_hypervisor());
}

Test(factory_classes, sandbox_of_firecracker, .timeout = 120)
{
    const char *why = sup_target_missing(&sup_firecracker_tiny);
    if (why)
        sup_skip("factory_classes", "sandbox_of_firecracker", "%s", why);
    sandbox_of("firecracker", VF_ACCEL_KVM, sup_firecracker());
}

static void not_built(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    (void)arg;
    cr_assert_fail("a build that was refused ended: %s", gen ? "built" : err->msg);
}

/* Refused before anything begins. */
Test(factory_classes, specs_that_don_t_fit_their_class, .timeout = 60)
{
    struct cls c;
    struct vf_error e;
    struct vf_instance *vm;
    cls_open(&c);
    cls_put_class(&c, "{\"name\":\"small\",\"vmm\":\"firecracker\"}");
    struct vf_spec spec = cls_tiny("nope", VF_ACCEL_AUTO);
    cr_assert_lt(vf_factory_build(c.f.sync.factory, &spec, NULL, not_built, NULL, NULL, &e), 0);
    fac_expect(&e, VF_NOT_FOUND, "class: there is no class \"nope\"");
    vf_spec_free(&spec);
    c.cfg.binaries[VF_SPEC_VMM_FIRECRACKER] = "/bin/false";
    cls_put_class(&c, "{\"name\":\"small\",\"vmm\":\"firecracker\"}");
    spec = cls_tiny("small", VF_ACCEL_TCG);
    cr_assert_lt(vf_factory_build(c.f.sync.factory, &spec, NULL, not_built, NULL, NULL, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "accel: firecracker runs on KVM only");
    cr_assert_lt(vf_sync_cold(&c.f.sync, &spec, NULL, &vm, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "class small: accel: firecracker runs on KVM only");
    vf_spec_free(&spec);
    fac_check(&c.f, "refused");
    cls_close(&c);
}

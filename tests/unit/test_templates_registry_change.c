/* The registry is changed: a change is whole and lasts, or is not made. */
#include "registry_support.h"

#include <unistd.h>

TestSuite(templates_registry_change, .init = reg_open, .fini = reg_close);

static bool exists(const char *kind, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s/%s.json", reg.dir, kind, name);
    return access(path, F_OK) == 0;
}

static int put_class(const char *text, struct vf_registry **ret, struct vf_error *err)
{
    struct vf_class c;
    int r = vf_class_parse(text, strlen(text), NULL, &c, err);

    cr_assert_eq(r, 0, "%s", err->msg);
    r = vf_registry_put_class(&reg.cfg, &c, ret, err);
    vf_class_free(&c);
    return r;
}

static int put_asset(const char *text, struct vf_registry **ret, struct vf_error *err)
{
    struct vf_asset a;
    int r = vf_asset_parse(text, strlen(text), NULL, &a, err);

    cr_assert_eq(r, 0, "%s", err->msg);
    r = vf_registry_put_asset(&reg.cfg, &a, ret, err);
    vf_asset_free(&a);
    return r;
}

Test(templates_registry_change, a_change_lasts)
{
    struct vf_registry *r = NULL, *again;
    struct vf_error err;
    char list[400];

    expect_ok(put_asset(ASSET("fc-2", "vmm", DIGEST_B), &r, &err), err);
    cr_expect_not_null(vf_registry_asset(r, "fc-2"));
    vf_registry_unref(r);
    expect_ok(put_class(CLASS("new", "\"default\":true," BOTH("{\"vmm\":\"fc-2\"}")), &r, &err),
              err);
    cr_expect_str_eq(vf_registry_default(r, VF_SPEC_VMM_FIRECRACKER)->name, "new");
    vf_registry_unref(r);
    expect_ok(put_class(CLASS("pinned", BOTH("{\"vmm\":\"fc-2\"}")), &r, &err), err);
    again = reg_load();
    cr_expect_str_eq(vf_registry_class(again, "pinned")->assets.x86_64.vmm, "fc-2");
    cr_expect_null(vf_registry_class(again, "pinned")->assets.x86_64.kernel);
    cr_expect_eq(vf_registry_n_classes(again), vf_registry_n_classes(r));
    vf_registry_unref(r);
    vf_registry_unref(again);
    expect_ok(vf_registry_remove_class(&reg.cfg, "new", &r, &err), err);
    cr_expect_null(vf_registry_class(r, "new"));
    cr_expect_not(exists("classes", "new"));
    vf_registry_unref(r);
    expect_ok(vf_registry_remove_asset(&reg.cfg, "linux", &r, &err), err);
    cr_expect_null(vf_registry_asset(r, "linux"));
    vf_registry_unref(r);
    snprintf(list, sizeof(list), "%s/classes", reg.dir);
    list_dir(list, list, sizeof(list));
    cr_expect_str_eq(list, "pinned.json ");
}

Test(templates_registry_change, the_directories_are_made)
{
    struct vf_registry *r = NULL;
    struct vf_error err;

    snprintf(reg.dir, sizeof(reg.dir), "%s/new/config", reg.s.path);
    expect_ok(put_class(CLASS("first", "\"default\":true"), &r, &err), err);
    cr_expect(exists("classes", "first"));
    vf_registry_unref(r);
}

Test(templates_registry_change, a_change_that_would_not_load_is_not_made)
{
    struct vf_registry *r = NULL;
    struct vf_error err = {0};

    expect_error(put_class(CLASS("new", BOTH("{\"vmm\":\"nope\"}")), &r, &err), err,
                 VF_INVALID_ARGUMENT, "there is no asset \"nope\"");
    expect_error(put_class(CLASS("pinned", BOTH("{\"vmm\":\"linux\"}")), &r, &err), err,
                 VF_INVALID_ARGUMENT, "is of kind \"kernel\"");
    /* What a class names must stay of that kind. */
    expect_error(
        put_asset(ASSET("fc-1", "kernel", DIGEST_A), &r, &err), err, VF_INVALID_ARGUMENT,
        "classes/pinned.json: assets.x86_64.vmm: the asset \"fc-1\" is of kind \"kernel\"");
    expect_error(vf_registry_remove_asset(&reg.cfg, "fc-1", &r, &err), err, VF_CONFLICT,
                 "asset fc-1: class \"pinned\" still names it");
    expect_error(vf_registry_remove_asset(&reg.cfg, "nope", &r, &err), err, VF_NOT_FOUND,
                 "there is no asset \"nope\"");
    expect_error(vf_registry_remove_class(&reg.cfg, "nope", &r, &err), err, VF_NOT_FOUND,
                 "there is no class \"nope\"");
    expect_error(vf_registry_remove_class(&reg.cfg, "../assets/fc-1", &r, &err), err, VF_NOT_FOUND,
                 "there is no class");
    expect_error(vf_registry_remove_class(&reg.cfg, "qemu", &r, &err), err, VF_CONFLICT,
                 "is built in");
    cr_expect_null(r);
    cr_expect_not(exists("classes", "new"));
    r = reg_load();
    cr_expect_str_eq(vf_registry_class(r, "pinned")->assets.x86_64.vmm, "fc-1");
    cr_expect_eq(vf_registry_asset(r, "fc-1")->kind, VF_ASSET_KIND_VMM);
    vf_registry_unref(r);
    expect_ok(put_class(CLASS("one", "\"default\":true"), &r, &err), err);
    vf_registry_unref(r);
    expect_error(put_class(CLASS("two", "\"default\":true"), &r, &err), err, VF_INVALID_ARGUMENT,
                 "default: \"one\" is the default class");
}

/* What is broken on disk blocks all other changes, but not its own repair. */
Test(templates_registry_change, a_broken_definition_can_be_replaced)
{
    struct vf_registry *r = NULL;
    struct vf_error err = {0};

    reg_write("classes", "bad.json", "{");
    expect_error(put_class(CLASS("new", "\"default\":true"), &r, &err), err, VF_INVALID_ARGUMENT,
                 "classes/bad.json: ");
    cr_expect_not(exists("classes", "new"));
    expect_ok(put_class(CLASS("bad", "\"default\":true"), &r, &err), err);
    vf_registry_unref(r);
    reg_write("classes", "bad.json", "{");
    expect_ok(vf_registry_remove_class(&reg.cfg, "bad", &r, &err), err);
    vf_registry_unref(r);
    vf_registry_unref(reg_load());
}

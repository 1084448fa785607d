/* Runtime classes and assets are loaded: what is taken, and that anything wrong refuses all of it. */
#include "registry_support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(templates_registry_load, .init = reg_open, .fini = reg_close);

/* --- what is taken */

Test(templates_registry_load, without_a_directory_there_are_the_built_in_classes)
{
    const struct vf_class *c;
    struct vf_registry *r;

    snprintf(reg.dir, sizeof(reg.dir), "%s/nowhere", reg.s.path);
    r = reg_load();
    cr_assert_eq(vf_registry_n_classes(r), VF_SPEC_VMM_COUNT);
    cr_expect_eq(vf_registry_n_assets(r), 0);
    for (int vmm = 0; vmm < VF_SPEC_VMM_COUNT; vmm++) {
        c = vf_registry_class(r, vf_spec_vmm_names[vmm]);
        cr_assert_not_null(c);
        cr_expect_eq(c, vf_registry_default(r, (enum vf_spec_vmm)vmm));
        cr_expect(c->builtin && c->is_default && c->options.sandbox);
        cr_expect_eq(c->vmm, vmm);
    }
    cr_expect_str_eq(vf_registry_binary(r, VF_SPEC_VMM_QEMU), "/opt/qemu");
    cr_expect_null(vf_registry_binary(r, VF_SPEC_VMM_NULL));
    for (size_t i = 1; i < vf_registry_n_classes(r); i++)
        cr_expect_lt(strcmp(vf_registry_class_at(r, i - 1)->name, vf_registry_class_at(r, i)->name),
                     0);
    vf_registry_unref(r);
}

Test(templates_registry_load, a_set_is_counted)
{
    struct vf_registry *r = reg_load();

    cr_expect_eq(vf_registry_ref(r), r);
    vf_registry_unref(r);
    cr_expect_not_null(vf_registry_class(r, "pinned"));
    vf_registry_unref(r);
    vf_registry_unref(NULL);
}

Test(templates_registry_load, files_are_taken)
{
    const struct vf_class *c;
    struct vf_registry *r;

    reg_write("classes", ".pinned.json.swp", "an editor's");
    reg_write("classes", ".vf-tmp-1", "a crash's");
    reg_write("classes", "open.json", CLASS("open", "\"options\":{\"sandbox\":false}"));
    r = reg_load();
    cr_expect_eq(vf_registry_n_classes(r), VF_SPEC_VMM_COUNT + 2);
    cr_expect_eq(vf_registry_n_assets(r), 2);
    cr_expect_str_eq(vf_registry_asset_at(r, 0)->name, "fc-1");
    c = vf_registry_class(r, "pinned");
    cr_assert_not_null(c);
    cr_expect_eq(c->vmm, VF_SPEC_VMM_FIRECRACKER);
    cr_expect(c->options.sandbox && !c->builtin && !c->is_default);
    cr_expect_str_eq(c->assets.x86_64.vmm, "fc-1");
    cr_expect_not(vf_registry_class(r, "open")->options.sandbox);
    cr_expect_eq(vf_registry_default(r, VF_SPEC_VMM_FIRECRACKER),
                 vf_registry_class(r, "firecracker"));
    cr_expect(vf_registry_uses(r, DIGEST_A));
    cr_expect(vf_registry_uses(r, DIGEST_B));
    vf_registry_unref(r);

    reg_write("classes", "pinned.json", CLASS("pinned", BOTH("{\"vmm\":\"fc-1\"}")));
    r = reg_load();
    cr_expect_not(vf_registry_uses(r, DIGEST_B), "no class names it");
    vf_registry_unref(r);
}

Test(templates_registry_load, a_default_takes_the_built_in_ones_place)
{
    struct vf_registry *r;

    reg_write("classes", "mine.json", CLASS("mine", "\"default\":true"));
    r = reg_load();
    cr_expect_null(vf_registry_class(r, "firecracker"));
    cr_expect_str_eq(vf_registry_default(r, VF_SPEC_VMM_FIRECRACKER)->name, "mine");
    cr_expect_str_eq(vf_registry_default(r, VF_SPEC_VMM_QEMU)->name, "qemu");
    vf_registry_unref(r);
}

Test(templates_registry_load, a_class_round_trips)
{
    static const char text[] =
        CLASS("a.b_c-1", "\"default\":true," BOTH(
                             "{\"vmm\":\"v\",\"kernel\":\"k\",\"initrd\":\"i\","
                             "\"root\":\"r\"}") ",\"options\":{\"sandbox\":false,"
                                                "\"restore_mode\":\"copy\",\"prefault\":false}");
    struct vf_class c, again;
    struct vf_error err;
    char *out, *out2;

    expect_ok(vf_class_parse(text, strlen(text), NULL, &c, &err), err);
    out = vf_class_encode(&c);
    expect_ok(vf_class_parse(out, strlen(out), NULL, &again, &err), err);
    out2 = vf_class_encode(&again);
    cr_expect_str_eq(out, out2);
    cr_expect_str_eq(again.assets.aarch64.root, "r");
    cr_expect(again.is_default && again.assets.has_x86_64 && !again.options.sandbox);
    free(out);
    free(out2);
    vf_class_free(&c);
    vf_class_free(&c);
    vf_class_free(NULL);
    vf_class_free(&again);
}

/* --- anything wrong refuses all of it */

static const struct {
    const char *kind, *file, *text;
    const char *says[2]; /* the file, and the field with what is wrong */
} wrong[] = {
    {"classes", "a.json", "this is not JSON", {"classes/a.json: ", ""}},
    {"classes", "a.json", "{\"name\":\"a\"", {"classes/a.json: ", ""}},
    {"classes", "a.json", "", {"classes/a.json: ", ""}},
    {"classes", "a.json", "{\"name\":\"a\"}", {"classes/a.json: ", "vmm: is required"}},
    {"classes",
     "a.json",
     "{\"name\":\"a\",\"vmm\":\"kvmtool\"}",
     {"classes/a.json: ", "vmm: must be"}},
    {"classes",
     "a.json",
     CLASS("a", "\"defualt\":true"),
     {"classes/a.json: ", "did you mean \"default\""}},
    {"classes",
     "a.json",
     CLASS("a", "\"builtin\":true"),
     {"classes/a.json: ", "builtin: unknown key"}},
    {"classes",
     "a.json",
     CLASS("a", "\"default\":1"),
     {"classes/a.json: ", "default: must be true or"}},
    {"classes",
     "a.json",
     CLASS("a", "\"name\":\"a\""),
     {"classes/a.json: ", "name: is given twice"}},
    {"classes",
     "a.json",
     CLASS("b", "\"default\":false"),
     {"classes/a.json: ", "name: is \"b\", but the file"}},
    {"classes",
     "a.json",
     CLASS("pinned", "\"default\":false"),
     {"classes/a.json: ", "name: is \"pinned\""}},
    {"classes",
     "A.json",
     CLASS("A", "\"default\":false"),
     {"classes/A.json: ", "name: must be 1 to 64"}},
    {"classes",
     "qemu.json",
     CLASS("qemu", "\"default\":true"),
     {"classes/qemu.json: ", "name: \"qemu\" is the built-in"}},
    {"classes",
     "a.txt",
     CLASS("a", "\"default\":false"),
     {"classes/a.txt: ", "is not called NAME.json"}},
    {"classes", ".json", "", {NULL, NULL}}, /* hidden */
    {"classes",
     "a.json",
     CLASS("a", BOTH("{\"vmm\":\"nope\"}")),
     {"classes/a.json: ", "assets.x86_64.vmm: there is no asset \"nope\""}},
    {"classes",
     "a.json",
     CLASS("a", "\"assets\":{\"x86_64\":{\"vmm\":\"fc-1\"},\"aarch64\":{\"vmm\":\"nope\"}}"),
     {"classes/a.json: ", "assets.aarch64.vmm: there is no asset \"nope\""}},
    {"classes",
     "a.json",
     CLASS("a", BOTH("{\"vmm\":\"linux\"}")),
     {"classes/a.json: ",
      "assets.x86_64.vmm: the asset \"linux\" is of kind \"kernel\", must be \"vmm\""}},
    {"classes",
     "a.json",
     CLASS("a", BOTH("{\"kernel\":\"fc-1\"}")),
     {"classes/a.json: ", "assets.x86_64.kernel: the asset \"fc-1\" is of kind \"vmm\""}},
    {"classes",
     "a.json",
     CLASS("a", BOTH("{\"root\":\"linux\"}")),
     {"classes/a.json: ", "assets.x86_64.root: the asset \"linux\" is of kind"}},
    {"classes",
     "a.json",
     CLASS("a", BOTH("{\"kernel\":\"linux\",\"initrd\":\"linux\"}")),
     {"classes/a.json: ", "assets.x86_64.initrd: the asset \"linux\" is of kind"}},
    {"classes",
     "a.json",
     CLASS("a", BOTH("{\"initrd\":\"linux\"}")),
     {"classes/a.json: ", "assets.x86_64.initrd: makes no sense without a kernel"}},
    {"classes",
     "a.json",
     CLASS("a", BOTH("{}")),
     {"classes/a.json: ", "assets.x86_64: must name at least one"}},
    {"classes",
     "a.json",
     "{\"name\":\"a\",\"vmm\":\"null\"," BOTH("{\"vmm\":\"fc-1\"}") "}",
     {"classes/a.json: ", "assets.x86_64.vmm: null has no binary"}},
    {"classes",
     "a.json",
     CLASS("a", "\"options\":{\"prefault\":true}"),
     {"classes/a.json: ", "options.prefault: firecracker has no such option"}},
    {"classes",
     "a.json",
     CLASS("a", "\"options\":{\"restore_mode\":\"on-demand\"}"),
     {"classes/a.json: ", "options.restore_mode: firecracker has no such option"}},
    {"classes",
     "a.json",
     "{\"name\":\"a\",\"vmm\":\"cloud-hypervisor\",\"options\":{\"prefault\":true}}",
     {"classes/a.json: ", "options.prefault: clones can't have it: populating"}},
    {"classes",
     "a.json",
     "{\"name\":\"a\",\"vmm\":\"cloud-hypervisor\",\"options\":{\"mergeable\":true}}",
     {"classes/a.json: ", "options.mergeable: clones can't have it: merging"}},
    {"classes",
     "a.json",
     "{\"name\":\"a\",\"vmm\":\"cloud-hypervisor\",\"options\":{\"restore_mode\":\"on-demand\"}}",
     {"classes/a.json: ", "options.restore_mode: clones can't have it: a template's memory"}},
    {"assets", "a.json", "this is not JSON", {"assets/a.json: ", ""}},
    {"assets",
     "a.json",
     ASSET("b", "vmm", DIGEST_A),
     {"assets/a.json: ", "name: is \"b\", but the file"}},
    {"assets",
     "a.json",
     "{\"name\":\"a\",\"kind\":\"vmm\",\"files\":{\"x86_64\":{\"url\":\"file:///x\"}}}",
     {"assets/a.json: ", "files.x86_64.sha256: "}},
    {"assets", "a.json", ASSET("a", "vmm", "abc"), {"assets/a.json: ", "files.x86_64.sha256: "}},
    {"assets", "a.json", ASSET("a", "engine", DIGEST_A), {"assets/a.json: ", "kind: must be"}},
};

static void expect_refused(const char *says, const char *more)
{
    struct vf_registry *r = NULL;
    struct vf_error err = {0};
    int n = vf_registry_load(&reg.cfg, &r, &err);

    cr_expect_lt(n, 0, "%s", says);
    cr_expect_null(r);
    cr_expect(strncmp(err.msg, reg.dir, strlen(reg.dir)) == 0, "\"%s\" names no file", err.msg);
    cr_expect_not_null(strstr(err.msg, says), "\"%s\" lacks \"%s\"", err.msg, says);
    cr_expect_not_null(strstr(err.msg, more), "\"%s\" lacks \"%s\"", err.msg, more);
}

Test(templates_registry_load, one_that_is_wrong_refuses_all)
{
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        reg_write(wrong[i].kind, wrong[i].file, wrong[i].text);
        if (wrong[i].says[0] != NULL)
            expect_refused(wrong[i].says[0], wrong[i].says[1]);
        reg_remove(wrong[i].kind, wrong[i].file);
        vf_registry_unref(reg_load()); /* and without it all is well again */
    }
}

Test(templates_registry_load, two_defaults)
{
    reg_write("classes", "a.json", CLASS("a", "\"default\":true"));
    reg_write("classes", "b.json", CLASS("b", "\"default\":true"));
    expect_refused("classes/b.json: ",
                   "default: \"a\" is the default class of firecracker already");
}

/* One that exists, but nowhere near. */
static const char *foreign(void)
{
    return strcmp(vf_host_arch(), "aarch64") == 0 ? "x86_64" : "aarch64";
}

Test(templates_registry_load, another_architecture)
{
    char text[300];

    snprintf(text, sizeof(text),
             "{\"name\":\"a\",\"vmm\":\"firecracker\",\"assets\":{\"%s\":{\"vmm\":\"fc-1\"}}}",
             foreign());
    reg_write("classes", "a.json", text);
    expect_refused("classes/a.json: ", "assets: there are none for this host's ");
    reg_remove("classes", "a.json");

    snprintf(text, sizeof(text),
             "{\"name\":\"far\",\"kind\":\"vmm\",\"files\":{\"%s\":" FILE_OF(DIGEST_A) "}}",
             foreign());
    reg_write("assets", "far.json", text);
    vf_registry_unref(reg_load()); /* an asset alone may be for another host */
    snprintf(text, sizeof(text),
             "{\"name\":\"a\",\"vmm\":\"firecracker\",\"assets\":{\"%s\":{\"vmm\":\"far\"}}}",
             vf_host_arch());
    reg_write("classes", "a.json", text);
    expect_refused("classes/a.json: ", "the asset \"far\" has no file for ");
}

Test(templates_registry_load, what_can_t_be_read)
{
    char path[400];

    snprintf(path, sizeof(path), "%s/classes/a.json", reg.dir);
    cr_assert_eq(mkdir(path, 0755), 0);
    expect_refused("classes: ", "a.json");
    cr_assert_eq(rmdir(path), 0);
    cr_assert_eq(symlink("pinned.json", path), 0);
    expect_refused("classes: ", "a.json");
    cr_assert_eq(unlink(path), 0);
    {
        VF_CLEANUP_FREE char *big = calloc(1, 70000);

        memset(big, ' ', 69999);
        reg_write("classes", "a.json", big);
        expect_refused("classes: ", "a.json");
        reg_remove("classes", "a.json");
    }
    snprintf(path, sizeof(path), "%s/assets", reg.dir);
    cr_assert_eq(vf_remove_tree(AT_FDCWD, path, NULL), 0);
    put_file(path, "a file");
    expect_refused("assets: ", "");
}

Test(templates_registry_load, a_directory_without_permission)
{
    char path[400];

    cr_assert_eq(chmod(reg.s.path, 0755), 0);
    snprintf(path, sizeof(path), "%s/classes", reg.dir);
    cr_assert_eq(chmod(path, 0), 0);
    if (geteuid() == 0) /* root may read all: as somebody else, then */
        cr_assert_eq(seteuid(65534), 0);
    expect_refused("classes: open: ", "Permission denied");
    cr_assert_eq(seteuid(getuid()), 0);
    cr_assert_eq(chmod(path, 0755), 0);
}

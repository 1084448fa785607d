/* Runtime classes and the registry: what is taken, that anything wrong refuses all of it, and that a change is whole or
 * not made. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "templates/registry.h"
#include "templates_support.h"

#define DIGEST_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DIGEST_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define FILE_OF(digest) "{\"url\":\"file:///x\",\"sha256\":\"" digest "\"}"
#define ASSET(name, kind, digest)                             \
    "{\"name\":\"" name "\",\"kind\":\"" kind "\",\"files\":" \
    "{\"x86_64\":" FILE_OF(digest) ",\"aarch64\":" FILE_OF(digest) "}}"
#define BOTH(assets) "\"assets\":{\"x86_64\":" assets ",\"aarch64\":" assets "}"
#define CLASS(name, more) "{\"name\":\"" name "\",\"vmm\":\"firecracker\"," more "}"

static struct scratch s;
static char dir[300];
static struct vf_registry_config cfg;

static void write_def(const char *kind, const char *name, const char *text)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", dir, kind);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/%s/%s", dir, kind, name);
    put_file(path, text);
}

static void remove_def(const char *kind, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s/%s", dir, kind, name);
    cr_assert_eq(unlink(path), 0, "%s", path);
}

static void setup(void)
{
    scratch_open(&s);
    snprintf(dir, sizeof(dir), "%s/config", s.path);
    mkdir(dir, 0755);
    cfg = (struct vf_registry_config){.dir = dir};
    cfg.binaries[VF_SPEC_VMM_QEMU] = "/opt/qemu";
    cfg.binaries[VF_SPEC_VMM_FIRECRACKER] = "/opt/firecracker";
    write_def("assets", "fc-1.json", ASSET("fc-1", "vmm", DIGEST_A));
    write_def("assets", "linux.json", ASSET("linux", "kernel", DIGEST_B));
    write_def("classes", "pinned.json",
              CLASS("pinned", BOTH("{\"vmm\":\"fc-1\",\"kernel\":\"linux\"}")));
}

static void teardown(void)
{
    scratch_close(&s);
}

TestSuite(templates_registry, .init = setup, .fini = teardown);

static struct vf_registry *load(void)
{
    struct vf_registry *r = NULL;
    struct vf_error err;

    expect_ok(vf_registry_load(&cfg, &r, &err), err);
    return r;
}

static struct vf_spec spec_of(const char *more)
{
    struct vf_error err;
    struct vf_spec spec;
    char text[300];

    snprintf(text, sizeof(text), "{\"name\":\"web\",%s}", more);
    expect_ok(vf_spec_parse(text, strlen(text), NULL, NULL, &spec, &err), err);
    return spec;
}

/* --- what is taken */

Test(templates_registry, without_a_directory_there_are_the_built_in_classes)
{
    const struct vf_class *c;
    struct vf_registry *r;

    snprintf(dir, sizeof(dir), "%s/nowhere", s.path);
    r = load();
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

Test(templates_registry, a_set_is_counted)
{
    struct vf_registry *r = load();

    cr_expect_eq(vf_registry_ref(r), r);
    vf_registry_unref(r);
    cr_expect_not_null(vf_registry_class(r, "pinned"));
    vf_registry_unref(r);
    vf_registry_unref(NULL);
}

Test(templates_registry, files_are_taken)
{
    const struct vf_class *c;
    struct vf_registry *r;

    write_def("classes", ".pinned.json.swp", "an editor's");
    write_def("classes", ".vf-tmp-1", "a crash's");
    write_def("classes", "open.json", CLASS("open", "\"options\":{\"sandbox\":false}"));
    r = load();
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

    write_def("classes", "pinned.json", CLASS("pinned", BOTH("{\"vmm\":\"fc-1\"}")));
    r = load();
    cr_expect_not(vf_registry_uses(r, DIGEST_B), "no class names it");
    vf_registry_unref(r);
}

Test(templates_registry, a_default_takes_the_built_in_ones_place)
{
    struct vf_registry *r;

    write_def("classes", "mine.json", CLASS("mine", "\"default\":true"));
    r = load();
    cr_expect_null(vf_registry_class(r, "firecracker"));
    cr_expect_str_eq(vf_registry_default(r, VF_SPEC_VMM_FIRECRACKER)->name, "mine");
    cr_expect_str_eq(vf_registry_default(r, VF_SPEC_VMM_QEMU)->name, "qemu");
    vf_registry_unref(r);
}

Test(templates_registry, a_class_round_trips)
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
    int n = vf_registry_load(&cfg, &r, &err);

    cr_expect_lt(n, 0, "%s", says);
    cr_expect_null(r);
    cr_expect(strncmp(err.msg, dir, strlen(dir)) == 0, "\"%s\" names no file", err.msg);
    cr_expect_not_null(strstr(err.msg, says), "\"%s\" lacks \"%s\"", err.msg, says);
    cr_expect_not_null(strstr(err.msg, more), "\"%s\" lacks \"%s\"", err.msg, more);
}

Test(templates_registry, one_that_is_wrong_refuses_all)
{
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        write_def(wrong[i].kind, wrong[i].file, wrong[i].text);
        if (wrong[i].says[0] != NULL)
            expect_refused(wrong[i].says[0], wrong[i].says[1]);
        remove_def(wrong[i].kind, wrong[i].file);
        vf_registry_unref(load()); /* and without it all is well again */
    }
}

Test(templates_registry, two_defaults)
{
    write_def("classes", "a.json", CLASS("a", "\"default\":true"));
    write_def("classes", "b.json", CLASS("b", "\"default\":true"));
    expect_refused("classes/b.json: ",
                   "default: \"a\" is the default class of firecracker already");
}

/* One that exists, but nowhere near. */
static const char *foreign(void)
{
    return strcmp(vf_host_arch(), "aarch64") == 0 ? "x86_64" : "aarch64";
}

Test(templates_registry, another_architecture)
{
    char text[300];

    snprintf(text, sizeof(text),
             "{\"name\":\"a\",\"vmm\":\"firecracker\",\"assets\":{\"%s\":{\"vmm\":\"fc-1\"}}}",
             foreign());
    write_def("classes", "a.json", text);
    expect_refused("classes/a.json: ", "assets: there are none for this host's ");
    remove_def("classes", "a.json");

    snprintf(text, sizeof(text),
             "{\"name\":\"far\",\"kind\":\"vmm\",\"files\":{\"%s\":" FILE_OF(DIGEST_A) "}}",
             foreign());
    write_def("assets", "far.json", text);
    vf_registry_unref(load()); /* an asset alone may be for another host */
    snprintf(text, sizeof(text),
             "{\"name\":\"a\",\"vmm\":\"firecracker\",\"assets\":{\"%s\":{\"vmm\":\"far\"}}}",
             vf_host_arch());
    write_def("classes", "a.json", text);
    expect_refused("classes/a.json: ", "the asset \"far\" has no file for ");
}

Test(templates_registry, what_can_t_be_read)
{
    char path[400];

    snprintf(path, sizeof(path), "%s/classes/a.json", dir);
    cr_assert_eq(mkdir(path, 0755), 0);
    expect_refused("classes: ", "a.json");
    cr_assert_eq(rmdir(path), 0);
    cr_assert_eq(symlink("pinned.json", path), 0);
    expect_refused("classes: ", "a.json");
    cr_assert_eq(unlink(path), 0);
    {
        VF_CLEANUP_FREE char *big = calloc(1, 70000);

        memset(big, ' ', 69999);
        write_def("classes", "a.json", big);
        expect_refused("classes: ", "a.json");
        remove_def("classes", "a.json");
    }
    snprintf(path, sizeof(path), "%s/assets", dir);
    cr_assert_eq(vf_remove_tree(AT_FDCWD, path, NULL), 0);
    put_file(path, "a file");
    expect_refused("assets: ", "");
}

Test(templates_registry, a_directory_without_permission)
{
    char path[400];

    cr_assert_eq(chmod(s.path, 0755), 0);
    snprintf(path, sizeof(path), "%s/classes", dir);
    cr_assert_eq(chmod(path, 0), 0);
    if (geteuid() == 0) /* root may read all: as somebody else, then */
        cr_assert_eq(seteuid(65534), 0);
    expect_refused("classes: open: ", "Permission denied");
    cr_assert_eq(seteuid(getuid()), 0);
    cr_assert_eq(chmod(path, 0755), 0);
}

/* --- changing it */

static bool exists(const char *kind, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s/%s.json", dir, kind, name);
    return access(path, F_OK) == 0;
}

static int put_class(const char *text, struct vf_registry **ret, struct vf_error *err)
{
    struct vf_class c;
    int r = vf_class_parse(text, strlen(text), NULL, &c, err);

    cr_assert_eq(r, 0, "%s", err->msg);
    r = vf_registry_put_class(&cfg, &c, ret, err);
    vf_class_free(&c);
    return r;
}

static int put_asset(const char *text, struct vf_registry **ret, struct vf_error *err)
{
    struct vf_asset a;
    int r = vf_asset_parse(text, strlen(text), NULL, &a, err);

    cr_assert_eq(r, 0, "%s", err->msg);
    r = vf_registry_put_asset(&cfg, &a, ret, err);
    vf_asset_free(&a);
    return r;
}

Test(templates_registry, a_change_lasts)
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
    again = load();
    cr_expect_str_eq(vf_registry_class(again, "pinned")->assets.x86_64.vmm, "fc-2");
    cr_expect_null(vf_registry_class(again, "pinned")->assets.x86_64.kernel);
    cr_expect_eq(vf_registry_n_classes(again), vf_registry_n_classes(r));
    vf_registry_unref(r);
    vf_registry_unref(again);
    expect_ok(vf_registry_remove_class(&cfg, "new", &r, &err), err);
    cr_expect_null(vf_registry_class(r, "new"));
    cr_expect_not(exists("classes", "new"));
    vf_registry_unref(r);
    expect_ok(vf_registry_remove_asset(&cfg, "linux", &r, &err), err);
    cr_expect_null(vf_registry_asset(r, "linux"));
    vf_registry_unref(r);
    snprintf(list, sizeof(list), "%s/classes", dir);
    list_dir(list, list, sizeof(list));
    cr_expect_str_eq(list, "pinned.json ");
}

Test(templates_registry, the_directories_are_made)
{
    struct vf_registry *r = NULL;
    struct vf_error err;

    snprintf(dir, sizeof(dir), "%s/new/config", s.path);
    expect_ok(put_class(CLASS("first", "\"default\":true"), &r, &err), err);
    cr_expect(exists("classes", "first"));
    vf_registry_unref(r);
}

Test(templates_registry, a_change_that_would_not_load_is_not_made)
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
    expect_error(vf_registry_remove_asset(&cfg, "fc-1", &r, &err), err, VF_CONFLICT,
                 "asset fc-1: class \"pinned\" still names it");
    expect_error(vf_registry_remove_asset(&cfg, "nope", &r, &err), err, VF_NOT_FOUND,
                 "there is no asset \"nope\"");
    expect_error(vf_registry_remove_class(&cfg, "nope", &r, &err), err, VF_NOT_FOUND,
                 "there is no class \"nope\"");
    expect_error(vf_registry_remove_class(&cfg, "../assets/fc-1", &r, &err), err, VF_NOT_FOUND,
                 "there is no class");
    expect_error(vf_registry_remove_class(&cfg, "qemu", &r, &err), err, VF_CONFLICT, "is built in");
    cr_expect_null(r);
    cr_expect_not(exists("classes", "new"));
    r = load();
    cr_expect_str_eq(vf_registry_class(r, "pinned")->assets.x86_64.vmm, "fc-1");
    cr_expect_eq(vf_registry_asset(r, "fc-1")->kind, VF_ASSET_KIND_VMM);
    vf_registry_unref(r);
    expect_ok(put_class(CLASS("one", "\"default\":true"), &r, &err), err);
    vf_registry_unref(r);
    expect_error(put_class(CLASS("two", "\"default\":true"), &r, &err), err, VF_INVALID_ARGUMENT,
                 "default: \"one\" is the default class");
}

/* What is broken on disk blocks all other changes, but not its own repair. */
Test(templates_registry, a_broken_definition_can_be_replaced)
{
    struct vf_registry *r = NULL;
    struct vf_error err = {0};

    write_def("classes", "bad.json", "{");
    expect_error(put_class(CLASS("new", "\"default\":true"), &r, &err), err, VF_INVALID_ARGUMENT,
                 "classes/bad.json: ");
    cr_expect_not(exists("classes", "new"));
    expect_ok(put_class(CLASS("bad", "\"default\":true"), &r, &err), err);
    vf_registry_unref(r);
    write_def("classes", "bad.json", "{");
    expect_ok(vf_registry_remove_class(&cfg, "bad", &r, &err), err);
    vf_registry_unref(r);
    vf_registry_unref(load());
}

/* --- what a spec runs with */

Test(templates_registry, settling_and_assets)
{
    const struct vf_asset *assets[VF_RUNTIME_MAX_ASSETS];
    struct vf_registry *r = load();
    struct vf_error err = {0};
    struct vf_spec spec = spec_of("\"class\":\"pinned\"");
    int n = -1;

    expect_ok(vf_registry_settle(r, &spec, &err), err);
    cr_expect_eq(spec.vmm, VF_SPEC_VMM_FIRECRACKER);
    cr_expect_eq(spec.agent.channel, VF_CHANNEL_VSOCK);
    expect_ok(vf_registry_assets_of(r, &spec, assets, &n, &err), err);
    cr_assert_eq(n, 2);
    cr_expect_str_eq(assets[0]->name, "fc-1");
    cr_expect_str_eq(assets[1]->name, "linux");
    vf_spec_free(&spec);

    spec = spec_of("\"class\":\"pinned\",\"boot\":{\"kernel\":\"/k\"}"); /* its own */
    expect_ok(vf_registry_assets_of(r, &spec, assets, &n, &err), err);
    cr_expect_eq(n, 1);
    vf_spec_free(&spec);

    spec = spec_of("\"boot\":{\"kernel\":\"/k\"}"); /* qemu's built-in class pins nothing */
    expect_ok(vf_registry_settle(r, &spec, &err), err);
    expect_ok(vf_registry_assets_of(r, &spec, assets, &n, &err), err);
    cr_expect_eq(n, 0);
    vf_spec_free(&spec);

    spec = spec_of("\"class\":\"nope\"");
    expect_error(vf_registry_settle(r, &spec, &err), err, VF_NOT_FOUND,
                 "class: there is no class \"nope\"");
    expect_error(vf_registry_assets_of(r, &spec, assets, &n, &err), err, VF_NOT_FOUND, "\"nope\"");
    vf_spec_free(&spec);
    spec = spec_of("\"class\":\"pinned\",\"vmm\":\"qemu\",\"boot\":{\"kernel\":\"/k\"}");
    expect_error(vf_registry_settle(r, &spec, &err), err, VF_INVALID_ARGUMENT,
                 "class pinned: vmm: is \"qemu\", but the class runs firecracker");
    vf_spec_free(&spec);
    spec = spec_of("\"class\":\"firecracker\"");
    expect_error(vf_registry_settle(r, &spec, &err), err, VF_INVALID_ARGUMENT,
                 "boot.kernel: is required: the class \"firecracker\" has none");
    vf_spec_free(&spec);
    vf_registry_unref(r);
}

/* A default class's kernel and image are not forced on specs that never heard of it. */
Test(templates_registry, a_default_class_gives_its_vmm_only)
{
    const struct vf_asset *assets[VF_RUNTIME_MAX_ASSETS];
    struct vf_registry *r;
    struct vf_error err;
    struct vf_spec spec = spec_of("\"vmm\":\"firecracker\",\"boot\":{\"kernel\":\"/k\"}");
    int n = -1;

    write_def("assets", "root.json", ASSET("root", "image", DIGEST_B));
    write_def("classes", "mine.json",
              CLASS("mine", "\"default\":true," BOTH(
                                "{\"vmm\":\"fc-1\",\"kernel\":\"linux\",\"root\":\"root\"}")));
    r = load();
    expect_ok(vf_registry_assets_of(r, &spec, assets, &n, &err), err);
    cr_assert_eq(n, 1);
    cr_expect_str_eq(assets[0]->name, "fc-1");
    vf_spec_free(&spec);
    vf_registry_unref(r);
}

Test(templates_registry, the_hosts_binary_needs_no_store)
{
    struct vf_registry *r = load();
    struct vf_runtime rt;
    struct vf_error err = {0};
    struct vf_spec spec = spec_of("\"boot\":{\"kernel\":\"/k\",\"initrd\":\"/i\"}");

    expect_ok(vf_registry_resolve(r, NULL, &spec, &rt, &err), err);
    cr_expect_str_eq(rt.class_name, "qemu");
    cr_expect_eq(rt.vmm, VF_SPEC_VMM_QEMU);
    cr_expect_str_eq(rt.binary, "/opt/qemu");
    cr_expect_str_eq(rt.kernel, "/k");
    cr_expect_str_eq(rt.initrd, "/i");
    cr_expect_null(rt.root);
    cr_expect(rt.options.sandbox);
    vf_runtime_free(&rt);
    vf_runtime_free(&rt);
    vf_spec_free(&spec);
    vf_registry_unref(r);
}

Test(templates_registry, a_vmm_that_is_not_there)
{
    char path[] = "PATH=/nowhere";
    struct vf_registry *r;
    struct vf_runtime rt;
    struct vf_error err = {0};
    struct vf_spec spec = spec_of("\"vmm\":\"cloud-hypervisor\",\"boot\":{\"kernel\":\"/k\"}");

    cr_assert_eq(putenv(path), 0);
    r = load();
    expect_error(vf_registry_need_binary(r, &spec, &err), err, VF_NOT_FOUND,
                 "vmm: cloud-hypervisor is not on PATH");
    expect_error(vf_registry_resolve(r, NULL, &spec, &rt, &err), err, VF_NOT_FOUND,
                 "vmm: cloud-hypervisor is not on PATH");
    cr_expect_not_null(strstr(err.hint, "install a release of Cloud Hypervisor"));
    vf_spec_free(&spec);
    vf_registry_unref(r);
}

static void fill_store(const char *digest, const char *content)
{
    char path[400];

    snprintf(path, sizeof(path), "%s/store", s.path);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/store/sha256", s.path);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/store/sha256/%s", s.path, digest);
    put_file(path, content);
}

Test(templates_registry, pinned_paths_are_the_stores)
{
    struct vf_spec spec = spec_of("\"class\":\"pinned\",\"boot\":{\"initrd\":\"/i\"}");
    struct vf_registry *r = load();
    struct vf_asset_store *store = NULL;
    struct vf_runtime rt = {.vmm = 77};
    struct vf_error err = {0};
    char path[300], want[400];

    expect_error(vf_registry_resolve(r, NULL, &spec, &rt, &err), err, VF_NOT_FOUND,
                 "asset fc-1: there is no store");
    fill_store(DIGEST_A, "a VMM");
    snprintf(path, sizeof(path), "%s/store", s.path);
    expect_ok(vf_asset_store_open(path, &store, &err), err);
    expect_error(vf_registry_resolve(r, store, &spec, &rt, &err), err, VF_NOT_FOUND,
                 "asset linux: was not fetched yet");
    cr_expect_not_null(strstr(err.hint, "`vmfactory asset fetch linux`"));
    cr_expect_eq(rt.vmm, 77);
    fill_store(DIGEST_B, "a kernel");
    expect_ok(vf_registry_resolve(r, store, &spec, &rt, &err), err);
    snprintf(want, sizeof(want), "%s/store/sha256/" DIGEST_A, s.path);
    cr_expect_str_eq(rt.binary, want);
    snprintf(want, sizeof(want), "%s/store/sha256/" DIGEST_B, s.path);
    cr_expect_str_eq(rt.kernel, want);
    cr_expect_str_eq(rt.initrd, "/i");
    cr_expect_str_eq(rt.class_name, "pinned");
    vf_runtime_free(&rt);
    vf_asset_store_close(store);
    vf_spec_free(&spec);
    vf_registry_unref(r);
}

/* The class's image tells its format itself. */
Test(templates_registry, a_classes_root)
{
    struct vf_spec spec = spec_of("\"class\":\"rooted\",\"boot\":{\"kernel\":\"/k\"}");
    struct vf_asset_store *store = NULL;
    struct vf_registry *r;
    struct vf_runtime rt;
    struct vf_error err = {0};
    char path[300];

    write_def("assets", "root.json", ASSET("root", "image", DIGEST_B));
    write_def("classes", "rooted.json",
              "{\"name\":\"rooted\",\"vmm\":\"qemu\"," BOTH("{\"root\":\"root\"}") "}");
    r = load();
    fill_store(DIGEST_B, "QFI\xfb and so on");
    snprintf(path, sizeof(path), "%s/store", s.path);
    expect_ok(vf_asset_store_open(path, &store, &err), err);
    expect_ok(vf_registry_resolve(r, store, &spec, &rt, &err), err);
    cr_expect_not_null(strstr(rt.root, DIGEST_B));
    cr_expect_eq(rt.root_format, VF_IMAGE_QCOW2);
    cr_expect_str_eq(rt.binary, "/opt/qemu");
    vf_runtime_free(&rt);
    vf_registry_unref(r);

    write_def("classes", "rooted.json", CLASS("rooted", BOTH("{\"root\":\"root\"}")));
    r = load();
    expect_error(vf_registry_resolve(r, store, &spec, &rt, &err), err, VF_INVALID_ARGUMENT,
                 "class rooted: its root image is qcow2, but firecracker takes raw images only");
    vf_registry_unref(r);
    vf_asset_store_close(store);
    vf_spec_free(&spec);
}

/* What a spec runs with: its class is settled, and binary, kernel and image are found on the host or in the store. */
#include "registry_support.h"

#include <sys/stat.h>

TestSuite(templates_registry_resolve, .init = reg_open, .fini = reg_close);

static struct vf_spec spec_of(const char *more)
{
    struct vf_error err;
    struct vf_spec spec;
    char text[300];

    snprintf(text, sizeof(text), "{\"name\":\"web\",%s}", more);
    expect_ok(vf_spec_parse(text, strlen(text), NULL, NULL, &spec, &err), err);
    return spec;
}

Test(templates_registry_resolve, settling_and_assets)
{
    const struct vf_asset *assets[VF_RUNTIME_MAX_ASSETS];
    struct vf_registry *r = reg_load();
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
Test(templates_registry_resolve, a_default_class_gives_its_vmm_only)
{
    const struct vf_asset *assets[VF_RUNTIME_MAX_ASSETS];
    struct vf_registry *r;
    struct vf_error err;
    struct vf_spec spec = spec_of("\"vmm\":\"firecracker\",\"boot\":{\"kernel\":\"/k\"}");
    int n = -1;

    reg_write("assets", "root.json", ASSET("root", "image", DIGEST_B));
    reg_write("classes", "mine.json",
              CLASS("mine", "\"default\":true," BOTH(
                                "{\"vmm\":\"fc-1\",\"kernel\":\"linux\",\"root\":\"root\"}")));
    r = reg_load();
    expect_ok(vf_registry_assets_of(r, &spec, assets, &n, &err), err);
    cr_assert_eq(n, 1);
    cr_expect_str_eq(assets[0]->name, "fc-1");
    vf_spec_free(&spec);
    vf_registry_unref(r);
}

Test(templates_registry_resolve, the_hosts_binary_needs_no_store)
{
    struct vf_registry *r = reg_load();
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

Test(templates_registry_resolve, a_vmm_that_is_not_there)
{
    char path[] = "PATH=/nowhere";
    struct vf_registry *r;
    struct vf_runtime rt;
    struct vf_error err = {0};
    struct vf_spec spec = spec_of("\"vmm\":\"cloud-hypervisor\",\"boot\":{\"kernel\":\"/k\"}");

    cr_assert_eq(putenv(path), 0);
    r = reg_load();
    expect_error(vf_registry_need_binary(r, &spec, &err), err, VF_NOT_FOUND,
                 "vmm: cloud-hypervisor is not on PATH");
    expect_error(vf_registry_resolve(r, NULL, &spec, &rt, &err), err, VF_NOT_FOUND,
                 "vmm: cloud-hypervisor is not on PATH");
    cr_expect_not_null(strstr(err.hint, "install a release of Cloud Hypervisor"));
    vf_spec_free(&spec);
    vf_registry_unref(r);
}

/* Of "a kernal" and "QFI\xfb and so on". */
#define DIGEST_KERNAL "1c1813cf347f64ffc7bc20766332cd267df6f398d8bee16de788f4947468c296"
#define DIGEST_IMAGE "3d2c9f0aeb146742494e7717d26bbeaba1713bdd420f82ff9276a4bd26bcdcae"

static void fill_store(const char *digest, const char *content)
{
    char path[400];

    snprintf(path, sizeof(path), "%s/store", reg.s.path);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/store/sha256", reg.s.path);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/store/sha256/%s", reg.s.path, digest);
    put_file(path, content);
}

Test(templates_registry_resolve, pinned_paths_are_the_stores)
{
    struct vf_spec spec = spec_of("\"class\":\"pinned\",\"boot\":{\"initrd\":\"/i\"}");
    struct vf_registry *r = reg_load();
    struct vf_asset_store *store = NULL;
    struct vf_runtime rt = {.vmm = 77};
    struct vf_error err = {0};
    char path[300], want[400];

    expect_error(vf_registry_resolve(r, NULL, &spec, &rt, &err), err, VF_NOT_FOUND,
                 "asset fc-1: there is no store");
    fill_store(DIGEST_A, "a VMM");
    snprintf(path, sizeof(path), "%s/store", reg.s.path);
    expect_ok(vf_asset_store_open(path, &store, &err), err);
    expect_error(vf_registry_resolve(r, store, &spec, &rt, &err), err, VF_NOT_FOUND,
                 "asset linux: was not fetched yet");
    cr_expect_not_null(strstr(err.hint, "`vmfactory asset fetch linux`"));
    cr_expect_eq(rt.vmm, 77);
    fill_store(DIGEST_B, "a kernel");
    expect_ok(vf_registry_resolve(r, store, &spec, &rt, &err), err);
    snprintf(want, sizeof(want), "%s/store/sha256/" DIGEST_A, reg.s.path);
    cr_expect_str_eq(rt.binary, want);
    snprintf(want, sizeof(want), "%s/store/sha256/" DIGEST_B, reg.s.path);
    cr_expect_str_eq(rt.kernel, want);
    cr_expect_str_eq(rt.initrd, "/i");
    cr_expect_str_eq(rt.class_name, "pinned");
    vf_runtime_free(&rt);
    vf_asset_store_close(store);
    vf_spec_free(&spec);
    vf_registry_unref(r);
}

/* What lies in the store may have changed since it was fetched, and nothing else may run in its place. */
Test(templates_registry_resolve, a_file_that_is_not_what_was_pinned)
{
    struct vf_spec spec = spec_of("\"class\":\"pinned\",\"boot\":{}");
    struct vf_registry *r = reg_load();
    struct vf_asset_store *store = NULL;
    struct vf_runtime rt = {.vmm = 77};
    struct vf_error err = {0};
    char path[300];

    fill_store(DIGEST_A, "a VMM");
    fill_store(DIGEST_B, "a kernal");
    snprintf(path, sizeof(path), "%s/store", reg.s.path);
    expect_ok(vf_asset_store_open(path, &store, &err), err);
    expect_error(vf_registry_resolve(r, store, &spec, &rt, &err), err, VF_CORRUPT,
                 "asset linux: the SHA-256 of its file is " DIGEST_KERNAL ", not " DIGEST_B
                 " as pinned");
    cr_expect_str_eq(err.hint, "`vmfactory asset verify linux` moves it aside, "
                               "`vmfactory asset fetch linux` gets it anew");
    cr_expect_eq(rt.vmm, 77);
    fill_store(DIGEST_B, "a kernel");
    expect_ok(vf_registry_resolve(r, store, &spec, &rt, &err), err);
    vf_runtime_free(&rt);
    fill_store(DIGEST_A, "a WMM");
    expect_error(vf_registry_resolve(r, store, &spec, &rt, &err), err, VF_CORRUPT, "asset fc-1: ");
    vf_asset_store_close(store);
    vf_spec_free(&spec);
    vf_registry_unref(r);
}

/* The class's image tells its format itself. */
Test(templates_registry_resolve, a_classes_root)
{
    struct vf_spec spec = spec_of("\"class\":\"rooted\",\"boot\":{\"kernel\":\"/k\"}");
    struct vf_asset_store *store = NULL;
    struct vf_registry *r;
    struct vf_runtime rt;
    struct vf_error err = {0};
    char path[300];

    reg_write("assets", "root.json", ASSET("root", "image", DIGEST_IMAGE));
    reg_write("classes", "rooted.json",
              "{\"name\":\"rooted\",\"vmm\":\"qemu\"," BOTH("{\"root\":\"root\"}") "}");
    r = reg_load();
    fill_store(DIGEST_IMAGE, "QFI\xfb and so on");
    snprintf(path, sizeof(path), "%s/store", reg.s.path);
    expect_ok(vf_asset_store_open(path, &store, &err), err);
    expect_ok(vf_registry_resolve(r, store, &spec, &rt, &err), err);
    cr_expect_not_null(strstr(rt.root, DIGEST_IMAGE));
    cr_expect_eq(rt.root_format, VF_IMAGE_QCOW2);
    cr_expect_str_eq(rt.binary, "/opt/qemu");
    vf_runtime_free(&rt);
    vf_registry_unref(r);

    reg_write("classes", "rooted.json", CLASS("rooted", BOTH("{\"root\":\"root\"}")));
    r = reg_load();
    expect_error(vf_registry_resolve(r, store, &spec, &rt, &err), err, VF_INVALID_ARGUMENT,
                 "class rooted: its root image is qcow2, but firecracker takes raw images only");
    vf_registry_unref(r);
    vf_asset_store_close(store);
    vf_spec_free(&spec);
}

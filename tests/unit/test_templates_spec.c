/* Specs: what is taken, what is refused and how that is said. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include "templates_support.h"

static const char minimal[] = "{\"name\":\"web\",\"boot\":{\"kernel\":\"/k\"}}";

static int parse(const char *text, struct vf_spec *ret_spec, struct vf_error *err)
{
    return vf_spec_parse(text, strlen(text), NULL, "web.json", ret_spec, err);
}

Test(templates_spec, defaults)
{
    struct vf_spec spec;
    struct vf_error err;

    expect_ok(parse(minimal, &spec, &err), err);
    cr_expect_str_eq(spec.name, "web");
    cr_expect_eq(spec.vmm, VF_SPEC_VMM_QEMU);
    cr_expect_eq(spec.machine, VF_MACHINE_MICROVM);
    cr_expect_eq(spec.accel, VF_ACCEL_AUTO);
    cr_expect_eq(spec.vcpus, 1);
    cr_expect_eq(spec.memory.size_mib, 256);
    cr_expect_eq(vf_spec_memory_bytes(&spec), (uint64_t)256 << 20);
    cr_expect_eq(spec.agent.channel, VF_CHANNEL_VIRTIO_SERIAL);
    cr_expect_eq(spec.agent.ready_timeout_ms, 60000);
    cr_expect_eq(spec.warmup.timeout_ms, 60000);
    cr_expect_eq(spec.park, VF_PARK_PAUSED);
    cr_expect_not(spec.balloon);
    cr_expect_eq(spec.network.mode, VF_NETWORK_NONE);
    cr_expect_not(spec.boot.has_root);
    cr_expect_null(spec.boot.initrd);
    cr_expect_null(vf_spec_warmup(&spec, 0));
    vf_spec_free(&spec);
    vf_spec_free(&spec);
    vf_spec_free(NULL);
}

static const char full[] =
    "{\"name\":\"web\",\"vmm\":\"qemu\",\"machine\":\"q35\",\"accel\":\"tcg\",\"vcpus\":64,"
    "\"memory\":{\"size_mib\":1048576},\"boot\":{\"kernel\":\"/k\",\"initrd\":\"/i\","
    "\"root\":{\"image\":\"/r\",\"format\":\"qcow2\"},\"cmdline\":\"quiet\"},"
    "\"network\":{\"mode\":\"external\"},\"agent\":{\"channel\":\"serial\",\"ready_timeout_ms\":1},"
    "\"warmup\":{\"commands\":[[\"/bin/sh\",\"-c\",\"a\\nb\"],[\"x\"]],\"timeout_ms\":5},"
    "\"balloon\":true,\"park\":\"running\"}";

Test(templates_spec, full_round_trip)
{
    struct vf_spec spec, copy, again;
    struct vf_error err;
    char *text;

    expect_ok(parse(full, &spec, &err), err);
    cr_expect_eq(spec.agent.channel, VF_CHANNEL_SERIAL);
    cr_expect(spec.boot.has_root);
    cr_expect_eq(spec.boot.root.format, VF_IMAGE_QCOW2);
    cr_expect_str_eq(vf_spec_warmup(&spec, 0)[2], "a\nb");
    cr_expect_null(vf_spec_warmup(&spec, 0)[3]);
    cr_expect_str_eq(vf_spec_warmup(&spec, 1)[0], "x");
    cr_expect_null(vf_spec_warmup(&spec, 2));

    expect_ok(vf_spec_copy(&spec, &copy, &err), err);
    cr_expect(vf_spec_equal(&spec, &copy));
    copy.vcpus = 2;
    cr_expect_not(vf_spec_equal(&spec, &copy));
    text = vf_spec_encode(&spec);
    expect_ok(parse(text, &again, &err), err);
    cr_expect(vf_spec_equal(&spec, &again));
    free(text);
    vf_spec_free(&spec);
    vf_spec_free(&copy);
    vf_spec_free(&again);
}

Test(templates_spec, without_a_root_round_trips)
{
    struct vf_spec spec, copy;
    struct vf_error err;

    expect_ok(parse(minimal, &spec, &err), err);
    expect_ok(vf_spec_copy(&spec, &copy, &err), err);
    cr_expect_not(copy.boot.has_root);
    vf_spec_free(&spec);
    vf_spec_free(&copy);
}

static const struct {
    const char *vmm;
    int channel, park;
} of_vmm[] = {
    {"qemu", VF_CHANNEL_VIRTIO_SERIAL, VF_PARK_PAUSED},
    {"null", VF_CHANNEL_VIRTIO_SERIAL, VF_PARK_PAUSED},
    {"cloud-hypervisor", VF_CHANNEL_VSOCK, VF_PARK_PAUSED},
    {"firecracker", VF_CHANNEL_VSOCK, VF_PARK_RUNNING},
};

/* A spec that tells its VMM has its defaults spelled out, "auto" too. */
Test(templates_spec, defaults_that_depend_on_the_vmm)
{
    for (size_t i = 0; i < sizeof(of_vmm) / sizeof(of_vmm[0]); i++) {
        struct vf_spec spec;
        struct vf_error err;
        char text[200], *out;

        snprintf(text, sizeof(text),
                 "{\"name\":\"web\",\"vmm\":\"%s\",\"boot\":{\"kernel\":\"/k\"},\"park\":\"auto\"}",
                 of_vmm[i].vmm);
        expect_ok(parse(text, &spec, &err), err);
        cr_expect_eq(spec.agent.channel, of_vmm[i].channel, "%s", of_vmm[i].vmm);
        cr_expect_eq(spec.park, of_vmm[i].park, "%s", of_vmm[i].vmm);
        out = vf_spec_encode(&spec);
        cr_expect_not_null(strstr(out, vf_channel_names[of_vmm[i].channel]));
        cr_expect_not_null(strstr(out, vf_park_names[of_vmm[i].park]));
        free(out);
        vf_spec_free(&spec);
    }
}

/* Of a class, it waits for the class's VMM; its text stays what it was. */
Test(templates_spec, a_class_decides_later)
{
    static const char text[] = "{\"name\":\"web\",\"class\":\"a\",\"boot\":{\"cmdline\":\"x\"}}";
    struct vf_spec spec, copy, before;
    struct vf_error err;
    char *out;

    expect_ok(parse(text, &spec, &err), err);
    cr_expect_str_eq(spec.class_name, "a");
    cr_expect_not(vf_spec_knows_vmm(&spec));
    out = vf_spec_encode(&spec);
    cr_expect_null(strstr(out, "vmm"), "%s", out);
    cr_expect_null(strstr(out, "channel"), "%s", out);
    free(out);
    expect_ok(vf_spec_copy(&spec, &before, &err), err);
    for (int vmm = 0; vmm < VF_SPEC_VMM_COUNT; vmm++) {
        expect_ok(vf_spec_settle(&spec, (enum vf_spec_vmm)vmm, &err), err);
        cr_expect_str_eq(vf_spec_vmm_names[spec.vmm], of_vmm[vmm].vmm);
        cr_expect_eq(spec.agent.channel, of_vmm[vmm].channel);
        cr_expect_eq((int)vf_spec_park(&spec), of_vmm[vmm].park);
        cr_expect(vf_spec_equal(&spec, &before));
        expect_ok(vf_spec_copy(&spec, &copy, &err), err);
        cr_expect_eq(copy.vmm, vmm);
        cr_expect_eq(copy.agent.channel, spec.agent.channel);
        vf_spec_free(&copy);
    }
    vf_spec_free(&spec);
    vf_spec_free(&before);
}

Test(templates_spec, a_class_can_t_give_what_its_vmm_has_not)
{
    static const struct {
        const char *more;
        enum vf_spec_vmm vmm;
        const char *says;
    } cases[] = {
        {"\"vmm\":\"qemu\"", VF_SPEC_VMM_FIRECRACKER,
         "vmm: is \"qemu\", but the class runs firecracker"},
        {"\"accel\":\"tcg\"", VF_SPEC_VMM_CLOUD_HYPERVISOR, "accel: "},
        {"\"machine\":\"q35\"", VF_SPEC_VMM_NULL, "machine: "},
        {"\"park\":\"paused\"", VF_SPEC_VMM_FIRECRACKER, "park: "},
        {"\"agent\":{\"channel\":\"vsock\"}", VF_SPEC_VMM_QEMU, "agent.channel: no vsock"},
        {"\"agent\":{\"channel\":\"virtio-serial\"}", VF_SPEC_VMM_CLOUD_HYPERVISOR,
         "agent.channel: "},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vf_error err = {0};
        struct vf_spec spec;
        char text[200];

        snprintf(text, sizeof(text), "{\"name\":\"web\",\"class\":\"a\",%s}", cases[i].more);
        expect_ok(parse(text, &spec, &err), err);
        expect_error(vf_spec_settle(&spec, cases[i].vmm, &err), err, VF_INVALID_ARGUMENT,
                     cases[i].says);
        vf_spec_free(&spec);
    }
}

/* With the kernel that qemu needs. */
#define WITH(more) "{\"name\":\"web\",\"boot\":{\"kernel\":\"/k\"}," more "}"
#define BOOT(more) "{\"name\":\"web\",\"boot\":{\"kernel\":\"/k\"," more "}}"

static const struct {
    const char *text, *says;
} bad[] = {
    {"", "web.json: "},
    {"this is not JSON", "web.json: "},
    {"{\"name\":\"web\"", "web.json: "},
    {"[]", "web.json: "},
    {"{\"boot\":{\"kernel\":\"/k\"}}", "web.json: name: "},
    {"{\"name\":7,\"boot\":{\"kernel\":\"/k\"}}", "web.json: name: "},
    {"{\"name\":\"Web\",\"boot\":{\"kernel\":\"/k\"}}", "web.json: name: must be 1 to 48 lower"},
    {"{\"name\":\"-web\",\"boot\":{\"kernel\":\"/k\"}}", "web.json: name: must be 1 to 48 lower"},
    {"{\"name\":\"a/b\",\"boot\":{\"kernel\":\"/k\"}}", "web.json: name: must be 1 to 48 lower"},
    {"{\"name\":\"..\",\"boot\":{\"kernel\":\"/k\"}}", "web.json: name: must be 1 to 48 lower"},
    {"{\"name\":\"\",\"boot\":{\"kernel\":\"/k\"}}", "web.json: name: "},
    {"{\"name\":\"a1234567890123456789012345678901234567890123456789\"}", "web.json: name: "},
    {"{\"name\":\"web\"}", "web.json: boot.kernel: is required with the vmm \"qemu\""},
    {WITH("\"memroy\":{}"), "did you mean \"memory\""},
    {WITH("\"memory\":{\"size\":1}"), "web.json: memory.size"},
    {WITH("\"memory\":{\"size_mib\":0}"), "web.json: memory.size_mib: must be at least 16 (is 0)"},
    {WITH("\"memory\":{\"size_mib\":-1}"), "memory.size_mib: must be at least 16 (is -1)"},
    {WITH("\"memory\":{\"size_mib\":1048577}"), "memory.size_mib: must be at most 1048576"},
    {WITH("\"memory\":{\"size_mib\":99999999999999999999}"), "memory.size_mib: "},
    {WITH("\"memory\":{\"size_mib\":256.5}"), "memory.size_mib: "},
    {WITH("\"memory\":{\"size_mib\":\"256\"}"), "memory.size_mib: "},
    {WITH("\"memory\":256"), "web.json: memory: "},
    {WITH("\"memory\":null"), "web.json: memory: "},
    {WITH("\"vcpus\":0"), "vcpus: must be at least 1"},
    {WITH("\"vcpus\":65"), "vcpus: must be at most 64"},
    {WITH("\"vcpus\":true"), "web.json: vcpus: "},
    {WITH("\"vmm\":\"qmeu\""),
     "vmm: must be \"qemu\", \"null\", \"cloud-hypervisor\" or \"firecracker\""},
    {WITH("\"machine\":\"pc\""), "machine: must be \"microvm\" or \"q35\""},
    {WITH("\"accel\":\"hvf\""), "accel: must be \"auto\", \"kvm\" or \"tcg\""},
    {WITH("\"park\":\"stopped\""), "park: must be \"auto\", \"paused\" or \"running\""},
    {WITH("\"balloon\":1"), "web.json: balloon: "},
    {WITH("\"network\":{\"mode\":\"yes\"}"), "network.mode: "},
    {WITH("\"agent\":{\"channel\":\"none\"}"),
     "agent.channel: must be \"virtio-serial\", \"serial\" or \"vsock\" (is \"none\")"},
    {WITH("\"agent\":{\"ready_timeout_ms\":0}"), "agent.ready_timeout_ms: must be at least 1"},
    {WITH("\"warmup\":{\"commands\":[[]]}"), "warmup.commands[0]: must not be empty"},
    {WITH("\"warmup\":{\"commands\":[[\"a\"],[\"\"]]}"),
     "warmup.commands[1][0]: must not be empty"},
    {WITH("\"warmup\":{\"commands\":[\"a\"]}"), "warmup.commands[0]: "},
    {WITH("\"warmup\":{\"commands\":\"a\"}"), "warmup.commands: "},
    {WITH("\"warmup\":{\"timeout_ms\":-5}"), "warmup.timeout_ms: must be at least 1"},
    {BOOT("\"cmdline\":\"a\\nb\""), "boot.cmdline: must not contain control characters (byte 1"},
    {BOOT("\"cmdline\":\"a\\u0000b\""), "a string must not contain NUL"},
    {BOOT("\"initrd\":\"/a\\u001bb\""), "boot.initrd: must not contain control characters"},
    {BOOT("\"initrd\":\"\""), "boot.initrd: must not be empty"},
    {BOOT("\"initrd\":\"rel/initrd\""),
     "boot.initrd: must be an absolute path (is \"rel/initrd\")"},
    {BOOT("\"root\":{}"), "boot.root.image: "},
    {BOOT("\"root\":{\"image\":\"r\"}"), "boot.root.image: must be an absolute path"},
    {BOOT("\"root\":{\"image\":\"/r\",\"format\":\"vmdk\"}"),
     "boot.root.format: must be \"raw\" or \"qcow2\""},
    {WITH("\"class\":\"\""), "class: must not be empty"},
    {"{\"name\":\"web\",\"vmm\":\"firecracker\"}",
     "boot.kernel: is required with the vmm \"firecracker\""},
    {"{\"name\":\"web\",\"vmm\":\"cloud-hypervisor\"}",
     "boot.kernel: is required with the vmm \"cloud-hypervisor\""},
    {WITH("\"vmm\":\"cloud-hypervisor\",\"accel\":\"tcg\""),
     "accel: cloud-hypervisor runs on KVM only"},
    {WITH("\"vmm\":\"firecracker\",\"accel\":\"tcg\""), "accel: firecracker runs on KVM only"},
    {WITH("\"vmm\":\"firecracker\",\"machine\":\"q35\""),
     "machine: firecracker has no machine types"},
    {WITH("\"vmm\":\"firecracker\",\"park\":\"paused\""),
     "park: firecracker's clones can't wait paused"},
    {WITH("\"vmm\":\"firecracker\",\"agent\":{\"channel\":\"virtio-serial\"}"),
     "agent.channel: firecracker has no virtio-serial"},
    {WITH("\"agent\":{\"channel\":\"vsock\"}"),
     "agent.channel: no vsock with qemu: its vhost-vsock"},
    {WITH("\"vmm\":\"null\",\"agent\":{\"channel\":\"vsock\"}"),
     "agent.channel: null has no vsock"},
    {"{\"name\":\"web\",\"vmm\":\"firecracker\",\"boot\":{\"kernel\":\"/k\",\"root\":{\"image\":\"/"
     "r\","
     "\"format\":\"qcow2\"}}}",
     "boot.root.format: firecracker takes raw images only"},
    {"{\"name\":\"web\",\"vmm\":\"null\",\"boot\":{\"initrd\":\"/i\"}}",
     "boot.initrd: makes no sense without boot.kernel"},
    {"{\"name\":\"web\",\"vmm\":\"null\",\"boot\":{\"cmdline\":\"x\"}}",
     "boot.cmdline: makes no sense without boot.kernel"},
};

Test(templates_spec, bad_ones_are_refused_by_field)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct vf_spec spec = {.vcpus = 99};
        struct vf_error err = {0};
        int r = parse(bad[i].text, &spec, &err);

        cr_expect_eq(r, -EINVAL, "%s: %d", bad[i].text, r);
        cr_expect_not_null(strstr(err.msg, bad[i].says), "%s: \"%s\" lacks \"%s\"", bad[i].text,
                           err.msg, bad[i].says);
        cr_expect_eq(spec.vcpus, 99, "%s: the output was touched", bad[i].text);
    }
}

Test(templates_spec, lengths_at_their_limits)
{
    struct vf_spec spec;
    struct vf_error err;
    char cmdline[VF_SPEC_CMDLINE_MAX + 2], text[9000], *arg = malloc(4097);

    memset(cmdline, 'c', sizeof(cmdline));
    cmdline[VF_SPEC_CMDLINE_MAX] = '\0';
    snprintf(text, sizeof(text), BOOT("\"cmdline\":\"%s\""), cmdline);
    expect_ok(parse(text, &spec, &err), err);
    vf_spec_free(&spec);
    cmdline[VF_SPEC_CMDLINE_MAX] = 'c';
    cmdline[VF_SPEC_CMDLINE_MAX + 1] = '\0';
    snprintf(text, sizeof(text), BOOT("\"cmdline\":\"%s\""), cmdline);
    expect_error(parse(text, &spec, &err), err, VF_INVALID_ARGUMENT, "boot.cmdline: ");

    /* Four arguments of 4096 bytes do not fit into one message. */
    memset(arg, 'a', 4096);
    arg[4096] = '\0';
    {
        char *big = NULL;

        cr_assert_gt(asprintf(&big,
                              WITH("\"warmup\":{\"commands\":[[\"%s\",\"%s\",\"%s\",\"%s\"]]}"),
                              arg, arg, arg, arg),
                     0);
        expect_error(parse(big, &spec, &err), err, VF_INVALID_ARGUMENT,
                     "warmup.commands[0]: is longer than one message");
        free(big);
    }
    free(arg);
}

Test(templates_spec, null_needs_no_kernel)
{
    struct vf_spec spec;
    struct vf_error err;

    expect_ok(parse("{\"name\":\"n\",\"vmm\":\"null\"}", &spec, &err), err);
    cr_expect_eq(spec.vmm, VF_SPEC_VMM_NULL);
    vf_spec_free(&spec);
}

/* --- from files */

static struct fixture fx;
static char spec_path[300];

static void setup(void)
{
    fixture_open(&fx);
    snprintf(spec_path, sizeof(spec_path), "%s/web.json", fx.s.path);
}

static void teardown(void)
{
    fixture_close(&fx);
}

TestSuite(templates_spec_file, .init = setup, .fini = teardown);

/* Loads a spec with that boot object; expects a refusal that says this, and no descriptor
 * leaked. */
static void expect_boot_refused(const char *boot, enum vf_code code, const char *says)
{
    struct vf_spec spec;
    struct vf_error err = {0};
    char text[1000];
    int before, r;

    snprintf(text, sizeof(text), "{\"name\":\"web\",\"boot\":%s}", boot);
    put_file(spec_path, text);
    before = count_fds();
    r = vf_spec_load(spec_path, &spec, &err);
    expect_error(r, err, code, says);
    cr_expect_eq(strncmp(err.msg, spec_path, strlen(spec_path)), 0, "%s", err.msg);
    cr_expect_str_neq(err.hint, "", "no hint: %s", err.msg);
    cr_expect_eq(count_fds(), before);
}

Test(templates_spec_file, relative_paths_are_seen_from_the_spec)
{
    struct vf_spec spec;
    struct vf_error err;

    cr_assert_eq(mkdirat(fx.s.fd, "sub", 0700), 0);
    snprintf(spec_path, sizeof(spec_path), "%s/sub/web.json", fx.s.path);
    put_file(spec_path, "{\"name\":\"web\",\"boot\":{\"kernel\":\"../kernel\","
                        "\"root\":{\"image\":\"../sub/../root.img\"}}}");
    expect_ok(vf_spec_load(spec_path, &spec, &err), err);
    cr_expect_str_eq(spec.boot.kernel, fx.kernel);
    cr_expect_str_eq(spec.boot.root.image, fx.root);
    vf_spec_free(&spec);
    cr_assert_eq(chdir(fx.s.path), 0);
    expect_ok(vf_spec_load("sub/web.json", &spec, &err), err);
    cr_expect_str_eq(spec.boot.kernel, fx.kernel);
    vf_spec_free(&spec);
}

Test(templates_spec_file, missing_file)
{
    expect_boot_refused("{\"kernel\":\"nokernel\"}", VF_NOT_FOUND, "/nokernel: does not exist");
}

Test(templates_spec_file, missing_initrd_is_named)
{
    expect_boot_refused("{\"kernel\":\"kernel\",\"initrd\":\"noinitrd\"}", VF_NOT_FOUND,
                        "boot.initrd: ");
}

Test(templates_spec_file, directory)
{
    expect_boot_refused("{\"kernel\":\".\"}", VF_INVALID_ARGUMENT, "boot.kernel: ");
    expect_boot_refused("{\"kernel\":\".\"}", VF_INVALID_ARGUMENT, "is a directory");
}

Test(templates_spec_file, symlink_loop)
{
    cr_assert_eq(symlinkat("loop2", fx.s.fd, "loop1"), 0);
    cr_assert_eq(symlinkat("loop1", fx.s.fd, "loop2"), 0);
    expect_boot_refused("{\"kernel\":\"loop1\"}", VF_INVALID_ARGUMENT,
                        "/loop1: is a loop of symlinks");
}

Test(templates_spec_file, dangling_symlink_and_pipe)
{
    cr_assert_eq(symlinkat("nothing", fx.s.fd, "dangling"), 0);
    expect_boot_refused("{\"kernel\":\"dangling\"}", VF_NOT_FOUND, "boot.kernel: ");
    cr_assert_eq(mkfifoat(fx.s.fd, "pipe", 0600), 0);
    expect_boot_refused("{\"kernel\":\"pipe\"}", VF_INVALID_ARGUMENT, "is a pipe");
}

Test(templates_spec_file, empty_file)
{
    char path[300];

    snprintf(path, sizeof(path), "%s/empty", fx.s.path);
    put_file(path, "");
    expect_boot_refused("{\"kernel\":\"empty\"}", VF_INVALID_ARGUMENT, "is empty");
}

Test(templates_spec_file, unreadable_file)
{
    bool root = geteuid() == 0;

    cr_assert_eq(chmod(fx.s.path, 0777), 0);
    cr_assert_eq(fchmodat(fx.s.fd, "kernel", 0, 0), 0);
    if (root) /* who may read anything */
        cr_assert_eq(seteuid(65534), 0);
    expect_boot_refused("{\"kernel\":\"kernel\"}", VF_PERMISSION, "boot.kernel: ");
    if (root)
        cr_assert_eq(seteuid(0), 0);
}

Test(templates_spec_file, format_is_checked_against_the_image)
{
    char path[300];

    expect_boot_refused("{\"kernel\":\"kernel\",\"root\":{\"image\":\"root.img\","
                        "\"format\":\"qcow2\"}}",
                        VF_INVALID_ARGUMENT, "boot.root.format: is \"qcow2\"");
    snprintf(path, sizeof(path), "%s/q", fx.s.path);
    put_file(path, "QFI\xfb and more");
    expect_boot_refused("{\"kernel\":\"kernel\",\"root\":{\"image\":\"q\"}}", VF_INVALID_ARGUMENT,
                        "boot.root.format: is \"raw\"");
}

Test(templates_spec_file, more_memory_than_the_host_has)
{
    struct vf_spec spec;
    struct vf_error err = {0};

    put_file(spec_path, "{\"name\":\"web\",\"memory\":{\"size_mib\":1048576},"
                        "\"boot\":{\"kernel\":\"kernel\"}}");
    if (sysconf(_SC_PHYS_PAGES) / 256 >= 1048576)
        cr_skip_test("SKIPPED more_memory_than_the_host_has: the host has 1 TiB");
    expect_error(vf_spec_load(spec_path, &spec, &err), err, VF_INVALID_ARGUMENT,
                 "memory.size_mib: is 1048576, but this host has only");
}

Test(templates_spec_file, the_spec_itself_is_no_file)
{
    struct vf_spec spec;
    struct vf_error err = {0};
    int before = count_fds();

    expect_error(vf_spec_load(fx.s.path, &spec, &err), err, VF_INVALID_ARGUMENT, "is a directory");
    expect_error(vf_spec_load(spec_path, &spec, &err), err, VF_NOT_FOUND, "does not exist");
    put_file(spec_path, "");
    expect_error(vf_spec_load(spec_path, &spec, &err), err, VF_INVALID_ARGUMENT, "is empty");
    put_file(spec_path, " ");
    cr_assert_eq(truncate(spec_path, VF_SPEC_MAX_TEXT + 1), 0);
    expect_error(vf_spec_load(spec_path, &spec, &err), err, VF_INVALID_ARGUMENT, "is longer than");
    cr_expect_eq(count_fds(), before);
}

/* --- what we ship: read from the tree, which the tests run in */

static char *slurp(const char *path)
{
    struct vf_error err;
    char *text = NULL;
    size_t len;

    expect_ok(vf_read_file(AT_FDCWD, path, 1 << 20, &text, &len, &err), err);
    return text;
}

Test(templates_spec, the_committed_schema_is_current)
{
    char *committed = slurp("templates/spec.schema.json"), *now = vf_spec_schema();

    cr_expect(strcmp(committed, now) == 0,
              "templates/spec.schema.json is not what the table gives; renew it: "
              "build/vmfactory-schema > templates/spec.schema.json");
    free(committed);
    free(now);
}

Test(templates_spec, shipped_specs_are_right)
{
    static const char *const names[] = {"linux", "linux-root", "tiny"};

    for (size_t i = 0; i < 3; i++) {
        char path[100], *text;
        struct vf_spec spec;
        struct vf_error err;

        snprintf(path, sizeof(path), "templates/specs/%s.json", names[i]);
        text = slurp(path);
        expect_ok(vf_spec_parse(text, strlen(text), "/base", path, &spec, &err), err);
        cr_expect_str_eq(spec.name, names[i]);
        cr_expect_eq(strncmp(spec.boot.kernel, "/base/../../build/guest/", 24), 0);
        vf_spec_free(&spec);
        free(text);
    }
}

/* Manifests: round trip, and each kind of damage. */
#include <errno.h>
#include "templates/host.h"
#include "templates_support.h"

static struct fixture fx;
static struct vf_manifest m;
static char *text; /* a whole, right one */

static const char sha[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static void setup(void)
{
    struct vf_error err;

    fixture_open(&fx);
    expect_ok(make_manifest(&fx, &m, &err), err);
    expect_ok(vf_manifest_add_file(&m, "state", 5, sha, &err), err);
    expect_ok(vf_manifest_add_file(&m, "memory", 16 << 20, sha, &err), err);
    m.generation = 3;
    m.created = strdup("2026-01-02T03:04:05Z");
    m.stats.boot_us = 1234567;
    expect_ok(vf_manifest_encode(&m, &text, &err), err);
}

static void teardown(void)
{
    free(text);
    vf_manifest_free(&m);
    fixture_close(&fx);
}

TestSuite(templates_manifest, .init = setup, .fini = teardown);

Test(templates_manifest, round_trip)
{
    struct vf_manifest back;
    struct vf_error err;
    char *again = NULL;

    expect_ok(vf_manifest_decode(text, strlen(text), &back, &err), err);
    cr_expect_eq(back.format, 2);
    cr_expect_eq(back.generation, 3);
    cr_expect_str_eq(back.template_name, "web");
    cr_expect(vf_spec_equal(&back.spec, &fx.spec));
    cr_expect_str_eq(back.vmm.path, fx.vmm);
    cr_expect_eq(back.vmm.accel, VF_ACCEL_TCG);
    cr_expect_eq(vf_manifest_file(&back, "state")->size, 5);
    cr_expect_null(vf_manifest_file(&back, "nothing"));
    cr_expect_str_eq(vf_manifest_asset(&back, VF_ASSET_ROOT)->path, fx.root);
    cr_expect_null(vf_manifest_asset(&back, VF_ASSET_INITRD));
    cr_expect_eq(back.stats.boot_us, 1234567);
    cr_expect_eq(back.memory_size, 16 << 20);
    expect_ok(vf_manifest_encode(&back, &again, &err), err);
    cr_expect_str_eq(again, text);
    free(again);
    vf_manifest_free(&back);
}

Test(templates_manifest, every_truncation_is_damage)
{
    for (size_t len = 0; len < strlen(text) - 2; len += 7) {
        struct vf_manifest back;
        struct vf_error err = {0};

        expect_error(vf_manifest_decode(text, len, &back, &err), err, VF_CORRUPT,
                     "manifest.json: ");
    }
}

/* The text with the first `from` replaced. */
static void expect_damage(const char *from, const char *to, enum vf_code code, const char *says)
{
    const char *at = strstr(text, from);
    struct vf_manifest back = {.generation = 77};
    struct vf_error err = {0};
    char *changed = NULL;

    cr_assert_not_null(at, "%s is not in %s", from, text);
    cr_assert_gt(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)), 0);
    expect_error(vf_manifest_decode(changed, strlen(changed), &back, &err), err, code, says);
    cr_expect_eq(back.generation, 77);
    free(changed);
}

Test(templates_manifest, versions)
{
    expect_damage("\"format\": 2", "\"format\": 3", VF_UNSUPPORTED,
                  "manifest.json: format: is 3, newer than this program knows (2)");
    /* Whatever else a newer one has, its version is what is said. */
    expect_damage("\"format\": 2", "\"format\": 3, \"novel\": {}", VF_UNSUPPORTED, "format: is 3");
    expect_damage("\"format\": 2", "\"format\": 0", VF_CORRUPT, "format: must be at least 1");
    expect_damage("\"format\": 2", "\"format\": \"1\"", VF_CORRUPT, "format: ");
    expect_damage("\"format\": 2,", "", VF_CORRUPT, "format: ");
}

/* Written before there were classes. */
Test(templates_manifest, the_older_format_is_read)
{
    const char *sandbox = strstr(text, ",\n    \"sandbox\": true");
    struct vf_manifest back;
    struct vf_error err;
    char *old = NULL;

    cr_assert_not_null(sandbox);
    cr_assert_gt(asprintf(&old, "%.*s%s", (int)(sandbox - text), text,
                          sandbox + strlen(",\n    \"sandbox\": true")),
                 0);
    memcpy(strstr(old, "\"format\": 2"), "\"format\": 1", strlen("\"format\": 1"));
    expect_ok(vf_manifest_decode(old, strlen(old), &back, &err), err);
    cr_expect_eq(back.format, 1);
    cr_expect_null(back.vmm.class_name);
    cr_expect(back.vmm.sandbox);
    cr_expect(vf_spec_equal(&back.spec, &fx.spec));
    vf_manifest_free(&back);
    free(old);
}

/* Written before there were networks: no mode, but whether there is a NIC. */
Test(templates_manifest, an_older_network_is_read)
{
    static const char *const words[] = {"false", "true"};
    const char *from = strstr(text, "\"network\": {"), *to = strstr(text, "\"agent\": {");

    cr_assert(from != NULL && to != NULL && from < to);
    for (int i = 0; i < 2; i++) {
        struct vf_manifest back;
        struct vf_error err;
        char *old = NULL;

        cr_assert_gt(asprintf(&old, "%.*s\"network\": {\"enabled\": %s}, %s", (int)(from - text),
                              text, words[i], to),
                     0);
        expect_ok(vf_manifest_decode(old, strlen(old), &back, &err), err);
        cr_expect_eq(back.spec.network.mode, i == 0 ? VF_NETWORK_NONE : VF_NETWORK_NAT);
        cr_expect_eq(back.spec.network.mtu, 1500);
        cr_expect_eq(vf_spec_equal(&back.spec, &fx.spec), i == 0);
        vf_manifest_free(&back);
        free(old);
    }
    expect_damage("\"mode\": \"none\"", "\"mode\": \"none\", \"enabled\": true", VF_CORRUPT,
                  "spec: network.enabled: is true");
}

/* What only the class decides comes out of the manifest settled, and its text as it was given. */
Test(templates_manifest, a_spec_of_a_class_is_settled)
{
    static const char given[] = "{\"name\":\"web\",\"class\":\"fc\",\"memory\":{\"size_mib\":16},"
                                "\"boot\":{\"kernel\":\"/k\"}}";
    struct vf_manifest back;
    struct vf_error err;
    struct vf_spec spec;

    expect_ok(vf_spec_parse(given, strlen(given), NULL, NULL, &spec, &err), err);
    vf_spec_free(&m.spec);
    expect_ok(vf_spec_copy(&spec, &m.spec, &err), err);
    expect_ok(vf_manifest_set_vmm(&m, "firecracker", "1.17", fx.vmm, VF_ACCEL_KVM, &err), err);
    m.vmm.class_name = strdup("fc");
    m.vmm.sandbox = false;
    free(text);
    text = NULL;
    expect_ok(vf_manifest_encode(&m, &text, &err), err);
    expect_ok(vf_manifest_decode(text, strlen(text), &back, &err), err);
    cr_expect(vf_spec_equal(&back.spec, &spec));
    cr_expect_eq(back.spec.vmm, VF_SPEC_VMM_FIRECRACKER);
    cr_expect_eq(back.spec.agent.channel, VF_CHANNEL_VSOCK);
    cr_expect_eq(vf_spec_park(&back.spec), VF_PARK_RUNNING);
    cr_expect_str_eq(back.vmm.class_name, "fc");
    cr_expect_not(back.vmm.sandbox);
    vf_manifest_free(&back);
    vf_spec_free(&spec);
}

Test(templates_manifest, damage_is_named)
{
    expect_damage("\"generation\": 3", "\"generation\": -3", VF_CORRUPT, "generation: ");
    expect_damage("\"name\": \"qemu\"", "\"name\": \"kvmtool\"", VF_CORRUPT,
                  "vmm.name: \"kvmtool\" is no VMM");
    expect_damage("\"generation\": 3", "\"generations\": 3", VF_CORRUPT, "generations");
    expect_damage("\"nonce\": \"00", "\"nonce\": \"0g", VF_CORRUPT,
                  "nonce: must be lower-case hex");
    expect_damage("\"nonce\": \"00", "\"nonce\": \"", VF_CORRUPT, "nonce: ");
    expect_damage("\"boot_id\": \"00", "\"boot_id\": \"ZZ", VF_CORRUPT, "boot_id: ");
    expect_damage("\"memory_size\": 16777216", "\"memory_size\": 16777217", VF_CORRUPT,
                  "memory_size: is 16777217, but spec.memory.size_mib is 16");
    expect_damage("\"template\": \"web\"", "\"template\": \"wob\"", VF_CORRUPT,
                  "template: is \"wob\", but spec.name is \"web\"");
    expect_damage("\"name\": \"state\"", "\"name\": \"memory\"", VF_CORRUPT,
                  "files[1].name: \"memory\" is listed twice");
    expect_damage("\"name\": \"state\"", "\"name\": \"../state\"", VF_CORRUPT,
                  "files[0].name: is no name for a file");
    expect_damage("\"name\": \"state\"", "\"name\": \"a/b\"", VF_CORRUPT, "files[0].name: ");
    expect_damage("\"role\": \"root\"", "\"role\": \"kernel\"", VF_CORRUPT,
                  "assets[1].role: \"kernel\" is listed twice");
    expect_damage("\"accel\": \"tcg\"", "\"accel\": \"auto\"", VF_CORRUPT,
                  "vmm.accel: must be \"kvm\" or \"tcg\"");
    expect_damage("\"vcpus\": 1", "\"vcpus\": 0", VF_CORRUPT, "spec.vcpus: must be at least 1");
    expect_damage("\"size\": 5", "\"size\": -5", VF_CORRUPT, "files[0].size: ");
}

Test(templates_manifest, what_could_not_be_read_is_not_written)
{
    struct vf_error err = {0};
    char *out = NULL;

    free(m.nonce);
    m.nonce = NULL;
    expect_error(vf_manifest_encode(&m, &out, &err), err, VF_INVALID_ARGUMENT, "nonce");
    cr_expect_null(out);
}

Test(templates_manifest, files_have_plain_names_once)
{
    static const char *const names[] = {"",     ".",   "..",          "a/b",           "/a",
                                        ".hid", "a b", "quarantined", "manifest.json", "a\n"};
    struct vf_error err = {0};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        expect_error(vf_manifest_add_file(&m, names[i], 0, NULL, &err), err, VF_INVALID_ARGUMENT,
                     "is no name");
    expect_error(vf_manifest_add_file(&m, "state", 0, NULL, &err), err, VF_CONFLICT, "\"state\"");
    cr_expect_eq(m.files.n, 2);
}

Test(templates_manifest, missing_vmm_binary)
{
    struct vf_error err = {0};

    expect_error(vf_manifest_set_vmm(&m, "qemu", "7", "/nonexistent/q", VF_ACCEL_KVM, &err), err,
                 VF_NOT_FOUND, "VMM: /nonexistent/q: does not exist");
    cr_expect_str_eq(m.vmm.path, fx.vmm);
    expect_ok(vf_manifest_set_vmm(&m, "null", "1", NULL, VF_ACCEL_TCG, &err), err);
    cr_expect_null(m.vmm.path);
    free(text);
    text = NULL;
    expect_error(vf_manifest_encode(&m, &text, &err), err, VF_INVALID_ARGUMENT,
                 "vmm.name: is \"null\", but spec.vmm is \"qemu\"");
    m.spec.vmm = VF_SPEC_VMM_NULL;
    expect_ok(vf_manifest_encode(&m, &text, &err), err);
}

Test(templates_manifest, host_flags_do_not_depend_on_order)
{
    struct vf_host a, b, c;
    struct vf_error err = {0};

    expect_ok(vf_host_parse_cpuinfo("model name\t: X 1\nflags\t\t: fpu sse avx\n\nmodel name : Y\n",
                                    &a, &err),
              err);
    expect_ok(vf_host_parse_cpuinfo("flags : avx fpu sse", &b, &err), err);
    expect_ok(vf_host_parse_cpuinfo("flags : avx fpu sse2", &c, &err), err);
    cr_expect_str_eq(a.cpu_model, "X 1");
    cr_expect_str_eq(b.cpu_model, "unknown");
    cr_expect_str_eq(a.cpu_flags_sha256, b.cpu_flags_sha256);
    cr_expect_str_neq(a.cpu_flags_sha256, c.cpu_flags_sha256);
    expect_error(vf_host_parse_cpuinfo("model name: x\n", &a, &err), err, VF_UNSUPPORTED, "flags");
}

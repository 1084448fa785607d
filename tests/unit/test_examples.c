/* The examples in docs/: with a digest filled in they are a set that loads, and a spec that it settles. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/registry.h"
#include "tests/unit/scratch.h"

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* Tests are run from the root of the tree, or this file's path tells it. */
static void go_to_root(void)
{
    char path[600] = __FILE__, *tail = strstr(path, "/tests/unit/");

    if (path[0] == '/' && tail != NULL) {
        *tail = '\0';
        cr_assert_eq(chdir(path), 0);
    }
}

static void run(const char *format, const char *arg)
{
    char command[1000];

    snprintf(command, sizeof(command), format, arg);
    cr_assert_eq(system(command), 0, "%s", command);
}

Test(examples, classes_and_assets_are_a_set_once_digests_are_filled_in)
{
    struct vf_registry_config cfg = {0};
    struct vf_registry *r = NULL;
    struct vf_spec spec = {0};
    char dir[300], *text = NULL;
    struct vf_error err = {0};
    struct scratch s;
    size_t len;

    if (strcmp(vf_host_arch(), "x86_64") != 0)
        cr_skip_test("SKIPPED: the example of Firecracker is for x86_64");
    go_to_root();
    scratch_open(&s);
    snprintf(dir, sizeof(dir), "%s/runtime", s.path);
    run("mkdir -p %s/classes", dir);
    run("mkdir -p %s/assets", dir);
    /* Each under the name that it says it has. */
    run("for k in classes assets; do for f in docs/examples/$k/*.json; do "
        "cp $f %s/$k/$(sed -n '0,/\"name\"/s/.*\"name\": *\"\\([^\"]*\\)\".*/\\1/p' $f | "
        "head -n 1).json; done; done",
        dir);
    cfg.dir = dir;
    cr_assert_lt(vf_registry_load(&cfg, &r, &err), 0);
    cr_expect_not_null(strstr(err.msg, "sha256"), "what is to be filled in is refused: %s",
                       err.msg);
    run("sed -i 's/DIGEST_[A-Z0-9_]*/" DIGEST "/' %s/assets/*.json", dir);
    cr_assert_eq(vf_registry_load(&cfg, &r, &err), 0, "%s", err.msg);
    cr_expect_not_null(vf_registry_class(r, "firecracker-sandbox"));
    cr_expect_str_eq(vf_registry_default(r, VF_SPEC_VMM_CLOUD_HYPERVISOR)->name,
                     "cloud-hypervisor-53");
    cr_assert_eq(
        vf_read_file(AT_FDCWD, "docs/examples/specs/firecracker.json", 65536, &text, &len, &err), 0,
        "%s", err.msg);
    cr_assert_eq(vf_spec_parse(text, len, NULL, "firecracker.json", &spec, &err), 0, "%s", err.msg);
    cr_assert_eq(vf_registry_settle(r, &spec, &err), 0, "%s", err.msg);
    cr_expect_eq(spec.vmm, VF_SPEC_VMM_FIRECRACKER);
    vf_spec_free(&spec);
    vf_registry_unref(r);
    free(text);
    scratch_close(&s);
}

/* As an administrator would add it: with a network, its policy and ports. */
Test(examples, a_spec_with_a_network)
{
    const struct vf_spec_destination *to;
    const struct vf_spec_port *port;
    struct vf_spec spec = {0};
    struct vf_error err = {0};
    char *text = NULL;
    size_t len;

    go_to_root();
    cr_assert_eq(vf_read_file(AT_FDCWD, "docs/examples/specs/web.json", 65536, &text, &len, &err),
                 0, "%s", err.msg);
    cr_assert_eq(vf_spec_parse(text, len, NULL, "web.json", &spec, &err), 0, "%s", err.msg);
    cr_expect_eq(spec.network.mode, VF_NETWORK_NAT);
    cr_expect_eq(spec.network.egress.policy, VF_SPEC_EGRESS_LIST);
    to = (const struct vf_spec_destination *)spec.network.egress.list.items;
    cr_assert_eq(spec.network.egress.list.n, 4);
    cr_expect_eq(to[3].last_port, 8099);
    port = (const struct vf_spec_port *)spec.network.ports.items;
    cr_assert_eq(spec.network.ports.n, 2);
    cr_expect_eq(port[0].host, 0);
    cr_expect_eq(port[1].host, 8443);
    /* A list forbids the resolver as anything else that is not in it. */
    cr_expect_str_eq(spec.network.dns.v[0], to[0].to);
    vf_spec_free(&spec);
    free(text);
}

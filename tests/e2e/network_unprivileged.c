/* Without privileges: a VM without a network works, and a network is refused in words before anything is made. Prefixes
 * that can't be had are refused as plainly.
 */
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tests/e2e/factory_net.h"

TestSuite(network_unprivileged, .timeout = 180);

#define NOBODY 65534

static void become_nobody(const char *name)
{
    if (geteuid() == 0)
        cr_assert(setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
                      setresuid(NOBODY, NOBODY, NOBODY) == 0,
                  "%m");
    const char *missing = fac_missing(false, VF_ACCEL_TCG);
    if (missing)
        sup_skip("network_unprivileged", name, "%s", missing);
}

static struct vf_networks *open_networks(const char *run_dir)
{
    static const char *const prefixes[] = {"10.210.0.0/24", "fd76:6d01::/120", NULL};
    struct vf_networks_config cfg = {.run_dir = run_dir, .prefixes = prefixes};
    struct vf_networks *n = NULL;
    struct vf_error e;
    cr_assert_eq(vf_networks_open(&cfg, &n, &e), 0, "%s (%s)", e.msg, e.hint);
    return n;
}

static void is_refused(struct fac *f, enum vf_network_mode mode, enum vf_code code,
                       const char *words)
{
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    spec.network.mode = mode;
    struct vf_error e = fac_cold_fails(f, &spec, code, words);
    cr_expect(e.hint[0], "no hint: %s", e.msg);
    e = fac_build_fails(f, &spec, code, words);
    cr_expect(e.hint[0], "no hint: %s", e.msg);
    vf_spec_free(&spec);
}

Test(network_unprivileged, without_a_network_it_works)
{
    struct fac f;
    struct vf_error e;
    char dir[] = "/tmp/vf-net-XXXXXX";
    become_nobody("without_a_network_it_works");
    cr_assert_not_null(mkdtemp(dir));
    struct vf_networks *n = open_networks(dir);
    cr_expect_lt(vf_networks_check(n, VF_NETWORK_NAT, &e), 0);
    cr_expect_eq(e.code, VF_PERMISSION, "%s: %s", vf_code_name(e.code), e.msg);
    cr_expect(strstr(e.msg, "CAP_NET_ADMIN") || strstr(e.hint, "CAP_NET_ADMIN"), "%s (%s)", e.msg,
              e.hint);
    cr_expect_eq(vf_networks_check(n, VF_NETWORK_NONE, &e), 0);

    fac_open(&f, &(struct vf_sync_options){.trial_clones = 1, .networks = n});
    is_refused(&f, VF_NETWORK_NAT, VF_PERMISSION, "network.mode: ");
    is_refused(&f, VF_NETWORK_BRIDGE, VF_UNSUPPORTED, "network.mode: ");
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    spec.network.mode = VF_NETWORK_NONE;
    struct vf_generation *gen = fac_build(&f, &spec);
    struct vf_instance *vm[2] = {fac_clone(&f, gen), fac_cold(&f, &spec)};
    fac_check_proof(&f, vm[0], gen);
    fac_check_proof(&f, vm[1], NULL);
    for (int i = 0; i < 2; i++) {
        cr_expect_null(facnet_of(vm[i]).netns);
        fac_destroy(&f, vm[i]);
    }
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_shut(&f);
    vf_networks_close(n);
    fac_close(&f);
    char command[64];
    snprintf(command, sizeof(command), "rm -r %s", dir);
    cr_assert_eq(system(command), 0);
}

/* ---- what is refused at start */

static void must_refuse(const char *prefix, enum vf_code code, const char *words)
{
    const char *prefixes[] = {prefix, NULL};
    struct vf_networks_config cfg = {.run_dir = NET_RUN, .prefixes = prefixes};
    struct vf_networks *n = NULL;
    struct vf_error e = {0};
    cr_assert_lt(vf_networks_open(&cfg, &n, &e), 0, "%s", prefix);
    cr_expect_eq(e.code, code, "%s: %s: %s", prefix, vf_code_name(e.code), e.msg);
    cr_expect(strstr(e.msg, words), "%s: %s", prefix, e.msg);
    cr_expect(e.hint[0], "%s: no hint: %s", prefix, e.msg);
    cr_expect_str_empty(net_shell("nft list ruleset"));
}

Test(network_unprivileged, prefixes_that_cannot_be_had)
{
    net_enter("network_unprivileged", "prefixes_that_cannot_be_had");
    net_shell("ip link add d0 type veth peer name d1;"
              "ip link set d1 up; ip link set d0 up; ip addr add 10.210.3.1/24 dev d0;"
              "ip route add 10.99.0.0/16 via 10.210.3.9; ip addr add fd76:6d01:5::1/64 dev d0");
    must_refuse("10.210.0.0/16", VF_CONFLICT, "10.210.3.");
    must_refuse("10.99.4.0/24", VF_CONFLICT, "10.99.0.0/16");
    must_refuse("fd76:6d01::/32", VF_CONFLICT, "fd76:6d01:5:");
    must_refuse("10.210.0.0/33", VF_INVALID_ARGUMENT, "10.210.0.0/33");
    must_refuse("10.211.0.1/16", VF_INVALID_ARGUMENT, "10.211.0.1/16");
    must_refuse("ten/8", VF_INVALID_ARGUMENT, "\"ten\"");
    must_refuse("127.0.0.0/8", VF_INVALID_ARGUMENT, "127.0.0.0/8");
}

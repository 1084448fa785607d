/* Networks that others bring: a namespace with a tap in it, or a tap's descriptors. A template for them is built in a
 * slot that leads nowhere, or with a NIC that does.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/e2e/factory_net.h"

TestSuite(factory_network_external, .timeout = 120);

#define NETNS "/run/netns/theirs"

static void make_namespace(void)
{
    net_shell("ip netns add theirs && ip -n theirs tuntap add dev tap7 mode tap vnet_hdr && "
              "ip -n theirs link set tap7 up");
}

/* Whoever breaks out of the VMM is not to change the network that was brought. */
static bool may_change_networks(pid_t pid)
{
    const char *held = net_shell("sed -n 's/^Cap[EP][a-z]*:/0x/p' /proc/%d/status", (int)pid);
    char *end;
    unsigned long long either = strtoull(held, &end, 16);
    either |= strtoull(end, &end, 16);
    return either >> CAP_NET_ADMIN & 1;
}

static bool has_carrier(const char *where, const char *tap)
{
    return strstr(net_shell("%s ip -o link show %s", where, tap), "LOWER_UP") != NULL;
}

Test(factory_network_external, brought)
{
    struct facnet n;
    struct facnet_done d = {0};
    struct vf_error e;
    FACNET_KVM_OR_SKIP("factory_network_external", "brought");
    facnet_open(&n, "factory_network_external", "brought", 4, NULL);
    make_namespace();
    struct vf_spec spec = facnet_tiny("tiny", VF_NETWORK_EXTERNAL);
    struct vf_generation *gen = fac_build(&n.f, &spec);
    fac_mark(&n.f);
    struct vf_vm_options o = {.netns = NETNS,
                              .tap = "tap7",
                              .has_mac = true,
                              .mac = {0x02, 0, 0, 0, 0, 7},
                              .has_ipv4 = true,
                              .ipv4 = {10, 7, 0, 2},
                              .prefix_len = 24};
    struct vf_instance *vm = NULL;
    cr_assert_eq(vf_sync_clone(&n.f.sync, gen, &o, &vm, &e), 0, "%s (%s)", e.msg, e.hint);
    struct vf_instance_network net = facnet_of(vm);
    cr_assert_eq(net.mode, VF_NETWORK_EXTERNAL);
    cr_assert_eq(net.number, -1);
    cr_assert_str_eq(net.netns, NETNS);
    cr_assert(facnet_is_in(facnet_pid(vm), NETNS));
    cr_assert(has_carrier("ip netns exec theirs", "tap7"));
    cr_assert_not(may_change_networks(facnet_pid(vm)));
    cr_assert_str_eq(vf_instance_proof(vm)->mac, "02:00:00:00:00:07");
    facnet_expect_taken(&n, 0, "it has no slot");
    struct vf_port port = {.protocol = IPPROTO_TCP, .port = 8080, .guest = 80};
    cr_assert_lt(vf_instance_publish(vm, &port, 1, facnet_on_done, &d, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "network.mode is external");
    fac_destroy(&n.f, vm);
    fac_check(&n.f, "destroyed");
    cr_assert(!has_carrier("ip netns exec theirs", "tap7"), "it is theirs, and stays");

    /* Descriptors are ours from the submission on. */
    int fd = net_tap("tap8", NET_TAP), copy = fd;
    net_shell("ip link set tap8 up");
    o = (struct vf_vm_options){.tap_fds = &copy, .n_tap_fds = 1};
    cr_assert_eq(vf_factory_clone(n.f.sync.factory, gen, &o, facnet_on_vm, &d, &vm, &e), 0, "%s",
                 e.msg);
    close(fd);
    copy = -1;
    facnet_wait(&n, &d);
    cr_assert(d.vm, "%s (%s)", d.err.msg, d.err.hint);
    cr_assert(has_carrier("", "tap8"));
    cr_assert_null(facnet_of(vm).netns);
    fac_destroy(&n.f, vm);
    fac_check(&n.f, "destroyed");
    cr_assert_eq(if_nametoindex("tap8"), 0, "somebody still holds it");

    /* What was saved with a tap can't be restored without; a boot can do without. */
    fac_clone_fails(&n.f, gen, VF_INVALID_ARGUMENT, "network.mode: is external: bring a tap");
    vm = fac_cold(&n.f, &spec);
    facnet_expect_taken(&n, 0, "its NIC leads nowhere");
    cr_assert_eq(strlen(vf_instance_proof(vm)->mac), 17);
    fac_destroy(&n.f, vm);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* ---- what is refused */

static void refused(struct facnet *n, const struct vf_spec *spec, const struct vf_vm_options *o,
                    enum vf_code code, const char *words)
{
    struct vf_instance *vm = NULL;
    struct vf_error e;
    cr_assert_lt(vf_sync_cold(&n->f.sync, spec, o, &vm, &e), 0, "due was: %s", words);
    fac_expect(&e, code, words);
    fac_check(&n->f, words);
}

Test(factory_network_external, refused)
{
    struct facnet n;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), two[2] = {null, null};
    facnet_open(&n, "factory_network_external", "refused", 4, NULL);
    make_namespace();
    int held = net_tap("tap6", NET_TAP);
    cr_assert_eq(mkfifo("/run/fifo", 0600), 0);
    struct vf_spec spec = facnet_null("null", VF_NETWORK_EXTERNAL);
    const struct {
        struct vf_vm_options o;
        enum vf_code code;
        const char *words;
    } cases[] = {
        {{.netns = "theirs", .tap = "tap7"}, VF_INVALID_ARGUMENT, "netns: must be an absolute"},
        {{.netns = NETNS "2", .tap = "tap7"}, VF_NOT_FOUND, "namespace " NETNS "2"},
        {{.netns = "/etc/passwd", .tap = "a"}, VF_INVALID_ARGUMENT, "is no network namespace"},
        {{.netns = "/run/fifo", .tap = "a"}, VF_INVALID_ARGUMENT, "is no network namespace"},
        {{.netns = "/proc/self/ns/mnt", .tap = "a"}, VF_INVALID_ARGUMENT, "is no network name"},
        {{.netns = NETNS, .tap = "tap9"}, VF_NOT_FOUND, "no interface 'tap9' in " NETNS},
        {{.tap = "tap7"}, VF_NOT_FOUND, "tap: there is no interface 'tap7'"},
        {{.tap = "tap6"}, VF_CONFLICT, "tap: 'tap6' is in use"},
        {{.netns = NETNS, .tap = "lo"}, VF_INVALID_ARGUMENT, "'lo' in " NETNS " is no tap with"},
        {{.tap = "sixteen-letters-"}, VF_INVALID_ARGUMENT, "tap: an interface name"},
        {{.tap_fds = two, .n_tap_fds = 1}, VF_INVALID_ARGUMENT, "taps[0]: is no descriptor of a"},
        {{.tap_fds = two, .n_tap_fds = 2}, VF_INVALID_ARGUMENT, "taps: 2 descriptors, but the"},
        {{.tap = "tap7", .tap_fds = two, .n_tap_fds = 1}, VF_INVALID_ARGUMENT, "either a name"},
        {{.has_mac = true, .mac = {1}}, VF_INVALID_ARGUMENT, "mac: is a multicast"},
        {{.has_ipv6 = true, .prefix6_len = 129}, VF_INVALID_ARGUMENT, "ipv6: prefix length"},
    };
    fac_mark(&n.f);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(&n, &spec, &cases[i].o, cases[i].code, cases[i].words);
    cr_assert_eq(if_nametoindex("tap7"), 0, "who looked for it has made it");
    spec.network.queues = 2;
    refused(&n, &spec, &cases[6].o, VF_INVALID_ARGUMENT, "bring a descriptor for each");
    refused(&n, &spec, NULL, VF_INVALID_ARGUMENT, "network.mode: is external: bring a tap");
    spec.network.queues = 0;
    /* And brought to one that has a network of its own. */
    spec.network.mode = VF_NETWORK_NAT;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        refused(&n, &spec, &cases[i].o, VF_INVALID_ARGUMENT, "the template's network.mode is nat");
    vf_spec_free(&spec);
    close(null);
    close(held);
    facnet_close(&n);
}

/* ---- builds */

struct build {
    struct facnet *n;
    struct vf_build_request *req;
    bool looked, done;
    struct vf_generation *gen;
    struct vf_error err;
};

/* The template's slot is one from which nothing gets out. */
static void on_stage(void *arg, const char *stage)
{
    struct build *b = arg;
    if (strcmp(stage, "freeze") != 0)
        return;
    b->looked = true;
    facnet_expect_taken(b->n, 1, "while it is built");
    const char *rules = net_shell("for s in /run/netns/vf-*; do nsenter --net=$s nft list chain "
                                  "inet vmfactory egress; done");
    cr_assert(strstr(rules, "\"refused_policy\" drop\n\t}"), "%s", rules); /* the last rule */
}

static void on_built(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    struct build *b = arg;
    b->done = true;
    b->gen = gen;
    if (err)
        b->err = *err;
}

Test(factory_network_external, built_in_a_slot)
{
    struct facnet n;
    struct vf_error e;
    struct build b = {.n = &n};
    facnet_open(&n, "factory_network_external", "built_in_a_slot", 4,
                &(struct vf_sync_options){.trial_clones = 2});
    struct vf_spec spec = facnet_null("null", VF_NETWORK_EXTERNAL);
    cr_assert_eq(vf_factory_build(n.f.sync.factory, &spec, on_stage, on_built, &b, &b.req, &e), 0,
                 "%s", e.msg);
    while (!b.done)
        uv_run(&n.f.sync.loop, UV_RUN_ONCE);
    cr_assert(b.gen, "%s", b.err.msg);
    cr_assert(b.looked);
    cr_assert_geq(facnet_counts(&n).recycled, 3, "a template and two clones to try it");
    vf_generation_unref(b.gen);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* Without networks: where the NIC may lead nowhere. */
Test(factory_network_external, built_without_networks)
{
    struct fac f;
    fac_open(&f, &(struct vf_sync_options){.cloud_hypervisor = "/bin/true"});
    struct vf_spec spec = facnet_null("null", VF_NETWORK_EXTERNAL);
    vf_generation_unref(fac_build(&f, &spec));
    spec.vmm = VF_SPEC_VMM_CLOUD_HYPERVISOR;
    spec.agent.channel = VF_CHANNEL_VSOCK;
    struct vf_error e =
        fac_build_fails(&f, &spec, VF_UNSUPPORTED, "a template needs a tap to be built with");
    cr_assert(strstr(e.hint, "networks"), "%s", e.hint);
    vf_spec_free(&spec);
    fac_close(&f);
}

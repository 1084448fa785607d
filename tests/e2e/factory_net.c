/* A factory with networks, in namespaces of the test's own. See factory_net.h. */
#include "tests/e2e/factory_net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char prefix4[32], prefix6[48];
static const char *const prefixes[] = {prefix4, prefix6, NULL};

static void open_networks(struct facnet *n)
{
    struct vf_networks_config cfg = {.run_dir = NET_RUN, .prefixes = prefixes};
    struct vf_error e;
    cr_assert_eq(vf_networks_open(&cfg, &n->networks, &e), 0, "%s (%s)", e.msg, e.hint);
    cr_assert_eq(vf_networks_check(n->networks, VF_NETWORK_NAT, &e), 0, "%s (%s)", e.msg, e.hint);
}

static void on_traffic(void *arg, struct vf_instance *vm, const struct vf_net_stats *total)
{
    struct facnet *n = arg;
    struct vf_instance_network net = facnet_of(vm);
    cr_assert(vf_instance_id(vm)[0]);
    snprintf(n->told_of, sizeof(n->told_of), "%s", net.interface);
    n->told.in_packets += total->in_packets;
    n->told.out_packets += total->out_packets;
    n->n_told++;
}

void facnet_open(struct facnet *n, const char *suite, const char *name, int slots,
                 const struct vf_sync_options *o)
{
    struct vf_sync_options options = {.trial_clones = -1};
    net_enter(suite, name);
    memset(n, 0, sizeof(*n));
    snprintf(prefix4, sizeof(prefix4), "10.210.0.0/%d", 31 - __builtin_ctz((unsigned)slots));
    snprintf(prefix6, sizeof(prefix6), "fd76:6d01::/%d", 127 - __builtin_ctz((unsigned)slots));
    open_networks(n);
    if (o)
        options = *o;
    options.networks = n->networks;
    options.on_traffic = on_traffic;
    options.on_traffic_arg = n;
    fac_open(&n->f, &options);
}

void facnet_reopen(struct facnet *n)
{
    struct vf_sync_options options = n->f.options;
    fac_shut(&n->f);
    vf_networks_close(n->networks);
    open_networks(n);
    options.networks = n->networks;
    fac_reopen(&n->f, &options);
}

void facnet_close(struct facnet *n)
{
    facnet_expect_taken(n, 0, "in the end");
    fac_shut(&n->f);
    vf_networks_close(n->networks); /* with the descriptors of its ready slots */
    fac_close(&n->f);
    cr_expect_eq(net_count_names(), 0);
    cr_expect_eq(net_count_links("vf-"), 0);
    cr_expect_str_empty(net_shell("find " NET_RUN " -type f"));
    cr_expect_str_empty(net_shell("nft list ruleset"));
}

struct vf_nets_counts facnet_counts(struct facnet *n)
{
    struct vf_nets_counts c;
    vf_networks_counts(n->networks, VF_NETWORK_NAT, &c);
    return c;
}

void facnet_expect_taken(struct facnet *n, int taken, const char *when)
{
    struct vf_nets_counts c = facnet_counts(n);
    cr_assert_eq(c.taken, taken, "%s: %d slots are taken, not %d", when, c.taken, taken);
    cr_assert_eq(c.making, 0, "%s: %d slots are being made", when, c.making);
    cr_assert_eq(c.dirty, 0, "%s: %d slots are dirty", when, c.dirty);
}

struct vf_spec facnet_tiny(const char *name, enum vf_network_mode mode)
{
    struct vf_spec spec = fac_tiny(name, VF_ACCEL_KVM, NULL);
    spec.network.mode = mode;
    return spec;
}

struct vf_spec facnet_null(const char *name, enum vf_network_mode mode)
{
    struct vf_spec spec = facnet_tiny(name, mode);
    spec.vmm = VF_SPEC_VMM_NULL;
    spec.agent.ready_timeout_ms = 5000;
    return spec;
}

void facnet_add_dns(struct vf_spec *spec, const char *const *dns)
{
    struct vf_strv *to = &spec->network.dns;
    for (; *dns; dns++) {
        to->v = realloc(to->v, (to->n + 2) * sizeof(char *));
        cr_assert(to->v);
        to->v[to->n++] = strdup(*dns);
        to->v[to->n] = NULL;
    }
}

bool facnet_is_in(pid_t pid, const char *netns)
{
    char path[64];
    struct stat a, b;
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
    cr_assert_eq(stat(path, &a), 0, "%s", path);
    cr_assert_eq(stat(netns, &b), 0, "%s", netns);
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

pid_t facnet_pid(struct vf_instance *vm)
{
    return vf_vm_info_of(vf_instance_vm(vm))->pid;
}

struct vf_instance_network facnet_of(struct vf_instance *vm)
{
    struct vf_instance_network net;
    vf_instance_network(vm, &net);
    return net;
}

int facnet_number(struct vf_instance *vm)
{
    int number = facnet_of(vm).number;
    cr_assert_geq(number, 0, "%s is in no slot", vf_instance_id(vm));
    return number;
}

void facnet_on_done(void *arg, const struct vf_error *err)
{
    struct facnet_done *d = arg;
    d->calls++;
    if (err)
        d->err = *err;
}

void facnet_on_vm(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct facnet_done *d = arg;
    d->vm = vm;
    facnet_on_done(arg, err);
}

void facnet_wait(struct facnet *n, struct facnet_done *d)
{
    while (!d->calls)
        uv_run(&n->f.sync.loop, UV_RUN_ONCE);
    cr_assert_eq(d->calls, 1);
}

void facnet_publish(struct facnet *n, struct vf_instance *vm, const struct vf_port *ports,
                    int n_ports, struct facnet_done *ret)
{
    struct vf_error e;
    *ret = (struct facnet_done){0};
    cr_assert_eq(vf_instance_publish(vm, ports, n_ports, facnet_on_done, ret, &e), 0, "%s", e.msg);
    cr_assert_eq(ret->calls, 0);
    facnet_wait(n, ret);
}

void facnet_must_publish(struct facnet *n, struct vf_instance *vm, const struct vf_port *port)
{
    struct facnet_done d;
    facnet_publish(n, vm, port, 1, &d);
    cr_assert_eq(d.err.code, VF_OK, "%s", d.err.msg);
}

struct vf_net_stats facnet_traffic(struct facnet *n, struct vf_instance *vm)
{
    struct vf_net_stats stats = {0};
    struct facnet_done d = {0};
    struct vf_error e;
    cr_assert_eq(vf_instance_traffic(vm, &stats, facnet_on_done, &d, &e), 0, "%s", e.msg);
    facnet_wait(n, &d);
    cr_assert_eq(d.err.code, VF_OK, "%s", d.err.msg);
    return stats;
}

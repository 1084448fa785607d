/* What a spec's network means, and what of it is refused with the field's name. Needs no privilege. */
#include <stdlib.h>
#include <string.h>
#include "factory/network.h"
#include "tests/e2e/factory_support.h"

static struct vf_spec parse(const char *network)
{
    char text[2048];
    struct vf_spec spec;
    struct vf_error e;
    int len = snprintf(text, sizeof(text),
                       "{\"name\":\"t\",\"vmm\":\"null\",\"vcpus\":4,\"network\":%s}", network);
    cr_assert_eq(vf_spec_parse(text, (size_t)len, NULL, NULL, &spec, &e), 0, "%s", e.msg);
    return spec;
}

Test(factory_network_spec, policy)
{
    struct vf_policy p;
    struct vf_error e;
    char text[VF_IP_TEXT];
    struct vf_spec spec = parse("{}");
    cr_assert_eq(vf_network_policy(&spec, &p, &e), 0, "%s", e.msg);
    cr_assert(vf_network_policy_is_default(&p));
    vf_spec_free(&spec);
    spec = parse("{\"ports\":[{\"guest\":80}],\"dns\":[\"192.0.2.53\"]}");
    cr_assert_eq(vf_network_policy(&spec, &p, &e), 0, "%s", e.msg);
    cr_assert(vf_network_policy_is_default(&p), "ports are for a lease alone");
    vf_spec_free(&spec);

    spec = parse("{\"egress\":{\"policy\":\"list\",\"list\":["
                 "{\"to\":\"192.0.2.0/24\"},"
                 "{\"to\":\"2001:db8::1\",\"protocol\":\"tcp\",\"first_port\":443},"
                 "{\"to\":\"0.0.0.0/0\",\"protocol\":\"udp\",\"first_port\":1,\"last_port\":9}]},"
                 "\"metadata\":true,\"host_services\":[{\"host\":53,\"protocol\":\"udp\"}],"
                 "\"in_bytes_per_s\":1000000,\"out_bytes_per_s\":2000000}");
    cr_assert_eq(vf_network_check(&spec, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_network_policy(&spec, &p, &e), 0, "%s", e.msg);
    cr_assert(!vf_network_policy_is_default(&p));
    cr_assert_eq(p.egress, VF_EGRESS_LIST);
    cr_assert_eq(p.n_rules, 3);
    cr_assert_str_eq(vf_cidr_text(&p.rules[0].to, text), "192.0.2.0/24");
    cr_assert_eq(p.rules[0].protocol, 0);
    cr_assert_str_eq(vf_cidr_text(&p.rules[1].to, text), "2001:db8::1/128");
    cr_assert_eq(p.rules[1].protocol, IPPROTO_TCP);
    cr_assert_eq(p.rules[1].first_port, 443);
    cr_assert_eq(p.rules[1].last_port, 443);
    cr_assert_eq(p.rules[2].protocol, IPPROTO_UDP);
    cr_assert_eq(p.rules[2].last_port, 9);
    cr_assert(p.open_metadata);
    cr_assert_eq(p.n_opened, 1);
    cr_assert_eq(p.opened[0].port, 53);
    cr_assert_eq(p.opened[0].protocol, IPPROTO_UDP);
    cr_assert_eq(p.in_bytes_per_s, 1000000);
    cr_assert_eq(p.out_bytes_per_s, 2000000);
    vf_spec_free(&spec);
}

Test(factory_network_spec, shape)
{
    static const struct {
        enum vf_spec_vmm vmm;
        int64_t vcpus, queues;
        int due;
        bool by_name;
    } cases[] = {
        {VF_SPEC_VMM_QEMU, 1, 0, 1, false},        {VF_SPEC_VMM_QEMU, 4, 0, 4, false},
        {VF_SPEC_VMM_QEMU, 16, 0, 8, false},       {VF_SPEC_VMM_QEMU, 4, 2, 2, false},
        {VF_SPEC_VMM_FIRECRACKER, 4, 0, 1, true},  {VF_SPEC_VMM_FIRECRACKER, 1, 1, 1, true},
        {VF_SPEC_VMM_CLOUD_HYPERVISOR, 2, 0, 2, 0}};
    struct vf_net_shape shape;
    struct vf_error e;
    struct vf_spec spec = parse("{\"mtu\":9000}");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        spec.vmm = (int)cases[i].vmm;
        spec.vcpus = cases[i].vcpus;
        spec.network.queues = cases[i].queues;
        cr_assert_eq(vf_network_shape(&spec, &shape, &e), 0, "%s", e.msg);
        cr_assert_eq(shape.tap.queues, cases[i].due, "%zu: %d queues", i, shape.tap.queues);
        cr_assert_eq(shape.tap.by_name, cases[i].by_name, "%zu", i);
        cr_assert(shape.tap.offloads);
        cr_assert_eq(shape.mtu, 9000);
        cr_assert_eq(memcmp(&shape.guest_mac, &vf_inside.guest_mac, 6), 0);
    }
    spec.vmm = VF_SPEC_VMM_QEMU;
    spec.network.queues = 9;
    cr_assert_lt(vf_network_check(&spec, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "network.queues: a NIC of qemu has at most 8");
    /* What is brought is one tap, unless the spec says otherwise. */
    spec.network.queues = 0;
    spec.network.mode = VF_NETWORK_EXTERNAL;
    cr_assert_eq(vf_network_shape(&spec, &shape, &e), 0);
    cr_assert_eq(shape.tap.queues, 1);
    vf_spec_free(&spec);
}

/* As a program might fill one in. */
static void refused(struct vf_spec *spec, const char *words)
{
    struct vf_error e;
    cr_assert_lt(vf_network_check(spec, &e), 0, "due was: %s", words);
    fac_expect(&e, VF_INVALID_ARGUMENT, words);
}

Test(factory_network_spec, refused)
{
    struct vf_spec spec =
        parse("{\"egress\":{\"policy\":\"list\",\"list\":[{\"to\":\"192.0.2.0/24\"},"
              "{\"to\":\"192.0.2.7\"}]},\"host_services\":[{\"host\":53}]}");
    struct vf_spec_destination *to =
        &((struct vf_spec_destination *)spec.network.egress.list.items)[1];
    static const char *const bad[] = {"192.0.2.300", "192.0.2.7/33", "192.0.2.7/24", "host", ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        free(to->to);
        to->to = strdup(bad[i]);
        refused(&spec, "network.egress.list[1].to: ");
    }
    free(to->to);
    to->to = strdup("192.0.2.7");
    to->first_port = 80;
    refused(&spec, "network.egress.list[1].protocol: ");
    to->protocol = VF_SPEC_TCP;
    to->last_port = 79;
    refused(&spec, "network.egress.list[1]: ports");
    to->last_port = 65536;
    refused(&spec, "network.egress.list[1]: ports");
    to->last_port = 0;
    ((struct vf_spec_port *)spec.network.host_services.items)[0].host = 65536;
    refused(&spec, "network.host_services[0]: ");
    ((struct vf_spec_port *)spec.network.host_services.items)[0].host = 53;
    struct vf_error e;
    cr_assert_eq(vf_network_check(&spec, &e), 0, "%s", e.msg);
    vf_spec_free(&spec);
}

/* What differs in its network is another template. */
static void on_built(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    (void)err;
    vf_generation_unref(gen);
    *(bool *)arg = true;
}

Test(factory_network_spec, another_template)
{
    static const char *const networks[] = {"{\"mode\":\"none\"}", "{\"mode\":\"external\"}",
                                           "{\"mode\":\"external\",\"mtu\":9000}",
                                           "{\"mode\":\"external\",\"queues\":2}"};
    enum { N = sizeof(networks) / sizeof(networks[0]) };
    struct fac f;
    struct vf_build_request *req;
    struct vf_error e;
    bool done = false;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec specs[N];
    for (size_t i = 0; i < N; i++)
        specs[i] = parse(networks[i]);
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < N; k++)
            cr_assert_eq(vf_spec_equal(&specs[i], &specs[k]), i == k, "%zu %zu", i, k);
    cr_assert_eq(vf_factory_build(f.sync.factory, &specs[0], NULL, on_built, &done, &req, &e), 0,
                 "%s", e.msg);
    cr_assert_lt(vf_factory_build(f.sync.factory, &specs[1], NULL, on_built, NULL, &req, &e), 0);
    fac_expect(&e, VF_CONFLICT, "is being built from another spec");
    while (!done)
        uv_run(&f.sync.loop, UV_RUN_ONCE);
    for (size_t i = 0; i < N; i++)
        vf_spec_free(&specs[i]);
    fac_close(&f);
}

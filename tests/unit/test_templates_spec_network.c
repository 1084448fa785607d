/* The network of specs: what is taken, what is refused and how that is said. */
#include "templates_support.h"

static int parse(const char *network, const char *more, struct vf_spec *ret_spec,
                 struct vf_error *err)
{
    char text[4096];

    snprintf(text, sizeof(text), "{\"name\":\"web\",\"boot\":{\"kernel\":\"/k\"}%s%s%s}",
             network != NULL ? ",\"network\":" : "", network != NULL ? network : "", more);
    return vf_spec_parse(text, strlen(text), NULL, "web.json", ret_spec, err);
}

static void expect_mode(const char *network, int mode)
{
    struct vf_spec spec, again;
    struct vf_error err;
    char *text;

    expect_ok(parse(network, "", &spec, &err), err);
    cr_expect_eq(spec.network.mode, mode, "%s", network != NULL ? network : "(none)");
    cr_expect_eq(spec.network.mtu, 1500);
    /* Its text says so, in today's words alone. */
    text = vf_spec_encode(&spec);
    cr_expect_null(strstr(text, "enabled"), "%s", text);
    expect_ok(vf_spec_parse(text, strlen(text), NULL, NULL, &again, &err), err);
    cr_expect_eq(again.network.mode, mode);
    cr_expect(vf_spec_equal(&spec, &again));
    vf_spec_free(&again);
    expect_ok(vf_spec_copy(&spec, &again, &err), err);
    cr_expect_eq(again.network.mode, mode);
    vf_spec_free(&again);
    vf_spec_free(&spec);
    free(text);
}

Test(templates_spec_network, the_mode_if_it_is_left_out)
{
    expect_mode(NULL, VF_NETWORK_NONE);
    expect_mode("{}", VF_NETWORK_NAT);
    expect_mode("{\"mtu\":1500}", VF_NETWORK_NAT);
    expect_mode("{\"mode\":\"none\"}", VF_NETWORK_NONE);
    expect_mode("{\"mode\":\"nat\"}", VF_NETWORK_NAT);
    expect_mode("{\"mode\":\"bridge\"}", VF_NETWORK_BRIDGE);
    expect_mode("{\"mode\":\"external\"}", VF_NETWORK_EXTERNAL);
}

Test(templates_spec_network, what_older_versions_wrote)
{
    expect_mode("{\"enabled\":false}", VF_NETWORK_NONE);
    expect_mode("{\"enabled\":true}", VF_NETWORK_NAT);
    expect_mode("{\"enabled\":true,\"mode\":\"external\"}", VF_NETWORK_EXTERNAL);
    expect_mode("{\"enabled\":false,\"mode\":\"none\"}", VF_NETWORK_NONE);
}

Test(templates_spec_network, a_built_spec_is_written)
{
    struct vf_spec spec;
    char *text;

    vf_spec_init(&spec);
    spec.network.mode = VF_NETWORK_NAT;
    text = vf_spec_encode(&spec);
    cr_expect_not_null(strstr(text, "\"mode\": \"nat\""), "%s", text);
    free(text);
    vf_spec_free(&spec);
}

static const char full[] =
    "{\"mode\":\"nat\",\"egress\":{\"policy\":\"list\",\"list\":["
    "{\"to\":\"192.0.2.0/24\",\"protocol\":\"tcp\",\"first_port\":80,\"last_port\":443},"
    "{\"to\":\"2001:db8::/32\",\"protocol\":\"udp\",\"first_port\":53},"
    "{\"to\":\"198.51.100.7\"},{\"to\":\"0.0.0.0/0\"}]},\"metadata\":true,"
    "\"host_services\":[{\"host\":8080},{\"protocol\":\"udp\",\"host\":53},{\"host\":53}],"
    "\"ports\":[{\"guest\":80},{\"host\":8443,\"guest\":443},"
    "{\"protocol\":\"udp\",\"host\":8443,\"guest\":443},{\"guest\":80}],"
    "\"in_bytes_per_s\":1000000,\"out_bytes_per_s\":2147483647,"
    "\"dns\":[\"192.0.2.53\",\"2001:db8::53\",\"172.31.255.1\"],\"mtu\":9216,\"queues\":2}";

static void expect_full(const struct vf_spec *spec)
{
    const struct vf_spec_destination *to = spec->network.egress.list.items;
    const struct vf_spec_port *service = spec->network.host_services.items;
    const struct vf_spec_port *port = spec->network.ports.items;

    cr_assert_eq(spec->network.egress.policy, VF_SPEC_EGRESS_LIST);
    cr_assert_eq(spec->network.egress.list.n, 4);
    cr_expect_str_eq(to[0].to, "192.0.2.0/24");
    cr_expect(to[0].protocol == VF_SPEC_TCP && to[0].first_port == 80 && to[0].last_port == 443);
    cr_expect(to[1].protocol == VF_SPEC_UDP && to[1].first_port == 53 && to[1].last_port == 0);
    cr_expect(to[2].protocol == VF_SPEC_ANY && to[2].first_port == 0 && to[2].last_port == 0);
    cr_expect(spec->network.metadata);
    cr_assert_eq(spec->network.host_services.n, 3);
    cr_expect(service[0].protocol == VF_SPEC_TCP && service[0].host == 8080);
    cr_expect(service[1].protocol == VF_SPEC_UDP && service[1].host == 53);
    cr_assert_eq(spec->network.ports.n, 4);
    cr_expect(port[0].protocol == VF_SPEC_TCP && port[0].host == 0 && port[0].guest == 80);
    cr_expect(port[1].protocol == VF_SPEC_TCP && port[1].host == 8443 && port[1].guest == 443);
    cr_expect(port[2].protocol == VF_SPEC_UDP && port[2].host == 8443);
    cr_expect_eq(spec->network.in_bytes_per_s, 1000000);
    cr_expect_eq(spec->network.out_bytes_per_s, INT32_MAX);
    cr_assert_eq(spec->network.dns.n, 3);
    cr_expect_str_eq(spec->network.dns.v[1], "2001:db8::53");
    cr_expect_eq(spec->network.mtu, 9216);
    cr_expect_eq(spec->network.queues, 2);
}

Test(templates_spec_network, full_round_trip)
{
    struct vf_spec spec, copy, other;
    struct vf_error err;

    expect_ok(parse(full, ",\"vcpus\":2", &spec, &err), err);
    expect_full(&spec);
    expect_ok(vf_spec_copy(&spec, &copy, &err), err);
    expect_full(&copy);
    cr_expect(vf_spec_equal(&spec, &copy));
    ((struct vf_spec_port *)copy.network.ports.items)[0].guest = 81;
    cr_expect_not(vf_spec_equal(&spec, &copy));
    expect_ok(parse("{}", ",\"vcpus\":2", &other, &err), err);
    cr_expect_not(vf_spec_equal(&spec, &other));
    vf_spec_free(&spec);
    vf_spec_free(&copy);
    vf_spec_free(&other);
}

#define EGRESS(list) "{\"egress\":{\"policy\":\"list\",\"list\":[" list "]}}"
#define TO(more) EGRESS("{\"to\":\"192.0.2.0/24\"," more "}")

static const struct {
    const char *network, *says;
} bad[] = {
    {"[]", "network: must be an object"},
    {"{\"mode\":\"yes\"}",
     "network.mode: must be \"none\", \"nat\", \"bridge\" or \"external\" (is \"yes\")"},
    {"{\"enabled\":true,\"mode\":\"none\"}",
     "network.enabled: is true, but network.mode is \"none\""},
    {"{\"enabled\":false,\"mode\":\"nat\"}",
     "network.enabled: is false, but network.mode is \"nat\""},
    {"{\"moed\":\"nat\"}", "did you mean \"mode\""},
    /* Egress. */
    {"{\"egress\":{\"policy\":\"block\"}}",
     "network.egress.policy: must be \"allow\", \"deny\" or \"list\""},
    {"{\"egress\":{\"policy\":\"list\"}}", "network.egress.list: must have an entry"},
    {"{\"egress\":{\"list\":[{\"to\":\"192.0.2.7\"}]}}",
     "network.egress.list: goes with the policy \"list\" only (it is \"allow\")"},
    {"{\"egress\":{\"policy\":\"deny\",\"list\":[{\"to\":\"192.0.2.7\"}]}}",
     "network.egress.list: goes with the policy \"list\" only (it is \"deny\")"},
    {EGRESS("{}"), "network.egress.list[0].to: is required"},
    {EGRESS("{\"to\":\"\"}"), "network.egress.list[0].to: must not be empty"},
    {EGRESS("{\"to\":\"example.com\"}"), "network.egress.list[0].to: must be an address or a pre"},
    {EGRESS("{\"to\":\"::/0\"},{\"to\":\"192.0.2.0/33\"}"),
     "network.egress.list[1].to: must be an"},
    {EGRESS("{\"to\":\"192.0.2.0/\"}"), "network.egress.list[0].to: must be an address"},
    {EGRESS("{\"to\":\"192.0.2.0/+8\"}"), "network.egress.list[0].to: must be an address"},
    {EGRESS("{\"to\":\"2001:db8::/129\"}"), "network.egress.list[0].to: must be an address"},
    {EGRESS("{\"to\":\"192.0.2.7/24\"}"), "network.egress.list[0].to: 192.0.2.7/24 has bits set"},
    {EGRESS("{\"to\":\"2001:db8::1/64\"}"), "network.egress.list[0].to: 2001:db8::1/64 has bits"},
    {TO("\"first_port\":80"), "network.egress.list[0].protocol: must be \"tcp\" or \"udp\""},
    {TO("\"protocol\":\"any\",\"last_port\":80"), "network.egress.list[0].protocol: must be"},
    {TO("\"protocol\":\"icmp\""), "network.egress.list[0].protocol: must be \"any\""},
    {TO("\"protocol\":\"tcp\",\"first_port\":443,\"last_port\":80"),
     "network.egress.list[0].last_port: must be at least first_port, 443 (is 80)"},
    {TO("\"protocol\":\"tcp\",\"last_port\":80"), "network.egress.list[0].first_port: is needed"},
    {TO("\"protocol\":\"tcp\",\"first_port\":65536"), "first_port: must be at most 65535"},
    {TO("\"protocol\":\"tcp\",\"first_port\":-1"), "first_port: must be at least 0"},
    /* Ports. */
    {"{\"ports\":[{}]}", "network.ports[0].guest: is required"},
    {"{\"ports\":[{\"guest\":0}]}", "network.ports[0].guest: must be at least 1"},
    {"{\"ports\":[{\"guest\":65536}]}", "network.ports[0].guest: must be at most 65535"},
    {"{\"ports\":[{\"guest\":80,\"host\":65536}]}", "network.ports[0].host: must be at most"},
    {"{\"ports\":[{\"guest\":80,\"protocol\":\"any\"}]}",
     "network.ports[0].protocol: must be \"tcp\" or \"udp\""},
    {"{\"ports\":[{\"guest\":80,\"host\":8080},{\"guest\":81},{\"guest\":82,\"host\":8080}]}",
     "network.ports[2].host: tcp port 8080 is in [0] too"},
    {"{\"host_services\":[{}]}", "network.host_services[0].host: is required"},
    {"{\"host_services\":[{\"host\":0}]}", "network.host_services[0].host: must be at least 1"},
    {"{\"host_services\":[{\"host\":53},{\"host\":53,\"protocol\":\"tcp\"}]}",
     "network.host_services[1].host: tcp port 53 is in [0] too"},
    {"{\"host_services\":[{\"host\":53,\"guest\":53}]}", "network.host_services[0].guest: unknown"},
    /* The rest. */
    {"{\"in_bytes_per_s\":-1}", "network.in_bytes_per_s: must be at least 0"},
    {"{\"out_bytes_per_s\":2147483648}", "network.out_bytes_per_s: must be at most 2147483647"},
    {"{\"dns\":[\"a\"]}", "network.dns[0]: must be the address of a resolver (is \"a\")"},
    {"{\"dns\":[\"192.0.2.53\",\"0.0.0.0\"]}", "network.dns[1]: must be the address"},
    {"{\"dns\":[\"::\"]}", "network.dns[0]: must be the address"},
    {"{\"dns\":[\"224.0.0.1\"]}", "network.dns[0]: must be the address"},
    {"{\"dns\":[\"ff02::1\"]}", "network.dns[0]: must be the address"},
    {"{\"dns\":[\"192.0.2.53/32\"]}", "network.dns[0]: must be the address"},
    {"{\"dns\":[\"192.0.2.1\",\"192.0.2.2\",\"192.0.2.3\",\"192.0.2.4\"]}",
     "network.dns: must have at most 3 items"},
    {"{\"mtu\":1279}", "network.mtu: must be at least 1280"},
    {"{\"mtu\":9217}", "network.mtu: must be at most 9216"},
    {"{\"queues\":9}", "network.queues: must be at most 8"},
    {"{\"queues\":3}", "network.queues: must be at most one for each of the 2 vCPUs (is 3)"},
};

static void expect_refused(const char *network, const char *more, const char *says)
{
    struct vf_spec spec = {.vcpus = 99};
    struct vf_error err = {0};
    int r = parse(network, more, &spec, &err);

    cr_expect_eq(r, -EINVAL, "%s: %d", network, r);
    cr_expect_not_null(strstr(err.msg, says), "%s: \"%s\" lacks \"%s\"", network, err.msg, says);
    cr_expect_eq(spec.vcpus, 99, "%s: the output was touched", network);
}

Test(templates_spec_network, bad_ones_are_refused_by_field)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        expect_refused(bad[i].network, ",\"vcpus\":2", bad[i].says);
}

Test(templates_spec_network, a_wrong_prefix_names_the_right_one)
{
    struct vf_spec spec;
    struct vf_error err = {0};

    cr_expect_eq(parse(EGRESS("{\"to\":\"10.1.2.3/12\"}"), "", &spec, &err), -EINVAL);
    cr_expect_str_eq(err.hint, "did you mean \"10.0.0.0/12\"?");
    cr_expect_eq(parse(EGRESS("{\"to\":\"2001:db8:0:f::/61\"}"), "", &spec, &err), -EINVAL);
    cr_expect_str_eq(err.hint, "did you mean \"2001:db8:0:8::/61\"?");
}

static const struct {
    const char *text, *field;
    bool external, bridge; /* can be had there */
} of_nat[] = {
    {"\"egress\":{\"policy\":\"deny\"}", "network.egress: ", .bridge = true},
    {"\"egress\":{\"policy\":\"list\",\"list\":[{\"to\":\"::1\"}]}",
     "network.egress: ", .bridge = true},
    {"\"metadata\":true", "network.metadata: ", .bridge = true},
    {"\"host_services\":[{\"host\":53}]", "network.host_services: ", .bridge = false},
    {"\"ports\":[{\"guest\":80}]", "network.ports: ", .bridge = false},
    {"\"in_bytes_per_s\":1", "network.in_bytes_per_s: ", .bridge = true},
    {"\"out_bytes_per_s\":1", "network.out_bytes_per_s: ", .bridge = true},
    {"\"dns\":[\"::1\"]", "network.dns: ", .external = true, .bridge = true},
    {"\"mtu\":9000", "network.mtu: ", .external = true, .bridge = true},
    {"\"queues\":1", "network.queues: ", .external = true, .bridge = true},
};

static void expect_in_mode(size_t i, const char *mode, bool can)
{
    char network[300], says[100];
    struct vf_error err;
    struct vf_spec spec;

    snprintf(network, sizeof(network), "{\"mode\":\"%s\",%s}", mode, of_nat[i].text);
    if (!can) {
        snprintf(says, sizeof(says), "web.json: %s", of_nat[i].field);
        expect_refused(network, "", says);
        return;
    }
    expect_ok(parse(network, "", &spec, &err), err);
    vf_spec_free(&spec);
}

Test(templates_spec_network, what_a_mode_can_t_have)
{
    for (size_t i = 0; i < sizeof(of_nat) / sizeof(of_nat[0]); i++) {
        expect_in_mode(i, "nat", true);
        expect_in_mode(i, "bridge", of_nat[i].bridge);
        expect_in_mode(i, "external", of_nat[i].external);
        expect_in_mode(i, "none", false);
    }
}

static char *repeat(const char *head, const char *item, int n, const char *tail)
{
    char *text = malloc(4096);
    size_t len = (size_t)snprintf(text, 4096, "%s", head);

    for (int i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, 4096 - len, "%s%s", i > 0 ? "," : "", item);
    snprintf(text + len, 4096 - len, "%s", tail);
    return text;
}

Test(templates_spec_network, at_most_64_rules_and_ports)
{
    static const struct {
        const char *head, *item, *tail, *says;
    } lists[] = {
        {"{\"egress\":{\"policy\":\"list\",\"list\":[", "{\"to\":\"192.0.2.7\"}", "]}}",
         "network.egress.list: must have at most 64 items (has 65)"},
        {"{\"ports\":[", "{\"guest\":80}", "]}", "network.ports: must have at most 64 items"},
    };

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        char *enough = repeat(lists[i].head, lists[i].item, 64, lists[i].tail);
        char *more = repeat(lists[i].head, lists[i].item, 65, lists[i].tail);
        struct vf_error err;
        struct vf_spec spec;

        expect_ok(parse(enough, "", &spec, &err), err);
        vf_spec_free(&spec);
        expect_refused(more, "", lists[i].says);
        free(enough);
        free(more);
    }
}

Test(templates_spec_network, firecracker_has_one_queue)
{
    struct vf_error err = {0};
    struct vf_spec spec;

    expect_refused("{\"queues\":2}", ",\"vcpus\":2,\"vmm\":\"firecracker\"",
                   "network.queues: firecracker's NICs have one pair of queues (is 2)");
    expect_ok(parse("{\"queues\":1}", ",\"vcpus\":2,\"vmm\":\"firecracker\"", &spec, &err), err);
    vf_spec_free(&spec);
    /* Of a class, once its VMM is known. */
    expect_ok(parse("{\"queues\":2}", ",\"vcpus\":2,\"class\":\"a\"", &spec, &err), err);
    expect_error(vf_spec_settle(&spec, VF_SPEC_VMM_FIRECRACKER, &err), err, VF_INVALID_ARGUMENT,
                 "network.queues: ");
    expect_ok(vf_spec_settle(&spec, VF_SPEC_VMM_QEMU, &err), err);
    vf_spec_free(&spec);
}

/* From a spec's words to what net/ understands: the shape of a slot, and the policy of whoever is in it.
 *
 * templates/ only looks at addresses, here they are read, and each that can't be read names its field. A pool asks
 * before it takes a template (vf_network_check), the factory before it makes anything.
 */
#include <stdio.h>
#include <string.h>
#include "factory/factory.h"
#include "factory/network.h"
#include "net/link.h"
#include "vmm/vmm.h"

#define MAX_QUEUES 8

/* "network.egress.list[3].to" */
struct field {
    char name[64];
};

static struct field field(const char *list, size_t i, const char *member)
{
    struct field f;
    snprintf(f.name, sizeof(f.name), "network.%s[%zu]%s", list, i, member);
    return f;
}

static uint8_t protocol_of(int protocol)
{
    static const uint8_t numbers[] = {
        [VF_SPEC_ANY] = 0, [VF_SPEC_TCP] = IPPROTO_TCP, [VF_SPEC_UDP] = IPPROTO_UDP};
    return numbers[protocol];
}

static bool is_port(int64_t port)
{
    return port >= 1 && port <= 65535;
}

/* ---- policy */

static int put_destination(const struct vf_spec_destination *d, size_t i,
                           struct vf_egress_rule *ret, struct vf_error *err)
{
    int64_t last = d->last_port ? d->last_port : d->first_port;
    int r = vf_cidr_parse(d->to ? d->to : "", field("egress.list", i, ".to").name, &ret->to, err);
    if (r < 0)
        return r;
    if (d->first_port == 0 && d->last_port == 0) {
        ret->protocol = protocol_of(d->protocol);
        return 0;
    }
    if (d->protocol == VF_SPEC_ANY)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: ports are of tcp or udp",
                       field("egress.list", i, ".protocol").name);
    if (!is_port(d->first_port) || !is_port(last) || last < d->first_port)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "%s: ports are 1 to 65535, the first not above the last",
                       field("egress.list", i, "").name);
    ret->protocol = protocol_of(d->protocol);
    ret->first_port = (uint16_t)d->first_port;
    ret->last_port = (uint16_t)last;
    return 0;
}

static int put_egress(const struct vf_spec *s, struct vf_policy *p, struct vf_error *err)
{
    static const enum vf_egress egress[] = {[VF_SPEC_EGRESS_ALLOW] = VF_EGRESS_ALLOW,
                                            [VF_SPEC_EGRESS_DENY] = VF_EGRESS_DENY,
                                            [VF_SPEC_EGRESS_LIST] = VF_EGRESS_LIST};
    const struct vf_spec_destination *list = s->network.egress.list.items;
    size_t n = s->network.egress.list.n;
    p->egress = egress[s->network.egress.policy];
    if (n > VF_POLICY_MAX_RULES)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.egress.list: at most %d destinations",
                       VF_POLICY_MAX_RULES);
    for (size_t i = 0; i < n; i++) {
        int r = put_destination(&list[i], i, &p->rules[i], err);
        if (r < 0)
            return r;
    }
    /* Of another policy they were only looked at. */
    p->n_rules = p->egress == VF_EGRESS_LIST ? (int)n : 0;
    if (p->n_rules == 0)
        memset(p->rules, 0, sizeof(p->rules));
    return 0;
}

static int put_services(const struct vf_spec *s, struct vf_policy *p, struct vf_error *err)
{
    const struct vf_spec_port *ports = s->network.host_services.items;
    if (s->network.host_services.n > VF_PORTS_MAX)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.host_services: at most %d ports",
                       VF_PORTS_MAX);
    for (size_t i = 0; i < s->network.host_services.n; i++) {
        if (ports[i].protocol == VF_SPEC_ANY || !is_port(ports[i].host))
            return vf_fail(err, VF_INVALID_ARGUMENT, "%s: a port is 1 to 65535, of tcp or udp",
                           field("host_services", i, "").name);
        p->opened[p->n_opened++] = (struct vf_port){.protocol = protocol_of(ports[i].protocol),
                                                    .port = (uint16_t)ports[i].host};
    }
    return 0;
}

int vf_network_policy(const struct vf_spec *s, struct vf_policy *ret, struct vf_error *err)
{
    memset(ret, 0, sizeof(*ret)); /* its padding too: it is compared as a whole */
    int r = put_egress(s, ret, err);
    if (r == 0)
        r = put_services(s, ret, err);
    if (r < 0)
        return r;
    ret->open_metadata = s->network.metadata;
    if (s->network.in_bytes_per_s < 0 || s->network.out_bytes_per_s < 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network: a rate can't be negative");
    ret->in_bytes_per_s = (uint64_t)s->network.in_bytes_per_s;
    ret->out_bytes_per_s = (uint64_t)s->network.out_bytes_per_s;
    return 0;
}

bool vf_network_policy_is_default(const struct vf_policy *p)
{
    return p->egress == VF_EGRESS_ALLOW && !p->open_metadata && p->n_rules == 0 &&
           p->n_opened == 0 && p->n_ports == 0 && p->in_bytes_per_s == 0 && p->out_bytes_per_s == 0;
}

/* ---- shape */

int vf_network_mtu(const struct vf_spec *s)
{
    return s->network.mtu ? (int)s->network.mtu : VF_MTU_DEFAULT;
}

static int most_queues(const struct vf_vmm_caps *caps)
{
    int most = caps->nic_queues ? caps->nic_queues : 1;
    return most < MAX_QUEUES ? most : MAX_QUEUES;
}

static int vmm_caps(const struct vf_spec *s, struct vf_vmm_caps *ret, struct vf_error *err)
{
    const struct vf_vmm_ops *ops = vf_vmm_find(vf_spec_vmm_names[s->vmm]);
    if (!ops)
        return vf_fail(err, VF_UNSUPPORTED, "vmm: there is no driver for %s",
                       vf_spec_vmm_names[s->vmm]);
    ops->capabilities(NULL, ret);
    return 0;
}

int vf_network_queues(const struct vf_spec *s, const struct vf_vmm_caps *caps)
{
    int most = most_queues(caps), wanted = (int)s->network.queues;
    /* What an acquire brings is one tap, unless the spec says otherwise. */
    if (wanted == 0)
        wanted = s->network.mode == VF_NETWORK_EXTERNAL ? 1 : (int)s->vcpus;
    return wanted < most ? wanted : most;
}

static int check_queues(const struct vf_spec *s, const struct vf_vmm_caps *caps,
                        struct vf_error *err)
{
    if (s->network.queues < 0 || s->network.queues > most_queues(caps)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "network.queues: a NIC of %s has at most %d",
                vf_spec_vmm_names[s->vmm], most_queues(caps));
        return vf_hint(err, "leave it out: it is as many as it can be then, one for each vCPU");
    }
    return 0;
}

int vf_network_shape(const struct vf_spec *s, struct vf_net_shape *ret, struct vf_error *err)
{
    struct vf_vmm_caps caps;
    int r = vmm_caps(s, &caps, err);
    if (r == 0)
        r = check_queues(s, &caps, err);
    if (r < 0)
        return r;
    *ret = (struct vf_net_shape){
        .tap = {.queues = vf_network_queues(s, &caps), .offloads = true, .by_name = !caps.nic_fds},
        .mtu = vf_network_mtu(s),
        .guest_mac = vf_inside.guest_mac};
    return 0;
}

/* ---- */

int vf_network_check(const struct vf_spec *s, struct vf_error *err)
{
    struct vf_policy policy;
    struct vf_net_shape shape;
    int r = vf_network_policy(s, &policy, err);
    /* The VMM of a spec that names a class may not be known yet. */
    if (r == 0 && s->network.mode != VF_NETWORK_NONE && vf_spec_knows_vmm(s))
        r = vf_network_shape(s, &shape, err);
    return r;
}

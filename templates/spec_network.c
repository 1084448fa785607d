/* The network of a spec: its table, what follows from what was left out, and which words go together. See spec.h.
 *
 * Addresses are only looked at here, so that a wrong one is refused before anything is built; net/ reads them. What a
 * mode can't have is refused rather than ignored: nobody should believe in a limit that nobody sets.
 */
#include "templates/spec_network.h"

#include <arpa/inet.h>
#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MAX_RULES 64
#define MAX_PORTS 64
#define MAX_DNS 3
#define MAX_PORT 65535
#define MAX_QUEUES 8
#define DEFAULT_MTU 1500
#define ADDRESS_TEXT 64 /* an address or prefix with room to spare */

const char *const vf_spec_egress_names[] = {"allow", "deny", "list", NULL};
static_assert(COUNT(vf_spec_egress_names) == VF_SPEC_EGRESS_LIST + 2, "a name for each policy");
const char *const vf_spec_protocol_names[] = {"any", "tcp", "udp", NULL};
static_assert(COUNT(vf_spec_protocol_names) == VF_SPEC_UDP + 2, "a name for each protocol");

/* A member of the network, counted from that. */
#define NET(member) (offsetof(struct vf_spec, network.member) - offsetof(struct vf_spec, network))

static const struct vf_json_field destination_fields[] = {
    {.name = "to",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct vf_spec_destination, to),
     .min = 1,
     .max = ADDRESS_TEXT - 1,
     .required = true,
     .help = "An address or a prefix, IPv4 or IPv6: \"192.0.2.0/24\"."},
    {.name = "protocol",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct vf_spec_destination, protocol),
     .choices = vf_spec_protocol_names,
     .help = "Default any, which goes without ports."},
    {.name = "first_port",
     .type = VF_JSON_INT,
     .offset = offsetof(struct vf_spec_destination, first_port),
     .max = MAX_PORT,
     .help = "The first port allowed. Default 0: all of them."},
    {.name = "last_port",
     .type = VF_JSON_INT,
     .offset = offsetof(struct vf_spec_destination, last_port),
     .max = MAX_PORT,
     .help = "The last port allowed. Default 0: first_port alone."},
    {.name = NULL},
};

static const struct vf_json_field egress_fields[] = {
    {.name = "policy",
     .type = VF_JSON_ENUM,
     .offset = NET(egress.policy) - NET(egress),
     .choices = vf_spec_egress_names,
     .help = "Where the guest may connect to: allow (anywhere but what is always refused: other "
             "guests, this host's own services, metadata addresses), deny (nowhere) or list. "
             "Default allow."},
    {.name = "list",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = NET(egress.list) - NET(egress),
     .max = MAX_RULES,
     .fields = destination_fields,
     .item_size = sizeof(struct vf_spec_destination),
     .help = "With the policy list: the destinations allowed, resolvers too. Default: none."},
    {.name = NULL},
};

#define PROTOCOL                                                               \
    {                                                                          \
        .name = "protocol", .type = VF_JSON_ENUM,                              \
        .offset = offsetof(struct vf_spec_port, protocol), .min = VF_SPEC_TCP, \
        .choices = vf_spec_protocol_names, .help = "Default tcp."              \
    }

static const struct vf_json_field service_fields[] = {
    PROTOCOL,
    {.name = "host",
     .type = VF_JSON_INT,
     .offset = offsetof(struct vf_spec_port, host),
     .min = 1,
     .max = MAX_PORT,
     .required = true,
     .help = "The port of this host."},
    {.name = NULL},
};

static const struct vf_json_field port_fields[] = {
    PROTOCOL,
    {.name = "host",
     .type = VF_JSON_INT,
     .offset = offsetof(struct vf_spec_port, host),
     .max = MAX_PORT,
     .help = "The port of this host; only one VM at a time can have it. Default 0: a free one of "
             "the daemon's range at each lease, which the answer names."},
    {.name = "guest",
     .type = VF_JSON_INT,
     .offset = offsetof(struct vf_spec_port, guest),
     .min = 1,
     .max = MAX_PORT,
     .required = true,
     .help = "The port of the guest."},
    {.name = NULL},
};

#define RATE(member, text)                                                             \
    {                                                                                  \
        .name = #member, .type = VF_JSON_INT, .offset = NET(member), .max = INT32_MAX, \
        .help = text                                                                   \
    }

const struct vf_json_field vf_spec_network_fields[] = {
    {.name = "mode",
     .type = VF_JSON_ENUM,
     .offset = NET(mode),
     .choices = vf_network_mode_names,
     .present = NET(has_mode),
     .help = "How the guest's NIC is reached: none (it has none), nat (behind an address of its "
             "own on this host), bridge (behind one on the daemon's bridge) or external (whoever "
             "acquires the VM brings a namespace or tap descriptors). Default nat; a spec without "
             "network has none."},
    {.name = "egress",
     .type = VF_JSON_OBJECT,
     .offset = NET(egress),
     .fields = egress_fields,
     .help = "Where the guest may connect to; of nat and bridge."},
    {.name = "metadata",
     .type = VF_JSON_BOOL,
     .offset = NET(metadata),
     .help = "Whether the guest may reach link-local metadata addresses (169.254.169.254 and the "
             "like), where clouds tell secrets of the host; of nat and bridge. Default false."},
    {.name = "host_services",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = NET(host_services),
     .max = MAX_PORTS,
     .fields = service_fields,
     .item_size = sizeof(struct vf_spec_port),
     .help = "Ports of this host that the guest may use, under any of the host's addresses but "
             "loopback; of nat. Default: none."},
    {.name = "ports",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = NET(ports),
     .max = MAX_PORTS,
     .fields = port_fields,
     .item_size = sizeof(struct vf_spec_port),
     .help = "Ports of this host that lead to the guest as long as the VM is leased, unless the "
             "acquire names others; of nat. Default: none."},
    RATE(in_bytes_per_s, "How fast the guest may receive, in bytes per second; of nat and bridge. "
                         "Default 0: no limit."),
    RATE(out_bytes_per_s, "How fast the guest may send, in bytes per second; of nat and bridge. "
                          "Default 0: no limit."),
    {.name = "dns",
     .type = VF_JSON_STRING_ARRAY,
     .offset = NET(dns),
     .max = MAX_DNS,
     .help = "Addresses of the resolvers that the guest is told, at most 3. Default: none, the "
             "guest keeps its own."},
    {.name = "mtu",
     .type = VF_JSON_INT,
     .offset = NET(mtu),
     .min = 1280,
     .max = 9216,
     .help = "The largest packet of the guest's NIC, in bytes. Default 1500."},
    {.name = "queues",
     .type = VF_JSON_INT,
     .offset = NET(queues),
     .max = MAX_QUEUES,
     .help = "Pairs of queues of the NIC, at most one for each vCPU; firecracker has one. Default "
             "0: one for each vCPU, at most 8, where the VMM has several."},
    {.name = "enabled",
     .type = VF_JSON_BOOL,
     .offset = NET(enabled),
     .present = NET(has_enabled),
     .help = "What older versions wrote: false is the mode none, true is nat. Use mode."},
    {.name = NULL},
};

static void complete_ports(struct vf_json_array *list)
{
    struct vf_spec_port *p = (struct vf_spec_port *)list->items;

    for (size_t i = 0; i < list->n; i++) {
        if (p[i].protocol == VF_SPEC_ANY)
            p[i].protocol = VF_SPEC_TCP;
    }
}

int vf_spec_network_complete(struct vf_spec *spec, struct vf_error *err)
{
    enum vf_network_mode older = spec->network.enabled ? VF_NETWORK_NAT : VF_NETWORK_NONE;
    bool none;

    if (!spec->network.has_mode)
        spec->network.mode = !spec->network.given        ? VF_NETWORK_NONE
                             : spec->network.has_enabled ? (int)older
                                                         : VF_NETWORK_NAT;
    none = spec->network.mode == VF_NETWORK_NONE;
    if (spec->network.has_enabled && none != (older == VF_NETWORK_NONE)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "network.enabled: is %s, but network.mode is \"%s\"",
                spec->network.enabled ? "true" : "false",
                vf_network_mode_names[spec->network.mode]);
        return vf_hint(err, "leave it out: only older versions wrote it");
    }
    spec->network.given = spec->network.has_mode = true;
    spec->network.has_enabled = spec->network.enabled = false;
    complete_ports(&spec->network.host_services);
    complete_ports(&spec->network.ports);
    return 0;
}

/* ---- addresses */

/* The address in text; its family, or 0. */
static int address_of(const char *text, uint8_t ret[16])
{
    memset(ret, 0, 16);
    if (inet_pton(AF_INET, text, ret) == 1)
        return AF_INET;
    return inet_pton(AF_INET6, text, ret) == 1 ? AF_INET6 : 0;
}

/* The bits after the slash: 0 to max, else -1. */
static int bits_of(const char *text, int max)
{
    size_t len = strlen(text);
    long bits;

    if (len < 1 || len > 3 || strspn(text, "0123456789") != len)
        return -1;
    bits = strtol(text, NULL, 10);
    return bits <= max ? (int)bits : -1;
}

/* Clears what is behind the first bits of an address; whether there was something. */
static bool clear_host_bits(uint8_t *address, int len, int bits)
{
    bool had = false;

    for (int i = 0; i < len * 8; i++) {
        uint8_t bit = (uint8_t)(0x80 >> (i % 8));

        if (i < bits || !(address[i / 8] & bit))
            continue;
        had = true;
        address[i / 8] &= (uint8_t)~bit;
    }
    return had;
}

static int check_prefix(const char *to, size_t i, struct vf_error *err)
{
    char text[ADDRESS_TEXT], meant[INET6_ADDRSTRLEN];
    uint8_t address[16];
    char *slash;
    int family, len, bits;

    snprintf(text, sizeof(text), "%s", to);
    slash = strchr(text, '/');
    if (slash != NULL)
        *slash = '\0';
    family = address_of(text, address);
    len = family == AF_INET ? 4 : 16;
    bits = slash == NULL ? len * 8 : bits_of(slash + 1, len * 8);
    if (family == 0 || bits < 0) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.egress.list[%zu].to: must be an address or a prefix (is \"%s\")", i, to);
        return vf_hint(err, "for example \"192.0.2.7\", \"192.0.2.0/24\" or \"2001:db8::/32\"; "
                            "names of hosts can't be used here");
    }
    if (!clear_host_bits(address, len, bits))
        return 0;
    inet_ntop(family, address, meant, sizeof(meant));
    vf_fail(err, VF_INVALID_ARGUMENT,
            "network.egress.list[%zu].to: %s has bits set behind its first %d", i, to, bits);
    return vf_hint(err, "did you mean \"%s/%d\"?", meant, bits);
}

static int check_dns(const struct vf_spec *s, struct vf_error *err)
{
    static const uint8_t zeros[16];

    for (size_t i = 0; i < s->network.dns.n; i++) {
        uint8_t a[16];
        int family = address_of(s->network.dns.v[i], a);
        bool multicast = family == AF_INET ? a[0] >= 224 : a[0] == 0xff;

        if (family != 0 && !multicast && memcmp(a, zeros, sizeof(a)) != 0)
            continue;
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.dns[%zu]: must be the address of a resolver (is \"%.64s\")", i,
                s->network.dns.v[i]);
        return vf_hint(err, "for example \"192.0.2.53\" or \"2001:db8::53\"");
    }
    return 0;
}

/* ---- egress and ports */

static int check_destination(const struct vf_spec_destination *d, size_t i, struct vf_error *err)
{
    if (d->protocol == VF_SPEC_ANY && (d->first_port != 0 || d->last_port != 0)) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.egress.list[%zu].protocol: must be \"tcp\" or \"udp\", as there are ports",
                i);
        return vf_hint(err, "name the protocol, or leave the ports out");
    }
    if (d->last_port != 0 && d->last_port < d->first_port) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.egress.list[%zu].last_port: must be at least first_port, %" PRId64
                " (is %" PRId64 ")",
                i, d->first_port, d->last_port);
        return vf_hint(err, "leave it out for first_port alone");
    }
    if (d->last_port != 0 && d->first_port == 0) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.egress.list[%zu].first_port: is needed with last_port", i);
        return vf_hint(err, "1 is the first port there is");
    }
    return check_prefix(d->to, i, err);
}

static int check_egress(const struct vf_spec *s, struct vf_error *err)
{
    const struct vf_json_array *list = &s->network.egress.list;
    int r = 0;

    if (s->network.egress.policy != VF_SPEC_EGRESS_LIST && list->n > 0) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.egress.list: goes with the policy \"list\" only (it is \"%s\")",
                vf_spec_egress_names[s->network.egress.policy]);
        return vf_hint(err, "set network.egress.policy to \"list\", or leave the list out");
    }
    if (s->network.egress.policy == VF_SPEC_EGRESS_LIST && list->n == 0) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.egress.list: must have an entry with the policy \"list\"");
        return vf_hint(err, "name a destination, or set network.egress.policy to \"deny\"");
    }
    for (size_t i = 0; r == 0 && i < list->n; i++)
        r = check_destination((const struct vf_spec_destination *)list->items + i, i, err);
    return r;
}

/* That no port of the host is named twice. */
static int check_ports(const struct vf_json_array *list, const char *field, struct vf_error *err)
{
    const struct vf_spec_port *p = (const struct vf_spec_port *)list->items;

    for (size_t i = 0; i < list->n; i++) {
        for (size_t k = 0; k < i; k++) {
            if (p[i].host == 0 || p[i].host != p[k].host || p[i].protocol != p[k].protocol)
                continue;
            vf_fail(err, VF_INVALID_ARGUMENT, "%s[%zu].host: %s port %" PRId64 " is in [%zu] too",
                    field, i, vf_spec_protocol_names[p[i].protocol], p[i].host, k);
            return vf_hint(err, "a port of the host can be named once for each protocol");
        }
    }
    return 0;
}

/* ---- modes */

/* The first that was given of what nothing could set a limit with: NULL if none was. */
static const char *policy_given(const struct vf_spec *s)
{
    return s->network.egress.policy != VF_SPEC_EGRESS_ALLOW || s->network.egress.list.n > 0
               ? "network.egress"
           : s->network.metadata            ? "network.metadata"
           : s->network.host_services.n > 0 ? "network.host_services"
           : s->network.ports.n > 0         ? "network.ports"
           : s->network.in_bytes_per_s > 0  ? "network.in_bytes_per_s"
           : s->network.out_bytes_per_s > 0 ? "network.out_bytes_per_s"
                                            : NULL;
}

static const char *guest_side_given(const struct vf_spec *s)
{
    return s->network.dns.n > 0            ? "network.dns"
           : s->network.mtu != DEFAULT_MTU ? "network.mtu"
           : s->network.queues != 0        ? "network.queues"
                                           : NULL;
}

static int check_mode(const struct vf_spec *s, struct vf_error *err)
{
    const char *given = policy_given(s);

    if (s->network.mode == VF_NETWORK_NONE) {
        given = given != NULL ? given : guest_side_given(s);
        if (given == NULL)
            return 0;
        vf_fail(err, VF_INVALID_ARGUMENT,
                "%s: makes no sense with network.mode \"none\": the guest has no NIC", given);
        return vf_hint(err, "leave it out, or set network.mode to \"nat\"");
    }
    if (s->network.mode == VF_NETWORK_EXTERNAL && given != NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "%s: can't be had with network.mode \"external\": whoever acquires the VM brings "
                "the network and its rules",
                given);
        return vf_hint(err, "leave it out, or set network.mode to \"nat\"");
    }
    if (s->network.mode == VF_NETWORK_BRIDGE &&
        (s->network.ports.n > 0 || s->network.host_services.n > 0)) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "%s: can't be had with network.mode \"bridge\": a VM there has an address of its "
                "own on the bridge's network",
                s->network.ports.n > 0 ? "network.ports" : "network.host_services");
        return vf_hint(err, "leave it out, or set network.mode to \"nat\"");
    }
    return 0;
}

int vf_spec_network_check(const struct vf_spec *s, struct vf_error *err)
{
    int r = check_mode(s, err);

    if (r == 0)
        r = check_egress(s, err);
    if (r == 0)
        r = check_ports(&s->network.host_services, "network.host_services", err);
    if (r == 0)
        r = check_ports(&s->network.ports, "network.ports", err);
    if (r == 0)
        r = check_dns(s, err);
    if (r == 0 && s->network.queues > s->vcpus) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.queues: must be at most one for each of the %" PRId64
                " vCPU%s (is %" PRId64 ")",
                s->vcpus, s->vcpus == 1 ? "" : "s", s->network.queues);
        return vf_hint(err, "leave it out for the best that the VMM can");
    }
    return r;
}

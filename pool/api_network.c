/* See api_network.h. Whether the template's mode allows what is said here, the pools check.
 *
 * Who names a namespace or a tap has the daemon open it, so only admins may; anybody else shows by a descriptor that the
 * tap is theirs.
 */
#include "pool/api_network.h"

#include <linux/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/api_taps.h"

#define NET(member) offsetof(struct vf_network_body, member)
#define PORT(member) offsetof(struct vf_port_body, member)

const struct vf_json_field vf_network_body_fields[] = {
    {.name = "namespace",
     .type = VF_JSON_STRING,
     .offset = NET(netns),
     .min = 1,
     .max = 4095,
     .help = "The path of a network namespace, in which the VMM then runs. For admins. Default: "
             "the daemon's."},
    {.name = "tap",
     .type = VF_JSON_STRING,
     .offset = NET(tap),
     .min = 1,
     .max = IFNAMSIZ - 1,
     .help = "The name of a tap in the namespace. For admins."},
    {.name = "taps",
     .type = VF_JSON_STRING,
     .offset = NET(taps),
     .min = VF_TAPS_TOKEN - 1,
     .max = VF_TAPS_TOKEN - 1,
     .help = "What POST /v1/taps answered to a tap's descriptors."},
    {.name = "mac",
     .type = VF_JSON_STRING,
     .offset = NET(mac),
     .min = 1,
     .max = 64,
     .help = "The guest's MAC address. Default: the template's."},
    {.name = "address4",
     .type = VF_JSON_STRING,
     .offset = NET(address4),
     .min = 1,
     .max = 64,
     .help = "The guest's IPv4 address with its prefix length. Default: as the template was."},
    {.name = "gateway4",
     .type = VF_JSON_STRING,
     .offset = NET(gateway4),
     .min = 1,
     .max = 64,
     .help = "The guest's router for IPv4. Default: none."},
    {.name = "address6",
     .type = VF_JSON_STRING,
     .offset = NET(address6),
     .min = 1,
     .max = 64,
     .help = "The guest's IPv6 address with its prefix length. Default: as the template was."},
    {.name = "gateway6",
     .type = VF_JSON_STRING,
     .offset = NET(gateway6),
     .min = 1,
     .max = 64,
     .help = "The guest's router for IPv6. Default: none."},
    {.name = NULL},
};

static const char *const protocols[] = {"tcp", "udp", NULL};

const struct vf_json_field vf_port_body_fields[] = {
    {.name = "guest",
     .type = VF_JSON_INT,
     .offset = PORT(guest),
     .min = 1,
     .max = 65535,
     .required = true,
     .help = "The guest's port."},
    {.name = "host",
     .type = VF_JSON_INT,
     .offset = PORT(host),
     .min = 0,
     .max = 65535,
     .help = "The host's port that leads to it. Default 0: a free one of the daemon's range."},
    {.name = "protocol",
     .type = VF_JSON_ENUM,
     .offset = PORT(protocol),
     .choices = protocols,
     .help = "Default tcp."},
    {.name = NULL},
};

/* ---- where it leads */

static bool is_name(const char *tap)
{
    if (strcmp(tap, ".") == 0 || strcmp(tap, "..") == 0)
        return false;
    for (; *tap != '\0'; tap++)
        if (*tap <= ' ' || *tap > '~' || strchr("/:%", *tap) != NULL)
            return false;
    return true;
}

static int check_tap(const struct vf_network_body *b, const struct vf_caller *who,
                     struct vf_error *err)
{
    if (b->taps != NULL && (b->tap != NULL || b->netns != NULL))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "network.taps: not together with network.%s: give the tap's name, or its "
                       "descriptors",
                       b->tap != NULL ? "tap" : "namespace");
    if (b->taps != NULL)
        return 0;
    if (b->tap == NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT, "network.tap: is missing");
        return vf_hint(
            err,
            "name a tap (and its namespace), or hand its descriptors over by POST /v1/taps and "
            "give the token in network.taps");
    }
    if (!is_name(b->tap))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "network.tap: can't be the name of an interface (is \"%.64s\")", b->tap);
    if (b->netns != NULL && b->netns[0] != '/') {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network.namespace: must be an absolute path (is \"%.64s\")", b->netns);
        return vf_hint(err, "the path of `ip netns add %.32s` is /run/netns/%.32s", b->netns,
                       b->netns);
    }
    if (!who->admin) {
        vf_fail(err, VF_PERMISSION, "network.%s: only admins may name one",
                b->netns != NULL ? "namespace" : "tap");
        return vf_hint(
            err,
            "hand the tap's descriptors over by POST /v1/taps and give the token in network.taps");
    }
    return 0;
}

/* ---- what the guest is told */

/* "10.1.2.3/24": an address of that family, and how many bits of it are the network's. */
static int read_address(const char *text, int family, const char *field, struct vf_ip *ret,
                        uint8_t *ret_bits, struct vf_error *err)
{
    const char *slash = strchr(text, '/'), *like = family == AF_INET ? "10.1.2.3/24" : "fd00::3/64";
    int max = family == AF_INET ? 32 : 128, bits = 0;
    char address[VF_IP_TEXT], *end;
    struct vf_ip ip;

    if (slash == NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: has no prefix length (is \"%.64s\")", field, text);
        return vf_hint(err, "write it like %s", like);
    }
    if ((size_t)(slash - text) < sizeof(address) && slash[1] >= '0' && slash[1] <= '9') {
        snprintf(address, sizeof(address), "%.*s", (int)(slash - text), text);
        bits = (int)strtol(slash + 1, &end, 10);
        if (*end == '\0' && bits >= 1 && bits <= max &&
            vf_ip_parse(address, field, &ip, NULL) == 0 && ip.family == family) {
            *ret = ip;
            *ret_bits = (uint8_t)bits;
            return 0;
        }
    }
    vf_fail(err, VF_INVALID_ARGUMENT,
            "%s: is no IPv%d address with a prefix length from 1 to %d (is \"%.64s\")", field,
            family == AF_INET ? 4 : 6, max, text);
    return vf_hint(err, "write it like %s", like);
}

static bool link_local(const struct vf_ip *ip)
{
    return ip->family == AF_INET6 && ip->b[0] == 0xfe && (ip->b[1] & 0xc0) == 0x80;
}

/* A router that the guest can reach from its address. */
static int read_gateway(const char *text, const char *field, const char *address_field,
                        const struct vf_ip *own, int bits, struct vf_ip *ret, struct vf_error *err)
{
    struct vf_ip ip;
    int same = 0;

    if (own->family == 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: needs %s", field, address_field);
    if (vf_ip_parse(text, field, &ip, err) < 0)
        return -1;
    if (ip.family != own->family)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: is no IPv%d address (is \"%.64s\")", field,
                       own->family == AF_INET ? 4 : 6, text);
    while (same < bits && !((ip.b[same / 8] ^ own->b[same / 8]) & (0x80 >> same % 8)))
        same++;
    if (vf_ip_same(&ip, own) || (same < bits && !link_local(&ip)))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "%s: must be another address of the network that %s is in (is \"%.64s\")",
                       field, address_field, text);
    *ret = ip;
    return 0;
}

static int read_family(const char *address, const char *gateway, int family, struct vf_ip *ret_ip,
                       uint8_t *ret_bits, struct vf_ip *ret_gateway, struct vf_error *err)
{
    const char *address_field = family == AF_INET ? "network.address4" : "network.address6";
    const char *gateway_field = family == AF_INET ? "network.gateway4" : "network.gateway6";
    int r = 0;

    if (address != NULL)
        r = read_address(address, family, address_field, ret_ip, ret_bits, err);
    if (r == 0 && gateway != NULL)
        r = read_gateway(gateway, gateway_field, address_field, ret_ip, *ret_bits, ret_gateway,
                         err);
    return r;
}

int vf_network_read(const struct vf_network_body *b, const struct vf_caller *who,
                    struct vf_vm_options *ret, struct vf_error *err)
{
    struct vf_vm_options o = {.netns = b->netns,
                              .tap = b->tap,
                              .has_mac = b->mac != NULL,
                              .has_ipv4 = b->address4 != NULL,
                              .has_ipv6 = b->address6 != NULL};
    struct vf_ip ip4 = {0}, gateway4 = {0}, ip6 = {0}, gateway6 = {0};
    struct vf_mac mac = {{0}};
    int r = check_tap(b, who, err);

    if (r == 0 && b->mac != NULL)
        r = vf_mac_parse(b->mac, "network.mac", &mac, err);
    if (r == 0)
        r = read_family(b->address4, b->gateway4, AF_INET, &ip4, &o.prefix_len, &gateway4, err);
    if (r == 0)
        r = read_family(b->address6, b->gateway6, AF_INET6, &ip6, &o.prefix6_len, &gateway6, err);
    if (r < 0)
        return r;
    memcpy(o.mac, mac.b, sizeof(o.mac));
    memcpy(o.ipv4, ip4.b, sizeof(o.ipv4));
    memcpy(o.gateway, gateway4.b, sizeof(o.gateway));
    memcpy(o.ipv6, ip6.b, sizeof(o.ipv6));
    memcpy(o.gateway6, gateway6.b, sizeof(o.gateway6));
    *ret = o;
    return 0;
}

/* ---- ports */

void vf_ports_read(const struct vf_json_array *ports, struct vf_port *ret)
{
    const struct vf_port_body *b = ports->items;

    for (size_t i = 0; i < ports->n; i++)
        ret[i] = (struct vf_port){.protocol = b[i].protocol == 0 ? IPPROTO_TCP : IPPROTO_UDP,
                                  .port = (uint16_t)b[i].host,
                                  .guest = (uint16_t)b[i].guest};
}

/* Parsing and comparing addresses. See address.h. */
#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int vf_ip_parse(const char *text, const char *field, struct vf_ip *ret, struct vf_error *err)
{
    struct vf_ip ip = {.family = strchr(text, ':') ? AF_INET6 : AF_INET};
    if (inet_pton(ip.family, text, ip.b) != 1) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: \"%.64s\" is not an IP address", field, text);
        return vf_hint(err, "write it like 192.0.2.7 or 2001:db8::7");
    }
    *ret = ip;
    return 0;
}

static void clear_host_bits(struct vf_cidr *c)
{
    for (int i = c->bits; i < 8 * vf_ip_len(&c->ip); i++)
        c->ip.b[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
}

int vf_cidr_parse(const char *text, const char *field, struct vf_cidr *ret, struct vf_error *err)
{
    char address[VF_IP_TEXT], meant[VF_IP_TEXT];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    struct vf_cidr c, whole;

    if (len >= sizeof(address))
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: \"%.64s…\" is not a prefix", field, text);
    snprintf(address, sizeof(address), "%.*s", (int)len, text);
    if (vf_ip_parse(address, field, &c.ip, err) < 0)
        return -EINVAL;
    c.bits = 8 * vf_ip_len(&c.ip);
    if (slash) {
        char *end;
        long bits = strtol(slash + 1, &end, 10);
        if (slash[1] < '0' || slash[1] > '9' || *end || bits > c.bits) {
            vf_fail(err, VF_INVALID_ARGUMENT, "%s: \"%.64s\": the prefix length must be 0 to %d",
                    field, text, c.bits);
            return vf_hint(err, "write it like %s", c.bits == 32 ? "10.0.0.0/16" : "fd00::/48");
        }
        c.bits = (int)bits;
    }
    whole = c;
    clear_host_bits(&whole);
    if (memcmp(whole.ip.b, c.ip.b, sizeof(c.ip.b)) != 0) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: \"%.64s\" has bits set beyond its length", field,
                text);
        return vf_hint(err, "the prefix it lies in is %s", vf_cidr_text(&whole, meant));
    }
    *ret = c;
    return 0;
}

int vf_mac_parse(const char *text, const char *field, struct vf_mac *ret, struct vf_error *err)
{
    static const struct vf_mac zero;
    struct vf_mac m;
    int used = 0;
    int n = sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &m.b[0], &m.b[1], &m.b[2],
                   &m.b[3], &m.b[4], &m.b[5], &used);
    if (n != 6 || used != VF_MAC_TEXT - 1 || text[used])
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "%s: \"%.32s\" is not a MAC address like 02:00:5e:10:00:01", field, text);
    if ((m.b[0] & 1) || memcmp(&m, &zero, sizeof(m)) == 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s can't be the MAC address of one interface",
                       field, text);
    *ret = m;
    return 0;
}

const char *vf_ip_text(const struct vf_ip *ip, char ret[VF_IP_TEXT])
{
    if (!inet_ntop(ip->family, ip->b, ret, VF_IP_TEXT))
        snprintf(ret, VF_IP_TEXT, "none");
    return ret;
}

const char *vf_cidr_text(const struct vf_cidr *c, char ret[VF_IP_TEXT])
{
    vf_ip_text(&c->ip, ret);
    size_t len = strlen(ret);
    snprintf(ret + len, VF_IP_TEXT - len, "/%d", c->bits);
    return ret;
}

const char *vf_mac_text(const struct vf_mac *m, char ret[VF_MAC_TEXT])
{
    snprintf(ret, VF_MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", m->b[0], m->b[1], m->b[2], m->b[3],
             m->b[4], m->b[5]);
    return ret;
}

bool vf_ip_same(const struct vf_ip *a, const struct vf_ip *b)
{
    return a->family == b->family && memcmp(a->b, b->b, (size_t)vf_ip_len(a)) == 0;
}

bool vf_cidr_contains(const struct vf_cidr *c, const struct vf_ip *ip)
{
    struct vf_cidr cut = {.ip = *ip, .bits = c->bits};
    if (c->ip.family != ip->family)
        return false;
    clear_host_bits(&cut);
    return vf_ip_same(&cut.ip, &c->ip);
}

bool vf_cidr_overlap(const struct vf_cidr *a, const struct vf_cidr *b)
{
    return a->bits <= b->bits ? vf_cidr_contains(a, &b->ip) : vf_cidr_contains(b, &a->ip);
}

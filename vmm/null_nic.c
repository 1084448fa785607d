/* The null guest's NIC, as far as a renewal goes: what it is told lies in the guest's memory, so a clone has what its
 * template had until it is told otherwise. The answer is what lies there, unless the script has it lie.
 */
#include <string.h>
#include "vmm/null_guest.h"

/* Where a value lies and what makes the guest lie about it. */
struct field {
    uint16_t tag;
    uint8_t offset, len;
    unsigned lie;
    const char *complaint;
};
#define AT(member) offsetof(struct null_nic, member), sizeof(((struct null_nic *)0)->member)

static const struct field fields[] = {
    {VF_TAG_MAC, AT(mac), VF_NULL_AGENT_WRONG_MAC, "mac: 6 bytes"},
    {VF_TAG_IPV4, AT(ipv4), VF_NULL_AGENT_WRONG_IPV4, "ipv4: 9 bytes"},
    {VF_TAG_IPV6, AT(ipv6), VF_NULL_AGENT_WRONG_IPV6, "ipv6: 33 bytes"},
    {VF_TAG_MTU, AT(mtu), VF_NULL_AGENT_WRONG_MTU, "mtu: 4 bytes"},
    {VF_TAG_GATEWAY_MAC, AT(gateway_mac), VF_NULL_AGENT_WRONG_GATEWAY_MAC, "gateway-mac: 6 bytes"},
};

static const struct field *field_of(uint16_t tag, unsigned flags)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
        if (fields[i].tag == tag)
            return flags & VF_NULL_AGENT_OLD_NET && tag != VF_TAG_MAC && tag != VF_TAG_IPV4
                       ? NULL
                       : &fields[i];
    return NULL;
}

uint32_t null_nic_features(const struct null_vm *n, unsigned flags)
{
    if (!n->has_nic)
        return 0;
    return flags & VF_NULL_AGENT_OLD_NET ? VF_FEATURE_NET : VF_FEATURE_NET | VF_FEATURE_NET2;
}

const char *null_nic_check(const struct null_vm *n, const struct vf_wire_frame *f)
{
    unsigned flags = n->script->agent_flags, n_dns = 0;
    size_t pos = 0, len;
    uint16_t tag;
    const uint8_t *p;
    while (vf_wire_next(f, &pos, &tag, &p, &len) > 0) {
        const struct field *field = field_of(tag, flags);
        bool dns = tag == VF_TAG_DNS && !(flags & VF_NULL_AGENT_OLD_NET);
        if ((field || dns) && !n->has_nic)
            return "no network interface";
        if (field && len != field->len)
            return field->complaint;
        if (dns && ((len != 4 && len != 16) || ++n_dns > NULL_MAX_DNS))
            return "dns: at most 8, of 4 or 16 bytes";
    }
    return NULL;
}

static void tell(struct vf_wire_writer *w, uint16_t tag, const void *p, size_t len, bool lie)
{
    uint8_t told[sizeof(struct null_nic)];
    memcpy(told, p, len);
    told[len / 2] ^= lie;
    vf_wire_put(w, tag, told, len);
}

static void take_dns(struct null_nic *nic, const uint8_t *p, size_t len)
{
    nic->dns[nic->n_dns].len = (uint8_t)len;
    memcpy(nic->dns[nic->n_dns++].address, p, len);
}

void null_nic_renew(struct null_vm *n, const struct vf_wire_frame *f, struct vf_wire_writer *w,
                    unsigned flags)
{
    struct null_nic *nic = &n->ram->nic;
    bool dns_told = false;
    size_t pos = 0, len;
    uint16_t tag;
    const uint8_t *p;
    while (vf_wire_next(f, &pos, &tag, &p, &len) > 0) {
        const struct field *field = field_of(tag, flags);
        if (field) {
            uint8_t *at = (uint8_t *)nic + field->offset;
            memcpy(at, p, len);
            tell(w, tag, at, len, flags & field->lie);
        }
        if (tag != VF_TAG_DNS || flags & VF_NULL_AGENT_OLD_NET)
            continue;
        if (!dns_told)
            nic->n_dns = 0;
        dns_told = true;
        take_dns(nic, p, len);
    }
    for (int i = 0; dns_told && !(flags & VF_NULL_AGENT_NO_DNS) && i < nic->n_dns; i++)
        tell(w, VF_TAG_DNS, nic->dns[i].address, nic->dns[i].len, flags & VF_NULL_AGENT_WRONG_DNS);
}

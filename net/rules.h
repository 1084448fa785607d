/* The rules of a slot and of the host, as tables of our own in nftables.
 *
 * In each slot's namespace, two tables named vmfactory:
 *   netdev: what leaves the tap has the guest's MAC and one of its addresses, or is dropped: mac, arp, address;
 *   inet:   the slot's address leads to the guest (DNAT), the guest goes out under the slot's address (masquerade).
 *           Dropped: guest to gateway, to other guests, to metadata addresses, what the policy does not allow.
 * In the host's, one table for all slots, in which a packet's way is as long with 500 slots as with one: what comes out
 * of a slot has that slot's address, reaches no other slot, and no service of the host's that was not opened; ports of
 * the host lead to slots; slots go out under the host's address. Only elements of its sets come and go with slots.
 */
#ifndef VF_NET_RULES_H
#define VF_NET_RULES_H

#include "net/address.h"
#include "net/netlink.h"

#define VF_NET_TABLE "vmfactory"
#define VF_NET_TAP "tap0"
#define VF_NET_UPLINK "host0"
#define VF_NET_TAP_INDEX 2
#define VF_NET_UPLINK_INDEX 3
#define VF_POLICY_MAX_RULES 64
#define VF_PORTS_MAX 64

/* The same in every clone: a template's guest was saved with these. */
struct vf_inside {
    struct vf_ip gateway4, guest4, gateway6, guest6;
    int bits4, bits6;
    struct vf_ip router6; /* link-local, for those who learn their router that way */
    struct vf_mac gateway_mac, guest_mac;
};
extern const struct vf_inside
    vf_inside; /* 172.31.255.1/30, .2; fd76:6d00::1/64, ::2; 02:76:6d:00:00:01, :02 */

enum vf_egress { VF_EGRESS_ALLOW, VF_EGRESS_DENY, VF_EGRESS_LIST };
extern const char *const vf_egress_names[]; /* "allow", "deny", "list", NULL */

struct vf_egress_rule {
    struct vf_cidr to;
    uint8_t protocol;               /* IPPROTO_TCP, IPPROTO_UDP; 0: all, without ports */
    uint16_t first_port, last_port; /* 0: all */
};
struct vf_port {
    uint8_t protocol;
    uint16_t port;  /* the host's */
    uint16_t guest; /* the guest's; of opened ports not used */
};
/* What one lease gets; a zeroed one is the default: everything allowed that is not forbidden above. */
struct vf_policy {
    enum vf_egress egress;
    struct vf_egress_rule rules[VF_POLICY_MAX_RULES];
    int n_rules;
    bool open_metadata;
    struct vf_port opened
        [VF_PORTS_MAX]; /* services of the host that the guest may use, under the slot's gateway */
    int n_opened;
    struct vf_port ports[VF_PORTS_MAX]; /* of the host, that lead to the guest */
    int n_ports;
    uint64_t in_bytes_per_s, out_bytes_per_s; /* 0: as fast as it goes */
};

/* What is refused, by rule. */
enum vf_refusal {
    VF_REFUSED_MAC,
    VF_REFUSED_ARP,
    VF_REFUSED_ADDRESS,
    VF_REFUSED_GATEWAY,
    VF_REFUSED_GUESTS,
    VF_REFUSED_METADATA,
    VF_REFUSED_POLICY,
    VF_REFUSED_INVALID,
    VF_REFUSED_HOST,
    VF_REFUSAL_COUNT
};
extern const char *const vf_refusal_names[]; /* "mac", "arp", …, "host", NULL */

struct vf_net_rules {
    const struct vf_address_pool *pool;
    int number;
    struct vf_mac guest_mac;
};

/* A slot's tables, and its egress chain alone, as whole transactions. */
void vf_rules_slot(struct vf_nl_batch *b, const struct vf_net_rules *r);
void vf_rules_egress(struct vf_nl_batch *b, const struct vf_net_rules *r,
                     const struct vf_policy *policy);
/* Adds what was refused to refused[VF_REFUSAL_COUNT], all but VF_REFUSED_HOST; zeroes it in the kernel if reset. */
int vf_rules_refused(struct vf_nl *nl, bool reset, uint64_t *refused, struct vf_error *err);

/* ---- the host's table. nl: the host's netfilter socket. */
struct vf_host_rules {
    const char *table;  /* its name */
    const char *prefix; /* of the interfaces that lead to slots */
    const struct vf_address_pool *pool;
};
/* Makes the table, or makes it anew with what is in its sets; a table of that name that is not ours is VF_CONFLICT. */
int vf_host_rules_make(struct vf_nl *nl, const struct vf_host_rules *h, struct vf_error *err);
int vf_host_rules_remove(struct vf_nl *nl, const struct vf_host_rules *h, struct vf_error *err);
/* What the host's connections of a slot are marked with. */
static inline uint32_t vf_host_rules_mark(int number)
{
    return 0x766d0000u + (uint32_t)number;
}
/* A slot comes. */
int vf_host_rules_add(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                      struct vf_error *err);
/* What a slot has of the host's. */
struct vf_host_ports {
    struct vf_port opened[VF_PORTS_MAX]; /* services that the guest may use */
    int n_opened;
    struct vf_port ports[VF_PORTS_MAX]; /* ports that lead to the guest */
    int n_ports;
};
/* From what it has to what it is to have, in one batch, all or nothing. VF_CONFLICT: a port leads to another slot. */
int vf_host_rules_change(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                         const struct vf_host_ports *from, const struct vf_host_ports *to,
                         struct vf_error *err);
/* What it has, as the kernel says. */
int vf_host_rules_read(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                       struct vf_host_ports *ret, struct vf_error *err);
/* Back to how add left it: no ports, its count zeroed; *ret_refused (may be NULL) is what was refused. VF_NOT_FOUND: it
 * was never added. gone: nothing is left of it. */
int vf_host_rules_reset(struct vf_nl *nl, const struct vf_host_rules *h, int number, bool gone,
                        uint64_t *ret_refused, struct vf_error *err);
/* Costs the same however many slots there are. VF_NOT_FOUND: it was never added. */
int vf_host_rules_refused(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                          uint64_t *ret_refused, struct vf_error *err);

#endif

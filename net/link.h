/* Interfaces: taps, veth pairs, addresses, routes, neighbours, rates. What takes a batch only appends to it
 * (net/netlink.h); the rest acts at once. Errors name the interface or what was to be done with it. */
#ifndef VF_NET_LINK_H
#define VF_NET_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/error.h"
#include "net/address.h"
#include "net/netlink.h"

#define VF_LINK_NAME 16 /* with its NUL */
#define VF_MTU_DEFAULT 1500
#define VF_MTU_MAX 9216

/* ---- taps */
struct vf_tap_shape {
    int queues; /* 1 … VF_NETNS_MAX_TUNS: one for each vCPU; each is a descriptor */
    bool
        offloads; /* a virtio-net header before each packet: checksums and big segments pass as they are */
    bool by_name; /* the VMM opens it by its name, else it gets the descriptors */
    uid_t owner;  /* who may open it by name; 0: root alone */
};
/* Makes the tap name out of descriptors that vf_netns_create or vf_netns_open opened: it lies in their namespace.
 * It stays when they are closed (persistent). index: 0: the kernel's choice. */
int vf_tap_make(const int *tuns, const char *name, int index, const struct vf_tap_shape *shape,
                struct vf_error *err);
/* Attaches fresh descriptors to a tap of that shape that exists. VF_CONFLICT: somebody else has it. */
int vf_tap_attach(const int *tuns, const char *name, const struct vf_tap_shape *shape,
                  struct vf_error *err);

/* ---- links */
struct vf_veth {
    const char *name; /* in the namespace of the socket */
    struct vf_mac mac;
    const char *peer_name; /* in the namespace peer_ns */
    struct vf_mac peer_mac;
    int peer_index; /* 0: the kernel's choice */
    int peer_ns;
    int mtu;
};
void vf_link_add_veth(struct vf_nl_batch *b, const struct vf_veth *v);
/* Brings it up, without an IPv6 address of the kernel's own making. By index, or by name where index is 0. */
struct vf_link_change {
    int index;
    const char *name;
    const struct vf_mac *mac; /* NULL: as it is */
    int mtu;                  /* 0: as it is */
    int master;               /* index of a bridge; 0: none */
    bool
        route_localnet; /* packets from and to 127.0.0.0/8 may pass: only with rules that see to it */
};
void vf_link_up(struct vf_nl_batch *b, const struct vf_link_change *c);
void vf_link_delete(struct vf_nl_batch *b, const char *name);
void vf_link_address(struct vf_nl_batch *b, int index, const struct vf_ip *ip, int bits);
void vf_link_default_route(struct vf_nl_batch *b, int index, const struct vf_ip *gateway);
/* Permanent: never asked for, never forgotten. */
void vf_link_neighbour(struct vf_nl_batch *b, int index, const struct vf_ip *ip,
                       const struct vf_mac *mac);
/* What leaves through the interface is shaped to bytes_per_s (tbf); 0: no more. */
void vf_link_rate(struct vf_nl_batch *b, int index, uint64_t bytes_per_s, int mtu);

/* ---- looking */
struct vf_link_info {
    int index, mtu, master;
    char name[VF_LINK_NAME], kind[16];
    struct vf_mac mac;
    bool up, carrier;
    int queues;     /* of a tap with several: how many are held, in use or not */
    bool tap_group; /* of a tap: it belongs to a group */
    uint64_t rx_packets, rx_bytes, rx_dropped, tx_packets, tx_bytes, tx_dropped;
};
/* VF_NOT_FOUND. */
int vf_link_get(struct vf_nl *nl, const char *name, struct vf_link_info *ret, struct vf_error *err);
/* The carrier came up: waits until the kernel has noticed, and lets packets through. nl: of its namespace. */
void vf_link_settle(const struct vf_nl *nl, const char *name);
/* Calls each for all of them. */
typedef int (*vf_link_each)(const struct vf_link_info *l, void *arg, struct vf_error *err);
int vf_links(struct vf_nl *nl, vf_link_each each, void *arg, struct vf_error *err);

struct vf_address_info {
    int index, bits;
    struct vf_ip ip;
};
typedef int (*vf_address_each)(const struct vf_address_info *a, void *arg, struct vf_error *err);
int vf_link_addresses(struct vf_nl *nl, vf_address_each each, void *arg, struct vf_error *err);
struct vf_route_info {
    struct vf_cidr to;
    struct vf_ip via;                 /* family 0: directly */
    int index, table, type, protocol; /* of linux/rtnetlink.h; 0: none */
};
typedef int (*vf_route_each)(const struct vf_route_info *r, void *arg, struct vf_error *err);
int vf_routes(struct vf_nl *nl, vf_route_each each, void *arg, struct vf_error *err);

/* Waits until ip is an address of the namespace of nl that packets reach: the kernel completes those of IPv6 in a worker.
 * VF_TIMEOUT. */
int vf_address_wait(struct vf_nl *nl, const struct vf_ip *ip, int timeout_ms, struct vf_error *err);

/* Removes every neighbour but permanent ones and multicast's; *ret_permanent counts those that stay. */
int vf_neighbours_flush(struct vf_nl *nl, int *ret_permanent, struct vf_error *err);

/* Refuses prefixes of which the host has a part already: a route or an address, but for default routes and
 * those of interfaces whose names begin with own. nl: of the caller's own namespace. */
int vf_routes_check(struct vf_nl *nl, const struct vf_address_pool *pool, const char *own,
                    struct vf_error *err);

#endif

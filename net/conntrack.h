/* The kernel's memory of connections, and how it is wiped before somebody else gets the address. */
#ifndef VF_NET_CONNTRACK_H
#define VF_NET_CONNTRACK_H

#include <stdint.h>
#include "base/error.h"
#include "net/address.h"
#include "net/netlink.h"

/* nl: a netfilter socket; all of the socket's namespace. */
int vf_conntrack_flush(struct vf_nl *nl, struct vf_error *err);
/* Connections that came from ip, or that are answered by it. One after the other where the kernel can't do it
 * at once (IPv6; IPv4 before 6.10): then its whole list is read. */
int vf_conntrack_flush_ip(struct vf_nl *nl, const struct vf_ip *ip, struct vf_error *err);
/* The second way alone, for tests. */
int vf_conntrack_flush_ip_singly(struct vf_nl *nl, const struct vf_ip *ip, struct vf_error *err);
/* How many there are. */
int vf_conntrack_count(struct vf_nl *nl, uint32_t *ret, struct vf_error *err);

#endif

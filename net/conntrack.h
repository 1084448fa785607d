/* The kernel's memory of connections, and how it is wiped before somebody else gets the address. */
#ifndef VF_NET_CONNTRACK_H
#define VF_NET_CONNTRACK_H

#include <stdint.h>
#include "base/error.h"
#include "net/netlink.h"

/* nl: a netfilter socket; all of the socket's namespace. */
int vf_conntrack_flush(struct vf_nl *nl, struct vf_error *err);
/* Those with the mark. (Not by address: the kernel's filter of IPv6 addresses hits all others instead, 6.18 still, and
 * listing them takes 5 ms even if there are none.) */
int vf_conntrack_flush_mark(struct vf_nl *nl, uint32_t mark, struct vf_error *err);
/* How many there are. */
int vf_conntrack_count(struct vf_nl *nl, uint32_t *ret, struct vf_error *err);

#endif

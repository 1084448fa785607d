/* What a descriptor must be for a VMM to take it as a queue of a NIC's tap. Everybody who is handed some asks here: the API,
 * the factory, the drivers.
 *
 *     open /dev/net/tun for reading and writing; TUNSETIFF with VF_TAP_FLAGS, and IFF_MULTI_QUEUE for several
 *
 * A VMM that is given anything else says so in words of its own, or in none: it takes the beginning of each packet for a
 * header, or one that is there for the packet. Asking waits for the kernel's lock of all networks: for worker threads.
 */
#ifndef VF_BASE_TAP_FD_H
#define VF_BASE_TAP_FD_H

#include "base/error.h"

#define VF_TAP_FLAGS (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) /* of linux/if_tun.h */
#define VF_TAP_HEADER 12 /* bytes: virtio_net_hdr_v1, which every VMM here speaks */

/* Blocks. That each of n descriptors is a queue of its own of one tap. A header of another size is made VF_TAP_HEADER,
 * as every VMM would. VF_INVALID_ARGUMENT: the message begins with the field, as in "taps[1]: ", and the hint tells how to
 * make it right. */
int vf_tap_fds_check(const char *field, const int *fds, int n, struct vf_error *err);
/* Blocks. The network namespace that the interface of such a descriptor is in now, opened; negative errno: the kernel does
 * not tell us, -EINVAL if it is too old to. */
int vf_tap_fd_netns(int fd);

#endif

/* Network namespaces. No thread of ours ever switches into one: a child made for it does, sharing our memory and our
 * descriptor table, opens what is wanted there and is gone; the descriptors go on belonging to that namespace.
 *
 * A namespace that is to outlive the daemon is kept by a bind mount under a name, where `ip netns` finds it. All of
 * this blocks, deleting for tens of milliseconds: for worker threads.
 */
#ifndef VF_NET_NETNS_H
#define VF_NET_NETNS_H

#include <stdbool.h>
#include "base/error.h"

#define VF_NETNS_DIR "/run/netns"
#define VF_NETNS_NEW (-1)
#define VF_NETNS_MAX_TUNS 16

/* Runs fn in a child that is in the namespace of ns_fd, or in a new one (VF_NETNS_NEW). The caller sleeps until it has
 * ended. fn runs in the caller's memory and with its descriptors: system calls only, nothing of libc that has state, no
 * locks. It returns 0 or a negative errno, and may say in *what which step failed. */
struct vf_netns_call {
    int (*fn)(struct vf_netns_call *call);
    const char *what;
};
int vf_netns_do(int ns_fd, struct vf_netns_call *call, struct vf_error *err);

/* A namespace's descriptors. Zeroed ones are not closed ones: start with VF_NETNS_NONE. */
struct vf_netns {
    int ns;
    int route, netfilter;        /* netlink sockets */
    int tuns[VF_NETNS_MAX_TUNS]; /* /dev/net/tun, not attached to an interface yet (net/link.h) */
    int n_tuns;
};
#define VF_NETNS_NONE ((struct vf_netns){.ns = -1, .route = -1, .netfilter = -1, .n_tuns = 0})

/* A new one, with forwarding of IPv4 and IPv6 on, its sockets and n_tuns descriptors; nothing keeps it but *ret. */
int vf_netns_create(int n_tuns, struct vf_netns *ret, struct vf_error *err);
/* The same for one that exists; forwarding is left as it is. path: absolute, e.g. /run/netns/blue or /proc/1/ns/net. */
int vf_netns_open(const char *path, int n_tuns, struct vf_netns *ret, struct vf_error *err);
void vf_netns_close(struct vf_netns *n);

/* Makes dir, as a shared mount of its own, like `ip netns add` does when it is first used: if that came later, names
 * made before would be mounted twice, and could not be removed. */
int vf_netns_prepare(const char *dir, struct vf_error *err);
/* Keeps the namespace of ns_fd under dir/name. VF_CONFLICT: the name exists, and is left alone. */
int vf_netns_keep(const char *dir, const char *name, int ns_fd, struct vf_error *err);
/* The name's end: unmounts and removes it; one that is not there is success. The kernel takes the namespace down once
 * nothing is in it. */
int vf_netns_drop(const char *dir, const char *name, struct vf_error *err);
/* Whether dir/name exists, mounted or not. */
bool vf_netns_exists(const char *dir, const char *name);

#endif

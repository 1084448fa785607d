/* What a config says of networks, checked before a VMM sees it: each would say the same in other words, or in none, and
 * some only once a guest runs.
 *
 * A NIC's descriptors are queues of one tap, which has the header that VMMs speak (else they would take the beginning of
 * each packet for it).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include "vmm/driver.h"

#define MIN_MTU 68
#define MAX_MTU 65535

static int check_fd(const struct vf_vm_nic *n, int i, int k, char ret_name[IFNAMSIZ],
                    struct vf_error *err)
{
    struct ifreq r = {0};
    if (fcntl(n->fds[k], F_GETFD) < 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "nics[%d].fds[%d]: %d is no open descriptor", i, k,
                       n->fds[k]);
    if (ioctl(n->fds[k], TUNGETIFF, &r) < 0 || !(r.ifr_flags & IFF_TAP))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "nics[%d].fds[%d]: is no descriptor of a tap interface", i, k);
    r.ifr_name[IFNAMSIZ - 1] = 0;
    if (!(r.ifr_flags & IFF_VNET_HDR)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "nics[%d].fds[%d]: tap %s has no virtio-net header", i, k,
                r.ifr_name);
        return vf_hint(err, "open it with IFF_VNET_HDR (ip tuntap: vnet_hdr)");
    }
    if (n->n_fds > 1 && !(r.ifr_flags & IFF_MULTI_QUEUE)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "nics[%d].fds[%d]: tap %s has one queue, not %d", i, k,
                r.ifr_name, n->n_fds);
        return vf_hint(err, "open it with IFF_MULTI_QUEUE (ip tuntap: multi_queue)");
    }
    if (k == 0)
        memcpy(ret_name, r.ifr_name, IFNAMSIZ);
    else if (strcmp(ret_name, r.ifr_name) != 0)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "nics[%d].fds[%d]: is of tap %s, not of %s as the first", i, k, r.ifr_name,
                       ret_name);
    return 0;
}

static int check_nic(const struct vf_vm_nic *n, int i, bool look, const struct vf_vmm_caps *caps,
                     const char *name, struct vf_error *err)
{
    char tap[IFNAMSIZ] = "";
    if (n->mtu && (n->mtu < MIN_MTU || n->mtu > MAX_MTU))
        return vf_fail(err, VF_INVALID_ARGUMENT, "nics[%d].mtu: %d is not in %d to %d", i, n->mtu,
                       MIN_MTU, MAX_MTU);
    if (n->n_fds && !caps->nic_fds)
        return vf_fail(err, VF_UNSUPPORTED, "nics[%d]: %s takes a tap by its name only", i, name);
    if (n->n_fds < 0 || (n->n_fds && n->n_fds > caps->nic_queues))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "nics[%d]: %d queue pairs (descriptors), %s takes 1 to %d", i, n->n_fds,
                       name, caps->nic_queues);
    for (int k = 0; look && k < n->n_fds; k++) {
        int r = check_fd(n, i, k, tap, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int vf_vm_check_network(const struct vf_vm_config *c, const struct vf_vmm_caps *caps,
                        const char *name, struct vf_error *err)
{
    if (c->has_netns && ioctl(c->netns_fd, NS_GET_NSTYPE) != CLONE_NEWNET)
        return vf_fail(err, VF_INVALID_ARGUMENT, "netns_fd: %d is no network namespace",
                       c->netns_fd);
    for (int i = 0; i < c->n_nics; i++) {
        int r = check_nic(&c->nics[i], i, !c->taps_checked, caps, name, err);
        if (r < 0)
            return r;
    }
    return 0;
}

bool vf_vm_needs_net_admin(const struct vf_vm_config *c)
{
    for (int i = 0; i < c->n_nics; i++)
        if (c->nics[i].tap && !c->nics[i].n_fds && !c->nics[i].tap_owned)
            return true;
    return false;
}

/* What a config says of networks, checked before a VMM sees it: each would say the same in other words, or in none, and
 * some only once a guest runs.
 *
 * A NIC's descriptors are queues of one tap (base/tap_fd.h).
 */
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include "base/tap_fd.h"
#include "vmm/driver.h"

#define MIN_MTU 68
#define MAX_MTU 65535

static int check_nic(const struct vf_vm_nic *n, int i, bool look, const struct vf_vmm_caps *caps,
                     const char *name, struct vf_error *err)
{
    char field[24];
    if (n->mtu && (n->mtu < MIN_MTU || n->mtu > MAX_MTU))
        return vf_fail(err, VF_INVALID_ARGUMENT, "nics[%d].mtu: %d is not in %d to %d", i, n->mtu,
                       MIN_MTU, MAX_MTU);
    if (n->n_fds && !caps->nic_fds)
        return vf_fail(err, VF_UNSUPPORTED, "nics[%d]: %s takes a tap by its name only", i, name);
    if (n->n_fds < 0 || (n->n_fds && n->n_fds > caps->nic_queues))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "nics[%d]: %d queue pairs (descriptors), %s takes 1 to %d", i, n->n_fds,
                       name, caps->nic_queues);
    snprintf(field, sizeof(field), "nics[%d].fds", i);
    return look ? vf_tap_fds_check(field, n->fds, n->n_fds, err) : 0;
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

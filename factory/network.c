/* A VM's network, from its first step to its last.
 *
 *     nat, bridge:  begin -> take a slot, set its policy -> create in its namespace -> … -> give it back
 *     external:     begin -> look at what was brought, open its tap -> create there -> …
 *     adopted:      begin -> take the slot again -> …                          (detached: -> forget it)
 *
 * A slot is taken by the worker that prepares the VM, and given back by the one that takes it apart, once its process is
 * gone and its directory removed: never do two journals name one slot. The template of an external network, and the
 * clones that try it, have a slot that leads nowhere.
 * On the way: whatever fails leaves the slot in the instance, and its teardown gives it back. What was brought may not be
 * a slot of ours, nor lie in one.
 */
#include "factory/network.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/tap_fd.h"
#include "factory/instance.h"
#include "net/netns.h"
#include "vmm/process.h"

static enum vf_network_mode mode_of(const struct vf_instance *vm)
{
    return (enum vf_network_mode)vm->spec.network.mode;
}

static const char *vmm_name(const struct vf_instance *vm)
{
    return vf_spec_vmm_names[vm->spec.vmm];
}

/* What external networks are built in. */
static bool has_nat(const struct vf_factory *f)
{
    return f->networks && vf_networks_check(f->networks, VF_NETWORK_NAT, NULL) == 0;
}

bool vf_instance_net_in_slot(const struct vf_instance *vm)
{
    switch (mode_of(vm)) {
    case VF_NETWORK_NAT:
    case VF_NETWORK_BRIDGE:
        return true;
    case VF_NETWORK_EXTERNAL:
        return vm->of_build && has_nat(vm->factory);
    default:
        return false;
    }
}

static enum vf_network_mode slot_mode(const struct vf_instance *vm)
{
    return mode_of(vm) == VF_NETWORK_EXTERNAL ? VF_NETWORK_NAT : mode_of(vm);
}

/* ---- begin */

static int check_networks(const struct vf_instance *vm, struct vf_error *err)
{
    const char *mode = vf_network_mode_names[mode_of(vm)];
    if (!vm->factory->networks) {
        vf_fail(err, VF_UNSUPPORTED, "network.mode: is %s, but there are no networks here", mode);
        return vf_hint(err, "set network.mode to none, or switch networks on: they need root, or "
                            "CAP_NET_ADMIN and CAP_SYS_ADMIN");
    }
    int r = vf_networks_check(vm->factory->networks, mode_of(vm), err);
    if (r < 0) {
        vf_wrap(err, "network.mode: %s", mode);
        vf_hint(err, "or set network.mode to none");
    }
    return r;
}

static int copy_taps(struct vf_instance *vm, const struct vf_vm_options *o, struct vf_error *err)
{
    for (; vm->net.n_taps < o->n_tap_fds; vm->net.n_taps++) {
        int fd = fcntl(o->tap_fds[vm->net.n_taps], F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return vf_fail_errno(err, errno, "taps[%d]", vm->net.n_taps);
        vm->net.taps[vm->net.n_taps] = fd;
    }
    return 0;
}

static int check_taps(const struct vf_instance *vm, const struct vf_vm_options *o,
                      const struct vf_vmm_caps *caps, struct vf_error *err)
{
    int queues = vf_network_queues(&vm->spec, caps);
    if (o->tap && o->n_tap_fds)
        return vf_fail(err, VF_INVALID_ARGUMENT, "tap, taps: either a name or descriptors");
    if (o->n_tap_fds && !caps->nic_fds) {
        vf_fail(err, VF_UNSUPPORTED, "taps: %s opens its tap by name", vmm_name(vm));
        return vf_hint(err, "bring it by its name, and its namespace");
    }
    if (o->n_tap_fds > VF_VM_MAX_QUEUE_PAIRS || (o->n_tap_fds && o->n_tap_fds != queues)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "taps: %d descriptors, but the template's NIC has %d %s",
                o->n_tap_fds, queues, queues == 1 ? "queue" : "queues");
        return vf_hint(err, "one for each; network.queues of the spec says how many");
    }
    if (o->tap && queues != 1)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "tap: the template's NIC has %d queues: bring a descriptor for each",
                       queues);
    return 0;
}

/* Without a tap. */
static int check_bare(const struct vf_instance *vm, const struct vf_vmm_caps *caps,
                      struct vf_error *err)
{
    int queues = vf_network_queues(&vm->spec, caps);
    /* What a NIC with a tap could do when it was saved, one without can't. */
    bool may_be_bare = caps->nic_bare && queues == 1 && !(vm->gen && has_nat(vm->factory));
    if (vf_instance_net_in_slot(vm) || may_be_bare)
        return 0;
    if (!vm->of_build)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "network.mode: is external: bring a tap, by its name or as %s",
                       queues == 1 ? "a descriptor" : "descriptors");
    vf_fail(err, VF_UNSUPPORTED,
            "network.mode: external: a template needs a tap to be built with, and there are no "
            "networks here");
    return vf_hint(err, "switch networks on: they need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN");
}

static int begin_external(struct vf_instance *vm, const struct vf_vm_options *o,
                          struct vf_error *err)
{
    struct vf_vmm_caps caps;
    vf_instance_ops(vm)->capabilities(NULL, &caps);
    int r = check_taps(vm, o, &caps, err);
    if (r == 0 && !o->tap && !o->n_tap_fds)
        r = check_bare(vm, &caps, err);
    if (r == 0 && o->netns && !(vm->net.netns = strdup(o->netns)))
        r = vf_fail(err, VF_NO_MEMORY, "netns");
    return r == 0 ? copy_taps(vm, o, err) : r;
}

static int check_options(const struct vf_instance *vm, const struct vf_vm_options *o,
                         struct vf_error *err)
{
    bool any = o->netns || o->tap || o->n_tap_fds || o->has_mac || o->has_ipv4 || o->has_ipv6;
    if (any && mode_of(vm) != VF_NETWORK_EXTERNAL) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "netns, tap, mac, ipv4, ipv6: the template's network.mode is %s, not external",
                vf_network_mode_names[mode_of(vm)]);
        return vf_hint(err, "leave them out: it has what it needs");
    }
    if (o->netns && o->netns[0] != '/')
        return vf_fail(err, VF_INVALID_ARGUMENT, "netns: must be an absolute path");
    if (o->tap && (!o->tap[0] || strlen(o->tap) > 15))
        return vf_fail(err, VF_INVALID_ARGUMENT, "tap: an interface name of 1 to 15 characters");
    if (o->has_mac && o->mac[0] & 1)
        return vf_fail(err, VF_INVALID_ARGUMENT, "mac: is a multicast address");
    if (o->has_ipv4 && o->prefix_len > 32)
        return vf_fail(err, VF_INVALID_ARGUMENT, "ipv4: prefix length: 0 to 32 (is %d)",
                       o->prefix_len);
    if (o->has_ipv6 && o->prefix6_len > 128)
        return vf_fail(err, VF_INVALID_ARGUMENT, "ipv6: prefix length: 0 to 128 (is %d)",
                       o->prefix6_len);
    return 0;
}

static void begin_with_nothing(struct vf_instance *vm)
{
    vm->net = (struct vf_instance_net){.netns_fd = -1, .adopt_number = -1};
}

int vf_instance_net_begin(struct vf_instance *vm, const struct vf_vm_options *o,
                          struct vf_error *err)
{
    struct vf_net_shape shape;
    begin_with_nothing(vm);
    int r = check_options(vm, o, err);
    if (r == 0)
        r = vf_network_check(&vm->spec, err);
    if (r < 0 || mode_of(vm) == VF_NETWORK_NONE)
        return r;
    r = vf_network_shape(&vm->spec, &shape, err);
    if (r < 0)
        return r;
    if (mode_of(vm) == VF_NETWORK_EXTERNAL)
        return begin_external(vm, o, err);
    memcpy(vm->mac, vf_inside.guest_mac.b, sizeof(vm->mac));
    return check_networks(vm, err);
}

int vf_instance_net_begin_adopted(struct vf_instance *vm, const struct vf_adopt *a,
                                  struct vf_error *err)
{
    begin_with_nothing(vm);
    if (vf_instance_net_in_slot(vm))
        vm->net.adopt_number = a->network;
    if (a->netns && !(vm->net.netns = strdup(a->netns)))
        return vf_fail(err, VF_NO_MEMORY, "adopt");
    return 0;
}

/* ---- take */

/* Opened so that nothing else happens, whatever the path leads to. */
static int open_netns(const char *path, int *ret_fd, struct vf_error *err)
{
    struct statfs fs;
    VF_CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return vf_fail_errno(err, errno, "namespace %s", path);
    if (fstatfs(fd, &fs) < 0 || fs.f_type != NSFS_MAGIC || ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
        return vf_fail(err, VF_INVALID_ARGUMENT, "namespace %s: is no network namespace", path);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

struct open_tap {
    struct vf_netns_call call; /* first */
    const char *name;
    bool found;
    int errnum, fd;
};

/* System calls only. */
static int open_tap_there(struct vf_netns_call *call)
{
    struct open_tap *t = (struct open_tap *)call;
    struct ifreq r = {.ifr_flags = VF_TAP_FLAGS};
    memcpy(r.ifr_name, t->name, strlen(t->name));
    /* The first to open a name makes the tap: VMMs as root would, for as long as they live. */
    VF_CLEANUP_FD int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq index = r;
    t->found = sock >= 0 && ioctl(sock, SIOCGIFINDEX, &index) == 0;
    t->errnum = t->found ? 0 : errno;
    if (!t->found)
        return 0;
    VF_CLEANUP_FD int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0 || ioctl(fd, TUNGETIFF, &r) < 0) {
        t->errnum = errno;
        return 0;
    }
    /* Who else has it open, keeps it; one that neither is, was gone, and is made by us. */
    t->found = r.ifr_flags & IFF_PERSIST;
    t->errnum = t->found ? 0 : ENODEV;
    t->fd = t->found ? fd : -1;
    fd = t->found ? -1 : fd;
    return 0;
}

static int no_tap(const struct vf_instance *vm, const struct open_tap *t, struct vf_error *err)
{
    const char *in = vm->net.netns ? " in " : "", *where = vm->net.netns ? vm->net.netns : "";
    if (!t->found && t->errnum == ENODEV)
        return vf_fail(err, VF_NOT_FOUND, "tap: there is no interface '%s'%s%s", vm->tap, in,
                       where);
    if (t->errnum == EBUSY) {
        vf_fail(err, VF_CONFLICT, "tap: '%s'%s%s is in use", vm->tap, in, where);
        return vf_hint(err, "another process has it open; bring a tap for each VM");
    }
    if (t->errnum == EINVAL) {
        vf_fail(err, VF_INVALID_ARGUMENT, "tap: '%s'%s%s is no tap with one queue", vm->tap, in,
                where);
        return vf_hint(err, "make it so: ip tuntap add %s mode tap vnet_hdr", vm->tap);
    }
    return vf_fail_errno(err, t->errnum, "tap: '%s'%s%s", vm->tap, in, where);
}

/* A VMM that takes descriptors needs no privilege for this one; for another it has been tried. */
static int open_tap(struct vf_instance *vm, struct vf_error *err)
{
    struct open_tap t = {.call.fn = open_tap_there, .name = vm->tap, .fd = -1};
    struct vf_vmm_caps caps;
    int r = vm->net.netns ? vf_netns_do(vm->net.netns_fd, &t.call, err) : t.call.fn(&t.call);
    if (r < 0)
        return r;
    if (t.fd < 0)
        return no_tap(vm, &t, err);
    vf_instance_ops(vm)->capabilities(NULL, &caps);
    if (caps.nic_fds)
        vm->net.taps[vm->net.n_taps++] = t.fd;
    else
        close(t.fd);
    return 0;
}

/* A slot has one owner: the VM that it was made for. */
static int refuse_slot(const struct vf_instance *vm, int netns, const char *what,
                       struct vf_error *err)
{
    char name[VF_LINK_NAME];
    if (!vm->factory->networks || !vf_networks_have(vm->factory->networks, netns, name))
        return 0;
    vf_fail(err, VF_CONFLICT, "%s the namespace of the network slot %s, which is the daemon's own",
            what, name);
    return vf_hint(err, "bring a namespace of your own, with a tap in it, as `ip netns add` makes "
                        "them, or acquire from a template whose network.mode is nat");
}

/* Where the interface is counts, not who had it first. */
static int refuse_slots_tap(const struct vf_instance *vm, int i, struct vf_error *err)
{
    char what[48];
    VF_CLEANUP_FD int netns = vf_tap_fd_netns(vm->net.taps[i]);
    if (netns < 0)
        return 0; /* without privileges there are no slots; or the kernel is older than this question */
    snprintf(what, sizeof(what), "network.taps: taps[%d] lies in", i);
    return refuse_slot(vm, netns, what, err);
}

/* What was brought. */
static int look_at_external(struct vf_instance *vm, struct vf_error *err)
{
    char what[160];
    int r = vm->net.netns ? open_netns(vm->net.netns, &vm->net.netns_fd, err) : 0;
    if (r == 0 && vm->net.netns) {
        snprintf(what, sizeof(what), "network.namespace: %.120s is", vm->net.netns);
        r = refuse_slot(vm, vm->net.netns_fd, what, err);
    }
    if (r == 0 && vm->tap[0] && vm->net.n_taps == 0)
        r = open_tap(vm, err);
    if (r == 0)
        r = vf_tap_fds_check("taps", vm->net.taps, vm->net.n_taps, err);
    for (int i = 0; r == 0 && i < vm->net.n_taps; i++)
        r = refuse_slots_tap(vm, i, err);
    return r;
}

static int take_slot(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_net_shape shape;
    struct vf_policy policy;
    struct vf_net_info info;
    int r = vf_network_shape(&vm->spec, &shape, err);
    if (r == 0)
        r = vf_network_policy(&vm->spec, &policy, err);
    if (r == 0)
        r = vf_networks_take(vm->factory->networks, slot_mode(vm), &shape, &vm->net.slot, err);
    if (r < 0)
        return r;
    if (!vm->of_build)
        vf_failpoint("network.taken");
    if (mode_of(vm) == VF_NETWORK_EXTERNAL)
        policy = (struct vf_policy){.egress = VF_EGRESS_DENY};
    if (!vf_network_policy_is_default(&policy))
        r = vf_net_set(vm->net.slot, &policy, err);
    if (r < 0)
        return r;
    vf_net_info(vm->net.slot, &info);
    return open_netns(info.netns_path, &vm->net.netns_fd, err);
}

int vf_instance_net_take(struct vf_instance *vm, struct vf_error *err)
{
    int r = 0;
    if (vf_instance_net_in_slot(vm))
        r = take_slot(vm, err);
    else if (mode_of(vm) == VF_NETWORK_EXTERNAL)
        r = look_at_external(vm, err);
    return r;
}

/* ---- adopt */

/* Whose process has ended needs no slot, and it may be another's by now. */
static int open_process_netns(const struct vf_instance *vm, int *ret_fd, struct vf_error *err)
{
    struct vf_process p = {.pidfd = -1};
    char path[64];
    int r = vf_process_open(vm->found_pid, vm->found_start_ticks, &p, err);
    vf_close_fd(&p.pidfd);
    if (r < 0)
        return r;
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)vm->found_pid);
    return open_netns(path, ret_fd, err);
}

int vf_instance_net_adopt(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_networks *networks = vm->factory->networks;
    int number = vm->net.adopt_number;
    VF_CLEANUP_FD int netns = -1;
    if (number < 0)
        return 0;
    int r = open_process_netns(vm, &netns, err);
    if (r < 0)
        return r;
    if (!networks)
        r = vf_fail(err, VF_UNSUPPORTED, "there are no networks here");
    else
        r = vf_networks_adopt(networks, slot_mode(vm), number, netns, &vm->net.slot, err);
    return r < 0 ? vf_wrap(err, "network slot %d", number) : 0;
}

/* ---- on the loop */

void vf_instance_net_note(struct vf_instance *vm)
{
    if (vm->net.known || !vm->net.slot)
        return;
    struct vf_net_info *info = &vm->net.info;
    vf_net_info(vm->net.slot, info);
    snprintf(vm->net.name, sizeof(vm->net.name), "%s", info->name);
    vm->net.n_ports = info->n_ports; /* of an adopted one */
    if (info->n_ports)
        memcpy(vm->net.ports, info->ports, (size_t)info->n_ports * sizeof(*info->ports));
    vm->net.known = true;
}

void vf_instance_net_describe(const struct vf_instance *vm, struct vf_vm_config *ret)
{
    const struct vf_instance_net *net = &vm->net;
    struct vf_vm_nic *nic = &ret->nics[0];
    if (mode_of(vm) == VF_NETWORK_NONE)
        return;
    ret->n_nics = 1;
    memcpy(nic->mac, vm->mac, sizeof(nic->mac));
    nic->mtu = vf_network_mtu(&vm->spec);
    ret->taps_checked = true; /* our own, or looked at in the worker */
    const int *fds = net->known ? net->info.tap_fds : net->taps;
    nic->n_fds = net->known ? net->info.n_tap_fds : net->n_taps;
    memcpy(nic->fds, fds, (size_t)nic->n_fds * sizeof(*fds));
    if (nic->n_fds == 0)
        nic->tap = net->known ? net->info.tap : vm->tap[0] ? vm->tap : NULL;
    nic->tap_owned = net->known;
    ret->has_netns = net->netns_fd >= 0;
    ret->netns_fd = net->netns_fd;
}

void vf_instance_net_handed(struct vf_instance *vm)
{
    vf_close_fd(&vm->net.netns_fd);
}

static void close_brought(struct vf_instance_net *net)
{
    while (net->n_taps > 0)
        vf_close_fd(&net->taps[--net->n_taps]);
}

void vf_instance_net_close_taps(struct vf_instance *vm)
{
    if (vm->net.slot && !vm->net.jobs) {
        vf_net_close_fds(vm->net.slot);
        vm->net.info.n_tap_fds = 0;
    }
    close_brought(&vm->net);
}

/* ---- the end */

void vf_instance_net_end(struct vf_instance *vm, bool ended)
{
    struct vf_instance_net *net = &vm->net;
    vf_close_fd(&net->netns_fd);
    if (!net->again)
        close_brought(net);
    if (!net->slot)
        return;
    /* What fails is counted there, and the next sweep's. */
    if (ended)
        vf_net_give_back(net->slot, &net->total, NULL);
    else {
        vf_net_stats(net->slot, &net->total, NULL);
        vf_net_destroy(net->slot, NULL);
    }
    net->slot = NULL;
    net->has_total = true;
    if (!vm->of_build)
        vf_failpoint("network.given-back");
}

void vf_instance_net_forget(struct vf_instance *vm)
{
    if (vm->net.slot)
        vf_net_forget(vm->net.slot);
    vm->net.slot = NULL;
}

void vf_instance_net_again(struct vf_instance *vm)
{
    vm->net.known = vm->net.has_total = false;
    vm->net.n_ports = 0;
}

void vf_instance_net_free(struct vf_instance *vm)
{
    vf_close_fd(&vm->net.netns_fd);
    vf_instance_net_close_taps(vm);
    free(vm->net.netns);
    vm->net.netns = NULL;
}

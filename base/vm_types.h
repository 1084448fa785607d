/* Words about a VM that a spec (templates/) and a driver (vmm/) both use, with their names as users
 * write them. */
#ifndef VF_BASE_VM_TYPES_H
#define VF_BASE_VM_TYPES_H

enum vf_accel { VF_ACCEL_AUTO, VF_ACCEL_KVM, VF_ACCEL_TCG };
enum vf_machine { VF_MACHINE_MICROVM, VF_MACHINE_Q35 };
enum vf_channel { VF_CHANNEL_NONE, VF_CHANNEL_VIRTIO_SERIAL, VF_CHANNEL_SERIAL, VF_CHANNEL_VSOCK };

/* How a VM's NIC is reached. */
enum vf_network_mode {
    VF_NETWORK_NONE,    /* it has none */
    VF_NETWORK_NAT,     /* behind an address of its own on this host */
    VF_NETWORK_BRIDGE,  /* behind an address of its own on a bridge's network */
    VF_NETWORK_EXTERNAL /* whoever acquires the VM brings tap or namespace */
};

extern const char *const vf_network_mode_names[]; /* "none", "nat", "bridge", "external", NULL */
extern const char *const vf_accel_names[];        /* "auto", "kvm", "tcg", NULL */
extern const char *const vf_machine_names[];      /* "microvm", "q35", NULL */
extern const char *const vf_channel_names[]; /* "none", "virtio-serial", "serial", "vsock", NULL */

#endif

#include "base/vm_types.h"
#include <assert.h>
#include <stddef.h>

const char *const vf_network_mode_names[] = {"none", "nat", "bridge", "external", NULL};
static_assert(sizeof(vf_network_mode_names) / sizeof(vf_network_mode_names[0]) ==
                  VF_NETWORK_EXTERNAL + 2,
              "a name for each");
const char *const vf_accel_names[] = {"auto", "kvm", "tcg", NULL};
static_assert(sizeof(vf_accel_names) / sizeof(vf_accel_names[0]) == VF_ACCEL_TCG + 2,
              "a name for each accelerator");

const char *const vf_machine_names[] = {"microvm", "q35", NULL};
static_assert(sizeof(vf_machine_names) / sizeof(vf_machine_names[0]) == VF_MACHINE_Q35 + 2,
              "a name for each machine");

const char *const vf_channel_names[] = {"none", "virtio-serial", "serial", "vsock", NULL};
static_assert(sizeof(vf_channel_names) / sizeof(vf_channel_names[0]) == VF_CHANNEL_VSOCK + 2,
              "a name for each channel");

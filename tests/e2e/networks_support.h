/* What tests of networks (net/networks.h) share: a configuration, slots taken and given back, and nothing left. */
#ifndef VF_TESTS_NETWORKS_SUPPORT_H
#define VF_TESTS_NETWORKS_SUPPORT_H

#include "net/networks.h"
#include "tests/e2e/net_support.h"

#define NETS_MAKE_BRIDGE \
    "ip link add br0 type bridge; ip addr add 192.168.77.1/24 dev br0; ip link set br0 up"
extern const char *const nets_on_bridge[]; /* prefixes there */
/* Nat in net_support.h's prefixes, ports 30000 to 30003. */
extern const struct vf_networks_config nets_plain;

struct vf_networks *nets_open(const struct vf_networks_config *cfg);
/* Of net_plain's shape. */
struct vf_net *nets_take(struct vf_networks *n, enum vf_network_mode mode);
void nets_give_back(struct vf_net *slot);
void nets_refuse_ports(struct vf_net *slot, const struct vf_port *p, int n, enum vf_code code,
                       const char *says);
void nets_nothing_is_left(void);

#endif

/* Networks on the command line: ports to publish, and where a VM is reached. */
#ifndef VF_TOOLS_VMFACTORY_NETWORK_H
#define VF_TOOLS_VMFACTORY_NETWORK_H

#include <stdio.h>
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/text.h"

/* "8080:80", "80", "53/udp"; ret: as many as there are words. */
int vf_publish_parse(const struct vf_words *words, struct vmfactory_port *ret,
                     struct vf_error *err);
/* "10.210.0.15", else of IPv6, else "". */
const char *vf_network_address(const struct vf_json *vm);
/* "/run/netns/vf-7", or "". */
const char *vf_network_netns(const struct vf_json *vm);
/* "8080->80 53->53/udp"; cut if there are many. */
const char *vf_network_ports(const struct vf_json *vm, char *buf, size_t size);
/* A line about vm's network, if it has one. */
void vf_say_network(const struct vf_json *vm, FILE *out);

#endif

/* What an acquire's body says of networks, checked and as the pools want it. */
#ifndef VF_POOL_API_NETWORK_H
#define VF_POOL_API_NETWORK_H

#include "pool/api_internal.h"

struct vf_network_body { /* all may be NULL */
    char *netns, *tap, *taps, *mac, *address4, *gateway4, *address6, *gateway6;
};
extern const struct vf_json_field vf_network_body_fields[];
/* All but taps (pool/api_taps.h); *ret points into body. */
int vf_network_read(const struct vf_network_body *body, const struct vf_caller *who,
                    struct vf_vm_options *ret, struct vf_error *err);

struct vf_port_body {
    int64_t guest, host;
    int protocol;
};
extern const struct vf_json_field vf_port_body_fields[];
/* ports: of struct vf_port_body, at most VF_PORTS_MAX. */
void vf_ports_read(const struct vf_json_array *ports, struct vf_port *ret);

#endif

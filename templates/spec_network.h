/* The network of a spec: its part of the table, and what the table can't say. For templates/spec*.c alone. */
#ifndef VF_TEMPLATES_SPEC_NETWORK_H
#define VF_TEMPLATES_SPEC_NETWORK_H

#include "templates/spec.h"

extern const struct vf_json_field vf_spec_network_fields[];

/* After decoding: what was left out, and what older versions wrote. */
int vf_spec_network_complete(struct vf_spec *spec, struct vf_error *err);
int vf_spec_network_check(const struct vf_spec *spec, struct vf_error *err);

#endif

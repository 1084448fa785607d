/* What networks need of the kernel and of the process, and how its lack is told. */
#ifndef VF_NET_NEEDS_H
#define VF_NET_NEEDS_H

#include "base/error.h"

enum vf_need {
    VF_NEED_NAMESPACE,
    VF_NEED_TUN,
    VF_NEED_VETH,
    VF_NEED_SLOT_RULES, /* a slot's tables */
    VF_NEED_HOST_RULES, /* the host's table */
    VF_NEED_RATES,
    VF_NEED_COUNT
};

/* r is what a step that needs it returned, with err. If the kernel does not know what was asked of it, the error says
 * what is missing and which modules bring it (VF_UNSUPPORTED); without privileges, what is needed. Returns r, or its new value. */
int vf_need(int r, enum vf_need need, struct vf_error *err);

/* Blocks. Whether the host has all of it but rates, which few ask for; tried out in a namespace that is gone at once. */
int vf_needs_check(struct vf_error *err);

#endif

/* What this host is, as far as a saved VM and its size depend on it. */
#ifndef VF_TEMPLATES_HOST_H
#define VF_TEMPLATES_HOST_H

#include <stdint.h>
#include "base/error.h"
#include "base/hash.h"

struct vf_host {
    char cpu_model[128];
    char cpu_flags_sha256[VF_SHA256_HEX]; /* of the first CPU's sorted flags */
    char kernel[128];                     /* uname's release */
};

int vf_host_read(struct vf_host *ret_host, struct vf_error *err);
/* From the text of /proc/cpuinfo. A CPU without a model name (some architectures) is "unknown". */
int vf_host_parse_cpuinfo(const char *text, struct vf_host *ret_host, struct vf_error *err);
/* Bytes; *ret_available is what can be had without swapping. Either may be NULL. */
int vf_host_memory(uint64_t *ret_total, uint64_t *ret_available, struct vf_error *err);

#endif

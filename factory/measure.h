/* What a VM costs in memory, from /proc/PID/smaps. */
#ifndef VF_FACTORY_MEASURE_H
#define VF_FACTORY_MEASURE_H

#include <stdint.h>
#include <sys/types.h>
#include "base/error.h"

struct vf_memory_use {       /* KiB */
    int64_t guest_anonymous; /* guest pages the VM has copied: Anonymous of the guest's mapping.
                                Private_Dirty would also count the template's own pages while one
                                process alone maps them */
    int64_t vmm_anonymous;   /* the VMM's own */
    int64_t pss;             /* all of it, shared pages divided among those who map them */
};
/* Blocking, some ms for a large process. */
int vf_measure_memory(pid_t pid, struct vf_memory_use *ret, struct vf_error *err);
/* What a template's memory takes, once for all of its clones; KiB. */
int vf_measure_resident(int memory_fd, int64_t *ret_kib, struct vf_error *err);

#endif

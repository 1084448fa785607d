/* One pass of the ledger, apart from where its lists come from and on which thread it runs. */
#ifndef VF_POOL_LEDGER_PASS_H
#define VF_POOL_LEDGER_PASS_H

#include <stdatomic.h>
#include <stdbool.h>
#include "pool/pools.h"

#define VF_LEDGER_VMS 256 /* measured in a pass */

struct vf_ledger_template {
    struct vf_stats_template *stats;
    int memory_fd; /* the pass's own; -1: none */
    struct vf_stats_memory sum;
};
struct vf_ledger_pass {
    struct vf_vm_process *vms;
    int n_vms;
    struct vf_ledger_template *templates;
    int n_templates;
    unsigned turn;    /* of the passes: which of too many VMs */
    atomic_bool stop; /* set from outside: end soon, tell nothing */
};

/* The index of the i-th of n chosen out of of: all of them if there are no more than n, else evenly spread, and
 * shifted by one from turn to turn. */
int vf_ledger_choose(int i, int n, int of, unsigned turn);
/* Blocking. Measures, then tells stats; each template in the list is told, one without VMs too. */
void vf_ledger_pass_run(struct vf_ledger_pass *p);
/* Closes the descriptors and frees the lists. */
void vf_ledger_pass_clear(struct vf_ledger_pass *p);

#endif

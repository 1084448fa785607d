/* The memory ledger: what templates and VMs really take, measured every 15 s in a worker thread.
 *
 *     loop: which VMs, which templates' memory -> worker: measure, sum up, tell stats -> loop: wait
 *
 * At most 256 VMs are measured at a time, evenly over all of them and each time others, so that thousands cost no more
 * than that. A VM that is gone by then is left out.
 */
#ifndef VF_POOL_LEDGER_H
#define VF_POOL_LEDGER_H

#include <uv.h>
#include "base/error.h"
#include "pool/pools.h"

struct vf_ledger;
/* Does not keep the loop alive, but for a pass under way. */
int vf_ledger_start(uv_loop_t *loop, struct vf_pools *pools, struct vf_ledger **ret,
                    struct vf_error *err);
/* No new pass; done (may be NULL) comes when one under way has ended, never before this returns. After this the pools
 * are left alone, but stats not before done. l NULL is fine: done comes at once. */
void vf_ledger_stop(struct vf_ledger *l, void (*done)(void *arg), void *arg);

#endif

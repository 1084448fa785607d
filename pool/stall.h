/* How long each turn of the loop takes, and that it still turns.
 *
 * A turn is everything between two looks for events but the wait for them: callbacks of timers, sockets, ended
 * work. A timer of 1 s makes an idle loop turn too. Nothing here keeps the loop alive.
 */
#ifndef VF_POOL_STALL_H
#define VF_POOL_STALL_H

#include <uv.h>
#include "base/error.h"
#include "pool/stats.h"

struct vf_stall;
/* Before the loop runs for the first time: it makes the loop measure how long it waits. */
int vf_stall_start(uv_loop_t *loop, struct vf_stats *stats, struct vf_stall **ret,
                   struct vf_error *err);
/* done (may be NULL) comes when the loop has let go of it, never before this returns; s NULL is fine: at once. */
void vf_stall_stop(struct vf_stall *s, void (*done)(void *arg), void *arg);

#endif

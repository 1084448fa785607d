/* Ends connections that take too long over a request.
 *
 * libmicrohttpd closes those that are idle; one that sends or reads a byte now and then is never idle, and would
 * keep its place for hours. So a thread looks every second who has not got through a request for too long.
 */
#ifndef VF_POOL_STATS_GUARD_H
#define VF_POOL_STATS_GUARD_H

#include <microhttpd.h>
#include <stdint.h>
#include "base/error.h"

struct vf_stats_guard;
/* limit_us: from a connection's beginning, or its last answer, to the end of the next answer. */
int vf_stats_guard_start(int64_t limit_us, struct vf_stats_guard **ret, struct vf_error *err);
/* After the daemons that it guards have stopped. NULL is fine. */
void vf_stats_guard_stop(struct vf_stats_guard *g);

/* For MHD_OPTION_NOTIFY_CONNECTION and MHD_OPTION_NOTIFY_COMPLETED, with the guard as their argument. */
void vf_stats_guard_on_connection(void *guard, struct MHD_Connection *c, void **place,
                                  enum MHD_ConnectionNotificationCode what);
void vf_stats_guard_on_completed(void *guard, struct MHD_Connection *c, void **state,
                                 enum MHD_RequestTerminationCode how);

#endif

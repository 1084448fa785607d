/* What systemd is told about the service, by the protocol of sd_notify(3): datagrams of NAME=VALUE lines to the
 * socket that $NOTIFY_SOCKET names. Without one, all of this does nothing. */
#ifndef VF_VMFACTORYD_NOTIFY_H
#define VF_VMFACTORYD_NOTIFY_H

#include <uv.h>
#include "base/error.h"

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, and takes them out of the environment. */
int notify_open(struct vf_error *err);
void notify_close(void);
/* Never blocks; what the receiver has no room for is lost, and the log says so. */
void notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* RELOADING=1 with the time it began at. */
void notify_reloading(void);
/* WATCHDOG=1 at twice the rate that the service manager asks for, from the loop: a loop that hangs says nothing.
 * timer is initialised by this; 1: it runs, 0: no watchdog is asked for. The caller closes it in both cases. */
int notify_watchdog(uv_loop_t *loop, uv_timer_t *timer);

#endif

/* Taps of a test's own, and handing them to a daemon. */
#ifndef VF_TESTS_TAPS_SUPPORT_H
#define VF_TESTS_TAPS_SUPPORT_H

#include <linux/if.h>
#include <linux/if_tun.h>
#include "tests/e2e/daemon_support.h"

#define TAPS_FLAGS (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
#define TAPS_UPGRADE "Connection: Upgrade\r\nUpgrade: vmfactory-taps\r\n"

/* A descriptor of tap name, in the test's namespace; flags 0: attached to none. */
int taps_make(const char *name, int flags);
/* A connection that waits for descriptors. */
void taps_dial(struct dmn *d, struct dmn_conn *c);
/* data with n descriptors. */
void taps_send(struct dmn_conn *c, const char *data, size_t len, const int *fds, int n);
/* The line that comes then, without its newline, in a static buffer. */
const char *taps_line(struct dmn_conn *c);
/* All of it, and the token. */
const char *taps_bring(struct dmn *d, struct dmn_conn *c, const int *fds, int n);

#endif

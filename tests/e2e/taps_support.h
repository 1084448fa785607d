/* Handing taps to a daemon. */
#ifndef VF_TESTS_TAPS_SUPPORT_H
#define VF_TESTS_TAPS_SUPPORT_H

#include "tests/e2e/daemon_support.h"

#define TAPS_UPGRADE "Connection: Upgrade\r\nUpgrade: vmfactory-taps\r\n"

/* A connection that waits for descriptors. */
void taps_dial(struct dmn *d, struct dmn_conn *c);
/* data with n descriptors. */
void taps_send(struct dmn_conn *c, const char *data, size_t len, const int *fds, int n);
/* The line that comes then, without its newline, in a static buffer. */
const char *taps_line(struct dmn_conn *c);
/* All of it, and the token. */
const char *taps_bring(struct dmn *d, struct dmn_conn *c, const int *fds, int n);

#endif

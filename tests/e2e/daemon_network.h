/* What tests of the daemon's networks share: a daemon in namespaces of the test's own, VMs in slots, and a look at what
 * leads to them.
 */
#ifndef VF_TESTS_E2E_DAEMON_NETWORK_H
#define VF_TESTS_E2E_DAEMON_NETWORK_H

#include "tests/e2e/daemon_guest.h"
#include "tests/e2e/net_support.h"

#define DNET_WHO_PORT 7 /* where the tiny guest answers over UDP */
#define DNET_PREFIXES "network_prefixes=10.210.0.0/24,fd76:6d01::/120"
extern const char *const dnet_on[]; /* more of the command line: networks on, with these */

/* Enters namespaces of the test's own and opens a daemon with dnet_on, with a template "web" of dnet_add_null with that
 * network, of which so many VMs are parked. */
void dnet_open_web(struct dmn *d, const char *suite, const char *name, const char *network,
                   int parked);
/* Only enters them, for tests with real guests: skips where these can't run. */
void dnet_enter_for_guests(const char *suite, const char *name);
/* Starts it again with these arguments for those that it had. */
void dnet_start_with(struct dmn *d, const char *const *args);

/* Templates of VMs in memory, with that network; of QEMU and the tiny guest, likewise. Nothing is parked yet. */
void dnet_add_null(struct dmn *d, const char *name, const char *network);
void dnet_add_tiny(struct gst *g, const char *name, const char *network);
/* An acquire's answer; more: of the body, or "". The test deletes it. */
struct vf_json *dnet_acquire(struct dmn *d, int status, const char *name, const char *more);
/* An acquire that fails with status and these words. */
void dnet_refused(struct dmn *d, int status, const char *name, const char *more, const char *words);
/* What is said of a VM now; the test deletes it. */
struct vf_json *dnet_look(struct dmn *d, const char *id);
/* Releases the VM of an answer, which is deleted. */
void dnet_release(struct dmn *d, struct vf_json *vm);
void dnet_get_id(const struct vf_json *vm, char ret[16]);
const struct vf_json *dnet_port_of(const struct vf_json *vm, size_t i);
/* The answer names a slot of dnet_on's prefixes, which is there, and what every guest in a slot has. */
void dnet_expect_nat(const struct vf_json *vm);
/* The error in answer, which is deleted, says these words; the daemon's log does. */
void dnet_expect_message(struct vf_json *answer, const char *words);
void dnet_expect_log(const struct dmn *d, const char *words);

/* Of slots: nothing, in the kernel and on disk. */
void dnet_expect_nothing_left(const struct dmn *d);
void dnet_stop_and_expect_nothing(struct dmn *d);

/* The tiny guest at that address and port says that it is this one; from: a namespace, -1: this one. */
void dnet_expect_who(int from, const char *address, int port, const char *machine_id);

struct dnet_held { /* a leased VM */
    char id[16], machine_id[40], address4[20], address6[50], netns[100];
    int port; /* of this host, that leads to its DNET_WHO_PORT over UDP; -1: none */
};
void dnet_hold(const struct vf_json *vm, struct dnet_held *ret);
/* The guest answers at its own addresses and, from outside, at the port, as who it is. */
void dnet_expect_reached(struct net *n, const struct dnet_held *h);

#endif

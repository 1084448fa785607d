/* What tests of the daemon's networks share: a daemon in namespaces of the test's own, VMs in slots, and a look at what
 * leads to them.
 */
#ifndef VF_TESTS_E2E_DAEMON_NETWORK_H
#define VF_TESTS_E2E_DAEMON_NETWORK_H

#include "tests/e2e/daemon_guest.h"
#include "tests/e2e/net_support.h"

#define DNET_PREFIXES "network_prefixes=10.210.0.0/24,fd76:6d01::/120"
extern const char *const dnet_on[]; /* more of the command line: networks on, with these */

/* Templates of VMs in memory, with that network; of QEMU and the tiny guest, likewise. Nothing is parked yet. */
void dnet_add_null(struct dmn *d, const char *name, const char *network);
void dnet_add_tiny(struct gst *g, const char *name, const char *network);
/* An acquire's answer; more: of the body, or "". The test deletes it. */
struct vf_json *dnet_acquire(struct dmn *d, int status, const char *name, const char *more);
void dnet_get_id(const struct vf_json *vm, char ret[16]);
const struct vf_json *dnet_port_of(const struct vf_json *vm, size_t i);
/* The error in answer, which is deleted, says these words. */
void dnet_expect_message(struct vf_json *answer, const char *words);

/* Of slots: nothing, in the kernel and on disk. */
void dnet_expect_nothing_left(const struct dmn *d);
void dnet_stop_and_expect_nothing(struct dmn *d);

/* What a UDP question to an address is answered with; from: a namespace, -1: this one. */
void dnet_ask(int from, const char *address, int port, const char *text, char ret[64]);

struct dnet_held { /* a leased VM */
    char id[16], machine_id[40], address4[20], address6[50], netns[100];
    int port; /* of this host, that leads to its port 7 over UDP; -1: none */
};
void dnet_hold(const struct vf_json *vm, struct dnet_held *ret);
/* The guest answers at its own addresses and, from outside, at the port, as who it is. */
void dnet_expect_reached(struct net *n, const struct dnet_held *h);

#endif

/* What the tests of real guests' traffic share: a real factory with networks, a real VMM for each guest, an outside beyond
 * the host, and eyes on a slot's tap. All of it in namespaces of the test's own (net_support.h).
 *
 *     guest - VMM - slot - host (the test's namespace) - outside
 *
 * The tiny guest is talked to on UDP port 7 (tests/guests/tiny/net_talk.c).
 */
#ifndef VF_TESTS_E2E_NETWORK_SUPPORT_H
#define VF_TESTS_E2E_NETWORK_SUPPORT_H

#include "tests/e2e/factory_net.h"

#define TALK_PORT 7
/* How long nothing must come where nothing may: always after a counter has shown that the packet was dealt with. */
#define SILENCE_MS 50

struct world {
    struct facnet n;
    struct net far; /* of it only the outside */
    const struct sup_target *target;
};

/* With an outside; skips where target can't run. */
void world_open(struct world *w, const struct sup_target *target, const char *suite,
                const char *name, int slots, const struct vf_sync_options *o);
void world_close(struct world *w);
/* The target's guest on its VMM, mode nat. */
struct vf_spec world_spec(const struct world *w, const char *name);
/* A template and its clones at once. */
struct vf_generation *world_build(struct world *w, const struct vf_spec *spec);
void world_clones(struct world *w, struct vf_generation *gen, int n, struct vf_instance **ret);

/* Of a test's families. */
struct family {
    int family;
    const char *any, *host, *out, *inside, *metadata;
};
extern const struct family families[2];
/* Where the host reaches the guest. */
struct vf_ip world_address(struct vf_instance *vm, int family);
/* The host's end of the VM's way out. */
const char *world_host_end(struct vf_instance *vm, int family);

/* Says fmt, … to the guest from the host's side, once; its answer. */
const char *world_tell(struct vf_instance *vm, int family, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Has the guest send and spoof, by way of the same, which must be obeyed. */
void world_order(struct vf_instance *vm, int family, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Waits until the VM's slot has refused n packets for this reason, and no more. */
void world_refused(struct world *w, struct vf_instance *vm, enum vf_refusal why, uint64_t n);

/* ---- eyes: all frames on the tap of the slot that is at netns */
int eyes_open(const char *netns);
struct eyes_frame {
    bool from_guest;
    int len;
    uint8_t b[10000];
};
/* The next one; false: there is none now. */
bool eyes_next(int fd, struct eyes_frame *ret);
/* Whether a frame from (or else to) the guest held text, among all there are now. */
bool eyes_saw(int fd, bool from_guest, const char *text);
/* An ARP packet, or a neighbour's solicitation. */
bool eyes_asks(const struct eyes_frame *f);

#endif

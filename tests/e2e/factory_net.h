/* What the tests of VMs with a network share: a factory in namespaces of the test's own, with networks, and a look at
 * what is taken of them.
 */
#ifndef VF_TESTS_E2E_FACTORY_NET_H
#define VF_TESTS_E2E_FACTORY_NET_H

#include "net/networks.h"
#include "tests/e2e/factory_support.h"
#include "tests/e2e/net_support.h"

struct facnet {
    struct fac f;
    struct vf_networks *networks;
    struct vf_net_stats told; /* by on_traffic, all VMs together */
    int n_told;
    char told_of[16]; /* the last one's interface, its slot being another's by then, or gone */
};

/* In namespaces of our own; prefixes of that many slots (a power of two). o may be NULL: no trial clones. */
void facnet_open(struct facnet *n, const char *suite, const char *name, int slots,
                 const struct vf_sync_options *o);
/* Nothing may be left, of VMs and of networks. */
void facnet_close(struct facnet *n);
/* Networks are closed and opened anew, as by another process; the factory too. No VM may be left in it. */
void facnet_reopen(struct facnet *n);
/* That many slots are taken, and none is half made. */
void facnet_expect_taken(struct facnet *n, int taken, const char *when);
struct vf_nets_counts facnet_counts(struct facnet *n);

/* QEMU and the tiny guest under KVM, or the VMM in memory; with that mode. */
struct vf_spec facnet_tiny(const char *name, enum vf_network_mode mode);
struct vf_spec facnet_null(const char *name, enum vf_network_mode mode);
/* Resolvers, NULL-ended. */
void facnet_add_dns(struct vf_spec *spec, const char *const *dns);
#define FACNET_KVM_OR_SKIP(suite, name)                          \
    do {                                                         \
        const char *missing_ = fac_missing(false, VF_ACCEL_KVM); \
        if (missing_)                                            \
            sup_skip(suite, name, "%s", missing_);               \
    } while (0)

/* Whether the process is in the namespace of that path. */
bool facnet_is_in(pid_t pid, const char *netns);
pid_t facnet_pid(struct vf_instance *vm);
struct vf_instance_network facnet_of(struct vf_instance *vm);
/* The number of the slot that the VM is in; it must be in one. */
int facnet_number(struct vf_instance *vm);

/* What a callback was told, once. */
struct facnet_done {
    int calls;
    struct vf_instance *vm;
    struct vf_error err; /* code VF_OK: none */
};
void facnet_on_done(void *arg, const struct vf_error *err);
void facnet_on_vm(void *arg, struct vf_instance *vm, const struct vf_error *err);
void facnet_wait(struct facnet *n, struct facnet_done *d);
/* Asks and waits for what is said. */
void facnet_publish(struct facnet *n, struct vf_instance *vm, const struct vf_port *ports,
                    int n_ports, struct facnet_done *ret);
/* The same, which must be granted. */
void facnet_must_publish(struct facnet *n, struct vf_instance *vm, const struct vf_port *port);
struct vf_net_stats facnet_traffic(struct facnet *n, struct vf_instance *vm);

#endif

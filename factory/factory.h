/* The factory: builds templates, makes clones of them, cold-boots without one. Everything is
 * asynchronous on one loop; submit contract as in base/async.h.
 *
 *     build:  (fetch ->) boot -> renew, plant a nonce -> warm-up -> freeze -> pause -> save -> kill
 *             -> seal the memory -> store -> two trial clones -> ready
 *     clone:  VMM up -> restore -> resume -> prove and renew -> ready
 *     cold:   VMM up -> start -> the guest's agent answers -> renew -> ready
 *
 * Whatever fails half-way is destroyed, process, sockets and files, before its callback comes. A VM
 * that could not prove what it is and that it took fresh entropy is never handed out.
 */
#ifndef VF_FACTORY_FACTORY_H
#define VF_FACTORY_FACTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>
#include "base/async.h"
#include "base/error.h"
#include "base/vm_types.h"
#include "net/networks.h"
#include "templates/generation.h"
#include "templates/registry.h"
#include "templates/spec.h"
#include "templates/store.h"

struct vf_instance;
struct vf_factory_config {
    const char *run_dir;    /* a directory per VM is made here; made if missing; swept at open if
                                  die_with_parent and nobody else uses it */
    struct vf_store *store; /* for builds; stays the caller's */
    struct vf_registry *registry;  /* referenced; NULL: the built-in classes, with binaries */
    struct vf_asset_store *assets; /* of what classes pin; stays the caller's; may be NULL */
    struct vf_networks *networks;  /* stays the caller's; NULL: VMs have none, or bring theirs */
    const char *binaries[VF_SPEC_VMM_COUNT]; /* absolute; NULL: the VMM's usual program on PATH */
    bool die_with_parent;      /* VMMs end with this process (tools); a daemon's outlive it */
    enum vf_accel auto_accel;  /* what `accel: auto` means; VF_ACCEL_AUTO: find out */
    int64_t answer_timeout_ms; /* for each answer of a restored guest; 0: 10000 */
    int64_t create_timeout_ms; /* for the VMM to come up; 0: the driver's default */
    int trial_clones;          /* proved before a build is ready; < 0: none, 0: 2 */
    /* Told before each step of a VM, but not of a build's: its directory exists by then, its process may not yet. For
     * a journal; a failure ends the VM. Before the first step of park, wake and bring a failure is returned instead,
     * and the VM stays as it was. May be NULL. */
    int (*on_step)(void *arg, struct vf_instance *vm, const char *stage, struct vf_error *err);
    void *on_step_arg;
    /* Told what a VM with a slot has sent and received, all in all, before the last callback of its destruction. Not
     * of builds. May be NULL. */
    void (*on_traffic)(void *arg, struct vf_instance *vm, const struct vf_net_stats *total);
    void *on_traffic_arg;
};

struct vf_factory;
int vf_factory_open(uv_loop_t *loop, const struct vf_factory_config *cfg,
                    struct vf_factory **ret_factory, struct vf_error *err);
/* Destroys every VM and cancels every build, then calls done and is no more. If there is nothing to destroy,
 * done is called before this returns. */
void vf_factory_close(struct vf_factory *f, void (*done)(void *arg), void *arg);
/* For answers waited for from now on; 0: 10000. */
void vf_factory_set_answer_timeout(struct vf_factory *f, int64_t timeout_ms);
/* For builds and cold boots from now on; what runs or is stored keeps what it has. Referenced. */
void vf_factory_set_registry(struct vf_factory *f, struct vf_registry *registry);
/* Fills in what the spec leaves to its class, as the classes are now: vf_registry_settle. */
int vf_factory_settle(const struct vf_factory *f, struct vf_spec *spec, struct vf_error *err);
/* The host's program for a VMM, of classes that pin none; NULL: there is none. */
const char *vf_factory_binary(const struct vf_factory *f, enum vf_spec_vmm vmm);

/* --- VMs */
enum vf_source { VF_SOURCE_CLONE, VF_SOURCE_COLD, VF_SOURCE_BUILD };
extern const char *const vf_source_names[]; /* "clone", "cold", "build" */

#define VF_MAX_STAGES 16
struct vf_stage {
    const char *name;
    int64_t us;
};

/* What a VM proved before it was handed out. */
struct vf_proof {
    int64_t generation;      /* 0: cold boot */
    bool nonce_matched;      /* it returned what only the template's RAM held (clones) */
    char nonce[65];          /* hex; empty for a cold boot */
    char boot_id[33];        /* hex */
    char entropy_sha256[65]; /* of the fresh entropy, as the guest saw it arrive */
    char sample[33];         /* 16 bytes the guest drew after the reseed; no other VM drew them */
    int64_t clock_offset_us; /* guest clock minus host clock at the guest's answer */
    char machine_id[33], hostname[64],
        mac[18]; /* as read back in the guest; mac empty without a NIC */
};

/* What the caller wants of a VM; NULL and zeros: chosen at random. */
struct vf_vm_options {
    const char *hostname; /* at most 63 characters */
    /* The rest is for the mode external alone. A tap by its name in netns (NULL: in our own namespace), where the VMM
     * then runs, or as descriptors, one for each queue pair, which stay the caller's. Without any, the NIC leads
     * nowhere, if the VMM can have such, and the template was not built with a tap. */
    const char *netns; /* absolute path, like /run/netns/x; copied */
    const char *tap;
    const int *tap_fds;
    int n_tap_fds;
    bool has_mac, has_ipv4, has_ipv6; /* what the guest is told; else as its template was */
    uint8_t mac[6], ipv4[4], prefix_len, gateway[4]; /* gateway all zero: none */
    uint8_t ipv6[16], prefix6_len, gateway6[16];
};

/* Exactly one of vm and err is set. The VM is the caller's until vf_instance_destroy. */
typedef void (*vf_instance_cb)(void *arg, struct vf_instance *vm, const struct vf_error *err);
/* A VM that was handed out died by itself, or its agent's channel broke. It still has to be destroyed. */
typedef void (*vf_death_cb)(void *arg, struct vf_instance *vm, const struct vf_error *why);

/* Refused with VF_CONFLICT if what the generation was verified with has changed since. The generation
 * is referenced until the VM is destroyed. ret_vm, if given, allows vf_instance_destroy meanwhile: done then
 * comes with VF_CANCELLED. */
int vf_factory_clone(struct vf_factory *f, struct vf_generation *gen, const struct vf_vm_options *o,
                     vf_instance_cb done, void *arg, struct vf_instance **ret_vm,
                     struct vf_error *err);
int vf_factory_cold(struct vf_factory *f, const struct vf_spec *spec, const struct vf_vm_options *o,
                    vf_instance_cb done, void *arg, struct vf_instance **ret_vm,
                    struct vf_error *err);
/* From any state. done (may be NULL) comes when no process, descriptor or file of it is left. */
void vf_instance_destroy(struct vf_instance *vm, void (*done)(void *arg), void *arg);
/* Pauses a ready VM: it takes no CPU until it is woken. On failure it is destroyed before done is called. */
int vf_instance_park(struct vf_instance *vm, vf_instance_cb done, void *arg, struct vf_error *err);
/* Resumes a parked VM and renews it: fresh entropy, the time, its identity, each proved again. Likewise. */
int vf_instance_wake(struct vf_instance *vm, vf_instance_cb done, void *arg, struct vf_error *err);
/* A clone's VMM, up and empty, that waits for vf_instance_bring. Bound to gen, because the memory is named when the
 * VMM starts. */
int vf_factory_standby(struct vf_factory *f, struct vf_generation *gen,
                       const struct vf_vm_options *o, vf_instance_cb done, void *arg,
                       struct vf_instance **ret_vm, struct vf_error *err);
/* Restores, resumes and proves what waits in a standby VMM. On failure it is destroyed before done is called. */
int vf_instance_bring(struct vf_instance *vm, vf_instance_cb done, void *arg, struct vf_error *err);
/* Asks the guest's agent for a sign of life; done comes with its error if there is none, and the VM stays. */
int vf_instance_ping(struct vf_instance *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                     struct vf_error *err);

/* --- VMs that an earlier process of ours left running */
/* What its journal knows of a VM. All is copied. */
struct vf_adopt {
    const char *id; /* its directory's name in the run directory */
    enum vf_source source;
    const struct vf_spec *spec;
    struct vf_generation *gen; /* referenced; NULL: not loaded, or a cold boot */
    const struct vf_proof
        *proof;        /* as it was; nonce and boot id are what a clone must return again */
    int network;       /* its slot's number, -1: none */
    const char *netns; /* of the mode external; NULL: none */
    bool
        verify; /* true: resume it if it is paused, prove and renew it again (a parked VM); false: reconnect, ask
                    the agent for a hello and change nothing; a guest that does not answer is adopted all the same */
};
/* Finds the process by what the launcher wrote into the directory (pid and start time), and connects to its sockets.
 * VF_NOT_FOUND: the process is gone; VF_UNSUPPORTED: VMs of this driver don't outlive their process. On failure with
 * done, the VM is destroyed, process and directory, before it is called; if this returns an error nothing was touched. */
int vf_factory_adopt(struct vf_factory *f, const struct vf_adopt *a, vf_instance_cb done, void *arg,
                     struct vf_instance **ret_vm, struct vf_error *err);
/* Kills whatever process the directory id names, waits for its end and removes the directory. */
int vf_factory_discard(struct vf_factory *f, const char *id, vf_done_cb done, void *arg,
                       struct vf_error *err);
/* Lets go of a VM that is ready, or being adopted: handles are closed, process and directory stay for whoever adopts
 * it. Any other is destroyed, and all whose driver or factory (die_with_parent) has VMs end with this process. */
void vf_instance_detach(struct vf_instance *vm, void (*done)(void *arg), void *arg);

/* Once. At once, before this returns, if it has died since it was handed out. */
void vf_instance_on_death(struct vf_instance *vm, vf_death_cb cb, void *arg);

struct vf_agent;
struct vf_vm;
const char *vf_instance_id(const struct vf_instance *vm);
enum vf_source vf_instance_source(const struct vf_instance *vm);
/* The runtime class that it was restored or booted with; NULL: not known any more. */
const char *vf_instance_class(const struct vf_instance *vm);
const struct vf_proof *vf_instance_proof(const struct vf_instance *vm);
/* The stages in order; *ret_n of them. */
const struct vf_stage *vf_instance_stages(const struct vf_instance *vm, int *ret_n);
struct vf_agent *vf_instance_agent(struct vf_instance *vm);
struct vf_vm *vf_instance_vm(struct vf_instance *vm);
/* The absolute path of the VM's own directory, where agent.sock lies. */
const char *vf_instance_dir(const struct vf_instance *vm);
/* What it runs, with all that its class decided. */
const struct vf_spec *vf_instance_spec(const struct vf_instance *vm);

/* --- a VM's network */
/* All that can be said about a spec's network without making one; each bad address with its field. */
int vf_network_check(const struct vf_spec *spec, struct vf_error *err);
/* Of the slots that VMs of a settled spec are in, whatever its mode: for vf_networks_want. */
int vf_network_shape(const struct vf_spec *spec, struct vf_net_shape *ret, struct vf_error *err);
struct vf_instance_network {
    enum vf_network_mode mode;
    int number;                  /* of its slot, for the journal; -1: none */
    const char *netns;           /* path of the namespace that it is in; NULL: ours */
    const char *interface;       /* of this host, that leads to the slot; NULL: none */
    struct vf_ip host4, host6;   /* where this host reaches the guest; family 0: nowhere */
    const struct vf_port *ports; /* of this host that lead to the guest, as published */
    int n_ports;
};
/* Pointers are valid until the VM changes. */
void vf_instance_network(const struct vf_instance *vm, struct vf_instance_network *ret);
/* Opens ports of this host for a ready VM's lease; instead of those of an earlier call. VF_CONFLICT: one is in use. */
int vf_instance_publish(struct vf_instance *vm, const struct vf_port *ports, int n_ports,
                        vf_done_cb done, void *arg, struct vf_error *err);
/* Since the VM was begun; *ret is written before done is called without an error. VF_NOT_FOUND: it has no slot. */
int vf_instance_traffic(struct vf_instance *vm, struct vf_net_stats *ret, vf_done_cb done,
                        void *arg, struct vf_error *err);

/* --- templates */
/* Exactly one of gen and err is set; gen carries a reference for this callback's owner. */
typedef void (*vf_build_cb)(void *arg, struct vf_generation *gen, const struct vf_error *err);
/* Told at the start of each stage of a build ("boot", "save", …). */
typedef void (*vf_build_stage_cb)(void *arg, const char *stage);
struct vf_build_request;
/* Builds a generation; what its class pins and is not in the store is fetched first (nothing else fetches). A second request for the same template while one is being built waits for that one
 * (same spec) or is refused with VF_CONFLICT (another spec). */
int vf_factory_build(struct vf_factory *f, const struct vf_spec *spec, vf_build_stage_cb stage,
                     vf_build_cb done, void *arg, struct vf_build_request **ret_req,
                     struct vf_error *err);
/* Withdraws one request: done comes with VF_CANCELLED. The build itself ends when nobody waits. */
void vf_build_cancel(struct vf_build_request *req);
/* Loads a stored generation (0: the newest usable) in a worker thread. */
int vf_factory_load(struct vf_factory *f, const char *name, int64_t number, vf_build_cb done,
                    void *arg, struct vf_error *err);

#endif

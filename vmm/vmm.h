/* The primitives: one VM, one VMM process, and what can be done to it.
 *
 *     create -> start ------------------> running <-> paused -> save
 *     create (incoming) -> restore -> paused -> resume -> running
 *     adopt -> running or paused
 *     any state -> stop -> gone
 *     running or paused -> detach -> gone, but its process goes on
 *
 * The primitives know nothing of templates: memory is a descriptor with a size, shared or private,
 * and the caller decides. All are asynchronous on the caller's loop, with a deadline each, one at
 * a time per VM (another is refused with VF_CONFLICT; stop is always accepted and ends the one under
 * way with VF_CANCELLED). Submit contract as in base/async.h.
 *
 * When the VMM's process ends unasked, the operation under way fails with VF_VMM_DIED, then the
 * event VF_VM_EXITED comes. After a failure other than VF_CONFLICT and VF_INVALID_ARGUMENT the only
 * thing to do with a VM is stop.
 */
#ifndef VF_VMM_VMM_H
#define VF_VMM_VMM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>
#include "base/async.h"
#include "base/error.h"
#include "base/vm_types.h"

struct vf_vm_disk {
    const char *path;   /* absolute; the image the guest writes to, or reads */
    const char *format; /* "raw" or "qcow2" */
    bool readonly;
    const char
        *backing; /* for qcow2: absolute path, overrides what the image's header says; or NULL */
    const char *backing_format;
    const char
        *backing2; /* the backing's backing (a template's overlay stands on a raw base); or NULL */
    const char *backing2_format;
};

#define VF_VM_MAX_QUEUE_PAIRS 8

struct vf_vm_nic {
    const char *tap; /* name of an existing tap device; NULL: fds, or no backend at all */
    bool tap_owned;  /* by the VMM's user, so that it needs no privilege to open it by its name */
    int fds[VF_VM_MAX_QUEUE_PAIRS]; /* an open tap descriptor for each queue pair */
    int n_fds;
    uint8_t mac[6]; /* in a clone it is what the template had, unless the guest changes it */
    int mtu; /* told to the guest's driver where the VMM can; 0: not. As the template's in a clone */
};

/* How a restore gets at memory that the save itself holds (not at shared memory, which it leaves out). */
enum vf_restore_mode {
    VF_RESTORE_COPY,
    VF_RESTORE_ON_DEMAND /* page by page as the guest touches it (userfaultfd) */
};

#define VF_VM_MAX_DISKS 4
#define VF_VM_MAX_NICS 2

/* All of it is copied by create; descriptors are duplicated. */
struct vf_vm_config {
    const char *id;     /* for logs and process titles */
    int dirfd;          /* the VM's own directory: sockets are made there */
    const char *binary; /* absolute path of the VMM's executable; ignored by null */
    enum vf_machine machine;
    enum vf_accel accel;  /* AUTO is resolved by create */
    int vcpus;            /* 1..64 */
    uint64_t memory_size; /* bytes, a multiple of 1 MiB */
    int memory_fd;      /* memfd or file of that size; see vf_vmm_caps for what a template needs */
    bool memory_shared; /* true: writes go to memory_fd (a template); false: copy-on-write */
    bool incoming;      /* wait for restore instead of booting */
    const char *kernel, *initrd, *cmdline; /* NULL: none. Not needed with incoming */
    struct vf_vm_disk disks[VF_VM_MAX_DISKS];
    int n_disks;
    struct vf_vm_nic nics[VF_VM_MAX_NICS];
    int n_nics;
    bool
        taps_checked; /* the descriptors are known to be queues of taps: to ask them waits for the kernel's lock of all
                          networks, tens of ms while others go */
    bool
        has_netns; /* the VMM runs in this network namespace, and finds taps by their names there */
    int netns_fd;
    enum vf_channel channel; /* where the agent talks; vf_vm_link_of says how it is reached */
    enum vf_restore_mode restore_mode;
    bool
        prefault; /* populate all memory at the start: boots only, it would end a clone's sharing */
    bool mergeable; /* let the kernel merge equal pages (KSM): boots only, likewise */
    bool console;   /* keep the last of the serial console for error messages; not with
                                VF_CHANNEL_SERIAL, and not worth its cost in a clone */
    bool balloon;
    bool no_sandbox;      /* run it without its own sandbox (seccomp) */
    bool die_with_parent; /* the VMM is killed when the calling thread ends, however it ends */
    int64_t create_timeout_ms;
};

/* A VM that an earlier process has created. All of it is copied; dirfd is duplicated. */
struct vf_vm_adopt {
    const char *id;
    int dirfd;            /* the VM's own directory, with the sockets that create made */
    pid_t pid;            /* by number and start time: vmm/process.h */
    uint64_t start_ticks; /* of the host's clock */
    enum vf_accel accel;  /* as it was created */
    uint64_t memory_size;
    bool balloon;
};

enum vf_vm_state {
    VF_VM_NEW, /* neither create nor adopt was called */
    VF_VM_CREATING,
    VF_VM_CREATED, /* the VMM is up and answers; no guest has run */
    VF_VM_RUNNING,
    VF_VM_PAUSED,
    VF_VM_DEAD, /* the process ended unasked, or an operation failed: only stop is left */
    VF_VM_STOPPING,
    VF_VM_GONE /* no process is left */
};
const char *vf_vm_state_name(enum vf_vm_state s);

enum vf_vm_event_type {
    VF_VM_EVENT_PAUSED,
    VF_VM_EVENT_RESUMED,
    VF_VM_EVENT_GUEST_SHUTDOWN, /* the guest asked for power off or reset */
    VF_VM_EVENT_GUEST_PANICKED,
    VF_VM_EVENT_FAILED, /* the VMM can't go on (KVM internal error, I/O error); detail says */
    VF_VM_EVENT_EXITED  /* the process is gone, unasked; detail: how. Comes last, once */
};
struct vf_vm_event {
    enum vf_vm_event_type type;
    const char *detail; /* valid during the call */
};
typedef void (*vf_vm_event_cb)(void *arg, const struct vf_vm_event *ev);

struct vf_vm_info {
    enum vf_vm_state state;
    pid_t pid;           /* 0: none */
    char version[32];    /* "7.2.22"; empty before create has ended */
    enum vf_accel accel; /* KVM or TCG */
    uint64_t memory_size;
    uint64_t balloon_actual; /* bytes the guest has now; 0 without a balloon */
    int64_t process_us,
        connect_us; /* how long create took to start the process; until it answered */
};

/* How the agent's channel is reached, in the VM's directory. */
enum vf_link {
    VF_LINK_SOCKET, /* the unix socket VF_LINK_SOCKET_NAME is the channel */
    VF_LINK_VSOCK, /* the unix socket VF_LINK_VSOCK_NAME takes "CONNECT port\n" and answers "OK n\n" */
    VF_LINK_FIFOS /* two FIFOs, one to the guest and one from it */
};
#define VF_LINK_SOCKET_NAME "agent.sock"
#define VF_LINK_VSOCK_NAME "vsock.sock"
#define VF_LINK_FIFO_IN_NAME "agent.in"   /* the guest reads what is written here */
#define VF_LINK_FIFO_OUT_NAME "agent.out" /* what the guest has said */

struct vf_vmm_caps {
    bool save; /* save and restore */
    /* save leaves memory alone if it is shared. Else the guest does not run in memory_fd: save writes all of its
     * memory there. */
    bool shared_memory_save;
    bool linked_memory; /* that is so only if memory_fd is a file that has a name */
    bool balloon;
    bool console;
    bool standby;     /* create(incoming) can wait, unbound in time, for restore */
    bool park_paused; /* a restored VM may wait paused and be resumed later */
    bool channel_virtio_serial, channel_serial, channel_vsock;
    bool
        early_channel; /* it can be connected once create is done; else, and any vsock, once start or restore is */
    bool serial_fifos; /* the serial channel is a pair of FIFOs, not a socket */
    bool kvm, tcg;
    bool qcow2;     /* disks may be qcow2, with a backing file */
    bool nic_fds;   /* a NIC may be given as descriptors, also in a clone */
    int nic_queues; /* most queue pairs of a NIC */
    bool nic_bare;  /* a NIC may have no tap at all */
    bool on_demand; /* VF_RESTORE_ON_DEMAND, where the save has memory of its own */
    bool prefault, mergeable;
    bool adopt; /* its VMs outlive the process that created them, and another can adopt them */
};

struct vf_vm; /* opaque to callers; drivers embed it, see vmm/driver.h */

struct vf_vmm_ops {
    const char *name;               /* "qemu", "cloud-hypervisor", "firecracker", "null" */
    const char *const *state_files; /* what save writes into dirfd for shared memory, NULL-ended */
    /* What the VMM can do; version NULL: the newest known. */
    void (*capabilities)(const char *version, struct vf_vmm_caps *ret_caps);
    int (*alloc)(uv_loop_t *loop, struct vf_vm **ret_vm, struct vf_error *err);
    int (*create)(struct vf_vm *vm, const struct vf_vm_config *cfg, struct vf_error *err);
    /* NULL where the capability says that there is none. Sets info.state before it is done. */
    int (*adopt)(struct vf_vm *vm, const struct vf_vm_adopt *a, struct vf_error *err);
    int (*start)(struct vf_vm *vm, struct vf_error *err);
    int (*pause)(struct vf_vm *vm, struct vf_error *err);
    int (*save)(struct vf_vm *vm, int dirfd, struct vf_error *err);
    int (*restore)(struct vf_vm *vm, int dirfd, struct vf_error *err);
    int (*resume)(struct vf_vm *vm, struct vf_error *err);
    int (*balloon)(struct vf_vm *vm, uint64_t target, struct vf_error *err);
    int (*info)(struct vf_vm *vm, struct vf_error *err);
    /* Begins the end: graceful asks the VMM to quit first, else it is killed. */
    void (*stop)(struct vf_vm *vm, bool graceful);
    /* Closes its handles, and leaves process and sockets alone; NULL as adopt. */
    void (*detach)(struct vf_vm *vm);
    void (*free)(struct vf_vm *vm);
};

/* The driver called name, or NULL; vf_vmm_names lists them, NULL-ended. */
const struct vf_vmm_ops *vf_vmm_find(const char *name);
extern const char *const vf_vmm_names[];
/* The accelerator AUTO stands for here: KVM where /dev/kvm opens and /proc/cpuinfo shows vmx or svm
 * (a nested KVM without them can't run Linux) or the VMM knows nothing else, else TCG. */
enum vf_accel vf_accel_resolve(const struct vf_vmm_ops *ops, enum vf_accel accel);
/* channel: not VF_CHANNEL_NONE. */
enum vf_link vf_vm_link_of(const struct vf_vmm_ops *ops, enum vf_channel channel);

/* --- what callers use. timeout_ms <= 0: the operation's default. */
int vf_vm_new(uv_loop_t *loop, const struct vf_vmm_ops *ops, vf_vm_event_cb on_event, void *arg,
              struct vf_vm **ret_vm, struct vf_error *err);
/* Starts the VMM; done when it answers. cfg->create_timeout_ms is the deadline. */
int vf_vm_create(struct vf_vm *vm, const struct vf_vm_config *cfg, vf_done_cb done, void *arg,
                 struct vf_error *err);
/* Connects to a VMM that runs already; done when it has told its state: running or paused, else it is a
 * failure. VF_NOT_FOUND: the process has ended; VF_UNSUPPORTED: see vf_vmm_caps. */
int vf_vm_adopt(struct vf_vm *vm, const struct vf_vm_adopt *a, int64_t timeout_ms, vf_done_cb done,
                void *arg, struct vf_error *err);
int vf_vm_start(struct vf_vm *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                struct vf_error *err);
int vf_vm_pause(struct vf_vm *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                struct vf_error *err);
/* Writes the device state of a paused VM into dirfd (empty of the driver's file names: an existing one
 * is VF_CONFLICT). Once saved, it must have run before it is saved again. */
int vf_vm_save(struct vf_vm *vm, int dirfd, int64_t timeout_ms, vf_done_cb done, void *arg,
               struct vf_error *err);
int vf_vm_restore(struct vf_vm *vm, int dirfd, int64_t timeout_ms, vf_done_cb done, void *arg,
                  struct vf_error *err);
int vf_vm_resume(struct vf_vm *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                 struct vf_error *err);
/* target: bytes the guest shall keep. Done when the VMM took it, not when the guest obeyed. */
int vf_vm_balloon(struct vf_vm *vm, uint64_t target, int64_t timeout_ms, vf_done_cb done, void *arg,
                  struct vf_error *err);
/* Asks the VMM; the answer is in *vf_vm_info_of(vm) when done is called. */
int vf_vm_query(struct vf_vm *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                struct vf_error *err);
/* What is known without asking. */
const struct vf_vm_info *vf_vm_info_of(const struct vf_vm *vm);
/* Ends the VM from any state: an operation under way ends with VF_CANCELLED, then (graceful: after
 * quit was tried for grace_ms) the process is killed and reaped, then done is called. Never fails. A second call
 * is refused with VF_CONFLICT. No event comes once it was called. The sockets it made are removed. */
int vf_vm_stop(struct vf_vm *vm, int64_t grace_ms, vf_done_cb done, void *arg,
               struct vf_error *err);
/* Lets go of the VM: as stop, but its process and its sockets stay for whoever adopts it. */
int vf_vm_detach(struct vf_vm *vm, vf_done_cb done, void *arg, struct vf_error *err);
/* Withdraws the operation under way: it ends with VF_CANCELLED. No-op if there is none. */
void vf_vm_cancel(struct vf_vm *vm);
/* Frees a VM that is NEW or GONE (asserted); after create was called, even if it failed, stop comes
 * first. NULL is fine. Not from within the VM's own callbacks, but for that of stop. */
void vf_vm_free(struct vf_vm *vm);
/* The last of the console, or of the VMM's stderr, NUL-terminated and cleaned of control characters;
 * empty if there is none. For messages. */
const char *vf_vm_last_words(struct vf_vm *vm);
/* Puts the end of them, or what a Linux kernel said as it panicked, into err's hint. */
void vf_vm_hint_last_words(struct vf_vm *vm, struct vf_error *err);

#endif

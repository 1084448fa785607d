/* The Firecracker driver's own parts: firecracker.c (life cycle), firecracker_files.c (what it makes in the VM's
 * directory), firecracker_setup.c (the requests before a boot), firecracker_snapshot.c (save and restore),
 * firecracker_adopt.c (one that runs already), firecracker_ask.c (one request, and what can come of it).
 * Firecracker 1.4 and later, on KVM.
 */
#ifndef VF_VMM_FIRECRACKER_H
#define VF_VMM_FIRECRACKER_H

#include "vmm/driver.h"
#include "vmm/http.h"
#include "vmm/pipe.h"
#include "vmm/process.h"

#define VF_FIRECRACKER_API_NAME "api.sock"
#define VF_FIRECRACKER_STATE_FILE "state" /* what a save writes */
/* The template's memory, as Firecracker finds it: the one descriptor it inherits. */
#define VF_FIRECRACKER_MEMORY_PATH "/proc/self/fd/3"

/* What lies in the VM's directory, as bits of vf_firecracker.files. Firecracker runs there, and every path it is told
 * is relative to it, so that a saved state names files that each clone has in its own directory. */
enum vf_firecracker_file {
    VF_FIRECRACKER_RECORD,
    VF_FIRECRACKER_API,
    VF_FIRECRACKER_FIFO_IN,
    VF_FIRECRACKER_FIFO_OUT,
    VF_FIRECRACKER_VSOCK,
    VF_FIRECRACKER_DISK, /* a symlink to the image, one a disk */
    VF_FIRECRACKER_FILE_COUNT = VF_FIRECRACKER_DISK + VF_VM_MAX_DISKS
};
extern const char *const vf_firecracker_file_names[];

struct vf_firecracker_request {
    const char *method;
    char path[40];
    char *body; /* owned; NULL: none */
};
struct vf_firecracker_nic {
    char tap[16];
    uint8_t mac[6];
    int mtu;
    struct vf_firecracker_request *request; /* of the set-up; NULL: none */
};
/* Machine, kernel, vsock, entropy, balloon, disks and NICs. */
#define VF_FIRECRACKER_MAX_SETUP (5 + VF_VM_MAX_DISKS + VF_VM_MAX_NICS)

struct vf_firecracker;
typedef void (*vf_firecracker_cb)(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                                  const struct vf_error *err);

struct vf_firecracker {
    struct vf_vm vm; /* first */
    struct vf_process process;
    struct vf_vmm_http *http;
    vf_firecracker_cb on_reply; /* of the request under way; NULL: none is */

    uv_fs_event_t watch; /* of the VM's directory, until the socket is there */
    bool watching;
    uv_timer_t
        wait; /* until the socket is asked again; for the end of a VMM that has closed, or ended */
    bool wait_open;
    int attempts; /* to reach a socket that was there already */

    struct vf_vmm_pipe output; /* its log, its stderr, and the console if it is to be kept */

    int version; /* major * 1000000 + minor * 1000 + patch */
    struct vf_firecracker_request setup[VF_FIRECRACKER_MAX_SETUP];
    int n_setup, next_setup;
    struct vf_firecracker_nic nics[VF_VM_MAX_NICS];
    int n_nics;
    bool vsock, balloon;
    int memory_fd; /* of a template: where a save writes; -1: nowhere */

    struct vf_error refusal; /* of a pause or resume, until it is known whether it was one */
    int save_dirfd; /* of the save under way, whose state file goes if it fails; -1: none */
    bool sparse;    /* it leaves out what the guest has never touched */

    int64_t launched_us;
    bool launched;
    bool ended; /* the process has, but the front is not told yet */
    bool ended_by_guest;
    char ended_how[96];
    int dirfd; /* the VM's directory; -1: not created */
    unsigned files;
};

#define VF_FIRECRACKER_VERSION(major, minor, patch) ((major)*1000000 + (minor)*1000 + (patch))
/* -1 if text is none. */
int vf_firecracker_version(const char *text);

/* --- firecracker_ask.c
 * One request at a time. cb comes later, unless the VM is being closed or the connection was lost: that is
 * reported as the process's end or, if it lives on, as a failure, without cb. */
int vf_firecracker_ask(struct vf_firecracker *f, const char *method, const char *path,
                       const char *body, vf_firecracker_cb cb, struct vf_error *err);
/* The same where nobody can be told but the operation under way. */
void vf_firecracker_go_on(struct vf_firecracker *f, const char *method, const char *path,
                          const char *body, vf_firecracker_cb cb);
/* The process has ended: tells the front once no answer of it can come any more. */
void vf_firecracker_ended(struct vf_firecracker *f, const struct vf_exit *how);
/* Tells it now. */
void vf_firecracker_report_end(struct vf_firecracker *f);
/* Watches for the socket; then asks for the version and runs the set-up. */
int vf_firecracker_watch(struct vf_firecracker *f, struct vf_error *err);

/* --- firecracker_files.c */
struct vf_firecracker_pieces {
    int record, input, output; /* for the process; -1: none */
};
int vf_firecracker_make_files(struct vf_firecracker *f, const struct vf_vm_config *c,
                              struct vf_firecracker_pieces *p, struct vf_error *err);
void vf_firecracker_remove_files(struct vf_firecracker *f);

/* --- firecracker_setup.c */
/* Checks c and fills f->setup (nothing for one to be restored). */
int vf_firecracker_prepare(struct vf_firecracker *f, const struct vf_vm_config *c,
                           struct vf_error *err);
/* The version is known: what it knows more of is told. */
int vf_firecracker_fit_setup(struct vf_firecracker *f, struct vf_error *err);
void vf_firecracker_forget_setup(struct vf_firecracker *f);
/* The body of PUT /snapshot/load; malloc'd, NULL without memory. */
char *vf_firecracker_load_body(const struct vf_firecracker *f, const char *state_path);
/* What this version can't do for the VM at hand is refused. */
int vf_firecracker_check_version(const struct vf_firecracker *f, struct vf_error *err);

/* --- firecracker_snapshot.c, firecracker_adopt.c */
int vf_firecracker_save(struct vf_vm *vm, int dirfd, struct vf_error *err);
int vf_firecracker_restore(struct vf_vm *vm, int dirfd, struct vf_error *err);
void vf_firecracker_drop_save(struct vf_firecracker *f);
int vf_firecracker_adopt(struct vf_vm *vm, const struct vf_vm_adopt *a, struct vf_error *err);

/* --- firecracker.c: watches the process and what it says; takes output over, also on failure (-1: none). */
int vf_firecracker_open_handles(struct vf_firecracker *f, int output, struct vf_error *err);

#endif

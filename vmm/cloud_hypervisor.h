/* The Cloud Hypervisor driver's own parts: cloud_hypervisor.c (life cycle), cloud_hypervisor_adopt.c (one that runs
 * already), cloud_hypervisor_save.c and cloud_hypervisor_restore.c, cloud_hypervisor_config.c (what it is asked for,
 * as JSON), cloud_hypervisor_patch.c (a saved config made a clone's), cloud_hypervisor_events.c (its event monitor).
 *
 * Cloud Hypervisor runs with the VM's directory as its working directory, so that sockets go by their bare names
 * (sun_path holds 108 bytes). v51 and later: before, a clone's VMM opened template memory for writing, and the kind of
 * a disk's image could not be told, so that a guest could turn its raw disk into one that names any file of the host. */
#ifndef VF_VMM_CLOUD_HYPERVISOR_H
#define VF_VMM_CLOUD_HYPERVISOR_H

#include "vmm/driver.h"
#include "vmm/http.h"
#include "vmm/pipe.h"
#include "vmm/process.h"

#define VF_CH_MIN_MAJOR 51
#define VF_CH_ON_DEMAND_MAJOR 52

/* The descriptors it inherits, in this order. */
enum vf_ch_fd { VF_CH_FD_API = VF_LAUNCH_FIRST_FD, VF_CH_FD_EVENTS, VF_CH_FD_MEMORY };

/* What lies in the VM's directory, as bits of vf_ch.files. The sockets of guest and vsock it makes itself. */
enum vf_ch_file {
    VF_CH_API_SOCKET,
    VF_CH_AGENT_SOCKET,
    VF_CH_VSOCK_SOCKET,
    VF_CH_EVENTS,
    VF_CH_RECORD,
    VF_CH_FILE_COUNT
};
extern const char *const vf_ch_file_names[];
#define VF_CH_RESTORE_DIR "restore" /* a clone's config and state, while it is restored */

/* The files of a saved VM. */
#define VF_CH_CONFIG "config.json"
#define VF_CH_STATE "state.json"
#define VF_CH_MEMORY "memory-ranges" /* only if its memory is not shared */

#define VF_CH_MAX_CONFIG (1 << 20) /* bytes of a saved config */

#define VF_CH_MAX_EVENT 4096

struct vf_ch {
    struct vf_vm vm; /* first */
    struct vf_process process;
    struct vf_vmm_http *http;
    struct vf_vmm_pipe output, events;
    char event[VF_CH_MAX_EVENT]; /* one that is not whole yet */
    size_t event_len;
    bool event_skip; /* up to its end: it is too long, or its beginning was lost */
    struct vf_vm_config
        cfg; /* strings and NICs' descriptors are its own; its other descriptors are -1 */
    int64_t launched_us;
    bool launched, adopted, has_cfg, quit_asked;
    bool linked;             /* its memory is a file with a name */
    struct vf_error refusal; /* of a pause or resume, until vm.info has told what it means */
    int next_nic;            /* of those that go by descriptor: the next to be added */
    int dirfd;               /* the VM's directory; -1: not created */
    unsigned files;          /* which of its files are there to be removed, bits */
    int save_fd;             /* where a save under way leaves its files; -1: none */
    int work_fd;             /* the directory that it, or a restore, works in; -1: none */
};

/* Sends PUT (body may be NULL) or, with get, GET; fds may be NULL. */
int vf_ch_send(struct vf_ch *c, bool get, const char *name, const char *body, const int *fds,
               int n_fds, vf_vmm_http_cb cb, struct vf_error *err);
/* Ends the operation under way. An error that only says that the connection is gone is held back: the process's end,
 * or that it lives on, says more. */
void vf_ch_op_done(struct vf_ch *c, const struct vf_error *err);
/* For a callback: true if op is not under way any more, or err has ended it. */
bool vf_ch_ended(struct vf_ch *c, enum vf_vm_op op, const struct vf_error *err);
/* The beginning of its version; 0 if unknown. */
int vf_ch_major(const struct vf_ch *c);
/* Opens the client, watches the process and what it says; takes the descriptors over, also on failure; either may be
 * -1. */
int vf_ch_open_handles(struct vf_ch *c, int output, int events, struct vf_error *err);
/* Takes version and, in info, state and balloon from its answers. */
int vf_ch_take_version(struct vf_ch *c, const struct vf_json *ping, struct vf_error *err);
void vf_ch_take_info(struct vf_ch *c, const struct vf_json *info);

int vf_ch_adopt(struct vf_vm *vm, const struct vf_vm_adopt *a, struct vf_error *err);
int vf_ch_save(struct vf_vm *vm, int dirfd, struct vf_error *err);
int vf_ch_restore(struct vf_vm *vm, int dirfd, struct vf_error *err);
/* The files of a saved VM, what it needs not have first; ends with NULL. */
extern const char *const vf_ch_saved_names[];
/* Makes dirfd/name, which work_fd then is. */
int vf_ch_work_begin(struct vf_ch *c, int dirfd, const char *name, struct vf_error *err);
/* Removes it, if it is there; needs no descriptors for what is expected in it. */
void vf_ch_work_end(struct vf_ch *c, int dirfd, const char *name);
/* Removes what a save that has not ended has left. */
void vf_ch_forget_save(struct vf_ch *c);
/* Reads what the event monitor's FIFO has. */
void vf_ch_read_events(struct vf_vmm_pipe *p);

/* --- cloud_hypervisor_config.c */
/* Checks what only this VMM minds, and copies it. */
int vf_ch_config_copy(const struct vf_vm_config *from, struct vf_vm_config *ret,
                      struct vf_error *err);
void vf_ch_config_free(struct vf_vm_config *c);
/* The VMM has its taps' descriptors: ours go while its own are there, as the last to close a tap waits for the kernel. */
void vf_ch_config_close_taps(struct vf_vm_config *c);
/* Bodies, malloc'd; NULL without memory. */
char *vf_ch_create_body(const struct vf_vm_config *c);
char *vf_ch_add_net_body(const struct vf_vm_config *c, int nic);
char *vf_ch_restore_body(const struct vf_vm_config *c, bool on_demand);
/* The saved config (text) as that of the clone c; own_memory: the save holds its memory. Caller frees *ret. */
int vf_ch_clone_config(const struct vf_vm_config *c, const char *text, size_t len, bool own_memory,
                       char **ret, struct vf_error *err);

/* --- cloud_hypervisor_patch.c */
struct vf_ch_edit {
    char path[64];     /* "memory.zones.0.shared"; every part but the last must be there */
    const char *value; /* JSON; NULL: the member is to go */
};
/* JSON text with edits made; all else stays as it is written, numbers too. Caller frees *ret. */
int vf_ch_patch(const char *text, size_t len, const struct vf_ch_edit *edits, size_t n_edits,
                char **ret, struct vf_error *err);

#endif

/* The factory for programs that do one thing after the other: each call runs the loop until its answer is
 * there. SIGINT and SIGTERM end every wait with VF_CANCELLED; vf_sync_close then leaves nothing behind. */
#ifndef VF_TOOLS_COMMON_SYNC_H
#define VF_TOOLS_COMMON_SYNC_H

#include <stdbool.h>
#include <uv.h>
#include "factory/exec.h"
#include "factory/factory.h"

struct vf_sync_options {
    const char *dir; /* state and VMs go here; NULL: a temporary directory, removed at the end */
    const char *qemu, *cloud_hypervisor, *firecracker; /* absolute; NULL: on PATH */
    struct vf_registry
        *registry; /* runtime classes, instead of those three; referenced; NULL: built-in ones */
    struct vf_asset_store *assets; /* of what they pin; must outlive it; or NULL */
    struct vf_networks *networks;  /* must outlive it; or NULL */
    enum vf_accel auto_accel;
    int64_t answer_timeout_ms; /* 0: default */
    int64_t create_timeout_ms;
    int trial_clones;
    bool outlive; /* VMs that are let go of, or whose process is killed, go on */
    int (*on_step)(void *arg, struct vf_instance *vm, const char *stage, struct vf_error *err);
    void *on_step_arg; /* as in vf_factory_config */
    void (*on_traffic)(void *arg, struct vf_instance *vm, const struct vf_net_stats *total);
    void *on_traffic_arg; /* likewise */
    bool keep_signals;    /* leave SIGINT and SIGTERM to the program */
};

struct vf_sync {
    uv_loop_t loop;
    struct vf_store *store;
    struct vf_factory *factory;
    char *dir;
    bool temporary, interrupted;
    int open_signals;
    uv_signal_t sigint, sigterm;
};

int vf_sync_open(struct vf_sync *s, const struct vf_sync_options *o, struct vf_error *err);
/* Destroys everything. Safe after a failed open. */
void vf_sync_close(struct vf_sync *s);
/* The path of the VMM's program that is used; valid until close. */
int vf_sync_binary(struct vf_sync *s, enum vf_spec_vmm vmm, const char **ret_path,
                   struct vf_error *err);
/* Runs the loop until *flag; VF_CANCELLED on a signal. What sets the flag should call uv_stop(&s->loop). */
int vf_sync_wait(struct vf_sync *s, const bool *flag, struct vf_error *err);
/* Whether a signal has come, also one that no wait has seen yet. */
bool vf_sync_interrupted(struct vf_sync *s);

int vf_sync_build(struct vf_sync *s, const struct vf_spec *spec, vf_build_stage_cb stage,
                  struct vf_generation **ret_gen, struct vf_error *err);
int vf_sync_load(struct vf_sync *s, const char *name, int64_t number,
                 struct vf_generation **ret_gen, struct vf_error *err);
/* n clones at once; ret_vms has room for n. On failure of one the others are destroyed. */
int vf_sync_clones(struct vf_sync *s, struct vf_generation *gen, int n,
                   struct vf_instance **ret_vms, struct vf_error *err);
int vf_sync_cold(struct vf_sync *s, const struct vf_spec *spec, const struct vf_vm_options *o,
                 struct vf_instance **ret_vm, struct vf_error *err);
int vf_sync_clone(struct vf_sync *s, struct vf_generation *gen, const struct vf_vm_options *o,
                  struct vf_instance **ret_vm, struct vf_error *err);
int vf_sync_park(struct vf_sync *s, struct vf_instance *vm, struct vf_error *err);
int vf_sync_wake(struct vf_sync *s, struct vf_instance *vm, struct vf_error *err);
void vf_sync_destroy(struct vf_sync *s, struct vf_instance *vm);

/* Runs a command in the guest; outputs are malloc'd, NUL-terminated, of at most 1 MiB each. */
struct vf_sync_output {
    struct vf_exec_status status;
    char *out, *errout;
    size_t out_len, err_len;
    bool truncated;
};
int vf_sync_run(struct vf_sync *s, struct vf_instance *vm, const struct vf_exec_options *o,
                const void *in, size_t in_len, struct vf_sync_output *ret, struct vf_error *err);
void vf_sync_output_free(struct vf_sync_output *o);

#endif

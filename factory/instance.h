/* Inside the factory: a VM in the making, and the engine that makes it.
 *
 * A recipe is a list of steps. The engine runs one after the other and notes how long each took:
 *
 *              +--> step -> step -> ... -> READY --> (owner) --destroy--+
 *     begin ---+        |                                               v
 *              +--------+-- failed, cancelled, died ------------> DESTROYING -> freed
 *
 * A ready VM can be asked for more (ready.c): it then runs another recipe, and is READY again at its end.
 *
 * A step starts something and returns; its end is vf_instance_step_done. What a step has acquired
 * lies in the instance, and teardown releases whatever is there, so a step has nothing to undo.
 */
#ifndef VF_FACTORY_INSTANCE_H
#define VF_FACTORY_INSTANCE_H

#include <stdatomic.h>
#include "base/async.h"
#include "factory/agent.h"
#include "factory/factory.h"
#include "factory/network.h"
#include "vmm/vmm.h"

#define VF_STEP_DONE 1 /* what run returns if there was nothing to wait for */

struct vf_step {
    const char *stage; /* its name in stages, errors and progress */
    int (*run)(struct vf_instance *vm, struct vf_error *err);
    bool boots; /* under `accel: auto`, a failure of KVM here is tried once more with TCG */
    const char *failpoint; /* at its end, but not in builds; NULL: none */
};
#define VF_LAST_STEP            \
    {                           \
        NULL, NULL, false, NULL \
    }

enum vf_instance_state { VF_INSTANCE_MAKING, VF_INSTANCE_READY, VF_INSTANCE_DESTROYING };

struct vf_samples; /* what guests drew, so that none draws it twice; factory/samples.c */

struct vf_factory {
    uv_loop_t *loop;
    struct vf_store *store;
    struct vf_registry *registry;
    struct vf_asset_store *assets;
    struct vf_networks *networks;
    char *run_dir;
    int run_dirfd;
    bool die_with_parent, closing;
    enum vf_accel auto_accel;
    bool kvm_failed; /* seen under `auto`: TCG from then on */
    int64_t answer_timeout_ms, create_timeout_ms;
    int trial_clones;
    int (*on_step)(void *arg, struct vf_instance *vm, const char *stage, struct vf_error *err);
    void *on_step_arg;
    void (*on_traffic)(void *arg, struct vf_instance *vm, const struct vf_net_stats *total);
    void *on_traffic_arg;
    struct vf_instance *instances;
    struct vf_build_job *builds;
    struct vf_discard *discards;
    int loads;
    struct vf_samples *samples;
    void (*closed)(void *arg);
    void *closed_arg;
};

#define VF_INSTANCE_ID_LEN 12 /* hex digits; also the name of its directory */

struct vf_instance {
    struct vf_factory *factory;
    struct vf_instance *next;
    char id[16];
    enum vf_source source;
    enum vf_instance_state state;
    bool of_build;  /* the template's own VM, or a trial clone: its end is that of the process */
    bool adopted;   /* an earlier process made it */
    bool standby;   /* waits to be restored */
    bool detaching; /* its process and directory stay */

    const struct vf_step *steps, *step; /* step->run NULL: the end */
    int64_t step_began_us;
    struct vf_stage stages[VF_MAX_STAGES];
    int n_stages;
    void (*on_stage)(void *arg, const char *stage);
    void *stage_arg;

    struct vf_spec spec; /* settled; its class's kernel and image are in it once that is resolved */
    struct vf_generation *gen;    /* referenced; NULL: cold boot or build */
    struct vf_registry *registry; /* as it began, until ready; NULL: adopted, or a clone */
    char class_name[VF_CLASS_NAME_MAX + 1]; /* of a cold boot or build */
    struct vf_runtime runtime;              /* of the same, once resolved: a worker's until then */
    const struct vf_asset *missing[VF_RUNTIME_MAX_ASSETS]; /* of registry: to be fetched */
    int n_missing;
    struct vf_instance_fetch {
        struct vf_instance *vm;
        struct vf_fetch *handle; /* NULL: done */
        bool cancelled;
    } fetches[VF_RUNTIME_MAX_ASSETS];
    int fetching; /* how many of them are not done */
    bool fetch_failed;
    struct vf_error fetch_error;
    struct vf_vm_options options;
    char hostname[64], tap[16];
    uint8_t machine_id[16], mac[6], entropy[64], nonce[32];
    bool plant; /* a build plants its nonce with the renewal */
    struct vf_instance_net net;

    char *dir;
    int dirfd;       /* until the channel is connected; -1 */
    bool has_dir;    /* there is one, and it is ours */
    pid_t found_pid; /* of an adopted VM */
    uint64_t found_start_ticks;
    char *disk, *disk_backing; /* paths: the root disk and the template's frozen overlay, if any */
    char *cmdline;             /* of a boot */
    int memory_fd;             /* own memory of a cold boot or build; -1 */
    enum vf_accel accel;
    bool retry_with_tcg;
    struct vf_vm *vm;
    struct vf_agent agent;
    bool agent_open;
    /* What the guest must return: its template's, or what it was adopted with. */
    char due_nonce[65], due_boot_id[33]; /* empty: no nonce; any boot id */
    int64_t due_generation;
    uint32_t features;                     /* of its agent, VF_FEATURE_* */
    int waiting;                           /* answers still to come */
    bool proving;                          /* the step under way ends with the last of them */
    int clock_rounds;                      /* so often was it told the time */
    int64_t clock_told_ns, clock_until_us; /* the last time it was told; when trying ends */

    struct vf_proof proof;
    vf_instance_cb done; /* NULL once called */
    void *arg;
    struct vf_error error; /* why it is destroyed before it was ready */
    vf_death_cb on_death;
    bool dead; /* died while it was ready; error says how */
    void *death_arg;
    struct vf_destroy_waiter *destroy_waiters;
    struct vf_work work;  /* of steps and of teardown, one at a time */
    bool part_running;    /* work, or a part of a step that can't be cancelled: teardown waits */
    atomic_bool given_up; /* while a part runs: what takes long in a worker ends early */
    bool teardown_begun;
    char vmm_version[32]; /* of a build, when its VMM is gone */

    struct vf_build_job *job; /* of a build */
};

/* What is to be made. */
struct vf_plan {
    enum vf_source source;
    const struct vf_step *steps;         /* the first must be work in another thread */
    const struct vf_spec *spec;          /* copied */
    struct vf_generation *gen;           /* referenced; or NULL */
    const struct vf_vm_options *options; /* copied; or NULL */
    struct vf_build_job *job;            /* of the template's own VM */
    bool of_build;
    const struct vf_adopt *adopt; /* copied; or NULL */
};
/* Makes an instance and begins its recipe. */
int vf_instance_begin(struct vf_factory *f, const struct vf_plan *plan, vf_instance_cb done,
                      void *arg, struct vf_instance **ret_vm, struct vf_error *err);
/* Runs another recipe on a ready VM. */
int vf_instance_run_again(struct vf_instance *vm, const struct vf_step *steps, vf_instance_cb done,
                          void *arg, struct vf_error *err);
const struct vf_vmm_ops *vf_instance_ops(const struct vf_instance *vm);
/* The running step has ended; a vf_done_cb for whatever it waited for. */
void vf_instance_step_done(void *arg, const struct vf_error *err);
/* What part_running stood for has ended: the step is done, or teardown goes on. */
void vf_instance_part_ended(void *arg, const struct vf_error *err);
/* Ends a VM in the making, tells the owner of a ready one: a broken channel, for instance. */
void vf_instance_died(void *arg, const struct vf_error *err);
void vf_instance_on_vm_event(void *arg, const struct vf_vm_event *ev);
/* Blocking work as a step: w->arg is the instance; the step ends with it. */
int vf_instance_work(struct vf_instance *vm, int (*run)(struct vf_work *w, struct vf_error *err),
                     struct vf_error *err);
/* A trial clone of a build: as vf_factory_clone, but nobody's. */
int vf_factory_trial(struct vf_factory *f, struct vf_generation *gen, vf_instance_cb done,
                     void *arg, struct vf_error *err);
/* Of a VM that is being taken apart: what it waited for has ended. */
void vf_instance_teardown(struct vf_instance *vm);
/* Frees factory if it is closing and nothing is left. */
void vf_factory_check_closed(struct vf_factory *f);

/* --- steps.c: what recipes are made of */
int vf_step_prepare(struct vf_instance *vm,
                    struct vf_error *err); /* directory, memory, overlay, network */
int vf_step_create(struct vf_instance *vm, struct vf_error *err); /* VMM up */
/* Of a VMM whose channel can be connected by now: it is, and the step done. A vf_done_cb. */
void vf_step_connect_agent(void *arg, const struct vf_error *err);
int vf_step_start(struct vf_instance *vm, struct vf_error *err);
int vf_step_restore(struct vf_instance *vm, struct vf_error *err);
int vf_step_resume(struct vf_instance *vm, struct vf_error *err);
int vf_step_pause(struct vf_instance *vm, struct vf_error *err);
/* --- prove.c: the guest answers, is who it must be, and takes what is fresh */
int vf_step_hello(struct vf_instance *vm, struct vf_error *err);
int vf_step_renew(struct vf_instance *vm, struct vf_error *err);
/* The same, but it need not answer, and its answer changes nothing. */
int vf_step_hello_again(struct vf_instance *vm, struct vf_error *err);
/* Both, for a clone: asked as it is resumed (if it is paused), waited for by prove. */
int vf_step_resume_clone(struct vf_instance *vm, struct vf_error *err);
int vf_step_prove(struct vf_instance *vm, struct vf_error *err);
/* --- prove_network.c: what a renewal says of the NIC, and whether the answer shows that it was taken */
int vf_prove_network_put(const struct vf_instance *vm, struct vf_wire_writer *w,
                         struct vf_error *err);
int vf_prove_network_check(struct vf_instance *vm, const struct vf_wire_frame *f,
                           struct vf_error *err);

/* --- resolve.c: which binary, kernel and image */
/* Of a cold boot or build, by its class. Blocking. */
int vf_instance_resolve(struct vf_instance *vm, struct vf_error *err);
/* Of a clone, as its generation has noted them. Blocking. */
int vf_instance_recall(struct vf_instance *vm, struct vf_error *err);
/* Of a build, whose manifest m has just hashed what it runs with. VF_CORRUPT: what its class pins is not among it. */
int vf_instance_check_pins(const struct vf_instance *vm, const struct vf_manifest *m,
                           struct vf_error *err);
/* NULL: the VMM has none. */
const char *vf_instance_binary(const struct vf_instance *vm);
/* Whether the VMM's own sandbox is on. */
bool vf_instance_sandboxed(const struct vf_instance *vm);
/* Looks what a build needs and is not in the store; fetches that. */
int vf_step_look(struct vf_instance *vm, struct vf_error *err);
int vf_step_fetch(struct vf_instance *vm, struct vf_error *err);
/* Withdraws it. */
void vf_instance_abort_fetch(struct vf_instance *vm);

/* --- disk.c */
/* Makes the VM's root disk, if its spec has one. Blocking. */
int vf_disk_make(struct vf_instance *vm, struct vf_error *err);
void vf_disk_describe(const struct vf_instance *vm, struct vf_vm_disk *ret);
/* What a template's disk is made of, in its generation's directory; NULL-ended; nothing without a root disk. */
const char *const *vf_disk_files(const struct vf_instance *vm);

/* --- samples.c */
struct vf_samples *vf_samples_new(void);
void vf_samples_free(struct vf_samples *s);
/* Notes the 16 bytes; false if they are there already. Remembers the last 4096. */
bool vf_samples_add(struct vf_samples *s, const uint8_t sample[16]);

/* --- adopt.c */
/* Ends whatever process the record in a VM's directory names. Blocking. */
int vf_end_recorded(int run_dirfd, const char *id, struct vf_error *err);
/* Takes what the plan's adopt says. */
int vf_instance_take_adopted(struct vf_instance *vm, const struct vf_adopt *a,
                             struct vf_error *err);

/* --- build.c */
/* Of the build's directory, for save and overlay. */
int vf_job_dirfd(const struct vf_build_job *job);
const char *vf_job_path(const struct vf_build_job *job);
/* As it was given, but settled. */
const struct vf_spec *vf_job_spec(const struct vf_build_job *job);
void vf_build_jobs_cancel(struct vf_factory *f);

#endif

/* Inside the factory: a VM in the making, and the engine that makes it.
 *
 * A recipe is a list of steps. The engine runs one after the other and notes how long each took:
 *
 *              +--> step -> step -> ... -> READY --> (owner) --destroy--+
 *     begin ---+        |                                               v
 *              +--------+-- failed, cancelled, died ------------> DESTROYING -> freed
 *
 * A step starts something and returns; its end is vf_instance_step_done. What a step has acquired
 * lies in the instance, and teardown releases whatever is there, so a step has nothing to undo.
 */
#ifndef VF_FACTORY_INSTANCE_H
#define VF_FACTORY_INSTANCE_H

#include "base/async.h"
#include "factory/agent.h"
#include "factory/factory.h"
#include "vmm/vmm.h"

#define VF_STEP_DONE 1 /* what run returns if there was nothing to wait for */

struct vf_step {
    const char *stage; /* its name in stages, errors and progress */
    int (*run)(struct vf_instance *vm, struct vf_error *err);
    bool boots; /* under `accel: auto`, a failure of KVM here is tried once more with TCG */
};

enum vf_instance_state { VF_INSTANCE_MAKING, VF_INSTANCE_READY, VF_INSTANCE_DESTROYING };

struct vf_samples; /* what guests drew, so that none draws it twice; factory/samples.c */

struct vf_factory {
    uv_loop_t *loop;
    struct vf_store *store;
    char *run_dir, *qemu;
    int run_dirfd;
    bool die_with_parent, closing;
    enum vf_accel auto_accel;
    bool kvm_failed; /* seen under `auto`: TCG from then on */
    int64_t answer_timeout_ms, create_timeout_ms;
    int trial_clones;
    struct vf_instance *instances;
    struct vf_build_job *builds;
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

    const struct vf_step *steps, *step; /* step->run NULL: the end */
    int64_t step_began_us;
    struct vf_stage stages[VF_MAX_STAGES];
    int n_stages;
    void (*on_stage)(void *arg, const char *stage);
    void *stage_arg;

    struct vf_spec spec;
    struct vf_generation *gen; /* referenced; NULL: cold boot or build */
    struct vf_vm_options options;
    char hostname[64], tap[16];
    uint8_t machine_id[16], mac[6], entropy[64], nonce[32];
    bool plant; /* a build plants its nonce with the renewal */

    char *dir;
    int dirfd;                 /* -1: none yet */
    char *disk, *disk_backing; /* paths: the root disk and the template's frozen overlay, if any */
    char *cmdline;             /* of a boot */
    int memory_fd;             /* own memory of a cold boot or build; -1 */
    enum vf_accel accel;
    bool retry_with_tcg;
    struct vf_vm *vm;
    struct vf_agent agent;
    bool agent_open;
    int waiting;  /* answers still to come */
    bool proving; /* the step under way ends with the last of them */
    int clock_rounds;

    struct vf_proof proof;
    vf_instance_cb done; /* NULL once called */
    void *arg;
    struct vf_error error; /* why it is destroyed before it was ready */
    vf_death_cb on_death;
    bool dead; /* died while it was ready; error says how */
    void *death_arg;
    struct vf_destroy_waiter *destroy_waiters;
    struct vf_work work; /* of steps and of teardown, one at a time */
    bool part_running;   /* work, or a part of a step that can't be cancelled: teardown waits */
    bool teardown_begun;
    char vmm_version[32]; /* of a build, when its VMM is gone */

    struct vf_build_job *job; /* of a build */
};

/* Makes an instance and begins its recipe; the first step must be work in another thread. spec is copied,
 * gen referenced. */
int vf_instance_begin(struct vf_factory *f, enum vf_source source, const struct vf_step *steps,
                      const struct vf_spec *spec, struct vf_generation *gen,
                      const struct vf_vm_options *o, struct vf_build_job *job, vf_instance_cb done,
                      void *arg, struct vf_instance **ret_vm, struct vf_error *err);
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
/* Refuses what needs a QEMU when there is none. */
int vf_factory_need_vmm(const struct vf_factory *f, const struct vf_spec *spec,
                        struct vf_error *err);
/* Frees factory if it is closing and nothing is left. */
void vf_factory_check_closed(struct vf_factory *f);

/* --- steps.c: what recipes are made of */
int vf_step_prepare(struct vf_instance *vm, struct vf_error *err); /* directory, memory, overlay */
int vf_step_create(struct vf_instance *vm, struct vf_error *err);  /* VMM up, channel connected */
int vf_step_start(struct vf_instance *vm, struct vf_error *err);
int vf_step_restore(struct vf_instance *vm, struct vf_error *err);
int vf_step_resume(struct vf_instance *vm, struct vf_error *err);
int vf_step_pause(struct vf_instance *vm, struct vf_error *err);
/* --- prove.c: the guest answers, is who it must be, and takes what is fresh */
int vf_step_hello(struct vf_instance *vm, struct vf_error *err);
int vf_step_renew(struct vf_instance *vm, struct vf_error *err);
/* Both, for a clone: asked as it is resumed, waited for by prove. */
int vf_step_resume_clone(struct vf_instance *vm, struct vf_error *err);
int vf_step_prove(struct vf_instance *vm, struct vf_error *err);

/* --- samples.c */
struct vf_samples *vf_samples_new(void);
void vf_samples_free(struct vf_samples *s);
/* Notes the 16 bytes; false if they are there already. Remembers the last 4096. */
bool vf_samples_add(struct vf_samples *s, const uint8_t sample[16]);

/* --- build.c */
/* Of the build's directory, for save and overlay. */
int vf_job_dirfd(const struct vf_build_job *job);
const char *vf_job_path(const struct vf_build_job *job);
void vf_build_jobs_cancel(struct vf_factory *f);

#endif

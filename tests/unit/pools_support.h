/* Pools over the null driver, on a loop of their own, in a directory of their own. */
#ifndef VF_TESTS_POOLS_SUPPORT_H
#define VF_TESTS_POOLS_SUPPORT_H

#include "pool/http.h"
#include "pool/pools.h"
#include "tests/unit/scratch.h"

struct pools {
    struct scratch dir;
    uv_loop_t loop;
    struct vf_settings settings;
    struct vf_events *events;
    struct vf_stats *stats;
    struct vf_pools *p;
    struct vf_event_follower *follower;
    bool closed;
};

/* What one acquire came to. */
struct got {
    bool done;
    struct vf_slot *vm;
    char id[16];
    struct vf_error err;
    int retry_after_s;
    struct vf_acquire *req; /* while it is pending */
};

/* What a vf_done_cb was told; pools_on_end notes it, and that it is told once. */
struct pools_end {
    bool done;
    struct vf_error err;
};
void pools_on_end(void *arg, const struct vf_error *err);

extern const struct vf_caller root_caller, alice, bob;

/* script: of every null VM from now on, or NULL. */
void pools_open(struct pools *t);
void pools_script(const char *script);
/* Close, and open again on the same directories: another daemon. */
void pools_reopen(struct pools *t);
/* No VM's directory may be left, unless kept of them. */
void pools_close(struct pools *t);
void pools_shut(struct pools *t);
void pools_start(struct pools *t);
int pools_dirs(struct pools *t);

/* Runs the loop until cond, or fails the test at the deadline. */
#define POOLS_WAIT(t, cond)                                                    \
    do {                                                                       \
        int64_t until_ = vf_deadline_after_ms(20000);                          \
        while (!(cond)) {                                                      \
            cr_assert_lt(vf_now_us(), until_, "waited in vain for %s", #cond); \
            pools_turn(t);                                                     \
        }                                                                      \
    } while (0)
/* One turn of the loop; waits for something to happen, at most 100 ms. */
void pools_turn(struct pools *t);

/* A template of the null driver; parks: "paused" or "running". */
struct vf_pool *pools_add(struct pools *t, const char *name, const char *parks);
struct vf_pool *pools_pool(struct pools *t, const char *name);
/* Set it to target and wait until that many are parked. */
void pools_warm(struct pools *t, struct vf_pool *pool, int64_t n);
void pools_set(struct vf_pool *pool, void (*change)(struct vf_pool_config *c));
int64_t pools_number(const struct vf_pool *pool, const char *key); /* of its JSON; -1: null */
void pools_text(const struct vf_pool *pool, const char *key, char ret[256]);
void pools_vm_text(const struct vf_slot *vm, const char *key, char ret[256]);

/* Starts; done may be at once. */
void pools_acquire(struct pools *t, const char *name, const struct vf_caller *who, unsigned require,
                   struct got *ret);
void pools_acquire_with(struct pools *t, const struct vf_acquire_options *o,
                        const struct vf_caller *who, struct got *ret);
/* Waits for it; the VM. */
struct vf_slot *pools_take(struct pools *t, const char *name, const struct vf_caller *who,
                           unsigned require);
void pools_release(struct pools *t, const char *id, const struct vf_caller *who);
/* Whether an event with these words was told since the last look. */
bool pools_heard(struct pools *t, const char *words);

#endif

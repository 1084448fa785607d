/* Withdrawn at any moment: a build at each of its stages, a clone, a cold boot, a park and a wake after each
 * turn of the loop, both in the middle of the copy of a disk, the whole factory in the middle of all of them. The caller is told once, and nothing
 * is left of it.
 */
#include "tests/e2e/factory_support.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/fd.h"

static const char *const stages[] = {"prepare", "vmm",   "start", "boot", "renew", "warmup",
                                     "freeze",  "pause", "save",  "stop", "store", "prove"};
#define N_STAGES (sizeof(stages) / sizeof(*stages))

/* ---- builds */

struct build {
    struct fac *f;
    struct vf_build_request *req;
    const char *at;
    bool at_once; /* from within the callback that tells the stage, else a little later */
    bool reached, done;
    struct vf_generation *gen;
    struct vf_error err;
};

static void on_stage(void *arg, const char *stage)
{
    struct build *b = arg;
    if (!b->at || strcmp(stage, b->at) != 0)
        return;
    b->reached = true;
    if (b->at_once)
        vf_build_cancel(b->req);
}

static void on_built(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    struct build *b = arg;
    cr_assert_not(b->done, "called twice");
    b->done = true;
    b->gen = gen;
    if (err)
        b->err = *err;
}

static struct vf_spec warm_spec(const char *name)
{
    static const char *const echo[] = {"echo", "warm", NULL};
    struct vf_spec spec = fac_tiny(name, VF_ACCEL_TCG, NULL);
    fac_add_warmup(&spec, echo);
    return spec;
}

static void begin(struct build *b, const struct vf_spec *spec)
{
    struct vf_error e = {0};
    int r = vf_factory_build(b->f->sync.factory, spec, on_stage, on_built, b, &b->req, &e);
    cr_assert_eq(r, 0, "%s", e.msg);
}

static void cancel_at(struct fac *f, const struct vf_spec *spec, const char *stage, int turns)
{
    struct build b = {.f = f, .at = stage, .at_once = turns == 0};
    begin(&b, spec);
    while (!b.reached && !b.done)
        uv_run(&f->sync.loop, UV_RUN_ONCE);
    for (int i = 0; i < turns && !b.done; i++)
        uv_run(&f->sync.loop, UV_RUN_ONCE);
    if (turns && !b.done)
        vf_build_cancel(b.req);
    while (!b.done)
        uv_run(&f->sync.loop, UV_RUN_ONCE);
    cr_assert(b.reached, "%s was not reached: %s", stage, b.err.msg);
    cr_assert_null(b.gen, "%s: a generation all the same", stage);
    fac_expect(&b.err, VF_CANCELLED, "build of tiny: cancelled");
    fac_check(f, stage);
    cr_assert_eq(fac_generations(f, "tiny"), 1, "%s: the old generation is gone, or a new one left",
                 stage);
}

Test(factory_cancel, build_at_each_stage, .timeout = 240)
{
    struct fac f;
    fac_open(&f, NULL);
    struct vf_spec spec = warm_spec("tiny");
    vf_generation_unref(fac_build(&f, &spec));
    for (size_t i = 0; i < N_STAGES; i++)
        for (int turns = 0; turns < 3; turns++)
            cancel_at(&f, &spec, stages[i], turns);
    /* The factory is none the worse for it. */
    fac_works(&f, &spec);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* Requests are withdrawn while they are told of a stage: the others' stay. */
struct trio {
    struct build b[3];
    int victim;
};

static struct trio *trio;

static void on_trio_stage(void *arg, const char *stage)
{
    struct build *b = arg;
    if (strcmp(stage, "boot") == 0 && b != &trio->b[trio->victim] && !trio->b[trio->victim].done)
        vf_build_cancel(trio->b[trio->victim].req);
    if (strcmp(stage, "freeze") == 0 && b == &trio->b[(trio->victim + 1) % 3])
        vf_build_cancel(b->req);
}

Test(factory_cancel, requests_while_they_are_told, .timeout = 120)
{
    struct fac f;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = warm_spec("tiny");
    for (int victim = 0; victim < 3; victim++) {
        struct trio t = {.victim = victim};
        trio = &t;
        for (int i = 0; i < 3; i++) {
            struct vf_error e = {0};
            t.b[i].f = &f;
            cr_assert_eq(vf_factory_build(f.sync.factory, &spec, on_trio_stage, on_built, &t.b[i],
                                          &t.b[i].req, &e),
                         0, "%s", e.msg);
        }
        while (!t.b[0].done || !t.b[1].done || !t.b[2].done)
            uv_run(&f.sync.loop, UV_RUN_ONCE);
        fac_expect(&t.b[victim].err, VF_CANCELLED, "build of tiny");
        fac_expect(&t.b[(victim + 1) % 3].err, VF_CANCELLED, "build of tiny");
        struct build *last = &t.b[(victim + 2) % 3];
        cr_assert_eq(last->err.code, VF_OK, "%s", last->err.msg);
        vf_generation_unref(last->gen);
        fac_check(&f, "one of three was built");
    }
    cr_assert_eq(fac_generations(&f, "tiny"), 3);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* A build that is being given up takes no new requests, and says so. */
Test(factory_cancel, no_joining_a_lost_build, .timeout = 60)
{
    struct fac f;
    struct vf_error e = {0};
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = warm_spec("tiny");
    struct build b = {.f = &f, .at = "boot"};
    begin(&b, &spec);
    while (!b.reached)
        uv_run(&f.sync.loop, UV_RUN_ONCE);
    vf_build_cancel(b.req);
    struct vf_build_request *req = NULL;
    cr_assert_lt(vf_factory_build(f.sync.factory, &spec, NULL, on_built, NULL, &req, &e), 0);
    fac_expect(&e, VF_BUSY, "try again");
    cr_assert_null(req);
    while (!b.done)
        uv_run(&f.sync.loop, UV_RUN_ONCE);
    vf_generation_unref(fac_build(&f, &spec));
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- VMs */

struct making {
    int calls;
    struct vf_instance *vm; /* as handed out */
    struct vf_error err;
};

static void on_vm(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct making *m = arg;
    m->calls++;
    m->vm = vm;
    if (err)
        m->err = *err;
}

enum what { CLONE, COLD, PARK, WAKE };

static struct vf_instance *start(struct fac *f, enum what what, struct vf_generation *gen,
                                 struct making *m)
{
    struct vf_instance *vm = NULL;
    struct vf_error e = {0};
    int r;
    *m = (struct making){0};
    if (what == CLONE)
        r = vf_factory_clone(f->sync.factory, gen, NULL, on_vm, m, &vm, &e);
    else if (what == COLD)
        r = vf_factory_cold(f->sync.factory, &gen->manifest.spec, NULL, on_vm, m, &vm, &e);
    else {
        vm = fac_clone(f, gen);
        if (what == WAKE)
            cr_assert_eq(vf_sync_park(&f->sync, vm, &e), 0, "%s", e.msg);
        r = what == PARK ? vf_instance_park(vm, on_vm, m, &e) : vf_instance_wake(vm, on_vm, m, &e);
    }
    cr_assert_eq(r, 0, "%s", e.msg);
    cr_assert_eq(m->calls, 0, "done came before the submission had returned");
    return vm;
}

/* One turn more each time, until it is ready before it is destroyed. Returns how often it was not. */
static int destroy_after_each_turn(struct fac *f, enum what what, struct vf_generation *gen)
{
    for (int turns = 0; turns < 1000; turns++) {
        struct making m;
        char when[64];
        snprintf(when, sizeof(when), "%d turns", turns);
        struct vf_instance *vm = start(f, what, gen, &m);
        for (int i = 0; i < turns && !m.calls; i++)
            uv_run(&f->sync.loop, UV_RUN_ONCE);
        bool ready = m.calls > 0;
        fac_destroy(f, vm);
        fac_check(f, when);
        cr_assert_eq(m.calls, 1, "done was called %d times", m.calls);
        if (ready) {
            cr_assert_eq(m.err.code, VF_OK, "%s", m.err.msg);
            return turns;
        }
        cr_assert_null(m.vm);
        fac_expect(&m.err, VF_CANCELLED, "cancelled");
    }
    cr_assert(false, "never ready");
    return 0;
}

static void each_turn(enum what what, int at_least)
{
    struct fac f;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_mark(&f);
    int turns = destroy_after_each_turn(&f, what, gen);
    cr_assert_geq(turns, at_least, "ready after %d turns: hardly a wait was tried", turns);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_cancel, clone_after_each_turn, .timeout = 240)
{
    each_turn(CLONE, 5);
}

Test(factory_cancel, cold_boot_after_each_turn, .timeout = 240)
{
    each_turn(COLD, 5);
}

Test(factory_cancel, park_after_each_turn, .timeout = 240)
{
    each_turn(PARK, 1);
}

Test(factory_cancel, wake_after_each_turn, .timeout = 240)
{
    each_turn(WAKE, 2);
}

/* ---- in the middle of the copy of a large disk */

#define IMAGE_SIZE ((size_t)5 * VF_COPY_CHUNK / 2)

/* Instead of libc's: after the first chunk the copy waits until it was given up. */
static struct {
    bool armed, reached;
    uv_async_t told;
    uv_sem_t goes_on;
    int chunks;
    size_t copied;
} pause_copy;

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t len,
                        unsigned flags)
{
    ssize_t n = syscall(SYS_copy_file_range, in, in_at, out, out_at, len, flags);
    if (!pause_copy.armed)
        return n;
    pause_copy.copied += n > 0 ? (size_t)n : 0;
    if (pause_copy.chunks++ == 0) {
        uv_async_send(&pause_copy.told);
        uv_sem_wait(&pause_copy.goes_on);
    }
    return n;
}

static void on_chunk(uv_async_t *h)
{
    (void)h;
    pause_copy.reached = true;
}

static bool shares_blocks(const char *image)
{
    char other[220];
    snprintf(other, sizeof(other), "%s.shared", image);
    VF_CLEANUP_FD int in = open(image, O_RDONLY | O_CLOEXEC);
    VF_CLEANUP_FD int out = open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(in >= 0 && out >= 0 && unlink(other) == 0);
    return ioctl(out, FICLONE, in) == 0;
}

static void make_image(const char *path)
{
    VF_CLEANUP_FREE char *data = malloc(IMAGE_SIZE);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    memset(data, 'x', IMAGE_SIZE);
    cr_assert_eq(write(fd, data, IMAGE_SIZE), (ssize_t)IMAGE_SIZE);
    cr_assert_eq(close(fd), 0);
}

static void cancel_while_it_copies(const char *test, bool build)
{
    /* Firecracker takes raw disks only; it is not even started. */
    const struct vf_sync_options o = {.firecracker = "/bin/false", .trial_clones = -1};
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_KVM, NULL);
    struct vf_instance *vm = NULL;
    struct vf_error e = {0};
    struct making m = {0};
    char image[200];
    struct fac f;
    fac_open(&f, &o);
    struct build b = {.f = &f};
    snprintf(image, sizeof(image), "%s/disk.img", f.s.dir);
    make_image(image);
    if (shares_blocks(image))
        sup_skip("factory_cancel", test, "the file system shares blocks: nothing is copied");
    spec.vmm = VF_SPEC_VMM_FIRECRACKER;
    spec.has_vmm = true;
    fac_set_root(&spec, image);
    cr_assert_eq(uv_sem_init(&pause_copy.goes_on, 0), 0);
    cr_assert_eq(uv_async_init(&f.sync.loop, &pause_copy.told, on_chunk), 0);
    pause_copy.armed = true;
    if (build)
        begin(&b, &spec);
    else
        cr_assert_eq(vf_factory_cold(f.sync.factory, &spec, NULL, on_vm, &m, &vm, &e), 0, "%s",
                     e.msg);
    while (!pause_copy.reached && !b.done && !m.calls)
        uv_run(&f.sync.loop, UV_RUN_ONCE);
    cr_assert(pause_copy.reached, "%s%s", m.err.msg, b.err.msg);
    uv_close((uv_handle_t *)&pause_copy.told, NULL);
    if (build)
        vf_build_cancel(b.req);
    else
        vf_instance_destroy(vm, NULL, NULL);
    uv_sem_post(&pause_copy.goes_on);
    while (!b.done && !m.calls)
        uv_run(&f.sync.loop, UV_RUN_ONCE);
    fac_expect(build ? &b.err : &m.err, VF_CANCELLED, "cancelled");
    cr_expect_eq(pause_copy.chunks, 1, "%d chunks", pause_copy.chunks);
    cr_expect_leq(pause_copy.copied, VF_COPY_CHUNK, "%zu bytes of %zu were copied",
                  pause_copy.copied, IMAGE_SIZE);
    pause_copy.armed = false;
    uv_sem_destroy(&pause_copy.goes_on);
    cr_assert_eq(unlink(image), 0);
    fac_check(&f, "the copy was given up");
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_cancel, cold_boot_while_its_disk_is_copied, .timeout = 60)
{
    cancel_while_it_copies("cold_boot_while_its_disk_is_copied", false);
}

Test(factory_cancel, build_while_its_disk_is_copied, .timeout = 60)
{
    cancel_while_it_copies("build_while_its_disk_is_copied", true);
}

/* ---- everything at once */

Test(factory_cancel, factory_closed_in_the_middle, .timeout = 240)
{
    struct fac f;
    fac_open(&f, NULL);
    struct vf_spec spec = warm_spec("tiny"), other = warm_spec("other");
    vf_generation_unref(fac_build(&f, &spec));
    /* How many turns it all takes depends on how many events one turn finds: until the build has ended. */
    bool ended = false;
    int turns = 0;
    for (; !ended; turns += 6) {
        struct vf_generation *gen = fac_load(&f, "tiny");
        struct making m[4];
        struct build b = {.f = &f};
        begin(&b, &other);
        start(&f, CLONE, gen, &m[0]);
        start(&f, COLD, gen, &m[1]);
        start(&f, WAKE, gen, &m[2]);
        for (int i = 0; i < turns && !b.done; i++)
            uv_run(&f.sync.loop, UV_RUN_ONCE);
        ended = b.done;
        vf_generation_unref(gen);
        vf_generation_unref(b.gen);
        fac_shut(&f);
        for (int i = 0; i < 3; i++)
            cr_assert_eq(m[i].calls, 1, "%d turns: VM %d: %d calls", turns, i, m[i].calls);
        cr_assert(b.done);
        cr_assert_eq(b.err.code, ended ? VF_OK : VF_CANCELLED, "%s", b.err.msg);
        cr_assert_eq(sup_count_children(), 0, "a process outlives its factory");
        cr_assert_eq(fac_run_dirs(&f), 0);
        cr_assert_eq(fac_unfinished(&f), 0);
        fac_reopen(&f, NULL);
        /* One that was being put away as the factory closed is there, although nobody got it. */
        size_t n = fac_generations(&f, "other");
        cr_assert(n == 1 || (n == 0 && !ended), "%d turns: %zu generations", turns, n);
        ended = n > 0;
    }
    cr_assert_geq(turns, 18, "all was done within %d turns: hardly anything was in the middle",
                  turns);
    vf_spec_free(&spec);
    vf_spec_free(&other);
    fac_close(&f);
}

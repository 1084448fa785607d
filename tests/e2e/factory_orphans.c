/* Processes with a build under way that are killed outright, at each stage. No VMM outlives them; after the
 * next start nothing is left of the build, and what was stored before is still good.
 *
 * This process adopts orphans (PR_SET_CHILD_SUBREAPER), so that it can see each of them end.
 */
#include "tests/e2e/factory_support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fd.h"

static const char *const stages[] = {"prepare", "vmm",   "start", "boot", "renew", "warmup",
                                     "freeze",  "pause", "save",  "stop", "store", "prove"};
#define N_STAGES (sizeof(stages) / sizeof(*stages))

/* ---- in the child */

static int tell_fd, go_on_fd; /* go_on_fd -1: it does not wait */

static void on_stage(void *arg, const char *stage)
{
    char c;
    (void)arg;
    if (write(tell_fd, stage, strlen(stage) + 1) < 0 ||
        (go_on_fd >= 0 && read(go_on_fd, &c, 1) < 1))
        _exit(2);
}

/* Its end is its exit status, for there is no test behind it. */
static _Noreturn void build_and_exit(const char *dir, const struct vf_spec *spec)
{
    struct vf_sync s;
    struct vf_error e = {0};
    struct vf_generation *gen;
    struct vf_sync_options o = {
        .dir = dir, .qemu = sup_qemu(), .trial_clones = 1, .keep_signals = true};
    if (vf_sync_open(&s, &o, &e) < 0 || vf_sync_build(&s, spec, on_stage, &gen, &e) < 0) {
        fprintf(stderr, "builder: %s\n", e.msg);
        _exit(3);
    }
    vf_generation_unref(gen);
    vf_sync_close(&s);
    _exit(0);
}

/* ---- in the test */

struct builder {
    pid_t pid;
    int told, go_on;
};

static struct builder start_builder(const struct fac *f, const struct vf_spec *spec, bool stops)
{
    int tell[2], go_on[2];
    cr_assert_eq(pipe2(tell, O_CLOEXEC), 0);
    cr_assert_eq(pipe2(go_on, O_CLOEXEC), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        close(tell[0]);
        close(go_on[1]);
        tell_fd = tell[1];
        go_on_fd = stops ? go_on[0] : -1;
        build_and_exit(f->dir, spec);
    }
    close(tell[1]);
    close(go_on[0]);
    return (struct builder){pid, tell[0], go_on[1]};
}

/* Reads what stages it tells until stage; false if it ended before. */
static bool wait_for_stage(struct builder *b, const char *stage)
{
    char name[32];
    size_t len = 0;
    for (;;) {
        ssize_t n = read(b->told, name + len, 1);
        if (n <= 0)
            return false;
        if (name[len++]) {
            cr_assert_lt(len, sizeof(name));
            continue;
        }
        if (strcmp(name, stage) == 0)
            return true;
        len = 0;
        cr_assert(write(b->go_on, "x", 1) == 1 || errno == EPIPE);
    }
}

/* All that the dead have left behind ends too, soon and unasked. */
static void reap_all(void)
{
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid < 0 && errno == ECHILD)
            return;
        if (pid != 0)
            continue;
        pid_t left = fac_child();
        if (left == 0)
            continue; /* it has become a zombie just now */
        VF_CLEANUP_FD int fd = pidfd_open(left, 0);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        cr_assert_eq(poll(&p, 1, SUP_LONG_MS), 1, "process %d outlives its factory", (int)left);
    }
}

static void end_builder(struct builder *b)
{
    close(b->told);
    close(b->go_on);
}

/* The next start sweeps; generation 1 is good; newer ones are good too, and taken away again. */
static void check_next_start(struct fac *f, const char *stage)
{
    struct vf_store_entry *entries;
    struct vf_generation *gen = NULL;
    struct vf_error e = {0};
    size_t n;
    fac_reopen(f, NULL);
    fac_check(f, stage);
    cr_assert_eq(vf_store_list(f->sync.store, "tiny", &entries, &n, &e), 0, "%s", e.msg);
    cr_assert(n == 1 || n == 2, "%s: %zu generations", stage, n);
    cr_assert_eq(entries[0].generation, 1);
    for (size_t i = 0; i < n; i++) {
        int64_t number = entries[i].generation;
        int r = vf_store_load(f->sync.store, "tiny", number, NULL, &gen, NULL, &e);
        cr_assert_eq(r, 0, "%s: %s", stage, e.msg);
        vf_generation_unref(gen);
        if (i > 0)
            cr_assert_eq(vf_store_remove(f->sync.store, "tiny", number, &e), 0, "%s", e.msg);
    }
    free(entries);
    fac_shut(f);
}

static void killed_at_each_stage(bool stops)
{
    struct fac f;
    int status;
    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    signal(SIGPIPE, SIG_IGN);
    fac_open(&f, NULL);
    fac_shut(&f); /* it is the builders' */
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct builder b = start_builder(&f, &spec, false);
    cr_assert_eq(waitpid(b.pid, &status, 0), b.pid);
    cr_assert_eq(status, 0, "the first build failed");
    end_builder(&b);
    for (size_t i = 0; i < N_STAGES; i++) {
        b = start_builder(&f, &spec, stops);
        cr_assert(wait_for_stage(&b, stages[i]), "%s was not reached", stages[i]);
        cr_assert_eq(kill(b.pid, SIGKILL), 0);
        reap_all();
        end_builder(&b);
        check_next_start(&f, stages[i]);
    }
    /* And a build and a clone as ever, in the same directory. */
    fac_reopen(&f, NULL);
    fac_works(&f, &spec);
    vf_spec_free(&spec);
    fac_close(&f);
}

Test(factory_orphans, killed_at_the_start_of_each_stage, .timeout = 240)
{
    killed_at_each_stage(true);
}

Test(factory_orphans, killed_within_each_stage, .timeout = 240)
{
    killed_at_each_stage(false);
}

/* Someone else's VMs are not litter. */
Test(factory_orphans, a_run_directory_in_use_is_not_swept, .timeout = 60)
{
    struct fac f;
    char run[512], litter[600], foreign[600];
    struct vf_factory *second = NULL;
    struct vf_error e = {0};
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    snprintf(run, sizeof(run), "%s/run", f.dir);
    snprintf(litter, sizeof(litter), "%s/0123456789ab", run);
    snprintf(foreign, sizeof(foreign), "%s/not-a-vm", run);
    cr_assert_eq(mkdir(litter, 0700), 0);
    cr_assert_eq(mkdir(foreign, 0700), 0);
    struct vf_factory_config c = {.run_dir = run, .die_with_parent = true};
    cr_assert_eq(vf_factory_open(&f.sync.loop, &c, &second, &e), 0, "%s", e.msg);
    cr_assert_eq(access(litter, F_OK), 0, "swept under the first factory's feet");
    bool closed = false;
    vf_factory_close(second, fac_set_true, &closed);
    cr_assert(closed);
    fac_reopen(&f, NULL);
    cr_assert_neq(access(litter, F_OK), 0, "not swept");
    cr_assert_eq(access(foreign, F_OK), 0, "swept what is no VM's");
    cr_assert_eq(rmdir(foreign), 0);
    fac_close(&f);
}

/* kill -9 at each step of what changes the store: what is there afterwards is the old state or
 * the new one, whole, and no litter survives the next opening. */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "templates_support.h"

/* What must be in the template's directory after a crash at that point and the next opening.
 * Generation 1 was there before; the child builds 2, quarantines 1 and removes 1. */
static const struct {
    const char *point, *entries;
    bool quarantined; /* generation 1 */
} after[] = {
    {"store.begin.after-mkdir", "1 ", false},
    {"store.commit.before-hash", "1 ", false},
    {"store.commit.before-sync", "1 ", false},
    {"store.commit.before-manifest", "1 ", false},
    {"store.commit.after-manifest", "1 ", false},
    {"store.commit.before-rename", "1 ", false},
    {"store.commit.after-rename", "1 2 ", false},
    {"store.commit.after-sync", "1 2 ", false},
    {"store.quarantine.before-rename", "1 2 ", false},
    {"store.quarantine.after-rename", "1 2 ", true},
    {"store.remove.before-rename", "1 2 ", true},
    {"store.remove.after-rename", "2 ", false},
    {"store.remove.after-unlink", "2 ", false},
};

static struct fixture fx;

static void setup(void)
{
    fixture_open(&fx);
}

static void teardown(void)
{
    fixture_close(&fx);
}

TestSuite(templates_crash, .init = setup, .fini = teardown);

/* In the child: everything, until the point is reached. */
static void live_until(const char *point)
{
    struct vf_store *store = NULL;

    if (vf_failpoint_arm(point) != 0 || vf_store_open(fx.state, &store, NULL) != 0 ||
        build_one(&fx, store, NULL, NULL) != 0 ||
        vf_store_quarantine(store, "web", 1, "a test", NULL) != 0 ||
        vf_store_remove(store, "web", 1, NULL) != 0)
        _exit(1);
    _exit(0);
}

static void die_at(const char *point)
{
    int status = 0;
    pid_t pid = fork();

    cr_assert_geq(pid, 0);
    if (pid == 0)
        live_until(point);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%s: status %x", point,
              (unsigned)status);
}

static void expect_loads(struct vf_store *store, int64_t number, bool quarantined)
{
    struct vf_generation *gen = NULL;
    struct vf_error err = {0};
    int r = vf_store_load(store, "web", number, NULL, &gen, NULL, &err);

    if (quarantined)
        expect_error(r, err, VF_CONFLICT, "is quarantined: a test");
    else
        cr_expect_eq(r, 0, "%s", err.msg);
    vf_generation_unref(gen);
}

static void crash_and_look(size_t i)
{
    struct vf_store *store = NULL;
    struct vf_error err = {0};
    char path[400], list[600];

    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_ok(build_one(&fx, store, NULL, &err), err);
    vf_store_close(store);
    die_at(after[i].point);

    expect_ok(vf_store_open(fx.state, &store, &err), err);
    cr_expect_null(vf_store_sweep_error(store));
    snprintf(path, sizeof(path), "%s/templates/web", fx.state);
    list_dir(path, list, sizeof(list));
    cr_expect_str_eq(list, after[i].entries, "%s: \"%s\"", after[i].point, list);
    if (strchr(after[i].entries, '1') != NULL)
        expect_loads(store, 1, after[i].quarantined);
    if (strchr(after[i].entries, '2') != NULL)
        expect_loads(store, 2, false);
    /* And it goes on as if nothing had been. */
    cr_expect_eq(build_one(&fx, store, NULL, &err), 0, "%s: %s", after[i].point, err.msg);
    vf_store_close(store);
    cr_assert_eq(vf_remove_tree(AT_FDCWD, fx.state, &err), 0, "%s", err.msg);
}

Test(templates_crash, old_or_new_at_every_point)
{
    for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++)
        crash_and_look(i);
}

Test(templates_crash, every_point_is_tried)
{
    for (size_t n = 0; vf_failpoint_names[n] != NULL; n++) {
        bool found = false;

        for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++)
            found = found || strcmp(after[i].point, vf_failpoint_names[n]) == 0;
        cr_expect(found || strncmp(vf_failpoint_names[n], "store.", 6) != 0, "%s has no test",
                  vf_failpoint_names[n]);
    }
    cr_expect_eq(vf_failpoint_arm("store.no-such-point"), -EINVAL);
}

Test(templates_crash, first_build_leaves_no_empty_template)
{
    struct vf_store *store = NULL;
    struct vf_error err = {0};
    char path[400], list[600];

    die_at("store.commit.before-rename");
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    snprintf(path, sizeof(path), "%s/templates", fx.state);
    list_dir(path, list, sizeof(list));
    cr_expect_str_eq(list, "");
    vf_store_close(store);
}

/* Numbers stay unique over a crash between the note of the last one and the removal. */
Test(templates_crash, the_last_number_is_noted_first)
{
    struct vf_generation *gen = NULL;
    struct vf_store *store = NULL;
    struct vf_error err = {0};
    int status = 0;
    pid_t pid;

    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_ok(build_one(&fx, store, NULL, &err), err);
    vf_store_close(store);
    pid = fork();
    if (pid == 0) {
        if (vf_failpoint_arm("store.remove.after-rename") == 0 &&
            vf_store_open(fx.state, &store, NULL) == 0)
            vf_store_remove(store, "web", 1, NULL);
        _exit(1);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status));
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_ok(build_one(&fx, store, &gen, &err), err);
    cr_expect_eq(gen->number, 2);
    vf_generation_unref(gen);
    vf_store_close(store);
}

/* The lock goes with its holder, however that ends; while it lives, it is named. */
Test(templates_crash, the_lock_goes_with_its_holder)
{
    struct vf_store *store = NULL;
    struct vf_error err = {0};
    char byte, says[64];
    int pipes[2];
    pid_t pid;

    cr_assert_eq(pipe2(pipes, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        if (vf_store_open(fx.state, &store, NULL) != 0 || write(pipes[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    cr_assert_eq(read(pipes[0], &byte, 1), 1);
    snprintf(says, sizeof(says), "in use by pid %d", (int)pid);
    expect_error(vf_store_open(fx.state, &store, &err), err, VF_CONFLICT, says);
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    vf_store_close(store);
    close(pipes[0]);
    close(pipes[1]);
}

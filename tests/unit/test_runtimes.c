/* The classes in force and the store of assets, on a loop of their own: turns, what gc spares, stopping half-way. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "pool/runtimes.h"
#include "tests/unit/scratch.h"

TestSuite(runtimes, .timeout = 60);

static struct {
    struct scratch dir;
    uv_loop_t loop;
    struct vf_settings settings;
    struct vf_events *events;
    struct vf_store *store;
    struct vf_runtimes *rt;
    int changed, idle;
    pid_t pid; /* of a "VM" */
} t;

static void on_changed(void *arg)
{
    (void)arg;
    t.changed++;
}

static void on_idle(void *arg)
{
    (void)arg;
    t.idle++;
}

static pid_t *pids(void *arg, int *ret_n)
{
    pid_t *v = malloc(sizeof(*v));

    (void)arg;
    *v = t.pid;
    *ret_n = t.pid > 0;
    return v;
}

static void setup(void)
{
    struct vf_runtimes_config cfg = {.loop = &t.loop,
                                     .settings = &t.settings,
                                     .changed = on_changed,
                                     .idle = on_idle,
                                     .pids = pids};
    struct vf_error err;
    char state[300];

    scratch_open(&t.dir);
    cr_assert_eq(uv_loop_init(&t.loop), 0);
    snprintf(state, sizeof(state), "%s/state", t.dir.path);
    t.settings.state_dir = state;
    t.events = cfg.events = vf_events_new();
    cr_assert_eq(vf_store_open(state, &t.store, &err), 0, "%s", err.msg);
    cfg.store = t.store;
    cr_assert_eq(vf_runtimes_open(&cfg, &t.rt, &err), 0, "%s", err.msg);
    t.settings.state_dir = NULL;
}

static void teardown(void)
{
    vf_runtimes_stop(t.rt);
    while (vf_runtimes_busy(t.rt))
        uv_run(&t.loop, UV_RUN_ONCE);
    vf_runtimes_free(t.rt);
    vf_store_close(t.store);
    vf_events_free(t.events);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&t.loop), 0);
    scratch_close(&t.dir);
}

/* What one operation came to. */
struct end {
    int n;
    int code; /* enum vf_code */
    size_t entries;
};

static void on_done(void *arg, const struct vf_error *err)
{
    struct end *e = arg;

    e->n++;
    e->code = err != NULL ? (int)err->code : VF_OK;
}

static void on_entries(void *arg, const struct vf_asset_entry *v, size_t n,
                       const struct vf_error *err)
{
    struct end *e = arg;

    (void)v;
    on_done(arg, err);
    e->entries = n;
}

static void await(const struct end *e)
{
    while (e->n == 0)
        cr_assert(uv_run(&t.loop, UV_RUN_ONCE) != 0 || e->n > 0, "nothing is under way any more");
    cr_expect_eq(e->n, 1);
}

static int put_class(const char *text, struct end *e)
{
    struct vf_class c;
    struct vf_error err;
    int r;

    cr_assert_eq(vf_class_parse(text, strlen(text), NULL, &c, &err), 0, "%s", err.msg);
    r = vf_runtimes_put_class(t.rt, &c, on_done, e, &err);
    vf_class_free(&c);
    return r;
}

/* An asset that is a copy of the program from; ret: its path there. */
static void put_asset(const char *name, const char *from, char ret[400])
{
    char text[1000], digest[VF_SHA256_HEX];
    struct vf_asset a;
    struct vf_error err;
    struct end e = {0};
    char command[900];
    FILE *f;

    snprintf(ret, 400, "%.300s/%s", t.dir.path, name);
    snprintf(command, sizeof(command), "cp %s %s && echo %s >>%s && sha256sum <%s", from, ret, name,
             ret, ret);
    f = popen(command, "re");
    cr_assert_not_null(f);
    cr_assert_eq(fscanf(f, "%64s", digest), 1);
    pclose(f);
    snprintf(text, sizeof(text),
             "{\"name\":\"%s\",\"kind\":\"vmm\",\"files\":{\"x86_64\":{\"url\":\"file://%s\","
             "\"sha256\":\"%s\"},\"aarch64\":{\"url\":\"file://%s\",\"sha256\":\"%s\"}}}",
             name, ret, digest, ret, digest);
    cr_assert_eq(vf_asset_parse(text, strlen(text), NULL, &a, &err), 0, "%s", err.msg);
    cr_assert_eq(vf_runtimes_put_asset(t.rt, &a, on_done, &e, &err), 0, "%s", err.msg);
    cr_expect_null(a.name, "it was taken over");
    await(&e);
    cr_assert_eq(e.code, VF_OK);
}

static void fetch(const char *name, char ret_path[PATH_MAX])
{
    struct vf_runtimes_fetching f = {.running = true};
    const struct vf_asset *a;
    struct vf_error err;
    char *path;

    cr_assert_eq(vf_runtimes_fetch(t.rt, name, &err), 0, "%s", err.msg);
    while (f.running) {
        uv_run(&t.loop, UV_RUN_ONCE);
        vf_runtimes_fetching(t.rt, name, &f);
    }
    cr_assert_null(f.error);
    cr_expect_eq(f.attempts, 1);
    cr_assert_eq(vf_runtimes_asset(t.rt, name, &a, &err), 0);
    cr_assert_eq(
        vf_asset_store_path(vf_runtimes_store(t.rt), vf_asset_file_here(a)->sha256, &path, &err), 0,
        "%s", err.msg);
    snprintf(ret_path, PATH_MAX, "%s", path);
    free(path);
}

Test(runtimes, changes_take_turns_and_each_sees_the_one_before, .init = setup, .fini = teardown)
{
    struct end first = {0}, second = {0}, third = {0};
    struct vf_error err;

    /* All asked for at once: the second default is refused because of the first. */
    cr_assert_eq(put_class("{\"name\":\"a\",\"vmm\":\"qemu\",\"default\":true}", &first), 0);
    cr_assert_eq(put_class("{\"name\":\"b\",\"vmm\":\"qemu\",\"default\":true}", &second), 0);
    cr_assert_eq(vf_runtimes_remove_class(t.rt, "a", on_done, &third, &err), 0);
    cr_expect_eq(first.n + second.n + third.n, 0, "never before it returns");
    await(&third);
    cr_expect_eq(first.code, VF_OK);
    cr_expect_eq(second.code, VF_INVALID_ARGUMENT);
    cr_expect_eq(third.code, VF_OK);
    cr_expect_eq(t.changed, 2);
    cr_expect_gt(t.idle, 0);
    cr_expect_str_eq(vf_registry_default(vf_runtimes_registry(t.rt), VF_SPEC_VMM_QEMU)->name,
                     "qemu");
}

Test(runtimes, what_waits_for_its_turn_is_bounded_and_ends_when_it_stops, .init = setup,
     .fini = teardown)
{
    static struct end ends[400];
    int taken = 0, cancelled = 0;
    struct vf_error err;

    while (taken < 400 && vf_runtimes_reload(t.rt, on_done, &ends[taken], &err) == 0)
        taken++;
    cr_expect_lt(taken, 400);
    cr_expect_eq(err.code, VF_BUSY);
    vf_runtimes_stop(t.rt);
    cr_expect_eq(vf_runtimes_reload(t.rt, on_done, &ends[taken], &err),
                 vf_code_errno(VF_CANCELLED));
    while (vf_runtimes_busy(t.rt))
        uv_run(&t.loop, UV_RUN_ONCE);
    for (int i = 0; i < taken; i++) {
        cr_expect_eq(ends[i].n, 1);
        cancelled += ends[i].code == VF_CANCELLED;
    }
    cr_expect_eq(cancelled, taken - 1, "one was under way");
    cr_expect_eq(t.changed, 0, "nobody is told while it stops");
}

Test(runtimes, gc_spares_what_a_process_runs_and_has_open, .init = setup, .fini = teardown)
{
    char from[400], program[PATH_MAX], opened[PATH_MAX], nobodys[PATH_MAX];
    struct end e = {0};
    struct vf_error err;
    int fd, input[2];

    put_asset("runs", "/bin/cat", from);
    put_asset("open", "/bin/true", from);
    put_asset("nobodys", "/bin/false", from);
    fetch("runs", program);
    fetch("open", opened);
    fetch("nobodys", nobodys);
    cr_assert_eq(pipe2(input, O_CLOEXEC), 0);
    fd = open(opened, O_RDONLY); /* inherited */
    cr_assert_geq(fd, 0);
    t.pid = fork();
    if (t.pid == 0) {
        dup2(input[0], 0);
        execl(program, program, (char *)NULL);
        _exit(127);
    }
    close(fd);
    /* It runs what it is to run once its link says so. */
    for (char link[PATH_MAX], at[64]; memset(link, 0, sizeof(link)), true;) {
        snprintf(at, sizeof(at), "/proc/%d/exe", (int)t.pid);
        cr_assert_gt(readlink(at, link, sizeof(link) - 1), 0);
        if (strcmp(link, program) == 0)
            break;
        sched_yield();
    }
    cr_assert_eq(vf_runtimes_gc(t.rt, true, on_entries, &e, &err), 0);
    await(&e);
    cr_expect_eq(e.code, VF_OK);
    cr_expect_eq(e.entries, 1);
    cr_expect_eq(access(nobodys, F_OK), 0, "that was a try");
    e = (struct end){0};
    cr_assert_eq(vf_runtimes_gc(t.rt, false, on_entries, &e, &err), 0);
    await(&e);
    cr_expect_eq(e.entries, 1);
    cr_expect_neq(access(nobodys, F_OK), 0);
    cr_expect_eq(access(program, F_OK), 0);
    cr_expect_eq(access(opened, F_OK), 0);
    close(input[0]);
    close(input[1]);
    waitpid(t.pid, NULL, 0);
    t.pid = 0;
    e = (struct end){0};
    cr_assert_eq(vf_runtimes_gc(t.rt, false, on_entries, &e, &err), 0);
    await(&e);
    cr_expect_eq(e.entries, 2);
    cr_expect_neq(access(program, F_OK), 0);
}

/* Nor would a daemon see what a process of another user runs. */
Test(runtimes, gc_removes_nothing_if_a_process_can_not_be_seen, .init = setup, .fini = teardown)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2] = {0};
    char from[400], nobodys[PATH_MAX];
    struct end e = {0};
    struct vf_error err;
    int up[2];

    /* Before there are workers, which inherit it. */
    cr_assert_eq(syscall(SYS_capset, &head, caps), 0);
    put_asset("nobodys", "/bin/false", from);
    fetch("nobodys", nobodys);
    cr_assert_eq(pipe2(up, O_CLOEXEC), 0);
    t.pid = fork();
    if (t.pid == 0) {
        prctl(PR_SET_DUMPABLE, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (write(up[1], "", 1) == 1)
            for (;;)
                pause();
        _exit(1);
    }
    cr_assert_eq(read(up[0], &(char){0}, 1), 1);
    cr_assert_eq(vf_runtimes_gc(t.rt, false, on_entries, &e, &err), 0);
    await(&e);
    cr_expect_eq(e.code, VF_PERMISSION);
    cr_expect_eq(access(nobodys, F_OK), 0);
    kill(t.pid, SIGKILL);
    waitpid(t.pid, NULL, 0);
    t.pid = 0;
}

static void nothing(void *arg)
{
    (void)arg;
}

/* Its URL's query may be what lets one fetch it. */
Test(runtimes, no_event_shows_a_signature, .init = setup, .fini = teardown)
{
    static const char file[] =
        "{\"url\":\"http://127.0.0.1:1/x?signature\",\"sha256\":\"00000000000000000000000000000000"
        "00000000000000000000000000000000\"}";
    struct vf_event_follower *f = vf_event_follow(t.events, 0, 1000, false, nothing, NULL);
    struct vf_runtimes_fetching how = {.running = true};
    struct vf_asset a;
    struct end e = {0};
    struct vf_error err;
    const char *line;
    char text[600];
    int n = 0;

    snprintf(text, sizeof(text),
             "{\"name\":\"a\",\"kind\":\"vmm\",\"files\":{\"x86_64\":%s,\"aarch64\":%s}}", file,
             file);
    cr_assert_eq(vf_asset_parse(text, strlen(text), NULL, &a, &err), 0, "%s", err.msg);
    cr_assert_eq(vf_runtimes_put_asset(t.rt, &a, on_done, &e, &err), 0);
    await(&e);
    cr_assert_eq(vf_runtimes_fetch(t.rt, "a", &err), 0);
    vf_runtimes_stop(t.rt); /* it is not worth the wait */
    while (how.running) {
        uv_run(&t.loop, UV_RUN_ONCE);
        vf_runtimes_fetching(t.rt, "a", &how);
    }
    while ((line = vf_event_next(f)) != NULL) {
        n += strstr(line, "127.0.0.1:1/x") != NULL;
        cr_expect_null(strstr(line, "signature"), "%s", line);
    }
    cr_expect_geq(n, 1);
    vf_event_unfollow(f);
}

/* A build that began before its class changed goes on with what the class pinned then. */
Test(runtimes, gc_spares_what_a_set_pins_that_somebody_goes_on_with, .init = setup,
     .fini = teardown)
{
    static const char pinned[] = "{\"name\":\"c\",\"vmm\":\"qemu\",\"assets\":{"
                                 "\"x86_64\":{\"vmm\":\"%s\"},\"aarch64\":{\"vmm\":\"%s\"}}}";
    char from[400], before[PATH_MAX], after[PATH_MAX], text[300];
    struct vf_registry *held = NULL;
    struct end e[2] = {0};
    struct vf_error err;

    put_asset("before", "/bin/true", from);
    put_asset("after", "/bin/false", from);
    fetch("before", before);
    fetch("after", after);
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof(text), pinned, i ? "after" : "before", i ? "after" : "before");
        cr_assert_eq(put_class(text, &e[i]), 0);
        await(&e[i]);
        cr_assert_eq(e[i].code, VF_OK);
        if (i == 0)
            held = vf_registry_ref(vf_runtimes_registry(t.rt));
    }
    e[0] = (struct end){0};
    cr_assert_eq(vf_runtimes_gc(t.rt, false, on_entries, &e[0], &err), 0);
    await(&e[0]);
    cr_expect_eq(e[0].entries, 0);
    cr_expect_eq(access(before, F_OK), 0, "it is still needed");
    vf_registry_unref(held);
    e[0] = (struct end){0};
    cr_assert_eq(vf_runtimes_gc(t.rt, false, on_entries, &e[0], &err), 0);
    await(&e[0]);
    cr_expect_eq(e[0].entries, 1);
    cr_expect_neq(access(before, F_OK), 0);
    cr_expect_eq(access(after, F_OK), 0);
}

/* Its first URL never answers: only if that fetch ends with the change can the second one be asked. */
Test(runtimes, a_fetch_ends_when_its_asset_gets_another_url, .init = setup, .fini = teardown)
{
    static const char definition[] =
        "{\"name\":\"a\",\"kind\":\"vmm\",\"files\":{\"x86_64\":%s,\"aarch64\":%s}}";
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct vf_runtimes_fetching f = {.running = true};
    struct end e[2] = {0};
    socklen_t len = sizeof(at);
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct vf_error err;

    cr_assert_eq(bind(s, (struct sockaddr *)&at, sizeof(at)), 0);
    cr_assert_eq(listen(s, 8), 0);
    cr_assert_eq(getsockname(s, (struct sockaddr *)&at, &len), 0);
    for (int i = 0; i < 2; i++) {
        char file[300], text[900];
        struct vf_asset a;

        snprintf(file, sizeof(file), "{\"url\":\"http://127.0.0.1:%d/%d\",\"sha256\":\"%064d\"}",
                 ntohs(at.sin_port), i, 0);
        snprintf(text, sizeof(text), definition, file, file);
        cr_assert_eq(vf_asset_parse(text, strlen(text), NULL, &a, &err), 0, "%s", err.msg);
        cr_assert_eq(vf_runtimes_put_asset(t.rt, &a, on_done, &e[i], &err), 0);
        await(&e[i]);
        cr_assert_eq(e[i].code, VF_OK);
        if (i == 0)
            cr_assert_eq(vf_runtimes_fetch(t.rt, "a", &err), 0);
    }
    while (f.running) {
        uv_run(&t.loop, UV_RUN_ONCE);
        vf_runtimes_fetching(t.rt, "a", &f);
    }
    cr_assert_not_null(f.error);
    cr_expect_eq(f.error->code, VF_CANCELLED, "%s", f.error->msg);
    close(s);
}

/* Whether it was there in time or was withdrawn: either way it ends, once. */
Test(runtimes, a_fetch_ends_with_its_asset_and_when_it_stops, .init = setup, .fini = teardown)
{
    struct vf_runtimes_fetching f = {0};
    struct end e = {0};
    struct vf_error err;
    char from[400];

    put_asset("gone", "/bin/true", from);
    cr_assert_eq(vf_runtimes_fetch(t.rt, "gone", &err), 0);
    cr_assert_eq(vf_runtimes_fetch(t.rt, "gone", &err), 0, "joined");
    cr_expect_eq(vf_runtimes_fetch(t.rt, "gon", &err), vf_code_errno(VF_NOT_FOUND));
    cr_expect_not_null(strstr(err.hint, "gone"));
    vf_runtimes_fetching(t.rt, "gone", &f);
    cr_expect(f.running);
    cr_expect_eq(f.attempts, 1);
    cr_assert_eq(vf_runtimes_remove_asset(t.rt, "gone", on_done, &e, &err), 0);
    await(&e);
    cr_expect_eq(e.code, VF_OK);
    do {
        vf_runtimes_fetching(t.rt, "gone", &f);
    } while (f.running && uv_run(&t.loop, UV_RUN_ONCE) != 0);
    cr_expect_not(f.running);
    /* teardown: with one under way */
    put_asset("late", "/bin/true", from);
    cr_assert_eq(vf_runtimes_fetch(t.rt, "late", &err), 0);
}

/* Commands in guests: streams, ends, limits. On the tiny guest, and again on Linux where a real process is
 * behind it.
 */
#include "tests/e2e/factory_support.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)

struct guest {
    struct fac f;
    struct vf_spec spec;
    struct vf_generation *gen;
    struct vf_instance *vm;
};

static void guest_open(struct guest *g, bool linux_guest)
{
    fac_open(&g->f, &(struct vf_sync_options){.trial_clones = -1});
    g->spec =
        linux_guest ? fac_linux("linux", VF_ACCEL_TCG, NULL) : fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    g->gen = fac_build(&g->f, &g->spec);
    g->vm = fac_clone(&g->f, g->gen);
    fac_mark(&g->f);
}

static void guest_close(struct guest *g)
{
    /* Whatever ran, the channel is as it was. */
    cr_assert_str_eq(fac_say(&g->f, g->vm, "echo", "still", "here", (char *)NULL), "still here");
    cr_assert_eq(sup_count_fds(), g->f.fds, "commands leave descriptors open");
    fac_destroy(&g->f, g->vm);
    vf_generation_unref(g->gen);
    vf_spec_free(&g->spec);
    fac_close(&g->f);
}

static void run(struct guest *g, const struct vf_exec_options *o, const void *in, size_t in_len,
                struct vf_sync_output *ret)
{
    struct vf_error e;
    cr_assert_eq(vf_sync_run(&g->f.sync, g->vm, o, in, in_len, ret, &e), 0, "%s: %s", o->argv[0],
                 e.msg);
}

static void check_status(const struct vf_sync_output *o, int code, bool signaled, bool timed_out)
{
    cr_assert_eq(o->status.code, code, "status %d, not %d: %s", o->status.code, code, o->errout);
    cr_assert_eq(o->status.signaled, signaled);
    cr_assert_eq(o->status.timed_out, timed_out);
}

/* len bytes that repeat nowhere within a window. */
static char *pattern(size_t len)
{
    char *p = malloc(len + 1);
    uint32_t x = 12345;
    cr_assert(p);
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525 + 1013904223;
        p[i] = (char)(x >> 24);
    }
    return p;
}

static void echo_stdin(struct guest *g, size_t len)
{
    char *argv[] = {"cat", NULL}, *in = pattern(len);
    struct vf_exec_options o = {.argv = argv, .timeout_ms = SUP_LONG_MS};
    struct vf_sync_output out;
    run(g, &o, in, len, &out);
    check_status(&out, 0, false, false);
    cr_assert_eq(out.out_len, len, "%zu of %zu bytes came back", out.out_len, len);
    cr_assert_not(out.truncated);
    cr_assert_eq(out.err_len, 0);
    cr_assert_eq(memcmp(out.out, in, len), 0, "other bytes came back");
    vf_sync_output_free(&out);
    free(in);
}

static void missing_command(struct guest *g, char *name)
{
    char *argv[] = {name, NULL};
    struct vf_exec_options o = {.argv = argv, .timeout_ms = SUP_LONG_MS};
    struct vf_sync_output out;
    struct vf_error e = {0};
    cr_assert_lt(vf_sync_run(&g->f.sync, g->vm, &o, NULL, 0, &out, &e), 0);
    fac_expect(&e, VF_GUEST_FAILED, "No such file or directory");
}

/* ---- what is refused on the host */

static void bad_arguments(struct guest *g)
{
    char *none[] = {NULL}, *big[] = {"echo", NULL, NULL};
    struct vf_exec_options o = {.argv = none};
    struct vf_sync_output out;
    struct vf_error e = {0};
    cr_assert_lt(vf_sync_run(&g->f.sync, g->vm, &o, NULL, 0, &out, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "argv");
    big[1] = malloc(20001);
    cr_assert(big[1]);
    memset(big[1], 'x', 20000);
    big[1][20000] = 0;
    o.argv = big;
    cr_assert_lt(vf_sync_run(&g->f.sync, g->vm, &o, NULL, 0, &out, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "more than");
    free(big[1]);
}

/* ---- more output than is kept */

struct capped {
    bool done, truncated;
    size_t out_len;
    struct vf_error err;
};

static void on_capped(void *arg, const struct vf_run_result *res, const struct vf_error *err)
{
    struct capped *c = arg;
    c->done = true;
    if (err) {
        c->err = *err;
        return;
    }
    c->truncated = res->truncated;
    c->out_len = res->out_len;
    for (size_t i = 0; i < res->out_len; i++)
        cr_assert_eq(res->out[i], res->out[0]);
}

/* The heap's peak stays near the cap, however much comes. */
static void flood(struct guest *g, char *const *argv, size_t cap)
{
    struct capped c = {0};
    struct vf_exec_options o = {.argv = argv, .timeout_ms = SUP_LONG_MS};
    struct vf_error e;
    struct mallinfo2 before = mallinfo2();
    size_t most = 0;
    cr_assert_eq(vf_run(vf_instance_agent(g->vm), &o, NULL, 0, cap, on_capped, &c, &e), 0, "%s",
                 e.msg);
    while (!c.done) {
        uv_run(&g->f.sync.loop, UV_RUN_ONCE);
        struct mallinfo2 now = mallinfo2();
        size_t more = now.uordblks + now.hblkhd > before.uordblks + before.hblkhd
                          ? now.uordblks + now.hblkhd - before.uordblks - before.hblkhd
                          : 0;
        most = more > most ? more : most;
    }
    cr_assert_eq(c.err.code, VF_OK, "%s", c.err.msg);
    cr_assert(c.truncated);
    cr_assert_eq(c.out_len, cap);
    cr_assert_lt(most, cap + 256 * 1024, "%zu bytes of heap for a cap of %zu", most, cap);
}

/* ---- more stdin at once than the channel's queue takes */

#define AT_ONCE 8

struct echoed {
    bool done;
    const char *in;
    size_t len;
    struct vf_error err;
};

static void on_echoed(void *arg, const struct vf_run_result *res, const struct vf_error *err)
{
    struct echoed *x = arg;
    x->done = true;
    if (err) {
        x->err = *err;
        return;
    }
    cr_assert_eq(res->status.code, 0, "status %d (late: %d)", res->status.code,
                 res->status.timed_out);
    cr_assert_eq(res->out_len, x->len);
    cr_assert_eq(memcmp(res->out, x->in, x->len), 0, "other bytes came back");
}

static void many_at_once(struct guest *g, size_t len)
{
    char *argv[] = {"cat", NULL}, *in = pattern(len);
    struct vf_exec_options o = {.argv = argv, .timeout_ms = SUP_LONG_MS};
    struct echoed x[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) {
        struct vf_error e;
        x[i] = (struct echoed){.in = in, .len = len};
        cr_assert_eq(vf_run(vf_instance_agent(g->vm), &o, in, len, len, on_echoed, &x[i], &e), 0,
                     "%s", e.msg);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        while (!x[i].done)
            uv_run(&g->f.sync.loop, UV_RUN_ONCE);
        cr_assert_eq(x[i].err.code, VF_OK, "command %d: %s", i, x[i].err.msg);
    }
    free(in);
}

/* ---- an exec whose owner lets go */

static void abandon(struct guest *g, char *const *argv)
{
    static const struct vf_exec_callbacks none = {NULL, NULL, NULL};
    struct vf_exec *e;
    struct vf_error err;
    struct vf_exec_options o = {.argv = argv};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(vf_exec_start(vf_instance_agent(g->vm), &o, &none, NULL, &e, &err), 0, "%s",
                     err.msg);
        vf_exec_abandon(e);
    }
    cr_assert_str_eq(fac_say(&g->f, g->vm, "echo", "x", (char *)NULL), "x");
}

/* ---- the tests */

Test(factory_exec, tiny, .timeout = 180)
{
    struct guest g;
    struct vf_sync_output out;
    char *exit7[] = {"exit", "7", NULL}, *hang[] = {"hang", NULL};
    char *complain[] = {"complain", "a", "b", NULL}, *many[] = {"flood", "400000", NULL};
    guest_open(&g, false);

    struct vf_exec_options o = {.argv = exit7, .timeout_ms = SUP_LONG_MS};
    run(&g, &o, NULL, 0, &out);
    check_status(&out, 7, false, false);
    vf_sync_output_free(&out);

    o.argv = complain;
    run(&g, &o, NULL, 0, &out);
    check_status(&out, 0, false, false);
    cr_assert_str_eq(out.errout, "a b\n");
    cr_assert_eq(out.out_len, 0);
    vf_sync_output_free(&out);

    o = (struct vf_exec_options){.argv = hang, .timeout_ms = 50};
    run(&g, &o, NULL, 0, &out);
    check_status(&out, 9, true, true);
    vf_sync_output_free(&out);

    echo_stdin(&g, 48 * 1024); /* a UART is slow */
    echo_stdin(&g, 0);
    missing_command(&g, "no-such-command");
    bad_arguments(&g);
    flood(&g, many, 65536);
    abandon(&g, hang);
    guest_close(&g);
}

Test(factory_exec, linux_guest, .timeout = 300)
{
    struct guest g;
    struct vf_sync_output out;
    FAC_LINUX_OR_SKIP("factory_exec", "linux_guest");
    guest_open(&g, true);
    char *both[] = {"/bin/sh", "-c", "echo out; echo err >&2; echo $WORD; pwd; exit 3", NULL};
    char *env[] = {"WORD=from-the-host", "PATH=/bin:/usr/bin", NULL};
    char *sig[] = {"/bin/sh", "-c", "kill -TERM $$", NULL};
    char *sleeper[] = {"sleep", "1000", NULL};
    char *tree[] = {"/bin/sh", "-c", "sleep 1000 & sleep 1000 & wait", NULL};
    char *many[] = {"/bin/sh", "-c", "yes | tr -d '\\n' | head -c 4000000", NULL};

    struct vf_exec_options o = {.argv = both, .env = env, .cwd = "/tmp", .timeout_ms = SUP_LONG_MS};
    run(&g, &o, NULL, 0, &out);
    check_status(&out, 3, false, false);
    cr_assert_str_eq(out.out, "out\nfrom-the-host\n/tmp\n");
    cr_assert_str_eq(out.errout, "err\n");
    vf_sync_output_free(&out);

    o = (struct vf_exec_options){.argv = sig, .timeout_ms = SUP_LONG_MS};
    run(&g, &o, NULL, 0, &out);
    check_status(&out, 15, true, false);
    vf_sync_output_free(&out);

    /* The deadline ends what the command started, too. */
    o = (struct vf_exec_options){.argv = sleeper, .timeout_ms = 300};
    run(&g, &o, NULL, 0, &out);
    check_status(&out, 9, true, true);
    vf_sync_output_free(&out);
    o.argv = tree;
    run(&g, &o, NULL, 0, &out);
    check_status(&out, 9, true, true);
    vf_sync_output_free(&out);
    cr_assert_str_eq(fac_sh(&g.f, g.vm, "ps | grep -c '[s]leep 1000' || true"), "0");

    echo_stdin(&g, MIB);
    many_at_once(&g, 300000);
    missing_command(&g, "/no/such/command");
    flood(&g, many, 65536);
    abandon(&g, sleeper);
    cr_assert_str_eq(fac_sh(&g.f, g.vm, "while ps | grep -q '[s]leep 1000'; do :; done; echo gone"),
                     "gone");
    guest_close(&g);
}

/* What goes wrong below the daemon, with real VMMs and the tiny guest: clones that fail until their generation is
 * quarantined, and what becomes of that; VMMs that are killed; guests that hang while the daemon is told to stop.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/e2e/daemon_guest.h"
#include "tests/e2e/support.h"

TestSuite(daemon_faults, .timeout = 180);

#define TINY_OR_SKIP(name)     \
    if (gst_missing(false)[0]) \
    sup_skip("daemon_faults", name, "%s", gst_missing(false))

static void open_web(struct gst *g, const char *const *args)
{
    gst_prepare(g, args);
    dmn_start(&g->d);
    gst_tiny(g, "web", NULL);
}

static const char pool[] = "/v1/pools/web";

/* ---- quarantine */

/* In QEMU's place comes a script that cannot restore while there is a file `broken`; to boot it always can. */
static void breakable(struct gst *g)
{
    char text[400];
    snprintf(text, sizeof(text),
             "#!/bin/sh\ncase \" $* \" in *\" -incoming \"*) [ -e %s/broken ] && exit 1;; esac\n"
             "exec %s \"$@\"\n",
             g->d.dir, g->qemu);
    gst_write(g->d.dir, "wrapped", text, 0755);
    snprintf(g->set, sizeof(g->set), "qemu=%s/wrapped", g->d.dir);
}

static void mend(struct gst *g)
{
    char path[100];
    snprintf(path, sizeof(path), "%s/broken", g->d.dir);
    cr_assert_eq(unlink(path), 0);
}

static bool has_generation(const struct gst *g, int n)
{
    char path[120];
    snprintf(path, sizeof(path), "%s/templates/web/%d", g->d.state, n);
    return access(path, F_OK) == 0;
}

/* A template whose clones fail from here on, quarantined; a VM of before is leased. */
static void quarantine(struct gst *g, char lease[16])
{
    static const char *const quick[] = {
        "--set", "quarantine_after=3", "--set", "backoff_initial_ms=10",
        "--set", "backoff_max_ms=100", NULL};
    struct gst_events ev;
    gst_prepare(g, quick);
    breakable(g);
    dmn_start(&g->d);
    gst_tiny(g, "web", NULL);
    gst_warm(&g->d, "web", 1);
    gst_follow(&g->d, &ev);
    gst_write(g->d.dir, "broken", "", 0600);
    gst_take(&g->d, "web", lease);
    struct vf_json *j = gst_event(&ev, "template.quarantined", NULL);
    cr_expect(strstr(dmn_str(j, "message"), "3 clones in a row failed"), "%s",
              dmn_str(j, "message"));
    vf_json_delete(j);
    gst_await_event(&ev, "template.build_failed", NULL); /* its trial clone fails too */
    gst_unfollow(&ev);
}

static void expect_hit(struct gst *g, int64_t generation)
{
    char id[16];
    struct vf_json *j = gst_acquire(&g->d, "web", id);
    cr_expect_str_eq(dmn_str(j, "source"), "hit");
    cr_expect_eq(dmn_int(j, "proof.generation"), generation);
    vf_json_delete(j);
    gst_release(&g->d, id);
}

Test(daemon_faults, quarantine_and_recovery)
{
    char id[16], lease[16];
    struct gst g;
    struct gst_events ev;
    TINY_OR_SKIP("quarantine_and_recovery");
    quarantine(&g, lease);

    struct vf_json *j = gst_acquire(&g.d, "web", id);
    cr_expect_str_eq(dmn_str(j, "source"), "cold");
    cr_expect(strstr(dmn_str(j, "reason"), "generation quarantined: 3 clones in a row failed"),
              "%s", dmn_str(j, "reason"));
    vf_json_delete(j);
    free(gst_run(&g.d, id, "[\"hostname\"]"));
    j = dmn_json(&g.d, 200, "GET", "/v1/templates/web", NULL);
    cr_expect_str_eq(dmn_str(j, "state"), "quarantined");
    cr_expect(dmn_get(j, "build.error.message"), "why it is not built anew");
    vf_json_delete(j);

    gst_follow(&g.d, &ev);
    mend(&g);
    gst_await_event(&ev, "template.built", NULL);
    gst_unfollow(&ev);
    dmn_wait_for(&g.d, pool, "parked", 1);
    j = dmn_json(&g.d, 200, "GET", "/v1/templates/web", NULL);
    int64_t generation = dmn_int(j, "generation");
    cr_expect_str_eq(dmn_str(j, "state"), "ready");
    cr_expect_gt(generation, 1);
    vf_json_delete(j);
    expect_hit(&g, generation);
    free(gst_run(&g.d, lease, "[\"hostname\"]")); /* the VM of before is as it was */
    gst_close(&g);
    cr_expect_not(has_generation(&g, 1), "the quarantined generation is still there");
}

Test(daemon_faults, a_quarantine_outlives_the_daemon)
{
    char id[16], lease[16];
    struct gst g;
    TINY_OR_SKIP("a_quarantine_outlives_the_daemon");
    quarantine(&g, lease);
    dmn_kill(&g.d);
    dmn_start(&g.d);
    struct vf_json *j = gst_acquire(&g.d, "web", id);
    cr_expect_str_eq(dmn_str(j, "source"), "cold", "%s", dmn_str(j, "reason"));
    vf_json_delete(j);
    mend(&g);
    dmn_wait_for(&g.d, pool, "parked", 1);
    j = dmn_json(&g.d, 200, "GET", pool, NULL);
    int64_t generation = dmn_int(j, "generation");
    cr_expect_gt(generation, 1);
    vf_json_delete(j);
    expect_hit(&g, generation);
    free(gst_run(&g.d, lease, "[\"hostname\"]"));
    gst_close(&g);
}

/* Adopted in whatever order their directories come, but listed as they were leased. */
Test(daemon_faults, leases_stay_oldest_first)
{
    char id[16], before[64] = "", at[64];
    struct gst g;
    TINY_OR_SKIP("leases_stay_oldest_first");
    open_web(&g, NULL);
    gst_warm(&g.d, "web", 1);
    for (int i = 0; i < 6; i++)
        gst_take(&g.d, "web", id);
    dmn_kill(&g.d);
    dmn_start(&g.d);
    struct vf_json *j = dmn_json(&g.d, 200, "GET", "/v1/vms", NULL);
    for (size_t i = 0; i < 6; i++) {
        const struct vf_json *vm = vf_json_at(vf_json_get(j, "vms"), i);
        snprintf(at, sizeof(at), "%s",
                 vf_json_str(vf_json_get(vf_json_get(vm, "lease"), "acquired"), ""));
        cr_expect_geq(strcmp(at, before), 0, "%s after %s", at, before);
        cr_expect_str_not_empty(at);
        snprintf(before, sizeof(before), "%s", at);
    }
    vf_json_delete(j);
    gst_close(&g);
}

/* ---- VMMs that are killed */

/* A command that runs until its VM ends. */
static void hang_in(struct gst *g, const char *id, struct dmn_conn *c)
{
    char path[64];
    snprintf(path, sizeof(path), "/v1/vms/%s/exec", id);
    dmn_dial(&g->d, c, "api.sock");
    dmn_ask(c, "POST", path, NULL, "{\"argv\":[\"hang\"]}");
    cr_assert_eq(dmn_head(c), 200);
}

Test(daemon_faults, a_leased_vm_that_dies)
{
    char id[16], path[64], exec[80], line[4096];
    struct gst g;
    struct gst_events ev;
    struct dmn_conn c;
    TINY_OR_SKIP("a_leased_vm_that_dies");
    open_web(&g, NULL);
    gst_warm(&g.d, "web", 1);
    gst_set(&g.d, "web", "{\"target\":1}");
    struct vf_json *j = gst_acquire(&g.d, "web", id);
    pid_t pid = (pid_t)dmn_int(j, "pid");
    vf_json_delete(j);
    dmn_wait_for(&g.d, pool, "parked", 1);
    gst_set(&g.d, "web", "{\"target\":0}");
    gst_await_vmms(&g, 1);
    hang_in(&g, id, &c);
    gst_follow(&g.d, &ev);

    int64_t at = vf_now_us();
    cr_assert_eq(kill(pid, SIGKILL), 0);
    j = gst_event(&ev, "vm.died", id);
    int64_t us = vf_now_us() - at;
    fprintf(stderr, "daemon_faults: a VM's death was told of %.1f ms after its VMM was killed\n",
            (double)us / 1000);
    cr_expect_lt(us, 10 * 1000 * 1000);
    cr_expect_str_eq(dmn_str(j, "code"), "vmm_died");
    vf_json_delete(j);
    cr_expect(dmn_line(&c, line, sizeof(line)));
    cr_expect(strstr(line, "\"error\""), "%s", line); /* the command hears of it */
    cr_expect_not(dmn_line(&c, line, sizeof(line)));
    dmn_hang_up(&c);

    snprintf(path, sizeof(path), "/v1/vms/%s", id);
    snprintf(exec, sizeof(exec), "%s/exec", path);
    dmn_await_vm_dirs(&g.d, 0); /* its remains go, its lease stays */
    j = dmn_json(&g.d, 200, "GET", path, NULL);
    cr_expect_str_eq(dmn_str(j, "state"), "dead");
    cr_expect_str_eq(dmn_str(j, "death.code"), "vmm_died");
    vf_json_delete(j);
    char *text = dmn_call(&g.d, 500, "POST", exec, "{\"argv\":[\"hostname\"]}");
    cr_expect(strstr(text, "is dead"), "%s", text);
    free(text);
    gst_await_vmms(&g, 0);
    gst_release(&g.d, id);
    gst_release(&g.d, id);
    gst_unfollow(&ev);
    gst_close(&g);
}

Test(daemon_faults, a_parked_vm_that_dies_is_replaced)
{
    char id[16];
    struct gst g;
    struct gst_events ev;
    TINY_OR_SKIP("a_parked_vm_that_dies_is_replaced");
    open_web(&g, NULL);
    gst_warm(&g.d, "web", 1);
    gst_follow(&g.d, &ev);
    for (int round = 0; round < 3; round++) {
        struct vf_json *j = dmn_json(&g.d, 200, "GET", "/v1/vms?parked=true", NULL);
        snprintf(id, sizeof(id), "%.15s", dmn_str(j, "vms.0.id"));
        cr_assert_eq(kill((pid_t)dmn_int(j, "vms.0.pid"), SIGKILL), 0);
        vf_json_delete(j);
        gst_await_event(&ev, "vm.died", id);
        gst_await_event(&ev, "vm.parked", NULL);
    }
    struct vf_json *j = gst_acquire(&g.d, "web", NULL);
    cr_expect_str_eq(dmn_str(j, "source"), "hit");
    cr_expect_str_neq(dmn_str(j, "id"), id);
    vf_json_delete(j);
    gst_unfollow(&ev);
    gst_close(&g);
}

/* ---- a VMM that stands still while the daemon comes back */

/* Until all is adopted the stored generation waits to be loaded: another must not be built in its place. */
Test(daemon_faults, a_slow_adoption_builds_nothing)
{
    static const char *const args[] = {"--set", "answer_timeout_ms=1000", NULL};
    char id[16];
    struct gst g;
    TINY_OR_SKIP("a_slow_adoption_builds_nothing");
    open_web(&g, args);
    gst_warm(&g.d, "web", 1);
    struct vf_json *j = gst_acquire(&g.d, "web", id);
    pid_t pid = (pid_t)dmn_int(j, "pid");
    vf_json_delete(j);
    dmn_wait_for(&g.d, pool, "parked", 1);
    dmn_kill(&g.d);
    cr_assert_eq(kill(pid, SIGSTOP), 0);
    dmn_start(&g.d);
    dmn_wait_for(&g.d, pool, "parked", 1);
    j = dmn_json(&g.d, 200, "GET", "/v1/templates/web", NULL);
    cr_expect_eq(dmn_int(j, "generation"), 1);
    cr_expect_eq(dmn_int(j, "build.attempts"), 0);
    vf_json_delete(j);
    gst_close(&g);
}

/* ---- stopping, whatever hangs */

/* A guest that stands still, a caller that waits for it, a command, a reader of events, half a request. */
Test(daemon_faults, stopping_is_bounded)
{
    static const char *const args[] = {"--set", "on_stop=destroy-all", NULL};
    char id[16];
    struct gst g;
    struct gst_events ev;
    struct dmn_conn waiting, command, half;
    TINY_OR_SKIP("stopping_is_bounded");
    open_web(&g, args);
    gst_set(&g.d, "web", "{\"park\":\"paused\"}");
    gst_warm(&g.d, "web", 1);
    gst_take(&g.d, "web", id);
    dmn_wait_for(&g.d, pool, "parked", 1);
    gst_set(&g.d, "web", "{\"refill_concurrency\":1}");
    hang_in(&g, id, &command);
    gst_follow(&g.d, &ev);
    struct vf_json *j = dmn_json(&g.d, 200, "GET", "/v1/vms?parked=true", NULL);
    for (size_t i = 0; i < 2; i++) {
        const struct vf_json *vm = vf_json_at(vf_json_get(j, "vms"), i);
        cr_assert_eq(kill((pid_t)dmn_int(vm, "pid"), SIGSTOP), 0);
    }
    vf_json_delete(j);
    dmn_dial(&g.d, &waiting, "api.sock"); /* for a VM whose VMM does not answer */
    dmn_ask(&waiting, "POST", "/v1/vms", NULL, "{\"template\":\"web\"}");
    dmn_dial(&g.d, &half, "api.sock");
    cr_assert(dmn_send(&half, "POST /v1/vms HTTP/1.1\r\nContent-", 32));
    dmn_wait_for(&g.d, pool, "parked", 0);

    int64_t at = vf_now_us();
    cr_expect_eq(dmn_stop(&g.d), 0);
    fprintf(stderr, "daemon_faults: stopped in %.0f ms\n", (double)(vf_now_us() - at) / 1000);
    gst_await_vmms(&g, 0);
    dmn_await_vm_dirs(&g.d, 0);
    dmn_await_close(&waiting);
    dmn_await_close(&command);
    dmn_await_close(&half);
    dmn_hang_up(&waiting);
    dmn_hang_up(&command);
    dmn_hang_up(&half);
    gst_unfollow(&ev);
    dmn_close(&g.d);
}

/* Disks that are full: the run directory, which every VM needs, and the state directory, which templates need. Both are
 * file systems of a few pages in a mount namespace of the test's own. What is asked for is refused with no_space and
 * its reason, what was there goes on, and with room again all works as before.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include "tests/e2e/daemon_guest.h"
#include "tests/e2e/support.h"

TestSuite(daemon_full, .timeout = 120);

static const char pool[] = "/v1/pools/web", web[] = "{\"template\":\"web\"}";

static const char *can_mount(void)
{
    static char reason[128];
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        snprintf(reason, sizeof(reason), "a mount namespace: %s", strerror(errno));
    return reason;
}

#define MOUNT_OR_SKIP(name) \
    if (can_mount()[0])     \
    sup_skip("daemon_full", name, "%s", can_mount())

static void mount_small(const char *dir, const char *options)
{
    cr_assert_eq(mount("vf-e2e", dir, "tmpfs", 0, options), 0, "%s: %s", dir, strerror(errno));
}

static void unmount(const char *dir)
{
    cr_assert_eq(umount2(dir, MNT_DETACH), 0, "%s: %s", dir, strerror(errno));
}

/* Writes until nothing more fits; make_room takes it away again. */
static void fill(const char *dir)
{
    static const char page[4096];
    char path[200];
    snprintf(path, sizeof(path), "%s/ballast", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    while (write(fd, page, sizeof(page)) > 0)
        ;
    cr_assert_eq(errno, ENOSPC);
    close(fd);
}

static void make_room(const char *dir)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/ballast", dir);
    cr_assert_eq(unlink(path), 0);
}

static void expect_no_space(struct dmn *d, const char *method, const char *path, const char *body)
{
    char *text = dmn_call(d, 507, method, path, body);
    cr_expect(strstr(text, "\"no_space\"") && strstr(text, "No space left on device"), "%s", text);
    free(text);
}

static void expect_leased(struct dmn *d, int64_t n)
{
    struct vf_json *j = dmn_json(d, 200, "GET", pool, NULL);
    cr_expect_eq(dmn_int(j, "leased"), n);
    vf_json_delete(j);
}

/* Nobody's VM is left, and all that is parked and leased is there. */
static void expect_tidy(struct dmn *d)
{
    dmn_wait_for(d, pool, "making", 0);
    struct vf_json *j = dmn_json(d, 200, "GET", pool, NULL);
    dmn_await_vm_dirs(d, dmn_int(j, "parked") + dmn_int(j, "leased"));
    vf_json_delete(j);
}

Test(daemon_full, run_directory)
{
    static const char *const args[] = {"--set", "backoff_initial_ms=10", "--set",
                                       "backoff_max_ms=20", NULL};
    char id[2][16], renew[64];
    struct dmn d;
    MOUNT_OR_SKIP("run_directory");
    dmn_prepare(&d, args);
    mount_small(d.run_dir, "size=512k");
    dmn_start(&d);
    dmn_null_template(&d, "web", 0);
    gst_set(&d, "web", "{\"park\":\"running\"}"); /* a paused one that was woken in vain would go */
    gst_warm(&d, "web", 2);
    gst_take(&d, "web", id[0]);
    dmn_wait_for(&d, pool, "parked", 2);

    fill(d.run_dir);
    for (int i = 0; i < 5; i++)
        expect_no_space(&d, "POST", "/v1/vms", web);
    snprintf(renew, sizeof(renew), "/v1/vms/%s/renew", id[0]);
    expect_no_space(&d, "POST", renew, "{\"ttl_ms\":100}");
    free(gst_run(&d, id[0], "[\"hostname\"]")); /* and did not change its end */
    expect_leased(&d, 1);
    struct vf_json *j = dmn_json(&d, 200, "GET", "/v1/vms", NULL);
    cr_expect_eq(dmn_int(j, "vms.0.lease.ttl_ms"), -1);
    vf_json_delete(j);
    j = dmn_json(&d, 200, "GET", pool, NULL);
    cr_expect_eq(dmn_int(j, "parked"), 2, "they are as they were");
    vf_json_delete(j);

    make_room(d.run_dir);
    dmn_wait_for(&d, pool, "parked", 2);
    gst_take(&d, "web", id[1]);
    free(gst_run(&d, id[1], "[\"hostname\"]"));
    fill(d.run_dir);
    gst_release(&d, id[0]); /* takes no room */
    make_room(d.run_dir);
    gst_release(&d, id[1]);
    expect_leased(&d, 0);
    dmn_wait_for(&d, pool, "parked", 2);
    expect_tidy(&d);
    cr_expect_eq(dmn_stop(&d), 0);
    unmount(d.run_dir);
    dmn_close(&d);
}

/* A daemon that is killed on a full disk and started there again still knows its leases. */
Test(daemon_full, killed_with_a_full_run_directory)
{
    char id[16], parked[16];
    struct gst g;
    if (gst_missing(false)[0])
        sup_skip("daemon_full", "killed_with_a_full_run_directory", "%s", gst_missing(false));
    MOUNT_OR_SKIP("killed_with_a_full_run_directory");
    gst_prepare(&g, NULL);
    mount_small(g.d.run_dir, "size=512k");
    dmn_start(&g.d);
    gst_tiny(&g, "web", NULL);
    gst_warm(&g.d, "web", 1);
    gst_take(&g.d, "web", id);
    dmn_wait_for(&g.d, pool, "parked", 1);
    gst_await_vmms(&g, 2);
    fill(g.d.run_dir);
    dmn_kill(&g.d);
    gst_await_vmms(&g, 2);
    dmn_start(&g.d);
    free(gst_run(&g.d, id, "[\"hostname\"]"));
    make_room(g.d.run_dir);
    dmn_wait_for(&g.d, pool, "parked", 1);
    gst_take(&g.d, "web", parked);
    cr_expect_str_neq(parked, id);
    free(gst_run(&g.d, parked, "[\"hostname\"]"));
    dmn_wait_for(&g.d, pool, "parked", 1);
    gst_await_vmms(&g, 3);
    gst_set(&g.d, "web", "{\"target\":0}");
    gst_release(&g.d, id);
    gst_release(&g.d, parked);
    cr_expect_eq(dmn_stop(&g.d), 0);
    gst_await_vmms(&g, 0);
    dmn_await_vm_dirs(&g.d, 0);
    unmount(g.d.run_dir);
    dmn_close(&g.d);
}

Test(daemon_full, state_directory)
{
    static const char *const args[] = {"--set", "backoff_initial_ms=10", "--set",
                                       "backoff_max_ms=20", NULL};
    static const char late[] = "{\"name\":\"late\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16}}";
    struct dmn d;
    struct gst_events ev;
    MOUNT_OR_SKIP("state_directory");
    dmn_prepare(&d, args);
    mount_small(d.dir, "size=512k");
    dmn_start(&d);
    dmn_null_template(&d, "web", 0);

    fill(d.dir);
    expect_no_space(&d, "POST", "/v1/templates", late);
    free(dmn_call(&d, 404, "GET", "/v1/templates/late", NULL));
    expect_no_space(&d, "PATCH", pool, "{\"target\":1}");
    struct vf_json *j = dmn_json(&d, 200, "GET", pool, NULL);
    cr_expect_eq(dmn_int(j, "config.target"), 0);
    vf_json_delete(j);
    gst_follow(&d, &ev);
    free(dmn_call(&d, 202, "POST", "/v1/templates/web/build", NULL));
    j = gst_event(&ev, "template.build_failed", NULL);
    cr_expect_str_eq(dmn_str(j, "code"), "no_space");
    vf_json_delete(j);
    j = dmn_json(&d, 200, "GET", "/v1/templates/web", NULL);
    cr_expect_str_eq(dmn_str(j, "build.error.code"), "no_space");
    vf_json_delete(j);
    char id[16];
    j = gst_acquire(&d, "web", id); /* takes none of the state directory */
    cr_expect_str_eq(dmn_str(j, "source"), "cold");
    vf_json_delete(j);

    make_room(d.dir);
    free(dmn_call(&d, 201, "POST", "/v1/templates", late));
    gst_warm(&d, "web", 1);
    gst_warm(&d, "late", 1);
    gst_release(&d, id);
    gst_unfollow(&ev);
    /* What could not be kept is not there after a restart either; what could is. */
    cr_expect_eq(dmn_stop(&d), 0);
    dmn_start(&d);
    dmn_wait_for(&d, pool, "parked", 1);
    dmn_wait_for(&d, "/v1/pools/late", "parked", 1);
    cr_expect_eq(dmn_stop(&d), 0);
    unmount(d.dir);
    dmn_close(&d);
}

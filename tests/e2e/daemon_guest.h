/* Daemons whose VMs are real: a QEMU of the test's own name, so that its processes can be counted; templates; commands
 * in guests; events.
 *
 *     struct gst g;
 *     gst_prepare(&g, NULL);
 *     dmn_start(&g.d);
 *     gst_tiny(&g, "web", NULL);
 *     gst_warm(&g, "web", 2);
 *     gst_take(&g, "web", id);
 *     …
 *     gst_close(&g);               // all is released; fails on a process or a directory that is left
 */
#ifndef VF_TESTS_E2E_DAEMON_GUEST_H
#define VF_TESTS_E2E_DAEMON_GUEST_H

#include "tests/e2e/daemon_support.h"

#define GST_MAX_ARGS 8

struct gst {
    struct dmn d;
    char qemu[100]; /* a symbolic link to QEMU, or what the test puts in its place */
    char set[120];  /* the option that says so */
    const char *args[GST_MAX_ARGS + 5];
};

/* "" or why the guest or QEMU is missing. */
const char *gst_missing(bool linux_guest);
/* args: more of the command line, NULL-ended, or NULL. */
void gst_prepare(struct gst *g, const char *const *args);
/* Releases all leases, drains all pools, stops the daemon: then no VMM and no VM's directory may be left. */
void gst_close(struct gst *g);
/* VMMs that run; waits until there are n. */
int gst_vmms(const struct gst *g);
void gst_await_vmms(const struct gst *g, int n);

/* Adds a template. cmdline: for the guest, or NULL; it is parked running */
void gst_tiny(struct gst *g, const char *name, const char *cmdline);
/* The shipped Linux guest, parked paused. */
void gst_linux(struct gst *g, const char *name);
/* Sets a pool's target and waits until that many are parked. */
void gst_warm(struct dmn *d, const char *name, int n);
/* PATCHes a pool. */
void gst_set(struct dmn *d, const char *name, const char *json);
/* An answer to POST /v1/vms, which must be 201; the test deletes it. id, if not NULL: 16 bytes. */
struct vf_json *gst_acquire(struct dmn *d, const char *name, char *ret_id);
void gst_take(struct dmn *d, const char *name, char *ret_id);
void gst_release(struct dmn *d, const char *id);
/* A command that must end with status 0; its stdout without a last newline, malloc'd. argv: a JSON array */
char *gst_run(struct dmn *d, const char *id, const char *argv);
/* Writes a file of the test's directory, replacing it by rename. */
void gst_write(const char *dir, const char *name, const char *text, mode_t mode);

/* ---- events, from now on */
struct gst_events {
    struct dmn_conn c;
};
void gst_follow(struct dmn *d, struct gst_events *ev);
/* The next one called name (of VM id, if not NULL); the test deletes it. */
struct vf_json *gst_event(struct gst_events *ev, const char *name, const char *id);
void gst_await_event(struct gst_events *ev, const char *name, const char *id);
void gst_unfollow(struct gst_events *ev);

#endif

/* See daemon_guest.h. */
#include "tests/e2e/daemon_guest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tests/e2e/support.h"

const char *gst_missing(bool linux_guest)
{
    const char *why = sup_target_missing(linux_guest ? &sup_qemu_tcg_linux : &sup_qemu_tcg_tiny);
    return why ? why : "";
}

void gst_prepare(struct gst *g, const char *const *args)
{
    int n = 4;
    memset(g, 0, sizeof(*g));
    g->args[0] = g->args[2] = "--set";
    g->args[1] = g->set;
    g->args[3] = "psi_some_percent=0"; /* the host may be as busy as it likes */
    for (; args && args[n - 4]; n++) {
        cr_assert_lt(n - 4, GST_MAX_ARGS);
        g->args[n] = args[n - 4];
    }
    dmn_prepare(&g->d, g->args);
    snprintf(g->qemu, sizeof(g->qemu), "%s/qemu", g->d.dir);
    snprintf(g->set, sizeof(g->set), "qemu=%s", g->qemu);
    cr_assert_eq(symlink(sup_qemu(), g->qemu), 0);
}

/* Each VMM was started by a name that lies in the test's directory. */
int gst_vmms(const struct gst *g)
{
    char path[300], line[300];
    DIR *proc = opendir("/proc");
    int n = 0;
    for (struct dirent *e; (e = readdir(proc));) {
        if (e->d_name[0] < '0' || e->d_name[0] > '9')
            continue;
        snprintf(path, sizeof(path), "/proc/%.20s/cmdline", e->d_name);
        FILE *f = fopen(path, "re");
        if (!f)
            continue;
        line[fread(line, 1, sizeof(line) - 1, f)] = 0; /* argv[0], NUL */
        fclose(f);
        n += strcmp(line, g->qemu) == 0;
    }
    closedir(proc);
    return n;
}

void gst_await_vmms(const struct gst *g, int n)
{
    int64_t until = vf_deadline_after_ms(DMN_LONG_MS);
    while (gst_vmms(g) != n && vf_now_us() < until)
        usleep(20000); /* no event tells when another's process has ended */
    cr_expect_eq(gst_vmms(g), n, "%d VMMs run, not %d", gst_vmms(g), n);
}

static void release_all(struct dmn *d)
{
    struct vf_json *j = dmn_json(d, 200, "GET", "/v1/vms", NULL);
    const struct vf_json *vm;
    for (size_t i = 0; (vm = vf_json_at(vf_json_get(j, "vms"), i)); i++)
        gst_release(d, dmn_str(vm, "id"));
    vf_json_delete(j);
}

static void drain_all(struct dmn *d)
{
    char path[100];
    struct vf_json *j = dmn_json(d, 200, "GET", "/v1/pools", NULL);
    const struct vf_json *pool;
    for (size_t i = 0; (pool = vf_json_at(vf_json_get(j, "pools"), i)); i++) {
        snprintf(path, sizeof(path), "/v1/pools/%s/drain", dmn_str(pool, "template"));
        free(dmn_call(d, 202, "POST", path, NULL));
    }
    vf_json_delete(j);
}

void gst_close(struct gst *g)
{
    drain_all(&g->d);
    release_all(&g->d);
    cr_expect_eq(dmn_stop(&g->d), 0);
    gst_await_vmms(g, 0);
    dmn_await_vm_dirs(&g->d, 0);
    dmn_close(&g->d);
}

void gst_tiny(struct gst *g, const char *name, const char *cmdline)
{
    char body[1000];
    snprintf(body, sizeof(body),
             "{\"name\":\"%s\",\"accel\":\"tcg\",\"memory\":{\"size_mib\":32},\"boot\":{\"kernel\":"
             "\"%s\",\"cmdline\":\"%s\"},\"agent\":{\"channel\":\"serial\"},\"park\":\"running\"}",
             name, sup_guest_file("tiny.elf"), cmdline ? cmdline : "quiet");
    free(dmn_call(&g->d, 201, "POST", "/v1/templates", body));
}

void gst_linux(struct gst *g, const char *name)
{
    char body[2000];
    snprintf(body, sizeof(body),
             "{\"name\":\"%s\",\"vmm\":\"qemu\",\"machine\":\"microvm\",\"accel\":\"tcg\","
             "\"vcpus\":1,\"memory\":{\"size_mib\":256},\"boot\":{\"kernel\":\"%s\",\"initrd\":"
             "\"%s\"},\"agent\":{\"channel\":\"virtio-serial\"}}",
             name, sup_guest_file("vmlinuz"), sup_guest_file("initramfs.cpio"));
    free(dmn_call(&g->d, 201, "POST", "/v1/templates", body));
}

void gst_set(struct dmn *d, const char *name, const char *json)
{
    char path[100];
    snprintf(path, sizeof(path), "/v1/pools/%s", name);
    free(dmn_call(d, 200, "PATCH", path, json));
}

void gst_warm(struct dmn *d, const char *name, int n)
{
    char path[100], body[100];
    snprintf(path, sizeof(path), "/v1/pools/%s/warm", name);
    snprintf(body, sizeof(body), "{\"count\":%d}", n);
    free(dmn_call(d, 202, "POST", path, body));
    snprintf(path, sizeof(path), "/v1/pools/%s", name);
    dmn_wait_for(d, path, "parked", n);
}

struct vf_json *gst_acquire(struct dmn *d, const char *name, char *ret_id)
{
    char body[100];
    snprintf(body, sizeof(body), "{\"template\":\"%s\"}", name);
    struct vf_json *j = dmn_json(d, 201, "POST", "/v1/vms", body);
    if (ret_id)
        snprintf(ret_id, 16, "%.15s", dmn_str(j, "id"));
    return j;
}

void gst_take(struct dmn *d, const char *name, char *ret_id)
{
    vf_json_delete(gst_acquire(d, name, ret_id));
}

void gst_release(struct dmn *d, const char *id)
{
    char path[64];
    snprintf(path, sizeof(path), "/v1/vms/%.15s", id);
    free(dmn_call(d, 204, "DELETE", path, NULL));
}

char *gst_run(struct dmn *d, const char *id, const char *argv)
{
    char path[64], body[1000];
    size_t len = 0;
    bool ended = false;
    snprintf(path, sizeof(path), "/v1/vms/%.15s/exec", id);
    snprintf(body, sizeof(body), "{\"argv\":%s}", argv);
    char *text = dmn_call(d, 200, "POST", path, body), *next;
    char *out = calloc(1, strlen(text) + 1);
    for (char *line = text; *line; line = next) {
        next = line + strcspn(line, "\n");
        struct vf_json *j = vf_json_parse(line, (size_t)(next - line));
        next += *next == '\n';
        cr_assert(j, "%s in %s: %s", argv, id, text);
        if (strcmp(dmn_str(j, "stream"), "stdout") == 0)
            len += (size_t)sprintf(out + len, "%s", dmn_str(j, "data"));
        ended |= dmn_int(j, "exit.code") == 0;
        vf_json_delete(j);
    }
    cr_assert(ended, "%s in %s: %s", argv, id, text);
    if (len && out[len - 1] == '\n')
        out[len - 1] = 0;
    free(text);
    return out;
}

void gst_write(const char *dir, const char *name, const char *text, mode_t mode)
{
    VF_CLEANUP_FD int fd = -1;
    struct vf_error e;
    cr_assert_eq(vf_open_dir(dir, 1, 0700, &fd, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_write_file(fd, name, text, strlen(text), mode, &e), 0, "%s", e.msg);
}

/* ---- events */

void gst_follow(struct dmn *d, struct gst_events *ev)
{
    dmn_dial(d, &ev->c, "api.sock");
    dmn_ask(&ev->c, "GET", "/v1/events", NULL, NULL);
    cr_assert_eq(dmn_head(&ev->c), 200);
}

struct vf_json *gst_event(struct gst_events *ev, const char *name, const char *id)
{
    char line[8192];
    for (;;) {
        cr_assert(dmn_line(&ev->c, line, sizeof(line)), "no event %s came", name);
        struct vf_json *j = vf_json_parse(line, strlen(line));
        cr_assert(j, "%s", line);
        if (strcmp(dmn_str(j, "event"), name) == 0 && (!id || strcmp(dmn_str(j, "vm"), id) == 0))
            return j;
        vf_json_delete(j);
    }
}

void gst_await_event(struct gst_events *ev, const char *name, const char *id)
{
    vf_json_delete(gst_event(ev, name, id));
}

void gst_unfollow(struct gst_events *ev)
{
    dmn_hang_up(&ev->c);
}

/* Targets and VMs for the end-to-end tests. */
#include "tests/e2e/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "base/programs.h"
#include "factory/tsc.h"

#define MIB ((uint64_t)1 << 20)

#define TARGET(name, driver, accel, linux_guest, vsock) \
    const struct sup_target sup_##name = {#name, driver, accel, linux_guest, vsock}

TARGET(null, "null", VF_ACCEL_TCG, false, false);
TARGET(qemu_kvm_tiny, "qemu", VF_ACCEL_KVM, false, false);
TARGET(qemu_tcg_tiny, "qemu", VF_ACCEL_TCG, false, false);
TARGET(qemu_tcg_linux, "qemu", VF_ACCEL_TCG, true, false);
TARGET(cloud_hypervisor_tiny, "cloud-hypervisor", VF_ACCEL_KVM, false, false);
TARGET(firecracker_tiny, "firecracker", VF_ACCEL_KVM, false, false);
TARGET(cloud_hypervisor_tiny_vsock, "cloud-hypervisor", VF_ACCEL_KVM, false, true);
TARGET(firecracker_tiny_vsock, "firecracker", VF_ACCEL_KVM, false, true);

const char *sup_qemu(void)
{
    const char *q = getenv("VF_QEMU");
    return q && q[0] ? q : "/usr/bin/qemu-system-x86_64";
}

/* What kvm-shim says is to be run instead of program; in buf. */
static const char *shimmed(const char *program, char *buf, size_t size)
{
    char command[1200];
    const char *tests = getenv("VF_TESTS");
    snprintf(command, sizeof(command), "'%s/kvm-shim' '%s' '%s'", tests ? tests : "build/tests",
             program, tests ? tests : "build/tests");
    FILE *f = popen(command, "re");
    cr_assert(f && fgets(buf, (int)size, f), "kvm-shim %s", program);
    cr_assert_eq(pclose(f), 0, "kvm-shim %s", program);
    buf[strcspn(buf, "\n")] = 0;
    return buf;
}

static const char *find_vmm(const char *variable, const char *name)
{
    static char path[2][512];
    char *ret = path[strcmp(name, "firecracker") == 0], *found = NULL;
    const char *named = getenv(variable);
    if (ret[0])
        return ret;
    if (!(named && named[0]) &&
        vf_find_program(name, "it", &found, NULL) < 0) /* the variable or PATH */
        return NULL;
    shimmed(named && named[0] ? named : found, ret, sizeof(path[0]));
    free(found);
    return ret;
}

const char *sup_cloud_hypervisor(void)
{
    return find_vmm("VF_CLOUD_HYPERVISOR", "cloud-hypervisor");
}

const char *sup_firecracker(void)
{
    return find_vmm("VF_FIRECRACKER", "firecracker");
}

const char *sup_target_binary(const struct sup_target *t)
{
    if (strcmp(t->driver, "cloud-hypervisor") == 0)
        return sup_cloud_hypervisor();
    return strcmp(t->driver, "firecracker") == 0 ? sup_firecracker() : sup_qemu();
}

const char *sup_guest_file(const char *name)
{
    static char path[4][512];
    static int next;
    const char *build = getenv("VF_BUILD");
    char *p = path[next++ % 4];
    if (build && build[0])
        snprintf(p, sizeof(path[0]), "%.400s/guest/%s", build, name);
    else {
        char cwd[400];
        cr_assert(getcwd(cwd, sizeof(cwd)));
        snprintf(p, sizeof(path[0]), "%s/build/guest/%s", cwd, name);
    }
    return p;
}

const char *sup_target_missing(const struct sup_target *t)
{
    static char reason[600];
    if (strcmp(t->driver, "null") == 0)
        return NULL;
    if (!sup_target_binary(t)) {
        snprintf(reason, sizeof(reason), "%s: not on PATH, and %s is not set", t->driver,
                 strcmp(t->driver, "firecracker") == 0 ? "VF_FIRECRACKER" : "VF_CLOUD_HYPERVISOR");
        return reason;
    }
    const char *need[] = {sup_target_binary(t),
                          t->linux_guest ? sup_guest_file("vmlinuz") : sup_guest_file("tiny.elf"),
                          t->linux_guest ? sup_guest_file("initramfs.cpio") : NULL};
    for (int i = 0; i < 3; i++)
        if (need[i] && access(need[i], R_OK) < 0) {
            snprintf(reason, sizeof(reason), "%s: %s", need[i], strerror(errno));
            return reason;
        }
    if (t->accel == VF_ACCEL_KVM) {
        VF_CLEANUP_FD int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (fd < 0) {
            snprintf(reason, sizeof(reason), "/dev/kvm: %s", strerror(errno));
            return reason;
        }
    }
    return NULL;
}

static uint64_t memory_size(const struct sup_target *t)
{
    return (t->linux_guest ? 256 : 64) * MIB;
}

bool sup_linked_memory(const struct sup_target *t)
{
    struct vf_vmm_caps caps;
    const struct vf_vmm_ops *ops = vf_vmm_find(t->driver);
    cr_assert(ops, "no driver %s", t->driver);
    ops->capabilities(NULL, &caps);
    return caps.linked_memory;
}

/* Files of memory that have a name, by serial number and this process. */
static int n_linked;

static void linked_name(int i, char ret[64])
{
    snprintf(ret, 64, "/dev/shm/vf-e2e-%d-%d", (int)getpid(), i);
}

void sup_remove_linked(void)
{
    char name[64];
    while (n_linked > 0) {
        linked_name(--n_linked, name);
        unlink(name);
    }
}

static int linked_file(void)
{
    char name[64];
    if (n_linked == 0)
        atexit(sup_remove_linked); /* a test that fails */
    linked_name(n_linked++, name);
    return open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

int sup_memory(const struct sup_target *t)
{
    int fd = sup_linked_memory(t) ? linked_file()
                                  : memfd_create("vf-e2e", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_geq(fd, 0, "memory: %s", strerror(errno));
    cr_assert_eq(ftruncate(fd, (off_t)memory_size(t)), 0);
    return fd;
}

int sup_clone_memory(const struct sup_target *t, int fd)
{
    char buf[65536];
    off_t at = 0, end = (off_t)memory_size(t);
    int copy = memfd_create("vf-e2e", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_geq(copy, 0);
    cr_assert_eq(ftruncate(copy, end), 0);
    while ((at = lseek(fd, at, SEEK_DATA)) >= 0 && at < end) {
        ssize_t n = pread(fd, buf, sizeof(buf), at);
        cr_assert_gt(n, 0);
        cr_assert_eq(pwrite(copy, buf, (size_t)n, at), n);
        at += n;
    }
    return copy;
}

void sup_digest(int fd, char ret_hex[65])
{
    struct vf_error e;
    cr_assert_eq(vf_sha256_fd(fd, "memory", ret_hex, &e), 0, "%s", e.msg);
}

int sup_dir(struct sup *s, const char *name)
{
    cr_assert_eq(mkdirat(s->dirfd, name, 0700), 0, "mkdir %s: %s", name, strerror(errno));
    int fd = openat(s->dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    return fd;
}

static void on_event(void *arg, const struct vf_vm_event *ev)
{
    struct sup_vm *v = arg;
    cr_assert_not(v->exited, "an event after EXITED");
    if (v->n_events < SUP_MAX_EVENTS)
        v->events[v->n_events++] = ev->type;
    snprintf(v->detail, sizeof(v->detail), "%s", ev->detail);
    v->failed |= ev->type == VF_VM_EVENT_FAILED;
    if (ev->type == VF_VM_EVENT_EXITED) {
        v->exited_events++;
        v->exited = true;
    }
}

const char *sup_events(const struct sup_vm *v)
{
    static const char *const names[] = {"paused",   "resumed", "shutdown",
                                        "panicked", "failed",  "exited"};
    static char text[1024];
    text[0] = 0;
    for (int i = 0; i < v->n_events; i++) {
        size_t len = strlen(text);
        snprintf(text + len, sizeof(text) - len, "%s%s", len ? " " : "", names[v->events[i]]);
    }
    return text;
}

/* As the factory's (factory/cmdline.c says why the frequency). */
static const char *linux_cmdline(void)
{
    static char text[128];
    char tsc[40] = "";
    if (vf_tsc_khz())
        snprintf(tsc, sizeof(tsc), " tsc_early_khz=%lld", (long long)vf_tsc_khz());
    snprintf(text, sizeof(text),
             "console=ttyS0 quiet panic=-1 reboot=t%s vf.channel=virtio-serial:vf.agent", tsc);
    return text;
}

struct sup_vm *sup_vm_new(struct sup *s, const struct sup_target *t, const char *name)
{
    struct vf_error e;
    struct sup_vm *v = calloc(1, sizeof(*v));
    cr_assert(v && s->n_vms < SUP_MAX_VMS);
    s->vms[s->n_vms++] = v;
    v->s = s;
    v->target = t;
    v->own_memory = -1;
    snprintf(v->name, sizeof(v->name), "%s", name);
    v->dirfd = sup_dir(s, name);
    const struct vf_vmm_ops *ops = vf_vmm_find(t->driver);
    cr_assert(ops, "no driver %s", t->driver);
    cr_assert_eq(vf_vm_new(&s->loop, ops, on_event, v, &v->vm, &e), 0, "%s", e.msg);
    v->cfg = (struct vf_vm_config){
        .id = v->name,
        .dirfd = v->dirfd,
        .binary = sup_target_binary(t),
        .machine = VF_MACHINE_MICROVM,
        .accel = t->accel,
        .vcpus = 1,
        .memory_size = memory_size(t),
        .memory_fd = -1,
        .memory_shared = true,
        .kernel = t->linux_guest ? sup_guest_file("vmlinuz") : sup_guest_file("tiny.elf"),
        .initrd = t->linux_guest ? sup_guest_file("initramfs.cpio") : NULL,
        .cmdline = t->linux_guest ? linux_cmdline() : NULL,
        .channel = t->vsock         ? VF_CHANNEL_VSOCK
                   : t->linux_guest ? VF_CHANNEL_VIRTIO_SERIAL
                                    : VF_CHANNEL_SERIAL,
        .balloon = true,
        .die_with_parent = true,
        .create_timeout_ms = SUP_LONG_MS,
    };
    return v;
}

void sup_vm_renew(struct sup_vm *v)
{
    struct vf_error e;
    const struct vf_vmm_ops *ops = vf_vmm_find(v->target->driver);
    cr_assert_null(v->vm);
    cr_assert_eq(vf_vm_new(&v->s->loop, ops, on_event, v, &v->vm, &e), 0, "%s", e.msg);
    v->op = (struct sup_op){.code = VF_INTERNAL};
}

struct sup_vm *sup_vm_clone_of(struct sup *s, const struct sup_vm *tpl, const char *name)
{
    struct sup_vm *v = sup_vm_new(s, tpl->target, name);
    v->cfg.memory_fd = tpl->cfg.memory_fd;
    if (sup_linked_memory(v->target)) {
        v->own_memory = v->cfg.memory_fd = sup_clone_memory(v->target, tpl->cfg.memory_fd);
        cr_assert_eq(fcntl(v->own_memory, F_ADD_SEALS,
                           F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
                     0);
    }
    v->cfg.memory_shared = false;
    v->cfg.incoming = true;
    v->cfg.kernel = v->cfg.initrd = v->cfg.cmdline = NULL;
    v->cfg.console = tpl->cfg.console;
    return v;
}

void sup_on_done(void *arg, const struct vf_error *err)
{
    struct sup_op *op = arg;
    op->done = true;
    op->calls++;
    op->code = err ? err->code : VF_OK;
    if (err)
        op->err = *err;
    cr_assert_eq(op->calls, 1, "done was called twice");
}

int sup_try(struct sup_vm *v, enum vf_vm_op op, int dirfd, int64_t timeout_ms, struct vf_error *err)
{
    /* A refusal must not disturb the operation under way, whose result is still awaited. */
    struct sup_op *slot = &v->op, refused = {0};
    bool under_way = slot->calls == 0 && slot->code == VF_INTERNAL;
    if (under_way)
        slot = &refused;
    else
        *slot = (struct sup_op){.code = VF_INTERNAL};
    int r;
    *err = (struct vf_error){0};
    switch (op) {
    case VF_VM_OP_CREATE:
        if (timeout_ms > 0)
            v->cfg.create_timeout_ms = timeout_ms;
        r = vf_vm_create(v->vm, &v->cfg, sup_on_done, slot, err);
        break;
    case VF_VM_OP_START:
        r = vf_vm_start(v->vm, timeout_ms, sup_on_done, slot, err);
        break;
    case VF_VM_OP_PAUSE:
        r = vf_vm_pause(v->vm, timeout_ms, sup_on_done, slot, err);
        break;
    case VF_VM_OP_SAVE:
        r = vf_vm_save(v->vm, dirfd, timeout_ms, sup_on_done, slot, err);
        break;
    case VF_VM_OP_RESTORE:
        r = vf_vm_restore(v->vm, dirfd, timeout_ms, sup_on_done, slot, err);
        break;
    case VF_VM_OP_RESUME:
        r = vf_vm_resume(v->vm, timeout_ms, sup_on_done, slot, err);
        break;
    case VF_VM_OP_BALLOON:
        r = vf_vm_balloon(v->vm, v->cfg.memory_size / 2, timeout_ms, sup_on_done, slot, err);
        break;
    default:
        r = vf_vm_query(v->vm, timeout_ms, sup_on_done, slot, err);
    }
    cr_assert_eq(slot->calls, 0, "done was called before the operation had returned");
    if (r < 0)
        cr_assert(err->code != VF_OK && err->msg[0], "refused without a word");
    if (r < 0 && !under_way) {
        slot->code = err->code;
        slot->err = *err;
    }
    cr_assert(!(under_way && r == 0), "a second operation was accepted");
    return r;
}

enum vf_code sup_wait(struct sup_vm *v)
{
    char what[64];
    snprintf(what, sizeof(what), "operation on %s", v->name);
    sup_run(v->s, &v->op.done, SUP_LONG_MS, what);
    if (v->op.code != VF_OK)
        cr_assert(v->op.err.msg[0], "an error without a word");
    return v->op.code;
}

enum vf_code sup_do(struct sup_vm *v, enum vf_vm_op op, int dirfd, int64_t timeout_ms)
{
    struct vf_error e;
    if (timeout_ms == 0)
        timeout_ms = SUP_LONG_MS;
    if (sup_try(v, op, dirfd, timeout_ms, &e) < 0)
        return e.code;
    return sup_wait(v);
}

void sup_must(struct sup_vm *v, enum vf_vm_op op, int dirfd)
{
    enum vf_code code = sup_do(v, op, dirfd, 0);
    cr_assert_eq(code, VF_OK, "%s: operation %d: %s: %s (%s)", v->name, op, vf_code_name(code),
                 v->op.err.msg, v->op.err.hint);
}

void sup_vm_stop_begin(struct sup_vm *v, int64_t grace_ms)
{
    struct vf_error e;
    v->stop = (struct sup_op){0};
    bool under_way = v->op.calls == 0 && v->op.code == VF_INTERNAL;
    cr_assert_eq(vf_vm_stop(v->vm, grace_ms, sup_on_done, &v->stop, &e), 0, "%s", e.msg);
    cr_assert_eq(v->stop.calls, 0, "stop was done before it had returned");
    if (under_way)
        cr_assert_eq(v->op.code, VF_CANCELLED, "stop ends the operation under way");
    cr_assert_eq(vf_vm_stop(v->vm, 0, sup_on_done, &v->stop, &e), vf_code_errno(VF_CONFLICT));
}

void sup_vm_stop_end(struct sup_vm *v)
{
    int n = v->n_events;
    sup_run(v->s, &v->stop.done, SUP_LONG_MS, "stop");
    cr_assert_eq(v->stop.code, VF_OK);
    cr_assert_eq(v->n_events, n, "an event after stop");
    cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_GONE);
    cr_assert_eq(vf_vm_info_of(v->vm)->pid, 0);
    vf_vm_free(v->vm);
    v->vm = NULL;
    struct vf_names left;
    if (vf_dir_names(v->dirfd, &left, NULL) == 0) {
        cr_assert_eq(left.n, 0, "%s: stop left files in its directory: %s, …", v->name, left.v[0]);
        vf_names_free(&left);
    }
    vf_close_fd(&v->dirfd);
    vf_close_fd(&v->own_memory);
}

void sup_vm_stop(struct sup_vm *v, int64_t grace_ms)
{
    sup_vm_stop_begin(v, grace_ms);
    sup_vm_stop_end(v);
}

void sup_vm_kill(struct sup_vm *v)
{
    pid_t pid = vf_vm_info_of(v->vm)->pid;
    if (pid > 0)
        cr_assert_eq(kill(pid, SIGKILL), 0);
    else
        vf_null_kill(v->vm);
}

/* Every thread of it: until the one that takes the signal has run, the others go on. */
static bool is_stopped(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *d = opendir(path);
    bool stopped = d != NULL;
    for (struct dirent *e; stopped && (e = readdir(d));) {
        char name[300], text[512];
        if (e->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/stat", e->d_name);
        VF_CLEANUP_FD int fd = openat(dirfd(d), name, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
        text[n > 0 ? n : 0] = 0;
        const char *p = strrchr(text, ')');
        stopped = !p || p[2] == 'T' || p[2] == 'Z' || p[2] == 'X';
    }
    if (d)
        closedir(d);
    return stopped;
}

void sup_vm_hang(struct sup_vm *v)
{
    pid_t pid = vf_vm_info_of(v->vm)->pid;
    struct vf_null_script script;
    if (pid > 0) {
        int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
        cr_assert_eq(kill(pid, SIGSTOP), 0);
        while (!is_stopped(pid))
            cr_assert_neq(vf_deadline_left_ms(deadline_us), 0, "%s does not stop", v->name);
        return;
    }
    cr_assert_eq(vf_null_script_parse("create:hang;start:hang;pause:hang;save:hang;restore:hang;"
                                      "resume:hang;balloon:hang;query:hang;stop:hang",
                                      &script, NULL),
                 0);
    vf_null_set_script(v->vm, &script);
}

void sup_make_saved(struct sup *s, const struct sup_target *t, int memory_fd, int dirfd)
{
    static int serial;
    char name[32];
    snprintf(name, sizeof(name), "saver%d", ++serial);
    struct sup_vm *v = sup_vm_new(s, t, name);
    v->cfg.memory_fd = memory_fd;
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_START, -1);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    sup_must(v, VF_VM_OP_SAVE, dirfd);
    sup_vm_stop(v, 0);
}

/* What only a real Firecracker shows: that a save into empty memory leaves nothing out, that each clone finds its own
 * disk and vsock under the one name its template had, that a VM goes on without the process that made it, and how
 * a guest's end is told. Skipped, loudly, without one.
 */
#include "tests/e2e/support.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/hash.h"
#include "vmm/process.h"

static const struct sup_target *const target = &sup_firecracker_tiny;

struct real {
    struct sup s;
    int memory_fd;
};

#define REAL_TEST(name)                                         \
    static void name(struct real *r);                           \
    Test(firecracker_real, name, .timeout = 120)                \
    {                                                           \
        struct real r = {.memory_fd = -1};                      \
        const char *missing = sup_target_missing(target);       \
        if (missing)                                            \
            sup_skip("firecracker_real", #name, "%s", missing); \
        sup_open(&r.s);                                         \
        r.memory_fd = sup_memory(target);                       \
        name(&r);                                               \
        vf_close_fd(&r.memory_fd);                              \
        sup_close(&r.s);                                        \
    }                                                           \
    static void name(struct real *r)

static struct sup_vm *new_vm(struct real *r, const char *name)
{
    struct sup_vm *v = sup_vm_new(&r->s, target, name);
    v->cfg.memory_fd = r->memory_fd;
    return v;
}

static void start(struct sup_vm *v)
{
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_START, -1);
}

static void restore(struct sup_vm *v, int dirfd)
{
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_RESTORE, dirfd);
    sup_must(v, VF_VM_OP_RESUME, -1);
}

static void must_answer(struct sup_vm *v)
{
    struct sup_hello hello;
    struct sup_agent *a = sup_agent_open(v);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0, "%s is silent", v->name);
    sup_agent_close(a);
}

/* Whether v's process has path open. */
static bool has_open(struct sup_vm *v, const char *path)
{
    char link[64], at[512];
    for (int fd = 0; fd < 64; fd++) {
        snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)vf_vm_info_of(v->vm)->pid, fd);
        ssize_t n = readlink(link, at, sizeof(at) - 1);
        at[n > 0 ? n : 0] = 0;
        if (strcmp(at, path) == 0)
            return true;
    }
    return false;
}

/* ---- memory */

static int64_t bytes_held(int fd)
{
    struct stat st;
    cr_assert_eq(fstat(fd, &st), 0);
    return (int64_t)st.st_blocks * 512;
}

/* Whether memory_fd has what lies at base in the VMM's memory. */
static bool same_memory(struct real *r, int mem, off_t base, uint64_t size)
{
    static uint8_t saved[1 << 20], own[1 << 20];
    for (off_t at = 0; at < (off_t)size; at += (off_t)sizeof(own)) {
        cr_assert_eq(pread(mem, own, sizeof(own), base + at), (ssize_t)sizeof(own));
        cr_assert_eq(pread(r->memory_fd, saved, sizeof(saved), at), (ssize_t)sizeof(saved));
        if (memcmp(own, saved, sizeof(own)) != 0)
            return false;
    }
    return true;
}

/* The guest's memory is somewhere in a private mapping, which may have grown together with its neighbours. */
static void must_equal_guest(struct real *r, struct sup_vm *v)
{
    char path[64], line[512];
    unsigned long from, to;
    uint64_t size = v->cfg.memory_size;
    bool same = false;
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)vf_vm_info_of(v->vm)->pid);
    int mem = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(mem, 0, "%s: %s", path, strerror(errno));
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)vf_vm_info_of(v->vm)->pid);
    FILE *f = fopen(path, "re");
    while (f && !same && fgets(line, sizeof(line), f))
        if (sscanf(line, "%lx-%lx rw-p", &from, &to) == 2)
            for (; !same && from + size <= to; from += 4096)
                same = same_memory(r, mem, (off_t)from, size);
    cr_assert(f && same, "what was saved is not what the guest has");
    fclose(f);
    close(mem);
}

/* Into empty memory only what the guest has touched is written, into memory that holds something all of it: either
 * way it is the guest's to the last byte. */
REAL_TEST(saves_all_there_is)
{
    int first = sup_dir(&r->s, "first"), second = sup_dir(&r->s, "second");
    struct sup_vm *v = new_vm(r, "vm");
    start(v);
    must_answer(v);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    sup_must(v, VF_VM_OP_SAVE, first);
    if (strncmp(vf_vm_info_of(v->vm)->version, "1.1", 3) == 0) /* 1.13 and later can */
        cr_assert_lt(bytes_held(r->memory_fd), (int64_t)v->cfg.memory_size / 4);
    must_equal_guest(r, v);
    sup_must(v, VF_VM_OP_RESUME, -1);
    must_answer(v);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    sup_must(v, VF_VM_OP_SAVE, second);
    cr_assert_eq(bytes_held(r->memory_fd), (int64_t)v->cfg.memory_size);
    must_equal_guest(r, v);
    sup_vm_stop(v, 0);
    close(first);
    close(second);
}

/* A VMM that was taken over can't poison the clones to come, though the descriptor it inherited is open for writing. */
REAL_TEST(template_memory_is_not_writable)
{
    char before[65], after[65], path[64];
    int dirfd = sup_dir(&r->s, "saved");
    sup_make_saved(&r->s, target, r->memory_fd, dirfd);
    cr_assert_eq(
        fcntl(r->memory_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
        0);
    sup_digest(r->memory_fd, before);
    struct sup_vm *tpl = new_vm(r, "unused"), *c = sup_vm_clone_of(&r->s, tpl, "clone");
    restore(c, dirfd);
    must_answer(c);
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)vf_vm_info_of(c->vm)->pid,
             VF_LAUNCH_FIRST_FD);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert(fd < 0 || pwrite(fd, "poison", 6, 0) < 0, "%s could be written to", path);
    cr_assert(fd < 0 || mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    if (fd >= 0)
        close(fd);
    sup_digest(r->memory_fd, after);
    cr_assert_str_eq(before, after);
    sup_vm_stop(c, 0);
    sup_vm_stop(tpl, 0);
    close(dirfd);
}

/* ---- devices of its own */

static void make_disk(struct real *r, const char *name, char ret_path[128])
{
    snprintf(ret_path, 128, "%s/%s", r->s.dir, name);
    int fd = open(ret_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
}

REAL_TEST(clones_have_disks_of_their_own)
{
    char disks[3][128];
    struct sup_vm *v[3];
    int dirfd = sup_dir(&r->s, "saved");
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof(name), "vm%d", i);
        v[i] = i ? sup_vm_clone_of(&r->s, v[0], name) : new_vm(r, name);
        snprintf(name, sizeof(name), "disk%d.img", i);
        make_disk(r, name, disks[i]);
        v[i]->cfg.n_disks = 1;
        v[i]->cfg.disks[0] = (struct vf_vm_disk){.path = disks[i], .format = "raw"};
    }
    start(v[0]);
    cr_assert(has_open(v[0], disks[0]));
    sup_must(v[0], VF_VM_OP_PAUSE, -1);
    sup_must(v[0], VF_VM_OP_SAVE, dirfd);
    sup_vm_stop(v[0], 0);
    for (int i = 1; i < 3; i++) {
        restore(v[i], dirfd);
        must_answer(v[i]);
        for (int k = 0; k < 3; k++)
            cr_assert_eq(has_open(v[i], disks[k]), i == k, "clone %d, disk %d", i, k);
    }
    for (int i = 1; i < 3; i++)
        sup_vm_stop(v[i], 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(unlink(disks[i]), 0, "%s is gone", disks[i]);
    close(dirfd);
}

REAL_TEST(clones_have_vsocks_of_their_own)
{
    struct vf_error e;
    int dirfd = sup_dir(&r->s, "saved");
    struct sup_vm *tpl = new_vm(r, "template"), *c[2];
    tpl->cfg.channel = VF_CHANNEL_VSOCK;
    start(tpl);
    sup_must(tpl, VF_VM_OP_PAUSE, -1);
    sup_must(tpl, VF_VM_OP_SAVE, dirfd);
    /* The template lives on, and has its socket. */
    for (int i = 0; i < 2; i++) {
        int fd;
        c[i] = sup_vm_clone_of(&r->s, tpl, i ? "clone1" : "clone0");
        c[i]->cfg.channel = VF_CHANNEL_VSOCK;
        restore(c[i], dirfd);
        cr_assert_eq(vf_unix_connect(c[i]->dirfd, VF_LINK_VSOCK_NAME, &fd, &e), 0, "%s", e.msg);
        close(fd);
    }
    for (int i = 0; i < 2; i++)
        sup_vm_stop(c[i], 0);
    sup_vm_stop(tpl, 0);
    close(dirfd);
}

/* It makes its table as large as its limit, and ours may be a million. */
REAL_TEST(keeps_its_table_of_descriptors_small)
{
    char path[64], line[256];
    int slots = 0;
    struct sup_vm *v = new_vm(r, "vm");
    sup_must(v, VF_VM_OP_CREATE, -1);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)vf_vm_info_of(v->vm)->pid);
    FILE *f = fopen(path, "re");
    while (f && !slots && fgets(line, sizeof(line), f))
        sscanf(line, "FDSize: %d", &slots);
    cr_assert(f && slots > 0 && slots <= 2048, "%d slots", slots);
    fclose(f);
    sup_vm_stop(v, 0);
}

/* ---- adopted */

static void let_go(struct real *r, struct sup_vm *v)
{
    struct vf_error e;
    v->stop = (struct sup_op){0};
    cr_assert_eq(vf_vm_detach(v->vm, sup_on_done, &v->stop, &e), 0, "%s", e.msg);
    sup_run(&r->s, &v->stop.done, SUP_LONG_MS, "detach");
    vf_vm_free(v->vm);
    v->vm = NULL;
}

static void adopt(struct sup_vm *v)
{
    struct vf_error e;
    struct vf_vm_adopt a = {.id = v->name,
                            .dirfd = v->dirfd,
                            .accel = VF_ACCEL_KVM,
                            .memory_size = v->cfg.memory_size,
                            .balloon = true};
    cr_assert_eq(vf_process_read(v->dirfd, VF_PROCESS_NAME, &a.pid, &a.start_ticks, &e), 0, "%s",
                 e.msg);
    sup_vm_renew(v);
    cr_assert_eq(vf_vm_adopt(v->vm, &a, SUP_LONG_MS, sup_on_done, &v->op, &e), 0, "%s", e.msg);
    cr_assert_eq(sup_wait(v), VF_OK, "%s", v->op.err.msg);
}

REAL_TEST(goes_on_without_its_maker)
{
    struct sup_vm *v = new_vm(r, "vm");
    v->cfg.die_with_parent = false;
    start(v);
    must_answer(v);
    let_go(r, v);
    must_answer(v); /* its FIFOs are nobody's */
    adopt(v);
    const struct vf_vm_info *info = vf_vm_info_of(v->vm);
    cr_assert_eq(info->state, VF_VM_RUNNING);
    cr_assert(info->version[0] >= '1' && info->version[0] <= '9', "version: %s", info->version);
    must_answer(v);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    let_go(r, v);
    adopt(v);
    cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_PAUSED);
    int dirfd = sup_dir(&r->s, "saved");
    cr_assert_eq(sup_do(v, VF_VM_OP_SAVE, dirfd, 0), VF_UNSUPPORTED, "%s", v->op.err.msg);
    cr_assert_eq(sup_count_files(dirfd), 0);
    close(dirfd);
    sup_must(v, VF_VM_OP_RESUME, -1);
    must_answer(v);
    sup_must(v, VF_VM_OP_QUERY, -1);
    sup_vm_stop(v, 0);
}

/* One that has never run a guest is of no use to whoever finds it. */
REAL_TEST(empty_one_is_not_adopted)
{
    struct vf_error e;
    struct sup_vm *v = new_vm(r, "vm");
    v->cfg.die_with_parent = false;
    v->cfg.incoming = true;
    v->cfg.memory_shared = false;
    sup_must(v, VF_VM_OP_CREATE, -1);
    let_go(r, v);
    struct vf_vm_adopt a = {.id = v->name, .dirfd = v->dirfd, .memory_size = v->cfg.memory_size};
    cr_assert_eq(vf_process_read(v->dirfd, VF_PROCESS_NAME, &a.pid, &a.start_ticks, &e), 0);
    sup_vm_renew(v);
    cr_assert_eq(vf_vm_adopt(v->vm, &a, SUP_LONG_MS, sup_on_done, &v->op, &e), 0, "%s", e.msg);
    cr_assert_eq(sup_wait(v), VF_VMM_FAILED, "%s", v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, "adopt: Firecracker's state is 'Not started'"), "%s",
              v->op.err.msg);
    sup_vm_stop(v, 0);
}

/* ---- ends */

/* A triple fault, which is how a guest without ACPI resets. */
REAL_TEST(guest_resets)
{
    struct sup_vm *v = new_vm(r, "vm");
    v->cfg.cmdline = "misbehave=panic-boot";
    start(v);
    sup_run(&r->s, &v->exited, SUP_LONG_MS, "EXITED");
    cr_assert_str_eq(sup_events(v), "resumed shutdown exited", "%s: %s", v->detail,
                     vf_vm_last_words(v->vm));
    sup_vm_stop(v, 0);
}

REAL_TEST(says_why_it_does_not_start)
{
    struct sup_vm *v = new_vm(r, "vm");
    v->cfg.kernel = "/nowhere/vmlinux";
    cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_VMM_FAILED);
    cr_assert(strstr(v->op.err.msg, "create: /boot-source: 400: "), "%s", v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, "No such file"), "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
    v = new_vm(r, "kernelless");
    v->cfg.kernel = NULL;
    sup_must(v, VF_VM_OP_CREATE, -1);
    cr_assert_eq(sup_do(v, VF_VM_OP_START, -1, 0), VF_VMM_FAILED);
    cr_assert(strstr(v->op.err.msg, "start: /actions: 400: "), "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
}

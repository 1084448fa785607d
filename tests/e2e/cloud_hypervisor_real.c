/* What only a real Cloud Hypervisor shows: a restore on demand, and that it is refused where there is nothing to
 * fetch; a clone's process that can't write to template memory; NICs by descriptors and by name; disks and vsocks of a
 * clone's own; that a VM goes on without the process that made it; how a guest's end is told. Skipped, loudly, without
 * one.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "tests/e2e/support.h"
#include "vmm/cloud_hypervisor.h"

static const struct sup_target *const target = &sup_cloud_hypervisor_tiny;
static const char *test_name;

struct real {
    struct sup s;
    int memory_fd; /* a file with a name */
};

#define REAL_TEST(name)                                              \
    static void name(struct real *r);                                \
    Test(cloud_hypervisor_real, name, .timeout = 120)                \
    {                                                                \
        struct real r = {.memory_fd = -1};                           \
        const char *missing = sup_target_missing(target);            \
        test_name = #name;                                           \
        if (missing)                                                 \
            sup_skip("cloud_hypervisor_real", #name, "%s", missing); \
        sup_open(&r.s);                                              \
        r.memory_fd = sup_memory(target);                            \
        name(&r);                                                    \
        vf_close_fd(&r.memory_fd);                                   \
        sup_close(&r.s);                                             \
    }                                                                \
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

static void save_and_stop(struct sup_vm *v, int dirfd)
{
    sup_must(v, VF_VM_OP_PAUSE, -1);
    sup_must(v, VF_VM_OP_SAVE, dirfd);
    sup_vm_stop(v, 0);
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

static void plant(struct sup_vm *v, uint8_t nonce[32])
{
    struct sup_hello hello;
    struct sup_agent *a = sup_agent_open(v);
    vf_random(nonce, 32);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0, "%s is silent", v->name);
    sup_agent_plant(a, nonce);
    sup_agent_close(a);
}

static void must_know(struct sup_vm *v, const uint8_t nonce[32])
{
    struct sup_hello hello;
    struct sup_agent *a = sup_agent_open(v);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0, "%s is silent", v->name);
    cr_assert(hello.has_nonce, "%s was booted, not restored", v->name);
    cr_assert_arr_eq(hello.nonce, nonce, 32);
    sup_agent_close(a);
}

/* How many descriptors of v's process are what `what` says: the beginning of a link's text. */
static int count_open(struct sup_vm *v, const char *what)
{
    char link[64], at[512];
    int n = 0;
    for (int fd = 0; fd < 256; fd++) {
        snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)vf_vm_info_of(v->vm)->pid, fd);
        ssize_t len = readlink(link, at, sizeof(at) - 1);
        at[len > 0 ? len : 0] = 0;
        n += strncmp(at, what, strlen(what)) == 0;
    }
    return n;
}

static bool has_file(int dirfd, const char *name)
{
    return faccessat(dirfd, name, F_OK, 0) == 0;
}

/* ---- memory */

/* Saved with its memory, restored both ways. */
REAL_TEST(restores_on_demand)
{
    uint8_t nonce[32];
    char path[300];
    int dirfd = sup_dir(&r->s, "saved");
    struct sup_vm *v = new_vm(r, "template"), *c[2];
    v->cfg.memory_shared = false;
    start(v);
    plant(v, nonce);
    save_and_stop(v, dirfd);
    cr_assert(has_file(dirfd, VF_CH_MEMORY));
    snprintf(path, sizeof(path), "%s/saved/" VF_CH_MEMORY, r->s.dir);
    for (int i = 0; i < 2; i++) {
        c[i] = new_vm(r, i ? "on-demand" : "copied");
        c[i]->cfg.memory_shared = false;
        c[i]->cfg.incoming = true;
        c[i]->cfg.restore_mode = i ? VF_RESTORE_ON_DEMAND : VF_RESTORE_COPY;
        restore(c[i], dirfd);
        cr_assert_eq(count_open(c[i], "anon_inode:[userfaultfd]") > 0, i);
        cr_assert_eq(count_open(c[i], path) > 0, i);
        must_know(c[i], nonce);
    }
    for (int i = 0; i < 2; i++)
        sup_vm_stop(c[i], 0);
    close(dirfd);
}

REAL_TEST(refuses_on_demand_where_nothing_is_to_be_fetched)
{
    uint8_t nonce[32];
    int dirfd = sup_dir(&r->s, "saved");
    struct sup_vm *v = new_vm(r, "template");
    start(v);
    plant(v, nonce);
    save_and_stop(v, dirfd);
    cr_assert_not(has_file(dirfd, VF_CH_MEMORY), "shared memory was saved");
    struct sup_vm *c = sup_vm_clone_of(&r->s, v, "clone");
    c->cfg.restore_mode = VF_RESTORE_ON_DEMAND;
    sup_must(c, VF_VM_OP_CREATE, -1);
    cr_assert_eq(sup_do(c, VF_VM_OP_RESTORE, dirfd, 0), VF_UNSUPPORTED);
    cr_assert(strstr(c->op.err.msg, "restore: restore_mode: what was saved holds no memory"), "%s",
              c->op.err.msg);
    sup_vm_stop(c, 0);
    close(dirfd);
}

/* Memory whose file has no name any more would be written out: that is no template. */
REAL_TEST(refuses_to_save_memory_without_a_name)
{
    int dirfd = sup_dir(&r->s, "saved");
    int copy = sup_clone_memory(target, r->memory_fd);
    struct sup_vm *v = new_vm(r, "vm");
    v->cfg.memory_fd = copy;
    start(v);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    cr_assert_eq(sup_do(v, VF_VM_OP_SAVE, dirfd, 0), VF_VMM_FAILED);
    cr_assert(strstr(v->op.err.msg, "has written the memory, though it is shared"), "%s",
              v->op.err.msg);
    cr_assert_eq(sup_count_files(dirfd), 0);
    sup_vm_stop(v, 0);
    close(copy);
    close(dirfd);
}

/* A process that was taken over can't poison the clones to come, though it runs as the same user as the template's. */
REAL_TEST(template_memory_is_not_writable)
{
    char before[65], after[65], path[64];
    int dirfd = sup_dir(&r->s, "saved");
    sup_make_saved(&r->s, target, r->memory_fd, dirfd);
    struct sup_vm *tpl = new_vm(r, "unused"), *c = sup_vm_clone_of(&r->s, tpl, "clone");
    int memory_fd = c->cfg.memory_fd;
    sup_digest(memory_fd, before);
    restore(c, dirfd);
    must_answer(c);
    cr_assert_geq(count_open(c, "/memfd:vf-e2e"), 2, "inherited, and opened again");
    int tried = 0;
    for (int n = 0; n < 256; n++) {
        char at[64];
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)vf_vm_info_of(c->vm)->pid, n);
        ssize_t len = readlink(path, at, sizeof(at) - 1);
        if (len < 13 || strncmp(at, "/memfd:vf-e2e", 13) != 0)
            continue;
        tried++;
        int fd = open(path, O_RDWR | O_CLOEXEC);
        cr_assert(fd < 0 || pwrite(fd, "poison", 6, 0) < 0, "%s could be written to", path);
        cr_assert(fd < 0 || mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
        cr_assert(fd < 0 || ftruncate(fd, 0) < 0);
        vf_close_fd(&fd);
    }
    cr_assert_geq(tried, 2);
    sup_digest(memory_fd, after);
    cr_assert_str_eq(before, after);
    sup_vm_stop(c, 0);
    sup_vm_stop(tpl, 0);
    close(dirfd);
}

/* ---- NICs */

/* Taps are made in a network namespace of the test's own, which its VMMs inherit. */
static void need_network(void)
{
    if (unshare(CLONE_NEWNET) < 0)
        sup_skip("cloud_hypervisor_real", test_name, "no network namespace can be made: %s",
                 strerror(errno));
    if (access("/dev/net/tun", R_OK | W_OK) < 0)
        sup_skip("cloud_hypervisor_real", test_name, "/dev/net/tun: %s", strerror(errno));
}

/* keep: it stays when it is closed. */
static int make_tap(const char *name, bool keep)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_lt(strlen(name), sizeof(ifr.ifr_name));
    strcpy(ifr.ifr_name, name);
    cr_assert_eq(ioctl(fd, TUNSETIFF, &ifr), 0, "%s: %s", name, strerror(errno));
    cr_assert_eq(ioctl(fd, TUNSETPERSIST, keep), 0);
    return fd;
}

static void give_tap(struct sup_vm *v, int fd, const char *name)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
    v->cfg.n_nics = 1;
    v->cfg.nics[0] = (struct vf_vm_nic){.tap = name, .fds = {fd}, .n_fds = fd >= 0};
    memcpy(v->cfg.nics[0].mac, mac, 6);
}

/* Whether somebody has the tap open: then it has a carrier. */
static bool tap_is_open(const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "ip link show %s 2>&1 | grep -q NO-CARRIER", name);
    return system(path) != 0;
}

/* A template and its clones, each with a tap of its own, given by descriptor or by name, whatever the template had. */
static void clones_with_taps(struct real *r, bool template_by_fd)
{
    uint8_t nonce[32];
    char names[3][16];
    struct sup_vm *v[3];
    int dirfd = sup_dir(&r->s, template_by_fd ? "by-fd" : "by-name");
    for (int i = 0; i < 3; i++) {
        char name[32];
        bool by_fd = i ? i == 1 : template_by_fd;
        snprintf(names[i], sizeof(names[i]), "t%d%d", template_by_fd, i);
        snprintf(name, sizeof(name), "vm-%.15s", names[i]);
        v[i] = i ? sup_vm_clone_of(&r->s, v[0], name) : new_vm(r, name);
        int fd = make_tap(names[i], !by_fd);
        if (by_fd)
            give_tap(v[i], fd, NULL);
        else {
            close(fd);
            give_tap(v[i], -1, names[i]);
        }
        sup_must(v[i], VF_VM_OP_CREATE, -1);
        if (by_fd)
            close(fd); /* it has its own */
        if (i) {
            sup_must(v[i], VF_VM_OP_RESTORE, dirfd);
            sup_must(v[i], VF_VM_OP_RESUME, -1);
            must_know(v[i], nonce);
        } else {
            sup_must(v[i], VF_VM_OP_START, -1);
            plant(v[i], nonce);
        }
        cr_assert_geq(count_open(v[i], "/dev/net/tun"), 1, "%s has no tap", name);
        cr_assert(tap_is_open(names[i]));
        if (!i)
            save_and_stop(v[0], dirfd);
    }
    for (int i = 1; i < 3; i++)
        sup_vm_stop(v[i], 0);
    close(dirfd);
}

REAL_TEST(clones_have_taps_of_their_own)
{
    need_network();
    clones_with_taps(r, true);
}

REAL_TEST(clones_of_a_tap_by_name)
{
    need_network();
    clones_with_taps(r, false);
}

/* ---- disks, vsock, console */

static void make_disk(struct real *r, const char *name, const char *options, char ret_path[128])
{
    char command[400];
    snprintf(ret_path, 128, "%s/%s", r->s.dir, name);
    snprintf(command, sizeof(command), "qemu-img create -q %s '%s' 1M", options, ret_path);
    cr_assert_eq(system(command), 0, "%s", command);
}

/* A base that all read, and an overlay for each that stands on it. */
REAL_TEST(clones_have_disks_of_their_own)
{
    char base[128], overlays[3][128], options[200];
    struct sup_vm *v[3];
    int dirfd = sup_dir(&r->s, "saved");
    if (access("/usr/bin/qemu-img", X_OK) < 0)
        sup_skip("cloud_hypervisor_real", test_name, "there is no qemu-img");
    make_disk(r, "base.raw", "-f raw", base);
    snprintf(options, sizeof(options), "-f qcow2 -F raw -b '%s'", base);
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof(name), "overlay%d", i);
        make_disk(r, name, options, overlays[i]);
        snprintf(name, sizeof(name), "vm%d", i);
        v[i] = i ? sup_vm_clone_of(&r->s, v[0], name) : new_vm(r, name);
        v[i]->cfg.n_disks = 2;
        v[i]->cfg.disks[0] = (struct vf_vm_disk){.path = base, .format = "raw", .readonly = true};
        v[i]->cfg.disks[1] = (struct vf_vm_disk){.path = overlays[i], .format = "qcow2"};
        if (i)
            restore(v[i], dirfd);
        else
            start(v[0]);
        must_answer(v[i]);
        cr_assert_geq(count_open(v[i], base), 1);
        for (int k = 0; k <= i; k++)
            cr_assert_eq(count_open(v[i], overlays[k]) > 0, i == k, "VM %d, disk %d", i, k);
        if (!i)
            save_and_stop(v[0], dirfd);
    }
    for (int i = 1; i < 3; i++)
        sup_vm_stop(v[i], 0);
    cr_assert_eq(access(base, F_OK), 0);
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

/* A guest that dies as it boots: its reset is told, each time. */
REAL_TEST(a_guest_that_resets_is_told_of)
{
    struct sup_vm *v = new_vm(r, "vm");
    v->cfg.cmdline = "misbehave=panic-boot";
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_START, -1);
    int n = v->n_events;
    int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS / 4);
    while (v->n_events == n && vf_deadline_left_ms(deadline_us) > 0) {
        sup_wait_loop(&r->s, deadline_us, NULL);
        sup_turns(&r->s, 1);
    }
    cr_assert_gt(v->n_events, n, "nothing was told");
    cr_assert_eq(v->events[n], VF_VM_EVENT_GUEST_SHUTDOWN, "%s", sup_events(v));
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

static enum vf_code adopt(struct sup_vm *v)
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
    return sup_wait(v);
}

REAL_TEST(goes_on_without_its_maker)
{
    struct sup_vm *v = new_vm(r, "vm");
    v->cfg.die_with_parent = false;
    start(v);
    must_answer(v);
    let_go(r, v);
    must_answer(v);
    cr_assert_eq(adopt(v), VF_OK, "%s", v->op.err.msg);
    const struct vf_vm_info *info = vf_vm_info_of(v->vm);
    cr_assert_eq(info->state, VF_VM_RUNNING);
    cr_assert(info->version[0] >= '1' && info->version[0] <= '9', "version: %s", info->version);
    cr_assert_eq(info->balloon_actual, info->memory_size);
    must_answer(v);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    let_go(r, v);
    cr_assert_eq(adopt(v), VF_OK, "%s", v->op.err.msg);
    cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_PAUSED);
    sup_must(v, VF_VM_OP_RESUME, -1);
    must_answer(v);
    sup_vm_stop(v, 0);
}

/* One that has never run a guest is of no use to whoever finds it. */
REAL_TEST(empty_one_is_not_adopted)
{
    struct sup_vm *v = new_vm(r, "vm");
    v->cfg.die_with_parent = false;
    v->cfg.incoming = true;
    v->cfg.memory_shared = false;
    sup_must(v, VF_VM_OP_CREATE, -1);
    let_go(r, v);
    cr_assert_eq(adopt(v), VF_VMM_FAILED, "%s", v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, "adopt: vm.info: "), "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
}

/* Events that came while nobody read them fill the FIFO, and then are dropped: it never waits for a reader. */
REAL_TEST(nobody_reads_its_events)
{
    struct sup_vm *v = new_vm(r, "vm");
    v->cfg.die_with_parent = false;
    start(v);
    let_go(r, v);
    /* A reader that reads nothing. */
    int fd = openat(v->dirfd, "events", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    int api = -1;
    struct vf_error e;
    cr_assert_geq(fd, 0);
    for (int i = 0; i < 300; i++) { /* two events each, of some 120 bytes */
        char answer[512];
        const char *request = i % 2 ? "PUT /api/v1/vm.resume HTTP/1.1\r\n\r\n"
                                    : "PUT /api/v1/vm.pause HTTP/1.1\r\n\r\n";
        cr_assert_eq(vf_unix_connect(v->dirfd, "api.sock", &api, &e), 0, "%s", e.msg);
        cr_assert_gt(send(api, request, strlen(request), MSG_NOSIGNAL), 0);
        struct pollfd p = {.fd = api, .events = POLLIN};
        cr_assert_eq(poll(&p, 1, SUP_LONG_MS), 1, "it waits for a reader (round %d)", i);
        cr_assert_gt(recv(api, answer, sizeof(answer), 0), 0);
        vf_close_fd(&api);
    }
    close(fd);
    cr_assert_eq(adopt(v), VF_OK, "%s", v->op.err.msg);
    must_answer(v);
    sup_vm_stop(v, 0);
}

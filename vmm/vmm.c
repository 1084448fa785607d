/* The front of all drivers: which operation is allowed in which state, its deadline, and that each
 * ends exactly once. The drivers behind it do the work (vmm/driver.h).
 *
 * An operation: submit checks the state, arms the deadline, calls the driver; the driver reports by
 * vf_vm_op_done; the state moves on and the caller's done is called. A deadline, a cancel or the
 * process's end report in the driver's place; the VM is then DEAD and only stop is left.
 */
#include "vmm/driver.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"

#define WORDS_IN_HINT 200

static const struct {
    const char *name;
    unsigned from;       /* states it is allowed in, as bits */
    enum vf_vm_state to; /* VF_VM_NEW: unchanged */
    int64_t timeout_ms;
} op_table[VF_VM_OP_COUNT] = {
    [VF_VM_OP_CREATE] = {"create", 1u << VF_VM_NEW, VF_VM_CREATED, 10000},
    [VF_VM_OP_ADOPT] = {"adopt", 1u << VF_VM_NEW, VF_VM_NEW, 10000},
    [VF_VM_OP_START] = {"start", 1u << VF_VM_CREATED, VF_VM_RUNNING, 5000},
    [VF_VM_OP_PAUSE] = {"pause", 1u << VF_VM_RUNNING, VF_VM_PAUSED, 5000},
    [VF_VM_OP_SAVE] = {"save", 1u << VF_VM_PAUSED, VF_VM_NEW, 60000},
    [VF_VM_OP_RESTORE] = {"restore", 1u << VF_VM_CREATED, VF_VM_PAUSED, 30000},
    [VF_VM_OP_RESUME] = {"resume", 1u << VF_VM_PAUSED, VF_VM_RUNNING, 5000},
    [VF_VM_OP_BALLOON] = {"balloon", 1u << VF_VM_RUNNING | 1u << VF_VM_PAUSED, VF_VM_NEW, 5000},
    [VF_VM_OP_QUERY] = {"query", 1u << VF_VM_CREATED | 1u << VF_VM_RUNNING | 1u << VF_VM_PAUSED,
                        VF_VM_NEW, 5000},
};

static const char *const state_names[] = {"new",    "creating", "created",  "running",
                                          "paused", "dead",     "stopping", "gone"};
static_assert(sizeof(state_names) / sizeof(*state_names) == VF_VM_GONE + 1, "a name per state");

const char *const vf_vmm_names[] = {"qemu", "cloud-hypervisor", "firecracker", "null", NULL};

const char *vf_vm_state_name(enum vf_vm_state s)
{
    return state_names[s];
}

const struct vf_vmm_ops *vf_vmm_find(const char *name)
{
    static const struct vf_vmm_ops *const all[] = {&vf_qemu_ops, &vf_cloud_hypervisor_ops,
                                                   &vf_firecracker_ops, &vf_null_ops};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

enum vf_link vf_vm_link_of(const struct vf_vmm_ops *ops, enum vf_channel channel)
{
    struct vf_vmm_caps caps;
    ops->capabilities(NULL, &caps);
    if (channel == VF_CHANNEL_VSOCK)
        return VF_LINK_VSOCK;
    return channel == VF_CHANNEL_SERIAL && caps.serial_fifos ? VF_LINK_FIFOS : VF_LINK_SOCKET;
}

enum vf_accel vf_accel_resolve(const struct vf_vmm_ops *ops, enum vf_accel accel)
{
    struct vf_vmm_caps caps;
    if (accel != VF_ACCEL_AUTO)
        return accel;
    ops->capabilities(NULL, &caps);
    if (!caps.tcg)
        return VF_ACCEL_KVM;
    VF_CLEANUP_FD int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return VF_ACCEL_TCG;
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[8192];
    enum vf_accel found = VF_ACCEL_TCG;
    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, "flags", 5) == 0) {
            if (strstr(line, " vmx") || strstr(line, " svm"))
                found = VF_ACCEL_KVM;
            break;
        }
    if (f)
        fclose(f);
    return found;
}

/* ---- an operation's end */

static void finish_op(struct vf_vm *vm, const struct vf_error *err)
{
    enum vf_vm_op op = vm->op;
    vf_done_cb done = vm->op_done;
    void *arg = vm->op_arg;
    vm->op = VF_VM_OP_NONE;
    vm->op_done = NULL;
    uv_timer_stop(&vm->timer);
    if (!vm->stopping) {
        if (err && err->code != VF_CONFLICT)
            vm->info.state = VF_VM_DEAD;
        else if (!err && op_table[op].to != VF_VM_NEW)
            vm->info.state = op_table[op].to;
        if (!err && (op == VF_VM_OP_SAVE || op == VF_VM_OP_RESUME))
            vm->saved = op == VF_VM_OP_SAVE;
    }
    done(arg, err);
}

void vf_vm_op_done(struct vf_vm *vm, const struct vf_error *err)
{
    if (vm->op == VF_VM_OP_NONE)
        return;
    struct vf_error e;
    if (err) {
        e = *err;
        vf_wrap(&e, "%s", op_table[vm->op].name);
    }
    finish_op(vm, err ? &e : NULL);
}

void vf_vm_hint_last_words(struct vf_vm *vm, struct vf_error *err)
{
    const char *words = vf_vm_last_words(vm), *panic = strstr(words, "Kernel panic");
    size_t n = strlen(words);
    if (panic)
        words = panic; /* what it was about comes before the registers and the calls */
    else if (n > WORDS_IN_HINT)
        words += n - WORDS_IN_HINT;
    if (n)
        vf_hint(err, "its last words: %.*s", WORDS_IN_HINT, words);
}

static void on_deadline(uv_timer_t *t)
{
    struct vf_vm *vm = t->data;
    if (vm->stopping) { /* the grace is over */
        vm->ops->stop(vm, false);
        return;
    }
    if (vm->op == VF_VM_OP_NONE)
        return;
    struct vf_error e;
    vf_fail(&e, VF_TIMEOUT, "%s: no answer from %s within its deadline", op_table[vm->op].name,
            vm->ops->name);
    vf_vm_hint_last_words(vm, &e);
    finish_op(vm, &e);
}

void vf_vm_cancel(struct vf_vm *vm)
{
    if (vm->op == VF_VM_OP_NONE)
        return;
    struct vf_error e;
    vf_fail(&e, VF_CANCELLED, "%s: cancelled", op_table[vm->op].name);
    finish_op(vm, &e);
}

void vf_vm_emit(struct vf_vm *vm, enum vf_vm_event_type type, const char *detail)
{
    if (vm->stopping || !vm->on_event)
        return;
    struct vf_vm_event ev = {.type = type, .detail = detail ? detail : ""};
    vm->on_event(vm->event_arg, &ev);
}

void vf_vm_process_exited(struct vf_vm *vm, const char *how)
{
    assert(!vm->exited);
    vm->exited = true;
    vm->info.pid = 0;
    if (vm->stopping)
        return;
    vm->info.state = VF_VM_DEAD;
    if (vm->op != VF_VM_OP_NONE) {
        struct vf_error e;
        vf_fail(&e, VF_VMM_DIED, "%s: %s %s", op_table[vm->op].name, vm->ops->name, how);
        vf_vm_hint_last_words(vm, &e);
        finish_op(vm, &e);
    }
    vf_vm_emit(vm, VF_VM_EVENT_EXITED, how); /* nothing if done has called stop */
}

/* ---- an operation's start */

static int check_state(const struct vf_vm *vm, enum vf_vm_op op, struct vf_error *err)
{
    if (vm->op != VF_VM_OP_NONE)
        return vf_fail(err, VF_CONFLICT, "%s: %s is under way", op_table[op].name,
                       op_table[vm->op].name);
    if (!(op_table[op].from & 1u << vm->info.state))
        return vf_fail(err, VF_CONFLICT, "%s: not allowed while the VM is %s", op_table[op].name,
                       vf_vm_state_name(vm->info.state));
    if ((op == VF_VM_OP_START && vm->incoming) || (op == VF_VM_OP_RESTORE && !vm->incoming))
        return vf_fail(err, VF_CONFLICT, "%s: the VM was created to be %s", op_table[op].name,
                       vm->incoming ? "restored" : "started");
    if (op == VF_VM_OP_SAVE && vm->saved)
        return vf_fail(err, VF_CONFLICT, "save: the VM was saved already and has not run since");
    return 0;
}

static int submit(struct vf_vm *vm, enum vf_vm_op op, int64_t timeout_ms, vf_done_cb done,
                  void *arg, struct vf_error *err)
{
    int r = check_state(vm, op, err);
    if (r < 0)
        return r;
    if (timeout_ms <= 0)
        timeout_ms = op_table[op].timeout_ms;
    vm->op = op;
    vm->op_done = done;
    vm->op_arg = arg;
    vf_timer_at(&vm->timer, vf_deadline_after_ms(timeout_ms), on_deadline);
    return 0;
}

/* Undoes submit when the driver refused; r is its error. */
static int refused(struct vf_vm *vm, int r, struct vf_error *err)
{
    const char *name = op_table[vm->op].name;
    vm->op = VF_VM_OP_NONE;
    uv_timer_stop(&vm->timer);
    vf_wrap(err, "%s", name);
    return r;
}

int vf_vm_new(uv_loop_t *loop, const struct vf_vmm_ops *ops, vf_vm_event_cb on_event, void *arg,
              struct vf_vm **ret_vm, struct vf_error *err)
{
    struct vf_vm *vm;
    int r = ops->alloc(loop, &vm, err);
    if (r < 0)
        return r;
    vm->ops = ops;
    vm->loop = loop;
    vm->on_event = on_event;
    vm->event_arg = arg;
    *ret_vm = vm;
    return 0;
}

static int check_config(const struct vf_vm_config *c, const struct vf_vmm_caps *caps,
                        const char *name, struct vf_error *err)
{
    if (!c->id || !c->id[0] || strlen(c->id) > 63)
        return vf_fail(err, VF_INVALID_ARGUMENT, "id: 1 to 63 characters");
    if (c->vcpus < 1 || c->vcpus > 64)
        return vf_fail(err, VF_INVALID_ARGUMENT, "vcpus: 1 to 64 (is %d)", c->vcpus);
    if (c->memory_size == 0 || c->memory_size % (1 << 20))
        return vf_fail(err, VF_INVALID_ARGUMENT, "memory_size: a multiple of 1 MiB (is %llu)",
                       (unsigned long long)c->memory_size);
    if (c->n_disks > VF_VM_MAX_DISKS || c->n_nics > VF_VM_MAX_NICS)
        return vf_fail(err, VF_INVALID_ARGUMENT, "at most %d disks and %d NICs", VF_VM_MAX_DISKS,
                       VF_VM_MAX_NICS);
    if (c->console && c->channel == VF_CHANNEL_SERIAL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "console: the serial port is the agent's channel");
    if (c->balloon && !caps->balloon)
        return vf_fail(err, VF_UNSUPPORTED, "balloon: %s has none", name);
    if (c->incoming && !caps->save)
        return vf_fail(err, VF_UNSUPPORTED, "incoming: %s can't restore", name);
    if (c->incoming && (c->prefault || c->mergeable)) {
        vf_fail(err, VF_UNSUPPORTED, "%s: not for a clone", c->prefault ? "prefault" : "mergeable");
        return vf_hint(err, "a clone shares the pages of its template until it writes to them; %s",
                       c->prefault ? "populating them all would copy them"
                                   : "merging would scan what is shared already");
    }
    if ((c->prefault && !caps->prefault) || (c->mergeable && !caps->mergeable))
        return vf_fail(err, VF_UNSUPPORTED, "%s: %s has no such option",
                       c->prefault ? "prefault" : "mergeable", name);
    if (c->restore_mode == VF_RESTORE_ON_DEMAND && !caps->on_demand)
        return vf_fail(err, VF_UNSUPPORTED, "restore_mode: %s can't restore on demand", name);
    if (c->accel == VF_ACCEL_TCG && !caps->tcg)
        return vf_fail(err, VF_UNSUPPORTED, "accel: %s runs on KVM only", name);
    for (int i = 0; i < c->n_disks; i++)
        if (strcmp(c->disks[i].format, "qcow2") == 0 && !caps->qcow2)
            return vf_fail(err, VF_UNSUPPORTED, "disks[%d]: format: %s takes raw images only", i,
                           name);
    if ((c->channel == VF_CHANNEL_SERIAL && !caps->channel_serial) ||
        (c->channel == VF_CHANNEL_VSOCK && !caps->channel_vsock) ||
        (c->channel == VF_CHANNEL_VIRTIO_SERIAL && !caps->channel_virtio_serial))
        return vf_fail(err, VF_UNSUPPORTED, "channel: %s has no %s", name,
                       vf_channel_names[c->channel]);
    return vf_vm_check_network(c, caps, name, err);
}

static int open_timer(struct vf_vm *vm, const char *what, struct vf_error *err)
{
    if (vm->timer_open)
        return 0;
    int r = uv_timer_init(vm->loop, &vm->timer);
    if (r < 0)
        return vf_fail_errno(err, r, "%s: timer", what);
    vm->timer.data = vm;
    vm->timer_open = true;
    return 0;
}

int vf_vm_create(struct vf_vm *vm, const struct vf_vm_config *cfg, vf_done_cb done, void *arg,
                 struct vf_error *err)
{
    struct vf_vmm_caps caps;
    vm->ops->capabilities(NULL, &caps);
    int r = check_state(vm, VF_VM_OP_CREATE, err);
    if (r == 0)
        r = check_config(cfg, &caps, vm->ops->name, err);
    if (r == 0)
        r = open_timer(vm, "create", err);
    if (r < 0)
        return r;
    r = submit(vm, VF_VM_OP_CREATE, cfg->create_timeout_ms, done, arg, err);
    if (r < 0)
        return r;
    snprintf(vm->id, sizeof(vm->id), "%s", cfg->id);
    vm->incoming = cfg->incoming;
    vm->info.accel = vf_accel_resolve(vm->ops, cfg->accel);
    vm->info.memory_size = cfg->memory_size;
    vm->info.state = VF_VM_CREATING;
    r = vm->ops->create(vm, cfg, err);
    if (r < 0) {
        vm->info.state = VF_VM_DEAD;
        return refused(vm, r, err);
    }
    return 0;
}

int vf_vm_adopt(struct vf_vm *vm, const struct vf_vm_adopt *a, int64_t timeout_ms, vf_done_cb done,
                void *arg, struct vf_error *err)
{
    if (!vm->ops->adopt)
        return vf_fail(err, VF_UNSUPPORTED, "adopt: VMs of %s end with their process",
                       vm->ops->name);
    int r = check_state(vm, VF_VM_OP_ADOPT, err);
    if (r == 0)
        r = open_timer(vm, "adopt", err);
    if (r == 0)
        r = submit(vm, VF_VM_OP_ADOPT, timeout_ms, done, arg, err);
    if (r < 0)
        return r;
    snprintf(vm->id, sizeof(vm->id), "%s", a->id);
    vm->info.accel = a->accel;
    vm->info.memory_size = a->memory_size;
    vm->info.state = VF_VM_CREATING;
    r = vm->ops->adopt(vm, a, err);
    if (r < 0) {
        vm->info.state = VF_VM_DEAD;
        return refused(vm, r, err);
    }
    return 0;
}

int vf_vm_start(struct vf_vm *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                struct vf_error *err)
{
    int r = submit(vm, VF_VM_OP_START, timeout_ms, done, arg, err);
    if (r == 0 && (r = vm->ops->start(vm, err)) < 0)
        return refused(vm, r, err);
    return r;
}

int vf_vm_pause(struct vf_vm *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                struct vf_error *err)
{
    int r = submit(vm, VF_VM_OP_PAUSE, timeout_ms, done, arg, err);
    if (r == 0 && (r = vm->ops->pause(vm, err)) < 0)
        return refused(vm, r, err);
    return r;
}

int vf_vm_save(struct vf_vm *vm, int dirfd, int64_t timeout_ms, vf_done_cb done, void *arg,
               struct vf_error *err)
{
    int r = submit(vm, VF_VM_OP_SAVE, timeout_ms, done, arg, err);
    if (r == 0 && (r = vm->ops->save(vm, dirfd, err)) < 0)
        return refused(vm, r, err);
    return r;
}

int vf_vm_restore(struct vf_vm *vm, int dirfd, int64_t timeout_ms, vf_done_cb done, void *arg,
                  struct vf_error *err)
{
    int r = submit(vm, VF_VM_OP_RESTORE, timeout_ms, done, arg, err);
    if (r == 0 && (r = vm->ops->restore(vm, dirfd, err)) < 0)
        return refused(vm, r, err);
    return r;
}

int vf_vm_resume(struct vf_vm *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                 struct vf_error *err)
{
    int r = submit(vm, VF_VM_OP_RESUME, timeout_ms, done, arg, err);
    if (r == 0 && (r = vm->ops->resume(vm, err)) < 0)
        return refused(vm, r, err);
    return r;
}

int vf_vm_balloon(struct vf_vm *vm, uint64_t target, int64_t timeout_ms, vf_done_cb done, void *arg,
                  struct vf_error *err)
{
    int r = check_state(vm, VF_VM_OP_BALLOON, err);
    if (r < 0)
        return r;
    if (target == 0 || target > vm->info.memory_size)
        return vf_fail(err, VF_INVALID_ARGUMENT, "balloon: target: 1 to %llu bytes (is %llu)",
                       (unsigned long long)vm->info.memory_size, (unsigned long long)target);
    r = submit(vm, VF_VM_OP_BALLOON, timeout_ms, done, arg, err);
    if (r == 0 && (r = vm->ops->balloon(vm, target, err)) < 0)
        return refused(vm, r, err);
    return r;
}

int vf_vm_query(struct vf_vm *vm, int64_t timeout_ms, vf_done_cb done, void *arg,
                struct vf_error *err)
{
    int r = submit(vm, VF_VM_OP_QUERY, timeout_ms, done, arg, err);
    if (r == 0 && (r = vm->ops->info(vm, err)) < 0)
        return refused(vm, r, err);
    return r;
}

const struct vf_vm_info *vf_vm_info_of(const struct vf_vm *vm)
{
    return &vm->info;
}

/* ---- the end */

static int begin_end(struct vf_vm *vm, vf_done_cb done, void *arg, struct vf_error *err)
{
    if (vm->stopping)
        return vf_fail(err, VF_CONFLICT, "stop: under way already");
    int r = open_timer(vm, "stop", err);
    if (r < 0)
        return r;
    vm->stopping = true;
    vm->stop_done = done;
    vm->stop_arg = arg;
    vm->info.state = VF_VM_STOPPING;
    vf_vm_cancel(vm);
    return 0;
}

int vf_vm_detach(struct vf_vm *vm, vf_done_cb done, void *arg, struct vf_error *err)
{
    if (!vm->ops->detach)
        return vf_fail(err, VF_UNSUPPORTED, "detach: VMs of %s end with their process",
                       vm->ops->name);
    int r = begin_end(vm, done, arg, err);
    if (r == 0)
        vm->ops->detach(vm);
    return r;
}

int vf_vm_stop(struct vf_vm *vm, int64_t grace_ms, vf_done_cb done, void *arg, struct vf_error *err)
{
    int r = begin_end(vm, done, arg, err);
    if (r < 0)
        return r;
    bool graceful = grace_ms > 0;
    if (graceful)
        vf_timer_at(&vm->timer, vf_deadline_after_ms(grace_ms), on_deadline);
    vm->ops->stop(vm, graceful);
    return 0;
}

static void on_timer_closed(uv_handle_t *h)
{
    struct vf_vm *vm = h->data;
    vm->timer_open = false;
    vm->info.state = VF_VM_GONE;
    vf_done_cb done = vm->stop_done;
    done(vm->stop_arg, NULL); /* may free vm */
}

void vf_vm_gone(struct vf_vm *vm)
{
    assert(vm->stopping && vm->timer_open);
    uv_close((uv_handle_t *)&vm->timer, on_timer_closed);
}

bool vf_vm_close_begin(struct vf_vm *vm)
{
    if (vm->close_begun)
        return false;
    vm->close_begun = true;
    vm->closing = 1; /* of close_end */
    return true;
}

void vf_vm_handle_closed(void *arg)
{
    struct vf_vm *vm = arg;
    if (--vm->closing == 0)
        vf_vm_gone(vm);
}

void vf_vm_close_end(struct vf_vm *vm)
{
    vf_vm_handle_closed(vm);
}

void vf_vm_free(struct vf_vm *vm)
{
    if (!vm)
        return;
    assert(!vm->timer_open);
    free(vm->words);
    vm->ops->free(vm);
}

/* ---- last words */

void vf_vm_say(struct vf_vm *vm, const char *text, size_t len)
{
    if (!vm->words && !(vm->words = calloc(1, sizeof(*vm->words))))
        return;
    for (size_t i = 0; i < len; i++)
        vm->words->ring[vm->words->total++ % VF_VM_LAST_WORDS] = text[i];
}

const char *vf_vm_last_words(struct vf_vm *vm)
{
    struct vf_vm_words *w = vm->words;
    if (!w)
        return "";
    size_t n = w->total < VF_VM_LAST_WORDS ? w->total : VF_VM_LAST_WORDS;
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)w->ring[(w->total - n + i) % VF_VM_LAST_WORDS];
        if (c == '\n')
            c = ' ';
        if (c < 0x20 || c == 0x7f || c >= 0x80)
            continue;
        if (c == ' ' && (out == 0 || w->text[out - 1] == ' '))
            continue;
        w->text[out++] = (char)c;
    }
    while (out && w->text[out - 1] == ' ')
        out--;
    w->text[out] = 0;
    return w->text;
}

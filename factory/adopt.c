/* VMs that an earlier process of ours has left running.
 *
 *     adopt, keep:    find -> adopt -> hello               a VM that somebody uses: nothing of it is changed
 *     adopt, verify:  find -> adopt -> resume -> prove     a parked one: as a new clone, but that it is there
 *     discard:        find -> kill -> remove
 *
 * find, in a worker, opens the VM's directory, reads from its record which process it is, and takes its network slot
 * again; adopt has the driver
 * connect to that process, and connects the agent's channel. On the way: the process has ended, or never
 * began; it is stuck; its guest is not what it was (verify). The engine then ends it like any other VM: what the
 * record names is killed, and the directory removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/hash.h"
#include "factory/instance.h"
#include "vmm/process.h"

#define END_MS 10000

int vf_end_recorded(int run_dirfd, const char *id, struct vf_error *err)
{
    struct vf_process p = {.pidfd = -1};
    struct vf_error e;
    pid_t pid;
    uint64_t start_ticks;
    VF_CLEANUP_FD int dirfd =
        openat(run_dirfd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dirfd < 0)
        return errno == ENOENT ? 0 : vf_fail_errno(err, errno, "VM %s", id);
    int r = vf_process_read(dirfd, VF_PROCESS_NAME, &pid, &start_ticks, &e);
    if (r == 0)
        r = vf_process_open(pid, start_ticks, &p, &e);
    if (r == 0)
        r = vf_process_end(&p, END_MS, &e);
    vf_close_fd(&p.pidfd);
    if (r == 0 || e.code == VF_NOT_FOUND)
        return 0;
    vf_error_copy(err, &e);
    return vf_wrap(err, "VM %s", id);
}

static bool id_ok(const char *id)
{
    return id && strlen(id) == VF_INSTANCE_ID_LEN &&
           strspn(id, "0123456789abcdef") == VF_INSTANCE_ID_LEN;
}

/* ---- adopt */

static int find(struct vf_work *w, struct vf_error *err)
{
    struct vf_instance *vm = w->arg;
    struct vf_factory *f = vm->factory;
    vm->dirfd = openat(f->run_dirfd, vm->id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (vm->dirfd < 0)
        return vf_fail_errno(err, errno, "%s/%s", f->run_dir, vm->id);
    vm->has_dir = true;
    if (asprintf(&vm->dir, "%s/%s", f->run_dir, vm->id) < 0) {
        vm->dir = NULL;
        return vf_fail(err, VF_NO_MEMORY, "VM");
    }
    int r =
        vf_process_read(vm->dirfd, VF_PROCESS_NAME, &vm->found_pid, &vm->found_start_ticks, err);
    return r < 0 ? r : vf_instance_net_adopt(vm, err);
}

static int step_find(struct vf_instance *vm, struct vf_error *err)
{
    return vf_instance_work(vm, find, err);
}

static int step_adopt(struct vf_instance *vm, struct vf_error *err)
{
    const struct vf_vmm_ops *ops = vf_instance_ops(vm);
    const struct vf_vm_adopt a = {
        .id = vm->id,
        .dirfd = vm->dirfd,
        .pid = vm->found_pid,
        .start_ticks = vm->found_start_ticks,
        .accel = vm->accel,
        .memory_size = vf_spec_memory_bytes(&vm->spec),
        .balloon = vm->spec.balloon,
    };
    int r = vf_vm_new(vm->factory->loop, ops, vf_instance_on_vm_event, vm, &vm->vm, err);
    if (r < 0)
        return r;
    return vf_vm_adopt(vm->vm, &a, vm->factory->create_timeout_ms, vf_step_connect_agent, vm, err);
}

static const struct vf_step keep_recipe[] = {
    {"find", step_find, false, NULL},
    {"adopt", step_adopt, false, "factory.adopt.connected"},
    {"hello", vf_step_hello_again, false, NULL},
    VF_LAST_STEP,
};

static const struct vf_step verify_recipe[] = {
    {"find", step_find, false, NULL},
    {"adopt", step_adopt, false, "factory.adopt.connected"},
    {"resume", vf_step_resume_clone, false, "factory.resumed"},
    {"prove", vf_step_prove, false, "factory.proved"},
    VF_LAST_STEP,
};

static int parse_mac(const char *text, uint8_t ret[6])
{
    char hex[13] = "";
    if (strlen(text) != 17)
        return -EINVAL;
    for (int i = 0; i < 6; i++)
        memcpy(hex + 2 * i, text + 3 * i, 2);
    return vf_unhex(hex, ret, 6);
}

int vf_instance_take_adopted(struct vf_instance *vm, const struct vf_adopt *a, struct vf_error *err)
{
    const struct vf_proof *p = a->proof;
    uint8_t sample[16];
    snprintf(vm->id, sizeof(vm->id), "%s", a->id);
    snprintf(vm->hostname, sizeof(vm->hostname), "vf-%s", vm->id);
    vm->adopted = true;
    int r = vf_instance_net_begin_adopted(vm, a, err);
    if (r < 0)
        return r;
    if (!p) {
        if (a->verify)
            return vf_fail(err, VF_INVALID_ARGUMENT, "adopt %s: there is no proof to verify it by",
                           a->id);
        return 0;
    }
    vm->proof = *p;
    vm->due_generation = p->generation;
    memcpy(vm->due_nonce, p->nonce, sizeof(vm->due_nonce));
    memcpy(vm->due_boot_id, p->boot_id, sizeof(vm->due_boot_id));
    if (a->verify && (!p->boot_id[0] || (a->source == VF_SOURCE_CLONE && !p->nonce[0])))
        return vf_fail(err, VF_INVALID_ARGUMENT, "adopt %s: its proof is not complete", a->id);
    if (p->hostname[0])
        memcpy(vm->hostname, p->hostname, sizeof(vm->hostname));
    if (p->mac[0] && parse_mac(p->mac, vm->mac) < 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "adopt %s: mac: '%.17s'", a->id, p->mac);
    if (p->sample[0] && vf_unhex(p->sample, sample, sizeof(sample)) == 0)
        vf_samples_add(vm->factory->samples, sample); /* nobody may draw the same again */
    return 0;
}

struct vf_discard {
    struct vf_factory *factory;
    struct vf_discard *next;
    struct vf_work work;
    char id[VF_INSTANCE_ID_LEN + 1];
    vf_done_cb done;
    void *arg;
};

static int check_id(const struct vf_factory *f, const char *id, struct vf_error *err)
{
    if (f->closing)
        return vf_fail(err, VF_CANCELLED, "the factory is closing");
    if (!id_ok(id))
        return vf_fail(err, VF_INVALID_ARGUMENT, "id: %d hexadecimal digits", VF_INSTANCE_ID_LEN);
    for (const struct vf_instance *vm = f->instances; vm; vm = vm->next)
        if (strcmp(vm->id, id) == 0)
            return vf_fail(err, VF_CONFLICT, "VM %s is in use", id);
    for (const struct vf_discard *d = f->discards; d; d = d->next)
        if (strcmp(d->id, id) == 0)
            return vf_fail(err, VF_CONFLICT, "VM %s is being discarded", id);
    return 0;
}

int vf_factory_adopt(struct vf_factory *f, const struct vf_adopt *a, vf_instance_cb done, void *arg,
                     struct vf_instance **ret_vm, struct vf_error *err)
{
    const struct vf_plan plan = {.source = a->source,
                                 .steps = a->verify ? verify_recipe : keep_recipe,
                                 .spec = a->spec,
                                 .gen = a->gen,
                                 .adopt = a};
    struct vf_vmm_caps caps;
    int r = check_id(f, a->id, err);
    if (r < 0)
        return r;
    int vmm = a->gen ? a->gen->manifest.spec.vmm : a->spec->vmm;
    const struct vf_vmm_ops *ops = vf_vmm_find(vf_spec_vmm_names[vmm]);
    if (ops)
        ops->capabilities(NULL, &caps);
    if (!ops || !caps.adopt)
        return vf_fail(err, VF_UNSUPPORTED, "adopt %s: VMs of %s end with their process", a->id,
                       vf_spec_vmm_names[vmm]);
    if (a->source == VF_SOURCE_BUILD)
        return vf_fail(err, VF_INVALID_ARGUMENT, "adopt %s: builds are not adopted", a->id);
    return vf_instance_begin(f, &plan, done, arg, ret_vm, err);
}

/* ---- discard */

static int discard(struct vf_work *w, struct vf_error *err)
{
    struct vf_discard *d = w->arg;
    int r = vf_end_recorded(d->factory->run_dirfd, d->id, err);
    return r < 0 ? r : vf_remove_tree(d->factory->run_dirfd, d->id, err);
}

static void on_discarded(void *arg, const struct vf_error *err)
{
    struct vf_discard *d = arg;
    struct vf_factory *f = d->factory;
    for (struct vf_discard **p = &f->discards; *p; p = &(*p)->next)
        if (*p == d) {
            *p = d->next;
            break;
        }
    d->done(d->arg, err);
    free(d);
    vf_factory_check_closed(f);
}

int vf_factory_discard(struct vf_factory *f, const char *id, vf_done_cb done, void *arg,
                       struct vf_error *err)
{
    int r = check_id(f, id, err);
    if (r < 0)
        return r;
    struct vf_discard *d = calloc(1, sizeof(*d));
    if (!d)
        return vf_fail(err, VF_NO_MEMORY, "discard");
    d->factory = f;
    d->done = done;
    d->arg = arg;
    memcpy(d->id, id, sizeof(d->id));
    r = vf_work_submit(f->loop, &d->work, discard, on_discarded, d);
    if (r < 0) {
        free(d);
        return vf_fail_errno(err, r, "worker");
    }
    d->next = f->discards;
    f->discards = d;
    return 0;
}

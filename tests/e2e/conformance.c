/* Conformance: the life a VM should have. */
#include "tests/e2e/conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/hash.h"

/* ---- the fixture */

void fixture_run(const struct sup_target *t, const char *suite, const char *name,
                 void (*body)(struct fixture *f))
{
    struct fixture f = {.t = t, .saved_fd = -1, .saved_dirfd = -1};
    const char *missing = sup_target_missing(t);
    if (missing)
        sup_skip(suite, name, "%s", missing);
    sup_open(&f.s);
    f.scratch_fd = sup_memory(t);
    body(&f);
    vf_close_fd(&f.scratch_fd);
    vf_close_fd(&f.saved_fd);
    vf_close_fd(&f.saved_dirfd);
    sup_close(&f.s);
}

static struct sup_vm *new_vm(struct fixture *f)
{
    char name[32];
    snprintf(name, sizeof(name), "vm%d", f->serial++);
    struct sup_vm *v = sup_vm_new(&f->s, f->t, name);
    v->cfg.memory_fd = f->scratch_fd;
    return v;
}

static void need_template(struct fixture *f)
{
    if (f->saved_fd >= 0)
        return;
    f->saved_fd = sup_memory(f->t);
    f->saved_dirfd = sup_dir(&f->s, "saved");
    sup_make_saved(&f->s, f->t, f->saved_fd, f->saved_dirfd);
    if (sup_linked_memory(f->t)) {
        int copy = sup_clone_memory(f->t, f->saved_fd);
        close(f->saved_fd);
        f->saved_fd = copy;
    }
}

static struct sup_vm *new_clone(struct fixture *f)
{
    need_template(f);
    struct sup_vm *v = new_vm(f);
    v->cfg.memory_fd = f->saved_fd;
    v->cfg.memory_shared = false;
    v->cfg.incoming = true;
    v->cfg.kernel = v->cfg.initrd = v->cfg.cmdline = NULL;
    return v;
}

struct sup_vm *fresh_clone(struct fixture *f)
{
    struct sup_vm *v = new_clone(f);
    sup_must(v, VF_VM_OP_CREATE, -1);
    return v;
}

struct sup_vm *ready_for(struct fixture *f, enum vf_vm_op op)
{
    if (op == VF_VM_OP_RESTORE)
        return fresh_clone(f);
    struct sup_vm *v = new_vm(f);
    if (op == VF_VM_OP_CREATE)
        return v;
    sup_must(v, VF_VM_OP_CREATE, -1);
    if (op == VF_VM_OP_START)
        return v;
    sup_must(v, VF_VM_OP_START, -1);
    if (op == VF_VM_OP_SAVE || op == VF_VM_OP_RESUME)
        sup_must(v, VF_VM_OP_PAUSE, -1);
    return v;
}

int dir_for(struct fixture *f, enum vf_vm_op op)
{
    char name[32];
    if (op == VF_VM_OP_RESTORE)
        return f->saved_dirfd;
    if (op != VF_VM_OP_SAVE)
        return -1;
    snprintf(name, sizeof(name), "out%d", f->serial++);
    return sup_dir(&f->s, name);
}

void done_dir(struct fixture *f, int dirfd)
{
    if (dirfd >= 0 && dirfd != f->saved_dirfd)
        close(dirfd);
}

const char *op_name(enum vf_vm_op op)
{
    static const char *const names[] = {"none",    "create", "start",   "pause", "save",
                                        "restore", "resume", "balloon", "query"};
    return names[op];
}

enum vf_code good_end(const struct fixture *f, enum vf_vm_op op)
{
    bool refuses = op == VF_VM_OP_BALLOON && strcmp(f->t->driver, "firecracker") == 0;
    return refuses && !f->t->linux_guest ? VF_CONFLICT : VF_OK;
}

/* ---- template and clones */

static struct sup_vm *template_with_nonce(struct fixture *f, const uint8_t nonce[32],
                                          struct sup_hello *ret_hello, int dirfd)
{
    struct sup_vm *tpl = new_vm(f);
    sup_must(tpl, VF_VM_OP_CREATE, -1);
    sup_must(tpl, VF_VM_OP_START, -1);
    struct sup_agent *a = sup_agent_open(tpl);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, ret_hello), 0, "the guest never answered");
    cr_assert_not(ret_hello->has_nonce, "a nonce after a boot");
    sup_agent_plant(a, nonce);
    sup_agent_start(a, VF_MSG_FREEZE);
    cr_assert_eq(sup_agent_ask(a, SUP_LONG_MS), 0);
    cr_assert_eq(a->frame.type, VF_MSG_FREEZE_OK);
    sup_must(tpl, VF_VM_OP_PAUSE, -1);
    sup_must(tpl, VF_VM_OP_SAVE, dirfd);
    sup_agent_close(a);
    return tpl;
}

/* Boot, plant a nonce, save; two clones at once from what was saved: both know the nonce and the boot
 * id, go their own ways, and what they were made of stays as it was. */
static void chain(struct fixture *f)
{
    uint8_t nonce[32], other[32], sample[2][16];
    struct sup_hello born, hello[2];
    struct sup_agent *a[2];
    char before[65], after[65];
    int dirfd = sup_dir(&f->s, "generation");

    vf_random(nonce, sizeof(nonce));
    vf_random(other, sizeof(other));
    struct sup_vm *tpl = template_with_nonce(f, nonce, &born, dirfd);
    sup_vm_stop(tpl, 0);
    sup_digest(f->scratch_fd, before);

    struct sup_vm *c[2] = {sup_vm_clone_of(&f->s, tpl, "clone0"),
                           sup_vm_clone_of(&f->s, tpl, "clone1")};
    const struct {
        enum vf_vm_op op;
        enum vf_vm_state then;
    } steps[] = {{VF_VM_OP_CREATE, VF_VM_CREATED},
                 {VF_VM_OP_RESTORE, VF_VM_PAUSED},
                 {VF_VM_OP_RESUME, VF_VM_RUNNING}};
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        struct vf_error e;
        for (int k = 0; k < 2; k++)
            cr_assert_eq(sup_try(c[k], steps[i].op, dirfd, SUP_LONG_MS, &e), 0, "%s", e.msg);
        for (int k = 0; k < 2; k++) {
            cr_assert_eq(sup_wait(c[k]), VF_OK, "%s: %s (%s)", op_name(steps[i].op),
                         c[k]->op.err.msg, c[k]->op.err.hint);
            cr_assert_eq(vf_vm_info_of(c[k]->vm)->state, steps[i].then);
        }
    }
    for (int k = 0; k < 2; k++) {
        a[k] = sup_agent_open(c[k]);
        cr_assert_eq(sup_agent_hello(a[k], SUP_LONG_MS, &hello[k]), 0, "clone %d is silent", k);
        cr_assert(hello[k].has_nonce, "clone %d has no nonce: booted, not restored", k);
        cr_assert_arr_eq(hello[k].nonce, nonce, 32);
        cr_assert_arr_eq(hello[k].boot_id, born.boot_id, 16);
    }
    /* A write of one is not seen by the other, nor by the template. */
    sup_agent_plant(a[0], other);
    cr_assert_eq(sup_agent_hello(a[0], SUP_LONG_MS, &hello[0]), 0);
    cr_assert_eq(sup_agent_hello(a[1], SUP_LONG_MS, &hello[1]), 0);
    cr_assert_arr_eq(hello[0].nonce, other, 32);
    cr_assert_arr_eq(hello[1].nonce, nonce, 32);
    for (int k = 0; k < 2; k++)
        sup_agent_reseed(a[k], sample[k]);
    cr_assert_arr_neq(sample[0], sample[1], 16);
    sup_digest(f->scratch_fd, after);
    cr_assert_str_eq(before, after, "a clone wrote to the template's memory");

    for (int k = 0; k < 2; k++) {
        sup_agent_close(a[k]);
        sup_vm_stop(c[k], 0);
    }
    close(dirfd);
}
FOR_EACH_TARGET(chain)
FOR_EACH_VSOCK(chain)

/* The seal that keeps a VMM that was broken out of from poisoning later clones does not hinder a
 * clone, and a shared mapping of sealed memory is refused in words. */
static void sealed_memory(struct fixture *f)
{
    need_template(f);
    cr_assert_eq(
        fcntl(f->saved_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
        0);
    struct sup_vm *v = fresh_clone(f);
    sup_must(v, VF_VM_OP_RESTORE, f->saved_dirfd);
    sup_must(v, VF_VM_OP_RESUME, -1);
    sup_must(v, VF_VM_OP_QUERY, -1);
    sup_vm_stop(v, 0);

    v = new_vm(f);
    v->cfg.memory_fd = f->saved_fd;
    cr_assert_neq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_OK);
    cr_assert_neq(v->op.code, VF_TIMEOUT, "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
}
FOR_EACH_TARGET(sealed_memory)

/* What create was given is its own: the caller may close and free all of it when create is back. */
static void config_is_copied(struct fixture *f)
{
    struct vf_error e;
    char id[32] = "copied";
    struct sup_vm *v = new_vm(f);
    int own_dirfd = dup(v->dirfd), own_memory = dup(f->scratch_fd);
    v->cfg.id = id;
    v->cfg.dirfd = own_dirfd;
    v->cfg.memory_fd = own_memory;
    cr_assert_eq(sup_try(v, VF_VM_OP_CREATE, -1, SUP_LONG_MS, &e), 0, "%s", e.msg);
    close(own_dirfd);
    close(own_memory);
    memset(id, 'x', sizeof(id) - 1);
    memset(&v->cfg, 0, sizeof(v->cfg));
    v->cfg.memory_size = 2;
    cr_assert_eq(sup_wait(v), VF_OK, "%s", v->op.err.msg);
    sup_must(v, VF_VM_OP_START, -1);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    /* The same of a directory to save into. */
    int dirfd = sup_dir(&f->s, "out"), copy = dup(dirfd);
    cr_assert_eq(sup_try(v, VF_VM_OP_SAVE, copy, SUP_LONG_MS, &e), 0, "%s", e.msg);
    close(copy);
    cr_assert_eq(sup_wait(v), VF_OK, "%s", v->op.err.msg);
    int n_files = 0;
    while (vf_vmm_find(f->t->driver)->state_files[n_files])
        n_files++;
    cr_assert_eq(sup_count_files(dirfd), n_files);
    close(dirfd);
    sup_vm_stop(v, 0);
}
FOR_EACH_TARGET(config_is_copied)

/* ---- what is told on the way */

static void events_in_order(struct fixture *f)
{
    struct sup_vm *v = ready_for(f, VF_VM_OP_PAUSE);
    for (int i = 0; i < 3; i++) {
        sup_must(v, VF_VM_OP_PAUSE, -1);
        cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_PAUSED);
        sup_must(v, VF_VM_OP_RESUME, -1);
        cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_RUNNING);
    }
    cr_assert_str_eq(sup_events(v), "resumed paused resumed paused resumed paused resumed");
    sup_vm_stop(v, 0);
}
FOR_EACH_TARGET(events_in_order)

static void info_and_balloon(struct fixture *f)
{
    struct vf_error e;
    struct sup_vm *v = new_vm(f);
    cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_NEW);
    cr_assert_eq(vf_vm_info_of(v->vm)->version[0], 0);
    sup_must(v, VF_VM_OP_CREATE, -1);
    const struct vf_vm_info *info = vf_vm_info_of(v->vm);
    cr_assert_eq(info->state, VF_VM_CREATED);
    cr_assert(info->version[0] >= '1' && info->version[0] <= '9', "version: %s", info->version);
    cr_assert_eq(info->accel, f->t->accel);
    cr_assert_eq(info->memory_size, v->cfg.memory_size);
    sup_must(v, VF_VM_OP_QUERY, -1);
    sup_must(v, VF_VM_OP_START, -1);
    sup_must(v, VF_VM_OP_QUERY, -1);
    cr_assert_leq(info->balloon_actual, info->memory_size);

    cr_assert_eq(vf_vm_balloon(v->vm, 0, 0, NULL, NULL, &e), vf_code_errno(VF_INVALID_ARGUMENT));
    cr_assert_eq(vf_vm_balloon(v->vm, info->memory_size + 1, 0, NULL, NULL, &e),
                 vf_code_errno(VF_INVALID_ARGUMENT));
    cr_assert(strstr(e.msg, "balloon: target"), "%s", e.msg);
    if (strcmp(f->t->driver, "null") == 0) {
        sup_must(v, VF_VM_OP_BALLOON, -1);
        cr_assert_eq(info->balloon_actual, info->memory_size / 2);
    } else {
        enum vf_code code = sup_do(v, VF_VM_OP_BALLOON, -1, 0);
        cr_assert_eq(code, good_end(f, VF_VM_OP_BALLOON), "%s", v->op.err.msg);
        cr_assert_eq(info->state, VF_VM_RUNNING);
        sup_must(v, VF_VM_OP_QUERY, -1);
    }
    sup_vm_stop(v, 0);

    v = new_vm(f);
    v->cfg.balloon = false;
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_START, -1);
    cr_assert_eq(sup_do(v, VF_VM_OP_BALLOON, -1, 0), VF_UNSUPPORTED);
    cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_RUNNING, "a refusal changes nothing");
    sup_vm_stop(v, 0);
}
FOR_EACH_TARGET(info_and_balloon)

/* A VM goes on after its save: saving is not its end. */
static void saved_twice(struct fixture *f)
{
    struct sup_vm *v = ready_for(f, VF_VM_OP_SAVE);
    int first = sup_dir(&f->s, "first"), second = sup_dir(&f->s, "second");
    sup_must(v, VF_VM_OP_SAVE, first);
    int n = sup_count_files(first);
    cr_assert_gt(n, 0);
    cr_assert_eq(sup_do(v, VF_VM_OP_SAVE, second, 0), VF_CONFLICT, "%s", v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, "save: the VM was saved already"), "%s", v->op.err.msg);
    cr_assert_eq(sup_count_files(second), 0);

    sup_must(v, VF_VM_OP_RESUME, -1);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    cr_assert_eq(sup_do(v, VF_VM_OP_SAVE, first, 0), VF_CONFLICT, "%s", v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, "save: "), "%s", v->op.err.msg);
    cr_assert_eq(sup_count_files(first), n);
    cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_PAUSED, "a refusal changes nothing");
    sup_must(v, VF_VM_OP_SAVE, second);
    sup_must(v, VF_VM_OP_RESUME, -1);
    sup_vm_stop(v, 0);
    close(first);
    close(second);
}
FOR_EACH_TARGET(saved_twice)

/* Conformance: bad configs, bad saved states, no descriptors left. */
#include "tests/e2e/conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/hash.h"

/* ---- configs */

static void bad_configs(struct fixture *f)
{
    for (int i = 0;; i++) {
        struct vf_error e;
        struct sup_vm *v = ready_for(f, VF_VM_OP_CREATE);
        const char *words;
        switch (i) {
        case 0:
            v->cfg.vcpus = 0;
            words = "vcpus";
            break;
        case 1:
            v->cfg.vcpus = -3;
            words = "vcpus";
            break;
        case 2:
            v->cfg.memory_size = 0;
            words = "memory_size";
            break;
        case 3:
            v->cfg.memory_size = (1 << 20) + 1;
            words = "memory_size";
            break;
        case 4:
            v->cfg.id = "";
            words = "id";
            break;
        case 5:
            v->cfg.id = "0123456789012345678901234567890123456789012345678901234567890123";
            words = "id";
            break;
        case 6:
            v->cfg.n_disks = VF_VM_MAX_DISKS + 1;
            words = "disks";
            break;
        case 7:
            v->cfg.channel = VF_CHANNEL_SERIAL;
            v->cfg.console = true;
            words = "console";
            break;
        default:
            sup_vm_stop(v, 0);
            return;
        }
        cr_assert_eq(sup_try(v, VF_VM_OP_CREATE, -1, 0, &e), vf_code_errno(VF_INVALID_ARGUMENT),
                     "%d: %s", i, e.msg);
        cr_assert(strstr(e.msg, words), "%d: %s", i, e.msg);
        cr_assert_eq(sup_count_files(v->dirfd), 0);
        sup_vm_stop(v, 0);
    }
}
FOR_EACH_TARGET(bad_configs)

/* Memory that is no descriptor, or shorter than it should be; a directory that is taken. */
static void bad_descriptors(struct fixture *f)
{
    struct sup_vm *v = ready_for(f, VF_VM_OP_CREATE);
    v->cfg.memory_fd = -1;
    cr_assert_neq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_OK);
    cr_assert_neq(v->op.code, VF_TIMEOUT);
    sup_vm_stop(v, 0);

    v = ready_for(f, VF_VM_OP_CREATE);
    int file = openat(f->s.dirfd, "short", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_eq(ftruncate(file, 4096), 0);
    v->cfg.memory_fd = file;
    v->cfg.memory_shared = false;
    cr_assert_neq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_OK);
    cr_assert_neq(v->op.code, VF_TIMEOUT);
    sup_vm_stop(v, 0);
    close(file);

    v = ready_for(f, VF_VM_OP_CREATE);
    v->cfg.dirfd = -1;
    cr_assert_neq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_OK);
    sup_vm_stop(v, 0);

    /* A second VM in the directory of the first is refused, and does not take its socket away. */
    struct sup_vm *first = ready_for(f, VF_VM_OP_PAUSE);
    int n = sup_count_files(first->dirfd);
    v = ready_for(f, VF_VM_OP_CREATE);
    v->cfg.dirfd = first->dirfd;
    cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_CONFLICT, "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
    cr_assert_eq(sup_count_files(first->dirfd), n);
    struct sup_hello hello;
    struct sup_agent *a = sup_agent_open(first);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0);
    sup_agent_close(a);
    sup_vm_stop(first, 0);
}
FOR_EACH_TARGET(bad_descriptors)

/* ---- saved states */

static const char *const *state_files(struct fixture *f)
{
    return vf_vmm_find(f->t->driver)->state_files;
}

/* A copy of every file of the template's directory, at most len bytes of each. */
static int copy_saved(struct fixture *f, const char *name, size_t percent)
{
    int dirfd = sup_dir(&f->s, name);
    for (const char *const *file = state_files(f); *file; file++) {
        struct vf_error e;
        char *data;
        size_t len;
        cr_assert_eq(vf_read_file(f->saved_dirfd, *file, 64 << 20, &data, &len, &e), 0, "%s",
                     e.msg);
        cr_assert_eq(vf_write_file(dirfd, *file, data, len * percent / 100, 0600, &e), 0, "%s",
                     e.msg);
        free(data);
    }
    return dirfd;
}

static void must_not_restore(struct fixture *f, int dirfd, const char *what)
{
    struct sup_vm *v = fresh_clone(f);
    int n = sup_count_files(dirfd);
    enum vf_code code = sup_do(v, VF_VM_OP_RESTORE, dirfd, 0);
    cr_assert(code == VF_NOT_FOUND || code == VF_CORRUPT || code == VF_VMM_FAILED ||
                  code == VF_VMM_DIED || code == VF_INVALID_ARGUMENT,
              "%s: %s: %s", what, vf_code_name(code), v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, "restore: "), "%s: %s", what, v->op.err.msg);
    cr_assert_neq(vf_vm_info_of(v->vm)->state, VF_VM_PAUSED);
    cr_assert_eq(sup_count_files(dirfd), n);
    sup_vm_stop(v, 0);
    cr_assert_eq(sup_count_children(), 0);
}

static void bad_saved_states(struct fixture *f)
{
    struct vf_error e;
    char noise[8192], before[65], after[65];
    sup_vm_stop(fresh_clone(f), 0); /* makes the template */
    sup_digest(f->saved_fd, before);

    int empty = sup_dir(&f->s, "empty");
    must_not_restore(f, empty, "an empty directory");
    close(empty);
    /* Not more: QEMU's stream ends with a description of itself, which it does not need. */
    static const int percents[] = {0, 1, 25, 50};
    for (size_t i = 0; i < sizeof(percents) / sizeof(*percents); i++) {
        char name[32];
        snprintf(name, sizeof(name), "cut%d", percents[i]);
        int cut = copy_saved(f, name, (size_t)percents[i]);
        must_not_restore(f, cut, name);
        close(cut);
    }
    int garbage = sup_dir(&f->s, "garbage");
    vf_random(noise, sizeof(noise));
    for (const char *const *file = state_files(f); *file; file++)
        cr_assert_eq(vf_write_file(garbage, *file, noise, sizeof(noise), 0600, &e), 0);
    must_not_restore(f, garbage, "garbage");
    close(garbage);
    int link = sup_dir(&f->s, "link");
    for (const char *const *file = state_files(f); *file; file++) {
        char target[64];
        snprintf(target, sizeof(target), "../saved/%s", *file);
        cr_assert_eq(symlinkat(target, link, *file), 0);
    }
    must_not_restore(f, link, "a symlink");
    close(link);
    sup_digest(f->saved_fd, after);
    cr_assert_str_eq(before, after, "a failed restore wrote to the template's memory");

    /* And with all that the template is still good. */
    struct sup_vm *v = fresh_clone(f);
    sup_must(v, VF_VM_OP_RESTORE, f->saved_dirfd);
    sup_vm_stop(v, 0);
}
FOR_EACH_TARGET(bad_saved_states)

/* A directory that can't be written to: nothing is left in it, and the error says save. */
static void unwritable_save(struct fixture *f)
{
    struct sup_vm *v = ready_for(f, VF_VM_OP_SAVE);
    int proc = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum vf_code code = sup_do(v, VF_VM_OP_SAVE, proc, 0);
    cr_assert(code != VF_OK && code != VF_TIMEOUT, "%s", vf_code_name(code));
    cr_assert(strstr(v->op.err.msg, "save: "), "%s", v->op.err.msg);
    close(proc);
    sup_vm_stop(v, 0);

    v = ready_for(f, VF_VM_OP_SAVE);
    code = sup_do(v, VF_VM_OP_SAVE, -1, 0);
    cr_assert(code != VF_OK && code != VF_TIMEOUT, "%s", vf_code_name(code));
    sup_vm_stop(v, 0);
}
FOR_EACH_TARGET(unwritable_save)

/* ---- descriptors */

static void limit_fds(rlim_t soft)
{
    struct rlimit r;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &r), 0);
    r.rlim_cur = soft < r.rlim_max ? soft : r.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &r), 0);
}

/* Runs op with room for 0, 1, 2, … more descriptors until it succeeds: each failure is in words, and
 * stop, which has to work without any, leaves nothing. */
static void scarce(struct fixture *f, enum vf_vm_op op)
{
    struct rlimit old;
    getrlimit(RLIMIT_NOFILE, &old);
    int failures = 0;
    for (int room = 0; room < 64; room++) {
        struct sup_vm *v = ready_for(f, op);
        int dirfd = dir_for(f, op), fds[SUP_MAX_FDS], n = 0;
        /* Fill the holes, so that the limit is what decides. */
        int top = sup_highest_fd();
        while ((fds[n] = dup(0)) >= 0 && fds[n] < top)
            n++;
        close(fds[n]);
        sup_turns(&f->s, 1);
        limit_fds((rlim_t)(top + 1 + room));
        enum vf_code code = sup_do(v, op, dirfd, 0);
        sup_vm_stop_begin(v, 0);
        sup_run(&f->s, &v->stop.done, SUP_LONG_MS, "stop");
        limit_fds(old.rlim_cur);
        sup_vm_stop_end(v);
        while (n > 0)
            close(fds[--n]);
        done_dir(f, dirfd);
        if (code == VF_OK) {
            cr_assert(failures > 0 || op != VF_VM_OP_CREATE, "the limit was never felt");
            return;
        }
        failures++;
        cr_assert(code != VF_TIMEOUT && code != VF_INTERNAL, "%s with %d: %s: %s", op_name(op),
                  room, vf_code_name(code), v->op.err.msg);
        cr_assert(strncmp(v->op.err.msg, op_name(op), strlen(op_name(op))) == 0, "%s",
                  v->op.err.msg);
    }
    cr_assert_fail("%s: fails with 64 descriptors to spare", op_name(op));
}

static void scarce_descriptors(struct fixture *f)
{
    scarce(f, VF_VM_OP_CREATE);
    scarce(f, VF_VM_OP_SAVE);
    scarce(f, VF_VM_OP_RESTORE);
}
FOR_EACH_TARGET(scarce_descriptors)

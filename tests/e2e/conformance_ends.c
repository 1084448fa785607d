/* Conformance: wrong states, and every way an operation or a VM may end. */
#include "tests/e2e/conformance.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/fd.h"

/* But for adopt, which has its own: factory_adopt.c. */
#define ALL_OPS(op)                     \
    enum vf_vm_op op = VF_VM_OP_CREATE; \
    op < VF_VM_OP_ADOPT;                \
    op++

/* ---- wrong states */

/* Every operation but those in allowed (bits) is refused, names itself and the state. */
static void refused_in(struct fixture *f, struct sup_vm *v, unsigned allowed, const char *state)
{
    for (ALL_OPS(op)) {
        struct vf_error e;
        if (allowed & 1u << op)
            continue;
        /* A directory that would do, so that only the state is wrong. */
        int r = sup_try(v, op, f->saved_dirfd, 0, &e);
        cr_assert_eq(r, vf_code_errno(VF_CONFLICT), "%s while %s: %d %s", op_name(op), state, r,
                     e.msg);
        cr_assert(strncmp(e.msg, op_name(op), strlen(op_name(op))) == 0, "%s", e.msg);
        cr_assert(strstr(e.msg, state), "%s while %s: %s", op_name(op), state, e.msg);
    }
}

#define BIT(op) (1u << VF_VM_OP_##op)

static void wrong_states(struct fixture *f)
{
    struct vf_error e;
    struct sup_vm *v = ready_for(f, VF_VM_OP_CREATE);
    refused_in(f, v, BIT(CREATE), "new");
    cr_assert_eq(sup_try(v, VF_VM_OP_CREATE, -1, SUP_LONG_MS, &e), 0, "%s", e.msg);
    refused_in(f, v, 0, "create is under way");
    cr_assert_eq(sup_wait(v), VF_OK);
    refused_in(f, v, BIT(START) | BIT(RESTORE) | BIT(QUERY), "created");
    cr_assert_eq(sup_try(v, VF_VM_OP_RESTORE, -1, 0, &e), vf_code_errno(VF_CONFLICT));
    cr_assert(strstr(e.msg, "created to be started"), "%s", e.msg);
    sup_must(v, VF_VM_OP_START, -1);
    refused_in(f, v, BIT(PAUSE) | BIT(BALLOON) | BIT(QUERY), "running");
    sup_must(v, VF_VM_OP_PAUSE, -1);
    refused_in(f, v, BIT(SAVE) | BIT(RESUME) | BIT(BALLOON) | BIT(QUERY), "paused");
    /* It took no harm from all that. */
    sup_must(v, VF_VM_OP_RESUME, -1);
    sup_vm_kill(v);
    sup_run(&f->s, &v->exited, SUP_LONG_MS, "EXITED");
    refused_in(f, v, 0, "dead");
    sup_vm_stop_begin(v, 0);
    refused_in(f, v, 0, "stopping");
    sup_run(&f->s, &v->stop.done, SUP_LONG_MS, "stop");
    refused_in(f, v, 0, "gone");
    sup_vm_stop_end(v);

    v = fresh_clone(f);
    refused_in(f, v, BIT(START) | BIT(RESTORE) | BIT(QUERY), "created");
    cr_assert_eq(sup_try(v, VF_VM_OP_START, -1, 0, &e), vf_code_errno(VF_CONFLICT));
    cr_assert(strstr(e.msg, "created to be restored"), "%s", e.msg);
    sup_must(v, VF_VM_OP_RESTORE, f->saved_dirfd);
    refused_in(f, v, BIT(SAVE) | BIT(RESUME) | BIT(BALLOON) | BIT(QUERY), "paused");
    sup_vm_stop(v, 0);
}
FOR_EACH_TARGET(wrong_states)

/* While one operation is under way, each other is refused with its name, and it ends well. */
static void one_at_a_time(struct fixture *f)
{
    for (ALL_OPS(op)) {
        struct vf_error e;
        char words[64];
        struct sup_vm *v = ready_for(f, op);
        int dirfd = dir_for(f, op);
        cr_assert_eq(sup_try(v, op, dirfd, SUP_LONG_MS, &e), 0, "%s", e.msg);
        snprintf(words, sizeof(words), "%s is under way", op_name(op));
        refused_in(f, v, 0, words);
        cr_assert_eq(sup_wait(v), good_end(f, op), "%s: %s (%s)", op_name(op), v->op.err.msg,
                     v->op.err.hint);
        sup_vm_stop(v, 0);
        done_dir(f, dirfd);
    }
}
FOR_EACH_TARGET(one_at_a_time)

/* ---- cancelled, late */

static void only_stop_is_left(struct fixture *f, struct sup_vm *v, const char *words)
{
    cr_assert(strstr(v->op.err.msg, words), "%s", v->op.err.msg);
    /* Whatever the VMM still had to say about it changes nothing. */
    sup_turns(&f->s, 20);
    cr_assert_eq(v->op.calls, 1);
    cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_DEAD);
    refused_in(f, v, 0, "dead");
}

static void cancel_everywhere(struct fixture *f)
{
    for (ALL_OPS(op))
        for (int turns = 0; turns < 2; turns++) {
            struct vf_error e;
            char words[64];
            struct sup_vm *v = ready_for(f, op);
            int dirfd = dir_for(f, op);
            vf_vm_cancel(v->vm); /* nothing under way: nothing happens */
            cr_assert_eq(sup_try(v, op, dirfd, SUP_LONG_MS, &e), 0, "%s", e.msg);
            sup_turns(&f->s, turns);
            if (!v->op.done) {
                vf_vm_cancel(v->vm);
                cr_assert_eq(sup_wait(v), VF_CANCELLED);
                snprintf(words, sizeof(words), "%s: cancelled", op_name(op));
                only_stop_is_left(f, v, words);
            }
            sup_vm_stop(v, 0);
            done_dir(f, dirfd);
        }
}
FOR_EACH_TARGET(cancel_everywhere)

/* A VMM that answers nothing. (A create that hangs needs a VMM that plays along: see qemu_faults.c.) */
static void deadline_everywhere(struct fixture *f)
{
    for (ALL_OPS(op)) {
        char words[64];
        if (op == VF_VM_OP_CREATE && strcmp(f->t->driver, "null") != 0)
            continue;
        struct sup_vm *v = ready_for(f, op);
        int dirfd = dir_for(f, op);
        sup_vm_hang(v);
        cr_assert_eq(sup_do(v, op, dirfd, 30), VF_TIMEOUT, "%s: %s", op_name(op), v->op.err.msg);
        snprintf(words, sizeof(words), "%s: no answer from %s", op_name(op), f->t->driver);
        only_stop_is_left(f, v, words);
        sup_vm_stop(v, op % 2 ? 30 : 0); /* nor does it quit when asked */
        done_dir(f, dirfd);
    }
}
FOR_EACH_TARGET(deadline_everywhere)

/* ---- stopped */

struct stopper {
    struct sup_vm *v;
    struct sup_op stop;
    struct vf_error err;
    bool op_done;
};

static void on_stopped(void *arg, const struct vf_error *err)
{
    struct stopper *x = arg;
    cr_assert_null(err);
    x->stop.done = true;
}

static void stop_from_done(void *arg, const struct vf_error *err)
{
    struct stopper *x = arg;
    (void)err;
    x->op_done = true;
    cr_assert_eq(vf_vm_stop(x->v->vm, 0, on_stopped, x, &x->err), 0, "%s", x->err.msg);
    cr_assert_not(x->stop.done);
}

/* Before an operation, at once after it was submitted, and some turns of the loop later. */
static void stop_anywhere(struct fixture *f)
{
    static const int turns[] = {-1, 0, 1, 2, 4, 9};
    for (ALL_OPS(op))
        for (size_t i = 0; i < sizeof(turns) / sizeof(*turns); i++) {
            struct vf_error e;
            struct sup_vm *v = ready_for(f, op);
            int dirfd = dir_for(f, op);
            if (turns[i] >= 0) {
                cr_assert_eq(sup_try(v, op, dirfd, SUP_LONG_MS, &e), 0, "%s", e.msg);
                sup_turns(&f->s, turns[i]);
            }
            sup_vm_stop(v, i % 2 ? 0 : 5000);
            done_dir(f, dirfd);
            cr_assert_eq(sup_count_children(), 0, "%s, %d turns", op_name(op), turns[i]);
        }
}
FOR_EACH_TARGET(stop_anywhere)

static void stop_within_done(struct fixture *f)
{
    struct sup_vm *v = ready_for(f, VF_VM_OP_CREATE);
    struct stopper x = {.v = v};
    cr_assert_eq(vf_vm_create(v->vm, &v->cfg, stop_from_done, &x, &x.err), 0, "%s", x.err.msg);
    sup_run(&f->s, &x.stop.done, SUP_LONG_MS, "stop within create's done");
    vf_vm_free(v->vm);
    v->vm = NULL;
    vf_close_fd(&v->dirfd);

    v = ready_for(f, VF_VM_OP_PAUSE);
    x = (struct stopper){.v = v};
    cr_assert_eq(vf_vm_pause(v->vm, 0, stop_from_done, &x, &x.err), 0, "%s", x.err.msg);
    sup_run(&f->s, &x.stop.done, SUP_LONG_MS, "stop within pause's done");
    vf_vm_free(v->vm);
    v->vm = NULL;
    vf_close_fd(&v->dirfd);

    /* The same when what is done is that the process died. */
    v = ready_for(f, VF_VM_OP_PAUSE);
    x = (struct stopper){.v = v};
    sup_vm_hang(v);
    cr_assert_eq(vf_vm_pause(v->vm, 0, stop_from_done, &x, &x.err), 0, "%s", x.err.msg);
    sup_vm_kill(v);
    sup_run(&f->s, &x.stop.done, SUP_LONG_MS, "stop within a dead VM's done");
    cr_assert_eq(v->exited_events, 0, "an event after stop");
    vf_vm_free(v->vm);
    v->vm = NULL;
    vf_close_fd(&v->dirfd);
}
FOR_EACH_TARGET(stop_within_done)

/* A VMM that quits when asked need not be waited for, and one that does not is killed. */
static void stop_with_grace(struct fixture *f)
{
    struct sup_vm *v = ready_for(f, VF_VM_OP_PAUSE);
    sup_vm_stop(v, SUP_LONG_MS / 2);
    v = ready_for(f, VF_VM_OP_RESUME);
    sup_vm_stop(v, SUP_LONG_MS / 2);
    v = fresh_clone(f);
    sup_vm_stop(v, SUP_LONG_MS / 2);
    v = ready_for(f, VF_VM_OP_PAUSE);
    sup_vm_hang(v);
    sup_vm_stop(v, 30);
    /* Killed while it is asked. */
    v = ready_for(f, VF_VM_OP_PAUSE);
    sup_vm_hang(v);
    sup_vm_stop_begin(v, SUP_LONG_MS / 2);
    sup_vm_kill(v);
    sup_vm_stop_end(v);
    /* Never created. */
    v = ready_for(f, VF_VM_OP_CREATE);
    sup_vm_stop(v, 1000);
}
FOR_EACH_TARGET(stop_with_grace)

/* ---- killed */

static void must_have_exited(struct fixture *f, struct sup_vm *v)
{
    sup_run(&f->s, &v->exited, SUP_LONG_MS, "EXITED");
    sup_turns(&f->s, 20);
    cr_assert_eq(v->exited_events, 1);
    cr_assert(strstr(v->detail, "killed by signal 9"), "%s", v->detail);
    cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_DEAD);
    cr_assert_eq(vf_vm_info_of(v->vm)->pid, 0);
    refused_in(f, v, 0, "dead");
    sup_vm_stop(v, v->n_events % 2 ? 5000 : 0);
    cr_assert_eq(sup_count_children(), 0);
}

static void killed_between_operations(struct fixture *f)
{
    for (ALL_OPS(op)) {
        if (op == VF_VM_OP_CREATE)
            continue;
        struct sup_vm *v = ready_for(f, op);
        sup_vm_kill(v);
        must_have_exited(f, v);
    }
    struct sup_vm *v = fresh_clone(f);
    sup_must(v, VF_VM_OP_RESTORE, f->saved_dirfd);
    sup_vm_kill(v);
    must_have_exited(f, v);
}
FOR_EACH_TARGET(killed_between_operations)

static void killed_within_operations(struct fixture *f)
{
    for (ALL_OPS(op)) {
        struct vf_error e;
        struct sup_vm *v = ready_for(f, op);
        int dirfd = dir_for(f, op);
        /* Held, so that it can't be done before it is dead. */
        if (op != VF_VM_OP_CREATE)
            sup_vm_hang(v);
        cr_assert_eq(sup_try(v, op, dirfd, SUP_LONG_MS, &e), 0, "%s", e.msg);
        sup_vm_kill(v);
        cr_assert_eq(sup_wait(v), VF_VMM_DIED, "%s: %s", op_name(op), v->op.err.msg);
        cr_assert(strstr(v->op.err.msg, "killed by signal 9"), "%s", v->op.err.msg);
        must_have_exited(f, v);
        done_dir(f, dirfd);
    }
}
FOR_EACH_TARGET(killed_within_operations)

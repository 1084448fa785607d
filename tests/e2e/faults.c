/* Stand-ins by name, and a life to lead with them. */
#include "tests/e2e/faults.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"

void faults_open(struct faults *f, const struct sup_target *t)
{
    *f = (struct faults){.t = t};
    sup_open(&f->s);
    f->memory_fd = sup_memory(t);
}

void faults_close(struct faults *f)
{
    vf_close_fd(&f->memory_fd);
    sup_close(&f->s);
}

void fresh_memory(struct faults *f)
{
    vf_close_fd(&f->memory_fd);
    f->memory_fd = sup_memory(f->t);
}

/* A symlink whose name tells the fake what to do. */
static const char *binary_for(struct faults *f, const char *mode)
{
    const char *tests = getenv("VF_TESTS");
    char target[512], cwd[400];
    if (tests && tests[0])
        snprintf(target, sizeof(target), "%s/fake-%s", tests, f->t->driver);
    else
        snprintf(target, sizeof(target), "%s/build/tests/fake-%s", getcwd(cwd, sizeof(cwd)),
                 f->t->driver);
    cr_assert_eq(access(target, X_OK), 0, "%s: %s (make check-e2e builds it)", target,
                 strerror(errno));
    snprintf(f->binary, sizeof(f->binary), "%s/fake-%s-%s", f->s.dir, f->t->driver, mode);
    if (symlink(target, f->binary) < 0)
        cr_assert_eq(errno, EEXIST);
    return f->binary;
}

struct sup_vm *new_fake(struct faults *f, const char *mode)
{
    char name[32];
    snprintf(name, sizeof(name), "vm%d", f->serial++);
    struct sup_vm *v = sup_vm_new(&f->s, f->t, name);
    v->cfg.memory_fd = f->memory_fd;
    v->cfg.binary = binary_for(f, mode);
    return v;
}

void as_clone(struct sup_vm *v)
{
    v->cfg.incoming = true;
    v->cfg.memory_shared = false;
    v->cfg.kernel = NULL;
}

enum vf_vm_op live(struct sup_vm *v, int dirfd, bool clone, int64_t timeout_ms)
{
    static const enum vf_vm_op original[] = {VF_VM_OP_CREATE,  VF_VM_OP_START,  VF_VM_OP_PAUSE,
                                             VF_VM_OP_SAVE,    VF_VM_OP_RESUME, VF_VM_OP_QUERY,
                                             VF_VM_OP_BALLOON, VF_VM_OP_NONE},
                               copy[] = {VF_VM_OP_CREATE, VF_VM_OP_RESTORE, VF_VM_OP_RESUME,
                                         VF_VM_OP_NONE};
    if (clone)
        as_clone(v);
    for (const enum vf_vm_op *op = clone ? copy : original; *op != VF_VM_OP_NONE; op++)
        if (sup_do(v, *op, dirfd, timeout_ms) != VF_OK)
            return *op;
    return VF_VM_OP_NONE;
}

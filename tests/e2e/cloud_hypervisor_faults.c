/* The Cloud Hypervisor driver against one that is not there, is none, or misbehaves (tests/fakes/
 * fake-cloud-hypervisor.c): each fault gives the error that fits, in words, within the deadline, and stop leaves nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "tests/e2e/faults.h"

static const struct sup_target fake = {
    .name = "fake", .driver = "cloud-hypervisor", .accel = VF_ACCEL_KVM};

/* What a good one saves; mode's memory is shared if it says so. */
static int saved_dir(struct faults *f, bool memory_shared)
{
    char name[32];
    snprintf(name, sizeof(name), "saved%d", f->serial);
    int dirfd = sup_dir(&f->s, name);
    struct sup_vm *v = new_fake(f, "good");
    v->cfg.memory_shared = memory_shared;
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_START, -1);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    sup_must(v, VF_VM_OP_SAVE, dirfd);
    sup_vm_stop(v, 0);
    cr_assert_eq(sup_count_files(dirfd), memory_shared ? 2 : 3);
    return dirfd;
}

/* ---- one that fails to come up */

Test(cloud_hypervisor_faults, comes_up, .timeout = 120)
{
    static const struct {
        const char *mode;
        enum vf_code code;
        const char *words, *hint;
    } cases[] = {
        {"good", VF_OK, "", ""},
        {"bytewise", VF_OK, "", ""},
        {"noisy", VF_OK, "", ""},
        {"version-51.0", VF_OK, "", ""},
        {"version-v", VF_OK, "", ""},
        {"version-99.1", VF_OK, "", ""},
        {"version-50.0", VF_UNSUPPORTED, "Cloud Hypervisor 50.0.0 is too old: at least 51.0",
         "memory of its template"},
        {"version-9.0", VF_UNSUPPORTED, "9.0.0 is too old", ""},
        {"version-number", VF_PROTOCOL, "vmm.ping: the answer has no version", ""},
        {"version-none", VF_PROTOCOL, "vmm.ping: the answer has no version", ""},
        {"exit0", VF_VMM_DIED, "cloud-hypervisor exited with status 0", ""},
        {"exit-words", VF_VMM_DIED, "cloud-hypervisor exited with status 1",
         "cannot create hypervisor"},
        {"segv", VF_VMM_DIED, "cloud-hypervisor was killed by signal 11", ""},
        {"deaf", VF_TIMEOUT, "create: no answer from cloud-hypervisor", ""},
    };
    struct faults f;
    faults_open(&f, &fake);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct sup_vm *v = new_fake(&f, cases[i].mode);
        enum vf_code code =
            sup_do(v, VF_VM_OP_CREATE, -1, cases[i].code == VF_TIMEOUT ? SHORT_MS : 0);
        cr_assert_eq(code, cases[i].code, "%s: %s: %s", cases[i].mode, vf_code_name(code),
                     v->op.err.msg);
        cr_assert(strstr(v->op.err.msg, cases[i].words), "%s: %s", cases[i].mode, v->op.err.msg);
        cr_assert(strstr(v->op.err.hint, cases[i].hint), "%s: %s", cases[i].mode, v->op.err.hint);
        cr_assert_null(strchr(v->op.err.hint, '\x1b'), "a control character got through");
        sup_vm_stop(v, i % 2 ? SHORT_MS : 0);
        cr_assert_eq(sup_count_children(), 0, "%s", cases[i].mode);
    }
    faults_close(&f);
}

Test(cloud_hypervisor_faults, binaries, .timeout = 60)
{
    static const struct {
        const char *binary;
        enum vf_code code;
        const char *words;
    } cases[] = {{NULL, VF_INVALID_ARGUMENT, "binary"},
                 {"cloud-hypervisor", VF_INVALID_ARGUMENT, "absolute path"},
                 {"/nowhere/cloud-hypervisor", VF_NOT_FOUND, "exec"},
                 {"/tmp", VF_PERMISSION, "exec"},
                 {"/bin/true", VF_VMM_DIED, "cloud-hypervisor exited with status 0"},
                 {"/bin/false", VF_VMM_DIED, "cloud-hypervisor exited with status 1"}};
    struct faults f;
    faults_open(&f, &fake);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct sup_vm *v = new_fake(&f, "good");
        v->cfg.binary = cases[i].binary;
        cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), cases[i].code, "%s", v->op.err.msg);
        cr_assert(strstr(v->op.err.msg, cases[i].words), "%s", v->op.err.msg);
        sup_vm_stop(v, 0);
    }
    faults_close(&f);
}

/* ---- one that fails on the way */

/* mode at the first request, at the second, … until a life has fewer requests than that. */
static void at_each_request(const char *mode, enum vf_code code, const char *words, bool clone)
{
    struct faults f;
    int n;
    faults_open(&f, &fake);
    int saved = clone ? saved_dir(&f, true) : -1;
    for (n = 1; n < 40; n++) {
        char name[64];
        snprintf(name, sizeof(name), "%s-at-%d", mode, n);
        struct sup_vm *v = new_fake(&f, name);
        snprintf(name, sizeof(name), "out%d", n);
        int dirfd = clone ? saved : sup_dir(&f.s, name);
        enum vf_vm_op failed = live(v, dirfd, clone, code == VF_TIMEOUT ? SHORT_MS : 0);
        if (failed != VF_VM_OP_NONE) {
            cr_assert_eq(v->op.code, code, "%s at %d: %s: %s", mode, n, vf_code_name(v->op.code),
                         v->op.err.msg);
            cr_assert(strstr(v->op.err.msg, words), "%s at %d: %s", mode, n, v->op.err.msg);
            cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_DEAD);
        }
        sup_vm_stop(v, n % 2 ? 0 : SHORT_MS);
        if (!clone) {
            cr_assert(sup_count_files(dirfd) == 0 || failed != VF_VM_OP_SAVE,
                      "%s at %d: a failed save has left files", mode, n);
            close(dirfd);
        }
        cr_assert_eq(sup_count_children(), 0, "%s at %d", mode, n);
        if (failed == VF_VM_OP_NONE)
            break;
    }
    cr_assert_eq(n, clone ? 4 : 9, "%d requests were tried", n - 1);
    vf_close_fd(&saved);
    faults_close(&f);
}

#define AT_EACH_REQUEST(name, mode, code, words)                     \
    Test(cloud_hypervisor_faults, name, .timeout = 120)              \
    {                                                                \
        at_each_request(mode, code, words, false);                   \
    }                                                                \
    Test(cloud_hypervisor_faults, name##_of_a_clone, .timeout = 120) \
    {                                                                \
        at_each_request(mode, code, words, true);                    \
    }
AT_EACH_REQUEST(dies, "die", VF_VMM_DIED, "cloud-hypervisor exited with status 7")
AT_EACH_REQUEST(hangs, "hang", VF_TIMEOUT, "no answer from cloud-hypervisor")
AT_EACH_REQUEST(refuses, "error", VF_VMM_FAILED, "500: The fake could not: fake refuses")
AT_EACH_REQUEST(refuses_in_text, "error-text", VF_VMM_FAILED, "500: fake refuses")
AT_EACH_REQUEST(refuses_as_an_object, "error-object", VF_VMM_FAILED, "400: fake refuses")
AT_EACH_REQUEST(closes_and_lives, "close", VF_PROTOCOL, "closed its API connection, but lives")
AT_EACH_REQUEST(cuts_its_answer, "cut", VF_PROTOCOL, "closed its API connection, but lives")
AT_EACH_REQUEST(answers_text, "text", VF_PROTOCOL, "is no HTTP")
AT_EACH_REQUEST(answers_without_length, "no-length", VF_PROTOCOL, "how long")
AT_EACH_REQUEST(answers_too_much, "big", VF_PROTOCOL, "too long")
AT_EACH_REQUEST(never_ends_its_head, "endless", VF_PROTOCOL, "too long")

/* Odd, but within the protocol: none of it is a failure. */
Test(cloud_hypervisor_faults, odd_but_right, .timeout = 60)
{
    static const char *const modes[] = {"good", "bytewise", "noisy", "no-quit"};
    struct faults f;
    faults_open(&f, &fake);
    int saved = saved_dir(&f, true);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
        for (int clone = 0; clone < 2; clone++) {
            char name[32];
            struct sup_vm *v = new_fake(&f, modes[i]);
            snprintf(name, sizeof(name), "out%d", f.serial);
            int dirfd = clone ? dup(saved) : sup_dir(&f.s, name);
            enum vf_vm_op failed = live(v, dirfd, clone, 0);
            cr_assert_eq(failed, VF_VM_OP_NONE, "%s: %d: %s", modes[i], failed, v->op.err.msg);
            if (!clone)
                cr_assert_eq(vf_vm_info_of(v->vm)->balloon_actual, 32 << 20);
            sup_vm_stop(v, SHORT_MS);
            close(dirfd);
        }
    close(saved);
    faults_close(&f);
}

/* A pause or resume that is refused because it is done already: vm.info says so, and it is no failure. */
Test(cloud_hypervisor_faults, done_already, .timeout = 60)
{
    static const char *const modes[] = {"done-already-at-4", "done-already-at-6"};
    struct faults f;
    faults_open(&f, &fake);
    for (int i = 0; i < 2; i++) {
        int dirfd = sup_dir(&f.s, modes[i]);
        struct sup_vm *v = new_fake(&f, modes[i]);
        cr_assert_eq(live(v, dirfd, false, 0), VF_VM_OP_NONE, "%s", v->op.err.msg);
        cr_assert_str_eq(sup_events(v), "resumed paused resumed");
        sup_vm_stop(v, 0);
        close(dirfd);
    }
    faults_close(&f);
}

/* ---- saves and restores */

/* Memory whose file has lost its name is written out, which must not pass for a template. */
Test(cloud_hypervisor_faults, saves, .timeout = 60)
{
    struct faults f;
    faults_open(&f, &fake);
    int dirfd = sup_dir(&f.s, "out");
    struct sup_vm *v = new_fake(&f, "save-memory");
    cr_assert_eq(live(v, dirfd, false, 0), VF_VM_OP_SAVE);
    cr_assert_eq(v->op.code, VF_VMM_FAILED);
    cr_assert(strstr(v->op.err.msg, "has written the memory, though it is shared"), "%s",
              v->op.err.msg);
    cr_assert(strstr(v->op.err.hint, "has lost its name"), "%s", v->op.err.hint);
    cr_assert_eq(sup_count_files(dirfd), 0);
    sup_vm_stop(v, 0);

    v = new_fake(&f, "save-nothing");
    cr_assert_eq(live(v, dirfd, false, 0), VF_VM_OP_SAVE);
    cr_assert(strstr(v->op.err.msg, "save: file 'state.json': No such file"), "%s", v->op.err.msg);
    cr_assert_eq(sup_count_files(dirfd), 0);
    sup_vm_stop(v, 0);
    close(dirfd);
    faults_close(&f);
}

static void restore_fails(struct faults *f, const char *mode, int dirfd, enum vf_code code,
                          const char *words)
{
    struct sup_vm *v = new_fake(f, mode);
    as_clone(v);
    v->cfg.restore_mode = VF_RESTORE_ON_DEMAND;
    sup_must(v, VF_VM_OP_CREATE, -1);
    cr_assert_eq(sup_do(v, VF_VM_OP_RESTORE, dirfd, 0), code, "%s: %s", mode, v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, words), "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
}

/* Never a copy for what was to be on demand. */
Test(cloud_hypervisor_faults, on_demand, .timeout = 60)
{
    struct faults f;
    faults_open(&f, &fake);
    int shared = saved_dir(&f, true), own = saved_dir(&f, false);
    restore_fails(&f, "good", shared, VF_UNSUPPORTED, "holds no memory to fetch on demand");
    restore_fails(&f, "version-51.0", own, VF_UNSUPPORTED,
                  "Cloud Hypervisor 51.0.0 can't restore on demand: at least 52.0");
    /* The fake takes the field and has no userfaultfd. */
    restore_fails(&f, "good", own, VF_UNSUPPORTED, "has not restored on demand, but copied");
    restore_fails(&f, "busy-state", own, VF_PROTOCOL, "its state is BreakPoint");
    close(shared);
    close(own);
    faults_close(&f);
}

/* A clone of another shape than what was saved is refused before the VMM is asked. */
Test(cloud_hypervisor_faults, other_shapes, .timeout = 60)
{
    struct faults f;
    faults_open(&f, &fake);
    int dirfd = saved_dir(&f, true);
    for (int i = 0; i < 4; i++) {
        static const char *const words[] = {"memory_size", "disks", "nics", "channel"};
        struct sup_vm *v = new_fake(&f, "good");
        as_clone(v);
        if (i == 0)
            v->cfg.memory_size /= 2;
        else if (i == 1)
            v->cfg.disks[v->cfg.n_disks++] =
                (struct vf_vm_disk){.path = "/dev/null", .format = "raw"};
        else if (i == 2)
            v->cfg.nics[v->cfg.n_nics++] = (struct vf_vm_nic){.tap = "tap0"};
        else
            v->cfg.channel = VF_CHANNEL_VSOCK;
        sup_must(v, VF_VM_OP_CREATE, -1);
        cr_assert_eq(sup_do(v, VF_VM_OP_RESTORE, dirfd, 0), VF_INVALID_ARGUMENT, "%s",
                     v->op.err.msg);
        cr_assert(strstr(v->op.err.msg, words[i]), "%s", v->op.err.msg);
        cr_assert(strstr(v->op.err.msg, "restore: file 'config.json': "), "%s", v->op.err.msg);
        sup_vm_stop(v, 0);
    }
    close(dirfd);
    faults_close(&f);
}

/* What this VMM alone minds of a config. */
Test(cloud_hypervisor_faults, configs, .timeout = 60)
{
    struct faults f;
    faults_open(&f, &fake);
    struct sup_vm *v = new_fake(&f, "good");
    v->cfg.nics[v->cfg.n_nics++] = (struct vf_vm_nic){.tap = NULL};
    cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_UNSUPPORTED);
    cr_assert(strstr(v->op.err.msg, "nics[0]: Cloud Hypervisor needs a tap"), "%s", v->op.err.msg);
    sup_vm_stop(v, 0);

    v = new_fake(&f, "good");
    v->cfg.mergeable = true;
    cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_UNSUPPORTED);
    cr_assert(strstr(v->op.err.msg, "mergeable: "), "%s", v->op.err.msg);
    sup_vm_stop(v, 0);

    static const char *const clone_only[] = {"prefault", "mergeable"};
    for (int i = 0; i < 2; i++) {
        v = new_fake(&f, "good");
        as_clone(v);
        *(i ? &v->cfg.mergeable : &v->cfg.prefault) = true;
        cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_UNSUPPORTED);
        cr_assert(strstr(v->op.err.msg, clone_only[i]), "%s", v->op.err.msg);
        sup_vm_stop(v, 0);
    }
    v = new_fake(&f, "good");
    v->cfg.accel = VF_ACCEL_TCG;
    cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_UNSUPPORTED);
    sup_vm_stop(v, 0);
    faults_close(&f);
}

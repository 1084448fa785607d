/* The QEMU driver against a QEMU that is not there, is none, or misbehaves (tests/fakes/fake-qemu.c): each
 * fault gives the error that fits, in words, within the deadline, and stop leaves nothing.
 */
#include "tests/e2e/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"

static const struct sup_target fake = {.name = "fake", .driver = "qemu", .accel = VF_ACCEL_TCG};

/* ---- no QEMU */

static void no_qemu(struct faults *f, const char *binary, enum vf_code code, const char *words)
{
    char name[32];
    snprintf(name, sizeof(name), "vm%d", f->serial++);
    struct sup_vm *v = sup_vm_new(&f->s, &fake, name);
    v->cfg.memory_fd = f->memory_fd;
    v->cfg.binary = binary;
    enum vf_code got = sup_do(v, VF_VM_OP_CREATE, -1, 0);
    cr_assert_eq(got, code, "%s: %s: %s", binary, vf_code_name(got), v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, words), "%s", v->op.err.msg);
    if (binary && binary[0] == '/' && code != VF_VMM_DIED) {
        cr_assert(strstr(v->op.err.msg, binary), "%s", v->op.err.msg);
        cr_assert(v->op.err.hint[0], "no hint: %s", v->op.err.msg);
    }
    sup_vm_stop(v, 0);
    sup_check_leaks(&f->s, 12); /* the loop's own, and the test's */
}

Test(qemu_faults, binaries, .timeout = 60)
{
    struct faults f;
    char path[256];
    faults_open(&f, &fake);
    no_qemu(&f, NULL, VF_INVALID_ARGUMENT, "binary");
    no_qemu(&f, "qemu-system-x86_64", VF_INVALID_ARGUMENT, "absolute path");
    snprintf(path, sizeof(path), "%s/missing", f.s.dir);
    no_qemu(&f, path, VF_NOT_FOUND, "exec");
    no_qemu(&f, f.s.dir, VF_PERMISSION, "exec");
    snprintf(path, sizeof(path), "%s/plain", f.s.dir);
    cr_assert_eq(close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644)), 0);
    no_qemu(&f, path, VF_PERMISSION, "exec");
    snprintf(path, sizeof(path), "%s/text", f.s.dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    cr_assert_eq(write(fd, "I am no program\n", 16), 16);
    close(fd);
    no_qemu(&f, path, VF_INVALID_ARGUMENT, "exec");
    snprintf(path, sizeof(path), "%s/loop", f.s.dir);
    cr_assert_eq(symlink(path, path), 0);
    no_qemu(&f, path, VF_INVALID_ARGUMENT, "exec");
    no_qemu(&f, "/bin/true", VF_VMM_DIED, "qemu exited with status 0");
    no_qemu(&f, "/bin/false", VF_VMM_DIED, "qemu exited with status 1");
    faults_close(&f);
}

/* ---- a QEMU that fails to come up */

Test(qemu_faults, greetings, .timeout = 120)
{
    static const struct {
        const char *mode;
        enum vf_code code;
        const char *words, *hint;
    } cases[] = {
        {"good", VF_OK, "", ""},
        {"bytewise", VF_OK, "", ""},
        {"version-99.0", VF_OK, "", ""},
        {"version-7.2", VF_OK, "", ""},
        {"version-7.1", VF_UNSUPPORTED, "QEMU 7.1.0 is too old: at least 7.2", "newer"},
        {"version-2.0", VF_UNSUPPORTED, "QEMU 2.0.0 is too old", "newer"},
        {"exit0", VF_VMM_DIED, "qemu exited with status 0", ""},
        {"exit-words", VF_VMM_DIED, "qemu exited with status 1",
         "cannot set up guest memory 'ram'"},
        {"segv", VF_VMM_DIED, "qemu was killed by signal 11", ""},
        {"no-greeting", VF_TIMEOUT, "create: no answer from qemu", ""},
        {"half-greeting", VF_TIMEOUT, "create: no answer from qemu", ""},
        {"close", VF_TIMEOUT, "create: no answer from qemu", ""},
        {"flood-early", VF_TIMEOUT, "create: no answer from qemu", ""},
        {"greeting-text", VF_PROTOCOL, "no JSON object", ""},
        {"greeting-object", VF_PROTOCOL, "no greeting", ""},
        {"greeting-no-version", VF_UNSUPPORTED, "too old", ""},
        {"greeting-twice", VF_PROTOCOL, "a reply to no command", ""},
        {"greeting-endless", VF_PROTOCOL, "a line longer than 256 KiB", ""},
        {"greeting-nul", VF_PROTOCOL, "no JSON object", ""},
        {"greeting-bomb", VF_PROTOCOL, "no JSON object", ""},
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

/* ---- a QEMU that fails on the way */

/* mode at the first command, at the second, … until a life has fewer commands than that. */
static void at_each_command(const char *mode, enum vf_code code, const char *words, bool clone)
{
    struct faults f;
    int n;
    faults_open(&f, &fake);
    for (n = 1; n < 40; n++) {
        char name[64];
        snprintf(name, sizeof(name), "%s-at-%d", mode, n);
        struct sup_vm *v = new_fake(&f, name);
        snprintf(name, sizeof(name), "out%d", n);
        int dirfd = sup_dir(&f.s, name);
        struct vf_error e;
        if (clone)
            cr_assert_eq(vf_write_file(dirfd, "state", "fake", 4, 0600, &e), 0);
        enum vf_vm_op failed = live(v, dirfd, clone, code == VF_TIMEOUT ? SHORT_MS : 0);
        /* A balloon that tells nothing is no failure: the guest may not have its driver up. */
        bool tolerated = code == VF_VMM_FAILED && failed == VF_VM_OP_NONE && n == 11;
        if (failed != VF_VM_OP_NONE) {
            cr_assert_eq(v->op.code, code, "%s at %d: %s: %s", mode, n, vf_code_name(v->op.code),
                         v->op.err.msg);
            cr_assert(strstr(v->op.err.msg, words), "%s at %d: %s", mode, n, v->op.err.msg);
            cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_DEAD);
        }
        sup_vm_stop(v, n % 2 ? 0 : SHORT_MS);
        close(dirfd);
        cr_assert_eq(sup_count_children(), 0, "%s at %d", mode, n);
        if (failed == VF_VM_OP_NONE && !tolerated)
            break;
    }
    cr_assert_geq(n, clone ? 6 : 13, "only %d commands were tried", n - 1);
    faults_close(&f);
}

#define AT_EACH_COMMAND(name, mode, code, words)         \
    Test(qemu_faults, name, .timeout = 120)              \
    {                                                    \
        at_each_command(mode, code, words, false);       \
    }                                                    \
    Test(qemu_faults, name##_of_a_clone, .timeout = 120) \
    {                                                    \
        at_each_command(mode, code, words, true);        \
    }
AT_EACH_COMMAND(dies, "die", VF_VMM_DIED, "qemu exited with status 7")
AT_EACH_COMMAND(hangs, "hang", VF_TIMEOUT, "no answer from qemu")
AT_EACH_COMMAND(refuses, "error", VF_VMM_FAILED, "fake refuses")
AT_EACH_COMMAND(closes_and_lives, "close", VF_PROTOCOL, "closed its QMP connection, but lives")
AT_EACH_COMMAND(answers_another, "wrong-id", VF_PROTOCOL, "a reply to no command")
AT_EACH_COMMAND(answers_none, "no-id", VF_PROTOCOL, "a reply to no command")
AT_EACH_COMMAND(answers_text, "text", VF_PROTOCOL, "no JSON object")
AT_EACH_COMMAND(never_ends_a_line, "endless", VF_PROTOCOL, "a line longer than 256 KiB")
AT_EACH_COMMAND(sends_nul, "nul", VF_PROTOCOL, "no JSON object")
AT_EACH_COMMAND(nests, "bomb", VF_PROTOCOL, "no JSON object")
AT_EACH_COMMAND(sends_an_array, "array", VF_PROTOCOL, "no JSON object")
AT_EACH_COMMAND(floods, "flood", VF_TIMEOUT, "no answer from qemu")

/* Odd, but within the protocol: none of it is a failure. */
Test(qemu_faults, odd_but_right, .timeout = 60)
{
    static const char *const modes[] = {"good", "bytewise", "chatty", "noisy", "no-quit"};
    struct faults f;
    faults_open(&f, &fake);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
        for (int clone = 0; clone < 2; clone++) {
            char name[32];
            struct vf_error e;
            struct sup_vm *v = new_fake(&f, modes[i]);
            snprintf(name, sizeof(name), "out%d", f.serial);
            int dirfd = sup_dir(&f.s, name);
            if (clone)
                cr_assert_eq(vf_write_file(dirfd, "state", "fake", 4, 0600, &e), 0);
            enum vf_vm_op failed = live(v, dirfd, clone, 0);
            cr_assert_eq(failed, VF_VM_OP_NONE, "%s: %d: %s", modes[i], failed, v->op.err.msg);
            sup_vm_stop(v, SHORT_MS);
            close(dirfd);
        }
    faults_close(&f);
}

/* ---- migration */

Test(qemu_faults, migration_fails, .timeout = 60)
{
    struct faults f;
    struct vf_error e;
    faults_open(&f, &fake);
    int dirfd = sup_dir(&f.s, "out");
    struct sup_vm *v = new_fake(&f, "save-fails");
    cr_assert_eq(live(v, dirfd, false, 0), VF_VM_OP_SAVE);
    cr_assert_eq(v->op.code, VF_VMM_FAILED);
    cr_assert(strstr(v->op.err.msg, "fake disk is full"), "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
    close(dirfd);

    dirfd = sup_dir(&f.s, "in");
    cr_assert_eq(vf_write_file(dirfd, "state", "fake", 4, 0600, &e), 0);
    v = new_fake(&f, "restore-fails");
    cr_assert_eq(live(v, dirfd, true, 0), VF_VM_OP_RESTORE);
    cr_assert_eq(v->op.code, VF_VMM_DIED);
    cr_assert(strstr(v->op.err.msg, "restore: qemu exited with status 1"), "%s", v->op.err.msg);
    cr_assert(strstr(v->op.err.hint, "load of migration failed"), "%s", v->op.err.hint);
    sup_vm_stop(v, 0);

    v = new_fake(&f, "restore-fails-alive");
    cr_assert_eq(live(v, dirfd, true, SHORT_MS), VF_VM_OP_RESTORE);
    cr_assert(v->op.code == VF_TIMEOUT || v->op.code == VF_VMM_FAILED, "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
    close(dirfd);
    faults_close(&f);
}

/* A connection lost between operations is told by an event, and the next operation knows. */
Test(qemu_faults, closes_when_nothing_is_asked, .timeout = 60)
{
    struct faults f;
    faults_open(&f, &fake);
    struct sup_vm *v = new_fake(&f, "then-close-at-3");
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_START, -1);
    sup_run(&f.s, &v->failed, SUP_LONG_MS, "FAILED");
    cr_assert_str_eq(sup_events(v), "resumed failed");
    cr_assert(strstr(v->detail, "closed its QMP connection, but lives"), "%s", v->detail);
    cr_assert_eq(sup_do(v, VF_VM_OP_PAUSE, -1, 0), VF_VMM_DIED);
    cr_assert(strstr(v->op.err.msg, "pause: QMP: stop: not connected"), "%s", v->op.err.msg);
    sup_vm_stop(v, SHORT_MS);
    faults_close(&f);
}

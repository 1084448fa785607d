/* The Firecracker driver against a Firecracker that is not there, is none, or misbehaves
 * (tests/fakes/fake-firecracker.c): each fault gives the error that fits, in words, within the deadline, and stop leaves
 * nothing. And what each version is sent.
 */
#include "tests/e2e/faults.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"

static const struct sup_target fake = {
    .name = "fake", .driver = "firecracker", .accel = VF_ACCEL_KVM};

static int saved_dir(struct faults *f, const char *name)
{
    struct vf_error e;
    int dirfd = sup_dir(&f->s, name);
    cr_assert_eq(vf_write_file(dirfd, "state", "fake", 4, 0600, &e), 0, "%s", e.msg);
    return dirfd;
}

/* ---- no Firecracker, or one that fails to come up */

static void no_firecracker(struct faults *f, const char *binary, enum vf_code code,
                           const char *words)
{
    char name[32];
    snprintf(name, sizeof(name), "vm%d", f->serial++);
    struct sup_vm *v = sup_vm_new(&f->s, &fake, name);
    v->cfg.memory_fd = f->memory_fd;
    v->cfg.binary = binary;
    enum vf_code got = sup_do(v, VF_VM_OP_CREATE, -1, 0);
    cr_assert_eq(got, code, "%s: %s: %s", binary, vf_code_name(got), v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, words), "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
    sup_check_leaks(&f->s, 12); /* the loop's own, and the test's */
}

Test(firecracker_faults, binaries, .timeout = 60)
{
    struct faults f;
    char path[256];
    faults_open(&f, &fake);
    no_firecracker(&f, NULL, VF_INVALID_ARGUMENT, "binary");
    no_firecracker(&f, "firecracker", VF_INVALID_ARGUMENT, "absolute path");
    snprintf(path, sizeof(path), "%s/missing", f.s.dir);
    no_firecracker(&f, path, VF_NOT_FOUND, "exec");
    no_firecracker(&f, f.s.dir, VF_PERMISSION, "exec");
    no_firecracker(&f, "/bin/true", VF_VMM_DIED, "firecracker exited with status 0");
    no_firecracker(&f, "/bin/false", VF_VMM_DIED, "firecracker exited with status 1");
    faults_close(&f);
}

Test(firecracker_faults, comes_up, .timeout = 120)
{
    static const struct {
        const char *mode;
        enum vf_code code;
        const char *words, *hint;
    } cases[] = {
        {"good", VF_OK, "", ""},
        {"bytewise", VF_OK, "", ""},
        {"late-listen", VF_OK, "", ""},
        {"close-at-1", VF_OK, "", ""}, /* asked again, as if nobody had listened */
        {"version-1.4.0", VF_OK, "", ""},
        {"version-99.0.0", VF_OK, "", ""},
        {"version-1.3.9", VF_UNSUPPORTED, "Firecracker 1.3.9 is too old: at least 1.4", "newer"},
        {"version-0.25.0", VF_UNSUPPORTED, "Firecracker 0.25.0 is too old", "newer"},
        {"version-number", VF_UNSUPPORTED, "Firecracker without a version is too old", "newer"},
        {"version-none", VF_UNSUPPORTED, "Firecracker without a version is too old", "newer"},
        {"version-text", VF_UNSUPPORTED, "Firecracker without a version is too old", "newer"},
        {"exit0", VF_VMM_DIED, "firecracker exited with status 0", ""},
        {"exit-words", VF_VMM_DIED, "firecracker exited with status 1", "FailedToBindSocket"},
        {"segv", VF_VMM_DIED, "firecracker was killed by signal 11", ""},
        {"no-socket", VF_TIMEOUT, "create: no answer from firecracker", ""},
        {"bind-only", VF_TIMEOUT, "create: no answer from firecracker", ""},
        {"bind-only", VF_PROTOCOL, "create: Firecracker takes no requests: ", ""},
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

/* ---- one that fails on the way */

/* mode at the first request, at the second, … until a life has fewer requests than that. */
static void at_each_request(const char *mode, enum vf_code code, const char *words, bool clone)
{
    struct faults f;
    int n;
    faults_open(&f, &fake);
    for (n = 1; n < 40; n++) {
        char name[64];
        snprintf(name, sizeof(name), "%s-at-%d", mode, n);
        struct sup_vm *v = new_fake(&f, name);
        fresh_memory(&f);
        v->cfg.memory_fd = f.memory_fd;
        snprintf(name, sizeof(name), "out%d", n);
        int dirfd = clone ? saved_dir(&f, name) : sup_dir(&f.s, name);
        enum vf_vm_op failed = live(v, dirfd, clone, code == VF_TIMEOUT ? SHORT_MS : 0);
        /* The first request is repeated if the connection closes: nobody may listen yet. */
        bool again = n == 1 && (strcmp(mode, "close") == 0 || strcmp(mode, "half") == 0);
        if (failed != VF_VM_OP_NONE) {
            cr_assert_eq(v->op.code, code, "%s at %d: %s: %s", mode, n, vf_code_name(v->op.code),
                         v->op.err.msg);
            cr_assert(strstr(v->op.err.msg, words), "%s at %d: %s", mode, n, v->op.err.msg);
            cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_DEAD);
        }
        sup_vm_stop(v, n % 2 ? 0 : SHORT_MS);
        if (failed == VF_VM_OP_SAVE)
            cr_assert_eq(sup_count_files(dirfd), 0, "%s at %d: half a state is left", mode, n);
        close(dirfd);
        cr_assert_eq(sup_count_children(), 0, "%s at %d", mode, n);
        if (failed == VF_VM_OP_NONE && !again)
            break;
    }
    cr_assert_eq(n, clone ? 4 : 12, "%d requests were tried", n - 1);
    faults_close(&f);
}

#define AT_EACH_REQUEST(name, mode, code, words)                \
    Test(firecracker_faults, name, .timeout = 120)              \
    {                                                           \
        at_each_request(mode, code, words, false);              \
    }                                                           \
    Test(firecracker_faults, name##_of_a_clone, .timeout = 120) \
    {                                                           \
        at_each_request(mode, code, words, true);               \
    }
AT_EACH_REQUEST(dies, "die", VF_VMM_DIED, "firecracker exited with status 7")
AT_EACH_REQUEST(hangs, "hang", VF_TIMEOUT, "no answer from firecracker")
AT_EACH_REQUEST(refuses, "error", VF_VMM_FAILED, "fake refuses /")
AT_EACH_REQUEST(refuses_plainly, "plain-error", VF_VMM_FAILED, "500: fake refuses")
AT_EACH_REQUEST(closes_and_lives, "close", VF_PROTOCOL, "closed its API connection, but lives")
AT_EACH_REQUEST(closes_half_way, "half", VF_PROTOCOL, "closed its API connection, but lives")
AT_EACH_REQUEST(answers_text, "text", VF_PROTOCOL, "no HTTP")
AT_EACH_REQUEST(never_ends_its_head, "endless-head", VF_PROTOCOL, "too long")
AT_EACH_REQUEST(never_ends_its_body, "endless-body", VF_PROTOCOL, "too long")
AT_EACH_REQUEST(sends_nul, "nul", VF_PROTOCOL, "HTTP")
AT_EACH_REQUEST(nests, "bomb", VF_VMM_FAILED, "400: ")
AT_EACH_REQUEST(sends_arrays, "array", VF_VMM_FAILED, "400: ")

/* Odd, but within the protocol: none of it is a failure. */
Test(firecracker_faults, odd_but_right, .timeout = 60)
{
    static const char *const modes[] = {"good", "bytewise", "noisy", "contrary"};
    struct faults f;
    faults_open(&f, &fake);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
        for (int clone = 0; clone < 2; clone++) {
            char name[32];
            struct sup_vm *v = new_fake(&f, modes[i]);
            fresh_memory(&f);
            v->cfg.memory_fd = f.memory_fd;
            snprintf(name, sizeof(name), "out%d", f.serial);
            int dirfd = clone ? saved_dir(&f, name) : sup_dir(&f.s, name);
            enum vf_vm_op failed = live(v, dirfd, clone, 0);
            cr_assert_eq(failed, VF_VM_OP_NONE, "%s: %d: %s", modes[i], failed, v->op.err.msg);
            cr_assert_str_eq(sup_events(v), clone ? "resumed" : "resumed paused resumed");
            sup_vm_stop(v, SHORT_MS);
            close(dirfd);
        }
    faults_close(&f);
}

/* ---- restores that fail, guests that end */

/* A failed load ends the process, too: which of the two is heard of first makes no difference. */
Test(firecracker_faults, load_fails, .timeout = 120)
{
    static const struct {
        const char *mode;
        enum vf_code code;
        const char *words, *hint, *how;
    } cases[] = {
        {"load-fails", VF_VMM_FAILED,
         "restore: /snapshot/load: 400: Load snapshot error: fake state is corrupt", "",
         "exited with status 1"},
        {"load-fails-late", VF_VMM_FAILED,
         "restore: /snapshot/load: 400: Load snapshot error: fake state is corrupt", "",
         "exited with status 1"},
        {"load-exits", VF_VMM_DIED, "restore: firecracker exited with status 1",
         "BuildMicroVmError(Restore)", "exited with status 1"},
        {"load-crashes", VF_VMM_DIED, "restore: firecracker was killed by signal 11", "",
         "killed by signal 11"},
    };
    struct faults f;
    faults_open(&f, &fake);
    int dirfd = saved_dir(&f, "saved");
    for (int i = 0; i < 60; i++) {
        size_t c = (size_t)i % (sizeof(cases) / sizeof(*cases));
        struct sup_vm *v = new_fake(&f, cases[c].mode);
        v->cfg.incoming = true;
        v->cfg.memory_shared = false;
        sup_must(v, VF_VM_OP_CREATE, -1);
        cr_assert_eq(sup_do(v, VF_VM_OP_RESTORE, dirfd, 0), cases[c].code, "%s", v->op.err.msg);
        cr_assert(strstr(v->op.err.msg, cases[c].words), "%s", v->op.err.msg);
        cr_assert(strstr(v->op.err.hint, cases[c].hint), "%s", v->op.err.hint);
        sup_run(&f.s, &v->exited, SUP_LONG_MS, "EXITED");
        cr_assert_str_eq(sup_events(v), "exited");
        cr_assert(strstr(v->detail, cases[c].how), "%s", v->detail);
        sup_vm_stop(v, 0);
    }
    close(dirfd);
    faults_close(&f);
}

Test(firecracker_faults, guest_ends, .timeout = 60)
{
    struct faults f;
    faults_open(&f, &fake);
    struct sup_vm *v = new_fake(&f, "resets");
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_START, -1);
    sup_run(&f.s, &v->exited, SUP_LONG_MS, "EXITED");
    cr_assert_str_eq(sup_events(v), "resumed shutdown exited");
    sup_vm_stop(v, 0);
    /* An end with another status is the VMM's own. */
    v = new_fake(&f, "die-at-7");
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_START, -1);
    cr_assert_eq(sup_do(v, VF_VM_OP_PAUSE, -1, 0), VF_VMM_DIED);
    sup_run(&f.s, &v->exited, SUP_LONG_MS, "EXITED");
    cr_assert_str_eq(sup_events(v), "resumed exited");
    sup_vm_stop(v, 0);
    faults_close(&f);
}

/* The console is the process's stdout: kept if asked for, else nobody's. */
Test(firecracker_faults, console, .timeout = 60)
{
    struct faults f;
    faults_open(&f, &fake);
    for (int console = 0; console < 2; console++) {
        struct sup_vm *v = new_fake(&f, "talks");
        v->cfg.channel = VF_CHANNEL_VSOCK;
        v->cfg.console = console;
        sup_must(v, VF_VM_OP_CREATE, -1);
        sup_must(v, VF_VM_OP_START, -1);
        sup_must(v, VF_VM_OP_QUERY, -1); /* what it had said by then is there */
        sup_turns(&f.s, 2);
        cr_assert_str_eq(vf_vm_last_words(v->vm), console ? "the guest says hello" : "");
        sup_vm_stop(v, 0);
    }
    faults_close(&f);
}

/* An answer that comes when nobody waits any more changes nothing, nor is it told. */
Test(firecracker_faults, answer_too_late, .timeout = 60)
{
    struct faults f;
    struct vf_error e;
    faults_open(&f, &fake);
    for (int turns = 0; turns < 8; turns++) {
        struct sup_vm *v = new_fake(&f, "resets");
        sup_must(v, VF_VM_OP_CREATE, -1);
        cr_assert_eq(sup_try(v, VF_VM_OP_START, -1, 0, &e), 0, "%s", e.msg);
        sup_turns(&f.s, turns);
        if (v->op.done) {
            sup_vm_stop(v, 0);
            break;
        }
        vf_vm_cancel(v->vm);
        cr_assert_eq(sup_wait(v), VF_CANCELLED);
        sup_run(&f.s, &v->exited, SUP_LONG_MS, "EXITED"); /* it answers, then ends */
        cr_assert_str_eq(sup_events(v), "exited");
        cr_assert_eq(vf_vm_info_of(v->vm)->state, VF_VM_DEAD);
        sup_vm_stop(v, 0);
    }
    faults_close(&f);
}

/* ---- versions: the fake refuses what its own does not know, and misses what it does */

Test(firecracker_faults, versions, .timeout = 60)
{
    static const char *const versions[] = {"1.12.0", "1.15.0", "1.15.1",
                                           "1.16.0", "1.17.0", "2.0.0"};
    struct faults f;
    faults_open(&f, &fake);
    int saved = saved_dir(&f, "saved");
    for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++)
        for (int clone = 0; clone < 2; clone++) {
            char name[32];
            snprintf(name, sizeof(name), "version-%s", versions[i]);
            struct sup_vm *v = new_fake(&f, name);
            fresh_memory(&f);
            v->cfg.memory_fd = f.memory_fd;
            v->cfg.channel = VF_CHANNEL_VSOCK;
            v->cfg.n_nics = 1;
            v->cfg.nics[0] = (struct vf_vm_nic){.tap = "tap0"};
            snprintf(name, sizeof(name), "out%d", f.serial);
            int dirfd = clone ? dup(saved) : sup_dir(&f.s, name);
            cr_assert_eq(live(v, dirfd, clone, 0), VF_VM_OP_NONE, "%s: %s", versions[i],
                         v->op.err.msg);
            cr_assert_str_eq(vf_vm_info_of(v->vm)->version, versions[i]);
            sup_vm_stop(v, 0);
            close(dirfd);
        }
    struct sup_vm *v = new_fake(&f, "version-1.11.0");
    v->cfg.incoming = true;
    v->cfg.memory_shared = false;
    v->cfg.n_nics = 1;
    v->cfg.nics[0] = (struct vf_vm_nic){.tap = "tap0"};
    cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_UNSUPPORTED);
    cr_assert(strstr(v->op.err.msg, "create: nics: Firecracker 1.11.0 can't give a clone a tap"),
              "%s", v->op.err.msg);
    sup_vm_stop(v, 0);
    close(saved);
    faults_close(&f);
}

Test(firecracker_faults, parks_paused_by_version)
{
    const struct vf_vmm_ops *ops = vf_vmm_find("firecracker");
    struct vf_vmm_caps caps;
    static const struct {
        const char *version;
        bool parks;
    } cases[] = {{NULL, true},     {"1.16.0", false}, {"1.16.1", false}, {"1.17.0-dev", true},
                 {"1.9.1", false}, {"2.0.0", true},   {"", false},       {"none", false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        ops->capabilities(cases[i].version, &caps);
        cr_assert_eq(caps.park_paused, cases[i].parks, "%s", cases[i].version);
    }
}

/* ---- what it is given */

Test(firecracker_faults, bad_configs, .timeout = 60)
{
    struct faults f;
    faults_open(&f, &fake);
    int read_only = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    for (int i = 0;; i++) {
        struct sup_vm *v = new_fake(&f, "good");
        enum vf_code code = VF_INVALID_ARGUMENT;
        const char *words = NULL;
        switch (i) {
        case 0:
            v->cfg.machine = VF_MACHINE_Q35;
            code = VF_UNSUPPORTED;
            words = "machine: Firecracker has microvm only";
            break;
        case 1:
            v->cfg.kernel = "vmlinux";
            words = "kernel, initrd: absolute paths";
            break;
        case 2:
            v->cfg.n_disks = 1;
            v->cfg.disks[0] = (struct vf_vm_disk){.path = "disk.img", .format = "raw"};
            words = "disks[0]: path: must be absolute";
            break;
        case 3:
            v->cfg.n_disks = 1;
            v->cfg.disks[0] = (struct vf_vm_disk){.path = "/disk.img", .format = "qcow2"};
            code = VF_UNSUPPORTED;
            words = "disks[0]: format: firecracker takes raw images only";
            break;
        case 4:
            v->cfg.n_nics = 1;
            v->cfg.nics[0] = (struct vf_vm_nic){.tap = NULL};
            code = VF_UNSUPPORTED;
            words = "nics[0]: Firecracker has none without a tap";
            break;
        case 5:
            v->cfg.n_nics = 1;
            v->cfg.nics[0] = (struct vf_vm_nic){.tap = "a-name-too-long-"};
            words = "nics[0]: tap: 'a-name-too-long-' is no interface name";
            break;
        case 6:
            v->cfg.memory_fd = read_only;
            v->cfg.memory_size = 1 << 20;
            words = "memory_fd: ";
            break;
        case 7:
            v->cfg.accel = VF_ACCEL_TCG;
            code = VF_UNSUPPORTED;
            words = "accel: firecracker runs on KVM only";
            break;
        case 8:
            v->cfg.channel = VF_CHANNEL_VIRTIO_SERIAL;
            code = VF_UNSUPPORTED;
            words = "channel: firecracker has no virtio-serial";
            break;
        default:
            sup_vm_stop(v, 0);
            close(read_only);
            faults_close(&f);
            return;
        }
        cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), code, "%d: %s", i, v->op.err.msg);
        cr_assert(strstr(v->op.err.msg, words), "%d: %s", i, v->op.err.msg);
        cr_assert_eq(sup_count_files(v->dirfd), 0);
        sup_vm_stop(v, 0);
    }
}

/* What somebody left in the VM's directory is in the way, and is left there. */
Test(firecracker_faults, directory_is_taken, .timeout = 60)
{
    static const char *const names[] = {"api.sock",   "agent.in",  "agent.out",
                                        "vsock.sock", "disk0.raw", "process"};
    struct faults f;
    struct vf_error e;
    faults_open(&f, &fake);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct sup_vm *v = new_fake(&f, "good");
        if (strcmp(names[i], "vsock.sock") == 0)
            v->cfg.channel = VF_CHANNEL_VSOCK;
        v->cfg.n_disks = 1;
        v->cfg.disks[0] = (struct vf_vm_disk){.path = "/dev/null", .format = "raw"};
        cr_assert_eq(vf_write_file(v->dirfd, names[i], "mine", 4, 0600, &e), 0, "%s", e.msg);
        cr_assert_eq(sup_do(v, VF_VM_OP_CREATE, -1, 0), VF_CONFLICT, "%s: %s", names[i],
                     v->op.err.msg);
        cr_assert(strstr(v->op.err.msg, names[i]), "%s: %s", names[i], v->op.err.msg);
        sup_vm_stop_begin(v, 0);
        sup_run(&f.s, &v->stop.done, SUP_LONG_MS, "stop");
        cr_assert_eq(sup_count_files(v->dirfd), 1);
        cr_assert_eq(unlinkat(v->dirfd, names[i], 0), 0, "%s is gone", names[i]);
        sup_vm_stop_end(v);
    }
    faults_close(&f);
}

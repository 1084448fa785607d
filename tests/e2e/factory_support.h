/* What the tests of the real factory share: a factory with a directory of its own, specs, a look at all
 * that a VM proved, commands, and what is left behind.
 *
 *     struct fac f;
 *     fac_open(&f, NULL);
 *     struct vf_spec spec = fac_tiny("web", VF_ACCEL_TCG, NULL);
 *     struct vf_generation *gen = fac_build(&f, &spec);
 *     …
 *     fac_close(&f);    // fails on a process, descriptor or file that is left
 */
#ifndef VF_TESTS_E2E_FACTORY_SUPPORT_H
#define VF_TESTS_E2E_FACTORY_SUPPORT_H

#include "tests/e2e/support.h"
#include "tools/common/sync.h"

struct fac {
    struct sup s;
    struct vf_sync sync;
    struct vf_sync_options options;
    char dir[400]; /* state/ and run/ of the factory */
    bool is_open;
    int fds; /* open at the last fac_mark */
};

/* o may be NULL; dir, qemu and keep_signals are filled in where they are not given. */
void fac_open(struct fac *f, const struct vf_sync_options *o);
/* Closes the factory and its store and opens both anew on the same directory: a reboot, but for what the
 * kernel holds. All generations must have been released. o may be NULL: as before. */
void fac_reopen(struct fac *f, const struct vf_sync_options *o);
/* Only the first half of it: until fac_reopen nothing holds the directory. */
void fac_shut(struct fac *f);
/* Nothing may be left: no VM's directory, no temporary one in the store, no process, no descriptor. */
void fac_close(struct fac *f);

/* Notes how many descriptors are open; fac_check fails unless it is that many again, no VM's directory is
 * left, no unfinished build, and no child process. */
void fac_mark(struct fac *f);
void fac_check(struct fac *f, const char *when);
/* Names in run/; unfinished builds in the store. */
int fac_run_dirs(const struct fac *f);
int fac_unfinished(const struct fac *f);
/* Generations of template name on disk. */
size_t fac_generations(struct fac *f, const char *name);

/* --- specs; free them with vf_spec_free. extra: put on the kernel's command line, or NULL */
struct vf_spec fac_tiny(const char *name, enum vf_accel accel, const char *extra);
struct vf_spec fac_linux(const char *name, enum vf_accel accel, const char *extra);
void fac_set_root(struct vf_spec *spec, const char *image);
/* argv: NULL-ended */
void fac_add_warmup(struct vf_spec *spec, const char *const *argv);
/* NULL if guest and accelerator are there, else why not. */
const char *fac_missing(bool linux_guest, enum vf_accel accel);

/* --- what must succeed */
struct vf_generation *fac_build(struct fac *f, const struct vf_spec *spec);
struct vf_generation *fac_load(struct fac *f, const char *name);
struct vf_instance *fac_clone(struct fac *f, struct vf_generation *gen);
struct vf_instance *fac_cold(struct fac *f, const struct vf_spec *spec);
void fac_destroy(struct fac *f, struct vf_instance *vm);
/* A build, and a clone of it that proves itself; nothing of both is kept but the generation in the store. */
void fac_works(struct fac *f, const struct vf_spec *spec);
/* --- what must fail with code and, each, these words in its message; nothing may be left. The error,
 * for more */
struct vf_error fac_clone_fails(struct fac *f, struct vf_generation *gen, enum vf_code code,
                                const char *words);
struct vf_error fac_build_fails(struct fac *f, const struct vf_spec *spec, enum vf_code code,
                                const char *words);
struct vf_error fac_cold_fails(struct fac *f, const struct vf_spec *spec, enum vf_code code,
                               const char *words);
void fac_expect(const struct vf_error *err, enum vf_code code, const char *words);

/* The names of its stages, with spaces between. */
void fac_check_stages(const struct vf_instance *vm, const char *due);
/* All proofs are there and right. gen NULL: a cold boot. */
void fac_check_proved(struct fac *f, struct vf_instance *vm, const struct vf_generation *gen);
/* And its stages are those of a VM that has just been made. */
void fac_check_proof(struct fac *f, struct vf_instance *vm, const struct vf_generation *gen);
/* No two of them are alike: sample, getrandom() by command, machine-id, hostname, MAC. */
void fac_check_differ(struct fac *f, struct vf_instance *const *vms, int n);

/* Runs a command in the guest, which must end with status 0; its stdout, without a last newline, in a
 * static buffer of 4096 bytes (the last four stay). The command follows, NULL-ended. */
const char *fac_say(struct fac *f, struct vf_instance *vm, ...) __attribute__((sentinel));
/* The same by a shell, for Linux guests. */
const char *fac_sh(struct fac *f, struct vf_instance *vm, const char *script);

/* The script of every null VM from now on (vmm/null.h); NULL: none. */
void fac_null_script(const char *text);
/* on_step of an options: KVM under `auto` is soon given up, for hosts where it opens and hangs; what follows has all the time
 * it needs. Builds are not told of their steps. */
int fac_hasten_kvm(void *arg, struct vf_instance *vm, const char *stage, struct vf_error *err);
/* Sets the bool behind arg. */
void fac_set_true(void *arg);
/* A child process of this one (a VMM), or 0. */
pid_t fac_child(void);
/* Reads a whole file, NUL-terminated; the test frees it. */
char *fac_read(const char *path);
/* fmt, …: a path; text is written to it. */
void fac_write(const char *path, const char *text, mode_t mode);
/* Digest of a file, hexadecimal. */
void fac_file_digest(const char *path, char ret_hex[65]);

#define FAC_LINUX_OR_SKIP(suite, name)                          \
    do {                                                        \
        const char *missing_ = fac_missing(true, VF_ACCEL_TCG); \
        if (missing_)                                           \
            sup_skip(suite, name, "%s", missing_);              \
    } while (0)

#endif

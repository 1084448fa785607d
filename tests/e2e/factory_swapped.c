/* Stored templates that are not what they say: files damaged, cut, or put in another's place with all
 * digests set right. What the store can see it refuses by name; what it can't, QEMU or the nonce
 * must: no such clone is handed out.
 */
#include "tests/e2e/factory_support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/hash.h"

#define SHORT_MS 1000

static void path_of(const struct fac *f, const char *name, const char *file, char ret[600])
{
    snprintf(ret, 600, "%s/state/templates/%s/1%s%s", f->dir, name, file ? "/" : "",
             file ? file : "");
}

static void copy_file(const char *from, const char *to)
{
    VF_CLEANUP_FD int in = open(from, O_RDONLY | O_CLOEXEC);
    VF_CLEANUP_FD int out = open(to, O_WRONLY | O_TRUNC | O_CREAT | O_CLOEXEC, 0600);
    struct stat st;
    cr_assert(in >= 0 && out >= 0, "%s, %s", from, to);
    cr_assert_eq(fstat(in, &st), 0);
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
        cr_assert_gt(n, 0);
        left -= n;
    }
}

/* Sets the manifest right for whatever lies in the generation's directory now. */
static void forge_manifest(const struct fac *f, const char *name)
{
    char path[600];
    struct vf_manifest m;
    struct vf_error e;
    path_of(f, name, NULL, path);
    VF_CLEANUP_FD int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(dirfd, 0);
    cr_assert_eq(vf_manifest_read(dirfd, &m, &e), 0, "%s", e.msg);
    struct vf_manifest_file *files = m.files.items;
    for (size_t i = 0; i < m.files.n; i++) {
        struct stat st;
        VF_CLEANUP_FD int fd = openat(dirfd, files[i].name, O_RDONLY | O_CLOEXEC);
        cr_assert_eq(fstat(fd, &st), 0);
        files[i].size = st.st_size;
        cr_assert_eq(vf_sha256_fd(fd, files[i].name, files[i].sha256, &e), 0, "%s", e.msg);
    }
    VF_CLEANUP_FREE char *text = NULL;
    cr_assert_eq(vf_manifest_encode(&m, &text, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_write_file(dirfd, VF_MANIFEST_NAME, text, strlen(text), 0600, &e), 0, "%s",
                 e.msg);
    vf_manifest_free(&m);
}

/* Templates "a" and "b", alike but for their nonces; the store is shut. */
static void open_with_two(struct fac *f)
{
    static const char *const names[] = {"a", "b"};
    fac_open(f, &(struct vf_sync_options){.trial_clones = -1});
    for (int i = 0; i < 2; i++) {
        struct vf_spec spec = fac_tiny(names[i], VF_ACCEL_TCG, NULL);
        vf_generation_unref(fac_build(f, &spec));
        vf_spec_free(&spec);
    }
    fac_shut(f);
}

static void move_over(struct fac *f, const char *file)
{
    char from[600], to[600];
    path_of(f, "b", file, from);
    path_of(f, "a", file, to);
    copy_file(from, to);
}

/* By QEMU, or by what the guest did or did not say. */
static bool refused_late(const struct vf_error *e)
{
    return e->code == VF_VMM_DIED || e->code == VF_VMM_FAILED || e->code == VF_GUEST_FAILED ||
           e->code == VF_PROOF_FAILED || e->code == VF_TIMEOUT || e->code == VF_PROTOCOL;
}

/* ---- another template's files */

Test(factory_swapped, another_templates_memory_and_state, .timeout = 120)
{
    struct fac f;
    open_with_two(&f);
    move_over(&f, "memory");
    move_over(&f, "state");
    forge_manifest(&f, "a");
    fac_reopen(&f, NULL);
    struct vf_generation *gen = fac_load(&f, "a");
    fac_clone_fails(&f, gen, VF_PROOF_FAILED,
                    "the guest returned another nonce than its template's");
    vf_generation_unref(gen);
    /* The other is as good as ever. */
    gen = fac_load(&f, "b");
    struct vf_instance *vm = fac_clone(&f, gen);
    fac_check_proof(&f, vm, gen);
    fac_destroy(&f, vm);
    vf_generation_unref(gen);
    fac_close(&f);
}

/* Registers of the one and memory of the other: the guest may go on, with the wrong nonce, or go astray. */
Test(factory_swapped, another_templates_memory, .timeout = 120)
{
    struct fac f;
    struct vf_error e = {0};
    struct vf_instance *vm = NULL;
    open_with_two(&f);
    move_over(&f, "memory");
    forge_manifest(&f, "a");
    fac_reopen(&f, NULL);
    struct vf_generation *gen = fac_load(&f, "a");
    vf_factory_set_answer_timeout(f.sync.factory, SHORT_MS);
    fac_mark(&f);
    cr_assert_lt(vf_sync_clone(&f.sync, gen, NULL, &vm, &e), 0);
    cr_assert(refused_late(&e), "%s: %s", vf_code_name(e.code), e.msg);
    fac_check(&f, "another template's memory");
    vf_generation_unref(gen);
    fac_close(&f);
}

/* ---- a boot passed off as a restore */

/* Memory and state of a guest that has only booted, in the place of a template's. */
static void save_a_boot(struct fac *f)
{
    char path[600];
    path_of(f, "a", NULL, path);
    VF_CLEANUP_FD int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    VF_CLEANUP_FD int memory = openat(dirfd, "memory", O_RDWR | O_TRUNC | O_CLOEXEC);
    cr_assert_geq(memory, 0);
    cr_assert_eq(ftruncate(memory, 64 << 20), 0);
    cr_assert_eq(unlinkat(dirfd, "state", 0), 0);
    struct sup_vm *v = sup_vm_new(&f->s, &sup_qemu_tcg_tiny, "booted");
    v->cfg.memory_fd = memory;
    v->cfg.balloon = false; /* as the spec has it */
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_START, -1);
    struct sup_agent *a = sup_agent_open(v);
    struct sup_hello hello;
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0);
    cr_assert_not(hello.has_nonce);
    sup_agent_close(a);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    sup_must(v, VF_VM_OP_SAVE, dirfd);
    sup_vm_stop(v, 0);
}

Test(factory_swapped, a_boot_is_no_restore, .timeout = 120)
{
    struct fac f;
    open_with_two(&f);
    save_a_boot(&f);
    forge_manifest(&f, "a");
    fac_reopen(&f, NULL);
    struct vf_generation *gen = fac_load(&f, "a");
    fac_clone_fails(&f, gen, VF_PROOF_FAILED,
                    "the guest returned no nonce: it was booted, not restored");
    vf_generation_unref(gen);
    fac_close(&f);
}

/* ---- damage */

static void load_fails(struct fac *f, const char *name, const char *words)
{
    struct vf_generation *gen = NULL;
    struct vf_error e = {0};
    cr_assert_lt(vf_sync_load(&f->sync, name, 1, &gen, &e), 0, "loaded; due was: %s", words);
    fac_expect(&e, VF_CORRUPT, words);
    fac_check(f, words);
}

static void flip(const struct fac *f, const char *name, const char *file, off_t at, size_t len)
{
    char path[600], bytes[256];
    path_of(f, name, file, path);
    VF_CLEANUP_FD int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert(len <= sizeof(bytes) && fd >= 0, "%s", path);
    cr_assert_eq(pread(fd, bytes, len, at), (ssize_t)len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)~bytes[i];
    cr_assert_eq(pwrite(fd, bytes, len, at), (ssize_t)len);
}

static off_t size_of(const struct fac *f, const char *name, const char *file)
{
    char path[600];
    struct stat st;
    path_of(f, name, file, path);
    cr_assert_eq(stat(path, &st), 0, "%s", path);
    return st.st_size;
}

static void cut(const struct fac *f, const char *name, const char *file, off_t size)
{
    char path[600];
    path_of(f, name, file, path);
    cr_assert_eq(truncate(path, size), 0);
}

/* The store's own check comes first, and names the file. */
Test(factory_swapped, damage_is_named, .timeout = 120)
{
    struct fac f;
    open_with_two(&f);
    flip(&f, "a", "state", 1000, 1);
    cut(&f, "b", "memory", (64 << 20) - 4096);
    fac_reopen(&f, NULL);
    load_fails(&f, "a", "state");
    load_fails(&f, "b", "memory");
    fac_shut(&f);
    flip(&f, "a", "state", 1000, 1); /* whole again */
    flip(&f, "a", "memory", 1 << 20, 1);
    fac_reopen(&f, NULL);
    load_fails(&f, "a", "memory");
    fac_shut(&f);
    flip(&f, "a", "memory", 1 << 20, 1);
    fac_reopen(&f, NULL);
    struct vf_generation *gen = fac_load(&f, "a");
    fac_destroy(&f, fac_clone(&f, gen));
    vf_generation_unref(gen);
    fac_close(&f);
}

/* A state file cut short anywhere, digests set right: QEMU itself must refuse it. */
Test(factory_swapped, short_state, .timeout = 180)
{
    struct fac f;
    open_with_two(&f);
    off_t size = size_of(&f, "a", "state");
    /* The end is a description of the format that nobody needs. */
    const off_t sizes[] = {size / 3, size / 10, 1000, 5, 1};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct vf_error e = {0};
        struct vf_instance *vm = NULL;
        cut(&f, "a", "state", sizes[i]);
        forge_manifest(&f, "a");
        fac_reopen(&f, NULL);
        struct vf_generation *gen = fac_load(&f, "a");
        fac_mark(&f);
        cr_assert_lt(vf_sync_clone(&f.sync, gen, NULL, &vm, &e), 0, "%lld of %lld bytes",
                     (long long)sizes[i], (long long)size);
        cr_assert_eq(e.code, VF_VMM_DIED, "%s: %s", vf_code_name(e.code), e.msg);
        cr_assert(strncmp(e.msg, "restore: ", 9) == 0, "%s", e.msg);
        cr_assert(e.hint[0], "no last words: %s", e.msg);
        fac_check(&f, "a state cut short");
        vf_generation_unref(gen);
        fac_shut(&f);
    }
    fac_close(&f);
}

/* Bytes of the state changed, digests set right. Some hold nothing that matters; then the clone must prove
 * itself like any other. Else it is refused by QEMU, or falls silent. */
Test(factory_swapped, changed_state, .timeout = 240)
{
    struct fac f;
    int refused = 0;
    open_with_two(&f);
    off_t size = size_of(&f, "a", "state");
    for (off_t at = 0; at + 256 < size; at += size / 12) {
        struct vf_error e = {0};
        struct vf_instance *vm = NULL;
        flip(&f, "a", "state", at, 64);
        forge_manifest(&f, "a");
        fac_reopen(&f, NULL);
        struct vf_generation *gen = fac_load(&f, "a");
        vf_factory_set_answer_timeout(f.sync.factory, SHORT_MS);
        fac_mark(&f);
        if (vf_sync_clone(&f.sync, gen, NULL, &vm, &e) == 0) {
            cr_assert(vf_instance_proof(vm)->nonce_matched);
            fac_check_proof(&f, vm, gen);
            fac_destroy(&f, vm);
        } else {
            refused++;
            cr_assert(refused_late(&e), "%s: %s", vf_code_name(e.code), e.msg);
        }
        fac_check(&f, "a state changed");
        vf_generation_unref(gen);
        fac_shut(&f);
        flip(&f, "a", "state", at, 64);
    }
    cr_assert_gt(refused, 0, "every change went unnoticed");
    fac_close(&f);
}

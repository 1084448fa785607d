/* The frame of the factory's tests, specs, and calls that must succeed or fail in a given way. */
#include "tests/e2e/factory_support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/hash.h"
#include "factory/instance.h"
#include "vmm/null.h"

/* ---- opening and closing */

static void open_sync(struct fac *f)
{
    struct vf_error e;
    int r = vf_sync_open(&f->sync, &f->options, &e);
    cr_assert_eq(r, 0, "%s", e.msg);
    f->is_open = true;
    /* A loop's first stream makes a descriptor that stays until the loop is closed. */
    uv_pipe_t pipe;
    uv_pipe_init(&f->sync.loop, &pipe, 0);
    uv_close((uv_handle_t *)&pipe, NULL);
    uv_run(&f->sync.loop, UV_RUN_NOWAIT);
    fac_mark(f);
}

static void take_options(struct fac *f, const struct vf_sync_options *o)
{
    if (o)
        f->options = *o;
    if (!f->options.dir)
        f->options.dir = f->dir;
    if (!f->options.qemu)
        f->options.qemu = sup_qemu();
    f->options.keep_signals = true;
}

void fac_open(struct fac *f, const struct vf_sync_options *o)
{
    memset(f, 0, sizeof(*f));
    sup_open(&f->s);
    snprintf(f->dir, sizeof(f->dir), "%s/vf", f->s.dir);
    take_options(f, o);
    open_sync(f);
}

void fac_shut(struct fac *f)
{
    if (f->is_open)
        vf_sync_close(&f->sync);
    f->is_open = false;
}

void fac_reopen(struct fac *f, const struct vf_sync_options *o)
{
    fac_shut(f);
    take_options(f, o);
    open_sync(f);
}

void fac_close(struct fac *f)
{
    fac_shut(f);
    cr_assert_eq(fac_run_dirs(f), 0, "a VM's directory was left in %s/run", f->options.dir);
    cr_assert_eq(fac_unfinished(f), 0, "an unfinished build was left in %s/state", f->options.dir);
    sup_close(&f->s);
}

/* ---- what is left */

static int count_names(const char *path, bool (*counts)(const char *name))
{
    DIR *d = opendir(path);
    int n = 0;
    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            n += !counts || counts(e->d_name);
    closedir(d);
    return n;
}

static bool is_temporary(const char *name)
{
    return strncmp(name, "tmp-", 4) == 0 ||
           strncmp(name, VF_TMP_PREFIX, strlen(VF_TMP_PREFIX)) == 0;
}

int fac_run_dirs(const struct fac *f)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/run", f->options.dir);
    return count_names(path, NULL);
}

int fac_unfinished(const struct fac *f)
{
    char path[512];
    int n = 0;
    snprintf(path, sizeof(path), "%s/state/templates", f->options.dir);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') {
            char one[800];
            snprintf(one, sizeof(one), "%s/%s", path, e->d_name);
            n += count_names(one, is_temporary);
        }
    if (d)
        closedir(d);
    return n;
}

void fac_mark(struct fac *f)
{
    f->fds = sup_count_fds();
}

void fac_check(struct fac *f, const char *when)
{
    cr_assert_eq(fac_run_dirs(f), 0, "%s: a VM's directory is left", when);
    cr_assert_eq(fac_unfinished(f), 0, "%s: an unfinished build is left", when);
    cr_assert_eq(sup_count_children(), 0, "%s: a process is left", when);
    cr_assert_eq(sup_count_fds(), f->fds, "%s: %d descriptors, were %d", when, sup_count_fds(),
                 f->fds);
}

size_t fac_generations(struct fac *f, const char *name)
{
    struct vf_store_entry *entries;
    struct vf_error e;
    size_t n = 0;
    int r = vf_store_list(f->sync.store, name, &entries, &n, &e);
    if (r < 0 && e.code == VF_NOT_FOUND)
        return 0;
    cr_assert_eq(r, 0, "%s", e.msg);
    free(entries);
    return n;
}

/* ---- specs */

static char *copy(const char *s)
{
    char *p = strdup(s);
    cr_assert(p);
    return p;
}

static struct vf_spec base_spec(const char *name, enum vf_accel accel, const char *extra)
{
    struct vf_spec spec;
    vf_spec_init(&spec);
    spec.name = copy(name);
    spec.accel = accel;
    spec.vcpus = 1;
    if (extra) {
        free(spec.boot.cmdline);
        spec.boot.cmdline = copy(extra);
    }
    /* Two cores, and perhaps a sanitizer: boots are not what is timed here. */
    spec.agent.ready_timeout_ms = 90000;
    return spec;
}

struct vf_spec fac_tiny(const char *name, enum vf_accel accel, const char *extra)
{
    struct vf_spec spec = base_spec(name, accel, extra);
    spec.memory.size_mib = 64;
    spec.boot.kernel = copy(sup_guest_file("tiny.elf"));
    spec.agent.channel = VF_CHANNEL_SERIAL;
    return spec;
}

struct vf_spec fac_linux(const char *name, enum vf_accel accel, const char *extra)
{
    struct vf_spec spec = base_spec(name, accel, extra);
    spec.memory.size_mib = 256;
    spec.boot.kernel = copy(sup_guest_file("vmlinuz"));
    spec.boot.initrd = copy(sup_guest_file("initramfs.cpio"));
    spec.agent.channel = VF_CHANNEL_VIRTIO_SERIAL;
    return spec;
}

void fac_set_root(struct vf_spec *spec, const char *image)
{
    spec->boot.has_root = true;
    spec->boot.root.image = copy(image);
    spec->boot.root.format = VF_IMAGE_RAW;
}

void fac_add_warmup(struct vf_spec *spec, const char *const *argv)
{
    struct vf_json_array *a = &spec->warmup.commands;
    struct vf_strv *items = realloc(a->items, (a->n + 1) * sizeof(*items)), *v;
    cr_assert(items);
    a->items = items;
    v = &items[a->n++];
    *v = (struct vf_strv){NULL, 0};
    while (argv[v->n])
        v->n++;
    v->v = calloc(v->n + 1, sizeof(char *));
    cr_assert(v->v);
    for (size_t i = 0; i < v->n; i++)
        v->v[i] = copy(argv[i]);
}

const char *fac_missing(bool linux_guest, enum vf_accel accel)
{
    const struct sup_target t = {"", "qemu", accel, linux_guest, false};
    return sup_target_missing(&t);
}

/* ---- what must succeed, or fail */

static void succeeded(int r, const struct vf_error *e, const char *what)
{
    cr_assert_eq(r, 0, "%s: %s: %s (%s)", what, vf_code_name(e->code), e->msg, e->hint);
}

struct vf_generation *fac_build(struct fac *f, const struct vf_spec *spec)
{
    struct vf_generation *gen = NULL;
    struct vf_error e = {0};
    succeeded(vf_sync_build(&f->sync, spec, NULL, &gen, &e), &e, "build");
    return gen;
}

struct vf_generation *fac_load(struct fac *f, const char *name)
{
    struct vf_generation *gen = NULL;
    struct vf_error e = {0};
    succeeded(vf_sync_load(&f->sync, name, 0, &gen, &e), &e, "load");
    return gen;
}

struct vf_instance *fac_clone(struct fac *f, struct vf_generation *gen)
{
    struct vf_instance *vm = NULL;
    struct vf_error e = {0};
    succeeded(vf_sync_clone(&f->sync, gen, NULL, &vm, &e), &e, "clone");
    return vm;
}

struct vf_instance *fac_cold(struct fac *f, const struct vf_spec *spec)
{
    struct vf_instance *vm = NULL;
    struct vf_error e = {0};
    succeeded(vf_sync_cold(&f->sync, spec, NULL, &vm, &e), &e, "cold boot");
    return vm;
}

void fac_destroy(struct fac *f, struct vf_instance *vm)
{
    vf_sync_destroy(&f->sync, vm);
}

void fac_works(struct fac *f, const struct vf_spec *spec)
{
    struct vf_generation *gen = fac_build(f, spec);
    struct vf_instance *vm = fac_clone(f, gen);
    fac_check_proof(f, vm, gen);
    fac_destroy(f, vm);
    vf_generation_unref(gen);
}

void fac_expect(const struct vf_error *err, enum vf_code code, const char *words)
{
    cr_assert_eq(err->code, code, "%s, not %s: %s (%s)", vf_code_name(err->code),
                 vf_code_name(code), err->msg, err->hint);
    cr_assert(strstr(err->msg, words), "\"%s\" is not in: %s (%s)", words, err->msg, err->hint);
}

struct vf_error fac_clone_fails(struct fac *f, struct vf_generation *gen, enum vf_code code,
                                const char *words)
{
    struct vf_instance *vm = NULL;
    struct vf_error e = {0};
    fac_mark(f);
    int r = vf_sync_clone(&f->sync, gen, NULL, &vm, &e);
    cr_assert_lt(r, 0, "the clone was handed out; due was: %s", words);
    cr_assert_null(vm);
    fac_expect(&e, code, words);
    fac_check(f, words);
    return e;
}

struct vf_error fac_build_fails(struct fac *f, const struct vf_spec *spec, enum vf_code code,
                                const char *words)
{
    struct vf_generation *gen = NULL;
    struct vf_error e = {0};
    size_t before = fac_generations(f, spec->name);
    fac_mark(f);
    int r = vf_sync_build(&f->sync, spec, NULL, &gen, &e);
    cr_assert_lt(r, 0, "the build succeeded; due was: %s", words);
    cr_assert_null(gen);
    fac_expect(&e, code, words);
    fac_check(f, words);
    cr_assert_eq(fac_generations(f, spec->name), before, "a generation is left: %s", words);
    return e;
}

struct vf_error fac_cold_fails(struct fac *f, const struct vf_spec *spec, enum vf_code code,
                               const char *words)
{
    struct vf_instance *vm = NULL;
    struct vf_error e = {0};
    fac_mark(f);
    int r = vf_sync_cold(&f->sync, spec, NULL, &vm, &e);
    cr_assert_lt(r, 0, "the VM was handed out; due was: %s", words);
    cr_assert_null(vm);
    fac_expect(&e, code, words);
    fac_check(f, words);
    return e;
}

/* ---- files, processes */

void fac_null_script(const char *text)
{
    struct vf_null_script s;
    struct vf_error e;
    if (text)
        cr_assert_eq(vf_null_script_parse(text, &s, &e), 0, "%s", e.msg);
    vf_null_set_default(text ? &s : NULL);
}

int fac_hasten_kvm(void *arg, struct vf_instance *vm, const char *stage, struct vf_error *err)
{
    bool kvm = vm->accel == VF_ACCEL_KVM;
    (void)arg;
    (void)err;
    if (strcmp(stage, "vmm") == 0)
        vm->factory->create_timeout_ms = kvm ? 2000 : SUP_LONG_MS;
    else if (strcmp(stage, "boot") == 0)
        vm->spec.agent.ready_timeout_ms = kvm ? 5000 : 90000;
    return 0;
}

void fac_set_true(void *arg)
{
    *(bool *)arg = true;
}

pid_t fac_child(void)
{
    DIR *d = opendir("/proc");
    pid_t found = 0;
    cr_assert(d);
    for (struct dirent *e; !found && (e = readdir(d));) {
        char path[300], text[512], state;
        int ppid;
        if (e->d_name[0] < '0' || e->d_name[0] > '9')
            continue;
        snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
        VF_CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t len = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
        text[len > 0 ? len : 0] = 0;
        char *p = strrchr(text, ')');
        if (p && sscanf(p + 1, " %c %d", &state, &ppid) == 2 && ppid == (int)getpid() &&
            state != 'Z')
            found = atoi(e->d_name);
    }
    closedir(d);
    return found;
}

char *fac_read(const char *path)
{
    struct vf_error e;
    char *data = NULL;
    size_t len;
    cr_assert_eq(vf_read_file(AT_FDCWD, path, 1 << 20, &data, &len, &e), 0, "%s", e.msg);
    return data;
}

void fac_write(const char *path, const char *text, mode_t mode)
{
    struct vf_error e;
    cr_assert_eq(vf_write_file(AT_FDCWD, path, text, strlen(text), mode, &e), 0, "%s", e.msg);
}

void fac_file_digest(const char *path, char ret_hex[65])
{
    struct vf_error e;
    VF_CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
    cr_assert_eq(vf_sha256_fd(fd, path, ret_hex, &e), 0, "%s", e.msg);
}

#include "templates_support.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

void put_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");

    cr_assert_not_null(f, "%s: %s", path, strerror(errno));
    cr_assert_geq(fputs(text, f), 0);
    cr_assert_eq(fclose(f), 0);
}

void fixture_open(struct fixture *f)
{
    struct vf_error err;
    char text[1200];

    memset(f, 0, sizeof(*f));
    scratch_open(&f->s);
    snprintf(f->state, sizeof(f->state), "%s/state", f->s.path);
    snprintf(f->kernel, sizeof(f->kernel), "%s/kernel", f->s.path);
    snprintf(f->root, sizeof(f->root), "%s/root.img", f->s.path);
    snprintf(f->vmm, sizeof(f->vmm), "%s/vmm", f->s.path);
    put_file(f->kernel, "a kernel");
    put_file(f->root, "a root image");
    put_file(f->vmm, "a VMM's binary");
    snprintf(text, sizeof(text),
             "{\"name\":\"web\",\"memory\":{\"size_mib\":16},"
             "\"boot\":{\"kernel\":\"%s\",\"root\":{\"image\":\"%s\"}}}",
             f->kernel, f->root);
    expect_ok(vf_spec_parse(text, strlen(text), NULL, NULL, &f->spec, &err), err);
}

void fixture_close(struct fixture *f)
{
    vf_spec_free(&f->spec);
    scratch_close(&f->s);
}

int count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    cr_assert_not_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

int make_memory(unsigned seed)
{
    struct vf_error err;
    char page[4096];
    int fd = -1;

    expect_ok(vf_memory_create(16 << 20, "test", &fd, &err), err);
    for (unsigned i = 0; i < 8; i++) {
        memset(page, (int)(seed + i + 1), sizeof(page));
        cr_assert_eq(pwrite(fd, page, sizeof(page), (off_t)i * 1234 * 1024), 4096);
    }
    return fd;
}

int make_manifest(const struct fixture *f, struct vf_manifest *ret_m, struct vf_error *err)
{
    int r;

    vf_manifest_init(ret_m);
    r = vf_manifest_set_spec(ret_m, &f->spec, err);
    if (r == 0)
        r = vf_manifest_set_vmm(ret_m, "qemu", "7.2", f->vmm, VF_ACCEL_TCG, err);
    if (r == 0)
        r = vf_manifest_set_host(ret_m, err);
    ret_m->boot_id = strdup("00112233445566778899aabbccddeeff");
    ret_m->nonce = strdup("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
    ret_m->sample = strdup("00ff");
    return r;
}

static int write_in(int dirfd, const char *name, const char *text, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return vf_fail_errno(err, errno, "%s: create", name);
    return vf_write_all(fd, text, strlen(text), name, err);
}

static int fill_and_commit(const struct fixture *f, struct vf_build *b, int memory,
                           struct vf_generation **ret_gen, struct vf_error *err)
{
    char sha256[VF_SHA256_HEX];
    struct vf_manifest m;
    int r = make_manifest(f, &m, err);

    if (r == 0)
        r = vf_memory_store(memory, vf_build_dirfd(b), VF_MEMORY_NAME, NULL, sha256, err);
    if (r == 0)
        r = vf_manifest_add_file(&m, VF_MEMORY_NAME, 16 << 20, sha256, err);
    if (r == 0)
        r = write_in(vf_build_dirfd(b), "state", "the devices' state", err);
    if (r == 0)
        r = vf_manifest_add_file(&m, "state", -1, NULL, err);
    if (r == 0)
        r = write_in(vf_build_dirfd(b), "overlay.qcow2", "an overlay", err);
    if (r == 0)
        r = vf_manifest_add_file(&m, "overlay.qcow2", -1, NULL, err);
    if (r == 0)
        r = vf_store_commit(b, &m, memory, ret_gen, err);
    vf_manifest_free(&m);
    return r;
}

int build_one(const struct fixture *f, struct vf_store *store, struct vf_generation **ret_gen,
              struct vf_error *err)
{
    VF_CLEANUP_FD int memory = make_memory(7);
    struct vf_build *b = NULL;
    int r = vf_memory_seal(memory, err);

    if (r == 0)
        r = vf_store_begin(store, "web", &b, err);
    if (r == 0)
        r = fill_and_commit(f, b, memory, ret_gen, err);
    vf_build_free(b);
    return r;
}

void list_dir(const char *path, char *buf, size_t size)
{
    struct dirent **v;
    int n = scandir(path, &v, NULL, alphasort);
    size_t len = 0;

    cr_assert_geq(n, 0, "%s: %s", path, strerror(errno));
    buf[0] = '\0';
    for (int i = 0; i < n; i++) {
        if (strcmp(v[i]->d_name, ".") != 0 && strcmp(v[i]->d_name, "..") != 0)
            len += (size_t)snprintf(buf + len, size - len, "%s ", v[i]->d_name);
        free(v[i]);
    }
    free(v);
}

bool own_mounts(const char *test)
{
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
        return true;
    fprintf(stderr, "SKIPPED %s: no mount namespace: %s\n", test, strerror(errno));
    cr_skip_test("SKIPPED %s: no mount namespace: %s", test, strerror(errno));
    return false;
}

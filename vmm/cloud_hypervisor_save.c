/* Save: Cloud Hypervisor writes its files into a directory that must be empty, so it gets a fresh one below that of the
 * caller; what it wrote is then renamed to where it belongs. Shared memory with a name is left out by it, however
 * large.
 *
 * On the way: a file of that name is there already (refused before anything is done); the VMM can't write; it wrote
 * memory that it should have left out, because the memory's file has lost its name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "vmm/cloud_hypervisor.h"

#define SAVE_DIR VF_TMP_PREFIX "save"

const char *const vf_ch_saved_names[] = {VF_CH_MEMORY, VF_CH_STATE, VF_CH_CONFIG, NULL};

int vf_ch_work_begin(struct vf_ch *c, int dirfd, const char *name, struct vf_error *err)
{
    if (mkdirat(dirfd, name, 0700) < 0)
        return vf_fail_errno(err, errno, "directory '%s'", name);
    c->work_fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (c->work_fd >= 0)
        return 0;
    int e = errno;
    unlinkat(dirfd, name, AT_REMOVEDIR);
    return vf_fail_errno(err, e, "directory '%s'", name);
}

void vf_ch_work_end(struct vf_ch *c, int dirfd, const char *name)
{
    for (int i = 0; c->work_fd >= 0 && vf_ch_saved_names[i]; i++)
        unlinkat(c->work_fd, vf_ch_saved_names[i], 0);
    vf_close_fd(&c->work_fd);
    if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno == ENOTEMPTY)
        vf_remove_tree(dirfd, name, NULL);
}

void vf_ch_forget_save(struct vf_ch *c)
{
    if (c->save_fd < 0)
        return;
    vf_ch_work_end(c, c->save_fd, SAVE_DIR);
    vf_close_fd(&c->save_fd);
}

static bool there(int dirfd, const char *name)
{
    struct stat st;
    return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int take_files(struct vf_ch *c, struct vf_error *err)
{
    bool has_memory = there(c->work_fd, VF_CH_MEMORY);
    if (c->cfg.memory_shared && has_memory) {
        vf_fail(err, VF_VMM_FAILED, "Cloud Hypervisor has written the memory, though it is shared");
        return vf_hint(err, "the file behind memory_fd has lost its name: it must have one until "
                            "the save is done");
    }
    for (int i = has_memory ? 0 : 1; vf_ch_saved_names[i]; i++) {
        const char *name = vf_ch_saved_names[i];
        if (renameat2(c->work_fd, name, c->save_fd, name, RENAME_NOREPLACE) < 0)
            return vf_fail_errno(err, errno, "file '%s'", name);
    }
    return 0;
}

static void on_saved(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    struct vf_error e;
    (void)reply;
    if (!err && c->vm.op == VF_VM_OP_SAVE && take_files(c, &e) < 0)
        err = &e;
    vf_ch_forget_save(c);
    if (vf_ch_ended(c, VF_VM_OP_SAVE, err))
        return;
    vf_ch_op_done(c, NULL);
}

/* The directory's path, for a process that has no descriptor of it. */
static int path_of(int dirfd, char *ret, size_t size, struct vf_error *err)
{
    char link[40];
    struct stat a, b;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
    ssize_t n = readlink(link, ret, size - 1);
    if (n < 0)
        return vf_fail_errno(err, errno, "the directory to save into");
    ret[n] = 0;
    if (fstat(dirfd, &a) < 0 || stat(ret, &b) < 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev)
        return vf_fail(err, VF_INVALID_ARGUMENT, "the directory to save into: it has no path");
    return 0;
}

static char *save_body(const char *path)
{
    char url[PATH_MAX + 32];
    struct vf_json_writer w = {0};
    snprintf(url, sizeof(url), "file://%s/" SAVE_DIR, path);
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "destination_url", url);
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

int vf_ch_save(struct vf_vm *vm, int dirfd, struct vf_error *err)
{
    struct vf_ch *c = (struct vf_ch *)vm;
    char path[PATH_MAX];
    int r = path_of(dirfd, path, sizeof(path), err);
    for (int i = 0; r == 0 && vf_ch_saved_names[i]; i++)
        if (there(dirfd, vf_ch_saved_names[i]))
            return vf_fail(err, VF_CONFLICT, "file '%s' exists already", vf_ch_saved_names[i]);
    if (r < 0 || (r = vf_ch_work_begin(c, dirfd, SAVE_DIR, err)) < 0)
        return r;
    c->save_fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
    if (c->save_fd < 0) {
        r = vf_fail_errno(err, errno, "the directory to save into");
        vf_ch_work_end(c, dirfd, SAVE_DIR);
        return r;
    }
    VF_CLEANUP_FREE char *body = save_body(path);
    r = body ? vf_ch_send(c, false, "vm.snapshot", body, NULL, 0, on_saved, err)
             : vf_fail(err, VF_NO_MEMORY, "vm.snapshot");
    if (r < 0)
        vf_ch_forget_save(c);
    return r;
}

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

static const char *const files[] = {VF_CH_MEMORY, VF_CH_STATE, VF_CH_CONFIG};

void vf_ch_forget_save(struct vf_ch *c)
{
    if (c->save_fd < 0)
        return;
    vf_remove_tree(c->save_fd, SAVE_DIR, NULL);
    vf_close_fd(&c->save_fd);
}

static bool there(int dirfd, const char *name)
{
    struct stat st;
    return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int take_files(struct vf_ch *c, struct vf_error *err)
{
    char from[64];
    if (c->cfg.memory_shared && there(c->save_fd, SAVE_DIR "/" VF_CH_MEMORY)) {
        vf_fail(err, VF_VMM_FAILED, "Cloud Hypervisor has written the memory, though it is shared");
        return vf_hint(err, "the file behind memory_fd has lost its name: it must have one until "
                            "the save is done");
    }
    for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
        snprintf(from, sizeof(from), SAVE_DIR "/%s", files[i]);
        if (i == 0 && !there(c->save_fd, from))
            continue;
        if (renameat2(c->save_fd, from, c->save_fd, files[i], RENAME_NOREPLACE) < 0)
            return vf_fail_errno(err, errno, "file '%s'", files[i]);
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
    for (size_t i = 0; r == 0 && i < sizeof(files) / sizeof(*files); i++)
        if (there(dirfd, files[i]))
            return vf_fail(err, VF_CONFLICT, "file '%s' exists already", files[i]);
    if (r < 0)
        return r;
    if (mkdirat(dirfd, SAVE_DIR, 0700) < 0)
        return vf_fail_errno(err, errno, "directory '" SAVE_DIR "'");
    c->save_fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
    if (c->save_fd < 0) {
        r = vf_fail_errno(err, errno, "the directory to save into");
        unlinkat(dirfd, SAVE_DIR, AT_REMOVEDIR);
        return r;
    }
    VF_CLEANUP_FREE char *body = save_body(path);
    r = body ? vf_ch_send(c, false, "vm.snapshot", body, NULL, 0, on_saved, err)
             : vf_fail(err, VF_NO_MEMORY, "vm.snapshot");
    if (r < 0)
        vf_ch_forget_save(c);
    return r;
}

/* Restore: a directory of the clone's own with the saved config made the clone's and a link to the saved state, then
 * vm.restore, with the descriptors of NICs. The directory goes when the VMM has answered. It leaves the VM paused.
 *
 * On demand: the memory that the save holds is fetched page by page, through a userfaultfd. A version that doesn't know
 * this drops the field without a word, so it is refused by version, and afterwards the VMM must say that the VM is
 * there and paused, and must have the userfaultfd open: never a silent copy.
 * On the way: files that are missing, no regular files or no JSON; a shape that is not the clone's; the VMM refuses.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "vmm/cloud_hypervisor.h"

/* Whether the process has a userfaultfd; a VMM that runs as somebody else is taken at its word. */
static bool has_userfaultfd(pid_t pid)
{
    char path[300], target[64];
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    bool found = !d;
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = 0;
        found = strcmp(target, "anon_inode:[userfaultfd]") == 0;
    }
    if (d)
        closedir(d);
    return found;
}

static void on_info(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err)
{
    struct vf_ch *c = arg;
    struct vf_error e;
    if (vf_ch_ended(c, VF_VM_OP_RESTORE, err))
        return;
    const char *state = vf_json_str(vf_json_get(reply->json, "state"), "unknown");
    if (strcmp(state, "Paused") != 0)
        vf_fail(&e, VF_PROTOCOL, "Cloud Hypervisor has restored the VM, but its state is %.32s",
                state);
    else if (!has_userfaultfd(c->process.pid))
        vf_fail(&e, VF_UNSUPPORTED, "Cloud Hypervisor %s has not restored on demand, but copied",
                c->vm.info.version);
    else {
        vf_ch_op_done(c, NULL);
        return;
    }
    vf_ch_op_done(c, &e);
}

static void on_restored(void *arg, const struct vf_vmm_http_reply *reply,
                        const struct vf_error *err)
{
    struct vf_ch *c = arg;
    struct vf_error e;
    (void)reply;
    if (!c->vm.close_begun)
        vf_ch_work_end(c, c->dirfd, VF_CH_RESTORE_DIR);
    if (vf_ch_ended(c, VF_VM_OP_RESTORE, err))
        return;
    vf_ch_config_close_taps(&c->cfg);
    if (c->cfg.restore_mode != VF_RESTORE_ON_DEMAND)
        vf_ch_op_done(c, NULL);
    else if (vf_ch_send(c, true, "vm.info", NULL, NULL, 0, on_info, &e) < 0)
        vf_ch_op_done(c, &e);
}

/* ---- the clone's directory */

/* A regular file of dirfd; where its directory is, as a path for a link. */
static int link_file(int dirfd, const char *dir_path, const char *name, int own_fd,
                     struct vf_error *err)
{
    char target[PATH_MAX];
    struct stat st;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return vf_fail_errno(err, errno, "file '%s'", name);
    if (!S_ISREG(st.st_mode))
        return vf_fail(err, VF_CORRUPT, "file '%s': not a regular file", name);
    if ((size_t)snprintf(target, sizeof(target), "%s/%s", dir_path, name) >= sizeof(target))
        return vf_fail(err, VF_INVALID_ARGUMENT, "file '%s': its path is too long", name);
    if (symlinkat(target, own_fd, name) < 0)
        return vf_fail_errno(err, errno, "link to file '%s'", name);
    return 0;
}

static int make_config(struct vf_ch *c, int dirfd, int own_fd, bool own_memory,
                       struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL, *patched = NULL;
    size_t len;
    int r = vf_read_file(dirfd, VF_CH_CONFIG, VF_CH_MAX_CONFIG, &text, &len, err);
    if (r < 0)
        return r;
    if (vf_ch_clone_config(&c->cfg, text, len, own_memory, &patched, err) < 0 || !patched)
        return vf_wrap(err, "file '" VF_CH_CONFIG "'");
    VF_CLEANUP_FD int fd =
        openat(own_fd, VF_CH_CONFIG, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return vf_fail_errno(err, errno, "the clone's '" VF_CH_CONFIG "'");
    return vf_write_all(fd, patched, strlen(patched), "the clone's '" VF_CH_CONFIG "'", err);
}

static int make_dir(struct vf_ch *c, int dirfd, bool own_memory, struct vf_error *err)
{
    char link[40], path[PATH_MAX];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
    ssize_t n = readlink(link, path, sizeof(path) - 1);
    if (n < 0)
        return vf_fail_errno(err, errno, "the directory to restore from");
    path[n] = 0;
    int r = vf_ch_work_begin(c, c->dirfd, VF_CH_RESTORE_DIR, err);
    if (r == 0)
        r = make_config(c, dirfd, c->work_fd, own_memory, err);
    if (r == 0)
        r = link_file(dirfd, path, VF_CH_STATE, c->work_fd, err);
    if (r == 0 && own_memory)
        r = link_file(dirfd, path, VF_CH_MEMORY, c->work_fd, err);
    return r;
}

static int send_restore(struct vf_ch *c, struct vf_error *err)
{
    int fds[VF_VM_MAX_NICS * VF_VM_MAX_QUEUE_PAIRS], n = 0;
    for (int i = 0; i < c->cfg.n_nics; i++)
        for (int k = 0; k < c->cfg.nics[i].n_fds; k++)
            fds[n++] = c->cfg.nics[i].fds[k];
    VF_CLEANUP_FREE char *body =
        vf_ch_restore_body(&c->cfg, c->cfg.restore_mode == VF_RESTORE_ON_DEMAND);
    if (!body)
        return vf_fail(err, VF_NO_MEMORY, "vm.restore");
    return vf_ch_send(c, false, "vm.restore", body, fds, n, on_restored, err);
}

static int check_mode(const struct vf_ch *c, bool own_memory, struct vf_error *err)
{
    if (c->cfg.restore_mode != VF_RESTORE_ON_DEMAND)
        return 0;
    if (!own_memory) {
        vf_fail(err, VF_UNSUPPORTED,
                "restore_mode: what was saved holds no memory to fetch on "
                "demand");
        return vf_hint(err, "a clone of shared template memory copies nothing as it is restored: "
                            "the other mode is as fast");
    }
    if (vf_ch_major(c) < VF_CH_ON_DEMAND_MAJOR)
        return vf_fail(err, VF_UNSUPPORTED,
                       "restore_mode: Cloud Hypervisor %s can't restore on demand: at least %d.0 "
                       "is needed",
                       c->vm.info.version, VF_CH_ON_DEMAND_MAJOR);
    return 0;
}

int vf_ch_restore(struct vf_vm *vm, int dirfd, struct vf_error *err)
{
    struct vf_ch *c = (struct vf_ch *)vm;
    struct stat st;
    bool own_memory = fstatat(dirfd, VF_CH_MEMORY, &st, AT_SYMLINK_NOFOLLOW) == 0;
    int r = check_mode(c, own_memory, err);
    if (r < 0)
        return r;
    r = make_dir(c, dirfd, own_memory, err);
    if (r == 0)
        r = send_restore(c, err);
    if (r < 0)
        vf_ch_work_end(c, c->dirfd, VF_CH_RESTORE_DIR);
    return r;
}

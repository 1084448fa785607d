/* Save and restore of a Firecracker VM.
 *
 * A booted guest runs in memory of Firecracker's own, so a save copies it into the template's memory_fd, which
 * Firecracker has inherited; the devices' state goes into a file that is made here first (so that nothing is
 * overwritten and its mode is ours) and named to it by its whole path. A restore maps that memory private.
 * What to copy: into memory that is all holes only the pages that exist (Firecracker 1.13, `Diff`, by mincore(2)):
 * milliseconds instead of a second a GiB, and as sparse as the guest. It takes a page that was swapped out for
 * none, so if any was, and in all other cases, all is written (`Full`).
 * On the way: the state file exists (refused); an error (the file goes again); a failed load, after which
 * Firecracker ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "vmm/firecracker.h"

#define SPARSE_SAVE VF_FIRECRACKER_VERSION(1, 13, 0)

/* The path of what fd is, for a process that has the same root. */
static int path_of(int fd, char *ret_path, struct vf_error *err)
{
    char link[40];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, ret_path, PATH_MAX);
    if (n < 0)
        return vf_fail_errno(err, errno, "state file '" VF_FIRECRACKER_STATE_FILE "'");
    if (n == PATH_MAX || ret_path[0] != '/')
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "state file '" VF_FIRECRACKER_STATE_FILE "': has no path of its own");
    ret_path[n] = 0;
    return 0;
}

/* ---- save */

void vf_firecracker_drop_save(struct vf_firecracker *f)
{
    if (f->save_dirfd >= 0)
        unlinkat(f->save_dirfd, VF_FIRECRACKER_STATE_FILE, 0);
    vf_close_fd(&f->save_dirfd);
}

static bool all_holes(int fd)
{
    return lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO;
}

/* True if that can't be told. */
static bool has_swapped(pid_t pid)
{
    char path[40], line[128];
    long kib = -1;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *s = fopen(path, "re");
    while (s && kib < 0 && fgets(line, sizeof(line), s))
        sscanf(line, "VmSwap: %ld", &kib);
    if (s)
        fclose(s);
    return kib != 0;
}

static void on_saved(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                     const struct vf_error *err);

static int ask_save(struct vf_firecracker *f, struct vf_error *err)
{
    char path[PATH_MAX];
    struct vf_json_writer w = {0};
    VF_CLEANUP_FD int fd =
        openat(f->save_dirfd, VF_FIRECRACKER_STATE_FILE, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return vf_fail_errno(err, errno, "state file '" VF_FIRECRACKER_STATE_FILE "'");
    int r = path_of(fd, path, err);
    if (r < 0)
        return r;
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "snapshot_type", f->sparse ? "Diff" : "Full");
    vf_jw_string(&w, "snapshot_path", path);
    vf_jw_string(&w, "mem_file_path", VF_FIRECRACKER_MEMORY_PATH);
    vf_jw_end(&w, '}');
    VF_CLEANUP_FREE char *body = vf_jw_finish(&w);
    if (!body)
        return vf_fail(err, VF_NO_MEMORY, "request");
    return vf_firecracker_ask(f, "PUT", "/snapshot/create", body, on_saved, err);
}

static void save_failed(struct vf_firecracker *f, const struct vf_error *err)
{
    vf_firecracker_drop_save(f);
    vf_vm_op_done(&f->vm, err);
}

static void on_saved(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                     const struct vf_error *err)
{
    struct vf_error e;
    (void)reply;
    /* Nothing runs in a paused guest: a page that was swapped out while it was looked for still is. */
    if (!err && f->sparse && has_swapped(f->process.pid)) {
        f->sparse = false;
        if (ask_save(f, &e) < 0)
            save_failed(f, &e);
    } else if (err)
        save_failed(f, err);
    else {
        vf_close_fd(&f->save_dirfd);
        vf_vm_op_done(&f->vm, NULL);
    }
}

int vf_firecracker_save(struct vf_vm *vm, int dirfd, struct vf_error *err)
{
    struct vf_firecracker *f = (struct vf_firecracker *)vm;
    if (f->memory_fd < 0)
        return vf_fail(err, VF_UNSUPPORTED,
                       "only a VM that was booted here with memory_shared has memory to save into");
    VF_CLEANUP_FD int fd = openat(dirfd, VF_FIRECRACKER_STATE_FILE,
                                  O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return vf_fail_errno(err, errno, "state file '" VF_FIRECRACKER_STATE_FILE "'");
    f->save_dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
    if (f->save_dirfd < 0) {
        int r = vf_fail_errno(err, errno, "directory");
        unlinkat(dirfd, VF_FIRECRACKER_STATE_FILE, 0);
        return r;
    }
    f->sparse = f->version >= SPARSE_SAVE && all_holes(f->memory_fd);
    int r = ask_save(f, err);
    if (r < 0)
        vf_firecracker_drop_save(f);
    return r;
}

/* ---- restore */

static void on_loaded(struct vf_firecracker *f, const struct vf_vmm_http_reply *reply,
                      const struct vf_error *err)
{
    (void)reply;
    vf_vm_op_done(&f->vm, err);
}

int vf_firecracker_restore(struct vf_vm *vm, int dirfd, struct vf_error *err)
{
    struct vf_firecracker *f = (struct vf_firecracker *)vm;
    char path[PATH_MAX];
    VF_CLEANUP_FD int fd =
        openat(dirfd, VF_FIRECRACKER_STATE_FILE, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return vf_fail_errno(err, errno, "state file '" VF_FIRECRACKER_STATE_FILE "'");
    int r = path_of(fd, path, err);
    if (r < 0)
        return r;
    VF_CLEANUP_FREE char *body = vf_firecracker_load_body(f, path);
    if (!body)
        return vf_fail(err, VF_NO_MEMORY, "request");
    return vf_firecracker_ask(f, "PUT", "/snapshot/load", body, on_loaded, err);
}

/* qemu-img makes the overlay once per template or cold boot; clones copy it (about 196 KiB). The
 * backing file named in its header is not believed by anyone: the driver names the whole chain. */
#include "factory/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fd.h"
#include "factory/programs.h"
#include "vmm/process.h"

static void one_line(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20)
            *p = ' ';
}

int vf_overlay_create(const char *dir, const char *name, const char *base, const char *base_format,
                      struct vf_error *err)
{
    VF_CLEANUP_FREE char *program = NULL, *path = NULL;
    int r = vf_find_program("qemu-img", "the Debian package qemu-utils", &program, err);
    if (r < 0)
        return r;
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        return vf_fail(err, VF_NO_MEMORY, "overlay");
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return vf_fail_errno(err, errno, "pipe");
    char *argv[] = {program, "create",     "-q", "-f", "qcow2", "-F", (char *)base_format,
                    "-b",    (char *)base, path, NULL};
    /* Nobody keeps a record of it, so it must not go on in a directory that is being removed. */
    struct vf_launch l = {
        .binary = program, .argv = argv, .output = fds[1], .die_with_parent = true, .record = -1};
    struct vf_process p;
    r = vf_process_launch(&l, &p, err);
    close(fds[1]);
    VF_CLEANUP_FD int out = fds[0];
    if (r < 0)
        return r;
    char said[512] = "", buf[512];
    size_t len = 0;
    ssize_t n;
    while ((n = read(out, buf, sizeof(buf))) > 0 || (n < 0 && errno == EINTR)) {
        size_t keep = n > 0 ? (size_t)n : 0;
        if (keep > sizeof(said) - 1 - len)
            keep =
                sizeof(said) - 1 - len; /* the rest is read all the same: the pipe must not fill */
        memcpy(said + len, buf, keep);
        len += keep;
    }
    said[len] = 0;
    one_line(said);
    siginfo_t si = {0};
    while (waitid(P_PIDFD, (id_t)p.pidfd, &si, WEXITED) < 0 && errno == EINTR)
        ;
    vf_close_fd(&p.pidfd);
    if (si.si_code != CLD_EXITED || si.si_status != 0)
        return vf_fail(err, VF_IO, "qemu-img could not make an overlay of %s: %s", base, said);
    return 0;
}

int vf_overlay_copy(int from_dirfd, const char *from, int to_dirfd, const char *to,
                    struct vf_error *err)
{
    VF_CLEANUP_FD int in = openat(from_dirfd, from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (in < 0 || fstat(in, &st) < 0)
        return vf_fail_errno(err, errno, "overlay '%s'", from);
    VF_CLEANUP_FD int out =
        openat(to_dirfd, to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0)
        return vf_fail_errno(err, errno, "overlay '%s'", to);
    char buf[65536];
    for (off_t at = 0; at < st.st_size;) {
        ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)(st.st_size - at), 0);
        if (n < 0 &&
            (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
            n = pread(in, buf, sizeof(buf), at);
            if (n > 0 && vf_write_all(out, buf, (size_t)n, to, err) < 0)
                return vf_code_errno(err ? err->code : VF_IO);
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vf_fail_errno(err, errno, "overlay '%s'", to);
        if (n == 0)
            return vf_fail(err, VF_CORRUPT, "overlay '%s' became shorter", from);
        at += n;
    }
    return 0;
}

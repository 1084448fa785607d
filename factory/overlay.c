/* qemu-img makes the overlay once per template or cold boot; clones copy it (about 196 KiB) and name the template's
 * overlay in its header. QEMU's driver names the whole chain besides; Cloud Hypervisor believes the header. */
#include "factory/overlay.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/programs.h"
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

/* ---- the header (QEMU's docs/interop/qcow2.txt): all of it is big-endian */

#define QCOW2_MAGIC 0x514649fbu
#define EXT_BACKING_FORMAT 0xe2792acau
#define AT_BACKING_OFFSET 8
#define AT_BACKING_SIZE 16
#define AT_CLUSTER_BITS 20
#define AT_HEADER_LENGTH 100
#define MAX_BACKING 1023

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return be32toh(v);
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof(v));
}

int vf_overlay_set_backing(int dirfd, const char *name, const char *backing, struct vf_error *err)
{
    static const char format[8] = "qcow2";
    uint8_t h[4096] = {0};
    size_t len = strlen(backing);
    VF_CLEANUP_FD int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return vf_fail_errno(err, errno, "overlay '%s'", name);
    if (len > MAX_BACKING)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "overlay '%s': its backing file's path is longer "
                       "than %d bytes",
                       name, MAX_BACKING);
    uint32_t header = 0;
    if (pread(fd, h, sizeof(h), 0) == (ssize_t)sizeof(h) && get32(h) == QCOW2_MAGIC)
        header = get32(h + AT_HEADER_LENGTH);
    if (get32(h + 4) != 3 || header < 104 || header > 512 || get32(h + AT_CLUSTER_BITS) != 16)
        return vf_fail(err, VF_CORRUPT, "overlay '%s': is no qcow2 image of ours", name);
    /* The extensions are written anew: the backing file's format, then the end; then the backing file's name. */
    memset(h + header, 0, sizeof(h) - header);
    put32(h + header, EXT_BACKING_FORMAT);
    put32(h + header + 4, (uint32_t)strlen(format));
    memcpy(h + header + 8, format, sizeof(format));
    uint32_t at = header + 8 + (uint32_t)sizeof(format) + 8;
    memcpy(h + at, backing, len + 1);
    put32(h + AT_BACKING_OFFSET, 0);
    put32(h + AT_BACKING_OFFSET + 4, at);
    put32(h + AT_BACKING_SIZE, (uint32_t)len);
    if (pwrite(fd, h, sizeof(h), 0) != (ssize_t)sizeof(h))
        return vf_fail_errno(err, errno, "overlay '%s': write", name);
    return 0;
}

/* Finding a process again that an earlier process of ours has launched.
 *
 * Its record holds what it wrote itself before it ran its binary: its line of /proc/self/stat, then the
 * host's boot id. The record is locked (flock) by whoever made it; the child has a copy of that descriptor, which
 * closes at its exec. So whoever gets the lock knows that the record is complete or that nobody will ever
 * complete it, even if the launcher was killed between the two.
 * On the way: the number may be somebody else's by now (the start time tells), the process may be a
 * zombie (its pidfd tells), the host may have booted since (the boot id tells).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "vmm/process.h"

#define LOCK_WAIT_MS 5000
#define BOOT_ID_LEN 36

int vf_process_record(int dirfd, const char *name, int *ret_fd, struct vf_error *err)
{
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return vf_fail_errno(err, errno, "file %s", name);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int r = vf_fail_errno(err, errno, "lock file %s", name);
        vf_close_fd(&fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

uint64_t vf_process_start_ticks(const char *stat_text)
{
    /* The command's name may hold spaces and parentheses: fields are counted from the last ')'. */
    const char *p = strrchr(stat_text, ')');
    unsigned long long ticks = 0;
    for (int field = 2; field < 22 && p; field++)
        p = strchr(p + 1, ' ');
    return p && sscanf(p + 1, "%llu", &ticks) == 1 ? ticks : 0;
}

static ssize_t read_text(int dirfd, const char *path, char *ret, size_t size)
{
    VF_CLEANUP_FD int fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
    ret[n > 0 ? n : 0] = 0;
    return n;
}

static int wait_for_lock(int dirfd, const char *name, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return vf_fail_errno(err, errno, "file %s", name);
    int64_t deadline_us = vf_deadline_after_ms(LOCK_WAIT_MS);
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return vf_fail_errno(err, errno, "lock file %s", name);
        if (vf_now_us() > deadline_us)
            return vf_fail(err, VF_TIMEOUT,
                           "file %s: the process it is for has not begun within %d ms", name,
                           LOCK_WAIT_MS);
        usleep(1000);
    }
    return 0;
}

int vf_process_read(int dirfd, const char *name, pid_t *ret_pid, uint64_t *ret_start_ticks,
                    struct vf_error *err)
{
    char text[2048], boot_id[64];
    int r = wait_for_lock(dirfd, name, err);
    if (r < 0)
        return r;
    if (read_text(dirfd, name, text, sizeof(text)) < 0 ||
        read_text(AT_FDCWD, "/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id)) <
            BOOT_ID_LEN)
        return vf_fail_errno(err, errno, "file %s", name);
    char *second = strchr(text, '\n');
    if (!second || strlen(second + 1) < BOOT_ID_LEN)
        return vf_fail(err, VF_NOT_FOUND, "file %s: its process never began", name);
    if (strncmp(second + 1, boot_id, BOOT_ID_LEN) != 0)
        return vf_fail(err, VF_NOT_FOUND, "file %s: the host has booted since", name);
    *second = 0;
    int pid;
    uint64_t ticks = vf_process_start_ticks(text);
    if (sscanf(text, "%d", &pid) != 1 || pid <= 1 || ticks == 0)
        return vf_fail(err, VF_CORRUPT, "file %s: names no process", name);
    *ret_pid = pid;
    *ret_start_ticks = ticks;
    return 0;
}

int vf_process_open(pid_t pid, uint64_t start_ticks, struct vf_process *ret, struct vf_error *err)
{
    char path[64], text[1024];
    VF_CLEANUP_FD int fd = pidfd_open(pid, 0);
    if (fd < 0 && (errno == ESRCH || errno == EINVAL)) /* gone; now a thread's */
        return vf_fail(err, VF_NOT_FOUND, "process %d has ended", (int)pid);
    if (fd < 0)
        return vf_fail_errno(err, errno, "process %d", (int)pid);
    /* After the pidfd: what is read now is of the process it stands for, or of none. */
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    read_text(AT_FDCWD, path, text, sizeof(text));
    if (vf_process_start_ticks(text) != start_ticks)
        return vf_fail(err, VF_NOT_FOUND, "process %d has ended, and another has its number",
                       (int)pid);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 0) > 0) { /* a zombie */
        waitid(P_PIDFD, (id_t)fd, &(siginfo_t){0}, WEXITED | WNOHANG);
        return vf_fail(err, VF_NOT_FOUND, "process %d has ended", (int)pid);
    }
    *ret = (struct vf_process){.pid = pid, .start_ticks = start_ticks, .pidfd = vf_steal_fd(&fd)};
    return 0;
}

/* What only pid 1 does, before it becomes the agent like anywhere else.
 *
 *     proc, sys, dev -> modules -> [vf.root: wait for the disk, mount it, make it the root]
 *       -> run, tmp, devpts -> loopback -> [vf.init: become that program instead]
 *
 * What fails on the way: a mount or a module that fails is named in the kernel's log, and the rest
 * goes on; a root image that can't be had powers the machine off, since a guest with another root
 * than asked for must not answer.
 */
#include "tools/agent/agent.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NEW_ROOT "/newroot"
#define ROOT_TIMEOUT_MS 20000

static void mount_on(const char *what, const char *dir, const char *type, unsigned long flags,
                     const char *options)
{
    mkdir(dir, 0755);
    if (mount(what, dir, type, flags, options) != 0 && errno != EBUSY)
        say("mount %s: %s", dir, strerror(errno));
}

/* 0, 1 and 2 must be something before anything else is opened. */
static void open_stdio(void)
{
    int fd = open("/dev/console", O_RDWR);

    if (fd < 0)
        fd = open("/dev/null", O_RDWR);
    for (int i = 0; i < 3 && fd >= 0; i++)
        if (fd != i)
            dup2(fd, i);
    if (fd > 2)
        close(fd);
}

/* Frees the initramfs: removes what lies on its file system below dirfd, which is closed. */
static void remove_below(int dirfd, dev_t dev)
{
    DIR *d = fdopendir(dirfd);

    if (!d) {
        close(dirfd);
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || st.st_dev != dev)
            continue;
        if (S_ISDIR(st.st_mode)) {
            int fd = openat(dirfd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (fd >= 0)
                remove_below(fd, dev);
        }
        unlinkat(dirfd, e->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
    }
    closedir(d);
}

static bool exists(void *arg)
{
    return access(arg, F_OK) == 0;
}

static int switch_root(char *device)
{
    static const char *const moved[] = {"/dev", "/proc", "/sys"};
    struct stat st;

    if (!wait_for_device(exists, device, ROOT_TIMEOUT_MS))
        return -ENODEV;
    mkdir(NEW_ROOT, 0755);
    if (mount(device, NEW_ROOT, "ext4", MS_NOATIME, NULL) != 0)
        return -errno;
    int old_root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (old_root < 0 || fstat(old_root, &st) != 0)
        return -errno;
    for (size_t i = 0; i < sizeof(moved) / sizeof(moved[0]); i++) {
        char to[64] = NEW_ROOT;
        strcat(to, moved[i]);
        mkdir(to, 0755);
        if (mount(moved[i], to, NULL, MS_MOVE, NULL) != 0)
            return -errno;
    }
    if (chdir(NEW_ROOT) != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 ||
        chdir("/") != 0)
        return -errno;
    remove_below(old_root, st.st_dev);
    return 0;
}

static void link_dev(const char *to, const char *name)
{
    if (symlink(to, name) != 0 && errno != EEXIST)
        say("%s: %s", name, strerror(errno));
}

void init_setup(void)
{
    char root[256], program[256];
    bool has_root;

    umask(022);
    mount_on("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
    open_stdio();
    mount_on("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_on("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    has_root = cmdline_value("vf.root", root, sizeof(root));
    modules_load(has_root);
    if (has_root) {
        int err = switch_root(root);
        if (err != 0) {
            say("root %s: %s", root, strerror(-err));
            init_power_off(RB_POWER_OFF);
        }
    }
    mount_on("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666");
    mount_on("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    mount_on("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
    mount_on("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    link_dev("/proc/self/fd", "/dev/fd");
    link_dev("fd/0", "/dev/stdin");
    link_dev("fd/1", "/dev/stdout");
    link_dev("fd/2", "/dev/stderr");
    net_up_loopback();
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
    if (cmdline_value("vf.init", program, sizeof(program))) {
        char *const argv[] = {program, NULL};
        execv(program, argv);
        say("%s: %s", program, strerror(errno));
        init_power_off(RB_POWER_OFF);
    }
}

_Noreturn void init_power_off(int how)
{
    struct timespec grace = {.tv_sec = 2};
    sigset_t child;

    /* Every process may end by itself, then is made to. */
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    kill(-1, SIGTERM);
    for (;;) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);
        if (pid > 0)
            continue;
        if (pid < 0 || sigtimedwait(&child, NULL, &grace) < 0)
            break; /* none is left, or those that are don't go */
    }
    kill(-1, SIGKILL);
    sync();
    mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
    reboot(how);
    for (;;)
        pause();
}

/* Launching and watching a process, and its end.
 *
 * Happy path: block signals; clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD) on a small stack of its own
 * (a fork would copy the page tables of the whole daemon); the child writes into its record who it is, enters its
 * network namespace, drops privileges, sets itself up by system calls alone, and execs; the parent goes on, reads the start time and,
 * later, is woken through the pidfd.
 * On the way: a failing call in the child stores its errno in memory both share and _exits; the
 * parent reaps it and returns the error.
 */
#include "vmm/process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/fd.h"

#define STACK_SIZE (64 * 1024)

struct child {
    const struct vf_launch *l;
    pid_t parent;
    int devnull;
    /* Written by the child, read by the parent once vfork has returned. */
    volatile int errnum;
    const char *volatile what;
};

static const char enter_netns[] = "enter the network namespace (netns_fd)";

static int child_fail(struct child *c, const char *what)
{
    c->errnum = errno;
    c->what = what;
    return 127;
}

/* Copies a line or two of the kernel's to the record. */
static bool copy_to_record(int record, const char *path)
{
    char text[1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    close(fd);
    for (ssize_t done = 0; n > 0 && done < n;) {
        ssize_t m = write(record, text + done, (size_t)(n - done));
        if (m <= 0)
            return false;
        done += m;
    }
    return n > 0;
}

/* Runs in the parent's memory: system calls only, nothing of libc that has state. */
static int child_main(void *arg)
{
    struct child *c = arg;
    const struct vf_launch *l = c->l;
    int high[VF_LAUNCH_MAX_FDS + 2];

    /* Not left to the parent, which may be killed at any moment: nothing runs that nobody can find. */
    if (l->record >= 0 && (!copy_to_record(l->record, "/proc/self/stat") ||
                           !copy_to_record(l->record, "/proc/sys/kernel/random/boot_id")))
        return child_fail(c, "record");
    /* The child alone goes there: its descriptors of namespaces are ours, and end with exec. */
    if (l->has_netns && setns(l->netns_fd, CLONE_NEWNET) < 0)
        return child_fail(c, enter_netns);
    if (vf_process_drop_privileges(l) < 0)
        return child_fail(c, "drop capabilities");

    if (l->die_with_parent) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
            return child_fail(c, "PR_SET_PDEATHSIG");
        if (getppid() != c->parent) {
            errno = ESRCH;
            return child_fail(c, "parent");
        }
    }
    setsid();

    /* First out of the way of the target numbers, then into place. */
    int first_free = VF_LAUNCH_FIRST_FD + l->n_fds;
    for (int i = 0; i < l->n_fds; i++)
        if ((high[i] = fcntl(l->fds[i], F_DUPFD_CLOEXEC, first_free)) < 0)
            return child_fail(c, "F_DUPFD");
    int out = fcntl(l->output, F_DUPFD_CLOEXEC, first_free);
    int in = fcntl(l->has_stdio ? l->input_fd : c->devnull, F_DUPFD_CLOEXEC, first_free);
    int said = l->has_stdio ? fcntl(l->output_fd, F_DUPFD_CLOEXEC, first_free) : out;
    if (out < 0 || in < 0 || said < 0)
        return child_fail(c, "F_DUPFD");
    if (l->has_cwd && fchdir(l->cwd_fd) < 0)
        return child_fail(c, "chdir");
    for (int i = 0; i < l->n_fds; i++)
        if (dup2(high[i], VF_LAUNCH_FIRST_FD + i) < 0)
            return child_fail(c, "dup2");
    if (dup2(in, 0) < 0 || dup2(said, 1) < 0 || dup2(out, 2) < 0)
        return child_fail(c, "dup2");
    /* Whatever a library left open without O_CLOEXEC ends here. */
    if (close_range((unsigned)first_free, ~0u, CLOSE_RANGE_CLOEXEC) < 0 && errno != ENOSYS &&
        errno != EINVAL)
        return child_fail(c, "close_range");

    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (l->max_files) {
        struct rlimit files = {(rlim_t)l->max_files, (rlim_t)l->max_files};
        setrlimit(RLIMIT_NOFILE, &files); /* more than we may have: then it stays */
    }
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++)
        sigaction(s, &dfl, NULL);
    sigset_t empty;
    sigemptyset(&empty);
    sigprocmask(SIG_SETMASK, &empty, NULL);

    char *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C",
                   NULL};
    execve(l->binary, l->argv, env);
    return child_fail(c, "exec");
}

static uint64_t read_start_ticks(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    VF_CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = 0;
    return vf_process_start_ticks(text);
}

static int netns_failed(const struct vf_launch *l, int errnum, struct vf_error *err)
{
    if (errnum == EINVAL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "launch %s: %s: it is no network namespace",
                       l->binary, enter_netns);
    int r = vf_fail_errno(err, errnum, "launch %s: %s", l->binary, enter_netns);
    if (errnum == EPERM)
        vf_hint(err, "it needs CAP_SYS_ADMIN: run as root, or set the spec's network to none");
    return r;
}

int vf_process_launch(const struct vf_launch *l, struct vf_process *ret, struct vf_error *err)
{
    if (l->n_fds > VF_LAUNCH_MAX_FDS)
        return vf_fail(err, VF_INTERNAL, "launch: %d descriptors, at most %d", l->n_fds,
                       VF_LAUNCH_MAX_FDS);
    struct child c = {.l = l, .parent = getpid()};
    VF_CLEANUP_FD int devnull = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (devnull < 0)
        return vf_fail_errno(err, errno, "open /dev/null");
    c.devnull = devnull;
    char *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return vf_fail_errno(err, errno, "launch %s: stack", l->binary);

    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int pidfd = -1;
    pid_t pid = clone(child_main, stack + STACK_SIZE,
                      CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &c, &pidfd);
    int clone_errno = errno;
    if (l->record >= 0)
        vf_failpoint("launch.after-clone");
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    munmap(stack, STACK_SIZE);

    if (pid < 0)
        return vf_fail_errno(err, clone_errno, "launch %s: clone", l->binary);
    if (c.errnum) {
        waitid(P_PIDFD, (id_t)pidfd, &(siginfo_t){0}, WEXITED);
        vf_close_fd(&pidfd);
        int r = vf_fail_errno(err, c.errnum, "launch %s: %s", l->binary, c.what);
        if (c.what == enter_netns)
            return netns_failed(l, c.errnum, err);
        if (c.errnum == ENOEXEC)
            r = vf_fail(err, VF_INVALID_ARGUMENT, "launch %s: %s: not a program this host can run",
                        l->binary, c.what);
        if (c.errnum == EACCES)
            vf_hint(err, "the file must be an executable program: chmod +x, and no noexec mount");
        else if (c.errnum == ENOENT)
            vf_hint(err, "install the VMM (QEMU: Debian package qemu-system-x86) or give its path");
        else if (c.errnum == ENOEXEC)
            vf_hint(err, "give the path of the VMM's executable");
        else if (c.errnum == ELOOP)
            vf_hint(err, "the path is a loop of symbolic links");
        return r;
    }
    *ret = (struct vf_process){.pid = pid, .start_ticks = read_start_ticks(pid), .pidfd = pidfd};
    return 0;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct vf_process *p = poll->data;
    siginfo_t si = {0};
    (void)events;
    if (status < 0 || p->exited)
        return;
    int r = waitid(P_PIDFD, (id_t)p->pidfd, &si, WEXITED | WNOHANG);
    if (r < 0 && errno == EINTR)
        return;
    if (r == 0 && si.si_pid == 0)
        return;
    p->exited = true;
    uv_poll_stop(poll);
    struct vf_exit how = {
        .signaled = si.si_code != CLD_EXITED, .unknown = r < 0, .code = si.si_status};
    p->on_exit(p, &how);
}

int vf_process_watch(struct vf_process *p, uv_loop_t *loop, vf_exit_cb on_exit, void *data,
                     struct vf_error *err)
{
    p->on_exit = on_exit;
    p->data = data;
    int r = uv_poll_init(loop, &p->poll, p->pidfd);
    if (r < 0)
        return vf_fail_errno(err, r, "watch process %d", (int)p->pid);
    p->poll.data = p;
    p->polling = true;
    r = uv_poll_start(&p->poll, UV_READABLE, on_poll);
    if (r < 0)
        return vf_fail_errno(err, r, "watch process %d", (int)p->pid);
    return 0;
}

void vf_process_kill(struct vf_process *p, int sig)
{
    if (p->pidfd >= 0 && !p->exited)
        pidfd_send_signal(p->pidfd, sig, NULL, 0);
}

int vf_process_end(struct vf_process *p, int timeout_ms, struct vf_error *err)
{
    struct pollfd poll_fd = {.fd = p->pidfd, .events = POLLIN};
    int64_t deadline_us = vf_deadline_after_ms(timeout_ms);
    vf_process_kill(p, SIGKILL);
    for (;;) {
        int n = poll(&poll_fd, 1, vf_deadline_left_ms(deadline_us));
        if (n > 0)
            break;
        if (n < 0 && errno != EINTR)
            return vf_fail_errno(err, errno, "process %d", (int)p->pid);
        if (n == 0)
            return vf_fail(err, VF_TIMEOUT, "process %d was killed, but has not ended within %d ms",
                           (int)p->pid, timeout_ms);
    }
    waitid(P_PIDFD, (id_t)p->pidfd, &(siginfo_t){0}, WEXITED | WNOHANG); /* ECHILD: not ours */
    p->exited = true;
    return 0;
}

static void on_poll_closed(uv_handle_t *h)
{
    struct vf_process *p = h->data;
    p->polling = false;
    vf_close_fd(&p->pidfd);
    p->on_closed(h);
}

bool vf_process_close(struct vf_process *p, uv_close_cb on_closed)
{
    if (!p->polling) {
        vf_close_fd(&p->pidfd);
        return false;
    }
    p->on_closed = on_closed;
    uv_close((uv_handle_t *)&p->poll, on_poll_closed);
    return true;
}

void vf_exit_text(const struct vf_exit *how, char *ret, size_t size)
{
    if (how->unknown)
        snprintf(ret, size, "ended");
    else if (how->signaled)
        snprintf(ret, size, "was killed by signal %d (%s)", how->code, strsignal(how->code));
    else
        snprintf(ret, size, "exited with status %d", how->code);
}

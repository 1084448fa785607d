/* Starting, watching and stopping a daemon. See daemon_support.h; daemon_http.c is its client. */
#include "tests/e2e/daemon_support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"

/* The one built with this test program: build/vmfactoryd beside build/tests, build/asan/vmfactoryd beside
 * build/asan/tests. */
static void binary(char *buf, size_t size)
{
    const char *tests = getenv("VF_TESTS"), *build = getenv("VF_BUILD");

    snprintf(buf, size, "%s/../vmfactoryd", tests != NULL ? tests : "build/tests");
    if (access(buf, X_OK) < 0)
        snprintf(buf, size, "%s/vmfactoryd", build != NULL ? build : "build");
    cr_assert_eq(access(buf, X_OK), 0, "%s: %s", buf, strerror(errno));
}

static int listen_notify(const struct dmn *d)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/notify", d->dir);
    unlink(addr.sun_path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0, "%s", strerror(errno));
    return fd;
}

static void make_dir(char *buf, size_t size, const char *below)
{
    snprintf(buf, size, "%.30s/vf-daemon-XXXXXX", below);
    cr_assert_not_null(mkdtemp(buf), "%s: %s", buf, strerror(errno));
}

void dmn_prepare(struct dmn *d, const char *const *args)
{
    const char *tmp = getenv("TMPDIR");
    size_t n = 0;

    memset(d, 0, sizeof(*d));
    d->pidfd = d->notify_fd = -1;
    make_dir(d->dir, sizeof(d->dir), tmp != NULL ? tmp : "/tmp");
    make_dir(d->run_dir, sizeof(d->run_dir),
             tmp == NULL && access("/dev/shm", W_OK) == 0 ? "/dev/shm"
             : tmp != NULL                                ? tmp
                                                          : "/tmp");
    snprintf(d->state, sizeof(d->state), "%s/state", d->dir);
    snprintf(d->run, sizeof(d->run), "%s/run", d->run_dir);
    for (; args != NULL && args[n] != NULL; n++) {
        cr_assert_lt(n, DMN_MAX_ARGS - 1);
        d->args[n] = args[n];
    }
}

static void spawn(struct dmn *d)
{
    char path[4096], notify[120], log[100], asan[1000];
    const char *options = getenv("ASAN_OPTIONS");
    /* Nothing of the machine's own network is touched: who enters one of its own switches them on. */
    const char *argv[DMN_MAX_ARGS + 8] = {path,   "--state", d->state,     "--run",
                                          d->run, "--set",   "network=off"};
    pid_t self = getpid();
    int fd;

    binary(path, sizeof(path));
    for (size_t i = 0; d->args[i] != NULL; i++)
        argv[7 + i] = d->args[i];
    d->notify_fd = listen_notify(d);
    snprintf(notify, sizeof(notify), "%s/notify", d->dir);
    snprintf(log, sizeof(log), "%s/log", d->dir);
    /* What was freed is kept back for a while under ASan: little, for tests that look at memory. */
    snprintf(asan, sizeof(asan), "%s:quarantine_size_mb=1:thread_local_quarantine_size_kb=64",
             options != NULL ? options : "");
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    fflush(NULL);
    d->pid = fork();
    if (d->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
        if (getppid() != self)
            _exit(125);
        setenv("NOTIFY_SOCKET", notify, 1);
        setenv("ASAN_OPTIONS", asan, 1);
        dup2(fd, 2);
        dup2(fd, 1);
        execv(path, (char *const *)argv);
        _exit(126);
    }
    cr_assert_gt(d->pid, 0);
    close(fd);
    d->pidfd = (int)syscall(SYS_pidfd_open, d->pid, 0);
    cr_assert_geq(d->pidfd, 0);
}

static void show_log(const struct dmn *d)
{
    char *text = dmn_log(d);

    fprintf(stderr, "---- the daemon's log:\n%s----\n", text);
    free(text);
}

/* True: it is ready. False: it has ended. */
static bool wait_ready(struct dmn *d)
{
    int64_t deadline = vf_deadline_after_ms(DMN_LONG_MS);

    for (;;) {
        struct pollfd p[2] = {{.fd = d->notify_fd, .events = POLLIN},
                              {.fd = d->pidfd, .events = POLLIN}};
        char text[1024];
        ssize_t n;
        int r = poll(p, 2, vf_deadline_left_ms(deadline));

        if (r < 0 && errno == EINTR)
            continue;
        if (r == 0)
            show_log(d);
        cr_assert_gt(r, 0, "the daemon is not ready in time");
        while ((n = recv(d->notify_fd, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
            text[n] = '\0';
            if (strncmp(text, "READY=1", 7) == 0 || strstr(text, "\nREADY=1") != NULL)
                return true;
        }
        if (p[1].revents != 0)
            return false;
    }
}

bool dmn_try_start(struct dmn *d)
{
    spawn(d);
    return wait_ready(d);
}

void dmn_start(struct dmn *d)
{
    if (dmn_try_start(d))
        return;
    show_log(d);
    cr_assert_fail("the daemon ended with %d instead of starting", dmn_wait(d));
}

int dmn_start_fails(struct dmn *d)
{
    spawn(d);
    cr_assert_not(wait_ready(d), "the daemon started");
    return dmn_wait(d);
}

void dmn_open(struct dmn *d, const char *const *args)
{
    dmn_prepare(d, args);
    dmn_start(d);
}

void dmn_signal(struct dmn *d, int signum)
{
    cr_assert_gt(d->pid, 0);
    cr_assert_eq(syscall(SYS_pidfd_send_signal, d->pidfd, signum, NULL, 0), 0);
}

int dmn_wait(struct dmn *d)
{
    struct pollfd p = {.fd = d->pidfd, .events = POLLIN};
    int64_t deadline = vf_deadline_after_ms(DMN_LONG_MS);
    int status = 0, r;

    do {
        r = poll(&p, 1, vf_deadline_left_ms(deadline));
    } while (r < 0 && errno == EINTR);
    if (r == 0)
        show_log(d);
    cr_assert_gt(r, 0, "the daemon does not end");
    cr_assert_eq(waitpid(d->pid, &status, 0), d->pid);
    d->pid = 0;
    vf_close_fd(&d->pidfd);
    vf_close_fd(&d->notify_fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void dmn_kill(struct dmn *d)
{
    dmn_signal(d, SIGKILL);
    cr_assert_eq(dmn_wait(d), 128 + SIGKILL);
}

int dmn_stop(struct dmn *d)
{
    dmn_signal(d, SIGTERM);
    return dmn_wait(d);
}

void dmn_close(struct dmn *d)
{
    struct vf_error err;

    if (d->pid != 0) {
        int status = dmn_stop(d);

        if (status != 0)
            show_log(d);
        cr_expect_eq(status, 0, "the daemon ended with %d", status);
    }
    cr_expect_eq(vf_remove_tree(AT_FDCWD, d->dir, &err), 0, "%s", err.msg);
    cr_expect_eq(vf_remove_tree(AT_FDCWD, d->run_dir, &err), 0, "%s", err.msg);
}

void dmn_let_all_in(struct dmn *d)
{
    char sock[120];

    snprintf(sock, sizeof(sock), "%s/api.sock", d->run);
    cr_assert_eq(chmod(d->run_dir, 0755), 0);
    cr_assert_eq(chmod(d->run, 0755), 0);
    cr_assert_eq(chmod(sock, 0666), 0);
}

/* ---- what it has */

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "re");
    char *text = calloc(1, 1), piece[4096];
    size_t len = 0, n;

    while (f != NULL && (n = fread(piece, 1, sizeof(piece), f)) > 0) {
        text = realloc(text, len + n + 1);
        cr_assert_not_null(text);
        memcpy(text + len, piece, n);
        len += n;
        text[len] = '\0';
    }
    if (f != NULL)
        fclose(f);
    return text;
}

char *dmn_log(const struct dmn *d)
{
    char path[100];

    snprintf(path, sizeof(path), "%s/log", d->dir);
    return read_all(path);
}

/* Names in a directory but for . and ..; 0 if it is not there. */
static int count_names(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;

    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (dir != NULL)
        closedir(dir);
    return n;
}

int dmn_vm_dirs(const struct dmn *d)
{
    char path[100];
    DIR *dir;
    int n = 0;

    snprintf(path, sizeof(path), "%s/vms", d->run);
    dir = opendir(path);
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        n += e->d_name[0] != '.' && e->d_type == DT_DIR;
    if (dir != NULL)
        closedir(dir);
    return n;
}

void dmn_await_vm_dirs(const struct dmn *d, int64_t n)
{
    int64_t deadline = vf_deadline_after_ms(DMN_LONG_MS);

    while (dmn_vm_dirs(d) != n && vf_deadline_left_ms(deadline) > 0)
        usleep(10000);
    cr_expect_eq(dmn_vm_dirs(d), n, "%d directories of VMs, not %lld", dmn_vm_dirs(d),
                 (long long)n);
}

int dmn_vmms(const char *name)
{
    char path[300], line[300];
    DIR *proc = opendir("/proc");
    int n = 0;

    for (struct dirent *e; (e = readdir(proc)) != NULL;) {
        FILE *f;

        if (e->d_name[0] < '0' || e->d_name[0] > '9')
            continue;
        snprintf(path, sizeof(path), "/proc/%.20s/cmdline", e->d_name);
        f = fopen(path, "re");
        if (f == NULL)
            continue;
        line[fread(line, 1, sizeof(line) - 1, f)] = '\0'; /* argv[0], NUL */
        fclose(f);
        n += strcmp(line, name) == 0;
    }
    closedir(proc);
    return n;
}

int dmn_fds(const struct dmn *d)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)d->pid);
    return count_names(path);
}

int64_t dmn_rss_kib(const struct dmn *d)
{
    char path[64], *text, *at;
    int64_t kib;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)d->pid);
    text = read_all(path);
    at = strstr(text, "VmRSS:");
    kib = at != NULL ? strtoll(at + 6, NULL, 10) : -1;
    free(text);
    return kib;
}

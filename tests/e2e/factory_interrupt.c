/* SIGINT and SIGTERM in the middle of vmfactory-demo: it ends with 130 and leaves no process and no file. */
#include "tests/e2e/factory_support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"

static const char *demo(void)
{
    static char path[512];
    const char *tests = getenv("VF_TESTS");
    char cwd[400];
    if (tests && tests[0])
        snprintf(path, sizeof(path), "%.400s/../vmfactory-demo", tests);
    else
        snprintf(path, sizeof(path), "%s/build/vmfactory-demo", getcwd(cwd, sizeof(cwd)));
    return path;
}

struct demo {
    pid_t pid;
    int pidfd, out;
    char said[16384];
    size_t len;
};

static void start_demo(struct demo *d, const char *tmp, const char *spec)
{
    int fds[2];
    *d = (struct demo){0};
    cr_assert_eq(access(demo(), X_OK), 0, "%s: %s (make all builds it)", demo(), strerror(errno));
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    d->pid = fork();
    cr_assert_geq(d->pid, 0);
    if (d->pid == 0) {
        setenv("TMPDIR", tmp, 1);
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        execl(demo(), "vmfactory-demo", "--spec", spec, "--qemu", sup_qemu(), (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    d->out = fds[0];
    d->pidfd = pidfd_open(d->pid, 0);
    cr_assert_geq(d->pidfd, 0);
}

/* Reads until it has said words, or to its end. */
static bool read_until(struct demo *d, const char *words)
{
    int64_t deadline = vf_deadline_after_ms(SUP_LONG_MS);
    while (!words || !strstr(d->said, words)) {
        struct pollfd p = {.fd = d->out, .events = POLLIN};
        cr_assert_gt(poll(&p, 1, vf_deadline_left_ms(deadline)), 0, "silent after: %s", d->said);
        ssize_t n = read(d->out, d->said + d->len, sizeof(d->said) - 1 - d->len);
        if (n <= 0)
            return false;
        d->len += (size_t)n;
        d->said[d->len] = 0;
    }
    return true;
}

static void end_demo(struct demo *d, const char *when)
{
    int status;
    struct pollfd p = {.fd = d->pidfd, .events = POLLIN};
    read_until(d, NULL);
    cr_assert_eq(poll(&p, 1, SUP_LONG_MS), 1, "%s: it does not end: %s", when, d->said);
    cr_assert_eq(waitpid(d->pid, &status, 0), d->pid);
    cr_assert(WIFEXITED(status), "%s: signal %d: %s", when, WTERMSIG(status), d->said);
    cr_assert_eq(WEXITSTATUS(status), 130, "%s: status %d: %s", when, WEXITSTATUS(status), d->said);
    cr_assert(strstr(d->said, "interrupted by a signal"), "%s: %s", when, d->said);
    close(d->out);
    close(d->pidfd);
}

static void interrupt(struct sup *s, const char *spec, const char *after, int signum)
{
    struct demo d;
    start_demo(&d, s->dir, spec);
    cr_assert(read_until(&d, after), "it ended before \"%s\": %s", after, d.said);
    cr_assert_eq(kill(d.pid, signum), 0);
    end_demo(&d, after);
    cr_assert_eq(sup_count_children(), 0, "%s: a process is left", after);
    cr_assert_eq(sup_count_files(s->dirfd), 1, "%s: a file is left", after); /* the spec */
}

static void write_spec(const struct sup *s, const char *name, const struct vf_spec *spec,
                       char *path, size_t size)
{
    VF_CLEANUP_FREE char *text = vf_spec_encode(spec);
    snprintf(path, size, "%s/%s.json", s->dir, name);
    fac_write(path, text, 0600);
}

/* After each of the words in turn: by both signals, or by one and the other. */
static void each_signal(const struct vf_spec *spec, const char *const *after, bool both)
{
    struct sup s;
    char path[128];
    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    sup_open(&s);
    write_spec(&s, "spec", spec, path, sizeof(path));
    for (int i = 0; after[i]; i++) {
        interrupt(&s, path, after[i], i % 2 ? SIGTERM : SIGINT);
        if (both)
            interrupt(&s, path, after[i], i % 2 ? SIGINT : SIGTERM);
    }
    sup_close(&s);
}

/* Its commands are not for the tiny guest, but its signals are the same until then. */
Test(factory_interrupt, demo_while_it_builds, .timeout = 180)
{
    static const char *const after[] = {
        "building template", " vmm", " boot", " freeze", " save", " store", " prove", NULL};
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    each_signal(&spec, after, true);
    vf_spec_free(&spec);
}

Test(factory_interrupt, demo_with_linux, .timeout = 240)
{
    static const char *const after[] = {" boot", "clone 1", "clone 3", "cold boot 1", NULL};
    FAC_LINUX_OR_SKIP("factory_interrupt", "demo_with_linux");
    struct vf_spec spec = fac_linux("linux", VF_ACCEL_TCG, NULL);
    spec.network.enabled = true; /* it looks for the MAC */
    each_signal(&spec, after, false);
    vf_spec_free(&spec);
}

/* A daemon of the benchmark's own: scratch directories, exec, wait for its socket; SIGTERM, wait, clean up.
 *
 * Its VMs end with it (on_stop), and it ends with the benchmark. The run directory lies on a tmpfs where there is
 * one, as /run does.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tools/bench/daemon.h"

#define MAX_SETTINGS 16
#define START_MS 10000

static int make_dirs(struct bench_daemon *d, struct vf_error *err)
{
    const char *tmp = getenv("TMPDIR");
    struct statfs fs;
    bool shm =
        statfs("/dev/shm", &fs) == 0 && fs.f_type == TMPFS_MAGIC && access("/dev/shm", W_OK) == 0;
    snprintf(d->dir, sizeof(d->dir), "%.40s/vf-bench-XXXXXX", tmp && tmp[0] == '/' ? tmp : "/tmp");
    if (!mkdtemp(d->dir)) {
        int r = vf_fail_errno(err, errno, "%s", d->dir);
        d->dir[0] = 0;
        return r;
    }
    snprintf(d->state, sizeof(d->state), "%s/state", d->dir);
    if (shm) {
        snprintf(d->run_base, sizeof(d->run_base), "/dev/shm/vf-bench-XXXXXX");
        if (!mkdtemp(d->run_base)) {
            d->run_base[0] = 0;
            return vf_fail_errno(err, errno, "/dev/shm");
        }
    }
    snprintf(d->run, sizeof(d->run), "%s/run", shm ? d->run_base : d->dir);
    d->bench->run_on_tmpfs = shm || (statfs(d->dir, &fs) == 0 && fs.f_type == TMPFS_MAGIC);
    snprintf(d->api, sizeof(d->api), "%s/api.sock", d->run);
    snprintf(d->stats, sizeof(d->stats), "%s/stats.sock", d->run);
    return 0;
}

/* In the child. */
static void become_daemon(const struct bench_daemon *d, const char *const *settings)
{
    static const char *const names[VF_SPEC_VMM_COUNT] = {[VF_SPEC_VMM_QEMU] = "qemu",
                                                         [VF_SPEC_VMM_CLOUD_HYPERVISOR] =
                                                             "cloud_hypervisor",
                                                         [VF_SPEC_VMM_FIRECRACKER] = "firecracker"};
    char self[PATH_MAX - 16] = "", program[PATH_MAX], log[96];
    char binaries[VF_SPEC_VMM_COUNT][PATH_MAX + 32];
    /* Networks are measured by themselves; here nothing of the host's is touched. */
    const char *argv[11 + (VF_SPEC_VMM_COUNT + MAX_SETTINGS) * 2] = {
        program, "--state",    d->state, "--run", d->run, "--set", "on_stop=destroy-all",
        "--set", "network=off"};
    size_t n = 9;
    for (int i = 0; i < VF_SPEC_VMM_COUNT; i++) {
        const char *path = d->bench->floor.binaries[i];
        if (!path || !names[i])
            continue;
        snprintf(binaries[i], sizeof(binaries[i]), "%s=%s", names[i], path);
        argv[n++] = "--set";
        argv[n++] = binaries[i];
    }
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    for (size_t i = 0; i < MAX_SETTINGS && settings[i]; i++) {
        argv[n++] = "--set";
        argv[n++] = settings[i];
    }
    snprintf(program, sizeof(program), "%s/vmfactoryd", len > 0 ? dirname(self) : ".");
    snprintf(log, sizeof(log), "%s/log", d->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    execv(program, (char *const *)argv);
    dprintf(2, "%s: %s\n", program, strerror(errno));
    _exit(127);
}

static int ended(struct bench_daemon *d, struct vf_error *err)
{
    char log[96], tail[600] = "";
    snprintf(log, sizeof(log), "%s/log", d->dir);
    VF_CLEANUP_FD int fd = open(log, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, tail, sizeof(tail) - 1);
    tail[n > 0 ? n : 0] = 0;
    for (char *at = tail; *at; at++)
        if (*at == '\n')
            *at = ' ';
    d->pid = 0;
    return vf_fail(err, VF_IO, "the daemon ended: %s", tail);
}

int daemon_open(struct bench_daemon *d, struct bench *b, const char *const *settings,
                struct vf_error *err)
{
    *d = (struct bench_daemon){.bench = b, .control = {.fd = -1, .path = d->api}};
    struct vf_error e;
    int r = make_dirs(d, err);
    if (r < 0)
        return r;
    pid_t self = getpid();
    d->pid = fork();
    if (d->pid < 0)
        return vf_fail_errno(err, errno, "fork");
    if (d->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != self)
            _exit(127);
        become_daemon(d, settings);
    }
    for (int64_t deadline = vf_deadline_after_ms(START_MS); vf_now_us() < deadline;) {
        if (waitpid(d->pid, NULL, WNOHANG) == d->pid)
            return ended(d, err);
        if (client_ask(&d->control, "GET", "/v1/version", NULL, &e) == 0 &&
            d->control.status == 200)
            return 0;
        usleep(2000);
    }
    return vf_fail(err, VF_TIMEOUT, "the daemon is not ready within %d ms", START_MS);
}

int daemon_close(struct bench_daemon *d, struct vf_error *err)
{
    int r = 0, status = 0;
    client_free(&d->control);
    if (d->pid > 0) {
        kill(d->pid, SIGTERM); /* not waited for yet: the number is still its own */
        while (waitpid(d->pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (status)
            r = vf_fail(err, VF_IO, "the daemon ended with status %#x", (unsigned)status);
    }
    d->pid = 0;
    if (d->run_base[0])
        vf_remove_tree(AT_FDCWD, d->run_base, NULL);
    if (d->dir[0])
        vf_remove_tree(AT_FDCWD, d->dir, NULL);
    return r;
}

/* ---- what it has */

static int64_t count_files(const char *path)
{
    DIR *dir = opendir(path);
    int64_t n = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char child[PATH_MAX];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        n++;
        if (e->d_type == DT_DIR &&
            snprintf(child, sizeof(child), "%s/%s", path, e->d_name) < PATH_MAX)
            n += count_files(child);
    }
    if (dir)
        closedir(dir);
    return n;
}

int64_t daemon_vm_dirs(const struct bench_daemon *d)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/vms", d->run);
    DIR *dir = opendir(path);
    int64_t n = 0;
    for (struct dirent *e; dir && (e = readdir(dir));)
        n += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return n;
}

int daemon_use(const struct bench_daemon *d, struct daemon_use *ret, struct vf_error *err)
{
    char path[64], line[256];
    *ret = (struct daemon_use){0};
    snprintf(path, sizeof(path), "/proc/%d/status", (int)d->pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return vf_fail_errno(err, errno, "%s", path);
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, "VmRSS:", 6) == 0)
            ret->rss_kib = atoll(line + 6);
        if (strncmp(line, "Threads:", 8) == 0)
            ret->threads = atoll(line + 8);
    }
    fclose(f);
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)d->pid);
    ret->fds = count_files(path);
    ret->files = count_files(d->state) + count_files(d->run);
    return 0;
}

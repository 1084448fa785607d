/* vmfactory-floor: the least that could do what the factory does. One process, plain blocking system calls,
 * nothing around them: no loop, no deadlines, no proofs kept, no cleanup but the kernel's and that of its directory.
 * The benchmark runs it in turn with the factory and gives the ratio.
 *
 *   vmfactory-floor clone OPTIONS    VMM up, restore, resume, hello + renew; then pause, resume + renew
 *   vmfactory-floor cold OPTIONS     VMM up, boot, hello, renew; then freeze, pause, save
 *
 * Prints one line of "name=µs" pairs per VM, for clone: vmm restore resume prove total, and wake where a clone can wait
 * paused; for cold: vmm boot renew total save. --parallel N starts N processes of itself at the same moment and prints
 * a line of each, then "wall=µs", the time until the last was done.
 *
 * By itself: --keep DIR leaves what a cold boot has saved there, and its memory as DIR/memory.
 *
 *   vmfactory-floor cold --vmm V --binary FILE --kernel FILE --keep DIR
 *   vmfactory-floor clone --vmm V --binary FILE --state DIR/state --memory-fd 9 9<DIR/memory
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/wire.h"
#include "tools/floor/floor.h"

struct options opt = {.vmm = "qemu",
                      .machine = "microvm",
                      .accel = "tcg",
                      .channel_name = "virtio-serial",
                      .memory_fd = -1,
                      .parallel = 1,
                      .port = VF_WIRE_VSOCK_PORT,
                      .memory_mib = 256};
pid_t vmm;
char save_dir[PATH_MAX], memory_file[PATH_MAX];
static const struct floor_vmm *v;
static char dir[PATH_MAX];
static bool memory_is_ours;

/* ---- what all parts use */

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st;
    (void)flag;
    (void)at;
    return remove(path);
}

static void end(void)
{
    if (vmm > 0) {
        kill(vmm, SIGKILL);
        waitpid(vmm, NULL, 0);
    }
    if (dir[0])
        nftw(dir, remove_one, 4, FTW_DEPTH | FTW_PHYS);
    if (memory_is_ours)
        unlink(memory_file);
}

void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("vmfactory-floor: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    end();
    exit(1);
}

int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void become_leader(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setsid();
}

void text(char *buf, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, size, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= size)
        die("too long: %s", buf);
}

const char *plain(const char *s)
{
    for (const char *at = s; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ')
            die("'%s': can't be used", s);
    return s;
}

void write_all(int fd, const void *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n <= 0)
            die("write: %s", strerror(errno));
        data = (const char *)data + n;
        len -= (size_t)n;
    }
}

const char *own_dir(void)
{
    if (dir[0])
        return dir;
    text(dir, sizeof(dir), "%s/vf-floor-XXXXXX", opt.dir);
    if (!mkdtemp(dir)) {
        int e = errno;
        dir[0] = 0;
        die("%s: %s", opt.dir, strerror(e));
    }
    return dir;
}

/* ---- the two runs */

static void greet(void)
{
    if (v->connect)
        v->connect();
    agent_greet();
}

static void run_clone(void)
{
    int64_t t0 = now_us();
    v->up(true);
    int64_t t1 = now_us();
    v->restore();
    int64_t t2 = now_us();
    v->resume();
    int64_t t3 = now_us();
    greet();
    agent_renew();
    int64_t t4 = now_us();
    printf("vmm=%lld restore=%lld resume=%lld prove=%lld total=%lld", (long long)(t1 - t0),
           (long long)(t2 - t1), (long long)(t3 - t2), (long long)(t4 - t3), (long long)(t4 - t0));
    if (v->park_paused) {
        v->pause();
        int64_t t5 = now_us();
        v->resume();
        agent_renew();
        printf(" wake=%lld", (long long)(now_us() - t5));
    }
    putchar('\n');
    fflush(stdout);
    end();
}

/* Where a cold boot has its memory, and saves. */
static void prepare_cold(void)
{
    if (opt.keep) {
        text(save_dir, sizeof(save_dir), "%s", opt.keep);
        text(memory_file, sizeof(memory_file), "%s/memory", opt.keep);
        opt.memory_fd = open(memory_file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    } else {
        text(save_dir, sizeof(save_dir), "%s/saved", own_dir());
        if (mkdir(save_dir, 0700) < 0)
            die("%s: %s", save_dir, strerror(errno));
        text(memory_file, sizeof(memory_file), "%s",
             v->linked_memory ? "/dev/shm/vf-floor-XXXXXX" : "memory");
        opt.memory_fd = v->linked_memory ? mkostemp(memory_file, O_CLOEXEC)
                                         : memfd_create("floor", MFD_CLOEXEC);
        memory_is_ours = v->linked_memory && opt.memory_fd >= 0;
    }
    if (opt.memory_fd < 0 || ftruncate(opt.memory_fd, (off_t)(opt.memory_mib << 20)) < 0)
        die("%s: %s", memory_file, strerror(errno));
}

static void run_cold(void)
{
    prepare_cold();
    int64_t t0 = now_us();
    v->up(false);
    int64_t t1 = now_us();
    v->boot();
    greet();
    int64_t t2 = now_us();
    agent_renew();
    int64_t t3 = now_us();
    agent_freeze();
    v->pause();
    int64_t t4 = now_us();
    v->save();
    int64_t t5 = now_us();
    printf("vmm=%lld boot=%lld renew=%lld total=%lld save=%lld\n", (long long)(t1 - t0),
           (long long)(t2 - t1), (long long)(t3 - t2), (long long)(t3 - t0), (long long)(t5 - t4));
    fflush(stdout);
    end();
}

static void run_all(void (*run)(void))
{
    int64_t t0 = now_us();
    for (int i = 0; i < opt.parallel; i++) {
        pid_t p = fork();
        if (p < 0)
            die("fork: %s", strerror(errno));
        if (p == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            run();
            exit(0);
        }
    }
    int status, failed = 0;
    while (wait(&status) > 0)
        failed |= status;
    if (failed)
        exit(1);
    printf("wall=%lld\n", (long long)(now_us() - t0));
}

/* ---- options */

static uint64_t number(const char *name, const char *value)
{
    char *rest;
    errno = 0;
    uint64_t n = strtoull(value, &rest, 10);
    if (errno || *rest || rest == value)
        die("%s: '%s' is no number", name, value);
    return n;
}

static bool set_text(const char *name, const char *value)
{
    const struct {
        const char *name;
        const char **to;
    } texts[] = {{"--vmm", &opt.vmm},
                 {"--binary", &opt.binary},
                 {"--machine", &opt.machine},
                 {"--accel", &opt.accel},
                 {"--channel", &opt.channel_name},
                 {"--kernel", &opt.kernel},
                 {"--initrd", &opt.initrd},
                 {"--append", &opt.cmdline},
                 {"--state", &opt.state},
                 {"--keep", &opt.keep},
                 {"--dir", &opt.dir}};
    for (size_t k = 0; k < sizeof(texts) / sizeof(*texts); k++)
        if (strcmp(name, texts[k].name) == 0) {
            *texts[k].to = value;
            return true;
        }
    return false;
}

static void set(const char *name, const char *value)
{
    if (set_text(name, value))
        return;
    uint64_t n = number(name, value);
    if (strcmp(name, "--memory-mib") == 0)
        opt.memory_mib = n;
    else if (strcmp(name, "--memory-fd") == 0)
        opt.memory_fd = (int)n;
    else if (strcmp(name, "--parallel") == 0)
        opt.parallel = (int)n;
    else if (strcmp(name, "--nics") == 0)
        opt.nics = (int)n;
    else if (strcmp(name, "--port") == 0)
        opt.port = n;
    else
        die("unknown option '%s'", name);
}

/* Paths are seen from where this program was started, but the VMM may be started elsewhere. */
static void make_absolute(const char **path)
{
    if (*path && !(*path = realpath(*path, NULL)))
        die("a path can't be found: %s", strerror(errno));
}

static void check(bool clone)
{
    static const struct floor_vmm *const vmms[] = {&floor_qemu, &floor_cloud_hypervisor,
                                                   &floor_firecracker};
    for (size_t i = 0; i < 3; i++)
        if (strcmp(opt.vmm, vmms[i]->name) == 0)
            v = vmms[i];
    if (!v)
        die("--vmm: qemu, cloud-hypervisor or firecracker");
    opt.channel = strcmp(opt.channel_name, "serial") == 0  ? CHANNEL_SERIAL
                  : strcmp(opt.channel_name, "vsock") == 0 ? CHANNEL_VSOCK
                                                           : CHANNEL_VIRTIO_SERIAL;
    if ((v == &floor_qemu) != (opt.channel != CHANNEL_VSOCK) && opt.channel != CHANNEL_SERIAL)
        die("--channel %s: not with %s", opt.channel_name, opt.vmm);
    if (v != &floor_qemu && opt.nics)
        die("--nics: not with %s", opt.vmm);
    if (clone && (opt.memory_fd < 0 || !opt.state))
        die("clone needs --memory-fd and --state");
    if (!clone && !opt.kernel)
        die("cold needs --kernel");
    if (!opt.dir)
        opt.dir = getenv("TMPDIR");
    if (!opt.dir || opt.dir[0] != '/')
        opt.dir = "/tmp";
    make_absolute(&opt.dir);
    make_absolute(&opt.kernel);
    make_absolute(&opt.initrd);
    make_absolute(&opt.state);
    make_absolute(&opt.keep);
}

int main(int argc, char **argv)
{
    static const char usage[] = "usage: vmfactory-floor clone|cold --binary FILE [--option VALUE]…";
    if (argc < 2 || argc % 2)
        die("%s", usage);
    for (int i = 2; i + 1 < argc; i += 2)
        set(argv[i], argv[i + 1]);
    bool clone = strcmp(argv[1], "clone") == 0;
    if ((!clone && strcmp(argv[1], "cold") != 0) || !opt.binary)
        die("%s", usage);
    check(clone);
    signal(SIGPIPE, SIG_IGN);
    if (opt.parallel > 1)
        run_all(clone ? run_clone : run_cold);
    else if (clone)
        run_clone();
    else
        run_cold();
    return 0;
}

/* vmfactory-floor: the least that could do what the factory does. One process, plain blocking system calls,
 * nothing around them: no loop, no deadlines, no proofs kept, no cleanup but the kernel's. The benchmark
 * runs it in turn with the factory and gives the ratio.
 *
 *   vmfactory-floor clone OPTIONS    VMM up, restore, cont, hello + renew; then stop, cont + renew
 *   vmfactory-floor cold OPTIONS     VMM up, boot, hello, renew; then freeze, stop, save
 *
 * Prints one line of "name=µs" pairs per VM, for clone: vmm restore resume prove total wake; for cold: vmm boot
 * renew total save. --parallel N starts N processes of itself at the same moment and prints a line of each, then
 * "wall=µs", the time until the last was done.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/wire.h"

static struct {
    const char *qemu, *machine, *accel, *channel, *kernel, *initrd, *cmdline, *state;
    uint64_t memory_mib;
    int memory_fd, parallel, nics;
} opt = {.machine = "microvm",
         .accel = "tcg",
         .channel = "virtio-serial",
         .memory_fd = -1,
         .parallel = 1,
         .memory_mib = 256};

static pid_t vmm;

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("vmfactory-floor: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    if (vmm > 0)
        kill(vmm, SIGKILL);
    exit(1);
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t realtime_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- QMP, by hand */

static int qmp_fd, agent_fd;
static char line[65536];
static size_t line_len;

static void write_all(int fd, const void *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n <= 0)
            die("write: %s", strerror(errno));
        data = (const char *)data + n;
        len -= (size_t)n;
    }
}

/* Reads lines until one holds text. */
static void qmp_wait(const char *text)
{
    for (;;) {
        char *nl = memchr(line, '\n', line_len);
        while (!nl) {
            ssize_t n = read(qmp_fd, line + line_len, sizeof(line) - 1 - line_len);
            if (n <= 0)
                die("QMP: closed while waiting for %s", text);
            line_len += (size_t)n;
            nl = memchr(line, '\n', line_len);
        }
        *nl = 0;
        int hit = strstr(line, text) != NULL;
        if (strstr(line, "\"error\""))
            die("QMP: %s", line);
        size_t used = (size_t)(nl + 1 - line);
        memmove(line, nl + 1, line_len - used);
        line_len -= used;
        if (hit)
            return;
    }
}

static void qmp(const char *text)
{
    write_all(qmp_fd, text, strlen(text));
}

static void qmp_getfd(int fd)
{
    const char *text = "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"state\"}}\n";
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {(void *)text, strlen(text)};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof(control)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    if (sendmsg(qmp_fd, &m, 0) < 0)
        die("sendmsg: %s", strerror(errno));
    qmp_wait("\"return\"");
}

/* ---- the agent, by hand */

static struct vf_wire_reader reader;

static void agent_wait(enum vf_msg type)
{
    static uint8_t buf[65536];
    static size_t have, used;
    for (;;) {
        while (used < have) {
            struct vf_wire_frame f;
            used += vf_wire_feed(&reader, buf + used, have - used, &f);
            if (f.type == type)
                return;
        }
        ssize_t n = read(agent_fd, buf, sizeof(buf));
        if (n <= 0)
            die("agent: closed");
        have = (size_t)n;
        used = 0;
    }
}

static size_t hello(uint8_t *out)
{
    struct vf_wire_writer w;
    out[0] = 0;
    vf_wire_start(&w, VF_MSG_HELLO, 1);
    return 1 + vf_wire_end(&w, out + 1);
}

static size_t renew(uint8_t *out)
{
    struct vf_wire_writer w;
    uint8_t random[64 + 16];
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        die("getrandom");
    vf_wire_start(&w, VF_MSG_RENEW, 2);
    vf_wire_put(&w, VF_TAG_ENTROPY, random, 64);
    vf_wire_put(&w, VF_TAG_MACHINE_ID, random + 64, 16);
    vf_wire_put(&w, VF_TAG_HOSTNAME, "floor-0123456789", 16);
    if (opt.nics) {
        random[0] = 2; /* locally administered, unicast */
        vf_wire_put(&w, VF_TAG_MAC, random, 6);
    }
    vf_wire_put_i64(&w, VF_TAG_TIME, realtime_ns());
    return vf_wire_end(&w, out);
}

/* A UART drops what comes before the guest listens: say hello again until it answers. */
static void greet(void)
{
    uint8_t out[VF_WIRE_MAX_FRAME];
    size_t n = hello(out);
    struct pollfd p = {.fd = agent_fd, .events = POLLIN};
    do
        write_all(agent_fd, out, n);
    while (poll(&p, 1, opt.channel[0] == 's' ? 50 : -1) == 0);
    agent_wait(VF_MSG_HELLO_OK);
}

static void hello_and_renew(void)
{
    uint8_t out[VF_WIRE_MAX_FRAME];
    greet();
    /* Not before: a time that was sent to a guest that still wakes up is old when it is read. */
    write_all(agent_fd, out, renew(out));
    agent_wait(VF_MSG_RENEW_OK);
}

/* ---- QEMU */

static void start_qemu(int incoming)
{
    int q[2], a[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, q) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a) < 0)
        die("socketpair: %s", strerror(errno));
    char ram[160], size[32], mon[64], chan[64], machine[96];
    const char *suffix = strcmp(opt.machine, "q35") == 0 ? "pci" : "device";
    snprintf(machine, sizeof(machine), "%s%s,memory-backend=ram", opt.machine,
             suffix[0] == 'p' ? ",vmport=off,smbus=off,usb=off,graphics=off" : ",acpi=on,rtc=on");
    snprintf(size, sizeof(size), "%lluM", (unsigned long long)opt.memory_mib);
    snprintf(ram, sizeof(ram),
             "memory-backend-file,id=ram,size=%s,mem-path=/proc/self/fd/%d,share=%s", size,
             opt.memory_fd, incoming ? "off" : "on");
    snprintf(mon, sizeof(mon), "socket,id=qmp,fd=%d", q[1]);
    snprintf(chan, sizeof(chan), "socket,id=agent,fd=%d", a[1]);
    const char *argv[64] = {
        opt.qemu,
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-M",
        machine,
        "-accel",
        opt.accel,
        "-cpu",
        strcmp(opt.accel, "kvm") == 0 ? "host" : "max",
        "-smp",
        "1",
        "-m",
        size,
        "-object",
        ram,
        "-chardev",
        mon,
        "-mon",
        "chardev=qmp,mode=control",
        "-object",
        "rng-builtin,id=rng",
        "-chardev",
        chan};
    int n = 0;
    while (argv[n])
        n++;
    char serial_dev[48], rng_dev[48];
    snprintf(serial_dev, sizeof(serial_dev), "virtio-serial-%s,id=vserial", suffix);
    snprintf(rng_dev, sizeof(rng_dev), "virtio-rng-%s,rng=rng", suffix);
    if (opt.channel[0] == 's') {
        argv[n++] = "-serial";
        argv[n++] = "chardev:agent";
    } else {
        argv[n++] = "-serial";
        argv[n++] = "null";
        argv[n++] = "-device";
        argv[n++] = serial_dev;
        argv[n++] = "-device";
        argv[n++] = "virtserialport,chardev=agent,name=vf.agent";
    }
    argv[n++] = "-device";
    argv[n++] = rng_dev;
    if (opt.nics) {
        argv[n++] = "-device";
        argv[n++] =
            suffix[0] == 'p' ? "virtio-net-pci,id=nic0,romfile=" : "virtio-net-device,id=nic0";
    }
    if (incoming) {
        argv[n++] = "-incoming";
        argv[n++] = "defer";
    } else {
        argv[n++] = "-kernel";
        argv[n++] = opt.kernel;
        if (opt.initrd) {
            argv[n++] = "-initrd";
            argv[n++] = opt.initrd;
        }
        if (opt.cmdline) {
            argv[n++] = "-append";
            argv[n++] = opt.cmdline;
        }
    }
    vmm = vfork();
    if (vmm == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fcntl(q[1], F_SETFD, 0);
        fcntl(a[1], F_SETFD, 0);
        fcntl(opt.memory_fd, F_SETFD, 0);
        execv(opt.qemu, (char **)argv);
        _exit(127);
    }
    if (vmm < 0)
        die("vfork: %s", strerror(errno));
    close(q[1]);
    close(a[1]);
    qmp_fd = q[0];
    agent_fd = a[0];
    qmp_wait("\"QMP\"");
    qmp("{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"migrate-set-capabilities\","
        "\"arguments\":"
        "{\"capabilities\":[{\"capability\":\"events\",\"state\":true},"
        "{\"capability\":\"x-ignore-shared\",\"state\":true}]}}\n");
    qmp_wait("\"return\"");
    qmp_wait("\"return\"");
}

static void end_qemu(void)
{
    kill(vmm, SIGKILL);
    waitpid(vmm, NULL, 0);
}

static void run_clone(void)
{
    int state = open(opt.state, O_RDONLY | O_CLOEXEC);
    if (state < 0)
        die("%s: %s", opt.state, strerror(errno));
    int64_t t0 = now_us();
    start_qemu(1);
    int64_t t1 = now_us();
    qmp_getfd(state);
    qmp("{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:state\"}}\n");
    qmp_wait("\"completed\"");
    int64_t t2 = now_us();
    qmp("{\"execute\":\"cont\",\"id\":1}\n");
    qmp_wait("\"id\": 1");
    int64_t t3 = now_us();
    hello_and_renew();
    int64_t t4 = now_us();
    qmp("{\"execute\":\"stop\",\"id\":2}\n");
    qmp_wait("\"id\": 2");
    int64_t t5 = now_us();
    uint8_t out[VF_WIRE_MAX_FRAME];
    qmp("{\"execute\":\"cont\",\"id\":3}\n");
    qmp_wait("\"id\": 3");
    write_all(agent_fd, out, renew(out));
    agent_wait(VF_MSG_RENEW_OK);
    int64_t t6 = now_us();
    printf("vmm=%lld restore=%lld resume=%lld prove=%lld total=%lld wake=%lld\n",
           (long long)(t1 - t0), (long long)(t2 - t1), (long long)(t3 - t2), (long long)(t4 - t3),
           (long long)(t4 - t0), (long long)(t6 - t5));
    fflush(stdout);
    end_qemu();
}

static void run_cold(void)
{
    uint8_t out[VF_WIRE_MAX_FRAME];
    struct vf_wire_writer w;
    opt.memory_fd = memfd_create("floor", MFD_CLOEXEC);
    if (opt.memory_fd < 0 || ftruncate(opt.memory_fd, (off_t)(opt.memory_mib << 20)) < 0)
        die("memfd: %s", strerror(errno));
    int state = memfd_create("state", MFD_CLOEXEC);
    int64_t t0 = now_us();
    start_qemu(0);
    int64_t t1 = now_us();
    greet();
    int64_t t2 = now_us();
    write_all(agent_fd, out, renew(out));
    agent_wait(VF_MSG_RENEW_OK);
    int64_t t3 = now_us();
    vf_wire_start(&w, VF_MSG_FREEZE, 3);
    write_all(agent_fd, out, vf_wire_end(&w, out));
    agent_wait(VF_MSG_FREEZE_OK);
    qmp("{\"execute\":\"stop\",\"id\":2}\n");
    qmp_wait("\"id\": 2");
    int64_t t4 = now_us();
    qmp_getfd(state);
    qmp("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"fd:state\"}}\n");
    qmp_wait("\"completed\"");
    int64_t t5 = now_us();
    printf("vmm=%lld boot=%lld renew=%lld total=%lld save=%lld\n", (long long)(t1 - t0),
           (long long)(t2 - t1), (long long)(t3 - t2), (long long)(t3 - t0), (long long)(t5 - t4));
    fflush(stdout);
    end_qemu();
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

static uint64_t number(const char *name, const char *text)
{
    char *end;
    errno = 0;
    uint64_t v = strtoull(text, &end, 10);
    if (errno || *end || end == text)
        die("%s: '%s' is no number", name, text);
    return v;
}

int main(int argc, char **argv)
{
    const struct {
        const char *name;
        const char **to;
    } texts[] = {{"--qemu", &opt.qemu},      {"--machine", &opt.machine},
                 {"--accel", &opt.accel},    {"--channel", &opt.channel},
                 {"--kernel", &opt.kernel},  {"--initrd", &opt.initrd},
                 {"--append", &opt.cmdline}, {"--state", &opt.state}};
    if (argc < 2)
        die("usage: vmfactory-floor clone|cold --qemu FILE [--option VALUE]…");
    for (int i = 2; i + 1 < argc; i += 2) {
        size_t k = 0;
        while (k < sizeof(texts) / sizeof(*texts) && strcmp(argv[i], texts[k].name) != 0)
            k++;
        if (k < sizeof(texts) / sizeof(*texts))
            *texts[k].to = argv[i + 1];
        else if (strcmp(argv[i], "--memory-mib") == 0)
            opt.memory_mib = number(argv[i], argv[i + 1]);
        else if (strcmp(argv[i], "--memory-fd") == 0)
            opt.memory_fd = (int)number(argv[i], argv[i + 1]);
        else if (strcmp(argv[i], "--parallel") == 0)
            opt.parallel = (int)number(argv[i], argv[i + 1]);
        else if (strcmp(argv[i], "--nics") == 0)
            opt.nics = (int)number(argv[i], argv[i + 1]);
        else
            die("unknown option '%s'", argv[i]);
    }
    int clone = strcmp(argv[1], "clone") == 0;
    if ((!clone && strcmp(argv[1], "cold") != 0) || !opt.qemu)
        die("usage: vmfactory-floor clone|cold --qemu FILE [--option VALUE]…");
    if (clone && (opt.memory_fd < 0 || !opt.state))
        die("clone needs --memory-fd and --state");
    if (!clone && !opt.kernel)
        die("cold needs --kernel");
    signal(SIGPIPE, SIG_IGN);
    if (opt.parallel > 1)
        run_all(clone ? run_clone : run_cold);
    else if (clone)
        run_clone();
    else
        run_cold();
    return 0;
}

/* QEMU, asked by QMP on an inherited socket pair; the agent's channel is another. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tools/floor/floor.h"

static int qmp_fd, state_fd = -1;
static char line[65536];
static size_t line_len;

/* Reads lines until one holds text. */
static void qmp_wait(const char *wanted)
{
    for (;;) {
        char *nl = memchr(line, '\n', line_len);
        while (!nl) {
            ssize_t n = read(qmp_fd, line + line_len, sizeof(line) - 1 - line_len);
            if (n <= 0)
                die("QMP: closed while waiting for %s", wanted);
            line_len += (size_t)n;
            nl = memchr(line, '\n', line_len);
        }
        *nl = 0;
        bool hit = strstr(line, wanted) != NULL;
        if (strstr(line, "\"error\""))
            die("QMP: %s", line);
        size_t used = (size_t)(nl + 1 - line);
        memmove(line, nl + 1, line_len - used);
        line_len -= used;
        if (hit)
            return;
    }
}

static void qmp(const char *command)
{
    write_all(qmp_fd, command, strlen(command));
}

static void qmp_getfd(int fd)
{
    const char *command = "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"state\"}}\n";
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {(void *)command, strlen(command)};
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

static int add(const char **argv, int n, const char *name, const char *value)
{
    if (value) {
        argv[n++] = name;
        argv[n++] = value;
    }
    return n;
}

static int add_devices(const char **argv, int n, bool pci)
{
    if (opt.channel == CHANNEL_SERIAL)
        n = add(argv, n, "-serial", "chardev:agent");
    else {
        n = add(argv, n, "-serial", "null");
        n = add(argv, n, "-device",
                pci ? "virtio-serial-pci,id=vserial" : "virtio-serial-device,id=vserial");
        n = add(argv, n, "-device", "virtserialport,chardev=agent,name=vf.agent");
    }
    n = add(argv, n, "-device", pci ? "virtio-rng-pci,rng=rng" : "virtio-rng-device,rng=rng");
    if (opt.nics)
        n = add(argv, n, "-device",
                pci ? "virtio-net-pci,id=nic0,romfile=" : "virtio-net-device,id=nic0");
    return n;
}

static void spawn(const char **argv, int monitor, int agent)
{
    vmm = vfork();
    if (vmm == 0) {
        become_leader();
        fcntl(monitor, F_SETFD, 0);
        fcntl(agent, F_SETFD, 0);
        fcntl(opt.memory_fd, F_SETFD, 0);
        execv(opt.binary, (char **)argv);
        _exit(127);
    }
    if (vmm < 0)
        die("vfork: %s", strerror(errno));
    close(monitor);
    close(agent);
}

static void up(bool incoming)
{
    int q[2], a[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, q) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a) < 0)
        die("socketpair: %s", strerror(errno));
    char ram[160], size[32], mon[64], chan[64], machine[96];
    bool pci = strcmp(opt.machine, "q35") == 0;
    text(machine, sizeof(machine), "%s%s,memory-backend=ram", opt.machine,
         pci ? ",vmport=off,smbus=off,usb=off,graphics=off" : ",acpi=on,rtc=on");
    text(size, sizeof(size), "%lluM", (unsigned long long)opt.memory_mib);
    text(ram, sizeof(ram), "memory-backend-file,id=ram,size=%s,mem-path=/proc/self/fd/%d,share=%s",
         size, opt.memory_fd, incoming ? "off" : "on");
    text(mon, sizeof(mon), "socket,id=qmp,fd=%d", q[1]);
    text(chan, sizeof(chan), "socket,id=agent,fd=%d", a[1]);
    const char *argv[64] = {
        opt.binary,
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
    n = add_devices(argv, n, pci);
    if (incoming)
        add(argv, n, "-incoming", "defer");
    else {
        n = add(argv, n, "-kernel", opt.kernel);
        n = add(argv, n, "-initrd", opt.initrd);
        add(argv, n, "-append", opt.cmdline);
    }
    spawn(argv, q[1], a[1]);
    qmp_fd = q[0];
    agent_use(a[0], a[0]);
    qmp_wait("\"QMP\"");
    qmp("{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"migrate-set-capabilities\","
        "\"arguments\":"
        "{\"capabilities\":[{\"capability\":\"events\",\"state\":true},"
        "{\"capability\":\"x-ignore-shared\",\"state\":true}]}}\n");
    qmp_wait("\"return\"");
    qmp_wait("\"return\"");
}

static void boot(void)
{
    /* It began as QEMU came up. */
}

static void restore(void)
{
    state_fd = open(opt.state, O_RDONLY | O_CLOEXEC);
    if (state_fd < 0)
        die("%s: %s", opt.state, strerror(errno));
    qmp_getfd(state_fd);
    qmp("{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:state\"}}\n");
    qmp_wait("\"completed\"");
}

static void resume(void)
{
    qmp("{\"execute\":\"cont\",\"id\":1}\n");
    qmp_wait("\"id\": 1");
}

static void pause_it(void)
{
    qmp("{\"execute\":\"stop\",\"id\":2}\n");
    qmp_wait("\"id\": 2");
}

static void save(void)
{
    char path[4096];
    text(path, sizeof(path), "%s/state", save_dir);
    state_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (state_fd < 0)
        die("%s: %s", path, strerror(errno));
    qmp_getfd(state_fd);
    qmp("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"fd:state\"}}\n");
    qmp_wait("\"completed\"");
}

const struct floor_vmm floor_qemu = {.name = "qemu",
                                     .park_paused = true,
                                     .up = up,
                                     .boot = boot,
                                     .restore = restore,
                                     .resume = resume,
                                     .pause = pause_it,
                                     .save = save};

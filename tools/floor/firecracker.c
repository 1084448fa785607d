/* Firecracker, asked over HTTP on one connection. It makes its socket itself: its directory is watched until that is
 * there. COM1 is its stdin and stdout, two FIFOs; the agent's channel, unless that is vsock. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "tools/floor/floor.h"

#define START_MS 10000

static int open_fifo(const char *name, int flags)
{
    char path[4096];
    text(path, sizeof(path), "%s/%s", own_dir(), name);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        die("%s: %s", path, strerror(errno));
    return fd;
}

static void make_fifo(const char *name)
{
    char path[4096];
    text(path, sizeof(path), "%s/%s", own_dir(), name);
    if (mkfifo(path, 0600) < 0)
        die("%s: %s", path, strerror(errno));
}

/* Each end is opened for itself: it makes its own ones non-blocking. */
static void spawn(void)
{
    const char *dir = own_dir();
    const char *argv[] = {opt.binary, "--api-sock", "api.sock",  "--level",
                          "Error",    "--log-path", "/dev/null", NULL};
    make_fifo("agent.in");
    make_fifo("agent.out");
    int tx = open_fifo("agent.in", O_RDWR), its_in = open_fifo("agent.in", O_RDONLY);
    int rx = open_fifo("agent.out", O_RDONLY | O_NONBLOCK);
    int its_out = open_fifo("agent.out", O_WRONLY);
    fcntl(rx, F_SETFL, 0);
    vmm = vfork();
    if (vmm == 0) {
        become_leader();
        dup2(its_in, 0);
        dup2(its_out, 1);
        fcntl(opt.memory_fd, F_SETFD, 0);
        if (chdir(dir) == 0)
            execv(opt.binary, (char **)argv);
        _exit(127);
    }
    if (vmm < 0)
        die("vfork: %s", strerror(errno));
    close(its_in);
    close(its_out);
    agent_use(rx, tx);
}

static void await_socket(int watch)
{
    struct pollfd p = {.fd = watch, .events = POLLIN};
    char events[4096], path[4096];
    text(path, sizeof(path), "%s/api.sock", own_dir());
    while (access(path, F_OK) < 0)
        if (poll(&p, 1, START_MS) != 1 || read(watch, events, sizeof(events)) <= 0)
            die("%s: no socket within %d ms", opt.binary, START_MS);
}

static void connect_api(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    text(addr.sun_path, sizeof(addr.sun_path), "%s/api.sock", own_dir());
    for (int64_t until = now_us() + START_MS * 1000;
         fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0; sched_yield())
        if (errno != ECONNREFUSED || now_us() > until) /* it is bound, and listens at once */
            die("%s: %s", addr.sun_path, strerror(errno));
    http_to(&addr, sizeof(addr), fd);
}

static void up(bool incoming)
{
    (void)incoming;
    int watch = inotify_init1(IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, own_dir(), IN_CREATE) < 0)
        die("inotify: %s", strerror(errno));
    spawn();
    await_socket(watch); /* stays open: closing it takes the kernel some ms */
    connect_api();
    http("GET", "/version", NULL);
}

static void boot(void)
{
    char body[16384], initrd[4200] = "", cmdline[8300] = "";
    text(body, sizeof(body), "{\"vcpu_count\":1,\"mem_size_mib\":%llu}",
         (unsigned long long)opt.memory_mib);
    http("PUT", "/machine-config", body);
    if (opt.initrd)
        text(initrd, sizeof(initrd), ",\"initrd_path\":\"%s\"", plain(opt.initrd));
    if (opt.cmdline)
        text(cmdline, sizeof(cmdline), ",\"boot_args\":\"%s\"", plain(opt.cmdline));
    text(body, sizeof(body), "{\"kernel_image_path\":\"%s\"%s%s}", plain(opt.kernel), initrd,
         cmdline);
    http("PUT", "/boot-source", body);
    if (opt.channel == CHANNEL_VSOCK)
        http("PUT", "/vsock", "{\"guest_cid\":3,\"uds_path\":\"vsock.sock\"}");
    http("PUT", "/actions", "{\"action_type\":\"InstanceStart\"}");
}

static void connect_agent(void)
{
    if (opt.channel == CHANNEL_VSOCK)
        agent_connect("vsock.sock", true);
}

static void restore(void)
{
    char body[8192];
    text(body, sizeof(body),
         "{\"snapshot_path\":\"%s\",\"mem_backend\":{\"backend_type\":\"File\","
         "\"backend_path\":\"/proc/self/fd/%d\"}}",
         plain(opt.state), opt.memory_fd);
    http("PUT", "/snapshot/load", body);
}

static void resume(void)
{
    http("PATCH", "/vm", "{\"state\":\"Resumed\"}");
}

static void pause_it(void)
{
    http("PATCH", "/vm", "{\"state\":\"Paused\"}");
}

/* Only the pages that there are; versions before 1.13 can't, and write them all. */
static void save(void)
{
    char body[2][8192];
    for (int i = 0; i < 2; i++)
        text(body[i], sizeof(body[i]),
             "{\"snapshot_type\":\"%s\",\"snapshot_path\":\"%s/state\","
             "\"mem_file_path\":\"/proc/self/fd/%d\"}",
             i ? "Full" : "Diff", plain(save_dir), opt.memory_fd);
    if (!http_try("PUT", "/snapshot/create", body[0]))
        http("PUT", "/snapshot/create", body[1]);
}

const struct floor_vmm floor_firecracker = {.name = "firecracker",
                                            .up = up,
                                            .boot = boot,
                                            .restore = restore,
                                            .connect = connect_agent,
                                            .resume = resume,
                                            .pause = pause_it,
                                            .save = save};

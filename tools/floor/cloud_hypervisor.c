/* Cloud Hypervisor, asked over HTTP, a connection for each request. Its socket listens before it is started, so that
 * nothing has to be waited for. A clone restores from a directory of its own: the template's state.json, and its
 * config.json with the memory private, and this VM's paths. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "tools/floor/floor.h"

#define API "/api/v1/"
#define MAX_CONFIG 65536

/* The kernel chooses an abstract address. */
static int listen_for_it(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(addr.sun_family);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, len) < 0 || listen(fd, 8) < 0)
        die("listening socket: %s", strerror(errno));
    len = sizeof(addr);
    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
        die("getsockname: %s", strerror(errno));
    http_to(&addr, len, -1);
    return fd;
}

static void spawn(int listener)
{
    char api[32];
    text(api, sizeof(api), "fd=%d", listener);
    const char *argv[] = {opt.binary, "--api-socket", api, NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    vmm = vfork();
    if (vmm == 0) {
        become_leader();
        dup2(null, 0);
        dup2(null, 1);
        fcntl(listener, F_SETFD, 0);
        fcntl(opt.memory_fd, F_SETFD, 0);
        execv(opt.binary, (char **)argv);
        _exit(127);
    }
    if (vmm < 0)
        die("vfork: %s", strerror(errno));
    close(null);
    close(listener); /* so that a connection ends with it */
}

/* ---- the clone's config.json */

static char config[MAX_CONFIG];

/* Puts value instead of what lies between the end of key and the next of until, after section. */
static bool replace(const char *section, const char *key, const char *until, const char *value)
{
    char *at = strstr(config, section);
    at = at ? strstr(at, key) : NULL;
    if (!at)
        return false;
    at += strlen(key);
    char *rest = at + strcspn(at, until);
    size_t len = strlen(value), rest_len = strlen(rest) + 1;
    if ((size_t)(at - config) + len + rest_len > sizeof(config))
        die("config.json: too long");
    memmove(at + len, rest, rest_len);
    memcpy(at, value, len);
    return true;
}

static void read_config(void)
{
    char path[4096];
    text(path, sizeof(path), "%s/config.json", opt.state);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, config, sizeof(config));
    if (n < 0 || n == sizeof(config))
        die("%s: %s", path, n < 0 ? strerror(errno) : "too long");
    config[n] = 0;
    close(fd);
}

static void write_config(void)
{
    char path[4096];
    text(path, sizeof(path), "%s/config.json", own_dir());
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        die("%s: %s", path, strerror(errno));
    write_all(fd, config, strlen(config));
    close(fd);
}

static void prepare_clone(void)
{
    char memory[64], channel[4096], from[4096], to[4096];
    text(memory, sizeof(memory), "/proc/self/fd/%d", opt.memory_fd);
    text(channel, sizeof(channel), "%s/agent.sock", plain(own_dir()));
    read_config();
    if (!replace("\"zones\":[", "\"file\":\"", "\"", memory) ||
        !replace("\"zones\":[", "\"shared\":", ",}", "false"))
        die("%s/config.json: no memory zone with a file", opt.state);
    if (!replace(opt.channel == CHANNEL_VSOCK ? "\"vsock\":{" : "\"serial\":{", "\"socket\":\"",
                 "\"", channel))
        die("%s/config.json: no socket of the agent's channel", opt.state);
    write_config();
    text(from, sizeof(from), "%s/state.json", opt.state);
    text(to, sizeof(to), "%s/state.json", own_dir());
    if (symlink(from, to) < 0)
        die("%s: %s", to, strerror(errno));
}

/* ---- the steps */

static void up(bool incoming)
{
    spawn(listen_for_it());
    if (incoming)
        prepare_clone(); /* while it starts */
    http("GET", API "vmm.ping", NULL);
}

static void boot(void)
{
    char body[16384], initrd[4200] = "", cmdline[8300] = "", channel[4300];
    if (opt.initrd)
        text(initrd, sizeof(initrd), ",\"initramfs\":\"%s\"", plain(opt.initrd));
    if (opt.cmdline)
        text(cmdline, sizeof(cmdline), ",\"cmdline\":\"%s\"", plain(opt.cmdline));
    text(channel, sizeof(channel),
         opt.channel == CHANNEL_VSOCK
             ? "\"vsock\":{\"cid\":3,\"socket\":\"%s/agent.sock\"},\"serial\":{\"mode\":\"Off\"}"
             : "\"serial\":{\"mode\":\"Socket\",\"socket\":\"%s/agent.sock\"}",
         plain(own_dir()));
    text(body, sizeof(body),
         "{\"cpus\":{\"boot_vcpus\":1,\"max_vcpus\":1},\"memory\":{\"size\":0,\"zones\":[{\"id\":"
         "\"mem0\",\"size\":%llu,\"file\":\"%s\",\"shared\":true}]},"
         "\"payload\":{\"kernel\":\"%s\"%s%s},%s,\"console\":{\"mode\":\"Off\"}}",
         (unsigned long long)opt.memory_mib << 20, plain(memory_file), plain(opt.kernel), initrd,
         cmdline, channel);
    http("PUT", API "vm.create", body);
    http("PUT", API "vm.boot", NULL);
}

static void connect_agent(void)
{
    agent_connect("agent.sock", opt.channel == CHANNEL_VSOCK);
}

static void restore(void)
{
    char body[4300];
    text(body, sizeof(body), "{\"source_url\":\"file://%s\"}", plain(own_dir()));
    http("PUT", API "vm.restore", body);
}

static void resume(void)
{
    http("PUT", API "vm.resume", NULL);
}

static void pause_it(void)
{
    http("PUT", API "vm.pause", NULL);
}

static void save(void)
{
    char body[4300];
    text(body, sizeof(body), "{\"destination_url\":\"file://%s\"}", plain(save_dir));
    http("PUT", API "vm.snapshot", body);
}

const struct floor_vmm floor_cloud_hypervisor = {.name = "cloud-hypervisor",
                                                 .linked_memory = true,
                                                 .park_paused = true,
                                                 .up = up,
                                                 .boot = boot,
                                                 .restore = restore,
                                                 .connect = connect_agent,
                                                 .resume = resume,
                                                 .pause = pause_it,
                                                 .save = save};

/* Channels that the host connects to: vsock, and a unix socket for trying the agent out.
 *
 *     listen -> accept -> (another connection, or the end of this one) -> accept ...
 *
 * A vsock is for the host: others who connect are turned away. The host has one connection, and a new one takes the
 * place of the one before: after a restore, or when the host's program restarts, nobody is at the other end of that
 * any more. While there is none the agent waits.
 */
#include "tools/agent/agent.h"
#include <errno.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 8

static int listener = -1;

/* The port of "vsock" or "vsock:PORT"; 0 if spec is neither. */
static uint32_t port_of(const char *spec)
{
    char *end;

    if (strcmp(spec, "vsock") == 0)
        return VF_WIRE_VSOCK_PORT;
    if (strncmp(spec, "vsock:", 6) != 0 || spec[6] < '0' || spec[6] > '9')
        return 0;
    errno = 0;
    unsigned long port = strtoul(spec + 6, &end, 10);
    return *end || errno || port >= VMADDR_PORT_ANY ? 0 : (uint32_t)port;
}

static bool is_unix(const char *spec)
{
    size_t len = strlen(spec);

    return strncmp(spec, "unix:", 5) == 0 && len > 5 &&
           len - 5 < sizeof(((struct sockaddr_un *)NULL)->sun_path);
}

bool listen_is_for(const char *spec)
{
    return port_of(spec) != 0 || is_unix(spec);
}

/* Until the kernel has the module there is no such address family. */
static bool open_socket(void *arg)
{
    listener = socket(*(int *)arg, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return listener >= 0;
}

static int bind_to(const char *spec)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_vm vm = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};

    vm.svm_port = port_of(spec);
    if (vm.svm_port != 0)
        return bind(listener, (struct sockaddr *)&vm, sizeof(vm));
    strcpy(un.sun_path, spec + 5);
    return bind(listener, (struct sockaddr *)&un, sizeof(un));
}

int listen_open(const char *spec, int epoll_fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = TAG_LISTENER};
    int family = is_unix(spec) ? AF_UNIX : AF_VSOCK;

    if (listener >= 0)
        return 0;
    if (!wait_for_device(open_socket, &family, 5000)) {
        say("waiting for the channel %s: %s", spec, strerror(errno));
        wait_for_device(open_socket, &family, -1);
    }
    if (bind_to(spec) == 0 && listen(listener, BACKLOG) == 0 &&
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev) == 0)
        return 0;
    int err = -errno;
    close(listener);
    listener = -1;
    return err;
}

/* Not any user of the guest, who can connect to the guest itself (vsock_loopback): whoever is heard is root by it. Root
 * has a port below 1024, and loses nothing. To a unix socket its owner alone can connect. */
static bool is_host(const struct sockaddr_vm *peer)
{
    if (peer->svm_family != AF_VSOCK || peer->svm_cid == VMADDR_CID_HOST)
        return true;
    return peer->svm_cid == VMADDR_CID_LOCAL && peer->svm_port < 1024;
}

int listen_accept(void)
{
    int fd = -1;

    /* Of several the last is the one that somebody still has. The rest of a flood is the next event's. */
    for (int i = 0; i < 2 * BACKLOG; i++) {
        union {
            struct sockaddr any;
            struct sockaddr_un un;
            struct sockaddr_vm vm;
        } peer = {0};
        socklen_t len = sizeof(peer);
        int next = accept4(listener, &peer.any, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (next < 0 && errno != EINTR && errno != ECONNABORTED)
            break;
        if (next >= 0 && is_host(&peer.vm)) {
            if (fd >= 0)
                close(fd);
            fd = next;
        } else if (next >= 0)
            close(next);
    }
    return fd;
}

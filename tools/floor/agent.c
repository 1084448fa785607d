/* The agent, by hand: one request, then read until its answer is there. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/wire.h"
#include "tools/floor/floor.h"

#define HELLO_AGAIN_MS 50
/* While a guest boots, its vsock refuses, or says nothing. */
#define CONNECT_MS 50
#define CONNECT_PAUSE_US 200
#define LISTEN_MS 20000

static int rx = -1, tx = -1;
static struct vf_wire_reader reader;

void agent_use(int rx_fd, int tx_fd)
{
    rx = rx_fd;
    tx = tx_fd;
}

static int connect_socket(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    text(addr.sun_path, sizeof(addr.sun_path), "%s/%s", own_dir(), name);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        die("%s: %s", addr.sun_path, strerror(errno));
    return fd;
}

/* Reads the line byte by byte, for what follows it is the guest's. False if the guest does not listen. */
static bool reaches_guest(int fd)
{
    char line[64], c = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    text(line, sizeof(line), "CONNECT %llu\n", (unsigned long long)opt.port);
    write_all(fd, line, strlen(line));
    for (size_t n = 0; c != '\n'; line[n++] = c)
        if (poll(&p, 1, CONNECT_MS) != 1 || read(fd, &c, 1) != 1 || n == sizeof(line) - 1)
            return false;
    return strncmp(line, "OK ", 3) == 0;
}

void agent_connect(const char *name, bool vsock)
{
    int64_t until = now_us() + LISTEN_MS * 1000;
    int fd = connect_socket(name);
    while (vsock && !reaches_guest(fd)) {
        if (now_us() > until)
            die("vsock: the guest does not listen on port %llu", (unsigned long long)opt.port);
        close(fd);
        usleep(CONNECT_PAUSE_US);
        fd = connect_socket(name);
    }
    agent_use(fd, fd);
}

static void await(enum vf_msg type)
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
        ssize_t n = read(rx, buf, sizeof(buf));
        if (n <= 0)
            die("agent: closed");
        have = (size_t)n;
        used = 0;
    }
}

/* A UART drops what comes before the guest listens: say hello again until it answers. */
void agent_greet(void)
{
    uint8_t out[1 + VF_WIRE_MAX_FRAME];
    struct vf_wire_writer w;
    out[0] = 0;
    vf_wire_start(&w, VF_MSG_HELLO, 1);
    size_t n = 1 + vf_wire_end(&w, out + 1);
    struct pollfd p = {.fd = rx, .events = POLLIN};
    do
        write_all(tx, out, n);
    while (poll(&p, 1, opt.channel == CHANNEL_SERIAL ? HELLO_AGAIN_MS : -1) == 0);
    await(VF_MSG_HELLO_OK);
}

/* Sent when the guest is awake: a time that was sent to a guest that still wakes up is old when it is read. */
void agent_renew(void)
{
    uint8_t out[VF_WIRE_MAX_FRAME], random[64 + 16];
    struct vf_wire_writer w;
    struct timespec t;
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
    clock_gettime(CLOCK_REALTIME, &t);
    vf_wire_put_i64(&w, VF_TAG_TIME, (int64_t)t.tv_sec * 1000000000 + t.tv_nsec);
    write_all(tx, out, vf_wire_end(&w, out));
    await(VF_MSG_RENEW_OK);
}

void agent_freeze(void)
{
    uint8_t out[VF_WIRE_MAX_FRAME];
    struct vf_wire_writer w;
    vf_wire_start(&w, VF_MSG_FREEZE, 3);
    write_all(tx, out, vf_wire_end(&w, out));
    await(VF_MSG_FREEZE_OK);
}

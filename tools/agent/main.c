/* The loop: bytes from the host become frames, frames become answers, commands go on in between.
 *
 *     set up -> channel -> epoll: channel | signals | pipes of commands -> ...
 *
 * What fails on the way: garbage is dropped by the reader; a message that makes no sense is answered
 * with ERROR; a channel that is gone is waited for and opened again. Nothing from the host ends the
 * agent, and nothing is read while there is no room for the answer.
 */
#include "tools/agent/agent.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEFAULT_CHANNEL "virtio-serial:vf.agent"

static struct vf_wire_reader reader;
static uint8_t input[4096]; /* what was read and not yet looked at */
static size_t held, used;
static int epoll_fd, signal_fd;

void send_error(uint32_t id, int err, const char *text)
{
    vf_wire_start(&writer, VF_MSG_ERROR, id);
    vf_wire_put_u32(&writer, VF_TAG_ERRNO, (uint32_t)err);
    vf_wire_put(&writer, VF_TAG_TEXT, text, strlen(text));
    channel_send();
}

static void say_hello(uint32_t id)
{
    vf_wire_start(&writer, VF_MSG_HELLO_OK, id);
    put_hello();
    channel_send();
}

/* Opens the channel. What the host has said before may be lost (a serial port drops it until the
 * kernel's driver is up), so the agent says that it listens now; who connects knows. */
static int connect_to_host(const char *channel)
{
    int err = channel_open(channel, epoll_fd);

    if (err == 0 && channel_announces())
        say_hello(0);
    return err;
}

static void answer(const struct vf_wire_frame *f, int64_t arrival_ns)
{
    size_t len;
    const uint8_t *p;

    switch (f->type) {
    case VF_MSG_HELLO:
        /* A new talk: nobody reads what belongs to the one before. */
        exec_end_all();
        channel_restart();
        say_hello(f->id);
        break;
    case VF_MSG_RENEW:
        renew(f, arrival_ns);
        break;
    case VF_MSG_PING:
        vf_wire_start(&writer, VF_MSG_PONG, f->id);
        if ((p = vf_wire_find(f, VF_TAG_DATA, &len)))
            vf_wire_put(&writer, VF_TAG_DATA, p, len);
        channel_send();
        break;
    case VF_MSG_FREEZE:
        exec_end_all();
        sync();
        vf_wire_start(&writer, VF_MSG_FREEZE_OK, f->id);
        channel_send();
        break;
    case VF_MSG_EXEC:
        exec_start(f);
        break;
    case VF_MSG_STDIN:
        exec_stdin(f);
        break;
    case VF_MSG_CREDIT:
        exec_credit(f);
        break;
    case VF_MSG_KILL:
        exec_kill(f);
        break;
    default:
        send_error(f->id, ENOSYS, "unknown message");
    }
}

/* Reads and answers all there is, as long as there is room. Returns true if it stopped for want of
 * room, -errno if the channel is gone. */
static int listen_to_host(void)
{
    for (;;) {
        int64_t arrival_ns = 0;
        if (used == held) {
            ssize_t n = channel_read(input, sizeof(input));
            if (n <= 0)
                return (int)n;
            held = (size_t)n;
            used = 0;
            arrival_ns = now_ns();
        }
        while (used < held) {
            struct vf_wire_frame f;
            if (!channel_room(CHANNEL_ANSWER))
                return 1;
            used += vf_wire_feed(&reader, input + used, held - used, &f);
            if (f.type != 0) {
                channel_heard();
                answer(&f, arrival_ns);
            }
        }
        channel_flush();
    }
}

static void take_signals(void)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;

    while (read(signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            continue;
        exec_end_all();
        if (as_init)
            init_power_off(info.ssi_signo == SIGUSR1 ? RB_HALT_SYSTEM : RB_POWER_OFF);
        exit(0);
    }
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        exec_reaped(pid, status);
}

static void set_up_signals(void)
{
    /* busybox's poweroff and halt tell init by SIGUSR2 and SIGUSR1; SIGINT is ctrl-alt-del. */
    static const int taken[] = {SIGCHLD, SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGPWR};
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = TAG_SIGNALS};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
        sigaddset(&set, taken[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, signal_fd, &ev);
}

/* Another channel than the one before: nothing of the talk there goes on. */
static void forget_talk(void)
{
    exec_end_all();
    vf_wire_reset(&reader);
    held = used = 0;
}

static _Noreturn void run(const char *channel)
{
    struct epoll_event events[16];
    bool more = false;

    for (;;) {
        int n = epoll_wait(epoll_fd, events, 16, more ? 0 : exec_timeout_ms());
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == TAG_CHANNEL)
                channel_event(events[i].events);
            else if (events[i].data.u64 == TAG_SIGNALS)
                take_signals();
            else if (events[i].data.u64 == TAG_LISTENER) {
                if (channel_accept())
                    forget_talk();
            } else
                exec_event(events[i].data.u64);
        }
        int listened = listen_to_host();
        if (listened < 0) {
            say("lost the channel: %s", strerror(-listened));
            forget_talk();
            connect_to_host(channel);
        }
        more = exec_pump();
        channel_flush();
        /* Without room for answers the host is heard again once the queue has shrunk. */
        if (listened > 0 && channel_room(CHANNEL_ANSWER))
            more = true;
    }
}

int main(int argc, char **argv)
{
    char channel[160] = DEFAULT_CHANNEL;

    as_init = getpid() == 1;
    if (!as_init && argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts(AGENT_NAME);
        return 0;
    }
    if (as_init)
        init_setup();
    cmdline_value("vf.channel", channel, sizeof(channel));
    if (argc == 3 && strcmp(argv[1], "--channel") == 0 && strlen(argv[2]) < sizeof(channel)) {
        strcpy(channel, argv[2]);
    } else if (argc != 1 && !as_init) {
        fprintf(stderr,
                "usage: vmfactory-agent [--channel virtio-serial:NAME | serial:/dev/ttyX |\n"
                "                                  vsock[:PORT] | unix:PATH]\n"
                "vsock and unix: listens there, and talks to whoever connected last.\n"
                "The default is vf.channel= of the kernel's command line, else %s.\n",
                DEFAULT_CHANNEL);
        return 2;
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    set_up_signals();
    renew_setup();
    exec_setup(epoll_fd);
    int err = connect_to_host(channel);
    if (err != 0) {
        say("channel %s: %s", channel, strerror(-err));
        if (as_init)
            init_power_off(RB_POWER_OFF);
        return 1;
    }
    channel_flush();
    run(channel);
}

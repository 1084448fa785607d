/* The agent where its host connects to it: one connection at a time, of which the newest counts. It runs as a process
 * of this host, on a unix socket, and on vsock where the kernel has its loopback (a guest's is reached in
 * conformance_vsock.c). It is never told to renew: that would change this host.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tests/e2e/support.h"

#define PORT 22087 /* not the one of a VM this host may be */

struct place {
    struct sup s;
    char channel[128];
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_vm vm;
    } address;
    socklen_t address_len;
    pid_t pid;
};

static void start(struct place *p)
{
    char binary[512];
    char *argv[] = {binary, (char *)"--channel", p->channel, NULL};
    extern char **environ;

    snprintf(binary, sizeof(binary), "%s/vmfactory-agent", getenv("VF_BUILD"));
    cr_assert_eq(posix_spawn(&p->pid, binary, NULL, NULL, argv, environ), 0, "%s", binary);
}

/* Over vsock root alone is taken for the host: it has such a port. */
static void be_root(int fd)
{
    static unsigned port = 700;
    struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};
    int r;
    do {
        a.svm_port = port++;
        r = bind(fd, (struct sockaddr *)&a, sizeof(a));
    } while (r < 0 && errno == EADDRINUSE && port < 1000);
    cr_assert_eq(r, 0, "bind: %s", strerror(errno));
}

/* It listens a moment after it was started. */
static struct sup_agent *call(struct place *p, bool as_anybody)
{
    int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
    struct sup_agent *a = calloc(1, sizeof(*a));
    cr_assert(a);
    a->s = &p->s;
    for (;;) {
        a->fd = a->out_fd = socket(p->address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        cr_assert_geq(a->fd, 0);
        if (p->address.any.sa_family == AF_VSOCK && !as_anybody)
            be_root(a->fd);
        if (connect(a->fd, &p->address.any, p->address_len) == 0)
            break;
        cr_assert(errno == ENOENT || errno == ECONNREFUSED || errno == ECONNRESET, "%s",
                  strerror(errno));
        cr_assert(vf_deadline_left_ms(deadline_us) > 0, "nobody listens");
        vf_close_fd(&a->fd);
        usleep(1000);
    }
    cr_assert_eq(fcntl(a->fd, F_SETFL, O_NONBLOCK), 0);
    vf_wire_reset(&a->reader);
    return a;
}

static struct sup_agent *must_greet(struct place *p)
{
    struct sup_hello hello;
    struct sup_agent *a = call(p, false);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0);
    cr_assert(hello.features & VF_FEATURE_EXEC);
    return a;
}

static void must_end(struct sup_agent *a)
{
    int r;
    while ((r = sup_agent_receive(a, SUP_LONG_MS)) == 0)
        ;
    cr_assert_eq(r, -EPIPE, "the connection goes on: %d", r);
    sup_agent_close(a);
}

static pid_t start_sleep(struct sup_agent *a)
{
    static const char *const argv[] = {"sleep", "1000"};
    sup_agent_start(a, VF_MSG_EXEC);
    for (int i = 0; i < 2; i++)
        vf_wire_put(&a->w, VF_TAG_ARG, argv[i], strlen(argv[i]));
    cr_assert_eq(sup_agent_ask(a, SUP_LONG_MS), 0);
    cr_assert_eq(a->frame.type, VF_MSG_EXEC_OK);
    return (pid_t)vf_wire_u32(vf_wire_find(&a->frame, VF_TAG_PID, NULL));
}

static void await_gone(pid_t pid)
{
    int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
    while (kill(pid, 0) == 0) {
        cr_assert(vf_deadline_left_ms(deadline_us) > 0, "process %d lives", (int)pid);
        usleep(1000);
    }
}

static void talk(struct place *p)
{
    char out[64];
    int status;
    const char *const echo[] = {"echo", "here", NULL};

    start(p);
    struct sup_agent *first = must_greet(p);
    cr_assert_eq(sup_agent_exec(first, echo, out, sizeof(out)), 0);
    cr_assert_str_eq(out, "here\n");
    pid_t sleeps = start_sleep(first);
    sup_agent_send_raw(first, "\x07half", 5);

    /* Another: the first one is over, with what it had begun. */
    struct sup_agent *second = must_greet(p);
    await_gone(sleeps);
    must_end(first);
    cr_assert_eq(sup_agent_exec(second, echo, out, sizeof(out)), 0);
    sleeps = start_sleep(second);
    if (p->address.any.sa_family == AF_VSOCK) {
        must_end(call(p, true));
        cr_assert_eq(sup_agent_exec(second, echo, out, sizeof(out)), 0);
    }

    /* The host goes away, and comes back. */
    sup_agent_close(second);
    await_gone(sleeps);
    struct sup_agent *third = must_greet(p);
    cr_assert_eq(sup_agent_exec(third, echo, out, sizeof(out)), 0);
    cr_assert_str_eq(out, "here\n");

    kill(p->pid, SIGTERM);
    cr_assert_eq(waitpid(p->pid, &status, 0), p->pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", status);
    must_end(third);
}

Test(agent_listens, unix_socket, .timeout = 120)
{
    struct place p = {0};

    sup_open(&p.s);
    p.address.un.sun_family = AF_UNIX;
    snprintf(p.address.un.sun_path, sizeof(p.address.un.sun_path), "%s/agent", p.s.dir);
    snprintf(p.channel, sizeof(p.channel), "unix:%s", p.address.un.sun_path);
    p.address_len = sizeof(p.address.un);
    talk(&p);
    unlink(p.address.un.sun_path);
    sup_close(&p.s);
}

Test(agent_listens, vsock, .timeout = 120)
{
    struct place p = {0};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

    p.address.vm.svm_family = AF_VSOCK;
    p.address.vm.svm_cid = VMADDR_CID_LOCAL;
    p.address.vm.svm_port = PORT;
    p.address_len = sizeof(p.address.vm);
    /* Only with the loopback is that an address of this host. */
    r = fd < 0 ? -1 : bind(fd, &p.address.any, p.address_len);
    if (fd >= 0)
        close(fd);
    if (r < 0)
        sup_skip("agent_listens", "vsock", "this kernel has no vsock loopback (vsock_loopback)");
    if (geteuid() != 0)
        sup_skip("agent_listens", "vsock", "only root may call from a port below 1024");
    sup_open(&p.s);
    snprintf(p.channel, sizeof(p.channel), "vsock:%d", PORT);
    talk(&p);
    sup_close(&p.s);
}

Test(agent_listens, what_is_no_channel, .timeout = 60)
{
    static const char *const channels[] = {"vsock:",   "vsock:0", "vsock:x", "vsock:4294967295",
                                           "vsock:-1", "unix:",   "vsocket"};
    for (size_t i = 0; i < sizeof(channels) / sizeof(*channels); i++) {
        struct place p = {0};
        int status;
        snprintf(p.channel, sizeof(p.channel), "%s", channels[i]);
        start(&p);
        cr_assert_eq(waitpid(p.pid, &status, 0), p.pid);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%s: 0x%x", channels[i], status);
    }
}

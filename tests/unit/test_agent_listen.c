/* Whom the agent takes for the host. The kernel says who calls; here a table says it in its place, for few hosts can
 * have a vsock that is called from without and from within. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct sockaddr_vm callers[4];
static size_t n_callers, next_caller;
static int accepted[4];

static int accept_from_table(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    (void)fd;
    (void)flags;
    if (next_caller == n_callers) {
        errno = EAGAIN;
        return -1;
    }
    if (addr && len && *len >= sizeof(callers[0])) {
        memcpy(addr, &callers[next_caller], sizeof(callers[0]));
        *len = sizeof(callers[0]);
    }
    accepted[next_caller] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return accepted[next_caller++];
}

#define accept4 accept_from_table
#include "tools/agent/listen.c"
#undef accept4

void say(const char *fmt, ...)
{
    (void)fmt;
}

bool wait_for_device(bool (*ready)(void *arg), void *arg, int timeout_ms)
{
    (void)timeout_ms;
    return ready(arg);
}

static void call(unsigned cid, unsigned port)
{
    callers[n_callers++] =
        (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
}

static bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

Test(agent_listen, the_host_is_heard)
{
    call(VMADDR_CID_HOST, 1073741824);
    int fd = listen_accept();
    cr_assert_eq(fd, accepted[0]);
    cr_assert(is_open(fd));
    close(fd);
    cr_assert_eq(listen_accept(), -1);
}

/* Any user of the guest may connect to the guest itself, and would be root by the agent. */
Test(agent_listen, a_user_of_the_guest_is_not)
{
    call(VMADDR_CID_LOCAL, 1024);
    cr_assert_eq(listen_accept(), -1);
    cr_assert_not(is_open(accepted[0]));
}

Test(agent_listen, nor_takes_one_the_place_of_the_host)
{
    call(VMADDR_CID_HOST, 70000);
    call(VMADDR_CID_LOCAL, 70000);
    int fd = listen_accept();
    cr_assert_eq(fd, accepted[0]);
    cr_assert(is_open(fd));
    close(fd);
}

/* It has what the agent could give. A guest of the guest has not, whatever it is there. */
Test(agent_listen, root_of_the_guest_is_heard)
{
    call(VMADDR_CID_LOCAL, 1023);
    call(3, 1);
    int fd = listen_accept();
    cr_assert_eq(fd, accepted[0]);
    cr_assert(is_open(fd));
    close(fd);
}

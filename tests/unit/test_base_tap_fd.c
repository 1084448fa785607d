/* What a descriptor of a tap must be. The taps are made in a network namespace of the test's own, which needs privileges;
 * without them the rest is tested alone. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/tap_fd.h"

TestSuite(tap_fd, .timeout = 60);

#define GOOD VF_TAP_FLAGS
#define MANY (VF_TAP_FLAGS | IFF_MULTI_QUEUE)

/* flags 0: attached to no interface. */
static int make_tap(const char *name, int flags)
{
    struct ifreq r = {.ifr_flags = (short)flags};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", strerror(errno));
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    if (flags)
        cr_assert_eq(ioctl(fd, TUNSETIFF, &r), 0, "%s: %s", name, strerror(errno));
    return fd;
}

static void skip(const char *why)
{
    fprintf(stderr, "SKIPPED tap_fd: %s: %s\n", why, strerror(errno));
    cr_skip_test("SKIPPED tap_fd: %s: %s", why, strerror(errno));
}

static void need_tun(void)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        skip("/dev/net/tun can't be opened");
    close(fd);
}

static void enter(void)
{
    need_tun();
    if (unshare(CLONE_NEWNET) < 0)
        skip("no network namespace");
}

/* The message begins so, and there is something to do about it. */
static void refused(const int *fds, int n, const char *message, const char *hint)
{
    struct vf_error e = {0};
    cr_expect_eq(vf_tap_fds_check("taps", fds, n, &e), -EINVAL, "due was: %s", message);
    cr_expect_eq(e.code, VF_INVALID_ARGUMENT);
    cr_expect_str_eq(e.msg, message);
    cr_expect(strstr(e.hint, hint), "'%s' is not in: %s", hint, e.hint);
}

static void taken(const int *fds, int n)
{
    struct vf_error e = {0};
    cr_expect_eq(vf_tap_fds_check("taps", fds, n, &e), 0, "%s", e.msg);
}

static void close_all(const int *fds, int n)
{
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

Test(tap_fd, what_is_no_tap)
{
    char message[80];
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC), two[2];
    refused(&fd, 1, "taps[0]: is no descriptor of a tap", "IFF_TAP | IFF_NO_PI | IFF_VNET_HDR");
    cr_expect_eq(vf_tap_fd_netns(fd), -EINVAL);
    close(fd);
    snprintf(message, sizeof(message), "taps[0]: %d is no open descriptor", fd);
    refused(&fd, 1, message, "keep it open");
    cr_assert_eq(pipe2(two, O_CLOEXEC), 0);
    refused(two, 2, "taps[0]: is no descriptor of a tap", "ip tuntap");
    close_all(two, 2);
    taken(NULL, 0);
}

Test(tap_fd, what_is_right)
{
    int many[8], one, size = 0;
    enter();
    one = make_tap("one", GOOD);
    taken(&one, 1);
    taken(&one, 1); /* nothing of the first time is left */
    cr_expect_eq(ioctl(one, TUNGETVNETHDRSZ, &size), 0);
    cr_expect_eq(size, VF_TAP_HEADER);
    close(one);
    for (int i = 0; i < 8; i++)
        many[i] = make_tap("many", MANY);
    taken(many, 8);
    taken(many, 1);
    close_all(many, 8);
}

Test(tap_fd, what_is_no_tap_yet)
{
    int fd;
    need_tun();
    fd = make_tap("", 0);
    refused(&fd, 1, "taps[0]: is not attached to an interface", "TUNSETIFF");
    close(fd);
    fd = open("/dev/net/tun", O_RDONLY | O_CLOEXEC);
    refused(&fd, 1, "taps[0]: was not opened for reading and writing", "O_RDWR");
    close(fd);
    fd = open("/dev/net/tun", O_PATH | O_CLOEXEC);
    refused(&fd, 1, "taps[0]: was not opened for reading and writing", "O_RDWR");
    close(fd);
}

Test(tap_fd, what_is_wrong_with_a_tap)
{
    int fd;
    enter();
    fd = make_tap("tun7", IFF_TUN | IFF_NO_PI);
    refused(&fd, 1, "taps[0]: tun7 is a tun, not a tap", "IFF_TAP");
    close(fd);
    fd = make_tap("bare", IFF_TAP | IFF_NO_PI);
    refused(&fd, 1, "taps[0]: tap bare has no virtio-net header", "IFF_VNET_HDR");
    close(fd);
    fd = make_tap("queue", MANY);
    cr_assert_eq(ioctl(fd, TUNSETQUEUE, &(struct ifreq){.ifr_flags = IFF_DETACH_QUEUE}), 0);
    refused(&fd, 1, "taps[0]: is a detached queue of tap queue", "IFF_ATTACH_QUEUE");
    close(fd);
}

/* Which the kernel tells of a queue with a filter alone; ours does not stay, and a caller's does. */
Test(tap_fd, packet_information)
{
    static const char message[] = "taps[0]: tap info puts packet information before each packet";
    struct sock_filter none[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog filter = {.len = 1, .filter = none};
    struct ifreq r = {0};
    int fd;
    enter();
    fd = make_tap("info", IFF_TAP | IFF_VNET_HDR);
    refused(&fd, 1, message, "IFF_NO_PI");
    cr_assert_eq(ioctl(fd, TUNGETIFF, &r), 0);
    cr_expect(r.ifr_flags & IFF_NOFILTER, "our filter stayed");
    cr_assert_eq(ioctl(fd, TUNATTACHFILTER, &filter), 0);
    refused(&fd, 1, message, "IFF_NO_PI");
    cr_assert_eq(ioctl(fd, TUNGETIFF, &r), 0);
    cr_expect_not(r.ifr_flags & IFF_NOFILTER, "the caller's filter is gone");
    close(fd);
}

Test(tap_fd, what_is_wrong_with_several)
{
    int two[2];
    enter();
    two[0] = make_tap("one", GOOD);
    two[1] = make_tap("other", GOOD);
    refused(two, 2, "taps[1]: is of tap other, not of one as taps[0]", "one tap");
    close(two[1]);
    two[1] = dup(two[0]);
    refused(two, 2, "taps[1]: is the same queue of tap one as taps[0]", "IFF_MULTI_QUEUE");
    close(two[1]);
    two[1] = make_tap("bare", IFF_TAP | IFF_NO_PI);
    refused(two, 2, "taps[1]: tap bare has no virtio-net header", "IFF_VNET_HDR");
    close_all(two, 2);
    two[0] = make_tap("many", MANY);
    cr_assert_eq(unshare(CLONE_NEWNET), 0, "%s", strerror(errno));
    two[1] = make_tap("many", MANY);
    refused(two, 2, "taps[1]: is of a tap many in another network namespace than taps[0]",
            "one tap");
    close_all(two, 2);
}

/* Where the interface is, not whoever asks, nor where the descriptor came from. */
Test(tap_fd, its_namespace)
{
    struct stat where, ns;
    int fd, from;
    enter();
    fd = make_tap("one", GOOD);
    cr_assert_eq(stat("/proc/self/ns/net", &where), 0);
    cr_assert_eq(unshare(CLONE_NEWNET), 0, "%s", strerror(errno));
    from = vf_tap_fd_netns(fd);
    cr_assert_geq(from, 0, "%s", strerror(-from));
    cr_expect_eq(fcntl(from, F_GETFD), FD_CLOEXEC);
    cr_assert_eq(fstat(from, &ns), 0);
    cr_expect(ns.st_dev == where.st_dev && ns.st_ino == where.st_ino);
    close(from);
    close(fd);
}

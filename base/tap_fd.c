/* See tap_fd.h.
 *
 * Happy path: it is a descriptor of the driver of taps, the kernel's flags of it are right, and all are of one interface.
 * On the way: the first thing that is wrong ends it. Only what is surely of that driver is asked anything, for an ioctl may
 * mean whatever it likes elsewhere.
 */
#include "base/tap_fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/kcmp.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/fd.h"

#define TUN_MAJOR 10 /* /dev/net/tun: misc, 200 */
#define TUN_MINOR 200

static const char make_it[] =
    "make the tap with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR (ip tuntap add … mode tap vnet_hdr)";

struct one {
    const char *field;
    int i, fd;
    struct ifreq r; /* its interface */
};

/* "field[i]: what" and what to do about it. */
static int __attribute__((format(printf, 4, 5)))
refuse(const struct one *o, struct vf_error *err, const char *hint, const char *fmt, ...)
{
    char what[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    vf_fail(err, VF_INVALID_ARGUMENT, "%s[%d]: %s", o->field, o->i, what);
    return vf_hint(err, "%s", hint);
}

/* Nor is a file system asked, which need not answer. */
static bool is_tun(int fd)
{
    struct statx st;
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) == 0 &&
           S_ISCHR(st.stx_mode) && st.stx_rdev_major == TUN_MAJOR && st.stx_rdev_minor == TUN_MINOR;
}

/* One bit of the kernel's answer stands for two things: IFF_NO_PI, or that the queue has no filter (IFF_NOFILTER). So it
 * tells the former while there is one: ours lets everything pass, and is gone again at once. */
static bool has_packet_info(const struct one *o)
{
    struct sock_filter all[] = {BPF_STMT(BPF_RET | BPF_K, 0xffffffff)};
    struct sock_fprog filter = {.len = 1, .filter = all};
    struct ifreq r = {0};
    bool told;
    if (!(o->r.ifr_flags & IFF_NO_PI))
        return true; /* the caller's own filter is there */
    if (ioctl(o->fd, TUNATTACHFILTER, &filter) < 0)
        return false; /* can't be known */
    told = ioctl(o->fd, TUNGETIFF, &r) == 0;
    ioctl(o->fd, TUNDETACHFILTER, 0);
    return told && !(r.ifr_flags & IFF_NO_PI);
}

static int check_header(const struct one *o, struct vf_error *err)
{
    int size = 0, set = VF_TAP_HEADER;
    if (!(o->r.ifr_flags & IFF_VNET_HDR))
        return refuse(o, err, make_it, "tap %s has no virtio-net header", o->r.ifr_name);
    /* The kernel begins with the header without the number of buffers. */
    if (ioctl(o->fd, TUNGETVNETHDRSZ, &size) < 0 ||
        (size != VF_TAP_HEADER && ioctl(o->fd, TUNSETVNETHDRSZ, &set) < 0))
        return refuse(o, err, "such a kernel can't be used with taps of others",
                      "the virtio-net header of tap %s can't be of %d bytes: %s", o->r.ifr_name,
                      VF_TAP_HEADER, strerror(errno));
    return 0;
}

static int check_interface(struct one *o, struct vf_error *err)
{
    if (ioctl(o->fd, TUNGETIFF, &o->r) < 0)
        return refuse(o, err, "attach it with TUNSETIFF first", "is not attached to an interface");
    o->r.ifr_name[IFNAMSIZ - 1] = 0;
    if (!(o->r.ifr_flags & IFF_TAP))
        return refuse(o, err, make_it, "%s is a tun, not a tap", o->r.ifr_name);
    if (o->r.ifr_flags & IFF_DETACH_QUEUE)
        return refuse(o, err, "attach it again: TUNSETQUEUE with IFF_ATTACH_QUEUE",
                      "is a detached queue of tap %s", o->r.ifr_name);
    if (has_packet_info(o))
        return refuse(o, err, make_it, "tap %s puts packet information before each packet",
                      o->r.ifr_name);
    return check_header(o, err);
}

static int check_one(struct one *o, struct vf_error *err)
{
    int flags = fcntl(o->fd, F_GETFL);
    if (flags < 0)
        return refuse(o, err, "keep it open until it is handed over", "%d is no open descriptor",
                      o->fd);
    if (!is_tun(o->fd))
        return refuse(o, err, make_it, "is no descriptor of a tap");
    if ((flags & O_ACCMODE) != O_RDWR)
        return refuse(o, err, "open /dev/net/tun with O_RDWR",
                      "was not opened for reading and writing");
    return check_interface(o, err);
}

/* Names repeat in other namespaces; where the kernel does not tell them, names are all there is. */
static bool is_elsewhere(int a, int b)
{
    VF_CLEANUP_FD int x = vf_tap_fd_netns(a);
    VF_CLEANUP_FD int y = vf_tap_fd_netns(b);
    struct stat s, t;
    return x >= 0 && y >= 0 && fstat(x, &s) == 0 && fstat(y, &t) == 0 &&
           (s.st_dev != t.st_dev || s.st_ino != t.st_ino);
}

/* With those before it. */
static int check_beside(const struct one *o, const int *fds, const char *first,
                        struct vf_error *err)
{
    if (strcmp(first, o->r.ifr_name) != 0)
        return refuse(o, err, "all are to be queues of one tap", "is of tap %s, not of %s as %s[0]",
                      o->r.ifr_name, first, o->field);
    if (is_elsewhere(fds[0], o->fd))
        return refuse(o, err, "all are to be queues of one tap",
                      "is of a tap %s in another network namespace than %s[0]", first, o->field);
    for (int k = 0; k < o->i; k++)
        if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, o->fd, fds[k]) == 0)
            return refuse(o, err,
                          "open /dev/net/tun for each queue, and make the tap with "
                          "IFF_MULTI_QUEUE (ip tuntap: multi_queue)",
                          "is the same queue of tap %s as %s[%d]", first, o->field, k);
    /* Where the kernel does not compare. */
    if (!(o->r.ifr_flags & IFF_MULTI_QUEUE))
        return refuse(o, err, "make the tap with IFF_MULTI_QUEUE (ip tuntap: multi_queue)",
                      "tap %s has no more than one queue", first);
    return 0;
}

int vf_tap_fds_check(const char *field, const int *fds, int n, struct vf_error *err)
{
    char first[IFNAMSIZ] = "";
    for (int i = 0; i < n; i++) {
        struct one o = {.field = field, .i = i, .fd = fds[i]};
        int r = check_one(&o, err);
        if (r == 0 && i == 0)
            memcpy(first, o.r.ifr_name, sizeof(first));
        else if (r == 0)
            r = check_beside(&o, fds, first, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int vf_tap_fd_netns(int fd)
{
    int ns;
    if (!is_tun(fd))
        return -EINVAL;
    ns = ioctl(fd, TUNGETDEVNETNS);
    if (ns < 0 && errno != EPERM) /* an older kernel knows where it was opened alone */
        ns = ioctl(fd, SIOCGSKNS);
    return ns < 0 ? -errno : ns;
}

/* Network namespaces and the child that goes into them. See netns.h.
 *
 * Happy path: clone(CLONE_VM | CLONE_VFORK | CLONE_FILES [| CLONE_NEWNET]) on a stack of its own; the child opens the
 * namespace, a route socket, a netfilter socket and the tun descriptors, switches forwarding on, and ends; the caller
 * goes on with the descriptors.
 * On the way: the first call that fails is named by the child in memory both share, and what was opened is closed.
 */
#include "net/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fd.h"
#include "net/needs.h"

#define STACK_SIZE (32 * 1024)
#define MAX_PATH 300

struct child {
    int ns_fd;
    struct vf_netns_call *call;
    volatile int result;
};

/* System calls only. */
static int child_main(void *arg)
{
    struct child *c = arg;
    if (c->ns_fd >= 0 && setns(c->ns_fd, CLONE_NEWNET) < 0) {
        c->call->what = "enter the namespace";
        c->result = -errno;
        return 0;
    }
    c->result = c->call->fn(c->call);
    return 0;
}

int vf_netns_do(int ns_fd, struct vf_netns_call *call, struct vf_error *err)
{
    struct child c = {.ns_fd = ns_fd, .call = call, .result = -EIO};
    sigset_t all, old;

    call->what = "run in a namespace";
    char *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return vf_fail_errno(err, errno, "network namespace: stack");
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    /* No signal at its end: it is nobody's child but this function's. */
    pid_t pid = clone(child_main, stack + STACK_SIZE,
                      CLONE_VM | CLONE_VFORK | CLONE_FILES | (ns_fd < 0 ? CLONE_NEWNET : 0), &c);
    int errnum = errno;
    while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    munmap(stack, STACK_SIZE);
    if (pid < 0) {
        int r = vf_fail_errno(err, errnum, "make a network namespace");
        if (errnum == EPERM)
            vf_hint(err, "it needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root, or set the spec's "
                         "network to none");
        else if (errnum == ENOSPC)
            vf_hint(err, "the limit is sysctl user.max_net_namespaces");
        else if (errnum == EINVAL)
            vf_hint(err, "the kernel needs CONFIG_NET_NS");
        return r;
    }
    if (c.result == 0)
        return 0;
    vf_fail_errno(err, c.result, "network namespace: %s", call->what);
    if (c.result == -EPERM || c.result == -EACCES)
        vf_hint(err, "it needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root, or set the spec's "
                     "network to none");
    return vf_code_errno(vf_code_from_errno(c.result));
}

/* ---- what is opened inside */

struct opening {
    struct vf_netns_call call; /* first */
    struct vf_netns *n;
    int n_tuns;
    bool forwarding;
};

static int step(struct opening *o, const char *what)
{
    o->call.what = what;
    return -errno;
}

static int write_one(struct opening *o, const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return step(o, path);
    ssize_t n = write(fd, "1\n", 2);
    int errnum = errno;
    close(fd);
    errno = errnum;
    return n == 2 ? 0 : step(o, path);
}

static int open_inside(struct vf_netns_call *call)
{
    struct opening *o = (struct opening *)call;
    struct vf_netns *n = o->n;
    int r;

    if (n->ns < 0 && (n->ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) < 0)
        return step(o, "open /proc/self/ns/net");
    n->route = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (n->route < 0)
        return step(o, "open a route socket");
    n->netfilter = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (n->netfilter < 0)
        return step(o, "open a netfilter socket");
    for (; n->n_tuns < o->n_tuns; n->n_tuns++) {
        n->tuns[n->n_tuns] = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (n->tuns[n->n_tuns] < 0)
            return step(o, "open /dev/net/tun");
    }
    if (!o->forwarding)
        return 0;
    r = write_one(o, "/proc/sys/net/ipv4/ip_forward");
    if (r == 0)
        r = write_one(o, "/proc/sys/net/ipv6/conf/all/forwarding");
    return r;
}

static int open_all(int ns_fd, int n_tuns, bool forwarding, struct vf_netns *ret,
                    struct vf_error *err)
{
    struct vf_netns n = VF_NETNS_NONE;
    struct opening o = {
        .call.fn = open_inside, .n = &n, .n_tuns = n_tuns, .forwarding = forwarding};
    n.ns = ns_fd;
    int r = vf_netns_do(ns_fd, &o.call, err);
    if (r < 0 && n.netfilter >= 0 && n.n_tuns < n_tuns)
        r = vf_need(r, VF_NEED_TUN, err);
    else if (r < 0 && n.route >= 0 && n.netfilter < 0)
        r = vf_need(r, VF_NEED_SLOT_RULES, err);
    if (r < 0) {
        vf_netns_close(&n);
        return r;
    }
    *ret = n;
    return 0;
}

int vf_netns_create(int n_tuns, struct vf_netns *ret, struct vf_error *err)
{
    return open_all(VF_NETNS_NEW, n_tuns, true, ret, err);
}

int vf_netns_open(const char *path, int n_tuns, struct vf_netns *ret, struct vf_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return vf_fail_errno(err, errno, "network namespace %s", path);
    int r = open_all(fd, n_tuns, false, ret, err);
    if (r == -EINVAL)
        vf_fail(err, VF_INVALID_ARGUMENT, "network namespace %s: it is not one", path);
    return r;
}

void vf_netns_close(struct vf_netns *n)
{
    vf_close_fd(&n->ns);
    vf_close_fd(&n->route);
    vf_close_fd(&n->netfilter);
    for (int i = 0; i < n->n_tuns; i++)
        vf_close_fd(&n->tuns[i]);
    n->n_tuns = 0;
}

/* ---- names */

static int path_of(const char *dir, const char *name, char ret[MAX_PATH], struct vf_error *err)
{
    if (snprintf(ret, MAX_PATH, "%s/%s", dir, name) >= MAX_PATH)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network namespace %s/%s: the path is too long",
                       dir, name);
    return 0;
}

int vf_netns_prepare(const char *dir, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    int r = vf_open_dir(dir, 1, 0755, &fd, err);
    if (r < 0)
        return r;
    if (mount("", dir, "none", MS_SHARED | MS_REC, NULL) == 0)
        return 0;
    if (errno == EINVAL && mount(dir, dir, "none", MS_BIND | MS_REC, NULL) == 0 &&
        mount("", dir, "none", MS_SHARED | MS_REC, NULL) == 0)
        return 0;
    r = vf_fail_errno(err, errno, "network namespaces: mount %s", dir);
    vf_hint(err, "it needs CAP_SYS_ADMIN and CAP_NET_ADMIN: run as root, or set the spec's network "
                 "to none");
    return r;
}

int vf_netns_keep(const char *dir, const char *name, int ns_fd, struct vf_error *err)
{
    char path[MAX_PATH], from[40];
    if (path_of(dir, name, path, err) < 0)
        return -EINVAL;
    int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (fd < 0)
        return vf_fail_errno(err, errno, "network namespace %s", path);
    close(fd);
    snprintf(from, sizeof(from), "/proc/self/fd/%d", ns_fd);
    if (mount(from, path, NULL, MS_BIND, NULL) < 0) {
        int r = vf_fail_errno(err, errno, "network namespace %s: mount", path);
        unlink(path);
        return r;
    }
    return 0;
}

int vf_netns_drop(const char *dir, const char *name, struct vf_error *err)
{
    char path[MAX_PATH];
    if (path_of(dir, name, path, err) < 0)
        return -EINVAL;
    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
        return vf_fail_errno(err, errno, "network namespace %s: unmount", path);
    if (unlink(path) < 0 && errno != ENOENT)
        return vf_fail_errno(err, errno, "network namespace %s: remove", path);
    return 0;
}

bool vf_netns_exists(const char *dir, const char *name)
{
    char path[MAX_PATH];
    return path_of(dir, name, path, NULL) == 0 &&
           faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

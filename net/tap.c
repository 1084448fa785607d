/* Taps. See link.h. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/tap_fd.h"
#include "net/link.h"

static int attach(int tun, const char *name, const struct vf_tap_shape *s, struct vf_error *err)
{
    struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int size = VF_TAP_HEADER;

    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    if (s->offloads)
        r.ifr_flags |= IFF_VNET_HDR;
    if (s->queues > 1)
        r.ifr_flags |= IFF_MULTI_QUEUE;
    if (ioctl(tun, TUNSETIFF, &r) < 0) {
        int e = errno;
        vf_fail_errno(err, e, "tap %s", name);
        if (e == EPERM)
            vf_hint(err, "taps need CAP_NET_ADMIN: run as root, or set the spec's network to none");
        else if (e == EBUSY)
            vf_hint(err, "another process has it open");
        return vf_code_errno(vf_code_from_errno(e));
    }
    if (s->offloads && ioctl(tun, TUNSETVNETHDRSZ, &size) < 0)
        return vf_fail_errno(err, errno, "tap %s: TUNSETVNETHDRSZ", name);
    return 0;
}

static int attach_all(const int *tuns, const char *name, const struct vf_tap_shape *s,
                      struct vf_error *err)
{
    for (int i = 0; i < s->queues; i++) {
        int r = attach(tuns[i], name, s, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Of a tap without an owner the kernel says that it is everybody's. */
static int set_owner(int tun, const char *name, const struct vf_tap_shape *s, struct vf_error *err)
{
    if (ioctl(tun, TUNSETOWNER, (unsigned long)s->owner) < 0)
        return vf_fail_errno(err, errno, "tap %s: TUNSETOWNER", name);
    return 0;
}

int vf_tap_make(const int *tuns, const char *name, int index, const struct vf_tap_shape *s,
                struct vf_error *err)
{
    unsigned wanted = (unsigned)index;
    if (index && ioctl(tuns[0], TUNSETIFINDEX, &wanted) < 0)
        return vf_fail_errno(err, errno, "tap %s: TUNSETIFINDEX", name);
    int r = attach_all(tuns, name, s, err);
    if (r < 0)
        return r;
    if (ioctl(tuns[0], TUNSETPERSIST, 1) < 0)
        return vf_fail_errno(err, errno, "tap %s: TUNSETPERSIST", name);
    return set_owner(tuns[0], name, s, err);
}

static void forget(int tun)
{
    struct tun_filter all = {0};
    int none = -1, whole = INT_MAX, off = 0;
    ioctl(tun, TUNSETOFFLOAD, 0ul);
    ioctl(tun, TUNDETACHFILTER, 0);
    ioctl(tun, TUNSETTXFILTER, &all);
    ioctl(tun, TUNSETSTEERINGEBPF, &none);
    ioctl(tun, TUNSETFILTEREBPF, &none);
    ioctl(tun, TUNSETSNDBUF, &whole);
    ioctl(tun, TUNSETVNETLE,
          &off); /* of the header before each packet; the host's own order without either */
    ioctl(tun, TUNSETVNETBE, &off);
}

int vf_tap_attach(const int *tuns, const char *name, const struct vf_tap_shape *s,
                  struct vf_error *err)
{
    int r = attach_all(tuns, name, s, err);
    /* What an earlier holder set would stay with the interface. */
    if (r < 0)
        return r;
    forget(tuns[0]);
    return set_owner(tuns[0], name, s, err);
}

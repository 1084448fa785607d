/* The guest's first NIC as a link: its MAC and its MTU, by ioctl. The first is the Ethernet device with the lowest
 * index.
 */
#include "tools/agent/agent.h"
#include <errno.h>
#include <net/if_arp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define MAX_INDEX 64

static int socket_fd(void)
{
    static int fd = -1;

    if (fd < 0)
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd;
}

/* Its name into ifr, which then also holds its MAC. */
static int find(struct ifreq *ret_ifr, int *ret_index)
{
    for (int i = 1; i <= MAX_INDEX; i++) {
        struct ifreq ifr = {.ifr_ifindex = i};
        if (ioctl(socket_fd(), SIOCGIFNAME, &ifr) == 0 &&
            ioctl(socket_fd(), SIOCGIFHWADDR, &ifr) == 0 &&
            ifr.ifr_hwaddr.sa_family == ARPHRD_ETHER) {
            *ret_ifr = ifr;
            *ret_index = i;
            return 0;
        }
    }
    return -ENODEV;
}

static int set_up(const struct ifreq *nic, bool up)
{
    struct ifreq ifr = *nic;

    if (ioctl(socket_fd(), SIOCGIFFLAGS, &ifr) != 0)
        return -errno;
    if (((ifr.ifr_flags & IFF_UP) != 0) == up)
        return 0;
    ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
    return ioctl(socket_fd(), SIOCSIFFLAGS, &ifr) == 0 ? 0 : -errno;
}

void net_up_loopback(void)
{
    struct ifreq lo = {.ifr_name = "lo"};

    set_up(&lo, true);
}

bool net_has_nic(void)
{
    struct ifreq ifr;
    int index;

    return find(&ifr, &index) == 0;
}

int net_nic(struct nic *ret)
{
    struct ifreq ifr;
    int err = find(&ifr, &ret->index);

    if (err == 0)
        memcpy(ret->name, ifr.ifr_name, sizeof(ret->name));
    return err;
}

int net_up(const struct nic *nic)
{
    struct ifreq ifr = {0};

    memcpy(ifr.ifr_name, nic->name, sizeof(ifr.ifr_name));
    return set_up(&ifr, true);
}

int net_get_mac(uint8_t ret_mac[6])
{
    struct ifreq ifr;
    int index, err = find(&ifr, &index);

    if (err == 0)
        memcpy(ret_mac, ifr.ifr_hwaddr.sa_data, 6);
    return err;
}

int net_set_mac(const uint8_t mac[6])
{
    struct ifreq ifr;
    int index, err = find(&ifr, &index);

    if (err != 0 || memcmp(ifr.ifr_hwaddr.sa_data, mac, 6) == 0)
        return err;
    memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
    if (ioctl(socket_fd(), SIOCSIFHWADDR, &ifr) == 0)
        return 0;
    if (errno != EBUSY)
        return -errno;
    /* Some drivers change it only while the device is down. */
    err = set_up(&ifr, false);
    if (err == 0 && ioctl(socket_fd(), SIOCSIFHWADDR, &ifr) != 0)
        err = -errno;
    int err2 = set_up(&ifr, true);
    return err ? err : err2;
}

int net_get_mtu(uint32_t *ret_mtu)
{
    struct ifreq ifr;
    int index, err = find(&ifr, &index);

    if (err == 0 && ioctl(socket_fd(), SIOCGIFMTU, &ifr) != 0)
        err = -errno;
    if (err == 0)
        *ret_mtu = (uint32_t)ifr.ifr_mtu;
    return err;
}

int net_set_mtu(uint32_t mtu)
{
    struct ifreq ifr;
    uint32_t is;
    int index, err = net_get_mtu(&is);

    if (err != 0 || is == mtu)
        return err;
    if (mtu > INT32_MAX)
        return -EINVAL;
    if ((err = find(&ifr, &index)) != 0)
        return err;
    ifr.ifr_mtu = (int)mtu;
    return ioctl(socket_fd(), SIOCSIFMTU, &ifr) == 0 ? 0 : -errno;
}

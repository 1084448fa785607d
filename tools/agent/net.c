/* The guest's first NIC: its MAC, its IPv4 address and the default route, by ioctl. The first is the
 * Ethernet device with the lowest index.
 */
#include "tools/agent/agent.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_INDEX 64

static int socket_fd(void)
{
    static int fd = -1;

    if (fd < 0)
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd;
}

/* Its name into ifr, which then also holds its MAC. */
static int first_nic(struct ifreq *ret_ifr)
{
    for (int i = 1; i <= MAX_INDEX; i++) {
        struct ifreq ifr = {.ifr_ifindex = i};
        if (ioctl(socket_fd(), SIOCGIFNAME, &ifr) == 0 &&
            ioctl(socket_fd(), SIOCGIFHWADDR, &ifr) == 0 &&
            ifr.ifr_hwaddr.sa_family == ARPHRD_ETHER) {
            *ret_ifr = ifr;
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

    return first_nic(&ifr) == 0;
}

int net_get_mac(uint8_t ret_mac[6])
{
    struct ifreq ifr;
    int err = first_nic(&ifr);

    if (err == 0)
        memcpy(ret_mac, ifr.ifr_hwaddr.sa_data, 6);
    return err;
}

int net_set_mac(const uint8_t mac[6])
{
    struct ifreq ifr;
    int err = first_nic(&ifr);

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

static void set_in(struct sockaddr *sa, const uint8_t address[4])
{
    struct sockaddr_in in = {.sin_family = AF_INET};

    memcpy(&in.sin_addr, address, 4);
    memcpy(sa, &in, sizeof(in));
}

static void get_in(const struct sockaddr *sa, uint8_t ret_address[4])
{
    struct sockaddr_in in;

    memcpy(&in, sa, sizeof(in));
    memcpy(ret_address, &in.sin_addr, 4);
}

static void prefix_to_mask(uint8_t prefix, uint8_t ret_mask[4])
{
    uint32_t mask = prefix == 0 ? 0 : htonl(0xffffffffu << (32 - prefix));

    memcpy(ret_mask, &mask, 4);
}

static int route(unsigned long what, char *device, const uint8_t to[4], const uint8_t mask[4],
                 const uint8_t *gateway)
{
    struct rtentry rt = {.rt_flags = RTF_UP, .rt_dev = device};

    set_in(&rt.rt_dst, to);
    set_in(&rt.rt_genmask, mask);
    if (gateway) {
        rt.rt_flags |= RTF_GATEWAY;
        set_in(&rt.rt_gateway, gateway);
    }
    return ioctl(socket_fd(), what, &rt) == 0 ? 0 : -errno;
}

int net_set_ipv4(const struct ipv4 *ip)
{
    static const uint8_t any[4], one[4] = {255, 255, 255, 255};
    struct ifreq ifr;
    uint8_t mask[4];
    char device[IFNAMSIZ];
    int err = first_nic(&ifr);

    if (err != 0)
        return err;
    memcpy(device, ifr.ifr_name, sizeof(device));
    prefix_to_mask(ip->prefix, mask);
    set_in(&ifr.ifr_addr, ip->address);
    if (ioctl(socket_fd(), SIOCSIFADDR, &ifr) != 0)
        return -errno;
    set_in(&ifr.ifr_netmask, mask);
    if (ioctl(socket_fd(), SIOCSIFNETMASK, &ifr) != 0)
        return -errno;
    if ((err = set_up(&ifr, true)) != 0)
        return err;
    for (int i = 0; i < 8 && route(SIOCDELRT, NULL, any, any, NULL) == 0; i++)
        ; /* every default route of before */
    if (memcmp(ip->gateway, any, 4) == 0)
        return 0;
    err = route(SIOCADDRT, device, any, any, ip->gateway);
    if (err != -ENETUNREACH && err != -EHOSTUNREACH)
        return err;
    /* The gateway is outside the prefix (a /32, say): a route to it first. */
    err = route(SIOCADDRT, device, ip->gateway, one, NULL);
    return err != 0 && err != -EEXIST ? err : route(SIOCADDRT, device, any, any, ip->gateway);
}

/* The gateway of the default route through device; zeros if it has none. */
static void get_gateway(const char *device, uint8_t ret_gateway[4])
{
    FILE *f = fopen("/proc/net/route", "re");
    char line[256], name[IFNAMSIZ];
    unsigned to, gateway, flags, mask;

    memset(ret_gateway, 0, 4);
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%15s %x %x %x %*d %*d %*d %x", name, &to, &gateway, &flags, &mask) == 5 &&
            to == 0 && mask == 0 && flags & RTF_GATEWAY && strcmp(name, device) == 0) {
            memcpy(ret_gateway, &gateway, 4); /* printed as the number it is in network order */
            break;
        }
    }
    if (f)
        fclose(f);
}

int net_get_ipv4(struct ipv4 *ret_ip)
{
    struct ifreq ifr;
    struct ipv4 ip;
    uint8_t mask[4];
    uint32_t bits;
    int err = first_nic(&ifr);

    if (err != 0)
        return err;
    if (ioctl(socket_fd(), SIOCGIFADDR, &ifr) != 0)
        return -errno;
    get_in(&ifr.ifr_addr, ip.address);
    if (ioctl(socket_fd(), SIOCGIFNETMASK, &ifr) != 0)
        return -errno;
    get_in(&ifr.ifr_netmask, mask);
    memcpy(&bits, mask, 4);
    ip.prefix = (uint8_t)__builtin_popcount(bits);
    get_gateway(ifr.ifr_name, ip.gateway);
    *ret_ip = ip;
    return 0;
}

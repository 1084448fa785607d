/* What tests of networks share. Everything happens in namespaces of the test's own: its process leaves the machine's
 * network and mounts first, so the "host" of these tests is one that only they see, with an outside beyond it:
 *
 *     guest (the test itself, on the tap's descriptor) - slot - host (the test's namespace) - outside
 *                                                              192.0.2.1, 2001:db8::1       192.0.2.2, 2001:db8::2
 */
#ifndef VF_TESTS_NET_SUPPORT_H
#define VF_TESTS_NET_SUPPORT_H

#include <criterion/criterion.h>
#include <linux/if_tun.h>
#include "net/netlink.h"
#include "net/slot.h"

#define NET_TIMEOUT_MS 10000
#define NET_RUN "/run/vf-net-test"
#define NET_HOST4 "192.0.2.1"
#define NET_OUT4 "192.0.2.2"
#define NET_HOST6 "2001:db8::1"
#define NET_OUT6 "2001:db8::2"

struct net {
    struct vf_nets *slots;
    struct vf_nets_config cfg;
    struct vf_netns outside; /* once net_outside was called */
};

/* Into namespaces of our own, or skips. */
void net_enter(const char *suite, const char *name);
/* The same, and slots with 10.210.0.0/24 and fd76:6d01::/120. */
void net_open(struct net *n, const char *suite, const char *name);
/* Closes slots, and nothing may be left. */
void net_close(struct net *n);
void net_outside(struct net *n);
/* Makes and takes one. */
struct vf_net *net_slot(struct net *n);
struct vf_net *net_slot_of(struct net *n, const struct vf_net_shape *shape);
extern const struct vf_net_shape net_plain; /* without offloads: frames as they are */

/* Namespaces below the directory, interfaces and records that begin as ours. */
int net_count_names(void);
int net_count_links(const char *prefix);
int net_count_records(void);
/* A shell command in the test's namespace, as an independent observer; what it printed. */
const char *net_shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same in a slot's namespace. */
const char *net_shell_in(struct vf_net *slot, const char *command);

/* A descriptor of a tap of that name in the test's namespace, whatever else flags say of it. 0: attached to none. */
int net_tap(const char *name, int flags);
#define NET_TAP (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) /* as VMMs need it */

struct vf_ip net_ip(const char *text);
/* A socket of the namespace ns (-1: the test's own). */
int net_socket(int ns, int family, int type, int protocol);
/* A UDP socket bound to address and port in the namespace ns (-1: the test's own). */
int net_udp(int ns, const char *address, int port);
/* Sends text from the socket. */
void net_udp_send(int fd, const struct vf_ip *to, int port, const char *text);
/* The next datagram, or NULL once wait_ms have passed. Its sender in from and port (may be NULL). */
const char *net_udp_receive(int fd, int wait_ms, struct vf_ip *from, int *port);
/* TCP, blocking and with a deadline; connect: -1 with errno. */
int net_tcp_listen(int ns, const char *address, int port);
int net_tcp_connect(int ns, const struct vf_ip *to, int port);

/* ---- the guest */
struct net_packet {
    struct vf_mac from_mac, to_mac;
    struct vf_ip from, to;
    int from_port, to_port;
    char text[9216];
    int len; /* of text; 0: its string length */
};
/* A UDP packet from the guest of slot to an address, as a good guest sends it; change it to be a bad one. */
struct net_packet net_packet(struct vf_net *slot, const char *to, int port, const char *text);
void net_guest_send(struct vf_net *slot, const struct net_packet *p);
/* The next UDP packet that reaches the guest; false once wait_ms have passed. */
bool net_guest_receive(struct vf_net *slot, int wait_ms, struct net_packet *ret);
void net_guest_frame(struct vf_net *slot, const void *frame, size_t len);
/* Waits until the slot has refused n packets for this reason. */
void net_expect_refused(struct vf_net *slot, enum vf_refusal why, uint64_t n);

#endif

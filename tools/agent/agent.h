/* The guest agent: answers the protocol of base/wire.h on one channel, as init of our image or as a
 * service in the user's.
 *
 *     main.c     arguments, the epoll loop, which message goes where
 *     channel.c  the descriptor to the host: found, opened, read, queued writes
 *     listen.c   where the host connects to: vsock
 *     renew.c    what a clone must get anew: entropy, clock, machine-id, hostname
 *     renew_net.c  the same of the first NIC
 *     net.c      its MAC and MTU
 *     net_address.c  its addresses, default routes, and the gateway as a neighbour
 *     netlink.c  how those are asked for
 *     resolvers.c  /etc/resolv.conf
 *     exec.c     commands as streams
 *     spawn.c    arguments and environment of one command, and its start
 *     init.c     what only pid 1 does: mounts, root image, power off
 *     modules.c  kernel modules for the devices that are there
 *     util.c     small files, log lines, waiting for devices
 *
 * One thread. All that a HELLO and a RENEW need is set up before the first of them: a clone pays
 * for each page touched and each instruction translated after its restore.
 */
#ifndef VF_AGENT_H
#define VF_AGENT_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include "base/wire.h"

#define AGENT_NAME "vmfactory-agent 1"

/* --- util.c */
extern bool as_init; /* pid 1: log to the kernel's log, not to stderr */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The file's first bytes, NUL-ended, without a last newline. Returns their number or -errno. */
int read_text(const char *path, char *ret, size_t size);
/* Writes a file of /etc; where that is read-only, a file in /run is bound over it. 0 or -errno. */
int write_etc(const char *path, const char *run_path, const char *text, size_t len);
/* The value of "name=value" on the kernel's command line. */
bool cmdline_value(const char *name, char *ret, size_t size);
/* Waits until ready(arg) says so; asks again whenever the kernel announces a device. timeout_ms -1:
 * for ever. Returns false when the time is up. */
bool wait_for_device(bool (*ready)(void *arg), void *arg, int timeout_ms);
int64_t now_ns(void); /* CLOCK_MONOTONIC */

/* What epoll tells news of by their data; 16 and more: the pipes of commands. */
enum { TAG_CHANNEL, TAG_SIGNALS, TAG_LISTENER };

/* --- channel.c */
/* "virtio-serial:NAME", "serial:/dev/ttyX", "vsock", "vsock:PORT" or "unix:PATH"; waits for it to appear. The last
 * three are where the host connects to: that is told by TAG_LISTENER. Returns 0 or -errno. */
int channel_open(const char *spec, int epoll_fd);
/* Whether the agent speaks first: the host can't know when it begins to listen. */
bool channel_announces(void);
/* Takes the connection the host has made. False: there is none. */
bool channel_accept(void);
/* Events of epoll for the channel. */
void channel_event(uint32_t events);
/* Reads what is there, up to size. Returns 0 when there is no more for now, -errno if the channel is
 * gone and must be opened again. */
ssize_t channel_read(void *buf, size_t size);
/* The host has spoken. */
void channel_heard(void);
/* Frames to have room for before a message is read: its answer, and what it may set going. */
#define CHANNEL_ANSWER 5
/* Room for that many more frames of the largest size? */
bool channel_room(unsigned frames);
/* Queues what writer holds; channel_flush sends it. The caller has checked for room. */
extern struct vf_wire_writer writer;
void channel_send(void);
/* Drops what is queued and ends a frame that was sent in part: a new talk begins. */
void channel_restart(void);
void channel_flush(void);

/* --- listen.c */
bool listen_is_for(const char *spec);
int listen_open(const char *spec, int epoll_fd);
/* The host's newest connection, or -1. */
int listen_accept(void);

/* --- renew.c */
void renew_setup(void);
void put_hello(void);
/* Carries out a RENEW that arrived at arrival_ns and queues its answer. */
void renew(const struct vf_wire_frame *f, int64_t arrival_ns);

/* --- net.c: 0 or -errno. What is set already is not set again. */
struct nic {
    int index;
    char name[IFNAMSIZ];
};
void net_up_loopback(void);
bool net_has_nic(void);
int net_nic(struct nic *ret);
int net_up(const struct nic *nic);
int net_set_mac(const uint8_t mac[6]);
int net_get_mac(uint8_t ret_mac[6]);
int net_set_mtu(uint32_t mtu);
int net_get_mtu(uint32_t *ret_mtu);

/* --- net_address.c: likewise */
struct net_address {
    int family; /* AF_INET: only the first four bytes of each are used */
    uint8_t address[16], prefix, gateway[16]; /* gateway all zero: none */
};
/* Takes the link up. */
int net_set_address(const struct net_address *a);
int net_get_address(int family, struct net_address *ret);
/* Of the gateways that there are. */
int net_set_gateway_mac(const uint8_t mac[6]);
/* due if all of them have it, else one that another has. */
int net_get_gateway_mac(const uint8_t due[6], uint8_t ret_mac[6]);

/* --- resolvers.c: likewise */
#define MAX_RESOLVERS 8
struct resolvers {
    struct resolver {
        uint8_t len; /* 4 or 16 */
        uint8_t address[16];
    } list[MAX_RESOLVERS];
    unsigned n;
};
int resolvers_set(const struct resolvers *r);
int resolvers_get(struct resolvers *ret);

/* --- renew_net.c */
struct net_fields { /* NULL where a RENEW has none */
    const uint8_t *mac, *mtu, *ipv4, *ipv6, *gateway_mac;
    struct resolvers dns;
};
/* Notes a record of a RENEW; false if it is malformed. */
bool renew_net_collect(uint16_t tag, const uint8_t *p, size_t len, struct net_fields *ret);
/* Applies what was noted and puts it into writer as read back. -errno of *ret_step. */
int renew_net(const struct net_fields *in, const char **ret_step);

/* --- spawn.c */
/* Starts the command of an EXEC frame in a process group of its own. ret_fds: our ends of stdin,
 * stdout, stderr, nonblocking. Returns its pid or -errno. */
pid_t spawn(const struct vf_wire_frame *f, int ret_fds[3]);

/* --- exec.c */
void exec_setup(int epoll_fd);
void exec_start(const struct vf_wire_frame *f);
void exec_stdin(const struct vf_wire_frame *f);
void exec_credit(const struct vf_wire_frame *f);
void exec_kill(const struct vf_wire_frame *f);
/* A pipe has news; data is what epoll_ctl was given. */
void exec_event(uint64_t data);
/* A child ended. */
void exec_reaped(pid_t pid, int status);
/* Moves data as far as windows and the channel let it. Returns true if there is more to do now. */
bool exec_pump(void);
/* Milliseconds until the next deadline, -1: none. */
int exec_timeout_ms(void);
/* Kills every command and forgets it without a word: the talk it belongs to is over. */
void exec_end_all(void);

/* --- modules.c */
/* Loads what /etc/vf-modules lists and this machine has devices for. */
void modules_load(bool for_root);

/* --- init.c */
void init_setup(void);
_Noreturn void init_power_off(int how);

/* --- main.c */
void send_error(uint32_t id, int err, const char *text);

#endif

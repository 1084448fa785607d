/* Netlink: a change set is one batch, sent by one system call, every acknowledgement read.
 *
 * Works with sockets of any namespace (net/netns.h opens them). The kernel answers within sendmsg, so nothing here
 * waits. A batch carries for each message what it does, in words; when the kernel refuses one, the error says those
 * words, the errno and what the kernel itself had to say (extended ack), with the offset of the attribute it minds.
 * rtnetlink carries out each message by itself, nftables the whole batch or nothing of it.
 */
#ifndef VF_NET_NETLINK_H
#define VF_NET_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/netlink.h>
#include "base/error.h"

struct nl_msg; /* libnl's */

struct vf_nl {
    int fd; /* -1: none */
    uint32_t seq;
};

/* Opens a socket of NETLINK_ROUTE or NETLINK_NETFILTER in the caller's namespace. */
int vf_nl_open(struct vf_nl *nl, int protocol, struct vf_error *err);
/* The same with a descriptor, which nl owns from now on. */
void vf_nl_adopt(struct vf_nl *nl, int fd);
void vf_nl_close(struct vf_nl *nl);

struct vf_nl_item {
    uint32_t offset; /* in buf */
    const char *what;
};
struct vf_nl_batch {
    char *buf;
    size_t len, cap;
    struct vf_nl_item *msgs;
    int n, n_cap;
    int failed; /* negative errno; sticks until the batch is sent */
};

/* Appends a message that libnl built, and frees it. msg == NULL: it had no memory. what must live on. */
void vf_nl_add(struct vf_nl_batch *b, struct nl_msg *msg, const char *what);
/* Room for one message of at most size bytes, zeroed, to be built in place; then commit. NULL: no memory. */
void *vf_nl_reserve(struct vf_nl_batch *b, size_t size);
void vf_nl_commit(struct vf_nl_batch *b, const char *what);
/* Sends all and reads all answers; the first refusal is the error. Empties the batch in any case. Requests get
 * NLM_F_ACK here. */
int vf_nl_send(struct vf_nl *nl, struct vf_nl_batch *b, struct vf_error *err);
void vf_nl_batch_free(struct vf_nl_batch *b);

/* Sends one request and calls each for every message of the answer (a dump, or the one object that was asked for).
 * each returns 0, or a negative errno that ends it, with err filled; what is left of a dump is read and thrown away. A
 * dump that was interrupted by a change is an error: VF_BUSY. req: at least its header; NLM_F_REQUEST is added. */
typedef int (*vf_nl_each)(const struct nlmsghdr *msg, void *arg, struct vf_error *err);
int vf_nl_ask(struct vf_nl *nl, struct nlmsghdr *req, vf_nl_each each, void *arg, const char *what,
              struct vf_error *err);

#endif

/* rtnetlink by hand, as much of it as the agent needs: one message at a time, whose answer is there when send returns. */
#ifndef VF_AGENT_NETLINK_H
#define VF_AGENT_NETLINK_H

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nl_message {
    struct nlmsghdr h;
    uint8_t body[512]; /* what comes before the attributes, and these */
};

/* 0 or -errno; once, early: a clone pays for what it does first. */
int nl_open(void);
/* head: what comes before the attributes (struct ifaddrmsg, rtmsg, ndmsg). */
void nl_start(struct nl_message *m, uint16_t type, uint16_t flags, const void *head, size_t len);
/* What does not fit makes nl_send fail with -EMSGSIZE. */
void nl_put(struct nl_message *m, uint16_t type, const void *data, size_t len);
void nl_put_u32(struct nl_message *m, uint16_t type, uint32_t v);
/* Sends it; 0 or -errno, as the kernel says. */
int nl_send(struct nl_message *m);
/* Calls each for everything that the kernel lists for type and family. 0 or -errno. Nothing may be sent meanwhile. */
int nl_list(uint16_t type, uint8_t family, void (*each)(void *arg, const struct nlmsghdr *h),
            void *arg);
/* The message's head, or NULL if it is shorter. */
const void *nl_head(const struct nlmsghdr *h, size_t len);
/* An attribute of exactly that length after a head of that length, or NULL. */
const void *nl_find(const struct nlmsghdr *h, size_t head_len, uint16_t type, size_t len);

#endif

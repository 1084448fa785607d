/* The kernel answers before send returns, so nothing waits: an answer is read until its end, and what belongs to
 * another request is skipped.
 */
#include "tools/agent/netlink.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int nl_fd = -1;
static uint32_t sequence;
static uint8_t answer[16384] __attribute__((aligned(8)));

int nl_open(void)
{
    if (nl_fd < 0)
        nl_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    return nl_fd < 0 ? -errno : 0;
}

void nl_start(struct nl_message *m, uint16_t type, uint16_t flags, const void *head, size_t len)
{
    memset(m, 0, sizeof(*m));
    m->h.nlmsg_type = type;
    m->h.nlmsg_flags = NLM_F_REQUEST | flags;
    m->h.nlmsg_len = (uint32_t)NLMSG_LENGTH(len);
    memcpy(m->body, head, len);
}

void nl_put(struct nl_message *m, uint16_t type, const void *data, size_t len)
{
    struct rtattr a = {.rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(len)};

    if (m->h.nlmsg_len > sizeof(*m))
        return;
    size_t at = NLMSG_ALIGN(m->h.nlmsg_len) - sizeof(m->h);
    if (len > sizeof(m->body) || at + RTA_SPACE(len) > sizeof(m->body)) {
        m->h.nlmsg_len = UINT32_MAX;
        return;
    }
    memcpy(m->body + at, &a, sizeof(a));
    memcpy(m->body + at + RTA_LENGTH(0), data, len);
    m->h.nlmsg_len = (uint32_t)(sizeof(m->h) + at + RTA_ALIGN(a.rta_len));
}

void nl_put_u32(struct nl_message *m, uint16_t type, uint32_t v)
{
    nl_put(m, type, &v, sizeof(v));
}

static int transmit(struct nl_message *m)
{
    int err = nl_open();

    if (m->h.nlmsg_len > sizeof(*m))
        return -EMSGSIZE;
    m->h.nlmsg_seq = ++sequence;
    if (err == 0 && send(nl_fd, m, m->h.nlmsg_len, 0) < 0)
        err = -errno;
    return err;
}

/* The next datagram; its length or -errno. */
static ssize_t receive(void)
{
    ssize_t n;

    do
        n = recv(nl_fd, answer, sizeof(answer), MSG_TRUNC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return n == 0 || (size_t)n > sizeof(answer) ? -EIO : n;
}

/* Whether h ends the answer; then what it says is in ret_err. A list that was cut short says so with its end. */
static bool is_end(const struct nlmsghdr *h, int *ret_err)
{
    const int *error = nl_head(h, sizeof(*error)); /* what both begin with */

    if (h->nlmsg_type == NLMSG_ERROR)
        *ret_err = error ? *error : -EIO;
    else if (h->nlmsg_type == NLMSG_DONE)
        *ret_err = error ? *error : 0;
    return h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE;
}

static int await(void (*each)(void *arg, const struct nlmsghdr *h), void *arg)
{
    int err;

    for (;;) {
        ssize_t n = receive();
        if (n < 0)
            return (int)n;
        int left = (int)n;
        for (const struct nlmsghdr *h = (const void *)answer; NLMSG_OK(h, left);
             h = NLMSG_NEXT(h, left)) {
            if (h->nlmsg_seq != sequence)
                continue;
            if (is_end(h, &err))
                return err;
            if (each)
                each(arg, h);
        }
    }
}

int nl_send(struct nl_message *m)
{
    m->h.nlmsg_flags |= NLM_F_ACK;
    int err = transmit(m);
    return err ? err : await(NULL, NULL);
}

int nl_list(uint16_t type, uint8_t family, void (*each)(void *arg, const struct nlmsghdr *h),
            void *arg)
{
    /* The longest of the heads: older kernels take a list's request by its first byte alone. */
    union {
        struct rtmsg route;
        struct ifaddrmsg address;
        struct ndmsg neighbour;
    } head;
    struct nl_message m;

    memset(&head, 0, sizeof(head));
    head.route.rtm_family = family;
    nl_start(&m, type, NLM_F_DUMP, &head, sizeof(head));
    int err = transmit(&m);
    return err ? err : await(each, arg);
}

const void *nl_head(const struct nlmsghdr *h, size_t len)
{
    return h->nlmsg_len >= NLMSG_LENGTH(len) ? NLMSG_DATA(h) : NULL;
}

const void *nl_find(const struct nlmsghdr *h, size_t head_len, uint16_t type, size_t len)
{
    size_t at = NLMSG_ALIGN(NLMSG_LENGTH(head_len));
    const uint8_t *start = (const uint8_t *)h;

    while (at + sizeof(struct rtattr) <= h->nlmsg_len) {
        const struct rtattr *a = (const void *)(start + at);
        if (a->rta_len < sizeof(*a) || a->rta_len > h->nlmsg_len - at)
            return NULL;
        if ((a->rta_type & NLA_TYPE_MASK) == type && RTA_PAYLOAD(a) == len)
            return RTA_DATA(a);
        at += RTA_ALIGN(a->rta_len);
    }
    return NULL;
}

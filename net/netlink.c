/* Netlink batches and their answers. See netlink.h.
 *
 * Happy path: number the messages, one sendmsg, then read without waiting until the socket is empty: the kernel has
 * put every answer there before sendmsg returned. Only a dump is produced as it is read; it ends with NLMSG_DONE.
 * On the way: an answer for a message that is not ours is skipped; a socket that overran is an error, never guessed
 * about; a batch that lacks the last acknowledgement is an error too.
 */
#include "net/netlink.h"

#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/msg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/fd.h"

#define RECEIVE_SIZE 32768

static const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

void vf_nl_adopt(struct vf_nl *nl, int fd)
{
    int one = 1, size = 8 << 20;
    *nl = (struct vf_nl){.fd = fd, .seq = 1};
    /* Each of these only makes messages better or rarer failures; an old kernel may lack them. */
    setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
    setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
}

int vf_nl_open(struct vf_nl *nl, int protocol, struct vf_error *err)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    if (fd < 0) {
        int r = vf_fail_errno(err, errno, "netlink socket %d", protocol);
        if (protocol == NETLINK_NETFILTER)
            vf_hint(err, "the kernel needs nf_tables: load the modules nfnetlink and nf_tables");
        return r;
    }
    vf_nl_adopt(nl, fd);
    return 0;
}

void vf_nl_close(struct vf_nl *nl)
{
    vf_close_fd(&nl->fd);
}

/* ---- building */

void *vf_nl_reserve(struct vf_nl_batch *b, size_t size)
{
    if (b->failed)
        return NULL;
    if (b->n == b->n_cap) {
        int cap = 2 * b->n_cap + 32;
        struct vf_nl_item *p = realloc(b->msgs, (size_t)cap * sizeof(*p));
        if (!p) {
            b->failed = -ENOMEM;
            return NULL;
        }
        b->msgs = p;
        b->n_cap = cap;
    }
    if (b->cap - b->len < size) {
        size_t cap = 2 * b->cap + size;
        char *p = realloc(b->buf, cap);
        if (!p) {
            b->failed = -ENOMEM;
            return NULL;
        }
        b->buf = p;
        b->cap = cap;
    }
    memset(b->buf + b->len, 0, size);
    return b->buf + b->len;
}

void vf_nl_commit(struct vf_nl_batch *b, const char *what)
{
    struct nlmsghdr *h = (struct nlmsghdr *)(b->buf + b->len);
    if (b->failed)
        return;
    b->msgs[b->n].offset = (uint32_t)b->len;
    b->msgs[b->n++].what = what;
    b->len += NLMSG_ALIGN(h->nlmsg_len);
}

void vf_nl_add(struct vf_nl_batch *b, struct nl_msg *msg, const char *what)
{
    if (!msg) {
        if (!b->failed)
            b->failed = -ENOMEM;
        return;
    }
    struct nlmsghdr *h = nlmsg_hdr(msg);
    void *to = vf_nl_reserve(b, NLMSG_ALIGN(h->nlmsg_len));
    if (to) {
        memcpy(to, h, h->nlmsg_len);
        vf_nl_commit(b, what);
    }
    nlmsg_free(msg);
}

void vf_nl_batch_free(struct vf_nl_batch *b)
{
    free(b->buf);
    free(b->msgs);
    *b = (struct vf_nl_batch){0};
}

/* ---- answers */

/* What an NLMSG_ERROR carries beyond its errno. */
static int refused(const struct nlmsghdr *h, const char *what, struct vf_error *err)
{
    const struct nlmsgerr *e = NLMSG_DATA(h);
    size_t skip = sizeof(*e);
    const char *said = NULL;
    int said_len = 0;
    uint32_t offset = 0;

    if (!(h->nlmsg_flags & NLM_F_CAPPED) && e->error && e->msg.nlmsg_len > sizeof(struct nlmsghdr))
        skip += NLMSG_ALIGN(e->msg.nlmsg_len) - sizeof(struct nlmsghdr);
    if ((h->nlmsg_flags & NLM_F_ACK_TLVS) && h->nlmsg_len > NLMSG_HDRLEN + skip) {
        struct nlattr *a = (struct nlattr *)((char *)NLMSG_DATA(h) + skip);
        int left = (int)(h->nlmsg_len - NLMSG_HDRLEN - skip);
        for (; nla_ok(a, left); a = nla_next(a, &left)) {
            if (nla_type(a) == NLMSGERR_ATTR_MSG) {
                said = nla_data(a);
                said_len = (int)strnlen(said, (size_t)nla_len(a));
            } else if (nla_type(a) == NLMSGERR_ATTR_OFFS && nla_len(a) >= 4) {
                offset = nla_get_u32(a);
            }
        }
    }
    int r = -e->error;
    if (said && offset)
        vf_fail_errno(err, r, "%s: the kernel says \"%.*s\" (byte %u of the message)", what,
                      said_len, said, offset);
    else if (said)
        vf_fail_errno(err, r, "%s: the kernel says \"%.*s\"", what, said_len, said);
    else
        vf_fail_errno(err, r, "%s", what);
    if (r == EPERM)
        vf_hint(err, "networks need CAP_NET_ADMIN: run as root, or set the spec's network to none");
    return vf_code_errno(vf_code_from_errno(r));
}

/* One datagram; 0: nothing there. */
static ssize_t receive(struct vf_nl *nl, char *buf, bool wait, const char *what,
                       struct vf_error *err)
{
    struct sockaddr_nl from;
    struct iovec iov = {buf, RECEIVE_SIZE};
    struct msghdr m = {
        .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1};
    for (;;) {
        ssize_t n = recvmsg(nl->fd, &m, wait ? 0 : MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            return vf_fail_errno(err, errno, "%s: read the kernel's answer", what);
        if (from.nl_pid != 0)
            continue; /* not the kernel's */
        if (m.msg_flags & MSG_TRUNC)
            return vf_fail(err, VF_INTERNAL, "%s: the kernel's answer is longer than %d bytes",
                           what, RECEIVE_SIZE);
        return n;
    }
}

static int send_all(struct vf_nl *nl, const void *data, size_t len, const char *what,
                    struct vf_error *err)
{
    ssize_t n;
    do
        n = sendto(nl->fd, data, len, 0, (const struct sockaddr *)&kernel, sizeof(kernel));
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)len)
        return vf_fail_errno(err, n < 0 ? errno : EMSGSIZE, "%s: send to the kernel", what);
    return 0;
}

/* Reads what lies in the socket; counts acks, keeps the first error. The caller decides what is missing. */
static int read_acks(struct vf_nl *nl, const struct vf_nl_batch *b, uint32_t first, int *ret_acks,
                     struct vf_error *err)
{
    char *buf = malloc(RECEIVE_SIZE);
    int result = buf ? 0 : vf_fail(err, VF_NO_MEMORY, "netlink: no memory");
    uint32_t worst = UINT32_MAX; /* the earliest message that was refused */

    while (buf) {
        struct vf_error why;
        ssize_t n = receive(nl, buf, false, b->msgs[0].what, &why);
        if (n < 0)
            result = vf_error_copy(err, &why);
        if (n <= 0)
            break;
        int left = (int)n;
        for (struct nlmsghdr *h = (struct nlmsghdr *)buf; nlmsg_ok(h, left);
             h = nlmsg_next(h, &left)) {
            uint32_t i = h->nlmsg_seq - first;
            if (h->nlmsg_type != NLMSG_ERROR || i >= (uint32_t)b->n ||
                h->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
                continue;
            ++*ret_acks;
            if (((struct nlmsgerr *)NLMSG_DATA(h))->error && i < worst) {
                worst = i;
                result = refused(h, b->msgs[i].what, err);
            }
        }
    }
    free(buf);
    return result;
}

int vf_nl_send(struct vf_nl *nl, struct vf_nl_batch *b, struct vf_error *err)
{
    int n = b->n, acks = 0, expected = 0, r = 0;
    uint32_t first = nl->seq;

    if (b->failed) {
        r = vf_fail_errno(err, b->failed, "netlink: building a batch");
    } else if (n > 0) {
        /* One transaction of nftables needs one acknowledgement: that of its last message. */
        bool one = ((struct nlmsghdr *)b->buf)->nlmsg_type == NFNL_MSG_BATCH_BEGIN;
        for (int i = 0; i < n; i++) {
            struct nlmsghdr *h = (struct nlmsghdr *)(b->buf + b->msgs[i].offset);
            bool ack = !one || i == n - 2;
            h->nlmsg_seq = first + (uint32_t)i;
            h->nlmsg_pid = 0;
            h->nlmsg_flags |= (uint16_t)(NLM_F_REQUEST | (ack ? NLM_F_ACK : 0));
            expected += ack;
        }
        nl->seq += (uint32_t)n;
        r = send_all(nl, b->buf, b->len, b->msgs[0].what, err);
        if (r == 0)
            r = read_acks(nl, b, first, &acks, err);
        if (r == 0 && acks != expected)
            r = vf_fail(err, VF_INTERNAL, "%s: the kernel answered %d of %d messages",
                        b->msgs[0].what, acks, expected);
    }
    b->len = 0;
    b->n = 0;
    b->failed = 0;
    return r;
}

/* 1: the end; 0: more to come. */
static int answer(const struct nlmsghdr *h, uint32_t seq, bool dump, vf_nl_each each, void *arg,
                  const char *what, struct vf_error *err)
{
    if (h->nlmsg_seq != seq)
        return 0;
    if (h->nlmsg_flags & NLM_F_DUMP_INTR)
        return vf_fail(err, VF_BUSY, "%s: it changed while it was read", what);
    if (h->nlmsg_type == NLMSG_DONE) {
        int e = h->nlmsg_len >= NLMSG_LENGTH(sizeof(int)) ? *(int *)NLMSG_DATA(h) : 0;
        return e < 0 ? vf_fail_errno(err, e, "%s", what) : 1;
    }
    if (h->nlmsg_type == NLMSG_ERROR) {
        if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct nlmsgerr)))
            return vf_fail(err, VF_INTERNAL, "%s: short answer", what);
        return ((struct nlmsgerr *)NLMSG_DATA(h))->error ? refused(h, what, err) : 1;
    }
    int r = each ? each(h, arg, err) : 0;
    return r < 0 ? r : !dump;
}

/* Reads to the end of a dump that nobody wants any more: until then, the kernel would begin no other one. */
static void drain(struct vf_nl *nl, uint32_t seq, char *buf)
{
    ssize_t n;
    while ((n = receive(nl, buf, false, "", NULL)) > 0) {
        int left = (int)n;
        for (struct nlmsghdr *h = (struct nlmsghdr *)buf; nlmsg_ok(h, left);
             h = nlmsg_next(h, &left))
            if (h->nlmsg_seq == seq && h->nlmsg_type == NLMSG_DONE)
                return;
    }
}

int vf_nl_ask(struct vf_nl *nl, struct nlmsghdr *req, vf_nl_each each, void *arg, const char *what,
              struct vf_error *err)
{
    bool dump = (req->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    req->nlmsg_flags |= NLM_F_REQUEST;
    req->nlmsg_seq = nl->seq++;
    int r = send_all(nl, req, req->nlmsg_len, what, err);
    if (r < 0)
        return r;
    char *buf = malloc(RECEIVE_SIZE);
    if (!buf)
        return vf_fail(err, VF_NO_MEMORY, "netlink: no memory");
    for (r = 0; r == 0;) {
        ssize_t n = receive(nl, buf, dump, what, err);
        if (n <= 0) {
            r = n < 0 ? (int)n : vf_fail(err, VF_INTERNAL, "%s: no answer", what);
            break;
        }
        int left = (int)n;
        for (struct nlmsghdr *h = (struct nlmsghdr *)buf; r == 0 && nlmsg_ok(h, left);
             h = nlmsg_next(h, &left))
            r = answer(h, req->nlmsg_seq, dump, each, arg, what, err);
    }
    if (r < 0 && dump)
        drain(nl, req->nlmsg_seq, buf);
    free(buf);
    return r < 0 ? r : 0;
}

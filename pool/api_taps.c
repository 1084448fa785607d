/* POST /v1/taps: a caller hands over the descriptors of a tap, for a VM that it acquires next.
 *
 *     101 -> one byte with 1 … 8 descriptors -> checked -> {"taps":"TOKEN"} -> the acquire names TOKEN -> used
 *
 * The caller keeps the connection: when it ends, so does a token that was not used, and its descriptors are closed. What is
 * wrong with what came is told in one line, {"error":{…}}, and then the connection ends. Whatever the kernel put into our
 * table of descriptors is closed, however much that was and whatever else was wrong with it.
 *
 * A worker looks at the descriptors, as taps wait for the kernel's lock of all networks. None is closed by the loop: the
 * last of a tap waits for that lock, too, and one that is no tap for whoever it is about, like a file system in user space.
 */
#include "pool/api_taps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/hash.h"
#include "base/tap_fd.h"
#include "pool/api_upgrade.h"

struct vf_taps {
    struct vf_api_upgrade up;
    LIST_ENTRY(vf_taps) link; /* of the API, from the request on */
    uid_t uid;
    char token[VF_TAPS_TOKEN]; /* "": not yet */
    bool used;
    bool checking, freed; /* the worker has it; freed: and nobody else any more */
    struct vf_work work;
    int fds[VF_TAPS_MAX], n_fds;
};

static void close_fds(struct vf_taps *t)
{
    if (t->n_fds > 0)
        vf_close_beside(t->fds, t->n_fds);
    t->n_fds = 0;
}

/* ---- what came */

/* Takes all descriptors of a message over; more than fit are closed. Returns how many there were. */
static int take_descriptors(struct vf_taps *t, struct msghdr *msg)
{
    int n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        size_t count;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++, n++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
            if (t->n_fds < VF_TAPS_MAX)
                t->fds[t->n_fds++] = fd;
            else
                close(fd);
        }
    }
    return n;
}

static int check_message(const struct vf_taps *t, const char *data, ssize_t len, int flags,
                         struct vf_error *err)
{
    if (flags & MSG_CTRUNC) {
        vf_fail(err, VF_INVALID_ARGUMENT, "taps: not all of the descriptors arrived");
        return vf_hint(err,
                       "send at most %d; if it was fewer, the daemon's limit of descriptors is "
                       "reached (LimitNOFILE)",
                       VF_TAPS_MAX);
    }
    if (len != 1 || data[0] != VF_TAPS_BYTE)
        return vf_fail(err, VF_PROTOCOL, "taps: one byte is expected, '%c', with the descriptors",
                       VF_TAPS_BYTE);
    if (t->n_fds == 0) {
        vf_fail(err, VF_INVALID_ARGUMENT, "taps: no descriptor came with the byte");
        return vf_hint(
            err, "send 1 to %d of them by SCM_RIGHTS, in one sendmsg(2) with it, after the 101",
            VF_TAPS_MAX);
    }
    return 0;
}

/* ---- the connection */

/* One line, which a socket that nothing was written to before takes whole. */
static bool say(struct vf_taps *t, const struct vf_error *err)
{
    struct vf_json_writer w = {0};
    char *text;
    size_t len;
    bool ok;

    vf_jw_begin(&w, NULL, '{');
    if (err != NULL)
        vf_write_error(&w, "error", err);
    else
        vf_jw_string(&w, "taps", t->token);
    vf_jw_end(&w, '}');
    text = vf_jw_finish(&w);
    if (text == NULL)
        return false;
    len = strlen(text);
    text[len] = '\n'; /* in the NUL's place */
    ok = send(t->up.fd, text, len + 1, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len + 1;
    free(text);
    return ok;
}

static void refuse(struct vf_taps *t, const struct vf_error *err)
{
    char rest[4096];

    close_fds(t);
    say(t, err);
    /* A socket closed with input unread resets the connection under what was just sent. */
    for (int i = 0; i < 64 && recv(t->up.fd, rest, sizeof(rest), MSG_DONTWAIT) > 0; i++)
        ;
    vf_api_upgrade_end(&t->up);
}

static int check(struct vf_work *w, struct vf_error *err)
{
    const struct vf_taps *t = w->arg;

    return vf_tap_fds_check("taps", t->fds, t->n_fds, err);
}

static void on_checked(void *arg, const struct vf_error *err)
{
    struct vf_taps *t = arg;
    uint8_t random[VF_TAPS_TOKEN / 2];

    t->checking = false;
    if (t->freed || t->up.closing) {
        close_fds(t);
        if (t->freed)
            free(t);
        return;
    }
    if (err != NULL) {
        refuse(t, err);
        return;
    }
    vf_random(random, sizeof(random));
    vf_hex(random, sizeof(random), t->token);
    if (say(t, NULL))
        vf_api_upgrade_poll(&t->up, UV_READABLE);
    else
        vf_api_upgrade_end(&t->up);
}

static void begin_check(struct vf_taps *t)
{
    struct vf_error err;

    vf_api_upgrade_poll(&t->up, 0); /* of its end alone */
    if (t->up.closing)
        return;
    t->checking = true;
    if (vf_work_submit(t->up.api->loop, &t->work, check, on_checked, t) == 0)
        return;
    t->checking = false;
    vf_fail(&err, VF_NO_MEMORY, "taps");
    refuse(t, &err);
}

static void on_message(struct vf_taps *t)
{
    char data[2], control[CMSG_SPACE(VF_TAPS_MAX * sizeof(int))]
        __attribute__((aligned(_Alignof(struct cmsghdr))));
    struct iovec iov = {data, sizeof(data)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(t->up.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct vf_error err = {0};

    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n > 0)
        take_descriptors(t, &msg);
    if (n <= 0)
        vf_api_upgrade_end(&t->up);
    else if (check_message(t, data, n, msg.msg_flags, &err) < 0)
        refuse(t, &err);
    else
        begin_check(t);
}

static void ready(struct vf_api_upgrade *u, int events)
{
    struct vf_taps *t = (struct vf_taps *)u;
    struct vf_error err;
    char byte;

    ssize_t n;

    (void)events;
    if (t->token[0] == '\0') {
        on_message(t);
        return;
    }
    /* Descriptors that come now are nobody's: received without a place for them, the kernel drops them. */
    n = recv(u->fd, &byte, 1, MSG_DONTWAIT);
    if (n > 0) {
        vf_fail(&err, VF_PROTOCOL, "taps: nothing is expected after the descriptors");
        vf_hint(&err, "use a connection for each VM's taps");
        refuse(t, &err);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        vf_api_upgrade_end(u);
    }
}

static void begun(struct vf_api_upgrade *u, const char *extra, size_t extra_len)
{
    struct vf_taps *t = (struct vf_taps *)u;
    struct vf_error err;

    (void)extra;
    vf_api_upgrade_poll(u, UV_READABLE);
    if (extra_len == 0)
        return;
    vf_fail(&err, VF_PROTOCOL, "taps: what was sent before the 101 is lost");
    vf_hint(&err, "send the descriptors after it");
    refuse(t, &err);
}

static void ended(struct vf_api_upgrade *u)
{
    struct vf_taps *t = (struct vf_taps *)u;

    if (!t->checking)
        close_fds(t);
    LIST_REMOVE(t, link);
}

static void freed(struct vf_api_upgrade *u)
{
    struct vf_taps *t = (struct vf_taps *)u;

    t->freed = true;
    if (!t->checking)
        free(t);
}

/* 429 beyond what one user may have, or all. */
static int admit(const struct vf_api *a, const struct vf_caller *who, struct vf_error *err)
{
    const struct vf_taps *t;
    int all = 0, own = 0;

    LIST_FOREACH(t, &a->taps, link)
    {
        all++;
        own += t->uid == who->uid;
    }
    if (vf_closing_beside() >= VF_TAPS_MAX_CLOSING)
        vf_fail(err, VF_BUSY, "taps: %d descriptors that were brought take long to close",
                vf_closing_beside());
    else if (all >= VF_TAPS_MAX_ALL)
        vf_fail(err, VF_BUSY, "taps: %d connections for them are open already", all);
    else if (!who->admin && own >= VF_TAPS_MAX_OF_USER)
        vf_fail(err, VF_BUSY, "taps: uid %d has %d connections for them open already",
                (int)who->uid, own);
    else
        return 0;
    return vf_hint(err, "close those whose VMs were acquired");
}

void vf_api_taps_create(struct vf_http_req *req, void *arg)
{
    static const struct vf_api_upgrade_ops ops = {VF_TAPS_PROTOCOL, begun, ready, ended, freed};
    struct vf_api *a = arg;
    struct vf_error err = {0};
    struct vf_taps *t = NULL;
    int r = 0;

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a) || !vf_api_no_body(req))
        return;
    if (!vf_http_wants_upgrade(req, VF_TAPS_PROTOCOL)) {
        r = vf_fail(&err, VF_INVALID_ARGUMENT, "taps: the connection has to be upgraded");
        vf_hint(&err, "send the headers Connection: Upgrade and Upgrade: " VF_TAPS_PROTOCOL);
    }
    if (r == 0)
        r = admit(a, vf_http_caller(req), &err);
    if (r == 0 && (t = calloc(1, sizeof(*t))) == NULL)
        r = vf_fail(&err, VF_NO_MEMORY, "taps");
    if (t == NULL) {
        vf_http_reply_error(req, &err, err.code == VF_BUSY ? 1 : 0);
        return;
    }
    t->uid = vf_http_caller(req)->uid;
    LIST_INSERT_HEAD(&a->taps, t, link);
    vf_api_upgrade(req, a, &t->up, &ops);
}

/* ---- for the acquire */

int vf_taps_find(struct vf_api *a, const char *token, const struct vf_caller *who,
                 struct vf_taps **ret, struct vf_error *err)
{
    struct vf_taps *t;

    LIST_FOREACH(t, &a->taps, link)
    if (t->token[0] != '\0' && strcmp(t->token, token) == 0)
        break;
    if (t == NULL) {
        vf_fail(err, VF_NOT_FOUND, "network.taps: there is no such token");
        return vf_hint(err, "it is that of a connection to /v1/taps that is still open");
    }
    if (t->uid != who->uid)
        return vf_fail(err, VF_PERMISSION, "network.taps: another user brought these taps");
    if (t->used) {
        vf_fail(err, VF_CONFLICT, "network.taps: these taps were used for a VM already");
        return vf_hint(err, "bring each VM's by a POST /v1/taps of its own");
    }
    *ret = t;
    return 0;
}

const int *vf_taps_fds(const struct vf_taps *t, int *ret_n)
{
    *ret_n = t->n_fds;
    return t->fds;
}

void vf_taps_used(struct vf_taps *t)
{
    t->used = true;
    close_fds(t);
}

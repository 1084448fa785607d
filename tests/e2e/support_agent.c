/* A client of the agent protocol for tests: asks, and waits for the answer with a deadline.
 *
 * While it waits it turns the test's loop, in poll(2) together with the loop's own descriptor: the null
 * driver's agent runs there.
 */
#include "tests/e2e/support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"

static void open_fifos(struct sup_agent *a, const struct sup_vm *v)
{
    signal(SIGPIPE, SIG_IGN); /* there is no MSG_NOSIGNAL for them */
    a->fd = openat(v->dirfd, VF_LINK_FIFO_OUT_NAME, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    a->out_fd = openat(v->dirfd, VF_LINK_FIFO_IN_NAME, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    cr_assert(a->fd >= 0 && a->out_fd >= 0, "agent FIFOs: %s", strerror(errno));
}

static int wait_fd(struct sup_agent *a, int fd, short events, int64_t deadline_us);

/* CONNECT and its answer; false if the VMM hung up, as it does while nobody listens in the guest. */
static bool call_vsock(struct sup_agent *a, const struct sup_vm *v, int64_t deadline_us)
{
    struct vf_error e;
    char line[32];
    size_t len = (size_t)snprintf(line, sizeof(line), "CONNECT %d\n", VF_WIRE_VSOCK_PORT), got = 0;
    cr_assert_eq(vf_unix_connect(v->dirfd, VF_LINK_VSOCK_NAME, &a->fd, &e), 0, "%s", e.msg);
    if (send(a->fd, line, len, MSG_NOSIGNAL) != (ssize_t)len) {
        vf_close_fd(&a->fd);
        return false;
    }
    while (got == 0 || line[got - 1] != '\n') {
        ssize_t n = read(a->fd, line + got, 1); /* what follows the line is the guest's */
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            vf_close_fd(&a->fd);
            return false;
        }
        if (n < 0)
            cr_assert_eq(wait_fd(a, a->fd, POLLIN, deadline_us), 0, "CONNECT is not answered");
        else
            cr_assert_lt(++got, sizeof(line), "the answer to CONNECT has no end");
    }
    cr_assert(strncmp(line, "OK ", 3) == 0, "%.*s", (int)got, line);
    return true;
}

static void open_vsock(struct sup_agent *a, const struct sup_vm *v)
{
    int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
    while (!call_vsock(a, v, deadline_us)) {
        cr_assert(vf_deadline_left_ms(deadline_us) > 0, "nobody listens on vsock");
        sup_wait_loop(a->s, vf_deadline_after_ms(5), NULL);
    }
    a->out_fd = a->fd;
}

struct sup_agent *sup_agent_open(struct sup_vm *v)
{
    struct vf_error e;
    struct sup_agent *a = calloc(1, sizeof(*a));
    cr_assert(a);
    a->s = v->s;
    enum vf_link link = vf_vm_link_of(vf_vmm_find(v->target->driver), v->cfg.channel);
    if (link == VF_LINK_FIFOS)
        open_fifos(a, v);
    else if (link == VF_LINK_VSOCK)
        open_vsock(a, v);
    else {
        cr_assert_eq(vf_unix_connect(v->dirfd, VF_LINK_SOCKET_NAME, &a->fd, &e), 0, "%s", e.msg);
        a->out_fd = a->fd;
    }
    vf_wire_reset(&a->reader);
    return a;
}

void sup_agent_close(struct sup_agent *a)
{
    if (a->out_fd != a->fd)
        vf_close_fd(&a->out_fd);
    vf_close_fd(&a->fd);
    sup_turns(a->s, 2); /* the other end may live on this loop */
    free(a);
}

/* Turns the loop, then waits for it or for fd. */
static int wait_fd(struct sup_agent *a, int fd, short events, int64_t deadline_us)
{
    uv_run(&a->s->loop, UV_RUN_NOWAIT);
    if (vf_deadline_left_ms(deadline_us) == 0)
        return -ETIMEDOUT;
    struct pollfd own = {.fd = fd, .events = events};
    sup_wait_loop(a->s, deadline_us, &own);
    return 0;
}

void sup_agent_start(struct sup_agent *a, uint8_t type)
{
    vf_wire_start(&a->w, type, ++a->id);
}

static int send_bytes(struct sup_agent *a, const uint8_t *p, size_t len, int64_t deadline_us)
{
    while (len > 0) {
        ssize_t n = a->out_fd != a->fd ? write(a->out_fd, p, len)
                                       : send(a->fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            p += n;
            len -= (size_t)n;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return -EPIPE;
        int r = wait_fd(a, a->out_fd, POLLOUT, deadline_us);
        if (r < 0)
            return r;
    }
    return 0;
}

static int send_frame(struct sup_agent *a, int64_t deadline_us)
{
    uint8_t frame[VF_WIRE_MAX_FRAME];
    size_t len = vf_wire_end(&a->w, frame);
    cr_assert(len > 0);
    return send_bytes(a, frame, len, deadline_us);
}

int sup_agent_send(struct sup_agent *a, int64_t timeout_ms)
{
    return send_frame(a, vf_deadline_after_ms(timeout_ms));
}

void sup_agent_send_raw(struct sup_agent *a, const char *bytes, size_t len)
{
    cr_assert_eq(send_bytes(a, (const uint8_t *)bytes, len, vf_deadline_after_ms(SUP_LONG_MS)), 0);
}

static int receive(struct sup_agent *a, int64_t deadline_us)
{
    for (;;) {
        while (a->in_pos < a->in_len) {
            a->in_pos +=
                vf_wire_feed(&a->reader, a->in + a->in_pos, a->in_len - a->in_pos, &a->frame);
            if (a->frame.type)
                return 0;
        }
        ssize_t n = read(a->fd, a->in, sizeof(a->in)); /* neither kind blocks */
        if (n > 0) {
            a->in_pos = 0;
            a->in_len = (size_t)n;
            continue;
        }
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return -EPIPE;
        int r = wait_fd(a, a->fd, POLLIN, deadline_us);
        if (r < 0)
            return r;
    }
}

int sup_agent_receive(struct sup_agent *a, int64_t timeout_ms)
{
    return receive(a, vf_deadline_after_ms(timeout_ms));
}

int sup_agent_ask(struct sup_agent *a, int64_t timeout_ms)
{
    int64_t deadline_us = vf_deadline_after_ms(timeout_ms);
    int r = send_frame(a, deadline_us);
    while (r == 0 && (r = receive(a, deadline_us)) == 0)
        if (a->frame.id == a->id)
            return 0;
    return r;
}

/* A guest that is booting may swallow the first attempts. */
int sup_agent_hello(struct sup_agent *a, int64_t timeout_ms, struct sup_hello *ret)
{
    int64_t deadline_us = vf_deadline_after_ms(timeout_ms);
    static const uint8_t zero;
    int r = -ETIMEDOUT;
    while (vf_deadline_left_ms(deadline_us) != 0) {
        int64_t again_us = vf_deadline_after_ms(500);
        if (again_us > deadline_us)
            again_us = deadline_us;
        if ((r = send_bytes(a, &zero, 1, again_us)) == 0) {
            sup_agent_start(a, VF_MSG_HELLO);
            r = send_frame(a, again_us);
        }
        while (r == 0 && (r = receive(a, again_us)) == 0) {
            size_t len;
            const uint8_t *p;
            if (a->frame.type != VF_MSG_HELLO_OK)
                continue;
            *ret = (struct sup_hello){0};
            p = vf_wire_find(&a->frame, VF_TAG_BOOT_ID, &len);
            cr_assert(p && len == 16, "HELLO_OK without a boot id");
            memcpy(ret->boot_id, p, 16);
            if ((p = vf_wire_find(&a->frame, VF_TAG_NONCE, &len))) {
                cr_assert_eq(len, 32);
                memcpy(ret->nonce, p, 32);
                ret->has_nonce = true;
            }
            if ((p = vf_wire_find(&a->frame, VF_TAG_FEATURES, &len)) && len == 4)
                ret->features = vf_wire_u32(p);
            return 0;
        }
        if (r != -ETIMEDOUT)
            return r;
    }
    return r;
}

static const uint8_t *must_find(struct sup_agent *a, uint16_t tag, size_t len)
{
    size_t n;
    const uint8_t *p = vf_wire_find(&a->frame, tag, &n);
    cr_assert(p && n == len, "the answer (type 0x%x) has no tag %d of %zu bytes", a->frame.type,
              tag, len);
    return p;
}

void sup_agent_plant(struct sup_agent *a, const uint8_t nonce[32])
{
    sup_agent_start(a, VF_MSG_RENEW);
    vf_wire_put(&a->w, VF_TAG_NONCE, nonce, 32);
    cr_assert_eq(sup_agent_ask(a, SUP_LONG_MS), 0);
    cr_assert_eq(a->frame.type, VF_MSG_RENEW_OK);
}

void sup_agent_reseed(struct sup_agent *a, uint8_t ret_sample[16])
{
    uint8_t entropy[64], digest[32];
    vf_random(entropy, sizeof(entropy));
    vf_sha256(entropy, sizeof(entropy), digest);
    sup_agent_start(a, VF_MSG_RENEW);
    vf_wire_put(&a->w, VF_TAG_ENTROPY, entropy, sizeof(entropy));
    cr_assert_eq(sup_agent_ask(a, SUP_LONG_MS), 0);
    cr_assert_eq(a->frame.type, VF_MSG_RENEW_OK);
    cr_assert_arr_eq(must_find(a, VF_TAG_DIGEST, 32), digest, 32);
    memcpy(ret_sample, must_find(a, VF_TAG_SAMPLE, 16), 16);
}

int sup_agent_exec(struct sup_agent *a, const char *const *argv, char *ret_out, size_t size)
{
    int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
    size_t used = 0;
    sup_agent_start(a, VF_MSG_EXEC);
    for (; *argv; argv++)
        vf_wire_put(&a->w, VF_TAG_ARG, *argv, strlen(*argv));
    cr_assert_eq(send_frame(a, deadline_us), 0);
    for (;;) {
        cr_assert_eq(receive(a, deadline_us), 0, "exec: no answer");
        size_t len;
        const uint8_t *p;
        if (a->frame.id != a->id)
            continue;
        switch (a->frame.type) {
        case VF_MSG_STDOUT:
            p = vf_wire_find(&a->frame, VF_TAG_DATA, &len);
            if (p && used + len < size) {
                memcpy(ret_out + used, p, len);
                used += len;
            }
            break;
        case VF_MSG_EXIT:
            ret_out[used] = 0;
            return (int)vf_wire_u32(must_find(a, VF_TAG_STATUS, 4));
        case VF_MSG_ERROR:
            p = vf_wire_find(&a->frame, VF_TAG_TEXT, &len);
            cr_assert_fail("exec: %.*s", p ? (int)len : 0, p ? (const char *)p : "");
            break;
        }
    }
}

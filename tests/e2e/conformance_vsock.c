/* Conformance: the agent over vsock, on the VMM's real device. The rest of the suite runs there too, where the channel
 * could make a difference (FOR_EACH_VSOCK); here is what only a vsock can do: connections that are cut off,
 * replaced and refused, and the credit that keeps one end from drowning the other.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "tests/e2e/conformance.h"

#define MANY 131072

static void must_greet(struct sup_agent *a, const uint8_t nonce[32])
{
    struct sup_hello hello;
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0);
    cr_assert_eq(hello.has_nonce, nonce != NULL);
    if (nonce)
        cr_assert_arr_eq(hello.nonce, nonce, 32);
}

static void must_end(struct sup_agent *a)
{
    int r;
    while ((r = sup_agent_receive(a, SUP_LONG_MS)) == 0)
        ;
    cr_assert_eq(r, -EPIPE, "the connection goes on: %d", r);
    sup_agent_close(a);
}

/* A save cuts the template's connections off from its clones; each clone is called anew, as often as one likes, and
 * the newest connection counts. */
static void called_anew(struct fixture *f)
{
    uint8_t nonce[32];
    int dirfd = sup_dir(&f->s, "out");
    struct sup_vm *tpl = ready_for(f, VF_VM_OP_PAUSE), *c[2];
    struct sup_agent *a = sup_agent_open(tpl), *first, *second;
    must_greet(a, NULL);
    vf_random(nonce, sizeof(nonce));
    sup_agent_plant(a, nonce);
    sup_must(tpl, VF_VM_OP_PAUSE, -1);
    sup_must(tpl, VF_VM_OP_SAVE, dirfd); /* with an open connection in it */
    sup_vm_stop(tpl, 0);
    must_end(a);

    for (int k = 0; k < 2; k++) {
        c[k] = sup_vm_clone_of(&f->s, tpl, k ? "clone1" : "clone0");
        sup_must(c[k], VF_VM_OP_CREATE, -1);
        sup_must(c[k], VF_VM_OP_RESTORE, dirfd);
        sup_must(c[k], VF_VM_OP_RESUME, -1);
        first = sup_agent_open(c[k]);
        must_greet(first, nonce);
        second = sup_agent_open(c[k]);
        must_greet(second, nonce);
        must_end(first);
        must_greet(second, nonce);
        sup_agent_close(second);
    }
    for (int k = 0; k < 2; k++) {
        a = sup_agent_open(c[k]);
        must_greet(a, nonce);
        sup_agent_close(a);
        sup_vm_stop(c[k], 0);
    }
    close(dirfd);
}
FOR_EACH_VSOCK(called_anew)

static void no_such_port(struct fixture *f)
{
    struct vf_error e;
    struct sup_vm *v = ready_for(f, VF_VM_OP_PAUSE);
    struct sup_agent *a = sup_agent_open(v);
    int fd;
    char c;
    must_greet(a, NULL);
    cr_assert_eq(vf_unix_connect(v->dirfd, VF_LINK_VSOCK_NAME, &fd, &e), 0, "%s", e.msg);
    cr_assert_eq(write(fd, "CONNECT 4242\n", 13), 13);
    int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
    ssize_t n;
    while ((n = read(fd, &c, 1)) < 0 && errno == EAGAIN) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        cr_assert(vf_deadline_left_ms(deadline_us) > 0, "CONNECT is not answered");
        sup_wait_loop(&f->s, deadline_us, &p);
    }
    cr_assert(n == 0 || (n < 0 && errno == ECONNRESET), "answered with '%c'", c);
    close(fd);
    must_greet(a, NULL); /* the guest is none the worse */
    sup_agent_close(a);
    sup_vm_stop(v, 0);
}
FOR_EACH_VSOCK(no_such_port)

static void start_exec(struct sup_agent *a, const char *name, const char *arg)
{
    sup_agent_start(a, VF_MSG_EXEC);
    vf_wire_put(&a->w, VF_TAG_ARG, name, strlen(name));
    if (arg)
        vf_wire_put(&a->w, VF_TAG_ARG, arg, strlen(arg));
    cr_assert_eq(sup_agent_send(a, SUP_LONG_MS), 0);
}

/* More than fits anywhere on the way is said to a host that does not listen; what waits there is lost with the
 * connection, and nothing else. */
static void flood_unread(struct fixture *f)
{
    struct sup_vm *v = ready_for(f, VF_VM_OP_PAUSE);
    struct sup_agent *a = sup_agent_open(v), *b;
    must_greet(a, NULL);
    start_exec(a, "flood", "2000000");
    cr_assert_eq(sup_agent_receive(a, SUP_LONG_MS), 0);
    b = sup_agent_open(v);
    must_greet(b, NULL);
    must_end(a);
    must_greet(b, NULL);
    sup_agent_close(b);
    sup_vm_stop(v, 0);
}
FOR_EACH_VSOCK(flood_unread)

static size_t take_output(struct sup_agent *a, uint8_t *ret, size_t room, size_t *credit,
                          bool *ret_ended)
{
    size_t len = 0;
    cr_assert_eq(sup_agent_receive(a, SUP_LONG_MS), 0);
    const uint8_t *p = vf_wire_find(&a->frame, VF_TAG_DATA, &len);
    if (a->frame.type == VF_MSG_STDOUT && p) {
        cr_assert_leq(len, room);
        memcpy(ret, p, len);
        return len;
    }
    if (a->frame.type == VF_MSG_CREDIT)
        *credit += vf_wire_u32(vf_wire_find(&a->frame, VF_TAG_BYTES, NULL));
    *ret_ended |= a->frame.type == VF_MSG_EXIT;
    return 0;
}

/* To the guest and back, several times what either end keeps for the other. */
static void many_bytes(struct fixture *f)
{
    static uint8_t out[MANY], back[MANY];
    size_t sent = 0, got = 0, credit = VF_WIRE_WINDOW;
    bool ended = false;
    struct sup_vm *v = ready_for(f, VF_VM_OP_PAUSE);
    struct sup_agent *a = sup_agent_open(v);
    must_greet(a, NULL);
    vf_random(out, sizeof(out));
    start_exec(a, "cat", NULL);
    uint32_t id = a->id;
    while (sent < MANY) {
        size_t n = MANY - sent < 8192 ? MANY - sent : 8192;
        while (credit < n)
            got += take_output(a, back + got, MANY - got, &credit, &ended);
        vf_wire_start(&a->w, VF_MSG_STDIN, id);
        vf_wire_put(&a->w, VF_TAG_DATA, out + sent, n);
        cr_assert_eq(sup_agent_send(a, SUP_LONG_MS), 0);
        sent += n;
        credit -= n;
    }
    vf_wire_start(&a->w, VF_MSG_STDIN, id); /* its end */
    cr_assert_eq(sup_agent_send(a, SUP_LONG_MS), 0);
    while (!ended)
        got += take_output(a, back + got, MANY - got, &credit, &ended);
    cr_assert_eq(got, MANY);
    uint8_t digest[2][VF_SHA256_LEN];
    vf_sha256(out, MANY, digest[0]);
    vf_sha256(back, MANY, digest[1]);
    cr_assert_arr_eq(digest[0], digest[1], VF_SHA256_LEN, "what came back is not what was sent");
    sup_agent_close(a);
    sup_vm_stop(v, 0);
}
FOR_EACH_VSOCK(many_bytes)

/* Parked VMs keep their connection. */
static void open_across_pauses(struct fixture *f)
{
    struct vf_vmm_caps caps;
    struct sup_vm *v = ready_for(f, VF_VM_OP_PAUSE);
    struct sup_agent *a = sup_agent_open(v);
    must_greet(a, NULL);
    vf_vmm_find(f->t->driver)->capabilities(vf_vm_info_of(v->vm)->version, &caps);
    for (int i = 0; i < 3 && caps.park_paused; i++) {
        sup_must(v, VF_VM_OP_PAUSE, -1);
        sup_must(v, VF_VM_OP_RESUME, -1);
        must_greet(a, NULL);
    }
    if (!caps.park_paused)
        fprintf(stderr, "NOT TESTED conformance_%s.open_across_pauses: version %s loses them\n",
                f->t->name, vf_vm_info_of(v->vm)->version);
    sup_agent_close(a);
    sup_vm_stop(v, 0);
}
FOR_EACH_VSOCK(open_across_pauses)

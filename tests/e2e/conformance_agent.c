/* Conformance: the agent's channel, whatever guest and VMM are at its ends. */
#include "tests/e2e/conformance.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/hash.h"

static void must_ping(struct sup_agent *a, size_t size)
{
    uint8_t data[VF_WIRE_MAX_BODY];
    size_t len;
    vf_random(data, size);
    sup_agent_start(a, VF_MSG_PING);
    vf_wire_put(&a->w, VF_TAG_DATA, data, size);
    cr_assert_eq(sup_agent_ask(a, SUP_LONG_MS), 0);
    cr_assert_eq(a->frame.type, VF_MSG_PONG);
    const uint8_t *p = vf_wire_find(&a->frame, VF_TAG_DATA, &len);
    cr_assert(p && len == size);
    cr_assert_arr_eq(p, data, size);
}

static void talks(struct fixture *f)
{
    char out[256];
    struct sup_hello hello;
    struct sup_vm *v = ready_for(f, VF_VM_OP_PAUSE);
    struct sup_agent *a = sup_agent_open(v);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0);
    cr_assert(hello.features & VF_FEATURE_EXEC);
    must_ping(a, 1);
    must_ping(a, 1000);
    must_ping(a, VF_WIRE_MAX_BODY - 4); /* a whole frame */

    const char *const echo[] = {"echo", "two", "words", NULL};
    cr_assert_eq(sup_agent_exec(a, echo, out, sizeof(out)), 0);
    cr_assert_str_eq(out, "two words\n");
    const char *const builtin[] = {"exit", "7", NULL}, *const shell[] = {"sh", "-c", "exit 7",
                                                                         NULL};
    cr_assert_eq(sup_agent_exec(a, f->t->linux_guest ? shell : builtin, out, sizeof(out)), 7);

    sup_agent_start(a, 0x7f);
    cr_assert_eq(sup_agent_ask(a, SUP_LONG_MS), 0);
    cr_assert_eq(a->frame.type, VF_MSG_ERROR, "an unknown type is answered with ERROR");
    const char *const unknown[] = {"no-such-command", NULL};
    sup_agent_start(a, VF_MSG_EXEC);
    vf_wire_put(&a->w, VF_TAG_ARG, unknown[0], strlen(unknown[0]));
    cr_assert_eq(sup_agent_ask(a, SUP_LONG_MS), 0);
    cr_assert_eq(a->frame.type, VF_MSG_ERROR);

    /* Noise is dropped up to its end, the next frame is whole. */
    sup_agent_send_raw(a, "noise\0more", 10);
    sup_agent_send_raw(a, "", 1);
    must_ping(a, 10);

    /* A host that goes away in the middle of a frame, and another that comes. */
    sup_agent_send_raw(a, "half a fra", 10);
    sup_agent_close(a);
    a = sup_agent_open(v);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0);
    must_ping(a, 10);
    sup_agent_close(a);
    sup_vm_stop(v, 0);
}
FOR_EACH_TARGET(talks)
FOR_EACH_VSOCK(talks)

/* A guest that is paused hears nothing, and answers when it runs again. */
static void silent_while_paused(struct fixture *f)
{
    struct sup_hello hello;
    struct sup_vm *v = ready_for(f, VF_VM_OP_PAUSE);
    struct sup_agent *a = sup_agent_open(v);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0);
    sup_must(v, VF_VM_OP_PAUSE, -1);
    sup_agent_start(a, VF_MSG_PING);
    uint32_t id = a->id;
    cr_assert_eq(sup_agent_ask(a, 100), -ETIMEDOUT);
    sup_must(v, VF_VM_OP_RESUME, -1);
    do
        cr_assert_eq(sup_agent_receive(a, SUP_LONG_MS), 0);
    while (a->frame.id != id);
    cr_assert_eq(a->frame.type, VF_MSG_PONG);
    sup_agent_close(a);
    sup_vm_stop(v, 0);
}
FOR_EACH_TARGET(silent_while_paused)
FOR_EACH_VSOCK(silent_while_paused)

/* The template may have been frozen in the middle of a message: what its host had begun to say is in
 * the guest's memory, in each clone. */
static void frozen_within_a_message(struct fixture *f)
{
    uint8_t nonce[32];
    struct sup_hello hello;
    int dirfd = sup_dir(&f->s, "out");
    struct sup_vm *tpl = ready_for(f, VF_VM_OP_PAUSE);
    struct sup_agent *a = sup_agent_open(tpl);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0);
    vf_random(nonce, sizeof(nonce));
    sup_agent_plant(a, nonce);
    sup_agent_start(a, VF_MSG_PING);
    sup_agent_send_raw(a, "\x05half", 5);
    sup_turns(&f->s, 5);
    sup_must(tpl, VF_VM_OP_PAUSE, -1);
    sup_must(tpl, VF_VM_OP_SAVE, dirfd);
    sup_agent_close(a);
    sup_vm_stop(tpl, 0);

    struct sup_vm *v = sup_vm_clone_of(&f->s, tpl, "clone");
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_RESTORE, dirfd);
    sup_must(v, VF_VM_OP_RESUME, -1);
    a = sup_agent_open(v);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0);
    cr_assert(hello.has_nonce);
    cr_assert_arr_eq(hello.nonce, nonce, 32);
    must_ping(a, 100);
    sup_agent_close(a);
    sup_vm_stop(v, 0);
    close(dirfd);
}
FOR_EACH_TARGET(frozen_within_a_message)
FOR_EACH_VSOCK(frozen_within_a_message)

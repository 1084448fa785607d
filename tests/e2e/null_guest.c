/* The null driver's guest: what its script can make it do, seen from the host's end of the channel. */
#include "tests/e2e/support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"

#define SHORT_MS 100

struct guest {
    struct sup s;
    int memory_fd;
    struct sup_vm *v;
    struct sup_agent *a;
};

static void guest_open_with(struct guest *g, const char *script, int n_nics)
{
    struct vf_null_script parsed;
    struct vf_error e;
    sup_open(&g->s);
    g->memory_fd = sup_memory(&sup_null);
    g->v = sup_vm_new(&g->s, &sup_null, "vm");
    g->v->cfg.memory_fd = g->memory_fd;
    g->v->cfg.n_nics = n_nics;
    cr_assert_eq(vf_null_script_parse(script, &parsed, &e), 0, "%s", e.msg);
    vf_null_set_script(g->v->vm, &parsed);
    sup_must(g->v, VF_VM_OP_CREATE, -1);
    sup_must(g->v, VF_VM_OP_START, -1);
    g->a = sup_agent_open(g->v);
}

static void guest_open(struct guest *g, const char *script)
{
    guest_open_with(g, script, 0);
}

static void guest_close(struct guest *g)
{
    sup_agent_close(g->a);
    sup_vm_stop(g->v, 0);
    vf_close_fd(&g->memory_fd);
    sup_close(&g->s);
}

Test(null_guest, answers_nothing, .timeout = 30)
{
    static const char *const scripts[] = {"agent:absent", "hello:hang", "hello:half",
                                          "hello:garbage", "hello:flood"};
    for (size_t i = 0; i < sizeof(scripts) / sizeof(*scripts); i++) {
        struct guest g;
        guest_open(&g, scripts[i]);
        sup_agent_start(g.a, VF_MSG_HELLO);
        cr_assert_eq(sup_agent_ask(g.a, SHORT_MS), -ETIMEDOUT, "%s", scripts[i]);
        cr_assert_eq(g.a->reader.garbage > 0,
                     strstr("hello:garbage hello:flood", scripts[i]) != NULL, "%s", scripts[i]);
        guest_close(&g);
    }
}

Test(null_guest, hangs_up, .timeout = 30)
{
    struct guest g;
    struct sup_hello hello;
    guest_open(&g, "ping:close");
    sup_agent_start(g.a, VF_MSG_PING);
    cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), -EPIPE);
    sup_agent_close(g.a);
    g.a = sup_agent_open(g.v);
    cr_assert_eq(sup_agent_hello(g.a, SUP_LONG_MS, &hello), 0, "it takes the next host");
    guest_close(&g);
}

Test(null_guest, fails_and_delays, .timeout = 30)
{
    struct guest g;
    size_t len;
    guest_open(&g, "freeze:fail,message=too hot;ping:delay=30ms");
    sup_agent_start(g.a, VF_MSG_FREEZE);
    cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), 0);
    cr_assert_eq(g.a->frame.type, VF_MSG_ERROR);
    const uint8_t *p = vf_wire_find(&g.a->frame, VF_TAG_TEXT, &len);
    cr_assert(p && len == 7 && memcmp(p, "too hot", 7) == 0);
    int64_t before_us = vf_now_us();
    sup_agent_start(g.a, VF_MSG_PING);
    cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), 0);
    cr_assert_geq(vf_now_us() - before_us, 30000);
    guest_close(&g);
}

Test(null_guest, exits_when_asked, .timeout = 30)
{
    struct guest g;
    guest_open(&g, "exec:exit");
    sup_agent_start(g.a, VF_MSG_EXEC);
    vf_wire_put(&g.a->w, VF_TAG_ARG, "true", 4);
    cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), -EPIPE);
    sup_run(&g.s, &g.v->exited, SUP_LONG_MS, "EXITED");
    cr_assert_str_eq(sup_events(g.v), "resumed exited");
    guest_close(&g);
}

Test(null_guest, lies_about_itself, .timeout = 30)
{
    struct guest g;
    struct sup_hello first, second;
    uint8_t nonce[32];
    vf_random(nonce, sizeof(nonce));
    guest_open(&g, "agent:stale-nonce,new-boot-id");
    sup_agent_plant(g.a, nonce);
    cr_assert_eq(sup_agent_hello(g.a, SUP_LONG_MS, &first), 0);
    cr_assert_eq(sup_agent_hello(g.a, SUP_LONG_MS, &second), 0);
    cr_assert(first.has_nonce);
    cr_assert_arr_neq(first.nonce, nonce, 32);
    cr_assert_arr_neq(first.boot_id, second.boot_id, 16);
    guest_close(&g);

    guest_open(&g, "agent:no-nonce");
    sup_agent_plant(g.a, nonce);
    cr_assert_eq(sup_agent_hello(g.a, SUP_LONG_MS, &first), 0);
    cr_assert_not(first.has_nonce);
    guest_close(&g);
}

/* One RENEW with all of it; which of the answers are wrong depends on the script. */
Test(null_guest, ignores_its_renewal, .timeout = 30)
{
    static const struct {
        const char *script;
        bool digest, digest_right, time_right, identity_right;
    } cases[] = {
        {"", true, true, true, true},
        {"agent:ignore-entropy", false, false, true, true},
        {"agent:wrong-digest", true, false, true, true},
        {"agent:ignore-time", true, true, false, true},
        {"agent:ignore-identity", true, true, true, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct guest g;
        uint8_t entropy[64], digest[32];
        static const uint8_t machine_id[16] = "0123456789abcdef";
        const int64_t time_ns = 1234567890;
        size_t len;
        const uint8_t *p;
        guest_open(&g, cases[i].script);
        vf_random(entropy, sizeof(entropy));
        vf_sha256(entropy, sizeof(entropy), digest);
        sup_agent_start(g.a, VF_MSG_RENEW);
        vf_wire_put(&g.a->w, VF_TAG_ENTROPY, entropy, sizeof(entropy));
        vf_wire_put_i64(&g.a->w, VF_TAG_TIME, time_ns);
        vf_wire_put(&g.a->w, VF_TAG_MACHINE_ID, machine_id, 16);
        vf_wire_put(&g.a->w, VF_TAG_HOSTNAME, "renewed", 7);
        cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), 0);
        cr_assert_eq(g.a->frame.type, VF_MSG_RENEW_OK);
        p = vf_wire_find(&g.a->frame, VF_TAG_DIGEST, &len);
        cr_assert_eq(p != NULL, cases[i].digest, "%s", cases[i].script);
        cr_assert_eq(p && memcmp(p, digest, 32) == 0, cases[i].digest_right, "%s", cases[i].script);
        p = vf_wire_find(&g.a->frame, VF_TAG_TIME, &len);
        int64_t off_ns = vf_wire_i64(p) - time_ns;
        cr_assert_eq(off_ns >= 0 && off_ns < 60000000000, cases[i].time_right, "%s",
                     cases[i].script);
        p = vf_wire_find(&g.a->frame, VF_TAG_MACHINE_ID, &len);
        cr_assert_eq(memcmp(p, machine_id, 16) == 0, cases[i].identity_right);
        p = vf_wire_find(&g.a->frame, VF_TAG_HOSTNAME, &len);
        cr_assert_eq(len == 7 && memcmp(p, "renewed", 7) == 0, cases[i].identity_right);
        guest_close(&g);
    }
}

Test(null_guest, refuses_a_bad_renewal, .timeout = 30)
{
    static const struct {
        uint16_t tag;
        size_t len;
    } bad[] = {{VF_TAG_NONCE, 31},   {VF_TAG_ENTROPY, 63},    {VF_TAG_ENTROPY, 513},
               {VF_TAG_TIME, 4},     {VF_TAG_MACHINE_ID, 15}, {VF_TAG_HOSTNAME, 64},
               {VF_TAG_HOSTNAME, 0}, {VF_TAG_MAC, 6}};
    static const uint8_t zeros[600];
    struct guest g;
    struct sup_hello hello;
    guest_open(&g, "");
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        sup_agent_start(g.a, VF_MSG_RENEW);
        vf_wire_put(&g.a->w, bad[i].tag, zeros, bad[i].len);
        cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), 0);
        cr_assert_eq(g.a->frame.type, VF_MSG_ERROR, "tag %d of %zu bytes", bad[i].tag, bad[i].len);
    }
    cr_assert_eq(sup_agent_hello(g.a, SUP_LONG_MS, &hello), 0);
    cr_assert_not(hello.has_nonce);
    guest_close(&g);
}

/* All that a renewal can say of a NIC, in the order in which it is answered. */
static const struct {
    uint16_t tag;
    uint8_t len;
    const char *value;
} nic_values[] = {
    {VF_TAG_MAC, 6, "\2\x11\x22\x33\x44\x55"},
    {VF_TAG_IPV4, 9, "\xac\x1f\xff\2\x1e\xac\x1f\xff\1"},
    {VF_TAG_IPV6, 33, "0123456789abcdef@fedcba9876543210"},
    {VF_TAG_MTU, 4, "\x28\x23\0\0"},
    {VF_TAG_GATEWAY_MAC, 6, "\2\x76\x6d\0\0\1"},
    {VF_TAG_DNS, 4, "\xc0\0\2\x35"},
    {VF_TAG_DNS, 16, "0123456789abcdef"},
};
#define N_NIC_VALUES (sizeof(nic_values) / sizeof(*nic_values))

static void ask_nic(struct guest *g)
{
    sup_agent_start(g->a, VF_MSG_RENEW);
    for (size_t i = 0; i < N_NIC_VALUES; i++)
        vf_wire_put(&g->a->w, nic_values[i].tag, nic_values[i].value, nic_values[i].len);
    cr_assert_eq(sup_agent_ask(g->a, SUP_LONG_MS), 0);
}

/* How many of the values came back as they were told. */
static int nic_right(const struct guest *g, int *ret_told)
{
    size_t pos = 0, len, i = 0;
    uint16_t tag;
    const uint8_t *p;
    int right = 0;
    *ret_told = 0;
    for (; vf_wire_next(&g->a->frame, &pos, &tag, &p, &len) > 0; ++*ret_told) {
        while (i < N_NIC_VALUES && nic_values[i].tag != tag)
            i++;
        cr_assert_lt(i, N_NIC_VALUES, "tag %d was not asked for here", tag);
        right += len == nic_values[i].len && memcmp(p, nic_values[i].value, len) == 0;
        i++;
    }
    return right;
}

Test(null_guest, takes_its_network, .timeout = 30)
{
    static const struct {
        const char *script;
        int told, right;
    } cases[] = {
        {"", 7, 7},
        {"agent:wrong-mac", 7, 6},
        {"agent:wrong-ipv4", 7, 6},
        {"agent:wrong-ipv6", 7, 6},
        {"agent:wrong-mtu", 7, 6},
        {"agent:wrong-gateway-mac", 7, 6},
        {"agent:wrong-dns", 7, 5},
        {"agent:no-dns", 5, 5},
        {"agent:old-net", 2, 2},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct guest g;
        int told;
        guest_open_with(&g, cases[i].script, 1);
        for (int twice = 0; twice < 2; twice++) { /* resolvers take the place of those before */
            ask_nic(&g);
            cr_assert_eq(g.a->frame.type, VF_MSG_RENEW_OK, "%s", cases[i].script);
            cr_assert_eq(nic_right(&g, &told), cases[i].right, "%s", cases[i].script);
            cr_assert_eq(told, cases[i].told, "%s", cases[i].script);
        }
        sup_agent_start(g.a, VF_MSG_RENEW);
        vf_wire_put(&g.a->w, VF_TAG_MAC, "12345", 5);
        cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), 0);
        cr_assert_eq(g.a->frame.type, VF_MSG_ERROR);
        guest_close(&g);
    }
    struct guest g;
    guest_open(&g, "");
    ask_nic(&g);
    cr_assert_eq(g.a->frame.type, VF_MSG_ERROR, "it has no NIC");
    guest_close(&g);
}

Test(null_guest, ends_by_itself, .timeout = 30)
{
    static const struct {
        const char *script, *events;
    } cases[] = {{"running:panic=1ms", "resumed panicked"},
                 {"running:shutdown=1ms", "resumed shutdown"},
                 {"running:failed=1ms", "resumed failed"},
                 {"running:exit=1ms", "resumed exited"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct guest g;
        guest_open(&g, cases[i].script);
        int64_t deadline_us = vf_deadline_after_ms(SUP_LONG_MS);
        while (uv_run(&g.s.loop, UV_RUN_NOWAIT), g.v->n_events < 2 && vf_now_us() < deadline_us)
            sup_wait_loop(&g.s, deadline_us, NULL);
        cr_assert_str_eq(sup_events(g.v), cases[i].events);
        guest_close(&g);
    }
}

/* Commands that run on: output stops at the window, goes on with credit, ends by a signal or a
 * deadline. */
Test(null_guest, commands, .timeout = 30)
{
    struct guest g;
    size_t len, got = 0;
    char out[64], again[64];
    const char *const counter[] = {"counter", NULL}, *const random[] = {"random", "16", NULL};
    guest_open(&g, "");
    cr_assert_eq(sup_agent_exec(g.a, counter, out, sizeof(out)), 0);
    cr_assert_str_eq(out, "0\n");
    cr_assert_eq(sup_agent_exec(g.a, counter, out, sizeof(out)), 0);
    cr_assert_str_eq(out, "1\n");
    cr_assert_eq(sup_agent_exec(g.a, random, out, sizeof(out)), 0);
    cr_assert_eq(sup_agent_exec(g.a, random, again, sizeof(again)), 0);
    cr_assert_eq(strlen(out), 33);
    cr_assert_str_neq(out, again);

    sup_agent_start(g.a, VF_MSG_EXEC);
    vf_wire_put(&g.a->w, VF_TAG_ARG, "flood", 5);
    vf_wire_put(&g.a->w, VF_TAG_ARG, "300000", 6);
    cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), 0);
    cr_assert_eq(g.a->frame.type, VF_MSG_EXEC_OK);
    uint32_t id = g.a->id;
    while (got < VF_WIRE_WINDOW) {
        cr_assert_eq(sup_agent_receive(g.a, SUP_LONG_MS), 0);
        cr_assert_eq(g.a->frame.type, VF_MSG_STDOUT);
        cr_assert(vf_wire_find(&g.a->frame, VF_TAG_DATA, &len));
        got += len;
    }
    cr_assert_eq(got, VF_WIRE_WINDOW);
    cr_assert_eq(sup_agent_receive(g.a, SHORT_MS), -ETIMEDOUT, "no more than was allowed");
    vf_wire_start(&g.a->w, VF_MSG_CREDIT, id);
    vf_wire_put_u32(&g.a->w, VF_TAG_BYTES, 100000);
    cr_assert_eq(sup_agent_send(g.a, SUP_LONG_MS), 0);
    do {
        cr_assert_eq(sup_agent_receive(g.a, SUP_LONG_MS), 0);
        if (g.a->frame.type == VF_MSG_STDOUT && vf_wire_find(&g.a->frame, VF_TAG_DATA, &len))
            got += len;
    } while (g.a->frame.type != VF_MSG_EXIT);
    cr_assert_eq(got, 300000);

    sup_agent_start(g.a, VF_MSG_EXEC);
    vf_wire_put(&g.a->w, VF_TAG_ARG, "hang", 4);
    vf_wire_put_u32(&g.a->w, VF_TAG_DEADLINE_MS, 20);
    cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), 0);
    do
        cr_assert_eq(sup_agent_receive(g.a, SUP_LONG_MS), 0);
    while (g.a->frame.type != VF_MSG_EXIT);
    cr_assert(vf_wire_find(&g.a->frame, VF_TAG_TIMED_OUT, &len));

    sup_agent_start(g.a, VF_MSG_EXEC);
    vf_wire_put(&g.a->w, VF_TAG_ARG, "cat", 3);
    cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), 0);
    id = g.a->id;
    vf_wire_start(&g.a->w, VF_MSG_STDIN, id);
    vf_wire_put(&g.a->w, VF_TAG_DATA, "meow", 4);
    cr_assert_eq(sup_agent_ask(g.a, SUP_LONG_MS), 0);
    cr_assert_eq(g.a->frame.type, VF_MSG_STDOUT);
    const uint8_t *p = vf_wire_find(&g.a->frame, VF_TAG_DATA, &len);
    cr_assert(p && len == 4 && memcmp(p, "meow", 4) == 0);
    vf_wire_start(&g.a->w, VF_MSG_KILL, id);
    vf_wire_put_u32(&g.a->w, VF_TAG_SIGNAL, 15);
    cr_assert_eq(sup_agent_send(g.a, SUP_LONG_MS), 0);
    do
        cr_assert_eq(sup_agent_receive(g.a, SUP_LONG_MS), 0);
    while (g.a->frame.type != VF_MSG_EXIT);
    cr_assert_eq(vf_wire_u32(vf_wire_find(&g.a->frame, VF_TAG_SIGNAL, &len)), 15);
    guest_close(&g);
}

/* A state restored over memory that is not its own is no guest. */
Test(null_guest, state_and_memory_belong_together, .timeout = 30)
{
    struct sup s;
    struct sup_hello hello;
    sup_open(&s);
    int memory = sup_memory(&sup_null), other = sup_memory(&sup_null), dirfd = sup_dir(&s, "out");
    sup_make_saved(&s, &sup_null, memory, dirfd);
    struct sup_vm *v = sup_vm_new(&s, &sup_null, "vm");
    v->cfg.memory_fd = other;
    v->cfg.memory_shared = false;
    v->cfg.incoming = true;
    sup_must(v, VF_VM_OP_CREATE, -1);
    sup_must(v, VF_VM_OP_RESTORE, dirfd);
    sup_must(v, VF_VM_OP_RESUME, -1);
    struct sup_agent *a = sup_agent_open(v);
    cr_assert_eq(sup_agent_hello(a, SHORT_MS, &hello), -ETIMEDOUT);
    sup_agent_close(a);
    sup_vm_stop(v, 0);
    vf_close_fd(&memory);
    vf_close_fd(&other);
    vf_close_fd(&dirfd);
    sup_close(&s);
}

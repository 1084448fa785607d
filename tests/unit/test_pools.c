/* Pools: filled, taken from, emptied, set, drained; over the null driver. */
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tests/unit/pools_support.h"

#define HIT VF_REQUIRE(VF_GOT_HIT)
#define STANDBY VF_REQUIRE(VF_GOT_STANDBY)
#define CLONE VF_REQUIRE(VF_GOT_CLONE)
#define COLD VF_REQUIRE(VF_GOT_COLD)

static void expect_source(struct vf_slot *vm, const char *source, const char *reason)
{
    char text[256];
    pools_vm_text(vm, "source", text);
    cr_expect_str_eq(text, source);
    pools_vm_text(vm, "reason", text);
    cr_expect(strstr(text, reason), "reason is '%s', not '%s'", text, reason);
}

Test(pools, a_running_vm_is_handed_out_at_once, .timeout = 60)
{
    struct pools t;
    struct got g;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_warm(&t, pool, 3);
    pools_acquire(&t, "web", &alice, 0, &g);
    cr_assert(g.done, "it had to wait");
    cr_assert_not_null(g.vm, "%s", g.err.msg);
    expect_source(g.vm, "hit", "ready");
    POOLS_WAIT(&t, pools_number(pool, "parked") == 3); /* refilled */
    cr_expect_eq(pools_number(pool, "leased"), 1);
    cr_expect_eq(pools_dirs(&t), 4);
    pools_release(&t, g.id, &alice);
    cr_expect_eq(pools_dirs(&t), 3);
    pools_release(&t, g.id, &alice); /* again: no error */
    pools_close(&t);
}

Test(pools, a_paused_vm_is_woken_and_proves_itself, .timeout = 60)
{
    struct pools t;
    struct got g;
    char text[256];
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "paused");
    pools_warm(&t, pool, 2);
    pools_acquire(&t, "web", &alice, 0, &g);
    cr_assert(!g.done, "nobody asked the guest");
    POOLS_WAIT(&t, g.done);
    cr_assert_not_null(g.vm, "%s", g.err.msg);
    expect_source(g.vm, "hit", "ready");
    pools_vm_text(g.vm, "state", text);
    cr_expect_str_eq(text, "leased");
    pools_release(&t, g.id, &alice);
    pools_close(&t);
}

Test(pools, an_empty_pool_clones_and_no_template_boots, .timeout = 60)
{
    struct pools t;
    struct vf_error e;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    struct vf_slot *vm = pools_take(&t, "web", &alice, 0);
    expect_source(vm, "cold", "no template");
    cr_assert_eq(vf_pool_build(pool, &e), 0, "%s", e.msg);
    POOLS_WAIT(&t, pools_number(pool, "generation") == 1);
    POOLS_WAIT(&t, pools_heard(&t, "template.built"));
    vm = pools_take(&t, "web", &alice, 0);
    expect_source(vm, "clone", "pool empty");
    vm = pools_take(&t, "web", &alice, COLD);
    expect_source(vm, "cold", "asked for");
    pools_close(&t);
}

static void with_standby(struct vf_pool_config *c)
{
    c->standby = 1;
}

Test(pools, a_standby_vmm_is_cloned_into, .timeout = 60)
{
    struct pools t;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_set(pool, with_standby);
    POOLS_WAIT(&t, pools_number(pool, "standby") == 1);
    struct vf_slot *vm = pools_take(&t, "web", &alice, 0);
    expect_source(vm, "standby", "pool empty");
    POOLS_WAIT(&t, pools_number(pool, "standby") == 1);
    pools_close(&t);
}

Test(pools, only_accepted_sources_serve, .timeout = 60)
{
    struct pools t;
    struct got g;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_acquire(&t, "web", &alice, HIT, &g);
    cr_assert(g.done);
    cr_expect_eq(g.err.code, VF_BUSY);
    cr_expect_gt(g.retry_after_s, 0);
    cr_expect(strstr(g.err.msg, "pool empty"), "%s", g.err.msg);
    pools_warm(&t, pool, 1);
    struct vf_slot *vm = pools_take(&t, "web", &alice, HIT);
    expect_source(vm, "hit", "ready");
    /* The next is on its way: worth waiting for. */
    vm = pools_take(&t, "web", &alice, HIT);
    expect_source(vm, "hit", "");
    pools_close(&t);
}

Test(pools, quotas_are_kept, .timeout = 60)
{
    struct pools t;
    struct got g;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_warm(&t, pool, 2);
    t.settings.max_leases_per_holder = 1;
    struct vf_slot *vm = pools_take(&t, "web", &alice, 0);
    pools_acquire(&t, "web", &alice, 0, &g);
    cr_assert(g.done);
    cr_expect_eq(g.err.code, VF_BUSY);
    cr_expect(strstr(g.err.msg, "max_leases_per_holder"), "%s", g.err.msg);
    pools_take(&t, "web", &bob, 0);
    pools_release(&t, vf_slot_id(vm), &alice);
    pools_take(&t, "web", &alice, 0);
    pools_close(&t);
}

Test(pools, others_can_neither_see_nor_release_a_vm, .timeout = 60)
{
    struct pools t;
    struct vf_slot *vm, *seen;
    struct vf_error e;
    pools_open(&t);
    pools_add(&t, "web", "running");
    vm = pools_take(&t, "web", &alice, 0);
    cr_expect_lt(vf_pools_vm(t.p, vf_slot_id(vm), &bob, &seen, &e), 0);
    cr_expect_eq(e.code, VF_NOT_FOUND);
    cr_expect_null(vf_pools_next_vm(t.p, NULL, &bob, true));
    cr_expect_lt(vf_pools_release(t.p, vf_slot_id(vm), &bob, NULL, NULL, &e), 0);
    cr_expect_eq(vf_pools_vm(t.p, vf_slot_id(vm), &alice, &seen, &e), 0);
    cr_expect_eq(vf_pools_vm(t.p, vf_slot_id(vm), &root_caller, &seen, &e), 0);
    cr_expect_eq(vf_pools_next_vm(t.p, NULL, &alice, false), vm);
    pools_release(&t, vf_slot_id(vm), &root_caller);
    pools_close(&t);
}

Test(pools, a_lease_ends_with_its_time_to_live, .timeout = 60)
{
    struct pools t;
    struct got g;
    struct vf_acquire_options o = {.template_name = "web", .ttl_ms = 30};
    pools_open(&t);
    pools_add(&t, "web", "running");
    pools_acquire_with(&t, &o, &alice, &g);
    POOLS_WAIT(&t, g.done);
    cr_assert_not_null(g.vm, "%s", g.err.msg);
    POOLS_WAIT(&t, pools_heard(&t, "vm.expired"));
    POOLS_WAIT(&t, pools_dirs(&t) == 0);
    pools_close(&t);
}

Test(pools, clones_that_fail_quarantine_the_generation, .timeout = 60)
{
    struct pools t;
    struct vf_slot *vm;
    char text[256];
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_warm(&t, pool, 1);
    vm = pools_take(&t, "web", &alice, 0);
    pools_script("restore:fail");
    POOLS_WAIT(&t, pools_heard(&t, "template.quarantined"));
    pools_text(pool, "state", text);
    cr_expect_str_eq(text, "quarantined");
    struct vf_slot *cold = pools_take(&t, "web", &alice, 0);
    expect_source(cold, "cold", "quarantined");
    pools_script(NULL);
    POOLS_WAIT(&t, pools_number(pool, "parked") == 1);
    cr_expect_gt(pools_number(pool, "generation"), 1);
    expect_source(pools_take(&t, "web", &alice, 0), "hit", "ready");
    pools_release(&t, vf_slot_id(vm), &alice); /* of the quarantined one, and well */
    pools_close(&t);
}

static void after_three_clones(struct vf_pool_config *c)
{
    c->max_clones = 3;
}

Test(pools, a_worn_generation_is_rotated_without_a_gap, .timeout = 60)
{
    struct pools t;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_warm(&t, pool, 2);
    pools_set(pool, after_three_clones);
    for (int i = 0; i < 8; i++) {
        struct vf_slot *vm = pools_take(&t, "web", &alice, HIT | CLONE);
        pools_release(&t, vf_slot_id(vm), &alice);
    }
    POOLS_WAIT(&t, pools_number(pool, "generation") >= 2);
    POOLS_WAIT(&t, pools_number(pool, "parked") == 2 && pools_number(pool, "parked_old") == 0);
    pools_close(&t);
}

Test(pools, a_drain_empties_and_is_kept, .timeout = 60)
{
    struct pools t;
    struct got g;
    struct vf_error e;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_warm(&t, pool, 2);
    struct vf_slot *vm = pools_take(&t, "web", &alice, 0);
    cr_assert_eq(vf_pool_drain(pool, &e), 0, "%s", e.msg);
    POOLS_WAIT(&t, pools_dirs(&t) == 1); /* the lease goes on */
    pools_acquire(&t, "web", &alice, 0, &g);
    cr_assert(g.done);
    cr_expect_eq(g.err.code, VF_CONFLICT);
    pools_release(&t, vf_slot_id(vm), &alice);
    pools_reopen(&t);
    pools_acquire(&t, "web", &alice, 0, &g);
    cr_assert(g.done);
    cr_expect_eq(g.err.code, VF_CONFLICT, "%s", g.err.msg);
    pools_warm(&t, pools_pool(&t, "web"), 2);
    pools_close(&t);
}

Test(pools, a_pool_comes_back_as_it_was_set, .timeout = 60)
{
    struct pools t;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_set(pool, after_three_clones);
    pools_warm(&t, pool, 2);
    pools_reopen(&t);
    pool = pools_pool(&t, "web");
    cr_expect_eq(vf_pool_config(pool)->max_clones, 3);
    POOLS_WAIT(&t, pools_number(pool, "parked") == 2);
    pools_close(&t);
}

Test(pools, a_caller_who_goes_leaves_nothing, .timeout = 60)
{
    struct pools t;
    struct got g;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "paused");
    pools_warm(&t, pool, 1);
    pools_acquire(&t, "web", &alice, 0, &g); /* being woken */
    cr_assert_not_null(g.req);
    vf_acquire_cancel(g.req);
    pools_acquire(&t, "web", &alice, COLD, &g); /* being booted */
    cr_assert_not_null(g.req);
    vf_acquire_cancel(g.req);
    POOLS_WAIT(&t, pools_number(pool, "parked") == 1 && pools_number(pool, "making") == 0 &&
                       pools_dirs(&t) == 1);
    pools_close(&t);
}

static void one_at_a_time(struct vf_pool_config *c)
{
    c->start_concurrency = 1;
    c->max_waiting = 2;
}

Test(pools, waiting_is_in_line_and_bounded, .timeout = 60)
{
    struct pools t;
    struct got g[4];
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_set(pool, one_at_a_time);
    for (int i = 0; i < 4; i++)
        pools_acquire(&t, "web", &alice, 0, &g[i]);
    cr_assert(g[3].done);
    cr_expect_eq(g[3].err.code, VF_BUSY);
    cr_expect_gt(g[3].retry_after_s, 0);
    POOLS_WAIT(&t, g[0].done);
    POOLS_WAIT(&t, g[1].done);
    POOLS_WAIT(&t, g[2].done);
    for (int i = 0; i < 3; i++)
        cr_assert_not_null(g[i].vm, "%s", g[i].err.msg);
    cr_expect_str_neq(g[0].id, g[1].id);
    cr_expect_str_neq(g[1].id, g[2].id);
    pools_close(&t);
}

Test(pools, a_hanging_template_ends_by_its_deadline_and_holds_up_no_other, .timeout = 60)
{
    struct pools t;
    struct got g;
    struct vf_acquire_options o = {.template_name = "bad", .timeout_ms = 50};
    pools_open(&t);
    struct vf_pool *good = pools_add(&t, "good", "running");
    pools_warm(&t, good, 2);
    struct vf_pool *bad = pools_add(&t, "bad", "running");
    pools_script("start:hang");
    pools_acquire_with(&t, &o, &alice, &g);
    struct vf_slot *vm = pools_take(&t, "good", &alice, 0);
    cr_expect_not_null(vm);
    POOLS_WAIT(&t, g.done);
    cr_expect_eq(g.err.code, VF_TIMEOUT, "%s", g.err.msg);
    (void)bad;
    pools_script(NULL);
    pools_close(&t);
}

Test(pools, a_leased_vm_that_dies_says_so_until_it_is_released, .timeout = 60)
{
    struct pools t;
    char text[256];
    pools_open(&t);
    pools_add(&t, "web", "running");
    pools_script("running:exit=20ms");
    struct vf_slot *vm = pools_take(&t, "web", &alice, 0);
    POOLS_WAIT(&t, pools_heard(&t, "vm.died"));
    pools_vm_text(vm, "state", text);
    cr_expect_str_eq(text, "dead");
    POOLS_WAIT(&t, pools_dirs(&t) == 0);
    struct vf_agent *agent;
    struct vf_error e;
    cr_expect_lt(vf_slot_agent(vm, &agent, &e), 0);
    cr_expect_eq(e.code, VF_VMM_DIED, "%s", e.msg);
    pools_release(&t, vf_slot_id(vm), &alice);
    pools_close(&t);
}

Test(pools, parked_vms_that_die_are_replaced, .timeout = 60)
{
    struct pools t;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_script("running:exit=300ms");
    struct vf_error e;
    cr_assert_eq(vf_pool_warm(pool, 1, &e), 0, "%s", e.msg);
    POOLS_WAIT(&t, pools_heard(&t, "vm.died"));
    pools_script(NULL);
    POOLS_WAIT(&t, pools_number(pool, "parked") == 1);
    pools_close(&t);
}

Test(pools, memory_pressure_stops_refilling_and_is_told, .timeout = 60)
{
    struct pools t;
    char text[256];
    struct vf_error e;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_warm(&t, pool, 1);
    t.settings.min_available_mib = INT64_C(1) << 40;
    vf_pools_settings_changed(t.p);
    cr_assert_eq(vf_pool_warm(pool, 3, &e), 0, "%s", e.msg);
    POOLS_WAIT(&t, pools_heard(&t, "pool.pressure"));
    cr_expect_eq(pools_number(pool, "parked"), 1);
    (void)text;
    t.settings.min_available_mib = 0;
    vf_pools_settings_changed(t.p);
    POOLS_WAIT(&t, pools_number(pool, "parked") == 3);
    pools_close(&t);
}

/* Clones that hang: the time limit that is in force by then ends them, not the one the daemon began with. */
Test(pools, a_changed_time_limit_holds_at_once, .timeout = 60)
{
    struct pools t;
    pools_open(&t);
    t.settings.answer_timeout_ms = 600000;
    pools_reopen(&t);
    struct vf_pool *pool = pools_add(&t, "web", "paused");
    pools_warm(&t, pool, 1);
    t.settings.answer_timeout_ms = 50;
    vf_pools_settings_changed(t.p);
    pools_script("renew:hang"); /* of clones from now on: refills fail within the new limit */
    struct vf_slot *vm = pools_take(&t, "web", &alice, HIT);
    POOLS_WAIT(&t, pools_heard(&t, "pool.backoff"));
    pools_script(NULL);
    pools_release(&t, vf_slot_id(vm), &alice);
    pools_close(&t);
}

Test(pools, refilling_gives_way_to_a_caller, .timeout = 60)
{
    struct pools t;
    struct got g;
    pools_open(&t);
    pools_script("restore:delay=500ms");
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_set(pool, with_standby);
    POOLS_WAIT(&t, pools_number(pool, "standby") == 1);
    pools_take(&t, "web", &alice, CLONE); /* now clones are known to take that long */
    pools_acquire(&t, "web", &alice, STANDBY, &g);
    pools_turn(&t);
    cr_expect_eq(pools_number(pool, "standby"), 0);
    cr_expect_eq(pools_number(pool, "making"), 1, "a standby VMM is made meanwhile");
    POOLS_WAIT(&t, g.done);
    cr_assert_not_null(g.vm, "%s", g.err.msg);
    POOLS_WAIT(&t, pools_number(pool, "standby") == 1);
    pools_close(&t);
}

static bool removed;
static struct vf_error removed_err;
static void on_removed(void *arg, const struct vf_error *err)
{
    (void)arg;
    removed = true;
    if (err)
        removed_err = *err;
}

Test(pools, a_template_is_removed_when_nothing_of_it_is_leased, .timeout = 60)
{
    struct pools t;
    struct vf_error e;
    struct vf_pool *none;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_warm(&t, pool, 2);
    struct vf_slot *vm = pools_take(&t, "web", &alice, 0);
    cr_expect_lt(vf_pools_remove(t.p, "web", on_removed, NULL, &e), 0);
    cr_expect_eq(e.code, VF_CONFLICT);
    pools_release(&t, vf_slot_id(vm), &alice);
    cr_assert_eq(vf_pools_remove(t.p, "web", on_removed, NULL, &e), 0, "%s", e.msg);
    POOLS_WAIT(&t, removed);
    cr_expect_eq(removed_err.code, VF_OK, "%s", removed_err.msg);
    cr_expect_lt(vf_pools_find(t.p, "web", &none, &e), 0);
    pools_reopen(&t);
    cr_expect_lt(vf_pools_find(t.p, "web", &none, &e), 0, "it came back");
    pools_close(&t);
}

Test(pools, live_resizing_trims_and_fills, .timeout = 60)
{
    struct pools t;
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_warm(&t, pool, 4);
    pools_warm(&t, pool, 1);
    pools_warm(&t, pool, 3);
    POOLS_WAIT(&t, pools_dirs(&t) == 3); /* what was trimmed takes its time to go */
    pools_close(&t);
}

Test(pools, another_spec_under_the_name_outdates_the_generation, .timeout = 60)
{
    struct pools t;
    char text[256];
    pools_open(&t);
    struct vf_pool *pool = pools_add(&t, "web", "running");
    pools_warm(&t, pool, 1);
    pools_add(&t, "web", "running"); /* the same: nothing changes */
    cr_expect_eq(pools_number(pool, "generation"), 1);
    pools_add(&t, "web", "paused");
    pools_text(pool, "state", text);
    cr_expect_neq(pools_number(pool, "generation"), 1);
    POOLS_WAIT(&t, pools_number(pool, "parked") == 1 && pools_number(pool, "generation") == 2);
    pools_close(&t);
}

/* ---- networks. Those with slots are tested where there are namespaces: tests/e2e/daemon_network.c */

static void on_added(void *arg, const struct vf_error *err)
{
    struct vf_error *e = arg;
    *e = (struct vf_error){.code = VF_OK};
    if (err)
        *e = *err;
}

/* The error's code; VF_OK: it is there. */
static enum vf_code add_with(struct pools *t, const char *name, const char *network,
                             struct vf_error *e)
{
    char text[400];
    struct vf_spec spec;
    snprintf(text, sizeof(text),
             "{\"name\":\"%s\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16},"
             "\"boot\":{\"kernel\":\"/proc/self/exe\"},\"park\":\"running\",\"network\":%s}",
             name, network);
    cr_assert_eq(vf_spec_parse(text, strlen(text), NULL, NULL, &spec, e), 0, "%s", e->msg);
    e->code = VF_CODE_COUNT;
    if (vf_pools_add(t->p, &spec, on_added, e, e) == 0)
        POOLS_WAIT(t, e->code != VF_CODE_COUNT);
    vf_spec_free(&spec);
    return e->code;
}

Test(pools, a_network_that_cannot_be_had_is_refused_at_once, .timeout = 60)
{
    struct pools t;
    struct vf_error e;
    pools_open(&t);
    cr_expect_eq(add_with(&t, "web", "{}", &e), VF_INVALID_ARGUMENT);
    cr_expect(strstr(e.msg, "network.mode: nat") && strstr(e.msg, "are off"), "%s", e.msg);
    cr_expect(strstr(e.hint, "auto"), "%s", e.hint);
    cr_expect_eq(add_with(&t, "web", "{\"mode\":\"bridge\"}", &e), VF_INVALID_ARGUMENT);
    cr_expect_eq(add_with(&t, "web", "{\"mode\":\"none\"}", &e), VF_OK, "%s", e.msg);
    pools_close(&t);
}

static void aim(struct vf_pool_config *c)
{
    c->target = 1;
}

/* Its network comes with each acquire: none can be made before. */
Test(pools, external_vms_are_never_parked, .timeout = 60)
{
    struct pools t;
    struct vf_error e;
    struct got g;
    const struct vf_vm_options brought = {.has_mac = true, .mac = {2, 0, 0, 0, 0, 7}};
    const struct vf_acquire_options o = {.template_name = "out", .network = &brought};
    pools_open(&t);
    cr_assert_eq(add_with(&t, "out", "{\"mode\":\"external\"}", &e), VF_OK, "%s", e.msg);
    struct vf_pool *pool = pools_pool(&t, "out");
    struct vf_pool_config c = *vf_pool_config(pool);
    aim(&c);
    cr_expect_eq(vf_pool_set(pool, &c, &e), -EINVAL);
    cr_expect(strstr(e.msg, "target: ") && strstr(e.msg, "external"), "%s", e.msg);
    cr_expect_eq(vf_pool_warm(pool, 3, &e), -EINVAL);
    cr_assert_eq(vf_pool_warm(pool, 0, &e), 0, "%s", e.msg); /* but its template can be built */
    POOLS_WAIT(&t, pools_number(pool, "generation") == 1);
    pools_acquire_with(&t, &o, &alice, &g);
    POOLS_WAIT(&t, g.done);
    cr_assert_not_null(g.vm, "%s", g.err.msg);
    expect_source(g.vm, "clone", "network is the caller's");
    cr_expect_eq(pools_number(pool, "parked"), 0);
    pools_release(&t, g.id, &alice);
    /* Whose caller has gone is nobody else's. */
    pools_acquire_with(&t, &o, &alice, &g);
    cr_assert_not(g.done);
    vf_acquire_cancel(g.req);
    POOLS_WAIT(&t, pools_dirs(&t) == 0);
    /* One that parks can't become external before it is empty. */
    pools_add(&t, "web", "running");
    pools_warm(&t, pools_pool(&t, "web"), 1);
    cr_expect_eq(add_with(&t, "web", "{\"mode\":\"external\"}", &e), VF_INVALID_ARGUMENT);
    cr_expect(strstr(e.msg, "target: "), "%s", e.msg);
    pools_close(&t);
}

Test(pools, what_an_acquire_brings_must_fit_its_template, .timeout = 60)
{
    static const struct vf_port port = {.protocol = IPPROTO_TCP, .guest = 80};
    const struct vf_vm_options brought = {.tap = "tap0"};
    struct vf_acquire_options o = {.template_name = "web", .network = &brought};
    struct pools t;
    struct got g;
    struct vf_error e;
    int fds[2], taps[9];
    pools_open(&t);
    pools_add(&t, "web", "running");
    pools_acquire_with(&t, &o, &alice, &g);
    cr_assert(g.done && g.err.code == VF_INVALID_ARGUMENT, "%s", g.err.msg);
    cr_expect(strstr(g.err.msg, "network: "), "%s", g.err.msg);
    o = (struct vf_acquire_options){
        .template_name = "web", .ports = &port, .n_ports = 1, .has_ports = true};
    pools_acquire_with(&t, &o, &alice, &g);
    cr_assert(g.done && g.err.code == VF_INVALID_ARGUMENT, "%s", g.err.msg);
    cr_expect(strstr(g.err.msg, "ports: "), "%s", g.err.msg);
    /* Descriptors are copied, and closed again: leak checks see to that. */
    cr_assert_eq(add_with(&t, "out", "{\"mode\":\"external\"}", &e), VF_OK, "%s", e.msg);
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    for (int i = 0; i < 9; i++)
        taps[i] = fds[0];
    struct vf_vm_options many = {.tap_fds = taps, .n_tap_fds = 9};
    o = (struct vf_acquire_options){.template_name = "out", .network = &many};
    pools_acquire_with(&t, &o, &alice, &g);
    cr_assert(g.done && g.err.code == VF_INVALID_ARGUMENT, "%s", g.err.msg);
    many.n_tap_fds = 1; /* no tap: found out later, with the caller's own closed by then */
    pools_acquire_with(&t, &o, &alice, &g);
    close(fds[0]);
    POOLS_WAIT(&t, g.done);
    cr_assert_null(g.vm);
    cr_expect_neq(g.err.code, VF_OK);
    POOLS_WAIT(&t, pools_dirs(&t) == 0 && vf_closing_beside() == 0);
    char byte = 0;
    signal(SIGPIPE, SIG_IGN);
    cr_expect_eq(write(fds[1], &byte, 1), -1, "a copy is still open");
    close(fds[1]);
    pools_close(&t);
}

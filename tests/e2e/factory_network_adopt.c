/* VMs whose process was let go of are found again in their slots; what can't be trusted is ended; what nobody adopts is
 * swept away.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include "tests/e2e/factory_net.h"
#include "vmm/vmm.h"

TestSuite(factory_network_adopt, .timeout = 120);

/* A VM that an earlier process left. */
struct left {
    struct vf_spec spec;
    struct vf_proof proof;
    char id[16];
    int number;
    pid_t pid;
};

static void let_go(struct facnet *n, struct vf_instance *vm)
{
    bool gone = false;
    vf_instance_detach(vm, fac_set_true, &gone);
    while (!gone)
        uv_run(&n->f.sync.loop, UV_RUN_ONCE);
}

static void leave(struct facnet *n, const char *name, struct left *ret)
{
    FACNET_KVM_OR_SKIP("factory_network_adopt", name);
    facnet_open(n, "factory_network_adopt", name, 4,
                &(struct vf_sync_options){.trial_clones = -1, .outlive = true});
    ret->spec = facnet_tiny("tiny", VF_NETWORK_NAT);
    struct vf_instance *vm = fac_cold(&n->f, &ret->spec);
    struct vf_port port = {.protocol = IPPROTO_TCP, .port = 18081, .guest = 81};
    facnet_must_publish(n, vm, &port);
    snprintf(ret->id, sizeof(ret->id), "%s", vf_instance_id(vm));
    ret->proof = *vf_instance_proof(vm);
    ret->number = facnet_number(vm);
    ret->pid = facnet_pid(vm);
    let_go(n, vm);
    facnet_reopen(n);
}

static void adopt(struct facnet *n, const struct left *l, int number, struct facnet_done *ret)
{
    const struct vf_adopt a = {.id = l->id,
                               .source = VF_SOURCE_COLD,
                               .spec = &l->spec,
                               .proof = &l->proof,
                               .network = number};
    struct vf_error e;
    *ret = (struct facnet_done){0};
    cr_assert_eq(vf_factory_adopt(n->f.sync.factory, &a, facnet_on_vm, ret, NULL, &e), 0, "%s",
                 e.msg);
    facnet_wait(n, ret);
}

/* And reaped, as it is this process's child. */
static void expect_ended(pid_t pid)
{
    cr_assert(kill(pid, 0) < 0 && errno == ESRCH, "process %d was not ended", (int)pid);
}

static void sweep(struct facnet *n, int removed)
{
    struct vf_sweep s;
    struct vf_error e;
    cr_assert_eq(vf_networks_sweep(n->networks, &s, &e), 0, "%s", e.msg);
    cr_assert_eq(s.removed, removed);
    cr_assert_eq(s.foreign, 0, "%s", s.names);
}

Test(factory_network_adopt, again_and_again)
{
    struct facnet n;
    struct left l;
    struct facnet_done d;
    leave(&n, "again_and_again", &l);
    for (int round = 0; round < 2; round++) {
        adopt(&n, &l, l.number, &d);
        cr_assert(d.vm, "%s", d.err.msg);
        sweep(&n, 0);
        facnet_expect_taken(&n, 1, "adopted");
        cr_assert_eq(facnet_number(d.vm), l.number);
        cr_assert(facnet_is_in(facnet_pid(d.vm), facnet_of(d.vm).netns));
        cr_assert_eq(facnet_of(d.vm).n_ports, 1, "its ports are as they were");
        cr_assert_eq(facnet_of(d.vm).ports[0].port, 18081);
        if (round == 0) {
            let_go(&n, d.vm);
            facnet_expect_taken(&n, 0, "let go");
            facnet_reopen(&n);
        }
    }
    /* All that can be done to one's own can be done to it. */
    struct vf_port port = {.protocol = IPPROTO_TCP, .port = 18080, .guest = 80};
    facnet_must_publish(&n, d.vm, &port);
    cr_assert_eq(facnet_of(d.vm).ports[0].port, 18080);
    cr_assert_eq(facnet_of(d.vm).n_ports, 1);
    fac_destroy(&n.f, d.vm);
    expect_ended(l.pid);
    cr_assert_eq(facnet_counts(&n).doubts, 0);
    cr_assert_eq(facnet_counts(&n).ready, 1, "it is given back");
    vf_spec_free(&l.spec);
    facnet_close(&n);
}

/* Of a slot that is not there: what is left of the VM can't be trusted. */
Test(factory_network_adopt, slot_is_gone)
{
    struct facnet n;
    struct left l;
    struct facnet_done d;
    leave(&n, "slot_is_gone", &l);
    adopt(&n, &l, l.number + 1, &d);
    cr_assert_null(d.vm);
    fac_expect(&d.err, VF_NOT_FOUND, "find: network slot ");
    expect_ended(l.pid);
    cr_assert_eq(fac_run_dirs(&n.f), 0);
    facnet_expect_taken(&n, 0, "refused");
    sweep(&n, 1);
    vf_spec_free(&l.spec);
    facnet_close(&n);
}

/* The journal is older than what has become of the slot: it is another's by now, and stays that. */
Test(factory_network_adopt, slot_is_anothers)
{
    struct facnet n;
    struct left l;
    struct facnet_done d;
    leave(&n, "slot_is_anothers", &l);
    struct vf_instance *other = fac_cold(&n.f, &l.spec);
    int number = facnet_number(other);
    cr_assert_neq(number, l.number);
    adopt(&n, &l, number, &d);
    cr_assert_null(d.vm);
    cr_assert_neq(d.err.code, VF_OK);
    cr_assert(strstr(d.err.msg, "network slot"), "%s", d.err.msg);
    expect_ended(l.pid);
    facnet_expect_taken(&n, 1, "the other's");
    cr_assert(facnet_is_in(facnet_pid(other), facnet_of(other).netns));
    fac_destroy(&n.f, other);
    cr_assert_eq(facnet_counts(&n).doubts, 0);
    facnet_reopen(&n); /* for nothing may be taken before the sweep */
    sweep(&n, 1);
    vf_spec_free(&l.spec);
    facnet_close(&n);
}

/* Not even in another order. */
Test(factory_network_adopt, slot_was_anothers_first)
{
    struct facnet n;
    struct left l, other;
    struct facnet_done d;
    leave(&n, "slot_was_anothers_first", &l);
    struct vf_instance *vm = fac_cold(&n.f, &l.spec);
    other = l; /* but for what follows */
    snprintf(other.id, sizeof(other.id), "%s", vf_instance_id(vm));
    other.number = facnet_number(vm);
    other.pid = facnet_pid(vm);
    let_go(&n, vm);
    facnet_reopen(&n);
    adopt(&n, &l, other.number, &d);
    cr_assert_null(d.vm);
    cr_assert_eq(d.err.code, VF_CONFLICT, "%s", d.err.msg);
    expect_ended(l.pid);
    adopt(&n, &other, other.number, &d);
    cr_assert(d.vm, "%s", d.err.msg);
    fac_destroy(&n.f, d.vm);
    expect_ended(other.pid);
    sweep(&n, 1);
    vf_spec_free(&l.spec);
    facnet_close(&n);
}

Test(factory_network_adopt, process_has_ended)
{
    struct facnet n;
    struct left l;
    struct facnet_done d;
    leave(&n, "process_has_ended", &l);
    kill(l.pid, SIGKILL);
    waitpid(l.pid, NULL, 0);
    adopt(&n, &l, l.number, &d);
    cr_assert_null(d.vm);
    fac_expect(&d.err, VF_NOT_FOUND, "has ended");
    facnet_expect_taken(&n, 0, "ended");
    sweep(&n, 1);
    vf_spec_free(&l.spec);
    facnet_close(&n);
}

Test(factory_network_adopt, discarded)
{
    struct facnet n;
    struct left l;
    struct vf_error e;
    struct facnet_done d = {0};
    leave(&n, "discarded", &l);
    cr_assert_eq(vf_factory_discard(n.f.sync.factory, l.id, facnet_on_done, &d, &e), 0, "%s",
                 e.msg);
    facnet_wait(&n, &d);
    cr_assert_eq(d.err.code, VF_OK, "%s", d.err.msg);
    expect_ended(l.pid);
    sweep(&n, 1);
    vf_spec_free(&l.spec);
    facnet_close(&n);
}

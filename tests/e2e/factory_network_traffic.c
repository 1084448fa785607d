/* Packets to guests and back, with each VMM: every clone has the same address inside, and answers for itself alone under
 * one of its own; after a standby, after a park, out of a cold boot.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "tests/e2e/factory_net.h"
#include "vmm/vmm.h"

TestSuite(factory_network_traffic, .timeout = 180);

/* What the guest at that address answers; it was sent once, for nothing may be lost. */
static const char *ask(const struct vf_ip *ip, int port, const char *question)
{
    struct vf_ip from;
    int fd = net_udp(-1, ip->family == AF_INET ? "0.0.0.0" : "::", 0);
    net_udp_send(fd, ip, port, question);
    const char *answer = net_udp_receive(fd, NET_TIMEOUT_MS, &from, NULL);
    close(fd);
    cr_assert(answer, "no answer to \"%s\"", question);
    return answer;
}

static void expect_itself(struct vf_instance *vm)
{
    struct vf_instance_network net = facnet_of(vm);
    const char *due = vf_instance_proof(vm)->machine_id;
    cr_assert_str_eq(ask(&net.host4, 7, "who"), due);
    cr_assert_str_eq(ask(&net.host6, 7, "who"), due);
}

static struct vf_instance *brought(struct facnet *n, struct vf_generation *gen)
{
    struct facnet_done standby = {0}, bring = {0};
    struct vf_error e;
    cr_assert_eq(vf_factory_standby(n->f.sync.factory, gen, NULL, facnet_on_vm, &standby, NULL, &e),
                 0, "%s", e.msg);
    facnet_wait(n, &standby);
    cr_assert(standby.vm, "%s (%s)", standby.err.msg, standby.err.hint);
    cr_assert_eq(vf_instance_bring(standby.vm, facnet_on_vm, &bring, &e), 0, "%s", e.msg);
    facnet_wait(n, &bring);
    cr_assert(bring.vm, "%s (%s)", bring.err.msg, bring.err.hint);
    return bring.vm;
}

/* By a port of the host's, to one of them. */
static void expect_by_port(struct facnet *n, struct vf_instance *vm)
{
    const struct vf_port port = {.protocol = IPPROTO_UDP, .port = 17007, .guest = 7};
    struct vf_ip ip = net_ip(NET_HOST4);
    facnet_must_publish(n, vm, &port);
    cr_assert_str_eq(ask(&ip, 17007, "who"), vf_instance_proof(vm)->machine_id);
}

static void over(const struct sup_target *t, enum vf_spec_vmm vmm, const char *name)
{
    struct facnet n;
    struct vf_instance *vms[4];
    struct vf_error e;
    const char *missing = sup_target_missing(t);
    if (missing)
        sup_skip("factory_network_traffic", name, "%s", missing);
    facnet_open(&n, "factory_network_traffic", name, 8,
                &(struct vf_sync_options){.cloud_hypervisor = sup_cloud_hypervisor(),
                                          .firecracker = sup_firecracker()});
    net_shell("ip addr add " NET_HOST4 "/32 dev lo");
    struct vf_spec spec = facnet_tiny("tiny", VF_NETWORK_NAT);
    spec.vmm = vmm;
    spec.agent.channel = t->vsock ? VF_CHANNEL_VSOCK : VF_CHANNEL_SERIAL;
    struct vf_generation *gen = fac_build(&n.f, &spec);
    vms[0] = fac_clone(&n.f, gen);
    vms[1] = fac_clone(&n.f, gen);
    vms[2] = brought(&n, gen);
    vms[3] = fac_cold(&n.f, &spec);
    for (int i = 0; i < 4; i++)
        expect_itself(vms[i]);
    struct vf_vmm_caps caps;
    vf_vmm_find(t->driver)->capabilities(vf_vm_info_of(vf_instance_vm(vms[0]))->version, &caps);
    if (caps.park_paused) {
        cr_assert_eq(vf_sync_park(&n.f.sync, vms[1], &e), 0, "%s", e.msg);
        cr_assert_eq(vf_sync_wake(&n.f.sync, vms[1], &e), 0, "%s", e.msg);
        expect_itself(vms[1]);
    }
    expect_by_port(&n, vms[1]);
    /* The slot's next guest is another, under the same address. */
    int number = facnet_number(vms[0]);
    fac_destroy(&n.f, vms[0]);
    vms[0] = fac_clone(&n.f, gen);
    cr_assert_eq(facnet_number(vms[0]), number);
    expect_itself(vms[0]);
    for (int i = 0; i < 4; i++)
        fac_destroy(&n.f, vms[i]);
    cr_assert_eq(n.n_told, 5);
    cr_assert_geq(n.told.out_packets, 10);
    cr_assert_eq(facnet_counts(&n).doubts, 0);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* ---- the first packet of all, sent before the clone runs */

struct sender {
    int fd;
    bool sent;
};

static int send_before_resume(void *arg, struct vf_instance *vm, const char *stage,
                              struct vf_error *err)
{
    struct sender *s = arg;
    struct vf_instance_network net = facnet_of(vm);
    (void)err;
    if (strcmp(stage, "resume") != 0)
        return 0;
    net_udp_send(s->fd, &net.host4, 7, "who");
    s->sent = true;
    return 0;
}

/* Firecracker opens its tap by itself: the kernel has noticed before the clone runs. */
Test(factory_network_traffic, nothing_is_lost_before_the_clone_runs)
{
    enum { CLONES = 10 };
    struct facnet n;
    struct sender s = {0};
    const char *missing = sup_target_missing(&sup_firecracker_tiny);
    if (missing)
        sup_skip("factory_network_traffic", "nothing_is_lost_before_the_clone_runs", "%s", missing);
    facnet_open(&n, "factory_network_traffic", "nothing_is_lost_before_the_clone_runs", 4,
                &(struct vf_sync_options){.firecracker = sup_firecracker(),
                                          .on_step = send_before_resume,
                                          .on_step_arg = &s});
    struct vf_spec spec = facnet_tiny("tiny", VF_NETWORK_NAT);
    spec.vmm = VF_SPEC_VMM_FIRECRACKER;
    spec.agent.channel = VF_CHANNEL_SERIAL;
    struct vf_generation *gen = fac_build(&n.f, &spec);
    for (int i = 0; i < CLONES; i++) {
        s = (struct sender){.fd = net_udp(-1, "0.0.0.0", 0)};
        struct vf_instance *vm = fac_clone(&n.f, gen);
        cr_assert(s.sent);
        /* Of whoever it was by then: its identity came at the same time. */
        const char *answer = net_udp_receive(s.fd, NET_TIMEOUT_MS, NULL, NULL);
        cr_assert(answer, "clone %d never got what was sent before it ran", i);
        close(s.fd);
        fac_destroy(&n.f, vm);
    }
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    facnet_close(&n);
}

#define OVER(target, vmm)                  \
    Test(factory_network_traffic, target)  \
    {                                      \
        over(&sup_##target, vmm, #target); \
    }
OVER(qemu_kvm_tiny, VF_SPEC_VMM_QEMU)
OVER(cloud_hypervisor_tiny, VF_SPEC_VMM_CLOUD_HYPERVISOR)
OVER(cloud_hypervisor_tiny_vsock, VF_SPEC_VMM_CLOUD_HYPERVISOR)
OVER(firecracker_tiny, VF_SPEC_VMM_FIRECRACKER)
OVER(firecracker_tiny_vsock, VF_SPEC_VMM_FIRECRACKER)

/* What is asked of a VM's network while it lives: what it is, ports of the host, how much has passed; and that the kernel
 * looks at a tap which the VMM has just opened.
 *
 *     publish, traffic, settle:  queued -> worker -> done -> the next
 *
 * A slot is for one thread at a time, so the requests to one VM stand in a line; its teardown waits for the one that
 * runs. On the way: the VM is destroyed or let go of; then those that wait end with VF_CANCELLED, without a word to the
 * slot.
 */
#include <stdlib.h>
#include <string.h>
#include "factory/instance.h"
#include "factory/network.h"

struct vf_net_job {
    struct vf_instance *vm;
    struct vf_net_job *next;
    struct vf_work work;
    int (*run)(struct vf_work *w, struct vf_error *err);
    struct vf_port ports[VF_PORTS_MAX]; /* wanted, then as they are */
    int n_ports;
    bool publishes;
    struct vf_net_stats stats, *ret_stats; /* NULL: it does not count */
    vf_done_cb done;
    void *arg;
};

void vf_instance_network(const struct vf_instance *vm, struct vf_instance_network *ret)
{
    const struct vf_instance_net *net = &vm->net;
    *ret = (struct vf_instance_network){
        .mode = (enum vf_network_mode)vm->spec.network.mode, .number = -1, .netns = net->netns};
    if (!net->known)
        return;
    ret->number = net->info.number;
    ret->netns = net->info.netns_path;
    ret->interface = net->name;
    ret->host4 = net->info.host4;
    ret->host6 = net->info.host6;
    ret->ports = net->ports;
    ret->n_ports = net->n_ports;
}

/* ---- the line */

/* Whether another stands behind it, to be begun: what its callback asks for begins by itself if it stands alone. */
static bool end_first(struct vf_instance *vm, const struct vf_error *err)
{
    struct vf_net_job *j = vm->net.jobs;
    bool more = j->next != NULL;
    vm->net.jobs = j->next;
    if (!err && j->ret_stats)
        *j->ret_stats = j->stats;
    j->done(j->arg, err);
    free(j);
    return more;
}

static void on_job(void *arg, const struct vf_error *err);

static void go_on(struct vf_instance *vm, bool more)
{
    struct vf_error e;
    if (vm->state == VF_INSTANCE_DESTROYING) {
        vf_fail(&e, VF_CANCELLED, "network: the VM is being destroyed");
        while (vm->net.jobs)
            end_first(vm, &e);
        vf_instance_teardown(vm);
        return;
    }
    if (!more)
        return;
    struct vf_net_job *j = vm->net.jobs;
    int r = vf_work_submit(vm->factory->loop, &j->work, j->run, on_job, j);
    if (r < 0) {
        vf_fail_errno(&e, r, "worker");
        go_on(vm, end_first(vm, &e));
    }
}

static void on_job(void *arg, const struct vf_error *err)
{
    struct vf_net_job *j = arg;
    struct vf_instance *vm = j->vm;
    struct vf_error cancelled;
    if (vm->state == VF_INSTANCE_DESTROYING) {
        vf_fail(&cancelled, VF_CANCELLED, "network: the VM is being destroyed");
        err = &cancelled;
    }
    if (!err && j->publishes) {
        memcpy(vm->net.ports, j->ports, sizeof(vm->net.ports));
        vm->net.n_ports = j->n_ports;
    }
    /* The VM stays until the line is empty: its last callback may destroy it, but not free it. */
    go_on(vm, end_first(vm, err));
}

static int submit(struct vf_instance *vm, struct vf_net_job *j, vf_done_cb done, void *arg,
                  struct vf_error *err)
{
    struct vf_net_job **last = &vm->net.jobs;
    j->vm = vm;
    j->done = done;
    j->arg = arg;
    if (vm->net.jobs) {
        while (*last)
            last = &(*last)->next;
        *last = j;
        return 0;
    }
    int r = vf_work_submit(vm->factory->loop, &j->work, j->run, on_job, j);
    if (r < 0) {
        free(j);
        return vf_fail_errno(err, r, "worker");
    }
    vm->net.jobs = j;
    return 0;
}

/* ---- publish */

static int publish(struct vf_work *w, struct vf_error *err)
{
    struct vf_net_job *j = w->arg;
    struct vf_port ret[VF_PORTS_MAX] = {0};
    int r = vf_networks_publish(j->vm->factory->networks, j->vm->net.slot, j->ports, j->n_ports,
                                ret, err);
    if (r == 0)
        memcpy(j->ports, ret, sizeof(ret));
    return r;
}

static int check_publish(const struct vf_instance *vm, int n_ports, struct vf_error *err)
{
    int mode = vm->spec.network.mode;
    if (mode != VF_NETWORK_NAT && mode != VF_NETWORK_BRIDGE) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "ports: the template's network.mode is %s, so no port of this host can lead to it",
                vf_network_mode_names[mode]);
        return vf_hint(err, "ports need network.mode nat");
    }
    if (n_ports > VF_PORTS_MAX)
        return vf_fail(err, VF_INVALID_ARGUMENT, "ports: at most %d", VF_PORTS_MAX);
    if (vm->state != VF_INSTANCE_READY)
        return vf_fail(err, VF_CONFLICT, "ports: the VM is not ready");
    if (!vm->net.known)
        return vf_fail(err, VF_NOT_FOUND, "ports: the VM has no network slot");
    return 0;
}

int vf_instance_publish(struct vf_instance *vm, const struct vf_port *ports, int n_ports,
                        vf_done_cb done, void *arg, struct vf_error *err)
{
    int r = check_publish(vm, n_ports, err);
    if (r < 0)
        return r;
    struct vf_net_job *j = calloc(1, sizeof(*j));
    if (!j)
        return vf_fail(err, VF_NO_MEMORY, "ports");
    j->run = publish;
    j->publishes = true;
    j->n_ports = n_ports;
    if (n_ports)
        memcpy(j->ports, ports, (size_t)n_ports * sizeof(*ports));
    return submit(vm, j, done, arg, err);
}

/* ---- traffic */

static int count_traffic(struct vf_work *w, struct vf_error *err)
{
    struct vf_net_job *j = w->arg;
    return vf_net_stats(j->vm->net.slot, &j->stats, err);
}

int vf_instance_traffic(struct vf_instance *vm, struct vf_net_stats *ret, vf_done_cb done,
                        void *arg, struct vf_error *err)
{
    if (vm->state == VF_INSTANCE_DESTROYING)
        return vf_fail(err, VF_CONFLICT, "traffic: the VM is being destroyed");
    if (!vm->net.known)
        return vf_fail(err, VF_NOT_FOUND, "traffic: the VM has no network slot");
    if (vm->net.netns_fd >= 0)
        return vf_fail(err, VF_CONFLICT, "traffic: the VM is not ready");
    struct vf_net_job *j = calloc(1, sizeof(*j));
    if (!j)
        return vf_fail(err, VF_NO_MEMORY, "traffic");
    j->run = count_traffic;
    j->ret_stats = ret;
    return submit(vm, j, done, arg, err);
}

/* ---- the tap */

static int settle(struct vf_work *w, struct vf_error *err)
{
    struct vf_net_job *j = w->arg;
    return vf_net_settle(j->vm->net.slot, err);
}

bool vf_instance_net_must_settle(const struct vf_instance *vm)
{
    return vm->net.known && vm->net.info.shape.tap.by_name;
}

int vf_instance_net_settle(struct vf_instance *vm, vf_done_cb done, void *arg, struct vf_error *err)
{
    struct vf_net_job *j = calloc(1, sizeof(*j));
    if (!j)
        return vf_fail(err, VF_NO_MEMORY, "network");
    j->run = settle;
    return submit(vm, j, done, arg, err);
}

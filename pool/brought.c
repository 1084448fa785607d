/* What a caller brings along for its VM's network: a namespace, a tap, addresses; and the ports that it wants opened.
 *
 * All of it is copied, descriptors too, as the caller may have to wait in line. The copy is shared by the request and by
 * the VM that is made with it, whichever of them ends later.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "pool/pools_internal.h"

void vf_brought_drop(struct vf_brought **at)
{
    struct vf_brought *b = *at;
    *at = NULL;
    if (!b || --b->refs > 0)
        return;
    vf_close_beside(b->taps, VF_BROUGHT_TAPS); /* perhaps the last of a tap */
    free((char *)b->options.netns);
    free((char *)b->options.tap);
    free((char *)b->options.hostname);
    free(b);
}

void vf_acquire_free(struct vf_acquire *a)
{
    vf_brought_drop(&a->brought);
    free(a->ports);
    free(a);
}

static int copy_text(const char **at, const char *text)
{
    *at = text ? strdup(text) : NULL;
    return text && !*at ? -1 : 0;
}

static int copy(struct vf_brought *b, const struct vf_vm_options *o, struct vf_error *err)
{
    b->options = *o;
    b->options.tap_fds = b->taps;
    b->options.netns = b->options.tap = b->options.hostname = NULL;
    if (copy_text(&b->options.netns, o->netns) < 0 || copy_text(&b->options.tap, o->tap) < 0 ||
        copy_text(&b->options.hostname, o->hostname) < 0)
        return vf_fail(err, VF_NO_MEMORY, "network");
    for (int i = 0; i < o->n_tap_fds; i++) {
        b->taps[i] = fcntl(o->tap_fds[i], F_DUPFD_CLOEXEC, 3);
        if (b->taps[i] < 0)
            return vf_fail_errno(err, errno, "network.taps");
    }
    return 0;
}

static int bring(struct vf_acquire *a, const struct vf_vm_options *o, struct vf_error *err)
{
    if (!vf_pool_is_external(a->pool)) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network: template %s has the network mode %s; only to external ones it is brought",
                a->pool->spec.name, vf_network_mode_names[a->pool->spec.network.mode]);
        return vf_hint(err, "leave network out, or set the spec's network.mode to external");
    }
    if (o->n_tap_fds < 0 || o->n_tap_fds > VF_BROUGHT_TAPS)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.taps: at most %d descriptors",
                       VF_BROUGHT_TAPS);
    struct vf_brought *b = malloc(sizeof(*b));
    if (!b)
        return vf_fail(err, VF_NO_MEMORY, "network");
    b->refs = 1;
    for (int i = 0; i < VF_BROUGHT_TAPS; i++)
        b->taps[i] = -1;
    a->brought = b;
    return copy(b, o, err);
}

static int check_port(const struct vf_port *ports, int i, struct vf_error *err)
{
    const struct vf_port *p = &ports[i];
    if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
        return vf_fail(err, VF_INVALID_ARGUMENT, "ports[%d].protocol: must be tcp or udp", i);
    if (p->guest == 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "ports[%d].guest: must be 1 to 65535", i);
    for (int k = 0; k < i && p->port; k++)
        if (ports[k].port == p->port && ports[k].protocol == p->protocol)
            return vf_fail(err, VF_INVALID_ARGUMENT, "ports[%d].host: %u is in ports[%d] already",
                           i, p->port, k);
    return 0;
}

static int take_ports(struct vf_acquire *a, const struct vf_acquire_options *o,
                      struct vf_error *err)
{
    const enum vf_network_mode mode = (enum vf_network_mode)a->pool->spec.network.mode;
    if (o->n_ports > 0 && mode != VF_NETWORK_NAT) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "ports: template %s has the network mode %s; ports of the host lead to nat alone",
                a->pool->spec.name, vf_network_mode_names[mode]);
        return vf_hint(err, "leave ports out, or set the spec's network.mode to nat");
    }
    if (o->n_ports < 0 || o->n_ports > VF_PORTS_MAX)
        return vf_fail(err, VF_INVALID_ARGUMENT, "ports: at most %d", VF_PORTS_MAX);
    for (int i = 0; i < o->n_ports; i++) {
        int r = check_port(o->ports, i, err);
        if (r < 0)
            return r;
    }
    a->has_ports = o->has_ports;
    if (o->n_ports == 0)
        return 0;
    a->ports = malloc((size_t)o->n_ports * sizeof(*a->ports));
    if (!a->ports)
        return vf_fail(err, VF_NO_MEMORY, "ports");
    memcpy(a->ports, o->ports, (size_t)o->n_ports * sizeof(*a->ports));
    a->n_ports = o->n_ports;
    return 0;
}

int vf_brought_take(struct vf_acquire *a, const struct vf_acquire_options *o, struct vf_error *err)
{
    int r = o->network ? bring(a, o->network, err) : 0;
    if (r == 0 && o->has_ports)
        r = take_ports(a, o, err);
    if (r < 0 || o->network || !vf_pool_is_external(a->pool))
        return r;
    vf_fail(err, VF_INVALID_ARGUMENT,
            "network: is missing, and template %s has the network mode external",
            a->pool->spec.name);
    return vf_hint(err, "name a namespace and a tap, or bring the tap's descriptors");
}

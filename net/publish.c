/* Ports of the host that lead to guests. See slot.h.
 *
 * Happy path: each port is booked for the slot in the daemon, and found to be used by nobody on the host; then one batch
 * takes the old ones away and brings the new ones.
 * On the way: a port of another VM's or of the host's own is refused if it was asked for, and passed by if the choice is
 * ours; after any failure what was there before is still there, and nothing else is booked.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "net/slot_internal.h"

#define MAX_TRIES 16 /* for ports that the kernel finds taken though we have not booked them */

static const char *name_of(const struct vf_port *p)
{
    return p->protocol == IPPROTO_TCP ? "tcp" : "udp";
}

/* ---- bookings, among all slots */

static bool book(struct vf_nets *s, const struct vf_port *p)
{
    uint64_t *word = &s->booked[p->protocol == IPPROTO_UDP][p->port / 64];
    uint64_t bit = UINT64_C(1) << p->port % 64;
    pthread_mutex_lock(&s->lock);
    bool mine = !(*word & bit);
    *word |= bit;
    pthread_mutex_unlock(&s->lock);
    return mine;
}

static void unbook(struct vf_nets *s, const struct vf_port *p)
{
    pthread_mutex_lock(&s->lock);
    s->booked[p->protocol == IPPROTO_UDP][p->port / 64] &= ~(UINT64_C(1) << p->port % 64);
    pthread_mutex_unlock(&s->lock);
}

void vf_net_book(struct vf_nets *s, const struct vf_host_ports *ports)
{
    for (int i = 0; i < ports->n_ports; i++)
        book(s, &ports->ports[i]);
}

void vf_net_unbook(struct vf_nets *s, const struct vf_host_ports *ports)
{
    for (int i = 0; i < ports->n_ports; i++)
        unbook(s, &ports->ports[i]);
}

static bool has(const struct vf_port *ports, int n, const struct vf_port *p)
{
    for (int i = 0; i < n; i++)
        if (ports[i].protocol == p->protocol && ports[i].port == p->port)
            return true;
    return false;
}

/* ---- the host's own */

static int try_bind(int family, const struct vf_port *p)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(p->port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(p->port)};
    bool tcp = p->protocol == IPPROTO_TCP;
    int one = 1, errnum = 0;
    int fd = socket(family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0; /* a host without this family */
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (tcp) /* what only lingers is in nobody's way */
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, family == AF_INET ? (struct sockaddr *)&four : (struct sockaddr *)&six,
             family == AF_INET ? sizeof(four) : sizeof(six)) < 0)
        errnum = errno;
    close(fd);
    return errnum;
}

/* Whether nobody of the host's has the port: what comes for it would go to the guest instead. */
static int check_host(const struct vf_port *p, int i, struct vf_error *err)
{
    int errnum = try_bind(AF_INET, p);
    if (errnum != EADDRINUSE && errnum != EACCES)
        errnum = try_bind(AF_INET6, p);
    if (errnum == EADDRINUSE) {
        vf_fail(err, VF_CONFLICT, "network.ports[%d]: %s port %d is in use by the host itself", i,
                name_of(p), p->port);
        return vf_hint(err, "choose another port of the host's");
    }
    if (errnum == EACCES) {
        vf_fail(err, VF_PERMISSION,
                "network.ports[%d]: whether the host itself uses %s port %d can't be told", i,
                name_of(p), p->port);
        return vf_hint(err, "ports below 1024 need CAP_NET_BIND_SERVICE");
    }
    return 0;
}

/* ---- */

static int check_ports(const struct vf_net *slot, const struct vf_port *ports, int n, bool choose,
                       struct vf_error *err)
{
    const struct vf_nets *s = slot->slots;
    if (s->bridge && n)
        return vf_fail(err, VF_UNSUPPORTED,
                       "network.ports: a VM on a bridge is reached under its own address; host "
                       "ports are for networks of mode nat");
    if (n < 0 || n > VF_PORTS_MAX)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.ports: %d are more than %d", n,
                       VF_PORTS_MAX);
    for (int i = 0; i < n; i++) {
        if ((!ports[i].port && !choose) || !ports[i].guest ||
            (ports[i].protocol != IPPROTO_TCP && ports[i].protocol != IPPROTO_UDP))
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "network.ports[%d]: a port is 1 to 65535, of tcp or udp", i);
        if (ports[i].port && has(ports, i, &ports[i]))
            return vf_fail(err, VF_INVALID_ARGUMENT, "network.ports[%d]: %s port %d is there twice",
                           i, name_of(&ports[i]), ports[i].port);
        if (!ports[i].port && !s->first_port) {
            vf_fail(err, VF_INVALID_ARGUMENT,
                    "network.ports[%d]: the host's port is missing, and there is no range to "
                    "choose from",
                    i);
            return vf_hint(err, "name a port, or configure network_ports");
        }
    }
    return 0;
}

/* What a change does: ports of to that it booked. */
struct change {
    struct vf_net *slot;
    struct vf_host_ports to;
    bool fresh[VF_PORTS_MAX];
};

/* Whether port i of a change is one that another of its ports is, or that the slot has now. */
static bool is_other(const struct change *c, int i)
{
    const struct vf_port *p = &c->to.ports[i];
    return has(c->to.ports, i, p) || has(p + 1, c->to.n_ports - i - 1, p);
}
static bool is_old(const struct change *c, int i)
{
    return has(c->slot->host.ports, c->slot->host.n_ports, &c->to.ports[i]);
}

/* The next port of the range that is nobody's, booked; or one that the slot has, and would lose. */
static int choose_port(struct change *c, int i, struct vf_error *err)
{
    struct vf_nets *s = c->slot->slots;
    struct vf_port *p = &c->to.ports[i];
    int room = s->last_port - s->first_port + 1;
    for (int k = 0; k < room; k++) {
        struct vf_error why;
        pthread_mutex_lock(&s->lock);
        p->port = (uint16_t)(s->first_port + (int)(s->next_port++ % (unsigned)room));
        pthread_mutex_unlock(&s->lock);
        if (is_other(c, i))
            continue;
        if (is_old(c, i))
            return 0;
        if (!book(s, p))
            continue;
        c->fresh[i] = true;
        if (check_host(p, i, &why) == 0)
            return 0;
        unbook(s, p);
        c->fresh[i] = false;
        if (why.code != VF_CONFLICT)
            return vf_error_copy(err, &why);
    }
    vf_fail(err, VF_BUSY, "network.ports[%d]: all %s ports from %d to %d are in use", i, name_of(p),
            s->first_port, s->last_port);
    return vf_hint(err, "release VMs, or configure a larger range: network_ports");
}

static int take_port(struct change *c, int i, struct vf_error *err)
{
    const struct vf_port *p = &c->to.ports[i];
    if (is_old(c, i))
        return 0;
    if (!book(c->slot->slots, p)) {
        vf_fail(err, VF_CONFLICT, "network.ports[%d]: %s port %d leads to another VM already", i,
                name_of(p), p->port);
        return vf_hint(err, "choose another port, or release the VM that has it");
    }
    c->fresh[i] = true;
    return check_host(p, i, err);
}

/* Those that were named first, for a choice must not be in their way. */
static int book_all(struct change *c, const struct vf_host_ports *wanted, struct vf_error *err)
{
    int r = 0;
    for (int i = 0; r == 0 && i < wanted->n_ports; i++)
        if (wanted->ports[i].port)
            r = take_port(c, i, err);
    for (int i = 0; r == 0 && i < wanted->n_ports; i++)
        if (!wanted->ports[i].port)
            r = choose_port(c, i, err);
    return r;
}

static int change_once(struct vf_net *slot, const struct vf_host_ports *wanted,
                       struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct change c = {.slot = slot, .to = *wanted};
    int r = book_all(&c, wanted, err);
    if (r == 0) {
        pthread_mutex_lock(&s->host_lock);
        r = vf_host_rules_change(&s->host_nf, &s->host, slot->number, &slot->host, &c.to, err);
        pthread_mutex_unlock(&s->host_lock);
    }
    for (int i = 0; r < 0 && i < c.to.n_ports; i++)
        if (c.fresh[i])
            unbook(s, &c.to.ports[i]);
    if (r < 0)
        return r;
    for (int i = 0; i < slot->host.n_ports; i++)
        if (!has(c.to.ports, c.to.n_ports, &slot->host.ports[i]))
            unbook(s, &slot->host.ports[i]);
    slot->host = c.to;
    return 0;
}

int vf_net_change_ports(struct vf_net *slot, const struct vf_host_ports *to, struct vf_error *err)
{
    bool chosen = false;
    int r = 0;
    for (int i = 0; i < to->n_ports; i++)
        chosen |= to->ports[i].port == 0;
    for (int i = 0; i < (chosen ? MAX_TRIES : 1); i++) {
        struct vf_error why;
        r = change_once(slot, to, &why);
        if (r == 0)
            return 0;
        vf_error_copy(err, &why);
        if (why.code != VF_CONFLICT)
            break;
    }
    return r;
}

int vf_net_check_ports(const struct vf_net *slot, const struct vf_policy *p, struct vf_error *err)
{
    if (slot->slots->bridge && p->n_opened)
        return vf_fail(err, VF_UNSUPPORTED,
                       "network.host_services: there are none behind a bridge, whose own network "
                       "decides; they are for networks of mode nat");
    return check_ports(slot, p->ports, p->n_ports, false, err);
}

int vf_net_publish(struct vf_net *slot, const struct vf_port *ports, int n, struct vf_port *ret,
                   struct vf_error *err)
{
    struct vf_host_ports to = slot->host;
    int r = check_ports(slot, ports, n, true, err);
    if (r == 0 && !slot->slots->bridge) {
        to.n_ports = n;
        if (n)
            memcpy(to.ports, ports, (size_t)n * sizeof(*ports));
        r = vf_net_change_ports(slot, &to, err);
    }
    if (r < 0) {
        vf_wrap(err, "network %s", slot->name);
        return r;
    }
    if (ret && n)
        memmove(ret, slot->host.ports, (size_t)n * sizeof(*ret));
    return 0;
}

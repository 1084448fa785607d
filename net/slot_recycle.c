/* What happens to a slot in use, and after it. See slot.h.
 *
 * Happy path of recycling: our tap descriptors are closed; the namespace has exactly our interfaces, nobody holds the
 * tap, the rules are of the generation we left; the policy's changes are taken back, counters read and zeroed,
 * connections and neighbours forgotten here and in the host; the tap gets fresh descriptors.
 * On the way: the first thing that is not as it must be is a doubt, and the slot is destroyed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "net/conntrack.h"
#include "net/needs.h"
#include "net/nft.h"
#include "net/slot_internal.h"

/* A slot's namespace, as it is worked on. */
struct work {
    struct vf_net *slot;
    struct vf_netns ns;
    struct vf_nl route, netfilter;
    struct vf_link_info tap;
};

static int begin(struct work *w, struct vf_net *slot, int n_tuns, struct vf_error *err)
{
    w->slot = slot;
    int r = vf_net_open_netns(slot, n_tuns, &w->ns, err);
    if (r < 0)
        return r;
    vf_nl_adopt(&w->route, w->ns.route);
    vf_nl_adopt(&w->netfilter, w->ns.netfilter);
    return 0;
}

static void end(struct work *w)
{
    vf_netns_close(&w->ns);
}

/* ---- a lease's policy */

static int set_rates(struct work *w, const struct vf_policy *p, struct vf_error *err)
{
    struct vf_nl_batch b = {0};
    int mtu = w->slot->shape.mtu;
    w->slot->set_rates = true;
    if (p->in_bytes_per_s)
        vf_link_rate(&b, VF_NET_TAP_INDEX, p->in_bytes_per_s, mtu);
    if (p->out_bytes_per_s)
        vf_link_rate(&b, VF_NET_UPLINK_INDEX, p->out_bytes_per_s, mtu);
    int r = vf_need(vf_nl_send(&w->route, &b, err), VF_NEED_RATES, err);
    vf_nl_batch_free(&b);
    return r;
}

/* Back to no limit; one that is not there is as well. */
static int clear_rates(struct work *w, struct vf_error *err)
{
    static const int both[] = {VF_NET_TAP_INDEX, VF_NET_UPLINK_INDEX};
    struct vf_nl_batch b = {0};
    int r = 0;
    for (int i = 0; r == 0 && i < 2; i++) {
        vf_link_rate(&b, both[i], 0, 0);
        r = vf_nl_send(&w->route, &b, err);
        if (r == -ENOENT || r == -EINVAL)
            r = 0;
    }
    vf_nl_batch_free(&b);
    return r;
}

static int set_egress(struct work *w, const struct vf_policy *p, struct vf_error *err)
{
    struct vf_net_rules rules = vf_net_rules(w->slot);
    struct vf_nl_batch b = {0};
    w->slot->set_rules = true;
    w->slot->settled = false;
    vf_rules_egress(&b, &rules, p);
    int r = vf_nl_send(&w->netfilter, &b, err);
    vf_nl_batch_free(&b);
    if (r == 0)
        r = vf_nft_generation(&w->netfilter, &w->slot->generation, err);
    w->slot->settled = r == 0;
    return r;
}

static int check_policy(const struct vf_net *slot, const struct vf_policy *p, struct vf_error *err)
{
    for (int i = 0; i < p->n_rules; i++)
        if (p->rules[i].last_port < p->rules[i].first_port ||
            (p->rules[i].last_port && !p->rules[i].protocol))
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "network.egress[%d]: ports need tcp or udp, the first before the last",
                           i);
    return vf_net_check_ports(slot, p, err);
}

/* The ports first: they are what others can be in the way of. */
static int set_all(struct work *w, const struct vf_policy *p, struct vf_error *err)
{
    struct vf_host_ports to = {.n_opened = p->n_opened, .n_ports = p->n_ports};
    memcpy(to.opened, p->opened, sizeof(to.opened));
    memcpy(to.ports, p->ports, sizeof(to.ports));
    int r = w->slot->slots->bridge ? 0 : vf_net_change_ports(w->slot, &to, err);
    /* What an earlier policy changed, this one changes again. */
    if (r == 0 && (p->egress != VF_EGRESS_ALLOW || p->open_metadata || w->slot->set_rules))
        r = set_egress(w, p, err);
    if (r == 0 && w->slot->set_rates)
        r = clear_rates(w, err);
    if (r == 0 && (p->in_bytes_per_s || p->out_bytes_per_s))
        r = set_rates(w, p, err);
    return r;
}

int vf_net_set(struct vf_net *slot, const struct vf_policy *policy, struct vf_error *err)
{
    struct work w;
    int r = check_policy(slot, policy, err);
    if (r == 0)
        r = begin(&w, slot, 0, err);
    if (r == 0) {
        r = set_all(&w, policy, err);
        end(&w);
    }
    if (r < 0)
        vf_wrap(err, "network %s", slot->name);
    return r;
}

int vf_net_settle(struct vf_net *slot, struct vf_error *err)
{
    struct work w;
    int r = begin(&w, slot, 0, err);
    if (r < 0) {
        vf_wrap(err, "network %s", slot->name);
        return r;
    }
    vf_link_settle(&w.route, VF_NET_TAP);
    end(&w);
    return 0;
}

/* ---- stats */

/* Seen from the guest: what the tap receives, the guest has sent. */
static void count_traffic(const struct vf_link_info *now, const struct vf_link_info *base,
                          struct vf_net_stats *ret)
{
    ret->out_packets = now->rx_packets - base->rx_packets;
    ret->out_bytes = now->rx_bytes - base->rx_bytes;
    ret->out_dropped = now->rx_dropped - base->rx_dropped;
    ret->in_packets = now->tx_packets - base->tx_packets;
    ret->in_bytes = now->tx_bytes - base->tx_bytes;
    ret->in_dropped = now->tx_dropped - base->tx_dropped;
}

int vf_net_stats(struct vf_net *slot, struct vf_net_stats *ret, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct vf_net_stats stats = {0};
    uint64_t host = 0;
    struct work w;
    int r = begin(&w, slot, 0, err);
    if (r < 0) {
        vf_wrap(err, "network %s", slot->name);
        return r;
    }
    r = vf_link_get(&w.route, VF_NET_TAP, &w.tap, err);
    if (r == 0)
        r = vf_rules_refused(&w.netfilter, false, stats.refused, err);
    if (r == 0 && !s->bridge) {
        pthread_mutex_lock(&s->host_lock);
        r = vf_host_rules_refused(&s->host_nf, &s->host, slot->number, &host, err);
        pthread_mutex_unlock(&s->host_lock);
    }
    end(&w);
    if (r < 0) {
        vf_wrap(err, "network %s", slot->name);
        return r;
    }
    count_traffic(&w.tap, &slot->base, &stats);
    stats.refused[VF_REFUSED_HOST] += host;
    *ret = stats;
    return 0;
}

/* ---- recycling */

static int check_state(struct work *w, struct vf_error *err)
{
    uint32_t generation;
    int r = vf_net_check_inside(w->slot, &w->route, &w->tap, err);
    if (r == 0)
        r = vf_nft_generation(&w->netfilter, &generation, err);
    if (r == 0 && w->slot->settled && generation != w->slot->generation)
        r = vf_fail(err, VF_CORRUPT, "somebody else has changed its rules");
    return r;
}

static int take_back(struct work *w, struct vf_error *err)
{
    static const struct vf_policy plain;
    int r = 0;
    if (w->slot->set_rules)
        r = set_egress(w, &plain, err);
    if (r == 0 && w->slot->set_rates)
        r = clear_rates(w, err);
    if (r == 0)
        w->slot->set_rules = w->slot->set_rates = false;
    return r;
}

/* Neighbours that must be there: the guest twice, and the host's end. */
static int expected_neighbours(const struct vf_nets *s)
{
    return 2 + (s->bridge ? 0 : s->pool.has4 + s->pool.has6);
}

static int wipe(struct work *w, struct vf_error *err)
{
    const struct vf_nets *s = w->slot->slots;
    uint32_t left = 1;
    int permanent = 0;
    int r = vf_conntrack_flush(&w->netfilter, err);
    if (r == 0)
        r = vf_conntrack_count(&w->netfilter, &left, err);
    if (r == 0 && left)
        r = vf_fail(err, VF_CONFLICT, "%u connections are still there", left);
    if (r == 0)
        r = vf_neighbours_flush(&w->route, &permanent, err);
    if (r == 0 && permanent != expected_neighbours(s))
        r = vf_fail(err, VF_CORRUPT, "of %d neighbours %d are there", expected_neighbours(s),
                    permanent);
    return r;
}

static int wipe_host(struct vf_net *slot, uint64_t *ret_refused, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct vf_mac host_mac, slot_mac;
    struct vf_link_info l;
    vf_net_macs(s, slot->number, &host_mac, &slot_mac);
    pthread_mutex_lock(&s->host_lock);
    int r = s->bridge
                ? 0
                : vf_host_rules_reset(&s->host_nf, &s->host, slot->number, false, ret_refused, err);
    if (r == 0)
        r = vf_net_flush_host(s, slot->number, err);
    if (r == 0)
        r = vf_link_get(&s->host_route, slot->name, &l, err);
    pthread_mutex_unlock(&s->host_lock);
    if (r == 0 && (!l.up || l.mtu != slot->shape.mtu || l.master != s->bridge ||
                   memcmp(&l.mac, &host_mac, sizeof(host_mac)) != 0))
        r = vf_fail(err, VF_CORRUPT, "the host's end is not as we made it");
    return r;
}

static int attach(struct work *w, struct vf_error *err)
{
    struct vf_net *slot = w->slot;
    int r = vf_tap_attach(w->ns.tuns, VF_NET_TAP, &slot->shape.tap, err);
    for (int i = 0; r == 0 && !slot->shape.tap.by_name && i < w->ns.n_tuns; i++) {
        slot->fds[slot->n_fds++] = w->ns.tuns[i];
        w->ns.tuns[i] = -1;
    }
    if (r == 0 && slot->n_fds)
        vf_link_settle(&w->route, VF_NET_TAP);
    return r;
}

static int recycle(struct work *w, struct vf_net_stats *stats, struct vf_error *err)
{
    struct vf_net *slot = w->slot;
    uint64_t host = 0;
    int r = check_state(w, err);
    if (r == 0)
        r = take_back(w, err);
    if (r == 0)
        r = vf_rules_refused(&w->netfilter, true, stats->refused, err);
    vf_failpoint("net.recycle.reset");
    if (r == 0)
        r = wipe_host(slot, &host, err);
    if (r == 0)
        r = wipe(w, err);
    vf_failpoint("net.recycle.wiped");
    if (r == 0)
        r = attach(w, err);
    if (r < 0)
        return r;
    vf_net_unbook(slot->slots, &slot->host);
    slot->host = (struct vf_host_ports){0};
    stats->refused[VF_REFUSED_HOST] += host;
    count_traffic(&w->tap, &slot->base, stats);
    slot->base = w->tap;
    return vf_net_record_write(slot, err); /* where an adopted slot's counts begin */
}

int vf_net_give_back(struct vf_net *slot, struct vf_net_stats *ret, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct vf_net_stats stats = {0};
    struct work w;

    vf_net_enter(slot, VF_NET_DIRTY);
    vf_net_close_fds(slot);
    int r = begin(&w, slot, slot->shape.tap.queues, err);
    if (r == 0) {
        r = recycle(&w, &stats, err);
        end(&w);
    }
    if (ret)
        *ret = stats;
    if (r == 0) {
        vf_net_park(slot);
        return 0;
    }
    vf_wrap(err, "network %s is not used again", slot->name);
    pthread_mutex_lock(&s->lock);
    s->doubts++;
    pthread_mutex_unlock(&s->lock);
    struct vf_error more;
    if (vf_net_destroy(slot, &more) < 0)
        vf_wrap(err, "%s", more.msg);
    return r;
}

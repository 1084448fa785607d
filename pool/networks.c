/* See networks.h.
 *
 * Stock: each pool whose spec has slots wants some ready of its shape; a worker makes one, and when it is done the next,
 * until none is wanted. Asked after whatever may have taken or freed one: pools are touched then. A failure is logged
 * once, and makes a pause that doubles, up to a cap, until one works.
 */
#include "pool/networks.h"

#include <stdlib.h>
#include "base/clock.h"
#include "base/log.h"
#include "pool/pools_internal.h"

static const enum vf_network_mode slot_modes[VF_STATS_NETWORKS] = {VF_NETWORK_NAT,
                                                                   VF_NETWORK_BRIDGE};

/* ---- opening */

/* What a mode that was asked for lacks: an error under `on`, a word in the log under `auto`. */
static int look_at(struct vf_pools *p, enum vf_network_mode mode, struct vf_error *err)
{
    struct vf_error e;
    if (vf_networks_check(p->net.all, mode, &e) == 0)
        return 0;
    if (p->settings->network == VF_NETWORKS_ON) {
        vf_error_copy(err, &e);
        vf_wrap(err, "network: is on, but the mode %s can't be had", vf_network_mode_names[mode]);
        return vf_hint(err, "set network to auto or off, to do without");
    }
    vf_log_error(VF_LOG_WARN, NULL, &e, "VMs can't have the network mode %s here",
                 vf_network_mode_names[mode]);
    return 0;
}

/* Leases of an earlier daemon go on in their slots, which go when they come back; nothing else is had. */
static void open_for_adoption(struct vf_pools *p, struct vf_networks_config *cfg)
{
    struct vf_error e;
    cfg->adopt_only = true;
    if (!vf_networks_left(cfg))
        return;
    if (vf_networks_open(cfg, &p->net.all, &e) < 0)
        vf_log_error(VF_LOG_WARN, NULL, &e,
                     "network is off, and what an earlier daemon left can't be kept");
    else
        vf_log(VF_LOG_INFO, NULL, "network is off; VMs of an earlier daemon keep what they have");
}

int vf_pools_open_networks(struct vf_pools *p, struct vf_error *err)
{
    const struct vf_settings *s = p->settings;
    struct vf_networks_config cfg = {0};
    struct vf_settings_networks texts;
    p->net.off = s->network == VF_NETWORKS_OFF;
    int r = vf_settings_networks(s, s->run_dir, &texts, &cfg, err);
    if (r < 0)
        return r;
    if (p->net.off) {
        open_for_adoption(p, &cfg);
        vf_settings_networks_free(&texts);
        return 0;
    }
    r = vf_networks_open(&cfg, &p->net.all, err);
    vf_settings_networks_free(&texts);
    if (r < 0)
        return r;
    bool nat = cfg.prefixes != NULL;
    r = nat ? look_at(p, VF_NETWORK_NAT, err) : 0;
    if (r == 0 && cfg.bridge)
        r = look_at(p, VF_NETWORK_BRIDGE, err);
    p->net.stale = true;
    return r;
}

/* ---- what a spec may ask for */

int vf_pools_check_mode(const struct vf_pools *p, enum vf_network_mode mode, struct vf_error *err)
{
    if (p->net.all && !p->net.off)
        return vf_networks_check(p->net.all, mode, err);
    vf_fail(err, VF_UNSUPPORTED, "the daemon's networks are off");
    return vf_hint(err, "set the daemon's network to auto or on, or the spec's mode to none");
}

int vf_pools_check_network(const struct vf_pools *p, const struct vf_spec *spec,
                           struct vf_error *err)
{
    enum vf_network_mode mode = (enum vf_network_mode)spec->network.mode;
    const char *name = vf_network_mode_names[mode];
    int r = vf_network_check(spec, err);
    if (r < 0 || mode == VF_NETWORK_NONE || mode == VF_NETWORK_EXTERNAL)
        return r;
    if (vf_pools_check_mode(p, mode, err) == 0)
        return 0;
    if (err)
        err->code = VF_INVALID_ARGUMENT; /* of the spec: it is for another host */
    return vf_wrap(err, "network.mode: %s can't be had here", name);
}

/* ---- sweeping */

static int sweep(struct vf_work *w, struct vf_error *err)
{
    struct vf_pools *p = w->arg;
    return vf_networks_sweep(p->net.all, &p->net.swept, err);
}

static void on_swept(void *arg, const struct vf_error *err)
{
    struct vf_pools *p = arg;
    const struct vf_sweep *s = &p->net.swept;
    if (err)
        vf_log_error(VF_LOG_WARN, NULL, err, "network slots that an earlier daemon left");
    if (s->removed || s->failed)
        vf_log(s->failed ? VF_LOG_WARN : VF_LOG_INFO, NULL,
               "%d network slots that an earlier daemon left were removed, of %d some part stays",
               s->removed, s->failed);
    if (s->foreign)
        vf_log(VF_LOG_WARN, NULL,
               "%d names like those of network slots are not ours, and left alone: %s", s->foreign,
               s->names);
    p->net.done(p);
}

void vf_pools_sweep_networks(struct vf_pools *p, void (*done)(struct vf_pools *p))
{
    p->net.done = done;
    if (!p->net.all || p->closing ||
        vf_work_submit(p->loop, &p->net.work, sweep, on_swept, p) < 0) /* it is the next start's */
        done(p);
}

/* ---- stock */

static bool is_in(const struct vf_pool_want *list, int n, const struct vf_pool_want *w)
{
    for (int i = 0; i < n; i++)
        if (list[i].mode == w->mode && vf_net_same_shape(&list[i].shape, &w->shape))
            return true;
    return false;
}

static bool wants(const struct vf_pool *pool, struct vf_pool_want *ret)
{
    const struct vf_spec *spec = pool->gen ? &pool->gen->manifest.spec : &pool->spec;
    ret->mode = (enum vf_network_mode)spec->network.mode;
    if (pool->removing || pool->drained || pool->no_network ||
        (ret->mode != VF_NETWORK_NAT && ret->mode != VF_NETWORK_BRIDGE))
        return false;
    return vf_network_shape(spec, &ret->shape, NULL) == 0;
}

/* What pools want now, instead of what they wanted before. */
static void renew_wants(struct vf_pools *p)
{
    int n = 0, room = 1;
    for (struct vf_pool *pool = p->first; pool; pool = pool->next)
        room++;
    struct vf_pool_want *list = calloc((size_t)room, sizeof(*list));
    if (!list)
        return; /* as before, until the next change */
    for (struct vf_pool *pool = p->first; pool; pool = pool->next)
        if (wants(pool, &list[n]) && !is_in(list, n, &list[n]))
            n++;
    for (int i = 0; i < p->net.n_wants; i++)
        if (!is_in(list, n, &p->net.wants[i]))
            vf_networks_want(p->net.all, p->net.wants[i].mode, &p->net.wants[i].shape, 0);
    for (int i = 0; i < n; i++)
        vf_networks_want(p->net.all, list[i].mode, &list[i].shape, (int)p->settings->network_ahead);
    free(p->net.wants);
    p->net.wants = list;
    p->net.n_wants = n;
    p->net.stale = false;
}

static int restock(struct vf_work *w, struct vf_error *err)
{
    struct vf_pools *p = w->arg;
    return vf_networks_restock(p->net.all, &p->net.more, err);
}

static void on_restocked(void *arg, const struct vf_error *err)
{
    struct vf_pools *p = arg;
    p->works--;
    p->net.restocking = false;
    if (err && err->code != VF_CANCELLED) {
        if (p->net.failures++ == 0)
            vf_log_error(VF_LOG_WARN, NULL, err, "no network slot can be made ahead");
        p->net.retry_us = vf_deadline_after_ms(vf_backoff_ms(p->settings, p->net.failures));
    } else if (!err) {
        if (p->net.failures > 0)
            vf_log(VF_LOG_INFO, NULL, "network slots are made ahead again");
        p->net.failures = 0;
        p->net.retry_us = 0;
    }
    vf_pools_soon(p);
}

void vf_pools_restock_networks(struct vf_pools *p)
{
    if (!p->net.all || p->closing || p->adoption)
        return;
    if (p->net.stale)
        renew_wants(p);
    if (p->net.restocking || vf_now_us() < p->net.retry_us || !vf_networks_short(p->net.all))
        return;
    if (vf_work_submit(p->loop, &p->net.work, restock, on_restocked, p) < 0)
        return; /* a second later */
    p->net.restocking = true;
    p->works++;
}

void vf_pools_publish_networks(struct vf_pools *p)
{
    for (int i = 0; p->net.all && i < VF_STATS_NETWORKS; i++) {
        struct vf_nets_counts c;
        vf_networks_counts(p->net.all, slot_modes[i], &c);
        vf_stats_set_slots(p->stats, i, &c);
    }
}

/* ---- closing */

static int close_all(struct vf_work *w, struct vf_error *err)
{
    struct vf_pools *p = w->arg;
    (void)err;
    vf_networks_close(p->net.all);
    return 0;
}

static void on_all_closed(void *arg, const struct vf_error *err)
{
    struct vf_pools *p = arg;
    if (err) /* cancelled: it never ran */
        vf_networks_close(p->net.all);
    p->net.all = NULL;
    free(p->net.wants);
    p->net.wants = NULL;
    p->net.done(p);
}

void vf_pools_close_networks(struct vf_pools *p, void (*done)(struct vf_pools *p))
{
    struct vf_error cancelled = {.code = VF_CANCELLED};
    p->net.done = done;
    if (!p->net.all)
        done(p);
    else if (vf_work_submit(p->loop, &p->net.work, close_all, on_all_closed, p) < 0)
        on_all_closed(p, &cancelled);
}

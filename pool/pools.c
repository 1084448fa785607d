/* All pools: opened, looked at whenever something changed, closed.
 *
 * Whatever changes a pool calls vf_pool_touch; on the loop's next turn, when the answer that caused it is on its way,
 * each touched pool is looked at once: build? refill? trim? A one-second timer looks at what only time changes: age,
 * pressure, autosizing, pauses that end.
 *
 * Closing: pending acquires end, builds are withdrawn, leased VMs are let go (or destroyed), all others destroyed;
 * then the factory closes, then the networks, then the store.
 */
#include "pool/pools.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "base/log.h"
#include "pool/pools_internal.h"
#include "pool/pressure.h"

/* ---- small things */

void vf_set_error(struct vf_error **at, const struct vf_error *err)
{
    if (!err) {
        free(*at);
        *at = NULL;
        return;
    }
    if (!*at && !(*at = malloc(sizeof(**at))))
        return; /* its message is lost, not what it led to */
    vf_error_copy(*at, err);
}

void vf_set_text(char **at, const char *text)
{
    char *copy = text ? strdup(text) : NULL;
    free(*at);
    *at = copy;
}

struct vf_runtimes *vf_pools_runtimes(const struct vf_pools *p)
{
    return p->runtimes;
}

int64_t vf_backoff_ms(const struct vf_settings *s, int64_t failures)
{
    int64_t ms = s->backoff_initial_ms;
    uint32_t random;
    for (int64_t i = 1; i < failures && ms < s->backoff_max_ms; i++)
        ms *= 2;
    if (ms > s->backoff_max_ms)
        ms = s->backoff_max_ms;
    vf_random(&random, sizeof(random));
    return ms / 2 + (int64_t)(random % 1000) * (ms - ms / 2) / 1000;
}

struct drop {
    struct vf_work work;
    struct vf_pools *pools;
    struct vf_generation *gen;
};

static int drop(struct vf_work *w, struct vf_error *err)
{
    (void)err;
    vf_generation_unref(((struct drop *)w->arg)->gen);
    return 0;
}

static void on_dropped(void *arg, const struct vf_error *err)
{
    struct drop *d = arg;
    struct vf_pools *p = d->pools;
    (void)err;
    free(d);
    p->works--;
    vf_pools_soon(p);
}

void vf_pools_drop_generation(struct vf_pools *p, struct vf_generation *gen)
{
    struct drop *d = calloc(1, sizeof(*d));
    if (!d) {
        vf_generation_unref(gen);
        return;
    }
    d->pools = p;
    d->gen = gen;
    if (vf_work_submit(p->loop, &d->work, drop, on_dropped, d) < 0) {
        vf_generation_unref(gen);
        free(d);
        return;
    }
    p->works++;
}

/* ---- what is done soon */

static void on_soon(uv_timer_t *t);

void vf_pools_soon(struct vf_pools *p)
{
    if (p->open_timers && !uv_is_active((uv_handle_t *)&p->soon))
        uv_timer_start(&p->soon, on_soon, 0, 0);
}

void vf_pool_touch(struct vf_pool *pool)
{
    pool->tick_soon = true;
    vf_pools_soon(pool->pools);
}

void vf_pool_publish(struct vf_pool *pool)
{
    int64_t now = vf_now_us();
    struct vf_stats_pool g = {
        .state = pool->state,
        .generation = pool->current,
        .min = pool->config.min,
        .max = pool->config.max,
        .target = pool->target,
        .parked = pool->n[VF_SLOT_PARKED],
        .standby_target = pool->config.standby,
        .standby = pool->n[VF_SLOT_STANDBY],
        .making = pool->n[VF_SLOT_MAKING],
        .leased = pool->n[VF_SLOT_LEASED],
        .waiting = pool->n_waiting,
        .drained = pool->drained,
        .under_pressure = pool->pressure_told,
        .building = pool->build != NULL,
        .backoff_ms = pool->refill_retry_us > now ? (pool->refill_retry_us - now) / 1000 : 0,
        .template_memory_bytes = (int64_t)vf_spec_memory_bytes(&pool->spec),
    };
    vf_stats_set_pool(pool->stats, &g);
}

static void tick(struct vf_pool *pool)
{
    pool->tick_soon = false;
    if (pool->pools->adoption) /* its generation is not loaded yet; vf_pools_start touches all */
        return;
    vf_template_tick(pool);
    vf_refill_tick(pool);
    if (pool->tidy)
        vf_template_tidy(pool);
    vf_pool_publish(pool);
}

static void on_soon(uv_timer_t *t)
{
    struct vf_pools *p = t->data;
    struct vf_pool *next;
    vf_slots_reap(p);
    for (struct vf_pool *pool = p->first; pool; pool = next) {
        next = pool->next;
        if (pool->tick_soon)
            tick(pool);
        vf_pool_finish_removal(pool);
    }
    vf_pools_restock_networks(p);
    vf_pools_check_closed(p);
}

static void autosize(struct vf_pool *pool, int64_t now)
{
    const struct vf_pool_config *c = &pool->config;
    if (vf_pool_is_external(pool))
        return; /* its target is 0 */
    double replace_s = (pool->clone_s > 0 ? pool->clone_s : 1) / (double)c->refill_concurrency;
    pool->target = c->autosize ? vf_autosize_target(&pool->autosize, now, replace_s, pool->target,
                                                    c->min, c->max)
                               : c->target;
}

static void on_second(uv_timer_t *t)
{
    struct vf_pools *p = t->data;
    int64_t now = vf_now_us();
    p->under_pressure = vf_memory_pressure(p->settings, p->pressure, sizeof(p->pressure));
    for (struct vf_pool *pool = p->first; pool; pool = pool->next) {
        autosize(pool, now);
        tick(pool);
    }
    vf_pools_restock_networks(p);
    vf_pools_publish_networks(p);
    vf_traffic_tick(p);
}

static void on_deadline(uv_timer_t *t)
{
    struct vf_pools *p = t->data;
    p->deadline_us = VF_NEVER;
    vf_acquire_deadlines(p);
    vf_lease_expire(p);
    vf_pools_arm_deadline(p, vf_acquire_next_deadline(p));
    vf_pools_arm_deadline(p, vf_lease_next_expiry(p));
}

void vf_pools_arm_deadline(struct vf_pools *p, int64_t at_us)
{
    if (at_us >= p->deadline_us || !p->open_timers)
        return;
    p->deadline_us = at_us;
    vf_timer_at(&p->deadline, at_us, on_deadline);
}

void vf_pools_settings_changed(struct vf_pools *p)
{
    vf_factory_set_answer_timeout(p->factory, p->settings->answer_timeout_ms);
    vf_heartbeat_arm(p);
    p->under_pressure = vf_memory_pressure(p->settings, p->pressure, sizeof(p->pressure));
    p->net.stale = true;
    for (struct vf_pool *pool = p->first; pool; pool = pool->next)
        vf_pool_touch(pool);
}

/* ---- the list */

int vf_pools_find(struct vf_pools *p, const char *name, struct vf_pool **ret, struct vf_error *err)
{
    const char *names[256];
    size_t n = 0;
    for (struct vf_pool *pool = p->first; pool; pool = pool->next) {
        if (strcmp(pool->spec.name, name) == 0) {
            *ret = pool;
            return 0;
        }
        if (n < 255)
            names[n++] = pool->spec.name;
    }
    names[n] = NULL;
    const char *near = vf_nearest(name, names);
    vf_fail(err, VF_NOT_FOUND, "there is no template '%.64s'", name);
    return near ? vf_hint(err, "did you mean %s?", near)
                : vf_hint(err, "`vmfactory template add FILE` adds one");
}

struct vf_pool *vf_pools_next(struct vf_pools *p, struct vf_pool *after)
{
    return after ? after->next : p->first;
}

const char *vf_pool_name(const struct vf_pool *pool)
{
    return pool->spec.name;
}

const struct vf_spec *vf_pool_spec(const struct vf_pool *pool)
{
    return &pool->spec;
}

const struct vf_pool_config *vf_pool_config(const struct vf_pool *pool)
{
    return &pool->config;
}

struct vf_stats_template *vf_pool_stats(const struct vf_pool *pool)
{
    return pool->stats;
}

int vf_pool_memory_fd(const struct vf_pool *pool)
{
    return pool->gen ? pool->gen->memory_fd : -1;
}

int vf_pools_processes(struct vf_pools *p, struct vf_vm_process *ret, int max)
{
    int n = 0;
    for (struct vf_pool *pool = p->first; pool; pool = pool->next) {
        struct vf_slot *s;
        TAILQ_FOREACH (s, &pool->all, all) {
            bool idle = s->state == VF_SLOT_PARKED || s->state == VF_SLOT_LEASED;
            pid_t pid = idle ? vf_slot_pid(s) : 0;
            if (pid && n < max)
                ret[n++] = (struct vf_vm_process){pid, pool->stats};
        }
    }
    return n;
}

void vf_pool_free(struct vf_pool *pool)
{
    if (!pool)
        return;
    vf_spec_free(&pool->spec);
    free(pool->reason);
    free(pool->build_error);
    free(pool->refill_error);
    free(pool->no_network);
    free(pool);
}

/* ---- open */

static int open_dirs(struct vf_pools *p, struct vf_error *err)
{
    VF_CLEANUP_FREE char *specs = NULL, *pools = NULL, *vms = NULL;
    if (asprintf(&specs, "%s/specs", p->settings->state_dir) < 0 ||
        asprintf(&pools, "%s/pools", p->settings->state_dir) < 0 ||
        asprintf(&vms, "%s/vms", p->settings->run_dir) < 0)
        return vf_fail(err, VF_NO_MEMORY, "directories");
    int r = vf_open_dir(specs, 1, 0700, &p->specs_dirfd, err);
    if (r == 0)
        r = vf_open_dir(pools, 1, 0700, &p->pools_dirfd, err);
    if (r == 0)
        r = vf_open_dir(vms, 1, 0700, &p->run_dirfd, err);
    if (r == 0 && !(p->run_path = realpath(vms, NULL)))
        r = vf_fail_errno(err, errno, "%s", vms);
    return r;
}

static void on_runtimes_changed(void *arg)
{
    struct vf_pools *p = arg;
    vf_factory_set_registry(p->factory, vf_runtimes_registry(p->runtimes));
    for (struct vf_pool *pool = p->first; pool; pool = pool->next) {
        vf_pool_settle(pool);
        vf_pool_touch(pool);
    }
    p->net.stale = true;
}

static void on_runtimes_idle(void *arg)
{
    vf_pools_soon(arg);
}

/* Of all VMs, whatever they are at. */
static pid_t *all_pids(void *arg, int *ret_n)
{
    struct vf_pools *p = arg;
    pid_t *pids = malloc((size_t)(p->n_slots + 1) * sizeof(*pids));
    *ret_n = pids ? 0 : -1;
    for (struct vf_pool *pool = p->first; pool && pids; pool = pool->next) {
        struct vf_slot *s;
        TAILQ_FOREACH (s, &pool->all, all) {
            pid_t pid = vf_slot_pid(s);
            if (pid && *ret_n < p->n_slots)
                pids[(*ret_n)++] = pid;
        }
    }
    return pids;
}

static int open_parts(struct vf_pools *p, struct vf_error *err)
{
    int r = open_dirs(p, err);
    if (r == 0)
        r = vf_store_open(p->settings->state_dir, &p->store, err);
    if (r == 0 && vf_store_sweep_error(p->store))
        vf_log_error(VF_LOG_WARN, NULL, vf_store_sweep_error(p->store),
                     "litter stays in the store");
    if (r < 0)
        return r;
    struct vf_runtimes_config rc = {
        .loop = p->loop,
        .settings = p->settings,
        .events = p->events,
        .store = p->store,
        .changed = on_runtimes_changed,
        .idle = on_runtimes_idle,
        .pids = all_pids,
        .arg = p,
    };
    r = vf_runtimes_open(&rc, &p->runtimes, err);
    if (r < 0)
        return r;
    struct vf_factory_config c = {
        .run_dir = p->run_path,
        .store = p->store,
        .registry = vf_runtimes_registry(p->runtimes),
        .assets = vf_runtimes_store(p->runtimes),
        .answer_timeout_ms = p->settings->answer_timeout_ms,
        .on_step = vf_slots_on_step,
        .on_step_arg = p,
        .on_traffic = vf_traffic_ended,
        .on_traffic_arg = p,
    };
    r = vf_pools_open_networks(p, err);
    if (r < 0)
        return r;
    c.networks = p->net.all;
    r = vf_factory_open(p->loop, &c, &p->factory, err);
    return r < 0 ? r : vf_pools_load_specs(p, err);
}

static void close_dirs(struct vf_pools *p)
{
    vf_close_fd(&p->specs_dirfd);
    vf_close_fd(&p->pools_dirfd);
    vf_close_fd(&p->run_dirfd);
}

static void free_pools(struct vf_pools *p)
{
    while (p->first) {
        struct vf_pool *pool = p->first;
        p->first = pool->next;
        vf_pool_free(pool);
    }
    vf_runtimes_free(p->runtimes);
    vf_store_close(p->store);
    close_dirs(p);
    free(p->run_path);
    free(p->holders);
    free(p);
}

static void ignore(void *arg)
{
    (void)arg;
}

int vf_pools_open(uv_loop_t *loop, const struct vf_settings *settings, struct vf_events *events,
                  struct vf_stats *stats, vf_done_cb ready, void *arg, struct vf_pools **ret,
                  struct vf_error *err)
{
    struct vf_pools *p = calloc(1, sizeof(*p));
    if (!p)
        return vf_fail(err, VF_NO_MEMORY, "pools");
    p->loop = loop;
    p->settings = settings;
    p->events = events;
    p->stats = stats;
    p->ready = ready;
    p->ready_arg = arg;
    p->run_dirfd = p->specs_dirfd = p->pools_dirfd = -1;
    p->deadline_us = VF_NEVER;
    LIST_INIT(&p->adds);
    TAILQ_INIT(&p->leases);
    TAILQ_INIT(&p->pending);
    int r = open_parts(p, err);
    if (r < 0) {
        if (p->factory) /* it has made nothing yet: it is closed as this returns */
            vf_factory_close(p->factory, ignore, NULL);
        vf_networks_close(p->net.all);
        free_pools(p);
        return r;
    }
    uv_timer_t *timers[] = {&p->soon, &p->second, &p->deadline, &p->beat};
    for (size_t i = 0; i < sizeof(timers) / sizeof(*timers); i++) {
        uv_timer_init(loop, timers[i]);
        timers[i]->data = p;
        p->open_timers++;
    }
    p->under_pressure = vf_memory_pressure(settings, p->pressure, sizeof(p->pressure));
    *ret = p;
    return vf_adopt_begin(p, err);
}

/* Called once adoption is over. */
void vf_pools_start(struct vf_pools *p)
{
    if (p->closing)
        return;
    vf_pools_publish_networks(p);
    uv_timer_start(&p->second, on_second, 1000, 1000);
    vf_heartbeat_arm(p);
    for (struct vf_pool *pool = p->first; pool; pool = pool->next) {
        vf_template_load(pool);
        vf_pool_touch(pool);
    }
    vf_pools_arm_deadline(p, vf_lease_next_expiry(p));
}

/* ---- close */

static void on_timer_closed(uv_handle_t *h)
{
    struct vf_pools *p = h->data;
    if (--p->open_timers > 0)
        return;
    void (*closed)(void *arg) = p->closed;
    void *arg = p->closed_arg;
    free_pools(p);
    closed(arg);
}

static void close_timers(struct vf_pools *p)
{
    uv_close((uv_handle_t *)&p->soon, on_timer_closed);
    uv_close((uv_handle_t *)&p->second, on_timer_closed);
    uv_close((uv_handle_t *)&p->deadline, on_timer_closed);
    uv_close((uv_handle_t *)&p->beat, on_timer_closed);
}

static void on_factory_closed(void *arg)
{
    struct vf_pools *p = arg;
    p->factory = NULL;
    vf_pools_close_networks(p, close_timers);
}

void vf_pools_check_closed(struct vf_pools *p)
{
    if (!p->closing || p->factory_closing || p->n_slots || p->works || p->adoption ||
        vf_runtimes_busy(p->runtimes))
        return;
    for (struct vf_pool *pool = p->first; pool; pool = pool->next)
        if (pool->build || pool->loading)
            return;
    p->factory_closing = true;
    vf_factory_close(p->factory, on_factory_closed, p);
}

static void on_detached(void *arg)
{
    struct vf_slot *s = arg;
    s->vm = NULL;
    vf_slot_forget(s);
}

static void let_go(struct vf_slot *s)
{
    s->closing_kept = s->destroying = true;
    vf_slot_set_state(s, VF_SLOT_RELEASING);
    vf_instance_detach(s->vm, on_detached, s);
}

void vf_pools_refuse(struct vf_pools *p)
{
    struct vf_error e;
    p->refusing = true;
    vf_fail(&e, VF_CANCELLED, "the daemon is stopping");
    vf_acquire_fail_all(p, NULL, &e);
}

void vf_pools_end_all(struct vf_pools *p)
{
    bool keep = p->settings->on_stop == VF_ON_STOP_KEEP_LEASES;
    vf_pools_refuse(p);
    vf_runtimes_stop(p->runtimes);
    for (struct vf_pool *pool = p->first; pool; pool = pool->next) {
        struct vf_slot *s, *next;
        vf_template_stop(pool);
        if (pool->gen)
            vf_pools_drop_generation(p, pool->gen);
        pool->gen = NULL;
        for (s = TAILQ_FIRST(&pool->all); s; s = next) {
            next = TAILQ_NEXT(s, all);
            if (keep && s->state == VF_SLOT_LEASED && s->vm && !s->destroying)
                let_go(s);
            else
                vf_slot_destroy(s);
        }
    }
    vf_pools_soon(p);
}

void vf_pools_close(struct vf_pools *p, void (*done)(void *arg), void *arg)
{
    p->refusing = p->closing = true;
    p->closed = done;
    p->closed_arg = arg;
    uv_timer_stop(&p->second);
    uv_timer_stop(&p->beat);
    uv_timer_stop(&p->deadline);
    if (!p->adoption) /* else its end comes back here */
        vf_pools_end_all(p);
}

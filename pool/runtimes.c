/* The set in force, and its changes. See runtimes.h.
 *
 *     submit -> (waits for its turn) -> run, in a worker: a new set -> end, on the loop: in force, told -> done
 */
#include "pool/runtimes_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"

/* ---- turns */

static void start_next(struct vf_runtimes *rt, int turn);

static int work(struct vf_work *w, struct vf_error *err)
{
    struct vf_runtimes_op *op = w->arg;

    return op->run(op, err);
}

static void on_worked(void *arg, const struct vf_error *err)
{
    struct vf_runtimes_op *op = arg;
    struct vf_runtimes *rt = op->rt;
    int turn = op->turn;

    rt->works--;
    op->end(op, err);
    if (turn >= 0) {
        rt->taken[turn] = false;
        start_next(rt, turn);
    }
    vf_runtimes_ended(rt);
}

static int start(struct vf_runtimes *rt, struct vf_runtimes_op *op)
{
    int r;

    if (op->begin != NULL)
        op->begin(op);
    r = vf_work_submit(rt->cfg.loop, &op->work, work, on_worked, op);
    if (r < 0)
        return r;
    rt->works++;
    if (op->turn >= 0)
        rt->taken[op->turn] = true;
    return 0;
}

static void start_next(struct vf_runtimes *rt, int turn)
{
    while (!rt->taken[turn] && !STAILQ_EMPTY(&rt->waiting[turn])) {
        struct vf_runtimes_op *op = STAILQ_FIRST(&rt->waiting[turn]);
        struct vf_error err;

        STAILQ_REMOVE_HEAD(&rt->waiting[turn], waiting);
        rt->n_waiting--;
        if (rt->stopping)
            vf_fail(&err, VF_CANCELLED, "the daemon is stopping");
        else if (start(rt, op) < 0)
            vf_fail(&err, VF_INTERNAL, "no worker can be started");
        else
            return;
        op->end(op, &err);
    }
}

int vf_runtimes_submit(struct vf_runtimes *rt, struct vf_runtimes_op *op, struct vf_error *err)
{
    op->rt = rt;
    if (rt->stopping)
        return vf_fail(err, VF_CANCELLED, "the daemon is stopping");
    if (op->turn >= 0 && rt->taken[op->turn]) {
        if (rt->n_waiting >= VF_RUNTIMES_MAX_WAITING)
            return vf_fail(err, VF_BUSY, "%d changes of classes and assets wait already",
                           rt->n_waiting);
        STAILQ_INSERT_TAIL(&rt->waiting[op->turn], op, waiting);
        rt->n_waiting++;
        return 0;
    }
    if (start(rt, op) < 0)
        return vf_fail(err, VF_INTERNAL, "no worker can be started");
    return 0;
}

void vf_runtimes_ended(struct vf_runtimes *rt)
{
    if (!vf_runtimes_busy(rt))
        rt->cfg.idle(rt->cfg.arg);
}

/* ---- sets that were in force */

/* Lets go of those that nobody goes on with; how many are left. */
static size_t sweep_past(struct vf_runtimes *rt, bool all)
{
    struct vf_past_set **at = &SLIST_FIRST(&rt->past), *p;
    size_t n = 0;

    while ((p = *at) != NULL) {
        if (!all && vf_registry_shared(p->registry)) {
            n++;
            at = &SLIST_NEXT(p, next);
            continue;
        }
        *at = SLIST_NEXT(p, next);
        vf_registry_unref(p->registry);
        free(p);
    }
    return n;
}

struct vf_registry **vf_runtimes_sets(struct vf_runtimes *rt, size_t *ret_n)
{
    size_t n = sweep_past(rt, false);
    struct vf_registry **v = malloc((n + 1) * sizeof(struct vf_registry *));
    struct vf_past_set *p;

    if (v == NULL)
        return NULL;
    *ret_n = 0;
    v[(*ret_n)++] = vf_registry_ref(rt->registry);
    SLIST_FOREACH(p, &rt->past, next)
    v[(*ret_n)++] = vf_registry_ref(p->registry);
    return v;
}

/* ---- changes */

enum what { PUT_CLASS, REMOVE_CLASS, PUT_ASSET, REMOVE_ASSET, RELOAD };
static const struct {
    const char *event, *did, *what;
} words[] = {
    [PUT_CLASS] = {"class.set", "set", "class"},
    [REMOVE_CLASS] = {"class.removed", "removed", "class"},
    [PUT_ASSET] = {"asset.set", "set", "asset"},
    [REMOVE_ASSET] = {"asset.removed", "removed", "asset"},
    [RELOAD] = {"class.reloaded", "", ""},
};

struct change {
    struct vf_runtimes_op op;
    enum what what;
    struct vf_class class;
    struct vf_asset asset;
    char name[VF_CLASS_NAME_MAX + 1];
    struct vf_registry *result;
    struct vf_removal removal; /* of a class */
    struct vf_past_set *past;  /* room for the set that it takes the place of */
    vf_done_cb done;
    void *arg;
};
static_assert(VF_CLASS_NAME_MAX >= VF_ASSET_NAME_MAX, "either's name fits");

static int run_change(struct vf_runtimes_op *op, struct vf_error *err)
{
    struct change *c = (struct change *)op;
    const struct vf_registry_config *cfg = &op->rt->registry_config;

    switch (c->what) {
    case PUT_CLASS:
        return vf_registry_put_class(cfg, &c->class, &c->result, err);
    case REMOVE_CLASS:
        return vf_registry_remove_class(cfg, c->name, &c->result, err);
    case PUT_ASSET:
        return vf_registry_put_asset(cfg, &c->asset, &c->result, err);
    case REMOVE_ASSET:
        return vf_registry_remove_asset(cfg, c->name, &c->result, err);
    case RELOAD:
        return vf_registry_load(cfg, &c->result, err);
    }
    return vf_fail(err, VF_INTERNAL, "no such change");
}

static void free_change(struct change *c)
{
    vf_class_free(&c->class);
    vf_asset_free(&c->asset);
    free(c->past);
    free(c);
}

/* The set before stays known, for who began with it still needs what it pins. */
static void take_result(struct vf_runtimes *rt, struct change *c)
{
    c->past->registry = rt->registry;
    SLIST_INSERT_HEAD(&rt->past, c->past, next);
    c->past = NULL;
    rt->registry = c->result;
    vf_runtimes_fetches_changed(rt);
    if (!rt->stopping)
        rt->cfg.changed(rt->cfg.arg);
    sweep_past(rt, false);
}

static void end_change(struct vf_runtimes_op *op, const struct vf_error *err)
{
    struct change *c = (struct change *)op;
    struct vf_runtimes *rt = op->rt;
    vf_done_cb done = c->done;
    void *arg = c->arg;

    if (c->what == REMOVE_CLASS)
        LIST_REMOVE(&c->removal, others);
    if (err == NULL) {
        take_result(rt, c);
        if (c->what == RELOAD)
            vf_event(rt->cfg.events, words[c->what].event, NULL, NULL, VF_EVENT_ALL, NULL,
                     "%zu classes, %zu assets", vf_registry_n_classes(rt->registry),
                     vf_registry_n_assets(rt->registry));
        else
            vf_event(rt->cfg.events, words[c->what].event, NULL, NULL, VF_EVENT_ALL, NULL,
                     "%s %s %s", words[c->what].what, c->name, words[c->what].did);
    } else if (c->what == RELOAD)
        vf_event(rt->cfg.events, "class.reload_failed", NULL, NULL, VF_EVENT_ALL, err,
                 "classes and assets not read again, those in force stay: %s", err->msg);
    free_change(c);
    done(arg, err);
}

static struct change *new_change(enum what what, const char *name, vf_done_cb done, void *arg)
{
    struct change *c = calloc(1, sizeof(*c));
    struct vf_past_set *past = calloc(1, sizeof(*past));

    if (c == NULL || past == NULL) {
        free(c);
        free(past);
        return NULL;
    }
    *c = (struct change){
        .past = past,
        .op = {.turn = VF_TURN_CHANGE, .run = run_change, .end = end_change},
        .what = what,
        .done = done,
        .arg = arg,
    };
    snprintf(c->name, sizeof(c->name), "%s", name);
    return c;
}

/* c may be NULL: without memory. */
static int submit(struct vf_runtimes *rt, struct change *c, struct vf_error *err)
{
    int r;

    if (c == NULL)
        return vf_fail(err, VF_NO_MEMORY, "out of memory");
    r = vf_runtimes_submit(rt, &c->op, err);
    if (r < 0) {
        free(c->past);
        free(c); /* what was to be taken over is still the caller's */
        return r;
    }
    if (c->what == REMOVE_CLASS) {
        snprintf(c->removal.name, sizeof(c->removal.name), "%s", c->name);
        LIST_INSERT_HEAD(&rt->removals, &c->removal, others);
    }
    return 0;
}

int vf_runtimes_put_class(struct vf_runtimes *rt, struct vf_class *class, vf_done_cb done,
                          void *arg, struct vf_error *err)
{
    struct change *c = new_change(PUT_CLASS, class->name, done, arg);
    int r;

    if (c != NULL)
        c->class = *class;
    r = submit(rt, c, err);
    if (r == 0)
        *class = (struct vf_class){0};
    return r;
}

int vf_runtimes_put_asset(struct vf_runtimes *rt, struct vf_asset *asset, vf_done_cb done,
                          void *arg, struct vf_error *err)
{
    struct change *c = new_change(PUT_ASSET, asset->name, done, arg);
    int r;

    if (c != NULL)
        c->asset = *asset;
    r = submit(rt, c, err);
    if (r == 0)
        *asset = (struct vf_asset){0};
    return r;
}

static int remove_named(struct vf_runtimes *rt, enum what what, const char *name, vf_done_cb done,
                        void *arg, struct vf_error *err)
{
    if (!vf_asset_name_ok(name))
        return vf_fail(err, VF_NOT_FOUND, "there is no %s '%.64s'", words[what].what, name);
    return submit(rt, new_change(what, name, done, arg), err);
}

int vf_runtimes_remove_class(struct vf_runtimes *rt, const char *name, vf_done_cb done, void *arg,
                             struct vf_error *err)
{
    return remove_named(rt, REMOVE_CLASS, name, done, arg, err);
}

bool vf_runtimes_removes_class(const struct vf_runtimes *rt, const char *name)
{
    const struct vf_removal *r;

    LIST_FOREACH(r, &rt->removals, others)
    if (strcmp(r->name, name) == 0)
        return true;
    return false;
}

int vf_runtimes_remove_asset(struct vf_runtimes *rt, const char *name, vf_done_cb done, void *arg,
                             struct vf_error *err)
{
    return remove_named(rt, REMOVE_ASSET, name, done, arg, err);
}

int vf_runtimes_reload(struct vf_runtimes *rt, vf_done_cb done, void *arg, struct vf_error *err)
{
    return submit(rt, new_change(RELOAD, "", done, arg), err);
}

/* ---- life */

static int open_parts(struct vf_runtimes *rt, struct vf_error *err)
{
    const struct vf_settings *s = rt->cfg.settings;
    VF_CLEANUP_FREE char *assets = NULL;
    int r;

    if (asprintf(&assets, "%s/assets", s->state_dir) < 0)
        return vf_fail(err, VF_NO_MEMORY, "out of memory");
    if (s->runtime_dir != NULL)
        rt->dir = strdup(s->runtime_dir);
    else if (asprintf(&rt->dir, "%s/runtime", s->state_dir) < 0)
        rt->dir = NULL;
    if (rt->dir == NULL)
        return vf_fail(err, VF_NO_MEMORY, "out of memory");
    rt->registry_config = (struct vf_registry_config){
        .dir = rt->dir,
        .binaries = {[VF_SPEC_VMM_QEMU] = s->qemu,
                     [VF_SPEC_VMM_CLOUD_HYPERVISOR] = s->cloud_hypervisor,
                     [VF_SPEC_VMM_FIRECRACKER] = s->firecracker},
    };
    r = vf_registry_load(&rt->registry_config, &rt->registry, err);
    if (r < 0) {
        vf_wrap(err, "runtime classes");
        return vf_hint(err, "mend it, or move it out of %s", rt->dir);
    }
    return vf_asset_store_open(assets, &rt->assets, err);
}

int vf_runtimes_open(const struct vf_runtimes_config *cfg, struct vf_runtimes **ret,
                     struct vf_error *err)
{
    struct vf_runtimes *rt = calloc(1, sizeof(*rt));
    int r;

    if (rt == NULL)
        return vf_fail(err, VF_NO_MEMORY, "out of memory");
    rt->cfg = *cfg;
    for (int i = 0; i < VF_TURN_COUNT; i++)
        STAILQ_INIT(&rt->waiting[i]);
    LIST_INIT(&rt->removals);
    r = open_parts(rt, err);
    if (r < 0) {
        vf_runtimes_free(rt);
        return r;
    }
    *ret = rt;
    return 0;
}

static void on_timer_closed(uv_handle_t *h)
{
    struct vf_runtimes *rt = h->data;

    rt->timer_open = false;
    vf_runtimes_ended(rt);
}

void vf_runtimes_stop(struct vf_runtimes *rt)
{
    if (rt->stopping)
        return;
    rt->stopping = true;
    vf_runtimes_fetches_changed(rt);
    for (int i = 0; i < VF_TURN_COUNT; i++)
        start_next(rt, i);
    if (rt->timer_open)
        uv_close((uv_handle_t *)&rt->timer, on_timer_closed);
}

bool vf_runtimes_busy(const struct vf_runtimes *rt)
{
    return rt->works > 0 || rt->n_fetching > 0 || (rt->stopping && rt->timer_open);
}

void vf_runtimes_free(struct vf_runtimes *rt)
{
    if (rt == NULL)
        return;
    assert(rt->works == 0 && rt->n_fetching == 0 && !rt->timer_open);
    vf_runtimes_fetches_free(rt);
    vf_asset_store_close(rt->assets);
    sweep_past(rt, true);
    vf_registry_unref(rt->registry);
    free(rt->dir);
    free(rt);
}

struct vf_registry *vf_runtimes_registry(const struct vf_runtimes *rt)
{
    return rt->registry;
}

struct vf_asset_store *vf_runtimes_store(const struct vf_runtimes *rt)
{
    return rt->assets;
}

int vf_runtimes_asset(const struct vf_runtimes *rt, const char *name, const struct vf_asset **ret,
                      struct vf_error *err)
{
    const char *names[256], *near;
    size_t n = 0;

    *ret = vf_registry_asset(rt->registry, name);
    if (*ret != NULL)
        return 0;
    for (size_t i = 0; i < vf_registry_n_assets(rt->registry) && n < 255; i++)
        names[n++] = vf_registry_asset_at(rt->registry, i)->name;
    names[n] = NULL;
    near = vf_nearest(name, names);
    vf_fail(err, VF_NOT_FOUND, "there is no asset '%.64s'", name);
    return near != NULL ? vf_hint(err, "did you mean %s?", near)
                        : vf_hint(err, "`vmfactory asset add FILE` adds one");
}

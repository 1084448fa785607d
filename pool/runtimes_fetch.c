/* Fetches of assets, one state for each name that was ever fetched. See runtimes.h.
 *
 *     asked -> running -> told each tenth -> there, or failed with the error that is kept for whoever asks
 *
 * An asset that is changed or removed meanwhile is fetched no more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "pool/runtimes_internal.h"

#define TELL_EVERY_MS 500
#define TELL_STEP_PERCENT 10

static struct vf_fetch_state *find(const struct vf_runtimes *rt, const char *name)
{
    struct vf_fetch_state *f = rt->fetches;

    while (f != NULL && strcmp(f->name, name) != 0)
        f = f->next;
    return f;
}

static void look_how_far(struct vf_fetch_state *f)
{
    const struct vf_progress *p = vf_fetch_progress(f->fetch);

    f->done_bytes = (int64_t)p->done_bytes;
    f->total_bytes = (int64_t)p->total_bytes;
}

static void on_timer(uv_timer_t *t)
{
    struct vf_runtimes *rt = t->data;

    for (struct vf_fetch_state *f = rt->fetches; f != NULL; f = f->next) {
        int percent;

        if (f->fetch == NULL)
            continue;
        look_how_far(f);
        percent =
            f->total_bytes > 0 ? (int)((double)f->done_bytes / (double)f->total_bytes * 100.0) : 0;
        if (percent < f->told_percent + TELL_STEP_PERCENT || percent >= 100)
            continue;
        f->told_percent = percent - percent % TELL_STEP_PERCENT;
        vf_event(rt->cfg.events, "asset.fetching", NULL, NULL, VF_EVENT_ALL, NULL,
                 "asset %s: %d%% of %lld bytes", f->name, f->told_percent,
                 (long long)f->total_bytes);
    }
}

static void watch(struct vf_runtimes *rt)
{
    if (!rt->timer_open) {
        uv_timer_init(rt->cfg.loop, &rt->timer);
        rt->timer.data = rt;
        rt->timer_open = true;
    }
    if (!uv_is_active((uv_handle_t *)&rt->timer))
        uv_timer_start(&rt->timer, on_timer, TELL_EVERY_MS, TELL_EVERY_MS);
}

static int begin(struct vf_fetch_state *f, const struct vf_asset *a, struct vf_error *err);

static void on_fetched(void *arg, const struct vf_error *err)
{
    struct vf_fetch_state *f = arg;
    struct vf_runtimes *rt = f->rt;
    const struct vf_asset *a = NULL;
    struct vf_error e;

    f->fetch = NULL; /* with its progress: what was seen last is kept */
    rt->n_fetching--;
    f->has_error = err != NULL;
    if (err != NULL)
        vf_error_copy(&f->error, err);
    if (err == NULL)
        vf_event(rt->cfg.events, "asset.fetched", NULL, NULL, VF_EVENT_ALL, NULL,
                 "asset %s, sha256 %s", f->name, f->sha256);
    else if (err->code != VF_CANCELLED)
        vf_event(rt->cfg.events, "asset.fetch_failed", NULL, NULL, VF_EVENT_ALL, err, NULL);
    if (f->again && !rt->stopping && vf_runtimes_asset(rt, f->name, &a, NULL) == 0 &&
        begin(f, a, &e) < 0) {
        f->has_error = true;
        f->error = e;
    }
    f->again = false;
    if (rt->n_fetching == 0 && rt->timer_open && !rt->stopping)
        uv_timer_stop(&rt->timer);
    vf_runtimes_ended(rt);
}

static int begin(struct vf_fetch_state *f, const struct vf_asset *a, struct vf_error *err)
{
    const struct vf_asset_file *file = vf_asset_file_here(a);
    struct vf_runtimes *rt = f->rt;
    char url[256] = "?", *definition = vf_asset_encode(a);
    int r;

    if (definition == NULL)
        return vf_fail(err, VF_NO_MEMORY, "out of memory");
    r = vf_asset_fetch(rt->assets, rt->cfg.loop, a, on_fetched, f, &f->fetch, err);
    if (r < 0) {
        free(definition);
        f->fetch = NULL;
        return r;
    }
    free(f->definition);
    f->definition = definition;
    snprintf(f->sha256, sizeof(f->sha256), "%s", file != NULL ? file->sha256 : "");
    f->attempts++;
    f->withdrawn = f->has_error = false;
    f->told_percent = 0;
    f->done_bytes = f->total_bytes = 0;
    rt->n_fetching++;
    watch(rt);
    if (file != NULL)
        vf_asset_plain_url(file->url, url, sizeof(url)); /* its query may hold a signature */
    vf_event(rt->cfg.events, "asset.fetching", NULL, NULL, VF_EVENT_ALL, NULL, "asset %s from %s",
             f->name, url);
    return 0;
}

int vf_runtimes_fetch(struct vf_runtimes *rt, const char *name, struct vf_error *err)
{
    struct vf_fetch_state *f = find(rt, name);
    const struct vf_asset *a;
    int r = vf_runtimes_asset(rt, name, &a, err);

    if (r < 0)
        return r;
    if (rt->stopping)
        return vf_fail(err, VF_CANCELLED, "the daemon is stopping");
    if (f != NULL && f->fetch != NULL) {
        f->again = f->again || f->withdrawn;
        return 0;
    }
    if (f == NULL) {
        f = calloc(1, sizeof(*f));
        if (f == NULL)
            return vf_fail(err, VF_NO_MEMORY, "out of memory");
        f->rt = rt;
        snprintf(f->name, sizeof(f->name), "%s", name);
        f->next = rt->fetches;
        rt->fetches = f;
    }
    return begin(f, a, err);
}

void vf_runtimes_fetching(const struct vf_runtimes *rt, const char *name,
                          struct vf_runtimes_fetching *ret)
{
    struct vf_fetch_state *f = find(rt, name);

    *ret = (struct vf_runtimes_fetching){0};
    if (f == NULL)
        return;
    if (f->fetch != NULL)
        look_how_far(f);
    *ret = (struct vf_runtimes_fetching){.running = f->fetch != NULL,
                                         .done_bytes = f->done_bytes,
                                         .total_bytes = f->total_bytes,
                                         .attempts = f->attempts,
                                         .error = f->has_error ? &f->error : NULL};
}

/* Not only the digest: one that is stuck at a wrong URL must not stand in the way of the right one. */
static bool is_as_begun(const struct vf_runtimes *rt, const struct vf_fetch_state *f)
{
    const struct vf_asset *a = vf_registry_asset(rt->registry, f->name);
    VF_CLEANUP_FREE char *definition = a != NULL ? vf_asset_encode(a) : NULL;

    return definition != NULL && strcmp(definition, f->definition) == 0;
}

void vf_runtimes_fetches_changed(struct vf_runtimes *rt)
{
    for (struct vf_fetch_state *f = rt->fetches; f != NULL; f = f->next) {
        if (f->fetch == NULL || f->withdrawn || (!rt->stopping && is_as_begun(rt, f)))
            continue;
        f->withdrawn = true;
        vf_fetch_cancel(f->fetch);
    }
}

void vf_runtimes_fetches_free(struct vf_runtimes *rt)
{
    while (rt->fetches != NULL) {
        struct vf_fetch_state *f = rt->fetches;

        rt->fetches = f->next;
        free(f->definition);
        free(f);
    }
}

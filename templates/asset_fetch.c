/* Fetching assets: callers on loops, one download for all that want the same, worker threads. See assets.h.
 *
 *     fetch -> look in the store (libuv's pool) -> there: done
 *                 -> wait for the download from the same source, or a new one at the end of the queue
 *                     -> a worker runs it -> each waiter is woken on its loop (uv_async) -> closed -> done
 *
 * A worker takes the oldest download whose digest no other worker has in hand, until there is none. A download that
 * everybody has left ends; what its worker still holds it lets go of before the same digest is begun anew.
 */
#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/fd.h"
#include "templates/asset_internal.h"

struct vf_fetch {
    struct vf_asset_store *store;
    struct vf_asset asset;
    vf_done_cb done;
    void *arg;
    uv_async_t wake; /* sent under the store's lock, when it has ended */
    struct vf_work look;
    struct vf_progress progress;
    bool there; /* found by look */
    /* under the store's lock */
    struct vf_download *download; /* waits for it */
    struct vf_fetch *next;        /* among those who do */
    bool cancelled, ended;
    struct vf_error err; /* code VF_OK: it is there */
};

/* --- what a download asks and tells, from its worker */

bool vf_download_abandoned(struct vf_download *d)
{
    bool abandoned;

    pthread_mutex_lock(&d->store->lock);
    abandoned = d->abandoned;
    pthread_mutex_unlock(&d->store->lock);
    return abandoned;
}

static void show(struct vf_fetch *f, int64_t done, int64_t total)
{
    atomic_store(&f->progress.done_bytes, (uint64_t)done);
    atomic_store(&f->progress.total_bytes, (uint64_t)total);
}

void vf_download_tell(struct vf_download *d, int64_t done, int64_t total)
{
    pthread_mutex_lock(&d->store->lock);
    d->done = done;
    d->total = total;
    for (struct vf_fetch *f = d->waiters; f != NULL; f = f->next)
        show(f, done, total);
    pthread_mutex_unlock(&d->store->lock);
}

bool vf_download_pause(struct vf_download *d, int64_t ms)
{
    struct timespec until;
    bool abandoned;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&d->store->lock);
    while (!d->abandoned &&
           pthread_cond_timedwait(&d->store->abandoned, &d->store->lock, &until) == 0)
        ;
    abandoned = d->abandoned;
    pthread_mutex_unlock(&d->store->lock);
    return !abandoned;
}

void vf_download_wakes(struct vf_download *d, void *multi)
{
    pthread_mutex_lock(&d->store->lock);
    d->multi = multi;
    pthread_mutex_unlock(&d->store->lock);
}

/* --- the end of a caller's request */

static void on_closed(uv_handle_t *h)
{
    struct vf_fetch *f = (struct vf_fetch *)h->data;
    struct vf_error err = f->err;
    vf_done_cb done = f->done;
    void *arg = f->arg;

    pthread_mutex_lock(&f->store->lock);
    f->store->n_fetches--;
    pthread_mutex_unlock(&f->store->lock);
    vf_asset_free(&f->asset);
    free(f);
    done(arg, err.code != VF_OK ? &err : NULL);
}

static void finish(struct vf_fetch *f)
{
    uv_close((uv_handle_t *)&f->wake, on_closed);
}

static void on_wake(uv_async_t *wake)
{
    struct vf_fetch *f = (struct vf_fetch *)wake->data;
    bool ended;

    pthread_mutex_lock(&f->store->lock);
    ended = f->ended;
    pthread_mutex_unlock(&f->store->lock);
    if (ended)
        finish(f);
}

/* err NULL: the file is there. Under the lock. */
static void end(struct vf_fetch *f, const struct vf_error *err)
{
    char url[256];

    f->download = NULL;
    f->ended = true;
    if (err != NULL) {
        f->err = *err;
        vf_asset_plain_url(vf_asset_file_here(&f->asset)->url, url, sizeof(url));
        vf_wrap(&f->err, "asset %s: %s", f->asset.name, url);
    }
    uv_async_send(&f->wake);
}

/* --- the queue. All of it under the lock. */

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Whether what a brings, or fails with, is what b would too. */
static bool same_source(const struct vf_asset *a, const struct vf_asset *b)
{
    const struct vf_asset_file *x = vf_asset_file_here(a), *y = vf_asset_file_here(b);

    return strcmp(x->sha256, y->sha256) == 0 && strcmp(x->url, y->url) == 0 && x->size == y->size &&
           a->kind == b->kind && same_text(a->bearer_file, b->bearer_file) &&
           same_text(a->basic_file, b->basic_file) && same_text(a->ca_file, b->ca_file) &&
           same_text(a->proxy, b->proxy);
}

static void unlink_download(struct vf_download *d)
{
    struct vf_download **p = &d->store->downloads;

    while (*p != d)
        p = &(*p)->next;
    *p = d->next;
}

static void free_download(struct vf_download *d)
{
    vf_asset_free(&d->asset);
    free(d);
}

static bool in_hand(const struct vf_asset_store *s, const char *sha256)
{
    for (const struct vf_download *d = s->downloads; d != NULL; d = d->next) {
        if (d->running && strcmp(d->file->sha256, sha256) == 0)
            return true;
    }
    return false;
}

/* The oldest that can be begun, or NULL. */
static struct vf_download *pick(const struct vf_asset_store *s)
{
    struct vf_download *d = s->downloads;

    while (d != NULL && (d->running || in_hand(s, d->file->sha256)))
        d = d->next;
    return d;
}

/* Tells all who wait for it. */
static void end_download(struct vf_download *d, const struct vf_error *err)
{
    struct vf_fetch *next;

    unlink_download(d);
    for (struct vf_fetch *f = d->waiters; f != NULL; f = next) {
        next = f->next;
        end(f, err);
    }
    free_download(d);
}

static void *work(void *arg)
{
    struct vf_worker *w = (struct vf_worker *)arg;
    struct vf_asset_store *s = w->store;
    struct vf_download *d;

    pthread_mutex_lock(&s->lock);
    while ((d = pick(s)) != NULL) {
        struct vf_error err = {0};
        int r;

        d->running = true;
        pthread_mutex_unlock(&s->lock);
        r = vf_download_run(d, &err);
        pthread_mutex_lock(&s->lock);
        end_download(d, r < 0 ? &err : NULL);
    }
    w->state = VF_WORKER_ENDED;
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* No signal is for a worker: they are the loop's. */
static int start_thread(struct vf_worker *w)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

/* One more worker, if there is something to do for it. */
static int start_worker(struct vf_asset_store *s)
{
    struct vf_worker *w = NULL;
    bool some_run = false;
    int r;

    for (int i = 0; i < VF_FETCH_MAX; i++) {
        if (s->workers[i].state == VF_WORKER_RUNNING)
            some_run = true;
        else
            w = &s->workers[i];
    }
    if (w == NULL || pick(s) == NULL)
        return 0;
    if (w->state == VF_WORKER_ENDED)
        pthread_join(w->thread, NULL); /* it is past the lock, and so gone any moment */
    w->store = s;
    w->state = VF_WORKER_RUNNING;
    r = start_thread(w);
    if (r == 0)
        return 0;
    w->state = VF_WORKER_NONE;
    return some_run ? 0 : -r; /* else one of those comes to it */
}

static struct vf_download *new_download(const struct vf_fetch *f, struct vf_error *err)
{
    struct vf_download *d = (struct vf_download *)calloc(1, sizeof(*d)), **p;

    if (d == NULL || vf_asset_copy(&f->asset, &d->asset, err) < 0) {
        free(d);
        vf_fail(err, VF_NO_MEMORY, "no memory");
        return NULL;
    }
    d->store = f->store;
    d->file = vf_asset_file_here(&d->asset);
    d->fd = -1;
    d->total = d->file->size;
    p = &f->store->downloads;
    while (*p != NULL)
        p = &(*p)->next;
    *p = d;
    return d;
}

static int join(struct vf_fetch *f, struct vf_error *err)
{
    struct vf_download *d = f->store->downloads;
    int r;

    while (d != NULL && (d->abandoned || !same_source(&d->asset, &f->asset)))
        d = d->next;
    if (d == NULL)
        d = new_download(f, err);
    if (d == NULL)
        return vf_code_errno(VF_NO_MEMORY);
    f->download = d;
    f->next = d->waiters;
    d->waiters = f;
    show(f, d->done, d->total);
    r = start_worker(f->store);
    if (r < 0) {
        vf_fail_errno(err, r, "start a thread");
        d->waiters = f->next;
        unlink_download(d); /* nothing runs, so it is new */
        free_download(d);
    }
    return r;
}

static void leave(struct vf_download *d, struct vf_fetch *f)
{
    struct vf_fetch **p = &d->waiters;

    while (*p != f)
        p = &(*p)->next;
    *p = f->next;
    if (d->waiters != NULL)
        return;
    d->abandoned = true;
    if (!d->running) {
        unlink_download(d);
        free_download(d);
        return;
    }
    pthread_cond_broadcast(&d->store->abandoned);
    if (d->multi != NULL)
        curl_multi_wakeup((CURLM *)d->multi);
}

/* --- for callers */

static int look(struct vf_work *w, struct vf_error *err)
{
    struct vf_fetch *f = (struct vf_fetch *)w->arg;
    int64_t size = 0;
    int r = vf_asset_is_there(f->store, &f->asset, &size, err);

    f->there = r > 0;
    if (f->there)
        show(f, size, size);
    return r < 0 ? r : 0;
}

static void cancelled(struct vf_error *err)
{
    *err = (struct vf_error){0};
    vf_fail(err, VF_CANCELLED, "the fetch was cancelled");
}

static void looked(void *arg, const struct vf_error *err)
{
    struct vf_fetch *f = (struct vf_fetch *)arg;
    struct vf_error why;

    pthread_mutex_lock(&f->store->lock);
    if (f->cancelled) {
        cancelled(&why);
        end(f, &why);
    } else if (err != NULL || f->there) {
        end(f, err);
    } else if (join(f, &why) < 0) {
        end(f, &why);
    }
    pthread_mutex_unlock(&f->store->lock);
}

static void free_unstarted(uv_handle_t *h)
{
    struct vf_fetch *f = (struct vf_fetch *)h->data;

    vf_asset_free(&f->asset);
    free(f);
}

static int start(struct vf_fetch *f, uv_loop_t *loop, struct vf_error *err)
{
    int r = uv_async_init(loop, &f->wake, on_wake);

    if (r < 0) {
        vf_asset_free(&f->asset);
        free(f);
        return vf_fail_errno(err, r, "asset: prepare to be woken");
    }
    f->wake.data = f;
    r = vf_work_submit(loop, &f->look, look, looked, f);
    if (r < 0) {
        uv_close((uv_handle_t *)&f->wake, free_unstarted);
        return vf_fail_errno(err, r, "asset: look for it");
    }
    return 0;
}

int vf_asset_fetch(struct vf_asset_store *s, uv_loop_t *loop, const struct vf_asset *a,
                   vf_done_cb done, void *arg, struct vf_fetch **ret_fetch, struct vf_error *err)
{
    struct vf_fetch *f;
    int r;

    if (vf_asset_file_here(a) == NULL) {
        vf_fail(err, VF_UNSUPPORTED, "asset %s: has no file for this host (%s)", a->name,
                vf_host_arch());
        return vf_hint(err, "add files.%s to it", vf_host_arch());
    }
    f = (struct vf_fetch *)calloc(1, sizeof(*f));
    if (f == NULL)
        return vf_fail(err, VF_NO_MEMORY, "asset %s: no memory", a->name);
    r = vf_asset_copy(a, &f->asset, err);
    if (r < 0) {
        free(f);
        return vf_wrap(err, "asset %s", a->name);
    }
    vf_asset_http_init();
    f->store = s;
    f->done = done;
    f->arg = arg;
    r = start(f, loop, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    s->n_fetches++;
    pthread_mutex_unlock(&s->lock);
    if (ret_fetch != NULL)
        *ret_fetch = f;
    return 0;
}

const struct vf_progress *vf_fetch_progress(const struct vf_fetch *f)
{
    return &f->progress;
}

void vf_fetch_cancel(struct vf_fetch *f)
{
    struct vf_error why;

    pthread_mutex_lock(&f->store->lock);
    if (!f->ended && !f->cancelled) {
        f->cancelled = true;
        if (f->download != NULL) {
            leave(f->download, f);
            cancelled(&why);
            end(f, &why);
        } else {
            uv_cancel((uv_req_t *)&f->look.req); /* looked() comes in any case */
        }
    }
    pthread_mutex_unlock(&f->store->lock);
}

/* Loaded generations: counted, listed in their store. See generation.h and store_internal.h. */
#include "templates/generation.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/fd.h"
#include "templates/store_internal.h"

struct vf_generation_private *vf_loaded_new(struct vf_store *store, const char *name)
{
    struct vf_generation_private *p = (struct vf_generation_private *)calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->gen.dirfd = -1;
    p->gen.memory_fd = -1;
    p->gen.priv = p;
    p->store = store;
    p->loading = true;
    p->refs = 1;
    snprintf(p->name, sizeof(p->name), "%s", name);
    return p;
}

int vf_loaded_set_number(struct vf_generation_private *p, int64_t number, struct vf_error *err)
{
    char *path;

    if (asprintf(&path, "%s/templates/%s/%" PRId64, p->store->path, p->name, number) < 0)
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    free(p->gen.path);
    p->gen.path = path;
    p->gen.number = number;
    return 0;
}

void vf_loaded_free(struct vf_generation_private *p)
{
    if (p == NULL)
        return;
    vf_close_fd(&p->gen.memory_fd);
    vf_close_fd(&p->gen.dirfd);
    vf_manifest_free(&p->gen.manifest);
    vf_watches_free(&p->watches);
    free(p->gen.path);
    free(p);
}

struct vf_generation_private *vf_loaded_find(const struct vf_store *store, const char *name,
                                             int64_t number)
{
    for (struct vf_generation_private *p = store->loaded; p != NULL; p = p->next) {
        if (p->gen.number == number && strcmp(p->name, name) == 0)
            return p;
    }
    return NULL;
}

/* Under lock. */
static void link_in(struct vf_generation_private *p)
{
    p->next = p->store->loaded;
    p->store->loaded = p;
}

/* Under lock. */
static void unlink_from(struct vf_generation_private *p)
{
    struct vf_generation_private **at = &p->store->loaded;

    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    p->next = NULL;
}

void vf_loaded_link(struct vf_generation_private *p)
{
    pthread_mutex_lock(&p->store->lock);
    link_in(p);
    pthread_mutex_unlock(&p->store->lock);
}

struct vf_generation_private *vf_loaded_share_or_link(struct vf_generation_private *p)
{
    struct vf_store *store = p->store;
    struct vf_generation_private *found;

    pthread_mutex_lock(&store->lock);
    while (found = vf_loaded_find(store, p->name, p->gen.number), found != NULL && found->loading)
        pthread_cond_wait(&store->loaded_changed, &store->lock);
    if (found != NULL)
        found->refs++;
    else
        link_in(p);
    pthread_mutex_unlock(&store->lock);
    return found;
}

void vf_loaded_ended(struct vf_generation_private *p, bool loaded)
{
    struct vf_store *store = p->store;

    pthread_mutex_lock(&store->lock);
    p->loading = false;
    if (!loaded)
        unlink_from(p);
    pthread_cond_broadcast(&store->loaded_changed);
    pthread_mutex_unlock(&store->lock);
}

struct vf_generation *vf_generation_ref(struct vf_generation *gen)
{
    if (gen == NULL)
        return NULL;
    pthread_mutex_lock(&gen->priv->store->lock);
    assert(gen->priv->refs > 0);
    gen->priv->refs++;
    pthread_mutex_unlock(&gen->priv->store->lock);
    return gen;
}

void vf_generation_unref(struct vf_generation *gen)
{
    struct vf_generation_private *p;
    struct vf_store *store;
    bool last;

    if (gen == NULL)
        return;
    p = gen->priv;
    store = p->store;
    pthread_mutex_lock(&store->lock);
    assert(p->refs > 0);
    last = --p->refs == 0;
    if (last)
        unlink_from(p);
    pthread_mutex_unlock(&store->lock);
    if (last)
        vf_loaded_free(p);
}

int vf_generation_still_valid(const struct vf_generation *gen, struct vf_error *err)
{
    const struct vf_watches *w = &gen->priv->watches;

    for (size_t i = 0; i < w->n; i++) {
        const struct vf_watch *v = &w->v[i];
        struct vf_stamp now;
        struct stat st;

        if (fstatat(v->in_dir ? gen->dirfd : AT_FDCWD, v->path, &st, 0) != 0)
            vf_fail(err, VF_CONFLICT, "%s: %s", v->path, strerror(errno));
        else if (vf_stamp_of(&st, &now), vf_stamp_equal(&now, &v->stamp))
            continue;
        else
            vf_fail(err, VF_CONFLICT, "%s: has changed since it was verified", v->path);
        vf_wrap(err, "template %s generation %" PRId64, gen->priv->name, gen->number);
        return vf_hint(err, "build the template again");
    }
    return 0;
}

/* Looking into the store of assets, hashing what is in it, removing what nothing uses. See runtimes.h.
 *
 * gc takes no class away from under a change: both take turns. It asks three who use a digest: the set in force and
 * those before it that a build or a boot under way goes on with, the manifests of all generations, and the kernel: what
 * a VM's process runs from and has open. The last counts for VMs that are leased while class and generation have gone;
 * they are asked before anything is removed, and whoever starts a VM meanwhile starts it from a generation or a class.
 * A build lets go of its set only when its generation is in the store.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "pool/runtimes_internal.h"

/* ---- digests that are used: sorted once, then looked up */

struct digests {
    char (*v)[VF_SHA256_HEX];
    size_t n, cap;
    bool failed; /* no memory */
};

static void add_digest(struct digests *d, const char *sha256)
{
    if (d->n == d->cap) {
        size_t cap = d->cap != 0 ? 2 * d->cap : 64;
        void *more = realloc(d->v, cap * sizeof(*d->v));

        if (more == NULL) {
            d->failed = true;
            return;
        }
        d->v = more;
        d->cap = cap;
    }
    snprintf(d->v[d->n++], VF_SHA256_HEX, "%s", sha256);
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* The last part of a path in the store is the digest of what lies there. */
static void add_path(struct digests *d, const char *path)
{
    const char *name = strrchr(path, '/');

    if (name != NULL && strspn(name + 1, "0123456789abcdef") == VF_SHA256_HEX - 1) {
        char sha256[VF_SHA256_HEX];

        snprintf(sha256, sizeof(sha256), "%s", name + 1); /* without " (deleted)" */
        add_digest(d, sha256);
    }
}

/* It has ended meanwhile, or has no such thing; whatever else keeps one from looking tells nothing. */
static int unless_gone(pid_t pid, int errnum, struct vf_error *err)
{
    if (errnum == ENOENT || errnum == ESRCH)
        return 0;
    vf_fail_errno(err, errnum, "what process %d uses can't be seen: nothing is removed", (int)pid);
    return vf_hint(err, "let vmfactoryd look at it: the same user, or CAP_SYS_PTRACE");
}

static int add_link(struct digests *d, int dirfd, const char *name, pid_t pid, struct vf_error *err)
{
    char path[PATH_MAX];
    ssize_t n = readlinkat(dirfd, name, path, sizeof(path) - 1);

    if (n < 0)
        return unless_gone(pid, errno, err);
    path[n] = '\0';
    add_path(d, path);
    return 0;
}

/* The program it runs, and the files that it has open. */
static int add_process(struct digests *d, pid_t pid, struct vf_error *err)
{
    const struct dirent *e;
    char name[32];
    DIR *dir;
    int r;

    snprintf(name, sizeof(name), "/proc/%d/exe", (int)pid);
    r = add_link(d, AT_FDCWD, name, pid, err);
    if (r < 0)
        return r;
    snprintf(name, sizeof(name), "/proc/%d/fd", (int)pid);
    dir = opendir(name);
    if (dir == NULL)
        return unless_gone(pid, errno, err);
    while (r == 0 && (e = readdir(dir)) != NULL)
        if (e->d_name[0] != '.')
            r = add_link(d, dirfd(dir), e->d_name, pid, err);
    closedir(dir);
    return r;
}

/* ---- looking */

struct look {
    struct vf_runtimes_op op;
    struct vf_asset_entry *v;
    size_t n;
    vf_runtimes_look_cb done;
    void *arg;
};

static int run_look(struct vf_runtimes_op *op, struct vf_error *err)
{
    struct look *l = (struct look *)op;

    return vf_asset_store_list(op->rt->assets, &l->v, &l->n, err);
}

static void end_look(struct vf_runtimes_op *op, const struct vf_error *err)
{
    struct look *l = (struct look *)op;

    l->done(l->arg, err == NULL ? l->v : NULL, err == NULL ? l->n : 0, err);
    free(l->v);
    free(l);
}

int vf_runtimes_look(struct vf_runtimes *rt, vf_runtimes_look_cb done, void *arg,
                     struct vf_error *err)
{
    struct look *l = calloc(1, sizeof(*l));
    int r;

    if (l == NULL)
        return vf_fail(err, VF_NO_MEMORY, "out of memory");
    *l = (struct look){
        .op = {.turn = -1, .run = run_look, .end = end_look}, .done = done, .arg = arg};
    r = vf_runtimes_submit(rt, &l->op, err);
    if (r < 0)
        free(l);
    return r;
}

/* ---- verify */

struct verify {
    struct vf_runtimes_op op;
    char name[VF_ASSET_NAME_MAX + 1], sha256[VF_SHA256_HEX];
    vf_done_cb done;
    void *arg;
};

static int run_verify(struct vf_runtimes_op *op, struct vf_error *err)
{
    struct verify *v = (struct verify *)op;
    int r = vf_asset_store_verify(op->rt->assets, v->sha256, NULL, err);

    return r < 0 ? vf_wrap(err, "asset %s", v->name) : 0;
}

static void end_verify(struct vf_runtimes_op *op, const struct vf_error *err)
{
    struct verify *v = (struct verify *)op;

    if (err != NULL && err->code == VF_CORRUPT)
        vf_event(op->rt->cfg.events, "asset.corrupt", NULL, NULL, VF_EVENT_ALL, err, NULL);
    v->done(v->arg, err);
    free(v);
}

int vf_runtimes_verify(struct vf_runtimes *rt, const char *name, vf_done_cb done, void *arg,
                       struct vf_error *err)
{
    const struct vf_asset_file *file;
    const struct vf_asset *a;
    struct verify *v;
    int r = vf_runtimes_asset(rt, name, &a, err);

    if (r < 0)
        return r;
    file = vf_asset_file_here(a);
    if (file == NULL)
        return vf_fail(err, VF_NOT_FOUND, "asset %s has no file for this host (%s)", name,
                       vf_host_arch());
    v = calloc(1, sizeof(*v));
    if (v == NULL)
        return vf_fail(err, VF_NO_MEMORY, "out of memory");
    *v = (struct verify){.op = {.turn = VF_TURN_HASH, .run = run_verify, .end = end_verify},
                         .done = done,
                         .arg = arg};
    snprintf(v->name, sizeof(v->name), "%s", name);
    snprintf(v->sha256, sizeof(v->sha256), "%s", file->sha256);
    r = vf_runtimes_submit(rt, &v->op, err);
    if (r < 0)
        free(v);
    return r;
}

/* ---- gc */

struct gc {
    struct look look; /* what was removed */
    size_t cap;
    bool dry_run;
    struct vf_registry **sets; /* NULL: no memory */
    size_t n_sets;
    struct digests used;
    pid_t *pids;
    int n_pids;
};

static bool keep(void *arg, const char *sha256)
{
    struct gc *g = arg;

    for (size_t i = 0; i < g->n_sets; i++)
        if (vf_registry_uses(g->sets[i], sha256))
            return true;
    return g->used.n > 0 &&
           bsearch(sha256, g->used.v, g->used.n, sizeof(*g->used.v), compare) != NULL;
}

static void on_removed(void *arg, const struct vf_asset_entry *e)
{
    struct gc *g = arg;

    if (g->look.n == g->cap) {
        size_t cap = g->cap != 0 ? 2 * g->cap : 16;
        struct vf_asset_entry *more = realloc(g->look.v, cap * sizeof(*more));

        if (more == NULL)
            return; /* it is removed, but not told of */
        g->look.v = more;
        g->cap = cap;
    }
    g->look.v[g->look.n++] = *e;
}

static void add_stored(void *arg, const char *sha256)
{
    add_digest(arg, sha256);
}

static int run_gc(struct vf_runtimes_op *op, struct vf_error *err)
{
    struct gc *g = (struct gc *)op;
    int r = vf_store_digests(op->rt->cfg.store, add_stored, &g->used, err);

    if (r == 0 && (g->n_pids < 0 || g->sets == NULL))
        r = vf_fail(err, VF_NO_MEMORY, "out of memory: nothing is removed");
    for (int i = 0; r == 0 && i < g->n_pids; i++)
        r = add_process(&g->used, g->pids[i], err);
    if (r == 0 && g->used.failed)
        r = vf_fail(err, VF_NO_MEMORY, "out of memory: nothing is removed");
    if (r < 0)
        return r;
    if (g->used.n > 0)
        qsort(g->used.v, g->used.n, sizeof(*g->used.v), compare);
    return vf_asset_store_gc(op->rt->assets, keep, on_removed, g, g->dry_run, err);
}

static void free_gc_parts(struct gc *g)
{
    for (size_t i = 0; i < g->n_sets; i++)
        vf_registry_unref(g->sets[i]);
    free(g->sets);
    free(g->used.v);
    free(g->pids);
}

static void end_gc(struct vf_runtimes_op *op, const struct vf_error *err)
{
    struct gc *g = (struct gc *)op;

    if (err == NULL && !g->dry_run && g->look.n > 0)
        vf_event(op->rt->cfg.events, "asset.collected", NULL, NULL, VF_EVENT_ALL, NULL,
                 "%zu files that nothing uses", g->look.n);
    free_gc_parts(g);
    end_look(op, err);
}

static void begin_gc(struct vf_runtimes_op *op)
{
    struct gc *g = (struct gc *)op;

    g->sets = vf_runtimes_sets(op->rt, &g->n_sets);
    g->pids = op->rt->cfg.pids(op->rt->cfg.arg, &g->n_pids);
}

int vf_runtimes_gc(struct vf_runtimes *rt, bool dry_run, vf_runtimes_look_cb done, void *arg,
                   struct vf_error *err)
{
    struct gc *g = calloc(1, sizeof(*g));
    int r;

    if (g == NULL)
        return vf_fail(err, VF_NO_MEMORY, "out of memory");
    *g = (struct gc){
        .look = {.op = {.turn = VF_TURN_CHANGE, .begin = begin_gc, .run = run_gc, .end = end_gc},
                 .done = done,
                 .arg = arg},
        .dry_run = dry_run};
    r = vf_runtimes_submit(rt, &g->look.op, err);
    if (r < 0) {
        free_gc_parts(g);
        free(g);
    }
    return r;
}

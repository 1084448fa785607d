/* What is in the store. See store.h. */
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

const char *const vf_generation_state_names[] = {"ready", "corrupt", "quarantined", NULL};
static_assert(sizeof(vf_generation_state_names) / sizeof(vf_generation_state_names[0]) ==
                  VF_GENERATION_QUARANTINED + 2,
              "a name for each state");

struct listing {
    struct vf_store_entry *v;
    size_t n;
};

/* What the files of the directory take on disk; what can't be looked at counts as nothing. */
static int64_t disk_bytes(int dirfd)
{
    struct vf_names names;
    int64_t sum = 0;

    if (vf_dir_names(dirfd, &names, NULL) < 0)
        return 0;
    for (size_t i = 0; i < names.n; i++) {
        struct stat st;

        if (fstatat(dirfd, names.v[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
            sum += (int64_t)st.st_blocks * 512;
    }
    vf_names_free(&names);
    return sum;
}

static void note(struct vf_store_entry *e, enum vf_generation_state state, const char *reason)
{
    e->state = state;
    snprintf(e->reason, sizeof(e->reason), "%s", reason);
}

/* Finds out all but name and number. */
static void inspect(int template_fd, struct vf_store_entry *e)
{
    VF_CLEANUP_FD int dirfd = -1, mark_fd = -1;
    struct vf_error why = {0};
    struct vf_manifest m;
    char entry[24], reason[512];
    int r;

    snprintf(entry, sizeof(entry), "%" PRId64, e->generation);
    r = vf_generation_open(template_fd, e->name, e->generation, &dirfd, &m, &why);
    if (r == 0) {
        snprintf(e->created, sizeof(e->created), "%s", m.created);
        e->memory_size = m.memory_size;
        r = vf_verify_listing(dirfd, &m, &why);
        vf_manifest_free(&m);
    }
    if (r < 0)
        note(e, VF_GENERATION_CORRUPT, why.msg);
    if (vf_dir_open(template_fd, entry, &mark_fd) != 0)
        return;
    e->disk_bytes = disk_bytes(mark_fd);
    if (vf_generation_quarantined(mark_fd, reason, sizeof(reason), NULL) > 0)
        note(e, VF_GENERATION_QUARANTINED, reason);
}

static int add(struct listing *l, const char *name, int64_t number, struct vf_error *err)
{
    struct vf_store_entry *v = (struct vf_store_entry *)realloc(l->v, (l->n + 1) * sizeof(*v));

    if (v == NULL)
        return vf_fail(err, VF_NO_MEMORY, "store: no memory to list it");
    l->v = v;
    memset(&v[l->n], 0, sizeof(v[l->n]));
    snprintf(v[l->n].name, sizeof(v[l->n].name), "%s", name);
    v[l->n].generation = number;
    l->n++;
    return 0;
}

static int list_one(void *arg, int template_fd, const char *name, int64_t number,
                    struct vf_error *err)
{
    struct listing *l = (struct listing *)arg;
    int r = add(l, name, number, err);

    if (r == 0)
        inspect(template_fd, &l->v[l->n - 1]);
    return r;
}

static int each_of_template(struct vf_store *store, const char *name, vf_store_each_cb each,
                            void *arg, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct vf_names entries;
    int r = vf_dir_open(store->templates_fd, name, &fd);

    if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
        return 0; /* gone meanwhile, or not ours */
    if (r < 0)
        return vf_fail_errno(err, r, "template %s: open its directory", name);
    r = vf_dir_names(fd, &entries, err);
    if (r < 0)
        return vf_wrap(err, "template %s", name);
    for (size_t i = 0; i < entries.n && r == 0; i++) {
        int64_t number = vf_generation_number(entries.v[i]);

        if (number != 0)
            r = each(arg, fd, name, number, err);
    }
    vf_names_free(&entries);
    return r;
}

int vf_store_each(struct vf_store *store, vf_store_each_cb each, void *arg, struct vf_error *err)
{
    struct vf_names names;
    int r = vf_dir_names(store->templates_fd, &names, err);

    if (r < 0)
        return vf_wrap(err, "store %s", store->path);
    for (size_t i = 0; i < names.n && r == 0; i++) {
        if (vf_template_name_ok(names.v[i]))
            r = each_of_template(store, names.v[i], each, arg, err);
    }
    vf_names_free(&names);
    return r;
}

static int compare_entries(const void *a, const void *b)
{
    const struct vf_store_entry *x = (const struct vf_store_entry *)a;
    const struct vf_store_entry *y = (const struct vf_store_entry *)b;
    int by_name = strcmp(x->name, y->name);

    if (by_name != 0)
        return by_name;
    return x->generation < y->generation ? -1 : x->generation > y->generation ? 1 : 0;
}

int vf_store_list(struct vf_store *store, const char *name, struct vf_store_entry **ret_entries,
                  size_t *ret_n, struct vf_error *err)
{
    struct listing l = {0};
    int r;

    if (name != NULL && !vf_template_name_ok(name))
        return vf_fail(err, VF_INVALID_ARGUMENT, "\"%.64s\" is no template name", name);
    r = name != NULL ? each_of_template(store, name, list_one, &l, err)
                     : vf_store_each(store, list_one, &l, err);
    if (r < 0) {
        free(l.v);
        return r;
    }
    if (l.n > 0)
        qsort(l.v, l.n, sizeof(l.v[0]), compare_entries);
    pthread_mutex_lock(&store->lock);
    for (size_t i = 0; i < l.n; i++) {
        const struct vf_generation_private *p =
            vf_loaded_find(store, l.v[i].name, l.v[i].generation);

        l.v[i].loaded = p != NULL && !p->loading;
    }
    pthread_mutex_unlock(&store->lock);
    *ret_entries = l.v;
    *ret_n = l.n;
    return 0;
}

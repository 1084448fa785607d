/* Loading a generation back from disk. See store.h.
 *
 * Cheapest first: mark -> manifest -> listing and sizes -> digests of files -> the world outside
 * -> memory, which is digested while it is copied. One thread loads a generation; others that want
 * the same wait for it and share what it got, or its turn if it failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/store_internal.h"

int vf_generation_open(int template_fd, const char *name, int64_t number, int *ret_fd,
                       struct vf_manifest *ret_m, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    struct vf_manifest m;
    char entry[24];
    int r;

    snprintf(entry, sizeof(entry), "%" PRId64, number);
    r = vf_dir_open(template_fd, entry, &fd);
    if (r == -ENOENT)
        return vf_fail(err, VF_NOT_FOUND, "does not exist");
    if (r == -ENOTDIR || r == -ELOOP)
        return vf_fail(err, VF_CORRUPT, "is not a directory");
    if (r < 0)
        return vf_fail_errno(err, r, "open its directory");
    r = vf_manifest_read(fd, &m, err);
    if (r < 0)
        return r;
    if (strcmp(m.template_name, name) != 0)
        r = vf_fail(err, VF_CORRUPT, VF_MANIFEST_NAME ": template: is \"%s\", must be \"%s\"",
                    m.template_name, name);
    else if (m.generation != number)
        r = vf_fail(err, VF_CORRUPT,
                    VF_MANIFEST_NAME ": generation: is %" PRId64 ", must be %" PRId64, m.generation,
                    number);
    if (r < 0) {
        vf_manifest_free(&m);
        return r;
    }
    *ret_m = m;
    *ret_fd = vf_steal_fd(&fd);
    return 0;
}

int vf_generation_quarantined(int dirfd, char *ret_reason, size_t size, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL;
    struct vf_error inner = {0};
    size_t len = 0;
    int r = vf_read_file(dirfd, VF_QUARANTINED_NAME, 4096, &text, &len, &inner);

    if (r < 0 && inner.code == VF_NOT_FOUND)
        return 0;
    if (r < 0 && inner.code != VF_INVALID_ARGUMENT)
        return vf_error_copy(err, &inner);
    /* A mark that can't be read as one is a mark all the same. */
    snprintf(ret_reason, size, "%.*s", r < 0 ? 0 : (int)strcspn(text, "\n"), r < 0 ? "" : text);
    if (ret_reason[0] == '\0')
        snprintf(ret_reason, size, "no reason was noted");
    return 1;
}

static int refuse_quarantined(int template_fd, int64_t number, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    char reason[512], entry[24];
    int r;

    snprintf(entry, sizeof(entry), "%" PRId64, number);
    if (vf_dir_open(template_fd, entry, &fd) != 0)
        return 0; /* what is wrong there the next step tells */
    r = vf_generation_quarantined(fd, reason, sizeof(reason), err);
    if (r <= 0)
        return r;
    vf_fail(err, VF_CONFLICT, "is quarantined: %s", reason);
    return vf_hint(err, "build the template again");
}

/* Fills p from disk. */
static int load_into(struct vf_generation_private *p, int template_fd, struct vf_progress *progress,
                     struct vf_error *err)
{
    struct vf_generation *gen = &p->gen;
    const struct vf_manifest_file *memory;
    int r;

    r = vf_generation_open(template_fd, p->name, gen->number, &gen->dirfd, &gen->manifest, err);
    if (r == 0)
        r = vf_verify_listing(gen->dirfd, &gen->manifest, err);
    if (r == 0)
        r = vf_verify_files(gen->dirfd, &gen->manifest, &p->watches, err);
    if (r == 0)
        r = vf_verify_outside(&gen->manifest, &p->watches, err);
    if (r < 0)
        return r;
    memory = vf_manifest_file(&gen->manifest, VF_MEMORY_NAME);
    if (memory == NULL)
        return 0;
    return vf_memory_load(gen->dirfd, VF_MEMORY_NAME, (uint64_t)memory->size, memory->sha256,
                          progress, &gen->memory_fd, err);
}

static int load_one(struct vf_store *store, int template_fd, const char *name, int64_t number,
                    struct vf_progress *progress, struct vf_generation **ret_gen,
                    struct vf_error *err)
{
    struct vf_generation_private *p, *found;
    int r = refuse_quarantined(template_fd, number, err);

    if (r < 0)
        return r;
    p = vf_loaded_new(store, name);
    if (p == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    r = vf_loaded_set_number(p, number, err);
    if (r < 0) {
        vf_loaded_free(p);
        return r;
    }
    found = vf_loaded_share_or_link(p);
    if (found != NULL) {
        vf_loaded_free(p);
        r = vf_generation_still_valid(&found->gen, err);
        if (r < 0)
            vf_generation_unref(&found->gen);
        else
            *ret_gen = &found->gen;
        return r;
    }
    r = load_into(p, template_fd, progress, err);
    vf_loaded_ended(p, r == 0);
    if (r < 0)
        vf_loaded_free(p);
    else
        *ret_gen = &p->gen;
    return r;
}

/* --- the newest usable one */

/* Whether an older generation may fare better: it will not if the host is out of something. */
static bool try_older(enum vf_code code)
{
    switch (code) {
    case VF_CORRUPT:
    case VF_CONFLICT:
    case VF_NOT_FOUND:
    case VF_UNSUPPORTED:
    case VF_PERMISSION:
    case VF_IO:
        return true;
    default:
        return false;
    }
}

static int skip(struct vf_skipped_list *list, int64_t number, const struct vf_error *why,
                struct vf_error *err)
{
    struct vf_skipped *v = (struct vf_skipped *)realloc(list->v, (list->n + 1) * sizeof(*v));

    if (v == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    list->v = v;
    v[list->n].generation = number;
    v[list->n].err = *why;
    list->n++;
    return 0;
}

void vf_skipped_free(struct vf_skipped_list *list)
{
    free(list->v);
    list->v = NULL;
    list->n = 0;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* The numbers of all generations in the directory, the newest first. */
static int numbers_of(int template_fd, int64_t **ret_v, size_t *ret_n, struct vf_error *err)
{
    struct vf_names names;
    size_t n = 0;
    int64_t *v;
    int r = vf_dir_names(template_fd, &names, err);

    if (r < 0)
        return r;
    v = (int64_t *)calloc(names.n + 1, sizeof(*v));
    for (size_t i = 0; v != NULL && i < names.n; i++) {
        v[n] = vf_generation_number(names.v[i]);
        n += v[n] != 0;
    }
    vf_names_free(&names);
    if (v == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    qsort(v, n, sizeof(*v), newest_first);
    *ret_v = v;
    *ret_n = n;
    return 0;
}

static int load_newest(struct vf_store *store, int template_fd, const char *name,
                       struct vf_progress *progress, struct vf_generation **ret_gen,
                       struct vf_skipped_list *skipped, struct vf_error *err)
{
    int64_t *numbers = NULL;
    size_t n = 0;
    int r = numbers_of(template_fd, &numbers, &n, err);

    if (r < 0)
        return r;
    if (n == 0) {
        r = vf_fail(err, VF_NOT_FOUND, "has no generation");
        vf_hint(err, "build it first");
    }
    for (size_t i = 0; i < n; i++) {
        struct vf_error why = {0};

        r = load_one(store, template_fd, name, numbers[i], progress, ret_gen, &why);
        if (r == 0)
            break;
        vf_wrap(&why, "generation %" PRId64, numbers[i]);
        if (!try_older(why.code)) {
            vf_error_copy(err, &why);
            break;
        }
        r = skip(skipped, numbers[i], &why, err);
        if (r < 0)
            break;
        if (i + 1 == n) { /* that was the last: the newest one's fault stands for all */
            r = vf_error_copy(err, &skipped->v[0].err);
            vf_wrap(err, n == 1 ? "no usable generation" : "no usable generation of %zu", n);
        }
    }
    free(numbers);
    return r;
}

int vf_store_load(struct vf_store *store, const char *name, int64_t number,
                  struct vf_progress *progress, struct vf_generation **ret_gen,
                  struct vf_skipped_list *ret_skipped, struct vf_error *err)
{
    VF_CLEANUP_FD int template_fd = -1;
    struct vf_skipped_list skipped = {0};
    int r = vf_template_dir(store, name, &template_fd, err);

    if (r == 0 && number != 0) {
        r = load_one(store, template_fd, name, number, progress, ret_gen, err);
        if (r < 0)
            vf_wrap(err, "template %s generation %" PRId64, name, number);
    } else if (r == 0) {
        r = load_newest(store, template_fd, name, progress, ret_gen, &skipped, err);
        if (r < 0)
            vf_wrap(err, "template %s", name);
    }
    if (ret_skipped != NULL)
        *ret_skipped = skipped;
    else
        vf_skipped_free(&skipped);
    return r;
}

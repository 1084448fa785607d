/* Building a generation. See store.h.
 *
 *     begin:  STATE/templates/NAME/tmp-… is made
 *     commit: listing checked -> each file hashed and fsynced -> kernel, image, VMM, CPU still the
 *             same -> manifest written and fsynced -> renamed to the next number -> parent fsynced
 *
 * A failure or a crash before the rename leaves a tmp- directory, which vf_build_free or the next
 * vf_store_open removes; after it, the new generation. If only the last fsync fails the
 * rename is undone, so that an error always means: nothing was added.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "base/fd.h"
#include "templates/store_internal.h"

struct vf_build {
    struct vf_store *store;
    char name[VF_SPEC_NAME_MAX + 1];
    char tmp[VF_STORE_TMP_NAME_SIZE]; /* the directory's name until the commit */
    char *path;
    int template_fd; /* STATE/templates/NAME */
    int dirfd;
    bool committed, failed;
};

/* --- begin and end */

/* Makes the template's directory, unless it is there, and in it the temporary one. Under
 * commit_lock, so that nobody removes the former while it is still empty. */
static int make_dirs(struct vf_build *b, struct vf_error *err)
{
    struct vf_store *store = b->store;
    int r;

    if (mkdirat(store->templates_fd, b->name, 0700) == 0) {
        r = vf_dir_sync(store->templates_fd, "templates", err);
        if (r < 0)
            return r;
    } else if (errno != EEXIST) {
        return vf_fail_errno(err, errno, "create its directory in %s", store->path);
    }
    r = vf_template_dir(store, b->name, &b->template_fd, err);
    if (r < 0)
        return r;
    if (mkdirat(b->template_fd, b->tmp, 0700) != 0)
        return vf_fail_errno(err, errno, "create a temporary directory in %s", store->path);
    vf_failpoint("store.begin.after-mkdir");
    r = vf_dir_open(b->template_fd, b->tmp, &b->dirfd);
    return r < 0 ? vf_fail_errno(err, r, "open the temporary directory") : 0;
}

int vf_store_begin(struct vf_store *store, const char *name, struct vf_build **ret_build,
                   struct vf_error *err)
{
    struct vf_build *b;
    int r;

    if (!vf_template_name_ok(name))
        return vf_fail(err, VF_INVALID_ARGUMENT, "\"%.64s\" is no template name", name);
    b = (struct vf_build *)calloc(1, sizeof(*b));
    if (b == NULL)
        return vf_fail(err, VF_NO_MEMORY, "template %s: no memory", name);
    b->store = store;
    b->template_fd = b->dirfd = -1;
    snprintf(b->name, sizeof(b->name), "%s", name);
    vf_store_tmp_name(b->tmp);
    pthread_mutex_lock(&store->lock);
    store->n_builds++;
    pthread_mutex_unlock(&store->lock);
    if (asprintf(&b->path, "%s/templates/%s/%s", store->path, name, b->tmp) < 0) {
        b->path = NULL;
        r = vf_fail(err, VF_NO_MEMORY, "no memory");
    } else {
        pthread_mutex_lock(&store->commit_lock);
        r = make_dirs(b, err);
        pthread_mutex_unlock(&store->commit_lock);
    }
    if (r < 0) {
        vf_build_free(b);
        return vf_wrap(err, "template %s", name);
    }
    *ret_build = b;
    return 0;
}

int vf_build_dirfd(const struct vf_build *b)
{
    return b->dirfd;
}

const char *vf_build_path(const struct vf_build *b)
{
    return b->path;
}

void vf_build_free(struct vf_build *b)
{
    if (b == NULL)
        return;
    if (!b->committed) {
        /* What can't be removed now is litter for the next vf_store_open. */
        if (b->template_fd >= 0)
            vf_remove_tree(b->template_fd, b->tmp, NULL);
        pthread_mutex_lock(&b->store->commit_lock);
        unlinkat(b->store->templates_fd, b->name, AT_REMOVEDIR); /* fails unless it is empty */
        pthread_mutex_unlock(&b->store->commit_lock);
    }
    vf_close_fd(&b->dirfd);
    vf_close_fd(&b->template_fd);
    pthread_mutex_lock(&b->store->lock);
    b->store->n_builds--;
    pthread_mutex_unlock(&b->store->lock);
    free(b->path);
    free(b);
}

/* --- commit */

/* Everything in the directory is listed. (That everything listed is there shows when it is
 * opened.) */
static int check_listing(const struct vf_build *b, const struct vf_manifest *m,
                         struct vf_error *err)
{
    struct vf_names names;
    int r = vf_dir_names(b->dirfd, &names, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < names.n && r == 0; i++) {
        if (vf_manifest_file(m, names.v[i]) == NULL)
            r = vf_fail(err, VF_INVALID_ARGUMENT, "%s: is in the directory, but not listed",
                        names.v[i]);
    }
    vf_names_free(&names);
    return r;
}

/* Completes one entry of the list, and puts the file on disk. */
static int settle_file(const struct vf_build *b, struct vf_manifest_file *f, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    char hex[VF_SHA256_HEX];
    struct stat st;

    fd = openat(b->dirfd, f->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: is listed, but not in the directory",
                       f->name);
    if (fd < 0 || fstat(fd, &st) != 0)
        return vf_fail_errno(err, errno, "%s: open", f->name);
    if (!S_ISREG(st.st_mode))
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: is not a regular file", f->name);
    if (f->sha256 != NULL && st.st_size != f->size)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "%s: is %" PRId64 " bytes long, was listed with %" PRId64, f->name,
                       (int64_t)st.st_size, f->size);
    if (f->sha256 == NULL) {
        int r = vf_sha256_fd(fd, f->name, hex, err);

        if (r < 0)
            return r;
        f->sha256 = strdup(hex);
        if (f->sha256 == NULL)
            return vf_fail(err, VF_NO_MEMORY, "%s: no memory", f->name);
        f->size = st.st_size;
    }
    vf_failpoint("store.commit.before-sync");
    if (fsync(fd) != 0)
        return vf_fail_errno(err, errno, "%s: fsync", f->name);
    return 0;
}

static int set_created(struct vf_manifest *m, struct vf_error *err)
{
    char text[32];
    struct tm tm;
    time_t now = time(NULL);

    if (m->created != NULL)
        return 0;
    if (gmtime_r(&now, &tm) == NULL || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return vf_fail(err, VF_INTERNAL, "the time can't be told");
    m->created = strdup(text);
    return m->created != NULL ? 0 : vf_fail(err, VF_NO_MEMORY, "no memory");
}

static int check_input(const struct vf_build *b, const struct vf_manifest *m, int memory_fd,
                       bool want_generation, struct vf_error *err)
{
    bool has_memory = vf_manifest_file(m, VF_MEMORY_NAME) != NULL;
    struct stat st;

    if (b->committed || b->failed)
        return vf_fail(err, VF_CONFLICT, "this build has ended");
    if (m->template_name == NULL || strcmp(m->template_name, b->name) != 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "the manifest is that of template \"%s\"",
                       m->template_name != NULL ? m->template_name : "");
    if (memory_fd < 0 && has_memory && want_generation)
        return vf_fail(err, VF_INVALID_ARGUMENT, "the template memory is missing");
    if (memory_fd < 0)
        return 0;
    if (!has_memory)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "there is template memory, but no file \"" VF_MEMORY_NAME "\"");
    if (!vf_memory_is_sealed(memory_fd))
        return vf_fail(err, VF_INVALID_ARGUMENT, "the template memory is not sealed");
    if (fstat(memory_fd, &st) != 0)
        return vf_fail_errno(err, errno, "template memory: stat");
    if (st.st_size != m->memory_size)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "the template memory is %" PRId64 " bytes long, must be %" PRId64,
                       (int64_t)st.st_size, m->memory_size);
    return 0;
}

static int settle_files(const struct vf_build *b, struct vf_manifest *m, struct vf_error *err)
{
    struct vf_manifest_file *files = (struct vf_manifest_file *)m->files.items;
    int r = check_listing(b, m, err);

    vf_failpoint("store.commit.before-hash");
    for (size_t i = 0; i < m->files.n && r == 0; i++)
        r = settle_file(b, &files[i], err);
    return r == 0 ? set_created(m, err) : r;
}

/* Writes the manifest and makes the directory the generation m->generation. */
static int publish(const struct vf_build *b, const struct vf_manifest *m, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL;
    char entry[24];
    int r = vf_manifest_encode(m, &text, err);

    if (r < 0)
        return r;
    vf_failpoint("store.commit.before-manifest");
    r = vf_write_file(b->dirfd, VF_MANIFEST_NAME, text, strlen(text), 0600, err);
    if (r < 0)
        return r;
    vf_failpoint("store.commit.after-manifest");
    r = vf_dir_sync(b->dirfd, "the new generation", err);
    if (r < 0)
        return r;
    snprintf(entry, sizeof(entry), "%" PRId64, m->generation);
    vf_failpoint("store.commit.before-rename");
    if (renameat(b->template_fd, b->tmp, b->template_fd, entry) != 0)
        return vf_fail_errno(err, errno, "rename the new generation to %s", entry);
    vf_failpoint("store.commit.after-rename");
    r = vf_dir_sync(b->template_fd, "the template", err);
    if (r < 0)
        renameat(b->template_fd, entry, b->template_fd, b->tmp);
    else
        vf_failpoint("store.commit.after-sync");
    return r;
}

/* The generation object, complete but for number and manifest. */
static int make_generation(const struct vf_build *b, const struct vf_manifest *m, int memory_fd,
                           struct vf_generation_private **ret_p, struct vf_error *err)
{
    struct vf_generation_private *p = vf_loaded_new(b->store, b->name);
    int r;

    if (p == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    p->gen.dirfd = fcntl(b->dirfd, F_DUPFD_CLOEXEC, 3);
    if (memory_fd >= 0)
        p->gen.memory_fd = fcntl(memory_fd, F_DUPFD_CLOEXEC, 3);
    if (p->gen.dirfd < 0 || (memory_fd >= 0 && p->gen.memory_fd < 0))
        r = vf_fail_errno(err, errno, "duplicate a descriptor");
    else
        r = vf_watch_files(p->gen.dirfd, m, &p->watches, err);
    /* Also finds a kernel or an image that was replaced while the template was built from it. */
    if (r == 0)
        r = vf_verify_outside(m, &p->watches, err);
    if (r < 0) {
        vf_loaded_free(p);
        return r;
    }
    *ret_p = p;
    return 0;
}

/* Gives it its number and publishes it. Under commit_lock. From before the rename p is in the
 * list as being loaded, so that whoever finds the new directory at once waits for us instead of
 * loading it a second time. */
static int number_and_publish(struct vf_build *b, struct vf_manifest *m,
                              struct vf_generation_private *p, struct vf_error *err)
{
    int64_t highest;
    int r = vf_generation_highest(b->template_fd, &highest, err);

    if (r < 0)
        return r;
    m->generation = highest + 1;
    r = vf_loaded_set_number(p, m->generation, err);
    if (r < 0)
        return r;
    vf_loaded_link(p);
    r = publish(b, m, err);
    if (r < 0)
        vf_loaded_ended(p, false);
    return r;
}

int vf_store_commit(struct vf_build *b, struct vf_manifest *m, int memory_fd,
                    struct vf_generation **ret_gen, struct vf_error *err)
{
    struct vf_store *store = b->store;
    struct vf_generation_private *p = NULL;
    int r;

    r = check_input(b, m, memory_fd, ret_gen != NULL, err);
    if (r < 0)
        return vf_wrap(err, "template %s", b->name);
    r = settle_files(b, m, err);
    if (r == 0)
        r = make_generation(b, m, memory_fd, &p, err);
    if (r == 0) {
        pthread_mutex_lock(&store->commit_lock);
        r = number_and_publish(b, m, p, err);
        pthread_mutex_unlock(&store->commit_lock);
    }
    if (r < 0) {
        b->failed = true;
        vf_loaded_free(p);
        return vf_wrap(err, "template %s", b->name);
    }
    assert(p != NULL);
    b->committed = true;
    p->gen.manifest = *m;
    memset(m, 0, sizeof(*m));
    vf_loaded_ended(p, true);
    if (ret_gen != NULL)
        *ret_gen = &p->gen;
    else
        vf_generation_unref(&p->gen);
    return 0;
}

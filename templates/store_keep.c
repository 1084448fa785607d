/* Quarantine and removal. See store.h. Both take effect by one rename. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "base/fd.h"
#include "templates/store_internal.h"

/* --- quarantine */

/* One line: what would end it early becomes a blank. */
static void one_line(const char *reason, char *ret, size_t size)
{
    snprintf(ret, size - 1, "%s", reason);
    for (char *p = ret; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' ';
    }
    strcat(ret, "\n");
}

/* The mark is written beside the generation and moved in, so that the generation's directory never
 * holds half a mark, or a temporary file that its manifest does not list. */
static int put_mark(int template_fd, int gen_fd, const char *line, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    char tmp[VF_STORE_TMP_NAME_SIZE];
    int r;

    vf_store_tmp_name(tmp);
    fd = openat(template_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return vf_fail_errno(err, errno, "create the mark");
    r = vf_write_all(fd, line, strlen(line), "the mark", err);
    if (r == 0 && fsync(fd) != 0)
        r = vf_fail_errno(err, errno, "fsync the mark");
    vf_failpoint("store.quarantine.before-rename");
    if (r == 0 && renameat(template_fd, tmp, gen_fd, VF_QUARANTINED_NAME) != 0)
        r = vf_fail_errno(err, errno, "put the mark in place");
    if (r < 0) {
        unlinkat(template_fd, tmp, 0);
        return r;
    }
    vf_failpoint("store.quarantine.after-rename");
    return vf_dir_sync(gen_fd, "the generation", err);
}

int vf_store_quarantine(struct vf_store *store, const char *name, int64_t number,
                        const char *reason, struct vf_error *err)
{
    VF_CLEANUP_FD int template_fd = -1, gen_fd = -1;
    char entry[24], line[512];
    int r = vf_template_dir(store, name, &template_fd, err);

    if (r < 0)
        return r;
    snprintf(entry, sizeof(entry), "%" PRId64, number);
    one_line(reason, line, sizeof(line));
    r = vf_dir_open(template_fd, entry, &gen_fd);
    if (r == -ENOENT)
        r = vf_fail(err, VF_NOT_FOUND, "does not exist");
    else if (r < 0)
        r = vf_fail_errno(err, r, "open its directory");
    else
        r = put_mark(template_fd, gen_fd, line, err);
    return r < 0 ? vf_wrap(err, "template %s generation %" PRId64 ": quarantine", name, number) : 0;
}

/* --- removal */

/* Under lock. */
static int refuse_used(const struct vf_store *store, const char *name, int64_t number,
                       struct vf_error *err)
{
    if (vf_loaded_find(store, name, number) == NULL)
        return 0;
    vf_fail(err, VF_CONFLICT, "is in use");
    return vf_hint(err, "release the VMs that were cloned from it first");
}

/* That it is there and unused, before anything is written. */
static int check_removable(struct vf_store *store, int template_fd, const char *name,
                           int64_t number, struct vf_error *err)
{
    char entry[24];
    int r;

    snprintf(entry, sizeof(entry), "%" PRId64, number);
    if (faccessat(template_fd, entry, F_OK, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? vf_fail(err, VF_NOT_FOUND, "does not exist")
                               : vf_fail_errno(err, errno, "look at its directory");
    pthread_mutex_lock(&store->lock);
    r = refuse_used(store, name, number, err);
    pthread_mutex_unlock(&store->lock);
    return r;
}

/* Renames it away, unless someone holds it. A loader puts itself on the list before it looks for
 * the directory, so it is either seen here or finds nothing there. */
static int rename_unused(struct vf_store *store, int template_fd, const char *name, int64_t number,
                         const char *tmp, struct vf_error *err)
{
    char entry[24];
    int r;

    snprintf(entry, sizeof(entry), "%" PRId64, number);
    vf_failpoint("store.remove.before-rename");
    pthread_mutex_lock(&store->lock);
    r = refuse_used(store, name, number, err);
    if (r == 0 && renameat(template_fd, entry, template_fd, tmp) != 0)
        r = vf_fail_errno(err, errno, "rename its directory");
    pthread_mutex_unlock(&store->lock);
    return r;
}

/* Notes the highest number used before that generation goes, so that its number never comes
 * again. */
static int note_last(int template_fd, int64_t number, struct vf_error *err)
{
    char text[24];
    int64_t highest;
    int r = vf_generation_highest(template_fd, &highest, err);

    if (r < 0 || number < highest)
        return r;
    snprintf(text, sizeof(text), "%" PRId64 "\n", highest);
    return vf_write_file(template_fd, VF_STORE_LAST_NAME, text, strlen(text), 0600, err);
}

int vf_store_remove(struct vf_store *store, const char *name, int64_t number, struct vf_error *err)
{
    VF_CLEANUP_FD int template_fd = -1;
    char tmp[VF_STORE_TMP_NAME_SIZE];
    int r = vf_template_dir(store, name, &template_fd, err);

    if (r < 0)
        return r;
    vf_store_tmp_name(tmp);
    pthread_mutex_lock(&store->commit_lock);
    r = check_removable(store, template_fd, name, number, err);
    if (r == 0)
        r = note_last(template_fd, number, err);
    if (r == 0)
        r = rename_unused(store, template_fd, name, number, tmp, err);
    pthread_mutex_unlock(&store->commit_lock);
    if (r == 0) {
        vf_failpoint("store.remove.after-rename");
        r = vf_dir_sync(template_fd, "the template", err);
    }
    if (r == 0)
        r = vf_remove_tree(template_fd, tmp, err);
    vf_failpoint("store.remove.after-unlink");
    return r < 0 ? vf_wrap(err, "template %s generation %" PRId64 ": remove", name, number) : 0;
}

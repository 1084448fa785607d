/* Reading the store's directories. See store_internal.h. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/hash.h"
#include "templates/store_internal.h"

int64_t vf_generation_number(const char *entry)
{
    size_t len = strlen(entry);

    if (len == 0 || len > 18 || entry[0] == '0' || strspn(entry, "0123456789") != len)
        return 0;
    return strtoll(entry, NULL, 10);
}

int vf_dir_open(int dirfd, const char *name, int *ret_fd)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

int vf_template_dir(const struct vf_store *store, const char *name, int *ret_fd,
                    struct vf_error *err)
{
    int r;

    if (!vf_template_name_ok(name))
        return vf_fail(err, VF_INVALID_ARGUMENT, "\"%.64s\" is no template name", name);
    r = vf_dir_open(store->templates_fd, name, ret_fd);
    if (r == -ENOENT) {
        vf_fail(err, VF_NOT_FOUND, "template %s: is not in the store %s", name, store->path);
        return vf_hint(err, "build it first");
    }
    return r < 0 ? vf_fail_errno(err, r, "template %s: open its directory", name) : 0;
}

int vf_dir_sync(int fd, const char *what, struct vf_error *err)
{
    /* EINVAL: a file system that does not sync directories. */
    if (fsync(fd) != 0 && errno != EINVAL)
        return vf_fail_errno(err, errno, "%s: fsync the directory", what);
    return 0;
}

void vf_store_tmp_name(char ret[VF_STORE_TMP_NAME_SIZE])
{
    uint64_t unique;

    vf_random(&unique, sizeof(unique));
    snprintf(ret, VF_STORE_TMP_NAME_SIZE, VF_STORE_TMP_PREFIX "%016" PRIx64, unique);
}

/* What "last" says; 0 if there is none, or nonsense in it: the directories still count. */
static int read_last(int template_fd, int64_t *ret_number, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL;
    struct vf_error inner = {0};
    size_t len = 0;
    int r = vf_read_file(template_fd, VF_STORE_LAST_NAME, 64, &text, &len, &inner);

    *ret_number = 0;
    if (r < 0)
        return inner.code == VF_NOT_FOUND || inner.code == VF_INVALID_ARGUMENT
                   ? 0
                   : vf_error_copy(err, &inner);
    text[strcspn(text, "\n")] = '\0';
    *ret_number = vf_generation_number(text);
    return 0;
}

int vf_generation_highest(int template_fd, int64_t *ret_number, struct vf_error *err)
{
    struct vf_names names;
    int64_t highest;
    int r = read_last(template_fd, &highest, err);

    if (r == 0)
        r = vf_dir_names(template_fd, &names, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < names.n; i++) {
        int64_t n = vf_generation_number(names.v[i]);

        if (n > highest)
            highest = n;
    }
    vf_names_free(&names);
    *ret_number = highest;
    return 0;
}

/* The names in a directory. See fd.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void vf_names_free(struct vf_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->v[i]);
    free(names->v);
    names->v = NULL;
    names->n = 0;
}

static int add_name(struct vf_names *names, const char *name)
{
    char **v = (char **)realloc(names->v, (names->n + 1) * sizeof(*v));

    if (v == NULL)
        return -ENOMEM;
    names->v = v;
    v[names->n] = strdup(name);
    if (v[names->n] == NULL)
        return -ENOMEM;
    names->n++;
    return 0;
}

int vf_dir_names(int dirfd, struct vf_names *ret_names, struct vf_error *err)
{
    struct vf_names names = {0};
    struct dirent *e;
    int r = 0;
    DIR *d;
    /* A position of its own, so that threads may share dirfd. */
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return vf_fail_errno(err, errno, "open the directory");
    d = fdopendir(fd);
    if (d == NULL) {
        r = vf_fail_errno(err, errno, "open the directory");
        vf_close_fd(&fd);
        return r;
    }
    while (r == 0 && (errno = 0, e = readdir(d), e != NULL)) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = add_name(&names, e->d_name);
    }
    if (r == 0)
        r = -errno;
    closedir(d);
    if (r < 0) {
        vf_names_free(&names);
        return vf_fail_errno(err, r, "read the directory");
    }
    if (names.n > 0)
        qsort(names.v, names.n, sizeof(names.v[0]), compare_names);
    *ret_names = names;
    return 0;
}

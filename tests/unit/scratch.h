/* A directory of its own for a test, gone with all that is in it at the end. */
#ifndef VF_TESTS_SCRATCH_H
#define VF_TESTS_SCRATCH_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"

struct scratch {
    char path[200];
    int fd;
};

static inline void scratch_open(struct scratch *s)
{
    const char *tmp = getenv("TMPDIR");
    struct vf_error err;

    snprintf(s->path, sizeof(s->path), "%s/vf-unit-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(s->path));
    cr_assert_eq(vf_open_dir(s->path, 0, 0, &s->fd, &err), 0, "%s", err.msg);
}

static inline void scratch_close(struct scratch *s)
{
    struct vf_error err;

    vf_close_fd(&s->fd);
    cr_expect_eq(vf_remove_tree(AT_FDCWD, s->path, &err), 0, "%s", err.msg);
}

/* The names in the directory, but for . and .., sorted and joined by spaces. */
static inline void scratch_list(const struct scratch *s, char *buf, size_t size)
{
    char command[300];
    FILE *f;
    size_t n;

    snprintf(command, sizeof(command), "ls -A '%s' | tr '\\n' ' '", s->path);
    f = popen(command, "re");
    cr_assert_not_null(f);
    n = fread(buf, 1, size - 1, f);
    buf[n] = '\0';
    cr_assert_eq(pclose(f), 0);
}

#endif

/* The frame of every end-to-end test: loop, directory, leaks. */
#include "tests/e2e/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"

/* ---- what is there now */

static char *fd_text(int fd)
{
    char path[64], text[512];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, text, sizeof(text) - 1);
    if (n < 0)
        return NULL;
    text[n] = 0;
    return strdup(text);
}

/* Calls each for every open descriptor but the one this needs itself. */
static int walk_fds(void (*each)(void *arg, int fd), void *arg)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    cr_assert(d, "/proc/self/fd: %s", strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        int fd = atoi(e->d_name);
        if (e->d_name[0] == '.' || fd == dirfd(d))
            continue;
        n++;
        if (each)
            each(arg, fd);
    }
    closedir(d);
    return n;
}

int sup_count_fds(void)
{
    return walk_fds(NULL, NULL);
}

static void take_highest(void *arg, int fd)
{
    int *highest = arg;
    if (fd > *highest)
        *highest = fd;
}

int sup_highest_fd(void)
{
    int highest = 0;
    walk_fds(take_highest, &highest);
    return highest;
}

static void note_fd(void *arg, int fd)
{
    struct sup *s = arg;
    if (fd < SUP_MAX_FDS)
        s->fds[fd] = fd_text(fd);
}

struct leak {
    struct sup *s;
    int n;
    char text[1024];
};

static void compare_fd(void *arg, int fd)
{
    struct leak *l = arg;
    if (fd < SUP_MAX_FDS && l->s->fds[fd])
        return;
    char *text = fd_text(fd);
    size_t len = strlen(l->text);
    snprintf(l->text + len, sizeof(l->text) - len, " %d -> %s", fd, text ? text : "?");
    free(text);
    l->n++;
}

/* Zombies too. A scan of /proc, since not every kernel has /proc/PID/task/TID/children. */
static int list_children(char *ret, size_t size)
{
    DIR *d = opendir("/proc");
    int n = 0;
    cr_assert(d);
    ret[0] = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[300], text[512];
        int ppid;
        if (e->d_name[0] < '0' || e->d_name[0] > '9')
            continue;
        snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t len = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
        if (fd >= 0)
            close(fd);
        text[len > 0 ? len : 0] = 0;
        char *p = strrchr(text, ')');
        if (!p || sscanf(p + 1, " %*c %d", &ppid) != 1 || ppid != (int)getpid())
            continue;
        size_t used = strlen(ret);
        snprintf(ret + used, size - used, " %.40s", text);
        n++;
    }
    closedir(d);
    return n;
}

int sup_count_children(void)
{
    char text[1024];
    return list_children(text, sizeof(text));
}

int sup_count_files(int fd)
{
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fdopendir(own);
    int n = 0;
    cr_assert(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

void sup_check_leaks(struct sup *s, int more)
{
    struct leak l = {.s = s};
    char text[1024];
    walk_fds(compare_fd, &l);
    cr_assert_leq(l.n, more, "left open:%s", l.text);
    cr_assert_eq(list_children(text, sizeof(text)), 0, "left running:%s", text);
}

/* ---- a test's frame */

void sup_open(struct sup *s)
{
    *s = (struct sup){0};
    /* libuv keeps a few descriptors of its own from the first loop on, for good. */
    cr_assert_eq(uv_loop_init(&s->loop), 0);
    cr_assert_eq(uv_loop_close(&s->loop), 0);
    snprintf(s->dir, sizeof(s->dir), "/tmp/vf-e2e-XXXXXX");
    cr_assert(mkdtemp(s->dir), "mkdtemp: %s", strerror(errno));
    walk_fds(note_fd, s);
    cr_assert_eq(uv_loop_init(&s->loop), 0);
    s->dirfd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(s->dirfd, 0);
}

static void name_handle(uv_handle_t *h, void *arg)
{
    char *text = arg;
    size_t len = strlen(text);
    snprintf(text + len, 256 - len, " %s", uv_handle_type_name(h->type));
}

void sup_close(struct sup *s)
{
    struct vf_error e;
    for (int i = 0; i < s->n_vms; i++) {
        cr_assert_null(s->vms[i]->vm, "VM %s was never stopped", s->vms[i]->name);
        free(s->vms[i]);
    }
    char text[256] = "";
    uv_walk(&s->loop, name_handle, text);
    cr_assert_eq(uv_loop_close(&s->loop), 0, "live handles:%s", text);
    vf_close_fd(&s->dirfd);
    sup_remove_linked();
    sup_check_leaks(s, 0);
    for (int i = 0; i < SUP_MAX_FDS; i++)
        free(s->fds[i]);
    cr_assert_eq(vf_remove_tree(AT_FDCWD, s->dir, &e), 0, "%s", e.msg);
}

/* Not UV_RUN_ONCE: that runs due timers first and then waits for more, whatever they have done. */
void sup_wait_loop(struct sup *s, int64_t deadline_us, struct pollfd *also)
{
    int left = vf_deadline_left_ms(deadline_us);
    int loop_ms = uv_backend_timeout(&s->loop);
    if (loop_ms >= 0 && (left < 0 || loop_ms < left))
        left = loop_ms;
    struct pollfd p[2] = {{.fd = uv_backend_fd(&s->loop), .events = POLLIN}};
    if (also)
        p[1] = *also;
    poll(p, also ? 2 : 1, left);
}

void sup_run(struct sup *s, const bool *flag, int64_t timeout_ms, const char *what)
{
    int64_t deadline_us = vf_deadline_after_ms(timeout_ms);
    for (;;) {
        uv_run(&s->loop, UV_RUN_NOWAIT);
        if (*flag)
            return;
        cr_assert_neq(vf_deadline_left_ms(deadline_us), 0, "%s: not within %lld ms", what,
                      (long long)timeout_ms);
        sup_wait_loop(s, deadline_us, NULL);
    }
}

void sup_turns(struct sup *s, int n)
{
    for (int i = 0; i < n; i++)
        uv_run(&s->loop, UV_RUN_NOWAIT);
}

void sup_skip_(const char *suite, const char *name, const char *fmt, ...)
{
    char reason[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(reason, sizeof(reason), fmt, ap);
    va_end(ap);
    fprintf(stderr, "SKIPPED %s.%s: %s\n", suite, name, reason);
    fflush(stderr);
    cr_skip_test("%s", reason);
}

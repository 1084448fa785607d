/* Removing trees, and only what is in them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/unit/scratch.h"

static struct scratch dir;

static void open_scratch(void)
{
    scratch_open(&dir);
}

static void close_scratch(void)
{
    scratch_close(&dir);
}

TestSuite(base_fd_tree, .init = open_scratch, .fini = close_scratch, .timeout = 30);

static void put(const char *name)
{
    struct vf_error err;

    cr_assert_eq(vf_write_file(dir.fd, name, "x", 1, 0600, &err), 0, "%s", err.msg);
}

static void make_dir(const char *name)
{
    cr_assert_eq(mkdirat(dir.fd, name, 0700), 0, "%s: %s", name, strerror(errno));
}

static bool exists(const char *name)
{
    struct stat st;

    return fstatat(dir.fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

Test(base_fd_tree, all_below_goes_and_nothing_beside)
{
    struct vf_error err;

    make_dir("t");
    make_dir("t/a");
    make_dir("t/a/b");
    make_dir("t/empty");
    put("t/f");
    put("t/a/b/f");
    put("t/a/.hidden");
    cr_assert_eq(mkfifoat(dir.fd, "t/fifo", 0600), 0);
    put("beside");
    cr_expect_eq(vf_remove_tree(dir.fd, "t", &err), 0, "%s", err.msg);
    cr_expect_not(exists("t"));
    cr_expect(exists("beside"));
}

Test(base_fd_tree, many_files_in_one_directory)
{
    struct vf_error err;
    char name[40];

    make_dir("t");
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof(name), "t/some-file-number-%d", i);
        cr_assert_eq(mknodat(dir.fd, name, S_IFREG | 0600, 0), 0);
    }
    cr_expect_eq(vf_remove_tree(dir.fd, "t", &err), 0, "%s", err.msg);
    cr_expect_not(exists("t"));
}

Test(base_fd_tree, symlinks_are_removed_not_followed)
{
    struct vf_error err;

    make_dir("precious");
    put("precious/f");
    make_dir("t");
    cr_assert_eq(symlinkat("../precious", dir.fd, "t/to-dir"), 0);
    cr_assert_eq(symlinkat("../precious/f", dir.fd, "t/to-file"), 0);
    cr_assert_eq(symlinkat("nowhere", dir.fd, "t/dangling"), 0);
    cr_assert_eq(symlinkat("t", dir.fd, "link"), 0);
    cr_expect_eq(vf_remove_tree(dir.fd, "link", &err), 0, "%s", err.msg);
    cr_expect_not(exists("link"));
    cr_expect(exists("t/to-dir"), "the link itself was the tree");
    cr_expect_eq(vf_remove_tree(dir.fd, "t", &err), 0, "%s", err.msg);
    cr_expect_not(exists("t"));
    cr_expect(exists("precious/f"));
}

Test(base_fd_tree, a_file_and_nothing_at_all)
{
    struct vf_error err;

    put("f");
    cr_expect_eq(vf_remove_tree(dir.fd, "f", &err), 0, "%s", err.msg);
    cr_expect_not(exists("f"));
    cr_expect_eq(vf_remove_tree(dir.fd, "f", &err), 0, "a missing one is success");
    cr_expect_eq(vf_remove_tree(dir.fd, "no/such/dir", &err), 0, "%s", err.msg);
}

Test(base_fd_tree, names_that_reach_out_are_refused)
{
    static const char *const names[] = {"", ".", "..", "t/.", "t/..", "t/", "/"};
    struct vf_error err;

    make_dir("t");
    put("t/f");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        cr_expect_eq(vf_remove_tree(dir.fd, names[i], &err), -EINVAL, "%s", names[i]);
    cr_expect(exists("t/f"));
}

Test(base_fd_tree, depth_has_a_limit_and_an_error)
{
    struct vf_error err;
    int fd = dup(dir.fd);

    for (int i = 0; i < 200; i++) {
        int next;

        cr_assert_eq(mkdirat(fd, "d", 0700), 0);
        next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        cr_assert_geq(next, 0);
        close(fd);
        fd = next;
    }
    close(fd);
    cr_expect_eq(vf_remove_tree(dir.fd, "d", &err), -EINVAL);
    cr_expect_eq(strncmp(err.msg, "d: d: d: ", 9), 0, "%s", err.msg);
    /* Bring the lower part up, so that the end of the test can clear all of it. */
    char below[2 * 100 + 1];

    for (int i = 0; i < 100; i++)
        memcpy(below + 2 * i, "d/", 3);
    below[2 * 100 - 1] = '\0';
    cr_assert_eq(renameat(dir.fd, below, dir.fd, "lower"), 0, "%s", strerror(errno));
}

Test(base_fd_tree, a_directory_that_cant_be_emptied_is_named)
{
    struct vf_error err;
    int r;

    make_dir("t");
    make_dir("t/locked");
    put("t/locked/f");
    cr_assert_eq(fchmodat(dir.fd, "t/locked", 0500, 0), 0);
    if (geteuid() == 0) {
        cr_assert_eq(fchown(dir.fd, 65534, -1), 0);
        cr_assert_eq(fchownat(dir.fd, "t", 65534, -1, 0), 0);
        cr_assert_eq(fchmodat(dir.fd, "t/locked", 0555, 0), 0);
        if (seteuid(65534) != 0) {
            fprintf(stderr, "SKIPPED: root here can't become nobody: %s\n", strerror(errno));
            cr_skip("root can't become nobody");
        }
    }
    r = vf_remove_tree(dir.fd, "t", &err);
    if (getuid() == 0)
        cr_assert_eq(seteuid(0), 0);
    cr_expect_eq(r, -EACCES);
    cr_expect_str_eq(err.msg, "t: locked: f: remove: Permission denied");
    cr_assert_eq(fchmodat(dir.fd, "t/locked", 0700, 0), 0);
}

/* Mounts what on dir/name, in a mount namespace of this test's own process: nothing outlives it. */
static void mount_or_skip(const char *what, const char *name, const char *type, unsigned long flags)
{
    char path[300];

    snprintf(path, sizeof(path), "%s/%s", dir.path, name);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(what, path, type, flags, NULL) != 0) {
        fprintf(stderr, "SKIPPED: nothing can be mounted here: %s\n", strerror(errno));
        cr_skip("nothing can be mounted here");
    }
    /* The old descriptor leads into the namespace we left. */
    close(dir.fd);
    dir.fd = open(dir.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(dir.fd, 0);
}

static void unmount(const char *name)
{
    char path[300];

    snprintf(path, sizeof(path), "%s/%s", dir.path, name);
    cr_assert_eq(umount2(path, MNT_DETACH), 0, "%s", strerror(errno));
}

Test(base_fd_tree, what_is_mounted_within_stays)
{
    struct vf_error err;

    make_dir("t");
    make_dir("t/mnt");
    mount_or_skip("vf-test", "t/mnt", "tmpfs", 0);
    put("t/mnt/precious");
    cr_expect_eq(vf_remove_tree(dir.fd, "t", &err), -EBUSY);
    cr_expect_str_eq(err.msg, "t: mnt: another file system is mounted there");
    cr_expect_eq(vf_remove_tree(dir.fd, "t/mnt", &err), -EBUSY);
    cr_expect(exists("t/mnt/precious"));
    unmount("t/mnt");
}

Test(base_fd_tree, what_is_bound_within_stays)
{
    struct vf_error err;
    char source[300];

    make_dir("precious");
    put("precious/f");
    make_dir("t");
    make_dir("t/mnt");
    snprintf(source, sizeof(source), "%s/precious", dir.path);
    mount_or_skip(source, "t/mnt", NULL, MS_BIND);
    cr_assert(exists("t/mnt/f"));
    cr_expect_eq(vf_remove_tree(dir.fd, "t", &err), -EBUSY, "same file system, still not ours");
    cr_expect(exists("precious/f"));
    unmount("t/mnt");
}

struct swapper {
    int fd;
    int stop, turns;
};

/* Makes x a directory and a symlink to precious in turn, as fast as it can, each time at once. */
static void *swap(void *arg)
{
    struct swapper *s = (struct swapper *)arg;

    while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
        int r; /* whichever of these fails, the next turn mends it */

        unlinkat(s->fd, "other", AT_REMOVEDIR);
        mkdirat(s->fd, "x", 0700);
        r = symlinkat("precious", s->fd, "other");
        (void)r;
        for (int i = 0; i < 4; i++)
            renameat2(s->fd, "x", s->fd, "other", RENAME_EXCHANGE);
        __atomic_fetch_add(&s->turns, 1, __ATOMIC_RELEASE);
    }
    return NULL;
}

Test(base_fd_tree, a_directory_swapped_for_a_symlink_leads_nowhere)
{
    struct swapper s = {.fd = dir.fd};
    struct vf_error err;
    pthread_t thread;

    make_dir("precious");
    put("precious/f");
    cr_assert_eq(pthread_create(&thread, NULL, swap, &s), 0);
    while (__atomic_load_n(&s.turns, __ATOMIC_ACQUIRE) < 60000)
        vf_remove_tree(dir.fd, "x", &err); /* may fail while somebody is at it */
    __atomic_store_n(&s.stop, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    cr_expect(exists("precious/f"));
    cr_expect_eq(vf_remove_tree(dir.fd, "x", &err), 0, "%s", err.msg);
}

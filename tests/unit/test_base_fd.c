/* Files: opened with checks, read whole, replaced as one or not at all. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
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

TestSuite(base_fd, .init = open_scratch, .fini = close_scratch, .timeout = 30);

static void expect_file(const char *name, const char *content)
{
    VF_CLEANUP_FREE char *data = NULL;
    struct vf_error err;
    size_t len;

    cr_assert_eq(vf_read_file(dir.fd, name, 1 << 20, &data, &len, &err), 0, "%s", err.msg);
    cr_expect_eq(len, strlen(content));
    cr_expect_str_eq(data, content);
}

static void expect_listing(const char *expected)
{
    char list[1000];

    scratch_list(&dir, list, sizeof(list));
    cr_expect_str_eq(list, expected);
}

static void put(const char *name, const char *content, mode_t mode)
{
    struct vf_error err;

    cr_assert_eq(vf_write_file(dir.fd, name, content, strlen(content), mode, &err), 0, "%s",
                 err.msg);
}

static bool has_cloexec(int fd)
{
    return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

Test(base_fd, close_fd_resets_and_keeps_errno)
{
    int fd = dup(dir.fd), number = fd;

    errno = ENOTTY;
    vf_close_fd(&fd);
    cr_expect_eq(errno, ENOTTY);
    cr_expect_eq(fd, -1);
    cr_expect_eq(fcntl(number, F_GETFD), -1);
    errno = ENOTTY;
    vf_close_fd(&fd);
    cr_expect_eq(errno, ENOTTY);
}

Test(base_fd, stealing_leaves_nothing_to_clean_up)
{
    int fd = 42;
    char text[] = "x", *s = text;

    cr_expect_eq(vf_steal_fd(&fd), 42);
    cr_expect_eq(fd, -1);
    cr_expect_eq(vf_steal_str(&s), text);
    cr_expect_null(s);
}

Test(base_fd, directories_are_made_with_their_parents)
{
    struct vf_error err;
    char path[300];
    struct stat st;
    int fd = -1;

    umask(022);
    snprintf(path, sizeof(path), "%s/a//b/c/", dir.path);
    cr_expect_eq(vf_open_dir(path, 0, 0, &fd, &err), -ENOENT);
    cr_expect_eq(fd, -1, "touched on failure");
    cr_expect_not_null(strstr(err.msg, "a//b/c/: open the directory: No such file"), "%s", err.msg);
    for (int i = 0; i < 2; i++) { /* the second time it is there already */
        cr_assert_eq(vf_open_dir(path, 1, 0750, &fd, &err), 0, "%s", err.msg);
        cr_expect(has_cloexec(fd));
        cr_assert_eq(fstat(fd, &st), 0);
        cr_expect(S_ISDIR(st.st_mode));
        cr_expect_eq(st.st_mode & 0777, 0750);
        vf_close_fd(&fd);
    }
}

Test(base_fd, a_file_in_a_directorys_way_is_named)
{
    struct vf_error err;
    char path[300];
    int fd = -1;

    put("plain", "x", 0600);
    snprintf(path, sizeof(path), "%s/plain/sub", dir.path);
    cr_expect_eq(vf_open_dir(path, 1, 0700, &fd, &err), -EINVAL);
    cr_expect_not_null(strstr(err.msg, "plain/sub: create the directory: Not a directory"), "%s",
                       err.msg);
    snprintf(path, sizeof(path), "%s/plain", dir.path);
    cr_expect_eq(vf_open_dir(path, 1, 0700, &fd, &err), -EINVAL);
    cr_expect_not_null(strstr(err.msg, "open the directory: Not a directory"), "%s", err.msg);
    cr_expect_eq(vf_open_dir("", 1, 0700, &fd, &err), -ENOENT);
    cr_expect_eq(fd, -1);
}

Test(base_fd, write_file_makes_and_replaces)
{
    struct stat st;

    umask(077);
    put("f", "first", 0644);
    cr_assert_eq(fstatat(dir.fd, "f", &st, 0), 0);
    cr_expect_eq(st.st_mode & 07777, 0644, "the mode is exact");
    put("f", "", 0600);
    expect_file("f", "");
    put("f", "third", 0600);
    expect_file("f", "third");
    cr_assert_eq(fstatat(dir.fd, "f", &st, 0), 0);
    cr_expect_eq(st.st_mode & 07777, 0600);
    expect_listing("f ");
}

Test(base_fd, write_file_goes_through_paths_and_long_names)
{
    char name[256], path[600];
    struct vf_error err;

    memset(name, 'n', 255);
    name[255] = '\0';
    put(name, "long", 0600);
    expect_file(name, "long");

    snprintf(path, sizeof(path), "%s/by-path", dir.path);
    cr_assert_eq(vf_write_file(AT_FDCWD, path, "p", 1, 0600, &err), 0, "%s", err.msg);
    expect_file("by-path", "p");
    cr_assert_eq(mkdirat(dir.fd, "sub", 0700), 0);
    put("sub/x", "below", 0600);
    expect_file("sub/x", "below");
}

Test(base_fd, write_file_replaces_a_symlink_not_its_target)
{
    struct stat st;

    put("target", "safe", 0600);
    cr_assert_eq(symlinkat("target", dir.fd, "link"), 0);
    put("link", "new", 0600);
    cr_assert_eq(fstatat(dir.fd, "link", &st, AT_SYMLINK_NOFOLLOW), 0);
    cr_expect(S_ISREG(st.st_mode));
    expect_file("target", "safe");
    expect_file("link", "new");
}

Test(base_fd, a_write_that_hits_a_limit_leaves_the_old_file)
{
    struct rlimit limit = {.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
    char *big = (char *)calloc(1, 65536);
    struct vf_error err;
    int r;

    cr_assert_not_null(big);
    memset(big, 'b', 65535);
    put("f", "old", 0600);
    /* The first write is short, the second fails: as on a disk that fills up. */
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = 4096;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    r = vf_write_file(dir.fd, "f", big, 65535, 0600, &err);
    limit.rlim_cur = limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);

    cr_expect_eq(r, -ENOSPC);
    cr_expect_eq(err.code, VF_NO_SPACE);
    cr_expect_str_eq(err.msg, "f: write: File too large");
    expect_file("f", "old");
    expect_listing("f ");
    cr_expect_eq(vf_write_file(dir.fd, "f", big, 65535, 0600, &err), 0, "and works again");
    expect_file("f", big);
    free(big);
}

Test(base_fd, a_rename_that_fails_leaves_no_litter)
{
    struct vf_error err;

    cr_assert_eq(mkdirat(dir.fd, "d", 0700), 0);
    cr_expect_eq(vf_write_file(dir.fd, "d", "x", 1, 0600, &err), -EINVAL);
    cr_expect_str_eq(err.msg, "d: rename: Is a directory");
    expect_listing("d ");
}

Test(base_fd, write_file_refuses_what_is_no_name)
{
    static const char *const names[] = {"", ".", "..", "sub/", "sub/..", "/"};
    struct vf_error err;

    cr_assert_eq(mkdirat(dir.fd, "sub", 0700), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_expect_eq(vf_write_file(dir.fd, names[i], "x", 1, 0600, &err), -EINVAL, "%s", names[i]);
        cr_expect_not_null(strstr(err.msg, "is no file name"), "%s", err.msg);
    }
    cr_expect_eq(vf_write_file(dir.fd, "nowhere/x", "x", 1, 0600, &err), -ENOENT);
    cr_expect_str_eq(err.msg, "nowhere/x: open its directory: No such file or directory");
    expect_listing("sub ");
}

Test(base_fd, write_all_reports_what_it_wrote_to)
{
    struct vf_error err;
    int fds[2];

    signal(SIGPIPE, SIG_IGN);
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    cr_expect_eq(vf_write_all(fds[1], "abc", 3, "pipe", &err), 0);
    close(fds[0]);
    cr_expect_eq(vf_write_all(fds[1], "abc", 3, "pipe", &err), -EIO);
    cr_expect_str_eq(err.msg, "pipe: write: Broken pipe");
    close(fds[1]);
    cr_expect_eq(vf_write_all(-1, "", 0, "nothing", &err), 0);
}

Test(base_fd, read_file_stays_within_its_limit)
{
    struct vf_error err;
    char *data = NULL;
    size_t len = 77;

    put("f", "12345", 0600);
    cr_assert_eq(vf_read_file(dir.fd, "f", 5, &data, &len, &err), 0, "%s", err.msg);
    cr_expect_eq(len, 5);
    cr_expect_str_eq(data, "12345");
    free(data);
    data = NULL;
    len = 77;
    cr_expect_eq(vf_read_file(dir.fd, "f", 4, &data, &len, &err), -EINVAL);
    cr_expect_str_eq(err.msg, "f: is 5 bytes long, at most 4 are allowed");
    cr_expect_null(data);
    cr_expect_eq(len, 77);
    /* Files of /proc say that they are empty; their bytes are counted all the same. */
    cr_assert_eq(vf_read_file(AT_FDCWD, "/proc/self/status", 65536, &data, &len, &err), 0, "%s",
                 err.msg);
    cr_expect_gt(len, 100);
    cr_expect_eq(strlen(data), len);
    free(data);
    data = NULL;
    cr_expect_eq(vf_read_file(AT_FDCWD, "/proc/self/status", 100, &data, &len, &err), -EINVAL);
    cr_expect_str_eq(err.msg, "/proc/self/status: is longer than the 100 bytes allowed");
    cr_expect_null(data);
}

Test(base_fd, read_file_keeps_nul_bytes)
{
    struct vf_error err;
    char *data;
    size_t len;

    cr_assert_eq(vf_write_file(dir.fd, "f", "a\0b", 3, 0600, &err), 0);
    cr_assert_eq(vf_read_file(dir.fd, "f", 10, &data, &len, &err), 0);
    cr_expect_eq(len, 3);
    cr_expect_arr_eq(data, "a\0b", 4);
    free(data);
}

Test(base_fd, read_file_refuses_what_is_no_regular_file)
{
    struct vf_error err;
    char *data = NULL;
    size_t len;

    put("f", "x", 0600);
    cr_assert_eq(symlinkat("f", dir.fd, "link"), 0);
    cr_assert_eq(mkfifoat(dir.fd, "fifo", 0600), 0);
    cr_assert_eq(mkdirat(dir.fd, "d", 0700), 0);
    cr_expect_eq(vf_read_file(dir.fd, "link", 10, &data, &len, &err), -EINVAL);
    cr_expect_str_eq(err.msg, "link: is a symlink, must be a regular file");
    cr_expect_eq(vf_read_file(dir.fd, "fifo", 10, &data, &len, &err), -EINVAL);
    cr_expect_str_eq(err.msg, "fifo: is a pipe, must be a regular file");
    cr_expect_eq(vf_read_file(dir.fd, "d", 10, &data, &len, &err), -EINVAL);
    cr_expect_str_eq(err.msg, "d: is a directory, must be a regular file");
    cr_expect_eq(vf_read_file(dir.fd, "none", 10, &data, &len, &err), -ENOENT);
    cr_expect_str_eq(err.msg, "none: open: No such file or directory");
    cr_expect_null(data);
}

/* vf_open_regular for dir/name must fail so. */
static void expect_refused(const char *name, int result, const char *why)
{
    struct vf_error err;
    char path[400], message[600];
    int fd = -1;

    snprintf(path, sizeof(path), "%s/%s", dir.path, name);
    snprintf(message, sizeof(message), "kernel: %s: %s", path, why);
    cr_expect_eq(vf_open_regular(path, "kernel", &fd, &err), result, "%s", name);
    cr_expect_str_eq(err.msg, message);
    cr_expect_eq(fd, -1);
}

Test(base_fd, open_regular_says_what_is_there_instead)
{
    struct vf_error err;
    char byte, path[400];
    int fd = -1;

    put("f", "x", 0600);
    put("empty", "", 0600);
    cr_assert_eq(mkdirat(dir.fd, "d", 0700), 0);
    cr_assert_eq(mkfifoat(dir.fd, "fifo", 0600), 0);
    cr_assert_eq(symlinkat("f", dir.fd, "link"), 0);
    cr_assert_eq(symlinkat("loop2", dir.fd, "loop1"), 0);
    cr_assert_eq(symlinkat("loop1", dir.fd, "loop2"), 0);
    cr_assert_eq(symlinkat("nowhere", dir.fd, "dangling"), 0);

    snprintf(path, sizeof(path), "%s/link", dir.path); /* a symlink to a file is fine */
    cr_assert_eq(vf_open_regular(path, "kernel", &fd, &err), 0, "%s", err.msg);
    cr_expect(has_cloexec(fd));
    cr_expect_eq(read(fd, &byte, 1), 1);
    vf_close_fd(&fd);

    expect_refused("d", -EINVAL, "is a directory, must be a regular file");
    expect_refused("fifo", -EINVAL, "is a pipe, must be a regular file");
    expect_refused("none", -ENOENT, "does not exist");
    expect_refused("dangling", -ENOENT, "is a symlink to what does not exist");
    expect_refused("loop1", -EINVAL, "is a loop of symlinks");
    expect_refused("empty", -EINVAL, "is empty");
    expect_refused("f/x", -EINVAL, "a part of the path is not a directory");
    cr_expect_eq(vf_open_regular("/dev/null", "initrd", &fd, &err), -EINVAL);
    cr_expect_str_eq(err.msg, "initrd: /dev/null: is a character device, must be a regular file");
    cr_expect_eq(vf_open_regular("", "initrd", &fd, &err), -EINVAL);
    cr_expect_str_eq(err.msg, "initrd: no path is given");
    cr_expect_eq(vf_open_regular(NULL, "initrd", &fd, &err), -EINVAL);
    cr_expect_eq(fd, -1);
}

Test(base_fd, open_regular_refuses_an_absurdly_long_path)
{
    struct vf_error err;
    char path[5001];
    int fd = -1;

    memset(path, '/', 5000);
    path[4999] = 'x';
    path[5000] = '\0';
    cr_expect_eq(vf_open_regular(path, "kernel", &fd, &err), -EINVAL);
    memset(path + 1, 'x', 300); /* a component of 300 */
    path[301] = '\0';
    cr_expect_eq(vf_open_regular(path, "kernel", &fd, &err), -EINVAL);
    cr_expect_not_null(strstr(err.msg, "File name too long"), "%s", err.msg);
}

Test(base_fd, open_regular_of_an_unreadable_file)
{
    put("secret", "x", 0000);
    /* Modes do not bind root; without it for a while they do. */
    if (geteuid() == 0) {
        cr_assert_eq(fchmod(dir.fd, 0755), 0);
        if (seteuid(65534) != 0) {
            fprintf(stderr, "SKIPPED: root here can't become nobody: %s\n", strerror(errno));
            cr_skip("root can't become nobody");
        }
        expect_refused("secret", -EACCES, "can't be read: Permission denied");
        cr_assert_eq(seteuid(0), 0);
    } else {
        expect_refused("secret", -EACCES, "can't be read: Permission denied");
    }
}

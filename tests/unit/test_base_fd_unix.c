/* Unix sockets in directories whose paths are longer than sun_path. */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
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

TestSuite(base_fd_unix, .init = open_scratch, .fini = close_scratch, .timeout = 30);

static void expect_talk(int dirfd, const char *name)
{
    VF_CLEANUP_FD int listener = -1, client = -1, server = -1;
    struct vf_error err;
    struct stat st;
    struct pollfd p;
    char buf[8];

    cr_assert_eq(vf_unix_listen(dirfd, name, 4, &listener, &err), 0, "%s", err.msg);
    cr_assert_eq(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    cr_expect(S_ISSOCK(st.st_mode));
    cr_expect_eq(st.st_mode & 0777, 0600);
    cr_assert_eq(vf_unix_connect(dirfd, name, &client, &err), 0, "%s", err.msg);
    p = (struct pollfd){.fd = listener, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, 10000), 1);
    server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert_geq(server, 0);
    cr_assert_eq(write(client, "hello", 5), 5);
    cr_assert_eq(read(server, buf, sizeof(buf)), 5);
    cr_expect_arr_eq(buf, "hello", 5);
    cr_expect(fcntl(listener, F_GETFD) & FD_CLOEXEC);
    cr_expect(fcntl(client, F_GETFD) & FD_CLOEXEC);
    cr_expect(fcntl(listener, F_GETFL) & O_NONBLOCK);
    cr_expect(fcntl(client, F_GETFL) & O_NONBLOCK);
}

Test(base_fd_unix, listen_and_connect)
{
    umask(0);
    expect_talk(dir.fd, "api.sock");
}

Test(base_fd_unix, in_a_directory_with_a_path_of_300_bytes)
{
    VF_CLEANUP_FD int deep = -1;
    struct vf_error err;
    char path[301];
    size_t len = strlen(dir.path);

    memcpy(path, dir.path, len);
    while (len < 300) {
        path[len] = len % 50 == 0 ? '/' : 'd';
        len++;
    }
    path[300] = '\0';
    path[strlen(dir.path)] = '/';
    cr_assert_eq(vf_open_dir(path, 1, 0700, &deep, &err), 0, "%s", err.msg);
    expect_talk(deep, "agent.sock");
}

Test(base_fd_unix, a_name_that_is_taken_stays_as_it_is)
{
    VF_CLEANUP_FD int listener = -1;
    int second = -1;
    struct vf_error err;
    char *data;
    size_t len;

    cr_assert_eq(vf_unix_listen(dir.fd, "s", 4, &listener, &err), 0, "%s", err.msg);
    cr_expect_eq(vf_unix_listen(dir.fd, "s", 4, &second, &err), -EADDRINUSE);
    cr_expect_eq(err.code, VF_CONFLICT);
    cr_expect_str_eq(err.msg, "s: bind: Address already in use");
    cr_assert_eq(vf_write_file(dir.fd, "file", "x", 1, 0600, &err), 0);
    cr_expect_eq(vf_unix_listen(dir.fd, "file", 4, &second, &err), -EADDRINUSE);
    cr_assert_eq(vf_read_file(dir.fd, "file", 9, &data, &len, &err), 0, "%s", err.msg);
    free(data);
    cr_expect_eq(second, -1);
}

Test(base_fd_unix, connect_says_why_not)
{
    int listener = -1, fd = -1;
    struct vf_error err;

    cr_expect_eq(vf_unix_connect(dir.fd, "none", &fd, &err), -ENOENT);
    cr_expect_eq(err.code, VF_NOT_FOUND);
    cr_expect_str_eq(err.msg, "none: connect: No such file or directory");
    cr_assert_eq(vf_unix_listen(dir.fd, "s", 4, &listener, &err), 0, "%s", err.msg);
    close(listener);
    cr_expect_eq(vf_unix_connect(dir.fd, "s", &fd, &err), -ECONNREFUSED);
    cr_expect_str_eq(err.msg, "s: connect: Connection refused");
    cr_expect_eq(fd, -1);
}

Test(base_fd_unix, a_full_backlog_does_not_block)
{
    VF_CLEANUP_FD int listener = -1;
    struct vf_error err;
    int fds[8], n = 0, r = 0;

    cr_assert_eq(vf_unix_listen(dir.fd, "s", 1, &listener, &err), 0, "%s", err.msg);
    while (n < 8 && (r = vf_unix_connect(dir.fd, "s", &fds[n], &err)) == 0)
        n++;
    cr_expect_eq(r, -EAGAIN);
    cr_expect_eq(err.code, VF_BUSY);
    while (n > 0)
        close(fds[--n]);
}

Test(base_fd_unix, names_are_checked)
{
    static const char *const names[] = {"", ".", "..", "a/b", "/tmp/x"};
    struct vf_error err;
    char name[120];
    int fd = -1;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_expect_eq(vf_unix_listen(dir.fd, names[i], 1, &fd, &err), -EINVAL, "%s", names[i]);
        cr_expect_eq(vf_unix_connect(dir.fd, names[i], &fd, &err), -EINVAL, "%s", names[i]);
    }
    memset(name, 'n', 108);
    name[108] = '\0';
    cr_expect_eq(vf_unix_listen(dir.fd, name, 1, &fd, &err), -ENAMETOOLONG);
    cr_expect_eq(vf_unix_connect(dir.fd, name, &fd, &err), -ENAMETOOLONG);
    cr_expect_eq(err.code, VF_INVALID_ARGUMENT);
    cr_expect_not_null(strstr(err.msg, "too long for a socket"), "%s", err.msg);
    cr_expect_eq(fd, -1);
    name[80] = '\0'; /* every name that fits beside the prefix works */
    expect_talk(dir.fd, name);
}

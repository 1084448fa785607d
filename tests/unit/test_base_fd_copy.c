/* Copying a file: byte for byte, holes left out, between file systems too; what is refused. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hash.h"
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

TestSuite(base_fd_copy, .init = open_scratch, .fini = close_scratch, .timeout = 30);

/* Data at both ends and in the middle, not on whole pages, holes between. */
static void make_sparse(int fd, off_t size)
{
    cr_assert_eq(ftruncate(fd, size), 0);
    cr_assert_eq(pwrite(fd, "begin", 5, 0), 5);
    cr_assert_eq(pwrite(fd, "middle", 6, size / 2 + 13), 6);
    cr_assert_eq(pwrite(fd, "end", 3, size - 3), 3);
}

static void expect_same(int a, int b)
{
    char hex[2][VF_SHA256_HEX];
    struct stat st[2];
    struct vf_error err;

    cr_assert_eq(vf_sha256_fd(a, "a", hex[0], &err), 0, "%s", err.msg);
    cr_assert_eq(vf_sha256_fd(b, "b", hex[1], &err), 0, "%s", err.msg);
    cr_expect_str_eq(hex[0], hex[1]);
    cr_assert(fstat(a, &st[0]) == 0 && fstat(b, &st[1]) == 0);
    cr_expect_eq(st[0].st_size, st[1].st_size);
    cr_expect_lt(st[1].st_blocks * 512, st[1].st_size / 2, "the holes were filled");
}

Test(base_fd_copy, copies_and_keeps_holes)
{
    VF_CLEANUP_FD int in = openat(dir.fd, "in", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct vf_error err;

    make_sparse(in, (off_t)64 << 20);
    cr_assert_eq(vf_copy_file(dir.fd, "in", dir.fd, "out", 0640, &err), 0, "%s", err.msg);
    VF_CLEANUP_FD int out = openat(dir.fd, "out", O_RDWR | O_CLOEXEC);
    expect_same(in, out);
    /* It is the copy's own. */
    cr_assert_eq(pwrite(out, "other", 5, 0), 5);
    char text[6] = "";
    cr_assert_eq(pread(in, text, 5, 0), 5);
    cr_expect_str_eq(text, "begin");
}

Test(base_fd_copy, between_file_systems)
{
    VF_CLEANUP_FD int in = memfd_create("in", MFD_CLOEXEC);
    struct vf_error err;
    char path[40];

    make_sparse(in, (off_t)64 << 20);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", in);
    cr_assert_eq(vf_copy_file(AT_FDCWD, path, dir.fd, "out", 0600, &err), 0, "%s", err.msg);
    VF_CLEANUP_FD int out = openat(dir.fd, "out", O_RDONLY | O_CLOEXEC);
    expect_same(in, out);
}

Test(base_fd_copy, empty_and_all_hole)
{
    VF_CLEANUP_FD int in = openat(dir.fd, "in", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct vf_error err;
    struct stat st;

    cr_assert_eq(vf_copy_file(dir.fd, "in", dir.fd, "empty", 0600, &err), 0, "%s", err.msg);
    cr_assert_eq(ftruncate(in, 1 << 20), 0);
    cr_assert_eq(vf_copy_file(dir.fd, "in", dir.fd, "hole", 0600, &err), 0, "%s", err.msg);
    cr_assert_eq(fstatat(dir.fd, "empty", &st, 0), 0);
    cr_expect_eq(st.st_size, 0);
    cr_assert_eq(fstatat(dir.fd, "hole", &st, 0), 0);
    cr_expect_eq(st.st_size, 1 << 20);
    cr_expect_eq(st.st_blocks, 0);
}

static bool first_only(void *arg)
{
    int *asked = arg;
    struct stat st;

    if (*asked > 0) { /* by then there is something to be removed */
        cr_assert_eq(fstatat(dir.fd, "out", &st, 0), 0);
        cr_assert_gt(st.st_blocks, 0);
    }
    return (*asked)++ == 0;
}

static void fill(int fd, size_t size)
{
    VF_CLEANUP_FREE char *data = malloc(size);

    memset(data, 'x', size);
    cr_assert_eq(write(fd, data, size), (ssize_t)size);
}

Test(base_fd_copy, a_copy_ends_when_nobody_wants_it)
{
    VF_CLEANUP_FD int in = memfd_create("in", MFD_CLOEXEC);
    struct vf_error err;
    struct stat st;
    char path[40];
    int asked = 0;

    fill(in, 2 * VF_COPY_CHUNK + 4096);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", in);
    cr_expect_eq(vf_copy_file_while(AT_FDCWD, path, dir.fd, "out", 0600, first_only, &asked, &err),
                 vf_code_errno(VF_CANCELLED));
    cr_expect_eq(err.code, VF_CANCELLED);
    cr_expect_eq(asked, 2);
    cr_expect_eq(fstatat(dir.fd, "out", &st, 0), -1);
    /* What was there before is nobody's to remove. */
    cr_assert_eq(mkdirat(dir.fd, "out", 0700), 0);
    cr_expect_lt(vf_copy_file(AT_FDCWD, path, dir.fd, "out", 0600, &err), 0);
    cr_expect_eq(fstatat(dir.fd, "out", &st, 0), 0);
}

Test(base_fd_copy, refusals_name_the_file)
{
    struct vf_error err;
    VF_CLEANUP_FD int in = openat(dir.fd, "in", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    cr_expect_lt(vf_copy_file(dir.fd, "missing", dir.fd, "out", 0600, &err), 0);
    cr_expect_eq(err.code, VF_NOT_FOUND);
    cr_expect(strstr(err.msg, "'missing'"), "%s", err.msg);
    cr_expect_lt(vf_copy_file(dir.fd, "in", dir.fd, "in", 0600, &err), 0);
    cr_expect(strstr(err.msg, "'in'"), "%s", err.msg);
}

/* Nobody writes to this one: whoever waited for that would wait for ever. */
Test(base_fd_copy, what_is_no_regular_file)
{
    struct vf_error err;
    struct stat st;

    cr_assert_eq(mkfifoat(dir.fd, "fifo", 0600), 0);
    cr_assert_eq(mkdirat(dir.fd, "dir", 0700), 0);
    cr_expect_eq(vf_copy_file(dir.fd, "fifo", dir.fd, "out", 0600, &err),
                 vf_code_errno(VF_INVALID_ARGUMENT));
    cr_expect(strstr(err.msg, "'fifo': is no regular file"), "%s", err.msg);
    cr_expect_eq(vf_copy_file(dir.fd, "dir", dir.fd, "out", 0600, &err),
                 vf_code_errno(VF_INVALID_ARGUMENT));
    cr_expect_eq(fstatat(dir.fd, "out", &st, 0), -1);
}

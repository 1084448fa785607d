/* SHA-256 of memory and files, hexadecimal, random bytes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hash.h"
#include "tests/unit/scratch.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static struct scratch dir;

static void open_scratch(void)
{
    scratch_open(&dir);
}

static void close_scratch(void)
{
    scratch_close(&dir);
}

TestSuite(base_hash, .init = open_scratch, .fini = close_scratch, .timeout = 60);

Test(base_hash, known_digests)
{
    uint8_t digest[VF_SHA256_LEN];
    char hex[VF_SHA256_HEX];

    vf_sha256("", 0, digest);
    vf_hex(digest, sizeof(digest), hex);
    cr_expect_str_eq(hex, EMPTY);
    vf_sha256("abc", 3, digest);
    vf_hex(digest, sizeof(digest), hex);
    cr_expect_str_eq(hex, ABC);
}

static int make(const char *name)
{
    int fd = openat(dir.fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    cr_assert_geq(fd, 0);
    return fd;
}

Test(base_hash, a_file_and_its_position)
{
    char hex[VF_SHA256_HEX];
    struct vf_error err;
    int fd = make("f");

    cr_assert_eq(vf_sha256_fd(fd, "f", hex, &err), 0, "%s", err.msg);
    cr_expect_str_eq(hex, EMPTY);
    cr_assert_eq(write(fd, "abc", 3), 3);
    cr_assert_eq(lseek(fd, 1, SEEK_SET), 1);
    cr_assert_eq(vf_sha256_fd(fd, "f", hex, &err), 0, "%s", err.msg);
    cr_expect_str_eq(hex, ABC, "from offset 0, wherever the position is");
    cr_expect_eq(lseek(fd, 0, SEEK_CUR), 1, "the position stays");
    close(fd);
}

/* Puts data at two places of a file of size, with holes before, between and behind. */
static void fill(int fd, off_t size)
{
    cr_assert_eq(ftruncate(fd, size), 0);
    cr_assert_eq(pwrite(fd, "first", 5, 1048576 + 17), 5);
    cr_assert_eq(pwrite(fd, "second", 6, 3 * 1048576 - 3), 6);
}

Test(base_hash, holes_are_zeros)
{
    enum { SIZE = 5 * 1048576 + 123 };
    char sparse_hex[VF_SHA256_HEX], full_hex[VF_SHA256_HEX], memory_hex[VF_SHA256_HEX];
    uint8_t digest[VF_SHA256_LEN];
    int sparse = make("sparse"), full = make("full");
    int memory = memfd_create("vf-test", MFD_CLOEXEC);
    struct vf_error err;
    struct stat st;
    char *bytes = (char *)calloc(1, SIZE);

    cr_assert_not_null(bytes);
    fill(sparse, SIZE);
    fill(memory, SIZE);
    cr_assert_eq(pread(sparse, bytes, SIZE, 0), SIZE);
    cr_assert_eq(vf_write_all(full, bytes, SIZE, "full", &err), 0);
    cr_assert_eq(vf_sha256_fd(sparse, "sparse", sparse_hex, &err), 0, "%s", err.msg);
    cr_assert_eq(vf_sha256_fd(full, "full", full_hex, &err), 0, "%s", err.msg);
    cr_assert_eq(vf_sha256_fd(memory, "memory", memory_hex, &err), 0, "%s", err.msg);
    cr_expect_str_eq(sparse_hex, full_hex);
    cr_expect_str_eq(memory_hex, full_hex);
    vf_sha256(bytes, SIZE, digest);
    vf_hex(digest, sizeof(digest), full_hex);
    cr_expect_str_eq(sparse_hex, full_hex);
    cr_expect_eq(lseek(sparse, 0, SEEK_CUR), 0, "looking for holes moved the position");
    cr_assert_eq(fstat(memory, &st), 0);
    cr_expect_lt(st.st_blocks, 1000, "hashing filled the holes");
    free(bytes);
    close(sparse);
    close(full);
    close(memory);
}

Test(base_hash, a_file_that_is_one_hole)
{
    enum { SIZE = 3 * 1048576 + 1 };
    char hex[VF_SHA256_HEX], expected[VF_SHA256_HEX];
    uint8_t digest[VF_SHA256_LEN];
    struct vf_error err;
    char *zeros = (char *)calloc(1, SIZE);
    int fd = make("hole");

    cr_assert_not_null(zeros);
    cr_assert_eq(ftruncate(fd, SIZE), 0);
    cr_assert_eq(vf_sha256_fd(fd, "hole", hex, &err), 0, "%s", err.msg);
    vf_sha256(zeros, SIZE, digest);
    vf_hex(digest, sizeof(digest), expected);
    cr_expect_str_eq(hex, expected);
    free(zeros);
    close(fd);
}

Test(base_hash, what_is_no_file_is_refused)
{
    char hex[VF_SHA256_HEX] = "untouched";
    struct vf_error err;
    int fds[2], fd = make("write-only");

    close(fd);
    cr_expect_eq(vf_sha256_fd(dir.fd, "a directory", hex, &err), -EINVAL);
    cr_expect_str_eq(err.msg, "a directory: is not a regular file");
    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    cr_expect_eq(vf_sha256_fd(fds[0], "pipe", hex, &err), -EINVAL);
    cr_expect_lt(vf_sha256_fd(-1, "nothing", hex, &err), 0);
    cr_expect_str_eq(err.msg, "nothing: stat: Bad file descriptor");

    fd = openat(dir.fd, "write-only", O_WRONLY | O_CLOEXEC);
    cr_assert_eq(write(fd, "x", 1), 1);
    cr_expect_lt(vf_sha256_fd(fd, "write-only", hex, &err), 0);
    cr_expect_str_eq(err.msg, "write-only: read: Bad file descriptor");
    cr_expect_str_eq(hex, "untouched");
    close(fd);
    close(fds[0]);
    close(fds[1]);
}

Test(base_hash, hex_there_and_back)
{
    uint8_t bytes[256], back[256];
    char hex[513];

    for (int i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    vf_hex(bytes, sizeof(bytes), hex);
    cr_expect_eq(strlen(hex), 512);
    cr_expect_eq(strncmp(hex, "000102030405060708090a0b", 24), 0);
    cr_expect_eq(vf_unhex(hex, back, sizeof(back)), 0);
    cr_expect_arr_eq(back, bytes, sizeof(back));
    cr_expect_eq(vf_unhex("AbCdeF", back, 3), 0);
    cr_expect_arr_eq(back, "\xab\xcd\xef", 3);
    vf_hex("", 0, hex);
    cr_expect_str_empty(hex);
    cr_expect_eq(vf_unhex("", back, 0), 0);
}

Test(base_hash, bad_hex_is_refused_and_nothing_touched)
{
    static const char *const bad[] = {"",     "ab",   "abc",  "abcde", "abcdef",
                                      "abcg", "ab d", "0xab", "ab\n1"};
    uint8_t out[2] = {7, 7};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(vf_unhex(bad[i], out, 2), -EINVAL, "%s", bad[i]);
    cr_expect_eq(out[0], 7);
    cr_expect_eq(out[1], 7);
}

Test(base_hash, random_bytes_fill_all_and_differ)
{
    uint8_t a[1000] = {0}, b[1000] = {0};
    int zeros = 0;

    vf_random(a, sizeof(a));
    vf_random(b, sizeof(b));
    cr_expect_arr_neq(a, b, sizeof(a));
    for (size_t i = 990; i < 1000; i++)
        zeros += a[i] == 0;
    cr_expect_lt(zeros, 10, "the end was not filled");
    vf_random(a, 0);
}

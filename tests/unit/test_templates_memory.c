/* Template memory: sealed, stored sparse, loaded back byte for byte; and what is refused. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "templates/digest.h"
#include "templates_support.h"

#define SIZE ((uint64_t)16 << 20)

static struct scratch s;

static void setup(void)
{
    scratch_open(&s);
}

static void teardown(void)
{
    scratch_close(&s);
}

TestSuite(templates_memory, .init = setup, .fini = teardown);

Test(templates_memory, size_must_be_whole_pages)
{
    struct vf_error err = {0};
    int fd = -7;

    expect_error(vf_memory_create(0, "t", &fd, &err), err, VF_INVALID_ARGUMENT, "(is 0)");
    expect_error(vf_memory_create(4097, "t", &fd, &err), err, VF_INVALID_ARGUMENT, "(is 4097)");
    expect_error(vf_memory_create(UINT64_MAX, "t", &fd, &err), err, VF_INVALID_ARGUMENT,
                 "multiple of the page size");
    cr_expect_eq(fd, -7);
}

Test(templates_memory, seal_is_final)
{
    struct vf_error err = {0};
    int fd = make_memory(1);

    cr_expect_not(vf_memory_is_sealed(fd));
    expect_ok(vf_memory_seal(fd, &err), err);
    expect_ok(vf_memory_seal(fd, &err), err);
    cr_expect(vf_memory_is_sealed(fd));
    cr_expect_eq(pwrite(fd, "x", 1, 0), -1);
    cr_expect_eq(errno, EPERM);
    cr_expect_eq(ftruncate(fd, 4096), -1);
    cr_expect_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    cr_expect_neq(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
    close(fd);
}

Test(templates_memory, seal_waits_for_the_last_writer)
{
    struct vf_error err = {0};
    int fd = make_memory(1);
    void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    cr_assert_neq(map, MAP_FAILED);
    expect_error(vf_memory_seal(fd, &err), err, VF_CONFLICT, "still mapped for writing");
    cr_expect_not_null(strstr(err.hint, "must have ended"));
    cr_expect_not(vf_memory_is_sealed(fd));
    munmap(map, 4096);
    expect_ok(vf_memory_seal(fd, &err), err);
    close(fd);
}

Test(templates_memory, only_a_sealable_memfd_is_sealed)
{
    struct vf_error err = {0};
    int fd = openat(s.fd, "plain", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    expect_error(vf_memory_seal(fd, &err), err, VF_INVALID_ARGUMENT, "no memfd");
    cr_expect_not(vf_memory_is_sealed(fd));
    close(fd);
}

/* --- round trips */

/* What sha256sum would say. */
static void digest_of(int fd, char ret[VF_SHA256_HEX])
{
    struct vf_error err;

    expect_ok(vf_sha256_fd(fd, "memory", ret, &err), err);
}

static void expect_same(int a, int b)
{
    char *x = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, a, 0);
    char *y = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, b, 0);

    cr_expect_eq(memcmp(x, y, SIZE), 0);
    munmap(x, SIZE);
    munmap(y, SIZE);
}

static int64_t blocks_of(int fd)
{
    struct stat st;

    cr_assert_eq(fstat(fd, &st), 0);
    return (int64_t)st.st_blocks * 512;
}

/* Stores fd, loads it back, and returns what the stored file takes on disk. */
static int64_t round_trip(int fd)
{
    struct vf_progress progress = {0};
    char sha256[VF_SHA256_HEX] = "", want[VF_SHA256_HEX];
    struct vf_error err = {0};
    int loaded = -1, file, before;
    int64_t taken;

    digest_of(fd, want);
    before = count_fds();
    expect_ok(vf_memory_store(fd, s.fd, "memory", &progress, sha256, &err), err);
    cr_expect_str_eq(sha256, want);
    cr_expect_eq(atomic_load(&progress.done_bytes), SIZE);
    cr_expect_eq(atomic_load(&progress.total_bytes), SIZE);
    file = openat(s.fd, "memory", O_RDONLY | O_CLOEXEC);
    expect_same(fd, file);
    taken = blocks_of(file);
    close(file);

    expect_ok(vf_memory_load(s.fd, "memory", SIZE, sha256, &progress, &loaded, &err), err);
    cr_expect_eq(atomic_load(&progress.done_bytes), SIZE);
    cr_expect(vf_memory_is_sealed(loaded));
    cr_expect_leq(blocks_of(loaded), taken + 65536); /* before a look at its holes fills them */
    expect_same(fd, loaded);
    close(loaded);
    cr_expect_eq(count_fds(), before);
    cr_expect_eq(unlinkat(s.fd, "memory", 0), 0);
    return taken;
}

Test(templates_memory, sparse_round_trip)
{
    int fd = make_memory(3);

    cr_expect_leq(round_trip(fd), 1 << 20);
    close(fd);
}

Test(templates_memory, all_hole_round_trip)
{
    struct vf_error err;
    int fd = -1;

    expect_ok(vf_memory_create(SIZE, "t", &fd, &err), err);
    cr_expect_leq(round_trip(fd), 65536);
    close(fd);
}

Test(templates_memory, written_zeros_take_no_space)
{
    char *zeros = calloc(1, SIZE);
    struct vf_error err;
    int fd = -1;

    expect_ok(vf_memory_create(SIZE, "t", &fd, &err), err);
    zeros[5 * 4096 + 1] = 1; /* one page in the middle, and the last byte */
    zeros[SIZE - 1] = 1;
    cr_assert_eq(pwrite(fd, zeros, SIZE, 0), (ssize_t)SIZE);
    cr_expect_eq(blocks_of(fd), (int64_t)SIZE);
    cr_expect_leq(round_trip(fd), 65536);
    free(zeros);
    close(fd);
}

Test(templates_memory, dense_round_trip)
{
    char *data = malloc(SIZE);
    struct vf_error err;
    int fd = -1;

    for (uint64_t i = 0; i < SIZE; i++)
        data[i] = (char)(i * 2654435761u >> 24 | 1);
    expect_ok(vf_memory_create(SIZE, "t", &fd, &err), err);
    cr_assert_eq(pwrite(fd, data, SIZE, 0), (ssize_t)SIZE);
    cr_expect_geq(round_trip(fd), (int64_t)SIZE);
    free(data);
    close(fd);
}

Test(templates_memory, the_position_of_the_descriptor_stays)
{
    char sha256[VF_SHA256_HEX];
    struct vf_error err;
    int fd = make_memory(3);

    cr_assert_eq(lseek(fd, 4242, SEEK_SET), 4242);
    expect_ok(vf_memory_store(fd, s.fd, "memory", NULL, sha256, &err), err);
    cr_expect_eq(lseek(fd, 0, SEEK_CUR), 4242);
    close(fd);
}

/* --- what is refused */

static char stored_sha256[VF_SHA256_HEX];

static void store_one(void)
{
    struct vf_error err;
    int fd = make_memory(5);

    expect_ok(vf_memory_store(fd, s.fd, "memory", NULL, stored_sha256, &err), err);
    close(fd);
}

static void expect_load_refused(enum vf_code code, const char *says)
{
    struct vf_error err = {0};
    int fd = -7, before = count_fds();
    int r = vf_memory_load(s.fd, "memory", SIZE, stored_sha256, NULL, &fd, &err);

    expect_error(r, err, code, says);
    cr_expect_eq(fd, -7);
    cr_expect_eq(count_fds(), before);
}

static void poke(off_t at, char c)
{
    int fd = openat(s.fd, "memory", O_WRONLY | O_CLOEXEC);

    cr_assert_eq(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

Test(templates_memory, missing)
{
    expect_load_refused(VF_CORRUPT, "memory: is missing");
}

Test(templates_memory, short_and_long)
{
    store_one();
    cr_assert_eq(truncate(strcat(strcpy((char[300]){0}, s.path), "/memory"), SIZE - 1), 0);
    expect_load_refused(VF_CORRUPT, "memory: is 16777215 bytes long, must be 16777216");
    cr_assert_eq(truncate(strcat(strcpy((char[300]){0}, s.path), "/memory"), SIZE + 1), 0);
    expect_load_refused(VF_CORRUPT, "memory: is 16777217 bytes long, must be 16777216");
}

Test(templates_memory, altered_in_data_and_in_a_hole)
{
    store_one();
    poke(10, 'x');
    expect_load_refused(VF_CORRUPT, "memory: its SHA-256 is ");
    cr_assert_eq(unlinkat(s.fd, "memory", 0), 0);
    store_one();
    poke(700 * 1024, 'x');
    expect_load_refused(VF_CORRUPT, "memory: its SHA-256 is ");
}

Test(templates_memory, directory_and_symlink)
{
    cr_assert_eq(mkdirat(s.fd, "memory", 0700), 0);
    expect_load_refused(VF_CORRUPT, "memory: is not a regular file");
    cr_assert_eq(unlinkat(s.fd, "memory", AT_REMOVEDIR), 0);
    cr_assert_eq(symlinkat("/etc/passwd", s.fd, "memory"), 0);
    {
        struct vf_error err = {0};
        int fd = -1;

        cr_expect_lt(vf_memory_load(s.fd, "memory", SIZE, stored_sha256, NULL, &fd, &err), 0);
        cr_expect_not_null(strstr(err.msg, "memory: open"), "%s", err.msg);
    }
}

Test(templates_memory, store_replaces_nothing)
{
    char sha256[VF_SHA256_HEX] = "untouched";
    struct vf_error err = {0};
    int fd = make_memory(5);

    store_one();
    cr_expect_lt(vf_memory_store(fd, s.fd, "memory", NULL, sha256, &err), 0);
    cr_expect_not_null(strstr(err.msg, "memory: create"), "%s", err.msg);
    cr_expect_str_eq(sha256, "untouched");
    cr_expect_eq(faccessat(s.fd, "memory", F_OK, 0), 0);
    close(fd);
}

Test(templates_memory, file_size_limit)
{
    struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = RLIM_INFINITY};
    char sha256[VF_SHA256_HEX];
    struct vf_error err = {0};
    int fd = make_memory(5), other = -1;

    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_expect_lt(vf_memory_create(SIZE, "t", &other, &err), 0);
    cr_expect_not_null(strstr(err.hint, "ulimit -f"), "%s: %s", err.msg, err.hint);
    cr_expect_lt(vf_memory_store(fd, s.fd, "memory", NULL, sha256, &err), 0);
    cr_expect_not_null(strstr(err.msg, "memory: stretch it"), "%s", err.msg);
    cr_expect_neq(faccessat(s.fd, "memory", F_OK, 0), 0);
    close(fd);
}

/* --- threads */

struct job {
    pthread_t thread;
    char name[16];
    int fd;
    struct vf_progress progress;
    _Atomic int running;
};

static void *store_and_load(void *arg)
{
    struct job *j = arg;
    char sha256[VF_SHA256_HEX];
    int loaded = -1;
    int r = vf_memory_store(j->fd, s.fd, j->name, &j->progress, sha256, NULL);

    if (r == 0)
        r = vf_memory_load(s.fd, j->name, SIZE, sha256, &j->progress, &loaded, NULL);
    if (r == 0)
        close(loaded);
    atomic_store(&j->running, 0);
    return r == 0 ? NULL : j;
}

Test(templates_memory, threads_with_watched_progress)
{
    struct job jobs[3] = {0};

    for (int i = 0; i < 3; i++) {
        snprintf(jobs[i].name, sizeof(jobs[i].name), "memory%d", i);
        jobs[i].fd = make_memory((unsigned)i);
        jobs[i].running = 1;
        cr_assert_eq(pthread_create(&jobs[i].thread, NULL, store_and_load, &jobs[i]), 0);
    }
    while (atomic_load(&jobs[0].running)) {
        uint64_t done = atomic_load(&jobs[0].progress.done_bytes);

        cr_expect_leq(done, SIZE);
    }
    for (int i = 0; i < 3; i++) {
        void *failed;

        pthread_join(jobs[i].thread, &failed);
        cr_expect_null(failed);
        close(jobs[i].fd);
    }
}

/* --- digests that are remembered */

Test(templates_memory, digest_of_an_unchanged_file_is_remembered)
{
    struct timespec old = {.tv_sec = 1};
    struct vf_error err;
    struct vf_stamp stamp;
    char hex[VF_SHA256_HEX], again[VF_SHA256_HEX];
    int64_t size, deadline = 0;
    struct stat st;
    uint64_t reads;
    int fd;

    store_one();
    fd = openat(s.fd, "memory", O_RDONLY | O_CLOEXEC);
    /* A file is remembered once its last change is a tenth of a second old: read it until then. */
    do {
        reads = vf_digest_reads();
        expect_ok(vf_digest_fd(fd, "memory", &size, hex, &stamp, &err), err);
        deadline++;
    } while (vf_digest_reads() != reads && deadline < 10000);
    cr_expect_eq(vf_digest_reads(), reads, "never remembered");
    cr_expect_str_eq(hex, stored_sha256);
    cr_expect_eq(size, (int64_t)SIZE);

    poke(10, 'x');
    cr_assert_eq(fstat(fd, &st), 0);
    /* Even with its old times put back: nobody can put back ctime. */
    cr_assert_eq(futimens(fd, (struct timespec[2]){old,
                                                   {.tv_sec = stamp.mtime_ns / 1000000000,
                                                    .tv_nsec = stamp.mtime_ns % 1000000000}}),
                 0);
    expect_ok(vf_digest_fd(fd, "memory", &size, again, &stamp, &err), err);
    cr_expect_str_neq(again, hex);
    close(fd);
}

struct digesting {
    pthread_t thread;
    pthread_barrier_t *begin;
    char hex[VF_SHA256_HEX];
    bool failed;
};

static void *digest_one(void *arg)
{
    struct digesting *d = (struct digesting *)arg;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC); /* large, and old enough */
    struct vf_error err;
    int64_t size;

    pthread_barrier_wait(d->begin);
    d->failed = vf_digest_fd(fd, "this test", &size, d->hex, NULL, &err) != 0;
    close(fd);
    return NULL;
}

Test(templates_memory, who_wants_one_digest_at_once_has_it_read_once)
{
    struct digesting d[4];
    pthread_barrier_t begin;
    uint64_t reads = vf_digest_reads();

    pthread_barrier_init(&begin, NULL, 4);
    for (int i = 0; i < 4; i++) {
        d[i].begin = &begin;
        cr_assert_eq(pthread_create(&d[i].thread, NULL, digest_one, &d[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(d[i].thread, NULL);
        cr_expect_not(d[i].failed);
        cr_expect_str_eq(d[i].hex, d[0].hex);
    }
    pthread_barrier_destroy(&begin);
    cr_expect_eq(vf_digest_reads(), reads + 1);
}

/* What a VMM wrote to a file with a name, zeros and all, becomes a sealed memfd without them. */
Test(templates_memory, taken_memory_is_sealed_and_sparse)
{
    struct vf_error err = {0};
    char hex[2][VF_SHA256_HEX], *zeros = (char *)calloc(1, SIZE);
    struct stat st;
    int fd = -1, taken = -1;

    expect_ok(vf_memory_create_file(s.fd, "memory", SIZE, &fd, &err), err);
    cr_assert_eq(write(fd, zeros, SIZE), (ssize_t)SIZE);
    cr_assert_eq(pwrite(fd, "one", 3, 5000), 3);
    cr_assert_eq(pwrite(fd, "two", 3, SIZE - 3), 3);
    expect_ok(vf_memory_take(fd, "test", &taken, &err), err);
    cr_expect(vf_memory_is_sealed(taken));
    cr_expect_eq(pwrite(taken, "x", 1, 0), -1);
    expect_ok(vf_sha256_fd(fd, "file", hex[0], &err), err);
    expect_ok(vf_sha256_fd(taken, "taken", hex[1], &err), err);
    cr_expect_str_eq(hex[0], hex[1]);
    cr_assert_eq(fstat(taken, &st), 0);
    cr_expect_leq(st.st_blocks * 512, 2 * 4096);
    /* The original is no part of it. */
    cr_assert_eq(pwrite(fd, "new", 3, 5000), 3);
    expect_ok(vf_sha256_fd(taken, "taken", hex[0], &err), err);
    cr_expect_str_eq(hex[0], hex[1]);
    free(zeros);
    close(fd);
    close(taken);
}

Test(templates_memory, a_file_in_the_way_is_left_alone)
{
    struct vf_error err = {0};
    int fd = -7;

    expect_error(vf_memory_create_file(s.fd, "memory", 4097, &fd, &err), err, VF_INVALID_ARGUMENT,
                 "(is 4097)");
    cr_assert_eq(vf_write_file(s.fd, "memory", "mine", 4, 0600, &err), 0);
    cr_expect_lt(vf_memory_create_file(s.fd, "memory", SIZE, &fd, &err), 0);
    cr_expect(strstr(err.msg, "create 'memory'"), "%s", err.msg);
    cr_expect_eq(fd, -7);
}

/* A disk that is full at each write in turn, and one that can't be written at all. Both are a small
 * tmpfs in a mount namespace of the test's own. */
#include <errno.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "templates_support.h"

static struct fixture fx;

static void setup(void)
{
    fixture_open(&fx);
}

static void teardown(void)
{
    fixture_close(&fx);
}

TestSuite(templates_disk, .init = setup, .fini = teardown);

/* Mounts a tmpfs on the store's directory. */
static bool mount_small(const char *test, const char *options)
{
    if (!own_mounts(test))
        return false;
    cr_assert_eq(mkdir(fx.state, 0700), 0);
    cr_assert_eq(mount("none", fx.state, "tmpfs", 0, options), 0, "%s", strerror(errno));
    return true;
}

/* Fills the disk up to that many free bytes. */
static void fill_but(size_t left)
{
    char path[400], block[4096] = "x";
    struct statvfs st;
    FILE *f;

    snprintf(path, sizeof(path), "%s/filler", fx.state);
    f = fopen(path, "we");
    cr_assert_not_null(f);
    setvbuf(f, NULL, _IONBF, 0);
    while (statvfs(fx.state, &st) == 0 && st.f_bfree * st.f_bsize > left)
        cr_assert_eq(fwrite(block, 1, sizeof(block), f), sizeof(block));
    fclose(f);
}

static void unfill(void)
{
    char path[400];

    snprintf(path, sizeof(path), "%s/filler", fx.state);
    unlink(path);
}

static void expect_only(const char *entries)
{
    char path[400], list[600];

    snprintf(path, sizeof(path), "%s/templates/web", fx.state);
    list_dir(path, list, sizeof(list));
    cr_expect_str_eq(list, entries, "\"%s\"", list);
}

static void expect_first_is_whole(struct vf_store *store)
{
    struct vf_generation *gen = NULL;
    struct vf_error err = {0};

    expect_ok(vf_store_load(store, "web", 1, NULL, &gen, NULL, &err), err);
    vf_generation_unref(gen);
}

Test(templates_disk, full_at_each_write_of_a_build)
{
    /* What the writes of a build are about, in their order, by their messages. */
    static const char *const writes[] = {"memory: write", "state: write", "overlay.qcow2: write",
                                         "manifest.json: write"};
    bool seen[4] = {false};
    struct vf_store *store = NULL;
    struct vf_error err = {0};
    int failures = 0, before, r;

    if (!mount_small("full_at_each_write_of_a_build", "size=1m"))
        return;
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_ok(build_one(&fx, store, NULL, &err), err);
    before = count_fds();
    for (size_t left = 0;; left += 4096) {
        cr_assert_leq(left, 1 << 20);
        fill_but(left);
        r = build_one(&fx, store, NULL, &err);
        unfill();
        if (r == 0)
            break;
        expect_error(r, err, VF_NO_SPACE, "No space left on device");
        for (size_t i = 0; i < 4; i++)
            seen[i] = seen[i] || strstr(err.msg, writes[i]) != NULL;
        failures++;
        expect_only("1 ");
        cr_expect_eq(count_fds(), before);
        expect_first_is_whole(store);
    }
    for (size_t i = 0; i < 4; i++)
        cr_expect(seen[i], "the disk was never full at: %s", writes[i]);
    cr_expect_geq(failures, 11); /* eight pages of memory, and a page of each other file */
    expect_only("1 2 ");
    vf_store_close(store);
    cr_assert_eq(umount2(fx.state, MNT_DETACH), 0);
}

Test(templates_disk, out_of_inodes_at_each_file_of_a_build)
{
    char path[400];
    struct vf_store *store = NULL;
    struct vf_error err = {0};
    int failures = 0, left = 0, before, r;
    struct statvfs st;

    if (!mount_small("out_of_inodes_at_each_file_of_a_build", "size=4m,nr_inodes=64"))
        return;
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_ok(build_one(&fx, store, NULL, &err), err);
    before = count_fds();
    for (;; left++) {
        int used = 0;

        for (; statvfs(fx.state, &st) == 0 && st.f_ffree > (unsigned)left; used++) {
            snprintf(path, sizeof(path), "%s/filler%d", fx.state, used);
            cr_assert_eq(mknod(path, S_IFREG | 0600, 0), 0);
        }
        r = build_one(&fx, store, NULL, &err);
        while (used-- > 0) {
            snprintf(path, sizeof(path), "%s/filler%d", fx.state, used);
            unlink(path);
        }
        if (r == 0)
            break;
        expect_error(r, err, VF_NO_SPACE, "No space left on device");
        failures++;
        expect_only("1 ");
        cr_expect_eq(count_fds(), before);
    }
    cr_expect_geq(failures, 5); /* the directory and its four files */
    expect_only("1 2 ");
    vf_store_close(store);
    cr_assert_eq(umount2(fx.state, MNT_DETACH), 0);
}

Test(templates_disk, full_while_quarantining_and_removing)
{
    struct vf_store *store = NULL;
    struct vf_error err = {0};

    if (!mount_small("full_while_quarantining_and_removing", "size=1m"))
        return;
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_ok(build_one(&fx, store, NULL, &err), err);
    expect_ok(build_one(&fx, store, NULL, &err), err);
    fill_but(0);
    expect_error(vf_store_quarantine(store, "web", 2, "x", &err), err, VF_NO_SPACE,
                 "template web generation 2: quarantine: the mark: write");
    /* The highest number must be noted first, and can't be. */
    expect_error(vf_store_remove(store, "web", 2, &err), err, VF_NO_SPACE,
                 "template web generation 2: remove: last: write");
    expect_only("1 2 ");
    /* Another one needs no note: a full disk can be cleaned up. */
    expect_ok(vf_store_remove(store, "web", 1, &err), err);
    expect_ok(vf_store_remove(store, "web", 2, &err), err);
    expect_only("last ");
    vf_store_close(store);
    cr_assert_eq(umount2(fx.state, MNT_DETACH), 0);
}

Test(templates_disk, full_when_the_store_is_opened)
{
    struct vf_store *store = NULL;
    struct vf_error err = {0};
    int before = count_fds();

    if (!mount_small("full_when_the_store_is_opened", "size=64k"))
        return;
    fill_but(0);
    expect_error(vf_store_open(fx.state, &store, &err), err, VF_NO_SPACE, "lock: No space left");
    cr_expect_not_null(strstr(err.msg, fx.state), "%s", err.msg);
    cr_expect_eq(count_fds(), before);
    cr_assert_eq(umount2(fx.state, MNT_DETACH), 0);
}

Test(templates_disk, read_only)
{
    struct vf_store *store = NULL;
    struct vf_error err = {0};
    int before = count_fds();

    if (!mount_small("read_only", "size=1m"))
        return;
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_ok(build_one(&fx, store, NULL, &err), err);
    vf_store_close(store);
    cr_assert_eq(mount("none", fx.state, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    cr_expect_lt(vf_store_open(fx.state, &store, &err), 0);
    cr_expect_not_null(strstr(err.msg, fx.state), "%s", err.msg);
    cr_expect_not_null(strstr(err.msg, "Read-only file system"), "%s", err.msg);
    cr_expect_str_neq(err.hint, "");
    cr_expect_eq(count_fds(), before);
    cr_assert_eq(umount2(fx.state, MNT_DETACH), 0);
}

Test(templates_disk, not_permitted)
{
    struct vf_store *store = NULL;
    struct vf_error err = {0};
    bool root = geteuid() == 0;
    int before = count_fds();

    cr_assert_eq(mkdir(fx.state, 0500), 0);
    cr_assert_eq(chmod(fx.s.path, 0755), 0);
    if (root)
        cr_assert_eq(seteuid(65534), 0);
    expect_error(vf_store_open(fx.state, &store, &err), err, VF_PERMISSION, fx.state);
    if (root)
        cr_assert_eq(seteuid(0), 0);
    cr_expect_eq(count_fds(), before);
}

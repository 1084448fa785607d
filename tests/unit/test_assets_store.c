/* The store of assets: what is in it, hashed again, removed. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include "asset_support.h"

static struct ast t;

static void setup(void)
{
    ast_open(&t);
}

static void teardown(void)
{
    ast_close(&t);
}

TestSuite(assets_store, .init = setup, .fini = teardown, .timeout = 60);

/* Puts t.body into a file and that into the store. */
static void bring_in(const char *kind)
{
    char url[500];
    struct vf_asset a;
    struct ast_fetch f;

    ast_make_source(&t, url);
    ast_asset(&a, "thing", kind, url, t.sha256, 0, "");
    ast_begin(&t, &a, &f);
    vf_asset_free(&a);
    ast_await(&t, &f);
    cr_assert_eq(f.err.code, VF_OK, "%s", f.err.msg);
}

static mode_t mode_of(const char *name)
{
    char path[500];
    struct stat st;

    snprintf(path, sizeof(path), "%s/%s", t.dir, name);
    return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

Test(assets_store, directories_are_its_owners)
{
    cr_expect_eq(mode_of(""), 0700);
    cr_expect_eq(mode_of("sha256"), 0700);
    cr_expect_eq(mode_of("partial"), 0700);
}

Test(assets_store, can_not_be_opened)
{
    char path[400], link[500];
    struct vf_asset_store *s = NULL;
    struct vf_error err;

    snprintf(path, sizeof(path), "%s/file", t.scratch.path);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    cr_expect_lt(vf_asset_store_open(path, &s, &err), 0);
    cr_expect_eq(strncmp(err.msg, "assets: ", 8), 0, "%s", err.msg);
    snprintf(path, sizeof(path), "%s/other", t.scratch.path);
    snprintf(link, sizeof(link), "%s/sha256", path);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(symlink(t.dir, link), 0);
    cr_expect_lt(vf_asset_store_open(path, &s, &err), 0);
    cr_expect_not_null(strstr(err.msg, "sha256"), "%s", err.msg);
    cr_expect_null(s);
    vf_asset_store_close(NULL);
}

Test(assets_store, names_that_are_none)
{
    static const char *const names[] = {"", "abc", "../../etc/passwd",
                                        "ABCDEF6789abcdef0123456789abcdef0123456789abcdef0123456789"
                                        "abcdef"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct vf_error err;
        char *path;

        cr_expect_eq(vf_asset_store_path(t.store, names[i], &path, &err), -EINVAL);
        cr_expect_eq(vf_asset_store_verify(t.store, names[i], NULL, &err), -EINVAL);
    }
}

Test(assets_store, what_is_in_it)
{
    struct vf_asset_entry *e = NULL;
    char first[VF_SHA256_HEX], path[500];
    struct vf_error err;
    size_t n = 99;

    cr_assert_eq(vf_asset_store_list(t.store, &e, &n, &err), 0, "%s", err.msg);
    cr_expect_eq(n, 0);
    free(e);
    bring_in("vmm");
    memcpy(first, t.sha256, sizeof(first));
    ast_body(&t, 5000, 9);
    bring_in("image");
    ast_put_part(&t, first, "abc", 3);
    snprintf(path, sizeof(path), "%s/sha256/litter", t.dir);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    cr_assert_eq(vf_asset_store_list(t.store, &e, &n, &err), 0, "%s", err.msg);
    cr_assert_eq(n, 3);
    for (size_t i = 0; i < n; i++) {
        bool is_first = strcmp(e[i].sha256, first) == 0;

        cr_expect(i == 0 || strcmp(e[i - 1].sha256, e[i].sha256) <= 0);
        cr_expect_eq(e[i].size, e[i].partial ? 3 : is_first ? 300000 : 5000);
        cr_expect_eq(e[i].executable, is_first && !e[i].partial);
        cr_expect(!e[i].partial || is_first);
        cr_expect_gt(e[i].fetched, 1700000000);
    }
    free(e);
}

/* Turns a byte round, as a disk might. */
static void damage(const char *path, off_t at)
{
    char c;
    int fd;

    cr_assert_eq(chmod(path, 0600), 0);
    fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(pread(fd, &c, 1, at), 1);
    c = (char)~c;
    cr_assert_eq(pwrite(fd, &c, 1, at), 1);
    close(fd);
}

Test(assets_store, hashed_again)
{
    struct vf_progress progress = {0};
    struct vf_error err;
    char *path = NULL, aside[100];

    cr_expect_eq(vf_asset_store_verify(t.store, t.sha256, NULL, &err), -ENOENT);
    bring_in("image");
    cr_expect_eq(vf_asset_store_verify(t.store, t.sha256, &progress, &err), 0, "%s", err.msg);
    cr_expect_eq(atomic_load(&progress.done_bytes), t.len);
    cr_expect_eq(atomic_load(&progress.total_bytes), t.len);
    cr_assert_eq(vf_asset_store_path(t.store, t.sha256, &path, &err), 0);
    damage(path, 299999);
    cr_expect_eq(vf_asset_store_verify(t.store, t.sha256, NULL, &err), -EBADMSG);
    ast_expect_error(err, VF_CORRUPT, "its SHA-256 is ");
    ast_expect_absent(&t, true);
    snprintf(aside, sizeof(aside), "corrupt/%s", t.sha256);
    cr_expect_neq(mode_of(aside), 0);
    bring_in("image"); /* comes in anew */
    ast_expect_there(&t, 0444);
    cr_expect_eq(vf_asset_store_verify(t.store, t.sha256, NULL, &err), 0, "%s", err.msg);
    free(path);
}

/* ---- removal */

struct removal {
    const char *kept;
    int removed, parts;
};

static bool keep(void *arg, const char *sha256)
{
    struct removal *r = arg;

    return r->kept != NULL && strcmp(sha256, r->kept) == 0;
}

static void on_removed(void *arg, const struct vf_asset_entry *e)
{
    struct removal *r = arg;

    r->removed++;
    r->parts += e->partial;
}

Test(assets_store, gc_spares_what_is_kept)
{
    char first[VF_SHA256_HEX], *path = NULL;
    struct removal r = {.kept = first};
    struct vf_error err;

    bring_in("vmm");
    memcpy(first, t.sha256, sizeof(first));
    ast_body(&t, 5000, 9);
    bring_in("image");
    ast_put_part(&t, first, "abc", 3);
    cr_expect_eq(vf_asset_store_gc(t.store, keep, on_removed, &r, true, &err), 0, "%s", err.msg);
    cr_expect_eq(r.removed, 2);
    cr_expect_eq(r.parts, 1);
    ast_put_part(&t, t.sha256, "abc", 3); /* all is there still */
    r.removed = r.parts = 0;
    cr_expect_eq(vf_asset_store_gc(t.store, keep, on_removed, &r, false, &err), 0, "%s", err.msg);
    cr_expect_eq(r.removed, 3);
    cr_expect_eq(r.parts, 2);
    ast_expect_absent(&t, true);
    cr_expect_eq(vf_asset_store_path(t.store, first, &path, &err), 0);
    damage(path, 1);
    free(path);
    cr_expect_eq(vf_asset_store_verify(t.store, first, NULL, &err), -EBADMSG);
    r.removed = 0; /* what was moved aside is of no use to anyone */
    cr_expect_eq(vf_asset_store_gc(t.store, keep, on_removed, &r, false, &err), 0, "%s", err.msg);
    cr_expect_eq(r.removed, 1);
    r.removed = 0;
    cr_expect_eq(vf_asset_store_gc(t.store, keep, on_removed, &r, false, &err), 0, "%s", err.msg);
    cr_expect_eq(r.removed, 0);
}

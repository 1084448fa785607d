/* Bodies that are cut, stall, are too long or not what was pinned; and parts that are taken up. */
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include "tests/e2e/asset_tls.h"
#include "tests/e2e/support.h"

static struct asx x;

static void setup(void)
{
    asx_open(&x);
}

static void teardown(void)
{
    asx_close(&x);
}

TestSuite(asset_transfer, .init = setup, .fini = teardown, .timeout = 120);

static void expect_failure(const char *url, int64_t size, enum vf_code code, const char *text)
{
    struct vf_error err = {0};
    cr_expect_neq(asx_fetch_with(&x, url, size, "", &err), VF_OK);
    ast_expect_error(err, code, text);
    ast_expect_absent(&x.t, false);
}

static void expect_good(const char *url, int64_t size)
{
    struct vf_error err = {0};
    cr_expect_eq(asx_fetch_with(&x, url, size, "", &err), VF_OK, "%s", err.msg);
    ast_expect_there(&x.t, 0444);
}

/* ---- cut */

Test(asset_transfer, cut_then_resumed)
{
    struct asv_route more = {.cut = 100000, .cut_first = 1};
    char url[200];
    struct asv_route *r = asx_serve(&x, "/a", &more, url);
    expect_good(url, (int64_t)x.t.len);
    cr_expect_eq(asv_hits(&x.web, r), 2);
    cr_expect_str_eq(r->got_range, "bytes=100000-");
}

/* Nobody says how long it is, but for the asset. */
Test(asset_transfer, cut_without_a_length)
{
    struct asv_route more = {.cut = 100000, .no_length = true};
    char url[200];
    struct asv_route *r = asx_serve(&x, "/a", &more, url);
    x.t.store->limits.attempts = 1;
    expect_failure(url, (int64_t)x.t.len, VF_PROTOCOL, "ended after 100000 of its 300000 bytes");
    cr_expect_eq(ast_part(&x.t, x.t.sha256), 100000);
    r->cut_first = 1;
    expect_good(url, (int64_t)x.t.len); /* another fetch takes the part up */
    cr_expect_str_eq(r->got_range, "bytes=100000-");
}

Test(asset_transfer, cut_each_time)
{
    struct asv_route more = {.cut = 100000, .no_ranges = true};
    char url[200];
    struct asv_route *r = asx_serve(&x, "/a", &more, url);
    expect_failure(url, (int64_t)x.t.len, VF_PROTOCOL, "3 attempts, the last: ");
    cr_expect_eq(asv_hits(&x.web, r), 3);
    cr_expect_eq(ast_part(&x.t, x.t.sha256), 100000);
    r->cut = 0;
    expect_good(url, 0); /* all of it comes again, from the beginning */
    cr_expect_eq(asv_hits(&x.web, r), 4);
}

Test(asset_transfer, stall)
{
    struct asv_route more = {.cut = 100000, .stall = true};
    char url[200];
    struct asv_route *r = asx_serve(&x, "/a", &more, url);
    x.t.store->limits.attempts = 1;
    expect_failure(url, (int64_t)x.t.len, VF_TIMEOUT, "too slow");
    cr_expect_eq(ast_part(&x.t, x.t.sha256), 100000);
    r->stall = false;
    r->cut = 0;
    expect_good(url, (int64_t)x.t.len);
}

Test(asset_transfer, no_answer)
{
    struct asv_route more = {.hold = true};
    char url[200];
    asx_serve(&x, "/a", &more, url);
    x.t.store->limits.attempts = 1;
    expect_failure(url, (int64_t)x.t.len, VF_TIMEOUT, "too slow");
    ast_expect_absent(&x.t, true);
}

/* ---- wrong */

Test(asset_transfer, wrong_length)
{
    char url[200];
    struct asv_route more = {.longer = 5};
    struct asv_route *r = asx_serve(&x, "/longer", &more, url);
    expect_failure(url, (int64_t)x.t.len, VF_CORRUPT, "has 300005 bytes there, not 300000");
    ast_expect_absent(&x.t, true);
    cr_expect_eq(asv_hits(&x.web, r), 1);
    more.longer = -5;
    asx_serve(&x, "/shorter", &more, url);
    expect_failure(url, (int64_t)x.t.len, VF_CORRUPT, "has 299995 bytes there, not 300000");
    ast_expect_absent(&x.t, true);
    asx_serve(&x, "/a", NULL, url);
    expect_failure(url, (int64_t)x.t.len + 1, VF_CORRUPT, "has 300000 bytes there, not 300001");
    ast_expect_absent(&x.t, true);
}

/* It never ends: more than was said is not taken. */
Test(asset_transfer, too_much)
{
    char url[200];
    struct asv_route more = {.endless = true, .no_length = true};
    struct asv_route *r = asx_serve(&x, "/a", &more, url);
    expect_failure(url, (int64_t)x.t.len, VF_CORRUPT, "is longer than its size, 300000 bytes");
    ast_expect_absent(&x.t, true);
    cr_expect_eq(asv_hits(&x.web, r), 1);
}

Test(asset_transfer, wrong_digest)
{
    char url[200], other[200000];
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    memset(other, 'x', sizeof(other));
    r->body = other;
    r->len = sizeof(other);
    expect_failure(url, 0, VF_CORRUPT, "has the SHA-256 ");
    ast_expect_absent(&x.t, true);
    cr_expect_eq(asv_hits(&x.web, r), 1);
    r->len = 0;
    expect_failure(url, 0, VF_CORRUPT, "has the SHA-256 ");
    ast_expect_absent(&x.t, true);
}

/* ---- parts */

Test(asset_transfer, a_part_is_taken_up)
{
    char url[200];
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    ast_put_part(&x.t, x.t.sha256, x.t.body, 299999);
    expect_good(url, 0);
    cr_expect_str_eq(r->got_range, "bytes=299999-");
}

Test(asset_transfer, a_whole_part_needs_no_server)
{
    char url[200];
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    ast_put_part(&x.t, x.t.sha256, x.t.body, x.t.len);
    expect_good(url, 0);
    cr_expect_eq(asv_hits(&x.web, r), 0);
}

/* It is not of this file, or a disk turned it: seen in the end, and all of it comes anew. */
Test(asset_transfer, parts_of_something_else)
{
    static const size_t lens[] = {1, 299999, 300000, 300001, 400000};
    static char other[400000];
    char url[200];
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
        for (int sized = 0; sized < 2; sized++) {
            char path[500];
            ast_put_part(&x.t, x.t.sha256, other, lens[i]);
            expect_good(url, sized ? (int64_t)x.t.len : 0);
            cr_expect_str_eq(r->got_range, "", "%zu", lens[i]);
            snprintf(path, sizeof(path), "%s/sha256/%s", x.t.dir, x.t.sha256);
            cr_assert_eq(unlink(path), 0);
        }
    }
}

Test(asset_transfer, another_range_than_asked)
{
    char url[200];
    struct asv_route more = {.other_range = true};
    asx_serve(&x, "/a", &more, url);
    ast_put_part(&x.t, x.t.sha256, x.t.body, 1000);
    expect_failure(url, 0, VF_PROTOCOL, "answered with another range than was asked for");
}

/* ---- no room */

static const char *can_mount(void)
{
    static char reason[128];
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        snprintf(reason, sizeof(reason), "a mount namespace: %s", strerror(errno));
    return reason;
}

static void disk_full(const char *test, bool sized)
{
    char url[200], file[600];
    struct vf_error err;
    struct stat st;
    if (can_mount()[0])
        sup_skip("asset_transfer", test, "%s", can_mount());
    ast_close_store(&x.t);
    cr_assert_eq(mount("vf-e2e", x.t.dir, "tmpfs", 0, "size=128k"), 0, "%s", strerror(errno));
    ast_reopen(&x.t);
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    cr_expect_neq(asx_fetch_with(&x, url, sized ? (int64_t)x.t.len : 0, "", &err), VF_OK);
    ast_expect_error(err, VF_NO_SPACE, "No space left on device");
    cr_expect_not_null(strstr(err.hint, "asset gc"), "%s", err.hint);
    ast_expect_absent(&x.t, true);
    cr_expect_eq(asv_hits(&x.web, r), 1);
    snprintf(file, sizeof(file), "file://%s/../source", x.t.dir);
    cr_assert_eq(mount("vf-e2e", x.t.dir, "tmpfs", MS_REMOUNT, "size=1m"), 0);
    cr_expect_eq(asx_fetch(&x, url, &err), VF_OK, "%s", err.msg); /* there is room again */
    ast_expect_there(&x.t, 0444);
    snprintf(file, sizeof(file), "%s/sha256/%s", x.t.dir, x.t.sha256);
    cr_assert_eq(stat(file, &st), 0);
    cr_expect_leq(st.st_blocks * 512, 303104); /* what was set aside is what it took */
    ast_close_store(&x.t);
    cr_assert_eq(umount2(x.t.dir, MNT_DETACH), 0);
}

Test(asset_transfer, disk_full)
{
    disk_full("disk_full", true);
}

Test(asset_transfer, disk_full_half_way)
{
    disk_full("disk_full_half_way", false);
}

/* Fetching assets by threads: from a plain HTTP server on loopback and from files, shared, queued, cancelled. Here, so
 * that ThreadSanitizer sees it; what servers do wrong is in tests/e2e. */
#include <errno.h>
#include <sys/file.h>
#include <sys/stat.h>
#include "asset_server.h"
#include "asset_support.h"

static struct ast t;
static struct asv web;

static void setup(void)
{
    ast_open(&t);
    asv_open(&web, NULL, NULL);
}

static void teardown(void)
{
    asv_close(&web);
    ast_close(&t);
}

TestSuite(assets_fetch, .init = setup, .fini = teardown, .timeout = 120);

/* A route with the body at path, and its URL. */
static struct asv_route *serve(const char *path, bool hold, char url[200])
{
    struct asv_route r = {.body = t.body, .len = t.len, .hold = hold};

    snprintf(r.path, sizeof(r.path), "%s", path);
    asv_url(&web, "127.0.0.1", path, url);
    return asv_add(&web, &r);
}

static void begin(struct ast_fetch *f, const char *name, const char *kind, const char *url)
{
    struct vf_asset a;

    ast_asset(&a, name, kind, url, t.sha256, (int64_t)t.len, "");
    ast_begin(&t, &a, f);
    vf_asset_free(&a); /* it was copied */
}

static void expect_code(struct ast_fetch *f, enum vf_code want)
{
    ast_await(&t, f);
    cr_expect_eq(f->err.code, want, "%s: %s", vf_code_name(f->err.code), f->err.msg);
}

/* Until it waits for a download: from then on the size is known. */
static void await_joined(struct ast_fetch *f)
{
    ast_until(&t, f->done || atomic_load(&vf_fetch_progress(f->fetch)->total_bytes) > 0, "joining");
    cr_assert(!f->done, "%s", f->err.msg);
}

/* Runs the loop until the route was asked so often. */
static void await_hits(struct asv_route *r, int n)
{
    ast_until(&t, asv_hits(&web, r) >= n, r->path);
}

Test(assets_fetch, from_a_server)
{
    char url[200];
    struct asv_route *r = serve("/a", false, url);

    cr_expect_eq(ast_fetch_url(&t, url, (int64_t)t.len, "", NULL), VF_OK);
    ast_expect_there(&t, 0444);
    cr_expect_eq(ast_fetch_url(&t, url, (int64_t)t.len, "", NULL), VF_OK); /* is there */
    cr_expect_eq(asv_hits(&web, r), 1);
    cr_expect_eq(strncmp(r->got_agent, "vmfactory/", 10), 0, "%s", r->got_agent);
    cr_expect_str_eq(r->got_authorization, "");
}

Test(assets_fetch, a_vmm_is_executable)
{
    char url[200];
    struct asv_route *r = serve("/a", false, url);
    struct ast_fetch f;

    begin(&f, "vmm", "vmm", url);
    expect_code(&f, VF_OK);
    ast_expect_there(&t, 0555);
    ast_body(&t, 1000, 7);
    r = serve("/b", false, url);
    cr_expect_eq(ast_fetch_url(&t, url, 0, "", NULL), VF_OK);
    ast_expect_there(&t, 0444);
    begin(&f, "vmm", "vmm", url); /* was an image until now */
    expect_code(&f, VF_OK);
    ast_expect_there(&t, 0555);
    cr_expect_eq(asv_hits(&web, r), 1);
}

Test(assets_fetch, callers_share_a_download)
{
    char url[200];
    struct asv_route *r = serve("/a", true, url);
    struct ast_fetch f[5];

    for (int i = 0; i < 5; i++) {
        begin(&f[i], i == 3 ? "other" : "thing", "image", url);
        await_joined(&f[i]);
    }
    await_hits(r, 1);
    cr_expect_eq(ast_downloads(&t), 1);
    asv_release(&web);
    for (int i = 0; i < 5; i++)
        expect_code(&f[i], VF_OK);
    cr_expect_eq(asv_hits(&web, r), 1);
    ast_expect_there(&t, 0444);
}

Test(assets_fetch, all_who_wait_are_told_of_a_failure)
{
    char url[200];
    struct asv_route *r = serve("/a", true, url);
    struct ast_fetch f[3];

    r->status = 404;
    for (int i = 0; i < 3; i++) {
        begin(&f[i], i == 1 ? "other" : "thing", "image", url);
        await_joined(&f[i]);
    }
    await_hits(r, 1);
    asv_release(&web);
    for (int i = 0; i < 3; i++) {
        expect_code(&f[i], VF_NOT_FOUND);
        cr_expect_not_null(strstr(f[i].err.msg, i == 1 ? "asset other: " : "asset thing: "));
    }
    cr_expect_eq(asv_hits(&web, r), 1);
    ast_expect_absent(&t, true);
}

/* The same digest from two places: neither's failure is the other's, and it comes in once. */
Test(assets_fetch, sources_are_told_apart)
{
    char bad[200], good[200], other[200];
    struct asv_route *b = serve("/bad", true, bad), *g = serve("/good", true, good);
    struct asv_route *o = serve("/other", false, other);
    struct ast_fetch f[3];

    b->status = 404;
    begin(&f[0], "bad", "image", bad);
    await_hits(b, 1);
    begin(&f[1], "good", "image", good);
    begin(&f[2], "other", "image", other);
    asv_release(&web);
    expect_code(&f[0], VF_NOT_FOUND);
    expect_code(&f[1], VF_OK);
    expect_code(&f[2], VF_OK);
    cr_expect_eq(asv_hits(&web, g) + asv_hits(&web, o), 1);
    ast_expect_there(&t, 0444);
}

/* Begins n fetches of different digests that the server holds, and waits until they have their places. */
static void begin_several(struct ast_fetch *f, int n)
{
    char url[200], path[16], digest[VF_SHA256_HEX];
    struct vf_asset a;

    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof(path), "/%d", i);
        serve(path, true, url)->len -= (size_t)i;
        ast_digest(t.body, t.len - (size_t)i, digest);
        ast_asset(&a, "thing", "image", url, digest, 0, "");
        ast_begin(&t, &a, &f[i]);
        vf_asset_free(&a);
        ast_until(&t, ast_downloads(&t) > i,
                  "its place in the queue"); /* so that they come in order */
    }
    ast_until(&t, asv_now(&web) == (n < VF_FETCH_MAX ? n : VF_FETCH_MAX), "requests");
}

Test(assets_fetch, four_at_once_others_wait)
{
    struct ast_fetch f[9];

    begin_several(f, 9);
    cr_expect_eq(asv_hits(&web, &web.routes[4]), 0);
    asv_release(&web);
    for (int i = 0; i < 9; i++)
        expect_code(&f[i], VF_OK);
    cr_expect_eq(asv_peak(&web), VF_FETCH_MAX);
}

Test(assets_fetch, cancel_one_of_two)
{
    char url[200];
    struct asv_route *r = serve("/a", true, url);
    struct ast_fetch f[2];

    begin(&f[0], "one", "image", url);
    begin(&f[1], "two", "image", url);
    await_joined(&f[0]);
    await_joined(&f[1]);
    await_hits(r, 1);
    vf_fetch_cancel(f[0].fetch);
    vf_fetch_cancel(f[0].fetch); /* once more does nothing */
    cr_expect(!f[0].done);       /* but later */
    expect_code(&f[0], VF_CANCELLED);
    cr_expect_not_null(strstr(f[0].err.msg, "asset one: "), "%s", f[0].err.msg);
    cr_expect(!f[1].done);
    asv_release(&web);
    expect_code(&f[1], VF_OK);
    cr_expect_eq(asv_hits(&web, r), 1);
    ast_expect_there(&t, 0444);
}

/* The server would never answer: so what ends it all is the cancellation, and closing the store waits for that. */
Test(assets_fetch, cancel_all)
{
    char url[200];
    struct asv_route *r = serve("/a", true, url);
    struct ast_fetch f[3];

    t.store->limits.stall_timeout_s = 600;
    for (int i = 0; i < 3; i++) {
        begin(&f[i], "thing", "image", url);
        await_joined(&f[i]);
    }
    await_hits(r, 1);
    for (int i = 0; i < 3; i++)
        vf_fetch_cancel(f[i].fetch);
    for (int i = 0; i < 3; i++)
        expect_code(&f[i], VF_CANCELLED);
    ast_close_store(&t);
    ast_reopen(&t);
    ast_expect_absent(&t, true);
}

Test(assets_fetch, cancel_at_once)
{
    char url[200];
    struct ast_fetch f;

    serve("/a", true, url);
    begin(&f, "thing", "image", url);
    vf_fetch_cancel(f.fetch); /* it has not even looked in the store */
    expect_code(&f, VF_CANCELLED);
    ast_expect_absent(&t, true);
}

Test(assets_fetch, cancel_one_that_waits_its_turn)
{
    struct ast_fetch f[5];

    begin_several(f, 5);
    vf_fetch_cancel(f[4].fetch);
    expect_code(&f[4], VF_CANCELLED);
    asv_release(&web);
    for (int i = 0; i < 4; i++)
        expect_code(&f[i], VF_OK);
    cr_expect_eq(asv_hits(&web, &web.routes[4]), 0);
}

/* What was left by all is fetched anew, however its worker is still busy letting go of it. */
Test(assets_fetch, again_after_a_cancellation)
{
    char url[200];
    struct asv_route *r = serve("/a", true, url);
    struct ast_fetch f[2];

    begin(&f[0], "thing", "image", url);
    await_hits(r, 1);
    vf_fetch_cancel(f[0].fetch);
    begin(&f[1], "thing", "image", url);
    expect_code(&f[0], VF_CANCELLED);
    await_hits(r, 2);
    asv_release(&web);
    expect_code(&f[1], VF_OK);
    ast_expect_there(&t, 0444);
}

Test(assets_fetch, cancelled_half_way_it_is_resumed)
{
    char url[200], range[32];
    struct asv_route *r = serve("/a", false, url);
    struct ast_fetch f;
    int64_t part;

    r->stall = true;
    r->cut = 100000;
    r->cut_first = 1;
    t.store->limits.stall_timeout_s = 60;
    begin(&f, "thing", "image", url);
    ast_await_bytes(&t, &f, 100000);
    cr_expect_eq(atomic_load(&vf_fetch_progress(f.fetch)->total_bytes), t.len);
    vf_fetch_cancel(f.fetch);
    expect_code(&f, VF_CANCELLED);
    ast_close_store(&t); /* so that its worker has ended */
    part = ast_part(&t, t.sha256);
    cr_expect_eq(part, 100000);
    ast_reopen(&t);
    begin(&f, "thing", "image", url);
    expect_code(&f, VF_OK);
    snprintf(range, sizeof(range), "bytes=%d-", (int)part);
    cr_expect_str_eq(r->got_range, range);
    ast_expect_there(&t, 0444);
}

/* ---- as two processes would */

Test(assets_fetch, two_stores_on_one_path)
{
    char url[200];
    struct asv_route *r = serve("/a", true, url);
    struct ast_fetch f[2];
    struct vf_asset_store *mine = t.store, *other;
    struct vf_error err;

    begin(&f[0], "thing", "image", url);
    await_hits(r, 1);
    cr_assert_eq(vf_asset_store_open(t.dir, &other, &err), 0, "%s", err.msg);
    t.store = other;
    begin(&f[1], "thing", "image", url);
    t.store = mine;
    asv_release(&web);
    expect_code(&f[0], VF_OK);
    expect_code(&f[1], VF_OK);
    cr_expect_eq(asv_hits(&web, r), 1);
    ast_expect_there(&t, 0444);
    vf_asset_store_close(other);
}

Test(assets_fetch, cancelled_while_another_process_fetches)
{
    char url[200], path[500];
    struct ast_fetch f;
    int fd;

    serve("/a", false, url);
    ast_put_part(&t, t.sha256, t.body, 1234);
    snprintf(path, sizeof(path), "%s/partial/%s", t.dir, t.sha256);
    fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
    begin(&f, "thing", "image", url);
    ast_await_bytes(&t, &f, 1234); /* sees how far the other is */
    vf_fetch_cancel(f.fetch);
    expect_code(&f, VF_CANCELLED);
    begin(&f, "thing", "image", url);
    ast_await_bytes(&t, &f, 1234);
    close(fd); /* the other has died: goes on from there */
    expect_code(&f, VF_OK);
    ast_expect_there(&t, 0444);
}

/* ---- two loops on one store */

struct looper {
    uv_loop_t loop;
    uv_thread_t thread;
    const struct vf_asset *asset;
    int left, failed;
};

static void on_looped(void *arg, const struct vf_error *err)
{
    struct looper *l = arg;

    l->left--;
    if (err != NULL)
        l->failed++;
}

static void run_looper(void *arg)
{
    struct looper *l = arg;

    for (l->left = 0; l->left < 3; l->left++) {
        if (vf_asset_fetch(t.store, &l->loop, l->asset, on_looped, l, NULL, NULL) != 0)
            l->failed++;
    }
    uv_run(&l->loop, UV_RUN_DEFAULT);
}

Test(assets_fetch, loops_share_a_download)
{
    char url[200];
    struct asv_route *r = serve("/a", true, url);
    struct looper l[2];
    struct vf_asset a;

    ast_asset(&a, "thing", "image", url, t.sha256, 0, "");
    for (int i = 0; i < 2; i++) {
        l[i] = (struct looper){.asset = &a};
        cr_assert_eq(uv_loop_init(&l[i].loop), 0);
        cr_assert_eq(uv_thread_create(&l[i].thread, run_looper, &l[i]), 0);
    }
    await_hits(r, 1);
    asv_release(&web);
    for (int i = 0; i < 2; i++) {
        uv_thread_join(&l[i].thread);
        cr_expect_eq(l[i].left, 0);
        cr_expect_eq(l[i].failed, 0);
        cr_expect_eq(uv_loop_close(&l[i].loop), 0);
    }
    cr_expect_eq(asv_hits(&web, r), 1);
    ast_expect_there(&t, 0444);
    vf_asset_free(&a);
}

/* ---- gc beside a fetch */

static bool keep_none(void *arg, const char *sha256)
{
    (void)arg;
    (void)sha256;
    return false;
}

Test(assets_fetch, gc_spares_what_comes_in)
{
    char url[200], other[VF_SHA256_HEX];
    struct asv_route *r = serve("/a", false, url);
    struct vf_error err;
    struct ast_fetch f;

    memset(other, 'a', sizeof(other) - 1);
    other[sizeof(other) - 1] = '\0';
    ast_put_part(&t, other, "left", 4);
    r->stall = true;
    r->cut = 1000;
    r->cut_first = 1;
    begin(&f, "thing", "image", url);
    ast_await_bytes(&t, &f, 1000);
    cr_expect_eq(vf_asset_store_gc(t.store, keep_none, NULL, NULL, false, &err), 0, "%s", err.msg);
    cr_expect_eq(ast_part(&t, other), -1);
    cr_expect_eq(ast_part(&t, t.sha256), 1000);
    expect_code(&f, VF_OK); /* after the stall was noticed */
    ast_expect_there(&t, 0444);
}

/* ---- files */

static void file_url(const char *name, const void *data, size_t len, char ret[600])
{
    char path[400];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", t.scratch.path, name);
    snprintf(ret, 600, "file://%s", path);
    f = fopen(path, "we");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(data, 1, len, f), len);
    fclose(f);
}

Test(assets_fetch, from_a_file)
{
    char url[600], *space;

    file_url("with space", t.body, t.len, url);
    space = strchr(url, ' ');
    memmove(space + 3, space + 1, strlen(space));
    memcpy(space, "%20", 3);
    ast_put_part(&t, t.sha256, "something else", 14); /* not used */
    cr_expect_eq(ast_fetch_url(&t, url, (int64_t)t.len, "", NULL), VF_OK);
    ast_expect_there(&t, 0444);
}

Test(assets_fetch, from_files_that_are_wrong)
{
    char url[600], path[400];
    struct vf_error err;

    file_url("short", t.body, t.len - 1, url);
    cr_expect_neq(ast_fetch_url(&t, url, (int64_t)t.len, "", &err), VF_OK);
    ast_expect_error(err, VF_CORRUPT, "has 299999 bytes there, not 300000");
    cr_expect_neq(ast_fetch_url(&t, url, 0, "", &err), VF_OK);
    ast_expect_error(err, VF_CORRUPT, "has the SHA-256 ");
    ast_expect_absent(&t, true);
    snprintf(url, sizeof(url), "file://%s", t.scratch.path);
    cr_expect_neq(ast_fetch_url(&t, url, 0, "", &err), VF_OK);
    ast_expect_error(err, VF_INVALID_ARGUMENT, "is a directory");
    snprintf(path, sizeof(path), "%s/pipe", t.scratch.path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    snprintf(url, sizeof(url), "file://%s", path);
    cr_expect_neq(ast_fetch_url(&t, url, 0, "", &err), VF_OK);
    ast_expect_error(err, VF_INVALID_ARGUMENT, "is a pipe");
    snprintf(url, sizeof(url), "file://%s/missing", t.scratch.path);
    cr_expect_neq(ast_fetch_url(&t, url, 0, "", &err), VF_OK);
    ast_expect_error(err, VF_NOT_FOUND, "does not exist");
    cr_expect_eq(strncmp(err.msg, "asset thing: file:///", 21), 0, "%s", err.msg);
    ast_expect_absent(&t, true);
}

Test(assets_fetch, refused_before_it_begins)
{
    const char *const other = strcmp(vf_host_arch(), "aarch64") == 0 ? "x86_64" : "aarch64";
    struct vf_asset a = {0};
    struct vf_error err;
    char text[500];

    snprintf(text, sizeof(text),
             "{\"name\":\"thing\",\"kind\":\"image\",\"files\":{\"%s\":{\"url\":\"https://h/x\","
             "\"sha256\":\"%s\"}}}",
             other, t.sha256);
    cr_assert_eq(vf_asset_parse(text, strlen(text), NULL, &a, &err), 0, "%s", err.msg);
    cr_expect_eq(vf_asset_fetch(t.store, &t.loop, &a, on_looped, NULL, NULL, &err), -EOPNOTSUPP);
    ast_expect_error(err, VF_UNSUPPORTED, "has no file for this host");
    vf_asset_free(&a);
    ast_asset(&a, "thing", "image", "https://h/x", t.sha256, 0, "");
    a.name[0] = '!'; /* one that was made by hand is checked too */
    cr_expect_eq(vf_asset_fetch(t.store, &t.loop, &a, on_looped, NULL, NULL, &err), -EINVAL);
    vf_asset_free(&a);
}

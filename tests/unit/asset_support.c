/* What the tests of assets share. See asset_support.h. */
#include "asset_support.h"

#include <errno.h>
#include <sys/stat.h>
#include "base/hash.h"

void ast_reopen(struct ast *t)
{
    struct vf_error err;

    cr_assert_eq(vf_asset_store_open(t->dir, &t->store, &err), 0, "%s", err.msg);
    t->store->limits = (struct vf_fetch_limits){.connect_timeout_ms = 20000,
                                                .stall_timeout_s = 1,
                                                .stall_bytes_per_s = 1,
                                                .attempts = 3,
                                                .backoff_ms = 1,
                                                .backoff_most_ms = 2};
}

void ast_open(struct ast *t)
{
    memset(t, 0, sizeof(*t));
    scratch_open(&t->scratch);
    snprintf(t->dir, sizeof(t->dir), "%s/assets", t->scratch.path);
    cr_assert_eq(uv_loop_init(&t->loop), 0);
    ast_reopen(t);
    ast_body(t, 300000, 1);
}

void ast_close_store(struct ast *t)
{
    vf_asset_store_close(t->store);
    t->store = NULL;
}

void ast_close(struct ast *t)
{
    cr_expect_eq(uv_loop_close(&t->loop), 0, "a handle is live");
    ast_close_store(t);
    for (int i = 0; i < t->n_bodies; i++)
        free(t->bodies[i]);
    scratch_close(&t->scratch);
}

void ast_digest(const void *data, size_t len, char ret[VF_SHA256_HEX])
{
    uint8_t digest[VF_SHA256_LEN];

    vf_sha256(data, len, digest);
    vf_hex(digest, sizeof(digest), ret);
}

void ast_body(struct ast *t, size_t len, unsigned seed)
{
    t->body = malloc(len);
    cr_assert_not_null(t->body);
    cr_assert_lt(t->n_bodies, (int)(sizeof(t->bodies) / sizeof(*t->bodies)));
    t->bodies[t->n_bodies++] = t->body;
    t->len = len;
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1103515245 + 12345;
        t->body[i] = (char)(seed >> 16);
    }
    ast_digest(t->body, len, t->sha256);
}

void ast_make_source(struct ast *t, char url[500])
{
    char path[400];
    FILE *file;

    snprintf(path, sizeof(path), "%s/source", t->scratch.path);
    snprintf(url, 500, "file://%s", path);
    file = fopen(path, "we");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(t->body, 1, t->len, file), t->len);
    fclose(file);
    cr_assert_eq(chmod(path, 0644), 0);
}

void ast_asset(struct vf_asset *ret, const char *name, const char *kind, const char *url,
               const char *sha256, int64_t size, const char *more)
{
    char text[3000];
    struct vf_error err;

    snprintf(text, sizeof(text),
             "{\"name\":\"%s\",\"kind\":\"%s\",\"files\":{\"%s\":{\"url\":\"%s\",\"sha256\":\"%s\","
             "\"size\":%lld}}%s%s}",
             name, kind, vf_host_arch(), url, sha256, (long long)size, more[0] ? "," : "", more);
    cr_assert_eq(vf_asset_parse(text, strlen(text), NULL, ret, &err), 0, "%s: %s", text, err.msg);
}

static void on_done(void *arg, const struct vf_error *err)
{
    struct ast_fetch *f = arg;

    f->done = true;
    f->calls++;
    f->fetch = NULL;
    if (err)
        f->err = *err;
}

void ast_begin(struct ast *t, const struct vf_asset *a, struct ast_fetch *f)
{
    struct vf_error err = {0};

    memset(f, 0, sizeof(*f));
    cr_assert_eq(vf_asset_fetch(t->store, &t->loop, a, on_done, f, &f->fetch, &err), 0, "%s",
                 err.msg);
    cr_assert(!f->done);
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

void ast_turn(struct ast *t, int64_t deadline_us, const char *what)
{
    uv_timer_t
        tick; /* so that a turn ends: again and again, for it may be due before the loop waits */

    cr_assert_lt(vf_now_us(), deadline_us, "%s: not within its time", what);
    uv_timer_init(&t->loop, &tick);
    uv_timer_start(&tick, on_tick, 10, 10);
    uv_run(&t->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&t->loop, UV_RUN_NOWAIT);
}

void ast_await(struct ast *t, struct ast_fetch *f)
{
    ast_until(t, f->done, "the fetch");
    cr_expect_eq(f->calls, 1);
}

void ast_await_bytes(struct ast *t, struct ast_fetch *f, uint64_t at_least)
{
    ast_until(t, f->done || atomic_load(&vf_fetch_progress(f->fetch)->done_bytes) >= at_least,
              "progress");
    cr_assert(!f->done, "%s", f->err.msg);
}

int ast_downloads(struct ast *t)
{
    int n = 0;

    pthread_mutex_lock(&t->store->lock);
    for (struct vf_download *d = t->store->downloads; d != NULL; d = d->next)
        n++;
    pthread_mutex_unlock(&t->store->lock);
    return n;
}

enum vf_code ast_fetch_url(struct ast *t, const char *url, int64_t size, const char *more,
                           struct vf_error *ret_err)
{
    struct vf_asset a;
    struct ast_fetch f;

    ast_asset(&a, "thing", "image", url, t->sha256, size, more);
    ast_begin(t, &a, &f);
    vf_asset_free(&a);
    ast_await(t, &f);
    if (ret_err)
        *ret_err = f.err;
    return f.err.code;
}

int64_t ast_part(struct ast *t, const char *sha256)
{
    char path[500];
    struct stat st;

    snprintf(path, sizeof(path), "%s/partial/%s", t->dir, sha256);
    return stat(path, &st) == 0 ? st.st_size : -1;
}

void ast_put_part(struct ast *t, const char *sha256, const void *data, size_t len)
{
    char path[500];
    FILE *f;

    snprintf(path, sizeof(path), "%s/partial/%s", t->dir, sha256);
    f = fopen(path, "we");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(data, 1, len, f), len);
    cr_assert_eq(fclose(f), 0);
}

void ast_expect_there(struct ast *t, mode_t mode)
{
    char *path = NULL, hex[VF_SHA256_HEX];
    struct vf_error err = {0};
    struct stat st;
    int fd;

    cr_assert_eq(vf_asset_store_path(t->store, t->sha256, &path, &err), 0, "%s", err.msg);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(fstat(fd, &st), 0);
    cr_expect_eq(st.st_mode & 07777, mode, "%o", st.st_mode);
    cr_expect_eq(st.st_size, (off_t)t->len);
    cr_assert_eq(vf_sha256_fd(fd, path, hex, &err), 0, "%s", err.msg);
    cr_expect_str_eq(hex, t->sha256);
    close(fd);
    free(path);
    cr_expect_eq(ast_part(t, t->sha256), -1);
}

void ast_expect_absent(struct ast *t, bool no_part)
{
    struct vf_error err;
    char *path = NULL;

    cr_expect_eq(vf_asset_store_path(t->store, t->sha256, &path, &err), -ENOENT);
    cr_expect_null(path);
    if (no_part)
        cr_expect_eq(ast_part(t, t->sha256), -1);
}

/* What the tests of assets share: a store in a directory of its own, a loop, and fetches that are waited for. */
#ifndef VF_TESTS_ASSET_SUPPORT_H
#define VF_TESTS_ASSET_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include "base/clock.h"
#include "scratch.h"
#include "templates/asset_internal.h"

struct ast {
    struct scratch scratch;
    char dir[300]; /* the store's */
    uv_loop_t loop;
    struct vf_asset_store *store;
    char *body;      /* something to serve */
    char *bodies[8]; /* all that there were: a server may still send one */
    int n_bodies;
    size_t len;
    char sha256[VF_SHA256_HEX]; /* of it */
};
/* limits: quick ones, for tests. */
void ast_open(struct ast *t);
/* Fails on a live handle. */
void ast_close(struct ast *t);
/* The store anew, as after a restart. */
void ast_reopen(struct ast *t);
void ast_close_store(struct ast *t);
/* Makes t->body len bytes that differ by seed, and its digest. */
void ast_body(struct ast *t, size_t len, unsigned seed);
/* Puts t->body into a file that anyone may read; its URL. */
void ast_make_source(struct ast *t, char url[500]);
void ast_digest(const void *data, size_t len, char ret[VF_SHA256_HEX]);

/* An asset for this host; more: further members as JSON, or "". Freed by vf_asset_free. */
void ast_asset(struct vf_asset *ret, const char *name, const char *kind, const char *url,
               const char *sha256, int64_t size, const char *more);

struct ast_fetch {
    struct vf_fetch *fetch;
    bool done;
    int calls;
    struct vf_error err; /* code VF_OK: the file is there */
};
void ast_begin(struct ast *t, const struct vf_asset *a, struct ast_fetch *f);
/* Runs the loop until it has ended, at most 60 s. */
void ast_await(struct ast *t, struct ast_fetch *f);
/* Runs it until cond, likewise; what: for the message. */
#define ast_until(t, cond, what)                    \
    for (int64_t ast_start = vf_now_us(); !(cond);) \
    ast_turn(t, ast_start + 60000000, what)
void ast_turn(struct ast *t, int64_t deadline_us, const char *what);
/* Runs it until a fetch is so far. */
void ast_await_bytes(struct ast *t, struct ast_fetch *f, uint64_t at_least);
/* Both; the whole of a fetch of t->body from url. Returns the error's code. */
enum vf_code ast_fetch_url(struct ast *t, const char *url, int64_t size, const char *more,
                           struct vf_error *ret_err);

/* That all of the body is in the store, with its mode, and no part of it is. */
void ast_expect_there(struct ast *t, mode_t mode);
/* That neither it nor (if no_part) a part of it is. */
void ast_expect_absent(struct ast *t, bool no_part);
/* How many digests are on their way or wait their turn. */
int ast_downloads(struct ast *t);
/* The part's length, -1: there is none. */
int64_t ast_part(struct ast *t, const char *sha256);
/* Puts a part there. */
void ast_put_part(struct ast *t, const char *sha256, const void *data, size_t len);
#define ast_expect_error(e, want, text)                                                      \
    do {                                                                                     \
        cr_expect_eq((e).code, (want), "%s: %s", vf_code_name((e).code), (e).msg);           \
        cr_expect_not_null(strstr((e).msg, (text)), "\"%s\" lacks \"%s\"", (e).msg, (text)); \
    } while (0)

#endif

/* Fetching assets by threads: from a plain HTTP server on loopback and from files, shared, queued and cancelled. So that
 * ThreadSanitizer sees it; what takes TLS is in tests/e2e. */
#include <errno.h>
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
static struct asv_route *serve(const char *path, char url[200])
{
    struct asv_route r = {.body = t.body, .len = t.len};

    snprintf(r.path, sizeof(r.path), "%s", path);
    asv_url(&web, "127.0.0.1", path, url);
    return asv_add(&web, &r);
}

Test(assets_fetch, from_a_server)
{
    char url[200];
    struct asv_route *r = serve("/a", url);

    cr_expect_eq(ast_fetch_url(&t, url, (int64_t)t.len, "", NULL), VF_OK);
    ast_expect_there(&t, 0444);
    cr_expect_eq(ast_fetch_url(&t, url, (int64_t)t.len, "", NULL), VF_OK); /* is there */
    cr_expect_eq(asv_hits(&web, r), 1);
    cr_expect_eq(strncmp(r->got_agent, "vmfactory/", 10), 0, "%s", r->got_agent);
    cr_expect_str_eq(r->got_authorization, "");
}

Test(assets_fetch, without_a_known_size)
{
    char url[200];
    struct asv_route *r = serve("/a", url);

    r->no_length = true;
    cr_expect_eq(ast_fetch_url(&t, url, 0, "", NULL), VF_OK);
    ast_expect_there(&t, 0444);
}

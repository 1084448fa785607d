/* Assets from an HTTPS server: whom it is trusted to be, what it answers, where it sends us, and what it is shown. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>
#include "tests/e2e/asset_tls.h"

static struct asx x;

static void setup(void)
{
    asx_open(&x);
}

static void teardown(void)
{
    asx_close(&x);
}

TestSuite(asset_https, .init = setup, .fini = teardown, .timeout = 120);

static void expect_failure(const char *url, enum vf_code code, const char *text)
{
    struct vf_error err = {0};
    cr_expect_neq(asx_fetch(&x, url, &err), VF_OK);
    ast_expect_error(err, code, text);
    cr_expect_eq(strncmp(err.msg, "asset thing: https://", 21), 0, "%s", err.msg);
    ast_expect_absent(&x.t, true);
}

Test(asset_https, good)
{
    char url[200];
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    struct vf_error err;
    cr_expect_eq(asx_fetch(&x, url, &err), VF_OK, "%s", err.msg);
    ast_expect_there(&x.t, 0444);
    cr_expect_eq(asv_hits(&x.web, r), 1);
    asv_url(&x.web, "127.0.0.1", "/a", url);
    ast_body(&x.t, 100000, 3);
    r->body = x.t.body;
    r->len = x.t.len;
    r->no_length = true;
    cr_expect_eq(asx_fetch_with(&x, url, 0, "", &err), VF_OK, "%s", err.msg);
    ast_expect_there(&x.t, 0444);
}

/* ---- whom it is trusted to be */

Test(asset_https, unknown_authority)
{
    char url[200], more[400];
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    struct vf_error err;
    snprintf(more, sizeof(more), "\"ca_file\":\"%s\"", x.other_ca);
    cr_expect_neq(asx_fetch_with(&x, url, 0, more, &err), VF_OK);
    ast_expect_error(err, VF_PROTOCOL, "the server's certificate is not trusted");
    cr_expect_not_null(strstr(err.hint, "ca_file"), "%s", err.hint);
    cr_expect_neq(ast_fetch_url(&x.t, url, 0, "", &err), VF_OK); /* nor does the host know it */
    ast_expect_error(err, VF_PROTOCOL, "the server's certificate is not trusted");
    snprintf(more, sizeof(more), "\"ca_file\":\"%s/missing\"", x.t.dir);
    cr_expect_neq(asx_fetch_with(&x, url, 0, more, &err), VF_OK);
    ast_expect_error(err, VF_INVALID_ARGUMENT, "ca_file");
    cr_expect_eq(asv_hits(&x.web, r), 0);
    cr_expect_leq(x.web.n_conns, 3, "it is of no use to try again");
    ast_expect_absent(&x.t, true);
}

static void expect_distrust(struct asv *s, const char *host, const char *text)
{
    struct asv_route r = {.path = "/a", .body = x.t.body, .len = x.t.len};
    struct asv_route *added = asv_add(s, &r);
    char url[200];
    asv_url(s, host, "/a", url);
    expect_failure(url, VF_PROTOCOL, text);
    cr_expect_eq(asv_hits(s, added), 0);
    asv_close(s);
}

Test(asset_https, certificates_of_another_time_or_name)
{
    struct asv s;
    asv_open(&s, NULL, asx_tls(&x, ASX_EXPIRED));
    expect_distrust(&s, "localhost", "certificate has expired");
    asv_open(&s, NULL, asx_tls(&x, ASX_NOT_YET));
    expect_distrust(&s, "localhost", "certificate is not yet valid");
    asv_open(&s, "127.0.0.2", asx_tls(&x, ASX_GOOD));
    expect_distrust(&s, "127.0.0.2", "127.0.0.2");
}

Test(asset_https, no_tls_at_all)
{
    struct asv s;
    char url[200];
    asv_open(&s, NULL, NULL);
    snprintf(url, sizeof(url), "https://localhost:%d/a", s.port);
    expect_failure(url, VF_PROTOCOL, "3 attempts, the last: ");
    asv_close(&s);
}

/* It is connected, but nobody answers: the handshake has its own time. */
Test(asset_https, no_handshake)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    char url[200];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, len), 0);
    cr_assert_eq(listen(fd, 8), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    x.t.store->limits.connect_timeout_ms = 200;
    snprintf(url, sizeof(url), "https://localhost:%d/a", ntohs(a.sin_port));
    expect_failure(url, VF_TIMEOUT, "3 attempts, the last: ");
    close(fd);
}

Test(asset_https, nobody_there)
{
    struct asv s;
    char url[200];
    asv_open(&s, NULL, NULL);
    snprintf(url, sizeof(url), "https://localhost:%d/a", s.port);
    asv_close(&s);
    expect_failure(url, VF_PROTOCOL, "3 attempts, the last: ");
}

/* ---- what it answers */

Test(asset_https, statuses)
{
    static const struct {
        int status;
        enum vf_code code;
        const char *text;
        int hits;
    } answers[] = {
        {401, VF_PERMISSION, "the server refuses it: HTTP status 401", 1},
        {403, VF_PERMISSION, "the server refuses it: HTTP status 403", 1},
        {404, VF_NOT_FOUND, "the server does not have it: HTTP status 404", 1},
        {410, VF_NOT_FOUND, "HTTP status 410", 1},
        {400, VF_PROTOCOL, "HTTP status 400", 1},
        {204, VF_PROTOCOL, "HTTP status 204", 1},
        {304, VF_PROTOCOL, "HTTP status 304", 1},
        {302, VF_PROTOCOL, "HTTP status 302", 1}, /* to nowhere */
        {206, VF_PROTOCOL, "another range", 1},
        {429, VF_PROTOCOL, "3 attempts, the last: HTTP status 429", 3},
        {500, VF_PROTOCOL, "3 attempts, the last: HTTP status 500", 3},
        {503, VF_PROTOCOL, "3 attempts, the last: HTTP status 503", 3},
    };
    for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
        char url[200], path[16];
        struct asv_route more = {.status = answers[i].status};
        snprintf(path, sizeof(path), "/%d", answers[i].status);
        struct asv_route *r = asx_serve(&x, path, &more, url);
        expect_failure(url, answers[i].code, answers[i].text);
        cr_expect_eq(asv_hits(&x.web, r), answers[i].hits, "%d", answers[i].status);
    }
}

Test(asset_https, better_the_next_time)
{
    static const int statuses[] = {500, 503, 0};
    for (int i = 0; i < 3; i++) {
        char url[200], path[16];
        struct asv_route more = {.fail_first = 2, .fail_status = statuses[i]};
        struct vf_error err;
        ast_body(&x.t, 1000, (unsigned)i + 5);
        snprintf(path, sizeof(path), "/%d", statuses[i]);
        struct asv_route *r = asx_serve(&x, path, &more, url);
        cr_expect_eq(asx_fetch(&x, url, &err), VF_OK, "%s", err.msg);
        cr_expect_eq(asv_hits(&x.web, r), 3);
        ast_expect_there(&x.t, 0444);
    }
}

/* ---- where it sends us */

static struct asv_route *redirect(const char *path, const char *to, char url[200])
{
    struct asv_route r = {.status = 302};
    snprintf(r.location, sizeof(r.location), "%s", to);
    return asx_serve(&x, path, &r, url);
}

Test(asset_https, redirects)
{
    char url[200], to[200], path[16], next[16];
    struct vf_error err;
    asx_serve(&x, "/a", NULL, to);
    for (int i = 0; i < 6; i++) {
        snprintf(path, sizeof(path), "/%d", i);
        snprintf(next, sizeof(next), "/%d", i - 1);
        redirect(path, i == 0 ? to : next, url); /* the relative ones too */
        if (i == 4)
            asv_url(&x.web, "localhost", path, to);
    }
    expect_failure(url, VF_PROTOCOL, "is redirected more than 5 times");
    cr_expect_eq(asx_fetch(&x, to, &err), VF_OK, "%s", err.msg);
    ast_expect_there(&x.t, 0444);
}

Test(asset_https, redirect_loop)
{
    char url[200];
    struct asv_route *r = redirect("/a", "/a", url);
    expect_failure(url, VF_PROTOCOL, "is redirected more than 5 times");
    cr_expect_eq(asv_hits(&x.web, r), 6);
}

Test(asset_https, redirects_that_are_refused)
{
    static const char *const targets[][2] = {
        {"http://example.com/x", "is redirected to http://example.com/x, which is refused"},
        {"http://localhost:1/x", "is redirected from https to http://localhost:1/x"},
        {"file:///etc/passwd", "which is refused: its target: must begin with https://, not file"},
        {"ftp://localhost/x", "which is refused: its target: must begin with https://, not ftp"},
        {"https://me:hidden@localhost/x", "must not contain credentials"},
    };
    for (size_t i = 0; i < sizeof(targets) / sizeof(*targets); i++) {
        char url[200], path[16];
        struct vf_error err;
        snprintf(path, sizeof(path), "/%zu", i);
        struct asv_route *r = redirect(path, targets[i][0], url);
        expect_failure(url, VF_PROTOCOL, targets[i][1]);
        cr_expect_eq(asv_hits(&x.web, r), 1);
        asx_fetch(&x, url, &err);
        cr_expect_null(strstr(err.msg, "hidden"), "%s", err.msg);
    }
}

Test(asset_https, failure_after_a_redirect)
{
    char url[200], to[200];
    struct asv_route more = {.status = 404};
    asx_serve(&x, "/gone", &more, to);
    redirect("/a", to, url);
    expect_failure(url, VF_NOT_FOUND, "after 1 redirects: the server does not have it");
}

/* ---- what it is shown */

static void put_secret(const char *field, const char *text, char more[600])
{
    char path[400];
    snprintf(path, sizeof(path), "%s/%s", x.t.scratch.path, field);
    snprintf(more, 600, "\"%s\":\"%s\"", field, path);
    FILE *f = fopen(path, "we");
    cr_assert_not_null(f);
    cr_assert_geq(fputs(text, f), 0);
    fclose(f);
}

Test(asset_https, credentials)
{
    char url[200], more[600];
    struct vf_error err;
    struct asv_route bearer = {.authorization = "Bearer s3cret-token"};
    struct asv_route basic = {.authorization = "Basic bWU6aDpk"}; /* me:h:d */
    struct asv_route *r = asx_serve(&x, "/bearer", &bearer, url);
    expect_failure(url, VF_PERMISSION, "HTTP status 401");
    put_secret("bearer_file", "wrong-s3cret\n", more);
    cr_expect_neq(asx_fetch_with(&x, url, 0, more, &err), VF_OK);
    ast_expect_error(err, VF_PERMISSION, "HTTP status 401");
    cr_expect_null(strstr(err.msg, "s3cret"), "%s", err.msg);
    cr_expect_eq(asv_hits(&x.web, r), 2);
    put_secret("bearer_file", "s3cret-token\r\n", more); /* read anew each time */
    cr_expect_eq(asx_fetch_with(&x, url, 0, more, &err), VF_OK, "%s", err.msg);
    ast_expect_there(&x.t, 0444);
    ast_body(&x.t, 1000, 3);
    asx_serve(&x, "/basic", &basic, url);
    put_secret("basic_file", "me:h:d", more);
    cr_expect_eq(asx_fetch_with(&x, url, 0, more, &err), VF_OK, "%s", err.msg);
    ast_expect_there(&x.t, 0444);
}

Test(asset_https, credentials_that_can_not_be_read)
{
    static const struct {
        const char *field, *text, *says;
    } wrong[] = {
        {"bearer_file", "", "bearer_file: "},
        {"bearer_file", "\n", "must be one line"},
        {"bearer_file", "s3cret\nInjected: header", "control characters"},
        {"basic_file", "s3cret", "must be user:password"},
    };
    char url[200], more[600];
    struct vf_error err;
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        put_secret(wrong[i].field, wrong[i].text, more);
        cr_expect_neq(asx_fetch_with(&x, url, 0, more, &err), VF_OK);
        ast_expect_error(err, VF_INVALID_ARGUMENT, wrong[i].says);
        cr_expect_null(strstr(err.msg, "s3cret"), "%s", err.msg);
    }
    cr_expect_neq(asx_fetch_with(&x, url, 0, "\"bearer_file\":\"/nonexistent\"", &err), VF_OK);
    ast_expect_error(err, VF_NOT_FOUND, "bearer_file: /nonexistent: does not exist");
    cr_expect_eq(asv_hits(&x.web, r), 0);
}

/* ---- by way of another */

Test(asset_https, proxy)
{
    char url[200], more[800], secret[600];
    struct asv proxy;
    struct vf_error err;
    asv_open(&proxy, NULL, NULL);
    proxy.tunnel_port = x.web.port;
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    put_secret("bearer_file", "s3cret-token", secret);
    snprintf(more, sizeof(more), "%s,\"proxy\":\"http://127.0.0.1:%d\"", secret, proxy.port);
    cr_expect_eq(asx_fetch_with(&x, url, 0, more, &err), VF_OK, "%s", err.msg);
    ast_expect_there(&x.t, 0444);
    cr_expect_eq(proxy.connects, 1);
    cr_expect_null(strstr(proxy.got_connect, "s3cret"), "%s", proxy.got_connect);
    cr_expect_str_eq(r->got_authorization, "Bearer s3cret-token");
    ast_body(&x.t, 1000, 3);
    proxy.tunnel_port = 0; /* it leads nowhere now */
    cr_expect_neq(asx_fetch_with(&x, url, 0, more, &err), VF_OK);
    ast_expect_error(err, VF_PROTOCOL, "3 attempts, the last: ");
    ast_expect_absent(&x.t, true);
    asv_close(&proxy);
}

/* As the environment says; but what is on this host, by plain http, needs none. */
Test(asset_https, proxy_of_the_environment)
{
    char url[200], value[100];
    struct asv proxy, plain;
    struct vf_error err;
    asv_open(&proxy, NULL, NULL);
    asv_open(&plain, NULL, NULL);
    proxy.tunnel_port = x.web.port;
    snprintf(value, sizeof(value), "http://127.0.0.1:%d", proxy.port);
    setenv("https_proxy", value, 1);
    setenv("http_proxy", value, 1);
    unsetenv("no_proxy");
    unsetenv("NO_PROXY");
    struct asv_route *r = asx_serve(&x, "/a", NULL, url);
    cr_expect_eq(asx_fetch(&x, url, &err), VF_OK, "%s", err.msg);
    cr_expect_eq(proxy.connects, 1);
    cr_expect_eq(asv_hits(&x.web, r), 1);
    ast_body(&x.t, 1000, 3);
    struct asv_route direct = {.path = "/b", .body = x.t.body, .len = x.t.len};
    asv_add(&plain, &direct);
    asv_url(&plain, "localhost", "/b", url);
    cr_expect_eq(asx_fetch(&x, url, &err), VF_OK, "%s", err.msg);
    cr_expect_eq(proxy.n_conns, 1);
    asv_close(&plain);
    asv_close(&proxy);
}

/* They stay with the server that they are for: another port, host or scheme gets none, not even on the way back. */
Test(asset_https, credentials_are_not_forwarded)
{
    char url[200], to[200], more[600];
    struct asv other;
    struct vf_error err;
    asv_open(&other, NULL, asx_tls(&x, ASX_GOOD));
    struct asv_route target = {.path = "/target", .body = x.t.body, .len = x.t.len};
    struct asv_route *r = asv_add(&other, &target);
    put_secret("bearer_file", "s3cret-token", more);
    asv_url(&other, "localhost", "/target", to); /* another port */
    struct asv_route *first = redirect("/port", to, url);
    cr_expect_eq(asx_fetch_with(&x, url, 0, more, &err), VF_OK, "%s", err.msg);
    cr_expect_str_eq(first->got_authorization, "Bearer s3cret-token");
    cr_expect_eq(asv_hits(&other, r), 1);
    cr_expect_str_eq(r->got_authorization, "");

    ast_body(&x.t, 1000, 3);
    struct asv_route *same = asx_serve(&x, "/same", NULL, to);
    asv_url(&x.web, "127.0.0.1", "/same", to); /* another name */
    redirect("/name", to, url);
    cr_expect_eq(asx_fetch_with(&x, url, 0, more, &err), VF_OK, "%s", err.msg);
    cr_expect_str_eq(same->got_authorization, "");

    ast_body(&x.t, 1001, 4);
    same->body = x.t.body;
    same->len = x.t.len;
    redirect("/stay", "/same", url); /* the same server */
    cr_expect_eq(asx_fetch_with(&x, url, 0, more, &err), VF_OK, "%s", err.msg);
    cr_expect_str_eq(same->got_authorization, "Bearer s3cret-token");
    asv_close(&other);
}

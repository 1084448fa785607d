/* Paths, queries and header tokens, without a server. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/http_internal.h"

static struct vf_http_uri u;
static struct vf_error err;

static void expect_refused(const char *target, const char *part)
{
    cr_expect_eq(vf_http_uri_parse(&u, target, &err), -22, "%s", target);
    cr_expect_not_null(strstr(err.msg, part), "%s: %s", target, err.msg);
    cr_expect_null(u.text);
    cr_expect_eq(u.n_segments + u.n_query, 0);
}

Test(http_uri, takes_apart)
{
    const char *params[VF_HTTP_MAX_PARAMS];

    cr_assert_eq(vf_http_uri_parse(&u, "/v1/a%2Fb/?x=%3d&&y&z=1=2", &err), 0, "%s", err.msg);
    cr_expect_eq(u.n_segments, 3);
    cr_expect_str_eq(u.segments[1], "a/b");
    cr_expect_str_eq(u.segments[2], "");
    cr_expect_eq(u.n_query, 3);
    cr_expect_str_eq(u.query[0].value, "=");
    cr_expect_str_eq(u.query[1].name, "y");
    cr_expect_str_eq(u.query[2].value, "1=2");
    cr_expect(vf_http_uri_match(&u, "/v1/{a}/", params));
    cr_expect_str_eq(params[0], "a/b");
    cr_expect_not(vf_http_uri_match(&u, "/v1/{a}", params));
    cr_expect_not(vf_http_uri_match(&u, "/v1/{a}/{b}", params), "an empty part is none");
    cr_expect_not(vf_http_uri_match(&u, "/v1/a/b/", params));
    vf_http_uri_free(&u);
    cr_assert_eq(vf_http_uri_parse(&u, "HTTP://host", &err), 0);
    cr_expect(vf_http_uri_match(&u, "/", params));
    vf_http_uri_free(&u);
}

Test(http_uri, refuses)
{
    char target[600] = "";

    expect_refused("", "must begin with /");
    expect_refused("*", "must begin with /");
    expect_refused("/%", "wrong % escape");
    expect_refused("/%4", "wrong % escape");
    expect_refused("/%g0", "wrong % escape");
    expect_refused("/%00", "wrong % escape");
    expect_refused("/?a=%", "wrong % escape");
    for (int i = 0; i < VF_HTTP_MAX_SEGMENTS + 1; i++)
        strcat(target, "/x");
    expect_refused(target, "more than 16 parts");
    target[strlen(target) - 2] = '\0';
    cr_expect_eq(vf_http_uri_parse(&u, target, &err), 0);
    vf_http_uri_free(&u);
    strcpy(target, "/?");
    for (int i = 0; i < VF_HTTP_MAX_QUERY + 1; i++)
        strcat(target, "a=b&");
    expect_refused(target, "more than 16 arguments");
}

Test(http_uri, tokens)
{
    cr_expect(vf_http_has_token("keep-alive, Upgrade", "upgrade"));
    cr_expect(vf_http_has_token(" ,, UPGRADE \t,x", "upgrade"));
    cr_expect_not(vf_http_has_token("upgraded", "upgrade"));
    cr_expect_not(vf_http_has_token("up grade", "upgrade"));
    cr_expect_not(vf_http_has_token("", "upgrade"));
    cr_expect_not(vf_http_has_token(NULL, "upgrade"));
}

/* Whatever the bytes: no crash, no overrun, and what is accepted is decoded. */
Test(http_uri, any_bytes)
{
    static const struct vf_http_route routes[] = {
        {"GET", "/v1/vms/{id}/exec", false, NULL},
        {"GET", "/v1/templates", false, NULL},
        {NULL, NULL, false, NULL},
    };
    static const char alphabet[] = "/%2f?&=+aZ{}\x80\xff\n. 0v1ms";
    const char *params[VF_HTTP_MAX_PARAMS];
    char target[200], near[40];
    unsigned seed = 1;
    int accepted = 0;

    for (int i = 0; i < 50000; i++) {
        size_t n = (size_t)rand_r(&seed) % (sizeof(target) - 1);

        for (size_t k = 0; k < n; k++)
            target[k] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
        target[n] = '\0';
        target[0] = n > 0 ? '/' : '\0';
        vf_http_has_token(target, "v1");
        if (vf_http_uri_parse(&u, target, &err) < 0)
            continue;
        accepted++;
        for (const struct vf_http_route *r = routes; r->method != NULL; r++)
            vf_http_uri_match(&u, r->pattern, params);
        vf_http_uri_nearest(&u, routes, near, sizeof(near));
        vf_http_uri_free(&u);
    }
    cr_expect_gt(accepted, 100);
}

/* Clients that are rude or unlucky, against the real daemon: too long, too slow, half-open, all at once. What each of
 * them gets is for pool/http.h's own tests; here, that everybody else is served meanwhile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "tests/e2e/daemon_support.h"

TestSuite(api_clients, .timeout = 120);

static void expect_served(struct dmn *d)
{
    struct vf_json *j = dmn_json(d, 200, "GET", "/v1/version", NULL);

    cr_expect_str_eq(dmn_str(j, "name"), "vmfactory");
    vf_json_delete(j);
}

Test(api_clients, requests_sent_at_once_are_answered_one_after_the_other)
{
    static const char one[] = "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n",
                      two[] = "POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n"
                              "{\"template\":\"web\"}",
                      three[] = "GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    static const int want[] = {200, 201, 404};
    char text[20000] = "";
    struct dmn d;
    struct dmn_conn c;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 0);
    for (int i = 0; i < 20; i++) {
        strcat(text, one);
        strcat(text, two);
        strcat(text, three);
    }
    dmn_dial(&d, &c, "api.sock");
    cr_assert(dmn_send(&c, text, strlen(text)));
    for (int i = 0; i < 60; i++) {
        cr_assert_eq(dmn_head(&c), want[i % 3], "answer %d: %d", i, c.status);
        free(dmn_rest(&c));
    }
    dmn_hang_up(&c);
    dmn_wait_for(&d, "/v1/pools/web", "leased", 20);
    dmn_stop(&d);
    dmn_close(&d);
}

Test(api_clients, a_body_that_is_too_long_is_refused)
{
    static const char *const args[] = {"--set", "max_body_bytes=65536", NULL};
    char *body = malloc(300001), piece[1040];
    struct dmn d;
    struct dmn_conn c;

    memset(body, ' ', 300000);
    body[300000] = '\0';
    dmn_open(&d, args);
    dmn_dial(&d, &c, "api.sock");
    dmn_ask(&c, "POST", "/v1/templates", NULL, body);
    cr_expect_eq(dmn_head(&c), 413);
    free(dmn_rest(&c));
    dmn_hang_up(&c);
    /* The same without saying how long it will be. */
    dmn_dial(&d, &c, "api.sock");
    snprintf(piece, sizeof(piece),
             "POST /v1/templates HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    cr_assert(dmn_send(&c, piece, strlen(piece)));
    snprintf(piece, sizeof(piece), "400\r\n%1024s\r\n", "");
    for (int i = 0; i < 100 && dmn_send(&c, piece, strlen(piece)); i++)
        ;
    dmn_send(&c, "0\r\n\r\n", 5);
    cr_expect_eq(dmn_head(&c), 413);
    dmn_hang_up(&c);
    expect_served(&d);
    free(body);
    dmn_close(&d);
}

Test(api_clients, a_request_that_does_not_come_whole_is_ended)
{
    static const char *const args[] = {"--set", "request_timeout_ms=1000", NULL};
    static const char *const beginnings[] = {
        "", "GET", "GET /v1/version HTTP/1.1\r\nHost: x\r\n",
        "POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n{\"templ"};
    struct dmn d;
    struct dmn_conn c[40];

    dmn_open(&d, args);
    for (size_t i = 0; i < 40; i++) {
        dmn_dial(&d, &c[i], "api.sock");
        cr_assert(dmn_send(&c[i], beginnings[i % 4], strlen(beginnings[i % 4])));
    }
    expect_served(&d);
    for (size_t i = 0; i < 40; i++) {
        dmn_await_close(&c[i]);
        dmn_hang_up(&c[i]);
    }
    expect_served(&d);
    dmn_close(&d);
}

/* A full house: whoever comes waits in the backlog and is served when somebody leaves. */
Test(api_clients, as_many_connections_as_allowed)
{
    static const char *const args[] = {"--set", "max_connections=8", NULL};
    struct dmn d;
    struct dmn_conn c[8], late;

    dmn_open(&d, args);
    for (size_t i = 0; i < 8; i++) {
        dmn_dial(&d, &c[i], "api.sock");
        dmn_ask(&c[i], "GET", "/v1/version", NULL, NULL);
        cr_assert_eq(dmn_head(&c[i]), 200);
        free(dmn_rest(&c[i]));
    }
    dmn_dial(&d, &late, "api.sock");
    dmn_ask(&late, "GET", "/v1/version", NULL, NULL);
    for (size_t i = 0; i < 8; i++) { /* those inside are still served */
        dmn_ask(&c[i], "GET", "/v1/templates", NULL, NULL);
        cr_expect_eq(dmn_head(&c[i]), 200);
        free(dmn_rest(&c[i]));
    }
    dmn_hang_up(&c[3]);
    cr_expect_eq(dmn_head(&late), 200);
    free(dmn_rest(&late));
    dmn_hang_up(&late);
    for (size_t i = 0; i < 8; i++)
        dmn_hang_up(&c[i]);
    expect_served(&d);
    dmn_close(&d);
}

/* Nonsense of all kinds: an error answer or an end, and never a daemon that is gone. */
Test(api_clients, nonsense_is_survived)
{
    static const char *const nonsense[] = {
        "\r\n\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /v1/version HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET /v1/version HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /v1/vms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET /v1/version?%zz=%00 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /v1/vms/x/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: other\r\n"
        "Content-Length: 0\r\n\r\n",
    };
    /* What could still become a request is waited for. */
    static const char *const args[] = {"--set", "request_timeout_ms=500", NULL};
    struct dmn d;

    dmn_open(&d, args);
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        struct dmn_conn c;

        dmn_dial(&d, &c, "api.sock");
        dmn_send(&c, nonsense[i], strlen(nonsense[i]));
        cr_assert_eq(shutdown(c.fd, SHUT_WR), 0);
        dmn_await_close(&c);
        dmn_hang_up(&c);
        expect_served(&d);
    }
    dmn_close(&d);
}

/* After SIGTERM a kept connection is not served anew. */
Test(api_clients, a_kept_connection_ends_when_the_daemon_stops)
{
    struct dmn d;
    struct dmn_conn c;

    dmn_open(&d, NULL);
    dmn_dial(&d, &c, "api.sock");
    dmn_ask(&c, "GET", "/v1/version", NULL, NULL);
    cr_assert_eq(dmn_head(&c), 200);
    free(dmn_rest(&c));
    cr_expect_eq(dmn_stop(&d), 0);
    dmn_await_close(&c);
    dmn_hang_up(&c);
    dmn_close(&d);
}

/* Acquiring over the API: callers that leave before the answer, or without having read it, leak nothing; those that only
 * close their sending side, or have read it, keep their VM. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/e2e/daemon_support.h"

TestSuite(api_acquire, .timeout = 120);

static const char web[] = "{\"template\":\"web\"}";

static void expect_leased(struct dmn *d, int64_t n)
{
    struct vf_json *j = dmn_json(d, 200, "GET", "/v1/pools/web", NULL);

    cr_expect_eq(dmn_int(j, "leased"), n);
    vf_json_delete(j);
}

/* Nobody waits, nothing is being made, and of VMs there is what is leased and parked. */
static void wait_quiet(struct dmn *d, int64_t leased)
{
    struct vf_json *j;
    int64_t parked;

    dmn_wait_for(d, "/v1/pools/web", "waiting", 0);
    dmn_wait_for(d, "/v1/pools/web", "making", 0);
    dmn_wait_for(d, "/v1/pools/web", "leased", leased);
    j = dmn_json(d, 200, "GET", "/v1/pools/web", NULL);
    parked = dmn_int(j, "parked");
    vf_json_delete(j);
    dmn_await_vm_dirs(d, parked + leased);
}

/* Waits until something can be read, and does not read it. */
static void wait_readable(struct dmn_conn *c)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};

    cr_assert_eq(poll(&p, 1, DMN_LONG_MS), 1);
}

Test(api_acquire, who_hangs_up_before_the_answer_gets_nothing)
{
    struct dmn d;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 0);
    free(dmn_call(&d, 200, "PATCH", "/v1/pools/web", "{\"start_concurrency\":1}"));
    for (int round = 0; round < 5; round++) {
        struct dmn_conn c[40], last;

        for (size_t i = 0; i < 40; i++) {
            dmn_dial(&d, &c[i], "api.sock");
            dmn_ask(&c[i], "POST", "/v1/vms", NULL, web);
        }
        for (size_t i = 0; i < 40; i++)
            dmn_hang_up(&c[i]);
        /* Its turn comes after all of them. */
        dmn_dial(&d, &last, "api.sock");
        dmn_ask(&last, "POST", "/v1/vms", NULL, web);
        cr_expect_eq(dmn_head(&last), 201);
        free(dmn_rest(&last));
        dmn_hang_up(&last);
        wait_quiet(&d, round + 1);
    }
    dmn_stop(&d);
    dmn_close(&d);
}

Test(api_acquire, who_hangs_up_with_the_answer_unread_gives_the_vm_up)
{
    struct dmn d;
    struct dmn_conn events;
    char line[2000];
    int told = 0;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 4);
    dmn_dial(&d, &events, "api.sock");
    dmn_ask(&events, "GET", "/v1/events", NULL, NULL);
    cr_assert_eq(dmn_head(&events), 200);
    for (int i = 0; i < 20; i++) {
        struct dmn_conn c;

        dmn_dial(&d, &c, "api.sock");
        dmn_ask(&c, "POST", "/v1/vms", NULL, web);
        wait_readable(&c);
        dmn_hang_up(&c);
    }
    while (told < 20 && dmn_line(&events, line, sizeof(line)))
        told += strstr(line, "\"vm.unclaimed\"") != NULL;
    cr_expect_eq(told, 20);
    dmn_hang_up(&events);
    wait_quiet(&d, 0);
    dmn_close(&d);
}

Test(api_acquire, who_has_read_the_answer_keeps_the_vm)
{
    struct dmn d;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 2);
    for (int i = 0; i < 10; i++) {
        struct dmn_conn c;

        dmn_dial(&d, &c, "api.sock");
        dmn_ask(&c, "POST", "/v1/vms", i % 2 ? "Connection: close\r\n" : NULL, web);
        if (i % 3 == 0) /* it has nothing more to say, but still listens */
            cr_assert_eq(shutdown(c.fd, SHUT_WR), 0);
        cr_expect_eq(dmn_head(&c), 201);
        free(dmn_rest(&c));
        if (i % 2)
            dmn_await_close(&c);
        dmn_hang_up(&c);
    }
    wait_quiet(&d, 10);
    expect_leased(&d, 10);
    free(dmn_call(&d, 202, "POST", "/v1/pools/web/drain", NULL));
    dmn_stop(&d);
    dmn_close(&d);
}

Test(api_acquire, a_lease_is_its_holders_and_ends)
{
    struct dmn d;
    struct vf_json *j;
    char path[64], renew[80];

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 1);
    j = dmn_json(&d, 201, "POST", "/v1/vms", "{\"template\":\"web\",\"ttl_ms\":3600000}");
    snprintf(path, sizeof(path), "/v1/vms/%.20s", dmn_str(j, "id"));
    snprintf(renew, sizeof(renew), "%s/renew", path);
    cr_expect_eq(dmn_int(j, "lease.ttl_ms"), 3600000);
    cr_expect(dmn_int(j, "lease.expires_in_ms") > 0 &&
              dmn_int(j, "lease.expires_in_ms") <= 3600000);
    cr_expect_eq(dmn_int(j, "lease.uid"), getuid());
    cr_expect_eq(dmn_int(j, "lease.pid"), getpid());
    cr_expect_str_eq(dmn_str(j, "source"), "hit");
    cr_expect(vf_json_bool(dmn_get(j, "proof.nonce_matched"), false));
    cr_expect_gt(dmn_int(j, "total_us"), 0);
    vf_json_delete(j);
    j = dmn_json(&d, 200, "POST", renew, "{\"ttl_ms\":0}");
    cr_expect_eq(dmn_int(j, "lease.expires_in_ms"), -1, "no end");
    vf_json_delete(j);
    free(dmn_call(&d, 200, "POST", renew, "{\"ttl_ms\":1}"));
    dmn_wait_for(&d, "/v1/pools/web", "leased", 0);
    free(dmn_call(&d, 404, "GET", path, NULL));
    free(dmn_call(&d, 404, "POST", renew, "{\"ttl_ms\":1}"));
    dmn_close(&d);
}

Test(api_acquire, beyond_the_limit_callers_are_told_when_to_come_again)
{
    struct dmn d;
    struct dmn_conn c;
    char *text;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 0);
    free(dmn_call(&d, 200, "PATCH", "/v1/pools/web", "{\"max_leases\":1}"));
    free(dmn_call(&d, 201, "POST", "/v1/vms", web));
    dmn_dial(&d, &c, "api.sock");
    dmn_ask(&c, "POST", "/v1/vms", NULL, web);
    cr_expect_eq(dmn_head(&c), 429);
    cr_expect_not_null(dmn_header(&c, "Retry-After"));
    cr_expect_geq(atoi(dmn_header(&c, "Retry-After")), 1);
    text = dmn_rest(&c);
    cr_expect_not_null(strstr(text, "\"busy\""), "%s", text);
    free(text);
    dmn_hang_up(&c);
    dmn_stop(&d);
    dmn_close(&d);
}

/* Those who wait are told so or find their connection closed; what was being made for them is gone. */
static void stop_after(size_t answers)
{
    static const char *const args[] = {"--set", "on_stop=destroy-all", NULL};
    struct dmn d;
    struct dmn_conn c[60], template, removal;

    dmn_open(&d, args);
    dmn_null_template(&d, "web", 4);
    dmn_null_template(&d, "old", 2);
    free(dmn_call(&d, 200, "PATCH", "/v1/pools/web", "{\"start_concurrency\":1}"));
    for (size_t i = 0; i < 60; i++) {
        dmn_dial(&d, &c[i], "api.sock");
        dmn_ask(&c[i], "POST", "/v1/vms", NULL, web);
    }
    dmn_dial(&d, &template, "api.sock");
    dmn_ask(&template, "POST", "/v1/templates", NULL, "{\"name\":\"new\",\"vmm\":\"null\"}");
    dmn_dial(&d, &removal, "api.sock");
    dmn_ask(&removal, "DELETE", "/v1/templates/old", NULL, NULL);
    for (size_t i = 0; i < answers; i++)
        cr_expect_eq(dmn_head(&c[i]), 201);
    cr_expect_eq(dmn_stop(&d), 0);
    for (size_t i = 0; i < 60; i++) {
        int status = i < answers ? 0 : dmn_head(&c[i]);

        cr_expect(status == 0 || status == 201 || status == 503, "%d", status);
        dmn_hang_up(&c[i]);
    }
    dmn_hang_up(&template);
    dmn_hang_up(&removal);
    cr_expect_eq(dmn_vm_dirs(&d), 0);
    dmn_close(&d);
}

Test(api_acquire, stopping_ends_those_who_wait)
{
    static const size_t answers[] = {0, 1, 4, 7, 30, 60};

    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++)
        stop_after(answers[i]);
}

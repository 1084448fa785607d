/* Events over the API: kept ones, new ones, whose, and to readers that do not read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/e2e/daemon_support.h"

TestSuite(api_events, .timeout = 120);

/* VMs, whose events are more than the ring, the socket and the daemon's answer hold together. */
#define MANY 1600

static int64_t seq_of(const char *line)
{
    struct vf_json *j = vf_json_parse(line, strlen(line));
    int64_t seq = dmn_int(j, "seq");

    vf_json_delete(j);
    return seq;
}

static void follow(struct dmn *d, struct dmn_conn *c, const char *query)
{
    char path[100];

    snprintf(path, sizeof(path), "/v1/events%s", query);
    dmn_dial(d, c, "api.sock");
    dmn_ask(c, "GET", path, NULL, NULL);
    cr_assert_eq(dmn_head(c), 200);
    cr_expect_str_eq(dmn_header(c, "Content-Type"), "application/x-ndjson");
}

/* n VMs acquired and released: some three events each. */
static void make_events(struct dmn *d, int n)
{
    struct dmn_conn c;

    dmn_dial(d, &c, "api.sock");
    for (int i = 0; i < n; i++) {
        struct vf_json *j;
        char path[64], *text;

        dmn_ask(&c, "POST", "/v1/vms", NULL, "{\"template\":\"web\"}");
        cr_assert_eq(dmn_head(&c), 201);
        text = dmn_rest(&c);
        j = vf_json_parse(text, strlen(text));
        snprintf(path, sizeof(path), "/v1/vms/%.20s", dmn_str(j, "id"));
        vf_json_delete(j);
        free(text);
        dmn_ask(&c, "DELETE", path, NULL, NULL);
        cr_assert_eq(dmn_head(&c), 204);
    }
    dmn_hang_up(&c);
}

Test(api_events, kept_ones_come_in_order_and_end)
{
    struct dmn d;
    struct dmn_conn c;
    char line[2000], query[64];
    int64_t last = 0, middle;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 2);
    follow(&d, &c, "?since=0&follow=false");
    while (dmn_line(&c, line, sizeof(line)))
        cr_assert_eq(seq_of(line), ++last);
    cr_expect_gt(last, 5);
    dmn_hang_up(&c);
    middle = last / 2;
    snprintf(query, sizeof(query), "?since=%lld&follow=false", (long long)middle);
    follow(&d, &c, query);
    while (dmn_line(&c, line, sizeof(line)))
        cr_assert_eq(seq_of(line), ++middle);
    cr_expect_geq(middle, last);
    dmn_hang_up(&c);
    dmn_close(&d);
}

Test(api_events, new_ones_come_as_they_happen)
{
    struct dmn d;
    struct dmn_conn c;
    char line[2000], id[32];
    struct vf_json *j;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 0);
    follow(&d, &c, "");
    j = dmn_json(&d, 201, "POST", "/v1/vms", "{\"template\":\"web\"}");
    snprintf(id, sizeof(id), "%.20s", dmn_str(j, "id"));
    vf_json_delete(j);
    do {
        cr_assert(dmn_line(&c, line, sizeof(line)));
    } while (strstr(line, "\"vm.leased\"") == NULL);
    j = vf_json_parse(line, strlen(line));
    cr_expect_str_eq(dmn_str(j, "vm"), id);
    cr_expect_str_eq(dmn_str(j, "template"), "web");
    vf_json_delete(j);
    snprintf(line, sizeof(line), "/v1/vms/%s", id);
    free(dmn_call(&d, 204, "DELETE", line, NULL));
    do {
        cr_assert(dmn_line(&c, line, sizeof(line)));
    } while (strstr(line, "\"vm.released\"") == NULL);
    dmn_hang_up(&c);
    dmn_close(&d);
}

/* The socket's own buffer holds many lines, so far more than the ring keeps have to happen. */
Test(api_events, a_reader_that_does_not_read_is_told_what_it_missed)
{
    struct dmn d;
    struct dmn_conn slow;
    char line[2000];
    struct vf_json *j;
    int64_t last = 0, missed = 0, read = 0, before, after;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 8);
    make_events(&d, 50);
    follow(&d, &slow, "?since=0");
    before = dmn_rss_kib(&d);
    make_events(&d, MANY);
    after = dmn_rss_kib(&d);
    while (last < 2 * MANY && dmn_line(&slow, line, sizeof(line))) {
        j = vf_json_parse(line, strlen(line));
        if (strcmp(dmn_str(j, "event"), "missed") == 0) {
            cr_expect_gt(dmn_int(j, "count"), 0);
            missed += dmn_int(j, "count");
        } else {
            last = dmn_int(j, "seq");
            read++;
            cr_assert_eq(last, read + missed, "%s", line);
        }
        vf_json_delete(j);
    }
    cr_expect_gt(missed, 0);
    cr_expect_lt(after, before + 8 * 1024);
    dmn_hang_up(&slow);
    dmn_close(&d);
}

Test(api_events, others_vms_are_not_shown)
{
    struct dmn d;
    struct dmn_conn c;
    char line[2000];
    int seen = 0;

    if (geteuid() != 0) {
        fprintf(stderr, "SKIPPED api_events.others: to call as another user takes root\n");
        cr_skip_test();
    }
    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 1);
    free(dmn_call(&d, 201, "POST", "/v1/vms", "{\"template\":\"web\"}"));
    dmn_let_all_in(&d);
    cr_assert_eq(seteuid(65534), 0);
    follow(&d, &c, "?follow=false");
    cr_assert_eq(seteuid(0), 0);
    while (dmn_line(&c, line, sizeof(line))) {
        cr_expect_null(strstr(line, "\"vm.leased\""), "%s", line);
        seen++;
    }
    cr_expect_gt(seen, 0, "what is everybody's is shown");
    dmn_hang_up(&c);
    dmn_stop(&d);
    dmn_close(&d);
}

/* Followers that come and go leave nothing behind. */
Test(api_events, followers_leave_nothing)
{
    struct dmn d;
    int fds;

    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 2);
    make_events(&d, 2);
    fds = dmn_fds(&d);
    for (int i = 0; i < 200; i++) {
        struct dmn_conn c;

        follow(&d, &c, i % 2 ? "?since=0" : "");
        dmn_hang_up(&c);
    }
    make_events(&d, 10);
    cr_expect_leq(dmn_fds(&d), fds + 20, "200 are not left");
    dmn_close(&d);
}

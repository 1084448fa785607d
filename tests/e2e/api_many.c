/* Many callers at once: 64 clients acquire and release 10,000 VMs, and no VM is ever handed out twice. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/e2e/daemon_support.h"

TestSuite(api_many, .timeout = 300);

#define CLIENTS 64
#define ACQUIRES 10000
#define ID 24

struct many {
    struct dmn d;
    struct dmn_conn conns[CLIENTS];
    char path[CLIENTS][64]; /* of the VM a client holds; empty: it waits for one */
    char (*ids)[ID];
    int asked, got, released, hits;
};

static void ask(struct many *m, int i)
{
    m->path[i][0] = '\0';
    if (m->asked == ACQUIRES)
        return;
    m->asked++;
    dmn_ask(&m->conns[i], "POST", "/v1/vms", NULL, "{\"template\":\"web\"}");
}

static void answered(struct many *m, int i)
{
    struct dmn_conn *c = &m->conns[i];
    int status = dmn_head(c);
    char *text = dmn_rest(c);
    struct vf_json *j;

    if (m->path[i][0] != '\0') {
        cr_assert_eq(status, 204, "%s: %d %s", m->path[i], status, text);
        m->released++;
        ask(m, i);
    } else {
        cr_assert_eq(status, 201, "%d %s", status, text);
        j = vf_json_parse(text, strlen(text));
        snprintf(m->ids[m->got++], ID, "%.20s", dmn_str(j, "id"));
        snprintf(m->path[i], sizeof(m->path[i]), "/v1/vms/%.20s", dmn_str(j, "id"));
        m->hits += strcmp(dmn_str(j, "source"), "hit") == 0;
        vf_json_delete(j);
        dmn_ask(c, "DELETE", m->path[i], NULL, NULL);
    }
    free(text);
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

Test(api_many, no_vm_is_handed_out_twice)
{
    static struct many m;
    struct pollfd p[CLIENTS];
    struct vf_json *j;

    m.ids = calloc(ACQUIRES, ID);
    cr_assert_not_null(m.ids);
    dmn_open(&m.d, NULL);
    dmn_null_template(&m.d, "web", 32);
    free(dmn_call(&m.d, 200, "PATCH", "/v1/pools/web", "{\"refill_concurrency\":8}"));
    for (int i = 0; i < CLIENTS; i++) {
        dmn_dial(&m.d, &m.conns[i], "api.sock");
        ask(&m, i);
    }
    while (m.released < ACQUIRES) {
        for (int i = 0; i < CLIENTS; i++)
            p[i] = (struct pollfd){.fd = m.conns[i].fd, .events = POLLIN};
        cr_assert_gt(poll(p, CLIENTS, DMN_LONG_MS), 0);
        for (int i = 0; i < CLIENTS; i++)
            if (p[i].revents != 0)
                answered(&m, i);
    }
    cr_expect_eq(m.got, ACQUIRES);
    qsort(m.ids, ACQUIRES, ID, compare);
    for (int i = 1; i < ACQUIRES; i++)
        cr_assert_str_neq(m.ids[i - 1], m.ids[i]);
    cr_expect_gt(m.hits, 0);
    for (int i = 0; i < CLIENTS; i++)
        dmn_hang_up(&m.conns[i]);
    dmn_wait_for(&m.d, "/v1/pools/web", "parked", 32);
    dmn_wait_for(&m.d, "/v1/pools/web", "making", 0);
    j = dmn_json(&m.d, 200, "GET", "/v1/pools/web", NULL);
    cr_expect_eq(dmn_int(j, "leased"), 0);
    cr_expect_eq(dmn_int(j, "waiting"), 0);
    dmn_await_vm_dirs(&m.d, 32);
    vf_json_delete(j);
    free(m.ids);
    dmn_close(&m.d);
}

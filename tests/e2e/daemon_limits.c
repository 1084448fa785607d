/* Limits that are reached and left again: descriptors, generations that wear out under load, settings that change while it
 * runs, a host's clock that jumps, a pool that sizes itself.
 */
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "tests/e2e/daemon_guest.h"
#include "tests/e2e/support.h"

TestSuite(daemon_limits, .timeout = 180);

static const char pool[] = "/v1/pools/web", web[] = "{\"template\":\"web\"}";

/* ---- descriptors */

static void limit_fds(struct dmn *d, rlim_t n)
{
    struct rlimit now, limit;
    cr_assert_eq(prlimit(d->pid, RLIMIT_NOFILE, NULL, &now), 0);
    limit = (struct rlimit){n ? n : now.rlim_max, now.rlim_max};
    cr_assert_eq(prlimit(d->pid, RLIMIT_NOFILE, &limit, NULL), 0);
}

/* No descriptor is left for another VM: it says so, serves what it has, and goes on once VMs are released. */
Test(daemon_limits, no_more_vms_than_descriptors)
{
    enum { MOST = 64 };
    static char ids[MOST][16];
    struct dmn d;
    struct dmn_conn c;
    int n = 0, refused = 0;
    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 0);
    dmn_dial(&d, &c, "api.sock");
    limit_fds(&d, (rlim_t)dmn_fds(&d) + 24);
    while (!refused && n < MOST) {
        dmn_ask(&c, "POST", "/v1/vms", NULL, web);
        int status = dmn_head(&c);
        char *text = dmn_rest(&c);
        struct vf_json *j = vf_json_parse(text, strlen(text));
        if (status == 201)
            snprintf(ids[n++], sizeof(ids[0]), "%.15s", dmn_str(j, "id"));
        else {
            refused++;
            cr_expect_eq(status, 429, "%s", text);
            cr_expect(strstr(text, "Too many open files") && strstr(text, "ulimit -n"), "%s", text);
            cr_expect(dmn_header(&c, "Retry-After"));
        }
        vf_json_delete(j);
        free(text);
    }
    cr_assert(refused, "%d VMs fit", n);
    cr_assert_gt(n, 1);
    fprintf(stderr, "daemon_limits: %d VMs, then no descriptor is left\n", n);
    for (int i = 0; i < n; i++) { /* all of them are there */
        char path[64];
        snprintf(path, sizeof(path), "/v1/vms/%.15s", ids[i]);
        dmn_ask(&c, "GET", path, NULL, NULL);
        cr_expect_eq(dmn_head(&c), 200);
        free(dmn_rest(&c));
    }
    cr_expect_eq(dmn_vm_dirs(&d), n);
    for (int round = 0; round < 3; round++) { /* one goes, one comes */
        char path[64];
        snprintf(path, sizeof(path), "/v1/vms/%.15s", ids[round]);
        dmn_ask(&c, "DELETE", path, NULL, NULL);
        cr_expect_eq(dmn_head(&c), 204);
        free(dmn_rest(&c));
        dmn_ask(&c, "POST", "/v1/vms", NULL, web);
        cr_expect_eq(dmn_head(&c), 201);
        free(dmn_rest(&c));
    }
    dmn_hang_up(&c);
    limit_fds(&d, 0);
    dmn_wait_for(&d, pool, "leased", n);
    cr_expect_eq(dmn_stop(&d), 0);
    dmn_close(&d);
}

/* Callers beyond the descriptors wait in the backlog; those inside are served, and when some leave it is their turn. */
Test(daemon_limits, no_more_connections_than_descriptors)
{
    enum { CALLERS = 40 };
    struct dmn d;
    struct dmn_conn c[CALLERS];
    int served = 0;
    dmn_open(&d, NULL);
    limit_fds(&d, (rlim_t)dmn_fds(&d) + 8);
    for (int i = 0; i < CALLERS; i++) {
        dmn_dial(&d, &c[i], "api.sock");
        dmn_ask(&c[i], "GET", "/v1/version", "Connection: close\r\n", NULL);
    }
    for (int i = 0; i < CALLERS; i++) {
        cr_expect_eq(dmn_head(&c[i]), 200);
        free(dmn_rest(&c[i]));
        dmn_hang_up(&c[i]);
        served++;
    }
    cr_expect_eq(served, CALLERS);
    limit_fds(&d, 0);
    dmn_close(&d);
}

/* ---- generations that wear out */

enum { CLIENTS = 4, CYCLES = 100, MOST_SEEN = 1000 };

struct load {
    struct dmn d;
    struct dmn_conn c[CLIENTS];
    char path[CLIENTS][64]; /* of the VM it holds; empty: it waits for one */
    int taken, released, n_generations;
    bool seen[MOST_SEEN];
};

static void answered(struct load *l, int i)
{
    int status = dmn_head(&l->c[i]);
    char *text = dmn_rest(&l->c[i]);
    if (l->path[i][0]) {
        cr_assert_eq(status, 204, "%s: %d %s", l->path[i], status, text);
        l->path[i][0] = 0;
        l->released++;
        dmn_ask(&l->c[i], "POST", "/v1/vms", NULL, web);
    } else {
        cr_assert_eq(status, 201, "%d %s", status, text);
        struct vf_json *j = vf_json_parse(text, strlen(text));
        int64_t generation = dmn_int(j, "generation");
        cr_assert(generation > 0 && generation < MOST_SEEN);
        l->n_generations += !l->seen[generation];
        l->seen[generation] = true;
        snprintf(l->path[i], sizeof(l->path[i]), "/v1/vms/%.20s", dmn_str(j, "id"));
        vf_json_delete(j);
        l->taken++;
        dmn_ask(&l->c[i], "DELETE", l->path[i], NULL, NULL);
    }
    free(text);
}

static int generations(const struct dmn *d)
{
    char path[120];
    int n = 0;
    snprintf(path, sizeof(path), "%s/templates/web", d->state);
    DIR *dir = opendir(path);
    cr_assert(dir);
    for (struct dirent *e; (e = readdir(dir));)
        n += e->d_name[0] >= '1' && e->d_name[0] <= '9';
    closedir(dir);
    return n;
}

Test(daemon_limits, generations_that_wear_out_under_load)
{
    static struct load l;
    struct pollfd p[CLIENTS];
    dmn_open(&l.d, NULL);
    dmn_null_template(&l.d, "web", 4);
    gst_set(&l.d, "web", "{\"max_clones\":5}");
    for (int i = 0; i < CLIENTS; i++) {
        dmn_dial(&l.d, &l.c[i], "api.sock");
        dmn_ask(&l.c[i], "POST", "/v1/vms", NULL, web);
    }
    while (l.released < CLIENTS * CYCLES || l.n_generations < 5) {
        for (int i = 0; i < CLIENTS; i++)
            p[i] = (struct pollfd){.fd = l.c[i].fd, .events = POLLIN};
        cr_assert_gt(poll(p, CLIENTS, DMN_LONG_MS), 0);
        for (int i = 0; i < CLIENTS; i++)
            if (p[i].revents)
                answered(&l, i);
    }
    for (int i = 0; i < CLIENTS; i++) {
        while (l.path[i][0] == 0) /* the last one it asked for goes too */
            answered(&l, i);
        cr_assert_eq(dmn_head(&l.c[i]), 204);
        dmn_hang_up(&l.c[i]);
    }
    fprintf(stderr, "daemon_limits: %d VMs of %d generations\n", l.taken, l.n_generations);
    gst_set(&l.d, "web", "{\"max_clones\":0}");
    dmn_wait_for(&l.d, pool, "parked_old", 0);
    dmn_wait_for(&l.d, pool, "parked", 4);
    cr_expect_eq(dmn_stop(&l.d), 0); /* ends what is still being built or removed */
    cr_expect_leq(generations(&l.d), 2, "%d generations are left", generations(&l.d));
    dmn_close(&l.d);
}

/* ---- settings that change */

Test(daemon_limits, settings_that_change_hold_at_once)
{
    static const struct {
        const char *text;
        int status; /* of a second lease */
    } steps[] = {{"{\"group\":\"\",\"max_leases_per_holder\":1}", 429},
                 {"{\"group\":\"\",\"max_leases_per_holder\":2,\"heartbeat_ms\":-1}", 429},
                 {"{\"group\":\"\",\"max_leases_per_holder\":", 429},
                 {"{\"group\":\"\",\"max_leases_per_holder\":2}", 201}};
    char path[100];
    const char *const args[] = {"--config", path, NULL};
    struct dmn d;
    struct gst_events ev;
    dmn_prepare(&d, args);
    snprintf(path, sizeof(path), "%s/v.json", d.dir);
    gst_write(d.dir, "v.json", "{\"group\":\"\"}", 0600);
    dmn_start(&d);
    dmn_null_template(&d, "web", 0);
    free(dmn_call(&d, 201, "POST", "/v1/vms", web));
    gst_follow(&d, &ev);
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        gst_write(d.dir, "v.json", steps[i].text, 0600);
        dmn_signal(&d, SIGHUP);
        gst_await_event(&ev, "daemon.settings", NULL);
        free(dmn_call(&d, steps[i].status, "POST", "/v1/vms", web));
    }
    gst_unfollow(&ev);
    cr_expect_eq(dmn_stop(&d), 0);
    dmn_close(&d);
}

/* ---- a pool that sizes itself */

static int64_t target_of(struct dmn *d)
{
    struct vf_json *j = dmn_json(d, 200, "GET", pool, NULL);
    int64_t n = dmn_int(j, "target");
    vf_json_delete(j);
    return n;
}

Test(daemon_limits, a_pool_that_sizes_itself)
{
    struct dmn d;
    char id[16];
    dmn_open(&d, NULL);
    dmn_null_template(&d, "web", 1);
    gst_set(&d, "web", "{\"min\":1,\"max\":8,\"autosize\":true}");
    for (int i = 0; i < 50; i++) {
        gst_take(&d, "web", id);
        gst_release(&d, id);
        cr_assert(target_of(&d) >= 1 && target_of(&d) <= 8);
    }
    dmn_wait_least(&d, pool, "target", 2);
    dmn_wait_least(&d, pool, "parked", 2);
    /* Its bounds hold at once, whoever comes. */
    gst_set(&d, "web", "{\"min\":4,\"target\":4}");
    dmn_wait_for(&d, pool, "parked", 4);
    gst_set(&d, "web", "{\"min\":0,\"target\":1,\"max\":1}");
    dmn_wait_for(&d, pool, "parked", 1);
    for (int i = 0; i < 50; i++) {
        gst_take(&d, "web", id);
        gst_release(&d, id);
        cr_assert_leq(target_of(&d), 1);
    }
    dmn_close(&d);
}

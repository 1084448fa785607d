/* What the figures ask a daemon for: a template, a full pool, a VM. */
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tools/bench/daemon.h"

#define FILL_MS 120000
#define POLL_US 5000
#define BUSY_MS 2000

static int expect(const struct client *c, int status, const char *what, struct vf_error *err)
{
    return c->status == status
               ? 0
               : vf_fail(err, VF_PROTOCOL, "%s: status %d: %.500s", what, c->status, c->body);
}

int pool_add(struct bench_daemon *d, const char *spec, const char *base_dir, struct vf_error *err)
{
    char target[PATH_MAX + 64];
    snprintf(target, sizeof(target), "/v1/templates?base_dir=%s", base_dir);
    int r = client_ask(&d->control, "POST", target, spec, err);
    return r < 0 ? r : expect(&d->control, 201, target, err);
}

int pool_add_subject(struct bench_daemon *d, const char *specs, const struct subject *of,
                     struct vf_error *err)
{
    struct vf_spec spec;
    int r = bench_spec(specs, of, &spec, err); /* with absolute paths */
    if (r < 0)
        return r;
    char *text = vf_spec_encode(&spec);
    r = text ? pool_add(d, text, "/", err) : vf_fail(err, VF_NO_MEMORY, "spec");
    free(text);
    vf_spec_free(&spec);
    return r;
}

static bool is_full(const struct vf_json *pool)
{
    const struct vf_json *config = vf_json_get(pool, "config");
    return vf_json_int(vf_json_get(pool, "parked"), -1) ==
               vf_json_int(vf_json_get(config, "target"), -2) &&
           vf_json_int(vf_json_get(pool, "standby"), -1) ==
               vf_json_int(vf_json_get(config, "standby"), -2) &&
           vf_json_int(vf_json_get(pool, "making"), -1) == 0 &&
           vf_json_int(vf_json_get(pool, "leased"), -1) == 0 &&
           strcmp(vf_json_str(vf_json_get(pool, "state"), ""), "ready") == 0;
}

/* VMs that are being released still count for max_vms: they have their directory. */
static bool is_settled(const struct bench_daemon *d, const char *name)
{
    struct vf_json *j = vf_json_parse(d->control.body, strlen(d->control.body));
    const struct vf_json *pools = vf_json_get(j, "pools"), *pool;
    bool full = false;
    int64_t vms = 0;
    for (size_t i = 0; (pool = vf_json_at(pools, i)); i++) {
        vms += vf_json_int(vf_json_get(pool, "parked"), 0) +
               vf_json_int(vf_json_get(pool, "standby"), 0);
        full |= strcmp(vf_json_str(vf_json_get(pool, "template"), ""), name) == 0 && is_full(pool);
    }
    vf_json_delete(j);
    return full && daemon_vm_dirs(d) <= vms;
}

int pool_await(struct bench_daemon *d, const char *name, struct vf_error *err)
{
    for (int64_t deadline = vf_deadline_after_ms(FILL_MS); vf_now_us() < deadline;) {
        int r = client_ask(&d->control, "GET", "/v1/pools", NULL, err);
        if (r == 0)
            r = expect(&d->control, 200, "pools", err);
        if (r < 0)
            return r;
        if (is_settled(d, name))
            return 0;
        if (vf_sync_interrupted(&d->bench->sync))
            return vf_fail(err, VF_CANCELLED, "interrupted by a signal");
        usleep(POLL_US);
    }
    return vf_fail(err, VF_TIMEOUT, "pool %s is not full within %d ms: %.500s", name, FILL_MS,
                   d->control.body);
}

int pool_fill(struct bench_daemon *d, const char *name, const char *config, struct vf_error *err)
{
    char target[128];
    snprintf(target, sizeof(target), "/v1/pools/%s", name);
    int r = client_ask(&d->control, "PATCH", target, config, err);
    if (r == 0)
        r = expect(&d->control, 200, target, err);
    snprintf(target, sizeof(target), "/v1/templates/%s", name);
    if (r == 0)
        r = client_ask(&d->control, "GET", target, NULL, err);
    if (r < 0)
        return r;
    struct vf_json *j = vf_json_parse(d->control.body, strlen(d->control.body));
    bool ready = strcmp(vf_json_str(vf_json_get(j, "state"), ""), "ready") == 0;
    vf_json_delete(j);
    snprintf(target, sizeof(target), "/v1/templates/%s/build", name);
    if (!ready)
        r = client_ask(&d->control, "POST", target, NULL, err);
    if (r == 0 && !ready)
        r = expect(&d->control, 202, target, err);
    return r < 0 ? r : pool_await(d, name, err);
}

static int read_vm(const char *body, struct got *ret, struct vf_error *err)
{
    struct vf_json *j = vf_json_parse(body, strlen(body));
    const struct vf_json *stages = vf_json_get(j, "stages"), *st;
    int r = 0;
    snprintf(ret->id, sizeof(ret->id), "%s", vf_json_str(vf_json_get(j, "id"), ""));
    snprintf(ret->source, sizeof(ret->source), "%s", vf_json_str(vf_json_get(j, "source"), ""));
    ret->total_us = vf_json_int(vf_json_get(j, "total_us"), 0);
    ret->stages_us = 0;
    for (size_t i = 0; (st = vf_json_at(stages, i)); i++)
        if (strcmp(vf_json_str(vf_json_get(st, "name"), ""), "lease") != 0)
            ret->stages_us += vf_json_int(vf_json_get(st, "us"), 0);
    if (!ret->id[0])
        r = vf_fail(err, VF_PROTOCOL, "acquire: no id in the answer: %.500s", body);
    vf_json_delete(j);
    return r;
}

int pool_acquire(struct client *c, const char *name, const char *require, struct got *ret,
                 struct vf_error *err)
{
    char body[256];
    int n = snprintf(body, sizeof(body), "{\"template\":\"%s\"", name);
    if (require)
        n += snprintf(body + n, sizeof(body) - (size_t)n, ",\"require\":[\"%s\"]", require);
    snprintf(body + n, sizeof(body) - (size_t)n, "}");
    int64_t deadline = vf_deadline_after_ms(BUSY_MS), t0;
    int r;
    do { /* one that was released may go a moment later than its directory */
        t0 = vf_now_us();
        r = client_ask(c, "POST", "/v1/vms", body, err);
        ret->round_trip_us = vf_now_us() - t0;
    } while (r == 0 && c->status == 429 && vf_now_us() < deadline && usleep(POLL_US) == 0);
    if (r == 0)
        r = expect(c, 201, "acquire", err);
    return r < 0 ? r : read_vm(c->body, ret, err);
}

int pool_release(struct client *c, const char *id, struct vf_error *err)
{
    char target[64];
    snprintf(target, sizeof(target), "/v1/vms/%s", id);
    int r = client_ask(c, "DELETE", target, NULL, err);
    return r < 0 ? r : expect(c, 204, "release", err);
}

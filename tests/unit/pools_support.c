#include "tests/unit/pools_support.h"

#include <dirent.h>
#include <sys/stat.h>
#include "base/clock.h"
#include "vmm/null.h"

const struct vf_caller root_caller = {.uid = 0, .admin = true};
const struct vf_caller alice = {.uid = 1001, .gid = 1001, .pid = 11};
const struct vf_caller bob = {.uid = 1002, .gid = 1002, .pid = 12};

static void on_ready(void *arg, const struct vf_error *err)
{
    cr_assert_null(err, "%s", err ? err->msg : "");
    *(bool *)arg = true;
}

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

static void nothing(void *arg)
{
    (void)arg;
}

static void on_timer(uv_timer_t *t)
{
    uv_stop(t->loop);
}

void pools_turn(struct pools *t)
{
    uv_timer_t timer;
    uv_timer_init(&t->loop, &timer);
    uv_timer_start(&timer, on_timer, 100, 0);
    uv_run(&t->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&t->loop, UV_RUN_NOWAIT);
}

void pools_start(struct pools *t)
{
    struct vf_error e;
    bool ready = false;
    t->events = vf_events_new();
    t->stats = vf_stats_new();
    t->follower = vf_event_follow(t->events, 0, 0, true, nothing, NULL);
    cr_assert_eq(
        vf_pools_open(&t->loop, &t->settings, t->events, t->stats, on_ready, &ready, &t->p, &e), 0,
        "%s", e.msg);
    POOLS_WAIT(t, ready);
}

void pools_open(struct pools *t)
{
    struct vf_error e;
    char path[300];
    *t = (struct pools){0};
    scratch_open(&t->dir);
    uv_loop_init(&t->loop);
    cr_assert_eq(vf_settings_init(&t->settings, &e), 0, "%s", e.msg);
    snprintf(path, sizeof(path), "%s/state", t->dir.path);
    cr_assert_eq(vf_settings_set(&t->settings, "state_dir", path, &e), 0, "%s", e.msg);
    snprintf(path, sizeof(path), "%s/run", t->dir.path);
    cr_assert_eq(vf_settings_set(&t->settings, "run_dir", path, &e), 0, "%s", e.msg);
    t->settings.backoff_initial_ms = 10;
    t->settings.backoff_max_ms = 40;
    t->settings.psi_some_percent = 0;
    t->settings.min_available_mib = 0;
    t->settings.network = VF_NETWORKS_OFF; /* nothing of the machine is touched */
    pools_start(t);
}

void pools_script(const char *script)
{
    struct vf_null_script s = {0};
    struct vf_error e;
    cr_assert_eq(vf_null_script_parse(script ? script : "", &s, &e), 0, "%s", e.msg);
    vf_null_set_default(&s);
}

void pools_shut(struct pools *t)
{
    bool closed = false;
    vf_pools_close(t->p, on_closed, &closed);
    POOLS_WAIT(t, closed);
    vf_event_unfollow(t->follower);
    vf_events_free(t->events);
    vf_stats_free(t->stats);
}

void pools_reopen(struct pools *t)
{
    pools_shut(t);
    pools_start(t);
}

int pools_dirs(struct pools *t)
{
    char path[300];
    int n = 0;
    snprintf(path, sizeof(path), "%s/run/vms", t->dir.path);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

void pools_close(struct pools *t)
{
    pools_shut(t);
    cr_expect_eq(pools_dirs(t), 0, "%d VM directories are left", pools_dirs(t));
    vf_settings_free(&t->settings);
    uv_run(&t->loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&t->loop), 0, "a handle is left");
    scratch_close(&t->dir);
    vf_null_set_default(NULL);
}

/* ---- templates */

void pools_on_end(void *arg, const struct vf_error *err)
{
    struct pools_end *e = arg;
    cr_assert_not(e->done, "told twice");
    e->done = true;
    if (err)
        e->err = *err;
}

struct vf_pool *pools_pool(struct pools *t, const char *name)
{
    struct vf_pool *pool;
    struct vf_error e;
    cr_assert_eq(vf_pools_find(t->p, name, &pool, &e), 0, "%s", e.msg);
    return pool;
}

struct vf_pool *pools_add(struct pools *t, const char *name, const char *parks)
{
    char text[400];
    struct vf_spec spec;
    struct vf_error e;
    struct pools_end o = {0};
    snprintf(text, sizeof(text),
             "{\"name\":\"%s\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16},"
             "\"boot\":{\"kernel\":\"/proc/self/exe\"},"
             "\"agent\":{\"ready_timeout_ms\":5000},\"park\":\"%s\"}",
             name, parks);
    cr_assert_eq(vf_spec_parse(text, strlen(text), NULL, NULL, &spec, &e), 0, "%s", e.msg);
    /* One that does not change: /proc/self/exe is another file in each test's process. */
    cr_assert_eq(vf_pools_add(t->p, &spec, pools_on_end, &o, &e), 0, "%s", e.msg);
    POOLS_WAIT(t, o.done);
    cr_assert_eq(o.err.code, VF_OK, "%s", o.err.msg);
    vf_spec_free(&spec);
    return pools_pool(t, name);
}

static struct vf_json *json_of(const struct vf_pool *pool, const struct vf_slot *vm)
{
    struct vf_json_writer w = {0};
    if (pool)
        vf_pool_write(&w, NULL, pool);
    else
        vf_slot_write(&w, NULL, vm);
    char *text = vf_jw_finish(&w);
    cr_assert_not_null(text);
    struct vf_json *j = vf_json_parse(text, strlen(text));
    cr_assert_not_null(j, "%s", text);
    free(text);
    return j;
}

int64_t pools_number(const struct vf_pool *pool, const char *key)
{
    struct vf_json *j = json_of(pool, NULL);
    int64_t n = vf_json_int(vf_json_get(j, key), -1);
    vf_json_delete(j);
    return n;
}

void pools_text(const struct vf_pool *pool, const char *key, char ret[256])
{
    struct vf_json *j = json_of(pool, NULL);
    snprintf(ret, 256, "%s", vf_json_str(vf_json_get(j, key), ""));
    vf_json_delete(j);
}

void pools_vm_text(const struct vf_slot *vm, const char *key, char ret[256])
{
    struct vf_json *j = json_of(NULL, vm);
    snprintf(ret, 256, "%s", vf_json_str(vf_json_get(j, key), ""));
    vf_json_delete(j);
}

void pools_warm(struct pools *t, struct vf_pool *pool, int64_t n)
{
    struct vf_error e;
    cr_assert_eq(vf_pool_warm(pool, n, &e), 0, "%s", e.msg);
    POOLS_WAIT(t, pools_number(pool, "parked") == n);
}

void pools_set(struct vf_pool *pool, void (*change)(struct vf_pool_config *c))
{
    struct vf_pool_config c = *vf_pool_config(pool);
    struct vf_error e;
    change(&c);
    cr_assert_eq(vf_pool_set(pool, &c, &e), 0, "%s", e.msg);
}

/* ---- VMs */

static void on_acquired(void *arg, struct vf_slot *vm, const struct vf_error *err, int retry)
{
    struct got *g = arg;
    cr_assert(!g->done, "answered twice");
    g->done = true;
    g->vm = vm;
    g->req = NULL;
    g->retry_after_s = retry;
    if (vm)
        snprintf(g->id, sizeof(g->id), "%s", vf_slot_id(vm));
    if (err)
        g->err = *err;
}

void pools_acquire_with(struct pools *t, const struct vf_acquire_options *o,
                        const struct vf_caller *who, struct got *ret)
{
    struct vf_slot *vm;
    struct vf_error e = {0};
    int retry = 0;
    *ret = (struct got){0};
    int r = vf_pools_acquire(t->p, who, o, on_acquired, ret, &ret->req, &vm, &retry, &e);
    if (r != 0)
        on_acquired(ret, r > 0 ? vm : NULL, r < 0 ? &e : NULL, retry);
}

void pools_acquire(struct pools *t, const char *name, const struct vf_caller *who, unsigned require,
                   struct got *ret)
{
    struct vf_acquire_options o = {.template_name = name, .require = require, .timeout_ms = 15000};
    pools_acquire_with(t, &o, who, ret);
}

struct vf_slot *pools_take(struct pools *t, const char *name, const struct vf_caller *who,
                           unsigned require)
{
    struct got g;
    pools_acquire(t, name, who, require, &g);
    POOLS_WAIT(t, g.done);
    cr_assert_not_null(g.vm, "%s", g.err.msg);
    return g.vm;
}

void pools_release(struct pools *t, const char *id, const struct vf_caller *who)
{
    struct pools_end o = {0};
    struct vf_error e;
    char copy[16];
    snprintf(copy, sizeof(copy), "%s", id); /* id may be the VM's own */
    int r = vf_pools_release(t->p, copy, who, pools_on_end, &o, &e);
    cr_assert_geq(r, 0, "%s", e.msg);
    if (r == 0)
        POOLS_WAIT(t, o.done);
    cr_assert_eq(o.err.code, VF_OK, "%s", o.err.msg);
}

bool pools_heard(struct pools *t, const char *words)
{
    const char *line;
    while ((line = vf_event_next(t->follower)))
        if (strstr(line, words))
            return true;
    return false;
}

/* VMs handed out one at a time: hits on VMs parked running and paused, standby against clone, and what the daemon
 * adds to a clone. Whatever is compared is measured in turn.
 *
 * A pool refills as soon as a VM was taken. So that this does not disturb what is measured, the daemon's max_vms
 * equals the pool's target: refilling waits until leased VMs are released.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "tools/bench/daemon.h"

#define MOST_AT_ONCE 64
#define PAUSE_US 1000 /* before a request: caches are cold then, as for a caller out of the blue */

static int release_all(struct bench_daemon *d, char ids[][16], int n, struct vf_error *err)
{
    int r = 0;
    for (int i = 0; r == 0 && i < n; i++)
        r = pool_release(&d->control, ids[i], err);
    return r;
}

/* ---- hits, parked running */

static int hits_round(struct bench_daemon *d, const char *name, int n, bool pause,
                      struct client *kept, struct figure *on_new, struct figure *on_kept,
                      struct vf_error *err)
{
    char ids[MOST_AT_ONCE][16];
    int r = pool_await(d, name, err), i = 0;
    for (; r == 0 && i < n; i++) {
        struct client fresh = {.fd = -1, .path = d->api};
        bool is_new = i % 4 == 0 || i % 4 == 3; /* A B B A */
        struct got got;
        if (pause)
            usleep(PAUSE_US);
        r = pool_acquire(is_new ? &fresh : kept, name, "hit", &got, err);
        client_free(&fresh);
        if (r < 0)
            break;
        series_add(is_new ? &on_new->ours : &on_kept->ours, got.round_trip_us);
        strcpy(ids[i], got.id);
    }
    return r < 0 ? r : release_all(d, ids, n, err);
}

/* One after the other; and each after a pause. */
static int hits(struct bench_daemon *d, const char *name, const char *guest, int rounds, int n,
                struct vf_error *err)
{
    static const char *const how[] = {"", ", 1 ms after the last"};
    struct bench *b = d->bench;
    struct client kept = {.fd = -1, .path = d->api};
    struct figure *f[2][2];
    for (int pause = 0; pause < 2; pause++) {
        f[pause][0] = figure_add(b, JUDGE_P50, 150, NULL, "hit, running, %s, new connection%s",
                                 guest, how[pause]);
        f[pause][1] = figure_add(b, JUDGE_P50, 100, NULL, "hit, running, %s, kept connection%s",
                                 guest, how[pause]);
    }
    int r = client_ask(&kept, "GET", "/v1/version", NULL, err);
    for (int i = 0; r == 0 && i < 2 * rounds; i++)
        r = hits_round(d, name, n, i % 2 == 1, &kept, f[i % 2][0], f[i % 2][1], err);
    client_free(&kept);
    return r;
}

/* ---- a clone through the daemon, and by the factory within this process */

static int null_clones(struct bench_daemon *d, struct vf_sync *s, struct vf_generation *gen,
                       int count, struct vf_error *err)
{
    struct figure *f = figure_add(d->bench, JUDGE_OVER, 1000, "factory alone", "clone, null");
    struct client kept = {.fd = -1, .path = d->api};
    int r = client_ask(&kept, "GET", "/v1/version", NULL, err);
    for (int i = 0; r == 0 && i < 2 * count; i++) {
        if (i % 4 == 0 || i % 4 == 3) {
            struct got got;
            r = pool_acquire(&kept, "null", "clone", &got, err);
            if (r == 0)
                r = pool_release(&kept, got.id, err);
            if (r == 0)
                series_add(&f->ours, got.round_trip_us);
        } else {
            struct vf_instance *vm;
            int64_t t0 = vf_now_us();
            r = vf_sync_clone(s, gen, NULL, &vm, err);
            if (r < 0)
                break;
            series_add(&f->base, vf_now_us() - t0);
            vf_sync_destroy(s, vm);
        }
    }
    client_free(&kept);
    return r;
}

/* Both with their VMs' directories on the same file system. */
static int null_share(struct bench_daemon *d, int count, struct vf_error *err)
{
    char dir[128];
    struct vf_sync s;
    struct vf_spec spec = {0};
    struct vf_generation *gen = NULL;
    snprintf(dir, sizeof(dir), "%s/factory", d->run_base[0] ? d->run_base : d->dir);
    struct vf_sync_options o = {.dir = dir, .keep_signals = true};
    int r = vf_sync_open(&s, &o, err);
    if (r == 0)
        r = vf_spec_parse(NULL_SPEC, strlen(NULL_SPEC), NULL, NULL, &spec, err);
    if (r == 0)
        r = vf_sync_build(&s, &spec, NULL, &gen, err);
    if (r == 0)
        r = null_clones(d, &s, gen, count, err);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    vf_sync_close(&s);
    return r;
}

static int null_hits(struct bench *b, struct vf_error *err)
{
    static const char *const settings[] = {"max_vms=64", NULL};
    struct bench_daemon d;
    struct vf_error e;
    int r = daemon_open(&d, b, settings, err);
    if (r == 0)
        r = pool_add(&d, NULL_SPEC, "/", err);
    if (r == 0)
        r = pool_fill(&d, "null",
                      "{\"max\":64,\"target\":64,\"park\":\"running\",\"refill_concurrency\":8}",
                      err);
    if (r == 0)
        r = hits(&d, "null", "null", b->hit_rounds, 40, err);
    if (r == 0)
        r = pool_fill(&d, "null", "{\"target\":0}", err);
    if (r == 0)
        r = null_share(&d, b->hit_rounds * 10, err);
    int closed = daemon_close(&d, r < 0 ? &e : err);
    return r < 0 ? r : closed;
}

int daemon_vms(struct bench *b, const char *specs, struct vf_error *err)
{
    static const char *const settings[] = {"max_vms=8", NULL};
    struct bench_daemon d;
    struct vf_error e;
    char file[4096];
    int r = null_hits(b, err);
    if (r < 0)
        return r;
    snprintf(file, sizeof(file), "%s/tiny.json", specs);
    r = daemon_open(&d, b, settings, err);
    if (r == 0)
        r = pool_add_file(&d, file, VF_ACCEL_TCG, err);
    if (r == 0)
        r = pool_fill(&d, "tiny", "{\"max\":8,\"target\":8,\"park\":\"running\"}", err);
    if (r == 0)
        r = hits(&d, "tiny", "QEMU tiny TCG", b->hit_rounds * 2, 6, err);
    int closed = daemon_close(&d, r < 0 ? &e : err);
    return r < 0 ? r : closed;
}

/* ---- Linux under TCG */

static int floor_wake(struct bench *b, struct vf_generation *gen, struct figure *f,
                      struct vf_error *err)
{
    struct vf_floor_times t;
    int r = vf_floor_clone(&b->floor, gen, 1, &t, err);
    if (r == 0)
        series_add(&f->base, t.wake);
    return r;
}

static int paused_hit(struct bench_daemon *d, struct client *c, struct figure *f, char *ret_id,
                      struct vf_error *err)
{
    struct got got;
    int r = pool_acquire(c, "linux", "hit", &got, err);
    if (r < 0)
        return r;
    series_add(&f->ours, got.round_trip_us);
    strcpy(ret_id, got.id);
    (void)d;
    return 0;
}

#define PAUSED 6
static int paused_hits(struct bench_daemon *d, struct vf_generation *gen, struct client *c,
                       struct vf_error *err)
{
    struct bench *b = d->bench;
    struct figure *f = figure_add(b, JUDGE_OVER, 1000, "by hand", "hit, paused, Linux TCG");
    int r = pool_fill(d, "linux", "{\"max\":6,\"target\":6,\"park\":\"paused\"}", err);
    for (int done = 0; r == 0 && done < b->linux_vms; done += PAUSED) {
        char ids[PAUSED][16];
        r = pool_await(d, "linux", err);
        for (int i = 0; r == 0 && i < PAUSED; i++) {
            bool first = i % 2 == 0;
            r = first ? paused_hit(d, c, f, ids[i], err) : floor_wake(b, gen, f, err);
            if (r == 0)
                r = first ? floor_wake(b, gen, f, err) : paused_hit(d, c, f, ids[i], err);
        }
        if (r == 0)
            r = release_all(d, ids, PAUSED, err);
    }
    return r;
}

/* A clone, then one in a standby VMM: with the clone there are max_vms, so no VMM is started while either is made. */
static int standby_and_clone(struct bench_daemon *d, struct client *c, struct vf_error *err)
{
    struct bench *b = d->bench;
    struct figure *f = figure_add(b, JUDGE_RATIO, 0.7, "clone", "standby, Linux TCG");
    struct figure *share =
        figure_add(b, JUDGE_P50, 1000, NULL, "clone, Linux TCG: round trip less the VM's stages");
    int r = pool_fill(d, "linux", "{\"target\":0,\"standby\":5}", err);
    for (int i = 0; r == 0 && i < b->linux_vms; i++) {
        struct got clone, standby;
        r = pool_await(d, "linux", err);
        if (r == 0)
            r = pool_acquire(c, "linux", "clone", &clone, err);
        if (r == 0)
            r = pool_acquire(c, "linux", "standby", &standby, err);
        if (r < 0)
            return r;
        series_add(&f->base, clone.round_trip_us);
        series_add(&f->ours, standby.round_trip_us);
        series_add(&share->ours, clone.round_trip_us - clone.stages_us);
        r = pool_release(c, clone.id, err);
        if (r == 0)
            r = pool_release(c, standby.id, err);
    }
    return r;
}

int daemon_linux(struct bench *b, const char *specs, struct vf_error *err)
{
    static const char *const settings[] = {"max_vms=6", NULL};
    struct bench_daemon d;
    struct vf_error e;
    struct vf_spec spec = {0};
    struct vf_generation *gen = NULL;
    struct client c = {.fd = -1};
    char file[4096];
    snprintf(file, sizeof(file), "%s/linux.json", specs);
    int r = daemon_open(&d, b, settings, err);
    c.path = d.api;
    if (r == 0)
        r = vf_spec_load(file, &spec, err);
    if (r == 0)
        r = pool_add_file(&d, file, VF_ACCEL_TCG, err);
    spec.accel = VF_ACCEL_TCG;
    if (r == 0) /* of its own for the floor: the daemon's store is the daemon's */
        r = vf_sync_build(&b->sync, &spec, NULL, &gen, err);
    if (r == 0)
        r = paused_hits(&d, gen, &c, err);
    vf_generation_unref(gen);
    if (r == 0)
        r = standby_and_clone(&d, &c, err);
    client_free(&c);
    vf_spec_free(&spec);
    int closed = daemon_close(&d, r < 0 ? &e : err);
    return r < 0 ? r : closed;
}

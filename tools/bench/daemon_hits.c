/* Figures of VMs handed out one at a time, of any template: hits on VMs parked running and paused, standby against
 * clone. Whatever is compared is measured in turn.
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
int hits(struct bench_daemon *d, const char *name, const char *guest, int rounds, int n,
         struct series *also, struct vf_error *err)
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
    for (size_t i = 0; also && i < f[0][0]->ours.n; i++)
        series_add(also, f[0][0]->ours.v[i]);
    return r;
}

/* ---- hits, parked paused */

static int floor_wake(struct bench *b, struct vf_generation *gen, struct figure *f,
                      struct vf_error *err)
{
    struct vf_floor_times t;
    int r = vf_floor_clone(&b->floor, gen, 1, &t, err);
    if (r == 0)
        series_add(&f->base, t.wake);
    return r;
}

static int paused_hit(struct client *c, const char *name, struct figure *f, char *ret_id,
                      struct vf_error *err)
{
    struct got got;
    int r = pool_acquire(c, name, "hit", &got, err);
    if (r < 0)
        return r;
    series_add(&f->ours, got.round_trip_us);
    strcpy(ret_id, got.id);
    return 0;
}

#define PAUSED 6
int paused_hits(struct bench_daemon *d, const char *name, const char *guest,
                struct vf_generation *gen, struct vf_error *err)
{
    struct bench *b = d->bench;
    struct client c = {.fd = -1, .path = d->api};
    struct figure *f = figure_add(b, JUDGE_OVER, 1000, "by hand", "hit, paused, %s", guest);
    int r = pool_fill(d, name, "{\"max\":6,\"target\":6,\"park\":\"paused\"}", err);
    for (int done = 0; r == 0 && done < b->linux_vms; done += PAUSED) {
        char ids[PAUSED][16];
        r = pool_await(d, name, err);
        for (int i = 0; r == 0 && i < PAUSED; i++) {
            bool first = i % 2 == 0;
            r = first ? paused_hit(&c, name, f, ids[i], err) : floor_wake(b, gen, f, err);
            if (r == 0)
                r = first ? floor_wake(b, gen, f, err) : paused_hit(&c, name, f, ids[i], err);
        }
        if (r == 0)
            r = release_all(d, ids, PAUSED, err);
    }
    client_free(&c);
    return r;
}

/* ---- standby */

struct versus {
    struct bench_daemon *d;
    struct client c;
    const char *name;
    struct figure *f, *share;
};

static int one_clone(struct versus *v, struct vf_error *err)
{
    struct got got;
    int r = pool_await(v->d, v->name, err);
    if (r == 0)
        r = pool_acquire(&v->c, v->name, "clone", &got, err);
    if (r < 0)
        return r;
    series_add(&v->f->base, got.round_trip_us);
    series_add(&v->share->ours, got.round_trip_us - got.stages_us);
    return pool_release(&v->c, got.id, err);
}

/* With a VM of the null driver there are max_vms, so that no VMM is started meanwhile. */
static int one_standby(struct versus *v, struct vf_error *err)
{
    struct got null, got;
    int r = pool_await(v->d, v->name, err);
    if (r == 0)
        r = pool_acquire(&v->c, "null", "clone", &null, err);
    if (r == 0)
        r = pool_acquire(&v->c, v->name, "standby", &got, err);
    if (r < 0)
        return r;
    series_add(&v->f->ours, got.round_trip_us);
    r = pool_release(&v->c, got.id, err);
    return r < 0 ? r : pool_release(&v->c, null.id, err);
}

int standby_and_clone(struct bench_daemon *d, const char *name, const char *guest,
                      struct vf_error *err)
{
    struct bench *b = d->bench;
    struct versus v = {.d = d, .c = {.fd = -1, .path = d->api}, .name = name};
    v.f = figure_add(b, JUDGE_RATIO, 0.7, "clone", "standby, %s", guest);
    v.share =
        figure_add(b, JUDGE_P50, 1000, NULL, "clone, %s: round trip less the VM's stages", guest);
    int r = pool_add(d, NULL_SPEC, "/", err);
    if (r == 0)
        r = pool_fill(d, "null", "{\"target\":0}", err);
    if (r == 0)
        r = pool_fill(d, name, "{\"max\":6,\"target\":0,\"standby\":5}", err);
    for (int i = 0; r == 0 && i < b->linux_vms; i++) {
        r = i % 2 ? one_standby(&v, err) : one_clone(&v, err);
        if (r == 0)
            r = i % 2 ? one_clone(&v, err) : one_standby(&v, err);
    }
    client_free(&v.c);
    return r;
}

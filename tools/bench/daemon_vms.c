/* VMs handed out one at a time: which daemon has which pool for the figures of daemon_hits.c; and what the daemon adds
 * to a clone, measured in turn with the factory alone. */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "tools/bench/daemon.h"

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
        r = hits(&d, "null", "null", b->hit_rounds, 40, NULL, err);
    if (r == 0)
        r = pool_fill(&d, "null", "{\"target\":0}", err);
    if (r == 0)
        r = null_share(&d, b->hit_rounds * 10, err);
    int closed = daemon_close(&d, r < 0 ? &e : err);
    return r < 0 ? r : closed;
}

static int tiny_tcg(struct bench *b, const char *specs, struct vf_error *err)
{
    static const char *const settings[] = {"max_vms=8", NULL};
    static const struct subject of = {VF_SPEC_VMM_QEMU, "tiny", VF_ACCEL_TCG};
    struct bench_daemon d;
    struct vf_error e;
    int r = daemon_open(&d, b, settings, err);
    if (r == 0)
        r = pool_add_subject(&d, specs, &of, err);
    if (r == 0)
        r = pool_fill(&d, "tiny", "{\"max\":8,\"target\":8,\"park\":\"running\"}", err);
    if (r == 0)
        r = hits(&d, "tiny", "QEMU tiny TCG", b->hit_rounds * 2, 6, NULL, err);
    int closed = daemon_close(&d, r < 0 ? &e : err);
    return r < 0 ? r : closed;
}

int daemon_vms(struct bench *b, const char *specs, struct vf_error *err)
{
    int r = null_hits(b, err);
    return r < 0 ? r : tiny_tcg(b, specs, err);
}

/* ---- a guest in a VMM */

int daemon_guest(struct bench *b, const char *specs, const struct subject *of, bool running,
                 struct vf_error *err)
{
    static const char *const settings[] = {"max_vms=6", NULL};
    struct bench_daemon d;
    struct vf_error e;
    struct vf_spec spec = {0};
    struct vf_generation *gen = NULL;
    char label[48];
    snprintf(label, sizeof(label), "%s %s %s", vf_spec_vmm_names[of->vmm], of->guest,
             vf_accel_names[of->accel]);
    int r = daemon_open(&d, b, settings, err);
    if (r == 0)
        r = bench_spec(specs, of, &spec, err);
    if (r == 0)
        r = pool_add_subject(&d, specs, of, err);
    if (r == 0 && running)
        r = pool_fill(&d, spec.name, "{\"max\":6,\"target\":6,\"park\":\"running\"}", err);
    if (r == 0 && running)
        r = hits(&d, spec.name, label, b->hit_rounds * 2, 4, &b->hits[of->vmm], err);
    bool pauses = r == 0 && spec.park == VF_PARK_PAUSED;
    if (pauses) /* of its own for the floor: the daemon's store is the daemon's */
        r = vf_sync_build(&b->sync, &spec, NULL, &gen, err);
    if (pauses && r == 0)
        r = paused_hits(&d, spec.name, label, gen, err);
    vf_generation_unref(gen);
    if (r == 0)
        r = standby_and_clone(&d, spec.name, label, err);
    vf_spec_free(&spec);
    int closed = daemon_close(&d, r < 0 ? &e : err);
    return r < 0 ? r : closed;
}

/* Ours and the floor in turn, A B B A, so that a machine that slows down slows both. */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "tools/bench/bench.h"
#include "vmm/vmm.h"

#define BIG_MIB 4096

static struct result *new_result(struct bench *b, const char *name, const struct subject *of,
                                 int64_t memory_mib, int parallel)
{
    static struct result spill; /* measured, not shown: only if MAX_RESULTS is too small */
    struct result *r = b->n_results < MAX_RESULTS ? &b->results[b->n_results++] : &spill;
    *r = (struct result){.name = name, .of = *of, .memory_mib = memory_mib, .parallel = parallel};
    return r;
}

static struct stage_series *stage(struct result *r, const char *name)
{
    for (int i = 0; i < r->n_stages; i++)
        if (strcmp(r->stages[i].name, name) == 0)
            return &r->stages[i];
    if (r->n_stages == MAX_BENCH_STAGES)
        r->n_stages--;
    r->stages[r->n_stages] = (struct stage_series){.name = name};
    return &r->stages[r->n_stages++];
}

static void add_stages(struct result *r, const struct vf_instance *vm)
{
    int n;
    const struct vf_stage *st = vf_instance_stages(vm, &n);
    for (int i = 0; i < n; i++)
        series_add(&stage(r, st[i].name)->ours, st[i].us);
}

static void add_floor(struct result *r, const char *name, int64_t us)
{
    if (us >= 0)
        series_add(&stage(r, name)->floor, us);
}

/* ---- clone, and resume of a parked one */

static void add_memory(struct memory_series *s, struct vf_instance *vm, struct vf_generation *gen)
{
    struct vf_memory_use m;
    if (vf_measure_memory(vf_vm_info_of(vf_instance_vm(vm))->pid, &m, NULL) < 0)
        return;
    series_add(&s->guest_anonymous, m.guest_anonymous);
    series_add(&s->vmm_anonymous, m.vmm_anonymous);
    series_add(&s->pss, m.pss);
    vf_measure_resident(gen->memory_fd, &s->template_resident, NULL);
}

/* resume NULL: it can't be parked paused. */
static int our_clone(struct bench *b, struct vf_generation *gen, struct result *clone,
                     struct result *resume, struct vf_error *err)
{
    struct vf_instance *vm;
    int64_t t0 = vf_now_us();
    int r = vf_sync_clone(&b->sync, gen, NULL, &vm, err);
    if (r < 0)
        return r;
    series_add(&clone->ours, vf_now_us() - t0);
    add_stages(clone, vm);
    add_memory(&clone->memory, vm, gen);
    r = resume ? vf_sync_park(&b->sync, vm, err) : 0;
    if (r < 0)
        return r;
    t0 = vf_now_us();
    r = resume ? vf_sync_wake(&b->sync, vm, err) : 0;
    if (r < 0)
        return r;
    if (resume) {
        series_add(&resume->ours, vf_now_us() - t0);
        add_stages(resume, vm);
    }
    vf_sync_destroy(&b->sync, vm);
    return 0;
}

static int floor_clone(struct bench *b, struct vf_generation *gen, struct result *clone,
                       struct result *resume, struct vf_error *err)
{
    struct vf_floor_times t;
    int r = vf_floor_clone(&b->floor, gen, 1, &t, err);
    if (r < 0)
        return r;
    series_add(&clone->floor, t.total);
    if (resume)
        series_add(&resume->floor, t.wake);
    add_floor(clone, "vmm", t.vmm);
    add_floor(clone, "restore", t.restore);
    add_floor(clone, "resume", t.resume);
    add_floor(clone, "prove", t.prove);
    return 0;
}

static int measure_clones(struct bench *b, struct vf_generation *gen, const struct subject *of,
                          struct vf_error *err)
{
    int64_t mib = gen->manifest.spec.memory.size_mib;
    bool pauses = gen->manifest.spec.park == VF_PARK_PAUSED;
    struct result *clone = new_result(b, "clone", of, mib, 1);
    struct result *resume = pauses ? new_result(b, "resume", of, mib, 1) : NULL;
    int r = 0;
    for (int i = 0; r == 0 && i < b->clones; i++) {
        bool first = i % 2 == 0;
        r = first ? our_clone(b, gen, clone, resume, err) : floor_clone(b, gen, clone, resume, err);
        if (r == 0)
            r = first ? floor_clone(b, gen, clone, resume, err)
                      : our_clone(b, gen, clone, resume, err);
    }
    return r;
}

/* ---- many at once */

static int our_burst(struct bench *b, struct vf_generation *gen, struct result *res,
                     struct vf_error *err)
{
    struct vf_instance *vms[64];
    int64_t t0 = vf_now_us();
    int r = vf_sync_clones(&b->sync, gen, b->burst_size, vms, err);
    if (r < 0)
        return r;
    series_add(&res->ours, vf_now_us() - t0);
    for (int i = 0; i < b->burst_size; i++)
        vf_sync_destroy(&b->sync, vms[i]);
    return 0;
}

static int floor_burst(struct bench *b, struct vf_generation *gen, struct result *res,
                       struct vf_error *err)
{
    struct vf_floor_times t;
    int r = vf_floor_clone(&b->floor, gen, b->burst_size, &t, err);
    if (r == 0)
        series_add(&res->floor, t.wall);
    return r;
}

static int measure_bursts(struct bench *b, struct vf_generation *gen, const struct subject *of,
                          struct vf_error *err)
{
    int r = 0;
    if (b->bursts == 0)
        return 0;
    struct result *res =
        new_result(b, "clone", of, gen->manifest.spec.memory.size_mib, b->burst_size);
    for (int i = 0; r == 0 && i < b->bursts; i++) {
        bool first = i % 2 == 0;
        r = first ? our_burst(b, gen, res, err) : floor_burst(b, gen, res, err);
        if (r == 0)
            r = first ? floor_burst(b, gen, res, err) : our_burst(b, gen, res, err);
    }
    return r;
}

/* ---- cold boots; the floor saves its VM too */

static int measure_colds(struct bench *b, const struct vf_spec *spec, const struct subject *of,
                         struct result *save, struct vf_error *err)
{
    struct result *cold = new_result(b, "cold", of, spec->memory.size_mib, 1);
    for (int i = 0; i < b->colds; i++) {
        struct vf_instance *vm;
        struct vf_floor_times t;
        int64_t t0 = vf_now_us();
        int r = vf_sync_cold(&b->sync, spec, NULL, &vm, err);
        if (r < 0)
            return r;
        series_add(&cold->ours, vf_now_us() - t0);
        add_stages(cold, vm);
        vf_sync_destroy(&b->sync, vm);
        r = vf_floor_cold(&b->floor, spec, of->accel, &t, err);
        if (r < 0)
            return r;
        series_add(&cold->floor, t.total);
        series_add(&save->floor, t.save);
        add_floor(cold, "vmm", t.vmm);
        add_floor(cold, "boot", t.boot);
        add_floor(cold, "renew", t.renew);
    }
    return 0;
}

/* ---- builds, each with a save */

static int build(struct bench *b, const struct vf_spec *spec, struct result *save,
                 struct vf_generation **ret_gen, struct vf_error *err)
{
    int r = vf_sync_build(&b->sync, spec, NULL, ret_gen, err);
    if (r < 0)
        return vf_wrap(err, "%s, %lld MiB", spec->name, (long long)spec->memory.size_mib);
    const struct vf_manifest *m = &(*ret_gen)->manifest;
    series_add(&save->ours, m->stats.save_us);
    snprintf(b->versions[spec->vmm], sizeof(b->versions[0]), "%s", m->vmm.version);
    return 0;
}

static int one_save(struct bench *b, const struct vf_spec *spec, const struct subject *of,
                    struct result *save, struct vf_error *err)
{
    struct vf_generation *gen = NULL;
    struct vf_floor_times t;
    int r = build(b, spec, save, &gen, err);
    vf_generation_unref(gen);
    if (r == 0)
        r = vf_floor_cold(&b->floor, spec, of->accel, &t, err);
    if (r == 0)
        series_add(&save->floor, t.save);
    return r;
}

/* Where the VMM leaves shared memory alone, a second size in turn with the first: a save must not depend on it. */
static int measure_saves(struct bench *b, const struct vf_spec *small, const struct subject *of,
                         struct result *save, struct vf_error *err)
{
    struct vf_spec big;
    struct vf_vmm_caps caps;
    vf_vmm_find(vf_spec_vmm_names[of->vmm])->capabilities(NULL, &caps);
    bool scales = caps.shared_memory_save &&
                  (strcmp(of->guest, "linux") == 0 || of->vmm == VF_SPEC_VMM_CLOUD_HYPERVISOR);
    struct result *big_save = scales ? new_result(b, "save", of, BIG_MIB, 1) : NULL;
    int r = vf_spec_copy(small, &big, err);
    if (r < 0)
        return r;
    big.memory.size_mib = BIG_MIB;
    for (int i = 0; r == 0 && i < b->saves; i++) {
        r = scales ? one_save(b, &big, of, big_save, err) : 0;
        if (r == 0)
            r = one_save(b, small, of, save, err);
    }
    vf_spec_free(&big);
    return r;
}

int bench_guest(struct bench *b, const char *specs, const struct subject *of, struct vf_error *err)
{
    struct vf_spec spec;
    struct vf_generation *gen = NULL;
    int r = bench_spec(specs, of, &spec, err);
    if (r < 0)
        return r;
    struct result *save = new_result(b, "save", of, spec.memory.size_mib, 1);
    r = build(b, &spec, save, &gen, err);
    if (r == 0 && !b->saves_only)
        r = measure_clones(b, gen, of, err);
    if (r == 0 && !b->saves_only && strcmp(of->guest, "linux") == 0)
        r = measure_bursts(b, gen, of, err);
    if (r == 0 && !b->saves_only)
        r = measure_colds(b, &spec, of, save, err);
    vf_generation_unref(gen);
    if (r == 0)
        r = measure_saves(b, &spec, of, save, err);
    vf_spec_free(&spec);
    return r;
}

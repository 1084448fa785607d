/* Counting. An event takes the lock for a few additions; who shows takes it for one template's copy at a
 * time and formats without it. A template's counters stay where they are until vf_stats_free, so that the
 * pool may keep their address.
 */
#include "pool/stats.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "pool/stats_internal.h"

const char *const vf_got_names[] = {"hit", "standby", "clone", "cold", NULL};
const char *const vf_lease_end_names[] = {"released", "expired", "died", "unclaimed", NULL};
const char *const vf_template_state_names[] = {"absent", "loading",     "building",
                                               "ready",  "quarantined", NULL};
static_assert(sizeof(vf_got_names) / sizeof(char *) == VF_GOT_COUNT + 1, "one name each");
static_assert(sizeof(vf_lease_end_names) / sizeof(char *) == VF_LEASE_END_COUNT + 1, "likewise");
static_assert(sizeof(vf_template_state_names) / sizeof(char *) == VF_TEMPLATE_STATE_COUNT + 1,
              "likewise");

struct vf_stats {
    pthread_mutex_t lock;
    struct vf_stats_template **templates; /* by name */
    size_t n, cap;
    uint64_t adopted[VF_ADOPTED_COUNT];
    struct vf_histogram turns;
    int64_t longest_turn_us, turned_us; /* when, vf_now_us */
    int64_t process_started_us;
    bool ready;
    struct vf_stats_slots slots;
};

static void lock(struct vf_stats *s)
{
    pthread_mutex_lock(&s->lock);
}

static void unlock(struct vf_stats *s)
{
    pthread_mutex_unlock(&s->lock);
}

void vf_stats_lock(struct vf_stats *s)
{
    lock(s);
}

void vf_stats_unlock(struct vf_stats *s)
{
    unlock(s);
}

struct vf_stats_slots *vf_stats_slots(struct vf_stats *s)
{
    return &s->slots;
}

struct vf_stats *vf_stats_new(void)
{
    struct vf_stats *s = (struct vf_stats *)calloc(1, sizeof(*s));

    if (s == NULL)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    s->turned_us = vf_now_us(); /* a daemon that is just starting is alive */
    s->process_started_us = vf_stats_process_started_us();
    return s;
}

void vf_stats_free(struct vf_stats *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n; i++) {
        free(s->templates[i]->name);
        free(s->templates[i]->vms);
        free(s->templates[i]->buckets);
        free(s->templates[i]);
    }
    free(s->templates);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* Where name is or belongs. */
static size_t place_of(const struct vf_stats *s, const char *name, bool *ret_found)
{
    size_t from = 0, to = s->n;

    *ret_found = false;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        int d = strcmp(s->templates[mid]->name, name);

        if (d == 0) {
            *ret_found = true;
            return mid;
        }
        if (d < 0)
            from = mid + 1;
        else
            to = mid;
    }
    return from;
}

static struct vf_stats_template *insert(struct vf_stats *s, const char *name, size_t at)
{
    struct vf_stats_template *t;

    if (s->n == s->cap) {
        size_t cap = s->cap == 0 ? 16 : s->cap * 2;
        struct vf_stats_template **more = (struct vf_stats_template **)realloc(
            s->templates, cap * sizeof(struct vf_stats_template *));

        if (more == NULL)
            return NULL;
        s->templates = more;
        s->cap = cap;
    }
    t = (struct vf_stats_template *)calloc(1, sizeof(*t));
    if (t == NULL)
        return NULL;
    t->name = strdup(name);
    if (t->name == NULL) {
        free(t);
        return NULL;
    }
    t->owner = s;
    memmove(s->templates + at + 1, s->templates + at,
            (s->n - at) * sizeof(struct vf_stats_template *));
    s->templates[at] = t;
    s->n++;
    return t;
}

struct vf_stats_template *vf_stats_template(struct vf_stats *s, const char *name)
{
    struct vf_stats_template *t;
    bool found;
    size_t at;

    lock(s);
    at = place_of(s, name, &found);
    t = found ? s->templates[at] : insert(s, name, at);
    if (t != NULL)
        t->removed = false;
    unlock(s);
    return t;
}

/* What was counted stays; what is no more is 0 if the name comes back. */
void vf_stats_template_removed(struct vf_stats_template *t)
{
    lock(t->owner);
    t->removed = true;
    t->facts.pool = (struct vf_stats_pool){0};
    t->facts.memory = (struct vf_stats_memory){0};
    vf_stats_vms_clear(t);
    unlock(t->owner);
}

void vf_stats_set_pool(struct vf_stats_template *t, const struct vf_stats_pool *p)
{
    lock(t->owner);
    t->facts.pool = *p;
    unlock(t->owner);
}

void vf_stats_set_memory(struct vf_stats_template *t, const struct vf_stats_memory *m)
{
    lock(t->owner);
    t->facts.memory = *m;
    unlock(t->owner);
}

static struct vf_stats_stage *stage_of(struct vf_stats_facts *f, const char *name)
{
    if (name == NULL)
        name = "other";
    for (int i = 0; i < f->n_stages; i++) {
        if (strncmp(f->stages[i].name, name, sizeof(f->stages[i].name) - 1) == 0)
            return &f->stages[i];
    }
    if (f->n_stages == VF_STATS_STAGES) /* its last place is kept for "other" */
        return &f->stages[VF_STATS_STAGES - 1];
    if (f->n_stages == VF_STATS_STAGES - 1)
        name = "other";
    snprintf(f->stages[f->n_stages].name, sizeof(f->stages[0].name), "%s", name);
    return &f->stages[f->n_stages++];
}

void vf_stats_acquired(struct vf_stats_template *t, enum vf_got got, int64_t total_us,
                       const struct vf_stage *stages, int n_stages)
{
    if ((unsigned)got >= VF_GOT_COUNT)
        return;
    lock(t->owner);
    vf_histogram_add(&t->facts.acquire[got], &vf_bounds_short, total_us);
    for (int i = 0; i < n_stages; i++)
        vf_histogram_add(&stage_of(&t->facts, stages[i].name)->took, &vf_bounds_short,
                         stages[i].us);
    unlock(t->owner);
}

static void count_code(struct vf_stats_template *t, uint64_t *counts, enum vf_code code)
{
    lock(t->owner);
    counts[(unsigned)code < VF_CODE_COUNT && code != VF_OK ? code : VF_INTERNAL]++;
    unlock(t->owner);
}

static void time_one(struct vf_stats_template *t, struct vf_histogram *h, int64_t us)
{
    lock(t->owner);
    vf_histogram_add(h, &vf_bounds_short, us);
    unlock(t->owner);
}

static void count_one(struct vf_stats_template *t, uint64_t *count)
{
    lock(t->owner);
    (*count)++;
    unlock(t->owner);
}

void vf_stats_acquire_failed(struct vf_stats_template *t, enum vf_code code)
{
    count_code(t, t->facts.acquire_failures, code);
}

void vf_stats_lease_ended(struct vf_stats_template *t, enum vf_lease_end how, int64_t held_us)
{
    if ((unsigned)how >= VF_LEASE_END_COUNT)
        return;
    lock(t->owner);
    t->facts.lease_ends[how]++;
    vf_histogram_add(&t->facts.lease_held, &vf_bounds_long, held_us);
    unlock(t->owner);
}

void vf_stats_refilled(struct vf_stats_template *t, int64_t total_us)
{
    time_one(t, &t->facts.refill, total_us);
}

void vf_stats_refill_failed(struct vf_stats_template *t, enum vf_code code)
{
    count_code(t, t->facts.refill_failures, code);
}

void vf_stats_built(struct vf_stats_template *t, int64_t total_us)
{
    time_one(t, &t->facts.build, total_us);
}

void vf_stats_build_failed(struct vf_stats_template *t, enum vf_code code)
{
    count_code(t, t->facts.build_failures, code);
}

void vf_stats_quarantined(struct vf_stats_template *t)
{
    count_one(t, &t->facts.quarantines);
}

void vf_stats_parked_died(struct vf_stats_template *t)
{
    count_one(t, &t->facts.parked_deaths);
}

void vf_stats_adopted(struct vf_stats *s, int64_t leases, int64_t parked, int64_t discarded)
{
    lock(s);
    s->adopted[VF_ADOPTED_LEASED] += (uint64_t)leases;
    s->adopted[VF_ADOPTED_PARKED] += (uint64_t)parked;
    s->adopted[VF_ADOPTED_DISCARDED] += (uint64_t)discarded;
    unlock(s);
}

void vf_stats_loop_turn(struct vf_stats *s, int64_t busy_us)
{
    int64_t now_us = vf_now_us();

    lock(s);
    s->turned_us = now_us;
    vf_histogram_add(&s->turns, &vf_bounds_short, busy_us);
    if (busy_us > s->longest_turn_us)
        s->longest_turn_us = busy_us;
    unlock(s);
}

int64_t vf_stats_last_turn_us(struct vf_stats *s)
{
    int64_t turned_us;

    lock(s);
    turned_us = s->turned_us;
    unlock(s);
    return vf_now_us() - turned_us;
}

bool vf_stats_live(struct vf_stats *s, int64_t limit_us)
{
    return vf_stats_last_turn_us(s) <= limit_us;
}

void vf_stats_set_ready(struct vf_stats *s, bool ready)
{
    lock(s);
    s->ready = ready;
    unlock(s);
}

bool vf_stats_ready(struct vf_stats *s)
{
    bool ready;

    lock(s);
    ready = s->ready;
    unlock(s);
    return ready;
}

/* The templates' addresses in one go: none is seen twice, however many are added meanwhile. */
static int list_templates(struct vf_stats *s, struct vf_stats_template ***ret, size_t *ret_n)
{
    struct vf_stats_template **list;
    size_t room, n;

    lock(s);
    room = s->n;
    unlock(s);
    list = (struct vf_stats_template **)calloc(room + 1, sizeof(struct vf_stats_template *));
    if (list == NULL)
        return -ENOMEM;
    lock(s);
    n = s->n < room ? s->n : room;
    if (n > 0)
        memcpy(list, s->templates, n * sizeof(struct vf_stats_template *));
    unlock(s);
    *ret = list;
    *ret_n = n;
    return 0;
}

static int copy_template(struct vf_stats_template *t, struct vf_stats_snapshot *snap)
{
    struct vf_stats_template *to = &snap->templates[snap->n];

    lock(t->owner);
    *to = *t;
    to->vms = NULL;
    to->buckets = NULL;
    if (t->n_vms > 0 && !t->removed) {
        to->vms = (struct vf_stats_vm *)calloc(t->n_vms, sizeof(*to->vms));
        if (to->vms != NULL)
            memcpy(to->vms, t->vms, t->n_vms * sizeof(*to->vms));
    }
    unlock(t->owner);
    if (to->removed)
        return 0;
    snap->n++;
    return to->n_vms > 0 && to->vms == NULL ? -ENOMEM : 0;
}

int vf_stats_snapshot_take(struct vf_stats *s, struct vf_stats_snapshot *ret)
{
    struct vf_stats_snapshot snap = {0};
    struct vf_stats_template **list;
    size_t n;
    int r = list_templates(s, &list, &n);

    if (r < 0)
        return r;
    snap.templates = (struct vf_stats_template *)calloc(n + 1, sizeof(*snap.templates));
    if (snap.templates == NULL) {
        free(list);
        return -ENOMEM;
    }
    for (size_t i = 0; i < n && r == 0; i++)
        r = copy_template(list[i], &snap);
    free(list);
    if (r < 0) {
        vf_stats_snapshot_free(&snap);
        return r;
    }
    lock(s);
    memcpy(snap.g.adopted, s->adopted, sizeof(snap.g.adopted));
    snap.g.turns = s->turns;
    snap.g.longest_turn_us = s->longest_turn_us;
    snap.g.last_turn_us = s->turned_us;
    snap.g.ready = s->ready;
    snap.g.slots = s->slots;
    snap.g.process.started_us = s->process_started_us;
    unlock(s);
    snap.g.last_turn_us = vf_now_us() - snap.g.last_turn_us;
    vf_stats_process_read(&snap.g.process);
    *ret = snap;
    return 0;
}

void vf_stats_snapshot_free(struct vf_stats_snapshot *snap)
{
    for (size_t i = 0; i < snap->n; i++)
        free(snap->templates[i].vms);
    free(snap->templates);
    *snap = (struct vf_stats_snapshot){0};
}

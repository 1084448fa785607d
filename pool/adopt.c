/* What an earlier daemon left: leased VMs go on, parked ones are proved again, all else is cleaned up.
 *
 *     read all records (worker) -> for each VM, MOST_AT_ONCE at a time:
 *         leased, this host's boot     reconnect; its holder notices nothing. Its process is gone: the lease
 *                                      stays, and says dead
 *         parked, of the generation in use, and wanted     resume, prove, renew, park again
 *         anything else                kill its process, remove its directory
 *     -> sweep network slots that none of them uses -> ready
 *
 * A record that can't be read, or that is of another boot of the host, speaks of nothing that can be used.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "pool/pools_internal.h"

#define MOST_AT_ONCE 16
#define ID_LEN 12

struct left { /* a VM's directory */
    struct vf_adoption *adoption;
    char id[16];
    bool readable; /* record and spec are there and make sense */
    struct vf_record record;
    struct vf_spec spec;
    struct vf_slot *slot;
};

struct vf_adoption {
    struct vf_pools *pools;
    struct vf_work work;
    struct left *left;
    int n, cap, next, running;
    int64_t leases, parked, discarded;
};

static void go_on(struct vf_adoption *ad);

/* ---- reading, in a worker */

static int add(struct vf_adoption *ad, const char *id)
{
    struct vf_error e;
    if (ad->n == ad->cap) {
        int cap = ad->cap ? ad->cap * 2 : 64;
        struct left *more = realloc(ad->left, (size_t)cap * sizeof(*more));
        if (!more)
            return -ENOMEM;
        ad->left = more;
        ad->cap = cap;
    }
    struct left *l = &ad->left[ad->n++];
    *l = (struct left){.adoption = ad};
    snprintf(l->id, sizeof(l->id), "%s", id);
    int r = vf_record_read(ad->pools->run_dirfd, id, &l->record, &e);
    if (r == 0) {
        r = vf_record_read_spec(ad->pools->run_dirfd, id, &l->spec, &e);
        if (r == 0 && strcmp(l->spec.name, l->record.template_name) != 0)
            r = vf_fail(&e, VF_CORRUPT, "%s: spec.json: name: is not the record's", id);
        if (r < 0)
            vf_record_free(&l->record);
    }
    l->readable = r == 0;
    if (r < 0 && e.code != VF_NOT_FOUND)
        vf_log_error(VF_LOG_WARN, id, &e, "its journal can't be read");
    return 0;
}

static int scan(struct vf_work *w, struct vf_error *err)
{
    struct vf_adoption *ad = w->arg;
    struct vf_names names;
    int r = vf_dir_names(ad->pools->run_dirfd, &names, err);
    if (r < 0)
        return vf_wrap(err, "%s", ad->pools->run_path);
    for (size_t i = 0; r == 0 && i < names.n; i++) {
        const char *name = names.v[i];
        if (strlen(name) == ID_LEN && strspn(name, "0123456789abcdef") == ID_LEN)
            r = add(ad, name);
        else /* the directory is ours alone */
            vf_remove_tree(ad->pools->run_dirfd, name, NULL);
    }
    vf_names_free(&names);
    return r < 0 ? vf_fail(err, VF_NO_MEMORY, "adoption") : 0;
}

/* ---- each */

static void ended(struct left *l)
{
    l->adoption->running--;
    go_on(l->adoption);
}

static void on_discarded(void *arg, const struct vf_error *err)
{
    struct left *l = arg;
    if (err)
        vf_log_error(VF_LOG_ERROR, l->id, err, "what an earlier daemon left could not be removed");
    ended(l);
}

static void discard(struct left *l)
{
    struct vf_error e;
    struct vf_pools *p = l->adoption->pools;
    int r = vf_factory_discard(p->factory, l->id, on_discarded, l, &e);
    if (r < 0) {
        vf_log_error(VF_LOG_ERROR, l->id, &e, "what an earlier daemon left could not be removed");
        ended(l);
    }
}

static void discard_unwanted(struct left *l)
{
    l->adoption->discarded++;
    vf_event(l->adoption->pools->events, "vm.discarded",
             l->readable ? l->record.template_name : NULL, l->id, VF_EVENT_ALL, NULL, "%s",
             l->readable ? vf_record_state_names[l->record.state] : "without a journal");
    discard(l);
}

static void lease_died(struct left *l, const struct vf_error *err)
{
    struct vf_slot *s = l->slot;
    struct vf_error e = *err;
    vf_wrap(&e, "it was not there any more when the daemon came back");
    vf_set_error(&s->death, &e);
    s->end = VF_LEASE_DIED;
    vf_event(s->pools->events, "vm.died", s->pool->spec.name, s->id, s->holder.uid, &e, NULL);
}

static void on_ports(void *arg, const struct vf_error *err)
{
    struct left *l = arg;
    if (err)
        vf_log_error(VF_LOG_WARN, l->id, err, "the ports of its lease can't be opened again");
    ended(l);
}

/* A slot may have lost them, or never have had them as its daemon was killed: those of the record stand. */
static bool open_ports(struct left *l)
{
    struct vf_error e;
    if (l->record.ports.n == 0)
        return false;
    int r = vf_publish_again(l->slot, &l->record, on_ports, l, &e);
    if (r < 0)
        vf_log_error(VF_LOG_WARN, l->id, &e, "the ports of its lease can't be opened again");
    return r == 0;
}

static void on_lease(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct left *l = arg;
    struct vf_slot *s = l->slot;
    s->vm = vm;
    if (s->state == VF_SLOT_LEASED) {
        if (err)
            lease_died(l, err);
        else {
            l->adoption->leases++;
            vf_event(s->pools->events, "vm.adopted", s->pool->spec.name, s->id, s->holder.uid, NULL,
                     "leased");
            vf_slot_watch(s);
            if (!s->death && open_ports(l))
                return;
        }
    }
    ended(l);
}

static void on_parked_proved(void *arg, struct vf_instance *vm, const struct vf_error *err)
{
    struct left *l = arg;
    struct vf_slot *s = l->slot;
    if (s->state != VF_SLOT_MAKING) {
        if (err)
            s->vm = NULL; /* on_gone comes */
        ended(l);
        return;
    }
    s->vm = vm;
    if (err) {
        l->adoption->discarded++;
        vf_event(s->pools->events, "vm.discarded", s->pool->spec.name, s->id, VF_EVENT_ALL, err,
                 NULL);
        vf_slot_forget(s);
    } else {
        l->adoption->parked++;
        vf_event(s->pools->events, "vm.adopted", s->pool->spec.name, s->id, VF_EVENT_ALL, NULL,
                 "parked");
        vf_slot_settle(s);
    }
    ended(l);
}

static struct vf_pool *pool_of(struct left *l)
{
    struct vf_pool *pool;
    if (vf_pools_find(l->adoption->pools, l->record.template_name, &pool, NULL) == 0)
        return pool;
    if (l->record.state != VF_RECORD_LEASED)
        return NULL;
    /* Its spec is gone from the store; the lease is not. */
    return vf_pool_new(l->adoption->pools, &l->spec);
}

static int adopt(struct left *l, struct vf_pool *pool, bool verify, vf_instance_cb done,
                 struct vf_error *err)
{
    struct vf_proof proof;
    vf_record_proof(&l->record, &proof);
    struct vf_adopt a = {
        .id = l->id,
        .source = (enum vf_source)l->record.source,
        .spec = l->spec.name ? &l->spec : &pool->spec,
        .proof = &proof,
        .network = (int)l->record.network,
        .netns = l->record.network < 0 ? l->record.netns : NULL,
        .verify = verify,
    };
    return vf_factory_adopt(pool->pools->factory, &a, done, l, &l->slot->vm, err);
}

static void adopt_lease(struct left *l, struct vf_pool *pool)
{
    struct vf_error e;
    const struct vf_record *r = &l->record;
    struct vf_slot *s =
        vf_slot_new(pool, l->id, VF_FOR_CALLER, (enum vf_source)r->source, r->generation);
    if (!s) {
        vf_log(VF_LOG_ERROR, l->id, "no memory to adopt it: it is left as it is");
        ended(l);
        return;
    }
    l->slot = s;
    s->holder =
        (struct vf_caller){.uid = (uid_t)r->uid, .gid = (gid_t)r->gid, .pid = (pid_t)r->pid};
    s->got = (enum vf_got)r->got;
    vf_set_text(&s->reason, r->reason);
    s->created_ms = r->created_ms;
    s->acquired_ms = r->acquired_ms;
    s->acquired_us = vf_now_us() - (vf_realtime_ns() / 1000000 - r->acquired_ms) * 1000;
    s->ttl_ms = r->ttl_ms;
    s->expires_us = r->expires_us ? r->expires_us : VF_NEVER;
    s->was_leased = true;
    s->record_state = VF_RECORD_LEASED;
    vf_claim_kept(pool, s->holder.uid);
    vf_slot_set_state(s, VF_SLOT_LEASED);
    if (adopt(l, pool, false, on_lease, &e) < 0) {
        lease_died(l, &e);
        discard(l);
    }
}

static void adopt_parked(struct left *l, struct vf_pool *pool)
{
    struct vf_error e;
    struct vf_slot *s = vf_slot_new(pool, l->id, VF_FOR_CALLER, (enum vf_source)l->record.source,
                                    l->record.generation);
    if (!s) {
        discard_unwanted(l);
        return;
    }
    l->slot = s;
    s->created_ms = l->record.created_ms;
    s->record_state = VF_RECORD_PARKED;
    if (adopt(l, pool, true, on_parked_proved, &e) < 0) {
        vf_slot_forget(s);
        discard_unwanted(l);
    }
}

static void begin(struct left *l)
{
    const struct vf_record *r = &l->record;
    bool usable = l->readable && strcmp(r->host_boot, vf_host_boot_id()) == 0;
    struct vf_pool *pool = usable ? pool_of(l) : NULL;
    if (pool && r->state == VF_RECORD_LEASED) {
        adopt_lease(l, pool);
        return;
    }
    bool wanted = pool && r->state == VF_RECORD_PARKED && !pool->drained && !pool->no_network &&
                  pool->current && r->generation == pool->current &&
                  pool->parked_current + pool->starting < pool->target;
    if (wanted)
        adopt_parked(l, pool);
    else
        discard_unwanted(l);
}

/* ---- all */

static void on_swept(struct vf_pools *p)
{
    free(p->adoption);
    p->adoption = NULL;
    if (p->closing) {
        vf_pools_end_all(p);
        return;
    }
    vf_pools_start(p);
    p->ready(p->ready_arg, NULL);
}

static void finish(struct vf_adoption *ad)
{
    struct vf_pools *p = ad->pools;
    for (int i = 0; i < ad->n; i++)
        if (ad->left[i].readable) {
            vf_record_free(&ad->left[i].record);
            vf_spec_free(&ad->left[i].spec);
        }
    vf_stats_adopted(p->stats, ad->leases, ad->parked, ad->discarded);
    if (ad->n && !p->closing)
        vf_log(
            VF_LOG_INFO, NULL,
            "of an earlier daemon's VMs: %lld leased and %lld parked ones adopted, %lld discarded",
            (long long)ad->leases, (long long)ad->parked, (long long)ad->discarded);
    free(ad->left);
    ad->left = NULL;
    vf_pools_sweep_networks(p, on_swept);
}

static void go_on(struct vf_adoption *ad)
{
    if (ad->pools->closing)
        ad->next = ad->n; /* what is left stays as it is, for the next daemon */
    ad->running++;        /* so that what ends within begin does not finish here */
    while (ad->next < ad->n && ad->running <= MOST_AT_ONCE) {
        ad->running++;
        begin(&ad->left[ad->next++]);
        if (ad->running > MOST_AT_ONCE)
            break;
    }
    ad->running--;
    if (ad->running == 0 && ad->next == ad->n)
        finish(ad);
}

static void on_scanned(void *arg, const struct vf_error *err)
{
    struct vf_adoption *ad = arg;
    struct vf_pools *p = ad->pools;
    if (!err || p->closing) {
        go_on(ad);
        return;
    }
    free(ad->left);
    free(ad);
    p->adoption = NULL;
    p->ready(p->ready_arg, err);
}

int vf_adopt_begin(struct vf_pools *p, struct vf_error *err)
{
    struct vf_adoption *ad = calloc(1, sizeof(*ad));
    if (!ad)
        return vf_fail(err, VF_NO_MEMORY, "adoption");
    ad->pools = p;
    int r = vf_work_submit(p->loop, &ad->work, scan, on_scanned, ad);
    if (r < 0) {
        free(ad);
        return vf_fail_errno(err, r, "worker");
    }
    p->adoption = ad;
    return 0;
}

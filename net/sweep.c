/* After a start: slots that VMs still use are adopted, what else has a record is removed. See slot.h.
 *
 * Names that begin as ours but have no record (namespaces, interfaces) are left alone, and their numbers not used.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "net/nft.h"
#include "net/slot_internal.h"

int vf_net_adopt(struct vf_nets *s, int number, struct vf_net **ret, struct vf_error *err)
{
    struct vf_net_shape shape;
    struct vf_link_info tap;
    struct vf_netns ns;

    int r = vf_net_record_read(s, number, &shape, err);
    if (r == 0)
        r = vf_addresses_claim(&s->pool, number, err);
    if (r < 0)
        return r;
    struct vf_net *slot = vf_net_new(s, number, &shape);
    if (!slot) {
        vf_addresses_give(&s->pool, number);
        return vf_fail(err, VF_NO_MEMORY, "networks: no memory");
    }
    vf_net_enter(slot, VF_NET_TAKEN);
    r = vf_net_open_netns(slot, 0, &ns, err);
    if (r == 0) {
        struct vf_nl route, netfilter;
        vf_nl_adopt(&route, ns.route);
        vf_nl_adopt(&netfilter, ns.netfilter);
        r = vf_link_get(&route, VF_NET_TAP, &tap, err);
        if (r == 0)
            r = vf_nft_generation(&netfilter, &slot->generation, err);
        vf_netns_close(&ns);
    }
    if (r < 0) {
        vf_wrap(err, "adopt network %s", slot->name);
        vf_net_free(slot);
        vf_addresses_give(&s->pool, number);
        return r;
    }
    slot->settled = true;
    /* What its policy was is not recorded. */
    slot->set_rules = slot->set_rates = true;
    *ret = slot;
    return 0;
}

static bool is_taken(struct vf_nets *s, int number)
{
    struct vf_address_pool *p = &s->pool;
    pthread_mutex_lock(&p->lock);
    bool taken = number < p->capacity && (p->taken[number / 64] >> number % 64 & 1);
    pthread_mutex_unlock(&p->lock);
    return taken;
}

/* ---- what is foreign */

static void note(struct vf_sweep *sweep, const char *name)
{
    size_t len = strlen(sweep->names);
    sweep->foreign++;
    snprintf(sweep->names + len, sizeof(sweep->names) - len, "%s%s", len ? " " : "", name);
}

/* The number in a name of ours, -1 if it is none. */
static int number_of(const struct vf_nets *s, const char *name)
{
    size_t len = strlen(s->prefix);
    char again[VF_LINK_NAME], *end;
    if (strncmp(name, s->prefix, len) != 0)
        return -1;
    long n = strtol(name + len, &end, 10);
    if (n < 0 || n >= VF_ADDRESSES_MAX_SLOTS)
        return -1;
    vf_net_name(s, (int)n, again);
    return strcmp(again, name) == 0 ? (int)n : -1;
}

static void look_at(struct vf_nets *s, const char *name, struct vf_sweep *sweep)
{
    if (strncmp(name, s->prefix, strlen(s->prefix)) != 0)
        return;
    int number = number_of(s, name);
    if (number >= 0 && (is_taken(s, number) || vf_net_record_exists(s, number)))
        return;
    note(sweep, name);
}

struct looking {
    struct vf_nets *s;
    struct vf_sweep *sweep;
};

static int look_at_link(const struct vf_link_info *l, void *arg, struct vf_error *err)
{
    struct looking *k = arg;
    (void)err;
    look_at(k->s, l->name, k->sweep);
    return 0;
}

static int look_around(struct vf_nets *s, struct vf_sweep *sweep, struct vf_error *err)
{
    struct looking k = {s, sweep};
    struct vf_names names = {0};
    VF_CLEANUP_FD int dir = open(s->netns_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0 && vf_dir_names(dir, &names, err) < 0)
        return -EIO;
    for (size_t i = 0; i < names.n; i++)
        look_at(s, names.v[i], sweep);
    vf_names_free(&names);
    pthread_mutex_lock(&s->host_lock);
    int r = vf_links(&s->host_route, look_at_link, &k, err);
    pthread_mutex_unlock(&s->host_lock);
    return r;
}

/* ---- */

/* The numbers of records that nobody adopted. */
static int find_stale(struct vf_nets *s, int **ret, int *ret_n, struct vf_error *err)
{
    struct vf_names names = {0};
    int n = 0, r = vf_dir_names(s->run_dirfd, &names, err);
    if (r < 0)
        return r;
    int *stale = calloc(names.n + 1, sizeof(*stale));
    if (!stale)
        r = vf_fail(err, VF_NO_MEMORY, "networks: no memory");
    for (size_t i = 0; stale && i < names.n; i++) {
        int number = vf_net_record_number(names.v[i]);
        if (strncmp(names.v[i], VF_TMP_PREFIX, strlen(VF_TMP_PREFIX)) == 0)
            unlinkat(s->run_dirfd, names.v[i], 0);
        if (number >= 0 && !is_taken(s, number))
            stale[n++] = number;
    }
    vf_names_free(&names);
    if (r < 0)
        return r;
    *ret = stale;
    *ret_n = n;
    return 0;
}

int vf_nets_sweep(struct vf_nets *s, struct vf_sweep *ret, struct vf_error *err)
{
    struct vf_sweep sweep = {0};
    int *stale = NULL, r = find_stale(s, &stale, &sweep.removed, err);
    if (r < 0)
        return r;
    if (sweep.removed)
        r = vf_net_remove(s, stale, sweep.removed, err);
    for (int i = 0; i < sweep.removed; i++)
        sweep.failed += stale[i] < 0 || vf_net_record_exists(s, stale[i]);
    free(stale);
    int r2 = look_around(s, &sweep, r < 0 ? NULL : err);
    *ret = sweep;
    return r < 0 ? r : r2;
}

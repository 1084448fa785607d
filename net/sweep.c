/* After a start: slots that VMs still use are adopted, what else has a record is removed. See slot.h.
 *
 * Names that begin as ours but have no record (namespaces, interfaces) are left alone, and their numbers not used.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "net/nft.h"
#include "net/slot_internal.h"

/* Whether it is the namespace of that slot: its end of the veth pair has the MAC we gave it. */
static int is_slots(const struct vf_net *slot, struct vf_nl *route, struct vf_error *err)
{
    struct vf_mac host_mac, slot_mac;
    struct vf_link_info l;
    vf_net_macs(slot->slots, slot->number, &host_mac, &slot_mac);
    int r = vf_link_get(route, VF_NET_UPLINK, &l, err);
    if (r == 0 && memcmp(&l.mac, &slot_mac, sizeof(slot_mac)) != 0)
        r = vf_fail(err, VF_CONFLICT, "the namespace is not this slot's");
    return r;
}

static int look_inside(struct vf_net *slot, const struct vf_netns *ns, struct vf_error *err)
{
    struct vf_nl route, netfilter;
    struct vf_link_info tap;
    vf_nl_adopt(&route, ns->route);
    vf_nl_adopt(&netfilter, ns->netfilter);
    int r = is_slots(slot, &route, err);
    if (r == 0)
        r = vf_link_get(&route, VF_NET_TAP, &tap, err);
    if (r == 0)
        r = vf_nft_generation(&netfilter, &slot->generation, err);
    return r;
}

/* The name is there, but is no namespace any more: it was mounted for the daemon before alone. */
static int keep_again(struct vf_net *slot, int netns, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct vf_netns ns;
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", netns);
    int r = vf_netns_open(path, 0, &ns, err);
    if (r < 0)
        return r;
    r = look_inside(slot, &ns, err);
    if (r == 0)
        r = vf_netns_drop(s->netns_dir, slot->name, err);
    if (r == 0)
        r = vf_netns_keep(s->netns_dir, slot->name, ns.ns, err);
    vf_netns_close(&ns);
    return r;
}

static bool same_file(int a, int b)
{
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int adopt_netns(struct vf_net *slot, int netns, struct vf_error *err)
{
    struct vf_error why;
    struct vf_netns ns;
    int r = vf_net_open_netns(slot, 0, &ns, &why);
    if (r < 0 && netns >= 0 && (why.code == VF_NOT_FOUND || why.code == VF_INVALID_ARGUMENT))
        return keep_again(slot, netns, err);
    if (r < 0)
        return vf_error_copy(err, &why);
    r = netns >= 0 && !same_file(ns.ns, netns)
            ? vf_fail(err, VF_CONFLICT, "its VM is in another namespace")
            : look_inside(slot, &ns, err);
    vf_netns_close(&ns);
    return r;
}

int vf_net_adopt(struct vf_nets *s, int number, int netns, struct vf_net **ret,
                 struct vf_error *err)
{
    struct vf_net_shape shape;
    struct vf_link_info base;
    int r = vf_net_record_read(s, number, &shape, &base, err);
    if (r == 0)
        r = vf_addresses_claim(&s->pool, number, err);
    if (r < 0)
        return r;
    struct vf_net *slot = vf_net_new(s, number, &shape);
    if (!slot) {
        vf_addresses_give(&s->pool, number);
        return vf_fail(err, VF_NO_MEMORY, "networks: no memory");
    }
    slot->base = base;
    vf_net_enter(slot, VF_NET_TAKEN);
    r = adopt_netns(slot, netns, err);
    if (r == 0 && !s->bridge) {
        pthread_mutex_lock(&s->host_lock);
        r = vf_host_rules_read(&s->host_nf, &s->host, number, &slot->host, err);
        pthread_mutex_unlock(&s->host_lock);
    }
    if (r < 0) {
        vf_wrap(err, "adopt network %s", slot->name);
        vf_net_free(slot);
        vf_addresses_give(&s->pool, number);
        return r;
    }
    vf_net_book(s, &slot->host);
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

/* Networks of all modes behind one object. See networks.h.
 *
 * Happy path: each mode that is configured is opened; the kernel is tried out once for both.
 * On the way: a bad configuration ends the opening; whatever else makes a mode impossible is kept as its reason.
 */
#include "net/networks.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "net/needs.h"
#include "net/slot_internal.h"

#define MAX_SHAPES 64
#define MAX_RUN_DIR 300
#define RETRY_MS 1000
#define MAX_RETRY_MS 60000
/* So many more than wanted are kept, as they come back: what is in use now will be wanted again. */
#define SURPLUS(wanted) (4 * (wanted) + 16)

enum { NAT, BRIDGE, MODES };
static const char *const dirs[MODES] = {"nat", "bridge"};
static const char *const prefixes[MODES] = {"vf-", "vfb-"};

/* A shape that was asked for. */
struct stock {
    int mode;
    struct vf_net_shape shape;
    int wanted, making;
    int64_t taken_us, retry_us;
    int retry_ms;
};

struct vf_networks {
    struct vf_nets *nets[MODES]; /* NULL: can't be had */
    struct vf_error why[MODES];  /* then */
    int ahead;
    bool adopt_only;
    pthread_mutex_t lock; /* what follows */
    struct stock stock[MAX_SHAPES];
    int n_stock;
};

static int index_of(enum vf_network_mode mode)
{
    return mode == VF_NETWORK_NAT ? NAT : mode == VF_NETWORK_BRIDGE ? BRIDGE : -1;
}

/* ---- opening */

static int unconfigured(int mode, struct vf_error *err)
{
    vf_fail(err, VF_UNSUPPORTED, "networks of mode %s are not configured", dirs[mode]);
    return vf_hint(err, mode == NAT ? "set network_prefixes, like 10.210.0.0/16,fd76:6d01::/48"
                                    : "set network_bridge and network_bridge_prefixes");
}

static int switched_off(struct vf_error *err)
{
    vf_fail(err, VF_UNSUPPORTED, "network is off");
    return vf_hint(err, "set the daemon's network to auto or on, and start it again");
}

static bool has_records(const char *run_dir, int mode)
{
    char path[MAX_RUN_DIR + 16];
    bool any = false;
    snprintf(path, sizeof(path), "%.*s/%s", MAX_RUN_DIR, run_dir, dirs[mode]);
    DIR *dir = opendir(path);
    for (struct dirent *d; dir && !any && (d = readdir(dir)) != NULL;)
        any = d->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return any;
}

bool vf_networks_left(const struct vf_networks_config *cfg)
{
    return has_records(cfg->run_dir, NAT) || has_records(cfg->run_dir, BRIDGE);
}

static int check_config(const struct vf_networks_config *cfg, struct vf_error *err)
{
    if (cfg->bridge && (!cfg->bridge_prefixes || !cfg->bridge_prefixes[0])) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network_bridge_prefixes: bridge %s has no addresses for VMs", cfg->bridge);
        return vf_hint(err, "give the bridge's own network, like 192.168.7.0/24");
    }
    if ((cfg->first_port || cfg->last_port) &&
        (cfg->first_port < 1 || cfg->last_port > 65535 || cfg->last_port < cfg->first_port))
        return vf_fail(err, VF_INVALID_ARGUMENT, "network_ports: %d-%d is no range of ports",
                       cfg->first_port, cfg->last_port);
    if (strlen(cfg->run_dir) > MAX_RUN_DIR)
        return vf_fail(err, VF_INVALID_ARGUMENT, "networks: the path %.64s… is too long",
                       cfg->run_dir);
    return 0;
}

/* No address may be in both modes, even if the bridge itself has none. */
static int check_apart(const struct vf_networks_config *cfg, struct vf_error *err)
{
    char a[VF_IP_TEXT], b[VF_IP_TEXT];
    for (int i = 0; cfg->prefixes && cfg->prefixes[i]; i++)
        for (int k = 0; cfg->bridge && cfg->bridge_prefixes[k]; k++) {
            struct vf_cidr x, y;
            if (vf_cidr_parse(cfg->prefixes[i], "network_prefixes", &x, err) < 0 ||
                vf_cidr_parse(cfg->bridge_prefixes[k], "network_bridge_prefixes", &y, err) < 0)
                return -EINVAL;
            if (vf_cidr_overlap(&x, &y))
                return vf_fail(err, VF_CONFLICT,
                               "network_bridge_prefixes[%d]: %s overlaps %s of network_prefixes", k,
                               vf_cidr_text(&y, b), vf_cidr_text(&x, a));
        }
    return 0;
}

/* The reason stays with the mode, unless it is the configuration's fault. */
static int open_mode(struct vf_networks *n, int mode, const struct vf_networks_config *cfg,
                     struct vf_error *err)
{
    char run_dir[MAX_RUN_DIR + 16];
    bool bridge = mode == BRIDGE;
    struct vf_nets_config c = {.run_dir = run_dir,
                               .netns_dir = cfg->netns_dir,
                               .prefix = prefixes[mode],
                               .prefixes = bridge ? cfg->bridge_prefixes : cfg->prefixes,
                               .bridge = bridge ? cfg->bridge : NULL,
                               .gateways = bridge ? cfg->bridge_gateways : NULL,
                               .set_forwarding = cfg->set_forwarding,
                               .first_port = cfg->first_port,
                               .last_port = cfg->last_port};
    if (bridge ? !cfg->bridge : !cfg->prefixes || !cfg->prefixes[0]) {
        unconfigured(mode, &n->why[mode]);
        return 0;
    }
    if (cfg->adopt_only && !has_records(cfg->run_dir, mode)) {
        switched_off(&n->why[mode]);
        return 0;
    }
    snprintf(run_dir, sizeof(run_dir), "%s/%s", cfg->run_dir, dirs[mode]);
    int r = vf_nets_open(&c, &n->nets[mode], &n->why[mode]);
    if (r < 0)
        vf_wrap(&n->why[mode], "networks of mode %s", dirs[mode]);
    if (r < 0 && !cfg->adopt_only &&
        (n->why[mode].code == VF_INVALID_ARGUMENT || n->why[mode].code == VF_CONFLICT))
        return vf_error_copy(err, &n->why[mode]);
    return 0;
}

/* Neither can be had if the kernel lacks something. */
static void try_kernel(struct vf_networks *n)
{
    struct vf_error why;
    if ((!n->nets[NAT] && !n->nets[BRIDGE]) || vf_needs_check(&why) == 0)
        return;
    for (int i = 0; i < MODES; i++)
        if (n->nets[i]) {
            vf_nets_close(n->nets[i]);
            n->nets[i] = NULL;
            vf_error_copy(&n->why[i], &why);
            vf_wrap(&n->why[i], "networks of mode %s", dirs[i]);
        }
}

int vf_networks_open(const struct vf_networks_config *cfg, struct vf_networks **ret,
                     struct vf_error *err)
{
    int r = check_config(cfg, err);
    if (r == 0)
        r = check_apart(cfg, err);
    if (r < 0)
        return r;
    struct vf_networks *n = calloc(1, sizeof(*n));
    if (!n)
        return vf_fail(err, VF_NO_MEMORY, "networks: no memory");
    pthread_mutex_init(&n->lock, NULL);
    n->ahead = cfg->ahead;
    n->adopt_only = cfg->adopt_only;
    for (int i = 0; r == 0 && i < MODES; i++)
        r = open_mode(n, i, cfg, err);
    if (r < 0) {
        vf_networks_close(n);
        return r;
    }
    try_kernel(n);
    *ret = n;
    return 0;
}

void vf_networks_close(struct vf_networks *n)
{
    if (!n)
        return;
    for (int i = 0; i < MODES; i++)
        vf_nets_close(n->nets[i]);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

int vf_networks_check(const struct vf_networks *n, enum vf_network_mode mode, struct vf_error *err)
{
    int i = index_of(mode);
    if (i >= 0 && !n->nets[i])
        return vf_error_copy(err, &n->why[i]);
    return i >= 0 && n->adopt_only ? switched_off(err) : 0;
}

/* The slots of a mode, or NULL with the reason. */
static struct vf_nets *nets_of(const struct vf_networks *n, enum vf_network_mode mode,
                               struct vf_error *err)
{
    int i = index_of(mode);
    if (i < 0)
        vf_fail(err, VF_INVALID_ARGUMENT, "network mode %s has no slots",
                vf_network_mode_names[mode]);
    else if (!n->nets[i])
        vf_error_copy(err, &n->why[i]);
    return i < 0 ? NULL : n->nets[i];
}

/* ---- the stock; all but its making is done under the lock */

static struct stock *find(struct vf_networks *n, int mode, const struct vf_net_shape *shape)
{
    for (int i = 0; i < n->n_stock; i++)
        if (n->stock[i].mode == mode && vf_net_same_shape(&n->stock[i].shape, shape))
            return &n->stock[i];
    return NULL;
}

/* Which one gives way: one that is not wanted, or that nobody has taken for longest. NULL: all are in the making. */
static struct stock *least(struct vf_networks *n)
{
    struct stock *s = NULL;
    for (int i = 0; i < n->n_stock; i++) {
        struct stock *at = &n->stock[i];
        if (at->making)
            continue;
        if (at->wanted == 0)
            return at;
        if (!s || at->taken_us < s->taken_us)
            s = at;
    }
    return s;
}

static struct stock *add(struct vf_networks *n, int mode, const struct vf_net_shape *shape)
{
    struct stock *s = n->n_stock < MAX_SHAPES ? &n->stock[n->n_stock++] : least(n);
    if (s)
        *s = (struct stock){.mode = mode, .shape = *shape, .taken_us = vf_now_us()};
    return s;
}

static void note_taken(struct vf_networks *n, int mode, const struct vf_net_shape *shape)
{
    pthread_mutex_lock(&n->lock);
    struct stock *s = find(n, mode, shape);
    if (!s && n->ahead > 0 && (s = add(n, mode, shape)))
        s->wanted = n->ahead;
    if (s)
        s->taken_us = vf_now_us();
    pthread_mutex_unlock(&n->lock);
}

void vf_networks_want(struct vf_networks *n, enum vf_network_mode mode,
                      const struct vf_net_shape *shape, int ready)
{
    int i = index_of(mode);
    if (i < 0 || !n->nets[i] || n->adopt_only)
        return;
    pthread_mutex_lock(&n->lock);
    struct stock *s = find(n, i, shape);
    if (!s)
        s = add(n, i, shape);
    if (s) {
        s->wanted = ready > 0 ? ready : 0;
        s->taken_us = vf_now_us();
        s->retry_us = 0;
    }
    pthread_mutex_unlock(&n->lock);
}

static bool is_short(const struct vf_networks *n, const struct stock *s, int64_t now_us)
{
    return n->nets[s->mode] && s->retry_us <= now_us &&
           vf_nets_ready(n->nets[s->mode], &s->shape) + s->making < s->wanted;
}

static bool is_long(const struct vf_networks *n, const struct stock *s)
{
    int ready = n->nets[s->mode] ? vf_nets_ready(n->nets[s->mode], &s->shape) : 0;
    return s->wanted ? ready > SURPLUS(s->wanted) : ready > 0;
}

/* While no mode can be had, every slot that came back is one too many; NULL: there is none. */
static struct vf_nets *left_over(const struct vf_networks *n)
{
    for (int i = 0; n->adopt_only && i < MODES; i++) {
        struct vf_nets_counts c = {0};
        if (n->nets[i])
            vf_nets_counts(n->nets[i], &c);
        if (c.ready > 0)
            return n->nets[i];
    }
    return NULL;
}

bool vf_networks_short(const struct vf_networks *n)
{
    struct vf_networks *w = (struct vf_networks *)n; /* its lock */
    int64_t now_us = vf_now_us();
    bool any = left_over(n) != NULL;
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < n->n_stock && !any; i++)
        any = is_short(n, &n->stock[i], now_us) || is_long(n, &n->stock[i]);
    pthread_mutex_unlock(&w->lock);
    return any;
}

/* What restock is to do: make one of *ret's shape, or destroy one. The one that lacks most comes first. */
static bool next_work(struct vf_networks *n, struct stock *ret, bool *ret_make)
{
    struct stock *most = NULL;
    int64_t now_us = vf_now_us();
    int lack = 0;
    pthread_mutex_lock(&n->lock);
    for (int i = 0; i < n->n_stock; i++) {
        struct stock *s = &n->stock[i];
        int lacks = s->wanted - s->making - vf_nets_ready(n->nets[s->mode], &s->shape);
        if (is_short(n, s, now_us) && lacks > lack) {
            lack = lacks;
            most = s;
        }
    }
    *ret_make = most != NULL;
    if (most)
        most->making++;
    for (int i = 0; i < n->n_stock && !most; i++)
        if (is_long(n, &n->stock[i]))
            most = &n->stock[i];
    if (most)
        *ret = *most;
    pthread_mutex_unlock(&n->lock);
    return most != NULL;
}

/* It was made, or not. */
static void note_made(struct vf_networks *n, const struct stock *made, int r)
{
    pthread_mutex_lock(&n->lock);
    struct stock *s = find(n, made->mode, &made->shape);
    if (s) {
        s->making--;
        s->retry_ms = r == 0 ? 0 : s->retry_ms ? 2 * s->retry_ms : RETRY_MS;
        if (s->retry_ms > MAX_RETRY_MS)
            s->retry_ms = MAX_RETRY_MS;
        s->retry_us = r == 0 ? 0 : vf_deadline_after_ms(s->retry_ms);
    }
    pthread_mutex_unlock(&n->lock);
}

int vf_networks_restock(struct vf_networks *n, bool *ret_more, struct vf_error *err)
{
    struct stock s;
    bool make;
    int r = 0;
    struct vf_nets *from = left_over(n);
    if (from)
        vf_nets_drop(from, NULL, err);
    else if (next_work(n, &s, &make)) {
        if (make) {
            r = vf_net_make(n->nets[s.mode], &s.shape, err);
            note_made(n, &s, r);
        } else {
            vf_nets_drop(n->nets[s.mode], &s.shape, err);
        }
    }
    *ret_more = vf_networks_short(n);
    return r;
}

int vf_networks_take(struct vf_networks *n, enum vf_network_mode mode,
                     const struct vf_net_shape *shape, struct vf_net **ret, struct vf_error *err)
{
    struct vf_error why;
    struct vf_nets *nets = nets_of(n, mode, &why);
    if (!nets)
        return vf_error_copy(err, &why);
    if (n->adopt_only)
        return switched_off(err);
    int r = vf_net_take(nets, shape, ret, NULL);
    if (r < 0) {
        r = vf_net_make_taken(nets, shape, ret, &why);
        /* Ready ones of other shapes are in the way only now. */
        while (r < 0 && why.code == VF_BUSY && vf_nets_drop(nets, NULL, NULL))
            r = vf_net_make_taken(nets, shape, ret, &why);
        if (r < 0)
            return vf_error_copy(err, &why);
    }
    note_taken(n, index_of(mode), shape);
    return 0;
}

/* ---- after a start, and the rest */

int vf_networks_adopt(struct vf_networks *n, enum vf_network_mode mode, int number, int netns,
                      struct vf_net **ret, struct vf_error *err)
{
    struct vf_error why;
    struct vf_nets *nets = nets_of(n, mode, &why);
    return nets ? vf_net_adopt(nets, number, netns, ret, err) : vf_error_copy(err, &why);
}

bool vf_networks_have(struct vf_networks *n, int netns, char ret_name[VF_LINK_NAME])
{
    for (int i = 0; i < MODES; i++)
        if (n->nets[i] && vf_nets_have(n->nets[i], netns, ret_name))
            return true;
    return false;
}

static void add_sweep(struct vf_sweep *all, const struct vf_sweep *one)
{
    size_t len = strlen(all->names), room = sizeof(all->names) - len;
    all->removed += one->removed;
    all->failed += one->failed;
    all->foreign += one->foreign;
    if (len && room > 1 && one->names[0]) {
        all->names[len++] = ' ';
        room--;
    }
    size_t more = strnlen(one->names, room - 1);
    memcpy(all->names + len, one->names, more);
    all->names[len + more] = 0;
}

int vf_networks_sweep(struct vf_networks *n, struct vf_sweep *ret, struct vf_error *err)
{
    struct vf_sweep all = {0};
    int result = 0;
    for (int i = 0; i < MODES; i++) {
        struct vf_sweep one = {0};
        int r = n->nets[i] ? vf_nets_sweep(n->nets[i], &one, result < 0 ? NULL : err) : 0;
        result = result < 0 ? result : r;
        add_sweep(&all, &one);
    }
    *ret = all;
    return result;
}

int vf_networks_publish(struct vf_networks *n, struct vf_net *slot, const struct vf_port *ports,
                        int n_ports, struct vf_port *ret, struct vf_error *err)
{
    (void)n;
    return vf_net_publish(slot, ports, n_ports, ret, err);
}

void vf_networks_counts(const struct vf_networks *n, enum vf_network_mode mode,
                        struct vf_nets_counts *ret)
{
    int i = index_of(mode);
    *ret = (struct vf_nets_counts){0};
    if (i >= 0 && n->nets[i])
        vf_nets_counts(n->nets[i], ret);
}

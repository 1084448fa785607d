/* All slots together: opening, counting, taking. See slot.h; a slot's making is in slot_make.c, its recycling in
 * slot_recycle.c, its end in slot_remove.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/log.h"
#include "net/needs.h"
#include "net/nft.h"
#include "net/slot_internal.h"

const struct vf_net_shape vf_net_shape_default = {
    .tap = {.queues = 1, .offloads = true},
    .mtu = VF_MTU_DEFAULT,
    .guest_mac = {{0x02, 0x76, 0x6d, 0, 0, 2}},
};

/* ---- opening */

static int set_names(struct vf_nets *s, const struct vf_nets_config *cfg, struct vf_error *err)
{
    const char *prefix = cfg->prefix ? cfg->prefix : "vf-";
    const char *table = cfg->table ? cfg->table : VF_NET_TABLE;
    if (strlen(prefix) == 0 || strlen(prefix) > VF_NET_PREFIX_MAX || strpbrk(prefix, "/ :*%"))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "network.prefix: \"%s\" must have 1 to %d letters that can be in a name",
                       prefix, VF_NET_PREFIX_MAX);
    if (strlen(table) >= sizeof(s->table))
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.table: the name is too long");
    strcpy(s->prefix, prefix);
    strcpy(s->table, table);
    s->netns_dir = strdup(cfg->netns_dir ? cfg->netns_dir : VF_NETNS_DIR);
    if (!s->netns_dir)
        return vf_fail(err, VF_NO_MEMORY, "networks: no memory");
    if (strlen(s->netns_dir) > 100)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.netns_dir: the path is too long");
    s->host = (struct vf_host_rules){.table = s->table, .prefix = s->prefix, .pool = &s->pool};
    return 0;
}

static int find_bridge(struct vf_nets *s, const char *name, struct vf_error *err)
{
    struct vf_link_info l;
    int r = vf_link_get(&s->host_route, name, &l, err);
    if (r < 0) {
        vf_wrap(err, "network.bridge");
        vf_hint(err, "make the bridge first: ip link add %s type bridge", name);
        return r;
    }
    if (strcmp(l.kind, "bridge") != 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.bridge: %s is %s%s, not a bridge", name,
                       l.kind[0] ? "of kind " : "an interface", l.kind);
    s->bridge = l.index;
    return 0;
}

static bool is_on(const char *path)
{
    VF_CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    char on = 0;
    return fd >= 0 && read(fd, &on, 1) == 1 && on != '0';
}

static int forwards(const char *path, bool set, struct vf_error *err)
{
    if (is_on(path))
        return 0;
    if (!set) {
        vf_fail(err, VF_UNSUPPORTED, "networks: the host does not forward packets (%s is 0)", path);
        return vf_hint(err, "switch it on: echo 1 >%s, or set network_forwarding", path);
    }
    VF_CLEANUP_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "1\n", 2) != 2)
        return vf_fail_errno(err, errno, "networks: switch forwarding on: %s", path);
    vf_log(VF_LOG_WARN, NULL, "networks: the host forwards packets from now on (%s was 0)", path);
    return 0;
}

/* Routed: the host must forward, and its table is made. */
static int open_routed(struct vf_nets *s, bool set_forwarding, struct vf_error *err)
{
    uint32_t generation;
    /* Before anything is changed: without privileges this fails. */
    int r = vf_need(vf_nft_generation(&s->host_nf, &generation, err), VF_NEED_HOST_RULES, err);
    if (r == 0 && s->pool.has4)
        r = forwards("/proc/sys/net/ipv4/ip_forward", set_forwarding, err);
    if (r == 0 && s->pool.has6)
        r = forwards("/proc/sys/net/ipv6/conf/all/forwarding", set_forwarding, err);
    return r < 0 ? r : vf_host_rules_make(&s->host_nf, &s->host, err);
}

static int check_prefix(const struct vf_cidr *c, int i, struct vf_error *err)
{
    /* Never those of one interface of a network: this one, loopback, of a link, of a group, reserved. */
    static const struct vf_cidr special[] = {
        {{.family = AF_INET}, 8},
        {{.family = AF_INET, .b = {127}}, 8},
        {{.family = AF_INET, .b = {169, 254}}, 16},
        {{.family = AF_INET, .b = {224}}, 3},
        {{.family = AF_INET6}, 96},
        {{.family = AF_INET6, .b = {0xfe, 0x80}}, 10},
        {{.family = AF_INET6, .b = {0xff}}, 8},
    };
    /* What every guest has inside: 172.31.255.0/30, fd76:6d00::/64. */
    const struct vf_cidr inside[] = {
        {{.family = AF_INET, .b = {172, 31, 255, 0}}, vf_inside.bits4},
        {{.family = AF_INET6, .b = {0xfd, 0x76, 0x6d, 0x00}}, vf_inside.bits6},
    };
    char a[VF_IP_TEXT], b[VF_IP_TEXT];
    for (size_t k = 0; k < sizeof(inside) / sizeof(inside[0]); k++)
        if (vf_cidr_overlap(c, &inside[k]))
            return vf_fail(err, VF_CONFLICT,
                           "network.prefixes[%d]: %s overlaps %s, which every guest has inside", i,
                           vf_cidr_text(c, a), vf_cidr_text(&inside[k], b));
    for (size_t k = 0; k < sizeof(special) / sizeof(special[0]); k++)
        if (vf_cidr_overlap(c, &special[k])) {
            vf_fail(err, VF_INVALID_ARGUMENT,
                    "network.prefixes[%d]: %s overlaps %s, whose addresses can't be a VM's", i,
                    vf_cidr_text(c, a), vf_cidr_text(&special[k], b));
            return vf_hint(err, "give private prefixes, like 10.210.0.0/16 and fd76:6d01::/48");
        }
    return 0;
}

static int check_prefixes(const struct vf_nets *s, struct vf_error *err)
{
    int r = 0;
    for (int i = 0; r == 0 && i < s->pool.n_prefixes; i++)
        r = check_prefix(&s->pool.prefixes[i], i, err);
    return r;
}

static int open_all(struct vf_nets *s, const struct vf_nets_config *cfg, struct vf_error *err)
{
    int r = set_names(s, cfg, err);
    if (r == 0)
        r = check_prefixes(s, err);
    if (r == 0)
        r = vf_nl_open(&s->host_route, NETLINK_ROUTE, err);
    if (r == 0) /* what needs no privileges comes first */
        r = cfg->bridge ? find_bridge(s, cfg->bridge, err)
                        : vf_routes_check(&s->host_route, &s->pool, s->prefix, err);
    if (r == 0)
        r = vf_open_dir(cfg->run_dir, 1, 0700, &s->run_dirfd, err);
    if (r == 0)
        r = vf_nl_open(&s->host_nf, NETLINK_NETFILTER, err);
    if (r == 0)
        r = vf_netns_prepare(s->netns_dir, err);
    if (r == 0 && !cfg->bridge)
        r = open_routed(s, cfg->set_forwarding, err);
    return r;
}

static void free_all(struct vf_nets *s)
{
    vf_nl_close(&s->host_nf);
    vf_nl_close(&s->host_route);
    vf_close_fd(&s->run_dirfd);
    free(s->netns_dir);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->host_lock);
    vf_addresses_close(&s->pool);
    free(s);
}

int vf_nets_open(const struct vf_nets_config *cfg, struct vf_nets **ret, struct vf_error *err)
{
    static const char *const no_gateways[] = {NULL};
    struct vf_nets *s = calloc(1, sizeof(*s));
    if (!s)
        return vf_fail(err, VF_NO_MEMORY, "networks: no memory");
    int r =
        vf_addresses_init(&s->pool, cfg->prefixes,
                          cfg->bridge ? (cfg->gateways ? cfg->gateways : no_gateways) : NULL, err);
    if (r < 0) {
        free(s);
        return r;
    }
    s->run_dirfd = s->host_nf.fd = s->host_route.fd = -1;
    s->first_port = cfg->first_port;
    s->last_port = cfg->last_port;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->host_lock, NULL);
    r = open_all(s, cfg, err);
    if (r < 0) {
        free_all(s);
        return r;
    }
    *ret = s;
    return 0;
}

static void destroy_ready(struct vf_nets *s)
{
    int n = 0, *numbers = calloc((size_t)s->n[VF_NET_READY] + 1, sizeof(*numbers));
    while (numbers && s->ready) {
        struct vf_net *slot = s->ready;
        s->ready = slot->next;
        numbers[n++] = slot->number;
        vf_net_free(slot);
    }
    if (n)
        vf_net_remove(s, numbers, n, NULL);
    free(numbers);
}

void vf_nets_close(struct vf_nets *s)
{
    if (!s)
        return;
    destroy_ready(s);
    struct vf_names names = {0};
    bool left = false;
    if (vf_dir_names(s->run_dirfd, &names, NULL) < 0)
        left = true;
    for (size_t i = 0; i < names.n; i++)
        left |= vf_net_record_number(names.v[i]) >= 0;
    vf_names_free(&names);
    if (!left && !s->bridge)
        vf_host_rules_remove(&s->host_nf, &s->host, NULL);
    free_all(s);
}

void vf_nets_counts(struct vf_nets *s, struct vf_nets_counts *ret)
{
    pthread_mutex_lock(&s->lock);
    *ret = (struct vf_nets_counts){
        .capacity = s->pool.capacity,
        .making = s->n[VF_NET_MAKING],
        .ready = s->n[VF_NET_READY],
        .taken = s->n[VF_NET_TAKEN],
        .dirty = s->n[VF_NET_DIRTY],
        .made = s->made,
        .recycled = s->recycled,
        .destroyed = s->destroyed,
        .doubts = s->doubts,
    };
    pthread_mutex_unlock(&s->lock);
}

/* ---- a slot's life */

void vf_net_name(const struct vf_nets *s, int number, char ret[VF_LINK_NAME])
{
    snprintf(ret, VF_LINK_NAME, "%s%d", s->prefix, number);
}

struct vf_net *vf_net_new(struct vf_nets *s, int number, const struct vf_net_shape *shape)
{
    struct vf_net *slot = calloc(1, sizeof(*slot));
    if (!slot)
        return NULL;
    slot->slots = s;
    slot->number = number;
    slot->shape = *shape;
    slot->state = VF_NET_STATES;
    vf_net_name(s, number, slot->name);
    return slot;
}

static void count(struct vf_net *slot, enum vf_net_state state)
{
    struct vf_nets *s = slot->slots;
    if (slot->state < VF_NET_STATES)
        s->n[slot->state]--;
    if (state < VF_NET_STATES)
        s->n[state]++;
    slot->state = state;
}

void vf_net_enter(struct vf_net *slot, enum vf_net_state state)
{
    pthread_mutex_lock(&slot->slots->lock);
    count(slot, state);
    pthread_mutex_unlock(&slot->slots->lock);
}

static void park(struct vf_net *slot, uint64_t *n)
{
    struct vf_nets *s = slot->slots;
    pthread_mutex_lock(&s->lock);
    ++*n;
    count(slot, VF_NET_READY);
    slot->next = s->ready;
    s->ready = slot;
    pthread_mutex_unlock(&s->lock);
}

void vf_net_park(struct vf_net *slot)
{
    park(slot, &slot->slots->recycled);
}

void vf_net_made(struct vf_net *slot, bool taken)
{
    struct vf_nets *s = slot->slots;
    if (!taken) {
        park(slot, &s->made);
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->made++;
    count(slot, VF_NET_TAKEN);
    pthread_mutex_unlock(&s->lock);
}

void vf_net_close_fds(struct vf_net *slot)
{
    for (int i = 0; i < slot->n_fds; i++)
        vf_close_fd(&slot->fds[i]);
    slot->n_fds = 0;
}

void vf_net_free(struct vf_net *slot)
{
    vf_net_close_fds(slot);
    vf_net_enter(slot, VF_NET_STATES);
    free(slot);
}

bool vf_net_same_shape(const struct vf_net_shape *a, const struct vf_net_shape *b)
{
    return a->tap.queues == b->tap.queues && a->tap.offloads == b->tap.offloads &&
           a->tap.by_name == b->tap.by_name && a->tap.owner == b->tap.owner && a->mtu == b->mtu &&
           memcmp(&a->guest_mac, &b->guest_mac, sizeof(a->guest_mac)) == 0;
}

int vf_net_take(struct vf_nets *s, const struct vf_net_shape *shape, struct vf_net **ret,
                struct vf_error *err)
{
    struct vf_net *slot = NULL;
    pthread_mutex_lock(&s->lock);
    for (struct vf_net **at = &s->ready; *at; at = &(*at)->next)
        if (vf_net_same_shape(&(*at)->shape, shape)) {
            slot = *at;
            *at = slot->next;
            slot->next = NULL;
            count(slot, VF_NET_TAKEN);
            break;
        }
    pthread_mutex_unlock(&s->lock);
    if (!slot)
        return vf_fail(err, VF_NOT_FOUND, "networks: none of this shape is ready");
    *ret = slot;
    return 0;
}

int vf_nets_ready(struct vf_nets *s, const struct vf_net_shape *shape)
{
    int n = 0;
    pthread_mutex_lock(&s->lock);
    for (const struct vf_net *slot = s->ready; slot; slot = slot->next)
        n += vf_net_same_shape(&slot->shape, shape);
    pthread_mutex_unlock(&s->lock);
    return n;
}

bool vf_nets_drop(struct vf_nets *s, const struct vf_net_shape *shape, struct vf_error *err)
{
    struct vf_net *slot = NULL;
    pthread_mutex_lock(&s->lock);
    for (struct vf_net **at = &s->ready; *at && !slot; at = &(*at)->next)
        if (!shape || vf_net_same_shape(&(*at)->shape, shape)) {
            slot = *at;
            *at = slot->next;
            count(slot, VF_NET_DIRTY);
            break;
        }
    pthread_mutex_unlock(&s->lock);
    if (slot)
        vf_net_destroy(slot, err);
    return slot != NULL;
}

void vf_net_info(const struct vf_net *slot, struct vf_net_info *ret)
{
    struct vf_address_pair pair;
    *ret = (struct vf_net_info){.number = slot->number,
                                .name = slot->name,
                                .tap = VF_NET_TAP,
                                .tap_fds = slot->fds,
                                .n_tap_fds = slot->n_fds,
                                .ports = slot->host.ports,
                                .n_ports = slot->host.n_ports,
                                .shape = slot->shape};
    snprintf(ret->netns_path, sizeof(ret->netns_path), "%s/%s", slot->slots->netns_dir, slot->name);
    if (vf_addresses_pair(&slot->slots->pool, slot->number, AF_INET, &pair))
        ret->host4 = pair.slot;
    if (vf_addresses_pair(&slot->slots->pool, slot->number, AF_INET6, &pair))
        ret->host6 = pair.slot;
}

void vf_net_forget(struct vf_net *slot)
{
    vf_net_free(slot);
}

int vf_net_open_netns(const struct vf_net *slot, int n_tuns, struct vf_netns *ret,
                      struct vf_error *err)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/%s", slot->slots->netns_dir, slot->name);
    return vf_netns_open(path, n_tuns, ret, err);
}

struct vf_net_rules vf_net_rules(const struct vf_net *slot)
{
    return (struct vf_net_rules){
        .pool = &slot->slots->pool, .number = slot->number, .guest_mac = slot->shape.guest_mac};
}

void vf_net_macs(const struct vf_nets *s, int number, struct vf_mac *ret_host,
                 struct vf_mac *ret_slot)
{
    /* On a bridge they meet those of others: so the pool's first prefix is part of them. */
    uint8_t mix = 0;
    for (int i = 0; i < 16; i++)
        mix = (uint8_t)(mix * 31 + s->pool.prefixes[0].ip.b[i]);
    *ret_host = (struct vf_mac){
        {0x02, 0x76, 0x6d, (uint8_t)(mix | 1), (uint8_t)(number >> 8), (uint8_t)number}};
    *ret_slot = *ret_host;
    ret_slot->b[0] = 0x06;
}

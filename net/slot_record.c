/* A slot's record: what was made under its number. RUN/net/7.json, written before anything is made, removed last. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/json.h"
#include "net/slot_internal.h"

#define MAX_RECORD 4096
#define SUFFIX ".json"

static const char *const address_keys[] = {"ipv4", "ipv6"};

static void file_name(int number, char ret[24])
{
    snprintf(ret, 24, "%d" SUFFIX, number);
}

/* The tap counts on through all leases; where this one begins. */
static const struct {
    const char *key;
    size_t at;
} counts[] = {
    {"rx_packets", offsetof(struct vf_link_info, rx_packets)},
    {"rx_bytes", offsetof(struct vf_link_info, rx_bytes)},
    {"rx_dropped", offsetof(struct vf_link_info, rx_dropped)},
    {"tx_packets", offsetof(struct vf_link_info, tx_packets)},
    {"tx_bytes", offsetof(struct vf_link_info, tx_bytes)},
    {"tx_dropped", offsetof(struct vf_link_info, tx_dropped)},
};
#define N_COUNTS (sizeof(counts) / sizeof(counts[0]))

static uint64_t *count_of(const struct vf_link_info *l, size_t i)
{
    return (uint64_t *)((char *)l + counts[i].at);
}

int vf_net_record_write(const struct vf_net *slot, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    const struct vf_net_shape *shape = &slot->shape;
    int number = slot->number;
    struct vf_json_writer w = {0};
    char file[24], mac[VF_MAC_TEXT];
    const char *name = slot->name;
    file_name(number, file);
    vf_jw_begin(&w, NULL, '{');
    vf_jw_int(&w, "version", 1);
    vf_jw_string(&w, "name", name);
    vf_jw_int(&w, "queues", shape->tap.queues);
    vf_jw_bool(&w, "offloads", shape->tap.offloads);
    vf_jw_bool(&w, "by_name", shape->tap.by_name);
    vf_jw_int(&w, "owner", shape->tap.owner);
    vf_jw_int(&w, "mtu", shape->mtu);
    vf_jw_string(&w, "guest_mac", vf_mac_text(&shape->guest_mac, mac));
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        char ip[VF_IP_TEXT];
        if (vf_addresses_pair(&s->pool, number, i == 0 ? AF_INET : AF_INET6, &pair))
            vf_jw_string(&w, address_keys[i], vf_ip_text(&pair.slot, ip));
    }
    for (size_t i = 0; i < N_COUNTS; i++)
        vf_jw_int(&w, counts[i].key, (int64_t)*count_of(&slot->base, i));
    vf_jw_end(&w, '}');
    VF_CLEANUP_FREE char *text = vf_jw_finish(&w);
    if (!text)
        return vf_fail(err, VF_NO_MEMORY, "record of network %s: no memory", name);
    int r = vf_write_file(s->run_dirfd, file, text, strlen(text), 0600, err);
    if (r < 0)
        vf_wrap(err, "record of network %s", name);
    return r;
}

/* Whether the record's addresses are those that the pool has for the number today. */
static bool same_addresses(const struct vf_nets *s, int number, const struct vf_json *j)
{
    for (int i = 0; i < 2; i++) {
        struct vf_address_pair pair;
        char ip[VF_IP_TEXT] = "";
        if (vf_addresses_pair(&s->pool, number, i == 0 ? AF_INET : AF_INET6, &pair))
            vf_ip_text(&pair.slot, ip);
        if (strcmp(vf_json_str(vf_json_get(j, address_keys[i]), ""), ip) != 0)
            return false;
    }
    return true;
}

int vf_net_record_read(struct vf_nets *s, int number, struct vf_net_shape *ret,
                       struct vf_link_info *ret_base, struct vf_error *err)
{
    struct vf_link_info base = {0};
    VF_CLEANUP_FREE char *text = NULL;
    struct vf_net_shape shape = {0};
    char file[24];
    size_t len;

    file_name(number, file);
    int r = vf_read_file(s->run_dirfd, file, MAX_RECORD, &text, &len, err);
    if (r < 0) {
        vf_wrap(err, "record of network %d", number);
        return r;
    }
    struct vf_json *j = vf_json_parse(text, len);
    shape.tap.queues = (int)vf_json_int(vf_json_get(j, "queues"), 0);
    shape.tap.offloads = vf_json_bool(vf_json_get(j, "offloads"), false);
    shape.tap.by_name = vf_json_bool(vf_json_get(j, "by_name"), false);
    shape.tap.owner = (uid_t)vf_json_int(vf_json_get(j, "owner"), 0);
    shape.mtu = (int)vf_json_int(vf_json_get(j, "mtu"), 0);
    r = vf_mac_parse(vf_json_str(vf_json_get(j, "guest_mac"), ""), "guest_mac", &shape.guest_mac,
                     NULL);
    bool ok = r == 0 && vf_json_int(vf_json_get(j, "version"), 0) == 1 && shape.tap.queues >= 1 &&
              shape.tap.queues <= VF_NETNS_MAX_TUNS && shape.mtu >= 68 && shape.mtu <= VF_MTU_MAX;
    bool same = same_addresses(s, number, j);
    for (size_t i = 0; i < N_COUNTS; i++)
        *count_of(&base, i) = (uint64_t)vf_json_int(vf_json_get(j, counts[i].key), 0);
    vf_json_delete(j);
    if (!ok)
        return vf_fail(err, VF_CORRUPT, "record of network %d: it is not one of ours", number);
    if (!same) {
        vf_fail(err, VF_CONFLICT, "record of network %d: its addresses are of other prefixes",
                number);
        return vf_hint(err, "keep the prefixes configured for as long as VMs use them");
    }
    *ret = shape;
    *ret_base = base;
    return 0;
}

int vf_net_record_remove(struct vf_nets *s, int number, struct vf_error *err)
{
    char file[24];
    file_name(number, file);
    if (unlinkat(s->run_dirfd, file, 0) < 0 && errno != ENOENT)
        return vf_fail_errno(err, errno, "record of network %d: remove", number);
    return 0;
}

bool vf_net_record_exists(struct vf_nets *s, int number)
{
    char file[24];
    file_name(number, file);
    return faccessat(s->run_dirfd, file, F_OK, 0) == 0;
}

int vf_net_record_number(const char *file)
{
    char again[24], *end;
    if (file[0] < '0' || file[0] > '9')
        return -1;
    long n = strtol(file, &end, 10);
    if (n >= VF_ADDRESSES_MAX_SLOTS || strcmp(end, SUFFIX) != 0)
        return -1;
    file_name((int)n, again);
    return strcmp(file, again) == 0 ? (int)n : -1;
}

/* A slot's end. See slot.h.
 *
 * Happy path: the host's rules forget it, then the host's end of the veth pair goes (and the other with it), then the
 * host's memory of its connections, then the namespace's name, then its record, then the number is free.
 * On the way: what can't be removed keeps the record, so that a sweep tries again, and the number is not used.
 */
#include <errno.h>
#include <string.h>
#include "base/failpoint.h"
#include "net/conntrack.h"
#include "net/slot_internal.h"

int vf_net_flush_host(struct vf_nets *s, int number, struct vf_error *err)
{
    return s->bridge ? 0 : vf_conntrack_flush_mark(&s->host_nf, vf_host_rules_mark(number), err);
}

/* The host's end, if it is ours: a veth with the MAC we gave it. */
static int remove_link(struct vf_nets *s, int number, struct vf_error *err)
{
    struct vf_nl_batch b = {0};
    struct vf_link_info l;
    struct vf_mac host_mac, slot_mac;
    char name[VF_LINK_NAME];

    vf_net_name(s, number, name);
    vf_net_macs(s, number, &host_mac, &slot_mac);
    int r = vf_link_get(&s->host_route, name, &l, err);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    if (strcmp(l.kind, "veth") != 0 || memcmp(&l.mac, &host_mac, sizeof(host_mac)) != 0)
        return vf_fail(err, VF_CONFLICT, "interface %s is not the one we made", name);
    vf_link_delete(&b, name);
    r = vf_nl_send(&s->host_route, &b, err);
    vf_nl_batch_free(&b);
    return r == -ENOENT ? 0 : r;
}

static int remove_from_host(struct vf_nets *s, int number, struct vf_error *err)
{
    pthread_mutex_lock(&s->host_lock);
    int r = s->bridge ? 0 : vf_host_rules_reset(&s->host_nf, &s->host, number, true, NULL, err);
    vf_failpoint("net.remove.unruled");
    int r2 = remove_link(s, number, r < 0 ? NULL : err);
    vf_failpoint("net.remove.unlinked");
    int r3 = vf_net_flush_host(s, number, r < 0 || r2 < 0 ? NULL : err);
    pthread_mutex_unlock(&s->host_lock);
    return r < 0 ? r : r2 < 0 ? r2 : r3;
}

int vf_net_remove(struct vf_nets *s, int number, struct vf_error *err)
{
    char name[VF_LINK_NAME];
    vf_net_name(s, number, name);
    int r = remove_from_host(s, number, err);
    int r2 = vf_netns_drop(s->netns_dir, name, r < 0 ? NULL : err);
    if (r == 0)
        r = r2;
    vf_failpoint("net.remove.dropped");
    if (r == 0)
        r = vf_net_record_remove(s, number, err);
    pthread_mutex_lock(&s->lock);
    s->destroyed++;
    pthread_mutex_unlock(&s->lock);
    if (r < 0) {
        vf_wrap(err, "remove network %s", name);
        return r;
    }
    vf_addresses_give(&s->pool, number);
    return 0;
}

int vf_net_destroy(struct vf_net *slot, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    int number = slot->number;
    vf_net_free(slot);
    return vf_net_remove(s, number, err);
}

/* The end of slots. See slot.h.
 *
 * Happy path: the host's rules and its memory of connections forget them, then the namespaces' names go, and the kernel
 * takes them down all at once, the veth pairs with them; then their records, then the numbers are free.
 * On the way: what can't be removed keeps the record, so that a sweep tries again, and the number is not used.
 */
#include <errno.h>
#include <string.h>
#include <net/if.h>
#include <time.h>
#include "base/clock.h"
#include "base/failpoint.h"
#include "net/conntrack.h"
#include "net/slot_internal.h"

#define LINK_TIMEOUT_MS 1000

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

/* The kernel takes namespaces down a batch at a time, and the host's ends with them. Whoever still holds one keeps its
 * link, too: that is then deleted. */
static int end_link(struct vf_nets *s, int number, int64_t deadline_us, struct vf_error *err)
{
    char name[VF_LINK_NAME];
    vf_net_name(s, number, name);
    while (if_nametoindex(name) != 0 && vf_deadline_left_ms(deadline_us) > 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (if_nametoindex(name) == 0)
        return 0;
    pthread_mutex_lock(&s->host_lock);
    int r = remove_link(s, number, err);
    pthread_mutex_unlock(&s->host_lock);
    return r;
}

static int begin_removal(struct vf_nets *s, int number, struct vf_error *err)
{
    char name[VF_LINK_NAME];
    vf_net_name(s, number, name);
    pthread_mutex_lock(&s->host_lock);
    int r = s->bridge ? 0 : vf_host_rules_reset(&s->host_nf, &s->host, number, true, NULL, err);
    vf_failpoint("net.remove.unruled");
    int r2 = vf_net_flush_host(s, number, r < 0 ? NULL : err);
    pthread_mutex_unlock(&s->host_lock);
    r = r < 0 ? r : r2;
    r2 = vf_netns_drop(s->netns_dir, name, r < 0 ? NULL : err);
    vf_failpoint("net.remove.dropped");
    return r < 0 ? r : r2;
}

static int end_removal(struct vf_nets *s, int number, int64_t deadline_us, struct vf_error *err)
{
    int r = end_link(s, number, deadline_us, err);
    vf_failpoint("net.remove.unlinked");
    if (r == 0)
        r = vf_net_record_remove(s, number, err);
    return r;
}

int vf_net_remove(struct vf_nets *s, int *numbers, int n, struct vf_error *err)
{
    int result = 0, failed = 0;
    for (int i = 0; i < n; i++) {
        struct vf_error why;
        int r = begin_removal(s, numbers[i], &why);
        if (r < 0 && !failed++)
            result = (vf_error_copy(err, &why), r);
        if (r < 0)
            numbers[i] = -1;
    }
    int64_t deadline_us = vf_deadline_after_ms(LINK_TIMEOUT_MS);
    for (int i = 0; i < n; i++) {
        struct vf_error why;
        int r = numbers[i] < 0 ? 0 : end_removal(s, numbers[i], deadline_us, &why);
        if (r < 0 && !failed++)
            result = (vf_error_copy(err, &why), r);
        if (r == 0 && numbers[i] >= 0)
            vf_addresses_give(&s->pool, numbers[i]);
    }
    pthread_mutex_lock(&s->lock);
    s->destroyed += (uint64_t)n;
    pthread_mutex_unlock(&s->lock);
    if (failed)
        vf_wrap(err, "remove networks: %d of %d could not be", failed, n);
    return result;
}

int vf_net_destroy(struct vf_net *slot, struct vf_error *err)
{
    struct vf_nets *s = slot->slots;
    struct vf_host_ports ports = slot->host;
    int number = slot->number;
    vf_net_free(slot);
    int r = vf_net_remove(s, &number, 1, err);
    if (r == 0)
        vf_net_unbook(s, &ports);
    return r;
}

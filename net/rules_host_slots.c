/* What slots have in the sets of the host's table: their names and marks, services they may use, ports that lead to
 * them. See rules.h.
 *
 * Happy path: a change is one batch. What is there is the kernel's to know: it is read, and read again if others change
 * rules meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net/rules_host.h"

#define MAX_READS 100

/* ---- the elements of a slot */

static void name_key(const struct vf_host_rules *h, int number, uint8_t key[VF_HOST_MAX_KEY])
{
    char name[IFNAMSIZ] = "";
    snprintf(name, sizeof(name), "%s%d", h->prefix, number);
    memset(key, 0, VF_HOST_MAX_KEY);
    memcpy(key, name, sizeof(name));
}

static void port_key(const struct vf_port *p, uint8_t *key)
{
    uint16_t port = htons(p->port);
    memset(key, 0, 8);
    key[0] = p->protocol;
    memcpy(key + 4, &port, sizeof(port));
}

static void port_data(const struct vf_ip *ip, const struct vf_port *p,
                      uint8_t data[VF_HOST_MAX_DATA])
{
    uint16_t port = htons(p->guest);
    memset(data, 0, VF_HOST_MAX_DATA);
    memcpy(data, ip->b, (size_t)vf_ip_len(ip));
    memcpy(data + vf_ip_len(ip), &port, sizeof(port));
}

/* ---- elements that are there */

static void keep_element(const void *key, const void *data, uint64_t packets, void *arg)
{
    struct vf_host_elements *e = arg;
    if (e->n == e->cap) {
        int cap = 2 * e->cap + 64;
        struct vf_host_element *v = realloc(e->v, (size_t)cap * sizeof(*v));
        if (!v) {
            e->failed = true;
            return;
        }
        e->v = v;
        e->cap = cap;
    }
    struct vf_host_element *one = &e->v[e->n];
    *one = (struct vf_host_element){.set = e->set, .packets = packets};
    if (!key || (vf_host_sets[e->set].data_len && !data))
        return;
    memcpy(one->key, key, (size_t)vf_host_sets[e->set].key_len);
    if (vf_host_sets[e->set].data_len)
        memcpy(one->data, data, (size_t)vf_host_sets[e->set].data_len);
    e->n++;
}

/* Others change the host's rules while they are read: then they are read again. */
int vf_host_elements(struct vf_nl *nl, const struct vf_host_rules *h, int first, int last,
                     struct vf_host_elements *e, struct vf_error *err)
{
    for (e->set = first; e->set <= last; e->set++) {
        int before = e->n, r = -EAGAIN;
        struct vf_error why = {0};
        for (int i = 0; i < MAX_READS && (i == 0 || (r < 0 && why.code == VF_BUSY)); i++) {
            e->n = before;
            r = vf_nft_elements(nl, NFPROTO_INET, h->table, vf_host_sets[e->set].name, keep_element,
                                e, &why);
        }
        if (r < 0)
            return vf_error_copy(err, &why);
    }
    return e->failed ? vf_fail(err, VF_NO_MEMORY, "host's rules: no memory") : 0;
}

/* Whether an element is of slot number. */
static bool is_of(const struct vf_host_rules *h, int number, const struct vf_host_element *e)
{
    struct vf_address_pair pair;
    uint8_t name[VF_HOST_MAX_KEY];
    if (e->set == VF_HOST_SLOTS || e->set == VF_HOST_OPENED || e->set == VF_HOST_MARKS) {
        name_key(h, number, name);
        return memcmp(name, e->key, IFNAMSIZ) == 0;
    }
    return vf_addresses_pair(h->pool, number, e->set == VF_HOST_PORTS4 ? AF_INET : AF_INET6,
                             &pair) &&
           memcmp(e->data, pair.slot.b, (size_t)vf_ip_len(&pair.slot)) == 0;
}

/* ---- changes */

int vf_host_rules_explain(int r, struct vf_error *err)
{
    if (r == -ENOENT)
        vf_hint(err, "somebody removed the host's table: it is made again at the next start");
    if (r < 0)
        vf_wrap(err, "host's rules");
    return r;
}

int vf_host_rules_add(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                      struct vf_error *err)
{
    struct vf_nl_batch b = {0};
    uint8_t key[VF_HOST_MAX_KEY];
    struct vf_nft n;
    name_key(h, number, key);
    vf_nft_begin(&n, &b, NFPROTO_INET, h->table);
    uint32_t mark = vf_host_rules_mark(number);
    vf_nft_element(&n, &vf_host_sets[VF_HOST_SLOTS], true, key, NULL);
    vf_nft_element(&n, &vf_host_sets[VF_HOST_MARKS], true, key, &mark);
    vf_nft_end(&n);
    int r = vf_host_rules_explain(vf_nl_send(nl, &b, err), err);
    vf_nl_batch_free(&b);
    return r;
}

static void change_port(struct vf_nft *n, const struct vf_host_rules *h, int number,
                        const struct vf_port *p, bool add)
{
    for (int i = 0; i < 2; i++) {
        uint8_t key[VF_HOST_MAX_KEY], data[VF_HOST_MAX_DATA];
        struct vf_address_pair pair;
        if (!vf_addresses_pair(h->pool, number, i == 0 ? AF_INET : AF_INET6, &pair))
            continue;
        port_key(p, key);
        port_data(&pair.slot, p, data);
        vf_nft_element(n, &vf_host_sets[VF_HOST_PORTS4 + i], add, key, add ? data : NULL);
    }
}

static void change_opened(struct vf_nft *n, const struct vf_host_rules *h, int number,
                          const struct vf_port *p, bool add)
{
    uint8_t key[VF_HOST_MAX_KEY];
    name_key(h, number, key);
    port_key(p, key + IFNAMSIZ);
    vf_nft_element(n, &vf_host_sets[VF_HOST_OPENED], add, key, NULL);
}

static bool has_port(const struct vf_port *ports, int n, const struct vf_port *p)
{
    for (int i = 0; i < n; i++)
        if (ports[i].protocol == p->protocol && ports[i].port == p->port &&
            ports[i].guest == p->guest)
            return true;
    return false;
}

/* What is in a and not in b. */
static void change_ports(struct vf_nft *n, const struct vf_host_rules *h, int number,
                         const struct vf_host_ports *a, const struct vf_host_ports *b, bool add)
{
    for (int i = 0; i < a->n_opened; i++)
        if (!has_port(b->opened, b->n_opened, &a->opened[i]))
            change_opened(n, h, number, &a->opened[i], add);
    for (int i = 0; i < a->n_ports; i++)
        if (!has_port(b->ports, b->n_ports, &a->ports[i]))
            change_port(n, h, number, &a->ports[i], add);
}

int vf_host_rules_change(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                         const struct vf_host_ports *from, const struct vf_host_ports *to,
                         struct vf_error *err)
{
    struct vf_nl_batch b = {0};
    struct vf_nft n;
    int r = 0;
    vf_nft_begin(&n, &b, NFPROTO_INET, h->table);
    change_ports(&n, h, number, from, to, false);
    change_ports(&n, h, number, to, from, true);
    if (b.n > 1 || b.failed) {
        vf_nft_end(&n);
        r = vf_nl_send(nl, &b, err);
    }
    if (r < 0 && err && err->code == VF_CONFLICT) {
        vf_fail(err, VF_CONFLICT, "one of the %d host ports leads to another VM already",
                to->n_ports);
        vf_hint(err, "choose another port, or release the VM that has it");
    } else {
        r = vf_host_rules_explain(r, err);
    }
    vf_nl_batch_free(&b);
    return r;
}

static void keep_port(const struct vf_host_element *e, struct vf_host_ports *ret)
{
    bool opened = e->set == VF_HOST_OPENED;
    int *n = opened ? &ret->n_opened : &ret->n_ports;
    const uint8_t *key = e->key + (opened ? IFNAMSIZ : 0);
    struct vf_port p = {.protocol = key[0], .port = (uint16_t)(key[4] << 8 | key[5])};
    if (!opened) {
        const uint8_t *data = e->data + (e->set == VF_HOST_PORTS4 ? 4 : 16);
        p.guest = (uint16_t)(data[0] << 8 | data[1]);
    }
    /* One that leads to both of its addresses is one port. */
    if (*n < VF_PORTS_MAX && !has_port(opened ? ret->opened : ret->ports, *n, &p))
        (opened ? ret->opened : ret->ports)[(*n)++] = p;
}

int vf_host_rules_read(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                       struct vf_host_ports *ret, struct vf_error *err)
{
    struct vf_host_elements e = {0};
    struct vf_host_ports ports = {0};
    int r = vf_host_elements(nl, h, VF_HOST_OPENED, VF_HOST_PORTS6, &e, err);
    for (int i = 0; r == 0 && i < e.n; i++)
        if (is_of(h, number, &e.v[i]))
            keep_port(&e.v[i], &ports);
    free(e.v);
    if (r == 0)
        *ret = ports;
    return r;
}

int vf_host_rules_reset(struct vf_nl *nl, const struct vf_host_rules *h, int number, bool gone,
                        uint64_t *ret_refused, struct vf_error *err)
{
    struct vf_host_elements e = {0};
    struct vf_nl_batch b = {0};
    struct vf_nft n;
    uint64_t refused = 0;
    bool found = false;
    int r = vf_host_elements(nl, h, 0, VF_HOST_SETS - 1, &e, err);

    if (r == 0)
        vf_nft_begin(&n, &b, NFPROTO_INET, h->table);
    for (int i = 0; r == 0 && i < e.n; i++) {
        if (!is_of(h, number, &e.v[i]))
            continue;
        if (e.v[i].set == VF_HOST_SLOTS) {
            found = true;
            refused = e.v[i].packets;
            if (!gone && refused == 0)
                continue;
        }
        if (e.v[i].set == VF_HOST_MARKS && !gone)
            continue;
        vf_nft_element(&n, &vf_host_sets[e.v[i].set], false, e.v[i].key, NULL);
        if (e.v[i].set == VF_HOST_SLOTS && !gone)
            vf_nft_element(&n, &vf_host_sets[VF_HOST_SLOTS], true, e.v[i].key, NULL);
    }
    if (r == 0 && b.n > 1) {
        vf_nft_end(&n);
        r = vf_host_rules_explain(vf_nl_send(nl, &b, err), err);
    }
    vf_nl_batch_free(&b);
    free(e.v);
    if (r < 0)
        return r;
    if (!found && !gone)
        return vf_fail(err, VF_NOT_FOUND, "host's rules: %s%d is not among the slots", h->prefix,
                       number);
    if (ret_refused)
        *ret_refused = refused;
    return 0;
}

int vf_host_rules_refused(struct vf_nl *nl, const struct vf_host_rules *h, int number,
                          uint64_t *ret_refused, struct vf_error *err)
{
    uint8_t key[VF_HOST_MAX_KEY];
    struct vf_error why;
    name_key(h, number, key);
    int r = vf_nft_element_packets(nl, NFPROTO_INET, h->table, &vf_host_sets[VF_HOST_SLOTS], key,
                                   ret_refused, &why);
    if (r == -ENOENT)
        return vf_fail(err, VF_NOT_FOUND, "host's rules: %s%d is not among the slots", h->prefix,
                       number);
    return r < 0 ? vf_error_copy(err, &why) : 0;
}

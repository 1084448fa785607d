/* The pool of slots' numbers and addresses. See address.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "net/address.h"

#define FIRST_SINGLE 2 /* of a bridge's network: 0 is the network, 1 mostly the router */

/* How many slots the prefix is good for, at most VF_ADDRESSES_MAX_SLOTS. */
static int room(const struct vf_address_pool *p, const struct vf_cidr *c)
{
    int free_bits = 8 * vf_ip_len(&c->ip) - c->bits;
    if (!p->singles)
        free_bits--;
    if (free_bits < 0)
        return 0;
    int n = free_bits > 16 ? VF_ADDRESSES_MAX_SLOTS : 1 << free_bits;
    if (p->singles && free_bits <= 16)
        n -= FIRST_SINGLE + 1; /* and the last is the broadcast address */
    return n < 0 ? 0 : n;
}

static int add_prefix(struct vf_address_pool *p, const char *text, struct vf_error *err)
{
    char field[32], a[VF_IP_TEXT], b[VF_IP_TEXT];
    struct vf_cidr *c = &p->prefixes[p->n_prefixes];

    snprintf(field, sizeof(field), "network.prefixes[%d]", p->n_prefixes);
    if (p->n_prefixes == VF_ADDRESSES_MAX_PREFIXES)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network.prefixes: more than %d",
                       VF_ADDRESSES_MAX_PREFIXES);
    if (vf_cidr_parse(text, field, c, err) < 0)
        return -EINVAL;
    if (room(p, c) == 0) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s has no room for a slot", field,
                vf_cidr_text(c, a));
        return vf_hint(err, "each slot takes a /31 of IPv4 and a /127 of IPv6");
    }
    for (int i = 0; i < p->n_prefixes; i++)
        if (vf_cidr_overlap(&p->prefixes[i], c))
            return vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s overlaps %s", field,
                           vf_cidr_text(c, a), vf_cidr_text(&p->prefixes[i], b));
    p->n_prefixes++;
    return 0;
}

static int add_gateway(struct vf_address_pool *p, const char *text, struct vf_error *err)
{
    struct vf_ip ip;
    if (vf_ip_parse(text, "network.gateway", &ip, err) < 0)
        return -EINVAL;
    for (int i = 0; i < p->n_prefixes; i++)
        if (vf_cidr_contains(&p->prefixes[i], &ip)) {
            p->gateway[ip.family == AF_INET6] = ip;
            return 0;
        }
    vf_fail(err, VF_INVALID_ARGUMENT, "network.gateway: %s lies in none of the prefixes", text);
    return vf_hint(err, "give the bridge's own network as prefix");
}

int vf_addresses_init(struct vf_address_pool *p, const char *const *prefixes,
                      const char *const *gateways, struct vf_error *err)
{
    long n4 = 0, n6 = 0;
    memset(p, 0, sizeof(*p));
    p->singles = gateways != NULL;
    for (int i = 0; prefixes[i]; i++)
        if (add_prefix(p, prefixes[i], err) < 0)
            return -EINVAL;
    for (int i = 0; gateways && gateways[i]; i++)
        if (add_gateway(p, gateways[i], err) < 0)
            return -EINVAL;
    for (int i = 0; i < p->n_prefixes; i++)
        *(p->prefixes[i].ip.family == AF_INET ? &n4 : &n6) += room(p, &p->prefixes[i]);
    p->has4 = n4 > 0;
    p->has6 = n6 > 0;
    if (!p->has4 && !p->has6) {
        vf_fail(err, VF_INVALID_ARGUMENT, "network.prefixes: there is none");
        return vf_hint(err, "give at least one, like 10.210.0.0/16");
    }
    long n = !p->has6 || (p->has4 && n4 < n6) ? n4 : n6;
    p->capacity = n > VF_ADDRESSES_MAX_SLOTS ? VF_ADDRESSES_MAX_SLOTS : (int)n;
    pthread_mutex_init(&p->lock, NULL);
    return 0;
}

void vf_addresses_close(struct vf_address_pool *p)
{
    pthread_mutex_destroy(&p->lock);
}

static bool is_taken(const struct vf_address_pool *p, int i)
{
    return p->taken[i / 64] >> i % 64 & 1;
}

static void mark(struct vf_address_pool *p, int i)
{
    p->taken[i / 64] |= UINT64_C(1) << i % 64;
    p->n_taken++;
}

int vf_addresses_take(struct vf_address_pool *p, int *ret_number, struct vf_error *err)
{
    int found = -1;
    pthread_mutex_lock(&p->lock);
    if (p->n_taken < p->capacity) {
        for (found = p->next; is_taken(p, found);)
            found = (found + 1) % p->capacity;
        mark(p, found);
        p->next = (found + 1) % p->capacity;
    }
    pthread_mutex_unlock(&p->lock);
    if (found < 0) {
        vf_fail(err, VF_BUSY, "networks: all %d of the configured prefixes are in use",
                p->capacity);
        return vf_hint(err, "release VMs, or configure more prefixes");
    }
    *ret_number = found;
    return 0;
}

int vf_addresses_claim(struct vf_address_pool *p, int number, struct vf_error *err)
{
    int r = 0;
    if (number < 0 || number >= p->capacity)
        return vf_fail(err, VF_INVALID_ARGUMENT, "network %d: the pool has numbers 0 to %d", number,
                       p->capacity - 1);
    pthread_mutex_lock(&p->lock);
    if (is_taken(p, number))
        r = vf_fail(err, VF_CONFLICT, "network %d is in use", number);
    else
        mark(p, number);
    pthread_mutex_unlock(&p->lock);
    return r;
}

void vf_addresses_give(struct vf_address_pool *p, int number)
{
    pthread_mutex_lock(&p->lock);
    if (number >= 0 && number < p->capacity && is_taken(p, number)) {
        p->taken[number / 64] &= ~(UINT64_C(1) << number % 64);
        p->n_taken--;
    }
    pthread_mutex_unlock(&p->lock);
}

/* The i-th address of c. */
static struct vf_ip nth(const struct vf_cidr *c, uint32_t i)
{
    struct vf_ip ip = c->ip;
    for (int at = vf_ip_len(&ip) - 1; at >= 0 && i; at--) {
        i += ip.b[at];
        ip.b[at] = (uint8_t)i;
        i >>= 8;
    }
    return ip;
}

bool vf_addresses_pair(const struct vf_address_pool *p, int number, int family,
                       struct vf_address_pair *ret)
{
    int n = number;
    if (family == AF_INET ? !p->has4 : !p->has6)
        return false;
    for (int i = 0; i < p->n_prefixes; i++) {
        const struct vf_cidr *c = &p->prefixes[i];
        if (c->ip.family != family)
            continue;
        if (n >= room(p, c)) {
            n -= room(p, c);
            continue;
        }
        if (p->singles) {
            ret->host = p->gateway[family == AF_INET6];
            ret->slot = nth(c, (uint32_t)n + FIRST_SINGLE);
            ret->bits = c->bits;
            /* The gateway's own address is nobody else's; then it is not the first one, which is free. */
            if (ret->host.family && vf_ip_same(&ret->host, &ret->slot))
                ret->slot = nth(c, FIRST_SINGLE - 1);
        } else {
            ret->host = nth(c, 2 * (uint32_t)n);
            ret->slot = nth(c, 2 * (uint32_t)n + 1);
            ret->bits = 8 * vf_ip_len(&c->ip) - 1;
        }
        return true;
    }
    return false;
}

/* What is said on UDP port 7:
 *
 *     who                           -> the machine-id, in hexadecimal
 *     send ADDRESS PORT TEXT        TEXT goes there from this guest, by way of the gateway -> sent
 *     spoof FROM ADDRESS PORT TEXT  the same from another address -> sent
 *     spoof MAC ADDRESS PORT TEXT   the same from another MAC (six numbers in hexadecimal) -> sent
 *     anything else                 -> the same
 *
 * An address is of either family. A command that is malformed is anything else.
 */
#include "tests/guests/tiny/net.h"

struct text {
    const uint8_t *p;
    size_t len;
};

/* What precedes the next space, which is taken away with it. */
static struct text word(struct text *t)
{
    struct text w = {t->p, 0};

    while (w.len < t->len && w.p[w.len] != ' ')
        w.len++;
    size_t taken = w.len < t->len ? w.len + 1 : w.len;
    t->p += taken;
    t->len -= taken;
    return w;
}

/* Digits of a base at the start of t, at most max of them; -1: there are none, or more. */
static int32_t number(struct text *t, uint32_t base, size_t max)
{
    int32_t v = 0;
    size_t n = 0;

    for (; n < t->len; n++) {
        uint32_t digit = (uint32_t)t->p[n] - '0';
        if (digit > 9 && base == 16)
            digit = ((uint32_t)t->p[n] | 0x20) - 'a' + 10;
        if (digit >= base || (t->p[n] > '9' && digit < 10))
            break;
        if (n == max)
            return -1;
        v = v * (int32_t)base + (int32_t)digit;
    }
    t->p += n;
    t->len -= n;
    return n ? v : -1;
}

static bool skip(struct text *t, char c)
{
    if (t->len == 0 || t->p[0] != c)
        return false;
    t->p++;
    t->len--;
    return true;
}

static bool parse_ipv4(struct text t, uint8_t ret[4])
{
    for (unsigned i = 0; i < 4; i++) {
        if (i > 0 && !skip(&t, '.'))
            return false;
        int32_t v = number(&t, 10, 3);
        if (v < 0 || v > 255)
            return false;
        ret[i] = (uint8_t)v;
    }
    return t.len == 0;
}

static bool parse_ipv6(struct text t, uint8_t ret[16])
{
    unsigned n = 0, gap = 8; /* words so far; how many of them before the gap */

    memset(ret, 0, 16);
    while (t.len > 0) {
        if (gap == 8 && t.len >= 2 && t.p[0] == ':' && t.p[1] == ':') {
            t.p += 2;
            t.len -= 2;
            gap = n;
            continue;
        }
        if (n > 0 && n != gap && !skip(&t, ':'))
            return false;
        int32_t v = number(&t, 16, 4);
        if (v < 0 || n == 8)
            return false;
        put16(ret + 2 * n++, (uint32_t)v);
    }
    if (gap == 8)
        return n == 8;
    if (n == 8)
        return false;
    memmove(ret + 16 - 2 * (n - gap), ret + 2 * gap, 2 * (n - gap));
    memset(ret + 2 * gap, 0, 2 * (8 - n));
    return true;
}

static bool parse_ip(struct text t, struct ip *ret)
{
    ret->v6 = !parse_ipv4(t, ret->b);
    return !ret->v6 || parse_ipv6(t, ret->b);
}

static bool parse_mac(struct text t, uint8_t ret[6])
{
    for (unsigned i = 0; i < 6; i++) {
        if (i > 0 && !skip(&t, ':'))
            return false;
        int32_t v = number(&t, 16, 2);
        if (v < 0)
            return false;
        ret[i] = (uint8_t)v;
    }
    return t.len == 0;
}

/* Carries out a send or spoof; false if it is none. */
static bool send_elsewhere(struct text t)
{
    struct text command = word(&t), from = {0};
    struct datagram d = {.from_port = 7};
    struct ip other;
    bool spoof = text_is(command.p, command.len, "spoof");

    if (!spoof && !text_is(command.p, command.len, "send"))
        return false;
    memcpy(d.from_mac, net.mac, 6);
    memcpy(d.to_mac, net.gateway_mac, 6);
    if (spoof)
        from = word(&t);
    if (!parse_ip(word(&t), &d.to))
        return false;
    d.from.v6 = d.to.v6;
    memcpy(d.from.b, d.to.v6 ? net.ipv6 : net.ipv4, d.to.v6 ? 16 : 4);
    if (spoof && !parse_mac(from, d.from_mac)) {
        if (!parse_ip(from, &other) || other.v6 != d.to.v6)
            return false;
        memcpy(d.from_mac, net.mac, 6);
        d.from = other;
    }
    struct text port = word(&t);
    int32_t v = number(&port, 10, 5);
    if (v < 0 || v > 65535 || port.len > 0)
        return false;
    d.to_port = (uint16_t)v;
    d.data = t.p;
    d.len = t.len;
    return net_send_datagram(&d);
}

void net_talk(const struct datagram *asked)
{
    static const char hex[] = "0123456789abcdef";
    struct datagram d = {.from = asked->to,
                         .to = asked->from,
                         .from_port = asked->to_port,
                         .to_port = asked->from_port,
                         .data = asked->data,
                         .len = asked->len};
    uint8_t id[32];

    memcpy(d.from_mac, net.mac, 6);
    memcpy(d.to_mac, asked->from_mac, 6);
    if (text_is(asked->data, asked->len, "who")) {
        for (unsigned i = 0; i < 16; i++) {
            id[2 * i] = (uint8_t)hex[machine_id[i] >> 4];
            id[2 * i + 1] = (uint8_t)hex[machine_id[i] & 15];
        }
        d.data = id;
        d.len = sizeof(id);
    } else if (send_elsewhere((struct text){asked->data, asked->len})) {
        d.data = (const uint8_t *)"sent";
        d.len = 4;
    } else {
        /* The same words in another order have the same sum. */
        d.has_checksum = true;
        d.checksum = asked->checksum;
    }
    net_send_datagram(&d);
}

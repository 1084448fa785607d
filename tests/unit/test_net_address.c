/* Addresses and prefixes as text, and the pool that slots take theirs from. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "net/address.h"

static void expect_cidr(const char *text, const char *expected)
{
    struct vf_cidr c;
    struct vf_error e;
    char back[VF_IP_TEXT];
    cr_assert_eq(vf_cidr_parse(text, "f", &c, &e), 0, "%s: %s", text, e.msg);
    cr_expect_str_eq(vf_cidr_text(&c, back), expected);
}

Test(net_address, prefixes_are_read_and_written)
{
    expect_cidr("10.210.0.0/16", "10.210.0.0/16");
    expect_cidr("0.0.0.0/0", "0.0.0.0/0");
    expect_cidr("192.0.2.7", "192.0.2.7/32");
    expect_cidr("fd76:6d01::/48", "fd76:6d01::/48");
    expect_cidr("::/0", "::/0");
    expect_cidr("2001:db8:0:0::1", "2001:db8::1/128");
    expect_cidr("128.0.0.0/1", "128.0.0.0/1");
    expect_cidr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127");
}

static void refuse_cidr(const char *text, const char *says)
{
    struct vf_cidr c = {.bits = 77};
    struct vf_error e;
    cr_expect_eq(vf_cidr_parse(text, "pool[3]", &c, &e), -EINVAL, "%s", text);
    cr_expect_eq(c.bits, 77, "%s: changed on failure", text);
    cr_expect(strncmp(e.msg, "pool[3]: ", 9) == 0 && (strstr(e.msg, says) || strstr(e.hint, says)),
              "%s: %s (%s)", text, e.msg, e.hint);
}

Test(net_address, bad_prefixes_are_refused_with_the_reason)
{
    refuse_cidr("", "not an IP address");
    refuse_cidr("10.0.0/8", "not an IP address");
    refuse_cidr("10.0.0.256/32", "not an IP address");
    refuse_cidr("example.org/24", "not an IP address");
    refuse_cidr("10.0.0.0/33", "0 to 32");
    refuse_cidr("10.0.0.0/-1", "0 to 32");
    refuse_cidr("10.0.0.0/", "0 to 32");
    refuse_cidr("10.0.0.0/8x", "0 to 32");
    refuse_cidr("10.0.0.0/ 8", "0 to 32");
    refuse_cidr("10.0.0.0/99999999999999999999", "0 to 32");
    refuse_cidr("fd00::/129", "0 to 128");
    refuse_cidr("10.1.2.3/16", "10.1.0.0/16");
    refuse_cidr("fd00::1/64", "fd00::/64");
    refuse_cidr("10.0.0.0/8/8", "0 to 32");
    refuse_cidr("1111111111111111111111111111111111111111111111111111111111111111111111", "prefix");
}

Test(net_address, overlaps)
{
    static const struct {
        const char *a, *b;
        bool overlap;
    } cases[] = {
        {"10.0.0.0/8", "10.210.0.0/16", true}, {"10.210.0.0/16", "10.211.0.0/16", false},
        {"10.0.0.0/9", "10.128.0.0/9", false}, {"0.0.0.0/0", "192.0.2.1", true},
        {"0.0.0.0/0", "::/0", false},          {"fd00::/8", "fd76:6d01::/48", true},
        {"fd76::/32", "fd77::/32", false},     {"192.0.2.4/31", "192.0.2.5", true},
        {"192.0.2.4/31", "192.0.2.6", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vf_cidr a, b;
        cr_assert_eq(vf_cidr_parse(cases[i].a, "a", &a, NULL), 0);
        cr_assert_eq(vf_cidr_parse(cases[i].b, "b", &b, NULL), 0);
        cr_expect_eq(vf_cidr_overlap(&a, &b), cases[i].overlap, "%s %s", cases[i].a, cases[i].b);
        cr_expect_eq(vf_cidr_overlap(&b, &a), cases[i].overlap, "%s %s", cases[i].b, cases[i].a);
    }
}

Test(net_address, macs)
{
    static const char *const bad[] = {"",
                                      "02:76:6d:00:00",
                                      "02:76:6d:00:00:01:02",
                                      "2:76:6d:0:0:1",
                                      "02-76-6d-00-00-01",
                                      "02:76:6d:00:00:0g",
                                      "02:76:6d:00:00:011",
                                      "ff:ff:ff:ff:ff:ff",
                                      "01:00:5e:00:00:01",
                                      "00:00:00:00:00:00",
                                      NULL};
    struct vf_mac m;
    char text[VF_MAC_TEXT];
    cr_expect_eq(vf_mac_parse("02:76:6D:00:aB:01", "mac", &m, NULL), 0);
    cr_expect_str_eq(vf_mac_text(&m, text), "02:76:6d:00:ab:01");
    for (int i = 0; bad[i]; i++) {
        struct vf_error e;
        cr_expect_eq(vf_mac_parse(bad[i], "mac", &m, &e), -EINVAL, "%s", bad[i]);
        cr_expect_str_eq(vf_mac_text(&m, text), "02:76:6d:00:ab:01");
    }
}

/* ---- the pool */

static void expect_pair(const struct vf_address_pool *p, int number, int family, const char *host,
                        const char *slot)
{
    struct vf_address_pair pair;
    char text[VF_IP_TEXT];
    cr_assert(vf_addresses_pair(p, number, family, &pair), "%d", number);
    cr_expect_str_eq(vf_ip_text(&pair.host, text), host);
    cr_expect_str_eq(vf_ip_text(&pair.slot, text), slot);
}

static struct vf_address_pool pool; /* large */

Test(net_address, pairs_go_through_the_prefixes_in_order)
{
    static const char *const prefixes[] = {"10.0.0.0/30", "fd00::/120", "10.0.1.0/24", NULL};
    struct vf_address_pair pair;
    cr_assert_eq(vf_addresses_init(&pool, prefixes, NULL, NULL), 0);
    cr_expect_eq(pool.capacity, 128, "2 + 128 of IPv4, 128 of IPv6");
    expect_pair(&pool, 0, AF_INET, "10.0.0.0", "10.0.0.1");
    expect_pair(&pool, 1, AF_INET, "10.0.0.2", "10.0.0.3");
    expect_pair(&pool, 2, AF_INET, "10.0.1.0", "10.0.1.1");
    expect_pair(&pool, 127, AF_INET, "10.0.1.250", "10.0.1.251");
    expect_pair(&pool, 0, AF_INET6, "fd00::", "fd00::1");
    expect_pair(&pool, 127, AF_INET6, "fd00::fe", "fd00::ff");
    cr_expect_not(vf_addresses_pair(&pool, 130, AF_INET, &pair));
    vf_addresses_close(&pool);
}

Test(net_address, a_carry_goes_up)
{
    static const char *const prefixes[] = {"10.210.0.0/15", NULL};
    cr_assert_eq(vf_addresses_init(&pool, prefixes, NULL, NULL), 0);
    cr_expect_eq(pool.capacity, 65536);
    cr_expect_not(pool.has6);
    expect_pair(&pool, 128, AF_INET, "10.210.1.0", "10.210.1.1");
    expect_pair(&pool, 65535, AF_INET, "10.211.255.254", "10.211.255.255");
    vf_addresses_close(&pool);
}

Test(net_address, a_bridges_network_gives_single_addresses)
{
    static const char *const prefixes[] = {"192.168.7.0/29", NULL};
    static const char *const gateways[] = {"192.168.7.3", NULL}, *const wrong[] = {"10.0.0.1",
                                                                                   NULL};
    struct vf_error e;
    cr_assert_eq(vf_addresses_init(&pool, prefixes, gateways, NULL), 0);
    cr_expect_eq(pool.capacity, 5);
    expect_pair(&pool, 0, AF_INET, "192.168.7.3", "192.168.7.2");
    expect_pair(&pool, 1, AF_INET, "192.168.7.3", "192.168.7.1"); /* .3 is the router's */
    expect_pair(&pool, 4, AF_INET, "192.168.7.3", "192.168.7.6");
    vf_addresses_close(&pool);
    cr_expect_eq(vf_addresses_init(&pool, prefixes, wrong, &e), -EINVAL);
    cr_expect(strstr(e.msg, "network.gateway: 10.0.0.1"), "%s", e.msg);
}

Test(net_address, a_bridges_network_of_exactly_16_bits_is_not_left)
{
    static const char *const prefixes[] = {"10.1.0.0/16", "fd77::/112", NULL};
    static const char *const gateways[] = {"10.1.0.1", NULL};
    struct vf_address_pool p;
    struct vf_address_pair pair;
    struct vf_error e;
    char text[VF_IP_TEXT];
    cr_assert_eq(vf_addresses_init(&p, prefixes, gateways, &e), 0, "%s", e.msg);
    cr_expect_eq(p.capacity, 65536 - 3);
    cr_assert(vf_addresses_pair(&p, p.capacity - 1, AF_INET, &pair));
    cr_expect_str_eq(vf_ip_text(&pair.slot, text), "10.1.255.254");
    cr_assert(vf_addresses_pair(&p, p.capacity - 1, AF_INET6, &pair));
    cr_expect_str_eq(vf_ip_text(&pair.slot, text), "fd77::fffe");
    vf_addresses_close(&p);
}

Test(net_address, numbers_are_taken_once_and_go_round)
{
    static const char *const prefixes[] = {"10.0.0.0/29", NULL};
    struct vf_error e;
    int n;
    cr_assert_eq(vf_addresses_init(&pool, prefixes, NULL, NULL), 0);
    cr_assert_eq(pool.capacity, 4);
    cr_expect_eq(vf_addresses_claim(&pool, 2, &e), 0);
    cr_expect_eq(vf_addresses_claim(&pool, 2, &e), -EBUSY);
    cr_expect_eq(vf_addresses_claim(&pool, 4, &e), -EINVAL);
    cr_expect_eq(vf_addresses_claim(&pool, -1, &e), -EINVAL);
    static const int order[] = {0, 1, 3};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(vf_addresses_take(&pool, &n, &e), 0);
        cr_expect_eq(n, order[i]);
    }
    cr_expect_eq(vf_addresses_take(&pool, &n, &e), -EAGAIN);
    cr_expect_eq(e.code, VF_BUSY);
    cr_expect_str_not_empty(e.hint);
    vf_addresses_give(&pool, 1);
    vf_addresses_give(&pool, 1); /* twice is once */
    vf_addresses_give(&pool, 99);
    cr_expect_eq(pool.n_taken, 3);
    cr_assert_eq(vf_addresses_take(&pool, &n, &e), 0);
    cr_expect_eq(n, 1);
    vf_addresses_give(&pool, 0);
    vf_addresses_give(&pool, 3);
    cr_assert_eq(vf_addresses_take(&pool, &n, &e), 0);
    cr_expect_eq(n, 3, "not the one that was used last but the next");
    vf_addresses_close(&pool);
}

static void refuse_pool(const char *const *prefixes, const char *says)
{
    struct vf_error e;
    cr_expect_eq(vf_addresses_init(&pool, prefixes, NULL, &e), -EINVAL, "%s", says);
    cr_expect(strstr(e.msg, says), "%s", e.msg);
}

Test(net_address, bad_pools_are_refused)
{
    static const char *const none[] = {NULL}, *const small[] = {"10.0.0.0/24", "10.1.0.0/32", NULL},
                             *const overlap[] = {"10.0.0.0/16", "fd00::/64", "10.0.3.0/24", NULL},
                             *const bad[] = {"10.0.0.0/16", "nonsense", NULL};
    const char *many[VF_ADDRESSES_MAX_PREFIXES + 2] = {NULL};
    char texts[VF_ADDRESSES_MAX_PREFIXES + 1][32];
    for (int i = 0; i <= VF_ADDRESSES_MAX_PREFIXES; i++) {
        snprintf(texts[i], sizeof(texts[i]), "10.0.%d.0/24", i);
        many[i] = texts[i];
    }
    refuse_pool(none, "there is none");
    refuse_pool(small, "network.prefixes[1]: 10.1.0.0/32 has no room");
    refuse_pool(overlap, "network.prefixes[2]: 10.0.3.0/24 overlaps 10.0.0.0/16");
    refuse_pool(bad, "network.prefixes[1]: \"nonsense\"");
    refuse_pool(many, "more than 16");
}

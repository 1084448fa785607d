/* What the settings say about networks: what is refused and how that is said, and what net/ is given. */
#include <errno.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net/networks.h"
#include "pool/settings.h"

TestSuite(settings_networks, .timeout = 30);

static struct vf_error err;

static int parse(const char *text, struct vf_settings *ret)
{
    return vf_settings_parse(text, strlen(text), NULL, ret, &err);
}

static void good(const char *text)
{
    struct vf_settings s;

    cr_assert_eq(parse(text, &s), 0, "%s: %s", text, err.msg);
    vf_settings_free(&s);
}

static void refused(const char *text, const char *message)
{
    struct vf_settings s;

    cr_expect_eq(parse(text, &s), -EINVAL, "%s", text);
    cr_expect_str_eq(err.msg, message);
}

Test(settings_networks, defaults)
{
    struct vf_settings s;
    struct vf_settings_networks n;
    struct vf_networks_config cfg;

    cr_assert_eq(parse("{}", &s), 0, "%s", err.msg);
    cr_expect_eq(s.network, VF_NETWORKS_AUTO);
    cr_assert_eq(vf_settings_networks(&s, "/run/x", &n, &cfg, &err), 0, "%s", err.msg);
    cr_expect_str_eq(cfg.run_dir, "/run/x/net");
    cr_expect_null(cfg.netns_dir);
    cr_expect_str_eq(cfg.prefixes[0], "10.210.0.0/16");
    cr_expect_str_eq(cfg.prefixes[1], "fd76:6d01::/48");
    cr_expect_null(cfg.prefixes[2]);
    cr_expect_null(cfg.bridge);
    cr_expect_null(cfg.bridge_prefixes[0]);
    cr_expect_null(cfg.bridge_gateways[0]);
    cr_expect_not(cfg.set_forwarding);
    cr_expect_eq(cfg.ahead, 8);
    cr_expect_eq(cfg.first_port, 30000);
    cr_expect_eq(cfg.last_port, 32767);
    vf_settings_networks_free(&n);
    vf_settings_networks_free(&n);
    vf_settings_free(&s);
}

Test(settings_networks, all_of_them)
{
    static const char text[] =
        "{\"network\":\"on\",\"network_prefixes\":\" 10.1.0.0/16 , fd00:1::/48,10.2.0.0/31\","
        "\"network_ahead\":0,\"network_ports\":\"1-65535\",\"network_forwarding\":true,"
        "\"network_bridge\":\"br0\",\"network_bridge_prefixes\":\"192.168.7.0/24,fd00:7::/64\","
        "\"network_bridge_gateways\":\"192.168.7.1,fd00:7::1\",\"network_netns_dir\":\"/run/n\"}";
    struct vf_settings s, again;
    struct vf_settings_networks n;
    struct vf_networks_config cfg;
    char *encoded;

    cr_assert_eq(parse(text, &s), 0, "%s", err.msg);
    cr_expect_eq(s.network, VF_NETWORKS_ON);
    cr_assert_eq(vf_settings_networks(&s, "/run/x", &n, &cfg, &err), 0, "%s", err.msg);
    cr_expect_str_eq(cfg.netns_dir, "/run/n");
    cr_expect_str_eq(cfg.prefixes[0], "10.1.0.0/16");
    cr_expect_str_eq(cfg.prefixes[1], "fd00:1::/48");
    cr_expect_str_eq(cfg.prefixes[2], "10.2.0.0/31");
    cr_expect_null(cfg.prefixes[3]);
    cr_expect_str_eq(cfg.bridge, "br0");
    cr_expect_str_eq(cfg.bridge_prefixes[1], "fd00:7::/64");
    cr_expect_str_eq(cfg.bridge_gateways[0], "192.168.7.1");
    cr_expect_null(cfg.bridge_gateways[2]);
    cr_expect(cfg.set_forwarding);
    cr_expect_eq(cfg.ahead, 0);
    cr_expect_eq(cfg.first_port, 1);
    cr_expect_eq(cfg.last_port, 65535);
    vf_settings_networks_free(&n);

    encoded = vf_settings_encode(&s);
    cr_assert_eq(parse(encoded, &again), 0, "%s", err.msg);
    cr_expect(again.network_forwarding);
    cr_expect_str_eq(again.network_prefixes, s.network_prefixes);
    free(encoded);
    vf_settings_free(&again);
    vf_settings_free(&s);
}

Test(settings_networks, none_of_a_mode)
{
    struct vf_settings s;
    struct vf_settings_networks n;
    struct vf_networks_config cfg;

    cr_assert_eq(parse("{\"network_prefixes\":\"\",\"network_ports\":\"\"}", &s), 0, "%s", err.msg);
    cr_assert_eq(vf_settings_networks(&s, "/run/x", &n, &cfg, &err), 0, "%s", err.msg);
    cr_expect_null(cfg.prefixes);
    cr_expect_eq(cfg.first_port, 0);
    cr_expect_eq(cfg.last_port, 0);
    vf_settings_networks_free(&n);
    vf_settings_free(&s);
    refused("{\"network\":\"on\",\"network_prefixes\":\"\"}",
            "network: is \"on\", but there are neither network_prefixes nor network_bridge");
    good("{\"network\":\"off\",\"network_prefixes\":\"\"}");
    good("{\"network\":\"on\",\"network_prefixes\":\"\",\"network_bridge\":\"br0\","
         "\"network_bridge_prefixes\":\"192.168.7.0/24\"}");
}

Test(settings_networks, prefixes)
{
    char many[800] = "{\"network_prefixes\":\"";

    refused("{\"network_prefixes\":\"10.210.0.0/33\"}",
            "network_prefixes[0]: \"10.210.0.0/33\": the prefix length must be 0 to 32");
    refused("{\"network_prefixes\":\"10.210.0.0/16,fd00::1::/48\"}",
            "network_prefixes[1]: \"fd00::1::\" is not an IP address");
    refused("{\"network_prefixes\":\"10.210.0.1/16\"}",
            "network_prefixes[0]: \"10.210.0.1/16\" has bits set beyond its length");
    refused("{\"network_prefixes\":\"10.210.0.0/16,\"}",
            "network_prefixes[1]: \"\" is not an IP address");
    refused("{\"network_prefixes\":\"10.210.0.0/16,10.210.7.0/24\"}",
            "network_prefixes[1]: 10.210.7.0/24 overlaps 10.210.0.0/16 of network_prefixes");
    refused("{\"network_prefixes\":\"10.210.0.7\"}",
            "network_prefixes[0]: 10.210.0.7 has no room for a VM");
    refused("{\"network_prefixes\":\"fd00::7/128\"}",
            "network_prefixes[0]: fd00::7/128 has no room for a VM");
    good("{\"network_prefixes\":\"10.210.0.0/31,fd00::/127\"}");
    refused("{\"network\":\"maybe\"}",
            "network: must be \"auto\", \"on\" or \"off\" (is \"maybe\")");
    for (int i = 0; i < 17; i++)
        snprintf(many + strlen(many), sizeof(many) - strlen(many), "%s10.%d.0.0/16",
                 i > 0 ? "," : "", i);
    strcat(many, "\"}");
    refused(many, "network_prefixes: at most 16 prefixes are allowed");
}

#define BRIDGE(more) "{\"network_bridge\":\"br0\"," more "}"

Test(settings_networks, bridge)
{
    refused("{\"network_bridge\":\"br0\"}",
            "network_bridge_prefixes: is needed with network_bridge, for the VMs' addresses");
    refused("{\"network_bridge\":\"a/b\",\"network_bridge_prefixes\":\"192.168.7.0/24\"}",
            "network_bridge: must be the name of an interface (is \"a/b\")");
    refused("{\"network_bridge\":\"0123456789abcdef\"}",
            "network_bridge: must have at most 15 bytes (has 16)");
    refused("{\"network_bridge_prefixes\":\"192.168.7.0/24\"}",
            "network_bridge_prefixes: makes no sense without network_bridge");
    refused("{\"network_bridge_gateways\":\"192.168.7.1\"}",
            "network_bridge_gateways: makes no sense without network_bridge");
    refused(BRIDGE("\"network_bridge_prefixes\":\"192.168.7.0/31\""),
            "network_bridge_prefixes[0]: 192.168.7.0/31 has no room for a VM");
    refused(BRIDGE("\"network_bridge_prefixes\":\"10.210.3.0/24\""),
            "network_bridge_prefixes[0]: 10.210.3.0/24 overlaps 10.210.0.0/16 of network_prefixes");
    refused(BRIDGE("\"network_bridge_prefixes\":\"192.168.7.0/24\","
                   "\"network_bridge_gateways\":\"192.168.8.1\""),
            "network_bridge_gateways[0]: 192.168.8.1 lies in none of network_bridge_prefixes");
    refused(BRIDGE("\"network_bridge_prefixes\":\"192.168.7.0/24\","
                   "\"network_bridge_gateways\":\"192.168.7.1,192.168.7.2\""),
            "network_bridge_gateways[1]: 192.168.7.2 is the second router of IPv4");
    refused(BRIDGE("\"network_bridge_prefixes\":\"192.168.7.0/24\","
                   "\"network_bridge_gateways\":\"router\""),
            "network_bridge_gateways[0]: \"router\" is not an IP address");
    good(BRIDGE("\"network_bridge_prefixes\":\"192.168.7.0/24\""));
}

Test(settings_networks, the_rest)
{
    static const char *const ports[] = {"80",      "80-",       "-80",         "90-80", "0-80",
                                        "1-65536", "1-2-3",     "a-b",         "1 - 2", "+1-2",
                                        "-",       "1-0000000", "99999-99999", NULL};
    char text[100], message[150];

    for (int i = 0; ports[i] != NULL; i++) {
        snprintf(text, sizeof(text), "{\"network_ports\":\"%s\"}", ports[i]);
        snprintf(message, sizeof(message),
                 "network_ports: must be FIRST-LAST, of 1 to 65535 (is \"%s\")", ports[i]);
        refused(text, message);
    }
    refused("{\"network_netns_dir\":\"run/netns\"}",
            "network_netns_dir: must be an absolute path (is \"run/netns\")");
    refused("{\"network_forwarding\":\"yes\"}",
            "network_forwarding: must be true or false (is a string)");
    refused("{\"network_ahead\":257}", "network_ahead: must be at most 256 (is 257)");
}

/* As on the command line. */
Test(settings_networks, one_by_one)
{
    struct vf_settings s, file;
    char *waiting = NULL;

    cr_assert_eq(parse("{}", &s), 0, "%s", err.msg);
    cr_expect_eq(vf_settings_set(&s, "network_forwarding", "true", &err), 0);
    cr_expect(s.network_forwarding);
    cr_expect_eq(vf_settings_set(&s, "network_forwarding", "1", &err), -EINVAL);
    cr_expect_str_eq(err.msg, "network_forwarding: must be true or false (is \"1\")");
    cr_expect(s.network_forwarding);
    cr_expect_eq(vf_settings_set(&s, "network_prefixes", "10.0.0.0/33", &err), 0);
    cr_expect_eq(vf_settings_check(&s, &err), -EINVAL);
    cr_expect_eq(vf_settings_set(&s, "network_prefixes", "10.0.0.0/8", &err), 0);
    cr_expect_eq(vf_settings_check(&s, &err), 0);

    /* They wait for a restart. */
    cr_assert_eq(parse("{}", &file), 0, "%s", err.msg);
    cr_assert_eq(vf_settings_apply(&s, &file, &waiting, &err), 0);
    cr_expect_str_eq(waiting, "network_prefixes, network_forwarding");
    cr_expect(s.network_forwarding);
    free(waiting);
    vf_settings_free(&file);
    vf_settings_free(&s);
}

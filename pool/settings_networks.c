/* What the settings say about networks: read and checked, and handed on to net/. See settings.h.
 *
 * Happy path: each list is split at its commas, each item read, and what goes together compared.
 * On the way: what can't be read or clashes is refused with the setting's name and the item's place, so that a wrong file
 * is refused before anything starts. What the host has to say (routes, interfaces) is asked by net/ at the start.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net/address.h"
#include "net/networks.h"
#include "pool/settings_internal.h"

#define MAX_FIELD 48

struct prefixes {
    struct vf_cidr list[VF_ADDRESSES_MAX_PREFIXES];
    int n;
};

static int no_memory(struct vf_error *err)
{
    return vf_fail(err, VF_NO_MEMORY, "settings: no memory");
}

static void free_list(struct vf_strv *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->v[i]);
    free(list->v);
    *list = (struct vf_strv){0};
}

/* text's items, without the spaces around them; NULL: none. */
static int split(const char *text, struct vf_strv *ret, struct vf_error *err)
{
    struct vf_strv list = {0};
    size_t most = 1;

    for (const char *c = text; c != NULL && *c != '\0'; c++)
        most += *c == ',';
    list.v = (char **)calloc(most + 1, sizeof(char *));
    if (list.v == NULL)
        return no_memory(err);
    while (text != NULL) {
        const char *comma = strchr(text, ',');
        size_t len;

        text += strspn(text, " ");
        len = comma != NULL ? (size_t)(comma - text) : strlen(text);
        while (len > 0 && text[len - 1] == ' ')
            len--;
        list.v[list.n] = strndup(text, len);
        if (list.v[list.n] == NULL) {
            free_list(&list);
            return no_memory(err);
        }
        list.n++;
        text = comma != NULL ? comma + 1 : NULL;
    }
    *ret = list;
    return 0;
}

/* ---- prefixes */

static int check_apart(const struct vf_cidr *a, const char *name_a, const struct prefixes *others,
                       const char *name_b, struct vf_error *err)
{
    char text_a[VF_IP_TEXT], text_b[VF_IP_TEXT];

    for (int i = 0; i < others->n; i++) {
        if (!vf_cidr_overlap(a, &others->list[i]))
            continue;
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s overlaps %s of %s", name_a,
                vf_cidr_text(a, text_a), vf_cidr_text(&others->list[i], text_b), name_b);
        return vf_hint(err, "each address may be in one prefix only");
    }
    return 0;
}

/* pairs: each VM takes two addresses, not one of a bridge's network. */
static int parse_prefix(const char *text, const char *name, bool pairs, struct prefixes *to,
                        struct vf_error *err)
{
    char field[MAX_FIELD];
    struct vf_cidr *c = &to->list[to->n];
    int bits, r;

    if (to->n == VF_ADDRESSES_MAX_PREFIXES)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: at most %d prefixes are allowed", name,
                       VF_ADDRESSES_MAX_PREFIXES);
    snprintf(field, sizeof(field), "%s[%d]", name, to->n);
    r = vf_cidr_parse(text, field, c, err);
    if (r < 0)
        return r;
    bits = 8 * vf_ip_len(&c->ip) - (pairs ? 1 : 2);
    if (c->bits > bits) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s has no room for a VM", field, text);
        return vf_hint(err, "/%d is the smallest possible", bits);
    }
    r = check_apart(c, field, to, name, err);
    if (r == 0)
        to->n++;
    return r;
}

static int parse_prefixes(const char *text, const char *name, bool pairs, struct prefixes *ret,
                          struct vf_error *err)
{
    struct vf_strv list = {0};
    int r = split(text, &list, err);

    ret->n = 0;
    for (size_t i = 0; r == 0 && i < list.n; i++)
        r = parse_prefix(list.v[i], name, pairs, ret, err);
    free_list(&list);
    return r;
}

/* ---- the bridge */

static int check_gateway(const char *text, size_t i, const struct prefixes *of, bool had[2],
                         struct vf_error *err)
{
    char field[MAX_FIELD];
    struct vf_ip ip;
    int r;

    snprintf(field, sizeof(field), "network_bridge_gateways[%zu]", i);
    r = vf_ip_parse(text, field, &ip, err);
    if (r < 0)
        return r;
    if (had[ip.family == AF_INET6])
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s is the second router of IPv%c", field,
                       text, ip.family == AF_INET6 ? '6' : '4');
    had[ip.family == AF_INET6] = true;
    for (int k = 0; k < of->n; k++)
        if (vf_cidr_contains(&of->list[k], &ip))
            return 0;
    vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s lies in none of network_bridge_prefixes", field,
            text);
    return vf_hint(err, "give the bridge's own network as prefix");
}

static int check_bridge(const struct vf_settings *s, const struct prefixes *of,
                        struct vf_error *err)
{
    const char *name = s->network_bridge;
    struct vf_strv gateways = {0};
    bool had[2] = {false, false};
    int r;

    if (name == NULL && (s->network_bridge_prefixes || s->network_bridge_gateways)) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: makes no sense without network_bridge",
                s->network_bridge_prefixes ? "network_bridge_prefixes" : "network_bridge_gateways");
        return vf_hint(err, "set network_bridge to the bridge's name, or leave it out");
    }
    if (name == NULL)
        return 0;
    if (strpbrk(name, "/: \t\n") != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "network_bridge: must be the name of an interface (is \"%.15s\")", name);
    if (of->n == 0) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network_bridge_prefixes: is needed with network_bridge, for the VMs' addresses");
        return vf_hint(err, "give the bridge's own network, as 192.168.7.0/24");
    }
    r = split(s->network_bridge_gateways, &gateways, err);
    for (size_t i = 0; r == 0 && i < gateways.n; i++)
        r = check_gateway(gateways.v[i], i, of, had, err);
    free_list(&gateways);
    return r;
}

/* ---- ports */

static int port_of(const char *text, size_t len)
{
    int port = 0;

    if (len < 1 || len > 5 || strspn(text, "0123456789") < len)
        return 0;
    for (size_t i = 0; i < len; i++)
        port = port * 10 + (text[i] - '0');
    return port <= UINT16_MAX ? port : 0;
}

static int parse_ports(const char *text, int *ret_first, int *ret_last, struct vf_error *err)
{
    const char *hyphen = text != NULL ? strchr(text, '-') : NULL;

    *ret_first = *ret_last = 0;
    if (text == NULL)
        return 0;
    if (hyphen != NULL) {
        *ret_first = port_of(text, (size_t)(hyphen - text));
        *ret_last = port_of(hyphen + 1, strlen(hyphen + 1));
    }
    if (*ret_first >= 1 && *ret_last >= *ret_first)
        return 0;
    vf_fail(err, VF_INVALID_ARGUMENT,
            "network_ports: must be FIRST-LAST, of 1 to 65535 (is \"%.16s\")", text);
    return vf_hint(err, "for example 30000-32767");
}

/* ---- */

int vf_settings_check_networks(const struct vf_settings *s, struct vf_error *err)
{
    struct prefixes nat, bridge;
    int first, last, r;

    r = parse_prefixes(s->network_prefixes, "network_prefixes", true, &nat, err);
    if (r == 0)
        r = parse_prefixes(s->network_bridge_prefixes, "network_bridge_prefixes", false, &bridge,
                           err);
    for (int i = 0; r == 0 && i < bridge.n; i++) {
        char field[MAX_FIELD];

        snprintf(field, sizeof(field), "network_bridge_prefixes[%d]", i);
        r = check_apart(&bridge.list[i], field, &nat, "network_prefixes", err);
    }
    if (r == 0)
        r = check_bridge(s, &bridge, err);
    if (r == 0)
        r = parse_ports(s->network_ports, &first, &last, err);
    if (r == 0 && s->network_netns_dir != NULL && s->network_netns_dir[0] != '/')
        r = vf_fail(err, VF_INVALID_ARGUMENT,
                    "network_netns_dir: must be an absolute path (is \"%.100s\")",
                    s->network_netns_dir);
    if (r == 0 && s->network == VF_NETWORKS_ON && nat.n == 0 && s->network_bridge == NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "network: is \"on\", but there are neither network_prefixes nor network_bridge");
        r = vf_hint(err, "set one of them, or network to \"auto\"");
    }
    return r;
}

int vf_settings_networks(const struct vf_settings *s, const char *run_dir,
                         struct vf_settings_networks *ret, struct vf_networks_config *ret_cfg,
                         struct vf_error *err)
{
    struct vf_settings_networks n = {0};
    struct vf_networks_config cfg = {.netns_dir = s->network_netns_dir,
                                     .bridge = s->network_bridge,
                                     .set_forwarding = s->network_forwarding,
                                     .ahead = (int)s->network_ahead};
    int r = parse_ports(s->network_ports, &cfg.first_port, &cfg.last_port, err);

    if (r == 0)
        r = split(s->network_prefixes, &n.prefixes, err);
    if (r == 0)
        r = split(s->network_bridge_prefixes, &n.bridge_prefixes, err);
    if (r == 0)
        r = split(s->network_bridge_gateways, &n.bridge_gateways, err);
    if (r == 0 && asprintf(&n.run_dir, "%s/net", run_dir) < 0) {
        n.run_dir = NULL;
        r = no_memory(err);
    }
    if (r < 0) {
        vf_settings_networks_free(&n);
        return r;
    }
    cfg.run_dir = n.run_dir;
    if (n.prefixes.n > 0)
        cfg.prefixes = (const char *const *)n.prefixes.v;
    cfg.bridge_prefixes = (const char *const *)n.bridge_prefixes.v;
    cfg.bridge_gateways = (const char *const *)n.bridge_gateways.v;
    *ret = n;
    *ret_cfg = cfg;
    return 0;
}

void vf_settings_networks_free(struct vf_settings_networks *n)
{
    free_list(&n->prefixes);
    free_list(&n->bridge_prefixes);
    free_list(&n->bridge_gateways);
    free(n->run_dir);
    n->run_dir = NULL;
}

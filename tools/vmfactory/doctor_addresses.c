/* doctor's checks of what networks share with the rest of the host: names in /run/netns, and prefixes.
 *
 * The settings are the daemon's if it runs, else those of its file, else the defaults.
 */
#include "tools/vmfactory/doctor.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"

#define SETTINGS_FILE "/etc/vmfactory/vmfactoryd.json"
#define SETTINGS_MAX (64 * 1024)
#define ROUTES_MAX (256 * 1024)
#define SLOT_MAX 65535

/* name is as it is set, dflt if that can't be told; whether a daemon runs. */
static bool setting(struct vf_cli *cli, const char *name, const char *dflt, char *buf, size_t size)
{
    VF_CLEANUP_FREE char *text = NULL;
    struct vf_json *j;
    size_t len;

    if (vf_doctor_setting(cli, name, buf, size))
        return true;
    snprintf(buf, size, "%s", dflt);
    if (vf_read_file(AT_FDCWD, SETTINGS_FILE, SETTINGS_MAX, &text, &len, NULL) < 0)
        return false;
    j = vf_json_parse(text, len);
    snprintf(buf, size, "%s", vf_json_str(vf_json_get(j, name), dflt));
    vf_json_delete(j);
    return false;
}

static bool switched_off(struct vf_cli *cli)
{
    char wanted[16];

    setting(cli, "network", "auto", wanted, sizeof(wanted));
    return strcmp(wanted, "off") == 0;
}

/* ---- namespaces */

static const struct {
    const char *prefix,
        *records; /* of names; where they are accounted for, below the run directory */
} kinds[] = {{"vf-", "net/nat"}, {"vfb-", "net/bridge"}};

int vf_doctor_slot_number(const char *name, const char *prefix)
{
    size_t len = strlen(prefix), digits;
    long number;

    if (strncmp(name, prefix, len) != 0)
        return -1;
    digits = strspn(name + len, "0123456789");
    if (digits < 1 || digits > 5 || name[len + digits] != '\0')
        return -1;
    number = strtol(name + len, NULL, 10);
    return number <= SLOT_MAX ? (int)number : -1;
}

/* 1: it is one of vmfactoryd's; 0: it is not, though it is called like one; negative: it is called otherwise, or nobody
 * here may know. */
static int whose(const char *name, const char *run_dir)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        int number = vf_doctor_slot_number(name, kinds[i].prefix);
        char path[PATH_MAX + 40];

        if (number < 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s/%d.json", run_dir, kinds[i].records, number);
        if (access(path, F_OK) == 0)
            return 1;
        return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
    }
    return -ENOENT;
}

struct names {
    char text[200];
    size_t len;
    int n;
};

static void add_name(struct names *to, const char *name)
{
    to->n++;
    if (to->len + strlen(name) + 2 < sizeof(to->text))
        to->len += (size_t)snprintf(to->text + to->len, sizeof(to->text) - to->len, "%s%s",
                                    to->len > 0 ? " " : "", name);
}

void vf_doctor_look_namespaces(struct vf_cli *cli, struct vf_finding *ret)
{
    char dir[PATH_MAX], run_dir[PATH_MAX];
    struct names foreign = {.n = 0};
    int ours = 0, unknown = 0;
    struct dirent *e;
    bool runs;
    DIR *d;

    if (switched_off(cli)) {
        ret->verdict = VF_FINDING_SKIPPED;
        return;
    }
    runs = setting(cli, "network_netns_dir", "", dir, sizeof(dir));
    if (dir[0] == '\0')
        snprintf(dir, sizeof(dir), "/run/netns");
    vf_doctor_run_dir(cli, run_dir, sizeof(run_dir));
    d = opendir(dir);
    if (d == NULL && errno != ENOENT) {
        vf_find(ret, VF_FINDING_SKIPPED, NULL, "%.200s: %s; run doctor as root to see them", dir,
                strerror(errno));
        return;
    }
    while (d != NULL && (e = readdir(d)) != NULL) {
        int r = whose(e->d_name, run_dir);

        ours += r == 1;
        unknown += r < 0 && r != -ENOENT;
        if (r == 0)
            add_name(&foreign, e->d_name);
    }
    if (d != NULL)
        closedir(d);
    if (unknown > 0)
        vf_find(ret, VF_FINDING_SKIPPED, NULL,
                "this user may not see whose %d in %.200s are; run doctor as root", unknown, dir);
    else if (foreign.n > 0)
        vf_find(ret, VF_FINDING_WARN,
                "ip netns delete each, if nobody needs it; vmfactoryd leaves them alone",
                "%d in %.100s are called like vmfactoryd's, but not accounted for: %s", foreign.n,
                dir, foreign.text);
    else
        vf_find(ret, VF_FINDING_OK, NULL, "%d of vmfactoryd's in %.200s%s", ours, dir,
                !runs && ours > 0 ? "; its next start removes what no VM uses" : "");
}

/* ---- prefixes */

struct prefix {
    int family, bits; /* family 0: it can't be read */
    uint8_t b[16];
};

static struct prefix prefix_of(const char *text, size_t len)
{
    struct prefix p = {.family = 0};
    char copy[64], *slash;

    if (len >= sizeof(copy))
        return p;
    snprintf(copy, sizeof(copy), "%.*s", (int)len, text);
    slash = strchr(copy, '/');
    if (slash != NULL)
        *slash = '\0';
    p.family = inet_pton(AF_INET, copy, p.b) == 1    ? AF_INET
               : inet_pton(AF_INET6, copy, p.b) == 1 ? AF_INET6
                                                     : 0;
    p.bits = slash != NULL ? atoi(slash + 1) : p.family == AF_INET ? 32 : 128;
    if (p.bits < 0 || p.bits > (p.family == AF_INET ? 32 : 128))
        p.family = 0;
    return p;
}

static bool overlap(const struct prefix *a, const struct prefix *b)
{
    int bits = a->bits < b->bits ? a->bits : b->bits;

    if (a->family != b->family || memcmp(a->b, b->b, (size_t)(bits / 8)) != 0)
        return false;
    return bits % 8 == 0 || (a->b[bits / 8] ^ b->b[bits / 8]) >> (8 - bits % 8) == 0;
}

/* A line of /proc/net/route: "eth0 0000000A 00000000 0003 0 0 0 000000FF …", numbers as they lie in memory. */
static bool parse_route4(const char *line, struct prefix *ret, char name[16])
{
    unsigned to, mask;

    if (sscanf(line, "%15s %8x %*x %*x %*d %*d %*d %8x", name, &to, &mask) != 3)
        return false;
    *ret = (struct prefix){.family = AF_INET, .bits = __builtin_popcount(mask)};
    memcpy(ret->b, &to, sizeof(to));
    return true;
}

/* A line of /proc/net/ipv6_route: destination, its length, …, the interface last. */
static bool parse_route6(const char *line, struct prefix *ret, char name[16])
{
    unsigned bits;

    *ret = (struct prefix){.family = AF_INET6};
    for (int i = 0; i < 16; i++) {
        unsigned byte;

        if (!isxdigit((unsigned char)line[2 * i]) || sscanf(line + 2 * i, "%2x", &byte) != 1)
            return false;
        ret->b[i] = (uint8_t)byte;
    }
    if (sscanf(line + 32, " %2x %*32s %*x %*32s %*x %*x %*x %*x %15s", &bits, name) != 2 ||
        bits > 128)
        return false;
    ret->bits = (int)bits;
    return true;
}

static bool is_ours(const char *interface)
{
    return vf_doctor_slot_number(interface, "vf-") >= 0 ||
           vf_doctor_slot_number(interface, "vfb-") >= 0;
}

bool vf_doctor_route_in_way(const char *routes, const char *prefix, char *ret, size_t size)
{
    struct prefix wanted = prefix_of(prefix, strlen(prefix)), route;
    char name[16], address[INET6_ADDRSTRLEN];

    for (const char *line = routes; line != NULL && wanted.family != 0;) {
        bool is_route = wanted.family == AF_INET ? parse_route4(line, &route, name)
                                                 : parse_route6(line, &route, name);

        if (is_route && route.bits > 0 && !is_ours(name) && overlap(&route, &wanted)) {
            inet_ntop(route.family, route.b, address, sizeof(address));
            snprintf(ret, size, "%s/%d through %s", address, route.bits, name);
            return true;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return false;
}

void vf_doctor_look_prefixes(struct vf_cli *cli, struct vf_finding *ret)
{
    VF_CLEANUP_FREE char *routes4 = (char *)malloc(ROUTES_MAX);
    VF_CLEANUP_FREE char *routes6 = (char *)malloc(ROUTES_MAX);
    char all[1100], in_way[100];
    bool runs;

    if (switched_off(cli) || routes4 == NULL || routes6 == NULL) {
        ret->verdict = VF_FINDING_SKIPPED;
        return;
    }
    runs = setting(cli, "network_prefixes", "10.210.0.0/16,fd76:6d01::/48", all, sizeof(all));
    vf_doctor_read_proc("/proc/net/route", routes4, ROUTES_MAX);
    vf_doctor_read_proc("/proc/net/ipv6_route", routes6, ROUTES_MAX);
    for (const char *at = all; *at != '\0';) {
        size_t blank = strspn(at, " ,"), len = strcspn(at + blank, " ,");
        char prefix[64];

        snprintf(prefix, sizeof(prefix), "%.*s", (int)len, at + blank);
        at += blank + len;
        if (!vf_doctor_route_in_way(strchr(prefix, ':') ? routes6 : routes4, prefix, in_way,
                                    sizeof(in_way)))
            continue;
        vf_find(ret, VF_FINDING_WARN, "set network_prefixes to what nothing else here uses",
                "%s, of network_prefixes, is routed elsewhere already: %s", prefix, in_way);
        return;
    }
    if (all[0] == '\0')
        vf_find(ret, VF_FINDING_OK, NULL, "network_prefixes is empty: no VMs of mode nat");
    else
        vf_find(ret, VF_FINDING_OK, NULL, "%.200s: no route of the host's is in the way%s", all,
                runs ? "" : " (no vmfactoryd runs)");
}

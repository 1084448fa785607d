/* What settings must be: within their limits, and in keeping with each other and the host. See settings.h. */
#include <arpa/inet.h>
#include <grp.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "pool/settings_internal.h"

int vf_setting_check_limits(const struct vf_settings *s, const struct vf_setting *t,
                            struct vf_error *err)
{
    const char *space = t->unit != NULL ? " " : "", *unit = t->unit != NULL ? t->unit : "";
    int64_t v;

    if (t->field.type != VF_JSON_INT)
        return 0;
    v = *vf_setting_int(s, t);
    if (v < t->field.min)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "%s: must be at least %" PRId64 "%s%s (is %" PRId64 ")", t->field.name,
                       t->field.min, space, unit, v);
    if (v > t->field.max)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "%s: must be at most %" PRId64 "%s%s (is %" PRId64 ")", t->field.name,
                       t->field.max, space, unit, v);
    return 0;
}

static int check_absolute(const char *name, const char *path, struct vf_error *err)
{
    if (path == NULL || path[0] == '/')
        return 0;
    return vf_fail(err, VF_INVALID_ARGUMENT, "%s: must be an absolute path (is \"%.200s\")", name,
                   path);
}

static int check_group(const char *name, const char *group, struct vf_error *err)
{
    if (group == NULL || getgrnam(group) != NULL)
        return 0;
    vf_fail(err, VF_INVALID_ARGUMENT, "%s: there is no group \"%.64s\"", name, group);
    return vf_hint(err, "groupadd --system %.64s", group);
}

/* ADDRESS:PORT, an IPv6 address in brackets. */
static bool is_tcp_address(const char *text)
{
    char address[INET6_ADDRSTRLEN] = "";
    const char *colon = strrchr(text, ':'), *begin = text, *end = colon;
    unsigned char binary[sizeof(struct in6_addr)];
    bool v6 = text[0] == '[';
    long port;

    if (colon == NULL || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return false;
    port = strlen(colon + 1) <= 5 ? strtol(colon + 1, NULL, 10) : 0;
    if (v6) {
        begin++;
        if (colon - begin < 1 || *--end != ']')
            return false;
    }
    if (port < 1 || port > 65535 || end - begin >= (ptrdiff_t)sizeof(address))
        return false;
    memcpy(address, begin, (size_t)(end - begin));
    return inet_pton(v6 ? AF_INET6 : AF_INET, address, binary) == 1;
}

int vf_settings_check(const struct vf_settings *s, struct vf_error *err)
{
    int r = 0;

    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL && r == 0; t++)
        r = vf_setting_check_limits(s, t, err);
    if (r == 0)
        r = check_absolute("state_dir", s->state_dir, err);
    if (r == 0)
        r = check_absolute("run_dir", s->run_dir, err);
    if (r == 0)
        r = check_absolute("qemu", s->qemu, err);
    if (r == 0)
        r = check_absolute("cloud_hypervisor", s->cloud_hypervisor, err);
    if (r == 0)
        r = check_absolute("firecracker", s->firecracker, err);
    if (r == 0)
        r = check_absolute("runtime_dir", s->runtime_dir, err);
    if (r == 0)
        r = check_group("group", s->group, err);
    if (r == 0)
        r = check_group("admin_group", s->admin_group, err);
    if (r == 0 && s->stats_listen != NULL && !is_tcp_address(s->stats_listen))
        r = vf_fail(err, VF_INVALID_ARGUMENT,
                    "stats_listen: must be ADDRESS:PORT, as 127.0.0.1:9464 or [::1]:9464 (is "
                    "\"%.64s\")",
                    s->stats_listen);
    if (r == 0 && s->backoff_initial_ms > s->backoff_max_ms)
        r = vf_fail(err, VF_INVALID_ARGUMENT,
                    "backoff_initial_ms: must be at most backoff_max_ms, %" PRId64
                    " ms (is %" PRId64 ")",
                    s->backoff_max_ms, s->backoff_initial_ms);
    return r == 0 ? vf_settings_check_networks(s, err) : r;
}

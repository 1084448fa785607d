/* See networks_support.h. */
#include "tests/e2e/networks_support.h"

#include <string.h>

static const char *const nat[] = {"10.210.0.0/24", "fd76:6d01::/120", NULL};
const char *const nets_on_bridge[] = {"192.168.77.0/24", NULL};
const struct vf_networks_config nets_plain = {
    .run_dir = NET_RUN, .prefixes = nat, .first_port = 30000, .last_port = 30003};

struct vf_networks *nets_open(const struct vf_networks_config *cfg)
{
    struct vf_networks *n = NULL;
    struct vf_error e;
    cr_assert_eq(vf_networks_open(cfg, &n, &e), 0, "%s (%s)", e.msg, e.hint);
    return n;
}

struct vf_net *nets_take(struct vf_networks *n, enum vf_network_mode mode)
{
    struct vf_net *slot = NULL;
    struct vf_error e;
    cr_assert_eq(vf_networks_take(n, mode, &net_plain, &slot, &e), 0, "%s (%s)", e.msg, e.hint);
    return slot;
}

void nets_give_back(struct vf_net *slot)
{
    struct vf_error e;
    cr_expect_eq(vf_net_give_back(slot, NULL, &e), 0, "%s", e.msg);
}

void nets_refuse_ports(struct vf_net *slot, const struct vf_port *p, int n, enum vf_code code,
                       const char *says)
{
    struct vf_error e;
    cr_expect_lt(vf_net_publish(slot, p, n, NULL, &e), 0, "%s", says);
    cr_expect_eq(e.code, code, "%s", e.msg);
    cr_expect(strstr(e.msg, says), "%s", e.msg);
}

void nets_nothing_is_left(void)
{
    cr_expect_eq(net_count_names(), 0);
    cr_expect_eq(net_count_links("vf"), 0);
    cr_expect_str_empty(net_shell("nft list ruleset"));
    cr_expect_str_empty(net_shell("find " NET_RUN " -type f"));
}

/* Networks are switched off beneath VMs that have them. */
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/e2e/daemon_network.h"

TestSuite(daemon_network_off, .timeout = 180);

#define SUITE "daemon_network_off"

/* Whether the mode nat can be had, and what its reason says. */
static void expect_nat(struct dmn *d, bool available, const char *words)
{
    struct vf_json *j = dmn_json(d, 200, "GET", "/v1/settings", NULL);
    cr_expect_eq(vf_json_bool(dmn_get(j, "networks.nat.available"), !available), available);
    const char *reason = dmn_str(j, "networks.nat.reason.message");
    cr_expect(words ? strstr(reason, words) != NULL : !dmn_get(j, "networks.nat.reason.message"),
              "%s", reason);
    cr_expect_not(vf_json_bool(dmn_get(j, "networks.bridge.available"), true));
    vf_json_delete(j);
}

/* Leases have their networks until they end, and nobody gets another. */
Test(daemon_network_off, leases_go_on_as_networks_are_switched_off)
{
    static const char *const off[] = {"--set", "network=off", "--set", DNET_PREFIXES, NULL};
    struct net n = {.outside = VF_NETNS_NONE};
    struct dnet_held h, again;
    struct gst g;
    dnet_enter_for_guests(SUITE, "leases_go_on_as_networks_are_switched_off");
    net_outside(&n);
    gst_prepare(&g, dnet_on);
    dmn_start(&g.d);
    expect_nat(&g.d, true, NULL);
    dnet_add_tiny(&g, "tiny", "{}");
    gst_warm(&g.d, "tiny", 1);
    struct vf_json *vm =
        dnet_acquire(&g.d, 201, "tiny", "\"ports\":[{\"protocol\":\"udp\",\"guest\":7}]");
    dnet_hold(vm, &h);
    vf_json_delete(vm);
    dmn_wait_for(&g.d, "/v1/pools/tiny", "parked", 1);
    dmn_kill(&g.d);
    dnet_start_with(&g.d, off);
    expect_nat(&g.d, false, "networks are off");
    vm = dnet_look(&g.d, h.id);
    cr_expect_null(dmn_get(vm, "death.message"), "%s", dmn_str(vm, "death.message"));
    dnet_hold(vm, &again);
    vf_json_delete(vm);
    cr_expect_str_eq(again.address4, h.address4);
    cr_expect_eq(again.port, h.port);
    dnet_expect_reached(&n, &h);
    dnet_refused(&g.d, 400, "tiny", "", "networks are off");
    gst_release(&g.d, h.id);
    int64_t until = vf_deadline_after_ms(DMN_LONG_MS);
    while (net_count_names() > 0 && vf_now_us() < until)
        usleep(50000); /* the slot is destroyed beside the daemon's loop, which nothing tells */
    cr_expect_eq(net_count_names(), 0, "%d namespaces are left", net_count_names());
    gst_close(&g);
    vf_netns_close(&n.outside);
    dnet_expect_nothing_left(&g.d);
}

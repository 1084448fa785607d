/* Networks over the API: what answers name, what is refused and how, and VMs of the mode external on the test's own taps,
 * by name and by descriptors, through HTTP, the client library and the command. The daemon runs in namespaces of the
 * test's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/e2e/daemon_network.h"
#include "tests/e2e/taps_support.h"
#include "tools/client/vmfactory-client.h"

TestSuite(api_network, .timeout = 180);

#define SUITE "api_network"

/* ---- slots */

Test(api_network, answers_name_address_namespace_and_ports)
{
    struct vf_json *a, *b, *shown;
    struct dmn d;

    dnet_open_web(&d, SUITE, "answers_name_address_namespace_and_ports",
                  "{\"ports\":[{\"guest\":22}]}", 0);
    a = dnet_acquire(
        &d, 201, "web",
        "\"ports\":[{\"guest\":80,\"host\":8080},{\"guest\":53,\"protocol\":\"udp\"}]");
    dnet_expect_nat(a);
    cr_expect_str_eq(dmn_str(a, "network.ports.0.protocol"), "tcp");
    cr_expect_eq(dmn_int(a, "network.ports.0.host"), 8080);
    cr_expect_eq(dmn_int(a, "network.ports.0.guest"), 80);
    cr_expect_str_eq(dmn_str(a, "network.ports.1.protocol"), "udp");
    cr_expect_geq(dmn_int(a, "network.ports.1.host"), 30000);
    cr_expect_leq(dmn_int(a, "network.ports.1.host"), 32767);
    cr_expect_eq(dmn_int(a, "network.ports.1.guest"), 53);
    dnet_refused(&d, 409, "web", "\"ports\":[{\"guest\":80,\"host\":8080}]", "8080");
    b = dnet_acquire(&d, 201, "web", "");
    dnet_expect_nat(b);
    cr_expect_str_neq(dmn_str(b, "network.address4"), dmn_str(a, "network.address4"));
    cr_expect_str_neq(dmn_str(b, "network.namespace"), dmn_str(a, "network.namespace"));
    cr_expect_eq(dmn_int(b, "network.ports.0.guest"), 22, "the spec's");
    vf_json_delete(b);
    shown = dnet_look(&d, dmn_str(a, "id"));
    dnet_expect_nat(shown);
    cr_expect_str_eq(dmn_str(shown, "network.address4"), dmn_str(a, "network.address4"));
    cr_expect_eq(dmn_int(shown, "network.ports.0.host"), 8080);
    vf_json_delete(shown);
    dnet_release(&d, a);
    /* Its port is free again, and none is none. */
    a = dnet_acquire(&d, 201, "web", "\"ports\":[{\"guest\":80,\"host\":8080}]");
    cr_expect_eq(dmn_int(a, "network.ports.0.host"), 8080);
    vf_json_delete(a);
    a = dnet_acquire(&d, 201, "web", "\"ports\":[]");
    cr_expect_null(vf_json_at(dmn_get(a, "network.ports"), 0));
    vf_json_delete(a);
    dmn_close(&d);
}

Test(api_network, without_an_address_left_callers_are_told_to_come_again)
{
    static const char *const few[] = {
        "--set", "network=on",      "--set", "network_prefixes=10.210.0.0/30",
        "--set", "network_ahead=1", NULL};
    struct vf_json *first, *j;
    struct dmn_conn c;
    struct dmn d;
    char *text;

    net_enter(SUITE, "without_an_address_left");
    dmn_open(&d, few);
    dnet_add_null(&d, "web", "{}");
    /* Else it is built after the first VM, which takes an address for a while. */
    free(dmn_call(&d, 202, "POST", "/v1/templates/web/build", NULL));
    dmn_wait_for(&d, "/v1/templates/web", "generation", 1);
    first = dnet_acquire(&d, 201, "web", "\"require\":[\"cold\"]");
    vf_json_delete(dnet_acquire(&d, 201, "web", "\"require\":[\"cold\"]"));
    dmn_dial(&d, &c, "api.sock");
    dmn_ask(&c, "POST", "/v1/vms", NULL, "{\"template\":\"web\",\"require\":[\"cold\"]}");
    cr_expect_eq(dmn_head(&c), 429);
    cr_assert_not_null(dmn_header(&c, "Retry-After"));
    cr_expect_geq(atoi(dmn_header(&c, "Retry-After")), 1);
    text = dmn_rest(&c);
    cr_expect_not_null(strstr(text, "prefixes are in use"), "%s", text);
    free(text);
    dmn_hang_up(&c);
    dnet_release(&d, first);
    j = dnet_acquire(&d, 201, "web", "\"require\":[\"cold\"]");
    vf_json_delete(j);
    dmn_close(&d);
}

/* ---- external */

Test(api_network, what_does_not_fit_the_mode_is_refused)
{
    struct dmn_conn c;
    struct dmn d;
    char more[100];
    int tap;

    dnet_open_web(&d, SUITE, "what_does_not_fit_the_mode", "{}", 0);
    dnet_add_null(&d, "bare", "{\"mode\":\"none\"}");
    dnet_add_null(&d, "out", "{\"mode\":\"external\"}");
    dnet_refused(&d, 400, "bare", "\"ports\":[{\"guest\":80}]",
                 "ports: template bare has the network mode none");
    dnet_refused(&d, 400, "out", "\"ports\":[{\"guest\":80}]",
                 "ports: template out has the network mode external");
    dnet_refused(&d, 400, "bare", "\"network\":{\"tap\":\"tap0\"}", "network: template bare");
    dnet_refused(&d, 400, "web", "\"network\":{\"tap\":\"tap0\"}", "network: template web");
    dnet_refused(&d, 400, "out", "",
                 "network: is missing, and template out has the network mode external");
    dnet_refused(&d, 400, "out", "\"network\":{}", "network.tap: is missing");
    dnet_refused(&d, 400, "out", "\"network\":{\"namespace\":\"blue\",\"tap\":\"tap0\"}",
                 "network.namespace: must be an absolute path");
    dnet_refused(&d, 400, "out", "\"network\":{\"tap\":\"sixteen-letters-\"}", "network.tap: ");
    dnet_refused(&d, 400, "web", "\"ports\":[{\"guest\":1,\"host\":5},{\"guest\":2,\"host\":5}]",
                 "ports[1].host: ");
    /* Refused at once, a token stays as it was. */
    tap = net_tap("tap7", NET_TAP);
    snprintf(more, sizeof(more), "\"network\":{\"taps\":\"%.40s\"}", taps_bring(&d, &c, &tap, 1));
    dnet_refused(&d, 400, "web", more, "network: template web");
    vf_json_delete(dnet_acquire(&d, 201, "out", more));
    dnet_refused(&d, 409, "out", more, "network.taps: these taps were used for a VM already");
    dmn_hang_up(&c);
    close(tap);
    dmn_close(&d);
}

static const char *const tiny_on[] = {"--set", "network=on", NULL};

#define ADDRESSES(n)                                                                             \
    "\"mac\":\"02:00:00:00:00:0" #n "\",\"address4\":\"192.168.77." #n                           \
    "/24\",\"gateway4\":\"192.168.77.1\",\"address6\":\"fd77::" #n "/64\",\"gateway6\":\"fd77::" \
    "1\""

/* The test has a tap and the VM gets copies of its descriptor: packets go to and fro, of a cold boot and of clones. */
Test(api_network, a_vm_on_a_tap_that_was_brought_by_descriptor)
{
    char more[400], token[40];
    struct vf_json *vm;
    struct dmn_conn c;
    struct gst g;
    int tap;

    dnet_enter_for_guests(SUITE, "by_descriptor");
    gst_prepare(&g, tiny_on);
    dmn_start(&g.d);
    dnet_add_tiny(&g, "out", "{\"mode\":\"external\"}");
    for (int i = 0; i < 2; i++) {
        if (i == 1) {
            free(dmn_call(&g.d, 202, "POST", "/v1/templates/out/build", NULL));
            dmn_wait_for(&g.d, "/v1/templates/out", "generation", 1);
        }
        tap = net_tap("tap7", NET_TAP);
        snprintf(token, sizeof(token), "%s", taps_bring(&g.d, &c, &tap, 1));
        close(tap); /* the daemon has its own */
        snprintf(more, sizeof(more), "\"network\":{\"taps\":\"%s\"," ADDRESSES(2) "}", token);
        vm = dnet_acquire(&g.d, 201, "out", more);
        dmn_hang_up(&c);
        cr_expect_str_eq(dmn_str(vm, "source"), i == 0 ? "cold" : "clone");
        cr_expect_str_eq(dmn_str(vm, "network.mode"), "external");
        cr_expect_str_eq(dmn_str(vm, "proof.mac"), "02:00:00:00:00:02");
        net_shell("ip addr add 192.168.77.1/24 dev tap7; ip addr add fd77::1/64 dev tap7 nodad;"
                  "ip link set tap7 up");
        dnet_expect_who(-1, "192.168.77.2", DNET_WHO_PORT, dmn_str(vm, "proof.machine_id"));
        dnet_expect_who(-1, "fd77::2", DNET_WHO_PORT, dmn_str(vm, "proof.machine_id"));
        dnet_release(&g.d, vm);
        /* Nobody holds the tap any more, so it is gone with its last descriptor. */
        cr_expect_eq(net_count_links("tap7"), 0);
    }
    gst_close(&g);
}

static void make_blue(void)
{
    net_shell("ip netns add blue; ip -n blue link set lo up; ip -n blue tuntap add tap3 mode tap "
              "vnet_hdr;"
              "ip -n blue addr add 192.168.77.1/24 dev tap3;"
              "ip -n blue addr add fd77::1/64 dev tap3 nodad; ip -n blue link set tap3 up");
}

/* By path and name: the VMM runs in that namespace, and only there. */
Test(api_network, a_vm_on_a_tap_that_was_named)
{
    struct stat ns, own;
    char path[64];
    struct vf_json *vm;
    struct gst g;
    int fd;

    dnet_enter_for_guests(SUITE, "named");
    make_blue();
    gst_prepare(&g, tiny_on);
    dmn_start(&g.d);
    dnet_add_tiny(&g, "out", "{\"mode\":\"external\"}");
    vm = dnet_acquire(
        &g.d, 201, "out",
        "\"network\":{\"namespace\":\"/run/netns/blue\",\"tap\":\"tap3\"," ADDRESSES(3) "}");
    cr_expect_str_eq(dmn_str(vm, "network.namespace"), "/run/netns/blue");
    snprintf(path, sizeof(path), "/proc/%lld/ns/net", (long long)dmn_int(vm, "pid"));
    cr_assert_eq(stat(path, &own), 0);
    cr_assert_eq(stat("/run/netns/blue", &ns), 0);
    cr_expect(own.st_ino == ns.st_ino && own.st_dev == ns.st_dev);
    fd = open("/run/netns/blue", O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    dnet_expect_who(fd, "192.168.77.3", DNET_WHO_PORT, dmn_str(vm, "proof.machine_id"));
    dnet_expect_who(fd, "fd77::3", DNET_WHO_PORT, dmn_str(vm, "proof.machine_id"));
    close(fd);
    dnet_release(&g.d, vm);
    /* What is not ours stays. */
    cr_expect_str_eq(net_shell("ip -n blue -o link show tap3 | grep -c tap3"), "1\n");
    vm = dnet_acquire(&g.d, 201, "out",
                      "\"network\":{\"namespace\":\"/run/netns/blue\",\"tap\":\"tap3\"}");
    vf_json_delete(vm);
    gst_close(&g);
}

/* ---- as programs and people do it */

Test(api_network, the_library_brings_taps_and_reads_networks)
{
    static const struct vmfactory_port ports[] = {{.guest = 80, .host = 8080},
                                                  {.guest = 53, .udp = true}};
    struct vmfactory_acquire_options o = {.template_name = "web", .ports = ports, .n_ports = 2};
    struct vmfactory_external e = {.n_tap_fds = 1, .mac = "02:00:00:00:00:07"};
    struct vmfactory_error err;
    struct vmfactory_vm vm;
    struct vmfactory *h;
    char path[120];
    struct dmn d;
    int tap;

    dnet_open_web(&d, SUITE, "the_library", "{}", 0);
    dnet_add_null(&d, "out", "{\"mode\":\"external\"}");
    snprintf(path, sizeof(path), "%s/api.sock", d.run);
    cr_assert_eq(vmfactory_connect(path, &h, &err), 0, "%s", err.message);
    cr_assert_eq(vmfactory_acquire(h, &o, &vm, &err), 0, "%s", err.message);
    cr_expect_str_eq(vm.network_mode, "nat");
    cr_expect_eq(strncmp(vm.address4, "10.210.0.", 9), 0, "%s", vm.address4);
    cr_expect_eq(strncmp(vm.address6, "fd76:6d01::", 11), 0, "%s", vm.address6);
    cr_expect_eq(strncmp(vm.netns, "/run/netns/vf-", 14), 0, "%s", vm.netns);
    cr_expect_gt(if_nametoindex(vm.interface), 0);
    cr_expect_eq(vm.n_ports, 2);
    cr_expect(vm.ports[0].host == 8080 && vm.ports[1].udp && vm.ports[1].host >= 30000);
    vmfactory_vm_free(&vm);
    cr_expect_eq(vmfactory_acquire(h, &o, &vm, &err), -EBUSY);
    cr_expect_eq(err.status, 409);

    tap = net_tap("tap7", NET_TAP);
    e.tap_fds = &tap;
    o = (struct vmfactory_acquire_options){.template_name = "out", .external = &e};
    cr_assert_eq(vmfactory_acquire(h, &o, &vm, &err), 0, "%s", err.message);
    cr_expect_str_eq(vm.network_mode, "external");
    cr_expect_not_null(strstr(vm.json, "\"mac\":\"02:00:00:00:00:07\""), "%s", vm.json);
    cr_expect_eq(vmfactory_release(h, vm.id, &err), 0);
    vmfactory_vm_free(&vm);
    close(tap);
    tap = open("/dev/null", O_RDWR | O_CLOEXEC);
    cr_expect_eq(vmfactory_acquire(h, &o, &vm, &err), -EINVAL);
    cr_expect_not_null(strstr(err.message, "taps[0]: is no descriptor of a tap"), "%s",
                       err.message);
    close(tap);
    vmfactory_close(h);
    dmn_close(&d);
}

/* Runs a line of shell in which V is the command; what it printed. */
static const char *command(struct dmn *d, int want, const char *line)
{
    static char out[8192];
    char socket[120], binary[4200];
    const char *tests = getenv("VF_TESTS");
    FILE *f;
    size_t n;
    int status;

    snprintf(socket, sizeof(socket), "%s/api.sock", d->run);
    snprintf(binary, sizeof(binary), "%.4000s/../vmfactory", tests != NULL ? tests : "build/tests");
    setenv("VMFACTORY_SOCKET", socket, 1);
    setenv("V", binary, 1);
    f = popen(line, "re");
    cr_assert_not_null(f);
    n = fread(out, 1, sizeof(out) - 1, f);
    out[n] = '\0';
    status = pclose(f);
    cr_expect_eq(WEXITSTATUS(status), want, "%s: %d: %s", line, WEXITSTATUS(status), out);
    return out;
}

#define HAS(text, what)                                                         \
    do {                                                                        \
        const char *text_ = (text);                                             \
        cr_expect_not_null(strstr(text_, what), "no '%s' in: %s", what, text_); \
    } while (0)

Test(api_network, the_command_publishes_and_shows)
{
    struct dmn d;
    const char *text;

    dnet_open_web(&d, SUITE, "the_command", "{}", 0);
    make_blue();
    dnet_add_null(&d, "out", "{\"mode\":\"external\"}");
    text = command(&d, 0, "$V acquire web --publish 8080:80 --publish 5353:53/udp 2>&1");
    HAS(text, "network: nat 10.210.0.");
    HAS(text, "namespace /run/netns/vf-");
    HAS(text, "ports 8080->80 5353->53/udp");
    text = command(&d, 0, "$V ps");
    HAS(text, "ADDRESS");
    HAS(text, "10.210.0.");
    HAS(text, "/run/netns/vf-");
    HAS(text, "8080->80 5353->53/udp");
    HAS(command(&d, 0, "$V ps --json"),
        "\"ports\":[{\"protocol\":\"tcp\",\"host\":8080,\"guest\":80}");
    text = command(&d, 0, "$V top");
    HAS(text, "nat networks: ");
    HAS(text, " dirty, of 128");
    HAS(text, "8080->80 5353->53/udp");
    HAS(command(&d, 1, "$V acquire web --publish 8080:80 2>&1"), "8080");
    HAS(command(&d, 2, "$V acquire web --publish 80:http 2>&1"), "--publish: must be [HOST:]GUEST");
    HAS(command(&d, 2, "$V run web --publish 0 -- true 2>&1"), "--publish: must be [HOST:]GUEST");
    HAS(command(&d, 0, "$V acquire out --netns /run/netns/blue --tap tap3 2>&1"),
        "network: external, namespace /run/netns/blue");
    HAS(command(&d, 1, "$V acquire out --netns /run/netns/blue 2>&1"), "network.tap: is missing");
    command(&d, 0, "$V run out --netns /run/netns/blue --tap tap3 -- true");
    dmn_close(&d);
}

/* The daemon's own networks and what callers bring: a slot has one owner, however its namespace is named and whatever way a
 * tap came into it. The daemon runs in namespaces of the test's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/e2e/daemon_network.h"
#include "tests/e2e/taps_support.h"

TestSuite(api_network_own, .timeout = 180);

#define SUITE "api_network_own"
/* Without the links' states: a carrier's is told late. */
#define IN_SLOT "ip -n %s -o addr; ip -n %s -br link | awk '{ print $1, $3 }'"

/* A process in a namespace, until it is killed. */
static pid_t enter_and_stay(const char *netns)
{
    int ready[2], fd = open(netns, O_RDONLY | O_CLOEXEC);
    char byte = 0;
    pid_t pid;

    cr_assert_geq(fd, 0, "%s", netns);
    cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        byte = setns(fd, CLONE_NEWNET) == 0 ? 'y' : 'n';
        if (write(ready[1], &byte, 1) == 1)
            pause();
        _exit(0);
    }
    close(ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(byte, 'y');
    close(ready[0]);
    close(fd);
    return pid;
}

static void refused_namespace(struct dmn *d, const char *path, const char *slot)
{
    char more[300], words[400];

    snprintf(more, sizeof(more), "\"network\":{\"namespace\":\"%s\",\"tap\":\"tap0\"}", path);
    snprintf(words, sizeof(words), "network.namespace: %s is the namespace of the network slot %s",
             path, slot);
    dnet_refused(d, 409, "out", more, words);
}

static void refused_tap(struct dmn *d, int tap, const char *slot)
{
    char more[100], words[200];
    struct dmn_conn c;

    snprintf(more, sizeof(more), "\"network\":{\"taps\":\"%s\"}", taps_bring(d, &c, &tap, 1));
    snprintf(words, sizeof(words),
             "network.taps: taps[0] lies in the namespace of the network slot %s", slot);
    dnet_refused(d, 409, "out", more, words);
    dmn_hang_up(&c);
}

/* By whatever path, and those that wait to be taken, too. */
static void refused_namespaces(struct dmn *d, const char *netns, const char *slot)
{
    char path[64], names[2000], *at = names;
    pid_t pid = enter_and_stay(netns);

    refused_namespace(d, netns, slot);
    net_shell("ln -s %s /run/alias; touch /run/bound; mount --bind %s /run/bound", netns, netns);
    refused_namespace(d, "/run/alias", slot);
    refused_namespace(d, "/run/bound", slot);
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
    refused_namespace(d, path, slot);
    net_shell("umount /run/bound");
    cr_assert_eq(kill(pid, SIGKILL), 0);
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    snprintf(names, sizeof(names), "%s", net_shell("ls -d /run/netns/vf-*"));
    for (char *line; (line = strsep(&at, "\n")) != NULL && line[0] != '\0';)
        refused_namespace(d, line, strrchr(line, '/') + 1);
}

/* Made there, and brought there. */
static void refused_taps(struct dmn *d, const char *netns, const char *slot)
{
    struct ifreq r = {.ifr_name = "tap8", .ifr_flags = NET_TAP};
    struct vf_netns ns = VF_NETNS_NONE;
    struct vf_error e;
    int tap;

    cr_assert_eq(vf_netns_open(netns, 1, &ns, &e), 0, "%s", e.msg);
    cr_assert_eq(ioctl(ns.tuns[0], TUNSETIFF, &r), 0, "%s", strerror(errno));
    refused_tap(d, ns.tuns[0], slot);
    vf_netns_close(&ns);
    tap = net_tap("tap9", NET_TAP);
    net_shell("ip link set tap9 netns %s", slot);
    refused_tap(d, tap, slot);
    close(tap);
}

/* Of two owners each would be in the other's network. */
Test(api_network_own, a_slot_is_nobodys_to_bring)
{
    char netns[100], slot[16], before[4000];
    struct vf_json *vm, *now;
    struct dmn d;

    dnet_open_web(&d, SUITE, "a_slot_is_nobodys_to_bring", "{}", 0);
    dnet_add_null(&d, "out", "{\"mode\":\"external\"}");
    vm = dnet_acquire(&d, 201, "web", "");
    snprintf(netns, sizeof(netns), "%s", dmn_str(vm, "network.namespace"));
    snprintf(slot, sizeof(slot), "%s", dmn_str(vm, "network.interface"));
    snprintf(before, sizeof(before), "%s", net_shell(IN_SLOT, slot, slot));
    cr_assert_not_null(strstr(before, "tap0"), "%s", before);
    refused_namespaces(&d, netns, slot);
    refused_taps(&d, netns, slot);
    /* Its owner has not noticed. */
    now = dnet_look(&d, dmn_str(vm, "id"));
    cr_expect_str_eq(dmn_str(now, "state"), "leased");
    cr_expect_str_eq(dmn_str(now, "network.namespace"), netns);
    vf_json_delete(now);
    cr_expect_str_eq(net_shell(IN_SLOT, slot, slot), before);
    dnet_release(&d, vm);
    dnet_stop_and_expect_nothing(&d);
}

/* Whatever they are called: a slot is one by its record. */
Test(api_network_own, namespaces_of_others_may_be_brought)
{
    struct dmn d;

    dnet_open_web(&d, SUITE, "namespaces_of_others_may_be_brought", "{}", 1);
    dnet_add_null(&d, "out", "{\"mode\":\"external\"}");
    net_shell("ip netns add vf-90; ip -n vf-90 tuntap add tap0 mode tap vnet_hdr");
    dnet_release(&d,
                 dnet_acquire(&d, 201, "out",
                              "\"network\":{\"namespace\":\"/run/netns/vf-90\",\"tap\":\"tap0\"}"));
    net_shell("ip netns del vf-90");
    dnet_stop_and_expect_nothing(&d);
}

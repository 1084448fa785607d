/* Linux guests in slots: HTTP from the host to each of two clones that have one address, and from a guest to a server
 * beyond the host, both with IPv4 and IPv6; what the agent has set, seen from inside. */
#include "tests/e2e/factory_net.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FETCH "curl -sS --max-time 20"
/* In the guest, whose static busybox can look up no port by its name, which its wget insists on. */
#define GET(host) "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 20 " host " 80 | tail -n 1"

/* A server in the namespace outside, that ends with this process. */
static pid_t serve_outside(int ns, const char *page)
{
    cr_assert_eq(mkdir("/run/www", 0755), 0);
    fac_write("/run/www/index.html", page, 0644);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (setns(ns, CLONE_NEWNET) == 0)
            execlp("busybox", "busybox", "httpd", "-f", "-p", "80", "-h", "/run/www", (char *)NULL);
        _exit(127);
    }
    return pid;
}

static void check_inside(struct fac *f, struct vf_instance *vm)
{
    cr_assert_str_eq(fac_sh(f, vm, "ip -4 addr show dev eth0 | grep -o '172.31.255.2/30'"),
                     "172.31.255.2/30");
    cr_assert_str_eq(fac_sh(f, vm, "ip -6 addr show dev eth0 | grep -o 'fd76:6d00::2/64'"),
                     "fd76:6d00::2/64");
    cr_assert_str_eq(fac_sh(f, vm, "ip neigh | grep -c '02:76:6d:00:00:01.*PERMANENT'"), "2");
    cr_assert_str_eq(fac_sh(f, vm, "cat /etc/resolv.conf"),
                     "nameserver 192.0.2.53\nnameserver 2001:db8::53");
    cr_assert_str_eq(fac_sh(f, vm, "cat /sys/class/net/eth0/mtu"), "1400");
}

static void check_reached(struct vf_instance *vm)
{
    struct vf_instance_network net = facnet_of(vm);
    char text[VF_IP_TEXT], due[128];
    snprintf(due, sizeof(due), "I am %s\n", vf_instance_proof(vm)->hostname);
    cr_assert_str_eq(net_shell(FETCH " http://%s/", vf_ip_text(&net.host4, text)), due);
    cr_assert_str_eq(net_shell(FETCH " 'http://[%s]/'", vf_ip_text(&net.host6, text)), due);
}

Test(factory_network_linux, http_both_ways, .timeout = 400)
{
    static const char *const serve[] = {"/bin/sh", "-c", "mkdir /www && httpd -h /www", NULL};
    static char resolvers[][16] = {"192.0.2.53", "2001:db8::53"};
    struct facnet n;
    struct net outside = {.outside = VF_NETNS_NONE};
    struct vf_instance *vm[2];
    FAC_LINUX_OR_SKIP("factory_network_linux", "http_both_ways");
    facnet_open(&n, "factory_network_linux", "http_both_ways", 8, NULL);
    net_outside(&outside);
    pid_t server = serve_outside(outside.outside.ns, "from beyond\n");
    struct vf_spec spec = fac_linux("linux", VF_ACCEL_TCG, NULL);
    spec.network.mode = VF_NETWORK_NAT;
    spec.network.mtu = 1400;
    spec.network.dns.v = calloc(3, sizeof(char *));
    for (size_t i = 0; i < 2; i++)
        spec.network.dns.v[spec.network.dns.n++] = strdup(resolvers[i]);
    fac_add_warmup(&spec, serve);
    struct vf_generation *gen = fac_build(&n.f, &spec);
    for (int i = 0; i < 2; i++) {
        vm[i] = fac_clone(&n.f, gen);
        fac_check_proof(&n.f, vm[i], gen);
        fac_sh(&n.f, vm[i], "echo I am $(hostname) >/www/index.html");
    }
    fac_check_differ(&n.f, vm, 2);
    for (int i = 0; i < 2; i++) {
        check_inside(&n.f, vm[i]);
        check_reached(vm[i]);
        cr_assert_str_eq(fac_sh(&n.f, vm[i], GET(NET_OUT4)), "from beyond");
        cr_assert_str_eq(fac_sh(&n.f, vm[i], GET(NET_OUT6)), "from beyond");
    }
    for (int i = 0; i < 2; i++)
        fac_destroy(&n.f, vm[i]);
    kill(server, SIGKILL);
    cr_assert_eq(waitpid(server, NULL, 0), server);
    vf_netns_close(&outside.outside);
    net_shell("ip link del out0");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    facnet_close(&n);
}

/* See daemon_network.h. */
#include "tests/e2e/daemon_network.h"

#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/e2e/support.h"

const char *const dnet_on[] = {"--set", "network=on", "--set", DNET_PREFIXES, NULL};

void dnet_open_web(struct dmn *d, const char *suite, const char *name, const char *network,
                   int parked)
{
    net_enter(suite, name);
    dmn_open(d, dnet_on);
    dnet_add_null(d, "web", network);
    if (parked > 0)
        gst_warm(d, "web", parked);
}

void dnet_enter_for_guests(const char *suite, const char *name)
{
    if (gst_missing(false)[0])
        sup_skip(suite, name, "%s", gst_missing(false));
    net_enter(suite, name);
}

void dnet_start_with(struct dmn *d, const char *const *args)
{
    int i = 0;
    for (; args[i]; i++)
        d->args[i] = args[i];
    d->args[i] = NULL;
    dmn_start(d);
}

void dnet_add_null(struct dmn *d, const char *name, const char *network)
{
    char body[400];
    snprintf(body, sizeof(body),
             "{\"name\":\"%s\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16},\"park\":\"running\","
             "\"network\":%s}",
             name, network);
    free(dmn_call(d, 201, "POST", "/v1/templates", body));
}

struct vf_json *dnet_acquire(struct dmn *d, int status, const char *name, const char *more)
{
    char body[600];
    snprintf(body, sizeof(body), "{\"template\":\"%s\"%s%s}", name, more[0] ? "," : "", more);
    return dmn_json(d, status, "POST", "/v1/vms", body);
}

void dnet_refused(struct dmn *d, int status, const char *name, const char *more, const char *words)
{
    dnet_expect_message(dnet_acquire(d, status, name, more), words);
}

struct vf_json *dnet_look(struct dmn *d, const char *id)
{
    char path[64];
    snprintf(path, sizeof(path), "/v1/vms/%.15s", id);
    return dmn_json(d, 200, "GET", path, NULL);
}

void dnet_release(struct dmn *d, struct vf_json *vm)
{
    gst_release(d, dmn_str(vm, "id"));
    vf_json_delete(vm);
}

void dnet_get_id(const struct vf_json *vm, char ret[16])
{
    snprintf(ret, 16, "%.15s", dmn_str(vm, "id"));
}

const struct vf_json *dnet_port_of(const struct vf_json *vm, size_t i)
{
    return vf_json_at(dmn_get(vm, "network.ports"), i);
}

void dnet_expect_nat(const struct vf_json *vm)
{
    cr_expect_str_eq(dmn_str(vm, "network.mode"), "nat");
    cr_expect_eq(strncmp(dmn_str(vm, "network.address4"), "10.210.0.", 9), 0);
    cr_expect_eq(strncmp(dmn_str(vm, "network.address6"), "fd76:6d01::", 11), 0);
    cr_expect_eq(access(dmn_str(vm, "network.namespace"), F_OK), 0, "%s",
                 dmn_str(vm, "network.namespace"));
    cr_expect_gt(if_nametoindex(dmn_str(vm, "network.interface")), 0);
    cr_expect_str_eq(dmn_str(vm, "network.guest.mac"), "02:76:6d:00:00:02");
    cr_expect_str_eq(dmn_str(vm, "network.guest.address4"), "172.31.255.2");
    cr_expect_str_eq(dmn_str(vm, "network.guest.gateway4"), "172.31.255.1");
    cr_expect_str_eq(dmn_str(vm, "network.guest.address6"), "fd76:6d00::2");
    cr_expect_str_eq(dmn_str(vm, "network.guest.gateway6"), "fd76:6d00::1");
}

void dnet_expect_message(struct vf_json *answer, const char *words)
{
    const char *text = dmn_str(answer, "error.message");
    cr_expect(strstr(text, words), "'%s' is not in: %s", words, text);
    vf_json_delete(answer);
}

void dnet_expect_log(const struct dmn *d, const char *words)
{
    char *log = dmn_log(d);
    cr_expect(strstr(log, words), "'%s' is not in: %s", words, log);
    free(log);
}

void dnet_expect_nothing_left(const struct dmn *d)
{
    cr_expect_eq(net_count_names(), 0, "%d namespaces are left", net_count_names());
    cr_expect_eq(net_count_links("vf-"), 0, "%d interfaces are left", net_count_links("vf-"));
    cr_expect_str_empty(net_shell("nft list ruleset"));
    cr_expect_str_empty(
        net_shell("test ! -d %s || find %s -name '[0-9]*.json' -path '*net*'", d->run, d->run));
}

void dnet_stop_and_expect_nothing(struct dmn *d)
{
    cr_expect_eq(dmn_stop(d), 0);
    dnet_expect_nothing_left(d);
    dmn_close(d);
}

void dnet_expect_who(int from, const char *address, int port, const char *machine_id)
{
    struct vf_ip to = net_ip(address);
    int fd = net_udp(from, to.family == AF_INET ? "0.0.0.0" : "::", 0);
    net_udp_send(fd, &to, port, "who");
    const char *who = net_udp_receive(fd, NET_TIMEOUT_MS, NULL, NULL);
    cr_assert_not_null(who, "no answer from %s port %d", address, port);
    cr_expect_str_eq(who, machine_id, "at %s port %d", address, port);
    close(fd);
}

void dnet_add_tiny(struct gst *g, const char *name, const char *network)
{
    char body[1000];
    snprintf(
        body, sizeof(body),
        "{\"name\":\"%s\",\"accel\":\"tcg\",\"memory\":{\"size_mib\":32},\"boot\":{\"kernel\":"
        "\"%s\",\"cmdline\":\"quiet\"},\"agent\":{\"channel\":\"serial\"},\"park\":\"running\","
        "\"network\":%s}",
        name, sup_guest_file("tiny.elf"), network);
    free(dmn_call(&g->d, 201, "POST", "/v1/templates", body));
}

void dnet_hold(const struct vf_json *vm, struct dnet_held *ret)
{
    dnet_get_id(vm, ret->id);
    snprintf(ret->machine_id, sizeof(ret->machine_id), "%s", dmn_str(vm, "proof.machine_id"));
    snprintf(ret->address4, sizeof(ret->address4), "%s", dmn_str(vm, "network.address4"));
    snprintf(ret->address6, sizeof(ret->address6), "%s", dmn_str(vm, "network.address6"));
    snprintf(ret->netns, sizeof(ret->netns), "%s", dmn_str(vm, "network.namespace"));
    ret->port = (int)dmn_int(dnet_port_of(vm, 0), "host");
}

void dnet_expect_reached(struct net *n, const struct dnet_held *h)
{
    dnet_expect_who(-1, h->address4, DNET_WHO_PORT, h->machine_id);
    dnet_expect_who(-1, h->address6, DNET_WHO_PORT, h->machine_id);
    dnet_expect_who(n->outside.ns, NET_HOST4, h->port, h->machine_id);
    dnet_expect_who(n->outside.ns, NET_HOST6, h->port, h->machine_id);
}

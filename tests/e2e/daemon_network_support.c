/* See daemon_network.h. */
#include "tests/e2e/daemon_network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/e2e/support.h"

const char *const dnet_on[] = {"--set", "network=on", "--set", DNET_PREFIXES, NULL};

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

void dnet_get_id(const struct vf_json *vm, char ret[16])
{
    snprintf(ret, 16, "%.15s", dmn_str(vm, "id"));
}

const struct vf_json *dnet_port_of(const struct vf_json *vm, size_t i)
{
    return vf_json_at(dmn_get(vm, "network.ports"), i);
}

void dnet_expect_message(struct vf_json *answer, const char *words)
{
    const char *text = dmn_str(answer, "error.message");
    cr_expect(strstr(text, words), "'%s' is not in: %s", words, text);
    vf_json_delete(answer);
}

/* Of slots: nothing, in the kernel and on disk. */
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

/* What a UDP question to an address is answered with; from: a namespace, -1: this one. */
void dnet_ask(int from, const char *address, int port, const char *text, char ret[64])
{
    struct vf_ip to = net_ip(address);
    int fd = net_udp(from, to.family == AF_INET ? "0.0.0.0" : "::", 0);
    net_udp_send(fd, &to, port, text);
    const char *got = net_udp_receive(fd, NET_TIMEOUT_MS, NULL, NULL);
    cr_assert_not_null(got, "no answer from %s port %d", address, port);
    snprintf(ret, 64, "%s", got);
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
    char who[64];
    dnet_ask(-1, h->address4, 7, "who", who);
    cr_expect_str_eq(who, h->machine_id, "at %s", h->address4);
    dnet_ask(-1, h->address6, 7, "who", who);
    cr_expect_str_eq(who, h->machine_id, "at %s", h->address6);
    dnet_ask(n->outside.ns, NET_HOST4, h->port, "who", who);
    cr_expect_str_eq(who, h->machine_id, "at port %d of " NET_HOST4, h->port);
    dnet_ask(n->outside.ns, NET_HOST6, h->port, "who", who);
    cr_expect_str_eq(who, h->machine_id, "at port %d of " NET_HOST6, h->port);
}

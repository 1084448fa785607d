/* A VM's network as JSON: where the host reaches it, what leads there, what it is inside, what went through; and which
 * networks VMs can have here. */
#include <netinet/in.h>
#include <stdio.h>
#include "base/clock.h"
#include "pool/pools_internal.h"

static void put_ip(struct vf_json_writer *w, const char *key, const struct vf_ip *ip)
{
    char text[VF_IP_TEXT];
    vf_jw_string(w, key, ip->family ? vf_ip_text(ip, text) : NULL);
}

static void put_ports(struct vf_json_writer *w, const struct vf_instance_network *n)
{
    vf_jw_begin(w, "ports", '[');
    for (int i = 0; i < n->n_ports; i++) {
        vf_jw_begin(w, NULL, '{');
        vf_jw_string(w, "protocol", n->ports[i].protocol == IPPROTO_UDP ? "udp" : "tcp");
        vf_jw_int(w, "host", n->ports[i].port);
        vf_jw_int(w, "guest", n->ports[i].guest);
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, ']');
}

/* The same in each clone, but for what was brought. */
static void put_guest(struct vf_json_writer *w, const struct vf_slot *s, bool in_slot)
{
    static const struct vf_ip none;
    const struct vf_inside *in = &vf_inside;
    const char *mac = vf_instance_proof(s->vm)->mac;
    vf_jw_begin(w, "guest", '{');
    vf_jw_string(w, "mac", mac[0] ? mac : NULL);
    put_ip(w, "address4", in_slot ? &in->guest4 : &none);
    put_ip(w, "address6", in_slot ? &in->guest6 : &none);
    put_ip(w, "gateway4", in_slot ? &in->gateway4 : &none);
    put_ip(w, "gateway6", in_slot ? &in->gateway6 : &none);
    vf_jw_end(w, '}');
}

static void put_way(struct vf_json_writer *w, const char *key, uint64_t bytes, uint64_t packets,
                    uint64_t dropped)
{
    vf_jw_begin(w, key, '{');
    vf_jw_int(w, "bytes", (int64_t)bytes);
    vf_jw_int(w, "packets", (int64_t)packets);
    vf_jw_int(w, "dropped", (int64_t)dropped);
    vf_jw_end(w, '}');
}

/* As it was last counted, a few seconds ago at most. */
static void put_traffic(struct vf_json_writer *w, const struct vf_slot *s)
{
    const struct vf_net_stats *t = &s->traffic;
    char when[VF_RFC3339_SIZE];
    if (!s->traffic_ms) {
        vf_jw_string(w, "traffic", NULL);
        return;
    }
    vf_rfc3339_ms(s->traffic_ms, when);
    vf_jw_begin(w, "traffic", '{');
    vf_jw_string(w, "counted", when);
    put_way(w, "in", t->in_bytes, t->in_packets, t->in_dropped);
    put_way(w, "out", t->out_bytes, t->out_packets, t->out_dropped);
    vf_jw_begin(w, "refused", '{');
    for (int i = 0; i < VF_REFUSAL_COUNT; i++)
        vf_jw_int(w, vf_refusal_names[i], (int64_t)t->refused[i]);
    vf_jw_end(w, '}');
    vf_jw_end(w, '}');
}

void vf_slot_write_network(struct vf_json_writer *w, const char *key, const struct vf_slot *s)
{
    struct vf_instance_network n = {.mode = VF_NETWORK_NONE};
    if (s->vm)
        vf_instance_network(s->vm, &n);
    if (n.mode == VF_NETWORK_NONE) {
        vf_jw_string(w, key, NULL);
        return;
    }
    vf_jw_begin(w, key, '{');
    vf_jw_string(w, "mode", vf_network_mode_names[n.mode]);
    put_ip(w, "address4", &n.host4);
    put_ip(w, "address6", &n.host6);
    vf_jw_string(w, "namespace", n.netns);
    vf_jw_string(w, "interface", n.interface);
    put_ports(w, &n);
    put_guest(w, s, n.number >= 0);
    put_traffic(w, s);
    vf_jw_end(w, '}');
}

void vf_pools_write_networks(struct vf_json_writer *w, const char *key, const struct vf_pools *p)
{
    static const enum vf_network_mode modes[] = {VF_NETWORK_NAT, VF_NETWORK_BRIDGE};
    vf_jw_begin(w, key, '{');
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        struct vf_error e;
        bool can = vf_pools_check_mode(p, modes[i], &e) == 0;
        vf_jw_begin(w, vf_network_mode_names[modes[i]], '{');
        vf_jw_bool(w, "available", can);
        vf_write_error(w, "reason", can ? NULL : &e);
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, '}');
}

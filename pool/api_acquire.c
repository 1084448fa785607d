/* POST /v1/vms, the hot path: body -> vf_pools_acquire -> 201 at once, or when a VM is there.
 *
 * Between the lease's beginning and the caller's reading of its answer the VM must not be lost: a caller that
 * hangs up while it waits cancels its request, one that closes without having read the answer gives
 * the VM up. The request is one allocation, which lives until the answer's fate is known.
 */
#include "pool/api_network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/api_taps.h"

#define ID_SIZE 64
/* What a VM as JSON takes, so that its text is not moved while it is written. */
#define USUAL_JSON 3072

struct acquire {
    struct vf_pools *pools;
    struct vf_http_req *req;
    struct vf_acquire *pending;
    char id[ID_SIZE];
};

struct body {
    char *template_name;
    struct vf_strv require;
    int64_t timeout_ms, ttl_ms;
    struct vf_json_array ports; /* of struct vf_port_body */
    struct vf_network_body network;
    bool has_ports, has_network;
};
static const struct vf_json_field body_fields[] = {
    {.name = "template",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct body, template_name),
     .min = 1,
     .max = VF_SPEC_NAME_MAX,
     .required = true,
     .help = "Of which template."},
    {.name = "require",
     .type = VF_JSON_STRING_ARRAY,
     .offset = offsetof(struct body, require),
     .min = 1,
     .max = VF_GOT_COUNT,
     .help = "The sources that will do: hit, standby, clone, cold. Default: any."},
    {.name = "timeout_ms",
     .type = VF_JSON_INT,
     .offset = offsetof(struct body, timeout_ms),
     .min = 1,
     .max = 3600000,
     .help = "How long to wait for it. Default 30000."},
    {.name = "ttl_ms",
     .type = VF_JSON_INT,
     .offset = offsetof(struct body, ttl_ms),
     .min = 0,
     .max = INT64_MAX / 1000000,
     .help = "When the lease ends by itself. Default 0: never."},
    {.name = "ports",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = offsetof(struct body, ports),
     .max = VF_PORTS_MAX,
     .fields = vf_port_body_fields,
     .item_size = sizeof(struct vf_port_body),
     .present = offsetof(struct body, has_ports),
     .help = "Ports of this host that lead to the guest. Default: the spec's."},
    {.name = "network",
     .type = VF_JSON_OBJECT,
     .offset = offsetof(struct body, network),
     .fields = vf_network_body_fields,
     .present = offsetof(struct body, has_network),
     .help = "What the caller brings, for a template whose network is external."},
    {.name = NULL},
};

static int require_bits(const struct vf_strv *names, unsigned *ret, struct vf_error *err)
{
    unsigned bits = 0;

    for (size_t i = 0; i < names->n; i++) {
        int got = 0;

        while (vf_got_names[got] != NULL && strcmp(vf_got_names[got], names->v[i]) != 0)
            got++;
        if (vf_got_names[got] == NULL)
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "require[%zu]: must be \"hit\", \"standby\", \"clone\" or \"cold\" (is "
                           "\"%.64s\")",
                           i, names->v[i]);
        bits |= VF_REQUIRE((unsigned)got);
    }
    *ret = bits;
    return 0;
}

static void on_lost(void *arg)
{
    struct acquire *q = arg;

    vf_pools_unclaimed(q->pools, q->id);
    free(q);
}

static void on_kept(void *arg)
{
    free(arg);
}

static void answer(struct acquire *q, struct vf_slot *vm)
{
    struct vf_json_writer w = {.buf = malloc(USUAL_JSON)};
    struct vf_http_req *req = q->req;
    struct vf_error err = {0};
    char *json;

    w.cap = w.buf != NULL ? USUAL_JSON : 0;
    snprintf(q->id, sizeof(q->id), "%s", vf_slot_id(vm));
    vf_slot_write(&w, NULL, vm);
    json = vf_jw_finish(&w);
    if (json == NULL) {
        on_lost(q);
        vf_fail(&err, VF_NO_MEMORY, "vm");
        vf_http_reply_error(req, &err, 0);
        return;
    }
    vf_http_watch_answer(req, on_lost, on_kept, q);
    vf_http_reply_json(req, 201, json);
}

static void on_acquired(void *arg, struct vf_slot *vm, const struct vf_error *err,
                        int retry_after_s)
{
    struct acquire *q = arg;

    if (err == NULL) {
        answer(q, vm);
        return;
    }
    vf_http_reply_error(q->req, err, retry_after_s);
    free(q);
}

static void on_gone(void *arg)
{
    struct acquire *q = arg;

    vf_acquire_cancel(q->pending);
    free(q);
}

/* What was brought and asked for. *ret_taps: what is used up once the pools have it; NULL: nothing. */
static int read_network(const struct body *body, struct vf_api *a, const struct vf_caller *who,
                        struct vf_port *ports, struct vf_vm_options *network,
                        struct vf_acquire_options *o, struct vf_taps **ret_taps,
                        struct vf_error *err)
{
    int r = 0;

    if (body->has_ports) {
        vf_ports_read(&body->ports, ports);
        o->ports = ports;
        o->n_ports = (int)body->ports.n;
        o->has_ports = true;
    }
    if (r == 0 && body->has_network) {
        r = vf_network_read(&body->network, who, network, err);
        o->network = network;
    }
    if (r == 0 && body->has_network && body->network.taps != NULL) {
        r = vf_taps_find(a, body->network.taps, who, ret_taps, err);
        if (r == 0)
            network->tap_fds = vf_taps_fds(*ret_taps, &network->n_tap_fds);
    }
    return r;
}

static void acquire(struct vf_http_req *req, struct vf_api *a, const struct body *body)
{
    struct vf_acquire_options o = {.template_name = body->template_name,
                                   .timeout_ms = body->timeout_ms,
                                   .ttl_ms = body->ttl_ms};
    struct vf_port ports[VF_PORTS_MAX];
    struct vf_vm_options network;
    struct vf_taps *taps = NULL;
    struct vf_error err = {0};
    struct vf_slot *vm = NULL;
    struct acquire *q = malloc(sizeof(*q));
    int retry_after_s = 0, r;

    if (q == NULL) {
        vf_fail(&err, VF_NO_MEMORY, "vm");
        vf_http_reply_error(req, &err, 0);
        return;
    }
    *q = (struct acquire){.pools = a->pools, .req = req};
    r = require_bits(&body->require, &o.require, &err);
    if (r == 0)
        r = read_network(body, a, vf_http_caller(req), ports, &network, &o, &taps, &err);
    if (r == 0)
        r = vf_pools_acquire(a->pools, vf_http_caller(req), &o, on_acquired, q, &q->pending, &vm,
                             &retry_after_s, &err);
    if (r >= 0 && taps != NULL)
        vf_taps_used(taps);
    if (r < 0) {
        free(q);
        vf_http_reply_error(req, &err, retry_after_s);
    } else if (r == 0) {
        vf_http_defer(req, on_gone, q);
    } else {
        answer(q, vm);
    }
}

void vf_api_vms_acquire(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct body body = {0};

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a))
        return;
    if (vf_http_decode(req, body_fields, &body))
        acquire(req, a, &body);
    vf_json_free(body_fields, &body);
}

/* Acquire, look, renew, release: one request each. */
#include "tools/client/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a client waits beyond the time that it gave the daemon. */
#define MARGIN_MS 5000
#define DEFAULT_ACQUIRE_MS 30000

static void copy_field(const struct vf_json *j, const char *key, char *dst, size_t size)
{
    vf_client_copy(dst, size, vf_json_str(vf_json_get(j, key), NULL));
}

static void read_network(const struct vf_json *n, struct vmfactory_vm *vm)
{
    const struct vf_json *ports = vf_json_get(n, "ports"), *p;

    vf_client_copy(vm->network_mode, sizeof(vm->network_mode), "none");
    if (!vf_json_is_object(n))
        return;
    copy_field(n, "mode", vm->network_mode, sizeof(vm->network_mode));
    copy_field(n, "address4", vm->address4, sizeof(vm->address4));
    copy_field(n, "address6", vm->address6, sizeof(vm->address6));
    copy_field(n, "namespace", vm->netns, sizeof(vm->netns));
    copy_field(n, "interface", vm->interface, sizeof(vm->interface));
    for (size_t i = 0; i < VMFACTORY_MAX_PORTS && (p = vf_json_at(ports, i)) != NULL; i++) {
        struct vmfactory_port *port = &vm->ports[vm->n_ports++];

        port->guest = (int)vf_json_int(vf_json_get(p, "guest"), 0);
        port->host = (int)vf_json_int(vf_json_get(p, "host"), 0);
        port->udp = strcmp(vf_json_str(vf_json_get(p, "protocol"), ""), "udp") == 0;
    }
}

/* Takes the answer over. */
static int parse_vm(struct vmfactory_response *answer, struct vmfactory_vm *ret,
                    struct vmfactory_error *err)
{
    struct vf_json *j = vf_json_parse(answer->body, answer->len);
    const struct vf_json *lease = vf_json_get(j, "lease");
    struct vmfactory_vm vm = {0};

    copy_field(j, "id", vm.id, sizeof(vm.id));
    if (vm.id[0] == '\0') {
        vf_json_delete(j);
        vmfactory_response_free(answer);
        return vf_client_fail_as(err, -EPROTO, "protocol", NULL, "the answer names no VM");
    }
    copy_field(j, "template", vm.template_name, sizeof(vm.template_name));
    copy_field(j, "state", vm.state, sizeof(vm.state));
    copy_field(j, "source", vm.source, sizeof(vm.source));
    copy_field(j, "reason", vm.reason, sizeof(vm.reason));
    vm.generation = vf_json_int(vf_json_get(j, "generation"), 0);
    vm.pid = vf_json_int(vf_json_get(j, "pid"), 0);
    vm.expires_in_ms = vf_json_int(vf_json_get(lease, "expires_in_ms"), -1);
    vm.total_us = vf_json_int(vf_json_get(j, "total_us"), 0);
    read_network(vf_json_get(j, "network"), &vm);
    vm.roundtrip_us = answer->roundtrip_us;
    vm.json = answer->body;
    vf_json_delete(j);
    *ret = vm;
    return 0;
}

void vmfactory_vm_free(struct vmfactory_vm *vm)
{
    free(vm->json);
    vm->json = NULL;
}

/* A request about one VM, which answers with it; ret NULL: who needs that? */
static int vm_request(struct vmfactory *h, const char *method, const char *path, char *body,
                      int64_t timeout_ms, struct vmfactory_vm *ret, struct vmfactory_error *err)
{
    struct vmfactory_response answer;
    int r;

    r = vmfactory_request(h, method, path, body, timeout_ms, &answer, err);
    if (r < 0)
        return r;
    if (ret != NULL)
        return parse_vm(&answer, ret, err);
    vmfactory_response_free(&answer);
    return 0;
}

static int no_memory(struct vmfactory_error *err)
{
    return vf_client_fail_as(err, -ENOMEM, "no_memory", NULL, "out of memory");
}

static void write_ports(struct vf_json_writer *w, const struct vmfactory_acquire_options *o)
{
    if (o->ports == NULL)
        return;
    vf_jw_begin(w, "ports", '[');
    for (size_t i = 0; i < o->n_ports; i++) {
        vf_jw_begin(w, NULL, '{');
        vf_jw_int(w, "guest", o->ports[i].guest);
        vf_jw_int(w, "host", o->ports[i].host);
        vf_jw_string(w, "protocol", o->ports[i].udp ? "udp" : "tcp");
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, ']');
}

static void write_text(struct vf_json_writer *w, const char *key, const char *text)
{
    if (text != NULL)
        vf_jw_string(w, key, text);
}

static void write_external(struct vf_json_writer *w, const struct vmfactory_external *e,
                           const char *token)
{
    if (e == NULL)
        return;
    vf_jw_begin(w, "network", '{');
    write_text(w, "namespace", e->netns);
    write_text(w, "tap", e->tap);
    write_text(w, "taps", token[0] != '\0' ? token : NULL);
    write_text(w, "mac", e->mac);
    write_text(w, "address4", e->address4);
    write_text(w, "gateway4", e->gateway4);
    write_text(w, "address6", e->address6);
    write_text(w, "gateway6", e->gateway6);
    vf_jw_end(w, '}');
}

static char *acquire_body(const struct vmfactory_acquire_options *o, const char *token)
{
    struct vf_json_writer w = {0};

    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "template", o->template_name);
    if (o->require != NULL) {
        vf_jw_begin(&w, "require", '[');
        for (size_t i = 0; o->require[i] != NULL; i++)
            vf_jw_string(&w, NULL, o->require[i]);
        vf_jw_end(&w, ']');
    }
    if (o->timeout_ms > 0)
        vf_jw_int(&w, "timeout_ms", o->timeout_ms);
    if (o->ttl_ms > 0)
        vf_jw_int(&w, "ttl_ms", o->ttl_ms);
    write_ports(&w, o);
    write_external(&w, o->external, token);
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

int vmfactory_acquire(struct vmfactory *h, const struct vmfactory_acquire_options *o,
                      struct vmfactory_vm *ret, struct vmfactory_error *err)
{
    int64_t server_ms = o->timeout_ms > 0 ? o->timeout_ms : DEFAULT_ACQUIRE_MS;
    const struct vmfactory_external *e = o->external;
    struct vf_conn taps = VF_CONN_INIT;
    char *body, token[64] = "";
    int r = 0;

    taps.cancel_fd = h->conn.cancel_fd;
    if (e != NULL && e->n_tap_fds > 0)
        r = vf_client_bring_taps(h, &taps, e->tap_fds, e->n_tap_fds, vf_client_deadline(h, 0),
                                 token, err);
    body = r == 0 ? acquire_body(o, token) : NULL;
    if (r == 0 && body == NULL)
        r = no_memory(err);
    if (r == 0)
        r = vm_request(h, "POST", "/v1/vms", body, server_ms + MARGIN_MS, ret, err);
    vf_conn_close(&taps);
    free(body);
    return r;
}

int vmfactory_get_vm(struct vmfactory *h, const char *id, struct vmfactory_vm *ret,
                     struct vmfactory_error *err)
{
    char *path = vmfactory_path("/v1/vms/", id, "");
    int r = path != NULL ? vm_request(h, "GET", path, NULL, 0, ret, err) : no_memory(err);

    free(path);
    return r;
}

int vmfactory_renew(struct vmfactory *h, const char *id, int64_t ttl_ms, struct vmfactory_vm *ret,
                    struct vmfactory_error *err)
{
    char *path = vmfactory_path("/v1/vms/", id, "/renew"), body[64];
    int r;

    snprintf(body, sizeof(body), "{\"ttl_ms\":%lld}", (long long)ttl_ms);
    r = path != NULL ? vm_request(h, "POST", path, body, 0, ret, err) : no_memory(err);
    free(path);
    return r;
}

int vmfactory_release(struct vmfactory *h, const char *id, struct vmfactory_error *err)
{
    char *path = vmfactory_path("/v1/vms/", id, "");
    int r = path != NULL ? vm_request(h, "DELETE", path, NULL, 0, NULL, err) : no_memory(err);

    free(path);
    return r;
}

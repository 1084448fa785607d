/* Acquire, look, renew, release: one request each. */
#include "tools/client/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* What a client waits beyond the time that it gave the daemon. */
#define MARGIN_MS 5000
#define DEFAULT_ACQUIRE_MS 30000

static void copy_field(const struct vf_json *j, const char *key, char *dst, size_t size)
{
    vf_client_copy(dst, size, vf_json_str(vf_json_get(j, key), NULL));
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

int vmfactory_acquire(struct vmfactory *h, const struct vmfactory_acquire_options *o,
                      struct vmfactory_vm *ret, struct vmfactory_error *err)
{
    int64_t server_ms = o->timeout_ms > 0 ? o->timeout_ms : DEFAULT_ACQUIRE_MS;
    struct vf_json_writer w = {0};
    char *body;
    int r;

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
    vf_jw_end(&w, '}');
    body = vf_jw_finish(&w);
    if (body == NULL)
        return no_memory(err);
    r = vm_request(h, "POST", "/v1/vms", body, server_ms + MARGIN_MS, ret, err);
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

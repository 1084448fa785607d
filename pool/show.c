/* Templates, pools and VMs as JSON; docs/openapi.yaml has the shapes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/fd.h"
#include "pool/pools_internal.h"
#include "vmm/vmm.h"

void vf_write_error(struct vf_json_writer *w, const char *key, const struct vf_error *err)
{
    if (!err) {
        vf_jw_string(w, key, NULL);
        return;
    }
    vf_jw_begin(w, key, '{');
    vf_jw_string(w, "code", vf_code_name(err->code));
    vf_jw_string(w, "message", err->msg);
    vf_jw_string(w, "hint", err->hint);
    vf_jw_end(w, '}');
}

/* 0: null. */
static void put_number(struct vf_json_writer *w, const char *key, int64_t n)
{
    if (n)
        vf_jw_int(w, key, n);
    else
        vf_jw_string(w, key, NULL);
}

static void put_text(struct vf_json_writer *w, const char *key, const char *text)
{
    vf_jw_string(w, key, text && text[0] ? text : NULL);
}

static void put_time(struct vf_json_writer *w, const char *key, int64_t unix_ms)
{
    char text[VF_RFC3339_SIZE];
    vf_rfc3339_ms(unix_ms, text);
    vf_jw_string(w, key, text);
}

/* How long until a time that is to come; null if it is not. */
static void put_left(struct vf_json_writer *w, const char *key, int64_t at_us)
{
    int64_t now = vf_now_us();
    if (at_us > now && at_us != VF_NEVER)
        vf_jw_int(w, key, (at_us - now + 999) / 1000);
    else
        vf_jw_string(w, key, NULL);
}

static void put_build(struct vf_json_writer *w, const struct vf_pool *pool)
{
    vf_jw_begin(w, "build", '{');
    vf_jw_bool(w, "running", pool->build != NULL);
    vf_jw_string(w, "stage", pool->build ? pool->build_stage : NULL);
    vf_jw_int(w, "attempts", pool->build_attempts);
    vf_write_error(w, "error", pool->build_error);
    put_left(w, "retry_in_ms", pool->build_error ? pool->build_retry_us : 0);
    vf_jw_end(w, '}');
}

void vf_pool_write_template(struct vf_json_writer *w, const char *key, const struct vf_pool *pool)
{
    const struct vf_manifest *m = pool->gen ? &pool->gen->manifest : NULL;
    char *spec = vf_spec_encode(&pool->spec);
    vf_jw_begin(w, key, '{');
    vf_jw_string(w, "name", pool->spec.name);
    vf_jw_string(w, "state", vf_template_state_names[pool->state]);
    vf_jw_string(w, "reason", pool->reason);
    put_number(w, "generation", pool->current);
    vf_jw_string(w, "created", m ? m->created : NULL);
    vf_jw_int(w, "clones", pool->clones);
    vf_jw_string(w, "vmm", vf_spec_vmm_names[m ? m->spec.vmm : pool->spec.vmm]);
    vf_jw_string(w, "class", vf_pool_class(pool));
    vf_jw_string(w, "vmm_version", m ? m->vmm.version : NULL);
    vf_jw_string(w, "accel", m ? vf_accel_names[m->vmm.accel] : NULL);
    vf_jw_int(w, "memory_bytes", (int64_t)vf_spec_memory_bytes(&pool->spec));
    vf_jw_int(w, "vcpus", pool->spec.vcpus);
    put_build(w, pool);
    vf_jw_raw(w, "spec", spec ? spec : "null");
    vf_jw_end(w, '}');
    free(spec);
}

static void put_config(struct vf_json_writer *w, const struct vf_pool_config *c)
{
    vf_jw_begin(w, "config", '{');
    for (const struct vf_json_field *f = vf_pool_config_fields; f->name; f++) {
        const char *at = (const char *)c + f->offset;
        if (f->type == VF_JSON_BOOL)
            vf_jw_bool(w, f->name, *(const bool *)at);
        else if (f->type == VF_JSON_ENUM)
            vf_jw_string(w, f->name, f->choices[*(const int *)at]);
        else
            vf_jw_int(w, f->name, *(const int64_t *)at);
    }
    vf_jw_end(w, '}');
}

/* What refilling does now, and why it does not do more. */
static const char *refill_state(const struct vf_pool *pool, const char **ret_why)
{
    bool short_of =
        pool->parked_current < pool->target || pool->n[VF_SLOT_STANDBY] < pool->config.standby;
    *ret_why = NULL;
    if (pool->drained)
        return "drained";
    if (pool->making_pool + pool->making_standby > 0)
        return "running";
    if (!short_of)
        return "idle";
    if (!pool->gen) {
        *ret_why = pool->reason;
        return "waiting for a template";
    }
    if (pool->refill_retry_us > vf_now_us()) {
        *ret_why = pool->refill_error ? pool->refill_error->msg : NULL;
        return "backoff";
    }
    if (pool->pools->under_pressure) {
        *ret_why = pool->pools->pressure;
        return "pressure";
    }
    return "running";
}

static void put_refill(struct vf_json_writer *w, const struct vf_pool *pool)
{
    const char *why;
    vf_jw_begin(w, "refill", '{');
    vf_jw_string(w, "state", refill_state(pool, &why));
    vf_jw_int(w, "failures_in_row", pool->refill_failures);
    vf_jw_int(w, "failures", pool->refill_failures_total);
    put_left(w, "retry_in_ms", pool->refill_retry_us);
    vf_jw_string(w, "reason", why);
    vf_write_error(w, "error", pool->refill_error);
    vf_jw_end(w, '}');
}

void vf_pool_write(struct vf_json_writer *w, const char *key, const struct vf_pool *pool)
{
    vf_jw_begin(w, key, '{');
    vf_jw_string(w, "template", pool->spec.name);
    vf_jw_string(w, "state", vf_template_state_names[pool->state]);
    vf_jw_string(w, "reason", pool->reason);
    put_number(w, "generation", pool->current);
    vf_jw_string(w, "class", vf_pool_class(pool));
    vf_jw_bool(w, "drained", pool->drained);
    put_config(w, &pool->config);
    vf_jw_int(w, "target", pool->target);
    vf_jw_int(w, "parked", pool->n[VF_SLOT_PARKED]);
    vf_jw_int(w, "parked_old", pool->n[VF_SLOT_PARKED] - pool->parked_current);
    vf_jw_int(w, "standby", pool->n[VF_SLOT_STANDBY]);
    vf_jw_int(w, "making", pool->n[VF_SLOT_MAKING]);
    vf_jw_int(w, "leased", pool->n[VF_SLOT_LEASED]);
    vf_jw_int(w, "waiting", pool->n_waiting);
    put_refill(w, pool);
    put_build(w, pool);
    vf_jw_double(w, "arrivals_per_s", vf_autosize_rate(&pool->autosize, vf_now_us()), 3);
    if (pool->clone_s > 0)
        vf_jw_double(w, "clone_ms", pool->clone_s * 1000, 1);
    else
        vf_jw_string(w, "clone_ms", NULL);
    vf_jw_end(w, '}');
}

/* ---- a VM */

static void put_proof(struct vf_json_writer *w, const struct vf_slot *s)
{
    const struct vf_proof *p = s->vm ? vf_instance_proof(s->vm) : NULL;
    if (!p || !p->boot_id[0]) {
        vf_jw_string(w, "proof", NULL);
        return;
    }
    vf_jw_begin(w, "proof", '{');
    put_number(w, "generation", p->generation);
    vf_jw_bool(w, "nonce_matched", p->nonce_matched);
    put_text(w, "nonce", p->nonce);
    vf_jw_string(w, "boot_id", p->boot_id);
    vf_jw_string(w, "entropy_sha256", p->entropy_sha256);
    vf_jw_string(w, "sample", p->sample);
    vf_jw_int(w, "clock_offset_us", p->clock_offset_us);
    vf_jw_string(w, "machine_id", p->machine_id);
    vf_jw_string(w, "hostname", p->hostname);
    put_text(w, "mac", p->mac);
    vf_jw_end(w, '}');
}

static void put_lease(struct vf_json_writer *w, const struct vf_slot *s)
{
    if (!s->was_leased) {
        vf_jw_string(w, "lease", NULL);
        return;
    }
    vf_jw_begin(w, "lease", '{');
    vf_jw_int(w, "uid", s->holder.uid);
    vf_jw_int(w, "gid", s->holder.gid);
    vf_jw_int(w, "pid", s->holder.pid);
    put_time(w, "acquired", s->acquired_ms);
    put_number(w, "ttl_ms", s->ttl_ms);
    put_left(w, "expires_in_ms", s->expires_us);
    vf_jw_end(w, '}');
}

static const char *state_name(const struct vf_slot *s)
{
    static const char *const names[VF_SLOT_STATE_COUNT] = {"making", "standby", "parked",
                                                           "waking", "leased",  "releasing"};
    return s->death ? "dead" : names[s->state];
}

/* A path of the VM's own, or NULL. */
static char *path_in(const struct vf_slot *s, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s/%s", s->pools->run_path, s->id, name) < 0 ? NULL : path;
}

static void put_agent(struct vf_json_writer *w, const struct vf_slot *s)
{
    static const char *const names[] = {[VF_LINK_SOCKET] = VF_LINK_SOCKET_NAME,
                                        [VF_LINK_VSOCK] = VF_LINK_VSOCK_NAME,
                                        [VF_LINK_FIFOS] = VF_LINK_FIFO_IN_NAME};
    char path[64];
    snprintf(path, sizeof(path), "/v1/vms/%s/exec", s->id);
    vf_jw_begin(w, "agent", '{');
    vf_jw_string(w, "exec", path);
    const struct vf_spec *spec = s->vm ? vf_instance_spec(s->vm) : &s->pool->spec;
    vf_jw_string(w, "channel", vf_channel_names[spec->agent.channel]);
    enum vf_link link = vf_vm_link_of(vf_vmm_find(vf_spec_vmm_names[spec->vmm]),
                                      (enum vf_channel)spec->agent.channel);
    VF_CLEANUP_FREE char *sock = path_in(s, names[link]);
    vf_jw_string(w, "socket", sock);
    vf_jw_end(w, '}');
}

void vf_slot_write(struct vf_json_writer *w, const char *key, const struct vf_slot *s)
{
    vf_jw_begin(w, key, '{');
    vf_jw_string(w, "id", s->id);
    vf_jw_string(w, "template", s->pool->spec.name);
    vf_jw_string(w, "state", state_name(s));
    vf_jw_string(w, "source", s->was_leased ? vf_got_names[s->got] : NULL);
    vf_jw_string(w, "reason", s->was_leased ? s->reason : NULL);
    put_number(w, "generation", s->generation);
    vf_jw_string(w, "class", s->vm ? vf_instance_class(s->vm) : NULL);
    put_number(w, "pid", vf_slot_pid(s));
    put_time(w, "created", s->created_ms);
    vf_write_error(w, "death", s->death);
    put_agent(w, s);
    vf_slot_write_network(w, "network", s);
    put_proof(w, s);
    put_lease(w, s);
    vf_jw_begin(w, "stages", '[');
    for (int i = 0; i < s->n_stages; i++) {
        vf_jw_begin(w, NULL, '{');
        vf_jw_string(w, "name", s->stages[i].name);
        vf_jw_int(w, "us", s->stages[i].us);
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, ']');
    vf_jw_int(w, "total_us", s->total_us);
    vf_jw_end(w, '}');
}

/* The route table, opening and closing, and what the handlers share. See api.h.
 *
 * Closing: upgraded connections are ours, so they end first; then the server ends all others, whose handlers
 * hear of it by on_gone and closed.
 */
#include "pool/api_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/version.h"
#include "pool/settings_text.h"

const struct vf_http_route vf_api_routes[] = {
    {"GET", "/v1/version", false, vf_api_version},
    {"GET", "/v1/settings", false, vf_api_settings},
    {"GET", "/v1/templates", false, vf_api_templates_list},
    {"POST", "/v1/templates", true, vf_api_templates_create},
    {"GET", "/v1/templates/{name}", false, vf_api_templates_show},
    {"DELETE", "/v1/templates/{name}", true, vf_api_templates_delete},
    {"POST", "/v1/templates/{name}/build", true, vf_api_templates_build},
    {"GET", "/v1/classes", false, vf_api_classes_list},
    {"GET", "/v1/classes/{name}", false, vf_api_classes_show},
    {"PUT", "/v1/classes/{name}", true, vf_api_classes_put},
    {"DELETE", "/v1/classes/{name}", true, vf_api_classes_delete},
    {"GET", "/v1/assets", false, vf_api_assets_list},
    {"POST", "/v1/assets/gc", true, vf_api_assets_gc},
    {"GET", "/v1/assets/{name}", false, vf_api_assets_show},
    {"PUT", "/v1/assets/{name}", true, vf_api_assets_put},
    {"DELETE", "/v1/assets/{name}", true, vf_api_assets_delete},
    {"POST", "/v1/assets/{name}/fetch", true, vf_api_assets_fetch},
    {"POST", "/v1/assets/{name}/verify", true, vf_api_assets_verify},
    {"GET", "/v1/pools", false, vf_api_pools_list},
    {"GET", "/v1/pools/{name}", false, vf_api_pools_show},
    {"PATCH", "/v1/pools/{name}", true, vf_api_pools_set},
    {"POST", "/v1/pools/{name}/warm", true, vf_api_pools_warm},
    {"POST", "/v1/pools/{name}/drain", true, vf_api_pools_drain},
    {"POST", "/v1/vms", false, vf_api_vms_acquire},
    {"GET", "/v1/vms", false, vf_api_vms_list},
    {"GET", "/v1/vms/{id}", false, vf_api_vms_show},
    {"POST", "/v1/vms/{id}/renew", false, vf_api_vms_renew},
    {"DELETE", "/v1/vms/{id}", false, vf_api_vms_release},
    {"POST", "/v1/vms/{id}/exec", false, vf_api_vms_exec},
    {"POST", "/v1/taps", false, vf_api_taps_create},
    {"GET", "/v1/events", false, vf_api_events},
    {.method = NULL},
};

/* ---- what handlers share */

bool vf_api_query(struct vf_http_req *req, const char *const *known)
{
    static const char *const none[] = {NULL};
    const char *name, *near;
    struct vf_error err = {0};

    known = known != NULL ? known : none;
    for (int i = 0; (name = vf_http_query_name(req, i)) != NULL; i++) {
        size_t k = 0;

        while (known[k] != NULL && strcmp(known[k], name) != 0)
            k++;
        if (known[k] != NULL)
            continue;
        near = vf_nearest(name, known);
        vf_fail(&err, VF_INVALID_ARGUMENT, "query: %.64s: unknown argument%s%s%s", name,
                near != NULL ? ", did you mean \"" : "", near != NULL ? near : "",
                near != NULL ? "\"?" : "");
        vf_http_reply_error(req, &err, 0);
        return false;
    }
    return true;
}

bool vf_api_query_bool(struct vf_http_req *req, const char *name, bool *ret)
{
    const char *text = vf_http_query(req, name);
    struct vf_error err = {0};

    if (text == NULL)
        return true;
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
        *ret = text[0] == 't';
        return true;
    }
    vf_fail(&err, VF_INVALID_ARGUMENT, "query: %s: must be true or false (is \"%.64s\")", name,
            text);
    vf_http_reply_error(req, &err, 0);
    return false;
}

bool vf_api_query_int(struct vf_http_req *req, const char *name, int64_t *ret)
{
    const char *text = vf_http_query(req, name);
    struct vf_error err = {0};
    char *end = NULL;
    long long n = 0;

    if (text == NULL)
        return true;
    errno = 0;
    if (text[0] >= '0' && text[0] <= '9')
        n = strtoll(text, &end, 10);
    if (end != NULL && *end == '\0' && errno == 0) {
        *ret = n;
        return true;
    }
    vf_fail(&err, VF_INVALID_ARGUMENT, "query: %s: must be a whole number (is \"%.64s\")", name,
            text);
    vf_http_reply_error(req, &err, 0);
    return false;
}

bool vf_api_serving(struct vf_http_req *req, struct vf_api *a)
{
    struct vf_error err = {0};

    if (!a->stopping)
        return true;
    vf_fail(&err, VF_CANCELLED, "the daemon is stopping");
    vf_http_reply_error(req, &err, 1);
    return false;
}

bool vf_api_no_body(struct vf_http_req *req)
{
    static const struct vf_json_field none[] = {{.name = NULL}};
    char nothing = 0;

    return vf_http_decode(req, none, &nothing);
}

bool vf_api_pool(struct vf_http_req *req, struct vf_api *a, struct vf_pool **ret)
{
    struct vf_error err = {0};

    if (vf_pools_find(a->pools, vf_http_param(req, 0), ret, &err) == 0)
        return true;
    vf_http_reply_error(req, &err, 0);
    return false;
}

void vf_api_list(struct vf_http_req *req, const struct vf_api *a, const char *key,
                 void (*write)(struct vf_json_writer *w, const char *key,
                               const struct vf_pool *pool))
{
    struct vf_json_writer w = {0};

    if (!vf_api_query(req, NULL))
        return;
    vf_jw_begin(&w, NULL, '{');
    vf_jw_begin(&w, key, '[');
    for (struct vf_pool *p = vf_pools_next(a->pools, NULL); p; p = vf_pools_next(a->pools, p))
        write(&w, NULL, p);
    vf_jw_end(&w, ']');
    vf_jw_end(&w, '}');
    vf_http_reply_json(req, 200, vf_jw_finish(&w));
}

void vf_api_version(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    const struct vf_caller *who = vf_http_caller(req);
    struct vf_json_writer w = {0};

    if (!vf_api_query(req, NULL))
        return;
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "name", "vmfactory");
    vf_jw_string(&w, "version", VF_VERSION);
    vf_jw_int(&w, "api", 1);
    vf_jw_int(&w, "pid", getpid());
    vf_jw_int(&w, "uptime_ms", (vf_now_us() - a->began_us) / 1000);
    vf_jw_string(&w, "state_dir", a->settings->state_dir);
    vf_jw_string(&w, "run_dir", a->settings->run_dir);
    vf_jw_bool(&w, "admin", who->admin);
    vf_jw_int(&w, "uid", who->uid);
    vf_jw_end(&w, '}');
    vf_http_reply_json(req, 200, vf_jw_finish(&w));
}

void vf_api_settings(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct vf_json_writer w = {0};

    if (!vf_api_query(req, NULL))
        return;
    vf_jw_begin(&w, NULL, '{');
    vf_settings_write(&w, "settings", a->settings);
    vf_pools_write_networks(&w, "networks", a->pools);
    vf_jw_end(&w, '}');
    vf_http_reply_json(req, 200, vf_jw_finish(&w));
}

/* ---- life */

int vf_api_open(uv_loop_t *loop, int listen_fd, struct vf_pools *pools, struct vf_events *events,
                const struct vf_settings *settings, gid_t admin_gid, struct vf_api **ret,
                struct vf_error *err)
{
    struct vf_api *a = calloc(1, sizeof(*a));
    int r;

    if (a == NULL)
        return vf_fail(err, VF_NO_MEMORY, "api");
    *a = (struct vf_api){.loop = loop,
                         .pools = pools,
                         .events = events,
                         .settings = settings,
                         .began_us = vf_now_us()};
    const struct vf_http_options o = {.routes = vf_api_routes,
                                      .arg = a,
                                      .max_connections = (int)settings->max_connections,
                                      .request_timeout_ms = settings->request_timeout_ms,
                                      .max_body_bytes = (size_t)settings->max_body_bytes,
                                      .admin_gid = admin_gid};
    r = vf_http_open(loop, listen_fd, &o, &a->http, err);
    if (r < 0) {
        free(a);
        return r;
    }
    *ret = a;
    return 0;
}

void vf_api_quiesce(struct vf_api *a)
{
    if (a->stopping)
        return;
    a->stopping = true;
    vf_http_quiesce(a->http);
}

static void on_http_closed(void *arg)
{
    struct vf_api *a = arg;
    void (*closed)(void *) = a->closed;
    void *closed_arg = a->closed_arg;

    free(a);
    closed(closed_arg);
}

void vf_api_upgrades_over(struct vf_api *a)
{
    if (!a->closing)
        return;
    a->http_closing = true;
    vf_http_close(a->http, on_http_closed, a);
}

void vf_api_close(struct vf_api *a, void (*done)(void *arg), void *arg)
{
    vf_api_quiesce(a);
    a->closed = done;
    a->closed_arg = arg;
    a->closing = true;
    if (a->upgrades == NULL)
        vf_api_upgrades_over(a);
    else
        vf_api_upgrades_end(a);
}

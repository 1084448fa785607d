/* Serving stats. libmicrohttpd runs a thread for each listener, stats.sock and the TCP one if asked for:
 *
 *     request line and headers (8 KiB at most) -> path known? GET or HEAD? -> cached answer, or a new one
 *
 * A listener's cache is touched by its own thread alone. An answer is one counted object: what replaces it in the
 * cache does not take it from those that are still being sent it. Whoever is idle for 10 s, or is not through with a
 * request after 20 s (stats_guard.h), is closed; beyond the limit connections wait in the backlog.
 */
#include "pool/stats_server.h"

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/json.h"
#include "pool/stats_guard.h"
#include "pool/stats_listen.h"

#define CACHED_US 100000
#define IDLE_TIMEOUT_S 10
#define REQUEST_US 20000000
#define LIVE_US 5000000
#define MEMORY_PER_CONNECTION ((size_t)8192)

/* What can be asked for, each form of it. */
enum { FORM_OPENMETRICS, FORM_CLASSIC, FORM_JSON, FORM_COUNT };
static const struct {
    const char *content_type;
    char *(*render)(struct vf_stats *s, size_t *ret_len);
} forms[FORM_COUNT] = {
    [FORM_OPENMETRICS] = {"application/openmetrics-text; version=1.0.0; charset=utf-8",
                          vf_stats_text},
    [FORM_CLASSIC] = {"text/plain; version=0.0.4; charset=utf-8", vf_stats_text_classic},
    [FORM_JSON] = {"application/json", vf_stats_json},
};

struct listener {
    struct vf_stats_server *srv;
    struct MHD_Daemon *mhd;
    struct {
        struct MHD_Response *response;
        int64_t made_us;
    } cache[FORM_COUNT];
};

enum { ON_UNIX, ON_TCP, LISTENERS };
struct vf_stats_server {
    struct vf_stats *stats;
    int64_t live_us;
    uint16_t port;
    struct vf_stats_guard *guard;
    struct listener listeners[LISTENERS];
};

/* text is taken over, NULL without memory. */
static struct MHD_Response *new_response(char *text, size_t len, const char *content_type)
{
    struct MHD_Response *r =
        text != NULL ? MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE) : NULL;

    if (r == NULL) {
        free(text);
        return NULL;
    }
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    return r;
}

/* NULL without memory: the connection is closed. */
static enum MHD_Result answer_once(struct MHD_Connection *c, unsigned status,
                                   struct MHD_Response *r)
{
    enum MHD_Result result;

    if (r == NULL)
        return MHD_NO;
    result = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result answer_error(struct MHD_Connection *c, unsigned status, const char *code,
                                    const char *message)
{
    struct vf_json_writer w = {0};
    struct MHD_Response *r;
    char *text;

    vf_jw_begin(&w, NULL, '{');
    vf_jw_begin(&w, "error", '{');
    vf_jw_string(&w, "code", code);
    vf_jw_string(&w, "message", message);
    vf_jw_string(&w, "hint", "GET /metrics, /stats or /healthz");
    vf_jw_end(&w, '}');
    vf_jw_end(&w, '}');
    text = vf_jw_finish(&w);
    r = new_response(text, text != NULL ? strlen(text) : 0, "application/json");
    if (r != NULL && status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    return answer_once(c, status, r);
}

static enum MHD_Result answer_cached(struct listener *l, struct MHD_Connection *c, int form)
{
    int64_t now_us = vf_now_us();

    if (l->cache[form].response == NULL || now_us - l->cache[form].made_us >= CACHED_US) {
        size_t len = 0;
        char *text = forms[form].render(l->srv->stats, &len);
        struct MHD_Response *r = new_response(text, len, forms[form].content_type);

        if (r == NULL)
            return answer_error(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "no_memory", "no memory");
        if (form != FORM_JSON) /* one address, two forms */
            MHD_add_response_header(r, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ACCEPT);
        if (l->cache[form].response != NULL)
            MHD_destroy_response(l->cache[form].response);
        l->cache[form].response = r;
        l->cache[form].made_us = now_us;
    }
    return MHD_queue_response(c, MHD_HTTP_OK, l->cache[form].response);
}

static enum MHD_Result metrics(struct listener *l, struct MHD_Connection *c)
{
    const char *accept = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT);
    bool openmetrics = accept != NULL && strcasestr(accept, "application/openmetrics-text") != NULL;

    return answer_cached(l, c, openmetrics ? FORM_OPENMETRICS : FORM_CLASSIC);
}

static enum MHD_Result stats(struct listener *l, struct MHD_Connection *c)
{
    return answer_cached(l, c, FORM_JSON);
}

static enum MHD_Result healthz(struct listener *l, struct MHD_Connection *c)
{
    const char *only_live = MHD_lookup_connection_value(c, MHD_GET_ARGUMENT_KIND, "live");
    int64_t ago_us = vf_stats_last_turn_us(l->srv->stats);
    bool live = ago_us <= l->srv->live_us, ready = vf_stats_ready(l->srv->stats);
    bool well = live && (ready || (only_live != NULL && strcmp(only_live, "1") == 0));
    struct vf_json_writer w = {0};
    char *text;

    vf_jw_begin(&w, NULL, '{');
    vf_jw_bool(&w, "live", live);
    vf_jw_bool(&w, "ready", ready);
    vf_jw_int(&w, "loop_last_turn_ms", ago_us / 1000);
    vf_jw_end(&w, '}');
    text = vf_jw_finish(&w);
    return answer_once(c, well ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                       new_response(text, text != NULL ? strlen(text) : 0, "application/json"));
}

static const struct {
    const char *path;
    enum MHD_Result (*answer)(struct listener *l, struct MHD_Connection *c);
} paths[] = {{"/metrics", metrics}, {"/stats", stats}, {"/healthz", healthz}};

static bool has_body(struct MHD_Connection *c)
{
    const char *len =
        MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

    return (len != NULL && strcmp(len, "0") != 0) ||
           MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING) !=
               NULL;
}

/* Called twice: after the headers, and when the request is whole. An answer to the first call makes
 * libmicrohttpd close the connection after it, which is right for what must not be read further. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_len, void **state)
{
    static int headers_seen;
    struct listener *l = (struct listener *)arg;

    (void)version;
    (void)upload;
    (void)upload_len;
    if (*state == NULL) {
        *state = &headers_seen;
        if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
            return answer_error(c, MHD_HTTP_METHOD_NOT_ALLOWED, "invalid_argument",
                                "this socket is read-only");
        if (has_body(c))
            return answer_error(c, MHD_HTTP_BAD_REQUEST, "invalid_argument",
                                "a request here has no body");
        return MHD_YES;
    }
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (strcmp(url, paths[i].path) == 0)
            return paths[i].answer(l, c);
    }
    return answer_error(c, MHD_HTTP_NOT_FOUND, "not_found", "there is nothing at this path");
}

/* Takes fd over on success. */
static int start_listener(struct vf_stats_server *srv, int which, int fd, int max_connections,
                          unsigned idle_timeout_s, struct vf_error *err)
{
    struct listener *l = &srv->listeners[which];
    /* libmicrohttpd may or may not close what it is given when it fails, so it gets its own. */
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (own < 0)
        return vf_fail_errno(err, errno, "stats: listening socket");
    l->srv = srv;
    l->mhd = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, on_request, l, MHD_OPTION_LISTEN_SOCKET, own,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)max_connections, MHD_OPTION_CONNECTION_TIMEOUT,
        idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, MEMORY_PER_CONNECTION,
        MHD_OPTION_NOTIFY_CONNECTION, vf_stats_guard_on_connection, srv->guard,
        MHD_OPTION_NOTIFY_COMPLETED, vf_stats_guard_on_completed, srv->guard, MHD_OPTION_END);
    if (l->mhd == NULL)
        return vf_fail(err, VF_IO, "stats: can't start a server thread");
    vf_close_fd(&fd);
    return 0;
}

/* What has been started is the caller's to stop on failure; listen_fd is taken over by the last step alone. */
static int start_threads(struct vf_stats_server *srv, int listen_fd, const char *tcp,
                         int max_connections, const struct vf_stats_server_limits *limits,
                         struct vf_error *err)
{
    unsigned idle_s = limits->idle_timeout_s > 0 ? limits->idle_timeout_s : IDLE_TIMEOUT_S;
    int VF_CLEANUP_FD tcp_fd = -1;
    int r = vf_stats_guard_start(limits->request_us > 0 ? limits->request_us : REQUEST_US,
                                 &srv->guard, err);

    if (r == 0 && tcp != NULL) {
        r = vf_stats_listen_tcp(tcp, &tcp_fd, &srv->port, err);
        if (r == 0)
            r = start_listener(srv, ON_TCP, tcp_fd, max_connections, idle_s, err);
        if (r == 0)
            (void)vf_steal_fd(&tcp_fd);
    }
    return r < 0 ? r : start_listener(srv, ON_UNIX, listen_fd, max_connections, idle_s, err);
}

int vf_stats_server_start_limited(struct vf_stats *s, int listen_fd, const char *tcp,
                                  int max_connections, const struct vf_stats_server_limits *limits,
                                  struct vf_stats_server **ret, struct vf_error *err)
{
    struct vf_stats_server *srv = (struct vf_stats_server *)calloc(1, sizeof(*srv));
    sigset_t all, before;
    int r;

    if (srv == NULL)
        return vf_fail(err, VF_NO_MEMORY, "stats: no memory");
    srv->stats = s;
    srv->live_us = limits->live_us > 0 ? limits->live_us : LIVE_US;
    sigfillset(&all); /* signals are the loop's; a thread inherits what is blocked */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = start_threads(srv, listen_fd, tcp, max_connections, limits, err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0) {
        vf_stats_server_stop(srv);
        return r;
    }
    *ret = srv;
    return 0;
}

int vf_stats_server_start(struct vf_stats *s, int listen_fd, const char *tcp, int max_connections,
                          struct vf_stats_server **ret, struct vf_error *err)
{
    static const struct vf_stats_server_limits as_is;

    return vf_stats_server_start_limited(s, listen_fd, tcp, max_connections, &as_is, ret, err);
}

uint16_t vf_stats_server_port(const struct vf_stats_server *srv)
{
    return srv->port;
}

void vf_stats_server_stop(struct vf_stats_server *srv)
{
    if (srv == NULL)
        return;
    for (int i = 0; i < LISTENERS; i++) {
        struct listener *l = &srv->listeners[i];

        if (l->mhd != NULL)
            MHD_stop_daemon(l->mhd); /* ends its thread and every connection */
        for (int form = 0; form < FORM_COUNT; form++) {
            if (l->cache[form].response != NULL)
                MHD_destroy_response(l->cache[form].response);
        }
    }
    vf_stats_guard_stop(srv->guard);
    free(srv);
}

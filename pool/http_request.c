/* A request: from its first line to its handler's return, and its end. See http.h and http_internal.h.
 *
 *     request line   on_request_line    the request is made, its time limit begins
 *     headers        begin              who calls; route; refusals are decided here, before the body is kept
 *     body           take_body          at most max_body_bytes are kept, the rest is read and dropped
 *     all is there   handle             the handler; its answer is queued, or the connection suspended
 *     resumed        vf_http_on_request the deferred answer is queued, or the connection ended if its peer is gone
 *     answered       on_completed       finish: every callback that is still owed, then freed
 *
 * A refusal waits for the end of the body, so that the connection can be kept and a client that writes before it
 * reads gets to read it; only one that asks first (Expect: 100-continue) is told at once.
 */
#include "pool/http_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "base/clock.h"

/* Any time limit of its own puts a connection on libmicrohttpd's list of those it looks at in each
 * run, before it reads. Seconds; never reached. */
#define SLOW_LANE 1000000u

/* ---- who calls */

static bool in_group(int fd, const struct vf_caller *c, gid_t group)
{
    gid_t some[64], *list = some, *more = NULL;
    socklen_t len = sizeof(some);
    bool found = c->gid == group;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, list, &len) < 0) {
        more = errno == ERANGE ? (gid_t *)malloc(len) : NULL;
        list = more;
        if (more == NULL || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, more, &len) < 0)
            len = 0;
    }
    for (size_t i = 0; i < len / sizeof(gid_t); i++)
        found = found || list[i] == group;
    free(more);
    return found;
}

static void learn_caller(struct vf_http_conn *c)
{
    struct ucred cred = {.uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t len = sizeof(cred);
    gid_t group = c->h->o.admin_gid;

    c->caller_known = true;
    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        cred = (struct ucred){.uid = (uid_t)-1, .gid = (gid_t)-1}; /* nobody, and no admin */
    c->caller = (struct vf_caller){.uid = cred.uid, .gid = cred.gid, .pid = cred.pid};
    if (cred.uid == (uid_t)-1)
        return;
    c->caller.admin = cred.uid == 0 || cred.uid == geteuid() ||
                      (group != (gid_t)-1 && in_group(c->fd, &c->caller, group));
}

/* ---- headers */

void *vf_http_on_request_line(void *cls, const char *uri, struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct vf_http_conn *c = (struct vf_http_conn *)info->socket_context;
    struct vf_http_req *req;
    struct vf_error err;

    (void)cls;
    if (c == NULL)
        return NULL;
    vf_http_limit_start(c);
    req = (struct vf_http_req *)calloc(1, sizeof(*req));
    if (req == NULL)
        return NULL;
    req->conn = c;
    c->req = req;
    if (vf_http_uri_parse(&req->uri, uri != NULL ? uri : "", &err) < 0)
        vf_http_reply_error(req, &err, 0);
    return req;
}

static const char *header(const struct vf_http_req *req, const char *name)
{
    return MHD_lookup_connection_value(req->conn->mhd, MHD_HEADER_KIND, name);
}

static bool method_fits(const struct vf_http_route *r, const char *method)
{
    return strcmp(r->method, method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0);
}

static void add_method(char *list, size_t size, const char *method)
{
    size_t len = strlen(list);

    snprintf(list + len, size - len, "%s%s", len > 0 ? ", " : "", method);
}

/* Finds the route, or refuses. */
static void route(struct vf_http_req *req, const char *method)
{
    const struct vf_http_route *routes = req->conn->h->o.routes;
    char allow[120] = "", near[200];
    struct vf_error err;

    for (const struct vf_http_route *r = routes; r->method != NULL; r++) {
        if (!vf_http_uri_match(&req->uri, r->pattern, req->params))
            continue;
        if (method_fits(r, method)) {
            req->route = r;
            break;
        }
        add_method(allow, sizeof(allow), r->method);
        if (strcmp(r->method, "GET") == 0)
            add_method(allow, sizeof(allow), "HEAD");
    }
    if (req->route != NULL) {
        if (!req->route->admin || req->conn->caller.admin)
            return;
        vf_fail(&err, VF_PERMISSION, "%s %s is for administrators (you are uid %u)", method,
                req->route->pattern, (unsigned)req->conn->caller.uid);
        vf_hint(&err, "call as root, as the daemon's user, or as a member of its admin group");
        vf_http_reply_error(req, &err, 0);
    } else if (allow[0] != '\0') {
        vf_fail(&err, VF_INVALID_ARGUMENT, "this path does not take %.20s", method);
        vf_hint(&err, "it takes %s", allow);
        vf_http_refuse(req, MHD_HTTP_METHOD_NOT_ALLOWED, &err, allow, 0);
    } else {
        vf_fail(&err, VF_NOT_FOUND, "there is no such path");
        vf_http_uri_nearest(&req->uri, routes, near, sizeof(near));
        if (near[0] != '\0')
            vf_hint(&err, "did you mean %s?", near);
        vf_http_reply_error(req, &err, 0);
    }
}

static void refuse_headers(struct vf_http_req *req)
{
    struct vf_error err;

    vf_fail(&err, VF_INVALID_ARGUMENT, "the headers are longer than %d bytes", VF_HTTP_MAX_HEADERS);
    vf_http_refuse(req, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, &err, NULL, 0);
}

static void refuse_size(struct vf_http_req *req)
{
    struct vf_error err;

    vf_fail(&err, VF_INVALID_ARGUMENT, "the body is longer than %zu bytes",
            req->conn->h->o.max_body_bytes);
    vf_http_refuse(req, MHD_HTTP_CONTENT_TOO_LARGE, &err, NULL, 0);
}

/* The headers are there. Returns false if the answer must not wait for the body. */
static bool begin(struct vf_http_req *req, const char *method, const char *version)
{
    const char *length = header(req, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *coding = header(req, MHD_HTTP_HEADER_TRANSFER_ENCODING);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(req->conn->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    struct vf_error err;

    req->headers_done = true;
    req->began_us = vf_now_us();
    req->head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    req->http11 = strcmp(version, MHD_HTTP_VERSION_1_1) == 0;
    if (!req->conn->caller_known)
        learn_caller(req->conn);
    if (coding != NULL && strcasecmp(coding, "chunked") != 0) { /* its end could not be found */
        vf_fail(&err, VF_UNSUPPORTED, "Transfer-Encoding can only be chunked");
        vf_http_reply_error(req, &err, 0);
        return false;
    }
    if (!req->answered && info != NULL && info->header_size > VF_HTTP_MAX_HEADERS)
        refuse_headers(req);
    if (!req->answered)
        route(req, method);
    if (!req->answered && coding == NULL && length != NULL &&
        strtoull(length, NULL, 10) > req->conn->h->o.max_body_bytes)
        refuse_size(req);
    return !req->answered ||
           !vf_http_has_token(header(req, MHD_HTTP_HEADER_EXPECT), "100-continue");
}

/* ---- body */

static void take_body(struct vf_http_req *req, const char *data, size_t size)
{
    size_t max = req->conn->h->o.max_body_bytes, cap = req->body_cap;
    char *grown;

    if (req->answered) /* refused: what still comes is dropped */
        return;
    if (size > max - req->body_len) {
        refuse_size(req);
        return;
    }
    if (req->body_len + size + 1 > cap) {
        cap = cap * 2 > req->body_len + size + 1 ? cap * 2 : req->body_len + size + 1;
        grown = (char *)realloc(req->body, cap);
        if (grown == NULL) {
            vf_http_reply_json(req, 0, NULL);
            return;
        }
        req->body = grown;
        req->body_cap = cap;
    }
    memcpy(req->body + req->body_len, data, size);
    req->body_len += size;
    req->body[req->body_len] = '\0';
}

/* ---- the handler, and its answer */

static enum MHD_Result queue(struct vf_http_req *req)
{
    struct MHD_Response *r = req->response;
    enum MHD_Result result;

    req->response = NULL;
    req->state = VF_HTTP_ANSWERED;
    if (r == NULL)
        return MHD_NO;
    if (req->stream.closed == NULL) /* who does not read a stream just stalls it */
        vf_http_limit_start(req->conn);
    result = MHD_queue_response(req->conn->mhd, (unsigned)req->status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result handle(struct vf_http_req *req)
{
    struct vf_error err;

    vf_http_limit_stop(req->conn);
    req->state = VF_HTTP_HANDLING;
    if (!req->answered)
        req->route->handler(req, req->conn->h->o.arg);
    if (!req->answered && req->deferred) {
        req->state = VF_HTTP_DEFERRED;
        vf_http_suspend(req);
        return MHD_YES;
    }
    if (!req->answered) {
        vf_fail(&err, VF_INTERNAL, "%s %s was not answered", req->route->method,
                req->route->pattern);
        vf_http_reply_error(req, &err, 0);
    }
    if (req->watch.on_lost == NULL)
        return queue(req);
    /* Written in several steps, an answer may have been read and its connection closed by the peer before the last of
     * them; libmicrohttpd takes that for a hang-up, unless it does not poll the connection: resumed ones it just
     * writes to. So a watched answer goes the way of a deferred one. */
    req->state = VF_HTTP_DEFERRED;
    vf_http_suspend(req);
    vf_http_resume(req);
    return MHD_YES;
}

enum MHD_Result vf_http_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                   const char *method, const char *version, const char *data,
                                   size_t *size, void **con_cls)
{
    struct vf_http_req *req = (struct vf_http_req *)*con_cls;

    (void)mhd, (void)url;
    if (req == NULL || req->state == VF_HTTP_GONE)
        return MHD_NO;
    if (!req->headers_done)
        return begin(req, method, version) ? MHD_YES : queue(req);
    if (*size > 0) {
        take_body(req, data, *size);
        *size = 0;
        return MHD_YES;
    }
    if (req->state == VF_HTTP_DEFERRED)
        return queue(req);
    return ((struct vf_http *)cls)->closing ? MHD_NO : handle(req);
}

/* A suspended connection that comes back is read before its answer is looked at, and an end of file
 * (a peer that only closed its sending side) would end it. Those on the slow lane are looked at
 * before: then the answer is there, and is written. */
void vf_http_suspend(struct vf_http_req *req)
{
    struct vf_http_conn *c = req->conn;

    if (!c->slow_lane)
        MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, SLOW_LANE);
    c->slow_lane = true;
    req->suspended = true;
    vf_http_watch_conn(c);
    MHD_suspend_connection(c->mhd);
}

void vf_http_resume(struct vf_http_req *req)
{
    req->suspended = false;
    MHD_resume_connection(req->conn->mhd);
    vf_http_kick(req->conn->h);
}

void vf_http_req_gone(struct vf_http_req *req)
{
    void (*on_gone)(void *arg) = req->on_gone;

    if (!req->suspended)
        return;
    if (req->state == VF_HTTP_DEFERRED)
        req->state = VF_HTTP_GONE;
    else
        req->stream_dead = true;
    req->on_gone = NULL;
    vf_http_resume(req);
    if (req->state == VF_HTTP_GONE && on_gone != NULL)
        on_gone(req->gone_arg);
}

/* ---- the end */

void vf_http_req_finish(struct vf_http_req *req, bool delivered)
{
    struct vf_http_conn *c = req->conn;

    c->req = NULL;
    if (!req->answered && req->deferred && req->on_gone != NULL)
        req->on_gone(req->gone_arg);
    if (req->stream.closed != NULL)
        req->stream.closed(req->stream.arg);
    if (req->upgrade.failed != NULL)
        req->upgrade.failed(req->upgrade.arg);
    if (delivered)
        c->watch = req->watch;
    else
        vf_http_answer_lost(&req->watch);
    if (req->response != NULL)
        MHD_destroy_response(req->response);
    vf_http_uri_free(&req->uri);
    free(req->body);
    free(req);
}

void vf_http_on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
                          enum MHD_RequestTerminationCode code)
{
    struct vf_http_req *req = (struct vf_http_req *)*con_cls;
    bool delivered = code == MHD_REQUEST_TERMINATED_COMPLETED_OK, upgraded;
    struct vf_http_conn *c;

    (void)cls;
    if (req == NULL)
        return;
    c = req->conn;
    upgraded = req->upgrade.upgraded != NULL && req->upgrade.failed == NULL;
    *con_cls = NULL;
    vf_http_req_finish(req, delivered);
    if (upgraded) /* libmicrohttpd holds a lock here that all its functions take */
        return;
    vf_http_limit_start(c);
    if (c->slow_lane)
        MHD_set_connection_option(mhd, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    c->slow_lane = false;
    vf_http_await_reading(c);
}

/* ---- for handlers */

const struct vf_caller *vf_http_caller(const struct vf_http_req *req)
{
    return &req->conn->caller;
}

const char *vf_http_param(const struct vf_http_req *req, int i)
{
    return i >= 0 && i < VF_HTTP_MAX_PARAMS && req->params[i] != NULL ? req->params[i] : "";
}

const char *vf_http_query(const struct vf_http_req *req, const char *name)
{
    for (size_t i = 0; i < req->uri.n_query; i++) {
        if (strcmp(req->uri.query[i].name, name) == 0)
            return req->uri.query[i].value;
    }
    return NULL;
}

const char *vf_http_query_name(const struct vf_http_req *req, int i)
{
    return i >= 0 && (size_t)i < req->uri.n_query ? req->uri.query[i].name : NULL;
}

const char *vf_http_body(const struct vf_http_req *req, size_t *ret_len)
{
    if (ret_len != NULL)
        *ret_len = req->body_len;
    return req->body != NULL ? req->body : "";
}

bool vf_http_decode(struct vf_http_req *req, const struct vf_json_field *fields, void *dst)
{
    const char *text = req->body_len > 0 ? req->body : "{}";
    size_t len = req->body_len > 0 ? req->body_len : 2;
    struct vf_error err;

    if (vf_json_decode(text, len, req->conn->h->o.max_body_bytes + 2, fields, dst, NULL, &err) == 0)
        return true;
    vf_http_reply_error(req, &err, 0);
    return false;
}

int64_t vf_http_began_us(const struct vf_http_req *req)
{
    return req->began_us;
}

void vf_http_defer(struct vf_http_req *req, void (*on_gone)(void *arg), void *arg)
{
    req->deferred = true;
    req->on_gone = on_gone;
    req->gone_arg = arg;
}

void vf_http_watch_answer(struct vf_http_req *req, void (*on_lost)(void *arg),
                          void (*on_kept)(void *arg), void *arg)
{
    req->watch = (struct vf_http_answer_watch){.on_lost = on_lost, .on_kept = on_kept, .arg = arg};
    vf_http_watch_conn(req->conn);
}

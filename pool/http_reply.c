/* Answers. See http.h and http_internal.h.
 *
 * An answer is a response of libmicrohttpd's that lies in the request until its handler returns, or, if it was
 * deferred, until the connection is resumed; then it is queued. A stream is asked for pieces while its peer reads; with
 * none to give it is suspended, so that it costs nothing, until vf_http_stream_more.
 */
#include "pool/http_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_TYPE "application/json"
#define STREAM_BLOCK 16384 /* bytes asked for at once, where there are no chunks (HTTP/1.0) */

/* Statuses of the codes that are not 500. */
static const int statuses[VF_CODE_COUNT] = {
    [VF_INVALID_ARGUMENT] = 400, [VF_PERMISSION] = 403, [VF_NOT_FOUND] = 404,
    [VF_CONFLICT] = 409,         [VF_BUSY] = 429,       [VF_UNSUPPORTED] = 501,
    [VF_CANCELLED] = 503,        [VF_TIMEOUT] = 504,    [VF_NO_MEMORY] = 507,
    [VF_NO_SPACE] = 507,
};

static char nothing[] = "";

static struct MHD_Response *no_memory_response(void)
{
    static char text[] = "{\"error\":{\"code\":\"no_memory\",\"message\":\"no memory for the "
                         "answer\",\"hint\":\"\"}}";
    struct MHD_Response *r =
        MHD_create_response_from_buffer(sizeof(text) - 1, text, MHD_RESPMEM_PERSISTENT);

    if (r != NULL)
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, JSON_TYPE);
    return r;
}

/* Gives the answer; response may be NULL: no memory. Takes it over. */
static void give(struct vf_http_req *req, int status, struct MHD_Response *response)
{
    if (req->answered || req->state == VF_HTTP_GONE) {
        if (response != NULL)
            MHD_destroy_response(response);
        return;
    }
    if (response == NULL) {
        response = no_memory_response(); /* NULL again: the connection is closed */
        status = MHD_HTTP_INTERNAL_SERVER_ERROR;
    }
    req->answered = true;
    req->status = status;
    req->response = response;
    if (req->suspended)
        vf_http_resume(req);
}

static struct MHD_Response *json_response(char *json)
{
    struct MHD_Response *r;

    if (json == NULL)
        return NULL;
    r = MHD_create_response_from_buffer(strlen(json), json, MHD_RESPMEM_MUST_FREE);
    if (r == NULL)
        free(json);
    else
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, JSON_TYPE);
    return r;
}

void vf_http_reply_json(struct vf_http_req *req, int status, char *json)
{
    give(req, status, json_response(json));
}

void vf_http_reply_empty(struct vf_http_req *req, int status)
{
    give(req, status, MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT));
}

void vf_http_refuse(struct vf_http_req *req, int status, const struct vf_error *err,
                    const char *allow, int retry_after_s)
{
    struct vf_json_writer w = {0};
    struct MHD_Response *r;

    vf_jw_begin(&w, NULL, '{');
    vf_jw_begin(&w, "error", '{');
    vf_jw_string(&w, "code", vf_code_name(err->code));
    vf_jw_string(&w, "message", err->msg);
    vf_jw_string(&w, "hint", err->hint);
    vf_jw_end(&w, '}');
    vf_jw_end(&w, '}');
    r = json_response(vf_jw_finish(&w));
    if (r != NULL && allow != NULL)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, allow);
    if (r != NULL && retry_after_s > 0) {
        char text[16];

        snprintf(text, sizeof(text), "%d", retry_after_s);
        MHD_add_response_header(r, MHD_HTTP_HEADER_RETRY_AFTER, text);
    }
    give(req, status, r);
}

void vf_http_reply_error(struct vf_http_req *req, const struct vf_error *err, int retry_after_s)
{
    int status = (unsigned)err->code < VF_CODE_COUNT ? statuses[err->code] : 0;

    vf_http_refuse(req, status != 0 ? status : MHD_HTTP_INTERNAL_SERVER_ERROR, err, NULL,
                   retry_after_s);
}

/* ---- streams */

static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct vf_http_req *req = (struct vf_http_req *)cls;
    ssize_t n = 0;

    (void)pos;
    if (req->stream_dead || req->conn->h->closing)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    do {
        req->stream_more = false;
        n = req->stream.next(req->stream.arg, buf, max);
    } while (n == 0 && req->stream_more); /* there was more before it had said that there is none */
    if (n < 0)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n == 0)
        vf_http_suspend(req);
    return n;
}

void vf_http_reply_stream(struct vf_http_req *req, int status, const char *content_type,
                          const struct vf_http_stream *s)
{
    struct MHD_Response *r;

    if (req->answered || req->state == VF_HTTP_GONE)
        return;
    req->stream = *s; /* from here on `closed` is called at the request's end */
    if (req->head)    /* libmicrohttpd would send an empty chunk after the headers */
        r = MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
    else
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, req,
                                              NULL);
    if (r != NULL)
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    give(req, status, r);
}

void vf_http_stream_more(struct vf_http_req *req)
{
    req->stream_more = true;
    if (req->suspended && req->state == VF_HTTP_ANSWERED)
        vf_http_resume(req);
}

/* ---- upgrades */

bool vf_http_wants_upgrade(const struct vf_http_req *req, const char *protocol)
{
    struct MHD_Connection *c = req->conn->mhd;

    return req->http11 &&
           vf_http_has_token(
               MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONNECTION),
               "upgrade") &&
           vf_http_has_token(
               MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_UPGRADE), protocol);
}

static void on_upgrade(void *cls, struct MHD_Connection *mhd, void *con_cls, const char *extra,
                       size_t extra_len, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
    struct vf_http_req *req = (struct vf_http_req *)cls;
    struct vf_http_upgraded *u = &req->upgrade;

    (void)mhd, (void)con_cls;
    vf_http_limit_stop(req->conn);
    vf_http_unwatch_conn(req->conn); /* the callee sees its hang-up */
    u->handle = handle;
    u->failed = NULL;
    u->upgraded(u->arg, u, fd, extra, extra_len);
}

void vf_http_reply_upgrade(struct vf_http_req *req, const char *protocol,
                           void (*upgraded)(void *arg, struct vf_http_upgraded *u, int fd,
                                            const char *extra, size_t extra_len),
                           void (*failed)(void *arg), void *arg)
{
    struct MHD_Response *r;

    if (req->answered || req->state == VF_HTTP_GONE)
        return;
    req->upgrade =
        (struct vf_http_upgraded){.req = req, .upgraded = upgraded, .failed = failed, .arg = arg};
    r = MHD_create_response_for_upgrade(on_upgrade, req);
    if (r != NULL && MHD_add_response_header(r, MHD_HTTP_HEADER_UPGRADE, protocol) != MHD_YES) {
        MHD_destroy_response(r);
        r = NULL;
    }
    give(req, MHD_HTTP_SWITCHING_PROTOCOLS, r);
}

void vf_http_upgrade_close(struct vf_http_upgraded *u)
{
    struct MHD_UpgradeResponseHandle *handle = u->handle;
    struct vf_http *h = u->req->conn->h;

    if (handle == NULL)
        return;
    u->handle = NULL;
    MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
    vf_http_kick(h);
}

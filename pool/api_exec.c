/* POST /v1/vms/{id}/exec: checks what both forms share, and serves the plain one, a stream of JSON lines.
 *
 *     body -> the VM's agent -> vf_exec -> queue -> lines, as the caller reads -> exit or error -> end
 *
 * The guest is told that output was consumed when it became a line that is being sent, so a caller that does
 * not read stops the command after its windows (factory/exec.h). One that hangs up kills it.
 */
#include "pool/api_exec.h"

#include <stdlib.h>
#include <string.h>
#include "pool/exec_frames.h"
#include "pool/exec_text.h"

#define BODY(member) offsetof(struct vf_exec_body, member)

static const struct vf_json_field body_fields[] = {
    {.name = "argv",
     .type = VF_JSON_STRING_ARRAY,
     .offset = BODY(argv),
     .min = 1,
     .max = 256,
     .required = true,
     .help = "The program and its arguments."},
    {.name = "env",
     .type = VF_JSON_STRING_ARRAY,
     .offset = BODY(env),
     .max = 256,
     .help = "NAME=value each. Default: the agent's own environment."},
    {.name = "cwd",
     .type = VF_JSON_STRING,
     .offset = BODY(cwd),
     .min = 1,
     .help = "The directory it starts in, absolute. Default /."},
    {.name = "timeout_ms",
     .type = VF_JSON_INT,
     .offset = BODY(timeout_ms),
     .min = 0,
     .max = 7LL * 24 * 3600 * 1000,
     .help = "The guest kills it then. Default 0: never."},
    {.name = "stdin",
     .type = VF_JSON_STRING,
     .offset = BODY(in),
     .max = INT32_MAX, /* the body's own limit comes first */
     .present = BODY(has_in),
     .help = "What it reads, then the end of file. Default: nothing. Not in the upgraded form."},
    {.name = NULL},
};

static int check(const struct vf_exec_body *b, bool upgrade, struct vf_error *err)
{
    if (b->argv.v[0][0] == '\0')
        return vf_fail(err, VF_INVALID_ARGUMENT, "argv[0]: must not be empty");
    for (size_t i = 0; i < b->env.n; i++)
        if (strchr(b->env.v[i], '=') == NULL || b->env.v[i][0] == '=')
            return vf_fail(err, VF_INVALID_ARGUMENT, "env[%zu]: must be NAME=value (is \"%.64s\")",
                           i, b->env.v[i]);
    if (b->cwd != NULL && b->cwd[0] != '/')
        return vf_fail(err, VF_INVALID_ARGUMENT, "cwd: must be an absolute path (is \"%.64s\")",
                       b->cwd);
    if (upgrade && b->has_in)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "stdin: an upgraded connection sends it in frames");
    return 0;
}

int vf_api_exec_start(struct vf_http_req *req, struct vf_api *a, const struct vf_exec_body *body,
                      const struct vf_exec_callbacks *cb, void *arg, struct vf_exec **ret)
{
    const struct vf_exec_options o = {.argv = body->argv.v,
                                      .env = body->env.n > 0 ? body->env.v : NULL,
                                      .cwd = body->cwd,
                                      .timeout_ms = body->timeout_ms};
    struct vf_agent *agent;
    struct vf_error err = {0};
    struct vf_slot *vm;
    int r = vf_pools_vm(a->pools, vf_http_param(req, 0), vf_http_caller(req), &vm, &err);

    if (r == 0)
        r = vf_slot_agent(vm, &agent, &err);
    if (r == 0)
        r = vf_exec_start(agent, &o, cb, arg, ret, &err);
    if (r == 0)
        return 0;
    vf_http_reply_error(req, &err, err.code == VF_BUSY ? 1 : 0);
    return -1;
}

/* ---- the plain form */

struct plain {
    struct vf_http_req *req;
    struct vf_exec *exec; /* NULL: it has ended */
    struct vf_exec_queue queue;
    struct vf_exec_text text;
    char *line; /* being sent */
    size_t line_len, line_at;
    char *end; /* the last line; NULL: not yet */
    bool end_sent, waiting, failed;
    char *in; /* stdin */
    size_t in_len, in_at;
    bool in_closed;
};

static void feed(void *arg)
{
    struct plain *p = arg;

    while (p->exec != NULL && p->in_at < p->in_len) {
        ssize_t n = vf_exec_write(p->exec, p->in + p->in_at, p->in_len - p->in_at, NULL);

        if (n <= 0) /* later; or the channel broke, which on_exited hears of */
            return;
        p->in_at += (size_t)n;
    }
    if (p->exec != NULL && !p->in_closed)
        p->in_closed = vf_exec_close_stdin(p->exec, NULL) == 0;
}

static void wake(struct plain *p)
{
    if (p->waiting) {
        p->waiting = false;
        vf_http_stream_more(p->req);
    }
}

static void out_of_memory(struct plain *p)
{
    if (p->exec != NULL)
        vf_exec_abandon(p->exec);
    p->exec = NULL;
    p->failed = true;
}

static void on_output(void *arg, int fd, const void *data, size_t len)
{
    struct plain *p = arg;

    if (vf_exec_queue_put(&p->queue, fd, data, len) < 0)
        out_of_memory(p);
    wake(p);
}

static void on_exited(void *arg, const struct vf_exec_status *status, const struct vf_error *err)
{
    struct plain *p = arg;

    p->exec = NULL;
    p->end = vf_exec_end_text(status, err);
    p->failed |= p->end == NULL;
    wake(p);
}

/* Makes the next line; false: there is none now, or none any more. */
static bool next_line(struct plain *p)
{
    size_t taken = 0;
    int r;

    free(p->line);
    p->line = NULL;
    p->line_at = 0;
    r = vf_exec_text_next(&p->text, &p->queue, p->exec == NULL, &p->line, &p->line_len, &taken);
    if (p->exec != NULL && taken > 0)
        vf_exec_consumed(p->exec, taken);
    if (r < 0)
        out_of_memory(p);
    if (r == 0 && p->end != NULL && !p->end_sent) {
        p->line = p->end;
        p->line_len = strlen(p->end) + 1;
        p->line[p->line_len - 1] = '\n'; /* in the NUL's place */
        p->end = NULL;
        p->end_sent = true;
    }
    return p->line != NULL;
}

/* Without memory the stream just ends: that its last line is missing tells the caller. */
static ssize_t next(void *arg, char *buf, size_t size)
{
    struct plain *p = arg;
    size_t len = 0;

    while (len < size && !p->failed) {
        size_t n;

        if (p->line_at == p->line_len || p->line == NULL) {
            if (!next_line(p))
                break;
        }
        n = p->line_len - p->line_at;
        n = n < size - len ? n : size - len;
        memcpy(buf + len, p->line + p->line_at, n);
        len += n;
        p->line_at += n;
    }
    if (len == 0 && (p->end_sent || p->failed))
        return -1;
    p->waiting = len == 0;
    return (ssize_t)len;
}

static void closed(void *arg)
{
    struct plain *p = arg;

    if (p->exec != NULL)
        vf_exec_abandon(p->exec);
    vf_exec_queue_free(&p->queue);
    free(p->line);
    free(p->end);
    free(p->in);
    free(p);
}

static void plain_exec(struct vf_http_req *req, struct vf_api *a, struct vf_exec_body *body)
{
    static const struct vf_exec_callbacks callbacks = {on_output, feed, on_exited};
    struct plain *p = calloc(1, sizeof(*p));
    struct vf_error err = {0};

    if (p == NULL) {
        vf_fail(&err, VF_NO_MEMORY, "exec");
        vf_http_reply_error(req, &err, 0);
        return;
    }
    p->req = req;
    if (vf_api_exec_start(req, a, body, &callbacks, p, &p->exec) < 0) {
        free(p);
        return;
    }
    p->in = body->in;
    body->in = NULL;
    p->in_len = p->in != NULL ? strlen(p->in) : 0;
    feed(p);
    vf_http_reply_stream(req, 200, "application/x-ndjson",
                         &(struct vf_http_stream){next, closed, p});
}

void vf_api_vms_exec(struct vf_http_req *req, void *arg)
{
    struct vf_api *a = arg;
    struct vf_exec_body body = {0};
    struct vf_error err = {0};
    bool upgrade = vf_http_wants_upgrade(req, VF_EXEC_PROTOCOL);

    if (!vf_api_query(req, NULL) || !vf_api_serving(req, a))
        return;
    if (vf_http_decode(req, body_fields, &body)) {
        if (check(&body, upgrade, &err) < 0)
            vf_http_reply_error(req, &err, 0);
        else if (upgrade)
            vf_api_exec_upgrade(req, a, &body);
        else
            plain_exec(req, a, &body);
    }
    vf_json_free(body_fields, &body);
}

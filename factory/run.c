/* vf_run: a vf_exec whose outputs are collected, with a deadline of the host's own: a guest that does
 * not end its command in time, although it was told to, is not waited for.
 */
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "factory/exec.h"

#define GRACE_MS 5000 /* the guest's own deadline comes first */

struct collected {
    char *data;
    size_t len;
};

struct run {
    struct vf_exec *exec;
    struct collected out, err;
    size_t max;
    bool truncated;
    char *in;
    size_t in_len, in_sent;
    bool in_closed;
    vf_run_cb done;
    void *arg;
    uv_timer_t timer;
};

static void free_run(uv_handle_t *h)
{
    struct run *r = h->data;
    free(r->out.data);
    free(r->err.data);
    free(r->in);
    free(r);
}

static void end(struct run *r, const struct vf_exec_status *st, const struct vf_error *err)
{
    if (!st)
        r->done(r->arg, NULL, err);
    else {
        struct vf_run_result res = {
            .status = *st,
            .out = r->out.data ? r->out.data : "",
            .errout = r->err.data ? r->err.data : "",
            .out_len = r->out.len,
            .err_len = r->err.len,
            .truncated = r->truncated,
        };
        r->done(r->arg, &res, NULL);
    }
    uv_close((uv_handle_t *)&r->timer, free_run);
}

static void on_output(void *arg, int fd, const void *data, size_t len)
{
    struct run *r = arg;
    struct collected *c = fd == 1 ? &r->out : &r->err;
    size_t keep = len < r->max - c->len ? len : r->max - c->len;
    if (keep) {
        char *p = realloc(c->data, c->len + keep + 1);
        if (p) {
            memcpy(p + c->len, data, keep);
            c->data = p;
            c->len += keep;
            p[c->len] = 0;
        } else
            keep = 0;
    }
    if (keep < len)
        r->truncated = true;
    vf_exec_consumed(r->exec, len);
}

static void feed_stdin(void *arg)
{
    struct run *r = arg;
    ssize_t n = 0;
    if (r->in_sent < r->in_len)
        n = vf_exec_write(r->exec, r->in + r->in_sent, r->in_len - r->in_sent, NULL);
    if (n > 0)
        r->in_sent += (size_t)n;
    if (r->in_sent == r->in_len && !r->in_closed)
        r->in_closed = vf_exec_close_stdin(r->exec, NULL) != vf_code_errno(VF_BUSY);
}

static void on_exited(void *arg, const struct vf_exec_status *st, const struct vf_error *err)
{
    end(arg, st, err);
}

static void on_deadline(uv_timer_t *t)
{
    struct run *r = t->data;
    struct vf_error e;
    vf_exec_abandon(r->exec);
    vf_fail(&e, VF_TIMEOUT, "exec: the guest did not end the command within its deadline");
    end(r, NULL, &e);
}

int vf_run(struct vf_agent *a, const struct vf_exec_options *o, const void *in, size_t in_len,
           size_t max_output, vf_run_cb done, void *arg, struct vf_error *err)
{
    static const struct vf_exec_callbacks callbacks = {on_output, feed_stdin, on_exited};
    struct run *r = calloc(1, sizeof(*r));
    if (!r || (in_len && !(r->in = malloc(in_len)))) {
        free(r);
        return vf_fail(err, VF_NO_MEMORY, "exec");
    }
    if (in_len)
        memcpy(r->in, in, in_len);
    r->in_len = in_len;
    r->max = max_output;
    r->done = done;
    r->arg = arg;
    int n = vf_exec_start(a, o, &callbacks, r, &r->exec, err);
    if (n < 0) {
        free(r->in);
        free(r);
        return n;
    }
    uv_timer_init(a->timer.loop, &r->timer);
    r->timer.data = r;
    if (o->timeout_ms > 0)
        vf_timer_at(&r->timer, vf_deadline_after_ms(o->timeout_ms + GRACE_MS), on_deadline);
    feed_stdin(r);
    return 0;
}

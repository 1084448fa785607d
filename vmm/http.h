/* Requests to a VMM's API: HTTP/1.1 with JSON over a unix socket in the VM's directory, on libuv. libcurl's multi
 * interface speaks it; a request that carries descriptors (SCM_RIGHTS, in one message with head and body) goes over a
 * socket of our own, because libcurl can't send them. Each request has a connection of its own: Cloud Hypervisor hangs
 * now and then on reused ones.
 *
 * The VMM is not trusted: answers are bounded (VF_VMM_HTTP_MAX_HEAD, VF_VMM_HTTP_MAX_BODY), must be whole, and have a deadline.
 * What it answers as an error, in whatever form (plain text, a JSON array of strings outermost first, an object with
 * fault_message), becomes one error with the innermost cause.
 */
#ifndef VF_VMM_HTTP_H
#define VF_VMM_HTTP_H

#include <stdint.h>
#include <uv.h>
#include "base/error.h"
#include "base/json.h"

#define VF_VMM_HTTP_MAX_HEAD 16384
#define VF_VMM_HTTP_MAX_BODY (4 << 20)

struct vf_vmm_http; /* the client of one VMM; belongs to one loop */

struct vf_vmm_http_reply {
    int status; /* 200 to 299 */
    const char *body;
    size_t len;                 /* 0: no body */
    const struct vf_json *json; /* the body, if it is JSON; NULL: none */
};
/* Exactly one of reply and err is set; valid during the call. err->code:
 *   VF_VMM_FAILED   the VMM answered with an error; err->msg: "vm.boot: 500: <innermost cause>"
 *   VF_PROTOCOL     it answered with what is no HTTP, or too much
 *   VF_VMM_DIED     it closed the connection without an answer, or nobody listens
 *   VF_TIMEOUT      no whole answer within timeout_ms
 *   VF_CANCELLED    by vf_vmm_http_cancel or vf_vmm_http_close */
typedef void (*vf_vmm_http_cb)(void *arg, const struct vf_vmm_http_reply *reply,
                               const struct vf_error *err);

struct vf_vmm_http_request {
    const char *method;
    const char *path; /* "/api/v1/vm.boot" */
    const char *name; /* for messages; NULL: path */
    const char *body; /* JSON; NULL: none, and no Content-Length either */
    const int *fds;   /* travel with it; stay the caller's */
    int n_fds;
    int64_t timeout_ms; /* <= 0: none but what the caller keeps */
};

/* socket_name: in dirfd, which is duplicated; need not exist yet. Nothing is connected before the first request. */
int vf_vmm_http_open(uv_loop_t *loop, int dirfd, const char *socket_name, struct vf_vmm_http **ret,
                     struct vf_error *err);
/* Any number may be under way. Submit contract as in base/async.h. */
int vf_vmm_http_send(struct vf_vmm_http *h, const struct vf_vmm_http_request *r, vf_vmm_http_cb cb,
                     void *arg, struct vf_error *err);
/* Requests under way end with VF_CANCELLED, before this returns. */
void vf_vmm_http_cancel(struct vf_vmm_http *h);
/* Cancels, and frees h; on_closed comes later, once, never before this returns. NULL: returns false and calls nothing.
 */
bool vf_vmm_http_close(struct vf_vmm_http *h, void (*on_closed)(void *arg), void *arg);

#endif

/* Small helpers for libuv.
 *
 * vf_timer: a one-shot deadline that owns its uv handle. Stop it freely; the memory around it may
 * be freed only in the close callback.
 *
 * Submit contract of every asynchronous function of this project: a negative return means that
 * no callback comes; 0 means exactly one, never before the function has returned.
 */
#ifndef VF_BASE_ASYNC_H
#define VF_BASE_ASYNC_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>
#include "base/error.h"

/* What an asynchronous operation ends with: err is NULL on success, else valid during the call. */
typedef void (*vf_done_cb)(void *arg, const struct vf_error *err);

/* Blocking work in libuv's pool (files, hashing). run: in a worker thread, returns 0 or a negative
 * errno with err filled; done: on the loop. Cancelled work that never ran ends with VF_CANCELLED. */
struct vf_work {
    uv_work_t req;
    int (*run)(struct vf_work *w, struct vf_error *err);
    vf_done_cb done;
    void *arg;
    int status;
    struct vf_error err;
};
int vf_work_submit(uv_loop_t *loop, struct vf_work *w,
                   int (*run)(struct vf_work *w, struct vf_error *err), vf_done_cb done, void *arg);

/* Arms t to call cb at deadline_us (vf_now_us' clock); VF_NEVER stops it. */
void vf_timer_at(uv_timer_t *t, int64_t deadline_us, uv_timer_cb cb);

#endif

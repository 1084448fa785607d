/* The host's end of the agent protocol (base/wire.h) on one VM's channel.
 *
 * The guest is hostile: frames are checked and bounded by the codec; garbage is forgiven only until
 * the first valid answer (it may be the tail of a talk the template was frozen in); frames nobody
 * asked for are counted and end the connection at VF_AGENT_MAX_STRAY (before the first answer, where
 * they may be what commands of the host before have written: VF_AGENT_MAX_OLD). When the connection ends, all
 * that is pending fails with one error and `broken` is called. A channel that was closed is mostly a
 * VMM about to be reaped, whose exit tells more: it is `lost` for a moment before it is broken.
 */
#ifndef VF_FACTORY_AGENT_H
#define VF_FACTORY_AGENT_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>
#include "base/async.h"
#include "base/error.h"
#include "base/wire.h"
#include "factory/agent_link.h"

#define VF_AGENT_MAX_PENDING 8
#define VF_AGENT_MAX_STRAY 64
#define VF_AGENT_MAX_OLD 16384
#define VF_AGENT_MAX_QUEUED (1 << 20)

/* Exactly one of f and err is set. f is valid during the call. */
typedef void (*vf_agent_reply_cb)(void *arg, const struct vf_wire_frame *f,
                                  const struct vf_error *err);

/* A stream (an exec) takes the frames of its id until it is removed. err set: the connection broke; the
 * stream is off the list already. */
struct vf_agent_stream {
    uint32_t id;
    vf_agent_reply_cb on_frame;
    /* A stream that was refused with VF_BUSY sets wants_room: called once when the queue is short again. */
    void (*on_room)(void *arg);
    bool wants_room;
    void *arg;
    struct vf_agent_stream *next;
};

struct vf_agent {
    struct vf_agent_link link;
    uv_timer_t timer;
    int open_handles; /* timer and link; 0: there is nothing to close */
    bool greeted, is_lost, is_broken, closing, lossy, announced;
    struct vf_error lost; /* what is_lost comes to at lost_until_us */
    int64_t lost_until_us;
    vf_done_cb broken;
    void *arg;
    void (*on_closed)(void *arg);
    void *closed_arg;
    uint32_t next_id;
    unsigned stray;
    uint64_t garbage_seen; /* forgiven at the first valid answer */
    size_t queued_bytes;
    struct {
        uint32_t id; /* 0: free */
        uint8_t expect;
        int64_t deadline_us;
        vf_agent_reply_cb done;
        void *arg;
    } pending[VF_AGENT_MAX_PENDING];
    struct vf_agent_stream *streams;
    uint8_t *early; /* waits until the channel is up */
    size_t early_len;
    /* The hello that is not answered yet: repeated on a lossy channel (a UART drops bytes while nobody
     * listens), said anew on each connection of a vsock. */
    uint8_t hello[64];
    size_t hello_len;
    uint32_t hello_id;
    int64_t hello_again_us, redial_us;
    struct vf_wire_reader *reader; /* while a frame is under way */
    uint64_t garbage;              /* bytes that were no valid frame */
};

/* Connects to the VM's channel in dirfd; fails like vf_unix_connect, and has to be closed all the same if
 * open_handles is not 0. lossy: the channel may drop what is sent before the guest listens. A vsock may still
 * be dialled when this returns: what is asked meanwhile waits for it, up to its deadline. */
int vf_agent_open(struct vf_agent *a, uv_loop_t *loop, int dirfd, enum vf_link link, bool lossy,
                  vf_done_cb broken, void *arg, struct vf_error *err);
/* Starts a request of type with a fresh id in w. */
void vf_agent_start(struct vf_agent *a, struct vf_wire_writer *w, enum vf_msg type);
/* Sends w and waits for a frame of its id and of type expect. An ERROR frame becomes VF_GUEST_FAILED. */
int vf_agent_request(struct vf_agent *a, struct vf_wire_writer *w, enum vf_msg expect,
                     int64_t timeout_ms, vf_agent_reply_cb done, void *arg, struct vf_error *err);
/* HELLO, repeated until answered: on a lossy channel, and on each new connection of a vsock. */
int vf_agent_hello(struct vf_agent *a, int64_t timeout_ms, vf_agent_reply_cb done, void *arg,
                   struct vf_error *err);
/* Sends w and waits for nothing: frames of a stream. */
int vf_agent_send(struct vf_agent *a, struct vf_wire_writer *w, struct vf_error *err);
void vf_agent_add_stream(struct vf_agent *a, struct vf_agent_stream *s);
void vf_agent_remove_stream(struct vf_agent *a, struct vf_agent_stream *s);
/* Ends the connection: all that is pending fails with err. */
void vf_agent_break(struct vf_agent *a, const struct vf_error *err);
/* Fails what is pending with VF_CANCELLED, then closes; on_closed comes later, once. */
void vf_agent_close(struct vf_agent *a, void (*on_closed)(void *arg), void *arg);

#endif

/* The bytes below the agent protocol: how a VM's channel is reached (enum vf_link), and dialled again.
 *
 *     SOCKET, FIFOS   open --> UP ----------------------------------------------> closed
 *     VSOCK           open --> DIALLING --"OK n"--> UP ---------------------------> closed
 *                       ^         |                 |
 *                       |         | closed, silent  | closed while the agent may be dialled again
 *                       +-- DOWN <+-----------------+
 *
 * A vsock is refused while no agent listens in the guest, is not answered while the VM is paused, and is cut
 * off by a restore. So it is dialled until it is answered, for as long as somebody wants it: then at
 * once, later with pauses of up to VF_AGENT_REDIAL_MAX_MS; while nobody does it stays DOWN. Whoever waits
 * has a deadline. An answer other than "OK n" is an error.
 */
#ifndef VF_FACTORY_AGENT_LINK_H
#define VF_FACTORY_AGENT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>
#include "base/error.h"
#include "vmm/vmm.h"

#define VF_AGENT_REDIAL_MAX_MS 50
#define VF_AGENT_OK_TIMEOUT_MS 5000 /* for "OK n"; then it is dialled anew */
#define VF_AGENT_OK_MAX 32          /* bytes of that line, with its end */

enum vf_agent_link_state { VF_AGENT_DOWN, VF_AGENT_DIALLING, VF_AGENT_UP };

/* None is called before the function of this file that caused it has returned. */
struct vf_agent_link_ops {
    void (*up)(void *arg); /* of a vsock: now bytes reach the guest's agent */
    void (*input)(void *arg, const uint8_t *data, size_t len);
    void (*down)(void *arg, const struct vf_error *err); /* for good; once */
    bool (*wanted)(void *arg);                           /* somebody waits for it */
    bool (*may_redial)(void *arg); /* that what was UP went down means nothing */
};

struct vf_agent_link {
    uv_loop_t *loop;
    enum vf_link kind;
    enum vf_agent_link_state state;
    uv_pipe_t *in, *out; /* the same, but for FIFOs; NULL: there is none */
    uv_timer_t timer;    /* of a vsock: when it is dialled again */
    int handles;         /* not yet closed */
    bool failed, closing;
    int dirfd; /* of a vsock: where it lies, until vf_agent_link_settle; -1 */
    unsigned tries;
    char line[VF_AGENT_OK_MAX + 1]; /* of its answer so far */
    size_t line_len;
    const struct vf_agent_link_ops *ops;
    void *arg;
    void (*closed)(void *arg);
};

/* Connects to what vmm/vmm.h says lies in dirfd (not kept). Fails like vf_unix_connect; if link->handles is not 0
 * after that it has to be closed all the same. ops and arg stay the caller's. */
int vf_agent_link_open(struct vf_agent_link *l, uv_loop_t *loop, int dirfd, enum vf_link kind,
                       const struct vf_agent_link_ops *ops, void *arg, struct vf_error *err);
/* Somebody wants it from now on: if it is down it is dialled soon. */
void vf_agent_link_want(struct vf_agent_link *l);
/* Gives up the connection there is and dials anew. Of a vsock only. */
void vf_agent_link_redial(struct vf_agent_link *l);
/* It is not dialled again: when what is UP ends, that is its end. */
void vf_agent_link_settle(struct vf_agent_link *l);
/* Reads no more. */
void vf_agent_link_stop(struct vf_agent_link *l);
/* closed comes later, once. */
void vf_agent_link_close(struct vf_agent_link *l, void (*closed)(void *arg));

#endif

/* The API on api.sock: routes and their handlers, on pool/http.h. docs/openapi.yaml describes it; a test holds
 * the two against each other.
 *
 *     request -> route -> arguments and body checked -> pool/pools.h -> JSON
 */
#ifndef VF_POOL_API_H
#define VF_POOL_API_H

#include <uv.h>
#include "base/error.h"
#include "pool/events.h"
#include "pool/http.h"
#include "pool/pools.h"
#include "pool/settings.h"

struct vf_api;
extern const struct vf_http_route vf_api_routes[]; /* ends with method == NULL */

/* Takes over listen_fd (the listening api.sock) on success; the rest stays the caller's and must outlive the API.
 * admin_gid: (gid_t)-1: none. */
int vf_api_open(uv_loop_t *loop, int listen_fd, struct vf_pools *pools, struct vf_events *events,
                const struct vf_settings *settings, gid_t admin_gid, struct vf_api **ret,
                struct vf_error *err);
/* No new connections, and whatever would change something is refused with 503; what is under way goes on. */
void vf_api_quiesce(struct vf_api *a);
/* Ends every connection, kills the commands run over them, then calls done, never before it returns. The pools must be
 * open until then: answers that were not read give their VMs up. */
void vf_api_close(struct vf_api *a, void (*done)(void *arg), void *arg);

#endif

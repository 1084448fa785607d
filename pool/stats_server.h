/* stats.sock: /metrics, /stats and /healthz on a thread of its own, read-only. It shares vf_stats with the
 * loop and nothing else: a stalled loop can't make it silent (it then says so), and a flood of requests does
 * not slow a VM's way. */
#ifndef VF_POOL_STATS_SERVER_H
#define VF_POOL_STATS_SERVER_H

#include "pool/stats.h"

struct vf_stats_server;
/* listen_fd: the listening stats.sock, taken over on success. tcp: "ADDRESS:PORT" or NULL. */
int vf_stats_server_start(struct vf_stats *s, int listen_fd, const char *tcp, int max_connections,
                          struct vf_stats_server **ret, struct vf_error *err);
void vf_stats_server_stop(struct vf_stats_server *srv); /* NULL is fine */

#endif

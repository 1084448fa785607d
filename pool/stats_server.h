/* stats.sock: /metrics, /stats and /healthz on a thread of its own, read-only. It shares vf_stats with the
 * loop and nothing else: a stalled loop can't make it silent (it then says so), and a flood of requests does
 * not slow a VM's way.
 *
 * The text of /metrics and /stats is made at most every 100 ms, and what is younger is sent again. /healthz is
 * always of now: {"live","ready","loop_last_turn_ms"}, 200 if both, else 503; ?live=1 asks for live alone.
 */
#ifndef VF_POOL_STATS_SERVER_H
#define VF_POOL_STATS_SERVER_H

#include <stdint.h>
#include "pool/stats.h"

/* What a daemon leaves as it is: 0 stands for that. */
struct vf_stats_server_limits {
    unsigned idle_timeout_s; /* of a connection: 10 */
    int64_t request_us;      /* from one answer's end to the next one's: 20 s */
    int64_t live_us;         /* the loop turned within that time: 5 s */
};

struct vf_stats_server;
/* listen_fd: the listening stats.sock, taken over on success. tcp: "ADDRESS:PORT" (an IPv4 address, or an
 * IPv6 one in brackets; port 0: any) or NULL. max_connections: of each of the two. */
int vf_stats_server_start(struct vf_stats *s, int listen_fd, const char *tcp, int max_connections,
                          struct vf_stats_server **ret, struct vf_error *err);
int vf_stats_server_start_limited(struct vf_stats *s, int listen_fd, const char *tcp,
                                  int max_connections, const struct vf_stats_server_limits *limits,
                                  struct vf_stats_server **ret, struct vf_error *err);
/* The TCP listener's; 0 without one. */
uint16_t vf_stats_server_port(const struct vf_stats_server *srv);
void vf_stats_server_stop(struct vf_stats_server *srv); /* NULL is fine */

#endif

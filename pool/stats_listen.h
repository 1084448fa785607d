/* The stats server's TCP listener. */
#ifndef VF_POOL_STATS_LISTEN_H
#define VF_POOL_STATS_LISTEN_H

#include <stdint.h>
#include "base/error.h"

/* Listens on "127.0.0.1:9464" or "[::1]:9464"; port 0: any. No names: looking one up could block, and could
 * listen where nobody meant to. The socket is non-blocking. */
int vf_stats_listen_tcp(const char *where, int *ret_fd, uint16_t *ret_port, struct vf_error *err);

#endif

/* The run directory: its lock, and the two listening sockets in it or handed over by systemd.
 *
 *     RUN/lock         flock: one daemon at a time; holds its pid
 *     RUN/api.sock     0660 and the group of the settings, or 0600 without one
 *     RUN/stats.sock   likewise
 *
 * Sockets that a killed daemon left are removed by whoever holds the lock, and by nobody else.
 */
#ifndef VF_VMFACTORYD_SOCKETS_H
#define VF_VMFACTORYD_SOCKETS_H

#include <stdbool.h>
#include <sys/types.h>
#include "base/error.h"
#include "pool/settings.h"

enum { SOCKET_API, SOCKET_STATS, SOCKET_COUNT };

struct sockets {
    int dirfd, lock_fd;
    struct {
        int fd;   /* listening; -1 once it was handed on */
        bool own; /* made here, and removed here */
    } sockets[SOCKET_COUNT];
};

/* VF_CONFLICT: another daemon uses the run directory. On failure there is nothing to close. */
int sockets_open(const struct vf_settings *s, struct sockets *ret, struct vf_error *err);
/* Removes the names of our own sockets and lets go of the lock. */
void sockets_close(struct sockets *s);
/* The group's id by the settings' name; (gid_t)-1 for NULL. */
int find_group(const char *name, gid_t *ret_gid, struct vf_error *err);

#endif

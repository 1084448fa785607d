/* Scope-bound resources, and files written so that a crash leaves the old or the new one.
 *
 * _cleanup_ attributes are for descriptors and strings within one function; vf_steal_* hands one
 * over. They are never for libuv handles. Every descriptor made here has O_CLOEXEC. */
#ifndef VF_BASE_FD_H
#define VF_BASE_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include "base/error.h"

/* Closes *fd if >= 0 and sets it to -1; keeps errno; EINTR from close is success (Linux). */
void vf_close_fd(int *fd);
static inline void vf_free_str(char **s)
{
    free(*s);
    *s = NULL;
}
/* Closes those that are >= 0, at most 16, in a thread of its own, and sets them to -1: for what may keep its closer waiting,
 * like a tap or what a stranger sent. Without a thread they are closed here. */
void vf_close_beside(int *fds, int n);
int vf_closing_beside(void); /* such threads that have not ended */
#define VF_CLEANUP_FD __attribute__((cleanup(vf_close_fd)))
#define VF_CLEANUP_FREE __attribute__((cleanup(vf_free_str)))

static inline int vf_steal_fd(int *fd)
{
    int v = *fd;
    *fd = -1;
    return v;
}
static inline char *vf_steal_str(char **s)
{
    char *v = *s;
    *s = NULL;
    return v;
}

/* open(2) of a directory for reading, O_CLOEXEC; with make != 0 creates it and its parents (mode). */
int vf_open_dir(const char *path, int make, mode_t mode, int *ret_fd, struct vf_error *err);
/* Writes all bytes; short writes and EINTR handled. what: for the message. */
int vf_write_all(int fd, const void *data, size_t len, const char *what, struct vf_error *err);
/* Replaces dirfd/name by data: temporary file in the same directory, fsync, rename, fsync of the
 * directory. On failure the old file stays and the temporary one is gone; only when that last fsync
 * fails is the new one in place and reported all the same. A crash can leave the temporary file: its
 * name begins with VF_TMP_PREFIX. The mode is exact, whatever the umask. */
#define VF_TMP_PREFIX ".vf-tmp-"
int vf_write_file(int dirfd, const char *name, const void *data, size_t len, mode_t mode,
                  struct vf_error *err);
/* Reads a whole regular file of at most max bytes; NUL-terminates (not counted in *ret_len). Refuses
 * symlinks, non-regular files and longer ones. Caller frees *ret_data. */
int vf_read_file(int dirfd, const char *name, size_t max, char **ret_data, size_t *ret_len,
                 struct vf_error *err);
/* Copies from_dirfd/from to the new file to_dirfd/to, sharing blocks where the file system can; holes stay holes. A
 * failure leaves nothing. */
int vf_copy_file(int from_dirfd, const char *from, int to_dirfd, const char *to, mode_t mode,
                 struct vf_error *err);
/* The same, but go_on(arg) is asked before each VF_COPY_CHUNK at the latest: false ends it with VF_CANCELLED. Where
 * blocks are shared nothing is asked. */
#define VF_COPY_CHUNK ((size_t)16 << 20)
int vf_copy_file_while(int from_dirfd, const char *from, int to_dirfd, const char *to, mode_t mode,
                       bool (*go_on)(void *arg), void *arg, struct vf_error *err);
struct vf_names {
    char **v;
    size_t n;
};
/* All entries of dirfd but "." and "..", sorted. */
int vf_dir_names(int dirfd, struct vf_names *ret_names, struct vf_error *err);
void vf_names_free(struct vf_names *names);
/* Removes dirfd/name and all below it; never follows symlinks nor enters what is mounted there; a
 * missing one is success. Refuses a name that ends in ".", ".." or a slash. */
int vf_remove_tree(int dirfd, const char *name, struct vf_error *err);
/* Opens path for reading and checks that it is a regular, non-empty file; errors name field, the
 * path and what it is instead (a directory, missing, unreadable, a symlink loop). */
int vf_open_regular(const char *path, const char *field, int *ret_fd, struct vf_error *err);

/* Locks fd's file for this process alone, for as long as fd is open, and writes its pid into it. -EWOULDBLOCK: another
 * has it, *ret_holder is its pid (0: it does not say). One that has ended has its lock for a moment if it was killed
 * as it started a process: that is waited for, at most 5 s. */
int vf_lock_file(int fd, int64_t *ret_holder);

/* A unix socket bound to dirfd/name (mode 0600), listening. The path is reached through
 * /proc/self/fd, so the length of the directory's own path does not matter (sun_path holds 108
 * bytes). Replaces nothing: an existing name is -EADDRINUSE. Non-blocking. Like vf_unix_connect it
 * returns the system call's own errno, not that of err's code. */
int vf_unix_listen(int dirfd, const char *name, int backlog, int *ret_fd, struct vf_error *err);
/* Starts a non-blocking connect to dirfd/name, likewise. A unix socket connects at once or fails:
 * -ENOENT, -ECONNREFUSED (nobody listens), -EAGAIN (the backlog is full). */
int vf_unix_connect(int dirfd, const char *name, int *ret_fd, struct vf_error *err);

#endif

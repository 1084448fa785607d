/* SHA-256 while data pass by, and of files that seldom change. */
#ifndef VF_TEMPLATES_DIGEST_H
#define VF_TEMPLATES_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/hash.h"

/* A running digest. A failure (only without memory) sticks until vf_digest_finish tells. */
struct vf_digest {
    void *ctx;
    bool failed;
};
void vf_digest_start(struct vf_digest *d);
void vf_digest_data(struct vf_digest *d, const void *data, size_t len);
void vf_digest_zeros(struct vf_digest *d, uint64_t len);
/* What it would end with now; it goes on. */
int vf_digest_peek(const struct vf_digest *d, char ret_hex[VF_SHA256_HEX], struct vf_error *err);
/* Ends and frees it. ret_hex NULL: only that. */
int vf_digest_finish(struct vf_digest *d, char ret_hex[VF_SHA256_HEX], struct vf_error *err);

/* What tells a file from another, and from itself after a change, without reading it. */
struct vf_stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    int64_t mtime_ns;
};
void vf_stamp_of(const struct stat *st, struct vf_stamp *ret_stamp);
bool vf_stamp_equal(const struct vf_stamp *a, const struct vf_stamp *b);

/* Size, digest and stamp of the open regular file fd. The digest of a file that has the same
 * device, inode, size, mtime and ctime as one hashed before in this process is not computed
 * again. what: for messages. Blocking, thread-safe. */
int vf_digest_fd(int fd, const char *what, int64_t *ret_size, char ret_hex[VF_SHA256_HEX],
                 struct vf_stamp *ret_stamp, struct vf_error *err);
/* The same by path, which must be a regular file; field: what the path is, for messages. */
int vf_digest_path(const char *path, const char *field, int64_t *ret_size,
                   char ret_hex[VF_SHA256_HEX], struct vf_stamp *ret_stamp, struct vf_error *err);
/* How many files were really read by the two above so far. */
uint64_t vf_digest_reads(void);

#endif

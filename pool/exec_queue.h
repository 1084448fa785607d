/* A command's output on its way to a client: records of stdout and stderr in the order they came.
 *
 * Its size is bounded by the one who fills it (the windows of factory/exec.h); pieces of one stream that
 * follow each other become one record, so that tiny ones do not cost more than they carry, or nearly.
 */
#ifndef VF_POOL_EXEC_QUEUE_H
#define VF_POOL_EXEC_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vf_exec_queue { /* zeroed to begin with */
    uint8_t *buf;
    size_t cap, head, tail;
    size_t last; /* where the newest record begins, if head < tail */
};
/* fd: 1 or 2; len 0: the end of that stream. 0 or -ENOMEM; then nothing was taken. */
int vf_exec_queue_put(struct vf_exec_queue *q, int fd, const void *data, size_t len);
/* The oldest record, at most 65535 bytes; false: none. */
bool vf_exec_queue_peek(const struct vf_exec_queue *q, int *ret_fd, const uint8_t **ret_data,
                        size_t *ret_len);
/* Takes n bytes off the oldest record, n being all of it if it is empty (an end). */
void vf_exec_queue_take(struct vf_exec_queue *q, size_t n);
void vf_exec_queue_free(struct vf_exec_queue *q);

#endif

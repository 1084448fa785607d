/* See exec_queue.h. One buffer: a record is its stream (1 byte), its length (3 bytes) and its bytes; what was
 * taken off the front is made use of again when the end is reached. */
#include "pool/exec_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEAD 4
#define MAX_RECORD 65535
#define KEEP 65536 /* of an empty queue's buffer */

static size_t record_len(const uint8_t *r)
{
    return (size_t)r[1] << 16 | (size_t)r[2] << 8 | r[3];
}

static void set_record(uint8_t *r, int fd, size_t len)
{
    r[0] = (uint8_t)fd;
    r[1] = (uint8_t)(len >> 16);
    r[2] = (uint8_t)(len >> 8);
    r[3] = (uint8_t)len;
}

/* Room for n more bytes behind tail. */
static int make_room(struct vf_exec_queue *q, size_t n)
{
    size_t used = q->tail - q->head, cap = q->cap == 0 ? 4096 : q->cap;
    uint8_t *bigger;

    if (q->cap - q->tail >= n)
        return 0;
    while (cap < 2 * (used + n)) /* twice, so that moving is rare */
        cap *= 2;
    if (cap > q->cap) {
        bigger = malloc(cap);
        if (bigger == NULL)
            return -ENOMEM;
        if (used > 0)
            memcpy(bigger, q->buf + q->head, used);
        free(q->buf);
        q->buf = bigger;
        q->cap = cap;
    } else {
        memmove(q->buf, q->buf + q->head, used);
    }
    q->last -= used > 0 ? q->head : q->last;
    q->head = 0;
    q->tail = used;
    return 0;
}

static void append(struct vf_exec_queue *q, int fd, const void *data, size_t len)
{
    q->last = q->tail;
    set_record(q->buf + q->tail, fd, len);
    if (len > 0)
        memcpy(q->buf + q->tail + HEAD, data, len);
    q->tail += HEAD + len;
}

int vf_exec_queue_put(struct vf_exec_queue *q, int fd, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint8_t *last;

    if (make_room(q, len + HEAD * (len / MAX_RECORD + 2)) < 0)
        return -ENOMEM;
    last = q->head < q->tail ? q->buf + q->last : NULL;
    if (last != NULL && last[0] == fd && len > 0 && record_len(last) > 0) {
        size_t n = MAX_RECORD - record_len(last);

        n = n < len ? n : len;
        memcpy(q->buf + q->tail, p, n);
        set_record(last, fd, record_len(last) + n);
        q->tail += n;
        p += n;
        len -= n;
        if (len == 0)
            return 0;
    }
    do {
        size_t n = len < MAX_RECORD ? len : MAX_RECORD;

        append(q, fd, p, n);
        p = n > 0 ? p + n : p;
        len -= n;
    } while (len > 0);
    return 0;
}

bool vf_exec_queue_peek(const struct vf_exec_queue *q, int *ret_fd, const uint8_t **ret_data,
                        size_t *ret_len)
{
    if (q->head == q->tail)
        return false;
    *ret_fd = q->buf[q->head];
    *ret_len = record_len(q->buf + q->head);
    *ret_data = q->buf + q->head + HEAD;
    return true;
}

void vf_exec_queue_take(struct vf_exec_queue *q, size_t n)
{
    uint8_t *r = q->buf + q->head;
    size_t len = record_len(r);

    if (n >= len) {
        q->head += HEAD + len;
    } else {
        /* The header moves up to the bytes that are left; at least one byte was taken. */
        int fd = r[0];

        if (n == 0)
            return;
        q->last = q->last == q->head ? q->head + n : q->last;
        q->head += n;
        set_record(r + n, fd, len - n);
    }
    if (q->head == q->tail) {
        q->head = q->tail = 0;
        if (q->cap > KEEP)
            vf_exec_queue_free(q);
    }
}

void vf_exec_queue_free(struct vf_exec_queue *q)
{
    free(q->buf);
    *q = (struct vf_exec_queue){0};
}

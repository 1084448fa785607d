/* The frames of vmfactory-exec: 1 byte type, 3 bytes zero, 4 bytes length (big endian), payload. Not for others. */
#ifndef VF_CLIENT_FRAMES_H
#define VF_CLIENT_FRAMES_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

#define VF_FRAME_HEADER 8
#define VF_FRAME_MAX 65536 /* payload */

enum vf_frame_type {
    VF_FRAME_STDIN = 0, /* client: length 0 is its end */
    VF_FRAME_STDOUT = 1,
    VF_FRAME_STDERR = 2,
    VF_FRAME_EXIT = 3,  /* server, the last one: JSON */
    VF_FRAME_SIGNAL = 4 /* client: 4 bytes, a signal's number, big endian */
};

/* Writes the VF_FRAME_HEADER bytes before a payload. */
void vf_frame_header(uint8_t *ret, enum vf_frame_type type, uint32_t len);
/* The server's frame at the start of data: 1 with *ret_type and *ret_len of the payload, which may not be there yet;
 * 0: more is needed; negative: no frame. */
int vf_frame_parse(const void *data, size_t len, enum vf_frame_type *ret_type, uint32_t *ret_len,
                   struct vf_error *err);

#endif

/* Frames of an upgraded exec connection, both ways:
 *
 *     1 byte type, 3 bytes zero, 4 bytes length (big endian), then the payload, at most 64 KiB
 *
 *     client -> server   0 stdin (length 0: its end), 4 signal (4 bytes, big endian)
 *     server -> client   1 stdout, 2 stderr (length 0: its end), 3 exit (JSON), the last
 *
 * Pure: bytes in, bytes out. The decoder keeps no payload, so a client that sends slowly holds no memory.
 */
#ifndef VF_POOL_EXEC_FRAMES_H
#define VF_POOL_EXEC_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/error.h"

#define VF_EXEC_PROTOCOL "vmfactory-exec"
#define VF_EXEC_FRAME_HEADER 8
#define VF_EXEC_FRAME_MAX 65536

enum vf_exec_frame {
    VF_EXEC_STDIN = 0,
    VF_EXEC_STDOUT = 1,
    VF_EXEC_STDERR = 2,
    VF_EXEC_EXIT = 3,
    VF_EXEC_SIGNAL = 4
};

/* len: at most VF_EXEC_FRAME_MAX. */
void vf_exec_frame_header(uint8_t ret[VF_EXEC_FRAME_HEADER], enum vf_exec_frame type, size_t len);

/* What a client sends. Zeroed to begin with. */
struct vf_exec_decoder {
    uint8_t head[VF_EXEC_FRAME_HEADER + 4]; /* a signal's payload is collected behind its header */
    size_t have;                            /* bytes of head */
    size_t left;                            /* of a stdin frame's payload */
    bool ended;                             /* stdin's end was seen */
};
enum vf_exec_said {
    VF_EXEC_SAID_NOTHING,
    VF_EXEC_SAID_STDIN,
    VF_EXEC_SAID_END,
    VF_EXEC_SAID_SIGNAL
};
struct vf_exec_piece {
    enum vf_exec_said what;
    const uint8_t *data; /* of stdin, within the input */
    size_t len;
    int signal; /* 1..64 */
};
/* Decodes up to one piece; returns how many bytes of the input are done with. *ret says nothing when all of them were
 * used up before a piece was whole. VF_PROTOCOL: not such a frame; the connection is of no more use. */
ssize_t vf_exec_decode(struct vf_exec_decoder *d, const uint8_t *data, size_t len,
                       struct vf_exec_piece *ret, struct vf_error *err);

#endif

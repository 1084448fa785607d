/* See exec_frames.h. A header is collected byte by byte if need be and checked once it is whole; stdin is passed
 * on as it comes. */
#include "pool/exec_frames.h"

#include <string.h>

#define MAX_SIGNAL 64

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void vf_exec_frame_header(uint8_t ret[VF_EXEC_FRAME_HEADER], enum vf_exec_frame type, size_t len)
{
    memset(ret, 0, VF_EXEC_FRAME_HEADER);
    ret[0] = (uint8_t)type;
    for (int i = 0; i < 4; i++)
        ret[4 + i] = (uint8_t)(len >> (24 - 8 * i));
}

static int check_header(const struct vf_exec_decoder *d, uint32_t len, struct vf_error *err)
{
    const uint8_t *h = d->head;

    if (h[0] != VF_EXEC_STDIN && h[0] != VF_EXEC_SIGNAL)
        return vf_fail(err, VF_PROTOCOL, "frame: type %u is not one that a client sends", h[0]);
    if (h[1] != 0 || h[2] != 0 || h[3] != 0)
        return vf_fail(err, VF_PROTOCOL, "frame: bytes 1 to 3 of the header must be zero");
    if (len > VF_EXEC_FRAME_MAX)
        return vf_fail(err, VF_PROTOCOL, "frame: %u bytes, at most %d are allowed", len,
                       VF_EXEC_FRAME_MAX);
    if (h[0] == VF_EXEC_SIGNAL && len != 4)
        return vf_fail(err, VF_PROTOCOL, "frame: a signal has 4 bytes (has %u)", len);
    if (h[0] == VF_EXEC_STDIN && d->ended)
        return vf_fail(err, VF_PROTOCOL, "frame: stdin after its end");
    return 0;
}

/* Takes header bytes up to `whole`; false: not yet that many. */
static bool collect(struct vf_exec_decoder *d, size_t whole, const uint8_t *data, size_t len,
                    size_t *used)
{
    size_t n = whole - d->have < len - *used ? whole - d->have : len - *used;

    memcpy(d->head + d->have, data + *used, n);
    d->have += n;
    *used += n;
    return d->have == whole;
}

static int take_signal(struct vf_exec_decoder *d, struct vf_exec_piece *ret, struct vf_error *err)
{
    uint32_t number = big_endian(d->head + VF_EXEC_FRAME_HEADER);

    if (number < 1 || number > MAX_SIGNAL)
        return vf_fail(err, VF_PROTOCOL, "frame: signal %u, must be 1 to %d", number, MAX_SIGNAL);
    d->have = 0;
    *ret = (struct vf_exec_piece){.what = VF_EXEC_SAID_SIGNAL, .signal = (int)number};
    return 0;
}

ssize_t vf_exec_decode(struct vf_exec_decoder *d, const uint8_t *data, size_t len,
                       struct vf_exec_piece *ret, struct vf_error *err)
{
    size_t used = 0;
    uint32_t length;
    int r;

    *ret = (struct vf_exec_piece){.what = VF_EXEC_SAID_NOTHING};
    if (d->left == 0 && d->have < VF_EXEC_FRAME_HEADER) {
        if (!collect(d, VF_EXEC_FRAME_HEADER, data, len, &used))
            return (ssize_t)used;
        length = big_endian(d->head + 4);
        r = check_header(d, length, err);
        if (r < 0)
            return r;
        if (d->head[0] == VF_EXEC_STDIN) {
            d->have = 0;
            d->left = length;
            if (length == 0) {
                d->ended = true;
                ret->what = VF_EXEC_SAID_END;
                return (ssize_t)used;
            }
        }
    }
    if (d->left == 0) {
        if (!collect(d, sizeof(d->head), data, len, &used))
            return (ssize_t)used;
        r = take_signal(d, ret, err);
        return r < 0 ? r : (ssize_t)used;
    }
    if (used < len) {
        size_t n = d->left < len - used ? d->left : len - used;

        *ret = (struct vf_exec_piece){.what = VF_EXEC_SAID_STDIN, .data = data + used, .len = n};
        d->left -= n;
        used += n;
    }
    return (ssize_t)used;
}

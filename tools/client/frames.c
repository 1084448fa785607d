/* See frames.h. */
#include "tools/client/frames.h"

void vf_frame_header(uint8_t *ret, enum vf_frame_type type, uint32_t len)
{
    ret[0] = (uint8_t)type;
    ret[1] = ret[2] = ret[3] = 0;
    for (int i = 0; i < 4; i++)
        ret[4 + i] = (uint8_t)(len >> (24 - 8 * i));
}

int vf_frame_parse(const void *data, size_t len, enum vf_frame_type *ret_type, uint32_t *ret_len,
                   struct vf_error *err)
{
    const uint8_t *p = data;
    uint32_t n;

    if (len < VF_FRAME_HEADER)
        return 0;
    n = (uint32_t)p[4] << 24 | (uint32_t)p[5] << 16 | (uint32_t)p[6] << 8 | p[7];
    if (p[0] < VF_FRAME_STDOUT || p[0] > VF_FRAME_EXIT || p[1] != 0 || p[2] != 0 || p[3] != 0 ||
        n > VF_FRAME_MAX)
        return vf_fail(err, VF_PROTOCOL, "what the daemon sent is no frame of vmfactory-exec");
    *ret_type = (enum vf_frame_type)p[0];
    *ret_len = n;
    return 1;
}

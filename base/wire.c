/* The codec of the agent protocol (base/wire.h says what is on the wire).
 *
 * Happy path: a writer collects header and records raw, vf_wire_end adds the CRC and encodes; a
 * reader collects bytes up to a zero, decodes them in place and hands out the frame.
 *
 * What fails on the way: a frame that is too long is skipped up to its zero byte without being
 * kept; one that does not decode, has another version, a wrong length or a wrong CRC is dropped.
 * Both only count in reader->garbage: the next zero byte starts afresh, so no input can get the
 * reader stuck. Records are checked when they are walked, not before.
 */
#include "base/wire.h"

/* CRC tables are linear (T[a ^ b] = T[a] ^ T[b]), so eight entries give all 256. */
#define CRC_BIT(i, bit, value) ((i) & (bit) ? (value) : 0u)
#define CRC_1(i)                                                                              \
    (CRC_BIT(i, 1, 0x77073096u) ^ CRC_BIT(i, 2, 0xee0e612cu) ^ CRC_BIT(i, 4, 0x076dc419u) ^   \
     CRC_BIT(i, 8, 0x0edb8832u) ^ CRC_BIT(i, 16, 0x1db71064u) ^ CRC_BIT(i, 32, 0x3b6e20c8u) ^ \
     CRC_BIT(i, 64, 0x76dc4190u) ^ CRC_BIT(i, 128, 0xedb88320u))
#define CRC_4(i) CRC_1(i), CRC_1((i) + 1), CRC_1((i) + 2), CRC_1((i) + 3)
#define CRC_16(i) CRC_4(i), CRC_4((i) + 4), CRC_4((i) + 8), CRC_4((i) + 12)
#define CRC_64(i) CRC_16(i), CRC_16((i) + 16), CRC_16((i) + 32), CRC_16((i) + 48)

static const uint32_t crc_table[256] = {CRC_64(0), CRC_64(64), CRC_64(128), CRC_64(192)};

uint32_t vf_crc32(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint32_t crc = 0xffffffffu;

    for (const uint8_t *end = p + len; p != end; p++)
        crc = crc_table[(crc ^ *p) & 0xff] ^ crc >> 8;
    return ~crc;
}

static void store16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void store32(uint8_t *p, uint32_t v)
{
    store16(p, (uint16_t)v);
    store16(p + 2, (uint16_t)(v >> 16));
}

static uint16_t load16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

uint32_t vf_wire_u32(const uint8_t *p)
{
    return load16(p) | (uint32_t)load16(p + 2) << 16;
}

int64_t vf_wire_i64(const uint8_t *p)
{
    return (int64_t)(vf_wire_u32(p) | (uint64_t)vf_wire_u32(p + 4) << 32);
}

/* --- COBS: each block is a code byte and code-1 bytes that are not zero; a code below 0xff stands
 * for a zero after them, except at the very end. */

static size_t cobs_encode(const uint8_t *raw, size_t len, uint8_t *out)
{
    uint8_t *code = out, *p = out + 1;

    for (const uint8_t *end = raw + len; raw != end; raw++) {
        /* A full block is closed only once more follows, so none that is empty comes last. */
        if (p - code == 255) {
            *code = 255;
            code = p++;
        }
        if (*raw != 0) {
            *p++ = *raw;
        } else {
            *code = (uint8_t)(p - code);
            code = p++;
        }
    }
    *code = (uint8_t)(p - code);
    return (size_t)(p - out);
}

/* In place: what is written never overtakes what is read. Returns 0 if the codes point past the
 * end. buf holds no zero byte. */
static size_t cobs_decode(uint8_t *buf, size_t len)
{
    const uint8_t *p = buf, *end = buf + len;
    uint8_t *out = buf;

    while (p < end) {
        size_t n = (size_t)*p++ - 1;
        int zero = n < 254;
        if (n > (size_t)(end - p))
            return 0;
        __builtin_memmove(out, p, n);
        out += n;
        p += n;
        if (zero && p < end)
            *out++ = 0;
    }
    return (size_t)(out - buf);
}

/* --- writing */

void vf_wire_start(struct vf_wire_writer *w, uint8_t type, uint32_t id)
{
    w->raw[0] = VF_WIRE_VERSION;
    w->raw[1] = type;
    store32(w->raw + 4, id);
    w->len = VF_WIRE_HEADER;
    w->failed = 0;
}

void vf_wire_put(struct vf_wire_writer *w, uint16_t tag, const void *data, size_t len)
{
    size_t room = VF_WIRE_HEADER + VF_WIRE_MAX_BODY - w->len;

    if (w->failed || room < 4 || len > room - 4) {
        w->failed = 1;
        return;
    }
    store16(w->raw + w->len, tag);
    store16(w->raw + w->len + 2, (uint16_t)len);
    if (len > 0)
        __builtin_memcpy(w->raw + w->len + 4, data, len);
    w->len += 4 + len;
}

void vf_wire_put_u32(struct vf_wire_writer *w, uint16_t tag, uint32_t v)
{
    uint8_t b[4];

    store32(b, v);
    vf_wire_put(w, tag, b, sizeof(b));
}

void vf_wire_put_i64(struct vf_wire_writer *w, uint16_t tag, int64_t v)
{
    uint8_t b[8];

    store32(b, (uint32_t)v);
    store32(b + 4, (uint32_t)((uint64_t)v >> 32));
    vf_wire_put(w, tag, b, sizeof(b));
}

size_t vf_wire_end(struct vf_wire_writer *w, uint8_t *out)
{
    if (w->failed)
        return 0;
    store16(w->raw + 2, (uint16_t)(w->len - VF_WIRE_HEADER));
    store32(w->raw + w->len, vf_crc32(w->raw, w->len));
    size_t n = cobs_encode(w->raw, w->len + 4, out);
    out[n++] = 0;
    return n;
}

/* --- reading */

void vf_wire_reset(struct vf_wire_reader *r)
{
    r->len = 0;
    r->overrun = 0;
    r->garbage = 0;
}

/* Decodes and checks what the reader holds. Returns 0 if it is no frame. */
static int open_frame(struct vf_wire_reader *r, struct vf_wire_frame *ret_frame)
{
    size_t len = cobs_decode(r->buf, r->len);

    if (len < VF_WIRE_HEADER + 4 || r->buf[0] != VF_WIRE_VERSION || r->buf[1] == 0)
        return 0;
    size_t body_len = load16(r->buf + 2);
    if (body_len > VF_WIRE_MAX_BODY || len != VF_WIRE_HEADER + body_len + 4)
        return 0;
    if (vf_wire_u32(r->buf + len - 4) != vf_crc32(r->buf, len - 4))
        return 0;
    ret_frame->type = r->buf[1];
    ret_frame->id = vf_wire_u32(r->buf + 4);
    ret_frame->body = r->buf + VF_WIRE_HEADER;
    ret_frame->body_len = body_len;
    return 1;
}

/* Keeps the bytes of a frame in progress, or counts them if it has grown too long. */
static void keep(struct vf_wire_reader *r, const uint8_t *data, size_t len)
{
    if (!r->overrun && len > VF_WIRE_MAX_FRAME - 1 - r->len) {
        r->overrun = 1;
        r->garbage += r->len;
        r->len = 0;
    }
    if (r->overrun) {
        r->garbage += len;
        return;
    }
    if (len > 0)
        __builtin_memcpy(r->buf + r->len, data, len);
    r->len += len;
}

size_t vf_wire_feed(struct vf_wire_reader *r, const uint8_t *data, size_t len,
                    struct vf_wire_frame *ret_frame)
{
    const uint8_t *p = data, *end = data + len;

    ret_frame->type = 0;
    while (p < end) {
        const uint8_t *start = p;
        while (p < end && *p != 0)
            p++;
        keep(r, start, (size_t)(p - start));
        if (p == end)
            break;
        p++;
        int whole = !r->overrun && r->len > 0 && open_frame(r, ret_frame);
        if (!whole)
            r->garbage += r->len;
        r->len = 0;
        r->overrun = 0;
        if (whole)
            break;
    }
    return (size_t)(p - data);
}

int vf_wire_next(const struct vf_wire_frame *f, size_t *pos, uint16_t *ret_tag,
                 const uint8_t **ret_data, size_t *ret_len)
{
    size_t rest = *pos <= f->body_len ? f->body_len - *pos : 0;

    if (rest == 0)
        return 0;
    if (rest < 4)
        return -1;
    const uint8_t *p = f->body + *pos;
    size_t len = load16(p + 2);
    if (len > rest - 4)
        return -1;
    *ret_tag = load16(p);
    *ret_data = p + 4;
    *ret_len = len;
    *pos += 4 + len;
    return 1;
}

const uint8_t *vf_wire_find(const struct vf_wire_frame *f, uint16_t tag, size_t *ret_len)
{
    size_t pos = 0, len;
    uint16_t t;
    const uint8_t *data;

    while (vf_wire_next(f, &pos, &t, &data, &len) > 0) {
        if (t != tag)
            continue;
        if (ret_len)
            *ret_len = len;
        return data;
    }
    return NULL;
}

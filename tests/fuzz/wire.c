/* Frames of the agent protocol, fed in pieces whose length the first byte says. The pieces make no difference, and a
 * frame that was taken is the same when it is written and read again. */
#include "base/wire.h"
#include "fuzz.h"

#define MAX_FRAMES 4096

struct seen {
    size_t n;
    uint64_t garbage;
    uint32_t sums[MAX_FRAMES];
};

static void again(const struct vf_wire_frame *f)
{
    static struct vf_wire_writer w;
    static struct vf_wire_reader r;
    static uint8_t out[VF_WIRE_MAX_FRAME];
    struct vf_wire_frame copy;
    const uint8_t *p;
    size_t pos = 0, len, n;
    uint16_t tag;
    int more;

    vf_wire_start(&w, f->type, f->id);
    while ((more = vf_wire_next(f, &pos, &tag, &p, &len)) > 0) {
        FUZZ_CHECK(p >= f->body && p + len <= f->body + f->body_len);
        vf_wire_put(&w, tag, p, len);
    }
    if (more < 0)
        return;
    n = vf_wire_end(&w, out);
    FUZZ_CHECK(n > 0 && n <= sizeof(out));
    FUZZ_CHECK(memchr(out, 0, n) == out + n - 1);
    vf_wire_reset(&r);
    FUZZ_CHECK(vf_wire_feed(&r, out, n, &copy) == n);
    FUZZ_CHECK(copy.type == f->type && copy.id == f->id && copy.body_len == f->body_len);
    FUZZ_CHECK(memcmp(copy.body, f->body, f->body_len) == 0);
}

static void feed(const uint8_t *data, size_t size, size_t step, struct seen *seen)
{
    static struct vf_wire_reader r;
    struct vf_wire_frame f;

    vf_wire_reset(&r);
    seen->n = 0;
    for (size_t pos = 0; pos < size;) {
        size_t n = size - pos < step ? size - pos : step;
        size_t took = vf_wire_feed(&r, data + pos, n, &f);

        FUZZ_CHECK(took > 0 && took <= n);
        pos += took;
        if (f.type == 0 || seen->n == MAX_FRAMES)
            continue;
        seen->sums[seen->n++] = vf_crc32(f.body, f.body_len) ^ f.id ^ f.type;
        again(&f);
    }
    seen->garbage = r.garbage;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct seen whole, pieces;

    if (size == 0)
        return 0;
    feed(data + 1, size - 1, size, &whole);
    feed(data + 1, size - 1, (size_t)data[0] + 1, &pieces);
    FUZZ_CHECK(whole.n == pieces.n && whole.garbage == pieces.garbage);
    FUZZ_CHECK(memcmp(whole.sums, pieces.sums, whole.n * sizeof(whole.sums[0])) == 0);
    return 0;
}

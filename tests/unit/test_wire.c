/* The agent protocol's codec against good, cut, broken and hostile input. */
#include <criterion/criterion.h>
#include <string.h>
#include "base/wire.h"

static struct vf_wire_writer writer;
static struct vf_wire_reader reader;
static uint8_t encoded[VF_WIRE_MAX_FRAME + 16];
static uint8_t stream[3 * VF_WIRE_MAX_FRAME];

/* A fixed generator (xorshift), so that a failure can be repeated. */
static uint32_t seed = 2463534242u;
static uint32_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static size_t make_frame(uint8_t *out, uint8_t type, uint32_t id, const void *data, size_t len)
{
    vf_wire_start(&writer, type, id);
    vf_wire_put(&writer, VF_TAG_DATA, data, len);
    return vf_wire_end(&writer, out);
}

/* Feeds all of data in pieces of at most step bytes; counts the frames and keeps the last one's type
 * and id. */
static size_t feed_all(const uint8_t *data, size_t len, size_t step, uint8_t *ret_type,
                       uint32_t *ret_id)
{
    size_t frames = 0;
    struct vf_wire_frame f;

    for (size_t pos = 0; pos < len;) {
        size_t n = len - pos < step ? len - pos : step;
        size_t took = vf_wire_feed(&reader, data + pos, n, &f);
        cr_assert_gt(took, 0);
        cr_assert_leq(took, n);
        pos += took;
        if (f.type != 0) {
            frames++;
            *ret_type = f.type;
            *ret_id = f.id;
        }
    }
    return frames;
}

static void check_data(const struct vf_wire_frame *f, const uint8_t *data, size_t len)
{
    size_t got = 0;
    const uint8_t *p = vf_wire_find(f, VF_TAG_DATA, &got);

    cr_assert_not_null(p);
    cr_assert_eq(got, len);
    cr_assert_eq(memcmp(p, data, len), 0);
}

Test(wire, crc32_is_the_ieee_one)
{
    cr_assert_eq(vf_crc32("123456789", 9), 0xcbf43926u);
    cr_assert_eq(vf_crc32("", 0), 0);
    cr_assert_eq(vf_crc32("\0\0\0\0", 4), 0x2144df1cu);
    cr_assert_eq(vf_crc32("\xff\xff\xff\xff", 4), 0xffffffffu);
}

Test(wire, frame_has_the_documented_bytes)
{
    /* Version 1, PING, no body, id 0x01020304; worked out by hand from base/wire.h. */
    const uint8_t raw[8] = {1, 3, 0, 0, 4, 3, 2, 1};
    uint32_t crc = vf_crc32(raw, sizeof(raw));
    const uint8_t want[] = {3,
                            1,
                            3,
                            1,
                            9,
                            4,
                            3,
                            2,
                            1,
                            (uint8_t)crc,
                            (uint8_t)(crc >> 8),
                            (uint8_t)(crc >> 16),
                            (uint8_t)(crc >> 24),
                            0};

    vf_wire_start(&writer, VF_MSG_PING, 0x01020304);
    cr_assert_eq(vf_wire_end(&writer, encoded), sizeof(want));
    cr_assert_eq(memcmp(encoded, want, sizeof(want)), 0);
}

Test(wire, every_body_size_and_fill_comes_back)
{
    static uint8_t data[VF_WIRE_MAX_BODY];
    static const size_t sizes[] = {0,   1,   2,   3,    237,  238,  239,   240,
                                   241, 242, 243, 253,  254,  255,  256,   507,
                                   508, 509, 510, 1024, 8192, 9999, 16379, VF_WIRE_MAX_BODY - 4};

    for (unsigned fill = 0; fill < 4; fill++) {
        for (size_t i = 0; i < sizeof(data); i++)
            data[i] = fill == 0   ? 0
                      : fill == 1 ? 0xff
                      : fill == 2 ? (uint8_t)(i % 255 + 1)
                                  : (uint8_t)next_random();
        for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
            struct vf_wire_frame f;
            memset(encoded, 0xa5, sizeof(encoded));
            size_t n = make_frame(encoded, VF_MSG_STDOUT, next_random(), data, sizes[s]);
            cr_assert_gt(n, 0);
            cr_assert_leq(n, VF_WIRE_MAX_FRAME);
            cr_assert_eq(encoded[n], 0xa5, "wrote past its length");
            cr_assert_eq(memchr(encoded, 0, n), encoded + n - 1, "a zero inside the frame");

            vf_wire_reset(&reader);
            cr_assert_eq(vf_wire_feed(&reader, encoded, n, &f), n);
            cr_assert_eq(f.type, VF_MSG_STDOUT);
            cr_assert_eq(f.id, vf_wire_u32(writer.raw + 4));
            check_data(&f, data, sizes[s]);
            cr_assert_eq(reader.garbage, 0);
        }
    }
}

Test(wire, all_records_come_back_in_order)
{
    struct vf_wire_frame f;
    size_t pos = 0, len;
    uint16_t tag;
    const uint8_t *p;

    vf_wire_start(&writer, VF_MSG_EXEC, 7);
    vf_wire_put(&writer, VF_TAG_ARG, "echo", 4);
    vf_wire_put(&writer, VF_TAG_ARG, "", 0);
    vf_wire_put(&writer, VF_TAG_ARG, "two", 3);
    vf_wire_put_u32(&writer, VF_TAG_DEADLINE_MS, 0xfedcba98u);
    vf_wire_put_i64(&writer, VF_TAG_TIME, INT64_MIN + 5);
    vf_wire_put_i64(&writer, VF_TAG_TIME, 1700000000123456789);
    size_t n = vf_wire_end(&writer, encoded);
    vf_wire_reset(&reader);
    cr_assert_eq(vf_wire_feed(&reader, encoded, n, &f), n);

    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), 1);
    cr_assert(tag == VF_TAG_ARG && len == 4 && memcmp(p, "echo", 4) == 0);
    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), 1);
    cr_assert(tag == VF_TAG_ARG && len == 0);
    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), 1);
    cr_assert(tag == VF_TAG_ARG && len == 3 && memcmp(p, "two", 3) == 0);
    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), 1);
    cr_assert(tag == VF_TAG_DEADLINE_MS && len == 4 && vf_wire_u32(p) == 0xfedcba98u);
    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), 1);
    cr_assert(tag == VF_TAG_TIME && len == 8 && vf_wire_i64(p) == INT64_MIN + 5);
    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), 1);
    cr_assert_eq(vf_wire_i64(p), 1700000000123456789);
    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), 0);
    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), 0, "the end stays the end");

    p = vf_wire_find(&f, VF_TAG_ARG, &len);
    cr_assert(p && len == 4, "find gives the first");
    cr_assert_null(vf_wire_find(&f, VF_TAG_MAC, NULL));
}

Test(wire, a_record_that_does_not_fit_fails_the_frame)
{
    static uint8_t data[VF_WIRE_MAX_BODY + 1];

    cr_assert_gt(make_frame(encoded, 1, 1, data, VF_WIRE_MAX_BODY - 4), 0);
    cr_assert_eq(make_frame(encoded, 1, 1, data, VF_WIRE_MAX_BODY - 3), 0);
    cr_assert_eq(make_frame(encoded, 1, 1, data, sizeof(data)), 0);

    vf_wire_start(&writer, 1, 1);
    vf_wire_put(&writer, VF_TAG_DATA, data, VF_WIRE_MAX_BODY - 8);
    vf_wire_put(&writer, VF_TAG_DATA, data, 0);
    vf_wire_put(&writer, VF_TAG_DATA, data, 0); /* no room even for its head */
    cr_assert_eq(vf_wire_end(&writer, encoded), 0);

    vf_wire_start(&writer, 1, 1);
    vf_wire_put(&writer, VF_TAG_DATA, data, VF_WIRE_MAX_BODY);
    vf_wire_put_u32(&writer, VF_TAG_BYTES, 1); /* fits, but the frame has failed already */
    cr_assert_eq(vf_wire_end(&writer, encoded), 0);

    vf_wire_start(&writer, 1, 1);
    cr_assert_gt(vf_wire_end(&writer, encoded), 0, "a new start clears the failure");
}

Test(wire, several_frames_in_pieces_of_any_size)
{
    size_t n = 0;
    uint8_t type = 0;
    uint32_t id = 0;

    for (uint32_t i = 1; i <= 20; i++) {
        uint8_t data[64];
        for (size_t k = 0; k < sizeof(data); k++)
            data[k] = (uint8_t)(next_random() % 3);
        n += make_frame(stream + n, VF_MSG_STDIN, i, data, i * 3);
        if (i % 4 == 0)
            stream[n++] = 0; /* lone zeros between frames mean nothing */
    }
    for (size_t step = 1; step <= n; step++) {
        vf_wire_reset(&reader);
        cr_assert_eq(feed_all(stream, n, step, &type, &id), 20);
        cr_assert_eq(id, 20);
        cr_assert_eq(reader.garbage, 0);
    }
}

Test(wire, cut_at_every_byte_one_zero_resyncs)
{
    uint8_t data[700], type = 0, second[64];
    uint32_t id = 0;

    for (size_t k = 0; k < sizeof(data); k++)
        data[k] = (uint8_t)(next_random() % 5);
    size_t n = make_frame(encoded, VF_MSG_STDOUT, 1, data, sizeof(data));
    size_t n2 = make_frame(second, VF_MSG_HELLO_OK, 77, "abc", 3);

    /* The head of a frame, then a new connection: a zero and a whole frame. */
    for (size_t cut = 0; cut < n - 1; cut++) {
        memcpy(stream, encoded, cut);
        stream[cut] = 0;
        memcpy(stream + cut + 1, second, n2);
        vf_wire_reset(&reader);
        cr_assert_eq(feed_all(stream, cut + 1 + n2, 4096, &type, &id), 1, "cut at %zu", cut);
        cr_assert_eq(type, VF_MSG_HELLO_OK);
        cr_assert_eq(id, 77);
        cr_assert_eq(reader.garbage, cut);
    }
    /* The tail of a frame, then a whole one. */
    for (size_t cut = 1; cut < n; cut++) {
        memcpy(stream, encoded + cut, n - cut);
        memcpy(stream + n - cut, second, n2);
        vf_wire_reset(&reader);
        cr_assert_eq(feed_all(stream, n - cut + n2, 4096, &type, &id), 1, "cut at %zu", cut);
        cr_assert_eq(id, 77);
        cr_assert_eq(reader.garbage, n - cut - 1);
    }
    /* Without the zero the cut swallows the next frame, and only that. */
    memcpy(stream, encoded, 20);
    memcpy(stream + 20, second, n2);
    memcpy(stream + 20 + n2, second, n2);
    vf_wire_reset(&reader);
    cr_assert_eq(feed_all(stream, 20 + 2 * n2, 4096, &type, &id), 1);
    cr_assert_eq(reader.garbage, 20 + n2 - 1);
}

Test(wire, no_bit_flip_is_taken_for_a_frame)
{
    uint8_t data[40], type = 0, broken[128];
    uint32_t id = 0;

    for (size_t k = 0; k < sizeof(data); k++)
        data[k] = (uint8_t)(next_random() % 4);
    size_t n = make_frame(encoded, VF_MSG_RENEW_OK, 9, data, sizeof(data));
    cr_assert_lt(n, sizeof(broken));
    for (size_t bit = 0; bit < (n - 1) * 8; bit++) {
        memcpy(broken, encoded, n);
        broken[bit / 8] ^= (uint8_t)(1u << bit % 8);
        vf_wire_reset(&reader);
        cr_assert_eq(feed_all(broken, n, n, &type, &id), 0, "bit %zu", bit);
        cr_assert_geq(reader.garbage, n - 2);
        cr_assert_eq(feed_all(encoded, n, n, &type, &id), 1, "after bit %zu", bit);
    }
}

/* Into stream: a frame with a right CRC whose header says what the caller likes. */
static size_t encode_raw(uint8_t version, uint8_t type, uint16_t said_len, size_t body_len)
{
    uint8_t raw[64] = {version, type, (uint8_t)said_len, (uint8_t)(said_len >> 8), 1, 1, 1, 1};
    size_t len = VF_WIRE_HEADER + body_len, out = 0, code;

    memset(raw + VF_WIRE_HEADER, 1, body_len);
    uint32_t crc = vf_crc32(raw, len);
    for (unsigned i = 0; i < 4; i++)
        raw[len++] = (uint8_t)(crc >> (8 * i));
    code = out++;
    for (size_t i = 0; i < len; i++) {
        if (raw[i] != 0) {
            stream[out++] = raw[i];
            continue;
        }
        stream[code] = (uint8_t)(out - code);
        code = out++;
    }
    stream[code] = (uint8_t)(out - code);
    stream[out++] = 0;
    return out;
}

Test(wire, header_is_checked)
{
    uint8_t type = 0;
    uint32_t id = 0;
    static const struct {
        uint8_t version, type;
        uint16_t said;
        size_t body;
        size_t frames;
    } cases[] = {
        {1, 3, 8, 8, 1},     {1, 3, 0, 0, 1},   {2, 3, 8, 8, 0}, {0, 3, 8, 8, 0},
        {1, 0, 8, 8, 0},     {1, 3, 7, 8, 0},   {1, 3, 9, 8, 0}, {1, 3, 0, 8, 0},
        {1, 3, 65535, 8, 0}, {1, 3, 264, 8, 0}, /* right only modulo 256 */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = encode_raw(cases[i].version, cases[i].type, cases[i].said, cases[i].body);
        vf_wire_reset(&reader);
        cr_assert_eq(feed_all(stream, n, n, &type, &id), cases[i].frames, "case %zu", i);
        cr_assert_eq(reader.garbage, cases[i].frames ? 0 : n - 1, "case %zu", i);
    }
}

Test(wire, too_short_and_bad_codes_are_garbage)
{
    static const uint8_t bad[] = {1,  0, 2, 5, 0, 200, 1, 2, 3, 0, 255, 1, 0,
                                  12, 1, 3, 1, 1, 1,   1, 1, 1, 1, 1,   1, 0};
    uint8_t type = 0;
    uint32_t id = 0;

    vf_wire_reset(&reader);
    cr_assert_eq(feed_all(bad, sizeof(bad), 1, &type, &id), 0);
    cr_assert_eq(reader.garbage, sizeof(bad) - 5);
}

Test(wire, an_overlong_frame_is_skipped_and_counted_as_it_comes)
{
    uint8_t type = 0;
    uint32_t id = 0;
    struct vf_wire_frame f;

    /* Endless bytes without a zero: each counts once, none is kept for ever. */
    memset(stream, 0x55, sizeof(stream));
    vf_wire_reset(&reader);
    for (size_t total = 0; total < 10 * (size_t)VF_WIRE_MAX_GARBAGE; total += 1000)
        cr_assert_eq(vf_wire_feed(&reader, stream, 1000, &f), 1000);
    cr_assert_gt(reader.garbage, 9 * (uint64_t)VF_WIRE_MAX_GARBAGE);
    size_t n = make_frame(encoded, VF_MSG_PING, 5, "x", 1);
    cr_assert_eq(feed_all((const uint8_t *)"", 1, 1, &type, &id), 0);
    cr_assert_eq(feed_all(encoded, n, n, &type, &id), 1);

    /* The longest that may be kept, and one more, in every way it may be cut. */
    for (size_t over = 0; over < 2; over++) {
        for (size_t step = 1; step < 3 * VF_WIRE_MAX_FRAME; step = step * 3 + 1) {
            size_t len = VF_WIRE_MAX_FRAME - 1 + over;
            stream[len] = 0;
            vf_wire_reset(&reader);
            cr_assert_eq(feed_all(stream, len + 1, step, &type, &id), 0);
            cr_assert_eq(reader.garbage, len);
            cr_assert_eq(reader.overrun, 0);
            stream[len] = 0x55;
        }
    }
}

Test(wire, random_bytes_never_get_it_stuck)
{
    uint8_t type = 0;
    uint32_t id = 0;
    size_t n = make_frame(encoded, VF_MSG_PING, 1234, "still here", 10);

    vf_wire_reset(&reader);
    for (unsigned round = 0; round < 200; round++) {
        size_t len = next_random() % 5000;
        for (size_t i = 0; i < len; i++)
            stream[i] = (uint8_t)(round % 2 ? next_random() : next_random() % 6);
        stream[len++] = 0;
        cr_assert_eq(feed_all(stream, len, 1 + next_random() % 600, &type, &id), 0);
        id = 0;
        cr_assert_eq(feed_all(encoded, n, n, &type, &id), 1);
        cr_assert_eq(id, 1234);
    }
}

Test(wire, malformed_records_end_the_walk)
{
    uint16_t tag = 99;
    const uint8_t *p = NULL;
    size_t len = 99, pos;
    /* A good record, then what is left of a cut one. */
    uint8_t body[16] = {13, 0, 2, 0, 'h', 'i', 13, 0, 5, 0, 'a', 'b', 'c', 'd'};
    struct vf_wire_frame f = {VF_MSG_PING, 1, body, 0};

    for (size_t cut = 0; cut <= 14; cut++) {
        f.body_len = cut;
        pos = 0;
        int first = vf_wire_next(&f, &pos, &tag, &p, &len);
        cr_assert_eq(first, cut == 0 ? 0 : cut < 6 ? -1 : 1, "body of %zu", cut);
        if (first != 1)
            continue;
        cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), cut == 6 ? 0 : -1, "body of %zu", cut);
        cr_assert(p == body + 4 && len == 2, "outputs untouched on failure");
        cr_assert_not_null(vf_wire_find(&f, VF_TAG_DATA, NULL), "what came before is good");
        cr_assert_null(vf_wire_find(&f, VF_TAG_ARG, NULL));
    }
    pos = 1000; /* a position past the end is the end */
    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), 0);
    body[8] = 0xff; /* a length of 65535 */
    body[9] = 0xff;
    pos = 6;
    f.body_len = 14;
    cr_assert_eq(vf_wire_next(&f, &pos, &tag, &p, &len), -1);
}

/* SHA-256 as FIPS 180-4 describes it, one block at a time. Small loops with few instructions: the
 * tiny guest runs where each one is emulated, the agent where each one is translated anew.
 */
#include "base/sha256_small.h"

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t v, unsigned bits)
{
    return v >> bits | v << (32 - bits);
}

/* The eight working variables slide down an array, one word a round, instead of being moved: a is
 * v[0], h is v[7]. A round makes the next a below v[0] and turns d into the next e where it is. */
static void take_block(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64], slide[64 + 8];
    uint32_t *v = slide + 64;

    for (unsigned i = 0; i < 16; i++, block += 4)
        w[i] = (uint32_t)block[0] << 24 | (uint32_t)block[1] << 16 | (uint32_t)block[2] << 8 |
               block[3];
    for (uint32_t *p = w; p != w + 48; p++) {
        /* (x >>> 7) ^ (x >>> 18) ^ (x >> 3), and (x >>> 17) ^ (x >>> 19) ^ (x >> 10) */
        uint32_t s0 = rotate(rotate(p[1], 11) ^ p[1], 7) ^ p[1] >> 3;
        uint32_t s1 = rotate(rotate(p[14], 2) ^ p[14], 17) ^ p[14] >> 10;
        p[16] = p[0] + s0 + p[9] + s1;
    }
    for (unsigned i = 0; i < 8; i++)
        v[i] = state[i];
    for (unsigned i = 0; i < 64; i++, v--) {
        uint32_t a = v[0], e = v[4];
        /* (e >>> 6) ^ (e >>> 11) ^ (e >>> 25), and (a >>> 2) ^ (a >>> 13) ^ (a >>> 22) */
        uint32_t t = rotate(rotate(rotate(e, 14) ^ e, 5) ^ e, 6);
        t += (v[6] ^ (e & (v[5] ^ v[6]))) + v[7] + round_constants[i] + w[i];
        v[3] += t;
        t += rotate(rotate(rotate(a, 9) ^ a, 11) ^ a, 2);
        v[-1] = t + ((a & v[1]) | (v[2] & (a | v[1])));
    }
    for (unsigned i = 0; i < 8; i++)
        state[i] += v[i];
}

void vf_sha256_small_init(struct vf_sha256_small *h)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    __builtin_memcpy(h->state, start, sizeof(start));
    h->len = 0;
}

void vf_sha256_small_add(struct vf_sha256_small *h, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t held = (size_t)(h->len & 63);

    if (len == 0)
        return;
    h->len += len;
    if (held > 0) {
        size_t n = 64 - held < len ? 64 - held : len;
        __builtin_memcpy(h->block + held, p, n);
        if (held + n < 64)
            return;
        take_block(h->state, h->block);
        p += n;
        len -= n;
    }
    for (; len >= 64; p += 64, len -= 64)
        take_block(h->state, p);
    if (len > 0)
        __builtin_memcpy(h->block, p, len);
}

void vf_sha256_small_end(struct vf_sha256_small *h, uint8_t ret_digest[VF_SHA256_SMALL_SIZE])
{
    size_t held = (size_t)(h->len & 63);
    uint64_t bits = h->len << 3;

    h->block[held++] = 0x80;
    if (held > 56) { /* no room for the length: it goes into a block of its own */
        __builtin_memset(h->block + held, 0, 64 - held);
        take_block(h->state, h->block);
        held = 0;
    }
    __builtin_memset(h->block + held, 0, 56 - held);
    for (unsigned i = 0; i < 8; i++)
        h->block[56 + i] = (uint8_t)(bits >> (56 - 8 * i));
    take_block(h->state, h->block);
    for (unsigned i = 0; i < 32; i++)
        ret_digest[i] = (uint8_t)(h->state[i / 4] >> (24 - 8 * (i % 4)));
}

void vf_sha256_small(const void *data, size_t len, uint8_t ret_digest[VF_SHA256_SMALL_SIZE])
{
    struct vf_sha256_small h;

    vf_sha256_small_init(&h);
    vf_sha256_small_add(&h, data, len);
    vf_sha256_small_end(&h, ret_digest);
}

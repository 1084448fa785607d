/* The small SHA-256 against the standard's vectors and against OpenSSL's. */
#include <criterion/criterion.h>
#include <openssl/sha.h>
#include <string.h>
#include "base/sha256_small.h"

Test(sha256_small, standard_vectors)
{
    static const uint8_t abc[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                    0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                    0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                    0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    uint8_t digest[32];

    vf_sha256_small("abc", 3, digest);
    cr_assert_eq(memcmp(digest, abc, 32), 0);
}

Test(sha256_small, every_length_and_cut_agrees_with_openssl)
{
    uint8_t data[300], want[32], got[32];

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 167 + 13);
    for (size_t len = 0; len <= sizeof(data); len++) {
        SHA256(data, len, want);
        vf_sha256_small(data, len, got);
        cr_assert_eq(memcmp(got, want, 32), 0, "length %zu", len);
        for (size_t cut = 0; cut <= len; cut += 1 + len / 9) {
            struct vf_sha256_small h;
            vf_sha256_small_init(&h);
            vf_sha256_small_add(&h, data, cut);
            vf_sha256_small_add(&h, data + cut, len - cut);
            vf_sha256_small_end(&h, got);
            cr_assert_eq(memcmp(got, want, 32), 0, "length %zu cut at %zu", len, cut);
        }
    }
}

/* A small SHA-256 (FIPS 180-4) for what links no OpenSSL: the guest agent and the tiny test guest.
 * Freestanding; written for few instructions and little code, not for throughput. The host uses
 * base/hash.h.
 */
#ifndef VF_BASE_SHA256_SMALL_H
#define VF_BASE_SHA256_SMALL_H

#include <stddef.h>
#include <stdint.h>

#define VF_SHA256_SMALL_SIZE 32

struct vf_sha256_small {
    uint32_t state[8];
    uint64_t len; /* bytes taken so far; its low 6 bits say how many of them wait in block */
    uint8_t block[64];
};

void vf_sha256_small_init(struct vf_sha256_small *h);
void vf_sha256_small_add(struct vf_sha256_small *h, const void *data, size_t len);
/* After this h must be initialised again. */
void vf_sha256_small_end(struct vf_sha256_small *h, uint8_t ret_digest[VF_SHA256_SMALL_SIZE]);

/* All three in one. ret_digest may lie inside data. */
void vf_sha256_small(const void *data, size_t len, uint8_t ret_digest[VF_SHA256_SMALL_SIZE]);

#endif

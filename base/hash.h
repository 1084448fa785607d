/* SHA-256 (OpenSSL EVP) of memory, descriptors and files; a hash for tables; hexadecimal; random bytes. */
#ifndef VF_BASE_HASH_H
#define VF_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

#define VF_SHA256_LEN 32
#define VF_SHA256_HEX 65 /* with its NUL */

void vf_sha256(const void *data, size_t len, uint8_t ret[VF_SHA256_LEN]);
/* Of the whole file behind fd, from offset 0 by pread(2): the file position stays. Blocking, for a
 * worker thread. Holes are hashed as zeros without being read. what: for the message. */
int vf_sha256_fd(int fd, const char *what, char ret_hex[VF_SHA256_HEX], struct vf_error *err);
/* ret: 2*len characters and a NUL. */
void vf_hex(const void *data, size_t len, char *ret);
/* Exactly len bytes from 2*len hex digits. 0 or -EINVAL. */
int vf_unhex(const char *hex, void *ret, size_t len);
/* FNV-1a, for tables of names that nobody chooses against us. */
static inline uint32_t vf_hash_text(const char *text)
{
    uint32_t h = 2166136261u;
    for (; *text; text++)
        h = (h ^ (uint8_t)*text) * 16777619u;
    return h;
}
/* getrandom(2); does not return before all bytes are there; aborts if the kernel has none. */
void vf_random(void *ret, size_t len);

#endif

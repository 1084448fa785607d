/* What the fuzz targets share. Each tests/fuzz/NAME.c is a libFuzzer target of its own; its seeds are
 * tests/fuzz/seeds/NAME/. A target checks more than that nothing crashes: what was taken must say the same
 * when it is written and read again, callbacks come as often as promised. */
#ifndef VF_TESTS_FUZZ_H
#define VF_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert, also without sanitizers and with NDEBUG. */
#define FUZZ_CHECK(condition)                                                       \
    do {                                                                            \
        if (!(condition)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                \
        }                                                                           \
    } while (0)

/* Takes numbers and pieces off the front of an input. Past its end all is 0 and empty. */
struct fuzz_input {
    const uint8_t *p;
    size_t left;
};
static inline uint8_t fuzz_byte(struct fuzz_input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->p++;
}
static inline const uint8_t *fuzz_piece(struct fuzz_input *in, size_t *len)
{
    const uint8_t *p = in->p;

    if (*len > in->left)
        *len = in->left;
    in->p += *len;
    in->left -= *len;
    return p;
}

#endif

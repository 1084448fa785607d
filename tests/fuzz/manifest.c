/* Manifests of stored generations: what is taken is written and read again the same. */
#include "templates/manifest.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vf_manifest m, again;
    struct vf_error err;
    char *a = NULL, *b = NULL;

    if (vf_manifest_decode((const char *)data, size, &m, &err) < 0) {
        FUZZ_CHECK(err.msg[0] != '\0');
        return 0;
    }
    FUZZ_CHECK(vf_manifest_encode(&m, &a, &err) == 0);
    FUZZ_CHECK(vf_manifest_decode(a, strlen(a), &again, &err) == 0);
    FUZZ_CHECK(vf_manifest_encode(&again, &b, &err) == 0);
    FUZZ_CHECK(strcmp(a, b) == 0);
    free(a);
    free(b);
    vf_manifest_free(&m);
    vf_manifest_free(&again);
    return 0;
}

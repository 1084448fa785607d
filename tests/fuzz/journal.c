/* The journal's records, which lie in a directory that a broken host may have filled with anything. */
#include "pool/journal.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vf_record r;
    struct vf_proof proof;
    struct vf_error err;

    if (vf_record_parse((const char *)data, size, &r, &err) < 0) {
        FUZZ_CHECK(err.msg[0] != '\0');
        return 0;
    }
    FUZZ_CHECK(r.format == VF_RECORD_FORMAT && r.id != NULL && r.template_name != NULL);
    FUZZ_CHECK(r.state >= 0 && r.state < VF_RECORD_STATE_COUNT);
    vf_record_proof(&r, &proof);
    FUZZ_CHECK(memchr(proof.hostname, '\0', sizeof(proof.hostname)) != NULL);
    vf_record_free(&r);
    return 0;
}

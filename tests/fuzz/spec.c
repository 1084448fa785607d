/* Specs, as users post them: what is taken equals itself when it is written and read again. */
#include "templates/spec.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vf_spec spec, again;
    struct vf_error err;
    char *text;

    if (vf_spec_parse((const char *)data, size, "/base", "spec", &spec, &err) < 0) {
        FUZZ_CHECK(err.msg[0] != '\0');
        return 0;
    }
    text = vf_spec_encode(&spec);
    FUZZ_CHECK(text != NULL);
    FUZZ_CHECK(vf_spec_parse(text, strlen(text), NULL, "again", &again, &err) == 0);
    FUZZ_CHECK(vf_spec_equal(&spec, &again));
    free(text);
    vf_spec_free(&spec);
    vf_spec_free(&again);
    return 0;
}

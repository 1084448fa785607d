/* Runtime classes, as users post them: what is taken is the same when it is written and read again, and no clone gets an
 * option that would end its sharing. */
#include "templates/registry.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vf_class class, again;
    struct vf_error err;
    char *text, *second;

    if (vf_class_parse((const char *)data, size, "class", &class, &err) < 0) {
        FUZZ_CHECK(err.msg[0] != '\0');
        return 0;
    }
    FUZZ_CHECK(vf_asset_name_ok(class.name) && !class.builtin);
    FUZZ_CHECK(!class.options.prefault && !class.options.mergeable);
    text = vf_class_encode(&class);
    FUZZ_CHECK(text != NULL);
    FUZZ_CHECK(vf_class_parse(text, strlen(text), "again", &again, &err) == 0);
    second = vf_class_encode(&again);
    FUZZ_CHECK(second != NULL && strcmp(text, second) == 0);
    free(text);
    free(second);
    vf_class_free(&class);
    vf_class_free(&again);
    return 0;
}

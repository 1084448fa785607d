/* What VMMs say over HTTP, and the config that one has saved: a head is parsed the same whole as in pieces, an error
 * becomes one clean line, and an edited config is JSON that holds the edits. */
#include "fuzz.h"
#include "vmm/cloud_hypervisor.h"
#include "vmm/http_internal.h"

static void check_head(const char *text, size_t len)
{
    struct vf_vmm_http_head whole = {0}, part = {0};
    struct vf_error err;
    int r = vf_vmm_http_parse_head(text, len, &whole, &err);

    FUZZ_CHECK(r >= 0 || err.msg[0] != '\0');
    FUZZ_CHECK(r <= 0 || (whole.len <= len && whole.body_len <= VF_VMM_HTTP_MAX_BODY));
    /* A whole head is whole without what follows it, and was not before its last byte. */
    if (r > 0) {
        FUZZ_CHECK(vf_vmm_http_parse_head(text, whole.len, &part, &err) > 0);
        FUZZ_CHECK(part.status == whole.status && part.body_len == whole.body_len);
        FUZZ_CHECK(vf_vmm_http_parse_head(text, whole.len - 1, &part, &err) == 0);
    }
}

static void check_error(const char *text, size_t len)
{
    struct vf_error err;

    vf_vmm_http_error("vm.boot", 500, text, len, &err);
    FUZZ_CHECK(strncmp(err.msg, "vm.boot: 500: ", 14) == 0 && err.msg[14] != '\0');
    for (const char *p = err.msg; *p; p++)
        FUZZ_CHECK((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static void check_patch(const char *text, size_t len)
{
    static const struct vf_ch_edit edits[] = {
        {"memory.zones.0.file", "\"/proc/self/fd/5\""},
        {"memory.zones.0.shared", "false"},
        {"vsock.socket", "\"vsock.sock\""},
        {"net", NULL},
        {"added", "[1,{\"a\":null}]"},
    };
    struct vf_error err;
    char *out;

    for (size_t n = 0; n <= sizeof(edits) / sizeof(*edits); n++) {
        struct vf_json *json;

        if (vf_ch_patch(text, len, edits, n, &out, &err) < 0) {
            FUZZ_CHECK(err.msg[0] != '\0');
            continue;
        }
        json = vf_json_parse(out, strlen(out));
        FUZZ_CHECK(vf_json_is_object(json));
        FUZZ_CHECK(n < 5 || vf_json_str(vf_json_get(vf_json_get(json, "vsock"), "socket"), NULL));
        FUZZ_CHECK(n < 4 || !vf_json_get(json, "net"));
        vf_json_delete(json);
        free(out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;

    if (data[0] % 3 == 0)
        check_head(text, size - 1);
    else if (data[0] % 3 == 1)
        check_error(text, size - 1);
    else
        check_patch(text, size - 1);
    return 0;
}

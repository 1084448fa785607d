/* Definitions of assets, as users post them: what is taken is the same when it is written and read again, its URLs show
 * no secret, and it never lacks a digest. */
#include "templates/asset_internal.h"
#include "fuzz.h"

static void check_file(const struct vf_asset_file *f)
{
    char plain[256];

    if (f->url == NULL)
        return;
    FUZZ_CHECK(vf_asset_digest_ok(f->sha256));
    FUZZ_CHECK(vf_asset_same_server(f->url, f->url) || strncasecmp(f->url, "file:", 5) == 0);
    vf_asset_plain_url(f->url, plain, sizeof(plain));
    FUZZ_CHECK(strchr(plain, '?') == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vf_asset asset, again;
    struct vf_error err;
    char *text, *second;

    if (vf_asset_parse((const char *)data, size, "asset", &asset, &err) < 0) {
        FUZZ_CHECK(err.msg[0] != '\0');
        return 0;
    }
    FUZZ_CHECK(vf_asset_name_ok(asset.name));
    check_file(&asset.files.x86_64);
    check_file(&asset.files.aarch64);
    text = vf_asset_encode(&asset);
    FUZZ_CHECK(text != NULL);
    FUZZ_CHECK(vf_asset_parse(text, strlen(text), "again", &again, &err) == 0);
    second = vf_asset_encode(&again);
    FUZZ_CHECK(second != NULL && strcmp(text, second) == 0);
    free(text);
    free(second);
    vf_asset_free(&asset);
    vf_asset_free(&again);
    return 0;
}

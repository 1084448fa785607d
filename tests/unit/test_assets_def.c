/* Definitions of assets: what is taken, what is refused and in what words. */
#include <errno.h>
#include <sys/utsname.h>
#include "asset_support.h"

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define FILES(url) "\"files\":{\"x86_64\":{\"url\":\"" url "\",\"sha256\":\"" DIGEST "\"}}"
#define ASSET(more) "{\"name\":\"a\",\"kind\":\"vmm\"," more "}"

static int parse(const char *text, struct vf_asset *ret, struct vf_error *err)
{
    memset(err, 0, sizeof(*err));
    return vf_asset_parse(text, strlen(text), "a.json", ret, err);
}

Test(assets_def, all_of_it)
{
    static const char text[] =
        "{\"name\":\"cloud-hypervisor-53.0_x\",\"kind\":\"vmm\",\"files\":{"
        "\"x86_64\":{\"url\":\"https://h/x?token=1\",\"sha256\":\"" DIGEST
        "\",\"size\":1099511627776},"
        "\"aarch64\":{\"url\":\"file:///x\",\"sha256\":"
        "\"ABCDEF6789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}},"
        "\"bearer_file\":\"/etc/token\",\"ca_file\":\"/etc/ca\",\"proxy\":\"http://proxy:3128\"}";
    struct vf_asset a, b;
    struct vf_error err;
    char *encoded, *again;

    cr_assert_eq(parse(text, &a, &err), 0, "%s", err.msg);
    cr_expect_str_eq(a.name, "cloud-hypervisor-53.0_x");
    cr_expect_eq(a.kind, VF_ASSET_KIND_VMM);
    cr_expect_eq(a.files.x86_64.size, INT64_C(1) << 40);
    cr_expect_eq(a.files.aarch64.size, 0);
    cr_expect_eq(strncmp(a.files.aarch64.sha256, "abcdef", 6), 0); /* as the store has it */
    cr_expect_null(a.basic_file);
    encoded = vf_asset_encode(&a);
    cr_assert_eq(parse(encoded, &b, &err), 0, "%s", err.msg);
    again = vf_asset_encode(&b);
    cr_expect_str_eq(encoded, again);
    cr_expect_str_eq(b.files.x86_64.url, "https://h/x?token=1");
    cr_expect_str_eq(b.proxy, "http://proxy:3128");
    free(encoded);
    free(again);
    vf_asset_free(&a);
    vf_asset_free(&a);
    vf_asset_free(NULL);
    vf_asset_free(&b);
}

Test(assets_def, this_host)
{
    struct utsname u;
    struct vf_asset a;
    struct vf_error err;

    cr_assert_eq(uname(&u), 0);
    cr_expect_str_eq(vf_host_arch(), u.machine);
    cr_assert_eq(parse(ASSET(FILES("https://h/x")), &a, &err), 0, "%s", err.msg);
    cr_expect_eq(vf_asset_file_here(&a), strcmp(u.machine, "x86_64") == 0 ? &a.files.x86_64 : NULL);
    vf_asset_free(&a);
}

Test(assets_def, urls_that_are_right)
{
    static const char *const urls[] = {
        ASSET(FILES("https://example.com/a/b?c=d#e")),
        ASSET(FILES("https://[::1]:8443/x")),
        ASSET(FILES("HTTPS://example.com:444/x")),
        ASSET(FILES("http://localhost/x")),
        ASSET(FILES("http://127.0.0.1:80/x")),
        ASSET(FILES("http://127.9.9.9/x")),
        ASSET(FILES("http://[::1]/x")),
        ASSET(FILES("file:///a/b%20c")),
    };

    for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
        struct vf_asset a;
        struct vf_error err;

        cr_expect_eq(parse(urls[i], &a, &err), 0, "%s: %s", urls[i], err.msg);
        vf_asset_free(&a);
    }
}

Test(assets_def, refused)
{
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {"", "a.json"},
        {"[]", "a.json"},
        {"{\"kind\":\"vmm\"," FILES("https://h/x") "}", "name: is required"},
        {"{\"name\":\"a\"," FILES("https://h/x") "}", "kind: is required"},
        {"{\"name\":\"a\",\"kind\":\"vm\"," FILES("https://h/x") "}", "kind: "},
        {"{\"name\":\"a\",\"kind\":\"vmm\"}", "files: is required"},
        {"{\"name\":\"-a\",\"kind\":\"vmm\"," FILES("https://h/x") "}", "name: must be 1 to 64"},
        {"{\"name\":\"A\",\"kind\":\"vmm\"," FILES("https://h/x") "}", "name: must be 1 to 64"},
        {"{\"name\":\"a/b\",\"kind\":\"vmm\"," FILES("https://h/x") "}", "name: must be 1 to 64"},
        {"{\"name\":\"..\",\"kind\":\"vmm\"," FILES("https://h/x") "}", "name: must be 1 to 64"},
        {ASSET("\"files\":{}"), "files: must name a file for at least one architecture"},
        {ASSET("\"files\":{\"riscv64\":{}}"), "files.riscv64"},
        {ASSET("\"files\":{\"x86_64\":{}}"), "files.x86_64.url: is required"},
        {ASSET("\"files\":{\"aarch64\":{\"url\":\"https://h/x\"}}"),
         "files.aarch64.sha256: is missing: an asset is always pinned"},
        {ASSET("\"files\":{\"x86_64\":{\"url\":\"https://h/x\",\"sha256\":\"abc\"}}"),
         "files.x86_64.sha256: must be 64 hexadecimal digits (is 3 characters)"},
        {ASSET("\"files\":{\"x86_64\":{\"url\":\"https://h/x\",\"sha256\":\"g" DIGEST "\"}}"),
         "files.x86_64.sha256: must be 64 hexadecimal digits"},
        {ASSET("\"files\":{\"x86_64\":{\"url\":\"https://h/x\",\"sha256\":\"" DIGEST
               "\",\"size\":-1}}"),
         "files.x86_64.size: "},
        {ASSET("\"files\":{\"x86_64\":{\"url\":\"https://h/x\",\"sha256\":\"" DIGEST
               "\",\"size\":1099511627777}}"),
         "files.x86_64.size: "},
        {ASSET(FILES("http://example.com/x")),
         "files.x86_64.url: plain http is only for this host (localhost), not example.com"},
        {ASSET(FILES("http://localhost.example.com/x")), "files.x86_64.url: plain http"},
        {ASSET(FILES("http://128.0.0.1/x")), "files.x86_64.url: plain http"},
        {ASSET(FILES("ftp://h/x")), "files.x86_64.url: must begin with https:// or file:///, not "
                                    "ftp://"},
        {ASSET(FILES("scp://h/x")), "files.x86_64.url: must begin with"},
        {ASSET(FILES("h/x")), "files.x86_64.url: must be a URL"},
        {ASSET(FILES("/x")), "files.x86_64.url: must be a URL"},
        {ASSET(FILES("https://")), "files.x86_64.url: must be a URL"},
        {ASSET(FILES("https://h/x y")), "files.x86_64.url: must be a URL"},
        {ASSET(FILES("https://h/x\\n")), "files.x86_64.url: must not contain control characters"},
        {ASSET(FILES("file://h/x")), "files.x86_64.url: must name the file by its absolute path"},
        {ASSET(FILES("file:x")), "files.x86_64.url: must name the file by its absolute path"},
        {ASSET(FILES("https://user:secret@h/x")), "files.x86_64.url: must not contain credentials"},
        {ASSET(FILES("https://user@h/x")), "files.x86_64.url: must not contain credentials"},
        {ASSET(FILES("https://:secret@h/x")), "files.x86_64.url: must not contain credentials"},
        {ASSET(FILES("https://h/x") ",\"bearer_file\":\"/a\",\"basic_file\":\"/b\""),
         "bearer_file, basic_file: only one"},
        {ASSET(FILES("https://h/x") ",\"bearer_file\":\"a\""),
         "bearer_file: must be an absolute path (is \"a\")"},
        {ASSET(FILES("https://h/x") ",\"basic_file\":\"./a\""), "basic_file: must be an absolute"},
        {ASSET(FILES("https://h/x") ",\"ca_file\":\"a\""), "ca_file: must be an absolute path"},
        {ASSET(FILES("https://h/x") ",\"ca_file\":\"/a\\u0007\""),
         "ca_file: must not contain control characters (byte 2 is 0x07)"},
        {ASSET(FILES("https://h/x") ",\"proxy\":\"proxy:3128\""), "proxy: must be a URL"},
        {ASSET(FILES("https://h/x") ",\"proxy\":\"http://\""), "proxy: must be a URL"},
        {ASSET(FILES("https://h/x") ",\"proxy\":\"http://me:secret@proxy:3128\""),
         "proxy: must not contain credentials"},
        {ASSET(FILES("https://h/x") ",\"token\":\"x\""), "token"},
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        struct vf_asset a = {.name = (char *)"untouched"};
        struct vf_error err;

        cr_expect_eq(parse(wrong[i].text, &a, &err), -EINVAL, "%s", wrong[i].text);
        cr_expect_not_null(strstr(err.msg, wrong[i].says), "\"%s\" lacks \"%s\"", err.msg,
                           wrong[i].says);
        cr_expect_eq(strncmp(err.msg, "a.json", 6), 0, "%s", err.msg);
        cr_expect_null(strstr(err.msg, "secret"), "%s", err.msg);
        cr_expect_str_eq(a.name, "untouched");
    }
}

Test(assets_def, plain_urls_hold_no_secret)
{
    static const char *const urls[][2] = {
        {"https://me:secret@h/x?secret#secret", "https://h/x"},
        {"https://h:8443/x%20y", "https://h:8443/x%20y"},
        {"file:///a", "file:///a"},
        {"not a url secret", "(a URL that can't be read)"},
    };

    for (size_t i = 0; i < sizeof(urls) / sizeof(*urls); i++) {
        char plain[100];

        vf_asset_plain_url(urls[i][0], plain, sizeof(plain));
        cr_expect_str_eq(plain, urls[i][1]);
    }
}

/* Assets over the API: fetched, hashed again, collected. What a download goes through on its way is another test's. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "tests/e2e/daemon_guest.h"
#include "tests/e2e/support.h"

TestSuite(api_assets, .timeout = 180);

#if defined(__aarch64__)
#define HERE "aarch64"
#else
#define HERE "x86_64"
#endif

static void digest_of(const char *path, char ret[65])
{
    char command[500];
    FILE *f;

    snprintf(command, sizeof(command), "sha256sum <%s", path);
    f = popen(command, "re");
    cr_assert_not_null(f);
    cr_assert_eq(fscanf(f, "%64s", ret), 1);
    cr_assert_eq(pclose(f), 0);
}

/* An asset that is the file at path; ret: its digest. */
static void define(struct dmn *d, const char *name, const char *kind, const char *path,
                   char ret[65])
{
    char body[1000], at[100];

    digest_of(path, ret);
    snprintf(body, sizeof(body),
             "{\"name\":\"%s\",\"kind\":\"%s\",\"files\":{\"" HERE
             "\":{\"url\":\"file://%s\",\"sha256\":\"%s\"}}}",
             name, kind, path, ret);
    snprintf(at, sizeof(at), "/v1/assets/%s", name);
    free(dmn_call(d, 200, "PUT", at, body));
}

static void fetch(struct dmn *d, const char *name)
{
    char at[100];

    snprintf(at, sizeof(at), "/v1/assets/%s/fetch", name);
    free(dmn_call(d, 202, "POST", at, NULL));
    snprintf(at, sizeof(at), "/v1/assets/%s", name);
    dmn_wait_for(d, at, "here.fetched", 1);
}

/* How many files gc removed, or would; the first's digest. */
static size_t gc(struct dmn *d, bool dry_run, char ret[65])
{
    struct vf_json *j = dmn_json(d, 200, "POST", "/v1/assets/gc",
                                 dry_run ? "{\"dry_run\":true}" : "{\"dry_run\":false}");
    size_t n = 0;

    ret[0] = '\0';
    while (vf_json_at(vf_json_get(j, "removed"), n) != NULL)
        n++;
    if (n > 0)
        snprintf(ret, 65, "%s", dmn_str(j, "removed.0.sha256"));
    vf_json_delete(j);
    return n;
}

Test(api_assets, what_was_damaged_is_noticed_and_fetched_anew)
{
    char file[200], path[300], sha256[65];
    struct vf_json *j;
    struct dmn d;
    struct stat st;
    int fd;

    dmn_open(&d, NULL);
    gst_write(d.dir, "tool", "#!/bin/sh\nexit 0\n", 0644);
    snprintf(file, sizeof(file), "%s/tool", d.dir);
    define(&d, "tool", "vmm", file, sha256);
    fetch(&d, "tool");
    j = dmn_json(&d, 200, "GET", "/v1/assets/tool", NULL);
    cr_expect_str_eq(dmn_str(j, "here.sha256"), sha256);
    cr_expect_eq(dmn_int(j, "here.size"), 17);
    cr_expect_eq(dmn_int(j, "fetch.attempts"), 1);
    snprintf(path, sizeof(path), "%s", dmn_str(j, "here.path"));
    vf_json_delete(j);
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0555);
    free(dmn_call(&d, 200, "POST", "/v1/assets/tool/verify", NULL));
    cr_assert_eq(chmod(path, 0755), 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, "1", 1, 15), 1); /* exit 1 */
    close(fd);
    j = dmn_json(&d, 500, "POST", "/v1/assets/tool/verify", NULL);
    cr_expect_str_eq(dmn_str(j, "error.code"), "corrupt");
    cr_expect_not_null(strstr(dmn_str(j, "error.message"), "tool"));
    vf_json_delete(j);
    j = dmn_json(&d, 200, "GET", "/v1/assets/tool", NULL);
    cr_expect_not(vf_json_bool(dmn_get(j, "here.fetched"), true));
    vf_json_delete(j);
    fetch(&d, "tool");
    free(dmn_call(&d, 200, "POST", "/v1/assets/tool/verify", NULL));
    dmn_close(&d);
}

static void flip_first_byte(const char *path)
{
    int fd;
    char b;

    cr_assert_eq(chmod(path, 0644), 0);
    fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && pread(fd, &b, 1, 0) == 1);
    b ^= 1;
    cr_assert_eq(pwrite(fd, &b, 1, 0), 1);
    close(fd);
}

/* Nothing is saved of this template: each acquire boots, with the kernel that its class pins. */
Test(api_assets, nothing_boots_with_what_was_damaged)
{
    static const char acquire[] = "{\"template\":\"web\",\"require\":[\"cold\"]}";
    char file[200], path[300], sha256[65], at[100];
    struct vf_json *j;
    struct dmn d;

    dmn_open(&d, NULL);
    gst_write(d.dir, "kernel", "a kernel\n", 0644);
    snprintf(file, sizeof(file), "%s/kernel", d.dir);
    define(&d, "kernel", "kernel", file, sha256);
    fetch(&d, "kernel");
    snprintf(path, sizeof(path), "%s/assets/sha256/%s", d.state, sha256);
    free(dmn_call(&d, 200, "PUT", "/v1/classes/pinned",
                  "{\"name\":\"pinned\",\"vmm\":\"null\",\"assets\":{\"" HERE
                  "\":{\"kernel\":\"kernel\"}}}"));
    free(dmn_call(&d, 201, "POST", "/v1/templates",
                  "{\"name\":\"web\",\"class\":\"pinned\",\"memory\":{\"size_mib\":16}}"));
    for (int i = 0; i < 2; i++) {
        j = dmn_json(&d, 201, "POST", "/v1/vms", acquire);
        cr_expect_str_eq(dmn_str(j, "source"), "cold");
        snprintf(at, sizeof(at), "/v1/vms/%s", dmn_str(j, "id"));
        vf_json_delete(j);
        free(dmn_call(&d, 204, "DELETE", at, NULL));
        if (i == 1)
            break;
        flip_first_byte(path);
        j = dmn_json(&d, 500, "POST", "/v1/vms", acquire);
        cr_expect_str_eq(dmn_str(j, "error.code"), "corrupt");
        cr_expect_not_null(strstr(dmn_str(j, "error.message"), "asset kernel: the SHA-256 of"),
                           "%s", dmn_str(j, "error.message"));
        cr_expect_not_null(strstr(dmn_str(j, "error.message"), sha256));
        cr_expect_not_null(strstr(dmn_str(j, "error.hint"), "asset verify kernel"));
        vf_json_delete(j);
        dmn_await_vm_dirs(&d, 0);
        flip_first_byte(path);
    }
    dmn_close(&d);
}

Test(api_assets, what_is_not_what_was_pinned_is_not_kept)
{
    struct vf_json *j;
    char body[600];
    struct dmn d;

    dmn_open(&d, NULL);
    gst_write(d.dir, "tool", "something else\n", 0644);
    snprintf(body, sizeof(body),
             "{\"name\":\"tool\",\"kind\":\"vmm\",\"files\":{\"" HERE
             "\":{\"url\":\"file://%s/tool\",\"sha256\":"
             "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}}}",
             d.dir);
    free(dmn_call(&d, 200, "PUT", "/v1/assets/tool", body));
    free(dmn_call(&d, 202, "POST", "/v1/assets/tool/fetch", NULL));
    dmn_wait_for(&d, "/v1/assets/tool", "fetch.attempts", 1);
    for (bool running = true; running;) {
        j = dmn_json(&d, 200, "GET", "/v1/assets/tool", NULL);
        running = vf_json_bool(dmn_get(j, "fetch.running"), false);
        if (!running)
            cr_expect_str_eq(dmn_str(j, "fetch.error.code"), "corrupt");
        cr_expect_not(vf_json_bool(dmn_get(j, "here.fetched"), true));
        vf_json_delete(j);
    }
    j = dmn_json(&d, 200, "GET", "/v1/assets", NULL);
    cr_expect_eq(dmn_int(j, "store.files"), 0);
    vf_json_delete(j);
    dmn_close(&d);
}

Test(api_assets, gc_spares_what_a_class_a_generation_and_a_leased_vm_use)
{
    char digest[65], kernel_digest[65], tool_digest[65], removed[65], id[16], file[200], body[900];
    const char *why = gst_missing(false);
    struct vf_json *j;
    struct gst g;

    if (why[0] != '\0')
        sup_skip("api_assets", "gc_spares_what_a_class_a_generation_and_a_leased_vm_use", "%s",
                 why);
    gst_prepare(&g, NULL);
    dmn_start(&g.d);
    gst_write(g.d.dir, "tool", "#!/bin/sh\nexit 0\n", 0644);
    snprintf(file, sizeof(file), "%s/tool", g.d.dir);
    define(&g.d, "tool", "vmm", file, tool_digest);
    define(&g.d, "guest", "kernel", sup_guest_file("tiny.elf"), kernel_digest);
    fetch(&g.d, "tool");
    free(dmn_call(&g.d, 200, "PUT", "/v1/classes/pinned",
                  "{\"name\":\"pinned\",\"vmm\":\"qemu\",\"assets\":{\"" HERE
                  "\":{\"kernel\":\"guest\"}}}"));
    /* Built with the class's kernel, which is fetched for it. */
    free(dmn_call(
        &g.d, 201, "POST", "/v1/templates",
        "{\"name\":\"web\",\"class\":\"pinned\",\"accel\":\"tcg\",\"memory\":{\"size_mib\":32},"
        "\"boot\":{\"cmdline\":\"quiet\"},\"agent\":{\"channel\":\"serial\"},"
        "\"park\":\"running\"}"));
    gst_warm(&g.d, "web", 1);
    gst_take(&g.d, "web", id);
    j = dmn_json(&g.d, 200, "GET", "/v1/assets/guest", NULL);
    cr_expect(vf_json_bool(dmn_get(j, "here.fetched"), false));
    cr_expect_str_eq(dmn_str(j, "used_by.classes.0"), "pinned");
    cr_expect_str_eq(dmn_str(j, "used_by.templates.0"), "web");
    vf_json_delete(j);
    cr_expect_eq(gc(&g.d, true, removed), 1);
    cr_expect_str_eq(removed, tool_digest, "only what nothing uses");
    cr_expect_eq(gc(&g.d, false, removed), 1);
    cr_expect_eq(gc(&g.d, false, removed), 0);
    /* Another spec, of no class that pins anything: the class and its asset may go, what the generation was built with
     * stays with the VM that came from it. */
    snprintf(
        body, sizeof(body),
        "{\"name\":\"web\",\"accel\":\"tcg\",\"memory\":{\"size_mib\":32},\"boot\":{\"kernel\":"
        "\"%s\",\"cmdline\":\"quiet\"},\"agent\":{\"channel\":\"serial\"},\"park\":\"running\"}",
        sup_guest_file("tiny.elf"));
    free(dmn_call(&g.d, 202, "POST", "/v1/pools/web/drain", NULL));
    free(dmn_call(&g.d, 201, "POST", "/v1/templates", body));
    free(dmn_call(&g.d, 204, "DELETE", "/v1/classes/pinned", NULL));
    free(dmn_call(&g.d, 204, "DELETE", "/v1/assets/guest", NULL));
    cr_expect_eq(gc(&g.d, false, removed), 0, "%s was removed", removed);
    gst_release(&g.d, id);
    free(dmn_call(&g.d, 204, "DELETE", "/v1/templates/web", NULL));
    cr_expect_eq(gc(&g.d, false, digest), 1);
    cr_expect_str_eq(digest, kernel_digest);
    gst_close(&g);
}

/* Tokens and passwords stay in their files. */
Test(api_assets, secrets_are_not_shown)
{
    char body[900], *text, *log;
    struct dmn d;

    dmn_open(&d, NULL);
    gst_write(d.dir, "token", "very-secret-token\n", 0600);
    snprintf(body, sizeof(body),
             "{\"name\":\"tool\",\"kind\":\"vmm\",\"files\":{\"" HERE
             "\":{\"url\":\"http://127.0.0.1:1/tool\",\"sha256\":"
             "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}},"
             "\"bearer_file\":\"%s/token\"}",
             d.dir);
    free(dmn_call(&d, 200, "PUT", "/v1/assets/tool", body));
    free(dmn_call(&d, 202, "POST", "/v1/assets/tool/fetch", NULL));
    dmn_wait_for(&d, "/v1/assets/tool", "fetch.attempts", 1);
    for (bool running = true; running;) {
        struct vf_json *j;

        text = dmn_call(&d, 200, "GET", "/v1/assets/tool", NULL);
        cr_expect_null(strstr(text, "very-secret"), "%s", text);
        cr_expect_not_null(strstr(text, "/token"));
        j = vf_json_parse(text, strlen(text));
        running = vf_json_bool(dmn_get(j, "fetch.running"), false);
        vf_json_delete(j);
        free(text);
    }
    text = dmn_call(&d, 200, "GET", "/v1/events?since=0&follow=false", NULL);
    cr_expect_not_null(strstr(text, "asset.fetch_failed"));
    cr_expect_null(strstr(text, "very-secret"));
    free(text);
    log = dmn_log(&d);
    cr_expect_null(strstr(log, "very-secret"));
    free(log);
    dmn_close(&d);
}

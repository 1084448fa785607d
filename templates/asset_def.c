/* An asset's definition: its table, what is right for one beyond that, reading and writing it. See assets.h.
 *
 * Whatever could leak is refused here once and for all: credentials in a URL (they would show up in messages, logs and
 * the API), and plain http to anywhere but this host.
 */
#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include "base/fd.h"
#include "base/utf8.h"
#include "templates/asset_internal.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define URL_MAX 2048
static_assert(VF_ASSET_URL_SIZE > URL_MAX, "room for it");

const char *const vf_asset_kind_names[] = {"vmm", "kernel", "initrd", "image", NULL};
static_assert(COUNT(vf_asset_kind_names) == VF_ASSET_KIND_IMAGE + 2, "a name for each kind");

#define ASSET(member) offsetof(struct vf_asset, member)
#define IN(object, member) (ASSET(object.member) - ASSET(object))

static const struct vf_json_field file_fields[] = {
    {.name = "url",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct vf_asset_file, url),
     .min = 1,
     .max = URL_MAX,
     .required = true,
     .help = "Where it is: https://, file:///, or http:// to this host itself. Without "
             "credentials."},
    {.name = "sha256",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct vf_asset_file, sha256),
     .max = 128,
     .help = "Its SHA-256, 64 hexadecimal digits. Always needed."},
    {.name = "size",
     .type = VF_JSON_INT,
     .offset = offsetof(struct vf_asset_file, size),
     .min = 0,
     .max = VF_ASSET_SIZE_MAX,
     .help = "Its size in bytes; more is never taken. Default 0: not known beforehand."},
    {.name = NULL},
};

static const struct vf_json_field files_fields[] = {
    {.name = "x86_64",
     .type = VF_JSON_OBJECT,
     .offset = IN(files, x86_64),
     .fields = file_fields,
     .help = "The file for x86_64 hosts."},
    {.name = "aarch64",
     .type = VF_JSON_OBJECT,
     .offset = IN(files, aarch64),
     .fields = file_fields,
     .help = "The file for aarch64 hosts."},
    {.name = NULL},
};

const struct vf_json_field vf_asset_fields[] = {
    {.name = "name",
     .type = VF_JSON_STRING,
     .offset = ASSET(name),
     .min = 1,
     .max = VF_ASSET_NAME_MAX,
     .required = true,
     .help =
         "The asset's name: lower-case letters, digits, dots, underscores and hyphens, a letter "
         "or digit first."},
    {.name = "kind",
     .type = VF_JSON_ENUM,
     .offset = ASSET(kind),
     .choices = vf_asset_kind_names,
     .required = true,
     .help = "What it is. A vmm is made executable."},
    {.name = "files",
     .type = VF_JSON_OBJECT,
     .offset = ASSET(files),
     .fields = files_fields,
     .required = true,
     .help = "The file for each architecture; at least one."},
    {.name = "bearer_file",
     .type = VF_JSON_STRING,
     .offset = ASSET(bearer_file),
     .min = 1,
     .max = PATH_MAX - 1,
     .help = "Absolute path of a file with a token that the server is shown. Default: none."},
    {.name = "basic_file",
     .type = VF_JSON_STRING,
     .offset = ASSET(basic_file),
     .min = 1,
     .max = PATH_MAX - 1,
     .help = "Absolute path of a file with user:password for the server. Default: none."},
    {.name = "ca_file",
     .type = VF_JSON_STRING,
     .offset = ASSET(ca_file),
     .min = 1,
     .max = PATH_MAX - 1,
     .help = "Absolute path of the certificates (PEM) to trust. Default: the host's."},
    {.name = "proxy",
     .type = VF_JSON_STRING,
     .offset = ASSET(proxy),
     .min = 1,
     .max = URL_MAX,
     .help = "URL of a proxy. Default: what https_proxy and no_proxy say in the environment."},
    {.name = NULL},
};

/* --- checks */

bool vf_asset_name_ok(const char *name)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(name);

    return len >= 1 && len <= VF_ASSET_NAME_MAX && strchr(first, name[0]) != NULL &&
           strspn(name, allowed) == len;
}

bool vf_asset_digest_ok(const char *sha256)
{
    return strlen(sha256) == VF_SHA256_HEX - 1 &&
           strspn(sha256, "0123456789abcdef") == VF_SHA256_HEX - 1;
}

static int check_file(const struct vf_asset_file *f, const char *arch, struct vf_error *err)
{
    char field[64];
    uint8_t digest[VF_SHA256_LEN];
    int r;

    snprintf(field, sizeof(field), "files.%s.url", arch);
    r = vf_asset_check_url(f->url, field, true, err);
    if (r < 0)
        return r;
    if (f->sha256 == NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "files.%s.sha256: is missing: an asset is always pinned by its digest", arch);
        return vf_hint(err, "take it from who publishes the file, or from sha256sum of one that "
                            "you trust");
    }
    if (vf_unhex(f->sha256, digest, sizeof(digest)) != 0)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "files.%s.sha256: must be 64 hexadecimal digits (is %zu characters)", arch,
                       strlen(f->sha256));
    if (f->size < 0 || f->size > VF_ASSET_SIZE_MAX)
        return vf_fail(err, VF_INVALID_ARGUMENT, "files.%s.size: must be 0 to %lld bytes", arch,
                       (long long)VF_ASSET_SIZE_MAX);
    return 0;
}

static int check_path(const char *path, const char *field, struct vf_error *err)
{
    int r = path != NULL ? vf_no_control(path, field, err) : 0;

    if (r == 0 && path != NULL && path[0] != '/')
        r = vf_fail(err, VF_INVALID_ARGUMENT, "%s: must be an absolute path (is \"%.256s\")", field,
                    path);
    return r;
}

static int check_proxy(const char *proxy, struct vf_error *err)
{
    static const char *const schemes[] = {"http://", "https://", "socks5://", "socks5h://", NULL};
    size_t i = 0;
    int r;

    if (proxy == NULL)
        return 0;
    r = vf_no_control(proxy, "proxy", err);
    if (r < 0)
        return r;
    while (schemes[i] != NULL && strncmp(proxy, schemes[i], strlen(schemes[i])) != 0)
        i++;
    if (schemes[i] == NULL || proxy[strlen(schemes[i])] == '\0')
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "proxy: must be a URL like http://host:port (also https, socks5, socks5h)");
    if (strchr(proxy, '@') != NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "proxy: must not contain credentials: they would be logged");
        return vf_hint(err, "leave proxy out and set https_proxy in the daemon's environment");
    }
    return 0;
}

static int check(const struct vf_asset *a, struct vf_error *err)
{
    int r = 0;

    if (a->name == NULL || !vf_asset_name_ok(a->name))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "name: must be 1 to %d lower-case letters, digits, dots, underscores and "
                       "hyphens, a letter or digit first",
                       VF_ASSET_NAME_MAX);
    if (a->files.x86_64.url == NULL && a->files.aarch64.url == NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT, "files: must name a file for at least one architecture");
        return vf_hint(err, "for example \"files\":{\"%s\":{\"url\":…,\"sha256\":…}}",
                       vf_host_arch());
    }
    if (a->files.x86_64.url != NULL)
        r = check_file(&a->files.x86_64, "x86_64", err);
    if (r == 0 && a->files.aarch64.url != NULL)
        r = check_file(&a->files.aarch64, "aarch64", err);
    if (r == 0 && a->bearer_file != NULL && a->basic_file != NULL)
        r = vf_fail(err, VF_INVALID_ARGUMENT,
                    "bearer_file, basic_file: only one of them can be; leave out the other");
    if (r == 0)
        r = check_path(a->bearer_file, "bearer_file", err);
    if (r == 0)
        r = check_path(a->basic_file, "basic_file", err);
    if (r == 0)
        r = check_path(a->ca_file, "ca_file", err);
    return r == 0 ? check_proxy(a->proxy, err) : r;
}

/* --- reading and writing */

static void to_lower(char *hex)
{
    for (; hex != NULL && *hex != '\0'; hex++) {
        if (*hex >= 'A' && *hex <= 'F')
            *hex = (char)(*hex - 'A' + 'a');
    }
}

int vf_asset_parse(const char *text, size_t len, const char *where, struct vf_asset *ret,
                   struct vf_error *err)
{
    struct vf_asset a = {0};
    int r = vf_json_decode(text, len, VF_ASSET_MAX_TEXT, vf_asset_fields, &a, where, err);

    if (r == 0) {
        r = check(&a, err);
        if (r < 0 && where != NULL)
            vf_wrap(err, "%s", where);
    }
    if (r < 0) {
        vf_asset_free(&a);
        return r;
    }
    to_lower(a.files.x86_64.sha256);
    to_lower(a.files.aarch64.sha256);
    *ret = a;
    return 0;
}

static void write_file(struct vf_json_writer *w, const char *arch, const struct vf_asset_file *f,
                       bool plain)
{
    char url[VF_ASSET_URL_SIZE];

    if (f->url == NULL)
        return;
    if (plain)
        vf_asset_plain_url(f->url, url, sizeof(url));
    vf_jw_begin(w, arch, '{');
    vf_jw_string(w, "url", plain ? url : f->url);
    if (f->sha256 != NULL)
        vf_jw_string(w, "sha256", f->sha256);
    if (f->size != 0)
        vf_jw_int(w, "size", f->size);
    vf_jw_end(w, '}');
}

/* By hand, for a file that is not there must not be written as an empty one. */
static char *encode(const struct vf_asset *a, bool plain)
{
    VF_CLEANUP_FREE char *compact = NULL;
    struct vf_json_writer w = {0};
    struct vf_json *j;
    char *text;

    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "name", a->name);
    vf_jw_string(&w, "kind", vf_asset_kind_names[a->kind]);
    vf_jw_begin(&w, "files", '{');
    write_file(&w, "x86_64", &a->files.x86_64, plain);
    write_file(&w, "aarch64", &a->files.aarch64, plain);
    vf_jw_end(&w, '}');
    if (a->bearer_file != NULL)
        vf_jw_string(&w, "bearer_file", a->bearer_file);
    if (a->basic_file != NULL)
        vf_jw_string(&w, "basic_file", a->basic_file);
    if (a->ca_file != NULL)
        vf_jw_string(&w, "ca_file", a->ca_file);
    if (a->proxy != NULL)
        vf_jw_string(&w, "proxy", a->proxy);
    vf_jw_end(&w, '}');
    compact = vf_jw_finish(&w);
    j = compact != NULL ? vf_json_parse(compact, strlen(compact)) : NULL;
    text = vf_json_print(j);
    vf_json_delete(j);
    return text;
}

char *vf_asset_encode(const struct vf_asset *a)
{
    return encode(a, false);
}

char *vf_asset_encode_plain(const struct vf_asset *a)
{
    return encode(a, true);
}

/* By way of its text: so a copy is always a checked one. */
int vf_asset_copy(const struct vf_asset *a, struct vf_asset *ret, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = vf_asset_encode(a);

    if (text == NULL)
        return vf_fail(err, VF_NO_MEMORY, "asset %s: no memory", a->name);
    return vf_asset_parse(text, strlen(text), NULL, ret, err);
}

void vf_asset_free(struct vf_asset *a)
{
    if (a == NULL)
        return;
    vf_json_free(vf_asset_fields, a);
    memset(a, 0, sizeof(*a));
}

/* --- this host */

static struct utsname host;

static void ask_host(void)
{
    if (uname(&host) != 0)
        strcpy(host.machine, "unknown");
}

const char *vf_host_arch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, ask_host);
    return host.machine;
}

const struct vf_asset_file *vf_asset_file_here(const struct vf_asset *a)
{
    const struct vf_asset_file *f = NULL;

    if (strcmp(vf_host_arch(), "x86_64") == 0)
        f = &a->files.x86_64;
    else if (strcmp(vf_host_arch(), "aarch64") == 0)
        f = &a->files.aarch64;
    return f != NULL && f->url != NULL ? f : NULL;
}

/* The manifest's table, reading and writing. See manifest.h; manifest_fill.c fills one in.
 *
 * What we write and what we read pass the same checks; only the blame differs: a bad manifest to
 * be written is the caller's mistake, one that was read is damage.
 */
#include "templates/manifest.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "base/hash.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MAX_FILES 64

const char *const vf_asset_role_names[] = {"kernel", "initrd", "root", NULL};
static_assert(COUNT(vf_asset_role_names) == VF_ASSET_ROOT + 2, "a name for each role");

#define M(member) offsetof(struct vf_manifest, member)
#define IN(object, member) (M(object.member) - M(object))
#define FILE_(member) offsetof(struct vf_manifest_file, member)
#define ASSET(member) offsetof(struct vf_manifest_asset, member)

#define STRING(n, o, least, most)                                                          \
    {                                                                                      \
        .name = (n), .type = VF_JSON_STRING, .offset = (o), .min = (least), .max = (most), \
        .required = true                                                                   \
    }
#define INTEGER(n, o, least)                                                               \
    {                                                                                      \
        .name = (n), .type = VF_JSON_INT, .offset = (o), .min = (least), .max = INT64_MAX, \
        .required = true                                                                   \
    }
#define OBJECT(n, o, table)                                                                     \
    {                                                                                           \
        .name = (n), .type = VF_JSON_OBJECT, .offset = (o), .fields = (table), .required = true \
    }
#define SHA256(n, o) STRING(n, o, VF_SHA256_HEX - 1, VF_SHA256_HEX - 1)

static const struct vf_json_field vmm_fields[] = {
    STRING("name", IN(vmm, name), 1, 32),
    STRING("version", IN(vmm, version), 1, 64),
    {.name = "path",
     .type = VF_JSON_STRING,
     .offset = IN(vmm, path),
     .min = 1,
     .max = PATH_MAX - 1},
    INTEGER("size", IN(vmm, size), 0),
    {.name = "sha256",
     .type = VF_JSON_STRING,
     .offset = IN(vmm, sha256),
     .min = VF_SHA256_HEX - 1,
     .max = VF_SHA256_HEX - 1},
    {.name = "accel",
     .type = VF_JSON_ENUM,
     .offset = IN(vmm, accel),
     .min = VF_ACCEL_KVM,
     .choices = vf_accel_names,
     .required = true},
    {.name = "class",
     .type = VF_JSON_STRING,
     .offset = IN(vmm, class_name),
     .min = 1,
     .max = VF_CLASS_NAME_MAX},
    {.name = "sandbox", .type = VF_JSON_BOOL, .offset = IN(vmm, sandbox)},
    {.name = NULL},
};

static const struct vf_json_field host_fields[] = {
    STRING("cpu_model", IN(host, cpu_model), 1, 256),
    SHA256("cpu_flags_sha256", IN(host, cpu_flags_sha256)),
    STRING("kernel", IN(host, kernel), 1, 256),
    {.name = NULL},
};

static const struct vf_json_field file_fields[] = {
    STRING("name", FILE_(name), 1, NAME_MAX),
    INTEGER("size", FILE_(size), 0),
    SHA256("sha256", FILE_(sha256)),
    {.name = NULL},
};

static const struct vf_json_field asset_fields[] = {
    {.name = "role",
     .type = VF_JSON_ENUM,
     .offset = ASSET(role),
     .choices = vf_asset_role_names,
     .required = true},
    STRING("path", ASSET(path), 1, PATH_MAX - 1),
    INTEGER("size", ASSET(size), 1),
    SHA256("sha256", ASSET(sha256)),
    {.name = NULL},
};

static const struct vf_json_field stats_fields[] = {
    INTEGER("boot_us", IN(stats, boot_us), 0),
    INTEGER("warmup_us", IN(stats, warmup_us), 0),
    INTEGER("pause_us", IN(stats, pause_us), 0),
    INTEGER("save_us", IN(stats, save_us), 0),
    INTEGER("stop_us", IN(stats, stop_us), 0),
    INTEGER("memory_us", IN(stats, memory_us), 0),
    {.name = NULL},
};

static const struct vf_json_field manifest_fields[] = {
    INTEGER("format", M(format), 1),
    STRING("template", M(template_name), 1, VF_SPEC_NAME_MAX),
    INTEGER("generation", M(generation), 1),
    STRING("created", M(created), 20, 20),
    OBJECT("spec", M(spec), vf_spec_fields),
    OBJECT("vmm", M(vmm), vmm_fields),
    OBJECT("host", M(host), host_fields),
    {.name = "files",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = M(files),
     .max = MAX_FILES,
     .fields = file_fields,
     .item_size = sizeof(struct vf_manifest_file),
     .required = true},
    {.name = "assets",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = M(assets),
     .max = MAX_FILES,
     .fields = asset_fields,
     .item_size = sizeof(struct vf_manifest_asset),
     .required = true},
    STRING("boot_id", M(boot_id), 32, 32),
    STRING("nonce", M(nonce), 64, 64),
    {.name = "sample", .type = VF_JSON_STRING, .offset = M(sample), .max = 128},
    INTEGER("memory_size", M(memory_size), 1),
    OBJECT("stats", M(stats), stats_fields),
    {.name = NULL},
};

void vf_manifest_init(struct vf_manifest *ret_m)
{
    memset(ret_m, 0, sizeof(*ret_m));
    ret_m->format = VF_MANIFEST_FORMAT;
    ret_m->vmm.sandbox = true;
    vf_spec_init_blank(&ret_m->spec);
}

void vf_manifest_free(struct vf_manifest *m)
{
    if (m == NULL)
        return;
    vf_json_free(manifest_fields, m);
    memset(m, 0, sizeof(*m));
}

static struct vf_manifest_file *files_of(const struct vf_manifest *m)
{
    return (struct vf_manifest_file *)m->files.items;
}

static struct vf_manifest_asset *assets_of(const struct vf_manifest *m)
{
    return (struct vf_manifest_asset *)m->assets.items;
}

const struct vf_manifest_file *vf_manifest_file(const struct vf_manifest *m, const char *name)
{
    for (size_t i = 0; i < m->files.n; i++) {
        if (strcmp(files_of(m)[i].name, name) == 0)
            return &files_of(m)[i];
    }
    return NULL;
}

const struct vf_manifest_asset *vf_manifest_asset(const struct vf_manifest *m,
                                                  enum vf_asset_role role)
{
    for (size_t i = 0; i < m->assets.n; i++) {
        if (assets_of(m)[i].role == (int)role)
            return &assets_of(m)[i];
    }
    return NULL;
}

/* --- checks beyond the table */

static int check_hex(const char *s, const char *field, struct vf_error *err)
{
    if (s != NULL && (strlen(s) % 2 != 0 || s[strspn(s, "0123456789abcdef")] != '\0'))
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: must be lower-case hexadecimal", field);
    return 0;
}

bool vf_manifest_file_name_ok(const char *name)
{
    if (name[0] == '\0' || name[0] == '.' || strlen(name) > NAME_MAX ||
        strcmp(name, VF_MANIFEST_NAME) == 0 || strcmp(name, VF_QUARANTINED_NAME) == 0)
        return false;
    for (const char *p = name; *p != '\0'; p++) {
        if ((unsigned char)*p <= 0x20 || *p == 0x7f || *p == '/')
            return false;
    }
    return true;
}

static int check_files(const struct vf_manifest *m, struct vf_error *err)
{
    const struct vf_manifest_file *memory = vf_manifest_file(m, VF_MEMORY_NAME);

    for (size_t i = 0; i < m->files.n; i++) {
        const struct vf_manifest_file *f = &files_of(m)[i];

        if (!vf_manifest_file_name_ok(f->name))
            return vf_fail(err, VF_INVALID_ARGUMENT, "files[%zu].name: is no name for a file", i);
        if (vf_manifest_file(m, f->name) != f)
            return vf_fail(err, VF_INVALID_ARGUMENT, "files[%zu].name: \"%s\" is listed twice", i,
                           f->name);
        if (check_hex(f->sha256, "sha256", err) != 0)
            return vf_wrap(err, "files[%zu]", i);
    }
    if (memory != NULL && memory->size != m->memory_size)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "memory_size: is %" PRId64 ", but the file \"" VF_MEMORY_NAME
                       "\" has %" PRId64,
                       m->memory_size, memory->size);
    return 0;
}

static int check_assets(const struct vf_manifest *m, struct vf_error *err)
{
    for (size_t i = 0; i < m->assets.n; i++) {
        const struct vf_manifest_asset *a = &assets_of(m)[i];

        if (a->path[0] != '/')
            return vf_fail(err, VF_INVALID_ARGUMENT, "assets[%zu].path: must be absolute", i);
        if (vf_manifest_asset(m, (enum vf_asset_role)a->role) != a)
            return vf_fail(err, VF_INVALID_ARGUMENT, "assets[%zu].role: \"%s\" is listed twice", i,
                           vf_asset_role_names[a->role]);
        if (check_hex(a->sha256, "sha256", err) != 0)
            return vf_wrap(err, "assets[%zu]", i);
    }
    return 0;
}

static int vmm_of(const struct vf_manifest *m)
{
    for (int i = 0; vf_spec_vmm_names[i] != NULL; i++) {
        if (strcmp(vf_spec_vmm_names[i], m->vmm.name) == 0)
            return i;
    }
    return -1;
}

static int check_manifest(const struct vf_manifest *m, struct vf_error *err)
{
    int r = vf_spec_check(&m->spec, err);

    if (r < 0)
        return vf_wrap(err, "spec");
    if (strcmp(m->template_name, m->spec.name) != 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "template: is \"%s\", but spec.name is \"%s\"",
                       m->template_name, m->spec.name);
    if ((uint64_t)m->memory_size != vf_spec_memory_bytes(&m->spec))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "memory_size: is %" PRId64 ", but spec.memory.size_mib is %" PRId64,
                       m->memory_size, m->spec.memory.size_mib);
    if (vmm_of(m) < 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "vmm.name: \"%s\" is no VMM", m->vmm.name);
    if (vf_spec_knows_vmm(&m->spec) && m->spec.vmm != vmm_of(m))
        return vf_fail(err, VF_INVALID_ARGUMENT, "vmm.name: is \"%s\", but spec.vmm is \"%s\"",
                       m->vmm.name, vf_spec_vmm_names[m->spec.vmm]);
    if ((m->vmm.path == NULL) != (m->vmm.sha256 == NULL))
        return vf_fail(err, VF_INVALID_ARGUMENT, "vmm: must have both path and sha256, or neither");
    if (m->vmm.path != NULL && m->vmm.path[0] != '/')
        return vf_fail(err, VF_INVALID_ARGUMENT, "vmm.path: must be absolute");
    r = check_hex(m->vmm.sha256, "vmm.sha256", err);
    if (r == 0)
        r = check_hex(m->host.cpu_flags_sha256, "host.cpu_flags_sha256", err);
    if (r == 0)
        r = check_hex(m->boot_id, "boot_id", err);
    if (r == 0)
        r = check_hex(m->nonce, "nonce", err);
    if (r == 0)
        r = check_hex(m->sample, "sample", err);
    if (r == 0)
        r = check_files(m, err);
    return r == 0 ? check_assets(m, err) : r;
}

/* Decodes and checks; any fault is the text's. */
static int decode(const char *text, size_t len, struct vf_manifest *ret_m, struct vf_error *err)
{
    struct vf_manifest m;
    int r;

    vf_manifest_init(&m);
    r = vf_json_decode(text, len, VF_MANIFEST_MAX_TEXT, manifest_fields, &m, NULL, err);
    if (r == 0 && vf_spec_complete(&m.spec, err) < 0)
        r = vf_wrap(err, "spec");
    if (r == 0)
        r = check_manifest(&m, err);
    if (r == 0 && vf_spec_settle(&m.spec, (enum vf_spec_vmm)vmm_of(&m), err) < 0)
        r = vf_wrap(err, "spec");
    if (r < 0) {
        vf_manifest_free(&m);
        return r;
    }
    *ret_m = m;
    return 0;
}

int vf_manifest_encode(const struct vf_manifest *m, char **ret_text, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = vf_json_encode(manifest_fields, m);
    struct vf_manifest check;
    int r;

    if (text == NULL)
        return vf_fail(err, VF_NO_MEMORY, VF_MANIFEST_NAME ": no memory to write it");
    /* What we could not read back must not be written. */
    r = decode(text, strlen(text), &check, err);
    if (r < 0)
        return vf_wrap(err, VF_MANIFEST_NAME);
    vf_manifest_free(&check);
    *ret_text = vf_steal_str(&text);
    return 0;
}

/* The format decides before anything else is looked at: a newer one may look different. */
static int check_format(const char *text, size_t len, struct vf_error *err)
{
    struct vf_json *j = vf_json_parse(text, len);
    int64_t format = vf_json_int(vf_json_get(j, "format"), VF_MANIFEST_FORMAT);

    vf_json_delete(j);
    if (format <= VF_MANIFEST_FORMAT)
        return 0; /* one that is too small the table refuses */
    vf_fail(err, VF_UNSUPPORTED,
            VF_MANIFEST_NAME ": format: is %" PRId64 ", newer than this program knows (%d)", format,
            VF_MANIFEST_FORMAT);
    return vf_hint(err, "use the vmfactory that wrote it, or build the template again");
}

int vf_manifest_decode(const char *text, size_t len, struct vf_manifest *ret_m,
                       struct vf_error *err)
{
    struct vf_error inner = {0};
    int r = check_format(text, len, err);

    if (r < 0)
        return r;
    r = decode(text, len, ret_m, &inner);
    if (r == 0)
        return 0;
    if (inner.code == VF_INVALID_ARGUMENT)
        inner.code = VF_CORRUPT;
    inner.hint[0] = '\0'; /* those are for who writes a spec */
    vf_wrap(&inner, VF_MANIFEST_NAME);
    if (inner.code == VF_CORRUPT)
        vf_hint(&inner, "build the template again");
    return vf_error_copy(err, &inner);
}

int vf_manifest_read(int dirfd, struct vf_manifest *ret_m, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL;
    struct vf_error inner = {0};
    size_t len = 0;
    int r = vf_read_file(dirfd, VF_MANIFEST_NAME, VF_MANIFEST_MAX_TEXT, &text, &len, &inner);

    if (r == 0)
        return vf_manifest_decode(text, len, ret_m, err);
    if (inner.code == VF_NOT_FOUND)
        return vf_fail(err, VF_CORRUPT, VF_MANIFEST_NAME ": is missing");
    if (inner.code == VF_INVALID_ARGUMENT) /* no regular file, or too long */
        inner.code = VF_CORRUPT;
    return vf_error_copy(err, &inner);
}

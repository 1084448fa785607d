/* A runtime class by itself: its table, reading, checking and writing it. What only the whole set can tell (assets,
 * defaults, this host) is registry.c's. See registry.h.
 *
 * text -> strict decoding -> the words that this VMM has, or why it can't have them
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include "templates/registry_internal.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

#define CLASS(member) offsetof(struct vf_class, member)
#define IN(object, member) (CLASS(object.member) - CLASS(object))
#define NAME(n, member, h)                                                                       \
    {                                                                                            \
        .name = (n), .type = VF_JSON_STRING, .offset = offsetof(struct vf_class_assets, member), \
        .min = 1, .max = VF_ASSET_NAME_MAX, .help = (h)                                          \
    }

/* What `restore_mode` may be called; only the first is taken. */
enum { RESTORE_COPY, RESTORE_ON_DEMAND };
static const char *const restore_mode_names[] = {"copy", "on-demand", NULL};
static_assert(COUNT(restore_mode_names) == RESTORE_ON_DEMAND + 2, "a name for each restore mode");

static const struct vf_json_field arch_fields[] = {
    NAME("vmm", vmm,
         "The asset with the VMM's binary. Default: the host's own binary, not pinned."),
    NAME("kernel", kernel, "The asset that specs of this class boot if they name no kernel."),
    NAME("initrd", initrd, "The initramfs that goes with this kernel."),
    NAME("root", root, "The root disk's image, for specs of this class that name none."),
    {.name = NULL},
};

static const struct vf_json_field assets_fields[] = {
    {.name = "x86_64",
     .type = VF_JSON_OBJECT,
     .offset = IN(assets, x86_64),
     .fields = arch_fields,
     .present = IN(assets, has_x86_64),
     .help = "On x86_64 hosts: names of assets."},
    {.name = "aarch64",
     .type = VF_JSON_OBJECT,
     .offset = IN(assets, aarch64),
     .fields = arch_fields,
     .present = IN(assets, has_aarch64),
     .help = "On aarch64 hosts: names of assets."},
    {.name = NULL},
};

static const struct vf_json_field options_fields[] = {
    {.name = "sandbox",
     .type = VF_JSON_BOOL,
     .offset = IN(options, sandbox),
     .help = "Whether the VMM's own sandbox (seccomp) is on. Default true."},
    {.name = "restore_mode",
     .type = VF_JSON_ENUM,
     .offset = IN(options, restore_mode),
     .choices = restore_mode_names,
     .help =
         "How a clone gets at its memory; only copy, which copies nothing that is shared. Default "
         "copy."},
    {.name = "prefault",
     .type = VF_JSON_BOOL,
     .offset = IN(options, prefault),
     .help = "Known, but refused if true: it would end the sharing of memory between clones."},
    {.name = "mergeable",
     .type = VF_JSON_BOOL,
     .offset = IN(options, mergeable),
     .help = "Known, but refused if true: the memory of clones is shared already."},
    {.name = NULL},
};

const struct vf_json_field vf_class_fields[] = {
    {.name = "name",
     .type = VF_JSON_STRING,
     .offset = CLASS(name),
     .min = 1,
     .max = VF_CLASS_NAME_MAX,
     .required = true,
     .help =
         "The class's name: lower-case letters, digits, '.', '_' and '-', a letter or digit first; "
         "not a VMM's, those are the built-in classes'."},
    {.name = "vmm",
     .type = VF_JSON_ENUM,
     .offset = CLASS(vmm),
     .choices = vf_spec_vmm_names,
     .required = true,
     .help = "Which VMM runs the templates of this class."},
    {.name = "default",
     .type = VF_JSON_BOOL,
     .offset = CLASS(is_default),
     .help = "Whether specs that name no class get this one, in place of the VMM's built-in class. "
             "Default false."},
    {.name = "assets",
     .type = VF_JSON_OBJECT,
     .offset = CLASS(assets),
     .fields = assets_fields,
     .help = "What is pinned, for each architecture. Default: nothing."},
    {.name = "options",
     .type = VF_JSON_OBJECT,
     .offset = CLASS(options),
     .fields = options_fields,
     .help = "How the VMM runs."},
    {.name = NULL},
};

const struct vf_class_assets *vf_class_assets_for(const struct vf_class *c, const char *arch)
{
    if (strcmp(arch, "x86_64") == 0)
        return c->assets.has_x86_64 ? &c->assets.x86_64 : NULL;
    if (strcmp(arch, "aarch64") == 0)
        return c->assets.has_aarch64 ? &c->assets.aarch64 : NULL;
    return NULL;
}

void vf_class_init(struct vf_class *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->options.sandbox = true;
}

void vf_class_free(struct vf_class *c)
{
    if (c == NULL)
        return;
    vf_json_free(vf_class_fields, c);
    memset(c, 0, sizeof(*c));
}

/* --- checks beyond the table */

/* Cloud Hypervisor has all of these words; a clone can't have what they stand for. The others have none of them. */
static int no_option(const struct vf_class *c, const char *option, const char *reason,
                     struct vf_error *err)
{
    const char *vmm = vf_spec_vmm_names[c->vmm];

    if (c->vmm != VF_SPEC_VMM_CLOUD_HYPERVISOR) {
        vf_fail(err, VF_INVALID_ARGUMENT, "options.%s: %s has no such option", option, vmm);
        return vf_hint(err, "leave it out");
    }
    vf_fail(err, VF_INVALID_ARGUMENT, "options.%s: clones can't have it: %s", option, reason);
    return vf_hint(err, "leave it out");
}

static int check_options(const struct vf_class *c, struct vf_error *err)
{
    if (c->options.restore_mode == RESTORE_ON_DEMAND)
        return no_option(
            c, "restore_mode",
            "a template's memory is a file that all clones map, so the saved state holds "
            "none that could be fetched on demand",
            err);
    if (c->options.prefault)
        return no_option(c, "prefault",
                         "populating all memory at the start would copy what they share with their "
                         "template",
                         err);
    if (c->options.mergeable)
        return no_option(c, "mergeable",
                         "merging pages would scan what they share with their template already",
                         err);
    return 0;
}

static bool any(const struct vf_class_assets *a)
{
    return a->vmm != NULL || a->kernel != NULL || a->initrd != NULL || a->root != NULL;
}

static int check_arch(const struct vf_class *c, const struct vf_class_assets *a, const char *arch,
                      struct vf_error *err)
{
    if (!any(a))
        return vf_fail(err, VF_INVALID_ARGUMENT, "assets.%s: must name at least one asset", arch);
    if (a->vmm != NULL && c->vmm == VF_SPEC_VMM_NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "assets.%s.vmm: null has no binary", arch);
    if (a->initrd != NULL && a->kernel == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "assets.%s.initrd: makes no sense without a kernel", arch);
    return 0;
}

int vf_class_check(const struct vf_class *c, struct vf_error *err)
{
    int r = 0;

    if (c->name == NULL || !vf_asset_name_ok(c->name)) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "name: must be 1 to %d lower-case letters, digits, '.', '_' and '-', a letter or "
                "digit first",
                VF_CLASS_NAME_MAX);
        return vf_hint(err, "for example \"firecracker-1.16\"");
    }
    for (int i = 0; vf_spec_vmm_names[i] != NULL; i++) {
        if (strcmp(c->name, vf_spec_vmm_names[i]) == 0) {
            vf_fail(err, VF_INVALID_ARGUMENT, "name: \"%s\" is the built-in class of that VMM",
                    c->name);
            return vf_hint(err,
                           "call it \"%s-1\", say; with \"default\": true it takes the "
                           "built-in one's place",
                           c->name);
        }
    }
    if (c->assets.has_x86_64)
        r = check_arch(c, &c->assets.x86_64, "x86_64", err);
    if (r == 0 && c->assets.has_aarch64)
        r = check_arch(c, &c->assets.aarch64, "aarch64", err);
    return r == 0 ? check_options(c, err) : r;
}

int vf_class_parse(const char *text, size_t len, const char *where, struct vf_class *ret,
                   struct vf_error *err)
{
    struct vf_class c;
    int r;

    vf_class_init(&c);
    r = vf_json_decode(text, len, VF_CLASS_MAX_TEXT, vf_class_fields, &c, where, err);
    if (r == 0) {
        r = vf_class_check(&c, err);
        if (r < 0 && where != NULL)
            vf_wrap(err, "%s", where);
    }
    if (r < 0) {
        vf_class_free(&c);
        return r;
    }
    *ret = c;
    return 0;
}

char *vf_class_encode(const struct vf_class *c)
{
    return vf_json_encode(vf_class_fields, c);
}

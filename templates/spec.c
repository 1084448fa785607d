/* The spec's table, and reading, copying and writing specs. See spec.h; spec_check.c checks what
 * the table can't say, spec_network.c is about the network. */
#include "templates/spec.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/spec_network.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const char *const vf_spec_vmm_names[] = {"qemu", "null", "cloud-hypervisor", "firecracker", NULL};
static_assert(COUNT(vf_spec_vmm_names) == VF_SPEC_VMM_COUNT + 1, "a name for each VMM");
const char *const vf_image_format_names[] = {"raw", "qcow2", NULL};
static_assert(COUNT(vf_image_format_names) == VF_IMAGE_QCOW2 + 2, "a name for each image format");
const char *const vf_park_names[] = {"auto", "paused", "running", NULL};
static_assert(COUNT(vf_park_names) == VF_PARK_RUNNING + 2, "a name for each way to park");

#define SPEC(member) offsetof(struct vf_spec, member)
/* A member of an object within the spec, counted from that object. */
#define IN(object, member) (SPEC(object.member) - SPEC(object))

static const struct vf_json_field memory_fields[] = {
    {.name = "size_mib",
     .type = VF_JSON_INT,
     .offset = IN(memory, size_mib),
     .min = 16,
     .max = 1048576,
     .help = "Guest memory in MiB; at most what the host has. Default 256."},
    {.name = NULL},
};

static const struct vf_json_field root_fields[] = {
    {.name = "image",
     .type = VF_JSON_STRING,
     .offset = IN(boot.root, image),
     .min = 1,
     .max = PATH_MAX - 1,
     .required = true,
     .help = "The image file. It is only read: the template and each clone write to overlays of "
             "their own. It must not change as long as generations made from it are used."},
    {.name = "format",
     .type = VF_JSON_ENUM,
     .offset = IN(boot.root, format),
     .choices = vf_image_format_names,
     .help = "What the image file is; firecracker takes raw only. Default raw."},
    {.name = NULL},
};

static const struct vf_json_field boot_fields[] = {
    {.name = "kernel",
     .type = VF_JSON_STRING,
     .offset = IN(boot, kernel),
     .min = 1,
     .max = PATH_MAX - 1,
     .help =
         "The kernel: a bzImage (qemu, cloud-hypervisor), or an ELF file with a PVH entry. Needed "
         "unless the class named here has one. A relative path is seen from the directory the "
         "spec is in; so it is for the other files."},
    {.name = "initrd",
     .type = VF_JSON_STRING,
     .offset = IN(boot, initrd),
     .min = 1,
     .max = PATH_MAX - 1,
     .help = "The initramfs. Default: none."},
    {.name = "root",
     .type = VF_JSON_OBJECT,
     .offset = IN(boot, root),
     .fields = root_fields,
     .present = IN(boot, has_root),
     .help = "A root disk. Default: none."},
    {.name = "cmdline",
     .type = VF_JSON_STRING,
     .offset = IN(boot, cmdline),
     .max = VF_SPEC_CMDLINE_MAX,
     .help = "The kernel's command line, without control characters. Default: none."},
    {.name = NULL},
};

static const struct vf_json_field agent_fields[] = {
    {.name = "channel",
     .type = VF_JSON_ENUM,
     .offset = IN(agent, channel),
     .min = VF_CHANNEL_VIRTIO_SERIAL,
     .choices = vf_channel_names,
     .present = IN(agent, has_channel),
     .help =
         "What the guest agent talks over: virtio-serial on qemu, vsock on cloud-hypervisor and "
         "firecracker, which are the defaults there; serial, the serial port, on any."},
    {.name = "ready_timeout_ms",
     .type = VF_JSON_INT,
     .offset = IN(agent, ready_timeout_ms),
     .min = 1,
     .max = 3600000,
     .help = "How long after its start the guest's agent may take to answer, in ms. Default "
             "60000."},
    {.name = NULL},
};

static const struct vf_json_field warmup_fields[] = {
    {.name = "commands",
     .type = VF_JSON_STRING_ARRAYS,
     .offset = IN(warmup, commands),
     .min = 0,
     .max = 64,
     .help = "Commands run in the guest before it is saved, in this order, each an array of the "
             "program and its arguments. One that fails fails the build. Default: none."},
    {.name = "timeout_ms",
     .type = VF_JSON_INT,
     .offset = IN(warmup, timeout_ms),
     .min = 1,
     .max = 3600000,
     .help = "How long each of them may take, in ms. Default 60000."},
    {.name = NULL},
};

const struct vf_json_field vf_spec_fields[] = {
    {.name = "name",
     .type = VF_JSON_STRING,
     .offset = SPEC(name),
     .min = 1,
     .max = VF_SPEC_NAME_MAX,
     .required = true,
     .help = "The template's name: lower-case letters, digits and hyphens, not a hyphen first."},
    {.name = "class",
     .type = VF_JSON_STRING,
     .offset = SPEC(class_name),
     .min = 1,
     .max = VF_SPEC_CLASS_MAX,
     .help = "Which runtime class; default: the VMM's default class."},
    {.name = "vmm",
     .type = VF_JSON_ENUM,
     .offset = SPEC(vmm),
     .choices = vf_spec_vmm_names,
     .present = SPEC(has_vmm),
     .help =
         "Which VMM runs it; null is one in memory, for tests. Default: the class's, or qemu if no "
         "class is named. It must not contradict the class."},
    {.name = "machine",
     .type = VF_JSON_ENUM,
     .offset = SPEC(machine),
     .choices = vf_machine_names,
     .help = "The machine type, which only qemu has. Default microvm."},
    {.name = "accel",
     .type = VF_JSON_ENUM,
     .offset = SPEC(accel),
     .choices = vf_accel_names,
     .help = "kvm, tcg (emulation, which only qemu has), or auto: kvm where it works, else tcg. "
             "Default auto."},
    {.name = "vcpus",
     .type = VF_JSON_INT,
     .offset = SPEC(vcpus),
     .min = 1,
     .max = 64,
     .help = "How many CPUs the guest has. Default 1."},
    {.name = "memory",
     .type = VF_JSON_OBJECT,
     .offset = SPEC(memory),
     .fields = memory_fields,
     .help = "The guest's memory."},
    {.name = "boot",
     .type = VF_JSON_OBJECT,
     .offset = SPEC(boot),
     .fields = boot_fields,
     .help = "What the guest boots from."},
    {.name = "network",
     .type = VF_JSON_OBJECT,
     .offset = SPEC(network),
     .fields = vf_spec_network_fields,
     .present = SPEC(network.given),
     .help = "The guest's network. Default: none; {} is mode nat."},
    {.name = "agent",
     .type = VF_JSON_OBJECT,
     .offset = SPEC(agent),
     .fields = agent_fields,
     .help = "The agent in the guest."},
    {.name = "warmup",
     .type = VF_JSON_OBJECT,
     .offset = SPEC(warmup),
     .fields = warmup_fields,
     .help = "What the guest does before it becomes a template."},
    {.name = "balloon",
     .type = VF_JSON_BOOL,
     .offset = SPEC(balloon),
     .help = "Whether the VM has a balloon, to take memory back from it. Default false."},
    {.name = "park",
     .type = VF_JSON_ENUM,
     .offset = SPEC(park),
     .choices = vf_park_names,
     .help =
         "How a clone waits to be handed out: paused takes no CPU, running is ready at once, auto "
         "is paused where the VMM can (all but firecracker). Default auto."},
    {.name = NULL},
};

void vf_spec_init(struct vf_spec *ret_spec)
{
    vf_spec_init_blank(ret_spec);
    ret_spec->has_vmm = true;
    ret_spec->agent.channel = VF_CHANNEL_VIRTIO_SERIAL;
    ret_spec->agent.has_channel = true;
    ret_spec->network.given = ret_spec->network.has_mode = true;
}

void vf_spec_init_blank(struct vf_spec *ret_spec)
{
    memset(ret_spec, 0, sizeof(*ret_spec));
    ret_spec->vcpus = 1;
    ret_spec->memory.size_mib = 256;
    ret_spec->agent.channel = VF_CHANNEL_SERIAL; /* any VMM has it */
    ret_spec->agent.ready_timeout_ms = 60000;
    ret_spec->warmup.timeout_ms = 60000;
    ret_spec->network.mtu = 1500;
}

int vf_spec_complete(struct vf_spec *spec, struct vf_error *err)
{
    return vf_spec_network_complete(spec, err);
}

void vf_spec_free(struct vf_spec *spec)
{
    if (spec == NULL)
        return;
    vf_json_free(vf_spec_fields, spec);
    memset(spec, 0, sizeof(*spec));
}

/* Makes *path absolute as seen from base_dir. */
static int make_absolute(char **path, const char *base_dir, const char *field, struct vf_error *err)
{
    char *joined = NULL;

    if (*path == NULL || (*path)[0] == '/')
        return 0;
    if (base_dir == NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: must be an absolute path (is \"%s\")", field, *path);
        return vf_hint(err, "only in a spec read from a file is a relative path seen from "
                            "somewhere");
    }
    if (asprintf(&joined, "%s/%s", strcmp(base_dir, "/") == 0 ? "" : base_dir, *path) < 0)
        return vf_fail(err, VF_NO_MEMORY, "%s: no memory", field);
    free(*path);
    *path = joined;
    return 0;
}

/* What follows from a VMM that the spec itself tells. */
static void spell_out(struct vf_spec *s)
{
    if (!vf_spec_knows_vmm(s))
        return;
    s->has_vmm = true; /* no class and no VMM: qemu's default class */
    if (!s->agent.has_channel)
        s->agent.channel = vf_spec_default_channel((enum vf_spec_vmm)s->vmm);
    s->agent.has_channel = true;
    s->park = (int)vf_spec_park(s);
}

int vf_spec_parse(const char *text, size_t len, const char *base_dir, const char *where,
                  struct vf_spec *ret_spec, struct vf_error *err)
{
    struct vf_spec spec;
    int r;

    vf_spec_init_blank(&spec);
    r = vf_json_decode(text, len, VF_SPEC_MAX_TEXT, vf_spec_fields, &spec, where, err);
    if (r == 0) {
        spell_out(&spec);
        r = vf_spec_complete(&spec, err);
        if (r == 0)
            r = make_absolute(&spec.boot.kernel, base_dir, "boot.kernel", err);
        if (r == 0)
            r = make_absolute(&spec.boot.initrd, base_dir, "boot.initrd", err);
        if (r == 0)
            r = make_absolute(&spec.boot.root.image, base_dir, "boot.root.image", err);
        if (r == 0)
            r = vf_spec_check(&spec, err);
        if (r < 0 && where != NULL)
            vf_wrap(err, "%s", where);
    }
    if (r < 0) {
        vf_spec_free(&spec);
        return r;
    }
    *ret_spec = spec;
    return 0;
}

/* Takes the "..", "." and symlinks out of *path's directory, if that exists. */
static void tidy(char **path)
{
    VF_CLEANUP_FREE char *dir = NULL, *real = NULL;
    const char *slash;
    char *tidied;

    if (*path == NULL)
        return;
    slash = strrchr(*path, '/');
    dir = strndup(*path, (size_t)(slash - *path) + 1);
    real = dir != NULL ? realpath(dir, NULL) : NULL;
    if (real == NULL || asprintf(&tidied, "%s%s", strcmp(real, "/") == 0 ? "" : real, slash) < 0)
        return; /* as it was will do; the check names what is wrong with it */
    free(*path);
    *path = tidied;
}

/* The whole text of the spec file at path. */
static int read_text(const char *path, char **ret_text, size_t *ret_len, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    VF_CLEANUP_FREE char *text = (char *)malloc(VF_SPEC_MAX_TEXT + 1);
    size_t len = 0;
    int r;

    if (text == NULL)
        return vf_fail(err, VF_NO_MEMORY, "spec: %s: no memory", path);
    r = vf_open_regular(path, "spec", &fd, err);
    if (r < 0)
        return r;
    for (;;) { /* one byte more than allowed, to see that there is more */
        ssize_t n = read(fd, text + len, VF_SPEC_MAX_TEXT + 1 - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vf_fail_errno(err, errno, "spec: %s: read", path);
        if (n == 0)
            break;
        len += (size_t)n;
        if (len > VF_SPEC_MAX_TEXT)
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "spec: %s: is longer than the %d bytes allowed", path, VF_SPEC_MAX_TEXT);
    }
    *ret_text = vf_steal_str(&text);
    *ret_len = len;
    return 0;
}

/* The absolute path of the directory that path lies in. */
static char *directory_of(const char *path)
{
    VF_CLEANUP_FREE char *dir = NULL;
    const char *slash = strrchr(path, '/');

    dir = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    return dir != NULL ? realpath(dir, NULL) : NULL;
}

int vf_spec_load(const char *path, struct vf_spec *ret_spec, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL, *dir = NULL;
    struct vf_spec spec;
    size_t len = 0;
    int r;

    r = read_text(path, &text, &len, err);
    if (r < 0)
        return r;
    dir = directory_of(path);
    if (dir == NULL)
        return vf_fail_errno(err, errno, "spec: %s: find its directory", path);
    r = vf_spec_parse(text, len, dir, path, &spec, err);
    if (r < 0)
        return r;
    tidy(&spec.boot.kernel);
    tidy(&spec.boot.initrd);
    tidy(&spec.boot.root.image);
    r = vf_spec_check_host(&spec, err);
    if (r < 0) {
        vf_spec_free(&spec);
        return vf_wrap(err, "%s", path);
    }
    *ret_spec = spec;
    return 0;
}

char *vf_spec_encode(const struct vf_spec *spec)
{
    return vf_json_encode(vf_spec_fields, spec);
}

/* By way of its text: what the table knows is copied, and nothing else exists. */
int vf_spec_copy(const struct vf_spec *spec, struct vf_spec *ret_spec, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = vf_spec_encode(spec);
    struct vf_spec copy;
    int r;

    if (text == NULL)
        return vf_fail(err, VF_NO_MEMORY, "spec: no memory to copy it");
    vf_spec_init_blank(&copy);
    r = vf_json_decode(text, strlen(text), 2 * VF_SPEC_MAX_TEXT, vf_spec_fields, &copy, "spec",
                       err);
    if (r == 0)
        r = vf_spec_complete(&copy, err);
    if (r < 0) {
        vf_spec_free(&copy);
        return r;
    }
    copy.vmm = spec->vmm; /* of a settled spec they may not be in its text */
    copy.agent.channel = spec->agent.channel;
    *ret_spec = copy;
    return 0;
}

bool vf_spec_equal(const struct vf_spec *a, const struct vf_spec *b)
{
    VF_CLEANUP_FREE char *text_a = vf_spec_encode(a);
    VF_CLEANUP_FREE char *text_b = vf_spec_encode(b);

    return text_a != NULL && text_b != NULL && strcmp(text_a, text_b) == 0;
}

uint64_t vf_spec_memory_bytes(const struct vf_spec *spec)
{
    return (uint64_t)spec->memory.size_mib << 20;
}

char *const *vf_spec_warmup(const struct vf_spec *spec, size_t i)
{
    const struct vf_strv *argv = (const struct vf_strv *)spec->warmup.commands.items;

    return i < spec->warmup.commands.n ? argv[i].v : NULL;
}

char *vf_spec_schema(void)
{
    return vf_json_schema(vf_spec_fields, "A VM template of vmfactory", NULL);
}

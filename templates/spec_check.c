/* What is right for a spec beyond its table: names, words that go together, files, the host's
 * memory (the network: spec_network.c). Each refusal begins with the field. See spec.h. */
#include "templates/spec.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/utf8.h"
#include "base/wire.h"
#include "templates/host.h"
#include "templates/spec_network.h"

/* What an EXEC message carries besides the arguments: a deadline and what may come. */
#define EXEC_RESERVED 1024

bool vf_template_name_ok(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    size_t len = strlen(name);

    return len >= 1 && len <= VF_SPEC_NAME_MAX && name[0] != '-' && strspn(name, allowed) == len;
}

static int check_boot(const struct vf_spec *s, struct vf_error *err)
{
    int r;

    /* A class may have the kernel. */
    if (s->boot.initrd != NULL && s->boot.kernel == NULL && s->class_name == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "boot.initrd: makes no sense without boot.kernel");
    if (s->boot.cmdline != NULL && s->boot.cmdline[0] != '\0' && s->boot.kernel == NULL &&
        s->class_name == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "boot.cmdline: makes no sense without boot.kernel");
    if (s->boot.cmdline != NULL && strlen(s->boot.cmdline) > VF_SPEC_CMDLINE_MAX)
        return vf_fail(err, VF_INVALID_ARGUMENT, "boot.cmdline: must be at most %d bytes long",
                       VF_SPEC_CMDLINE_MAX);
    r = vf_no_control(s->boot.cmdline, "boot.cmdline", err);
    if (r == 0)
        r = vf_no_control(s->boot.kernel, "boot.kernel", err);
    if (r == 0)
        r = vf_no_control(s->boot.initrd, "boot.initrd", err);
    if (r == 0)
        r = vf_no_control(s->boot.root.image, "boot.root.image", err);
    return r;
}

static int check_warmup(const struct vf_spec *s, struct vf_error *err)
{
    const struct vf_strv *argv = (const struct vf_strv *)s->warmup.commands.items;

    for (size_t i = 0; i < s->warmup.commands.n; i++) {
        size_t bytes = 0;

        if (argv[i].n == 0)
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "warmup.commands[%zu]: must not be empty: it is a program and its "
                           "arguments",
                           i);
        if (argv[i].v[0][0] == '\0')
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "warmup.commands[%zu][0]: must not be empty: it is the program to run",
                           i);
        for (size_t k = 0; k < argv[i].n; k++)
            bytes += 4 + strlen(argv[i].v[k]);
        if (bytes > VF_WIRE_MAX_BODY - EXEC_RESERVED) {
            vf_fail(err, VF_INVALID_ARGUMENT,
                    "warmup.commands[%zu]: is longer than one message to the guest (%zu bytes, at "
                    "most %d)",
                    i, bytes, VF_WIRE_MAX_BODY - EXEC_RESERVED);
            return vf_hint(err, "put a script into the guest's image and run that");
        }
    }
    return 0;
}

int vf_spec_check(const struct vf_spec *s, struct vf_error *err)
{
    int r;

    if (s->name == NULL || !vf_template_name_ok(s->name)) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "name: must be 1 to %d lower-case letters, digits and hyphens, not a hyphen first",
                VF_SPEC_NAME_MAX);
        return vf_hint(err, "for example \"web-1\"");
    }
    r = vf_no_control(s->class_name, "class", err);
    if (r == 0 && vf_spec_knows_vmm(s))
        r = vf_spec_check_vmm(s, (enum vf_spec_vmm)s->vmm, err);
    if (r == 0)
        r = check_boot(s, err);
    if (r == 0)
        r = vf_spec_network_check(s, err);
    return r == 0 ? check_warmup(s, err) : r;
}

static int check_file(const char *path, const char *field, int *ret_fd, struct vf_error *err)
{
    int r = vf_open_regular(path, field, ret_fd, err);

    if (r == 0)
        return 0;
    if (err != NULL && err->code == VF_NOT_FOUND)
        vf_hint(err, "put the file there or correct %s; `make guest` builds guests in build/guest",
                field);
    else if (err != NULL && err->code == VF_PERMISSION)
        vf_hint(err, "the user that vmfactory runs as (uid %u) must be able to read it",
                (unsigned)geteuid());
    else
        vf_hint(err, "%s must name a file", field);
    return r;
}

int vf_spec_image_is_qcow2(int fd, const char *path, bool *ret, struct vf_error *err)
{
    char magic[4] = {0};
    ssize_t n;

    do
        n = pread(fd, magic, sizeof(magic), 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return vf_fail_errno(err, errno, "boot.root.image: %s: read", path);
    *ret = n == 4 && memcmp(magic, "QFI\xfb", 4) == 0;
    return 0;
}

/* QEMU takes the format at its word: a qcow2 taken for raw would boot garbage, and a raw image
 * taken for qcow2 could name any file of the host as its backing file. */
static int check_format(int fd, const struct vf_spec *s, struct vf_error *err)
{
    bool qcow2;
    int r = vf_spec_image_is_qcow2(fd, s->boot.root.image, &qcow2, err);

    if (r < 0)
        return r;
    if (qcow2 == (s->boot.root.format == VF_IMAGE_QCOW2))
        return 0;
    vf_fail(err, VF_INVALID_ARGUMENT, "boot.root.format: is \"%s\", but %s is %s image",
            vf_image_format_names[s->boot.root.format], s->boot.root.image,
            qcow2 ? "a qcow2" : "no qcow2");
    return vf_hint(err, "set it to \"%s\"", qcow2 ? "qcow2" : "raw");
}

static int check_files(const struct vf_spec *s, struct vf_error *err)
{
    VF_CLEANUP_FD int kernel = -1, initrd = -1, root = -1;
    int r = 0;

    if (s->boot.kernel != NULL)
        r = check_file(s->boot.kernel, "boot.kernel", &kernel, err);
    if (r == 0 && s->boot.initrd != NULL)
        r = check_file(s->boot.initrd, "boot.initrd", &initrd, err);
    if (r == 0 && s->boot.has_root)
        r = check_file(s->boot.root.image, "boot.root.image", &root, err);
    if (r == 0 && s->boot.has_root)
        r = check_format(root, s, err);
    return r;
}

int vf_spec_check_host(const struct vf_spec *spec, struct vf_error *err)
{
    uint64_t total;
    int r = check_files(spec, err);

    if (r == 0)
        r = vf_host_memory(&total, NULL, err);
    if (r < 0)
        return r;
    if (vf_spec_memory_bytes(spec) > total) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "memory.size_mib: is %" PRId64 ", but this host has only %" PRIu64 " MiB",
                spec->memory.size_mib, total >> 20);
        return vf_hint(err, "a template's memory must fit into the host's; 256 is the default");
    }
    return 0;
}

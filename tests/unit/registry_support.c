/* See registry_support.h. */
#include "registry_support.h"

#include <sys/stat.h>
#include <unistd.h>

struct reg reg;

void reg_write(const char *kind, const char *file, const char *text)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", reg.dir, kind);
    mkdir(path, 0755);
    snprintf(path, sizeof(path), "%s/%s/%s", reg.dir, kind, file);
    put_file(path, text);
}

void reg_remove(const char *kind, const char *file)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s/%s", reg.dir, kind, file);
    cr_assert_eq(unlink(path), 0, "%s", path);
}

void reg_open(void)
{
    scratch_open(&reg.s);
    snprintf(reg.dir, sizeof(reg.dir), "%s/config", reg.s.path);
    mkdir(reg.dir, 0755);
    reg.cfg = (struct vf_registry_config){.dir = reg.dir};
    reg.cfg.binaries[VF_SPEC_VMM_QEMU] = "/opt/qemu";
    reg.cfg.binaries[VF_SPEC_VMM_FIRECRACKER] = "/opt/firecracker";
    reg_write("assets", "fc-1.json", ASSET("fc-1", "vmm", DIGEST_A));
    reg_write("assets", "linux.json", ASSET("linux", "kernel", DIGEST_B));
    reg_write("classes", "pinned.json",
              CLASS("pinned", BOTH("{\"vmm\":\"fc-1\",\"kernel\":\"linux\"}")));
}

void reg_close(void)
{
    scratch_close(&reg.s);
}

struct vf_registry *reg_load(void)
{
    struct vf_registry *r = NULL;
    struct vf_error err;

    expect_ok(vf_registry_load(&reg.cfg, &r, &err), err);
    return r;
}

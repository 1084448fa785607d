/* See classes_support.h. */
#include "tests/e2e/classes_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void cls_open(struct cls *c)
{
    struct vf_error e;
    memset(c, 0, sizeof(*c));
    fac_open(&c->f, NULL);
    snprintf(c->config, sizeof(c->config), "%s/config", c->f.s.dir);
    snprintf(c->store_path, sizeof(c->store_path), "%s/assets", c->f.s.dir);
    c->cfg.dir = c->config;
    c->cfg.binaries[VF_SPEC_VMM_QEMU] = sup_qemu();
    cr_assert_eq(vf_registry_load(&c->cfg, &c->reg, &e), 0, "%s", e.msg);
    fac_shut(&c->f);
    cr_assert_eq(vf_asset_store_open(c->store_path, &c->store, &e), 0, "%s", e.msg);
    /* Debian's QEMU looks for modules and firmware beside its own directory. */
    char path[200];
    snprintf(path, sizeof(path), "%s/share", c->store_path);
    cr_assert_eq(symlink("/usr/share", path), 0);
    snprintf(path, sizeof(path), "%s/lib", c->store_path);
    cr_assert_eq(symlink("/usr/lib", path), 0);
    fac_reopen(&c->f, &(struct vf_sync_options){
                          .registry = c->reg, .assets = c->store, .trial_clones = -1});
}

void cls_close(struct cls *c)
{
    fac_shut(&c->f);
    vf_asset_store_close(c->store);
    vf_registry_unref(c->reg);
    fac_close(&c->f);
}

void cls_take(struct cls *c, struct vf_registry *reg)
{
    vf_registry_unref(c->reg);
    c->reg = reg;
    vf_factory_set_registry(c->f.sync.factory, reg);
    c->f.options.registry = reg; /* for fac_reopen */
}

void cls_put_class(struct cls *c, const char *text)
{
    struct vf_registry *reg;
    struct vf_class class;
    struct vf_error e;
    cr_assert_eq(vf_class_parse(text, strlen(text), NULL, &class, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_registry_put_class(&c->cfg, &class, &reg, &e), 0, "%s", e.msg);
    vf_class_free(&class);
    cls_take(c, reg);
}

void cls_put_asset(struct cls *c, const char *name, const char *kind, const char *url,
                   const char *like)
{
    char text[PATH_MAX + 400], hex[65];
    struct vf_registry *reg;
    struct vf_asset asset;
    struct vf_error e;
    fac_file_digest(like, hex);
    snprintf(
        text, sizeof(text),
        "{\"name\":\"%s\",\"kind\":\"%s\",\"files\":{\"%s\":{\"url\":\"%s\",\"sha256\":\"%s\"}}}",
        name, kind, vf_host_arch(), url, hex);
    cr_assert_eq(vf_asset_parse(text, strlen(text), NULL, &asset, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_registry_put_asset(&c->cfg, &asset, &reg, &e), 0, "%s", e.msg);
    vf_asset_free(&asset);
    cls_take(c, reg);
}

void cls_put_file_asset(struct cls *c, const char *name, const char *kind, const char *path)
{
    char url[PATH_MAX + 8];
    snprintf(url, sizeof(url), "file://%s", path);
    cls_put_asset(c, name, kind, url, path);
}

void cls_put_pinned(struct cls *c, const char *name, const char *vmm, const char *assets)
{
    char text[600];
    snprintf(text, sizeof(text), "{\"name\":\"%s\",\"vmm\":\"%s\",\"assets\":{\"%s\":{%s}}}", name,
             vmm, vf_host_arch(), assets);
    cls_put_class(c, text);
}

struct vf_spec cls_tiny(const char *class_name, enum vf_accel accel)
{
    struct vf_spec spec = fac_tiny("tiny", accel, NULL);
    spec.class_name = strdup(class_name);
    spec.has_vmm = false;
    spec.park = VF_PARK_AUTO;
    return spec;
}

void cls_without_kernel(struct vf_spec *spec)
{
    free(spec->boot.kernel);
    spec->boot.kernel = NULL;
}

void cls_stored_path(const struct cls *c, const char *like, char ret[PATH_MAX])
{
    char hex[65], path[PATH_MAX];
    fac_file_digest(like, hex);
    snprintf(path, sizeof(path), "%s/sha256/%s", c->store_path, hex);
    if (!realpath(path, ret))
        ret[0] = 0;
}

char cls_stages[400];

static void note_stage(void *arg, const char *stage)
{
    (void)arg;
    snprintf(cls_stages + strlen(cls_stages), sizeof(cls_stages) - strlen(cls_stages), "%s ",
             stage);
}

struct vf_generation *cls_build(struct cls *c, const struct vf_spec *spec)
{
    struct vf_generation *gen = NULL;
    struct vf_error e = {0};
    cls_stages[0] = 0;
    cr_assert_eq(vf_sync_build(&c->f.sync, spec, note_stage, &gen, &e), 0, "%s (%s)", e.msg,
                 e.hint);
    return gen;
}

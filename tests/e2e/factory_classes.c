/* Runtime classes in the factory: a class moves on and what was built stays with what built it, two versions of a VMM
 * side by side; what a class pins is fetched by builds and by nothing else; kernel, image and options of a class.
 */
#include "tests/e2e/factory_support.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "factory/instance.h"

/* ---- a factory with a registry and a store */

struct cls {
    struct fac f;
    char config[100], store_path[100];
    struct vf_registry_config cfg;
    struct vf_registry *reg;
    struct vf_asset_store *store;
};

static void cls_open(struct cls *c)
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

static void cls_close(struct cls *c)
{
    fac_shut(&c->f);
    vf_asset_store_close(c->store);
    vf_registry_unref(c->reg);
    fac_close(&c->f);
}

static void take(struct cls *c, struct vf_registry *reg)
{
    vf_registry_unref(c->reg);
    c->reg = reg;
    vf_factory_set_registry(c->f.sync.factory, reg);
    c->f.options.registry = reg; /* for fac_reopen */
}

static void put_class(struct cls *c, const char *text)
{
    struct vf_registry *reg;
    struct vf_class class;
    struct vf_error e;
    cr_assert_eq(vf_class_parse(text, strlen(text), NULL, &class, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_registry_put_class(&c->cfg, &class, &reg, &e), 0, "%s", e.msg);
    vf_class_free(&class);
    take(c, reg);
}

/* An asset of a URL; its digest is that of the file `like`. */
static void put_asset(struct cls *c, const char *name, const char *kind, const char *url,
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
    take(c, reg);
}

static void put_file_asset(struct cls *c, const char *name, const char *kind, const char *path)
{
    char url[PATH_MAX + 8];
    snprintf(url, sizeof(url), "file://%s", path);
    put_asset(c, name, kind, url, path);
}

/* A class of vmm with these assets ("\"vmm\":\"a\"") and no more. */
static void put_pinned(struct cls *c, const char *name, const char *vmm, const char *assets)
{
    char text[600];
    snprintf(text, sizeof(text), "{\"name\":\"%s\",\"vmm\":\"%s\",\"assets\":{\"%s\":{%s}}}", name,
             vmm, vf_host_arch(), assets);
    put_class(c, text);
}

static struct vf_spec tiny_of(const char *class_name, enum vf_accel accel)
{
    struct vf_spec spec = fac_tiny("tiny", accel, NULL);
    spec.class_name = strdup(class_name);
    spec.has_vmm = false;
    spec.park = VF_PARK_AUTO;
    return spec;
}

static void without_kernel(struct vf_spec *spec)
{
    free(spec->boot.kernel);
    spec->boot.kernel = NULL;
}

static void stored_path(const struct cls *c, const char *like, char ret[PATH_MAX])
{
    char hex[65], path[PATH_MAX];
    fac_file_digest(like, hex);
    snprintf(path, sizeof(path), "%s/sha256/%s", c->store_path, hex);
    if (!realpath(path, ret))
        ret[0] = 0;
}

static void expect_exe(struct vf_instance *vm, const char *due, const char *what)
{
    char link[64], exe[PATH_MAX];
    snprintf(link, sizeof(link), "/proc/%d/exe", (int)vf_vm_info_of(vf_instance_vm(vm))->pid);
    ssize_t n = readlink(link, exe, sizeof(exe) - 1);
    cr_assert_gt(n, 0, "%s: %s", link, strerror(errno));
    exe[n] = 0;
    cr_expect_str_eq(exe, due, "%s runs %s, not %s", what, exe, due);
}

static void copy_with(const char *from, const char *to, const char *tail)
{
    struct vf_error e;
    cr_assert_eq(vf_copy_file(AT_FDCWD, from, AT_FDCWD, to, 0755, &e), 0, "%s", e.msg);
    VF_CLEANUP_FD int fd = open(to, O_WRONLY | O_APPEND | O_CLOEXEC);
    cr_assert_eq(vf_write_all(fd, tail, strlen(tail), to, &e), 0, "%s", e.msg);
}

static char stages[400];

static void note_stage(void *arg, const char *stage)
{
    (void)arg;
    snprintf(stages + strlen(stages), sizeof(stages) - strlen(stages), "%s ", stage);
}

static struct vf_generation *build(struct cls *c, const struct vf_spec *spec)
{
    struct vf_generation *gen = NULL;
    struct vf_error e = {0};
    stages[0] = 0;
    cr_assert_eq(vf_sync_build(&c->f.sync, spec, note_stage, &gen, &e), 0, "%s (%s)", e.msg,
                 e.hint);
    return gen;
}

/* ---- a class that moves on */

struct version {
    char path[PATH_MAX]; /* of the file that is pinned */
    char exe[PATH_MAX];  /* of what runs then; empty: the pinned file, in the store */
};

struct keep {
    struct cls *c;
    char digests[2000];
};

static void note_digest(void *arg, const char *sha256)
{
    struct keep *k = arg;
    snprintf(k->digests + strlen(k->digests), sizeof(k->digests) - strlen(k->digests), "%s ",
             sha256);
}

static bool keep(void *arg, const char *sha256)
{
    struct keep *k = arg;
    return vf_registry_uses(k->c->reg, sha256) || strstr(k->digests, sha256);
}

static void collect(struct cls *c)
{
    struct keep k = {.c = c};
    struct vf_error e;
    cr_assert_eq(vf_store_digests(c->f.sync.store, note_digest, &k, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_asset_store_gc(c->store, keep, NULL, &k, false, &e), 0, "%s", e.msg);
}

static const char *due_exe(const struct cls *c, const struct version *v, char buf[PATH_MAX])
{
    if (v->exe[0])
        return v->exe;
    stored_path(c, v->path, buf);
    return buf;
}

static void clone_runs(struct cls *c, struct vf_generation *gen, const struct version *v,
                       const char *what)
{
    char buf[PATH_MAX];
    struct vf_instance *vm = fac_clone(&c->f, gen);
    expect_exe(vm, due_exe(c, v, buf), what);
    fac_check_proof(&c->f, vm, gen);
    fac_destroy(&c->f, vm);
}

static void moves_on(const char *vmm, enum vf_accel accel, const struct version *a,
                     const struct version *b)
{
    char buf[PATH_MAX], hex[65];
    struct vf_error e = {0};
    struct cls c;
    cls_open(&c);
    put_file_asset(&c, "vmm-a", "vmm", a->path);
    put_file_asset(&c, "vmm-b", "vmm", b->path);
    put_pinned(&c, "sandboxes", vmm, "\"vmm\":\"vmm-a\"");
    struct vf_spec spec = tiny_of("sandboxes", accel);

    struct vf_generation *old = build(&c, &spec);
    cr_expect(strstr(stages, "fetch open "), "%s", stages);
    cr_expect_str_eq(old->manifest.vmm.class_name, "sandboxes");
    cr_expect_str_eq(old->manifest.vmm.name, vmm);
    fac_file_digest(a->path, hex);
    cr_expect_str_eq(old->manifest.vmm.sha256, hex);
    cr_expect(vf_spec_equal(&old->manifest.spec, &spec), "the spec is kept as it was given");
    clone_runs(&c, old, a, "a clone of the class's first version");

    put_pinned(&c, "sandboxes", vmm, "\"vmm\":\"vmm-b\"");
    clone_runs(&c, old, a, "a clone from before the class moved");
    fac_cold_fails(&c.f, &spec, VF_NOT_FOUND, "asset vmm-b: was not fetched yet");

    struct vf_generation *new = build(&c, &spec);
    cr_expect_eq(new->number, 2);
    struct vf_instance *vms[2] = {fac_clone(&c.f, old), fac_clone(&c.f, new)};
    expect_exe(vms[0], due_exe(&c, a, buf), "the old generation, beside the new one,");
    expect_exe(vms[1], due_exe(&c, b, buf), "the new generation");
    fac_check_differ(&c.f, vms, 2);
    fac_destroy(&c.f, vms[0]);
    fac_destroy(&c.f, vms[1]);
    struct vf_instance *cold = fac_cold(&c.f, &spec);
    expect_exe(cold, due_exe(&c, b, buf), "a cold boot");
    fac_destroy(&c.f, cold);
    vf_generation_unref(new);
    vf_generation_unref(old);

    /* As after a restart of everything: what is pinned is on disk. */
    fac_reopen(&c.f, NULL);
    collect(&c);
    cr_assert_eq(vf_store_load(c.f.sync.store, "tiny", 1, NULL, &old, NULL, &e), 0, "%s", e.msg);
    clone_runs(&c, old, a, "the old generation, loaded again,");
    vf_generation_unref(old);
    cr_assert_eq(vf_store_remove(c.f.sync.store, "tiny", 1, &e), 0, "%s", e.msg);
    collect(&c);
    stored_path(&c, a->path, buf);
    cr_expect_str_eq(buf, "", "nobody needs %s any more", buf);
    stored_path(&c, b->path, buf);
    cr_expect_str_neq(buf, "", "the class still needs its VMM");
    new = fac_load(&c.f, "tiny");
    cr_expect_eq(new->number, 2);
    clone_runs(&c, new, b, "the new generation, loaded again,");

    /* Without the file that saved it there is no restore, whatever else is there. */
    cr_assert_eq(unlink(buf), 0);
    fac_clone_fails(&c.f, new, VF_CONFLICT, strrchr(buf, '/') + 1);
    copy_with(b->path, buf, "");
    fac_clone_fails(&c.f, new, VF_CONFLICT, strrchr(buf, '/') + 1); /* not known to be the same */
    vf_generation_unref(new);
    vf_spec_free(&spec);
    cls_close(&c);
}

Test(factory_classes, qemu_moves_on, .timeout = 240)
{
    struct version a = {0}, b = {0};
    char dir[] = "/tmp/vf-classes-XXXXXX";
    cr_assert(mkdtemp(dir));
    snprintf(a.path, sizeof(a.path), "%s/qemu-a", dir);
    snprintf(b.path, sizeof(b.path), "%s/qemu-b", dir);
    copy_with(sup_qemu(), a.path, "a");
    copy_with(sup_qemu(), b.path, "b");
    moves_on("qemu", VF_ACCEL_TCG, &a, &b);
    cr_assert_eq(vf_remove_tree(AT_FDCWD, dir, NULL), 0);
}

/* What is to be pinned for the program that the variable names: itself, or the script that makes it run here. */
static const char *version_of(const char *variable, const char *dir, struct version *v)
{
    static char why[200];
    char command[PATH_MAX + 600], path[PATH_MAX];
    const char *program = getenv(variable), *tests = getenv("VF_TESTS");
    if (!program || !realpath(program, path)) {
        snprintf(why, sizeof(why), "%s names no program", variable);
        return why;
    }
    cr_assert_eq(mkdir(dir, 0700), 0);
    snprintf(command, sizeof(command), "'%s/kvm-shim' '%s' '%s'", tests ? tests : "build/tests",
             path, dir);
    FILE *f = popen(command, "re");
    cr_assert(f && fgets(v->path, sizeof(v->path), f), "%s", command);
    cr_assert_eq(pclose(f), 0, "%s", command);
    v->path[strcspn(v->path, "\n")] = 0;
    if (strcmp(v->path, path) != 0)
        snprintf(v->exe, sizeof(v->exe), "%s", path);
    return NULL;
}

static const char *try_versions(const struct sup_target *t, const char *first, const char *second)
{
    struct version a = {0}, b = {0};
    char dir[] = "/tmp/vf-classes-XXXXXX", sub[2][64];
    const char *why = sup_target_missing(t);
    if (why)
        return why;
    cr_assert(mkdtemp(dir));
    snprintf(sub[0], sizeof(sub[0]), "%s/a", dir);
    snprintf(sub[1], sizeof(sub[1]), "%s/b", dir);
    why = version_of(first, sub[0], &a);
    if (!why)
        why = version_of(second, sub[1], &b);
    if (!why)
        moves_on(t->driver, VF_ACCEL_KVM, &a, &b);
    cr_assert_eq(vf_remove_tree(AT_FDCWD, dir, NULL), 0);
    return why;
}

Test(factory_classes, cloud_hypervisor_moves_on, .timeout = 240)
{
    const char *why = try_versions(&sup_cloud_hypervisor_tiny, "VF_CLOUD_HYPERVISOR_OTHER",
                                   "VF_CLOUD_HYPERVISOR");
    if (why)
        sup_skip("factory_classes", "cloud_hypervisor_moves_on", "%s", why);
}

Test(factory_classes, firecracker_moves_on, .timeout = 240)
{
    const char *why = try_versions(&sup_firecracker_tiny, "VF_FIRECRACKER_OTHER", "VF_FIRECRACKER");
    if (why)
        sup_skip("factory_classes", "firecracker_moves_on", "%s", why);
}

/* ---- fetching */

Test(factory_classes, what_can_t_be_fetched_fails_the_build, .timeout = 60)
{
    struct cls c;
    cls_open(&c);
    put_asset(&c, "gone", "kernel", "file:///nonexistent/kernel", sup_guest_file("tiny.elf"));
    put_pinned(&c, "sandboxes", "qemu", "\"kernel\":\"gone\"");
    struct vf_spec spec = tiny_of("sandboxes", VF_ACCEL_TCG);
    without_kernel(&spec);
    struct vf_error e = fac_build_fails(&c.f, &spec, VF_NOT_FOUND, "fetch: ");
    cr_expect(strstr(e.msg, "gone"), "%s", e.msg);
    e = fac_cold_fails(&c.f, &spec, VF_NOT_FOUND, "asset gone: was not fetched yet");
    cr_expect(strstr(e.hint, "`vmfactory asset fetch gone`"), "%s", e.hint);
    vf_spec_free(&spec);
    cls_close(&c);
}

/* Nobody hashes what is fetched at each boot; a build does, and must not take another program for the pinned one. */
Test(factory_classes, a_file_that_is_not_what_was_pinned_fails_the_build, .timeout = 60)
{
    char path[PATH_MAX];
    struct cls c;
    cls_open(&c);
    put_file_asset(&c, "guest", "kernel", sup_guest_file("tiny.elf"));
    put_pinned(&c, "sandboxes", "qemu", "\"kernel\":\"guest\"");
    struct vf_spec spec = tiny_of("sandboxes", VF_ACCEL_TCG);
    without_kernel(&spec);
    vf_generation_unref(build(&c, &spec));
    stored_path(&c, sup_guest_file("tiny.elf"), path);
    cr_assert_eq(chmod(path, 0600), 0);
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    cr_assert_eq(write(fd, "x", 1), 1);
    cr_assert_eq(close(fd), 0);
    struct vf_error e = fac_build_fails(&c.f, &spec, VF_CORRUPT, "asset guest: ");
    cr_expect(strstr(e.hint, "`vmfactory asset verify guest`"), "%s", e.hint);
    vf_spec_free(&spec);
    cls_close(&c);
}

struct pending {
    struct vf_build_request *req;
    bool fetching, done;
    struct vf_error err;
};

static void on_stage(void *arg, const char *stage)
{
    struct pending *p = arg;
    p->fetching |= strcmp(stage, "fetch") == 0;
}

static void on_built(void *arg, struct vf_generation *gen, const struct vf_error *err)
{
    struct pending *p = arg;
    cr_assert_null(gen);
    p->done = true;
    p->err = *err;
}

/* A server that takes the connection and says nothing. */
static int silent_server(char ret_url[64])
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 4) == 0 &&
              getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    snprintf(ret_url, 64, "http://127.0.0.1:%d/kernel", ntohs(a.sin_port));
    return fd;
}

static void on_connection(uv_poll_t *h, int status, int events)
{
    bool *came = h->data;
    (void)status;
    (void)events;
    *came = true;
    uv_close((uv_handle_t *)h, NULL);
}

static void fetch_is_ended(bool by_close)
{
    struct cls c;
    struct pending p = {0};
    struct vf_error e;
    bool came = false;
    char url[64];
    cls_open(&c);
    int server = silent_server(url);
    put_asset(&c, "slow", "kernel", url, sup_guest_file("tiny.elf"));
    put_pinned(&c, "sandboxes", "qemu", "\"kernel\":\"slow\"");
    struct vf_spec spec = tiny_of("sandboxes", VF_ACCEL_TCG);
    without_kernel(&spec);
    int r = vf_factory_build(c.f.sync.factory, &spec, on_stage, on_built, &p, &p.req, &e);
    cr_assert_eq(r, 0, "%s", e.msg);
    uv_poll_t poll = {.data = &came};
    cr_assert_eq(uv_poll_init(&c.f.sync.loop, &poll, server), 0);
    cr_assert_eq(uv_poll_start(&poll, UV_READABLE, on_connection), 0);
    while (!came && !p.done) /* it is really under way then */
        uv_run(&c.f.sync.loop, UV_RUN_ONCE);
    cr_assert(came && p.fetching && !p.done, "%s", p.err.msg);
    VF_CLEANUP_FD int conn = accept4(server, NULL, NULL, SOCK_CLOEXEC);
    cr_assert_geq(conn, 0);
    if (by_close)
        fac_shut(&c.f);
    else {
        vf_build_cancel(p.req);
        while (!p.done)
            uv_run(&c.f.sync.loop, UV_RUN_ONCE);
    }
    cr_assert(p.done);
    fac_expect(&p.err, VF_CANCELLED, "build of tiny: cancelled");
    cr_assert_eq(close(server), 0);
    vf_close_fd(&conn);
    vf_spec_free(&spec);
    cls_close(&c);
}

Test(factory_classes, a_build_is_cancelled_while_it_fetches, .timeout = 60)
{
    fetch_is_ended(false);
}

Test(factory_classes, the_factory_is_closed_while_it_fetches, .timeout = 60)
{
    fetch_is_ended(true);
}

/* ---- what else a class gives */

/* Kernel and image of the class, for a spec that has neither; clones find them by what the generation has noted. */
Test(factory_classes, a_class_s_kernel_and_image, .timeout = 120)
{
    char image[200], kernel[PATH_MAX], root[PATH_MAX];
    struct cls c;
    struct vf_error e;
    cls_open(&c);
    snprintf(image, sizeof(image), "%s/root.img", c.f.s.dir);
    fac_write(image, "an image", 0600);
    cr_assert_eq(truncate(image, 1 << 20), 0);
    put_file_asset(&c, "linux", "kernel", sup_guest_file("tiny.elf"));
    put_file_asset(&c, "debian", "image", image);
    put_pinned(&c, "whole", "qemu", "\"kernel\":\"linux\",\"root\":\"debian\"");
    struct vf_spec spec = tiny_of("whole", VF_ACCEL_TCG);
    without_kernel(&spec);
    struct vf_generation *gen = build(&c, &spec);
    stored_path(&c, sup_guest_file("tiny.elf"), kernel);
    stored_path(&c, image, root);
    cr_expect_str_eq(vf_manifest_asset(&gen->manifest, VF_ASSET_KERNEL)->path, kernel);
    cr_expect_str_eq(vf_manifest_asset(&gen->manifest, VF_ASSET_ROOT)->path, root);
    cr_expect_null(gen->manifest.spec.boot.kernel, "the spec is kept as it was given");
    cr_expect_str_eq(gen->manifest.vmm.path, sup_qemu(), "a class that pins no VMM has the host's");
    vf_generation_unref(gen);
    fac_reopen(&c.f, NULL);
    gen = fac_load(&c.f, "tiny");
    struct vf_instance *vm = fac_clone(&c.f, gen);
    cr_expect(vf_instance_spec(vm)->boot.has_root);
    cr_expect_str_eq(vf_instance_spec(vm)->boot.root.image, root);
    fac_destroy(&c.f, vm);
    vm = fac_cold(&c.f, &spec);
    cr_expect_str_eq(vf_instance_spec(vm)->boot.kernel, kernel);
    fac_destroy(&c.f, vm);
    vf_generation_unref(gen);

    /* The class is gone: what was built from it goes on. */
    struct vf_registry *reg;
    cr_assert_eq(vf_registry_remove_class(&c.cfg, "whole", &reg, &e), 0, "%s", e.msg);
    take(&c, reg);
    fac_reopen(&c.f, NULL);
    gen = fac_load(&c.f, "tiny");
    vm = fac_clone(&c.f, gen);
    fac_check_proof(&c.f, vm, gen);
    fac_destroy(&c.f, vm);
    vf_generation_unref(gen);
    struct vf_instance *none;
    cr_assert_lt(vf_sync_cold(&c.f.sync, &spec, NULL, &none, &e), 0);
    fac_expect(&e, VF_NOT_FOUND, "class: there is no class \"whole\"");
    vf_spec_free(&spec);
    cr_assert_eq(unlink(image), 0);
    cls_close(&c);
}

/* Whether any thread of the VMM has a filter. */
static bool sandboxed(struct vf_instance *vm)
{
    char path[64];
    struct vf_names tids;
    bool found = false;
    int n =
        snprintf(path, sizeof(path), "/proc/%d/task", (int)vf_vm_info_of(vf_instance_vm(vm))->pid);
    VF_CLEANUP_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(vf_dir_names(fd, &tids, NULL), 0);
    for (size_t i = 0; i < tids.n; i++) {
        snprintf(path + n, sizeof(path) - (size_t)n, "/%.16s/status", tids.v[i]);
        VF_CLEANUP_FREE char *text = fac_read(path);
        found |= strstr(text, "\nSeccomp:\t2") != NULL;
    }
    vf_names_free(&tids);
    return found;
}

/* As the class says, in boots; in clones as it said when the template was built. */
static void sandbox_of(const char *vmm, enum vf_accel accel, const char *binary)
{
    char text[200];
    struct cls c;
    cls_open(&c);
    for (int i = 0; i < VF_SPEC_VMM_COUNT; i++)
        if (strcmp(vf_spec_vmm_names[i], vmm) == 0)
            c.cfg.binaries[i] = binary;
    snprintf(text, sizeof(text), "{\"name\":\"shut\",\"vmm\":\"%s\"}", vmm);
    put_class(&c, text);
    snprintf(text, sizeof(text),
             "{\"name\":\"open\",\"vmm\":\"%s\",\"options\":{\"sandbox\":false}}", vmm);
    put_class(&c, text);
    struct vf_spec spec[2] = {tiny_of("shut", accel), tiny_of("open", accel)};
    free(spec[1].name);
    spec[1].name = strdup("other");
    struct vf_generation *gen[2] = {build(&c, &spec[0]), build(&c, &spec[1])};
    cr_expect_null(strstr(stages, "fetch"), "it pins nothing: %s", stages);
    snprintf(text, sizeof(text), "{\"name\":\"open\",\"vmm\":\"%s\"}", vmm);
    put_class(&c, text);
    for (int i = 0; i < 2; i++) {
        struct vf_instance *vm = fac_clone(&c.f, gen[i]);
        cr_expect_eq(sandboxed(vm), i == 0, "a clone of a class that was %s", spec[i].class_name);
        cr_expect_str_eq(vf_instance_class(vm), spec[i].class_name);
        fac_destroy(&c.f, vm);
        vm = fac_cold(&c.f, &spec[i]);
        cr_expect(sandboxed(vm), "of a class that was %s", spec[i].class_name);
        cr_expect_str_eq(vf_instance_class(vm), spec[i].class_name);
        fac_destroy(&c.f, vm);
        vf_generation_unref(gen[i]);
        vf_spec_free(&spec[i]);
    }
    cls_close(&c);
}

Test(factory_classes, sandbox_of_qemu, .timeout = 120)
{
    sandbox_of("qemu", VF_ACCEL_TCG, sup_qemu());
}

Test(factory_classes, sandbox_of_cloud_hypervisor, .timeout = 120)
{
    const char *why = sup_target_missing(&sup_cloud_hypervisor_tiny);
    if (why)
        sup_skip("factory_classes", "sandbox_of_cloud_hypervisor", "%s", why);
    sandbox_of("cloud-hypervisor", VF_ACCEL_KVM, sup_cloud_hypervisor());
}

Test(factory_classes, sandbox_of_firecracker, .timeout = 120)
{
    const char *why = sup_target_missing(&sup_firecracker_tiny);
    if (why)
        sup_skip("factory_classes", "sandbox_of_firecracker", "%s", why);
    sandbox_of("firecracker", VF_ACCEL_KVM, sup_firecracker());
}

/* Refused before anything begins. */
Test(factory_classes, specs_that_don_t_fit_their_class, .timeout = 60)
{
    struct cls c;
    struct vf_error e;
    struct vf_instance *vm;
    cls_open(&c);
    put_class(&c, "{\"name\":\"small\",\"vmm\":\"firecracker\"}");
    struct vf_spec spec = tiny_of("nope", VF_ACCEL_AUTO);
    cr_assert_lt(vf_factory_build(c.f.sync.factory, &spec, NULL, on_built, NULL, NULL, &e), 0);
    fac_expect(&e, VF_NOT_FOUND, "class: there is no class \"nope\"");
    vf_spec_free(&spec);
    c.cfg.binaries[VF_SPEC_VMM_FIRECRACKER] = "/bin/false";
    put_class(&c, "{\"name\":\"small\",\"vmm\":\"firecracker\"}");
    spec = tiny_of("small", VF_ACCEL_TCG);
    cr_assert_lt(vf_factory_build(c.f.sync.factory, &spec, NULL, on_built, NULL, NULL, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "accel: firecracker runs on KVM only");
    cr_assert_lt(vf_sync_cold(&c.f.sync, &spec, NULL, &vm, &e), 0);
    fac_expect(&e, VF_INVALID_ARGUMENT, "class small: accel: firecracker runs on KVM only");
    vf_spec_free(&spec);
    fac_check(&c.f, "refused");
    cls_close(&c);
}

/* Loading generations back: what is verified, what is skipped and why, who shares. */
#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#include "templates_support.h"

static struct fixture fx;
static struct vf_store *store;
static int fds_before;

static void setup(void)
{
    struct vf_error err = {0};

    fixture_open(&fx);
    fds_before = count_fds();
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    for (int i = 0; i < 2; i++)
        expect_ok(build_one(&fx, store, NULL, &err), err);
}

static void teardown(void)
{
    vf_store_close(store);
    cr_expect_eq(count_fds(), fds_before, "descriptors leaked");
    fixture_close(&fx);
}

TestSuite(templates_load, .init = setup, .fini = teardown);

/* The path of a file of generation 2. */
static const char *in_2(const char *name)
{
    static char path[400];

    snprintf(path, sizeof(path), "%s/templates/web/2/%s", fx.state, name);
    return path;
}

static void expect_refused(enum vf_code code, const char *says)
{
    struct vf_generation *gen = NULL;
    struct vf_error err = {0};
    int before = count_fds();

    expect_error(vf_store_load(store, "web", 2, NULL, &gen, NULL, &err), err, code, says);
    cr_expect_eq(strncmp(err.msg, "template web generation 2: ", 27), 0, "%s", err.msg);
    cr_expect_null(gen);
    cr_expect_eq(count_fds(), before);
}

/* Generation 2 is refused for that reason, and the newest usable one is generation 1. */
static void expect_fallback(enum vf_code code, const char *says)
{
    struct vf_skipped_list skipped = {0};
    struct vf_generation *gen = NULL;
    struct vf_error err = {0};

    expect_refused(code, says);
    expect_ok(vf_store_load(store, "web", 0, NULL, &gen, &skipped, &err), err);
    cr_expect_eq(gen->number, 1);
    cr_assert_eq(skipped.n, 1);
    cr_expect_eq(skipped.v[0].generation, 2);
    cr_expect_eq(skipped.v[0].err.code, code);
    cr_expect_not_null(strstr(skipped.v[0].err.msg, says), "%s", skipped.v[0].err.msg);
    vf_skipped_free(&skipped);
    vf_generation_unref(gen);
}

Test(templates_load, the_newest_after_a_restart)
{
    struct vf_progress progress = {0};
    struct vf_skipped_list skipped = {0};
    struct vf_generation *gen = NULL;
    struct vf_error err;
    char want[VF_SHA256_HEX], have[VF_SHA256_HEX];
    int memory = make_memory(7); /* as build_one does */

    vf_store_close(store);
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_ok(vf_store_load(store, "web", 0, &progress, &gen, &skipped, &err), err);
    cr_expect_eq(gen->number, 2);
    cr_expect_eq(skipped.n, 0);
    cr_expect_eq(atomic_load(&progress.done_bytes), 16 << 20);
    cr_expect(vf_memory_is_sealed(gen->memory_fd));
    expect_ok(vf_sha256_fd(memory, "a", want, &err), err);
    expect_ok(vf_sha256_fd(gen->memory_fd, "b", have, &err), err);
    cr_expect_str_eq(have, want);
    cr_expect(vf_spec_equal(&gen->manifest.spec, &fx.spec));
    expect_ok(vf_generation_still_valid(gen, &err), err);
    close(memory);
    vf_generation_unref(gen);
}

Test(templates_load, not_there)
{
    struct vf_skipped_list skipped = {0};
    struct vf_generation *gen = NULL;
    struct vf_error err = {0};

    expect_error(vf_store_load(store, "web", 7, NULL, &gen, NULL, &err), err, VF_NOT_FOUND,
                 "template web generation 7: does not exist");
    expect_error(vf_store_load(store, "wob", 0, NULL, &gen, &skipped, &err), err, VF_NOT_FOUND,
                 "template wob: is not in the store");
    expect_ok(vf_store_remove(store, "web", 1, &err), err);
    expect_ok(vf_store_remove(store, "web", 2, &err), err);
    expect_error(vf_store_load(store, "web", 0, NULL, &gen, &skipped, &err), err, VF_NOT_FOUND,
                 "template web: has no generation");
    cr_expect_eq(skipped.n, 0);
}

Test(templates_load, manifest_missing)
{
    cr_assert_eq(unlink(in_2("manifest.json")), 0);
    expect_fallback(VF_CORRUPT, "manifest.json: is missing");
}

Test(templates_load, manifest_truncated)
{
    cr_assert_eq(truncate(in_2("manifest.json"), 500), 0);
    expect_fallback(VF_CORRUPT, "manifest.json: ");
}

Test(templates_load, manifest_empty)
{
    cr_assert_eq(truncate(in_2("manifest.json"), 0), 0);
    expect_fallback(VF_CORRUPT, "manifest.json: ");
}

static void edit_manifest(const char *sed)
{
    char command[600];

    snprintf(command, sizeof(command), "sed -i '%s' %s", sed, in_2("manifest.json"));
    cr_assert_eq(system(command), 0);
}

Test(templates_load, manifest_of_a_newer_version)
{
    edit_manifest("s/\"format\": 2/\"format\": 9/");
    expect_fallback(VF_UNSUPPORTED, "manifest.json: format: is 9, newer");
}

Test(templates_load, manifest_of_another_generation)
{
    edit_manifest("s/\"generation\": 2/\"generation\": 5/");
    expect_fallback(VF_CORRUPT, "manifest.json: generation: is 5, must be 2");
}

Test(templates_load, file_altered_in_place)
{
    put_file(in_2("state"), "the devices' STATE");
    expect_fallback(VF_CORRUPT, "state: its SHA-256 is ");
}

Test(templates_load, file_short_missing_or_more)
{
    cr_assert_eq(truncate(in_2("overlay.qcow2"), 3), 0);
    expect_fallback(VF_CORRUPT, "overlay.qcow2: is 3 bytes long, must be 10");
    cr_assert_eq(unlink(in_2("overlay.qcow2")), 0);
    expect_fallback(VF_CORRUPT, "overlay.qcow2: is missing");
    put_file(in_2("overlay.qcow2"), "an overlay");
    put_file(in_2("more"), "");
    expect_fallback(VF_CORRUPT, "more: is not in the manifest");
}

Test(templates_load, memory_short)
{
    cr_assert_eq(truncate(in_2("memory"), 4096), 0);
    expect_fallback(VF_CORRUPT, "memory: is 4096 bytes long, must be 16777216");
}

Test(templates_load, memory_altered)
{
    int fd = open(in_2("memory"), O_WRONLY | O_CLOEXEC);

    cr_assert_eq(pwrite(fd, "x", 1, 5), 1);
    close(fd);
    expect_fallback(VF_CORRUPT, "memory: its SHA-256 is ");
}

Test(templates_load, quarantined)
{
    struct vf_error err;

    expect_ok(vf_store_quarantine(store, "web", 2, "clones fail", &err), err);
    expect_fallback(VF_CONFLICT, "is quarantined: clones fail");
    put_file(in_2("quarantined"), "");
    expect_fallback(VF_CONFLICT, "is quarantined: no reason was noted");
}

/* --- the world outside: it concerns all generations alike */

static void expect_none_usable(const char *says)
{
    struct vf_skipped_list skipped = {0};
    struct vf_generation *gen = NULL;
    struct vf_error err = {0};

    expect_refused(VF_CONFLICT, says);
    expect_error(vf_store_load(store, "web", 0, NULL, &gen, &skipped, &err), err, VF_CONFLICT,
                 "template web: no usable generation of 2: generation 2: ");
    cr_expect_eq(skipped.n, 2);
    vf_skipped_free(&skipped);
}

Test(templates_load, assets_changed)
{
    put_file(fx.kernel, "another kernel");
    expect_none_usable("has changed since the template was built (14 bytes, were 8)");
    put_file(fx.kernel, "a kernel");
    put_file(fx.root, "A ROOT IMAGE");
    expect_none_usable("root.img: has changed since the template was built (SHA-256 ");
    cr_assert_eq(unlink(fx.root), 0);
    expect_none_usable("root.img: does not exist");
}

Test(templates_load, vmm_changed)
{
    put_file(fx.vmm, "A VMM's binary");
    expect_none_usable("VMM: ");
}

Test(templates_load, cpu_changed)
{
    edit_manifest("s/\"cpu_flags_sha256\": \"[0-9a-f]*/\"cpu_flags_sha256\": "
                  "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/");
    expect_fallback(VF_CONFLICT, "host CPU: its feature flags");
    edit_manifest("s/\"cpu_model\": \"[^\"]*/\"cpu_model\": \"Model T/");
    expect_fallback(VF_CONFLICT, "the template was built on \"Model T\"");
}

Test(templates_load, still_valid_until_something_changes)
{
    struct vf_generation *gen = NULL, *again = NULL;
    struct vf_error err = {0};

    expect_ok(vf_store_load(store, "web", 2, NULL, &gen, NULL, &err), err);
    put_file(fx.kernel, "another kernel"); /* which is in the memory: clones do not need it */
    expect_ok(vf_generation_still_valid(gen, &err), err);
    put_file(in_2("overlay.qcow2"), "an overlay, written to");
    expect_error(vf_generation_still_valid(gen, &err), err, VF_CONFLICT,
                 "template web generation 2: overlay.qcow2: has changed");
    /* Sharing what is loaded asks the same question. */
    expect_error(vf_store_load(store, "web", 2, NULL, &again, NULL, &err), err, VF_CONFLICT,
                 "overlay.qcow2: has changed");
    cr_assert_eq(unlink(fx.vmm), 0);
    cr_assert_eq(unlink(in_2("overlay.qcow2")), 0);
    expect_error(vf_generation_still_valid(gen, &err), err, VF_CONFLICT,
                 "overlay.qcow2: No such file");
    vf_generation_unref(gen);
}

Test(templates_load, root_and_vmm_are_watched)
{
    struct vf_generation *gen = NULL;
    struct vf_error err = {0};

    expect_ok(vf_store_load(store, "web", 2, NULL, &gen, NULL, &err), err);
    put_file(fx.root, "written to");
    expect_error(vf_generation_still_valid(gen, &err), err, VF_CONFLICT, "root.img: has changed");
    vf_generation_unref(gen);
    put_file(fx.root, "a root image");
    expect_ok(vf_store_load(store, "web", 2, NULL, &gen, NULL, &err), err);
    put_file(fx.vmm, "replaced by an upgrade");
    expect_error(vf_generation_still_valid(gen, &err), err, VF_CONFLICT, "vmm: has changed");
    vf_generation_unref(gen);
}

/* --- sharing */

Test(templates_load, a_loaded_one_is_shared)
{
    struct vf_generation *a = NULL, *b = NULL;
    struct vf_error err = {0};
    int before;

    expect_ok(vf_store_load(store, "web", 0, NULL, &a, NULL, &err), err);
    before = count_fds();
    expect_ok(vf_store_load(store, "web", 2, NULL, &b, NULL, &err), err);
    cr_expect_eq(a, b);
    cr_expect_eq(count_fds(), before);
    vf_generation_unref(a);
    expect_error(vf_store_remove(store, "web", 2, &err), err, VF_CONFLICT, "is in use");
    vf_generation_unref(b);
    expect_ok(vf_store_remove(store, "web", 2, &err), err);
}

static void *load_in_thread(void *arg)
{
    struct vf_generation *gen = NULL;
    int r = vf_store_load(store, "web", 2, NULL, &gen, NULL, NULL);

    (void)arg;
    return r == 0 ? gen : NULL;
}

Test(templates_load, threads_share_one_load)
{
    pthread_t threads[4];
    void *gens[4];

    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, load_in_thread, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], &gens[i]);
    for (int i = 0; i < 4; i++) {
        cr_assert_not_null(gens[i]);
        cr_expect_eq(gens[0], gens[i]); /* held by all: nobody can have freed it between */
    }
    for (int i = 0; i < 4; i++)
        vf_generation_unref(gens[i]);
}

Test(templates_load, threads_that_wait_for_a_failing_load_fail_too)
{
    pthread_t threads[4];

    cr_assert_eq(truncate(in_2("memory"), 4096), 0);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, load_in_thread, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *gen;

        pthread_join(threads[i], &gen);
        cr_expect_null(gen);
    }
}

/* The store: builds become generations, or nothing; what is held stays; what is removed is gone. */
#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "templates_support.h"

static struct fixture fx;
static struct vf_store *store;
static int fds_before;

static void setup(void)
{
    struct vf_error err;

    fixture_open(&fx);
    fds_before = count_fds();
    expect_ok(vf_store_open(fx.state, &store, &err), err);
}

static void teardown(void)
{
    vf_store_close(store);
    cr_expect_eq(count_fds(), fds_before, "descriptors leaked");
    fixture_close(&fx);
}

TestSuite(templates_store, .init = setup, .fini = teardown);

static void expect_dir(const char *below, const char *entries)
{
    char path[400], list[600];

    snprintf(path, sizeof(path), "%s/%s", fx.state, below);
    list_dir(path, list, sizeof(list));
    cr_expect_str_eq(list, entries, "%s: \"%s\"", below, list);
}

static void build_some(int n)
{
    struct vf_error err = {0};

    for (int i = 0; i < n; i++)
        expect_ok(build_one(&fx, store, NULL, &err), err);
}

/* Runs a shell command in the store's directory. */
static void in_state(const char *command)
{
    char line[600];

    snprintf(line, sizeof(line), "cd '%s' && %s", fx.state, command);
    cr_assert_eq(system(line), 0);
}

/* --- opening */

Test(templates_store, one_process_at_a_time)
{
    struct vf_store *second = NULL;
    struct vf_error err = {0};
    char pid[32];

    snprintf(pid, sizeof(pid), "in use by pid %d", (int)getpid());
    expect_error(vf_store_open(fx.state, &second, &err), err, VF_CONFLICT, pid);
    cr_expect_str_neq(err.hint, "");
    cr_expect_null(second);
    vf_store_close(store);
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    cr_expect_null(vf_store_sweep_error(store));
}

Test(templates_store, directories_are_private_and_path_absolute)
{
    struct stat st;
    struct vf_error err;

    cr_assert_eq(stat(fx.state, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0700);
    vf_store_close(store);
    cr_assert_eq(chdir(fx.s.path), 0);
    expect_ok(vf_store_open("state", &store, &err), err);
    cr_expect_str_eq(vf_store_path(store), fx.state);
}

Test(templates_store, a_file_in_the_way)
{
    struct vf_store *other = NULL;
    struct vf_error err = {0};
    int before = count_fds();

    cr_expect_lt(vf_store_open(fx.kernel, &other, &err), 0);
    cr_expect_not_null(strstr(err.msg, fx.kernel), "%s", err.msg);
    cr_expect_eq(count_fds(), before);
}

Test(templates_store, litter_is_swept_and_nothing_else)
{
    struct vf_error err;

    build_some(1);
    vf_store_close(store);
    in_state("mkdir -p templates/web/tmp-1/deep templates/gone/tmp-2 templates/web/mine");
    in_state("touch templates/web/tmp-1/deep/f templates/web/.vf-tmp-00 templates/README");
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_dir("templates", "README web ");
    expect_dir("templates/web", "1 mine ");
}

/* --- building */

Test(templates_store, a_build_becomes_the_next_generation)
{
    struct vf_generation *gen = NULL;
    struct vf_error err;
    char path[400];
    struct stat st;

    expect_ok(build_one(&fx, store, NULL, &err), err);
    expect_ok(build_one(&fx, store, &gen, &err), err);
    cr_expect_eq(gen->number, 2);
    cr_expect_eq(gen->manifest.generation, 2);
    snprintf(path, sizeof(path), "%s/templates/web/2", fx.state);
    cr_expect_str_eq(gen->path, path);
    cr_expect(vf_memory_is_sealed(gen->memory_fd));
    cr_expect_eq(fcntl(gen->memory_fd, F_GETFD), FD_CLOEXEC);
    cr_expect_eq(strlen(gen->manifest.created), 20);
    cr_expect_eq(faccessat(gen->dirfd, "state", R_OK, 0), 0);
    cr_expect_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0700);
    expect_ok(vf_generation_still_valid(gen, &err), err);
    expect_dir("templates/web", "1 2 ");
    expect_dir("templates/web/2", "manifest.json memory overlay.qcow2 state ");
    vf_generation_unref(gen);
}

Test(templates_store, an_abandoned_build_leaves_nothing)
{
    struct vf_build *b = NULL;
    struct vf_error err;
    char path[400];

    expect_ok(vf_store_begin(store, "web", &b, &err), err);
    cr_expect_eq(faccessat(vf_build_dirfd(b), ".", W_OK, 0), 0);
    snprintf(path, sizeof(path), "%s/x", vf_build_path(b));
    put_file(path, "x");
    vf_build_free(b);
    expect_dir("templates", "");
    vf_build_free(NULL);
}

Test(templates_store, bad_names)
{
    static const char *const names[] = {"", ".", "..", "a/b", "Web", "-a", "tmp_1"};
    struct vf_error err = {0};
    struct vf_build *b = NULL;
    struct vf_generation *gen = NULL;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        expect_error(vf_store_begin(store, names[i], &b, &err), err, VF_INVALID_ARGUMENT,
                     "is no template name");
        expect_error(vf_store_load(store, names[i], 0, NULL, &gen, NULL, &err), err,
                     VF_INVALID_ARGUMENT, "is no template name");
        expect_error(vf_store_remove(store, names[i], 1, &err), err, VF_INVALID_ARGUMENT,
                     "is no template name");
    }
}

/* A build with one file "state", which `spoil` makes wrong. */
static void expect_commit_refused(void (*spoil)(struct vf_build *, struct vf_manifest *),
                                  enum vf_code code, const char *says)
{
    struct vf_generation *gen = NULL;
    struct vf_error err = {0};
    struct vf_build *b = NULL;
    struct vf_manifest m;
    char path[400];

    expect_ok(vf_store_begin(store, "web", &b, &err), err);
    expect_ok(make_manifest(&fx, &m, &err), err);
    snprintf(path, sizeof(path), "%s/state", vf_build_path(b));
    put_file(path, "state");
    expect_ok(vf_manifest_add_file(&m, "state", -1, NULL, &err), err);
    spoil(b, &m);
    expect_error(vf_store_commit(b, &m, -1, &gen, &err), err, code, says);
    cr_expect_null(gen);
    vf_build_free(b);
    vf_manifest_free(&m);
    expect_dir("templates", "");
}

static void extra_file(struct vf_build *b, struct vf_manifest *m)
{
    char path[400];

    (void)m;
    snprintf(path, sizeof(path), "%s/extra", vf_build_path(b));
    put_file(path, "x");
}

static void missing_file(struct vf_build *b, struct vf_manifest *m)
{
    (void)m;
    cr_assert_eq(unlinkat(vf_build_dirfd(b), "state", 0), 0);
}

static void other_size(struct vf_build *b, struct vf_manifest *m)
{
    struct vf_manifest_file *f = m->files.items;

    (void)b;
    f->size = 6;
    f->sha256 = strdup("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void a_directory(struct vf_build *b, struct vf_manifest *m)
{
    (void)m;
    cr_assert_eq(unlinkat(vf_build_dirfd(b), "state", 0), 0);
    cr_assert_eq(mkdirat(vf_build_dirfd(b), "state", 0700), 0);
}

static void no_nonce(struct vf_build *b, struct vf_manifest *m)
{
    (void)b;
    free(m->nonce);
    m->nonce = NULL;
}

static void other_template(struct vf_build *b, struct vf_manifest *m)
{
    (void)b;
    free(m->template_name);
    m->template_name = strdup("other");
}

static void kernel_replaced(struct vf_build *b, struct vf_manifest *m)
{
    (void)b;
    (void)m;
    put_file(fx.kernel, "A kernel");
}

Test(templates_store, commits_that_are_refused)
{
    expect_commit_refused(extra_file, VF_INVALID_ARGUMENT,
                          "extra: is in the directory, but not listed");
    expect_commit_refused(missing_file, VF_INVALID_ARGUMENT,
                          "state: is listed, but not in the directory");
    expect_commit_refused(other_size, VF_INVALID_ARGUMENT,
                          "state: is 5 bytes long, was listed with 6");
    expect_commit_refused(a_directory, VF_INVALID_ARGUMENT, "state: is not a regular file");
    expect_commit_refused(no_nonce, VF_INVALID_ARGUMENT, "nonce");
    expect_commit_refused(other_template, VF_INVALID_ARGUMENT,
                          "the manifest is that of template \"other\"");
    expect_commit_refused(kernel_replaced, VF_CONFLICT, "has changed since the template was built");
}

Test(templates_store, memory_must_be_sealed)
{
    struct vf_error err = {0};
    struct vf_build *b = NULL;
    struct vf_manifest m;
    char sha256[VF_SHA256_HEX];
    int memory = make_memory(1);

    expect_ok(vf_store_begin(store, "web", &b, &err), err);
    expect_ok(make_manifest(&fx, &m, &err), err);
    expect_ok(vf_memory_store(memory, vf_build_dirfd(b), "memory", NULL, sha256, &err), err);
    expect_ok(vf_manifest_add_file(&m, "memory", 16 << 20, sha256, &err), err);
    expect_error(vf_store_commit(b, &m, memory, NULL, &err), err, VF_INVALID_ARGUMENT,
                 "is not sealed");
    vf_build_free(b);
    vf_manifest_free(&m);
    close(memory);
}

/* --- removal, quarantine, listing */

Test(templates_store, what_is_held_is_not_removed)
{
    struct vf_generation *gen = NULL;
    struct vf_error err = {0};

    expect_ok(build_one(&fx, store, &gen, &err), err);
    vf_generation_ref(gen);
    vf_generation_unref(gen);
    expect_error(vf_store_remove(store, "web", 1, &err), err, VF_CONFLICT,
                 "template web generation 1: remove: is in use");
    cr_expect_str_neq(err.hint, "");
    expect_dir("templates/web", "1 ");
    vf_generation_unref(gen);
    expect_ok(vf_store_remove(store, "web", 1, &err), err);
    expect_dir("templates/web", "last ");
    expect_error(vf_store_remove(store, "web", 1, &err), err, VF_NOT_FOUND, "does not exist");
    expect_error(vf_store_remove(store, "wob", 1, &err), err, VF_NOT_FOUND, "template wob: ");
    vf_generation_ref(NULL);
    vf_generation_unref(NULL);
}

Test(templates_store, a_number_never_comes_twice)
{
    struct vf_generation *gen = NULL;
    struct vf_error err;

    build_some(2);
    expect_ok(vf_store_remove(store, "web", 2, &err), err);
    vf_store_close(store);
    expect_ok(vf_store_open(fx.state, &store, &err), err);
    expect_ok(build_one(&fx, store, &gen, &err), err);
    cr_expect_eq(gen->number, 3);
    vf_generation_unref(gen);
    expect_dir("templates/web", "1 3 last ");
}

static void expect_entry(const struct vf_store_entry *e, int64_t number,
                         enum vf_generation_state state, const char *reason)
{
    cr_expect_str_eq(e->name, "web");
    cr_expect_eq(e->generation, number);
    cr_expect_str_eq(vf_generation_state_names[e->state], vf_generation_state_names[state]);
    cr_expect_not_null(strstr(e->reason, reason), "\"%s\" lacks \"%s\"", e->reason, reason);
}

Test(templates_store, listing)
{
    struct vf_store_entry *entries = (void *)1;
    struct vf_generation *gen = NULL;
    struct vf_error err;
    char path[400];
    size_t n = 99;

    expect_ok(vf_store_list(store, NULL, &entries, &n, &err), err);
    cr_expect_eq(n, 0);
    cr_expect_null(entries);

    build_some(9);
    expect_ok(build_one(&fx, store, &gen, &err), err);
    snprintf(path, sizeof(path), "%s/templates/web/2/manifest.json", fx.state);
    cr_assert_eq(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/templates/web/3/state", fx.state);
    put_file(path, "longer than it was before");
    snprintf(path, sizeof(path), "%s/templates/web/4/alien", fx.state);
    put_file(path, "x");
    expect_ok(vf_store_quarantine(store, "web", 5, "three clones\nfailed", &err), err);
    expect_ok(vf_store_quarantine(store, "web", 5, "four clones\nfailed", &err), err);
    expect_error(vf_store_quarantine(store, "web", 99, "x", &err), err, VF_NOT_FOUND,
                 "template web generation 99: quarantine: does not exist");

    expect_ok(vf_store_list(store, "web", &entries, &n, &err), err);
    cr_assert_eq(n, 10);
    expect_entry(&entries[0], 1, VF_GENERATION_READY, "");
    cr_expect_str_eq(entries[0].reason, "");
    cr_expect_eq(entries[0].memory_size, 16 << 20);
    cr_expect_gt(entries[0].disk_bytes, 8 * 4096);
    cr_expect_lt(entries[0].disk_bytes, 1 << 20);
    cr_expect_eq(strlen(entries[0].created), 20);
    cr_expect_not(entries[0].loaded);
    expect_entry(&entries[1], 2, VF_GENERATION_CORRUPT, "manifest.json: is missing");
    expect_entry(&entries[2], 3, VF_GENERATION_CORRUPT, "state: is 25 bytes long, must be 18");
    expect_entry(&entries[3], 4, VF_GENERATION_CORRUPT, "alien: is not in the manifest");
    expect_entry(&entries[4], 5, VF_GENERATION_QUARANTINED, "four clones failed");
    expect_entry(&entries[9], 10, VF_GENERATION_READY, "");
    cr_expect(entries[9].loaded);
    free(entries);
    expect_ok(vf_store_list(store, "nothing", &entries, &n, &err), err);
    cr_expect_eq(n, 0);
    vf_generation_unref(gen);
}

/* --- threads */

static void *build_in_thread(void *arg)
{
    struct vf_generation *gen = NULL;
    int r = build_one(&fx, store, &gen, NULL);

    (void)arg;
    if (r == 0)
        vf_generation_unref(gen);
    return (void *)(intptr_t)r;
}

static char told[4096];

static void note_digest(void *arg, const char *sha256)
{
    (void)arg;
    snprintf(told + strlen(told), sizeof(told) - strlen(told), "%s ", sha256);
}

static void expect_told(const char *content)
{
    uint8_t digest[VF_SHA256_LEN];
    char hex[VF_SHA256_HEX];

    vf_sha256(content, strlen(content), digest);
    vf_hex(digest, sizeof(digest), hex);
    cr_expect_not_null(strstr(told, hex), "%s: not told", content);
}

/* Of the VMM, the kernel and the image, each once a generation; none of what is damaged. */
Test(templates_store, digests_in_use)
{
    struct vf_error err = {0};

    expect_ok(vf_store_digests(store, note_digest, NULL, &err), err);
    cr_expect_str_eq(told, "");
    build_some(1);
    put_file(fx.vmm, "another VMM");
    build_some(1);
    expect_ok(vf_store_digests(store, note_digest, NULL, &err), err);
    cr_expect_eq(strlen(told), 6 * VF_SHA256_HEX);
    expect_told("a VMM's binary");
    expect_told("another VMM");
    expect_told("a kernel");
    in_state("echo damage >templates/web/1/manifest.json");
    told[0] = '\0';
    expect_ok(vf_store_digests(store, note_digest, NULL, &err), err);
    cr_expect_eq(strlen(told), 3 * VF_SHA256_HEX);
    /* Of one that only a newer vmfactory knows, nothing can be said. */
    in_state("sed -i 's/\"format\": 2/\"format\": 9/' templates/web/2/manifest.json");
    expect_error(vf_store_digests(store, note_digest, NULL, &err), err, VF_UNSUPPORTED,
                 "template web generation 2: manifest.json: format: is 9");
}

Test(templates_store, builds_at_once_get_a_number_each)
{
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, build_in_thread, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *r;

        pthread_join(threads[i], &r);
        cr_expect_null(r);
    }
    expect_dir("templates/web", "1 2 3 4 ");
}

/* What the tests of templates/ share: a spec with its files, and a way to make generations of
 * it. */
#ifndef VF_TESTS_TEMPLATES_SUPPORT_H
#define VF_TESTS_TEMPLATES_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include "scratch.h"
#include "templates/store.h"

/* Files that a template stands on, and a place for the store. */
struct fixture {
    struct scratch s;
    char state[300], kernel[300], root[300], vmm[300];
    struct vf_spec spec; /* "web", 16 MiB, kernel and root of above */
};
void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f);

/* Replaces a file's contents. */
void put_file(const char *path, const char *text);
/* How many descriptors this process has. */
int count_fds(void);
/* A memfd of 16 MiB with a few pages that differ by seed; not sealed. */
int make_memory(unsigned seed);
/* The whole manifest of a generation in the making, but for files. */
int make_manifest(const struct fixture *f, struct vf_manifest *ret_m, struct vf_error *err);
/* One build from begin to free: memory, state, overlay.qcow2. */
int build_one(const struct fixture *f, struct vf_store *store, struct vf_generation **ret_gen,
              struct vf_error *err);
/* The entries of a directory, sorted, each followed by a blank. */
void list_dir(const char *path, char *buf, size_t size);
/* Gives this process a mount namespace of its own; false where that is not permitted: then the test
 * has been skipped, with the reason, and must return. */
bool own_mounts(const char *test);

/* Fails unless r is the errno of code and the message contains text. */
#define expect_error(r, err, want, text)                                                         \
    do {                                                                                         \
        cr_expect_eq((r), vf_code_errno(want), "%d, %s: %s", (r), vf_code_name((err).code),      \
                     (err).msg);                                                                 \
        cr_expect_not_null(strstr((err).msg, (text)), "\"%s\" lacks \"%s\"", (err).msg, (text)); \
    } while (0)
#define expect_ok(r, err) cr_assert_eq((r), 0, "%s (%s)", (err).msg, (err).hint)

#endif

/* The store on disk: STATE/templates/NAME/1, 2, … one directory a generation, each immutable.
 *
 *     STATE/lock                      flock: one process at a time; holds its pid
 *     STATE/templates/NAME/7/         manifest.json, memory, the VMM's state, overlay.qcow2, …
 *     STATE/templates/NAME/7/quarantined    if it is: why
 *     STATE/templates/NAME/last       highest number ever used, so that none comes twice
 *     STATE/templates/NAME/tmp-…      being built, or being removed
 *
 * A build fills a tmp- directory; commit hashes and fsyncs its files, writes the manifest, and
 * renames it to the next number. A crash anywhere leaves the old generations or also the new one,
 * and a tmp- that the next vf_store_open removes. A full disk or a read-only one fails the build
 * and touches nothing else.
 *
 * Everything here blocks (worker threads) and is thread-safe, but for one build or one list, which
 * belong to one thread at a time. */
#ifndef VF_TEMPLATES_STORE_H
#define VF_TEMPLATES_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "templates/generation.h"
#include "templates/manifest.h"
#include "templates/memory.h"

struct vf_store;

/* Makes what is missing (mode 0700), locks it (VF_CONFLICT "in use by pid 123"), sweeps the litter
 * of crashes. path may be relative. */
int vf_store_open(const char *path, struct vf_store **ret_store, struct vf_error *err);
/* All builds and generations of it must be gone (asserted). NULL is fine. */
void vf_store_close(struct vf_store *store);
/* Absolute. */
const char *vf_store_path(const struct vf_store *store);
/* Litter that the sweep could not remove: worth a line in the log, no reason to stop. NULL:
 * none. */
const struct vf_error *vf_store_sweep_error(const struct vf_store *store);

/* --- building */
struct vf_build;
int vf_store_begin(struct vf_store *store, const char *name, struct vf_build **ret_build,
                   struct vf_error *err);
/* Of the temporary directory, to be filled; the path is absolute and ends with the commit. */
int vf_build_dirfd(const struct vf_build *b);
const char *vf_build_path(const struct vf_build *b);
/* Makes it a generation. m lists the files (vf_manifest_add_file): exactly those must be there;
 * generation, created, and missing sizes and digests are filled in. On success m is emptied.
 * memory_fd: the sealed template memory, or -1; it stays the caller's. ret_gen: the new
 * generation, ready for use without being read back (memory_fd must be given then); or NULL. On
 * failure the build can only be freed. */
int vf_store_commit(struct vf_build *b, struct vf_manifest *m, int memory_fd,
                    struct vf_generation **ret_gen, struct vf_error *err);
/* Removes the temporary directory unless it was committed. Always the last call; NULL is fine. */
void vf_build_free(struct vf_build *b);

/* --- loading */
struct vf_skipped {
    int64_t generation;
    struct vf_error err; /* why */
};
struct vf_skipped_list {
    struct vf_skipped *v;
    size_t n;
};
void vf_skipped_free(struct vf_skipped_list *list);

/* Loads generation number of template name; 0: the newest usable one (then ret_skipped, if
 * given, lists the newer ones that were passed over; it is filled on failure too and always to
 * be freed). Verified: manifest, exactly the listed files with size and digest, the VMM's
 * binary, kernel, initrd and root image, the host's CPU. VF_NOT_FOUND: no such template or
 * generation. VF_CORRUPT: the generation is damaged. VF_CONFLICT: it does not fit this host any
 * more, or is quarantined. A generation that is loaded already is checked with
 * vf_generation_still_valid and shared. progress may be NULL. */
int vf_store_load(struct vf_store *store, const char *name, int64_t number,
                  struct vf_progress *progress, struct vf_generation **ret_gen,
                  struct vf_skipped_list *ret_skipped, struct vf_error *err);

/* --- keeping house */
enum vf_generation_state { VF_GENERATION_READY, VF_GENERATION_CORRUPT, VF_GENERATION_QUARANTINED };
extern const char *const vf_generation_state_names[]; /* "ready", "corrupt", "quarantined", NULL */

struct vf_store_entry {
    char name[VF_SPEC_NAME_MAX + 1];
    int64_t generation;
    enum vf_generation_state state;
    char reason[768];    /* why not ready; empty if it is */
    char created[32];    /* empty if the manifest can't be read */
    int64_t memory_size; /* bytes; 0 likewise */
    int64_t disk_bytes;  /* taken on disk */
    bool loaded;         /* someone in this process holds it */
};
/* All generations, by name, then number. Cheap: manifests and sizes are checked, no digests.
 * name NULL: of all templates. ret_entries is malloc'd, to be freed with free(); NULL if there
 * are none. */
int vf_store_list(struct vf_store *store, const char *name, struct vf_store_entry **ret_entries,
                  size_t *ret_n, struct vf_error *err);
/* Tells each digest of a VMM, kernel, initrd or image that a generation in the store was made with and needs (some more
 * than once). On failure some were not told: then none may be called unused. */
int vf_store_digests(struct vf_store *store, void (*tell)(void *arg, const char *sha256), void *arg,
                     struct vf_error *err);
/* Never to be loaded again; those that hold it keep it. A second reason replaces the first. */
int vf_store_quarantine(struct vf_store *store, const char *name, int64_t number,
                        const char *reason, struct vf_error *err);
/* VF_CONFLICT while someone in this process holds it. */
int vf_store_remove(struct vf_store *store, const char *name, int64_t number, struct vf_error *err);

#endif

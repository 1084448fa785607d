/* What the files of the store share. Not for others.
 *
 * Locks: `lock` guards the list of loaded generations and is held for moments only (the event loop
 * takes it in vf_generation_ref and unref); `commit_lock` is held while directories of templates
 * come and go and numbers are given out. Order: commit_lock before lock. */
#ifndef VF_TEMPLATES_STORE_INTERNAL_H
#define VF_TEMPLATES_STORE_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "templates/digest.h"
#include "templates/generation.h"
#include "templates/manifest.h"
#include "templates/store.h"

#define VF_STORE_TMP_PREFIX "tmp-"
#define VF_STORE_LAST_NAME "last"
#define VF_STORE_TMP_NAME_SIZE 32

struct vf_store {
    char *path;       /* absolute */
    int lock_fd;      /* holds the flock */
    int templates_fd; /* STATE/templates */
    pthread_mutex_t commit_lock;
    pthread_mutex_t lock;
    pthread_cond_t loaded_changed; /* an entry of `loaded` left the state loading */
    struct vf_generation_private *loaded;
    int n_builds; /* under lock */
    struct vf_error sweep_err;
};

/* --- directories (dir.c) */
/* The generation that a directory's entry stands for: decimal, from 1, no leading zero; else 0. */
int64_t vf_generation_number(const char *entry);
/* Opens dirfd/name, a directory, not through a symlink. 0 or a negative errno. */
int vf_dir_open(int dirfd, const char *name, int *ret_fd);
/* Opens STATE/templates/NAME; checks the name; VF_NOT_FOUND if there is none. */
int vf_template_dir(const struct vf_store *store, const char *name, int *ret_fd,
                    struct vf_error *err);
/* fsync of a directory, where the file system can. */
int vf_dir_sync(int fd, const char *what, struct vf_error *err);
/* "tmp-0123456789abcdef" */
void vf_store_tmp_name(char ret[VF_STORE_TMP_NAME_SIZE]);
/* The highest number used so far in a template's directory, 0 for none. */
int vf_generation_highest(int template_fd, int64_t *ret_number, struct vf_error *err);

/* --- what a generation was verified with (verify.c) */
struct vf_watch {
    char *path; /* absolute; or, in_dir, a name in the generation's directory */
    bool in_dir;
    struct vf_stamp stamp;
};
struct vf_watches {
    struct vf_watch *v;
    size_t n;
};
void vf_watches_free(struct vf_watches *w);
/* The directory holds exactly the manifest's files, regular and of their size (and
 * manifest.json, and perhaps the mark). */
int vf_verify_listing(int dirfd, const struct vf_manifest *m, struct vf_error *err);
/* Digests of the files but for memory; adds their stamps. */
int vf_verify_files(int dirfd, const struct vf_manifest *m, struct vf_watches *w,
                    struct vf_error *err);
/* Only adds their stamps. */
int vf_watch_files(int dirfd, const struct vf_manifest *m, struct vf_watches *w,
                   struct vf_error *err);
/* Assets, VMM, host; adds the stamps of the VMM's binary and the root image. VF_CONFLICT if one is
 * not what it was. */
int vf_verify_outside(const struct vf_manifest *m, struct vf_watches *w, struct vf_error *err);

/* --- one stored generation (load.c) */
/* Opens it and reads its manifest, which must be of that template and number. */
int vf_generation_open(int template_fd, const char *name, int64_t number, int *ret_fd,
                       struct vf_manifest *ret_m, struct vf_error *err);
/* 1 and the reason if it bears the mark, 0 if not, or a negative errno. */
int vf_generation_quarantined(int dirfd, char *ret_reason, size_t size, struct vf_error *err);

/* --- all stored generations (store_list.c) */
typedef int (*vf_store_each_cb)(void *arg, int template_fd, const char *name, int64_t number,
                                struct vf_error *err);
/* Calls each for every generation of every template; its first failure ends the walk, and is returned. */
int vf_store_each(struct vf_store *store, vf_store_each_cb each, void *arg, struct vf_error *err);

/* --- loaded generations (generation.c) */
struct vf_generation_private {
    struct vf_generation gen; /* gen.priv points back here */
    struct vf_store *store;
    struct vf_generation_private *next; /* in store->loaded */
    char name[VF_SPEC_NAME_MAX + 1];
    bool loading; /* being verified by one thread; others wait on loaded_changed */
    size_t refs;
    struct vf_watches watches;
};
/* A new entry, not in the list yet, loading, without a number, with one reference; NULL without
 * memory. */
struct vf_generation_private *vf_loaded_new(struct vf_store *store, const char *name);
/* Sets the number, and the path with it. */
int vf_loaded_set_number(struct vf_generation_private *p, int64_t number, struct vf_error *err);
/* Closes and frees all of it; it is in no list. NULL is fine. */
void vf_loaded_free(struct vf_generation_private *p);
/* The entry of name and number, or NULL. Under lock. */
struct vf_generation_private *vf_loaded_find(const struct vf_store *store, const char *name,
                                             int64_t number);
/* Puts p in the list. */
void vf_loaded_link(struct vf_generation_private *p);
/* Waits while another thread loads what p is for. Returns its result, with a reference; or NULL if
 * it is p's owner who has to load it: then p is in the list. */
struct vf_generation_private *vf_loaded_share_or_link(struct vf_generation_private *p);
/* The loading has ended. On failure p is out of the list again, and its owner's to free. */
void vf_loaded_ended(struct vf_generation_private *p, bool loaded);

#endif

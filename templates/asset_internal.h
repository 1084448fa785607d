/* What the files of the assets share. Not for others.
 *
 *     asset_fetch.c     callers on loops, the queue, worker threads
 *         -> asset_download.c   one digest: partial file, attempts, what is right of it into its place
 *                -> asset_http.c, asset_file.c   one attempt to get its bytes
 *
 * Locks: `lock` guards the list of downloads, their waiters and the workers; it is held for moments only. A partial file
 * is locked (flock) by the download that writes it, so that another process, or another store on the same path, waits.
 */
#ifndef VF_TEMPLATES_ASSET_INTERNAL_H
#define VF_TEMPLATES_ASSET_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "templates/assets.h"
#include "templates/digest.h"

#define VF_ASSET_FILES "sha256"    /* STORE/sha256/DIGEST: whole */
#define VF_ASSET_PARTIAL "partial" /* STORE/partial/DIGEST: coming in, or left by a crash */
#define VF_ASSET_ASIDE "corrupt"   /* STORE/corrupt/DIGEST: found not to be what its name says */

/* The most that is fetched where the asset does not say its size. */
#define VF_ASSET_UNSIZED_MAX ((int64_t)16 << 30)
#define VF_ASSET_SIZE_MAX ((int64_t)1 << 40)
#define VF_ASSET_REDIRECTS_MAX 5

struct vf_fetch_limits {
    int64_t connect_timeout_ms; /* name, connection and TLS */
    int64_t stall_timeout_s;    /* this long below stall_bytes_per_s is a stall */
    int64_t stall_bytes_per_s;
    int attempts;                        /* at most, in all */
    int64_t backoff_ms, backoff_most_ms; /* before the second attempt; doubles from then on */
};
extern const struct vf_fetch_limits vf_fetch_limits_default;

enum vf_worker_state { VF_WORKER_NONE, VF_WORKER_RUNNING, VF_WORKER_ENDED /* to be joined */ };

struct vf_worker {
    pthread_t thread;
    enum vf_worker_state state;
    struct vf_asset_store *store;
};

struct vf_asset_store {
    char *path; /* absolute */
    int dirfd, files_fd, partial_fd;
    struct vf_fetch_limits limits; /* for tests to change before the first fetch */
    pthread_mutex_t lock;
    pthread_cond_t abandoned;      /* a download that runs was */
    struct vf_download *downloads; /* queued and running, oldest first */
    struct vf_worker workers[VF_FETCH_MAX];
    int n_fetches; /* whose done has not come yet */
};

/* --- definitions (asset_def.c) */
int vf_asset_copy(const struct vf_asset *a, struct vf_asset *ret, struct vf_error *err);
/* 64 hexadecimal digits, lower case. */
bool vf_asset_digest_ok(const char *sha256);

/* --- URLs (asset_url.c) */
/* https, http to loopback, or file; no credentials. field: for messages. */
int vf_asset_check_url(const char *url, const char *field, bool file_too, struct vf_error *err);
/* Of the same scheme, host and port. */
bool vf_asset_same_server(const char *url, const char *other);

/* 1 if the file is in the store, and executable if the asset is a VMM (made so, if it was not); 0 if it is not there.
 * *ret_size may be NULL. (asset_store.c) */
int vf_asset_is_there(const struct vf_asset_store *s, const struct vf_asset *a, int64_t *ret_size,
                      struct vf_error *err);

/* --- one digest on its way */
struct vf_download {
    struct vf_asset_store *store;
    struct vf_download *next;
    struct vf_asset
        asset; /* of the first caller; others wait for it only if theirs has the same source */
    const struct vf_asset_file *file;
    /* under the store's lock */
    struct vf_fetch *waiters;
    bool running, abandoned;
    void *multi;         /* CURLM of the attempt under way, to be woken */
    int64_t done, total; /* as told last */
    /* the worker's own */
    int fd; /* the partial file, open and locked */
    struct vf_digest digest;
    int64_t at;    /* bytes that are written and hashed */
    bool pieced;   /* they came in more than one piece */
    bool reserved; /* room for all of it is set aside on the disk */
};

/* In a worker thread: all of it, until the file is in its place or what went wrong is told. */
int vf_download_run(struct vf_download *d, struct vf_error *err);
/* True if nobody waits for it any more. (asset_fetch.c) */
bool vf_download_abandoned(struct vf_download *d);
/* Tells whoever waits how far it is; total 0: not known. (asset_fetch.c) */
void vf_download_tell(struct vf_download *d, int64_t done, int64_t total);
/* Waits that long, or until it is abandoned: then false. (asset_fetch.c) */
bool vf_download_pause(struct vf_download *d, int64_t ms);
/* Sets what has to be woken (curl_multi_wakeup) if it is abandoned; NULL: nothing. (asset_fetch.c) */
void vf_download_wakes(struct vf_download *d, void *multi);

/* --- what a source does with its bytes (asset_download.c) */
/* From the beginning: forgets what is there. */
int vf_download_restart(struct vf_download *d, struct vf_error *err);
/* It will have total bytes in all: refuses another length than the asset's, or too much. */
int vf_download_expect(struct vf_download *d, int64_t total, struct vf_error *err);
int vf_download_write(struct vf_download *d, const void *data, size_t len, struct vf_error *err);

/* --- sources: one attempt to get the bytes from d->at on. *ret_again: another one may do better. */
void vf_asset_http_init(void); /* once is enough; thread-safe */
int vf_asset_http_get(struct vf_download *d, bool *ret_again, struct vf_error *err);
int vf_asset_file_get(struct vf_download *d, struct vf_error *err);

#endif

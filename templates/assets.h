/* Assets: VMM binaries, kernels, initrds and images, each pinned by URL and SHA-256 for each architecture, and the
 * content-addressed store they are fetched into.
 *
 *     definition (assets/NAME.json, templates/registry.h) -> fetch -> STORE/sha256/DIGEST, read-only
 *
 * What lies in the store was hashed while it came in, is named by its digest, and is never changed: a file is written
 * under a temporary name, fsynced, made read-only (a VMM: executable), renamed, its directory fsynced. Whatever fails
 * leaves nothing but a partial file that a later fetch of the same digest resumes, or gc removes.
 */
#ifndef VF_TEMPLATES_ASSETS_H
#define VF_TEMPLATES_ASSETS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <uv.h>
#include "base/async.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/json.h"
#include "templates/memory.h" /* struct vf_progress */

#define VF_ASSET_NAME_MAX 64
#define VF_ASSET_MAX_TEXT (64 * 1024)

enum vf_asset_kind {
    VF_ASSET_KIND_VMM, /* gets its executable bit */
    VF_ASSET_KIND_KERNEL,
    VF_ASSET_KIND_INITRD,
    VF_ASSET_KIND_IMAGE
};
extern const char *const vf_asset_kind_names[]; /* "vmm", "kernel", "initrd", "image", NULL */

struct vf_asset_file { /* of one architecture */
    char *url;         /* https:// or file:///; http:// only to loopback */
    char *sha256;      /* 64 hexadecimal digits */
    int64_t size;      /* bytes; 0: not known beforehand */
};

struct vf_asset {
    char *name; /* ^[a-z0-9][a-z0-9._-]{0,63}$ */
    int kind;   /* enum vf_asset_kind */
    struct {
        struct vf_asset_file x86_64, aarch64; /* url NULL: there is none */
    } files;
    char *
        bearer_file; /* absolute path of a file with a token; read at each fetch, never logged. NULL: none */
    char *basic_file; /* likewise with "user:password" */
    char *ca_file;    /* absolute; certificates to trust instead of the host's. NULL: the host's */
    char *proxy;      /* NULL: as the environment says (https_proxy, no_proxy) */
};
extern const struct vf_json_field vf_asset_fields[];

/* Decodes strictly and checks; where: for messages. */
int vf_asset_parse(const char *text, size_t len, const char *where, struct vf_asset *ret,
                   struct vf_error *err);
char *vf_asset_encode(const struct vf_asset *a); /* malloc'd JSON; NULL without memory */
/* Likewise, with plain URLs: for whoever may not see what fetches it. */
char *vf_asset_encode_plain(const struct vf_asset *a);
#define VF_ASSET_URL_SIZE 2304 /* room for any plain one */
/* url without what could be a secret (user, password, query), for messages. */
void vf_asset_plain_url(const char *url, char *ret, size_t size);
void vf_asset_free(struct vf_asset *a); /* its members; NULL and a zeroed one are fine */
bool vf_asset_name_ok(const char *name);
/* "x86_64", "aarch64", … of this host (uname). */
const char *vf_host_arch(void);
/* The file for this host; NULL: the asset has none. */
const struct vf_asset_file *vf_asset_file_here(const struct vf_asset *a);

/* --- the store. Thread-safe; all but fetch blocks: for worker threads. */
struct vf_asset_store;
int vf_asset_store_open(const char *path, struct vf_asset_store **ret, struct vf_error *err);
/* No fetch may be under way (asserted). NULL is fine. */
void vf_asset_store_close(struct vf_asset_store *s);
/* The absolute path of the file with that digest; malloc'd. VF_NOT_FOUND: not fetched. Does not hash. */
int vf_asset_store_path(struct vf_asset_store *s, const char *sha256, char **ret_path,
                        struct vf_error *err);
/* Likewise, of a file that is what its name says: hashed, unless it was before in this process and has not changed since
 * (vf_digest_fd). VF_CORRUPT: it is not; it stays where it is. */
int vf_asset_store_good_path(struct vf_asset_store *s, const char *sha256, char **ret_path,
                             struct vf_error *err);
/* Hashes it. VF_CORRUPT: it is not what its name says; it is then moved aside, so that the next fetch gets it anew. */
int vf_asset_store_verify(struct vf_asset_store *s, const char *sha256,
                          struct vf_progress *progress, struct vf_error *err);

struct vf_asset_entry {
    char sha256[VF_SHA256_HEX];
    int64_t size;
    bool executable, partial; /* partial: a fetch that has not ended */
    time_t fetched;
};
/* All that is there, by digest; *ret is malloc'd. */
int vf_asset_store_list(struct vf_asset_store *s, struct vf_asset_entry **ret, size_t *ret_n,
                        struct vf_error *err);
/* Removes what keep(arg, digest) is false for, and partial files that no fetch is using. on_removed (may be NULL) is
 * told of each; dry_run only tells. */
int vf_asset_store_gc(struct vf_asset_store *s, bool (*keep)(void *arg, const char *sha256),
                      void (*on_removed)(void *arg, const struct vf_asset_entry *e), void *arg,
                      bool dry_run, struct vf_error *err);

/* --- fetching, on a loop: a thread for each download, at most VF_FETCH_MAX at once, others wait their turn */
#define VF_FETCH_MAX 4
struct vf_fetch; /* one caller's request; callers of one digest share its download */
/* done: the file is in the store. At once (but not before this returns) if it is there already. The asset is copied.
 * Errors: VF_NOT_FOUND (404, no such file), VF_PERMISSION (401, 403), VF_TIMEOUT (a stall), VF_CORRUPT (digest,
 * length), VF_UNSUPPORTED (no file for this host), VF_NO_SPACE or what the disk says, VF_PROTOCOL (all else that the
 * server did); the message names asset and URL (without credentials in it). */
int vf_asset_fetch(struct vf_asset_store *s, uv_loop_t *loop, const struct vf_asset *a,
                   vf_done_cb done, void *arg, struct vf_fetch **ret_fetch, struct vf_error *err);
/* How far it is; valid until done. total_bytes 0: not known. */
const struct vf_progress *vf_fetch_progress(const struct vf_fetch *f);
/* done comes with VF_CANCELLED, later; the download itself ends when nobody waits for it. */
void vf_fetch_cancel(struct vf_fetch *f);

#endif

/* manifest.json: what a generation is. It is written last, and lists every other file of the
 * generation's directory with size and SHA-256; what it does not list may not be there (but for
 * the mark "quarantined").
 *
 * Decoding is strict and speaks of damage: VF_CORRUPT for anything but what we would have written
 * ourselves, VF_UNSUPPORTED for a newer format. */
#ifndef VF_TEMPLATES_MANIFEST_H
#define VF_TEMPLATES_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/json.h"
#include "templates/registry.h"
#include "templates/spec.h"

/* 2: vmm.class and vmm.sandbox, and what specs may leave out since. Older ones are read, too. */
#define VF_MANIFEST_FORMAT 2
#define VF_MANIFEST_NAME "manifest.json"
#define VF_MANIFEST_MAX_TEXT (1024 * 1024)
#define VF_QUARANTINED_NAME "quarantined"
#define VF_MEMORY_NAME "memory" /* the generation's file that vf_memory_store writes */

enum vf_asset_role { VF_ASSET_KERNEL, VF_ASSET_INITRD, VF_ASSET_ROOT };
extern const char *const vf_asset_role_names[]; /* "kernel", "initrd", "root", NULL */

struct vf_manifest_file {
    char *name; /* in the generation's directory; no slash */
    int64_t size;
    char *sha256; /* hexadecimal */
};

struct vf_manifest_asset { /* a file outside that the template was made from */
    int role;
    char *path; /* absolute */
    int64_t size;
    char *sha256;
};

struct vf_manifest {
    int64_t format;
    char *template_name;
    int64_t generation; /* from 1; set by vf_store_commit */
    char *created;      /* RFC 3339, UTC; set by vf_store_commit if NULL */
    struct vf_spec spec;
    struct {
        char *name, *version;
        char *path; /* absolute; NULL: the VMM has no binary (null) */
        int64_t size;
        char *sha256; /* NULL if path is */
        int accel;    /* enum vf_accel; what the template really ran with, never AUTO */
        char *
            class_name; /* the runtime class that it was built with; NULL: from before there were any */
        bool sandbox; /* its option */
    } vmm;
    struct {
        char *cpu_model, *cpu_flags_sha256, *kernel;
    } host;
    struct vf_json_array files;  /* of struct vf_manifest_file */
    struct vf_json_array assets; /* of struct vf_manifest_asset */
    char *boot_id;               /* 32 hex digits: the template's */
    char *nonce;                 /* 64 hex digits: what was planted in its RAM, nowhere else */
    char *sample;                /* hex: random bytes the template drew; a clone's must differ */
    int64_t memory_size;         /* bytes */
    struct {                     /* how long the build's stages took; 0: not done or not known */
        int64_t boot_us, warmup_us, pause_us, save_us, stop_us, memory_us;
    } stats;
};

/* An empty manifest with the format set; fill in what is known, then give it to vf_store_commit. */
void vf_manifest_init(struct vf_manifest *ret_m);
/* Frees the members and zeroes them; NULL and a zeroed one are fine. */
void vf_manifest_free(struct vf_manifest *m);

/* Whether a generation's file may be called that: no slash, dot first, blank, or name of ours. */
bool vf_manifest_file_name_ok(const char *name);
/* Lists a file. sha256 NULL: vf_store_commit computes size and digest, else it checks the size and
 * takes the digest (that of vf_memory_store) as it is. */
int vf_manifest_add_file(struct vf_manifest *m, const char *name, int64_t size, const char *sha256,
                         struct vf_error *err);
/* The file called name, or NULL. */
const struct vf_manifest_file *vf_manifest_file(const struct vf_manifest *m, const char *name);
const struct vf_manifest_asset *vf_manifest_asset(const struct vf_manifest *m,
                                                  enum vf_asset_role role);
/* --- these hash whole files (a digest of an unchanged file is remembered): for worker threads */
/* Sets vmm; path NULL for a VMM without a binary. */
int vf_manifest_set_vmm(struct vf_manifest *m, const char *name, const char *version,
                        const char *path, enum vf_accel accel, struct vf_error *err);
/* Lists the spec's kernel, initrd and root image as assets, and copies the spec. */
int vf_manifest_set_spec(struct vf_manifest *m, const struct vf_spec *spec, struct vf_error *err);
/* Sets vmm, and lists what the runtime boots besides the spec's own files. After set_spec. */
int vf_manifest_set_runtime(struct vf_manifest *m, const struct vf_runtime *rt, const char *version,
                            enum vf_accel accel, struct vf_error *err);
/* Notes this host's CPU and kernel. */
int vf_manifest_set_host(struct vf_manifest *m, struct vf_error *err);

/* malloc'd JSON; fails with VF_INVALID_ARGUMENT if something that must be there is not. */
int vf_manifest_encode(const struct vf_manifest *m, char **ret_text, struct vf_error *err);
int vf_manifest_decode(const char *text, size_t len, struct vf_manifest *ret_m,
                       struct vf_error *err);
/* From dirfd/manifest.json. Blocking. */
int vf_manifest_read(int dirfd, struct vf_manifest *ret_m, struct vf_error *err);

#endif

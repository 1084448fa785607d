/* A template's guest memory: a memfd that the template's VM writes, sealed when it is saved, so
 * that no clone's VMM can ever change it; and its copy on disk, which survives a reboot.
 *
 *     create -> (the template runs) -> seal -> store            load -> sealed memfd
 *
 * Some VMMs want a file with a name for that, or write all of the memory when they save: what they leave is copied
 * into a sealed memfd of its own, without its zero pages (vf_memory_take), so that clones of every VMM map the same kind
 * of thing.
 *
 * All but create may take seconds: for worker threads. Thread-safe as long as each descriptor is
 * used by one call at a time. */
#ifndef VF_TEMPLATES_MEMORY_H
#define VF_TEMPLATES_MEMORY_H

#include <stdatomic.h>
#include <stdint.h>
#include "base/error.h"
#include "base/hash.h"

/* How far a store or load is; written by the worker, read by anyone at any time. total is 0 before
 * it starts; holes count as done when they are skipped. */
struct vf_progress {
    _Atomic uint64_t done_bytes, total_bytes;
};

/* An empty memfd of size bytes (a multiple of the page size), sealable. name: for /proc/PID/fd. */
int vf_memory_create(uint64_t size, const char *name, int *ret_fd, struct vf_error *err);
/* The same as a new file dirfd/name (mode 0600): quick on tmpfs. It can't be sealed. */
int vf_memory_create_file(int dirfd, const char *name, uint64_t size, int *ret_fd,
                          struct vf_error *err);
/* A sealed memfd with the contents of fd, of which zero pages take no room. fd stays as it is. */
int vf_memory_take(int fd, const char *name, int *ret_fd, struct vf_error *err);
/* No one can write to it, resize it or unseal it from here on. VF_CONFLICT while someone still has
 * it mapped for writing (the template's VMM has not ended). Sealing twice is fine. */
int vf_memory_seal(int fd, struct vf_error *err);
/* 1 if fd carries all the seals, else 0. */
int vf_memory_is_sealed(int fd);
/* Writes fd's contents to the new file dirfd/name (mode 0600), sparse: holes and zero pages take no
 * space; fsyncs it. ret_sha256: of the whole, holes as zeros, so that sha256sum(1) agrees. On
 * failure the file is gone. progress may be NULL. fd should be sealed: what changes meanwhile is
 * stored as it was when its turn came. */
int vf_memory_store(int fd, int dirfd, const char *name, struct vf_progress *progress,
                    char ret_sha256[VF_SHA256_HEX], struct vf_error *err);
/* A sealed memfd with the contents of dirfd/name, which must be size bytes long and have that
 * digest: else VF_CORRUPT, saying which. VF_NO_MEMORY if the host can't hold it. */
int vf_memory_load(int dirfd, const char *name, uint64_t size, const char *sha256,
                   struct vf_progress *progress, int *ret_fd, struct vf_error *err);

#endif

/* The journal: RUN/vms/ID/vm.json says what a VM is to whoever comes after this daemon.
 *
 * It is there before the VM's process is, and is replaced (written beside, renamed) before each step that
 * changes what a crash must lead to: a VM whose record says `parked` was handed to nobody, one that says `leased`
 * is somebody's. It is not fsynced: it speaks of processes, and these die with the kernel's memory; the host's
 * boot id in it tells a record that outlived its host. RUN/vms/ID/spec.json, written once, is the VM's spec.
 */
#ifndef VF_POOL_JOURNAL_H
#define VF_POOL_JOURNAL_H

#include <stdint.h>
#include "base/error.h"
#include "factory/factory.h"
#include "templates/spec.h"

#define VF_RECORD_FORMAT 1
#define VF_RECORD_NAME "vm.json"
#define VF_RECORD_SPEC_NAME "spec.json"
#define VF_RECORD_MAX_TEXT 16384
#define VF_RECORD_NETWORK_MAX 1000000 /* of slots' numbers */

enum vf_record_state {
    VF_RECORD_STARTING, /* everything up to its process */
    VF_RECORD_RESTORING,
    VF_RECORD_PROVING,
    VF_RECORD_STANDBY,
    VF_RECORD_PARKED,
    VF_RECORD_LEASED,
    VF_RECORD_RELEASING,
    VF_RECORD_STATE_COUNT
};
extern const char *const vf_record_state_names[]; /* "starting", …, NULL */

struct vf_record {
    int64_t format;
    char *id;
    char *template_name;
    int state;       /* enum vf_record_state */
    char *host_boot; /* /proc/sys/kernel/random/boot_id */
    int source;      /* enum vf_source: clone or cold */
    int64_t generation;
    int64_t created_ms; /* Unix time */
    int got;            /* enum vf_got, of a leased VM */
    char *reason;       /* why that source; NULL: not leased */
    char *nonce, *boot_id, *entropy_sha256, *sample, *machine_id, *hostname, *mac; /* the proof */
    int64_t clock_offset_us;
    int64_t uid, gid, pid;      /* the lease's holder */
    int64_t acquired_ms;        /* Unix time; 0: not leased */
    int64_t ttl_ms;             /* 0: none */
    int64_t expires_us;         /* vf_now_us' clock, which goes on as long as the host; 0: never */
    int64_t network;            /* the number of its network slot; -1: none */
    char *netns;                /* the path of the namespace that it is in; NULL: the daemon's */
    struct vf_json_array ports; /* of struct vf_record_port: of the host, that lead to it */
};
struct vf_record_port {
    int protocol; /* enum vf_spec_protocol; never VF_SPEC_ANY */
    int64_t host, guest;
};

/* The host's boot id; one string for the process, empty if the kernel tells none. */
const char *vf_host_boot_id(void);

/* Replaces run_dirfd/ID/vm.json. The strings of r may be anyone's. Blocking, some 20 µs in a tmpfs. */
int vf_record_write(int run_dirfd, const struct vf_record *r, struct vf_error *err);
int vf_record_write_spec(int run_dirfd, const char *id, const struct vf_spec *spec,
                         struct vf_error *err);
/* VF_NOT_FOUND: no record; VF_CORRUPT: anything but one that we would have written. */
int vf_record_read(int run_dirfd, const char *id, struct vf_record *ret, struct vf_error *err);
int vf_record_read_spec(int run_dirfd, const char *id, struct vf_spec *ret, struct vf_error *err);
int vf_record_parse(const char *text, size_t len, struct vf_record *ret, struct vf_error *err);
/* Of one that was read or parsed. */
void vf_record_free(struct vf_record *r);
/* The proof in it; ret points to nothing of it. */
void vf_record_proof(const struct vf_record *r, struct vf_proof *ret);

#endif

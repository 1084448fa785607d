/* A spec: what the user writes about a template, one JSON object. templates/spec.schema.json
 * describes it; both come from the table vf_spec_fields.
 *
 * vf_spec_load: read -> decode strictly -> make paths absolute (relative ones are seen from the
 * spec's own directory) -> check what a table can't say -> check the files and the host's memory.
 * Every refusal names the field: "web.json: boot.kernel: /x/y: is a directory".
 */
#ifndef VF_TEMPLATES_SPEC_H
#define VF_TEMPLATES_SPEC_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/json.h"
#include "base/vm_types.h"

#define VF_SPEC_MAX_TEXT (256 * 1024)
#define VF_SPEC_NAME_MAX 48
#define VF_SPEC_CMDLINE_MAX 2048
#define VF_SPEC_CLASS_MAX 64

enum vf_spec_vmm {
    VF_SPEC_VMM_QEMU,
    VF_SPEC_VMM_NULL,
    VF_SPEC_VMM_CLOUD_HYPERVISOR,
    VF_SPEC_VMM_FIRECRACKER,
    VF_SPEC_VMM_COUNT
};
enum vf_image_format { VF_IMAGE_RAW, VF_IMAGE_QCOW2 };
enum vf_spec_egress { VF_SPEC_EGRESS_ALLOW, VF_SPEC_EGRESS_DENY, VF_SPEC_EGRESS_LIST };
enum vf_spec_protocol { VF_SPEC_ANY, VF_SPEC_TCP, VF_SPEC_UDP };
enum vf_park { VF_PARK_AUTO, VF_PARK_PAUSED, VF_PARK_RUNNING };

extern const char *const vf_spec_vmm_names[];      /* as vf_vmm_find knows them */
extern const char *const vf_image_format_names[];  /* "raw", "qcow2", NULL */
extern const char *const vf_park_names[];          /* "auto", "paused", "running", NULL */
extern const char *const vf_spec_egress_names[];   /* "allow", "deny", "list", NULL */
extern const char *const vf_spec_protocol_names[]; /* "any", "tcp", "udp", NULL */

/* Where a guest may connect to. */
struct vf_spec_destination {
    char *to;                      /* an address or prefix: "192.0.2.0/24", "2001:db8::/32" */
    int protocol;                  /* enum vf_spec_protocol; with ports not VF_SPEC_ANY */
    int64_t first_port, last_port; /* 0, 0: all; last_port 0: first_port alone */
};
struct vf_spec_port {
    int protocol; /* enum vf_spec_protocol; never VF_SPEC_ANY */
    int64_t host; /* 0 in network.ports: one of the daemon's range, at each lease */
    int64_t guest;
};

struct vf_spec {
    char *name;       /* ^[a-z0-9][a-z0-9-]{0,47}$ */
    char *class_name; /* the runtime class; NULL: the default class of vmm */
    /* enum vf_spec_vmm. If it was left out (has_vmm false) it is the class's: not known before vf_spec_settle. */
    int vmm;
    bool has_vmm;
    int machine;   /* enum vf_machine */
    int accel;     /* enum vf_accel */
    int64_t vcpus; /* 1..64 */
    struct {
        int64_t size_mib; /* 16..1048576 */
    } memory;
    struct {
        char *kernel, *initrd; /* absolute once loaded; NULL: none */
        bool has_root;
        struct {
            char *image;
            int format; /* enum vf_image_format */
        } root;         /* valid if has_root */
        char *cmdline;  /* NULL: none */
    } boot;
    struct {
        int mode; /* enum vf_network_mode. If it was left out, see vf_spec_complete */
        bool given, has_mode;
        bool enabled, has_enabled; /* what older versions wrote; gone once completed */
        struct {
            int policy;                /* enum vf_spec_egress */
            struct vf_json_array list; /* of struct vf_spec_destination: VF_SPEC_EGRESS_LIST */
        } egress;
        bool metadata; /* the guest may reach link-local metadata addresses */
        struct vf_json_array
            host_services; /* of struct vf_spec_port, its host: of this host, that the guest may use */
        struct vf_json_array
            ports; /* of struct vf_spec_port: of this host, that lead to the guest */
        int64_t in_bytes_per_s, out_bytes_per_s; /* seen from the guest; 0: no limit */
        struct vf_strv dns;                      /* resolvers' addresses for the guest, at most 3 */
        int64_t mtu;                             /* 1280..9216 */
        int64_t queues; /* pairs; 0: one for each vCPU, at most 8, where the VMM has several */
    } network;
    struct {
        int channel; /* enum vf_channel; never VF_CHANNEL_NONE. As vmm: if it was left out, it depends on that */
        bool has_channel;
        int64_t ready_timeout_ms;
    } agent;
    struct {
        struct vf_json_array commands; /* of struct vf_strv: one argv each, run in order */
        int64_t timeout_ms;            /* of each command */
    } warmup;
    bool balloon;
    int park; /* enum vf_park; AUTO of parsed ones only if the VMM was left out, see vf_spec_park */
};

/* The decoding table of struct vf_spec, for those who embed a spec. */
extern const struct vf_json_field vf_spec_fields[];

/* Fills in the defaults; no name, no files. */
void vf_spec_init(struct vf_spec *ret_spec);
/* What the table must start from when a text is decoded by it: nothing is given yet. */
void vf_spec_init_blank(struct vf_spec *ret_spec);
/* What must follow decoding by the table: the network's mode if it was left out (nat if there is a network at all, or what
 * an older version's network.enabled says), and protocols. */
int vf_spec_complete(struct vf_spec *spec, struct vf_error *err);
/* The spec's class runs on vmm: fills in what depends on that and was left out, and checks what can't be had there. Its
 * text stays as it was given. VF_INVALID_ARGUMENT: the spec wants another VMM, or what this one does not have. */
int vf_spec_settle(struct vf_spec *spec, enum vf_spec_vmm vmm, struct vf_error *err);
/* As settle, but only checks. */
int vf_spec_check_vmm(const struct vf_spec *spec, enum vf_spec_vmm vmm, struct vf_error *err);
enum vf_channel vf_spec_default_channel(enum vf_spec_vmm vmm);
/* How clones of a settled spec are parked: never AUTO. */
enum vf_park vf_spec_park(const struct vf_spec *spec);
/* Whether its VMM can be told from the spec alone. */
static inline bool vf_spec_knows_vmm(const struct vf_spec *spec)
{
    return spec->class_name == NULL || spec->has_vmm;
}
/* Decodes text, makes paths absolute as seen from base_dir (absolute; NULL: relative paths are
 * refused) and checks all that can be checked without looking at files. where: for messages, or
 * NULL. Unlike a table's users, the caller need not have filled in defaults. */
int vf_spec_parse(const char *text, size_t len, const char *base_dir, const char *where,
                  struct vf_spec *ret_spec, struct vf_error *err);
/* All that can be checked about a decoded spec without looking at files. */
int vf_spec_check(const struct vf_spec *spec, struct vf_error *err);
/* That the files are there, regular and readable, and that the host has the memory. Blocking. */
int vf_spec_check_host(const struct vf_spec *spec, struct vf_error *err);
/* What an image file is, by its first bytes. Blocking. */
int vf_spec_image_is_qcow2(int fd, const char *path, bool *ret, struct vf_error *err);
/* Both, from a file. Blocking. */
int vf_spec_load(const char *path, struct vf_spec *ret_spec, struct vf_error *err);

int vf_spec_copy(const struct vf_spec *spec, struct vf_spec *ret_spec, struct vf_error *err);
/* True if both would make the same template. */
bool vf_spec_equal(const struct vf_spec *a, const struct vf_spec *b);
/* As JSON, with all defaults spelled out but for those that only the class decides; malloc'd, NULL without
 * memory. */
char *vf_spec_encode(const struct vf_spec *spec);
/* Frees the members and zeroes them; NULL and a zeroed spec are fine. */
void vf_spec_free(struct vf_spec *spec);

uint64_t vf_spec_memory_bytes(const struct vf_spec *spec);
/* The i-th warm-up command's argv, NULL-ended; NULL past the end. */
char *const *vf_spec_warmup(const struct vf_spec *spec, size_t i);
bool vf_template_name_ok(const char *name);
/* The JSON Schema; malloc'd, NULL without memory. */
char *vf_spec_schema(void);

#endif

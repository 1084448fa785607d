/* See journal.h. Write: text -> ID/vm.json.new -> rename over ID/vm.json. A crash leaves the old or the new
 * one; a vm.json.new that is left is overwritten or goes with the directory. */
#include "pool/journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/failpoint.h"
#include "base/fd.h"
#include "base/json.h"
#include "pool/stats.h"

#define NEW_SUFFIX ".new"

const char *const vf_record_state_names[] = {"starting", "restoring", "proving",   "standby",
                                             "parked",   "leased",    "releasing", NULL};
static_assert(sizeof(vf_record_state_names) / sizeof(*vf_record_state_names) ==
                  VF_RECORD_STATE_COUNT + 1,
              "a name for each");

/* Where a test may kill the daemon: as the new record lies beside the old one, and as it has replaced it. */
static const char *const points[VF_RECORD_STATE_COUNT][2] = {
    [VF_RECORD_STARTING] = {"journal.starting.written", "journal.starting.renamed"},
    [VF_RECORD_RESTORING] = {"journal.restoring.written", "journal.restoring.renamed"},
    [VF_RECORD_PROVING] = {"journal.proving.written", "journal.proving.renamed"},
    [VF_RECORD_STANDBY] = {"journal.standby.written", "journal.standby.renamed"},
    [VF_RECORD_PARKED] = {"journal.parked.written", "journal.parked.renamed"},
    [VF_RECORD_LEASED] = {"journal.leased.written", "journal.leased.renamed"},
    [VF_RECORD_RELEASING] = {"journal.releasing.written", "journal.releasing.renamed"},
};

#define TEXT(member, most)                                                                     \
    {                                                                                          \
        .name = #member, .type = VF_JSON_STRING, .offset = offsetof(struct vf_record, member), \
        .max = (most)                                                                          \
    }
#define NUMBER(member, least, most)                                                         \
    {                                                                                       \
        .name = #member, .type = VF_JSON_INT, .offset = offsetof(struct vf_record, member), \
        .min = (least), .max = (most)                                                       \
    }
static const char *const protocol_names[] = {"any", "tcp", "udp", NULL};
static const struct vf_json_field port_fields[] = {
    {.name = "protocol",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct vf_record_port, protocol),
     .min = VF_SPEC_TCP,
     .choices = protocol_names,
     .required = true},
    {.name = "host",
     .type = VF_JSON_INT,
     .offset = offsetof(struct vf_record_port, host),
     .min = 1,
     .max = UINT16_MAX,
     .required = true},
    {.name = "guest",
     .type = VF_JSON_INT,
     .offset = offsetof(struct vf_record_port, guest),
     .min = 1,
     .max = UINT16_MAX,
     .required = true},
    {.name = NULL},
};
static const struct vf_json_field fields[] = {
    {.name = "format",
     .type = VF_JSON_INT,
     .offset = offsetof(struct vf_record, format),
     .min = VF_RECORD_FORMAT,
     .max = VF_RECORD_FORMAT,
     .required = true},
    {.name = "id",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct vf_record, id),
     .min = 12,
     .max = 12,
     .required = true},
    {.name = "template",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct vf_record, template_name),
     .min = 1,
     .max = VF_SPEC_NAME_MAX,
     .required = true},
    {.name = "state",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct vf_record, state),
     .choices = vf_record_state_names,
     .required = true},
    {.name = "host_boot",
     .type = VF_JSON_STRING,
     .offset = offsetof(struct vf_record, host_boot),
     .max = 64,
     .required = true},
    {.name = "source",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct vf_record, source),
     .choices = vf_source_names,
     .required = true},
    NUMBER(generation, 0, INT64_MAX),
    NUMBER(created_ms, 0, INT64_MAX),
    {.name = "got",
     .type = VF_JSON_ENUM,
     .offset = offsetof(struct vf_record, got),
     .choices = vf_got_names},
    TEXT(reason, 1024),
    TEXT(nonce, 64),
    TEXT(boot_id, 32),
    TEXT(entropy_sha256, 64),
    TEXT(sample, 32),
    TEXT(machine_id, 32),
    TEXT(hostname, 63),
    TEXT(mac, 17),
    NUMBER(clock_offset_us, INT64_MIN, INT64_MAX),
    NUMBER(uid, 0, UINT32_MAX),
    NUMBER(gid, 0, UINT32_MAX),
    NUMBER(pid, 0, INT32_MAX),
    NUMBER(acquired_ms, 0, INT64_MAX),
    NUMBER(ttl_ms, 0, INT64_MAX),
    NUMBER(expires_us, 0, INT64_MAX),
    NUMBER(network, -1, VF_RECORD_NETWORK_MAX), /* this and what follows: since VMs have networks */
    TEXT(netns, 4095),
    {.name = "ports",
     .type = VF_JSON_OBJECT_ARRAY,
     .offset = offsetof(struct vf_record, ports),
     .max = VF_PORTS_MAX,
     .fields = port_fields,
     .item_size = sizeof(struct vf_record_port)},
    {.name = NULL},
};

const char *vf_host_boot_id(void)
{
    static char id[64];
    if (!id[0]) {
        VF_CLEANUP_FD int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, id, sizeof(id) - 1);
        id[n > 0 ? n : 0] = 0;
        id[strcspn(id, "\n")] = 0;
    }
    return id;
}

/* ---- writing */

static int replace(int run_dirfd, const char *id, const char *name, const char *text,
                   const char *const point[2], struct vf_error *err)
{
    char path[64], tmp[80];
    snprintf(path, sizeof(path), "%s/%s", id, name);
    snprintf(tmp, sizeof(tmp), "%s" NEW_SUFFIX, path);
    VF_CLEANUP_FD int fd =
        openat(run_dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return vf_fail_errno(err, errno, "journal: %s", tmp);
    int r = vf_write_all(fd, text, strlen(text), tmp, err);
    if (r == 0 && point)
        vf_failpoint(point[0]);
    if (r == 0 && renameat(run_dirfd, tmp, run_dirfd, path) < 0)
        r = vf_fail_errno(err, errno, "journal: %s", path);
    if (r < 0) {
        unlinkat(run_dirfd, tmp, 0);
        return vf_wrap(err, "journal");
    }
    if (point)
        vf_failpoint(point[1]);
    return 0;
}

int vf_record_write(int run_dirfd, const struct vf_record *r, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = vf_json_encode_compact(fields, r);
    if (!text)
        return vf_fail(err, VF_NO_MEMORY, "journal");
    return replace(run_dirfd, r->id, VF_RECORD_NAME, text, points[r->state], err);
}

int vf_record_write_spec(int run_dirfd, const char *id, const struct vf_spec *spec,
                         struct vf_error *err)
{
    struct vf_spec all;
    int r = vf_spec_copy(spec, &all, err);
    if (r < 0)
        return r;
    /* Its class may be another one, or gone, when this is read. */
    all.has_vmm = all.agent.has_channel = true;
    all.park = (int)vf_spec_park(&all);
    VF_CLEANUP_FREE char *text = vf_spec_encode(&all);
    vf_spec_free(&all);
    if (!text)
        return vf_fail(err, VF_NO_MEMORY, "journal");
    return replace(run_dirfd, id, VF_RECORD_SPEC_NAME, text, NULL, err);
}

/* ---- reading */

static bool hex_or_none(const char *s, size_t len)
{
    return !s || (strlen(s) == len && strspn(s, "0123456789abcdef") == len);
}

static int check(const struct vf_record *r, struct vf_error *err)
{
    if (!hex_or_none(r->id, 12))
        return vf_fail(err, VF_CORRUPT, "id: 12 hexadecimal digits");
    if (!vf_template_name_ok(r->template_name))
        return vf_fail(err, VF_CORRUPT, "template: not a template's name");
    if (!hex_or_none(r->nonce, 64) || !hex_or_none(r->boot_id, 32) ||
        !hex_or_none(r->entropy_sha256, 64) || !hex_or_none(r->sample, 32) ||
        !hex_or_none(r->machine_id, 32))
        return vf_fail(err, VF_CORRUPT,
                       "nonce, boot_id, entropy_sha256, sample, machine_id: "
                       "hexadecimal digits");
    if (r->source != VF_SOURCE_CLONE && r->source != VF_SOURCE_COLD)
        return vf_fail(err, VF_CORRUPT, "source: clone or cold");
    if ((r->state == VF_RECORD_PARKED || r->state == VF_RECORD_LEASED) && !r->boot_id)
        return vf_fail(err, VF_CORRUPT, "boot_id: is missing");
    if (r->netns && r->netns[0] != '/')
        return vf_fail(err, VF_CORRUPT, "netns: must be an absolute path");
    return 0;
}

int vf_record_parse(const char *text, size_t len, struct vf_record *ret, struct vf_error *err)
{
    struct vf_record r = {.network = -1};
    int n = vf_json_decode(text, len, VF_RECORD_MAX_TEXT, fields, &r, VF_RECORD_NAME, err);
    if (n < 0 && err)
        err->code = err->code == VF_NO_MEMORY ? VF_NO_MEMORY : VF_CORRUPT;
    if (n == 0)
        n = check(&r, err);
    if (n < 0) {
        vf_json_free(fields, &r);
        return err ? vf_code_errno(err->code) : n;
    }
    *ret = r;
    return 0;
}

int vf_record_read(int run_dirfd, const char *id, struct vf_record *ret, struct vf_error *err)
{
    char path[64];
    VF_CLEANUP_FREE char *text = NULL;
    size_t len;
    struct vf_record r;
    snprintf(path, sizeof(path), "%.16s/" VF_RECORD_NAME, id);
    int n = vf_read_file(run_dirfd, path, VF_RECORD_MAX_TEXT, &text, &len, err);
    if (n == 0)
        n = vf_record_parse(text, len, &r, err);
    if (n < 0)
        return n;
    if (strcmp(r.id, id) != 0) {
        vf_record_free(&r);
        return vf_fail(err, VF_CORRUPT, "%s: id: is another VM's", path);
    }
    *ret = r;
    return 0;
}

int vf_record_read_spec(int run_dirfd, const char *id, struct vf_spec *ret, struct vf_error *err)
{
    char path[64];
    VF_CLEANUP_FREE char *text = NULL;
    size_t len;
    snprintf(path, sizeof(path), "%.16s/" VF_RECORD_SPEC_NAME, id);
    int r = vf_read_file(run_dirfd, path, VF_SPEC_MAX_TEXT, &text, &len, err);
    return r < 0 ? r : vf_spec_parse(text, len, NULL, path, ret, err);
}

void vf_record_free(struct vf_record *r)
{
    vf_json_free(fields, r);
}

void vf_record_proof(const struct vf_record *r, struct vf_proof *ret)
{
    *ret = (struct vf_proof){.generation = r->generation,
                             .nonce_matched = r->nonce != NULL,
                             .clock_offset_us = r->clock_offset_us};
#define COPY(member) \
    if (r->member)   \
    snprintf(ret->member, sizeof(ret->member), "%s", r->member)
    COPY(nonce);
    COPY(boot_id);
    COPY(entropy_sha256);
    COPY(sample);
    COPY(machine_id);
    COPY(hostname);
    COPY(mac);
#undef COPY
}

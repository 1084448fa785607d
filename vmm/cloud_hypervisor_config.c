/* What Cloud Hypervisor is asked for, as JSON: a VM to boot, a NIC by descriptors, a restore; and a saved config made a
 * clone's.
 *
 * Memory is one zone whose file is the descriptor it inherits. A template's is shared with a file that has a name, which
 * a save leaves out; a clone's is private, opened read-only, and written pages are its own. A save that holds its
 * memory (a VM whose memory was private) is restored into anonymous memory: the file would only be in the way.
 * NICs by tap's name are part of the config; those by descriptors are added one by one, for vm.create drops
 * descriptors. In a saved config both look alike but for "tap", and a clone may have either.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/fd.h"
#include "vmm/cloud_hypervisor.h"

#define ZONE "mem0"
#define MIN_MTU 1280

/* ---- a config of our own */

void vf_ch_config_close_taps(struct vf_vm_config *c)
{
    for (int i = 0; i < c->n_nics; i++)
        for (int k = 0; k < c->nics[i].n_fds; k++)
            vf_close_fd(&c->nics[i].fds[k]);
}

void vf_ch_config_free(struct vf_vm_config *c)
{
    free((char *)c->kernel);
    free((char *)c->initrd);
    free((char *)c->cmdline);
    for (int i = 0; i < c->n_disks; i++)
        free((char *)c->disks[i].path);
    vf_ch_config_close_taps(c);
    for (int i = 0; i < c->n_nics; i++)
        free((char *)c->nics[i].tap);
    memset(c, 0, sizeof(*c));
}

static int check_memory(const struct vf_vm_config *c, struct vf_error *err)
{
    struct stat st;
    if (fstat(c->memory_fd, &st) < 0)
        return vf_fail_errno(err, errno, "memory_fd");
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < c->memory_size)
        return vf_fail(err, VF_INVALID_ARGUMENT, "memory_fd: a file of %llu bytes is needed",
                       (unsigned long long)c->memory_size);
    int seals = fcntl(c->memory_fd, F_GET_SEALS); /* fails on other files than memfds and tmpfs's */
    if (c->memory_shared && seals > 0 && seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "memory_fd: it is sealed against writing, so memory can't be shared");
    return 0;
}

static int check(const struct vf_vm_config *c, struct vf_error *err)
{
    int r = check_memory(c, err);
    if (r < 0)
        return r;
    if (c->mergeable && c->memory_shared)
        return vf_fail(err, VF_UNSUPPORTED,
                       "mergeable: the kernel merges private memory only, and a template's is "
                       "shared");
    for (int i = 0; i < c->n_nics; i++)
        if (!c->nics[i].tap && !c->nics[i].n_fds) {
            vf_fail(err, VF_UNSUPPORTED,
                    "nics[%d]: Cloud Hypervisor needs a tap, or its descriptors", i);
            return vf_hint(err, "without either it would make a tap of its own, with an address");
        } else if (c->nics[i].n_fds > c->vcpus) {
            vf_fail(err, VF_INVALID_ARGUMENT,
                    "nics[%d]: %d queue pairs (descriptors) for %d vCPUs: Cloud Hypervisor takes "
                    "one for each at most",
                    i, c->nics[i].n_fds, c->vcpus);
            return vf_hint(err, "ask for fewer queues, or for more vCPUs");
        } else if (c->nics[i].mtu && c->nics[i].mtu < MIN_MTU)
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "nics[%d].mtu: %d, Cloud Hypervisor takes at least %d", i,
                           c->nics[i].mtu, MIN_MTU);
    return 0;
}

static bool copy_string(const char *from, const char **ret)
{
    *ret = from ? strdup(from) : NULL;
    return !from || *ret;
}

static int copy_nic(const struct vf_vm_nic *from, struct vf_vm_nic *ret, struct vf_error *err)
{
    *ret = (struct vf_vm_nic){.tap = NULL};
    memcpy(ret->mac, from->mac, sizeof(ret->mac));
    if (!from->n_fds && !copy_string(from->tap, &ret->tap))
        return vf_fail(err, VF_NO_MEMORY, "nics");
    for (; ret->n_fds < from->n_fds; ret->n_fds++) {
        int fd = fcntl(from->fds[ret->n_fds], F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            return vf_fail_errno(err, errno, "nics: descriptor %d", ret->n_fds);
        ret->fds[ret->n_fds] = fd;
    }
    return 0;
}

int vf_ch_config_copy(const struct vf_vm_config *from, struct vf_vm_config *ret,
                      struct vf_error *err)
{
    int r = check(from, err);
    if (r < 0)
        return r;
    struct vf_vm_config c = *from;
    c.id = c.binary = c.kernel = c.initrd = c.cmdline = NULL;
    c.dirfd = c.memory_fd = c.netns_fd = -1;
    c.n_disks = c.n_nics = 0;
    bool ok = copy_string(from->kernel, &c.kernel) && copy_string(from->initrd, &c.initrd) &&
              copy_string(from->cmdline, &c.cmdline);
    for (int i = 0; ok && i < from->n_disks; i++, c.n_disks++) {
        c.disks[i] = (struct vf_vm_disk){
            .format = strcmp(from->disks[i].format, "qcow2") == 0 ? "qcow2" : "raw",
            .readonly = from->disks[i].readonly};
        ok = copy_string(from->disks[i].path, &c.disks[i].path);
    }
    r = ok ? 0 : vf_fail(err, VF_NO_MEMORY, "config");
    for (int i = 0; r == 0 && i < from->n_nics; i++) {
        r = copy_nic(&from->nics[i], &c.nics[i], err);
        c.n_nics++;
    }
    if (r < 0)
        vf_ch_config_free(&c);
    else
        *ret = c;
    return r;
}

/* ---- a VM to boot */

static void put_memory(struct vf_json_writer *w, const struct vf_vm_config *c)
{
    char file[32];
    snprintf(file, sizeof(file), "/proc/self/fd/%d", VF_CH_FD_MEMORY);
    vf_jw_begin(w, "memory", '{');
    vf_jw_int(w, "size", 0); /* zones and a size exclude each other */
    vf_jw_begin(w, "zones", '[');
    vf_jw_begin(w, NULL, '{');
    vf_jw_string(w, "id", ZONE);
    vf_jw_int(w, "size", (int64_t)c->memory_size);
    vf_jw_string(w, "file", file);
    vf_jw_bool(w, "shared", c->memory_shared);
    vf_jw_bool(w, "prefault", c->prefault);
    vf_jw_bool(w, "mergeable", c->mergeable);
    vf_jw_end(w, '}');
    vf_jw_end(w, ']');
    vf_jw_end(w, '}');
}

static void put_payload(struct vf_json_writer *w, const struct vf_vm_config *c)
{
    vf_jw_begin(w, "payload", '{');
    if (c->kernel)
        vf_jw_string(w, "kernel", c->kernel);
    if (c->initrd)
        vf_jw_string(w, "initramfs", c->initrd);
    if (c->cmdline)
        vf_jw_string(w, "cmdline", c->cmdline);
    vf_jw_end(w, '}');
}

static void put_disks(struct vf_json_writer *w, const struct vf_vm_config *c)
{
    char id[16];
    vf_jw_begin(w, "disks", '[');
    for (int i = 0; i < c->n_disks; i++) {
        bool qcow2 = strcmp(c->disks[i].format, "qcow2") == 0;
        snprintf(id, sizeof(id), "disk%d", i);
        vf_jw_begin(w, NULL, '{');
        vf_jw_string(w, "id", id);
        vf_jw_string(w, "path", c->disks[i].path);
        vf_jw_bool(w, "readonly", c->disks[i].readonly);
        vf_jw_string(w, "image_type", qcow2 ? "Qcow2" : "Raw");
        vf_jw_bool(w, "backing_files", qcow2);
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, ']');
}

static void put_nic(struct vf_json_writer *w, const struct vf_vm_config *c, int i)
{
    const struct vf_vm_nic *n = &c->nics[i];
    char id[16], mac[18];
    snprintf(id, sizeof(id), "net%d", i);
    snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2],
             n->mac[3], n->mac[4], n->mac[5]);
    vf_jw_begin(w, NULL, '{');
    vf_jw_string(w, "id", id);
    if (n->tap)
        vf_jw_string(w, "tap", n->tap);
    vf_jw_string(w, "mac", mac);
    vf_jw_int(w, "num_queues", n->n_fds ? 2 * n->n_fds : 2);
    /* It would set the interface to it, which takes a privilege. It tells the guest what the interface's is. */
    vf_jw_end(w, '}');
}

static void put_nics(struct vf_json_writer *w, const struct vf_vm_config *c)
{
    vf_jw_begin(w, "net", '[');
    for (int i = 0; i < c->n_nics; i++)
        if (!c->nics[i].n_fds)
            put_nic(w, c, i);
    vf_jw_end(w, ']');
}

/* What the serial port is: the agent's channel, our pipe for last words, or a port that swallows everything. */
static void put_serial(struct vf_json_writer *w, const char *key, const struct vf_vm_config *c)
{
    vf_jw_begin(w, key, '{');
    if (c->channel == VF_CHANNEL_SERIAL) {
        vf_jw_string(w, "mode", "Socket");
        vf_jw_string(w, "socket", VF_LINK_SOCKET_NAME);
    } else if (c->console) {
        vf_jw_string(w, "mode", "File");
        vf_jw_string(w, "file", "/proc/self/fd/1");
    } else
        vf_jw_string(w, "mode", "Null");
    vf_jw_end(w, '}');
}

char *vf_ch_create_body(const struct vf_vm_config *c)
{
    struct vf_json_writer w = {0};
    vf_jw_begin(&w, NULL, '{');
    vf_jw_begin(&w, "cpus", '{');
    vf_jw_int(&w, "boot_vcpus", c->vcpus);
    vf_jw_int(&w, "max_vcpus", c->vcpus);
    vf_jw_end(&w, '}');
    put_memory(&w, c);
    put_payload(&w, c);
    if (c->n_disks)
        put_disks(&w, c);
    if (c->n_nics)
        put_nics(&w, c);
    if (c->balloon) {
        vf_jw_begin(&w, "balloon", '{');
        vf_jw_int(&w, "size", 0);
        vf_jw_end(&w, '}');
    }
    if (c->channel == VF_CHANNEL_VSOCK) {
        vf_jw_begin(&w, "vsock", '{');
        vf_jw_int(&w, "cid", 3); /* the same in each VM: the socket tells them apart */
        vf_jw_string(&w, "socket", VF_LINK_VSOCK_NAME);
        vf_jw_end(&w, '}');
    }
    vf_jw_begin(&w, "rng", '{');
    vf_jw_string(&w, "src", "/dev/urandom");
    vf_jw_end(&w, '}');
    put_serial(&w, "serial", c);
    vf_jw_begin(&w, "console", '{');
    vf_jw_string(&w, "mode", "Off");
    vf_jw_end(&w, '}');
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

char *vf_ch_add_net_body(const struct vf_vm_config *c, int nic)
{
    struct vf_json_writer w = {0};
    put_nic(&w, c, nic);
    return vf_jw_finish(&w);
}

/* ---- a clone */

char *vf_ch_restore_body(const struct vf_vm_config *c, bool on_demand)
{
    struct vf_json_writer w = {0};
    bool any = false;
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "source_url", "file://" VF_CH_RESTORE_DIR);
    vf_jw_bool(&w, "prefault", false); /* it would end the sharing */
    if (on_demand)
        vf_jw_string(&w, "memory_restore_mode", "OnDemand");
    for (int i = 0; i < c->n_nics; i++) {
        char id[16];
        if (!c->nics[i].n_fds)
            continue;
        if (!any)
            vf_jw_begin(&w, "net_fds", '[');
        any = true;
        snprintf(id, sizeof(id), "net%d", i);
        vf_jw_begin(&w, NULL, '{');
        vf_jw_string(&w, "id", id);
        vf_jw_int(&w, "num_fds", c->nics[i].n_fds);
        vf_jw_end(&w, '}');
    }
    if (any)
        vf_jw_end(&w, ']');
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

struct edits {
    struct vf_ch_edit v[4 * (VF_VM_MAX_DISKS + VF_VM_MAX_NICS) + 16];
    size_t n;
    char *owned[VF_VM_MAX_DISKS + VF_VM_MAX_NICS + 4];
    size_t n_owned;
    bool failed;
};

__attribute__((format(printf, 3, 4))) static void edit(struct edits *e, const char *value,
                                                       const char *path, ...)
{
    va_list ap;
    va_start(ap, path);
    vsnprintf(e->v[e->n].path, sizeof(e->v[e->n].path), path, ap);
    va_end(ap);
    e->v[e->n++].value = value;
}

/* Takes text, which is malloc'd JSON. */
static const char *own(struct edits *e, char *text)
{
    e->failed |= !text;
    e->owned[e->n_owned++] = text;
    return text;
}

static const char *quoted(struct edits *e, const char *s)
{
    struct vf_json_writer w = {0};
    vf_jw_string(&w, NULL, s);
    return own(e, vf_jw_finish(&w));
}

/* The items of an array with an id each: where id is, -1 if it is not there. */
static int index_of(const struct vf_json *array, const char *id)
{
    const struct vf_json *item;
    for (int i = 0; (item = vf_json_at(array, (size_t)i)); i++)
        if (strcmp(vf_json_str(vf_json_get(item, "id"), ""), id) == 0)
            return i;
    return -1;
}

static int edit_memory(struct edits *e, const struct vf_vm_config *c, const struct vf_json *saved,
                       bool own_memory, struct vf_error *err)
{
    char file[40];
    const struct vf_json *memory = vf_json_get(saved, "memory");
    const struct vf_json *zones = vf_json_get(memory, "zones"), *zone = vf_json_at(zones, 0);
    int64_t size = vf_json_int(vf_json_get(zone, "size"), -1);
    if (!zone || vf_json_at(zones, 1) || vf_json_int(vf_json_get(memory, "size"), -1) != 0)
        return vf_fail(err, VF_CORRUPT, "its memory is not one zone");
    if (size < 0 || (uint64_t)size != c->memory_size)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "memory_size: what was saved has %lld bytes, the clone %llu",
                       (long long)size, (unsigned long long)c->memory_size);
    snprintf(file, sizeof(file), "\"/proc/self/fd/%d\"", VF_CH_FD_MEMORY);
    edit(e, "false", "memory.shared");
    edit(e, "false", "memory.prefault");
    edit(e, "false", "memory.mergeable");
    edit(e, "false", "memory.zones.0.shared");
    edit(e, "false", "memory.zones.0.prefault");
    edit(e, "false", "memory.zones.0.mergeable");
    edit(e, own_memory ? NULL : own(e, strdup(file)), "memory.zones.0.file");
    return 0;
}

static int edit_disks(struct edits *e, const struct vf_vm_config *c, const struct vf_json *saved,
                      struct vf_error *err)
{
    const struct vf_json *disks = vf_json_get(saved, "disks");
    if (vf_json_at(disks, (size_t)c->n_disks) ||
        (c->n_disks && !vf_json_at(disks, (size_t)c->n_disks - 1)))
        return vf_fail(err, VF_INVALID_ARGUMENT, "disks: what was saved has not as many (%d)",
                       c->n_disks);
    for (int i = 0; i < c->n_disks; i++) {
        char id[16];
        snprintf(id, sizeof(id), "disk%d", i);
        int at = index_of(disks, id);
        const struct vf_json *disk = at < 0 ? NULL : vf_json_at(disks, (size_t)at);
        if (!disk || vf_json_bool(vf_json_get(disk, "readonly"), false) != c->disks[i].readonly)
            return vf_fail(err, VF_INVALID_ARGUMENT, "disks[%d]: not as it was saved", i);
        bool qcow2 = strcmp(c->disks[i].format, "qcow2") == 0;
        edit(e, quoted(e, c->disks[i].path), "disks.%d.path", at);
        edit(e, qcow2 ? "\"Qcow2\"" : "\"Raw\"", "disks.%d.image_type", at);
        edit(e, qcow2 ? "true" : "false", "disks.%d.backing_files", at);
    }
    return 0;
}

static int edit_nics(struct edits *e, const struct vf_vm_config *c, const struct vf_json *saved,
                     struct vf_error *err)
{
    static const char *const invalid[VF_VM_MAX_QUEUE_PAIRS] = {"[-1]",
                                                               "[-1,-1]",
                                                               "[-1,-1,-1]",
                                                               "[-1,-1,-1,-1]",
                                                               "[-1,-1,-1,-1,-1]",
                                                               "[-1,-1,-1,-1,-1,-1]",
                                                               "[-1,-1,-1,-1,-1,-1,-1]",
                                                               "[-1,-1,-1,-1,-1,-1,-1,-1]"};
    const struct vf_json *nets = vf_json_get(saved, "net");
    if (vf_json_at(nets, (size_t)c->n_nics) ||
        (c->n_nics && !vf_json_at(nets, (size_t)c->n_nics - 1)))
        return vf_fail(err, VF_INVALID_ARGUMENT, "nics: what was saved has not as many (%d)",
                       c->n_nics);
    for (int i = 0; i < c->n_nics; i++) {
        char id[16];
        int n_fds = c->nics[i].n_fds;
        snprintf(id, sizeof(id), "net%d", i);
        int at = index_of(nets, id);
        const struct vf_json *net = at < 0 ? NULL : vf_json_at(nets, (size_t)at);
        if (!net || vf_json_int(vf_json_get(net, "num_queues"), -1) != (n_fds ? 2 * n_fds : 2))
            return vf_fail(err, VF_INVALID_ARGUMENT, "nics[%d]: not as many queues as were saved",
                           i);
        /* Numbers of descriptors are none of ours: the real ones come with the request. */
        edit(e, n_fds ? NULL : quoted(e, c->nics[i].tap), "net.%d.tap", at);
        edit(e, n_fds ? invalid[n_fds - 1] : NULL, "net.%d.fds", at);
    }
    return 0;
}

static int edit_channels(struct edits *e, const struct vf_vm_config *c, const struct vf_json *saved,
                         struct vf_error *err)
{
    struct vf_json_writer w = {0};
    bool has_vsock = vf_json_is_object(vf_json_get(saved, "vsock"));
    if (has_vsock != (c->channel == VF_CHANNEL_VSOCK))
        return vf_fail(err, VF_INVALID_ARGUMENT, "channel: what was saved has %s vsock",
                       has_vsock ? "a" : "no");
    if (c->balloon && !vf_json_is_object(vf_json_get(saved, "balloon")))
        return vf_fail(err, VF_INVALID_ARGUMENT, "balloon: what was saved has none");
    put_serial(&w, NULL, c);
    edit(e, own(e, vf_jw_finish(&w)), "serial");
    edit(e, "{\"mode\":\"Off\"}", "console");
    if (has_vsock)
        edit(e, "\"" VF_LINK_VSOCK_NAME "\"", "vsock.socket");
    return 0;
}

int vf_ch_clone_config(const struct vf_vm_config *c, const char *text, size_t len, bool own_memory,
                       char **ret, struct vf_error *err)
{
    struct edits e = {.n = 0};
    struct vf_json *saved = vf_json_parse(text, len);
    int r = vf_json_is_object(saved) ? 0 : vf_fail(err, VF_CORRUPT, "is no JSON object");
    if (r == 0)
        r = edit_memory(&e, c, saved, own_memory, err);
    if (r == 0)
        r = edit_disks(&e, c, saved, err);
    if (r == 0)
        r = edit_nics(&e, c, saved, err);
    if (r == 0)
        r = edit_channels(&e, c, saved, err);
    if (r == 0 && e.failed)
        r = vf_fail(err, VF_NO_MEMORY, "config");
    if (r == 0)
        r = vf_ch_patch(text, len, e.v, e.n, ret, err);
    for (size_t i = 0; i < e.n_owned; i++)
        free(e.owned[i]);
    vf_json_delete(saved);
    return r;
}

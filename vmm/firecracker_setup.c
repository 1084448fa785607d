/* What Firecracker is told before a guest can run: the requests of a set-up, in order, and the one of a restore. A
 * version knows no field that a later one brought (it answers with 400), so what is sent goes by the version.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "vmm/firecracker.h"

#define MIN_VERSION VF_FIRECRACKER_VERSION(1, 4, 0)     /* has the entropy device */
#define OVERRIDE_NET VF_FIRECRACKER_VERSION(1, 12, 0)   /* network_overrides */
#define ADVANCE_CLOCK VF_FIRECRACKER_VERSION(1, 15, 1)  /* clock_realtime */
#define NIC_MTU VF_FIRECRACKER_VERSION(1, 16, 0)        /* network-interfaces: mtu */
#define OVERRIDE_VSOCK VF_FIRECRACKER_VERSION(1, 16, 0) /* vsock_override */

int vf_firecracker_version(const char *text)
{
    unsigned v[3] = {0};
    if (sscanf(text, "%3u.%3u.%3u", &v[0], &v[1], &v[2]) < 2 || text[0] < '0' || text[0] > '9')
        return -1;
    return VF_FIRECRACKER_VERSION((int)v[0], (int)v[1], (int)v[2]);
}

int vf_firecracker_check_version(const struct vf_firecracker *f, struct vf_error *err)
{
    if (f->version < MIN_VERSION) {
        vf_fail(err, VF_UNSUPPORTED, "Firecracker %s is too old: at least 1.4 is needed",
                f->vm.info.version[0] ? f->vm.info.version : "without a version");
        return vf_hint(err, "install a newer one: github.com/firecracker-microvm/firecracker");
    }
    if (f->vm.incoming && f->n_nics && f->version < OVERRIDE_NET) {
        vf_fail(err, VF_UNSUPPORTED,
                "nics: Firecracker %s can't give a clone a tap of its own: at least 1.12 is needed",
                f->vm.info.version);
        return vf_hint(err, "install a newer one, or leave the NICs out of the template");
    }
    return 0;
}

/* ---- what can't be */

static int check_memory(const struct vf_vm_config *c, struct vf_error *err)
{
    struct stat st;
    if (fstat(c->memory_fd, &st) < 0)
        return vf_fail_errno(err, errno, "memory_fd");
    if (st.st_size < 0 || (uint64_t)st.st_size < c->memory_size)
        return vf_fail(err, VF_INVALID_ARGUMENT, "memory_fd: has %lld bytes, %llu are needed",
                       (long long)st.st_size, (unsigned long long)c->memory_size);
    if (!c->memory_shared || c->incoming)
        return 0;
    int flags = fcntl(c->memory_fd, F_GETFL), seals = fcntl(c->memory_fd, F_GET_SEALS);
    if ((flags & O_ACCMODE) == O_RDONLY ||
        (seals > 0 && seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)))
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "memory_fd: shared, but sealed or not open for writing");
    return 0;
}

static int check_nics(const struct vf_vm_config *c, struct vf_error *err)
{
    for (int i = 0; i < c->n_nics; i++) {
        const char *t = c->nics[i].tap;
        if (!t)
            return vf_fail(err, VF_UNSUPPORTED, "nics[%d]: Firecracker has none without a tap", i);
        if (!t[0] || strlen(t) > 15 || strpbrk(t, "/ \n"))
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "nics[%d]: tap: '%s' is no interface name (1 to 15 characters)", i, t);
    }
    return 0;
}

static int check(const struct vf_vm_config *c, struct vf_error *err)
{
    if (!c->binary || c->binary[0] != '/')
        return vf_fail(err, VF_INVALID_ARGUMENT, "binary: an absolute path is needed");
    if (c->machine != VF_MACHINE_MICROVM)
        return vf_fail(err, VF_UNSUPPORTED, "machine: Firecracker has microvm only");
    /* It runs in a directory of its own. */
    if ((c->kernel && c->kernel[0] != '/') || (c->initrd && c->initrd[0] != '/'))
        return vf_fail(err, VF_INVALID_ARGUMENT, "kernel, initrd: absolute paths are needed");
    for (int i = 0; i < c->n_disks; i++)
        if (!c->disks[i].path || c->disks[i].path[0] != '/')
            return vf_fail(err, VF_INVALID_ARGUMENT, "disks[%d]: path: must be absolute", i);
    int r = check_memory(c, err);
    return r < 0 ? r : check_nics(c, err);
}

/* ---- the requests */

static struct vf_firecracker_request *add(struct vf_firecracker *f, const char *path)
{
    struct vf_firecracker_request *r = &f->setup[f->n_setup++];
    r->method = "PUT";
    snprintf(r->path, sizeof(r->path), "%s", path);
    return r;
}

static void machine(struct vf_firecracker *f, const struct vf_vm_config *c)
{
    struct vf_json_writer w = {0};
    vf_jw_begin(&w, NULL, '{');
    vf_jw_int(&w, "vcpu_count", c->vcpus);
    vf_jw_int(&w, "mem_size_mib", (int64_t)(c->memory_size >> 20));
    vf_jw_end(&w, '}');
    add(f, "/machine-config")->body = vf_jw_finish(&w);
}

static void kernel(struct vf_firecracker *f, const struct vf_vm_config *c)
{
    struct vf_json_writer w = {0};
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "kernel_image_path", c->kernel);
    if (c->initrd)
        vf_jw_string(&w, "initrd_path", c->initrd);
    if (c->cmdline)
        vf_jw_string(&w, "boot_args", c->cmdline);
    vf_jw_end(&w, '}');
    add(f, "/boot-source")->body = vf_jw_finish(&w);
}

static void disk(struct vf_firecracker *f, const struct vf_vm_disk *d, int i)
{
    char path[40];
    struct vf_json_writer w = {0};
    snprintf(path, sizeof(path), "/drives/disk%d", i);
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "drive_id", path + 8);
    vf_jw_string(&w, "path_on_host", vf_firecracker_file_names[VF_FIRECRACKER_DISK + i]);
    vf_jw_bool(&w, "is_root_device", false); /* the command line says what the root is */
    vf_jw_bool(&w, "is_read_only", d->readonly);
    vf_jw_end(&w, '}');
    add(f, path)->body = vf_jw_finish(&w);
}

static char *nic_body(const struct vf_firecracker_nic *n, int i, bool with_mtu)
{
    char id[16], mac[18];
    struct vf_json_writer w = {0};
    snprintf(id, sizeof(id), "net%d", i);
    snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2],
             n->mac[3], n->mac[4], n->mac[5]);
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "iface_id", id);
    vf_jw_string(&w, "host_dev_name", n->tap);
    vf_jw_string(&w, "guest_mac", mac);
    if (with_mtu && n->mtu)
        vf_jw_int(&w, "mtu", n->mtu);
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

static void nic(struct vf_firecracker *f, int i)
{
    char path[40];
    snprintf(path, sizeof(path), "/network-interfaces/net%d", i);
    struct vf_firecracker_request *r = add(f, path);
    r->body = nic_body(&f->nics[i], i, false);
    f->nics[i].request = r;
}

int vf_firecracker_fit_setup(struct vf_firecracker *f, struct vf_error *err)
{
    for (int i = 0; i < f->n_nics && f->version >= NIC_MTU; i++) {
        struct vf_firecracker_request *r = f->nics[i].request;
        if (!r)
            continue;
        free(r->body);
        if (!(r->body = nic_body(&f->nics[i], i, true)))
            return vf_fail(err, VF_NO_MEMORY, "Firecracker's set-up");
    }
    return 0;
}

/* cid: any, for the host tells guests apart by their sockets. */
static void devices(struct vf_firecracker *f, const struct vf_vm_config *c)
{
    if (f->vsock)
        add(f, "/vsock")->body =
            strdup("{\"guest_cid\":3,\"uds_path\":\"" VF_LINK_VSOCK_NAME "\"}");
    add(f, "/entropy")->body = strdup("{}");
    if (c->balloon)
        add(f, "/balloon")->body = strdup("{\"amount_mib\":0,\"deflate_on_oom\":true}");
}

int vf_firecracker_prepare(struct vf_firecracker *f, const struct vf_vm_config *c,
                           struct vf_error *err)
{
    int r = check(c, err);
    if (r < 0)
        return r;
    f->balloon = c->balloon;
    f->vsock = c->channel == VF_CHANNEL_VSOCK;
    f->n_nics = c->n_nics;
    for (int i = 0; i < c->n_nics; i++) {
        snprintf(f->nics[i].tap, sizeof(f->nics[i].tap), "%s", c->nics[i].tap);
        memcpy(f->nics[i].mac, c->nics[i].mac, sizeof(f->nics[i].mac));
        f->nics[i].mtu = c->nics[i].mtu;
    }
    if (c->incoming)
        return 0;
    machine(f, c);
    if (c->kernel)
        kernel(f, c);
    for (int i = 0; i < c->n_disks; i++)
        disk(f, &c->disks[i], i);
    for (int i = 0; i < c->n_nics; i++)
        nic(f, i);
    devices(f, c);
    for (int i = 0; i < f->n_setup; i++)
        if (!f->setup[i].body)
            return vf_fail(err, VF_NO_MEMORY, "Firecracker's set-up");
    return 0;
}

void vf_firecracker_forget_setup(struct vf_firecracker *f)
{
    for (int i = 0; i < f->n_setup; i++)
        free(f->setup[i].body);
    f->n_setup = f->next_setup = 0;
}

/* The vsock's path is relative, so a version that knows no vsock_override does the same without: each clone
 * has the socket in its own directory. Time goes on for the guest as if it had slept; what does not know
 * clock_realtime leaves that to the agent. */
char *vf_firecracker_load_body(const struct vf_firecracker *f, const char *state_path)
{
    struct vf_json_writer w = {0};
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "snapshot_path", state_path);
    vf_jw_begin(&w, "mem_backend", '{');
    vf_jw_string(&w, "backend_type", "File");
    vf_jw_string(&w, "backend_path", VF_FIRECRACKER_MEMORY_PATH);
    vf_jw_end(&w, '}');
    vf_jw_bool(&w, "resume_vm", false);
    if (f->n_nics) {
        vf_jw_begin(&w, "network_overrides", '[');
        for (int i = 0; i < f->n_nics; i++) {
            char id[16];
            snprintf(id, sizeof(id), "net%d", i);
            vf_jw_begin(&w, NULL, '{');
            vf_jw_string(&w, "iface_id", id);
            vf_jw_string(&w, "host_dev_name", f->nics[i].tap);
            vf_jw_end(&w, '}');
        }
        vf_jw_end(&w, ']');
    }
    if (f->vsock && f->version >= OVERRIDE_VSOCK)
        vf_jw_raw(&w, "vsock_override", "{\"uds_path\":\"" VF_LINK_VSOCK_NAME "\"}");
#ifdef __x86_64__
    if (f->version >= ADVANCE_CLOCK)
        vf_jw_bool(&w, "clock_realtime", true);
#endif
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

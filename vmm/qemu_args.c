/* QEMU's command line from a VM's config.
 *
 * The machine of a clone must be the same as its template's, device by device: that is why both come
 * from this one function. They differ in share=, -incoming, and in what only a boot needs (kernel,
 * initrd, command line: without them QEMU starts 5 ms sooner). Sockets and memory are inherited
 * descriptors, so no path length or quoting matters; disks are JSON, for the same reason.
 *
 * x-ignore-shared must be the same at both ends; it is set by QMP, see qemu_migrate.c.
 */
#include "vmm/qemu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"

static void add(struct vf_qemu_args *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add_owned(struct vf_qemu_args *a, char *s)
{
    if (!s || a->argc == VF_QEMU_MAX_ARGS) {
        free(s);
        a->failed = true;
        return;
    }
    a->argv[a->argc++] = s;
    a->argv[a->argc] = NULL;
}

static void add(struct vf_qemu_args *a, const char *fmt, ...)
{
    char *s;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        s = NULL;
    va_end(ap);
    add_owned(a, s);
}

static void add2(struct vf_qemu_args *a, const char *option, const char *value)
{
    add(a, "%s", option);
    add(a, "%s", value);
}

/* The number fd will have in QEMU. */
static int inherit(struct vf_qemu_args *a, int fd)
{
    if (a->n_fds == VF_LAUNCH_MAX_FDS) {
        a->failed = true;
        return -1;
    }
    a->fds[a->n_fds] = fd;
    return VF_LAUNCH_FIRST_FD + a->n_fds++;
}

static void listener(struct vf_qemu_args *a, const char *id, int fd)
{
    add(a, "-chardev");
    add(a, "socket,id=%s,fd=%d,server=on,wait=off", id, inherit(a, fd));
}

static void image_file(struct vf_json_writer *w, const char *key, const char *path)
{
    vf_jw_begin(w, key, '{');
    vf_jw_string(w, "driver", "file");
    vf_jw_string(w, "filename", path);
    vf_jw_end(w, '}');
}

/* The whole chain is named here, so what an image's header says of its backing file is not believed. */
static void disk(struct vf_qemu_args *a, const struct vf_vm_disk *d, int i, const char *suffix)
{
    char node[16];
    snprintf(node, sizeof(node), "disk%d", i);
    struct vf_json_writer w = {0};
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "driver", d->format);
    vf_jw_string(&w, "node-name", node);
    vf_jw_bool(&w, "read-only", d->readonly);
    image_file(&w, "file", d->path);
    if (d->backing) {
        vf_jw_begin(&w, "backing", '{');
        vf_jw_string(&w, "driver", d->backing_format);
        vf_jw_bool(&w, "read-only", true);
        image_file(&w, "file", d->backing);
        if (d->backing2) {
            vf_jw_begin(&w, "backing", '{');
            vf_jw_string(&w, "driver", d->backing2_format);
            vf_jw_bool(&w, "read-only", true);
            image_file(&w, "file", d->backing2);
            vf_jw_end(&w, '}');
        }
        vf_jw_end(&w, '}');
    }
    vf_jw_end(&w, '}');
    add(a, "-blockdev");
    add_owned(a, vf_jw_finish(&w));
    add(a, "-device");
    add(a, "virtio-blk-%s,id=blk%d,drive=%s", suffix, i, node);
}

/* No vhost: its worker in the kernel would run outside QEMU's sandbox, and it has no part in what is saved. */
static void netdev(struct vf_qemu_args *a, const struct vf_vm_nic *n, int i)
{
    char fds[VF_VM_MAX_QUEUE_PAIRS * 4] = "";
    for (int k = 0; k < n->n_fds; k++) {
        size_t len = strlen(fds);
        snprintf(fds + len, sizeof(fds) - len, "%s%d", k ? ":" : "", inherit(a, n->fds[k]));
    }
    add(a, "-netdev");
    if (n->n_fds)
        add(a, "tap,id=net%d,fds=%s", i, fds);
    else
        add(a, "tap,id=net%d,ifname=%s,script=no,downscript=no", i, n->tap);
}

static void nic(struct vf_qemu_args *a, const struct vf_vm_nic *n, int i, bool pci)
{
    const uint8_t *m = n->mac;
    char peer[24] = "", mtu[24] = "", queues[32] = "";
    if (n->n_fds || n->tap) {
        netdev(a, n, i);
        snprintf(peer, sizeof(peer), ",netdev=net%d", i);
    }
    if (n->mtu)
        snprintf(mtu, sizeof(mtu), ",host_mtu=%d", n->mtu);
    if (n->n_fds > 1 && pci) /* an interrupt for each queue, for control and for changes */
        snprintf(queues, sizeof(queues), ",mq=on,vectors=%d", 2 * n->n_fds + 2);
    else if (n->n_fds > 1)
        snprintf(queues, sizeof(queues), ",mq=on");
    add(a, "-device");
    add(a, "virtio-net-%s,id=nic%d,mac=%02x:%02x:%02x:%02x:%02x:%02x%s%s%s%s",
        pci ? "pci" : "device", i, m[0], m[1], m[2], m[3], m[4], m[5], peer, mtu, queues,
        pci ? ",romfile=" : "");
}

/* A tap's name goes into a comma-separated option. */
static int check_names(const struct vf_vm_config *c, struct vf_error *err)
{
    for (int i = 0; i < c->n_nics; i++) {
        const char *t = c->nics[i].tap;
        if (t && (!t[0] || strlen(t) > 15 || strpbrk(t, ",= /\n")))
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "tap: '%s' is no interface name (1 to 15 characters, no comma)", t);
    }
    return 0;
}

int vf_qemu_args_build(struct vf_qemu_args *a, const struct vf_vm_config *c, enum vf_accel accel,
                       const struct vf_qemu_fds *fds, struct vf_error *err)
{
    *a = (struct vf_qemu_args){0};
    int r = check_names(c, err);
    if (r < 0)
        return r;
    bool q35 = c->machine == VF_MACHINE_Q35;
    const char *suffix = q35 ? "pci" : "device";

    add(a, "%s", c->binary);
    add(a, "-name");
    add(a, "%s,process=vm-%.11s", c->id, c->id);
    add(a, "-nodefaults");
    add(a, "-no-user-config");
    add(a, "-no-reboot");
    add2(a, "-display", "none");
    if (!c->no_sandbox)
        add2(a, "-sandbox",
             "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    add2(a, "-M",
         q35 ? "q35,memory-backend=ram,vmport=off,smbus=off,usb=off,graphics=off"
             : "microvm,acpi=on,rtc=on,memory-backend=ram");
    add2(a, "-accel", accel == VF_ACCEL_KVM ? "kvm" : "tcg");
    add2(a, "-cpu", accel == VF_ACCEL_KVM ? "host" : "max");
    add(a, "-smp");
    add(a, "%d", c->vcpus);
    add(a, "-m");
    add(a, "%lluM", (unsigned long long)(c->memory_size >> 20));
    add(a, "-object");
    add(a, "memory-backend-file,id=ram,size=%llu,mem-path=/proc/self/fd/%d,share=%s",
        (unsigned long long)c->memory_size, inherit(a, fds->memory),
        c->memory_shared ? "on" : "off");

    listener(a, "qmp", fds->qmp);
    add2(a, "-mon", "chardev=qmp,mode=control");
    if (c->channel == VF_CHANNEL_SERIAL) {
        listener(a, "agent", fds->agent);
        add2(a, "-serial", "chardev:agent");
    } else if (c->console) {
        listener(a, "console", fds->console);
        add2(a, "-serial", "chardev:console");
    } else
        add2(a, "-serial", "null"); /* the port is there all the same: it is part of the machine */
    if (c->channel == VF_CHANNEL_VIRTIO_SERIAL) {
        listener(a, "agent", fds->agent);
        add(a, "-device");
        add(a, "virtio-serial-%s,id=vserial", suffix);
        add2(a, "-device", "virtserialport,chardev=agent,name=vf.agent");
    }
    add2(a, "-object", "rng-builtin,id=rng");
    add(a, "-device");
    add(a, "virtio-rng-%s,rng=rng", suffix);
    if (c->balloon) {
        add(a, "-device");
        add(a, "virtio-balloon-%s,id=balloon,deflate-on-oom=on", suffix);
    }
    for (int i = 0; i < c->n_disks; i++)
        disk(a, &c->disks[i], i, suffix);
    for (int i = 0; i < c->n_nics; i++)
        nic(a, &c->nics[i], i, q35);

    if (c->incoming)
        add2(a, "-incoming", "defer");
    else {
        add(a, "-S");
        if (c->kernel)
            add2(a, "-kernel", c->kernel);
        if (c->initrd)
            add2(a, "-initrd", c->initrd);
        if (c->cmdline && c->kernel)
            add2(a, "-append", c->cmdline);
    }
    if (a->failed) {
        vf_qemu_args_free(a);
        return vf_fail(err, VF_NO_MEMORY, "QEMU's command line");
    }
    return 0;
}

void vf_qemu_args_free(struct vf_qemu_args *a)
{
    for (int i = 0; i < a->argc; i++)
        free(a->argv[i]);
    a->argc = 0;
}

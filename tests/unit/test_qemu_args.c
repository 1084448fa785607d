/* QEMU's command line: its NICs. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "vmm/qemu.h"

static const struct vf_qemu_fds fds = {100, 101, 102, 103};

static struct vf_vm_config base_config(void)
{
    return (struct vf_vm_config){
        .id = "vm",
        .binary = "/usr/bin/qemu",
        .vcpus = 2,
        .memory_size = 64 << 20,
        .n_nics = 1,
        .nics = {{.mac = {2, 0, 0, 0, 0, 0x1a}}},
    };
}

/* The argument after the option that begins so; "" if there is none. */
static const char *value_of(const struct vf_qemu_args *a, const char *option, const char *begin)
{
    for (int i = 0; i + 1 < a->argc; i++)
        if (strcmp(a->argv[i], option) == 0 && strncmp(a->argv[i + 1], begin, strlen(begin)) == 0)
            return a->argv[i + 1];
    return "";
}

/* What QEMU is told, in which @k stands for the number under which it has descriptor k of the NIC. */
static void must_be(const struct vf_vm_config *c, const char *netdev, const char *device)
{
    struct vf_qemu_args a;
    struct vf_error err;
    char want[200];
    size_t len = 0;
    cr_assert_eq(vf_qemu_args_build(&a, c, VF_ACCEL_TCG, &fds, &err), 0, "%s", err.msg);
    for (const char *p = netdev; *p; p++) {
        int number = -1;
        if (*p == '@')
            for (int i = 0, fd = c->nics[0].fds[*++p - '0']; i < a.n_fds; i++)
                if (a.fds[i] == fd)
                    number = VF_LAUNCH_FIRST_FD + i;
        len += (size_t)(number < 0 ? snprintf(want + len, sizeof(want) - len, "%c", *p)
                                   : snprintf(want + len, sizeof(want) - len, "%d", number));
    }
    want[len] = 0;
    cr_expect_str_eq(value_of(&a, "-netdev", ""), want);
    cr_expect_str_eq(value_of(&a, "-device", "virtio-net"), device);
    vf_qemu_args_free(&a);
}

Test(qemu_args, nics)
{
    struct vf_vm_config c = base_config();
    must_be(&c, "", "virtio-net-device,id=nic0,mac=02:00:00:00:00:1a");
    c.nics[0].tap = "tap7";
    must_be(&c, "tap,id=net0,ifname=tap7,script=no,downscript=no",
            "virtio-net-device,id=nic0,mac=02:00:00:00:00:1a,netdev=net0");
    c.nics[0].tap = NULL;
    c.nics[0].fds[0] = 50;
    c.nics[0].n_fds = 1;
    c.nics[0].mtu = 1500;
    must_be(&c, "tap,id=net0,fds=@0",
            "virtio-net-device,id=nic0,mac=02:00:00:00:00:1a,netdev=net0,host_mtu=1500");
    c.nics[0].fds[1] = 51;
    c.nics[0].n_fds = 2;
    must_be(&c, "tap,id=net0,fds=@0:@1",
            "virtio-net-device,id=nic0,mac=02:00:00:00:00:1a,netdev=net0,host_mtu=1500,mq=on");
    c.machine = VF_MACHINE_Q35;
    must_be(&c, "tap,id=net0,fds=@0:@1",
            "virtio-net-pci,id=nic0,mac=02:00:00:00:00:1a,netdev=net0,host_mtu=1500,mq=on,"
            "vectors=6,romfile=");
}

/* The clone's NIC is the template's: only descriptors differ. */
Test(qemu_args, a_clone_has_the_same_nic)
{
    struct vf_vm_config c = base_config();
    c.nics[0].fds[0] = 60;
    c.nics[0].n_fds = 1;
    c.incoming = true;
    must_be(&c, "tap,id=net0,fds=@0",
            "virtio-net-device,id=nic0,mac=02:00:00:00:00:1a,netdev=net0");
}

Test(qemu_args, all_descriptors_find_room)
{
    struct vf_vm_config c = base_config();
    struct vf_qemu_args a;
    struct vf_error err;
    c.n_nics = 1;
    c.nics[0].n_fds = VF_VM_MAX_QUEUE_PAIRS;
    c.channel = VF_CHANNEL_VIRTIO_SERIAL;
    c.console = true;
    for (int i = 0; i < VF_VM_MAX_QUEUE_PAIRS; i++)
        c.nics[0].fds[i] = 50 + i;
    c.n_nics = VF_VM_MAX_NICS;
    for (int i = 1; i < VF_VM_MAX_NICS; i++)
        c.nics[i] = c.nics[0];
    cr_assert_eq(vf_qemu_args_build(&a, &c, VF_ACCEL_TCG, &fds, &err), 0, "%s", err.msg);
    vf_qemu_args_free(&a);
}
